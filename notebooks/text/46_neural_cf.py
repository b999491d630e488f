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
# # 46 · Neural collaborative filtering: is a learned similarity better than a product?
#
# A loud listener likes loud tracks, a quiet one quiet tracks. A scalar product says so with one number each.
# Since 2017 networks are asked instead: give them both vectors, and let them *learn* what fits. What do they
# gain, what do they lose, and which networks add something that the product lacks?
#
# **You will be able to**
#
# - find the embeddings in a network with one-hot inputs, and write NCF, GMF, MLP and NeuMF with their loss;
# - say why a network on two concatenated vectors contains no exact product, and how near it comes;
# - reproduce Rendle's critique, both halves: learning a dot product, and the benchmark done again;
# - build Wide & Deep with its cross products, and the cross layer; count degrees, monomials, free numbers;
# - judge such a comparison: seeds, trivial answers, sampled and full ranking, what retrieval costs.
#
# **Prerequisites**: [43 latent factors](43_latent_factors.ipynb), [44 implicit ALS](44_implicit_als.ipynb) (the
# log of plays, its truth), [45 factorization machines](45_factorization_machines.ipynb),
# [41 ranking metrics](41_ranking_metrics.ipynb). How the pages work: [00 start here](00_start_here.ipynb).
#
# **Reading** 75 min + exercises 60 min · **Time** 60 s on 2 CPU cores · **Memory** 0.7 GB · **Data** simulated plays with a known truth (full run: MovieLens 100K) · **Exam questions** 69, 71
#
# **Exam route** question 69 → sections 1–4 (30 min) · question 71 → section 9, E144, E145 (25 min)
#
# <details><summary>Notation</summary>
#
# | symbol | in code | shape, unit |
# |---|---|---|
# | $u$; $i$, $j$: user (listener); items (tracks) | `user`; `item` | ids from 0 |
# | $n$, $m$: numbers of users and items | `n`, `m` | |
# | $e_u$: one-hot vector of a user, 1 at place $u$ | `one_hot` | $(n,)$ |
# | $d$: length of an embedding, in sections 8 and 9 of the input $x$ or $x_0$ | `d` | integer ≥ 1 |
# | $p_u$, $q_i$: embeddings of a user, of an item | `p`, `q` | $(d,)$ |
# | $p^G_u$, $q^G_i$: embeddings of the product branch (GMF) | `p_gmf`, `q_gmf` | |
# | $W$, $b$: weights and bias of a layer ($W_l$, $b_l$: of layer $l$) | `weight`, `bias` | |
# | $z_l$: output of layer $l$ of the MLP; $z_0=[p_u;q_i]$ | `z` | |
# | $H_l$: width of layer $l$ | `hidden` | integer ≥ 1 |
# | $L$: number of layers | `len(hidden)`, `n_cross` | |
# | $h$: weights of the last layer | `model.h` | |
# | $a_{ui}$: logit of a pair | `model(user, item)` | |
# | $\sigma(a)$: logistic function $1/(1+e^{-a})$ | `sigmoid` | 0 … 1 |
# | $y_{ui}$, $\hat y_{ui}$: was it played; probability by the model, $\sigma(a_{ui})$ | `y` | 0 or 1; 0 … 1 |
# | $\mathcal Y$, $\mathcal Y^-$: played pairs; sampled negatives | `user, item` | |
# | $K$: number of linear pieces of a function; of cross products in section 8 | `K` | |
# | $\tau$, $s$: standard deviations of the embeddings' entries, of the noise | `tau`, `sd` | |
# | $\lambda$: weight of the L2 penalty (of iALS) | `lam` | ≥ 0 |
# | $\rho$: place of the hidden item, 0 is first | `place` | |
# | $x$: features of a row, in section 8 of 0 and 1 | `x` | $(d,)$ |
# | $\phi_k(x)$: cross product number $k$ | `cross_product(x, C)` | 0 or 1 |
# | $c_{ki}$, $C$: 1 if feature $i$ takes part in cross product $k$ | `C` | $(K,d)$ |
# | $w_{\mathrm{wide}}$, $w_{\mathrm{deep}}$: weights of the wide part, of the last deep layer $z_L$ | `wide`, `out` | |
# | $x_0$, $x_l$: input of a cross network, output of its layer $l$ | `x0`, `x` | $(d,)$ |
# | $w_l$: weight vector of a cross layer | `w` | $(d,)$ |
# | $g_l$: polynomial $x_l^\top w_l$ | `g_poly` | a number |
# | $\nu$: exponents of a monomial, $\lvert\nu\rvert=\nu_1+\dots+\nu_d$ its degree | `powers` | $\mathbb N^d$ |
# | $t$: position on a ray $t\,x_0$ | `t` | |
#
# The notes write $\alpha_u$, $\beta_i$ for the one-hot vectors, and $\alpha$ for $\nu$.
#
# </details>
#
# <!-- navigation -->
# previous: [45 Factorization machines](45_factorization_machines.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [47 Two towers](47_two_tower.ipynb)
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
import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sympy
import torch
import torch.nn.functional as F
from ipywidgets import Checkbox, FloatSlider, IntSlider, SelectionSlider, fixed, interact
from scipy.special import logit, ndtr
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.flop_counter import FlopCounterMode

from helpers import measured

PAGE = "46"
WIDE = {"style": {"description_width": "14em"}, "layout": {"width": "36em"}}
plt.rcParams["figure.dpi"] = 72                 # many figures: the page stays small

# %% tags=["parameters", "hide-input"]
DATA = "plays"            # or "ml-100k": every rating a click
SEEDS = 5                 # nets behind each number
FEW_SEEDS = 5             # the same in sections 6 and 9 and for the starts
GRID_D = [8, 16, 32]      # section 6: lengths of the vectors, numbers of samples
GRID_SAMPLES = [1000, 3000, 9000]
DOT_EPOCHS = 32
PAPER_RUNS = []           # full run: [d, users, first layer times] as in Rendle's Figure 3
D_GMF = 16                # section 7
D_MLP = 16
HIDDEN = (32, 16, 8)
D_NEUMF = 8               # NeuMF: 8 and 8, so that all have 16 numbers a user
HIDDEN_NEUMF = (16, 8)
EPOCHS = [4, 6, 8]              # tried for GMF, NeuMF, MF on the validation items
EPOCHS_MLP = [8, 12, 16]        # the pure MLP is slower, even with twice the step
LR = 0.01
BATCH = 2048
PENALTIES = [0.0, 2e-5]         # tried for each of the four; 1e-4 had gained nothing
IALS_D = 16
IALS_ALPHA = 10.0
IALS_LAM = 60.0           # tried beside half and double of it
STARTS = [0.001, 0.05, 1.0]     # standard deviations of the embeddings at the start
LADDER_EPOCHS = 40        # section 10: at most; it stops when so many epochs brought nothing
LADDER_PATIENCE = 3
LADDER_D = 8
LADDER_HIDDEN = [32, 16]
LADDER_LR = [0.05, 0.01, 0.02]  # linear rungs, FM, networks: best on validation of two each
LADDER_BATCH = 1024
LADDER_PENALTY = 1e-4
SPLIT_SEEDS = 1           # section 11: NeuMF on the split of 44
CATALOGUES = [1_000, 10_000, 100_000]   # items in what retrieval costs

# %% [markdown]
# ## 1. The idea: a product says "same sign", a sum cannot
#
# Two listeners, two tracks, one number each: Vera likes it loud ($p=1$), Gleb quiet ($p=-1$); *Rails* is loud
# ($q=1$), *Lullaby* quiet ($q=-1$). Vera plays *Rails*, Gleb *Lullaby*. The product $pq$ is right in all
# four cells. Now let a layer of the simplest network decide, by the *sum* of its inputs: $\max(0,p+q)$.

# %%
relu = lambda x: np.maximum(x, 0)
p_four, q_four = np.array([[1.0], [-1.0]]), np.array([[1.0, -1.0]])  # Vera, Gleb; Rails, Lullaby
print("product:", (p_four * q_four).tolist(), " one ReLU:", relu(p_four + q_four).tolist())

# %% [markdown]
# The unit fires for Vera and *Rails* and is silent for Gleb and *Lullaby*: it knows "both are loud", not
# "they match". No single unit $h\max(0,w_pp+w_qq+b)+c$ can do it (try below). Two can:
# $\max(0,p+q)+\max(0,-p-q)-1=\lvert p+q\rvert-1$. So a network *can* imitate the product, piece by piece.
# NeuMF does not choose: a product in one lane, layers in the other, and a fusion on top.

# %% tags=["hide-input"]
scheme({"u": (0, 1.6, "user $u$", "round"), "i": (0, 0.2, "item $i$", "round"),
        "pg": (1.1, 1.9, "$p^G_u$, $q^G_i$", "box"), "pm": (1.1, -0.1, "$p_u$, $q_i$", "box"),
        "dot": (2.3, 1.9, "product by entries\n$p^G_u\\odot q^G_i$", "bold"),
        "cat": (2.3, -0.1, "concatenation\n$z_0=[p_u;q_i]$", "bold"),
        "mlp": (3.5, -0.1, "layers\n$z_1,\\dots,z_L$", "box"),
        "h": (4.3, 0.9, "fusion\n$h^\\top[\\,\\cdot\\,;\\,\\cdot\\,]$", "bold"),
        "y": (5.3, 0.9, "$\\hat y=\\sigma(a)$", "round")},
       [("u", "pg"), ("u", "pm"), ("i", "pg"), ("i", "pm"), ("pg", "dot"), ("pm", "cat"),
        ("cat", "mlp"), ("dot", "h"), ("mlp", "h"), ("h", "y")], size=(9.8, 2.9))
plt.show()

# %% [markdown]
# **Predict.** One ReLU unit, weights $w_p$, $w_q$ and bias $b$ in your hand. How many of the four comparisons
# (a cell that fits against one that does not) can you get right? Is there a setting with four?

