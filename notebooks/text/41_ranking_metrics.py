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
# # 41 · Ranking metrics: how good is a list of recommendations
#
# A recommender returns a list; which number says how good the list is, and what does that number fail to see? Every metric
# is defined, computed for millions of scores at once, proved against an independent count, and then fooled on purpose.
#
# You will be able to
# * turn ratings of any kind into relevance and choose a metric that fits them;
# * compute hitrate, precision, recall, AP, RR, DCG and nDCG by hand and in batches, with ties and with users who like nothing;
# * say what a random ranking would score, so that a number such as "recall 0.2" means something;
# * split data without letting the future leak into training, and show what a leak does;
# * combine several metrics into one number, by regression or from experiments that make the product worse.
#
# **Prerequisites**: probability (expectation, combinations); tensors with leading batch dimensions.
#
# **Time** 20 s on 2 CPU cores · **Memory** 0.8 GB · **Data** bundled ratings (full run: MovieLens 100K), simulated events · **Exam questions** 14, 15, 75, 76 · [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)

# %% [markdown]
# ## Notation
#
# | symbol | in code | shape, unit or range |
# |---|---|---|
# | $u,\ i$ | `user`, `item` | ids from 0 |
# | $r_{ui}$ | `relevance` | `(…, n)`, true rating or relevance; relevant means $r_{ui}>0$ |
# | $a_{ui}$ | `scores` | `(…, n)`, the model's score, any real number or $-\infty$ |
# | $I_u,\ U_i$ | – | items rated by $u$; users who rated $i$ |
# | $P,\ S$ | `P`, `S` | precision and recall ($S$, because $R$ is a list or the data), in $[0,1]$ |
# | $n,\ k$ | `n`, `k` | candidates of a user; length of the list shown, $1\le k\le n$ |
# | $p$ | `position` | position in the list, 1 is the top |
# | $r_{(p)}$ | `ranked[p - 1]` | relevance of the item at position $p$ |
# | $L_u,\ m=\lvert L_u\rvert$ | `relevance > 0`, `m` | relevant items of the user and their number |
# | $R_u(k)$ | – | the $k$ items with the highest scores |
# | $g,\ d$ | `gain`, `discount` | gain of a relevance; discount of a position |
# | $t,\ c,\ B,\ j$ | `size`, `total`, `before`, `within` | a group of tied items: its size, its relevant items, relevant items ahead of it, place inside it from 1 |
# | $q_i$ | `embeddings` | `(…, k, d)`, vectors of the items shown |
# | $d(b,B),\ C_{B,w}$ | `surprise`, `counts` | unexpectedness of item $b$ for a user with items $B$; items in $B$ by author $w$ |
# | $\tau,\ \ell$ | `time`, `future_share` | time of an event, integer; share of (train, test) pairs that see the future |
# | $w,\ \Delta_e$ | `w`, `deltas` | `(J,)`, `(E, J)`: weights of $J$ metrics, their changes in $E$ experiments |

# %%
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

# %% [markdown]
# The libraries of this topic; scikit-learn, SciPy and pandas serve as judges.

# %%
import math
from collections import Counter
from itertools import permutations, product
from numbers import Integral

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from ipywidgets import IntSlider, interact
from scipy import stats
from scipy.optimize import linprog, minimize_scalar
from scipy.spatial.distance import pdist
from sklearn import metrics as sk
from sklearn.linear_model import LinearRegression
from torch.nn.functional import pad

# %% [markdown]
# Every size in one place: the data, the Monte Carlo runs, the simulated shop, the timing.

# %% tags=["parameters"]
DATA = "bundled"          # or "ml-100k"
DRAWS = 20_000            # Monte Carlo repetitions; fewer would refute too little
SHOP_USERS = 600  # or more
SHOP_ITEMS = 200
SHOP_EVENTS = 20          # events of a user
COST_USERS = 1_000
COST_ITEMS = 1_000

# %% [markdown]
# Two small tools: reproducible uniform numbers, the same on every device, and the way back to numpy.

