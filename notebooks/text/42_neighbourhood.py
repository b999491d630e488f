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
# # 42 · Neighbours: user-based, item-based, content-based
#
# What should we recommend to a person when all we have is a table of ratings, more than nine cells in ten
# empty? Look for people, or for items, that the table shows to be alike; this notebook says what "alike" may
# mean, how much of it is luck, and what such a recommender can and cannot do.
#
# You will be able to
# * compute Pearson's correlation on common items for all pairs at once, and say how far to trust it;
# * write down user-based and item-based collaborative filtering, both as scores and as rating predictions;
# * build a content-based recommender, and choose between the two when a user or an item is new;
# * count what each method costs, and show why the item-based one scales.
#
# **Prerequisites** linear algebra, conditional expectation; [41 ranking metrics](41_ranking_metrics.ipynb)
# for section 9.
#
# **Time** 40 s on 2 CPU cores · **Memory** 0.9 GB · **Data** 20,000 bundled ratings (in full: MovieLens 100K) · **Exam questions** 16, 58
#
# <!-- navigation -->
# previous: [41 Ranking metrics](41_ranking_metrics.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [43 Latent factors](43_latent_factors.ipynb)
# <!-- /navigation -->

# %% [markdown]
# ## Notation
#
# | symbol | in code | shape, unit or range |
# |---|---|---|
# | $r_{ui}$ | `R[u, i]` | rating of item $i$ by user $u$, in stars; `R` is (n_users, n_items), NaN where nothing is rated |
# | $m_{ui}$ | `M[u, i]` | 1 if $r_{ui}$ is known, else 0 |
# | $I_u$, $U_i$ | – | the items that $u$ rated, the users who rated $i$; $n_u=\lvert I_u\rvert$, $n_i=\lvert U_i\rvert$ |
# | $I_{uv}$, $U_{ij}$ | – | items rated by both $u$ and $v$, users who rated both $i$ and $j$; $n_{uv}=\lvert I_{uv}\rvert$ (`n[u, v]`) |
# | $\bar r_u$, $\mu_u$ | – | mean rating of $u$ over the common items $I_{uv}$, and over all of $I_u$ |
# | $w_{uv}$, $w_{ij}$ | `W[u, v]`, `W[i, j]` | similarity in $[-1, 1]$, NaN where undefined |
# | $\lambda$ in (42.5) | `shrinkage` | ≥ 0, in common ratings: strength of a pull of a similarity towards 0 |
# | $\lambda$ from (42.12) on | `lam` | ≥ 0: weight of the L2 penalty on offsets (in ratings), on a profile |
# | $\rho$, $\tau$ | `rho_true`, `tau` | true similarity, its root mean square |
# | $\alpha$ | `alpha` | collaboration threshold, a similarity |
# | $k$ in (42.11) | `n_neighbours` | number of neighbours that vote |
# | $k$ after @ | `k`, `TOP` | length of a list |
# | $\beta$ | `damping` | ≥ 0, a sum of similarities: a pull of the consensus towards 0 |
# | $b_{ui}$, $\delta_{ui}$ | `B[u, i]`, `delta`, `D[u, i]` | baseline rating; deviation $r_{ui}-b_{ui}$ from it, in stars |
# | $x_i$, $p_u$ | `X[i]`, `P[u]` | features of an item, profile of a user: (n_features,) |
# | $\varepsilon$ | `epsilon` | share of random choices, in $[0, 1]$ |
# | $\theta_a$, $\Delta_a$ | `theta[a]`, `gap[a]` | chance of a click on item $a$, its distance to the best one's |

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
# The libraries of this topic: pandas, scipy and scikit-learn serve as judges and tables only.

# %%
import math
import warnings
from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from ipywidgets import BoundedIntText, FloatSlider, IntSlider, interact
from scipy.spatial.distance import cdist
from scipy.spatial.distance import cosine as cosine_distance
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error, ndcg_score, pairwise

from helpers import measured

PAGE = "42"

# %% [markdown]
# Every size and switch. `SHRINKAGE` is twice and a half the value that section 3 derives for the bundled
# data: sections 3 and 7 measure what that costs and what it gains.

# %% tags=["parameters"]
DATA = "bundled"        # or "ml-100k"
N_FOLDS = 3             # folds of the cross-validations in sections 7 and 9, 2 or more
SHRINKAGE = 10.0        # lambda of eq. (42.5)
N_NEIGHBOURS = 20       # k of eq. (42.11)
DAMPING = 0.3           # beta of eq. (42.10)
ALPHA = 0.1             # collaboration threshold of section 9
GOOD = 4.0              # a held-out rating from here on counts as liked
TOP = 10                # length of a recommended list

# %% [markdown]
# ## 1. When are two users alike?
#
# Two users are alike if they rate the same things alike. Let $I_{uv}$ be the items that both have rated.
# Pearson's correlation compares the two users there, each against their own mean **over the common items**,
# $\bar r_u=\frac1{n_{uv}}\sum_{i\in I_{uv}}r_{ui}$:
#
# $$w_{uv}=\frac{\sum_{i\in I_{uv}}(r_{ui}-\bar r_u)(r_{vi}-\bar r_v)}
# {\sqrt{\sum_{i\in I_{uv}}(r_{ui}-\bar r_u)^2}\,\sqrt{\sum_{i\in I_{uv}}(r_{vi}-\bar r_v)^2}} \tag{42.1}$$
#
# It is undefined when there are no common items, or when one of the two gave all of them the same mark. By
# Cauchy–Schwarz it lies in $[-1,1]$, and it does not change when a user's scale does: replace $r_{vi}$ by
# $a\,r_{vi}+c$ with $a>0$ and $c$ cancels in every difference, $a$ in the ratio. A harsh critic and a mild
# one with the same taste are alike.

# %%
def pearson_pair(r_u, r_v):
    """Eq. (42.1) for two users r_u, r_v (n_items,), NaN for missing: a float, NaN if undefined."""
    common = ~(r_u.isnan() | r_v.isnan())                  # (n_items,)
    a, b = r_u[common], r_v[common]                        # (n_uv,)
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt()))

# %% [markdown]
# Six users and six films, small enough to check by eye. Boris (1) agrees with Anna (0), Vera (2) is her
# opposite, Gleb (3) has seen nothing that she has, Dina (4) gave three stars to all that they share, and the
# last one is new.

# %%
nan = math.nan
toy = torch.tensor([[5.0, 4.0, 1.0, nan, nan, 2.0],
                    [4.0, 5.0, 2.0, 4.0, nan, 1.0],
                    [1.0, 2.0, 5.0, nan, 4.0, nan],
                    [nan, nan, nan, 5.0, 3.0, nan],
                    [3.0, 3.0, 3.0, 4.0, nan, nan],
                    [nan, nan, nan, nan, nan, nan]], dtype=torch.float64, device=device)
print("Anna with Boris, Vera, Gleb, Dina:",
      [round(pearson_pair(toy[0], toy[v]), 3) for v in (1, 2, 3, 4)])

# %% [markdown]
# The table, and Anna beside three others: what counts is whether two lines go up and down together, not how
# high they lie.

# %% tags=["hide-input"]
names = ["Anna", "Boris", "Vera", "Gleb", "Dina", "new"]
fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2), width_ratios=(1, 1.25))
left.imshow(toy.cpu(), cmap="Greys", vmin=0, vmax=8)
for u, i in (~toy.isnan()).nonzero().tolist():
    left.text(i, u, f"{toy[u, i]:.0f}", ha="center", va="center")
left.set(xticks=range(6), yticks=range(6), yticklabels=names, xlabel="film",
         title="ratings (stars)")
left.grid(False)
for u, style in ((0, "o-"), (1, "s--"), (2, "^:"), (4, "d-.")):
    right.plot(range(6), toy[u].cpu(), style, label=names[u])
right.set(xlabel="film", ylabel="stars", xticks=range(6), ylim=(0.7, 5.3))
right.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.17))
plt.show()

# %% [markdown]
# Boris and Anna move together ($w=0.8$), Vera and Anna against each other ($-1$), and Dina, who does not move
# on the films that both have seen, can be compared with nobody there.
#
# Judge: `scipy.stats.pearsonr` on the common items of each pair. It returns NaN (and a warning, which we
# mute) for a constant user; fewer than two common items it refuses, and we write NaN.

# %%
def scipy_pair(a, b):
    """Pearson of two numpy vectors on their common entries by scipy; NaN where it is undefined."""
    common = ~(np.isnan(a) | np.isnan(b))
    if common.sum() < 2:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pearsonr(a[common], b[common])[0]

# %% [markdown]
# NaN never passes a `check`; to compare where two tables are undefined, both get a 9 there.

# %%
def filled(W, value=9.0):
    """W (tensor, array or list) with `value` in place of NaN, so that undefined entries compare."""
    W = W if isinstance(W, torch.Tensor) else torch.tensor(np.array(W))
    return W.nan_to_num(nan=value)

# %%
pairs = [(u, v) for u in range(6) for v in range(6)]
check("42.1", "Pearson of one pair is scipy's on the common items, undefined pairs included",
      filled([pearson_pair(toy[u], toy[v]) for u, v in pairs]),
      filled([scipy_pair(*toy[[u, v]].cpu().numpy()) for u, v in pairs]), atol=1e-12)

# %%
check("42.1", "a change of a user's scale, 2 r + 3, changes nothing",
      pearson_pair(toy[0], 2 * toy[1] + 3), pearson_pair(toy[0], toy[1]), atol=1e-12)

# %% [markdown]
# **Two common items say nothing.** Let them be $a$ and $b$. The mean of $u$ is $\frac{r_{ua}+r_{ub}}2$, so
# the deviations are $\pm\frac{d_u}2$ with $d_u=r_{ua}-r_{ub}$, and (42.1) becomes
#
# $$w_{uv}=\frac{\frac{d_u}2\frac{d_v}2+\frac{d_u}2\frac{d_v}2}{\sqrt{2(d_u/2)^2}\sqrt{2(d_v/2)^2}}
# =\frac{d_ud_v}{\lvert d_u\rvert\lvert d_v\rvert}=\operatorname{sign}(d_u)\operatorname{sign}(d_v)\in\{-1,+1\} \tag{42.2}$$
#
# whatever the users are like. This is the weak point of everything that follows, and section 3 repairs it.

# %%
g = torch.Generator().manual_seed(1)
two = torch.rand(200, 2, 2, generator=g, dtype=torch.float64).to(device)  # (pairs, users, items)
slope = two[..., 0] - two[..., 1]                                         # (200, 2)
check("42.2", "with two common items w is the product of two signs, 200 random pairs",
      [pearson_pair(*pair) for pair in two], slope.sign().prod(1), atol=1e-12)

# %% [markdown]
# ## 2. All pairs at once
#
# A loop over pairs is readable and slow. Write $x_{ui}$ for the rating with 0 in the empty cells and $m_{ui}$
# for the mask; a sum over $I_{uv}$ is then a sum over all items of something times $m_{ui}m_{vi}$, that is, a
# matrix product:
#
# | sum over the common items | as matrices |
# |---|---|
# | $n_{uv}$, their number | $MM^\top$ |
# | $S_{uv}=\sum r_{ui}$ — of $v$'s ratings it is $S_{vu}$ | $XM^\top$ |
# | $A_{uv}=\sum r_{ui}^2$ — of $v$'s it is $A_{vu}$ | $(X\odot X)M^\top$ |
# | $C_{uv}=\sum r_{ui}r_{vi}$ | $XX^\top$ |
#
# Expanding the products in (42.1), $\sum(r_{ui}-\bar r_u)(r_{vi}-\bar r_v)=C_{uv}-n\bar r_u\bar
# r_v=C_{uv}-S_{uv}S_{vu}/n_{uv}$, and likewise $\sum(r_{ui}-\bar r_u)^2=A_{uv}-S_{uv}^2/n_{uv}$. Multiply
# above and below by $n_{uv}$:
#
# $$W=\frac{n\odot C-S\odot S^\top}{\sqrt{n\odot A-S\odot S}\;\odot\sqrt{(n\odot A-S\odot S)^\top}}\quad\text{(entry by entry)} \tag{42.3}$$
#
# Differences of large sums lose digits, so the code first subtracts each user's mean over all their ratings
# (a shift changes no correlation) and works in float64.

# %%
def masked_sums(X):
    """Tables n, S, A, C of section 2, each (n, n) float64, for X (n, m) with NaN for missing."""
    M = (~X.isnan()).double()                              # (n, m)
    X = X.double().nan_to_num(nan=0.0)
    return M @ M.T, X @ M.T, (X * X) @ M.T, X @ X.T

# %% [markdown]
# Every function below takes ratings through one door, which accepts what people have (tensors, numpy arrays,
# tables, whole stars) and refuses in words what means nothing:

# %%
def as_ratings(R):
    """R as a float32 or float64 tensor (n_users, n_items), NaN missing; ValueError otherwise.

    Takes tensors, arrays, tables and lists. Half precision becomes float32, integers float64.
    """
    try:
        R = R if isinstance(R, torch.Tensor) else torch.as_tensor(np.array(R))
    except (TypeError, ValueError):
        raise ValueError("the ratings are no table of numbers; give (n_users, n_items)") from None
    if R.ndim != 2 or R.is_complex() or R.dtype == torch.bool:
        raise ValueError("give ratings as numbers (n_users, n_items), NaN where nothing is rated; "
                         f"got {R.dtype} of shape {tuple(R.shape)}")
    if R.isinf().any():
        raise ValueError("the ratings hold an infinity; mark what is missing by NaN")
    if R.is_floating_point():
        return R.float() if R.element_size() < 4 else R
    return R.double()

# %% [markdown]
# The last step of every similarity on this page, explained in section 3, is an optional pull towards 0:

# %%
def shrunk(w, n, min_common, shrinkage):
    """w n / (n + shrinkage), eq. (42.5), with NaN where fewer than min_common items are common."""
    if min_common < 1 or not 0 <= shrinkage < math.inf:
        raise ValueError("need min_common >= 1 and a finite shrinkage >= 0, "
                         f"got {min_common} and {shrinkage}")
    return (w * n / (n + shrinkage)).masked_fill(n < min_common, math.nan)

# %% [markdown]
# `min_common` and `shrinkage` wait for section 3; at their defaults the function below is (42.3) and no more.

# %%
def pearson_similarity(R, min_common=2, shrinkage=0.0):
    """Eq. (42.3): Pearson on common items for all pairs of rows, shrunk by eq. (42.5).

    R: (n_users, n_items) ratings, NaN for missing; R.T compares items. Returns (n_users, n_users),
    float32 for float32, NaN where fewer than max(2, min_common) items are common or one of the two
    is constant on them. Raises ValueError for another kind of R, min_common < 1, shrinkage < 0.
    """
    R = as_ratings(R)
    n, S, A, C = masked_sums(R.double() - R.double().nanmean(1, keepdim=True))
    spread = n * A - S * S                                 # (n_users, n_users): n² variance of u
    constant = spread <= 1e-12 * n * A                     # zero up to rounding
    w = (n * C - S * S.T) / (spread.sqrt() * spread.T.sqrt())
    w = w.clamp(-1, 1).masked_fill(constant | constant.T, math.nan)
    return shrunk(w, n, min_common, shrinkage).to(R.dtype)

# %% [markdown]
# Two judges. The loop of section 1 on a random table, in which pairs with 0, 1, 2 and more common items
# occur; and `pandas.DataFrame.corr`, which has the same definition and a knob for the least number of common
# items.

# %%
def random_table(n_users, n_items, share, number):
    """Table of half stars (n_users, n_items), a `share` of them known; `number` is the seed."""
    g = torch.Generator().manual_seed(number)
    R = 0.5 * torch.randint(1, 11, (n_users, n_items), generator=g).double()
    return R.masked_fill(torch.rand(n_users, n_items, generator=g) > share, math.nan).to(device)

# %% [markdown]
# Thirty users and twelve items will serve as the test table of the whole notebook.

# %%
R_small = random_table(30, 12, 0.4, 2)
table = R_small.cpu().numpy()
by_loop = [[pearson_pair(a, b) for b in R_small] for a in R_small]
by_scipy = [[scipy_pair(a, b) for b in table] for a in table]
common = masked_sums(R_small)[0]
print("pairs with 0, 1, 2, more common items:", [int((common == c).sum()) for c in (0, 1, 2)],
      int((common > 2).sum()))

# %%
check("42.3", "matrix products = the loop over pairs", filled(pearson_similarity(R_small)),
      filled(by_loop), atol=1e-12)
check("42.3", "matrix products = scipy.stats.pearsonr on every pair's common items",
      filled(pearson_similarity(R_small)), filled(by_scipy), atol=1e-12)

# %%
check("42.3", "pairs below min_common = 5 are undefined, as in pandas",
      filled(pearson_similarity(R_small, min_common=5)),
      filled(pd.DataFrame(table.T).corr(min_periods=5).to_numpy()), atol=1e-12)

# %% [markdown]
# A user whose marks are the same up to rounding must come out as undefined, at any offset; and a large offset
# must not hurt.

# %%
flat = torch.tensor([[0.1, 0.1, 0.1, nan], [3.3, 3.3, 3.3, 1.0], [1.0, 2.0, 4.0, nan]]).double()
check("42.3", "constant on the common items, 0.1 or 3.3 three times, is undefined",
      pearson_similarity(flat.to(device))[[0, 0, 0, 1, 2], [0, 1, 2, 2, 1]].isnan())
