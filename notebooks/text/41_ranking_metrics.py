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
# Two recommenders show you the same six films, one with the films you like at the top, the other with them
# at the bottom. Which number says that the first list is better, by how much, and what does that number
# fail to see? Every metric here is defined, computed in batches, proved against an
# independent count, and then fooled on purpose.
#
# **You will be able to**
#
# - turn ratings of any kind into relevance and choose a metric that fits them;
# - compute hitrate, precision, recall, AP, RR, DCG and nDCG by hand and in batches, with ties and with
#   users who like nothing;
# - say what a random list would score, so that "recall 0.2" means something;
# - split data without letting the future into training, and measure what a leak adds;
# - combine several metrics into one number, by regression or from experiments that make the product worse.
#
# **Prerequisites**: probability (expectation, combinations); tensors with leading batch dimensions. How the
# pages work: [00 start here](00_start_here.ipynb).
#
# **Reading** 70 min + exercises 55 min · **Time** 60 s on 2 CPU cores · **Memory** 0.8 GB · **Data** bundled ratings (full run: MovieLens 100K), simulated events · **Exam questions** 14, 15, 75, 76
#
# **Exam route** question 14 → sections 1, 2 (10 min) · question 15 → sections 3, 4, 5, 9 (40 min) ·
# question 75 → sections 5, 6, 7 (30 min) · question 76 → section 11 (20 min)
#
# <details><summary>Notation</summary>
#
# | symbol | in code | shape, unit or range |
# |---|---|---|
# | $R$; $N$; $N_U$; $N_I$ | `ratings` | triples $(u,i,r_{ui})$; their number; number of users; of items |
# | $u,\ i$ | `user`, `item` | a user, an item: ids from 0 |
# | $I_u$, $U_i$ | – | items rated by $u$; users who rated $i$ |
# | $r_{ui}$ | `relevance` | `(…, n)`, rating or relevance; relevant means $r_{ui}>0$ |
# | $a_{ui}$ | `scores` | `(…, n)`, the model's score; $-\infty$: must not be shown |
# | $P,\ S$; $P@p$ | `P`, `S` | precision, recall ($R$ is taken), in $[0,1]$; precision of the first $p$ positions |
# | $\operatorname{up}_i$ | `rank` | rank of a score from the **bottom**, 1 is the lowest |
# | $n,\ k$ | `n`, `k` | candidates of a user; length of the list, $1\le k\le n$ |
# | $p$, $r_{(p)}$ | `position` | position from the **top**, 1 is the best; relevance of the item there |
# | $L_u,\ m$; $R_u(k)$ | `m` | relevant items of the user, their number; the $k$ items shown |
# | $g(r),\ d(p)$ | `gain` | gain of a relevance; discount of a position |
# | $H_k$ | `harmonic` | $1+\frac12+\dots+\frac1k$ |
# | $t,\ c,\ h,\ j$ | `size`, `total`, `before`, `within + 1` | of a group of tied items: its size, its relevant items, the relevant items above it, place inside it |
# | $V_p$ | `miss` | probability that the first $p$ positions hold no relevant item |
# | $Z_u$; $\pi_i$ | `shown`; `popularity` | items viewed before; share of users who know item $i$ |
# | $q_i$; $x_{il}$ | `embeddings`, `features` | `(…, k, dim)`, vectors of the items shown; feature $l$ of item $i$ |
# | $\mathrm{unexp}(b,B),\ C_{B,y}$ | `surprise`, `counts` | unexpectedness of a book $b$ for a reader of the books $B$; books in $B$ by author $y$ |
# | $\tau,\ \ell$ | `time`, `future_share` | time of an event, integer; share of (train, test) pairs that see the future |
# | $w,\ \Delta_e$ | `w`, `deltas` | weights of the metrics; their changes in experiment $e$ |
# | $M$, $f_e$; $\gamma$, $\lambda_e$ | `M`, `f`; `margin` | business metric, proxies; margin, weights of a mixture |
# | $s$ | `s` | sampled opponents |
# | $E$, $J$ | rows, columns of `deltas` | number of experiments; of metrics |
#
# </details>
#
# <!-- navigation -->
# previous: [33 CTC and Jasper](33_ctc_jasper.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [42 Neighbours](42_neighbourhood.ipynb)
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
import math
from collections import Counter
from itertools import permutations, product
from numbers import Integral

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from ipywidgets import Dropdown, IntSlider, SelectionSlider, fixed, interact
from scipy import stats
from scipy.optimize import linprog, minimize_scalar
from scipy.spatial.distance import pdist
from sklearn import metrics as sk
from sklearn.linear_model import LinearRegression
from torch.nn.functional import one_hot, pad

from helpers import measured

PAGE = "41"

# %% tags=["parameters", "hide-input"]
DATA = "bundled"          # or "ml-100k"
DRAWS = 20_000            # Monte Carlo repetitions; fewer would refute too little
SHOP_USERS = 600          # simulated shop
SHOP_ITEMS = 200
SHOP_EVENTS = 20          # events of a user
SHOP_SEEDS = 5            # shops
COST_USERS = 1_000        # timing
COST_ITEMS = 1_000

# %% [markdown]
# ## 1. The idea: what stands where you look
#
# Six films. You would give *Orbit* a 3, *Colony* a 2, *Balcony* a 1 (good enough to watch), and nothing to
# the others. Two recommenders sort the same six films; you look at the first three. What would you count by
# hand to say which list is better?

# %% tags=["hide-input"]
WIDE = {"style": {"description_width": "initial"}, "layout": {"width": "32em"}}
FILMS = {"Orbit": 3.0, "Colony": 2.0, "Kiss": 0.0, "Balcony": 1.0, "Duel": 0.0, "Harbour": 0.0}
LISTS = {"first recommender": ["Colony", "Kiss", "Orbit", "Balcony", "Duel", "Harbour"],
         "second recommender": ["Duel", "Harbour", "Balcony", "Kiss", "Colony", "Orbit"]}


def draw_lists(k=3):
    """The two lists side by side, cut after position k, and what a reader would count."""
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 2.9), sharey=True)
    for ax, (name, films) in zip(axes, LISTS.items()):
        r = [FILMS[film] for film in films]
        seen = ["#1b4f8f" if p < k else "#b9c4d3" for p in range(6)]
        ax.barh(range(1, 7), r, color=seen, height=0.6)
        for p, film in enumerate(films, 1):
            ax.text(0.06 + r[p - 1], p, f"{film} ({r[p - 1]:.0f})", va="center")
        ax.axhline(k + 0.5, ls="--", color="black")
        hits = sum(x > 0 for x in r[:k])
        ax.set(title=f"{name}\n{hits} of {k} shown are liked, {hits} of 3 liked are shown",
               xlabel="relevance $r$", xlim=(0, 4.4))
    axes[0].set(ylabel="position $p$", ylim=(6.6, 0.4))
    plt.show()


draw_lists()

# %% [markdown]
# Both lists contain something you like, so "is there a hit?" cannot tell them apart. Counting hits can: 2
# against 1. And even two hits do not say that *Kiss* stands above *Orbit*, which is your favourite. Each
# metric of this page is one such way of looking, and each is blind to something.
#
# **Predict.** Move the border. At which lengths $k$ do the two lists contain equally many hits?

# %% tags=["nbval-ignore-output"]
interact(draw_lists, k=IntSlider(3, 1, 6, description="length of the list k", **WIDE));

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# Only at $k=6$: then everything is shown, and every set of hits is the same. A count of hits says nothing
# about order, and nothing at all when the whole catalogue is shown.
#
# </details>
#
# The machinery around the list is always the same:

# %% tags=["hide-input"]
scheme({"past": (0, 1, "past ratings", "round"), "model": (1.05, 1, "model"),
        "scores": (2.1, 1, "scores $a_{ui}$\nof $n$ candidates", "round"),
        "list": (3.3, 1, "sort, show\nthe first $k$"),
        "metric": (4.45, 1, "metric", "bold"),
        "future": (3.3, 0, "held-out ratings → relevance $r_{ui}$", "hidden"),
        "mean": (5.5, 1, "mean over users", "plain")},
       [("past", "model"), ("model", "scores"), ("scores", "list"), ("list", "metric"),
        ("future", "metric"), ("metric", "mean")], size=(9.8, 2.2))
plt.show()

# %% [markdown]
# ### Exercise 41.A · Counting hits · ●○○ · 5 min
#
# Before the page does it: from the relevances of one list, best score first, return the share of the first
# $k$ that are relevant, and the share of all relevant items that are among the first $k$. At least one item
# is relevant.

# %%
def count_hits(ranked, k):
    """ranked: list of n relevances, best score first. Returns (precision, recall), two floats."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _set_counts(ranked, k):
    """Both shares by set operations."""
    top, liked = set(range(k)), {p for p, r in enumerate(ranked) if r > 0}
    return len(top & liked) / k, len(top & liked) / len(liked)


exercise("41.A", count_hits, [((x, k), _set_counts(x, k)) for x, k in (
    ([2, 0, 3, 1, 0, 0], 3), ([0, 0, 1, 0, 2, 3], 3), ([1, 1, 0], 1), ([0, 0, 4], 2),
    ([0, 2, 0, 0], 3), ([0.5, 0, 2], 2))],
    mistakes={"relevant is everything above 0, half a star too":
              lambda x, k: _set_counts([r >= 1 for r in x], k),
              "you added up relevances instead of counting relevant items":
              lambda x, k: (sum(x[:k]) / k, sum(x[:k]) / sum(x)),
              "you divided both by k": lambda x, k: (_set_counts(x, k)[0],) * 2,
              "you swapped the two": lambda x, k: _set_counts(x, k)[::-1]})

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Relevant means greater than 0; a 3 is one hit, not three.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The numerators agree, the denominators do not: $k$ and the number of relevant items in the whole list.
#
# </details>
# <details><summary>Solution 41.A</summary>
#
# ```python
# def count_hits(ranked, k):
#     hits, m = sum(r > 0 for r in ranked[:k]), sum(r > 0 for r in ranked)
#     return hits / k, hits / m
# ```
#
# And if nothing is relevant? Zero over zero is undefined, not 0: section 7 says what that does to a mean.
#
# </details>
#
# ## 2. What a recommender learns from
#
# The training set is a set $R$ of triples $(u,i,r_{ui})$: user, item, and the **rating**, the outcome of
# their interaction. A model sees each pair through features $x^{ui}$ (likes the user gave to this author,
# share of similar clips watched to the end, click rate of the item …); $r_{ui}$ is its target. What counts
# as a rating is a choice of the product:
#
# | kind | example | what absence means |
# |---|---|---|
# | real | 7.5 of 10; share of a clip watched | not seen |
# | ordered classes | one to five stars | not seen |
# | binary | like / dislike | not seen, or no opinion |
# | unordered classes | reaction: heart, laugh, anger | not seen |
# | unary (implicit) | click, purchase | unknown: unseen **or** disliked |
#
# A pair has at most one rating, so with $I_u$ the items rated by $u$ and $U_i$ the users who rated $i$,
#
# $$\lvert R\rvert=\sum_u\lvert I_u\rvert=\sum_i\lvert U_i\rvert\le N_UN_I. \tag{41.1}$$

# %%
ratings = data.ratings(DATA).to(device)
matrix = torch.full((ratings.n_users, ratings.n_items), torch.nan, dtype=torch.float64,
                    device=device)
matrix[ratings.user, ratings.item] = ratings.value
rated_by_user = torch.bincount(ratings.user, minlength=ratings.n_users)
rated_by_item = torch.bincount(ratings.item, minlength=ratings.n_items)
observed = ~matrix.isnan()

# %%
# the matrix has one cell per pair: a pair rated twice would be lost in it
check("41.1", "no pair is rated twice", int(observed.sum()), len(ratings))
check("41.1", "rows of the matrix count the users' ratings", observed.sum(1), rated_by_user)
check("41.1", "columns count the items' ratings", observed.sum(0), rated_by_item)

# %% tags=["hide-input"]
fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 2.7))
for name, count in (("items", rated_by_item), ("users", rated_by_user)):
    left.plot(np.linspace(0, 1, len(count)), count.sort(descending=True).values.cpu(),
              label=name)
left.set(xlabel="share of them, most ratings first", ylabel="ratings of each",
         title=f"{observed.double().mean():.1%} of the cells are observed")
left.legend()
stars, number = ratings.value.cpu().unique(return_counts=True)
right.bar(stars, number, width=0.35, color="#8c9db5")
right.set(xlabel="rating, stars", ylabel="ratings", title="their values")
plt.show()

# %% [markdown]
# A ranking metric needs **relevance**, and the kind of rating decides how it is made. Three readings of the
# same data: the stars themselves, "liked" ($r\ge4$), and "rated at all", which is all that an implicit log
# would hold. Classes without an order have to be mapped to numbers by a decision about the product (anger:
# −1? 0? 1?), which no formula can replace.

# %%
readings = {"stars": ratings.value, "liked": (ratings.value >= 4).double(),
            "rated at all": torch.ones(len(ratings), device=device)}
for name, value in readings.items():
    print(f"{name:13s} {value.unique().numel():2d} values, mean {value.mean():.2f}")

# %% [markdown]
# "Rated at all" is constant on the observed cells: a unary rating teaches nothing without the empty ones.
#
# ## 3. Ratings as numbers: MSE, RMSE, MAE
#
# With $N$ held-out ratings and errors $\varepsilon_1..\varepsilon_N$, prediction minus rating,
#
# $$\mathrm{MSE}=\frac1N\sum_j\varepsilon_j^2,\qquad \mathrm{RMSE}=\sqrt{\mathrm{MSE}},\qquad \mathrm{MAE}=\frac1N\sum_j\lvert \varepsilon_j\rvert\le\mathrm{RMSE}. \tag{41.2}$$
#
# The inequality is $(\mathbb E\lvert\varepsilon\rvert)^2\le\mathbb E\varepsilon^2$ (Jensen). RMSE and MAE
# are in stars, MSE in squared stars.
#
# The functions of this page take what people have (lists, numpy arrays, bytes, half precision); four small
# tools for that are folded here.

# %% tags=["hide-input"]
def uniform(*shape, seed):
    """Uniform float64 numbers in [0, 1) of a shape, drawn on the CPU with a seed of their own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).to(device)


def host(x):
    """Tensor -> numpy array on the CPU."""
    return x.detach().cpu().numpy()


def as_tensor(x, like=None):
    """A tensor of x (list, numpy array, tensor), on the device of `like`; nothing is changed."""
    x = x if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x))
    return x.contiguous() if like is None else x.contiguous().to(like.device)


def finite(x, name, like=None):
    """x in float64; ValueError if it holds NaN or infinity."""
    x = as_tensor(x, like).double()
    if not x.isfinite().all():
        raise ValueError(f"{name} must be finite: drop rows with NaN or infinity, or fill them")
    return x

# %%
def rating_errors(r, a):
    """(MSE, RMSE, MAE) of eq. (41.2), float64. r, a: ratings, predictions of one shape.

    ValueError for different shapes, nothing at all, NaN or infinity.
    """
    r, a = as_tensor(r), as_tensor(a)
    if r.shape != a.shape or r.numel() == 0:
        raise ValueError(f"ratings {tuple(r.shape)} and predictions {tuple(a.shape)} must have one "
                         "shape and not be empty")
    error = finite(a, "predictions", r) - finite(r, "ratings")
    mse = (error**2).mean()
    return mse, mse.sqrt(), error.abs().mean()


r_test, a_test = 1 + 4 * uniform(500, seed=1), 1 + 4 * uniform(500, seed=2)
judges = sk.mean_squared_error, sk.root_mean_squared_error, sk.mean_absolute_error
check("41.2", "MSE, RMSE and MAE are scikit-learn's", torch.stack(rating_errors(r_test, a_test)),
      [judge(host(r_test), host(a_test)) for judge in judges], rtol=1e-12)

# %% [markdown]
# **What they ask a model to predict.** Take a film with ratings $r_1..r_N$ and one prediction $a$ for all.
# Then
#
# $$\arg\min_a\sum_j(r_j-a)^2=\bar r,\qquad \arg\min_a\sum_j\lvert r_j-a\rvert\ni\operatorname{median}(r). \tag{41.3}$$
#
# The derivative of the left sum is $2\sum_j(a-r_j)$, zero at the mean. The slope of the right one is (number
# of $r_j<a$) − (number of $r_j>a$): negative on the left, positive on the right. For odd $N$ it changes its
# sign at the middle rating; for even $N$ it is zero on the whole interval between the two middle ones.
# **Predict**: nine people, four ones and five fives. What will each of the two demand?

# %%
divided = torch.tensor([1.0, 1, 1, 1, 5, 5, 5, 5, 5], dtype=torch.float64)
guess = np.linspace(0.5, 5.5, 501)
distance = np.abs(host(divided)[:, None] - guess)
best = {power: minimize_scalar(lambda a, power=power: float(((divided - a).abs() ** power).sum()),
                               bounds=(0, 6), method="bounded", options={"xatol": 1e-9}).x
        for power in (1, 2)}

# %%
check("41.3", "the mean minimises MSE", float(divided.mean()), best[2], atol=1e-5)
check("41.3", "the median minimises MAE", float(divided.median()), best[1], atol=1e-5)
even = [np.abs(np.array([1, 2, 4, 5]) - a).sum() for a in (2, 2.7, 4, 1.9, 4.1)]
check("41.3", "for even N every point between the middle two does, and none beside them", even,
      [6, 6, 6, 6.2, 6.2], atol=1e-12)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.2, 2.6))
for ax, name, error, unit in ((axes[0], "MSE", (distance**2).mean(0), "stars²"),
                              (axes[1], "MAE", distance.mean(0), "stars")):
    ax.plot(guess, error, "-", guess[error.argmin()], error.min(), "ko")
    ax.set(xlabel="one prediction $a$ for all nine, stars", ylabel=f"{name}, {unit}",
           title=f"{name} is smallest at a = {guess[error.argmin()]:.2f}")
plt.show()

# %% [markdown]
# A film that divides its audience gets a rating that nobody gave from MSE, and the rating of the middle
# person from MAE: if one of the five changes sides, it jumps from 5 to 1.
#
# The blind spot of both: a list depends on the *order* of the predictions only. Model A is one star too
# high everywhere, so its list is perfect; model B has an RMSE almost three times smaller and still puts the
# wrong film first.

# %%
best_first = torch.tensor([5.0, 4, 3, 2, 1])
model_a, model_b = best_first + 1, torch.tensor([4.5, 4.6, 3.0, 2.0, 1.0])
for name, model in (("A", model_a), ("B", model_b)):
    print(f"{name}: RMSE {rating_errors(best_first, model)[1]:.2f}, "
          f"puts the film with {best_first[model.argmax()]:.0f} stars first")

# %% [markdown]
# ## 4. Ratings as classes: precision, recall, F, ROC AUC
#
# Call an item positive if it is relevant, and recommend those above a threshold. With $TP$, $FP$, $FN$ the
# counts of true positives, false positives and false negatives, precision is $P=TP/(TP+FP)$, recall
# $S=TP/(TP+FN)$, and
#
# $$F_\beta=\frac{(1+\beta^2)PS}{\beta^2P+S}=\frac{(1+\beta^2)\,TP}{(1+\beta^2)\,TP+FP+\beta^2FN}. \tag{41.4}$$
#
# The right form follows by inserting $P$ and $S$ and multiplying by $(TP+FP)(TP+FN)/TP$; it is also defined
# when $TP=0$. With $\beta=1$ it is $F_1=2PS/(P+S)$, the harmonic mean. What $\beta$ means: at $S=\beta P$ a
# small gain of recall is worth as much as the same gain of precision (van Rijsbergen),
#
# $$\frac{\partial F_\beta}{\partial P}=\frac{(1+\beta^2)S^2}{(\beta^2P+S)^2},\quad \frac{\partial F_\beta}{\partial S}=\frac{(1+\beta^2)\beta^2P^2}{(\beta^2P+S)^2} \ \Rightarrow\ \text{equal iff } S=\beta P. \tag{41.5}$$

# %%
def f_beta(tp, fp, fn, beta=1.0):
    """F_beta of eq. (41.4) from counts (of one shape), float64; NaN where all three are 0.

    ValueError for a beta that is not positive, counts that are negative or not finite.
    """
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be a positive number, got {beta}")
    tp, fp, fn = (finite(x, "counts") for x in (tp, fp, fn))
    if not tp.shape == fp.shape == fn.shape:
        raise ValueError(f"counts of one shape, got {tuple(tp.shape)}, {tuple(fp.shape)}, "
                         f"{tuple(fn.shape)}")
    if min(x.min() if x.numel() else 0 for x in (tp, fp, fn)) < 0:
        raise ValueError("counts must not be negative: give numbers of items, not differences")
    weighted = (1 + beta**2) * tp
    return weighted / (weighted + fp + beta**2 * fn)

