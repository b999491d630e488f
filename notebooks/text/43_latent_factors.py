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
# Each user has rated a few of very many films, so nearly all cells of the table of ratings are empty. How can they be filled by
# a model in which every user and every item is a short vector, and why can each half of that model be fitted *exactly*, by
# a formula?
#
# **You will be able to**
#
# - write the functional of a latent factor model with biases, and its gradients;
# - derive the ALS update, prove that it never raises the functional, and say when its matrix is singular;
# - derive the HALS update (and its non-negative form) and the SGD update that belongs to the same functional;
# - place observed-only, weighted and SVD factorisation in one family;
# - add a new user by fold-in, without refitting, and state what everything costs.
#
# **Prerequisites**: gradients, least squares, eigenvalues and singular values, the normal distribution. How the pages work: [00 start here](00_start_here.ipynb).
# What ratings are and how to measure a recommender is the topic of [41 ranking metrics](41_ranking_metrics.ipynb).
#
# **Time** 20 s on 2 CPU cores · **Memory** 0.6 GB · **Data** simulated ratings with a known truth (full run: MovieLens 100K) · **Exam questions** 17, 57, 64, 65 · [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)

# %% [markdown]
# ## Notation
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
# | $\sigma_k$: singular values of the matrix at hand | `s`, `sigma`, `kept` | decreasing, ≥ 0 |
#
# The lecture notes stack the vectors as *columns* ($P^\top Q$; their $P_{ku}$ is our $P_{uk}$) and call the weight of the items' penalty $\mu$; here $\mu$ is the mean and one $\lambda$ serves all.

# %% [markdown]
# The next cell finds the course on this machine (or fetches it) and fixes seed, device and style; it is the same in every notebook.

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
# This notebook's own imports. scikit-learn and SciPy serve as oracles (and, once, for non-negative least squares). Identities are checked to machine precision, so float64 is the default.

# %%
import warnings
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.optimize
import scipy.sparse
import torch
from ipywidgets import IntSlider, SelectionSlider, interact
from sklearn.decomposition import NMF
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error

from helpers.data import Ratings

torch.set_default_dtype(torch.float64)

# %% [markdown]
# Every size of the notebook stands here. `make full NB=43` runs the same cells with MovieLens 100K.

# %% tags=["parameters"]
DATA = "bundled"          # or "ml-100k"
D = 4                     # factors
LAM = 1.3                 # weight of the penalty, see (43.2)
N_SWEEPS = 15             # ALS sweeps
N_EPOCHS = 80             # SGD
N_FOLDS = 5               # cross-validation
GRID_D = [1, 2, 4, 8]     # of the first "Try it"
GRID_LAM = [0.1, 0.3, 0.6, 1.3, 2.5, 5.0, 10.0, 30.0]

# %% [markdown]
# ## 1. Data and model
#
# The training set is a **set of triples** $R=\{(u,i,r_{ui})\}$: who rated what, and how. Most pairs are not in it; we write $(u,i)\in R$ for a pair that is. (Should the same triple come twice in a file, both copies count.) The bundled ratings are simulated from
# a latent factor model with four factors, biases and noise of standard deviation 0.5 stars, so that we know what a method should recover; a few users and
# items are cold (no rating at all).

# %%
ratings = data.ratings(DATA)
titles = data.items(DATA).title
N = len(ratings)
print(f"{N:,} ratings, {ratings.n_users} users, {ratings.n_items} items: "
      f"{N / ratings.n_users / ratings.n_items:.1%} of the cells")

# %% [markdown]
# A fifth of the triples is held out. The draw uses a CPU generator, so that it is the same on every device.