check("42.3", "an offset of a million costs no more than six digits",
      filled(pearson_similarity(R_small + 1e6)), filled(by_scipy), atol=1e-6)

# %% [markdown]
# Bad input is refused with a reason:

# %%
def refusal(f, *args):
    """The message of the ValueError that f(*args) raises; None if it raises nothing."""
    try:
        f(*args)
    except ValueError as error:
        return str(error)

# %%
for args in ((toy[0],), (toy.nan_to_num(nan=math.inf),), (toy, 0), (toy, 2, -1.0)):
    print(refusal(pearson_similarity, *args))

# %% [markdown]
# Now the data. `R` is the table of all ratings; transposed, the same function compares items.

# %%
def rating_matrix(ratings):
    """Ratings of helpers.data as a table (n_users, n_items), NaN where nothing is rated.

    Raises ValueError if a user rated an item twice, or for an id out of range.
    """
    n, m, value = ratings.n_users, ratings.n_items, ratings.value
    for name, who, size in (("user", ratings.user, n), ("item", ratings.item, m)):
        if ((who < 0) | (who >= size)).any():
            raise ValueError(f"there is a {name} outside 0..{size - 1}: check the ids")
    if len((ratings.user * m + ratings.item).unique()) < len(value):
        raise ValueError("a user rated an item twice: keep one rating, say the last, of each pair")
    value = value if value.is_floating_point() else value.double()
    R = value.new_full((n, m), math.nan)
    R[ratings.user, ratings.item] = value
    return R

# %% [markdown]
# Load them; `items` holds titles and genres for section 8.

# %%
ratings = data.ratings(DATA).to(device)
items = data.items(DATA)
R = rating_matrix(ratings)                                 # (n_users, n_items)
seen = ~R.isnan()

# %%
by_pandas = pd.DataFrame(R.cpu().numpy()).corr(min_periods=2).to_numpy()
check("42.3", "on the data: all pairs of items, against pandas", filled(pearson_similarity(R.T)),
      filled(by_pandas), atol=1e-9)

# %% tags=["nbval-ignore-output"]
print(f"{R.shape[0]} users, {R.shape[1]} items, {len(ratings)} ratings, "
      f"{seen.double().mean():.1%} of the cells")
print(f"common items of two users: median {masked_sums(R)[0].median():.0f}; "
      f"common users of two items: median {masked_sums(R.T)[0].median():.0f}")

# %% [markdown]
# The whole table on the left, users and items sorted by their number of ratings; a point is a block of five users and five items, the darker
# the more of its 25 cells are rated. On the right two of the users side by side on all items that both have rated: the busiest one, and
# the one most like them among those with ten or more common items.

# %% tags=["hide-input"]
u = int(seen.sum(1).argmax())
candidates = pearson_similarity(R, min_common=10)[u].nan_to_num(nan=-2)
candidates[u] = -2
v = int(candidates.argmax())
both = (seen[u] & seen[v]).nonzero()[:, 0]
both = both[R[u, both].argsort(stable=True)]
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1, 1.2))
busiest, most_rated = (seen.sum(axis).argsort(descending=True) for axis in (1, 0))
blocks = torch.nn.functional.avg_pool2d(seen[busiest][None, :, most_rated].float(), 5)[0].cpu()
shade = left.imshow(blocks, cmap="Greys", aspect="auto", vmin=0,
                    extent=(0, R.shape[1], R.shape[0], 0))
fig.colorbar(shade, ax=left, label="share of cells rated")
left.set(xlabel="items, most rated first", ylabel="users, busiest first")
left.grid(False)
for who, style in ((u, "o-"), (v, "s--")):
    right.plot(range(len(both)), R[who, both].cpu(), style, markersize=4, label=f"user {who}")
right.set(xlabel="common items, by the first one's rating", ylabel="stars", ylim=(0.3, 5.7),
          xticks=[], title=f"w = {float(candidates[v]):.2f} from {len(both)} common items")
right.legend(loc="lower right")
plt.show()

# %% [markdown]
# Two lines that rise and fall together are a high similarity. This is the best case: most pairs of users have far less in common.
#
# ## 3. How much of a similarity is luck?
#
# Suppose $u$ and $v$ have nothing to do with each other: every pairing of $v$'s $n$ marks with $u$'s is
# equally likely. Scale the centred marks to $a,b$ with $\sum a_i=\sum b_i=0$ and $\sum a_i^2=\sum b_i^2=1$,
# so that $w=\sum_i a_ib_{\pi(i)}$ for a random permutation $\pi$. Then $\mathbb E\,b_{\pi(i)}=0$, $\mathbb
# E\,b_{\pi(i)}^2=\frac1n$, and for $i\ne j$, since $\sum_{i\ne j}b_ib_j=(\sum b_i)^2-\sum b_i^2=-1$, $\mathbb
# E\,b_{\pi(i)}b_{\pi(j)}=\frac{-1}{n(n-1)}$. The same identity holds for $a$, so
#
# $$\mathbb E\,w=0,\qquad \operatorname{Var}w=\frac1n\sum_ia_i^2-\frac1{n(n-1)}\sum_{i\ne j}a_ia_j=\frac1n+\frac1{n(n-1)}=\frac1{n-1}. \tag{42.4}$$
#
# Five common items: $w=0\pm0.5$ by luck alone. The identity is exact, so brute force over all $n!$ pairings
# must give it.

# %%
def luck(n, number):
    """Mean and variance of w over all n! pairings of two random vectors of n marks."""
    a, b = torch.rand(2, n, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    w = [pearson_pair(a, b[list(order)]) for order in permutations(range(n))]
    return np.mean(w), np.var(w)

# %%
check("42.4", "mean 0 and variance 1/(n-1) over all n! pairings, n = 2..6",
      [luck(n, n) for n in range(2, 7)], [(0.0, 1 / (n - 1)) for n in range(2, 7)], atol=1e-12)

# %% [markdown]
# The similarities of all pairs of users, grouped by the number of common items, beside the band
# $\pm2/\sqrt{n-1}$ of pure luck:

# %%
W_raw, n_common = pearson_similarity(R), masked_sums(R)[0]
pairs_of_users = torch.triu(~W_raw.isnan(), 1)             # each pair once
n_pair, w_pair = n_common[pairs_of_users].cpu(), W_raw[pairs_of_users].cpu()
edges = [2, 3, 4, 5, 7, 10, 15, 20, 30]                    # groups of n: 2, 3, 4, 5-6, 7-9, …
groups = [w_pair[(n_pair >= a) & (n_pair < b)] for a, b in zip(edges, edges[1:])]

# %% [markdown]
# A box holds the middle half of a group, its whiskers nine tenths:

# %% tags=["hide-input"]
fig, ax = plt.subplots(figsize=(7, 3.4))
ax.boxplot([w.numpy() for w in groups], whis=(5, 95), showfliers=False, widths=0.6,
           medianprops={"color": "k"})
luck_of = [2 / math.sqrt(a - 1) for a in edges[:-1]]
for side in (-1, 1):
    ax.plot(range(1, len(edges)), [side * b for b in luck_of], "ko--", markersize=3,
            label="two standard deviations of luck" if side > 0 else None)
names = [f"{a}" if b == a + 1 else f"{a}–{b - 1}" for a, b in zip(edges, edges[1:])]
ax.set_xticks(range(1, len(edges)), names)
ax.set(xlabel=r"number of common items $n_{uv}$ (the band is that of the group's first)",
       ylabel=r"similarity $w_{uv}$", ylim=(-2.1, 2.1))
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# The spread shrinks as the luck does. How many of the pairs that look like soulmates are outside the band?

# %%
close, inside = w_pair > 0.8, w_pair <= 2 / (n_pair - 1).sqrt()
claim("of the pairs with w > 0.8 more than two thirds lie inside the band, of those among them "
      "with ten common items or more, hardly any", float(inside[close].double().mean()),
      above=2 / 3, trivial=float(inside[close & (n_pair >= 10)].double().mean()))

# %% [markdown]
# Luck alone could have made them, and they head a list "most similar first".
#
# **Shrinkage.** Treat the unknown true similarity as $\rho\sim\mathcal N(0,\tau^2)$ and what we see as
# $w\mid\rho\sim\mathcal N(\rho,1/n)$, which is (42.4) for small $\rho$ and all but tiny $n$: an
# approximation, judged below. The exponent of the posterior is $-\frac{n(w-\rho)^2}2-\frac{\rho^2}{2\tau^2}$;
# its derivative in $\rho$ vanishes at $n(w-\rho)=\rho/\tau^2$, and a Gaussian's mode is its mean, so
#
# $$\mathbb E[\rho\mid w]=\frac{n}{n+\lambda}\,w,\qquad \lambda=\frac1{\tau^2}. \tag{42.5}$$
#
# $\lambda$ is the number of common items at which we believe half of what we see. $\lambda=50$, a usual
# value, says that true similarities are about $\tau=0.14$.

# %%
def posterior_mean(w, n, tau):
    """E[rho | w] by quadrature on a grid."""
    rho = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    density = torch.exp(-n * (w - rho)**2 / 2 - rho**2 / (2 * tau**2))
    return float((rho * density).sum() / density.sum())

# %%
cases = [(0.8, 3, 0.5), (-0.4, 10, 0.2), (1.0, 2, 0.14)]               # w, n, tau
check("42.5", "w n / (n + 1/tau²) is the posterior mean by quadrature",
      [shrunk(torch.tensor(w), torch.tensor(n), 2, tau**-2) for w, n, tau in cases],
      [posterior_mean(*case) for case in cases], atol=1e-6)

# %% [markdown]
# And the function of section 2 applies it with the right $n_{uv}$ everywhere, its diagonal included:

# %%
check("42.5", "pearson_similarity shrinks by the number of common items, self-similarity included",
      filled(pearson_similarity(R_small, shrinkage=7.0)),
      filled(torch.tensor(by_scipy) * common.cpu() / (common.cpu() + 7.0)), atol=1e-12)

# %% [markdown]
# Does it help? The bundled ratings were simulated, so the true expected ratings of all users for all items
# are known, and with them the true correlation $\rho_{uv}$ over all items. We compare it with $w$ at several
# $\lambda$, and mark $\lambda=1/\tau^2$ with $\tau^2$ the mean square of the true $\rho$.

# %%
truth, R_sim = data.truth(), rating_matrix(data.ratings("bundled"))
expected = truth.mu + truth.b_u[:, None] + truth.b_i + truth.P @ truth.Q.T     # (n_users, n_items)
W_sim, n_sim = pearson_similarity(R_sim), masked_sums(R_sim)[0]
known = torch.triu(torch.ones_like(W_sim), 1).bool() & ~W_sim.isnan()
rho_true = torch.corrcoef(expected)[known]

# %% [markdown]
# The root of the mean squared error of the shrunk similarities, at a few $\lambda$ and at the predicted one:

# %%
grid = [0, 0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100]
tau = float(rho_true.square().mean().sqrt())
error = [float((shrunk(W_sim, n_sim, 2, shrinkage)[known] - rho_true).square().mean().sqrt())
         for shrinkage in (*grid, tau**-2)]
print(f"tau = {tau:.3f}, so 1/tau² = {tau**-2:.1f}; "
      f"of the values tried {grid[int(np.argmin(error[:-1]))]} was best")

# %%
claim("at 1/tau² the error against the truth is under 0.85 of the raw one",
      error[-1] / error[0], below=0.85, trivial=error[0] / error[0])
claim("the raw similarity is a worse estimate than saying 0, the shrunk one a better one",
      [error[0] > tau, error[-1] < tau], trivial=[error[0] > tau, tau < tau])
claim("the best shrinkage tried is less than 5 % better than 1/tau²", error[-1] / min(error),
      below=1.05, trivial=error[0] / min(error))

# %%
fig, ax = plt.subplots()
ax.plot(grid, error[:-1], "o-", markersize=4, label="error of the shrunk similarity")
ax.axvline(tau**-2, color="k", linestyle=":", label=r"$\lambda=1/\tau^2$")
ax.axhline(tau, color="grey", linestyle="--", label=r"error of saying 0, $\tau$")
ax.set(xscale="symlog", xlim=(0, 110), xlabel=r"shrinkage $\lambda$ (common items)",
       ylabel=r"RMS error of $w_{uv}$ against $\rho_{uv}$")
ax.legend()
plt.show()

# %% [markdown]
# At the predicted $\lambda$ the shrunk similarity is close to the best that shrinkage can do. The minimum is
# flat towards the right: a pull that is somewhat too strong costs little here. What the *prediction of
# ratings* wants is another question; section 7 asks it.

# %% [markdown]
# ## 4. Other similarities: cosine, adjusted cosine, means over everything
#
# **Cosine.** Read the empty cells as zeros and take the angle between two rows:
#
# $$\cos(u,v)=\frac{\sum_{i\in I_{uv}}r_{ui}r_{vi}}{\sqrt{\sum_{i\in I_u}r_{ui}^2}\,\sqrt{\sum_{i\in I_v}r_{vi}^2}} \tag{42.6}$$
#
# Mind the denominators: they run over *all* ratings of a user, so few common items lower the value by
# themselves. With the square roots left out it is the dot product. For items pass the transposed table. For
# purchases and clicks (ones and blanks) it is the usual choice. For stars it has a flaw: it is never
# negative, so it cannot tell indifference from disagreement.

# %%
def cosine_similarity(R):
    """Eq. (42.6): (n, n) cosines of the rows of R (n, m), NaN read as 0; NaN for an empty row."""
    R = as_ratings(R)
    X = R.double().nan_to_num(nan=0.0)
    length = X.norm(dim=1)                                 # (n,)
    return (X @ X.T / (length[:, None] * length)).to(R.dtype)

# %%
check("42.6", "cosine with zeros for missing is scikit-learn's", cosine_similarity(R_small),
      pairwise.cosine_similarity(R_small.nan_to_num(nan=0.0).cpu().numpy()), atol=1e-12)
check("42.6", "opposite tastes, (5, 1) and (1, 5), have cosine 10/26 > 0 and Pearson -1",
      [f(torch.tensor([[5.0, 1], [1, 5]]))[0, 1] for f in (cosine_similarity, pearson_similarity)],
      [10 / 26, -1.0], atol=1e-6)
zeros = R_small.nan_to_num(nan=0.0).cpu().numpy()
check("42.6", "two items: scipy's cosine of two columns", cosine_similarity(R_small.T)[2, 5],
      1 - cosine_distance(zeros[:, 2], zeros[:, 5]), atol=1e-12)

# %% [markdown]
# **Centre first, then take the cosine on the common part.** For any centred table $x_{ui}$ with the same
# empty cells,
#
# $$w_{uv}=\frac{\sum_{i\in I_{uv}}x_{ui}x_{vi}}{\sqrt{\sum_{i\in I_{uv}}x_{ui}^2}\,\sqrt{\sum_{i\in I_{uv}}x_{vi}^2}} \tag{42.7}$$
#
# and what is subtracted gives the similarity its name:
# * $x_{ui}=r_{ui}-\mu_u$, the mean over **all** ratings of the user: Pearson with overall means (GroupLens, 1994);
# * the same $x_{ui}$, but sums over users for a pair of items: **adjusted cosine**. Item means are not
#   touched; it removes that some *users* are generous, which would make all pairs of items look alike;
# * $x_{ui}=r_{ui}-b_{ui}$ with the baseline of section 7, for users or for items: Pearson of residuals.
#
# Overall means know more than the common items do: a user whose common ratings are all far above their mean
# is not "constant". Who gave *everything* the same mark is, and what rounding leaves of their deviations must
# count as 0. A single common item still gives $\pm1$, and shrinkage is needed as before.

# %%
def common_cosine(X, min_common=2, shrinkage=0.0):
    """Eq. (42.7), shrunk by eq. (42.5): (n, n) for the rows of a centred X (n, m), NaN missing."""
    X = as_ratings(X)
    n, _, A, C = masked_sums(X)
    w = (C / (A.sqrt() * A.T.sqrt())).clamp(-1, 1)         # 0/0 = NaN where a row is all zero
    return shrunk(w, n, min_common, shrinkage).to(X.dtype)


def deviations(R):
    """r_ui - mu_u in float64, NaN for missing; what only rounding left of a constant user is 0."""
    R = as_ratings(R).double()
    mean = R.nanmean(1, keepdim=True)
    return (R - mean).masked_fill((R - mean).abs() <= 1e-12 * mean.abs(), 0.0)

# %%
def pearson_overall(R, min_common=2, shrinkage=0.0):
    """Eq. (42.7) with means over all a user rated. R (n_users, n_items) -> (n_users, n_users)."""
    return common_cosine(deviations(R), min_common, shrinkage).to(as_ratings(R).dtype)


def adjusted_cosine(R, min_common=2, shrinkage=0.0):
    """Eq. (42.7) for items, user means removed. R (n_users, n_items) -> (n_items, n_items)."""
    return common_cosine(deviations(R).T, min_common, shrinkage).to(as_ratings(R).dtype)

# %% [markdown]
# The judge is a loop over pairs with `scipy.spatial.distance.cosine` on explicitly selected entries.

# %%
def cosine_loop(X, least):
    """1 - scipy's cosine distance of all rows of a numpy X on common entries; NaN below `least`."""
    W = np.full((len(X), len(X)), np.nan)
    for u, v in np.ndindex(W.shape):
        common = ~(np.isnan(X[u]) | np.isnan(X[v]))
        if common.sum() >= least:
            W[u, v] = 1 - cosine_distance(X[u, common], X[v, common])
    return W

# %%
centred = table - np.nanmean(table, axis=1, keepdims=True)
check("42.7", "Pearson with overall means: from 3 common items on, shrunk by 4",
      filled(pearson_overall(R_small, 3, 4.0)),
      filled(torch.tensor(cosine_loop(centred, 3)) * common.cpu() / (common.cpu() + 4)), atol=1e-12)

# %%
check("42.7", "adjusted cosine of all pairs of items, two common users at least, no shrinkage",
      filled(adjusted_cosine(R_small)), filled(cosine_loop(centred.T, 2)), atol=1e-12)

# %%
one = common_cosine(torch.tensor(centred), 1)[common.cpu() == 1]
check("42.7", "one common item gives ±1", ((one.abs() - 1).abs() < 1e-12)[~one.isnan()])
check("42.7", "by default two common items are needed and nothing is shrunk",
      filled(pearson_overall(R_small)), filled(cosine_loop(centred, 2)), atol=1e-12)
monotone = torch.full((3, 3), 0.1, dtype=torch.float64)
check("42.7", "users who gave 0.1 to everything have no similarity, whatever rounding leaves",
      [f(monotone).isnan() for f in (pearson_overall, adjusted_cosine)],
      np.ones((2, 3, 3)))

# %% [markdown]
# ## 5. User-based recommendation: the collaboration
#
# The lecture's recipe has two steps. The **collaboration** of a user is everyone who is more similar to them
# than a threshold, the user excepted: $U(u)=\{v\ne u: w_{uv}>\alpha\}$. The score of an item the user has not
# rated is the share of the collaboration that has:
#
# $$p_{ui}=\frac{\lvert\{v\in U(u): r_{vi}\text{ is known}\}\rvert}{\lvert U(u)\rvert}=\frac{\sum_{v\in U(u)}m_{vi}}{\lvert U(u)\rvert}\qquad (i\notin I_u) \tag{42.8}$$
#
# The $k$ items with the largest $p_{ui}$ are recommended. With an indicator matrix $[v\in U(u)]$ all scores
# are one matrix product. An empty collaboration gives $0/0$: an untypical user gets nothing, and NaN says so.

# %%
def collaboration(W, alpha):
    """[v in U(u)] as bool (n_users, n_users): w_uv > alpha; NaN never, u in their own never."""
    return (W > alpha) & ~torch.eye(len(W), dtype=torch.bool, device=W.device)

# %%
def as_similarity(W, R, n, alpha=0.0):
    """W as a tensor (n, n) of R's dtype and device, alpha a threshold; ValueError otherwise."""
    W = torch.as_tensor(W if isinstance(W, torch.Tensor) else np.array(W))
    if W.shape != (n, n) or W.is_complex():
        raise ValueError(f"W must be a matrix {(n, n)}, a row and a column for each user (or, item-"
                         f"based, each item); got shape {tuple(W.shape)}")
    if W.isinf().any() or math.isnan(alpha):
        raise ValueError("a similarity or the threshold alpha is no number; where a similarity is "
                         "undefined put NaN, as alpha give one from -1 to 1")
    return W.to(R.device, torch.promote_types(W.dtype, R.dtype))

# %%
def user_based_scores(R, W, alpha):
    """Eq. (42.8): the share of each user's collaboration that has rated an item, in [0, 1].

    R: (n_users, n_items), NaN for missing; W: (n_users, n_users), NaN where undefined; alpha: least
    similarity, exclusive. Returns (n_users, n_items): NaN for items that the user has rated and for
    users without a collaboration.
    Raises ValueError for R or W of another shape, alpha = NaN.
    """
    R = as_ratings(R)
    W = as_similarity(W, R, len(R), alpha)
    known, U = ~R.isnan(), collaboration(W, alpha).to(R.dtype)
    p = U @ known.to(R.dtype) / U.sum(1, keepdim=True)                      # (n_users, n_items)
    return p.masked_fill(known, math.nan)

# %% [markdown]
# Judge: the definition with Python sets, on a table in which some users have no collaboration. The
# similarities are made asymmetric and the diagonal is NaN-free, so that a transposed $W$ or a self-vote
# shows.

# %%
def user_based_loop(R, W, alpha):
    """Eq. (42.8) by sets."""
    p = torch.full(R.shape, math.nan, dtype=R.dtype)
    rated = [set(np.flatnonzero(row).tolist()) for row in (~R.isnan()).cpu().numpy()]
    for u in range(len(R)):
        U = {v for v in range(len(R)) if v != u and W[u, v] > alpha}
        for i in set(range(R.shape[1])) - rated[u]:
            p[u, i] = sum(i in rated[v] for v in U) / len(U) if U else math.nan
    return p

# %% [markdown]
# Three users get an empty collaboration, and one similarity equals the threshold, which is not above it.

# %%
noise = torch.rand(30, 30, generator=torch.Generator().manual_seed(4)).double().to(device)
W_test = pearson_similarity(R_small) - noise               # asymmetric, some NaN
W_test[:3], W_test[5, 6] = W_test[:3] - 2, 0.2   # three empty collaborations; one w = alpha

# %%
p = user_based_scores(R_small, W_test, 0.2)
check("42.8", "shares by matrix product = set enumeration, undefined ones included",
      filled(p), filled(user_based_loop(R_small, W_test, 0.2)), atol=1e-12)
check("42.8", "the three users without a collaboration get no score", p[:3].isnan())

# %% [markdown]
# A list of the best items. Sorting puts NaN *first*, so unscored items must be taken out, or a user is
# recommended what they have just seen; $-\infty$ means "must not be shown" and is taken out as well. A list
# that runs out of candidates is filled with −1.

# %%
def top_items(scores, k):
    """The k best items of each row of scores (n, m), best first: (n, k), -1 when none is left.

    NaN and -inf are never shown; among equal scores the smaller id comes first.
    """
    scores = torch.as_tensor(scores if isinstance(scores, torch.Tensor) else np.array(scores))
    if scores.ndim != 2 or not (1 <= k <= scores.shape[1] and k == int(k)):
        raise ValueError("give scores (n_users, n_items) and a whole k from 1 to n_items; "
                         f"got scores {tuple(scores.shape)} and k = {k}")
    scores = scores if scores.is_floating_point() else scores.double()
    scores = torch.where(scores.isnan(), -math.inf, scores)
    best, index = (x[:, :int(k)] for x in scores.sort(dim=1, descending=True, stable=True))
    return index.masked_fill(best == -math.inf, -1)

# %% [markdown]
# Three places, two users, one of whom nothing is known:

# %%
print(top_items(torch.tensor([[0.2, nan, 0.9, -math.inf], [nan, nan, nan, nan]]), 3).tolist())

# %% [markdown]
# **The threshold.** A high $\alpha$ keeps only true soulmates and leaves many users without a collaboration;
# a low one lets in the crowd, and $p_{ui}$ becomes the popularity of the item. How many users are served, and
# by how many neighbours:

# %%
alphas = torch.linspace(0, 0.9, 19).tolist()
W_shrunk = pearson_similarity(R, shrinkage=SHRINKAGE)
sizes = {name: torch.stack([collaboration(W, a).sum(1).double() for a in alphas]).cpu()
         for name, W in (("raw Pearson", W_raw), (f"shrunk, λ = {SHRINKAGE:g}", W_shrunk))}

# %% [markdown]
# On the left the share of users served, on the right the size of a typical collaboration:

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2))
for (name, size), style in zip(sizes.items(), ("o-", "s--")):        # size: (thresholds, n_users)
    left.plot(alphas, (size > 0).double().mean(1), style, markersize=3.5, label=name)
    right.plot(alphas, size.median(1).values, style, markersize=3.5, label=name)
