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
# # 22 · Seq2seq and attention: a sequence in, another out
#
# "2341", genitive: «двух тысяч трёхсот сорока одного». Seven characters go in, six words come out, every digit
# becomes a word whose form depends on the case letter far to its left. No rule is written down here: a small
# network learns it from pairs, and you will see which digit it reads while it says each word.
#
# **You will be able to**
#
# - write the probability of a whole output sequence, train it with teacher forcing, and say what that hides;
# - derive additive attention, its parameter count and its gradient, and read its alignment matrix;
# - decode greedily and with a beam, and tell a search error from a model error;
# - replace recurrence by gated convolutions and compute how far they see.
#
# **Prerequisites**: softmax, cross-entropy, what a recurrent layer does. How the pages work:
# [00 start here](00_start_here.ipynb). The same machine listening to speech:
# [32 Listen, Attend and Spell](32_asr_las.ipynb).
#
# **Reading** 70 min + exercises 55 min · **Time** 45 s on 2 CPU cores · **Memory** 0.7 GB · **Data** numerals and dates written by num2words and Babel, nothing to download · **Exam questions** 49, 50
#
# **Exam route** question 49 → sections 2, 3 (25 min) · question 50 → section 7 (15 min)
#
# <details><summary>Notation</summary>
#
# | symbol | in code | shape or meaning |
# |---|---|---|
# | $x_j$; $S$ | `source`; `S` | token at position $j$ of the source; its length |
# | $y_t$; $T$ | `target`; `T` | token $t$ of the output; longest length that is looked at |
# | $h_j$ | `keys` | state of the encoder at position $j$, $(d_k)$ |
# | $s_t$ | `state` | state of the decoder after $y_t$ has been said, $(d_q)$ |
# | $e_{tj}$; $\alpha_{tj}$ | `scores`; `weights` | score; attention weight of position $j$ for word $t$ |
# | $c_t$ | `context` | weighted mean of the $h_j$, $(d_k)$ |
# | $W,\ U,\ v$ | `W`, `U`, `v` | weights of additive attention |
# | $d_q,\ d_k,\ d_a$ | `d_query`, `d_key`, `d_attn` | sizes of query, key, hidden layer of the scores |
# | $\gamma$ | `length_penalty` | exponent of the length penalty |
# | $A;\ G$ | `linear`; `gate` | halves of a gated convolution: what is said, what opens |
# | $\sigma;\ \odot$ | `sigmoid` | logistic function; product element by element |
# | $k_l,\ d_l,\ r_l$ | `kernels`, `dilations`, `strides` | kernel size, dilation, stride of layer $l$ |
# | $R$ | `receptive_field` | input positions that one output depends on |
#
# </details>
#
# <!-- navigation -->
# previous: [21 Sequence labelling](21_sequence_labelling.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [31 Sound features](31_sound_features.ipynb)
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
import datetime
import itertools
import math
import os
import random
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from babel.dates import format_date
from ipywidgets import Dropdown, FloatSlider, IntSlider, Text, fixed, interact
from num2words import num2words
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers import measured

PAGE = "22"

# %% tags=["parameters", "hide-input"]
DIGITS = 6          # longest number in training
NUMBERS = 2_400     # different numbers; each is spelled in six ways
HELD_OUT = 400      # of them, never seen in training
STEPS = 400         # training steps of 64 pairs
HIDDEN = 64         # width of encoder and decoder
DATES = 2_000       # different days, each in 15 formats
DATE_STEPS = 150    # training steps on dates
CONV_STEPS = 90    # training steps of the three encoders of section 8
REPEATS = 5         # repetitions of each timing

# %% [markdown]
# ## 1. The idea: read, then say it word by word
#
# How would you say "2341" in the genitive? You do not memorise the number and then recite. You look at the 2,
# note
# "genitive", say «двух»; look at its place, say «тысяч»; look at the 3 … A sequence-to-sequence network does
# the same. An **encoder** turns each character into a vector $h_j$ that knows its neighbours. A **decoder**
# keeps a
# state $s$; before each word it compares its state with all $h_j$, takes a weighted mean $c$ of them
# (**attention**), and says the next word. What it has said is its next input.

# %% tags=["hide-input"]
scheme(
    {
        "x": (0, 0, "source\n$g\\ 2\\ 3\\ 4\\ 1$", "round"),
        "enc": (0, 1, "encoder:\nGRU both ways"),
        "h": (0, 2, "$h_1 \\dots h_S$", "round"),
        "att": (1.5, 2, "attention\n$c_t=\\Sigma_j\\,\\alpha_{tj}h_j$", "bold"),
        "s": (3, 2, "decoder state\n$s_t$"),
        "p": (4.4, 2, "$p(y_t\\mid y_{<t},x)$", "round"),
        "gold": (3, 0.6, "training:\ntrue word $y_{t-1}$\n(teacher forcing)", "hidden"),
        "own": (4.4, 0.6, "use: its own word\n$\\hat y_{t-1}$\n(free running)", "hidden"),
    },
    [
        ("x", "enc"),
        ("enc", "h"),
        ("h", "att"),
        ("s", "att", "$s_{t-1}$", "left dashed"),
        ("att", "s", "$c_t$"),
        ("s", "p"),
        ("gold", "s", "", "dashed"),
        ("own", "s", "", "dashed"),
        ("p", "own"),
    ],
    size=(9.6, 3.4),
)
plt.show()

# %% [markdown]
# **Two tasks, no download.** *Numerals*: a letter (five Russian cases n, g, d, i, p, or e for English) and
# digits
# → words. The words are written by num2words. Numbers held out never occur in training in any case.
# *Dates*: fifteen formats in five languages → `1987-03-24`; they come in section 4.

# %%
CASES = "ngdipe"  # nominative, genitive, dative, instrumental, prepositional; English

# %%
def spell(number, case):
    """Words of a number: Russian in the case n, g, d, i or p, or English (e)."""
    if case not in CASES:
        raise ValueError(
            f"case {case!r} is none of {', '.join(CASES)}; the accusative is left out: "
            "num2words writes it wrongly"
        )
    words = num2words(number) if case == "e" else num2words(number, lang="ru", case=case)
    return words.replace(",", " ").replace("-", " ").split()

# %%
for case in "gie":
    print(case, " ".join(spell(2341, case)))
print(
    "accusative by num2words:",
    num2words(2341, lang="ru", case="a"),
    "(right: две тысячи триста сорок один)",
)

# %%
def draw_numbers(n, digits, seed):
    """n different numbers with uniformly drawn lengths 1 … digits."""
    rng, found = random.Random(seed), set()
    while len(found) < n:
        length = rng.randint(1, digits)
        found.add(rng.randrange(10 ** (length - 1) if length > 1 else 0, 10 ** length))
    return sorted(found)

# %%
def split_numbers(numbers, held_out, seed):
    """(train, test): held-out numbers have at least three digits."""
    long = [n for n in numbers if n > 99]
    test = set(random.Random(seed).sample(long, held_out))
    return [n for n in numbers if n not in test], sorted(test)

# %%
def vocabulary(sequences):
    """{token: id} from 3 on; 0 is padding, 1 begin, 2 end."""
    return {token: k for k, token in enumerate(sorted({t for s in sequences for t in s}), 3)}

# %%
def to_ids(sequences, known, ends=False):
    """Padded ids (N, length); `ends`: with begin and end."""
    rows = [[known[t] for t in s] for s in sequences]
    rows = [[1, *r, 2] for r in rows] if ends else rows
    width = max(map(len, rows))
    return torch.tensor([r + [0] * (width - len(r)) for r in rows], device=device)

# %%
train_n, test_n = split_numbers(draw_numbers(NUMBERS, DIGITS, 1), HELD_OUT, 2)
train_pairs = [(f"{c}{n}", spell(n, c)) for n in train_n for c in CASES]
test_pairs = [(f"{c}{n}", spell(n, c)) for n in test_n for c in CASES]
CHARS = {c: k for k, c in enumerate("0123456789" + CASES, 3)}
WORDS = vocabulary([w for _, w in train_pairs])
SAY = {k: w for w, k in WORDS.items()}
X, X_test = (to_ids([x for x, _ in pairs], CHARS) for pairs in (train_pairs, test_pairs))

# %%
Y, Y_test = (to_ids([y for _, y in pairs], WORDS, ends=True) for pairs in (train_pairs, test_pairs))
print(
    f"{len(X)} training pairs, {len(X_test)} held out, {len(CHARS)} characters, {len(WORDS)} words"
)
claim("no held-out number occurs in training", not set(train_n) & set(test_n))

# %% [markdown]
# **The worked example.** Before anything is learned: three source positions with states of one number each,
# $h=(1,0,-1)$, decoder state $s=1$, scores $e_j=2\tanh(s+h_j)$. Then $e=(1.93,1.52,0)$, softmax
# gives $\alpha=(.55,.37,.08)$ and the context is $c=.55\cdot1+.37\cdot0-.08\cdot1=.47$: mostly the first
# position.
#
# **Predict.** What happens to the weights when $s$ becomes $-1$? And $+3$?

# %%
def toy_attention(s, h=(1.0, 0.0, -1.0), v=2.0):
    """(weights, context) of the worked example."""
    e = v * np.tanh(s + np.array(h))
    weights = np.exp(e) / np.exp(e).sum()
    return weights, float(weights @ np.array(h))

# %%
claim("the figures of the worked example", [*toy_attention(1.0)[0], toy_attention(1.0)[1]],
      [0.552, 0.368, 0.080, 0.471], atol=5e-4)

# %% tags=["hide-input"]
def draw_toy(s, v, ax=None):
    """Bars of the three weights."""
    show, ax = ax is None, ax or plt.subplots(figsize=(4, 2.2))[1]
    weights, c = toy_attention(s, v=v)
    ax.bar(["h = 1", "h = 0", "h = −1"], weights, color="#1b4f8f")
    ax.set(ylim=(0, 1), ylabel="weight α", title=f"s = {s:g}, v = {v:g}: c = {c:.2f}")
    if show:
        plt.show()

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 4, figsize=(10, 2.2), sharey=True)
for ax, (s, v) in zip(axes, ((1, 2), (-1, 2), (3, 2), (-1, 8))):
    draw_toy(s, v, ax)
plt.show()

# %% tags=["nbval-ignore-output"]
interact(
    draw_toy,
    ax=fixed(None),
    s=FloatSlider(1, min=-4, max=4, step=0.25),
    v=FloatSlider(2, min=0, max=10, step=0.5),
)

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# $\tanh$ saturates: at $s=3$ all three scores are close to $v$ and the weights are nearly equal; at $s=-1$ the
# last two positions are pushed down ($e=(0,-1.52,-1.93)$). With $v=0$ attention is a plain mean.
#
# </details>
#
# ### Exercise 22.A · Attention by hand · ●○○ · 8 min
#
# The page's own function is the next thing you will need, so write it first: scores are given, and the mask.