# %%
def uniform(*shape, seed):
    """Uniform float64 numbers in [0, 1) of a shape, drawn on the CPU with a seed of their own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).to(device)


def host(x):
    """Tensor -> numpy array on the CPU."""
    return x.detach().cpu().numpy()

# %% [markdown]
# ## 1. What a recommender learns from
#
# The training set is a set $R$ of triples $(u,i,r_{ui})$: user, item, and the **rating**, the outcome of their interaction. A model
# sees each pair through features $x^{ui}$ (likes the user gave to this author, share of similar clips watched to the end, click rate of
# the item …); $r_{ui}$ is its target. What counts as a rating is a choice of the product:
#
# | kind | example | what absence means |
# |---|---|---|
# | real | 7.5 of 10; share of a clip watched | not seen |
# | ordered classes | one to five stars | not seen |
# | binary | like / dislike | not seen, or no opinion |
# | unordered classes | reaction: heart, laugh, anger | not seen |
# | unary (implicit) | click, purchase | unknown: unseen **or** disliked |
#
# A pair has at most one rating, so with $I_u$ the items rated by $u$, $U_i$ the users who rated $i$, and $N_U,N_I$ the numbers of users and items,
#
# $$\lvert R\rvert=\sum_u\lvert I_u\rvert=\sum_i\lvert U_i\rvert\le N_UN_I. \tag{41.1}$$

# %%
ratings = data.ratings(DATA).to(device)
matrix = torch.full((ratings.n_users, ratings.n_items), torch.nan, dtype=torch.float64,
                    device=device)
matrix[ratings.user, ratings.item] = ratings.value
rated_by_user = torch.bincount(ratings.user, minlength=ratings.n_users)
rated_by_item = torch.bincount(ratings.item, minlength=ratings.n_items)

# %% [markdown]
# The matrix keeps one cell per pair: a pair rated twice would be lost there, so equal counts prove that there is none.

# %%
observed = ~matrix.isnan()
check("41.1", "no pair is rated twice", int(observed.sum()), len(ratings))
check("41.1", "rows of the matrix count the users' ratings", observed.sum(1), rated_by_user)
check("41.1", "columns count the items' ratings", observed.sum(0), rated_by_item)

# %% [markdown]
# A ranking metric needs **relevance**, and the kind of rating decides how it is made. Three readings of the same data: the stars
# themselves, "liked" ($r\ge4$), and "rated at all", which is all that an implicit log would hold. Classes without an order have to be mapped to
# numbers by a decision about the product (anger: −1? 0? 1?), which no formula can replace.

# %%
readings = {"stars": ratings.value, "liked": (ratings.value >= 4).double(),
            "rated at all": torch.ones(len(ratings), device=device)}
for name, value in readings.items():
    print(f"{name:13s} {value.unique().numel():2d} values, mean {value.mean():.2f}")
print(f"observed cells {observed.double().mean():.1%}")

# %% [markdown]
# Most cells are empty, and "rated at all" is constant on the observed ones: a unary rating teaches nothing without the empty cells.
#
# ## 2. Ratings as numbers: MSE, RMSE, MAE
#
# With $N$ held-out ratings and errors $e_1..e_N$, prediction minus rating,
#
# $$\mathrm{MSE}=\frac1N\sum_je_j^2,\qquad \mathrm{RMSE}=\sqrt{\mathrm{MSE}},\qquad \mathrm{MAE}=\frac1N\sum_j\lvert e_j\rvert\le\mathrm{RMSE}. \tag{41.2}$$
#
# The inequality is $(\mathbb E\lvert e\rvert)^2\le\mathbb Ee^2$ (Jensen). RMSE and MAE are in stars, MSE in squared stars.

# %%
def rating_errors(r, a):
    """(MSE, RMSE, MAE) of eq. (41.2). r, a: ratings, predictions of one shape, else ValueError."""
    if r.shape != a.shape or r.numel() == 0:
        raise ValueError(f"ratings {tuple(r.shape)} and predictions {tuple(a.shape)} must have one "
                         "shape and not be empty")
    error = (a - r) * 1.0  # whole stars too
    mse = (error**2).mean()
    return mse, mse.sqrt(), error.abs().mean()

# %%
r_test, a_test = 1 + 4 * uniform(500, seed=1), 1 + 4 * uniform(500, seed=2)
mse, rmse, mae = rating_errors(r_test, a_test)
judges = sk.mean_squared_error, sk.root_mean_squared_error, sk.mean_absolute_error
check("41.2", "MSE, RMSE and MAE are scikit-learn's", torch.stack([mse, rmse, mae]),
      [judge(host(r_test), host(a_test)) for judge in judges], rtol=1e-12)
check("41.2", "MAE stays below RMSE", bool(mae < rmse))
whole = rating_errors(torch.tensor([5, 3]), torch.tensor([4, 3]))[0]
check("41.2", "whole stars are welcome", whole, 0.5)

# %% [markdown]
# **What they ask a model to predict.** Take a film with many ratings $r_1..r_N$ and one prediction $c$ for all. Then
#
# $$\arg\min_c\sum_j(r_j-c)^2=\bar r,\qquad \arg\min_c\sum_j\lvert r_j-c\rvert=\operatorname{median}(r). \tag{41.3}$$
#
# The first derivative of the left sum is $2\sum_j(c-r_j)$, zero at the mean. The slope of the right one is (number of $r_j<c$) − (number of $r_j>c$), zero where half
# lie on each side. A film that divides its audience gets a rating that nobody gave from MSE, and the opinion of the majority from MAE.

# %%
divided = torch.tensor([1.0, 1, 1, 1, 4.5, 5, 5, 5, 5], dtype=torch.float64)
best = {power: minimize_scalar(lambda c, power=power: float(((divided - c).abs() ** power).sum()),
                               bounds=(0, 6), method="bounded", options={"xatol": 1e-9}).x
        for power in (1, 2)}

# %%
check("41.3", "the mean minimises MSE", float(divided.mean()), best[2], atol=1e-5)
check("41.3", "the median minimises MAE", float(divided.median()), best[1], atol=1e-5)

# %% [markdown]
# The blind spot of all three: a list depends on the *order* of the predictions only. Model A is one star too high everywhere, so its
# list is perfect; model B has an RMSE almost three times smaller and still puts the wrong film first.

# %%
stars = torch.tensor([5.0, 4, 3, 2, 1])
model_a, model_b = stars + 1, torch.tensor([4.5, 4.6, 3.0, 2.0, 1.0])
rmse_a, rmse_b = rating_errors(stars, model_a)[1], rating_errors(stars, model_b)[1]
check("41.2", "A's RMSE is 2.8 to 3 times B's", 2.8 < float(rmse_a / rmse_b) < 3)
check("41.2", "only A puts the best film first", [int(model_a.argmax()), int(model_b.argmax())],
      [0, 1])

# %% [markdown]
# ## 3. Ratings as classes: precision, recall, F, ROC AUC
#
# Call an item positive if it is relevant, and recommend those above a threshold. With $TP$, $FP$, $FN$ the counts of true positives, false positives
# and false negatives, precision is $P=TP/(TP+FP)$, recall $S=TP/(TP+FN)$, and
#
# $$F_\beta=\frac{(1+\beta^2)PS}{\beta^2P+S}=\frac{(1+\beta^2)\,TP}{(1+\beta^2)\,TP+FP+\beta^2FN}. \tag{41.4}$$
#
# The right form follows by inserting $P$ and $S$ and multiplying by $(TP+FP)(TP+FN)/TP$; it is also defined when $TP=0$. With $\beta=1$ it is $F_1=2PS/(P+S)$, the harmonic mean. What $\beta$ means: at $S=\beta P$
# a small gain of recall is worth as much as the same gain of precision (van Rijsbergen),
#
# $$\frac{\partial F_\beta}{\partial P}=\frac{(1+\beta^2)S^2}{(\beta^2P+S)^2},\quad \frac{\partial F_\beta}{\partial S}=\frac{(1+\beta^2)\beta^2P^2}{(\beta^2P+S)^2}
# \ \Rightarrow\ \text{equal iff } S=\beta P. \tag{41.5}$$

# %%
def f_beta(tp, fp, fn, beta=1.0):
    """F_beta of eq. (41.4) from counts (tensors of one shape); NaN where all three are 0."""
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    weighted = (1 + beta**2) * tp
    return weighted / (weighted + fp + beta**2 * fn)

# %%
chosen, liked = uniform(200, seed=3) > 0.6, uniform(200, seed=4) > 0.7
tp, fp, fn = (chosen & liked).sum(), (chosen & ~liked).sum(), (~chosen & liked).sum()
P, S = tp / (tp + fp), tp / (tp + fn)
for beta in (0.5, 1.0, 2.0):
    f, form = f_beta(tp, fp, fn, beta), (1 + beta**2) * P * S / (beta**2 * P + S)
    judge = sk.fbeta_score(host(liked), host(chosen), beta=beta)
    check("41.4", f"F of beta = {beta}: both forms are scikit-learn's", [f, form],
          [judge] * 2, atol=1e-6)
none = f_beta(torch.tensor([0, 0]), torch.tensor([3, 0]), torch.tensor([2, 0]))
check("41.4", "no hit: F = 0; nothing chosen and nothing relevant: undefined",
      [bool(none[0] == 0), bool(none[1].isnan())])

# %% [markdown]
# Autograd confirms the meaning of $\beta$: the two slopes agree exactly on the line $S=\beta P$.

# %%
P_S = torch.tensor([0.4, 0.8], dtype=torch.float64, requires_grad=True)
slopes = torch.autograd.grad(5 * P_S[0] * P_S[1] / (4 * P_S[0] + P_S[1]), P_S)[0]    # beta = 2
check("41.5", "beta = 2: equal slopes at S = 2P", slopes[0], slopes[1], atol=1e-12)
bottom = (4 * 0.4 + 0.8) ** 2
check("41.5", "the slopes are those of the formula", slopes,
      [5 * 0.8**2 / bottom, 5 * 4 * 0.4**2 / bottom], atol=1e-12)

# %% [markdown]
# **ROC AUC** needs no threshold. It is the chance that a relevant item beats an irrelevant one, a tie counting half:
#
# $$\mathrm{AUC}=P(a^+>a^-)+\tfrac12P(a^+=a^-)=\frac{1}{m(n-m)}\sum_{i\in L}\sum_{j\notin L}\Big([a_i>a_j]+\tfrac12[a_i=a_j]\Big). \tag{41.6}$$
#
# All pairs cost $m(n-m)$. Ranks are cheaper. Let $\rho_i$ be the rank of item $i$ from the bottom (1 is the lowest score, tied items get the mean of their ranks). Then
# $\rho_i-\frac12=\#\{j:a_j<a_i\}+\frac12\#\{j:a_j=a_i\}$, the item itself included. Summed over $i\in L$ and split into opponents in $L$ and not in $L$, the part
# inside $L$ is $m^2/2$, because each of the $m^2$ ordered pairs counts with its reverse as one. Hence
#
# $$\mathrm{AUC}=\frac{\sum_{i\in L}\rho_i-\frac12m(m+1)}{m(n-m)}. \tag{41.7}$$

# %% [markdown]
# First one gate for bad input, which all metrics share. Scores may be $-\infty$ (items that must not be shown), never NaN.
# Mind that the items at $-\infty$ are last, not absent: where fewer than $k$ others exist, they fill the list.

# %%
def ranking_inputs(relevance, scores, k):
    """Checked relevance (…, n), scores (…, n) as float tensors; ValueError says what to change."""
    scores = torch.as_tensor(scores).contiguous()
    relevance = torch.as_tensor(relevance, device=scores.device)
    if relevance.shape != scores.shape or scores.ndim == 0:
        raise ValueError(f"relevance {tuple(relevance.shape)} and scores {tuple(scores.shape)} "
                         "must have one and the same shape (…, n)")
    n = scores.shape[-1]
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k <= n:
        raise ValueError(f"k must be an integer from 1 to the number n = {n} of items, got {k!r}")
    if scores.isnan().any():
        raise ValueError("scores contain NaN: give -inf to items that must not be shown")
    if not relevance.isfinite().all():
        raise ValueError("relevance must be finite: give 0 to items without a known rating")
    return relevance.double(), scores if scores.is_floating_point() else scores.double()

# %% [markdown]
# The definition, and its fast form:

# %%
def auc_loop(relevance, scores):
    """AUC by all pairs, eq. (41.6). relevance, scores: lists of n numbers."""
    pairs = [(a > b) + 0.5 * (a == b) for a, r in zip(scores, relevance) if r > 0
             for b, s in zip(scores, relevance) if s <= 0]
    return sum(pairs) / len(pairs)

# %% [markdown]
# By ranks: `below` and `upto` count the items with a lower, and with a lower or equal, score.

# %%
def roc_auc(relevance, scores):
    """Per-user AUC, eq. (41.7). (…, n) twice -> (…,); NaN unless both kinds of item are there."""
    relevance, scores = ranking_inputs(relevance, scores, 1)
    up = scores.sort(-1).values
    below, upto = torch.searchsorted(up, scores), torch.searchsorted(up, scores, right=True)
    relevant = (relevance > 0).double()
    m = relevant.sum(-1)
    wins = ((below + upto + 1) / 2 * relevant).sum(-1) - m * (m + 1) / 2
    return (wins / (m * (scores.shape[-1] - m))).to(scores.dtype)

# %%
rel = (uniform(7, 30, seed=5) > 0.7).double()
sc = (8 * uniform(7, 30, seed=6)).floor()  # few values, so many ties
rows = list(zip(host(rel), host(sc)))
by_pairs = [auc_loop(*row) for row in rows]
check("41.6", "pairs: scikit-learn's AUC", by_pairs, [sk.roc_auc_score(*r) for r in rows],
      atol=1e-12)
check("41.7", "the rank formula counts the same pairs", roc_auc(rel, sc), by_pairs, atol=1e-12)

# %%
check("41.7", "and is the Mann-Whitney U over m(n - m)", roc_auc(rel, sc),
      [stats.mannwhitneyu(s[r > 0], s[r == 0]).statistic / ((r > 0).sum() * (r == 0).sum())
       for r, s in rows], atol=1e-12)

# %% [markdown]
# The name comes from a curve: lower the threshold and plot the true against the false positive rate. Each irrelevant item adds a column
# whose height is the share of relevant items above it, so the area is the share of pairs in the right order.

# %%
fpr, tpr, _ = sk.roc_curve(*rows[0])
area = np.trapezoid(tpr, fpr)
check("41.6", "area under the ROC curve by trapezoids", area, by_pairs[0], atol=1e-12)

# %% [markdown]
# The curve of the first user:

# %%
fig, ax = plt.subplots(figsize=(4.2, 3.4))
ax.plot(fpr, tpr, marker="o", label=f"user 0, AUC {by_pairs[0]:.2f}")
ax.plot([0, 1], [0, 1], label="random order, AUC 0.50")
ax.set(xlabel="false positive rate", ylabel="true positive rate")
ax.legend()
plt.show()

# %% [markdown]
# Random scores give a curve near the diagonal. AUC weighs all $n$ positions alike, although the user sees the first $k$: section 7 returns to this.
#
# ## 4. Lists: what stands at the top
#
# Sort the candidates by **decreasing** score and show the first $k$: the set $R_u(k)$. With $L_u$ the relevant items, in Iverson brackets,
#
# $$\mathrm{hitrate@}k=[R_u(k)\cap L_u\ne\varnothing], \tag{41.8}$$
# $$\mathrm{precision@}k=\frac{\lvert R_u(k)\cap L_u\rvert}{k},\qquad \mathrm{recall@}k=\frac{\lvert R_u(k)\cap L_u\rvert}{\lvert L_u\rvert}. \tag{41.9}$$
#
# Relevant is every item with $r>0$: stars need a threshold first (section 1), or a single star counts as a hit. None of the three looks at the order inside the list. These do ($r_{(p)}$ is the relevance at position $p$, $P@p$ the precision of the first $p$):
#
# $$\mathrm{AP@}k=\frac1{\min(k,m)}\sum_{p=1}^k[r_{(p)}>0]\,P@p,\qquad \mathrm{RR@}k=\max_{p\le k}\frac{[r_{(p)}>0]}{p}. \tag{41.10}$$
#
# AP averages the precision at the positions of the relevant items: the area under the precision–recall steps. RR is one over the position of the first relevant item. Their means over users are MAP and MRR.
# (Some divide AP by $m$ even if $k<m$; then no list of length $k$ can reach 1.)
#
# First as a reader would count, on one list of relevances from the top down.

# %%
def hitrate_loop(ranked, k):
    """Eq. (41.8) for one list. ranked: relevance of each item, best score first."""
    return float(any(r > 0 for r in ranked[:k]))


def precision_loop(ranked, k):
    """Precision, eq. (41.9), for one list."""
    return sum(r > 0 for r in ranked[:k]) / k

# %% [markdown]
# Recall counts the same hits and divides by another number.

# %%
def recall_loop(ranked, k):
    """Recall, eq. (41.9), for one list; NaN if nothing is relevant."""
    m = sum(r > 0 for r in ranked)
    return sum(r > 0 for r in ranked[:k]) / m if m else math.nan

# %% [markdown]
# AP and RR walk down the list once.

# %%
def average_precision_loop(ranked, k):
    """AP@k of eq. (41.10) for one list; NaN if nothing is relevant."""
    m = sum(r > 0 for r in ranked)
    found = [precision_loop(ranked, p) for p in range(1, k + 1) if ranked[p - 1] > 0]
    return sum(found) / min(k, m) if m else math.nan

# %% [markdown]
# RR stops at the first relevant item.

# %%
def reciprocal_rank_loop(ranked, k):
    """RR@k of eq. (41.10): 0 if the first relevant item is below k; NaN if nothing is relevant."""
    first = next((p for p, r in enumerate(ranked, 1) if r > 0), None)
    return math.nan if first is None else 1 / first if first <= k else 0.0

# %% [markdown]
# The judges: set operations for the first three; for AP scikit-learn's `average_precision_score`, which means the same when $k=n$ and no scores are tied.

# %%
rel, sc = (4 * uniform(60, 12, seed=7) ** 3).round(), uniform(60, 12, seed=8)  # no ties
rel[:, 0] = 1  # everybody likes something
order = sc.argsort(-1, descending=True)
lists = rel.gather(-1, order).tolist()
shown = [set(row[:4]) for row in order.tolist()]
liked = [set(np.flatnonzero(row)) for row in host(rel)]

# %% [markdown]
# Sixty lists of twelve candidates, relevance from 0 to 4; `shown` and `liked` are $R_u(4)$ and $L_u$.

# %%
def each(metric, *arguments):
    """A list metric for each of the 60 lists."""
    return [metric(x, *arguments) for x in lists]


hits = [len(s & l) for s, l in zip(shown, liked)]
check("41.8", "hitrate@4 by sets", each(hitrate_loop, 4), [float(h > 0) for h in hits])
check("41.9", "precision@4 by sets", each(precision_loop, 4), [h / 4 for h in hits])
check("41.9", "recall@4 by sets", each(recall_loop, 4), [h / len(l) for h, l in zip(hits, liked)])

# %%
check("41.10", "AP@n is scikit-learn's average precision", each(average_precision_loop, 12),
      [sk.average_precision_score(*row) for row in zip(host(rel > 0), host(sc))], atol=1e-12)
single = [[float(p == q) for q in range(12)] for p in range(12)]  # one relevant item, at p
single_rr = [reciprocal_rank_loop(x, 12) for x in single]
check("41.10", "RR is the inverse position of a single item", single_rr, 1 / np.arange(1, 13))
check("41.10", "a single relevant item: RR@5 = AP@5", [reciprocal_rank_loop(x, 5) for x in single],
      [average_precision_loop(x, 5) for x in single])

# %% [markdown]
# **Graded relevance: DCG.** Each item contributes a gain, discounted by its position:
#
# $$\mathrm{DCG@}k=\sum_{p=1}^kg(r_{(p)})\,d(p),\qquad d(p)=\frac1{\log_2(p+1)},\qquad g(r)=2^r-1\ \text{ or }\ g(r)=r. \tag{41.11}$$
#
# For binary relevance both gains agree ($2^1-1=1$). With stars the exponential gain makes a 5 worth 31 and a 4 worth 15.
#
# **The best list.** Suppose two items with gains $g_a<g_b$ stand at positions $p<q$ in the wrong order. Exchanging them changes DCG by
#
# $$(g_b-g_a)\big(d(p)-d(q)\big)>0\qquad\text{as } d(p)>d(q), \tag{41.12}$$
#
# so as long as any pair is in the wrong order the list can be improved: DCG is maximal when the items stand by decreasing *true* relevance. (If only one of them lies in the top $k$, put $d(q)=0$; if neither does, nothing changes.)
# That maximum is the ideal DCG, and
#
# $$\mathrm{nDCG@}k=\frac{\mathrm{DCG@}k}{\mathrm{IDCG@}k},\qquad \mathrm{IDCG@}k=\max_{\text{orders}}\mathrm{DCG@}k=\sum_{p=1}^kg(r^\downarrow_p)\,d(p), \tag{41.13}$$
#
# where $r^\downarrow$ is **all** of the user's relevance in decreasing order, not only what the list shows.

# %%
def gain_of(r, gain):
    """2^r - 1 for "exp", r for "linear"; r a number."""
    return 2**r - 1 if gain == "exp" else r


def dcg_loop(ranked, k, gain="exp"):
    """DCG@k of eq. (41.11) for one list."""
    return sum(gain_of(r, gain) / math.log2(p + 1) for p, r in enumerate(ranked[:k], 1))

# %% [markdown]
# The ideal list of eq. (41.13) is the sorted one:

# %%
def ndcg_loop(ranked, k, gain="exp"):
    """nDCG@k of eq. (41.13) for one list; NaN if nothing is relevant."""
    ideal = dcg_loop(sorted(ranked, reverse=True), k, gain)
    return dcg_loop(ranked, k, gain) / ideal if ideal else math.nan

# %% [markdown]
# scikit-learn has $g(r)=r$ only; fed with $2^r-1$ it judges the other gain too.

# %%
grades, values = host(rel), host(sc)
for gain, fed in (("linear", grades), ("exp", 2**grades - 1)):
    check("41.11", f"DCG@5, {gain} gain: scikit-learn's mean", np.mean(each(dcg_loop, 5, gain)),
          sk.dcg_score(fed, values, k=5), rtol=1e-12)
    check("41.13", f"nDCG@5, {gain} gain", np.mean(each(ndcg_loop, 5, gain)),
          sk.ndcg_score(fed, values, k=5), rtol=1e-12)

# %% [markdown]
# One list by hand, $r=(2,0,3,1,0,0)$ at $k=3$: two of three relevant items are shown; DCG is $3+0+7/2$ with the exponential gain and $2+0+3/2$ with the linear one; the ideal list starts $(3,2,1)$.

# %%
by_hand = [2, 0, 3, 1, 0, 0]
counted = hitrate_loop(by_hand, 3), precision_loop(by_hand, 3), recall_loop(by_hand, 3)
check("41.9", "hitrate 1, precision 2/3, recall 2/3", counted, [1, 2 / 3, 2 / 3])
dcg_both = [dcg_loop(by_hand, 3, gain) for gain in ("exp", "linear")]
check("41.11", "DCG 6.5 and 3.5", dcg_both, [6.5, 3.5])
ndcg_both = [ndcg_loop(by_hand, 3, gain) for gain in ("exp", "linear")]
check("41.13", "nDCG 0.692 and 0.735", ndcg_both, [0.692, 0.735], atol=5e-4)

# %%
check("41.10", "AP (1 + 2/3) / 3", average_precision_loop(by_hand, 3), 5 / 9, atol=1e-12)
check("41.10", "RR 1, and 1/3 without the first item",
      [reciprocal_rank_loop(x, 3) for x in (by_hand, [0, *by_hand[1:]])], [1, 1 / 3])

# %% [markdown]
# The exchange argument, and brute force over all 720 orders of a list of six for what it implies.

# %%
graded = [3, 0, 2, 0, 1, 2]
all_orders = list(permutations(graded))
swapped = [2, 0, 3, 0, 1, 2]  # a 2 above the 3
check("41.12", "undoing a wrong order gains (g_b - g_a)(d(p) - d(q))",
      dcg_loop(graded, 6) - dcg_loop(swapped, 6), (7 - 3) * (1 - 1 / 2), atol=1e-12)
brought = [3, 2, 2, 0, 1, 0]  # the 2 from below k = 3 for the 0 at position 2
check("41.12", "an item from below k: d(q) = 0",
      dcg_loop(brought, 3) - dcg_loop(graded, 3), (3 - 0) / math.log2(3), atol=1e-12)
best = [max(dcg_loop(x, k) for x in all_orders) for k in range(1, 7)]
check("41.13", "at every k the best of all orders is the sorted one",
      [dcg_loop(sorted(graded)[::-1], k) for k in range(1, 7)], best)

# %% [markdown]
# **What the base of the logarithm does.** $\log_bx=\log_2x/\log_2b$, so every discount is multiplied by $\log_2b$ and with it DCG and IDCG:
#
# $$\mathrm{DCG}^{(b)}=\log_2b\cdot\mathrm{DCG}^{(2)},\qquad \mathrm{nDCG}^{(b)}=\mathrm{nDCG}^{(2)}. \tag{41.14}$$
#
# The gain is not a common factor: it changes nDCG, and can change which of two lists is better.

# %%
two, natural = (sk.dcg_score(grades, values, k=5, log_base=b) for b in (2, math.e))
check("41.14", "natural logs multiply DCG by log2(e)", two * math.log2(math.e), natural, rtol=1e-12)
top, ideal = (sk.dcg_score(grades[:1], by, k=5, log_base=math.e) for by in (values[:1], grades[:1]))
check("41.14", "nDCG does not notice", ndcg_loop(lists[0], 5, "linear"), top / ideal, rtol=1e-12)

# %% [markdown]
# And two lists of a user with relevances 3, 2, 2, 1, 0, 0 (so both have the same ideal) on which the gains disagree:

# %%
x, y = [3, 0, 0, 1], [2, 2, 1, 0]
prefers_x = {gain: dcg_loop(x, 4, gain) > dcg_loop(y, 4, gain) for gain in ("exp", "linear")}
check("41.11", "the exponential gain prefers x, the linear one y",
      prefers_x == {"exp": True, "linear": False})

# %% [markdown]
# ## 5. What a random list scores
#
# A metric means nothing without its value for a random order. Let all $n!$ orders be equally likely, $m$ items relevant.
#
# **Hitrate.** The top $k$ is a random subset of size $k$; it misses if it lies among the $n-m$ irrelevant items:
#
# $$\mathbb E\,\mathrm{hitrate@}k=1-\binom{n-m}k\Big/\binom nk. \tag{41.15}$$
#
# **Precision and recall.** Any position holds a relevant item with probability $m/n$, so $k$ positions hold $km/n$ on average:
#
# $$\mathbb E\,\mathrm{precision@}k=\frac mn,\qquad \mathbb E\,\mathrm{recall@}k=\frac kn. \tag{41.16}$$
#
# **RR.** The first relevant item stands at $p$ if $p$ is relevant and the other $m-1$ are among the $n-p$ positions below:
#
# $$\mathbb E\,\mathrm{RR@}k=\sum_{p=1}^k\frac1p\binom{n-p}{m-1}\Big/\binom nm. \tag{41.17}$$
#
# **AP.** Position $p$ is relevant with probability $\frac mn$; given that, each of the $p-1$ above is relevant with probability $\frac{m-1}{n-1}$, so $P@p$ is on average $\frac1p\big(1+(p-1)\frac{m-1}{n-1}\big)$.
# With $H_k=\sum_{p\le k}\frac1p$,
#
# $$\mathbb E\,\mathrm{AP@}k=\frac{m}{n\min(k,m)}\Big[H_k+\frac{m-1}{n-1}(k-H_k)\Big]. \tag{41.18}$$
#
# **DCG.** Every position holds the mean gain $\bar g=\frac1n\sum_ig(r_i)$ on average, and IDCG is fixed:
#
# $$\mathbb E\,\mathrm{DCG@}k=\bar g\sum_{p=1}^kd(p),\qquad \mathbb E\,\mathrm{nDCG@}k=\frac{\mathbb E\,\mathrm{DCG@}k}{\mathrm{IDCG@}k}. \tag{41.19}$$
#
# AUC is ½: a pair is as likely to stand one way as the other.

# %%
def random_hitrate(n, m, k):
    """Expected hitrate@k of a random order, eq. (41.15); n candidates, m relevant."""
    return 1 - math.comb(n - m, k) / math.comb(n, k)


def random_reciprocal_rank(n, m, k):
    """Expected RR@k of a random order, eq. (41.17); m >= 1."""
    return sum(math.comb(n - p, m - 1) / p for p in range(1, k + 1)) / math.comb(n, m)

# %% [markdown]
# AP, with the harmonic number:

# %%
def random_average_precision(n, m, k):
    """Expected AP@k of a random order, eq. (41.18); m >= 1, n >= 2."""
    harmonic = sum(1 / p for p in range(1, k + 1))
    return m / (n * min(k, m)) * (harmonic + (m - 1) / (n - 1) * (k - harmonic))

# %% [markdown]
# DCG needs the gains themselves, not only their number.

# %%
def random_dcg(relevances, k, gain="exp"):
    """Expected DCG@k of a random order, eq. (41.19). relevances: list of n numbers."""
    mean_gain = sum(gain_of(r, gain) for r in relevances) / len(relevances)
    return mean_gain * sum(1 / math.log2(p + 1) for p in range(1, k + 1))

# %% [markdown]
# The average over **all** 720 orders of six items ($m=4$) is exact.

# %%
def over_all_orders(metric, *arguments):
    """Mean of a list metric over all 720 orders of `graded`, for k = 1..6."""
    return [np.mean([metric(x, k, *arguments) for x in all_orders]) for k in ks]


ks = range(1, 7)
check("41.16", "precision is m/n", [4 / 6] * 6, over_all_orders(precision_loop), atol=1e-12)
check("41.16", "recall is k/n", [k / 6 for k in ks], over_all_orders(recall_loop), atol=1e-12)

# %%
check("41.6", "AUC, all orders: 1/2", np.mean([auc_loop(x, range(6, 0, -1)) for x in all_orders]),
      0.5, atol=1e-12)
check("41.15", "hitrate, all orders", [random_hitrate(6, 4, k) for k in ks],
      over_all_orders(hitrate_loop), atol=1e-12)
check("41.17", "RR, all orders", [random_reciprocal_rank(6, 4, k) for k in ks],
      over_all_orders(reciprocal_rank_loop), atol=1e-12)
check("41.18", "AP, all orders", [random_average_precision(6, 4, k) for k in ks],
      over_all_orders(average_precision_loop), atol=1e-12)

# %%
for gain in ("exp", "linear"):
    expected = [random_dcg(graded, k, gain) for k in ks]
    ideal = [dcg_loop(sorted(graded)[::-1], k, gain) for k in ks]
    check("41.19", f"DCG, {gain} gain", expected, over_all_orders(dcg_loop, gain), rtol=1e-12)
    check("41.19", f"nDCG, {gain} gain", [e / i for e, i in zip(expected, ideal)],
          over_all_orders(ndcg_loop, gain), rtol=1e-12)

# %% [markdown]
# The price of a small pool: with 100 candidates of which 5 are relevant, a random list of ten is already a hit in four cases of ten.

# %%
n_pool = [20, 50, 100, 200, 500, 1000, 2000]
baseline = {"hitrate@10": [random_hitrate(n, 5, 10) for n in n_pool],
            "RR@10": [random_reciprocal_rank(n, 5, 10) for n in n_pool],
            "recall@10": [10 / n for n in n_pool],
            "precision@10": [5 / n for n in n_pool],
            "AP@10": [random_average_precision(n, 5, 10) for n in n_pool]}

# %% [markdown]
# Five relevant items among $n$ candidates:

# %%
fig, ax = plt.subplots()
for (name, values), marker in zip(baseline.items(), "osd^v"):
    ax.loglog(n_pool, values, marker=marker, label=name)
ax.set(xlabel="candidates $n$", ylabel="expected value for a random order")
ax.legend()
plt.show()

# %% [markdown]
# Every baseline but AUC falls with the size of the pool: numbers from pools of different size cannot be compared.

# %% [markdown]
# ## 6. Ties, empty users, and a million scores
#
# **Ties.** A popularity model gives hundreds of items the same score; an untrained one gives it to all. "The first $k$" then depends on how the sort
# breaks ties, in practice on the order of the rows in a table. If the relevant items happen to come first, a constant score looks perfect:

# %%
lucky, unlucky = [1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1]  # one user, two row orders
print("nDCG@3 of a constant score, stable sort:", ndcg_loop(lucky, 3), "or", ndcg_loop(unlucky, 3))
print("its honest value:", round(random_dcg(lucky, 3) / dcg_loop(lucky, 3), 3))

# %% [markdown]
# The honest value is the **expectation over random orders of the tied items**. Inside one tied group of size $t$ with $c$ relevant items every order is equally
# likely, so section 5 applies inside the group. Let position $p$ be the $j$-th place of its group and $B$ the number of relevant items in better groups. Then
#
# $$\mathbb E\,g(r_{(p)})=\frac1t\sum_{i\in\text{group}}g(r_i)=:\bar g_p, \tag{41.20}$$
# $$\mathbb E\big([r_{(p)}>0]\,P@p\big)=\frac ct\cdot\frac1p\Big(B+1+(j-1)\frac{c-1}{t-1}\Big), \tag{41.21}$$
#
# the second for the reason that gave eq. (41.18), with $B$ sure hits ahead. For the first hit, go down the list. If no hit has come so far, the $t-(j-1)$ items of the group
# that are left contain all $c$ relevant ones, so the next is one with probability $c/(t-j+1)$. The chance $S_p$ that the first $p$ positions hold no hit is a product:
#
# $$S_p=\prod_{q\le p}\Big(1-\frac{c_q}{t_q-j_q+1}\Big),\quad \mathbb E\,\mathrm{hitrate@}k=1-S_k,\quad \mathbb E\,\mathrm{RR@}k=\sum_{p=1}^k\frac{S_{p-1}-S_p}{p}. \tag{41.22}$$
#
# A group with $c>0$ that is used up contains a factor 0, so later groups contribute nothing. Without ties ($t=1$) all of it is the plain definition.
#
# One function finds the groups. It sorts the top $k$ only; just the last group can go on below $k$, so that one is counted over all $n$ items.

# %%
def tie_groups(gain, scores, k):
    """The tied group at positions 1..k. gain, scores: (…, n); four results (…, k), float64.

    size: items in it; total: their gain; before: gain of better groups; within: j - 1.
    """
    top, order = scores.topk(k, dim=-1)  # (…, k), descending
    rising = -top
    start = torch.searchsorted(rising, rising)  # items ahead of the group
    end = torch.searchsorted(rising, rising, right=True)
    ahead = pad(gain.gather(-1, order).cumsum(-1), (1, 0))  # (…, k + 1)
    before = ahead.gather(-1, start)
    last = scores == top[..., -1:]  # (…, n): the group that position k cuts
    size = torch.where(end == k, last.sum(-1, keepdim=True), end - start)
    inner = ahead.gather(-1, end) - before
    total = torch.where(end == k, (gain * last).sum(-1, keepdim=True), inner)
    return size.double(), total, before, torch.arange(k, device=scores.device) - start.double()

# %% [markdown]
# And the positions themselves, for discounts and reciprocal ranks:

# %%
def positions(k, like):
    """1, …, k as float64 on the device of `like`."""
    return torch.arange(1, k + 1, dtype=torch.float64, device=like.device)

# %% [markdown]
# Now every metric is a few lines. Precision and recall are eq. (41.20) with gain $[r>0]$ and no discount.

# %%
def precision_at_k(relevance, scores, k):
    """Eqs. (41.9), (41.20). relevance, scores: (…, n) -> (…,). Bad input: ValueError."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    size, total, _, _ = tie_groups((relevance > 0).double(), scores, k)
    return ((total / size).sum(-1) / k).to(scores.dtype)