# %%
chosen, liked = uniform(200, seed=3) > 0.6, uniform(200, seed=4) > 0.7
tp, fp, fn = (chosen & liked).sum(), (chosen & ~liked).sum(), (~chosen & liked).sum()
P, S = tp / (tp + fp), tp / (tp + fn)
for beta in (0.5, 1.0, 2.0):
    both = [f_beta(tp, fp, fn, beta), (1 + beta**2) * P * S / (beta**2 * P + S)]
    check("41.4", f"F of beta = {beta}: both forms are scikit-learn's", both,
          [sk.fbeta_score(host(liked), host(chosen), beta=beta)] * 2, atol=1e-6)

# %%
check("41.4", "the default is F1", f_beta(tp, fp, fn), sk.f1_score(host(liked), host(chosen)),
      atol=1e-12)

# %%
P_S = torch.tensor([[0.4, 0.3, 0.7], [0.8, 0.5, 0.2]], dtype=torch.float64, requires_grad=True)
slopes = torch.autograd.grad((5 * P_S[0] * P_S[1] / (4 * P_S[0] + P_S[1])).sum(), P_S)[0]
by_formula = 5 / (4 * P_S[0] + P_S[1]) ** 2 * torch.stack([P_S[1] ** 2, 4 * P_S[0] ** 2])
check("41.5", "beta = 2, by autograd at three points: the slopes are those of the formula",
      by_formula.detach(), slopes, atol=1e-12)
check("41.5", "they are equal at S = 2P, and not at the two other points",
      (slopes[0] - slopes[1]).abs() < 1e-12, [True, False, False])

# %% [markdown]
# **ROC AUC** needs no threshold. It is the chance that a relevant item beats an irrelevant one, a tie
# counting half:
#
# $$\mathrm{AUC}=\Pr(a^+>a^-)+\tfrac12\Pr(a^+=a^-)=\frac{1}{m(n-m)}\sum_{i\in L}\sum_{j\notin L}\Big([a_i>a_j]+\tfrac12[a_i=a_j]\Big). \tag{41.6}$$
#
# The brackets are Iverson's: 1 if the statement is true, 0 if not.
#
# ### Exercise 41.B · AUC as a tournament · ●○○ · 6 min
#
# Let every relevant item play against every irrelevant one. Return the share of points won.

# %%
def tournament(relevance, scores):
    """relevance, scores: lists of n numbers, with both kinds of item. Returns a float."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def pairs_won(relevance, scores, tie=0.5, everybody=False):
    """Share of points over pairs; `tie`: points for an equal score."""
    duels = [(a > b) + tie * (a == b) for a, r in zip(scores, relevance) if r > 0
             for b, s in zip(scores, relevance) if s <= 0 or everybody]
    return sum(duels) / len(duels)


matches = [([1, 0, 0, 2, 0], [5, 4, 3, 2, 1]), ([1, 0, 0, 1], [2, 2, 1, 0]), ([0, 3], [1, 1]),
           ([0, 0, 1], [3, 2, 1])]
exercise("41.B", tournament, [(x, sk.roc_auc_score(np.array(x[0]) > 0, x[1])) for x in matches],
         mistakes={"you gave nothing for a tie": lambda r, a: pairs_won(r, a, 0),
                   "you gave a full point for a tie": lambda r, a: pairs_won(r, a, 1),
                   "you let relevant items play against each other, too":
                   lambda r, a: pairs_won(r, a, everybody=True)})

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two loops: over the relevant, over the irrelevant items.
#
# </details>
# <details><summary>Hint 2</summary>
#
# A duel is worth `(a > b) + 0.5 * (a == b)`.
#
# </details>
# <details><summary>Solution 41.B</summary>
#
# ```python
# def tournament(relevance, scores):
#     good = [a for r, a in zip(relevance, scores) if r > 0]
#     bad = [a for r, a in zip(relevance, scores) if r <= 0]
#     points = sum((a > b) + 0.5 * (a == b) for a in good for b in bad)
#     return points / (len(good) * len(bad))
# ```
#
# The judge is scikit-learn's `roc_auc_score`.
#
# </details>
#
# All pairs cost $m(n-m)$. Ranks are cheaper. Let $\operatorname{up}_i$ be the rank of item $i$ from the
# **bottom** (1 is the lowest score, tied items get the mean of their ranks). Then
# $\operatorname{up}_i-\frac12=\#\{j:a_j<a_i\}+\frac12\#\{j:a_j=a_i\}$, the item itself included. Summed
# over $i\in L$ and split into opponents in $L$ and not in $L$, the part inside $L$ is $m^2/2$, because each
# of the $m^2$ ordered pairs counts with its reverse as one. Hence
#
# $$\mathrm{AUC}=\frac{\sum_{i\in L}\operatorname{up}_i-\frac12m(m+1)}{m(n-m)}. \tag{41.7}$$
#
# One gate for input, which all metrics share. A score of $-\infty$ means that the item **must not be
# shown** (seen before, out of stock): it can never be a hit and is no opponent; if it is relevant, the list
# has missed it. A NaN is refused.

# %%
def ranking_inputs(relevance, scores, k):
    """Checked relevance (…, n) and scores (…, n), floating; ValueError says what to change."""
    scores = as_tensor(scores)
    relevance = as_tensor(relevance, scores)
    if relevance.shape != scores.shape or scores.ndim == 0 or scores.shape[-1] == 0:
        raise ValueError(f"relevance {tuple(relevance.shape)} and scores {tuple(scores.shape)} "
                         "must have one and the same shape (…, n) with at least one item")
    n = scores.shape[-1]
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k <= n:
        raise ValueError(f"k must be an integer from 1 to the number n = {n} of items, got {k!r}")
    if scores.isnan().any():
        raise ValueError("scores contain NaN: give -inf to items that must not be shown")
    if not relevance.isfinite().all():
        raise ValueError("relevance must be finite: give 0 to items without a known rating")
    if not scores.is_floating_point():
        whole = scores.long()               # compared as integers: 2**53 + 1 is no float
        if (whole > 2**53).any() or (whole < -2**53).any():
            raise ValueError("integer scores beyond 2**53 would be tied: give their ranks instead")
        return relevance.double(), scores.double()
    return relevance.double(), scores.float() if scores.itemsize == 2 else scores

# %%
def roc_auc(relevance, scores):
    """Per-user AUC, eq. (41.7). (…, n) twice -> (…,); NaN unless both kinds of item are there.

    Items at -inf: an irrelevant one is no opponent, a relevant one wins nothing.
    """
    relevance, scores = ranking_inputs(relevance, scores, 1)
    hidden, relevant = scores == -math.inf, (relevance > 0).double()
    up = scores.sort(-1).values
    below, upto = torch.searchsorted(up, scores), torch.searchsorted(up, scores, right=True)
    rank = (below + upto + 1) / 2 - hidden.sum(-1, keepdim=True)  # among the items shown
    found = relevant * ~hidden
    m = found.sum(-1)
    wins = (rank * found).sum(-1) - m * (m + 1) / 2
    opponents = ((relevance <= 0) & ~hidden).sum(-1)
    return (wins / (relevant.sum(-1) * opponents)).to(scores.dtype)

# %%
check("41.7", "at -inf: no opponent, and a relevant one wins nothing",
      roc_auc([1, 0, 0, 1, 0], [3.0, 4, 2, -math.inf, -math.inf]), 1 / 4)
rel = (uniform(7, 30, seed=5) > 0.7).double()
sc = (8 * uniform(7, 30, seed=6)).floor()  # few values, so many ties
rows = list(zip(host(rel), host(sc)))
by_pairs = [pairs_won(*row) for row in rows]

# %%
check("41.6", "pairs: scikit-learn's AUC", by_pairs, [sk.roc_auc_score(*r) for r in rows],
      atol=1e-12)
check("41.7", "the rank formula is the Mann–Whitney U over m(n − m)", roc_auc(rel, sc),
      [stats.mannwhitneyu(s[r > 0], s[r == 0]).statistic / ((r > 0).sum() * (r == 0).sum())
       for r, s in rows], atol=1e-12)
fpr, tpr, _ = sk.roc_curve(*rows[0], drop_intermediate=False)
check("41.6", "area under the ROC curve by trapezoids", sk.auc(fpr, tpr), by_pairs[0], atol=1e-12)

# %%
fig, ax = plt.subplots(figsize=(4.4, 3.2))
ax.plot(fpr, tpr, marker="o", label=f"eight scores, AUC {by_pairs[0]:.2f}")
ax.plot([0, 1], [0, 1], color="grey", label="on average at random: 0.50")
ax.set(xlabel="share of irrelevant items above", ylabel="share of relevant items above")
ax.legend()
plt.show()

# %% [markdown]
# The name comes from a curve: lower the threshold and plot the share of relevant items above it against
# the share of irrelevant ones. Each irrelevant item adds a column whose height is the share of relevant
# items above it, so the area is the share of pairs in the right order. Tied items pass the threshold
# together: a slanted step, under which half of their pairs lie (the scores here are random numbers with
# eight values). AUC weighs all $n$ positions alike, although the user sees the first $k$: section 8 returns
# to this.
#
# ## 5. Lists: what stands at the top
#
# Sort the candidates by **decreasing** score and show the first $k$: the set $R_u(k)$. With $L_u$ the
# relevant items,
#
# $$\mathrm{hitrate@}k=[R_u(k)\cap L_u\ne\varnothing], \tag{41.8}$$
# $$\mathrm{precision@}k=\frac{\lvert R_u(k)\cap L_u\rvert}{k},\qquad \mathrm{recall@}k=\frac{\lvert R_u(k)\cap L_u\rvert}{\lvert L_u\rvert}. \tag{41.9}$$
#
# Relevant is every item with $r>0$: stars need a threshold first (section 2), or a single star counts as a
# hit. None of the three looks at the order inside the list. These do:
#
# $$\mathrm{AP@}k=\frac1{\min(k,m)}\sum_{p=1}^k[r_{(p)}>0]\,P@p,\qquad \mathrm{RR@}k=\max_{p\le k}\frac{[r_{(p)}>0]}{p}. \tag{41.10}$$
#
# AP averages the precision at the positions of the relevant items: for $k=n$ the area under the
# precision–recall steps. RR is one over the position of the first relevant item. Their means over users are
# MAP and MRR. (Some divide AP by $m$ even if $k<m$; then no list of length $k$ can reach 1.)
#
# First as a reader would count, on one list of relevances from the top down.

# %%
def hitrate_loop(ranked, k):
    """Eq. (41.8) for one list. ranked: relevance of each item, best score first."""
    return float(any(r > 0 for r in ranked[:k]))


def precision_loop(ranked, k):
    """Precision, eq. (41.9), for one list."""
    return sum(r > 0 for r in ranked[:k]) / k


def recall_loop(ranked, k):
    """Recall, eq. (41.9), for one list; NaN if nothing is relevant."""
    m = sum(r > 0 for r in ranked)
    return sum(r > 0 for r in ranked[:k]) / m if m else math.nan

# %%
def average_precision_loop(ranked, k):
    """AP@k of eq. (41.10) for one list; NaN if nothing is relevant."""
    m = sum(r > 0 for r in ranked)
    found = [precision_loop(ranked, p) for p in range(1, k + 1) if ranked[p - 1] > 0]
    return sum(found) / min(k, m) if m else math.nan


def reciprocal_rank_loop(ranked, k):
    """RR@k of eq. (41.10): 0 if the first relevant item is below k; NaN if nothing is relevant."""
    first = next((p for p, r in enumerate(ranked, 1) if r > 0), None)
    return math.nan if first is None else 1 / first if first <= k else 0.0

# %% tags=["hide-input"]
# judges: set operations, and for AP scikit-learn's average precision (the same when k = n, no ties)
rel, sc = (4 * uniform(60, 12, seed=7) ** 3).round(), uniform(60, 12, seed=8)  # no ties
rel[:, 0] = 1  # everybody likes something
order = sc.argsort(-1, descending=True)
lists = rel.gather(-1, order).tolist()
shown = [set(row[:4]) for row in order.tolist()]
liked = [set(np.flatnonzero(row)) for row in host(rel)]
hits = [len(top & good) for top, good in zip(shown, liked)]


def each(metric, *arguments):
    """A list metric for each of the 60 lists."""
    return [metric(x, *arguments) for x in lists]

# %%
check("41.8", "hitrate@4 by sets", each(hitrate_loop, 4), [float(h > 0) for h in hits])
check("41.9", "precision@4 by sets", each(precision_loop, 4), [h / 4 for h in hits])
check("41.9", "recall@4 by sets", each(recall_loop, 4),
      [h / len(good) for h, good in zip(hits, liked)])

# %%
check("41.10", "AP@n is scikit-learn's average precision", each(average_precision_loop, 12),
      [sk.average_precision_score(*row) for row in zip(host(rel > 0), host(sc))], atol=1e-12)
single = [[float(p == q) for q in range(12)] for p in range(12)]  # one relevant item, at p
check("41.10", "RR is the inverse position of a single item",
      [reciprocal_rank_loop(x, 12) for x in single], 1 / np.arange(1, 13))

# %% [markdown]
# **Graded relevance: DCG.** Each item contributes a gain, discounted by its position:
#
# $$\mathrm{DCG@}k=\sum_{p=1}^kg(r_{(p)})\,d(p),\qquad d(p)=\frac1{\log_2(p+1)},\qquad g(r)=2^r-1\ \text{ or }\ g(r)=r. \tag{41.11}$$
#
# For binary relevance both gains agree ($2^1-1=1$). With stars the exponential gain makes a 5 worth 31 and
# a 4 worth 15.

# %% tags=["hide-input"]
fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 2.7))
place = np.arange(1, 21)
left.plot(place, 1 / np.log2(place + 1), "o-", ms=3.5, label="DCG: $1/\\log_2(p+1)$")
left.plot(place, 1 / place, "s--", ms=3.5, label="RR: $1/p$")
left.step(place, place <= 10, where="mid", color="grey", label="precision@10: in or out")
left.set(xlabel="position $p$", ylabel="weight", title="what a position is worth")
left.legend(loc="center right", frameon=True, edgecolor="none", framealpha=1)
grade = np.arange(6)
right.plot(grade, (2.0**grade - 1) / 31, "o-", label="$2^r-1$")
right.plot(grade, grade / 5, "s--", label="$r$")
right.plot(grade, grade > 0, "^", label="$[r>0]$")
right.set(xlabel="relevance $r$", ylabel="gain, share of that of 5", title="what a grade is worth")
right.legend()
plt.show()

# %% [markdown]
# **The best list.** Suppose two items with gains $g_i<g_j$ stand at positions $p<p'$ in the wrong order,
# $i$ above $j$. Exchanging them changes DCG by
#
# $$(g_j-g_i)\big(d(p)-d(p')\big)>0\qquad\text{as } d(p)>d(p'), \tag{41.12}$$
#
# so as long as any pair is in the wrong order the list can be improved: DCG is maximal when the items stand
# by decreasing *true* relevance. (If only one of them lies in the top $k$, put $d(p')=0$; if neither does,
# nothing changes.) That maximum is the ideal DCG, and
#
# $$\mathrm{nDCG@}k=\frac{\mathrm{DCG@}k}{\mathrm{IDCG@}k},\qquad \mathrm{IDCG@}k=\max_{\text{orders}}\mathrm{DCG@}k=\sum_{p=1}^kg(r^\downarrow_p)\,d(p), \tag{41.13}$$
#
# where $r^\downarrow$ is **all** of the user's relevance in decreasing order, not only what the list shows.
#
# ### Exercise 41.C · nDCG of one user · ●●○ · 8 min
#
# Write nDCG@k with the gain $2^r-1$: relevance and scores (no ties) of all candidates.

# %%
def my_ndcg(relevance, scores, k):
    """relevance, scores: lists of n numbers. Returns a float."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _wrong_ndcg(relevance, scores, k, gain=lambda r: 2**r - 1, down=True, own=False, shift=1):
    """nDCG with one famous slip."""
    def dcg(x):
        return sum(gain(r) / math.log2(p + shift) for p, r in enumerate(x[:k], 1))
    ranked = [r for _, r in sorted(zip(scores, relevance), reverse=down)]
    return dcg(ranked) / dcg(sorted(ranked[:k] if own else relevance, reverse=True))


four = [([3, 0, 2, 1], [0.9, 0.8, 0.3, 0.1], 4), ([0, 1, 4, 0, 2], [5, 4, 1, 3, 2], 2),
        ([1, 0, 3], [3, 2, 1], 1), ([2, 2, 0, 5, 1], [0.1, 0.5, 0.4, 0.3, 0.2], 3)]
exercise("41.C", my_ndcg, [((r, a, k), sk.ndcg_score([2.0 ** np.array(r) - 1], [a], k=k))
                           for r, a, k in four], mistakes={
    "your ideal list holds only the items shown": lambda *x: _wrong_ndcg(*x, own=True),
    "you sorted by increasing score": lambda *x: _wrong_ndcg(*x, down=False),
    "your positions start at 0, and log2(1) = 0": lambda *x: _wrong_ndcg(*x, shift=0),
    "you used the linear gain": lambda *x: _wrong_ndcg(*x, gain=float),
    "your discount is one position off, log2(p + 2)": lambda *x: _wrong_ndcg(*x, shift=2)})

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write DCG of a list of relevances first, then call it twice.
#
# </details>
# <details><summary>Hint 2</summary>
#
# The ideal list is made of *all* candidates, also those your list does not show.
#
# </details>
# <details><summary>Hint 3</summary>
#
# `ranked = [r for _, r in sorted(zip(scores, relevance), reverse=True)]`
#
# </details>
# <details><summary>Solution 41.C</summary>
#
# ```python
# def my_ndcg(relevance, scores, k):
#     import math
#     def dcg(x):
#         return sum((2**r - 1) / math.log2(p + 1) for p, r in enumerate(x[:k], 1))
#     ranked = [r for _, r in sorted(zip(scores, relevance), reverse=True)]
#     return dcg(ranked) / dcg(sorted(relevance, reverse=True))
# ```
#
# With an ideal made of the shown items, any list sorted well inside itself would get 1.
#
# </details>

# %%
def gain_of(r, gain):
    """2^r - 1 for "exp", r for "linear", else ValueError; r a number."""
    if gain not in ("exp", "linear"):
        raise ValueError(f'gain is "exp" (2^r - 1) or "linear" (r), got {gain!r}')
    return 2**r - 1 if gain == "exp" else r


def dcg_loop(ranked, k, gain="exp"):
    """DCG@k of eq. (41.11) for one list."""
    return sum(gain_of(r, gain) / math.log2(p + 1) for p, r in enumerate(ranked[:k], 1))


def ndcg_loop(ranked, k, gain="exp"):
    """nDCG@k of eq. (41.13) for one list; NaN if nothing is relevant."""
    ideal = dcg_loop(sorted(ranked, reverse=True), k, gain)
    return dcg_loop(ranked, k, gain) / ideal if ideal else math.nan

# %%
grades, values = host(rel), host(sc)
GAINS = {"linear": grades, "exp": 2**grades - 1}  # scikit-learn knows g(r) = r: feed it 2^r - 1
check("41.11", "DCG@5 with both gains is scikit-learn's mean",
      [np.mean(each(dcg_loop, 5, gain)) for gain in GAINS],
      [sk.dcg_score(fed, values, k=5) for fed in GAINS.values()], rtol=1e-12)
check("41.13", "nDCG@5 as well", [np.mean(each(ndcg_loop, 5, gain)) for gain in GAINS],
      [sk.ndcg_score(fed, values, k=5) for fed in GAINS.values()], rtol=1e-12)

# %% [markdown]
# **By hand**, the first recommender's list of section 1, $r=(2,0,3,1,0,0)$ at $k=3$. DCG is $3+0+7/2$ with
# the exponential gain and $2+0+3/2$ with the linear one; the ideal list starts $(3,2,1)$. (Checked
# below, and with it the exchange argument: brute force over all 720 orders of a list of six.)
#
# **What the base of the logarithm does.** $\log_\nu x=\log_2x/\log_2\nu$, so every discount is multiplied
# by $\log_2\nu$ and with it DCG and IDCG:
#
# $$\mathrm{DCG}^{\text{base }\nu}=\log_2\nu\cdot\mathrm{DCG}^{\text{base }2},\qquad \mathrm{nDCG}^{\text{base }\nu}=\mathrm{nDCG}^{\text{base }2}. \tag{41.14}$$
#
# The gain is not a common factor: it changes nDCG, and can change which of two lists is better.

# %%
by_hand = [2, 0, 3, 1, 0, 0]
check("41.9", "hitrate 1, precision 2/3, recall 2/3",
      [f(by_hand, 3) for f in (hitrate_loop, precision_loop, recall_loop)], [1, 2 / 3, 2 / 3])
check("41.10", "AP (1 + 2/3) / 3", average_precision_loop(by_hand, 3), 5 / 9, atol=1e-12)
check("41.11", "DCG 6.5 with the exponential gain, 3.5 with the linear one",
      [dcg_loop(by_hand, 3, gain) for gain in ("exp", "linear")], [6.5, 3.5])