left.set(xlabel=r"threshold $\alpha$", ylabel="users with a collaboration (share)", ylim=(0, 1.03))
right.set(xlabel=r"threshold $\alpha$", ylabel=r"median size of $U(u)$ (users)")
left.legend()
plt.show()

# %% [markdown]
# With raw similarities a typical user keeps many soulmates even at $\alpha=0.9$. Who are they?

# %%
soulmates = n_common[collaboration(W_raw, 0.9)]
claim("raw: at alpha = 0.9 half of the users or more keep 20 neighbours or more",
      sizes["raw Pearson"].median(1).values[-1], above=19.5,
      trivial=[*sizes.values()][1].median(1).values[-1])
claim("three quarters of the members have three common items or fewer with their user",
      float((soulmates <= 3).double().mean()), above=0.75,
      trivial=float((n_common[~W_raw.isnan()] <= 3).double().mean()))

# %% [markdown]
# ## 6. Item-based recommendation
#
# Turn the table round. Two items are alike if the same users rate them alike: (42.1) over $U_{ij}$, **all**
# users who rated both. In code it is `pearson_similarity(R.T)`. For a user take the unseen items that
# resemble something they have rated, $I(u)=\{i\notin I_u:\exists\,i_0\in I_u,\ w_{i_0i}>\alpha\}$, and score
# by the best resemblance:
#
# $$p_{ui}=\max_{i_0\in I_u,\;w_{i_0i}>\alpha}w_{i_0i}\qquad(i\in I(u)) \tag{42.9}$$
#
# No similar *user* is needed, so the untypical one is served too. A recommendation comes with its reason,
# "because you rated $i_0$" — which, mind, does not say that they liked it.

# %%
def item_based_scores(R, W, alpha):
    """Eq. (42.9): the largest similarity of an unseen item to the items that the user has rated.

    R: (n_users, n_items), NaN for missing; W: (n_items, n_items), W[i0, i], NaN where undefined;
    alpha: least similarity, exclusive. Returns (n_users, n_items): NaN outside I(u), that is, for
    rated items and for those like nothing they rated. Raises ValueError as (42.8) does.
    """
    R = as_ratings(R)
    W = as_similarity(W, R, R.shape[1], alpha)
    W = torch.where(W > alpha, W, -math.inf).to(R.dtype)
    p = torch.full_like(R, -math.inf)
    for u in (~R.isnan()).any(1).nonzero()[:, 0]:
        p[u] = W[~R[u].isnan()].amax(0)                    # (n_u, n_items) -> (n_items,)
    return p.masked_fill(~R.isnan() | (p == -math.inf), math.nan)

# %%
def item_based_loop(R, W, alpha):
    """Eq. (42.9) by sets."""
    p = torch.full(R.shape, math.nan, dtype=R.dtype)
    for u in range(len(R)):
        rated = set(np.flatnonzero(~R[u].isnan().cpu()))
        for i in set(range(R.shape[1])) - rated:
            p[u, i] = max([float(W[j, i]) for j in rated if W[j, i] > alpha], default=math.nan)
    return p

# %% [markdown]
# Again the similarities are made asymmetric, since it matters which index is the rated item.

# %%
noise = torch.rand(12, 12, generator=torch.Generator().manual_seed(5)).double().to(device)
W_items_test = pearson_similarity(R_small.T) - noise       # asymmetric
W_items_test[3, 8] = W_items_test[8, 3] = 0.1              # exactly alpha is not above it

# %%
check("42.9", "best resemblance = set enumeration",
      filled(item_based_scores(R_small, W_items_test, 0.1)),
      filled(item_based_loop(R_small, W_items_test, 0.1)), atol=1e-12)
check("42.9", "a user without ratings has no candidates",
      item_based_scores(toy, torch.ones(6, 6).to(toy), 0)[5].isnan())

# %% [markdown]
# On the toy table, Anna's only candidates are films 3 and 4; a similarity matrix made by hand shows the
# maximum at work.

# %%
W_hand = torch.eye(6).double().to(device)
W_hand[0, 3], W_hand[1, 3], W_hand[5, 4], W_hand[2, 4] = 0.3, 0.6, 0.2, 0.05
print("Anna's scores:", item_based_scores(toy, W_hand, 0.1)[0].tolist())
check("42.9", "film 3 by its likeness to film 1, film 4 by film 5, nothing else",
      filled(item_based_scores(toy, W_hand, 0.1)[0]), [9, 9, 9, 0.6, 0.2, 9])

# %% [markdown]
# ## 7. Predicting a rating
#
# A share and a maximum rank items but are not in stars. For a rating let the neighbours **vote**. Users
# differ in their scale, so a vote is a deviation $\delta_v=r_{vi}-b_{vi}$ from what is expected of that user;
# a neighbour with $w_v<0$ votes for the opposite, $\operatorname{sign}(w_v)\,\delta_v$. Their consensus is a
# weighted least-squares compromise, with a vote of weight $\beta\ge0$ for "no deviation":
#
# $$\hat\delta=\arg\min_x\Bigl[\sum_v\lvert w_v\rvert\bigl(x-\operatorname{sign}(w_v)\,\delta_v\bigr)^2+\beta x^2\Bigr]=\frac{\sum_vw_v\delta_v}{\sum_v\lvert w_v\rvert+\beta} \tag{42.10}$$
#
# since half the derivative is $x\bigl(\sum\lvert w_v\rvert+\beta\bigr)-\sum\lvert
# w_v\rvert\operatorname{sign}(w_v)\,\delta_v$ and $\lvert w\rvert\operatorname{sign}w=w$. The textbook has
# $\beta=0$. The absolute values matter: without them weights $0.5$ and $-0.4$ would divide by $0.1$.

# %%
def consensus(w, delta, damping=0.0):
    """Eq. (42.10) along the last axis, w and delta (..., k); NaN where all weights are 0."""
    weight = w.abs().sum(-1)
    return ((w * delta).sum(-1) / (weight + damping)).masked_fill(weight == 0, math.nan)

# %% [markdown]
# For numpy, $\beta$ is one more voter, who says 0 with weight $\beta$:

# %%
g = torch.Generator().manual_seed(6)
w, delta = torch.randn(2, 5, generator=g, dtype=torch.float64)
root = torch.cat([w.abs(), torch.tensor([0.7])]).sqrt().numpy()   # one more vote: 0, weight 0.7
votes = torch.cat([w.sign() * delta, torch.zeros(1)]).numpy()
check("42.10", "the damped weighted mean is the least-squares consensus", consensus(w, delta, 0.7),
      np.linalg.lstsq(root[:, None], root * votes, rcond=None)[0][0], atol=1e-7)

# %%
check("42.10", "undamped it is numpy's weighted average of the signed votes", consensus(w, delta),
      np.average(w.sign() * delta, weights=w.abs()), atol=1e-12)

# %% [markdown]
# Let $N_k(u,i)$ be the $k$ users most similar to $u$ (largest $w_{uv}$) **among those who rated** $i$, $u$
# excluded. Then
#
# $$\hat r_{ui}=b_{ui}+\frac{\sum_{v\in N_k(u,i)}w_{uv}\,(r_{vi}-b_{vi})}{\sum_{v\in N_k(u,i)}\lvert w_{uv}\rvert+\beta},\qquad b_{ui}=\mu_u\text{ unless said otherwise.} \tag{42.11}$$
#
# The item-based prediction is the same formula on the transposed table: neighbours are the items that $u$
# rated, deviations are taken from item means. First the readable version, one pair at a time:

# %%
def predict_loop(R, W, n_neighbours, damping=0.0):
    """Eq. (42.11) with b = user means, pair by pair."""
    mean, prediction = R.nanmean(1), torch.full(R.shape, math.nan, dtype=R.dtype)
    for u, i in np.ndindex(R.shape):
        votes = [(float(W[u, v]), float(R[v, i] - mean[v])) for v in range(len(R))
                 if v != u and not R[v, i].isnan() and not W[u, v].isnan()]
        votes = sorted(votes, reverse=True)[:n_neighbours]
        weight = sum(abs(w) for w, _ in votes)
        if weight > 0:
            prediction[u, i] = mean[u] + sum(w * d for w, d in votes) / (weight + damping)
    return prediction

# %% [markdown]
# In bulk: only the $n_i$ raters of an item can vote, so for all users at once pick the $k$ largest of `W[:,
# raters]`. Over all items that is $O(n_\text{users}\sum_in_i)$, the number of users times the number of
# ratings.

# %%
def predict_ratings(R, W, n_neighbours, baseline=None, damping=0.0):
    """Eq. (42.11): baseline plus the consensus of the n_neighbours nearest raters, in stars.

    R: (n_users, n_items), NaN for missing; W: (n_users, n_users), NaN where undefined; baseline:
    broadcasts to (n_users, n_items), the users' means if None; damping: beta. Returns (n_users,
    n_items), rated cells too (nobody votes for themselves), NaN where no rater has a defined,
    non-zero similarity. Item-based: predict_ratings(R.T, W_items, k).T. Raises ValueError for other
    shapes, n_neighbours that is no whole number from 1 on, damping < 0.
    """
    R = as_ratings(R)
    W = as_similarity(W, R, len(R)).to(R.dtype)
    if not (1 <= n_neighbours < math.inf and n_neighbours % 1 == 0 and 0 <= damping < math.inf):
        raise ValueError("need a whole n_neighbours >= 1 and a damping >= 0, "
                         f"got {n_neighbours} and {damping}")
    B = R.nanmean(1, keepdim=True) if baseline is None else torch.as_tensor(baseline).to(R)
    B = B.expand_as(R)
    W = W.clone().fill_diagonal_(math.nan).nan_to_num(nan=-math.inf)
    shift = torch.full_like(R, math.nan)
    for i in range(R.shape[1]):
        raters = (~R[:, i].isnan()).nonzero()[:, 0]                          # (n_i,)
        w, place = W[:, raters].topk(min(int(n_neighbours), len(raters)), 1)  # (n_users, k)
        delta = (R[:, i] - B[:, i])[raters][place]                           # (n_users, k)
        shift[:, i] = consensus(w.masked_fill(w == -math.inf, 0.0), delta, damping)
    return B + shift