# %%
order = torch.randperm(N, generator=torch.Generator().manual_seed(43))
train, test = ratings[order[N // 5:]].to(device), ratings[order[:N // 5]].to(device)
scale = float(ratings.value.min()), float(ratings.value.max())     # predictions are clipped to it


# %% [markdown]
# The **latent factor model** (LFM) predicts
#
# $$\hat r_{ui}=\mu+b_u+b_i+\langle p_u,q_i\rangle .$$
#
# $\mu$ is fixed to the mean of the training ratings. $b_u$ and $b_i$ are *trained* offsets: how much kinder than average the user is, how much better than average
# the item. The scalar product is what is left: the match of this user's taste with this item's character.
# The axes of the $d$-dimensional space have no names; nobody labelled them.
#
# Bad input should be refused with a sentence that says what to do, once, for all methods below.

# %%
def validated(ratings, d, lam, steps):
    """(user, item, value) of usable ratings; ValueError that says what to do about others."""
    user, item, value = ratings.user, ratings.item, ratings.value
    if value.numel() == 0 or value.dim() != 1 or not user.shape == item.shape == value.shape:
        raise ValueError(f"need equally many users, items and values, at least one: got shapes "
                         f"{tuple(user.shape)}, {tuple(item.shape)}, {tuple(value.shape)}")
    for name, ids, size in (("user", user, ratings.n_users), ("item", item, ratings.n_items)):
        whole = not ids.is_floating_point() and ids.dtype != torch.bool
        if not whole or int(ids.min()) < 0 or int(ids.max()) >= size:
            raise ValueError(f"{name} ids must be integers 0..{size - 1}, got {ids.dtype} from "
                             f"{ids.min()} to {ids.max()}: renumber them from 0")
    if not torch.isfinite(value).all():
        raise ValueError("ratings contain NaN or infinity: drop them, a missing rating has no row")
    if d < 1 or steps < 1 or not 0 <= lam < float("inf"):
        raise ValueError(f"need d >= 1, lam >= 0 and at least one sweep or epoch: got d={d}, "
                         f"lam={lam} and {steps}")
    return user.long(), item.long(), value if value.is_floating_point() else value.double()


# %% [markdown]
# A fitted model is its parameters, its history and one formula.

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


# %% [markdown]
# ### What is minimised
#
# Squared errors over the observed cells, plus one penalty on everything that is trained:
#
# $$J=\sum_{(u,i,r_{ui})\in R}\big(r_{ui}-\mu-b_u-b_i-\langle p_u,q_i\rangle\big)^2+\lambda\Big(\sum_u\lVert p_u\rVert^2+\sum_i\lVert q_i\rVert^2+\sum_u b_u^2+\sum_i b_i^2\Big) \tag{43.1}$$
#
# Sums, not means: with $\lambda$ fixed, a user with many ratings is penalised relatively less. That is Bayes: a Gaussian prior on the parameters
# counts once, the likelihood once per rating. $\mu$ is not penalised and not trained.

# %%
def objective(model, ratings, lam):
    """J of eq. (43.1), a float: summed squared error over the observed cells plus the penalty."""
    e = ratings.value - model.predict(ratings.user, ratings.item)                      # (N,)
    penalty = sum((w**2).sum() for w in (model.P, model.Q, model.b_u, model.b_i))
    return float((e**2).sum() + lam * penalty)


# %% [markdown]
# To test it we take a small problem (8 users, 6 items, random parameters) and compute (43.1) a second time, cell by cell with NumPy's dense algebra.
# The triples are shuffled and the table has holes, so that an index mixed up would show.

# %%
g = torch.Generator().manual_seed(1)
table = 3 + torch.randn(8, 6, generator=g)
seen = torch.rand(8, 6, generator=g) < 0.6
cells = seen.nonzero()[torch.randperm(int(seen.sum()), generator=g)]
user, item = cells.T
small = Ratings(user, item, table[user, item], user, 8, 6).to(device)
toy = Factors(2.9, *(torch.randn(*s, generator=g).to(device) for s in ((8,), (6,), (8, 3), (6, 3))))

# %%
b_u, b_i, P, Q = (x.cpu().numpy() for x in (toy.b_u, toy.b_i, toy.P, toy.Q))
E = np.where(seen.numpy(), table.numpy() - 2.9 - b_u[:, None] - b_i[None, :] - P @ Q.T, 0)
by_hand = np.linalg.norm(E) ** 2 + 0.7 * sum(np.linalg.norm(w) ** 2 for w in (P, Q, b_u, b_i))
check("43.1", "J is the dense masked sum of squares plus the penalty",
      objective(toy, small, 0.7), by_hand, rtol=1e-12)


# %% [markdown]
# ### Where $\lambda$ comes from
#
# Suppose the ratings are independent, $r_{ui}\sim\mathcal N(\hat r_{ui},\sigma^2)$, and every coordinate of $p_u,q_i$ and every offset was drawn from $\mathcal N(0,\tau^2)$. By Bayes' rule the logarithm of the posterior density is, up to a constant, the log-likelihood plus the log-prior:
#
# $$\log p(P,Q,b\mid R)=-\frac1{2\sigma^2}\Big[\sum_Re_{ui}^2+\frac{\sigma^2}{\tau^2}\big(\lVert P\rVert^2+\lVert Q\rVert^2+\lVert b_u\rVert^2+\lVert b_i\rVert^2\big)\Big]+\text{const}=-\frac{J}{2\sigma^2}+\text{const},\qquad\lambda=\frac{\sigma^2}{\tau^2} \tag{43.2}$$
#
# Minimising $J$ is finding the most probable parameters, and $\lambda$ is the ratio of the noise to the prior (one $\tau$ for factors and biases is a convenience). The constant cancels in a difference between two sets of parameters, which is what the check compares.

# %%
def log_posterior(model, ratings, sigma, tau):
    """Log density of ratings and parameters, up to a constant, by torch.distributions."""
    noise, prior = torch.distributions.Normal(0, sigma), torch.distributions.Normal(0, tau)
    e = ratings.value - model.predict(ratings.user, ratings.item)
    parameters = (model.P, model.Q, model.b_u, model.b_i)
    return noise.log_prob(e).sum() + sum(prior.log_prob(w).sum() for w in parameters)


# %% [markdown]
# Two parameter sets, the same data:

# %%
other = Factors(2.9, 0.5 * toy.b_u, toy.b_i.flip(0), 0.8 * toy.P, toy.Q - 0.3)
sigma, tau = 0.6, 1.7
gain = log_posterior(other, small, sigma, tau) - log_posterior(toy, small, sigma, tau)
lam = sigma**2 / tau**2
check("43.2", "log-posteriors differ by the difference of -J / (2 sigma^2), lam = sigma^2 / tau^2",
      gain, (objective(toy, small, lam) - objective(other, small, lam)) / (2 * sigma**2),
      rtol=1e-10)


# %% [markdown]
# ## 2. Gradients
#
# Fix one user. Only the terms with this $u$ contain $p_u$ and $b_u$, and $\partial e_{ui}/\partial p_u=-q_i$, $\partial e_{ui}/\partial b_u=-1$. By the chain rule
#
# $$\nabla_{p_u}J=-2\sum_{i\in I_u}e_{ui}\,q_i+2\lambda p_u,\qquad \nabla_{q_i}J=-2\sum_{u\in U_i}e_{ui}\,p_u+2\lambda q_i \tag{43.3}$$
#
# $$\frac{\partial J}{\partial b_u}=-2\sum_{i\in I_u}e_{ui}+2\lambda b_u,\qquad \frac{\partial J}{\partial b_i}=-2\sum_{u\in U_i}e_{ui}+2\lambda b_i \tag{43.4}$$
#
# The minus comes from the minus inside the error. It vanishes from sight when the gradient is set to zero, which is why it is so often forgotten; a gradient step
# without it climbs.

# %%
def gradients(model, ratings, lam):
    """Gradients of J for P, Q, b_u, b_i, in their shapes: eqs. (43.3), (43.4)."""
    u, i = ratings.user, ratings.item
    e = ratings.value - model.predict(u, i)                                            # (N,)
    P, Q, b_u, b_i = model.P, model.Q, model.b_u, model.b_i
    return (2 * lam * P - 2 * torch.zeros_like(P).index_add(0, u, e[:, None] * Q[i]),
            2 * lam * Q - 2 * torch.zeros_like(Q).index_add(0, i, e[:, None] * P[u]),
            2 * lam * b_u - 2 * torch.zeros_like(b_u).index_add(0, u, e),
            2 * lam * b_i - 2 * torch.zeros_like(b_i).index_add(0, i, e))


# %% [markdown]
# The oracle is autograd, which differentiates (43.1) without knowing our derivation.

# %%
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
# $J$ is of fourth degree in all parameters together and not convex. But fix $Q$ (leave the biases out for a moment, so that the error is $r_{ui}-\langle p_u,q_i\rangle$): what remains falls apart into one problem
# per user,
#
# $$J_u(p)=\sum_{i\in I_u}(r_{ui}-\langle p,q_i\rangle)^2+\lambda\lVert p\rVert^2=\lVert r_u-Q_u\,p\rVert^2+\lambda\lVert p\rVert^2 ,$$
#
# where the rows of $Q_u$ $(n_u\times d)$ are the vectors of the items that $u$ rated and $r_u$ are his ratings. This *is* ridge regression: the $q_i$ are the features, $p_u$ are the weights.
# Set the gradient to zero. To move $p$ out of the scalar product, use $(a^\top b)\,c=c\,(b^\top a)=(cb^\top)\,a$ with $a=p$, $b=c=q$, so that $\langle p,q\rangle\,q=(qq^\top)\,p$:
#
# $$-2\sum_{i\in I_u}(r_{ui}-q_i^\top p)\,q_i+2\lambda p=0\iff\Big(\sum_{i\in I_u}q_iq_i^\top+\lambda I\Big)p=\sum_{i\in I_u}r_{ui}q_i ,$$
#
# and hence the update of **alternating least squares** (ALS)
#
# $$p_u=\Big(\sum_{i\in I_u}q_iq_i^\top+\lambda I\Big)^{-1}\sum_{i\in I_u}r_{ui}\,q_i=(Q_u^\top Q_u+\lambda I)^{-1}Q_u^\top r_u \tag{43.5}$$
#
# The sum runs over the items *this user rated*, not over all items. In code the system is solved; nobody inverts a matrix.

# %%
def solve_user(Q_u, r_u, lam):
    """Closed-form p_u (d,) of eq. (43.5) from the rated items' Q_u (n_u, d) and ratings r_u (n_u,).

    ValueError: shapes that do not fit, NaN, lam < 0, or lam = 0 with Q_u of rank < d (singular).
    """
    n_u, d = Q_u.shape
    if r_u.shape != (n_u,) or not (torch.isfinite(Q_u).all() and torch.isfinite(r_u).all()):
        raise ValueError(f"need finite Q_u (n_u, d) and r_u (n_u,): got {tuple(Q_u.shape)} and "
                         f"{tuple(r_u.shape)}, or a NaN in them")
    if not 0 <= lam < float("inf"):
        raise ValueError(f"lam must be zero or positive, got {lam}")
    if lam == 0 and (n_u < d or torch.linalg.matrix_rank(Q_u) < d):
        raise ValueError(f"{n_u} ratings do not determine {d} unknowns (singular): take lam > 0")
    A = Q_u.mT @ Q_u + lam * torch.eye(d, dtype=Q_u.dtype, device=Q_u.device)          # (d, d)
    return torch.linalg.solve(A, Q_u.mT @ r_u)                                          # (d,)


# %% [markdown]
# Three independent witnesses: a numerical minimiser that only sees the value of $J_u$, scikit-learn's ridge regression, and the loop over the sum as it is printed.

# %%
Q_u = torch.randn(7, 3, generator=g)
r_u = torch.randn(7, generator=g) + 1
p_u = solve_user(Q_u.to(device), r_u.to(device), 0.7).cpu()


# %% [markdown]
# The value of $J_u$, in NumPy, and what the three witnesses say:

# %%
def J_u(p):
    return ((r_u.numpy() - Q_u.numpy() @ p) ** 2).sum() + 0.7 * (p**2).sum()

by_lbfgs = scipy.optimize.minimize(J_u, np.zeros(3), method="L-BFGS-B", tol=1e-14).x
by_ridge = Ridge(alpha=0.7, fit_intercept=False).fit(Q_u, r_u).coef_
A = sum(torch.outer(q, q) for q in Q_u) + 0.7 * torch.eye(3)

# %%
check("43.5", "p_u is the minimiser that L-BFGS finds", p_u, by_lbfgs, atol=1e-5)
check("43.5", "p_u is the ridge regression of r_u on Q_u", p_u, by_ridge, atol=1e-10)
a, b, c = torch.randn(3, 5, generator=g)
check("43.5", "the identity (a'b) c = (c b') a", (a @ b) * c, torch.outer(c, b) @ a, atol=1e-12)
check("43.5", "the printed sums give the same system",
      A @ p_u, sum(r * q for r, q in zip(r_u, Q_u)), atol=1e-10)

# %% [markdown]
# ### Why a half-step never raises the objective
#
# $J_u$ is a quadratic function with Hessian $2A_u$, $A_u=Q_u^\top Q_u+\lambda I$. Expand it around its stationary point $p_u$ (where the linear term vanishes) and nothing is left but
#
# $$J_u(p)-J_u(p_u)=(p-p_u)^\top A_u\,(p-p_u)\ \ge 0 \tag{43.6}$$
#
# $A_u$ is positive semi-definite, since $v^\top A_uv=\lVert Q_uv\rVert^2+\lambda\lVert v\rVert^2$, and positive definite if $\lambda>0$. So $p_u$ is *the* minimum, whatever stood there before.
# The users' problems do not share a variable, so all users may be solved at once: the half-step minimises $J$ exactly over all of $P$ with $Q$ fixed. Then the roles swap. Every half-step
# goes down or stays, and as $J\ge0$, the values of $J$ converge. For $\lambda>0$ every limit point of the iterates is stationary (Grippo and Sciandrone 2000), though not necessarily the best one (E37 below).

# %%
p = torch.randn(3, generator=g)
step = p - p_u
check("43.6", "the excess over the minimum is the quadratic form of A",
      J_u(p.numpy()) - J_u(p_u.numpy()), step @ A @ step, rtol=1e-10)
check("43.6", "A is positive definite", torch.linalg.eigvalsh(A).min() >= 0.7)

# %% [markdown]
# ### Ridge is least squares with $d$ invented ratings
#
# $\lambda\lVert p\rVert^2=\sum_k(0-\sqrt\lambda\,p_k)^2$: the penalty is the squared error of $d$ extra "items" $\sqrt\lambda\,\mathbf e_k$ that everybody rates with zero. Thus
#
# $$p_u=\arg\min_p\Big\lVert\begin{pmatrix}r_u\\0\end{pmatrix}-\begin{pmatrix}Q_u\\\sqrt\lambda\,I\end{pmatrix}p\Big\rVert^2 \tag{43.7}$$
#
# and a user without any rating gets $p_u=0$: the model answers with $\mu+b_i$, which is what one should say about somebody unknown.

# %%
stacked = torch.cat([Q_u, 0.7**0.5 * torch.eye(3)])
target = torch.cat([r_u, torch.zeros(3)])
by_lstsq = np.linalg.lstsq(stacked.numpy(), target.numpy(), rcond=None)[0]
check("43.7", "ridge is ordinary least squares with d more rows", p_u, by_lstsq, atol=1e-10)
check("43.7", "no ratings: p_u = 0", solve_user(Q_u[:0], r_u[:0], 0.7), torch.zeros(3))


# %% [markdown]
# ### With biases
#
# Put a constant 1 behind every item vector and the bias behind every user vector, $z_i=(q_i,1)$ and $x_u=(p_u,b_u)$. Then $\langle p_u,q_i\rangle+b_u=\langle x_u,z_i\rangle$, the penalty on $p_u$ and $b_u$ is
# $\lambda\lVert x_u\rVert^2$, and the derivation above holds letter by letter with $z_i$ for $q_i$ and the target $r_{ui}-\mu-b_i$:
#
# $$x_u=\binom{p_u}{b_u}=\Big(\sum_{i\in I_u}z_iz_i^\top+\lambda I\Big)^{-1}\sum_{i\in I_u}(r_{ui}-\mu-b_i)\,z_i \tag{43.8}$$
#
# The item step is the mirror image, with $z_u=(p_u,1)$ and the target $r_{ui}-\mu-b_u$:
#
# $$x_i=\binom{q_i}{b_i}=\Big(\sum_{u\in U_i}z_uz_u^\top+\lambda I\Big)^{-1}\sum_{u\in U_i}(r_{ui}-\mu-b_u)\,z_u \tag{43.9}$$
#
# Factors and bias of one user are found *together*, by one solve. Here is ALS as one would explain it at the blackboard: a loop over users, a loop over items.

# %%
def random_start(ratings, d, seed, like):
    """P (n, d), Q (m, d) from N(0, 0.1^2), drawn on the CPU; zero for those without ratings."""
    g, start = torch.Generator().manual_seed(seed), []
    for ids, size in ((ratings.user, ratings.n_users), (ratings.item, ratings.n_items)):
        draw = 0.1 * torch.randn(size, d, generator=g, dtype=torch.float64)
        has_ratings = torch.bincount(ids.long(), minlength=size) > 0
        start.append(draw.to(like) * has_ratings[:, None])
    return start


# %% [markdown]
# Both sides have the same form: a table of $(\text{factors},\text{bias})$, `X` for users and `Y` for items. The loop says "own" for the side that is updated.

# %%
def als_loop(ratings, d, lam, n_sweeps, seed=0):
    """ALS by eqs. (43.8), (43.9), one user and one item at a time: the oracle of `als`."""
    user, item, value = validated(ratings, d, lam, n_sweeps)
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
# Is it right? After the last half-step (items) the gradients for $q_i$ and $b_i$ must vanish: everything that belongs to items sits at its optimum. The gradients for users need not vanish, and do not, until
# ALS has converged.

# %%
by_loop = als_loop(small, d=3, lam=0.7, n_sweeps=2)
dP, dQ, db_u, db_i = gradients(by_loop, small, 0.7)
check("43.9", "after the item half-step the items' gradients vanish",
      torch.cat([dQ, db_i[:, None]], 1), torch.zeros(6, 4), atol=1e-9)
check("43.9", "the users' gradients do not vanish yet", dP.abs().max() > 1e-3)

# %%
half = als_loop(small, d=3, lam=0.7, n_sweeps=1)
Z = np.c_[half.P.cpu(), np.ones(8)][small.user.cpu()][small.item.cpu() == 2]
target = (small.value - half.mu - half.b_u[small.user]).cpu()[small.item.cpu() == 2]
x_2 = Ridge(alpha=0.7, fit_intercept=False).fit(Z, target).coef_
check("43.9", "item 2 is the ridge regression on its raters' (p_u, 1)",
      torch.cat([half.Q[2], half.b_i[2:3]]), x_2, atol=1e-9)

# %%
long = als_loop(small, d=3, lam=0.7, n_sweeps=400)
dP, dQ, db_u, db_i = gradients(long, small, 0.7)
check("43.8", "at convergence the users' gradients vanish as well",
      torch.cat([dP, db_u[:, None]], 1), torch.zeros(8, 4), atol=1e-6)
check("43.6", "no half-step raises J",
      np.diff(long.history).max() <= 1e-12 * long.history[0])

# %% [markdown]
# ## 4. When the matrix is singular
#
# $Q_u^\top Q_u$ is a sum of $n_u$ matrices of rank one, so its rank is at most $n_u$. A user with fewer than $d$ ratings has a **singular** matrix: infinitely many $p_u$ have the same least
# error, and the plain inverse does not exist (with the bias of (43.8) this happens already below $d+1$ ratings). With the singular values $\sigma_1\ge\dots\ge\sigma_d\ge0$ of $Q_u$ the eigenvalues of $A_u$ are $\sigma_k^2+\lambda$, so
#
# $$\operatorname{cond}(A_u)=\frac{\sigma_1^2+\lambda}{\sigma_d^2+\lambda},\qquad \lim_{\lambda\to0}p_u(\lambda)=Q_u^{+}r_u \tag{43.10}$$
#
# Why: with the singular value decomposition $Q_u=\sum_k\sigma_k\,a_kv_k^\top$ the system (43.5) is diagonal in the $v_k$, and $p_u(\lambda)=\sum_k\frac{\sigma_k}{\sigma_k^2+\lambda}(a_k^\top r_u)\,v_k$. A coefficient is the unpenalised one, $\frac1{\sigma_k}$, times
# $\frac{\sigma_k^2}{\sigma_k^2+\lambda}$: directions with little information are shrunk most, those with none ($\sigma_k=0$) get 0. Any $\lambda>0$ makes the solution unique; as $\lambda\to0$ it tends to the one of least norm among those with least error, which is what the pseudo-inverse $Q_u^+$ gives.
# Here are two ratings for three factors.

# %%
Q_2, r_2 = Q_u[:2], r_u[:2]
s = torch.linalg.svdvals(Q_2).tolist() + [0.0]                             # sigma_3 = 0
A_2 = Q_2.mT @ Q_2 + 0.01 * torch.eye(3)

# %%
check("43.10", "the condition number of A from the singular values of Q_u",
      (s[0] ** 2 + 0.01) / (s[2] ** 2 + 0.01), np.linalg.cond(A_2.numpy()), rtol=1e-8)
check("43.10", "as lam -> 0 ridge tends to the pseudo-inverse solution",
      solve_user(Q_2, r_2, 1e-8), np.linalg.pinv(Q_2.numpy()) @ r_2.numpy(), atol=1e-6)
left, kept, right = np.linalg.svd(Q_u.numpy(), full_matrices=False)
check("43.10", "p_u is the sum over singular directions, each shrunk",
      p_u, (kept / (kept**2 + 0.7) * (left.T @ r_u.numpy())) @ right, atol=1e-10)

# %% [markdown]
# Rounding can hide the singularity: the determinant below should be zero but is not, and a solver may hand back nonsense without a word. That is why `solve_user` looks at the rank and does not
# wait for an exception.

# %%
pairs = torch.randn(200, 2, 3, generator=g).float()
hidden = [float(torch.linalg.det(q.mT @ q)) for q in pairs]
check("43.10", "most determinants of singular 3 x 3 matrices come out non-zero in float32",
      np.mean(np.array(hidden) != 0) > 0.5)
refused = []
for Q_bad in (Q_u[:2], Q_u[:4] * torch.tensor([1.0, 1.0, 0.0])):
    try:
        solve_user(Q_bad, r_u[:len(Q_bad)], lam=0)
    except ValueError as error:
        refused.append(str(error))
        print(error)
check("43.10", "singular systems without a penalty are refused", len(refused) == 2)


# %% [markdown]
# ## 5. ALS for all users at once
#
# A Python loop over users wastes the machine. Let $M$ be the 0/1 matrix of observed cells ($n\times m$, sparse) and $C$ the sparse matrix of the centred ratings $r_{ui}-\mu$. Then the left and the right sides of
# (43.8) for *all* users are products of a sparse with a dense matrix,
#
# $$A_u=\sum_i M_{ui}\,z_iz_i^\top+\lambda I,\qquad c_u=\sum_i C_{ui}\,z_i-\sum_i M_{ui}\,b_i\,z_i \tag{43.11}$$
#
# with the $(d+1)^2$ entries of $z_iz_i^\top$ written as one row per item. All systems are then solved as a batch. Nothing here depends on how many ratings each user has. (If somebody rated the same
# item twice, $M_{ui}=2$ counts him twice, as the sum over triples demands.)

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
        raise ValueError("somebody's ratings do not determine his factors (singular): take lam > 0")
    eye = torch.eye(k, dtype=Y.dtype, device=Y.device)
    return torch.linalg.solve(A + (lam + empty.to(Y))[:, None, None] * eye, c)


# %% [markdown]
# The last diagonal entry of $A_u$ without $\lambda I$ is $\sum_i M_{ui}\cdot1\cdot1=n_u$, the number of ratings: that is how the function knows who is empty. With $\lambda=0$ a row with $1\le n_u\le d$ would be singular and is
# refused.

# %%
def as_factors(mu, X, Y, history=()):
    """Factors from X = (P, b_u) (n, d+1) and Y = (Q, b_i) (m, d+1)."""
    return Factors(float(mu), X[:, -1], Y[:, -1], X[:, :-1], Y[:, :-1], list(history))


# %% [markdown]
# The sparse matrices are built once; a sweep is two half-steps.

# %%
def als(ratings, d, lam, n_sweeps, seed=0):
    """Alternating least squares on J (43.1), batched: n_sweeps of (43.8) and (43.9).

    lam >= 0. Returns Factors with 2 n_sweeps values of history, one per half-sweep.
    ValueError: bad ids, NaN, no ratings, or lam = 0 with somebody who has 1 to d ratings.
    """
    user, item, value = validated(ratings, d, lam, n_sweeps)
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
# The fast version against the readable one, from the same start: every parameter and every value of the history. The small problem here has a user and an item without ratings and a cell that was rated twice.

# %%
rows = (small.user != 5) & (small.item != 1)
odd = small[torch.cat([rows.nonzero()[:, 0], rows.nonzero()[:1, 0]])]          # one triple twice
slow, fast = als_loop(odd, 2, 0.3, n_sweeps=3), als(odd, 2, 0.3, n_sweeps=3)

# %%
for name in ("P", "Q", "b_u", "b_i", "history"):
    check("43.11", f"batched ALS equals the loop: {name}",
          getattr(fast, name), getattr(slow, name), atol=1e-9)
check("43.11", "a user without ratings is predicted by mu + b_i",
      fast.predict(5, 3), fast.mu + fast.b_i[3], atol=1e-12)

# %% [markdown]
# With $\lambda=0$ and enough ratings each half-step is plain least squares; nobody is pulled to zero, and an empty user still gets a defined answer.

# %%
k = torch.arange(56)
full_rows = Ratings(k // 8, k % 8, torch.randn(56, generator=g), k, 8, 8).to(device)
plain = als(full_rows, 2, lam=0.0, n_sweeps=60)
dP, dQ, db_u, db_i = gradients(plain, full_rows, 0.0)

# %%
check("43.11", "lam = 0: the item half-step still ends at a stationary point of the items",
      torch.cat([dQ, db_i[:, None]], 1), torch.zeros(8, 3), atol=1e-9)
check("43.11", "lam = 0: an empty user has p_u = 0, b_u = 0",
      torch.cat([plain.P[7], plain.b_u[7:]]), torch.zeros(3))

# %% [markdown]
# And the refusals: each names what to do.

# %%
user, item, value, time = small.user, small.item, small.value, small.time
bad = {"ids too large": (Ratings(user + 3, item, value, time, 8, 6), 3, 1.0),
       "ids too small": (Ratings(user, item - 1, value, time, 8, 6), 3, 1.0),
       "NaN": (Ratings(user, item, value * float("nan"), time, 8, 6), 3, 1.0),
       "no ratings": (small[:0], 3, 1.0), "no factors": (small, 0, 1.0),
       "negative penalty": (small, 3, -1.0), "too few ratings for lam = 0": (small, 3, 0.0)}

# %% [markdown]
# Each message below is an exception that was caught and printed:

# %%
for name, (broken, d, lam) in bad.items():
    try:
        als(broken, d, lam, n_sweeps=2)
    except ValueError as error:
        print(f"{name}: {error}")


# %% [markdown]
# ## 6. What ALS finds
#
# Now the full training set. The measure is the root mean squared error on held-out triples, $\mathrm{RMSE}=\sqrt{\frac1N\sum(r_{ui}-\hat r_{ui})^2}$, with predictions clipped to the rating scale, against the model with biases only (a ridge regression on one-hot users and items).

# %%
def rmse(model, ratings):
    """Root mean squared error in stars; predictions are clipped to the scale of the ratings."""
    error = ratings.value - model.predict(ratings.user, ratings.item).clamp(*scale)
    return float((error**2).mean().sqrt())


# %% [markdown]
# The baseline sees a user and an item as two ones in a long row of zeros.

# %%
def one_hot(ratings):
    """Sparse (N, n + m) indicator matrix of user and item, for scikit-learn."""
    N, columns = len(ratings), torch.cat([ratings.user, ratings.item + ratings.n_users]).cpu()
    return scipy.sparse.csr_matrix((np.ones(2 * N), (np.tile(np.arange(N), 2), columns.numpy())),
                                   shape=(N, ratings.n_users + ratings.n_items))


# %% [markdown]
# ALS on the training triples, and the offsets of the baseline by scikit-learn.

# %%
model = als(train, D, LAM, N_SWEEPS)
ridge = Ridge(alpha=LAM, fit_intercept=False, tol=1e-10)
ridge.fit(one_hot(train), (train.value - model.mu).cpu())
offsets = torch.tensor(ridge.coef_, device=device)
b_u, b_i = offsets.split([train.n_users, train.n_items])
baseline = Factors(model.mu, b_u, b_i, 0 * b_u[:, None], 0 * b_i[:, None])

# %% [markdown]
# Learned scores are printed for you and not compared by the tests; the claim that follows them is.

# %%
scores = {"mean only": float((test.value - train.value.mean()).square().mean().sqrt()),
          "mean + biases": rmse(baseline, test), f"ALS, d = {D}": rmse(model, test)}
if DATA == "bundled":
    truth = data.truth()
    known = Factors(truth.mu, *(w.to(device) for w in (truth.b_u, truth.b_i, truth.P, truth.Q)))
    scores["the true parameters"] = rmse(known, test)

# %% [markdown]
# From "everybody gets the mean" down to the truth:

# %% tags=["nbval-ignore-output"]
pd.Series(scores, name="test RMSE, stars").round(3).to_frame()

# %%
clipped = model.predict(test.user, test.item).clamp(*scale).cpu()
check("43.1", "the RMSE is scikit-learn's, on clipped predictions",
      rmse(model, test), root_mean_squared_error(test.value.cpu(), clipped), rtol=1e-12)
offset_slopes = gradients(baseline, train, LAM)[2:]
check("43.4", "the baseline is the optimum of the biases: their gradients vanish",
      torch.cat(offset_slopes), torch.zeros(train.n_users + train.n_items), atol=1e-3)
check("43.1", "factors beat biases alone on held-out ratings by more than 2 %",
      rmse(model, test) < 0.98 * rmse(baseline, test))

# %% [markdown]
# Nothing was peeked at: no held-out triple is a training triple, and on the bundled data no method beats the truth.

# %%
code = [set((r.user * r.n_items + r.item).tolist()) for r in (train, test)]
check("43.1", "training and test triples are disjoint and complete",
      len(code[0] & code[1]) == 0 and len(code[0] | code[1]) == len(ratings))
check("43.1", "no method beats the truth",
      scores.get("the true parameters", 0.0) < rmse(model, test))

# %% [markdown]
# On the bundled data the last line is the floor: noise plus the rounding to half stars, which no method can predict. ALS ends between the biases and that floor. What is missing is estimation error: the five
# numbers of a user (and of an item) are learned from some two dozen noisy ratings.

# %%
fig, ax = plt.subplots()
half_sweeps = np.arange(1, len(model.history) + 1) / 2
ax.plot(half_sweeps, model.history, marker="o", markersize=3)
ax.set(xlabel="ALS sweeps", ylabel="objective $J$, stars²",
       title="Every half-sweep lowers the objective (43.6)")
plt.show()

# %% [markdown]
# After seven or eight sweeps the curve is flat. It never rises, at any half-step, and that is a theorem, not luck.

# %%
check("43.6", "J never rises in any half-sweep on the training ratings",
      np.diff(model.history).max() <= 1e-12 * model.history[0])

# %% [markdown]
# ### Rotating the factors changes no prediction
#
# For any orthogonal matrix $O$ ($O^\top O=OO^\top=I$)
#
# $$\langle O^\top p_u,O^\top q_i\rangle=p_u^\top OO^\top q_i=\langle p_u,q_i\rangle,\qquad\lVert PO\rVert_F=\lVert P\rVert_F\ \Rightarrow\ J(PO,QO,b)=J(P,Q,b) \tag{43.12}$$
#
# A "genre axis" of one run is a rotated mixture of the axes of another. Interpret predictions and distances, not single coordinates. Without the penalty the freedom is larger still: any invertible $O$ for $P$ with $O^{-\top}$ for
# $Q$.

# %%
O = torch.linalg.qr(torch.randn(D, D, generator=g))[0].to(device)
turned = Factors(model.mu, model.b_u, model.b_i, model.P @ O, model.Q @ O)
stretched = Factors(model.mu, model.b_u, model.b_i, 2 * model.P, model.Q / 2)
pairs = test.user, test.item

# %%
check("43.12", "an orthogonal O changes no prediction",
      turned.predict(*pairs), model.predict(*pairs), atol=1e-10)
check("43.12", "an orthogonal O does not change the objective",
      objective(turned, train, LAM), model.history[-1], rtol=1e-10)
check("43.12", "a stretch changes no prediction either",
      stretched.predict(*pairs), model.predict(*pairs), atol=1e-10)
check("43.12", "but a stretch raises the penalty",
      objective(stretched, train, LAM) > model.history[-1] + 1)


# %% [markdown]
# ## 7. Stochastic gradient descent
#
# SGD (Funk 2006) looks at one rating at a time. To descend on *this* $J$, the penalty has to be shared out: $p_u$ takes part in $n_u$ errors, so each of them carries the share $\frac1{n_u}$ of
# $\lambda\lVert p_u\rVert^2$. Writing $J$ as a sum over ratings,
#
# $$J=\sum_{(u,i)\in R}\Big[e_{ui}^2+\tfrac{\lambda}{n_u}\big(\lVert p_u\rVert^2+b_u^2\big)+\tfrac{\lambda}{m_i}\big(\lVert q_i\rVert^2+b_i^2\big)\Big]$$
#
# (over users and items that have ratings; the others stay at their start), and stepping against half the gradient of one term with step $\eta$ gives
#
# $$p_u\leftarrow p_u+\eta\Big(e_{ui}q_i-\tfrac{\lambda}{n_u}p_u\Big),\qquad b_u\leftarrow b_u+\eta\Big(e_{ui}-\tfrac{\lambda}{n_u}b_u\Big) \tag{43.13}$$
#
# and the same for $q_i$, $b_i$ with $m_i$; all four use the values from before the step. Summed over all ratings at fixed parameters the steps are exactly the downhill gradient:
#
# $$\sum_{i\in I_u}\Big(e_{ui}q_i-\tfrac{\lambda}{n_u}p_u\Big)=-\tfrac12\nabla_{p_u}J \tag{43.14}$$

# %%
def sgd_steps(X, Y, batch, n_u, m_i, mu, lam):
    """Steps (B, d+1) of eq. (43.13), without lr, of X = (P, b_u), Y = (Q, b_i) for B ratings."""
    user, item, value = batch
    x, y = X[user], Y[item]                                                       # (B, d+1)
    e = value - mu - x[:, -1] - y[:, -1] - (x[:, :-1] * y[:, :-1]).sum(1)         # (B,)
    one = torch.ones_like(e)[:, None]
    dx = e[:, None] * torch.cat([y[:, :-1], one], 1) - (lam / n_u[user])[:, None] * x
    dy = e[:, None] * torch.cat([x[:, :-1], one], 1) - (lam / m_i[item])[:, None] * y
    return dx, dy


# %% [markdown]
# Mini-batches add up the steps of 64 ratings taken at the same parameters; that is SGD with a slightly delayed view, and 64 times fewer calls.

# %%
def sgd_mf(ratings, d, lam, lr, n_epochs, seed=0, batch_size=64):
    """SGD on J (43.1) by eq. (43.13); steps of a mini-batch are added up (batch_size=1: pure SGD).

    lr: step > 0. Returns Factors, history per epoch. ValueError: bad input, or it diverges.
    """
    user, item, value = validated(ratings, d, lam, n_epochs)
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


# %% [markdown]
# Checks: the steps of one whole epoch at fixed parameters add up to minus half the gradient, and one epoch with `batch_size=1` is the textbook loop, rating by rating.

# %%
counts = [torch.bincount(k, minlength=n).clamp(min=1) for k, n in
          ((small.user, 8), (small.item, 6))]
X, Y = torch.cat([toy.P, toy.b_u[:, None]], 1), torch.cat([toy.Q, toy.b_i[:, None]], 1)
dx, dy = sgd_steps(X, Y, (small.user, small.item, small.value), *counts, toy.mu, 0.7)
dP, dQ, db_u, db_i = gradients(toy, small, 0.7)
down = [-0.5 * torch.cat([w, b[:, None]], 1) for w, b in ((dP, db_u), (dQ, db_i))]

# %%
has_ratings = torch.bincount(small.user, minlength=8) > 0
check("43.14", "the users' steps of an epoch add up to minus half the gradient",
      torch.zeros_like(X).index_add(0, small.user, dx)[has_ratings], down[0][has_ratings],
      atol=1e-10)
check("43.14", "the items' steps add up to minus half the gradient as well",
      torch.zeros_like(Y).index_add(0, small.item, dy), down[1], atol=1e-10)


# %% [markdown]
# The textbook loop:

# %%
def sgd_loop(ratings, d, lam, lr, seed=0):
    """One epoch of eq. (43.13), rating by rating: the oracle of sgd_mf(batch_size=1)."""
    P, Q = random_start(ratings, d, seed, ratings.value)
    b_u, b_i, mu = P.new_zeros(len(P)), Q.new_zeros(len(Q)), ratings.value.mean()
    for k in torch.randperm(len(ratings), generator=torch.Generator().manual_seed(seed)):
        u, i = ratings.user[k], ratings.item[k]
        reg_u, reg_i = lam / (ratings.user == u).sum(), lam / (ratings.item == i).sum()
        e = ratings.value[k] - mu - b_u[u] - b_i[i] - P[u] @ Q[i]
        P[u], Q[i] = P[u] + lr * (e * Q[i] - reg_u * P[u]), Q[i] + lr * (e * P[u] - reg_i * Q[i])
        b_u[u], b_i[i] = b_u[u] + lr * (e - reg_u * b_u[u]), b_i[i] + lr * (e - reg_i * b_i[i])
    return Factors(float(mu), b_u, b_i, P, Q)


# %%
slow = sgd_loop(small, 3, 0.7, lr=0.05)
fast = sgd_mf(small, 3, 0.7, 0.05, n_epochs=1, batch_size=1)
for name in ("P", "Q", "b_u", "b_i"):
    check("43.13", f"sgd_mf with batches of one equals the loop: {name}",
          getattr(fast, name), getattr(slow, name), atol=1e-12)

# %% [markdown]
# **A trap.** Most libraries subtract $\lambda p_u$, not $\frac\lambda{n_u}p_u$, at every rating. Summed over an epoch that is minus half the gradient of $\sum e^2+\lambda\big(\sum_un_u\lVert p_u\rVert^2+\sum_im_i\lVert q_i\rVert^2\big)$: another
# functional, which weights the penalty by counts (Zhou et al. 2008 call its ALS version ALS-WR). It works well too, but a $\lambda$ cannot be carried from one to the other.

# %%
P = toy.P.clone().requires_grad_()
e = small.value - Factors(2.9, toy.b_u, toy.b_i, P, toy.Q).predict(small.user, small.item)
weighted = (P[small.user] ** 2).sum()                                         # p_u counts n_u times
slope, = torch.autograd.grad((e**2).sum() + 0.7 * weighted, P)
common = e.detach()[:, None] * toy.Q[small.item] - 0.7 * toy.P[small.user]
check("43.14", "with lam instead of lam / n_u the steps descend on the count-weighted penalty",
      torch.zeros_like(toy.P).index_add(0, small.user, common), -0.5 * slope, atol=1e-10)

# %% [markdown]
# Now the training ratings.

# %%
by_sgd = sgd_mf(train, D, LAM, lr=0.02, n_epochs=N_EPOCHS)
check("43.13", "the last value of the history is J of the model that is returned",
      by_sgd.history[-1], objective(by_sgd, train, LAM), rtol=1e-12)
check("43.13", "SGD reaches the objective of ALS to within 5 %",
      by_sgd.history[-1] < 1.05 * model.history[-1])
check("43.13", "SGD predicts held-out ratings as well as ALS, to within 2 %",
      rmse(by_sgd, test) < 1.02 * rmse(model, test))

# %% [markdown]
# A step that is too large is noticed and named:

# %%
try:
    sgd_mf(train, D, LAM, lr=5.0, n_epochs=3)
except ValueError as error:
    print(error)

# %% [markdown]
# SGD is not a poor method: it ends at practically the same objective and the same test error. It needs a step size and more passes; in exchange a pass costs $O(Nd)$ and works for any differentiable loss.

# %%
fig, ax = plt.subplots()
ax.plot(half_sweeps, model.history, marker="o", markersize=3, label="ALS, per half-sweep")
ax.plot(range(1, N_EPOCHS + 1), by_sgd.history, label="SGD, per epoch")
ax.set(xlabel="ALS sweeps, SGD epochs", ylabel="objective $J$, stars²",
       title="Same functional, same level")
ax.legend()
plt.show()


# %% [markdown]
# ALS needs far fewer sweeps than SGD epochs; an epoch is cheaper for large $d$.
#
# ## 8. HALS: one coordinate at a time
#
# ALS solves a $d\times d$ system per user. **Hierarchical ALS** solves for one coordinate: row $k$ of $P^\top$, i.e. $P_{uk}$ for all users, with everything else fixed. In $P_{uk}$ the functional is a parabola. Let
# $e^{(k)}_{ui}=e_{ui}+P_{uk}Q_{ik}$ be the error without factor $k$; then
#
# $$\frac{\partial J}{\partial P_{uk}}=-2\sum_{i\in I_u}\big(e^{(k)}_{ui}-P_{uk}Q_{ik}\big)Q_{ik}+2\lambda P_{uk}=0\ \Rightarrow\ P_{uk}=\frac{\sum_{i\in I_u}\big(e_{ui}+P_{uk}Q_{ik}\big)Q_{ik}}{\sum_{i\in I_u}Q_{ik}^2+\lambda} \tag{43.15}$$
#
# Two users never meet in one term, so the whole row is updated at once, exactly. If $\lambda=0$ and $Q_{ik}=0$ for all items of $u$, numerator and denominator are zero: $J$ does not depend on $P_{uk}$, and it stays as it is.
# A bias is the same formula with $Q_{ik}=1$. The errors are kept up to date, $e\leftarrow e-(P^{new}_{uk}-P_{uk})Q_{ik}$, so a row costs $O(N)$ and a sweep $O(Nd)$: no system to solve, no factor $d^2$.
#
# **Non-negative.** The parabola opens upwards, so its minimum over $[0,\infty)$ is the vertex if that is positive, and 0 otherwise:
#
# $$P_{uk}=\max\Bigg(0,\ \frac{\sum_{i\in I_u}(e_{ui}+P_{uk}Q_{ik})Q_{ik}}{\sum_{i\in I_u}Q_{ik}^2+\lambda}\Bigg) \tag{43.16}$$
#
# This projection is exact for *one* coordinate (for a whole vector $p_u$, clipping the ridge solution would be wrong); it is where HALS comes from: non-negative matrix factorisation (Cichocki et al. 2007).

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


# %% [markdown]
# A sweep goes through the $d$ factors of the users and their bias, then through those of the items. The non-negative model has no $\mu$ and no biases: it explains the ratings themselves as sums of parts.

# %%
def hals_sweep(X, Y, ratings, mu, lam, nonnegative):
    """One HALS sweep over X = (P, b_u), Y = (Q, b_i), in place: (43.15), or (43.16), no biases."""
    d, user, item = X.shape[1] - 1, ratings.user, ratings.item
    for own, other, mine, theirs in ((X, Y, user, item), (Y, X, item, user)):
        e = ratings.value - as_factors(mu, X, Y).predict(user, item)
        for k in range(d):
            own[:, k], e = hals_row(e, mine, own[:, k], other[theirs, k], lam,
                                    nonnegative)
        if not nonnegative:
            own[:, d], e = hals_row(e, mine, own[:, d], torch.ones_like(e), lam)


# %% [markdown]
# The model itself only starts and repeats sweeps:

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
# One row against a one-dimensional numerical minimiser that sees only $J$, without and with the constraint:

# %%
def J_along(x, u, k=1):
    """J of the toy model with P[u, k] replaced by x."""
    P = toy.P.clone()
    P[u, k] = x
    return objective(Factors(toy.mu, toy.b_u, toy.b_i, P, toy.Q), small, 0.7)


def minimum_along(u, low):
    """The x in [low, 50] with the smallest J, by bounded search."""
    return scipy.optimize.minimize_scalar(J_along, args=(u,), bounds=(low, 50), method="bounded",
                                          options={"xatol": 1e-10}).x


# %% [markdown]
# The row update for factor $k=1$ (the second), both ways:

# %%
e = small.value - toy.predict(small.user, small.item)
row, _ = hals_row(e, small.user, toy.P[:, 1], toy.Q[small.item, 1], 0.7)
row_nn, e_new = hals_row(e, small.user, toy.P[:, 1], toy.Q[small.item, 1], 0.7, nonnegative=True)

# %%
check("43.15", "each new P_uk is the minimiser of J along its axis",
      row, [minimum_along(u, -50) for u in range(8)], atol=1e-5)
check("43.16", "with P >= 0 it is the minimiser on the half-line",
      row_nn, [minimum_along(u, 0) for u in range(8)], atol=1e-5)
check("43.16", "the constraint was active for some users, not for all", 0 < (row_nn == 0).sum() < 8)

# %% [markdown]
# The errors that the function hands on must be the errors of the new model, or the next row would start from a lie:

# %%
P_new = toy.P.clone()
P_new[:, 1] = row_nn
after = Factors(toy.mu, toy.b_u, toy.b_i, P_new, toy.Q)
check("43.15", "the updated errors are the errors of the new model",
      e_new, small.value - after.predict(small.user, small.item), atol=1e-10)

# %% [markdown]
# The whole algorithm against scikit-learn's NMF with coordinate descent: on a *fully observed* non-negative table and from the same start, its iteration and ours must agree number by number (its penalties
# `alpha_W`, `alpha_H` are multiplied by the table's sides, hence the division).

# %%
dense = torch.rand(9, 7, generator=g) * 4
grid = torch.cartesian_prod(torch.arange(9), torch.arange(7))
everything = Ratings(grid[:, 0], grid[:, 1], dense.flatten(), grid[:, 0], 9, 7).to(device)
ours = hals(everything, 3, lam=0.35, n_sweeps=5, nonnegative=True)
W0, H0 = (w.abs().cpu().numpy() for w in random_start(everything, 3, 0, dense))

# %% [markdown]
# scikit-learn warns that five iterations do not converge; that is the point, so the warning is silenced.

# %%
nmf = NMF(3, init="custom", solver="cd", max_iter=5, tol=0, alpha_W=0.35 / 7, alpha_H=0.35 / 9)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    W = nmf.fit_transform(dense.numpy(), W=W0.copy(), H=H0.T.copy())

# %%
check("43.16", "five sweeps of non-negative HALS are five iterations of scikit-learn's NMF: P",
      ours.P, W, atol=1e-9)
check("43.16", "and they give the same Q", ours.Q, nmf.components_.T, atol=1e-9)

# %% [markdown]
# The general form (with biases) must end at a stationary point of $J$ and never climb on the way:

# %%
general = hals(small, 3, 0.7, n_sweeps=600)
check("43.15", "HALS ends where all gradients of J vanish",
      torch.cat([w.flatten() for w in gradients(general, small, 0.7)]), torch.zeros(56),
      atol=1e-5)
check("43.15", "no sweep raises J", np.diff(general.history).max() <= 1e-12 * general.history[0])

# %% [markdown]
# On the training ratings:

# %%
by_hals = hals(train, D, LAM, n_sweeps=2 * N_SWEEPS)
check("43.15", "the last value of the history is J of the model that is returned",
      by_hals.history[-1], objective(by_hals, train, LAM), rtol=1e-12)
check("43.15", "HALS reaches the objective of ALS to within 2 %",
      by_hals.history[-1] < 1.02 * model.history[-1])

# %% [markdown]
# Without signs, without $\mu$ and biases, and in the degenerate case $0/0$:

# %%
parts = hals(train, D, LAM, n_sweeps=N_SWEEPS, nonnegative=True)
check("43.16", "the non-negative model has no negative factor, no mean and no bias",
      min(parts.P.min(), parts.Q.min()) >= 0
      and not any((parts.mu, parts.b_u.any(), parts.b_i.any())))
kept, _ = hals_row(small.value, small.user, toy.P[:, 0], torch.zeros_like(small.value), lam=0.0)
check("43.15", "0/0: where Q vanishes and lam = 0 the coordinate stays", kept, toy.P[:, 0])


# %% [markdown]
# ## 9. One family: how much does a missing cell weigh?
#
# Three formulas on a slide of the course look like three methods. They are one, with one number. Let $A=(a_{ui})$ be the table with the rating (centred, if one likes) where it is observed and 0 where it is not, $a_u$ its row, and
#
# $$J_{w_0}=\sum_{(u,i)\in R}(a_{ui}-\langle p_u,q_i\rangle)^2+w_0\sum_{(u,i)\notin R}(0-\langle p_u,q_i\rangle)^2+\lambda(\lVert P\rVert_F^2+\lVert Q\rVert_F^2) \tag{43.17}$$
#
# | $w_0$ | name | a missing cell says |
# |---|---|---|
# | 0 | observed-only factorisation | nothing |
# | between | weighted factorisation | weakly "0" |
# | 1 (and $\lambda=0$) | truncated SVD of the filled table | as loudly "0" as a rating |
#
# With $w_{ui}=1$ on observed cells and $w_0$ elsewhere, the derivation of (43.5) goes through with a weight in front of every term, and the half-step is *weighted* ridge regression:
#
# $$p_u=\big(Q^\top W_uQ+\lambda I\big)^{-1}Q^\top W_ua_u,\qquad W_u=\operatorname{diag}(w_{u1},\dots,w_{um}) \tag{43.18}$$

# %%
def weighted_half_step(A, W, Q, lam):
    """P (…, n, d) of eq. (43.18) for a dense table A and weights W (n, m), and Q (…, m, d)."""
    left = torch.einsum("ui,...id,...ie->...ude", W, Q, Q)                        # (…, n, d, d)
    left = left + lam * torch.eye(Q.shape[-1]).to(Q)
    return torch.linalg.solve(left, (W * A) @ Q)                                  # (…, n, d)


# %% [markdown]
# Leading dimensions (`…`) let many random starts run at once.

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
# One user's row, with arbitrary weights, against scikit-learn; and the case $w_0=0$ against section 3.

# %%
A = torch.where(seen, table, 0.0)
W = torch.where(seen, 1.0, 0.3).double()
Q = torch.randn(6, 2, generator=g)
some = torch.rand(8, 6, generator=g)                                          # any weights
weighted = Ridge(alpha=0.7, fit_intercept=False).fit(Q, table[4], sample_weight=some[4]).coef_

# %%
check("43.18", "the half-step is scikit-learn's ridge with sample weights",
      weighted_half_step(table, some, Q, 0.7)[4], weighted, atol=1e-10)
only = seen[4]

# %%
check("43.18", "w0 = 0 is eq. (43.5) on the observed cells",
      weighted_half_step(A, seen.double(), Q, 0.7)[4], solve_user(Q[only], A[4][only], 0.7),
      atol=1e-10)


# %% [markdown]
# The whole family against autograd: at the end of weighted ALS the gradient of (43.17) must vanish.

# %%
def J_w0(P, Q, lam=0.7, w0=0.3):
    E = A - P @ Q.mT
    return (E[seen] ** 2).sum() + w0 * (E[~seen] ** 2).sum() + lam * ((P**2).sum() + (Q**2).sum())

P, Q = (w[0].requires_grad_() for w in weighted_als(A, W, 2, 0.7, n_sweeps=500))
grad = torch.autograd.grad(J_w0(P, Q), (P, Q))

# %%
check("43.17", "weighted ALS ends at a stationary point of J_w0",
      torch.cat(grad), torch.zeros(14, 2), atol=1e-6)

# %% [markdown]
# The functional is not convex: for one user, one item and one factor, $(1-pq)^2$ is 0 at $(1,1)$ and at $(-1,-1)$ and 1 halfway between. Yet one member of the family has no bad minima.
#
# ### All cells observed: the singular value decomposition
#
# With $w_0=1$ and $\lambda=0$ every cell counts alike and $J_1=\lVert A-PQ^\top\rVert_F^2$. The theorem of Eckart and Young says what the best product of rank $d$ is: keep the $d$ largest singular values of $A$. What is lost is the tail,
#
# $$\min_{P,Q}\lVert A-PQ^\top\rVert_F^2=\sum_{k>d}\sigma_k^2(A) \tag{43.19}$$
#
# *Why.* For any $B$ of rank at most $d$, Weyl's inequality $\sigma_{j+d}(A)\le\sigma_j(A-B)+\sigma_{d+1}(B)=\sigma_j(A-B)$ gives $\lVert A-B\rVert_F^2=\sum_j\sigma_j^2(A-B)\ge\sum_j\sigma_{j+d}^2(A)$, and the truncated SVD $P=U_d\Sigma_d$, $Q=V_d$ attains it. Moreover, in this fully observed case
# every local minimum is global (Baldi and Hornik 1989): ALS finds the SVD from almost any start, although $J$ is not convex. With a penalty the answer stays explicit: the kept singular values shrink by $\lambda$, $\sigma_k\to\max(0,\sigma_k-\lambda)$.

# %%
full = torch.randn(12, 9, generator=g)
sigma = np.linalg.svd(full.numpy(), compute_uv=False)
P, Q = weighted_als(full, torch.ones_like(full), 2, 0.0, 500, n_starts=30)
losses = ((full - P @ Q.mT) ** 2).sum((1, 2))
check("43.19", "30 random starts of ALS all end at the tail of the singular values",
      losses, [(sigma[2:] ** 2).sum()] * 30, rtol=1e-6)
P, Q = (w[0] for w in weighted_als(full, torch.ones_like(full), 2, 0.5, 500))
left, kept, right = np.linalg.svd(full.numpy())
check("43.17", "w0 = 1 with a penalty: the truncated SVD with singular values shrunk by lam",
      P @ Q.mT, left[:, :2] * (kept[:2] - 0.5) @ right[:2], atol=1e-6)

# %% [markdown]
# Where cells are missing this guarantee is gone. The same table, half of it hidden, a small penalty, 30 starts:

# %% tags=["nbval-ignore-output"]
hidden = torch.rand(12, 9, generator=g) < 0.5
A_obs, W_obs, lam = torch.where(hidden, 0.0, full), (~hidden).double(), 0.1
P, Q = weighted_als(A_obs, W_obs, 2, lam, n_sweeps=1500, n_starts=30)
minima = (W_obs * (A_obs - P @ Q.mT) ** 2).sum((1, 2))
minima = minima + lam * ((P**2).sum((1, 2)) + (Q**2).sum((1, 2)))                 # (30,)
print("distinct end values of J:", np.unique(minima.numpy().round(2)))

# %%
check("43.17", "with missing cells different starts end in different local minima",
      minima.max() > 1.05 * minima.min())

# %% [markdown]
# Are these true minima, or did ALS just stop? At the worst end point the gradient must vanish and no direction may lead down (the zero eigenvalue of the Hessian is the rotation (43.12)).

# %%
worst = int(minima.argmax())
ends = torch.cat([P[worst], Q[worst]])                                            # (21, 2)

def J_obs(W):
    P, Q = W.split([12, 9])
    return (W_obs * (A_obs - P @ Q.mT) ** 2).sum() + 0.1 * (W**2).sum()

slope = torch.func.grad(J_obs)(ends)
hessian = torch.func.hessian(J_obs)(ends).reshape(42, 42)

# %%
check("43.17", "the worst end point is stationary", slope, torch.zeros(21, 2), atol=1e-6)
check("43.17", "and a minimum: no eigenvalue of the Hessian is negative",
      torch.linalg.eigvalsh(hessian).min() > -1e-6)

# %% [markdown]
# So "the product of parameters creates local minima" can be true of observed-only factorisation and is false of the SVD (Baldi and Hornik 1989). With enough randomly observed cells the spurious minima vanish again (Ge, Lee and Ma 2016); in practice several starts cost little.
#
# ### Which $w_0$ for ratings?
#
# A missing *rating* is mostly a film not seen. Calling it "0 = average" drags all predictions to the mean:

# %%
dense_mask = torch.zeros(train.n_users, train.n_items, device=device)
dense_mask[train.user, train.item] = 1.0
residual = torch.zeros_like(dense_mask)
residual[train.user, train.item] = train.value - baseline.predict(train.user, train.item)

# %% [markdown]
# Factors on top of the biases, for seven values of $w_0$:

# %%
weights, curve = [0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0], []
for w0 in weights:
    W = dense_mask + w0 * (1 - dense_mask)
    P, Q = (w[0] for w in weighted_als(residual, W, D, LAM, n_sweeps=8))
    curve.append(rmse(Factors(baseline.mu, baseline.b_u, baseline.b_i, P, Q), test))

# %% [markdown]
# The test error over $w_0$, on a logarithmic axis:

# %%
fig, ax = plt.subplots()
ax.plot([0.001, *weights[1:]], curve, marker="o", label="factors on top of the biases")
ax.axhline(rmse(baseline, test), color="gray", linestyle=":", label="biases only")
ax.set(xscale="log", xlabel="weight $w_0$ of a missing cell (leftmost point: 0)",
       ylabel="test RMSE, stars", title="For explicit ratings, silence is not a zero")
ax.legend()
plt.show()

# %% [markdown]
# The error grows with $w_0$; at $w_0=1$, the zero-filled table, most of what the factors had gained over the biases is lost. For *clicks* it is the other way round: there a missing cell does carry information, and a small $w_0$ is the heart of implicit ALS.

# %%
check("43.17", "observed-only (w0 = 0) beats the zero-filled table (w0 = 1) on held-out ratings",
      curve[0] < 0.99 * curve[-1])


# %% [markdown]
# ## 10. Fold-in: a new user without refitting
#
# A new user rates five films. Nobody refits the model: $Q$ and $b_i$ were learned from thousands of ratings, five more hardly move them. One user half-step (43.8) with everything else frozen is all:
#
# $$\binom{p_*}{b_*}=\Big(\sum_{i\in I_*}z_iz_i^\top+\lambda I\Big)^{-1}\sum_{i\in I_*}(r_{*i}-\mu-b_i)\,z_i \tag{43.20}$$
#
# It costs $O(n_*d^2+d^3)$, independent of the number of users; a service needs to keep only $\mu$, $b_i$ and $Q$, and refits $Q$ every night.

# %%
def fold_in(model, items, values, lam):
    """(p_u (d,), b_u ()) of a new user by eq. (43.20), from ids and ratings of the items he rated.

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
        rows = torch.cat([Z, lam**0.5 * torch.eye(Z.shape[1]).to(Z)])
        p = scipy.optimize.nnls(rows.cpu().numpy(), torch.cat([target, 0 * Z[0]]).cpu().numpy())[0]
        return torch.as_tensor(p).to(Q), Q.new_zeros(())
    x = solve_user(torch.cat([Z, torch.ones_like(target)[:, None]], 1), target, lam)
    return x[:-1], x[-1]


# %% [markdown]
# Two checks: against a numerical minimiser of the squared errors of the new user, and against the past. If we fold in somebody who *was* in the training set, with exactly his ratings, we must get his trained vector back (ALS has converged on the small problem).

# %%
mine = small.user == 3
p_new, b_new = fold_in(long, small.item[mine], small.value[mine], 0.7)
check("43.20", "folding in a known user returns his trained factors", p_new, long.P[3], atol=1e-6)
check("43.20", "folding in a known user returns his trained bias", b_new, long.b_u[3], atol=1e-6)

# %% [markdown]
# The numerical minimiser sees only the new user's errors:

# %%
Q_3, b_3, r_3 = (x.cpu().numpy() for x in
                 (long.Q[small.item[mine]], long.b_i[small.item[mine]], small.value[mine]))

def J_new(x):
    return ((r_3 - long.mu - b_3 - Q_3 @ x[:3] - x[3]) ** 2).sum() + 0.7 * (x**2).sum()


# %%
check("43.20", "fold-in is what a numerical minimiser finds", torch.cat([p_new, b_new[None]]),
      scipy.optimize.minimize(J_new, np.zeros(4), tol=1e-12).x, atol=1e-5)

# %% [markdown]
# The non-negative case has no closed form; its solution is recognised by the Karush–Kuhn–Tucker conditions: where $p_k>0$ the slope of the new user's functional is zero, where $p_k=0$ it is not negative.

# %%
liked, stars = [3, 7, 11, 20], torch.tensor([5.0, 1.0, 4.0, 2.0]).to(device)
p_part, b_part = fold_in(parts, liked, stars, lam=0.4)
slope = 2 * (parts.Q[liked] @ p_part - stars) @ parts.Q[liked] + 2 * 0.4 * p_part

# %%
check("43.20", "non-negative fold-in satisfies the Karush-Kuhn-Tucker conditions",
      (p_part >= 0).all() and (slope * p_part).abs().max() < 1e-8 and slope.min() > -1e-8)
check("43.20", "a non-negative fold-in has no bias", float(b_part), 0.0)
check("43.20", "fold-in without ratings gives zeros",
      torch.hstack(fold_in(long, [], [], 0.7)), torch.zeros(4))


# %% [markdown]
# ## 11. Real ratings: five-fold cross-validation
#
# Every triple is predicted once, by a model that has not seen it. With `make full NB=43` the data are the 100,000 ratings of MovieLens.

# %%
def cross_validate(ratings, d, lam, n_sweeps, n_folds, seed=0):
    """Test RMSE of ALS in every fold: array (n_folds,)."""
    fold = torch.randperm(len(ratings), generator=torch.Generator().manual_seed(seed)) % n_folds
    fits = ((ratings[fold != k].to(device), ratings[fold == k].to(device)) for k in range(n_folds))
    return np.array([rmse(als(known, d, lam, n_sweeps), unseen)
                     for known, unseen in progress(fits, desc="folds", total=n_folds)])


# %% [markdown]
# The folds of this run. The line begins with `full run:` because `make full` shows such lines; here it reports the small run, unless `DATA` says otherwise.

# %% tags=["nbval-ignore-output"]
folds = cross_validate(ratings, D, LAM, N_SWEEPS, N_FOLDS)
print(f"full run: {DATA}, ALS, d = {D}, lam = {LAM:g}: {N_FOLDS}-fold test RMSE {folds.mean():.4f} "
      f"± {folds.std(ddof=1):.4f} (mean ± standard deviation over folds)")

# %% [markdown]
# For comparison, five-fold RMSE on MovieLens 100K as published in the documentation of the library [Surprise](https://surpriselib.com): SVD 0.934, SVD++ 0.92, NMF 0.963, bias baseline 0.944. Our model is their "SVD" (the name is
# a habit of the field; no singular value is computed), with two differences: theirs is trained by SGD with the count-weighted penalty (the trap of section 7) at default settings, ours by ALS on (43.1) with $d=16$, $\lambda=13$, values chosen on one split of the same data.

# %%
floor, target = (0.85, 0.92) if DATA == "ml-100k" else (scores["the true parameters"], 0.62)
check("43.1", "five-fold test RMSE at or under the target, and not too good to be true",
      floor < folds.mean() <= target)

# %% [markdown]
# ## Try it
#
# **1. Penalty and number of factors.** All combinations are fitted beforehand. Watch the two errors part when $d$ is large and $\lambda$ small.

# %%
errors, ds, lams = {}, sorted({*GRID_D, D}), sorted({*GRID_LAM, LAM})
for d in progress(ds, desc="d"):
    for lam in lams:
        fit = als(train, d, lam, N_SWEEPS)
        errors[d, lam] = rmse(fit, train), rmse(fit, test)


# %% [markdown]
# One figure per position of the sliders:

# %%
def draw(d=D, lam=LAM):
    """Train and test RMSE over lam for d factors, with the values at lam marked."""
    fig, ax = plt.subplots()
    for k, (name, marker) in enumerate((("training", "s"), ("test", "o"))):
        ax.plot(lams, [errors[d, x][k] for x in lams], label=f"{name}, d = {d}")
        ax.plot(lam, errors[d, lam][k], marker=marker, color="black", linestyle="none")
    ax.axhline(rmse(baseline, test), color="gray", linestyle=":", label="test, biases only")
    ax.set(xscale="log", xlabel=r"penalty $\lambda$", ylabel="RMSE, stars",
           title=f"d = {d}, λ = {lam:g}: test RMSE {errors[d, lam][1]:.3f}")
    ax.legend()
    plt.show()


# %% [markdown]
# The picture for the parameters of this run:

# %%
draw()

# %% [markdown]
# Both lines rise to the right (too much pull to zero); to the left the training error keeps falling while the test error turns up: over-fitting. Where should the valley be? By (43.2) at $\lambda=\sigma^2/\tau^2$. For the bundled data both are known;
# $P$ and $Q$ can trade scale, so their prior variance is the geometric mean of the two.

# %%
if DATA == "bundled":
    noise = truth.noise_sd**2 + 0.5**2 / 12                        # plus rounding to half stars
    factors = (truth.P.square().mean() * truth.Q.square().mean()).sqrt()
    offsets = torch.cat([truth.b_u, truth.b_i]).square().mean()
    print(f"lambda by (43.2): factors {noise / factors:.1f}, biases {noise / offsets:.1f}")

# %% [markdown]
# One $\lambda$ for both has to lie between, and that is where the valley is.

# %% tags=["nbval-ignore-output"]
interact(draw, d=SelectionSlider(options=ds, value=D, description="factors d"),
         lam=SelectionSlider(options=lams, value=LAM, description="penalty λ"));

# %% [markdown]
# **2. A new user.** Rate a few of the most watched films and see the fold-in answer at once: dots are your predicted ratings, the short lines mark what everybody would be told ($\mu+b_i$), the long one is the end of the scale.

# %%
watched = torch.bincount(train.item.cpu(), minlength=train.n_items)
shown = {titles[i]: i for i in watched.argsort(descending=True, stable=True)[:6].tolist()}


# %% [markdown]
# The page needs no server: fold-in is one small solve.

# %%
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
           title=f"after {len(rated)} ratings, your bias is {b:+.2f}")
    fig.legend(loc="outside lower center", ncols=2)
    plt.show()


# %% [markdown]
# For somebody who has rated four of them:

# %%
draw_recommendations(**dict(zip(shown, (4.5, 2.0, 4.0, 0, 0, 2.5))))

# %% [markdown]
# Four ratings already reorder the list: dots and short lines differ by what your factors and your bias say. With no rating at all every dot sits on its line.

# %% tags=["nbval-ignore-output"]
stars = [("not seen", 0), *((str(s), s) for s in (1, 2, 3, 4, 5))]
interact(draw_recommendations, **{title: SelectionSlider(
    options=stars, description=title, style={"description_width": "16em"}) for title in shown});

# %% [markdown]
# ## Where the notes slip
#
# ### E28 · What $R$ is
#
# The notes call $R$ "the set of features of known pairs" and sum over $(u,i,r_{ui})\in\mathbb R$. $\mathbb R$ is the real line; the sum runs over the **set of triples** $R=\{(u,i,r_{ui})\}$, and the target $r_{ui}$ is part of each element. As for any set, order is meaningless, and
# a pair that is not in $R$ adds nothing, whatever stands in that cell.

# %%
shuffled = small[torch.randperm(len(small), generator=g)]
check("43.1", "E28: J does not depend on the order of the triples",
      objective(toy, shuffled, 0.7), objective(toy, small, 0.7), rtol=1e-12)
grid = torch.cartesian_prod(torch.arange(8), torch.arange(6))
filled = Ratings(*grid.T, torch.where(seen, table, 0).flatten(), grid[:, 0], 8, 6).to(device)

# %%
check("43.1", "E28: J does not depend on the order of the triples",
      objective(toy, shuffled, 0.7), objective(toy, small, 0.7), rtol=1e-12)
check("43.1", "E28: zeros for unknown ratings make another problem: even the mean differs",
      als(filled, 2, 0.7, 1).mu < 0.9 * als(small, 2, 0.7, 1).mu)

# %% [markdown]
# ### E35 · Biases are not averages
#
# "$b_u$ is the average rating of the user, $b_i$ the average of the item", both subtracted: then the global mean is subtracted twice. If everybody gives 4 stars to everything, the "error" of the notes is $4-4-4=-4$. Right: $\mu+b_u+b_i$ with *trained* offsets, which are zero here. (The notes' functional does minimise over $b_u,b_i$; the sentence below it is wrong, and $\mu$ is missing: without it a penalised offset has to carry the whole mean and is pulled towards 0 stars.)

# %%
fours = Ratings(small.user, small.item, torch.full_like(small.value, 4.0), small.time, 8, 6)
fitted = als(fours, 2, 0.5, n_sweeps=5)
user_mean = torch.zeros(8).to(device).index_add(0, fours.user, fours.value) / counts[0]
item_mean = torch.zeros(6).to(device).index_add(0, fours.item, fours.value) / counts[1]
residual = fours.value - user_mean[fours.user] - item_mean[fours.item]

# %%
check("43.1", "E35: two means leave an error of -4 on constant ratings",
      residual, torch.full_like(residual, -4.0))
check("43.8", "E35: trained offsets are zero there",
      torch.cat([fitted.b_u, fitted.b_i]), torch.zeros(14), atol=1e-12)
check("43.8", "E35: and the prediction is 4",
      fitted.predict(small.user, small.item), fours.value, atol=1e-12)

# %% [markdown]
# ### E36 · "A linear convex function"
#
# With $Q$ fixed the functional is said to be linear in $p_u$. It is a convex **quadratic**: for a linear function second differences vanish; here they are the constant $2v^\top A_uv>0$ in every direction $v$, wherever one stands.

# %%
v, lines = torch.randn(3, generator=g), torch.randn(20, 3, generator=g)
second = [J_u((p + v).numpy()) - 2 * J_u(p.numpy()) + J_u((p - v).numpy()) for p in lines]
A_u = Q_u.mT @ Q_u + 0.7 * torch.eye(3)
check("43.6", "E36: the second difference is 2 v'Av everywhere: quadratic, not linear",
      second, [2 * v @ A_u @ v] * 20, rtol=1e-9)

# %% [markdown]
# ### E37 · "We multiply parameters, so there are local minima; SGD works rather badly"
#
# Half true. Non-convex, yes; but for a *fully observed* table every local minimum is global (30 starts, one loss: section 9). Spurious minima come with missing cells. And SGD is a standard, competitive trainer: section 7 measured it.

# %%
check("43.19", "E37: fully observed: the best and the worst of 30 starts agree",
      losses.max(), losses.min(), rtol=1e-6)
check("43.17", "E37: half observed: they do not", minima.max() > 1.05 * minima.min())
check("43.13", "E37: SGD is within 2 % of ALS on held-out ratings",
      rmse(by_sgd, test) < 1.02 * rmse(model, test))

# %% [markdown]
# ### E67 · "One may add a recommendation"
#
# A misprint for **regularisation** ("рекомендацию" for "регуляризацию"). It is not optional decoration: without it the same model memorises.

# %%
free = als(train, 8, 1e-3, N_SWEEPS)
tamed = als(train, 8, LAM, N_SWEEPS)
check("43.1", "E67: almost no penalty: smaller training error",
      rmse(free, train) < rmse(tamed, train))
check("43.1", "E67: but a far larger test error", rmse(free, test) > 1.1 * rmse(tamed, test))

# %% [markdown]
# ### E68 · What is minimised in a half-step
#
# After "fix $Q$" the notes still write $\min_{b_u,b_i,p_u,q_i}$. In that half-step the only variables are $p_u$ and $b_u$. If all four were minimised there would be nothing to alternate.

# %%
first, last = long.history[0], long.history[-1]
check("43.8", "E68: the minimum over the users' variables alone lies above the one over all",
      first > 1.05 * last)
check("43.9", "E68: the item half-step that follows still lowers J",
      long.history[1] < 0.999 * first)

# %% [markdown]
# ### E122 · A sum too many in front of the Frobenius norm
#
# The SVD slide prints $\sum_{(i,j)}\lvert A-UV^\top\rvert_F^2$. The squared Frobenius norm *is* the sum over all cells; another sum multiplies it by the number of cells. (The minimiser is the same, the value is not. In our copy of the slide the first rows of the "observed-only" and the "weighted" table also disagree on
# which cells are observed.)

# %%
U, V = torch.randn(4, 2, generator=g), torch.randn(5, 2, generator=g)
B = torch.randn(4, 5, generator=g)
printed = sum(np.linalg.norm(B - U @ V.mT, "fro") ** 2 for i in range(4) for j in range(5))
check("43.17", "E122: the printed double sum is 20 times the squared norm of a 4 x 5 table",
      printed, 20 * ((B - U @ V.mT) ** 2).sum(), rtol=1e-12)


# %% [markdown]
# ### E128 · The lost minus
#
# The seminar prints $\nabla_{p_u}=\sum2(r_{ui}-\langle p_u,q_i\rangle)q_i$ without the minus. The same minus is missing in its $\partial/\partial P_{ku}$. Setting the gradient to zero hides the slip; a gradient step would climb. Central differences decide.

# %%
def J_free(p_0):
    """J without penalty as a function of the first user's vector."""
    P = torch.cat([p_0[None], toy.P[1:]])
    return objective(Factors(toy.mu, toy.b_u, toy.b_i, P, toy.Q), small, lam=0.0)

h, axes = 1e-5, torch.eye(3).to(device)
numeric = [(J_free(toy.P[0] + h * a) - J_free(toy.P[0] - h * a)) / (2 * h) for a in axes]

# %% [markdown]
# The printed gradient, and ours:

# %%
at_0 = small.user == 0
e = (small.value - toy.predict(small.user, small.item))[at_0]
printed = 2 * (e[:, None] * toy.Q[small.item[at_0]]).sum(0)

# %%
check("43.3", "E128: the printed gradient is the negative of the slope of J",
      -printed, numeric, atol=1e-6)
check("43.3", "E128: the slope is eq. (43.3) with lam = 0",
      gradients(toy, small, 0.0)[0][0], numeric, atol=1e-6)

# %% [markdown]
# ### E129 · Which sum, and an inverse that need not exist
#
# The seminar's $p_u=(\sum_iq_iq_i^\top)^{-1}\sum_ir_{ui}q_i$ drops $I_u$ and $\lambda$, and refers to a problem (1) that carries no number. (Its text says that only known pairs are summed; its formulas do not.) Over *all* items, with zeros for the unknown ratings, it gives another vector; over the rated ones the matrix is singular as soon as $\lvert I_u\rvert<d$: one rating and $d=3$ make a matrix of rank 1.

# %%
check("43.10", "E129: one rating, d = 3: rank 1",
      np.linalg.matrix_rank(np.outer(Q_u[0], Q_u[0])), 1)
rated = torch.tensor([0, 2, 3, 6])
with_zeros = torch.zeros(7)
with_zeros[rated] = r_u[rated]
right, wrong = solve_user(Q_u[rated], r_u[rated], 0.7), solve_user(Q_u, with_zeros, 0.7)

# %%
check("43.5", "E129: the sum over all items gives another vector",
      (right - wrong).abs().max() > 0.05)

# %% [markdown]
# ### E130 · What HALS adds
#
# The seminar presents HALS as ALS by coordinates, and its formula is right (section 8 checked it). But the name and the fame come from *non-negative* factorisation, where the projection of one coordinate is exact. And the printed fraction is $0/0$ when $Q_{ik}=0$ on all of $I_u$, which can happen once
# the projection has produced zeros; the denominators differ from user to user, as the sum runs over $I_u$.

# %%
q_k, p_k, e = torch.zeros(5), torch.tensor([0.3]), torch.randn(5, generator=g)   # one user
printed = ((e + p_k * q_k) * q_k).sum() / (q_k**2).sum()
kept, _ = hals_row(e, torch.zeros(5, dtype=torch.int64), p_k, q_k, lam=0.0)
check("43.15", "E130: the printed fraction is undefined there, ours keeps the coordinate",
      bool(printed.isnan()) and torch.equal(kept, p_k))

# %% [markdown]
# And the projection is exact for one coordinate only. Clip a whole ridge solution, and the result is beaten by the true non-negative optimum:

# %%
r_mixed = Q_u @ torch.tensor([2.0, -2.0, 1.0])
clipped = solve_user(Q_u, r_mixed, 0.7).clamp(min=0)
stacked, target = torch.cat([Q_u, 0.7**0.5 * torch.eye(3)]), torch.cat([r_mixed, torch.zeros(3)])
best = scipy.optimize.nnls(stacked.numpy(), target.numpy())[1] ** 2
check("43.16", "E130: clipping a whole ridge solution is not the non-negative optimum",
      ((stacked @ clipped - target) ** 2).sum() > 1.01 * best)


# %% [markdown]
# ## What it costs
#
# Per sweep, with $N$ ratings, $n$ users, $m$ items, $k=d+1$:
#
# | step | multiplications | memory beside the data |
# |---|---|---|
# | ALS: build all $A_u$, $A_i$ (43.11) | $2N(k^2+2k)$ | $(n+m)k^2$ |
# | ALS: solve them | $\tfrac13(n+m)k^3$ | |
# | HALS sweep (43.15) | $\approx 8Nk$ | $N$ |
# | SGD epoch (43.13) | $\approx 7Nk$, in random order | – |
# | fold-in (43.20) | $n_*k^2+\tfrac13k^3$ | $k^2$ |
#
# So ALS should be linear in $N$, and between quadratic and cubic in $d$; HALS linear in both. The next cell measures on random ratings of 2,000 users and 1,000 items. A log-log slope is the measured exponent.

# %%
def random_ratings(N, n=2000, m=1000):
    """N random triples, for timing only."""
    g = torch.Generator().manual_seed(0)
    user, item = torch.randint(n, (N,), generator=g), torch.randint(m, (N,), generator=g)
    return Ratings(user, item, torch.randn(N, generator=g), user, n, m).to(device)


# %% [markdown]
# The slope of a line in log-log coordinates:

# %%
def exponents(sizes, fits):
    """Seconds per sweep (len(fits), len(sizes)) and the log-log slope of each row."""
    seconds = np.array([[timed(fit, size, repeats=2) for size in sizes] for fit in fits])
    return seconds, np.polyfit(np.log(sizes), np.log(seconds).T, 1)[0]


# %% [markdown]
# One sweep each, the median of two runs:

# %%
sizes, ranks = [25_000, 50_000, 100_000, 200_000], [8, 16, 32, 64]
many = {N: random_ratings(N) for N in sizes}
in_N, slope_N = exponents(sizes, [lambda N: als(many[N], 8, 1.0, 1),
                                  lambda N: hals(many[N], 8, 1.0, 1)])
in_d, slope_d = exponents(ranks, [lambda d: als(many[50_000], d, 1.0, 1),
                                  lambda d: hals(many[50_000], d, 1.0, 1)])

# %% [markdown]
# Measured exponents:

# %% tags=["nbval-ignore-output"]
pd.DataFrame({"exponent in N": slope_N, "exponent in d": slope_d}, index=["ALS", "HALS"]).round(2)

# %% [markdown]
# The same numbers as lines:

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
for ax, x, seconds, label in ((axes[0], sizes, in_N, "ratings $N$"),
                              (axes[1], ranks, in_d, "factors $d$")):
    for row, name, marker in zip(seconds, ("ALS", "HALS"), "os"):
        ax.plot(x, row, marker=marker, label=name)
    ax.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds per sweep")
    ax.set_xticks(x, [f"{v:,}" for v in x])
    ax.minorticks_off()
axes[0].legend()
plt.show()

# %% [markdown]
# In $N$ both exponents lie near 1 (below it where fixed costs still show). In $d$ ALS is clearly steeper than HALS and grows towards the derived 2 to 3; HALS stays near 1. How many sweeps are needed, until $J$ is within 1 % of the best value on the training set?

# %% tags=["nbval-ignore-output"]
best = min(model.history[-1], by_hals.history[-1], by_sgd.history[-1])
histories = {"ALS": model.history[1::2], "HALS": by_hals.history, "SGD": by_sgd.history}
{name: next((k for k, J in enumerate(h, 1) if J < 1.01 * best), None)
 for name, h in histories.items()}


# %% [markdown]
# Batching pays: one sweep over the training set, all users in one call, against the readable loop, and against scikit-learn's ridge regression called once per user and per item.

# %%
def ridge_loop(ratings, d, lam):
    """One ALS sweep by scikit-learn's Ridge, row by row, on random features: for timing."""
    features = torch.randn(max(ratings.n_users, ratings.n_items), d + 1).numpy()
    for mine, theirs in ((ratings.user, ratings.item), (ratings.item, ratings.user)):
        for k in mine.unique():
            rows = mine == k
            X, y = features[theirs[rows].cpu().numpy()], ratings.value[rows].cpu().numpy()
            Ridge(alpha=lam, fit_intercept=False).fit(X, y)


# %% [markdown]
# All three solve ridge systems of the same number and size:

# %% tags=["nbval-ignore-output"]
compare_speed({"als, batched": lambda: als(train, D, LAM, 1),
               "als_loop": lambda: als_loop(train, D, LAM, 1),
               "scikit-learn Ridge per row": lambda: ridge_loop(train, D, LAM),
               "fold_in, one user": lambda: fold_in(model, [0, 1, 2], [4.0, 3.0, 5.0], LAM)},
              repeats=3)


# %% [markdown]
# ## Exercises
#
# ### Exercise 43.A · One prediction
#
# Return the model's prediction in stars for one user and one item, clipped to the scale from 1 to 5.
#
# <details><summary>Hint</summary>
#
# Four terms, then `clamp`. Note that clipping comes last.
#
# </details>

# %%
def predict_one(mu, b_u, b_i, p_u, q_i):
    """mu, b_u, b_i: 0-d tensors; p_u, q_i: (d,). Returns a 0-d tensor."""
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
one = [torch.tensor(x) for x in (3.5, 0.3, -0.4)]
exercise("43.A", predict_one, [
    ((*one, torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.25])), 3.4),
    ((*one, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])), 5.0),
    ((*one, torch.tensor([-1.0, 2.0]), torch.tensor([1.0, -1.0])), 1.0)])


