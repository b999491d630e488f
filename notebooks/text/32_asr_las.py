# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 32 · Speech to text: Listen, Attend and Spell
#
# Somebody says *seven two nine* into a telephone and a program writes `seven too nine`. How wrong is that, in
# one number? And how does a network turn 18,000 samples of sound into fourteen letters, when nobody ever told
# it which letter belongs to which sound?
#
# **You will be able to**
#
# - derive the edit distance, compute WER and CER with their parts S, D, I, C, say when WER exceeds 1, and
#   give its error bar;
# - build Listen, Attend and Spell: a pyramid of BiLSTMs, masked attention, a speller trained by teacher
#   forcing;
# - decode greedily and by beam search, and prove both against exhaustive search;
# - derive an interpolated letter model from a Dirichlet prior and compare its perplexity with the entropy of
#   its source;
# - add it by shallow fusion and by second-pass rescoring, and say when the two answers differ.
#
# **Prerequisites**: recurrent networks (an LSTM as a layer), softmax, conditional probability; log-mel
# spectrograms are used as a ready-made tool. How the pages work: [00 start here](00_start_here.ipynb).
#
# **Reading** 75 min + exercises 60 min · **Time** 90 s on 2 CPU cores · **Memory** 1 GB · **Data** digits by synthetic voices (full run: FSDD, recordings of six people) · **Exam questions** 11, 38, 39, 40
#
# **Exam route** question 11 → sections 1–3 (20 min) · question 38 → section 2 (15 min) · question 39 → sections 5, 6 (20 min) ·
# question 40 → sections 8–10 (30 min)
#
# <details><summary>Notation</summary>
#
# | symbol | in code | shape, unit |
# |---|---|---|
# | $r=(r_1,\dots,r_N)$, $h=(h_1,\dots,h_M)$: reference, hypothesis | `ref`, `hyp` | tokens: words or letters |
# | $d_{ij}$: edit distance of the first $i$ and $j$ tokens | `d` | $(N+1,M+1)$, edits |
# | $S$, $D$, $I$, $C$: substitutions, deletions, insertions, correct tokens | `S, D, I, C` | counts |
# | $e_k$, $N_k$: errors and reference tokens of utterance $k$; $K$: their number | `errors`, `sizes` | counts |
# | $x$: log-mel frames; $T$: their number | `x`, `lengths` | $(B,T,n)$, natural log |
# | $h^l_t$: output of listener layer $l$ at time $t$; $L$: layers of the pyramid | `h` | $(B,T_l,2d)$ |
# | $s_u$: state of the speller; $c_u$: context | `s`, `context` | $(B,d')$, $(B,2d)$ |
# | $\varepsilon_{ut}$, $\alpha_{ut}$: score and weight of attention | `energy`, `attention` | $(B,U,T')$ |
# | $y=(y_1,\dots,y_U)$, $y^*$: letters and the end sign, of any text, of the true one; $\lvert y\rvert=U-1$ letters | `tokens` | ids |
# | $V$: number of tokens; $B$: beam width | `n_tokens`, `beam` | integer ≥ 1 |
# | $\gamma$: length penalty | `length_penalty` | ≥ 0 |
# | $c(g,w)$, $c(g)$: how often $w$ followed the context $g$; how often $g$ came | `self.counts` | counts |
# | $\alpha$: weight of the shorter context; $g'$: $g$ without its first token | `alpha` | > 0 |
# | $p_n(w\mid g)$: letter model of order $n$ | `lm.log_probs` | probabilities |
# | $q_k$: probability that the next digit is the last one plus $k$, modulo 10 | `STEP` | sums to 1 |
# | $\lambda$: weight of the language model | `lam` | ≥ 0 |
#
# $h_j$ with one lower index is a word of the hypothesis, $h^l_t$ an output of the listener. $\alpha_{ut}$ with
# indices is a weight of attention, $\alpha$ without any the weight of a prior (`alpha` in code). In shapes $B$
# counts the utterances of a batch and $n$ the mel bands; from section 8 on $B$ is the width of the beam and $n$
# the order of the letter model.
#
# </details>
#
# <!-- navigation -->
# previous: [31 Sound features](31_sound_features.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [33 CTC and Jasper](33_ctc_jasper.ipynb)
# <!-- /navigation -->

# %% tags=["hide-input"]
import os, pathlib, subprocess, sys
REPO = os.environ.get("COURSE_REPO") or ""  # the course's address; COURSE_REPO overrides it
here = pathlib.Path.cwd()
homes = [p for p in (here, *here.parents, here / "course") if (p / "helpers/checks.py").exists()]
if not homes:  # a lone notebook: fetch the course beside it and install what it imports
    if not REPO: raise RuntimeError("Where is the course? %env COURSE_REPO=<address>, then again")
    subprocess.run(["git", "clone", "-q", "--depth", "1", REPO, "course"], check=True)
    subprocess.run([sys.executable, "course/helpers/install.py"], check=True)
sys.path.insert(0, str([*homes, here / "course"][0]))
from helpers import (break_it, check, claim, compare_speed, data, exercise, get_device, progress,
                     scheme, seed, timed, use_style)
seed(0); device = get_device(); use_style()

# %% tags=["hide-input"]
import csv
import itertools
import math
import os
import re
import time

import jiwer
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from ipywidgets import IntSlider, SelectionSlider, Text, interact
from matplotlib.patheffects import withStroke
from num2words import num2words
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from helpers import get_torchaudio, measured, play

PAGE = "32"
plt.rcParams["figure.dpi"] = 75
MEL_COLOURS, GREYS = plt.get_cmap("magma", 24), plt.get_cmap("Greys", 24)
WIDE = {"style": {"description_width": "9em"}, "layout": {"width": "34em"}}

# %% tags=["parameters", "hide-input"]
DATA = "digits"           # or "fsdd"
N_MAX = 3                 # digits in the longest training sequence
N_STEPS = 200             # of training
D_HIDDEN = 64             # of each direction of each listener layer
LR = 0.004
SPEED = 0.1               # recordings are played up to 10 % faster or slower in training
MEL_SHIFT = 0             # bands by which the mel axis is shifted in training
EXTRA_VOICES = False      # train on the bundled voices too
NOISE_TEST = 0.02         # noise added to the test utterances (speech: 0.1)
N_TEST = 90               # test sequences
N_DEV = 30                # sequences to choose λ on
UNSEEN = False            # three more trainings, each without two speakers
N_COMPARE = 0             # steps a net in the comparison of pyramids and curricula; 0: leave it out

# %% [markdown]
# ## 1. The idea: align first, then count
#
# Put the two texts under each other so that as few words as possible disagree. Three things can go wrong with
# a word: it was replaced, it was lost, or one was made up. Counting them is the whole of an error rate; the
# art lies in "as few as possible".

# %% tags=["hide-input"]
COLOURS = {"C": "#dfeadf", "S": "#f6d9a8", "D": "#e9b4b4", "I": "#b9cde8"}


def draw_pairs(ax, pairs, title=""):
    """Aligned tokens in two rows, one colour and one letter for each operation."""
    width = [max(len(str(t)) for t in (r, h) if t is not None) + 1 for _, r, h in pairs]
    left = np.cumsum([0, *width])
    for x, w, (op, r, h) in zip(left, width, pairs):
        for y, token in ((1, r), (0, h)):
            ax.add_patch(plt.Rectangle((x, y), w, 0.9, fc=COLOURS[op], ec="white"))
            ax.text(x + w / 2, y + 0.45, "·" if token is None else token, ha="center", va="center")
        ax.text(x + w / 2, -0.35, "" if op == "C" else op, ha="center", va="center", weight="bold")
    ax.set(xlim=(0, max(left[-1], 1)), ylim=(-0.8, 2.1), title=title)
    ax.axis("off")

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(7.2, 1.7))
draw_pairs(ax, [("C", "seven", "seven"), ("S", "two", "too"), ("I", None, "oh"),
                ("C", "nine", "nine"), ("D", "four", None)],
           "reference above, hypothesis below: 3 errors in 4 words")
plt.show()

# %% [markdown]
# The machine that writes the lower row has three parts. A **listener** reads the spectrogram and makes it
# shorter; a **speller** writes one letter after the other; between them **attention** decides, for every
# letter anew, where in the sound to look. A beam of half-written texts and a model of the language choose
# among what it could have written.

# %% tags=["hide-input"]
boxes = {"x": (0, 1, "sound, log-mel\n800 frames", "round"),
         "h": (1.25, 1, "listen\npyramid of BiLSTMs", "bold"),
         "a": (2.65, 1, "attend\nwhich of 100 places?", "bold"),
         "s": (4.35, 1, "spell\none letter a step", "bold"),
         "b": (5.7, 1.5, "beam search\nbest prefixes"), "y": (6.8, 1, "text", "round"),
         "l": (5.7, 0.5, "language model\nof letters")}
scheme(boxes, [("x", "h"), ("h", "a"), ("a", "s", "context", "left"), ("s", "a", "state", "left"),
               ("s", "b"), ("l", "b"), ("b", "y")], size=(10.4, 2.4))
plt.show()

# %% [markdown]
# ### Exercise 32.A · The smallest number of edits · ●●○ · 12 min
#
# Before you read on: how many single edits (replace, delete, insert a token) turn `ref` into `hyp`? Fill a
# table: `d[i][j]` is the answer for the first `i` tokens of one and the first `j` of the other.

# %%
def my_edit_distance(ref, hyp):
    """ref, hyp: lists of tokens. Returns the smallest number of edits, an int."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _edits(ref, hyp, border=True, match=0, replace=1, free=False):
    """The last cell of the table, and its famous errors."""
    d = [[(i + j) * border if i * j == 0 else 0 for j in range(len(hyp) + 1)]
         for i in range(len(ref) + 1)]
    for i, j in itertools.product(range(1, len(ref) + 1), range(1, len(hyp) + 1)):
        differ = ref[i - 1] != hyp[j - 1]
        gap = differ if free else 1
        d[i][j] = min(d[i - 1][j] + gap, d[i][j - 1] + gap,
                      d[i - 1][j - 1] + (replace if differ else match))
    return d[-1][-1]

# %% tags=["nbval-ignore-output", "hide-input"]
spoken = [("seven two nine four", "seven too oh nine"), ("a b c", "a b c"), ("", "x y"),
          ("x y z", ""), ("k i t t e n", "s i t t i n g"), ("a b", "b a a"), ("a", "a a"),
          ("a a", "b a")]
exercise("32.A", my_edit_distance, [((r.split(), h.split()), _edits(r.split(), h.split()))
                                    for r, h in spoken],
         mistakes={
    "your first row and column are zero: an empty text is not free":
    lambda r, h: _edits(r, h, border=False),
    "a match costs nothing, not one edit": lambda r, h: _edits(r, h, match=1),
    "a match is free on the diagonal only: a gap always costs one":
    lambda r, h: _edits(r, h, free=True),
    "a substitution is one edit, not a deletion and an insertion":
    lambda r, h: _edits(r, h, replace=2),
    "you compared position by position, without an alignment":
    lambda r, h: sum(a != b for a, b in zip(r, h)) + abs(len(r) - len(h))})

# %% [markdown]
# <details><summary>Hint 1</summary>Look at the last column of a best alignment. What can stand in it?</details>
# <details><summary>Hint 2</summary>Three cases: drop the last token of `ref`, drop that of `hyp`, or pair the two. Each leaves a smaller problem.</details>
# <details><summary>Hint 3</summary>`d[i][0] = i`, `d[0][j] = j`; then the smallest of three neighbours plus the cost of the case.</details>
# <details><summary>Solution 32.A</summary>
#
# ```python
# def my_edit_distance(ref, hyp):
#     row = list(range(len(hyp) + 1))
#     for i, r in enumerate(ref, 1):
#         new = [i]
#         for j, h in enumerate(hyp, 1):
#             new.append(min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (r != h)))
#         row = new
#     return row[-1]
# ```
#
# Only two rows of the table are needed at a time. Comparing position by position fails as soon as one word is
# missing at the front: everything behind it is shifted.
#
# </details>

# %% [markdown]
# ## 2. Edit distance and what it counts
#
# Let $d_{ij}$ be the smallest number of edits between $r_1\dots r_i$ and $h_1\dots h_j$. An alignment is a
# row of columns (one token above, one below, or a gap in one of the two). Take a best alignment and remove
# its last column. The column is $(r_i,\text{gap})$, $(\text{gap},h_j)$ or $(r_i,h_j)$, and what remains is an
# alignment of $(i-1,j)$, $(i,j-1)$ or $(i-1,j-1)$. It must be a *best* one: with a better one, the whole
# would be better too. So the minimum over the three cases is reached and nothing can be below it:
#
# $$d_{ij}=\min\big(d_{i-1,j}+1,\;d_{i,j-1}+1,\;d_{i-1,j-1}+[r_i\ne h_j]\big),\qquad d_{i0}=i,\;d_{0j}=j \tag{32.1}$$
#
# A few operations for each of $NM$ cells: $O(NM)$, where the number of alignments grows exponentially. Walking
# back from the corner along cells that explain their value gives one best alignment.

# %%
def tokens_of(ref, hyp):
    """Two sequences of tokens as lists; ValueError for a string against a list, or no sequence."""
    if isinstance(ref, str) != isinstance(hyp, str):
        raise ValueError("a string against a list: give two strings or two lists")
    try:
        return [x.tolist() if hasattr(x, "tolist") else list(x) for x in (ref, hyp)]
    except TypeError:
        raise ValueError(f"need two texts or sequences, got {ref!r} and {hyp!r}") from None


def edit_table(ref, hyp):
    """d of eq. (32.1) as a list of N + 1 rows of M + 1 integers."""
    ref, hyp = tokens_of(ref, hyp)
    d = [list(range(len(hyp) + 1))]
    for i, r in enumerate(ref, 1):
        d.append([i])
        for j, h in enumerate(hyp, 1):
            d[i].append(min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (r != h)))
    return d

# %%
def align(ref, hyp):
    """A best alignment of two sequences of tokens: [(op, r, h)], op in "C", "S", "D", "I".

    r is None for an insertion, h None for a deletion. Where several alignments are best, the walk
    back from the end takes a match, else a deletion, else an insertion. ValueError: a string
    against a list.
    """
    ref, hyp = tokens_of(ref, hyp)
    d, pairs, i, j = edit_table(ref, hyp), [], len(ref), len(hyp)
    while i or j:
        equal = i and j and ref[i - 1] == hyp[j - 1]
        if i and not equal and d[i][j] == d[i - 1][j] + 1:
            i -= 1
            pairs.append(("D", ref[i], None))
        elif j and not equal and d[i][j] == d[i][j - 1] + 1:
            j -= 1
            pairs.append(("I", None, hyp[j]))
        else:
            i, j = i - 1, j - 1
            pairs.append(("C" if equal else "S", ref[i], hyp[j]))
    return pairs[::-1]

# %%
def edit_ops(ref, hyp):
    """(S, D, I, C) of a best alignment of two sequences of tokens (a string: of characters)."""
    ops = [op for op, *_ in align(ref, hyp)]
    return tuple(ops.count(op) for op in "SDIC")

# %% [markdown]
# The table of *seven two nine four* against *seven too oh nine*, with the path that is walked back:

# %% tags=["hide-input"]
r_words, h_words = "seven two nine four".split(), "seven too oh nine".split()
d = np.array(edit_table(r_words, h_words))
steps = np.cumsum([(0, 0)] + [(r is not None, h is not None)
                              for _, r, h in align(r_words, h_words)], axis=0)
fig, ax = plt.subplots(figsize=(4.8, 3))
ax.imshow(d, cmap="Greys", vmax=8, aspect="auto")
ax.plot(steps[:, 1], steps[:, 0], "-", color="#d1601f", lw=9, alpha=0.35, solid_capstyle="round")
for (i, j), value in np.ndenumerate(d):
    ax.text(j, i, value, ha="center", va="center")
ax.set_xticks(range(5), ["", *h_words])
ax.set_yticks(range(5), ["", *r_words])
ax.set(xlabel="hypothesis $h_j$", ylabel="reference $r_i$", title="$d_{ij}$ (32.1)")
ax.grid(False)
plt.show()

# %% [markdown]
# The oracle tries **all** alignments, without a table; another library's distance joins it on random texts.

# %% tags=["hide-input"]
def _fewest_edits(r, h):
    """Smallest number of edits by recursion over every alignment."""
    if not r or not h:
        return len(r) + len(h)
    return min(_fewest_edits(r[1:], h) + 1, _fewest_edits(r, h[1:]) + 1,
               _fewest_edits(r[1:], h[1:]) + (r[0] != h[0]))


rng = np.random.default_rng(32)
pairs_short = [tuple("".join(rng.choice(list("ab c"), rng.integers(0, 6))) for _ in range(2))
               for _ in range(60)]
pairs_long = [tuple("".join(rng.choice(list("abcd"), rng.integers(5, 30))) for _ in range(2))
              for _ in range(40)]

# %%
check("32.1", "the corner of the table is the best of all alignments",
      [edit_table(r, h)[-1][-1] for r, h in pairs_short],
      [_fewest_edits(r, h) for r, h in pairs_short])
check("32.1", "long texts: the distance of torchaudio",
      [edit_table(r, h)[-1][-1] for r, h in pairs_long],
      [get_torchaudio().functional.edit_distance(r, h) for r, h in pairs_long])
check("32.1", "the alignment spends exactly the distance",
      [sum(edit_ops(r, h)[:3]) for r, h in pairs_long],
      [edit_table(r, h)[-1][-1] for r, h in pairs_long])
check("32.1", "it contains both texts, in order", all(
    [r for _, r, _ in align(*pair) if r is not None] == list(pair[0])
    and [h for *_, h in align(*pair) if h is not None] == list(pair[1]) for pair in pairs_long))

# %% [markdown]
# An alignment is a path through the table, and every token of the reference is on it exactly once: replaced,
# lost or correct. Hence $N=S+D+C$, and likewise $M=S+I+C$. The **word error rate** relates the errors to the
# length of the *reference*:
#
# $$\mathrm{WER}=\frac{S+D+I}{N}=\frac{S+D+I}{S+D+C} \tag{32.2}$$
#
# With characters for words it is the **character error rate**, where spaces are characters like all others:
#
# $$\mathrm{CER}=\frac{S_c+D_c+I_c}{N_c},\qquad N_c=\text{number of characters of the reference, spaces counted} \tag{32.3}$$
#
# For a corpus, errors and lengths are summed before they are divided.

# %%
def rate(refs, hyps, split):
    """Corpus-level error rate of two texts or two lists of texts, cut into tokens by `split`."""
    if isinstance(refs, str) and isinstance(hyps, str):
        refs, hyps = [refs], [hyps]
    refs, hyps = tokens_of(refs, hyps)
    if len(refs) != len(hyps):
        raise ValueError(f"{len(refs)} references, {len(hyps)} hypotheses: give one for each")
    if not all(isinstance(text, str) for text in (*refs, *hyps)):
        raise ValueError("texts must be strings; join lists of words with ' '.join(words) first")
    ops = [edit_ops(split(r), split(h)) for r, h in zip(refs, hyps)]
    errors, size = sum(S + D + I for S, D, I, C in ops), sum(S + D + C for S, D, I, C in ops)
    if not size:
        raise ValueError("the references hold no token: there is nothing to divide by")
    return errors / size

# %%
def wer(refs, hyps):
    """Word error rate (32.2) of two strings or two lists of strings; words by split()."""
    return rate(refs, hyps, str.split)

# %%
def cer(refs, hyps):
    """Character error rate (32.3) of two strings or two lists of strings; spaces count."""
    return rate(refs, hyps, list)

# %%
fox, brow = "Quick brown fox jumped over a lazy dog", "Quick brow an fox jumped over a lazy dog"
print(f"S, D, I, C of words {edit_ops(fox.split(), brow.split())}: WER {wer(fox, brow):.3f}; "
      f"of characters {edit_ops(fox, brow)}: CER {cer(fox, brow):.4f}")

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 1, figsize=(8.6, 3.2), height_ratios=[1, 1])
draw_pairs(axes[0], align(fox.split(), brow.split()), "words: S = 1, I = 1, C = 7")
draw_pairs(axes[1], align(fox[:18], brow[:20]), "letters of the beginning: I = 2, and nothing else")
plt.show()

# %% tags=["hide-input"]
vocabulary = ["one", "two", "three", "oh"]
texts = [tuple(" ".join(rng.choice(vocabulary, rng.integers(1, 9))) for _ in range(2))
         for _ in range(50)]
by_jiwer = [jiwer.process_words(r, h) for r, h in texts]
ours = [edit_ops(r.split(), h.split()) for r, h in texts]

# %%
check("32.2", "WER of single texts is jiwer's", [wer(r, h) for r, h in texts],
      [o.wer for o in by_jiwer], atol=1e-12)
check("32.2", "S + D + I is jiwer's", [sum(o[:3]) for o in ours],
      [o.substitutions + o.deletions + o.insertions for o in by_jiwer])
check("32.2", "N = S + D + C and M = S + I + C",
      [[S + D + C, S + I + C] for S, D, I, C in ours],
      [[len(r.split()), len(h.split())] for r, h in texts])
check("32.2", "of a corpus as well", wer(*zip(*texts)), jiwer.wer(*map(list, zip(*texts))),
      atol=1e-12)
check("32.3", "CER counts spaces as jiwer does", [cer(r, h) for r, h in [*texts, (fox, brow)]],
      [jiwer.cer(r, h) for r, h in [*texts, (fox, brow)]], atol=1e-12)

# %% [markdown]
# **The split is not unique.** $S+D+I$ is the distance and has one value, but several best alignments may
# share it. For `a b` heard as `b c`: two substitutions, or one deletion and one insertion. Another program
# may report another split of the same WER, so never compare systems by $S$ alone.

# %%
both = [[("S", "a", "b"), ("S", "b", "c")], [("D", "a", None), ("C", "b", "b"), ("I", None, "c")]]
claim("two alignments of the same cost, with other S, D, I",
      [sum(op != "C" for op, *_ in pairs) for pairs in both], [edit_table("ab", "bc")[-1][-1]] * 2)

# %% [markdown]
# **Predict.** Ten words were spoken, and the machine wrote twelve words that are all wrong. What is the WER?
# What is the WER of an empty text, and what is the largest possible one? Type and see.

# %% tags=["hide-input"]
def draw_alignment(ref="seven two nine four", hyp="seven too oh nine"):
    """The coloured alignment of two typed texts, its counts and rates."""
    if not ref.split():
        print("The reference is empty: there is nothing to divide by.")
        return
    fig, ax = plt.subplots(figsize=(8.6, 1.6))
    S, D, I, C = edit_ops(ref.split(), hyp.split())
    rates = f"WER {wer(ref, hyp):.2f},  CER {cer(ref, hyp):.2f},  accuracy {1 - wer(ref, hyp):.2f}"
    draw_pairs(ax, align(ref.split(), hyp.split()), f"S {S}, D {D}, I {I}, C {C}:  {rates}")
    plt.show()


draw_alignment()
draw_alignment("wreck a nice beach", "recognise speech")

# %% tags=["nbval-ignore-output"]
interact(draw_alignment, ref=Text("seven two nine four", description="said",
                                  continuous_update=False, **WIDE),
         hyp=Text("seven too oh nine", description="written", continuous_update=False, **WIDE));

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# Twelve wrong words for ten: ten substitutions and two insertions, WER 1.2. An empty text loses every word,
# so its WER is exactly one. There is no largest WER: each further word adds $1/N$.
#
# </details>
#
# The **word accuracy** is what is left,
#
# $$\mathrm{Acc}=1-\mathrm{WER}=\frac{C-I}{N}\ \in(-\infty,1] \tag{32.4}$$
#
# (insert $N=S+D+C$). It is negative as soon as more words were inserted than recognised, so neither of the
# two is a probability.

# %%
ten, twelve = " ".join("abcdefghij"), " ".join("ABCDEFGHIJKL")
check("32.4", "accuracy is (hits - insertions) / N, with jiwer's hits and insertions",
      [1 - wer(r, h) for r, h in texts], [(o.hits - o.insertions) / len(r.split())
                                          for o, (r, _) in zip(by_jiwer, texts)],
      atol=1e-12)
check("32.4", "E20: twelve wrong words for ten: accuracy -20 %", 1 - wer(ten, twelve), -0.2,
      atol=1e-12)

# %% [markdown]
# ## 3. Error rates of a corpus
#
# **Sum first.** The corpus rate is a mean of the single rates in which long utterances count more:
#
# $$\mathrm{WER}=\frac{\sum_ke_k}{\sum_kN_k}=\sum_k\frac{N_k}{\sum_jN_j}\cdot\frac{e_k}{N_k} \tag{32.5}$$
#
# The plain mean of ratios answers another question (the expected rate of a random utterance) and can rank two
# systems the other way round. One-word answers are why: one slip there is a rate of 1.

# %%
said = ["yes", "no", "please send the red book to my brother in the old town"]
system_1 = ["yet", "no", "please send the red book to my brother in the old town"]
system_2 = ["yes", "no", "please sent a red book to my brother in an old town"]
table = pd.DataFrame({
    name: {"corpus WER": wer(said, h), "mean of ratios": np.mean(list(map(wer, said, h)))}
    for name, h in (("system 1", system_1), ("system 2", system_2))})
table.round(3)

# %%
sizes = [len(r.split()) for r in said]
check("32.5", "the weighted mean of single rates is jiwer's corpus rate",
      [np.average([wer(r, x) for r, x in zip(said, h)], weights=sizes)
       for h in (system_1, system_2)],
      [jiwer.wer(said, h) for h in (system_1, system_2)], atol=1e-12)
claim("the two ways rank the systems differently",
      bool(table.loc["corpus WER"].argmin() == 0 and table.loc["mean of ratios"].argmin() == 1))

# %% [markdown]
# **Normalise before scoring.** `Two, please!` against `2 please` is no error of hearing. Both sides are
# brought to one form: lower case, no punctuation, numbers as words. What exactly is done belongs to every
# published rate; and it must be done to both sides.

# %%
ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen")
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"

# %%
def number_words(n):
    """0 <= n < 100 in words, as it is spoken."""
    if n < 20:
        return ONES.split()[n]
    return " ".join([TENS.split()[n // 10 - 2], *([ONES.split()[n % 10]] if n % 10 else [])])

# %%
def normalise(text):
    """Lower case, numbers below 100 as words, no punctuation, single spaces."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.lower().replace("’", "'"))        # 1,000
    text = re.sub(r"(?<![\d.])\d{1,2}(?![\d.]*\d)", lambda m: f" {number_words(int(m[0]))} ", text)
    return " ".join(re.sub(r"(?<!\w)'|'(?!\w)|[^\w' ]", " ", text).split())