# %%
def attend(scores, keys, mask):
    """scores (B, S), keys (B, S, d), mask (B, S) bool. Returns contexts (B, d)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _attend(scores, keys, mask, axis=-1, fill=-torch.inf, divide=1):
    """The same by exponentials."""
    weights = scores.masked_fill(~mask, fill).softmax(axis) / divide
    return torch.einsum("bs,bsd->bd", torch.nan_to_num(weights), keys)

# %% tags=["nbval-ignore-output", "hide-input"]
_g = torch.Generator().manual_seed(3)

# %% tags=["nbval-ignore-output", "hide-input"]
_cases = [
    (
        torch.randn(b, s, generator=_g),
        torch.randn(b, s, d, generator=_g),
        torch.arange(s) < torch.randint(1, s, (b, 1), generator=_g),
    )
    for b, s, d in ((2, 3, 2), (4, 5, 3))
]

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("22.A", attend,
    [(a, _attend(*a)) for a in _cases],
    atol=1e-5,
    mistakes={
        "your softmax ran over the batch: the wrong axis": lambda e, h, m: _attend(e, h, m, axis=0),
        "you forgot the mask": lambda e, h, m: _attend(e, h, m | True),
        "you set masked scores to 0: exp(0) is 1, not 0": lambda e, h, m: _attend(
            e, h, m, fill=0.0
        ),
        "you masked after the softmax and did not normalise again": lambda e, h, m: torch.einsum(
            "bs,bsd->bd", e.softmax(-1) * m, h
        ),
    },
)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A weight of exactly 0 needs a score of $-\infty$, before the softmax.
#
# </details>
# <details><summary>Solution 22.A</summary>
#
# ```python
# def attend(scores, keys, mask):
#     weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
#     return (weights[:, None] @ keys).squeeze(1)
# ```
#
# Each row of the batch is its own distribution over its own source, so the softmax runs over the last axis.
#
# </details>

# %% [markdown]
# ## 2. Additive attention
#
# We need a number $e_{tj}$: how useful is position $j$ for word $t$? The decoder's state $s_{t-1}\in\mathbb
# R^{d_q}$ and the encoder's $h_j\in\mathbb R^{d_k}$ have different sizes, so first bring both to $d_a$ numbers,
# then let a hidden layer of one unit per number decide (Bahdanau, Cho and Bengio, 2015):
#
# $$e_{tj}=v^\top\tanh\big(Ws_{t-1}+Uh_j\big),\qquad W\in\mathbb R^{d_a\times d_q},\ U\in\mathbb R^{d_a\times d_k},\ v\in\mathbb R^{d_a}. \tag{22.1}$$
#
# Scores become weights by a softmax **over the source positions** $j$, and the weights a mean:
#
# $$\alpha_{tj}=\frac{\exp e_{tj}}{\sum_{m=1}^{S}\exp e_{tm}},\qquad c_t=\sum_{j=1}^{S}\alpha_{tj}h_j. \tag{22.2}$$
#
# Padding gets $e=-\infty$, hence weight 0. Why $\tanh$? Without it $e_{tj}=v^\top Ws_{t-1}+v^\top Uh_j$, and
# the
# first term is the same for all $j$: the softmax cancels it, and **the decoder could not choose**.

# %%
class AdditiveAttention(nn.Module):
    """Attention of eqs (22.1), (22.2): forward(query, keys, mask) -> (context, weights)."""

    def __init__(self, d_query, d_key, d_attn):
        super().__init__()
        self.W = nn.Linear(d_query, d_attn, bias=False)
        self.U = nn.Linear(d_key, d_attn, bias=False)
        self.v = nn.Linear(d_attn, 1, bias=False)

    def scores(self, query, projected):
        """(B, d_query) and U h (B, S, d_attn) -> (B, S), eq. (22.1)."""
        return self.v(torch.tanh(self.W(query)[:, None] + projected)).squeeze(-1)

    def read(self, query, keys, projected, mask):
        """Context and weights when U h is already there, eq. (22.2)."""
        weights = self.scores(query, projected).masked_fill(~mask, -torch.inf).softmax(-1)
        return (weights[:, None] @ keys).squeeze(1), weights  # (B, d_key), (B, S)

    def forward(self, query, keys, mask=None):
        """query (B, d_query), keys (B, S, d_key), mask (B, S) bool, True where there is a token."""
        query, keys, mask = as_attention(query, keys, mask, self.v.weight)
        if query.shape[1] != self.W.in_features or keys.shape[2] != self.U.in_features:
            raise ValueError(
                f"queries and keys have {query.shape[1]} and {keys.shape[2]} features; this "
                f"layer takes {self.W.in_features} and {self.U.in_features}"
            )
        return self.read(query, keys, self.U(keys), mask)

# %% tags=["hide-input"]
def as_attention(query, keys, mask, like=None):
    """Tensors that fit one another, masked keys 0; else ValueError."""
    how = {} if like is None else {"dtype": like.dtype, "device": like.device}
    query, keys = torch.as_tensor(query, **how), torch.as_tensor(keys, **how)
    query, keys = (x if x.is_floating_point() else x.double() for x in (query, keys))
    if (
        query.ndim != 2
        or keys.ndim != 3
        or len(query) != len(keys)
        or 0 in (*query.shape, *keys.shape)
    ):
        raise ValueError(
            f"queries must be (B, d_query) and keys (B, S, d_key), none empty, with one B; got "
            f"{tuple(query.shape)} and {tuple(keys.shape)}"
        )
    if mask is None:
        return query, keys, torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
    mask = torch.as_tensor(mask, device=keys.device)
    if mask.dtype != torch.bool or mask.shape != keys.shape[:2]:
        raise ValueError(
            f"the mask must be bool (B, S) = {tuple(keys.shape[:2])}, True where there is a token; "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    if not mask.any(1).all():
        raise ValueError("a mask row without True leaves nothing to attend to: drop that row")
    return query, keys.masked_fill(~mask[..., None], 0), mask

# %%
torch.manual_seed(5)
attention = AdditiveAttention(3, 4, 5).double()
query, keys = torch.randn(2, 3).double(), torch.randn(2, 6, 4).double()
mask = torch.arange(6) < torch.tensor([[6], [4]])

# %%
def by_numpy(query, keys, mask):
    """Loops over words and positions, (scores, weights, contexts)."""
    W, U, v = (
        p.detach().numpy() for p in (attention.W.weight, attention.U.weight, attention.v.weight[0])
    )
    scores, weights = np.zeros(mask.shape), np.zeros(mask.shape)
    for b, j in np.ndindex(mask.shape):
        scores[b, j] = sum(
            v[a] * math.tanh(W[a] @ query[b] + U[a] @ keys[b, j]) for a in range(len(v))
        )
    for b in range(len(mask)):
        total = sum(math.exp(scores[b, j]) for j in range(mask.shape[1]) if mask[b, j])
        weights[b, mask[b]] = np.exp(scores[b, mask[b]]) / total
    return scores, weights, np.stack([w @ k for w, k in zip(weights, keys)])

# %%
scores_np, weights_np, context_np = by_numpy(query.numpy(), keys.numpy(), mask.numpy())
context, weights = attention(query, keys, mask)

# %%
check(
    "22.1",
    "scores by loops in numpy",
    attention.scores(query, attention.U(keys)),
    scores_np,
    atol=1e-12,
)

# %%
check("22.2", "weights and contexts by loops", weights, weights_np, atol=1e-12)
check("22.2", "contexts", context, context_np, atol=1e-12)
order = torch.randperm(6, generator=torch.Generator().manual_seed(1))

# %%
check(
    "22.2",
    "the source shuffled: weights shuffled likewise, context unchanged",
    torch.cat(attention(query, keys[:, order], mask[:, order])[::-1], 1),
    torch.cat([weights[:, order], context], 1),
    atol=1e-12,
)

# %% [markdown]
# The last line is worth a pause: **attention has no idea of order.** The context does not change when the
# source
# is shuffled. All order must already be inside the $h_j$; a recurrent encoder puts it there (section 8: what
# happens
# to an encoder that does not).
#
# **Parameters.** $W$ has $d_ad_q$ numbers, $U$ has $d_ad_k$, $v$ has $d_a$, and there is no bias (one inside
# $\tanh$
# would be useful, one on $e$ would cancel):
#
# $$N_{\text{attention}}=d_a\,(d_q+d_k+1). \tag{22.3}$$
#
# In the paper $d_a=d_q=1000$ and $h_j$ joins both directions, $d_k=2000$: 3,001,000.

# %%
def attention_parameters(d_query, d_key, d_attn):
    """Number of weights of additive attention, eq. (22.3)."""
    return d_attn * (d_query + d_key + 1)

# %%
for sizes in ((1000, 2000, 1000), (3, 4, 5), (7, 2, 11)):
    check("22.3", f"sizes {sizes}: weights counted in the module", attention_parameters(*sizes),
          sum(p.numel() for p in AdditiveAttention(*sizes).parameters()))
print(f"{attention_parameters(1000, 2000, 1000):,}")

# %% [markdown]
# ### Exercise 22.B · Count a whole model · ●●○ · 10 min
#
# A model with additive attention: embeddings of $n_x$ source and $n_y$ target tokens, $d$ numbers each (no
# biases); attention with $d_q=d_a=H$ and $d_k=2H$; an output layer from $[s_t;c_t]$ to $n_y$ scores, **with**
# a bias. Leave the
# recurrent layers out. How many parameters?

# %%
def count_model(n_x, n_y, d, H):
    """Parameters of embeddings, attention and output layer: an int."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _count(n_x, n_y, d, H, att=0, keys=2, out=1):
    """The same from modules, with knobs for what is often forgotten."""
    return (n_x + n_y) * d + H * (H + keys * H + 1) + att * (2 * H + 1) + n_y * (H + keys * H + out)

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("22.B", count_model,
    [((s), _count(*s)) for s in ((10, 20, 4, 8), (7, 9, 5, 3), (100, 120, 32, 64))],
    mistakes={
        "you counted biases in the attention: its three layers have none": lambda *s: _count(
            *s, att=1
        ),
        "the keys have H numbers in your count: two directions make 2H": lambda *s: _count(
            *s, keys=1
        ),
        "you forgot the bias of the output layer": lambda *s: _count(*s, out=0),
    },
)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Four parts: two embeddings, (22.3), one linear layer from $3H$ numbers.
#
# </details>
# <details><summary>Solution 22.B</summary>
#
# ```python
# def count_model(n_x, n_y, d, H):
#     return (n_x + n_y) * d + H * (H + 2 * H + 1) + n_y * (3 * H + 1)
# ```
#
# With a vocabulary of 30,000 words the output layer, not attention, holds most of the parameters.
#
# </details>

