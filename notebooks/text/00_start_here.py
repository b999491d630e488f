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
# # 00 · Start here
#
# Five people rated a new film: 5, 4½, 4, 5 and 3 stars. The average is 4.3; the mean over all films is 3.5.
# Would you bet that the next hundred ratings of this film average 4.3? Section 1 finds a better bet, section
# 2 tests it on data; and on the way they show once, whole, what every page of the course does: **a formula,
# the same formula as code, and a ✓ that proves it**.
#
# **You will be able to**
#
# - run a page, change it, break it, and get a fresh copy;
# - read ✓, •, ○, … and ✗, and tell a proof from an observation;
# - find the page that answers an exam question, and what to read before it;
# - look up any symbol of the course, and any term in English or Russian (по-русски: раздел 6).
#
# **Prerequisites** Python, linear algebra, calculus and probability of a second year.
#
# **Reading** 15 min · **Time** 15 s on 2 CPU cores · **Memory** 0.6 GB · **Data** small tables and simulated ratings, bundled · **Exam questions** –
#
# **Where to go next** For a formula that becomes a working recommender:
# [43 Latent factors](43_latent_factors.ipynb), with [41 Ranking metrics](41_ranking_metrics.ipynb) to judge
# it by. For pictures: [11 Style transfer](11_style_transfer.ipynb). For probability:
# [13 VAE](13_vae.ipynb), then [16 Normalizing flows](16_normalizing_flows.ipynb). For an exam: the
# questions in section 3. For everything: the map in section 4.
#
# <details><summary>Notation</summary>
#
# | symbol | in code | shape, unit |
# |---|---|---|
# | $x_1,\dots,x_n$: observations, $t$ counts them | `x` | `(…, n)`, $n\ge1$; here stars above the mean of all films |
# | $w_t$: weight of an observation (00.A) | `w` | `(n,)`, above 0, no unit |
# | $\mu$, $\sigma$: mean and standard deviation of one observation; over many films $\mu$ is the root mean square of their means | `mu`, `sigma` | unit of $x$; $\sigma\ge0$ |
# | $\lambda$: weight of the penalty | `lam` | ≥ 0, no unit |
# | $m$: candidate for the answer | `m` | unit of $x$ |
# | $J(m)$: what is minimised | `objective(m, lam)` | unit of $x$ squared |
# | $\hat m$: its minimiser | `shrunken_mean(x, lam)` | `(…,)`, unit of $x$ |
#
# </details>
#
# <!-- navigation -->
# next: [11 Style transfer](11_style_transfer.ipynb)
# <!-- /navigation -->

# %% [markdown]
# ## Your first ten minutes
#
# Nothing has to be run: all outputs are stored, but those of the sliders and of section 7. To play, run
# everything once (menu **Run → Run All Cells**); then sliders move.
#
# | you want to | do this |
# |---|---|
# | run one cell and go on | **Shift+Enter** (the cell is marked by a bar at its left) |
# | run all | **Run → Run All Cells**; to jump into the middle: **Run → Run All Above Selected Cell**; after an error: mend the cell, then **Run → Run Selected Cell and All Below** |
# | stop a cell that takes too long | **Kernel → Interrupt Kernel**, or press **I** twice outside a cell; all results stay |
# | start from nothing | **Kernel → Restart Kernel and Run All Cells** |
# | see folded code | click the grey line that ends in •••; ▸ opens hints, solutions and answers |
# | change things | edit any cell: your copy lies in `work/`, the course itself is never touched |
# | have a page as it was | in a terminal, in the course's folder: `make fresh NB=43`; yours stays under a dated name |
#
# `make lab` refreshes every copy in `work/` that you have not edited (opening or running is not editing).
# Of a page that you did edit, a newer one is put beside yours, as `43_latent_factors (new).ipynb`.

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
import importlib
import importlib.metadata
import itertools
import os
import platform
import re
import sys
import textwrap
import tomllib

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from ipywidgets import Dropdown, FloatSlider, IntSlider, Text, interact
from scipy.optimize import minimize_scalar

from helpers import CheckFailed, get_torchaudio

PAGE = "00"
WIDE = {"style": {"description_width": "initial"}, "layout": {"width": "32em"}}

# %% tags=["parameters", "hide-input"]
STARS = [5.0, 4.5, 4.0, 5.0, 3.0]   # ratings of the new film, 2 to 15
MEAN = 3.5                          # mean rating of all films
LAM = 5.0                           # weight of the penalty
MU = 0.38                           # how far a film's true mean lies from MEAN, typically …
SIGMA = 0.87                        # … and how far a single rating lies from its film's mean
DRAWS = 200_000                     # simulated samples
TARGET = "44"                       # the notebook whose reading path is shown

# %% [markdown]
# ## 1. The loop, once around
#
# **Question.** What is the best guess of the film's true mean, from five ratings?
#
# **Predict** before you read on: should the guess be 4.3 stars, higher, or lower?
#
# <details><summary>What you might have thought</summary>
#
# Lower. Five people are few, and most films are near 3.5: part of the 0.8 stars above it is luck. How large
# a part? That is what the formula says. (Section 2 tests it on 292 other films, whose mean is 3.2.)
#
# </details>

# %% tags=["hide-input"]
scheme({"q": (0, 1, "question", "round"), "p": (1, 1, "predict", "round"),
        "d": (2, 1, "derive:\nnumbered formula"), "c": (3, 1, "code:\nsame symbols"),
        "v": (3, 0, "✓ check against\nsomething else", "bold"), "m": (2, 0, "move\na slider"),
        "t": (1, 0, "your turn", "round"), "n": (0, 0, "exam", "round")},
       [("q", "p"), ("p", "d"), ("d", "c"), ("c", "v"), ("v", "m"), ("m", "t"), ("t", "n"),
        ("t", "q", "next", "dashed")],
       size=(8.4, 2.3), title="What a page does, section by section")