# %% tags=["hide-input"]
def draw_unit(w_p=1.0, w_q=1.0, b=0.0, second=False, ax=None):
    """What one ReLU unit (or it and its mirror image) says on the plane of p and q."""
    ax = plt.subplots(figsize=(4.4, 3.4))[1] if ax is None else ax
    p, q = np.meshgrid(np.linspace(-1.5, 1.5, 61), np.linspace(-1.5, 1.5, 61))
    f = lambda p, q: relu(w_p * p + w_q * q + b) + second * relu(-w_p * p - w_q * q - b)
    fits, not_fits = (f(1, 1), f(-1, -1)), (f(1, -1), f(-1, 1))
    won = sum(a > c for a, c in itertools.product(fits, not_fits))
    ax.contourf(p, q, f(p, q), levels=12, cmap="Greys", alpha=0.7)
    for x, y, name in ((1, 1, "Vera, Rails"), (-1, -1, "Gleb, Lullaby"),
                       (1, -1, "Vera, Lullaby"), (-1, 1, "Gleb, Rails")):
        ax.scatter(x, y, marker="o" if x * y > 0 else "x", color="#1b4f8f", s=60, zorder=3)
        ax.text(x, y + 0.17, f"{name}\n{f(x, y):.1f}", ha="center", fontsize=7,
                bbox={"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.8})
    ax.set(xlabel="$p$", ylabel="$q$", xlim=(-1.6, 1.6), ylim=(-1.5, 1.7))
    ax.set_title(f"{'two units' if second else 'one unit'}: {won} of 4 pairs in order", fontsize=9)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=(9.8, 3.2), sharey=True)
for ax, args in zip(axes, ((1, 1, 0), (1, 1, -1), (1, 1, 0, True))):
    draw_unit(*args, ax=ax)
plt.show()

# %% tags=["nbval-ignore-output"]
slide = lambda name, value: FloatSlider(value, min=-2, max=2, step=0.1, description=name, **WIDE)
interact(draw_unit, w_p=slide("weight of the listener", 1.0), w_q=slide("weight of the track", 1.0),
         b=slide("bias b", 0.0), second=Checkbox(False, description="add the mirror image"),
         ax=fixed(None));

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# The title compares each cell that fits (circles) with each that does not (crosses). One unit gets at most
# two of the four comparisons strictly right: it is monotone in $s=w_pp+w_qq$; the circles have $s=\pm a$,
# the crosses $s=\pm c$ with $a=w_p+w_q$, $c=w_p-w_q$. The outermost pair, on both sides of the other, wins two
# comparisons and loses two. With the mirror image and $b=0$, $w_p=w_q$ all four are right; a bias may
# destroy it.
#
# </details>

# %%
settings = np.array(list(itertools.product(np.linspace(-2, 2, 17), repeat=3)))  # (4913, 3)
unit = lambda p, q: relu(settings @ np.array([p, q, 1.0]))
right = [sum((h * unit(*a) > h * unit(*c)).astype(int) for a in ((1, 1), (-1, -1))
             for c in ((1, -1), (-1, 1))) for h in (1, -1)]
claim("4,913 single units, h = 1 and h = -1: at most two of the four comparisons are right",
      int(np.max(right)), below=3, trivial=4)

# %% [markdown]
# The question of the page: *is a learned similarity better than a product?* First the parts.
#
# ## 2. Where are the embeddings?
#
# The notes feed a network with one-hot vectors: $e_u$ has a 1 at place $u$. The first layer computes $We_u$,
# which only picks a column:
#
# $$We_u=W_{:,u}=p_u \tag{46.1}$$
#
# So the columns of the first layer's weights are the users' vectors, and nobody multiplies by the zeros: a
# lookup table (`Embedding`) stores them as rows. **E131**: this holds without bias and activation. A column
# $(1,-0.5)$ with bias $(0.1,0.2)$ and ReLU comes out as $(1.1,0)$, no longer a column; and if the one-hot
# vector is followed by other features (age, country), their columns are added to it.
#
# ### Exercise 46.A · The table inside a layer · ●○○ · 5 min
#
# Given a layer $f(x)=Wx+b$ with one-hot inputs, return the table of an `Embedding` that gives, for every
# user, exactly what the layer gives, and the table of the pure columns.

# %%
def tables_of_layer(W, b):  # (d, n), (d,) -> two tables (n, d)
    """(table that reproduces W e_u + b, table of the columns of W), one row a user."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
dice = torch.Generator().manual_seed(0)
draw = lambda *shape: torch.randn(*shape, generator=dice)
cases_A = [((W, b), (W.T + b, W.T)) for W, b in ((draw(2, 3), draw(2)), (draw(3, 3), draw(3)))]

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("46.A", tables_of_layer, cases_A, mistakes={
    "you left the bias out of the first table": lambda W, b: (W.T, W.T),
    "you left the bias in the second table: a column of W has none":
        lambda W, b: (W.T + b, W.T + b),
    "you returned columns where a table has one row for each user":
        lambda W, b: (W + b[:, None], W),
    "you applied a ReLU, which this layer has not": lambda W, b: ((W.T + b).relu(), W.T)})

# %% [markdown]
# <details><summary>Hint 1</summary>Row $u$ of the table is what comes out for $e_u$.</details>
# <details><summary>Hint 2</summary>All outputs at once: the layer applied to the identity matrix.</details>
# <details><summary>Solution 46.A</summary>
#
# ```python
# def tables_of_layer(W, b):
#     return W.T + b, W.T
# ```
#
# The bias can be moved into the table, as every row gets it. An activation could not be undone: where ReLU
# says 0, the column is lost.
#
# </details>

# %%
layer = nn.Linear(5, 3, bias=False).double()                       # five users, three numbers each
one_hot = torch.eye(5, dtype=torch.float64)                        # row u is e_u
table = nn.Embedding.from_pretrained(layer.weight.detach().T)
check("46.1", "a layer applied to a one-hot vector is the Embedding's row of that user",
      layer(one_hot), table(torch.arange(5)), atol=0)

# %%
biased = nn.Linear(1, 2)                                     # one user: the one-hot vector is 1
biased.load_state_dict({"weight": torch.tensor([[1.0], [-0.5]]), "bias": torch.tensor([0.1, 0.2])})
claim("with bias and ReLU a layer gives (1.1, 0), no longer its column (1, -0.5) (E131)",
      biased(torch.ones(1)).relu().detach(), [1.1, 0.0], atol=1e-6,
      trivial=biased.weight[:, 0].detach())

# %% [markdown]
# ## 3. NCF: MLP, GMF, NeuMF
#
# **MLP.** Put the two embeddings behind each other and apply $L$ layers:
#
# $$z_0=\begin{bmatrix}p_u\\q_i\end{bmatrix},\qquad z_l=\max(0,W_lz_{l-1}+b_l),\quad l=1,\dots,L,\qquad a_{ui}=h^\top z_L+b,\qquad\hat y_{ui}=\sigma(a_{ui}) \tag{46.2}$$
#
# **GMF** (generalised matrix factorisation): $a_{ui}=h^\top(p^G_u\odot q^G_i)+b$; with $h=(1,\dots,1)$, $b=0$
# this is matrix factorisation. **NeuMF** has both branches, each with its *own* embeddings, and one last layer:
#
# $$\hat y_{ui}=\sigma\Big(h^\top\begin{bmatrix}p^G_u\odot q^G_i\\z_L\end{bmatrix}+b\Big) \tag{46.3}$$
#
# (**E141**: the notes announce "an MLP tower added to MF" but print the MLP alone, 46.2; what adds it to MF is
# 46.3.) $h$ is learned, so $h=(1,0)$, product only, and $h=(0,1)$, layers only, are both inside.
#
# ### Exercise 46.B · NeuMF forward · ●●○ · 12 min
#
# Write 46.3 for a batch of pairs with plain matrix operations, and return probabilities.

# %%
def neumf_forward(p_gmf, q_gmf, p_mlp, q_mlp, weights, biases, h, b):
    """Probabilities (B,). p_gmf, q_gmf (B, d); p_mlp, q_mlp (B, k): rows of the embeddings of
    the pairs; weights [(out, in), …], biases [(out,), …] of the ReLU layers; h (d + last,)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def neumf_variant(last=torch.sigmoid, halves=lambda p, q: torch.cat([p, q], 1), end=True,
                  product=lambda p, q: p * q, flip=False):
    """The answer, and its famous errors by the arguments."""
    def forward(p_gmf, q_gmf, p_mlp, q_mlp, weights, biases, h, b):
        z = halves(p_mlp, q_mlp)
        for k, (W, c) in enumerate(zip(weights, biases)):
            z = z @ W.T + c
            z = z.relu() if end or k < len(weights) - 1 else z
        parts = [product(p_gmf, q_gmf), z]
        return last(torch.cat(parts[::-1] if flip else parts, 1) @ h + b)
    return forward

# %% tags=["nbval-ignore-output", "hide-input"]
cases_B = [(args, neumf_variant()(*args)) for args in (
    (draw(4, 3), draw(4, 3), draw(4, 2), draw(4, 2), [draw(5, 4), draw(3, 5)], [draw(5), draw(3)],
     draw(6), draw(1)[0]) for _ in range(2))]
exercise("46.B", neumf_forward, cases_B, atol=1e-5, mistakes={
    "you took a softmax over the batch: each pair has its own sigmoid": neumf_variant(
        last=lambda a: a.softmax(0)),
    "you returned logits, not probabilities": neumf_variant(last=lambda a: a),
    "you put the item's vector before the user's": neumf_variant(
        halves=lambda p, q: torch.cat([q, p], 1)),
    "you left the ReLU out of the last layer": neumf_variant(end=False),
    "you added the vectors of the product branch": neumf_variant(product=lambda p, q: p + q),
    "you put the layers' output before the product": neumf_variant(flip=True)})

# %% [markdown]
# <details><summary>Hint 1</summary>Two parts of shape $(B,d)$ and $(B,\cdot)$, joined along dimension 1.</details>
# <details><summary>Hint 2</summary>A layer on a batch is `(z @ W.T + c).relu()`.</details>
# <details><summary>Solution 46.B</summary>
#
# ```python
# def neumf_forward(p_gmf, q_gmf, p_mlp, q_mlp, weights, biases, h, b):
#     z = torch.cat([p_mlp, q_mlp], 1)                                # (B, 2k)
#     for W, c in zip(weights, biases):
#         z = (z @ W.T + c).relu()
#     return torch.sigmoid(torch.cat([p_gmf * q_gmf, z], 1) @ h + b)  # (B,)
# ```
#
# A softmax would make the pairs of a batch compete; here each pair is a yes-or-no question of its own.
#
# </details>

# %%
class NeuMF(nn.Module):
    """Neural matrix factorisation, eq. (46.3), as logits (no sigmoid).

    d_gmf = 0: pure MLP, eq. (46.2); d_mlp = 0 and hidden = (): GMF. hidden: widths of the layers.
    ValueError: no branch at all, an MLP without layers or layers without an MLP.
    """

    def __init__(self, n_users, n_items, d_gmf, d_mlp, hidden):
        super().__init__()
        sizes = checked_sizes(n_users, n_items, d_gmf, d_mlp, hidden)
        for name, d in (("gmf", d_gmf), ("mlp", d_mlp)):
            if d:
                setattr(self, f"p_{name}", started(nn.Embedding(n_users, d)))
                setattr(self, f"q_{name}", started(nn.Embedding(n_items, d)))
        self.mlp = layers(sizes)
        self.h = nn.Linear(d_gmf + (sizes[-1] if d_mlp else 0), 1)
        self.n_users, self.n_items, self.d_gmf, self.d_mlp = n_users, n_items, d_gmf, d_mlp

    def forward(self, user, item):
        """Logits of pairs: user, item are ids of one shape, which the logits have, too."""
        return self.logits(*checked_pairs(self, user, item))

    def logits(self, user, item):
        """forward without a look at the ids."""
        parts = [self.p_gmf(user) * self.q_gmf(item)] if self.d_gmf else []
        if self.d_mlp:
            parts.append(self.mlp(torch.cat([self.p_mlp(user), self.q_mlp(item)], -1)))
        return self.h(torch.cat(parts, -1)).squeeze(-1)

# %%
def layers(sizes):
    """Linear and ReLU for each step from one width to the next."""
    return nn.Sequential(*(part for a, b in itertools.pairwise(sizes)
                           for part in (nn.Linear(a, b), nn.ReLU())))

# %%
def started(layer, sd=0.05):
    """The layer with normal weights; 0.05 leaves the saddle at 0 soon (the start, section 7)."""
    nn.init.normal_(layer.weight, std=sd)
    return layer

# %% tags=["hide-input"]
def listed(widths):
    """A number, or an iterable of numbers, as a list; ValueError for anything else."""
    try:
        return [widths] if isinstance(widths, Integral) else list(widths)
    except TypeError:
        raise ValueError(f"need widths such as (32, 16), got {widths!r}") from None


def all_whole(least, *values):
    """Are all values whole numbers and not below least?"""
    return all(isinstance(x, Integral) and not isinstance(x, bool) and x >= least for x in values)

# %% tags=["hide-input"]
def checked_sizes(n_users, n_items, d_gmf, d_mlp, hidden):
    """[2 d_mlp, *hidden], [] without MLP; ValueError for sizes that make no model."""
    hidden = listed(hidden)
    if not all_whole(1, n_users, n_items, *hidden) or not all_whole(0, d_gmf, d_mlp):
        raise ValueError("need whole n_users, n_items >= 1, d_gmf, d_mlp >= 0, hidden widths >= 1, "
                         f"got {(n_users, n_items, d_gmf, d_mlp, tuple(hidden))}")
    if not d_gmf and not d_mlp:
        raise ValueError("no branch: at least one of d_gmf and d_mlp must be positive")
    if bool(d_mlp) != bool(hidden):
        raise ValueError("an MLP needs layers: hidden=(…) and d_mlp > 0 go together "
                         f"(GMF: d_mlp=0, hidden=()), got d_mlp={d_mlp}, hidden={tuple(hidden)}")
    return [2 * d_mlp, *hidden] if d_mlp else []

# %% tags=["hide-input"]
def checked_pairs(model, user, item):
    """user, item as int64 on the model's device; ValueError for shapes or ids that do not fit."""
    device = next(model.parameters()).device
    user, item = (torch.as_tensor(x, device=device) for x in (user, item))
    if user.shape != item.shape:
        raise ValueError(f"user and item must have one shape, got {tuple(user.shape)}, "
                         f"{tuple(item.shape)}")
    return (checked_ids("user", user, model.n_users), checked_ids("item", item, model.n_items))


def checked_ids(name, ids, n):
    """ids as int64; ValueError unless they are whole numbers 0 … n - 1 (or none at all)."""
    if not ids.numel():
        return ids.long()
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must be integer ids, got {ids.dtype}")
    ids = ids.long()
    if ids.min() < 0 or ids.max() >= n:
        raise ValueError(f"{name} ids must lie in 0..{n - 1}, got {int(ids.min())}.."
                         f"{int(ids.max())}")
    return ids

# %% tags=["hide-input"]
def by_numpy(model, user, item):
    """Logits by eq. (46.3) from the model's own weights, in numpy."""
    w = {name: x.detach().numpy() for name, x in model.state_dict().items()}
    z = np.concatenate([w["p_mlp.weight"][user], w["q_mlp.weight"][item]], 1)
    for k in sorted({int(name.split(".")[1]) for name in w if name.startswith("mlp.")}):
        z = np.maximum(z @ w[f"mlp.{k}.weight"].T + w[f"mlp.{k}.bias"], 0)
    product = w["p_gmf.weight"][user] * w["q_gmf.weight"][item] if "p_gmf.weight" in w else z[:, :0]
    return np.concatenate([product, z], 1) @ w["h.weight"][0] + w["h.bias"][0]


torch.manual_seed(1)
some_users, some_items = torch.randint(7, (20,)), torch.randint(9, (20,))
small = NeuMF(7, 9, 3, 4, (6, 5)).double()
small_mlp = NeuMF(7, 9, 0, 4, (6, 5)).double()

# %%
check("46.2", "the MLP's logits are numpy's from its own weights",
      small_mlp(some_users, some_items).detach(),
      by_numpy(small_mlp, some_users.numpy(), some_items.numpy()), atol=1e-12)
check("46.3", "NeuMF's logits are numpy's from its own weights",
      small(some_users, some_items).detach(),
      by_numpy(small, some_users.numpy(), some_items.numpy()), atol=1e-12)

# %%
with torch.no_grad():
    small.h.weight[:] = torch.tensor([[1.0] * 3 + [0.0] * 5])                    # h = (1, 0)
    small.h.bias.zero_()
    R = small.p_gmf.weight @ small.q_gmf.weight.T                                # (7, 9)
check("46.3", "with h = (1, 0) NeuMF is the matrix factorisation P Qᵀ",
      small(*torch.meshgrid(torch.arange(7), torch.arange(9), indexing="ij")).detach(), R,
      atol=1e-14)

# %% [markdown]
# ## 4. No exact product, and how near it comes
#
# "NCF generalises matrix factorisation", the notes say. NeuMF does, as just checked. The MLP alone does not:
# a network of linear layers and ReLUs is *piecewise linear* in its inputs, and $pq$ is linear on no open
# set. So no weights make them equal, however wide the net. But it comes near. A product is a difference of
# squares,
# $$pq=\tfrac14\big((p+q)^2-(p-q)^2\big),$$
# sums are what a layer makes, and a square of one number can be drawn with $K$ straight pieces.
#
# ### Exercise 46.C · A scalar product out of squares · ●○○ · 6 min
#
# You may add, subtract, scale, and call `square` on a tensor (it works entry by entry). No other product of
# two variables: one case hands you a "square" three times as large, and your answer must follow.

# %%
def dot_by_squares(p, q, square):  # (B, d), (B, d), function -> (B,)
    """Scalar products of the rows of p and q, by squares of single numbers only."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
cases_C = [((p, q, torch.square), (p * q).sum(1)) for p, q in
           ((draw(3, 2), draw(3, 2)), (draw(2, 4), draw(2, 4)))]
p_C, q_C = draw(3, 2), draw(3, 2)
cases_C.append(((p_C, q_C, lambda x: 3 * x.square()), 3 * (p_C * q_C).sum(1)))

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("46.C", dot_by_squares, cases_C, atol=1e-5, mistakes={
    "you multiplied the variables": lambda p, q, square: (p * q).sum(1),
    "you lost a half: a quarter of (p + q)² - (p - q)², or a half of (p + q)² - p² - q²":
        lambda p, q, square: (square(p + q) - square(p - q)).sum(1) / 2,
    "you squared the sum over the entries, not each entry":
        lambda p, q, square: (square((p + q).sum(1)) - square((p - q).sum(1))) / 4,
    "you added the two squares": lambda p, q, square: (square(p + q) + square(p - q)).sum(1) / 4})

# %% [markdown]
# <details><summary>Hint 1</summary>$(p+q)^2-(p-q)^2=4pq$, entry by entry; then sum.</details>
# <details><summary>Solution 46.C</summary>
#
# ```python
# def dot_by_squares(p, q, square):
#     return (square(p + q) - square(p - q)).sum(1) / 4
# ```
#
# Each entry needs its own squares: a net pays for every dimension again.
#
# </details>
#
# For $\lvert p\rvert,\lvert q\rvert\le1$ both $p\pm q$ lie in $[-2,2]$. $K$ equal pieces, each of length $4/K$,
# touch the parabola at their ends and lie at most $4/K^2$ above it in their middle (on a piece from $s$
# to $t$ the gap is $(x-s)(t-x)\le(t-s)^2/4$). Both gaps are ≥ 0, so their difference is at most the larger,
# $4/K^2$; divided by 4, and added over $d$ coordinates:
#
# $$\Big\lvert\langle p,q\rangle-\tfrac14\sum_{f=1}^d\big[S_K(p_f+q_f)-S_K(p_f-q_f)\big]\Big\rvert\le\frac d{K^2},\qquad 2Kd\ \text{ReLUs} \tag{46.4}$$
#
# where $S_K$ is the drawn square, a sum of $K$ ReLUs and a constant. The bound is reached.

# %%
def product_net(K):
    """(W (2K, 2), b (2K,), h (2K,), c): one hidden layer that draws pq on |p|, |q| <= 1."""
    knots = -2 + 4 / K * np.arange(K)                                  # a ReLU starts at each
    slopes = np.r_[-4 + 4 / K, np.full(K - 1, 8 / K)]                  # changes of slope
    W = np.r_[np.ones((K, 2)), np.tile([1.0, -1.0], (K, 1))]
    return W, -np.r_[knots, knots], np.r_[slopes, -slopes] / 4, 0.0    # the constants 4 cancel

# %%
def drawn_product(p, q, K):
    """What product_net gives for arrays p, q of one shape."""
    W, b, h, c = product_net(K)
    return relu(p[..., None] * W[:, 0] + q[..., None] * W[:, 1] + b) @ h + c

# %%
for K in (2, 5, 8, 16):
    fine = np.linspace(-1, 1, 4 * K * 10 + 1)
    gap = drawn_product(*np.meshgrid(fine, fine), K) - np.outer(fine, fine)
    check("46.4", f"{2 * K} ReLUs draw pq with the largest error 1/K², here 1/{K * K}",
          np.abs(gap).max(), 1 / K**2, rtol=1e-9)
worst_at = np.unravel_index(np.abs(gap).argmax(), gap.shape)
p_3, q_3 = np.full(3, fine[worst_at[1]]), np.full(3, fine[worst_at[0]])

# %%
check("46.4", "three coordinates at their worst: the error is d/K²",
      abs(drawn_product(p_3, q_3, 16).sum() - p_3 @ q_3), 3 / 16**2, rtol=1e-9)

# %% tags=["hide-input"]
def draw_pieces(K=4, ax=None):
    """The plane of p and q: error of the product drawn with K pieces."""
    fig, ax = (ax.figure, ax) if ax is not None else plt.subplots(figsize=(4.4, 3.6))
    fine = np.linspace(-1, 1, 81)
    gap = drawn_product(*np.meshgrid(fine, fine), K) - np.outer(fine, fine)
    image = ax.contourf(fine, fine, gap, levels=np.linspace(-0.3, 0.3, 13), cmap="PuOr",
                        extend="both")
    ax.set(xlabel="$p$", ylabel="$q$", aspect="equal")
    ax.set_title(f"K = {K}: {2 * K} ReLUs, error ≤ {1 / K**2:.4f}", fontsize=9)
    ax.grid(False)
    return image

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 4, figsize=(9.8, 2.7), sharey=True)
for ax, pieces in zip(axes, (2, 3, 4, 8)):
    image = draw_pieces(pieces, ax)
fig.colorbar(image, ax=axes, label="error of $pq$", shrink=0.8)
plt.show()

# %% tags=["nbval-ignore-output"]
interact(draw_pieces, K=IntSlider(4, min=1, max=20, description="pieces K", **WIDE),
         ax=fixed(None));

# %% [markdown]
# That is what hand-set weights can do: 16 dimensions to within 0.01 need $K=40$ pieces, 1,280 ReLUs (the
# error of a sum is usually smaller than its bound). What *training* finds, and from how many samples, is
# another question: section 6.
#
# ## 5. The loss and the negatives
#
# Played pairs $\mathcal Y$ say 1. For each of them four items that the listener has *not* played are drawn at
# random, **anew in every epoch**, and say 0: the set $\mathcal Y^-$. The loss is the sum of cross-entropies
#
# $$\mathcal L=-\sum_{(u,i)\in\mathcal Y\cup\mathcal Y^-}\Big[y_{ui}\log\hat y_{ui}+(1-y_{ui})\log(1-\hat y_{ui})\Big] \tag{46.5}$$
#
# (**E141**: the notes lose the brackets; read literally, the second term stands outside the sum, with a
# plus.) With $\hat y=\sigma(a)$ the derivative is as simple as it can be:
#
# $$\frac{\partial\mathcal L}{\partial a_{ui}}=\hat y_{ui}-y_{ui} \tag{46.6}$$

# %%
def ncf_loss(a, y):
    """Eq. (46.5) from logits a and labels y of one shape: log ŷ and log(1 - ŷ), never log 0."""
    if a.shape != y.shape:
        raise ValueError(f"logits and labels must have one shape, got {tuple(a.shape)}, "
                         f"{tuple(y.shape)}: squeeze the model's output")
    return (F.softplus(a) - y * a).sum()                     # log(1 + e^a) - y a

# %%
a_50, y_50 = 3 * torch.randn(50, dtype=torch.float64), (torch.rand(50) < 0.3).double()
check("46.5", "the loss is PyTorch's summed cross-entropy of probabilities", ncf_loss(a_50, y_50),
      F.binary_cross_entropy(torch.sigmoid(a_50), y_50, reduction="sum"), rtol=1e-12)
step = 1e-6 * torch.eye(50, dtype=torch.float64)
slope = torch.stack([(ncf_loss(a_50 + e, y_50) - ncf_loss(a_50 - e, y_50)) / 2e-6
                     for e in step])

# %%
check("46.6", "the derivative by finite differences is ŷ - y", torch.sigmoid(a_50) - y_50, slope,
      atol=1e-7)
print("at logits of ±900:", float(ncf_loss(torch.tensor([900.0, -900.0]), torch.ones(2))))

# %% [markdown]
# ### Exercise 46.D · Negatives that are none · ●●○ · 10 min
#
# A candidate drawn at random may be an item that the listener has played: a false "no". Given the draws for
# each positive, return the first $k$ that are really unseen.

# %%
def clean_negatives(user, candidates, seen, k):
    """user (B,) ids; candidates (B, M) item ids, M > k; seen (n, m) bool. Returns (B, k) ids:
    per row the first k candidates that the user has not seen, in their order."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def first_unseen(user, candidates, seen, k, look=lambda user, candidates, seen:
                 seen[user[:, None], candidates]):
    """The answer; look says which candidates are refused."""
    refused = look(user, candidates, seen)
    return candidates.gather(1, refused.int().argsort(dim=1, stable=True)[:, :k])


seen_D = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]]).bool()
cases_D = [((torch.tensor(u), torch.tensor(c), seen_D, k), first_unseen(
    torch.tensor(u), torch.tensor(c), seen_D, k)) for u, c, k in (
        ([0, 1, 0], [[0, 2, 1, 5, 3], [2, 0, 5, 3, 1], [3, 1, 5, 2, 4]], 2),
        ([2, 2, 1], [[3, 0, 0, 5], [1, 3, 5, 4], [4, 1, 5, 3]], 2))]
exercise("46.D", clean_negatives, cases_D, mistakes={
    "you kept negatives that are positives": lambda u, c, s, k: c[:, :k],
    "you refused what anybody has seen, not this user": lambda u, c, s, k: first_unseen(
        u, c, s, k, lambda u, c, s: s.any(0)[c]),
    "you kept the seen ones": lambda u, c, s, k: first_unseen(
        u, c, s, k, lambda u, c, s: ~s[u[:, None], c]),
    "you looked into row 0, 1, … of `seen` instead of the row of the user":
        lambda u, c, s, k: first_unseen(u, c, s, k, lambda u, c, s: s[
            torch.arange(len(u))[:, None], c])})

# %% [markdown]
# <details><summary>Hint 1</summary>`seen[user[:, None], candidates]` is a table of who is refused, $(B,M)$.</details>
# <details><summary>Hint 2</summary>A *stable* argsort of it puts the unseen ones first and keeps their order.</details>
# <details><summary>Solution 46.D</summary>
#
# ```python
# def clean_negatives(user, candidates, seen, k):
#     refused = seen[user[:, None], candidates]                         # (B, M)
#     order = refused.int().argsort(dim=1, stable=True)                 # unseen first
#     return candidates.gather(1, order[:, :k])
# ```
#
# </details>

