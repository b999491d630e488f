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
# # 12 · Image restoration: super-resolution, inpainting, denoising
#
# A small photo, a scratched photo, a noisy photo: the missing part cannot be computed, because many pictures fit what is left. Which of them does a
# net return, why is its answer blurred under one loss and invented under another, and how do we measure that honestly?
#
# You will be able to
# - derive PSNR and SSIM from their definitions, and say exactly how borders are treated;
# - show the null space of a degradation: two pictures, one low-resolution image;
# - build residual restoration nets $\hat y=\text{classical guess}+g_\theta$ that start as the classical guess;
# - prove that squared error leads to the posterior mean, absolute error to the median, and what a sharp answer costs;
# - recognise hallucinated texture and the grid artefact of a perceptual loss, by eye and by number;
# - write the masked loss of inpainting, and Tweedie's formula of denoising.
#
# Prerequisites: convolutions, Adam, conditional expectation; Gram matrices and style are not needed here.
#
# **Time** 60 s on 2 CPU cores · **Memory** 1.2 GB · **Data** 10 photos for training and 4 held out, shipped with scikit-image, scikit-learn, matplotlib · **Exam questions** 22
#
# <!-- navigation -->
# previous: [11 Style transfer](11_style_transfer.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [13 Autoencoders and the variational autoencoder](13_vae.ipynb)
# <!-- /navigation -->

# %% [markdown]
# ## Notation
#
# | symbol | in code | shape, unit or range |
# |---|---|---|
# | $y$ | `y` | true image, $(\dots, C, H, W)$, $C=3$ or 1, values in $[0,1]$ |
# | $x$ | `x` | what we are given: small, masked or noisy image |
# | $\hat y$ | `out` | restored image, shape of $y$ |
# | $s$ | `scale` | upscaling factor, integer $\ge2$ |
# | $A,\ A^+$ | `degrade`, `nearest` | degradation $x=Ay$ and its pseudoinverse |
# | $P_0$ | – | projector $I-A^+A$ onto the null space of $A$ |
# | $\mathrm{up}(x)$ | `upsample(x, scale)` | bicubic enlargement, $(\dots, sH, sW)$ |
# | $g_\theta$ | `net.g` | the trained part of a net |
# | $\phi_l$ | `features(x)[l]` | features of a frozen net at layer $l$, $(N, C_l, H_l, W_l)$ |
# | $R$ | `data_range` | distance from the darkest to the brightest possible value |
# | $\mu,\sigma^2,\sigma_{xy}$ | `mu_x, var_x, cov` | weighted mean, variance, covariance inside one window |
# | $m$ | `m` | mask, $(N,1,H,W)$: 1 where the pixel is known, 0 where it is missing |
# | $\odot$ | `*` | product pixel by pixel |
# | $\sigma,\ n$ | `sd`, `noise` | standard deviation of noise; standard normal noise |
# | $D,\ P$ | `D, P` | distortion (expected squared error), perception index (distance of distributions) |

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
# The topic's own imports follow; scikit-image and scipy serve as oracles and as the classical competitors.

# %%
import copy
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.integrate
import scipy.ndimage
import scipy.optimize
import scipy.stats
import skimage.metrics
import skimage.restoration
import torch
import torch.nn.functional as F
from ipywidgets import FloatSlider, IntSlider, interact
from torch import nn

from helpers import feature_net, measured, show_images

PAGE = "12"

# %% [markdown]
# All sizes are here. The full run trains the same nets wider, deeper and longer.

# %% tags=["parameters"]
FEATURES = "bundled"    # or "vgg19": ImageNet weights, downloaded (550 MB)
SCALE = 4               # super-resolution factor
TEST_SIZE = 240         # side of the held-out photos, a multiple of SCALE, at least 200
PHOTO_SIZE = 256        # short side of the training photos,
N_PATCHES = 2000        # and what is cut from them
PATCH = 48              # a multiple of SCALE, at least 32
WIDTH = 24              # channels of the super-resolution nets,
WIDTH_FINE = 16         # of the nets for inpainting and denoising, which work at full size
BLOCKS = [0, 1, 3]      # residual blocks of the super-resolution nets,
BLOCKS_FINE = 2         # of the other two
N_SEEDS = 2
STEPS_SR = 250
STEPS_PERCEPTUAL = 150
PIXEL_WEIGHT = 300.0    # of the squared error beside the perceptual loss
STEPS_INPAINT = 200
STEPS_DENOISE = 200
LR = 3e-3               # peak learning rate

# %% [markdown]
# Photos are split by name, once. No net of this page, nor the bundled feature net, has seen the four held-out ones; every reported number comes from them.
# One caveat: there is no third set. That plain textures (brick, grass, gravel) are not in the training list, what the nets for inpainting start from, sizes and rates were all settled by looking at results on these four photos, so our nets' numbers are slightly
# optimistic for that reason. (The strengths of the classical denoisers, section 9, are chosen on a training photo; the crops in the figures are chosen for show and enter no number.)

# %%
HELD_OUT = ("cat", "coffee", "flower", "camera")
TRAINING = ("admiral", "astronaut", "coins", "motorcycle", "page", "retina", "rocket", "temple",
            "text", "tissue")


def rng(number):
    """A CPU random generator with this seed."""
    return torch.Generator().manual_seed(number)


# %% [markdown]
# Training patches, in turn from every photo, at random places, turned and mirrored at random:

# %%
def cut_patches(names, photo_size, n, size, generator):
    """n patches (n, 3, size, size) of the named photos, short side at most photo_size, float32."""
    photos = [data.photo(k, min(photo_size, *data.photo(k).shape[1:])) for k in names]
    cut = []
    for i in range(n):
        photo = photos[i % len(photos)]
        if size > photo.shape[1]:
            raise ValueError(f"patches of {size} do not fit into photos of {photo.shape[1]}")
        room = photo.shape[1] - size + 1
        top, left, turn = torch.randint(room, (3,), generator=generator).tolist()
        patch = torch.rot90(photo[:, top:top + size, left:left + size], turn % 4, (1, 2))
        cut.append(patch.flip(2) if turn % 8 > 3 else patch)
    return torch.stack(cut)


# %% [markdown]
# The patches to train on, and the held-out photos, $(4,3,H,W)$:

# %%
patches = cut_patches(TRAINING, PHOTO_SIZE, N_PATCHES, PATCH, rng(0)).to(device)
truth = torch.stack([data.photo(name, TEST_SIZE) for name in HELD_OUT]).to(device)
if TEST_SIZE % SCALE or PATCH % SCALE or TEST_SIZE < 200 or PATCH < 32:
    raise ValueError("TEST_SIZE >= 200 and PATCH >= 32 must be multiples of SCALE")

# %% [markdown]
# ## 1. How good is a restored image? PSNR and SSIM
#
# Let $x,y$ be two images with $n$ values each (pixels times channels) and let $R$ be the range of possible values (1 or 255). The mean squared error depends on the unit of
# brightness; divided by the square of the peak, and read in decibels, it does not:
#
# $$\mathrm{MSE}=\frac1n\sum_{i=1}^n(x_i-y_i)^2,\qquad \mathrm{PSNR}=10\log_{10}\frac{R^2}{\mathrm{MSE}}\ \text{dB} \tag{12.1}$$
#
# Ten times less squared error is +10 dB; half of it is +3 dB; equal images give $\infty$. First the test of the input that both measures share:

# %%
def image_pair(x, y, data_range):
    """x and y as floats, after the test that they are comparable images; ValueError if not.

    Shapes (H, W), (C, H, W) or (N, C, H, W), equal; data_range > 0; values finite and not on
    another scale (0..255 with data_range=1: all values must lie within 10 * data_range, so that
    noisy images pass). Integer images are converted.
    """
    x, y = (torch.as_tensor(v) for v in (x, y))
    x, y = (v if v.is_floating_point() else v.to(torch.get_default_dtype()) for v in (x, y))
    if x.shape != y.shape or not 2 <= x.ndim <= 4 or x.numel() == 0:
        raise ValueError("two images of one shape (H, W), (C, H, W) or (N, C, H, W) are needed, "
                         f"got {tuple(x.shape)} and {tuple(y.shape)}")
    if not data_range > 0:
        raise ValueError(f"data_range must be positive (1 for values in [0, 1]), got {data_range}")
    low, high = torch.stack([x.min(), y.min()]).min(), torch.stack([x.max(), y.max()]).max()
    if not high - low <= 10 * data_range:        # NaN and infinities end here too
        raise ValueError(f"values from {low:.3g} to {high:.3g} do not go with data_range="
                         f"{data_range:g}: rescale both images or pass their true range")
    return x, y


def comparable(x, y, data_range=1):
    """Does image_pair accept them?"""
    try:
        return len(image_pair(x, y, data_range)) == 2
    except ValueError:
        return False


# %% [markdown]
# What passes, and what does not (a wide margin: images with strong noise leave $[0,R]$). The opposite mistake, values in $[0,1]$ with $R=255$, cannot be seen from the values: such an image might be black. It flatters by $20\log_{10}255=48$ dB.

# %%
I_2, low_6 = torch.ones(2, 2), torch.tensor([[-6.0, 0], [0, 0]])
passing = [(0 * I_2, 10 * I_2), (-10 * I_2, 0 * I_2), (low_6, 4 * I_2), (I_2[None, None],) * 2]
failing = [(0 * I_2, 11 * I_2), (11 * I_2, 0 * I_2), (-5 * I_2, 6 * I_2), (low_6, 5 * I_2),
           (-low_6, -5 * I_2), (5 * I_2, low_6), (-5 * I_2, -low_6), (I_2 * torch.nan, I_2),
           (I_2, I_2 / 0), (I_2[0], I_2[0]), (I_2, I_2[None]), (I_2[None, None, None],) * 2,
           (I_2[:0], I_2[:0])]
check("12.1", "comparable images, and not", [comparable(*pair) for pair in passing + failing],
      [True] * len(passing) + [False] * len(failing))

# %% [markdown]
# A batch gives one number per image: the mean of PSNRs is not the PSNR of the mean error (the logarithm is concave; exercise A returns to it).

# %%
def psnr(x, y, data_range):
    """Peak signal-to-noise ratio (12.1) in dB; inf for equal images.

    x, y: (H, W) or (C, H, W) -> scalar; (N, C, H, W) -> (N,). ValueError: see image_pair.
    """
    x, y = image_pair(x, y, data_range)
    mse = (x - y).square().flatten(-min(x.ndim, 3)).mean(-1)
    return 10 * torch.log10(data_range**2 / mse)


# %%
cat = truth[0].double().cpu()
noisy = cat + 0.1 * torch.randn(cat.shape, generator=rng(1), dtype=torch.float64)
check("12.1", "PSNR is scikit-image's", psnr(noisy, cat, 1.0),
      skimage.metrics.peak_signal_noise_ratio(cat.numpy(), noisy.numpy(), data_range=1), rtol=1e-12)
check("12.1", "noise of sd 0.1 means 20 dB, |z| < 4", abs(psnr(noisy, cat, 1.0) - 20)
      < 4 * 10 / math.log(10) * (2 / cat.numel())**0.5)

# %%
check("12.1", "identical images: inf", psnr(cat, cat, 1.0), torch.inf)
check("12.1", "the unit does not matter", psnr(255 * noisy, 255 * cat, 255), psnr(noisy, cat, 1.0),
      rtol=1e-12)
check("12.1", "a batch gives one value per image", psnr(torch.stack([noisy, cat + 0.01]),
      torch.stack([cat, cat]), 1.0), [psnr(noisy, cat, 1.0).item(), 40.0], atol=1e-9)

# %% [markdown]
# PSNR weighs all errors alike, wherever they are. SSIM (Wang et al. 2004) compares the images **window by window**, in three respects. Inside a window with weights $w_i$, $\sum w_i=1$, let
# $\mu_x=\sum w_ix_i$, $\sigma_x^2=\sum w_i(x_i-\mu_x)^2$, $\sigma_{xy}=\sum w_i(x_i-\mu_x)(y_i-\mu_y)$. Luminance, contrast and structure:
#
# $$l=\frac{2\mu_x\mu_y+C_1}{\mu_x^2+\mu_y^2+C_1},\quad c=\frac{2\sigma_x\sigma_y+C_2}{\sigma_x^2+\sigma_y^2+C_2},\quad t=\frac{\sigma_{xy}+C_3}{\sigma_x\sigma_y+C_3},\quad C_k=(K_kR)^2 \tag{12.2}$$
#
# Each of the first two has the form $2ab/(a^2+b^2)\le1$, with equality iff $a=b$ (because $(a-b)^2\ge0$); $t\le1$ is the Cauchy–Schwarz inequality, a correlation. The constants, $K_1=0.01$, $K_2=0.03$, avoid $0/0$ in black or flat
# windows. With $C_3=C_2/2$ the factor $2\sigma_x\sigma_y+C_2$ of $c$ cancels against the denominator of $t$, twice $\sigma_x\sigma_y+C_3$:
#
# $$\mathrm{SSIM}=l\,c\,t=\frac{(2\mu_x\mu_y+C_1)(2\sigma_{xy}+C_2)}{(\mu_x^2+\mu_y^2+C_1)(\sigma_x^2+\sigma_y^2+C_2)} \tag{12.3}$$
#
# averaged over windows and channels. The window of the paper is an $11\times11$ Gaussian with standard deviation 1.5. **Borders:** we use the windows that lie entirely inside the image, so there are $(H-10)(W-10)$ of them, and
# the centres stay 5 pixels away from the edge. First one window, literally (12.2) in Python loops:

# %%
def ssim_window_loop(x, y, data_range):
    """l * c * t of (12.2) for one 11 x 11 window: x, y nested lists of numbers."""
    cells = [(i, j) for i in range(11) for j in range(11)]
    raw = {(i, j): math.exp(-((i - 5)**2 + (j - 5)**2) / (2 * 1.5**2)) for i, j in cells}
    w = {ij: v / sum(raw.values()) for ij, v in raw.items()}
    mu_x, mu_y = (sum(w[i, j] * v[i][j] for i, j in cells) for v in (x, y))
    var_x, var_y = (sum(w[i, j] * (v[i][j] - mu)**2 for i, j in cells)
                    for v, mu in ((x, mu_x), (y, mu_y)))
    cov = sum(w[i, j] * (x[i][j] - mu_x) * (y[i][j] - mu_y) for i, j in cells)
    C_1, C_2 = (0.01 * data_range)**2, (0.03 * data_range)**2
    luminance = (2 * mu_x * mu_y + C_1) / (mu_x**2 + mu_y**2 + C_1)
    contrast = (2 * (var_x * var_y)**0.5 + C_2) / (var_x + var_y + C_2)
    structure = (cov + C_2 / 2) / ((var_x * var_y)**0.5 + C_2 / 2)
    return luminance * contrast * structure


# %% [markdown]
# The fast version writes variances as $\sum w_ix_i^2-\mu_x^2$, so that all windows at once are five Gaussian filters. The Gaussian factors into a column times a row: two passes of 11 weights instead of 121.

# %%
def window_means(x):
    """Gaussian-weighted means of all 11 x 11 windows inside: (B, H, W) -> (B, H - 10, W - 10)."""
    k = torch.arange(-5, 6, device=x.device, dtype=x.dtype)
    g = torch.exp(-k**2 / (2 * 1.5**2))
    g = g / g.sum()
    x = F.conv2d(x[:, None], g.view(1, 1, 11, 1))
    return F.conv2d(x, g.view(1, 1, 1, 11))[:, 0]


# %% [markdown]
# And SSIM by (12.3):

# %%
def ssim(x, y, data_range):
    """Structural similarity (12.3): Wang et al. 2004, 11 x 11 Gaussian, windows inside the image.

    x, y: (H, W) or (C, H, W) -> scalar, mean over windows and channels; (N, C, H, W) -> (N,).
    ValueError: see image_pair; images smaller than the window.
    """
    x, y = image_pair(x, y, data_range)
    H, W = x.shape[-2:]
    if min(H, W) < 11:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels (its window), got {H} x {W}")
    a, b = (v.double().reshape(-1, H, W) for v in (x, y))              # (N * C, H, W); variances
    mu_x, mu_y = window_means(a), window_means(b)
    var_x, var_y = window_means(a * a) - mu_x**2, window_means(b * b) - mu_y**2
    cov = window_means(a * b) - mu_x * mu_y
    C_1, C_2 = (0.01 * data_range)**2, (0.03 * data_range)**2
    score = ((2 * mu_x * mu_y + C_1) * (2 * cov + C_2)
             / ((mu_x**2 + mu_y**2 + C_1) * (var_x + var_y + C_2)))
    score = score.flatten(1).mean(1).view(x.shape[:-2]).mean(-1 if x.ndim > 2 else ())
    return score.to(torch.promote_types(x.dtype, torch.float32))       # cancel in less precision


# %% [markdown]
# Checks: one window against the loop; the whole image against scikit-image, which must be called **with these arguments**: its defaults are a flat $7\times7$ window and sample variances ($n-1$), another number.

