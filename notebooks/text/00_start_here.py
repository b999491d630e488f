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
# What is in this course, in which order can it be read, and how does a page of it prove what it says? This notebook is
# the map, the manual and the dictionary of all the others.
#
# **You will be able to**
#
# - choose where to start and see what has to be read before any notebook;
# - read the loop that every notebook repeats: formula → code → ✓, and tell a proof from a picture;
# - use sliders, exercises, exam questions and solutions, and know what their messages mean;
# - run the course on your machine, on a GPU, on real data, or as one long regression test;
# - look up any symbol of the course and any term in English or Russian.
#
# **Prerequisites** Python, linear algebra, calculus and probability of a second year.
#
# **Time** 5 s on 2 CPU cores · **Memory** 0.4 GB · **Data** two small tables, bundled · **Exam questions** – · [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)

# %% [markdown]
# ## Notation
#
# Every notebook opens with such a table. The notation of the whole course stands in section 5.
#
# | symbol | in code | shape, unit or range |
# |---|---|---|
# | $x_1,\dots,x_n$ | `x` | `(…, n)`, $n\ge1$ observations, in the unit of $x$ |
# | $\mu,\ \sigma$ | `mu, sigma` | mean and standard deviation of one observation, unit of $x$; $\sigma\ge0$ |
# | $\lambda$ | `lam` | weight of the penalty, $\lambda\ge0$, no unit |
# | $m$ | `m` | candidate for the answer, unit of $x$ |
# | $J(m)$ | `objective` | the sum that is minimised, unit of $x$ squared |
# | $\hat m$ | `shrunken_mean(x, lam)` | `(…,)`, the minimiser, unit of $x$ |
#
# The setup cell is the same in every notebook: it finds the course (or fetches it, for a lone notebook), then seeds the
# generators, picks the device and sets the figure style.

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
# The topic's own imports follow.

# %%
import csv
import importlib.metadata
import itertools
import platform
import re
import textwrap
import tomllib

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from ipywidgets import Dropdown, FloatSlider, IntSlider, Text, interact
from scipy.optimize import minimize_scalar

from helpers import CheckFailed

# %% [markdown]
# Sizes and switches of a notebook stand in one cell, small enough for two CPU cores. `make full` replaces them.

# %% tags=["parameters"]
LAM = 4.0           # weight of the penalty in the live example, > 0
N = 5               # its observations, at most 15 (all 2**N samples are listed once)
MU = 0.8            # their mean …
SIGMA = 1.6         # … and standard deviation
DRAWS = 200_000     # simulated samples
TARGET = "48"       # the notebook whose reading path is shown

# %% [markdown]
# ## 1. The map
#
# The first digit of a notebook is its part. Parts can be read in any order; inside a part, and in a few places between
# parts, one notebook needs another.

# %%
PARTS = {"0": "Orientation", "1": "Generative models", "2": "Language and dialogue",
         "3": "Sound", "4": "Recommenders", "5": "Experiments", "6": "Time series",
         "7": "Structure without labels", "8": "From notebook to service"}

# %% [markdown]
# The map itself is data, one row per notebook in `data/course_map.csv`; the tables, the figure and the links below are
# drawn from it.