# %%
class Seen:
    """Which pairs (user, item) are positives: a table of bits, or a sorted list if too large."""

    def __init__(self, user, item, n_items, room=100_000_000):
        self.n_items, self.keys = n_items, (user * n_items + item).unique()
        full = (torch.bincount(self.keys // n_items) >= n_items).nonzero()
        if len(full):
            raise ValueError(f"user {int(full[0])} has seen all {n_items} items: no negative left")
        size = (int(user.max()) + 1) * n_items
        self.table = torch.zeros(size, dtype=torch.bool) if size <= room else None
        if self.table is not None:
            self.table[self.keys] = True

    def __call__(self, user, item):
        key = user * self.n_items + item
        if self.table is not None:
            return self.table[key]
        at = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        return self.keys[at] == key

    def unseen(self, user, generator):
        """One uniformly drawn unseen item for each entry of user: draw, redraw what is seen."""
        item = torch.randint(self.n_items, user.shape, generator=generator)
        while len(bad := self(user, item).nonzero()[:, 0]):
            item[bad] = torch.randint(self.n_items, bad.shape, generator=generator)
        return item

# %%
def epoch_of(user, item, seen, n_negatives, batch_size, generator):
    """Batches (user, item, y) of one epoch: positives and fresh negatives, shuffled."""
    others = user.repeat_interleave(n_negatives)
    u, i = torch.cat([user, others]), torch.cat([item, seen.unseen(others, generator)])
    y = (torch.arange(len(u)) < len(user)).float()
    order = torch.randperm(len(u), generator=generator)
    return list(zip(*(x[order].split(batch_size) for x in (u, i, y))))

# %%
def train_ncf(model, user, item, n_items, n_epochs, n_negatives=4, lr=1e-3, batch_size=1024,
              weight_decay=0.0, seed=0):
    """Train a model(user, item) -> logits by Adam on eq. (46.5), uniform negatives, in place.

    user, item: (N,) ids of the positives. Negatives are drawn anew in each epoch among what the
    user has not seen. Returns the mean loss of a pair in each epoch. ValueError: nothing to train
    on, ids out of range, numbers that are not positive, a user who has seen everything.
    """
    user, item = checked_training(model, user, item, n_items, n_epochs, n_negatives, batch_size)
    seen, generator = Seen(user, item, n_items), torch.Generator().manual_seed(seed)
    weights = list(model.parameters())
    optimizer = torch.optim.Adam(weights, lr=lr, weight_decay=weight_decay)
    history = []
    for _ in range(n_epochs):
        total = 0.0
        for batch in epoch_of(user, item, seen, n_negatives, batch_size, generator):
            u, i, y = (x.to(weights[0].device) for x in batch)
            loss = ncf_loss(model(u, i), y) / len(y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(y)
        history.append(total / (len(user) * (1 + n_negatives)))
    return history

# %% tags=["hide-input"]
def checked_training(model, user, item, n_items, n_epochs, n_negatives, batch_size):
    """(user, item) as int64 on the CPU, or a ValueError that says what does not fit."""
    user, item = (torch.as_tensor(x).cpu() for x in (user, item))
    for name, value in (("n_items", n_items), ("n_epochs", n_epochs),
                        ("n_negatives", n_negatives), ("batch_size", batch_size)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    if user.dim() != 1 or user.shape != item.shape or not len(user):
        raise ValueError("need one user and one item for each positive pair, at least one: got "
                         f"{tuple(user.shape)}, {tuple(item.shape)}")
    n_users = getattr(model, "n_users", int(user.max()) + 1)
    if getattr(model, "n_items", n_items) != n_items:
        raise ValueError(f"the model knows {model.n_items} items, n_items is {n_items}")
    return checked_ids("user", user, n_users), checked_ids("item", item, n_items)

# %% [markdown]
# **Many nets at once.** A number about a net means little without other seeds. `train_many` trains several
# nets of one shape side by side (one batch dimension more, by `vmap`), each with its own start, its own order
# and its own negatives. Adam works entry by entry, so nobody notices the neighbours.

# %%
class Through(nn.Module):
    """model.method as a module's forward, so that it can be called with other weights."""

    def __init__(self, model, method):
        super().__init__()
        self.model, self.method = model, method

    def forward(self, *args):
        return getattr(self.model, self.method)(*args)

# %%
def train_many(models, user, item, n_items, n_epochs, penalties=0.0, lr=LR, batch_size=BATCH,
               watch=None):
    """train_ncf for models of one shape side by side, seeds 0, 1, …; watch() after each epoch."""
    nets, seen = [Through(model, "logits") for model in models], Seen(user, item, n_items)
    weights, _ = stack_module_state(nets)
    logits = vmap(lambda w, u, i: functional_call(nets[0], w, (u, i)))
    where = next(models[0].parameters()).device
    penalties = torch.as_tensor(penalties, device=where).expand(len(nets))
    generators = [torch.Generator().manual_seed(k) for k in range(len(nets))]
    optimizer, history = torch.optim.Adam(weights.values(), lr=lr, fused=True), []
    for _ in range(n_epochs):
        epochs = [epoch_of(user, item, seen, 4, batch_size, g) for g in generators]
        losses = []
        for batches in zip(*epochs):
            u, i, y = (torch.stack(part).to(where) for part in zip(*batches))      # (nets, B)
            losses.append(adam_step(optimizer, weights, penalties, logits(weights, u, i), y))
        history.append(torch.stack(losses).mean(0))
        if watch:
            put_back(nets, weights)
            watch()
    put_back(nets, weights)
    return torch.stack(history)

# %%
def adam_step(optimizer, weights, penalties, a, y):
    """One step of all nets on cross-entropy of logits a (nets, B); returns their losses (nets,)."""
    loss = F.binary_cross_entropy_with_logits(a, y, reduction="none").mean(1)
    optimizer.zero_grad()
    loss.sum().backward()
    if penalties.any():
        for w in weights.values():
            w.grad += penalties.view(-1, *[1] * (w.dim() - 1)) * w.detach()
    optimizer.step()
    return loss.detach()


def put_back(nets, weights):
    """Copy stacked weights into the nets that they came from."""
    with torch.no_grad():
        for k, net in enumerate(nets):
            for name, w in net.named_parameters():
                w.copy_(weights[name][k])

# %%
def made(build, seeds, one_at_a_time=threading.Lock()):  # torch has one seed for all threads
    """A list of models on the device, each built after its own seed (on the CPU)."""
    models = []
    with one_at_a_time:
        for k in range(seeds):
            torch.manual_seed(k)
            models.append(build().to(device))
    return models


def in_pairs(job, names, desc):
    """{name: job(name)}, two at a time: a net as small as these leaves a second core idle."""
    threads, names = torch.get_num_threads(), list(names)
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(2) as pool:
            return dict(zip(names, progress(pool.map(job, names), desc=desc, total=len(names))))
    finally:
        torch.set_num_threads(threads)

# %%
toy_user, toy_item = torch.arange(400) % 20, (7 * torch.arange(400) + torch.arange(400) // 20) % 31
alone, = made(lambda: NeuMF(20, 31, 4, 4, (6,)), 1)
together = made(lambda: NeuMF(20, 31, 4, 4, (6,)), 3)
train_ncf(alone, toy_user, toy_item, 31, 2, lr=0.01, batch_size=256, weight_decay=1e-3)
train_many(together, toy_user, toy_item, 31, 2, penalties=1e-3, batch_size=256, lr=0.01)
claim("the first of three nets side by side is the one trained alone by train_ncf",
      together[0].h.weight.detach(), alone.h.weight.detach(), atol=1e-4,
      trivial=together[1].h.weight.detach())

# %%
played = set(zip(toy_user.tolist(), toy_item.tolist()))
toy_seen, toy_dice = Seen(toy_user, toy_item, 31), torch.Generator().manual_seed(0)
u_, i_, y_ = (torch.cat(x) for x in zip(*epoch_of(toy_user, toy_item, toy_seen, 4, 64, toy_dice)))
is_played = torch.tensor([pair in played for pair in zip(u_.tolist(), i_.tolist())])

# %%
claim("an epoch: label 1 exactly for the played pairs, no negative is one", y_.bool(), is_played,
      trivial=torch.rand(len(y_)) < 0.2)
constant = NeuMF(20, 31, 1, 0, ()).to(device)                    # the logit 1 for every pair
constant.h.load_state_dict({"weight": torch.zeros(1, 1), "bias": torch.ones(1)})
first_loss, = train_ncf(constant, toy_user, toy_item, 31, 1, lr=1e-12)
claim("its mean loss is that of one yes and four no", first_loss,
      (math.log(1 + math.exp(-1)) + 4 * math.log(1 + math.exp(1))) / 5, rtol=1e-5,
      trivial=math.log(1 + math.exp(1)))

# %% [markdown]
# ## 6. Rendle's critique, first half: can a network learn a product?
#
# Rendle and others (2020) gave networks the easiest case: vectors are *given*, the label is their scalar
# product and noise. Entries of the vectors are normal with standard deviation $\tau$, the noise has $s=0.85$.
# The product has mean 0 and variance $d\,\tau^4$ ($d$ independent terms, each $\mathbb E[p_f^2]\,\mathbb
# E[q_f^2]$), and $\tau$ is chosen such that "always 0" misses the label by 1.13:
#
# $$\mathrm{Var}\,\langle p,q\rangle=d\,\tau^4=1.13^2-s^2,\qquad s=0.85 \tag{46.7}$$
#
# The net: $[p;q]$ in, ReLU layers $2d$, $d$, $d/2$, one number out; Adam, step $10^{-3}$, batches of 256, 32
# epochs. The test pairs are *fresh* vectors, and we measure the distance to the true product: the scalar
# product itself has 0, "always 0" has $\sqrt{1.13^2-0.85^2}=0.745$.

# %%
ZERO = math.sqrt(1.13**2 - 0.85**2)                          # error of the answer "always 0"

# %%
def dot_samples(size, d, generator):
    """(p, q, product, label) of `size` = (…) fresh pairs by eq. (46.7); p, q (…, d)."""
    tau = math.sqrt(ZERO / math.sqrt(d))
    p, q = (tau * torch.randn(*size, d, generator=generator) for _ in range(2))
    dot = (p * q).sum(-1)
    return p, q, dot, dot + 0.85 * torch.randn(*size, generator=generator)

# %%
n_pairs = 400_000
for length in (1, 16):
    _, _, products, noisy = dot_samples((n_pairs,), length, torch.Generator().manual_seed(length))
    squares = products.double() ** 2
    check("46.7", f"d = {length}: variance of {n_pairs:,} products, within five standard errors",
          squares.mean(), ZERO**2, atol=5 * float(squares.std()) / n_pairs**0.5)
    off = noisy.double() ** 2
    check("46.7", f"d = {length}: always 0 misses the labels by 1.13", off.mean(), 1.13**2,
          atol=5 * float(off.std()) / n_pairs**0.5)

# %% [markdown]
# **Predict.** 16 dimensions and 9,000 samples: does the net come near 0? And if it is given the $d$ products
# $p_f q_f$ instead of the vectors, so that it only has to *add*?

# %%
class Nets:
    """B independent ReLU nets of one shape; they begin as nn.Linear does."""

    def __init__(self, B, sizes, generator):
        start = lambda a, *shape: (a**-0.5 * (2 * torch.rand(*shape, generator=generator) - 1)
                                   ).to(device)
        self.layers = [(start(a, B, a, b).requires_grad_(), start(a, B, 1, b).requires_grad_())
                       for a, b in itertools.pairwise(sizes)]

    def __call__(self, x):                                             # (B, N, d_in) -> (B, N)
        for k, (W, b) in enumerate(self.layers):
            x = torch.baddbmm(b, x, W)
            x = x.relu() if k + 1 < len(self.layers) else x
        return x[..., 0]

# %%
def fit_nets(nets, x, y, epochs, generator, batch_size=256):
    """Adam on the squared error, each net with its own samples x (B, N, d_in), y (B, N)."""
    optimizer = torch.optim.Adam(sum(nets.layers, ()), lr=1e-3, fused=True)
    for _ in range(epochs):
        order = torch.stack([torch.randperm(y.shape[1], generator=generator) for _ in y])
        order = order.to(y.device)
        x_new = x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))
        for a, b in zip(x_new.split(batch_size, 1), y.gather(1, order).split(batch_size, 1)):
            loss = (nets(a) - b).square().mean(1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

# %%
def learn_dot(d, samples, times=1, product=False, epochs=DOT_EPOCHS, seeds=FEW_SEEDS):
    """RMSE (seeds,) to the true product on fresh pairs; product: the net sees p ⊙ q, not [p; q]."""
    generator = torch.Generator().manual_seed(1000 * d + samples)
    see = lambda p, q: p * q if product else torch.cat([p, q], -1)
    p, q, _, label = dot_samples((seeds, samples), d, generator)
    x = see(p, q)
    hidden = [2 * d * times, d * times, d * times // 2]
    nets = Nets(seeds, [x.shape[-1], *hidden, 1], generator)
    fit_nets(nets, x.to(device), label.to(device), epochs, generator)
    p_new, q_new, dot, _ = dot_samples((seeds, 4000), d, generator)
    x_new = see(p_new, q_new)
    pairs = torch.cat([x[0], x_new[0]])
    assert len(pairs.unique(dim=0)) == len(pairs), "the test pairs must be fresh vectors"
    with torch.no_grad():
        return (nets(x_new.to(device)).cpu() - dot).square().mean(1).sqrt()

# %% tags=["hide-input"]
def with_spread(values, digits=3):
    """"mean ± standard deviation" over nets; the mean alone if there is one net."""
    values = np.asarray(values, dtype=float)
    error = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}"

# %%
dot_error = in_pairs(lambda sizes: learn_dot(*sizes), itertools.product(GRID_D, GRID_SAMPLES),
                     "cells")
D_SHOWN = GRID_D[-2]
given = in_pairs(lambda N: learn_dot(D_SHOWN, N, product=True), GRID_SAMPLES, "given")
as_many_steps = learn_dot(D_SHOWN, GRID_SAMPLES[0],
                          epochs=DOT_EPOCHS * GRID_SAMPLES[-1] // GRID_SAMPLES[0])

# %% tags=["nbval-ignore-output"]
cell = lambda errors: with_spread(errors, 2)
dot_table = pd.DataFrame({f"{N:,} samples": {f"net, d = {d}": cell(dot_error[d, N])
                                             for d in GRID_D} |
                          {f"the same net given p ⊙ q, d = {D_SHOWN}": cell(given[N]),
                           f"net, d = {D_SHOWN}, steps of {GRID_SAMPLES[-1]:,} samples":
                          cell(as_many_steps) if N == GRID_SAMPLES[0] else "",
                          "always 0": f"{ZERO:.2f}", "scalar product": "0"} for N in GRID_SAMPLES})

# %% tags=["nbval-ignore-output"]
dot_table

# %% [markdown]
# (Mean and standard deviation of five nets.)

# %% tags=["hide-input"]
mean_error = np.array([[float(dot_error[d, N].mean()) for N in GRID_SAMPLES] for d in GRID_D])
fig, axes = plt.subplots(1, 2, figsize=(10.4, 3.4), width_ratios=(1.1, 1))
image = axes[0].imshow(mean_error / ZERO, cmap="PuOr_r", vmin=0, vmax=2, origin="lower")
for (row, column), value in np.ndenumerate(mean_error):
    axes[0].text(column, row, f"{value:.2f}", ha="center", va="center")
axes[0].set_xticks(range(len(GRID_SAMPLES)), [f"{N:,}" for N in GRID_SAMPLES])
axes[0].set_yticks(range(len(GRID_D)), GRID_D)
axes[0].set(xlabel="samples", ylabel="$d$", title="RMSE; white: as bad as always 0")
axes[0].grid(False)
for d, look in zip(GRID_D, ("-", "--", "-.", ":")):
    errors = np.array([dot_error[d, N].numpy() for N in GRID_SAMPLES])
    axes[1].errorbar(GRID_SAMPLES, errors.mean(1), errors.std(1), ls=look, marker="o", ms=4,
                     capsize=3, label=f"net, $d$ = {d}")
axes[1].plot(GRID_SAMPLES, [float(given[N].mean()) for N in GRID_SAMPLES], "k-s", ms=4,
             label=f"given $p\\odot q$, $d$ = {D_SHOWN}")
axes[1].axhline(ZERO, color="gray", lw=2, label="always 0")
axes[1].axhline(0, color="black", lw=2, label="scalar product")
axes[1].set(xscale="log", xlabel="samples", ylabel="RMSE to the product")
axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
fig.colorbar(image, ax=axes[0], label="over that of always 0", shrink=0.8)
plt.show()

# %% tags=["hide-input"]
def draw_dot(d=GRID_D[0], samples=GRID_SAMPLES[-1], ax=None):
    """Errors of the nets of one cell of the grid, with the two lines to compare."""
    ax = plt.subplots(figsize=(4.4, 2.8))[1] if ax is None else ax
    ax.scatter(range(1, FEW_SEEDS + 1), dot_error[d, samples], color="#1b4f8f", zorder=3)
    ax.axhline(ZERO, color="gray", lw=2)
    ax.axhline(0, color="black", lw=2)
    ax.set(ylim=(-0.05, 1.1), xlabel="net (seed)", ylabel="RMSE")
    ax.set_title(f"d = {d}, {samples:,} samples: {dot_error[d, samples].mean():.2f}", fontsize=9)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 4, figsize=(9.8, 2.4), sharey=True)
for ax, (d, N) in zip(axes, itertools.product(GRID_D[::len(GRID_D) - 1],
                                              GRID_SAMPLES[::len(GRID_SAMPLES) - 1])):
    draw_dot(d, N, ax)
plt.show()

# %% tags=["nbval-ignore-output"]
interact(draw_dot, d=SelectionSlider(options=GRID_D, description="length d", **WIDE),
         samples=SelectionSlider(options=GRID_SAMPLES, value=GRID_SAMPLES[-1],
                                 description="samples", **WIDE), ax=fixed(None));

# %%
most, least = GRID_SAMPLES[-1], GRID_SAMPLES[0]
claim(f"from {least:,} samples at the largest d the nets are no better than always 0",
      float(dot_error[GRID_D[-1], least].mean()), above=ZERO, trivial=0.0)
claim(f"from {most:,} samples every mean error is still a third of that of always 0, or more",
      [float(dot_error[d, most].mean()) for d in GRID_D], above=ZERO / 3,
      trivial=[0.0] * len(GRID_D))
ratio = [float(given[N].mean() / dot_error[D_SHOWN, N].mean()) for N in GRID_SAMPLES[1:]]

# %%
claim("given the products, the same net is at least twice as near, from all but the fewest samples",
      ratio, below=0.5, trivial=[1.0] * len(ratio))
claim(f"{least:,} samples and as many steps as {most:,} take: more steps do not replace samples",
      float(as_many_steps.mean()), above=ZERO, trivial=float(dot_error[D_SHOWN, most].mean()))

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# With more samples the error falls, with more dimensions more samples are needed. The ablation changes only
# the input: given $p\odot q$ (a shorter input, the same widths behind it) the net has to learn a sum, which it
# does; so the multiplication is the hard part. Fewer samples also mean fewer steps of Adam here. The last claim
# gives 1,000 samples as many steps as 9,000 take: that makes it worse than "always 0", perhaps as the net then
# learns the noise by heart.
#
# </details>

# %% [markdown]
# ## 7. The critique, second half: the benchmark done again
#
# NCF's protocol: every user's **last** new item is the test, all earlier ones are for training (equal times:
# the later row of the file is the last). The score of the hidden item is compared with those of 99 random
# unseen items; a **hit** means that it is among the first ten. With one hidden item at place $\rho$ (0 is
# first)
#
# $$\mathrm{HR@}k=[\rho<k],\qquad\mathrm{nDCG@}k=\frac{[\rho<k]}{\log_2(\rho+2)} \tag{46.8}$$
#
# averaged over users. Beside it we rank *all* unseen items, as [41](41_ranking_metrics.ipynb) advises: sampled
# metrics can change the order of models. In addition the last but one is a **validation** item: what is tuned
# is tuned on it.
#
# ### Exercise 46.E · HR@k and nDCG@k of one list · ●○○ · 8 min
#
# Given the scores of candidates and which of them is the hidden one. A tie counts against the hidden item:
# a model that scores all alike must not get a hit. Nor must a diverged one: a NaN is no hit either.

# %%
def hit_and_ndcg(scores, target, k):
    """scores (M,), target: number of the hidden item. Returns (HR@k, nDCG@k), two floats."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def metrics_variant(ahead=lambda s, t: (~(s < s[t])).sum() - 1, shift=2.0, per=lambda k: 1.0,
                    last=0, ideal=lambda k: 1.0):
    """The answer, and its famous errors by the arguments."""
    def metrics(scores, target, k):
        place = int(ahead(scores, target))
        hit = float(place < k + last)
        return hit / per(k), hit / math.log2(place + shift) / ideal(k)
    return metrics


cases_E = [((np.array(s), t, k), metrics_variant()(np.array(s), t, k)) for s, t, k in (
    ([0.1, 0.9, 0.5, 0.3], 2, 3), ([0.4, 0.4, 0.4, 0.4, 0.4], 1, 4), ([3.0, 2, 1, 0], 2, 2),
    ([0.2, 0.8, 0.8, 0.1], 1, 2), ([5.0, 1.0], 0, 1), ([np.nan, 0.5, 0.2], 0, 2))]
exercise("46.E", hit_and_ndcg, cases_E, mistakes={
    "you let ties count for the hidden item": metrics_variant(lambda s, t: (s > s[t]).sum()),
    "you divided by log2 of place + 1 with the first place 0": metrics_variant(shift=1.0 + 1e-9),
    "you divided the hit by k: that is precision": metrics_variant(per=lambda k: k),
    "you counted place k + 1 as a hit": metrics_variant(last=1),
    "you normalised by k relevant items: there is one": metrics_variant(
        ideal=lambda k: sum(1 / math.log2(r + 2) for r in range(k)))})

# %% [markdown]
# <details><summary>Hint 1</summary>$\rho$: how many others do not score less.</details>
# <details><summary>Hint 2</summary>The best possible DCG of one relevant item is 1.</details>
# <details><summary>Solution 46.E</summary>
#
# ```python
# def hit_and_ndcg(scores, target, k):
#     place = int((~(scores < scores[target])).sum()) - 1      # the item itself is not ahead of itself
#     hit = float(place < k)
#     return hit, hit / math.log2(place + 2)
# ```
#
# Every comparison with NaN is false: `scores >= nan` would put a diverged model first, "not less" puts it last.
#
# </details>

# %%
def pairs_in_time(log):
    """(user, item, row): each pair once, at its first event, in the order of time, then of rows."""
    order = np.argsort(log.time.numpy(), kind="stable")
    key = (log.user * log.n_items + log.item).numpy()[order]
    rows = torch.from_numpy(order[np.sort(np.unique(key, return_index=True)[1])])
    return log.user[rows], log.item[rows], rows


def last_two_out(user, least=3):
    """Positions (train, valid, test) of pairs in time's order; users with fewer pairs: train."""
    order = torch.argsort(user, stable=True)
    end = torch.cat([user[order].diff() != 0, torch.tensor([True])])  # last pair of a user
    count = torch.bincount(user)[user[order]]
    at = (end & (count >= least)).nonzero()[:, 0]
    test, valid = order[at], order[at - 1]
    train = torch.ones(len(user), dtype=torch.bool)
    train[torch.cat([test, valid])] = False
    return train.nonzero()[:, 0], valid, test

# %%
log, items = data.ratings(DATA), data.items(DATA)
n, m = log.n_users, log.n_items
all_user, all_item, first_row = pairs_in_time(log)
train, valid, test = last_two_out(all_user)
user, item = all_user[train], all_item[train]
judged, hidden, tuned_on = all_user[test], all_item[test], all_item[valid]
seen_table = torch.zeros(n, m, dtype=torch.bool).index_put((user, item), torch.tensor(True))

# %%
print(f"{len(all_user):,} pairs, {len(train):,} to train on, {len(judged)} users are judged")

# %%
def places(scores, target, other, n_negatives=None, seed=0, users=None, seen=None):
    """Place (users,) of each user's target among the unseen (other left out), ties against.

    scores (n, m); n_negatives: among so many random unseen items instead of all; users (by default
    all judged), seen (n, m) (by default what was trained on). ValueError: NaN among the scores.
    """
    users, seen = judged if users is None else users, seen_table if seen is None else seen
    s = torch.where(seen, -torch.inf, torch.as_tensor(scores).double().cpu())[users]
    if s.isnan().any():
        raise ValueError("scores are NaN: did the training diverge?")
    rows = torch.arange(len(users))
    own, s[rows, other] = s[rows, target].clone(), -torch.inf
    s[rows, target] = -torch.inf
    if n_negatives:
        generator = torch.Generator().manual_seed(seed)
        draw = torch.rand(s.shape, generator=generator).masked_fill(s == -torch.inf, -1.0)
        s = s.gather(1, draw.topk(n_negatives, dim=1).indices)
    return (s >= own[:, None]).sum(1)


def hr_ndcg(place, k=10):
    """Eq. (46.8) for places of any shape, averaged over the last dimension: (HR, nDCG)."""
    hit = (place < k).double()
    return hit.mean(-1), (hit / torch.log2(place.double() + 2)).mean(-1)

# %%
dice = torch.Generator().manual_seed(3)
random_scores = torch.rand(200, 30, generator=dice).double()
one_hidden = F.one_hot(torch.randint(30, (200,), generator=dice), 30)
rank = (random_scores > random_scores[one_hidden.bool()][:, None]).sum(1)
check("46.8", "nDCG@10 is scikit-learn's on 200 lists with one relevant item",
      hr_ndcg(rank)[1], ndcg_score(one_hidden, random_scores, k=10), atol=1e-12)
in_first_ten = random_scores.topk(10, dim=1).indices == one_hidden.argmax(1)[:, None]

# %%
check("46.8", "HR@10 is the share of lists whose first ten hold it", hr_ndcg(rank)[0],
      in_first_ten.any(1).double().mean(), atol=1e-12)

# %%
ties = torch.tensor(np.random.default_rng(0).integers(4, size=(6, 9)))    # many ties
seen_6 = torch.tensor(np.random.default_rng(1).random((6, 9)) < 0.3)
two = torch.tensor(np.random.default_rng(2).permuted(np.tile(np.arange(9), (6, 1)), axis=1)[:, :2])
seen_6[torch.arange(6)[:, None], two] = False                    # hidden and validation item
some = torch.tensor([5, 0, 2, 3])

# %%
by_count = [sum(float(ties[u, j]) >= float(ties[u, two[u, 0]]) for j in range(9)
                if not seen_6[u, j] and j not in two[u].tolist()) for u in some.tolist()]
check("46.8", "places: others counted one by one, ties against, seen and validation items left out",
      places(ties, two[some, 0], two[some, 1], users=some, seen=seen_6), by_count, atol=0)
alike = hr_ndcg(places(torch.zeros(n, m), hidden, tuned_on))[0]
claim("scores that are all alike get no hit", float(alike), below=1e-9, trivial=1.0)

# %% [markdown]
# **The opponents.** *Popularity*, and *item kNN* (the sum of cosines to the tracks played, nothing tuned).
# *MF with biases*: $a_{ui}=b+b_u+b_i+\langle p_u,q_i\rangle$, the same loss, the same negatives. GMF, MLP,
# NeuMF and MF each get their *own* penalty and number of epochs: those with the best HR@10 of the validation
# items, tried with one net a penalty (tuning one side only is what Rendle found at fault). The MLP takes twice
# the step, which saves epochs; wider layers and other steps, tried beforehand, gained no more than the spread
# of its seeds. *iALS* is that of [44](44_implicit_als.ipynb), written densely: all cells, no negatives, $\lambda$
# tuned. And **the truth**: what the true model of the plays says at the moment of the hidden event. All nets
# have 16 numbers a user.

# %%
class MF(nn.Module):
    """Matrix factorisation with biases as logits: user, item ids of one shape -> that shape."""

    def __init__(self, n_users, n_items, d):
        super().__init__()
        self.n_users, self.n_items = n_users, n_items
        self.p, self.q = started(nn.Embedding(n_users, d)), started(nn.Embedding(n_items, d))
        self.b_u, self.b_i = (started(nn.Embedding(k, 1), 0.0) for k in (n_users, n_items))
        self.b = nn.Parameter(torch.zeros(()))

    def logits(self, user, item):
        both = self.b_u(user) + self.b_i(item)
        return self.b + both.squeeze(-1) + (self.p(user) * self.q(item)).sum(-1)

    def forward(self, user, item):
        return self.logits(*checked_pairs(self, user, item))

# %%
def all_scores(model, chunk=200):
    """Logits (n, m) of every pair, on the CPU."""
    where = next(model.parameters()).device
    users, every = torch.arange(n, device=where)[:, None], torch.arange(m, device=where)
    with torch.no_grad():
        return torch.cat([model.logits(*torch.broadcast_tensors(some, every)).cpu()
                          for some in users.split(chunk)])

# %%
def knn_scores():
    """Sum of the cosines (of columns of 0 and 1) to the items of the user: (n, m)."""
    S = seen_table.double()
    cosine = F.normalize(S, dim=0).T @ F.normalize(S, dim=0)
    return S @ cosine.fill_diagonal_(0)


def ials_scores(lam, seed=0, sweeps=8):
    """iALS of notebook 44 (constant confidence, no biases) with a dense table: scores (n, m)."""
    S, I = seen_table.double(), torch.eye(IALS_D, dtype=torch.float64)
    Q = 0.1 * torch.randn(m, IALS_D, generator=torch.Generator().manual_seed(seed)).double()
    for side in [S, S.T] * sweeps:                      # the side not fixed becomes the next Q
        outer = (Q[:, :, None] * Q[:, None]).flatten(1)                        # (m, d²)
        A = Q.T @ Q + lam * I + (IALS_ALPHA - 1) * (side @ outer).view(-1, IALS_D, IALS_D)
        P, Q = Q, torch.linalg.solve(A, IALS_ALPHA * (side @ Q))
    return P @ Q.T

# %%
def true_scores():
    """True utility of each item for each judged user at the time of the hidden event: (n, m)."""
    truth, scores = data.truth("plays"), torch.zeros(n, m, dtype=torch.float64)
    age = log.time[first_row[test], None] - items.released                     # (judged, m) seconds
    utility = truth.b_i + truth.P[judged] @ truth.Q.T + 2.0 ** (-age.clamp(min=0) / truth.half_life)
    scores[judged] = torch.where(age >= 0, utility, -1e9)
    return scores

# %%
BUILDS = {"GMF": (lambda: NeuMF(n, m, D_GMF, 0, ()), EPOCHS, LR),
          "MLP": (lambda: NeuMF(n, m, 0, D_MLP, HIDDEN), EPOCHS_MLP, 2 * LR),
          "NeuMF": (lambda: NeuMF(n, m, D_NEUMF, D_NEUMF, HIDDEN_NEUMF), EPOCHS, LR),
          "MF": (lambda: MF(n, m, D_GMF), EPOCHS, LR)}
on_valid = lambda scores: float(hr_ndcg(places(scores, tuned_on, hidden))[0])

# %%
def tuned(name):
    """(penalty, epochs, HR@10) best on the validation items, and the best for each epoch tried."""
    build, tried, lr = BUILDS[name]
    nets, passed, found = made(build, len(PENALTIES)), itertools.count(1), {}
    def watch():
        if (epoch := next(passed)) in tried:
            found.update({(penalty, epoch): on_valid(all_scores(net))
                          for penalty, net in zip(PENALTIES, nets)})
    train_many(nets, user, item, m, max(tried), penalties=PENALTIES, lr=lr, watch=watch)
    best = max(found, key=found.get)
    by_epochs = [max(found[penalty, epoch] for penalty in PENALTIES) for epoch in tried]
    return (*best, found[best]), by_epochs

# %%
tuning = in_pairs(tuned, BUILDS, "tuning")
chosen = {name: best for name, (best, _) in tuning.items()}
lam = max((IALS_LAM / 2, IALS_LAM, 2 * IALS_LAM), key=lambda lam: on_valid(ials_scores(lam)))

# %%
if DATA == "plays":
    by_plays = on_valid(seen_table.double().sum(0).expand(n, m))
    claim("the last epochs tried bring less than 0.03; the first tried, over popularity, more",
          [curve[-1] - curve[-2] for _, curve in tuning.values()], below=0.03,
          trivial=[curve[0] - by_plays for _, curve in tuning.values()])

# %% tags=["nbval-ignore-output"]
pd.DataFrame(chosen, index=["penalty", "epochs", "HR@10 of the validation items"]).T

# %%
def as_chosen(name):
    """SEEDS nets with the penalty and the epochs that validation chose."""
    build, _, lr = BUILDS[name]
    models, (penalty, epochs, _) = made(build, SEEDS), chosen[name]
    train_many(models, user, item, m, epochs, penalties=penalty, lr=lr)
    return models


trained = in_pairs(as_chosen, BUILDS, "models")
fixed_scores = {"popularity": seen_table.double().sum(0).expand(n, m), "item kNN": knn_scores()}
scored = {name: [s] * SEEDS for name, s in fixed_scores.items()}
scored |= {name: [all_scores(model) for model in models] for name, models in trained.items()}

# %%
scored["iALS"] = [ials_scores(lam, seed) for seed in range(SEEDS)]
if DATA == "plays":
    scored["the truth"] = [true_scores()] * SEEDS
full = {name: torch.stack([places(s, hidden, tuned_on) for s in runs])
        for name, runs in scored.items()}                                      # (seeds, users)
of_100 = {name: torch.stack([places(s, hidden, tuned_on, 99, seed) for seed, s in enumerate(runs)])
          for name, runs in scored.items()}

# %% tags=["nbval-ignore-output"]
benchmark = {}
for name in full:
    row = {}
    for ranked, where in (("of 100", of_100), ("of all", full)):
        for metric, value in zip(("HR@10", "nDCG@10"), hr_ndcg(where[name])):
            row[f"{metric} {ranked}"] = with_spread(value)
            key = f"{name}_{metric[:-3]}_{ranked}".replace(" ", "_")
            measured(key.lower(), value.mean(), value.std() if SEEDS > 1 else None)
    benchmark[name] = row
user_error = float((full["iALS"] < 10).double().mean(0).std() / len(judged) ** 0.5)
print(f"± is the spread of the seeds; other users would move HR@10 of all by {user_error:.3f}")
pd.DataFrame(benchmark).T

# %%
def ahead(a, b, where, k=10):
    """(difference in HR@k of method a over b, its standard error by users and by seeds)."""
    gain = (where[a] < k).double() - (where[b] < k).double()                     # (seeds, users)
    by_users = gain.mean(0).var() / gain.shape[1]
    by_seeds = gain.mean(1).var(correction=min(1, len(gain) - 1)) / len(gain)
    return float(gain.mean()), float((by_users + by_seeds).sqrt())

# %% tags=["nbval-ignore-output"]
methods = [name for name in full if name != "the truth"]
paired = {f"{a} over {b}": {"of 100": "{:+.3f} ± {:.3f}".format(*ahead(a, b, of_100)),
                            "of all": "{:+.3f} ± {:.3f}".format(*ahead(a, b, full))}
          for a, b in (("MLP", "popularity"), ("item kNN", "MLP"), ("MF", "MLP"), ("GMF", "MLP"),
                       ("NeuMF", "MLP"), ("iALS", "MLP"), ("MF", "GMF"), ("MF", "NeuMF"),
                       ("MF", "iALS"), ("NeuMF", "GMF"), ("iALS", "GMF"), ("iALS", "NeuMF"))}
pd.DataFrame(paired).T

# %%
sure = (("MF", "MLP"), ("MLP", "popularity"))
if DATA != "plays":                          # MovieLens: the others are in the table of section 11
    sure = ("iALS", "popularity"), ("MLP", "popularity")
for better, worse in sure:
    gain, error = ahead(better, worse, full if DATA == "plays" else of_100)
    claim(f"HR@10: {better} is ahead of {worse} by more than two standard errors",
          gain - 2 * error, above=0.0, trivial=0.0)

# %%
if DATA == "plays":
    best = max(float(hr_ndcg(full[name])[0].mean()) for name in methods)
    claim("the truth is ahead of every method", float(hr_ndcg(full["the truth"])[0].mean()),
          above=1.2 * best, trivial=best)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.0), sharey=True)
for ax, where, title in zip(axes, (of_100, full), ("among 99 random unseen items",
                                                   "among all unseen items")):
    values = [hr_ndcg(where[name])[0] for name in full]
    ax.barh(list(full), [float(v.mean()) for v in values], color="#bbbbbb")
    for row, v in enumerate(values):
        ax.scatter(v, [row] * len(v), s=9, color="black", zorder=3)
    ax.set(xlabel="HR@10", title=title)
    ax.grid(axis="y")
axes[0].invert_yaxis()
plt.show()

# %% [markdown]
# What can be said: popularity is far behind; the MLP, whose similarity is all learned and which was tuned as
# the others are, is behind MF; *untuned* item kNN is not behind it. NeuMF, MF and iALS differ by no more than
# about two standard errors, MF and GMF by little more (second table). *NeuMF's layers*, then, add nothing
# that these plays show. Does the order survive from 100 items to all? At its ends: MF leads both columns,
# item kNN and the MLP close them before popularity. Those in the middle are within their errors of each other
# and may swap.
#
# MovieLens 100K: the table of section 11.
#
# ### How much of NeuMF is the product?
#
# NeuMF was trained with both branches. Now move its $h$ from $(1,0)$, product alone, to $(0,1)$, layers alone:
# the product's part is multiplied by $2(1-x)$, the layers' part by $2x$; $x=\tfrac12$ is the trained net.
#
# **Predict.** Where is the best list: at one of the ends, or in between?

# %%
def moved_h(model, x):
    """Logits (n, m) with the product branch times 2 (1 - x) and the layers times 2 x."""
    moved = made(BUILDS["NeuMF"][0], 1)[0]
    moved.load_state_dict(model.state_dict())
    factor = torch.tensor([2 * (1 - x)] * D_NEUMF + [2 * x] * HIDDEN_NEUMF[-1])
    with torch.no_grad():
        moved.h.weight *= factor.to(device)
    return all_scores(moved)

# %%
positions = [0.0, 0.25, 0.5, 0.75, 1.0]
of_h = {x: [moved_h(model, x) for model in trained["NeuMF"][:FEW_SEEDS]] for x in positions}
hr_of_h = np.array([[float(hr_ndcg(places(s, hidden, tuned_on))[0]) for s in of_h[x]]
                    for x in positions])                                       # (positions, seeds)

# %% tags=["hide-input"]
def draw_h(x=0.5, listener=0, ax=None):
    """Six best unseen items of a judged listener by the first NeuMF, h moved; hidden one dark."""
    u, ax = int(judged[listener]), plt.subplots(figsize=(6.2, 2.6))[1] if ax is None else ax
    s = torch.where(seen_table[u], -torch.inf, of_h[x][0][u])
    best = s.topk(6).indices.flip(0)
    ax.barh(range(6), s[best], color=["#1b4f8f" if i == hidden[listener] else
                                                     "#cccccc" for i in best])
    ax.set_yticks(range(6), [items.title[i].split(" (")[0][:22] for i in best], fontsize=7)
    ax.set(xlabel="logit $a$")
    ax.set_title(f"x = {x:g}, HR@10 {hr_of_h[positions.index(x)].mean():.3f}", fontsize=8)


good = int((full["NeuMF"][0] < 3).nonzero()[0, 0])                   # a listener served well

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 4, figsize=(10.4, 2.6), width_ratios=(1.3, 1, 1, 1))
axes[0].plot(positions, hr_of_h, color="gray", lw=0.8)
axes[0].plot(positions, hr_of_h.mean(1), "k-o", lw=2)
axes[0].axhline(float(hr_ndcg(full["popularity"])[0][0]), color="gray", ls="--")
axes[0].set(xlabel="x: 0 product, 1 layers", ylabel="HR@10 of all", title="dashed: popularity")
for ax, x in zip(axes[1:], (0.0, 0.5, 1.0)):
    draw_h(x, good, ax)
plt.show()

# %% tags=["nbval-ignore-output"]
interact(draw_h, x=SelectionSlider(options=positions, value=0.5, description="h: product … layers",
                                   **WIDE),
         listener=IntSlider(good, min=0, max=len(judged) - 1, description="listener", **WIDE),
         ax=fixed(None));

# %%
ends = hr_of_h[[0, 2, 4]].mean(1)
if DATA == "plays":
    claim("cut off from the layers or from the product, the trained net loses", ends[1],
          above=max(ends[0], ends[2]), trivial=max(ends[0], ends[2]))

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# The trained net is best as a whole: its two branches share the work, and neither was trained to stand
# alone. That says nothing about what a product *trained* alone reaches: this is GMF in the table.
#
# </details>
#
# ### The start matters
#
# A product of two small numbers is tiny, and so is its gradient: with embeddings near 0 nothing tells their
# entries apart (a saddle, as in [45](45_factorization_machines.ipynb)). With large ones the net begins with
# loud random opinions. Five nets for each start, all else equal: the GMF of the table, but without its penalty
# (that was tuned for the start 0.05; with it, tried beforehand, the tiny start stays behind), and its NeuMF.

# %%
def with_start(name, sd):
    """A model of the table whose embeddings begin with standard deviation sd."""
    model = BUILDS[name][0]()
    for part in model.children():
        if isinstance(part, nn.Embedding):
            started(part, sd)
    return model

# %%
START_ROWS = {"GMF, 5 epochs of half the step": ("GMF", STARTS, 5, LR / 2, 0.0),
              "GMF, 6 epochs": ("GMF", STARTS, 6, LR, 0.0),
              "NeuMF, 6 epochs": ("NeuMF", STARTS[1:], 6, LR, chosen["NeuMF"][0])}


def begun_at(row):
    """{start: HR@10 (FEW_SEEDS,)} of a row of START_ROWS, all its nets side by side."""
    name, starts, epochs, lr, penalty = START_ROWS[row]
    nets = [net for sd in starts for net in made(lambda: with_start(name, sd), FEW_SEEDS)]
    train_many(nets, user, item, m, epochs, penalties=penalty, lr=lr)
    hr = [float(hr_ndcg(places(all_scores(net), hidden, tuned_on))[0]) for net in nets]
    return dict(zip(starts, np.array(hr).reshape(len(starts), -1)))


start_hr = in_pairs(begun_at, START_ROWS, "starts")

# %% tags=["nbval-ignore-output"]
popular = float(hr_ndcg(full["popularity"])[0][0])
print(f"HR@10 of all; popularity has {popular:.3f}")
pd.DataFrame({f"start {sd:g}": {row: with_spread(of[sd]) if sd in of else ""
                                for row, of in start_hr.items()} for sd in STARTS})

# %%
quiet, loud = ([float(of[sd].mean()) for of in start_hr.values()] for sd in STARTS[1:])
if DATA == "plays":
    claim("in all rows the loud start is behind 0.05", np.subtract(quiet, loud), above=0.02,
          trivial=[0.0] * len(START_ROWS))

# %% [markdown]
# With half the step the tiny start is behind 0.05 after five epochs; with the whole step it is not, after six.
# The loud start is far behind in every row, in NeuMF too. Tried beforehand with twice the step: after eight
# epochs most of that gap is gone as well. So the start buys time; a net that is stopped early needs it.
#
# ## 8. Wide & Deep: a memory beside a network
#
# Where two vectors are not enough: many *attributes* of a listener and a track at once. "Was the track heard
# past 0.6 of its length?", from listener, track, artist, genres, age band, country. A linear model on these
# 0/1 features cannot say "listeners in their forties like jazz": that is a matter of two features. A **cross
# product** is a feature for it, 1 only if all its members are 1:
#
# $$\phi_k(x)=\prod_{i=1}^{d}x_i^{c_{ki}},\qquad x_i,c_{ki}\in\{0,1\} \tag{46.9}$$
#
# ### Exercise 46.F · A cross product · ●○○ · 6 min
#
# All $K$ of them for a batch of rows. Note $0^0=1$: a feature that does not take part does not matter.

# %%
def crosses(x, C):  # (B, d) of 0/1, (K, d) of 0/1 -> (B, K)
    """phi_k of every row."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
C_F = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]])
x_F = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)))                # all 16 rows
every = lambda x, C: (x[:, None] ** C).prod(2)

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("46.F", crosses, [((x_F, C_F), every(x_F, C_F)), ((x_F[5:9], C_F[:2]),
                                                       every(x_F[5:9], C_F[:2]))], mistakes={
    "you asked for at least one member, not for all": lambda x, C: (x @ C.T > 0).float(),
    "you counted the members that are on": lambda x, C: x @ C.T,
    "you multiplied c x: a feature that takes no part then makes it 0":
        lambda x, C: (x[:, None] * C).prod(2),
    "you asked that the others be off": lambda x, C: (x[:, None] == C).all(2).float()})

# %% [markdown]
# <details><summary>Hint 1</summary>How many members of cross $k$ are on? That is one matrix product.</details>
# <details><summary>Hint 2</summary>It must be as many as the cross has.</details>
# <details><summary>Solution 46.F</summary>
#
# ```python
# def crosses(x, C):
#     return (x @ C.T == C.sum(1)).float()
# ```
#
# A cross without members is 1 for everybody: a bias.
#
# </details>

# %%
def cross_product(x, C):
    """phi of eq. (46.9): x (…, n) and C (K, n) of 0 and 1 -> (…, K) of x's type.

    ValueError: entries other than 0 and 1, widths that differ.
    """
    x, C = torch.as_tensor(x), torch.as_tensor(C)
    if C.dim() != 2 or x.dim() < 1 or x.shape[-1] != C.shape[1]:
        raise ValueError(f"need x (…, n), C (K, n), got {tuple(x.shape)}, {tuple(C.shape)}")
    if not all(((t == 0) | (t == 1)).all() for t in (x, C)):
        raise ValueError("features and members of a cross product are 0 or 1: encode the others")
    members = C.to(x.device).float()
    return (x.float() @ members.T == members.sum(1)).to(x.dtype)

# %%
dice = torch.Generator().manual_seed(5)
x_rows, C_rows = ((torch.rand(*shape, generator=dice) < 0.6).float() for shape in ((30, 6), (9, 6)))
brute = [[math.prod(x ** c for x, c in zip(row, members)) for members in C_rows.tolist()]
         for row in x_rows.tolist()]
check("46.9", "the cross products are those of the formula, power by power",
      cross_product(x_rows, C_rows), brute, atol=0)

# %% tags=["hide-input"]
TASTES = ["over 40", "under 25", "Brazil", "jazz", "pop"]
LIKES = np.array([[0.9, 0.3], [0.3, 0.8], [0.7, 0.9]])  # of three listeners: jazz, pop


def draw_crosses(forties_jazz=True, young_pop=True, brazil_pop=False, ax=None):
    """Best linear fit to six true shares, with the crosses that are on."""
    ax = plt.subplots(figsize=(5.2, 2.8))[1] if ax is None else ax
    people = np.array([[1.0, 0, 0], [0, 1, 0], [0, 1, 1]])
    rows = np.array([[*who, *track] for who in people for track in ((1, 0), (0, 1))], dtype=float)
    members = [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [0, 0, 1, 0, 1]]
    on = [c for c, used in zip(members, (forties_jazz, young_pop, brazil_pop)) if used]
    phi = cross_product(rows, np.array(on).reshape(-1, 5))
    X = np.c_[np.ones(6), rows, phi]
    fitted = X @ np.linalg.lstsq(X, LIKES.ravel(), rcond=None)[0]
    ax.bar(range(6), fitted, color="#bbbbbb", label="linear model with crosses")
    ax.scatter(range(6), LIKES.ravel(), marker="_", s=300, color="black", label="truth")
    ax.set_xticks(range(6), [f"{w}\n{t}" for w in ("over 40", "under 25", "<25, Brazil")
                             for t in ("jazz", "pop")], fontsize=6)
    ax.set(ylim=(0, 1.15))
    miss = np.abs(fitted - LIKES.ravel()).max()
    ax.set_title(f"{len(on)} crosses: largest miss {miss:.2f}", fontsize=9)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=(9.8, 2.5), sharey=True)
for ax, on in zip(axes, ((False, False, False), (True, False, False), (True, False, True))):
    draw_crosses(*on, ax=ax)
axes[0].legend(fontsize=7, loc="upper right")
plt.show()

# %% tags=["nbval-ignore-output"]
interact(draw_crosses, forties_jazz=Checkbox(True, description="over 40 × jazz"),
         young_pop=Checkbox(True, description="under 25 × pop"),
         brazil_pop=Checkbox(False, description="Brazil × pop"), ax=fixed(None));

# %% [markdown]
# Crosses *memorise*: a cross learns only from rows in which all its members met. Embeddings and an MLP
# *generalise*: they have an opinion about pairs that never met. **Wide & Deep** (**E142**: not just "many
# features and over some of them an MLP") adds the two logits and trains both parts *jointly*, on one loss:
#
# $$P(y=1\mid x)=\sigma\big(w_{\mathrm{wide}}^\top[x,\phi(x)]+w_{\mathrm{deep}}^\top z_L+b\big) \tag{46.10}$$
#
# with $z_L$ the MLP's last layer over the concatenated embeddings of the fields.

# %%
class WideAndDeep(nn.Module):
    """Wide & Deep, eq. (46.10), as logits. ValueError: no field, no layer.

    n_wide: features of the wide part, crosses included; field_sizes: categories of each field;
    d: length of the embeddings; hidden: widths."""

    def __init__(self, n_wide, field_sizes, d, hidden):
        super().__init__()
        self.n_wide, self.field_sizes = n_wide, checked_fields(field_sizes, d)
        if not (hidden := listed(hidden)) or not all_whole(1, n_wide, *hidden):
            raise ValueError("the deep part needs layers, the wide part features (whole, >= 1)")
        self.wide = started(nn.Linear(n_wide, 1, bias=False), 0.0)
        self.embeddings = embeddings(self.field_sizes, d)
        self.mlp = layers([len(self.embeddings) * d, *hidden])
        self.out = nn.Linear(hidden[-1], 1)

    def forward(self, x_wide, x_cat):
        """Logits (B,) of x_wide (B, n_wide) and ids x_cat (B, F), one column a field."""
        x_cat = checked_rows(x_cat, self)
        x_wide = torch.as_tensor(x_wide).to(self.wide.weight)
        if x_wide.shape != (len(x_cat), self.n_wide):
            raise ValueError(f"need x_wide (B, {self.n_wide}), not {tuple(x_wide.shape)}")
        return self.wide(x_wide).squeeze(-1) + self.deep(x_cat)

    def deep(self, x_cat):                                             # (B, F) -> (B,)
        return self.out(self.mlp(looked_up(self.embeddings, x_cat))).squeeze(-1)

    def at_ones(self, ones, x_cat):                    # ones (B, k): the features that are 1
        weights = F.pad(self.wide.weight[0], (0, 1))                            # a 0 for "no more"
        return weights[ones].sum(-1) + self.deep(x_cat)

# %% tags=["hide-input"]
def embeddings(field_sizes, d):
    """One Embedding for each field."""
    return nn.ModuleList(started(nn.Embedding(size, d)) for size in field_sizes)


def looked_up(tables, x_cat):
    """The embeddings of ids (B, F) side by side: (B, F d)."""
    return torch.cat([table(ids) for table, ids in zip(tables, x_cat.unbind(-1))], -1)

# %% tags=["hide-input"]
def checked_fields(field_sizes, d):
    """field_sizes as a list, or a ValueError."""
    sizes = listed(field_sizes)
    if not sizes or not all_whole(1, d, *sizes):
        raise ValueError("need at least one field with categories and d >= 1, in whole numbers: "
                         f"got {sizes}, {d}")
    return sizes


def checked_rows(x_cat, model):
    """ids (B, F) as int64 on the model's device; ValueError names the field that does not fit."""
    x_cat, sizes = torch.as_tensor(x_cat).to(next(model.parameters()).device), model.field_sizes
    if x_cat.dim() != 2 or x_cat.shape[1] != len(sizes):
        raise ValueError(f"x_cat must be (B, {len(sizes)}), got {tuple(x_cat.shape)}")
    return torch.stack([checked_ids(f"field {k}:", ids, size) for k, (ids, size) in
                        enumerate(zip(x_cat.unbind(1), sizes))], 1)

# %%
torch.manual_seed(2)
wd = WideAndDeep(7, (4, 5), 3, (6, 2)).double()
wd.wide.weight.data.normal_()
x_ids = torch.stack([torch.randint(4, (12,)), torch.randint(5, (12,))], 1)
x_wide = (torch.rand(12, 7) < 0.4).double()
w_wd = {name: value.detach().numpy() for name, value in wd.state_dict().items()}
z_wd = np.hstack([w_wd[f"embeddings.{j}.weight"][x_ids[:, j]] for j in (0, 1)])
for j in (0, 2):
    z_wd = relu(z_wd @ w_wd[f"mlp.{j}.weight"].T + w_wd[f"mlp.{j}.bias"])
added = x_wide.numpy() @ w_wd["wide.weight"][0] + z_wd @ w_wd["out.weight"][0] + w_wd["out.bias"]
by_hand = 1 / (1 + np.exp(-added))
check("46.10", "Wide & Deep is numpy's from its own weights",
      torch.sigmoid(wd(x_wide, x_ids)).detach(), by_hand, atol=1e-12)
ones = torch.where(x_wide > 0, torch.arange(7), 7)
check("46.10", "… and from the numbers of the ones alone", wd.at_ones(ones, x_ids).detach(),
      logit(by_hand), atol=1e-12)

# %% [markdown]
# ## 9. Deep & Cross: polynomials by layers
#
# Who chooses the crosses? A **cross network** multiplies the input with itself, layer by layer. With the
# input $x_0$ (all embeddings side by side), a weight vector $w_l$ and a bias $b_l$ in layer $l=0,1,\dots$
#
# $$x_{l+1}=x_0\,x_l^\top w_l+b_l+x_l \tag{46.11}$$
#
# $x_0x_l^\top$ looks like a matrix, but nobody builds it: $x_l^\top w_l$ is *one number*, times $x_0$. A
# layer has $2d$ parameters and costs about $2d$ multiplications.
#
# ### Exercise 46.G · A cross network · ●○○ · 6 min

# %%
def cross_forward(x0, weights, biases):  # (B, d), [(d,), …], [(d,), …] -> (B, d)
    """Output of as many cross layers as there are weight vectors, eq. (46.11)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def cross_variant(outer=lambda x0, x: x0, inner=lambda x0, x: x, residual=1.0, bias=1.0):
    """The answer, and its famous errors by the arguments."""
    def forward(x0, weights, biases):
        x = x0
        for w, b in zip(weights, biases):
            x = outer(x0, x) * (inner(x0, x) @ w)[:, None] + bias * b + residual * x
        return x
    return forward


args_G = [(draw(3, d), [draw(d) for _ in range(L)], [draw(d) for _ in range(L)])
          for d, L in ((2, 1), (3, 2), (2, 3))]
exercise("46.G", cross_forward, [(a, cross_variant()(*a)) for a in args_G], atol=1e-3, mistakes={
    "you took x for x_0 in front: then degrees double in each layer": cross_variant(
        outer=lambda x0, x: x),
    "you took x_0 for x under the weights: then the degree stops at 2": cross_variant(
        inner=lambda x0, x: x0),
    "you left out the old x (the residual)": cross_variant(residual=0.0),
    "you left out the bias": cross_variant(bias=0.0)})

# %% [markdown]
# <details><summary>Hint 1</summary>`(x @ w)[:, None]` is one number a row; multiply the *input* with it.</details>
# <details><summary>Solution 46.G</summary>
#
# ```python
# def cross_forward(x0, weights, biases):
#     x = x0
#     for w, b in zip(weights, biases):
#         x = x0 * (x @ w)[:, None] + b + x
#     return x
# ```
#
# </details>

# %%
class CrossLayer(nn.Module):
    """One cross layer, eq. (46.11); parameters w (d,), b (d,)."""

    def __init__(self, d):
        super().__init__()
        if not all_whole(1, d):
            raise ValueError(f"d must be a whole number >= 1, got {d!r}")
        self.w, self.b = nn.Parameter(torch.randn(d) / d**0.5), nn.Parameter(torch.zeros(d))

    def forward(self, x0, x):
        """x0, x (…, d) of one shape -> (…, d)."""
        x0, x = (torch.as_tensor(t).to(self.w) for t in (x0, x))
        if x0.shape != x.shape or x.shape[-1:] != self.w.shape:
            raise ValueError(f"need x0 and x of one shape (…, {len(self.w)}), got "
                             f"{tuple(x0.shape)}, {tuple(x.shape)}")
        return x0 * (x @ self.w)[..., None] + self.b + x

# %%
class DeepCross(nn.Module):
    """Deep & Cross network as logits: one linear layer over [cross output, deep output].

    field_sizes, d: as in WideAndDeep; n_cross: cross layers; hidden = (): cross output alone.
    """

    def __init__(self, field_sizes, d, n_cross, hidden):
        super().__init__()
        self.field_sizes, hidden = checked_fields(field_sizes, d), listed(hidden)
        if not all_whole(0, n_cross) or not all_whole(1, *hidden) or not n_cross + len(hidden):
            raise ValueError("need cross layers (n_cross >= 1), deep layers (hidden) or both, in "
                             f"whole numbers: got {n_cross!r}, {hidden}")
        width = len(self.field_sizes) * d
        self.embeddings = embeddings(self.field_sizes, d)
        self.cross = nn.ModuleList(CrossLayer(width) for _ in range(n_cross))
        self.mlp = layers([width, *hidden])
        self.out = nn.Linear((width if n_cross else 0) + (hidden[-1] if hidden else 0), 1)

    def forward(self, x_cat):
        """Logits (B,) of ids x_cat (B, F), one column a field."""
        return self.logits(checked_rows(x_cat, self))

    def logits(self, x_cat):
        x = x0 = looked_up(self.embeddings, x_cat)                              # (B, F d)
        for layer in self.cross:
            x = layer(x0, x)
        parts = ([x] if len(self.cross) else []) + ([self.mlp(x0)] if len(self.mlp) else [])
        return self.out(torch.cat(parts, -1)).squeeze(-1)

# %%
torch.manual_seed(4)
layer, x0, x1 = CrossLayer(5).double(), *torch.randn(2, 8, 5, dtype=torch.float64)
layer.b.data.normal_()
by_outer = [np.outer(a, c) @ layer.w.detach().numpy() + layer.b.detach().numpy() + c
            for a, c in zip(x0.numpy(), x1.numpy())]
check("46.11", "a cross layer is numpy's, with the matrix x_0 x_lᵀ really built",
      layer(x0, x1).detach(), by_outer, atol=1e-12)

# %%
inputs = [t.clone().requires_grad_() for t in (x0, x1)]
as_function = lambda x0, x, w, b: functional_call(layer, {"w": w, "b": b}, (x0, x))
check("46.11", "its gradients are those of finite differences",
      torch.autograd.gradcheck(as_function, (*inputs, layer.w, layer.b)))

# %%
dcn = DeepCross((4, 5), 3, 2, (6, 2)).double()
x_0 = torch.cat([table.weight[ids] for table, ids in zip(dcn.embeddings, x_ids.T)], 1)
crossed = x_0
for layer_ in dcn.cross:
    crossed = x_0 * torch.einsum("bi,i->b", crossed, layer_.w)[:, None] + layer_.b + crossed
parts_ = torch.cat([crossed, dcn.mlp(x_0)], 1)
check("46.11", "Deep & Cross is one linear layer over [cross output, deep output]",
      dcn(x_ids).detach(), (parts_ @ dcn.out.weight[0] + dcn.out.bias).detach(), atol=1e-12)

# %% [markdown]
# **What does it compute?** Take $b_l=0$. Then $x_1=x_0(1+x_0^\top w_0)$ is a *multiple of $x_0$*, and so is
# each next layer (put $x_l=c\,x_0$ into 46.11):
#
# $$x_l=x_0\prod_{k=0}^{l-1}\big(1+x_0^\top w_k\big)\tag{46.12}$$
#
# The theorem in the notes is about $g_l(x_0)=x_l^\top w_l$, one more weight vector at the end:
#
# $$g_l=(x_0^\top w_l)\prod_{k=0}^{l-1}\big(1+x_0^\top w_k\big) \tag{46.13}$$
#
# a polynomial with all degrees from 1 to $l+1$ and **no constant term**. The notes say "degree = number of
# layers" and $0\le\lvert\nu\rvert$: off by one at both ends (**E144**, **E145**).

# %%
def cross_output(x0, weights, biases=None):
    """x_l of eq. (46.11) for any numbers or symbols: x0 (d,), weights a list of (d,)."""
    x = x0
    for l, w in enumerate(weights):
        x = x0 * (x @ w) + x + (0 if biases is None else biases[l])
    return x


def g_poly(x0, weights, biases=None):
    """g_l of eq. (46.13): the last weight vector is multiplied on what the others made."""
    return cross_output(x0, weights[:-1], biases) @ weights[-1]

# %%
rng = np.random.default_rng(6)
ws, bs, x_one = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=3)
factors = np.cumprod([1.0, *(1 + ws[:3] @ x_one)])
for l in (1, 2, 3):
    check("46.12", f"after {l} layers without bias the output is the multiple of x_0",
          cross_output(x_one, ws[:l]), x_one * factors[l], atol=1e-12)
bent = cross_output(x_one, ws[:1], bs) / x_one
claim("with a bias it is not parallel to x_0", float(np.ptp(bent)), above=0.1,
      trivial=float(np.ptp(cross_output(x_one, ws[:1]) / x_one)))

# %% [markdown]
# **Degree by measurement.** Along a ray $t\,x_0$ a polynomial of degree $l+1$ in $t$ has constant differences
# of order $l+1$, and those of order $l+2$ vanish.

# %%
for l in (0, 1, 2, 3):
    along = np.array([g_poly(t * x_one, ws[:l + 1]) for t in range(l + 4)])
    check("46.13", f"l = {l}: differences of order l + 2 = {l + 2} vanish", np.diff(along, l + 2) /
          np.abs(along).max(), np.zeros(2), atol=1e-12)
    leading = math.factorial(l + 1) * np.prod(ws[:l + 1] @ x_one)
    check("46.13", f"… those of order {l + 1} are (l + 1)! times the product of the x_0ᵀw_k",
          np.diff(along, l + 1), np.full(3, leading), rtol=1e-9)
    check("46.13", "… and there is no constant term", along[0], 0.0, atol=0)

# %% [markdown]
# ### Exercise 46.H · The degree of three layers · ●●○ · 10 min
#
# Return the coefficients of $t^0,t^1,t^2,\dots$ of $g_l(t\,x_0)$ for $l+1$ given weight vectors (no bias).

# %%
def ray_coefficients(x0, weights):  # (d,), (l + 1, d) -> (l + 2,)
    """Coefficients of g_l(t x0) in t, lowest power first."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def on_ray(x0, weights, last=True, one=1.0, start=(0.0, 1.0)):
    """The answer, and its famous errors by the arguments."""
    slopes = weights @ x0
    poly = np.array(start) * slopes[-1]
    for s in (slopes[:-1] if last else slopes[:-2]):
        poly = np.convolve(poly, [one, s])
    return poly


args_H = [(rng.normal(size=d), rng.normal(size=(l + 1, d))) for d, l in ((2, 2), (3, 3), (2, 1))]
cases_H = [(args, on_ray(*args)) for args in args_H]
exercise("46.H", ray_coefficients, cases_H, atol=1e-8, mistakes={
    "you have degree l: one factor is missing": lambda x, w: on_ray(x, w, last=False),
    "you have a constant term: g is 0 at x_0 = 0": lambda x, w: on_ray(x, w, start=(1.0,)),
    "you left out the residual: then only the highest power is there":
        lambda x, w: on_ray(x, w, one=0.0),
    "you put the highest power first": lambda x, w: on_ray(x, w)[::-1]})

# %% [markdown]
# <details><summary>Hint 1</summary>(46.13) with $t\,x_0$: a product of polynomials of degree 1 in $t$.</details>
# <details><summary>Hint 2</summary>`np.convolve` multiplies polynomials; begin with $(0,\ x_0^\top w_l)$.</details>
# <details><summary>Solution 46.H</summary>
#
# ```python
# def ray_coefficients(x0, weights):
#     slopes = weights @ x0
#     poly = np.array([0.0, slopes[-1]])                  # t x0ᵀw_l
#     for s in slopes[:-1]:
#         poly = np.convolve(poly, [1.0, s])              # times 1 + t x0ᵀw_k
#     return poly
# ```
#
# $l+1$ weight vectors, degree $l+1$, coefficient 0 of $t^0$.
#
# </details>
#
# **Which polynomials?** There are many monomials and few parameters:
#
# $$\#\{\nu:1\le\lvert\nu\rvert\le l+1\}=\binom{d+l+1}{d}-1,\qquad\#\text{parameters}=(l+1)\,d \tag{46.14}$$
#
# $d=2$, $l=2$: 9 monomials, 6 parameters. With $w_k=(a_k,c_k)$ for $k=0,1,2$ and $x_0=(x_1,x_2)$ they are
#
# $$g_2=(a_2x_1+c_2x_2)\big(1+a_0x_1+c_0x_2\big)\big(1+a_1x_1+c_1x_2\big) \tag{46.15}$$
#
# `sympy` expands it and asks how many directions the nine coefficients can move in: the rank of their
# Jacobian by the six parameters.

# %%
def monomials(d, l):
    """All exponents (…, d) with 1 <= |nu| <= l + 1."""
    return [nu for nu in itertools.product(range(l + 2), repeat=d) if 1 <= sum(nu) <= l + 1]


names = sympy.symbols("a0 c0 a1 c1 a2 c2")
x_1, x_2 = sympy.symbols("x1 x2")
symbols = [np.array(names[2 * k:2 * k + 2]) for k in range(3)]
poly = sympy.Poly(sympy.expand(g_poly(np.array([x_1, x_2]), symbols)), x_1, x_2)
coefficients = {nu: poly.coeff_monomial(x_1**nu[0] * x_2**nu[1]) for nu in sorted(monomials(2, 2),
                                                                                key=sum)}
pd.DataFrame({"monomial": [f"x1^{a} x2^{b}" for a, b in coefficients],
              "coefficient": [str(c) for c in coefficients.values()]})

# %%
for inputs_, l in ((2, 2), (3, 1), (4, 3)):
    xs = sympy.symbols(f"y1:{inputs_ + 1}")
    letters = [np.array(sympy.symbols(f"v{k}_1:{inputs_ + 1}")) for k in range(l + 1)]
    expanded = sympy.Poly(g_poly(np.array(xs), letters), *xs)
    counted = [math.comb(inputs_ + l + 1, inputs_) - 1, (l + 1) * inputs_]
    check("46.14", f"d = {inputs_}, l = {l}: sympy: {counted[0]} monomials, {counted[1]} letters",
          counted, [len(expanded.monoms()), len(expanded.free_symbols_in_domain)], atol=0)
    check("46.14", "… which are those with 1 <= |ν| <= l + 1, no constant (E145)",
          sorted(expanded.monoms()) == sorted(monomials(inputs_, l)))

# %%
product_form = ((names[4] * x_1 + names[5] * x_2) * (1 + names[0] * x_1 + names[1] * x_2)
                * (1 + names[2] * x_1 + names[3] * x_2))
check("46.15", "the layers of (46.11), expanded by sympy, are the product",
      sympy.expand(poly.as_expr() - product_form) == 0)
jacobian = sympy.Matrix(list(coefficients.values())).jacobian(names)                    # (9, 6)
at = dict(zip(names, [sympy.Rational(k, 7) for k in (2, 3, -5, 4, 6, -1)]))
check("46.15", "nine coefficients, but only six free directions: the rank of the Jacobian (E144)",
      [jacobian.rows, jacobian.subs(at).rank()], [9, 6], atol=0)

# %% [markdown]
# So the coefficients are **tied**: not "the sum of all polynomials up to a degree", but the products of $l+1$
# linear factors. In particular the part of degree 2 of $g_1$ is a *product of two* linear forms, $(w_1^\top
# x)(w_0^\top x)$. It can be $x_1x_2$ exactly, with $w_1=(1,0,\dots)$ and $w_0=(0,1,0,\dots)$ ($g_1$ as a
# whole only nearly, with $\varepsilon w_1$ and $w_0/\varepsilon$), but never $x_1x_2+x_3x_4$: a product of
# two forms has a symmetric matrix of rank at most 2, this sum one of rank 4.
#
# **Predict.** Level lines of $g_1$ on the plane. Where is it 0, whatever the weights? Which lines are straight?

# %% tags=["hide-input"]
def draw_levels(angle_0=20.0, angle_1=110.0, length_0=1.0, ax=None):
    """Level lines of g_1 = (x·w_1)(1 + x·w_0) for w_0, w_1 by their angles in degrees."""
    ax = plt.subplots(figsize=(3.8, 3.4))[1] if ax is None else ax
    w_0, w_1 = (size * np.array([np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))])
                for turn, size in ((angle_0, length_0), (angle_1, 1.0)))
    axis = np.linspace(-2, 2, 81)
    plane = np.stack(np.meshgrid(axis, axis), -1)                               # (81, 81, 2)
    values = (plane @ w_1) * (1 + plane @ w_0)
    ax.contourf(axis, axis, values, levels=np.linspace(-6, 6, 13), cmap="PuOr", extend="both")
    for w_, foot, look, side in ((w_0, -1, "-", 0.22), (w_1, 0, "--", -0.22)):
        if (size := w_ @ w_) > 0:                           # the line w·x = -1 or w·x = 0
            across = np.array([-w_[1], w_[0]])
            ax.axline(foot * w_ / size, foot * w_ / size + across, color="black", lw=2, ls=look)
            ax.annotate("", w_, (0, 0), arrowprops={"arrowstyle": "-|>", "ls": look, "lw": 1.5})
            ax.text(*(1.1 * w_ + side * across / size**0.5), "$w_0$" if foot else "$w_1$",
                    ha="center", va="center")
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=(-2, 2), ylim=(-2, 2))
    ax.set_title(f"$w_0$: {angle_0:g}°, length {length_0:g}; $w_1$: {angle_1:g}°", fontsize=8)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 4, figsize=(10.2, 2.9), sharey=True)