plt.show()

# %% [markdown]
# **Derive.** Subtract the mean of all films: $x_t$ is how many stars rating $t$ lies above it. Ask for an
# $m$ near all $x_t$, and pull it towards 0 by a penalty with weight $\lambda\ge0$:
#
# $$J(m)=\sum_{t=1}^n(x_t-m)^2+\lambda m^2\;\to\;\min_m .$$
#
# The derivative is $J'(m)=-2\sum_t(x_t-m)+2\lambda m=2(n+\lambda)m-2\sum_tx_t$. Its only zero is
#
# $$\hat m=\frac{\sum_{t=1}^nx_t}{n+\lambda}, \tag{00.1}$$
#
# and $J''=2(n+\lambda)>0$, so it is the minimum: $\lambda$ acts like $\lambda$ more people who rated just
# the mean. (Why $\lambda=5$? Section 2 answers.)
#
# **Code.** The same symbols, the number of the formula, shapes in comments, and a sentence for input
# without an answer:

# %%
def shrunken_mean(x, lam):
    """The minimiser of Σ(x_t − m)² + λm², eq. (00.1): x (..., n) -> (...,).
    ValueError if there are no observations or lam < 0."""
    x = torch.as_tensor(x, dtype=torch.float64)
    n = x.shape[-1] if x.ndim else 0
    if n == 0 or not lam >= 0:
        raise ValueError(f"give at least one observation and lam >= 0, not {n}, {lam}")
    return x.sum(-1) / (n + lam)


# %% [markdown]
# **Check.** The oracle knows $J$ and nothing of the derivation: Brent's method searches for the minimum.

# %%
x = torch.tensor(STARS, dtype=torch.float64) - MEAN             # (n,)


def objective(m, lam):
    """J(m), the sum that (00.1) minimises."""
    return ((x - m) ** 2).sum() + lam * m**2


penalties = (0.0, 2.0, LAM, 30.0)       # one with n = λ alone would let sum/2n and sum/2λ pass
best = [minimize_scalar(lambda m: float(objective(m, lam))).x for lam in penalties]
check("00.1", "the closed form is the minimum that Brent's method finds",
      [shrunken_mean(x, lam) for lam in penalties], best, atol=1e-6)
print(f"{MEAN + x.mean():.2f} stars on average, {MEAN + shrunken_mean(x, LAM):.2f} is the guess")

# %% [markdown]
# **Move.** What will the guess be for a huge $\lambda$? And for $\lambda=0$?

# %% tags=["hide-input"]
def draw_parts(ax, lam):
    """J(m) and its two parts over m in stars, with the minimum."""
    m = np.linspace(-1.5, 2.5, 201)
    near, penalty = ((x.numpy()[:, None] - m) ** 2).sum(0), lam * m**2
    for curve, label in [(near, "ratings"), (penalty, "penalty"), (near + penalty, "sum $J$")]:
        ax.plot(MEAN + m, curve, label=label)
    best = float(shrunken_mean(x, lam))
    ax.plot(MEAN + best, float(((x - best) ** 2).sum()) + lam * best**2, "ko")
    ax.set(ylim=(0, 30), xlabel="guess, stars", title=f"λ = {lam:g}: {MEAN + best:.2f} stars")


def draw_objective(lam=LAM):
    """One large picture of J for a slider."""
    fig, ax = plt.subplots()
    draw_parts(ax, lam)
    ax.set(ylabel="squared stars")
    ax.legend()
    plt.show()


# %% tags=["hide-input"]
fig, panels = plt.subplots(1, 4, figsize=(10, 2.6), sharey=True)
for value, ax in zip((0, 1, 5, 20), panels):
    draw_parts(ax, value)
panels[0].set(ylabel="squared stars")
panels[0].legend(loc="upper center", fontsize=8)
plt.show()

# %% tags=["nbval-ignore-output"]
interact(draw_objective,
         lam=FloatSlider(value=LAM, max=40, step=0.5, description="penalty λ", **WIDE));

# %% [markdown]
# The dot moves from the average (4.3 stars at $\lambda=0$) towards the mean of all films, 3.5, and never
# reaches it. (Sliders need a running kernel; the four pictures are for those who only read.)
#
# ### Exercise 00.A · A mean with weights · ●○○ · 5 min
#
# **Your turn.** Some people deserve more trust. Find the minimiser of $\sum_tw_t(x_t-m)^2+\lambda m^2$ for
# weights $w_t>0$. Write the function, run its cell (Shift+Enter), then run the next one.
#
# <details><summary>Hint 1</summary>
#
# Differentiate as above, and set the derivative to zero.
#
# </details>
# <details><summary>Hint 2</summary>
#
# What plays the part of $n=\sum_t1$ now?
#
# </details>

# %%
def weighted_mean(x, w, lam):       # numpy (n,), numpy (n,), number -> number
    """The minimiser of Σ w_t (x_t − m)² + λm²."""
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
cases = [((np.array([2.0, 4.0, 9.0]), np.array([1.0, 1.0, 2.0]), 1.0), 4.8),
         ((np.array([-1.0, 5.0]), np.array([0.5, 3.0]), 0.0), 29 / 7),
         ((np.array([7.0]), np.array([2.0]), 5.0), 2.0)]
mistakes = {"you divided by n + λ: there are Σ w_t votes now, not n":
            lambda x, w, lam: (w * x).sum() / (len(x) + lam),
            "you forgot the penalty in the denominator": lambda x, w, lam: (w * x).sum() / w.sum(),
            "you forgot the weights in the numerator":
            lambda x, w, lam: x.sum() / (w.sum() + lam),
            "you scaled the weights to sum 1: then λ weighs more":
            lambda x, w, lam: (w * x).sum() / w.sum() / (1 + lam)}
exercise("00.A", weighted_mean, cases, mistakes=mistakes)