# %%
def read_table(name):
    """Rows of a CSV file of the course's data folder, as a list of dicts of strings."""
    with open(data.DATA / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# %% [markdown]
# `needs` keeps what the figure and the reading paths use: for each notebook the numbers of those to read before it.

# %%
course = read_table("course_map.csv")
needs = {row["no"]: row["needs"].split() for row in course}

# %% [markdown]
# Tables are written as Markdown, so that links and formulas in them work.

# %%
def markdown_table(head, rows):
    """A Markdown table: `head` and each of `rows` are sequences of cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


# %% [markdown]
# A title is a link where the notebook exists.

# %%
def linked(row, text):
    """`text` with a link to a notebook of the map; bare while that notebook is planned."""
    return f"[{text}]({row['no']}_{row['topic']}.ipynb)" if row["state"] == "ready" else text


# %% [markdown]
# "Read before" names the direct prerequisites, "exam" the exam questions that the notebook answers.

# %%
def part_table(course, part):
    """Markdown: the notebooks of one part."""
    head, rows = ("no", "notebook", "what it covers", "read before", "exam"), []
    for row in [r for r in course if r["no"].startswith(part)]:
        title = linked(row, row["title"]) + ("" if row["state"] == "ready" else " *(planned)*")
        lists = [", ".join(row[column].split()) or "–" for column in ("needs", "exam")]
        rows.append((row["no"], title, row["what"], *lists))
    return f"**Part {part} · {PARTS[part]}**\n\n{markdown_table(head, rows)}"


# %% [markdown]
# Here is the whole course; what says *planned* does not exist yet.

# %%
display(Markdown("\n\n".join(part_table(course, part) for part in PARTS)))

# %% [markdown]
# Each of the 91 exam questions belongs to exactly one notebook:

# %%
asked = sorted(int(q) for row in course for q in row["exam"].split())
print(len(asked), "questions, each in one notebook:", asked == list(range(1, 92)))

# %% [markdown]
# ### What depends on what
#
# A notebook without prerequisites has depth 0, any other stands one deeper than the deepest notebook that it needs. The
# figure puts the depth on the horizontal axis and gives each part a band of rows.

# %%
def depth(needs, no):
    """How many notebooks have to be read one after the other before notebook `no`."""
    return max((depth(needs, before) + 1 for before in needs[no]), default=0)


# %% [markdown]
# In its column, a notebook takes the row of the prerequisite that it continues, or else the next free row of its part.

# %%
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


# %% [markdown]
# Solid boxes exist, dotted ones are planned.

# %%
def draw_boxes(ax, course, cells):
    """A box with number and title for every notebook."""
    for row in course:
        x, y = cells[row["no"]]
        ready = row["state"] == "ready"
        style = dict(facecolor="#dbe6f4" if ready else "white", linestyle="-" if ready else ":",
                     edgecolor="black", linewidth=1.6 if ready else 1.0)
        ax.add_patch(plt.Rectangle((x - 0.4, y - 0.36), 0.8, 0.72, zorder=2, **style))
        label = textwrap.fill(f"{row['no']} {row['title']}", 16)
        ax.text(x, y, label, ha="center", va="center", fontsize=9, zorder=3)


# %% [markdown]
# Solid arrows stay inside a part, dashed ones cross from one part to another.

# %%
def draw_arrows(ax, needs, cells):
    """An arrow from each prerequisite to the notebook that needs it."""
    for before, no in [(b, no) for no, some in needs.items() for b in some]:
        (x0, y0), (x1, y1) = cells[before], cells[no]
        same = no[0] == before[0]
        ax.annotate("", (x1 - 0.4, y1), (x0 + 0.4, y0), zorder=1, arrowprops=dict(
            arrowstyle="-|>", color="black" if same else "#d1601f",
            linestyle="-" if same else "--", linewidth=1.2))


# %% [markdown]
# Each part has a band with its name.

# %%
def draw_bands(ax, cells):
    """A shaded band with its name for every part."""
    for part, name in PARTS.items():
        rows = [y for no, (_, y) in cells.items() if no[0] == part]
        if int(part) % 2:
            ax.axhspan(min(rows) - 0.5, max(rows) + 0.5, color="#f0f0f0", zorder=0)
        ax.text(-0.55, sum(rows) / len(rows), textwrap.fill(f"{part} {name}", 16),
                ha="right", va="center", fontsize=9, fontweight="bold")


# %% [markdown]
# The size of the figure follows from the data:

# %%
cells = places(needs)
deepest, last_row = (max(values) for values in zip(*cells.values()))
print(f"{len(cells)} notebooks, depth 0 to {deepest}, {last_row + 1} rows")

# %% [markdown]
# Bands first, boxes on top:

# %%
fig, ax = plt.subplots(figsize=(10, 10))
draw_bands(ax, cells)
draw_arrows(ax, needs, cells)
draw_boxes(ax, course, cells)
ax.set(xlim=(-1.5, deepest + 0.5), ylim=(last_row + 0.5, -0.5), yticks=[],
       xticks=range(deepest + 1),
       xlabel="depth: how many notebooks have to be read one after the other before this one")
ax.grid(False)
ax.spines["left"].set_visible(False)
plt.show()

# %% [markdown]
# The left column needs nothing else: start there, wherever you like. The deepest notebook is 48, the recommender pipeline;
# sound borrows attention from language (22) and adversarial training from the generative models (14).
#
# To plan a path, ask for everything that a notebook rests on, in an order that works:

# %%
def reading_path(needs, no):
    """Numbers of all notebooks that `no` rests on, prerequisites first, then `no` itself."""
    path = []
    for before in needs[no]:
        path += [n for n in reading_path(needs, before) if n not in path]
    return [*path, no]


# %% [markdown]
# With titles:

# %%
def show_path(no):
    """Print the reading path to a notebook."""
    title = {row["no"]: row["title"] for row in course}
    print("\n→ ".join(f"{n} {title[n]}" for n in reading_path(needs, no)))


# %% [markdown]
# For the notebook named in the parameters cell:

# %%
show_path(TARGET)

# %% [markdown]
# Choose any other (this needs a running kernel, as every control does):

# %% tags=["nbval-ignore-output"]
titles = [(f"{row['no']} {row['title']}", row["no"]) for row in course]
interact(show_path, no=Dropdown(options=titles, value=TARGET, description="notebook"));

# %% [markdown]
# ## 2. How a notebook works
#
# Every section of every notebook runs through one loop: a question, a derivation that ends in a **numbered formula**, the
# same formula as **code** with the same symbols, and a **check** of the code against something that was not derived
# from it. Here is the loop on the smallest example that has all of it; it is also the seed of notebook 43.
#
# ### From a question to a formula
#
# *Five people rated a film. What is the best guess of its true mean rating?* The average is a natural answer, but with so
# few ratings it is noisy. Let us pull it towards 0 (say, towards the mean of all films, after subtracting that mean) by
# a penalty with weight $\lambda\ge0$:
#
# $$J(m)=\sum_{t=1}^n(x_t-m)^2+\lambda m^2\;\to\;\min_m .$$
#
# The derivative is $J'(m)=-2\sum_t(x_t-m)+2\lambda m=2(n+\lambda)m-2\sum_tx_t$. Its only zero is
#
# $$\hat m=\frac{\sum_{t=1}^nx_t}{n+\lambda}, \tag{00.1}$$
#
# and $J''=2(n+\lambda)>0$, so it is the minimum.
#
# ### From the formula to code
#
# The code keeps the symbols of the formula; comments give shapes; wrong input is refused with a sentence that says what to do.

# %%
def shrunken_mean(x, lam):
    """The minimiser of Σ(x_t − m)² + λm², eq. (00.1): x (..., n) -> (...,).
    ValueError if there are no observations or lam < 0."""
    if x.shape[-1] == 0 or lam < 0:
        raise ValueError(f"give at least one observation and lam >= 0, not {x.shape[-1]}, {lam}")
    return x.sum(-1) / (x.shape[-1] + lam)


# %% [markdown]
# Two inputs that have no answer:

# %%
for values, lam in [(torch.empty(3, 0), 1.0), (torch.ones(3), -1.0)]:
    try:
        shrunken_mean(values, lam)
    except ValueError as problem:
        print(problem)

# %% [markdown]
# ### From code to ✓
#
# The function `check(number, claim, ours, reference)` compares two results of different origin and prints one line. Random
# inputs are drawn on the CPU and then moved, so that they are the same on any device.

# %%
generator = torch.Generator().manual_seed(0)
x = (MU + SIGMA * torch.randn(N, generator=generator, dtype=torch.float64)).to(device)

# %% [markdown]
# The reference must know $J$ and nothing else:

# %%
def objective(m):
    """J(m), the sum that (00.1) minimises; m a number or a 0-d tensor."""
    return ((x - m) ** 2).sum() + LAM * m**2


# %% [markdown]
# A numerical optimiser searches for its minimum, and `check` compares what it finds with the formula:

# %%
best = minimize_scalar(lambda m: float(objective(m)))
check("00.1", "the closed form is the minimum that Brent's method finds",
      shrunken_mean(x, LAM), best.x, atol=1e-6)

# %% [markdown]
# The same claim to the last digits: at the minimum, automatic differentiation finds a slope of zero. And a special case that
# everyone knows:

# %%
m = shrunken_mean(x, LAM).requires_grad_()
slope, = torch.autograd.grad(objective(m), m)
check("00.1", "the slope of J at the closed form is zero", slope, 0.0, atol=1e-12)
check("00.1", "without a penalty it is the average", shrunken_mean(x, 0.0), x.mean(), rtol=1e-14)

# %% [markdown]
# A line with ✓ in the stored output means: this claim was recomputed when the notebook was last run, and `make test`
# recomputes it. A claim without ✓ is an opinion.
#
# ### Is the formula any good?
#
# A second formula says what the penalty buys. Let the $x_t$ be independent with mean $\mu$ and variance $\sigma^2$. Then
# $\mathbb E\hat m=\frac{n\mu}{n+\lambda}$, which is off by $-\frac{\lambda\mu}{n+\lambda}$, and
# $\mathrm{Var}\,\hat m=\frac{n\sigma^2}{(n+\lambda)^2}$. The mean squared error is the sum of the squared bias and the variance:
#
# $$\mathbb E(\hat m-\mu)^2=\underbrace{\frac{\lambda^2\mu^2}{(n+\lambda)^2}}_{\text{bias}^2}
# +\underbrace{\frac{n\sigma^2}{(n+\lambda)^2}}_{\text{variance}}. \tag{00.2}$$

# %%
def bias2_and_variance(lam, n, mu, sigma):
    """The two terms of eq. (00.2), both in the unit of x squared; lam may be an array."""
    return (lam * mu / (n + lam)) ** 2, n * sigma**2 / (n + lam) ** 2


# %% [markdown]
# Where all cases can be listed, they are: let $x_t$ be $\mu-\sigma$ or $\mu+\sigma$ with probability ½, which has the right
# mean and variance. All $2^n$ samples give the two terms exactly.

# %%
signs = list(itertools.product([-1.0, 1.0], repeat=N))          # 2**N samples of N values
every = MU + SIGMA * torch.tensor(signs, dtype=torch.float64, device=device)
every = shrunken_mean(every, LAM)                               # (2**N,)
listed = torch.stack([(every.mean() - MU) ** 2, every.var(unbiased=False)])
check("00.2", "bias² and variance by listing all samples", bias2_and_variance(LAM, N, MU, SIGMA),
      listed, atol=1e-12)

# %% [markdown]
# Where they cannot be listed, a simulation decides.

# %%
samples = MU + SIGMA * torch.randn(DRAWS, N, generator=generator, dtype=torch.float64).to(device)
errors = (shrunken_mean(samples, LAM) - MU) ** 2                # (DRAWS,)

# %% [markdown]
# Its claim comes with a z-score, the distance between simulation and formula in standard errors. A band that the trivial
# answer passes too would prove nothing, so the check also demands that $\sigma^2/n$, the error of the plain average, is far
# outside.

# %%
standard_error = errors.std() / DRAWS**0.5
z = (errors.mean() - sum(bias2_and_variance(LAM, N, MU, SIGMA))) / standard_error
z_trivial = (errors.mean() - SIGMA**2 / N) / standard_error
check("00.2", "simulated error of normal samples: |z| < 4, and |z| > 20 for the plain average",
      bool(abs(z) < 4 and abs(z_trivial) > 20))

# %% [markdown]
# ### Try it: controls
#
# Each notebook has at least one slider on a quantity of a formula. The drawing function is called once, so that the page can
# be read without a kernel; the cell after it adds the control.

# %%
def draw_error(lam=LAM, n=N):
    """The terms of eq. (00.2) over lambda, and a dot at the chosen one."""
    grid = np.linspace(0, 20, 201)
    bias2, variance = bias2_and_variance(grid, n, MU, SIGMA)
    fig, ax = plt.subplots()
    for curve, label in [(bias2, "bias²"), (variance, "variance"), (bias2 + variance, "sum")]:
        ax.plot(grid, curve, label=label)
    ax.plot(lam, sum(bias2_and_variance(lam, n, MU, SIGMA)), "ko")
    ax.set(xlabel=r"$\lambda$", ylabel="squared error, unit of $x^2$", ylim=(0, None),
           title=f"n = {n}, λ = {lam:.1f}")
    ax.legend()
    plt.show()


# %% [markdown]
# With the parameters above:

# %%
draw_error()

# %% [markdown]
# A little bias removes a lot of variance: at $\lambda=\sigma^2/\mu^2=4$ the sum is a little more than half of what it is
# at $\lambda=0$. Move the sliders: with more observations the best $\lambda$ stays where it is, but matters less.

# %% tags=["nbval-ignore-output"]
interact(draw_error, lam=FloatSlider(value=LAM, min=0, max=20, step=0.5),
         n=IntSlider(value=N, min=1, max=50));

# %% [markdown]
# ### When a check fails
#
# A failed check stops the notebook with the claim, the largest error, where it is and both values there. Three slips, caught
# here so that the page goes on: $\lambda$ forgotten, a result that is not a number, a sum left out.

# %%
three = torch.tensor([2.0, 4.0, 9.0], dtype=torch.float64)
for wrong in (three.mean(), three.sum() * float("nan"), three / 5):
    try:
        check("00.1", "a slip", wrong, shrunken_mean(three, 2.0))
    except CheckFailed as problem:
        print(problem, "\n")

# %% [markdown]
# NaN never passes and shapes must agree: the second and the third slip are refused where a sloppy comparison would let them
# through. An inequality is checked as a condition, `check("00.2", claim, a < b)`.

# %% [markdown]
# ### Exercise 00.A · A mean with weights
#
# Exercises look like this one. Some ratings deserve more trust. Find the minimiser of
# $\sum_tw_t(x_t-m)^2+\lambda m^2$ for weights $w_t>0$, and write it as a function of `x` `(n,)`, `w` `(n,)` and `lam`.
#
# <details><summary>Hint</summary>
#
# Differentiate as above. What plays the part of $n$ now?
#
# </details>

# %%
def weighted_mean(x, w, lam):
    """The minimiser of Σ w_t (x_t − m)² + λm²."""
    raise NotImplementedError


# %% [markdown]
# The answers that yours is compared with come from elsewhere: least squares with one extra row, $\sqrt\lambda\,m\approx0$.

# %%
def by_least_squares(x, w, lam):
    """The same minimiser from numpy's least squares."""
    root = np.sqrt([*w, lam])                                   # (n + 1,)
    solution = np.linalg.lstsq(root[:, None], root * [*x, 0.0], rcond=None)[0]
    return float(solution[0].round(9))


# %% [markdown]
# Fill in the stub, run it, then run this cell. It prints one line.

# %% tags=["nbval-ignore-output"]
arguments = [((2.0, 4.0, 9.0), (1.0, 1.0, 2.0), 1.0), ((-1.0, 5.0), (0.5, 3.0), 0.0),
             ((7.0,), (2.0,), 5.0)]
arguments = [(np.array(x), np.array(w), lam) for x, w, lam in arguments]
cases = [(case, by_least_squares(*case)) for case in arguments]
exercise("00.A", weighted_mean, cases)

# %% [markdown]
# <details><summary>Solution 00.A</summary>
#
# The derivative $-2\sum_tw_t(x_t-m)+2\lambda m$ vanishes at $m=\sum_tw_tx_t\,/\,(\sum_tw_t+\lambda)$: the sum of the weights
# takes the part of $n$.
#
# ```python
# def weighted_mean(x, w, lam):
#     """The minimiser of Σ w_t (x_t − m)² + λm²."""
#     return (w * x).sum() / (w.sum() + lam)
# ```
#
# </details>

# %% [markdown]
# The line is one of four. *Yours to write* stands above until you have filled in the stub. A wrong value is shown with the
# first case in which it fails:

# %% tags=["nbval-ignore-output"]
def forgets_weights(x, w, lam):
    """Wrong: divides by n + λ."""
    return float((w * x).sum() / (len(x) + lam))


exercise("00.A", forgets_weights, cases)

# %% [markdown]
# An error inside your function becomes one line too:

# %% tags=["nbval-ignore-output"]
def forgets_brackets(x, w, lam):
    """Wrong: w.sum is never called."""
    return (w * x).sum() / (w.sum + lam)


exercise("00.A", forgets_brackets, cases)

# %% [markdown]
# And the fourth line is the one you want:

# %% tags=["nbval-ignore-output"]
def solved(x, w, lam):
    """Right."""
    return (w * x).sum() / (w.sum() + lam)


exercise("00.A", solved, cases)

# %% [markdown]
# ### Exam questions
#
# They stand near the end of a notebook, one cell each: the question in English, the same as a Russian exam would put it, and,
# folded away until you have answered aloud or on paper, a model answer worth full marks, a short one in Russian, and the
# mistake that costs most. This one is a sample:
#
# > **Question (sample)** · Derive the penalised mean and say what the penalty costs and what it buys.
# >
# > **По-русски.** Выведите оценку среднего с квадратичным штрафом. Чем мы платим за штраф и что выигрываем?
#
# <details><summary>Model answer</summary>
#
# Minimise $J(m)=\sum_t(x_t-m)^2+\lambda m^2$: $J'(m)=2(n+\lambda)m-2\sum_tx_t=0$ gives
# $\hat m=\sum_tx_t/(n+\lambda)$ (00.1), a minimum since $J''=2(n+\lambda)>0$. The price is the bias
# $-\lambda\mu/(n+\lambda)$, the gain is a variance of $n\sigma^2/(n+\lambda)^2$ instead of $\sigma^2/n$. The mean squared error
# (00.2), as a function of $\lambda$, has the derivative $2n(\lambda\mu^2-\sigma^2)/(n+\lambda)^3$: it is least at
# $\lambda=\sigma^2/\mu^2$.
#
# **Кратко по-русски.** $\hat m=\sum_tx_t/(n+\lambda)$. Штраф вносит смещение $-\lambda\mu/(n+\lambda)$, но уменьшает дисперсию;
# среднеквадратичная ошибка минимальна при $\lambda=\sigma^2/\mu^2$.
#
# **Typical mistake.** Dividing by $n$ and shrinking afterwards by $1-\lambda$: this is negative for $\lambda>1$.
#
# </details>

# %% [markdown]
# ### Where the notes slip, what it costs
#
# Two more sections are found in every lecture notebook. *Where the notes slip* takes each known error of the lecture notes,
# refutes it in a cell and gives the right statement. *What it costs* derives the running time, measures it, and compares
# the code of the page with the library that a practitioner would use.

# %% [markdown]
# ## 3. How to study with it
#
# | you want to | do this |
# |---|---|
# | **read** | open a notebook and read from the top: all outputs are stored, nothing has to be run |
# | **run and change** | `make lab` opens your own copies in `work/`: move sliders, break a formula, watch its check fail |
# | **learn for an exam, alone** | see the five steps below |
# | **use the code** | copy it: each public function stands alone, gives its shapes and refuses bad input |
# | **trust it** | `make test` recomputes every claim of every notebook on your machine |
#
# For an exam: (1) read the notebook once with the kernel running; (2) write each numbered formula from memory and look which
# check would catch your version; (3) solve the exercises from A on, hints before solutions; (4) answer the exam questions on
# paper, in the language of your exam, then unfold the answer and mark yourself; (5) read *Where the notes slip* last.
#
# | command | what happens |
# |---|---|
# | `make lab` | sets everything up the first time, copies the notebooks into `work/`, opens JupyterLab there |
# | `make test` | the course as a regression suite: style, helpers, every notebook run and compared with its page |
# | `make run NB=43` | runs one notebook and stores its outputs |
# | `make full NB=43` | runs a copy with full-size parameters and real data into `build/full/` |
# | `make help` | the other commands |
#
# A copy in `work/` that you have changed is never overwritten. `make full NB=43 ARGS="-p DATA ml-100k"` sets parameters by hand.
#
# | setting | meaning |
# |---|---|
# | `COURSE_DEVICE=cpu` | compute there (`cpu`, `cuda`, `cuda:1`, `mps`); unset: a GPU if there is one, else the CPU |
# | `COURSE_DATA=folder` | where real data sets lie, one subfolder each; looked into before any download |
# | `COURSE_REPO=address` | where a lone notebook, opened far from the course, fetches the course from |
# | `TORCH_INDEX=address` | the package index of PyTorch, for the first `make lab` (below) |
#
# On Linux without a GPU, `TORCH_INDEX=https://download.pytorch.org/whl/cpu make lab` takes PyTorch's small CPU build.
# Without `make` (on Windows, say), the [README](../README.md) gives the same in plain pip and conda lines.

# %% [markdown]
# ## 4. Is everything here? An environment report
#
# This section looks at your machine, so its output is not stored: run it to see it. Nothing here stops if something is missing.

# %%
def version_of(name):
    """The version of an installed distribution, or None; nothing is imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# %% [markdown]
# What is wanted is read from the files that the installation uses:

# %%
def wanted_packages(root):
    """What the course asks for, {distribution: requirement}: requirements.txt and all extras."""
    read = {name: (root / name).read_text(encoding="utf-8") if (root / name).exists() else ""
            for name in ("requirements.txt", "pyproject.toml")}
    project = tomllib.loads(read["pyproject.toml"]).get("project", {})
    lines = read["requirements.txt"].splitlines()
    lines += itertools.chain(*project.get("optional-dependencies", {}).values())
    names = [re.match(r"[A-Za-z0-9][\w.-]*", line) for line in lines]
    return {name[0]: line.strip() for name, line in zip(names, lines) if name}


# %% [markdown]
# The machine:

# %%
def memory_gb():
    """Physical memory in GB, or None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, OSError, ValueError):
        return None