# %% [markdown]
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
# ### Exercise 43.B · The penalty that is weighted by counts
#
# ALS-WR penalises $\lambda n_u\lVert p_u\rVert^2$ instead of $\lambda\lVert p_u\rVert^2$. Derive the closed form and write it.
#
# <details><summary>Hint</summary>
#
# Only the term with $\lambda$ changes in the derivation of (43.5).
#
# </details>

# %%
def solve_user_weighted(Q_u, r_u, lam):
    """Q_u (n_u, d), r_u (n_u,). Returns p_u (d,): argmin ||r_u - Q_u p||^2 + lam n_u ||p||^2."""
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
exercise("43.B", solve_user_weighted, [
    ((Q_u[:k], r_u[:k], lam), Ridge(alpha=lam * k, fit_intercept=False).fit(Q_u[:k], r_u[:k]).coef_)
    for k, lam in ((7, 0.1), (2, 0.5))])


# %% [markdown]
# <details><summary>Solution 43.B</summary>
#
# ```python
# def solve_user_weighted(Q_u, r_u, lam):
#     n_u, d = Q_u.shape
#     return torch.linalg.solve(Q_u.mT @ Q_u + lam * n_u * torch.eye(d), Q_u.mT @ r_u)
# ```
#
# The gradient of the penalty is $2\lambda n_up$, so $\lambda n_uI$ stands where $\lambda I$ stood.
#
# </details>