# %%
g = torch.Generator().manual_seed(7)
W_votes = pearson_similarity(R_small) + 0.1 * torch.rand(30, 30, generator=g).to(R_small)
for voters, beta in ((1, 0.0), (3, 0.5), (100, 0.0)):
    check("42.11", f"bulk = loop, k = {voters}, beta = {beta}: negative, undefined, no weights",
          filled(predict_ratings(R_small, W_votes, voters, damping=beta)),
          filled(predict_loop(R_small, W_votes, voters, beta)), atol=1e-10)

# %% [markdown]
# Two more judges, by hand. Film 4 for Boris: its raters are Vera, whose similarity with Boris is negative,
# and Gleb, who shares a single film with Boris. And a table that (42.11) must reproduce: all users agree up
# to their own offset, so every neighbour has the same deviation.

# %%
W_toy = pearson_similarity(toy)
check("42.11", "film 4 for Boris is the opposite of what Vera thinks, about the mean of Boris",
      predict_ratings(toy, W_toy, 5)[1, 4], toy[1].nanmean() - (4.0 - toy[2].nanmean()), atol=1e-12)

# %%
offsets = (torch.tensor([[0.0], [0.5], [1.0], [-1.0]]) + torch.tensor([1, 2, 4, 3.5])).double()
check("42.11", "a table of offsets is reproduced, cell by cell",
      predict_ratings(offsets, torch.ones(4, 4), 2), offsets, atol=1e-12)

# %%
check("42.11", "a constant baseline instead of the means: the mean of the other users' ratings",
      predict_ratings(offsets, torch.ones(4, 4), 3, torch.tensor([[1.5]]))[0], offsets[1:].mean(0),
      atol=1e-12)

# %% [markdown]
# A baseline with a value for every cell, shifted so that the residuals of each user have mean 0: the loop,
# run on residuals, must add the same.

# %%
g = torch.Generator().manual_seed(9)
B_t = torch.rand(30, 12, generator=g, dtype=torch.float64).to(device)
B_t = B_t + (R_small - B_t).nanmean(1, keepdim=True)
check("42.11", "a baseline by cell: the loop on residuals, added to it",
      filled(predict_ratings(R_small, W_votes, 3, B_t, 0.5)),
      filled(B_t.cpu() + predict_loop(R_small - B_t, W_votes, 3, 0.5)), atol=1e-10)

# %% [markdown]
# **The baseline.** Before neighbours are praised: how good is a prediction that knows no similarity at all? A
# global mean plus an offset for the item plus one for the user, each damped, since few ratings make
# unreliable offsets. The offset that minimises $\sum_{u\in U_i}(r_{ui}-\mu-b)^2+\lambda b^2$ is, by setting
# the derivative to zero,
#
# $$b_i=\frac{\sum_{u\in U_i}(r_{ui}-\mu)}{n_i+\lambda},\qquad b_u=\frac{\sum_{i\in I_u}(r_{ui}-\mu-b_i)}{n_u+\lambda},\qquad b_{ui}=\mu+b_i+b_u. \tag{42.12}$$
#
# A user or an item without ratings gets offset 0, and $b_{ui}$ is defined everywhere: it is what we fall back
# on. (One pass, items first; notebook 43 trains all offsets jointly.)

# %%
def baseline_ratings(R, lam=5.0):
    """Eq. (42.12): mu + b_i + b_u, offsets damped by lam ratings. R (n, m) -> (n, m), no NaN."""
    R = as_ratings(R)
    if not lam >= 0:
        raise ValueError(f"lam, the damping of the offsets, must be 0 or more; got {lam}")
    known, mu = ~R.isnan(), R.nanmean()
    b_i = (R - mu).nansum(0) / (known.sum(0) + lam)                                   # (m,)
    b_i = b_i.nan_to_num(nan=0.0)                          # 0/0: no ratings and lam = 0
    b_u = (R - mu - b_i).nansum(1, keepdim=True) / (known.sum(1, keepdim=True) + lam)  # (n, 1)
    return mu + b_i + b_u.nan_to_num(nan=0.0)

# %% [markdown]
# Judge: two ridge regressions with one column for each item, then for each user.

# %%
u_obs, i_obs = np.nonzero(~np.isnan(table))
r_obs, mu, ridge = table[u_obs, i_obs], np.nanmean(table), Ridge(alpha=3.0, fit_intercept=False)
b_i = ridge.fit(np.eye(12)[i_obs], r_obs - mu).coef_
b_u = ridge.fit(np.eye(30)[u_obs], r_obs - mu - b_i[i_obs]).coef_
check("42.12", "damped means are two ridge regressions on one-hot columns",
      baseline_ratings(R_small, 3.0), mu + b_i + b_u[:, None], atol=1e-9)

# %%
check("42.12", "an unknown user gets the item's damped mean", baseline_ratings(toy)[5],
      [(5 * float(toy.nanmean()) + float(film.nansum())) / (5 + int((~film.isnan()).sum()))
       for film in toy.T], atol=1e-12)

# %% [markdown]
# **Cross-validation.** Every rating is held out once. A method sees the training table and returns all
# predictions; where it has none the baseline steps in (the share of such cells is `asked in vain`), and
# predictions are clipped to the scale of the stars: not to the range of the held-out ratings, which nobody
# knows beforehand.

# %%
def fold_of(n, n_folds, number):
    """Fold 0..n_folds-1 of each of n ratings: (n,) int64, sizes equal up to one, seeded."""
    if not 2 <= n_folds <= n:
        raise ValueError(f"n_folds must be from 2 to {n}, the number of ratings, got {n_folds}: "
                         "each fold is held out once and the others are trained on")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(number))
    return order % n_folds

# %%
STARS = {"bundled": (0.5, 5.0), "ml-100k": (1.0, 5.0)}


def held_out_error(prediction, B, test, scale=None):
    """RMSE (stars) on held-out ratings, and the share for which the baseline B had to step in.

    prediction, B: (n_users, n_items); what is predicted is clipped to `scale`, by default that of
    the data set. Raises ValueError if nothing is held out.
    """
    if len(test) == 0:
        raise ValueError("no held-out ratings: nothing to measure; hold out some")
    ours, vain = prediction[test.user, test.item], prediction[test.user, test.item].isnan()
    ours = torch.where(vain, B[test.user, test.item], ours).clamp(*(scale or STARS[DATA]))
    return float((ours - test.value).square().mean().sqrt()), float(vain.double().mean())

# %%
four, stars = torch.arange(4), torch.tensor([2.0, 4.0, 3.0, 4.0])     # held out: a table's diagonal
guess = torch.diag(torch.tensor([-3.0, nan, 3.5, 9.0]))
claim("clipped to 1..5, with a fallback to 2 stars for one rating of four: as by scikit-learn",
      held_out_error(guess, torch.full((4, 4), 2.0),
                     data.Ratings(four, four, stars, four, 4, 4), (1, 5)),
      (mean_squared_error(stars, [1, 2, 3.5, 5])**0.5, 0.25), atol=1e-6)

# %% [markdown]
# All methods are formulas of this page. Negative similarities are set to zero, "friends only", except in the
# line with foes. "On residuals" means that both the similarity (42.7) and the votes use $r-b$ with the
# baseline of (42.12).

# %%
def knn(R, W, baseline=None, damping=0.0):
    """Eq. (42.11) with friends only: negative similarities count as 0."""
    return predict_ratings(R, W.clamp(min=0), N_NEIGHBOURS, baseline, damping)

# %% [markdown]
# One line a method; each takes the training table and its baseline.


# %%
METHODS = {
    "user mean": lambda R, B: R.nanmean(1, keepdim=True).expand_as(R),
    "baseline": lambda R, B: B,
    "user kNN, no shrinkage": lambda R, B: knn(R, pearson_similarity(R)),
    "user kNN": lambda R, B: knn(R, pearson_similarity(R, 2, SHRINKAGE)),
    "user kNN, overall means": lambda R, B: knn(R, pearson_overall(R, 2, SHRINKAGE)),
    "… with foes": lambda R, B: predict_ratings(R, pearson_overall(R, 2, SHRINKAGE), N_NEIGHBOURS),
    "… damped": lambda R, B: knn(R, pearson_overall(R, 2, SHRINKAGE), damping=DAMPING),
    "user kNN, residuals, damped":
        lambda R, B: knn(R, common_cosine(R - B, 2, SHRINKAGE), B, DAMPING),
    "item kNN": lambda R, B: knn(R.T, pearson_similarity(R.T, 2, SHRINKAGE)).T,
    "item kNN, adjusted cosine": lambda R, B: knn(R.T, adjusted_cosine(R, 2, SHRINKAGE)).T,
    "item kNN, residuals, damped":
        lambda R, B: knn(R.T, common_cosine((R - B).T, 2, SHRINKAGE), B.T, DAMPING).T}

# %% tags=["nbval-ignore-output"]
fold = fold_of(len(ratings), N_FOLDS, 0).to(device)
rows = []
for f in progress(range(N_FOLDS), "folds"):
    R_train, test = rating_matrix(ratings[fold != f]), ratings[fold == f]
    B = baseline_ratings(R_train)
    rows += [(name, *held_out_error(predict(R_train, B), B, test))
             for name, predict in METHODS.items()]

# %% [markdown]
# Means over the folds and their standard deviation:

# %% tags=["nbval-ignore-output"]
errors = pd.DataFrame(rows, columns=["method", "RMSE", "asked in vain"])
errors = errors.groupby("method", sort=False)
result = errors["RMSE"].agg(["mean", "std"]).join(errors["asked in vain"].mean()).round(4)
for name, row in result.iterrows():
    measured(f"RMSE, {name}", row["mean"], row["std"])
result

# %% [markdown]
# For comparison the full run on MovieLens 100K (five folds, $\lambda=50$, $k=40$, $\beta=0.3$), RMSE in
# stars, spread of the folds at most 0.004:
#
# | user mean | baseline | user kNN, no shrinkage | user kNN | overall means | … damped | residuals, damped | item kNN | residuals, damped |
# |---|---|---|---|---|---|---|---|---|
# | 1.042 | 0.943 | 0.949 | 0.941 | 0.936 | 0.931 | 0.917 | 0.919 | 0.914 |
#
# On MovieLens a model that knows nothing of similarity takes three quarters of the way from the user's mean
# to the best line, and unshrunk neighbours give some of it back; on the bundled data it takes half. Nobody
# can fall much below 0.5 stars there, the noise that was put in. Centring by the baseline and damping cost
# next to nothing and help in both. The spread is the standard deviation over folds: a rough error bar for one
# method, too wide for the *difference* of two, since all are tried on the same folds. So two lines are
# compared fold by fold. What held in both runs:

# %%
by_fold = pd.DataFrame(rows).groupby(0)[1].apply(list)     # a list of N_FOLDS errors per method
best = by_fold["baseline"]
claim("in every fold the baseline beats the users' means", best, below=by_fold["user mean"],
      trivial=by_fold["user mean"])
for name in ("user kNN, residuals, damped", "item kNN, residuals, damped"):
    claim(f"in every fold '{name}' beats the baseline", by_fold[name], below=best, trivial=best)

# %%
for better, worse in (("user kNN", "user kNN, no shrinkage"),
                      ("… damped", "user kNN, overall means")):
    claim(f"in every fold '{better}' beats '{worse}'", by_fold[better], below=by_fold[worse],
          trivial=by_fold[worse])
claim("every rating is held out once, in folds of equal size", np.bincount(fold.cpu()),
      [len(range(f, len(ratings), N_FOLDS)) for f in range(N_FOLDS)])

# %% [markdown]
# **How many neighbours, and how strong a pull?** One neighbour is noise, all of them are nearly the item's
# mean deviation. The curve on the first fold without shrinkage, with the $\lambda=4$ that section 3 derived
# for the bundled data, and with `SHRINKAGE` (Pearson with means over common items, friends only, no damping):

# %%
R_train, test = rating_matrix(ratings[fold != 0]), ratings[fold == 0]
B = baseline_ratings(R_train)
counts = (1, 3, 10, 30, 100)
curves = {}
for shrinkage in (0.0, 4.0, SHRINKAGE):
    W = pearson_similarity(R_train, 2, shrinkage).clamp(min=0)
    curves[shrinkage] = [held_out_error(predict_ratings(R_train, W, n), B, test)[0] for n in counts]

# %%
fig, ax = plt.subplots()
for (shrinkage, curve), style in zip(curves.items(), ("s--", "^-.", "o-")):
    ax.plot(counts, curve, style, markersize=4, label=rf"user kNN, $\lambda={shrinkage:g}$")
ax.axhline(held_out_error(B, B, test)[0], color="k", linestyle=":", label="baseline")
ax.set(xscale="log", xlabel="neighbours $k$", ylabel="RMSE (stars)")
ax.set_xticks(counts, counts)
ax.legend()
plt.show()

# %% [markdown]
# Where is the minimum, how flat is it, and is the stronger pull worth it?

# %%
curve, raw = curves[SHRINKAGE], curves[0.0]
print(f"best of the tried: {counts[int(np.argmin(curve))]} neighbours (shrunk), "
      f"{counts[int(np.argmin(raw))]} (raw)")
claim("from 10 to 100 neighbours the error moves by less than 0.02 stars, one neighbour costs more "
      "than 0.05", np.ptp(curve[2:]), below=0.02, trivial=curve[0] - min(curve))
claim("the gain by shrinkage is largest with one neighbour", raw[0] - curve[0],
      above=max(a - b for a, b in zip(raw[1:], curve[1:])), trivial=raw[-1] - curve[-1])
claim("its best error is below that of the pull 4 which section 3 derived", min(curve),
      below=min(curves[4.0]), trivial=min(curves[4.0]))

# %% [markdown]
# Without shrinkage the nearest neighbours are the lucky ones, and the left end suffers most. The best pull
# for ratings is stronger than $1/\tau^2$: (42.5) asks for the similarity of *expected* ratings on average
# over all pairs, a prediction uses only the largest ones. That is why `SHRINKAGE` is 10; the difference is
# small.

# %% [markdown]
# ## 8. Content-based filtering
#
# Now forget the other users. Let $x_i$ describe item $i$ by features that are known before anyone rates it
# (here: genres, scaled to length 1), and fit to the deviations $\delta_{ui}=r_{ui}-b_{ui}$ of *one* user a
# linear model, their **profile**:
#
# $$p_u=\arg\min_p\sum_{i\in I_u}(\delta_{ui}-\langle p,x_i\rangle)^2+\lambda\lVert p\rVert^2
# =\Bigl(\sum_{i\in I_u}x_ix_i^\top+\lambda I\Bigr)^{-1}\sum_{i\in I_u}\delta_{ui}x_i \tag{42.13}$$
#
# (set the gradient $-2\sum x_i(\delta_{ui}-\langle p,x_i\rangle)+2\lambda p$ to zero). The prediction is
# $\hat r_{ui}=b_{ui}+\langle p_u,x_i\rangle$, for any item with features. The classical profile, a weighted
# sum of what the user has rated, is what remains for strong regularisation:
#
# $$\lambda\,p_u=\Bigl(I+\tfrac1\lambda\sum x_ix_i^\top\Bigr)^{-1}\sum\delta_{ui}x_i\;\xrightarrow[\lambda\to\infty]{}\;\sum_{i\in I_u}\delta_{ui}\,x_i \tag{42.14}$$
#
# What they liked pulls the profile towards it, what they disliked pushes it away.

# %%
def user_profiles(D, X, lam):
    """Eq. (42.13) for all users. D: (n_users, n_items) deviations, NaN missing; X: (n_items, F).

    lam: ridge penalty > 0. Returns P (n_users, F), of X's dtype (D's, if X holds whole numbers or
    truth values), zero for a user without ratings. ValueError for other shapes, lam <= 0.
    """
    D = as_ratings(D)
    n_users, n_items = D.shape
    X = torch.as_tensor(X if isinstance(X, torch.Tensor) else np.array(X)).to(D.device)
    X = X.to(D.dtype) if not X.is_floating_point() or X.element_size() < 4 else X
    if X.ndim != 2 or len(X) != n_items or not 0 < lam < math.inf or not X.isfinite().all():
        raise ValueError(f"need finite features X ({n_items}, F) and a finite lam > 0, "
                         f"got {tuple(X.shape)} and {lam}")
    F = X.shape[1]
    outer = (X[:, :, None] * X[:, None, :]).reshape(n_items, F * F)
    A = ((~D.isnan()).to(X.dtype) @ outer).reshape(n_users, F, F)            # sums of x xᵀ over I_u
    A = A + lam * torch.eye(F, dtype=X.dtype, device=X.device)
    return torch.linalg.solve(A, D.nan_to_num(nan=0.0).to(X.dtype) @ X)      # (n_users, F)