# %% [markdown]
# The device is the one that `get_device()` chose in the setup cell.

# %%
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


# %% [markdown]
# And real data: where each set was found, or how to get it. No file is downloaded by asking.

# %%
def data_rows():
    """Rows (data set, where it is or how to get it) of all real data sets that the course knows."""
    rows = []
    for name, source in data.SOURCES.items():
        folder, files = data.found(name), list(source.checksums)
        some = ", ".join(files) if len(files) <= 5 else f"its {len(files)} files"
        get = (f"not here. A notebook that asks for it downloads it; by hand: "
               f"put {some} from {source.urls[0]} into `{data.places(name)[0]}`")
        rows.append((f"`{name}`: {source.title}", f"found in `{folder}`" if folder else get))
    return rows


# %% [markdown]
# Run this cell for the report:

# %% tags=["nbval-ignore-output", "no-output"]
wanted = wanted_packages(data.DATA.parent)
packages = [(f"`{line}`", version_of(name) or "**missing**") for name, line in wanted.items()]
for head, rows in [(("machine", ""), machine_rows()), (("wanted", "installed"), packages),
                   (("real data", ""), data_rows())]:
    display(Markdown(markdown_table(head, rows)))
absent = [name for name in wanted if not version_of(name)]
print("Nothing is missing." if not absent else f"Missing: {', '.join(absent)}. In the course's "
      "folder: make lab, or python -m pip install -r requirements.txt")