# %% [markdown]
# Recall has another denominator:

# %%
def recall_at_k(relevance, scores, k):
    """Eqs. (41.9), (41.20). relevance, scores: (…, n) -> (…,); NaN if nothing is relevant."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    relevant = (relevance > 0).double()
    size, total, _, _ = tie_groups(relevant, scores, k)
    return ((total / size).sum(-1) / relevant.sum(-1)).to(scores.dtype)

# %% [markdown]
# The division by zero relevant items is meant: 0/0 is NaN, the honest answer. AP, with eq. (41.21):

# %%
def average_precision_at_k(relevance, scores, k):
    """Eqs. (41.10), (41.21). relevance, scores: (…, n) -> (…,); NaN if nothing is relevant."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    relevant = (relevance > 0).double()
    size, total, before, within = tie_groups(relevant, scores, k)
    mates = within * (total - 1) / (size - 1).clamp(min=1)  # hits above, in the same group
    expected = total / size * (before + 1 + mates) / positions(k, scores)
    return (expected.sum(-1) / relevant.sum(-1).clamp(max=k)).to(scores.dtype)

# %% [markdown]
# Hitrate and RR share the survival probabilities $S_p$ of eq. (41.22).

# %%
def no_hit_probability(relevance, scores, k):
    """S_1, …, S_k of eq. (41.22). relevance, scores: (…, n), already checked -> (…, k)."""
    size, total, _, within = tie_groups((relevance > 0).double(), scores, k)
    return (1 - total / (size - within)).cumprod(-1)


def hitrate_at_k(relevance, scores, k):
    """Eqs. (41.8), (41.22). relevance, scores: (…, n) -> (…,). Bad input: ValueError."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    return (1 - no_hit_probability(relevance, scores, k)[..., -1]).to(scores.dtype)

# %% [markdown]
# The first hit stands at $p$ with probability $S_{p-1}-S_p$, and $S_0=1$:

# %%
def reciprocal_rank(relevance, scores, k=None):
    """Eqs. (41.10), (41.22); k = n by default. relevance, scores: (…, n) -> (…,).

    0 if every relevant item stands below k; NaN if nothing is relevant. Bad input: ValueError.
    """
    k = torch.as_tensor(scores).shape[-1] if k is None else k
    relevance, scores = ranking_inputs(relevance, scores, k)
    miss = no_hit_probability(relevance, scores, k)  # (…, k)
    first = -torch.diff(miss, prepend=torch.ones_like(miss[..., :1]))
    value = (first / positions(k, scores)).sum(-1)
    return value.masked_fill(~(relevance > 0).any(-1), torch.nan).to(scores.dtype)

# %% [markdown]
# DCG and nDCG take the mean gain of the group; the ideal needs no scores.

# %%
def gains(relevance, gain):
    """g(r): 2^r - 1 for "exp", r for "linear"; ValueError for other names, r < 0 or overflow."""
    if gain == "linear":
        return relevance
    if gain != "exp":
        raise ValueError(f'gain must be "exp" or "linear", got {gain!r}')
    if (relevance < 0).any():
        raise ValueError('gain="exp" needs relevance >= 0: shift the scale or use gain="linear"')
    g = torch.exp2(relevance) - 1
    if not g.isfinite().all():
        raise ValueError('2^r overflows: rescale the relevance or use gain="linear"')
    return g

# %% [markdown]
# With the base 2 discount:

# %%
def dcg_at_k(relevance, scores, k, gain="exp"):
    """Eqs. (41.11), (41.20). relevance, scores: (…, n) -> (…,). Bad input: ValueError."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    size, total, _, _ = tie_groups(gains(relevance, gain), scores, k)
    return (total / size / torch.log2(positions(k, scores) + 1)).sum(-1).to(scores.dtype)

# %% [markdown]
# nDCG refuses negative relevance under either gain, because the ratio then leaves $[0,1]$.

# %%
def ndcg_at_k(relevance, scores, k, gain="exp"):
    """Eq. (41.13). relevance >= 0, scores: (…, n) -> (…,); NaN if nothing is relevant."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    if (relevance < 0).any():
        raise ValueError("nDCG needs relevance >= 0: shift the scale so that 0 means worthless")
    best = gains(relevance, gain).topk(k, dim=-1).values  # (…, k)
    ideal = (best / torch.log2(positions(k, scores) + 1)).sum(-1)
    return (dcg_at_k(relevance, scores.double(), k, gain) / ideal).to(scores.dtype)

# %% [markdown]
# **The judge for ties** shares no line with them: list every order of the items that the scores allow, apply the loop version, average.

# %%
def over_tie_orders(metric, relevance, scores, k):
    """Mean of metric(ranked, k) over all orders in which the scores do not increase; n <= 6."""
    allowed = [order for order in permutations(range(len(scores)))
               if all(scores[a] >= scores[b] for a, b in zip(order, order[1:]))]
    return np.mean([metric([relevance[i] for i in order], k) for order in allowed])

# %% [markdown]
# Twelve users with five items and at most three different scores; one likes everything, one has all items tied, one has items at $-\infty$.

# %%
rel_5 = (4.5 * uniform(12, 5, seed=9) ** 2).floor()  # relevance 0..4
tied = (3 * uniform(12, 5, seed=10)).floor()
rel_5[:, 0] = 2
rel_5[0], tied[1] = 3, 0
tied[2] = torch.tensor([0.5, 0.5, -math.inf, -math.inf, 0.5])

# %% [markdown]
# Both sides are tables: a row per user, a column per $k$.

# %%
def batched(metric, *rest):
    """A batched metric on the twelve users at k = 1..5, (12, 5)."""
    return torch.stack([metric(rel_5, tied, k, *rest) for k in range(1, 6)], -1)


def listed(metric, *rest):
    """The same table from a list metric and every order that the scores allow."""
    def at(x, k):
        return metric(x, k, *rest)
    return [[over_tie_orders(at, r, s, k) for k in range(1, 6)]
            for r, s in zip(rel_5.tolist(), tied.tolist())]

# %%
check("41.22", "hitrate with ties", batched(hitrate_at_k), listed(hitrate_loop), atol=1e-12)
check("41.22", "RR with ties", batched(reciprocal_rank), listed(reciprocal_rank_loop), atol=1e-12)
check("41.21", "AP with ties", batched(average_precision_at_k), listed(average_precision_loop),
      atol=1e-12)
check("41.20", "precision with ties", batched(precision_at_k), listed(precision_loop), atol=1e-12)
check("41.20", "recall with ties", batched(recall_at_k), listed(recall_loop), atol=1e-12)

# %%
for gain in ("exp", "linear"):
    check("41.20", f"DCG with ties, {gain} gain",
          batched(dcg_at_k, gain), listed(dcg_loop, gain), atol=1e-12)
    check("41.13", f"nDCG with ties, {gain} gain",
          batched(ndcg_at_k, gain), listed(ndcg_loop, gain), atol=1e-12)
check("41.22", "RR without k is RR@n", reciprocal_rank(rel_5, tied), batched(reciprocal_rank)[:, 4])

# %%
finite = tied.clamp(min=-9)
check("41.20", "scikit-learn averages tied DCG the same way",
      dcg_at_k(rel_5, finite, 3, "linear").mean(), sk.dcg_score(host(rel_5), host(finite), k=3),
      rtol=1e-12)

# %% [markdown]
# scikit-learn's `average_precision_score` does **not** mean the same with ties: it treats a tied group as one threshold, and precision there is that of the whole group.
# Truncated AP, RR and hitrate with several relevant items have no counterpart in scikit-learn.

# %%
theirs = sk.average_precision_score([1, 0], [0.5, 0.5])
pair = average_precision_at_k(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), 2)
check("41.21", "one relevant of two tied items: the mean of 1 and 1/2, not scikit-learn's 1/2",
      [float(pair), theirs], [0.75, 0.5])

# %% [markdown]
# A constant score is a random order, so the batched functions must return section 5 exactly. And real random orders must scatter
# around it: a z-score, the distance in standard errors of the simulated mean, under 4 for every metric, while the values of a neighbouring case are excluded.

# %%
n, k = 40, 10
pool = torch.tensor([3.0, 2, 2, 1, 1] + [0.0] * 35, dtype=torch.float64, device=device)
flat = torch.zeros_like(pool)

# %%
check("41.15", "constant: hitrate", hitrate_at_k(pool, flat, k), random_hitrate(n, 5, k),
      atol=1e-12)
check("41.18", "constant: AP", average_precision_at_k(pool, flat, k),
      random_average_precision(n, 5, k), atol=1e-12)
check("41.17", "constant: RR", reciprocal_rank(pool, flat, k), random_reciprocal_rank(n, 5, k),
      atol=1e-12)
check("41.19", "constant: DCG", dcg_at_k(pool, flat, k), random_dcg(pool.tolist(), k), atol=1e-12)

# %% [markdown]
# The simulation: many random rows of scores, the same relevances.

# %%
def z_score(sample, expected):
    """Distance of the sample's mean from `expected` in standard errors. sample: (draws,)."""
    return float((sample.mean() - expected) / (sample.std() / len(sample) ** 0.5))


shuffled = uniform(DRAWS, n, seed=11)
many = pool.expand_as(shuffled)

# %% [markdown]
# Each sample is compared with the right value and with those of $k\pm1$ (for RR, which saturates in $k$, of $m\pm1$).

# %%
measured = hitrate_at_k, average_precision_at_k, dcg_at_k, recall_at_k
sample = [f(many, shuffled, k) for f in measured]
expected = [[random_hitrate(n, 5, j), random_average_precision(n, 5, j),
             random_dcg(pool.tolist(), j), j / n] for j in (k, k - 1, k + 1)]
z = np.abs([[z_score(x, e) for x, e in zip(sample, row)] for row in expected])  # (3, 4)
rr = reciprocal_rank(many, shuffled, k)
z_rr = np.abs([z_score(rr, random_reciprocal_rank(n, m, k)) for m in (5, 4, 6)])

# %%
check("41.19", "hitrate, AP, DCG, recall of random orders: |z| < 4", z[0] < 4)
check("41.19", "the values for k - 1 and k + 1 are refuted, |z| > 6", z[1:] > 6)
check("41.17", "RR: |z| < 4, and m - 1 or m + 1 are refuted", z_rr[0] < 4 and min(z_rr[1:]) > 6)

# %% [markdown]
# **Users without a relevant item.** Hitrate, precision and DCG are defined and 0: nothing can be hit. Recall, AP, RR and nDCG divide by nothing: they are
# undefined, and a silent 0 or 1 (scikit-learn has both) would move the mean by the share of such users. They are NaN here, left out of the mean, and **counted**.

# %%
def mean_over_users(values):
    """(mean over the users with a defined value, number of the others). values: (users,)."""
    return values.nanmean(), int(values.isnan().sum())


rel_3 = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 1]])  # user 1 likes nothing
sc_3 = torch.tensor([[3.0, 2, 1]] * 3)
METRICS = (hitrate_at_k, precision_at_k, dcg_at_k, recall_at_k, average_precision_at_k,
           reciprocal_rank, ndcg_at_k)

# %% [markdown]
# Three users, the one in the middle likes nothing:

# %%
undefined = {f.__name__: mean_over_users(f(rel_3, sc_3, 2)) for f in METRICS}
for name, (mean, missing) in undefined.items():
    print(f"{name:24s} mean {mean:.3f}   undefined for {missing}")

# %%
check("41.10", "three metrics are 0 for user 1, four are undefined",
      [missing for _, missing in undefined.values()], [0, 0, 0, 1, 1, 1, 1])
check("41.9", "recall: the mean over the other two", undefined["recall_at_k"][0], (1 + 1 / 2) / 2)
check("41.8", "hitrate counts him as a miss", undefined["hitrate_at_k"][0], 2 / 3, atol=1e-6)
check("41.13", "scikit-learn says 0 for his nDCG and 1 for his (label ranking) AP",
      [judge([[0, 0, 0]], [[3, 2, 1]]) for judge in
       (sk.ndcg_score, sk.label_ranking_average_precision_score)], [0, 1])

# %% [markdown]
# Bad input is refused with a sentence that says what to do.

# %%
def refusal(f, *args):
    """The message of the ValueError that f(*args) raises; None if it raises nothing."""
    try:
        f(*args)
    except ValueError as error:
        return str(error)

# %% [markdown]
# Twelve ways to go wrong; the last two are a beta of 0 for F and relevance that overflows $2^r$.

# %%
ok, nan = torch.tensor([1.0, 2.0]), torch.tensor([0.1, math.nan])
low, huge = torch.tensor([-0.5, 2.0]), torch.tensor([1.0, 2000.0])
attempts = [(hitrate_at_k, ok, ok, 0), (hitrate_at_k, ok[0], ok[0], 1),
            (recall_at_k, ok, ok, 3), (precision_at_k, ok, ok, 1.5),
            (ndcg_at_k, ok, nan, 1), (average_precision_at_k, nan, ok, 1), (dcg_at_k, low, ok, 1),
            (ndcg_at_k, low, ok, 1, "linear"), (reciprocal_rank, ok, ok[:1]),
            (dcg_at_k, ok, ok, 1, "log"), (f_beta, 1, 1, 1, 0), (dcg_at_k, huge, ok, 1)]