# %%
print(normalise("Two, please: 42!"), "|", normalise("2 please. Forty-two"))
claim("numbers are spelled as num2words spells them",
      all(number_words(n) == num2words(n).replace("-", " ") for n in range(100)))
claim("normalised, the two texts agree; as they stand, every word is wrong",
      [wer("Two, please!", "2 please"), wer(normalise("Two, please!"), normalise("2 please"))],
      [1.0, 0.0])

# %% [markdown]
# ### Exercise 32.B · The rate of a corpus · ●○○ · 6 min
#
# You get the counts of every utterance. Return the WER of the corpus.

# %%
def my_corpus_wer(counts):
    """counts: list of (S, D, I, C), one tuple per utterance. Returns a float."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _corpus(counts, denominator):
    return sum(S + D + I for S, D, I, C in counts) / sum(denominator(*c) for c in counts)


uneven = [[(1, 0, 0, 0), (0, 2, 1, 9), (2, 0, 3, 5)], [(0, 0, 2, 0), (1, 1, 1, 4)], [(3, 0, 2, 0)]]
exercise("32.B", my_corpus_wer, [((c,), _corpus(c, lambda S, D, I, C: S + D + C)) for c in uneven],
         mistakes={
    "you divided by the length of the hypothesis":
    lambda c: _corpus(c, lambda S, D, I, C: S + I + C),
    "you divided by the number of columns of the alignment":
    lambda c: _corpus(c, lambda S, D, I, C: S + D + I + C),
    "you divided by the correct words only": lambda c: _corpus(c, lambda S, D, I, C: max(C, 1)),
    "you forgot the insertions": lambda c: sum(S + D for S, D, I, C in c)
    / sum(S + D + C for S, D, I, C in c),
    "an empty reference counts too: its insertions are errors":
    lambda c: _corpus([x for x in c if x[0] + x[1] + x[3]], lambda S, D, I, C: S + D + C),
    "you averaged the rates of the utterances":
    lambda c: sum((S + D + I) / max(S + D + C, 1) for S, D, I, C in c) / len(c)})

# %% [markdown]
# <details><summary>Hint 1</summary>Two sums, one division.</details>
# <details><summary>Hint 2</summary>The reference has $S+D+C$ words. One utterance here has an empty reference: its insertions count all the same.</details>
# <details><summary>Solution 32.B</summary>
#
# ```python
# def my_corpus_wer(counts):
#     errors = sum(S + D + I for S, D, I, C in counts)
#     return errors / sum(S + D + C for S, D, I, C in counts)
# ```
#
# </details>
#
# **How sure is a WER?** Errors come in clusters, so words are not independent. In our tests the cluster is the
# *voice*: draw voices, not utterances, when the claim is about new speakers. The bootstrap draws $K$ such units
# with replacement, recomputes the ratio of the sums, and repeats; the middle 95 % of the results are an
# interval. With ten units it is too short: it holds the truth in fewer than 90 of 100 corpora. For large $K$
# its spread has a formula: the error of a ratio $\sum e_k/\sum N_k$ is, to first order, that of
# $\sum(e_k-\mathrm{WER}\,N_k)$ divided by $\sum N_k$ (the expected sum is zero), and the variance of a sum of
# independent terms is estimated by the sum of their squares:
#
# $$\widehat{\mathrm{se}}=\frac{\sqrt{\sum_k(e_k-\mathrm{WER}\cdot N_k)^2}}{\sum_kN_k} \tag{32.6}$$

# %%
def bootstrap_rates(errors, sizes, n_draws=2000, seed=0):
    """Rates (n_draws,) of corpora drawn from this one, utterance by utterance."""
    errors, sizes = np.asarray(errors), np.asarray(sizes)
    rows = np.random.default_rng(seed).integers(len(errors), size=(n_draws, len(errors)))
    return errors[rows].sum(1) / sizes[rows].sum(1)


def summed(values, groups):
    """The sum of the values (K,) of each group, the groups in the order of their names."""
    names = sorted(set(groups))
    return np.array([sum(v for v, g in zip(values, groups) if g == name) for name in names])


def wer_with_interval(refs, hyps, split=str.split, groups=None):
    """(rate, standard error, low, high): nominal 95 % interval, too short below some 30 groups.

    groups: one name (of a voice) for each text; then groups are drawn, not texts. ValueError: no
    two lists of texts of one length, one group only, draws without a reference token.
    """
    groups = range(len(refs)) if groups is None else list(groups)
    if isinstance(refs, str) or len(groups) != len(refs):
        raise ValueError("need two lists of texts, and a group for each text or no groups")
    mean_rate = rate(refs, hyps, split)
    ops = [edit_ops(split(r), split(h)) for r, h in zip(refs, hyps)]
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = bootstrap_rates(summed([sum(o[:3]) for o in ops], groups),
                                summed([o[0] + o[1] + o[3] for o in ops], groups))
    if len(set(groups)) < 2 or not np.isfinite(rates).all():
        raise ValueError("no interval: need two groups at least, each with a reference token")
    return mean_rate, float(rates.std()), *map(float, np.quantile(rates, [0.025, 0.975]))

# %%
sizes = rng.integers(3, 12, 400)
errors = rng.binomial(sizes, rng.choice([0.02, 0.5], 400))         # some utterances are hard
W = errors.sum() / sizes.sum()
linear = np.sqrt(((errors - W * sizes) ** 2).sum()) / sizes.sum()
rates = bootstrap_rates(errors, sizes, n_draws=8000)
check("32.6", "the spread of the bootstrap is the formula", rates.std(), linear, rtol=0.03)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6.4, 2.6))
ax.hist(rates, bins=50, color="#bbbbbb", density=True)
grid_w = np.linspace(rates.min(), rates.max(), 200)
independent = np.sqrt(W * (1 - W) / sizes.sum())
for sd, name in ((linear, "utterances are the units (32.6)"),
                 (independent, "words as if independent")):
    ax.plot(grid_w, np.exp(-0.5 * ((grid_w - W) / sd) ** 2) / sd / math.sqrt(2 * math.pi),
            label=name)
ax.set(xlabel="WER of a resampled corpus", ylabel="density")
fig.legend(loc="outside lower center", ncols=2)
plt.show()

# %%
claim("treating words as independent understates the spread on this corpus",
      independent / rates.std(), below=0.8, trivial=1.0)

# %% [markdown]
# ## 4. The task: digits, spelled
#
# Fifty synthetic voices say the ten digits. We join recordings of one voice, with 25–175 ms of silence
# between them and a little noise, and ask for the letters: `seven two nine`. 15 letters and the space are in
# use; two more signs mark start and end. Nobody tells the network where a letter sounds. The last ten voices
# are for the test only: no pair of accent and variant, and no recorded speaker, is among the others.

# %%
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LETTERS = " efghinorstuvwxz"
BOS = 16
EOS = 17
N_TOKENS = 18

# %%
def encode(text):
    """Token ids of a text; ValueError names the characters that no digit contains."""
    unknown = sorted(set(text) - set(LETTERS))
    if unknown:
        raise ValueError(f"no token for {unknown}: the alphabet is {LETTERS!r}; normalise first")
    return [LETTERS.index(c) for c in text]

# %%
def decode(tokens):
    """The text of token ids, start and end signs left out; ValueError for ids out of range."""
    if not all(0 <= t < N_TOKENS for t in tokens):
        raise ValueError(f"token ids run from 0 to {N_TOKENS - 1}, got {list(tokens)}")
    return "".join(LETTERS[t] for t in tokens if t < len(LETTERS))

# %%
recorded = data.sounds(DATA)
if DATA == "fsdd":          # official split: takes 0-4 are the test; 5-9 choose λ
    role = ["test" if take < 5 else "dev" if take < 10 else "train" for take in recorded.take]
else:                       # the last ten voices are for tests; four more choose λ
    role = ["test" if voice >= "v40" else "dev" if voice >= "v36" else "train"
            for voice in recorded.speaker]

# %%
def takes_of(keep, sounds=None):
    """{voice: {digit: recordings}} of the recordings for which keep(k) holds, k their number."""
    sounds, found = sounds or recorded, {}
    for k, (x, word) in enumerate(zip(sounds.sound, sounds.text)):
        if keep(k):
            found.setdefault(sounds.speaker[k], {}).setdefault(WORDS.index(word), []).append(x)
    return found

# %%
voices = {part: takes_of(lambda k: role[k] == part and recorded.speaker[k] != "slt")
          for part in ("train", "dev", "test")}
contents = [{x.numpy().tobytes() for takes in pool.values() for row in takes.values() for x in row}
            for pool in voices.values()]
claim("training, development and test share no recording", len(set().union(*contents)),
      sum(map(len, contents)))
print({part: f"{len(takes)} voices" for part, takes in voices.items()})

# %%
def uniform(generator, low, high):
    """One number from low to high, a float."""
    return low + (high - low) * float(torch.rand((), generator=generator))

# %%
def say(takes, digits, generator, speed=0.0, noise=0.003):
    """One voice says digits: (T,) samples, every recording with standard deviation 0.1."""
    tempo = 1 + uniform(generator, -speed, speed)
    pause = lambda: torch.zeros(int(uniform(generator, 200, 1400)))
    parts = [pause()]
    for digit in digits:
        x = takes[digit][int(torch.randint(len(takes[digit]), (), generator=generator))]
        if speed:
            x = F.interpolate(x[None, None], scale_factor=tempo, mode="linear")[0, 0]
        parts += [0.1 * x / x.std(), pause()]
    sound = torch.cat(parts)
    return sound + noise * torch.randn(len(sound), generator=generator)

# %% [markdown]
# What the network gets is the log-mel spectrogram: 40 bands, a frame of 32 ms every 12.5 ms, the mean of each
# band removed and the whole scaled to variance 1, so that a loud recording and a soft one look alike. It is
# torchaudio's; which steps it consists of and what each of them loses is a lecture of its own.

# %%
N_MELS = 40
HOP = 100                # samples
FRAME = 256              # samples

# %%
def valid_frames(lengths, T):
    """(B, T) bool: which frames belong to the utterance."""
    return torch.arange(T, device=lengths.device) < lengths[:, None]

# %%
def log_mel_batch(sounds):
    """Normalised log-mel (B, T, 40) and frames (B,) of a list of sounds (T_k,) at 8 kHz; silence
    gives zeros. ValueError: no sound, or one shorter than a frame.
    """
    sounds = [torch.as_tensor(x, dtype=torch.float32) for x in sounds]
    if not sounds or min(x.ndim for x in sounds) != 1 or min(map(len, sounds)) < FRAME:
        raise ValueError(f"need sounds (T,) of at least {FRAME} samples each: pad shorter ones")
    mel = get_torchaudio().transforms.MelSpectrogram(8000, FRAME, hop_length=HOP, n_mels=N_MELS,
                                                     center=False).to(sounds[0].device)
    samples = torch.tensor([len(x) for x in sounds], device=sounds[0].device)
    S = mel(pad_sequence(sounds, batch_first=True)).clamp(min=1e-10).log().mT  # (B, T, n)
    lengths = 1 + (samples - FRAME) // HOP
    valid = valid_frames(lengths, S.shape[1])[:, :, None]  # (B, T, 1)
    size = lengths[:, None, None]
    S = torch.where(valid, S - (S * valid).sum(1, keepdim=True) / size, 0.0)
    scale = (S.square().sum((1, 2), keepdim=True) / size / N_MELS).sqrt()
    return S / scale.clamp(min=1e-5), lengths

# %%
g = torch.Generator().manual_seed(1)
names = sorted(voices["test"])[:2]
digits_shown = [[7, 2, 9], [3, 0]]
shown_sounds = [say(voices["test"][name], digits, g) for name, digits in zip(names, digits_shown)]
x, lengths = log_mel_batch(shown_sounds)
claim("a loud recording and a soft one look alike", log_mel_batch([5 * y for y in shown_sounds])[0],
      x, atol=1e-3)

# %% tags=["hide-input"]
def draw_wave(ax, sound, step=40):
    """The largest and smallest sample of every 5 ms."""
    parts = sound.numpy()[:len(sound) // step * step].reshape(-1, step)
    start = np.arange(len(parts)) * step / 8000
    ax.fill_between(start, parts.min(1), parts.max(1), color="#1b4f8f", lw=0)


fig, axes = plt.subplots(2, 1, figsize=(8, 3.4), sharex=True, dpi=60)
draw_wave(axes[0], shown_sounds[0])
axes[0].set(ylabel="amplitude", title="seven two nine, one voice")
axes[1].imshow(x[0, :lengths[0]].T, origin="lower", aspect="auto", cmap=MEL_COLOURS,
               extent=(0, int(lengths[0]) * HOP / 8000, 0, N_MELS))
axes[1].set(xlabel="time, s", ylabel="mel band")
axes[1].grid(False)
plt.show()

# %% tags=["nbval-ignore-output"]
play({f"{name}: {' '.join(WORDS[d] for d in digits)}": sound / sound.abs().max()
      for name, digits, sound in zip(names, digits_shown, shown_sounds)})

# %% [markdown]
# ## 5. Listen: why a pyramid
#
# A BiLSTM reads the frames forwards and backwards, so that its output at every time knows the whole
# utterance. Why not attend to its outputs directly? Every letter would have to choose among all frames, 800
# in ten seconds.
# Neighbouring frames say nearly the same; the choice is hard to learn and dear to compute. So the listener
# **halves time** at every further layer: it puts two neighbouring outputs of the layer below side by side and
# reads the pairs,
#
# $$h^l_t=\mathrm{BiLSTM}\big(h^l_{t-1},\,[h^{l-1}_{2t};\,h^{l-1}_{2t+1}]\big),\qquad t=0,1,\dots,\lceil T_{l-1}/2\rceil-1 \tag{32.7}$$
#
# with a zero frame where the last partner is missing. (The state that comes from $t-1$ belongs to the forward
# half; the backward half gets it from $t+1$.) Since $\lceil\lceil T/2\rceil/2\rceil=\lceil T/4\rceil$ and so
# on, $L$ such layers leave
#
# $$T'=\lceil T/2^L\rceil \tag{32.8}$$
#
# places: 800 frames become 100 with three layers. Stacking the outputs of several *layers* instead (E60)
# would make the vectors longer and leave all 800.
#
# ### Exercise 32.C · Pairs of frames · ●●○ · 8 min
#
# Put neighbouring frames side by side; an odd last one gets a partner of zeros.

# %%
def my_pair_frames(x):
    """x (B, T, d). Returns (B, ceil(T / 2), 2 d)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _pairs_by_hand(x, order=lambda a, b: [a, b], keep_last=True, gap=1):
    """Frame 2t beside frame 2t + 1, by a loop, and its famous errors."""
    B, T, d = x.shape
    half, last = T // 2, T if keep_last or T % 2 == 0 else T - 1
    rows = [(t, t + 1) for t in range(0, last, 2)] if gap else [(t, t + half) for t in range(half)]
    frame = lambda t: x[:, t] if t < T else torch.zeros(B, d)
    return torch.stack([torch.cat(order(frame(a), frame(b)), 1) for a, b in rows], 1)