# %% [markdown]
# ### Exercise 43.C · One coordinate of HALS
#
# Update coordinate $k$ of one user, without biases, from his vector, his items' vectors and his ratings.
#
# <details><summary>Hint</summary>
#
# Errors of the current model first; then add the part of factor $k$ back, eq. (43.15).
#
# </details>

# %%
def hals_coordinate(p_u, Q_u, r_u, k, lam):
    """p_u (d,), Q_u (n_u, d), r_u (n_u,). Returns the new value of p_u[k], a 0-d tensor."""
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def along(k, lam, p=torch.tensor([0.5, -1.0, 2.0])):
    """The minimum over coordinate k, found by Brent's search."""
    def J(x):
        moved = torch.where(torch.arange(3) == k, x, p)
        return float(((r_u - Q_u @ moved) ** 2).sum() + lam * (moved**2).sum())
    return (p, Q_u, r_u, k, lam), scipy.optimize.minimize_scalar(J, tol=1e-12).x

exercise("43.C", hals_coordinate, [along(0, 0.7), along(2, 0.0)], atol=1e-5)


# %% [markdown]
# <details><summary>Solution 43.C</summary>
#
# ```python
# def hals_coordinate(p_u, Q_u, r_u, k, lam):
#     e = r_u - Q_u @ p_u + p_u[k] * Q_u[:, k]
#     return (e @ Q_u[:, k]) / (Q_u[:, k] @ Q_u[:, k] + lam)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 43.D · One step of SGD
#
# Return the new $p_u$ and $q_i$ after one rating with error $e$ (no biases), with the penalty shared out by counts as in (43.13).
#
# <details><summary>Hint</summary>
#
# Both updates use the vectors from *before* the step. Computing `q_i` with the new `p_u` is the classical bug.
#
# </details>