for attempt in attempts:
    print(refusal(*attempt))

# %%
messages = [refusal(*attempt) for attempt in attempts]
check("41.11", "every bad input is refused, each with a reason",
      len({*messages} - {None}) == len(attempts))
check("41.11", "no false alarms: k = 1 and k = n are fine", [refusal(f, ok, ok, k) is None
      for f in METRICS for k in (1, 2)])
check("41.2", "ratings and predictions of different length, or none: refused",
      bool(refusal(rating_errors, ok, ok[:1])) and bool(refusal(rating_errors, ok[:0], ok[:0])))

# %%
negative = dcg_at_k(torch.tensor([-1.0, 2.0]), torch.tensor([2.0, 1.0]), 2, "linear")
check("41.11", "negative relevance is fine for the linear DCG", negative, -1 + 2 / math.log2(3),
      atol=1e-6)
integers = [f(rel_5.long(), finite.long(), 3) for f in METRICS]
doubles = [f(rel_5, finite, 3) for f in METRICS]
check("41.11", "integer input is computed in float64", integers, doubles)
turned = [f(rel_5.T.clone().T, finite.T.clone().T, 3) for f in METRICS]
check("41.11", "columns in memory order make no difference", turned, doubles)
check("41.7", "AUC of one item is undefined", bool(roc_auc(ok[:1], ok[:1]).isnan()))

# %%
rel_32, sc_32 = uniform(12, 5, seed=21).float(), tied.float()
in_64 = ndcg_at_k(rel_32.double(), sc_32.double(), 3)
in_32 = ndcg_at_k(rel_32, sc_32, 3)
check("41.13", "float32 scores: rounded once, at the end", in_32, in_64.float())
check("41.13", "float32 relevance loses nothing", ndcg_at_k(rel_32, sc_32.double(), 3), in_64)

# %%
blocks, floats = rel_5.reshape(3, 4, 5), tied.reshape(3, 4, 5).float()
check("41.11", "leading dimensions and float32 are kept",
      [f(blocks, floats, 2).shape == (3, 4) and f(blocks, floats, 2).dtype == torch.float32
       for f in METRICS])

# %% [markdown]
# ## 7. Bounds, and what each metric cannot see
#
# The best list starts with relevant items, so
#
# $$\max\mathrm{precision@}k=\frac{\min(k,m)}k,\qquad \max\mathrm{recall@}k=\frac{\min(k,m)}m, \tag{41.23}$$
#
# while hitrate, AP, RR and nDCG reach 1 for every user with $m\ge1$. From below: if $m>n-k$, even the worst list has hits, at least $k-(n-m)$. A mean precision@10 of 0.3 may be perfect, if users have three relevant items each.

# %%
def at_best(metric):
    """The best value of a list metric among the 720 orders of `graded` (m = 4), for k = 1..6."""
    return [max(metric(x, k) for x in all_orders) for k in ks]


check("41.23", "best precision", at_best(precision_loop), [min(k, 4) / k for k in ks])
check("41.23", "best recall", at_best(recall_loop), [min(k, 4) / 4 for k in ks])
worst_hits = [k * min(precision_loop(x, k) for x in all_orders) for k in ks]
check("41.23", "fewest hits k - (n - m)", worst_hits, [max(0, k - 2) for k in ks], atol=1e-12)

# %%
others = hitrate_loop, average_precision_loop, reciprocal_rank_loop, ndcg_loop
check("41.23", "hitrate, AP, RR and nDCG reach 1 at every k", [at_best(f) for f in others],
      np.ones((4, 6)), atol=1e-12)

# %% [markdown]
# **Blind spots.** Take the list $r=(3,0,1,\,0,0,2,0,0)$ with $k=3$ and change one thing at a time. Each row is a change a user could notice; a 0 marks a metric that does not.

# %%
base = [3.0, 0, 1, 0, 0, 2, 0, 0]
CHANGES = {
    "swap positions 1 and 2": [0.0, 3, 1, 0, 0, 2, 0, 0],
    "swap the 3 and the 1": [1.0, 0, 3, 0, 0, 2, 0, 0],
    "move the 2 up to position 2": [3.0, 2, 1, 0, 0, 0, 0, 0],
    "move the 2 down to the end": [3.0, 0, 1, 0, 0, 0, 0, 2],
    "lose the 1 to position 4": [3.0, 0, 0, 1, 0, 2, 0, 0],
    "one star less for all": [2.0, 0, 0, 0, 0, 1, 0, 0],
}

# %% [markdown]
# Eight metrics look at each list:

# %%
VIEWS = {"hitrate": hitrate_at_k, "precision": precision_at_k, "recall": recall_at_k,
         "AP": average_precision_at_k, "RR": reciprocal_rank, "DCG": dcg_at_k, "nDCG": ndcg_at_k,
         "AUC": lambda r, s, k: roc_auc(r, s)}
stack = torch.tensor([base, *CHANGES.values()], dtype=torch.float64, device=device)  # (7, 8)
down = torch.arange(8.0, 0, -1, device=device).expand_as(stack).double()  # best first
seen_by = torch.stack([f(stack, down, 3) for f in VIEWS.values()], -1)  # (7, 8 metrics)
effect = seen_by[1:] - seen_by[0]

# %% [markdown]
# The differences from the original list:

# %%
fig, ax = plt.subplots(figsize=(7.4, 3.2))
ax.imshow(host(effect.sign()), cmap="RdBu", vmin=-2, vmax=2, aspect="auto")
for (row, column), e in np.ndenumerate(host(effect)):
    ax.text(column, row, f"{e:+.2f}" if abs(e) > 1e-9 else "0", ha="center", va="center")
ax.set_xticks(range(len(VIEWS)), VIEWS)
ax.set_yticks(range(len(CHANGES)), CHANGES)
ax.grid(False)
ax.set(xlabel="metric at $k=3$ (AUC: whole list)", ylabel="change of the list")
plt.show()

# %% [markdown]
# Read by columns: hitrate never moves; RR sees the top hit only; precision and recall see what enters or leaves; AP and AUC see no grades; everything but AUC sees nothing below $k$.
# The last row is the strangest: the user likes everything less, DCG falls by more than half, and nDCG *rises*, because it compares a user with his own ideal.

# %%
sees = {change: {m for m, e in zip(VIEWS, row) if abs(e) > 1e-9}
        for change, row in zip(CHANGES, effect.tolist())}
check("41.8", "hitrate sees none of the changes", "hitrate" not in set().union(*sees.values()))
check("41.9", "precision and recall do not see the order inside the top k",
      sees["swap positions 1 and 2"] == {"AP", "RR", "DCG", "nDCG", "AUC"})
check("41.10", "only DCG and nDCG see grades", sees["swap the 3 and the 1"] == {"DCG", "nDCG"})

# %%
check("41.10", "RR does not see a second hit", "RR" not in sees["move the 2 up to position 2"])
check("41.6", "only AUC looks below k", sees["move the 2 down to the end"] == {"AUC"})
check("41.13", "nDCG rises although every item got worse",
      bool(effect[-1, 6] > 0.02) and bool(effect[-1, 5] < -4))
weak_strong = torch.tensor([[1.0, 0, 0], [3, 0, 0]])
check("41.13", "a weak offer, if it is the only one, is perfect",
      ndcg_at_k(weak_strong, torch.tensor([[3.0, 2, 1]] * 2), 3), [1, 1])

# %% [markdown]
# And AUC hardly looks at the top: a list with its one relevant item at position 11 of 1,000 has AUC 0.99 and a useless top ten.

# %%
late = torch.zeros(1000, device=device)
late[10] = 1
falling = torch.arange(1000.0, 0, -1, device=device)
check("41.7", "AUC is 1 - 10/999", roc_auc(late, falling), 1 - 10 / 999, atol=1e-6)
check("41.13", "while nDCG@10 is 0", ndcg_at_k(late, falling, 10), 0.0)

# %% [markdown]
# ## 8. Beyond accuracy: novelty, diversity, serendipity, coverage
#
# A list can be accurate and useless: ten sequels of the film just watched. Four more measures judge the list itself.
#
# **Novelty**: the number, or share, of items that have not been shown to the user before; with $Z_u$ the items shown so far,
#
# $$\mathrm{novelty@}k=\frac{\lvert R_u(k)\setminus Z_u\rvert}k. \tag{41.24}$$
#
# A second reading asks how unusual an item is for everybody: its self-information $-\log_2\pi_i$ in bits, $\pi_i$ the share of users who know it.

# %%
def novelty(recommended, shown):
    """Eq. (41.24). recommended: (…, k) item ids; shown: (…, n) bool -> (…,), between 0 and 1.

    ValueError if the users differ or a list repeats an item.
    """
    if recommended.shape[:-1] != shown.shape[:-1]:
        raise ValueError(f"recommended {tuple(recommended.shape)} and shown {tuple(shown.shape)} "
                         "must have the same users")
    if (recommended.sort(-1).values.diff() == 0).any():
        raise ValueError("an item is recommended twice in one list: remove the repetition")
    return (~shown.gather(-1, recommended)).double().mean(-1)

# %% [markdown]
# The second reading, in bits:

# %%
def self_information(recommended, popularity):
    """Mean of -log2 popularity. recommended: (…, k) ids; popularity: (n,) in (0, 1] -> (…,)."""
    return -torch.log2(popularity[recommended]).mean(-1)

# %% [markdown]
# Fifty users get ten random items each; what they rated counts as shown.

# %%
watched = observed[:50]  # (50, n_items)
popularity = (rated_by_item + 1) / (ratings.n_users + 1)  # share of users who know the item
tens = uniform(50, ratings.n_items, seed=12).topk(10).indices
new = [len(set(t) - set(np.flatnonzero(w))) / 10 for t, w in zip(tens.tolist(), host(watched))]
check("41.24", "novelty by set difference", novelty(tens, watched), new, atol=1e-12)
check("41.24", "known to 1/2 and to 1/4 of the users: 1 and 2 bits",
      self_information(torch.tensor([[0, 1]]), torch.tensor([0.5, 0.25])), [1.5])

# %%
twice = tens[:, [0, 0]]
check("41.24", "a repeated item and unequal users are refused",
      [bool(refusal(novelty, twice, watched)), bool(refusal(novelty, tens, watched[:49]))], [1, 1])
check("41.24", "a list of one item is fine", refusal(novelty, tens[:, :1], watched) is None)
blocks = tens.unflatten(0, (5, 10)), watched.unflatten(0, (5, 10))
check("41.24", "any leading dimensions", novelty(*blocks).flatten(), novelty(tens, watched))
check("41.24", "or none", novelty(tens[0], watched[0]), novelty(tens, watched)[0])
bits = self_information(tens, popularity)
check("41.24", "the same for bits", self_information(blocks[0], popularity).flatten(), bits)
check("41.24", "a rare item is worth more", bits.argmax(), popularity[tens].log().sum(-1).argmin())

# %% [markdown]
# **Diversity**: the mean distance between the embeddings of the items in the list,
#
# $$\mathrm{diversity}=\frac2{k(k-1)}\sum_{i<j}\operatorname{dist}(q_i,q_j). \tag{41.25}$$

# %%
def diversity(embeddings, metric="euclidean"):
    """Eq. (41.25). embeddings: (…, k, d), k >= 2; metric: "euclidean", "cosine" -> (…,).

    NaN for the cosine if an embedding is zero. ValueError for one item or another metric.
    """
    if embeddings.ndim < 2 or embeddings.shape[-2] < 2:
        raise ValueError("diversity needs at least two items, (…, k, d) with k >= 2, got "
                         f"{tuple(embeddings.shape)}")
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f'metric must be "euclidean" or "cosine", got {metric!r}')
    q, k = embeddings * 1.0, embeddings.shape[-2]
    i, j = torch.triu_indices(k, k, 1, device=q.device)
    x, y = q[..., i, :], q[..., j, :]  # (…, k(k - 1)/2, d)
    if metric == "euclidean":
        return (x - y).norm(dim=-1).mean(-1)
    return (1 - (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))).mean(-1)

# %% [markdown]
# The other proposal of practice is the **variance of metadata**: genres as 0/1 features $x_i$, their sample variances $s_f^2$ added up. It looks different and is the same thing with squared distances:
#
# $$\frac2{k(k-1)}\sum_{i<j}\lVert x_i-x_j\rVert^2=2\sum_fs_f^2,\qquad s_f^2=\frac1{k-1}\sum_i(x_{if}-\bar x_f)^2. \tag{41.26}$$
#
# Proof for one feature: $\sum_{i,j}(x_i-x_j)^2=2k\sum_ix_i^2-2(\sum_ix_i)^2=2k\sum_i(x_i-\bar x)^2$, every unordered pair counted twice; divide by $k(k-1)$ and sum over features.
# The entropy of the genre shares, $H=-\sum_f\pi_f\log_2\pi_f$, is a third form: bits needed to name the genre of an item of the list.

# %%
def metadata_variance(features):
    """Sum of the sample variances of the features, eq. (41.26). (…, k, f), k >= 2 -> (…,)."""
    if features.ndim < 2 or features.shape[-2] < 2:
        raise ValueError("a variance needs at least two items, (…, k, f) with k >= 2")
    return features.double().var(dim=-2, correction=1).sum(-1)


def genre_entropy(features):
    """Entropy in bits of the shares of the genre labels. features: (…, k, f) 0/1 -> (…,)."""
    share = features.double().sum(-2)
    share = share / share.sum(-1, keepdim=True)
    return torch.special.entr(share).sum(-1) / math.log(2)

# %% [markdown]
# SciPy's pairwise distances judge all of them:

# %%
films = data.items(DATA)
genre = films.genre.double().to(device)
features = genre[tens[:5]]  # (5, 10, f)
shifted = features + 0.1

# %%
check("41.25", "euclidean", diversity(features), [pdist(x).mean() for x in host(features)],
      atol=1e-12)
check("41.25", "cosine", diversity(shifted, "cosine"),
      [pdist(x, "cosine").mean() for x in host(shifted)], atol=1e-12)
check("41.26", "mean squared distance = twice the variance", 2 * metadata_variance(features),
      [pdist(x, "sqeuclidean").mean() for x in host(features)], atol=1e-12)
check("41.26", "entropy of the genres is SciPy's", genre_entropy(features),
      [stats.entropy(x.sum(0), base=2) for x in host(features)], atol=1e-12)

# %%
one_item, two_items = features[:, :1], features[:, :2]
bad = [(f, x) for f in (diversity, metadata_variance) for x in (one_item, features[0, 0])]
bad += [(diversity, two_items, "dot")]
check("41.25", "fewer than two items, an unknown metric: refused",
      [bool(refusal(*attempt)) for attempt in bad])
check("41.25", "an item without features has no direction: the cosine is undefined",
      bool(diversity(two_items * torch.tensor([[0.0], [1.0]]).to(device), "cosine").isnan().all()))
check("41.25", "0/1 features of integer type", diversity(features.long()), diversity(features),
      atol=1e-6)
check("41.25", "two items are enough",
      [refusal(f, two_items) is None for f in (diversity, metadata_variance)])
for f in (diversity, lambda x: diversity(x + 0.1, "cosine"), metadata_variance, genre_entropy):
    check("41.26", "one list, or any leading dimensions",
          torch.cat([f(features[0])[None], f(features[1:].unflatten(0, (2, 2))).flatten()]),
          f(features), atol=1e-12)

# %% [markdown]
# **Serendipity**: an item the user did not expect *and* likes. For the first half, take a new book $b$ by author $w$ and the set $B$ of books the user has rated. With $C_{B,w}$ the
# number of books by $w$ in $B$ and $C_B=\max_wC_{B,w}$,
#
# $$d(b,B)=\frac{1+C_B-C_{B,w}}{1+C_B}\in\Big[\frac1{1+C_B},\,1\Big]. \tag{41.27}$$
#
# It is 1 for an author the user has never read and smallest for the favourite author. The second half multiplies by relevance:
#
# $$\mathrm{serendipity@}k=\frac1k\sum_{b\in R_u(k)}[r_{ub}>0]\,d(b,B). \tag{41.28}$$

# %%
def surprise(author, counts):
    """d(b, B), eq. (41.27). author: (…, k) ids; counts: (…, n_authors), B by author -> (…, k)."""
    most = counts.max(-1, keepdim=True).values
    return (1 + most - counts.gather(-1, author)) / (1 + most)


def serendipity(relevance, author, counts):
    """Eq. (41.28). relevance, author: (…, k), of the list; counts: (…, n_authors) -> (…,).

    ValueError if the shapes disagree.
    """
    if relevance.shape != author.shape or counts.shape[:-1] != author.shape[:-1]:
        raise ValueError(f"relevance {tuple(relevance.shape)}, author {tuple(author.shape)} must "
                         f"agree, and counts {tuple(counts.shape)} have the same users")
    return ((relevance > 0) * surprise(author, counts)).mean(-1)

# %% [markdown]
# The bundled items have no authors; the first genre plays the part. The judge counts with `Counter`.

# %%
author = genre.argmax(-1)  # (n_items,)
counts = torch.stack([(watched & (author == a)).sum(-1) for a in range(genre.shape[1])], -1)
likes = (uniform(50, 10, seed=13) > 0.5).double()
by_counter = []
for row, listed_ids in zip(host(watched), host(tens)):
    library = Counter(host(author)[row].tolist())
    most = max(library.values(), default=0)
    by_counter.append([(1 + most - library[a]) / (1 + most) for a in host(author)[listed_ids]])