# %% [markdown]
# <details><summary>Solution 00.A</summary>
#
# The derivative $-2\sum_tw_t(x_t-m)+2\lambda m$ vanishes at $m=\sum_tw_tx_t\,/\,(\sum_tw_t+\lambda)$: the
# sum of the weights takes the part of $n$.
#
# ```python
# def weighted_mean(x, w, lam):
#     """The minimiser of Σ w_t (x_t − m)² + λm²."""
#     return (w * x).sum() / (w.sum() + lam)
# ```
#
# </details>
#
# The line is one of four: *yours to write*; *solved*; the first case that fails, with its arguments; or
# your error in one line. Famous mistakes are called by their names. Here is one, made for you:

# %% tags=["nbval-ignore-output"]
exercise("00.A", lambda x, w, lam: (w * x).sum() / (len(x) + lam), cases, mistakes=mistakes)

# %% [markdown]
# ## 2. Does it help? The loop again, on data
#
# **Question.** Take the films of the course's simulated ratings that have 25 ratings or more. Show five of
# each, hide the others. Which guess comes nearest to the mean of the hidden ones: the average of the five,
# the mean of all films, or $\hat m$?
#
# **Predict** the order of the three.

# %%
def few_and_later(ratings, n, least=20):
    """Of every film with n + least ratings: the first n, mean and number of the others."""
    few, later, hidden = [], [], []
    for item in range(ratings.n_items):
        rows = (ratings.item == item).nonzero()[:, 0]
        values = ratings.value[rows[ratings.time[rows].argsort(stable=True)]]
        if len(values) >= n + least:
            few.append(values[:n])
            later.append(values[n:].mean())
            hidden.append(len(values) - n)
    return torch.stack(few), torch.stack(later), torch.tensor(hidden)   # (films, n), (films,) twice


# %%
ratings, n, least = data.ratings(), len(STARS), 20
few, later, hidden = few_and_later(ratings, n, least)
counts = np.bincount(ratings.item)
totals = np.bincount(ratings.item, ratings.value)[counts >= n + least]
claim("shown and hidden ratings together are all ratings of these films, each once",
      few.sum(1) + hidden * later, totals, atol=1e-9)

# %%
centre = few.mean()                                             # only what is shown is used


def film_error(lam):
    """Root mean square distance of the guess from the later ratings' mean, stars."""
    return float((centre + shrunken_mean(few - centre, lam) - later).square().mean().sqrt())


# %%
average, ignore, shrunk = film_error(0.0), film_error(1e9), film_error(LAM)
print(f"errors over {len(few)} films: average {average:.3f}, mean of all {ignore:.3f}, "
      f"between {shrunk:.3f} stars")
claim("the guess between errs by less than 0.34 stars; neither of the simple guesses does",
      shrunk, below=0.34, trivial=min(average, ignore))

# %%
sigma2 = few.var(1).mean()
mu2 = (later - centre).square().mean() - (sigma2 / hidden).mean()   # less the noise of the hidden
print(f"a film's true mean lies {mu2.sqrt():.2f} stars from the mean of all, "
      f"a rating {sigma2.sqrt():.2f} stars from its film's")

# %% [markdown]
# The average of five ratings is about as far off as not looking at them at all; the guess between the two
# is nearer than both. The mark is • and not ✓: this was *observed* on data. The argument `trivial` is what
# a lazy answer scores; the claim would stop the page if that passed as well.
#
# **Derive** why. Let the $x_t$ be independent with mean $\mu$ and variance $\sigma^2$. Then
# $\mathbb E\hat m=\frac{n\mu}{n+\lambda}$, which is off by $-\frac{\lambda\mu}{n+\lambda}$, and
# $\mathrm{Var}\,\hat m=\frac{n\sigma^2}{(n+\lambda)^2}$. The mean squared error is squared bias plus
# variance:
#
# $$\mathbb E(\hat m-\mu)^2=\underbrace{\frac{\lambda^2\mu^2}{(n+\lambda)^2}}_{\text{bias}^2}
# +\underbrace{\frac{n\sigma^2}{(n+\lambda)^2}}_{\text{variance}}. \tag{00.2}$$
#
# A film has its own $\mu$, and nobody knows it. Averaged over many films, (00.2) keeps its form with $\mu^2$
# replaced by the mean of all $\mu^2$; from here on $\mu$ is the root of that mean: how far a film's true mean
# lies from the mean of all, typically.

# %%
def bias2_and_variance(lam, n, mu, sigma):
    """The two terms of eq. (00.2), both in the unit of x squared; lam may be an array.
    ValueError if n < 1 or lam < 0."""
    if n < 1 or not np.min(lam) >= 0:
        raise ValueError(f"give at least one observation and lam >= 0, not {n}, {lam}")
    return (lam * mu / (n + lam)) ** 2, n * sigma**2 / (n + lam) ** 2


# %% [markdown]
# **Check**, twice. Where all cases can be listed, they are: let $x_t$ be $\mu-\sigma$ or $\mu+\sigma$ with
# probability ½ each; that has the right mean and variance, and all $2^n$ samples give both terms exactly.

# %%
def by_listing(lam, n):
    """bias² and variance over all 2**n samples."""
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=n)), dtype=torch.float64)
    listed = shrunken_mean(MU + SIGMA * signs, lam)             # (2**n,)
    return (listed.mean() - MU) ** 2, listed.var(correction=0)


# %%
tries = [(LAM, n), (2.0, n), (LAM, 3)]
check("00.2", "bias² and variance by listing all samples",
      [bias2_and_variance(lam, k, MU, SIGMA) for lam, k in tries],
      [by_listing(lam, k) for lam, k in tries], atol=1e-12)

# %% [markdown]
# Where they cannot be listed, a simulation decides, with its error bar.