check("41.13", "nDCG .692 and .735", [ndcg_loop(by_hand, 3, gain) for gain in ("exp", "linear")],
      [0.692, 0.735], atol=5e-4)
graded = [3, 0, 2, 0, 1, 2]
all_orders = list(permutations(graded))
swapped = [2, 0, 3, 0, 1, 2]  # a 2 above the 3
check("41.12", "undoing a wrong order gains (g_j - g_i)(d(p) - d(p'))",
      dcg_loop(graded, 6) - dcg_loop(swapped, 6), (7 - 3) * (1 - 1 / 2), atol=1e-12)

# %%
brought = [3, 2, 2, 0, 1, 0]  # the 2 from below k = 3 for the 0 at position 2
check("41.12", "an item from below k: d(p') = 0",
      dcg_loop(brought, 3) - dcg_loop(graded, 3), (3 - 0) / math.log2(3), atol=1e-12)
check("41.13", "at every k the best of all orders is the sorted one",
      [dcg_loop(sorted(graded)[::-1], k) for k in range(1, 7)],
      [max(dcg_loop(x, k) for x in all_orders) for k in range(1, 7)])

# %%
natural = sk.dcg_score(grades, values, k=5, log_base=math.e)
check("41.14", "natural logs multiply DCG by log2(e)",
      np.mean(each(dcg_loop, 5, "linear")) * math.log2(math.e), natural, rtol=1e-12)

# %%
top, ideal = (sk.dcg_score(grades[:1], by, k=5, log_base=math.e) for by in (values[:1], grades[:1]))
check("41.14", "nDCG does not notice", ndcg_loop(lists[0], 5, "linear"), top / ideal, rtol=1e-12)
for gain in ("exp", "linear"):                              # one user: 3, 2, 2, 1, 0, 0
    print(f"{gain:6s} gain: (3, 0, 0, 1) has DCG@4 {dcg_loop([3, 0, 0, 1], 4, gain):.2f}, "
          f"(2, 2, 1, 0) has {dcg_loop([2, 2, 1, 0], 4, gain):.2f}")

# %% [markdown]
# ## 6. What a random list scores
#
# A metric means nothing without its value for a random order. Let all $n!$ orders be equally likely, $m$
# items relevant. **Predict**: 100 candidates, 5 relevant. How often does a random list of ten contain a
# hit?
#
# **Hitrate.** The top $k$ is a random subset of size $k$; it misses if it lies among the $n-m$ irrelevant
# items:
#
# $$\mathbb E\,\mathrm{hitrate@}k=1-\binom{n-m}k\Big/\binom nk. \tag{41.15}$$
#
# **Precision and recall.** Any position holds a relevant item with probability $m/n$, so $k$ positions hold
# $km/n$ on average:
#
# $$\mathbb E\,\mathrm{precision@}k=\frac mn,\qquad \mathbb E\,\mathrm{recall@}k=\frac kn. \tag{41.16}$$
#
# **RR.** The first relevant item stands at $p$ if $p$ is relevant and the other $m-1$ are among the $n-p$
# positions below:
#
# $$\mathbb E\,\mathrm{RR@}k=\sum_{p=1}^k\frac1p\binom{n-p}{m-1}\Big/\binom nm. \tag{41.17}$$
#
# **AP.** Position $p$ is relevant with probability $\frac mn$; given that, each of the $p-1$ above is
# relevant with probability $\frac{m-1}{n-1}$, so the precision at $p$ is on average
# $\frac1p\big(1+(p-1)\frac{m-1}{n-1}\big)$. With $H_k=\sum_{p\le k}\frac1p$,
#
# $$\mathbb E\,\mathrm{AP@}k=\frac{m}{n\min(k,m)}\Big[H_k+\frac{m-1}{n-1}(k-H_k)\Big]. \tag{41.18}$$
#
# **DCG.** Every position holds the mean gain $\bar g=\frac1n\sum_ig(r_i)$ on average, and IDCG is fixed:
#
# $$\mathbb E\,\mathrm{DCG@}k=\bar g\sum_{p=1}^kd(p),\qquad \mathbb E\,\mathrm{nDCG@}k=\frac{\mathbb E\,\mathrm{DCG@}k}{\mathrm{IDCG@}k}. \tag{41.19}$$
#
# AUC is ½: a pair is as likely to stand one way as the other.

# %%
def pool(n, m, k):
    """Refuse counts that fit no list: 1 <= m <= n relevant items, 1 <= k <= n shown."""
    if not (1 <= m <= n and 1 <= k <= n):
        raise ValueError(f"need 1 <= m <= n and 1 <= k <= n, got n = {n}, m = {m}, k = {k}")


def random_hitrate(n, m, k):
    """Expected hitrate@k of a random order, eq. (41.15); n candidates, m relevant."""
    pool(n, m, k)
    return 1 - math.comb(n - m, k) / math.comb(n, k)


def random_reciprocal_rank(n, m, k):
    """Expected RR@k of a random order, eq. (41.17)."""
    pool(n, m, k)
    return sum(math.comb(n - p, m - 1) / p for p in range(1, k + 1)) / math.comb(n, m)

# %%
def random_average_precision(n, m, k):
    """Expected AP@k of a random order, eq. (41.18)."""
    pool(n, m, k)
    harmonic = sum(1 / p for p in range(1, k + 1))
    return m / (n * min(k, m)) * (harmonic + (m - 1) / max(n - 1, 1) * (k - harmonic))


def random_dcg(relevances, k, gain="exp"):
    """Expected DCG@k of a random order, eq. (41.19). relevances: list of n numbers."""
    pool(len(relevances), 1, k)
    mean_gain = sum(gain_of(r, gain) for r in relevances) / len(relevances)
    return mean_gain * sum(1 / math.log2(p + 1) for p in range(1, k + 1))

# %%
def over_all_orders(metric, *arguments):
    """Mean of a list metric over all 720 orders of `graded`, for k = 1..6."""
    return [np.mean([metric(x, k, *arguments) for x in all_orders]) for k in ks]


ks = range(1, 7)  # the mean over all 720 orders (m = 4) is exact
check("41.15", "hitrate, all orders", [random_hitrate(6, 4, k) for k in ks],
      over_all_orders(hitrate_loop), atol=1e-12)
check("41.16", "precision is m/n", [4 / 6] * 6, over_all_orders(precision_loop), atol=1e-12)
check("41.16", "recall is k/n", [k / 6 for k in ks], over_all_orders(recall_loop), atol=1e-12)
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

# %%
def draw_baselines(m=5, k=10):
    """Expected value of a random order against the number of candidates, m relevant, top k."""
    n_pool = [20, 50, 100, 200, 500, 1000, 2000]
    lines = {"hitrate": [random_hitrate(n, m, k) for n in n_pool],
             "RR": [random_reciprocal_rank(n, m, k) for n in n_pool],
             "recall": [k / n for n in n_pool], "precision": [m / n for n in n_pool],
             "AP": [random_average_precision(n, m, k) for n in n_pool]}
    fig, ax = plt.subplots(figsize=(6.4, 3.2))
    for (name, values), marker in zip(lines.items(), "osd^v"):
        ax.loglog(n_pool, values, marker=marker, label=f"{name}@{k}")
    ax.set(xlabel="candidates $n$", ylabel="expected at random", ylim=(3e-4, 1.3),
           title=f"{m} relevant; a hit among 100 candidates: {lines['hitrate'][2]:.0%}")
    ax.legend(ncols=2)
    plt.show()


draw_baselines()

# %% tags=["nbval-ignore-output"]
interact(draw_baselines, m=IntSlider(5, 1, 20, description="relevant items m", **WIDE),
         k=IntSlider(10, 1, 20, description="length of the list k", **WIDE));

# %% [markdown]
# With 5 of 100 relevant, four in ten random lists hold a hit. The pool decides: numbers from pools of
# different size cannot be compared.
#
# ## 7. Ties, empty users, and a million scores
#
# **Ties.** A popularity model gives hundreds of items the same score; an untrained one gives it to all.
# "The first $k$" then depends on how the sort breaks ties, in practice on the order of the rows in a table.
# If the relevant items happen to come first, a constant score looks perfect:

# %%
lucky, unlucky = [1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1]  # one user, two row orders
print("nDCG@3 of a constant score, stable sort:", ndcg_loop(lucky, 3), "or", ndcg_loop(unlucky, 3))
print("its honest value:", round(random_dcg(lucky, 3) / dcg_loop(lucky, 3), 3))

# %% [markdown]
# The honest value is the **expectation over random orders of the tied items**. Inside a tied group of size
# $t$ with $c$ relevant items every order is equally likely, so section 6 applies inside the group. Let
# position $p$ be the $j$-th place of its group and $h$ the number of relevant items in better groups. Then
#
# $$\mathbb E\,g(r_{(p)})=\frac1t\sum_{i\in\text{group}}g(r_i), \tag{41.20}$$
# $$\mathbb E\big([r_{(p)}>0]\,P@p\big)=\frac ct\cdot\frac1p\Big(h+1+(j-1)\frac{c-1}{t-1}\Big), \tag{41.21}$$
#
# the second for the reason that gave eq. (41.18), with $h$ sure hits ahead. For the first hit, go down the
# list. If no hit has come so far, the $t-(j-1)$ items of the group that are left contain all $c$ relevant
# ones, so the next is one with probability $c/(t-j+1)$. The chance $V_p$ that the first $p$ positions hold
# no hit is a product over the positions $o\le p$:
#
# $$V_p=\prod_{o\le p}\Big(1-\frac{c_o}{t_o-j_o+1}\Big),\quad \mathbb E\,\mathrm{hitrate@}k=1-V_k,\quad \mathbb E\,\mathrm{RR@}k=\sum_{p=1}^k\frac{V_{p-1}-V_p}{p}. \tag{41.22}$$
#
# A group with $c>0$ that is used up contains a factor 0, so later groups contribute nothing. Without ties
# ($t=1$; the last term of (41.21) is then 0) all of it is the plain definition.
#
# One function finds the groups. It sorts the top $k$ only; just the last group can go on below $k$, so that
# one is counted over all $n$ items. Places filled by items at $-\infty$ stay empty: no gain. After it every
# metric is a few lines; 0/0 is NaN, the honest answer. Hitrate and RR share the $V_p$ of (41.22); nDCG
# refuses negative relevance, because the ratio then leaves $[0,1]$.

# %%
def tie_groups(gain, scores, k):
    """The tied group at positions 1..k. gain, scores: (…, n); four results (…, k), float64.

    size: items in it; total: their gain; before: gain of better groups; within: j - 1.
    """
    gain = gain.masked_fill(scores == -math.inf, 0)  # must not be shown: an empty place
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


def positions(k, like):
    """1, …, k as float64 on the device of `like`."""
    return torch.arange(1, k + 1, dtype=torch.float64, device=like.device)

# %%
def precision_at_k(relevance, scores, k):
    """Eqs. (41.9), (41.20). relevance, scores: (…, n) -> (…,). Bad input: ValueError."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    size, total, _, _ = tie_groups((relevance > 0).double(), scores, k)
    return ((total / size).sum(-1) / k).to(scores.dtype)


def recall_at_k(relevance, scores, k):
    """Eqs. (41.9), (41.20). relevance, scores: (…, n) -> (…,); NaN if nothing is relevant."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    relevant = (relevance > 0).double()
    size, total, _, _ = tie_groups(relevant, scores, k)
    return ((total / size).sum(-1) / relevant.sum(-1)).to(scores.dtype)

# %%
def average_precision_at_k(relevance, scores, k):
    """Eqs. (41.10), (41.21). relevance, scores: (…, n) -> (…,); NaN if nothing is relevant."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    relevant = (relevance > 0).double()
    size, total, before, within = tie_groups(relevant, scores, k)
    mates = within * (total - 1) / (size - 1).clamp(min=1)  # hits above, in the same group
    expected = total / size * (before + 1 + mates) / positions(k, scores)
    return (expected.sum(-1) / relevant.sum(-1).clamp(max=k)).to(scores.dtype)

# %%
def no_hit_probability(relevance, scores, k):
    """V_1, …, V_k of eq. (41.22). relevance, scores: (…, n), already checked -> (…, k)."""
    size, total, _, within = tie_groups((relevance > 0).double(), scores, k)
    return (1 - total / (size - within)).cumprod(-1)


def hitrate_at_k(relevance, scores, k):
    """Eqs. (41.8), (41.22). relevance, scores: (…, n) -> (…,). Bad input: ValueError."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    return (1 - no_hit_probability(relevance, scores, k)[..., -1]).to(scores.dtype)


def reciprocal_rank(relevance, scores, k=None):
    """Eqs. (41.10), (41.22); k = n by default. relevance, scores: (…, n) -> (…,).

    0 if every relevant item stands below k; NaN if nothing is relevant. Bad input: ValueError.
    """
    k = as_tensor(scores).shape[-1] if k is None and as_tensor(scores).ndim else k
    relevance, scores = ranking_inputs(relevance, scores, k)
    miss = no_hit_probability(relevance, scores, k)  # (…, k)
    first = -torch.diff(miss, prepend=torch.ones_like(miss[..., :1]))
    value = (first / positions(k, scores)).sum(-1)
    return value.masked_fill(~(relevance > 0).any(-1), torch.nan).to(scores.dtype)

# %%
def gains(relevance, gain):
    """g(r): 2^r - 1 for "exp", r for "linear"; ValueError for other names, r < 0 or overflow."""
    if gain == "linear":
        return relevance
    if gain != "exp":
        raise ValueError(f'gain must be "exp" or "linear", got {gain!r}')
    if (relevance < 0).any():
        raise ValueError('gain="exp" needs relevance >= 0: shift the scale or use gain="linear"')
    g = torch.expm1(relevance * math.log(2))  # exact for small relevances, too
    if not g.isfinite().all():
        raise ValueError('2^r overflows: rescale the relevance or use gain="linear"')
    return g


def dcg_at_k(relevance, scores, k, gain="exp"):
    """Eqs. (41.11), (41.20). relevance, scores: (…, n) -> (…,). Bad input: ValueError."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    size, total, _, _ = tie_groups(gains(relevance, gain), scores, k)
    return (total / size / torch.log2(positions(k, scores) + 1)).sum(-1).to(scores.dtype)

# %%
def ndcg_at_k(relevance, scores, k, gain="exp"):
    """Eq. (41.13). relevance >= 0, scores: (…, n) -> (…,); NaN if nothing is relevant."""
    relevance, scores = ranking_inputs(relevance, scores, k)
    if (relevance < 0).any():
        raise ValueError("nDCG needs relevance >= 0: shift the scale so that 0 means worthless")
    best = gains(relevance, gain).topk(k, dim=-1).values  # (…, k)
    ideal = (best / torch.log2(positions(k, scores) + 1)).sum(-1)
    return (dcg_at_k(relevance, scores.double(), k, gain) / ideal).to(scores.dtype)

# %% tags=["hide-input"]
def over_tie_orders(metric, relevance, scores, k):
    """Mean of metric(ranked, k) over all orders in which the scores do not increase; n <= 6."""
    allowed = [order for order in permutations(range(len(scores)))
               if all(scores[a] >= scores[b] for a, b in zip(order, order[1:]))]
    return np.mean([metric([relevance[i] for i in order], k) for order in allowed])


rel_5 = (4.5 * uniform(12, 5, seed=9) ** 2).floor()  # relevance 0..4
tied = (3 * uniform(12, 5, seed=10)).floor()
rel_5[:, 0] = 2
rel_5[0], tied[1] = 3, 0
tied[2] = torch.tensor([0.5, 0.5, -math.inf, -math.inf, 0.5])
rel_5[2, 2:4] = 0  # what must not be shown is not relevant: lists and batches mean the same


def batched(metric, *rest):
    """A batched metric on the twelve users at k = 1..5, (12, 5)."""
    return torch.stack([metric(rel_5, tied, k, *rest) for k in range(1, 6)], -1)


def listed(metric, *rest):
    """The same table from a list metric and every order that the scores allow."""
    return [[over_tie_orders(lambda x, k: metric(x, k, *rest), r, s, k) for k in range(1, 6)]
            for r, s in zip(rel_5.tolist(), tied.tolist())]

# %%
# the judge: every order of the items that the scores allow, the loop version, averaged
check("41.20", "precision with ties", batched(precision_at_k), listed(precision_loop), atol=1e-12)
check("41.20", "recall with ties", batched(recall_at_k), listed(recall_loop), atol=1e-12)
check("41.21", "AP with ties", batched(average_precision_at_k), listed(average_precision_loop),
      atol=1e-12)

# %%
check("41.22", "hitrate with ties", batched(hitrate_at_k), listed(hitrate_loop), atol=1e-12)
check("41.22", "RR with ties", batched(reciprocal_rank), listed(reciprocal_rank_loop), atol=1e-12)
for gain in ("exp", "linear"):
    check("41.20", f"DCG with ties, {gain} gain",
          batched(dcg_at_k, gain), listed(dcg_loop, gain), atol=1e-12)
    check("41.13", f"nDCG with ties, {gain} gain",
          batched(ndcg_at_k, gain), listed(ndcg_loop, gain), atol=1e-12)

# %%
finite_scores = tied.clamp(min=-9)
check("41.20", "scikit-learn averages tied DCG the same way",
      dcg_at_k(rel_5, finite_scores, 3, "linear").mean(),
      sk.dcg_score(host(rel_5), host(finite_scores), k=3), rtol=1e-12)

# %%
hidden = [0, 1, 3], [2.0, 1.0, -math.inf], 3               # the 3 must not be shown
check("41.20", "what must not be shown (-inf) is no hit, nor has it a gain",
      [float(precision_at_k(*hidden)), float(dcg_at_k(*hidden, "linear"))],
      [1 / 3, 1 / math.log2(3)], atol=1e-12)
check("41.20", "… and if it is relevant the list has missed it", recall_at_k(*hidden), 1 / 2,
      atol=1e-12)

# %%
pair = average_precision_at_k([1, 0], [0.5, 0.5], 2)
check("41.21", "one relevant of two tied items: the mean of 1 and 1/2, not scikit-learn's 1/2",
      [float(pair), sk.average_precision_score([1, 0], [0.5, 0.5])], [0.75, 0.5])

# %% [markdown]
# **A list under your hands.** The six films again. Drag a score: the list re-sorts, equal scores share
# their places, and every metric answers. Try to lower RR without hitrate, to change nDCG without AP, and to
# make all scores equal.

# %% tags=["hide-input"]
def film_metrics(scores, k, gain):
    """All metrics of the six films for a list of six scores, as a dict; DCG in tens."""
    r, a = torch.tensor([*FILMS.values()]).double(), torch.tensor(scores).double()
    plain = {"hitrate": hitrate_at_k, "precision": precision_at_k, "recall": recall_at_k,
             "AP": average_precision_at_k, "RR": reciprocal_rank}
    values = {name: float(f(r, a, k)) for name, f in plain.items()}
    values |= {"AUC": float(roc_auc(r, a)), "nDCG": float(ndcg_at_k(r, a, k, gain))}
    return values | {"DCG/10": float(dcg_at_k(r, a, k, gain)) / 10}


def draw_list(A=8, B=9, C=6, D=6, E=4, F=2, k=3, gain="exp"):
    """The list that the six scores give, and all metrics of it."""
    ranked = sorted(zip((A, B, C, D, E, F), FILMS.items()), key=lambda pair: -pair[0])
    values = film_metrics([A, B, C, D, E, F], k, gain)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 2.9))
    left.barh(range(1, 7), [s for s, _ in ranked], height=0.7, color="#c5d3e6")
    for p, (s, (film, r)) in enumerate(ranked, 1):
        tied_too = " tied" * ([A, B, C, D, E, F].count(s) > 1)
        left.text(0.1, p, f"{film} ({r:.0f}){tied_too}", va="center")
    left.axhline(k + 0.5, ls="--", color="black")
    left.set(xlabel="score $a$", ylabel="position $p$", ylim=(6.6, 0.4), xlim=(0, 10))
    right.bar_label(right.bar(range(len(values)), values.values()), fmt="%.2f", fontsize=8)
    right.set_xticks(range(len(values)), values, rotation=45, ha="right")
    right.set(ylabel="value", ylim=(0, 1.15))
    plt.show()


draw_list()

# %% tags=["nbval-ignore-output"]
interact(draw_list, **{x: IntSlider(v, 0, 10, description=f"score of {film}", **WIDE)
                       for x, v, film in zip("ABCDEF", (8, 9, 6, 6, 4, 2), FILMS)},
         k=IntSlider(3, 1, 6, description="length of the list k", **WIDE),
         gain=Dropdown(options={"2^r − 1": "exp", "r": "linear"}, description="gain"));

# %% [markdown]
# *Kiss* and *Balcony* share positions 3 and 4 here, so with $k=3$ the list is half a hit richer.
#
# scikit-learn's `dcg_score` averages ties in the same way; its `average_precision_score` does **not**: it
# treats a tied group as one threshold, and precision there is that of the whole group. Truncated AP, RR and
# hitrate with several relevant items have no counterpart there.
#
# A constant score is a random order, so the batched functions must return section 6 exactly. And real
# random orders must scatter around it: a z-score, the distance in standard errors of the simulated mean,
# under 4 for every metric, while the values of neighbouring cases ($k\pm1$; for RR, which saturates in $k$,
# $m\pm1$) are excluded.

# %%
n, k = 40, 10
grades_40 = torch.tensor([3.0, 2, 2, 1, 1] + [0.0] * 35, dtype=torch.float64, device=device)
flat = torch.zeros_like(grades_40)
exact = [[random_hitrate(n, 5, j), random_average_precision(n, 5, j),
          random_dcg(grades_40.tolist(), j), j / n] for j in (k, k - 1, k + 1)]

# %%
four_metrics = hitrate_at_k, average_precision_at_k, dcg_at_k, recall_at_k
check("41.19", "a constant score: hitrate, AP, DCG, recall of section 6",
      [f(grades_40, flat, k) for f in four_metrics], exact[0], atol=1e-12)
check("41.17", "a constant score: RR", reciprocal_rank(grades_40, flat, k),
      random_reciprocal_rank(n, 5, k), atol=1e-12)

# %% tags=["hide-input"]
def z_score(sample, expected):
    """Distance of the sample's mean from `expected` in standard errors. sample: (draws,)."""
    return float((sample.mean() - expected) / (sample.std() / len(sample) ** 0.5))