# %%
g = torch.Generator().manual_seed(10)
X_t = torch.randn(12, 4, generator=g, dtype=torch.float64).to(device)      # (n_items, F)
D_t = R_small - R_small.nanmean(1, keepdim=True)
ridge = Ridge(alpha=2.0, fit_intercept=False)
by_ridge = [ridge.fit(X_t[~row.isnan()].cpu(), row[~row.isnan()].cpu()).coef_ for row in D_t]
check("42.13", "every user's profile is scikit-learn's ridge on their own ratings",
      user_profiles(D_t, X_t, 2.0), by_ridge, atol=1e-9)

# %%
by_sum = [sum(D_t[u, i] * X_t[i] for i in range(12) if not D_t[u, i].isnan()) for u in range(30)]
check("42.14", "lam × profile tends to the sum of deviation × features",
      1e8 * user_profiles(D_t, X_t, 1e8), by_sum, atol=1e-5)

# %% [markdown]
# Two properties follow from the formula and decide when to use the method. It needs **no other users**:
# delete them all and the profile stays the same. And it is **blind to new interests**: $p_u$ is a combination
# of the $x_i$ that $u$ has rated (multiply (42.13) by the bracket), so along a feature that none of them has,
# it is exactly zero, and items that have only such features get the baseline.

# %%
alone = D_t.clone()
alone[1:] = math.nan
check("42.13", "user 0's profile does not depend on the other users",
      user_profiles(alone, X_t, 2.0)[0], user_profiles(D_t, X_t, 2.0)[0], atol=1e-12)

# %% [markdown]
# New interests: a fifth feature that occurs only in items that user 0 has not rated.

# %%
X_niche = torch.cat([X_t, torch.zeros(12, 1).to(X_t)], 1)
X_niche[D_t[0].isnan(), 4] = 1.0                           # only of items user 0 has not rated
check("42.13", "along a feature never met, the profile is 0",
      user_profiles(D_t, X_niche, 2.0)[0, 4], 0.0, atol=1e-12)

# %% [markdown]
# **Which similarity?** Profile and items live in one space, and "near" may mean the dot product, the cosine
# or a small distance. They are tied by
#
# $$\lVert p-x\rVert^2=\lVert p\rVert^2+\lVert x\rVert^2-2\langle p,x\rangle, \tag{42.15}$$
#
# so for items of one length all three give the same order; otherwise the dot product favours long vectors
# (notebook 48 reduces one search to the other).

# %%
P_t, dot = X_t[:3], X_t[:3] @ X_t.T
check("42.15", "squared distances are lengths minus twice the dot product",
      (P_t**2).sum(1, keepdim=True) + (X_t**2).sum(1) - 2 * dot,
      cdist(P_t.cpu(), X_t.cpu())**2, atol=1e-10)

# %% [markdown]
# Scaled to length 1, the three rank alike; as they are, they do not:

# %%
unit = X_t / X_t.norm(dim=1, keepdim=True)
by_dot, by_cosine, by_distance = (score.argsort(1) for score in (
    P_t @ unit.T, cosine_similarity(torch.cat([P_t, unit]))[:3, 3:], -torch.cdist(P_t, unit)))
check("42.15", "items of length 1: dot product, cosine and distance rank alike",
      (by_dot == by_cosine) & (by_dot == by_distance))
check("42.15", "items of different lengths: they do not", bool((dot.argsort(1) != by_cosine).any()))

# %% [markdown]
# A profile read as text: the user with most ratings, their strongest likes and dislikes.

# %% tags=["nbval-ignore-output"]
X = items.genre.double().to(device)
X = X / X.norm(dim=1, keepdim=True).clamp(min=1e-12)       # (n_items, F), length 1
B_all = baseline_ratings(R)
profile = user_profiles(R - B_all, X, 5.0)[seen.sum(1).argmax()]
order = profile.argsort().tolist()
print("likes   ", ", ".join(f"{items.genre_names[g]} {profile[g]:+.2f}" for g in order[:-4:-1]))
print("dislikes", ", ".join(f"{items.genre_names[g]} {profile[g]:+.2f}" for g in order[:3]))

# %% [markdown]
# ## 9. Which list is best?
#
# A good rating predictor need not make good lists. A held-out item counts as liked from `GOOD` stars on; each
# user with a liked one gets the `TOP` best unseen items, and we take precision, recall and nDCG with binary
# relevance (derived in [notebook 41](41_ranking_metrics.ipynb)). Shares and counts are often equal: as there,
# each of the tied items gets the mean relevance of its group, the expectation over all orders of the group;
# what has no score or $-\infty$ is not shown. Random order and plain popularity are what must be beaten.

# %%
def ranking_metrics(scores, R_train, test, k, good):
    """[precision@k, recall@k, nDCG@k], means over users with a held-out rating >= good.

    scores, R_train: (n_users, n_items); NaN and -inf are not shown, ties as in eq. (41.20).
    [NaN, NaN, NaN] if nobody has such a rating; ValueError for k outside 1..n_items.
    """
    if not 1 <= k <= R_train.shape[1]:
        raise ValueError(f"k must be from 1 to {R_train.shape[1]}, the number of items; got {k}")
    liked = torch.zeros(R_train.shape, dtype=torch.float64, device=R_train.device)
    liked[test.user, test.item] = (test.value >= good).to(liked.dtype)
    users = liked.sum(1) > 0
    hidden = ~R_train.isnan() | scores.isnan()                             # no rated items
    best, index = scores.masked_fill(hidden, -math.inf)[users].sort(1, descending=True)
    liked = liked[users].gather(1, index)                                  # (n, n_items), by rank
    new = (best[:, 1:] != best[:, :-1]).cumsum(1)                          # number of the tie group
    group = torch.cat([torch.zeros_like(index[:, :1]), new], 1)            # (n, n_items)
    total, size = (torch.zeros_like(liked).scatter_add(1, group, x)
                   for x in (liked, torch.ones_like(liked)))
    hit = (total / size).gather(1, group) * (best > -math.inf)             # (n, n_items)
    d = 1 / torch.log2(torch.arange(liked.shape[1], device=hit.device).double() + 2)
    place = torch.arange(len(d), device=d.device)
    ideal = (d * (place < liked.sum(1).clamp(max=k)[:, None])).sum(1)
    hits = hit[:, :k].sum(1)                                               # (n,)
    values = hits / k, hits / liked.sum(1), (hit * d)[:, :k].sum(1) / ideal
    return [float(value.mean()) for value in values]

# %% [markdown]
# The instrument is checked before it is used: nDCG by scikit-learn, precision and recall by the chance of
# each item to be in the list.

# %%
def judged(scores, R_train, test, k, good):
    """The same three means item by item and by scikit-learn, user by user."""
    rows = []
    for u in range(len(R_train)):
        free = np.flatnonzero(R_train[u].isnan().cpu())
        mine, s = test.user == u, scores[u].cpu().numpy()[free]
        liked = {int(i) for i, r in zip(test.item[mine], test.value[mine]) if r >= good}
        if liked:
            last = np.sort(s)[-min(k, len(s))]             # the lowest score that is shown
            room = k - (s > last).sum()                    # places for those who have it
            chance = np.where(s > last, 1, np.where(s == last, min(1, room / (s == last).sum()), 0))
            hits = sum(c for i, c in zip(free, chance) if i in liked)
            ndcg = ndcg_score([[i in liked for i in free]], [s.tolist()], k=k)
            rows.append((hits / k, hits / len(liked), ndcg))
    return np.mean(rows, axis=0)

# %% [markdown]
# Random scores, once as they are and once rounded to quarters, so that they tie; some of the empty cells of
# the test table become held-out ratings of 3, 4 or 5 stars.

# %%
g = torch.Generator().manual_seed(8)
empty = R_small.isnan().nonzero()                          # (cells, 2): some are held out
stars = torch.randint(1, 6, (len(empty),), generator=g).double().to(device)
held = data.Ratings(*empty.T, stars, torch.zeros_like(empty[:, 0]), 30, 12)[stars > 2]
score_t = torch.rand(30, 12, generator=g, dtype=torch.float64).to(device)

# %%
tasks = [(score, R_small, held, k, 4.0) for k in (3, 9)        # few users have nine candidates
         for score in (score_t, (4 * score_t).round() / 4)]
claim("precision, recall, nDCG at 3 and 9 of random and tied lists: by chances and scikit-learn",
      [ranking_metrics(*task) for task in tasks], [judged(*task) for task in tasks], atol=1e-12)

# %% [markdown]
# One more candidate repairs the share (42.8): count only the members of the collaboration who **liked** the
# item.

# %%
def liked_share_scores(R, W, alpha, good):
    """Share of the collaboration that rated an item `good` or better, NaN as in eq. (42.8)."""
    R = as_ratings(R)
    W = as_similarity(W, R, len(R), alpha)
    U = collaboration(W, alpha).to(R.dtype)
    p = U @ (R >= good).to(R.dtype) / U.sum(1, keepdim=True)                # NaN >= good is False
    return p.masked_fill(~R.isnan(), math.nan)

# %%
likes = (R_small >= 3).to(R_small)                         # 1 if liked, 0 if not or not rated
by_count = torch.stack([likes[U].mean(0) for U in collaboration(W_test, 0.2)])      # row by row
claim("share of the collaboration that liked it, by counting; rated items out",
      filled(liked_share_scores(R_small, W_test, 0.2, 3.0)),
      filled(by_count.masked_fill(~R_small.isnan(), nan)), atol=1e-12)

# %% [markdown]
# The candidates: chance and popularity, the two scores of the lecture, predicted ratings with and without
# damping, content.

# %%
LISTS = {
    "random": lambda R, B: torch.rand(R.shape, generator=torch.Generator().manual_seed(0)).to(R),
    "popularity": lambda R, B: (~R.isnan()).sum(0).to(R).expand_as(R),
    "popularity among likes": lambda R, B: (R >= GOOD).sum(0).to(R).expand_as(R),
    "user-based share":
        lambda R, B: user_based_scores(R, pearson_similarity(R, 2, SHRINKAGE), ALPHA),
    "user-based share of likes":
        lambda R, B: liked_share_scores(R, pearson_similarity(R, 2, SHRINKAGE), ALPHA, GOOD),
    "item-based, raw": lambda R, B: item_based_scores(R, pearson_similarity(R.T), ALPHA),
    "item-based, shrunk":
        lambda R, B: item_based_scores(R, pearson_similarity(R.T, 2, SHRINKAGE), ALPHA),
    "user kNN stars": lambda R, B: knn(R, pearson_overall(R, 2, SHRINKAGE)),
    "user kNN stars, damped": lambda R, B: knn(R, pearson_overall(R, 2, SHRINKAGE), None, DAMPING),
    "item kNN stars, damped":
        lambda R, B: knn(R.T, common_cosine((R - B).T, 2, SHRINKAGE), B.T, DAMPING).T,
    "content stars": lambda R, B: B + user_profiles(R - B, X, 5.0) @ X.T}

# %% [markdown]
# The same folds as before; every line is a mean over folds with its spread.

# %% tags=["nbval-ignore-output"]
rows, names = [], [f"precision@{TOP}", f"recall@{TOP}", f"nDCG@{TOP}"]
for f in progress(range(N_FOLDS), "folds"):
    R_train, test = rating_matrix(ratings[fold != f]), ratings[fold == f]
    B = baseline_ratings(R_train)
    rows += [(name, *ranking_metrics(score(R_train, B), R_train, test, TOP, GOOD))
             for name, score in LISTS.items()]

# %% tags=["nbval-ignore-output"]
lists = pd.DataFrame(rows, columns=["list", *names])
in_fold = lists.groupby("list")[names[2]].apply(np.array)   # (N_FOLDS,) per list
lists = lists.groupby("list", sort=False).agg(["mean", "std"])
for name, row in lists.iterrows():
    measured(f"nDCG@{TOP}, {name}", row[names[2], "mean"], row[names[2], "std"])
lists.round(4)

# %% [markdown]
# What holds in every fold:

# %%
claim("lists by the share of the collaboration have five times the nDCG of chance",
      in_fold["user-based share"], above=5 * in_fold["random"], trivial=in_fold["random"])
claim("unshrunk item-based scores lose more than half of what shrunk ones reach",
      in_fold["item-based, raw"], below=in_fold["item-based, shrunk"] / 2,
      trivial=in_fold["item-based, shrunk"])
claim("lists by predicted stars have less than three quarters of plain popularity's nDCG",
      np.maximum(in_fold["user kNN stars"], in_fold["item kNN stars, damped"]),
      below=0.75 * in_fold["popularity"], trivial=in_fold["popularity"])
claim("damping makes better lists", in_fold["user kNN stars, damped"],
      above=in_fold["user kNN stars"], trivial=in_fold["user kNN stars"])

# %% [markdown]
# Why are predicted stars so poor a list? On the last fold, how many have rated the items that are recommended:

# %%
raters = (~R_train.isnan()).sum(0).double()                # (n_items,)
met = []
for name in ("user kNN stars", "user kNN stars, damped", "popularity"):
    index = top_items(LISTS[name](R_train, B).masked_fill(~R_train.isnan(), nan), TOP)
    met.append(float(raters[index[index >= 0]].mean()))
print("raters of a recommended item: {:.0f} undamped, {:.0f} damped, {:.0f} popularity; "
      "of any item {:.0f}".format(*met, raters.mean()))
claim("undamped stars recommend the rarest items, damped ones rarer than popularity's",
      np.diff(met), above=0, trivial=[0.0, 0.0])

# %% [markdown]
# On MovieLens 100K (five folds, $\alpha=0.05$, the rest as in section 7), nDCG@10 with a spread of 0.001–0.012:
#
# | random | popularity | user-based share | … of likes | item-based, raw | shrunk | user kNN stars | … damped | item kNN stars, damped | content |
# |---|---|---|---|---|---|---|---|---|---|
# | 0.009 | 0.173 | 0.238 | 0.233 | 0.017 | 0.171 | 0.002 | 0.120 | 0.091 | 0.083 |
#
# Four lessons. **Luck ruins maxima**: the best of hundreds of raw similarities is a 1 from two common users,
# and the raw item-based list is near chance. **Stars are not clicks**: undamped predictions put items on top
# that few people meet; damping (42.10) demotes them. **Popularity is strong**: the test asks which items
# people *chose to rate*. And **a share can beat popularity only if choosing depends on taste**: on MovieLens
# it does and the user-based share wins; in the bundled data, whose cells were opened without regard to taste,
# the share of *any* ratings cannot; there the share of *likes* is level with popularity among likes, or a
# little above.

# %% [markdown]
# ## 10. Cold start
#
# A new user has no row, a new item no column. What does each method still do?
#
# | | user without ratings | user with few | item without ratings |
# |---|---|---|---|
# | popularity, (42.12) | the same list for everybody | moves with the user's mean | damped to the mean: never on top |
# | user-based | $U(u)=\varnothing$: nothing | similarities are luck, (42.4) | nobody has it: nothing |
# | item-based | $I_u=\varnothing$: nothing | answers from the first rating; $W$ stays as it is | no $w_{ij}$: nothing |
# | content-based | $p_u=0$: nothing (ask for genres) | from the first rating | works at once |
#
# The experiment. A fifth of the users is "new": of their ratings only the first $m$ (in time) are known, and
# we predict those from the eleventh on. Then the same with a fifth of the items. Every method is a correction
# to the baseline (42.12) and equals it where it has no answer; kNN is damped.

# %%
def position_in_history(who, time, n):
    """0 for the first rating in time of an id, 1 for its second: who, time (N,) -> (N,) int64.

    Equal times keep the order of the rows. n: number of ids, all of `who` below it.
    """
    order = time.argsort(stable=True)
    order = order[who[order].argsort(stable=True)]         # by user, within a user by time
    start = torch.bincount(who, minlength=n).cumsum(0) - torch.bincount(who, minlength=n)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order), device=order.device) - start[who[order]]
    return position

# %%
def cold_split(ratings, who, n, m):
    """Bool masks of training and test rows: a fifth of the ids with 20+ ratings shows only m."""
    position = position_in_history(who, ratings.time, n)
    enough = torch.bincount(who, minlength=n) >= 20
    coin = torch.rand(n, generator=torch.Generator().manual_seed(11)).to(who.device)
    is_new = (coin < 0.2) & enough
    return ~is_new[who] | (position < m), is_new[who] & (position >= 10)

# %% [markdown]
# The methods: corrections to the baseline, from the first common item on.

# %%
COLD = {
    "user kNN": lambda R, B: knn(R, common_cosine(R - B, 1, SHRINKAGE), B, DAMPING),
    "item kNN": lambda R, B: knn(R.T, common_cosine((R - B).T, 1, SHRINKAGE), B.T, DAMPING).T,
    "content": lambda R, B: B + user_profiles(R - B, X, 5.0) @ X.T}

# %% [markdown]
# One row of the result: all methods when $m$ ratings of every new one are known.

# %%
def cold_errors(who, n, m):
    """Row m of the table: RMSE of baseline and methods, share that user and item kNN left open."""
    train, test = cold_split(ratings, who, n, m)
    R = rating_matrix(ratings[train])
    B, test = baseline_ratings(R), ratings[test]
    found = {name: held_out_error(predict(R, B), B, test) for name, predict in COLD.items()}
    return {"known": m, "baseline": held_out_error(B, B, test)[0],
            **{name: error[0] for name, error in found.items()},
            **{f"{name} in vain": found[name][1] for name in ("user kNN", "item kNN")}}

# %% [markdown]
# The order of a history decides what leaks; pandas ranks it too.

