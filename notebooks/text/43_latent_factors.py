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
# # 43 · Latent factors: ALS, HALS and SGD
#
# Vera gave 4.8 stars to *Orbit*, 1.2 to *Kiss*, and has never seen *Colony*, *Balcony* or *Dance with an
# Android*. What would she give them? We describe every film and every user by a short vector, multiply, and
# find that each half of such a model can be fitted **exactly**, by a formula.
#
# **You will be able to**
#
# - write the functional of a latent factor model with biases, and its gradients;
# - derive the ALS update, prove that it never raises the functional, and say when its matrix is singular;
# - derive the HALS update (and its non-negative form) and the SGD update that belongs to the same
#   functional;
# - place observed-only, weighted and SVD factorisation in one family;
# - add a new user by fold-in, without refitting, and say what everything costs.
#
# **Prerequisites**: gradients, least squares, eigenvalues and singular values, the normal distribution. How
# the pages work: [00 start here](00_start_here.ipynb). How recommenders are measured:
# [41 ranking metrics](41_ranking_metrics.ipynb).
#
# **Reading** 70 min + exercises 60 min · **Time** 40 s on 2 CPU cores · **Memory** 0.8 GB · **Data** simulated ratings with a known truth (full run: MovieLens 100K) · **Exam questions** 17, 57, 64, 65
#
# **Exam route** question 17 → sections 1, 2, (43.8), (43.12), 7, 10 (35 min) · question 64 → sections 3, 4, 5 (25 min) · question 65 → (43.11), section 8 and "What it costs" (25 min) ·
# question 57 → section 9 (20 min)
#
# <details><summary>Notation</summary>
#
# | symbol | in code | shape, unit |
# |---|---|---|
# | $R$: set of observed triples $(u, i, r_{ui})$ | `ratings` | $N=\lvert R\rvert$ triples |
# | $r_{ui}$: rating | `value` | $(N,)$, stars |
# | $I_u$, $U_i$: items rated by $u$, users who rated $i$ | `ratings.item[ratings.user == u]` | $n_u=\lvert I_u\rvert$, $m_i=\lvert U_i\rvert$ |
# | $n$, $m$: numbers of users and items | `n_users`, `n_items` | |
# | $d$: number of factors | `d` | integer ≥ 1 |
# | $p_u$, $q_i$: factors of a user, of an item | `P[u]`, `Q[i]` | $(d,)$; rows of `P` $(n,d)$, `Q` $(m,d)$ |
# | $\mu$; $b_u$, $b_i$: global mean; offsets | `mu`; `b_u`, `b_i` | stars; $(n,)$, $(m,)$ |
# | $\hat r_{ui}$, $e_{ui}=r_{ui}-\hat r_{ui}$ | `model.predict(u, i)`, `e` | stars |
# | $\lambda$: weight of the penalty | `lam` | ≥ 0; depends on the scale of the ratings |
# | $\sigma$, $\tau$: standard deviation of noise, of the prior | `sigma`, `tau` | stars; – |
# | $z_i=(q_i, 1)$, $x_u=(p_u, b_u)$ | `Z`, `X` | $(d+1,)$ |
# | $w_0$: weight of a missing cell | `w0` | 0 … 1 |
# | $\eta$: step of SGD | `lr` | > 0 |
# | $Q_u$, $r_u$, $A_u$: the rated items' vectors, their ratings, the matrix of the normal equations | `Q_u`, `r_u`, `A` | $(n_u,d)$, $(n_u,)$, $(d,d)$; with the bias $d+1$ for $d$ |
# | $s_k$: singular values of the matrix at hand | `s` | decreasing, ≥ 0 |
# | $A=(a_{ui})$ without an index: the whole table, missing cells 0 (section 9) | `A` | $(n,m)$ |
#
# The lecture notes stack the vectors as *columns* ($P^\top Q$; their $P_{ku}$ is our $P_{uk}$) and call the
# weight of the items' penalty $\mu$; here $\mu$ is the mean and one $\lambda$ serves all.
#
# </details>
#
# <!-- navigation -->
# previous: [42 Neighbours](42_neighbourhood.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [44 Implicit ALS](44_implicit_als.ipynb)
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
import warnings
from dataclasses import dataclass, field
from numbers import Integral, Real

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.optimize
import scipy.sparse
import torch
from ipywidgets import FloatSlider, SelectionSlider, fixed, interact
from sklearn.decomposition import NMF
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error

from helpers import measured
from helpers.data import Ratings

PAGE = "43"
WIDE = {"style": {"description_width": "12em"}, "layout": {"width": "34em"}}
torch.set_default_dtype(torch.float64)          # identities are checked to machine precision

# %% tags=["parameters", "hide-input"]
DATA = "bundled"          # or "ml-100k"
D = 4                     # factors
LAM = 1.3                 # weight of the penalty, see (43.2); > 0
N_SWEEPS = 15             # ALS sweeps
N_EPOCHS = 80             # SGD
N_FOLDS = 5               # cross-validation
GRID_D = [1, 2, 4, 8]     # of the figure of penalties
GRID_LAM = [0.1, 0.3, 0.6, 1.3, 2.5, 5.0, 10.0, 30.0]

# %% [markdown]
# ## 1. The idea: a table is the product of two thin ones
#
# Four people, five films. Suppose each film can be described by two numbers, *how much science fiction* and
# *how much romance*, and each person by two: how much they care for either. A rating is then 3 stars plus a
# sum of two products, film by person. The table of ratings (right) has 20 cells, of which 15 are known; it
# is made of 8 + 10 numbers (left and middle), 4 of which only fix the axes. That is why its holes can be
# filled.

# %%
films = ["Orbit", "Colony", "Kiss", "Balcony", "Dance with an Android"]
people = ["Ann", "Boris", "Vera", "Gleb"]
Q_film = torch.tensor([[1.0, 0.0], [0.9, -0.2], [-0.1, 1.0], [0.0, 0.8], [0.7, 0.7]])   # (5, 2)
P_person = torch.tensor([[1.5, 0.2], [-1.0, 1.4], [1.8, -1.6], [0.2, 0.4]])             # (4, 2)
R_table = 3 + P_person @ Q_film.T                                                       # (4, 5)
seen_cell = torch.ones(4, 5, dtype=torch.bool)
seen_cell[2, [1, 3, 4]] = seen_cell[0, 2] = seen_cell[3, 1] = False                     # holes

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=(9.6, 2.9), width_ratios=[1.1, 2.1, 2.6])
holes, hidden_P = torch.where(seen_cell, R_table, torch.nan), P_person.clone()
hidden_P[2] = torch.nan                                     # Vera's numbers are to be found
for ax, table, title in zip(axes, (hidden_P, Q_film.T, holes),
                            ("$P$: people", "$Q^\\top$: films", "ratings $r_{ui}$")):
    look = {"cmap": "Greys", "vmin": 1, "vmax": 9} if ax is axes[2] else {
        "cmap": "PuOr", "vmin": -4, "vmax": 4}
    ax.imshow(table, aspect="auto", **look)
    for (row, column), value in np.ndenumerate(table.numpy()):
        ax.text(column, row, "?" if np.isnan(value) else f"{value:.1f}", ha="center", va="center")
    ax.set_title(title)
    ax.grid(False)
for ax in (axes[0], axes[2]):
    ax.set_yticks(range(4), people)
axes[0].set_xticks(range(2), ["sci-fi", "romance"])
axes[1].set_yticks(range(2), ["sci-fi", "romance"])
for ax in axes[1:]:
    ax.set_xticks(range(5), [f.replace(" with an ", "\nwith an ") for f in films], fontsize=7)
plt.show()

# %% [markdown]
# Vera's row has two ratings and three question marks. If we knew the films' numbers, her two ratings would
# be two equations for her two numbers, and the rest of her row would follow. If we knew *hers* and
# everybody's, the films' numbers would follow the same way. We know neither, so we go back and forth. That
# is the whole lecture:

# %% tags=["hide-input"]
scheme({"R": (0, 1, "ratings $R$\nmost cells empty", "round"),
        "P": (1.2, 1.7, "fix $Q$, solve for $P$\none ridge regression a user", "bold"),
        "Q": (1.2, 0.3, "fix $P$, solve for $Q$\none ridge regression an item", "bold"),
        "r": (2.5, 1, r"$\hat r_{ui}=\mu+b_u+b_i+\langle p_u,q_i\rangle$"),
        "out": (3.5, 1, "fills every cell", "plain")},
       [("R", "P"), ("R", "Q"), ("P", "Q", "alternate", "both"), ("P", "r"), ("Q", "r"),
        ("r", "out")], size=(9.6, 2.6))
plt.show()

# %% [markdown]
# **Predict.** Vera's two numbers are hidden from you. Turn the two sliders until her known ratings
# (crosses) are met by the prediction (bars). How many positions of the sliders do that? And if she had
# rated only *Orbit*?

# %% tags=["hide-input"]
def draw_taste(sci_fi=0.0, romance=0.0, ax=None):
    """Vera's predicted row for a taste (sci_fi, romance), her two known ratings, and the error."""
    row = 3 + Q_film @ torch.tensor([sci_fi, romance])                      # (5,)
    known = seen_cell[2]
    error = float(((R_table[2] - row)[known] ** 2).sum())
    ax = plt.subplots(figsize=(6.4, 2.7))[1] if ax is None else ax
    ax.bar([f.replace(" with an ", "\nwith an ") for f in films], row, color="#bbbbbb", width=0.6)
    ax.plot(np.flatnonzero(known), R_table[2][known], "kx", ms=10, mew=2)
    ax.set(ylim=(0, 6), ylabel="stars",
           title=f"({sci_fi:g}, {romance:g}): squared error {error:.2f}")
    ax.tick_params(axis="x", labelsize=6 if len(ax.figure.axes) > 1 else 8)


fig, axes = plt.subplots(1, 3, figsize=(8.6, 2.3), sharey=True)
for ax, taste in zip(axes, ((0.0, 0.0), (1.0, -0.5), (1.0, 1.0))):
    draw_taste(*taste, ax=ax)
plt.show()

# %% tags=["nbval-ignore-output"]
interact(draw_taste, sci_fi=FloatSlider(min=-3, max=3, step=0.1, description="sci-fi p₁", **WIDE),
         romance=FloatSlider(min=-3, max=3, step=0.1, description="romance p₂", **WIDE),
         ax=fixed(None));

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# One position, (1.8, −1.6): two equations, two unknowns. With *Orbit* alone only $p_1$ is fixed (the film
# has no romance), and every $p_2$ is equally good. What to answer then? Section 4: the smallest one.
#
# </details>
#
# Nobody hands us the genres, of course. The two columns are *learned* from the ratings and have no names;
# section 6 looks at what they came out as.
#
# ### Exercise 43.A · One prediction · ●○○ · 4 min
#
# Services show predictions on their scale. Return the model's prediction
# $\mu+b_u+b_i+\langle p_u,q_i\rangle$ for one user and one item, clipped to 1 … 5 stars.

# %%
def predict_one(mu, b_u, b_i, p_u, q_i):
    """mu, b_u, b_i: 0-d tensors; p_u, q_i: (d,). Returns a 0-d tensor."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
one = [torch.tensor(x) for x in (3.5, 0.3, -0.4)]
exercise("43.A", predict_one, [
    ((*one, torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.25])), 3.4),
    ((*one, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])), 5.0),
    ((*one, torch.tensor([-1.0, 2.0]), torch.tensor([1.0, -1.0])), 1.0)],
    mistakes={"you forgot b_i": lambda mu, b_u, b_i, p, q: (mu + b_u + p @ q).clamp(1, 5),
              "you forgot b_u": lambda mu, b_u, b_i, p, q: (mu + b_i + p @ q).clamp(1, 5),
              "you did not clip": lambda mu, b_u, b_i, p, q: mu + b_u + b_i + p @ q,
              "you clipped the scalar product, not the prediction":
              lambda mu, b_u, b_i, p, q: mu + b_u + b_i + (p @ q).clamp(1, 5),
              "you multiplied elementwise and forgot to sum":
              lambda mu, b_u, b_i, p, q: (mu + b_u + b_i + p * q).clamp(1, 5)})

# %% [markdown]
# <details><summary>Hint 1</summary>Four terms, one of them a scalar product.</details>
# <details><summary>Hint 2</summary>`clamp(1, 5)` comes last.</details>
# <details><summary>Solution 43.A</summary>
#
# ```python
# def predict_one(mu, b_u, b_i, p_u, q_i):
#     return (mu + b_u + b_i + p_u @ q_i).clamp(1, 5)
# ```
#
# The products are 0.5 − 0.5 = 0, then 3 and −3: the second and third prediction leave the scale.
#
# </details>

# %% [markdown]
# ## 2. Model and functional
#
# The training set is a **set of triples** $R=\{(u,i,r_{ui})\}$: who rated what, and how. We write
# $(u,i)\in R$ for a pair that is in it. (Should the same triple come twice in a file, both copies count.)
# The bundled ratings are simulated from a latent factor model with four factors, biases and noise of 0.5
# stars, so that we know what a method should recover; a few users and items are cold (no rating at all). A
# fifth of the triples is held out.

# %%
ratings = data.ratings(DATA)
titles = data.items(DATA).title
N = len(ratings)
order = torch.randperm(N, generator=torch.Generator().manual_seed(43))  # the same on every device
train, test = ratings[order[N // 5:]].to(device), ratings[order[:N // 5]].to(device)
scale = float(ratings.value.min()), float(ratings.value.max())      # predictions are clipped to it

# %%
print(f"{N:,} ratings, {ratings.n_users} users, {ratings.n_items} items: "
      f"{N / ratings.n_users / ratings.n_items:.1%} of the cells")

# %%
pair_code = [set((r.user * r.n_items + r.item).tolist()) for r in (train, test)]
claim("training and test triples are disjoint and complete",
      [len(pair_code[0] & pair_code[1]), len(pair_code[0] | pair_code[1])], [0, N])

# %% [markdown]
# The **latent factor model** (LFM) predicts
#
# $$\hat r_{ui}=\mu+b_u+b_i+\langle p_u,q_i\rangle .$$
#
# $\mu$ is fixed to the mean of the training ratings. $b_u$ and $b_i$ are *trained* offsets: how much kinder
# than average the user is, how much better than average the item. The scalar product is what is left: the
# match of this user's taste with this item's character.

# %%
@dataclass(eq=False)
class Factors:
    """A latent factor model: mu (float), b_u (n,), b_i (m,), P (n, d), Q (m, d).

    history: list of J (43.1) after every half-sweep of ALS, sweep of HALS, epoch of SGD.
    nonnegative: P, Q >= 0 without mu and biases (see hals).
    """

    mu: float
    b_u: torch.Tensor
    b_i: torch.Tensor
    P: torch.Tensor
    Q: torch.Tensor
    history: list = field(default_factory=list)
    nonnegative: bool = False

    def predict(self, user, item):
        """Predictions in stars for ids of broadcastable shapes; ValueError if out of range."""
        user, item = (torch.as_tensor(x, device=self.P.device) for x in (user, item))
        for name, ids, size in (("user", user, len(self.P)), ("item", item, len(self.Q))):
            whole = not ids.is_floating_point() and ids.dtype != torch.bool
            if ids.numel() and not (whole and ids.min() >= 0 and ids.max() < size):
                raise ValueError(f"{name} ids must be integers 0..{size - 1} (new user: fold_in)")
        u, i = user.long(), item.long()
        return self.mu + self.b_u[u] + self.b_i[i] + (self.P[u] * self.Q[i]).sum(-1)

# %% tags=["hide-input"]
def real(x):
    """x as a tensor for linear algebra: integers become float64, half precision float32."""
    x = torch.as_tensor(x)
    exact = not x.is_floating_point()
    return x.to(torch.float64 if exact else torch.promote_types(x.dtype, torch.float32))

# %%
def validated(ratings, d, lam, steps):
    """(user, item, value) of usable ratings; ValueError that says what to do about others."""
    try:
        user, item, value = map(torch.as_tensor, (ratings.user, ratings.item, ratings.value))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"ratings must be a helpers.data.Ratings of numbers: {error}") from None
    if value.numel() == 0 or value.dim() != 1 or not user.shape == item.shape == value.shape:
        raise ValueError(f"need equally many users, items and values, at least one: got shapes "
                         f"{tuple(user.shape)}, {tuple(item.shape)}, {tuple(value.shape)}")
    for name, ids, size in (("user", user, ratings.n_users), ("item", item, ratings.n_items)):
        whole = not ids.is_floating_point() and ids.dtype != torch.bool
        if not whole or int(ids.min()) < 0 or int(ids.max()) >= size:
            raise ValueError(f"{name} ids must be integers 0..{size - 1}, got {ids.dtype} from "
                             f"{ids.min()} to {ids.max()}: renumber them from 0")
    if value.is_complex():
        raise ValueError("ratings are complex numbers: give real ones")
    if not torch.isfinite(value).all():
        raise ValueError("ratings contain NaN or infinity: drop them, a missing rating has no row")
    whole = all(isinstance(x, Integral) for x in (d, steps))
    if not (whole and isinstance(lam, Real)) or d < 1 or steps < 1 or not 0 <= lam < float("inf"):
        raise ValueError("need d >= 1, lam >= 0 and at least one sweep or epoch, whole numbers but "
                         f"for lam: got d={d!r}, lam={lam!r} and {steps!r}")
    return user.long(), item.long(), real(value)

# %% [markdown]
# What is minimised: squared errors over the observed cells, plus one penalty on everything that is trained,
#
# $$J=\sum_{(u,i,r_{ui})\in R}\big(r_{ui}-\mu-b_u-b_i-\langle p_u,q_i\rangle\big)^2+\lambda\Big(\sum_u\lVert p_u\rVert^2+\sum_i\lVert q_i\rVert^2+\sum_u b_u^2+\sum_i b_i^2\Big) \tag{43.1}$$
#
# Sums, not means: with $\lambda$ fixed, a user with many ratings is penalised relatively less. That is
# Bayes: a Gaussian prior on the parameters counts once, the likelihood once per rating. $\mu$ is not
# penalised and not trained.

# %%
def objective(model, ratings, lam):
    """J of eq. (43.1), a float: summed squared error over the observed cells plus the penalty."""
    value = torch.as_tensor(ratings.value, device=model.P.device)
    e = value - model.predict(ratings.user, ratings.item)                              # (N,)
    penalty = sum((w**2).sum() for w in (model.P, model.Q, model.b_u, model.b_i))
    return float((e**2).sum() + lam * penalty)

# %% [markdown]
# To test it: a small problem (8 users, 6 items, shuffled triples, holes, random parameters), and (43.1)
# once more by NumPy's dense algebra.

# %% tags=["hide-input"]
g = torch.Generator().manual_seed(1)
table = 3 + torch.randn(8, 6, generator=g)
seen = torch.rand(8, 6, generator=g) < 0.6
cells = seen.nonzero()[torch.randperm(int(seen.sum()), generator=g)]
small = Ratings(*cells.T, table[tuple(cells.T)], cells[:, 0], 8, 6).to(device)
toy = Factors(2.9, *(torch.randn(*s, generator=g).to(device) for s in ((8,), (6,), (8, 3), (6, 3))))
b_u, b_i, P, Q = (x.cpu().numpy() for x in (toy.b_u, toy.b_i, toy.P, toy.Q))
E = np.where(seen.numpy(), table.numpy() - 2.9 - b_u[:, None] - b_i[None, :] - P @ Q.T, 0)
by_hand = np.linalg.norm(E) ** 2 + 0.7 * sum(np.linalg.norm(w) ** 2 for w in (P, Q, b_u, b_i))

# %%
check("43.1", "J is the dense masked sum of squares plus the penalty",
      objective(toy, small, 0.7), by_hand, rtol=1e-12)

# %% [markdown]
# ### Where λ comes from
#
# Suppose the ratings are independent, $r_{ui}\sim\mathcal N(\hat r_{ui},\sigma^2)$, and every coordinate of
# $p_u,q_i$ and every offset was drawn from $\mathcal N(0,\tau^2)$. By Bayes' rule the logarithm of the
# posterior density is, up to a constant, the log-likelihood plus the log-prior:
#
# $$\begin{aligned}\log p(P,Q,b\mid R)&=-\frac1{2\sigma^2}\sum_Re_{ui}^2-\frac1{2\tau^2}\big(\lVert P\rVert^2+\lVert Q\rVert^2+\lVert b_u\rVert^2+\lVert b_i\rVert^2\big)+\text{const}\\&=-\frac{J}{2\sigma^2}+\text{const},\qquad\lambda=\frac{\sigma^2}{\tau^2}\end{aligned} \tag{43.2}$$
#
# Minimising $J$ is finding the most probable parameters, and $\lambda$ is the ratio of the noise to the
# prior (one $\tau$ for factors and biases is a convenience). The constant cancels in a difference between
# two sets of parameters, which is what the check compares.

# %%
def log_posterior(model, ratings, sigma, tau):
    """Log density of ratings and parameters, up to a constant, by torch.distributions."""
    noise, prior = torch.distributions.Normal(0, sigma), torch.distributions.Normal(0, tau)
    e = ratings.value - model.predict(ratings.user, ratings.item)
    parameters = (model.P, model.Q, model.b_u, model.b_i)
    return noise.log_prob(e).sum() + sum(prior.log_prob(w).sum() for w in parameters)

# %%
other = Factors(2.9, 0.5 * toy.b_u, toy.b_i.flip(0), 0.8 * toy.P, toy.Q - 0.3)
sigma, tau = 0.6, 1.7
gain = log_posterior(other, small, sigma, tau) - log_posterior(toy, small, sigma, tau)
lam = sigma**2 / tau**2
check("43.2", "log-posteriors differ by the difference of -J / (2 sigma^2), lam = sigma^2 / tau^2",
      gain, (objective(toy, small, lam) - objective(other, small, lam)) / (2 * sigma**2),
      rtol=1e-10)

# %% [markdown]
# ### The gradients
#
# Fix one user. Only the terms with this $u$ contain $p_u$ and $b_u$, and
# $\partial e_{ui}/\partial p_u=-q_i$, $\partial e_{ui}/\partial b_u=-1$. By the chain rule
#
# $$\nabla_{p_u}J=-2\sum_{i\in I_u}e_{ui}\,q_i+2\lambda p_u,\qquad \nabla_{q_i}J=-2\sum_{u\in U_i}e_{ui}\,p_u+2\lambda q_i \tag{43.3}$$
#
# $$\frac{\partial J}{\partial b_u}=-2\sum_{i\in I_u}e_{ui}+2\lambda b_u,\qquad \frac{\partial J}{\partial b_i}=-2\sum_{u\in U_i}e_{ui}+2\lambda b_i \tag{43.4}$$
#
# The minus comes from the minus inside the error. It vanishes from sight when the gradient is set to zero,
# which is why it is so often forgotten; a gradient step without it climbs. The oracle is autograd, which
# differentiates (43.1) without knowing our derivation.

# %%
def gradients(model, ratings, lam):
    """Gradients of J for P, Q, b_u, b_i, in their shapes: eqs. (43.3), (43.4)."""
    u, i, value = (torch.as_tensor(x, device=model.P.device)
                   for x in (ratings.user, ratings.item, ratings.value))
    e, u, i = value - model.predict(u, i), u.long(), i.long()                          # (N,)
    P, Q, b_u, b_i = model.P, model.Q, model.b_u, model.b_i
    return (2 * lam * P - 2 * torch.zeros_like(P).index_add(0, u, e[:, None] * Q[i]),
            2 * lam * Q - 2 * torch.zeros_like(Q).index_add(0, i, e[:, None] * P[u]),
            2 * lam * b_u - 2 * torch.zeros_like(b_u).index_add(0, u, e),
            2 * lam * b_i - 2 * torch.zeros_like(b_i).index_add(0, i, e))

# %% tags=["hide-input"]
leaves = [w.clone().requires_grad_() for w in (toy.P, toy.Q, toy.b_u, toy.b_i)]
auto = Factors(2.9, leaves[2], leaves[3], leaves[0], leaves[1])
e = small.value - auto.predict(small.user, small.item)
auto_grad = torch.autograd.grad((e**2).sum() + 0.7 * sum((w**2).sum() for w in leaves), leaves)
ours = gradients(toy, small, 0.7)

# %%
check("43.3", "the gradient for P is autograd's", ours[0], auto_grad[0], atol=1e-10)
check("43.3", "the gradient for Q is autograd's", ours[1], auto_grad[1], atol=1e-10)
check("43.4", "the gradient for b_u is autograd's", ours[2], auto_grad[2], atol=1e-10)
check("43.4", "the gradient for b_i is autograd's", ours[3], auto_grad[3], atol=1e-10)

# %% [markdown]
# ## 3. The closed form
#
# $J$ is of fourth degree in all parameters together and not convex. But fix $Q$ (leave the biases out for a
# moment): what remains falls apart into one problem per user,
#
# $$J_u(p)=\sum_{i\in I_u}(r_{ui}-\langle p,q_i\rangle)^2+\lambda\lVert p\rVert^2=\lVert r_u-Q_u\,p\rVert^2+\lambda\lVert p\rVert^2 ,$$
#
# where the rows of $Q_u$ $(n_u\times d)$ are the vectors of the items that $u$ rated and $r_u$ are the
# ratings. This *is* ridge regression: the $q_i$ are the features, $p_u$ are the weights.
#
# **Your turn first.** Set the gradient to zero. To move $p$ out of the scalar product, use
# $(a^\top b)\,c=(cb^\top)\,a$.
#
# ### Exercise 43.B · The update of ALS · ●●○ · 12 min
#
# Derive the $p$ that minimises $J_u$ and write it. You get the vectors of **all** items, their ratings (0
# where there is none) and which of them the user rated.

# %%
def my_als_update(Q, r, rated, lam):
    """Q (m, d), r (m,), rated (m,) bool, lam > 0. Returns p_u (d,)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def als_case(rated, lam):
    """Arguments of 43.B and the answer of scikit-learn's ridge regression."""
    Q = torch.tensor([[1.0, 2], [0, 1], [-1, 1], [2, 0], [1, -1]])
    r, rated = torch.tensor([4.0, 2, 1, 5, 3]), torch.tensor(rated, dtype=torch.bool)
    answer = Ridge(alpha=lam, fit_intercept=False).fit(Q[rated], r[rated]).coef_
    return (Q, r * rated, rated, lam), answer


