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
# # 33 · CTC and Jasper: speech to text without attention
#
# A network reads 80 frames of sound and says for each frame which letter it hears, or nothing. Out come 80
# symbols; the text *three* has five. Which five, and how can such a network be trained, when nobody ever
# said which frame belongs to which letter?
#
# **You will be able to**
#
# - collapse a path, say which texts fit into $T$ frames, and count the paths of a text;
# - derive and write the CTC loss: forward and backward recursion, posterior, gradient, in log space, for a
#   batch;
# - find the best alignment of a text and cut a sound into its letters;
# - decode greedily and by prefix beam search with a language model, and say when greedy is wrong;
# - build Jasper's blocks, measure their receptive field, train a recogniser and compare it with attention.
#
# **Prerequisites**: [32 Listen, Attend and Spell](32_asr_las.ipynb) (error rates, beam search, letter
# models), convolutions and batch norm as layers. How the pages work: [00 start here](00_start_here.ipynb).
#
# **Reading** 75 min + exercises 60 min · **Time** 60 s on 2 CPU cores · **Memory** 1 GB · **Data** digits by synthetic voices (full run: FSDD, recordings of six people) · **Exam questions** 41, 42, 43
#
# **Exam route** question 41 → sections 1–3 (20 min) · question 42 → sections 4, 5 (20 min) · question 43 → section 8 (15 min)
#
# <details><summary>Notation</summary>
#
# | symbol | in code | shape, unit |
# |---|---|---|
# | $x$: log-mel frames | `x` | $(B,\text{frames},40)$ |
# | $T$: frames that the network answers for | `T` | integer |
# | $y=(y_1,\dots,y_U)$: text | `target` | labels |
# | $U$; $R$: letters of the text; its places with $y_u=y_{u+1}$ | `n_repeats` | integers |
# | $V$: number of symbols, blank included | `V` | integer |
# | $\varnothing$: blank, written `-` | `blank` | a symbol |
# | $\pi$: path, one symbol a frame | `path` | $(T)$ symbols |
# | $\mathcal B(\pi)$; $\mathcal B^{-1}(y)$: text that a path collapses to; all paths of a text | `ctc_collapse` | |
# | $z_t(v)$; $p_t(v)$: logit of symbol $v$ in frame $t$; its probability | `log_probs` | $(T,B,V)$, natural log |
# | $\ell_s$: states, the text with blanks between, before and behind | `states` | $s=0,\dots,2U$ |
# | $\alpha_t(s)$; $\beta_t(s)$: probability of all beginnings in state $s$ at frame $t$; of all ends | `alpha`, `beta` | $(T,2U+1)$ |
# | $\gamma_t(v)$: share of the text's paths that say $v$ in frame $t$ | `ctc_posterior` | $(T,B,V)$ |
# | $\delta_t(s)$: probability of the best beginning in state $s$ | `delta` | $(T,2U+1)$ |
# | $w$: prefix of a text | `prefix` | labels |
# | $p^{\varnothing}_t(w)$; $p^{\bullet}_t(w)$: probability of the paths of $w$ that end in blank; in its last letter | `kept` | |
# | $K$: beam width | `beam` | integer ≥ 1 |
# | $\lambda$; $\nu$: weight of the language model; bonus of a letter | `lam`, `bonus` | ≥ 0; nats |
# | $T_{\mathrm{in}}$; $T_{\mathrm{out}}$: frames before a convolution; behind it | | integers |
# | $k$; $m$; $d$; $q$: kernel; stride; dilation; padding | `kernel_size` | frames |
# | $F$; $J$: receptive field; number of layers | `field` | frames; integer |
# | $h_i$; $f_i$: input of block $i$; its convolutions | `x`, `convs` | $(B,C,T)$ |
# | $W_{ij}$; $\mathcal J_i$: 1 × 1 convolution from $h_j$ into block $i$; the inputs it adds | `skips` | |
# | $r$: convolutions of a block | `repeat` | integer ≥ 1 |
#
# In shapes $B$ counts the utterances of a batch and $C$ the channels.
#
# </details>
#
# <!-- navigation -->
# previous: [32 Speech to text](32_asr_las.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [41 Ranking metrics](41_ranking_metrics.ipynb)
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
import time

import jiwer
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from ipywidgets import IntSlider, SelectionSlider, Text, interact
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from helpers import get_torchaudio, measured, play

PAGE = "33"
plt.rcParams["figure.dpi"] = 75
MEL_COLOURS, GREYS = plt.get_cmap("magma", 24), plt.get_cmap("Greys", 24)
WIDE = {"style": {"description_width": "9em"}, "layout": {"width": "34em"}}

# %% tags=["parameters", "hide-input"]
DATA = "digits"           # or "fsdd"
N_MAX = 3                 # digits in the longest training sequence
N_STEPS = 300             # of training
CHANNELS = 64             # of each Jasper block
LR = 0.003
MEL_SHIFT = 0             # bands by which the mel axis is shifted, for unseen speakers
EXTRA_VOICES = False      # for unseen speakers, train on the bundled voices too
NOISE_TEST = 0.02         # noise added to the test utterances (speech: 0.1)
N_TEST = 90               # test sequences
N_DEV = 30                # sequences to choose λ on
N_DEPTH = 30              # steps a net in the comparison of shortcuts
DEPTH_SEEDS = 1
N_ABLATE = 0              # steps a net in the comparison of augmentations; 0: leave it out
N_UNSEEN = 0              # steps of three trainings without two speakers; 0: leave them out

# %% [markdown]
# ## 1. The idea: say something in every frame, or nothing
#
# What would you do by hand? Write under every frame the letter that is being said there. A letter lasts
# several frames, so **merge** neighbours that are equal. Then *three* becomes *thre*: the merger ate a
# letter. So allow one more symbol, the **blank** `-`, "I say nothing here", put one between the two *e*, and
# **delete** the blanks after merging.

# %% tags=["hide-input"]
def draw_collapse(path="tt-hrree--e"):
    """A typed path, its runs, and what is left: merge first, then delete blanks."""
    path = path.replace(" ", "_")[:24]
    fig, ax = plt.subplots(figsize=(7.6, 1.9))
    left = 0
    for sign, run in itertools.groupby(path):
        n = len(list(run))
        for x in range(left, left + n):
            ax.add_patch(plt.Rectangle((x, 2), 0.95, 0.8, fc="#f2f2f2", ec="#999999"))
            ax.text(x + 0.47, 2.4, sign, ha="center", va="center")
        ax.add_patch(plt.Rectangle((left, 1), n - 0.05, 0.8, ec="#222222",
                                   fc="white" if sign == "-" else "#b9cde8"))
        ax.text(left + n / 2, 1.4, sign, ha="center", va="center")
        if sign != "-":
            ax.text(left + n / 2, 0.4, sign, ha="center", va="center", weight="bold", fontsize=13)
        left += n
    for y, name in ((2.4, "path"), (1.4, "merged"), (0.4, "text")):
        ax.text(-0.4, y, name, ha="right", va="center", fontsize=9)
    ax.set(xlim=(-2.5, max(left, 1)), ylim=(0, 3))
    ax.axis("off")
    plt.show()


for shown_path in ("tthhrreeeee", "tt-hrree--e", "-t-h-r-ee-e"):
    draw_collapse(shown_path)

# %% [markdown]
# **Predict.** Type paths below. What is the shortest path of *three*? Of *hello*? Can a path of three frames
# give *ee*, and how many can?

# %% tags=["nbval-ignore-output"]
interact(draw_collapse, path=Text("hhe-l-lloo", description="path", continuous_update=False,
                                  **WIDE));

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# *three* needs six frames, `thre-e`; *hello* six, `hel-lo`. Only one path of three frames gives *ee*: `e-e`.
#
# </details>
#
# Many paths give the same text. The network only has to say, frame by frame, how probable each symbol is;
# the probability of a text is the sum over all its paths, and that sum is what is trained. No attention, no
# state that must be fed back: all frames are answered at once.

# %% tags=["hide-input"]
boxes = {"x": (0, 1, "sound, log-mel\n160 frames", "round"),
         "j": (1.4, 1, "Jasper\n1-D convolutions", "bold"),
         "p": (2.9, 1, "17 probabilities\nin each of 80 frames", "round"),
         "c": (4.5, 1.45, "CTC: sum over\nall paths of the text", "bold"),
         "l": (6.1, 1.45, "$-\\log p(y\\mid x)$", "round"),
         "d": (4.5, 0.55, "decode: best path,\nor prefix beam"), "t": (6.1, 0.55, "text", "round")}
scheme(boxes, [("x", "j"), ("j", "p"), ("p", "c", "train", "left"), ("c", "l"),
               ("p", "d", "use", "right"), ("d", "t")], size=(10.2, 2.4))
plt.show()

# %% [markdown]
# ### Exercise 33.A · Collapse · ●○○ · 5 min
#
# Write the rule for strings; `-` is the blank, the space is a letter like any other.

# %%
def my_collapse(path):
    """path: a string of letters, spaces and blanks "-". Returns the text, a string."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _merged(path):
    return "".join(sign for sign, _ in itertools.groupby(path))


exercise("33.A", my_collapse, [((path,), _merged(path).replace("-", "")) for path in (
    "hhe-l-lloo", "tt-hrree--e", "", "---", "aab-b-a", "ss  iix", "a- -b", "o  -  n")], mistakes={
    "you deleted the blanks before merging: the two letters of a double letter then melt":
    lambda p: _merged(p.replace("-", "")),
    "you did not merge": lambda p: p.replace("-", ""),
    "the blanks must go at the end": _merged,
    "the space is an ordinary letter: keep it":
    lambda p: _merged(p).replace("-", "").replace(" ", ""),
    "you kept every letter only once": lambda p: "".join(dict.fromkeys(p)).replace("-", "")})

# %% [markdown]
# <details><summary>Hint 1</summary>Walk through the path and remember the symbol before.</details>
# <details><summary>Hint 2</summary>Keep a symbol if it differs from the one before and is no blank. The one before may be a blank.</details>
# <details><summary>Solution 33.A</summary>
#
# ```python
# def my_collapse(path):
#     text, before = "", None
#     for sign in path:
#         if sign != before and sign != "-":
#             text += sign
#         before = sign
#     return text
# ```
#
# `before` is the neighbour in the *path*, blanks included: that is how a blank keeps two equal letters apart.
#
# </details>
#
# ## 2. The collapse
#
# Let $V$ symbols be letters and the blank $\varnothing$. A **path** $\pi$ names one symbol in each of $T$
# frames. The **collapse** keeps the frames where something new begins that is not the blank:
#
# $$\mathcal B(\pi)=\big(\pi_t:\ \pi_t\ne\pi_{t-1},\ \pi_t\ne\varnothing\big)_{t=1,\dots,T},\qquad\pi_0=\text{none} \tag{33.1}$$
#
# The order matters: merge first, then delete. And the blank is not a space and not silence (E62 of the
# notes: "epsilon tokens are used to find spaces"). A space is a letter, written between words; the blank
# means that nothing *new* is said, whether it is quiet or not.

# %%
def ctc_collapse(path, blank=0):
    """The text of a path by eq. (33.1): a list of its symbols, any that can be compared."""
    path = path.tolist() if hasattr(path, "tolist") else list(path)
    return [v for v, before in zip(path, [object(), *path]) if v != before and v != blank]

# %%
all_paths = list(itertools.product("-ab", repeat=6))
check("33.1", "all 729 paths of six frames, by itertools.groupby",
      [ctc_collapse(path, "-") == [v for v, _ in itertools.groupby(path) if v != "-"]
       for path in all_paths])
check("33.1", "hhe-l-lloo is hello", "".join(ctc_collapse("hhe-l-lloo", "-")) == "hello")
claim("E62: deleting blanks first would make it helo",
      "".join(ctc_collapse("hhe-l-lloo".replace("-", ""), "-")) == "helo")

# %%
claim("E62: a blank is no space: the space must be written, and blanks may stand inside a word",
      ["".join(ctc_collapse(path, "-")) == text for path, text in (
          ("s-i-x--o-n-e", "sixone"), ("six-- -one", "six one"), ("six  one", "six one"))])

# %% [markdown]
# ## 3. Which texts fit, and how many paths they have
#
# A path of $y$ must visit all $U$ letters, and between two equal neighbours at least one blank. With $R$ such
# places the shortest path has $U+R$ frames. Any longer one can be made by repeating its last symbol (of the
# empty text: by blanks), so
#
# $$\mathcal B^{-1}(y)\ne\emptyset\iff U+R\le T \tag{33.2}$$
#
# **How many paths?** A path of $y$ is a row of $2U+1$ blocks in turn: blanks, letter 1, blanks, letter 2, …,
# blanks. It is fixed by the lengths of the blocks, which sum to $T$. The $U$ letters need length ≥ 1; so do
# the $R$ blocks of blanks between equal letters; the other $U+1-R$ blocks may be empty. Lend each of these
# one frame: then $2U+1$ positive lengths sum to $T+U+1-R$. Positive lengths are cuts: choose $2U$ of the
# $T+U-R$ places between frames.
#
# $$\lvert\mathcal B^{-1}(y)\rvert=\binom{T+U-R}{2U} \tag{33.3}$$
#
# ### Exercise 33.B · Count the paths · ●○○ · 6 min

# %%
def my_count(text, T):
    """text: a string of letters. Returns the number of paths of T frames that collapse to it."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _count(text, T, U_in_sum=1, R_sign=-1, blocks=2):
    """The binomial of (33.3), and its famous errors."""
    U, R = len(text), sum(a == b for a, b in zip(text, text[1:]))
    return math.comb(max(T + U_in_sum * U + R_sign * R, 0), blocks * U)


exercise("33.B", my_count, [((text, T), _count(text, T)) for text, T in (
    ("a", 3), ("aa", 3), ("aa", 2), ("ab", 4), ("three", 9), ("", 5), ("hello", 5), ("eee", 8),
    ("seven", 8), ("aba", 5))],
         mistakes={
    "you forgot that equal neighbours need a blank between them":
    lambda text, T: _count(text, T, R_sign=0),
    "only equal neighbours need a blank: seven has two e, but apart":
    lambda text, T: math.comb(T + len(set(text)), 2 * len(text)),
    "equal neighbours make fewer paths, not more": lambda text, T: _count(text, T, R_sign=1),
    "you counted the places of the letters only: their lengths differ too":
    lambda text, T: _count(text, T, U_in_sum=0, blocks=1),
    "every empty block of blanks must be lent a frame": lambda text, T: _count(text, T, 0),
    "this is how paths of letters without any blank are counted":
    lambda text, T: math.comb(T - 1, len(text) - 1) if text else 0})

# %% [markdown]
# <details><summary>Hint 1</summary>$U$ is `len(text)`; count the equal neighbours.</details>
# <details><summary>Hint 2</summary>`math.comb(n, k)` is 0 for n < k, but refuses negative n.</details>
# <details><summary>Solution 33.B</summary>
#
# ```python
# def my_count(text, T):
#     U, R = len(text), sum(a == b for a, b in zip(text, text[1:]))
#     return math.comb(T + U - R, 2 * U)
# ```
#
# $R\le\max(U-1,0)$, so $T+U-R$ is never negative. For $U+R>T$ the binomial is 0: (33.3) contains (33.2).
#
# </details>

# %%
def n_repeats(target):
    """R: how many letters equal the one before."""
    return sum(a == b for a, b in zip(target, target[1:]))


def n_paths(target, T):
    """How many paths of T frames collapse to the target: eq. (33.3)."""
    return math.comb(T + len(target) - n_repeats(target), 2 * len(target))

# %%
def _counted(T):
    """How many of all paths of T frames give each text, by enumeration."""
    texts = ["".join(v for v, _ in itertools.groupby(path) if v != "-")
             for path in itertools.product("-ab", repeat=T)]
    return {text: texts.count(text) for text in set(texts)}


found = {T: _counted(T) for T in range(1, 7)}
texts_ab = ["".join(y) for U in range(7) for y in itertools.product("ab", repeat=U)]

# %%
check("33.2", "which of 127 texts appear among all paths of 1 to 6 frames",
      [[len(y) + n_repeats(y) <= T for y in texts_ab] == [y in counts for y in texts_ab]
       for T, counts in found.items()])
check("33.3", "how often each of them appears",
      [[n_paths(y, T) for y in texts_ab] for T in found],
      [[counts.get(y, 0) for y in texts_ab] for counts in found.values()])

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6.4, 2.7))
for word, style in (("six", "-"), ("three", "--"), ("three seven eight", ":")):
    frames = range(1, 161)
    ax.plot(frames, [n_paths(word, T) or np.nan for T in frames], style, label=word)
ax.set(xlabel="frames $T$", ylabel="paths of the text", yscale="log", ylim=(0.5, None))
ax.legend()
plt.show()

# %% [markdown]
# The curves begin at $T=U+R$ with a single path. Two seconds of sound are 80 frames here: enumeration is for
# tests, training needs something better.
#
# ## 4. The likelihood
#
# The network says $p_t(v)$ for each frame. Given the sound, frames are taken as **independent**; so a path
# has the product of its symbols' probabilities, and a text the sum over its paths:
#
# $$p(y\mid x)=\sum_{\pi\in\mathcal B^{-1}(y)}\ \prod_{t=1}^Tp_t(\pi_t\mid x) \tag{33.4}$$
#
# Every path collapses to exactly one text, so these numbers sum to 1 over all texts. A network that knows
# nothing, $p_t(v)=1/V$, gives each text $\binom{T+U-R}{2U}V^{-T}$.

# %%
def likelihood_by_paths(log_probs, target, blank=0):
    """p(y | x) of eq. (33.4), path by path: log_probs (T, V); for tiny T."""
    T, V = log_probs.shape
    total = 0.0
    for path in itertools.product(range(V), repeat=T):
        if ctc_collapse(path, blank) == list(target):
            total = total + math.exp(sum(log_probs[t, v] for t, v in enumerate(path)))
    return total

# %%
toy = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
toy = toy.log_softmax(1)                                                # T = 5 frames, V = 3
toy_texts = [y for U in range(6) for y in itertools.product((1, 2), repeat=U)]
by_paths = {y: likelihood_by_paths(toy.numpy(), y) for y in toy_texts}
uniform_net = np.full((5, 3), -math.log(3))

# %%
check("33.4", "the probabilities of all texts sum to 1", sum(by_paths.values()), 1, atol=1e-12)
check("33.4", "a net that knows nothing: number of paths times V to the power -T",
      [likelihood_by_paths(uniform_net, y) for y in toy_texts],
      [n_paths(y, 5) / 3**5 for y in toy_texts], atol=1e-12)
check("33.4", "PyTorch's loss is its negative logarithm",
      [by_paths[y] for y in toy_texts[:20]],
      [math.exp(-F.ctc_loss(toy[:, None], torch.tensor([y]).long().reshape(1, -1), [5], [len(y)],
                            reduction="none")) for y in toy_texts[:20]], atol=1e-12)