# %%
times = pd.Series(ratings.time.cpu().numpy()).groupby(ratings.user.cpu().numpy())
claim("histories are numbered 0, 1, 2, … in time, as by pandas",
      position_in_history(ratings.user, ratings.time, R.shape[0]), times.rank(method="first") - 1)

# %%
train, test_rows = cold_split(ratings, ratings.user, R.shape[0], 3)
total, kept, asked = (np.bincount(ratings.user[rows].cpu(), minlength=R.shape[0])
                      for rows in (slice(None), train, test_rows))
new = asked > 0
claim("the new ones have 20 ratings or more, show three and are asked about all but ten",
      [kept[new], asked[new], total[new] >= 20], [np.full(new.sum(), 3), total[new] - 10, new[new]])
claim("all others show everything; about a fifth of those with 20 ratings is new",
      bool((kept == total)[~new].all()) and 0.1 < new.sum() / (total >= 20).sum() < 0.3)

# %% [markdown]
# The two experiments, with $m=0, 1, 3, 10$ known ratings:

# %% tags=["nbval-ignore-output"]
known_counts = (0, 1, 3, 10)
sides = {"new users": (ratings.user, R.shape[0]), "new items": (ratings.item, R.shape[1])}
cold = {name: pd.DataFrame([cold_errors(*side, m) for m in progress(known_counts)])
        for name, side in sides.items()}

# %% [markdown]
# "In vain" is the share of test ratings for which a kind of neighbour had no answer.

# %% tags=["nbval-ignore-output"]
for name, frame in cold.items():
    print(f"{name}\n{frame.round(3).to_string(index=False)}\n")
    for method in ("baseline", "content"):
        measured(f"RMSE, {name}, none of their ratings known, {method}", frame[method].iloc[0])

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.3))
for ax, (name, frame) in zip(axes, cold.items()):
    for method, style in zip(["baseline", *COLD], ("k:", "o-", "s--", "^-.")):
        ax.plot(range(len(frame)), frame[method], style, markersize=4, label=method)
    ax.set(title=name, xlabel="known ratings $m$")
    ax.set_xticks(range(len(frame)), frame["known"])
axes[0].set_ylabel("RMSE (stars)")
axes[0].legend()
plt.show()

# %% [markdown]
# On the left all methods start at the baseline and, on the bundled data, have earned their distance by the
# tenth rating; on the right content starts below it: only features say anything about an item that nobody has
# rated. With one known rating kNN can be *worse* than the baseline; perhaps because its few similarities are
# luck.
#
# Real users are harder. RMSE of the full run on MovieLens 100K:
#
# | known ratings $m$ | users: baseline | user kNN | item kNN | content | items: baseline | user kNN | item kNN | content |
# |---|---|---|---|---|---|---|---|---|
# | 0 | 1.058 | 1.058 | 1.058 | 1.058 | 1.036 | 1.036 | 1.036 | 1.021 |
# | 1 | 1.059 | 1.060 | 1.066 | 1.062 | 1.012 | 1.007 | 1.011 | 0.997 |
# | 3 | 1.073 | 1.072 | 1.089 | 1.080 | 0.987 | 0.985 | 0.986 | 0.971 |
# | 10 | 1.070 | 1.067 | 1.086 | 1.080 | 0.960 | 0.960 | 0.951 | 0.944 |
#
# New items behave as in the figure. For new users not even the baseline gains from ten ratings: the *first*
# marks of a user say little about those from the eleventh on. In the simulated data every rating of a user is
# alike, and the left panel flatters all methods.

# %%
vain = [frame.loc[0, ["user kNN in vain", "item kNN in vain"]].tolist() for frame in cold.values()]
check("42.11", "without a rating, kNN has no answer for a new user, nor for a new item",
      vain, [[1, 1], [1, 1]])

# %%
users, films = (frame.loc[0] for frame in cold.values())
claim("for an item without ratings content beats the baseline, which is all that kNN has",
      films["content"], below=films["baseline"], trivial=films["item kNN"])
check("42.13", "for a user without ratings content has nothing to add", users["content"],
      users["baseline"], atol=1e-12)

# %% [markdown]
# **Ways to the first ratings.** For users: the popular items; a **questionnaire**. Which items to ask about?
# Only an answer helps, and the expected number of answers is the sum of the items' shares of raters, so
# popular items are answered most:

# %% tags=["nbval-ignore-output"]
share = seen.double().mean(0).sort(descending=True).values
print(f"ten questions on the most rated items: {share[:10].sum():.1f} answers expected, "
      f"ten random items: {10 * share.mean():.1f}")

# %% [markdown]
# (An answer about something that everybody likes is worth little, though; good questionnaires trade
# popularity against disagreement.)
#
# For items: show them to those who like the same author or genre (content), and **explore**, that is, show
# them to some users at random. How much exploration? Let $K$ items have unknown chances $\theta_a$ of a
# click, the best one $\theta^*$, gaps $\Delta_a=\theta^*-\theta_a$. An **$\varepsilon$-greedy** shop shows a
# random item with probability $\varepsilon$, else the one with the best share of clicks so far, each once at
# first. Its **regret** after $T$ shows is what it has lost against always showing the best. If $a_t$ is shown
# at step $t$ and $y_t$ is the click, $\mathbb E[y_t\mid a_t]=\theta_{a_t}$, and counting shows $N_a$ by item,
#
# $$\operatorname{regret}(T)=T\theta^*-\mathbb E\sum_{t=1}^Ty_t=\mathbb E\sum_t\Delta_{a_t}=\sum_a\Delta_a\,\mathbb E N_a(T). \tag{42.16}$$
#
# Both extremes lose in proportion to $T$. Exploration costs $\bar\Delta=\frac1K\sum_a\Delta_a$ each time,
# whatever has been learnt. And with $\varepsilon=0$ the best item may be **buried alive**: its first show
# fails while another item's succeeds; its estimate is then 0, the other's stays positive for ever, and it
# never gets a second chance. With $\Delta_{\min}$ the smallest positive gap,
#
# $$\operatorname{regret}\ge\varepsilon\,(T-K)\,\bar\Delta,\qquad \varepsilon=0:\ \operatorname{regret}\ge(1-\theta^*)\Bigl(1-\prod_{a\ne*}(1-\theta_a)\Bigr)\,\Delta_{\min}\,(T-K). \tag{42.17}$$
#
# A share that falls like $\varepsilon_t=\min(1,c/t)$ escapes both: for $c$ large enough the regret grows like
# $\log T$ only (Auer et al., 2002).

# %%
def epsilon_greedy(theta, epsilon, steps, n_runs, generator):
    """Simulate eps-greedy on K items with click chances theta (K,); epsilon: a float or (steps,).

    Every item is shown once first, so steps >= K. Returns shown (int64), click (theta's dtype) and
    explored (bool), each (steps, n_runs). Raises ValueError for chances or shares outside [0, 1].
    """
    theta = torch.as_tensor(theta)
    theta = theta if theta.is_floating_point() else theta.double()
    K, epsilon = len(theta), torch.as_tensor(epsilon).to(theta).expand(steps)
    if steps < K or not all(((x >= 0) & (x <= 1)).all() for x in (theta, epsilon)):
        raise ValueError(f"need steps >= {K} and theta, epsilon in [0, 1]")
    luck, coin = torch.rand(2, steps, n_runs, generator=generator, dtype=theta.dtype).to(theta)
    explored = coin < epsilon[:, None]                           # (steps, n_runs)
    explored[:K] = False
    shown = torch.randint(K, (steps, n_runs), generator=generator).to(theta.device)
    N, wins = torch.zeros(2, n_runs, K, dtype=theta.dtype, device=theta.device)
    for t in range(steps):
        best = torch.full_like(shown[t], t) if t < K else (wins / N).argmax(1)
        shown[t] = torch.where(explored[t], shown[t], best)
        a = shown[t][:, None]                                              # (n_runs, 1)
        N.scatter_add_(1, a, torch.ones_like(a, dtype=N.dtype))
        wins.scatter_add_(1, a, (luck[t][:, None] < theta[a]).to(N.dtype))
    return shown, (luck < theta[shown]).to(theta.dtype), explored

# %% [markdown]
# The claims by Monte Carlo, at four standard errors. The third one needs no error bar: it must hold in every
# single run.

# %%
theta = torch.tensor([0.3, 0.5, 0.25, 0.35], dtype=torch.float64, device=device)
gap, T, runs = theta.max() - theta, 400, 2000

# %% [markdown]
# An equality is accepted if it lies within four standard errors, and only if 0 does not:

# %%
def within(sample, value, z=4.0):
    """True if `value` lies within z standard errors of the mean of `sample`, and 0 does not."""
    bar = z * sample.std() / len(sample)**0.5
    return bool((sample.mean() - value).abs() < bar < sample.mean().abs())

# %%
shown, click, explored = epsilon_greedy(theta, 0.2, T, runs, torch.Generator().manual_seed(12))
lost, by_gap = T * theta.max() - click.sum(0), gap[shown].sum(0)               # (runs,)
check("42.16", "clicks lost and gaps counted agree in the mean", within(lost, by_gap.mean()))

# %%
check("42.17", "exploring costs eps (T - K) × mean gap",
      within((gap[shown] * explored).sum(0), 0.2 * (T - 4) * gap.mean()))
check("42.17", "so the regret is larger than that", by_gap.mean(),
      above=0.2 * (T - 4) * gap.mean())

# %% [markdown]
# Fifty of the shops replayed by numpy: is what they show without exploring the best by its clicks so far?

# %%
one_hot, clicked = np.eye(4)[shown[:, :50].cpu()], click[:, :50, None].cpu().numpy()
rate = np.cumsum(one_hot * clicked, 0)[3:-1] / np.cumsum(one_hot, 0)[3:-1]     # before step 4, 5, …
greedy = ~explored[4:, :50].cpu().numpy()
claim("what is shown without exploring has the best share of clicks so far",
      ((rate * one_hot[4:]).sum(2) == rate.max(2))[greedy])

# %% [markdown]
# And two thousand that never explore:

# %%
shown, click, _ = epsilon_greedy(theta, 0.0, T, runs, torch.Generator().manual_seed(13))
buried = (click[1] == 0) & (click[[0, 2, 3]].sum(0) > 0)          # item 1 is the best
chance = (1 - theta[1]) * (1 - (1 - theta[[0, 2, 3]]).prod())

# %%
check("42.17", "the chance of burying the best item at once", within(buried.double(), chance))
check("42.17", "buried, it is never shown again, in any run", (shown == 1).sum(0)[buried] == 1)
check("42.17", "the greedy shop's regret exceeds the bound", gap[shown].sum(0).mean(),
      above=chance * gap[gap > 0].min() * (T - 4))

# %% [markdown]
# ## Try it
#
# Choose a user, a threshold $\alpha$ and a shrinkage $\lambda$: who is in the collaboration? Watch the lucky
# pairs on the left fall out as $\lambda$ grows, and the collaboration dry up as $\alpha$ does.

# %%
def draw_collaboration(user, alpha, shrinkage):
    """Similarities of one user against the number of common items; the collaboration is filled."""
    w, n = shrunk(W_raw[user], n_common[user], 2, shrinkage).cpu(), n_common[user].cpu()
    other = torch.arange(len(w)) != user
    inside, outside = (w > alpha) & other, (w <= alpha) & other
    fig, ax = plt.subplots()
    ax.plot(n[outside], w[outside], "x", color="grey", markersize=3, label="others")
    ax.plot(n[inside], w[inside], "o", markersize=4, label=f"collaboration: {int(inside.sum())}")
    ax.axhline(alpha, color="k", linestyle="--", linewidth=1)
    ax.set(xlabel="common items $n_{uv}$", ylabel=r"shrunk $w_{uv}$", ylim=(-1.1, 1.1),
           title=f"user {user}")
    ax.legend(loc="lower right")
    plt.show()

# %%
draw_collaboration(53, 0.2, 5.0)

# %% [markdown]
# Move $\alpha$ at $\lambda=0$ first, then raise $\lambda$:

# %% tags=["nbval-ignore-output"]
wide = {"style": {"description_width": "initial"}, "layout": {"width": "32em"}}
interact(draw_collaboration, user=BoundedIntText(53, 0, len(R) - 1, description="user u", **wide),
         alpha=FloatSlider(0.2, min=-0.2, max=0.95, step=0.05, description="threshold α", **wide),
         shrinkage=FloatSlider(5.0, min=0, max=60, step=1, description="shrinkage λ", **wide));

# %% [markdown]
# One held-out rating, its voters and their consensus (42.11). How do the number of neighbours $k$ and the
# shrinkage $\lambda$ move the prediction, and how far apart are the voters?

# %%
def draw_votes(case, n_neighbours, shrinkage):
    """Weights and deviations of the nearest raters of a held-out rating, consensus and truth."""
    u, i, r = (x[fold == 0][case].item() for x in (ratings.user, ratings.item, ratings.value))
    w = shrunk(W_train[u], n_train[u], 2, shrinkage).masked_fill(R_train[:, i].isnan(), math.nan)
    w[u] = math.nan                                        # u does not vote
    place = top_items(w[None], n_neighbours)[0]
    place = place[place >= 0]
    delta, w = (R_train[place, i] - mean_train[place]).cpu(), w[place].cpu()
    fig, ax = plt.subplots()
    ax.plot(delta, w, "o", label=f"{len(place)} voters")
    ax.axvline(float(consensus(w, delta)), color="k", label="consensus")
    ax.axvline(r - float(mean_train[u]), color="k", linestyle=":", label="what u gave")
    ax.set(xlabel=r"deviation $\delta_v$ (stars)", ylabel="weight $w_{uv}$", xlim=(-3, 3),
           title=f"user {u}, item {i}")
    ax.legend(loc="upper left")
    plt.show()

# %% [markdown]
# Training tables of the first fold, and one drawing for readers of the page:

# %%
R_train = rating_matrix(ratings[fold != 0])
mean_train, W_train, n_train = R_train.nanmean(1), pearson_overall(R_train), masked_sums(R_train)[0]
draw_votes(100, 20, 10.0)

# %% [markdown]
# Walk through the cases; with $k=1$ one enthusiast decides:

# %% tags=["nbval-ignore-output"]
interact(draw_votes, case=IntSlider(100, 0, 300, description="held-out rating number", **wide),
         n_neighbours=IntSlider(20, 1, 80, description="neighbours k", **wide),
         shrinkage=FloatSlider(10.0, min=0, max=60, step=2, description="shrinkage λ", **wide));

# %% [markdown]
# And the price of curiosity: the regret (42.16) of an $\varepsilon$-greedy shop with four items, mean of 300
# runs. Look for the $\varepsilon$ that loses least after 400 shows, and for the shape of the curve at both
# ends of the slider.

# %%
def draw_regret(epsilon):
    """Mean regret over time for one epsilon, and for a share that falls like 1/t."""
    falling = (10 / torch.arange(1, 401)).clamp(max=1).double()
    fig, ax = plt.subplots()
    for share, name in ((epsilon, f"ε = {epsilon:g}"), (falling, "ε falls: min(1, 10 / t)")):
        shown = epsilon_greedy(theta, share, 400, 300, torch.Generator().manual_seed(14))[0]
        ax.plot(gap[shown].mean(1).cumsum(0).cpu(), label=name)
    ax.set(xlabel="shows $T$", ylabel="regret (clicks)", ylim=(0, 60))
    ax.legend(loc="upper left")
    plt.show()

# %%
draw_regret(0.1)

# %% [markdown]
# At which $\varepsilon$ is the curve a straight line, and why at the other end too?

# %% tags=["nbval-ignore-output"]
interact(draw_regret, epsilon=FloatSlider(0.1, min=0, max=1, step=0.05, continuous_update=False,
                                          description="share of random shows ε", **wide));

# %% [markdown]
# ## Where the notes slip
#
# ### E32 · Whose ratings enter the similarity of two items
#
# The notes say that the similarity of items is computed from the ratings that *the two considered users*
# gave. The formula printed below that sentence has it right: the sum runs over $U_{ij}$, **all** users who
# rated both items. With two users only, (42.2) applies and the answer is $\pm1$ or nothing. Demonstration:
# the two most active users against everybody.

# %%
two_users = seen.sum(1).topk(2).indices
by_two, by_all = pearson_similarity(R[two_users].T), pearson_similarity(R.T, min_common=10)
check("42.2", "E32: from two users' ratings every item similarity is ±1 or undefined",
      by_two[~by_two.isnan()].abs() - 1, torch.zeros(int((~by_two.isnan()).sum())), atol=1e-9)

# %%
apart = ~(by_two.isnan() | by_all.isnan() | torch.eye(len(by_two), dtype=torch.bool, device=device))
claim("E32: from all common raters no pair with at least ten of them reaches ±1",
      by_all[apart].abs(), below=1 - 1e-9, trivial=by_two[apart].abs())

# %%
third = torch.tensor([[5.0, 3.0, 1.0], [4.0, 1.0, 5.0]])   # two items, three users
check("42.1", "E32: w = 1 from two users' ratings of two items; a third user changes the sign",
      [pearson_pair(*third[:, :2]) > 1 - 1e-6, pearson_pair(*third) < 0], [True, True])