# %%
d = surprise(author[tens], counts)
check("41.27", "surprise by hand counts", d, by_counter, atol=1e-6)
check("41.27", "between 1/(1 + C_B) and 1", (d <= 1) & (d * (1 + counts.amax(-1, True)) >= 0.999))
s = serendipity(likes, author[tens], counts)
blocks = [x.unflatten(0, (5, 10)) for x in (likes, author[tens], counts)]
check("41.28", "any leading dimensions", serendipity(*blocks).flatten(), s)
check("41.28", "liked items only", s, (host(likes) * by_counter).sum(1) / 10, atol=1e-6)
check("41.28", "shapes that differ are refused",
      [bool(refusal(serendipity, likes[:, :9], author[tens], counts)),
       bool(refusal(serendipity, likes, author[tens], counts[:9]))])

# %% [markdown]
# **Coverage** of the catalogue: the share of items that at least one of $U$ users is shown. For independent random lists an item is missed by one user with probability $1-k/n$, so
#
# $$\mathrm{coverage}=\frac1n\Big\lvert\bigcup_uR_u(k)\Big\rvert,\qquad \mathbb E_{\text{random}}=1-\Big(1-\frac kn\Big)^U. \tag{41.29}$$

# %%
def coverage(recommended, n_items):
    """Share of the catalogue in some list, eq. (41.29). recommended: (users, k) ids -> scalar."""
    return torch.tensor(recommended.unique().numel() / n_items, device=recommended.device)


in_lists = len(set().union(*tens.tolist())) / ratings.n_items
check("41.29", "coverage by sets", coverage(tens, ratings.n_items), in_lists, atol=1e-6)
covered = torch.stack([coverage(t.topk(4).indices, 30) for t in uniform(2000, 6, 30, seed=33)])
z = [abs(z_score(covered, 1 - (1 - 4 / 30) ** users)) for users in (6, 5, 7)]
check("41.29", "6 users, random lists: |z| < 4; 5 or 7 are refuted", z[0] < 4 and min(z[1:]) > 6)

# %% [markdown]
# ## 9. Offline splits and their leaks
#
# Offline, the past stands in for the future: hide some ratings, recommend, see whether they come up. Which ratings to hide?
#
# | split | hidden | what leaks |
# |---|---|---|
# | random | a random share of all ratings | the future of this user and of all others |
# | by events | the last share of each user's ratings | the future of other users |
# | leave-one-out | the last rating of each user | the same; and every user weighs the same |
# | by time | everything after one moment | nothing |
#
# By time means: training strictly before the moment, test from it on.

# %%
def checked_fraction(fraction):
    """The share of training ratings, if it lies strictly between 0 and 1; else ValueError."""
    if not 0 < fraction < 1:
        raise ValueError(f"fraction, the share of training ratings, must be in (0, 1): {fraction}")
    return fraction


def time_split(ratings, fraction):
    """(train, test) at one moment: about the first `fraction` of the ratings train.

    max(train time) < min(test time): ratings at the moment of the cut all go to test.
    ValueError unless 0 < fraction < 1 and some rating is older than the cut.
    """
    cut = ratings.time.sort().values[int(checked_fraction(fraction) * len(ratings))]
    train = ratings.time < cut
    if not train.any():
        raise ValueError("no rating is older than the cut: use a larger fraction or finer times")
    return ratings[train], ratings[~train]

# %% [markdown]
# The two splits inside users need the place of each rating in its user's history.

# %%
def place_in_history(ratings):
    """(place, length), int64 (N,): place of each rating in its user's history by time, from 0.

    length: of that history. Equal times keep the order of the rows.
    """
    order = ratings.time.argsort(stable=True)
    order = order[ratings.user[order].argsort(stable=True)]  # by user, then by time
    length = torch.bincount(ratings.user, minlength=ratings.n_users)
    first = length.cumsum(0) - length  # where each user starts
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - first[ratings.user[order]]
    return place, length[ratings.user]

# %% [markdown]
# A user with a single rating keeps it for training: nothing could be predicted for him.

# %%
def leave_one_out(ratings):
    """(train, test): test is the last rating of every user who has two (equal times: last row)."""
    place, length = place_in_history(ratings)
    last = (place == length - 1) & (length > 1)
    return ratings[~last], ratings[last]


def event_split(ratings, fraction):
    """(train, test): the first `fraction` of each user's ratings, rounded up, trains.

    ValueError unless 0 < fraction < 1. (0.07 * 100 is 7.000000000000001, still seven ratings.)
    """
    place, length = place_in_history(ratings)
    train = place < torch.ceil(checked_fraction(fraction) * length.double() - 1e-9)
    return ratings[train], ratings[~train]

# %% [markdown]
# And the random one, for comparison:

# %%
def random_split(ratings, fraction, seed):
    """(train, test): a random `fraction` (in (0, 1), else ValueError), rounded down, trains."""
    n_train = int(checked_fraction(fraction) * len(ratings) + 1e-9)
    train = uniform(len(ratings), seed=seed).argsort().argsort() < n_train
    return ratings[train], ratings[~train]

# %% [markdown]
# **How much future does the model see?** Over all pairs of a training and a test rating, the share in which the training one is younger:
#
# $$\ell=P(\tau_{\text{train}}>\tau_{\text{test}})+\tfrac12P(\tau_{\text{train}}=\tau_{\text{test}}). \tag{41.30}$$
#
# That is eq. (41.6) again, an AUC of times. It is 0 for a split by time, and ½ on average for a random one, where both parts have the same law.

# %%
def future_share(train, test):
    """Share of (train, test) pairs with the training rating in the future, eq. (41.30)."""
    times, at = train.time.sort().values, test.time.contiguous()
    below, upto = torch.searchsorted(times, at), torch.searchsorted(times, at, right=True)
    return 1 - (below + upto).double().mean() / (2 * len(times))

# %% [markdown]
# The four splits of the ratings:

# %%
splits = {"random": random_split(ratings, 0.8, seed=14), "by events": event_split(ratings, 0.8),
          "leave-one-out": leave_one_out(ratings), "by time": time_split(ratings, 0.8)}
facts = pd.DataFrame({name: {
    "train": len(train), "test": len(test), "future seen": float(future_share(train, test)),
    "unknown test users": 1 - float(torch.isin(test.user.unique(), train.user).double().mean())}
    for name, (train, test) in splits.items()}).T
facts.round(2)

# %% [markdown]
# The split by time is the only one that shows a recommender what it will meet: users it does not know (a third of the test users here, 64% on MovieLens 100K). None of the four replaces an online test, two random groups of users with the old and the new recommender, which is the topic of the A/B notebooks. Here is the proof that the functions do what they say, with pandas as the judge.

# %%
frame = pd.DataFrame({"user": host(ratings.user), "item": host(ratings.item),
                      "time": host(ratings.time)})
by_user = frame.sort_values("time", kind="stable").groupby("user")
lasts = by_user.tail(1).sort_index()
lasts = lasts[by_user.size()[lasts.user].to_numpy() > 1]
place = by_user.cumcount().reindex(frame.index)
kept = frame[place < np.ceil(0.8 * frame.groupby("user").time.transform("size"))]

# %%
ids = {name: [torch.stack([part.user, part.item], 1) for part in parts]
       for name, parts in splits.items()}
check("41.30", "leave-one-out: pandas' last rows", ids["leave-one-out"][1], lasts[["user", "item"]])
check("41.30", "by events: pandas' cumulative count", ids["by events"][0], kept[["user", "item"]])
check("41.30", "every split keeps every rating once",
      [len(torch.cat(parts).unique(dim=0)) for parts in ids.values()], [len(ratings)] * 4)
check("41.30", "random: 80 % train", len(ids["random"][0]), int(0.8 * len(ratings)))

# %%
train, test = splits["by time"]
check("41.30", "by time: training ends before the test begins",
      int(train.time.max()) < int(test.time.min()))
check("41.30", "so no future is seen", future_share(train, test), 0.0)
few, rest = ratings[::97], ratings[1::101]
later, same = few.time[:, None] > rest.time, few.time[:, None] == rest.time
check("41.30", "the share by listing all pairs", future_share(few, rest),
      (later.double() + same.double() / 2).mean(), atol=1e-12)

# %%
train, test = splits["random"]
spread = math.sqrt((len(ratings) + 1) / (12 * len(train) * len(test)))  # Mann-Whitney, no ties
z = (float(future_share(train, test)) - 0.5) / spread
check("41.30", "random: 1/2 with |z| < 4, 0.45 would be refuted", abs(z) < 4 < 0.05 / spread)

# %% [markdown]
# Small cases pin the rules for equal times, single ratings and shares.

# %%
def log_of(users, times):
    """Ratings of value 1 with item ids 0, 1, 2, … from lists of users (0..3) and times."""
    users, times = torch.tensor(users, device=device), torch.tensor(times, device=device)
    n = len(users)
    items, ones = torch.arange(n, device=device), torch.ones(n, device=device)
    return data.Ratings(users, items, ones, times, 4, n)


tiny = log_of([0, 1, 0, 1, 2, 0], [5, 5, 9, 5, 7, 2])

# %%
check("41.30", "leave-one-out: latest row, the later of equal times, no single ratings",
      leave_one_out(tiny)[1].item, [2, 3])
check("41.30", "by events, 2/3: two of three train, two of two, one of one",
      event_split(tiny, 2 / 3)[1].item, [2])
check("41.30", "by time: equal times go to test together", time_split(tiny, 0.5)[0].item, [5])
check("41.30", "equal times count half", future_share(tiny[:2], tiny[3:4]), 0.5)
hopeless = (tiny, 0), (tiny, 1), (log_of([0, 1], [3, 3]), 0.5)
check("41.30", "impossible cuts are refused", [bool(refusal(time_split, *cut)) for cut in hopeless])
check("41.30", "by the other splits too", [bool(refusal(*bad)) for share in (0, 1, math.nan)
      for bad in ((event_split, tiny, share), (random_split, tiny, share, 0))])
hundred = log_of([0] * 100, list(range(100)))
check("41.30", "no rating is lost to rounding",
      [len(event_split(hundred, 0.07)[0]), len(random_split(hundred, 0.29, seed=0)[0])], [7, 29])

# %% [markdown]
# ### What a leak does: the wrong model wins
#
# A simulated shop with fashion: items are released all the time and their appeal halves every tenth of the period; users come for a twentieth of
# the period and prefer one of five styles by a factor of 8. An event picks an item with probability proportional to
# quality × $2^{-\text{age}/0.1}$ × style, among released items.

# %%
def shop_weights(time, released, quality, same_style, half_life=0.1):
    """Choice weights (events, items) at times (events,): quality, age, style; 0 before release."""
    age = time[:, None] - released
    weight = quality * torch.exp2(-age / half_life) * torch.where(same_style, 8.0, 1.0)
    return weight.masked_fill(age < 0, 0.0)

# %% [markdown]
# A user who picks an item twice keeps the first event.

# %%
def shop_log(n_users, n_items, n_events, seed):
    """Simulated events as Ratings, sorted by time (in millionths of the period), on the CPU."""
    g = torch.Generator().manual_seed(seed)
    released = torch.rand(n_items, generator=g) * 1.2 - 0.2
    quality = torch.exp(0.7 * torch.randn(n_items, generator=g))
    style = torch.randint(5, (n_items,), generator=g)
    taste = torch.randint(5, (n_users,), generator=g)
    user = torch.arange(n_users).repeat_interleave(n_events)
    arrival = 0.95 * torch.rand(n_users, generator=g)
    time, order = (arrival[user] + 0.05 * torch.rand(len(user), generator=g)).sort()
    user = user[order]
    weight = shop_weights(time, released, quality, style == taste[user, None])
    item = torch.multinomial(weight, 1, generator=g)[:, 0]
    first = np.sort(np.unique(user * n_items + item, return_index=True)[1])
    stamp = (time[first] * 1e6).long()
    return data.Ratings(user[first], item[first], torch.ones(len(first)), stamp, n_users, n_items)

# %% [markdown]
# Two recommenders compete. **Trend** counts the training events of an item in the last twentieth of the period before the test event, at time $\tau$: it looks backwards only, so no split can
# help it. **Item kNN** adds up the cosines between an item and the user's items; with $U_i$ the users who have item $i$ in training,
#
# $$a^{\text{trend}}_i=\#\{\text{events of } i \text{ in } [\tau-0.05,\tau)\},\qquad a^{\text{kNN}}_{ui}=\sum_{j\in I_u,\,j\ne i}\frac{\lvert U_i\cap U_j\rvert}{\sqrt{\lvert U_i\rvert\,\lvert U_j\rvert}}. \tag{41.31}$$
#
# Its co-occurrences may come from the future.

# %%
def seen_matrix(log):
    """(n_users, n_items) float64, 1 where the user has the item."""
    X = torch.zeros(log.n_users, log.n_items, dtype=torch.float64, device=log.user.device)
    X[log.user, log.item] = 1.0
    return X


def knn_scores(train, users):
    """Item kNN: sum over a user's items of the cosine of item columns. (len(users), n_items)."""
    X = seen_matrix(train)
    count = X.sum(0).clamp(min=1)
    cosine = X.T @ X / (count[:, None] * count).sqrt()
    return X[users] @ cosine.fill_diagonal_(0)

# %% [markdown]
# The trend needs the moment of the test event:

# %%
def trend_scores(train, time, window=50_000):
    """Training events of each item within `window` before each time. (len(time), n_items)."""
    times, order = train.time.sort()
    one_hot = torch.nn.functional.one_hot(train.item[order], train.n_items)
    so_far = pad(one_hot.cumsum(0), (0, 0, 1, 0))  # (N + 1, n_items): counts of the first events
    end, start = torch.searchsorted(times, time), torch.searchsorted(times, time - window)
    return (so_far[end] - so_far[start]).double()

# %% [markdown]
# Each test event is one query with one relevant item; items of the user's training history get $-\infty$. The tie rule of section 6 matters: for
# an unknown user kNN scores everything 0, which counts as a random list.

# %%
def event_hitrate(model, parts, k=10):
    """Mean hitrate@k over all test events of a list of (train, test) pairs."""
    hits = []
    for train, test in parts:
        knn = model == "item kNN"
        scores = knn_scores(train, test.user) if knn else trend_scores(train, test.time)
        scores = scores.masked_fill(seen_matrix(train)[test.user] > 0, -math.inf)
        wanted = torch.nn.functional.one_hot(test.item, test.n_items)
        hits.append(hitrate_at_k(wanted, scores, k))
    return float(torch.cat(hits).mean())

# %% [markdown]
# What would happen in production, with a model retrained 24 times, is the rolling split: each model predicts the next thirtieth of the period.

# %%
def rolling_splits(log, starts):
    """(train, test) pairs: train before starts[j], test from there to starts[j + 1]."""
    return [(log[log.time < a], log[(log.time >= a) & (log.time < b)])
            for a, b in zip(starts, starts[1:])]


shop = shop_log(SHOP_USERS, SHOP_ITEMS, SHOP_EVENTS, seed=15).to(device)
starts = [int(t) for t in np.linspace(0.2, 1.0, 25) * 1e6]

# %% [markdown]
# Five protocols judge the two models:

# %%
protocols = {"random": [random_split(shop, 0.8, seed=16)], "by events": [event_split(shop, 0.8)],
             "leave-one-out": [leave_one_out(shop)], "by time, one cut": [time_split(shop, 0.8)],
             "live: retrained 24 times": rolling_splits(shop, starts)}
hits = pd.DataFrame({name: {model: event_hitrate(model, parts) for model in ("trend", "item kNN")}
                     for name, parts in protocols.items()}).T

# %% [markdown]
# The hitrates, as a table and as a picture:

# %% tags=["nbval-ignore-output"]
hits.round(3)

# %% [markdown]
# One pair of bars per protocol:

# %%
fig, ax = plt.subplots()
at = np.arange(len(hits))
ax.barh(at - 0.2, hits["trend"], 0.38, label="trend", hatch="//")
ax.barh(at + 0.2, hits["item kNN"], 0.38, label="item kNN")
ax.set_yticks(at, hits.index)
ax.invert_yaxis()
ax.set(xlabel="hitrate@10", ylabel="protocol")
ax.legend()
plt.show()

# %% [markdown]
# Random, by events and leave-one-out all choose kNN by a wide margin; live it loses. A model that can use the future is rewarded for it offline, and the future is
# missing in production. The single cut by time does not leak, but judges a model frozen for a fifth of the period, which nobody would run: it is too pessimistic for both.

# %%
knn, lead = hits["item kNN"], hits["item kNN"] - hits["trend"]
check("41.30", "three leaking protocols prefer kNN by over 0.05", (lead.iloc[:3] > 0.05).to_numpy())
check("41.30", "live, the trend is better by over 0.03", bool(lead.iloc[4] < -0.03))
check("41.30", "kNN's leave-one-out figure is over 1.5 times its live one",
      bool(knn.iloc[2] > 1.5 * knn.iloc[4]))

# %%
rolled = protocols["live: retrained 24 times"]
check("41.30", "rolling: no model sees the future", [float(future_share(*p)) for p in rolled],
      [0.0] * 24)
check("41.30", "and every later event is tested once", sum(len(test) for _, test in rolled),
      int((shop.time >= starts[0]).sum()))

# %% [markdown]
# Both models against their definitions, and the hitrate against counting:

# %%
train, test = protocols["by events"][0]
X = host(seen_matrix(train))
norms = np.sqrt((X**2).sum(0).clip(1))
cosines = X.T @ X / np.outer(norms, norms) - np.diag((X.sum(0) > 0).astype(float))
ours = knn_scores(train, torch.arange(SHOP_USERS, device=device))
check("41.31", "kNN, all users", ours, X @ cosines, atol=1e-12)