# %%
generator = torch.Generator().manual_seed(0)
samples = MU + SIGMA * torch.randn(DRAWS, n, generator=generator, dtype=torch.float64)
errors = (shrunken_mean(samples, 2.0) - MU) ** 2                # (DRAWS,)
check("00.2", "the error of normal samples, within four standard errors", errors.mean(),
      sum(bias2_and_variance(2.0, n, MU, SIGMA)),
      atol=1e-12 + 4 * float(errors.std()) / DRAWS**0.5)

# %% [markdown]
# **Move.** Which of the two terms does a larger $\lambda$ lower, which one does it raise? The circles are
# measured: the squared errors on the films, less the noise $\sigma^2/\text{number}$ of what is hidden. For the
# curves $\mu$ and $\sigma$ are the two numbers printed above, rounded. $\mu^2$ is where the circles tend for
# large $\lambda$, so the right end has to fit; the left end and the place of the lowest point did not have to.

# %% tags=["hide-input"]
def draw_error(lam=LAM, n=len(STARS)):
    """The terms of eq. (00.2) over λ, a dot at the chosen one, and the films if n is theirs."""
    grid = np.linspace(0, 20, 201)
    bias2, variance = bias2_and_variance(grid, n, MU, SIGMA)
    fig, ax = plt.subplots()
    for curve, label in [(bias2, "bias²"), (variance, "variance"), (bias2 + variance, "sum")]:
        ax.plot(grid, curve, label=label)
    if n == few.shape[1]:
        dots, noise = np.arange(0, 21, 2), SIGMA**2 * float((1 / hidden).mean())
        ax.plot(dots, [film_error(v) ** 2 - noise for v in dots], "o", mfc="none", label="films")
    ax.plot(lam, sum(bias2_and_variance(lam, n, MU, SIGMA)), "ko")
    ax.set(xlabel=r"penalty $\lambda$", ylabel="squared error, stars²", ylim=(0, None),
           title=f"{n} ratings, λ = {lam:g}")
    ax.legend()
    plt.show()


draw_error()

# %% tags=["nbval-ignore-output"]
interact(draw_error, lam=FloatSlider(value=LAM, max=20, step=0.5, description="penalty λ", **WIDE),
         n=IntSlider(value=len(STARS), min=1, max=50, description="ratings n", **WIDE));

# %% [markdown]
# ### Exercise 00.B · The best penalty · ●●○ · 5 min
#
# For which $\lambda$ is (00.2) least? (Move the slider of $n$ first: does the lowest point move? Does the
# crossing of the two curves?)
#
# <details><summary>Hint 1</summary>
#
# Write the sum as one fraction, $(\lambda^2\mu^2+n\sigma^2)/(n+\lambda)^2$, and differentiate its
# logarithm.
#
# </details>

# %%
def best_penalty(n, mu, sigma):     # numbers -> number
    """The λ that minimises eq. (00.2)."""
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
cases = [((5, 0.4, 0.8), 4.0), ((5, -2.0, 1.0), 0.25), ((20, 0.5, 2.0), 16.0)]
mistakes = {"you did not square: the errors are squared": lambda n, mu, sigma: sigma / abs(mu),
            "yours depends on n": lambda n, mu, sigma: sigma**2 / (n * mu**2),
            "you kept a factor n: it cancels": lambda n, mu, sigma: n * sigma**2 / mu**2,
            "you set bias² = variance: where they cross is not where their sum is least":
            lambda n, mu, sigma: n**0.5 * sigma / abs(mu),
            "you turned the ratio around": lambda n, mu, sigma: mu**2 / sigma**2}
exercise("00.B", best_penalty, cases, mistakes=mistakes)

# %% [markdown]
# <details><summary>Solution 00.B</summary>
#
# $\frac{2\lambda\mu^2}{\lambda^2\mu^2+n\sigma^2}=\frac2{n+\lambda}$ gives
# $\lambda\mu^2(n+\lambda)=\lambda^2\mu^2+n\sigma^2$, so $\lambda=\sigma^2/\mu^2$: noise against signal,
# whatever $n$ is. Here it is $0.87^2/0.38^2\approx5.2$, near the 5 of the parameters cell; on the films the
# error is least at 4.9. Ridge regression has the same: with noise $\sigma$ and weights that scatter by $\tau$
# the best is $\lambda=\sigma^2/\tau^2$. In notebook 43 (43.2) the same ratio comes from a prior.
#
# ```python
# def best_penalty(n, mu, sigma):
#     """The λ that minimises eq. (00.2)."""
#     return sigma**2 / mu**2
# ```
#
# </details>
#
# ### Was that fair?
#
# Not quite: $\lambda=5$ was chosen with the hidden ratings in view. The shown ones alone give a $\lambda$
# too, because their averages scatter around the mean of all by $\mu^2+\sigma^2/n$:

# %%
mu2 = (few.mean(1).var() - sigma2 / n).clamp(min=1e-9)          # of the shown ratings only
guessed = float(sigma2 / mu2)
print(f"from the shown ratings μ = {mu2.sqrt():.2f} stars, λ = {guessed:.1f}, "
      f"error {film_error(guessed):.3f} stars")
claim("with this λ the guess errs by less than 0.34 stars as well", film_error(guessed),
      below=0.34, trivial=min(average, ignore))

# %% [markdown]
# ### When a check fails
#
# It stops the page with the sentence, the largest error, where it is, and both values there. Three slips,
# caught here so that the page goes on: $\lambda$ forgotten, a result that is not a number, a sum left out.

# %%
three = torch.tensor([2.0, 4.0, 9.0], dtype=torch.float64)
for wrong in (three.mean(), three.sum() * float("nan"), three / 5):
    try:
        check("00.1", "a slip", wrong, shrunken_mean(three, 2.0))
    except CheckFailed as problem:
        print(problem, "\n")