# %%
def sgd_step(p_u, q_i, e, lr, lam, n_u, m_i):
    """p_u, q_i (d,); e, lr, lam floats; n_u, m_i counts. Returns (new p_u, new q_i)."""
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def half_gradient_step(p, q, e, lr, lam, n_u, m_i):
    """The same step by autograd on one rating's share of J."""
    a, b = p.clone().requires_grad_(), q.clone().requires_grad_()
    share = (e + p @ q - a @ b) ** 2 + lam / n_u * a @ a + lam / m_i * b @ b
    ga, gb = torch.autograd.grad(share, (a, b))
    return p - lr * ga / 2, q - lr * gb / 2

steps = [(Q_u[0], Q_u[1], 0.8, 0.1, 2.0, 4, 10), (Q_u[2], Q_u[3], -1.5, 0.3, 0.5, 1, 3)]
exercise("43.D", sgd_step, [(case, half_gradient_step(*case)) for case in steps])


# %% [markdown]
# <details><summary>Solution 43.D</summary>
#
# ```python
# def sgd_step(p_u, q_i, e, lr, lam, n_u, m_i):
#     return p_u + lr * (e * q_i - lam / n_u * p_u), q_i + lr * (e * p_u - lam / m_i * q_i)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 43.E · Leave-one-out without refitting
#
# How well would fold-in predict each of a user's ratings from his *other* ratings? Refitting $n_u$ times is not needed: with $H=Q_u(Q_u^\top Q_u+\lambda I)^{-1}Q_u^\top$ and $e=r_u-Q_up_u$ the leave-one-out error is $e_i/(1-H_{ii})$. Prove it and write it.
#
# <details><summary>Hint</summary>
#
# Let $p^{(-i)}$ be the solution without rating $i$. It also solves the problem in which $r_i$ is *replaced* by $\langle p^{(-i)},q_i\rangle$ (that rating then has zero error). Both solutions are linear in the ratings.
#
# </details>