# %%
edges = log_of([0, 0, 0, 0], [0, 1, 50_000, 50_001])
sizes = [(len(a), len(b)) for a, b in rolling_splits(edges, [1, 50_000, 50_002])]
check("41.30", "rolling: an event at a start is tested, not trained", sizes, [(1, 1), (2, 2)])
check("41.31", "trend: lags 50,001 and 0 are outside, 50,000 and 1 inside",
      trend_scores(edges, edges.time[3:])[0], [0, 1, 1, 0])
train, test = protocols["by time, one cut"][0]
scores = trend_scores(train, test.time).masked_fill(seen_matrix(train)[test.user] > 0, -math.inf)
own = scores.gather(1, test.item[:, None])
above, level = (scores > own).sum(1), (scores == own).sum(1)  # one wanted item: closed form
check("41.31", "hitrate@10 of the trend, counted", hits["trend"].iloc[3],
      ((10 - above).clamp(min=0) / level).clamp(max=1).double().mean(), atol=1e-6)

# %% [markdown]
# ## 10. Sampled metrics are other metrics
#
# Ranking a held-out item against all $n-1$ others is dear, so many papers rank it against $s$ random ones ($s=99$ is common). Let its true rank be $\rho$, now from the top: 1 is the best. The $s$ opponents are drawn
# without replacement from the $n-1$ others, of which $\rho-1$ beat it, so the number that beats it is hypergeometric and
#
# $$P(\text{sampled hit@}k\mid\rho)=\sum_{b=0}^{k-1}\binom{\rho-1}b\binom{n-\rho}{s-b}\Big/\binom{n-1}s. \tag{41.32}$$
#
# With $s=k=1$ this is $\frac{n-\rho}{n-1}$, the share of items it beats: **AUC**. A sampled top-$k$ metric is a blend between the metric it is named after and AUC.

# %%
def sampled_hitrate(rank, n, s, k):
    """Eq. (41.32): P(hit@k) of the item of true rank `rank` of n against s < n sampled others."""
    ways = sum(math.comb(rank - 1, b) * math.comb(n - rank, s - b) for b in range(min(k, s + 1)))
    return ways / math.comb(n - 1, s)

# %%
ranks = [1, 2, 3, 10, 25, 40, 60]
chances = [sampled_hitrate(r, 60, 20, 3) for r in ranks]
check("41.32", "SciPy's hypergeometric law", chances,
      [stats.hypergeom.cdf(2, 59, r - 1, 20) for r in ranks], atol=1e-12)
check("41.32", "s = k = 1 is AUC", [sampled_hitrate(r, 60, 1, 1) for r in ranks],
      [(60 - r) / 59 for r in ranks], atol=1e-12)
check("41.32", "99 of 999 others: rank 60 is a top-10 hit in 94 of 100 draws",
      sampled_hitrate(60, 1000, 99, 10), 0.94, atol=5e-3)
check("41.32", "all others sampled: the exact metric",
      [sampled_hitrate(r, 60, 59, 3) for r in ranks], [r <= 3 for r in ranks])

# %% [markdown]
# And by drawing: of 59 opponents the first nine beat an item of rank 10.

# %%
opponents = uniform(DRAWS, 59, seed=17).topk(20).indices  # (DRAWS, 20), 0 is the best
hit = ((opponents < 9).sum(-1) < 3).double()
z = [abs(z_score(hit, sampled_hitrate(r, 60, 20, 3))) for r in (10, 9, 11)]
check("41.32", "|z| < 4; ranks 9 and 11 are refuted", z[0] < 4 and min(z[1:]) > 6)

# %% [markdown]
# The order of two recommenders can turn round. Among $n=10{,}000$ items A always ranks the right item 60th; B ranks it first for three users in ten and 2,000th for the others. Only B ever puts it into a top ten.

# %%
full = {"A": 0.0, "B": 0.3}
by_99 = {"A": sampled_hitrate(60, 10_000, 99, 10),
         "B": 0.3 + 0.7 * sampled_hitrate(2000, 10_000, 99, 10)}
print(f"hitrate@10, all items:    A {full['A']:.2f}   B {full['B']:.2f}")
print(f"hitrate@10, 99 negatives: A {by_99['A']:.2f}   B {by_99['B']:.2f}")
check("41.32", "the order turns round", full["A"] < full["B"] and by_99["A"] > by_99["B"] + 0.5)

# %% [markdown]
# ## 11. One number from many metrics
#
# A team watches $J$ proxy metrics $f_1..f_J$ and a business metric $M$ (retention, revenue) that moves slowly. Two ways to weigh the proxies.
#
# **Approach 1: regression.** From past experiments with both, choose the weights that predict $M$. With centred $F$ (rows are experiments) and $M$,
#
# $$w=\arg\min_w\sum_e\big(M_e-c-w^\top f_e\big)^2=(F^\top F)^{-1}F^\top M,\qquad \operatorname{Cov}(w)=\sigma^2(F^\top F)^{-1}, \tag{41.33}$$
#
# the zero of the gradient $-2F^\top(M-Fw)$, and the covariance of a linear map of noise with variance $\sigma^2$.

# %%
def regression_weights(f, M):
    """Weights (J,) and intercept of eq. (41.33). f: (E, J), M: (E,). ValueError if not unique."""
    F, target = f - f.mean(0), M - M.mean()
    if torch.linalg.matrix_rank(F) < f.shape[1]:
        raise ValueError("metrics are collinear or experiments too few: drop a metric or add some")
    w = torch.linalg.solve(F.T @ F, F.T @ target)
    return w, M.mean() - f.mean(0) @ w