# %% [markdown]
# **What independence cannot say.** Let a sound be spelled *ab* or *cd* with probability ½ each, never *ad*,
# and let there be two frames. Then $p(ab)=p_1(a)\,p_2(b)$ and $p(cd)=p_1(c)\,p_2(d)$ with
# $p_1(a)+p_1(c)\le1$, $p_2(b)+p_2(d)\le1$. By Cauchy and Schwarz
# $\sqrt{p(ab)}+\sqrt{p(cd)}\le\sqrt{p_1(a)+p_1(c)}\sqrt{p_2(b)+p_2(d)}\le1$, so
#
# $$\max_{p_1,p_2}\ \min\big(p(ab),p(cd)\big)=\tfrac14,\qquad\text{the truth is}\ \tfrac12 \tag{33.5}$$
#
# The other half of the mass goes to *ad* and *cb*. A speller that reads its own letters has no such limit;
# CTC leaves this to a language model.

# %%
four = torch.zeros(2, 5, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(2))
four.requires_grad_()
optimiser = torch.optim.Adam([four], 0.05)

# %%
for _ in range(600):                         # fit both texts: -log p(ab) - log p(cd)
    loss = F.ctc_loss(four.log_softmax(1)[:, None].expand(2, 2, 5),
                      torch.tensor([[1, 2], [3, 4]]), [2, 2], [2, 2], reduction="sum")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
p_fit = four.detach().softmax(1)

# %%
check("33.5", "training ends at 1/4 for ab, cd and, unasked, for ad and cb",
      [p_fit[0, a] * p_fit[1, b] for a, b in ((1, 2), (3, 4), (1, 4), (3, 2))], [0.25] * 4,
      atol=2e-3)

# %% [markdown]
# ## 5. Forward: all paths at once
#
# Write the text with blanks between, before and behind its letters: $2U+1$ **states**
# $\ell=(\ell_0,\dots,\ell_{2U})=(\varnothing,y_1,\varnothing,y_2,\dots,y_U,\varnothing)$. A path of $y$ walks
# through these states, one frame each, and the walk is determined by the path. From one frame to the next it
# **stays**, goes **one** state on, or **skips** one. It may skip a blank, but only between *different*
# letters; it may never skip a letter. In code one comparison does both: two states apart stand two blanks, or
# two neighbouring letters, and the skip is barred where they are equal.

# %% tags=["hide-input"]
def draw_arrows(ax, word="see", T=7):
    """States against frames, with the arrows that a path of the word may use."""
    sign = "-" + "-".join(word) + "-"
    S, alive = len(sign), {T - 1: {len(sign) - 1, len(sign) - 2}}     # states that can still end
    skip = lambda s: s > 1 and sign[s] not in ("-", sign[s - 2])
    steps = lambda s: [to for to in (s, s + 1, s + 2) if to < S and (to < s + 2 or skip(to))]
    for t in range(T - 2, -1, -1):
        alive[t] = {s for s in range(S) if set(steps(s)) & alive[t + 1]}
    here = {0, 1}
    for t in range(T):
        for s in range(S):
            ax.plot(t, -s, "o", ms=11, color="#b9cde8" if sign[s] != "-" else "#eeeeee",
                    mec="#222222", mew=0.6, ls="none")
        arrows = [(s, to) for s in here & alive[t] for to in steps(s) if to in alive.get(t + 1, ())]
        for s, to in arrows:
            ax.annotate("", (t + 0.88, -to), (t + 0.12, -s), arrowprops={
                "arrowstyle": "-|>", "color": "#777777", "lw": 0.8})
        here = {to for _, to in arrows}
    ax.set(yticks=[-s for s in range(S)], yticklabels=list(sign), xlabel="frame $t$",
           xticks=range(T), xticklabels=range(1, T + 1), xlim=(-0.5, T - 0.5))
    ax.grid(False)


fig, ax = plt.subplots(figsize=(6.6, 3.1))
draw_arrows(ax)
plt.show()

# %% [markdown]
# Let $\alpha_t(s)$ be the probability of all beginnings $\pi_1\dots\pi_t$ that stand in state $s$ at frame
# $t$. The frame before stood in $s$, $s-1$ or, if the skip is allowed, $s-2$; these cases exclude each other,
# and all of them go on with the factor $p_t(\ell_s)$:
#
# $$\alpha_t(s)=\big(\alpha_{t-1}(s)+\alpha_{t-1}(s-1)+[\ell_s\ne\varnothing,\ \ell_s\ne\ell_{s-2}]\,\alpha_{t-1}(s-2)\big)\,p_t(\ell_s),\qquad p(y\mid x)=\alpha_T(2U)+\alpha_T(2U-1) \tag{33.6}$$
#
# A path starts with the blank or the first letter, so $\alpha_1(0)=p_1(\varnothing)$,
# $\alpha_1(1)=p_1(y_1)$, the rest 0; and it ends in one of the last two states. States outside $0,\dots,2U$
# count 0; the empty text has a single state. $V^T$ products have become $T(2U+1)$ sums.
#
# ### Exercise 33.C · The forward recursion · ●●○ · 15 min
#
# Here $p$ holds probabilities, not logarithms, and the blank is symbol 0.

# %%
def my_ctc(p, target):
    """p: (T, V) array of probabilities. target: list of labels, perhaps empty. Returns p(y | x)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _forward(p, target, skip=lambda l, s: l[s] not in (0, l[s - 2]), start=2, end=2):
    """p(y | x) by (33.6), and its famous errors."""
    l = [0] + [v for y in target for v in (y, 0)]
    row = [p[0][v] if s < start else 0.0 for s, v in enumerate(l)]
    for frame in p[1:]:
        row = [(row[s] + (row[s - 1] if s > 0 else 0.0)
                + (row[s - 2] if s > 1 and skip(l, s) else 0.0)) * frame[v]
               for s, v in enumerate(l)]
    return float(sum(row[-end:]))


def _in_place(p, target):
    l = [0] + [v for y in target for v in (y, 0)]
    row = [p[0][v] if s < 2 else 0.0 for s, v in enumerate(l)]
    for frame in p[1:]:
        for s, v in enumerate(l):
            skip = row[s - 2] if s > 1 and v not in (0, l[s - 2]) else 0.0
            row[s] = (row[s] + (row[s - 1] if s else 0.0) + skip) * frame[v]
    return float(sum(row[-2:]))

# %% tags=["nbval-ignore-output", "hide-input"]
p_small = [np.random.default_rng(k).dirichlet(np.ones(4), T) for k, T in enumerate((3, 4, 6, 5))]
exercise("33.C", my_ctc, [((p, y), _forward(p, y)) for p, y in zip(
    p_small * 2, ([1, 2], [1, 1], [3, 2, 2], [1, 2, 3], [], [2], [1, 3, 1], [1, 1]))], mistakes={
    "the skip is barred between equal letters": lambda p, y: _forward(p, y, lambda l, s: l[s] != 0),
    "a letter may not be skipped: from a blank to a blank no skip":
    lambda p, y: _forward(p, y, lambda l, s: True),
    "there is a third arrow: over the blank between two different letters":
    lambda p, y: _forward(p, y, lambda l, s: False),
    "build the new row from the old one; you overwrote it while reading": _in_place,
    "a path may start with the first letter too": lambda p, y: _forward(p, y, start=1),
    "a path may end with the last letter too": lambda p, y: _forward(p, y, end=1)})

# %% [markdown]
# <details><summary>Hint 1</summary>Make the states first: `[0, y1, 0, y2, 0]`. One row of numbers for the first frame, then T − 1 updates.</details>
# <details><summary>Hint 2</summary>Build the new row from the old one, do not overwrite it in place.</details>
# <details><summary>Hint 3</summary>`l[s] not in (0, l[s - 2])` is the condition of the skip. For an empty text there is one state.</details>
# <details><summary>Solution 33.C</summary>
#
# ```python
# def my_ctc(p, target):
#     l = [0] + [v for y in target for v in (y, 0)]
#     row = np.zeros(len(l) + 2)                       # two empty states in front
#     row[2:4] = [p[0][v] for v in l[:2]]
#     for frame in p[1:]:
#         new = np.zeros_like(row)
#         for s, v in enumerate(l):
#             skip = row[s] if s > 1 and v not in (0, l[s - 2]) else 0.0
#             new[s + 2] = (row[s + 2] + row[s + 1] + skip) * frame[v]
#         row = new
#     return float(row[2:][-2:].sum())
# ```
#
# </details>

# %%
def extended(target, blank=0):
    """The text with blanks between, before and behind its letters: 2 U + 1 states."""
    return [blank] + [v for y in target for v in (y, blank)]


def may_skip(states, s):
    """May a path come to state s from s - 2? Not to a blank: two states before is a blank, too."""
    return s > 2 and states[s] != states[s - 2]

# %%
def forward_table(log_probs, target, blank=0):
    """alpha (T, 2 U + 1) of eq. (33.6) in plain probabilities, by two loops."""
    p, states = np.exp(np.asarray(log_probs)), extended(target, blank)
    alpha = np.zeros((len(p), len(states)))
    alpha[0, :2] = p[0, states[:2]]
    for t in range(1, len(p)):
        for s, v in enumerate(states):
            before = alpha[t - 1, s] + (alpha[t - 1, s - 1] if s else 0)
            if may_skip(states, s):
                before += alpha[t - 1, s - 2]
            alpha[t, s] = before * p[t, v]
    return alpha

# %%
check("33.6", "the sum over paths, for all 63 texts of up to five letters",
      [forward_table(toy, y)[-1, -2:].sum() for y in toy_texts], list(by_paths.values()),
      atol=1e-14)

# %%
swapped = toy[:, [1, 0, 2]]                                       # the blank is symbol 1
check("33.6", "with another symbol as the blank",
      [forward_table(swapped, [0 if v == 1 else v for v in y], 1)[-1, -2:].sum()
       for y in toy_texts], list(by_paths.values()), atol=1e-14)
check("33.6", "a hundred frames of a net that knows nothing: (33.3) again",
      forward_table(np.full((100, 3), -math.log(3)), [1, 1, 2])[-1, -2:].sum(),
      n_paths([1, 1, 2], 100) / 3**100, rtol=1e-12)

# %%
q42 = np.log([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.6, 0.3, 0.1]])        # blank, a, b
check("33.6", "question 42 by hand: the table of the text a, and the sum of its six paths",
      [*forward_table(q42, [1]).flatten(), likelihood_by_paths(q42, [1])],
      [0.5, 0.3, 0, 0.1, 0.48, 0.06, 0.06, 0.174, 0.324, 0.498], atol=1e-12)

# %% [markdown]
# **Predict.** Allow the skip between equal letters as well, and let a network be sure of *a* in all ten
# frames. What "probability" does *aa* get, and what should it get?

# %%
sure_of_a = np.full((10, 2), [0.0, 1.0])
claim("without the bar, aa gets 'probability' 9: the path a…a is cut into two runs in 9 ways",
      _forward(sure_of_a, [1, 1], skip=lambda l, s: l[s] != 0), 9.0)
claim("with it, 0; the text a has everything",
      [_forward(sure_of_a, [1, 1]), _forward(sure_of_a, [1])], [0.0, 1.0])

# %% [markdown]
# <details><summary>Answer</summary>
#
# The only path with mass is `aaaaaaaaaa`, and it collapses to *a*. Without the bar it would be counted once
# for every place at which the first *a* may end: nine times.
#
# </details>
#
# **Why logarithms.** Every frame multiplies by a number below 1. When the net is unsure, nothing is left after
# 400 frames.

# %%
nothing_known = np.full((400, 30), -math.log(30.0))
exact = math.log(n_paths([1, 2, 3], 400)) - 400 * math.log(30)       # whole numbers until the log
claim("in plain probabilities, float64, 400 frames of a text underflow to 0",
      float(forward_table(nothing_known, [1, 2, 3])[-1, -2:].sum()), 0.0)
print(f"log p(y | x) = {exact:.1f}; the smallest float64 is exp(-745)")

# %% [markdown]
# So the real implementation works with $\log\alpha$, and $\log(e^a+e^b+e^c)$ takes out the largest first. It
# also works on a whole batch: one loop over frames, all states and utterances at once. How the gradient comes
# out of the same loop is the next section.
#
# ## 6. Backward: where in the sound is each letter?
#
# Mirror the recursion (states outside $0,\dots,2U$ count 0 again): let $\beta_t(s)$ be the probability of all
# ends $\pi_{t+1}\dots\pi_T$ of a path that stands in state $s$ at frame $t$. (Frame $t$ itself is in
# $\alpha$, so that no frame counts twice.) A path of $y$ is a beginning and an end that meet in one state. So
# at *every* frame
#
# $$\begin{gathered}\beta_t(s)=\sum_{s'\in\{s,\,s+1\}}\beta_{t+1}(s')\,p_{t+1}(\ell_{s'})+[\ell_{s+2}\ne\varnothing,\ \ell_{s+2}\ne\ell_s]\,\beta_{t+1}(s+2)\,p_{t+1}(\ell_{s+2}),\\ \beta_T(2U)=\beta_T(2U-1)=1,\qquad\sum_s\alpha_t(s)\,\beta_t(s)=p(y\mid x)\ \text{ for every }t\end{gathered} \tag{33.7}$$

# %%
def backward_table(log_probs, target, blank=0):
    """beta (T, 2 U + 1) of eq. (33.7) in plain probabilities."""
    p, states = np.exp(np.asarray(log_probs)), extended(target, blank)
    beta = np.zeros((len(p), len(states)))
    beta[-1, -2:] = 1
    for t in range(len(p) - 2, -1, -1):
        for s in range(len(states)):
            for to in (s, s + 1, s + 2):
                if to < len(states) and (to < s + 2 or may_skip(states, to)):
                    beta[t, s] += beta[t + 1, to] * p[t + 1, states[to]]
    return beta

# %%
meetings = [(forward_table(toy, y) * backward_table(toy, y)).sum(1) for y in toy_texts]
check("33.7", "beginnings times ends sum to p(y | x) at each of the five frames, for all 63 texts",
      meetings, [[by_paths[y]] * 5 for y in toy_texts], atol=1e-14)

# %%
one_two = [path for path in itertools.product(range(3), repeat=5) if ctc_collapse(path) == [1, 2]]
ends = {path[2:] for path in one_two if path[1] == 1}           # paths that say letter 1 in frame 2
p_toy = toy.exp().numpy()
check("33.7", "beta itself: all ends of a path that says letter 1 in frame 2",
      backward_table(toy, [1, 2])[1, 1], sum(math.prod(p_toy[[2, 3, 4], end]) for end in ends),
      atol=1e-14)

# %% [markdown]
# Read the product differently: $\alpha_t(s)\beta_t(s)/p(y\mid x)$ is the share of $y$'s paths, weighted by
# their probability, that stand in state $s$ at frame $t$. Summed over the states with one symbol it is the
# **posterior** of that symbol, given the text:
#
# $$\gamma_t(v)=\frac1{p(y\mid x)}\sum_{s:\,\ell_s=v}\alpha_t(s)\,\beta_t(s),\qquad\sum_v\gamma_t(v)=1 \tag{33.8}$$
#
# **The gradient.** $\alpha_t(s)$ contains $p_t(\ell_s)$ as a factor, once; $\beta_t(s)$ does not contain
# frame $t$. With $p(y\mid x)=\sum_s\alpha_t(s)\beta_t(s)$,
# $$\frac{\partial p(y\mid x)}{\partial p_t(v)}=\sum_{s:\,\ell_s=v}\frac{\alpha_t(s)\,\beta_t(s)}{p_t(v)}=\frac{p(y\mid x)\,\gamma_t(v)}{p_t(v)}\quad\Longrightarrow\quad\frac{\partial\big({-\log p(y\mid x)}\big)}{\partial\log p_t(v)}=-\gamma_t(v).$$
# The probabilities come from logits by a softmax, $\partial\log p_t(w)/\partial z_t(v)=[w=v]-p_t(v)$. The
# chain rule sums over $w$, and $\sum_w\gamma_t(w)=1$:
#
# $$\frac{\partial\big({-\log p(y\mid x)}\big)}{\partial z_t(v)}=-\sum_w\gamma_t(w)\big([w=v]-p_t(v)\big)=p_t(v)-\gamma_t(v) \tag{33.9}$$
#
# What the net says minus what it should say, were the text known: the cross-entropy's gradient, with
# $\gamma$ in the place of the label that nobody gave. The network makes its own soft labels.
#
# ### Exercise 33.D · The gradient · ●●○ · 10 min

# %%
def my_gradient(p, alpha, beta, states):
    """p (T, V) probabilities, alpha and beta (T, S), states: list of S symbols.

    Returns the gradient of -log p(y | x) with respect to the logits, an array (T, V).
    """
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _gradient(p, alpha, beta, states, divide=True, add=True, sign=1, minus_p=1):
    """(33.9) by loops, and its famous errors."""
    gamma = np.zeros_like(p)
    for s, v in enumerate(states):
        share = alpha[:, s] * beta[:, s] / ((alpha[0] @ beta[0]) if divide else 1)
        gamma[:, v] = share + (gamma[:, v] if add else 0)
    return sign * (minus_p * p - gamma)


def _tables(p, y):
    p.setflags(write=False)              # the caller's p is no place for the result
    return p, forward_table(np.log(p), y), backward_table(np.log(p), y), extended(y)


exercise("33.D", my_gradient, [(_tables(p, y), _gradient(*_tables(p, y))) for p, y in zip(
    p_small, ([1, 2], [1, 1], [3, 2], [1]))], mistakes={
    "divide by p(y | x): gamma sums to 1 in each frame":
    lambda *a: _gradient(*a, divide=False),
    "several states share a symbol (the blank!): add them up":
    lambda *a: _gradient(*a, add=False),
    "the sign: the loss is the negative logarithm": lambda *a: _gradient(*a, sign=-1),
    "this is the gradient for log p; the softmax adds p": lambda *a: _gradient(*a, minus_p=0)})

# %% [markdown]
# <details><summary>Hint 1</summary>$p(y\mid x)$ is `(alpha * beta).sum(1)`, the same number in each frame.</details>
# <details><summary>Hint 2</summary>Start from a copy of `p` and subtract each state's share in the column of its symbol.</details>
# <details><summary>Solution 33.D</summary>
#
# ```python
# def my_gradient(p, alpha, beta, states):
#     share = alpha * beta / (alpha * beta).sum(1, keepdims=True)
#     gradient = p.copy()
#     for s, v in enumerate(states):
#         gradient[:, v] -= share[:, s]
#     return gradient
# ```
#
# `gradient[:, states] -= share` would be wrong: with repeated indices numpy subtracts only once.
#
# </details>
#
# ### A batch, in log space, with one loop
#
# Three remarks turn the two tables into the real thing. (i) Where no path exists the logarithm is $-\infty$,
# and that is all a barred arrow needs. (ii) $\beta$ is $\alpha$ of the reversed text on the reversed sound,
# so both are rows of one batch of size $2B$. (iii) Autograd need not walk back through the loop: (33.9) gives
# the gradient at once.

# %%
def checked_ctc(log_probs, targets, input_lengths, target_lengths, blank):
    """The arguments of a CTC loss as tensors on one device; ValueError says what is wrong."""
    log_probs = torch.as_tensor(log_probs)
    if log_probs.ndim != 3 or not log_probs.is_floating_point() or 0 in log_probs.shape:
        raise ValueError(f"need log-probabilities (T, B, V), got {tuple(log_probs.shape)} of "
                         f"{log_probs.dtype}: take .log_softmax(2) of float logits")
    try:
        targets, frames, letters = (torch.as_tensor(x, device=log_probs.device)
                                    for x in (targets, input_lengths, target_lengths))
    except (ValueError, TypeError) as reason:
        raise ValueError(f"targets must be one table (B, U) of labels and lengths whole numbers; "
                         f"pad texts with pad_sequence ({reason})") from None
    targets = targets if targets.numel() else targets.long()
    B = log_probs.shape[1]
    whole = all(not x.is_floating_point() and x.dtype != torch.bool
                for x in (targets, frames, letters))
    if not whole or targets.shape[:-1] != (B,) or not frames.shape == letters.shape == (B,):
        raise ValueError(f"for a batch of {B} need integers: targets ({B}, U) padded to one "
                         f"length, and two lengths ({B},); got {tuple(targets.shape)}")
    check_labels(targets, frames, letters, log_probs.shape, blank)
    inside = valid_frames(frames, log_probs.shape[0]).T                        # (T, B)
    if not bool((log_probs.detach().amax(2)[inside] <= 1e-3).all()):           # so is NaN
        raise ValueError("these are no log-probabilities (above 0, or NaN): take .log_softmax(2)")
    check_axis(log_probs.detach(), inside)
    return log_probs, targets.long(), frames.long(), letters.long()

# %%
def check_axis(log_p, inside=...):
    """ValueError if the softmax was taken over another axis than the last, that of the symbols."""
    log_p = log_p.double()
    last = log_p.ndim - 1
    if bool((log_p.logsumexp(last)[inside].abs() > 0.02).any()):
        for axis in range(last):
            if bool((log_p.logsumexp(axis).abs() < 1e-3).all()):
                raise ValueError(f"these sum to 1 along axis {axis}, not over the symbols: "
                                 f"take .log_softmax({last})")


def valid_frames(lengths, T):
    """(B, T) bool: which places lie within the lengths (B,)."""
    return torch.arange(T, device=lengths.device) < lengths[:, None]

# %%
def check_labels(targets, frames, letters, shape, blank):
    """ValueError for lengths beyond the data, and labels that are blank or out of range."""
    (T, _, V), U = shape, targets.shape[1]
    if not isinstance(blank, (int, np.integer)) or not 0 <= blank < V:
        raise ValueError(f"blank must be a symbol from 0 to {V - 1}, got {blank!r}")
    if int(frames.min()) < 1 or int(frames.max()) > T:
        raise ValueError(f"input_lengths must lie from 1 to T = {T}; drop empty utterances")
    if int(letters.min()) < 0 or int(letters.max()) > U:
        raise ValueError(f"target_lengths must lie from 0 to U = {U}, the width of targets")
    wrong = valid_frames(letters, U) & ((targets < 0) | (targets >= V) | (targets == blank))
    if bool(wrong.any()):
        raise ValueError(f"a label is a symbol from 0 to {V - 1} but not the blank {blank}; "
                         f"targets have {targets[wrong][:3].tolist()}")

# %%
def turned(lengths, N):
    """(B, N) indices that turn round the first lengths[b] of N places and leave the rest."""
    at = torch.arange(N, device=lengths.device)
    return torch.where(at < lengths[:, None], lengths[:, None] - 1 - at, at)


def states_of_batch(targets, letters, blank):
    """Extended texts (B, 2 U + 1); the padding of targets becomes blank."""
    states = targets.new_full((len(targets), 2 * targets.shape[1] + 1), blank)
    states[:, 1::2] = targets.masked_fill(~valid_frames(letters, targets.shape[1]), blank)
    return states

# %%
def before_frames(emitted, states):
    """log of what reaches each state before its frame is read: (T, B, S), like emitted.

    emitted: log p of each state's symbol in each frame. Eq. (33.6) for all rows and states at
    once: the three arrows are a window of width 3 over the states.
    """
    T, B, S = emitted.shape
    arrows = emitted.new_zeros(B, S, 3)                    # from s - 2, s - 1, s
    arrows[:, :2, 0] = -torch.inf
    arrows[:, 2:, 0].masked_fill_(states[:, 2:] == states[:, :-2], -torch.inf)
    before = torch.full_like(emitted, -torch.inf)
    before[0, :, :2] = 0
    alpha = emitted.new_full((B, S + 2), -torch.inf)       # two empty states in front
    torch.add(before[0], emitted[0], out=alpha[:, 2:])
    for t in range(1, T):
        torch.logsumexp(alpha.unfold(1, 3, 1) + arrows, 2, out=before[t])
        torch.add(before[t], emitted[t], out=alpha[:, 2:])
    return before

# %%
def reach(log_probs, states, frames, letters):
    """log alpha and log beta, both (T, B, S), from one loop over 2 B rows."""
    T, B, V = log_probs.shape
    S = states.shape[1]
    emitted = log_probs.gather(2, states.expand(T, B, S))                      # (T, B, S)
    at = (turned(frames, T).T[:, :, None], torch.arange(B, device=states.device)[:, None],
          turned(2 * letters + 1, S))                      # reverses frames and states of each row
    both = before_frames(torch.cat([emitted, emitted[at]], 1),
                         torch.cat([states, states.gather(1, at[2])]))
    return both[:, :B] + emitted, both[:, B:][at]

# %%
def loss_and_posterior(log_probs, states, frames, letters):
    """-log p(y | x) (B,) and gamma (T, B, V), zero beyond the lengths and where p(y | x) = 0."""
    alpha, beta = reach(log_probs, states, frames, letters)
    T, B, S = alpha.shape
    last = alpha[frames - 1, torch.arange(B, device=alpha.device)]             # (B, S)
    ends = torch.stack([2 * letters, (2 * letters - 1).clamp(min=0)], 1)       # (B, 2)
    tops = last.gather(1, ends)
    tops[:, 1] = tops[:, 1].masked_fill(letters == 0, -torch.inf)
    log_p = tops.logsumexp(1)
    own = valid_frames(2 * letters + 1, S)                                     # (B, S)
    share = torch.where(own, alpha + beta, -torch.inf).softmax(2)  # the sum is p(y | x) by (33.7)
    inside = valid_frames(frames, T).T & (log_p != -torch.inf)                 # (T, B)
    share = torch.where(inside[:, :, None], share, 0.0)                        # (T, B, S)
    symbol = F.one_hot(states, log_probs.shape[2]).to(share)                   # (B, S, V)
    return -log_p, torch.bmm(share.transpose(0, 1), symbol).transpose(0, 1)

# %%
class CTCFunction(torch.autograd.Function):
    """The loss, with the gradient (33.9) in closed form."""

    @staticmethod
    def forward(ctx, log_probs, *rest):
        loss, gamma = loss_and_posterior(log_probs, *rest)
        ctx.save_for_backward(gamma)
        return loss

    @staticmethod
    def backward(ctx, gradient):
        gamma, = ctx.saved_tensors
        return -gamma * gradient[:, None], None, None, None

# %%
def ctc_loss(log_probs, targets, input_lengths, target_lengths, blank=0):
    """-log p(y | x) of each utterance in nats, (B,): eqs. (33.6) to (33.9); inf if none fits.

    log_probs: (T, B, V), as from log_softmax(2). targets: (B, U) labels, padded with anything.
    input_lengths, target_lengths: (B,), frames 1 .. T and letters 0 .. U of each row. Where the
    loss is infinite its gradient is 0. ValueError: shapes, lengths, a label that is the blank.
    """
    log_probs, targets, frames, letters = checked_ctc(log_probs, targets, input_lengths,
                                                      target_lengths, blank)
    small = log_probs.dtype in (torch.float16, torch.bfloat16)
    states = states_of_batch(targets, letters, blank)
    return CTCFunction.apply(log_probs.float() if small else log_probs, states, frames,
                             letters).to(log_probs.dtype)

# %%
def ctc_posterior(log_probs, targets, input_lengths, target_lengths, blank=0):
    """gamma (T, B, V) of eq. (33.8), arguments as of ctc_loss; 0 beyond an utterance's length.

    ValueError also for a text that has no path.
    """
    log_probs, targets, frames, letters = checked_ctc(log_probs, targets, input_lengths,
                                                      target_lengths, blank)
    small = log_probs.dtype in (torch.float16, torch.bfloat16)
    loss, gamma = loss_and_posterior(log_probs.detach().float() if small else log_probs.detach(),
                                     states_of_batch(targets, letters, blank), frames, letters)
    if bool((loss == torch.inf).any()):
        raise ValueError(f"no path for text {int((loss == torch.inf).nonzero()[0, 0])}: it needs "
                         "as many frames as letters and repeats, and no letter of probability 0")
    return gamma.to(log_probs.dtype)

# %% tags=["hide-input"]
g = torch.Generator().manual_seed(3)
logits = (3 * torch.randn(9, 6, 5, generator=g, dtype=torch.float64)).requires_grad_()
labels = torch.tensor([[1, 1, 2, 9], [3, 4, 4, 4], [2, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4],
                       [2, 2, 2, 2]])                             # padding holds anything
n_letters, n_frames = torch.tensor([3, 4, 1, 0, 4, 4]), torch.tensor([9, 8, 1, 5, 4, 6])
batch = logits.log_softmax(2), labels, n_frames, n_letters
ours = ctc_loss(*batch)
finite = torch.tensor([True] * 5 + [False])          # 2222 needs seven frames, there are six

# %% tags=["hide-input"]
def _posterior_by_paths(log_probs, target):
    """gamma (T, V) by enumeration: the share of the text's paths with each symbol."""
    p, gamma = log_probs.exp().numpy(), np.zeros(log_probs.shape)
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        if [v for v, _ in itertools.groupby(path) if v != 0] == list(target):
            gamma[range(len(p)), path] += math.prod(p[range(len(p)), path])
    return gamma / gamma.sum(1, keepdims=True)