def ridge_variant(keep, weight, sign=1):
    """A wrong update: keep(rated) rows, penalty lam * weight(number of them)."""
    def wrong(Q, r, rated, lam):
        Q, r = Q[keep(rated)], r[keep(rated)]
        A = Q.T @ Q + lam * weight(len(Q)) * torch.eye(Q.shape[1])
        return sign * torch.linalg.solve(A, Q.T @ r)
    return wrong


everything, only_rated = (lambda rated: rated | True), (lambda rated: rated)

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("43.B", my_als_update, [als_case([1, 0, 1, 1, 0], 0.5), als_case([0, 1, 0, 0, 0], 2.0)],
         mistakes={
    "you summed over all items, not over I_u": ridge_variant(everything, lambda n: 1),
    "you lost the 2 of the squared errors": ridge_variant(only_rated, lambda n: 2),
    "you lost the 2 of the penalty": ridge_variant(only_rated, lambda n: 0.5),
    "you added lam to every entry: multiply it by the identity": lambda Q, r, rated, lam:
    torch.linalg.solve(Q[rated].T @ Q[rated] + lam + 1e-9 * torch.eye(2), Q[rated].T @ r[rated]),
    "you lost the penalty on the way": ridge_variant(only_rated, lambda n: 0),
    "you weighted the penalty by the number of ratings": ridge_variant(only_rated, lambda n: n),
    "you lost the minus of the gradient": ridge_variant(only_rated, lambda n: 1, -1)})

# %% [markdown]
# <details><summary>Hint 1</summary>$\nabla J_u=-2\sum_{i\in I_u}(r_{ui}-q_i^\top p)\,q_i+2\lambda p$.</details>
# <details><summary>Hint 2</summary>$(q_i^\top p)\,q_i=(q_iq_i^\top)\,p$, so the sum becomes a matrix times $p$.</details>
# <details><summary>Hint 3</summary>Select rows first: `Q_u, r_u = Q[rated], r[rated]`.</details>
# <details><summary>Solution 43.B</summary>
#
# ```python
# def my_als_update(Q, r, rated, lam):
#     Q_u, r_u = Q[rated], r[rated]
#     return torch.linalg.solve(Q_u.T @ Q_u + lam * torch.eye(Q.shape[1]), Q_u.T @ r_u)
# ```
#
# The derivation is the next paragraph.
#
# </details>
#
# $$-2\sum_{i\in I_u}(r_{ui}-q_i^\top p)\,q_i+2\lambda p=0\iff\Big(\sum_{i\in I_u}q_iq_i^\top+\lambda I\Big)p=\sum_{i\in I_u}r_{ui}q_i ,$$
#
# and hence the update of **alternating least squares** (ALS)
#
# $$p_u=\Big(\sum_{i\in I_u}q_iq_i^\top+\lambda I\Big)^{-1}\sum_{i\in I_u}r_{ui}\,q_i=(Q_u^\top Q_u+\lambda I)^{-1}Q_u^\top r_u \tag{43.5}$$
#
# The sum runs over the items *this user rated*, not over all items. In code the system is solved; nobody
# inverts a matrix. (Without a penalty the plain least squares of $Q_up=r_u$ is solved instead:
# $Q_u^\top Q_u$ would square its condition number.)

# %%
def solve_user(Q_u, r_u, lam):
    """Closed-form p_u (d,) of eq. (43.5) from the rated items' Q_u (n_u, d) and ratings r_u (n_u,).

    Arrays or tensors, any number type. ValueError: shapes that do not fit, NaN, lam < 0, or lam = 0
    (or too small for the precision) with Q_u of rank < d (singular).
    """
    Q_u, r_u = real(Q_u), real(r_u)
    if Q_u.dim() != 2 or r_u.shape != Q_u.shape[:1] or not (
            torch.isfinite(Q_u).all() and torch.isfinite(r_u).all()):
        raise ValueError(f"need finite Q_u (n_u, d) and r_u (n_u,): got {tuple(Q_u.shape)} and "
                         f"{tuple(r_u.shape)}, or a NaN in them")
    (n_u, d), r_u = Q_u.shape, r_u.to(Q_u)
    if not 0 <= lam < float("inf"):
        raise ValueError(f"lam must be zero or positive, got {lam}")
    least = 1e3 * torch.finfo(Q_u.dtype).eps * float(Q_u.square().sum())  # below: lost in rounding
    if (lam == 0 or lam < least) and (n_u < d or torch.linalg.matrix_rank(Q_u) < d):
        raise ValueError(f"{n_u} ratings do not determine {d} unknowns (singular): "
                         f"take lam > {least if lam else 0:.0e}".replace("0e+00", "0"))
    if lam == 0:
        return torch.linalg.lstsq(Q_u, r_u[:, None]).solution[:, 0]                     # (d,)
    A = Q_u.mT @ Q_u + lam * torch.eye(d, dtype=Q_u.dtype, device=Q_u.device)           # (d, d)
    return torch.linalg.solve(A, Q_u.mT @ r_u)                                          # (d,)

# %%
vera = solve_user(Q_film[seen_cell[2]], R_table[2][seen_cell[2]] - 3, lam=0)
print(f"Vera's numbers from her two ratings: {vera.numpy().round(6)}; her row: "
      f"{(3 + Q_film @ vera).numpy().round(2)}")

# %% [markdown]
# Vera's row is complete, found from her two ratings. Three independent witnesses for (43.5): a numerical
# minimiser that only sees the value of $J_u$, scikit-learn's ridge regression, and the loop over the sum as it
# is printed.

# %% tags=["hide-input"]
Q_u = torch.randn(7, 3, generator=g)
r_u = torch.randn(7, generator=g) + 1
p_u = solve_user(Q_u.to(device), r_u.to(device), 0.7).cpu()

def J_u(p):
    return ((r_u.numpy() - Q_u.numpy() @ p) ** 2).sum() + 0.7 * (p**2).sum()

by_lbfgs = scipy.optimize.minimize(J_u, np.zeros(3), method="L-BFGS-B", tol=1e-14).x
by_ridge = Ridge(alpha=0.7, fit_intercept=False).fit(Q_u, r_u).coef_
A = sum(torch.outer(q, q) for q in Q_u) + 0.7 * torch.eye(3)

# %%
check("43.5", "p_u is the minimiser that L-BFGS finds", p_u, by_lbfgs, atol=1e-5)
check("43.5", "p_u is the ridge regression of r_u on Q_u", p_u, by_ridge, atol=1e-10)
check("43.5", "the printed sums give the same system",
      A @ p_u, sum(r * q for r, q in zip(r_u, Q_u)), atol=1e-10)
check("43.5", "lam = 0 is plain least squares", solve_user(Q_u, r_u, 0),
      np.linalg.lstsq(Q_u.numpy(), r_u.numpy(), rcond=None)[0], atol=1e-10)

# %% [markdown]
# **Why a half-step never raises the objective.** $J_u$ is a quadratic function with Hessian $2A_u$,
# $A_u=Q_u^\top Q_u+\lambda I$. Expand it around its stationary point $p_u$ (where the linear term vanishes)
# and nothing is left but
#
# $$J_u(p)-J_u(p_u)=(p-p_u)^\top A_u\,(p-p_u)\ \ge 0 \tag{43.6}$$
#
# $A_u$ is positive semi-definite, since $v^\top A_uv=\lVert Q_uv\rVert^2+\lambda\lVert v\rVert^2$, and
# positive definite if $\lambda>0$. So $p_u$ is *the* minimum, whatever stood there before. The users'
# problems do not share a variable, so all users may be solved at once: the half-step minimises $J$ exactly
# over all of $P$ with $Q$ fixed. Then the roles swap. Every half-step goes down or stays, and as $J\ge0$,
# the values of $J$ converge. For $\lambda>0$ every limit point of the iterates is stationary (Grippo and
# Sciandrone 2000), though not necessarily the best one (E37 below).

# %%
p = torch.randn(3, generator=g)
step = p - p_u
check("43.6", "the excess over the minimum is the quadratic form of A",
      J_u(p.numpy()) - J_u(p_u.numpy()), step @ A @ step, rtol=1e-10)

# %% [markdown]
# **Ridge is least squares with $d$ invented ratings.** With $\mathbf e_k$ the $k$-th unit vector,
# $\lambda\lVert p\rVert^2=\sum_k(0-\sqrt\lambda\,\mathbf e_k^\top p)^2$: the penalty is the squared error
# of $d$ extra "items" $\sqrt\lambda\,\mathbf e_k$ that everybody rates with zero. Thus
#
# $$p_u=\arg\min_p\Big\lVert\begin{pmatrix}r_u\\0\end{pmatrix}-\begin{pmatrix}Q_u\\\sqrt\lambda\,I\end{pmatrix}p\Big\rVert^2 \tag{43.7}$$
#
# and a user without any rating gets $p_u=0$: the model answers with $\mu+b_i$, which is what one should say
# about somebody unknown.

# %%
stacked = torch.cat([Q_u, 0.7**0.5 * torch.eye(3)])
target = torch.cat([r_u, torch.zeros(3)])
by_lstsq = np.linalg.lstsq(stacked.numpy(), target.numpy(), rcond=None)[0]
check("43.7", "ridge is ordinary least squares with d more rows", p_u, by_lstsq, atol=1e-10)

# %% [markdown]
# **With biases.** Put a constant 1 behind every item vector and the bias behind every user vector,
# $z_i=(q_i,1)$ and $x_u=(p_u,b_u)$. Then $\langle p_u,q_i\rangle+b_u=\langle x_u,z_i\rangle$, the penalty
# on $p_u$ and $b_u$ is $\lambda\lVert x_u\rVert^2$, and the derivation above holds letter by letter with
# $z_i$ for $q_i$ and the target $r_{ui}-\mu-b_i$:
#
# $$x_u=\binom{p_u}{b_u}=\Big(\sum_{i\in I_u}z_iz_i^\top+\lambda I\Big)^{-1}\sum_{i\in I_u}(r_{ui}-\mu-b_i)\,z_i \tag{43.8}$$
#
# The item step is the mirror image, with $z_u=(p_u,1)$ and the target $r_{ui}-\mu-b_u$:
#
# $$x_i=\binom{q_i}{b_i}=\Big(\sum_{u\in U_i}z_uz_u^\top+\lambda I\Big)^{-1}\sum_{u\in U_i}(r_{ui}-\mu-b_u)\,z_u \tag{43.9}$$
#
# Factors and bias of one user are found *together*, by one solve. Here is ALS as one would explain it at
# the blackboard: a loop over users, a loop over items.

# %% tags=["hide-input"]
def random_start(ratings, d, seed, like):
    """P (n, d), Q (m, d) from N(0, 0.1^2), drawn on the CPU; zero for those without ratings."""
    g, start = torch.Generator().manual_seed(seed), []
    for ids, size in ((ratings.user, ratings.n_users), (ratings.item, ratings.n_items)):
        draw = 0.1 * torch.randn(size, d, generator=g, dtype=torch.float64)
        has_ratings = torch.bincount(ids.long(), minlength=size) > 0
        start.append(draw.to(like) * has_ratings[:, None].to(like.device))
    return start