def normal(*shape, seed):
    """Standard normal float64 numbers, drawn on the CPU with a seed of their own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)

# %% [markdown]
# Forty experiments, three metrics of which two (nDCG and recall, say) have correlation 0.97, and a business metric with noise of size 1:

# %%
true_w = torch.tensor([2.0, 1.0, -0.5], dtype=torch.float64, device=device)
f = normal(40, 3, seed=18)
f[:, 1] = 0.97 * f[:, 0] + 0.24 * f[:, 1]
M = 5 + f @ true_w + normal(4000, 40, seed=19)  # 4,000 times the same experiments, other luck

# %%
w_0, c_0 = regression_weights(f, M[0])
judge = LinearRegression().fit(host(f), host(M[0]))
check("41.33", "weights and intercept are scikit-learn's", [*w_0.tolist(), float(c_0)],
      [*judge.coef_, judge.intercept_], atol=1e-10)
same = f[:, [0, 0]]
check("41.33", "collinear metrics are refused", bool(refusal(regression_weights, same, M[0])))

# %% [markdown]
# The covariance shows the weakness: metrics that move together get weights of wild size and even the wrong sign.

# %%
many_w = torch.stack([regression_weights(f, m)[0] for m in M])  # (4000, 3)
F = f - f.mean(0)
sd = torch.linalg.inv(F.T @ F).diagonal().sqrt()
z = (many_w.std(0) / sd - 1) * math.sqrt(2 * 4000)  # a standard deviation errs by 1/sqrt(2 * 4000)
wrong_sign = float((many_w[:, 1] < 0).double().mean())
print(f"weight 1.0 is estimated as {many_w[:, 1].mean():.1f} ± {sd[1]:.1f}, "
      f"with the wrong sign in {wrong_sign:.0%} of the cases")

# %%
check("41.33", "the scatter is that of the formula: |z| < 4", z.abs() < 4)
check("41.33", "without the correlation it would be 3 times too small",
      sd[:2] > 3 / F.square().sum(0).sqrt()[:2])
z_mean = (many_w.mean(0) - true_w) / sd * math.sqrt(4000)
check("41.33", "and the mean is the truth: |z| < 4", z_mean.abs() < 4)

# %% [markdown]
# **Approach 2: make it worse on purpose.** Good changes are rare, bad ones are easy: random items, popular items only, a stale model. In each *degrading experiment* $e$ the metrics change by $\Delta_e\in\mathbb R^J$, and the
# right sum must fall in all of them: $w^\top\Delta_e<0$. Any such $w$ can be scaled, so bound it and ask for the largest margin:
#
# $$\gamma^*=\max_{w,\gamma}\ \gamma\quad\text{s.t.}\quad w^\top\Delta_e\le-\gamma\ \ \forall e,\quad -1\le w_j\le1. \tag{41.34}$$
#
# A linear programme. ($w/\gamma$ solves the form $w^\top\Delta_e\le-1$.) When are there no weights? Put $\lambda_e\ge0$, $\sum_e\lambda_e=1$, on the experiments. The worst experiment is the worst mixture, and
# max and min may be exchanged (both sets are convex and compact, the form is bilinear):
#
# $$\gamma^*=\max_{\lvert w_j\rvert\le1}\min_{\lambda}\Big(-w^\top\sum_e\lambda_e\Delta_e\Big)=\min_{\lambda}\max_{\lvert w_j\rvert\le1}\Big(-w^\top\sum_e\lambda_e\Delta_e\Big)=\min_{\lambda}\Big\lVert\sum_e\lambda_e\Delta_e\Big\rVert_1. \tag{41.35}$$
#
# So $\gamma^*=0$ exactly if some mixture of degradations leaves **every** metric where it was: then the metrics cannot see the damage, and one is missing.

# %%
def degradation_weights(deltas):
    """(w, margin) of eq. (41.34): w (J,) in [-1, 1]. deltas: (E, J), finite, else ValueError.

    A margin of 0 (up to 1e-9) means that no weights make every experiment lower the sum.
    """
    if deltas.ndim != 2 or not deltas.isfinite().all():
        raise ValueError(f"deltas must be finite, (experiments, metrics): {tuple(deltas.shape)}")
    D = deltas.detach().cpu().double().numpy()
    E, J = D.shape
    found = linprog(c=[0.0] * J + [-1.0], A_ub=np.hstack([D, np.ones((E, 1))]), b_ub=np.zeros(E),
                    bounds=[(-1, 1)] * J + [(0, None)])
    w = torch.tensor(found.x[:J], dtype=deltas.dtype, device=deltas.device)
    return w, float(found.x[J])

# %% [markdown]
# Two judges: for two metrics a fine grid over $w$, for five metrics the right side of eq. (41.35), another linear programme with other unknowns.

# %%
def mixture_norm(deltas):
    """Right side of eq. (41.35): the least 1-norm of a mixed change. deltas: (E, J) -> float."""
    D = host(deltas).T  # (J, E); unknowns: lambda (E,) and t (J,) >= |D lambda|
    J, E = D.shape
    found = linprog(c=[0.0] * E + [1.0] * J, b_ub=np.zeros(2 * J), bounds=(0, None),
                    A_ub=np.block([[D, -np.eye(J)], [-D, -np.eye(J)]]),
                    A_eq=[[1.0] * E + [0.0] * J], b_eq=[1.0])
    return found.fun

# %% [markdown]
# Three degradations in the plane of two metrics:

# %%
two = torch.tensor([[-2.0, 0.5], [0.4, -1.0], [-1.0, -0.2]], dtype=torch.float64)
w_two, margin_two = degradation_weights(two)
side = torch.linspace(-1, 1, 401, dtype=torch.float64)
grid = -(torch.cartesian_prod(side, side) @ two.T).amax(1)  # margin of 160,801 weights

# %%
check("41.34", "two metrics: the best margin on a grid", margin_two, grid.max(), atol=5e-3)
check("41.34", "the weights keep the margin", -(two @ w_two).max(), margin_two, atol=1e-9)
check("41.34", "they stay in the box", bool((w_two.abs() <= 1 + 1e-9).all()))
holes = two.clone()
holes[0, 0] = math.nan
said = [str(refusal(degradation_weights, bad)) for bad in (two[0], holes)]
check("41.34", "bad input is refused", [message.startswith("deltas must be") for message in said])
check("41.34", "the type is kept", degradation_weights(two.float())[0].dtype == torch.float32)

# %%
five = normal(10, 9, 5, seed=20)  # ten times nine experiments, five metrics
margins = [degradation_weights(d)[1] for d in five]
check("41.35", "the dual finds the same", margins, [mixture_norm(d) for d in five], atol=1e-9)
check("41.35", "some of the ten have weights, some not", 0 < sum(m > 1e-9 for m in margins) < 10)
opposite = torch.cat([two, -two[:1]])
check("41.35", "a damage and its opposite mix to no change", degradation_weights(opposite)[1], 0.0,
      atol=1e-9)

# %% [markdown]
# In the plane of two metrics the weights are a direction with every damage on the far side of the line $w^\top\Delta=0$:

# %%
fig, ax = plt.subplots(figsize=(4.8, 3.6))
ax.scatter(two[:, 0].numpy(), two[:, 1].numpy(), marker="v", s=50, label=r"degradations $\Delta_e$")
ax.annotate("$w$", xy=(0, 0), xytext=w_two.tolist(), arrowprops={"arrowstyle": "<-", "lw": 2})
ax.axline((0, 0), (float(w_two[1]), -float(w_two[0])), ls="--", color="grey",
          label=r"$w^\top\Delta=0$")
ax.set(xlabel="change of metric 1", ylabel="change of metric 2", xlim=(-2.4, 1.6), ylim=(-1.4, 1.6))
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# Neither metric alone falls in all three experiments; their weighted sum does.
#
# **How many experiments make the answer mean something?** If damages pointed in random directions (any law symmetric about 0, in general position), weights would still exist with probability
#
# $$P(E,J)=2^{-(E-1)}\sum_{j=0}^{J-1}\binom{E-1}j \tag{41.36}$$
#
# (Wendel). Proof: fix the lines of the $\Delta_e$ and flip their signs. Each of the $2^E$ sign patterns is equally likely; a pattern admits weights if a $w$ lies on the right sides of
# $E$ hyperplanes through 0, that is if it is one of the $C(E,J)$ regions they cut out. A new hyperplane splits those old regions that it meets, and it meets as many as the others cut out of *it*: $C(E,J)=C(E-1,J)+C(E-1,J-1)$, with
# $C(1,J)=C(E,1)=2$, whose solution is $2\sum_{j<J}\binom{E-1}j$. With $E\le J$ the probability is 1: weights always exist and prove nothing. With $E=2J$ it is ½.

# %%
def weights_by_chance(E, J):
    """Probability that E random changes of J metrics admit weights, eq. (41.36)."""
    return sum(math.comb(E - 1, j) for j in range(J)) / 2 ** (E - 1)


trials = normal(300, 8, 4, seed=31)
exists = torch.tensor([degradation_weights(d)[1] > 1e-9 for d in trials]).double()
z = [abs(z_score(exists, weights_by_chance(E, 4))) for E in (8, 7, 9)]

# %%
check("41.36", "E = 8, J = 4: |z| < 4; E = 7 and 9 are refuted", z[0] < 4 and min(z[1:]) > 4)
check("41.36", "1 up to E = J, 1/2 at E = 2J", [weights_by_chance(E, 4) for E in (2, 4, 8)],
      [1, 1, 0.5])

# %% [markdown]
# ### On data
#
# Item kNN on the split by events, each user's liked test items ($r\ge4$) relevant, and five ways to spoil it. The report: nDCG@10, recall@10, self-information, diversity of genres, coverage.
#
# A recommender has to show *some* ten items, so tied scores are broken at random: `topk` alone would give every user
# without a score the same ten.

# %%
def top_lists(scores, k):
    """Ids of the k best, ties in random order. scores: (users, n), gaps over 1e-9 -> (users, k)."""
    return (scores + 1e-9 * uniform(*scores.shape, seed=34)).topk(k, dim=-1).indices


def report(scores, relevance, k=10):
    """nDCG, recall, self-information (bits), diversity, coverage of the top k lists. -> (5,)"""
    top = top_lists(scores, k)
    accuracy = [f(relevance, scores, k).nanmean() for f in (ndcg_at_k, recall_at_k)]
    values = [*accuracy, self_information(top, popularity).mean(), diversity(genre[top]).mean(),
              coverage(top, scores.shape[1])]
    return torch.stack([v.double().cpu() for v in values])

# %% [markdown]
# Training on the earlier 80% of each user's ratings:

# %%
train, test = splits["by events"]
X, hidden = seen_matrix(train), seen_matrix(test[test.value >= 4])
users = torch.arange(len(X), device=device)
kNN = knn_scores(train, users)

# %% [markdown]
# The five degradations: half of the users get random lists; popularity only; one genre only; the 50 best unseen items in reverse; a model that stopped learning after 30% of the time.

# %%
unseen = kNN.masked_fill(X > 0, -math.inf)
top_50 = unseen >= unseen.topk(50).values[:, -1:]
spoiled = {"good": kNN,
           "half random": torch.where(users[:, None] % 2 > 0, uniform(*X.shape, seed=32), kNN),
           "popular only": X.sum(0).expand_as(X),
           "one genre": kNN.masked_fill(genre[:, 1] == 0, -1.0),
           "top 50 reversed": -unseen.masked_fill(~top_50, math.inf),
           "stale": knn_scores(time_split(train, 0.3)[0], users)}
ranked_by = {name: scores.masked_fill(X > 0, -math.inf) for name, scores in spoiled.items()}
check("41.34", "ten unseen items for everybody, so none at -inf is shown",
      [bool(s.topk(10).values.isfinite().all()) for s in ranked_by.values()])

# %% [markdown]
# Training items get $-\infty$, and the report reads:

# %%
NAMES = ["nDCG@10", "recall@10", "self-information", "diversity", "coverage"]
table = pd.DataFrame({name: report(scores, hidden).numpy() for name, scores in ranked_by.items()},
                     index=NAMES).T
no_liked = int((hidden.sum(1) == 0).sum())

# %% [markdown]
# One row per recommender:

# %% tags=["nbval-ignore-output"]
print(f"users without a liked test item, left out of nDCG and recall: {no_liked} of {len(X)}")
if DATA != "bundled":
    for name, row in table.loc[["good", "popular only"]].iterrows():
        print(f"full run: {name}:", ", ".join(f"{metric} = {v:.4f}" for metric, v in row.items()))
table.round(3)

# %%
lists_10 = top_lists(ranked_by["good"], 10)
some = hidden.sum(1) > 0
finite = ranked_by["good"][some].clamp(min=-1)
by_hand = [sk.ndcg_score(host(hidden[some]), host(finite), k=10),
           np.mean([-np.log2(host(popularity)[row]).mean() for row in host(lists_10)]),
           np.mean([pdist(host(genre)[row]).mean() for row in host(lists_10)])]
check("41.13", "the report by scikit-learn, NumPy and SciPy",
      table.loc["good", ["nDCG@10", "self-information", "diversity"]], by_hand, rtol=1e-6)
worse = table.iloc[1:] > table.iloc[0]
check("41.34", "every degradation raises some metric", worse.any(axis=1).to_numpy())
tied_lists = top_lists(torch.zeros(4000, 8, dtype=torch.float64, device=device), 2)
z = (torch.bincount(tied_lists.flatten(), minlength=8) - 1000) / math.sqrt(4000 * 0.25 * 0.75)
check("41.20", "eight tied items: each in a quarter of the lists of two, |z| < 4", z.abs() < 4)

# %% [markdown]
# Every degradation raises some metric, and half-random lists raise three of five. Each experiment is evaluated on four groups of users, which gives $E=20$ changes of $J=5$ metrics, in per cent of the good value. By chance weights would exist with probability $P(20,5)$, about 1%.

# %%
groups = [users // 2 % 4 == g for g in range(4)]
by_group = {name: torch.stack([report(scores[g], hidden[g]) for g in groups])
            for name, scores in ranked_by.items()}  # each (4, 5)
good = by_group.pop("good")
deltas = torch.cat([100 * (values / good - 1) for values in by_group.values()])  # (20, 5), per cent
w, margin = degradation_weights(deltas)

# %% [markdown]
# The weights, and how often each metric falls alone:

# %% tags=["nbval-ignore-output"]
print(f"chance of weights {weights_by_chance(20, 5):.4f}, margin {margin:.2f}")
falls = (deltas < 0).double().mean(0)  # share of experiments in which a metric falls
pd.DataFrame({"weight": w.numpy(), "falls in": falls.numpy()}, index=NAMES).round(2)

# %%
check("41.34", "there are weights: the margin is over 0.1 per cent", margin > 0.1)
check("41.34", "every degradation lowers the sum by the margin", deltas @ w <= -margin + 1e-7)
check("41.34", "no single metric does better", margin >= float(-deltas.amax(0).min()) - 1e-7)
check("41.35", "the dual programme agrees", margin, mixture_norm(deltas), rtol=1e-6, atol=1e-9)

# %% [markdown]
# On the bundled data no metric falls in all twenty experiments; the weighted sum does, with a small margin. These users choose by popularity, so "popular only" has even a
# little more nDCG and recall than kNN, and only its narrow lists give it away: whether a change *is* a degradation comes from outside the metrics. On MovieLens 100K (full run) kNN has nDCG@10 0.169 against 0.098 for popularity, nDCG alone falls in every experiment, and the margin is large. Weights found this way say what the experiments know, no more: add a damage that nobody tried and they may fail.

# %% [markdown]
# ## Try it
#
# **A list under your hands.** Six films; the number behind the name is the relevance. Drag a score: the list re-sorts, equal scores share their places, and every metric answers. Try to raise RR without hitrate,
# to change nDCG without AP, and to make all scores equal.

# %%
FILMS = {"A (3)": 3.0, "B (0)": 0.0, "C (2)": 2.0, "D (0)": 0.0, "E (1)": 1.0, "F (0)": 0.0}


def film_metrics(scores, k, gain):
    """All metrics of the six films for a list of six scores, as a dict; DCG in tens."""
    r, a = torch.tensor(list(FILMS.values())).double(), torch.tensor(scores).double()
    shown = {name: float(f(r, a, k)) for name, f in VIEWS.items() if "DCG" not in name}
    dcg, ndcg = dcg_at_k(r, a, k, gain), ndcg_at_k(r, a, k, gain)
    return shown | {"nDCG": float(ndcg), "DCG/10": float(dcg) / 10}

# %% [markdown]
# The list on the left, its metrics on the right; initially C and D are tied.

# %%
def draw_list(A, B, C, D, E, F, k, gain):
    """The list that the six scores give, and all metrics of it."""
    scores = [A, B, C, D, E, F]
    ranked = sorted(zip(scores, FILMS), key=lambda pair: -pair[0])
    values = film_metrics(scores, k, gain)
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.4, 2.8))
    left.barh(range(1, 7), [s for s, _ in ranked], height=0.7, color="#c5d3e6")
    for p, (s, film) in enumerate(ranked, 1):
        left.text(0.1, p, film + " tied" * (scores.count(s) > 1), va="center")
    left.axhline(k + 0.5, ls="--", color="black")
    left.set(xlabel="score $a$", ylabel="position $p$", ylim=(6.6, 0.4), xlim=(0, 10))
    bars = right.bar(range(len(values)), values.values())
    right.bar_label(bars, fmt="%.2f", fontsize=8)
    right.set_xticks(range(len(values)), values, rotation=45, ha="right")
    right.set(ylabel="value", ylim=(0, 1.15))
    plt.show()


draw_list(9, 8, 6, 6, 4, 2, 3, "exp")

# %% [markdown]
# Drag:

# %% tags=["nbval-ignore-output"]
interact(draw_list, **{x: IntSlider(v, 0, 10) for x, v in zip("ABCDEF", (9, 8, 6, 6, 4, 2))},
         k=IntSlider(3, 1, 6), gain=["exp", "linear"]);

# %% [markdown]
# C and D share positions 3 and 4 here: with $k=3$ the list is half a hit richer, and every metric shows the mean of the two orders.
#
# **Sampled negatives.** The chance of a sampled hit against the true rank among 1,000 items. Move $s$ from 1 (a straight line, AUC) to 999 (the exact metric).

# %%
def draw_sampled(s, k):
    """Sampled and exact hitrate@k of an item by its true rank among 1,000, s sampled negatives."""
    rank = np.unique(np.geomspace(1, 1000, 40).astype(int))
    fig, ax = plt.subplots(figsize=(5.6, 3.0))
    ax.plot(rank, [sampled_hitrate(int(r), 1000, s, k) for r in rank], label=f"{s} negatives")
    ax.step(rank, rank <= k, where="post", label="all items")
    ax.plot(rank, (1000 - rank) / 999, label="AUC")
    ax.set(xscale="log", xlabel=r"true rank $\rho$", ylabel=f"chance of a hit in the top {k}")
    ax.legend()
    plt.show()


draw_sampled(99, 10)

# %% [markdown]
# Move $s$ and $k$:

# %% tags=["nbval-ignore-output"]
interact(draw_sampled, s=IntSlider(99, 1, 999), k=IntSlider(10, 1, 20));

# %% [markdown]
# With 99 negatives an item at rank 60 of 1,000 is a "top-10 hit" in 94 of 100 draws.
#
# ## Where the notes slip
#
# ### E29 · the list is sorted upside down
# One set of the notes sorts the items by *increasing* score before taking the first $k$ (the other has it right). For a perfect model, $a=r$, that list is the worst of all:

# %%
r = [3, 2, 0, 1]
ascending, descending = (ndcg_loop(sorted(r, reverse=down), 4, "linear") for down in (False, True))
worst = min(ndcg_loop(list(x), 4, "linear") for x in permutations(r))
check("41.13", "E29: descending order gives a perfect model nDCG 1", descending, 1.0)
check("41.13", "E29: ascending order gives it the minimum of all orders", ascending, worst)
print(f"ascending: {ascending:.3f}")

# %% [markdown]
# Right: sort by **decreasing** $a_{ui}$, show the first $k$.
#
# ### E30 · DCG without base and gain
# Both notes write $d(p)=1/\log(p+1)$ without a base and leave the gain open. DCG is then not a number; nDCG forgives the base, not the gain. The list $r=(2,3,0,1)$:

# %%
best, other = [3, 2, 1, 0], [2, 3, 0, 1]
dcg_2 = dcg_loop(best, 4, "linear")
dcg_e = sum(g / math.log(p + 1) for p, g in enumerate(best, 1))
check("41.14", "E30: DCG depends on the base", dcg_e / dcg_2, 1 / math.log(2), rtol=1e-12)
by_gain = {gain: ndcg_loop(other, 4, gain) for gain in ("linear", "exp")}
check("41.13", "E30: nDCG depends on the gain", by_gain["linear"] - by_gain["exp"] > 0.05)
print(f"DCG {dcg_2:.2f} in base 2, {dcg_e:.2f} in base e;",
      "nDCG", {gain: round(value, 3) for gain, value in by_gain.items()})

# %% [markdown]
# Right: base 2 is the convention; state the gain ($2^r-1$ or $r$) with every number.
#
# ### E31 · "similarity" and "serendipity"
# The notes call $d(b,B)$ the similarity of $b$ and $B$, and serendipity. With $C_B=5$:

# %%
fans = torch.tensor([5, 2, 0])  # books read by three authors
d = surprise(torch.tensor([0, 1, 2]), fans)
check("41.27", "E31: d grows as the author gets less familiar: a dissimilarity", d.diff() > 0)
check("41.27", "E31: 1/6 for the favourite author, 1 for an unread one", d[[0, 2]], [1 / 6, 1],
      atol=1e-6)
one_liked = serendipity(torch.tensor([1.0, 0.0]), torch.tensor([2, 2]), fans)
check("41.28", "E31: two surprises, one disliked: serendipity 1/2", one_liked, 0.5)

# %% [markdown]
# Right: $d$ is a **dis**similarity, the unexpected half; serendipity is unexpected **and** relevant, eq. (41.28).
#
# ### E70 · hitrate compares a number with a set
# Printed: $\lvert R\cap L\rvert\ne\varnothing$. The left side is a number, the right a set; a number is never equal to a set, so the printed condition is always true.

# %%
common = {1, 2, 3} & {7, 8}
check("41.8", "E70: as printed, a list without a hit is a hit", len(common) != set())
check("41.8", "E70: comparing sets, and the loop, say no hit",
      [common != set(), hitrate_loop([0, 0, 0, 1, 1], 3)], [0, 0])

# %% [markdown]
# Right: $[R\cap L\ne\varnothing]$ in Iverson brackets, or $[\lvert R\cap L\rvert>0]$.
#
# ### E71 · DCG without the sum
# Printed: $\mathrm{DCG@}k=g(r_{u i_1})\times d(p)$, one product, with a $p$ that nothing defines. Read with $p=1$:

# %%
printed = gain_of(best[0], "linear") * 1 / math.log2(1 + 1)
with_sum = float(sk.dcg_score([best], [[4, 3, 2, 1]]))
check("41.11", "E71: the sum is scikit-learn's", dcg_loop(best, 4, "linear"), with_sum, rtol=1e-12)
check("41.11", "E71: the printed product is another number", printed < 0.67 * with_sum)
print(f"printed {printed:.2f}, with the sum {with_sum:.2f}")

# %% [markdown]
# Right: $\sum_{p=1}^kg(r_{(p)})\,d(p)$; without the sum the list below the first item would not matter.
#
# ### E72 · two symbols for one number
# The notes define $S_B$ as the largest number of books by one author, then use an undefined $C_B$; and "$b$: a new" lacks its noun. A reader who takes $C_B$ for the size of $B$ gets other values:

# %%
as_size = (1 + fans.sum() - fans) / (1 + fans.sum())
check("41.27", "E72: with the maximum the least value is 1/(1 + C_B)", d.min(),
      1 / (1 + fans.max()), atol=1e-6)
check("41.27", "E72: with the size of B the favourite would get 3/8", as_size[0], 3 / 8, atol=1e-6)

# %% [markdown]
# Right: one symbol, $C_B=\max_wC_{B,w}$, and $b$ is a new **book** by author $w$.
#
# ## What it costs
#
# Finding the $k$ best of $n$ scores needs one pass, $O(n)$ (selection), and $O(k\log k)$ to sort them; the group at the border is counted in another pass. So a top-$k$ metric costs $O(n+k\log k)$ per user, against $O(n\log n)$ for a
# full sort, and $O(Un)$ memory for $U$ users, the scores themselves. IDCG is one more selection. First the proof that the fast versions are right at full size:

# %%
big_sc = uniform(COST_USERS, COST_ITEMS, seed=41)
big_rel = (5 * uniform(COST_USERS, COST_ITEMS, seed=42) ** 8).floor()
big_rel[:, 0], big_rel[:, 1] = 4, 0
host_rel, host_sc = host(big_rel), host(big_sc)

# %%
check("41.13", "a million scores: scikit-learn's nDCG@10",
      ndcg_at_k(big_rel, big_sc, 10, "linear").mean(), sk.ndcg_score(host_rel, host_sc, k=10),
      rtol=1e-12)
big_ap = average_precision_at_k(big_rel, big_sc, COST_ITEMS).mean()
check("41.10", "scikit-learn's label ranking AP", big_ap,
      sk.label_ranking_average_precision_score(host_rel > 0, host_sc), rtol=1e-12)

# %% [markdown]
# The table pairs each metric with what scikit-learn needs for it:

# %%
def auc_per_user():
    """scikit-learn's AUC of the first 100 users, one by one."""
    return [sk.roc_auc_score(r > 0, a) for r, a in zip(host_rel[:100], host_sc[:100])]


speed = compare_speed({
    "nDCG@10": lambda: ndcg_at_k(big_rel, big_sc, 10, "linear"),
    "nDCG@10, sklearn": lambda: sk.ndcg_score(host_rel, host_sc, k=10),
    "nDCG@10, sklearn, no ties": lambda: sk.ndcg_score(host_rel, host_sc, k=10, ignore_ties=True),
    "nDCG@n": lambda: ndcg_at_k(big_rel, big_sc, COST_ITEMS, "linear"),
    "nDCG@n, sklearn": lambda: sk.ndcg_score(host_rel, host_sc),
    "AP@n": lambda: average_precision_at_k(big_rel, big_sc, COST_ITEMS),
    "AP@n, sklearn": lambda: sk.label_ranking_average_precision_score(host_rel > 0, host_sc),
    "AUC, 100 users": lambda: roc_auc(big_rel[:100], big_sc[:100]),
    "AUC, 100 users, sklearn": auc_per_user,
    "recall@10": lambda: recall_at_k(big_rel, big_sc, 10)}, repeats=3)

# %% [markdown]
# Milliseconds:

# %% tags=["nbval-ignore-output"]
speed

# %% [markdown]
# The batched top-10 metrics beat scikit-learn's, also without its average over ties, because selection replaces the sort. For $k=n$ both have to sort everything: AP is a little faster here, nDCG is not, because NumPy sorts faster than torch on a CPU. scikit-learn has no batched AUC: it visits the users one by one.
# How the time grows with the number of candidates:

# %%
sizes = [4_000, 16_000, 64_000]
wide_rel = (5 * uniform(32, sizes[-1], seed=43) ** 8).floor()
wide_sc = uniform(32, sizes[-1], seed=44)

# %% [markdown]
# 32 users, up to 64,000 candidates:

# %% tags=["nbval-ignore-output"]
for k in (10, 1000):
    t = [timed(ndcg_at_k, wide_rel[:, :n], wide_sc[:, :n], k, repeats=3) for n in sizes]
    slope = np.polyfit(np.log(sizes), np.log(t), 1)[0]
    print(f"k = {k:4d}: {1e3 * t[-1]:.0f} ms at n = 64,000, slope {slope:.2f}")

# %% [markdown]
# A slope near 1 is the linear cost of the selection (small sizes are dominated by overhead, which flattens it).
#
# ## Exercises

# %% [markdown]
# ### Exercise 41.A
# Write recall@k for one user from a list of recommended ids (best first) and a set of liked ids. Return `None` if the user likes nothing.
#
# <details><summary>Hint</summary>
#
# The denominator is not $k$. And an undefined value is not 0.
#
# </details>

# %%
def my_recall(recommended, liked, k):
    """Share of the liked ids among the first k recommended; None if nothing is liked."""
    raise NotImplementedError

# %% [markdown]
# The judge is scikit-learn's `recall_score` on indicator vectors.

# %% tags=["nbval-ignore-output"]
def recall_case(recommended, liked, k):
    """One test case with its answer from scikit-learn."""
    truth, guess = [i in liked for i in range(12)], [i in recommended[:k] for i in range(12)]
    return (recommended, liked, k), float(sk.recall_score(truth, guess)) if liked else None


exercise("41.A", my_recall, [recall_case([4, 1, 7, 2], {1, 9, 2}, 2),
                             recall_case([4, 1, 7, 2], {1, 9, 2}, 4), recall_case([4, 1], {7}, 2),
                             recall_case([4, 1], set(), 2), recall_case([3, 5, 8], {3, 5}, 3)])

# %% [markdown]
# <details><summary>Solution 41.A</summary>
#
# ```python
# def my_recall(recommended, liked, k):
#     if not liked:
#         return None
#     return len(set(recommended[:k]) & set(liked)) / len(liked)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 41.B
# Write nDCG@k with the exponential gain for one user: lists of relevance and of scores (no ties) over all candidates.
#
# <details><summary>Hint</summary>
#
# The ideal list is made of *all* candidates, also those your list does not show.
#
# </details>

# %%
def my_ndcg(relevance, scores, k):
    """nDCG@k, gain 2^r - 1, log base 2, of one user."""
    raise NotImplementedError

# %% [markdown]
# In two of the cases the best item is outside the top $k$.