# %%
loops = [-math.log(forward_table(batch[0][:T, b].detach(), labels[b, :U].tolist())[-1, -2:].sum())
         for b, (T, U) in enumerate(zip(n_frames[:5].tolist(), n_letters[:5].tolist()))]
check("33.6", "a batch of different lengths by the double loop", ours[finite], loops, atol=1e-10)
check("33.6", "a text that does not fit has loss infinity", float(ours[5].detach()), math.inf)
check("33.6", "400 frames do not underflow: the exact binomial",
      -ctc_loss(torch.from_numpy(nothing_known)[:, None], [[1, 2, 3]], [400], [3]), [exact],
      rtol=1e-12)

# %%
six_texts = [[1, 2], [1, 1], [2, 1], [2, 2], [1, 0], [0, 0]]                # the last two padded
gamma = ctc_posterior(toy[:, None].expand(5, 6, 3), six_texts, [5] * 6, [2, 2, 2, 2, 1, 0])
check("33.8", "the posterior by enumeration of all paths, for six texts", gamma.transpose(0, 1),
      [_posterior_by_paths(toy, y) for y in ([1, 2], [1, 1], [2, 1], [2, 2], [1], [])], atol=1e-12)

# %%
sharp = 10 * torch.randn(400, 2, 30, generator=torch.Generator().manual_seed(9))
sharp_batch = torch.tensor([[1, 1, 2], [3, 4, 0]]), [400, 350], [3, 2]
check("33.6", "400 frames of a very sure net in float32: PyTorch's loss in float64",
      ctc_loss(sharp.log_softmax(2), *sharp_batch),
      F.ctc_loss(sharp.double().log_softmax(2), *sharp_batch, reduction="none"), rtol=1e-5)

# %%
gradient, = torch.autograd.grad(ours[finite].sum(), logits, retain_graph=True)
theirs = F.ctc_loss(*batch, reduction="none", zero_infinity=True)    # else NaN
reference, = torch.autograd.grad(theirs[finite].sum(), logits, retain_graph=True)
check("33.9", "PyTorch's gradient, lengths that differ", gradient, reference, atol=1e-10)

# %%
paths_12 = torch.tensor(one_two)
z_toy = toy.clone().requires_grad_()             # autograd through the sum over paths (33.4)
log_p_12 = z_toy.log_softmax(1)[torch.arange(5), paths_12].sum(1).logsumexp(0)
by_autograd, = torch.autograd.grad(-log_p_12, z_toy)
check("33.9", "autograd through the sum over the paths of one text",
      toy.exp() - ctc_posterior(toy[:, None], [[1, 2]], [5], [2])[:, 0], by_autograd, atol=1e-12)
check("33.9", "an infinite loss sends no gradient",
      torch.autograd.grad(ours[5], logits, retain_graph=True)[0], torch.zeros_like(logits))

# %% [markdown]
# The figure takes one text through all of it: what the net says, what the paths of *see* make of it, and the
# difference, which pushes the logits.

# %% tags=["hide-input"]
g = torch.Generator().manual_seed(12)
said = (1.2 * torch.randn(12, 1, 4, generator=g, dtype=torch.float64)).log_softmax(2)  # - e s t
gamma_see = ctc_posterior(said, [[2, 1, 1]], [12], [3])[:, 0]
fig, axes = plt.subplots(1, 3, figsize=(9.6, 2.2), sharey=True)
for ax, table, title, kind in ((axes[0], said[:, 0].exp(), "$p_t(v)$", "Greys"),
                               (axes[1], gamma_see, "$\\gamma_t(v)$ of see", "Greys"),
                               (axes[2], said[:, 0].exp() - gamma_see, "gradient", "RdBu_r")):
    low = 0 if kind == "Greys" else -1
    shown = ax.imshow(table.T, cmap=kind, vmin=low, vmax=1, aspect="auto")
    ax.set(title=title, xlabel="frame $t$", yticks=range(4), yticklabels=["-", "e", "s", "t"],
           xticks=range(0, 12, 3), xticklabels=range(1, 13, 3))
    ax.grid(False)
    fig.colorbar(shown, ax=ax, shrink=0.9)
plt.show()

# %% [markdown]
# The posterior forbids *t* altogether and puts *s* before *e*; the gradient lowers what is too probable (red)
# and raises what is missing (blue). Each column of it sums to 0.

# %% [markdown]
# ## 7. The best alignment
#
# Where does each letter sound, if the text is known? Take the recursion (33.6) with a maximum in the place of
# the sum, remember which arrow won, and walk back from the better of the two last states:
#
# $$\delta_t(s)=p_t(\ell_s)\max\big(\delta_{t-1}(s),\ \delta_{t-1}(s-1),\ [\ell_s\ne\varnothing,\ \ell_s\ne\ell_{s-2}]\,\delta_{t-1}(s-2)\big),\qquad\max_{\pi\in\mathcal B^{-1}(y)}\prod_tp_t(\pi_t)=\max\big(\delta_T(2U),\ \delta_T(2U-1)\big) \tag{33.10}$$
#
# This is Viterbi's algorithm; products have no underflow in logarithms, where they are sums.

# %%
def checked_frames(log_probs, blank):
    """One utterance's log-probabilities as float64 numpy (T, V); ValueError if they are none."""
    if isinstance(log_probs, torch.Tensor):
        log_probs = log_probs.detach().cpu().double()
    log_p = np.asarray(log_probs, dtype=np.float64)
    if log_p.ndim != 2 or 0 in log_p.shape or np.isnan(log_p).any():
        raise ValueError(f"need log-probabilities (T, V) without NaN, got shape {log_p.shape}")
    if (log_p > 1e-3).any():
        raise ValueError("these are no log-probabilities (above 0): take .log_softmax(1)")
    check_axis(torch.tensor(log_p))
    if not isinstance(blank, (int, np.integer)) or not 0 <= blank < log_p.shape[1]:
        raise ValueError(f"blank must be a symbol from 0 to {log_p.shape[1] - 1}, got {blank!r}")
    return log_p

# %%
def ctc_align(log_probs, target, blank=0):
    """The most probable path of a text, eq. (33.10): a list of T symbols.

    log_probs: (T, V). ValueError: a label that is the blank or out of range, a text without path.
    """
    log_p = checked_frames(log_probs, blank)
    if isinstance(target, str) or any(v != int(v) for v in target):
        raise ValueError(f"labels are whole numbers, not letters; got {target!r}")
    target = [int(v) for v in target]
    (T, V), states = log_p.shape, np.array(extended(target, blank))
    if not all(0 <= v < V and v != blank for v in target):
        raise ValueError(f"a label is a symbol from 0 to {V - 1} but not the blank, got {target}")
    jump = [may_skip(states, s) for s in range(len(states))]
    delta = np.where(np.arange(len(states)) < 2, log_p[0, states], -np.inf)
    arrows = np.zeros((T, len(states)), int)
    for t in range(1, T):
        come = np.full((3, len(states)), -np.inf)          # from s, s - 1, s - 2
        come[0], come[1, 1:] = delta, delta[:-1]
        come[2, 2:] = np.where(jump[2:], delta[:-2], -np.inf)
        arrows[t] = come.argmax(0)
        delta = come.max(0) + log_p[t, states]
    s = max(range(max(len(states) - 2, 0), len(states)), key=lambda s: delta[s])
    if delta[s] == -np.inf:
        raise ValueError(f"no path: {len(target)} letters with {n_repeats(target)} repeats need "
                         f"at least that many frames (there are {T}), none of probability 0")
    walk = [s]
    for t in range(T - 1, 0, -1):
        walk.append(walk[-1] - arrows[t, walk[-1]])
    return states[walk[::-1]].tolist()

# %%
def _best_path(log_p, target):
    """The largest log-probability of a path of the text, by enumeration."""
    return max(log_p[range(len(log_p)), path].sum() for path in itertools.product(
        range(log_p.shape[1]), repeat=len(log_p)) if ctc_collapse(path) == list(target))

# %%
fitting = [y for y in toy_texts if len(y) + n_repeats(y) <= 5]
best_of = [ctc_align(toy, y) for y in fitting]
check("33.10", "the best of all paths, for every text that fits into five frames",
      [toy.numpy()[range(5), path].sum() for path in best_of],
      [_best_path(toy.numpy(), y) for y in fitting], atol=1e-12)
check("33.10", "and it collapses to the text",
      [ctc_collapse(path) == list(y) for path, y in zip(best_of, fitting)])

# %% [markdown]
# **Predict.** Below, a net hears eight frames with the letters *a*, *b*, *c*. Type a text: which states
# carry its paths (grey, $\alpha_t\beta_t/p$), and where does the best path (line) run? Try `aab`, `abc`,
# `aaa`, and texts of five letters.

# %% tags=["hide-input"]
slow = np.array([[1, 9, 1, 1], [2, 9, 1, 1], [8, 5, 2, 1], [2, 6, 5, 1], [2, 2, 9, 2], [6, 1, 5, 3],
                 [4, 1, 2, 8], [9, 1, 1, 5]], dtype=float)