# %%
def als_loop(ratings, d, lam, n_sweeps, seed=0):
    """ALS by eqs. (43.8), (43.9), one user and one item at a time: the oracle of `als`."""
    user, item, value = validated(ratings, d, lam, n_sweeps)
    ratings = Ratings(user, item, value, ratings.time, ratings.n_users, ratings.n_items)
    P, Q = random_start(ratings, d, seed, value)
    mu, history = value.mean(), []
    X, Y = (torch.cat([w, torch.zeros_like(w[:, :1])], 1) for w in (P, Q))     # (n, d+1), (m, d+1)
    for _ in range(n_sweeps):
        for own, other, mine, theirs in ((X, Y, user, item), (Y, X, item, user)):
            for k in range(len(own)):
                rows = mine == k
                Z = torch.cat([other[theirs[rows], :d], torch.ones_like(value[rows])[:, None]], 1)
                target = value[rows] - mu - other[theirs[rows], d]
                own[k] = solve_user(Z, target, lam) if rows.any() else 0
            model = Factors(float(mu), X[:, d], Y[:, d], X[:, :d], Y[:, :d])
            history.append(objective(model, ratings, lam))
    model.history = history
    return model

# %% [markdown]
# Is it right? After the last half-step (items) the gradients for $q_i$ and $b_i$ must vanish: everything
# that belongs to items sits at its optimum. The gradients for users need not vanish until ALS has
# converged.

# %% tags=["hide-input"]
by_loop, long = (als_loop(small, d=3, lam=0.7, n_sweeps=k) for k in (2, 400))
slopes_2, slopes_400 = (gradients(m, small, 0.7) for m in (by_loop, long))
Z = np.c_[by_loop.P.cpu(), np.ones(8)][small.user.cpu()][small.item.cpu() == 2]
target = (small.value - by_loop.mu - by_loop.b_u[small.user]).cpu()[small.item.cpu() == 2]
x_2 = Ridge(alpha=0.7, fit_intercept=False).fit(Z, target).coef_

# %%
check("43.9", "after the item half-step the items' gradients vanish",
      torch.cat([slopes_2[1], slopes_2[3][:, None]], 1), torch.zeros(6, 4), atol=1e-9)
claim("the users' gradients do not vanish yet", slopes_2[0].abs().max(), above=1e-3,
      trivial=slopes_2[1].abs().max())
check("43.9", "item 2 is the ridge regression on its raters' (p_u, 1)",
      torch.cat([by_loop.Q[2], by_loop.b_i[2:3]]), x_2, atol=1e-9)

# %%
check("43.8", "at convergence the users' gradients vanish as well",
      torch.cat([slopes_400[0], slopes_400[2][:, None]], 1), torch.zeros(8, 4), atol=1e-6)
check("43.6", "no half-step raises J",
      np.diff(long.history).max(), below=1e-12 * long.history[0])

# %% [markdown]
# ## 4. When the matrix is singular
#
# **Predict.** Vera with *Orbit* alone has one equation for two unknowns. Below are the contours of her
# $J_u$: with the penalty switched off they are a valley without an end. Where does the minimum go when
# $\lambda$ is very small, and where when it is very large?

# %% tags=["hide-input"]
def draw_penalty(lam=0.5, n_rated=1, ax=None):
    """Contours of J_u over (p_1, p_2) for Vera's first n_rated ratings; minimum and its path."""
    rows = seen_cell[2].nonzero()[:n_rated, 0]
    Q_v, r_v = Q_film[rows], R_table[2][rows] - 3
    one, two = np.meshgrid(np.linspace(-0.5, 2.5, 80), np.linspace(-2.2, 1, 80))
    J = sum((float(r) - float(q[0]) * one - float(q[1]) * two) ** 2 for q, r in zip(Q_v, r_v))
    path = torch.stack([solve_user(Q_v, r_v, x) for x in np.logspace(-4, 2, 60)])
    at = solve_user(Q_v, r_v, max(lam, 1e-9))
    if ax is None:
        ax = plt.subplots(figsize=(4.4, 3.8))[1]
    ax.contour(one, two, np.sqrt(J + lam * (one**2 + two**2)), 9, cmap="Greys_r", linewidths=0.9)
    ax.plot(*path.T, color="#1b4f8f", label="all λ")
    ax.plot(*at, "o", color="#d1601f", label=f"λ = {lam:.3g}" if lam else "λ → 0")
    ax.set(xlabel="$p_1$ (sci-fi)", ylabel="$p_2$ (romance)", aspect="equal",
           title=f"minimum ({at[0]:.2f}, {at[1]:.2f})")
    ax.legend(loc="lower left", frameon=True, framealpha=1, edgecolor="none")
    ax.label_outer()

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 4, figsize=(9.6, 2.7), sharey=True)
for ax, (lam, n_rated) in zip(axes, ((0, 1), (0.5, 1), (5, 1), (0.5, 2))):
    draw_penalty(lam, n_rated, ax)
plt.show()

# %% tags=["nbval-ignore-output"]
interact(draw_penalty,
         lam=SelectionSlider(options=[0, 0.01, 0.1, 0.5, 1, 2, 5, 20, 100], value=0.5,
                             description="penalty λ", **WIDE),
         n_rated=SelectionSlider(options=[1, 2], description="ratings of Vera", **WIDE),
         ax=fixed(None));

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# For $\lambda\to0$ it goes to the point of the valley that is nearest to the origin, $(1.8, 0)$: nothing in
# the direction of which no rating speaks. For large $\lambda$ it goes to 0.
#
# </details>
#
# $Q_u^\top Q_u$ is a sum of $n_u$ matrices of rank one, so its rank is at most $n_u$. A user with fewer
# than $d$ ratings has a **singular** matrix: infinitely many $p_u$ have the same least error, and the plain
# inverse does not exist (with the bias of (43.8) this happens already below $d+1$ ratings). With the
# singular values $s_1\ge\dots\ge s_d\ge0$ of $Q_u$ the eigenvalues of $A_u$ are $s_k^2+\lambda$, so
#
# $$\operatorname{cond}(A_u)=\frac{s_1^2+\lambda}{s_d^2+\lambda},\qquad \lim_{\lambda\to0}p_u(\lambda)=Q_u^{+}r_u \tag{43.10}$$
#
# Why: with the singular value decomposition $Q_u=\sum_ks_k\,g_kh_k^\top$ the system (43.5) is diagonal in
# the $h_k$, and $p_u(\lambda)=\sum_k\frac{s_k}{s_k^2+\lambda}(g_k^\top r_u)\,h_k$. A coefficient is the
# unpenalised one, $\frac1{s_k}$, times $\frac{s_k^2}{s_k^2+\lambda}$: directions with little information
# are shrunk most, those with none ($s_k=0$) get 0. Any $\lambda>0$ makes the solution unique; as
# $\lambda\to0$ it tends to the one of least norm among those with least error, which is what the
# pseudo-inverse $Q_u^+$ gives.

# %%
Q_2, r_2 = Q_u[:2], r_u[:2]                                # two ratings for three factors
s = torch.linalg.svdvals(Q_2).tolist() + [0.0]             # s_3 = 0
A_2 = Q_2.mT @ Q_2 + 0.01 * torch.eye(3)
left, kept, right = np.linalg.svd(Q_u.numpy(), full_matrices=False)

# %%
check("43.10", "the condition number of A from the singular values of Q_u",
      (s[0] ** 2 + 0.01) / (s[2] ** 2 + 0.01), np.linalg.cond(A_2.numpy()), rtol=1e-8)
check("43.10", "as lam -> 0 ridge tends to the pseudo-inverse solution",
      solve_user(Q_2, r_2, 1e-8), np.linalg.pinv(Q_2.numpy()) @ r_2.numpy(), atol=1e-6)
check("43.10", "p_u is the sum over singular directions, each shrunk",
      p_u, (kept / (kept**2 + 0.7) * (left.T @ r_u.numpy())) @ right, atol=1e-10)

# %% [markdown]
# Rounding can hide the singularity: a determinant that should be zero is not, and a solver hands back some
# answer without a word, now and then a huge one. That is why `solve_user` looks at the rank and does not
# wait for an exception, also when $\lambda$ is so small that it drowns in the rounding of $Q_u^\top Q_u$
# (the batched `als` below only refuses $\lambda=0$).

# %%
try:
    solve_user(Q_2, r_2, lam=0)
except ValueError as error:
    print(error)

# %%
singular = torch.randn(200, 2, 3, generator=g).float()
hidden = [float(torch.linalg.det(q.mT @ q)) for q in singular]
claim("determinants of 200 singular 3 x 3 matrices that come out non-zero in float32: the share",
      np.mean(np.array(hidden) != 0), above=0.5, trivial=0.0)
both = torch.ones(200, 2, 1).float()                       # two ratings each, all of them 1
answers = torch.linalg.solve_ex(singular.mT @ singular, singular.mT @ both)[0]
longer = answers.norm(dim=(1, 2)) / (torch.linalg.pinv(singular) @ both).norm(dim=(1, 2))
claim("… and the solver's answers over 10 times the least one: the share, some but not most",
      (longer.nan_to_num(torch.inf) > 10).double().mean(), above=0.0, below=0.3, trivial=0.0)

# %% [markdown]
# ## 5. ALS for all users at once
#
# A Python loop over users wastes the machine. Let $M$ be the 0/1 matrix of observed cells ($n\times m$,
# sparse) and $C$ the sparse matrix of the centred ratings $r_{ui}-\mu$. Then the left and the right sides
# of (43.8) for *all* users are products of a sparse with a dense matrix,
#
# $$A_u=\sum_i M_{ui}\,z_iz_i^\top+\lambda I,\qquad c_u=\sum_i C_{ui}\,z_i-\sum_i M_{ui}\,b_i\,z_i \tag{43.11}$$
#
# with the $(d+1)^2$ entries of $z_iz_i^\top$ written as one row per item. All systems are then solved as a
# batch. The last diagonal entry of $A_u$ without $\lambda I$ is $\sum_iM_{ui}=n_u$: that is how the
# function knows who is empty. (If somebody rated the same item twice, $M_{ui}=2$ counts it twice, as the
# sum over triples demands.)

# %%
def half_step(M, C, Y, lam):
    """x (n, d+1) of eq. (43.8) for all rows, from the other side's Y = (factors, bias) (m, d+1).

    M, C: sparse (n, m): how often a cell was observed, and the sum of its ratings minus mu.
    """
    b, k = Y[:, -1:], Y.shape[1]
    Z = torch.cat([Y[:, :-1], torch.ones_like(b)], 1)                    # (m, d+1)
    outer = (Z[:, :, None] * Z[:, None, :]).flatten(1)                   # (m, (d+1)^2)
    sums = torch.sparse.mm(M, torch.cat([outer, b * Z], 1))              # (n, (d+1)^2 + d+1)
    A = sums[:, :k * k].unflatten(1, (k, k))                             # (n, d+1, d+1)
    c = torch.sparse.mm(C, Z) - sums[:, k * k:]                          # (n, d+1)
    empty = A[:, -1, -1] == 0                                            # no ratings: x = 0
    if lam == 0 and (torch.linalg.matrix_rank(A[~empty], hermitian=True) < k).any():
        raise ValueError("ratings that do not determine the factors (singular): take lam > 0")
    eye = torch.eye(k, dtype=Y.dtype, device=Y.device)
    return torch.linalg.solve(A + (lam + empty.to(Y))[:, None, None] * eye, c)

# %%
def as_factors(mu, X, Y, history=()):
    """Factors from X = (P, b_u) (n, d+1) and Y = (Q, b_i) (m, d+1)."""
    return Factors(float(mu), X[:, -1], Y[:, -1], X[:, :-1], Y[:, :-1], list(history))

# %%
def als(ratings, d, lam, n_sweeps, seed=0):
    """Alternating least squares on J (43.1), batched: n_sweeps of (43.8) and (43.9).

    lam >= 0, far above rounding. Returns Factors with a value of history after every half-sweep.
    ValueError: bad ids, NaN, no ratings, or lam = 0 with somebody who has 1 to d ratings.
    """
    user, item, value = validated(ratings, d, lam, n_sweeps)
    ratings = Ratings(user, item, value, ratings.time, ratings.n_users, ratings.n_items)
    for name, ids in (("user", user), ("item", item)):
        if lam == 0 and ids.unique(return_counts=True)[1].min() <= d:
            raise ValueError(f"{name} with fewer than d + 1 = {d + 1} ratings: take lam > 0")
    mu, size, index = value.mean(), (ratings.n_users, ratings.n_items), torch.stack([user, item])
    M, C = (torch.sparse_coo_tensor(index, v, size, check_invariants=False).coalesce()
            for v in (torch.ones_like(value), value - mu))
    Mt, Ct = M.t().coalesce(), C.t().coalesce()
    X, Y = (torch.nn.functional.pad(w, (0, 1)) for w in random_start(ratings, d, seed, value))
    history = []
    for _ in range(n_sweeps):
        X = half_step(M, C, Y, lam)
        history.append(objective(as_factors(mu, X, Y), ratings, lam))
        Y = half_step(Mt, Ct, X, lam)
        history.append(objective(as_factors(mu, X, Y), ratings, lam))
    return as_factors(mu, X, Y, history)

# %% [markdown]
# The fast version against the readable one, from the same start: every parameter and every value of the
# history. The small problem here has a user and an item without ratings and a cell that was rated twice.