# %% tags=["nbval-ignore-output"]
four = [([3, 0, 2, 1], [0.9, 0.8, 0.3, 0.1], 4), ([0, 1, 4, 0, 2], [5, 4, 1, 3, 2], 2),
        ([1, 0, 3], [3, 2, 1], 1), ([2, 2, 0, 5, 1], [0.1, 0.5, 0.4, 0.3, 0.2], 3)]
exercise("41.B", my_ndcg, [((r, a, k), sk.ndcg_score([2.0 ** np.array(r) - 1], [a], k=k))
                           for r, a, k in four])

# %% [markdown]
# <details><summary>Solution 41.B</summary>
#
# ```python
# def my_ndcg(relevance, scores, k):
#     import math
#     def dcg(ranked):
#         return sum((2**r - 1) / math.log2(p + 1) for p, r in enumerate(ranked[:k], 1))
#     ranked = [r for _, r in sorted(zip(scores, relevance), reverse=True)]
#     return dcg(ranked) / dcg(sorted(relevance, reverse=True))
# ```
#
# </details>

# %% [markdown]
# ### Exercise 41.C
# Coverage says whether an item is shown, not how often. The **Gini index** of the exposures $x_1..x_n$ does: $G=\frac{1}{2n^2\bar x}\sum_{i,j}\lvert x_i-x_j\rvert$, 0 if all items are shown equally often. Compute it in $O(n\log n)$.
#
# <details><summary>Hint</summary>
#
# Sort ascending. How many times does $x_{(i)}$ enter the sum of absolute differences with a plus, how many times with a minus?
#
# </details>

# %%
def my_gini(exposure):
    """Gini index of a list of counts (not all zero)."""
    raise NotImplementedError

# %% [markdown]
# The judge adds up all pairs.

# %% tags=["nbval-ignore-output"]
def gini_by_pairs(x):
    """Mean absolute difference over twice the mean."""
    return float(np.abs(np.subtract.outer(x, x)).mean() / (2 * np.mean(x)))


exercise("41.C", my_gini, [((x,), gini_by_pairs(x))
                           for x in ([3, 3, 3], [0, 0, 10], [5, 1, 2, 8, 0], [7, 1])])

# %% [markdown]
# <details><summary>Solution 41.C</summary>
#
# In ascending order $x_{(i)}$ is larger than $i-1$ others and smaller than $n-i$, so $\sum_{i,j}\lvert x_i-x_j\rvert=2\sum_i(2i-n-1)x_{(i)}$.
#
# ```python
# def my_gini(exposure):
#     x, n = sorted(exposure), len(exposure)
#     return sum((2 * i - n - 1) * value for i, value in enumerate(x, 1)) / (n * sum(x))
# ```
#
# </details>

# %% [markdown]
# ### Exercise 41.D
# **Expected reciprocal rank** (Chapelle et al.) models a user who goes down the list and stops, satisfied, at an item of relevance $r$ with probability $(2^r-1)/2^{r_{\max}}$. ERR is the expectation of one over the position where
# he stops (0 if he never does). Write it for one list.
#
# <details><summary>Hint</summary>
#
# He reaches position $p$ only if none of the items above satisfied him. Carry that probability along.
#
# </details>

# %%
def my_err(ranked, r_max):
    """Expected reciprocal rank of a list of relevances from the top down."""
    raise NotImplementedError

# %% [markdown]
# The judge lists all $2^n$ patterns of satisfying and unsatisfying items with their probabilities.

# %% tags=["nbval-ignore-output"]
def err_by_patterns(ranked, r_max):
    """ERR: sum over patterns of probability / position of the first satisfying item."""
    total, q = 0.0, [(2**r - 1) / 2**r_max for r in ranked]
    for pattern in product([True, False], repeat=len(q)):
        if any(pattern):
            chance = math.prod(a if hit else 1 - a for a, hit in zip(q, pattern))
            total += chance / (pattern.index(True) + 1)
    return total


exercise("41.D", my_err, [((x, 4), err_by_patterns(x, 4)) for x in
                          ([4, 0, 2], [0, 0, 3, 4], [1, 1, 1, 1], [0, 0], [2, 4, 4])])

# %% [markdown]
# <details><summary>Solution 41.D</summary>
#
# ```python
# def my_err(ranked, r_max):
#     reached, total = 1.0, 0.0
#     for p, r in enumerate(ranked, 1):
#         satisfied = (2**r - 1) / 2**r_max
#         total += reached * satisfied / p
#         reached *= 1 - satisfied
#     return total
# ```
#
# </details>

# %% [markdown]
# ### Exercise 41.E
# With two metrics the changes $\Delta_e$ are arrows in the plane. Decide **without** a linear programme whether weights exist with $w^\top\Delta_e<0$ for all $e$: a Python `bool`.
#
# <details><summary>Hint</summary>
#
# Weights exist if all arrows fit into an open half-plane. Sort their angles and look at the largest gap between neighbours, round the circle.
#
# </details>

# %%
def my_weights_exist(deltas):
    """True if some w has w·delta < 0 for every pair in the list `deltas` (no pair is (0, 0))."""
    raise NotImplementedError

# %% [markdown]
# The judge is the margin of `degradation_weights`; opposite arrows and a gap across $\pm\pi$ are among the cases.

# %% tags=["nbval-ignore-output"]
clouds = [[(-2, 0.5), (0.4, -1), (-1, -0.2)], [(1, 0), (-1, 0)], [(-1, 0.3), (-1, -0.3)],
          [(1, 1), (-1, 1), (0, -1)], [(1, 0.2), (1, -0.2), (0.1, 1), (0.1, -1)], [(0, 2)],
          [(1, 0), (0, 1), (-1, -0.9)]]
answers = [degradation_weights(torch.tensor(c).double())[1] > 1e-9 for c in clouds]
exercise("41.E", my_weights_exist, [((c,), answer) for c, answer in zip(clouds, answers)])

# %% [markdown]
# <details><summary>Solution 41.E</summary>
#
# ```python
# def my_weights_exist(deltas):
#     import math
#     angles = sorted(math.atan2(y, x) for x, y in deltas)
#     gaps = [b - a for a, b in zip(angles, angles[1:])] + [angles[0] + 2 * math.pi - angles[-1]]
#     return max(gaps) > math.pi + 1e-9
# ```
#
# </details>

# %% [markdown]
# ## Exam

# %% [markdown] tags=["exam"]
# ### Question 14 · What is the training sample of a recommender, what is a rating, and which kinds of rating are there?
#
# **По-русски.** Из чего состоит обучающая выборка рекомендательной системы? Что называют рейтингом и каким он бывает?
#
# <details><summary>Model answer</summary>
#
# The sample is a set $R$ of triples $(u,i,r_{ui})$ for the pairs that are known to have interacted, at most one per pair (41.1). Each pair is described by features $x^{ui}$: of the user, of the item, and of both (likes the user gave to this
# author, share of similar clips watched, click rate of the item). Features must be computed from events *before* the interaction, otherwise the answer leaks into them. The target is the rating $r_{ui}$: the outcome of the interaction.
#
# Kinds: **real** (a mark of 7.5, share of the clip watched, money spent); **ordered classes** (stars); **binary** (like / dislike); **unordered classes** (reactions), which have to be mapped to a utility before they can rank; **unary / implicit** (click, purchase),
# where only positives are seen and an empty cell means unknown, not disliked. Explicit ratings are rare and honest, implicit ones plentiful and noisy. Most of the matrix is empty, and not at random: people rate what they chose to see.
# The kind decides the metric: regression errors for numbers, F and AUC for classes, top-$k$ and DCG for lists.
#
# **Кратко по-русски.** Выборка — множество троек (пользователь, айтем, рейтинг) для известных пар, вместе с признаками пары, посчитанными по прошлому. Рейтинг — результат взаимодействия: вещественный (оценка, доля просмотра), порядковый (звёзды), бинарный (лайк/дизлайк),
# категориальный без порядка (реакции), унарный (клик, покупка; пустая клетка значит «неизвестно», а не «не понравилось»).
#
# **Typical mistake.** To call $R$ "the set of features": without the target $r_{ui}$ there is nothing to learn. And to treat an empty cell as a rating of 0.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 15 · Which measures would you use for real-valued ratings, for class ratings, and when the order matters? Define nDCG.
#
# **По-русски.** Как измерять качество рекомендаций, если рейтинги — числа, если это классы и если важен порядок? Выведите nDCG.
#
# <details><summary>Model answer</summary>
#
# *Numbers.* MSE, RMSE, MAE (41.2) on held-out ratings. MSE is minimised by the mean, MAE by the median (41.3). They judge all pairs alike and do not see the order: a constant shift of all predictions costs RMSE and changes no list.
#
# *Classes.* Precision, recall, $F_\beta$ (41.4), and ROC AUC, the probability that a random relevant item is scored above a random irrelevant one, ties counting ½ (41.6). AUC weighs all positions alike.
#
# *The list.* Sort by decreasing $a_{ui}$, show the top $k$, $R_u(k)$; relevant items $L_u$. hitrate@k $=[R_u(k)\cap L_u\ne\varnothing]$ (41.8); precision@k $=\lvert R_u(k)\cap L_u\rvert/k$, recall@k $=\lvert R_u(k)\cap L_u\rvert/\lvert L_u\rvert$ (41.9), bounded by $\min(k,m)/k$ and $\min(k,m)/m$ (41.23), blind to the
# order inside the list. With order: AP@k and RR@k (41.10); averaged over users MAP and MRR.
#
# *nDCG.* $\mathrm{DCG@}k=\sum_{p=1}^kg(r_{(p)})/\log_2(p+1)$ with $g(r)=2^r-1$ or $r$ (41.11). The maximum over all orders is reached by sorting by true relevance, since exchanging a pair in the wrong order gains $(g_b-g_a)(d(p)-d(q))>0$ (41.12). $\mathrm{nDCG@}k=\mathrm{DCG@}k/\mathrm{IDCG@}k\in[0,1]$ (41.13), IDCG over *all*
# relevant items of the user. The base of the logarithm cancels (41.14), the gain does not. A user without relevant items has IDCG = 0: undefined; leave him out and report how many there are.
#
# *Beyond accuracy*: novelty (41.24), diversity (41.25), serendipity (41.28), coverage (41.29). Measure offline on a split by time, online by an A/B test.
#
# **Кратко по-русски.** Числа — MSE, RMSE, MAE; классы — precision, recall, F-мера, AUC (вероятность того, что релевантный айтем выше нерелевантного). Порядок: сортируем по убыванию предсказаний, берём top-k: hitrate, precision@k, recall@k, AP, RR, DCG $=\sum_p g(r_{(p)})/\log_2(p+1)$.
# nDCG = DCG/IDCG, где IDCG — DCG идеальной сортировки по истинной релевантности; основание логарифма сокращается, выбор $g$ — нет.
#
# **Typical mistake.** Taking the ideal list from the $k$ shown items only: then any list sorted well inside itself gets 1. And sorting by increasing score (E29).
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 75 · Compute hitrate, precision, recall, DCG and nDCG at 3 for given lists. What if the user has no relevant item?
#
# **По-русски.** По заданному списку посчитайте hitrate@3, precision@3, recall@3, DCG@3 и nDCG@3. Что делать с пользователем, у которого нет релевантных айтемов?
#
# <details><summary>Model answer</summary>
#
# Let six candidates stand, by decreasing score, with relevance $(2,0,3,1,0,0)$. (The numbers are checked in section 4.) Relevant: $m=3$; in the top 3 there are two of them.
#
# hitrate@3 = 1; precision@3 = 2/3; recall@3 = 2/3. Discounts: $1,\ 1/\log_23=0.631,\ 1/2$.
#
# Exponential gain: DCG@3 $=3\cdot1+0+7\cdot\frac12=6.5$; ideal order $(3,2,1)$: IDCG@3 $=7+3\cdot0.631+1\cdot\frac12=9.393$; nDCG@3 $=0.692$. Linear gain: DCG@3 $=2+3\cdot\frac12=3.5$, IDCG@3 $=3+2\cdot0.631+\frac12=4.762$, nDCG@3 $=0.735$.
# The item of relevance 1 at position 4 enters recall and IDCG although it is not shown.
#
# For comparison, a random order would give hitrate $1-\binom33/\binom63=0.95$ (41.15), precision and recall ½ (41.16): the hit says nothing here.
#
# *No relevant item*: hitrate, precision and DCG are 0 by definition, whatever the model does; recall, AP, RR and nDCG are 0/0, undefined. Give NaN, average over the others, report the count. Counting 0 lowers every model's mean by the same
# factor, counting 1 raises it; both make results on different test sets incomparable. Ties in the scores: the expectation over the order of the tied items (41.20).
#
# **Кратко по-русски.** Для $(2,0,3,1,0,0)$: hitrate 1, precision 2/3, recall 2/3; при $g=2^r-1$: DCG = 6,5, IDCG = 9,39, nDCG = 0,69; при $g=r$: 3,5; 4,76; 0,735. Нет релевантных: hitrate, precision, DCG равны 0, а recall, AP, RR и nDCG не определены (0/0) — исключаем таких пользователей из среднего и указываем их число.
#
# **Typical mistake.** IDCG of $(3,2,0)$, the shown items re-sorted, gives nDCG 0.73 instead of 0.692; recall over $k$ instead of over $\lvert L_u\rvert$ goes unnoticed here because both are 3.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 76 · How would you find weights of proxy metrics from degradation experiments?
#
# **По-русски.** Как подобрать веса метрик с помощью ухудшающих экспериментов?
#
# <details><summary>Model answer</summary>
#
# Run experiments that are known to harm the product: random recommendations, popular items only, a stale model, one genre only. In each, measure the change $\Delta_e\in\mathbb R^J$ of the $J$ metrics against control. Ask for weights whose sum falls
# in all of them, $w^\top\Delta_e<0$. As scaling $w$ changes nothing, write $w^\top\Delta_e\le-1$, or bound $\lvert w_j\rvert\le1$ and maximise the margin $\gamma$ with $w^\top\Delta_e\le-\gamma$: a linear programme (41.34). Bring the metrics to one unit first
# (per cent of control, or standard errors), because the bound and the margin depend on units.
#
# Duality (41.35): $\gamma^*=\min_\lambda\lVert\sum_e\lambda_e\Delta_e\rVert_1$ over mixtures, so weights exist exactly if no mixture of damages leaves all metrics unchanged. If there are none, a metric that sees the damage is missing.
#
# Cautions: $\Delta_e$ is measured with noise, so use large groups and a margin of a few standard errors; with $E\le J$ experiments weights exist almost surely and prove nothing, with $E=2J$ still in half of the cases by chance (41.36), so
# take many different damages; validate on damages that were left out.
#
# The alternative is regression of the business metric on the proxies over past experiments (41.33); it needs many experiments with a measurable effect on $M$, and correlated metrics get unstable weights, even of the wrong sign.
#
# **Кратко по-русски.** Проводим заведомо ухудшающие эксперименты (случайные рекомендации, только популярное, устаревшая модель), измеряем изменения метрик $\Delta_e$ и ищем $w$, при которых взвешенная сумма падает в каждом: $w^\top\Delta_e\le-1$ — задача линейного программирования (максимизируем зазор). Весов нет тогда и только тогда, когда
# некоторая смесь ухудшений не меняет ни одной метрики. Экспериментов должно быть заметно больше, чем метрик. Другой путь — регрессия бизнес-метрики на остальные.
#
# **Typical mistake.** To fix the signs in advance ("more diversity is good"): random recommendations raise diversity and coverage. The sign is part of the answer.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# * A training set is a set of triples; the kind of rating decides whether errors, classes or lists are measured. RMSE does not see order, AUC does not see the top, top-$k$ metrics do not see below $k$.
# * nDCG divides by the best possible list of *all* relevant items: the base of the logarithm cancels, the gain does not. State the gain, $k$, the number of candidates and of users without relevant items.
# * Ties are random orders inside a group: precision, recall, AP, RR, hitrate and DCG all have closed forms for that expectation, and a constant score is exactly a random ranking.
# * Random, by-event and leave-one-out splits show the model the future and can elect the wrong one; sampled negatives turn every top-$k$ metric towards AUC.
# * Weights of metrics: regression if the business metric moves, a linear programme over degrading experiments if it does not, with many more experiments than metrics.
#
# References
# * Järvelin, Kekäläinen (2002). [Cumulated gain-based evaluation of IR techniques](https://doi.org/10.1145/582415.582418). ACM TOIS 20(4).
# * Burges et al. (2005). [Learning to rank using gradient descent](https://doi.org/10.1145/1102351.1102363). ICML. (The gain $2^r-1$.)
# * McSherry, Najork (2008). [Computing information retrieval performance measures efficiently in the presence of tied scores](https://doi.org/10.1007/978-3-540-78646-7_38). ECIR.
# * Chapelle, Metzler, Zhang, Grinspan (2009). [Expected reciprocal rank for graded relevance](https://doi.org/10.1145/1645953.1646033). CIKM.
# * Herlocker, Konstan, Terveen, Riedl (2004). [Evaluating collaborative filtering recommender systems](https://doi.org/10.1145/963770.963772). ACM TOIS 22(1).
# * Krichene, Rendle (2020). [On sampled metrics for item recommendation](https://doi.org/10.1145/3394486.3403226). KDD.
# * Ji, Sun, Zhang, Li (2023). [A critical study on data leakage in recommender system offline evaluation](https://doi.org/10.1145/3569930). ACM TOIS 41(3).
# * Wendel (1962). [A problem in geometric probability](https://doi.org/10.7146/math.scand.a-10655). Mathematica Scandinavica 11.
# * Harper, Konstan (2015). [The MovieLens datasets: history and context](https://doi.org/10.1145/2827872). ACM TiiS 5(4).