# %% [markdown]
# ## 5. The notation of the whole course
#
# One notation for all notebooks; the table at the top of each repeats what it uses and adds the names in code. In formulas,
# indices start at 1; in code, at 0.
#
# | everywhere | in code | meaning |
# |---|---|---|
# | $a,\ x$ (lower case) | `a, x` | a number or a vector; a vector is a column, of shape `(d,)` |
# | $A,\ P$ (upper case) | `A, P` | a matrix, one object per row: row $u$ of $P$ is $p_u^\top$ |
# | $\langle a,b\rangle=a^\top b$ | `a @ b` | dot product |
# | $a\odot b,\quad a*b$ | `a * b`, `conv` | product by elements; convolution |
# | $\lVert a\rVert,\ \lVert a\rVert_1,\ \lVert A\rVert_F$ | `norm` | Euclidean, sum of absolute values, Frobenius |
# | $[\,\text{condition}\,]$ | `(…).float()` | 1 if the condition holds, else 0 |
# | $\log$ | `log` | natural; another base is written: $\log_2$ in DCG, $\log_{10}$ in mel and dB |
# | $\sigma(a)=1/(1+e^{-a})$ | `sigmoid(a)` | logistic function |
# | $p(\cdot),\ q(\cdot)$ | `log_prob` | density or probability; approximation of it |
# | $\mathbb E,\ \mathrm{Var}$ | `mean`, `var` | expectation, variance |
# | $\mathcal N(\mu,\sigma^2)$ | `mu + sigma * randn` | normal law; the second argument is the variance |
# | $\hat r,\ \hat\theta$ | `r_hat` | prediction, estimate |
# | $\theta,\ \eta$ | `theta, lr` | parameters of a model; length of a gradient step |
# | $\varepsilon$ | `eps` | noise, standard normal unless said otherwise |
#
# | dimension | what it counts | where |
# |---|---|---|
# | $n$ | objects of a sample; candidates of one user; users | everywhere; 41; 43 |
# | $N,\ m$ | observed ratings, items | 43 |
# | $B$ | objects of a batch | everywhere |
# | $T$ | steps of a sequence, frames or samples in time | parts 2, 3, 6 |
# | $D$ | coordinates of an observed object (in the code of flows: argument `d`) | 13–16 |
# | $d$ | coordinates of a latent vector or embedding; features | 13, part 4; 71, 72 |
# | $C,\ H,\ W$ | channels, height and width of an image or feature map | 11, 12 |
# | $K$ | labels, clusters, components; importance samples; layers of a flow | 21, 23, 71; 13; 16 |
# | $k$ | length of a list of recommendations; number of neighbours | 41, 48; 42, 74 |
# | $V$ | symbols of a vocabulary | parts 2, 3 |
# | $L$ | layers | parts 1–4 |