# %%
def leave_one_out_errors(Q_u, r_u, lam):
    """Q_u (n_u, d), r_u (n_u,). Returns (n_u,): r_i minus its prediction from the other ratings."""
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def refit(Q_u, r_u, lam):
    """Brute force: n_u ridge regressions, each without one rating."""
    rest = [[j for j in range(len(r_u)) if j != i] for i in range(len(r_u))]
    fits = [Ridge(alpha=lam, fit_intercept=False).fit(Q_u[k], r_u[k]).coef_ for k in rest]
    return torch.stack([r_u[i] - Q_u[i] @ torch.as_tensor(p) for i, p in enumerate(fits)])

exercise("43.E", leave_one_out_errors,
         [((Q_u, r_u, lam), refit(Q_u, r_u, lam)) for lam in (0.3, 2.0)], atol=1e-8)

# %% [markdown]
# <details><summary>Solution 43.E</summary>
#
# ```python
# def leave_one_out_errors(Q_u, r_u, lam):
#     A = Q_u.mT @ Q_u + lam * torch.eye(Q_u.shape[1])
#     H = Q_u @ torch.linalg.solve(A, Q_u.mT)
#     return (r_u - H @ r_u) / (1 - H.diagonal())
# ```
#
# Let $\tilde r$ be $r_u$ with $r_i$ replaced by $\hat r^{(-i)}_i=\langle p^{(-i)},q_i\rangle$. For $\tilde r$ the vector $p^{(-i)}$ is optimal: rating $i$ adds zero error, and on the others it was optimal. Fitted values are linear, so
# $\hat r^{(-i)}_i=(H\tilde r)_i=(Hr_u)_i+H_{ii}(\hat r^{(-i)}_i-r_i)$. Subtract from $r_i$: $r_i-\hat r_i^{(-i)}=e_i+H_{ii}(r_i-\hat r_i^{(-i)})$, hence $r_i-\hat r_i^{(-i)}=e_i/(1-H_{ii})$.
#
# </details>