shuffled = uniform(DRAWS, n, seed=11)
many = grades_40.expand_as(shuffled)
sample = [f(many, shuffled, k) for f in four_metrics]
z = np.abs([[z_score(x, e) for x, e in zip(sample, row)] for row in exact])  # (3, 4)
rr = reciprocal_rank(many, shuffled, k)
z_rr = np.abs([z_score(rr, random_reciprocal_rank(n, m, k)) for m in (5, 4, 6)])

# %%
check("41.19", "hitrate, AP, DCG, recall of random orders: |z| < 4", z[0], below=4)
check("41.17", "RR of random orders: |z| < 4", z_rr[0], below=4)
if DRAWS >= 20_000:
    check("41.19", "the values for k - 1 and k + 1 are refuted, |z| > 6", z[1:], above=6)
    check("41.17", "RR for m - 1 and m + 1 is refuted, |z| > 6", z_rr[1:], above=6)
else:
    print("not tried: with fewer than 20,000 draws k ± 1 cannot be told apart")

# %% [markdown]
# **Users without a relevant item.** Hitrate, precision and DCG are defined and 0: nothing can be hit.
# Recall, AP and nDCG divide by nothing: they are undefined. RR would be 0 by (41.10), but there is no first
# relevant item whose position it could tell; by convention it is undefined here as well. A silent 0 would
# multiply the mean by the share of the other users, a silent 1 pull it towards 1 (scikit-learn has both). They
# are NaN here, left out of the mean, and **counted**.

# %%
def mean_over_users(values):
    """(mean over the users with a defined value, number of the others). values: (users,)."""
    values = as_tensor(values).double()
    return values.nanmean(), int(values.isnan().sum())


rel_3 = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 1]])  # user 1 likes nothing
sc_3 = torch.tensor([[3.0, 2, 1]] * 3)
METRICS = (hitrate_at_k, precision_at_k, dcg_at_k, recall_at_k, average_precision_at_k,
           reciprocal_rank, ndcg_at_k)
undefined = {f.__name__: mean_over_users(f(rel_3, sc_3, 2)) for f in METRICS}
for name, (mean, missing) in undefined.items():
    print(f"{name:24s} mean {mean:.3f}   undefined for {missing}")
check("41.8", "hitrate counts user 1 as a miss", undefined["hitrate_at_k"][0], 2 / 3, atol=1e-6)
check("41.9", "recall: the mean over the other two", undefined["recall_at_k"][0], (1 + 1 / 2) / 2)
check("41.13", "scikit-learn says 0 for the nDCG of user 1 and 1 for the (label ranking) AP",
      [judge([[0, 0, 0]], [[3, 2, 1]]) for judge in
       (sk.ndcg_score, sk.label_ranking_average_precision_score)], [0, 1])

# %% [markdown]
# ### Exercise 41.D · A user who stops · ●●○ · 10 min
#
# **Expected reciprocal rank** (Chapelle et al.) models a user who goes down the list and stops, satisfied,
# at an item of relevance $r$ with probability $(2^r-1)/2^{r_{\max}}$. ERR is the expectation of one over
# the position where they stop (0 if they never do). Write it for one list.

# %%
def my_err(ranked, r_max):
    """Expected reciprocal rank of a list of relevances from the top down."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _err_by_patterns(ranked, r_max):
    """ERR: sum over all 2^n patterns of probability / position of the first satisfying item."""
    total, q = 0.0, [(2**r - 1) / 2**r_max for r in ranked]
    for pattern in product([True, False], repeat=len(q)):
        if any(pattern):
            chance = math.prod(a if hit else 1 - a for a, hit in zip(q, pattern))
            total += chance / (pattern.index(True) + 1)
    return total


def _err_without_memory(ranked, r_max):
    return sum((2**r - 1) / 2**r_max / p for p, r in enumerate(ranked, 1))


exercise("41.D", my_err, [((x, 4), _err_by_patterns(x, 4)) for x in
                          ([4, 0, 2], [0, 0, 3, 4], [1, 1, 1, 1], [0, 0], [2, 4, 4])], mistakes={
    "you forgot that the user may have stopped above": _err_without_memory,
    "you divided by the largest gain 2^r_max − 1, so a top grade always satisfies": lambda x, top:
    sum(math.prod(1 - (2**y - 1) / (2**top - 1) for y in x[:p]) * (2**r - 1) / (2**top - 1)
        / (p + 1) for p, r in enumerate(x))})

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# They reach position $p$ only if none of the items above satisfied them.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Carry that probability along: multiply it by one minus the chance of stopping.
#
# </details>
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
# The judge adds up all $2^n$ patterns of satisfying and unsatisfying items.
#
# </details>
#
# ## 8. Bounds, and what each metric cannot see
#
# The best list starts with relevant items, so
#
# $$\max\mathrm{precision@}k=\frac{\min(k,m)}k,\qquad \max\mathrm{recall@}k=\frac{\min(k,m)}m, \tag{41.23}$$
#
# while hitrate, AP, RR and nDCG reach 1 for every user with $m\ge1$. From below: if $m>n-k$, even the worst
# list has at least $k-(n-m)$ hits. A mean precision@10 of 0.3 may be perfect, if users have three relevant
# items each.

# %%
def at_best(metric):
    """The best value of a list metric among the 720 orders of `graded` (m = 4), for k = 1..6."""
    return [max(metric(x, k) for x in all_orders) for k in ks]


check("41.23", "best precision", at_best(precision_loop), [min(k, 4) / k for k in ks])
check("41.23", "best recall", at_best(recall_loop), [min(k, 4) / 4 for k in ks])

# %%
check("41.23", "hitrate, AP, RR and nDCG reach 1 at every k", [at_best(f) for f in (
    hitrate_loop, average_precision_loop, reciprocal_rank_loop, ndcg_loop)], np.ones((4, 6)),
      atol=1e-12)
worst_hits = [k * min(precision_loop(x, k) for x in all_orders) for k in ks]
check("41.23", "fewest hits k - (n - m)", worst_hits, [max(0, k - 2) for k in ks], atol=1e-12)

# %% [markdown]
# **Blind spots.** Take the list $r=(3,0,1,\,0,0,2,0,0)$ with $k=3$ and change one thing at a time. Each row
# below is a change of the whole list; a 0 marks a metric that does not see it (row 4 happens below the $k$
# films shown: there a 0 is right). **Predict** the column of hitrate, and the last row.

# %%
base = [3.0, 0, 1, 0, 0, 2, 0, 0]
CHANGES = {
    "swap positions 1 and 2": [0.0, 3, 1, 0, 0, 2, 0, 0],
    "swap the 3 and the 1": [1.0, 0, 3, 0, 0, 2, 0, 0],
    "move the 2 up to position 2": [3.0, 2, 1, 0, 0, 0, 0, 0],
    "move the 2 down to the end": [3.0, 0, 1, 0, 0, 0, 0, 2],
    "lose the 1 to position 4": [3.0, 0, 0, 1, 0, 2, 0, 0],
    "one star less for all": [2.0, 0, 0, 0, 0, 1, 0, 0]}
VIEWS = {"hitrate": hitrate_at_k, "precision": precision_at_k, "recall": recall_at_k,
         "AP": average_precision_at_k, "RR": reciprocal_rank, "DCG": dcg_at_k, "nDCG": ndcg_at_k,
         "AUC": lambda r, s, k: roc_auc(r, s)}

# %% tags=["hide-input"]
stack = torch.tensor([base, *CHANGES.values()], dtype=torch.float64, device=device)  # (7, 8)
down = torch.arange(8.0, 0, -1, device=device).expand_as(stack).double()  # best first
seen_by = torch.stack([f(stack, down, 3) for f in VIEWS.values()], -1)  # (7, 8 metrics)
effect = seen_by[1:] - seen_by[0]
fig, ax = plt.subplots(figsize=(7.6, 3.2))
ax.imshow(host(effect.sign()), cmap="RdBu", vmin=-2, vmax=2, aspect="auto")
for (row, column), e in np.ndenumerate(host(effect)):
    ax.text(column, row, f"{e:+.2f}" if abs(e) > 1e-9 else "0", ha="center", va="center")
ax.set_xticks(range(len(VIEWS)), VIEWS)
ax.set_yticks(range(len(CHANGES)), CHANGES)
ax.grid(False)
ax.set(xlabel="metric at $k=3$ (AUC: whole list)", ylabel="change of the list")
plt.show()

# %% [markdown]
# Read by columns: hitrate never moves; RR sees the top hit only; precision and recall see what enters or
# leaves; AP and AUC see no grades. Below $k$ all but AUC are blind to the *order*; recall and nDCG still see
# *how much* relevance lies there, through $m$ and IDCG (AP too, while $m<k$). The last row is the strangest:
# no item got better and every liked one got worse, DCG falls by more than half, and nDCG *rises*, because it
# compares a user with their own ideal.

# %%
sees = {change: {m for m, e in zip(VIEWS, row) if abs(e) > 1e-9}
        for change, row in zip(CHANGES, effect.tolist())}
claim("hitrate sees none of the six changes", "hitrate" not in set().union(*sees.values()))
claim("only DCG and nDCG see grades", sees["swap the 3 and the 1"] == {"DCG", "nDCG"})
claim("only AUC sees the order below k", sees["move the 2 down to the end"] == {"AUC"})
claim("nDCG rises although every liked item got worse", effect[-1, 6], above=0,
      trivial=effect[-1, 5])

# %%
# and AUC hardly looks at the top: the only relevant item stands at position 11 of 1,000
late, falling = torch.zeros(1000), torch.arange(1000.0, 0, -1)
late[10] = 1
print(f"AUC {roc_auc(late, falling):.3f}, nDCG@10 {ndcg_at_k(late, falling, 10):.3f}")

# %% [markdown]
# ## 9. Beyond accuracy: novelty, diversity, serendipity, coverage
#
# A list can be accurate and useless: ten sequels of the film just watched. A recommender scores every item
# on its own, so nothing keeps ten near-copies of the best item from filling the list; only a measure of the
# whole list can see that.
#
# **Novelty**: the share of the items shown that were new to the user; with $Z_u$ the items viewed so far,
#
# $$\mathrm{novelty@}k=\frac{\lvert R_u(k)\setminus Z_u\rvert}k. \tag{41.24}$$
#
# Logs know only what *we* showed; whether an item was known from elsewhere, people have to be asked (a
# survey: "did you know it?"). A second reading asks how unusual an item is for everybody: its
# self-information $-\log_2\pi_i$ in bits, $\pi_i$ the share of users who know it. Ids of $-1$ mark empty
# places of a list and count nowhere.

# %%
def listed_ids(recommended, n_items):
    """(ids, real) of lists of item ids: int64 (…, k), and which of them are not the padding -1.

    ValueError for ids that are not integers from -1 to n_items - 1.
    """
    ids = as_tensor(recommended)
    whole = not ids.is_floating_point() and ids.dtype != torch.bool
    ids = ids.long()
    if not whole or (ids < -1).any() or (ids >= n_items).any():
        raise ValueError(f"item ids must be integers from 0 to {n_items - 1} (-1: an empty place): "
                         "is the list from another catalogue?")
    return ids, ids >= 0


def mean_of_real(values, real):
    """Mean over the last dimension where `real`; NaN if nothing is."""
    return (values.double() * real).sum(-1) / real.sum(-1)

# %%
def novelty(recommended, shown):
    """Eq. (41.24). recommended: (…, k) item ids; shown: (…, n) bool or 0/1 -> (…,), from 0 to 1.

    ValueError if the users differ, a list repeats an item or an id is not in the catalogue.
    """
    shown = as_tensor(shown)
    if not ((shown == 0) | (shown == 1)).all():
        raise ValueError("shown is 1 (or True) for items viewed before and 0 for the others, one "
                         "value for every item of the catalogue; it is no list of ids")
    ids, real = listed_ids(recommended, shown.shape[-1] if shown.ndim else 0)
    if ids.ndim == 0 or ids.shape[:-1] != shown.shape[:-1]:
        raise ValueError(f"recommended {tuple(ids.shape)} and shown {tuple(shown.shape)} "
                         "must have the same users")
    ranked = ids.sort(-1).values
    if ((ranked.diff() == 0) & (ranked[..., 1:] >= 0)).any():
        raise ValueError("an item is recommended twice in one list: remove the repetition")
    return mean_of_real((shown != 0).gather(-1, ids.clamp(min=0)) == 0, real)


def self_information(recommended, popularity):
    """Mean of -log2 popularity. recommended: (…, k) ids; popularity: (n,) in (0, 1] -> (…,)."""
    popularity = finite(popularity, "popularity")
    if popularity.ndim != 1:
        raise ValueError(f"popularity is one number per item, (n,), got {tuple(popularity.shape)}")
    if (popularity <= 0).any() or (popularity > 1).any():
        raise ValueError("popularity is a share of users in (0, 1]: add one user who knows all")
    ids, real = listed_ids(recommended, len(popularity))
    return mean_of_real(-torch.log2(popularity[ids.clamp(min=0)]), real)

# %%
watched = observed[:50]  # (50, n_items): what a user rated counts as viewed
popularity = (rated_by_item + 1) / (ratings.n_users + 1)  # share of users who know the item
tens = uniform(50, ratings.n_items, seed=12).topk(10).indices  # ten random items for 50 users
new = [len(set(t) - set(np.flatnonzero(w))) / 10 for t, w in zip(tens.tolist(), host(watched))]
check("41.24", "novelty by set difference", novelty(tens, watched), new, atol=1e-12)
print("known to 1/2 and to 1/4 of the users:", self_information([0, 1], [0.5, 0.25]).item(), "bits")

# %% [markdown]
# **Diversity**: the mean distance between the embeddings of the items in the list,
#
# $$\mathrm{diversity}=\frac2{k(k-1)}\sum_{i<j}\operatorname{dist}(q_i,q_j). \tag{41.25}$$

# %%
def list_of_vectors(x, name):
    """x as float64 (…, k, dim) with k >= 2, finite; ValueError otherwise."""
    x = finite(x, name)
    if x.ndim < 2 or x.shape[-2] < 2 or x.shape[-1] < 1:
        raise ValueError(f"{name} need at least two items, (…, k, dim) with k >= 2, dim >= 1, "
                         f"got {tuple(x.shape)}")
    return x


def diversity(embeddings, metric="euclidean"):
    """Eq. (41.25). embeddings: (…, k, dim), k >= 2; metric: "euclidean", "cosine" -> (…,).

    NaN for the cosine if an embedding is zero. ValueError for one item, NaN or another metric.
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f'metric must be "euclidean" or "cosine", got {metric!r}')
    q, kind = list_of_vectors(embeddings, "embeddings"), as_tensor(embeddings).dtype
    if metric == "cosine":
        q = q / q.abs().amax(-1, keepdim=True)  # no overflow in the norm
        q = q / q.norm(dim=-1, keepdim=True)
    i, j = torch.triu_indices(q.shape[-2], q.shape[-2], 1, device=q.device)
    x, y = q[..., i, :], q[..., j, :]  # (…, k(k - 1)/2, dim)
    pairs = (x - y).norm(dim=-1) if metric == "euclidean" else 1 - (x * y).sum(-1)
    return pairs.mean(-1).to(kind if kind.is_floating_point else torch.float64)

# %% [markdown]
# The other proposal of practice is the **variance of metadata**: genres as 0/1 features $x_i$, their sample
# variances $\mathrm{var}_l$ added up. It looks different and is the same thing with squared distances:
#
# $$\frac2{k(k-1)}\sum_{i<j}\lVert x_i-x_j\rVert^2=2\sum_l\mathrm{var}_l,\qquad \mathrm{var}_l=\frac1{k-1}\sum_i(x_{il}-\bar x_l)^2. \tag{41.26}$$
#
# Proof for one feature: $\sum_{i,j}(x_i-x_j)^2=2k\sum_ix_i^2-2(\sum_ix_i)^2=2k\sum_i(x_i-\bar x)^2$, every
# unordered pair counted twice; divide by $k(k-1)$ and sum over features. The entropy of the shares of genre
# labels, $-\sum_l\rho_l\log_2\rho_l$, is a third form: bits needed to name the genre of an item of the list.

# %%
def metadata_variance(features):
    """Sum of the sample variances of the features, eq. (41.26). (…, k, f), k >= 2 -> (…,)."""
    return list_of_vectors(features, "features").var(dim=-2, correction=1).sum(-1)


def genre_entropy(features):
    """Entropy in bits of the shares of the genre labels. features: (…, k, f) 0/1 -> (…,)."""
    share = finite(features, "features").sum(-2)
    if (share < 0).any():
        raise ValueError("features are labels: give 1 to the genres of an item, 0 to the others")
    share = share / share.sum(-1, keepdim=True)
    return torch.special.entr(share).sum(-1) / math.log(2)

# %%
films = data.items(DATA)
genre = films.genre.double().to(device)
features = genre[tens[:5]]  # (5, 10, f)
check("41.25", "euclidean: SciPy's pairwise distances", diversity(features),
      [pdist(x).mean() for x in host(features)], atol=1e-12)
check("41.25", "cosine: SciPy's, too", diversity(features + 0.1, "cosine"),
      [pdist(x, "cosine").mean() for x in host(features + 0.1)], atol=1e-12)

# %%
claim("genre entropy is SciPy's", genre_entropy(features),
      [stats.entropy(x.sum(0), base=2) for x in host(features)], atol=1e-12)
check("41.26", "mean squared distance = twice the variance", 2 * metadata_variance(features),
      [pdist(x, "sqeuclidean").mean() for x in host(features)], atol=1e-12)

# %% [markdown]
# **Serendipity**: an item the user did not expect *and* likes. For the first half, take a new book $b$ by
# author $y$ and the set $B$ of books the user has rated. With $C_{B,y}$ the number of books by $y$ in $B$
# and $C_B=\max_yC_{B,y}$,
#
# $$\mathrm{unexp}(b,B)=\frac{1+C_B-C_{B,y}}{1+C_B}\in\Big[\frac1{1+C_B},\,1\Big]. \tag{41.27}$$
#
# It is 1 for an author the user has never read and smallest for the favourite author. The second half
# multiplies by relevance:
#
# $$\mathrm{serendipity@}k=\frac1k\sum_{b\in R_u(k)}[r_{ub}>0]\,\mathrm{unexp}(b,B). \tag{41.28}$$

# %%
def surprise(author, counts):
    """unexp(b, B), eq. (41.27). author: (…, k) ids (-1: NaN); counts: (…, n_authors) -> (…, k)."""
    counts = finite(counts, "counts")
    if (counts < 0).any():
        raise ValueError("counts of books must not be negative: give how many the user has rated")
    author, real = listed_ids(author, counts.shape[-1] if counts.ndim else 0)
    if author.ndim == 0 or author.shape[:-1] != counts.shape[:-1]:
        raise ValueError(f"author {tuple(author.shape)} and counts {tuple(counts.shape)} must have "
                         "the same users")
    most = counts.max(-1, keepdim=True).values
    value = (1 + most - counts.gather(-1, author.clamp(min=0))) / (1 + most)
    return value.masked_fill(~real, torch.nan)