# %%
a, b = noisy[0, 40:51, 70:81], cat[0, 40:51, 70:81]
check("12.2", "one window: l c t, in loops, is the compact (12.3)",
      ssim_window_loop(a.tolist(), b.tolist(), 1.0), ssim(a, b, 1.0), rtol=1e-9)
check("12.2", "also in units of 1/255",
      ssim_window_loop((255 * a).tolist(), (255 * b).tolist(), 255), ssim(a, b, 1.0), rtol=1e-9)

# %%
wang = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)
by_skimage = [skimage.metrics.structural_similarity(v.numpy(), cat.numpy(), channel_axis=0, **wang)
              for v in (noisy, cat.flip(2), 1 - cat)]
check("12.3", "SSIM is scikit-image's on three distortions", ssim(torch.stack([noisy, cat.flip(2),
      1 - cat]), torch.stack(3 * [cat]), 1.0), by_skimage, atol=1e-10)
check("12.3", "and for one grey image", ssim(noisy[1], cat[1], 1.0),
      skimage.metrics.structural_similarity(noisy[1].numpy(), cat[1].numpy(), **wang), atol=1e-10)

# %%
defaults = skimage.metrics.structural_similarity(noisy.numpy(), cat.numpy(), channel_axis=0,
                                                 data_range=1)
check("12.3", "scikit-image's defaults give another number",
      abs(defaults - by_skimage[0]) > 0.005)

# %%
check("12.3", "symmetric; 1 for equal images; negative for an inverted one",
      ssim(cat, noisy, 1.0) == ssim(noisy, cat, 1.0) and ssim(cat, cat, 1.0) == 1
      and ssim(1 - cat, cat, 1.0) < 0)
check("12.3", "the unit does not matter", ssim(255 * noisy, 255 * cat, 255), by_skimage[0],
      atol=1e-10)

# %% [markdown]
# Bad input is refused, once for all:

# %%
def refused(function, *arguments):
    """Print the message of the ValueError that the call raises."""
    try:
        print("accepted:", function(*arguments))
    except ValueError as error:
        print("ValueError:", error)


refused(ssim, torch.zeros(3, 8, 20), torch.zeros(3, 8, 20), 1.0)
refused(psnr, torch.zeros(3, 20, 20), torch.zeros(20, 20), 1.0)
refused(psnr, 255 * cat, cat, 1.0)
refused(ssim, cat, 255 * cat - 300, 1.0)
refused(psnr, cat, cat * torch.nan, 1.0)
refused(psnr, cat, cat, 0)

# %% [markdown]
# Does PSNR see what we see? Four distortions of one photo, scaled to **the same** mean squared error:

# %%
crop = truth[2, :, 72:168, 72:168]                                      # (3, 96, 96)
small = F.avg_pool2d(crop[None], 4)
blur = F.interpolate(small, scale_factor=4, mode="bicubic")[0] - crop
target = blur.square().mean()
directions = {"blur": blur, "noise": torch.randn(crop.shape, generator=rng(2)).to(device),
              "brighter": torch.ones_like(crop), "less contrast": crop.mean() - crop}
distorted = {name: crop + d * (target / d.square().mean()).sqrt() for name, d in directions.items()}

# %% [markdown]
# All four beside the truth:

# %% tags=["nbval-ignore-output"]
titles = {f"{name}\nPSNR {psnr(v, crop, 1.0):.1f}, SSIM {ssim(v, crop, 1.0):.2f}": v
          for name, v in distorted.items()}
show_images({"truth\n": crop, **titles})
plt.show()

# %% [markdown]
# The figure: one PSNR, four very different pictures. SSIM forgives changes of brightness and contrast and punishes blur and noise; still, neither knows whether an image looks *real* (section 7).

# %%
same = torch.stack([psnr(v, crop, 1.0) for v in distorted.values()])
check("12.1", "the four have equal PSNR", same, same[:1].expand(4), atol=1e-3)
check("12.3", "and SSIM from below 0.8 to above 0.9",
      ssim(distorted["blur"], crop, 1.0) < 0.8 and ssim(distorted["brighter"], crop, 1.0) > 0.9)

# %% [markdown]
# ## 2. Super-resolution is ill-posed
#
# **The degradation model.** A small image is a blurred image of which every $s$-th pixel in both directions is kept: $A$ = decimation $\cdot$ blur. We take the blur of a camera's pixel, a box of $s\times s$:
#
# $$x_{ij}=(Ay)_{ij}=\frac1{s^2}\sum_{a=0}^{s-1}\sum_{b=0}^{s-1}y_{si+a,\;sj+b} \tag{12.4}$$