# %% tags=["hide-input"]
rows = (small.user != 5) & (small.item != 1)
odd = small[torch.cat([rows.nonzero()[:, 0], rows.nonzero()[:1, 0]])]          # one triple twice
slow, fast = als_loop(odd, 2, 0.3, n_sweeps=3), als(odd, 2, 0.3, n_sweeps=3)
k = torch.arange(56)                                # everybody rates everything, user 7 nothing
full_rows = Ratings(k // 8, k % 8, torch.randn(56, generator=g), k, 8, 8).to(device)
plain = als(full_rows, 2, lam=0.0, n_sweeps=60)
plain_slopes = gradients(plain, full_rows, 0.0)

# %%
for name in ("P", "Q", "b_u", "b_i", "history"):
    check("43.11", f"batched ALS equals the loop: {name}",
          getattr(fast, name), getattr(slow, name), atol=1e-9)

# %%
check("43.11", "lam = 0: the item half-step ends at a stationary point of the items",
      torch.cat([plain_slopes[1], plain_slopes[3][:, None]], 1), torch.zeros(8, 3), atol=1e-9)
check("43.11", "lam = 0: an empty user has p_u = 0, b_u = 0",
      torch.cat([plain.P[7], plain.b_u[7:]]), torch.zeros(3))

# %% [markdown]
# ### Exercise 43.C · Leave-one-out without refitting · ●●● · 15 min
#
# How well would a user's ratings be predicted from the user's *other* ratings? Refitting $n_u$ times is not
# needed. Let $H=Q_u(Q_u^\top Q_u+\lambda I)^{-1}Q_u^\top$ be the matrix that turns ratings into fitted
# ratings. Find the leave-one-out errors from $H$ and $e=r_u-Hr_u$ alone, and prove it.

# %%
def leave_one_out_errors(Q_u, r_u, lam):
    """Q_u (n_u, d), r_u (n_u,). Returns (n_u,): r_i minus its prediction from the other ratings."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def refit(Q_u, r_u, lam):
    """Brute force: n_u ridge regressions, each without one rating."""
    rest = [[j for j in range(len(r_u)) if j != i] for i in range(len(r_u))]
    fits = [Ridge(alpha=lam, fit_intercept=False).fit(Q_u[k], r_u[k]).coef_ for k in rest]
    return torch.stack([r_u[i] - Q_u[i] @ torch.as_tensor(p) for i, p in enumerate(fits)])


def by_hat(share, keep=1.0):
    """e / (1 - share * H_ii), with lam * keep in H."""
    def errors(Q, r, lam):
        H = Q @ torch.linalg.solve(Q.mT @ Q + keep * lam * torch.eye(Q.shape[1]), Q.mT)
        return (r - H @ r) / (1 - share * H.diagonal())
    return errors


exercise("43.C", leave_one_out_errors,
         [((Q_u, r_u, lam), refit(Q_u, r_u, lam)) for lam in (0.3, 2.0)], atol=1e-8, mistakes={
             "you returned the errors of the fit that has seen every rating": by_hat(0.0),
             "you divided by 1 + H_ii": by_hat(-1.0), "you forgot lam in H": by_hat(1.0, 0.0)})

# %% [markdown]
# <details><summary>Hint 1</summary>Let $p^{(-i)}$ be the solution without rating $i$. It also solves the problem in which $r_i$ is *replaced* by $\langle p^{(-i)},q_i\rangle$: that rating then has zero error.</details>
# <details><summary>Hint 2</summary>Both solutions are linear in the ratings: fitted values are $Hr$. Write the $i$-th fitted value of the replaced problem in two ways.</details>
# <details><summary>Hint 3</summary>The result is $e_i/(1-H_{ii})$.</details>
# <details><summary>Solution 43.C</summary>
#
# ```python
# def leave_one_out_errors(Q_u, r_u, lam):
#     A = Q_u.mT @ Q_u + lam * torch.eye(Q_u.shape[1])
#     H = Q_u @ torch.linalg.solve(A, Q_u.mT)
#     return (r_u - H @ r_u) / (1 - H.diagonal())
# ```
#
# Let $\tilde r$ be $r_u$ with $r_i$ replaced by $\hat r^{(-i)}_i=\langle p^{(-i)},q_i\rangle$. For
# $\tilde r$ the vector $p^{(-i)}$ is optimal: rating $i$ adds zero error, and on the others it was optimal.
# Fitted values are linear, so $\hat r^{(-i)}_i=(H\tilde r)_i=(Hr_u)_i+H_{ii}(\hat r^{(-i)}_i-r_i)$.
# Subtract from $r_i$: $r_i-\hat r_i^{(-i)}=e_i+H_{ii}(r_i-\hat r_i^{(-i)})$, hence
# $r_i-\hat r_i^{(-i)}=e_i/(1-H_{ii})$.
#
# </details>

# %% [markdown]
# ## 6. What ALS finds
#
# Now the full training set. The measure is the root mean squared error on held-out triples,
# $\mathrm{RMSE}=\sqrt{\frac1N\sum(r_{ui}-\hat r_{ui})^2}$, with predictions clipped to the rating scale,
# against the model with biases only (a ridge regression on one-hot users and items).

# %%
def rmse(model, ratings):
    """Root mean squared error in stars; predictions are clipped to the scale of the ratings."""
    error = ratings.value - model.predict(ratings.user, ratings.item).clamp(*scale)
    return float((error**2).mean().sqrt())

# %% tags=["hide-input"]
def one_hot(ratings):
    """Sparse (N, n + m) indicator matrix of user and item, for scikit-learn."""
    N, columns = len(ratings), torch.cat([ratings.user, ratings.item + ratings.n_users]).cpu()
    return scipy.sparse.csr_matrix((np.ones(2 * N), (np.tile(np.arange(N), 2), columns.numpy())),
                                   shape=(N, ratings.n_users + ratings.n_items))


ridge = Ridge(alpha=LAM, fit_intercept=False, tol=1e-10)
ridge.fit(one_hot(train), (train.value - train.value.mean()).cpu())
b_u, b_i = torch.tensor(ridge.coef_, device=device).split([train.n_users, train.n_items])
baseline = Factors(float(train.value.mean()), b_u, b_i, 0 * b_u[:, None], 0 * b_i[:, None])

# %%
model = als(train, D, LAM, N_SWEEPS)
scores = {"mean only": float((test.value - train.value.mean()).square().mean().sqrt()),
          "mean + biases": rmse(baseline, test), f"ALS, d = {D}": rmse(model, test)}
if DATA == "bundled":
    truth = data.truth()
    known = Factors(truth.mu, *(w.to(device) for w in (truth.b_u, truth.b_i, truth.P, truth.Q)))
    scores["the true parameters"] = rmse(known, test)

# %% tags=["nbval-ignore-output"]
pd.Series(scores, name="test RMSE, stars").round(3).to_frame()

# %%
clipped = model.predict(test.user, test.item).clamp(*scale).cpu()
claim("the RMSE is scikit-learn's, on clipped predictions",
      rmse(model, test), root_mean_squared_error(test.value.cpu(), clipped), rtol=1e-12)
claim("the baseline is the optimum of the biases: their gradients vanish",
      torch.cat(gradients(baseline, train, LAM)[2:]),
      torch.zeros(train.n_users + train.n_items), atol=1e-3)

# %%
claim("factors beat biases alone on held-out ratings by more than 2 %",
      rmse(model, test), below=0.98 * rmse(baseline, test), trivial=rmse(baseline, test))
if DATA == "bundled":
    claim("ALS does not beat the truth (on ratings it has seen, it would)", rmse(model, test),
          above=scores["the true parameters"], trivial=rmse(model, train))

# %% [markdown]
# On the bundled data the last line is what the true parameters reach: noise of half a star and rounding to
# half stars, $\sqrt{0.5^2+0.5^2/12}=0.52$ (a little less because clipping cuts the noise at the ends; who
# allows for the clipping still gains under 0.001). $\lambda$ is the best of section 6 on this same split, so
# the table is slightly optimistic. The rest is estimation: $d+1$ numbers of a user from some two dozen ratings.

# %% tags=["hide-input"]
fig, ax = plt.subplots()
half_sweeps = np.arange(1, len(model.history) + 1) / 2
ax.plot(half_sweeps, model.history, marker="o", markersize=3)
ax.set(xlabel="ALS sweeps", ylabel="objective $J$, stars²",
       title="Every half-sweep lowers the objective (43.6)")
plt.show()

# %%
check("43.6", "J never rises in any half-sweep on the training ratings",
      np.diff(model.history).max(), below=1e-12 * model.history[0])

# %% [markdown]
# ### What do the factors mean?
#
# **Predict.** Nobody told the model about genres. If two items have similar vectors, will they share a
# genre? Below, the item vectors on their two main directions (principal axes of $Q$), with two genres
# marked, and the users' vectors in the same plane. The plane holds only a part of the spread of the item
# vectors (printed above it), so read it loosely: a user tends to like what lies in the user's direction,
# and genres overlap.

# %% tags=["hide-input"]
known_items = data.items(DATA)
busy = torch.bincount(train.item.cpu(), minlength=train.n_items) >= 20
centred = model.Q.cpu() - model.Q.cpu()[busy].mean(0)
axes_of_Q = torch.linalg.svd(centred[busy], full_matrices=False)[2][:2]     # (2 or D, D)
flat = centred @ axes_of_Q.T                                                # (m, 1 or 2)
flat = torch.nn.functional.pad(flat, (0, 2 - flat.shape[1]))
user_map = torch.nn.functional.pad(model.P.cpu() @ axes_of_Q.T, (0, 2 - len(axes_of_Q)))
held = float(flat[busy].square().sum() / centred[busy].square().sum())
print(f"share of the spread of Q that the plane holds: {held:.0%}")
fig, ax = plt.subplots(figsize=(6.8, 4.6))
ax.scatter(*flat[busy].T, s=6, color="#bbbbbb", label="other items")
wanted = ["romance", "science fiction"] if DATA == "bundled" else ["Romance", "Sci-Fi"]
for name, marker, colour in zip(wanted, "o^", ("#8b2f6b", "#1b4f8f")):
    mine = busy & known_items.genre[:, known_items.genre_names.index(name)]
    ax.scatter(*flat[mine].T, s=34, marker=marker, color=colour, label=name, alpha=0.8)
    for i in sorted(mine.nonzero()[:, 0].tolist(), key=lambda i: -flat[i].norm())[:3]:
        ax.annotate(titles[i], flat[i], fontsize=7.5, xytext=(4, 3), textcoords="offset points")
spread = float(flat[busy].abs().max() / user_map.abs().quantile(0.98))
ax.plot(*(spread * user_map[::30]).T, "+", color="#d1601f", ms=6, label="users (some, rescaled)")
ax.set(xlabel="first principal axis of $Q$", ylabel="second principal axis",
       title="Items and users in one plane, learned from ratings alone")
fig.legend(loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# Is that more than an impression? Take for every item its nearest neighbour by the cosine of the vectors,
# and ask how often the two share a genre. The trivial answer is a random neighbour.

# %%
unit = torch.nn.functional.normalize(model.Q.cpu()[busy], dim=1)
near = (unit @ unit.T - 2 * torch.eye(len(unit))).argmax(1)         # nobody is their own neighbour
shared = (known_items.genre[busy].double() @ known_items.genre[busy].double().T) > 0
by_chance = float((shared.double().sum() - len(shared)) / (len(shared) * (len(shared) - 1)))
share = float(shared[torch.arange(len(near)), near].double().mean())
print(f"nearest neighbours share a genre in {share:.0%}, random pairs in {by_chance:.0%}")
claim("nearest neighbours share a genre over 1.25 times as often as random pairs", share,
      above=1.25 * by_chance, below=0.95, trivial=by_chance)

# %% [markdown]
# So taste was found without labels. But the *axes* carry no names, because rotating the factors changes no
# prediction: for any orthogonal matrix $O$ ($O^\top O=OO^\top=I$)
#
# $$\langle O^\top p_u,O^\top q_i\rangle=p_u^\top OO^\top q_i=\langle p_u,q_i\rangle,\qquad\lVert PO\rVert_F=\lVert P\rVert_F\ \Rightarrow\ J(PO,QO,b)=J(P,Q,b) \tag{43.12}$$
#
# A "genre axis" of one run is a rotated mixture of the axes of another. Interpret predictions and
# distances, not single coordinates. Without the penalty the freedom is larger still: any invertible $O$ for
# $P$ with $O^{-\top}$ for $Q$.

# %%
O = torch.linalg.qr(torch.randn(D, D, generator=g))[0].to(device)
turned = Factors(model.mu, model.b_u, model.b_i, model.P @ O, model.Q @ O)
stretched = Factors(model.mu, model.b_u, model.b_i, 2 * model.P, model.Q / 2)

# %%
check("43.12", "an orthogonal O changes no prediction", turned.predict(test.user, test.item),
      model.predict(test.user, test.item), atol=1e-10)
check("43.12", "an orthogonal O does not change the objective",
      objective(turned, train, LAM), model.history[-1], rtol=1e-10)
check("43.12", "a stretch by 2 raises the penalty by 3 |P|² - 3/4 |Q|², nothing else",
      objective(stretched, train, LAM) - model.history[-1],
      LAM * (3 * model.P.square().sum() - 0.75 * model.Q.square().sum()), rtol=1e-8)

# %% [markdown]
# ### How large should λ and d be?
#
# **Predict.** All combinations are fitted beforehand. Where do training and test error part, and where, by
# (43.2), should the valley be?

# %% tags=["hide-input"]
errors, ds, lams = {}, sorted({*GRID_D, D}), sorted({*GRID_LAM, LAM})
for d in progress(ds, desc="d"):
    for lam in lams:
        fit = als(train, d, lam, N_SWEEPS)
        errors[d, lam] = rmse(fit, train), rmse(fit, test)


def draw_grid(d=D, lam=LAM, ax=None):
    """Train and test RMSE over lam for d factors, with the values at lam marked."""
    alone, ax = ax is None, plt.subplots()[1] if ax is None else ax
    for k, (name, marker) in enumerate((("training", "s"), ("test", "o"))):
        ax.plot(lams, [errors[d, x][k] for x in lams], label=name)
        ax.plot(lam, errors[d, lam][k], marker=marker, color="black", linestyle="none")
    ax.axhline(rmse(baseline, test), color="gray", linestyle=":", label="test, biases only")
    ax.set(xscale="log", xlabel=r"penalty $\lambda$", ylabel="RMSE, stars",
           title=f"d = {d}, λ = {lam:g}: test RMSE {errors[d, lam][1]:.3f}")
    ax.label_outer()
    if alone:
        ax.legend()


fig, axes = plt.subplots(1, 3, figsize=(8.2, 2.7), sharey=True)
for ax, d in zip(axes, (min(ds), D, max(ds))):
    draw_grid(d, ax=ax)
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %% tags=["nbval-ignore-output"]
interact(draw_grid, d=SelectionSlider(options=ds, value=D, description="factors d", **WIDE),
         lam=SelectionSlider(options=lams, value=LAM, description="penalty λ", **WIDE),
         ax=fixed(None));

# %% [markdown]
# To the right both errors rise (too much pull to zero); to the left the training error keeps falling while
# the test error turns up: over-fitting. By (43.2) the valley should lie near $\sigma^2/\tau^2$ *if the
# model is the true one*, here $d=4$. For the bundled data both are known ($P$ and $Q$ can trade scale, so
# their prior variance is the geometric mean of the two). With too few factors what is missing may act as
# extra noise, with too many there is more to hold down: move $d$ and look.

# %%
if DATA == "bundled":
    noise = truth.noise_sd**2 + 0.5**2 / 12                        # plus rounding to half stars
    factors = (truth.P.square().mean() * truth.Q.square().mean()).sqrt()
    offsets = torch.cat([truth.b_u, truth.b_i]).square().mean()
    print(f"lambda by (43.2): factors {noise / factors:.1f}, biases {noise / offsets:.1f}")
loose, held = errors[max(ds), min(lams)], errors[max(ds), LAM]      # (training, test)
claim("with hardly any penalty the training error is smaller", loose[0], below=0.95 * held[0],
      trivial=held[0])
claim("… and the test error larger", loose[1], above=1.05 * held[1], trivial=held[1])
best_lam = min(lams, key=lambda lam: errors[D, lam][1])
if DATA == "bundled":
    claim("for the true number of factors the best penalty of the grid is near the printed values",
          best_lam, above=0.5 * noise / factors, below=2 * noise / offsets, trivial=max(lams))

# %% [markdown]
# ## 7. Stochastic gradient descent
#
# SGD (Funk 2006) looks at one rating at a time. To descend on *this* $J$, the penalty has to be shared out:
# $p_u$ takes part in $n_u$ errors, so each of them carries the share $\frac1{n_u}$ of
# $\lambda\lVert p_u\rVert^2$. Writing $J$ as a sum over ratings,
#
# $$J=\sum_{(u,i)\in R}\Big[e_{ui}^2+\tfrac{\lambda}{n_u}\big(\lVert p_u\rVert^2+b_u^2\big)+\tfrac{\lambda}{m_i}\big(\lVert q_i\rVert^2+b_i^2\big)\Big]$$
#
# (over users and items that have ratings; the others stay at their start), and stepping against half the
# gradient of one term with step $\eta$ gives the rule.
#
# ### Exercise 43.D · One step of SGD · ●●○ · 8 min
#
# Return the new $p_u$ and $q_i$ after one rating with error $e$ (no biases), with the penalty shared out by
# counts.

# %%
def sgd_step(p_u, q_i, e, lr, lam, n_u, m_i):
    """p_u, q_i (d,); e, lr, lam floats; n_u, m_i counts. Returns (new p_u, new q_i)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def half_gradient_step(p, q, e, lr, lam, n_u, m_i):
    """The same step by autograd on one rating's share of J."""
    a, b = p.clone().requires_grad_(), q.clone().requires_grad_()
    share = (e + p @ q - a @ b) ** 2 + lam / n_u * a @ a + lam / m_i * b @ b
    ga, gb = torch.autograd.grad(share, (a, b))
    return p - lr * ga / 2, q - lr * gb / 2


def with_new_p(p, q, e, lr, lam, n_u, m_i):
    p = p + lr * (e * q - lam / n_u * p)
    return p, q + lr * (e * p - lam / m_i * q)


steps = [(Q_u[0], Q_u[1], 0.8, 0.1, 2.0, 4, 10), (Q_u[2], Q_u[3], -1.5, 0.3, 0.5, 1, 3)]
exercise("43.D", sgd_step, [(case, half_gradient_step(*case)) for case in steps], mistakes={
    "you computed q_i with the new p_u": with_new_p,
    "you took the whole penalty at every rating": lambda p, q, e, lr, lam, n, m:
    half_gradient_step(p, q, e, lr, lam, 1, 1),
    "you lost the penalty": lambda p, q, e, lr, lam, n, m:
    half_gradient_step(p, q, e, lr, 0.0, n, m),
    "the penalty must pull to zero: its sign is wrong": lambda p, q, e, lr, lam, n, m:
    half_gradient_step(p, q, e, lr, -lam, n, m),
    "you took the whole gradient, not half of it": lambda p, q, e, lr, *rest:
    half_gradient_step(p, q, e, 2 * lr, *rest),
    "you went uphill": lambda p, q, e, lr, *rest: half_gradient_step(p, q, e, -lr, *rest)})

# %% [markdown]
# <details><summary>Hint 1</summary>Half the gradient of the share for $p_u$ is $-e\,q_i+\frac\lambda{n_u}p_u$.</details>
# <details><summary>Hint 2</summary>Both updates use the vectors from *before* the step.</details>
# <details><summary>Solution 43.D</summary>
#
# ```python
# def sgd_step(p_u, q_i, e, lr, lam, n_u, m_i):
#     return p_u + lr * (e * q_i - lam / n_u * p_u), q_i + lr * (e * p_u - lam / m_i * q_i)
# ```
#
# Computing the second with the new $p_u$ is the classical bug: it is a step along the gradient of nothing.
#
# </details>
#
# $$p_u\leftarrow p_u+\eta\Big(e_{ui}q_i-\tfrac{\lambda}{n_u}p_u\Big),\qquad b_u\leftarrow b_u+\eta\Big(e_{ui}-\tfrac{\lambda}{n_u}b_u\Big) \tag{43.13}$$
#
# and the same for $q_i$, $b_i$ with $m_i$; all four use the values from before the step. Summed over all
# ratings at fixed parameters the steps are exactly the downhill gradient:
#
# $$\sum_{i\in I_u}\Big(e_{ui}q_i-\tfrac{\lambda}{n_u}p_u\Big)=-\tfrac12\nabla_{p_u}J \tag{43.14}$$

# %%
def sgd_steps(X, Y, batch, n_u, m_i, mu, lam):
    """Steps (B, d+1) of eq. (43.13), without lr, of X = (P, b_u), Y = (Q, b_i) for B ratings."""
    user, item, value = batch
    x, y = X[user], Y[item]                                                       # (B, d+1)
    e = value - mu - x[:, -1] - y[:, -1] - (x[:, :-1] * y[:, :-1]).sum(1)         # (B,)
    one = torch.ones_like(e)[:, None]
    dx = e[:, None] * torch.cat([y[:, :-1], one], 1) - (lam / n_u[user].to(x))[:, None] * x
    dy = e[:, None] * torch.cat([x[:, :-1], one], 1) - (lam / m_i[item].to(x))[:, None] * y
    return dx, dy

# %% [markdown]
# Mini-batches add up the steps of 64 ratings taken at the same parameters; that is SGD with a slightly
# delayed view, and 64 times fewer calls.

# %%
def sgd_mf(ratings, d, lam, lr, n_epochs, seed=0, batch_size=64):
    """SGD on J (43.1) by eq. (43.13); steps of a mini-batch are added up (batch_size=1: pure SGD).

    lr: step > 0. Returns Factors, history per epoch. ValueError: bad input, or it diverges.
    """
    user, item, value = validated(ratings, d, lam, n_epochs)
    ratings = Ratings(user, item, value, ratings.time, ratings.n_users, ratings.n_items)
    if not 0 < lr < float("inf") or batch_size < 1:
        raise ValueError(f"need lr > 0 and batch_size >= 1, got {lr} and {batch_size}")
    mu, g = value.mean(), torch.Generator().manual_seed(seed)
    n_u, m_i = (torch.bincount(k, minlength=n).clamp(min=1) for k, n in
                ((user, ratings.n_users), (item, ratings.n_items)))
    X, Y = (torch.nn.functional.pad(w, (0, 1)) for w in random_start(ratings, d, seed, value))
    history = []
    for _ in range(n_epochs):
        for rows in torch.randperm(len(value), generator=g).to(value.device).split(batch_size):
            dx, dy = sgd_steps(X, Y, (user[rows], item[rows], value[rows]), n_u, m_i, mu, lam)
            X.index_add_(0, user[rows], dx, alpha=lr)
            Y.index_add_(0, item[rows], dy, alpha=lr)
        history.append(objective(as_factors(mu, X, Y), ratings, lam))
        if not history[-1] < float("inf"):
            raise ValueError(f"SGD diverged in epoch {len(history)}: take a smaller lr than {lr}")
    return as_factors(mu, X, Y, history)

# %% tags=["hide-input"]
def sgd_loop(ratings, d, lam, lr, n_epochs, seed=0):
    """Eq. (43.13), rating by rating: the oracle of sgd_mf(batch_size=1)."""
    P, Q = random_start(ratings, d, seed, ratings.value)
    b_u, b_i, mu = P.new_zeros(len(P)), Q.new_zeros(len(Q)), ratings.value.mean()
    g = torch.Generator().manual_seed(seed)
    for k in torch.cat([torch.randperm(len(ratings), generator=g) for _ in range(n_epochs)]):
        u, i = ratings.user[k], ratings.item[k]
        reg_u, reg_i = lam / (ratings.user == u).sum(), lam / (ratings.item == i).sum()
        e = ratings.value[k] - mu - b_u[u] - b_i[i] - P[u] @ Q[i]
        P[u], Q[i] = P[u] + lr * (e * Q[i] - reg_u * P[u]), Q[i] + lr * (e * P[u] - reg_i * Q[i])
        b_u[u], b_i[i] = b_u[u] + lr * (e - reg_u * b_u[u]), b_i[i] + lr * (e - reg_i * b_i[i])
    return Factors(float(mu), b_u, b_i, P, Q)

# %% tags=["hide-input"]
counts = [torch.bincount(k, minlength=n).clamp(min=1) for k, n in
          ((small.user, 8), (small.item, 6))]
X, Y = torch.cat([toy.P, toy.b_u[:, None]], 1), torch.cat([toy.Q, toy.b_i[:, None]], 1)
dx, dy = sgd_steps(X, Y, (small.user, small.item, small.value), *counts, toy.mu, 0.7)
dP, dQ, db_u, db_i = gradients(toy, small, 0.7)
down = [-0.5 * torch.cat([w, b[:, None]], 1) for w, b in ((dP, db_u), (dQ, db_i))]
has_ratings = torch.bincount(small.user, minlength=8) > 0

# %%
check("43.14", "the users' steps of an epoch add up to minus half the gradient",
      torch.zeros_like(X).index_add(0, small.user, dx)[has_ratings], down[0][has_ratings],
      atol=1e-10)
check("43.14", "the items' steps add up to minus half the gradient as well",
      torch.zeros_like(Y).index_add(0, small.item, dy), down[1], atol=1e-10)

# %%
slow = sgd_loop(small, 3, 0.7, lr=0.05, n_epochs=2)
fast = sgd_mf(small, 3, 0.7, 0.05, n_epochs=2, batch_size=1)
for name in ("P", "Q", "b_u", "b_i"):
    check("43.13", f"sgd_mf with batches of one equals the textbook loop: {name}",
          getattr(fast, name), getattr(slow, name), atol=1e-12)

# %%
P_0, Q_0 = random_start(small, 3, 0, small.value)
start = Factors(float(small.value.mean()), P_0.new_zeros(8), Q_0.new_zeros(6), P_0, Q_0)
one_step = sgd_mf(small, 3, 0.7, 0.05, 1, batch_size=len(small))
slope = gradients(start, small, 0.7)
check("43.14", "a batch of all ratings is one step of gradient descent, lr/2 times the gradient: P",
      one_step.P, P_0 - 0.025 * slope[0], atol=1e-12)
check("43.14", "and Q", one_step.Q, Q_0 - 0.025 * slope[1], atol=1e-12)

# %% [markdown]
# **A trap.** Most libraries subtract $\lambda p_u$, not $\frac\lambda{n_u}p_u$, at every rating. Summed over
# an epoch that is minus half the gradient of
# $\sum e^2+\lambda\big(\sum_un_u\lVert p_u\rVert^2+\sum_im_i\lVert q_i\rVert^2\big)$: another functional,
# which weights the penalty by counts (Zhou et al. 2008 call its ALS version ALS-WR). A $\lambda$ cannot
# be carried from one to the other.

# %% tags=["hide-input"]
P = toy.P.clone().requires_grad_()
e = small.value - Factors(toy.mu, toy.b_u, toy.b_i, P, toy.Q).predict(small.user, small.item)
weighted = (P[small.user] ** 2).sum()                                         # p_u counts n_u times
slope, = torch.autograd.grad((e**2).sum() + 0.7 * weighted, P)
ones = [torch.ones_like(k) for k in counts]
common = sgd_steps(X, Y, (small.user, small.item, small.value), *ones, toy.mu, 0.7)[0][:, :-1]

# %%
check("43.14", "with lam instead of lam / n_u the steps descend on the count-weighted penalty",
      torch.zeros_like(toy.P).index_add(0, small.user, common), -0.5 * slope, atol=1e-10)

# %%
by_sgd = sgd_mf(train, D, LAM, lr=0.02, n_epochs=N_EPOCHS)
cold = torch.bincount(train.user, minlength=train.n_users) == 0
claim("users without ratings keep p_u = 0 in SGD too", by_sgd.P[cold].abs().sum(), 0.0)
claim("SGD ends within 5 % of the objective of ALS", by_sgd.history[-1],
      below=1.05 * model.history[-1], trivial=by_sgd.history[0])
claim("SGD predicts held-out ratings as well as ALS, to within 2 %", rmse(by_sgd, test),
      below=1.02 * rmse(model, test), trivial=rmse(baseline, test))

# %%
try:
    sgd_mf(train, D, LAM, lr=5.0, n_epochs=3)
except ValueError as error:
    print(error)

# %% tags=["hide-input"]
fig, ax = plt.subplots()
ax.plot(half_sweeps, model.history, marker="o", markersize=3, label="ALS, per half-sweep")
ax.plot(range(1, N_EPOCHS + 1), by_sgd.history, label="SGD, per epoch")
ax.set(xlabel="ALS sweeps, SGD epochs", ylabel="objective $J$, stars²",
       title="Same functional, same level")
ax.legend()
plt.show()

# %% [markdown]
# SGD needs a step size and more passes; in exchange a pass costs $O(Nd)$ and works for any differentiable
# loss.

# %% [markdown]
# ## 8. HALS: one coordinate at a time
#
# ALS solves a $d\times d$ system per user. **Hierarchical ALS** solves for one coordinate: row $k$ of
# $P^\top$, i.e. $P_{uk}$ for all users, with everything else fixed. In $P_{uk}$ the functional is a
# parabola. Let $e^{(k)}_{ui}=e_{ui}+P_{uk}Q_{ik}$ be the error without factor $k$; then
#
# $$\begin{aligned}\frac{\partial J}{\partial P_{uk}}&=-2\sum_{i\in I_u}\big(e^{(k)}_{ui}-P_{uk}Q_{ik}\big)Q_{ik}+2\lambda P_{uk}=0\\ \Rightarrow\quad P_{uk}&=\frac{\sum_{i\in I_u}\big(e_{ui}+P_{uk}Q_{ik}\big)Q_{ik}}{\sum_{i\in I_u}Q_{ik}^2+\lambda}\end{aligned} \tag{43.15}$$
#
# Two users never meet in one term, so the whole row is updated at once, exactly. If $\lambda=0$ and
# $Q_{ik}=0$ for all items of $u$, numerator and denominator are zero: $J$ does not depend on $P_{uk}$, and
# it stays as it is. A bias is the same formula with $Q_{ik}=1$. The errors are kept up to date,
# $e\leftarrow e-(P^{new}_{uk}-P_{uk})Q_{ik}$, so a row costs $O(N)$ and a sweep $O(Nd)$: no system to
# solve, no factor $d^2$.
#
# ### Exercise 43.E · One coordinate, not negative · ●●○ · 10 min
#
# Amounts of science fiction cannot be negative. Update coordinate $k$ of one user, without biases, under
# the constraint $p_k\ge0$: the minimum of a parabola on a half-line.

# %%
def hals_coordinate(p_u, Q_u, r_u, k, lam):
    """p_u (d,), Q_u (n_u, d), r_u (n_u,). Returns the new p_u[k] >= 0, a 0-d tensor."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def along(k, lam, p=torch.tensor([0.5, -1.0, 2.0])):
    """The minimum over coordinate k on [0, 50], found by bounded search."""
    def J(x):
        moved = torch.where(torch.arange(3) == k, x, p)
        return float(((r_u - Q_u @ moved) ** 2).sum() + lam * (moved**2).sum())
    search = scipy.optimize.minimize_scalar(J, bounds=(0, 50), method="bounded",
                                            options={"xatol": 1e-10})
    return (p, Q_u, r_u, k, lam), search.x


def vertex(p, Q, r, k, lam, add=1.0):
    """Vertex of the parabola; add: the share of factor k that is added back to the errors."""
    e = r - Q @ p + add * p[k] * Q[:, k]
    return (e @ Q[:, k]) / (Q[:, k] @ Q[:, k] + lam)

# %% tags=["nbval-ignore-output", "hide-input"]
exercise("43.E", hals_coordinate, [along(k, lam) for k, lam in ((0, 0.7), (2, 5.0), (2, 0.0))],
         atol=1e-5, mistakes={
             "you forgot the constraint": vertex,
             "you lost the penalty": lambda p, Q, r, k, lam: vertex(p, Q, r, k, 0.0).clamp(min=0),
             "you left factor k in the error": lambda *a: vertex(*a, add=0.0).clamp(min=0),
             "you took the absolute value; the minimum on the half-line is at 0":
             lambda *a: vertex(*a).abs()})

# %% [markdown]
# <details><summary>Hint 1</summary>Errors of the current model first; then add the part of factor $k$ back.</details>
# <details><summary>Hint 2</summary>A parabola that opens upwards rises away from its vertex: where is its minimum on $[0,\infty)$ if the vertex is negative?</details>
# <details><summary>Solution 43.E</summary>
#
# ```python
# def hals_coordinate(p_u, Q_u, r_u, k, lam):
#     e = r_u - Q_u @ p_u + p_u[k] * Q_u[:, k]
#     return ((e @ Q_u[:, k]) / (Q_u[:, k] @ Q_u[:, k] + lam)).clamp(min=0)
# ```
#
# </details>
#
# **Non-negative.** The parabola opens upwards, so its minimum over $[0,\infty)$ is the vertex if that is
# positive, and 0 otherwise:
#
# $$P_{uk}=\max\Bigg(0,\ \frac{\sum_{i\in I_u}(e_{ui}+P_{uk}Q_{ik})Q_{ik}}{\sum_{i\in I_u}Q_{ik}^2+\lambda}\Bigg) \tag{43.16}$$
#
# This projection is exact for *one* coordinate only (E130); it is where HALS comes from: non-negative
# matrix factorisation (Cichocki et al. 2007).

# %%
def hals_row(e, mine, own, other, lam, nonnegative=False):
    """One row update, eq. (43.15) or (43.16). Returns the new own (n,) and the new errors e (N,).

    e, other: error and the other side's coordinate at every rating (N,); mine: whose it is (N,).
    """
    top = torch.zeros_like(own).index_add_(0, mine, (e + own[mine] * other) * other)
    bottom = torch.zeros_like(own).index_add_(0, mine, other**2) + lam
    new = torch.where(bottom > 0, top / bottom, own)                     # 0 / 0: unchanged
    new = new.clamp(min=0) if nonnegative else new
    return new, e - (new - own)[mine] * other

# %%
def hals_sweep(X, Y, ratings, mu, lam, nonnegative):
    """One HALS sweep over X = (P, b_u), Y = (Q, b_i), in place: (43.15), or (43.16), no biases."""
    d, user, item = X.shape[1] - 1, ratings.user, ratings.item
    e = ratings.value - as_factors(mu, X, Y).predict(user, item)
    for own, other, mine, theirs in ((X, Y, user, item), (Y, X, item, user)):
        for k in range(d):
            own[:, k], e = hals_row(e, mine, own[:, k], other[theirs, k], lam,
                                    nonnegative)
        if not nonnegative:
            own[:, d], e = hals_row(e, mine, own[:, d], torch.ones_like(e), lam)

# %% [markdown]
# The non-negative model has no $\mu$ and no biases: it explains the ratings themselves as sums of parts.

# %%
def hals(ratings, d, lam, n_sweeps, seed=0, nonnegative=False):
    """Hierarchical ALS on J (43.1) by coordinates; nonnegative: P, Q >= 0, no mu, no biases.

    Returns Factors, history per sweep. ValueError: bad ids, NaN, no ratings.
    """
    user, item, value = validated(ratings, d, lam, n_sweeps)
    ratings = Ratings(user, item, value, ratings.time, ratings.n_users, ratings.n_items)
    mu = torch.zeros_like(value[0]) if nonnegative else value.mean()
    start = random_start(ratings, d, seed, value)
    X, Y = (torch.nn.functional.pad(w.abs() if nonnegative else w, (0, 1)) for w in start)
    history = []
    for _ in range(n_sweeps):
        hals_sweep(X, Y, ratings, mu, lam, nonnegative)
        history.append(objective(as_factors(mu, X, Y), ratings, lam))
    model = as_factors(mu, X, Y, history)
    model.nonnegative = nonnegative
    return model

# %% [markdown]
# One row against a one-dimensional numerical minimiser that sees only $J$; the errors that the function
# hands on must be those of the new model, or the next row would start from a lie.

# %% tags=["hide-input"]
def J_along(x, u, k=1):
    """J of the toy model with P[u, k] replaced by x."""
    P = toy.P.clone()
    P[u, k] = x
    return objective(Factors(toy.mu, toy.b_u, toy.b_i, P, toy.Q), small, 0.7)


def minimum_along(u, low):
    """The x in [low, 50] with the smallest J, by bounded search."""
    return scipy.optimize.minimize_scalar(J_along, args=(u,), bounds=(low, 50), method="bounded",
                                          options={"xatol": 1e-10}).x


e = small.value - toy.predict(small.user, small.item)
row, _ = hals_row(e, small.user, toy.P[:, 1], toy.Q[small.item, 1], 0.7)
row_nn, e_new = hals_row(e, small.user, toy.P[:, 1], toy.Q[small.item, 1], 0.7, nonnegative=True)
P_new = toy.P.clone()
P_new[:, 1] = row_nn
after = Factors(toy.mu, toy.b_u, toy.b_i, P_new, toy.Q)
nothing = torch.zeros_like(small.value)
untouched, _ = hals_row(small.value, small.user, toy.P[:, 0], nothing, lam=0.0)

# %%
check("43.15", "each new P_uk is the minimiser of J along its axis",
      row, [minimum_along(u, -50) for u in range(8)], atol=1e-5)
check("43.15", "the updated errors are the errors of the new model",
      e_new, small.value - after.predict(small.user, small.item), atol=1e-10)
check("43.15", "0/0: where Q vanishes and lam = 0 the coordinate stays", untouched, toy.P[:, 0])
check("43.16", "with P >= 0 it is the minimiser on the half-line",
      row_nn, [minimum_along(u, 0) for u in range(8)], atol=1e-5)
check("43.16", "the constraint was active for some users, not for all",
      (row_nn == 0).sum(), above=0, below=8)

# %% [markdown]
# The whole algorithm: against scikit-learn's NMF with coordinate descent, on a *fully observed* table and
# from the same start, number by number (its penalties `alpha_W`, `alpha_H` are multiplied by the table's
# sides, hence the division); and, with biases, at a stationary point of $J$ that it reaches without ever
# climbing.

# %% tags=["hide-input"]
dense = torch.rand(9, 7, generator=g) * 4
grid = torch.cartesian_prod(torch.arange(9), torch.arange(7))
everything_rated = Ratings(grid[:, 0], grid[:, 1], dense.flatten(), grid[:, 0], 9, 7).to(device)
ours = hals(everything_rated, 3, lam=0.35, n_sweeps=5, nonnegative=True)
W0, H0 = (w.abs().cpu().numpy() for w in random_start(everything_rated, 3, 0, dense))
nmf = NMF(3, init="custom", solver="cd", max_iter=5, tol=0, alpha_W=0.35 / 7, alpha_H=0.35 / 9)
with warnings.catch_warnings():             # five iterations do not converge: that is the point
    warnings.simplefilter("ignore")
    W = nmf.fit_transform(dense.numpy(), W=W0.copy(), H=H0.T.copy())
general = hals(small, 3, 0.7, n_sweeps=600)

# %%
check("43.16", "five sweeps of non-negative HALS are five iterations of scikit-learn's NMF: P",
      ours.P, W, atol=1e-9)
check("43.16", "and they give the same Q", ours.Q, nmf.components_.T, atol=1e-9)

# %%
check("43.15", "HALS ends where all gradients of J vanish",
      torch.cat([w.flatten() for w in gradients(general, small, 0.7)]), torch.zeros(56),
      atol=1e-5)
check("43.15", "no sweep raises J", np.diff(general.history).max(),
      below=1e-12 * general.history[0])

# %%
by_hals = hals(train, D, LAM, n_sweeps=2 * N_SWEEPS)
parts = hals(train, D, LAM, n_sweeps=N_SWEEPS, nonnegative=True)
claim("HALS ends within 2 % of the objective of ALS", by_hals.history[-1],
      below=1.02 * model.history[-1], trivial=by_hals.history[0])
one_number = scores["mean only"]
alone = rmse(baseline, test) if DATA == "bundled" else 0.95 * one_number
claim("the non-negative model, without biases, beats " +
      ("biases alone" if DATA == "bundled" else "one number for everybody by 5 %"),
      rmse(parts, test), below=alone, trivial=one_number)
measured("nonnegative", rmse(parts, test))
measured("biases_alone", rmse(baseline, test))

# %% [markdown]
# On the simulated ratings it is ahead of biases alone, too; on MovieLens, where a film's mean says more,
# it is not: RMSE <!--full:43.nonnegative-->0.987<!--/full--> against
# <!--full:43.biases_alone-->0.947<!--/full--> (with the penalty that suits the model with biases).
#
# ## 9. One family: how much does a missing cell weigh?
#
# Three formulas on a slide of the course look like three methods. They are one, with one number. Let
# $A=(a_{ui})$ be the table with the rating (centred, if one likes) where it is observed and 0 where it is
# not, $a_u$ its row, and
#
# $$J_{w_0}=\sum_{(u,i)\in R}(a_{ui}-\langle p_u,q_i\rangle)^2+w_0\sum_{(u,i)\notin R}(0-\langle p_u,q_i\rangle)^2+\lambda(\lVert P\rVert_F^2+\lVert Q\rVert_F^2) \tag{43.17}$$
#
# | $w_0$ | name | a missing cell says |
# |---|---|---|
# | 0 | observed-only factorisation | nothing |
# | between | weighted factorisation | weakly "0" |
# | 1 (and $\lambda=0$) | truncated SVD of the filled table | as loudly "0" as a rating |
#
# With $w_{ui}=1$ on observed cells and $w_0$ elsewhere, the derivation of (43.5) goes through with a weight
# in front of every term, and the half-step is *weighted* ridge regression:
#
# $$p_u=\big(Q^\top W_uQ+\lambda I\big)^{-1}Q^\top W_ua_u,\qquad W_u=\operatorname{diag}(w_{u1},\dots,w_{um}) \tag{43.18}$$

# %%
def weighted_half_step(A, W, Q, lam):
    """P (…, n, d) of eq. (43.18) for a dense table A and weights W (n, m), and Q (…, m, d)."""
    left = torch.einsum("ui,...id,...ie->...ude", W, Q, Q)                        # (…, n, d, d)
    left = left + lam * torch.eye(Q.shape[-1]).to(Q)
    return torch.linalg.solve(left, (W * A) @ Q)                                  # (…, n, d)

# %%
def weighted_als(A, W, d, lam, n_sweeps, n_starts=1):
    """P (s, n, d), Q (s, m, d): (43.17) minimised by alternating (43.18) from s random starts."""
    g = torch.Generator().manual_seed(0)
    Q = torch.randn(n_starts, A.shape[1], d, generator=g, dtype=torch.float64).to(A)
    for _ in range(n_sweeps):
        P = weighted_half_step(A, W, Q, lam)
        Q = weighted_half_step(A.mT, W.mT, P, lam)
    return P, Q

# %% [markdown]
# One user's row, with arbitrary weights, against scikit-learn; the case $w_0=0$ against section 3; the
# whole family against autograd.

# %% tags=["hide-input"]
A = torch.where(seen, table, 0.0)
W = torch.where(seen, 1.0, 0.3).double()
Q = torch.randn(6, 2, generator=g)
some = torch.rand(8, 6, generator=g)                                          # any weights
weighted = Ridge(alpha=0.7, fit_intercept=False).fit(Q, table[4], sample_weight=some[4]).coef_
only = seen[4]

def J_w0(P, Q, lam=0.7, w0=0.3):
    E = A - P @ Q.mT
    return (E[seen] ** 2).sum() + w0 * (E[~seen] ** 2).sum() + lam * ((P**2).sum() + (Q**2).sum())

P_w, Q_w = (w[0].requires_grad_() for w in weighted_als(A, W, 2, 0.7, n_sweeps=500))
grad = torch.autograd.grad(J_w0(P_w, Q_w), (P_w, Q_w))

# %%
check("43.18", "the half-step is scikit-learn's ridge with sample weights",
      weighted_half_step(table, some, Q, 0.7)[4], weighted, atol=1e-10)
check("43.18", "w0 = 0 is eq. (43.5) on the observed cells",
      weighted_half_step(A, seen.double(), Q, 0.7)[4], solve_user(Q[only], A[4][only], 0.7),
      atol=1e-10)
check("43.17", "weighted ALS ends at a stationary point of J_w0",
      torch.cat(grad), torch.zeros(14, 2), atol=1e-6)

# %% [markdown]
# ### All cells observed: the singular value decomposition
#
# The functional is not convex: for one user, one item and one factor, $(1-pq)^2$ is 0 at $(1,1)$ and at
# $(-1,-1)$ and 1 halfway between. Yet with $w_0=1$ and $\lambda=0$ every cell counts alike,
# $J_1=\lVert A-PQ^\top\rVert_F^2$, and the theorem of Eckart and Young says what the best product of rank
# $d$ is: keep the $d$ largest singular values of $A$. What is lost is the tail,
#
# $$\min_{P,Q}\lVert A-PQ^\top\rVert_F^2=\sum_{k>d}s_k^2(A) \tag{43.19}$$
#
# *Why.* For any $B$ of rank at most $d$, Weyl's inequality $s_{j+d}(A)\le s_j(A-B)+s_{d+1}(B)=s_j(A-B)$
# gives $\lVert A-B\rVert_F^2=\sum_js_j^2(A-B)\ge\sum_js_{j+d}^2(A)$, and the truncated SVD ($P$: left
# vectors times $s_k$, $Q$: right vectors) attains it. Moreover, in this fully observed case every local
# minimum is global (Baldi and Hornik 1989): ALS finds the SVD from almost any start, although $J$ is not
# convex. With a penalty the kept singular values shrink by $\lambda$, $s_k\to\max(0,s_k-\lambda)$.

# %%
full = torch.randn(12, 9, generator=g)
s = np.linalg.svd(full.numpy(), compute_uv=False)
P, Q = weighted_als(full, torch.ones_like(full), 2, 0.0, 500, n_starts=30)
losses = ((full - P @ Q.mT) ** 2).sum((1, 2))
claim("the starts differ: so do the factors they end at", P.std(0).max(), above=1e-3, trivial=0.0)
check("43.19", "30 random starts of ALS all end at the tail of the singular values",
      losses, [(s[2:] ** 2).sum()] * 30, rtol=1e-6)

# %%
left, kept, right = np.linalg.svd(full.numpy())
for lam in (0.5, (kept[0] + kept[1]) / 2):                  # the second cuts s_2 off
    P, Q = (w[0] for w in weighted_als(full, torch.ones_like(full), 2, lam, 2000))
    claim(f"w0 = 1, λ = {lam:.1f}: the truncated SVD with singular values max(0, s - λ)",
          P @ Q.mT, left[:, :2] * np.maximum(0, kept[:2] - lam) @ right[:2], atol=1e-6)

# %% [markdown]
# **Predict.** Hide half of the same table and start 30 times again. One end value, or several?

# %%
hidden = torch.rand(12, 9, generator=g) < 0.5
A_obs, W_obs = torch.where(hidden, 0.0, full), (~hidden).double()
P, Q = weighted_als(A_obs, W_obs, 2, 0.1, n_sweeps=1500, n_starts=30)
minima = (W_obs * (A_obs - P @ Q.mT) ** 2).sum((1, 2))
minima = minima + 0.1 * ((P**2).sum((1, 2)) + (Q**2).sum((1, 2)))                 # (30,)
ends = torch.cat([P[int(minima.argmax())], Q[int(minima.argmax())]])              # (21, 2)

def J_obs(W):
    P, Q = W.split([12, 9])
    return (W_obs * (A_obs - P @ Q.mT) ** 2).sum() + 0.1 * (W**2).sum()

# %%
claim("with missing cells different starts end at different values", minima.max(),
      above=1.05 * float(minima.min()), trivial=minima.min())
claim("the worst end point is stationary", torch.func.grad(J_obs)(ends), torch.zeros(21, 2),
      atol=1e-6)
curvature = torch.linalg.eigvalsh(torch.func.hessian(J_obs)(ends).reshape(42, 42))
claim("and a minimum: no eigenvalue of the Hessian is negative", curvature > -1e-6)
claim("only a rotation of both factors leaves J unchanged: one zero",
      int((curvature < 1e-6).sum()), 1)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True)
P, Q = weighted_als(full, torch.ones_like(full), 2, 0.1, 1500, n_starts=30)
whole = ((full - P @ Q.mT) ** 2).sum((1, 2)) + 0.1 * ((P**2).sum((1, 2)) + (Q**2).sum((1, 2)))
for ax, values, name in zip(axes, (whole, minima), ("all cells observed", "half of them hidden")):
    ax.plot(np.arange(1, 31), np.sort(values / values.min()), "o", ms=4)
    ax.set(xlabel="30 random starts, sorted", title=name)
axes[0].set_ylabel("end value of $J$ / best")
plt.show()

# %% [markdown]
# And Vera's table of section 1, with nobody's numbers given and hardly any penalty? Some starts end badly;
# the best of 20 fills her row.

# %%
table_4x5 = torch.where(seen_cell, R_table - 3, 0.0)
P_4, Q_4 = weighted_als(table_4x5, seen_cell.double(), 2, 1e-6, 4000, n_starts=20)
misfit = (seen_cell * (table_4x5 - P_4 @ Q_4.mT) ** 2).sum((1, 2))                # (20,)
claim("the films' numbers need not be known: the best of 20 starts fills Vera's row",
      3 + (P_4 @ Q_4.mT)[int(misfit.argmin()), 2], R_table[2], atol=0.01,
      trivial=torch.full((5,), 3.0))

# %% [markdown]
# So "the product of parameters creates local minima" can be true of observed-only factorisation and is
# false of the SVD. For a matrix of exactly low rank with spread-out entries and enough cells observed at
# random, all local minima of a suitably regularised functional are global (Ge, Lee and Ma 2016, for
# symmetric matrices).
#
# **Which $w_0$ for ratings?** A missing *rating* is mostly a film not seen. Calling it "0 = average"
# shrinks the predictions to the biases, which is a part of the loss (below); perhaps the factors now
# describe *who rated what* as well. (In these simulated data a cell is missing independently of its rating;
# in real ones silence may say something.)

# %% tags=["hide-input"]
dense_mask = torch.zeros(train.n_users, train.n_items, device=device)
dense_mask[train.user, train.item] = 1.0
residual = torch.zeros_like(dense_mask)
residual[train.user, train.item] = train.value - baseline.predict(train.user, train.item)
weights, curve = [0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0], []
for w0 in weights:
    W = dense_mask + w0 * (1 - dense_mask)
    P, Q = (w[0] for w in weighted_als(residual, W, D, LAM, n_sweeps=8))
    curve.append(rmse(Factors(baseline.mu, baseline.b_u, baseline.b_i, P, Q), test))
fig, ax = plt.subplots()
ax.plot([0.001, *weights[1:]], curve, marker="o", label="factors on top of the biases")
ax.axhline(rmse(baseline, test), color="gray", linestyle=":", label="biases only")
ax.set(xscale="log", xlabel="weight $w_0$ of a missing cell", ylabel="test RMSE, stars",
       title="Here silence is not a zero")
ax.set_xticks([0.001, 0.01, 0.1, 1], ["0", "0.01", "0.1", "1"])
ax.minorticks_off()
ax.legend()
plt.show()

# %%
claim("observed-only (w0 = 0) beats the zero-filled table (w0 = 1) on held-out ratings",
      curve[0], below=0.99 * curve[-1], trivial=curve[-1])
if DATA == "bundled":                                       # P, Q are those of w0 = 1
    tripled = rmse(Factors(baseline.mu, baseline.b_u, baseline.b_i, 3 * P, Q), test)
    claim("w0 = 1 shrinks: three times its factors' part is better, yet far behind w0 = 0",
          tripled, above=1.05 * curve[0], below=0.98 * curve[-1], trivial=curve[-1])

# %% [markdown]
# For *clicks* a missing cell may carry information, and a small $w_0$ is the heart of implicit ALS (the
# topic of 44).
#
# ## 10. Fold-in: a new user without refitting
#
# A new user rates five films. Nobody refits the model: $Q$ and $b_i$ were learned from thousands of
# ratings, and five more should hardly move them. One user half-step (43.8) with everything else frozen is
# all:
#
# $$\binom{p_*}{b_*}=\Big(\sum_{i\in I_*}z_iz_i^\top+\lambda I\Big)^{-1}\sum_{i\in I_*}(r_{*i}-\mu-b_i)\,z_i \tag{43.20}$$
#
# It costs $O(n_*d^2+d^3)$, independent of the number of users; a service needs to keep only $\mu$, $b_i$
# and $Q$, and refits $Q$ every night.

# %%
def fold_in(model, items, values, lam):
    """(p_u (d,), b_u ()) of a new user by eq. (43.20), from the ids and ratings of their items.

    For a non-negative model the same least squares with p_u >= 0 and b_u = 0. No ratings: zeros.
    ValueError: ids out of range, NaN, other lengths, lam < 0, or lam = 0 with too few ratings.
    """
    Q = model.Q
    items = torch.as_tensor(items, device=Q.device).reshape(-1)
    values = torch.as_tensor(values, device=Q.device).to(Q.dtype).reshape(-1)
    if not 0 <= lam < float("inf"):
        raise ValueError(f"lam must be zero or positive, got {lam}")
    if len(values) == len(items) == 0:
        return Q.new_zeros(Q.shape[1]), Q.new_zeros(())
    nobody = torch.zeros(len(items), dtype=torch.int64, device=Q.device)
    _, items, _ = validated(Ratings(nobody, items, values, nobody, 1, len(Q)), Q.shape[1], lam, 1)
    Z, target = Q[items], values - model.mu - model.b_i[items]
    if model.nonnegative:
        if lam == 0 and torch.linalg.matrix_rank(Z) < Z.shape[1]:
            raise ValueError(f"{len(Z)} ratings do not determine {Z.shape[1]} unknowns (singular): "
                             "take lam > 0")
        rows = torch.cat([Z, lam**0.5 * torch.eye(Z.shape[1]).to(Z)])
        p = scipy.optimize.nnls(rows.cpu().numpy(), torch.cat([target, 0 * Z[0]]).cpu().numpy())[0]
        return torch.as_tensor(p).to(Q), Q.new_zeros(())
    x = solve_user(torch.cat([Z, torch.ones_like(target)[:, None]], 1), target, lam)
    return x[:-1], x[-1]

# %% [markdown]
# Three checks: against a numerical minimiser of the new user's squared errors; against the past (fold in
# somebody who *was* in the training set, and the trained vector must come back); and, for the non-negative
# case, which has no closed form, the Karush–Kuhn–Tucker conditions: where $p_k>0$ the slope is zero, where
# $p_k=0$ it is not negative.

# %% tags=["hide-input"]
mine = small.user == 3
p_new, b_new = fold_in(long, small.item[mine], small.value[mine], 0.7)
Q_3, b_3, r_3 = (x.cpu().numpy() for x in
                 (long.Q[small.item[mine]], long.b_i[small.item[mine]], small.value[mine]))

def J_new(x):
    return ((r_3 - long.mu - b_3 - Q_3 @ x[:3] - x[3]) ** 2).sum() + 0.7 * (x**2).sum()

liked, stars_given = [3, 7, 11, 20], torch.tensor([5.0, 1.0, 4.0, 2.0]).to(device)
p_part, b_part = fold_in(parts, liked, stars_given, lam=0.4)
slope = 2 * (parts.Q[liked] @ p_part - stars_given) @ parts.Q[liked] + 2 * 0.4 * p_part

# %%
check("43.20", "fold-in is what a numerical minimiser finds", torch.cat([p_new, b_new[None]]),
      scipy.optimize.minimize(J_new, np.zeros(4), tol=1e-12).x, atol=1e-5)
check("43.20", "folding in a known user returns the trained factors", p_new, long.P[3], atol=1e-6)
check("43.20", "folding in a known user returns the trained bias", b_new, long.b_u[3], atol=1e-6)

# %%
check("43.20", "non-negative fold-in satisfies the Karush-Kuhn-Tucker conditions",
      (p_part >= 0).all() and (slope * p_part).abs().max() < 1e-8 and slope.min() > -1e-8)

# %% [markdown]
# **Predict.** Rate a few of the most watched films and see the answer at once: dots are your predicted
# ratings, the short lines mark what everybody would be told ($\mu+b_i$), the long one is the end of the
# scale. With no rating at all, where is every dot? After one rating of five stars, which dots move, and do
# they move by the same amount?

# %% tags=["hide-input"]
watched = torch.bincount(train.item.cpu(), minlength=train.n_items)
shown = {titles[i]: i for i in watched.argsort(descending=True, stable=True)[:6].tolist()}


def draw_recommendations(**stars):
    """The ten films with the highest fold-in prediction, for {title: stars, 0 = not seen}."""
    rated = {shown[title]: value for title, value in stars.items() if value}
    p, b = fold_in(model, list(rated), list(rated.values()), LAM)
    score = model.mu + b + model.b_i + model.Q @ p                                # (m,)
    score[list(rated)] = -torch.inf                                               # seen already
    best = score.argsort(descending=True)[:10].flip(0)
    fig, ax = plt.subplots()
    ax.plot(score[best].cpu().numpy(), range(10), "o", label="you")
    ax.plot((model.mu + model.b_i)[best].cpu().numpy(), range(10), "k|", ms=14, label="everybody")
    ax.axvline(scale[1], color="black", linewidth=0.8)                            # end of the scale
    ax.set_yticks(range(10), [titles[i] for i in best.tolist()])
    ax.set(xlabel="predicted rating before clipping, stars",
           title=f"after {len(rated)} rating{'s' * (len(rated) != 1)}, your bias is {b:+.2f}")
    fig.legend(loc="outside lower center", ncols=2)
    plt.show()


draw_recommendations(**dict(zip(shown, (5, 2, 4, 0, 0, 3))))

# %% tags=["nbval-ignore-output"]
choices = [("not seen", 0), *((str(s), s) for s in (1, 2, 3, 4, 5))]
interact(draw_recommendations, **{
    title: SelectionSlider(options=choices, description=title, **WIDE) for title in shown});

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# With no rating every dot sits on its line. One rating moves all of them: by the bias alike, by the factors
# differently, the most where the vector is long and parallel to that of the film you rated.
#
# </details>
#
# ### Exercise 43.F · A recommendation for somebody new · ●●○ · 10 min
#
# The function that a service would call. Fold the new user in, score all items, leave out what they have
# rated, return the ids of the `k` best of the rest (fewer if fewer are left), best first; rank before
# clipping.

# %%
def recommend_new(mu, b_i, Q, items, values, lam, k):
    """b_i (m,), Q (m, d), items: list of ids, values: their stars. Returns a list of k ids."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output", "hide-input"]