def serendipity(relevance, author, counts):
    """Eq. (41.28). relevance, author: (…, k), of the list; counts: (…, n_authors) -> (…,).

    Places with author -1 are empty. ValueError if the shapes disagree or a value is missing.
    """
    relevance, author, counts = finite(relevance, "relevance"), as_tensor(author), as_tensor(counts)
    if relevance.shape != author.shape or counts.shape[:-1] != author.shape[:-1]:
        raise ValueError(f"relevance {tuple(relevance.shape)}, author {tuple(author.shape)} must "
                         f"agree, and counts {tuple(counts.shape)} have the same users")
    value = surprise(author, counts).nan_to_num(0)
    return mean_of_real((relevance > 0) * value, author >= 0)

# %% tags=["hide-input"]
author = genre.argmax(-1)  # (n_items,): items have no authors, the first genre plays the part
counts = torch.stack([(watched & (author == v)).sum(-1) for v in range(genre.shape[1])], -1)
by_counter = []
for row, items in zip(host(watched), host(tens)):
    library = Counter(host(author)[row].tolist())
    most = max(library.values(), default=0)
    by_counter.append([(1 + most - library[v]) / (1 + most) for v in host(author)[items]])

# %%
likes = (uniform(50, 10, seed=13) > 0.5).double()
check("41.27", "surprise by hand counts", surprise(author[tens], counts), by_counter, atol=1e-12)
check("41.28", "liked items only", serendipity(likes, author[tens], counts),
      (host(likes) * by_counter).sum(1) / 10, atol=1e-12)

# %% [markdown]
# **Coverage** of the catalogue: the share of items that at least one of $N_U$ users is shown. For
# independent random lists an item is missed by one user with probability $1-k/n$, so
#
# $$\mathrm{coverage}=\frac1n\Big\lvert\bigcup_uR_u(k)\Big\rvert,\qquad \mathbb E_{\text{random}}=1-\Big(1-\frac kn\Big)^{N_U}. \tag{41.29}$$

# %%
def coverage(recommended, n_items):
    """Share of the catalogue in some list, eq. (41.29). recommended: (users, k) ids -> scalar."""
    if n_items < 1 or n_items != int(n_items):
        raise ValueError(f"a catalogue has at least one item, a whole number: got {n_items = }")
    ids, real = listed_ids(recommended, n_items)
    share = ids[real].unique().numel() / n_items
    return torch.tensor(share, dtype=torch.float64, device=ids.device)

# %%
in_lists = len(set().union(*tens.tolist())) / ratings.n_items
check("41.29", "coverage by sets", coverage(tens, ratings.n_items), in_lists, atol=1e-12)
covered = torch.stack([coverage(t.topk(4).indices, 30) for t in uniform(2000, 6, 30, seed=33)])
z = [abs(z_score(covered, 1 - (1 - 4 / 30) ** users)) for users in (6, 5, 7)]
check("41.29", "6 users, random lists: |z| < 4", z[0], below=4)
check("41.29", "5 or 7 users are refuted, |z| > 6", z[1:], above=6)

# %% [markdown]
# ### Exercise 41.E · Equal exposure · ●●● · 12 min
#
# Coverage says whether an item is shown, not how often. The **Gini index** of the exposures $x_1..x_n$
# does: $G=\frac{1}{2n^2\bar x}\sum_{i,j}\lvert x_i-x_j\rvert$, 0 if all items are shown equally often.
# Compute it in $O(n\log n)$: a catalogue has millions of items, and $n^2$ pairs are too many (the cases
# here are small: time yours on 100,000 numbers).

# %%
def my_gini(exposure):
    """Gini index of a list of counts (not all zero)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def gini_by_pairs(x):
    """Mean absolute difference over twice the mean."""
    return float(np.abs(np.subtract.outer(x, x)).mean() / (2 * np.mean(x)))


def _gini_ascending(exposure, keep_order=False, shift=1, over=1):
    x, n = exposure if keep_order else sorted(exposure), len(exposure)
    return sum((2 * i - n - shift) * y for i, y in enumerate(x, 1)) / (n * sum(x)) * over


exposures = [3, 3, 3], [0, 0, 10], [5, 1, 2, 8, 0], [7, 1]
exercise("41.E", my_gini, [((x,), gini_by_pairs(x)) for x in exposures], mistakes={
    "you did not sort": lambda x: _gini_ascending(x, keep_order=True),
    "you counted every pair twice": lambda x: _gini_ascending(x, over=2),
    "your positions start at 0 instead of 1": lambda x: _gini_ascending(x, shift=3)})

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Sort ascending. How often does the $i$-th smallest enter the sum with a plus, how often with a minus?
#
# </details>
# <details><summary>Hint 2</summary>
#
# It is larger than $i-1$ others and smaller than $n-i$.
#
# </details>
# <details><summary>Solution 41.E</summary>
#
# ```python
# def my_gini(exposure):
#     x, n = sorted(exposure), len(exposure)
#     return sum((2 * i - n - 1) * value for i, value in enumerate(x, 1)) / (n * sum(x))
# ```
#
# In ascending order $\sum_{i,j}\lvert x_i-x_j\rvert=2\sum_i(2i-n-1)x_{(i)}$, and $2n^2\bar x=2n\sum_ix_i$.
#
# </details>
#
# ## 10. Offline splits and their leaks
#
# Offline, the past stands in for the future: hide some ratings, recommend, see whether they come up. Which
# ratings to hide?
#
# | split | hidden | what leaks |
# |---|---|---|
# | random | a random share of all ratings | the future of this user and of all others |
# | by events | the last share of each user's ratings | the future of other users |
# | leave-one-out (every user weighs the same) | the last rating of each user | the future of other users |
# | by time | everything after one moment | nothing |

# %% tags=["hide-input"]
g = torch.Generator().manual_seed(2)
visits = [torch.sort(a + 3.4 * torch.rand(8, generator=g)).values for a in (0.3, 4.6, 2.4, 6.4)]
hidden_by = {"random": [torch.rand(8, generator=g) < 0.25 for _ in visits],
             "by events": [torch.arange(8) >= 6] * 4, "leave-one-out": [torch.arange(8) == 7] * 4,
             "by time": [v >= 7.2 for v in visits]}
fig, axes = plt.subplots(1, 4, figsize=(9.6, 2.2), sharey=True)
for ax, (name, masks) in zip(axes, hidden_by.items()):
    for row, (v, mask) in enumerate(zip(visits, masks)):
        ax.plot(v[~mask], [row] * int((~mask).sum()), "o", mfc="white", color="#1b4f8f")
        ax.plot(v[mask], [row] * int(mask.sum()), "X", ms=8, color="#d1601f")
    ax.set(title=name, xlabel="time", yticks=range(4), ylim=(-0.6, 3.6), xticks=[])
axes[0].set_ylabel("user")
axes[3].axvline(7.2, ls="--", color="black")
plt.show()

# %% [markdown]
# Circles are training, crosses are hidden. Wherever a circle lies to the right of a cross, the model has
# seen the future of that test. By time means: training strictly before the moment, test from it on. The two
# splits inside users need the position of each rating in its user's history; a user with a single rating
# keeps it for training.

# %%
def checked_fraction(fraction):
    """The share of training ratings, if it lies strictly between 0 and 1; else ValueError."""
    if not 0 < fraction < 1:
        raise ValueError(f"fraction, the share of training ratings, must be in (0, 1): {fraction}")
    return fraction


def history(ratings):
    """The ratings as tensors; ValueError if there are none or a time is NaN."""
    user, item, value, time = (as_tensor(x) for x in (ratings.user, ratings.item, ratings.value,
                                                      ratings.time))
    if len(user) == 0 or time.isnan().any():
        raise ValueError("a split needs ratings with known times: there are none, or some are NaN")
    return data.Ratings(user, item, value, time, ratings.n_users, ratings.n_items)

# %%
def time_split(ratings, fraction):
    """(train, test) at one moment: about the first `fraction` of the ratings train.

    max(train time) < min(test time): ratings at the moment of the cut all go to test.
    ValueError unless 0 < fraction < 1 and some rating is older than the cut.
    """
    ratings = history(ratings)
    cut = ratings.time.sort().values[int(checked_fraction(fraction) * len(ratings))]
    train = ratings.time < cut
    if not train.any():
        raise ValueError("no rating is older than the cut: use a larger fraction or finer times")
    return ratings[train], ratings[~train]

# %%
def position_in_history(ratings):
    """(position, length), int64 (N,): of each rating in its user's history by time, from 0.

    length: of that history. Equal times keep the order of the rows.
    """
    order = ratings.time.argsort(stable=True)
    order = order[ratings.user[order].argsort(stable=True)]  # by user, then by time
    length = torch.bincount(ratings.user, minlength=ratings.n_users)
    first = length.cumsum(0) - length  # where each user starts
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order), device=order.device) - first[ratings.user[order]]
    return position, length[ratings.user]


def leave_one_out(ratings):
    """(train, test): test is the last rating of every user who has two (equal times: last row)."""
    ratings = history(ratings)
    position, length = position_in_history(ratings)
    last = (position == length - 1) & (length > 1)
    return ratings[~last], ratings[last]

# %%
def event_split(ratings, fraction):
    """(train, test): the first `fraction` of each user's ratings, rounded up, trains.

    ValueError unless 0 < fraction < 1. (0.07 * 100 is 7.000000000000001, still seven ratings.)
    """
    ratings = history(ratings)
    position, length = position_in_history(ratings)
    train = position < torch.ceil(checked_fraction(fraction) * length.double() - 1e-9)
    return ratings[train], ratings[~train]


def random_split(ratings, fraction, seed):
    """(train, test): a random `fraction` (in (0, 1), else ValueError), rounded down, trains."""
    ratings = history(ratings)
    n_train = int(checked_fraction(fraction) * len(ratings) + 1e-9)
    train = uniform(len(ratings), seed=seed).argsort().argsort() < n_train
    train = train.to(ratings.user.device)
    return ratings[train], ratings[~train]

# %%
splits = {"random": random_split(ratings, 0.8, seed=14), "by events": event_split(ratings, 0.8),
          "leave-one-out": leave_one_out(ratings), "by time": time_split(ratings, 0.8)}
ids = {name: [torch.stack([part.user, part.item], 1) for part in parts]
       for name, parts in splits.items()}
by_user = pd.DataFrame({"user": host(ratings.user), "item": host(ratings.item),
                        "time": host(ratings.time)}).sort_values("time", kind="stable")
lasts = by_user.groupby("user").tail(1).sort_index()
lasts = lasts[by_user.groupby("user").size()[lasts.user].to_numpy() > 1]
claim("leave-one-out hides pandas' last rows", ids["leave-one-out"][1], lasts[["user", "item"]])
place = by_user.groupby("user").cumcount().sort_index().to_numpy()
length = by_user.groupby("user")["time"].transform("size").sort_index().to_numpy()
everything = torch.stack([ratings.user, ratings.item], 1)
claim("by events trains on the first 80% of every history, by pandas", ids["by events"][0],
      everything[torch.from_numpy(place < np.ceil(0.8 * length - 1e-9)).to(device)])
claim("by time and at random 80% train",
      [len(splits[name][0]) / len(ratings) for name in ("by time", "random")], [0.8, 0.8],
      atol=0.01)
claim("every split keeps every rating once: none is lost, none in both parts",
      [[len(both), len(both.unique(dim=0))] for both in map(torch.cat, ids.values())],
      [[len(ratings)] * 2] * 4, trivial=[[2 * len(ratings), len(ratings)]] * 4)

# %% [markdown]
# **How much future does the model see?** Over all pairs of a training and a test rating, the share in which
# the training one is younger:
#
# $$\ell=\Pr(\tau_{\text{train}}>\tau_{\text{test}})+\tfrac12\Pr(\tau_{\text{train}}=\tau_{\text{test}}). \tag{41.30}$$
#
# That is eq. (41.6) again, an AUC of times. It is 0 for a split by time, and ½ on average for a random one,
# where both parts have the same law.

# %%
def future_share(train, test):
    """Share of (train, test) pairs with the training rating in the future, eq. (41.30)."""
    if not len(train) or not len(test):
        raise ValueError("a share needs training and test ratings: this split has none on one side")
    train, test = history(train), history(test)
    times, at = train.time.sort().values, test.time.contiguous()
    below, upto = torch.searchsorted(times, at), torch.searchsorted(times, at, right=True)
    return 1 - (below + upto).double().mean() / (2 * len(times))


few, rest = ratings[::97], ratings[1::101]
later, same = few.time[:, None] > rest.time, few.time[:, None] == rest.time
check("41.30", "the share by listing all pairs", future_share(few, rest),
      (later.double() + same.double() / 2).mean(), atol=1e-12)
check("41.30", "by time: none", future_share(*splits["by time"]), 0.0)
sizes = [len(part) for part in splits["random"]]
spread = math.sqrt((len(ratings) + 1) / (12 * math.prod(sizes)))  # Mann-Whitney, no ties
z = abs(float(future_share(*splits["random"])) - 0.5) / spread
check("41.30", "random: 1/2 with |z| < 4", z, below=4)

# %%
facts = pd.DataFrame({name: {
    "train": len(train), "test": len(test), "future seen": float(future_share(train, test)),
    "unknown test users": 1 - float(torch.isin(test.user.unique(), train.user).double().mean())}
    for name, (train, test) in splits.items()}).T
facts.round(2)

# %% [markdown]
# Here only the split by time shows a recommender users it does not know (a random split can, if somebody has
# few ratings). None of the four replaces an online test, two random groups of users with the old and the new
# recommender: the topic of the A/B notebooks.
#
# ### How much does a leak add?
#
# To measure a leak, change *only* the leak: the same model, the same test events, once trained with the
# future and once without. A simulated shop with fashion gives us many histories to try: items are released
# all the time and their appeal halves every tenth of the period; users come for a twentieth of the period
# and prefer one of five styles by a factor of 8.

# %%
def shop_weights(time, released, quality, same_style, half_life=0.1):
    """Choice weights (events, items) at times (events,): quality, age, style; 0 before release."""
    age = time[:, None] - released
    weight = quality * torch.exp2(-age / half_life) * torch.where(same_style, 8.0, 1.0)
    return weight.masked_fill(age < 0, 0.0)

# %% tags=["hide-input"]
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
# Two recommenders. **Trend** counts the training events of an item in the last twentieth of the period
# before the test event, at time $\tau$: it looks backwards only. **Item kNN** adds up the cosines between
# an item and the user's items; with $U_i$ the users who have item $i$ in training,
#
# $$a^{\text{trend}}_i=\#\{\text{events of } i \text{ in } [\tau-0.05,\tau)\},\qquad a^{\text{kNN}}_{ui}=\sum_{j\in I_u,\,j\ne i}\frac{\lvert U_i\cap U_j\rvert}{\sqrt{\lvert U_i\rvert\,\lvert U_j\rvert}}. \tag{41.31}$$
#
# Its co-occurrences may come from the future. Each test event is one query with one relevant item; items of
# the user's training history get $-\infty$. For a user without history kNN scores everything 0: by section
# 7 a random list.

# %%
def seen_matrix(log):
    """(n_users, n_items) float64, 1 where the user has the item."""
    X = torch.zeros(log.n_users, log.n_items, dtype=torch.float64, device=log.user.device)
    X[log.user, log.item] = 1.0
    return X


def knn_scores(train, users, own=None):
    """Item kNN: sum over a user's items of the cosine of item columns. (len(users), n_items).

    own: the users' items, (len(users), n_items) of 0 and 1; default: theirs in train.
    """
    X = seen_matrix(train)
    norm = X.sum(0).clamp(min=1).sqrt()
    own = X[users] if own is None else own
    return ((own / norm) @ X.T) @ X / norm - own * (X.sum(0) > 0)  # cosine with itself: 1


def trend_scores(train, time, window=50_000):
    """Training events of each item within `window` before each time. (len(time), n_items)."""
    times, order = train.time.sort()
    one_hot = torch.nn.functional.one_hot(train.item[order], train.n_items)
    so_far = pad(one_hot.cumsum(0), (0, 0, 1, 0))  # (N + 1, n_items): counts of the first events
    end, start = torch.searchsorted(times, time), torch.searchsorted(times, time - window)
    return (so_far[end] - so_far[start]).double()

# %%
def event_hits(scores, train, test, k=10):
    """hitrate@k of every test event. scores: (len(test), n_items) -> (len(test),)."""
    scores = scores.masked_fill(seen_matrix(train)[test.user] > 0, -math.inf)
    return hitrate_at_k(one_hot(test.item, test.n_items), scores, k)


def knn_each(train, test, keep, size=16):
    """kNN scores (len(test), n_items) of each test event, trained on the events that keep picks.

    keep(T, user, time) -> (B, n_users, n_items) bool; T: times of the events, NaN where none is.
    """
    T = torch.full((train.n_users, train.n_items), torch.nan, device=train.user.device).double()
    T[train.user, train.item] = train.time.double()
    scores = []
    for user, time in zip(test.user.split(size), test.time.split(size)):
        X = keep(T, user[:, None, None], time[:, None, None]).float()  # a training set per event
        norm = X.sum(1).clamp(min=1).sqrt()  # (B, n_items)
        own = X[torch.arange(len(user)), user]  # (B, n_items)
        scores.append((((own / norm)[:, None] @ X.mT) @ X)[:, 0] / norm - own)
    return torch.cat(scores).double().round(decimals=4)  # float32: equal sums are to stay equal


def past_only(T, user, time):
    return T < time

# %% [markdown]
# Taking the future away also leaves less to learn from. So there are three more bars for kNN: the past and
# the next tenth of the period only; the past and only what is later than that; and, in everybody else's events,
# the next tenth *instead of* the last one: as many fresh events as the past has, but from the future. (For the
# trend all that leaves its window alone is the same bar.) And what would happen in production, with a model
# retrained 24 times, is the rolling split: each model predicts the next thirtieth of the period (less than the
# trend's window), known users and users without history apart.

# %%
def near(T, user, time):
    return T < time + 100_000


def far(T, user, time):
    return (T < time) | (T >= time + 100_000)


def swapped(T, user, time):
    """The next tenth instead of the last one in the events of the others; the user's own stay."""
    mine = torch.arange(len(T), device=T.device)[:, None] == user
    return mine & (T < time) | ~mine & near(T, user, time) & ~((T >= time - 100_000) & (T < time))


def rolling_splits(log, starts):
    """(train, test) pairs: train before starts[j], test from there to starts[j + 1]."""
    return [(log[log.time < a], log[(log.time >= a) & (log.time < b)])
            for a, b in zip(starts, starts[1:])]

# %% tags=["hide-input"]
KEPT = {"past only": past_only, "past and next tenth": near, "past and later": far,
        "next tenth for the last": swapped}


def _one_shop(shop):
    """Mean hitrate@10 by protocol: {(protocol, model): value}."""
    train, test = leave_one_out(shop)
    scores = {("with the future", "trend"): trend_scores(train, test.time),
              ("with the future", "item kNN"): knn_scores(train, test.user),
              **{(name, "item kNN"): knn_each(train, test, keep) for name, keep in KEPT.items()}}
    result = {key: float(event_hits(a, train, test).mean()) for key, a in scores.items()}
    result["past only", "trend"] = result["with the future", "trend"]  # (41.31): checked below
    live = [(train, test) for train, test in rolling_splits(shop, starts) if len(test)]
    known = torch.cat([torch.isin(test.user, train.user) for train, test in live])
    for model in ("trend", "item kNN"):
        hits = torch.cat([event_hits(trend_scores(a, b.time) if model == "trend" else
                                     knn_scores(a, b.user), a, b) for a, b in live])
        result["live, all users", model] = float(hits.mean())
        result["live, known users", model] = float(hits[known].mean())
        result["live, new users", model] = float(hits[~known].mean())
    return result


starts = [int(t) for t in np.linspace(0.2, 1.0, 25) * 1e6]
shops = [shop_log(SHOP_USERS, SHOP_ITEMS, SHOP_EVENTS, seed=15 + k).to(device)
         for k in range(SHOP_SEEDS)]
hits = pd.DataFrame([pd.Series(_one_shop(shop)) for shop in progress(shops, desc="shops")])
knn, trend = (hits.xs(model, axis=1, level=1) for model in ("item kNN", "trend"))

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(7.6, 3.8))
protocols = ["with the future", *KEPT, "live, all users", "live, known users", "live, new users"]
for shift, (name, table) in zip((-0.2, 0.2), (("trend", trend), ("item kNN", knn))):
    table = table.reindex(columns=protocols)
    ax.barh(np.arange(8) + shift, table.mean(), 0.38, label=name, xerr=table.std(),
            hatch="//" if shift < 0 else None)
ax.set_yticks(range(8), protocols)
ax.axhline(4.5, color="grey", lw=0.8)
ax.invert_yaxis()
ax.set(xlabel=f"hitrate@10, mean and deviation over {SHOP_SEEDS} shops",
       ylabel="other events     same events")
ax.legend()
plt.show()