for ax, turned in zip(axes, ((20, 110, 1), (20, 20, 1), (20, 110, 0), (200, 65, 1.5))):
    draw_levels(*turned, ax=ax)
plt.show()

# %% tags=["nbval-ignore-output"]
turn = lambda name, value: FloatSlider(value, min=-180, max=180, step=5, description=name, **WIDE)
interact(draw_levels, angle_0=turn("w0: angle, degrees", 20.0),
         angle_1=turn("w1: angle, degrees", 110.0),
         length_0=FloatSlider(1.0, min=0, max=2, step=0.1, description="w0: length", **WIDE),
         ax=fixed(None));

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# Always 0 at the origin (no constant term). The zero set is always two straight lines (one if $w_0=0$):
# across $w_1$ through the origin (dashed), and across $w_0$ at distance $1/\lVert w_0\rVert$ on the other
# side (solid); you see both for certain if $\lVert w_0\rVert\ge\frac12$. Nothing else can be 0: four free
# numbers for five monomials.
#
# </details>
#
# ### Planted interactions: who finds which?
#
# Six standard normal features, 1,000 samples, no noise, and three targets: $x_1x_2$, $x_1x_2x_3$, and
# $x_1x_2+x_3x_4$. A linear model, an FM with two factors (45), a cross network of two layers *with* biases, and
# an MLP, 250 steps each; the cross network with 1,000 as well. Error relative to the variance, so that "always
# the mean" has 1.