slow = np.log(slow / slow.sum(1, keepdims=True))                 # (8, 4): - a b c


def draw_lattice(text="aab"):
    """The lattice of a typed text on eight frames: posterior of the states, best path, numbers."""
    y = ["-abc".index(c) for c in text if c in "abc"]
    text = "".join("-abc"[v] for v in y)
    states = extended(y)
    share = forward_table(slow, y) * backward_table(slow, y)
    p = share[0].sum()
    fig, ax = plt.subplots(figsize=(6.4, min(0.9 + 0.24 * len(states), 6)))
    ax.imshow((share / max(p, 1e-300)).T, cmap=GREYS, vmin=0, vmax=1, aspect="auto")
    if p:
        walk, path = [], ctc_align(slow, y)
        for v in path:                               # states of the best path, first to last
            here = walk[-1] if walk else 0
            walk.append(next(s for s in range(here, here + 3) if states[s] == v))
        ax.plot(range(8), walk, "o-", color="#d1601f", ms=4)
    ax.set(yticks=range(len(states)), yticklabels=["-abc"[v] for v in states], xlabel="frame",
           xticks=range(8), xticklabels=range(1, 9),
           title=f"{text!r}: p = {p:.4f}, {n_paths(y, 8)} paths")
    ax.grid(False)
    plt.show()


for typed in ("aab", "abc", "aaa"):
    draw_lattice(typed)

# %% tags=["nbval-ignore-output"]
interact(draw_lattice, text=Text("ab", description="text of a, b, c", continuous_update=False,
                                 **WIDE));

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# *aaa* needs a third *a* where the net hears *c* (frame 7) or nothing, and is nearly ninety times less probable
# than *abc*. Five letters without equal neighbours (`abcab`) still have 286 paths, more than *ab*; repeats cost
# them: `aaaab` has one, `aaaaa` none (5 + 4 > 8). Wide grey areas are texts whose borders are unsure.
#
# </details>
#
# ## 8. Decoding: the best path is not the best text
#
# **Greedy**: take the most probable symbol of every frame and collapse. This is the most probable *path*,
# because frames are independent:
#
# $$\hat\pi_t=\arg\max_vp_t(v),\qquad\hat\pi=\arg\max_\pi\prod_tp_t(\pi_t),\qquad\hat y=\mathcal B(\hat\pi) \tag{33.11}$$

# %%
def ctc_greedy(log_probs, lengths=None, blank=0):
    """Greedy decoding, eq. (33.11): log_probs (T, B, V) -> list of B lists of labels.

    lengths: frames of each utterance (default: all T). ValueError: other shapes, lengths beyond T.
    """
    log_probs = torch.as_tensor(log_probs)
    if log_probs.ndim != 3 or 0 in log_probs.shape or bool(log_probs.isnan().any()):
        raise ValueError(f"need scores (T, B, V) without NaN, got {tuple(log_probs.shape)}")
    T, B, V = log_probs.shape
    lengths = torch.as_tensor([T] * B if lengths is None else lengths)
    if lengths.shape != (B,) or not 1 <= int(lengths.min()) <= int(lengths.max()) <= T:
        raise ValueError(f"lengths must be ({B},), each from 1 to T = {T}")
    if not isinstance(blank, (int, np.integer)) or not 0 <= blank < V:
        raise ValueError(f"blank must be a symbol from 0 to {V - 1}, got {blank!r}")
    paths = log_probs.argmax(2).T.tolist()                                     # B lists of T
    return [ctc_collapse(path[:n], blank) for path, n in zip(paths, lengths.tolist())]

# %%
def _texts_of(log_p, blank=0):
    """{text: p(text)} of all paths, the most probable path and its text, by enumeration."""
    p, total, best = np.exp(log_p), {}, (0.0, None)
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        text = tuple(v for v, _ in itertools.groupby(path) if v != blank)
        chance = math.prod(p[range(len(p)), path])
        total[text] = total.get(text, 0.0) + chance
        best = max(best, (chance, text))
    return total, best[1]