# %% tags=["nbval-ignore-output", "hide-input"]
frames = [torch.arange(24.0).reshape(2, 4, 3), torch.arange(10.0).reshape(1, 5, 2) - 3,
          torch.ones(3, 1, 2)]
exercise("32.C", my_pair_frames, [((f,), _pairs_by_hand(f)) for f in frames], mistakes={
    "you dropped an odd last frame": lambda x: _pairs_by_hand(x, keep_last=False),
    "you paired the first half with the second half": lambda x: _pairs_by_hand(x, gap=0),
    "the partner of an odd last frame is zeros, not the frame again":
    lambda x: _pairs_by_hand(torch.cat([x, x[:, -1:]], 1) if x.shape[1] % 2 else x),
    "the earlier frame comes first": lambda x: _pairs_by_hand(x, order=lambda a, b: [b, a]),
    "you mixed frames and channels: bring the pair into one row, do not interleave":
    lambda x: _pairs_by_hand(x, order=lambda a, b: [torch.stack([a, b], 2).flatten(1)])})

# %% [markdown]
# <details><summary>Hint 1</summary>`F.pad(x, (0, 0, 0, T % 2))` adds a frame behind.</details>
# <details><summary>Hint 2</summary>Memory holds frame after frame. What does `reshape(B, T // 2, 2 * d)` do?</details>
# <details><summary>Solution 32.C</summary>
#
# ```python
# def my_pair_frames(x):
#     B, T, d = x.shape
#     return F.pad(x, (0, 0, 0, T % 2)).reshape(B, (T + 1) // 2, 2 * d)
# ```
#
# </details>
#
# **Padding.** Utterances of one batch have different lengths and are filled up. Reading forwards this does no
# harm to what came before; reading backwards it would come *first*. So the backward half turns round the
# valid part of each row and leaves the padding behind it. Whatever stands in the padding, no valid number
# changes.

# %%
def flip_valid(x, lengths):
    """x (B, T, d) with the first lengths[k] frames of row k in reverse order, the rest in place."""
    B, T, d = x.shape
    at = torch.arange(T, device=x.device)
    source = torch.where(valid_frames(lengths, T), lengths[:, None] - 1 - at, at)          # (B, T)
    return x.gather(1, source[:, :, None].expand(B, T, d))