def recommended(mu, b_i, Q, items, values, lam, k, seen=False, bias=True, weights=True,
                offsets=True, clip=False, trim=True):
    """The answer, and its famous errors: showing what was seen, forgetting b_i, offsets …"""
    user = Factors(mu * offsets, b_i[:0], b_i * offsets, Q[:0], Q)
    p, b = fold_in(user, items, values, lam)
    score = (mu + b + bias * b_i + (Q @ p if weights else 0)).clone()
    score = score.clamp(0.5, 5) if clip else score
    if not seen:
        score[items] = -torch.inf
    k = min(k, len(score) - len(set(items))) if trim else k
    return score.argsort(descending=True, stable=True)[:k].tolist()

# %% tags=["nbval-ignore-output", "hide-input"]
service = (3.0, torch.tensor([0.9, -0.5, 0.0, 0.3, -0.2, 0.1]),
           torch.tensor([[0.1, 0.2], [1.5, 0.3], [-1, 1], [0.2, 1.1], [1.2, -0.4], [-0.3, -0.9]]))
asked = [(*service, [1, 2], [5.0, 1.0], 0.5, 3), (*service, [5], [5.0], 0.1, 2),
         (*service, [0, 1], [1.0, 1.0], 0.5, 4), (*service, [], [], 1.0, 2),
         (*service, [0, 2], [1.0, 5.0], 0.05, 9)]