# %%
def degrade(y, scale):
    """x = A y of (12.4): (..., C, H, W) -> (..., C, H / scale, W / scale).

    ValueError unless scale is an integer >= 1 and divides H and W.
    """
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale must be a positive integer, got {scale!r}")
    y = torch.as_tensor(y)
    y = y if y.is_floating_point() else y.to(torch.get_default_dtype())
    if y.ndim < 2 or y.shape[-1] % scale or y.shape[-2] % scale:
        raise ValueError(f"height and width must be multiples of {scale}, got {tuple(y.shape)}: "
                         f"crop to y[..., :H // {scale} * {scale}, :W // {scale} * {scale}] first")
    *lead, H, W = y.shape
    return y.reshape(*lead, H // scale, scale, W // scale, scale).mean((-3, -1))


# %% [markdown]
# Checks: blur and decimation done literally; and $A$ as a matrix, which for images stored row by row is $A=D_H\otimes D_W$ with $D_n=I_{n/s}\otimes\frac1s(1,\dots,1)$.

# %%
def degradation_matrix(H, W, scale):
    """A of (12.4) for one channel stored row by row: (H W / scale², H W), float64."""
    row = torch.full((1, scale), 1 / scale, dtype=torch.float64)
    D_H, D_W = (torch.kron(torch.eye(n // scale, dtype=torch.float64), row) for n in (H, W))
    return torch.kron(D_H, D_W)


y_toy = torch.rand(6, 9, generator=rng(3), dtype=torch.float64)
A = degradation_matrix(6, 9, 3)                                         # (6, 54)

# %%
check("12.4", "a box filter, then every third pixel", degrade(y_toy, 3),
      scipy.ndimage.uniform_filter(y_toy.numpy(), 3)[1::3, 1::3], atol=1e-12)
check("12.4", "scale 1 changes nothing", degrade(y_toy, 1), y_toy)
check("12.4", "the matrix A", degrade(y_toy, 3).flatten(), A @ y_toy.flatten(), atol=1e-12)

# %% [markdown]
# Sizes that the scale does not divide are refused, with the cure:

# %%
refused(degrade, torch.zeros(3, 10, 12), 4)
refused(degrade, torch.zeros(3, 12, 12), 2.5)

# %% [markdown]
# **What is lost.** The rows of $A$ do not overlap, so $AA^\top=I/s^2$, and the pseudoinverse $A^\top(AA^\top)^{-1}$ is $A^+=s^2A^\top$: it repeats every pixel $s\times s$ times, *nearest-neighbour* enlargement.
# $P_0=I-A^+A$ removes the block means and leaves what $A$ cannot see, its null space. All images that fit $x$ are
#
# $$\{y: Ay=x\}=\{A^+x+P_0v:\ v\ \text{any image}\},\qquad \dim\ker A=\Big(1-\frac1{s^2}\Big)HW \tag{12.5}$$
#
# (If $Ay=x$, take $v=y$; and $A(A^+x+P_0v)=x+Av-AA^+Av=x$ because $AA^+=I$.) At $s=4$ that is 15 of 16 numbers.

# %%
def nearest(x, scale):
    """A⁺ x: every pixel repeated scale x scale times, (..., h, w) -> (..., scale h, scale w)."""
    return x.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def consistent(v, x, scale):
    """The image nearest to v among those with degrade(y) = x: A⁺ x + P_0 v of (12.5)."""
    return v + nearest(x - degrade(v, scale), scale)


# %%
v_toy = torch.rand(6, 9, generator=rng(4), dtype=torch.float64)
x_toy, pinv = degrade(y_toy, 3), np.linalg.pinv(A.numpy())
check("12.5", "nearest-neighbour enlargement is numpy's pseudoinverse",
      nearest(x_toy, 3).flatten(), pinv @ x_toy.flatten().numpy(), atol=1e-12)
by_pinv = pinv @ x_toy.flatten().numpy() + (np.eye(54) - pinv @ A.numpy()) @ v_toy.flatten().numpy()

# %%
check("12.5", "A⁺x + P_0 v", consistent(v_toy, x_toy, 3).flatten(), by_pinv, atol=1e-12)
check("12.5", "dim ker A = (1 - 1/s²) H W", 54 - np.linalg.matrix_rank(A.numpy()), (1 - 1 / 9) * 54)

# %% [markdown]
# Two pictures, one small image: turn every $s\times s$ block of a photo by 180°. Means stay, so $A$ sees no difference; all values stay in $[0,1]$, so it is a legal photo.

# %%
def turn_blocks(y, scale):
    """Every scale x scale block of y (..., H, W) turned by 180°."""
    *lead, H, W = y.shape
    blocks = y.reshape(*lead, H // scale, scale, W // scale, scale)
    return blocks.flip(-3, -1).reshape(y.shape)


eye = truth[0, :, 52:132, 24:104]                                       # (3, 80, 80)
twin = turn_blocks(eye, 4)

# %%
check("12.4", "two photos, one small image, float32", degrade(twin, 4), degrade(eye, 4), atol=1e-6)
check("12.5", "though the photos differ", (twin - eye).abs().max() > 0.2)

# %% [markdown]
# Three pictures and the small image of all three:

# %% tags=["nbval-ignore-output"]
show_images({"$y$": eye, "$y'$, blocks turned": twin,
             "$A^+x$ (nearest)": nearest(degrade(eye, 4), 4),
             "$x = Ay = Ay' = AA^+x$": degrade(eye, 4)})
plt.show()

# %% [markdown]
# The figure: three images of $80\times80$ that have exactly the same small image of $20\times20$. From $x$ alone nobody can tell which one it was; a prior belief about photos must decide.
#
# ## 3. Bicubic enlargement, the guess to beat
#
# In one dimension, output pixel $j$ has its centre at $t_j=(j+\frac12)/s-\frac12$ in units of input pixels. Bicubic enlargement weighs the four nearest input pixels by Keys' kernel (edge pixels are repeated), and in
# two dimensions does so along columns and rows:
#
# $$\mathrm{up}(x)=MxM^\top,\quad M_{ji}=\kappa(t_j-i),\quad \kappa(t)=\begin{cases}(a+2)|t|^3-(a+3)|t|^2+1&|t|\le1\\a|t|^3-5a|t|^2+8a|t|-4a&1<|t|<2\end{cases} \tag{12.6}$$
#
# PyTorch takes $a=-\frac34$; Keys (1981) showed that only $a=-\frac12$ reproduces parabolas.

# %%
def cubic_kernel(t, a):
    """Keys' kernel of (12.6) at the number t."""
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def bicubic_matrix_loop(n, scale, a=-0.75):
    """M of (12.6), float64, (n * scale, n); weights that fall outside go to the edge pixel."""
    M = torch.zeros(n * scale, n, dtype=torch.float64)
    for j in range(n * scale):
        t = (j + 0.5) / scale - 0.5
        for i in range(math.floor(t) - 1, math.floor(t) + 3):
            M[j, min(max(i, 0), n - 1)] += cubic_kernel(t - i, a)
    return M


# %% [markdown]
# The same by the library:

# %%
def upsample(x, scale):
    """Bicubic enlargement (12.6): (N, C, h, w) -> (N, C, scale h, scale w)."""
    return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)


x_toy = torch.rand(1, 1, 5, 7, generator=rng(5), dtype=torch.float64)

# %%
for s in (2, 3, 4):
    M_5, M_7 = bicubic_matrix_loop(5, s), bicubic_matrix_loop(7, s)
    check("12.6", f"up(x) = M x Mᵀ at scale {s}", upsample(x_toy, s)[0, 0],
          M_5 @ x_toy[0, 0] @ M_7.T, atol=1e-12)

# %%
line, fine = torch.arange(9.0).double(), (torch.arange(27.0).double() + 0.5) / 3 - 0.5
bent = [(bicubic_matrix_loop(9, 3, a) @ line**2 - fine**2)[6:-6].abs().max() for a in (-0.5, -0.75)]
check("12.6", "a = -1/2 reproduces parabolas, a = -3/4 does not", bent[0] < 1e-10 < 0.01 < bent[1])
check("12.6", "the kernel is 1 at 0, else 0 at whole numbers and beyond 2", [cubic_kernel(t, -0.75)
      for t in (0, -1, 1, 2, -2, 2.5, -3.5)], [1, 0, 0, 0, 0, 0, 0])
check("12.6", "constants are kept", bicubic_matrix_loop(5, 3).sum(1), torch.ones(15), atol=1e-12)

# %%
linear = F.interpolate(x_toy, scale_factor=3, mode="bilinear", align_corners=False)[0, 0]
check("12.6", "the same pixel centres as scipy's bilinear zoom", linear, scipy.ndimage.zoom(
      x_toy[0, 0].numpy(), 3, order=1, mode="nearest", grid_mode=True), atol=1e-12)

# %% [markdown]
# Means over the four held-out photos. Every restored image is clipped to $[0,1]$ before it is measured, as it would be before it is shown.

# %%
def scores(out, y):
    """Mean PSNR (dB) and mean SSIM of a batch of restored images, clipped to [0, 1]."""
    out = out.clamp(0, 1)
    return {"PSNR": psnr(out, y, 1.0).mean().item(), "SSIM": ssim(out, y, 1.0).mean().item()}


# %% [markdown]
# The classical methods:

# %% tags=["nbval-ignore-output"]
small = degrade(truth, SCALE)                                           # (4, 3, h, w)
classical = {"nearest": nearest(small, SCALE), "bicubic": upsample(small, SCALE),
             "bilinear": F.interpolate(small, scale_factor=SCALE, mode="bilinear")}
pd.DataFrame({name: scores(out, truth) for name, out in classical.items()}).T.round(3)

# %% [markdown]
# Linear interpolation beats repetition, and bicubic beats both. It is a fixed linear rule, the same for a cat's fur and for a cup's rim. Can one learn to do better?
#
# ## 4. A residual net
#
# The net learns only what is missing:
#
# $$\hat y=\mathrm{up}(x)+g_\theta(x) \tag{12.7}$$
#
# Why residual? The easy part, the low frequencies, is right from the start, so $g_\theta$ deals with small numbers around zero. If its last layer starts at zero, then $\hat y=\mathrm{up}(x)$ **exactly**: training starts at
# bicubic and a net that learns nothing does no harm. $g_\theta$ works at low resolution, $s^2$ times cheaper, and emits $3s^2$ channels which *pixel shuffle* (Shi et al. 2016) arranges: channel $cs^2+as+b$ at $(i,j)$ becomes
# pixel $(si+a,sj+b)$ of channel $c$. All nets of this page share three parts:

# %%
def conv(c_in, c_out, zero=False):
    """3 x 3 convolution that keeps the size (edge pixels repeated); zero: starts at zero."""
    layer = nn.Conv2d(c_in, c_out, 3, padding=1, padding_mode="replicate")
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """h + conv(relu(conv(h))), (N, C, H, W) -> same; starts as the identity."""

    def __init__(self, width):
        super().__init__()
        self.inner = nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width, zero=True))

    def forward(self, h):
        return h + self.inner(h)


# %% [markdown]
# A stack of them, and the test of its input. Grey images pass as three equal channels and come back as one.

# %%
def residual_net(c_in, c_out, width, blocks):
    """The trained part g: 2 * blocks + 2 convolutions; without blocks it is linear; starts at 0."""
    return nn.Sequential(conv(c_in, width), *[Block(width) for _ in range(blocks)],
                         conv(width, c_out, zero=True))


def as_rgb(x):
    """x (N, 1 or 3, H, W) as (N, 3, H, W); ValueError: other shapes, types, scales of value."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point() or x.numel() == 0:
        raise ValueError("expected float images (N, 3, H, W), or (N, 1, H, W) for grey ones, "
                         f"got {tuple(x.shape)} {x.dtype}")
    if not ((x - 0.5).abs() <= 10).all():
        raise ValueError("values must be finite and about 0..1 (noise may leave it a little): "
                         "divide 8-bit images by 255")
    return x.expand(-1, 3, -1, -1)


# %% [markdown]
# The super-resolution net:

# %%
class SRNet(nn.Module):
    """Residual super-resolution (12.7): (N, C, h, w) -> (N, C, scale h, scale w), C = 3 or 1.

    scale: integer >= 2; any h, w >= 1; float images with values in [0, 1]. ValueError otherwise.
    Before training it is bicubic enlargement.
    """

    def __init__(self, scale, width=24, blocks=3):
        super().__init__()
        if isinstance(scale, bool) or not isinstance(scale, int) or scale < 2:
            raise ValueError(f"scale must be an integer of at least 2, got {scale!r}")
        if width < 1 or blocks < 0:
            raise ValueError(f"need width >= 1 and blocks >= 0, got {width} and {blocks}")
        self.scale, self.g = scale, residual_net(3, 3 * scale**2, width, blocks)

    def forward(self, x):
        rgb = as_rgb(x)
        out = upsample(rgb, self.scale) + F.pixel_shuffle(self.g(rgb), self.scale)
        return out if x.shape[1] == 3 else out.mean(1, keepdim=True)


# %%
x_small = torch.rand(2, 3, 5, 7, generator=rng(6), dtype=torch.float64)
for s in (2, 3, 4):
    seed(0)
    net = SRNet(s).double()
    by_matrix = bicubic_matrix_loop(5, s) @ x_small @ bicubic_matrix_loop(7, s).T
    check("12.7", f"at initialisation it is bicubic, scale {s}", net(x_small), by_matrix,
          atol=1e-12)
    check("12.7", "grey in, grey out", net(x_small[:, :1]), by_matrix[:, :1], atol=1e-12)

# %%
seed(1)
nn.init.normal_(net.g[-1].weight, std=0.1)
detail = (net(x_small) - by_matrix).detach().reshape(2, 3, 5, 4, 7, 4)   # scale 4: c, i, a, j, b
by_hand = net.g(x_small).detach().reshape(2, 3, 4, 4, 5, 7).permute(0, 1, 4, 2, 5, 3)
check("12.7", "channel c s² + a s + b of g becomes pixel (s i + a, s j + b)", detail, by_hand,
      atol=1e-12)
refused(net, torch.rand(2, 5, 7))
refused(net, 255 * torch.rand(1, 3, 8, 8))
refused(SRNet, 1.5)

# %%
seed(2)
block = Block(3).double()
check("12.7", "a block starts as the identity", block(x_small), x_small)
nn.init.normal_(block.inner[2].weight)
check("12.7", "and adds to it what it learns", block(x_small) - x_small, block.inner(x_small),
      atol=1e-12)

# %% [markdown]
# **Training.** Over pairs (patch $y_k$, its small version $Ay_k$), per pixel:
#
# $$L(\theta)=\frac1{n}\sum_k\big\lVert y_k-\hat y_\theta(Ay_k)\big\rVert^2\to\min_\theta,\qquad n=\text{number of values} \tag{12.8}$$

# %%
def sr_loss(net, y, generator=None):
    """Loss (12.8) of net on true images y (N, 3, H, W): the pairs are made on the fly."""
    return (y - net(degrade(y, net.scale))).square().mean()


def fit(net, loss, patches, steps, lr, generator, batch=16):
    """Minimise loss(net, y, generator) over random batches y of patches. Returns net."""
    adam = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, lr, total_steps=steps)
    for _ in progress(range(steps)):
        rows = torch.randint(len(patches), (batch,), generator=generator)
        adam.zero_grad()
        loss(net, patches[rows.to(patches.device)], generator).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.02)
        adam.step()
        schedule.step()
    return net.eval()


# %%
y_pair = torch.rand(2, 3, 20, 28, generator=rng(7), dtype=torch.float64)
check("12.8", "the loss is F.mse_loss", sr_loss(net, y_pair), F.mse_loss(net(degrade(y_pair, 4)),
      y_pair), rtol=1e-12)
check("12.8", "and the sum of squared norms over n", sr_loss(net, y_pair), sum(
      np.linalg.norm((y - net(degrade(y, 4)[None])[0]).detach().flatten())**2 for y in y_pair)
      / y_pair.numel(), rtol=1e-12)

# %% [markdown]
# **Does depth help?** (More layers are also more parameters; the two are not separated here.) A stack of $n$ convolutions of $3\times3$ sees, from one small pixel, the square of side
#
# $$r(n)=2n+1,\qquad n=2\cdot\text{blocks}+2 \tag{12.9}$$
#
# (each layer adds one pixel on every side), so depth brings context, and non-linearity. Checked by a gradient: which inputs move one output?

# %%
for blocks in BLOCKS:
    seed(2)
    g_net = residual_net(3, 3, 8, blocks).double()
    for p in g_net.parameters():
        nn.init.uniform_(p, 0.01, 0.1)                                  # nothing cancels
    probe = torch.rand(1, 3, 41, 41, generator=rng(8), dtype=torch.float64).requires_grad_()
    [moved] = torch.autograd.grad(g_net(probe)[0, :, 20, 20].sum(), probe)
    seen = (moved[0].abs().sum(0) > 0).nonzero()                        # (number, 2)
    side = min(2 * (2 * blocks + 2) + 1, 41)
    check("12.9", f"{blocks} blocks see {side} x {side} pixels",
          [*(seen.amax(0) - seen.amin(0) + 1), len(seen)], [side, side, side**2])

# %% [markdown]
# Nets of three depths, each from several random starts:

# %%
def train_depths():
    """Trained super-resolution nets: dict (blocks, start) -> SRNet."""
    nets = {}
    for blocks in BLOCKS:
        for k in range(N_SEEDS):
            seed(k)
            net = SRNet(SCALE, WIDTH, blocks).to(device)
            nets[blocks, k] = fit(net, sr_loss, patches, STEPS_SR, LR, rng(10 + k))
    return nets


@torch.no_grad()
def restore(net, x):
    """net(x) without gradients, clipped to [0, 1]."""
    return net(x).clamp(0, 1)


sr_nets = train_depths()

# %% [markdown]
# What they gain over bicubic on the held-out photos, dB:

# %% tags=["nbval-ignore-output"]
def gain(net):
    """PSNR of a super-resolution net over bicubic's, mean over held-out photos, dB."""
    ours, bicubic = restore(net, small), classical["bicubic"].clamp(0, 1)
    return (psnr(ours, truth, 1.0) - psnr(bicubic, truth, 1.0)).mean().item()


by_depth = pd.DataFrame({f"start {start}": {2 * size + 2: gain(sr_nets[size, start])
                         for size in BLOCKS} for start in range(N_SEEDS)})
by_depth = by_depth.rename_axis("convolutions")
by_depth.assign(mean=by_depth.mean(axis=1)).round(3)

# %% [markdown]
# The table: gain over bicubic in dB. Every net beats bicubic; the linear one (two convolutions, no ReLU) already by about 0.3 dB; depth adds as much again, and the spread between random starts is ten times smaller than that.
# In the large run of 2026-11-22 (wider nets, more patches, six times as many steps) the gains were 0.34, 0.75, 0.83 and, with 16 convolutions, 0.86 dB: deeper was better, with quickly diminishing returns.

# %% [markdown]
# With wide margins:

# %%
mean_gain = by_depth.mean(axis=1)
claim("every trained net beats bicubic by over 0.1 dB", by_depth.to_numpy().min(), above=0.1,
      trivial=0.0)
claim("the deepest beats the linear one (2 convolutions)", mean_gain.iloc[-1],
      above=mean_gain.iloc[0] + 0.03, trivial=mean_gain.iloc[0])

# %% [markdown]
# Depth pays, though about half of the gain comes with the first, linear layers. The pictures, by the deepest net of the first start:

# %%
CROP = (100, 84, 64)    # top, left, side of the part that figures show, in pixels
mse_net = sr_nets[BLOCKS[-1], 0]
restored = {"truth": truth, "bicubic": classical["bicubic"].clamp(0, 1),
            "MSE net": restore(mse_net, small)}


# %% [markdown]
# A helper shows the same crop of several restorations:

# %%
def show_crops(images, which, crop=CROP):
    """Crops of image number `which` of every batch in images: dict title -> (N, 3, H, W)."""
    top, left, side = crop
    show_images({title: batch[which, :, top:top + side, left:left + side]
                 for title, batch in images.items()})
    plt.show()


# %% [markdown]
# The flower:

# %% tags=["nbval-ignore-output"]
show_crops(restored, 2)

# %% [markdown]
# The figure: the net's edges are a little firmer than bicubic's, but both are blurred: the light rims of the petals are gone. A larger net would do a little better; but even a perfect one would blur.
#
# ## 5. Why squared error blurs
#
# Let $m(x)=\mathbb E[y\mid x]$ be the **posterior mean**. For any guess $\hat y$ that depends on $x$ only, write $y-\hat y=(y-m)+(m-\hat y)$. Given $x$, the second part is a constant and the first has mean zero, so
# the cross term $2\,\mathbb E[y-m\mid x]^\top(m-\hat y)$ vanishes:
#
# $$\mathbb E\big[\lVert y-\hat y\rVert^2\mid x\big]=\mathbb E\big[\lVert y-m(x)\rVert^2\mid x\big]+\lVert m(x)-\hat y\rVert^2 \tag{12.10}$$
#
# The first term does not depend on $\hat y$. So the minimiser is $\hat y=m(x)$: **the average of all pictures that fit**, each with its probability. Averages of sharp pictures are blurred.
#
# The smallest example: two pictures, stripes of two phases, $y_1=(0,1,0,1,\dots)$ with probability $w$ and $y_2=(1,0,1,0,\dots)$. Halving the size gives $x=(\frac12,\frac12,\dots)$ for both.

# %%
STRIPES = torch.tensor([[0., 1] * 4, [1., 0] * 4], dtype=torch.float64)  # (2 pictures, 8 pixels)


def expected_loss(out, w, power):
    """E sum |y - out|^power, y = STRIPES[0] with probability w; out (..., 8) -> (...)."""
    each = (out[..., None, :] - STRIPES).abs().pow(power).sum(-1)       # (..., 2)
    return w * each[..., 0] + (1 - w) * each[..., 1]


def posterior_mean(w):
    """m(x) for the stripes: (8,)."""
    return w * STRIPES[0] + (1 - w) * STRIPES[1]


# %%
check("12.10", "both pictures have one small image",
      degrade(STRIPES.view(2, 1, 8).repeat(1, 2, 1), 2), torch.full((2, 1, 4), 0.5))
guesses = torch.randn(100, 8, generator=rng(12), dtype=torch.float64)
mean = posterior_mean(0.7)
check("12.10", "the decomposition, on 100 random guesses", expected_loss(guesses, 0.7, 2),
      expected_loss(mean, 0.7, 2) + (mean - guesses).square().sum(1), rtol=1e-12)

# %% [markdown]
# The minimiser by brute force, for either power:

# %%
def numeric_minimum(w, power):
    """Minimiser of expected_loss by brute force: pixels are independent, grid of step 0.001."""
    grid = torch.linspace(-0.5, 1.5, 2001, dtype=torch.float64)
    each = [(w * (grid - a).abs()**power + (1 - w) * (grid - b).abs()**power).argmin()
            for a, b in STRIPES.T.tolist()]
    return grid[torch.stack(each)]

# %%
check("12.10", "brute force finds the mean, a picture that never occurs", numeric_minimum(0.7, 2),
      mean, atol=1e-9)
check("12.10", "at w = 1/2 it is flat grey", posterior_mean(0.5), torch.full((8,), 0.5))

# %% [markdown]
# **Absolute error** leads to the median, pixel by pixel: with $F$ the distribution function of a pixel's value given $x$,
#
# $$\frac{d}{d\hat y}\,\mathbb E|y-\hat y|=P(y<\hat y)-P(y>\hat y)=0\quad\Longrightarrow\quad F(\hat y)=\tfrac12 \tag{12.11}$$
#
# (If single values have positive probability, the derivative may jump over 0; the minimum is where it changes its sign.) For two pictures that is the more probable one: sharp! But pixels are decided one by one: with three or more pictures the medians need not form any of them (exercise D).

# %%
law = scipy.stats.gamma(2.0)                       # a skewed law of one pixel: mean 2, median 1.68


def mean_absolute_error(a):
    """E|y - a| under `law`, by quadrature on both sides of a."""
    side = lambda low, high: scipy.integrate.quad(lambda y: abs(y - a) * law.pdf(y), low, high)[0]
    return side(0, a) + side(a, 60)


best_a = scipy.optimize.minimize_scalar(mean_absolute_error, bounds=(0, 10), method="bounded",
                                        options={"xatol": 1e-10}).x
slope_3 = (mean_absolute_error(3.001) - mean_absolute_error(2.999)) / 0.002

# %%
check("12.11", "a skewed law: at the minimiser F is one half", law.cdf(best_a), 0.5, atol=1e-5)
check("12.11", "the derivative at 3 is P(y < 3) - P(y > 3)", slope_3, 2 * law.cdf(3.0) - 1,
      atol=1e-5)
for w in (0.7, 0.4):
    likely = STRIPES[0 if w > 0.5 else 1]
    check("12.11", f"w = {w}: brute force finds the likelier picture", numeric_minimum(w, 1),
          likely, atol=1e-9)

# %% [markdown]
# **What does a sharp answer cost?** Suppose a method returns a random picture $y'$ drawn from the posterior, independently of the true $y$ given $x$: perfectly realistic, since $y'$ has the law of $y$. Then
#
# $$\mathbb E\lVert y-y'\rVert^2=\mathbb E\lVert y-m\rVert^2+\mathbb E\lVert m-y'\rVert^2=2\,\mathbb E\lVert y-m\rVert^2 \tag{12.12}$$
#
# by (12.10) with $\hat y=y'$, averaged over $y'$. Twice the least possible error: $10\log_{10}2=3.01$ dB of PSNR is the price of looking real by chance.

# %%
sampled = 0.7 * expected_loss(STRIPES[0], 0.7, 2) + 0.3 * expected_loss(STRIPES[1], 0.7, 2)
check("12.12", "stripes, all four cases", sampled, 2 * expected_loss(mean, 0.7, 2), rtol=1e-12)
g = rng(13)
y_mc, n_1, n_2 = torch.randn(3, 400_000, generator=g, dtype=torch.float64)
x_mc = y_mc + 0.5 * n_1                                                 # y | x ~ N(0.8 x, 0.2)
other = 0.8 * x_mc + 0.2**0.5 * n_2
ratio = (y_mc - other).square().mean() / (y_mc - 0.8 * x_mc).square().mean()

# %%
check("12.12", "a Gaussian posterior, 400,000 draws, |z| < 4",
      abs(ratio - 2) < 4 * 2 * (4 / 4e5)**0.5)

# %% [markdown]
# **A loss on features can be zero for both pictures.** Let $\phi(y)=|y_{j+1}-y_j|$, "how strong is the edge here" (two convolution channels, $\pm$ difference, after ReLU, added). Both stripe pictures have $\phi\equiv1$, so a loss
# $\lVert\phi(y)-\phi(\hat y)\rVert^2$ is zero for either of them, **whichever is the truth**, and largest for the grey mean, whose $\phi$ is 0. The loss is indifferent to *where* the stripes are and only insists that there are some.

# %%
def edge_loss(out, w):
    """E ||phi(y) - phi(out)||² with phi = |difference of neighbours|; out (..., 8) -> (...)."""
    each = (out.diff(dim=-1).abs()[..., None, :] - STRIPES.diff(dim=-1).abs()).square().sum(-1)
    return w * each[..., 0] + (1 - w) * each[..., 1]


u = torch.linspace(-1, 1, 41, dtype=torch.float64)
pairs = torch.cartesian_prod(u, u)                                      # all 0.5 ± u with A y = x:
both = torch.stack([0.5 + pairs[:, 0], 0.5 - pairs[:, 0], 0.5 + pairs[:, 1], 0.5 - pairs[:, 1]], 1)
losses = edge_loss(both.repeat(1, 2), 0.7)
best = both[losses < losses.min() + 1e-9]

# %%
claim("the edge loss: of all periodic pictures that fit x, the two stripes are best",
      best, STRIPES[:, :4], atol=1e-12)
by_truth = [sum(p * ((np.abs(np.diff(v)) - np.abs(np.diff(y)))**2).sum()
                for p, y in zip((0.4, 0.6), STRIPES.numpy())) for v in guesses.numpy()]
claim("the edge loss of 100 guesses, over both truths", edge_loss(guesses, 0.4), by_truth,
      rtol=1e-9)
claim("the edge loss of the mean by hand: seven steps of 0.4 where 1 is wanted",
      edge_loss(mean, 0.7), 7 * 0.6**2, rtol=1e-12)
claim("the mean, best in squared error, is far from best in edge loss",
      edge_loss(mean, 0.7), above=2, trivial=losses.min())

# %% [markdown]
# What each loss returns when the first picture has probability $w$:

# %%
def draw_stripes(w=0.7):
    """The two pictures and the minimisers of squared, absolute and edge loss."""
    rows = {rf"truth, $p={w:.2f}$": STRIPES[0], rf"truth, $p={1 - w:.2f}$": STRIPES[1],
            "best $\\|\\cdot\\|^2$: mean": posterior_mean(w),
            "best $|\\cdot|$: median": STRIPES[0 if w > 0.5 else 1],
            "best edges: one of the two": STRIPES[1]}
    fig, axes = plt.subplots(len(rows), 1, figsize=(5.4, 2.2), layout="none")
    for ax, (name, row) in zip(axes, rows.items(), strict=True):
        ax.imshow(row[None], cmap="gray", vmin=0, vmax=1, aspect="auto")
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    fig.subplots_adjust(left=0.45)
    plt.show()


draw_stripes()

# %% [markdown]
# The figure: squared error answers with grey stripes that no picture has; absolute error with the likelier picture; the edge loss with *a* picture, here the wrong one: a hallucination.
#
# ## 6. Perceptual loss: sharp, and partly invented
#
# Compare features instead of pixels (Johnson et al. 2016). With a frozen net's activations $\phi_l$ and $n_l=C_lH_lW_l$:
#
# $$L_\phi(\theta)=\sum_{l}\frac1{n_l}\big\lVert\phi_l(y)-\phi_l(\hat y_\theta(x))\big\rVert^2\to\min_\theta \tag{12.13}$$
#
# $\phi$ is VGG-19 up to conv5_1, after ReLU. Default: a small net of the same plan, a quarter of the channels and average pooling, which this course trained to tell patches of photos apart
# ([how, and on which photos](../data/make_features.py)); it has not seen the four held-out photos.
#
# Its weights are scaled so that every layer answers photos with mean activation 1, so no layer of the sum drowns the others.

# %% [markdown]
# The loss, and which layers: those near the input keep the colours, deeper ones ask for texture. `JUDGE` takes no part in training; it will judge the result.

# %%
LAYERS = ("conv1_2", "conv2_2", "conv3_2")
JUDGE = "conv4_1"


def feature_loss(features, out, y, layers=LAYERS):
    """L_phi of (12.13), mean over the batch; out, y (N, 3, H, W), H, W >= 16. Scalar."""
    ours, theirs = features(out, layers), features(y, layers)
    return sum((ours[name] - theirs[name]).square().mean() for name in layers)


# %%
features = feature_net(FEATURES).to(device)
features_64 = copy.deepcopy(features).double().cpu()
y_f, out_f = torch.rand(2, 2, 3, 16, 16, generator=rng(14), dtype=torch.float64)
parts = [F.mse_loss(features_64(out_f)[name], features_64(y_f)[name]).item() for name in LAYERS]
check("12.13", "the loss is a sum of F.mse_loss over layers", feature_loss(features_64, out_f, y_f),
      sum(parts), rtol=1e-12)
check("12.13", "zero for the truth", feature_loss(features_64, y_f, y_f), 0.0)

# %% [markdown]
# Its gradient flows through the frozen net into the image (and on into $\theta$). Along a random direction it must agree with a finite difference:

# %%
start, way = out_f.clone().requires_grad_(), torch.randn(out_f.shape, generator=rng(15)).double()
[slope] = torch.autograd.grad(feature_loss(features_64, start, y_f), start)
ends = [feature_loss(features_64, out_f + h * way, y_f) for h in (-1e-5, 1e-5)]
check("12.13", "autograd agrees with a finite difference", (slope * way).sum(),
      (ends[1] - ends[0]) / 2e-5, rtol=1e-4)

# %%
check("12.13", "no gradient stays in the frozen net",
      all(not p.requires_grad for p in features.parameters()))

# %% [markdown]
# Training continues from the net of section 4, twice: with (12.13) in place of (12.8), nothing else changed, and with (12.13) plus a weighted (12.8), which ties the picture to the pixels:

# %%
def perceptual_sr_loss(net, y, generator=None, pixels=0.0):
    """(12.13) + pixels * (12.8) of a super-resolution net on true images y."""
    out = net(degrade(y, net.scale))
    return feature_loss(features, out, y) + pixels * (y - out).square().mean()


def with_pixels(net, y, generator=None):
    """The mixed loss: (12.13) + PIXEL_WEIGHT * (12.8)."""
    return perceptual_sr_loss(net, y, pixels=PIXEL_WEIGHT)


sharp_net, mixed_net = (fit(copy.deepcopy(mse_net), loss, patches, STEPS_PERCEPTUAL, LR / 2,
                            rng(16), batch=8) for loss in (perceptual_sr_loss, with_pixels))
restored["perceptual net"] = restore(sharp_net, small)
restored["perceptual + pixels"] = restore(mixed_net, small)

# %% [markdown]
# Besides PSNR and SSIM, two numbers of realism: the distance of features at `JUDGE`, and the **sharpness**, mean absolute difference of neighbouring pixels relative to the truth's.

# %%
@torch.no_grad()
def judged(out, y):
    """scores(out, y), feature distance at JUDGE and relative sharpness, means over the batch."""
    a, b = features(out.clamp(0, 1), JUDGE)[JUDGE], features(y, JUDGE)[JUDGE]
    steps = [(v.diff(dim=-1).abs().mean() + v.diff(dim=-2).abs().mean()).item() for v in (out, y)]
    return {**scores(out, y), "feature distance": (a - b).square().mean().item(),
            "sharpness": steps[0] / steps[1]}


# %% [markdown]
# One thing more is measured: the **grid**. The change that the second training made is averaged over all blocks of $s\times s$ pixels of a photo; what remains of the average is a pattern that repeats in every block, whatever the
# photo shows there. It is subtracted, and the rest judged again.

# %%
def without_grid(out, before, scale):
    """out (N, C, H, W) less the mean block (scale x scale) of its change out - before."""
    N, C, H, W = out.shape
    blocks = (out - before).reshape(N, C, H // scale, scale, W // scale, scale)
    return (out - blocks.mean((2, 4)).repeat(1, 1, H // scale, W // scale)).clamp(0, 1)


waves = torch.rand(2, 3, 8, 12, generator=rng(19))
pattern = torch.rand(2, 3, 4, 4, generator=rng(20)).repeat(1, 1, 2, 3) / 10
claim("a pattern that repeats in every block is removed, and nothing else",
      without_grid(0.5 + 0.1 * waves + pattern, 0.5 + 0.1 * waves, 4), 0.5 + 0.1 * waves, atol=1e-6)

# %% tags=["nbval-ignore-output"]
judged_too = {name: out for name, out in restored.items() if name != "truth"}
judged_too["perceptual net, grid removed"] = without_grid(
    restored["perceptual net"], restored["MSE net"], SCALE)
table = pd.DataFrame({name: judged(out, truth) for name, out in judged_too.items()}).T
for name in ("bicubic", "MSE net", "perceptual net", "perceptual + pixels"):
    measured(f"psnr {name}", table.loc[name, "PSNR"])
table.round(3)

# %% [markdown]
# Read the table from below. The perceptual net has the worst PSNR of all and by far the greatest "sharpness"; but without its grid most of that sharpness is gone and PSNR has risen: the number had measured the artefact. With the squared
# error beside it the same number of steps gives a net that is nearer in features than the MSE net, and in pixels nearer than the purely perceptual one.

# %%
sharp, bare, flat, mixed = (table.loc[name] for name in (
    "perceptual net", "perceptual net, grid removed", "MSE net", "perceptual + pixels"))
claim("perceptual net: farther from the truth in pixels than the MSE net", sharp["PSNR"],
      below=flat["PSNR"] - 0.2, trivial=flat["PSNR"])
claim("more than half of its sharpness beyond the MSE net's is the grid",
      (sharp["sharpness"] - bare["sharpness"]) / (sharp["sharpness"] - flat["sharpness"]),
      above=0.5, trivial=0.0)
claim("removing the grid raises its PSNR", bare["PSNR"], above=sharp["PSNR"] + 0.1,
      trivial=sharp["PSNR"])
claim("with pixels: nearer in features than the MSE net", mixed["feature distance"],
      below=flat["feature distance"], trivial=flat["feature distance"])
claim("with pixels: a higher PSNR than the purely perceptual net", mixed["PSNR"],
      above=sharp["PSNR"] + 0.1, trivial=sharp["PSNR"])

# %% [markdown]
# The same crop of the cat and of the flower:

# %% tags=["nbval-ignore-output"]
CHOSEN = ("truth", "MSE net", "perceptual net", "perceptual + pixels")
show_crops({name: restored[name] for name in CHOSEN}, 0)
show_crops({name: restored[name] for name in CHOSEN}, 2)

# %% [markdown]
# The MSE net blurs fur and petals into smooth patches. The perceptual net covers fur and smooth parts with a regular grid; the mixed net stays closer to the photo.

# %% tags=["nbval-ignore-output"]
errors = {f"{4:d} × |error|, {name}": (4 * (restored[name] - truth).abs()).mean(1, keepdim=True)
          for name in ("MSE net", "perceptual net")}
errors["what the second loss added"] = 0.5 + 2 * (restored["perceptual net"] - restored["MSE net"])
show_crops(errors, 2, (100, 94, 64))

# %% [markdown]
# Error maps of the flower; right, the change that the second loss made (grey: none). How much of that change could the small image contradict? Split it with the projector $P_0$ of (12.5):

# %%
def invisible_share(change, scale):
    """Share of the energy of an image that lies in the null space of A: ||P_0 v||² / ||v||²."""
    inside = consistent(change, torch.zeros_like(degrade(change, scale)), scale)
    return inside.square().sum() / change.square().sum()


v_8 = torch.randn(1, 8, 8, generator=rng(17), dtype=torch.float64)
A_8 = degradation_matrix(8, 8, 4).numpy()
by_pinv = v_8.flatten().numpy() - np.linalg.pinv(A_8) @ (A_8 @ v_8.flatten().numpy())

# %%
check("12.5", "the share, by numpy's pseudoinverse", invisible_share(v_8, 4),
      (by_pinv**2).sum() / v_8.square().sum(), rtol=1e-10)

# %% [markdown]
# And here, beside the same share of white noise, and beside how far each method's answer, made small again, is from the small image that it was given:

# %% tags=["nbval-ignore-output"]
change = restored["perceptual net"] - restored["MSE net"]
white = torch.randn(change.shape, generator=rng(21)).to(change)
shares = {"change by the perceptual loss": change, "white noise": white,
          "MSE net against bicubic": restored["MSE net"] - restored["bicubic"]}
shares = {name: invisible_share(v, SCALE).item() for name, v in shares.items()}
off = {name: (degrade(out, SCALE) - small).square().mean().sqrt().item()
       for name, out in restored.items()}
print({name: f"{share:.0%} invisible" for name, share in shares.items()})
print({name: f"rms(A ŷ - x) = {value:.4f}" for name, value in off.items()})

# %%
claim("the change is less hidden in the null space than white noise would be",
      shares["change by the perceptual loss"], below=shares["white noise"] - 0.05,
      trivial=shares["white noise"])
claim("the perceptual net contradicts its own input more than the MSE net does",
      off["perceptual net"], above=2 * off["MSE net"], trivial=off["MSE net"])

# %% [markdown]
# A share alone says little: of white noise, too, nearly everything is invisible, since the null space has $s^2-1$ of every $s^2$ dimensions. Its change is *less* hidden than noise: the perceptual net does not only write where $x$ is silent, it also
# writes against $x$. What lies in the null space may be like the truth or not (then it is a hallucination); $x$ cannot tell, and the loss does not care, as with the stripes.
#
# **The grid artefact.** A regular pattern of period $s$ on plain surfaces. Pixel shuffle writes the $s^2$ pixels of a block with $s^2$ different filters, which nothing forces to agree; what else contributes was not isolated here. A number for it: the mean absolute difference $|\hat y_{j+1}-\hat y_j|$ as a function of $j\bmod s$. Photos do not know where our blocks begin: it is flat for the truth.

# %%
def phase_profile(out, scale):
    """Mean |difference of neighbouring columns| by j mod scale, over its mean: (scale,)."""
    steps = out.diff(dim=-1).abs().mean(tuple(range(out.ndim - 1)))     # (W - 1,)
    by_phase = torch.stack([steps[k::scale].mean() for k in range(scale)])
    return by_phase / by_phase.mean()


profiles = {name: phase_profile(out, SCALE) for name, out in restored.items()}
uneven = {name: float(profile.max() - profile.min()) for name, profile in profiles.items()}
stripes_3 = torch.tensor([0., 0, 1] * 4).expand(1, 2, 12)

# %% tags=["nbval-ignore-output"]
check("12.5", "the profile by hand: a line of period 3 jumps at phases 1 and 2",
      phase_profile(stripes_3, 3), [0, 1.5, 1.5], atol=1e-6)

print({name: round(value, 2) for name, value in uneven.items()})

# %% [markdown]
# The profiles:

# %% tags=["nbval-ignore-output"]
fig, ax = plt.subplots(figsize=(5.6, 2.8))
for (name, profile), mark in zip(profiles.items(), "osD^v", strict=True):
    ax.plot(range(SCALE), profile.cpu(), marker=mark, label=name)
ax.set(xticks=range(SCALE), xlabel="column $j$ mod $s$", ylim=(0, 2.2),
       ylabel="relative mean of $|\\hat y_{j+1}-\\hat y_j|$")
ax.legend(ncols=2)
plt.show()

# %% [markdown]
# For the truth and bicubic all columns are alike; for the three nets they are not, and the pixel term has not evened them out (the profile is relative to the mean step, which is smaller there).
#
# ## 7. The perception–distortion trade-off
#
# **Distortion** $D=\mathbb E\lVert y-\hat y\rVert^2$ asks how far the answer is from the truth; **perception** $P=d(p_{\hat y},p_y)$ asks how far the *distribution* of answers is from that of real images: can one tell, without knowing the truth,
# that this is not a photo? Blau and Michaeli (2018) showed that the least $P$ at a given $D$ is non-increasing (and convex if $d$ is), for any such distance: beyond some point, looking more real means being more wrong.
#
# The Gaussian case can be computed. Let $y\sim\mathcal N(0,1)$ and let the posterior mean $m$ have variance $\rho^2\le1$, so that $\mathbb E(y-m)^2=1-\rho^2$. Take any $\hat y=am+b\varepsilon$ with fresh noise $\varepsilon$; its standard deviation is
# $q=\sqrt{a^2\rho^2+b^2}$, and the 2-Wasserstein distance of $\mathcal N(0,q^2)$ to $\mathcal N(0,1)$ is $P=|1-q|$. By (12.10)
# $$D=1-\rho^2+(1-a)^2\rho^2+b^2=1-2a\rho^2+q^2 .$$
# At fixed $q$ the best $a$ is the largest, $a=q/\rho$, $b=0$ (no noise: **stretch** the mean): $D=1-\rho^2+(\rho-q)^2$. To get within $P$ of the true law, $q\ge1-P$ is needed, which costs something only if $\rho<1-P$:
#
# $$D(P)=\underbrace{1-\rho^2}_{\text{least error}}+\big(\max(0,\ (1-\rho)-P)\big)^2,\qquad D(0)=2(1-\rho)\le2(1-\rho^2) \tag{12.14}$$

# %%
def least_distortion(P, rho):
    """D(P) of (12.14) for y ~ N(0, 1), posterior mean of standard deviation rho; P >= 0 (array)."""
    return 1 - rho**2 + np.maximum(0, 1 - rho - np.asarray(P))**2


rho, P_grid = 0.6, np.array([0.0, 0.1, 0.25, 0.4, 0.6])
q, angle = np.meshgrid(np.linspace(0, 2, 401), np.linspace(-np.pi, np.pi, 401))
a, b = q * np.cos(angle) / rho, q * np.sin(angle)                       # all of a m + b eps
D_all = 1 - rho**2 + (1 - a)**2 * rho**2 + b**2
brute = [D_all[abs(1 - q) <= P + 1e-9].min() for P in P_grid]

# %%
check("12.14", "D(P) is the best of 160,000 estimators", least_distortion(P_grid, rho), brute,
      atol=1e-4)

# %%
g = rng(18)
m_mc, rest = rho * torch.randn(400_000, generator=g).double(), torch.randn(400_000, generator=g)
y_mc = m_mc + (1 - rho**2)**0.5 * rest
D_mc = (y_mc - m_mc / rho).square()                                     # stretched: exactly N(0, 1)
check("12.14", "the stretched mean, Monte Carlo, |z| < 4",
      abs(D_mc.mean() - 2 * (1 - rho)) < 4 * D_mc.std() / 4e5**0.5 < 0.01)
check("12.14", "perfect realism costs less than the 3 dB of (12.12)",
      least_distortion(0, rho) < 2 * (1 - rho**2))

# %% [markdown]
# Our nets lie on such a curve. Their parameters may even be **interpolated**, $\theta=(1-\tau)\theta_{\text{MSE}}+\tau\theta_{\text{perceptual}}$ (Wang et al. 2018), because the second started from the first:

# %%
@torch.no_grad()
def blend(first, second, tau):
    """A net with parameters (1 - tau) * first's + tau * second's."""
    net = copy.deepcopy(first)
    for p, q in zip(net.parameters(), second.parameters(), strict=True):
        p.lerp_(q, tau)
    return net


seed(7)
pair_nets = SRNet(2, 4, 1), SRNet(2, 4, 1)
ends = [nn.utils.parameters_to_vector(n.parameters()).detach() for n in pair_nets]

# %%
check("12.14", "a quarter of the way, parameter by parameter", nn.utils.parameters_to_vector(
      blend(*pair_nets, 0.25).parameters()), 0.75 * ends[0] + 0.25 * ends[1], atol=1e-6)
check("12.14", "the first net itself does not move",
      nn.utils.parameters_to_vector(pair_nets[0].parameters()), ends[0])

# %% [markdown]
# Five nets on the way, and the classical methods:

# %%
curve = [judged(restore(blend(mse_net, sharp_net, tau), small), truth)
         for tau in (0.0, 0.25, 0.5, 0.75, 1.0)]
dots = {name: judged(enlarged, truth) for name, enlarged in classical.items()}

# %% [markdown]
# Distortion against perception:

# %% tags=["nbval-ignore-output"]
fig, ax = plt.subplots(figsize=(5.8, 3.2))
ax.plot([v["feature distance"] for v in curve], [v["PSNR"] for v in curve], "o-",
        label="MSE net (top) to perceptual net")
for (name, v), mark in zip(dots.items(), "sD^", strict=True):
    ax.plot(v["feature distance"], v["PSNR"], mark, color="0.4", label=name)
ax.set(xlabel=f"feature distance at {JUDGE} (left: more real)", ylabel="PSNR, dB (up: closer)")
ax.legend()
plt.show()

# %% [markdown]
# No net of the line is best in both; the classical methods lie far to the right of it. "Which is better?" has no answer without the purpose: a wallpaper wants the left, a medical image the top. (The feature distance compares pairs of images, so it stands in for the
# distance of distributions; it is not the $P$ of the theorem.)
#
# ## 8. Inpainting
#
# Now $x=m\odot y$: the pixels with $m=1$ are known exactly, those with $m=0$ not at all. The loss is over the **unknown** part,
#
# $$L(\theta)=\frac{1}{n_0}\big\lVert(1-m)\odot\big(y-g_\theta(m\odot y,m)\big)\big\rVert^2,\qquad n_0=\text{number of unknown values} \tag{12.15}$$
#
# (without $1/n_0$ it is the same problem for one mask; with it, images with small holes count as much as those with large ones). The answer keeps what is known:
#
# $$\hat y=m\odot y+(1-m)\odot g_\theta(m\odot y,m) \tag{12.16}$$

# %%
def require_mask(m, x):
    """m (N, 1, H, W) as floats of x's type; ValueError unless it holds only 0 and 1 and fits x."""
    if m.ndim != 4 or m.shape != (len(x), 1, *x.shape[-2:]):
        raise ValueError(f"the mask must be {(len(x), 1, *x.shape[-2:])}, got {tuple(m.shape)}")
    m = m.to(x)
    if not ((m == 0) | (m == 1)).all():
        raise ValueError("a mask holds only 1 (known) and 0 (missing); round it first")
    if not m.flatten(1).any(1).all():
        raise ValueError("a mask hides the whole image: there is nothing to restore from")
    return m


def masked_loss(y, out, m):
    """Loss (12.15) over unknown values, averaged over images; y, out (N, C, H, W), m (N, 1, H, W).

    ValueError: shapes, a bad mask, or an image without unknown pixels.
    """
    m, missing = require_mask(m, y), (1 - m.to(y)).expand_as(y)
    n_0 = missing.flatten(1).sum(1)
    if y.shape != out.shape or not n_0.all():
        raise ValueError("y and out must have one shape and every mask some missing pixel, got "
                         f"{tuple(y.shape)}, {tuple(out.shape)}, unknown values {n_0.tolist()}")
    return ((missing * (y - out)).square().flatten(1).sum(1) / n_0).mean()


def composite(x, out, m):
    """(12.16): x where m = 1, out where m = 0."""
    return torch.where(m.bool(), x, out)


# %% [markdown]
# The hand oracle: constant images. If truth is 0.7 and the answer 0.4, the loss is 0.09 whatever the mask; what the answer holds at known pixels does not matter; nor does the gradient reach it.

# %%
m_toy = (torch.rand(2, 1, 6, 5, generator=rng(19)) < 0.6).double()
y_7, out_4 = (torch.full((2, 3, 6, 5), v, dtype=torch.float64) for v in (0.7, 0.4))
check("12.15", "constant images: 0.3²", masked_loss(y_7, out_4, m_toy), 0.09, atol=1e-12)
check("12.15", "known pixels do not count", masked_loss(y_7, out_4 + 5 * m_toy, m_toy), 0.09,
      atol=1e-12)
y_r, out_r = torch.rand(2, 2, 3, 6, 5, generator=rng(20), dtype=torch.float64)

# %%
by_images = [F.mse_loss(out[:, k[0] == 0], y[:, k[0] == 0]) for out, y, k in zip(out_r, y_r, m_toy)]
check("12.15", "per image, F.mse_loss of the unknown pixels", masked_loss(y_r, out_r, m_toy),
      sum(by_images) / 2, rtol=1e-12)

# %%
leaf = out_r.clone().requires_grad_()
[slope] = torch.autograd.grad(masked_loss(y_r, leaf, m_toy), leaf)
check("12.15", "the gradient is zero exactly at known pixels", slope != 0,
      (1 - m_toy).expand_as(slope))

# %%
check("12.16", "the composite keeps known pixels and takes the rest", composite(y_r, out_r, m_toy),
      np.where(m_toy.numpy() == 1, y_r.numpy(), out_r.numpy()))
refused(masked_loss, y_7, out_4, 0.5 * m_toy)
refused(masked_loss, y_7, out_4, torch.zeros(2, 1, 6, 5))
refused(masked_loss, y_7, out_4, torch.ones(2, 1, 6, 5))
refused(masked_loss, y_7, out_4[..., :4], m_toy)

# %% [markdown]
# **Two classical guesses.** As bicubic before, we want a good guess that needs no training: a smooth surface spanned over the hole. Let $\Delta u=u_\uparrow+u_\downarrow+u_\leftarrow+u_\rightarrow-4u$. First fill every missing pixel with
# the mean of the known ones in the smallest window that has any. Then let a *membrane* relax: each missing pixel becomes the mean of its neighbours,
#
# $$u\leftarrow u+\tfrac14(1-m)\odot\Delta u\qquad\text{with limit}\quad\Delta u=0\ \text{at missing pixels} \tag{12.17}$$
#
# A membrane has a kink at the edge of the hole. A bent *plate* continues slopes too: it minimises $E(u)=\frac12\lVert\Delta u\rVert^2$. As a matrix, $\Delta$ is symmetric, so $\nabla E=\Delta\Delta u$. The eigenvalues of $\Delta$ lie in $(-8,0]$, those of $\Delta\Delta$
# below $8^2=64$, so gradient steps below $2/64$ shrink every error; with momentum $v$ and factor $\beta$ the bound is $2(1+\beta)/64$. We take half of it, and with $\beta=\frac12$ fewer steps are needed:
#
# $$v\leftarrow\beta v-\tfrac{1+\beta}{64}(1-m)\odot\Delta\Delta u,\quad u\leftarrow u+v\qquad\text{with limit}\quad\Delta\Delta u=0\ \text{at missing pixels} \tag{12.18}$$
#
# The limit is the *biharmonic* filling of scikit-image, a strong competitor.

# %%
def window_fill(x, m):
    """Missing pixels = mean of the known ones in the smallest window (side 3, 5, 9, …) with any.

    x (N, C, H, W), m (N, 1, H, W) of 0 and 1; missing pixels may hold anything, NaN too.
    ValueError: see require_mask.
    """
    m = require_mask(m, x)
    out, todo, r = torch.where(m == 1, x, 0), m == 0, 1
    while todo.any():
        k, half = 2 * r + 1, (r, 0)                                     # columns, then rows
        total, count = (F.avg_pool2d(F.avg_pool2d(v, (k, 1), 1, half), (1, k), 1, half[::-1])
                        for v in (torch.where(m == 1, x, 0), m))
        reached = todo & (count > 0)
        out = torch.where(reached, total / count.clamp(min=1e-12), out)
        todo, r = todo & ~reached, 2 * r
    return out


def laplace(u):
    """Sum of the four neighbours minus 4 u, edge pixels repeated; (N, C, H, W) -> same."""
    p = F.pad(u, (1, 1, 1, 1), mode="replicate")
    return p[..., 2:, 1:-1] + p[..., :-2, 1:-1] + p[..., 1:-1, 2:] + p[..., 1:-1, :-2] - 4 * u


# %% [markdown]
# The guess:

# %%
@torch.no_grad()
def smooth_guess(x, m, membrane=5, plate=0, beta=0.5):
    """Fill, then steps of (12.17) and (12.18); x (N, C, H, W), m (N, 1, H, W) -> as x."""
    m = require_mask(m, x)
    u = window_fill(x, m)
    for _ in range(membrane):
        u = u + (1 - m) * laplace(u) / 4
    v = torch.zeros_like(u)
    for _ in range(plate):
        v = beta * v - (1 + beta) / 64 * (1 - m) * laplace(laplace(u))
        u = u + v
    return u


# %% [markdown]
# Checks on a grey photo of $12\times12$ with a hole of $4\times4$. The fill against a loop:

# %%
x_h = degrade(truth[1:2, :1, 60:156, 60:156], 8).double().cpu()         # (1, 1, 12, 12)
m_h = torch.ones_like(x_h)
m_h[..., 4:8, 3:7] = 0
known, filled = m_h[0, 0] == 1, x_h[0, 0].clone()
for i, j in (~known).nonzero().tolist():
    r = 1 if i in (4, 7) or j in (3, 6) else 2                          # window that reaches out
    box = (slice(i - r, i + r + 1), slice(j - r, j + r + 1))
    filled[i, j] = x_h[0, 0][box][known[box]].mean()

# %%
check("12.17", "the first fill, in a loop", window_fill(x_h, m_h)[0, 0], filled, atol=1e-12)

# %% [markdown]
# The limits against linear systems $(\Delta)_{UU}u_U=-(\Delta)_{UK}x_K$ for unknown $U$ and known $K$ pixels, and against scikit-image; one step against the matrix:

# %%
D = np.diff(np.eye(12), axis=0)
L = -(np.kron(D.T @ D, np.eye(12)) + np.kron(np.eye(12), D.T @ D))      # Δ as a matrix (144, 144)
K, x_flat = known.flatten().numpy(), x_h.flatten().numpy()

# %%
for eq, matrix, steps in (("12.17", L, (2000, 0)), ("12.18", L @ L, (0, 20_000))):
    solved = x_flat.copy()
    solved[~K] = np.linalg.solve(matrix[~K][:, ~K], -matrix[~K][:, K] @ x_flat[K])
    check(eq, "the limit solves the linear system", smooth_guess(x_h, m_h, *steps).flatten(),
          solved, atol=1e-6)

# %%
u_0, out_0 = window_fill(x_h, m_h).flatten().numpy(), ~K
one = [u_0 + out_0 * (L @ u_0) / 4, u_0 - out_0 * (L @ L @ u_0) * 1.5 / 64]
check("12.17", "one membrane step", smooth_guess(x_h, m_h, 1, 0).flatten(), one[0], atol=1e-12)
check("12.18", "one plate step", smooth_guess(x_h, m_h, 0, 1).flatten(), one[1], atol=1e-12)
two = one[1] + 0.5 * (one[1] - u_0) - out_0 * (L @ L @ one[1]) * 1.5 / 64

# %%
check("12.18", "two plate steps, with momentum", smooth_guess(x_h, m_h, 0, 2).flatten(), two,
      atol=1e-12)
by_skimage = skimage.restoration.inpaint_biharmonic((x_h * m_h)[0, 0].numpy(), ~known.numpy())
check("12.18", "the plate is scikit-image's biharmonic filling", solved.clip(x_flat[K].min(),
      x_flat[K].max()).reshape(12, 12), by_skimage, atol=1e-8)

# %% [markdown]
# **The net** starts from five membrane steps; what else is to be known about pictures, it must learn: $g_\theta(m\odot y,m)=\text{guess}+\text{net}(\text{guess},m)$. It must be **told the mask**: a black pixel and a missing pixel are the same number in $m\odot y$.

# %%
class InpaintNet(nn.Module):
    """g(x, m) of (12.15): (N, C, H, W), C = 3 or 1, and mask (N, 1, H, W) -> prediction, as x.

    Missing pixels (m = 0) may hold anything. Any H, W. Before training: smooth_guess. Use
    composite(x, net(x, m), m) for the restored image. ValueError: see as_rgb, require_mask.
    """

    def __init__(self, width=16, blocks=2):
        super().__init__()
        self.g = residual_net(4, 3, width, blocks)

    def forward(self, x, m):
        m = require_mask(m, x)
        rgb = as_rgb(composite(x, torch.zeros_like(x), m))
        start = smooth_guess(rgb, m)
        out = start + self.g(torch.cat([start, m], 1))
        return out if x.shape[1] == 3 else out.mean(1, keepdim=True)


# %%
seed(3)
net = InpaintNet().double()
check("12.15", "before training it is the classical guess", net(x_h, m_h), smooth_guess(x_h, m_h),
      atol=1e-12)
nn.init.normal_(net.g[-1].weight, std=0.1)
guess = smooth_guess(x_h, m_h).expand(1, 3, 12, 12)                     # grey as three channels
check("12.15", "trained, it is the guess plus g(guess, mask)", net(x_h, m_h),
      (guess + net.g(torch.cat([guess, m_h], 1))).mean(1, keepdim=True), atol=1e-12)
spoiled = composite(x_h, torch.full_like(x_h, torch.nan), m_h)

# %%
check("12.15", "the answer depends on known pixels only", net(spoiled, m_h), net(x_h, m_h))
other_m = m_h.roll(1, -1)
dark = x_h * m_h * other_m                                              # black where either is 0
check("12.15", "one and the same x, two masks: two answers",
      (net(dark, m_h) - net(dark, other_m)).abs().max() > 0.01)
refused(net, x_h.repeat(1, 2, 1, 1), m_h)
refused(net, x_h, m_h[..., :5])

# %% [markdown]
# **A loss on the known part is useless.** The guess copies known pixels, so that loss is zero at the start, with a zero gradient: nothing is learned, for ever. (In any net, the identity map makes it zero.)

# %%
seed(3)
net = InpaintNet().double()
known_loss = (m_h * (x_h - net(x_h, m_h))).square().sum()
known_loss.backward()

# %%
check("12.15", "on known pixels: loss 0 and gradient 0 before any training",
      known_loss == 0 and all((p.grad == 0).all() for p in net.parameters()))
net.zero_grad()
masked_loss(x_h, net(x_h, m_h), m_h).backward()

# %%
check("12.15", "on unknown pixels there is something to learn",
      any((p.grad != 0).any() for p in net.parameters()))

# %% [markdown]
# Masks for training: thin scratches and square holes of 6 and 12 pixels.

# %%
def scratch_masks(n, size, lines, width, generator):
    """n masks (n, 1, size, size) with straight scratches of a width in pixels."""
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    angle = math.pi * torch.rand(n, lines, 1, 1, generator=generator)
    top, left = size * torch.rand(2, n, lines, 1, 1, generator=generator)
    distance = (j - left) * angle.sin() - (i - top) * angle.cos()
    return (distance.abs() >= width / 2).all(1, keepdim=True).float()


def hole_masks(n, size, side, count, generator):
    """n masks (n, 1, size, size) with `count` square holes, side in pixels."""
    m = torch.ones(n, 1, size, size)
    for k in range(n):
        for top, left in torch.randint(size - side + 1, (count, 2), generator=generator).tolist():
            m[k, 0, top:top + side, left:left + side] = 0
    return m


# %% [markdown]
# Are they what they claim? A hole of side 6 has 36 missing pixels in 6 rows and 6 columns. A scratch of width $b$ is a strip: across it the pixels have standard deviation $b/\sqrt{12}$, along it $\ell/\sqrt{12}$, and there are about $b\ell$ of them. Principal axes measure that in any direction:

# %%
def strip(m):
    """Width, length, number of missing pixels and cosine of the direction of one scratch."""
    points = (m[0] == 0).nonzero().double()                             # (n, 2)
    _, spread, axes = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    length, width = (spread * (12 / len(points))**0.5).tolist()
    return width, length, len(points), abs(axes[0, 0].item())


ones = hole_masks(40, 32, 6, 1, rng(38))
cuts = [strip(m) for m in scratch_masks(60, 64, 1, 5, rng(41)) if (m == 0).sum() > 200]
widths, lengths, counts, cosines = np.array(cuts).T
missing_at = [(1 - ones).flatten(1).sum(1), *((1 - ones).amax((1, d)).sum(1) for d in (2, 3))]

# %%
check("12.15", "holes: 36 pixels, 6 rows, 6 columns", torch.stack(missing_at, 1),
      torch.tensor([36.0, 6, 6]).expand(40, 3))
check("12.15", "scratches of width 5: strips, about 5 pixels across",
      (abs(widths - 5) < 0.5).all() and (abs(counts / lengths - 5) < 0.5).all())
check("12.15", "most cross the image, in every direction",
      len(cuts) > 40 and cosines.min() < 0.2 and cosines.max() > 0.98)

# %% [markdown]
# Training on corners of $32\times32$ of the patches:

# %%
g = rng(21)
masks = torch.cat([scratch_masks(300, 32, 3, 3, g), hole_masks(150, 32, 6, 1, g),
                   hole_masks(150, 32, 12, 1, g)])
masks = masks[(masks.flatten(1).mean(1) < 1) & masks.flatten(1).any(1)].to(device)  # some of each


def inpaint_loss(net, y, generator):
    """Loss (12.15) with a random mask for every patch."""
    y, rows = y[..., :32, :32], torch.randint(len(masks), (len(y),), generator=generator)
    m = masks[rows.to(y.device)]
    return masked_loss(y, net(y, m), m)


seed(4)
inpaint_net = fit(InpaintNet(WIDTH_FINE, BLOCKS_FINE).to(device), inpaint_loss, patches,
                  STEPS_INPAINT, LR, rng(22), batch=8)

# %% [markdown]
# The test on whole held-out photos: masks like those of training, and others (larger holes; half of all pixels missing at random). PSNR over missing pixels only, from the mean error of the four photos.

# %%
g = rng(23)
test_masks = {"scratches, 3 px": scratch_masks(4, TEST_SIZE, 12, 3, g),
              "holes, 8 px": hole_masks(4, TEST_SIZE, 8, 16, g),
              "holes, 12 px": hole_masks(4, TEST_SIZE, 12, 16, g),
              "holes, 24 px (new)": hole_masks(4, TEST_SIZE, 24, 6, g),
              "half of the pixels (new)":
              torch.rand(4, 1, TEST_SIZE, TEST_SIZE, generator=g) < 0.5}
test_masks = {name: m.float().to(device) for name, m in test_masks.items()}


def biharmonic(x, m):
    """scikit-image's biharmonic filling of a batch; x (N, 3, H, W), m (N, 1, H, W)."""
    pairs = zip((x * m).permute(0, 2, 3, 1).cpu().numpy(), m[:, 0].cpu().numpy() == 0)
    done = [skimage.restoration.inpaint_biharmonic(v, hole, channel_axis=2) for v, hole in pairs]
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).to(x)


# %% [markdown]
# Every method sees $m\odot y$ and $m$:

# %%
methods = {"membrane": smooth_guess, "plate, 10 steps": lambda x, m: smooth_guess(x, m, 5, 10),
           "biharmonic": biharmonic, "MSE net": lambda x, m: inpaint_net(x, m).detach()}


def fill_all():
    """Fillings of the held-out photos: dict (kind of mask, method) -> (4, 3, H, W)."""
    return {(kind, name): method(truth * m, m).clamp(0, 1)
            for kind, m in test_masks.items() for name, method in methods.items()}


filled = fill_all()

# %% [markdown]
# PSNR in the holes, dB:

# %% tags=["nbval-ignore-output"]
def hole_psnr(kind, name):
    """PSNR over missing pixels of the photos together, dB."""
    return -10 * masked_loss(truth, filled[kind, name], test_masks[kind]).log10().item()


in_holes = pd.DataFrame({way: {what: hole_psnr(what, way) for what in test_masks}
                         for way in methods})
for way in methods:
    for kind in test_masks:
        measured(f"{way}, {kind}", in_holes.loc[kind, way])
in_holes.round(2)

# %% [markdown]
# Honestly: after these few steps on ten photos the net improves the membrane on scratches and on scattered pixels, hardly on holes, and the **biharmonic plate, without any training, is better wherever the holes are small**: continuing slopes is
# worth more than what the net has learned. For large holes the plate overshoots, and membrane and net are as good or better. (A net that starts from the plate gained nothing at all on held-out photos in runs of this size.)
# The full run (wider, 1,500 steps), net (biharmonic; ten plate steps): scratches <!--full:12.MSE net, scratches, 3 px-->26.30<!--/full--> (<!--full:12.biharmonic, scratches, 3 px-->26.43<!--/full-->; <!--full:12.plate, 10 steps, scratches, 3 px-->26.41<!--/full-->); <!--full:12.MSE net, holes, 12 px-->21.24<!--/full--> (<!--full:12.biharmonic, holes, 12 px-->21.09<!--/full-->; <!--full:12.plate, 10 steps, holes, 12 px-->21.28<!--/full-->) on holes of 12 pixels; <!--full:12.MSE net, holes, 24 px (new)-->19.68<!--/full--> (<!--full:12.biharmonic, holes, 24 px (new)-->19.45<!--/full-->; <!--full:12.plate, 10 steps, holes, 24 px (new)-->19.68<!--/full-->) on holes of 24 dB.

# %% [markdown]
# With wide margins again:

# %%
first = in_holes.iloc[0]
check("12.15", "on scratches the net improves its own start, the membrane",
      first["MSE net"] > first["membrane"] + 0.05)
check("12.15", "large holes are harder for every method",
      (in_holes.iloc[3] < in_holes.iloc[1]).to_numpy())

# %% [markdown]
# A crop with scratches and one with a large hole:

# %% tags=["nbval-ignore-output"]
def show_filled(kind, which):
    """The masked photo, truth and two fillings, cropped."""
    m, y = test_masks[kind], truth
    done = {name: composite(y, filled[kind, name], m) for name in ("biharmonic", "MSE net")}
    show_crops({"$m\\odot y$": y * m, "truth": y, **done}, which)


show_filled("scratches, 3 px", 1)
show_filled("holes, 24 px (new)", 0)

# %% [markdown]
# The figures: thin scratches can be closed by any smooth surface; the plate does it best. In the large hole every method paints a smooth spot where there was fur: the mean of all furs that fit, section 5 again. What is
# missing there is not a better surface but a decision *which* fur: a generative model.
#
# ## 9. Denoising: the bridge to generative models
#
# Let $x=y+\sigma n$, $n\sim\mathcal N(0,I)$. By (12.10) the best denoiser in squared error is again the posterior mean, and here it has a remarkable form. The density of noisy images is $p(x)=\int p(y)\,\mathcal N(x;y,\sigma^2I)\,dy$. Differentiate under the integral,
# using $\nabla_x\mathcal N(x;y,\sigma^2I)=\frac{y-x}{\sigma^2}\mathcal N(x;y,\sigma^2I)$:
# $$\nabla p(x)=\int\frac{y-x}{\sigma^2}\,p(y)\,\mathcal N(x;y,\sigma^2I)\,dy=\frac{p(x)}{\sigma^2}\big(\mathbb E[y\mid x]-x\big).$$
# Divide by $p(x)$ (Tweedie's formula, Robbins 1956):
#
# $$\mathbb E[y\mid x]=x+\sigma^2\,\nabla\log p(x) \tag{12.19}$$
#
# The optimal denoiser takes one step uphill on the log-density of *noisy* images. Read backwards: **a residual denoiser** $\hat y=x+g_\theta(x)$ **trained on squared error estimates the score** $\nabla\log p=g_\theta/\sigma^2$ without ever seeing a density. Diffusion models
# denoise again and again from pure noise with such a net.
#
# A case where all is known: $y\sim\sum_kw_k\mathcal N(c_k,s^2)$ on the line. Then $p(x)=\sum_kw_k\mathcal N(x;c_k,s^2+\sigma^2)$, component $k$ has posterior probability $r_k(x)=w_k\mathcal N(x;c_k,s^2+\sigma^2)/p(x)$, and inside a component the posterior mean is the Wiener
# filter:
#
# $$\mathbb E[y\mid x]=\sum_kr_k(x)\Big(c_k+\frac{s^2}{s^2+\sigma^2}(x-c_k)\Big) \tag{12.20}$$

# %%
def log_density(x, w, c, var):
    """log p(x) of the mixture sum w_k N(c_k, var); x (n,), w, c (K,) -> (n,)."""
    parts = w.log() - (x[:, None] - c)**2 / (2 * var) - 0.5 * math.log(2 * math.pi * var)
    return parts.logsumexp(1)


def tweedie(x, w, c, s, sd):
    """E[y | x] by (12.19), the gradient of log p by autograd; x (n,) -> (n,)."""
    x = x.detach().requires_grad_()
    [score] = torch.autograd.grad(log_density(x, w, c, s**2 + sd**2).sum(), x)
    return (x + sd**2 * score).detach()


def mixture_posterior_mean(x, w, c, s, sd):
    """E[y | x] by (12.20); x (n,) -> (n,)."""
    var = s**2 + sd**2
    r = (w.log() - (x[:, None] - c)**2 / (2 * var)).softmax(1)          # (n, K)
    return (r * (c + s**2 / var * (x[:, None] - c))).sum(1)


# %% [markdown]
# Three ways to one curve: Tweedie, the closed form, and numerical integration of Bayes' rule:

# %%
w, c = torch.tensor([0.3, 0.7]).double(), torch.tensor([-1.0, 1.0]).double()
x_line = torch.linspace(-3, 3, 25, dtype=torch.float64)
y_grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)
joint = (log_density(y_grid, w, c, 0.15**2).exp()
         * torch.exp(-(x_line[:, None] - y_grid)**2 / (2 * 0.6**2)))    # p(y) p(x | y), (25, 4001)
by_bayes = (joint * y_grid).sum(1) / joint.sum(1)

# %%
check("12.19", "Tweedie's formula is Bayes' posterior mean", tweedie(x_line, w, c, 0.15, 0.6),
      by_bayes, atol=1e-9)
check("12.20", "and so is the closed form", mixture_posterior_mean(x_line, w, c, 0.15, 0.6),
      by_bayes, atol=1e-9)

# %%
check("12.19", "log p is a normalised density",
      torch.trapezoid(log_density(y_grid, w, c, 0.15**2).exp(), y_grid), 1.0, atol=1e-6)

# %% [markdown]
# And a fourth: a small net that only sees pairs (noisy, clean), trained on squared error.

# %%
seed(5)
line_net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(),
                         nn.Linear(32, 1))
centres = torch.multinomial(w, 20_000, replacement=True, generator=rng(24))
y_line = (c[centres] + 0.15 * torch.randn(20_000, generator=rng(25))).float()[:, None]  # (n, 1)


def line_loss(net, y, generator):
    """Mean squared error of the residual denoiser y + g on the line, noise 0.6."""
    x = y + 0.6 * torch.randn(y.shape, generator=generator)
    return (y - x - net(x)).square().mean()


line_net = fit(line_net, line_loss, y_line, 600, 2e-2, rng(26), batch=256)
learned = (x_line + line_net(x_line.float()[:, None])[:, 0].double()).detach()

# %%
likely = log_density(x_line, w, c, 0.15**2 + 0.6**2) > math.log(0.02)   # where there were data
check("12.19", "the trained denoiser is near the posterior mean",
      (learned - by_bayes)[likely].square().mean().sqrt() < 0.08)
check("12.19", "and far from returning x", (x_line - by_bayes)[likely].square().mean().sqrt() > 0.4)

# %% [markdown]
# The curve, with the dots of the net:

# %% tags=["nbval-ignore-output"]
def draw_denoiser(weight=0.3, sd=0.6):
    """Density and optimal denoiser of the two-peak mixture."""
    w = torch.tensor([weight, 1 - weight]).double()
    line = torch.linspace(-3, 3, 301, dtype=torch.float64)
    fig, ax = plt.subplots(figsize=(5.8, 3.2))
    ax.plot(line, log_density(line, w, c, 0.15**2).exp(), label="$p(y)$, clean")
    ax.plot(line, log_density(line, w, c, 0.15**2 + sd**2).exp(), label="$p(x)$, noisy")
    ax.plot(line, mixture_posterior_mean(line, w, c, 0.15, sd), label="$E[y|x]$")
    ax.plot(line, line, color="0.6", lw=1, label="$x$")
    ax.set(xlabel="$x$ or $y$", ylabel="density; denoised value", ylim=(-1.6, 2.1))
    ax.legend()
    return ax


ax = draw_denoiser()
ax.plot(x_line[likely], learned[likely], "ko", ms=4, label="trained net")
ax.legend()
plt.show()

# %% [markdown]
# The figure: where both peaks explain $x$, the optimal denoiser answers with values between them that no clean $y$ has: the blur of section 5, as a curve. The dots of the trained net lie on it.
#
# **Photos.** The same residual net, told the noise level as a fourth channel, so that one net serves all levels:

# %%
class DenoiseNet(nn.Module):
    """x + g(x, sd): noisy (N, C, H, W), C = 3 or 1, sd a number or (N,) in [0, 1] -> denoised."""

    def __init__(self, width=16, blocks=2):
        super().__init__()
        self.g = residual_net(4, 3, width, blocks)

    def forward(self, x, sd):
        rgb, sd = as_rgb(x), torch.as_tensor(sd, dtype=x.dtype, device=x.device)
        if sd.shape not in ((), (len(x),)) or not ((0 <= sd) & (sd <= 1)).all():
            raise ValueError("sd: a number in [0, 1] or one for each image (images in [0, 1])")
        level = sd.expand(len(x))[:, None, None, None].expand(-1, 1, *x.shape[-2:])
        out = rgb + self.g(torch.cat([rgb, level], 1))
        return out if x.shape[1] == 3 else out.mean(1, keepdim=True)


# %% [markdown]
# Trained for levels up to 0.2:

# %%
def denoise_loss(net, y, generator):
    """Mean squared error of net on corners of patches y with noise of random level below 0.2."""
    y, sd = y[..., :32, :32], 0.2 * torch.rand(len(y), generator=generator).to(y.device)
    noise = torch.randn(y.shape, generator=generator).to(y.device)
    return (y - net(y + sd[:, None, None, None] * noise, sd)).square().mean()


seed(6)
net = DenoiseNet().double()
x_n = torch.rand(2, 3, 7, 9, generator=rng(27), dtype=torch.float64)

# %%
check("12.19", "before training it returns x", net(x_n, torch.tensor([0.1, 0.2])), x_n)
nn.init.normal_(net.g[-1].weight, std=0.1)
level = torch.tensor([0.1, 0.2]).double()[:, None, None, None].expand(2, 1, 7, 9)
check("12.19", "then x + g(x, level of each image)", net(x_n, level[:, 0, 0, 0]),
      x_n + net.g(torch.cat([x_n, level], 1)), atol=1e-12)
refused(net, x_n, 25)
seed(6)
denoise_net = fit(DenoiseNet(WIDTH_FINE, BLOCKS_FINE).to(device), denoise_loss, patches,
                  STEPS_DENOISE, 2 * LR, rng(28), batch=8)

# %% [markdown]
# Against two classical methods of scikit-image: total variation (`denoise_tv_chambolle`) and non-local means (`denoise_nl_means`), each with the best of five strengths, chosen on a *training* photo for every noise level.

# %%
def total_variation(x, sd, strength):
    """scikit-image's TV denoising of one image (3, H, W), weight = strength * sd."""
    done = skimage.restoration.denoise_tv_chambolle(x.permute(1, 2, 0).cpu().numpy(),
                                                    weight=strength * sd, channel_axis=2)
    return torch.from_numpy(done).permute(2, 0, 1).to(x)


def non_local_means(x, sd, strength):
    """scikit-image's non-local means of one image (3, H, W), h = strength * sd."""
    done = skimage.restoration.denoise_nl_means(
        x.permute(1, 2, 0).cpu().numpy(), patch_size=5, patch_distance=6, h=strength * sd, sigma=sd,
        fast_mode=True, channel_axis=2)
    return torch.from_numpy(done).permute(2, 0, 1).to(x)


# %% [markdown]
# The choice and the test:

# %%
LEVELS = (0.05, 0.1, 0.2)
CLASSICAL = {"total variation": (total_variation, (0.5, 0.6, 0.7, 0.8, 1.0)),
             "non-local means": (non_local_means, (0.5, 0.6, 0.7, 0.8, 0.9))}


def add_noise(y, sd, number):
    """y plus noise of standard deviation sd."""
    return y + sd * torch.randn(y.shape, generator=rng(number)).to(y)


def best_strength(name, sd, y):
    """The strength of a classical method that denoises y (3, H, W) best."""
    method, strengths = CLASSICAL[name]
    x = add_noise(y, sd, 29)
    return max(strengths, key=lambda strength: psnr(method(x, sd, strength), y, 1.0).item())


def denoise_all(tuning):
    """Denoised held-out photos: dict (method, sd) -> (4, 3, H, W) in [0, 1]."""
    done = {}
    for sd in LEVELS:
        x = add_noise(truth, sd, 30)
        done["noisy", sd], done["our net", sd] = x, denoise_net(x, sd).detach()
        for name, (method, _) in CLASSICAL.items():
            strength = best_strength(name, sd, tuning)
            done[name, sd] = torch.stack([method(v, sd, strength) for v in x])
    return {key: v.clamp(0, 1) for key, v in done.items()}


denoised = denoise_all(data.photo("astronaut", 160).to(device))

# %% [markdown]
# PSNR on the held-out photos, dB:

# %% tags=["nbval-ignore-output"]
ways = ("noisy", *CLASSICAL, "our net")
by_level = pd.DataFrame({level: {way: scores(denoised[way, level], truth)["PSNR"] for way in ways}
                         for level in LEVELS})
for way in ways:
    for level in LEVELS:
        measured(f"{way}, noise {level}", by_level.loc[way, level])
by_level.rename_axis(columns="sd").round(2)

# %% [markdown]
# The net, trained for seconds on ten photos, is ahead of total variation at low and medium noise and level with it at high noise; non-local means, which looks for repeated patches in the noisy photo itself, is still ahead at every level.
# The full run, net (non-local means), at the three levels: <!--full:12.our net, noise 0.05-->33.64<!--/full--> (<!--full:12.non-local means, noise 0.05-->33.05<!--/full-->), <!--full:12.our net, noise 0.1-->30.55<!--/full--> (<!--full:12.non-local means, noise 0.1-->29.89<!--/full-->), <!--full:12.our net, noise 0.2-->27.36<!--/full--> (<!--full:12.non-local means, noise 0.2-->26.84<!--/full-->) dB.

# %%
check("12.19", "the net removes most of the noise: over 4 dB at sd 0.1 and 7 dB at 0.2",
      (by_level.loc["our net"] - by_level.loc["noisy"])[[0.1, 0.2]].to_numpy() > [4, 7])

# %% [markdown]
# The cat at $\sigma=0.1$:

# %% tags=["nbval-ignore-output"]
show_crops({"noisy, sd 0.1": denoised["noisy", 0.1], **{name: denoised[name, 0.1] for name in
            (*CLASSICAL, "our net")}}, 0,
           (92, 98, 64))

# %% [markdown]
# The figure: total variation leaves single noisy pixels on flat patches, non-local means paints the fur smooth, the net keeps the coarse fur and some blotches of noise. The finest fur is gone in all three: nobody knows where it was.
#
# A denoiser that draws one of the possible clean images instead of their mean needs a generative model; notebook [13](13_vae.ipynb) builds the first of them, and begins with a linear denoiser, the Wiener filter.

# %% [markdown]
# ## Try it
#
# **Noise, and what the net is told about it.** Add noise of standard deviation `sd` and tell the net `told`: too little, and noise stays; too much, and the fur goes.

# %%
@torch.no_grad()
def draw_denoised(sd=0.1, told=0.1):
    """A 64-pixel crop of the cat, noisy and denoised by a net that believes in noise `told`."""
    y = truth[:1, :, 92:156, 98:162]
    x = add_noise(y, sd, 31)
    out = denoise_net(x, told)
    noisy_db, clean_db = (psnr(v.clamp(0, 1), y, 1.0).item() for v in (x, out))
    show_images({f"noisy, sd = {sd:.2f}: {noisy_db:.1f} dB": x[0],
                 f"told {told:.2f}: {clean_db:.1f} dB": out[0]}, width=2.6)
    plt.show()


# %% [markdown]
# A still picture for readers of the rendered page:

# %% tags=["nbval-ignore-output"]
draw_denoised()

# %% [markdown]
# The figure: told the truth. Now with sliders:

# %% tags=["nbval-ignore-output"]
interact(draw_denoised, sd=FloatSlider(value=0.1, min=0, max=0.3, step=0.01),
         told=FloatSlider(value=0.1, min=0, max=0.3, step=0.01));

# %% [markdown]
# **A hole of your choice.** The net was trained on holes of at most 12 pixels.

# %%
@torch.no_grad()
def draw_hole(top=40, left=30, side=16):
    """A hole in a 96-pixel crop of the coffee cup, and the net's filling."""
    y, m = truth[1:2, :, 84:180, 90:186], torch.ones(1, 1, 96, 96, device=device)
    m[..., top:top + side, left:left + side] = 0
    out = composite(y, inpaint_net(y, m), m).clamp(0, 1)
    error = -10 * masked_loss(y, out, m).log10().item()
    show_images({f"hole of {side} pixels": (y * m)[0], "truth": y[0],
                 f"filled, {error:.1f} dB in the hole": out[0]}, width=2.1)
    plt.show()


# %% [markdown]
# The still picture:

# %% tags=["nbval-ignore-output"]
draw_hole()

# %% [markdown]
# The figure: the bright rim and the band below it enter the hole and fade out inside: a mean of all ways on. On the even red of the saucer the same hole is filled without a trace.

# %% tags=["nbval-ignore-output"]
interact(draw_hole, top=IntSlider(value=40, min=2, max=60), left=IntSlider(value=30, min=2, max=60),
         side=IntSlider(value=16, min=2, max=32));

# %% [markdown]
# **From blurred to invented.** The parameter $\tau$ of `blend` walks along the curve of section 7:

# %%
def draw_blend(*taus):
    """Super-resolution of a crop by the nets at each tau between the MSE and the perceptual net."""
    side = 16 * SCALE
    y = truth[2:3, :, 100:100 + side, 94:94 + side]
    outs = {tau: restore(blend(mse_net, sharp_net, tau), degrade(y, SCALE)) for tau in taus}
    show_images({rf"$\tau={tau:.2f}$: {psnr(out, y, 1.0).item():.2f} dB": out[0]
                 for tau, out in outs.items()} | {"truth": y[0]}, width=2.3)
    plt.show()


# %% [markdown]
# The MSE net, half way, the perceptual net:

# %% tags=["nbval-ignore-output"]
draw_blend(0.0, 0.5, 1.0)

# %% tags=["nbval-ignore-output"]
interact(lambda tau: draw_blend(tau),
         tau=FloatSlider(value=0.5, min=0, max=1, step=0.05, description="blend τ"));

# %% [markdown]
# The stripes of section 5, seen with probability $w$ in one phase and $1-w$ in the other:

# %% tags=["nbval-ignore-output"]
interact(draw_stripes,
         w=FloatSlider(value=0.7, min=0.02, max=0.98, step=0.02, description="weight w"));

# %% [markdown]
# The two peaks of section 9:

# %% tags=["nbval-ignore-output"]
interact(lambda weight, sd: (draw_denoiser(weight, sd), plt.show())[1],
         weight=FloatSlider(value=0.3, min=0.05, max=0.95, step=0.05),
         sd=FloatSlider(value=0.6, min=0.1, max=2.0, step=0.1));

# %% [markdown]
# ## Where the notes slip

# %% [markdown]
# No known error of the lecture notes concerns this topic. What they say on it is short: enlarge the picture, let a net learn the addition with the least MSE, "the deeper, the better"; a perceptual loss is possible, "but then artefacts
# appear"; inpainting restores a piece of the picture. Nothing of it is false; four sentences are incomplete in a way that costs points.

# %% [markdown]
# ### L1, first · "The deeper, the better"
# Depth alone is nothing: without a non-linearity between them, convolutions compose to **one** convolution with a larger kernel. (Zero padding here, away from the edge.)

# %%
g = rng(32)
k_1, k_2, k_3 = (torch.randn(*shape, 3, 3, generator=g).double()
                 for shape in ((4, 3), (5, 4), (2, 5)))
x_c = torch.randn(1, 3, 12, 12, generator=g).double()
deep = F.conv2d(F.conv2d(F.conv2d(x_c, k_1), k_2), k_3)                 # (1, 2, 6, 6)
pulse = torch.zeros(3, 3, 13, 13).double()
pulse[range(3), range(3), 6, 6] = 1                                     # a point per channel
answer = F.conv2d(F.conv2d(F.conv2d(pulse, k_1), k_2), k_3)             # (3, 2, 7, 7)

# %%
check("12.9", "three linear layers are one 7 x 7 convolution", F.conv2d(x_c, answer.flip(2, 3)
      .transpose(0, 1)), deep, atol=1e-9)

# %% [markdown]
# Right: depth with non-linearities enlarges the context (12.9) and the class of functions, and helps if the optimiser copes: Dong et al. (2016) found for plain nets that deeper was *not* better; Kim et al. (2016), whose phrase the notes
# quote, made 20 layers work with a residual and clipped gradients, as here. Section 4 measured it: the gain is real, here about as large as that from bicubic to the linear net, and soon exhausted.

# %% [markdown]
# ### L1, second · "so that the MSE between the result and the right picture is least"
# This does not lead to the right picture, nor to any picture: the least expected MSE belongs to the mean (12.10).

# %%
risk = {"mean": expected_loss(posterior_mean(0.5), 0.5, 2),
        "a right picture": expected_loss(STRIPES[0], 0.5, 2)}
check("12.10", "in expected MSE a true picture is twice as bad as the flat grey mean",
      risk["a right picture"], 2 * risk["mean"], rtol=1e-12)

# %% [markdown]
# Right: MSE training gives the average of all pictures that fit $x$; hence the blur, however large the net.

# %% [markdown]
# ### L1, third · "then artefacts appear": which, and why?
# Two kinds, both measured here: a *grid* of period $s$, and *invented texture* in the null space of $A$.

# %%
spread = {name: (p.max() - p.min()).item() for name, p in profiles.items()}
claim("the grid: its phases differ more than twice as much as the truth's",
      spread["perceptual net"], above=2 * spread["truth"] + 0.05, trivial=spread["truth"])

# %% [markdown]
# Right: the perceptual loss asks for features that look real, many images have them, and $x$ does not decide between those; what is chosen is plausible, not true (12.12). The grid is an artefact of its own. A pixel term in the loss brings PSNR and features nearer in the same number of steps (section 6), but it does not make the profile of the grid flat: see the figure there.

# %% [markdown]
# ### L1, fourth · "restore a piece of the picture": where is the loss?
# Over the unknown part (12.15). A number over the *whole* picture flatters: known pixels are right by construction. With a share $n_0/n$ unknown, PSNR rises by exactly $10\log_{10}(n/n_0)$.

# %%
m = test_masks["holes, 12 px"][:1]
done = composite(truth[:1], filled["holes, 12 px", "MSE net"][:1], m)
whole, inside = psnr(done[0], truth[0], 1.0), -10 * masked_loss(truth[:1], done, m).log10()
check("12.15", "whole-picture PSNR = PSNR in the holes + 10 log10(n / n_0)", whole,
      inside + 10 * (m.numel() / (1 - m).sum()).log10(), atol=1e-3)
check("12.15", "a bonus of over 6 dB for nothing", whole > inside + 6)

# %% [markdown]
# Right: state over which pixels you measure; the loss on known pixels teaches nothing (section 8), and the net must see the mask.

# %% [markdown]
# ## What it costs
#
# A $3\times3$ convolution from $a$ to $b$ channels takes $9ab$ multiplications per pixel. For width $w$ and $B$ blocks, per pixel of the **small** image,
# $$\text{SRNet}:\ 9w\,(3+2Bw+3s^2),\qquad\text{the same net after bicubic enlargement}:\ 9w\,(3+2Bw+3)\,s^2 .$$
# For $w=24,B=3,s=4$: 42 thousand against 518 thousand, 12 times more. SSIM with separable windows takes $2\cdot11$ instead of $121$ multiplications per pixel and filter. Everything is linear in the number of pixels; measured:

# %% tags=["nbval-ignore-output"]
timed_net = SRNet(SCALE).to(device)
sides = [32, 64, 128, 256]
inputs = [torch.rand(1, 3, n, n, generator=rng(33)).to(device) for n in sides]
seconds = [timed(lambda x=x: restore(timed_net, x), repeats=3) for x in inputs]
slope = np.polyfit(np.log([n * n for n in sides[1:]]), np.log(seconds[1:]), 1)[0]
print(f"log-log slope of time against pixels: {slope:.2f}")
pd.DataFrame({"ms": np.array(seconds) * 1e3}, index=pd.Index(sides, name="side")).round(1)

# %% [markdown]
# Against the libraries, in turns (the values agree: sections 1 and 8):

# %% tags=["nbval-ignore-output"]
one_y, one_x = truth[0].cpu(), denoised["noisy", 0.1][0].cpu()
pair = one_x.numpy(), one_y.numpy()
compare_speed({"SSIM, scikit-image": lambda: skimage.metrics.structural_similarity(
    *pair, channel_axis=0, **wang), "SSIM, this page": lambda: ssim(one_x, one_y, 1.0)}, repeats=5)

# %% [markdown]
# Filling the holes of one photo:

# %% tags=["nbval-ignore-output"]
y_one, m_one = truth[:1], test_masks["holes, 24 px (new)"][:1]
compare_speed({"biharmonic, scikit-image": lambda: biharmonic(y_one, m_one),
               "smooth_guess": lambda: smooth_guess(y_one * m_one, m_one),
               "InpaintNet": lambda: inpaint_net(y_one, m_one).detach()}, repeats=3)

# %% [markdown]
# scikit-image's compiled filters and its sparse solver are faster on one photo. The solver's cost grows with the number of missing pixels, faster than linearly; our steps cost the same whatever is missing, work on batches and on a GPU, and the loss
# can be differentiated through `ssim`.
#
# The numbers of this run in one place:

# %% tags=["nbval-ignore-output"]
def report():
    """Print every learned number, one line each."""
    run = "large" if STEPS_SR >= 1500 else "this run"
    for name, row in table.iterrows():
        print(f"{run}: SR x{SCALE}, {name}: "
              + ", ".join(f"{k} = {v:.3f}" for k, v in row.items()))
    for depth, row in by_depth.iterrows():
        print(f"{run}: {depth} convolutions: gain over bicubic = {row.mean():.2f} dB "
              f"({row.min():.2f} to {row.max():.2f})")
    for kind, row in in_holes.iterrows():
        print(f"{run}: {kind}: " + ", ".join(f"{k} = {v:.2f} dB" for k, v in row.items()))
    for name, row in by_level.iterrows():
        print(f"{run}: {name}: " + ", ".join(f"sd {k:g} = {v:.2f} dB" for k, v in row.items()))


report()

# %% [markdown]
# ## Exercises
#
# From easy to hard. Write into the stub, run the cell below it.

# %% [markdown]
# ### Exercise 12.A · Two averages
# For a batch `x, y` of shape `(N, C, H, W)` and `data_range`, return the tuple (mean of the PSNRs, PSNR of the mean error), two numbers in dB. Which is larger, always?
#
# <details><summary>Hint</summary>
#
# (12.1) per image and then the mean; or one MSE over everything. Jensen: $-\log$ is convex.
#
# </details>

# %%
def two_averages(x, y, data_range):
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def average_cases():
    """Two batches; both numbers from scikit-image."""
    cases = []
    for number, data_range in ((34, 1.0), (35, 255.0)):
        y = data_range * torch.rand(3, 2, 5, 6, generator=rng(number)).double()
        size = data_range * torch.tensor([0.01, 0.1, 0.2]).double()[:, None, None, None]
        x = y + size * torch.randn(y.shape, generator=rng(number + 9)).double()
        each = [skimage.metrics.peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=data_range)
                for a, b in zip(y, x, strict=True)]
        all_in_one = skimage.metrics.peak_signal_noise_ratio(y.numpy(), x.numpy(),
                                                             data_range=data_range)
        cases.append(((x, y, data_range), (np.mean(each), all_in_one)))
    return cases


exercise("12.A", two_averages, average_cases(), atol=1e-6)

# %% [markdown]
# <details><summary>Solution 12.A</summary>
#
# The mean of the PSNRs is at least the PSNR of the mean error, since $-10\log_{10}$ is convex. Papers report the first; say which you report.
#
# ```python
# def two_averages(x, y, data_range):
#     mse = (x - y).square().mean((1, 2, 3))
#     return (10 * torch.log10(data_range**2 / mse)).mean(), 10 * torch.log10(data_range**2 / mse.mean())
# ```
#
# </details>

# %% [markdown]
# ### Exercise 12.B · Pixel shuffle
# Write pixel shuffle for `h` of shape `(C * s * s, H, W)`: return `(C, s * H, s * W)`, where channel $cs^2+as+b$ at $(i,j)$ goes to pixel $(si+a,sj+b)$ of channel $c$. Without `F.pixel_shuffle`.
#
# <details><summary>Hint</summary>
#
# `h.view(C, s, s, H, W)` has the axes $c,a,b,i,j$; bring them into the order $c,i,a,j,b$.
#
# </details>

# %%
def shuffle_pixels(h, s):
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def shuffle_cases():
    """Three shapes; the answers by torch."""
    inputs = [(torch.rand(C * s * s, H, W, generator=rng(36)), s)
              for C, s, H, W in ((1, 2, 3, 4), (3, 3, 2, 5), (2, 4, 1, 2))]
    return [(args, F.pixel_shuffle(*args)) for args in inputs]


exercise("12.B", shuffle_pixels, shuffle_cases(), atol=0)

# %% [markdown]
# <details><summary>Solution 12.B</summary>
#
# ```python
# def shuffle_pixels(h, s):
#     C, (H, W) = h.shape[0] // s**2, h.shape[1:]
#     return h.view(C, s, s, H, W).permute(0, 3, 1, 4, 2).reshape(C, s * H, s * W)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 12.C · How deep must it be?
# A net as in (12.9), $n=2\cdot\text{blocks}+2$ convolutions of $3\times3$ at full resolution, sees $m\odot y$ with one square hole of side `L`. Return the least number of blocks with which **every** output pixel of the hole sees at least one known
# pixel (0 blocks if the plain two convolutions do).
#
# <details><summary>Hint</summary>
#
# The worst pixel is the one farthest from the edge of the hole. How many steps (also diagonal ones) does it need to leave it? $n$ convolutions reach $n$ pixels.
#
# </details>

# %%
def blocks_for_hole(L):
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def hole_cases():
    """Sides of holes; the answer by growing the known region until no hole is left."""
    cases = []
    for L in (1, 4, 5, 8, 9, 12, 13, 24):
        missing, steps = torch.zeros(1, 1, L + 2, L + 2), 0
        missing[..., 1:-1, 1:-1] = 1
        while missing.any():
            missing, steps = -F.max_pool2d(-missing, 3, 1, 1), steps + 1
        cases.append(((L,), next(b for b in range(99) if 2 * b + 2 >= steps)))
    return cases


exercise("12.C", blocks_for_hole, hole_cases())

# %% [markdown]
# <details><summary>Solution 12.C</summary>
#
# The middle pixel leaves the hole after $\lceil L/2\rceil$ steps, so $2B+2\ge\lceil L/2\rceil$. (Our nets start from a guess that has carried the known values inside already.)
#
# ```python
# def blocks_for_hole(L):
#     steps = (L + 1) // 2
#     return max(0, (steps - 1) // 2)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 12.D · Mean and median of many pictures
# Given `pictures` of shape `(K, n)` and their posterior probabilities `p` `(K,)`, return the tuple (minimiser of the expected squared error, minimiser of the expected absolute error), `(n,)` each. Then look at the third case: is its
# median one of the pictures?
#
# <details><summary>Hint</summary>
#
# The weighted median of a pixel: sort its $K$ values, add up the probabilities in that order, take the first value at which the sum reaches $\frac12$.
#
# </details>

# %%
def best_answers(pictures, p):
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def answer_cases():
    """Three sets; the answers by brute force over the candidate values of every pixel."""
    sets = [(STRIPES, torch.tensor([0.7, 0.3]).double()),
            (torch.rand(5, 4, generator=rng(37)).double(),
             torch.tensor([.1, .35, .05, .3, .2]).double()),
            (torch.tensor([[1., 1, 0], [1, 0, 1], [0, 1, 1]]).double(),
             torch.full((3,), 1 / 3).double())]
    cases = []
    for pictures, p in sets:
        mean = [np.average(pixel, weights=p) for pixel in pictures.T.numpy()]
        median = [min(pixel, key=lambda v: (p.numpy() * abs(pixel - v)).sum())
                  for pixel in pictures.T.numpy()]
        cases.append(((pictures, p), (np.array(mean), np.array(median))))
    return cases


exercise("12.D", best_answers, answer_cases(), atol=1e-6)

# %% [markdown]
# <details><summary>Solution 12.D</summary>
#
# Third case: the pixel-wise median is $(1,1,1)$, a picture that never occurs. Absolute error is sharper, not safer.
#
# ```python
# def best_answers(pictures, p):
#     values, order = pictures.sort(0)
#     reached = p[order].cumsum(0) >= 0.5
#     first = reached.to(torch.uint8).argmax(0, keepdim=True)
#     return p @ pictures, values.gather(0, first)[0]
# ```
#
# </details>

# %% [markdown]
# ### Exercise 12.E · How uncertain is the denoiser?
# Differentiate (12.19) once more to show $\operatorname{Var}[y\mid x]=\sigma^2+\sigma^4\,(\log p)''(x)=\sigma^2\,\frac{d}{dx}\mathbb E[y\mid x]$ on the line. Given a function `denoise` (numbers `(n,)` to $\mathbb E[y\mid x]$ `(n,)`, differentiable by autograd, each output depending on its
# own input only), points `x` `(n,)` and `sd`, return the posterior variances `(n,)`.
#
# <details><summary>Hint</summary>
#
# One call of `torch.autograd.grad` on the sum of outputs gives all derivatives. A steep denoiser is an uncertain one.
#
# </details>

# %%
def posterior_variance(denoise, x, sd):
    raise NotImplementedError


# %% tags=["nbval-ignore-output"]
def variance_cases():
    """The mixture of section 9 at two noise levels; the answer by scipy's integration."""
    cases, at = [], torch.tensor([-1.5, -0.2, 0.1, 0.9]).double()
    weights, peaks = torch.tensor([0.3, 0.7]).double(), torch.tensor([-1.0, 1.0]).double()
    for sd in (0.6, 0.9):
        answer = []
        for v in at.tolist():
            def moment(k, v=v, sd=sd):
                def integrand(y):
                    prior = log_density(torch.tensor([y]).double(), weights, peaks, 0.15**2)
                    return y**k * prior.exp().item() * math.exp(-(v - y)**2 / (2 * sd**2))
                return scipy.integrate.quad(integrand, -3, 3, points=[-1, 1], limit=200)[0]
            answer.append(moment(2) / moment(0) - (moment(1) / moment(0))**2)
        cases.append(((lambda x, sd=sd: mixture_posterior_mean(x, weights, peaks, 0.15, sd),
                       at, sd), answer))
    return cases


exercise("12.E", posterior_variance, variance_cases(), atol=1e-6)

# %% [markdown]
# <details><summary>Solution 12.E</summary>
#
# $\frac{d}{dx}\mathbb E[y\mid x]$: the posterior is $\propto p(y)e^{-(x-y)^2/2\sigma^2}$, an exponential family in $x/\sigma^2$ with statistic $y$; the derivative of its mean by the natural parameter is the variance of $y$, so $\frac{d}{dx}\mathbb E[y\mid x]=\operatorname{Var}[y\mid x]/\sigma^2$.
# And (12.19) gives $\frac{d}{dx}\mathbb E[y\mid x]=1+\sigma^2(\log p)''$.
#
# ```python
# def posterior_variance(denoise, x, sd):
#     x = x.detach().requires_grad_()
#     [slope] = torch.autograd.grad(denoise(x).sum(), x)
#     return sd**2 * slope
# ```
#
# </details>

# %% [markdown]
# ## Exam
#
# Answer aloud or on paper first; formulas may be quoted by number.

# %% [markdown] tags=["exam"]
# ### Question 22 · Why can super-resolution trained on MSE look blurred, and one trained with a perceptual loss show artefacts?
#
# **По-русски.** Почему суперразрешение, обученное с MSE, может давать размытую картинку, а обученное с perceptual loss — артефакты?
#
# <details><summary>Model answer</summary>
#
# *Setting.* The small image is $x=Ay$: blur, then every $s$-th pixel, (12.4). The net adds to an interpolated image, $\hat y=\mathrm{up}(x)+g_\theta(x)$, (12.7). $A$ has a null space of dimension $(1-1/s^2)HW$, (12.5): very many pictures $y$ fit one $x$ and differ in fine
# detail, e.g. where exactly an edge or a stripe lies. So there is a distribution $p(y\mid x)$, not one answer.
#
# *MSE blurs.* With $m=\mathbb E[y\mid x]$ the cross term vanishes and
# $$\mathbb E\big[\lVert y-\hat y\rVert^2\mid x\big]=\mathbb E\big[\lVert y-m\rVert^2\mid x\big]+\lVert m-\hat y\rVert^2,$$
# so the minimiser is the posterior mean: the average of all sharp pictures that fit. Averaging edges in different positions gives a ramp, averaging stripes of two phases gives grey: a picture that need not look like any photo. It is not a lack of capacity; an ideal net
# blurs too. (Absolute error gives the pixel-wise median, which is sharper but still decided pixel by pixel.) PSNR $=10\log_{10}(R^2/\mathrm{MSE})$ is largest for this blurred answer; a random *sharp* sample from $p(y\mid x)$ has twice the MSE, $-3$ dB, (12.12).
#
# *Perceptual loss invents.* $\sum_l\frac1{n_l}\lVert\phi_l(y)-\phi_l(\hat y)\rVert^2$, (12.13), compares features of a frozen net. Features say that there is an edge or a texture and roughly where, hardly its phase; a blurred answer has wrong features, so it is punished, and texture of the
# right kind is rewarded. But (1) $x$ does not determine the texture: the net writes it into the null space of $A$, plausible and possibly false, a *hallucination*; (2) $\phi$ is not injective: poolings and ReLU hide patterns, so images far from any photo can have nearly the same features, above all a
# *checkerboard or grid* with the period of pixel shuffle/strides, colour shifts if only deep layers are used; (3) nothing ties pixels to the truth, so PSNR falls while the feature distance falls too.
#
# *Both together*: the perception–distortion trade-off (Blau, Michaeli 2018): the least distance of $p_{\hat y}$ to $p_y$ is a non-increasing function of the allowed distortion; beyond the curve one cannot have both. Remedies: a weighted sum of losses, layers near the input, adversarial loss with MSE, resize-convolution or careful
# initialisation against grids, interpolation of the two nets; and where truth matters (medicine, evidence), MSE or several samples with their spread.
#
# **Ответ по-русски.** *Постановка.* Малая картинка $x=Ay$ получена из большой $y$ размытием и прореживанием: остаётся каждый $s$-й пиксель по каждой оси. Сеть прибавляет поправку к интерполированной картинке: $\hat y=\mathrm{up}(x)+g_\theta(x)$. Ядро оператора $A$ имеет размерность $(1-1/s^2)HW$, поэтому задача некорректно поставлена:
# одному $x$ соответствует множество $y$, которые различаются мелкими деталями (например, точным положением края), и ответ – это распределение $p(y\mid x)$, а не одна картинка.
#
# *Почему MSE размывает.* Пусть $m=\mathbb E[y\mid x]$. Раскроем квадрат: $\lVert y-\hat y\rVert^2=\lVert y-m\rVert^2+2(y-m)^\top(m-\hat y)+\lVert m-\hat y\rVert^2$; при данном $x$ среднее второго слагаемого равно нулю, так как $\mathbb E[y-m\mid x]=0$. Значит,
# $$\mathbb E\big[\lVert y-\hat y\rVert^2\mid x\big]=\mathbb E\big[\lVert y-m\rVert^2\mid x\big]+\lVert m-\hat y\rVert^2,$$
# и минимум достигается на условном среднем $\hat y=m$, то есть на среднем всех подходящих резких картинок. Среднее краёв в разных положениях – плавный переход, среднее полос двух фаз – серый фон; такая картинка может не быть похожа ни на одну фотографию, какой бы мощной ни была сеть: размыт сам оптимум. (Для $L_1$ оптимум –
# попиксельная медиана: резче, но каждый пиксель по-прежнему решается отдельно.) Метрика $\mathrm{PSNR}=10\log_{10}(R^2/\mathrm{MSE})$, где $R$ – размах значений, наибольшая именно у размытого ответа; резкая случайная картинка из $p(y\mid x)$ имеет вдвое больший MSE, то есть на 3 дБ меньший PSNR.
#
# *Почему перцептивная функция потерь даёт артефакты.* Перцептивная функция потерь (perceptual loss) $\sum_l\frac1{n_l}\lVert\phi_l(y)-\phi_l(\hat y)\rVert^2$ сравнивает признаки $\phi_l$ замороженной сети ($n_l$ – число признаков слоя $l$). Признаки сообщают, что здесь есть край или текстура, но почти не сообщают её точной фазы; у размытой картинки признаки
# неправильные, поэтому за размытие штрафуют, а за текстуру нужного вида поощряют. Но: (1) текстура из $x$ не определяется, сеть дорисовывает её в ядре $A$ – правдоподобно, но, возможно, неверно (галлюцинации); (2) отображение $\phi$ неинъективно (пулинг и ReLU теряют информацию): картинки, далёкие от фотографий, могут иметь
# почти те же признаки; отсюда сетка («шахматная доска») с периодом pixel shuffle или шага свёртки и сдвиги цвета, если взяты только глубокие слои; (3) пиксели ничем не привязаны к истине: расстояние в признаках падает, и PSNR падает вместе с ним.
#
# *Итог.* Это компромисс между искажением $\mathbb E\lVert y-\hat y\rVert^2$ и качеством восприятия – расстоянием между распределениями $p_{\hat y}$ и $p_y$ (perception–distortion, Blau и Michaeli, 2018): наименьшее расстояние – невозрастающая функция допустимого искажения. На практике берут взвешенную сумму функций потерь, слои ближе ко входу, состязательную функцию потерь вместе с MSE,
# увеличение интерполяцией с последующей свёрткой вместо pixel shuffle; а там, где важна истина (медицина, экспертиза), – MSE или несколько выборок из $p(y\mid x)$ с указанием разброса.
#
# **Typical mistake.** "MSE blurs because the net is too small or undertrained." The blur is the optimum itself. Or: "perceptual loss restores the lost detail": it cannot, the detail is not in $x$.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# - PSNR is the squared error in decibels, (12.1); SSIM multiplies luminance, contrast and structure in Gaussian windows, (12.3); state the window and the border, or the number means nothing.
# - Restoration is ill-posed: a null space hides $1-1/s^2$ of the image, (12.5). A residual net starts as the classical guess and learns the rest, (12.7).
# - Squared error leads to the posterior mean, (12.10): blurred, whatever the net. A sharp sample costs 3 dB, (12.12); a perceptual loss (12.13) writes plausible detail where $x$ is silent, and a grid. One cannot have least distortion and best perception, (12.14).
# - Inpainting: the loss belongs on the unknown pixels, (12.15), the mask into the net, and the biharmonic plate (12.18) is a strong opponent.
# - Denoising: the residual of the best denoiser is $\sigma^2$ times the score, (12.19); that is the door to generative models.
#
# References
# - Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, *Image Quality Assessment: From Error Visibility to Structural Similarity*, IEEE TIP 13, 2004, [doi:10.1109/TIP.2003.819861](https://doi.org/10.1109/TIP.2003.819861)
# - R. Keys, *Cubic Convolution Interpolation for Digital Image Processing*, IEEE TASSP 29, 1981, [doi:10.1109/TASSP.1981.1163711](https://doi.org/10.1109/TASSP.1981.1163711)
# - C. Dong, C. C. Loy, K. He, X. Tang, *Image Super-Resolution Using Deep Convolutional Networks*, IEEE TPAMI 38, 2016, [arXiv:1501.00092](https://arxiv.org/abs/1501.00092)
# - J. Kim, J. K. Lee, K. M. Lee, *Accurate Image Super-Resolution Using Very Deep Convolutional Networks*, CVPR 2016, [arXiv:1511.04587](https://arxiv.org/abs/1511.04587)
# - W. Shi et al., *Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network*, CVPR 2016, [arXiv:1609.05158](https://arxiv.org/abs/1609.05158)
# - J. Johnson, A. Alahi, L. Fei-Fei, *Perceptual Losses for Real-Time Style Transfer and Super-Resolution*, ECCV 2016, [arXiv:1603.08155](https://arxiv.org/abs/1603.08155)
# - K. Simonyan, A. Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*, ICLR 2015, [arXiv:1409.1556](https://arxiv.org/abs/1409.1556)
# - Y. Blau, T. Michaeli, *The Perception-Distortion Tradeoff*, CVPR 2018, [arXiv:1711.06077](https://arxiv.org/abs/1711.06077)
# - X. Wang et al., *ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks*, ECCV Workshops 2018, [arXiv:1809.00219](https://arxiv.org/abs/1809.00219) (network interpolation)
# - A. Odena, V. Dumoulin, C. Olah, *Deconvolution and Checkerboard Artifacts*, Distill 2016, [doi:10.23915/distill.00003](https://doi.org/10.23915/distill.00003)
# - D. Pathak et al., *Context Encoders: Feature Learning by Inpainting*, CVPR 2016, [arXiv:1604.07379](https://arxiv.org/abs/1604.07379)
# - S. B. Damelin, N. S. Hoang, *On Surface Completion and Image Inpainting by Biharmonic Functions: Numerical Aspects*, IJMMS 2018, [doi:10.1155/2018/3950312](https://doi.org/10.1155/2018/3950312) (scikit-image's method)
# - H. Robbins, *An Empirical Bayes Approach to Statistics*, Berkeley Symposium 1956; B. Efron, *Tweedie's Formula and Selection Bias*, JASA 106, 2011, [doi:10.1198/jasa.2011.tm11181](https://doi.org/10.1198/jasa.2011.tm11181)
# - K. Zhang, W. Zuo, L. Zhang, *FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image Denoising*, IEEE TIP 27, 2018, [arXiv:1710.04026](https://arxiv.org/abs/1710.04026) (noise level as an input)
#
# <!-- navigation -->
# previous: [11 Style transfer](11_style_transfer.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [13 Autoencoders and the variational autoencoder](13_vae.ipynb)
# <!-- /navigation -->