# %% [markdown]
# ## 3. The model, trained and watched
#
# The whole encoder–decoder in three steps. The encoder is a GRU in both directions; its states are the $h_j$.
# The
# decoder: $c_t$ from $s_{t-1}$, then $s_t=\mathrm{GRU}(s_{t-1},[y_{t-1};c_t])$, then a linear layer on
# $[s_t;c_t]$. Without attention, $c_t$ is always the encoder's last state: **one vector for everything**.

# %%
class EncoderDecoder(nn.Module):
    """Encoder and one step of the decoder. Ids: 0 padding, 1 begin, 2 end."""

    def __init__(self, n_source, n_target, d_emb=32, d_hidden=64, attention=True):
        super().__init__()
        if min(n_source, d_emb, d_hidden) < 1 or n_target < 3:
            raise ValueError("sizes must be positive, n_target at least 3 (padding, begin, end)")
        self.n_source, self.n_target = n_source, n_target
        self.embed_source = nn.Embedding(n_source, d_emb)
        self.embed_target = nn.Embedding(n_target, d_emb)
        self.encoder = nn.GRU(d_emb, d_hidden, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * d_hidden, d_hidden)
        self.attention = AdditiveAttention(d_hidden, 2 * d_hidden, d_hidden) if attention else None
        self.cell = nn.GRUCell(d_emb + 2 * d_hidden, d_hidden)
        self.out = nn.Linear(3 * d_hidden, n_target)

    def encode(self, source):
        """(keys, U keys, mask, last state), s_0: what the decoder reads, and where it starts."""
        mask = source != 0
        x, lengths = self.embed_source(source), mask.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, False)
        states, last = self.encoder(packed)
        keys = nn.utils.rnn.pad_packed_sequence(states, True, total_length=source.shape[1])[0]
        return self.memory(keys, mask, torch.cat([*last], -1))       # both directions: (B, 2H)

    def memory(self, keys, mask, last):      # keys are projected once, not once a word
        projected = self.attention.U(keys) if self.attention else None
        return (keys, projected, mask, last), torch.tanh(self.bridge(last))

# %%
class Stepwise(EncoderDecoder):
    """One step of the decoder."""

    def advance(self, embedded, state, memory):
        """One word further: ([s_t; c_t], s_t, weights (B, S) or None)."""
        keys, projected, mask, last = memory
        context, weights = (
            self.attention.read(state, keys, projected, mask) if self.attention else (last, None)
        )
        state = self.cell(torch.cat([embedded, context], -1), state)
        return torch.cat([state, context], -1), state, weights

    def logits(self, features):
        """Scores of the words; padding and begin can never be said."""
        banned = torch.arange(self.n_target, device=features.device) < 2
        return self.out(features).masked_fill(banned, -torch.inf)

    def step(self, token, state, memory):
        """One word further: (s_t, logits (B, n_target), weights (B, S) or None)."""
        features, state, weights = self.advance(self.embed_target(token), state, memory)
        return state, self.logits(features), weights

# %%
class TeacherForced(Stepwise):
    """The decoder over a given target: forward and log_prob."""

    def unroll(self, source, target):
        """forward without the checks: the true words are fed (teacher forcing)."""
        memory, state = self.encode(source)
        features, weights = [], []
        for embedded in self.embed_target(target[:, :-1]).unbind(1):
            f, state, alpha = self.advance(embedded, state, memory)
            features.append(f)
            weights.append(alpha)
        logits = self.logits(torch.stack(features, 1))  # the output layer: once for all words
        return logits, torch.stack(weights, 1) if self.attention else None

    def forward(self, source, target):
        """(B, S), (B, T) -> logits (B, T-1, n_target), weights (B, T-1, S) or None."""
        source, target = as_source(source, self), as_target(target, self, len(source))
        return self.unroll(source, target)

    def log_prob(self, source, target):
        """log p(y | x) of each row in nats, (B,), eq. (22.4)."""
        target = as_target(target, self, len(source))
        return sum_log_prob(self(source, target)[0], target[:, 1:])

# %% tags=["hide-input"]
def as_ids(x, n, name, device, ndim=2):
    """Ids 0 … n - 1 as an int64 tensor, else ValueError."""
    x = torch.as_tensor(x, device=device)
    if x.ndim != ndim or x.numel() == 0:
        raise ValueError(
            f"{name} must be ids with {ndim} dimensions, not empty; got shape {tuple(x.shape)}"
        )
    ids = x.long()
    if (
        x.dtype == torch.bool
        or not bool((ids == x).all())
        or int(ids.min()) < 0
        or int(ids.max()) >= n
    ):
        raise ValueError(f"{name} must be whole numbers 0 … {n - 1}: use the model's vocabulary")
    return ids

# %% tags=["hide-input"]
def as_source(x, model, ndim=2):
    """Source ids (B, S) with padding at the end only, else ValueError."""
    ids = as_ids(x, model.n_source, "source", model.out.weight.device, ndim)
    mask = ids.reshape(-1, ids.shape[-1]) != 0
    if not mask.any(1).all():
        raise ValueError(
            "an empty source: every row needs at least one token that is not padding (0)"
        )
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("padding (0) may stand at the end of a source only: move it there")
    return ids

# %% tags=["hide-input"]
def as_target(x, model, rows):
    """Target ids (B, T), T at least 2, else ValueError."""
    ids = as_ids(x, model.n_target, "target", model.out.weight.device)
    if len(ids) != rows or ids.shape[1] < 2:
        raise ValueError(f"target must be ({rows}, T), T at least 2; got {tuple(ids.shape)}")
    return ids

# %%
def sum_log_prob(logits, words):
    """Sum of log p over the words that are no padding: (B, T, n), (B, T) -> (B,)."""
    picked = logits.log_softmax(-1).gather(-1, words[..., None]).squeeze(-1)
    return picked.masked_fill(words == 0, 0).sum(-1)

# %%
class Seq2Seq(TeacherForced):
    """Encoder–decoder with or without attention; section 6 explains the searches."""

    @torch.no_grad()
    def greedy(self, source, max_len):
        """The most probable word at each step: ids (B, at most max_len), 0 after the end."""
        whole(max_len, "max_len")
        source = as_source(source, self)
        memory, state = self.encode(source)
        token, words = torch.ones_like(source[:, 0]), []
        while len(words) < max_len and not (words and bool(((token == 2) | (token == 0)).all())):
            ended = (token == 2) | (token == 0)
            state, logits, _ = self.step(token, state, memory)
            token = logits.argmax(-1).masked_fill(ended, 0)
            words.append(token)
        return torch.stack(words, 1)

    def beam_search(self, source, beam, max_len, length_penalty=0.0):
        """[(ids, log p)] of one source (S,), best log p / length^penalty first."""
        whole(beam, "beam")
        whole(max_len, "max_len")
        return search(self, as_source(source, self, ndim=1), beam, max_len, float(length_penalty))

# %% tags=["hide-input"]
def whole(n, name):
    """Is n a whole number from 1 on? Else ValueError."""
    if isinstance(n, bool) or int(n) != n or n < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {n!r}")

# %% tags=["hide-input"]
@torch.no_grad()
def search(model, source, beam, max_len, gamma):
    """Keep the `beam` best prefixes of each length; best log p / length^gamma first."""
    if not math.isfinite(gamma):
        raise ValueError(f"length_penalty must be a finite number, got {gamma}")
    memory, state = model.encode(source[None])
    live, total, done = [()], torch.zeros(1, dtype=torch.float64, device=source.device), []
    for _ in range(max_len):
        token = torch.tensor([ids[-1] if ids else 1 for ids in live], device=source.device)
        n_live = [m if m is None else m.expand(len(live), *m.shape[1:]) for m in memory]
        state, logits, _ = model.step(token, state, n_live)
        every = (total[:, None] + logits.double().log_softmax(-1)).flatten()  # (live · n_target,)
        best, where = every.topk(min(beam, int(every.isfinite().sum())))
        parent, word = where // model.n_target, where % model.n_target
        grown = [(*live[p], w) for p, w in zip(parent.tolist(), word.tolist())]
        done += [(list(ids), lp) for ids, lp in zip(grown, best.tolist()) if ids[-1] == 2]
        keep = word != 2
        live, total, state = [ids for ids in grown if ids[-1] != 2], best[keep], state[parent[keep]]
        if not live:
            break
    done += [(list(ids), lp) for ids, lp in zip(live, total.tolist())]
    return sorted(done, key=lambda f: -f[1] / len(f[0]) ** gamma)[:beam]

# %% tags=["hide-input"]
def train(model, x, y, steps, rate=6e-3, seed=0):
    """Adam with a rate that rises and falls; batches of 64. Returns the losses per word."""
    torch.manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), rate)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.15)
    losses, draw = [], torch.Generator().manual_seed(seed)
    for _ in progress(range(steps), "training"):
        i = torch.randint(len(x), (64,), generator=draw).to(x.device)
        source, target = (z[i][:, :int((z[i] != 0).sum(1).max())] for z in (x, y))
        logits, _ = model.unroll(source, target)
        loss = -sum_log_prob(logits, target[:, 1:]).sum() / (target[:, 1:] != 0).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        plan.step()
        losses.append(float(loss.detach()))
    return losses

# %%
def build(kind, n_source, n_target, seed=0, **options):
    """A model with reproducible initial weights, on the device of the page."""
    torch.manual_seed(seed)
    return kind(n_source, n_target, **options).to(device)

# %%
sizes = len(CHARS) + 3, len(WORDS) + 3
numerals = build(Seq2Seq, *sizes, d_hidden=HIDDEN)
curve = train(numerals, X, Y, STEPS)

# %% tags=["hide-input"]
@torch.no_grad()
def trace(number, case, model=None):
    """Words said greedily and the attention row (characters) behind each."""
    model = model or numerals
    source = to_ids([f"{case}{number}"], CHARS)
    said = model.greedy(source, 40)
    weights = model(source, F.pad(said, (1, 0), value=1))[1][0]
    return [SAY.get(int(w), "⟨end⟩") for w in said[0]], weights.cpu().numpy()

# %% tags=["hide-input"]
def draw_trace(number="2341", case="g", words=40, ax=None):
    """One row of the alignment matrix per word said."""
    if not str(number).isdigit() or len(str(number)) > 12:
        print("please type a whole number of at most 12 digits")
        return
    said, weights = trace(str(int(number)), case)
    said, weights = said[:words], weights[:words]
    show, ax = ax is None, ax or plt.subplots(figsize=(4.6, 0.8 + 0.32 * len(said)))[1]
    ax.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(weights.shape[1]), list(f"{case}{int(number)}"))
    ax.set_yticks(range(len(said)), said)
    ax.grid(False)
    ax.set(xlabel="source $x_j$", title="weights α (black: 1)")
    if show:
        plt.show()

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=(11, 3.2))
for ax, (number, case) in zip(axes, ((2341, "g"), (205040, "i"), (918, "e"))):
    draw_trace(number, case, ax=ax)