wrong = {"you recommended what was rated already": {"seen": True},
         "you clipped before ranking: ties": {"clip": True},
         "fewer than k are left: you filled up with what was rated": {"trim": False},
         "you forgot the items' biases": {"bias": False},
         "you did not subtract mu + b_i before solving": {"offsets": False},
         "you forgot the taste: everybody gets the same list": {"weights": False}}
exercise("43.F", recommend_new, [(args, recommended(*args)) for args in asked], mistakes={
    sentence: (lambda *args, o=options: recommended(*args, **o))
    for sentence, options in wrong.items()})

# %% [markdown]
# <details><summary>Hint 1</summary>`fold_in` wants a model: `Factors(mu, b_i[:0], b_i, Q[:0], Q)` is one without users.</details>
# <details><summary>Hint 2</summary>Scores are $\mu+b_*+b_i+\langle p_*,q_i\rangle$; put $-\infty$ where `items` are, then `argsort`.</details>
# <details><summary>Solution 43.F</summary>
#
# ```python
# def recommend_new(mu, b_i, Q, items, values, lam, k):
#     p, b = fold_in(Factors(mu, b_i[:0], b_i, Q[:0], Q), items, values, lam)
#     score = mu + b + b_i + Q @ p
#     score[items] = -torch.inf
#     return score.argsort(descending=True)[:min(k, len(score) - len(set(items)))].tolist()
# ```
#
# </details>

# %% [markdown]
# ## 11. ☆ Real ratings: five-fold cross-validation
#
# Every triple is predicted once, by a model that has not seen it.

# %%
def cross_validate(ratings, d, lam, n_sweeps, n_folds, seed=0):
    """Test RMSE of ALS in every fold: array (n_folds,)."""
    fold = torch.randperm(len(ratings), generator=torch.Generator().manual_seed(seed)) % n_folds
    fits = ((ratings[fold != k].to(device), ratings[fold == k].to(device)) for k in range(n_folds))
    return np.array([rmse(als(known, d, lam, n_sweeps), unseen)
                     for known, unseen in progress(fits, desc="folds", total=n_folds)])

# %% tags=["nbval-ignore-output"]
folds = cross_validate(ratings, D, LAM, N_SWEEPS, N_FOLDS)
measured("rmse", folds.mean(), folds.std(ddof=1))
print(f"{DATA}, ALS, d = {D}, λ = {LAM:g}: {N_FOLDS}-fold test RMSE {folds.mean():.4f} "
      f"± {folds.std(ddof=1):.4f} (mean ± standard deviation over folds)")

# %%
least, goal = (0.85, 0.92) if DATA == "ml-100k" else (scores["the true parameters"], 0.62)
guess = float(ratings.value.std())
claim(f"{N_FOLDS}-fold test RMSE under the goal, and not too good to be true", folds.mean(),
      above=least, below=goal, trivial=guess)