# %% [markdown]
# | mark | what it says |
# |---|---|
# | `✓ (00.1) …` | this formula agrees with something that was not derived from it; recomputed whenever the page runs |
# | `• …` | this was seen on data or after training; mostly next to a trivial answer that must fail |
# | `○ not with these parameters …` | an observation that no longer holds after you changed the parameters cell; the page goes on |
# | `… 00.A: yours to write` | an exercise that waits for you |
# | `✓ 00.A solved`, `✗ 00.A …` | your function passed every case, or the first that it did not; the page goes on |
# | `✗ …` | what does not hold, and by how much; after a ✓ or a • the page stops there |
#
# A sentence without a mark is explanation or opinion. Change the parameters cell of this page (click it to
# unfold it) and run all: the ✓ still hold, the • may not.

# %% [markdown]
# ## Break it
#
# Is a ✓ able to fail? Choose a function of this page and one small change of it (a sign, a number, a
# forgotten bracket); **break** runs the checks that depend on it in a copy and shows which turn red, and by
# how much; **mend** throws the copy away. The table below shows some tries for those who only read.
# Newer lectures have this widget too (11, 12, 13, 16 and 42 not yet).

# %% tags=["nbval-ignore-output"]
break_it()

# %% [markdown]
# ## 3. The 19 official questions
#
# In our words. Each belongs to one notebook, whose **Exam** section answers it in English and in Russian (in
# 13, 16 and 42 the Russian is shorter); 72 further questions are spread in the same way. A number without a
# link: that notebook, and with it the answer, is planned.