nets = [torch.randn(5, 3, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        .log_softmax(1) for k in range(40)]
everything = [_texts_of(net.numpy()) for net in nets]
check("33.11", "the text of the most probable of all 243 paths, for 40 random nets",
      [ctc_greedy(net[:, None])[0] == list(best) for net, (_, best) in zip(nets, everything)])
wrong_best = np.mean([max(total, key=total.get) != best for total, best in everything])
claim("for many of these nets another text is more probable than the greedy one", wrong_best,
      above=0.2, trivial=0.0)

# %% [markdown]
# The smallest case: two frames, blank .6 and *a* .4 in both. The best path is `--` with .36, so greedy
# writes nothing. But *a* has three paths, `a-`, `-a`, `aa`, with .24 + .24 + .16 = .64.

# %%
two_frames = np.log([[0.6, 0.4], [0.6, 0.4]])
check("33.11", "greedy writes nothing, with .36 against .64 for a",
      [len(ctc_greedy(two_frames[:, None])[0]),
       *(likelihood_by_paths(two_frames, y) for y in ([], [1]))],
      [0, 0.36, 0.64], atol=1e-12)

# %% [markdown]
# **Prefix beam search** adds up paths while it walks. It keeps the $K$ most probable prefixes $w$, each with
# *two* probabilities: of its paths so far that end in a blank, and of those that end in its last letter.
# They must be kept apart, because the same letter again does different things: after the letter it changes
# nothing, after a blank it starts a new one. With $p_t(w)=p^{\varnothing}_t(w)+p^{\bullet}_t(w)$ and the last
# letter $v$ of $w=w'v$,
#
# $$\begin{aligned}p^{\varnothing}_t(w)&=p_t(\varnothing)\,p_{t-1}(w),\\ p^{\bullet}_t(w'v)&=p_t(v)\Big(p^{\bullet}_{t-1}(w'v)+\begin{cases}p^{\varnothing}_{t-1}(w')&w'\text{ ends in }v\\ p_{t-1}(w')&\text{else}\end{cases}\Big)\end{aligned} \tag{33.12}$$
#
# starting with $p^{\varnothing}_0=1$ for the empty prefix. If nothing is pruned this is exact.
#
# ### Exercise 33.E · A beam with a bug · ●●○ · 12 min
#
# A colleague's step for one prefix and one letter. On *three* it writes *thre*, whatever the net says.
#
# ```python
# def step(ends_blank, ends_letter, last, v, row):
#     total = ends_blank + ends_letter
#     stay_blank = total * row[0]
#     stay_letter = ends_letter * row[last] if last else 0.0
#     grown = total * row[v] if v != last else 0.0
#     return stay_blank, stay_letter, grown
# ```
#
# Find the bug and write the step right.

# %%
def my_step(ends_blank, ends_letter, last, v, row):
    """One frame for the prefix w with last letter `last` (0: w is empty), and the letter v.

    ends_blank, ends_letter: probabilities of w's paths so far. row: (V,) probabilities of the
    frame, blank first. Returns three probabilities: of w with paths that now end in blank, of w
    with paths that end in its last letter, of w + v with paths that come from w.
    """
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _step(ends_blank, ends_letter, last, v, row, again="blank", stay="letter", blank="total"):
    """(33.12) for one prefix, and its famous errors."""
    part = {"blank": ends_blank, "letter": ends_letter, "total": ends_blank + ends_letter,
            "none": 0.0}
    return (part[blank] * row[0], part[stay] * row[last] if last else 0.0,
            part[again if v == last else "total"] * row[v])


rows = [(0.3, 0.2, 1, 1), (0.3, 0.2, 1, 2), (1.0, 0.0, 0, 1), (0.0, 0.4, 2, 2), (0.1, 0.3, 2, 1)]
exercise("33.E", my_step, [((*a, [0.5, 0.2, 0.3]), _step(*a, [0.5, 0.2, 0.3])) for a in rows],
         mistakes={
    "this is the colleague's bug: after a blank the same letter starts anew":
    lambda *a: _step(*a, again="none"),
    "the same letter again, right after itself, is no new letter: only paths that end in a blank "
    "grow by it": lambda *a: _step(*a, again="total"),
    "it is the blank, not the letter, that lets the same letter start anew":
    lambda *a: _step(*a, again="letter"),
    "paths that end in a blank do not stay in the letter: they would start it anew":
    lambda *a: _step(*a, stay="total"),
    "a blank may follow anything: both kinds of paths": lambda *a: _step(*a, blank="blank")})

# %% [markdown]
# <details><summary>Hint 1</summary>What does `e-e` need, and what does `ee` do?</details>
# <details><summary>Hint 2</summary>Two of the three lines are right. In the third, the case `v == last` has mass: that of `ends_blank`.</details>
# <details><summary>Solution 33.E</summary>
#
# ```python
# def my_step(ends_blank, ends_letter, last, v, row):
#     total = ends_blank + ends_letter
#     stay_letter = ends_letter * row[last] if last else 0.0
#     grown = (ends_blank if v == last else total) * row[v]
#     return total * row[0], stay_letter, grown
# ```
#
# </details>
#
# **A language model inside.** What independence could not say, a model of the letters adds: while the beam
# walks, each new letter brings $\lambda$ times its log-probability after the prefix. That makes every letter
# cost something, so a bonus $\nu$ a letter is often added. Prefixes are kept by the sum of both (the end of the
# text is not scored, so it may stop inside a word):
#
# $$\mathrm{score}_t(w)=\log p_t(w)+\lambda\sum_u\big(\log p_{\mathrm{LM}}(w_u\mid w_1\dots w_{u-1})+\nu\big) \tag{33.13}$$

# %%
def log_add(a, b):
    """log(e^a + e^b) of two numbers, also of minus infinity."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))

# %%
def grow(kept, row, blank):
    """One frame of (33.12): {prefix: [ends in blank, ends in its letter]}, all in logarithms."""
    grown = {}

    def add(prefix, kind, log_p):
        pair = grown.setdefault(prefix, [-math.inf, -math.inf])
        pair[kind] = log_add(pair[kind], log_p)

    letters = [(v, p) for v, p in enumerate(row) if v != blank and p > -math.inf]
    for prefix, (ends_blank, ends_letter) in kept.items():
        total, last = log_add(ends_blank, ends_letter), prefix[-1] if prefix else None
        add(prefix, 0, total + row[blank])
        for v, p in letters:
            if v == last:
                add(prefix, 1, ends_letter + p)
            add((*prefix, v), 1, (ends_blank if v == last else total) + p)
    return grown

# %%
def ctc_prefix_beam(log_probs, beam, blank=0, lm=None, lam=0.0):
    """Prefix beam search, eqs. (33.12) and (33.13): [(labels, score)], best first, at most `beam`.

    log_probs: (T, V). lm(prefix, label): what label adds after a tuple of labels, for instance
    log p + bonus. score: log p(y | x), of the paths that the beam kept, + lam times the sum of lm.
    ValueError: beam < 1, lam < 0, lam without lm.
    """
    log_p = checked_frames(log_probs, blank)
    if beam != int(beam) or beam < 1 or not 0 <= lam < math.inf or (lam and lm is None):
        raise ValueError(f"need an integer beam >= 1, and lam >= 0 with an lm if lam > 0; got beam "
                         f"{beam}, lam {lam}")
    kept, language = {(): [0.0, -math.inf]}, {(): 0.0}

    def score(item):
        prefix, pair = item
        if lam and prefix not in language:
            language[prefix] = language[prefix[:-1]] + lam * float(lm(prefix[:-1], prefix[-1]))
        return log_add(*pair) + (language[prefix] if lam else 0.0)

    for row in log_p.tolist():
        scored = [(score(item), item) for item in grow(kept, row, blank).items()]
        scored = sorted((s for s in scored if s[0] > -math.inf), key=lambda s: -s[0])[:int(beam)]
        kept = dict(item for _, item in scored)
    return [(prefix, value) for value, (prefix, _) in scored]

# %%
found_wide = [dict(ctc_prefix_beam(net, 400)) for net in nets[:10]]
check("33.12", "a wide beam is exact: all texts and their probabilities, ten random nets",
      [[math.exp(wide.get(y, -math.inf)) for y in total] for wide, (total, _)
       in zip(found_wide, everything)], [list(total.values()) for total, _ in everything[:10]],
      atol=1e-12)

# %%
check("33.12", "and minus the loss (33.6) of each text that it found",
      [list(wide.values()) for wide in found_wide[:3]],
      [[float(-ctc_loss(net[:, None], torch.tensor([y]).long().reshape(1, -1), [5], [len(y)]))
        for y in wide] for wide, net in zip(found_wide[:3], nets)], atol=1e-10)

# %%
def _toy_lm(prefix, label):
    """A letter model of two letters: it shuns the first one later. A bonus of 0.3 nats a letter."""
    return math.log(0.1 if prefix and prefix[0] == label else 0.9) + 0.3


def _with_lm(total, lam):
    """{text: log p + lam * sum of lm} of all texts, by enumeration."""
    return {y: math.log(p) + lam * sum(_toy_lm(y[:u], v) for u, v in enumerate(y))
            for y, p in total.items()}


exact_lm = [_with_lm(total, 0.7) for total, _ in everything[:10]]
wide_lm = [dict(ctc_prefix_beam(net, 400, lm=_toy_lm, lam=0.7)) for net in nets[:10]]
check("33.13", "a wide beam with a letter model and a bonus: all texts, their scores",
      [[wide[y] for y in exact] for wide, exact in zip(wide_lm, exact_lm)],
      [list(exact.values()) for exact in exact_lm], atol=1e-12)
one_frame = np.log([[0.05, 0.5, 0.3, 0.15]])              # - a b c, and a model that expects c
likes_c = lambda prefix, label: math.log(0.9 if label == 3 else 0.05)
check("33.13", "the sum steers what is kept: a beam of 2 finds c, by sound alone it would be lost",
      [*ctc_prefix_beam(one_frame, 2, lm=likes_c, lam=1.0)[0][0],
       ctc_prefix_beam(one_frame, 2, lm=likes_c, lam=1.0)[0][1],
       len(dict(ctc_prefix_beam(one_frame, 2)).keys() & {(3,)})],
      [3, math.log(0.15 * 0.9), 0], atol=1e-12)

# %% [markdown]
# ## 9. Jasper: one-dimensional convolutions
#
# A log-mel spectrogram is a *one-dimensional* signal with 40 channels, one for each band; a kernel is as high
# as all bands and slides along time only. What a frame becomes depends on its neighbours, on nothing that was
# computed for other frames: all are answered at once. A kernel of $k$ frames with dilation $d$ spans
# $d(k-1)+1$ frames; with padding $q$ on both sides and stride $m$ it fits into $T_{\mathrm{in}}$ frames
#
# $$T_{\mathrm{out}}=\Big\lfloor\frac{T_{\mathrm{in}}+2q-d(k-1)-1}m\Big\rfloor+1 \tag{33.14}$$
#
# times. If $d(k-1)$ is even, $q=d(k-1)/2$ and $m=1$ keep the length; if it is odd, the frames shift or one is
# lost.
#
# **Receptive field.** Over how many input frames does one output stretch? One frame of a layer spans
# $d_j(k_j-1)+1$ frames of the layer below; there, neighbours are $\prod_{i<j}m_i$ input frames apart.
# Adding up over $J$ layers:
#
# $$F=1+\sum_{j=1}^Jd_j(k_j-1)\prod_{i<j}m_i \tag{33.15}$$
#
# ### Exercise 33.F · The receptive field · ●●○ · 8 min

# %%
def my_field(layers):
    """layers: list of (kernel, stride, dilation), the first layer first. Returns F in frames."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _field(layers, own=False, less=1, use_stride=True, use_dilation=True):
    """(33.15) by a loop, and its famous errors."""
    field, apart = 1, 1
    for k, m, d in layers:
        apart *= m if own else 1
        field += (k - less) * (d if use_dilation else 1) * apart
        apart *= m if use_stride and not own else 1
    return field


stacks = [[(11, 2, 1), (7, 1, 1), (7, 1, 1)], [(3, 1, 1)], [(3, 2, 1), (3, 2, 2), (5, 1, 1)],
          [(5, 1, 1), (5, 1, 2), (1, 1, 1)], [(2, 3, 1)]]
exercise("33.F", my_field, [((layers,), _field(layers)) for layers in stacks], mistakes={
    "a layer's own stride does not widen what one of its outputs sees":
    lambda a: _field(a, own=True),
    "a kernel of k adds k - 1 frames, not k": lambda a: _field(a, less=0),
    "behind a stride, neighbours are further apart": lambda a: _field(a, use_stride=False),
    "dilation spreads the kernel": lambda a: _field(a, use_dilation=False)})

# %% [markdown]
# <details><summary>Hint 1</summary>Carry two numbers: the field so far, and how far apart neighbours of this layer are in input frames.</details>
# <details><summary>Solution 33.F</summary>
#
# ```python
# def my_field(layers):
#     field, apart = 1, 1
#     for k, m, d in layers:
#         field += d * (k - 1) * apart
#         apart *= m
#     return field
# ```
#
# </details>

# %%
def conv_length(T, k, m=1, d=1, q=0):
    """Frames behind a convolution, eq. (33.14)."""
    return (T + 2 * q - d * (k - 1) - 1) // m + 1

# %%
def receptive_field(layers):
    """Input frames that one output sees, eq. (33.15); layers: [(kernel, stride, dilation), ...]."""
    strides = [m for _, m, _ in layers]
    return 1 + sum(d * (k - 1) * math.prod(strides[:j]) for j, (k, _, d) in enumerate(layers))

# %%
def _field_by_gradient(layers, T=200):
    """From the first to the last input with a gradient at the middle output of a random stack."""
    x = torch.ones(1, 1, T, dtype=torch.float64, requires_grad=True)
    y = x
    for k, m, d in layers:
        y = F.conv1d(y, torch.rand(1, 1, k, dtype=torch.float64) + 0.1, stride=m, dilation=d)
    y[0, 0, y.shape[2] // 2].backward()
    reached = x.grad[0, 0].nonzero()
    return int(reached.max() - reached.min() + 1)


settings = [(T, k, m, d, q) for T in (20, 21, 50) for k in (1, 4, 7) for m in (1, 2, 3)
            for d in (1, 2) for q in (0, 3)]
check("33.14", "torch's convolution makes as many frames, in 108 settings",
      [conv_length(*setting) for setting in settings],
      [F.conv1d(torch.zeros(1, 1, T), torch.zeros(1, 1, k), stride=m, dilation=d,
                padding=q).shape[2] for T, k, m, d, q in settings])
check("33.15", "where the gradient of one output is not zero", [receptive_field(s) for s in stacks],
      [_field_by_gradient(s) for s in stacks])

# %% [markdown]
# **The block.** Convolution, batch norm, ReLU, dropout, $r$ times; before the last ReLU the block's input is
# added, through a 1 × 1 convolution (the number of channels may change) and a batch norm of its own. In
# Jasper DR ("dense residual") the inputs of all *earlier* blocks are added in the same way:
#
# $$h_{i+1}=\mathrm{dropout}\Big(\mathrm{ReLU}\Big(f_i(h_i)+\sum_{j\in\mathcal J_i}\mathrm{BN}_{ij}(W_{ij}h_j)\Big)\Big) \tag{33.16}$$
#
# with $\mathcal J_i=\{i\}$ for the residual block and $\mathcal J_i=\{1,\dots,i\}$ for the dense one; $f_i$ is
# everything up to the last batch norm, $W_{ij}$ a 1 × 1 convolution.

# %% tags=["hide-input"]
boxes = {"h": (0, 0.8, "$h_i$", "round"), "c": (1.2, 0.8, "conv, BN,\nReLU, dropout"),
         "d": (2.6, 0.8, "conv, BN"), "s": (3.8, 0.8, "+", "bold"),
         "r": (4.8, 0.8, "ReLU,\ndropout"), "o": (5.8, 0.8, "$h_{i+1}$", "round"),
         "w": (1.9, 0, "1 × 1 conv, BN"), "e": (0, -0.7, "$h_1,\\dots,h_{i-1}$", "round"),
         "v": (1.9, -0.7, "1 × 1 conv, BN, each")}
scheme(boxes, [("h", "c"), ("c", "d"), ("d", "s"), ("s", "r"), ("r", "o"), ("h", "w"), ("w", "s"),
               ("e", "v", "", "dashed"), ("v", "s", "dense", "dashed")], size=(9.2, 2.8))
plt.show()

# %% [markdown]
# **Padding.** In a batch, short utterances are filled up with zeros. A batch norm turns these zeros into other
# numbers, and the next convolution carries them into the last real frames; in training they would even
# change everybody's mean and variance. So the norm here sees real frames only and writes zeros elsewhere:
# every convolution then finds zeros beyond the end, as it does beyond the end of a lone utterance.

# %%
class FrameNorm(nn.BatchNorm1d):
    """Batch norm over the frames that exist: x (B, C, T), valid (B, T); zero elsewhere."""

    def forward(self, x, valid):
        rows = x.mT                                                            # (B, T, C)
        return torch.zeros_like(rows).masked_scatter(valid[:, :, None],
                                                     super().forward(rows[valid])).mT

# %%
def checked_batch(module, x, lengths, channels):
    """x (B, C, T) and lengths (B,) as a module needs them; ValueError if they do not fit."""
    w = next(module.parameters())
    x = torch.as_tensor(x, dtype=w.dtype, device=w.device)
    lengths = torch.as_tensor(lengths, device=w.device)
    if x.ndim != 3 or x.shape[1] != channels or lengths.shape != x.shape[:1] or 0 in x.shape:
        raise ValueError(f"need x (B, {channels}, T) and lengths (B,), got {tuple(x.shape)} and "
                         f"{tuple(lengths.shape)}")
    if lengths.is_floating_point():
        raise ValueError(f"lengths are whole numbers of frames, got {lengths.tolist()}")
    if not 1 <= int(lengths.min()) <= int(lengths.max()) <= x.shape[2]:
        raise ValueError(f"lengths must lie from 1 to the {x.shape[2]} frames there are")
    return x, lengths.long()

# %%
class JasperBlock(nn.Module):
    """Eq. (33.16): forward(x (B, c_in, T), lengths (B,), dense=()) -> (B, c_out, T).

    dense: inputs (B, c, T) of earlier blocks, one for each c in c_dense. Zero beyond the lengths,
    and blind to what stands there. ValueError: an even kernel, lengths outside 1 .. T.
    """

    def __init__(self, c_in, c_out, kernel_size, repeat=2, dropout=0.0, c_dense=()):
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 1 or repeat < 1:
            raise ValueError("need an odd kernel_size (an even one shifts frames), repeat >= 1")
        conv = lambda c, k: nn.Conv1d(c, c_out, k, padding=k // 2, bias=False)
        self.convs = nn.ModuleList(conv(c, kernel_size) for c in [c_in] + [c_out] * (repeat - 1))
        self.norms = nn.ModuleList(FrameNorm(c_out) for _ in range(repeat))
        self.skips = nn.ModuleList(conv(c, 1) for c in [c_in, *c_dense])
        self.skip_norms = nn.ModuleList(FrameNorm(c_out) for _ in self.skips)
        self.dropout, self.c_in, self.c_dense = nn.Dropout(dropout), c_in, tuple(c_dense)

    def forward(self, x, lengths, dense=()):
        x, lengths = checked_batch(self, x, lengths, self.c_in)
        if [tuple(h.shape) for h in dense] != [(len(x), c, x.shape[2]) for c in self.c_dense]:
            raise ValueError(f"need dense inputs (B, c, T) like x, with c = {self.c_dense}")
        valid = valid_frames(lengths, x.shape[2])
        inputs = [torch.where(valid[:, None], torch.as_tensor(h).to(x), 0.0) for h in (x, *dense)]
        h = self.norms[0](self.convs[0](inputs[0]), valid)
        for conv, norm in zip(self.convs[1:], self.norms[1:]):
            h = norm(conv(self.dropout(F.relu(h))), valid)
        for skip, norm, other in zip(self.skips, self.skip_norms, inputs):
            h = h + norm(skip(other), valid)
        return self.dropout(F.relu(h))

# %% tags=["hide-input"]
def _normed(rows, norm, training):
    """Batch norm by hand of a list of (C, n): the real frames of every utterance."""
    joined = torch.cat(rows, 1)
    mean, var = ((joined.mean(1), joined.var(1, unbiased=False)) if training else
                 (norm.running_mean, norm.running_var))
    scale = norm.weight / (var + norm.eps).sqrt()
    return [(x - mean[:, None]) * scale[:, None] + norm.bias[:, None] for x in rows]


def _block_by_hand(block, rows, dense, training):
    """The block on a list of lone utterances (C, n), without any padding."""
    conv = lambda c, xs: [F.conv1d(x[None], c.weight, padding=c.weight.shape[2] // 2)[0]
                          for x in xs]
    h = rows
    for k, (c, norm) in enumerate(zip(block.convs, block.norms)):
        h = _normed(conv(c, [x.clamp(min=0) for x in h] if k else h), norm, training)
    for skip, norm, other in zip(block.skips, block.skip_norms, [rows, *dense]):
        h = [a + b for a, b in zip(h, _normed(conv(skip, other), norm, training))]
    return [x.clamp(min=0) for x in h]

# %% tags=["hide-input"]
torch.manual_seed(4)
block = JasperBlock(3, 4, 5, repeat=3, c_dense=(2, 3)).double()
for norm in [*block.norms, *block.skip_norms]:
    for vector in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(vector)
    nn.init.uniform_(norm.running_var, 0.5, 2)
frames_of = torch.tensor([9, 4, 7])

# %% tags=["hide-input"]
x_block, *dense_block = (torch.randn(3, c, 9, dtype=torch.float64) for c in (3, 2, 3))
alone = [[h[b, :, :n] for b, n in enumerate(frames_of)] for h in (x_block, *dense_block)]

# %%
with torch.no_grad():
    for training in (False, True):
        reference = _block_by_hand(block, alone[0], alone[1:], training)
        out = block.train(training)(x_block, frames_of, dense_block)
        check("33.16", f"the block by hand on utterances without padding, training {training}",
              torch.cat([out[b, :, :n] for b, n in enumerate(frames_of)], 1),
              torch.cat(reference, 1), atol=1e-10)
    check("33.16", "it is zero beyond the lengths", out[~valid_frames(frames_of, 9)[:, None]
                                                        .expand_as(out)].abs().max(), 0.0)

# %%
seen, block.dropout.p = [], 0.25
block.dropout.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
with torch.no_grad():
    block.train()(x_block, frames_of, dense_block)
before, after = seen[-1]
check("33.16", "dropout stands behind each of the three ReLUs, and what is left counts 4/3",
      [len(seen), min(float(x.min()) for x, _ in seen), *after[after > 0]],
      [3, 0, *before[after > 0] / 0.75], atol=1e-12)

# %%
class Jasper(nn.Module):
    """Log-mel (B, T, 40), lengths -> (log-probabilities (T', B, V), lengths'), T' = ceil(T / 2).

    shortcut: "plain" (none), "residual" or "dense".
    """

    def __init__(self, channels, kernels=(7, 9, 11), V=17, shortcut="residual"):
        super().__init__()
        self.first = nn.Conv1d(40, channels, 11, stride=2, padding=5, bias=False)
        self.norm, self.out = FrameNorm(channels), nn.Conv1d(channels, V, 1)
        self.dense = shortcut == "dense"
        self.blocks = nn.ModuleList(JasperBlock(channels, channels, k, c_dense=[channels] * i
                                                * self.dense) for i, k in enumerate(kernels))
        if shortcut == "plain":
            for block in self.blocks:
                block.skips = block.skip_norms = nn.ModuleList()
        self.layers = [(11, 2, 1)] + [(k, 1, 1) for k in kernels for _ in range(2)]

    def forward(self, x, lengths):
        x, lengths = checked_batch(self, torch.as_tensor(x).mT, lengths, 40)
        x = torch.where(valid_frames(lengths, x.shape[2])[:, None], x, 0.0)
        lengths = (lengths + 1) // 2
        x = F.relu(self.norm(self.first(x), valid_frames(lengths, (x.shape[2] + 1) // 2)))
        seen = []
        for block in self.blocks:
            x, seen = block(x, lengths, seen * self.dense), [*seen, x]
        return self.out(x).permute(2, 0, 1).log_softmax(2), lengths           # (T', B, V)

# %%
jasper = Jasper(CHANNELS).to(device)
field = receptive_field(jasper.layers)
probe = torch.randn(1, 201, 40, device=device, requires_grad=True)
jasper.eval()(probe, [201])[0][50, 0].square().sum().backward()
touched = probe.grad[0].abs().sum(1).cpu() > 0                                 # (201,)
check("33.15", "the whole net: frames whose gradient at one output is not zero", field,
      int(touched.sum()))

# %%
print(f"{sum(map(torch.numel, jasper.parameters())):,} parameters; one output sees {field} frames, "
      f"{(field - 1) * 12.5 + 32:.0f} ms, and waits for {field // 2 * 12.5 + 32:.0f} ms of future")

# %% [markdown]
# Given the features, a letter can be written 0.7 s after its frame began: the **latency** of streaming. Our
# features do not stream, `log_mel_batch` below subtracts the mean of the whole utterance; a streaming
# recogniser takes a running mean. A BiLSTM reads the whole utterance backwards first: it cannot stream at all.
#
# ## 10. Learning: first nothing, then spikes
#
# The data are those of [notebook 32](32_asr_las.ipynb), written again compactly: one to three digits by one
# voice, joined with silence and noise; log-mel of 40 bands, a frame every 12.5 ms; test voices never heard in
# training. A batch has 16 utterances. Augmentation: other speeds (± 15 %; there ± 10 %), noise, and stripes
# of the spectrogram that are hidden (SpecAugment, much as in [notebook 31](31_sound_features.ipynb), eq.
# 31.31; here with real widths, and a stripe may fall into a short utterance's padding).

# %% tags=["hide-input"]
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LETTERS = " efghinorstuvwxz"            # label 1 is the space; 0 is the blank


def labels_of(texts):
    """(targets (B, U) padded with 0, lengths (B,)) of texts."""
    rows = [torch.tensor([1 + LETTERS.index(c) for c in text]) for text in texts]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])

# %% tags=["hide-input"]
def text_of(labels):
    return "".join(LETTERS[v - 1] for v in labels)

# %% tags=["hide-input"]
def voices_of(source):
    """{part: {voice: {digit: recordings}}} of 32: train, dev and test share no recording."""
    recorded, pools = data.sounds(source), {"train": {}, "dev": {}, "test": {}}
    for x, word, voice, take in zip(recorded.sound, recorded.text, recorded.speaker, recorded.take):
        if source == "fsdd":            # official split: takes 0-4 are the test; 5-9 choose λ
            part = "test" if take < 5 else "dev" if take < 10 else "train"
        else:
            part = "test" if voice >= "v40" else "dev" if voice >= "v36" else "train"
        if voice != "slt":
            pools[part].setdefault(voice, {}).setdefault(WORDS.index(word), []).append(x)
    return pools


voices = voices_of(DATA)
contents = [{x.numpy().tobytes() for takes in pool.values() for row in takes.values() for x in row}
            for pool in voices.values()]
claim("training, development and test share no recording", len(set().union(*contents)),
      sum(map(len, contents)))

# %% tags=["hide-input"]
def uniform(generator, low, high):
    return low + (high - low) * float(torch.rand((), generator=generator))


def say(takes, digits, generator, speed=0.0, noise=0.003):
    """One voice says digits, as in 32: (T,) samples, recordings with standard deviation 0.1."""
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

# %% tags=["hide-input"]
STEP = {1: 0.6, 3: 0.25, 7: 0.1, 5: 0.05}      # 32: next digit = last one + k, so probable


def structured(n_max, generator):
    """1 .. n_max digits from the Markov chain STEP, as in 32."""
    n = 1 + int(torch.randint(n_max, (), generator=generator))
    digits = [int(torch.randint(10, (), generator=generator))]
    jumps = torch.multinomial(torch.tensor(list(STEP.values())), n - 1, True,
                              generator=generator) if n > 1 else []
    for jump in jumps:
        digits.append((digits[-1] + list(STEP)[int(jump)]) % 10)
    return digits

# %% tags=["hide-input"]
def spoken_set(pool, n, noise, seed, n_max):
    """n structured utterances, the voices in turn: (sounds, texts, voices), as in 32."""
    generator, names = torch.Generator().manual_seed(seed), sorted(pool)
    who = [names[k % len(names)] for k in range(n)]
    digits = [structured(n_max, generator) for _ in range(n)]
    sounds = [say(pool[name], row, generator, noise=noise) for name, row in zip(who, digits)]
    return sounds, [" ".join(WORDS[d] for d in row) for row in digits], who

# %% tags=["hide-input"]
def log_mel_batch(sounds):
    """Normalised log-mel (B, T, 40) and frames (B,) of sounds (T_k,) at 8 kHz, as in 32."""
    mel = get_torchaudio().transforms.MelSpectrogram(8000, 256, hop_length=100, n_mels=40,
                                                     center=False)
    samples = torch.tensor([len(x) for x in sounds])
    S = mel(pad_sequence(sounds, batch_first=True)).clamp(min=1e-10).log().mT  # (B, T, 40)
    lengths = 1 + (samples - 256) // 100
    valid = valid_frames(lengths, S.shape[1])[:, :, None]                      # (B, T, 1)
    size = lengths[:, None, None]
    S = torch.where(valid, S - (S * valid).sum(1, keepdim=True) / size, 0.0)
    scale = (S.square().sum((1, 2), keepdim=True) / size / 40).sqrt()
    return S / scale.clamp(min=1e-5), lengths


def hide_stripes(x, generator, widths=((1, 8), (2, 6))):
    """SpecAugment: one stripe of each dimension, up to so wide, becomes the mean 0."""
    for dim, limit in widths:
        n, at = x.shape[dim], torch.arange(x.shape[dim])
        width = limit * torch.rand(len(x), 1, generator=generator)
        left = (n - width).clamp(min=0) * torch.rand(len(x), 1, generator=generator)
        stripe = (at >= left) & (at < left + width)                            # (B, n)
        x = x.masked_fill(stripe[:, :, None] if dim == 1 else stripe[:, None, :], 0.0)
    return x

# %% tags=["hide-input"]
def training_batch(pools, n_max, generator, speed=0.15, noise=0.01, stripes=True, bands=0, size=16):
    """(x, lengths, texts) of random digits by random voices of the pools, in turn."""
    sounds, texts = [], []
    for k in range(size):
        pool = pools[k % len(pools)]
        takes = pool[sorted(pool)[int(torch.randint(len(pool), (), generator=generator))]]
        n = 1 + int(torch.randint(n_max, (), generator=generator))
        digits = torch.randint(10, (n,), generator=generator).tolist()
        level = noise * 10 ** uniform(generator, -1, 0)
        sounds.append(say(takes, digits, generator, speed, level))
        texts.append(" ".join(WORDS[d] for d in digits))
    x, lengths = log_mel_batch(sounds)
    if bands:                                       # a longer or shorter vocal tract
        shift = torch.randint(-bands, bands + 1, (size,), generator=generator).tolist()
        x = torch.stack([F.pad(row, (k, -k)) for row, k in zip(x, shift)])
    return hide_stripes(x, generator) if stripes else x, lengths, texts

# %%
def train_ctc(net, pools, n_steps, n_max, watch=lambda step: None, seed_=0, stop=10**9,
              **augmentation):
    """Train by the mean loss a letter; single digits for the first 15 % of the n_steps.

    Returns (net, losses of all steps in nats a letter). watch(step) is called before each step;
    the first `stop` of the steps are made.
    """
    net, generator, losses = net.to(device), torch.Generator().manual_seed(seed_), []
    optimiser = torch.optim.AdamW(net.parameters(), LR, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(n_steps, 1))
    for step in progress(range(min(n_steps, stop)), desc="training"):
        watch(step)
        x, lengths, texts = training_batch(pools, 1 if step < 0.15 * n_steps else n_max, generator,
                                           **augmentation)
        log_probs, frames = net.train()(x.to(device), lengths.to(device))
        targets, letters = (part.to(device) for part in labels_of(texts))
        loss = (ctc_loss(log_probs, targets, frames, letters) / letters).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return net.eval(), losses

# %%
@torch.no_grad()
def hear(net, sounds):
    """A list of log-probabilities (T', V), one for each sound, on the CPU."""
    found = []
    for k in range(0, len(sounds), 32):
        x, lengths = log_mel_batch(sounds[k:k + 32])
        log_probs, frames = net.eval()(x.to(device), lengths.to(device))
        found += [log_probs[:n, b].cpu() for b, n in enumerate(frames.tolist())]
    return found


def greedy_texts(heard):
    return [text_of(ctc_greedy(log_probs[:, None])[0]) for log_probs in heard]

# %%
first_voice = sorted(voices["test"])[0]
g = torch.Generator().manual_seed(5)
word_sound = say(voices["test"][first_voice], [3], g)
watch_sounds, watch_texts, _ = spoken_set(voices["dev"], 8, 0.003, 400, N_MAX)
snapshots, blank_share, blank_share_zero = {}, {}, {}
SNAPS = sorted({round(N_STEPS * f) for f in (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)})


def look(step):
    """Store what the net hears in one word, and the share of blanks in eight dev utterances."""
    if step in SNAPS:
        snapshots[step] = hear(jasper, [word_sound])[0]
    if step % max(N_STEPS // 40, 1) == 0:
        blank_share[step] = blanks(jasper)


def blanks(net):
    """Share of frames whose likeliest symbol is blank, in eight development utterances."""
    return float((torch.cat(hear(net, watch_sounds)).argmax(1) == 0).float().mean())

# %%
seed(0)
jasper = Jasper(CHANNELS)
begun = time.process_time()
jasper, history = train_ctc(jasper, [voices["train"]], N_STEPS, N_MAX, look)
training_seconds = time.process_time() - begun
snapshots[N_STEPS], blank_share[N_STEPS] = hear(jasper, [word_sound])[0], blanks(jasper)

# %%
seed(0)
from_zero = Jasper(CHANNELS)                         # the same net, but its last weights are 0
nn.init.zeros_(from_zero.out.weight), nn.init.zeros_(from_zero.out.bias)
from_zero, _ = train_ctc(
    from_zero, [voices["train"]], N_STEPS, N_MAX, stop=42,
    watch=lambda step: step % 10 or blank_share_zero.update({step: blanks(from_zero)}))

# %%
test_sounds, refs, who = spoken_set(voices["test"], N_TEST, NOISE_TEST, 320, N_MAX)
dev_sounds, dev_refs, _ = spoken_set(voices["dev"], N_DEV, NOISE_TEST, 321, N_MAX)
quiet_sounds, quiet_refs, _ = spoken_set(voices["test"], N_TEST, 0.003, 322, N_MAX)
heard, dev_heard, quiet_heard = (hear(jasper, part)
                                 for part in (test_sounds, dev_sounds, quiet_sounds))
by_greedy, quiet_greedy = greedy_texts(heard), greedy_texts(quiet_heard)

# %%
def word_errors(texts, written):
    """Wrong words S + D + I of each utterance (the edit distance of 32, by jiwer)."""
    found = [jiwer.process_words(r, h) for r, h in zip(texts, written)]
    return np.array([o.substitutions + o.deletions + o.insertions for o in found])


def bootstrap(errors, texts, units, n_draws=2000):
    """WERs (n_draws,) of corpora drawn by units (voices), as `wer_with_interval` of 32."""
    names = sorted(set(units))
    sizes = np.array([len(t.split()) for t in texts])
    sums = np.array([[v[[u == name for u in units]].sum() for v in (errors, sizes)]
                     for name in names])
    rows = np.random.default_rng(0).integers(len(names), size=(n_draws, len(names)))
    return sums[rows, 0].sum(1) / sums[rows, 1].sum(1)

# %% tags=["nbval-ignore-output"]
units = who if DATA == "digits" else range(N_TEST)      # new voices are drawn; known ones are not
for condition, texts, written in (("quiet", quiet_refs, quiet_greedy), ("noisy", refs, by_greedy)):
    low, high = np.quantile(bootstrap(word_errors(texts, written), texts, units), [0.025, 0.975])
    print(f"{condition} test, greedy: WER {jiwer.wer(texts, written):.3f} (95 % interval {low:.3f} "
          f"to {high:.3f})")

# %% tags=["nbval-ignore-output"]
print(f"{N_STEPS} steps in {training_seconds:.0f} s of processor time")

# %%
always = max(WORDS, key=" ".join(quiet_refs).split().count)      # one word for every word
claim("greedy WER on unseen voices, quiet: below 0.2", jiwer.wer(quiet_refs, quiet_greedy),
      below=0.2,
      trivial=jiwer.wer(quiet_refs, [" ".join([always] * len(t.split())) for t in quiet_refs]))

# %% [markdown]
# **Predict.** At first the net knows nothing. Which is the easiest way to raise $p(y\mid x)$ for *all* texts
# at once? And in the end, for how many frames will it say the letter *e* of *three*, which lasts 0.2 s?

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(9.4, 2.7))
axes[0].plot(history, color="#cccccc", lw=1)
axes[0].plot(pd.Series(history).rolling(12, min_periods=1).mean(), color="#1b4f8f", ls="-")
axes[0].set(xlabel="step", ylabel="loss, nats a letter", ylim=(0, 5))
for shares, label in ((blank_share, "as PyTorch starts"),
                      (blank_share_zero, "last weights 0 at the start")):
    axes[1].plot(list(shares), list(shares.values()), label=label)
axes[1].set(xlabel="step", ylabel="frames that say blank", ylim=(0, 1.02))
axes[1].legend(loc="lower right")
plt.show()

# %%
claim("with last weights 0 at the start, blank is the likeliest symbol of nearly every frame",
      list(blank_share_zero.values())[1:], above=0.95,
      trivial=[blank_share[N_STEPS]] * (len(blank_share_zero) - 1))

# %%
def spikes(heard, texts):
    """Of best alignments: (has each pair of neighbours a blank between?, frames of each letter).

    Pairs of different letters of one word; letters without spaces.
    """
    apart, length = [], []
    for log_probs, text in zip(heard, texts):
        runs = [(v, len(list(run))) for v, run in itertools.groupby(
            ctc_align(log_probs, labels_of([text])[0][0].tolist()))]
        length += [n for v, n in runs if v > 1]
        for (a, _), (b, _), (c, _) in zip(runs, runs[1:], [*runs[2:], (0, 0)]):
            if a > 1 and (b > 1 or b == 0 and c > 1 and c != a):
                apart.append(b == 0)
    return apart, length

# %%
apart, letter_frames = spikes(quiet_heard, quiet_refs)
claim("letters follow one right behind the other: fewer than a fifth of neighbours have a blank "
      "between", np.mean(apart), below=0.2, trivial=1.0)

# %% tags=["nbval-ignore-output"]
print(f"frames of a letter: {np.mean(letter_frames):.1f}; neighbours with a blank between: "
      f"{np.mean(apart):.0%} of {len(apart)}")

# %% [markdown]
# <details><summary>Answer</summary>
#
# The blank belongs to the paths of every text: with equal probabilities it gets about half of $\gamma_t$ in
# each frame whatever is said, a letter only in the texts that have it, so the first gradients push every
# frame towards the blank. The textbook picture is that *all* frames become blank first. Ours does exactly
# that if its last weights start at 0 (dashed); with PyTorch's start some frames say a letter, often *e*,
# wherever there is speech. Then letters grow, as **spikes**: about two frames each, one right behind the
# other; the blank fills the rest of the word's sound and the silence. Nothing in (33.4) asks for a letter's
# full length; why spikes win is analysed by Zeyer et al. (2021), who prove for a simple example that a net
# which starts out *uniform* gets stuck in them.
#
# </details>
#
# Move through the training: above the symbols' probabilities on the word *three*, below
# where the beginnings stand, $\alpha_t(s)$ as shares of each frame.

# %% tags=["hide-input"]
three = labels_of(["three"])[0]


def snapshot_tables(step):
    """Probabilities (T, V) and alpha (T, 11), each frame of it scaled to sum 1, at one step."""
    log_probs = snapshots[step][:, None].double()
    log_alpha, _ = reach(log_probs, states_of_batch(three, torch.tensor([5]), 0),
                         torch.tensor([len(log_probs)]), torch.tensor([5]))
    return log_probs[:, 0].exp(), log_alpha[:, 0].softmax(1)


def draw_snapshot(axes, step):
    """The two tables as pictures, one above the other."""
    p, share = snapshot_tables(step)
    shown = [0, *three[0].unique().tolist()]
    axes[0].imshow(p[:, shown].T, cmap=GREYS, vmin=0, vmax=1, aspect="auto")
    axes[1].imshow(share.T, cmap=GREYS, vmin=0, vmax=1, aspect="auto")
    axes[0].set(title=f"step {step}", yticks=range(len(shown)),
                yticklabels=["-" if v == 0 else LETTERS[v - 1] for v in shown])
    axes[1].set(yticks=range(11), yticklabels="-t-h-r-e-e-", xlabel="frame $t$ (25 ms)",
                xticks=range(4, len(p), 5), xticklabels=range(5, len(p) + 1, 5))
    for ax in axes:
        ax.grid(False)

# %% tags=["hide-input"]
def show_snapshot(step):
    """Both tables of one step."""
    fig, axes = plt.subplots(2, 1, figsize=(6.4, 4.2), height_ratios=[1, 2], sharex=True)
    draw_snapshot(axes, step)
    plt.show()

# %% tags=["hide-input"]
steps = sorted(snapshots)
fig, axes = plt.subplots(2, 4, figsize=(10.4, 3.8), height_ratios=[1, 2], sharex=True)
for pair, step in zip(axes.T, [steps[k * (len(steps) - 1) // 3] for k in range(4)]):
    draw_snapshot(pair, step)
axes[0, 0].set_ylabel("$p_t(v)$")
axes[1, 0].set_ylabel("$\\alpha_t(s)$, shares")
plt.show()

# %% tags=["nbval-ignore-output"]
interact(show_snapshot, step=SelectionSlider(options=sorted(snapshots), description="step",
                                             **WIDE));

# %% [markdown]
# **Letters on the sound.** The best alignment (33.10) of a test utterance with its true text:

# %% tags=["hide-input"]
pick = next((k for k, t in enumerate(quiet_refs) if len(t.split()) == 3
             and quiet_greedy[k] == t), 0)
sound, text, log_probs = quiet_sounds[pick], quiet_refs[pick], quiet_heard[pick]
path = ctc_align(log_probs, labels_of([text])[0][0].tolist())
starts = [t for t, v in enumerate(path) if v and (t == 0 or path[t - 1] != v)]
fig, axes = plt.subplots(2, 1, figsize=(10, 4.4), sharex=True, height_ratios=[1.2, 1], dpi=64)
mel, (n,) = log_mel_batch([sound])
axes[0].imshow(mel[0, :n].T, origin="lower", aspect="auto", cmap=MEL_COLOURS,
               extent=(0.00975, 0.00975 + int(n) * 0.0125, 0, 40))
axes[0].set(ylabel="mel band", title=text)
time_axis = 0.025 * np.arange(len(path)) + 0.016     # middle of the frame's window
for v in range(17):
    axes[1].plot(time_axis, log_probs[:, v].exp(), "-", lw=1.4 if v else 0.9,
                 color="#bbbbbb" if v == 0 else plt.get_cmap("tab20")(v))
for t, label in zip(starts, labels_of([text])[0][0].tolist()):
    axes[1].text(time_axis[t], 1.04, LETTERS[label - 1].replace(" ", "␣"), ha="center", fontsize=11)
    axes[0].axvline(time_axis[t], color="white", lw=0.7, ls=":")
axes[1].set(xlabel="time, s", ylabel="$p_t(v)$; blank in grey", ylim=(0, 1.18))
for ax in axes:
    ax.grid(False)
plt.show()

# %% [markdown]
# Each run is a letter. Below, the sound is cut where the best alignment starts a letter, and silence is put
# between the pieces. Listen: is a piece the sound of its letter? CTC was never asked to say *when*, only
# *in which order*; with a receptive field of 1.4 s a spike may stand well before or after its sound.

# %% tags=["nbval-ignore-output", "hide-input"]
cuts = [0, *(200 * t + 128 for t in starts[1:]), len(sound)]              # 200 samples a frame
pieces = [x for a, b in zip(cuts, cuts[1:]) for x in (sound[a:b], torch.zeros(2000))]
joined = torch.cat(pieces)
play({text: sound / sound.abs().max(), "the same, cut into letters": joined / joined.abs().max()})

# %% [markdown]
# ## 11. Beam and letter model on the test voices
#
# The letter model is the interpolated one of notebook 32, (32.13), in a few lines. It learns from 3,000
# texts of the same source as the test: after a digit some others are likelier (32 says how), and after *sev*
# comes *e*. $\lambda$ and $\nu$ are chosen on the development voices.

# %%
def letter_model(texts, order=8, strength=1.0):
    """lm(prefix, label): log p of a label after a tuple of labels, interpolated as in (32.13)."""
    counts, known = {}, {}
    for text in texts:
        row = (0,) * (order - 1) + tuple(1 + LETTERS.index(c) for c in text)
        for k in range(order - 1, len(row)):
            for n in range(order):
                counts.setdefault(row[k - n:k], np.zeros(17))[row[k]] += 1

    def lm(prefix, label):
        context = ((0,) * order + prefix)[len(prefix) + 1:]
        if context not in known:
            p = np.r_[0, np.full(16, 1 / 16)]
            for n in range(order):
                seen = counts.get(context[len(context) - n:], np.zeros(17))
                p = (seen + strength * p) / (seen.sum() + strength)
            with np.errstate(divide="ignore"):
                known[context] = np.log(p)
        return known[context][label]
    return lm

# %%
g = torch.Generator().manual_seed(7)
corpus = [" ".join(WORDS[d] for d in structured(N_MAX, g)) for _ in range(3000)]
spelling = letter_model(corpus)
after_sev = [spelling(tuple(labels_of(["sev"])[0][0].tolist()), v) for v in range(1, 17)]
claim("the model is one: its probabilities sum to 1, and after sev comes e",
      [np.exp(after_sev).sum(), float(np.argmax(after_sev))], [1.0, LETTERS.index("e")], atol=1e-9)

# %%
def beam_texts(heard, beam=8, lam=0.0, bonus=0.0):
    """The best text of a prefix beam search for each utterance."""
    lm = lambda prefix, label: spelling(prefix, label) + bonus
    return [text_of(ctc_prefix_beam(log_probs, beam, lm=lm, lam=lam)[0][0])
            for log_probs in progress(heard, desc="beam")]

# %%
tried = {(lam, bonus): jiwer.wer(dev_refs, beam_texts(dev_heard, 8, lam, bonus))
         for lam in (0.3, 0.6, 1.0, 1.5) for bonus in (0.0, 0.5)}
LAM, BONUS = min(tried, key=tried.get)
hypotheses = {"greedy": by_greedy, "beam 8": beam_texts(heard),
              "beam 8, letter model": beam_texts(heard, 8, LAM, BONUS)}
wrong_words = {way: word_errors(refs, written) for way, written in hypotheses.items()}

# %% tags=["nbval-ignore-output"]
draws = {way: bootstrap(errors, refs, units) for way, errors in wrong_words.items()}
rows = {}

# %% tags=["nbval-ignore-output"]
for way, rates in draws.items():
    (low, high), (less, more) = (np.quantile(d, [0.025, 0.975]) for d in (rates, rates
                                                                        - draws["beam 8"]))
    rows[way] = {"WER": round(jiwer.wer(refs, hypotheses[way]), 3), "95 % interval":
                 f"{low:.3f} to {high:.3f}", "minus beam 8, paired": f"{less:+.3f} to {more:+.3f}"}
    measured("wer_" + way.replace(",", "").replace(" ", "_"), jiwer.wer(refs, hypotheses[way]),
             rates.std())

# %% tags=["nbval-ignore-output"]
measured("lam", LAM)
measured("bonus", BONUS)
print(f"chosen on the development voices: λ = {LAM}, ν = {BONUS}")
pd.DataFrame(rows).T

# %% tags=["nbval-ignore-output"]
better = [k for k in range(N_TEST) if hypotheses["beam 8, letter model"][k] != by_greedy[k]][:4]
play({f"said: {refs[k]} | greedy: {by_greedy[k]} | with letter model: "
      f"{hypotheses['beam 8, letter model'][k]}": test_sounds[k] / test_sounds[k].abs().max()
      for k in better or [0]})

# %% [markdown]
# **How wide must a beam be?** (33.6) gives the exact $p(y\mid x)$ of any text, so we can ask what share of it
# a beam has found for the text it calls the best.

# %%
unsure = sorted(range(N_TEST), key=lambda k: float(heard[k].amax(1).sum()))[:20]
found_share = {}
for beam in (1, 2, 4, 8, 16):
    bests = [ctc_prefix_beam(heard[k], beam)[0] for k in unsure]
    exact_log_p = [-float(ctc_loss(heard[k][:, None].double(), np.array([y], dtype=int),
                                   [len(heard[k])], [len(y)])) for k, (y, _) in zip(unsure, bests)]
    found_share[beam] = [math.exp(score - p) for (_, score), p in zip(bests, exact_log_p)]

# %%
check("33.12", "no beam finds more than (33.6) gives the text", np.max(list(found_share.values())),
      below=1 + 1e-6)
claim("where the net is unsure a beam of 16 finds more of its text's probability than a beam of 1",
      np.mean(found_share[16]) - np.mean(found_share[1]), above=0.05, trivial=0.0)

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6, 2.7))
ax.plot(list(found_share), [np.mean(s) for s in found_share.values()], "o-", label="mean")
ax.plot(list(found_share), [np.min(s) for s in found_share.values()], "s--",
        label=f"worst of {len(unsure)}")
ax.set(xlabel="beam width $K$", ylabel="found share of $p(y | x)$", xscale="log",
       xticks=list(found_share), xticklabels=list(found_share), ylim=(0, 1.03))
ax.minorticks_off()
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# **Predict.** The list below ranks texts by (33.13). What happens to misspelled words as $\lambda$ grows, and
# can a text that the beam lost come back?

# %% tags=["hide-input"]
saved = wrong_words["beam 8"] - wrong_words["beam 8, letter model"]
hard = sorted(range(N_TEST), key=lambda k: (-saved[k], k))[:6]


def draw_ranked(ax, utterance, beam, lam):
    """The best five texts of an utterance, as bars of their scores behind the best."""
    k = hard[utterance]
    ranked = ctc_prefix_beam(heard[k], beam, lm=lambda w, v: spelling(w, v) + BONUS, lam=lam)[:5]
    for place, (labels, score) in enumerate(ranked):
        ax.barh(-place, ranked[0][1] - score, color="#b9cde8", height=0.6)
        text = text_of(labels)
        ax.text(0, -place, f" {text.replace(' ', '␣')}{'  ✓' if text == refs[k] else ''}",
                va="center", fontsize=9)
    ax.set(yticks=[], xlabel="behind the best, nats",
           title=f"said: {refs[k]} (λ = {lam}, K = {beam})",
           xlim=(0, max(ranked[0][1] - ranked[-1][1], 1) * 1.1))
    ax.grid(False)

# %% tags=["hide-input"]
def show_ranked(utterance=0, beam=8, lam=0.3):
    """One list."""
    fig, ax = plt.subplots(figsize=(7.4, 2.4))
    draw_ranked(ax, utterance, beam, lam)
    plt.show()

# %% tags=["nbval-ignore-output", "hide-input"]
fig, axes = plt.subplots(3, 1, figsize=(7.4, 5.6))
for ax, lam in zip(axes, (0.0, 0.3, 2.0)):
    draw_ranked(ax, 0, 8, lam)
plt.show()

# %% tags=["nbval-ignore-output"]
interact(show_ranked, utterance=IntSlider(max=len(hard) - 1, description="utterance", **WIDE),
         beam=SelectionSlider(options=[1, 2, 4, 8, 16], value=8, description="beam K", **WIDE),
         lam=SelectionSlider(options=[0, 0.3, 1.0, 2.0, 10, 30], value=0.3,
                             description="weight λ", **WIDE));

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# Misspelled words fall first, then chains of digits that are unlikely. At $\lambda=30$ the sound hardly counts
# any more. The bonus stands inside $\lambda$ and pays for every letter: with $\nu=0.5$ long chains win. Within
# one search a dropped prefix never comes back; with another $\lambda$ the beam may keep it (the last check of
# (33.13)). With $K=1$ the list has one text.
#
# </details>

# %% [markdown]
# ## 12. ☆ Do shortcuts help? And the masks?
#
# "Because of skip connections it converges quickly", say the notes. Take 4 and 8 blocks of 32 channels,
# without any shortcut, residual, and dense; the same data and the same number of steps for all six.

# %%
digit_voices = voices_of("digits")

# %%
def depth_net(n_blocks, shortcut, seed_):
    """A narrow net of that depth, trained on single digits: (net, losses)."""
    torch.manual_seed(seed_)
    net = Jasper(32, (5,) * n_blocks, shortcut=shortcut)
    return train_ctc(net, [digit_voices["train"]], N_DEPTH, 1, seed_=seed_, stripes=False)


deep = {(n_blocks, shortcut): [depth_net(n_blocks, shortcut, s) for s in range(DEPTH_SEEDS)]
        for n_blocks in (4, 8) for shortcut in ("plain", "residual", "dense")}

# %%
def best_constant(n=64, n_steps=60):
    """Loss, nats a letter, of the best answer that is the same in every frame: no look at sound."""
    _, lengths, texts = training_batch([digit_voices["train"]], 1,
                                       torch.Generator().manual_seed(1), stripes=False, size=n)
    (targets, letters), frames = labels_of(texts), (lengths + 1) // 2
    z = torch.zeros(17, requires_grad=True)
    optimiser = torch.optim.Adam([z], 0.2)
    for _ in range(n_steps):
        log_probs = z.log_softmax(0).expand(int(frames.max()), n, 17)
        loss = (ctc_loss(log_probs, targets, frames, letters) / letters).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


deaf = best_constant()

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True)
for ax, n_blocks in zip(axes, (4, 8)):
    ax.axhline(deaf, color="#222222", lw=0.9, ls=":", label="best constant answer")
    for shortcut in ("plain", "residual", "dense"):
        curves = [pd.Series(h).rolling(max(N_DEPTH // 8, 1), min_periods=1).mean()
                  for _, h in deep[n_blocks, shortcut]]
        ax.plot(np.mean(curves, 0), label=shortcut)
    ax.set(title=f"{n_blocks} blocks", xlabel="step", yscale="log", ylim=(1, 20),
           yticks=[1, 2, 5, 10, 20],
           yticklabels=[1, 2, 5, 10, 20])
    ax.minorticks_off()
axes[0].set_ylabel("loss, nats a letter")
axes[0].legend()
plt.show()

# %%
early = {kind: np.mean([h[20:30] for _, h in deep[8, kind]]) if N_DEPTH >= 30 else math.nan
         for kind in ("plain", "residual", "dense")}
if N_DEPTH >= 30:
    claim("8 blocks, steps 20 to 30: residual is ahead of plain by more than half a nat a letter",
          early["plain"] - early["residual"], above=0.5, trivial=0.0)
if N_DEPTH == 30:           # with a longer schedule the rate is still higher at these steps
    claim("and only dense is better than the best answer that never looks at the sound",
          [deaf - early["dense"], early["plain"] - deaf, early["residual"] - deaf], above=0.2,
          trivial=[0.0] * 3)

# %% tags=["nbval-ignore-output"]
single_sounds, single_refs, _ = spoken_set(digit_voices["test"], 60, 0.003, 340, 1)

# %% tags=["nbval-ignore-output"]
for (n_blocks, shortcut), trained in deep.items():
    last = [np.mean(h[-max(N_DEPTH // 4, 1):]) for _, h in trained]
    wers = [jiwer.wer(single_refs, greedy_texts(hear(net, single_sounds))) for net, _ in trained]
    measured(f"depth_{n_blocks}_{shortcut}", np.mean(wers), np.std(wers, ddof=DEPTH_SEEDS > 1))
    n_weights = sum(map(torch.numel, trained[0][0].parameters()))
    print(f"{n_blocks} blocks, {shortcut:8}: {n_weights:7,} parameters, loss in the last "
          f"quarter {np.mean(last):.2f} nats a letter")

# %% [markdown]
# In the first thirty steps, at one learning rate for all, the nets with shortcuts are ahead, the dense one
# most (two more seeds gave the same order; the dense net also has more parameters, a 1 × 1 convolution for
# every pair of blocks). But look at the dotted line, the best answer that never looks at the sound: with 8
# blocks only the dense net is below it. So far hardly anybody reads. After 250 steps, WER on single digits of
# unseen voices, three seeds each (± deviation between seeds; one word for every sound makes 0.85):
#
# | | plain | residual | dense |
# |---|---|---|---|
# | 4 blocks | <!--full:33.depth_4_plain-->0.78 ± 0.08<!--/full--> | <!--full:33.depth_4_residual-->0.20 ± 0.09<!--/full--> | <!--full:33.depth_4_dense-->0.16 ± 0.06<!--/full--> |
# | 8 blocks | <!--full:33.depth_8_plain-->0.950<!--/full--> | <!--full:33.depth_8_residual-->0.7 ± 0.1<!--/full--> | <!--full:33.depth_8_dense-->0.13 ± 0.08<!--/full--> |
#
# At 250 steps shortcuts decide: eight plain blocks have learned nothing (worse than one fixed word), the dense
# net reads at either depth. It is also the largest; longer trainings were not compared.
#
# **Padding.** Does a batch change an answer? Compare an utterance alone, in a batch with masks, and in a batch
# where the filling counts as sound.

# %%
@torch.no_grad()
def in_batch(net, sounds, masked):
    """Log-probabilities of one batch; without masks every row counts as long as the longest."""
    x, lengths = (part.to(device) for part in log_mel_batch(sounds))
    told = lengths if masked else torch.full_like(lengths, x.shape[1])
    log_probs, _ = net(x, told)
    return [log_probs[:(n + 1) // 2, b].cpu() for b, n in enumerate(lengths.tolist())]

# %%
by_length = sorted(quiet_sounds, key=len)
mixed = [by_length[k] for k in (*range(8), -1)]                 # eight short ones and the longest
alone = [hear(jasper, [x])[0] for x in mixed]
with_masks, without = (in_batch(jasper, mixed, masked) for masked in (True, False))
worst_of = lambda found: max(float((a.exp() - b.exp()).abs().max()) for a, b in zip(found, alone))

# %%
claim("with masks, the company of others changes no probability", worst_of(with_masks), 0.0,
      atol=1e-3)
claim("without masks some probability changes by more than 0.01", worst_of(without), above=0.01,
      trivial=worst_of(with_masks))

# %% tags=["nbval-ignore-output"]
print(f"largest change of a probability: {worst_of(with_masks):.1e} with masks, "
      f"{worst_of(without):.2f} without; texts changed: "
      f"{sum(a != b for a, b in zip(greedy_texts(without), greedy_texts(alone)))} of {len(mixed)}")

# %% [markdown]
# **Augmentation.** Error on unseen voices with each kind switched off (bundled voices,
# <!--full:33.ablate_steps-->250<!--/full--> steps each, one seed): all three <!--full:33.ablate_all-->0.06 ± 0.03<!--/full-->; without SpecAugment
# <!--full:33.ablate_stripes-->0.05 ± 0.02<!--/full-->; without other speeds <!--full:33.ablate_speed-->0.08 ± 0.03<!--/full-->;
# without noise <!--full:33.ablate_noise-->0.47 ± 0.07<!--/full-->; without any
# <!--full:33.ablate_none-->0.39 ± 0.07<!--/full-->. Without noise even the pauses are digital silence, which no test recording has, and the
# test is twice as noisy as any training: this says that training must contain noise, not how much.

# %%
def ablated(**switched_off):
    """Greedy texts of a net trained without some augmentation, on the noisy test voices."""
    torch.manual_seed(0)
    net, _ = train_ctc(Jasper(64), [digit_voices["train"]], N_ABLATE, 3, **switched_off)
    sounds, texts, voices_ = spoken_set(digit_voices["test"], 200, NOISE_TEST, 322, 3)
    return texts, greedy_texts(hear(net, sounds)), voices_

# %%
off = {"all": {}, "stripes": {"stripes": False}, "speed": {"speed": 0.0}, "noise": {"noise": 0.0},
       "none": {"stripes": False, "speed": 0.0, "noise": 0.0}}
for name, switched_off in off.items() if N_ABLATE else ():
    texts, written, voices_ = ablated(**switched_off)
    measured(f"ablate_{name}", jiwer.wer(texts, written),
             bootstrap(word_errors(texts, written), texts, voices_).std())
    measured("ablate_steps", N_ABLATE) if name == "all" else None

# %% [markdown]
# ## 13. ☆ Against attention, and real voices
#
# The net of notebook 32 (a pyramid of BiLSTMs and a speller) has 786,450 parameters by default, this one
# 264,017. Both learned from the same bundled voices; which learns faster or errs less there, a few seeds cannot
# say. And **longer** utterances than any in training? The attention net writes three or four words of eight
# ([32, section 11](32_asr_las.ipynb)). The same utterances here:

# %%
def drill(n_digits, n=20, seed=50):
    """n quiet test utterances of n_digits random digits, as in 32: (sounds, texts, voices)."""
    generator, names = torch.Generator().manual_seed(seed + n_digits), sorted(voices["test"])
    digits = [torch.randint(10, (n_digits,), generator=generator).tolist() for _ in range(n)]
    sounds = [say(voices["test"][names[k % len(names)]], row, generator)
              for k, row in enumerate(digits)]
    return sounds, [" ".join(WORDS[d] for d in row) for row in digits], [
        names[k % len(names)] for k in range(n)]


drilled = {n: drill(n) for n in range(1, max(8, N_MAX + 3) + 1)}
drill_draws = {n: bootstrap(word_errors(texts, greedy_texts(hear(jasper, sounds))), texts, names)
               for n, (sounds, texts, names) in drilled.items()}

# %%
longest = max(drilled)
four_words = [" ".join(t.split()[:4]) for t in drilled[longest][1]]       # at best; 32's net errs
claim(f"{longest} digits, where the training had {N_MAX}: WER below 0.2",
      drill_draws[longest].mean(), below=0.2, trivial=jiwer.wer(drilled[longest][1], four_words))

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6.4, 2.8))
middle = [np.mean(d) for d in drill_draws.values()]
low, high = np.quantile(list(drill_draws.values()), [0.025, 0.975], axis=1)
ax.fill_between(list(drilled), low, high, color="#b9cde8", alpha=0.6, label="95 %, voices drawn")
ax.plot(list(drilled), middle, "o-", label="CTC, greedy")
ax.plot(list(drilled), [max(0, 1 - 4 / n) for n in drilled], "s--",
        label="bound: a perfect speller of four words")
ax.axvline(N_MAX + 0.5, color="#222222", lw=0.8, ls=":")
ax.set(xlabel="digits in the utterance", ylabel="greedy WER, quiet", ylim=(0, 1))
ax.legend(loc="upper left")
plt.show()

# %% [markdown]
# Apart from the mean and scale of the utterance, each frame is answered from 1.4 s around it, and nothing
# counts words: a longer utterance is more of the same.
#
# **Real voices** (`make full NB=33`): the splits of 32's full run. (a) the official split of FSDD, known
# speakers, the very sequences of 32; (b) three trainings that each leave two speakers out.

# %%
stored = pd.read_csv(data.DATA / "asr_hypotheses.csv", keep_default_na=False)
las = {way: stored[(stored.setting == "known") & (stored.system == way)]
       for way in ("greedy", "beam 8", "beam 8, fusion")}
if DATA == "fsdd":
    claim("the test sequences are those of notebook 32", refs == las["greedy"].reference.tolist())
    for ours, theirs in (("greedy", "greedy"), ("beam 8, letter model", "beam 8, fusion")):
        las_errors = word_errors(refs, las[theirs].hypothesis.tolist())
        gap = bootstrap(wrong_words[ours], refs, units) - bootstrap(las_errors, refs, units)
        measured("minus_las_" + theirs.split()[-1], (wrong_words[ours] - las_errors).sum()
                 / sum(len(t.split()) for t in refs), gap.std())
    singles, single_texts, _ = spoken_set(voices["test"], 300, NOISE_TEST, 340, 1)
    measured("single_accuracy", 1 - jiwer.wer(single_texts, greedy_texts(hear(jasper, singles))))
    measured("training_seconds", training_seconds)
    measured("relative_gain", 100 * (1 - jiwer.wer(refs, hypotheses["beam 8, letter model"])
                                     / max(jiwer.wer(refs, by_greedy), 1e-9)))

# %%
def unseen_speakers(pair):
    """{speaker: (texts, greedy texts)} of a net that never heard the two speakers."""
    everybody = data.sounds("fsdd")
    takes = {name: {} for name in sorted(set(everybody.speaker))}
    for x, word, name, take in zip(everybody.sound, everybody.text, everybody.speaker,
                                   everybody.take):
        if name in pair or take >= 5:
            takes[name].setdefault(WORDS.index(word), []).append(x)
    torch.manual_seed(0)
    others = {name: rows for name, rows in takes.items() if name not in pair}
    pools = [others] + EXTRA_VOICES * [digit_voices["train"]]          # every second utterance
    net, _ = train_ctc(Jasper(CHANNELS), pools, N_UNSEEN, N_MAX, bands=MEL_SHIFT)
    sets = {name: spoken_set({name: takes[name]}, N_TEST // 6, NOISE_TEST, 330, N_MAX)
            for name in pair}
    return {name: (texts, greedy_texts(hear(net, sounds)))
            for name, (sounds, texts, _) in sets.items()}

# %%
pairs_out = [("george", "jackson"), ("lucas", "nicolas"), ("theo", "yweweler")]
strangers = {}
for pair in pairs_out if N_UNSEEN else ():
    strangers |= unseen_speakers(pair)
for name, (texts, written) in strangers.items():
    measured(f"unseen_{name}", jiwer.wer(texts, written),
             bootstrap(word_errors(texts, written), texts, range(len(texts))).std())

# %%
if strangers:
    of_speaker = np.array([jiwer.wer(*found) for found in strangers.values()])
    measured("unseen_mean", of_speaker.mean())
    measured("unseen_spread", of_speaker.std(ddof=1))

# %% [markdown]
# Measured (WER ± standard error, utterances drawn):
#
# | | CTC and Jasper | LAS of 32 |
# |---|---|---|
# | (a) greedy | <!--full:33.wer_greedy-->0.007 ± 0.003<!--/full--> | <!--full:32.wer_greedy-->0.033 ± 0.006<!--/full--> |
# | (a) beam 8 | <!--full:33.wer_beam_8-->0.007 ± 0.003<!--/full--> | <!--full:32.wer_beam_8-->0.032 ± 0.006<!--/full--> |
# | (a) beam 8 with letter model | <!--full:33.wer_beam_8_letter_model-->0.002 ± 0.002<!--/full--> | <!--full:32.wer_beam_8_fusion-->0.016 ± 0.005<!--/full--> |
# | (a) CTC minus LAS, paired: greedy; with letter model | <!--full:33.minus_las_greedy-->-0.026 ± 0.005<!--/full-->; <!--full:33.minus_las_fusion-->-0.014 ± 0.004<!--/full--> | |
# | (a) sequences of one digit | accuracy <!--full:33.single_accuracy-->0.990<!--/full--> | WER <!--full:32.single_wer-->0.06 ± 0.01<!--/full--> |
# | (b) george, jackson: unseen | <!--full:33.unseen_george-->0.29 ± 0.04<!--/full-->, <!--full:33.unseen_jackson-->0.19 ± 0.04<!--/full--> | <!--full:32.unseen_george-->0.31 ± 0.04<!--/full-->, <!--full:32.unseen_jackson-->0.10 ± 0.02<!--/full--> |
# | (b) lucas, nicolas: unseen | <!--full:33.unseen_lucas-->0.27 ± 0.05<!--/full-->, <!--full:33.unseen_nicolas-->0.43 ± 0.04<!--/full--> | <!--full:32.unseen_lucas-->0.33 ± 0.05<!--/full-->, <!--full:32.unseen_nicolas-->0.38 ± 0.04<!--/full--> |
# | (b) theo, yweweler: unseen | <!--full:33.unseen_theo-->0.24 ± 0.04<!--/full-->, <!--full:33.unseen_yweweler-->0.24 ± 0.03<!--/full--> | <!--full:32.unseen_theo-->0.10 ± 0.02<!--/full-->, <!--full:32.unseen_yweweler-->0.17 ± 0.03<!--/full--> |
# | (b) mean of six; deviation between speakers | <!--full:33.unseen_mean-->0.278<!--/full-->; <!--full:33.unseen_spread-->0.0826<!--/full--> | <!--full:32.unseen_mean-->0.230<!--/full-->; <!--full:32.unseen_spread-->0.125<!--/full--> |
#
# Both nets learned from the same recordings, but not with the same augmentation, steps or search for
# settings; a difference says which *page* does better, not which idea: CTC on the voices it knows, but not on
# strangers (the means of six differ by less than one speaker from another). Published, on other data
# (LibriSpeech test-clean): Jasper DR 10 × 5 makes a WER of 3.86 % greedily, 2.95 % with a beam and a language
# model, a relative gain of 24 %, and 2.84 % with time and frequency masks besides (Li et al. 2019). Our
# relative gain is <!--full:33.relative_gain-->66.67<!--/full--> %, but of a handful of wrong words.

# %% [markdown]
# ## Where the notes slip
#
# | | the notes | right |
# |---|---|---|
# | E62 | "epsilon tokens are used to find spaces / silence"; "delete the epsilon tokens and join the sentence" | the blank means "nothing new is said" and keeps equal letters apart; the space is an ordinary letter; **merge first**, then delete: `hhe-l-lloo` is *hello*, deleted first *helo* (33.1) |
# | | "because of skip connections it converges quickly" | a statement about depth, steps and data: section 12 measures it |
#
# ## What it costs
#
# | what | operations | one after the other |
# |---|---|---|
# | forward and backward (33.6), (33.7) | $O(T\,U)$ an utterance, and $O(TV)$ for the gradient | $T$ |
# | greedy (33.11) | $O(TV)$ | – |
# | prefix beam (33.12) | $O(TKV\log KV)$ with sorting; prefixes as tuples, copied: $O(TKVU)$ more | $T$ |
# | 1-D convolution, $C$ channels | $kC^2T$ multiplications | 1 |
# | 2-D convolution, $c$ channels on 40 bands, $k\times k$ | $40k^2c^2T$ | 1 |
# | LSTM with $C$ units | $8C^2T$ | $T$ |

# %%
g = torch.Generator().manual_seed(8)
speed_logits = torch.randn(200, 32, 30, generator=g).log_softmax(2)
speed_batch = (torch.randint(1, 30, (32, 20), generator=g), torch.full((32,), 200),
               torch.full((32,), 20))

# %%
def with_gradient(loss_of):
    """A function that runs a loss forwards and backwards on the batch of 32."""
    def run():
        x = speed_logits.clone().requires_grad_()
        loss_of(x, *speed_batch).sum().backward()
    return run


def by_loops(x, targets, frames, letters):
    """The double loop of (33.6) on one of the 32 utterances, forwards only."""
    return sum(forward_table(x[:, 0].detach().double(), targets[0].tolist())[-1, -2:]) + 0 * x.sum()

# %% tags=["nbval-ignore-output"]
speed = compare_speed({"F.ctc_loss (C++)": with_gradient(
    lambda *a: F.ctc_loss(*a, reduction="none")), "ctc_loss": with_gradient(ctc_loss),
    "loops": with_gradient(by_loops)}, repeats=9)
speed.loc["loops, 32 times one utterance, no gradient"] = 32 * speed.loc["loops"]
speed = speed.drop(index="loops")
print(f"{'at most' if speed.iloc[1, 1] <= 3 else 'more than'} 3 times the C++ loop")
speed

# %%
def cpu(f):
    """The least processor time of seven runs of f(), in seconds."""
    times = []
    for _ in range(7):
        begun = time.process_time()
        f()
        times.append(time.process_time() - begun)
    return min(times)


x_1d, x_2d = torch.randn(1, 64, 400), torch.randn(1, 8, 40, 400)
layers = {"1-D convolution, 64 channels, k = 9": (nn.Conv1d(64, 64, 9, padding=4), x_1d),
          "2-D convolution, 8 channels, 23 × 25": (nn.Conv2d(8, 8, (23, 25), padding="same"), x_2d),
          "LSTM, 68 units": (nn.LSTM(64, 68, batch_first=True), x_1d.mT)}

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    table = pd.DataFrame({name: {"parameters": sum(map(torch.numel, net.parameters())),
                                 "ms for 400 frames": round(1e3 * cpu(lambda: net(x)), 2)}
                          for name, (net, x) in layers.items()}).T
    minute = torch.cat(test_sounds * 20)[:8000 * 60]
    real_time = cpu(lambda: greedy_texts(hear(jasper, [minute]))) / 60
print(f"greedy decoding of a minute of sound, log-mel included: {real_time:.4f} of real time")

# %% tags=["nbval-ignore-output"]
table

# %% [markdown]
# About equal numbers of parameters, on one core: a 2-D kernel is used again at every band and so multiplies
# far more; the LSTM must take its 400 steps one after the other, which a machine with many cores cannot
# hurry.
#
# ## Break it
#
# Every ✓ of this page is worth what it would notice. Choose a function and one change in it; the function and
# what depends on it are rebuilt in a copy, and the checks that it reaches run again.

# %% tags=["nbval-ignore-output"]
break_it()

# %% [markdown]
# ## Exam

# %% [markdown] tags=["exam"]
# ### Question 41 · What is the role of the CTC blank? Give two alignments of "hello" and one string that collapses to "helo".
#
# **По-русски.** Какова роль пустого символа (blank) в CTC? Приведите два выравнивания слова «hello» и одну
# последовательность символов, которая схлопывается в «helo».
#
# <details><summary>Model answer</summary>
#
# The network names one symbol in each of $T$ frames, a letter or the blank $\varnothing$ (written `-`). Such a
# row $\pi=(\pi_1,\dots,\pi_T)$ is a path (alignment). The collapse $\mathcal B$ makes a text of it: **first**
# equal neighbours are merged, **then** blanks are deleted,
# $\mathcal B(\pi)=(\pi_t:\pi_t\ne\pi_{t-1},\ \pi_t\ne\varnothing)$, where $\pi_0$ differs from every symbol.
#
# The blank has two roles. (1) It says "nothing new here": in pauses, but also inside a letter's sound, so that
# no letter need be named where the net is unsure, and the $U$ letters need not fill all $T$ frames. (2) It
# **separates equal letters**: without it `ll` always merges to *l*, and no path would give *hello*. So a text
# with $R$ pairs of equal neighbours needs $T\ge U+R$ frames. The blank is not the space and not silence: the
# space is an ordinary letter of the alphabet.
#
# Two alignments of *hello* ($U=5$, $R=1$, at least 6 frames): `hel-lo` and `hhe-l-lloo` (merged `he-l-lo`,
# then blanks deleted). A string that collapses to *helo*: `hheelllo` (or `h-el-o`): between the two *l* of
# *hello* there is no blank.
#
# **Ответ по-русски.** В каждом из $T$ кадров сеть называет один символ: букву или пустой символ $\varnothing$
# (пишем `-`). Такая последовательность $\pi=(\pi_1,\dots,\pi_T)$ называется путём (выравниванием).
# Отображение $\mathcal B$ превращает путь в текст: **сначала** склеиваются соседние одинаковые символы,
# **затем** удаляются пустые: $\mathcal B(\pi)=(\pi_t:\pi_t\ne\pi_{t-1},\ \pi_t\ne\varnothing)$, где $\pi_0$
# не совпадает ни с одним символом. У пустого символа две роли. (1) Он означает «ничего нового»: и в паузе, и
# внутри звучания буквы, когда сеть не уверена; поэтому сеть не обязана называть букву в каждом кадре, и $U$
# букв могут занимать не все $T$ кадров. (2) Он **разделяет одинаковые буквы**: без него `ll` всегда
# склеивается в одну *l*, и слово *hello* не получится ни из одного пути. Поэтому тексту, в котором $R$ пар
# одинаковых соседних букв, нужно $T\ge U+R$ кадров. Пустой символ — не пробел и не тишина: пробел — обычная
# буква алфавита. Два выравнивания слова *hello* ($U=5$, $R=1$, не менее 6 кадров): `hel-lo` и `hhe-l-lloo`
# (после склейки `he-l-lo`, после удаления пустых *hello*). В *helo* схлопывается, например, `hheelllo` или
# `h-el-o`: между двумя *l* нет пустого символа.
#
# **Typical mistake.** Deleting blanks before merging (`hhe-l-lloo` would become *helo*); calling the blank a
# space.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 42 · For T = 3 frames and the letters a, b with p(blank, a, b) = (.5, .3, .2), (.2, .6, .2), (.6, .3, .1) enumerate all paths of the text "a" and compute p(a); compare with the forward recursion.
#
# **По-русски.** Для $T=3$ и алфавита из двух букв с вероятностями $p_t(\varnothing,a,b)$, равными
# $(0{,}5;\,0{,}3;\,0{,}2)$, $(0{,}2;\,0{,}6;\,0{,}2)$, $(0{,}6;\,0{,}3;\,0{,}1)$, перечислите все пути из
# $\mathcal B^{-1}(a)$ и вычислите $p(a)$; сравните с прямой рекурсией.
#
# <details><summary>Model answer</summary>
#
# The three numbers of frame $t=1,2,3$ are $p_t(\varnothing),p_t(a),p_t(b)$. $\mathcal B$ merges equal
# neighbours, then deletes blanks. $p(y)=\sum_{\pi\in\mathcal B^{-1}(y)}\prod_tp_t(\pi_t)$, frames being
# conditionally independent. Paths of *a*: one run of *a*, blanks before and behind;
# $\binom{T+U-R}{2U}=\binom{3+1-0}{2}=6$ of them ($U=1$ letter, $R=0$ repeats):
#
# | path | product | | path | product |
# |---|---|---|---|---|
# | `aaa` | .3 · .6 · .3 = .054 | | `-aa` | .5 · .6 · .3 = .090 |
# | `aa-` | .3 · .6 · .6 = .108 | | `-a-` | .5 · .6 · .6 = .180 |
# | `a--` | .3 · .2 · .6 = .036 | | `--a` | .5 · .2 · .3 = .030 |
#
# (`a-a` is not among them: it gives *aa*.) The sum is $p(a)=.498$.
#
# **Forward recursion.** States $\ell=(\varnothing,a,\varnothing)$, $s=0,1,2$; $\alpha_t(s)$ is the probability
# of all beginnings that stand in state $s$ at frame $t$:
# $$\alpha_t(s)=\big(\alpha_{t-1}(s)+\alpha_{t-1}(s-1)+[\ell_s\ne\varnothing,\ \ell_s\ne\ell_{s-2}]\,\alpha_{t-1}(s-2)\big)\,p_t(\ell_s),$$
# $\alpha_1(0)=p_1(\varnothing)$, $\alpha_1(1)=p_1(a)$, $\alpha_1(2)=0$; here no skip is possible.
#
# | $t$ | $\alpha_t(0)$, blank | $\alpha_t(1)$, a | $\alpha_t(2)$, blank |
# |---|---|---|---|
# | 1 | .5 | .3 | 0 |
# | 2 | .5 · .2 = .1 | (.3 + .5) · .6 = .48 | (0 + .3) · .2 = .06 |
# | 3 | .1 · .6 = .06 | (.48 + .1) · .3 = .174 | (.06 + .48) · .6 = .324 |
#
# A path ends in the letter or in the blank behind it: $p(a)=\alpha_3(1)+\alpha_3(2)=.174+.324=.498$, the same.
# Enumeration looks at $3^3=27$ paths (symbols to the power of frames) and grows exponentially; the recursion
# needs $T(2U+1)=9$ numbers.
#
# **Ответ по-русски.** $\mathcal B$ склеивает соседние одинаковые символы, затем удаляет пустые;
# $p(y)=\sum_{\pi\in\mathcal B^{-1}(y)}\prod_tp_t(\pi_t)$ (кадры условно независимы). Путей, дающих *a*,
# $\binom{T+U-R}{2U}=\binom{3+1-0}{2}=6$ ($U=1$ буква, $R=0$ повторов): `aaa` 0,3 · 0,6 · 0,3 = 0,054; `aa-`
# 0,3 · 0,6 · 0,6 = 0,108; `a--` 0,3 · 0,2 · 0,6 = 0,036; `-aa` 0,5 · 0,6 · 0,3 = 0,090; `-a-`
# 0,5 · 0,6 · 0,6 = 0,180; `--a` 0,5 · 0,2 · 0,3 = 0,030. (Путь `a-a` даёт *aa* и сюда не входит.) Сумма
# $p(a)=0{,}498$. *Прямая рекурсия.* Состояния $\ell=(\varnothing,a,\varnothing)$, $s=0,1,2$;
# $\alpha_t(s)$ — суммарная вероятность всех начал путей, которые в кадре $t$ находятся в состоянии $s$:
# $$\alpha_t(s)=\big(\alpha_{t-1}(s)+\alpha_{t-1}(s-1)+[\ell_s\ne\varnothing,\ \ell_s\ne\ell_{s-2}]\,\alpha_{t-1}(s-2)\big)p_t(\ell_s),$$
# $\alpha_1(0)=p_1(\varnothing)$, $\alpha_1(1)=p_1(a)$, $\alpha_1(2)=0$; перескок через состояние здесь
# невозможен. $\alpha_1=(0{,}5;\ 0{,}3;\ 0)$;
# $\alpha_2=(0{,}5\cdot0{,}2;\ (0{,}3+0{,}5)\cdot0{,}6;\ (0+0{,}3)\cdot0{,}2)=(0{,}1;\ 0{,}48;\ 0{,}06)$;
# $\alpha_3=(0{,}1\cdot0{,}6;\ (0{,}48+0{,}1)\cdot0{,}3;\ (0{,}06+0{,}48)\cdot0{,}6)$, то есть
# $(0{,}06;\ 0{,}174;\ 0{,}324)$. Путь оканчивается либо буквой, либо пустым символом после неё:
# $p(a)=\alpha_3(1)+\alpha_3(2)=0{,}174+0{,}324=0{,}498$ — то же самое. Полный перебор рассматривает $3^3=27$
# путей (число символов в степени числа кадров), и это число растёт экспоненциально; рекурсии достаточно
# $T(2U+1)=9$ чисел.
#
# **Typical mistake.** Counting `a-a`; reading $p(a)$ from the last state alone.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 43 · Why is the most probable CTC path not always the most probable text?
#
# **По-русски.** Почему наиболее вероятный путь CTC не всегда даёт наиболее вероятный текст?
#
# <details><summary>Model answer</summary>
#
# A path $\pi$ names a symbol in each of $T$ frames; the collapse $\mathcal B$ (merge equal neighbours, then
# delete blanks $\varnothing$) makes a text of it, and many paths make the same one. With $p_t(v)$ the
# probability of symbol $v$ in frame $t$,
# $$p(\pi\mid x)=\prod_{t=1}^Tp_t(\pi_t),\qquad p(y\mid x)=\sum_{\pi\in\mathcal B^{-1}(y)}p(\pi\mid x).$$
# Greedy decoding finds the best path, $\hat\pi_t=\arg\max_vp_t(v)$ in each frame, and answers
# $\mathcal B(\hat\pi)$. The best text is $\arg\max_y$ of a **sum**; a text with many middling paths may beat
# the text of the single best path.
#
# **Example.** $T=2$, $p_t(\varnothing)=.6$, $p_t(a)=.4$ in both frames. The best path is `--` with
# $.6\cdot.6=.36$, so greedy decoding gives the empty text, which has no other path: $p(\text{empty})=.36$. The
# text *a* has three paths, `a-`, `-a` and `aa`: $p(a)=.4\cdot.6+.6\cdot.4+.4\cdot.4=.24+.24+.16=.64>.36$.
#
# **What to do.** Prefix beam search adds the paths of a text while it walks: for each kept prefix it carries
# $p^{\varnothing}_t(w)$, the probability of its paths that end in blank, and $p^{\bullet}_t(w)$, of those that
# end in its last letter,
# $p^{\varnothing}_t(w)=p_t(\varnothing)\,(p^{\varnothing}_{t-1}(w)+p^{\bullet}_{t-1}(w))$ and, for a prefix
# $w=w'v$ with last letter $v$,
# $$p^{\bullet}_t(w'v)=p_t(v)\big(p^{\bullet}_{t-1}(w'v)+p^{\varnothing}_{t-1}(w')+[w'\text{ does not end in }v]\,p^{\bullet}_{t-1}(w')\big),$$
# starting with $p^{\varnothing}_0=1$ for the empty prefix and 0 for all else, and keeps the $K$ most probable
# prefixes; it is exact if nothing is dropped. A language model can be added inside. Greedy is surely right if
# its path has more than half of the mass.
#
# **Ответ по-русски.** Путь $\pi$ называет по символу в каждом из $T$ кадров; отображение $\mathcal B$
# (склеить соседние одинаковые символы, затем удалить пустые $\varnothing$) превращает его в текст, причём
# один и тот же текст получается из многих путей. Если $p_t(v)$ — вероятность символа $v$ в кадре $t$, то
# $p(\pi\mid x)=\prod_{t=1}^Tp_t(\pi_t)$, а $p(y\mid x)=\sum_{\pi\in\mathcal B^{-1}(y)}p(\pi\mid x)$. Жадное
# декодирование находит лучший путь, $\hat\pi_t=\arg\max_vp_t(v)$ в каждом кадре, и возвращает
# $\mathcal B(\hat\pi)$. Лучший же текст — аргумент максимума *суммы*: текст со многими путями средней
# вероятности может обогнать текст, полученный из самого вероятного пути. *Пример.* $T=2$, в обоих кадрах
# $p_t(\varnothing)=0{,}6$, $p_t(a)=0{,}4$. Лучший путь `--` имеет вероятность $0{,}6\cdot0{,}6=0{,}36$:
# жадный ответ — пустой текст, и других путей у него нет. У текста *a* три пути, `a-`, `-a`, `aa`:
# $p(a)=0{,}4\cdot0{,}6+0{,}6\cdot0{,}4+0{,}4\cdot0{,}4=0{,}24+0{,}24+0{,}16=0{,}64>0{,}36$. *Что делать.*
# Префиксный лучевой поиск складывает вероятности путей одного текста, продвигаясь по кадрам: для каждого из $K$
# лучших префиксов хранятся $p^{\varnothing}_t(w)$ — вероятность путей префикса $w$, оканчивающихся пустым
# символом, — и $p^{\bullet}_t(w)$ — вероятность путей, оканчивающихся его последней буквой:
# $p^{\varnothing}_t(w)=p_t(\varnothing)\,(p^{\varnothing}_{t-1}(w)+p^{\bullet}_{t-1}(w))$, а для префикса
# $w=w'v$ с последней буквой $v$
# $$p^{\bullet}_t(w'v)=p_t(v)\big(p^{\bullet}_{t-1}(w'v)+p^{\varnothing}_{t-1}(w')+[w'\text{ не оканчивается на }v]\,p^{\bullet}_{t-1}(w')\big).$$
# В начале $p^{\varnothing}_0=1$ для пустого префикса, остальное равно 0. Если ничего не отброшено, поиск точен;
# внутрь можно добавить языковую модель. Жадный ответ заведомо верен, если на лучший путь приходится больше
# половины вероятности.
#
# **Typical mistake.** "Because of the independence of frames" (it is what makes greedy find the best *path*);
# an example in which the frames' probabilities do not sum to 1.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# - A path names a symbol a frame; merge, then delete blanks (33.1). A text fits if $U+R\le T$ (33.2) and has
#   $\binom{T+U-R}{2U}$ paths (33.3); its probability is their sum (33.4), which cannot tie letters together
#   (33.5).
# - Forward and backward recursion need $T(2U+1)$ numbers (33.6), (33.7); they give the posterior (33.8), and
#   the gradient is softmax minus posterior (33.9), without autograd; in logarithms, or 400 frames underflow.
# - The same recursion with a maximum is the best alignment (33.10).
# - Greedy finds the best path (33.11), not the best text; a prefix beam sums paths (33.12), a letter model
#   steers it (33.13).
# - Jasper is 1-D convolutions over time: length (33.14), receptive field (33.15), blocks with residual or
#   dense shortcuts (33.16); with masks a batch never changes an answer.
#
# **References**
#
# - A. Graves, S. Fernández, F. Gomez, J. Schmidhuber, [Connectionist temporal
#   classification](https://doi.org/10.1145/1143844.1143891), ICML 2006.
# - J. Li et al., [Jasper: an end-to-end convolutional neural acoustic
#   model](https://arxiv.org/abs/1904.03288), Interspeech 2019.
# - A. Y. Hannun, A. L. Maas, D. Jurafsky, A. Y. Ng, [First-pass large vocabulary continuous speech recognition
#   using bi-directional recurrent DNNs](https://arxiv.org/abs/1408.2873), 2014: prefix beam search.
# - A. Hannun, [Sequence modeling with CTC](https://distill.pub/2017/ctc/), Distill, 2017.
# - A. Zeyer, R. Schlüter, H. Ney, [Why does CTC result in peaky
#   behavior?](https://arxiv.org/abs/2105.14849), 2021.
# - D. S. Park et al., [SpecAugment](https://arxiv.org/abs/1904.08779), Interspeech 2019.
# - W. Chan, N. Jaitly, Q. V. Le, O. Vinyals, [Listen, Attend and Spell](https://arxiv.org/abs/1508.01211),
#   ICASSP 2016.
# - Z. Jackson and others,
#   [Free Spoken Digit Dataset](https://github.com/Jakobovski/free-spoken-digit-dataset), 2018.
#
# <!-- navigation -->
# previous: [32 Speech to text](32_asr_las.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [41 Ranking metrics](41_ranking_metrics.ipynb)
# <!-- /navigation -->