# %%
class Cross(nn.Module):
    """n_cross cross layers and a linear one: (…, d) -> (…)."""

    def __init__(self, d, n_cross):
        super().__init__()
        self.cross, self.out = nn.ModuleList(CrossLayer(d) for _ in range(n_cross)), nn.Linear(d, 1)

    def forward(self, x0):
        x = x0
        for layer in self.cross:
            x = layer(x0, x)
        return self.out(x).squeeze(-1)

# %%
class SmallFM(nn.Module):
    """Factorization machine of notebook 45: linear part and pairs by rank factors."""

    def __init__(self, d, rank):
        super().__init__()
        self.linear, self.V = nn.Linear(d, 1), nn.Parameter(0.3 * torch.randn(d, rank))

    def forward(self, x):
        pairs = (x @ self.V) ** 2 - x**2 @ self.V**2
        return self.linear(x).squeeze(-1) + 0.5 * pairs.sum(-1)


def perceptron(d, hidden):
    return nn.Sequential(layers([d, *hidden]), nn.Linear(hidden[-1], 1), nn.Flatten(-2))

# %%
def planted_error(build, target, steps=250, d=6):
    """(relative squared errors (FEW_SEEDS,) on new samples, number of parameters)."""
    generator = torch.Generator().manual_seed(0)
    x, x_new = (torch.randn(FEW_SEEDS, N, d, generator=generator).to(device) for N in (1000, 2000))
    wanted = target(x)
    models = made(lambda: build(d), FEW_SEEDS)
    weights, _ = stack_module_state(models)
    run = vmap(lambda w, x: functional_call(models[0], w, (x,)))
    optimizer = torch.optim.Adam(weights.values(), lr=0.02, fused=True)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = (run(weights, x) - wanted).square().mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
    with torch.no_grad():
        error = (run(weights, x_new) - target(x_new)).square().mean(1) / target(x_new).var(1)
    return error.cpu().numpy(), sum(p.numel() for p in models[0].parameters())