# %% tags=["nbval-ignore-output"]
leak = (knn["with the future"] - knn["past only"]).to_numpy()
extra, soon, later = (float((knn[name] - knn["past only"]).mean()) for name in
                      ("next tenth for the last", "past and next tenth", "past and later"))
ahead = (knn - trend)[["with the future", "past only", "live, all users"]]  # of kNN over trend
print("what the future adds to kNN, shop by shop:", leak.round(3))
print(f"on average {leak.mean():.3f}; the next tenth alone {soon:+.3f}, what is later "
      f"{later:+.3f}, the next tenth for the last {extra:+.3f}")
print("kNN minus trend, past only:", ahead["past only"].to_numpy().round(3))

# %%
OWN_SIZES = (SHOP_USERS, SHOP_ITEMS, SHOP_EVENTS) == (600, 200, 20)
if not OWN_SIZES:
    print("two of the claims hold for shops of 600 users, 200 items, 20 events only: left out")
claim("in every shop the future flatters kNN", leak, above=0.015, trivial=0 * leak)
claim("the next tenth of the period brings more than half of it", soon, above=leak.mean() / 2,
      trivial=later)
if OWN_SIZES:
    claim("the next tenth instead of the last one changes less than half of it", abs(extra),
          below=leak.mean() / 2, trivial=leak.mean())

# %%
if OWN_SIZES:
    claim("with the future kNN is ahead of trend in every shop", ahead["with the future"],
          above=0.03, trivial=ahead["live, all users"])
claim("live, over all users, trend is ahead in every shop", -ahead["live, all users"], above=0.03,
      trivial=-ahead["with the future"])
claim("live, a user without history gets a random list from kNN", knn["live, new users"],
      [10 / SHOP_ITEMS] * SHOP_SEEDS, atol=1e-9)

# %% [markdown]
# What leaks are the events of the same weeks: the past and the next tenth of the period give kNN all of it,
# the past and everything later next to nothing. But a future event is worth no more than a past one of the
# same distance: the next tenth *for* the last changes little. What flatters kNN is to have both, twice as
# many fresh events as anybody can have at that moment. And in this shop, where fashion\n# changes fast, it
# changes the election. With the future kNN beats trend clearly in every shop; without it the two are close.
# Live, trend wins by far, for a second reason: for people without history kNN is a random list (lowest bars),
# and no split that hides the events of known people can show that.

# %%
shop = shops[0]
train, test = leave_one_out(shop)
X = host(seen_matrix(train))
norms = np.sqrt((X**2).sum(0).clip(1))
cosines = X.T @ X / np.outer(norms, norms) - np.diag((X.sum(0) > 0).astype(float))
everybody = torch.arange(SHOP_USERS, device=device)
check("41.31", "kNN, all users", knn_scores(train, everybody), X @ cosines, atol=1e-10)

# %%
last = test[::30]
check("41.31", "kNN of the past, event by event", knn_each(train, last, past_only), torch.cat(
      [knn_scores(train[train.time < t], u[None]) for u, t in zip(last.user, last.time)]),
      atol=1e-4)

# %%
T = torch.full((SHOP_USERS, SHOP_ITEMS), torch.nan, dtype=torch.float64, device=device)
T[train.user, train.item] = train.time.double()
few_times = last.user[:, None, None], last.time[:, None, None]

# %%
own = torch.arange(SHOP_USERS, device=device)[:, None] == few_times[0]
exchanged = swapped(T, *few_times) != past_only(T, *few_times)
distance = (T - few_times[1]).abs()
claim("swapped exchanges events of others within a tenth of the period, on both sides, and no more",
      exchanged, ~own & (distance <= 100_000) & (T - few_times[1] < 100_000),
      trivial=~own & (distance <= 50_000))

# %%
at = test.time[:: max(1, len(test) // 15)].contiguous()
some = torch.stack([trend_scores(train[train.time < t], t[None])[0] for t in at])
check("41.31", "trend does not change when the future is removed", trend_scores(train, at), some)
in_window = [torch.bincount(train.item[(train.time >= t - 50_000) & (train.time < t)],
                            minlength=SHOP_ITEMS) for t in at]
check("41.31", "and counts the events of its window", some, torch.stack(in_window))

# %% [markdown]
# ## 11. One number from many metrics
#
# A team watches $J$ proxy metrics and a business metric $M$ (retention, revenue) that moves slowly. Two
# ways to weigh the proxies.
#
# **Approach 1: regression.** From past experiments with both, choose the weights that predict $M$. Let row
# $e$ of $F$ hold the proxies $f_e$ of experiment $e$, minus their means, and centre $M$ likewise:
#
# $$w=\arg\min_w\sum_e\big(M_e-w_0-w^\top f_e\big)^2=(F^\top F)^{-1}F^\top M,\qquad \operatorname{Cov}(w)=\sigma^2(F^\top F)^{-1}, \tag{41.32}$$
#
# the zero of the gradient $-2F^\top(M-Fw)$, and the covariance of a linear map of noise with variance
# $\sigma^2$.

# %%
def regression_weights(f, M):
    """Weights (J,) and intercept of eq. (41.32). f: (E, J), M: (E,). ValueError if not unique."""
    f, M = finite(f, "metrics"), finite(M, "business metric", as_tensor(f))
    if f.ndim != 2 or M.shape != f.shape[:1] or len(M) == 0:
        raise ValueError(f"need (experiments, metrics) and (experiments,), got {tuple(f.shape)} "
                         f"and {tuple(M.shape)}")
    F, target = f - f.mean(0), M - M.mean()
    if torch.linalg.matrix_rank(F) < f.shape[1]:
        raise ValueError("metrics are collinear or experiments too few: drop a metric or add some")
    w = torch.linalg.solve(F.T @ F, F.T @ target)
    return w, M.mean() - f.mean(0) @ w


def normal(*shape, seed):
    """Standard normal float64 numbers, drawn on the CPU with a seed of their own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)

# %%
# forty experiments; metrics 0 and 1 (nDCG and recall, say) go together
true_w = torch.tensor([2.0, 1.0, -0.5], dtype=torch.float64, device=device)
f = normal(40, 3, seed=18)
f[:, 1] = 0.97 * f[:, 0] + 0.24 * f[:, 1]
M = 5 + f @ true_w + normal(4000, 40, seed=19)  # 4,000 times the same, other luck

# %%
w_1, intercept = regression_weights(f, M[0])
judge = LinearRegression().fit(host(f), host(M[0]))
check("41.32", "weights and intercept are scikit-learn's", [*w_1.tolist(), float(intercept)],
      [*judge.coef_, judge.intercept_], atol=1e-10)

# %%
many_w = torch.stack([regression_weights(f, m)[0] for m in M])  # (4000, 3)
F = f - f.mean(0)
sd = torch.linalg.inv(F.T @ F).diagonal().sqrt()
z = (many_w.std(0) / sd - 1) * math.sqrt(2 * 4000)  # a standard deviation errs by 1/sqrt(2 * 4000)
check("41.32", "the scatter is that of the formula: |z| < 4", z.abs(), below=4)
check("41.32", "and the mean is the truth: |z| < 4",
      ((many_w.mean(0) - true_w) / sd * math.sqrt(4000)).abs(), below=4)

# %%
print(f"metrics 0 and 1 have correlation {np.corrcoef(host(f[:, :2]).T)[0, 1]:.2f} here")
print(f"the weight 1.0 is estimated as {many_w[:, 1].mean():.1f} ± {sd[1]:.1f}, "
      f"with the wrong sign in {(many_w[:, 1] < 0).double().mean():.0%} of the cases; without the "
      f"correlation it would be ± {1 / F[:, 1].norm():.2f}")

# %% [markdown]
# Metrics that move together share a weight that regression cannot divide.
#
# **Approach 2: make it worse on purpose.** Good changes are rare, bad ones are easy: random items, popular
# items only, a stale model. In each *degrading experiment* $e$ the metrics change by
# $\Delta_e\in\mathbb R^J$, and the right sum must fall in all of them: $w^\top\Delta_e<0$. Any such $w$ can
# be scaled, so bound it and ask for the largest margin:
#
# $$\gamma^*=\max_{w,\gamma}\ \gamma\quad\text{s.t.}\quad w^\top\Delta_e\le-\gamma\ \ \forall e,\quad -1\le w_j\le1. \tag{41.33}$$
#
# A linear programme. ($w/\gamma$ solves the form $w^\top\Delta_e\le-1$.) When are there no weights? Put
# $\lambda_e\ge0$, $\sum_e\lambda_e=1$, on the experiments. The worst experiment is the worst mixture, and
# max and min may be exchanged (both sets are convex and compact, the form is bilinear):
#
# $$\gamma^*=\max_{\lvert w_j\rvert\le1}\min_{\lambda}\Big(-w^\top\sum_e\lambda_e\Delta_e\Big)=\min_{\lambda}\max_{\lvert w_j\rvert\le1}\Big(-w^\top\sum_e\lambda_e\Delta_e\Big)=\min_{\lambda}\Big\lVert\sum_e\lambda_e\Delta_e\Big\rVert_1. \tag{41.34}$$
#
# So $\gamma^*=0$ exactly if some mixture of degradations leaves **every** metric where it was: then either a
# metric is missing that would see the damage, or one of the experiments did no damage.
#
# ### Exercise 41.F · Weights in the plane · ●●● · 12 min
#
# With two metrics the changes $\Delta_e$ are arrows in the plane. Decide **without** a linear programme
# whether weights exist with $w^\top\Delta_e<0$ for all $e$: return a `bool`.

# %%
def my_weights_exist(deltas):
    """True if some w has w·delta < 0 for every pair in the list `deltas` (no pair is (0, 0))."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def _largest_gap(arrows, round_the_circle=True):
    """The largest angle between neighbouring arrows."""
    angles = sorted(math.atan2(y, x) for x, y in arrows)
    gaps = [b - a for a, b in zip(angles, angles[1:])]
    return max(gaps + [angles[0] + 2 * math.pi - angles[-1]] * round_the_circle, default=0)


clouds = {((-2, 0.5), (0.4, -1), (-1, -0.2)): True, ((1, 0), (-1, 0)): False, ((0, 2),): True,
          ((1, 1), (-1, 1), (0, -1)): False, ((1, 0), (0, 1), (-1, -0.9)): False,
          ((1, 0.2), (1, -0.2), (0.1, 1), (0.1, -1)): True, ((-1, 0.3), (-1, -0.3)): True,
          ((-1, 0.5), (1, -0.7)): True, ((-1, -0.1), (0.1, -1)): True, ((-0.1, 5), (-1, -1)): True,
          ((1, 0), (1, 0.01), (1, -0.01), (-0.985, 0.174)): True}
exercise("41.F", my_weights_exist, [((list(c),), answer) for c, answer in clouds.items()],
         mistakes={"you allowed positive weights only": lambda c: any(
             all(a * x + b * y < 0 for x, y in c) for a, b in host(uniform(4000, 2, seed=35))),
                   "you forgot the gap across the angle ±π":
                   lambda c: _largest_gap(c, False) > math.pi + 1e-9,
                   "you looked for opposite pairs only": lambda c: not any(
                       abs(x * q - y * p) < 1e-9 and x * p + y * q < 0 for x, y in c for p, q in c),
                   "you tried one direction only, that of the sum": lambda c: all(
                       x * sum(p for p, _ in c) + y * sum(q for _, q in c) > 1e-9 for x, y in c),
                   "you tried one direction only, that of the sum of unit arrows": lambda c: all(
                       sum((x * p + y * q) / math.hypot(p, q) for p, q in c) > 1e-9
                       for x, y in c)})

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Weights exist if all arrows fit into an open half-plane.
#
# </details>
# <details><summary>Hint 2</summary>
#
# Sort their angles and look at the largest gap between neighbours, round the circle.
#
# </details>
# <details><summary>Solution 41.F</summary>
#
# ```python
# def my_weights_exist(deltas):
#     import math
#     angles = sorted(math.atan2(y, x) for x, y in deltas)
#     gaps = [b - a for a, b in zip(angles, angles[1:])] + [angles[0] + 2 * math.pi - angles[-1]]
#     return max(gaps) > math.pi + 1e-9
# ```
#
# A gap of more than π is an empty open half-plane and its border: the weights point into its middle.
#
# </details>

# %%
def degradation_weights(deltas):
    """(w, margin) of eq. (41.33): w (J,) in [-1, 1]. deltas: (E, J), finite, else ValueError.

    A margin of 0 (up to 1e-9 of the largest change) means that no weights make every experiment
    lower the sum.
    """
    deltas = as_tensor(deltas)
    if deltas.ndim != 2 or 0 in deltas.shape or not deltas.isfinite().all():
        raise ValueError("deltas must be finite, (experiments, metrics), with at least one of each:"
                         f" got {tuple(deltas.shape)}; drop what was not measured")
    D = deltas.detach().cpu().double().numpy()
    (E, J), unit = D.shape, abs(D).max() or 1.0  # the solver's tolerance is absolute
    A_ub = np.hstack([D / unit, np.ones((E, 1))])
    found = linprog(c=[0.0] * J + [-1.0], A_ub=A_ub, b_ub=np.zeros(E),
                    bounds=[(-1, 1)] * J + [(0, None)])
    kind = deltas.dtype if deltas.is_floating_point() else torch.float64
    w = torch.tensor(found.x[:J], dtype=kind, device=deltas.device)
    return w, unit * max(0.0, float(found.x[J]))

# %% tags=["hide-input"]
# two judges: a fine grid of weights for two metrics, the right side of (41.34) for five
def mixture_norm(deltas):
    """Right side of eq. (41.34): the least 1-norm of a mixed change. deltas: (E, J) -> float."""
    D = host(deltas).T  # (J, E); unknowns: lambda (E,) and t (J,) >= |D lambda|
    J, E = D.shape
    found = linprog(c=[0.0] * E + [1.0] * J, b_ub=np.zeros(2 * J), bounds=(0, None),
                    A_ub=np.block([[D, -np.eye(J)], [-D, -np.eye(J)]]),
                    A_eq=[[1.0] * E + [0.0] * J], b_eq=[1.0])
    return found.fun


two = torch.tensor([[-2.0, 0.5], [0.4, -1.0], [-1.0, -0.2]], dtype=torch.float64)
mirrored = two * torch.tensor([1.0, -1.0])
w_two, margin_two = degradation_weights(two)
side = torch.linspace(-1, 1, 401, dtype=torch.float64)
weights = torch.cartesian_prod(side, side)  # 160,801 pairs of weights
on_grid = [-(weights @ x.T).amax(1).min() for x in (two, mirrored)]

# %%
check("41.33", "two metrics: the best margin on a grid, also with the second one mirrored",
      [margin_two, degradation_weights(mirrored)[1]], on_grid, atol=5e-3)
check("41.33", "the weights keep the margin", -(two @ w_two).max(), margin_two, atol=1e-9)
five = normal(10, 9, 5, seed=20)  # ten times nine experiments, five metrics
margins = [degradation_weights(d)[1] for d in five]
check("41.34", "the dual finds the same", margins, [mixture_norm(d) for d in five], atol=1e-9)
print(f"weights exist in {sum(m > 1e-9 for m in margins)} of the ten")

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(4.8, 3.4))
ax.scatter(two[:, 0].numpy(), two[:, 1].numpy(), marker="v", s=50, label=r"degradations $\Delta_e$")
ax.annotate("$w$", xy=(0, 0), xytext=w_two.tolist(), arrowprops={"arrowstyle": "<-", "lw": 2})
ax.axline((0, 0), (float(w_two[1]), -float(w_two[0])), ls="--", c="grey", label=r"$w^\top\Delta=0$")
ax.set(xlabel="change of metric 1", ylabel="change of metric 2", xlim=(-2.4, 1.6), ylim=(-1.4, 1.6))
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# Neither metric alone falls in all three experiments; their weighted sum does.
#
# **How many experiments make the answer mean something?** Suppose the changes $\Delta_1,\dots,\Delta_E$ of
# $E$ experiments in $J$ metrics were *independent* of each other, each with a law symmetric about 0, and in
# general position. Then weights would still exist with probability
#
# $$W(E,J)=2^{-(E-1)}\sum_{j=0}^{J-1}\binom{E-1}j \tag{41.35}$$
#
# (Wendel). Proof: fix the lines of the $\Delta_e$ and flip their signs. By independence and symmetry each
# of the $2^E$ sign patterns is equally likely; a pattern admits weights if a $w$ lies on the right sides of
# $E$ hyperplanes through 0, that is if it is one of the $Q(E,J)$ regions they cut out. A new hyperplane
# splits those old regions that it meets, and it meets as many as the others cut out of *it*:
# $Q(E,J)=Q(E-1,J)+Q(E-1,J-1)$, with $Q(1,J)=Q(E,1)=2$, whose solution is $2\sum_{j<J}\binom{E-1}j$. With
# $E\le J$ the probability is 1: weights always exist and prove nothing. With $E=2J$ it is ½.

# %%
def weights_by_chance(E, J):
    """Probability that E independent symmetric changes of J metrics admit weights, (41.35)."""
    if not (E >= 1 and J >= 1):
        raise ValueError(f"need at least one experiment and one metric, got E = {E}, J = {J}")
    return sum(math.comb(E - 1, j) for j in range(J)) / 2 ** (E - 1)


def share_with_weights(deltas):
    """1.0 for each of many (E, J) tables that admits weights, else 0. (draws, E, J) -> (draws,)."""
    return torch.tensor([degradation_weights(d)[1] > 1e-9 for d in deltas]).double()


independent = share_with_weights(normal(300, 8, 4, seed=31))
z = [abs(z_score(independent, weights_by_chance(E, 4))) for E in (8, 7, 9)]
check("41.35", "E = 8, J = 4: |z| < 4", z[0], below=4)
check("41.35", "E = 7 and E = 9 are refuted", z[1:], above=4)
check("41.35", "1 for E ≤ J, 1/2 at 2J", [weights_by_chance(E, 4) for E in (2, 4, 8)], [1, 1, 0.5])
copies = normal(300, 2, 4, seed=32).repeat(1, 4, 1) + 0.1 * normal(300, 8, 4, seed=34)
print(f"eight changes that are two, measured four times each: weights in "
      f"{share_with_weights(copies).mean():.0%} of the draws, not in {weights_by_chance(8, 4):.0%}")

# %% [markdown]
# One damage measured on four groups of users is *one* experiment. What counts is the number of different
# damages.
#
# ### On data
#
# Item kNN on the split by events, each user's liked test items ($r\ge4$) relevant, and five ways to spoil
# it: half of the users get random lists; popularity only; one genre only; the 50 best unseen items in
# reverse; today's histories with the cosines of the first 30% of the ratings. The report: nDCG@10, recall@10,
# self-information, diversity of genres, coverage. A recommender has to show *some* ten items, so tied
# scores are broken at random: `topk` alone would give every user without a score the same ten.

# %%
def top_lists(scores, k):
    """Ids of the k best, ties in random order. scores: (users, n) -> (users, k).

    -1 where only items at -inf are left. ValueError for NaN, or k outside 1..n.
    """
    scores = as_tensor(scores).double()
    if scores.isnan().any():
        raise ValueError("scores contain NaN: give -inf to items that must not be shown")
    if not 1 <= k <= scores.shape[-1]:
        raise ValueError(f"k must be from 1 to the number {scores.shape[-1]} of items, got {k}")
    mixed = uniform(*scores.shape, seed=34).argsort(-1).to(scores.device)  # a stable sort keeps it
    best = scores.gather(-1, mixed).argsort(dim=-1, descending=True, stable=True)[..., :k]
    ids = mixed.gather(-1, best)
    return ids.masked_fill(scores.gather(-1, ids) == -math.inf, -1)


def report(scores, relevance, k=10):
    """nDCG, recall, self-information (bits), diversity, coverage of the top k lists. -> (5,)

    ValueError if somebody has fewer than k items above -inf.
    """
    top = top_lists(scores, k)
    if (top < 0).any():
        raise ValueError(f"somebody has fewer than k = {k} items that may be shown: reduce k")
    accuracy = [f(relevance, scores, k).nanmean() for f in (ndcg_at_k, recall_at_k)]
    values = [*accuracy, self_information(top, popularity).mean(), diversity(genre[top]).mean(),
              coverage(top, scores.shape[1])]
    return torch.stack([v.double().cpu() for v in values])

# %%
train, test = splits["by events"]
X, relevant = seen_matrix(train), seen_matrix(test[test.value >= 4])
users = torch.arange(len(X), device=device)
good = knn_scores(train, users)
unseen = good.masked_fill(X > 0, -math.inf)
top_50 = unseen >= unseen.topk(50).values[:, -1:]
spoiled = {"good": good,
           "half random": torch.where(users[:, None] % 2 > 0, uniform(*X.shape, seed=32), good),
           "popular only": X.sum(0).expand_as(X),
           "one genre": good.masked_fill(genre[:, 1] == 0, -1.0),
           "top 50 reversed": -unseen.masked_fill(~top_50, math.inf),
           "stale": knn_scores(time_split(train, 0.3)[0], users, own=X)}
ranked_by = {name: scores.masked_fill(X > 0, -math.inf) for name, scores in spoiled.items()}

# %% tags=["nbval-ignore-output"]
NAMES = ["nDCG@10", "recall@10", "self-information", "diversity", "coverage"]
table = pd.DataFrame({name: report(scores, relevant).numpy() for name, scores in ranked_by.items()},
                     index=NAMES).T
for name, key in (("good", "ndcg_knn"), ("popular only", "ndcg_popular")):
    measured(key, table.loc[name, "nDCG@10"])
claim("ten unseen items for everybody, so none at -inf is shown",
      [bool(s.topk(10).values.isfinite().all()) for s in ranked_by.values()])
claim("every degradation raises some metric",
      (table.iloc[1:] > table.iloc[0]).any(axis=1).to_numpy())
print(f"{int((relevant.sum(1) == 0).sum())} of {len(relevant)} users have no relevant test item: "
      "left out of nDCG and recall")
table.round(3)

# %% tags=["hide-input"]
best_11 = ranked_by["good"].topk(11).values
clean = best_11[:, 9] > best_11[:, 10]  # users whose list does not end inside a tie
shown_scores, liked = ranked_by["good"][clean], host(relevant[clean])
rows, some = host(top_lists(shown_scores, 10)), liked.sum(1) > 0
outside = [sk.ndcg_score(liked[some], host(shown_scores.clamp(min=-1))[some], k=10),
           np.mean([x[row].sum() / x.sum() for x, row in zip(liked[some], rows[some])]),
           np.mean([-np.log2(host(popularity)[row]).mean() for row in rows]),
           np.mean([pdist(host(genre)[row]).mean() for row in rows]),
           len(set(rows.flatten().tolist())) / ratings.n_items]
claim("the report by scikit-learn, NumPy, SciPy and sets", report(shown_scores, relevant[clean]),
      outside, rtol=1e-6)
firsts = {name: genre[top_lists(ranked_by[name], 1)[:, 0], 1].mean()
          for name in ("one genre", "good")}
claim("one genre: the first place has it", firsts["one genre"], above=0.9, trivial=firsts["good"])
tied_lists = top_lists(torch.zeros(4000, 8, dtype=torch.float64, device=device), 2)
z = (torch.bincount(tied_lists.flatten(), minlength=8) - 1000) / math.sqrt(4000 * 0.25 * 0.75)
claim("eight tied items: each in a quarter of the lists of two, |z| < 4", z.abs(), below=4,
      trivial=abs(4000 - 1000) / math.sqrt(750))

# %% [markdown]
# Five damages, five metrics: $W(5,5)=1$, so weights had to exist and prove nothing by themselves. What they
# are worth shows when a damage is **left out** of the fit: does the sum fall in the experiment it has not
# seen?

# %%
deltas = torch.tensor(100 * (table.iloc[1:] / table.iloc[0] - 1).to_numpy())  # (5, 5), per cent
w, margin = degradation_weights(deltas)
claim("with all five in the fit the sum falls in each by the margin", deltas @ w,
      below=1e-6 - margin, trivial=deltas.sum(1))
check("41.34", "the dual programme agrees", margin, mixture_norm(deltas), rtol=1e-6, atol=1e-9)
left_out = [float(deltas[e] @ degradation_weights(deltas[[o for o in range(5) if o != e]])[0])
            for e in range(5)]

# %% tags=["nbval-ignore-output"]
without = [degradation_weights(deltas[:, [o for o in range(5) if o != j]])[1] for j in range(5)]
print(pd.DataFrame({"change of the sum when left out of the fit, %": left_out},
                   index=table.index[1:]).round(1).to_string(), "\n")
gap = (ndcg_at_k(relevant, ranked_by["popular only"], 10)
       - ndcg_at_k(relevant, ranked_by["good"], 10))[relevant.sum(1) > 0]
print(f"popular only minus good, nDCG@10 user by user: {gap.mean():+.4f} "
      f"± {gap.std() / len(gap) ** 0.5:.4f}")
print(f"margin with all five metrics: {margin:.2f}")
pd.DataFrame({"weight": w.numpy(), "falls in … of 5": (deltas < 0).sum(0).numpy(),
              "margin without it": without,
              "weight, changes in sd": degradation_weights(deltas / deltas.std(0))[0].numpy()},
             index=NAMES).round(2)

# %% [markdown]
# A positive number in the first table is a damage that the weights would have *praised*, had nobody tried
# it: the weights say what the experiments know, no more. A weight is a direction that answers these five
# damages, not the importance of a metric. Its sign may surprise: self-information gets −1 where all but one
# of the damages show rarer items than the good list does. And it depends on the unit: the last column has
# the weights with every change in standard deviations over the five instead of per cent. Whether a change
# *is* a degradation comes from outside the metrics: nDCG cannot tell "popular only" from kNN here (the
# difference printed above is within its error), and recall leans towards it, perhaps because these
# simulated users choose by popularity. On MovieLens 100K kNN has
# nDCG@10 <!--full:41.ndcg_knn-->0.169<!--/full--> against <!--full:41.ndcg_popular-->0.0978<!--/full--> for
# popularity.
#
# ## 12. ☆ Sampled metrics are other metrics
#
# Ranking a held-out item against all $n-1$ others is costly, so many papers rank it against $s$ random ones
# ($s=99$ is common). Let its true position be $p$. The $s$ opponents are drawn without replacement from the
# $n-1$ others, of which $p-1$ beat it, so the number that beats it is hypergeometric and
#
# $$\Pr(\text{sampled hit@}k\mid p)=\sum_{o=0}^{k-1}\binom{p-1}o\binom{n-p}{s-o}\Big/\binom{n-1}s. \tag{41.36}$$
#
# Three cases are exact. $s=n-1$: the true metric. $s<k$: no draw can push the item out of the top $k$, and
# the metric is **constant 1** for every model. $s=k=1$: $\frac{n-p}{n-1}$, the share of items it beats, so
# the mean over users is **AUC**. In between, for $s\ll n$, the chance depends on the position almost only
# through that share: it is a smooth curve, not a cut.

# %%
def sampled_hitrate(rank, n, s, k):
    """Eq. (41.36): P(hit@k) of the item at true position `rank` of n among s < n others."""
    if not (1 <= rank <= n and 1 <= s < n and k >= 1):
        raise ValueError(f"need 1 <= rank <= n, 1 <= s < n and k >= 1, got {rank}, {n}, {s}, {k}")
    ways = sum(math.comb(rank - 1, o) * math.comb(n - rank, s - o) for o in range(min(k, s + 1)))
    return ways / math.comb(n - 1, s)

# %%
ranks = [1, 2, 3, 10, 25, 40, 60]
check("41.36", "SciPy's hypergeometric law", [sampled_hitrate(r, 60, 20, 3) for r in ranks],
      [stats.hypergeom.cdf(2, 59, r - 1, 20) for r in ranks], atol=1e-12)

# %%
aucs = [roc_auc([float(p == r) for p in range(1, 61)], list(range(60, 0, -1))) for r in ranks]
check("41.36", "s = k = 1 is AUC", [sampled_hitrate(r, 60, 1, 1) for r in ranks], aucs, atol=1e-12)
check("41.36", "s < k: constant 1", [sampled_hitrate(r, 60, 9, 10) for r in ranks], [1] * 7)
check("41.36", "all others sampled: the exact metric",
      [sampled_hitrate(r, 60, 59, 3) for r in ranks], [r <= 3 for r in ranks])

# %%
opponents = uniform(DRAWS, 59, seed=17).topk(20).indices  # (DRAWS, 20), 0 is the best
hit = ((opponents < 9).sum(-1) < 3).double()  # an item at position 10: nine beat it
z = [abs(z_score(hit, sampled_hitrate(r, 60, 20, 3))) for r in (10, 9, 11)]
check("41.36", "by drawing opponents: |z| < 4", z[0], below=4)
if DRAWS >= 10_000:
    check("41.36", "positions 9 and 11 are refuted, |z| > 6", z[1:], above=6)
else:
    print("not tried: with fewer than 10,000 draws positions 9 and 11 cannot be told apart")

# %% [markdown]
# **Predict.** The chance of a sampled hit against the true position among 1,000 items. Where does it stay
# at 1, and how far from the grey step of the exact metric? (Below the
# figure: two recommenders whose order turns round.)

# %% tags=["hide-input"]
def draw_sampled(s=99, k=10, ax=None):
    """Sampled and exact hitrate@k of an item by its true position among 1,000, s opponents."""
    rank = np.unique(np.r_[1:k + 2, np.geomspace(1, 1000, 60).astype(int)])
    ax = plt.subplots(figsize=(6.0, 3.0))[1] if ax is None else ax
    ax.plot(rank, [sampled_hitrate(int(r), 1000, s, k) for r in rank], label="s opponents")
    ax.step(rank, rank <= k, where="mid", color="grey", label="all items")
    ax.plot(rank, (1000 - rank) / 999, ":", label="share of items beaten (AUC)")
    ax.set(xscale="log", xlabel="true position $p$", ylabel=f"chance of a hit in the top {k}",
           title=f"s = {s}: position 60 hits in {sampled_hitrate(60, 1000, s, k):.0%}")
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)