plt.show()

# %% [markdown]
# **Try it.** Type a number, choose a case or English, and let the words appear one by one. **Predict** first:
# for
# a word such as «тысяч», for which the number has no digit of its own, where will the model look? And what
# happens
# with seven digits, when training had at most six?

# %% tags=["nbval-ignore-output"]
interact(
    draw_trace,
    ax=fixed(None),
    number=Text("2341", continuous_update=False),
    case=Dropdown(
        options=[
            ("genitive", "g"),
            ("nominative", "n"),
            ("dative", "d"),
            ("instrumental", "i"),
            ("prepositional", "p"),
            ("English", "e"),
        ]
    ),
    words=IntSlider(16, min=1, max=16, description="words shown"),
)

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# The rows differ between trainings; look whether your own guess held. With seven digits the words come out
# wrong:
# nothing in training said what a seventh place means.
#
# </details>
#
# ## 4. The probability of a sentence, and teacher forcing
#
# A decoder is a distribution over **strings**. By the chain rule, with $y_0$ = begin, until the end token is
# said,
#
# $$p(y\mid x)=\prod_{t=1}^{\lvert y\rvert}p(y_t\mid y_{<t},x). \tag{22.4}$$
#
# If each factor is a distribution over words, the strings that end within $T$ words and the ones still
# unfinished
# after $T$ words share out a probability of exactly 1. We check that by listing **all** strings of a small
# model.

# %%
tiny = build(Seq2Seq, 6, 5, seed=7, d_emb=4, d_hidden=5).double()
tiny_source = torch.tensor([[3, 5, 4]], device=device)

# %%
def every_string(words, T):
    """All strings of these words: ended (with 2) within T tokens, or unfinished."""
    for n in range(T + 1):
        for y in itertools.product(words, repeat=n):
            if n < T:
                yield (*y, 2)
            else:
                yield y

# %%
strings = list(every_string((3, 4), 4))
tiny_targets = to_ids(strings, {2: 2, 3: 3, 4: 4})
tiny_targets = F.pad(tiny_targets, (1, 0), value=1)
tiny_log_p = tiny.log_prob(tiny_source.expand(len(strings), -1), tiny_targets).detach()

# %%
@torch.no_grad()
def by_steps(model, source, ids):
    """log p of one string, a step at a time and without the sum over a padded batch."""
    memory, state = model.encode(source)
    total, previous = 0.0, 1
    for word in ids:
        state, logits, _ = model.step(torch.tensor([previous], device=device), state, memory)
        odds = logits[0].exp()
        total, previous = total + math.log(float(odds[word] / odds.sum())), word
    return total

# %%
check(
    "22.4",
    f"{len(strings)} strings, ended or unfinished: probabilities sum to 1",
    tiny_log_p.exp().sum(),
    1.0,
    atol=1e-12,
)

# %%
check(
    "22.4",
    "each of them, one step at a time",
    tiny_log_p,
    [by_steps(tiny, tiny_source, y) for y in strings],
    atol=1e-10,
)

# %% [markdown]
# **Training** maximises $\log p$ of the true string. Then every factor has the *true* words before it: feed
# them,
# whatever the model would have said (**teacher forcing**). In use there is nobody to feed them; an error
# becomes
# an input that training never showed (**exposure bias**). How much does it hurt? First, what cannot differ: if
# the most probable word is the true one at *every* step with the true words fed, then greedy decoding feeds
# exactly these words. By
# induction over $t$, with $\hat y$ the greedy output,
#
# $$\hat y=y\quad\Longleftrightarrow\quad y_t=\arg\max_w p(w\mid y_{<t},x)\ \text{ for all }t. \tag{22.5}$$

# %%
@torch.no_grad()
def decode_all(model, x, width):
    """Greedy output padded to `width` words."""
    said = torch.cat(
        [F.pad(g, (0, width - g.shape[1])) for g in (model.greedy(b, width) for b in x.split(600))]
    )
    return said

# %%
@torch.no_grad()
def forced_all(model, x, y):
    """Most probable word at each step with the true words fed; 0 on padding."""
    best = torch.cat([model(a, b)[0].argmax(-1) for a, b in zip(x.split(600), y.split(600))])
    return best.masked_fill(y[:, 1:] == 0, 0)

# %%
gold = Y_test[:, 1:]
said, forced = decode_all(numerals, X_test, gold.shape[1]), forced_all(numerals, X_test, Y_test)

# %%
check(
    "22.5",
    "exactly right when free if and only if right at each step when forced",
    (said == gold).all(1),
    (forced == gold).all(1),
)

# %% tags=["nbval-ignore-output"]
def word_accuracy(words, gold):
    """Share of the true words (end included) that stand at their place."""
    real = gold != 0
    return float((words == gold)[real].double().mean())

# %% tags=["nbval-ignore-output"]
def after_error(words, gold):
    """Share of right words behind the first error of a row; NaN without errors."""
    real, wrong = gold != 0, words != gold
    behind = (wrong.cumsum(1) - wrong.int() > 0) & real
    return float((words == gold)[behind].double().mean()) if behind.any() else math.nan

# %% tags=["nbval-ignore-output"]
pd.DataFrame({"teacher forcing": [word_accuracy(forced, gold), after_error(forced, gold)],
              "free running": [word_accuracy(said, gold), after_error(said, gold)]},
             ["words right", "words right behind the first error"]).round(3)

# %% [markdown]
# So the exact-match score is the *same* number in both modes; what a teacher hides is what follows an error.
# Read the second row with care: free running that has lost a word is wrong at every later *place*, even if
# the rest
# is said well.
#
# ### Exercise 22.C · The simplest decoder · ●●○ · 10 min
#
# A decoder that remembers one word: a table `P[i, j]` is the probability that word `j` follows word `i`,
# `start[j]`
# that `j` is first, and `end[i]` that the string stops after `i`. Return $\log p$ of a string of ids.