# %%
TARGETS = {"x1 x2": lambda x: x[..., 0] * x[..., 1], "x1 x2 x3": lambda x: x[..., :3].prod(-1),
           "x1 x2 + x3 x4": lambda x: x[..., 0] * x[..., 1] + x[..., 2] * x[..., 3]}
LEARNERS = {"linear": lambda d: Cross(d, 0), "FM, rank 2": lambda d: SmallFM(d, 2),
            "cross, 2 layers": lambda d: Cross(d, 2),
            "MLP 32–16": lambda d: perceptron(d, (32, 16))}
def planted_row(name, steps=250):
    """{target: planted_error} of one learner."""
    return {t: planted_error(LEARNERS[name], f, steps) for t, f in TARGETS.items()}


planted = in_pairs(planted_row, LEARNERS, "learners")
planted["cross, 700 steps"] = planted_row("cross, 2 layers", steps=700)

# %% tags=["nbval-ignore-output"]
pd.DataFrame({name: {"parameters": row["x1 x2"][1]} | {t: with_spread(e)
              for t, (e, _) in row.items()} for name, row in planted.items()} |
             {"always the mean": {"parameters": 0} | {t: "1" for t in TARGETS}}).T

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=(9.8, 2.8), sharey=True)
for ax, t in zip(axes, TARGETS):
    for (name, row), marker in zip(planted.items(), "sovD^"):
        error, size = row[t]
        ax.scatter([size] * FEW_SEEDS, np.maximum(error, 1e-4), marker=marker, s=22, label=name)
    ax.axhline(1, color="gray")
    ax.set(xscale="log", yscale="log", xlabel="parameters", ylim=(7e-5, 3),
           title=f"${t.replace('x', 'x_')}$")
axes[0].set_ylabel("error (1: mean; 1e-4: or less)")
axes[0].legend(fontsize=6, loc="lower right")
plt.show()

# %%
worst = lambda name, t: float(planted[name][t][0].max())
least_ = lambda name, t: float(planted[name][t][0].min())
long = "cross, 700 steps"

# %%
claim("one pair: the cross network is near it with 31 parameters",
      worst("cross, 2 layers", "x1 x2"), below=0.3, trivial=least_("linear", "x1 x2"))
claim("three factors: with 700 steps it finds what an FM of pairs cannot",
      worst(long, "x1 x2 x3"), below=0.25, trivial=least_("FM, rank 2", "x1 x2 x3"))
claim("two pairs at once: 250 steps or 700, it stays near one half",
      [planted[name]["x1 x2 + x3 x4"][0] for name in ("cross, 2 layers", long)], above=0.45,
      trivial=[planted["FM, rank 2"]["x1 x2 + x3 x4"][0]] * 2)
claim("… where an FM with no more parameters, and an MLP, are near it",
      [worst(name, "x1 x2 + x3 x4") for name in ("FM, rank 2", "MLP 32–16")], below=0.2,
      trivial=[1.0, 1.0])

# %% [markdown]
# The cross network finds what fits its form, from few parameters; for three factors it needs the 700 steps.
# Two independent pairs do not fit. With $v$ the last weights, the part of degree 2 of its output is
# $(v^\top x)\,\big((w_0+w_1)^\top x\big)$: a symmetric matrix of rank ≤ 2, with at most one positive and one
# negative eigenvalue. $x_1x_2+x_3x_4$ has four, $\pm\frac12$ twice, of which such a product can match one and
# one; the odd terms are uncorrelated with it under a symmetric law and only add error. So the best possible
# relative error is exactly $\frac12$, however long the training. A remedy is a matrix in the place of the
# vector, $x_0\odot(Wx_l+b)$ (DCN-V2, Wang et al. 2021).

# %% [markdown]
# ## 10. The ladder: was it heard past 0.6?
#
# The same plays, now with the share that was heard: 40,000 rows in the order of time; the first 60 % to train
# on, the next 20 % for validation (step and epoch: a model stops when five epochs brought nothing), the last
# 20 % as the test. The wide part gets every field and three crosses with the genres of the track: listener ×
# genre, age band × genre, country × genre.

# %%
def fields_of(log, items, users):
    """({field: ids (N,)}, {field: number of categories}, genres (N, most) with -1 for none)."""
    sets, genre_set = torch.unique(items.genre.long(), dim=0, return_inverse=True)
    third = items.artist if items.artist is not None else decade(items.released)
    ids = {"user": log.user, "item": log.item, "artist or decade": third[log.item],
           "genres": genre_set[log.item], "age": (users.age // 10)[log.user],
           "group": users.group[log.user]}
    sizes = {name: int(x.max()) + 1 for name, x in ids.items()}
    sizes |= {"user": log.n_users, "item": log.n_items, "genres": len(sets)}
    order = items.genre.float().sort(dim=1, descending=True, stable=True)
    most = int(items.genre.sum(1).max())
    genres = torch.where(order.values > 0, order.indices, -1)[:, :most]
    return ids, sizes, genres[log.item]


def decade(released):
    years = 1970 + released / (365.25 * 86400)
    return ((years - years.min()) / 10).long()

# %%
def wide_ones(ids, sizes, genres, crossed):
    """(ones (N, k): which wide features are 1, n_wide where none; n_wide)."""
    parts, total, n_genres = [], 0, int(genres.max()) + 1
    for name, x in ids.items():
        parts.append(x[:, None] + total)
        total += sizes[name]
    for name in crossed:                                                  # field × genre
        cross = ids[name][:, None] * n_genres + genres
        parts.append(torch.where(genres >= 0, cross + total, -1))
        total += sizes[name] * n_genres
    ones = torch.cat(parts, 1)
    return torch.where(ones >= 0, ones, total), total


ids, sizes, genres = fields_of(log, items, data.users(DATA))
CROSSED = ("age", "group", "user")                          # each × the track's genres
ones_base, n_base = wide_ones(ids, sizes, genres, ())
ones_few, n_few = wide_ones(ids, sizes, genres, CROSSED[:2])
ones_all, n_wide = wide_ones(ids, sizes, genres, CROSSED)
x_cat = torch.stack(list(ids.values()), 1)                                       # (N, 6)
y = (log.value > 0.6).float() if DATA == "plays" else (log.value >= 4).float()
print(f"{n_base:,} features, with crosses {n_wide:,}; share of ones: {y.mean():.2f}")

# %%
few = torch.arange(40)                                          # forty rows, written out as 0 and 1
n_genres = int(genres.max()) + 1
x_few = torch.cat([F.one_hot(ids["age"][few], sizes["age"]), items.genre[log.item[few]].long()], 1)
pairs = list(itertools.product(range(sizes["age"]), range(n_genres)))
C_pairs = torch.zeros(len(pairs), x_few.shape[1], dtype=torch.int64)
for k, (a, b) in enumerate(pairs):
    C_pairs[k, [a, sizes["age"] + b]] = 1
only_age, width = wide_ones({"age": ids["age"]}, sizes, genres, ("age",))
written = F.one_hot(only_age[few], width + 1).sum(1)[:, sizes["age"]:width]
claim("the numbers of the ones are the cross products (46.9) of age band and genres",
      written, cross_product(x_few, C_pairs), atol=0, trivial=torch.zeros_like(written))

# %%
class Additive(nn.Module):
    """Linear in the wide features, given by the numbers of the ones; with rank > 0 an FM."""

    def __init__(self, n_wide, rank=0):
        super().__init__()
        self.w, self.b = started(nn.Embedding(n_wide + 1, 1), 0.0), nn.Parameter(torch.zeros(()))
        self.V = started(nn.Embedding(n_wide, rank)) if rank else None

    def at_ones(self, ones):
        there = ones < self.w.num_embeddings - 1
        a = self.b + (self.w(ones).squeeze(-1) * there).sum(-1)
        if self.V is None:
            return a
        v = self.V(ones)                                                # every one is there
        return a + 0.5 * (v.sum(-2) ** 2 - (v**2).sum(-2)).sum(-1)

# %%
def train_rows(build, method, inputs, parts, lr, seeds=SEEDS):
    """Models side by side on the rows parts[0]; the epoch is chosen on parts[1] by log-loss.

    inputs: tensors with a row each. Returns (logits (seeds, test rows), epoch, losses on parts[1]).
    """
    nets = [Through(model, method) for model in made(build, seeds)]
    weights, _ = stack_module_state(nets)
    run = vmap(lambda w, *x: functional_call(nets[0], w, x), (0, *[None] * len(inputs)))
    at = lambda rows: run(weights, *(x[rows].to(device) for x in inputs))       # (seeds, rows)
    wanted = lambda rows: y[rows].to(device).expand(seeds, -1)
    optimizer = torch.optim.Adam(weights.values(), lr=lr, fused=True)
    generator = torch.Generator().manual_seed(0)
    penalties, on_valid = torch.full((seeds,), LADDER_PENALTY, device=device), []
    for _ in range(LADDER_EPOCHS):
        order = parts[0][torch.randperm(len(parts[0]), generator=generator)]
        for rows in order.split(LADDER_BATCH):
            adam_step(optimizer, weights, penalties, at(rows), wanted(rows))
        with torch.no_grad():
            on_valid.append(float(F.binary_cross_entropy_with_logits(
                at(parts[1]), wanted(parts[1]))))
            if on_valid[-1] == min(on_valid):
                best, said_then = len(on_valid), at(parts[2]).cpu()
        if len(on_valid) - best >= LADDER_PATIENCE:
            break
    return said_then, best, on_valid

# %%
if DATA == "plays":
    parts = torch.arange(len(log)).tensor_split([int(0.6 * len(log)), int(0.8 * len(log))])
else:                                     # the owner's third split; validation: a tenth of the rest
    third_part = (torch.arange(len(log)) >= 40_000) & (torch.arange(len(log)) < 60_000)
    rest = (~third_part).nonzero()[:, 0]
    rest = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))]
    parts = rest[len(rest) // 10:], rest[:len(rest) // 10], third_part.nonzero()[:, 0]
nothing = torch.full_like(ones_all[:, :1], n_wide)

# %%
wide_deep = lambda: WideAndDeep(n_wide, list(sizes.values()), LADDER_D, LADDER_HIDDEN)
deep_cross = lambda: DeepCross(list(sizes.values()), LADDER_D, 2, LADDER_HIDDEN)
# The linear rungs begin at 0: all their nets would be alike.
linear, of_fm, of_nets = (LADDER_LR[0], 1), (LADDER_LR[1], SEEDS), (LADDER_LR[2], SEEDS)
RUNGS = {"linear": (lambda: Additive(n_base), "at_ones", (ones_base,), *linear),
         "+ age, country × genre": (lambda: Additive(n_few), "at_ones", (ones_few,), *linear),
         "+ listener × genre": (lambda: Additive(n_wide), "at_ones", (ones_all,), *linear),
         "FM": (lambda: Additive(n_base, LADDER_D), "at_ones", (ones_base,), *of_fm),
         "deep": (wide_deep, "at_ones", (nothing, x_cat), *of_nets),
         "Wide & Deep": (wide_deep, "at_ones", (ones_all, x_cat), *of_nets),
         "DCN": (deep_cross, "logits", (x_cat,), *of_nets)}
train_rung = lambda name: train_rows(*RUNGS[name][:3], parts, *RUNGS[name][3:])
ladder = in_pairs(train_rung, RUNGS, "rungs")

# %%
if DATA == "plays":
    claim("on each rung the best epoch is followed by others that were tried",
          [best for _, best, _ in ladder.values()], below=[len(v) for *_, v in ladder.values()],
          trivial=[len(v) for *_, v in ladder.values()])

# %%
heard = y[parts[2]].numpy()
base = float(y[parts[0]].mean())
said = {name: run[0].double().numpy() for name, run in ladder.items()}
both = said["+ listener × genre"][:1] + said["deep"]                              # (seeds, rows)
said["crosses and deep trained apart, added"] = both - logit(base)
said["crosses and deep trained apart, averaged"] = both / 2
quality = {name: np.array([(roc_auc_score(heard, a), log_loss(heard, 1 / (1 + np.exp(-a))))
                           for a in runs]) for name, runs in said.items()}       # (seeds, 2)
quality["always the base rate"] = np.array([[0.5, log_loss(heard, np.full(len(heard), base))]])
if DATA == "plays":  # share = sigmoid(0.8 <p, q> - 1.05 - 2.5 [bait] + 0.8 noise), rounded
    truth, (u, i) = data.truth("plays"), (log.user[parts[2]], log.item[parts[2]])
    middle = 0.8 * (truth.P[u] * truth.Q[i]).sum(1) - 1.05 - 2.5 * truth.bait[i].double()
    probability = ndtr((middle.numpy() - logit(0.605)) / 0.8)
    quality["the truth"] = np.array([[roc_auc_score(heard, probability),
                                      log_loss(heard, probability)]])

# %% tags=["nbval-ignore-output"]
KEYS = {"+ age, country × genre": "few_crosses", "+ listener × genre": "crosses",
        "Wide & Deep": "wide_deep", "crosses and deep trained apart, added": "apart",
        "crosses and deep trained apart, averaged": "apart_averaged",
        "always the base rate": "base", "the truth": "truth"}
table_ladder = {}
for name, values in quality.items():
    spread = values.std(0, ddof=1) if len(values) > 1 else (None, None)
    auc_, loss_ = (f"{v:.3f}" + (f" ± {s:.3f}" if s is not None else "")
                   for v, s in zip(values.mean(0), spread))
    table_ladder[name] = {"AUC": auc_, "log-loss": loss_,
                          "epoch": ladder[name][1] if name in ladder else ""}
    key = KEYS.get(name, name.lower())
    measured(f"{key}_auc", values[:, 0].mean(), spread[0])
    measured(f"{key}_log_loss", values[:, 1].mean(), spread[1])
pd.DataFrame(table_ladder).T

# %%
def in_parts(a, b, n_parts=10):
    """(difference in AUC of a over b, its standard error by parts of the test and by seeds)."""
    cuts = np.array_split(np.random.default_rng(0).permutation(len(heard)), n_parts)
    most = max(len(said[a]), len(said[b]))                     # a linear rung is one net
    runs = [(said[a][k % len(said[a])], said[b][k % len(said[b])]) for k in range(most)]
    gain = np.array([[roc_auc_score(heard[rows], u[rows]) - roc_auc_score(heard[rows], v[rows])
                      for rows in cuts] for u, v in runs])                     # (seeds, parts)
    by_parts = gain.mean(0).var(ddof=1) / n_parts
    by_seeds = gain.mean(1).var(ddof=min(1, len(gain) - 1)) / len(gain)
    return gain.mean(), math.sqrt(by_parts + by_seeds)


auc = {name: values[:, 0] for name, values in quality.items()}

# %% tags=["nbval-ignore-output"]
pd.DataFrame({f"{a} over {b}": ["{:+.3f} ± {:.3f}".format(*in_parts(a, b))] for a, b in (
    ("+ listener × genre", "FM"), ("+ listener × genre", "Wide & Deep"), ("FM", "Wide & Deep"),
    ("+ listener × genre", "DCN"), ("Wide & Deep", "DCN"), ("Wide & Deep", "deep"))},
    index=["AUC"]).T

# %%
if DATA == "plays":
    for better, worse in (("+ listener × genre", "linear"), ("FM", "linear"),
                          ("Wide & Deep", "deep"), ("+ listener × genre", "deep")):
        gain, error = in_parts(better, worse)
        claim(f"AUC: {better} is ahead of {worse} by more than two standard errors",
              gain - 2 * error, above=0.0, trivial=0.0)
    in_sum, in_mean = (quality[f"crosses and deep trained apart, {how}"][:, 1].mean()
                       for how in ("added", "averaged"))
    joint = quality["Wide & Deep"][:, 1].mean()
    claim("the truth is far ahead of all", max(map(np.max, (auc[name] for name in said))),
          below=auc["the truth"][0] - 0.04, trivial=auc["the truth"][0])

# %%
if DATA == "plays":
    claim("parts trained apart: the log-loss of their sum is far above that of their mean", in_sum,
          above=in_mean + 0.05, trivial=joint)
    claim("… and that of their mean is not worse than that of joint training", in_mean, below=joint,
          trivial=in_sum)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(9.8, 3.0), width_ratios=(1.2, 1))