# %%
def pair_frames(x):
    """x (B, T, d) -> (B, ceil(T / 2), 2 d): neighbours side by side, zeros if there is none."""
    B, T, d = x.shape
    return F.pad(x, (0, 0, 0, T % 2)).reshape(B, (T + 1) // 2, 2 * d)

# %%
class BiLSTM(nn.Module):
    """Two LSTMs, blind to padding: x (B, T, d_in), lengths (B,) -> (B, T, 2 d_hidden)."""

    def __init__(self, d_in, d_hidden):
        super().__init__()
        self.ahead = nn.LSTM(d_in, d_hidden, batch_first=True)
        self.back = nn.LSTM(d_in, d_hidden, batch_first=True)

    def forward(self, x, lengths):
        valid = valid_frames(lengths, x.shape[1])[:, :, None]  # (B, T, 1)
        x = torch.where(valid, x, 0.0)
        ahead = self.ahead(x)[0]  # (B, T, d_hidden)
        back = flip_valid(self.back(flip_valid(x, lengths))[0], lengths)
        return torch.where(valid, torch.cat([ahead, back], 2), 0.0)

# %%
def batch_for(module, x, d):
    """x as a tensor (B, T, d) of the type and device of a module's weights; ValueError if not."""
    w = next(module.parameters())
    x = torch.as_tensor(x, dtype=w.dtype, device=w.device)
    if x.ndim != 3 or x.shape[2] != d:
        raise ValueError(f"need a batch (B, T, {d}), got {tuple(x.shape)}")
    return x


def checked_lengths(x, lengths):
    """lengths as int64 beside x (B, T, ...); ValueError if they are not B integers from 1 to T."""
    lengths = torch.as_tensor(lengths, device=x.device)
    whole = not lengths.is_floating_point() and lengths.dtype != torch.bool
    if not whole or lengths.shape != x.shape[:1] or lengths.numel() == 0:
        raise ValueError(f"need one integer length for each of {len(x)} rows, got "
                         f"{tuple(lengths.shape)} of {lengths.dtype}")
    if int(lengths.min()) < 1 or int(lengths.max()) > x.shape[1]:
        raise ValueError(f"lengths must lie between 1 and {x.shape[1]}, the frames there are; got "
                         f"{int(lengths.min())} to {int(lengths.max())}: drop empty utterances")
    return lengths.long()

# %%
class Listener(nn.Module):
    """Eq. (32.7): one BiLSTM, then n_pyramid BiLSTMs over pairs of frames.

    forward(x (B, T, n_mels), lengths (B,)) -> (h (B, T', 2 d_hidden), lengths'), both halved
    (rounded up) by every layer of the pyramid; h is zero behind the lengths. ValueError: lengths
    outside 1 .. T.
    """

    def __init__(self, n_mels, d_hidden, n_pyramid=3):
        super().__init__()
        if n_mels < 1 or d_hidden < 1 or n_pyramid < 0:
            raise ValueError("need n_mels >= 1, d_hidden >= 1 and n_pyramid >= 0, got "
                             f"{n_mels}, {d_hidden}, {n_pyramid}")
        self.layers = nn.ModuleList(BiLSTM(d, d_hidden)
                                    for d in [n_mels] + [4 * d_hidden] * n_pyramid)

    def forward(self, x, lengths):
        x = batch_for(self, x, self.layers[0].ahead.input_size)
        lengths = checked_lengths(x, lengths)
        h = self.layers[0](x, lengths)  # (B, T, 2 d)
        for layer in self.layers[1:]:
            h, lengths = pair_frames(h), (lengths + 1) // 2  # (B, ceil(T/2), 4 d)
            h = layer(h, lengths)
        return h, lengths

# %% [markdown]
# The oracle is torch's own two-way LSTM on packed sequences, which never sees padding, with the same weights;
# pairs are made by a loop.

# %% tags=["hide-input"]
@torch.no_grad()
def _listener_by_torch(listener, x, lengths):
    """The same network from nn.LSTM(bidirectional=True) on packed sequences, pairs by hand."""
    for k, layer in enumerate(listener.layers):
        if k:
            x, lengths = _pairs_by_hand(x), torch.tensor([math.ceil(int(n) / 2) for n in lengths])
        twin = nn.LSTM(x.shape[2], layer.ahead.hidden_size, batch_first=True,
                       bidirectional=True).double()
        halves = ((layer.ahead, ""), (layer.back, "_reverse"))
        twin.load_state_dict({name + end: w for half, end in halves
                              for name, w in half.state_dict().items()})
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x = pad_packed_sequence(twin(packed)[0], batch_first=True, total_length=x.shape[1])[0]
    return x, lengths

# %% tags=["hide-input"]
torch.manual_seed(2)
small_listener = Listener(5, 3, n_pyramid=2).double()
sound_small = torch.randn(3, 13, 5, dtype=torch.float64)
frames_small = torch.tensor([13, 6, 1])
with torch.no_grad():
    h_small, places_small = small_listener(sound_small, frames_small)
by_torch, places_torch = _listener_by_torch(small_listener, sound_small, frames_small)

# %%
check("32.7", "the pyramid is torch's packed two-way LSTM over pairs of frames", h_small, by_torch,
      atol=1e-12)
check("32.7", "with the same lengths", places_small, places_torch)

# %%
noise_behind = sound_small + 9 * ~valid_frames(frames_small, 13)[:, :, None]
with torch.no_grad():
    alone = small_listener(sound_small[1:2, :6], frames_small[1:2])[0][0]
    padded = small_listener(noise_behind, frames_small)[0]
check("32.7", "an utterance alone gives what it gives in a batch", alone, h_small[1, :2],
      atol=1e-12)
check("32.7", "what stands in the padding changes nothing", padded, h_small, atol=1e-12)

# %%
with torch.no_grad():
    places = [[int(Listener(2, 1, L)(torch.zeros(1, T, 2), [T])[1])
               for T in (1, 2, 7, 8, 9, 100, 799, 800)]
              for L in range(4)]
check("32.8", "L layers leave T / 2^L places, rounded up",
      places, [[-(-T // 2**L) for T in (1, 2, 7, 8, 9, 100, 799, 800)] for L in range(4)])
check("32.8", "E60: 800 frames become 100 after three layers", places[3][-1], 100)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(8, 2.6))
for level in range(4):
    width = 2**level
    for k in range(16 // width):
        centre = (k + 0.5) * width
        ax.add_patch(plt.Rectangle((centre - 0.4 * width, level), 0.8 * width, 0.45,
                                   fc="#d9d9d9" if level else "white",
                                   ec="#222222"))
        if level:
            for part in (-0.25, 0.25):
                ax.plot([centre, centre + part * width], [level, level - 0.55], "-",
                        color="#222222", lw=0.9)
    ax.text(16.4, level + 0.2, f"$T_{level}=${16 // width}", va="center")
ax.set(xlim=(-0.2, 18.6), ylim=(-0.2, 3.7),
       title="each layer reads pairs of the layer below: 16 frames, 2 places")
ax.axis("off")
plt.show()

# %% [markdown]
# ## 6. Attend and spell
#
# The speller keeps a state $s_u$, an LSTM that reads the last letter and what attention saw last. Attention
# scores every place $t$ of the listener by a small network of the state and that place (*additive*
# attention), turns the scores into weights by a softmax over the places **that exist**, and returns the
# weighted mean:
#
# $$\varepsilon_{ut}=v^\top\tanh(W_ss_u+W_hh_t+b),\qquad\alpha_{ut}=\frac{e^{\varepsilon_{ut}}}{\sum_{t'<T'}e^{\varepsilon_{ut'}}},\qquad c_u=\sum_{t<T'}\alpha_{ut}h_t \tag{32.9}$$
#
# $T'$ is the length of *this* utterance: places behind it get the score $-\infty$, weight exactly 0. State
# and context together give the scores of the next letter (logits). $W_hh_t+b$ does not depend on $u$ and is
# computed once.
#
# ### Exercise 32.D · Attention with a mask · ●●○ · 8 min

# %%
def my_attention(energy, lengths):
    """energy (B, T') scores, lengths (B,). Returns the weights (B, T'); each row sums to 1."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _weights_by_hand(energy, lengths):
    """Row by row, over the places that exist."""
    rows = [F.pad(row[:n].softmax(0), (0, len(row) - n))
            for row, n in zip(energy, lengths.tolist())]
    return torch.stack(rows)

# %% tags=["nbval-ignore-output", "hide-input"]
def _place_mask(energy, lengths):
    return torch.arange(energy.shape[1]) < lengths[:, None]


scored = [(torch.tensor([[1.0, 2, 3, -1], [0, -3, 2, 5]]), torch.tensor([4, 2])),
          (torch.tensor([[800.0, 801, 3], [-900, -901, 7]]), torch.tensor([2, 2]))]
exercise("32.D", my_attention, [(args, _weights_by_hand(*args)) for args in scored], mistakes={
    "you forgot the mask": lambda e, n: e.softmax(1),
    "the place with number T' does not exist: the mask is <, not <=":
    lambda e, n: e.masked_fill(~_place_mask(e, n + 1), -torch.inf).softmax(1),
    "a score of zero is not 'nothing': use minus infinity":
    lambda e, n: (e * _place_mask(e, n)).softmax(1),
    "after masking the weights no longer sum to 1": lambda e, n: e.softmax(1) * _place_mask(e, n),
    "you normalised over the batch, not over the places":
    lambda e, n: e.softmax(0) * _place_mask(e, n)})

# %% [markdown]
# <details><summary>Hint 1</summary>`torch.arange(T) < lengths[:, None]` says which places exist.</details>
# <details><summary>Hint 2</summary>`masked_fill(~exists, -torch.inf)` before the softmax ($e^{-\infty}=0$), not after it: 0/0 if the largest score is outside.</details>
# <details><summary>Solution 32.D</summary>
#
# ```python
# def my_attention(energy, lengths):
#     exists = torch.arange(energy.shape[1]) < lengths[:, None]
#     return energy.masked_fill(~exists, -torch.inf).softmax(1)
# ```
#
# The second case has scores near ±900: `exp` without the shift of a softmax overflows.
#
# </details>

# %%
class Attention(nn.Module):
    """Additive attention, eq. (32.9)."""

    def __init__(self, d_state, d_encoder, d_hidden):
        super().__init__()
        self.query = nn.Linear(d_state, d_hidden, bias=False)       # W_s
        self.key = nn.Linear(d_encoder, d_hidden)                   # W_h, b
        self.score = nn.Linear(d_hidden, 1, bias=False)             # v

    def forward(self, s, h, keys, valid):
        """(context (B, d_encoder), weights (B, T')) of states s (B, d_state), keys self.key(h)."""
        energy = self.score(torch.tanh(keys + self.query(s)[:, None]))[:, :, 0]            # (B, T')
        weights = energy.masked_fill(~valid, -torch.inf).softmax(1)
        return (weights[:, None] @ h)[:, 0], weights

# %%
class SpellerCell(nn.Module):
    """One letter: reads the last token and the last context, attends, scores the next token."""

    def __init__(self, n_tokens, d_encoder, d_hidden):
        super().__init__()
        self.embed = nn.Embedding(n_tokens, d_hidden)
        self.cell = nn.LSTMCell(d_hidden + d_encoder, d_hidden)
        self.attend = Attention(d_hidden, d_encoder, d_hidden)
        self.out = nn.Linear(d_hidden + d_encoder, n_tokens)

    def start(self, h, lengths):
        """State before the first token; hypotheses are in dimension 0 of each of its tensors."""
        h = batch_for(self, h, self.attend.key.in_features)
        valid = valid_frames(checked_lengths(h, lengths), h.shape[1])                      # (B, T')
        h = torch.where(valid[:, :, None], h, 0.0)
        s = h.new_zeros(len(h), self.cell.hidden_size)
        return h, self.attend.key(h), valid, s, s, h.new_zeros(len(h), h.shape[2])

    def advance(self, token, state):
        """(logits (B, n_tokens) of the token after `token` (B,), attention (B, T'), state)."""
        h, keys, valid, s, memory, context = state
        s, memory = self.cell(torch.cat([self.embed(token), context], 1), (s, memory))
        context, weights = self.attend(s, h, keys, valid)
        return self.out(torch.cat([s, context], 1)), weights, (h, keys, valid, s, memory, context)

# %%
class Speller(SpellerCell):
    """An LSTM with attention that writes one token a step.

    forward(h (B, T', d_encoder), lengths (B,), tokens (B, U)) -> (logits (B, U, n_tokens),
    attention (B, U, T')): logits[:, u] are for the token after tokens[:, u] (teacher forcing).
    start(h, lengths) -> state; step(token (B,), state) -> (log_probs (B, n_tokens), state).
    ValueError: lengths outside 1 .. T'; tokens not (B, U), or ids out of range.
    """

    def step(self, token, state):
        """(log-probabilities of the next token (B, n_tokens), state)."""
        logits, _, state = self.advance(torch.as_tensor(token, device=state[0].device), state)
        return logits.log_softmax(1), state

    def forward(self, h, lengths, tokens):
        n_tokens = self.embed.num_embeddings
        tokens = torch.as_tensor(tokens, device=self.embed.weight.device)
        if (tokens.ndim != 2 or tokens.is_floating_point() or len(tokens) != len(h)
                or tokens.numel() == 0 or int(tokens.min()) < 0 or int(tokens.max()) >= n_tokens):
            raise ValueError(f"need tokens ({len(h)}, U), U >= 1, integer ids from 0 to "
                             f"{n_tokens - 1}")
        state, steps = self.start(h, lengths), []
        for token in tokens.T:
            logits, weights, state = self.advance(token, state)
            steps.append((logits, weights))
        return tuple(torch.stack(part, 1) for part in zip(*steps))

# %% tags=["hide-input"]
torch.manual_seed(3)
small_speller = Speller(N_TOKENS, 6, 4).double()
state = small_speller.start(h_small, places_small)
_, weights, after = small_speller.advance(torch.tensor([BOS, 2, 5]), state)
attend, s_1 = small_speller.attend, after[3].detach().numpy()
W_s, (W_h, b), v = (attend.query.weight.detach().numpy(),
                    (w.detach().numpy() for w in attend.key.parameters()),
                    attend.score.weight.detach().numpy()[0])
weights_loop, context_loop = np.zeros((3, 4)), np.zeros((3, 6))
for k, n in enumerate(places_small.tolist()):
    energy = np.array([v @ np.tanh(W_s @ s_1[k] + W_h @ h_small[k, t].numpy() + b)
                       for t in range(n)])
    weights_loop[k, :n] = np.exp(energy) / np.exp(energy).sum()
    context_loop[k] = sum(a * h_small[k, t].numpy() for t, a in enumerate(weights_loop[k, :n]))

# %%
check("32.9", "the weights are those of the formula, place by place", weights, weights_loop,
      atol=1e-12)
check("32.9", "the context is the weighted mean", after[5], context_loop, atol=1e-12)

# %% [markdown]
# ## 7. Learning to spell
#
# A text has probability one letter at a time; the end sign belongs to it, or short texts would be free.
#
# $$\log p(y\mid x)=\sum_{u=1}^{U}\log p(y_u\mid y_1,\dots,y_{u-1},x),\qquad \mathrm{loss}=-\sum_{u=1}^{U}\log p(y^*_u\mid y^*_1,\dots,y^*_{u-1},x) \tag{32.10}$$
#
# This is the chain rule, no approximation. In training the letters before are those of the *true* text $y^*$:
# **teacher forcing**. All $U$ terms are then known at once, and the loss is the cross-entropy of the logits.
# In use there is no teacher: the speller reads what it wrote itself.

# %%
class LAS(nn.Module):
    """Listener and speller: forward(x, lengths, tokens) -> (logits, attention)."""

    def __init__(self, d_hidden, n_pyramid=3):
        super().__init__()
        self.listener = Listener(N_MELS, d_hidden, n_pyramid)
        self.speller = Speller(N_TOKENS, 2 * d_hidden, 2 * d_hidden)

    def forward(self, x, lengths, tokens):
        return self.speller(*self.listener(x, lengths), tokens)

# %%
def teacher(texts):
    """(inputs, targets), both (B, U): bos + text, text + eos; the padding of targets is -1."""
    rows = [torch.tensor([*encode(text), EOS]) for text in texts]
    targets = pad_sequence(rows, batch_first=True, padding_value=-1)
    return torch.cat([torch.full((len(rows), 1), BOS), targets[:, :-1].clamp(min=0)], 1), targets

# %%
def sequence_loss(logits, targets):
    """Loss (32.10) in nats a letter: mean over the letters that exist."""
    log_p = logits.log_softmax(2).gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0]     # (B, U)
    return -(log_p * (targets >= 0)).sum() / (targets >= 0).sum()

# %% tags=["hide-input"]
inputs, targets = teacher(["two", "seven", "six one"])     # of very different lengths
with torch.no_grad():
    logits, _ = small_speller(h_small, places_small, inputs)
    short = small_speller(h_small[:1], places_small[:1], inputs[:1, :4])[0]

# %% tags=["hide-input"]
def _speller_by_hand(speller, h, text):
    """log p of a text by numpy, from the gates of the LSTM up: h (T', d) of one utterance."""
    w = {name: p.detach().numpy() for name, p in speller.named_parameters()}
    sigma = lambda z: 1 / (1 + np.exp(-z))
    s = memory = np.zeros(w["cell.weight_hh"].shape[1])
    context, total, last = np.zeros(h.shape[1]), 0.0, BOS
    for wanted in [*(LETTERS.index(c) for c in text), EOS]:
        z = (w["cell.weight_ih"] @ np.r_[w["embed.weight"][last], context] + w["cell.bias_ih"]
             + w["cell.weight_hh"] @ s + w["cell.bias_hh"])
        i, f, g, o = np.split(z, 4)
        memory = sigma(f) * memory + sigma(i) * np.tanh(g)
        s = sigma(o) * np.tanh(memory)
        energy = np.tanh(h @ w["attend.key.weight"].T + w["attend.key.bias"]
                         + w["attend.query.weight"] @ s) @ w["attend.score.weight"][0]
        context = np.exp(energy) @ h / np.exp(energy).sum()
        logits = w["out.weight"] @ np.r_[s, context] + w["out.bias"]
        total += logits[wanted] - np.log(np.exp(logits).sum())
        last = wanted
    return total

# %%
texts_small = ["two", "seven", "six one"]
by_hand = [_speller_by_hand(small_speller, h_small[k, :n].numpy(), text)
           for k, (n, text) in enumerate(zip(places_small.tolist(), texts_small))]
check("32.10", "the loss of three texts by numpy, from the gates of the LSTM up",
      -sum(len(text) + 1 for text in texts_small) * sequence_loss(logits, targets), sum(by_hand),
      atol=1e-10)
check("32.10", "the loss is torch's cross-entropy without the padding",
      sequence_loss(logits, targets),
      F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1), atol=1e-12)
check("32.10", "a text alone has the logits that it has in a batch", short, logits[:1, :4],
      atol=1e-12)

# %% [markdown]
# Training may follow a **curriculum**: single digits first, longer sequences step by step. The idea is that
# attention finds the letters in one word before it has to choose among several; and short utterances are cheap.
# Does it help? Three trainings with it and three without showed no sign of it: the seeds differed more. So this
# page trains on all lengths from the start; the run on real voices (section 12), with sequences of up to five
# digits, used it, and what it did there was not measured. Recordings are played up to 10 % faster or slower,
# and stripes of the spectrogram are blanked in time and frequency (SpecAugment).

# %%
def blank(x, generator, widths=((1, 8), (2, 6))):
    """SpecAugment: one stripe of each dimension, of width uniform on 0 .. limit, becomes the mean
    0."""
    for dim, limit in widths:
        n, at = x.shape[dim], torch.arange(x.shape[dim])
        width = limit * torch.rand(len(x), 1, generator=generator)
        left = (n - width).clamp(min=0) * torch.rand(len(x), 1, generator=generator)
        stripe = (at >= left) & (at < left + width)                                        # (B, n)
        x = x.masked_fill(stripe[:, :, None] if dim == 1 else stripe[:, None, :], 0.0)
    return x

# %%
def training_batch(pools, n_max, generator, size=32):
    """(x, lengths, texts) of random digits by random voices of the pools, in turn."""
    sounds, texts = [], []
    for k in range(size):
        pool = pools[k % len(pools)]
        takes = pool[sorted(pool)[int(torch.randint(len(pool), (), generator=generator))]]
        n = 1 + int(torch.randint(n_max, (), generator=generator))
        digits = torch.randint(10, (n,), generator=generator).tolist()
        sounds.append(say(takes, digits, generator, SPEED, 0.001 * 10 ** uniform(generator, 0, 1)))
        texts.append(" ".join(WORDS[d] for d in digits))
    x, lengths = log_mel_batch(sounds)
    if MEL_SHIFT:                                   # a longer or shorter vocal tract
        shift = torch.randint(-MEL_SHIFT, MEL_SHIFT + 1, (size,), generator=generator).tolist()
        x = torch.stack([F.pad(row, (k, -k)) for row, k in zip(x, shift)])
    return blank(x, generator), lengths, texts

# %%
def longest_now(k, n_steps, n_max):
    """Digits in the longest sequence at step k: one at first, n_max after 40 % (from four on: 60
    %)."""
    limits = np.linspace(0.2, 0.4 if n_max < 4 else 0.6, n_max - 1)
    return 1 + int((k / n_steps >= limits).sum())

# %%
def train_las(model, pools, n_steps, lr, generator, n_max, curriculum=True, token_noise=0.0):
    """Teacher forcing with Adam and cosine decay: (the model, the losses of all steps in nats a
    letter).

    token_noise: this share of the letters that the speller reads is replaced by random ones.
    """
    model = model.to(device).train()
    optimiser, losses = torch.optim.Adam(model.parameters(), lr), []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(n_steps, 1))
    for k in progress(range(n_steps), desc="training"):
        longest = longest_now(k, n_steps, n_max) if curriculum else n_max
        x, lengths, texts = training_batch(pools, longest, generator)
        inputs, targets = teacher(texts)
        wrong = torch.rand(inputs.shape, generator=generator) < token_noise
        wrong[:, 0] = False
        inputs = torch.where(wrong, torch.randint(len(LETTERS), inputs.shape, generator=generator),
                             inputs)
        logits, _ = model(x.to(device), lengths.to(device), inputs.to(device))
        loss = sequence_loss(logits, targets.to(device))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return model.eval(), losses

# %%
seed(0)
pools = [voices["train"]]
if EXTRA_VOICES:            # every second utterance by a bundled voice
    bundled = data.sounds("digits")
    pools.append(takes_of(lambda k: bundled.speaker[k] < "v40", bundled))
curriculum = N_MAX > 3      # the run on real voices was trained with it
started = time.perf_counter()
las, history = train_las(LAS(D_HIDDEN), pools, N_STEPS, LR, torch.Generator().manual_seed(0), N_MAX,
                         curriculum)
training_seconds = time.perf_counter() - started

# %% tags=["nbval-ignore-output"]
n_weights = sum(map(torch.numel, las.parameters()))
print(f"{n_weights:,} parameters, {N_STEPS} steps in {training_seconds:.0f} s")

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(7, 2.8))
ax.plot(history, color="#cccccc", lw=1, label="loss")
ax.plot(pd.Series(history).rolling(15, min_periods=1, center=True).mean(), color="#1b4f8f",
        label="mean of 15 steps")
ax.legend()
stages = [longest_now(step, N_STEPS, N_MAX) for step in range(N_STEPS * curriculum)]
for longest in sorted(set(stages))[1:]:
    ax.axvline(stages.index(longest), color="#222222", lw=0.7, ls=":")
    ax.text(stages.index(longest), 2.4, f" up to {longest} digits", fontsize=8)
ax.set(xlabel="step", ylabel="loss, nats a letter", ylim=(0, 2.8))
plt.show()

# %% [markdown]
# ### What it writes, and exposure bias
#
# **Greedy** decoding takes the most probable letter, feeds it back, and stops at the end sign. The test
# sequences are not uniform but *structured* (section 9 says how), by voices that the network never heard, once
# quiet, once with more noise than in training.

# %%
@torch.no_grad()
def greedy(model, x, lengths, max_len):
    """The most probable letter at each step, for a whole batch: list of texts."""
    state = model.speller.start(*model.listener(x, lengths))
    token, written = torch.full((len(x),), BOS, device=x.device), []
    for _ in range(max_len):
        log_p, state = model.speller.step(token, state)
        log_p[:, BOS] = -torch.inf
        token = log_p.argmax(1)
        written.append(token)
    rows = torch.stack(written, 1).tolist()
    return [decode(row[:row.index(EOS)] if EOS in row else row) for row in rows]

# %%
def on_device(sounds):
    """Log-mel and lengths of a list of sounds, where the model is."""
    return tuple(part.to(device) for part in log_mel_batch(sounds))


# next digit = last one + k (modulo 10), with this probability
STEP = {1: 0.6, 3: 0.25, 7: 0.1, 5: 0.05}

# %%
def structured(n_max, generator):
    """A list of 1 .. n_max digits from the Markov chain STEP; first digit and length uniform."""
    n = 1 + int(torch.randint(n_max, (), generator=generator))
    digits = [int(torch.randint(10, (), generator=generator))]
    jumps = torch.multinomial(torch.tensor(list(STEP.values())), n - 1, True,
                              generator=generator) if n > 1 else []
    for jump in jumps:
        digits.append((digits[-1] + list(STEP)[int(jump)]) % 10)
    return digits


chain = [structured(9, torch.Generator().manual_seed(k)) for k in range(1000)]
jumps = [(b - a) % 10 for row in chain for a, b in zip(row, row[1:])]
claim("the chain jumps as often as STEP says", [jumps.count(k) / len(jumps) for k in range(10)],
      [STEP.get(k, 0) for k in range(10)], atol=0.04)

# %%
def spoken_set(pool, n, noise, seed, n_max):
    """n structured utterances, the voices in turn: (sounds, texts, voices)."""
    generator, names = torch.Generator().manual_seed(seed), sorted(pool)
    who = [names[k % len(names)] for k in range(n)]
    digits = [structured(n_max, generator) for _ in range(n)]
    sounds = [say(pool[name], row, generator, noise=noise) for name, row in zip(who, digits)]
    return sounds, [" ".join(WORDS[d] for d in row) for row in digits], who

# %%
MAX_LEN = 6 * N_MAX + 2
test_sounds, refs, who = spoken_set(voices["test"], N_TEST, NOISE_TEST, 320, N_MAX)
dev_sounds, dev_refs, _ = spoken_set(voices["dev"], N_DEV, NOISE_TEST, 321, N_MAX)
test_x, test_lengths = on_device(test_sounds)
by_greedy = greedy(las, test_x, test_lengths, MAX_LEN)
quiet_sounds, quiet_refs, _ = spoken_set(voices["test"], N_TEST, 0.003, 322, N_MAX)
by_quiet = greedy(las, *on_device(quiet_sounds), MAX_LEN)
units = who if DATA == "digits" else range(N_TEST)      # new voices are drawn; known ones are not

# %% tags=["nbval-ignore-output"]
for condition, spoken_texts, written_texts in (("quiet", quiet_refs, by_quiet),
                                               ("noisy", refs, by_greedy)):
    mean_rate, _, low, high = wer_with_interval(spoken_texts, written_texts, groups=units)
    print(f"{condition} test, greedy: WER {mean_rate:.3f} (nominal 95 % interval {low:.3f} to "
          f"{high:.3f}), CER {cer(spoken_texts, written_texts):.3f}")
pd.Series([f"{r} → {h}" for pair in zip(refs, by_greedy) for op, r, h in
           align(*map(str.split, pair)) if op == "S"], name="noisy, times").value_counts().head(6)

# %%
always = max(WORDS, key=" ".join(quiet_refs).split().count)  # one word for every word
claim("greedy WER on unseen voices, quiet", wer(quiet_refs, by_quiet), below=0.3,
      trivial=wer(quiet_refs, [re.sub(r"\w+", always, spoken_text) for spoken_text in quiet_refs]))

# %% tags=["nbval-ignore-output"]
play({f"said: {refs[utt]} | written: {by_greedy[utt]}":
test_sounds[utt] / test_sounds[utt].abs().max()
      for utt in [who.index(person) for person in sorted(set(who))[:5 + (DATA == "fsdd")]]})

# %% [markdown]
# Where does each letter look? The figure puts every letter over the sound from which it was read, at the
# place to which attention gave the largest weight.

# %%
@torch.no_grad()
def attention_of(model, sound, text):
    """Attention (U, T') of the true letters of one sound, the end sign included; log-mel (T, n)."""
    x, lengths = log_mel_batch([sound])
    inputs, _ = teacher([text])
    attention = model(x.to(device), lengths.to(device), inputs.to(device))[1][0].cpu()
    return attention, x[0]

# %%
def draw_reading(model, sound, text, axes):
    """Wave, log-mel and attention over one time axis; letters over the sound they come from."""
    attention, x = attention_of(model, sound, text)
    end, place = len(x) * HOP / 8000, HOP / 8000 * 2**(len(model.listener.layers) - 1)
    U, T = attention.shape
    draw_wave(axes[0], sound)
    if len(axes) == 3:
        axes[1].imshow(x.T, origin="lower", aspect="auto", cmap=MEL_COLOURS,
                       extent=(0, end, 0, N_MELS))
    axes[-1].imshow(attention, aspect="auto", cmap=GREYS, extent=(0, T * place, U, 0))
    over, style = {}, {"ha": "center", "fontsize": 8, "weight": "bold"}
    outlined = [withStroke(linewidth=1.6, foreground="black")]
    for u, (letter, row) in enumerate(zip([*text.replace(" ", "␣"), "■"], attention)):
        at = (int(row.argmax()) + 0.5) * place
        over[at] = over.get(at, "") + letter
        axes[-1].text(at, u + 0.5, letter, va="center", color="white", path_effects=outlined,
                      **style)
    for at, letters in over.items():
        axes[0].text(at, 1.02, letters, transform=axes[0].get_xaxis_transform(),
                     color="#d1601f", **style)
    for ax, label in zip(axes, ("amplitude", "mel band", "letter $u$")):
        ax.set(ylabel=label, xlim=(0, T * place))
        ax.grid(False)
    axes[-1].set(xlabel="time, s", ylabel="letter $u$")

# %%
def straightness(model, sounds, texts):
    """Correlation between the number of a letter and the centre of its attention, one a text."""
    found = []
    for sound, text in zip(sounds, texts):
        attention = attention_of(model, sound, text)[0]
        centre = attention @ torch.arange(attention.shape[1], dtype=attention.dtype)
        found.append(np.corrcoef(centre.numpy(), np.arange(len(centre)))[0, 1])
    return np.array(found)

# %% tags=["hide-input"]
fig, axes = plt.subplots(3, 1, figsize=(8.6, 6), height_ratios=[1, 1.1, 2], sharex=True, dpi=64)
straight = straightness(las, quiet_sounds[:20], quiet_refs[:20])
n_words = np.array([len(spoken_text.split()) for spoken_text in quiet_refs[:20]])
clearest = int((straight * (n_words > 1)).argmax())
draw_reading(las, quiet_sounds[clearest], quiet_refs[clearest], axes)
axes[0].set_title("Nobody told the network where a letter sounds (␣ space, ■ end)", pad=18)
plt.show()

# %% [markdown]
# This is the clearest of twenty test utterances (single words aside); how straight are they all? Measure the
# correlation between the number of a letter and the place on which its attention is centred. (Other seeds of
# the same training gave quite other means with nearly equal error rates.) In short sequences attention
# often finds the *word* and then stays or looks ahead: perhaps because only one digit begins with `s`, `e`, and
# the states of the listener have read in both directions.

# %%
seed(0)
untrained = straightness(LAS(D_HIDDEN).to(device), quiet_sounds[:20], quiet_refs[:20])
claim("attention moves forward with the letters, in the mean of twenty utterances", straight.mean(),
      above=0.3, trivial=untrained.mean())            # trivial: the same net before training

# %% [markdown]
# **Exposure bias.** In training the speller never reads a mistake of its own; in use it does. Does one error
# breed the next? Compare word errors when the speller is fed the *true* letters with those when it reads its
# *own*.

# %%
@torch.no_grad()
def word_errors(model, own, n_max):
    """(utterances, n_max): 1 where the word at a position, or the sign behind it, is wrong, NaN
    where there is none; the speller fed its own letters or the true ones.
    """
    inputs, targets = teacher(refs)
    if own:
        written = [re.findall(r"\w+.?", text + "■") for text in greedy(model, test_x, test_lengths,
                                                                       MAX_LEN)]
    else:
        best = model(test_x, test_lengths, inputs.to(device))[0].argmax(2).cpu()
    wrong = np.full((len(refs), n_max), np.nan)
    for k, ref in enumerate(refs):
        if own:
            said = re.findall(r"\w+.?", ref + "■")
            hits = [i < len(written[k]) and written[k][i] == word for i, word in enumerate(said)]
        else:
            right = (best[k] == targets[k]).tolist()
            hits = [all(right[m.start():m.end() + 1]) for m in re.finditer(r"\w+", ref)]
        wrong[k, :len(hits)] = 1 - np.array(hits)
    return wrong

# %% tags=["hide-input"]
exposure = [word_errors(las, own, N_MAX) for own in (False, True)]
fig, ax = plt.subplots(figsize=(5, 2.7))
for shift, wrong, food in zip((-0.2, 0.2), exposure, ("fed the true letters", "fed its own")):
    ax.bar(np.arange(N_MAX) + 1 + shift, np.nanmean(wrong, 0), 0.38, label=food,
           color="#bbbbbb" if shift < 0 else "#1b4f8f")
ax.set(xlabel="position of the word", ylabel="share of wrong words", xticks=range(1, N_MAX + 1))
fig.legend(loc="outside lower center", ncols=2)
plt.show()

# %% tags=["nbval-ignore-output"]
n_said = summed((~np.isnan(exposure[0])).sum(1), units)          # words of each voice
taught, free = (bootstrap_rates(summed(np.nansum(wrong, 1), units), n_said) for wrong in exposure)
low, high = np.quantile(free - taught, [0.025, 0.975])                  # the same seed: paired
print(f"wrong words: {np.nanmean(exposure[0]):.3f} fed the truth, {np.nanmean(exposure[1]):.3f} "
      f"fed its own, difference {low:+.3f} to {high:+.3f}")

# %% [markdown]
# With the same measure for both (a word is right if its letters and the sign behind it are, at its place in the
# text): no difference that ten voices can show. Perhaps because a wrong letter takes away nothing of the sound
# behind it, and a text of a few words gives errors little room to breed. Where a language is learned along with
# the pictures or sounds, scheduled sampling (in training the speller reads some letters of its own) is reported
# to help (Bengio et al. 2015); `train_las(…, token_noise=0.1)` feeds it random ones.

# %% [markdown]
# ## 8. Decoding: greedy, beam, everything
#
# The best first letter need not begin the best text. The search space is a tree with $V^U$ leaves; **beam
# search** walks it level by level and keeps the $B$ best continuations. With $\mathcal B_0=\{()\}$,
#
# $$\mathcal B_{u+1}=\operatorname*{top}_B\big\{\,y w:\ y\in\mathcal B_u\ \text{unfinished},\ w\ne\text{start}\big\}\ \text{by}\ \log p(yw\mid x)=\log p(y\mid x)+\log p(w\mid y,x) \tag{32.11}$$
#
# A hypothesis that takes the end sign leaves the beam and waits in the list of finished ones; at the end the
# best $B$ of these are the **n-best list**. With $B=1$ this is greedy decoding. With $B\ge V^{U}$ nothing is
# ever thrown away and it is exhaustive search. In between there is no guarantee.
#
# ### Exercise 32.E · One level of the beam · ●●○ · 10 min

# %%
def my_beam_step(scores, log_probs, beam):
    """scores (n,): log p of the prefixes; log_probs (n, V) of what may follow.

    Returns the `beam` best continuations, best first: a list of (prefix number, token)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _level(scores, log_probs, beam, combine=lambda s, p: s + p, largest=True):
    """Continuations sorted by the combined score."""
    n, V = log_probs.shape
    total = {(k, w): float(combine(scores[k], log_probs[k, w])) for k in range(n) for w in range(V)}
    return sorted(total, key=lambda kw: -total[kw] if largest else total[kw])[:beam]

# %% tags=["nbval-ignore-output", "hide-input"]
def _best_of_each(scores, log_probs, beam):
    return [(k, int(log_probs[k].argmax()))
            for k in scores.argsort(descending=True).tolist()][:beam]

# %% tags=["nbval-ignore-output", "hide-input"]
prefixes = [(torch.tensor([-0.4, -2.5]), torch.tensor([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]]).log(), 3),
            (torch.tensor([-3.0, -1.0, -1.2]),
             torch.tensor([[0.9, 0.1], [0.45, 0.55], [0.3, 0.7]]).log(), 2)]
exercise("32.E", my_beam_step, [(case, _level(*case)) for case in prefixes], mistakes={
    "you forgot what the prefix has cost already": lambda s, p, B: _level(s, p, B, lambda s, p: p),
    "you took the best continuation of each prefix: one prefix may have several": _best_of_each,
    "log-probabilities are added, not multiplied":
    lambda s, p, B: _level(s, p, B, lambda s, p: s * p, False),
    "first the number of the prefix, then the token":
    lambda s, p, B: [(w, k) for k, w in _level(s, p, B)],
    "you kept the worst": lambda s, p, B: _level(s, p, B, largest=False),
    "a weaker prefix may have better continuations":
    lambda s, p, B: [(int(s.argmax()), w) for w in p[s.argmax()].argsort().tolist()[::-1]][:B]})

# %% [markdown]
# <details><summary>Hint 1</summary>`scores[:, None] + log_probs` scores all continuations at once, $(n,V)$.</details>
# <details><summary>Hint 2</summary>Sort the flattened table; `divmod(index, V)` gives prefix and token.</details>
# <details><summary>Solution 32.E</summary>
#
# ```python
# def my_beam_step(scores, log_probs, beam):
#     total = (scores[:, None] + log_probs).flatten()
#     order = total.argsort(descending=True)[:beam].tolist()
#     return [divmod(k, log_probs.shape[1]) for k in order]
# ```
#
# </details>

# %%
def pick(state, rows):
    """The rows of every tensor in a nested tuple: hypotheses are in dimension 0."""
    if state is None:
        return None
    if isinstance(state, torch.Tensor):
        return state[rows]
    return tuple(pick(part, rows) for part in state)


def leaf(state):
    """The first tensor of a nested tuple; None if it holds none."""
    if state is None or isinstance(state, torch.Tensor):
        return state
    return next((x for x in map(leaf, state) if x is not None), None)

# %%
def checked_step(step, token, state, bos, eos):
    """(log-probabilities (n, V) in float64, bos forbidden, state); ValueError for NaN, numbers
    above 0, bad ids."""
    log_p, state = step(token, state)
    log_p = log_p.detach().double().clone()                                                # (n, V)
    if torch.isnan(log_p).any():
        raise ValueError("step returned NaN: are all its inputs finite?")
    if (log_p > 1e-6).any():
        raise ValueError("step must return log-probabilities: take .log()")
    if not (0 <= bos < log_p.shape[1] and 0 <= eos < log_p.shape[1]):
        raise ValueError(f"bos = {bos} and eos = {eos} must be ids from 0 to {log_p.shape[1] - 1}")
    if bos != eos:
        log_p[:, bos] = -torch.inf
    return log_p, state

# %%
def penalised(tokens, log_prob, length_penalty):
    """The score (32.12) of a finished hypothesis."""
    return log_prob / (len(tokens) + 1) ** length_penalty

# %%
def extend(live, total, beam, eos):
    """The best continuations of the prefixes `live` by total (n, V): finished and going on."""
    V, flat = total.shape[1], total.flatten()
    best = flat.sort(descending=True, stable=True).indices[:beam].tolist()
    kept = [(k // V, k % V, float(flat[k])) for k in best if flat[k] > -torch.inf]
    return ([(live[row], score) for row, w, score in kept if w == eos],
            [(row, [*live[row], w], score) for row, w, score in kept if w != eos])

# %%
@torch.no_grad()
def beam_search(step, state, beam, max_len, bos, eos, length_penalty=0.0):
    """Beam search (32.11): [(tokens, log_prob)], best first, at most `beam`.

    step(token (n,), state) -> (log_probs (n, V), state); state: None, a tensor or a nested tuple of
    tensors, one hypothesis in dimension 0. tokens: without bos and eos; log_prob: plain sum with
    eos; order by log_prob / (len + 1)^length_penalty (32.12). After max_len only eos may follow;
    what is impossible is never kept. ValueError: bad numbers, NaN, a state of several utterances.
    """
    if int(beam) != beam or beam < 1 or int(max_len) != max_len or max_len < 0 or not (
            length_penalty >= 0):
        raise ValueError("need integers beam >= 1, max_len >= 0, and length_penalty >= 0; got "
                         f"{beam}, {max_len}, {length_penalty}")
    if leaf(state) is not None and len(leaf(state)) != 1:
        raise ValueError("one utterance at a time: start(h[k:k + 1], lengths[k:k + 1])")
    beam, max_len, device = int(beam), int(max_len), getattr(leaf(state), "device", "cpu")
    live, scores, finished = [[]], torch.zeros(1, dtype=torch.float64, device=device), []
    for u in range(max_len + 1):
        token = torch.tensor([y[-1] if y else bos for y in live], device=device)
        log_p, state = checked_step(step, token, state, bos, eos)
        if u == max_len:
            log_p[:, torch.arange(log_p.shape[1], device=device) != eos] = -torch.inf
        done, going = extend(live, scores[:, None] + log_p, beam, eos)
        finished += done
        if not going:
            break
        rows, live, scores = zip(*going)
        scores = torch.tensor(scores, dtype=torch.float64, device=device)
        state = pick(state, torch.tensor(rows, device=device))
    return sorted(finished, key=lambda found: -penalised(*found, length_penalty))[:beam]

# %% [markdown]
# Every further letter adds a negative number to $\log p$. Short texts are therefore preferred; a wider beam,
# which finds more of the probable texts, can make it worse. The usual remedy divides by a power of the length
# (the end sign counted):
#
# $$\mathrm{score}_\gamma(y)=\frac{\log p(y\mid x)}{(\lvert y\rvert+1)^\gamma} \tag{32.12}$$
#
# $\gamma=0$ is the plain sum, $\gamma=1$ the mean log-probability of a letter. It only reorders what the beam
# has finished.

# %% tags=["hide-input"]
@torch.no_grad()
def _log_prob_of(step, state, tokens, bos=3, eos=4):
    """log p of one text with its end sign, letter by letter."""
    total, last = 0.0, bos
    for w in [*tokens, eos]:
        log_p, state = step(torch.tensor([last]), state)
        total, last = total + float(log_p[0, w]), w
    return total


def _exhaustive(step, state, max_len, score=lambda y, p: p):
    """All texts of at most max_len letters with their log p, best score first."""
    texts = [list(y) for n in range(max_len + 1) for y in itertools.product(range(3), repeat=n)]
    found = [(y, _log_prob_of(step, state, y)) for y in texts]
    return sorted(found, key=lambda item: -score(*item))


def _greedy_by_loop(step, state, max_len, bos=3, eos=4):
    """The most probable token each time, until the end."""
    tokens, last = [], bos
    while last != eos:
        log_p, state = step(torch.tensor([last]), state)
        log_p[0, bos] = -torch.inf
        last = int(log_p[0].argmax()) if len(tokens) < max_len else eos
        tokens.append(last)
    return tokens[:-1]

# %% tags=["hide-input"]
torch.manual_seed(8)
tiny = Speller(5, 6, 4).double()                    # letters 0, 1, 2; bos 3, eos 4
with torch.no_grad():
    tiny.out.weight *= 4
    tiny.embed.weight *= 3
tiny_state = tiny.start(h_small[:1], places_small[:1])

# %% tags=["hide-input"]
@torch.no_grad()
def _beam_by_texts(step, start, beam, max_len, bos=3, eos=4):
    """Beam search on whole texts: every prefix is read anew from the start."""
    live, finished = [([], 0.0)], []
    while live:
        grown = []
        for y, p in live:
            state = start
            for w in [bos, *y]:
                log_p, state = step(torch.tensor([w]), state)
            grown += [(p + float(log_p[0, w]), [*y, w]) for w in range(5)
                      if w != bos and (len(y) < max_len or w == eos)]
        best = sorted(grown, key=lambda item: -item[0])[:beam]
        finished += [(y[:-1], p) for p, y in best if y[-1] == eos]
        live = [(y, p) for p, y in best if y[-1] != eos]
    return sorted(finished, key=lambda item: -item[1])[:beam]

# %%
everything = _exhaustive(tiny.step, tiny_state, 4)
wide = beam_search(tiny.step, tiny_state, 400, 4, 3, 4)
check("32.11", "a beam that is wide enough finds all 121 texts, in the order of exhaustive search",
      [y for y, _ in wide] == [y for y, _ in everything])
check("32.11", "with their probabilities", [p for _, p in wide], [p for _, p in everything],
      atol=1e-10)
narrow = beam_search(tiny.step, tiny_state, 1, 4, 3, 4)
check("32.11", "beam 1 is greedy", narrow[0][0] == _greedy_by_loop(tiny.step, tiny_state, 4))
same = [[y for y, _ in beam_search(tiny.step, tiny_state, width, n, 3, 4)]
        == [y for y, _ in _beam_by_texts(tiny.step, tiny_state, width, n)]
        for width in (2, 3, 5) for n in (2, 4)]
check("32.11", "beams of 2, 3, 5 keep what a search over whole texts keeps", same)
claim("greedy is not the best text here", everything[0][1] - narrow[0][1], above=0.0, trivial=0.0)
orders = {}
for gamma in (0.0, 0.5, 1.0):
    orders[gamma] = [y for y, _ in beam_search(tiny.step, tiny_state, 400, 4, 3, 4, gamma)]
    by_score = _exhaustive(tiny.step, tiny_state, 4, lambda y, p: p / math.pow(len(y) + 1, gamma))
    check("32.12", f"gamma = {gamma}: the order of exhaustive search by score",
          orders[gamma] == [y for y, _ in by_score])
chances = torch.tensor([[0, .9, 0, 0, .1], [0, 0, .9, 0, .1], [0, 0, 0, 0, 1], [.9, 0, 0, 0, .1],
                        [0, 0, 0, 0, 1]]).log()          # 0, 1, 2, end; each may be the last
late = beam_search(lambda token, state: (chances[token], state), None, 2, 4, 3, 4)
check("32.11", "the best text may be the last to finish", late[0][0] == [0, 1, 2])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6.4, 3))
known_log_p = {tuple(tokens): log_p for tokens, log_p in everything}
for size in range(5):
    column = sorted(log_p for tokens, log_p in everything if len(tokens) == size)
    ax.plot([size] * len(column), column, "o", color="#bbbbbb", ms=4)
    ax.plot(size, column[-1], "o", color="#1b4f8f")
for power, marker in ((0.0, "s"), (1.0, "^")):
    tokens = tuple(orders[power][0])
    ax.plot(len(tokens), known_log_p[tokens], marker, ms=12, mfc="none",
            mec="#d1601f", mew=1.8, label=f"best by γ = {power:g}")
ax.set(xlabel="letters in the text", ylabel="log p", xticks=range(5), ylim=(everything[80][1], 0),
       title="121 texts of a small speller (best of each length dark)")
ax.legend()
plt.show()

# %% [markdown]
# ## 9. A model of the language
#
# The recogniser was trained on random digits; what is said in the test is not random. After a digit $d$ comes
# $d+1$ with probability 0.6, $d+3$ with 0.25, $d+7$ with 0.1 and $d+5$ with 0.05, modulo 10: a Markov chain,
# of which thousands of *texts* cost nothing. We want $p(w\mid g)$, the next letter after a context $g$.
#
# **Counting is not enough.** A context seen once would forbid everything but what followed it. Let the unknown
# probabilities after $g$ be $\theta$ (one $\theta_w$ for each token but the start sign), and take as known what
# the *shorter* context $g'$ predicts, with the weight of $\alpha$ observations:
# $\theta\sim\mathrm{Dirichlet}(\alpha\,p_{n-1}(\cdot\mid g'))$, with density
# $\propto\prod_w\theta_w^{\alpha p_{n-1}(w\mid g')-1}$ and mean $p_{n-1}(\cdot\mid g')$. The counts have the
# likelihood $\prod_w\theta_w^{c(g,w)}$. The product is again a Dirichlet density, with parameters
# $c(g,w)+\alpha p_{n-1}(w\mid g')$, whose sum is $c(g)+\alpha$. The mean of a Dirichlet distribution is
# parameter over sum:
#
# $$p_n(w\mid g)=\mathbb E[\theta_w\mid\text{counts}]=\frac{c(g,w)+\alpha\,p_{n-1}(w\mid g')}{c(g)+\alpha},\qquad p_0(w)=\frac1{V-1}\ (w\ne\text{start}) \tag{32.13}$$
#
# An unseen context passes its question on to the shorter one; a frequent one trusts its counts. ($p_{n-1}$ is
# counted in the same text and then treated as known: empirical Bayes.)
#
# ### Exercise 32.F · Two letters back to none · ●●● · 12 min
#
# Order 2 with one letter of context. `pairs[g, w]` counts how often `w` followed `g`.

# %%
def my_bigram(pairs, alpha):
    """pairs (V, V) counts. Returns p_2 (V, V), rows sum to 1; p_1 backs off to the uniform
    distribution; no start sign here, so p_0 = 1 / V.

    c(w) of order 1 is the column sum of pairs."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _bigram(pairs, alpha, uniform=0, back_off=True, weight=1, axis=0, once=True):
    """Order 2 by (32.13), and its famous errors."""
    V = len(pairs)
    single = pairs.sum(axis)
    one = (single + once * alpha / (V - uniform)) / (single.sum() + once * alpha)
    below = (one if back_off else torch.full((V,), 1 / V))[None] * weight
    return (pairs + alpha * below) / (pairs.sum(1, keepdim=True) + alpha * weight)

# %% tags=["nbval-ignore-output", "hide-input"]
counted_pairs = [torch.tensor([[3.0, 1, 0], [0, 0, 0], [2, 2, 1]]),
                 torch.tensor([[0.0, 5], [1, 0]])]
exercise("32.F", my_bigram, [((c, a), _bigram(c, a)) for c, a in zip(counted_pairs, (1.0, 0.5))],
         mistakes={
    "you backed off to the uniform distribution, not to order 1":
    lambda c, a: _bigram(c, a, back_off=False),
    "alpha is shared out over the letters: it is added to the denominator once":
    lambda c, a: _bigram(c, a, weight=len(c)),
    "order 1 counts what follows (column sums), not what stands before":
    lambda c, a: _bigram(c, a, axis=1),
    "there is no start sign here: p_0 is 1 / V": lambda c, a: _bigram(c, a, uniform=1),
    "order 1 needs its own back-off to the uniform distribution":
    lambda c, a: _bigram(c, a, once=False),
    "alpha added to every count is not (32.13): the shorter context says where it goes":
    lambda c, a: _bigram(c, a, back_off=False, weight=len(c))})

# %% [markdown]
# <details><summary>Hint 1</summary>First $p_1(w)=(c(w)+\alpha/V)/(N+\alpha)$ with $c(w)$ the column sums, $N$ their sum.</details>
# <details><summary>Hint 2</summary>Then $p_2(w\mid g)=(c(g,w)+\alpha p_1(w))/(c(g)+\alpha)$, $c(g)$ the row sums.</details>
# <details><summary>Solution 32.F</summary>
#
# ```python
# def my_bigram(pairs, alpha):
#     V, single = len(pairs), pairs.sum(0)
#     one = (single + alpha / V) / (single.sum() + alpha)
#     return (pairs + alpha * one) / (pairs.sum(1, keepdim=True) + alpha)
# ```
#
# The letter without a follower (a row of zeros) gets $p_1$, not $0/0$.
#
# </details>

# %%
def checked_ids(tokens, n_tokens, banned=()):
    """Token ids as a list of ints; ValueError for others, or for banned ones."""
    tokens = tokens.tolist() if hasattr(tokens, "tolist") else tokens
    if tokens is None or isinstance(tokens, (int, float, str)):
        raise ValueError(f"need a sequence of token ids, got {tokens!r}: fit takes a list of lists")
    tokens = list(tokens)
    bad = [t for t in tokens if isinstance(t, bool) or t != int(t) or not 0 <= t < n_tokens
           or t in banned]
    if bad:
        raise ValueError(f"token ids are integers from 0 to {n_tokens - 1}, here without "
                         f"{list(banned)}; got {bad[:5]}")
    return [int(t) for t in tokens]

# %%
class NGramCounts:
    """What followed every context of fewer than `order` tokens."""

    def __init__(self, order, n_tokens, bos, eos, alpha=1.0):
        if order < 1 or order != int(order) or not 0 < alpha < float("inf"):
            raise ValueError(f"need an integer order >= 1 and alpha > 0, got {order} and {alpha}")
        if checked_ids([bos, eos], n_tokens) and (bos == eos or n_tokens < 2):
            raise ValueError(f"bos and eos must be two different tokens, got {bos} and {eos}")
        self.order, self.n_tokens, self.alpha = int(order), n_tokens, alpha
        self.bos, self.eos = bos, eos
        self.counts, self.known = {}, {}

    def fit(self, sequences):
        """Count in lists of ids without bos and eos, earlier counts forgotten; returns self."""
        self.counts, self.known = {}, {}
        for tokens in sequences if hasattr(sequences, "__iter__") else [sequences]:
            row = checked_ids(tokens, self.n_tokens, (self.bos, self.eos))
            row = [self.bos] * (self.order - 1) + row + [self.eos]
            for k in range(self.order - 1, len(row)):
                for n in range(self.order):
                    at = self.counts.setdefault(tuple(row[k - n:k]), np.zeros(self.n_tokens))
                    at[row[k]] += 1
        return self

# %%
class NGramLM(NGramCounts):
    """A model of tokens by eq. (32.13), down to the uniform distribution over all tokens but bos.

    NGramLM(order, n_tokens, bos, eos, alpha=1.0). ValueError: order < 1, alpha <= 0, ids out of
    range.
    """

    def log_probs(self, context):
        """(n_tokens,) float64: log p of the next token after the last order - 1 of a context."""
        context = checked_ids(context, self.n_tokens)
        context = tuple(([self.bos] * self.order + context)[len(context) + 1:])  # order - 1 tokens
        if context not in self.known:
            p = np.full(self.n_tokens, 1 / (self.n_tokens - 1))
            p[self.bos] = 0
            for n in range(self.order):
                counts = self.counts.get(context[len(context) - n:], np.zeros(self.n_tokens))
                p = (counts + self.alpha * p) / (counts.sum() + self.alpha)
            with np.errstate(divide="ignore"):
                self.known[context] = torch.from_numpy(np.log(p))
        return self.known[context].clone()

    def score(self, sequence):
        """log p of a sequence of ids with its eos, a float."""
        row = checked_ids(sequence, self.n_tokens, (self.bos, self.eos)) + [self.eos]
        return sum(float(self.log_probs(row[:k])[w]) for k, w in enumerate(row))

# %% tags=["hide-input"]
def _by_counting(texts, order, alpha, context, letter, letters="abc", eos="."):
    """p(letter | context) with exact counts of substrings, by recursion."""
    if order == 0:
        return 1 / (len(letters) + 1)
    padded = ["^" * (order - 1) + text + eos for text in texts]
    context = ("^" * order + context)[len(context) + 1:]
    follows = [t[k] for t in padded for k in range(order - 1, len(t))
               if t[k - order + 1:k] == context]
    shorter = _by_counting(texts, order - 1, alpha, context[1:], letter)
    return (follows.count(letter) + alpha * shorter) / (len(follows) + alpha)

# %% tags=["hide-input"]
corpus_abc = ["abca", "ab", "b", "cabab", ""]
lm_abc = NGramLM(3, 5, bos=4, eos=3, alpha=0.7).fit([["abc".index(c) for c in t]
                                                     for t in corpus_abc])
contexts = ["", "a", "ab", "ca", "cc", "abca"]
by_lm = [lm_abc.log_probs(["abc".index(c) for c in context]).exp().numpy() for context in contexts]

# %%
check("32.13", "p(w | g) by counting substrings, in every context",
      np.array(by_lm)[:, :4], [[_by_counting(corpus_abc, 3, 0.7, c, w) for w in "abc."]
                               for c in contexts], atol=1e-12)
check("32.13", "probabilities sum to 1, the start sign has none",
      [[p.sum(), p[4]] for p in by_lm], [[1.0, 0.0]] * len(contexts), atol=1e-12)
lm_two = NGramLM(2, 5, bos=4, eos=3, alpha=0.7).fit([["abc".index(c) for c in t]
                                                     for t in corpus_abc])
prior, counts = lm_two.log_probs([1]).exp().numpy()[:4], lm_abc.counts[(0, 1)][:4]
theta = np.random.default_rng(3).dirichlet(0.7 * prior, 200_000)  # before seeing any count
weight = np.prod(np.maximum(theta, 1e-300) ** counts, axis=1)  # likelihood of the counts
posterior = weight @ theta / weight.sum()
spread = np.sqrt(weight**2 @ (theta - posterior) ** 2) / weight.sum()           # standard error
check("32.13", "it is the posterior mean: prior samples weighted by their likelihood",
      (posterior - by_lm[2][:4]) / spread, np.zeros(4), atol=4)

# %% [markdown]
# **How good can it be?** A text of $n$ digits ($n$ uniform on $1\dots n_{\max}$) has $n-1$ random steps after
# a uniform first digit, so its entropy is known. A model's **cross-entropy** is never below the entropy
# (Gibbs' inequality), and **perplexity** is its exponential per token, estimated by a sample of texts:
#
# $$\begin{aligned}\mathrm{PP}&=\exp\Big(-\frac{\sum\log p(y)}{\sum(\lvert y\rvert+1)}\Big)\approx\exp\frac{\mathbb E[-\log p(y)]}{\mathbb E(\lvert y\rvert+1)}\ \ge\ \exp\frac{\mathcal H}{\mathbb E(\lvert y\rvert+1)},\\ \mathcal H&=\log n_{\max}+\log10+\frac{n_{\max}-1}2\Big(-\sum_kq_k\log q_k\Big)\end{aligned} \tag{32.14}$$
#
# A digit has 4 letters on average, so with spaces and end sign a text of $n$ digits has $5n$ tokens in the
# mean: $\mathbb E(\lvert y\rvert+1)=\tfrac52(n_{\max}+1)$.

# %%
def source(n_max):
    """(entropy of a text in nats, expected tokens with the end sign), closed forms of (32.14)."""
    q = np.array(list(STEP.values()))
    entropy_of_step = -(q * np.log(q)).sum()
    return math.log(n_max) + math.log(10) + (n_max - 1) / 2 * entropy_of_step, 2.5 * (n_max + 1)


def perplexity(lm, texts):
    """exp of the mean negative log-probability of a token, end signs counted."""
    return math.exp(-sum(lm.score(encode(t)) for t in texts) / sum(len(t) + 1 for t in texts))

# %%
probability = {}
for length in (1, 2, 3):
    for start, jumps in itertools.product(range(10), itertools.product(STEP, repeat=length - 1)):
        chain = np.cumsum([start, *jumps]) % 10
        chance = math.prod(STEP[jump] for jump in jumps) / 30
        probability[" ".join(WORDS[digit] for digit in chain)] = chance
p_all = np.array(list(probability.values()))
check("32.14", "entropy and length of all 210 texts, summed up", source(3),
      [-(p_all * np.log(p_all)).sum(), p_all @ [len(chain) + 1 for chain in probability]],
      atol=1e-10)
check("32.14", "a model that knows nothing has perplexity V - 1",
      perplexity(NGramLM(1, N_TOKENS, BOS, EOS), ["two", "six one"]), N_TOKENS - 1, rtol=1e-12)
exact = [text for text, chance in probability.items() if text.count(" ") < 2
         for _ in range(round(600 * chance))]                  # one or two digits, as often as due
floor_2 = math.exp(source(2)[0] / source(2)[1])
counted = [perplexity(NGramLM(n, N_TOKENS, BOS, EOS, 1e-9).fit(map(encode, exact)), exact)
           for n in (2, 4, 6, 12)]
check("32.14", "on the exact source, orders 2, 4, 6 stay above the floor", counted[:3],
      above=floor_2 + 1e-3)
check("32.14", "and a model with the whole text as context reaches it", counted[3], floor_2,
      rtol=1e-6)

# %%
g = torch.Generator().manual_seed(7)
corpora = [[" ".join(WORDS[d] for d in structured(N_MAX, g)) for _ in range(n)]
           for n in (3000, 1000)]
lms = {order: NGramLM(order, N_TOKENS, BOS, EOS).fit(map(encode, corpora[0]))
       for order in (1, 2, 3, 4, 6, 8, 10)}
perplexities = [perplexity(lm, corpora[1]) for lm in lms.values()]
entropy, tokens_a_text = source(N_MAX)
floor = math.exp(entropy / tokens_a_text)
claim("the best order is within 5 % of the floor", min(perplexities), below=1.05 * floor,
      trivial=perplexities[2])                                     # trivial: order 3

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6, 2.7))
ax.plot(list(lms), perplexities, "o-", label="letter model on new texts")
ax.axhline(floor, color="#222222", lw=0.9, ls="--")
ax.text(5.2, floor * 1.2, f"floor exp(H / tokens): {floor:.2f}", fontsize=9)
ax.set(xlabel="order $n$ (letters of context + 1)", ylabel="perplexity", yscale="log",
       ylim=(1.3, 20),
       yticks=[1.5, 2, 3, 5, 10], yticklabels=["1.5", "2", "3", "5", "10"])
ax.minorticks_off()
plt.show()

# %% [markdown]
# ## 10. Fusion and rescoring
#
# The recogniser knows how it sounds, the letter model what is likely to be said. Both combine the two
# logarithms with a weight $\lambda$; they differ in *when*. **Shallow fusion** adds them inside the beam, at
# every letter:
#
# $$\begin{gathered}\hat y=\arg\max_y\big[\log p(y\mid x)+\lambda\log p_{\mathrm{LM}}(y)\big],\\ \text{prefixes kept by}\ \ \sum_{j\le u}\big(\log p(y_j\mid y_{<j},x)+\lambda\log p_{\mathrm{LM}}(y_j\mid y_{<j})\big)\end{gathered} \tag{32.15}$$
#
# **Second-pass rescoring** lets the beam run without the language model and re-ranks what it returned:
#
# $$\hat y=\arg\max_{y\in\text{n-best}(x)}\big[\log p(y\mid x)+\lambda\log p_{\mathrm{LM}}(y)\big] \tag{32.16}$$
#
# The functional is the same. At the same $\lambda$, if nothing was pruned, so are the answers. Rescoring cannot
# bring back a text that the first pass dropped; fusion can keep it alive, or drop one whose first letters the
# language model dislikes. A second pass may use a model that is far too slow, or reads from right to left, to
# be asked at every letter. Each letter now costs twice, so long texts lose: Chan et al. divide
# $\log p(y\mid x)$ by $\lvert y\rvert$, others add $\beta\lvert y\rvert$.

# %%
def shallow_fusion(step, state, lm, lam):
    """(step, state) for beam_search with log p + lam log p_LM at every token, eq. (32.15).

    The context of every hypothesis travels in its state. ValueError: lam < 0 or not finite; step
    and model with different numbers of tokens.
    """
    if not 0 <= lam < float("inf"):
        raise ValueError(f"need a finite weight lam >= 0, got {lam}")
    first = leaf(state)
    context = torch.full((1 if first is None else len(first), lm.order - 1), lm.bos,
                         device=getattr(first, "device", "cpu"))  # (n, order - 1)

    def fused(token, state):
        inner, context = state
        context = torch.cat([context, token[:, None]], 1)[:, 1:]
        log_p, inner = step(token, inner)
        if log_p.shape[1] != lm.n_tokens:
            raise ValueError(f"the step has {log_p.shape[1]} tokens, the model {lm.n_tokens}")
        if (token == lm.eos).any():
            raise ValueError(f"{lm.eos} is the model's eos: is it the bos of the search?")
        if lam:
            rows = torch.stack([lm.log_probs(row) for row in context.tolist()])            # (n, V)
            log_p = log_p.double() + lam * rows.to(log_p.device)
        return log_p, (inner, context)

    return fused, (state, context)

# %%
def rescore(nbest, lm, lam):
    """The n-best list [(tokens, log p + lam log p_LM)], best first: eq. (32.16)."""
    if not 0 <= lam < float("inf"):
        raise ValueError(f"need a finite weight lam >= 0, got {lam}")
    scored = [(list(tokens), score + (lam * lm.score(tokens) if lam else 0.0))
              for tokens, score in nbest]
    return sorted(scored, key=lambda item: -item[1])

# %% tags=["hide-input"]
lm_tiny = NGramLM(3, 5, bos=3, eos=4, alpha=0.5).fit([[0, 1], [0, 1, 2], [2, 1], [0, 1, 1], []])
fused_step, fused_state = shallow_fusion(tiny.step, tiny_state, lm_tiny, 0.6)
fused_wide = beam_search(fused_step, fused_state, 400, 4, 3, 4)
by_sum = sorted(((y, p + 0.6 * sum(float(lm_tiny.log_probs(y[:k])[w])
                                   for k, w in enumerate([*y, 4])))
                 for y, p in everything), key=lambda item: -item[1])
nbest_tiny = beam_search(tiny.step, tiny_state, 6, 4, 3, 4)
in_list = [y for y, _ in by_sum if y in [z for z, _ in nbest_tiny]]

# %%
check("32.15", "fusion in a wide beam maximises the sum over all 121 texts, in order",
      [y for y, _ in fused_wide] == [y for y, _ in by_sum])
check("32.15", "with its values", [p for _, p in fused_wide], [p for _, p in by_sum], atol=1e-10)
check("32.16", "rescoring gives the order of the sum within the n-best list",
      [y for y, _ in rescore(nbest_tiny, lm_tiny, 0.6)] == in_list)
check("32.16", "if nothing was pruned, rescoring and fusion agree",
      [p for _, p in rescore(wide, lm_tiny, 0.6)], [p for _, p in fused_wide], atol=1e-10)
fused_0 = beam_search(*shallow_fusion(tiny.step, tiny_state, lm_tiny, 0.0), 400, 4, 3, 4)
check("32.15", "lam = 0 changes nothing", [p for _, p in fused_0], [p for _, p in wide], atol=1e-12)

# %% [markdown]
# **A case where they differ.** Three one-letter texts sound like $a$ 0.5, $b$ 0.3, $c$ 0.2; the language says
# $c$ with 0.9. A beam of two drops $c$ at the first letter, before the language model is asked.

# %%
def three_words(token, state):
    """Step of a recogniser that hears a, b, c with 0.5, 0.3, 0.2, then stops (bos 3, eos 4)."""
    heard = [0.5, 0.3, 0.2, 0, 0] if token[0] == 3 else [0, 0, 0, 0, 1.0]
    return torch.tensor(heard).log().expand(len(token), 5), state


lm_c = NGramLM(2, 5, bos=3, eos=4, alpha=0.1).fit([[2]] * 18 + [[0], [1]])
first_pass = beam_search(three_words, torch.zeros(1), 2, 1, 3, 4)
second_pass = rescore(first_pass, lm_c, 1.0)[0][0]
fused_best = beam_search(*shallow_fusion(three_words, torch.zeros(1), lm_c, 1.0), 2, 1, 3, 4)[0][0]
print("beam of two:", ["abc"[y[0]] for y, _ in first_pass], "· rescored:", "abc"[second_pass[0]],
      "· fused:", "abc"[fused_best[0]])
claim("p(c | start) of the language model", lm_c.log_probs([]).exp()[2], 0.9, atol=0.005)
claim("fusion finds c, rescoring cannot: it was dropped", fused_best == [2] and second_pass == [0])

# %% [markdown]
# ### Exercise 32.G · The weight that changes the answer · ●●○ · 8 min
#
# From which $\lambda$ on does rescoring prefer the second of two hypotheses to the first?

# %%
def my_threshold(first, second):
    """first, second: (log p, log p_LM). Returns the smallest lam >= 0 from which second is as good.

    0.0 if it is as good at once, inf if it never becomes so."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _threshold(first, second, sign=1, never=math.inf, at_once=True, probabilities=False):
    """(p_1 - p_2) / (l_2 - l_1), and its famous errors."""
    (p, l), (q, m) = (tuple(map(math.exp, x))
                      for x in (first, second)) if probabilities else (first, second)
    if at_once and p <= q:
        return 0.0
    return sign * (p - q) / (m - l) if m > l else never

# %% tags=["nbval-ignore-output", "hide-input"]
duels = [((-1.0, -5.0), (-2.0, -3.0)), ((-1.0, -3.0), (-2.0, -4.0)), ((-3.0, -1.0), (-2.0, -9.0)),
         ((-0.5, -7.0), (-2.0, -6.5))]
exercise("32.G", my_threshold, [(duel, _threshold(*duel)) for duel in duels], mistakes={
    "you lost a minus": lambda a, b: _threshold(a, b, sign=-1),
    "if the language model prefers the first as well, no weight helps":
    lambda a, b: _threshold(a, b, never=0.0),
    "you did not look whether the second wins without a language model":
    lambda a, b: _threshold(a, b, at_once=False),
    "logarithms are compared, not probabilities":
    lambda a, b: _threshold(a, b, probabilities=True),
    "two cases need no division: look first whether the second wins, then whether it can":
    lambda a, b: (a[0] - b[0]) / (b[1] - a[1])})

# %% [markdown]
# <details><summary>Hint 1</summary>Solve $p_1+\lambda l_1=p_2+\lambda l_2$ for $\lambda$.</details>
# <details><summary>Hint 2</summary>Two cases need no division: $p_2\ge p_1$, and $l_2\le l_1$.</details>
# <details><summary>Solution 32.G</summary>
#
# ```python
# def my_threshold(first, second):
#     if second[0] >= first[0]:
#         return 0.0
#     gain = second[1] - first[1]
#     return (first[0] - second[0]) / gain if gain > 0 else math.inf
# ```
#
# </details>
#
# ### On the test voices
#
# The weight $\lambda$ is chosen on the development voices (of equal ones the smallest), once for fusion and
# once for rescoring; the test is touched afterwards.

# %%
LAMS = [0.0, 0.1, 0.2, 0.4, 0.8, 1.6]
lm = lms[8]                      # in the figure all orders from 6 on are alike

# %%
@torch.no_grad()
def states_of(model, sounds):
    """One state of the speller for each sound, ready for beam_search."""
    found = []
    for k in range(0, len(sounds), 32):             # the listener reads whole batches
        x, lengths = log_mel_batch(sounds[k:k + 32])
        h, places = model.listener(x.to(device), lengths.to(device))
        found += [model.speller.start(h[i:i + 1, :n], places[i:i + 1])
                  for i, n in enumerate(places.tolist())]
    return found

# %%
def decode_all(model, states, beam=8, lam=0.0):
    """n-best lists of all states, by a beam with shallow fusion."""
    fused = [shallow_fusion(model.speller.step, state, lm, lam) for state in states]
    return [beam_search(*pair, beam, MAX_LEN, BOS, EOS)
            for pair in progress(fused, desc=f"beam {beam}")]

# %%
def best_texts(nbests):
    return [decode(nbest[0][0]) for nbest in nbests]

# %%
def rescored(nbests, lam):
    return best_texts([rescore(nbest, lm, lam) for nbest in nbests])

# %%
dev_states = states_of(las, dev_sounds)
dev_nbest = decode_all(las, dev_states)
dev_wer = {"rescoring": [wer(dev_refs, rescored(dev_nbest, lam)) for lam in LAMS],
           "fusion": [wer(dev_refs, best_texts(decode_all(las, dev_states, lam=lam)))
                      for lam in LAMS]}
LAM_OF = {way: LAMS[int(np.argmin(dev_rates))] for way, dev_rates in dev_wer.items()}

# %%
states = states_of(las, test_sounds)
beams, beam_seconds = {}, {}
for n_beam in (1, 2, 4, 8):
    begun = time.process_time()
    beams[n_beam] = decode_all(las, states, n_beam)
    beam_seconds[n_beam] = (time.process_time() - begun) / len(states)
hypotheses = {"greedy": by_greedy, "beam 8": best_texts(beams[8]),
              "beam 8, rescoring": rescored(beams[8], LAM_OF["rescoring"]),
              "beam 8, fusion": best_texts(decode_all(las, states, lam=LAM_OF["fusion"]))}

# %%
claim("beam 1 writes what greedy decoding wrote, one utterance at a time or in a batch",
      1 - wer(by_greedy, best_texts(beams[1])), above=0.97,
      trivial=1 - wer(by_greedy, by_greedy[1:] + by_greedy[:1]))
best_log_p = {n_beam: np.array([nbest[0][1] for nbest in beams[n_beam]]) for n_beam in (1, 8)}
claim("a beam of 8 finds more probable texts than greedy, in the mean",
      (best_log_p[8] - best_log_p[1]).mean(), above=0.0, trivial=0.0)
sound_alone = wer(refs, hypotheses["beam 8"])
claim("rescoring and fusion make fewer errors than the beam alone",
      [wer(refs, hypotheses[f"beam 8, {way}"]) for way in LAM_OF], below=0.8 * sound_alone,
      trivial=sound_alone)

# %% tags=["nbval-ignore-output"]
rows = {}
for way, written_texts in hypotheses.items():
    rows[way] = {}
    for title, cut in (("WER", str.split), ("CER", list)):
        mean_rate, se, low, high = wer_with_interval(refs, written_texts, cut, units)
        rows[way] |= {title: round(mean_rate, 3), f"interval of {title}":
        f"{low:.3f} to {high:.3f}"}
        measured(f"{title.lower()}_{re.sub(r'[^a-z0-9]+', '_', way)}", mean_rate, se)
if wer(refs, hypotheses["beam 8"]):
    ratio = wer(refs, hypotheses["beam 8, fusion"]) / wer(refs, hypotheses["beam 8"])
    measured("relative_gain", 100 * (1 - ratio))
print("weights chosen on the development voices:", LAM_OF)
pd.DataFrame(rows).T

# %% [markdown]
# All four read the same utterances, so the *difference* has a smaller error bar than the rates themselves:
# resample voices and take the difference each time.

# %% tags=["nbval-ignore-output"]
def paired_interval(texts_a, texts_b):
    """Bootstrap interval of WER(a) - WER(b) over the same units."""
    errors = [np.array([sum(edit_ops(r.split(), h.split())[:3]) for r, h in zip(refs, texts_)])
              for texts_ in (texts_a, texts_b)]
    sizes = summed([len(r.split()) for r in refs], units)
    draws = [bootstrap_rates(summed(e, units), sizes) for e in errors]      # the same seed: paired
    return np.quantile(draws[0] - draws[1], [0.025, 0.975])


for way in ("beam 8, rescoring", "beam 8, fusion"):
    low, high = paired_interval(hypotheses[way], hypotheses["beam 8"])
    verdict = "fewer errors" if high < 0 else "more errors" if low > 0 else "no clear difference"
    print(f"{way} minus beam 8: {low:+.3f} to {high:+.3f}: {verdict}")

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.6, 2.7))
for way, dev_rates in dev_wer.items():
    ax.plot(LAMS, dev_rates, "o-", label=way)
ax.set(xlabel="weight λ of the letter model", ylabel="WER, development voices", ylim=(0, None))
ax.legend()
plt.show()

# %% [markdown]
# **Predict.** Below is an n-best list: how each text sounds (dark) and what the letter model adds (light),
# both as negative logarithms, so the shortest bar wins. With growing $\lambda$, which texts rise? What can a
# beam of 1 gain from the letter model?

# %% tags=["hide-input"]
worst = sorted(range(len(refs)), key=lambda utt: (hypotheses["beam 8"][utt] == refs[utt],
                                                  -len(refs[utt])))[:5]

# %% tags=["hide-input"]
def draw_nbest(utterance=0, beam=8, lam=0.2, sound=True):
    """The n-best list of a test utterance, re-ranked with weight lam; a player of what is shown."""
    k = worst[utterance]
    nbest = {tuple(y): p for y, p in beams[beam][k]}
    ranked = rescore(beams[beam][k], lm, lam)[:6]
    fig, ax = plt.subplots(figsize=(7.6, 0.42 * len(ranked) + 1.3))
    for place, (tokens, total) in enumerate(ranked):
        heard = -nbest[tuple(tokens)]
        ax.barh(-place, heard, color="#1b4f8f", height=0.6)
        ax.barh(-place, -total - heard, left=heard, color="#b9cde8", height=0.6)
        text = decode(tokens)
        ax.text(-total, -place, f"  {text}{'  ✓' if text == refs[k] else ''}", va="center",
                fontsize=9)
    ax.set(yticks=[], xlabel="-log p(y | x) - λ log p(y)", title=f"said: {refs[k]}",
           xlim=(0, -ranked[-1][1] * 1.5 + 1))
    ax.grid(False)
    plt.show()
    if sound:
        play({refs[k]: test_sounds[k] / test_sounds[k].abs().max()})

# %% tags=["nbval-ignore-output", "hide-input"]
draw_nbest(0, 8, 0.0, sound=False)
draw_nbest(0, 8, 0.8, sound=False)

# %% tags=["nbval-ignore-output"]
interact(draw_nbest,
         utterance=IntSlider(min=0, max=len(worst) - 1, description="utterance", **WIDE),
         beam=SelectionSlider(options=list(beams), value=8, description="beam B", **WIDE),
         lam=SelectionSlider(options=[0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6], value=0.2,
                             description="weight λ", **WIDE),
         sound=True);

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# Texts that keep to the chain rise with $\lambda$, and with a very large weight the sound hardly matters. A
# list of one hypothesis has no other order: rescoring needs an n-best list.
#
# </details>

# %% [markdown]
# ## 11. ☆ Where it breaks
#
# The network has heard one to three digits (in the full run: one to five). What does it do with more, and
# with the same digit several times, where every place sounds like the right one?

# %%
def drill(n_digits, repeated, n=20, seed=50):
    """n quiet test utterances of n_digits equal or random digits: (sounds, texts)."""
    generator, names = torch.Generator().manual_seed(seed + n_digits), sorted(voices["test"])
    digits = [torch.randint(10, (1 if repeated else n_digits,), generator=generator).tolist()
              for _ in range(n)]
    rows = [row * n_digits if repeated else row for row in digits]
    sounds = [say(voices["test"][names[k % len(names)]], row, generator)
              for k, row in enumerate(rows)]
    return sounds, [" ".join(WORDS[d] for d in row) for row in rows]


def drilled_by(model, repeated):
    """{n: (sounds, texts, greedy texts)} of utterances of 1 .. N_DRILL digits."""
    found = {}
    for n in range(1, N_DRILL + 1):
        sounds, texts = drill(n, repeated)
        found[n] = sounds, texts, greedy(model, *on_device(sounds), 6 * n + 12)
    return found

# %%
N_DRILL = max(8, N_MAX + 3)
drilled = {repeated: drilled_by(las, repeated) for repeated in (False, True)}
long_wer = {repeated: [wer(*found[1:]) for found in drilled[repeated].values()]
            for repeated in (False, True)}

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6.4, 2.8))
for repeated, kind in ((False, "random digits"), (True, "one digit repeated")):
    ax.plot(range(1, N_DRILL + 1), long_wer[repeated], "o-", label=kind)
ax.axvline(N_MAX + 0.5, color="#222222", lw=0.8, ls=":")
ax.text(N_MAX + 0.6, 0.03, "longer than in training", fontsize=9)
ax.set(xlabel="digits in the utterance", ylabel="greedy WER, quiet", ylim=(0, None))
ax.legend(loc="upper left")
plt.show()

# %% tags=["nbval-ignore-output"]
claim(f"{N_DRILL} digits are far harder than the longest that it was trained on",
      long_wer[False][-1] - long_wer[False][N_MAX - 1], above=0.1, trivial=0.0)
S, D, I, C = np.sum([edit_ops(r.split(), h.split()) for repeated in (False, True)
                     for r, h in zip(*drilled[repeated][N_DRILL][1:])], 0)
claim("the longest utterances mostly lose words", D / (S + D + I), above=0.6, trivial=1 / 3)
print(f"{D / (S + D + I):.0%} of the errors with {N_DRILL} digits are lost words; the net writes "
      f"{(S + I + C) / 40:.1f} words on average")

# %% tags=["hide-input"]
tried = [trial for n_long in range(5, N_DRILL + 1) for trial in zip(*drilled[True][n_long])]
failed = next((trial for trial in tried if trial[1] != trial[2]), tried[0])
fig, axes = plt.subplots(2, 1, figsize=(8.6, 4.2), height_ratios=[1, 2], sharex=True, dpi=64)
draw_reading(las, failed[0], failed[2], axes)
axes[0].set_title(f"said: {failed[1]}\nwritten: {failed[2]}", fontsize=9, pad=18)
plt.show()

# %% [markdown]
# The figure shows the letters that were *written* and where attention stood for each of them. Repeated digits
# are no harder than random ones in 20 utterances each. Words are lost, perhaps because the net has never seen a
# longer text. (Nothing in (32.9) makes attention move on or count; location-aware attention and monotone paths
# are remedies that were proposed for long utterances.)

# %% [markdown]
# ## 12. ☆ Real voices: the Free Spoken Digit Dataset
#
# `make full NB=32` trains the same network on recordings of six people (3,000 single digits, joined as above,
# one to five a sequence) and recognises 300 structured sequences in two settings: **(a)** the official split,
# where takes 0–4 of *known* speakers are the test, and **(b)** three trainings that each leave two speakers
# out entirely.

# %%
def unseen_speakers(pairs, n_steps):
    """WER on speakers that were left out of training: {speaker: (refs, greedy texts)}."""
    found = {}
    for pair in pairs:
        pool = takes_of(lambda k: recorded.speaker[k] not in pair and recorded.take[k] >= 5)
        seed(0)
        net, _ = train_las(LAS(D_HIDDEN), [pool, *pools[1:]], n_steps, LR,
                           torch.Generator().manual_seed(0), N_MAX)
        for name in pair:
            strange = takes_of(lambda k: recorded.speaker[k] == name)
            sounds, texts_, _ = spoken_set(strange, N_TEST // 6, NOISE_TEST, 330, N_MAX)
            found[name] = texts_, greedy(net, *on_device(sounds), MAX_LEN)
    return found

# %%
pairs_out = [("george", "jackson"), ("lucas", "nicolas"), ("theo", "yweweler")]
strangers = unseen_speakers(pairs_out, N_STEPS) if UNSEEN else {}

# %%
for person, spoken_and_written in strangers.items():
    measured(f"unseen_{person}", *wer_with_interval(*spoken_and_written)[:2])
if strangers:
    of_speaker = np.array([wer(*spoken_and_written) for spoken_and_written in strangers.values()])
    measured("unseen_mean", of_speaker.mean())
    measured("unseen_spread", of_speaker.std(ddof=1))
    claim("known speakers: greedy WER", wer(refs, by_greedy), below=0.04, trivial=of_speaker.mean())
    claim("unseen speakers: mean greedy WER", of_speaker.mean(), below=0.35, trivial=0.9)

# %%
if DATA == "fsdd":  # one-digit sequences, as others report them; and everything that was written
    single, single_refs, _ = spoken_set(voices["test"], 300, NOISE_TEST, 340, 1)
    single_texts = greedy(las, *on_device(single), MAX_LEN)
    measured("single_wer", *wer_with_interval(single_refs, single_texts)[:2])
if os.environ.get("COURSE_FULL") and strangers:
    lines = [("setting", "speaker", "system", "reference", "hypothesis")]
    for way, written_texts in hypotheses.items():
        lines += [("known", person, way, *pair) for person, *pair in zip(who, refs, written_texts)]
    for person, spoken_and_written in strangers.items():
        lines += [("unseen", person, "greedy", *pair) for pair in zip(*spoken_and_written)]
    with open(data.DATA / "asr_hypotheses.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)

# %% [markdown]
# Measured (greedy WER ± standard error by bootstrap over utterances; beam of 8 for the rest):
#
# | | WER | CER |
# |---|---|---|
# | (a) known speakers, greedy | <!--full:32.wer_greedy-->0.033 ± 0.006<!--/full--> | <!--full:32.cer_greedy-->0.027 ± 0.005<!--/full--> |
# | (a) beam 8 | <!--full:32.wer_beam_8-->0.032 ± 0.006<!--/full--> | <!--full:32.cer_beam_8-->0.025 ± 0.005<!--/full--> |
# | (a) beam 8, rescoring | <!--full:32.wer_beam_8_rescoring-->0.017 ± 0.005<!--/full--> | <!--full:32.cer_beam_8_rescoring-->0.012 ± 0.004<!--/full--> |
# | (a) beam 8, fusion | <!--full:32.wer_beam_8_fusion-->0.016 ± 0.005<!--/full--> | <!--full:32.cer_beam_8_fusion-->0.012 ± 0.004<!--/full--> |
# | (a) sequences of one digit, greedy | <!--full:32.single_wer-->0.06 ± 0.01<!--/full--> | |
# | (b) george, jackson: unseen | <!--full:32.unseen_george-->0.31 ± 0.04<!--/full-->, <!--full:32.unseen_jackson-->0.10 ± 0.02<!--/full--> | |
# | (b) lucas, nicolas: unseen | <!--full:32.unseen_lucas-->0.33 ± 0.05<!--/full-->, <!--full:32.unseen_nicolas-->0.38 ± 0.04<!--/full--> | |
# | (b) theo, yweweler: unseen | <!--full:32.unseen_theo-->0.10 ± 0.02<!--/full-->, <!--full:32.unseen_yweweler-->0.17 ± 0.03<!--/full--> | |
# | (b) mean of the six; standard deviation between speakers | <!--full:32.unseen_mean-->0.230<!--/full-->; <!--full:32.unseen_spread-->0.125<!--/full--> | |
#
# Every text that was written is in [asr_hypotheses.csv](../data/asr_hypotheses.csv). The error bars are those
# of these six people (utterances are drawn, not voices), and the 887 words of (a) come from 300 recordings.

# %% tags=["hide-input"]
stored = pd.read_csv(data.DATA / "asr_hypotheses.csv", keep_default_na=False)
part = lambda **want: stored[np.logical_and.reduce([stored[k] == v for k, v in want.items()])]
errors_of = lambda rows: np.array([sum(edit_ops(r.split(), h.split())[:3])
                                   for r, h in zip(rows.reference, rows.hypothesis)])
known, plain, again, fused = (part(setting="known", system=way) for way in (
    "greedy", "beam 8", "beam 8, rescoring", "beam 8, fusion"))
sizes = known.reference.str.split().str.len().to_numpy()
for person in sorted(set(known.speaker)):
    unseen, friend = (part(setting=setting, system="greedy", speaker=person)
                      for setting in ("unseen", "known"))
    print(f"{person:9} known {wer(friend.reference, friend.hypothesis):.3f}, "
          f"unseen {wer(unseen.reference, unseen.hypothesis):.3f}")
print("known, % errors by digits said:", {int(n): round(float(
    100 * errors_of(known)[sizes == n].sum() / sizes[sizes == n].sum()), 1) for n in range(1, 6)})
gain = lambda a, b: 100 * (1 - b / a)
for way, rows in (("rescoring", again), ("fusion", fused)):
    low, high = np.quantile(gain(bootstrap_rates(errors_of(plain), sizes),
                                 bootstrap_rates(errors_of(rows), sizes)), [0.025, 0.975])
    middle = gain(errors_of(plain).sum(), errors_of(rows).sum())
    print(f"relative gain of {way}: {middle:.0f} % ({low:.0f} to {high:.0f})")
print("rescoring and fusion write different texts in",
      (again.hypothesis.to_numpy() != fused.hypothesis.to_numpy()).sum(), "of", len(again))

# %% [markdown]
# What we see: with people it knows, the recogniser makes about one error in thirty words, and the letter model,
# with $\lambda$ chosen on takes 5–9, saves about half of them: here a word after the first has a perplexity of
# 2.8, so do not expect this of English. Utterances of one or two digits have about 5 % errors (10 of them),
# those of three to five 2–4 %.
#
# **Four speakers do not make a recogniser of strangers.** The best understood strangers have three to four
# times the errors that they have when known; three of the six are lost in every third word. Six of them (two
# at a time, from three trainings) say little about a seventh. What should help is to make more speakers of
# few: other speeds, shifts of the mel axis, SpecAugment, the bundled synthetic voices. This run used all four;
# which of them helped was not isolated.
#
# Published, on other data and with other language models, so that neither level nor gain can be compared: LAS
# on Google voice search made a WER of 14.1 %, and 10.3 % after *rescoring* its n-best list with a language
# model; the classical system of the same paper 8.0 % (Chan et al. 2016). For FSDD a small convolutional network
# ([sound-mnist](https://adhishthite.github.io/sound-mnist), three speakers, random split) reports 98 % of
# single digits on its validation set and 97 % on a test of 150 recordings; beside it stands 1 − WER of our
# one-digit sequences, which is lower. For unseen speakers we found no published figure.

# %% [markdown]
# ## Where the notes slip
#
# | | the notes | right |
# |---|---|---|
# | E19 | WER of the fox example is $\frac{1+1+1}8=\frac38$ | *brown* → *brow* is one substitution, *an* one insertion, nothing is deleted: $S=1,D=0,I=1,C=7$, WER $2/8=0.25$ |
# | E20 | WER is the "share of wrong words"; for Attend and Spell "one can just take the Euclidean distance between vectors"; "in LAS we minimise cross-entropy", in a list of quality measures | a ratio that may exceed 1 (twelve wrong for ten: 1.2, as the notes say themselves; (32.4)); texts of different length have no Euclidean distance; cross-entropy is what is trained, the measure is WER |
# | E59 | CER is "character **match**" («посимвольное совпадение») | character **error** rate, spaces counted: here 2/38 = 0.053, where the share of matches is 1 |
# | E60 | "we concatenate the outputs for each layer and feed the next LSTM" | pairs of neighbouring **time steps** of one layer, so that time halves: 800 → 100 after three (32.8); concatenating layers leaves 800 |
# | E61 | "second pass fusing", "shallow fusing", "teach-forcing" | second-pass **rescoring** (of the n-best list), shallow **fusion** (inside the beam), **teacher** forcing |

# %%
o = jiwer.process_words(fox, brow)
check("32.2", "E19: S, D, I, C of the fox are 1, 0, 1, 7 and its WER is 0.25, by ours and by jiwer",
      [[*edit_ops(fox.split(), brow.split()), wer(fox, brow)],
       [o.substitutions, o.deletions, o.insertions, o.hits, o.wer]],
      [[1, 0, 1, 7, 0.25]] * 2)
S_c, D_c, I_c, C_c = edit_ops(fox, brow)
check("32.3", "E59: the error rate is 2/38; the share of matching characters is 1",
      [cer(fox, brow), C_c / len(fox)], [2 / 38, 1.0], atol=1e-12)

# %% [markdown]
# ## What it costs
#
# | what | operations |
# |---|---|
# | edit table (32.1) | $NM$ cells; two rows of memory if only the distance is wanted |
# | listener of $L$ layers (32.7) | $T+\frac T2+\dots+\frac T{2^L}<2T$ steps of an LSTM, one after the other; without halving $(L+1)T$ |
# | attention (32.9), a text of $U$ letters | $UT'd'$ with $T'=T/2^L$: 8 times less with three layers |
# | beam (32.11) | $B$ times greedy, in batches of $B$; sorting $BV$ numbers |
# | rescoring a list of $B$; fusion | $B$ texts; $B$ contexts at every letter |
#
# Is the table's cost really the product of the lengths? And what does the beam buy for its time?

# %%
def cpu(f):
    """Processor time of f(), which other programs do not lengthen, in seconds."""
    started = time.process_time()
    f()
    return time.process_time() - started

# %%
def seconds_of_table(n):
    """The least time of seven for the edit table of two texts of n random letters."""
    letters = np.random.default_rng(n)
    r, h = (letters.integers(0, 5, n).tolist() for _ in range(2))
    return min(cpu(lambda: edit_table(r, h)) for _ in range(7))

# %%
def seconds_of_listener(n_more, halving):
    """The least time of five for 16 utterances of 240 frames, forwards and backwards: n_more
    BiLSTMs over the first, on pairs of frames or (no halving) on all frames."""
    x, n = torch.randn(16, 240, N_MELS, device=device), torch.full((16,), 240, device=device)
    pyramid = Listener(N_MELS, D_HIDDEN, n_more).to(device)
    flat = [BiLSTM(d, D_HIDDEN).to(device) for d in [N_MELS] + [2 * D_HIDDEN] * n_more]

    def run():
        h = pyramid(x, n)[0] if halving else x
        for layer in [] if halving else flat:
            h = layer(h, n)
        h.sum().backward()
    return min(cpu(run) for _ in range(5))

# %%
table_sizes = [50, 100, 200, 400]
table_seconds = [seconds_of_table(n) for n in table_sizes]
listener_ms = {kind: [1e3 * seconds_of_listener(L, kind == "pyramid, ms") for L in range(4)]
               for kind in ("pyramid, ms", "without halving, ms")}

# %% tags=["nbval-ignore-output"]
exponent = np.polyfit(np.log(table_sizes), np.log(table_seconds), 1)[0]
print(f"edit table: exponent {exponent:.2f} in N = M")
pd.DataFrame(listener_ms | {"places of the pyramid": [240, 120, 60, 30]},
             index=pd.Index(range(4), name="layers over the first")).round(0)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(8.8, 2.9))
axes[0].loglog(table_sizes, np.multiply(table_seconds, 1e3), "o-", label="measured")
axes[0].loglog(table_sizes, table_seconds[0] * 1e3 * (np.array(table_sizes) / 50) ** 2,
               label="$N^2$")
axes[0].set(xlabel="length of both texts", ylabel="edit table, ms", xticks=table_sizes,
            xticklabels=table_sizes)
axes[0].minorticks_off()
axes[0].legend()
for n_beam, beam_time in beam_seconds.items():
    point = beam_time * 1e3, wer(refs, best_texts(beams[n_beam]))
    axes[1].plot(*point, "o", color="#1b4f8f")
    axes[1].annotate(f"{n_beam}", point, fontsize=9, xytext=(0, 6 if n_beam in (1, 4) else -14),
                     textcoords="offset points", ha="center")
axes[1].set(xlabel="processor time, ms an utterance", ylabel="WER, noisy test", ylim=(0, 0.3),
            title="beam widths 1 to 8, no language model")
plt.show()

# %% [markdown]
# A pyramid of three layers costs more than one layer alone, but against the same four layers without halving it
# needs $1.875\,T$ steps for $4\,T$; and it saves again at every letter. The beam alone buys little here, and a
# wide one costs time; its list is what rescoring needs. Does a pyramid help the *learning* within an equal
# budget? That belongs to the full run: sequences of one or two digits, for each number of layers as many steps
# as fit into the time of
# <!--full:32.compare_steps-->300<!--/full--> steps of the full pyramid. Greedy WER with 0, 1, 2, 3 layers:
# <!--full:32.pyramid_0-->0.492<!--/full-->, <!--full:32.pyramid_1-->0.420<!--/full-->,
# <!--full:32.pyramid_2-->0.200<!--/full-->, <!--full:32.pyramid_3-->0.203<!--/full-->; with three layers and
# without the curriculum <!--full:32.no_curriculum-->0.102<!--/full--> (one training each, at a short budget:
# another seed may order them otherwise; the curriculum shows no gain here).

# %%
def short_training(n_pyramid, n_steps, curriculum=True):
    """A net with another pyramid or without the curriculum, trained on one or two digits."""
    seed(0)
    g = torch.Generator().manual_seed(0)
    return train_las(LAS(D_HIDDEN, n_pyramid), [voices["train"]], n_steps, LR, g, 2, curriculum)[0]


def wer_of_two(net):
    """Greedy WER on 200 quiet test sequences of one or two digits."""
    sounds, texts, _ = spoken_set(voices["test"], 200, 0.003, 322, 2)
    return wer(texts, greedy(net, *on_device(sounds), 14))

# %%
if N_COMPARE:
    second_of = [timed(short_training, L, 4, False, repeats=3, warmup=1) for L in range(4)]
    measured("compare_steps", N_COMPARE)
    for L in range(4):
        n_steps = round(N_COMPARE * second_of[3] / second_of[L])
        measured(f"pyramid_{L}", wer_of_two(short_training(L, n_steps)))
    measured("no_curriculum", wer_of_two(short_training(3, N_COMPARE, curriculum=False)))

# %% [markdown]
# ## Break it
#
# Every ✓ of this page is worth what it would notice. Choose a function and one change in it; the function and
# what depends on it are rebuilt in a copy, and the checks that it reaches run again.

# %% tags=["nbval-ignore-output"]
break_it()

# %% [markdown]
# ## Exam
#
# Answer aloud first, then open the model answer.

# %% [markdown] tags=["exam"]
# ### Question 11 · Which quality measures of speech recognition are there, and how is each computed?
#
# **По-русски.** Какие меры качества распознавания речи вы знаете и как они вычисляются?
#
# <details><summary>Model answer</summary>
#
# The hypothesis is aligned with the reference transcript so that the number of edits is smallest (Levenshtein
# distance): $d_{ij}=\min(d_{i-1,j}+1,\ d_{i,j-1}+1,\ d_{i-1,j-1}+[r_i\ne h_j])$, $d_{i0}=i$, $d_{0j}=j$;
# walking back from $d_{NM}$ gives the numbers of substitutions $S$, deletions $D$, insertions $I$ and correct
# words $C$.
#
# - **Word error rate** $\mathrm{WER}=\frac{S+D+I}N=\frac{S+D+I}{S+D+C}$, $N$ the number of words of the
#   reference. $S+D+I$ is unique, the split need not be. It is a ratio, not a probability: because of
#   insertions it may exceed 1 (12 wrong words for 10: $S=10$, $I=2$, WER = 1.2).
# - **Word accuracy** $1-\mathrm{WER}=\frac{C-I}N$, which may be negative.
# - **Character error rate** $\mathrm{CER}=\frac{S_c+D_c+I_c}{N_c}$: the same over characters, $N_c$ their
#   number in the reference, spaces counted. Suited to languages without clear word boundaries, and to see
#   near misses.
# - **Sentence error rate** $\mathrm{SER}=\frac1K\sum_{k=1}^K[e_k>0]$: share of the $K$ utterances with at
#   least one error, $e_k$ the errors of utterance $k$.
# - Of a corpus: sum the errors and the lengths, then divide, $\sum_ke_k/\sum_kN_k$ (not the mean of the
#   ratios). Both sides are normalised alike first (case, punctuation, numbers as words). Error bar by
#   bootstrap over utterances, or over speakers if the claim is about new ones. Often reported by groups
#   (speakers, noise, topic), or with weights.
#
# Example: "quick brown fox jumped over a lazy dog" heard as "quick brow an fox jumped over a lazy dog":
# $S=1$, $D=0$, $I=1$, $C=7$, WER = 2/8 = 0.25; CER = 2/38 ≈ 0.053 (a space and an *a* were inserted).
# Cross-entropy is a loss function and not a measure of recognition: it is computed with the true prefix and
# says nothing of the text that is finally written; the Euclidean distance is not defined for texts of
# different length.
#
# **Ответ по-русски.** Гипотеза выравнивается с эталонной расшифровкой так, чтобы число правок было
# минимальным (расстояние Левенштейна): $d_{ij}=\min(d_{i-1,j}+1,\ d_{i,j-1}+1,\ d_{i-1,j-1}+[r_i\ne h_j])$,
# $d_{i0}=i$, $d_{0j}=j$; обратный проход по таблице даёт число замен $S$, удалений $D$, вставок $I$ и верных
# слов $C$. *WER* (частота ошибок по словам): $\frac{S+D+I}{N}=\frac{S+D+I}{S+D+C}$, $N$ — число слов эталона.
# Сумма $S+D+I$ определена однозначно, разбиение на слагаемые — нет. Это отношение, а не вероятность: из-за
# вставок оно может быть больше 1 (12 неверных слов вместо 10: $S=10$, $I=2$, WER = 1,2). *Точность по словам*
# $1-\mathrm{WER}=\frac{C-I}N$ может быть отрицательной. *CER* (частота ошибок по символам):
# $\mathrm{CER}=\frac{S_c+D_c+I_c}{N_c}$ — то же по символам, $N_c$ — их число в эталоне, пробелы считаются.
# *SER*: $\mathrm{SER}=\frac1K\sum_{k=1}^K[e_k>0]$ — доля высказываний, в которых есть хотя бы одна ошибка
# ($e_k$ — число ошибок в высказывании $k$). Для корпуса складывают ошибки и длины и только потом делят:
# $\sum_ke_k/\sum_kN_k$, а не усредняют отношения; перед подсчётом оба текста одинаково нормализуют (регистр,
# пунктуация, числа словами); доверительный интервал — бутстреп по высказываниям или, если вывод о новых
# людях, по дикторам. Возможна стратификация по типу данных, тематике, дикторам. Пример: «quick brown fox
# jumped over a lazy dog» → «quick brow an fox jumped over a lazy dog»: $S=1$, $D=0$, $I=1$, $C=7$, WER = 2/8
# = 0,25, CER = 2/38 ≈ 0,053. Кросс-энтропия — функция потерь, а не мера качества распознавания: она считается
# при верной предыстории и ничего не говорит о тексте, который в итоге написан; евклидово расстояние между
# текстами разной длины не определено.
#
# **Typical mistake.** "Share of wrong words, so at most 1"; dividing by the length of the hypothesis;
# averaging the WERs of utterances.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 38 · Compute WER and CER of the pair "to be" → "be on" by the edit-distance table. Can WER exceed 1?
#
# **По-русски.** Вычислите WER и CER для пары «to be» → «be on» с помощью таблицы редакционного расстояния.
# Может ли WER быть больше 1?
#
# <details><summary>Model answer</summary>
#
# $d_{i0}=i$, $d_{0j}=j$, $d_{ij}=\min(d_{i-1,j}+1,\,d_{i,j-1}+1,\,d_{i-1,j-1}+[r_i\ne h_j])$. Rows are the
# reference, columns the hypothesis. Words (left) and characters (right, ␣ is the space):
#
# | | | be | on | | | | b | e | ␣ | o | n |
# |---|---|---|---|---|---|---|---|---|---|---|---|
# | | 0 | 1 | 2 | | | 0 | 1 | 2 | 3 | 4 | 5 |
# | to | 1 | 1 | 2 | | t | 1 | 1 | 2 | 3 | 4 | 5 |
# | be | 2 | 1 | 2 | | o | 2 | 2 | 2 | 3 | 3 | 4 |
# | | | | | | ␣ | 3 | 3 | 3 | 2 | 3 | 4 |
# | | | | | | b | 4 | 3 | 4 | 3 | 3 | 4 |
# | | | | | | e | 5 | 4 | 3 | 4 | 4 | 4 |
#
# **WER.** The corner is 2, $N=2$ words: WER = 2/2 = 1. Walking back: *to* deleted, *be* correct, *on*
# inserted ($S=0$, $D=1$, $I=1$, $C=1$, $N=S+D+C=2$). Two substitutions (*to → be*, *be → on*) cost the same:
# the sum is unique, the split is not.
#
# **CER.** The corner is 4, $N=5$ characters with the space: CER = 4/5 = 0.8. Walking back: t → b, o → e, ␣
# correct, b → o, e → n ($S=4$, $D=I=0$, $C=1$).
#
# **Can WER exceed 1? Yes.** $\mathrm{WER}=(S+D+I)/N$ has no upper bound, because the hypothesis may be longer
# than the reference: twelve wrong words for ten give $S=10$, $I=2$, WER = 1.2 and the accuracy
# $1-\mathrm{WER}=-0.2$. For one spoken word and five written ones WER is at least 4.
#
# **Ответ по-русски.** Правило: $d_{i0}=i$, $d_{0j}=j$,
# $d_{ij}=\min(d_{i-1,j}+1,\,d_{i,j-1}+1,\,d_{i-1,j-1}+[r_i\ne h_j])$; строки — эталон, столбцы — гипотеза
# (таблицы — выше). *По словам.* Строки таблицы: начальная 0, 1, 2; «to»: 1, 1, 2; «be»: 2, 1, 2. Угол равен
# 2, $N=2$, WER = 2/2 = 1. Обратный проход: «to» удалено, «be» совпало, «on» вставлено ($S=0$, $D=I=C=1$,
# $N=S+D+C$); столько же стоят две замены: сумма единственна, разбиение — нет. *По символам* (пробел
# считается). Строки: начальная 0, 1, 2, 3, 4, 5; «t»: 1, 1, 2, 3, 4, 5; «o»: 2, 2, 2, 3, 3, 4; пробел: 3, 3,
# 3, 2, 3, 4; «b»: 4, 3, 4, 3, 3, 4; «e»: 5, 4, 3, 4, 4, 4. Угол равен 4 (замены t → b, o → e, b → o, e → n,
# пробел совпал), $N=5$, CER = 4/5 = 0,8. *Может ли WER быть больше 1?* Да: гипотеза может быть длиннее
# эталона, верхней границы нет; 12 неверных слов вместо 10 дают $S=10$, $I=2$, WER = 1,2, точность
# $1-\mathrm{WER}=-0{,}2$; одно слово сказано, пять написано: WER не меньше 4.
#
# **Typical mistake.** Dividing by the longer text; comparing position by position; leaving out the spaces in
# CER.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 39 · Why does the LAS listener use a pyramid, and what is the time reduction of three layers?
#
# **По-русски.** Зачем в кодировщике LAS (listener) нужна пирамида и во сколько раз три её слоя сокращают
# время?
#
# <details><summary>Model answer</summary>
#
# A second of sound has about 100 frames, but only some 15 letters. If the speller attended to all frames of an
# utterance of 800, every letter would have to choose among 800 frames, of which neighbours are nearly equal:
# attention then learns slowly (LAS did not converge well without the pyramid, Chan et al. 2016), and its cost
# $O(UTd)$ for $U$ letters, $T$ frames and vectors of size $d$ is large. So every layer of the pyramid puts two
# *neighbouring time steps* of the layer below side by side:
# $$h^l_t=\mathrm{BiLSTM}\big(h^l_{t-1},\,[h^{l-1}_{2t};\,h^{l-1}_{2t+1}]\big).$$
# Each halves the length, rounded up (a zero frame for a missing partner): $T_l=\lceil T_{l-1}/2\rceil$, hence
# the number of places after $L$ layers is $T'=\lceil T/2^L\rceil$. Three layers: $2^3=8$ times, 800 frames →
# 100. The attention costs $O(UT'd)$, 8 times less; the listener itself needs
# $T(1+\frac12+\frac14+\frac18)=1.875\,T<2T$ steps instead of $4T$ for four layers that do not halve. The higher
# layers see longer pieces of sound per step, and gradients have shorter ways. Too many layers blur: one place
# then covers several sounds, and the speller must untangle them from a single vector. It is *not* a
# concatenation of the outputs of different layers, which would leave $T=800$.
#
# **Ответ по-русски.** В секунде речи около 100 кадров и лишь порядка 15 букв. Если бы механизм внимания смотрел
# на все 800 кадров, то для каждой буквы пришлось бы выбирать из 800 кадров, среди которых соседние почти
# одинаковы: обучение шло бы медленно (без пирамиды модель LAS сходилась плохо), а стоимость внимания $O(UTd)$
# на $U$ букв, $T$ кадров и векторы размера $d$ велика. Поэтому каждый слой пирамиды соединяет (конкатенирует)
# два *соседних момента времени* предыдущего слоя:
# $h^l_t=\mathrm{BiLSTM}(h^l_{t-1},[h^{l-1}_{2t};h^{l-1}_{2t+1}])$. Длина каждый раз уменьшается вдвое с
# округлением вверх (недостающий кадр заменяется нулевым): $T_l=\lceil T_{l-1}/2\rceil$, и после $L$ слоёв
# остаётся $T'=\lceil T/2^L\rceil$ позиций. Три слоя дают $2^3=8$ раз: 800 кадров → 100. Внимание стоит
# $O(UT'd)$, в 8 раз меньше, сам кодировщик делает $T(1+\frac12+\frac14+\frac18)=1{,}875\,T<2T$ шагов вместо
# $4T$ для четырёх слоёв без пирамиды. Верхние слои за один шаг видят более длинные отрезки звука, а путь
# градиента короче. Слишком много слоёв — слишком грубое разрешение по времени: одна позиция охватывает
# несколько звуков, и декодировщику приходится разделять их по одному вектору. Конкатенация выходов *разных
# слоёв* длину не меняет: осталось бы 800.
#
# **Typical mistake.** "The outputs of the layers are concatenated"; "three layers reduce time three times".
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 40 · Shallow fusion against second-pass rescoring: formulas, and when do they give different answers?
#
# **По-русски.** Поверхностное слияние (shallow fusion) и переоценка гипотез вторым проходом: формулы; когда
# ответы различаются?
#
# <details><summary>Model answer</summary>
#
# $p(y\mid x)$: recogniser, $p_{\mathrm{LM}}(y)$: language model (both with the end sign), $\lambda\ge0$
# chosen on a development set, $B$ the width of the beam. Both want
# $$\arg\max_y\big[\log p(y\mid x)+\lambda\log p_{\mathrm{LM}}(y)\big].$$
#
# **Shallow fusion**: the sum is used inside the beam. A prefix $y_1\dots y_u$ has the score
# $\sum_{j\le u}\big(\log p(y_j\mid y_{<j},x)+\lambda\log p_{\mathrm{LM}}(y_j\mid y_{<j})\big)$; at each step
# the $B$ best continuations by this score are kept.
#
# **Second-pass rescoring**: the beam keeps prefixes by $\sum_{j\le u}\log p(y_j\mid y_{<j},x)$ alone and
# returns the n-best list $\mathcal N$; then
# $\hat y=\arg\max_{y\in\mathcal N}[\log p(y\mid x)+\lambda\log p_{\mathrm{LM}}(y)]$.
#
# **At the same $\lambda$** different answers arise only from pruning: when the text that is best by the sum has
# a prefix that is not among the $B$ best by sound, rescoring never sees it. Example:
# $p(a),p(b),p(c)=0.5,0.3,0.2$, $p_{\mathrm{LM}}(c)=0.9$, $p_{\mathrm{LM}}(a)=p_{\mathrm{LM}}(b)=0.05$,
# $\lambda=1$, $B=2$: the list holds $a$ and $b$, rescoring answers $a$ (0.025 against 0.015); fusion compares
# 0.025, 0.015, 0.18 and answers $c$. Fusion errs the other way: if the language model gives the best text a bad
# first letter (say 0.02), the beam drops it before its good end is seen; rescoring, which kept it by sound, is
# right. With a beam so wide that nothing is pruned the answers are equal. Both shorten texts, since each letter
# costs twice: divide $\log p(y\mid x)$ by $\lvert y\rvert$ or add $\beta\lvert y\rvert$. Fusion needs the
# language model at every letter, left to right, with the same tokens; rescoring asks only $B$ whole texts and
# may use a large, slow or two-way model.
#
# **Ответ по-русски.** $p(y\mid x)$ — распознаватель, $p_{\mathrm{LM}}(y)$ — языковая модель (обе со знаком
# конца), $\lambda\ge0$ подбирается на валидационной выборке, $B$ — ширина луча. Оба метода ищут
# $\arg\max_y[\log p(y\mid x)+\lambda\log p_{\mathrm{LM}}(y)]$. *Поверхностное слияние*: сумма используется
# внутри лучевого поиска; на каждом шаге остаются $B$ лучших префиксов по
# $\sum_{j\le u}(\log p(y_j\mid y_{<j},x)+\lambda\log p_{\mathrm{LM}}(y_j\mid y_{<j}))$. *Второй проход*:
# лучевой поиск идёт без языковой модели, по $\sum_{j\le u}\log p(y_j\mid y_{<j},x)$, и возвращает список $n$
# лучших гипотез $\mathcal N$, затем
# $\hat y=\arg\max_{y\in\mathcal N}[\log p(y\mid x)+\lambda\log p_{\mathrm{LM}}(y)]$. При одном и том же
# $\lambda$ ответы различаются только из-за отсечения: если префикс лучшего по сумме текста не вошёл в $B$
# лучших по звуку, второй проход его уже не увидит. Пример: $p(a),p(b),p(c)=0{,}5;\,0{,}3;\,0{,}2$,
# $p_{\mathrm{LM}}(c)=0{,}9$, $p_{\mathrm{LM}}(a)=p_{\mathrm{LM}}(b)=0{,}05$, $\lambda=1$, $B=2$: в списке $a$ и
# $b$, переоценка выбирает $a$ (0,025 против 0,015), слияние сравнивает 0,025; 0,015; 0,18 и выбирает $c$.
# Ошибиться может и слияние: если языковая модель даёт лучшему тексту плохую первую букву (скажем, 0,02), луч
# отбрасывает его раньше, чем видно хорошее продолжение, а второй проход, сохранивший его по звуку, прав. Если
# луч так широк, что ничего не отброшено, ответы совпадают. Оба метода укорачивают текст: за каждую букву
# штрафуют дважды; поэтому $\log p(y\mid x)$ делят на $\lvert y\rvert$ или прибавляют $\beta\lvert y\rvert$.
# Слияние требует языковую модель на каждой букве, слева направо и с тем же набором токенов; вторым проходом
# можно применить большую, медленную или двунаправленную модель к нескольким готовым текстам.
#
# **Typical mistake.** Mixing up the names ("second-pass fusion"); claiming that the formulas differ.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# - WER $=(S+D+I)/N$ from the edit table (32.1); errors and lengths are summed over a corpus first (32.5); it
#   may exceed 1; its error bar comes from resampling utterances, or voices (32.6).
# - The listener halves time at each layer of its pyramid, $T'=\lceil T/2^L\rceil$ (32.8); attention is a
#   softmax over the places that exist (32.9); padding changes nothing.
# - Training is cross-entropy with the true letters before (32.10); a curriculum of lengths showed no gain
#   in three seeds, nor did exposure bias show in texts of a few words.
# - Beam search keeps the $B$ best prefixes (32.11): greedy for $B=1$, exhaustive for a wide beam; sums of
#   logarithms favour short texts (32.12).
# - The interpolated estimate is a posterior mean, the shorter context taken as known (32.13); the entropy of
#   the source bounds perplexity (32.14).
# - Fusion adds the language model inside the beam (32.15), rescoring after it (32.16); they differ where the
#   beam dropped the answer.
#
# **References**
#
# - W. Chan, N. Jaitly, Q. V. Le, O. Vinyals, [Listen, Attend and Spell](https://arxiv.org/abs/1508.01211),
#   ICASSP 2016.
# - V. I. Levenshtein, Binary codes capable of correcting deletions, insertions, and reversals, Soviet Physics
#   Doklady, 1966.
# - M. Bisani, H. Ney, [Bootstrap estimates for confidence intervals in ASR performance
#   evaluation](https://doi.org/10.1109/ICASSP.2004.1326009), ICASSP 2004.
# - D. Bahdanau, K. Cho, Y. Bengio, [Neural machine translation by jointly learning to align and
#   translate](https://arxiv.org/abs/1409.0473), ICLR 2015: additive attention.
# - S. Bengio, O. Vinyals, N. Jaitly, N. Shazeer,
#   [Scheduled sampling for sequence prediction with recurrent neural networks](https://arxiv.org/abs/1506.03099),
#   NIPS 2015.
# - D. J. C. MacKay, L. C. Bauman Peto, [A hierarchical Dirichlet language
#   model](https://doi.org/10.1017/S1351324900000218), Natural Language Engineering, 1995.
# - D. S. Park et al., [SpecAugment](https://arxiv.org/abs/1904.08779), Interspeech 2019.
# - Z. Jackson and others,
#   [Free Spoken Digit Dataset](https://github.com/Jakobovski/free-spoken-digit-dataset), 2018.
# - [sound-mnist](https://adhishthite.github.io/sound-mnist): a convolutional network for single digits.
#
# <!-- navigation -->
# previous: [31 Sound features](31_sound_features.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [33 CTC and Jasper](33_ctc_jasper.ipynb)
# <!-- /navigation -->