# %% [markdown]
# ### Part 1 · Generative models
#
# | symbol | meaning | shape | where |
# |---|---|---|---|
# | $A^l_{ij}$ | response of channel $i$ at position $j$ in layer $l$ for image $A$ | `(C, H, W)`, flattened `(C, H·W)` | 11, 12 |
# | $G^l(A)=A^lA^{l\top}$ | Gram matrix | `(C, C)` | 11 |
# | $C,\ S,\ X$ | content, style and output image | `(3, H, W)` | 11 |
# | $\alpha,\ \beta,\ w_l$ | weight of content, of style, of a layer's style | numbers | 11 |
# | $x,\ z$ | observed object, its latent code | `(B, D)`, `(B, d)` | 13–15 |
# | $\mu,\ \log\sigma^2$ | what the encoder puts out | `(B, d)` each, `mu, logvar` | 13 |
# | $q(z\mid x),\ p(x\mid z)$ | encoder, decoder | | 13 |
# | $D(x)=\sigma(a),\ G(z)$ | discriminator (probability of "real", with logit $a$), generator | `(B,)`, `(B, D)` | 14, 15 |
# | $p_d,\ p_g$ | density of the data, of the generator | | 14, 15 |
# | $f$ in $\mathbb E_Pf-\mathbb E_Qf$; $\gamma$ | critic; transport plan | `(B,)`; `(n, n)` | 15 |
# | $z=f(x)$ | flow; here $z$ has as many coordinates as $x$ | `(B, D)` both | 16 |
# | $\log\lvert\det\partial f/\partial x\rvert$ | log-determinant | `(B,)`, `logdet` | 16 |
# | $s,\ t$ or $s_k,\ \mu_k$ | log-scale and shift of an affine layer | `(B, D−d)` or `(B, D)` | 16 |
#
# ### Part 2 · Language and dialogue
#
# | symbol | meaning | shape | where |
# |---|---|---|---|
# | $x_{1:T},\ y_{1:T}$ | tokens, their labels | `(B, T)` | 21, 23 |
# | $e_t(j),\ A_{ij}$ | score of label $j$ at step $t$; of the transition $i\to j$ | `(B, T, K)`, `(K, K)` | 21 |
# | $Z(x)$ | partition function | `(B,)`, as a logarithm | 21 |
# | $\alpha_t(j),\ \delta_t(j)$ | log-sum and maximum over all beginnings that end in $j$ | `(B, K)` | 21 |
# | $h_j,\ s_i$ | state of the encoder, of the decoder | `(B, T, d)` | 22 |
# | $e_{ij},\ \alpha_{ij},\ c_i$ | attention score, weight, context | `(B, T, T)`, `(B, d)` | 22 |
# | $k_l,\ d_l,\ R$ | kernel size, dilation, receptive field | numbers, in steps | 22 |
# | $\mathrm{sim}(c,r)$ | fit of a reply $r$ to a context $c$ | `(B,)` | 23 |
# | $Q,\ K,\ V,\ d_k$ | queries, keys, values of a transformer, width of a head | `(B, heads, T, d_k)` | 24 |
# | $p_s(i),\ p_e(j),\ M$ | probability that the answer starts, ends there; longest distance | `(B, T)` | 24 |