# %% [markdown]
# **Right:** item similarity uses $U_{ij}$, and is worth something when $U_{ij}$ is large.
#
# ### E33 · "Rated well" is not "rated"; the user in their own collaboration; tiny overlaps
#
# The notes recommend what the collaboration rated *well*, then define $p_i$ as the share that rated it *at
# all*. They define $U(u_0)=\{v:w_{u_0v}>\alpha\}$, which contains $u_0$, since $w_{u_0u_0}=1$. And they put
# no condition on $n_{uv}$.

# %%
hated = torch.tensor([[5.0, 1.0, 4.0, nan, nan], [5.0, 1.0, 4.0, 1.0, 5.0],
                      [4.0, 1.0, 3.0, 1.0, nan], [5.0, 2.0, 4.0, 1.0, nan]], device=device).double()

# %%
p_any = user_based_scores(hated, pearson_similarity(hated), 0.5)[0]
p_liked = liked_share_scores(hated, pearson_similarity(hated), 0.5, 4.0)[0]
check("42.8", "E33: all neighbours gave film 3 one star, and it gets the top score, 1", p_any[3], 1)
claim("E33: counting those who liked it, film 3 gets 0, film 4 gets 1/3",
      p_liked[3:], [0, 1 / 3], atol=1e-12)

# %% [markdown]
# How much harm does $u_0$ do in this collaboration? They have not rated the candidates, so they add nothing
# above and one below: every $p_i$ shrinks by $\frac{\lvert U\rvert}{\lvert U\rvert+1}$ and the **order of
# unseen items stays**. What does break: an untypical user, whose collaboration is empty, seems to have one
# (of one member) and gets the score 0 for everything instead of "no answer"; and rated items are credited
# with the user's own vote.

# %%
with_self = (W_shrunk > ALPHA).double().fill_diagonal_(1)
p_self = (with_self @ seen.double() / with_self.sum(1, keepdim=True)).masked_fill(seen, nan)
p_right = user_based_scores(R, W_shrunk, ALPHA)
size = collaboration(W_shrunk, ALPHA).sum(1).double()      # (n_users,)
shrunk_p = p_right * (size / (size + 1))[:, None]

# %%
if (size > 0).any():
    check("42.8", "E33: with the user in it, p shrinks by |U| / (|U| + 1): same order",
          filled(p_self[size > 0]), filled(shrunk_p[size > 0]), atol=1e-12)
else:
    print(f"E33: at ALPHA = {ALPHA:g} every collaboration is empty: skipped")

# %% [markdown]
# At a threshold that the least typical of the users misses, that one is alone:

# %%
nearest = W_shrunk.clone().fill_diagonal_(nan).nan_to_num(nan=-1).amax(1)      # (n_users,)
alpha_high = float(nearest.quantile(0.25))                 # a quarter of the users is alone
strict = collaboration(W_shrunk, alpha_high).double().fill_diagonal_(1)
alone = strict.sum(1) == 1
check("42.8", "E33: alone in the collaboration they get zeros for all unseen items",
      ((strict @ seen.double())[alone] == 0)[~seen[alone]])
check("42.8", "E33: without the user there is no answer, and NaN says so",
      user_based_scores(R, W_shrunk, alpha_high)[alone].isnan())

# %% [markdown]
# And tiny overlaps, on the data:

# %%
check("42.2", "E33: one common item gives NaN, and where two are common every defined w is ±1",
      [bool(W_raw[n_common == 1].isnan().all()),
       bool((filled(W_raw, 1.0)[n_common == 2].abs() > 1 - 1e-9).all())], [True, True])

# %% [markdown]
# **Right:** count those who rated it *well* (or average their ratings), exclude $u_0$, require $n_{uv}\ge m$
# or shrink by (42.5).
#
# ### E34 · The item-based list is the user's own history
#
# The notes' set $I(u_0)=\{i:\exists\,r_{u_0i_0},\,w_{i_0i}>\alpha\}$ does not exclude what $u_0$ has rated.
# An item's similarity with itself is 1, so $p_i=\max_{i_0}w_{i_0i}=1$ for every item of that history, and
# nothing can be above.

# %%
W_items = pearson_similarity(R.T, shrinkage=SHRINKAGE)
W_items_raw = pearson_similarity(R.T, min_common=5)

# %% [markdown]
# Fifty users with some history, scored by the notes' rule:

# %%
regular = seen.sum(1).ge(TOP).nonzero()[:, 0][:50]
notes_p = torch.stack([W_items_raw[seen[u]].nan_to_num(nan=-1).amax(0) for u in regular])

# %%
own = seen[regular] & ~W_items_raw.diagonal().isnan()
claim("E34: by the notes' rule every item of the history with a defined w_ii has p = 1",
      notes_p[own], torch.ones(int(own.sum())), atol=1e-12)
listed = top_items(notes_p.round(decimals=9), 5)
claim("E34: the five items on top of a list are the user's own in more than four cases of five",
      float(seen[regular].gather(1, listed).double().mean()), above=0.8,
      trivial=float(seen[regular].double().mean()))

# %%
index = top_items(item_based_scores(R, W_items, 0.0), TOP)
check("42.9", "E34: with i not in I_u required, no list holds a rated item",
      ~(seen.gather(1, index.clamp(min=0)) & (index >= 0)))

# %% [markdown]
# **Right:** $I(u_0)=\{i\notin I_{u_0}:\exists\,i_0\in I_{u_0},\,w_{i_0i}>\alpha\}$, as in (42.9).
#
# ## What it costs
#
# A pair of users costs one multiplication for every common item, and an item with $n_i$ raters is common to
# $n_i^2$ ordered pairs. Counting the same triples (user, user, item) in two ways,
#
# $$\sum_{u,v}n_{uv}=\sum_in_i^2\quad\text{(users)},\qquad \sum_{i,j}\lvert U_{ij}\rvert=\sum_un_u^2\quad\text{(items)}. \tag{42.18}$$
#
# So with sparse storage all similarities cost $\sum_in_i^2$ or $\sum_un_u^2$ operations; the dense products
# of (42.3) cost $n_\text{users}^2\,n_\text{items}$ or $n_\text{items}^2\,n_\text{users}$, wasted on zeros but
# fast per operation. Memory is $n_\text{users}^2$ or $n_\text{items}^2$. On average a pair of users has
# $\sum_in_i^2/n_\text{users}^2$ common items and a pair of items $\sum_un_u^2/n_\text{items}^2$ common users: **a
# shop with many more users than items has a smaller item table, and on average more evidence in a cell of
# it.**

# %%
n_u, n_i = seen.sum(1), seen.sum(0)
check("42.18", "common items over all pairs of users = sum of squared item counts",
      n_common.sum(), (n_i**2).sum())
check("42.18", "common users over all pairs of items = sum of squared user counts",
      sum(int((seen.T & seen[:, j]).sum()) for j in range(R.shape[1])), (n_u**2).sum())

# %% [markdown]
# In numbers, for the ratings at hand:

# %% tags=["nbval-ignore-output"]
bill = pd.DataFrame({"pairs": [len(n_u)**2, len(n_i)**2],
                     "sparse work": [int((n_i**2).sum()), int((n_u**2).sum())]}, ["users", "items"])
bill["dense work"] = [len(n_u)**2 * len(n_i), len(n_i)**2 * len(n_u)]
bill.assign(**{"mean overlap": (bill["sparse work"] / bill["pairs"]).round(1)})

# %% [markdown]
# There is nothing to train ("memory-based"), so the bill comes at serving time. A recommendation by (42.8)
# reads the rows of $\lvert U(u)\rvert$ neighbours, found among all users; by (42.9) it looks up the $n_u$
# items of the user in a stored table, of which the best $n'$ entries a row suffice: $O(n_un')$, whatever the
# number of users. The table can be made overnight if it changes slowly. Does it? Let the shop grow: more
# users, the same items. The overlap of two items grows in proportion, so by (42.4) the luck in their
# similarity shrinks; a pair of users gains nothing from other users. Measured as the mean change of raw $w$
# when the last tenth of the ratings comes in, always over the same pairs, those that a shop of a quarter of
# the users could already compare (three or more in common):

# %%
def settling(old, new, pairs):
    """Mean change of Pearson between tables (n, m) and mean overlap, over `pairs` (n, n)."""
    change = (pearson_similarity(new, 3) - pearson_similarity(old, 3)).abs()
    return change[pairs].nanmean().item(), masked_sums(new)[0][pairs].mean().item()

# %% [markdown]
# Judge: pandas, on the small table without and with its last two items.

# %%
three = torch.triu(common >= 3, 1)
early = R_small.masked_fill(torch.arange(12, device=device) > 9, nan)
w_old, w_new = (pd.DataFrame(t.T.cpu().numpy()).corr(min_periods=3).to_numpy()[three.cpu().numpy()]
                for t in (early, R_small))
claim("change and overlap of the pairs, by pandas", settling(early, R_small, three),
      [np.nanmean(np.abs(w_new - w_old)), float(common[three].mean())], atol=1e-12)

# %% [markdown]
# Nine tenths of the ratings, and the pairs that a quarter of the users allow to compare:

# %%
late, quarter = fold_of(len(ratings), 10, 1).to(device) == 0, R.shape[0] // 4
old = rating_matrix(ratings[~late])
user_pairs, item_pairs = (torch.triu(~pearson_similarity(table, 3).isnan(), 1)
                          for table in (old[:quarter], old[:quarter].T))

# %% tags=["nbval-ignore-output"]
print("a pair of users, whatever the shop's size: change {:.3f}, overlap {:.1f}".format(
    *settling(old[:quarter], R[:quarter], user_pairs)))
settled = []
for n in (quarter, 2 * quarter, 4 * quarter):
    settled.append(settling(old[:n].T, R[:n].T, item_pairs))
    print(f"a pair of items in a shop of {n} users: change {settled[-1][0]:.3f}, "
          f"overlap {settled[-1][1]:.1f}")

# %%
claim("the overlap of two items more than triples in a shop of four times as many users",
      settled[-1][1] / settled[0][1], above=3, trivial=1)
claim("and their similarity changes by at least a tenth less", settled[-1][0] / settled[0][0],
      below=0.9, trivial=1)

# %% [markdown]
# The item table settles as the shop grows, the user table does not: a second reason why item-based systems
# scale.
#
# Now the clock: matrix products against pandas' `corr`, which walks over pairs in compiled code, and against
# the loop of section 1 (extrapolated from 300 pairs), for all pairs of users.

# %% tags=["nbval-ignore-output"]
frame = pd.DataFrame(R.T.cpu().numpy())
few = [(u, v) for u in range(10) for v in range(30)]
speed = compare_speed({"matrix products (42.3)": lambda: pearson_similarity(R),
                       "pandas corr": lambda: frame.corr(min_periods=2),
                       "loop, 300 pairs": lambda: [pearson_pair(R[u], R[v]) for u, v in few]}, 5)
speed.loc["loop, all pairs (extrapolated)"] = speed.loc["loop, 300 pairs"] * len(R)**2 / len(few)
ratio = speed["times the first"]
print(f"pandas takes {ratio['pandas corr']:.1f} and the loop {ratio.iloc[-1]:.0f} times as long")
speed

# %% [markdown]
# Pandas walks over half of the pairs, since $W$ is symmetric, and skips what is empty; the matrices do all of
# the work twice, but by one fast routine.
#
# And the growth with the number of users, on random tables of 300 items with a tenth of the cells known: on
# logarithmic axes the slope tells the exponent. Predicted: 2 for the products of (42.3) once they dominate.

# %% tags=["nbval-ignore-output"]
n_grid = (200, 400, 800, 1600)
seconds = [timed(pearson_similarity, random_table(n, 300, 0.1, n), repeats=5) for n in n_grid]
print("seconds:", [round(s, 3) for s in seconds],
      f" log-log slope {np.polyfit(np.log(n_grid), np.log(seconds), 1)[0]:.2f}")

# %% [markdown]
# ## Exercises
#
# ### Exercise 42.A · Similarity for clicks
#
# With clicks there are no stars to correlate. Write `jaccard(seen)` for `seen` (n_users, n_items) bool: the
# number of common items divided by the number of items that at least one of the two has, for all pairs of
# users; 0 if neither has any.
#
# <details><summary>Hint</summary>
#
# $\lvert A\cup B\rvert=\lvert A\rvert+\lvert B\rvert-\lvert A\cap B\rvert$, and $\lvert A\cap B\rvert$ is a
# matrix product.
#
# </details>

# %%
def jaccard(seen):
    """Jaccard similarity of all pairs of rows of a bool matrix (n, m): (n, n)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
clicks = (~R_small.isnan()).cpu()
clicks = clicks[clicks.any(1)]
by_sklearn = 1 - pairwise.pairwise_distances(clicks.numpy(), metric="jaccard")
small = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
by_hand = [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]            # the third user has nothing
exercise("42.A", jaccard, [((small,), by_hand), ((clicks,), by_sklearn)])

# %% [markdown]
# <details><summary>Solution 42.A</summary>
#
# ```python
# def jaccard(seen):
#     M = seen.double()
#     both, count = M @ M.T, M.sum(1)
#     return both / (count[:, None] + count - both).clamp(min=1)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 42.B · The collaboration's average
#
# The other repair of (42.8): score an item by the **mean rating** that the collaboration gave it. Write
# `mean_scores(R, U)` with `U` (n_users, n_users) bool; return (n_users, n_items), $-\infty$ ("must not be
# shown") where no member has rated the item. (Do not exclude rated items.)
#
# <details><summary>Hint</summary>
#
# Two matrix products: one with the ratings, one with the mask.
#
# </details>

# %%
def mean_scores(R, U):
    """Mean rating of each item (n_users, n_items) over the collaboration of each user."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
some = random_table(8, 5, 0.6, 20).cpu()
some[0] = torch.arange(1.0, 6.0)
members = torch.rand(8, 8, generator=torch.Generator().manual_seed(21)) < 0.5
members[:, 0] = True                                       # so that no mean is undefined
expected_means = np.stack([np.nanmean(some[members[u]].numpy(), 0) for u in range(8)])
exercise("42.B", mean_scores, [((some, members), expected_means),
                               ((some[:2], torch.zeros(2, 2).bool()), np.full((2, 5), -np.inf))])

# %% [markdown]
# <details><summary>Solution 42.B</summary>
#
# ```python
# def mean_scores(R, U):
#     U = U.to(R.dtype)
#     n = U @ (~R.isnan()).to(R.dtype)
#     return (U @ R.nan_to_num(nan=0.0) / n).masked_fill(n == 0, -torch.inf)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 42.C · A rating arrives
#
# The counts $n_{ij}=\lvert U_{ij}\rvert$ of all pairs of items are stored. User $u$, who has rated `seen_u`
# (n_items,) bool, now rates item `i` for the first time. Write `count_new(n, seen_u, i)`: the new table,
# touching only $O(n_u)$ cells of a copy.
#
# <details><summary>Hint</summary>
#
# Item $i$ gains one common user with every item of the user's history, and with itself.
#
# </details>

# %%
def count_new(n, seen_u, i):
    """Co-rating counts (n_items, n_items) after the user with history seen_u rates item i."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
def counted(M, u, i):
    """One case: counts before, history, item -> counts after, all by enumeration."""
    later = M.clone()
    later[u, i] = True
    before, after = ([[int((T[:, a] & T[:, b]).sum()) for a in range(12)] for b in range(12)]
                     for T in (M, later))
    return (torch.tensor(before), M[u].clone(), i), torch.tensor(after)


exercise("42.C", count_new, [counted(clicks, u, int((~clicks[u]).nonzero()[0])) for u in (0, 3, 7)])

# %% [markdown]
# <details><summary>Solution 42.C</summary>
#
# ```python
# def count_new(n, seen_u, i):
#     n = n.clone()
#     n[i, seen_u] += 1
#     n[seen_u, i] += 1
#     n[i, i] += 1
#     return n
# ```
#
# </details>

# %% [markdown]
# ### Exercise 42.D · Users who shout
#
# Some users give only 1 and 5, others 3 and 4. Replace deviations in (42.11) by standard scores,
# $z_{vi}=(r_{vi}-\mu_v)/\sigma_v$ with $\sigma_v$ the standard deviation over all of $v$'s ratings (divide by
# $n_v$), and give the answer on $u$'s scale: $\hat r_{ui}=\mu_u+\sigma_u\frac{\sum w_{uv}z_{vi}}{\sum\lvert
# w_{uv}\rvert}$. Write `predict_z(R, W, u, i)` with all other users who rated $i$ as neighbours.
#
# <details><summary>Hint</summary>
#
# `R.nanmean(1)` gives $\mu$; $\sigma^2$ is the `nanmean` of squared deviations. Leave out $u$ and NaN
# weights.
#
# </details>

# %%
def predict_z(R, W, u, i):
    """Predicted rating of item i by user u from standard scores, a float."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
def z_case(u, i):
    """The expected value by numpy, user by user."""
    W = W_test.cpu().numpy()
    mu, sd = np.nanmean(table, 1), np.nanstd(table, 1)
    voters = [v for v in range(30) if v != u and not np.isnan(table[v, i] + W[u, v])]
    vote = np.average([np.sign(W[u, v]) * (table[v, i] - mu[v]) / sd[v] for v in voters],
                      weights=[abs(W[u, v]) for v in voters])
    return (R_small.cpu(), W_test.cpu(), u, i), mu[u] + sd[u] * vote


exercise("42.D", predict_z, [z_case(u, i) for u, i in ((0, 0), (5, 3), (12, 7), (29, 11))])