order = [name for name in quality if name != "always the base rate"]
for row, name in enumerate(order):
    axes[0].barh(row, auc[name].mean() - 0.75, left=0.75,
                 color="#1b4f8f" if name == "the truth" else "#bbbbbb")
    axes[0].scatter(auc[name], [row] * len(auc[name]), s=9, color="black", zorder=3)
labels = [name.replace("crosses and deep trained", "crosses, deep") for name in order]
axes[0].set_yticks(range(len(order)), labels, fontsize=8)
axes[0].set(xlabel="AUC (the axis begins at 0.75; base rate 0.5)")
axes[0].invert_yaxis()
axes[0].grid(axis="y")
looks = "-o", "--s", "-.^", ":D", "-v", "--x", "-.*"
for (name, (_, _, losses)), look in zip(ladder.items(), looks):
    axes[1].plot(range(1, len(losses) + 1), losses, look, ms=4, lw=1, label=name)
axes[1].set(xlabel="epoch", ylabel="log-loss on the validation part")
axes[1].legend(fontsize=7)
plt.show()

# %% [markdown]
# The linear model with all crosses and FM lead, Wide & Deep is close behind (second table, with standard
# errors); deep alone, which only sees concatenated embeddings, is behind all three, and everybody is far
# below the truth. The ablation: crosses and deep part *trained apart*. Added as they are, two full logits are
# too sure of themselves, and the log-loss is the worst of all models; averaged, with nothing fitted, they are
# at least as good as the joint model. On these data joint training gains nothing.
#
# **Memory against generalising.** The test rows by how often the listener had met one of the track's genres in
# training:

# %%
met = torch.zeros(log.n_users, n_genres)
for k in range(genres.shape[1]):
    there = genres[parts[0], k] >= 0
    rows = parts[0][there]
    met.index_put_((log.user[rows], genres[rows, k]), torch.ones(len(rows)), accumulate=True)
test_genres = genres[parts[2]]
times = met[log.user[parts[2]][:, None], test_genres.clamp(min=0)]
met_before = torch.where(test_genres >= 0, times, 0).sum(1)
bands = {"never": met_before == 0, "1 to 5 times": (met_before > 0) & (met_before <= 5),
         "more often": met_before > 5}
by_band = {name: {band: np.array([roc_auc_score(heard[rows.numpy()], a[rows.numpy()])
                                  for a in said[name]]) for band, rows in bands.items()}
           for name in ("linear", "+ age, country × genre", "+ listener × genre", "deep",
                        "Wide & Deep")}

# %% tags=["nbval-ignore-output"]
pd.DataFrame({name: {band: with_spread(v) for band, v in row.items()}
              for name, row in by_band.items()} |
             {"share of the test": {band: f"{rows.double().mean():.2f}"
                                    for band, rows in bands.items()}}).T

# %%
memory = by_band["+ listener × genre"], by_band["+ age, country × genre"]
gain_of = lambda band: memory[0][band].mean() - memory[1][band].mean()
if DATA == "plays":
    claim("listener × genre gains at least 0.01 more AUC where the two met more than five times "
          "than where they never did", gain_of("more often") - gain_of("never"), above=0.01,
          trivial=0.0)

# %% [markdown]
# ## 11. ☆ MovieLens: the published figures
#
# **(a)** The paper's own design, from its public code: vectors of a *fixed* set of users and as many items,
# 90 training pairs a user, Glorot start, first layer times 1, 2 or 4. Here a small trial, in the full run the
# sizes of its Figure 3.

# %%
def paper_nets(sizes, generator):
    """One net with Keras' start: Glorot uniform weights, biases 0."""
    nets = Nets(1, sizes, generator)
    with torch.no_grad():
        for (W, b), (a, c) in zip(nets.layers, itertools.pairwise(sizes)):
            start = 2 * torch.rand(W.shape, generator=generator) - 1
            W.copy_((6 / (a + c)) ** 0.5 * start)
            b.zero_()
    return nets

# %%
def paper_run(d, users, times, epochs=DOT_EPOCHS, seed=0, batch_size=256):
    """RMSE to fresh noisy labels (net, dot product, always 0), design of approx_dot.py."""
    generator = torch.Generator().manual_seed(seed)
    P, Q, _, _ = dot_samples((users,), d, generator)
    pair = torch.randint(users * users, (90 * users,), generator=generator)
    u, i = pair // users, pair % users
    label = (P[u] * Q[i]).sum(1) + 0.85 * torch.randn(len(u), generator=generator)
    P, Q, label, u, i = (x.to(device) for x in (P, Q, label, u, i))
    hidden = [2 * d * times, d * times, d * times // 2]
    nets = paper_nets([2 * d, *hidden, 1], generator)
    optimizer = torch.optim.Adam(sum(nets.layers, ()), lr=1e-3, fused=True)
    for _ in range(epochs):
        for rows in torch.randperm(len(u), generator=generator).to(device).split(batch_size):
            guess = nets(torch.cat([P[u[rows]], Q[i[rows]]], 1)[None])[0]
            optimizer.zero_grad()
            (guess - label[rows]).square().mean().backward()
            optimizer.step()
    p, q, dot, fresh = dot_samples((100_000,), d, generator)
    with torch.no_grad():
        guess = nets(torch.cat([p, q], 1)[None].to(device))[0].cpu()
    return [float((x - fresh).square().mean().sqrt()) for x in (guess, dot, torch.zeros(()))]

# %% tags=["nbval-ignore-output"]
paper = {}
for d, users, times in progress(PAPER_RUNS or [[4, 100, 1]], desc="paper"):
    paper[f"d = {d}, {users:,} users, first layer × {times}"] = rmse = paper_run(d, users, times)
    measured(f"paper_{d}_{users}_{times}", rmse[0])
    measured(f"paper_{d}_{users}_{times}_over_dot", rmse[0] - rmse[1])
pd.DataFrame(paper, index=["net", "scalar product", "always 0"]).T.round(3)

# %%
_, by_dot, by_zero = np.mean(list(paper.values()), axis=0)
claim("fresh labels: the scalar product has 0.85, always 0 has 1.13, as the paper designed it",
      [by_dot, by_zero], [0.85, 1.13], atol=0.02, trivial=[by_zero, by_zero])

# %% [markdown]
# **(b)** NeuMF on the split of 44's section 11 (75/25 within each item, nDCG@10 over all unseen items), beside
# Recommenders' published NCF. **(c)** The ladder on the owner's third split ($y=1$: four stars or
# more), beside myFM's probit from ids alone.

# %%
def split_within_items(log, share=0.25, seed=0):
    """44's split: in every item's column a random share of its pairs is the test: (train, test)."""
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(all_user))
    rows = rows[np.argsort(all_item.numpy()[rows], kind="stable")]
    size = np.bincount(all_item, minlength=log.n_items)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
    late = place >= np.repeat(np.round((1 - share) * size), size)
    return torch.from_numpy(rows[~late]), torch.from_numpy(rows[late])


def ndcg_of_lists(scores, train, test, k=10):
    """nDCG@k of the best unseen items, binary, mean over users with test items."""
    known, wanted = (torch.zeros(n, m).index_put((all_user[rows], all_item[rows]), torch.ones(()))
                     for rows in (train, test))
    best = torch.where(known > 0, -torch.inf, scores).topk(k).indices
    discount = 1 / torch.log2(torch.arange(k) + 2.0)
    asked = wanted.sum(1) > 0
    ideal = torch.cumsum(discount, 0)[wanted.sum(1).clamp(1, k).long() - 1]
    return float(((wanted.gather(1, best) @ discount) / ideal)[asked].mean())

# %% tags=["nbval-ignore-output"]
train_44, test_44 = split_within_items(log)
split_models = made(BUILDS["NeuMF"][0], SPLIT_SEEDS)
penalty, epochs, _ = chosen["NeuMF"]
train_many(split_models, all_user[train_44], all_item[train_44], m, epochs, penalties=penalty)
of_split = [ndcg_of_lists(all_scores(model), train_44, test_44) for model in split_models]
count_44 = torch.bincount(all_item[train_44], minlength=m).float().expand(n, m)
by_popularity = ndcg_of_lists(count_44, train_44, test_44)
measured("split_ncf_ndcg10", np.mean(of_split),
         np.std(of_split, ddof=1) if SPLIT_SEEDS > 1 else None)
measured("split_popularity_ndcg10", by_popularity)
print(f"nDCG@10, 75/25 within items: NeuMF {np.mean(of_split):.3f}, popularity {by_popularity:.3f}")

# %%
claim("NeuMF is ahead of popularity on 44's split", np.mean(of_split), above=1.3 * by_popularity,
      trivial=by_popularity)
if DATA == "ml-100k":
    claim("MovieLens: AUC of Wide & Deep", auc["Wide & Deep"].mean(), above=0.775, trivial=0.5)
    claim("MovieLens: DCN reaches 0.77", auc["DCN"].mean(), above=0.77, trivial=0.5)
    claim("MovieLens: log-loss of Wide & Deep", quality["Wide & Deep"][:, 1].mean(), below=0.57,
          trivial=quality["always the base rate"][0, 1])

# %% [markdown]
# What the full run found (`make full NB=46`), MovieLens 100K; mean and spread of five seeds:
#
# | | HR@10 of 100 | nDCG@10 of 100 | HR@10 of all | published, MovieLens **1M**, of 100: HR, nDCG |
# |---|---|---|---|---|
# | popularity | <!--full:46.popularity_hr_of_100-->0.407 ± 0.004<!--/full--> | <!--full:46.popularity_ndcg_of_100-->0.227 ± 0.001<!--/full--> | <!--full:46.popularity_hr_of_all-->0.0838<!--/full--> | – |
# | item kNN | <!--full:46.item_knn_hr_of_100-->0.507 ± 0.006<!--/full--> | <!--full:46.item_knn_ndcg_of_100-->0.293 ± 0.004<!--/full--> | <!--full:46.item_knn_hr_of_all-->0.105<!--/full--> | – |
# | GMF | <!--full:46.gmf_hr_of_100-->0.643 ± 0.006<!--/full--> | <!--full:46.gmf_ndcg_of_100-->0.369 ± 0.008<!--/full--> | <!--full:46.gmf_hr_of_all-->0.124 ± 0.005<!--/full--> | 0.706, 0.433 |
# | MLP | <!--full:46.mlp_hr_of_100-->0.612 ± 0.008<!--/full--> | <!--full:46.mlp_ndcg_of_100-->0.351 ± 0.006<!--/full--> | <!--full:46.mlp_hr_of_all-->0.123 ± 0.007<!--/full--> | 0.688, 0.416 |
# | NeuMF | <!--full:46.neumf_hr_of_100-->0.64 ± 0.01<!--/full--> | <!--full:46.neumf_ndcg_of_100-->0.371 ± 0.007<!--/full--> | <!--full:46.neumf_hr_of_all-->0.129 ± 0.005<!--/full--> | 0.699, 0.421 (the authors' own code: 0.701, 0.425) |
# | MF | <!--full:46.mf_hr_of_100-->0.649 ± 0.008<!--/full--> | <!--full:46.mf_ndcg_of_100-->0.375 ± 0.004<!--/full--> | <!--full:46.mf_hr_of_all-->0.131 ± 0.005<!--/full--> | – |
# | iALS | <!--full:46.ials_hr_of_100-->0.653 ± 0.008<!--/full--> | <!--full:46.ials_ndcg_of_100-->0.380 ± 0.004<!--/full--> | <!--full:46.ials_hr_of_all-->0.142 ± 0.006<!--/full--> | – |
#
# The published column is that of the reimplementation
# [guoyang9/NCF](https://github.com/guoyang9/NCF) (32 factors, 20 epochs, no pretraining), on a larger data set: neighbours,
# not equals. In (a), by how much more than the product's 0.85 the full run's nets miss *fresh* noisy labels:
#
# | first layer | d = 16 | d = 32 | d = 64 | d = 128 |
# |---|---|---|---|---|
# | × 1, 4,000 users | +<!--full:46.paper_16_4000_1_over_dot-->0.0527<!--/full--> | +<!--full:46.paper_32_4000_1_over_dot-->0.0628<!--/full--> | +<!--full:46.paper_64_4000_1_over_dot-->0.110<!--/full--> | +<!--full:46.paper_128_4000_1_over_dot-->0.327<!--/full--> |
# | × 1, 16,000 users | +<!--full:46.paper_16_16000_1_over_dot-->0.0462<!--/full--> | | | |
# | × 2, 4,000 users | | | +<!--full:46.paper_64_4000_2_over_dot-->0.148<!--/full--> | |
# | × 4, 4,000 users | +<!--full:46.paper_16_4000_4_over_dot-->0.0272<!--/full--> | | | |
#
# The paper's Figure 3 plots the same quantity for up to 128,000 users without printed numbers; its data are
# drawn pair by pair without repetition (ours may repeat a pair), the rest is as in its code. One seed each
# here, five there. In (b), nDCG@10 of NeuMF is
# <!--full:46.split_ncf_ndcg10-->0.40 ± 0.01<!--/full--> (popularity <!--full:46.split_popularity_ndcg10-->0.251<!--/full-->), Recommenders
# publish 0.396 for their NCF on their own draw of this split; 44's iALS has
# <!--full:44.ials_ndcg10-->0.488 ± 0.007<!--/full-->. In (c) Wide & Deep has AUC
# <!--full:46.wide_deep_auc-->0.7779 ± 0.0008<!--/full-->, log-loss
# <!--full:46.wide_deep_log_loss-->0.5604 ± 0.0008<!--/full-->, DCN <!--full:46.dcn_auc-->0.7731 ± 0.0003<!--/full-->,
# <!--full:46.dcn_log_loss-->0.5647 ± 0.0003<!--/full-->, linear <!--full:46.linear_auc-->0.760<!--/full-->; myFM publishes 0.7896 and 0.5484
# **from ids alone**, and 45's probit has <!--full:45.auc-->0.793<!--/full-->: these two average over a
# posterior, without any depth.
#
# ## Where the notes slip
#
# | | the notes | right |
# |---|---|---|
# | E74 | NCF's results are *better* than ordinary matrix factorisation; a line below, "Rendle criticised it" | with penalty and epochs of each chosen on validation, the MLP is behind MF on these plays and NeuMF not ahead of it: section 7 (MovieLens: 11); and an MLP learns a product only from many samples: section 6 |
# | E131 | embeddings are the columns of $W$; "a nonlinear generalisation of matrix factorisation" | without bias, activation and other features, (46.1); concatenation + MLP has no exact product, (46.4), NeuMF has, (46.3) |
# | E141 | the loss without brackets; "an MLP added to MF", then only the MLP's equations | (46.5) with brackets; the product branch and the fusion (46.3) |
# | E142 | "many features go in, over some of them a big MLP" | the wide part is linear with *cross products*, the deep part embeddings and MLP; logits added, trained jointly: (46.9), (46.10) |
# | E144 | "polynomials up to degree = number of layers", "the sum of all possible" | degree $l+1$, coefficients tied: (46.13), (46.15) |
# | E145 | $0\le\lvert\nu\rvert\le l+1$, parameters $w_i,b_i$, "reproduces polynomials in the class" | the theorem's layer has no $b$, so $\lvert\nu\rvert\ge1$ and $x_l\parallel x_0$: (46.12); only a family with $(l+1)d$ free numbers: (46.14) |
#
# ### E141 · What the lost brackets do
#
# Read as printed, $-\sum y\log\hat y+(1-y)\log(1-\hat y)$ is minus a sum *plus* whatever the last pair adds.