# %% tags=["hide-input"]
def read_table(name):
    """Rows of a CSV file of the course's data folder, as a list of dicts of strings."""
    with open(data.DATA / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def markdown_table(head, rows):
    """A Markdown table: `head` and each of `rows` are sequences of cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def linked(row, text):
    """`text` with a link to a notebook of the map; bare while that notebook is planned."""
    return f"[{text}]({row['no']}_{row['topic']}.ipynb)" if row["state"] == "ready" else text


# %% tags=["hide-input"]
course = read_table("course_map.csv")
notebook = {row["no"]: row for row in course}
rows = [(q["no"], q["en"], q["ru"], linked(notebook[q["notebook"]], q["notebook"]))
        for q in read_table("questions.csv")]
display(Markdown(markdown_table(("", "question", "по-русски", "notebook"), rows)))

# %% [markdown]
# ## 4. The map
#
# The first digit of a notebook is its part. Solid boxes exist, dotted ones are planned. To the right stands
# what needs more; solid arrows stay inside a part, dashed ones cross over. The left column needs nothing
# else: start at any solid box of it.

# %% tags=["hide-input"]
PARTS = {"0": "Orientation", "1": "Generative models", "2": "Language and dialogue",
         "3": "Sound", "4": "Recommenders", "5": "Experiments", "6": "Time series",
         "7": "Structure without labels", "8": "From notebook to service"}
needs = {row["no"]: row["needs"].split() for row in course}


def depth(needs, no):
    """Length of the longest chain of prerequisites of notebook `no`."""
    return max((depth(needs, before) + 1 for before in needs[no]), default=0)


# %% tags=["hide-input"]
def places(needs):
    """(column, row) of every notebook: its depth, a row of its part; a chain keeps its row."""
    cells, top = {}, 0
    for part, numbers in itertools.groupby(needs, key=lambda no: no[0]):
        for no in numbers:
            column = depth(needs, no)
            wished = next((cells[b][1] for b in needs[no] if b[0] == part), top)
            row = next(r for r in itertools.count(wished) if (column, r) not in cells.values())
            cells[no] = column, row
        top = 1 + max(row for _, row in cells.values())
    return cells


# %% tags=["hide-input"]
def draw_bands(ax, cells):
    """A shaded band with its name for every part."""
    for part, name in PARTS.items():
        rows = [y for no, (_, y) in cells.items() if no[0] == part]
        if int(part) % 2:
            ax.axhspan(min(rows) - 0.5, max(rows) + 0.5, color="#f0f0f0", zorder=0)
        ax.text(-0.55, sum(rows) / len(rows), textwrap.fill(f"{part} {name}", 16),
                ha="right", va="center", fontsize=9, fontweight="bold")


def draw_arrows(ax, needs, cells):
    """Solid inside a part; dashed from part to part, in the gaps between the boxes."""
    pairs = [(before, no) for no, some in needs.items() for before in some]
    crossing = sorted({before for before, no in pairs if before[0] != no[0]})
    for before, no in pairs:
        (x0, y0), (x1, y1) = cells[before], cells[no]
        start, color = (x0 + 0.4, y0), "black"
        if before[0] != no[0]:
            lane, color = 0.43 + 0.025 * (crossing.index(before) % 4), "#d1601f"
            y0, y1, start = y0 + 0.15, y1 - 0.15, (x1 - 1 + lane, y1 - 0.15)
            x = [x0 + 0.4, x0 + lane, x0 + lane, start[0], start[0]]
            y = [y0, y0, y1 - 0.35, y1 - 0.35, y1]
            ax.plot(x, y, "--", color=color, linewidth=1.2, zorder=1)
        ax.annotate("", (x1 - 0.4, y1), start, zorder=1, arrowprops=dict(
            arrowstyle="-|>", color=color, linewidth=1.2, shrinkA=0))

# %% tags=["hide-input"]
def draw_boxes(ax, course, cells):
    """A box with number and title for every notebook."""
    for row in course:
        (x, y), ready = cells[row["no"]], row["state"] == "ready"
        style = dict(facecolor="#dbe6f4" if ready else "white", linestyle="-" if ready else ":",
                     edgecolor="black", linewidth=1.6 if ready else 1.0)
        ax.add_patch(plt.Rectangle((x - 0.4, y - 0.36), 0.8, 0.72, zorder=2, **style))
        label = textwrap.fill(f"{row['no']} {row['title']}", 16)
        ax.text(x, y, label, ha="center", va="center", fontsize=9, zorder=3)


# %% tags=["hide-input"]
cells = places(needs)
deepest, last_row = (max(values) for values in zip(*cells.values()))
fig, ax = plt.subplots(figsize=(10, 10))
draw_bands(ax, cells)
draw_arrows(ax, needs, cells)
draw_boxes(ax, course, cells)
ax.set(xlim=(-1.5, deepest + 0.5), ylim=(last_row + 0.5, -0.5), yticks=[],
       xticks=range(deepest + 1),
       xlabel="length of the longest chain of prerequisites")
ax.grid(False)
ax.spines["left"].set_visible(False)
plt.show()

# %% [markdown]
# The same as a table, with links: "before" are the direct prerequisites, "exam" the questions that the
# notebook answers.

# %% tags=["hide-input"]
def part_table(course, part):
    """Markdown: the notebooks of one part."""
    head, rows = ("no", "notebook", "по-русски", "what it covers", "before", "exam"), []
    for row in [r for r in course if r["no"].startswith(part)]:
        title = linked(row, row["title"]) + ("" if row["state"] == "ready" else " *(planned)*")
        lists = [", ".join(row[column].split()) or "–" for column in ("needs", "exam")]
        rows.append((row["no"], title, row["ru"], row["what"], *lists))
    return f"**Part {part} · {PARTS[part]}**\n\n{markdown_table(head, rows)}"


display(Markdown("\n\n".join(part_table(course, part) for part in PARTS)))

# %% [markdown]
# To plan a path, ask for everything that a notebook rests on, in an order that works:

# %% tags=["hide-input"]
def reading_path(needs, no):
    """Numbers of all notebooks that `no` rests on, prerequisites first, then `no` itself."""
    path = []
    for before in needs[no]:
        path += [n for n in reading_path(needs, before) if n not in path]
    return [*path, no]


def show_path(no):
    """Print the reading path to a notebook."""
    path = [notebook[n] for n in reading_path(needs, no)]
    print("\n→ ".join(f"{row['no']} {row['title']}" + " (planned)" * (row["state"] != "ready")
                      for row in path))


show_path(TARGET)

# %% tags=["nbval-ignore-output"]
titles = [(f"{no} {row['title']}", no) for no, row in notebook.items()]
interact(show_path, no=Dropdown(options=titles, value=TARGET, description="notebook", **WIDE));

# %% [markdown]
# ## 5. How to study, and the commands
#
# For an exam, alone: (1) read the page once with the kernel running, following the **exam route** under its
# title if it has one; (2) write each numbered formula from memory, and look which check would catch your
# version; (3) solve the exercises, hints before solutions; (4) answer the exam questions on paper, in the
# language of your exam, then unfold the answer and mark yourself; (5) read *Where the notes slip* last:
# known errors of lecture notes, each refuted by a computation.
#
# To use the code, copy a function together with those that it calls, or load all of a page's without
# running it, in any notebook after its first cell:
# `from tests.book import book; als = book("43").definitions()["als"]`.
#
# | command | what happens |
# |---|---|
# | `make lab` | sets everything up the first time, copies the notebooks into `work/`, opens JupyterLab |
# | `make test` | reruns every ✓ and • of all pages, with the parameters as they are, and compares with what is stored; `make test NB=43`: one page |
# | `make fresh NB=43` | a fresh copy of one notebook in `work/`; yours stays under a dated name |
# | `make pdf NB=43` | prints a page into `build/pdf/`, every answer unfolded, nothing cut (needs Chromium) |
# | `make full NB=43` | runs a copy with full-size parameters and real data into `build/full/`; `ARGS="-p DATA ml-100k"` sets one by hand |
# | `make extras` | adds what single sections can do without: PySpark, for Spark in notebook 44 (500 MB, needs Java 17) |
# | `make help` | the others, which are for contributors |
#
# `test`, `pdf` and `full` work on the course's own pages, not on your copies in `work/`; `make full` also notes
# its figures in `notebooks/full.json`.
#
# | setting | meaning |
# |---|---|
# | `COURSE_DEVICE=cpu` | compute there (`cpu`, `cuda`, `cuda:1`, `mps`); unset: a GPU if there is one, else the CPU |
# | `COURSE_DATA=folder` | where real data sets lie, one subfolder each; looked into before any download |
# | `COURSE_REPO=address` | where a lone notebook, opened far from the course, fetches it (in a cell: `%env COURSE_REPO=address`) |
# | `TORCH_INDEX=address` | another package index for PyTorch, at the first `make lab` |
#
# Without `make` (on Windows, say), the [README](../README.md) gives the same in plain pip and conda lines.

# %% [markdown]
# ## 6. По-русски: с чего начать
#
# Тексты курса написаны по-английски, но готовиться к экзамену можно и по-русски: в разделе **Exam** каждой
# готовой лекции вопрос и ответ даны на двух языках (в лекциях 13, 16 и 42 русский ответ короче английского),
# 19 официальных вопросов приведены в таблице раздела 3 (номер без ссылки: лекция ещё не готова), термины
# собраны в словаре (раздел 9).
#
# 1. `make lab` открывает ваши копии тетрадей из папки `work/`; их можно смело портить: `make fresh NB=43`
#    вернёт исходную, а вашу сохранит под именем с датой.
# 2. **Shift+Enter** выполняет ячейку и переходит к следующей; *Run → Run All Cells* выполняет все ячейки,
#    *Run → Run All Above Selected Cell* — все ячейки выше выделенной; *Kernel → Interrupt Kernel* прерывает
#    слишком долгий расчёт.
# 3. `✓ (43.5)` — формула с этим номером совпала с результатом независимого вычисления; `•` — наблюдение на
#    данных; `○` — наблюдение, которое не подтверждается при изменённых вами параметрах; `…` — упражнение ждёт
#    вашего решения; `✗` — не сошлось: указано, где и насколько.
# 4. Порядок для каждой темы: формула → код → ✓ → упражнение → письменный ответ на экзаменационный вопрос →
#    раскрыть образец и оценить себя.
# 5. С чего начать: [41 Метрики ранжирования](41_ranking_metrics.ipynb) и
#    [43 Модели со скрытыми переменными](43_latent_factors.ipynb), если нужны рекомендации;
#    [13 Вариационный автокодировщик](13_vae.ipynb) и
#    [16 Нормализационные потоки](16_normalizing_flows.ipynb), если нужны порождающие модели.
# 6. `make pdf NB=43` сохраняет тетрадь курса (не вашу копию) в PDF с раскрытыми ответами: папка `build/pdf/`,
#    нужен Chromium.

# %% [markdown]
# ## 7. Is everything here? An environment report
#
# This section looks at your machine, so its output is not stored: run it to see it. It imports each package
# that pages use (of the tools it reads the version), and nothing stops if one is missing, too old or broken.

# %% tags=["hide-input"]
def wanted_packages(root):
    """{requirement: kind}: "course" what pages import, "optional" extras, "tools" the rest."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = itertools.chain(*project.get("optional-dependencies", {}).values())
    tools = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    kinds = [(project["dependencies"], "course"), (extras, "optional"), (tools, "tools")]
    wanted = {}
    for lines, kind in kinds:
        for line in (line.strip() for line in lines):
            if re.match(r"[A-Za-z0-9]", line):
                wanted.setdefault(line, kind)
    return wanted


def import_name(name):
    """The module that a distribution is imported by: scikit-learn gives sklearn."""
    known = {"scikit-learn": "sklearn", "scikit-image": "skimage", "pot": "ot",
             "pytorch-crf": "torchcrf", "python-crfsuite": "pycrfsuite", "faiss-cpu": "faiss"}
    return known.get(name.lower(), name.lower().replace("-", "_"))


# %% tags=["hide-input"]
GUARDED = ("works through the course's guard `get_torchaudio()`: its compiled part does not fit "
           "this torch. transforms, functional and datasets work; load, save, forced_align and "
           "rnnt_loss do not")
OPTIONAL = " (optional: only a section marked ☆ needs it)"

# %% tags=["hide-input"]
def older(version, wanted):
    """Whether a version ("2.12.1+cpu") lies below the wanted one ("2.2")."""
    def numbers(text):
        return [int(k) for k in re.findall(r"\d+", text.split("+")[0])] + [0] * 9
    return numbers(version)[:9] < numbers(wanted)[:9]


# %% tags=["hide-input"]
def state_of(requirement, kind):
    """(version, what importing it gave) of one requirement; the latter is "" if all is well."""
    name, wanted = re.match(r"([\w.-]+)(.*)", requirement).groups()
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "–", "**missing**" + (OPTIONAL if kind == "optional" else "")
    for sign, bound in re.findall(r"(>=|<)([\d.]+)", wanted):
        if older(version, bound) == (sign == ">="):
            said = f"**too {'old' if sign == '>=' else 'new'}**, wanted {wanted}"
            return version, said + (OPTIONAL if kind == "optional" else "")
    if kind == "tools":
        return version, ""
    try:
        get_torchaudio() if name == "torchaudio" else importlib.import_module(import_name(name))
    except Exception as error:          # broken in any way: say how
        said = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        return version, f"**cannot be imported**: {said}" + (OPTIONAL if kind == "optional" else "")
    guarded = name == "torchaudio" and not hasattr(sys.modules["torchaudio._extension"], "__file__")
    return version, GUARDED if guarded else ""


# %% tags=["hide-input"]
def verdict(states):
    """The last line of the report, from {requirement: what importing it gave}."""
    bad = [name for name, said in states.items() if "**" in said and OPTIONAL not in said]
    absent = [name for name, said in states.items() if OPTIONAL in said]
    if bad:
        return (f"Missing, too old or broken: {', '.join(bad)}. In the course's folder: make lab, "
                "or python -m pip install -r requirements.txt -c constraints.txt")
    guard = ("Every package can be used, torchaudio only through the guard: plain `import "
             "torchaudio` fails here." if GUARDED in states.values() else "Nothing is missing.")
    return guard + (f" Not here, optional: {', '.join(absent)}." if absent else "")


# %% tags=["hide-input"]
def memory_gb():
    """Physical memory in GB, or None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, OSError, ValueError):
        return None


def machine_rows():
    """Rows (what, value) about Python, the processor, the memory and the device."""
    memory, settings = memory_gb(), [k for k in ("COURSE_DEVICE", "COURSE_DATA") if k in os.environ]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return [("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
            ("processors, threads of torch", f"{os.cpu_count()}, {torch.get_num_threads()}"),
            ("memory", f"{memory:.1f} GB" if memory else "unknown"),
            ("device of this session", f"`{device}`"),
            ("GPU", f"{gpu}; CUDA of torch: {torch.version.cuda or 'none, a CPU build'}"),
            *((name, f"`{os.environ[name]}`") for name in settings)]


# %% tags=["hide-input"]
def data_rows():
    """Rows (real data set, where it is or how to get it); no file is downloaded by asking."""
    rows = []
    for name, source in data.SOURCES.items():
        folder = data.found(name)
        get = (f"not here: a notebook that asks for it downloads it from {source.urls[0]} into "
               f"`{data.places(name)[-1]}`")
        rows.append((f"`{name}`: {source.title}", f"found in `{folder}`" if folder else get))
    return rows


# %% tags=["nbval-ignore-output", "no-output"]
states = {line: state_of(line, kind) for line, kind in wanted_packages(data.DATA.parent).items()}
packages = [(f"`{line}`", *state) for line, state in states.items()]
for head, rows in [(("machine", ""), machine_rows()), (("wanted", "installed", ""), packages),
                   (("real data", ""), data_rows())]:
    display(Markdown(markdown_table(head, rows)))
print(verdict({line: said for line, (_, said) in states.items()}))

# %% [markdown]
# ## 8. The notation of the whole course
#
# Each page has its own table, under its title or in the cell below it; that table is the law there. Here are
# all of them in one, by letter. The field has more quantities than letters, so three rules are aimed at: a
# letter of the literature stays where it can; where two meanings would meet on one page, one takes an index,
# brackets or another letter; in code each has a word of its own. Where a page bends them, its table says so.
# In formulas indices start at 1, in code at 0.
#
# <details><summary>What holds unless a page's table says otherwise</summary>
#
# | usually | in code | meaning |
# |---|---|---|
# | $a,\ x$ (lower case) | `a, x` | a number or a vector; a vector is a column, of shape `(d,)` |
# | $A,\ P$ (upper case) | `A, P` | a matrix, one object per row: row $u$ of $P$ is $p_u^\top$ |
# | $\langle a,b\rangle=a^\top b$ | `a @ b` | dot product |
# | $a\odot b,\quad a*b$ | `a * b`, `conv` | product by elements; convolution |
# | $\lVert a\rVert,\ \lVert a\rVert_1,\ \lVert A\rVert_F$ | `norm` | Euclidean, sum of absolute values, Frobenius |
# | $[\,\text{condition}\,]$ | `(…).float()` | 1 if the condition holds, else 0 |
# | $\log$ | `log` | natural; another base is written: $\log_2$ in DCG, $\log_{10}$ in mel and dB |
# | $\sigma(a)=1/(1+e^{-a})$ | `sigmoid(a)` | logistic function, always with brackets |
# | $\mathbb E,\ \mathrm{Var}$ | `mean`, `var` | expectation, variance |
# | $\mathcal N(\mu,\sigma^2)$ | `mu + sigma * randn` | normal distribution; the second argument is the variance |
# | $\hat r,\ \hat\theta$ | `r_hat` | prediction, estimate |
# | $B,\ T,\ V$ | `B, T, V` | objects of a batch; steps of a sequence ($\top$ is the transpose); symbols of a vocabulary |
#
# </details>

# %% tags=["hide-input"]
notation = read_table("notation.csv")


def where(numbers):
    """Links to notebooks given as "11 43"."""
    return ", ".join(linked(notebook[no], no) for no in numbers.split())


def letter_table(rows):
    """Markdown: symbols with meaning and notebooks."""
    return markdown_table(("symbol", "meaning", "notebooks"), [
        (f"${row['symbol']}$", row["meaning"], where(row["notebooks"])) for row in rows])


def find_symbols(notation, query):
    """Rows filed under a letter (λ, lambda, R), of a notebook (43), or with a word of meaning."""
    query = query.strip().lstrip("\\")
    name = re.compile(rf"\\{re.escape(query)}(?![A-Za-z])")
    exact = [row for row in notation if query in (row["letter"], *row["notebooks"].split())
             or name.search(row["symbol"])]
    if exact or len(query) < 2:
        return exact
    return [row for row in notation if query.lower() in row["meaning"].lower()]


# %% tags=["hide-input"]
def show_symbols(query="λ"):
    """Display what a letter means, page by page."""
    rows = find_symbols(notation, query) if query.strip() else []
    display(Markdown(letter_table(rows) if rows else "Nothing. Try λ, lambda, R, 43, rating."))


show_symbols()

# %% tags=["nbval-ignore-output"]
interact(show_symbols, query=Text(value="τ", description="letter, word or number", **WIDE));

# %% tags=["hide-input"]
letters = itertools.groupby(notation, key=lambda row: row["letter"])
counts = sorted(((len({r["meaning"] for r in rows}), name) for name, rows in letters), reverse=True)
print("The busiest letters, with the number of their meanings:",
      ", ".join(f"{name} {count}" for count, name in counts[:12]))
display(Markdown(f"<details><summary>All {len(notation)} symbols by letter</summary>\n\n"
                 f"{letter_table(notation)}\n\n</details>"))

# %% [markdown]
# ## 9. Glossary English – Russian
#
# The terms of all parts, with the notebook that teaches each. The Russian is what exam papers use; where
# Russian speech keeps the English word, it stands in brackets. Search by words of either language, or by a
# notebook's number. Type the stem: градиент, not градиента.

# %% tags=["hide-input"]
glossary = read_table("glossary.csv")


def plain(text):
    """Text as it is compared: lower case, ё as е, dashes as hyphens."""
    return text.lower().replace("ё", "е").replace("–", "-").replace("—", "-")


def find_terms(glossary, query):
    """The rows of the glossary that contain every word of `query`; all rows for an empty query."""
    return [term for term in glossary
            if all(word == term["notebook"] or word in plain(f"{term['en']} {term['ru']}")
                   for word in plain(query).split())]


def term_table(terms):
    """Markdown table of glossary rows; the notebook is a link where it exists."""
    return markdown_table(("English", "по-русски", "notebook"), [
        (term["en"], term["ru"], where(term["notebook"])) for term in terms])


# %% tags=["hide-input"]
def show_terms(query="градиент"):
    """Display the first 40 terms that match."""
    terms = find_terms(glossary, query)
    cut = ", the first 40:" if len(terms) > 40 else ""
    display(Markdown(f"{len(terms)} of {len(glossary)} terms{cut}\n\n{term_table(terms[:40])}"))


show_terms()

# %% tags=["nbval-ignore-output"]
interact(show_terms, query=Text(value="43", description="word or number", **WIDE));

# %% tags=["hide-input"]
by_part = {part: [term for term in glossary if term["part"] == part] for part in PARTS}
tables = [f"**Part {part} · {PARTS[part]}**\n\n{term_table(by_part[part])}" for part in PARTS]
folded = ["<details><summary>All terms by part</summary>", *tables, "</details>"]
display(Markdown("\n\n".join(folded)))

# %% [markdown]
# That is all a page needs from you. Next: one of the routes at the top.
#
# <!-- navigation -->
# next: [11 Style transfer](11_style_transfer.ipynb)
# <!-- /navigation -->