# %% [markdown]
# ### Part 3 · Sound
#
# | symbol | meaning | shape, unit | where |
# |---|---|---|---|
# | $x[n],\ f_s$ | signal, sampling rate | `(samples,)` in $[-1,1]$; Hz | 31 |
# | $\Delta,\ b$ | step of the quantiser, bits per sample | | 31 |
# | $N,\ H,\ w$ | length of a frame, hop, window | samples; `(N,)` | 31 |
# | $X[k,r],\ P=\lvert X\rvert^2$ | STFT at frequency bin $k$, frame $r$; power | `(N/2+1, frames)` | 31 |
# | $m=2595\log_{10}(1+f/700)$ | mel from Hz | mel | 31 |
# | $\mu=255$ | parameter of the companding law | number | 31, 34 |
# | $S,\ D,\ I,\ C$ | substitutions, deletions, insertions, correct words | counts | 32 |
# | $\pi,\ \mathcal B(\pi)$ | CTC path, the text it collapses to | `(T,)` | 33 |
# | $\alpha_t(s)$ | probability of all path beginnings that end in state $s$ | `(B, 2U+1)`, $U$ letters | 33 |
# | $W_f,\ W_g,\ V_f,\ V_g$ | filters of signal and of conditioning, for filter and gate | convolutions | 34 |
# | $D_k^{(i)}$ | layer $i$ of the discriminator at scale $k$ | | 35 |
#
# ### Part 4 · Recommenders
#
# | symbol | meaning | shape | where |
# |---|---|---|---|
# | $u,v;\ i,j$ | users; items | ids from 0 in code | all |
# | $r_{ui},\ R$ | rating; the set of observed triples $(u,i,r_{ui})$ | `(nnz,)` or `(n_users, n_items)` | all |
# | $I_u,\ U_i,\ I_{uv},\ U_{ij}$ | items rated by $u$; users who rated $i$; both | sets | all |
# | $R_u(k),\ L_u$ | the $k$ items shown to $u$; the items that $u$ likes | sets | 41 |
# | $a_{ui},\ g,\ d(p)$ | score; gain of a rating; discount of place $p$ | `(…, n)` | 41 |
# | $w_{uv},\ \alpha$ | similarity of two users; threshold of the collaboration | `(n_users, n_users)`; number | 42 |
# | $\mu,\ b_u,\ b_i$ | global mean, offset of a user, of an item | number, `(n_users,)`, `(n_items,)` | 43 |
# | $p_u,\ q_i$; $P,\ Q$ | latent factors | `(d,)`; `(n_users, d)`, `(n_items, d)` | 43–48 |
# | $\lambda$ | weight of the L2 penalty on a sum (not a mean) of squares | number, `lam` | 43–47 |
# | $w_0$ | weight of the missing cells | number in $[0,1]$ | 43 |
# | $s_{ui},\ c_{ui}$ | preference (0 or 1), confidence | `(n_users, n_items)` | 44 |
# | $w_0,\ w_j,\ v_j;\ r$ | weights of a factorization machine; its rank | `(1,)`, `(D,)`, `(D, r)` | 45 |
# | $s(u,i),\ \gamma,\ \tau$ | score of two towers; inverse temperature; temperature, $\tau=1/\gamma$ | `(B, B)`; numbers | 47 |
# | $Q(j)$ | probability that item $j$ is drawn as a negative | `(n_items,)` | 47 |