# %%
def bigram_log_prob(ids, start, P, end):
    """ids: list of at least one id; start (K,), P (K, K), end (K,). Returns a float."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _bigram(ids, start, P, end, flip=False, first=True, last=True):
    """The same by one product."""
    steps = [P[b, a] if flip else P[a, b] for a, b in itertools.pairwise(ids)]
    return float(
        np.log(np.prod([start[ids[0]] if first else 1, *steps, end[ids[-1]] if last else 1]))
    )

# %% tags=["nbval-ignore-output", "hide-input"]
_P, _start, _end = np.array([[0.1, 0.6], [0.3, 0.2]]), np.array([0.7, 0.3]), np.array([0.3, 0.5])

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("22.C", bigram_log_prob,
    [
        ((y, _start, _P, _end), _bigram(y, _start, _P, _end))
        for y in ([0, 1, 1], [1], [1, 1, 0, 0, 1, 0])
    ],
    mistakes={
        "you transposed the transitions: P[i, j] means j follows i": lambda *a: _bigram(
            *a[:1], a[1], a[2].T, a[3]
        ),
        "you forgot START": lambda *a: _bigram(*a, first=False),
        "you forgot the end: then the strings of all lengths do not sum to 1": lambda *a: _bigram(
            *a, last=False
        ),
        "you returned the probability, not its logarithm": lambda *a: math.exp(_bigram(*a)),
    },
)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# One factor for the first word, one for each pair of neighbours, one for stopping.
#
# </details>
# <details><summary>Solution 22.C</summary>
#
# ```python
# def bigram_log_prob(ids, start, P, end):
#     total = math.log(start[ids[0]]) + math.log(end[ids[-1]])
#     for before, after in zip(ids, ids[1:]):
#         total += math.log(P[before, after])
#     return total
# ```
#
# Our decoder has the same three parts; its "table" depends on everything said so far.
#
# </details>
#
# ## 5. What attention buys
#
# **The bottleneck.** Without attention one vector has to carry the whole number. **Predict**: two models, the
# same
# steps, widths and data; for which lengths will they differ?

# %%
bottleneck = build(Seq2Seq, *sizes, d_hidden=HIDDEN, attention=False)
curve_without = train(bottleneck, X, Y, STEPS)
said_without = decode_all(bottleneck, X_test, gold.shape[1])
lengths = np.repeat([len(str(n)) for n in test_n], len(CASES))

# %%
def by_length(said):
    """Exact match for each length of the number."""
    right = (said == gold).all(1).cpu().numpy()
    return {int(k): float(right[lengths == k].mean()) for k in np.unique(lengths)}

# %%
def right_share(said):
    """Exact match over all held-out pairs."""
    return float((said == gold).all(1).double().mean())

# %% tags=["hide-input", "nbval-ignore-output"]
fig, axes = plt.subplots(1, 2, figsize=(9, 2.9))
for name, losses, words in (
    ("attention", curve, said),
    ("one vector", curve_without, said_without),
):
    axes[0].semilogy(np.convolve(losses, np.ones(10) / 10, "valid"), label=name)
    axes[1].plot(*zip(*by_length(words).items()), marker="o", label=name)
axes[0].set(xlabel="step", ylabel="loss, nats a word")
axes[1].set(xlabel="digits of the number", ylabel="exact match, held out", ylim=(0, 1.03))
axes[1].set_xticks(sorted(by_length(said)))
axes[1].legend()
plt.show()

# %%
claim(
    "attention: more than .8 of the held-out numerals exactly right; one vector fewer",
    right_share(said),
    above=0.8,
    trivial=right_share(said_without),
)
longest = by_length(said)[DIGITS] - by_length(said_without)[DIGITS]

# %%
claim(
    "at the greatest length attention is ahead by more than .2; at three digits the gap is smaller",
    longest,
    above=max(0.2, by_length(said)[3] - by_length(said_without)[3]),
    trivial=0.0,
)

# %% [markdown]
# The loss of the single vector grows with length: the effect that Bahdanau et al. drew for sentences. (The
# model
# with attention also has more weights. That more width alone would not close the gap is not tested here.)
#
# **The gradient.** How does training know where to look? Write $\alpha_m=\exp(e_m)/Z$, $Z=\sum_n\exp e_n$.
# The score $e_j$ is in the numerator if $m=j$, and always in $Z$, with $\partial Z/\partial e_j=\exp e_j$; so
# $\partial\alpha_m/\partial e_j=\alpha_m([m=j]-\alpha_j)$. Put this into $c=\sum_m\alpha_mh_m$: the term
# $m=j$ gives $\alpha_jh_j$, the rest $-\alpha_j\sum_m\alpha_mh_m=-\alpha_jc$. Together
#
# $$\frac{\partial c}{\partial e_j}=\alpha_j\,(h_j-c). \tag{22.6}$$
#
# A score rises if moving $c$ towards $h_j$ lowers the loss, in proportion to the weight the position already
# has: a
# position with $\alpha_j\approx0$ hardly learns.

# %%
def context_gradient(weights, keys):
    """Jacobian (S, d_key) of the context by the scores, eq. (22.6)."""
    return weights[:, None] * (keys - weights @ keys)

# %%
e = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
h = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
jacobian = torch.autograd.functional.jacobian(lambda z: z.softmax(0) @ h, e)      # (3, 5)
check("22.6", "autograd", context_gradient(e.softmax(0), h), jacobian.T, atol=1e-12)

# %% [markdown]
# **Dot products instead.** If query and key have the same size $d$, the cheapest score needs no weights:
#
# $$e_{tj}=\frac{s_{t-1}^\top h_j}{\sqrt d}. \tag{22.7}$$
#
# The root: if the $d$ components are independent with mean 0 and variance 1, the sum has variance $d$; divided
# by $\sqrt d$, 1. Scores come out of one matrix product; no $S\times d_a$ tanh per word is needed. The price:
# the sizes
# must agree, or a matrix has to make them agree.

# %%
def dot_attention(query, keys, mask=None):
    """Eq. (22.7): (B, d), (B, S, d) -> context (B, d), weights (B, S)."""
    query, keys, mask = as_attention(query, keys, mask)
    if query.shape[1] != keys.shape[2]:
        raise ValueError(
            f"a dot product needs equal sizes, got {query.shape[1]} and {keys.shape[2]}: use "
            "AdditiveAttention, or project one of them"
        )
    scores = torch.einsum("bd,bsd->bs", query, keys) / math.sqrt(query.shape[1])
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return torch.einsum("bs,bsd->bd", weights, keys), weights

# %%
q = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
by_torch = F.scaled_dot_product_attention(q[:, None], keys, keys, attn_mask=mask[:, None])[:, 0]

# %%
check(
    "22.7",
    "torch's scaled_dot_product_attention, with a mask",
    dot_attention(q, keys, mask)[0],
    by_torch,
    atol=1e-12,
)

# %% [markdown]
# **Dates: letters out of order.** "24 марта 1987 г." → `1987-03-24`: the year is read last and said first. The
# formats are those of Babel's CLDR tables (medium, long, full; five languages). Held-out days never occur in
# training.

# %% tags=["hide-input"]
LOCALES, FORMATS = ("en", "de", "fr", "es", "ru"), ("medium", "long", "full")

# %% tags=["hide-input"]
def write_date(day, locale, style):
    """A date as a small-letter string."""
    return format_date(day, style, locale=locale).lower()

# %% tags=["hide-input"]
_days = random.Random(5).sample(range(36_525), DATES)
days = [datetime.date(1950, 1, 1) + datetime.timedelta(n) for n in _days]
_ways = list(itertools.product(LOCALES, FORMATS))
train_dates, test_dates = days[:-60], days[-60:]
date_pairs, date_test = ([(write_date(d, *w), d.isoformat()) for d in part for w in _ways]
                         for part in (train_dates, test_dates))
LETTERS, SIGNS = vocabulary([x for x, _ in date_pairs]), vocabulary([y for _, y in date_pairs])

# %% tags=["hide-input"]
DX, DX_test = (to_ids([x for x, _ in p], LETTERS) for p in (date_pairs, date_test))
DY, DY_test = (to_ids([y for _, y in p], SIGNS, ends=True) for p in (date_pairs, date_test))

# %%
dates = build(Seq2Seq, len(LETTERS) + 3, len(SIGNS) + 3, seed=1, d_hidden=48)
date_curve = train(dates, DX, DY, DATE_STEPS, rate=1e-2)
date_right = (decode_all(dates, DX_test, 11) == DY_test[:, 1:]).all(1).double().mean()

# %%
claim(
    "more than .9 of the dates of unseen days are exactly right (one constant date: none)",
    float(date_right),
    above=0.9,
    trivial=0.0,
)

# %% tags=["hide-input"]
def draw_dates(texts):
    """Alignment matrices of several dates: the figure worth sharing."""
    fig, axes = plt.subplots(len(texts), 1, figsize=(8, 2.5 * len(texts)))
    back = {k: c for c, k in SIGNS.items()}
    for ax, text in zip(axes, texts):
        source = to_ids([text], LETTERS)
        with torch.no_grad():
            out = dates.greedy(source, 11)
            weights = dates(source, F.pad(out, (1, 0), value=1))[1][0].cpu()
        ax.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(range(len(text)), text)
        ax.set_yticks(range(out.shape[1]), [back.get(int(k), "⟨end⟩") for k in out[0]], fontsize=8)
        ax.grid(False)
    plt.show()

# %% tags=["hide-input"]
draw_dates(
    [write_date(test_dates[0], *w) for w in (("ru", "full"), ("en", "full"), ("de", "medium"))]
)

# %% [markdown]
# Time runs downwards, the source to the right; a diagonal would be "in order". **A caution**: a weight says
# what was
# read in *this* context vector, and $h_j$ has seen its neighbours; black cells are no proof of what caused a
# letter.
#
# ### Exercise 22.D · Which hypothesis wins? · ●●○ · 8 min
#
# Hypotheses are pairs (number of words, $\log p$). Return the **index** of the one with the greatest $\log
# p/n^\gamma$.

# %%
def best_hypothesis(hypotheses, gamma):
    """hypotheses: list of (n, log_p), n >= 1. Returns an int; the first of equals."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _best(hypotheses, gamma, score=lambda n, lp, g: lp / n**g):
    """The same by numpy."""
    return int(np.argmax([score(n, lp, gamma) for n, lp in hypotheses]))

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("22.D", best_hypothesis,
    [
        ((h_, g_), _best(h_, g_))
        for h_, g_ in (
            ([(2, -3.0), (4, -4.0), (8, -6.0)], 0.0),
            ([(2, -3.0), (4, -4.0), (8, -6.0)], 1.0),
            ([(2, -3.0), (4, -3.9), (8, -6.4)], 0.5),
            ([(3, -1.0), (1, -0.8)], 0.1),
        )
    ],
    mistakes={
        "you multiplied by the length: that punishes long strings twice": lambda h, g: _best(
            h, g, lambda n, lp, g: lp * n**g
        ),
        "you always divided by the length, whatever the exponent": lambda h, g: _best(
            h, g, lambda n, lp, g: lp / n
        ),
        "you took the smallest score: the greatest is best": lambda h, g: _best(
            h, g, lambda n, lp, g: -lp / n**g
        ),
    },
)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `max(range(len(hypotheses)), key=…)` returns an index.
#
# </details>
# <details><summary>Solution 22.D</summary>
#
# ```python
# def best_hypothesis(hypotheses, gamma):
#     return max(range(len(hypotheses)), key=lambda i: hypotheses[i][1] / hypotheses[i][0] ** gamma)
# ```
#
# </details>
#
# ## 6. Searching for the best string
#
# Greedy decoding takes the best word, not the best string. **Beam search** keeps the $b$ best prefixes,
# extends each
# by every word and keeps the $b$ best again; a prefix that ends leaves the race and waits. At the end the
# hypotheses are
# compared by
#
# $$\mathrm{score}(y)=\frac{\log p(y\mid x)}{\lvert y\rvert^{\gamma}}. \tag{22.8}$$
#
# Each word adds a negative number to $\log p$, so with $\gamma=0$ short strings have an advantage (**length
# bias**): three words with probability .7 each have $\log p=-1.07$, six with .8 each $-1.34$; per word the
# second is the better one ($-.22$ against $-.36$), in total the first;
# $\gamma=1$ compares means per word. If the beam is as wide as there are strings, nothing is ever dropped, and
# beam search **is** exhaustive search: that is the check.

# %%
def exhaustive(gamma):
    """All strings of `tiny` up to 4 tokens, best score first: [(ids, log p)]."""
    found = [(list(y), by_steps(tiny, tiny_source, y)) for y in every_string((3, 4), 4)]
    return sorted(found, key=lambda f: f[1] / len(f[0]) ** gamma, reverse=True)

# %%
for gamma in (0.0, 1.0, 2.0):
    ours, truth = tiny.beam_search(tiny_source[0], 64, 4, gamma), exhaustive(gamma)
    check(
        "22.8",
        f"beam 64, γ = {gamma:g}: all {len(truth)} strings, ordered as by exhaustive search",
        [y + [0] * (4 - len(y)) for y, _ in ours],
        [y + [0] * (4 - len(y)) for y, _ in truth],
    )
    check(
        "22.8",
        "with their log-probabilities",
        [lp for _, lp in ours],
        [lp for _, lp in truth],
        atol=1e-10,
    )

# %%
(one,) = tiny.beam_search(tiny_source[0], 1, 4)
claim("a beam of one is greedy decoding", one[0], tiny.greedy(tiny_source, 4)[0])

# %% [markdown]
# **Predict.** Take the most probable string of each length of this little model. At $\gamma=0$, which line is
# on top? Can a longer string overtake a shorter one as $\gamma$ grows, and can it fall behind again?

# %% tags=["hide-input"]
best = {}
for y, lp in exhaustive(0.0):
    best.setdefault(len(y), lp)
exponents = np.linspace(0, 2, 60)
fig, ax = plt.subplots(figsize=(5.4, 2.8))
for n, lp in sorted(best.items()):
    ax.plot(exponents, lp / n**exponents, label=f"best of {n}")
ax.set(xlabel="exponent $\\gamma$", ylabel="$\\log p\\,/\\,n^{\\gamma}$")
ax.legend(fontsize=8)
plt.show()

# %% [markdown]
# With each unit of $\gamma$ the distance of a line from 0 shrinks by the factor $n$: the line of length 1 is
# flat, a longer string gains on every shorter one. Two lines cross at most once, at
# $\gamma=\log(\log p_1/\log p_2)/\log(n_1/n_2)$, so what has been overtaken stays behind.

# %% tags=["hide-input"]
def draw_beam(beam, gamma, number="205040", case="i", model="one vector"):
    """Hypotheses of a beam search with log p and score."""
    if not (number.isdigit() and len(number) <= 12):
        print("please type a whole number of at most 12 digits")
        return
    net = bottleneck if model == "one vector" else numerals
    found = net.beam_search(to_ids([case + number], CHARS)[0], beam, 30, gamma)[:6]
    truth = [WORDS[w] for w in spell(int(number), case) if w in WORDS] + [2]
    lines = [f"{lp:8.3f} {lp / len(y) ** gamma:8.3f} {'= truth' if y == truth else '       '} " +
             " ".join(SAY.get(w, "⟨end⟩") for w in y) for y, lp in found]
    print("   log p    score\n" + "\n".join(lines))

# %% [markdown]
# **Try it**, with the model without attention, which errs more often. **Predict**: when does a wider beam
# change the first line?