# %% [markdown]
# ## Exam
#
# Answer aloud first, then open the model answer. Formulas are cited by their numbers on this page.

# %% [markdown] tags=["exam"]
# ### Question 17 · What is a latent factor model, how does it predict a rating, and which functional does it minimise?
#
# **По-русски.** Что такое модель со скрытыми переменными (LFM)? Как в ней предсказывается рейтинг и какой функционал она минимизирует? Как её обучают?
#
# <details><summary>Model answer</summary>
#
# **Model.** Every user $u$ has a vector $p_u\in\mathbb R^d$ and an offset $b_u$, every item $i$ a vector $q_i\in\mathbb R^d$ and an offset $b_i$; $\mu$ is the mean of the training ratings. Prediction: $\hat r_{ui}=\mu+b_u+b_i+\langle p_u,q_i\rangle$. The offsets say how generous the user and how good the item is compared with the average; the scalar product says how well taste and
# character match. The coordinates are learned, not named, and only defined up to a common rotation (43.12). In matrix form the table of ratings minus offsets is approximated by $PQ^\top$ of rank at most $d$.
#
# **Functional** (43.1): over the set $R$ of observed triples $(u,i,r_{ui})$,
# $$\sum_{(u,i,r_{ui})\in R}(r_{ui}-\mu-b_u-b_i-\langle p_u,q_i\rangle)^2+\lambda\Big(\sum_u\lVert p_u\rVert^2+\sum_i\lVert q_i\rVert^2+\sum_ub_u^2+\sum_ib_i^2\Big)\to\min_{P,Q,b}.$$
# Unobserved pairs do not occur. The penalty prevents over-fitting of users and items with few ratings; it is the log-prior of centred Gaussians with $\lambda=\sigma^2/\tau^2$ (43.2).
#
# **Training.** *SGD* (43.13): take a rating, $e=r_{ui}-\hat r_{ui}$, $p_u\leftarrow p_u+\eta(eq_i-\frac\lambda{n_u}p_u)$ and symmetrically $q_i$, $b_u$, $b_i$; the common rule $p_u\leftarrow p_u+\eta(eq_i-\lambda p_u)$ minimises the same errors with a penalty weighted by counts, $\lambda n_u\lVert p_u\rVert^2$. *ALS*: the functional is not convex in all variables, but with $Q,b_i$ fixed it splits into one ridge regression per user with the closed form (43.8), and vice versa; each half-step is an exact minimum, so the functional never rises. *HALS* (43.15) updates one coordinate at a time.
# A new user is added by one user half-step with the items frozen (fold-in, 43.20).
#
# **Кратко по-русски.** Каждому пользователю и товару сопоставляются вектор размерности $d$ и сдвиг; прогноз $\hat r_{ui}=\mu+b_u+b_i+\langle p_u,q_i\rangle$. Минимизируется $\sum_{(u,i,r_{ui})\in R}(r_{ui}-\mu-b_u-b_i-\langle p_u,q_i\rangle)^2+\lambda\big(\sum_u\lVert p_u\rVert^2+\sum_i\lVert q_i\rVert^2+\sum_ub_u^2+\sum_ib_i^2\big)$; сумма только по известным оценкам. Сдвиги обучаются, это не средние оценки. Обучение: SGD по одному рейтингу либо ALS: при фиксированных $q_i,b_i$ задача
# распадается на гребневые регрессии по пользователям с точным решением, затем роли меняются; функционал не возрастает.
#
# **Typical mistake.** Calling $b_u$, $b_i$ "the average ratings" (then the mean is subtracted twice), summing over all pairs instead of the observed ones, or forgetting the regulariser.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 57 · Write observed-only, weighted and SVD matrix factorisation as one family in $w_0$; what is known of its minima?
#
# **По-русски.** Запишите матричное разложение только по известным ячейкам, взвешенное разложение и SVD как одно семейство с параметром $w_0$. Что известно о минимумах?
#
# <details><summary>Model answer</summary>
#
# Let $a_{ui}$ be the observed value and 0 elsewhere. The family (43.17) is
# $$J_{w_0}=\sum_{(u,i)\in R}(a_{ui}-\langle p_u,q_i\rangle)^2+w_0\sum_{(u,i)\notin R}\langle p_u,q_i\rangle^2\;(+\lambda(\lVert P\rVert_F^2+\lVert Q\rVert_F^2)).$$
#
# - $w_0=0$: **observed-only** MF. Missing cells say nothing; suited to ratings. ALS step (43.5). Needs $\lambda>0$; missing cells may create spurious local minima.
# - $0<w_0<1$: **weighted** MF. A missing cell is a weak zero; suited to clicks (implicit ALS is the case with weights that grow with the number of clicks). ALS step is weighted ridge (43.18).
# - $w_0=1$, $\lambda=0$: $J_1=\lVert A-PQ^\top\rVert_F^2$ over all cells, **truncated SVD**: by Eckart–Young the minimum is $\sum_{k>d}\sigma_k^2$ (43.19), attained by the $d$ leading singular triples; every local minimum is global.
#
# In words: one loss, and the single question how loudly an empty cell says "zero".
#
# **Кратко по-русски.** $J_{w_0}=\sum_{(u,i)\in R}(a_{ui}-\langle p_u,q_i\rangle)^2+w_0\sum_{(u,i)\notin R}\langle p_u,q_i\rangle^2+\lambda(\lVert P\rVert_F^2+\lVert Q\rVert_F^2)$. При $w_0=0$ учитываются только известные ячейки (нужна регуляризация, возможны локальные минимумы), при $0<w_0<1$ пропуск — слабый ноль (взвешенное разложение, iALS), при $w_0=1$ и $\lambda=0$ это $\lVert A-PQ^\top\rVert_F^2$, решение — усечённое сингулярное разложение (SVD) с ошибкой $\sum_{k>d}\sigma_k^2$, и все локальные
# минимумы глобальны.
#
# **Typical mistake.** Applying SVD to a table of ratings filled with zeros and calling it observed-only; writing $\sum_{ij}\lVert\cdot\rVert_F^2$, which multiplies the loss by the number of cells.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 64 · Derive the ALS update; when is the matrix singular, and what does ridge change?
#
# **По-русски.** Выведите шаг ALS для вектора пользователя. Когда матрица системы вырождена и что меняет гребневая регуляризация? Почему функционал не возрастает?
#
# <details><summary>Model answer</summary>
#
# Fix $Q$. The functional splits into $J_u(p)=\sum_{i\in I_u}(r_{ui}-\langle p,q_i\rangle)^2+\lambda\lVert p\rVert^2$, one per user. Gradient: $-2\sum_{i\in I_u}(r_{ui}-q_i^\top p)q_i+2\lambda p$. Since $(q_i^\top p)q_i=q_iq_i^\top p$, setting it to zero gives
# $$\Big(\sum_{i\in I_u}q_iq_i^\top+\lambda I\Big)p_u=\sum_{i\in I_u}r_{ui}q_i,\qquad p_u=(Q_u^\top Q_u+\lambda I)^{-1}Q_u^\top r_u$$
# (43.5). With biases replace $q_i$ by $z_i=(q_i,1)$ and $r_{ui}$ by $r_{ui}-\mu-b_i$; the solution is $(p_u,b_u)$ (43.8). Items are symmetric.
#
# **Monotone.** $J_u(p)-J_u(p_u)=(p-p_u)^\top A_u(p-p_u)\ge0$ (43.6), as $A_u\succeq0$; users do not share variables, so the half-step minimises over all of $P$.
#
# **Singular.** $Q_u^\top Q_u$ is a sum of $\lvert I_u\rvert$ matrices of rank one: rank $\le\min(\lvert I_u\rvert,d)$. With $\lambda=0$ it is singular exactly if the rated items' vectors do not span $\mathbb R^d$, in particular whenever $\lvert I_u\rvert<d$ (with a bias: $<d+1$); then the minimum is not unique.
#
# **Ridge.** Eigenvalues become $\sigma_k^2+\lambda\ge\lambda>0$: always invertible, unique solution, condition number $(\sigma_1^2+\lambda)/(\sigma_d^2+\lambda)$ (43.10). Directions in which the user gave no information are set to 0 and weak ones are shrunk by $\sigma_k^2/(\sigma_k^2+\lambda)$; a user without ratings gets $p_u=0$. For $\lambda\to0$ the solution tends to $Q_u^+r_u$.
#
# **Кратко по-русски.** При фиксированном $Q$ задача распадается по пользователям: $\lVert r_u-Q_up\rVert^2+\lambda\lVert p\rVert^2$. Приравниваем градиент $-2\sum_{i\in I_u}(r_{ui}-q_i^\top p)q_i+2\lambda p$ к нулю, получаем $p_u=(\sum_{i\in I_u}q_iq_i^\top+\lambda I)^{-1}\sum_{i\in I_u}r_{ui}q_i$. При $\lambda=0$ матрица вырождена, если векторы оценённых товаров не порождают $\mathbb R^d$ (например, $\lvert I_u\rvert<d$). При $\lambda>0$ собственные значения
# $\sigma_k^2+\lambda>0$, решение единственно, плохо определённые направления сжимаются к нулю. Так как $J_u(p)-J_u(p_u)=(p-p_u)^\top A_u(p-p_u)\ge0$ и задачи разных пользователей независимы, полушаг — точный минимум по $P$, и функционал не возрастает.
#
# **Typical mistake.** Summing over all items instead of $I_u$; losing the minus of the gradient; saying that with $Q$ fixed the problem is linear (it is quadratic).
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 65 · Derive the HALS coordinate update and compare its cost with ALS.
#
# **По-русски.** Выведите покоординатное обновление HALS (в том числе неотрицательное) и сравните стоимость с ALS.
#
# <details><summary>Model answer</summary>
#
# Fix everything except $P_{uk}$ and let $e^{(k)}_{ui}=r_{ui}-\sum_{s\ne k}P_{us}Q_{is}$ (minus $\mu+b_u+b_i$ with biases). Then $J=\sum_{i\in I_u}(e^{(k)}_{ui}-P_{uk}Q_{ik})^2+\lambda P_{uk}^2+\text{const}$ is a parabola; its derivative $-2\sum_{i\in I_u}(e^{(k)}_{ui}-P_{uk}Q_{ik})Q_{ik}+2\lambda P_{uk}$ vanishes at
# $$P_{uk}=\frac{\sum_{i\in I_u}e^{(k)}_{ui}Q_{ik}}{\sum_{i\in I_u}Q_{ik}^2+\lambda}$$
# (43.15). Different users are independent, so a whole row $k$ is updated at once. With the constraint $P_{uk}\ge0$ the minimum of the parabola on the half-line is $\max(0,\cdot)$ of the same value (43.16), exact because the problem is one-dimensional. If the denominator is 0 the coordinate has no influence and stays. Each update is an exact minimum, so $J$ never rises.
#
# **Cost.** Keep the errors $e_{ui}$ and correct them after each row: $O(N)$ per row, $O(Nd)$ per sweep, no system. ALS: $O(Nd^2)$ to build and $O((n+m)d^3)$ to solve. HALS is cheaper per sweep by a factor of about $d$, but moves along axes only, so it needs more sweeps when factors are correlated; ALS minimises over the whole vector. HALS handles non-negativity for free, ALS does not: clipping its
# solution is not the constrained optimum.
#
# **Кратко по-русски.** По одной координате функционал — парабола; её вершина $P_{uk}=\frac{\sum_{i\in I_u}e^{(k)}_{ui}Q_{ik}}{\sum_{i\in I_u}Q_{ik}^2+\lambda}$, где $e^{(k)}$ — ошибка без $k$-го фактора; для неотрицательного разложения берут $\max(0,\cdot)$. Если знаменатель равен нулю, координата не меняется. Ошибки $e_{ui}$ пересчитываются после каждой строки за $O(N)$. Проход стоит $O(Nd)$ против $O(Nd^2+(n+m)d^3)$ у ALS: нет систем уравнений, зато проходов нужно больше.
#
# **Typical mistake.** Using the error *with* factor $k$ in the numerator; forgetting that the sum in the denominator runs over $I_u$ and differs from user to user.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# - LFM: $\hat r_{ui}=\mu+b_u+b_i+\langle p_u,q_i\rangle$; the functional (43.1) sums squared errors over observed triples and penalises every trained parameter.
# - With one side fixed it splits into ridge regressions with the closed form (43.8); each half-step is an exact minimum, so ALS never goes up (43.6).
# - $\lambda>0$ makes every matrix invertible (43.10); $\lambda=\sigma^2/\tau^2$ is the noise-to-prior ratio (43.2); users without ratings get zeros.
# - HALS (43.15) minimises one coordinate at a time in $O(Nd)$ per sweep and carries non-negativity exactly; SGD (43.13) descends on the same functional if the penalty is shared out by counts.
# - Observed-only, weighted and SVD differ in the weight $w_0$ of a missing cell (43.17); only in the fully observed case are spurious minima excluded for certain.
#
# **References**
#
# - S. Funk, [Netflix update: try this at home](https://sifter.org/~simon/journal/20061211.html), 2006: SGD, one factor at a time.
# - Y. Koren, R. Bell, C. Volinsky, [Matrix factorization techniques for recommender systems](https://doi.org/10.1109/MC.2009.263), IEEE Computer, 2009.
# - Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan, [Large-scale parallel collaborative filtering for the Netflix Prize](https://doi.org/10.1007/978-3-540-68880-8_32), AAIM 2008: ALS-WR.
# - A. Cichocki, R. Zdunek, S. Amari, [Hierarchical ALS algorithms for nonnegative matrix and 3D tensor factorization](https://doi.org/10.1007/978-3-540-74494-8_22), ICA 2007: HALS.
# - C. Eckart, G. Young, [The approximation of one matrix by another of lower rank](https://doi.org/10.1007/BF02288367), Psychometrika, 1936.
# - P. Baldi, K. Hornik, [Neural networks and principal component analysis: learning from examples without local minima](https://doi.org/10.1016/0893-6080(89)90014-2), Neural Networks, 1989.
# - L. Grippo, M. Sciandrone, [On the convergence of the block nonlinear Gauss–Seidel method under convex constraints](https://doi.org/10.1016/S0167-6377(99)00074-7), Operations Research Letters, 2000.
# - R. Ge, J. D. Lee, T. Ma, [Matrix completion has no spurious local minimum](https://arxiv.org/abs/1605.07272), NIPS 2016.
# - Y. Hu, Y. Koren, C. Volinsky, [Collaborative filtering for implicit feedback datasets](https://doi.org/10.1109/ICDM.2008.22), ICDM 2008: small weights for missing cells.
# - N. Hug, [Surprise: a Python library for recommender systems](https://doi.org/10.21105/joss.02174), JOSS, 2020.
# - F. M. Harper, J. A. Konstan, [The MovieLens datasets: history and context](https://doi.org/10.1145/2827872), ACM TiiS, 2015.