# %% [markdown]
# ### Parts 5–8 · Experiments, time series, structure, service
#
# | symbol | meaning | shape, unit | where |
# |---|---|---|---|
# | $\bar X,\ s^2,\ n_1,\ n_2$ | sample mean, sample variance (divisor $n-1$), group sizes | | 51, 52 |
# | $H_0,\ \alpha,\ \beta,\ \delta$ | null hypothesis, type I and II error rates, effect to be found | | 51, 52 |
# | $z,\ t,\ \nu,\ p$ | statistics, degrees of freedom, p-value | numbers | 51, 52 |
# | $U_1,\ R_1$ | Mann–Whitney statistic, sum of ranks | numbers | 51 |
# | $y_t,\ \hat y_{t+h}$ | series, forecast $h$ steps ahead | `(T,)` | 61–63 |
# | $\ell_t,\ b_t,\ s_t,\ u_t$ | level, slope, season, innovation | `(T,)` | 61, 62 |
# | $\alpha,\ \beta,\ \gamma$ | smoothing parameters of level, slope, season | in $[0,1]$ | 61, 62 |
# | $\theta,\ f(\theta\mid y)$ | all unknown parameters, their posterior | | 62 |
# | $x_i,\ \mu_k,\ \pi_k,\ r_{ik}$ | object, centre, mixing weight, responsibility | `(n, d)`, `(K, d)`, `(K,)`, `(n, K)` | 71 |
# | $\Sigma,\ \lambda_k$ | covariance matrix, its eigenvalues in decreasing order | `(d, d)`, `(d,)` | 72 |
# | $p_{j\mid i},\ q_{j\mid i},\ \sigma_i$ | neighbour probabilities above and below, width of point $i$ | `(n, n)`, `(n,)` | 72 |
# | $\phi_{wt},\ \theta_{td}$ | probability of word $w$ in topic $t$, of topic $t$ in document $d$ | columns sum to 1 | 73 |
# | $w,\ \rho,\ \xi_i,\ \nu$ | one-class SVM: normal, offset, slack, share of outliers | `(d,)`, numbers, `(n,)` | 74 |
# | $h(x),\ c(m),\ \psi$ | path length, its mean for $m$ objects, subsample size | numbers | 74 |
#
# Part 8 has commands instead of symbols.