# %% [markdown]
# On the 100,000 ratings of MovieLens (`make full NB=43`; $d=16$, $\lambda=13$, chosen on one split of the
# same data, so slightly optimistic) ALS reaches <!--full:43.rmse-->0.914 ± 0.004<!--/full-->. Published for
# the same data, five folds, in the documentation of the library [Surprise](https://surpriselib.com): SVD
# 0.934, SVD++ 0.92, NMF 0.963, bias baseline 0.944. Our model is their "SVD"; SVD++ adds to $p_u$ a vector
# for each film the user rated, whatever the stars, and biases that drift with time come next (Koren et al.
# 2009). The comparison is not like for like: theirs has its default settings (another $d$, SGD, the
# count-weighted penalty of section 7), ours was tuned on the same data. A low RMSE does not promise a good
# top ten ([41](41_ranking_metrics.ipynb)), and a random split lets the future predict the past: split by time.

# %% [markdown]
# ## Where the notes slip
#
# | | the notes | right |
# |---|---|---|
# | E28 | $R$ is "the set of features of known pairs", the sum runs over $(u,i,r_{ui})\in\mathbb R$ | $R$ is the **set of triples**, the target is part of each; $\mathbb R$ is the real line |
# | E67 | "one may add a recommendation" («рекомендацию») | **regularisation** («регуляризацию»); with hardly any of it the training error falls and the test error rises: end of section 6 |
# | E68 | after "fix $Q$" still $\min_{b_u,b_i,p_u,q_i}$ | the only variables of that half-step are $p_u$ and $b_u$; if all four were minimised there would be nothing to alternate |
# | E122 | $\sum_{(i,j)}\lvert A-UV^\top\rvert_F^2$ | $\lVert A-UV^\top\rVert_F^2$ *is* the sum over all cells; another sum multiplies the value by their number, 20 for 4 × 5. (In our copy the first rows of the "observed-only" and the "weighted" table also disagree on which cells are observed.) |
#
# The others are worth a computation.
#
# ### E35 · Biases are not averages
#
# "$b_u$ is the average rating of the user, $b_i$ the average of the item", both subtracted: then the global
# mean is subtracted twice. If everybody gives 4 stars to everything, the "error" of the notes is
# $4-4-4=-4$. Right: $\mu+b_u+b_i$ with *trained* offsets, which are zero here.

# %%
fours = Ratings(small.user, small.item, torch.full_like(small.value, 4.0), small.time, 8, 6)
fitted = als(fours, 2, 0.5, n_sweeps=5)
user_mean = torch.zeros(8).to(device).index_add(0, fours.user, fours.value) / counts[0]
item_mean = torch.zeros(6).to(device).index_add(0, fours.item, fours.value) / counts[1]
two_means = user_mean[fours.user] + item_mean[fours.item]
print("E35: errors with two means:", set((fours.value - two_means).tolist()))
claim("E35: trained offsets are zero there, and the prediction is 4",
      torch.cat([fitted.b_u, fitted.b_i, fitted.predict(small.user, small.item) - 4]),
      torch.zeros(14 + len(small)), atol=1e-12)

# %% [markdown]
# ### E36 · "A linear convex function"
#
# With $Q$ fixed the functional is said to be linear in $p_u$. It is a convex **quadratic**: for a linear
# function second differences vanish; here they are the constant $2v^\top A_uv>0$ in every direction $v$,
# wherever one stands.

# %%
v, points = torch.randn(3, generator=g), torch.randn(20, 3, generator=g)
second = [J_u((p + v).numpy()) - 2 * J_u(p.numpy()) + J_u((p - v).numpy()) for p in points]
A_u = Q_u.mT @ Q_u + 0.7 * torch.eye(3)
check("43.6", "E36: the second difference is 2 v'Av everywhere: quadratic, not linear",
      second, [2 * v @ A_u @ v] * 20, rtol=1e-9)

# %% [markdown]
# ### E37 · "We multiply parameters, so there are local minima; SGD works rather badly"
#
# Half true. Non-convex, yes; but for a *fully observed* table every local minimum is global (43.19).
# Spurious minima come with missing cells (section 9). And SGD is a standard, competitive trainer: section 7
# measured it.
#
# ### E128 · The lost minus
#
# The seminar prints $\nabla_{p_u}=\sum2(r_{ui}-\langle p_u,q_i\rangle)q_i$ without the minus, and so for
# $\partial/\partial P_{ku}$. Central differences decide.

# %%
def J_free(p_0):
    """J without penalty as a function of the first user's vector."""
    P = torch.cat([p_0[None], toy.P[1:]])
    return objective(Factors(toy.mu, toy.b_u, toy.b_i, P, toy.Q), small, lam=0.0)

h, at_0 = 1e-5, small.user == 0

# %%
axes_3 = torch.eye(3).to(device)
numeric = [(J_free(toy.P[0] + h * a) - J_free(toy.P[0] - h * a)) / (2 * h) for a in axes_3]
e = (small.value - toy.predict(small.user, small.item))[at_0]
printed = 2 * (e[:, None] * toy.Q[small.item[at_0]]).sum(0)
check("43.3", "E128: the slope is eq. (43.3) with lam = 0, the printed gradient its negative",
      torch.stack([gradients(toy, small, 0.0)[0][0], -printed]), [numeric, numeric], atol=1e-6)

# %% [markdown]
# ### E129 · Which sum, and an inverse that need not exist
#
# The seminar's $p_u=(\sum_iq_iq_i^\top)^{-1}\sum_ir_{ui}q_i$ drops $I_u$ and $\lambda$, and refers to a
# problem (1) that carries no number. (Its text says that only known pairs are summed; its formulas do not.)
# Over *all* items, with zeros for the unknown ratings, it gives another vector: exercise 43.B knows this
# mistake. Over the rated ones the matrix is singular as soon as $\lvert I_u\rvert<d$: section 4.

# %%
rated = torch.tensor([0, 2, 3, 6])
with_zeros = torch.zeros(7)
with_zeros[rated] = r_u[rated]
gap = solve_user(Q_u[rated], r_u[rated], 0.7) - solve_user(Q_u, with_zeros, 0.7)
claim("E129: the sum over all items gives another vector", gap.abs().max(), above=0.05, trivial=0.0)

# %% [markdown]
# ### E130 · What HALS adds
#
# The seminar presents HALS as ALS by coordinates, and its formula is right. But the name and the fame come
# from *non-negative* factorisation, where the projection of one coordinate is exact. The printed fraction
# is $0/0$ when $Q_{ik}=0$ on all of $I_u$ (checked with (43.15)), which can happen once the projection has
# produced zeros. And the projection is exact for one coordinate only: clip a whole ridge solution, and the
# true non-negative optimum beats it.

# %%
r_mixed = Q_u @ torch.tensor([2.0, -2.0, 1.0])
clipped_p = solve_user(Q_u, r_mixed, 0.7).clamp(min=0)
rows, target = torch.cat([Q_u, 0.7**0.5 * torch.eye(3)]), torch.cat([r_mixed, torch.zeros(3)])
best = scipy.optimize.nnls(rows.numpy(), target.numpy())[1] ** 2
claim("E130: clipping a whole ridge solution is not the non-negative optimum",
      ((rows @ clipped_p - target) ** 2).sum(), above=1.01 * best, trivial=best)

# %% [markdown]
# ## What it costs
#
# Per sweep, with $N$ ratings, $n$ users, $m$ items:
#
# | step | multiplications | memory beside the data |
# |---|---|---|
# | ALS: build all $A_u$, $A_i$ (43.11) | $2N(d+1)(d+3)$ | $(n+m)(d+1)^2$ |
# | ALS: solve them | $\tfrac13(n+m)(d+1)^3$ | |
# | HALS sweep (43.15) | $\approx 8N(d+1)$, and $Nd$ to set the errors up once | $N$ |
# | SGD epoch (43.13) | $\approx 7N(d+1)$, in random order | – |
# | fold-in (43.20) | $n_*(d+1)^2+\tfrac13(d+1)^3$ | $(d+1)^2$ |
#
# By multiplications a HALS sweep is cheaper than an ALS sweep by about $(d+3)/4$, plus the solving. The clock
# need not agree: where an exponent of time lies below the derived one, perhaps fixed costs still count at
# these sizes. Random ratings of 2,000 users and 1,000 items; the time of a sweep is a fifth of the difference
# between six sweeps and one (so that reading and sorting the ratings, done once, does not count); a log-log
# slope is the measured exponent.

# %% tags=["hide-input"]
def random_triples(N, n=2000, m=1000):
    """N random triples, for timing only."""
    g = torch.Generator().manual_seed(0)
    user, item = torch.randint(n, (N,), generator=g), torch.randint(m, (N,), generator=g)
    return Ratings(user, item, torch.randn(N, generator=g), user, n, m).to(device)


def seconds_of(fit, sizes):
    """Seconds of a sweep: (6 sweeps - 1 sweep) / 5, the least of five, for every size."""
    least = lambda size, sweeps: min(timed(fit, size, sweeps, repeats=1, warmup=0)
                                     for _ in range(5))
    return np.array([(least(size, 6) - least(size, 1)) / 5 for size in sizes])

# %% tags=["hide-input"]
def multiplications(N, d, rows=3_000):
    """Of an ALS and of a HALS sweep, by the table above. rows: n + m."""
    return (2 * N * (d + 1) * (d + 3) + rows * (d + 1) ** 3 / 3, 8 * N * (d + 1) + N * d)


sizes, ranks = [12_500, 25_000, 50_000], [8, 16, 32]
many = {N: random_triples(N) for N in sizes}
fits = {"ALS": als, "HALS": hals}
in_N = {name: seconds_of(lambda N, sweeps: fit(many[N], 8, 1.0, sweeps), sizes)
        for name, fit in fits.items()}
in_d = {name: seconds_of(lambda d, sweeps: fit(many[25_000], d, 1.0, sweeps), ranks)
        for name, fit in fits.items()}

# %% tags=["nbval-ignore-output"]
measurements = (("N", sizes, in_N), ("d", ranks, in_d))
derived = {"N": multiplications(np.array(sizes), 8), "d": multiplications(25_000, np.array(ranks))}
pd.DataFrame({f"exponent in {x}": [np.polyfit(np.log(at), np.log(times[name]), 1)[0]
                                   for name in fits] +
              [np.polyfit(np.log(at), np.log(work), 1)[0] for work in derived[x]]
              for x, at, times in measurements},
             index=[*fits, "ALS, by the table above", "HALS, by the table above"]).round(2)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for ax, x, times, label in zip(axes, (sizes, ranks), (in_N, in_d), ("ratings $N$", "factors $d$")):
    for (name, seconds), marker in zip(times.items(), "os"):
        ax.plot(x, seconds, marker=marker, label=name)
    ax.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds per sweep")
    ax.set_xticks(x, [f"{v:,}" for v in x])
    ax.set_yticks([0.01, 0.03, 0.1, 0.3], ["0.01", "0.03", "0.1", "0.3"])
    ax.minorticks_off()
axes[0].legend()
plt.show()

# %% tags=["nbval-ignore-output"]
best_J = min(model.history[-1], by_hals.history[-1], by_sgd.history[-1])
histories = {"ALS": model.history[1::2], "HALS": by_hals.history, "SGD": by_sgd.history}
passes = {name: next((k for k, J in enumerate(h, 1) if J < 1.01 * best_J), None)
          for name, h in histories.items()}

# %% tags=["nbval-ignore-output"]
ratio = in_d["ALS"] / in_d["HALS"]
counted = np.divide(*derived["d"])
print(f"ALS / HALS at d = {ranks}: multiplications {counted.round(1).tolist()}, "
      f"time {ratio.round(1).tolist()}")
print("By the clock a HALS sweep is faster at d =", [d for d, r in zip(ranks, ratio) if r > 1],
      "and slower at d =", [d for d, r in zip(ranks, ratio) if r <= 1])
print("sweeps (epochs) until J is within 1 % of the best:", passes)
compare_speed({"als, batched": lambda: als(train, D, LAM, 1),
               "als_loop": lambda: als_loop(train, D, LAM, 1),
               "fold_in, one user": lambda: fold_in(model, [0, 1, 2], [4.0, 3.0, 5.0], LAM)},
              repeats=5)

# %% [markdown]
# ## Break it
#
# Every ✓ of this page is worth what it would notice. Choose a function and one change in it; the function
# and what depends on it are rebuilt in a copy, and the checks that it reaches run again.

# %% tags=["nbval-ignore-output"]
break_it()

# %% [markdown]
# ## Exam
#
# Answer aloud first, then open the model answer.