# %% tags=["nbval-ignore-output"]
interact(
    draw_beam,
    beam=IntSlider(4, min=1, max=12),
    gamma=FloatSlider(0, min=0, max=2, step=0.25),
    number=Text("205040", continuous_update=False),
    case=list(CASES),
    model=["one vector", "attention"],
)

# %% [markdown]
# **Search error or model error?** The output $\hat y$ is wrong, the reference is $y$. If $\log p(\hat y)<\log
# p(y)$,
# the model preferred the truth and the *search* missed it. Else the model itself prefers the wrong string,
# and no wider beam helps.

# %%
wrong_rows = (said_without != gold).any(1).nonzero().squeeze(1)[:100]
kinds = {}

# %%
for beam in (1, 4):
    found = [bottleneck.beam_search(X_test[i], beam, gold.shape[1])[0] for i in wrong_rows.tolist()]
    truth = bottleneck.log_prob(X_test[wrong_rows], Y_test[wrong_rows]).tolist()
    right = [
        y == [w for w in gold[i].tolist() if w] for (y, _), i in zip(found, wrong_rows.tolist())
    ]
    search_error = [lp < t - 1e-4 and not ok for (_, lp), t, ok in zip(found, truth, right)]
    kinds[f"beam {beam}"] = {
        "right": sum(right),
        "search error": sum(search_error),
        "model error": len(right) - sum(right) - sum(search_error),
    }

# %% tags=["nbval-ignore-output"]
pd.DataFrame(kinds).T

# %%
claim(
    "a beam of 4 leaves no more search errors than greedy decoding, of those that greedy got wrong",
    kinds["beam 4"]["search error"] <= kinds["beam 1"]["search error"],
)

# %% [markdown]
# ### Exercise 22.E · Whose fault? · ●○○ · 5 min
#
# Return "right", "search" or "model" for an output and a reference with their log-probabilities.

# %%
def whose_fault(output, reference, log_p_output, log_p_reference):
    """Two lists of ids and two floats -> one of the three words."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _fault(y, ref, a, b):
    """The same by a table."""
    return "right" if y == ref else ("model", "search")[int(a < b)]

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("22.E", whose_fault, [(a, _fault(*a)) for a in (
    ([3, 2], [3, 2], -1.0, -1.0), ([3, 2], [4, 2], -1.0, -2.0), ([3, 2], [4, 2], -3.0, -2.0),
    ([4, 2], [4, 5, 2], -0.5, -0.5))], mistakes={
    "you mixed up the two: a search error is an output less probable than the reference":
        lambda y, r, a, b: "right" if y == r else ("search", "model")[int(a < b)],
    "you forgot that the output may be right": lambda y, r, a, b: ("model", "search")[int(a < b)]})

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Did the search return something worse than a string it could have had?
#
# </details>
# <details><summary>Solution 22.E</summary>
#
# ```python
# def whose_fault(output, reference, log_p_output, log_p_reference):
#     if output == reference:
#         return "right"
#     return "search" if log_p_output < log_p_reference else "model"
# ```
#
# </details>
#
# ## 7. Gated convolutions and how far they see
#
# A recurrent encoder takes $S$ steps, one after the other. A convolution computes all positions at once, but
# sees
# only $k$ of them. The **gated linear unit** (Dauphin et al., 2017) makes two convolutions of the same input
# $X$, and
# lets the second open or close the first:
#
# $$\mathrm{GLU}(X)=A\odot\sigma(G),\qquad A=X*W_A+b_A,\quad G=X*W_G+b_G. \tag{22.9}$$
#
# The gradient says why $A$ stays linear. Against a tanh gate, $\tanh(A)\odot\sigma(G)$, by the product rule:
#
# $$\nabla[A\odot\sigma(G)]=\nabla A\odot\sigma(G)+A\odot\sigma'(G)\,\nabla G,\qquad \nabla[\tanh(A)\odot\sigma(G)]=\tanh'(A)\,\nabla A\odot\sigma(G)+\tanh(A)\odot\sigma'(G)\,\nabla G. \tag{22.10}$$
#
# In the first there is a path $\nabla A\odot\sigma(G)$ that no derivative shrinks while the gate is open; in
# the second each layer multiplies it by $\tanh'(A)\le1$.
#
# **Causal padding.** A decoder must not see the future: pad the input on the left only, by
#
# $$p=(k-1)\,d \tag{22.11}$$
#
# positions (kernel $k$, dilation $d$); then length stays $T$ and output $t$ depends on inputs $\le t$.

# %%
class GLUBlock(nn.Module):
    """Gated convolution, eq. (22.9): (B, C_in, T) -> (B, C_out, T), no residual."""

    def __init__(self, channels_in, channels_out, kernel, dilation=1, causal=True):
        super().__init__()
        names = "channels_in", "channels_out", "kernel", "dilation"
        for n, name in zip((channels_in, channels_out, kernel, dilation), names):
            whole(n, name)
        padding = (kernel - 1) * dilation  # eq. (22.11)
        self.padding = (padding, 0) if causal else (padding // 2, padding - padding // 2)
        self.conv = nn.Conv1d(channels_in, 2 * channels_out, kernel, dilation=dilation)

    def forward(self, x):
        """x (B, channels_in, T), T at least 1."""
        x = torch.as_tensor(x, dtype=self.conv.weight.dtype, device=self.conv.weight.device)
        if x.ndim != 3 or x.shape[1] != self.conv.in_channels or 0 in x.shape:
            raise ValueError(
                f"x must be (B, {self.conv.in_channels}, T), not empty; got {tuple(x.shape)}"
            )
        linear, gate = self.conv(F.pad(x, self.padding)).chunk(2, dim=1)
        return linear * gate.sigmoid()

# %%
torch.manual_seed(9)
block, signal = GLUBlock(3, 4, 3, dilation=2).double(), torch.randn(2, 3, 11).double()

# %%
check(
    "22.9",
    "F.glu of the same convolution",
    block(signal),
    F.glu(block.conv(F.pad(signal, (4, 0))), 1),
    atol=1e-12,
)

# %%
for k, d in ((5, 1), (2, 3), (3, 2)):
    reach = (
        torch.autograd.functional.jacobian(GLUBlock(1, 1, k, d), torch.randn(1, 1, 16))[
            0, 0, :, 0, 0
        ]
        != 0
    )
    check(
        "22.11",
        f"k = {k}, d = {d}: length kept, nothing from the future, the present is seen",
        [len(reach), int(reach.triu(1).sum()), int(reach.diagonal().sum())],
        [16, 0, 16],
    )

# %%
def glu_slopes(a, g):
    """(by A, by G) of A σ(G), eq. (22.10)."""
    return torch.sigmoid(g), a * torch.sigmoid(g) * (1 - torch.sigmoid(g))

# %%
def tanh_slopes(a, g):
    """(by A, by G) of tanh(A) σ(G), eq. (22.10)."""
    return (1 - torch.tanh(a) ** 2) * torch.sigmoid(g), torch.tanh(a) * torch.sigmoid(g) * (
        1 - torch.sigmoid(g)
    )

# %%
a, g = torch.linspace(-4, 4, 9).double(), torch.linspace(2, -1, 9).double()

# %%
for name, gate, slopes in (
    ("GLU", lambda a, g: a * torch.sigmoid(g), glu_slopes),
    ("tanh gate", lambda a, g: torch.tanh(a) * torch.sigmoid(g), tanh_slopes),
):
    numeric = [(gate(a + u, g + w) - gate(a - u, g - w)) / 2e-5 for u, w in ((1e-5, 0), (0, 1e-5))]
    check(
        "22.10",
        f"{name}: central differences",
        torch.stack(slopes(a, g)),
        torch.stack(numeric),
        atol=1e-8,
    )

# %% tags=["hide-input"]
fine = torch.linspace(-4, 4, 200).double()
fig, ax = plt.subplots(figsize=(5.4, 2.6))
ax.plot(fine, glu_slopes(fine, fine * 0 + 3)[0], label="GLU: σ(G)")
ax.plot(fine, tanh_slopes(fine, fine * 0 + 3)[0], label="tanh gate: tanh'(A) σ(G)")
ax.set(xlabel="$A$", ylabel="slope by $A$, open gate $G=3$")
ax.legend()
plt.show()

# %% [markdown]
# **Receptive field.** Go from one output down to the input. One output of layer $l$ needs $k_l$ outputs of
# layer $l-1$, the first
# and the last of which are $(k_l-1)d_l$ apart. One step between outputs of layer $l-1$ is $r_1r_2\cdots
# r_{l-1}$ input positions,
# if layer $m$ has stride $r_m$. Spans add up:
#
# $$R=1+\sum_{l=1}^{L}(k_l-1)\,d_l\prod_{m<l}r_m. \tag{22.12}$$
#
# A stride counts for the layers above it only: kernels $3,3$ and strides $2,1$ give $1+2+2\cdot2=7$.
# Six layers with $k=5$, no dilation, stride 1: $1+6\cdot4=25$. Doubling dilations $1,2,4,\dots,32$:
# $1+4\cdot63=253$.

# %%
def receptive_field(kernels, dilations=None, strides=None):
    """Input positions behind one output, eq. (22.12). Lists, one entry a layer."""
    given = [kernels, dilations, strides]
    lists = [None if x is None else torch.as_tensor(x).tolist() for x in given]
    if not isinstance(lists[0], list) or not lists[0]:
        raise ValueError("kernels must be a list with one kernel size for each layer, at least one")
    lists = [[1] * len(lists[0]) if x is None else x for x in lists]
    if any(not isinstance(x, list) or len(x) != len(lists[0]) for x in lists):
        raise ValueError(
            "kernels, dilations and strides must be lists of the same length: one entry a layer"
        )
    if any(not (math.isfinite(n) and n == int(n) and n >= 1) for x in lists for n in x):
        raise ValueError("kernels, dilations and strides must be whole numbers of at least 1")
    field, jump = 1, 1
    for k, d, r in zip(*lists):
        field, jump = int(field + (k - 1) * d * jump), jump * r
    return field

# %%
def field_by_autograd(kernels, dilations, strides):
    """Inputs with a gradient at one output of a stack of convolutions with weights 1."""
    x = torch.zeros(1, 1, 600, dtype=torch.float64, requires_grad=True)
    y = x
    for k, d, r in zip(kernels, dilations, strides):
        y = F.conv1d(y, torch.ones(1, 1, k, dtype=torch.float64), dilation=d, stride=r)
    y[0, 0, 0].backward()
    used = x.grad[0, 0].nonzero().squeeze(1)
    return int(used[-1] - used[0] + 1)

# %%
for stack in (
    ([5] * 6, [1] * 6, [1] * 6),
    ([3, 3, 3], [1, 2, 4], [1, 1, 1]),
    ([4, 3, 5], [1, 3, 2], [2, 3, 1]),
    ([2, 7], [5, 1], [4, 9]),
):
    check(
        "22.12",
        f"{stack}: reach of the gradient",
        receptive_field(*stack),
        field_by_autograd(*stack),
    )

# %% tags=["hide-input"]
def draw_stack(kernel=3, dilation=1, depth=3, ax=None):
    """Cells behind the last output; `dilation`: factor from layer to layer."""
    show, ax = ax is None, ax or plt.subplots(figsize=(8, 3))[1]
    dilations, width, lit = [dilation**i for i in range(depth)], 40, {39}
    R = receptive_field([kernel] * depth, dilations)
    more = " (wider than drawn)" if R > width else ""
    grid = np.zeros((depth + 1, width))
    for level in range(depth, -1, -1):
        grid[level, list(lit)] = 1
        step = dilations[level - 1]
        lit = (
            {p - i * step for p in lit for i in range(kernel) if p - i * step >= 0}
            if level
            else lit
        )
    ax.pcolormesh(grid, cmap="Greys", vmax=1.5, edgecolors="#bbbbbb", linewidth=0.5)
    ax.set_yticks(
        np.arange(depth + 1) + 0.5, ["input", *[f"layer {i}" for i in range(1, depth + 1)]]
    )
    ax.grid(False)
    ax.set(title=f"k = {kernel}, dilations {dilations}: R = {R}{more}")
    if show:
        plt.show()

# %% tags=["hide-input"]
fig, axes = plt.subplots(3, 1, figsize=(8, 5.6))
for ax, how in zip(axes, ((5, 1, 6), (3, 2, 4), (2, 2, 5))):
    draw_stack(*how, ax=ax)
plt.show()

# %% tags=["nbval-ignore-output"]
interact(
    draw_stack,
    ax=fixed(None),
    kernel=IntSlider(3, min=1, max=7),
    dilation=IntSlider(1, min=1, max=3, description="factor"),
    depth=IntSlider(3, min=1, max=6),
)

# %% [markdown]
# ### Exercise 22.F · Layers needed · ●●○ · 10 min
#
# Kernel $k\ge2$, stride 1, dilation $b^{l-1}$ in layer $l=1,2,\dots$ ($b=1$: none). Return the least number of
# layers with $R\ge n$.

# %%
def layers_needed(n, k, b):
    """n >= 1, k >= 2, b >= 1. Returns an int (0 if n = 1)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _layers(n, k, b, width=lambda k: k - 1, power=lambda b, i: b**i, first=1):
    """The same by trying."""
    for count in range(2000):
        if first + sum(width(k) * power(b, i) for i in range(count)) >= n:
            return count

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("22.F", layers_needed,
    [
        ((n, k, b), _layers(n, k, b))
        for n, k, b in ((25, 5, 1), (26, 5, 1), (253, 5, 2), (1, 3, 2),
                        (100, 2, 3), (31, 3, 1), (32, 2, 2))
    ],
    mistakes={
        "you used 1 + Σ k d: it is k − 1": lambda n, k, b: _layers(n, k, b, width=lambda k: k),
        "you forgot the 1: the output's own position counts": lambda n, k, b: _layers(
            n, k, b, first=0
        ),
        "you forgot the dilation": lambda n, k, b: _layers(n, k, 1),
    },
)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Start with $R=1$, add $(k-1)d$ and multiply $d$ by $b$ until $R\ge n$.
#
# </details>
# <details><summary>Solution 22.F</summary>
#
# ```python
# def layers_needed(n, k, b):
#     field, dilation, layers = 1, 1, 0
#     while field < n:
#         field, dilation, layers = field + (k - 1) * dilation, dilation * b, layers + 1
#     return layers
# ```
#
# Without dilation the field grows linearly with depth, with $b=2$ exponentially.
#
# </details>
#
# ## ☆ 8. A convolutional encoder, with and without positions
#
# The same decoder, but the $h_j$ come from a stack of gated convolutions with residual sums. A convolution
# does not know
# *where* it is; Gehring et al. (2017) add a learned vector for each position.