# %% [markdown]
# ### One letter, several meanings
#
# The field has more quantities than letters. The course keeps the letters of the literature and follows three rules: the
# notation table at the top of a notebook is the law there; **where two meanings meet in one notebook, one of them takes an
# index, brackets or another letter**; in code each has its own word.
#
# - $\lambda$: L2 penalty or shrinkage (00, 42–47), gradient penalty (15), joint loss (23), language model (32), prior precision
#   (45), MMR (48), eigenvalue (13, 72). *Kept apart:* in code `lam` is the weight of a penalty and nothing else; eigenvalues are
#   `eigenvalues`, every other weight is named after what it weighs.
# - $\alpha$: content weight (11), forward variable (21, 33), attention weight (22), margin (23), similarity threshold (42),
#   confidence (44), noise precision (45), type I error (51), smoothing (61), Dirichlet prior (73). *Kept apart:*
#   $\alpha_t(\cdot)$ is forward, $\alpha_{ij}$ attention, a bare $\alpha$ a number. The notes' $\alpha$ for a network (11) is
#   written $a_\theta$, for an anomaly threshold (74) $\tau$.
# - $\beta$: style weight (11), weight of the KL term (13), F-measure (41), popularity exponent (47), type II error (51), slope
#   smoothing (61), shift of batch norm (63). *Kept apart:* one per notebook.
# - $\mu$: mean of a normal law (13, 71), shift of a flow layer (16), companding (31, 34), global mean of ratings (43). *Kept
#   apart:* the notes' second penalty weight $\mu$ (43) is not used, one $\lambda$ serves all factors and offsets.
# - $\sigma$: standard deviation, logistic function, singular value (43). *Kept apart:* the function always has brackets,
#   $\sigma(a)$, in code `sigmoid`; a singular value always has an index.
# - $k$, $K$: length of a list (41, 48), neighbours (42, 74), kernel size (22, 34), frequency bin (31), steps of the
#   discriminator (14), coordinate of a factor (43), clusters (71). *Kept apart:* capital $K$ counts labels and clusters; in code
#   `k` is the length of a list, the others are `n_neighbours`, `kernel_size`, …
# - $d$, $D$: latent size (13, 43), data size $D$ and split point $d$ (16), dilation (22, 34), features (71, 72), discount
#   $d(p)$ (41), discriminator $D(x)$ (14), deletions (32). *Kept apart:* functions have brackets, a dilation has an index.
# - $T$, $\tau$: $T$ is the length of a sequence, never a transpose ($\top$). $\tau$ is a temperature (47), the standard deviation
#   of a prior (43), a threshold (16, 74). *Kept apart:* one per notebook.
# - $\theta$: parameters; topic shares (73), written with both indices, $\theta_{td}$; the notes' damping factor of a trend (62),
#   renamed $\varphi$.
# - $\gamma$: transport plan (15), inverse temperature (47), season smoothing (61, 62), unit-root coefficient and scale of
#   batch norm (63), RBF width (74). *Kept apart:* one per notebook, in 63 one per section.
# - $p$, $q$: densities, latent factors, place in a list (41), p-value (51), dropout rate (63). *Kept apart:* a factor always
#   has an index, $p_u$; a density has brackets, $p(x)$.
# - $R$, $r$: ratings $R,\ r_{ui}$, list $R_u(k)$ (41), receptive field (22), rank of a factorization machine (45), sum of ranks
#   $R_1$ (51), regressor $r_t$ (62). *Kept apart:* by index; recall is written out.
# - $C$, $c$: channels and content image (11), correct words (32), confidence $c_{ui}$ (44), context (22, 23), $c(m)$ (74). *Kept
#   apart:* the image $C$ is only ever an argument, sizes come from `x.shape`.
# - $N$, $n$: length of a frame (31), words of the reference (32), documents (24), observed ratings (43). *Kept apart:* the
#   normal law is always $\mathcal N$; $n_u$ counts the ratings of a user.
# - $s$: deviation of a decoder (13), log-scale of a flow (16), decoder state (22), preference (44), score (47), sample
#   deviation (51), season (61). *Kept apart:* $s(\cdot)$ is a function, $s_{ui}$ a preference, $s_t$ a season.
# - $\rho$: distance and SVM offset, both in the notes on anomalies (74). *Kept apart:* $\rho$ is the offset, a distance is
#   $\mathrm{dist}(x,x_i)$.
# - $u$: user (part 4), innovation $u_t$ (61, 62), Mann–Whitney count $U$ (51). *Kept apart:* never in one notebook.

# %% [markdown]
# ## 6. Glossary English – Russian
#
# The terms of all parts, with the notebook that teaches each. The Russian is what exam papers use; where Russian speech keeps
# the English word, it stands in brackets. The data are the rows of `data/glossary.csv`.

# %%
glossary = read_table("glossary.csv")
print(len(glossary), "terms from", len({term["notebook"] for term in glossary}), "notebooks")

# %% [markdown]
# A search should not depend on capitals, on ё and е, or on the kind of dash.

# %%
def plain(text):
    """Text as it is compared: lower case, ё as е, dashes as hyphens."""
    return text.lower().replace("ё", "е").replace("–", "-").replace("—", "-")


# %% [markdown]
# All words of the query must occur in the entry, in any order. A number finds the terms of one notebook.

# %%
def find_terms(glossary, query):
    """The rows of the glossary that contain every word of `query`; all rows for an empty query."""
    words = plain(query).split()
    return [term for term in glossary
            if all(word == term["notebook"] or word in plain(f"{term['en']} {term['ru']}")
                   for word in words)]


# %% [markdown]
# An entry shows both languages and leads to its notebook.

# %%
def term_table(terms):
    """Markdown table of glossary rows; the notebook is a link where it exists."""
    where = {row["no"]: linked(row, row["no"]) for row in course}
    rows = [(term["en"], term["ru"], where[term["notebook"]]) for term in terms]
    return markdown_table(("English", "по-русски", "notebook"), rows)


# %% [markdown]
# Long lists are cut:

# %%
def show_terms(query="градиент"):
    """Display the first 40 terms that match."""
    terms = find_terms(glossary, query)
    display(Markdown(f"{len(terms)} of {len(glossary)} terms\n\n{term_table(terms[:40])}"))


# %% [markdown]
# For example:

# %%
show_terms()

# %% [markdown]
# Type a word in either language, or a number such as 43:

# %% tags=["nbval-ignore-output"]
interact(show_terms, query=Text(value="43", description="search"));

# %% [markdown]
# The whole glossary, to unfold, print or search with the browser:

# %%
by_part = {part: [term for term in glossary if term["part"] == part] for part in PARTS}
tables = [f"**Part {part} · {PARTS[part]}**\n\n{term_table(by_part[part])}" for part in PARTS]
folded = ["<details><summary>All terms by part</summary>", *tables, "</details>"]
display(Markdown("\n\n".join(folded)))

# %% [markdown]
# ## 7. Where to begin
#
# - For the shortest walk from a formula to a working recommender: [41 Ranking metrics](41_ranking_metrics.ipynb), then
#   [43 Latent factors](43_latent_factors.ipynb); [42 Neighbourhood](42_neighbourhood.ipynb) is the method to beat.
# - For probability that draws pictures: [13 VAE](13_vae.ipynb), then [16 Normalizing flows](16_normalizing_flows.ipynb).
# - For an exam: the question numbers in the tables of section 1.