fig, axes = plt.subplots(1, 3, figsize=(9.6, 2.9), sharey=True)
for s, ax in zip((20, 99, 500), axes):
    draw_sampled(s, ax=ax)
for extra in fig.legends[1:]:
    extra.remove()
plt.show()

# %% tags=["nbval-ignore-output"]
interact(draw_sampled, s=SelectionSlider(options=[1, 2, 5, 10, 20, 50, 99, 200, 500, 800, 950, 999],
                                         value=99, description="sampled opponents s", **WIDE),
         k=IntSlider(10, 1, 20, description="length of the list k", **WIDE), ax=fixed(None));

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# It is above 0.99 up to position 46 with 99 opponents (up to 241 with 20, up to 12 with 500) and passes ½ at
# position 97 (475; 19), roughly at $kn/s$: the metric asks for a place among the best $k/s$ of the catalogue,
# not among the best $k$. With $s<k$ it is 1 everywhere; only at $s=k=1$ (set both) does it become the dotted
# line of AUC.
#
# </details>

# %%
# n = 10,000: A always ranks the right item 60th; B ranks it first for three users in ten and
# 2,000th for the others, so only B ever puts it into a top ten
exact = {"A": 0.0, "B": 0.3}
by_99 = {"A": sampled_hitrate(60, 10_000, 99, 10),
         "B": 0.3 + 0.7 * sampled_hitrate(2000, 10_000, 99, 10)}
print(f"hitrate@10, all items:   A {exact['A']:.2f}   B {exact['B']:.2f}")
print(f"hitrate@10, 99 opponents: A {by_99['A']:.2f}   B {by_99['B']:.2f}")

# %% [markdown]
# ## Where the notes slip
#
# ### E29, E30 · the list is sorted upside down; DCG without base and gain
#
# One set of the notes sorts the items by *increasing* score before taking the first $k$ (the other has it
# right). For a perfect model, $a=r$, that list is the worst of all.
#
# Both sets write $d(p)=1/\log(p+1)$ without a base and leave the gain open. DCG is then not a number; nDCG
# forgives the base (41.14), not the gain. For $r=(2,3,0,1)$: the DCG of its ideal list in two bases, then
# the nDCG with both gains.

# %%
r = [3, 2, 0, 1]
ascending, descending = (ndcg_loop(sorted(r, reverse=down), 4, "linear") for down in (False, True))
worst = min(ndcg_loop(list(x), 4, "linear") for x in permutations(r))
check("41.13", "E29: descending order gives a perfect model nDCG 1", descending, 1.0)
check("41.13", "E29: ascending order gives it the minimum of all orders", ascending, worst)
print(f"ascending: {ascending:.3f}")
best_list = [3, 2, 1, 0]
for base, log in (("2", math.log2), ("e", math.log)):
    print(f"DCG of {best_list} in base {base}:",
          round(sum(g / log(p + 1) for p, g in enumerate(best_list, 1)), 2))
by_gain = [ndcg_loop([2, 3, 0, 1], 4, gain) for gain in ("linear", "exp")]
check("41.13", "E30: nDCG .908 with the linear, .835 with the exponential gain", by_gain,
      [0.908, 0.835], atol=1e-3)

# %% [markdown]
# Right: sort by **decreasing** $a_{ui}$, show the first $k$; base 2 is the convention, and the gain ($2^r-1$
# or $r$) is stated with every number.
#
# ### E31 · "similarity" and "serendipity"
#
# The notes call $\mathrm{unexp}(b,B)$ the similarity of $b$ and $B$, and serendipity. With five, two and no
# books by three authors, $C_B=5$:

# %%
fans = torch.tensor([5, 2, 0])
unexpected = surprise([0, 1, 2], fans)
check("41.27", "E31: it grows as the author gets less familiar: a dissimilarity",
      unexpected, [1 / 6, 4 / 6, 1], atol=1e-12)
check("41.28", "E31: two surprises, one disliked: serendipity 1/2",
      serendipity([1.0, 0.0], [2, 2], fans), 0.5)
print("with C_B as the size of B the favourite author would get", round((1 + 7 - 5) / (1 + 7), 3))

# %% [markdown]
# Right: $\mathrm{unexp}(b,B)$ is a **dis**similarity, the unexpected half; serendipity is unexpected
# **and** relevant, eq. (41.28).
#
# ### Misprints
#
# | no | printed | right, and why |
# |---|---|---|
# | E70 | hitrate $=\lvert R\cap L\rvert\ne\varnothing$ | $[R\cap L\ne\varnothing]$ in Iverson brackets: a number never equals a set, so as printed every list is a hit (41.8) |
# | E71 | DCG@k $=g(r_{ui_1})\times d(p)$, one product with an undefined $p$ | the sum $\sum_{p=1}^kg(r_{(p)})\,d(p)$ (41.11): for $(3,2,1,0)$ 4.76, the first term alone is 3 |
# | E72 | $S_B$ in the definition, $C_B$ in the formula; "$b$: a new" | one symbol, $C_B=\max_yC_{B,y}$ (41.27); a new **book**. Read as the size of $B$ it gives other values (printed above) |
#
# ## What it costs
#
# Finding the $k$ best of $n$ scores needs one pass, $O(n)$ (selection), and $O(k\log k)$ to sort them; the
# group at the border is counted in another pass. So a top-$k$ metric costs $O(n+k\log k)$ per user, against
# $O(n\log n)$ for a full sort, and $O(nN_U)$ memory for the scores of $N_U$ users. IDCG is one more
# selection. Selection replaces the sort when $k\ll n$; for $k=n$
# both have to sort everything. (scikit-learn's AUC with `average="samples"` loops over the users inside.)
# First the proof that the fast versions are right at full size, then the times, and their growth with $n$
# for 16 users:

# %%
big_sc = uniform(COST_USERS, COST_ITEMS, seed=41)
big_rel = (5 * uniform(COST_USERS, COST_ITEMS, seed=42) ** 8).floor()
big_rel[:, 0], big_rel[:, 1] = 4, 0
host_rel, host_sc = host(big_rel), host(big_sc)
check("41.13", "all users at once: scikit-learn's nDCG@10",
      ndcg_at_k(big_rel, big_sc, 10, "linear").mean(), sk.ndcg_score(host_rel, host_sc, k=10),
      rtol=1e-12)

# %%
big_ap = average_precision_at_k(big_rel, big_sc, COST_ITEMS).mean()
check("41.7", "AUC of 100 users at once: scikit-learn's mean",
      roc_auc(big_rel[:100], big_sc[:100]).mean(),
      sk.roc_auc_score(host_rel[:100] > 0, host_sc[:100], average="samples"), rtol=1e-12)
check("41.10", "all users at once: scikit-learn's label ranking AP", big_ap,
      sk.label_ranking_average_precision_score(host_rel > 0, host_sc), rtol=1e-12)

# %% tags=["nbval-ignore-output"]
def auc_per_user():
    """scikit-learn's mean AUC of the first 100 users."""
    return sk.roc_auc_score(host_rel[:100] > 0, host_sc[:100], average="samples")


speed = compare_speed({
    "nDCG@10": lambda: ndcg_at_k(big_rel, big_sc, 10, "linear"),
    "nDCG@10, sklearn": lambda: sk.ndcg_score(host_rel, host_sc, k=10),
    "nDCG@10, sklearn, no ties": lambda: sk.ndcg_score(host_rel, host_sc, k=10, ignore_ties=True),
    "AP@n": lambda: average_precision_at_k(big_rel, big_sc, COST_ITEMS),
    "AP@n, sklearn": lambda: sk.label_ranking_average_precision_score(host_rel > 0, host_sc),
    "AUC, 100 users": lambda: roc_auc(big_rel[:100], big_sc[:100]),
    "AUC, 100 users, sklearn": auc_per_user})
speed

# %% tags=["nbval-ignore-output"]
sizes = [8_000, 32_000, 128_000]
wide_rel = (5 * uniform(16, sizes[-1], seed=43) ** 8).floor()
wide_sc = uniform(16, sizes[-1], seed=44)
for k in (10, 1000):
    t = [timed(ndcg_at_k, wide_rel[:, :n], wide_sc[:, :n], k) for n in sizes]
    slope = np.polyfit(np.log(sizes), np.log(t), 1)[0]
    print(f"k = {k:4d}: {1e3 * t[-1]:.0f} ms at n = {sizes[-1]:,}; time ~ n^{slope:.2f} (linear 1)")

# %% [markdown]
# ## Break it
#
# Change one place of one function and see which ✓ turn red.

# %% tags=["nbval-ignore-output"]
break_it()

# %% [markdown]
# ## Exam