# %%
class ConvSeq2Seq(Seq2Seq):
    """Seq2Seq with a gated convolutional encoder; `positions`: add an embedding of the place."""

    def __init__(
        self, n_source, n_target, d_hidden=64, kernel=3, layers=3, positions=True, **options
    ):
        super().__init__(n_source, n_target, d_hidden=d_hidden, **options)
        d = 2 * d_hidden
        self.encoder, self.embed_source = None, nn.Embedding(n_source, d)
        self.where = nn.Embedding(64, d) if positions else None
        self.blocks = nn.ModuleList(GLUBlock(d, d, kernel, causal=False) for _ in range(layers))

    def encode(self, source):
        """As EncoderDecoder.encode; padding is zeroed before each layer."""
        mask = source != 0
        x = self.embed_source(source)  # (B, S, 2H)
        if self.where is not None:
            x = x + self.where(torch.arange(source.shape[1], device=source.device))
        x = (x * mask[..., None]).mT  # (B, 2H, S)
        for block in self.blocks:
            x = (x + block(x)) * math.sqrt(0.5) * mask[:, None]
        return self.memory(x.mT, mask, x.sum(2) / mask.sum(1, keepdim=True))

# %%
short, short_test = ((x != 0).sum(1) <= 4 for x in (X, X_test))     # case and at most three digits
gold_short = Y_test[short_test, 1:]
conv_rows, conv_models = {}, {}

# %%
for name, how in (
    ("GRU", None),
    ("GLU, positions", {"positions": True}),
    ("GLU, no positions", {"positions": False}),
):
    kind, options = (Seq2Seq, {}) if how is None else (ConvSeq2Seq, how)
    model, start = build(kind, *sizes, d_hidden=HIDDEN, **options), time.process_time()
    train(model, X[short], Y[short], CONV_STEPS)
    conv_models[name] = model
    conv_rows[name] = {
        "exact match": float((decode_all(model, X_test[short_test], gold.shape[1]) == gold_short)
                             .all(1).double().mean()),
        "CPU s": time.process_time() - start,
    }

# %% tags=["nbval-ignore-output"]
pd.DataFrame(conv_rows).T.round(2)

# %% [markdown]
# All three with the same steps and rate, one seed, on numbers of at most three digits: read the table as an
# observation. A convolution with zero padding still notices the *ends* of the source; with kernel 1 nothing
# is left of order:

# %%
bag = build(ConvSeq2Seq, *sizes, d_hidden=8, kernel=1, positions=False).double()

# %%
@torch.no_grad()
def order_matters(model):
    """Largest change of a logit when the digits of 'g1230' are shuffled."""
    one, two = (model(to_ids([text], CHARS), Y_test[:1])[0][..., 2:] for text in ("g1230", "g3021"))
    return float((one - two).abs().max())

# %%
claim("kernel 1, no positions: 'g1230' and 'g3021' get the same odds; with kernel 3 not",
      order_matters(bag), below=1e-9, trivial=order_matters(conv_models["GLU, no positions"]))

# %% tags=["hide-input"]
if os.environ.get("COURSE_FULL"):
    for kind, words in (("attention", said), ("one vector", said_without)):
        right = (words == gold).all(1).cpu().numpy()
        groups = {f"{k} digits": lengths == k for k in np.unique(lengths)}
        groups |= {f"case {c}": np.tile(np.array(list(CASES)) == c, len(test_n)) for c in CASES} | {
            "all": lengths > 0
        }
        for group, rows in groups.items():
            rate = right[rows].mean()
            measured(f"{kind} {group}", 100 * rate, 100 * math.sqrt(rate * (1 - rate) / rows.sum()))
    for extra in range(1, 4):
        draw = random.Random(extra)
        far = [
            draw.randrange(10 ** (DIGITS + extra - 1), 10 ** (DIGITS + extra)) for _ in range(200)
        ]
        truth = [[WORDS.get(w, -1) for w in spell(n, "n")] + [2] for n in far]
        out = numerals.greedy(to_ids([f"n{n}" for n in far], CHARS), 60).tolist()
        measured(
            f"{DIGITS + extra} digits",
            100 * np.mean([[w for w in o if w] == t for o, t in zip(out, truth)]),
        )

# %% [markdown]
# **Longer than anything seen.** Trained on at most `DIGITS` digits, asked for one more:

# %%
_far = [random.Random(k).randrange(10 ** DIGITS, 10 ** (DIGITS + 1)) for k in range(50)]
_truth = [[WORDS.get(w, -1) for w in spell(n, "n")] + [2] for n in _far]
_out = numerals.greedy(to_ids([f"n{n}" for n in _far], CHARS), 40).tolist()
far_right = float(np.mean([[w for w in o if w] == t for o, t in zip(_out, _truth)]))
claim("one digit more than in training: less than a tenth right",
      far_right, below=0.1, trivial=right_share(said))

# %% [markdown]
# Part of this failure is trivial: words such as «миллион» are not in the vocabulary of six digits. The full
# run separates the two: it trains on at most nine digits, where all words up to «миллиард» exist, and is asked
# for ten to twelve. **Predict** before you look whether the failure stays.
#
# | full run: exact match in per cent (held out; ± standard error) | attention | one vector |
# |---|---|---|
# | all, 10,000 numbers in 6 forms | <!--full:22.attention all-->–<!--/full--> | <!--full:22.one vector all-->–<!--/full--> |
# | 3 digits | <!--full:22.attention 3 digits-->–<!--/full--> | <!--full:22.one vector 3 digits-->–<!--/full--> |
# | 6 digits | <!--full:22.attention 6 digits-->–<!--/full--> | <!--full:22.one vector 6 digits-->–<!--/full--> |
# | 9 digits | <!--full:22.attention 9 digits-->–<!--/full--> | <!--full:22.one vector 9 digits-->–<!--/full--> |
# | nominative | <!--full:22.attention case n-->–<!--/full--> | <!--full:22.one vector case n-->–<!--/full--> |
# | genitive | <!--full:22.attention case g-->–<!--/full--> | <!--full:22.one vector case g-->–<!--/full--> |
# | dative | <!--full:22.attention case d-->–<!--/full--> | <!--full:22.one vector case d-->–<!--/full--> |
# | instrumental | <!--full:22.attention case i-->–<!--/full--> | <!--full:22.one vector case i-->–<!--/full--> |
# | prepositional | <!--full:22.attention case p-->–<!--/full--> | <!--full:22.one vector case p-->–<!--/full--> |
# | English | <!--full:22.attention case e-->–<!--/full--> | <!--full:22.one vector case e-->–<!--/full--> |
# | 10 digits, never seen | <!--full:22.10 digits-->–<!--/full--> | not asked |
# | 11 digits, never seen | <!--full:22.11 digits-->–<!--/full--> | not asked |
# | 12 digits, never seen | <!--full:22.12 digits-->–<!--/full--> | not asked |
#
# A dash is a run that has not been made yet. Hardware and seconds:
# <!--full:22.hardware-->–<!--/full-->, <!--full:22.seconds-->–<!--/full-->.
#
# ## Where the notes slip
#
# The notes on this topic are three lines long, so there is little to slip on. "Stacking 6 layers with kernel
# size 5 results in an
# input field of 25 elements" is **right** for stride 1 without dilation (22.12); the likely misreadings:
#
# | claim | cell that refutes it | right |
# |---|---|---|
# | "six layers of five see 30, or 31" | check (22.12) | each layer adds $k-1=4$: 25 |
# | "attention weights follow the order of the words" | checks (22.2): a shuffled source, the same context | order lives in $h_j$ |
#
# ## What it costs
#
# Per output word additive attention multiplies $W s$ once, $v$ with $S$ hidden layers, and the weights with
# $S$ keys;
# $Uh_j$ is made once per source. For $T$ words, in multiplications of a batch row:
#
# $$N_{\times}=S\,d_kd_a+T\,\big(d_qd_a+S\,d_a+S\,d_k\big)=O(ST). \tag{22.13}$$