# %% [markdown] tags=["exam"]
# ### Question 17 · What is a latent factor model, how does it predict a rating, and which functional does it minimise?
#
# **По-русски.** Что такое модель со скрытыми переменными (LFM)? Как в ней предсказывается рейтинг и какой
# функционал она минимизирует?
#
# <details><summary>Model answer</summary>
#
# **Model.** Every user $u$ has a vector $p_u\in\mathbb R^d$ (a row of $P$; $d$ factors) and an offset
# $b_u$, every item $i$ a vector $q_i\in\mathbb R^d$ (a row of $Q$) and an offset $b_i$; $\mu$ is the mean
# of the training ratings. Prediction: $\hat r_{ui}=\mu+b_u+b_i+\langle p_u,q_i\rangle$. The offsets say how
# generous the user and how good the item is compared with the average; the scalar product says how well
# taste and character match. The coordinates are learned, not named, and only defined up to a common
# orthogonal transformation. In matrix form the table of ratings minus offsets is approximated by $PQ^\top$
# of rank at most $d$.
#
# **Functional** (43.1): over the set $R$ of observed triples $(u,i,r_{ui})$,
# $$\sum_{(u,i,r_{ui})\in R}(r_{ui}-\mu-b_u-b_i-\langle p_u,q_i\rangle)^2+\lambda\Big(\sum_u\lVert p_u\rVert^2+\sum_i\lVert q_i\rVert^2+\sum_ub_u^2+\sum_ib_i^2\Big)\to\min_{P,Q,b}.$$
# $\lambda\ge0$ is the weight of the penalty. Unobserved pairs do not occur. The penalty prevents
# over-fitting of users and items with few ratings; it is the log-prior of centred Gaussians with
# $\lambda=\sigma^2/\tau^2$ ($\sigma^2$, $\tau^2$: variances of noise and prior).
#
# **Training.** $I_u$: items rated by $u$; $n_u$, $m_i$: numbers of ratings of the user, of the item;
# $\eta$: step. *SGD*: take a rating, $e=r_{ui}-\hat r_{ui}$;
# $p_u\leftarrow p_u+\eta(eq_i-\frac\lambda{n_u}p_u)$, $b_u\leftarrow b_u+\eta(e-\frac\lambda{n_u}b_u)$ and
# symmetrically $q_i$, $b_i$ with $m_i$; the common rule with $\lambda$ in place of $\frac\lambda{n_u}$
# minimises the same errors with a penalty weighted by counts. *ALS*: the functional is not convex in all
# variables, but with $Q,b_i$ fixed it splits into one ridge regression per user,
# $(p_u,b_u)=(\sum_{i\in I_u}z_iz_i^\top+\lambda I)^{-1}\sum_{i\in I_u}(r_{ui}-\mu-b_i)z_i$ with
# $z_i=(q_i,1)$, and vice versa; each half-step is an exact minimum, so the functional never rises. *HALS*
# updates one coordinate at a time. A new user is added by one user half-step with the items frozen
# (fold-in).
#
# **Ответ по-русски.** Каждому пользователю $u$ сопоставляются вектор $p_u\in\mathbb R^d$ (строка матрицы
# $P$; $d$ — число факторов) и сдвиг $b_u$, каждому объекту $i$ — вектор $q_i\in\mathbb R^d$ (строка $Q$) и
# сдвиг $b_i$; $\mu$ — средняя оценка по обучающей выборке. Прогноз:
# $\hat r_{ui}=\mu+b_u+b_i+\langle p_u,q_i\rangle$. Сдвиги показывают, насколько пользователь щедрее, а
# объект лучше среднего; скалярное произведение — насколько вкус подходит объекту. Координаты векторов не
# имеют имён, они обучаются и определены с точностью до общего ортогонального преобразования; таблица
# рейтингов за вычетом сдвигов приближается матрицей $PQ^\top$ ранга не выше $d$. Функционал — сумма только
# по известным тройкам $R$:
# $$\sum_{(u,i,r_{ui})\in R}(r_{ui}-\mu-b_u-b_i-\langle p_u,q_i\rangle)^2+\lambda\Big(\sum_u\lVert p_u\rVert^2+\sum_i\lVert q_i\rVert^2+\sum_ub_u^2+\sum_ib_i^2\Big)\to\min_{P,Q,b}.$$
# Неизвестные пары в сумму не входят; $\lambda\ge0$ — коэффициент регуляризации. Регуляризация не даёт
# переобучиться на пользователях и объектах с малым числом оценок; она соответствует нормальному априорному
# распределению, $\lambda=\sigma^2/\tau^2$ ($\sigma^2$, $\tau^2$ — дисперсии шума и априорного
# распределения). *Обучение.* SGD: берём рейтинг, $e=r_{ui}-\hat r_{ui}$,
# $p_u\leftarrow p_u+\eta(eq_i-\frac\lambda{n_u}p_u)$, $b_u\leftarrow b_u+\eta(e-\frac\lambda{n_u}b_u)$,
# аналогично $q_i$, $b_i$ ($\eta$ — шаг, $n_u$, $m_i$ — числа оценок пользователя и объекта);
# распространённый вариант с $\lambda$ вместо $\lambda/n_u$ минимизирует функционал, в котором штраф умножен
# на число оценок. HALS: за один шаг обновляется одна координата сразу у всех $p_u$ (затем у всех $q_i$);
# каждый шаг — точный минимум параболы. ALS ($I_u$ — множество объектов, оценённых пользователем $u$): при
# фиксированных $q_i,b_i$ задача распадается на гребневые регрессии по пользователям,
# $\binom{p_u}{b_u}=\big(\sum_{i\in I_u}z_iz_i^\top+\lambda I\big)^{-1}\sum_{i\in I_u}(r_{ui}-\mu-b_i)z_i$,
# $z_i=(q_i,1)$; затем роли меняются; каждый полушаг — точный минимум, поэтому функционал не возрастает.
# Нового пользователя добавляют одним таким полушагом при фиксированных объектах.
#
# **Typical mistake.** Calling $b_u$, $b_i$ "the average ratings" (then the mean is subtracted twice),
# summing over all pairs instead of the observed ones, or forgetting the regulariser.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 57 · Write observed-only, weighted and SVD matrix factorisation as one family in w₀; what is known of its minima?
#
# **По-русски.** Запишите матричное разложение только по известным ячейкам, взвешенное разложение и SVD как
# одно семейство с параметром $w_0$. Что известно о минимумах?
#
# <details><summary>Model answer</summary>
#
# Let $R$ be the set of observed cells, $I_u$ the items rated by $u$, $A=(a_{ui})$ $(n\times m)$ the table
# with the observed value and 0 elsewhere, $a_u$ its row (as a column), $P$ $(n\times d)$, $Q$ $(m\times d)$
# with rows $p_u$, $q_i$ ($n$ users, $m$ items, $d$ factors), $\lambda\ge0$ the weight of the penalty. The
# functional is not convex in $(P,Q)$. The family (43.17) is
# $$J_{w_0}=\sum_{(u,i)\in R}(a_{ui}-\langle p_u,q_i\rangle)^2+w_0\sum_{(u,i)\notin R}\langle p_u,q_i\rangle^2+\lambda(\lVert P\rVert_F^2+\lVert Q\rVert_F^2).$$
#
# - $w_0=0$: **observed-only** MF. Missing cells say nothing; suited to ratings. ALS step
#   $p_u=(\sum_{i\in I_u}q_iq_i^\top+\lambda I)^{-1}\sum_{i\in I_u}a_{ui}q_i$. Needs $\lambda>0$; missing
#   cells may create spurious local minima.
# - $0<w_0<1$: **weighted** MF. A missing cell is a weak zero; suited to clicks (implicit ALS is the case
#   with weights that grow with the number of clicks). ALS step is weighted ridge,
#   $p_u=(Q^\top W_uQ+\lambda I)^{-1}Q^\top W_ua_u$ with $W_u=\operatorname{diag}(w_{ui})$, $w_{ui}=1$ on
#   observed cells and $w_0$ elsewhere.
# - $w_0=1$, $\lambda=0$: $J_1=\lVert A-PQ^\top\rVert_F^2$ over all cells, **truncated SVD**: by
#   Eckart–Young the minimum is $\sum_{k>d}s_k^2$ with $s_k$ the singular values of $A$, attained by the $d$
#   leading singular triples; every local minimum is global. (With $\lambda>0$ the kept singular values
#   become $\max(0,s_k-\lambda)$.)
#
# **Ответ по-русски.** Пусть $R$ — множество известных ячеек, $I_u$ — объекты, оценённые пользователем $u$,
# $A=(a_{ui})$ — таблица $n\times m$ с известными значениями и нулями в остальных ячейках, $a_u$ — её строка
# (как столбец), $P$ $(n\times d)$, $Q$ $(m\times d)$ — матрицы со строками $p_u$, $q_i$ ($n$
# пользователей, $m$ объектов, $d$ факторов), $\lambda\ge0$ — коэффициент регуляризации. Семейство:
# $$J_{w_0}=\sum_{(u,i)\in R}(a_{ui}-\langle p_u,q_i\rangle)^2+w_0\sum_{(u,i)\notin R}\langle p_u,q_i\rangle^2+\lambda(\lVert P\rVert_F^2+\lVert Q\rVert_F^2).$$
# При $w_0=0$ учитываются только известные ячейки: шаг ALS
# $p_u=(\sum_{i\in I_u}q_iq_i^\top+\lambda I)^{-1}\sum_{i\in I_u}a_{ui}q_i$; нужна регуляризация
# ($\lambda>0$), из-за пропусков возможны неглобальные локальные минимумы; подходит для рейтингов. При
# $0<w_0<1$ пропуск — слабый ноль (взвешенное разложение, к нему относится iALS; подходит для кликов):
# $p_u=(Q^\top W_uQ+\lambda I)^{-1}Q^\top W_ua_u$, $W_u=\operatorname{diag}(w_{ui})$, $w_{ui}=1$ для
# известных и $w_0$ для остальных ячеек. При $w_0=1$ и $\lambda=0$ получаем $\lVert A-PQ^\top\rVert_F^2$ по
# всем ячейкам; по теореме Эккарта — Янга минимум равен $\sum_{k>d}s_k^2$ ($s_k$ — сингулярные числа $A$) и
# достигается на усечённом сингулярном разложении; все локальные минимумы глобальны, хотя функционал
# невыпуклый. (При $\lambda>0$ оставленные сингулярные числа заменяются на $\max(0,s_k-\lambda)$.)
#
# **Typical mistake.** Applying SVD to a table of ratings filled with zeros and calling it observed-only;
# writing $\sum_{ij}\lVert\cdot\rVert_F^2$, which multiplies the loss by the number of cells.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 64 · Derive the ALS update; when is the matrix singular, and what does ridge change? (Why does the functional never rise?)
#
# **По-русски.** Выведите шаг ALS для вектора пользователя. Когда матрица системы вырождена и что меняет
# гребневая регуляризация? Почему функционал не возрастает?
#
# <details><summary>Model answer</summary>
#
# The model is $\hat r_{ui}=\langle p_u,q_i\rangle$ with $p_u,q_i\in\mathbb R^d$ the rows of $P$
# $(n\times d)$, $Q$ $(m\times d)$ ($n$ users, $m$ items); over the observed triples $(u,i,r_{ui})$ it
# minimises $J=\sum(r_{ui}-\langle p_u,q_i\rangle)^2+\lambda(\lVert P\rVert_F^2+\lVert Q\rVert_F^2)$,
# $\lambda\ge0$ the weight of the penalty. Let $I_u$ be the set of items rated by $u$. Fix $Q$. The
# functional splits into $J_u(p)=\sum_{i\in I_u}(r_{ui}-\langle p,q_i\rangle)^2+\lambda\lVert p\rVert^2$,
# one per user. Gradient: $-2\sum_{i\in I_u}(r_{ui}-q_i^\top p)q_i+2\lambda p$. Since
# $(q_i^\top p)q_i=q_iq_i^\top p$, setting it to zero gives
# $$\Big(\sum_{i\in I_u}q_iq_i^\top+\lambda I\Big)p_u=\sum_{i\in I_u}r_{ui}q_i,\qquad p_u=(Q_u^\top Q_u+\lambda I)^{-1}Q_u^\top r_u ,$$
# where the rows of $Q_u$ are the $q_i$, $i\in I_u$. With biases replace $q_i$ by $z_i=(q_i,1)$ and $r_{ui}$
# by $r_{ui}-\mu-b_i$; the solution is $(p_u,b_u)$. Items are symmetric.
#
# **Monotone.** With $A_u=Q_u^\top Q_u+\lambda I$: $J_u(p)-J_u(p_u)=(p-p_u)^\top A_u(p-p_u)\ge0$, as
# $v^\top A_uv=\lVert Q_uv\rVert^2+\lambda\lVert v\rVert^2\ge0$; users do not share variables, so the
# half-step minimises over all of $P$.
#
# **Singular.** $Q_u^\top Q_u$ is a sum of $\lvert I_u\rvert$ matrices of rank one: rank
# $\le\min(\lvert I_u\rvert,d)$. With $\lambda=0$ it is singular exactly if the rated items' vectors do not
# span $\mathbb R^d$, in particular whenever $\lvert I_u\rvert<d$ (with a bias: $<d+1$); then the minimum is
# not unique.
#
# **Ridge.** With the singular values $s_k$ of $Q_u$ the eigenvalues become $s_k^2+\lambda\ge\lambda>0$:
# always invertible, unique solution, condition number $(s_1^2+\lambda)/(s_d^2+\lambda)$. Directions in
# which the user gave no information are set to 0 and weak ones are shrunk by $s_k^2/(s_k^2+\lambda)$; a
# user without ratings gets $p_u=0$. For $\lambda\to0$ the solution tends to $Q_u^+r_u$.
#
# **Ответ по-русски.** Модель $\hat r_{ui}=\langle p_u,q_i\rangle$, где $p_u,q_i\in\mathbb R^d$ — строки
# матриц $P$ $(n\times d)$, $Q$ $(m\times d)$ ($n$ пользователей, $m$ объектов); по известным тройкам
# $(u,i,r_{ui})$ минимизируется
# $J=\sum(r_{ui}-\langle p_u,q_i\rangle)^2+\lambda(\lVert P\rVert_F^2+\lVert Q\rVert_F^2)$, $\lambda$ —
# коэффициент регуляризации. $I_u$ — множество объектов, оценённых пользователем $u$. При фиксированном $Q$
# функционал распадается по пользователям:
# $J_u(p)=\sum_{i\in I_u}(r_{ui}-\langle p,q_i\rangle)^2+\lambda\lVert p\rVert^2$, то есть
# $\lVert r_u-Q_up\rVert^2+\lambda\lVert p\rVert^2$, строки $Q_u$ — векторы $q_i$, $i\in I_u$. Градиент
# $-2\sum_{i\in I_u}(r_{ui}-q_i^\top p)q_i+2\lambda p$; так как $(q_i^\top p)q_i=q_iq_i^\top p$, приравнивая
# его к нулю, получаем
# $$\Big(\sum_{i\in I_u}q_iq_i^\top+\lambda I\Big)p_u=\sum_{i\in I_u}r_{ui}q_i,\qquad p_u=(Q_u^\top Q_u+\lambda I)^{-1}Q_u^\top r_u .$$
# Со сдвигами: $z_i=(q_i,1)$ вместо $q_i$ и $r_{ui}-\mu-b_i$ вместо $r_{ui}$, решение — пара $(p_u,b_u)$.
# *Вырожденность.* $Q_u^\top Q_u$ — сумма $\lvert I_u\rvert$ матриц ранга один; при $\lambda=0$ она
# вырождена тогда и только тогда, когда векторы оценённых объектов не порождают $\mathbb R^d$, в частности
# при $\lvert I_u\rvert<d$ (со сдвигом — при $\lvert I_u\rvert<d+1$); минимум тогда не единствен.
# *Регуляризация.* Собственные значения $s_k^2+\lambda>0$ ($s_k$ — сингулярные числа $Q_u$): решение
# единственно, число обусловленности $(s_1^2+\lambda)/(s_d^2+\lambda)$, компоненты вдоль плохо определённых
# направлений умножаются на $s_k^2/(s_k^2+\lambda)<1$, без оценок $p_u=0$; при $\lambda\to0$ получаем
# $Q_u^+r_u$. *Монотонность.* $J_u(p)-J_u(p_u)=(p-p_u)^\top(Q_u^\top Q_u+\lambda I)(p-p_u)\ge0$, так как
# $v^\top(Q_u^\top Q_u+\lambda I)v=\lVert Q_uv\rVert^2+\lambda\lVert v\rVert^2\ge0$; задачи разных
# пользователей независимы, поэтому полушаг — точный минимум по $P$, и функционал не возрастает.
#
# **Typical mistake.** Summing over all items instead of $I_u$; losing the minus of the gradient; saying
# that with $Q$ fixed the problem is linear (it is quadratic).
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 65 · Derive the HALS coordinate update and compare its cost with ALS.
#
# **По-русски.** Выведите покоординатное обновление HALS (в том числе неотрицательное) и сравните стоимость
# с ALS.
#
# <details><summary>Model answer</summary>
#
# The model is $\hat r_{ui}=\langle p_u,q_i\rangle$ with $p_u,q_i\in\mathbb R^d$ the rows of $P$
# $(n\times d)$, $Q$ $(m\times d)$ ($n$ users, $m$ items); over the observed triples $(u,i,r_{ui})$ it
# minimises $J=\sum(r_{ui}-\langle p_u,q_i\rangle)^2+\lambda(\lVert P\rVert_F^2+\lVert Q\rVert_F^2)$,
# $\lambda\ge0$ the weight of the penalty. $N$ is the number of ratings, $I_u$ the items rated by $u$. Fix
# everything except $P_{uk}$ (coordinate $k$ of $p_u$) and let
# $e^{(k)}_{ui}=r_{ui}-\sum_{l\ne k}P_{ul}Q_{il}$ (minus $\mu+b_u+b_i$ with biases). Then
# $J=\sum_{i\in I_u}(e^{(k)}_{ui}-P_{uk}Q_{ik})^2+\lambda P_{uk}^2+\text{const}$ is a parabola; its
# derivative $-2\sum_{i\in I_u}(e^{(k)}_{ui}-P_{uk}Q_{ik})Q_{ik}+2\lambda P_{uk}$ vanishes at
# $$P_{uk}=\frac{\sum_{i\in I_u}e^{(k)}_{ui}Q_{ik}}{\sum_{i\in I_u}Q_{ik}^2+\lambda}.$$
# Different users are independent, so coordinate $k$ of all users is updated at once. With the constraint
# $P_{uk}\ge0$ the minimum of the parabola on the half-line is $\max(0,\cdot)$ of the same value, exact
# because the problem is one-dimensional. If the denominator is 0 the coordinate has no influence and
# stays. Each update is an exact minimum, so $J$ never rises.
#
# **Cost.** Keep the errors $e_{ui}$ and correct them after each row: $O(N)$ per row, $O(Nd)$ per sweep, no
# system. ALS: $O(Nd^2)$ to build and $O((n+m)d^3)$ to solve. In multiplications about $8N(d+1)$, if the
# errors are carried along, against $2N(d+1)(d+3)$ plus the solving: HALS is cheaper per sweep by at least
# about $(d+3)/4$. By the clock a batched ALS can still win at small $d$. HALS moves along axes only, so it
# may need more sweeps; ALS minimises over the whole vector. HALS handles non-negativity for free, ALS does
# not: clipping its solution is not the constrained optimum.
#
# **Ответ по-русски.** Модель $\hat r_{ui}=\langle p_u,q_i\rangle$, где $p_u,q_i\in\mathbb R^d$ — строки
# матриц $P$ $(n\times d)$, $Q$ $(m\times d)$ ($n$ пользователей, $m$ объектов); по известным тройкам
# $(u,i,r_{ui})$ минимизируется
# $J=\sum(r_{ui}-\langle p_u,q_i\rangle)^2+\lambda(\lVert P\rVert_F^2+\lVert Q\rVert_F^2)$, $\lambda$ —
# коэффициент регуляризации. $N$ — число оценок, $I_u$ — объекты, оценённые пользователем $u$. Фиксируем
# всё, кроме $P_{uk}$; пусть $e^{(k)}_{ui}=r_{ui}-\sum_{l\ne k}P_{ul}Q_{il}$ — ошибка без $k$-го фактора (со
# сдвигами вычитаем ещё $\mu+b_u+b_i$). По одной координате функционал — парабола
# $\sum_{i\in I_u}(e^{(k)}_{ui}-P_{uk}Q_{ik})^2+\lambda P_{uk}^2+\text{const}$; производная
# $-2\sum_{i\in I_u}(e^{(k)}_{ui}-P_{uk}Q_{ik})Q_{ik}+2\lambda P_{uk}$ равна нулю при
# $$P_{uk}=\frac{\sum_{i\in I_u}e^{(k)}_{ui}Q_{ik}}{\sum_{i\in I_u}Q_{ik}^2+\lambda},\qquad e^{(k)}_{ui}=e_{ui}+P_{uk}Q_{ik}.$$
# Пользователи независимы, поэтому сразу обновляется $k$-я координата всех пользователей. При ограничении
# $P_{uk}\ge0$ берут $\max(0,\cdot)$ — минимум параболы на полупрямой. Если знаменатель равен нулю,
# координата не меняется. Каждый шаг — точный минимум, функционал не возрастает. *Стоимость.* Ошибки
# $e_{ui}$ пересчитываются после каждой строки за $O(N)$, проход стоит $O(Nd)$ против $O(Nd^2+(n+m)d^3)$ у
# ALS: нет систем уравнений; примерно $8N(d+1)$ против $2N(d+1)(d+3)$ умножений плюс решение систем, то есть
# выигрыш в числе умножений не менее чем примерно в $(d+3)/4$ раз; по времени при малых $d$ пакетный ALS
# может оказаться быстрее. HALS движется только вдоль осей, поэтому проходов может понадобиться больше; ALS
# минимизирует сразу по всему вектору. Условие неотрицательности в HALS учитывается без дополнительных
# затрат; обнулить отрицательные компоненты решения ALS нельзя: это не минимум при ограничении $p_u\ge0$.
#
# **Typical mistake.** Using the error *with* factor $k$ in the numerator; forgetting that the sum in the
# denominator runs over $I_u$ and differs from user to user.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# - LFM: $\hat r_{ui}=\mu+b_u+b_i+\langle p_u,q_i\rangle$; the functional (43.1) sums squared errors over
#   observed triples and penalises every trained parameter.
# - With one side fixed it splits into ridge regressions with the closed form (43.8); each half-step is an
#   exact minimum, so ALS never goes up (43.6).
# - $\lambda>0$ makes every matrix invertible (43.10); $\lambda=\sigma^2/\tau^2$ is the noise-to-prior ratio
#   (43.2); users without ratings get zeros.
# - HALS (43.15) minimises one coordinate at a time in $O(Nd)$ per sweep and carries non-negativity exactly;
#   SGD (43.13) descends on the same functional if the penalty is shared out by counts.
# - Observed-only, weighted and SVD differ in the weight $w_0$ of a missing cell (43.17); in the fully
#   observed case every local minimum is global; with missing cells other minima can appear.
#
# **References**
#
# - S. Funk, [Netflix update: try this at home](https://sifter.org/~simon/journal/20061211.html), 2006: SGD,
#   one factor at a time.
# - Y. Koren, R. Bell, C. Volinsky,
#   [Matrix factorization techniques for recommender systems](https://doi.org/10.1109/MC.2009.263), IEEE
#   Computer, 2009.
# - Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan,
#   [Large-scale parallel collaborative filtering for the Netflix Prize](https://doi.org/10.1007/978-3-540-68880-8_32),
#   AAIM 2008: ALS-WR.
# - A. Cichocki, R. Zdunek, S. Amari,
#   [Hierarchical ALS algorithms for nonnegative matrix and 3D tensor factorization](https://doi.org/10.1007/978-3-540-74494-8_22),
#   ICA 2007: HALS.
# - C. Eckart, G. Young,
#   [The approximation of one matrix by another of lower rank](https://doi.org/10.1007/BF02288367),
#   Psychometrika, 1936.
# - P. Baldi, K. Hornik,
#   [Neural networks and principal component analysis: learning from examples without local minima](https://doi.org/10.1016/0893-6080(89)90014-2),
#   Neural Networks, 1989.
# - L. Grippo, M. Sciandrone,
#   [On the convergence of the block nonlinear Gauss–Seidel method under convex constraints](https://doi.org/10.1016/S0167-6377(99)00074-7),
#   Operations Research Letters, 2000.
# - R. Ge, J. D. Lee, T. Ma,
#   [Matrix completion has no spurious local minimum](https://arxiv.org/abs/1605.07272), NIPS 2016.
# - Y. Hu, Y. Koren, C. Volinsky,
#   [Collaborative filtering for implicit feedback datasets](https://doi.org/10.1109/ICDM.2008.22), ICDM
#   2008: small weights for missing cells.
# - N. Hug, [Surprise: a Python library for recommender systems](https://doi.org/10.21105/joss.02174), JOSS,
#   2020.
# - F. M. Harper, J. A. Konstan,
#   [The MovieLens datasets: history and context](https://doi.org/10.1145/2827872), ACM TiiS, 2015.
#
# <!-- navigation -->
# previous: [42 Neighbours](42_neighbourhood.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [44 Implicit ALS](44_implicit_als.ipynb)
# <!-- /navigation -->