# %% [markdown] tags=["exam"]
# ### Question 14 · What is the training set of a recommender, what is a rating, and which kinds of rating are there?
#
# **По-русски.** Из чего состоит обучающая выборка рекомендательной системы? Что называют рейтингом и каким
# он бывает?
#
# <details><summary>Model answer</summary>
#
# The sample is a set $R$ of triples $(u,i,r_{ui})$ (user, item, rating) for the pairs that are known to
# have interacted, at most one per pair, so
# $\lvert R\rvert=\sum_u\lvert I_u\rvert=\sum_i\lvert U_i\rvert\le N_UN_I$, where $I_u$ are the items rated by
# $u$, $U_i$ the users who rated $i$, $N_U$ and $N_I$ the numbers of users and items. Each pair is described by
# features $x^{ui}$: of the user, of the item, and of both (likes the user gave to this author, share of
# similar clips watched, click rate of the item). Features must be computed from events *before* the
# interaction, otherwise the answer leaks into them. The target is the rating $r_{ui}$: the outcome of the
# interaction.
#
# Kinds: **real** (a mark of 7.5, share of the clip watched, money spent); **ordered classes** (stars);
# **binary** (like / dislike); **unordered classes** (reactions), which have to be mapped to a utility
# before they can rank; **unary / implicit** (click, purchase), where only positives are seen and an empty
# cell means unknown, not disliked. Explicit ratings are rare and honest, implicit ones plentiful and noisy.
# Most of the matrix is empty, and not at random: people rate what they chose to see. The kind decides the
# metric: regression errors for numbers, F and AUC for classes, top-$k$ metrics and DCG for lists.
#
# **Ответ по-русски.** Обучающая выборка — множество $R$ троек (пользователь, объект, рейтинг) $(u,i,r_{ui})$
# для тех пар, взаимодействие которых известно; на пару не более одной тройки, поэтому
# $\lvert R\rvert=\sum_u\lvert I_u\rvert=\sum_i\lvert U_i\rvert\le N_UN_I$, где $I_u$ — объекты, оценённые
# пользователем $u$, $U_i$ — пользователи, оценившие объект $i$, $N_U$ и $N_I$ — число пользователей и объектов.
# Пара описывается признаками $x^{ui}$:
# признаки пользователя, объекта и самой пары (сколько лайков пользователь поставил этому автору, какую долю
# похожих роликов досмотрел, кликабельность объекта). Признаки считаются только по событиям до
# взаимодействия, иначе возникает утечка данных. Целевая переменная — рейтинг $r_{ui}$, то есть результат
# взаимодействия.
#
# Рейтинг бывает вещественным (оценка 7,5, доля просмотра, потраченные деньги), порядковым (звёзды),
# бинарным (лайк / дизлайк), категориальным без порядка (реакции; чтобы ранжировать, их сначала переводят в
# числовую полезность) и унарным, неявным (клик, покупка): видны только положительные события, а пустая
# клетка означает «неизвестно», а не «не понравилось». Явные рейтинги редки, но надёжны, неявных много, но
# они шумные. Большая часть матрицы пуста, и пропуски не случайны: люди оценивают то, что сами выбрали. От
# вида рейтинга зависит мера качества: ошибки регрессии для чисел, F-мера и AUC для классов, метрики первых
# $k$ позиций и DCG для списков.
#
# **Typical mistake.** To call $R$ "the set of features": without the target $r_{ui}$ there is nothing to
# learn. And to treat an empty cell as a rating of 0.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 15 · Which measures would you use for real-valued ratings, for ratings as classes, and where the order matters? Define nDCG.
#
# **По-русски.** Как измерять качество рекомендаций, если рейтинги — числа, если это классы и если важен
# порядок? Дайте определение nDCG.
#
# <details><summary>Model answer</summary>
#
# *Numbers.* With errors $\varepsilon_j$ (prediction minus rating) on $N$ held-out ratings:
# $\mathrm{MSE}=\frac1N\sum_j\varepsilon_j^2$, $\mathrm{RMSE}=\sqrt{\mathrm{MSE}}$,
# $\mathrm{MAE}=\frac1N\sum_j\lvert\varepsilon_j\rvert$. MSE is minimised by the mean, MAE by the median.
# They judge all pairs alike and do not see the order: a constant shift of all predictions costs RMSE and
# changes no list.
#
# *Classes.* With counts of true positives, false positives and false negatives: precision
# $P=\frac{TP}{TP+FP}$, recall $S=\frac{TP}{TP+FN}$, $F_\beta=\frac{(1+\beta^2)PS}{\beta^2P+S}$
# ($F_1=\frac{2PS}{P+S}$). Without a threshold: ROC AUC, the probability that a random relevant item is
# scored above a random irrelevant one (a tie counts one half),
# $\frac1{m(n-m)}\sum_{i\in L}\sum_{j\notin L}([a_i>a_j]+\frac12[a_i=a_j])$ for $n$ items with scores $a_i$, of
# which the $m$ in $L$ are relevant. AUC weighs all positions alike.
#
# *The list.* Sort the $n$ items by decreasing score $a_{ui}$, show the top $k$, $R_u(k)$; relevant items
# $L_u$, $m=\lvert L_u\rvert$. hitrate@k $=[R_u(k)\cap L_u\ne\varnothing]$; precision@k
# $=\lvert R_u(k)\cap L_u\rvert/k$; recall@k $=\lvert R_u(k)\cap L_u\rvert/m$, all blind to the order inside
# the list. With order: AP@k $=\frac1{\min(k,m)}\sum_{p\le k}[r_{(p)}>0]\,\mathrm{precision@}p$ and RR@k
# $=\frac1p$ for the first relevant position $p\le k$, else 0; averaged over users MAP and MRR.
#
# *nDCG.* $r_{(p)}$ is the true relevance of the item at position $p$.
# $\mathrm{DCG@}k=\sum_{p=1}^kg(r_{(p)})\,d(p)$ with $d(p)=1/\log_2(p+1)$ and $g(r)=2^r-1$ or $g(r)=r$.
# $\mathrm{IDCG@}k$ is its maximum over all orders, reached by sorting *all* items of the user by true
# relevance (exchanging a pair in the wrong order gains $(g_j-g_i)(d(p)-d(p'))>0$).
# $\mathrm{nDCG@}k=\mathrm{DCG@}k/\mathrm{IDCG@}k\in[0,1]$, averaged over users. The base of the logarithm
# cancels, the gain does not. A user without relevant items has IDCG = 0: undefined; leave them out and
# report how many there are.
#
# *Beyond accuracy.* Novelty $\lvert R_u(k)\setminus Z_u\rvert/k$, $Z_u$ what the user has viewed before
# (better: ask people). Diversity $\frac2{k(k-1)}\sum_{i<j}\operatorname{dist}(q_i,q_j)$ over the pairs
# shown, $q_i$ a vector of item $i$: items are scored independently, so near-copies may fill a list. Serendipity
# $\frac1k\sum_{b\in R_u(k)}[r_{ub}>0]\,\mathrm{unexp}(b,B)$ with
# $\mathrm{unexp}(b,B)=\frac{1+C_B-C_{B,y}}{1+C_B}$: unexpected (few items $C_{B,y}$ of the same author $y$
# among the items $B$ of the user, $C_B=\max_yC_{B,y}$) and relevant. Measure offline on a split by time,
# online by an A/B test.
#
# **Ответ по-русски.** *Числа.* По $N$ отложенным рейтингам с ошибками $\varepsilon_j$ (предсказание минус
# рейтинг): $\mathrm{MSE}=\frac1N\sum_j\varepsilon_j^2$, $\mathrm{RMSE}=\sqrt{\mathrm{MSE}}$,
# $\mathrm{MAE}=\frac1N\sum_j\lvert\varepsilon_j\rvert$. Минимум MSE достигается на среднем, минимум MAE — на
# медиане. Порядок объектов они не учитывают: сдвиг всех предсказаний на константу меняет RMSE, но не список.
#
# *Классы.* Пусть $TP$, $FP$, $FN$ — число верно найденных, лишних и пропущенных. Точность
# $P=\frac{TP}{TP+FP}$, полнота $S=\frac{TP}{TP+FN}$, F-мера $F_\beta=\frac{(1+\beta^2)PS}{\beta^2P+S}$, при
# $\beta=1$ — $\frac{2PS}{P+S}$. Без порога — площадь под ROC-кривой: вероятность того, что случайный
# релевантный объект оценён выше случайного нерелевантного (при равенстве засчитывается ½),
# $\frac1{m(n-m)}\sum_{i\in L}\sum_{j\notin L}([a_i>a_j]+\frac12[a_i=a_j])$, где $n$ — число объектов с
# оценками $a_i$, $L$ — $m$ релевантных. Все позиции для неё равноценны.
#
# *Порядок.* Сортируем объекты по убыванию оценок модели $a_{ui}$ и показываем первые $k$: $R_u(k)$. Пусть
# $L_u$ — релевантные объекты, $m=\lvert L_u\rvert$. Попадание (0 или 1) hitrate@k
# $=[R_u(k)\cap L_u\ne\varnothing]$, его среднее по пользователям — доля попаданий; точность precision@k
# $=\lvert R_u(k)\cap L_u\rvert/k$; полнота recall@k $=\lvert R_u(k)\cap L_u\rvert/m$; порядок внутри списка
# они не учитывают. Учитывают его: средняя точность AP@k
# $=\frac1{\min(k,m)}\sum_{p\le k}[r_{(p)}>0]\,\mathrm{precision@}p$ и обратный ранг RR@k $=1/p$, где $p\le k$
# — позиция первого релевантного объекта (0, если его нет среди первых $k$); усредняя по пользователям,
# получаем MAP и MRR.
#
# *nDCG.* Пусть $r_{(p)}$ — истинная релевантность объекта на позиции $p$.
# $\mathrm{DCG@}k=\sum_{p=1}^kg(r_{(p)})\,d(p)$, где $d(p)=1/\log_2(p+1)$ — дисконт, $g(r)=2^r-1$ или
# $g(r)=r$ — полезность. IDCG@k — максимум DCG@k по всем перестановкам; он достигается, если отсортировать
# *все* объекты пользователя по истинной релевантности (если на позициях $p<p'$ объекты $i$, $j$ с
# $g_i<g_j$ стоят в неверном порядке, их обмен увеличивает DCG на $(g_j-g_i)(d(p)-d(p'))>0$).
# $\mathrm{nDCG@}k=\mathrm{DCG@}k/\mathrm{IDCG@}k\in[0,1]$, затем усредняем по пользователям. Основание
# логарифма сокращается, выбор $g$ — нет. Если релевантных объектов нет, IDCG = 0 и nDCG не определена:
# таких пользователей исключают и указывают их число.
#
# *Помимо релевантности.* Новизна $\lvert R_u(k)\setminus Z_u\rvert/k$, где $Z_u$ — уже просмотренное
# (надёжнее — опросы). Разнообразие $\frac2{k(k-1)}\sum_{i<j}\operatorname{dist}(q_i,q_j)$ — среднее
# расстояние между векторами объектов списка: объекты оцениваются независимо, и список может заполниться почти
# одинаковыми. Приятная неожиданность (serendipity)
# $\frac1k\sum_{b\in R_u(k)}[r_{ub}>0]\,\mathrm{unexp}(b,B)$,
# $\mathrm{unexp}(b,B)=\frac{1+C_B-C_{B,y}}{1+C_B}$: объект неожидан (среди объектов $B$ пользователя мало
# объектов того же автора $y$: $C_{B,y}$ против $C_B=\max_yC_{B,y}$) и при этом понравился. Офлайн всё это
# измеряют на разбиении по времени, онлайн — A/B-тестом.
#
# **Typical mistake.** Taking the ideal list from the $k$ shown items only: then any list sorted well inside
# itself gets 1. And sorting by increasing score (E29).
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 75 · hitrate, precision, recall, DCG and nDCG at 3; users without a relevant item
#
# A user has six candidates. Sorted by decreasing score, their true relevances are $(2,0,3,1,0,0)$; relevant
# means $r>0$. Compute the five numbers at $k=3$, with both gains. What if all relevances were 0?
#
# **По-русски.** У пользователя шесть объектов; по убыванию предсказанных оценок их истинные релевантности
# равны $(2,0,3,1,0,0)$, релевантны объекты с $r>0$. Посчитайте hitrate@3, precision@3, recall@3, DCG@3 и
# nDCG@3 (для $g(r)=2^r-1$ и $g(r)=r$). Что делать, если релевантных объектов нет?
#
# <details><summary>Model answer</summary>
#
# (The numbers are checked in section 5.) With $R$ the $k$ items shown and $L$ the $m$ relevant ones:
# hitrate $=[R\cap L\ne\varnothing]$, precision $=\lvert R\cap L\rvert/k$, recall
# $=\lvert R\cap L\rvert/m$, $\mathrm{DCG@}k=\sum_{p\le k}g(r_{(p)})/\log_2(p+1)$, nDCG = DCG/IDCG with
# IDCG the DCG of all candidates in the best order. Here $m=3$, and two of them are in the top 3.
#
# hitrate@3 = 1; precision@3 = 2/3 (hits over $k$); recall@3 = 2/3 (hits over $m$). Discounts
# $1/\log_2(p+1)$: $1,\ 0.631,\ 0.5$.
#
# Gain $2^r-1$: DCG@3 $=3\cdot1+0+7\cdot0.5=6.5$; ideal order $(3,2,1)$: IDCG@3
# $=7+3\cdot0.631+1\cdot0.5=9.393$; nDCG@3 $=0.692$. Gain $r$: DCG@3 $=2+0+3\cdot0.5=3.5$, IDCG@3
# $=3+2\cdot0.631+0.5=4.762$, nDCG@3 $=0.735$. The item of relevance 1 at position 4 enters recall and IDCG
# although it is not shown.
#
# For comparison, a random order would give hitrate $1-\binom33/\binom63=0.95$, precision $m/n=½$ and recall
# $k/n=½$: the hit says nothing here.
#
# *No relevant item*: hitrate, precision and DCG are 0 whatever the model does; recall, AP and nDCG are 0/0,
# undefined (RR is 0 by its formula; as there is no first relevant item, it is usually left out with them).
# Give NaN, average over the other users, report the count. With $\theta$ the share of such users a silent 0
# multiplies the mean $\bar x$ by $1-\theta$, a silent 1 turns it into $(1-\theta)\bar x+\theta$; both make
# results on different test sets incomparable.
#
# **Ответ по-русски.** Пусть $R$ — множество из $k$ показанных объектов, $L$ — множество из $m$ релевантных.
# Тогда hitrate $=[R\cap L\ne\varnothing]$, точность precision $=\lvert R\cap L\rvert/k$, полнота recall
# $=\lvert R\cap L\rvert/m$, $\mathrm{DCG@}k=\sum_{p\le k}g(r_{(p)})/\log_2(p+1)$, nDCG = DCG/IDCG, где IDCG —
# DCG всех кандидатов в наилучшем порядке. Здесь $m=3$, среди первых трёх релевантных два. hitrate@3 = 1
# (попадание есть); precision@3 = 2/3 (попадания делим на $k$); recall@3 = 2/3 (попадания делим на $m$).
# Дисконты $1/\log_2(p+1)$: $1;\ 0{,}631;\ 0{,}5$.
#
# При $g(r)=2^r-1$: DCG@3 $=3\cdot1+0+7\cdot0{,}5=6{,}5$; идеальный порядок $(3,2,1)$, IDCG@3
# $=7+3\cdot0{,}631+1\cdot0{,}5=9{,}393$; nDCG@3 $=0{,}692$. При $g(r)=r$: DCG@3 $=2+0+3\cdot0{,}5=3{,}5$;
# IDCG@3 $=3+2\cdot0{,}631+0{,}5=4{,}762$; nDCG@3 $=0{,}735$. Объект с релевантностью 1 на четвёртой позиции
# не показан, но входит в полноту и в IDCG. Для сравнения: случайный порядок даёт hitrate
# $1-\binom33/\binom63=0{,}95$, точность и полноту ½, так что попадание здесь ни о чём не говорит.
#
# Если релевантных объектов нет, hitrate, precision и DCG равны 0 при любой модели, а recall, AP и nDCG не
# определены (0/0); RR по формуле равен 0, но первого релевантного объекта нет, и его обычно исключают вместе
# с ними. Таких пользователей исключают из среднего и сообщают их число. Если записать 0, среднее $\bar x$
# умножится на $1-\theta$, если 1 — станет $(1-\theta)\bar x+\theta$, где $\theta$ — доля таких пользователей;
# результаты на разных тестовых выборках станут несравнимы.
#
# **Typical mistake.** IDCG of $(3,2,0)$, the shown items re-sorted, gives nDCG 0.73 instead of 0.692;
# recall over $k$ instead of over $m$ goes unnoticed here because both are 3.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 76 · How would you find weights of proxy metrics from degradation experiments?
#
# **По-русски.** Как с помощью экспериментов, намеренно ухудшающих продукт, подобрать веса прокси-метрик?
#
# <details><summary>Model answer</summary>
#
# Run experiments that are known to harm the product: random recommendations, popular items only, a stale
# model, one genre only. In each, measure the change $\Delta_e\in\mathbb R^J$ of the $J$ metrics against
# control. Ask for weights whose sum falls in all of them, $w^\top\Delta_e<0$. As scaling $w$ changes
# nothing, write $w^\top\Delta_e\le-1$, or bound $\lvert w_j\rvert\le1$ and maximise the margin:
# $\max\gamma$ subject to $w^\top\Delta_e\le-\gamma$ for all $e$, a linear programme. Bring the metrics to
# one unit first (per cent of control, or standard errors) and say which: the choice changes the weights, even
# their signs.
#
# Duality: $\gamma^*=\min_\lambda\lVert\sum_e\lambda_e\Delta_e\rVert_1$ over $\lambda_e\ge0$,
# $\sum_e\lambda_e=1$, so weights exist exactly if no mixture of damages leaves all metrics unchanged. If
# there are none, a metric that sees the damage is missing, or one of the experiments did no damage.
#
# Cautions: $\Delta_e$ is measured with noise, so use large groups and a margin of a few standard errors.
# With $E\le J$ experiments weights exist almost surely and prove nothing; for independent changes with
# symmetric laws the chance is $2^{-(E-1)}\sum_{j<J}\binom{E-1}j$, still ½ at $E=2J$. The same damage on
# several groups of users counts once. So take many different damages, and validate on damages that were
# left out. The weights may have unexpected signs.
#
# The alternative is regression of the business metric $M$ on the proxies over past experiments,
# $w=(F^\top F)^{-1}F^\top M$ ($F$: a row of proxy changes for each experiment; both centred; $\sigma^2$:
# variance of the noise in $M$); it needs many experiments with a measurable effect on $M$, and correlated
# metrics get unstable weights, even of the wrong sign, because
# $\operatorname{Cov}(w)=\sigma^2(F^\top F)^{-1}$.
#
# **Ответ по-русски.** Проводим эксперименты, которые заведомо ухудшают продукт: случайные рекомендации,
# только популярное, устаревшая модель, только один жанр. В каждом измеряем изменения $J$ метрик
# относительно контрольной группы, $\Delta_e\in\mathbb R^J$, и ищем веса, при которых взвешенная сумма
# падает во всех экспериментах: $w^\top\Delta_e<0$. Умножение $w$ на положительное число ничего не меняет,
# поэтому требуем $w^\top\Delta_e\le-1$ либо ограничиваем $\lvert w_j\rvert\le1$ и максимизируем зазор:
# $\gamma\to\max$ при $w^\top\Delta_e\le-\gamma$ для всех $e$ — задача линейного программирования. Метрики
# заранее приводим к одной единице (проценты от контроля или стандартные ошибки): от этого выбора зависят
# веса, даже их знаки.
#
# Двойственность: $\gamma^*=\min_\lambda\lVert\sum_e\lambda_e\Delta_e\rVert_1$ по $\lambda_e\ge0$,
# $\sum_e\lambda_e=1$. Значит, весов нет тогда и только тогда, когда некоторая выпуклая комбинация изменений
# $\sum_e\lambda_e\Delta_e$ равна нулю: тогда не хватает метрики, которая чувствует это
# ухудшение, или один из экспериментов на самом деле не был ухудшением.
#
# Предостережения: изменения измерены с шумом, нужны большие группы и зазор в несколько стандартных ошибок.
# При $E\le J$ экспериментах веса почти наверное существуют и ничего не доказывают; для независимых
# изменений с симметричными законами вероятность существования весов равна
# $2^{-(E-1)}\sum_{j<J}\binom{E-1}j$ и при $E=2J$ ещё равна ½. Одно и то же ухудшение на нескольких группах
# пользователей — это один эксперимент. Поэтому нужно много разных ухудшений и проверка на ухудшениях, не
# участвовавших в подборе весов. Знаки весов могут оказаться неожиданными; веса зависят от единиц измерения.
#
# Другой путь — регрессия бизнес-метрики $M$ на прокси-метрики по многим прошлым экспериментам с заметным
# влиянием на $M$: $w=(F^\top F)^{-1}F^\top M$ (строки $F$ — изменения прокси-метрик в одном эксперименте,
# величины центрированы, $\sigma^2$ — дисперсия шума в $M$); $\operatorname{Cov}(w)=\sigma^2(F^\top F)^{-1}$,
# поэтому у коррелированных метрик веса неустойчивы, вплоть до неверного знака.
#
# **Typical mistake.** To fix the signs in advance ("more diversity is good"): random recommendations raise
# diversity and coverage. The sign is part of the answer.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# - A training set is a set of triples; the kind of rating decides whether errors, classes or lists are
#   measured. RMSE does not see order, AUC hardly sees the top, top-$k$ metrics do not see the order below $k$.
# - nDCG divides by the best possible list of *all* relevant items: the base of the logarithm cancels, the
#   gain does not. State the gain, $k$, the number of candidates and of users without relevant items.
# - Ties are random orders inside a group: precision, recall, AP, RR, hitrate and DCG all have closed forms
#   for that expectation, and a constant score is exactly a random list.
# - A leak is measured by changing only the leak: the same events, with and without the future. Sampled
#   negatives make another metric: constant for $s<k$, AUC for $s=k=1$.
# - Weights of metrics: regression if the business metric moves, a linear programme over degrading
#   experiments if it does not, with many more *different* damages than metrics.
#
# References
#
# - Järvelin, Kekäläinen (2002).
#   [Cumulated gain-based evaluation of IR techniques](https://doi.org/10.1145/582415.582418). ACM TOIS
#   20(4).
# - Burges et al. (2005).
#   [Learning to rank using gradient descent](https://doi.org/10.1145/1102351.1102363). ICML. (The gain
#   $2^r-1$.)
# - McSherry, Najork (2008).
# [Computing information retrieval performance measures efficiently in the presence of tied scores](https://doi.org/10.1007/978-3-540-78646-7_38).
# ECIR.
# - Chapelle, Metzler, Zhang, Grinspan (2009).
#   [Expected reciprocal rank for graded relevance](https://doi.org/10.1145/1645953.1646033). CIKM.
# - Herlocker, Konstan, Terveen, Riedl (2004).
#   [Evaluating collaborative filtering recommender systems](https://doi.org/10.1145/963770.963772). ACM
#   TOIS 22(1).
# - Krichene, Rendle (2020).
#   [On sampled metrics for item recommendation](https://doi.org/10.1145/3394486.3403226). KDD.
# - Ji, Sun, Zhang, Li (2023).
# [A critical study on data leakage in recommender system offline evaluation](https://doi.org/10.1145/3569930).
# ACM TOIS 41(3).
# - Wendel (1962). [A problem in geometric probability](https://doi.org/10.7146/math.scand.a-10655).
#   Mathematica Scandinavica 11.
# - Harper, Konstan (2015). [The MovieLens datasets: history and context](https://doi.org/10.1145/2827872).
#   ACM TiiS 5(4).
#
# <!-- navigation -->
# previous: [33 CTC and Jasper](33_ctc_jasper.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [42 Neighbours](42_neighbourhood.ipynb)
# <!-- /navigation -->