# %% [markdown]
# <details><summary>Solution 42.D</summary>
#
# ```python
# def predict_z(R, W, u, i):
#     mu = R.nanmean(1)
#     sigma = (R - mu[:, None]).square().nanmean(1).sqrt()
#     votes = ~R[:, i].isnan() & ~W[u].isnan()
#     votes[u] = False
#     w, z = W[u, votes], (R[votes, i] - mu[votes]) / sigma[votes]
#     return float(mu[u] + sigma[u] * (w * z).sum() / w.abs().sum())
# ```
#
# </details>

# %% [markdown]
# ## Exam

# %% [markdown] tags=["exam"]
# ### Question 16 · How do user-based recommendations work?
#
# **По-русски.** Как работают рекомендации на основе сходства пользователей (user-based)?
#
# <details><summary>Model answer</summary>
#
# **Idea.** People who rated alike in the past will do so again: recommend to $u$ what people like $u$ rated
# well and $u$ has not seen. Input: only the ratings $r_{ui}$; $I_u$ are the items that $u$ rated,
# $I_{uv}=I_u\cap I_v$, $n_{uv}=\lvert I_{uv}\rvert$.
#
# **1. Similarity.** Pearson's correlation on the common items, with means over them, $\bar
# r_u=\frac1{n_{uv}}\sum_{i\in I_{uv}}r_{ui}$:
#
# $$w_{uv}=\frac{\sum_{i\in I_{uv}}(r_{ui}-\bar r_u)(r_{vi}-\bar r_v)}
# {\sqrt{\sum_{i\in I_{uv}}(r_{ui}-\bar r_u)^2}\,\sqrt{\sum_{i\in I_{uv}}(r_{vi}-\bar r_v)^2}}\in[-1,1].$$
#
# It ignores a user's offset and scale. It is undefined for $n_{uv}\le1$ or constant marks, and for $n_{uv}=2$
# always $\pm1$. For unrelated users its variance is $1/(n_{uv}-1)$, so require $n_{uv}\ge m$ or shrink,
# $w_{uv}\to\frac{n_{uv}}{n_{uv}+\lambda}w_{uv}$ (the posterior mean of the true similarity under the prior
# $\mathcal N(0,1/\lambda)$). Alternatives: means over all ratings, cosine.
#
# **2. Neighbours.** The collaboration $U(u)=\{v\ne u:\ w_{uv}>\alpha\}$, or the $k$ most similar users among
# those who rated the item, $N_k(u,i)$.
#
# **3a. Score for a list.** The share of the collaboration that rated the item, for $i\notin I_u$:
#
# $$p_{ui}=\frac{\lvert\{v\in U(u):\ r_{vi}\text{ is known}\}\rvert}{\lvert U(u)\rvert};$$
#
# recommend the $k$ unseen items with the largest $p_{ui}$. As written it counts *any* rating; to recommend
# what was rated **well**, count $r_{vi}\ge4$, or average the ratings.
#
# **3b. Prediction in stars**, with $\mu_u$ the mean of all ratings of $u$:
#
# $$\hat r_{ui}=\mu_u+\frac{\sum_{v\in N_k(u,i)}w_{uv}(r_{vi}-\mu_v)}{\sum_{v\in N_k(u,i)}\lvert w_{uv}\rvert}.$$
#
# Deviations, because users differ in offset; $\lvert w\rvert$ below, because the fraction is the $x$ that
# minimises $\sum_v\lvert w_{uv}\rvert\bigl(x-\operatorname{sign}(w_{uv})(r_{vi}-\mu_v)\bigr)^2$.
#
# **Item-based.** The same correlation between columns, over **all** users $U_{ij}$ who rated both items $i$
# and $j$; the score of an unseen item is its largest similarity to something rated, $p_{ui}=\max_{i_0\in
# I_u,\,w_{i_0i}>\alpha}w_{i_0i}$ for $i\notin I_u$, or $\hat
# r_{ui}=\mu_i+\sum_jw_{ij}(r_{uj}-\mu_j)\big/\sum_j\lvert w_{ij}\rvert$ over the $k$ items of $I_u$ most
# similar to $i$. It serves untypical users too, explains itself ("because you rated $i_0$"), and its table is
# stable when there are many more users than items.
#
# **Weak points.** Cold start: a user without ratings has no neighbours, an item without ratings is never
# recommended. Untypical users: $U(u)=\varnothing$. Sparse overlap: similarities are luck. No training, all
# work at serving time: all pairs cost $\sum_in_i^2$ operations ($n_i$ raters of item $i$) and
# $n_\text{users}^2$ memory, and a user's similarities change with each of their ratings. Popular items are
# favoured.
#
# **Кратко по-русски.** *Идея.* Пользователи, оценки которых совпадали раньше, будут совпадать и дальше:
# рекомендуем пользователю $u$ то, что понравилось похожим на него и чего он ещё не видел. Нужна только
# матрица оценок $r_{ui}$. Пусть $I_u$ — объекты, оценённые пользователем $u$, $I_{uv}=I_u\cap I_v$,
# $n_{uv}=\lvert I_{uv}\rvert$.
#
# *1. Сходство* — корреляция Пирсона по общим объектам, средние тоже берутся по общим объектам, $\bar
# r_u=\frac1{n_{uv}}\sum_{i\in I_{uv}}r_{ui}$:
#
# $$w_{uv}=\frac{\sum_{i\in I_{uv}}(r_{ui}-\bar r_u)(r_{vi}-\bar r_v)}
# {\sqrt{\sum_{i\in I_{uv}}(r_{ui}-\bar r_u)^2}\,\sqrt{\sum_{i\in I_{uv}}(r_{vi}-\bar r_v)^2}}\in[-1,1].$$
#
# Она не зависит от сдвига и масштаба оценок пользователя; не определена при $n_{uv}\le1$ и при постоянных
# оценках, а при $n_{uv}=2$ всегда равна $\pm1$. У не связанных между собой пользователей её дисперсия равна
# $1/(n_{uv}-1)$, поэтому требуют $n_{uv}\ge m$ или сжимают оценку сходства к нулю:
# $w_{uv}\to\frac{n_{uv}}{n_{uv}+\lambda}w_{uv}$. Другие меры: средние по всем оценкам пользователя,
# косинусное сходство.
#
# *2. Соседи:* коллаборация $U(u)=\{v\ne u:\ w_{uv}>\alpha\}$ (сам пользователь исключён) или $N_k(u,i)$ — $k$
# самых похожих на $u$ среди оценивших объект $i$.
#
# *3. Рекомендации.* Для списка каждому ещё не оценённому объекту $i\notin I_u$ приписывают долю коллаборации,
# которая его оценила,
#
# $$p_{ui}=\frac{\lvert\{v\in U(u):\ r_{vi}\text{ известна}\}\rvert}{\lvert U(u)\rvert},$$
#
# и показывают $k$ объектов с наибольшими $p_{ui}$. Эта доля учитывает любые оценки; чтобы рекомендовать то,
# что оценили *хорошо*, считают только оценки $r_{vi}\ge4$ или усредняют оценки. Саму оценку предсказывают по
# отклонениям соседей от их средних ($\mu_u$ — среднее по всем оценкам $u$):
#
# $$\hat r_{ui}=\mu_u+\frac{\sum_{v\in N_k(u,i)}w_{uv}(r_{vi}-\mu_v)}{\sum_{v\in N_k(u,i)}\lvert w_{uv}\rvert}.$$
#
# Отклонения нужны потому, что у пользователей разный средний уровень оценок; модуль в знаменателе — потому,
# что веса бывают отрицательными.
#
# *Item-based.* Та же корреляция, но между столбцами: сходство объектов $w_{ij}$ считается по **всем**
# пользователям $U_{ij}$, оценившим оба объекта; $p_{ui}=\max_{i_0\in I_u,\,w_{i_0i}>\alpha}w_{i_0i}$ для
# $i\notin I_u$, либо $\hat r_{ui}=\mu_i+\sum_jw_{ij}(r_{uj}-\mu_j)\big/\sum_j\lvert w_{ij}\rvert$ по $k$
# самым похожим на $i$ объектам из $I_u$. Работает и для нетипичных пользователей, рекомендация объяснима
# («потому что вы оценили $i_0$»); если пользователей намного больше, чем объектов, таблица сходств объектов
# меньше и устойчивее.
#
# *Слабые места.* Холодный старт: у пользователя без оценок нет соседей, объект без оценок не рекомендуется
# никогда. Нетипичный пользователь: $U(u)=\varnothing$. Разреженность: общих оценок мало, и сходство случайно.
# Обучения нет, вся работа — в момент запроса: сходства всех пар стоят $\sum_in_i^2$ операций ($n_i$ — число
# оценивших объект $i$) и $n_\text{users}^2$ памяти и меняются с каждой новой оценкой. Популярные объекты
# получают преимущество.
#
# **Typical mistake.** Averaging neighbours' ratings instead of deviations; dividing by $\sum w$ instead of
# $\sum\lvert w\rvert$; leaving the user in their own collaboration; not excluding items they have rated;
# trusting $w=1$ from two common items; computing the similarity of two items from two users only.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 58 · Content-based against collaborative filtering: cold start, niche items, new interests
#
# **По-русски.** Сравните контентную и коллаборативную фильтрацию: холодный старт (новый пользователь, новый
# объект), нишевые объекты, способность открывать новые интересы.
#
# <details><summary>Model answer</summary>
#
# **Definitions.** *Content-based*: items have known features $x_i$; the profile of a user is learnt from the
# user's *own* ratings (deviations $\delta_{ui}=r_{ui}-b_{ui}$ from a baseline), by ridge regression,
# $p_u=\bigl(\sum_{i\in I_u}x_ix_i^\top+\lambda I\bigr)^{-1}\sum_{i\in I_u}\delta_{ui}x_i$, or, its limit for
# strong regularisation, as the sum $p_u\propto\sum_{i\in I_u}\delta_{ui}x_i$; the score is $\langle
# p_u,x_i\rangle$. *Collaborative*: no features; users or items are compared through the ratings of *many*
# users (Pearson on common ratings, $\hat r_{ui}=\mu_u+\sum_vw_{uv}(r_{vi}-\mu_v)\big/\sum_v\lvert
# w_{uv}\rvert$), or latent factors are learnt from them, $\hat r_{ui}=\langle p_u,q_i\rangle$.
#
# | | content-based | collaborative |
# |---|---|---|
# | new item | scored at once: only $x_i$ is needed | no column: never recommended until somebody rates it |
# | new user, no rating | $p_u=0$: ask for interests or use popularity | no row: popularity |
# | new user, few ratings | a first profile at once, independent of other users, as noisy as the few ratings | similarities from few common items are luck (variance $1/(n_{uv}-1)$); item-based answers from the first rating, but few votes are noisy |
# | niche items | recommended to those whose profile fits, however few others rated them | too few common raters: no reliable similarity; drift to the popular |
# | new interests | none: $p_u$ lies in the span of the $x_i$ that $u$ rated, exactly 0 along features never met | yes: neighbours' other tastes, without any shared feature |
# | side features (genre, text, age, place) | they are the input | hard to include: similarity and plain factors see only the table of ratings; a hybrid is needed |
# | domain knowledge | needed: good hand-made features bound the quality | not needed: the table of ratings is enough, but much of it |
# | quality within a genre | cannot tell a good film from a bad one with the same features | sees it in the ratings |
# | scaling | users are independent of each other | all pairs: $\sum_in_i^2$ operations for users, $\sum_un_u^2$ for items |
#
# **In practice** they are joined: content features for cold items, collaborative signal for the rest
# (hybrids: features as a prior of factors, factorisation machines, two-tower networks), with popularity, a
# questionnaire and exploration ($\varepsilon$-greedy: a random item with probability $\varepsilon$) for the
# very first shows.
#
# **Кратко по-русски.** *Контентная фильтрация.* У объектов есть заранее известные признаки $x_i$; профиль
# пользователя строится только по его собственным оценкам (отклонениям $\delta_{ui}=r_{ui}-b_{ui}$ от базового
# прогноза): $p_u=\bigl(\sum_{i\in I_u}x_ix_i^\top+\lambda I\bigr)^{-1}\sum_{i\in I_u}\delta_{ui}x_i$
# (гребневая регрессия) или просто $p_u\propto\sum_{i\in I_u}\delta_{ui}x_i$; объекты упорядочиваются по
# $\langle p_u,x_i\rangle$. *Коллаборативная фильтрация.* Признаков нет, есть только матрица оценок многих
# пользователей: сходство (корреляция Пирсона по общим оценкам) и $\hat
# r_{ui}=\mu_u+\sum_vw_{uv}(r_{vi}-\mu_v)\big/\sum_v\lvert w_{uv}\rvert$, либо скрытые переменные, $\hat
# r_{ui}=\langle p_u,q_i\rangle$.
#
# * *Новый объект.* Контентная: рекомендуется сразу, нужны только признаки. Коллаборативная: оценок нет —
#   рекомендовать невозможно.
# * *Новый пользователь.* Без оценок не работает ни одна: $p_u=0$, соседей нет; выручают популярное и опрос об
#   интересах. По нескольким оценкам контентная сразу строит профиль, не зависящий от других пользователей (но
#   шумный), а сходство с другими пользователями по одному-двум общим объектам случайно.
# * *Нишевые объекты.* Контентная рекомендует их тем, кому они подходят по признакам, сколько бы людей их ни
#   оценило; коллаборативная работает для них плохо: оценок мало, сходство ненадёжно, популярное вытесняет
#   редкое.
# * *Новые интересы.* Контентная не открывает: $p_u$ — линейная комбинация признаков оценённых объектов, и
#   вдоль признака, который пользователю не встречался, профиль равен нулю. Коллаборативная открывает: соседи
#   любят и другое, общих признаков для этого не нужно.
# * *Признаки и знание предметной области.* Контентной необходимы хорошие признаки, и их качеством она
#   ограничена. Коллаборативной знания о предметной области не нужны, но дополнительные признаки (жанр, текст,
#   возраст) в неё трудно включить; зато качество объекта внутри жанра она видит по оценкам.
# * *Масштабирование.* Контентная обрабатывает каждого пользователя отдельно; сходства всех пар стоят
#   $\sum_in_i^2$ (пользователи) или $\sum_un_u^2$ (объекты) операций.
#
# На практике применяют гибрид (признаки для новых объектов, коллаборативный сигнал для остальных:
# факторизационные машины, двухбашенные модели), а для самых первых показов — популярное, опрос и
# $\varepsilon$-жадное исследование.
#
# **Typical mistake.** "Content-based has no cold start": it has one for new *users*. And calling item-based
# collaborative filtering content-based, because both speak of "similar items": its similarity comes from
# ratings, not from features.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# * Pearson on common items (42.1) is four matrix products for all pairs at once (42.3); with $n$ common items
#   its variance by luck is $1/(n-1)$ (42.4).
# * Shrinking by $n/(n+\lambda)$ with $\lambda=1/\tau^2$ (42.5) is the posterior mean; without it "most
#   similar" means "least known".
# * The share (42.8) and the maximum (42.9) make lists, the weighted deviation (42.11) predicts stars; good
#   stars do not make good lists.
# * Content needs features and no other users, collaboration needs other users and no features; only the first
#   can start cold on an item, only the second leads to features a user has never met.
# * Work is $\sum_in_i^2$ for users and $\sum_un_u^2$ for items (42.18); with many more users than items the
#   item table is smaller, better founded and slower to change.
#
# References
# * P. Resnick, N. Iacovou, M. Suchak, P. Bergstrom, J. Riedl (1994). [GroupLens: an open architecture for
#   collaborative filtering of netnews](https://doi.org/10.1145/192844.192905). CSCW.
# * J. L. Herlocker, J. A. Konstan, A. Borchers, J. Riedl (1999). [An algorithmic framework for performing
#   collaborative filtering](https://doi.org/10.1145/312624.312682). SIGIR.
# * B. Sarwar, G. Karypis, J. Konstan, J. Riedl (2001). [Item-based collaborative filtering recommendation
#   algorithms](https://doi.org/10.1145/371920.372071). WWW.
# * G. Linden, B. Smith, J. York (2003). [Amazon.com recommendations: item-to-item collaborative
#   filtering](https://doi.org/10.1109/MIC.2003.1167344). IEEE Internet Computing 7(1).
# * P. Lops, M. de Gemmis, G. Semeraro (2011). [Content-based recommender systems: state of the art and
#   trends](https://doi.org/10.1007/978-0-387-85820-3_3). Recommender Systems Handbook.
# * Y. Koren (2010). [Factor in the neighbors: scalable and accurate collaborative
#   filtering](https://doi.org/10.1145/1644873.1644874). ACM TKDD 4(1).
# * P. Auer, N. Cesa-Bianchi, P. Fischer (2002). [Finite-time analysis of the multiarmed bandit
#   problem](https://doi.org/10.1023/A:1013689704352). Machine Learning 47.
# * N. Hug (2020). [Surprise: a Python library for recommender systems](https://doi.org/10.21105/joss.02174).
#   JOSS 5(52). The table in its README (five folds of MovieLens 100K: k-NN 0.98, centred k-NN 0.951, k-NN on
#   a baseline 0.931) is what to compare a full run with.
#
# <!-- navigation -->
# previous: [41 Ranking metrics](41_ranking_metrics.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [43 Latent factors](43_latent_factors.ipynb)
# <!-- /navigation -->