# %%
guess = torch.tensor([0.9, 0.2, 0.4], dtype=torch.float64)  # ŷ of one played, two not
label = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
more_wrong = torch.tensor([0.9, 0.2, 0.9], dtype=torch.float64)  # the last one more wrong

# %%
with_brackets = lambda guess: ncf_loss(torch.logit(guess), label)
as_printed = lambda guess: (-(label * guess.log()).sum() + (1 - label[-1]) * (1 - guess[-1]).log())
for name, loss in (("with brackets", with_brackets), ("as printed", as_printed)):
    print(f"{name}: {loss(guess):.3f}; with ŷ = 0.9 for the last pair {loss(more_wrong):.3f}")
claim("a worse ŷ of the last pair lowers the loss as printed",
      as_printed(more_wrong) - as_printed(guess), below=0.0,
      trivial=with_brackets(more_wrong) - with_brackets(guess))

# %% [markdown]
# ## What it costs
#
# **Retrieval.** One user, all items. The product is one matrix–vector product: $d$ multiplications an item,
# and indexes for nearest neighbours can even skip most items. The MLP must run once per item; but its first
# layer splits, $W_1[p;q]=W_1^pp+W_1^qq$: the items' half can be computed the night before, the user's half
# once. Layers of widths $H_1,\dots,H_L$ take, in multiplications per item,
#
# $$\text{product }d,\qquad\text{MLP }2d\,H_1+\sum_{l=2}^{L}H_{l-1}H_l+H_L,\qquad\text{first layer split }\sum_{l=2}^{L}H_{l-1}H_l+H_L \tag{46.16}$$

# %%
def multiplications(d_mlp, hidden, split=False):
    """Multiplications of one pair in the MLP by eq. (46.16); split: without the first layer."""
    return sum(a * b for a, b in itertools.pairwise([*([] if split else [2 * d_mlp]), *hidden, 1]))


def first_layer_halves(net):
    """What the first layer makes of each user and of each item: (n, H_1), (m, H_1)."""
    W, d = net.mlp[0].weight, net.d_mlp
    return net.p_mlp.weight @ W[:, :d].T + net.mlp[0].bias, net.q_mlp.weight @ W[:, d:].T


def from_halves(net, of_user, of_items):
    """Logits of all items for one user, of_user (H_1,), of_items (m, H_1): the other layers."""
    return net.h(net.mlp[1:](of_user + of_items)).squeeze(-1)

# %%
for d_, hidden_ in ((D_MLP, HIDDEN), (5, (7, 3)), (4, (6,))):
    net = NeuMF(3, 100, 0, d_, hidden_)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        whole_net = net(torch.zeros(100, dtype=torch.int64), torch.arange(100))
    of_users, of_items = (half.detach() for half in first_layer_halves(net))
    with FlopCounterMode(display=False) as flops_split, torch.no_grad():
        in_halves = from_halves(net, of_users[0], of_items)
    check("46.16", f"d = {d_}: PyTorch counts as many multiplications, whole and split, 100 items",
          [100 * multiplications(d_, hidden_, split) for split in (False, True)],
          [count.get_total_flops() / 2 for count in (flops, flops_split)], atol=0)
    check("46.16", "… and the split net gives the same logits", in_halves, whole_net, atol=1e-5)
with FlopCounterMode(display=False) as flops_of_product:
    torch.rand(100, 16) @ torch.rand(16, 1)
check("46.16", "… and d an item for a product", 100 * 16, flops_of_product.get_total_flops() / 2,
      atol=0)

# %%
retrieval = {}
for size in CATALOGUES:
    net, mine = NeuMF(1, size, 0, D_MLP, HIDDEN), torch.randn(D_MLP)
    vectors = torch.randn(size, D_MLP)
    ids, nobody = torch.arange(size), torch.zeros(size, dtype=torch.int64)
    with torch.no_grad():
        of_user, of_items = first_layer_halves(net)
        retrieval[size] = [timed(lambda: net.logits(nobody, ids)), timed(
            lambda: from_halves(net, of_user[0], of_items)), timed(lambda: vectors @ mine)]
times_more = {size: (whole / dot, split / dot) for size, (whole, split, dot) in retrieval.items()}

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(5.4, 2.8))
counts = [multiplications(D_MLP, HIDDEN, split) for split in (False, True)]
looks = {"MLP, item by item": "-o", "MLP, first layer split": "-.^",
         "one matrix–vector product": "--s"}
for k, (name, look) in enumerate(looks.items()):
    ax.plot(CATALOGUES, [1e3 * t[k] for t in retrieval.values()], look, color="black", label=name)
ax.set(xscale="log", yscale="log", xlabel="items", ylabel="milliseconds for one user",
       title=" / ".join(map(str, (*counts, D_MLP))) + " multiplications an item")
ax.legend()
plt.show()

# %% tags=["nbval-ignore-output"]
measured("retrieval_ratio", times_more[CATALOGUES[-1]][0])
measured("retrieval_ratio_split", times_more[CATALOGUES[-1]][1])
for k, name in enumerate(("item by item", "first layer split")):
    print(f"MLP, {name}: {counts[k] / D_MLP:.1f} times the product's multiplications; the time: " +
          ", ".join(f"{ratios[k]:.0f} times at {size:,}" for size, ratios in times_more.items()))

# %% [markdown]
# ## Break it
#
# Choose a function of this page and one change in it; the function and what depends on it are rebuilt in a
# copy, and the checks that it reaches run again. Where nothing notices, the change is often one of handling
# or of an opponent in a table, not of a formula.

# %% tags=["nbval-ignore-output"]
break_it()

# %% [markdown]
# ## Exam
#
# Answer aloud first, then open the model answer.

# %% [markdown] tags=["exam"]
# ### Question 69 · Where are the user embeddings in an NCF network with one-hot inputs? Does concatenation + MLP contain the dot product?
#
# **По-русски.** Где в сети NCF с one-hot-входами находятся эмбеддинги пользователей? Может ли сеть с
# конкатенацией и MLP точно выразить скалярное произведение?
#
# <details><summary>Model answer</summary>
#
# **The network.** User $u$ enters as the one-hot vector $e_u\in\{0,1\}^n$ (1 at place $u$), item $i$ as
# $e_i\in\{0,1\}^m$. Each goes through a linear layer of its own, $p_u=W_Ue_u$, $q_i=W_Ie_i$ with
# $W_U\in\mathbb R^{d\times n}$, $W_I\in\mathbb R^{d\times m}$; the results are concatenated and pass $L$
# layers:
# $$z_0=\begin{bmatrix}p_u\\q_i\end{bmatrix},\quad z_l=\max(0,W_lz_{l-1}+b_l),\ l=1,\dots,L,\quad\hat y_{ui}=\sigma(h^\top z_L+b),\quad\sigma(a)=\frac1{1+e^{-a}} .$$
# **Embeddings.** $W_Ue_u=\sum_v(W_U)_{:,v}(e_u)_v=(W_U)_{:,u}$: the embedding of user $u$ is the $u$-th
# *column* of the first layer's weight matrix (a row of the table, if `Embedding` stores the transpose);
# gradients of a pair reach only this column. True without bias, activation and additional features: with bias
# $c$ and ReLU the first layer gives $\max(0,(W_U)_{:,u}+c)$: the column $(1,-0.5)$ with $c=(0.1,0.2)$ becomes
# $(1.1,0)$; with features $x$ (age, …) appended, $(W_U)_{:,u}+Vx+c$.
#
# **The product.** No. With ReLU layers the logit is a continuous *piecewise linear* function of $(p,q)$; on
# every piece its second derivatives are 0. But $\langle p,q\rangle=\sum_fp_fq_f$ has $\partial^2/\partial
# p_f\partial q_f=1$ everywhere. So no weights make them equal on any open set. (A sigmoid in front does not
# help: $\sigma$ is monotone, equality of probabilities is equality of logits.) It can be *approximated* on a
# bounded set: $p_fq_f=\frac14[(p_f+q_f)^2-(p_f-q_f)^2]$, each square interpolated by $K$ straight pieces; for
# $\lvert p_f\rvert,\lvert q_f\rvert\le1$ the squares are needed on $[-2,2]$, the gap is at most
# $(4/K)^2/4=4/K^2$. Both gaps are ≥ 0, so their difference is at most the larger, $4/K^2$; divided by 4 and
# summed over $d$ coordinates, with $2Kd$ ReLUs the error is at most $d/K^2$. With another activation the
# argument changes: with $a(s)=s^2$ the network contains the product exactly, $\frac14[(p+q)^2-(p-q)^2]$.
# To *learn* it takes many samples,
# more the larger $d$ (Rendle et al., 2020). NeuMF contains it: its last layer sees the product by entries as
# well,
# $$\hat y_{ui}=\sigma\Big(h^\top\begin{bmatrix}p^G_u\odot q^G_i\\z_L\end{bmatrix}+b\Big),$$
# and for $h=(1,\dots,1,0,\dots,0)$, $b=0$ this is $\sigma(\langle p^G_u,q^G_i\rangle)$, matrix factorisation.
#
# **Ответ по-русски.** *Сеть.* Пользователь $u$ подаётся как one-hot-вектор $e_u\in\{0,1\}^n$ (единица на
# $u$-й позиции), объект $i$ — как $e_i\in\{0,1\}^m$. Каждый проходит через свой линейный слой: $p_u=W_Ue_u$,
# $q_i=W_Ie_i$, где $W_U\in\mathbb R^{d\times n}$, $W_I\in\mathbb R^{d\times m}$; затем векторы
# конкатенируются и проходят $L$ полносвязных слоёв:
# $$z_0=\begin{bmatrix}p_u\\q_i\end{bmatrix},\quad z_l=\max(0,W_lz_{l-1}+b_l),\ l=1,\dots,L,\quad\hat y_{ui}=\sigma(h^\top z_L+b),\quad\sigma(a)=\frac1{1+e^{-a}} .$$
# *Эмбеддинги.* $W_Ue_u=\sum_v(W_U)_{:,v}(e_u)_v=(W_U)_{:,u}$: эмбеддинг пользователя $u$ — это $u$-й
# *столбец* матрицы весов первого слоя (в `Embedding` хранится транспонированная матрица, и это строка);
# градиент по одной паре изменяет только этот столбец. Это верно без сдвига, функции активации и
# дополнительных признаков. Со сдвигом $c$ и ReLU слой выдаёт $\max(0,(W_U)_{:,u}+c)$: столбец $(1;\,-0{,}5)$
# при $c=(0{,}1;\,0{,}2)$ превращается в $(1{,}1;\,0)$; с признаками $x$ (возраст и т. п.) получается
# $(W_U)_{:,u}+Vx+c$.
#
# *Скалярное произведение.* Нет, не может. Логит сети с ReLU — непрерывная *кусочно-линейная* функция от
# $(p,q)$, на каждом куске её вторые производные равны нулю. У $\langle p,q\rangle=\sum_fp_fq_f$ смешанная
# производная $\partial^2/\partial p_f\partial q_f$ всюду равна 1. Поэтому ни при каких весах они не совпадают
# ни на каком открытом множестве (сигмоида монотонна: равенство вероятностей равносильно равенству логитов).
# *Приблизить* его на ограниченном множестве можно: $p_fq_f=\frac14[(p_f+q_f)^2-(p_f-q_f)^2]$, каждый квадрат
# заменяют ломаной из $K$ звеньев; при $\lvert p_f\rvert,\lvert q_f\rvert\le1$ квадраты нужны на отрезке
# $[-2,2]$, отклонение ломаной не больше $(4/K)^2/4=4/K^2$. Оба отклонения неотрицательны, поэтому их разность
# не больше $4/K^2$; после деления на 4 и суммирования по $d$ координатам $2Kd$ нейронов дают ошибку не больше
# $d/K^2$. С другой функцией активации рассуждение меняется: при квадратичной, $a(s)=s^2$, сеть содержит
# произведение точно, $\frac14[(p+q)^2-(p-q)^2]$.
# *Выучить* его по данным сети трудно: нужно много примеров, и тем больше, чем больше $d$ (Rendle и др.,
# 2020). NeuMF его содержит, так как последний слой видит и поэлементное произведение:
# $$\hat y_{ui}=\sigma\Big(h^\top\begin{bmatrix}p^G_u\odot q^G_i\\z_L\end{bmatrix}+b\Big),$$
# и при $h=(1,\dots,1,0,\dots,0)$, $b=0$ получается $\sigma(\langle p^G_u,q^G_i\rangle)$ — матричное разложение.
#
# **Typical mistake.** "NCF generalises matrix factorisation" said of the MLP alone; rows instead of columns
# of $W$; "universal approximation" taken for equality.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 71 · Expand a two-layer cross network for d = 2; list monomials, maximal degree and free parameters.
#
# **По-русски.** Раскройте выражение для двухслойной кросс-сети при d = 2; перечислите одночлены, укажите
# максимальную степень и число свободных параметров.
#
# <details><summary>Model answer</summary>
#
# **Layer**: $x_{l+1}=x_0\,x_l^\top w_l+b_l+x_l$; in the theorem $b_l=0$, the output is $g_l=x_l^\top w_l$.
# Write $x_0=(x_1,x_2)$, $w_k=(a_k,c_k)$, $s_k=x_0^\top w_k=a_kx_1+c_kx_2$.
#
# **Expansion.** The scalar $x_0^\top w_0=s_0$ gives $x^{(1)}=x_0s_0+x_0=x_0(1+s_0)$. Then
# $x^{(1)\top}w_1=s_1(1+s_0)$, so $x^{(2)}=x_0s_1(1+s_0)+x_0(1+s_0)=x_0(1+s_0)(1+s_1)$: a multiple of $x_0$.
# With the output weights $w_2$
# $$g_2=s_2(1+s_0)(1+s_1)=s_2+s_2(s_0+s_1)+s_0s_1s_2 .$$
# Nine monomials and their coefficients:
#
# | | |
# |---|---|
# | $x_1$, $x_2$ | $a_2$, $c_2$ |
# | $x_1^2$ | $a_2(a_0+a_1)$ |
# | $x_1x_2$ | $a_2(c_0+c_1)+c_2(a_0+a_1)$ |
# | $x_2^2$ | $c_2(c_0+c_1)$ |
# | $x_1^3$, $x_2^3$ | $a_0a_1a_2$, $c_0c_1c_2$ |
# | $x_1^2x_2$ | $a_0a_1c_2+a_0c_1a_2+c_0a_1a_2$ |
# | $x_1x_2^2$ | $a_0c_1c_2+c_0a_1c_2+c_0c_1a_2$ |
#
# **Degree** 3 = number of layers + 1; **no constant term** ($g_2(0)=0$). In general degrees $1,\dots,l+1$ and
# $\binom{d+l+1}{d}-1$ monomials.
#
# **Free parameters.** Three weight vectors of length 2: $(l+1)d=6$. Nine coefficients are thus tied: the
# Jacobian of the nine by the six parameters has rank 6 at a general point, the polynomials form a
# 6-dimensional family in a space of 9 dimensions: only products of three linear factors of this form, not all
# polynomials up to degree 3. (With biases $b_0,b_1$ the two layers have $2\cdot2d=8$
# parameters and $w_2$ two more, a constant term appears and $x^{(l)}$ is no longer parallel to $x_0$.)
#
# **Ответ по-русски.** *Слой*: $x_{l+1}=x_0\,x_l^\top w_l+b_l+x_l$; в теореме $b_l=0$, выход — $g_l=x_l^\top
# w_l$. Обозначим $x_0=(x_1,x_2)$, $w_k=(a_k,c_k)$, $s_k=x_0^\top w_k=a_kx_1+c_kx_2$.
#
# *Раскрытие скобок.* Скаляр $x_0^\top w_0$ равен $s_0$, поэтому $x^{(1)}=x_0s_0+x_0=x_0(1+s_0)$. Далее
# $x^{(1)\top}w_1=s_1(1+s_0)$, поэтому $x^{(2)}=x_0s_1(1+s_0)+x_0(1+s_0)=x_0(1+s_0)(1+s_1)$ — вектор,
# параллельный $x_0$. С выходными весами $w_2$
# $$g_2=s_2(1+s_0)(1+s_1)=s_2+s_2(s_0+s_1)+s_0s_1s_2 .$$
# Девять одночленов и их коэффициенты: $x_1$: $a_2$; $x_2$: $c_2$; $x_1^2$: $a_2(a_0+a_1)$; $x_1x_2$:
# $a_2(c_0+c_1)+c_2(a_0+a_1)$; $x_2^2$: $c_2(c_0+c_1)$; $x_1^3$: $a_0a_1a_2$; $x_2^3$: $c_0c_1c_2$; $x_1^2x_2$:
# $a_0a_1c_2+a_0c_1a_2+c_0a_1a_2$; $x_1x_2^2$: $a_0c_1c_2+c_0a_1c_2+c_0c_1a_2$.
#
# *Максимальная степень* — 3, то есть число слоёв плюс один; *свободного члена нет* ($g_2(0)=0$). В общем
# случае — степени от 1 до $l+1$ и $\binom{d+l+1}{d}-1$ одночленов.
#
# *Свободные параметры*: три вектора весов длины 2, всего $(l+1)d=6$. Поэтому девять коэффициентов связаны:
# матрица Якоби девяти коэффициентов по шести параметрам в точке общего положения имеет ранг 6. Получается
# шестимерное семейство в девятимерном пространстве — только произведения трёх линейных множителей указанного
# вида, а не все многочлены степени не выше 3. (Со сдвигами $b_0,b_1$ у двух слоёв $2\cdot2d=8$ параметров и
# ещё два в векторе $w_2$, появляется свободный член, и $x^{(l)}$ уже не параллелен $x_0$.)
#
# **Typical mistake.** Degree 2 for two layers; a constant term without $b$; "all polynomials up to the
# degree": nine coefficients are not nine free numbers; $x_0x_l^\top w_l$ taken for a matrix.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# - Embeddings are the columns of the layer that meets the one-hot vector (46.1); NCF puts layers over two of
#   them (46.2), NeuMF adds the product (46.3).
# - Layers and ReLUs contain no product; $2Kd$ of them come as near as $d/K^2$ (46.4). Learned from samples
#   they come nowhere near at the sizes of section 6, while the same net given $p\odot q$ does.
# - The loss is cross-entropy over plays and fresh negatives (46.5). With penalty and epochs of each chosen on
#   validation the MLP was behind MF on these plays, and NeuMF not ahead of it; retrieval with a product is a
#   matrix–vector product, (46.16).
# - Wide & Deep adds cross products, which remember, to a network, which generalises (46.9), (46.10).
# - A cross network without biases is $x_0$ times linear factors (46.12): degrees 1 to $l+1$, tied coefficients
#   (46.13)–(46.15).
#
# **References**
#
# - X. He et al., [Neural collaborative filtering](https://arxiv.org/abs/1708.05031), WWW 2017.
# - S. Rendle, W. Krichene, L. Zhang, J. Anderson,
# [Neural collaborative filtering vs. matrix factorization revisited](https://arxiv.org/abs/2005.09683), RecSys 2020;
# [their code](https://github.com/google-research/google-research/tree/master/dot_vs_learned_similarity).
# - H.-T. Cheng et al., [Wide & Deep learning for recommender systems](https://arxiv.org/abs/1606.07792), 2016.
# - R. Wang et al., [Deep & Cross network for ad click predictions](https://arxiv.org/abs/1708.05123), 2017;
# [DCN V2](https://arxiv.org/abs/2008.13535), 2021.
# - W. Krichene, S. Rendle, [On sampled metrics for item recommendation](https://doi.org/10.1145/3394486.3403226), KDD 2020.
#
# <!-- navigation -->
# previous: [45 Factorization machines](45_factorization_machines.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [47 Two towers](47_two_tower.ipynb)
# <!-- /navigation -->