# %%
def attention_cost(S, T, d_query, d_key, d_attn):
    """Multiplications of additive attention for one source, eq. (22.13)."""
    return S * d_key * d_attn + T * (d_query * d_attn + S * d_attn + S * d_key)

# %%
def counted(S, T, d_query, d_key, d_attn):
    """The same, counted by torch while it runs (it counts 2 operations each)."""
    net, h = AdditiveAttention(d_query, d_key, d_attn), torch.randn(1, S, d_key)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        projected = net.U(h)
        for _ in range(T):
            net.read(torch.randn(1, d_query), h, projected, torch.ones(1, S, dtype=torch.bool))
    return counter.get_total_flops() // 2

# %%
for case in ((7, 5, 3, 4, 6), (20, 9, 8, 16, 8)):
    check(
        "22.13",
        f"S, T, d_q, d_k, d_a = {case}: torch's own counter",
        attention_cost(*case),
        counted(*case),
    )

# %% [markdown]
# **Convolution or LSTM?** Forward and backward, batch 32, 128 positions, width 64: one LSTM; one gated
# convolution with about as many weights; the stack of six
# that sees 25.

# %% tags=["nbval-ignore-output", "hide-input"]
def forward_backward(net, x):
    """One training step's work."""
    out = net(x)
    (out[0] if isinstance(out, tuple) else out).square().mean().backward()

# %% tags=["nbval-ignore-output", "hide-input"]
wide = 64
nets = {
    "LSTM": nn.LSTM(wide, wide, batch_first=True),
    "one GLU, k = 4": GLUBlock(wide, wide, 4),
    "six GLU, k = 5": nn.Sequential(*[GLUBlock(wide, wide, 5) for _ in range(6)]),
}
rows = {}

# %% tags=["nbval-ignore-output", "hide-input"]
for name, net in nets.items():
    x = torch.randn(*((32, 128, wide) if name == "LSTM" else (32, wide, 128)))
    spent = []
    for _ in range(REPEATS):
        start = time.process_time()
        forward_backward(net, x)
        spent.append(time.process_time() - start)
    rows[name] = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "CPU ms": 1e3 * min(spent),
    }

# %% tags=["nbval-ignore-output", "hide-input"]
pd.DataFrame(rows).T.round(1)

# %% [markdown]
# "Convolutions are faster than recurrence" is a statement about one layer, and about hardware that runs
# positions in
# parallel: compare the rows yourself. (On a GPU the cell has to be run anew; no such figure is claimed here.)
#
# ## Break it
#
# Change one place of one function and see which ✓ turn red.

# %% tags=["nbval-ignore-output"]
break_it()

# %% [markdown]
# ## Exam
#
# Answer aloud first, then open the model answer.

# %% [markdown] tags=["exam"]
# ### Question 49 · Write Bahdanau attention and count its parameters.
#
# **По-русски.** Выпишите механизм внимания Бахданау (Bahdanau) и подсчитайте число его параметров.
#
# <details><summary>Model answer</summary>
#
# The encoder gives states $h_1,\dots,h_S\in\mathbb R^{d_k}$; the decoder's state before word $t$ is
# $s_{t-1}\in\mathbb R^{d_q}$.
# Scores $e_{tj}=v^\top\tanh(Ws_{t-1}+Uh_j)$ with $W\in\mathbb R^{d_a\times d_q}$, $U\in\mathbb R^{d_a\times
# d_k}$, $v\in\mathbb R^{d_a}$;
# weights $\alpha_{tj}=\exp e_{tj}/\sum_{m=1}^S\exp e_{tm}$, so $\alpha_{tj}>0$ and $\sum_j\alpha_{tj}=1$ over
# source positions; padding
# gets $e=-\infty$. Context $c_t=\sum_j\alpha_{tj}h_j$; it enters the next state $s_t=f(s_{t-1},y_{t-1},c_t)$
# and the word $p(y_t\mid y_{<t},x)$.
# Parameters: $W$ has $d_ad_q$, $U$ $d_ad_k$, $v$ $d_a$: together $d_a(d_q+d_k+1)$, without biases and
# independent of the
# lengths. With $d_a=d_q=1000$, $d_k=2000$ (both directions): $1000\cdot3001=3\,001\,000$. Cost $O(ST)$ for
# $T$ words. It is trained with the
# rest by gradient: $\partial c_t/\partial e_{tj}=\alpha_{tj}(h_j-c_t)$.
#
# **Ответ по-русски.** Кодировщик выдаёт состояния $h_1,\dots,h_S\in\mathbb R^{d_k}$; состояние декодировщика
# перед словом $t$ —
# $s_{t-1}\in\mathbb R^{d_q}$. Оценки: $e_{tj}=v^\top\tanh(Ws_{t-1}+Uh_j)$, где $W\in\mathbb R^{d_a\times d_q}$,
# $U\in\mathbb R^{d_a\times d_k}$, $v\in\mathbb R^{d_a}$. Веса внимания получаются с помощью функции softmax
# по позициям входной последовательности:
# $\alpha_{tj}=\exp e_{tj}/\sum_{m=1}^S\exp e_{tm}$, $\alpha_{tj}>0$, $\sum_j\alpha_{tj}=1$; для
# позиций дополнения (паддинга) $e_{tj}=-\infty$. Вектор контекста:
# $c_t=\sum_j\alpha_{tj}h_j$; он входит в следующее состояние $s_t=f(s_{t-1},y_{t-1},c_t)$ и в распределение
# $p(y_t\mid y_{<t},x)$. Число параметров: $d_ad_q$ в $W$, $d_ad_k$ в $U$ и $d_a$ в $v$, всего
# $d_a(d_q+d_k+1)$; сдвигов нет, от длин
# последовательностей число не зависит. При $d_a=d_q=1000$, $d_k=2000$ (два направления) получаем
# $3\,001\,000$. Вычислительная сложность — $O(ST)$ для $T$
# слов. Параметры обучаются вместе с остальной сетью градиентным методом: $\partial c_t/\partial
# e_{tj}=\alpha_{tj}(h_j-c_t)$.
#
# **Typical mistake.** A softmax over the words instead of the source positions; biases counted; $d_k=1000$
# although both directions are joined.
#
# **Типичная ошибка.** Softmax не по позициям входа; учтены несуществующие сдвиги; забыто, что кодировщик
# двунаправленный.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 50 · What receptive field do six stride-1 layers with kernel 5 have? Generalise to dilation and stride.
#
# **По-русски.** Каково рецептивное поле шести свёрточных слоёв с ядром размера 5 и шагом 1? Обобщите на
# случай прореживания (dilation) и шага (stride).
#
# <details><summary>Model answer</summary>
#
# One output of a layer depends on $k$ neighbouring outputs of the layer below, the outermost $k-1$ apart.
# Spans add: $R-1=\sum_l(k_l-1)$;
# six layers with $k=5$: $R=1+6\cdot4=25$. With dilation $d_l$ the outermost are $(k_l-1)d_l$ apart. With
# stride $r_m$ in layer $m$, neighbouring outputs of
# layer $l-1$ are $r_1\cdots r_{l-1}$ input positions apart (the stride of a layer counts for the layers
# *above* it). Hence
# $R=1+\sum_{l=1}^L(k_l-1)d_l\prod_{m<l}r_m$ for $L$ layers from the input up.
# Example: dilations $1,2,4,8,16,32$ and $k=5$: $1+4\cdot63=253$.
#
# **Ответ по-русски.** Один выход слоя зависит от $k$ соседних выходов предыдущего слоя; расстояние между
# крайними равно $k-1$. Расстояния складываются:
# $R-1=\sum_l(k_l-1)$, для шести слоёв с $k=5$ получаем $R=1+6\cdot4=25$. При коэффициенте прореживания $d_l$
# крайние позиции отстоят на $(k_l-1)d_l$. Если
# шаг слоя $m$ равен $r_m$, то соседние выходы слоя $l-1$ отстоят друг от друга на $r_1\cdots r_{l-1}$ входных
# позиций (шаг слоя влияет только на слои *выше* него).
# Итак, $R=1+\sum_{l=1}^L(k_l-1)d_l\prod_{m<l}r_m$, где $L$ — число слоёв (слои нумеруются от входа).
# Пример: коэффициенты $1,2,4,8,16,32$ и $k=5$ дают
# $1+4\cdot63=253$.
#
# **Typical mistake.** $1+\sum k_ld_l$ (31), or a product of kernels; the stride of the layer itself counted.
#
# **Типичная ошибка.** $1+\sum k_ld_l$ (31) или произведение размеров ядер; учтён шаг самого слоя.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# - A decoder is a distribution over strings; the factors are trained with the true words before them.
# - Attention: scores by a small network, softmax over source positions, a weighted mean. $d_a(d_q+d_k+1)$
#   weights, $O(ST)$ work.
# - Attention ignores order; the $h_j$ must know it.
# - Wrong output: compare $\log p$ with the reference's before you widen the beam.
# - GLU: a linear path through an open gate; $R=1+\sum(k_l-1)d_l\prod_{m<l}r_m$.
#
# References
#
# - Bahdanau, Cho, Bengio (2015). [Neural machine translation by jointly learning to align and
#   translate](https://arxiv.org/abs/1409.0473). ICLR.
# - Sutskever, Vinyals, Le (2014). [Sequence to sequence learning with neural
#   networks](https://arxiv.org/abs/1409.3215). NIPS.
# - Dauphin, Fan, Auli, Grangier (2017). [Language modeling with gated convolutional
#   networks](https://arxiv.org/abs/1612.08083). ICML.
# - Gehring et al. (2017). [Convolutional sequence to sequence learning](https://arxiv.org/abs/1705.03122).
#   ICML.
#
# <!-- navigation -->
# previous: [21 Sequence labelling](21_sequence_labelling.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [31 Sound features](31_sound_features.ipynb)
# <!-- /navigation -->
