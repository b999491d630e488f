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
# # 11 · Style transfer: content, Gram matrices, and a network that paints
#
# Which distance between two images notices *what* is shown, which one *how* it is painted, and how does minimising their sum
# over the pixels repaint a photo? What is gained and what is lost when a network learns to do it in one pass?
#
# You will be able to
# - say why pixel distance misjudges images, and measure it on pairs;
# - define content and style loss with every index, and prove what they are invariant to;
# - derive the gradient of the style loss by hand and choose a normalisation that ignores image size;
# - synthesise textures and stylise a photo by L-BFGS or Adam on its pixels;
# - train a feed-forward transform network and state honestly its speed-up and its loss.
#
# Prerequisites: convolutional networks, backpropagation, matrix traces.
#
# **Time** 50 s on 2 CPU cores · **Memory** 1.0 GB · **Data** photos that scikit-image, scikit-learn and matplotlib ship, three styles and a small network of the course · **Exam questions** 1, 2, 20, 21
#
# <!-- navigation -->
# previous: [00 Start here](00_start_here.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [12 Image restoration](12_image_restoration.ipynb)
# <!-- /navigation -->

# %% [markdown]
# ## Notation
#
# | symbol | in code | shape, unit or range |
# |---|---|---|
# | $C, S, X$ | `content, style, x` | content, style and output image, $(3, H, W)$, values in $[0,1]$; $X$ is the variable |
# | $l$ | `"conv3_1"` | layer of the feature network |
# | $A^l$ | `net(a)["conv3_1"]` | features of image $A$ after ReLU, $(C_l, H_l, W_l)$, read as a matrix $C_l\times M_l$ |
# | $i, j$ | – | channels, $1\dots C_l$ |
# | $k$ | – | position, $1\dots M_l$ with $M_l=H_lW_l$ |
# | $G^l$ | `gram_matrix(A)` | Gram matrix, $(C_l, C_l)$ |
# | $w_l$ | `weights` | weight of a layer in the style loss, $\ge0$ |
# | $\alpha, \beta$ | `alpha, beta` | weights of content and style loss |
# | $\eta$ | `lr` | step size on the pixels |
# | $a_\theta$ | `TransformNet` | image transform network with parameters $\theta$ |
# | $\mu_i, \sigma_i$ | – | mean and standard deviation of channel $i$ over positions |
#
# Inside formulas on a single layer the index $l$ is dropped: $A$ is then a $C\times M$ matrix, and $C$ a number of channels.

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
# The topic's own imports; scipy and scikit-image are oracles only.

# %%
import itertools
import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.optimize
import scipy.signal
import torch
import torch.nn.functional as F
from ipywidgets import SelectionSlider, interact
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from helpers import feature_net, measured, show_images
from helpers.features import LAYERS
from helpers.features import FeatureNet as VGG

PAGE = "11"

# %% [markdown]
# All sizes and switches. `FEATURES = "vgg19"` downloads the ImageNet network (550 MB) and uses it everywhere below.

# %% tags=["parameters"]
FEATURES = "bundled"    # "vgg19": ImageNet weights, downloaded; "random": untrained
SIZE = 128              # side of the finished pictures, pixels,
SIZE_NET = 96           # of the test photo of the transform network,
SIZE_MID = 80           # of the textures and the comparisons,
SIZE_SLIDER = 110       # of the photo under the slider,
SIZE_SMALL = 72         # of the side experiments
STEPS = 80              # evaluations of the loss in a pixel optimisation
STEPS_TEXTURE = 80
STEPS_SLIDER = 40
STEPS_NET = 160         # training of the transform network:
BATCH_NET = 4           # patches a step,
PATCH = 64              # their side,
N_PATCHES = 400         # and how many there are
WIDTH_NET = 16          # channels of the transform network at full resolution,
N_BLOCKS = 3            # and its residual blocks (Johnson et al.: 32 and 5)
COST_SIZES = [64, 128, 192, 256]

# %% [markdown]
# Random numbers come from explicit generators on the CPU; photos are moved to the device by `photo`.

# %%
def rng(number):
    """A CPU random generator with this seed."""
    return torch.Generator().manual_seed(number)

# %% [markdown]
# Photos come as squares of a given side:

# %%
def photo(name, size):
    """A bundled photo as square (3, size, size) on the page's device."""
    return data.photo(name, size).to(device)

# %% [markdown]
# Identities are checked in float64:

# %%
def normal(seed_number, *shape):
    """Standard normal float64 numbers of a shape, on the device of the page."""
    return torch.randn(*shape, generator=rng(seed_number), dtype=torch.float64).to(device)

# %% [markdown]
# ## 1. Pixels are a poor judge
#
# The obvious distance of two images is Euclidean, over all pixels and colour channels $p$:
#
# $$\lVert A-B\rVert_2=\sqrt{\sum_p(A_p-B_p)^2} \tag{11.1}$$

# %%
def as_float(x):
    """x (tensor or array) as float tensor: bytes and integers converted, half precision widened."""
    x = torch.as_tensor(x)
    exact = not x.is_floating_point()
    return x.to(torch.get_default_dtype() if exact else torch.promote_types(x.dtype, torch.float32))


def pixel_distance(A, B):
    """Euclidean distance (11.1) of tensors of one shape. Scalar; ValueError if shapes differ."""
    A, B = as_float(A), as_float(B)
    if A.shape != B.shape:
        raise ValueError(f"pixels are compared one by one: {tuple(A.shape)} and {tuple(B.shape)} "
                         "differ; resize one of the images")
    return torch.linalg.vector_norm(A - B)                  # its gradient at 0 is 0, not NaN

# %%
u, v = normal(1, 3, 5, 7), normal(2, 3, 5, 7)
check("11.1", "the distance is numpy's norm of the difference", pixel_distance(u, v),
      np.linalg.norm((u - v).cpu().numpy()), rtol=1e-12)

# %% [markdown]
# It treats every pixel as a separate coordinate, so it cannot know that neighbours belong together. The judge of this page
# is a **feature network**: VGG-19 (Simonyan and Zisserman 2015) up to its layer `conv5_1`. Every layer is a convolution with a
# $3\times3$ window and a ReLU,
#
# $$A^{l}_i(p)=\max\Big(0,\ b_i+\sum_{j}\sum_{\delta\in\{-1,0,1\}^2}W_{ij\delta}\,A^{l-1}_j(p+\delta)\Big), \tag{11.2}$$
#
# where $p$ is a pixel, $\delta$ a step to it or to a neighbour, $W$ and $b$ the layer's weights and biases, and $A^0$ the image, normalised with the mean and deviation of ImageNet's colours; outside the image $A^{l-1}=0$. Between
# blocks, $2\times2$ pixels are averaged (Gatys et al. replace VGG's max pooling so; gradients flow better). Features are
# always taken **after** the ReLU. `VGG(64)` has VGG-19's widths; ours, `VGG(16)`, a quarter of them.
#
# (In code: `helpers/features.py`.)

# %% [markdown]
# Random weights come first: drawn with the variance that keeps the size of signals through ReLUs, they serve small tests
# here and a comparison in section 6.

# %%
@torch.no_grad()
def randomise(net, generator):
    """Give net random weights N(0, 2 / fan_in) (He et al. 2015) and no bias; returns it."""
    for conv in (layer for layer in net.features if isinstance(layer, nn.Conv2d)):
        fan_in = conv.weight[0].numel()
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
        conv.bias.zero_()
    return net

# %% [markdown]
# A layer by scipy's `correlate2d`, channel by channel:

# %%
def layer_by_scipy(h, layer):
    """Features (11.2) of maps h (c, H, W), a numpy array, behind one convolution of a VGG."""
    W, b = (v.detach().cpu().numpy() for v in (layer.weight, layer.bias))
    sums = [sum(scipy.signal.correlate2d(h[j], w[j], "same") for j in range(len(h))) for w in W]
    return np.maximum(np.stack(sums) + b[:, None, None], 0)

# %% [markdown]
# The first block, and behind the pooling the start of the second, on a small random network:

# %%
toy_net = randomise(VGG(2), rng(11)).double().to(device)
toy_image = torch.rand(3, 18, 20, generator=rng(3)).double()
inside = (toy_image.numpy() - toy_net.mean.cpu().numpy())
inside = inside / toy_net.std.cpu().numpy()
one_one = layer_by_scipy(inside, toy_net.features[0])                       # (2, 18, 20)
one_two = layer_by_scipy(one_one, toy_net.features[2])
pooled = one_two.reshape(2, 9, 2, 10, 2).mean((2, 4))                       # (2, 9, 10)

# %% [markdown]
# The first layer, the number of parameters and the number of poolings:

# %%
toy_features = toy_net(toy_image.to(device))
check("11.2", "conv1_1 is scipy's correlation of the normalised image, cut at zero",
      toy_features["conv1_1"][0], one_one, atol=1e-6)
check("11.2", "conv2_1 sees averages of 2 x 2 pixels of conv1_2", toy_features["conv2_1"][0],
      layer_by_scipy(pooled, toy_net.features[5]), atol=1e-6)
check("11.2", "VGG(64) has the convolutions of VGG-19: 20,024,384 numbers less its last three",
      sum(p.numel() for p in VGG(64).parameters()), 20_024_384 - 3 * (512 * 512 * 9 + 512))

# %%
check("11.2", "four poolings: 18 x 20 pixels leave 1 x 1 at conv5_1",
      list(toy_features["conv5_1"].shape), [1, 16, 1, 1])

# %%
drawn = randomise(VGG(), rng(33)).features[-2].weight          # 147,456 numbers, fan-in 9 * 128
check("11.2", "random weights have variance 2 / fan_in, within 2 % (5 standard errors)",
      drawn.detach().square().mean() * 9 * 128, 2.0, rtol=0.02)

# %% [markdown]
# Three sets of weights fit this class.

# %% [markdown]
# - **bundled**: the small network that this course trained on patches of its photos, to tell which photo, or which quarter of it, a
#   patch of 64 × 64 comes from, under random scale and colour (`data/make_features.py`). Seven images were kept out of it: camera, cat,
#   coffee, flower, and the three styles.
# - **vgg19**: trained on 1.2 million photos of ImageNet, a download.
# - **random**: the same net, never trained: a control that section 6 takes seriously.
#
# Whatever the weights, each layer is then scaled so that its mean activation on six photos is 1, as Gatys et al. do: weights are multiplied by $g_{l-1}/g_l$ and biases by $1/g_l$, where $g_l$ is the layer's mean
# activation before. With ReLU, $\max(0,cz)=c\max(0,z)$ for $c>0$, this multiplies the features of each layer by one number and changes nothing else; it makes losses of different layers comparable.

# %%
calibration = torch.stack([photo(name, 128) for name in
                           ("admiral", "astronaut", "grass", "motorcycle", "retina", "temple")])
net, random_net = (feature_net(kind).to(device) for kind in (FEATURES, "random"))
toy_before = {layer: f.detach() for layer, f in toy_net(toy_image.to(device)).items()}
toy_net.calibrate(torch.rand(2, 3, 16, 16, generator=rng(0)).double().to(device))
toy_after = toy_net(toy_image.to(device))
toy_ratio = [(toy_after[layer].detach() / f)[f > 1e-6] for layer, f in toy_before.items()]
claim("calibration multiplies each layer by one number",
      max(float(r.max() / r.min()) for r in toy_ratio), 1.0, atol=1e-6)
scaled = [net(calibration)[layer].mean().item() for layer in LAYERS]
check(
    "11.2", "after scaling, the mean activation of every layer is 1", scaled, [1.0] * 13, atol=1e-4
)

# %% [markdown]
# What the training of the bundled network reached, on patches from the lower quarter of its photos, which it never saw:

# %% tags=["nbval-ignore-output"]
about = json.loads((data.DATA / "features.json").read_text())
print(f"{about['steps']:,} training steps; of {about['test_patches']:,} test patches:")
print(f"right class of {len(about['classes'])} for {about['test_accuracy']:.0%}, chance "
      f"{about['chance']:.0%}; right photo for {about['test_accuracy_of_photo']:.0%}")

# %% [markdown]
# **Where the two judges disagree.** Four versions of one photo, made so that all have *exactly* the pixel distance of the first:
# the photo moved by two pixels; blurred; with noise; with less contrast. Given any change $d$, the image $A+t\,d$ with
# $t=r/\lVert d\rVert$ has distance $r$.

# %%
def at_distance(A, changed, r):
    """The image on the line from A through `changed` whose pixel distance (11.1) from A is r."""
    return A + (changed - A) * (r / pixel_distance(A, changed))

# %% [markdown]
# Blurring is a convolution with a Gaussian along rows, then along columns:

# %%
def blur(x, sd):
    """Gaussian blur of (3, H, W) with standard deviation sd pixels, edges repeated."""
    n = int(3 * sd)
    kernel = torch.exp(-torch.arange(-n, n + 1, device=x.device, dtype=x.dtype) ** 2 / (2 * sd**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    x = F.pad(x[None], (n, n, n, n), mode="replicate")
    return F.conv2d(F.conv2d(x, kernel, groups=3), kernel.transpose(2, 3), groups=3)[0]

# %%
blurred = gaussian_filter(toy_image.numpy(), (0, 2.0, 2.0), mode="nearest", truncate=3)
check("11.1", "moved to the distance it has, an image is itself",
      at_distance(u, v, pixel_distance(u, v)), v, atol=1e-12)
check("11.1", "the blur is scipy's gaussian_filter", blur(toy_image, 2.0), blurred, atol=1e-12)

# %% [markdown]
# The photo is a flower, which the network has never seen. Its shift sets the distance $r$; the others follow.

# %%
flower = photo("flower", SIZE_SMALL)
moved = flower.roll(2, dims=-1)
r = pixel_distance(flower, moved)
noise = normal(4, *flower.shape).to(flower)
pairs = {"moved by 2 px": moved, "blurred": at_distance(flower, blur(flower, 3.0), r),
         "noise": at_distance(flower, flower + noise, r),
         "less contrast": at_distance(flower, 0.5 * flower + 0.5 * flower.mean(), r)}
check("11.1", "all four have one and the same pixel distance from the photo",
      [pixel_distance(flower, x) for x in pairs.values()], [r.item()] * 4, rtol=1e-4)

# %% [markdown]
# One photo and four changes of it, all at one distance:

# %% tags=["nbval-ignore-output"]
show_images({"photo": flower, **pairs}, width=1.7)
plt.show()

# %% [markdown]
# The pictures: pixel distance calls all four equally wrong. Now the Euclidean distance of their *features*, as a share of the
# distance to an unrelated photo (the coffee cup), layer by layer, and in pixels for comparison:

# %% tags=["nbval-ignore-output"]
other = photo("coffee", SIZE_SMALL)
rows = {"pixels": {name: (r / pixel_distance(flower, other)).item() for name in pairs}}
for layer in ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"):
    far = pixel_distance(net(flower)[layer], net(other)[layer])
    rows[layer] = {name: (pixel_distance(net(flower)[layer], net(x)[layer]) / far).item()
                   for name, x in pairs.items()}
judged = pd.DataFrame(rows).T.round(2)
judged

# %%
spread = judged.max(axis=1) / judged.min(axis=1)
claim("every layer sees a difference between the four; pixels see none",
      spread.drop("pixels").min(), above=1.15, trivial=spread["pixels"])

# %% [markdown]
# Pixels cannot tell the four apart, every layer can. With depth the network forgives the *shift* more and more. It does **not** forgive everything more with depth, as one often reads: look at the rows of blur and noise. A feature distance has its own taste, perhaps that of its task.
#
# ## 2. Content loss
#
# The distance just used, squared, is the **content loss** at layer $l$: over channels $i$ and positions $k$,
#
# $$L^l_{content}(A,B)=\sum_{i,k}\big(A^l_{ik}-B^l_{ik}\big)^2 \tag{11.3}$$
#
# (Gatys et al. put $\tfrac12$ in front; that rescales $\alpha$.) Each term contains one variable, so the derivative is immediate:
#
# $$\frac{\partial L^l_{content}}{\partial A^l_{ik}}=2\big(A^l_{ik}-B^l_{ik}\big),\qquad
# \nabla_XL_{content}=J^\top\,2(A^l-B^l), \tag{11.4}$$
#
# where $J=\partial A^l/\partial X$ is the Jacobian of the network; backpropagation computes $J^\top v$ without forming $J$.

# %%
def content_loss(A, B):
    """Content loss (11.3): sum of squared differences of two feature maps of one shape. Scalar.

    Raises ValueError if the shapes differ: the positions of the two maps must correspond.
    """
    A, B = as_float(A), as_float(B)
    if A.shape != B.shape or A.numel() == 0:
        raise ValueError(f"content loss compares positions one by one: {tuple(A.shape)} and "
                         f"{tuple(B.shape)} differ or are empty; resize the images first")
    return (A - B).square().sum()

# %% [markdown]
# Against PyTorch:

# %%
u, v = normal(5, 4, 3, 5).requires_grad_(), normal(6, 4, 3, 5)
check("11.3", "the loss is F.mse_loss with reduction='sum'", content_loss(u, v),
      F.mse_loss(u, v, reduction="sum"), rtol=1e-12)
check("11.4", "autograd's gradient is 2(A - B)", torch.autograd.grad(content_loss(u, v), u)[0],
      2 * (u - v), rtol=1e-12)

# %% [markdown]
# The chain rule in (11.4), with the Jacobian written out for a tiny image:

# %%
small, aim = (torch.rand(3, 16, 16, generator=rng(n)).double().to(device) for n in (7, 8))
J = torch.autograd.functional.jacobian(lambda x: toy_net(x)["conv2_1"].flatten(), small)
miss = (toy_net(small)["conv2_1"] - toy_net(aim)["conv2_1"]).flatten()      # (256,)
x = small.clone().requires_grad_()
loss = content_loss(toy_net(x)["conv2_1"], toy_net(aim)["conv2_1"])
check("11.4", "the gradient by pixels is the transposed Jacobian times 2(A - B)",
      torch.autograd.grad(loss, x)[0], torch.einsum("npqr,n->pqr", J, 2 * miss), atol=1e-9)

# %% [markdown]
# **The image is the variable.** Weights are frozen; the pixels are trained:
#
# $$X_{t+1}=X_t-\eta\,\nabla_XL(X_t),\qquad X_0=\text{noise, or an image} \tag{11.5}$$
#
# Plain descent is slow here: the loss is badly scaled. L-BFGS builds an estimate of the curvature from the last gradients and
# needs far fewer evaluations; Adam is the fallback when memory or noise forbid it. `optimise_pixels` offers all three.
# PyTorch's L-BFGS stops when the loss changes by less than an absolute tolerance, so both tolerances are set to 0. Pixels must end in $[0,1]$, and
# clipping a finished picture can throw away most of what was gained; so a **wall**, a squared penalty on what lies outside, can be added, and the loss that counts is that of the clipped picture.

# %%
WALL = 1e4              # weight of the wall for pictures


def checked_descent(steps, lr, wall, optimiser):
    """ValueError unless steps >= 1 (int), lr > 0, wall >= 0 and the optimiser is a known one."""
    if optimiser not in ("lbfgs", "adam", "sgd"):
        raise ValueError(f'optimiser must be "lbfgs", "adam" or "sgd", got {optimiser!r}')
    if not (isinstance(steps, int) and steps >= 1 and math.isfinite(lr) and lr > 0 and wall >= 0):
        raise ValueError(f"need steps >= 1 (int), lr > 0, wall >= 0; got {steps!r}, {lr}, {wall}")

# %%
def optimise_pixels(loss, start, steps, optimiser="lbfgs", lr=0.02, wall=0.0):
    """Minimise loss(x) + wall * |what of x lies outside [0, 1]|² from `start`, eq. (11.5).

    steps: about so many evaluations. optimiser: "lbfgs", "adam" or "sgd" (plain descent); lr: step
    size of the last two. Returns the last x and the list of values, one per evaluation. With a wall
    x is clipped, and the last value of the list is the loss of what is returned.
    """
    checked_descent(steps, lr, wall, optimiser)
    x, losses = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_(), []
    if optimiser == "lbfgs":
        method = torch.optim.LBFGS([x], max_iter=steps, max_eval=steps, history_size=20,
                                   tolerance_grad=0, tolerance_change=0,
                                   line_search_fn="strong_wolfe")
    else:
        method = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimiser]([x], lr=lr)

    def closure():
        method.zero_grad()
        value = loss(x) + (wall * (x - x.clamp(0, 1)).square().sum() if wall else 0)
        value.backward()
        losses.append(value.item())
        return value
    for _ in range(1 if optimiser == "lbfgs" else steps):
        method.step(closure)
    if not torch.isfinite(x).all():
        raise ValueError("the pixels became NaN or infinite: take a smaller lr or smaller weights")
    if wall:
        x = x.detach().clamp(0, 1)
        losses.append(loss(x).item())
    return x.detach(), losses

# %%
toy_loss = lambda x: content_loss(toy_net(x)["conv3_1"], toy_net(aim)["conv3_1"])
slope = torch.autograd.functional.jacobian(toy_loss, small)
stepped, _ = optimise_pixels(toy_loss, small, 1, "sgd", lr=1e-3)
_, falling = optimise_pixels(toy_loss, small, 30, "sgd", lr=1e-3)
check(
    "11.5", "one step is x minus eta times the gradient", stepped, small - 1e-3 * slope, atol=1e-12
)

# %%
check("11.5", "for small eta the loss falls at every step", np.diff(falling) < 0)

# %% [markdown]
# L-BFGS against scipy's independent implementation, on 16 × 16 pixels:

# %%
def by_scipy_lbfgs(loss, start, steps):
    """Minimum of loss that scipy's L-BFGS-B reaches from `start` (a float64 tensor)."""

    def value_and_gradient(flat):
        x = torch.tensor(flat, device=start.device).view_as(start).requires_grad_()
        value = loss(x)
        return value.item(), torch.autograd.grad(value, x)[0].flatten().cpu().numpy()

    return scipy.optimize.minimize(
        value_and_gradient,
        start.flatten().cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": steps, "maxfun": 2 * steps, "ftol": 0, "gtol": 0},
    ).fun

# %% [markdown]
# Both start at the same pixels:

# %%
_, ours = optimise_pixels(toy_loss, small, 300)
check("11.5", "L-BFGS and scipy both leave less than a thousandth of the loss",
      max(ours[-1], by_scipy_lbfgs(toy_loss, small, 300)) < 1e-3 * ours[0])

# %% [markdown]
# **What survives at each depth.** Start from noise, minimise (11.3) at one layer alone, look. The photo is the cat, which the network
# never saw.

# %%
DEPTHS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
cat = photo("cat", SIZE_SMALL)
grey_noise = (0.5 + 0.1 * normal(9, *cat.shape)).to(cat)
cat_features, rebuilt = net(cat), {}
for depth in progress(DEPTHS):
    depth_loss = lambda x: content_loss(net(x, depth)[depth], cat_features[depth])
    rebuilt[depth] = optimise_pixels(depth_loss, grey_noise, STEPS_TEXTURE, wall=WALL)[0]

# %% [markdown]
# The photo, and what five layers remember of it:

# %% tags=["nbval-ignore-output"]
show_images({"photo": cat, **rebuilt}, width=1.6)
plt.show()

# %% [markdown]
# From left to right less of the cat is left. In pixels the table compares each picture with the cat, and with what doing nothing would give: the start, grey noise. A deep layer does not *see* most changes of pixels, so nothing corrects
# them, and the start leaves its traces: in pixels a reconstruction from `conv5_1` is no better than the noise it came from.

# %% tags=["nbval-ignore-output"]
def what_remains(image, layer):
    """How far a reconstruction from a layer is from the cat, in pixels and in that layer."""
    target, noise = cat_features[layer], net(grey_noise)[layer]
    share = content_loss(net(image)[layer], target) / content_loss(noise, target)
    return {"pixel error": (image - cat).square().mean().sqrt().item(),
            "numbers per pixel": target.numel() / SIZE_SMALL**2,
            "content loss, share of noise": share.item()}


remains = {depth: what_remains(picture, depth) for depth, picture in rebuilt.items()}
nothing_done = (grey_noise - cat).square().mean().sqrt().item()
pd.DataFrame(remains).T.assign(**{"pixel error of the start": nothing_done}).round(4)

# %%
claim("at every layer the loss falls below a tenth of that of noise",
      max(row["content loss, share of noise"] for row in remains.values()), below=0.1, trivial=1.0)
claim("conv1_1 determines the pixels far better than the start", remains["conv1_1"]["pixel error"],
      below=0.5 * nothing_done, trivial=nothing_done)
claim("conv5_1 pins down the pixels less than conv1_1, by a factor of more than 2",
      remains["conv5_1"]["pixel error"], above=2 * remains["conv1_1"]["pixel error"],
      trivial=remains["conv1_1"]["pixel error"])

# %% [markdown]
# ## 3. The Gram matrix
#
# Style is what stays when the *places* of things are forgotten. So let us collect statistics of the features that do not mention places. At
# position $k$ the network emits a vector $a_k=(A_{1k},\dots,A_{Ck})$. Which channels fire **together** at one place is in
# the outer product $a_ka_k^\top$; summed over all places it is the Gram matrix:
#
# $$G_{ij}(A)=\sum_{k=1}^{M}A_{ik}A_{jk}\qquad\text{or}\qquad G(A)=\sum_k a_ka_k^\top=AA^\top \tag{11.6}$$
#
# First as it reads, then as one matrix product for any number of leading dimensions.

# %%
def gram_matrix_loop(A):
    """Gram matrix (11.6), position by position: A (C, H, W) -> (C, C)."""
    C, H, W = A.shape
    G = A.new_zeros(C, C)
    for h, w in itertools.product(range(H), range(W)):
        G += torch.outer(A[:, h, w], A[:, h, w])
    return G

# %% [markdown]
# The product form, with leading dimensions for batches:

# %%
def gram_matrix(A):
    """Gram matrix (11.6), a plain sum over positions: A (..., C, H, W) -> (..., C, C).

    Raises ValueError for fewer than three dimensions or an empty map.
    """
    A = as_float(A)
    if A.ndim < 3 or A.numel() == 0:
        raise ValueError(f"a feature map is (..., C, H, W) and not empty, got {tuple(A.shape)}")
    A = A.flatten(-2)                                                    # (..., C, M)
    return A @ A.transpose(-1, -2)                                       # (..., C, C)

# %% [markdown]
# Two oracles: the loop, and numpy on maps of another size.

# %%
A, B = normal(10, 2, 4, 3, 5), normal(11, 2, 4, 6, 4)  # two maps each, 15 and 24 positions
check("11.6", "the product is the loop over positions", gram_matrix(A),
      torch.stack([gram_matrix_loop(a) for a in A]), atol=1e-12)
check("11.6", "and numpy's einsum over k", gram_matrix(B),
      np.einsum("bihw,bjhw->bij", B.cpu().numpy(), B.cpu().numpy()), atol=1e-12)

# %% [markdown]
# **Positive semidefinite.** For any vector $v$ of channel weights,
#
# $$v^\top Gv=\sum_k v^\top a_k\,a_k^\top v=\sum_k(a_k^\top v)^2=\lVert A^\top v\rVert^2\ge0, \tag{11.7}$$
#
# so $G$ has no negative eigenvalue, and its rank is at most $\min(C,M)$.
#
# **Blind to places.** Let $\Pi$ be the $M\times M$ matrix that permutes positions. Every permutation matrix is orthogonal, $\Pi\Pi^\top=I$:
#
# $$G(A\Pi)=A\Pi\Pi^\top A^\top=AA^\top=G(A) \tag{11.8}$$
#
# (or: a sum does not depend on the order of its terms). Hence any loss that is a function of $G$ is unchanged under **any** permutation of positions,
# not only shifts.

# %%
G, w = gram_matrix(A[0]), normal(12, 4)
check("11.7", "the quadratic form is the sum of squared responses", w @ G @ w,
      sum((w @ A[0, :, h, k]) ** 2 for h in range(3) for k in range(5)), rtol=1e-12)
check("11.7", "no negative eigenvalue; 3 positions give rank 3 in 4 channels",
      bool((torch.linalg.eigvalsh(G) > 0).all())
      and torch.linalg.matrix_rank(gram_matrix(A[0, :, :1, :3])).item() == 3)

# %% [markdown]
# Any permutation of the 15 positions will do:

# %%
order = torch.randperm(15, generator=rng(13)).to(device)
shuffled = A.flatten(-2)[..., order].view_as(A)
check("11.8", "a random permutation of positions leaves the Gram matrix", gram_matrix(shuffled),
      gram_matrix(A), atol=1e-12)
check("11.8", "but not the content: its loss is far from 0", content_loss(shuffled, A) > 1)

# %% [markdown]
# **The content loss is not blind.** The last line is a counter-example; here is the size of the effect. Expand the square:
# $\sum_{i,k}(A_{ik}-A_{i\pi(k)})^2=2\lVert A\rVert^2-2\sum_{i,k}A_{ik}A_{i\pi(k)}$. For a uniformly random $\pi$, $\pi(k)$ is each position with
# probability $1/M$, so $\mathbb E\,A_{i\pi(k)}=\mu_i$, the mean of the channel, and
#
# $$\mathbb E_\pi\,L_{content}(A,A\Pi)=2\sum_i\Big(\sum_kA_{ik}^2-M\mu_i^2\Big)=2M\sum_i\sigma_i^2 \tag{11.9}$$
#
# It vanishes only if every channel is constant. The oracle goes through all $5!=120$ permutations.

# %%
def expected_shuffle_loss(A):
    """Mean content loss (11.9) between A (C, H, W) and A with its positions permuted at random."""
    return 2 * A[0].numel() * A.flatten(1).var(1, correction=0).sum()

# %% [markdown]
# Three channels, five positions:

# %%
five = normal(14, 3, 1, 5)
every = [content_loss(five, five[..., list(p)]) for p in itertools.permutations(range(5))]
check("11.9", "the mean over all 120 permutations", expected_shuffle_loss(five),
      torch.stack(every).mean(), rtol=1e-12)

# %% [markdown]
# **What it measures.** Subtract and add the channel means $\mu_i$: the mixed terms sum to zero, so
#
# $$\frac1MG_{ij}=\operatorname{cov}_{ij}+\mu_i\mu_j \tag{11.10}$$
#
# A Gram matrix is an uncentred second moment: it knows *how much* of each feature there is and *which ones come together*, but is no correlation.

# %%
flat = A[0].flatten(1).cpu().numpy()
check(
    "11.10",
    "Gram matrix over M is numpy's covariance plus the product of means",
    gram_matrix(A[0]) / 15,
    np.cov(flat, bias=True) + np.outer(flat.mean(1), flat.mean(1)),
    atol=1e-12,
)

# %% [markdown]
# **Which normalisation?** $G$ is a sum over positions, hence additive: put the positions of $A$ and $B$ side by side,
#
# $$G([A\ B])=G(A)+G(B),\qquad G([A\ A])=2\,G(A) \tag{11.11}$$
#
# An image of twice the size, same texture, has twice the Gram matrix. What is comparable is the **mean** over positions, $G/M$, each with *its own* $M$.
# Gatys et al. compare images of equal size with the factor $1/(4C^2M^2)$. Taken into the square, it becomes right for any sizes:
#
# $$L^l_{style}(A,B)=\sum_{i,j}\left(\frac{G_{ij}(A)}{2\,C_l\,M_A}-\frac{G_{ij}(B)}{2\,C_l\,M_B}\right)^2
# \ \overset{M_A=M_B}{=}\ \frac1{4C_l^2M^2}\sum_{i,j}\big(G_{ij}(A)-G_{ij}(B)\big)^2 \tag{11.12}$$

# %%
def style_loss(A, B):
    """Style loss (11.12) of one layer: A (..., C, H_A, W_A), B (..., C, H_B, W_B) -> scalar.

    Sizes may differ; leading dimensions broadcast and are summed. ValueError if C differs.
    """
    A, B = as_float(A), as_float(B)
    if A.ndim < 3 or B.ndim < 3 or A.shape[-3] != B.shape[-3]:
        raise ValueError("style loss needs two maps (..., C, H, W) of one layer, with equally many "
                         f"channels; got {tuple(A.shape)} and {tuple(B.shape)}")
    G_A, G_B = (gram_matrix(m) / (2 * m.shape[-3:].numel()) for m in (A, B))     # (..., C, C)
    return (G_A - G_B).square().sum()

# %% [markdown]
# The map tiled once has twice the positions:

# %%
tiled = A[0].repeat(1, 2, 1)  # (4, 6, 5), twice the positions
check("11.11", "tiled once, a map has twice the Gram matrix", gram_matrix(tiled),
      gram_matrix(A[0]) + gram_matrix(A[0]), atol=1e-12)
check("11.12", "but style loss 0: size does not matter", style_loss(tiled, A[0]), 0.0, atol=1e-20)

# %%
check(
    "11.12",
    "equal sizes: the published factor 1 / (4 C² M²)",
    style_loss(A[0], A[1]),
    np.linalg.norm((gram_matrix(A[0]) - gram_matrix(A[1])).cpu()) ** 2 / (4 * 4**2 * 15**2),
    rtol=1e-12,
)

# %% [markdown]
# Unequal sizes, written as (11.12) reads, and the tempting wrong way: one factor $1/(4C^2M_AM_B)$ in front of the difference of the plain sums
# calls a texture and its own tiling different.

# %%
terms = [
    (gram_matrix_loop(A[0])[i, j] / (2 * 4 * 15) - gram_matrix_loop(B[0])[i, j] / (2 * 4 * 24)) ** 2
    for i in range(4)
    for j in range(4)
]
check("11.12", "unequal sizes: entry by entry", style_loss(A[0], B[0]), sum(terms), rtol=1e-12)

# %%
check("11.12", "a batch is the sum of its members", style_loss(A, B),
      sum(style_loss(a, b) for a, b in zip(A, B)), rtol=1e-12)

# %%
one_factor = (gram_matrix(tiled) - gram_matrix(A[0])).square().sum() / (4 * 4**2 * 15 * 30)
check("11.12", "one common factor: a texture is half as far from its tiling as from an empty map",
      one_factor, style_loss(A[0], 0 * A[0]) / 2, rtol=1e-12)

# %% [markdown]
# **The gradient by hand.** Let $D=G(A)-G(B)$, symmetric. A small change $dA$ changes $G$ by $dG=dA\,A^\top+A\,dA^\top$, so
# $$d\,\lVert D\rVert_F^2=2\langle D,dG\rangle=2\operatorname{tr}(D\,dA\,A^\top)+2\operatorname{tr}(D\,A\,dA^\top)=4\langle DA,\,dA\rangle,$$
# because both traces are equal for symmetric $D$. With the factors of (11.12) the chain rule gives one $1/(2CM_A)$ more:
#
# $$\frac{\partial}{\partial A}\lVert G(A)-G(B)\rVert_F^2=4\,(G(A)-G(B))\,A,\qquad
# \frac{\partial L_{style}}{\partial A}=\frac{2}{CM_A}\Big(\frac{G(A)}{2CM_A}-\frac{G(B)}{2CM_B}\Big)A \tag{11.13}$$
#
# Column $k$ of the first gradient is $4D\,a_k$: every position receives the same linear map of its own feature vector. The cost is that of another Gram matrix.

# %%
def style_gradient(A, B):
    """Gradient (11.13) of style_loss(A, B) by A: A (C, H_A, W_A), B (C, H_B, W_B) -> as A."""
    (C, H, W), M_B = A.shape, B[0].numel()
    D = gram_matrix(A) / (2 * C * H * W) - gram_matrix(B) / (2 * C * M_B)
    return 2 / (C * H * W) * (D @ A.flatten(1)).view_as(A)

# %% [markdown]
# Three witnesses, the last one finite differences in float64:

# %%
a, b = A[0].clone().requires_grad_(), B[0]
check(
    "11.13",
    "autograd agrees with the gradient by hand",
    torch.autograd.grad(style_loss(a, b), a)[0],
    style_gradient(A[0], b),
    atol=1e-14,
)

# %%
plain = (gram_matrix(a) - gram_matrix(b)).square().sum()
check(
    "11.13",
    "without normalisation: 4 (G_A - G_B) A",
    torch.autograd.grad(plain, a)[0].flatten(1),
    4 * (gram_matrix(A[0]) - gram_matrix(b)) @ A[0].flatten(1),
    rtol=1e-10,
)

# %%
check("11.13", "and gradcheck confirms autograd by finite differences",
      torch.autograd.gradcheck(lambda m: style_loss(m, b), a))

# %% [markdown]
# ## 4. Style loss over layers: textures from nothing
#
# Shallow layers see colours and strokes, deep layers arrangements. The style loss takes a weighted sum over layers:
#
# $$L_{style}(A,B)=\sum_l w_l\,L^l_{style}(A,B) \tag{11.14}$$

# %%
STYLE_WEIGHTS = {"conv1_1": 1000.0, "conv1_2": 1000.0, "conv2_1": 100.0, "conv2_2": 100.0,
                 "conv3_1": 3.0, "conv4_1": 0.1}
STRENGTH = 0.1          # default of beta / (H W)


def total_style_loss(A_feats, B_feats, weights):
    """Style loss (11.14) of two dicts of features, over the layers of weights: layer -> w_l.

    Raises ValueError if a layer is missing.
    """
    missing = set(weights) - (set(A_feats) & set(B_feats))
    if missing:
        raise ValueError(f"no features of layer {', '.join(sorted(missing))}: weights may name "
                         "only layers that both images have")
    return sum(w * style_loss(A_feats[layer], B_feats[layer]) for layer, w in weights.items())

# %% [markdown]
# Features of two toy images:

# %%
feats_a, feats_b = ({k: v[0].detach() for k, v in toy_net(x).items()} for x in (small, aim))
w1, w2 = {"conv1_1": 0.5, "conv2_1": 2.0}, {"conv1_1": 1.0, "conv2_1": -0.5}
both = {layer: 3 * w1[layer] + w2[layer] for layer in w1}
check(
    "11.14",
    "the loss is linear in the weights",
    total_style_loss(feats_a, feats_b, both),
    3 * total_style_loss(feats_a, feats_b, w1) + total_style_loss(feats_a, feats_b, w2),
    rtol=1e-12,
)

# %%
check("11.14", "each layer with its own weight", total_style_loss(feats_a, feats_b, w1),
      0.5 * style_loss(feats_a["conv1_1"], feats_b["conv1_1"])
      + 2 * style_loss(feats_a["conv2_1"], feats_b["conv2_1"]), rtol=1e-12)

# %% [markdown]
# **Texture synthesis**: start from noise and minimise the style loss alone (Gatys et al. 2015). The three styles were painted by a program of
# this course (`data/make_styles.py`); the network never saw them.

# %%
def synthesise(net, style, weights, start, steps):
    """Texture in a style: minimise (11.14) from start. Returns image; losses, its own the last."""
    target = {layer: f.detach() for layer, f in net(style).items()}
    loss = lambda x: 1e5 * total_style_loss(net(x), target, weights)
    return optimise_pixels(loss, start, steps, wall=WALL)

# %% [markdown]
# One run per style, from the same noise:

# %%
STYLES = {
    "strokes": photo("strokes", 192),
    "tiles": photo("tiles", 192),
    "waves": photo("waves", 192),
}
noise_start = (0.5 + 0.1 * normal(15, 3, SIZE_MID, SIZE_MID)).to(cat)
textures, texture_losses = {}, {}
for which, picture in progress(STYLES.items()):
    textures[which], texture_losses[which] = synthesise(net, picture, STYLE_WEIGHTS, noise_start,
                                                        STEPS_TEXTURE)

# %% [markdown]
# Above, a corner of each style; below, the texture made from noise:

# %% tags=["nbval-ignore-output"]
corner = {which: picture[:, :SIZE_MID, :SIZE_MID] for which, picture in STYLES.items()}
show_images(
    {**corner, **{f"from {which}": picture for which, picture in textures.items()}},
    columns=3,
    width=1.9,
)
plt.show()

# %% [markdown]
# The lower row has the lead between the glass, the grain of the brush, and nothing at its old place: what (11.8) promises. Colours are only roughly those of the style. It also shows what the statistics lose: stars and rings are larger than what a feature of `conv4_1` sees, so no term asks for them.

# %%
fallen = [curve[-1] / curve[0] for curve in texture_losses.values()]
claim("each finished texture has less than 2 % of the style loss of noise", max(fallen), below=0.02,
      trivial=1.0)

# %% [markdown]
# ## 5. The perceptual loss and stylisation
#
# One image $X$ shall have the content of $C$ and the style of $S$:
#
# $$L(C,S,X)=\alpha\sum_{l\in\mathcal C}L^l_{content}(C,X)+\beta\sum_lw_lL^l_{style}(S,X)\ \to\ \min_X \tag{11.15}$$
#
# with usually a single content layer in $\mathcal C$. The two parts scale differently: the content loss is a sum over $C_lM_l$ numbers, the style loss
# is normalised. At equal taste $\beta/\alpha$ therefore grows with the number of pixels; the page sets $\beta=\text{strength}\times HW$.

# %%
def perceptual_loss(x, content_feats, style_feats, alpha, beta, weights, net=None):
    """Perceptual loss (11.15). Scalar.

    x: features of the generated image, dict layer -> (..., C, H, W); with net, the image itself.
    content_feats: features of the content image at the content layers only, shaped as those of x.
    style_feats: features of the style image, of any size; weights: style layers, dict layer -> w_l.
    """
    if net is None and not isinstance(x, dict):
        raise ValueError("x must be a dict of features; for an image pass the network too: net=...")
    x_feats = net(x) if net is not None else x
    missing = set(content_feats) - set(x_feats)
    if missing:
        raise ValueError(f"x has no features of content layer {', '.join(sorted(missing))}")
    content = sum(content_loss(x_feats[layer], f) for layer, f in content_feats.items())
    return alpha * content + beta * total_style_loss(x_feats, style_feats, weights)

# %% [markdown]
# The weighted sum, by hand:

# %%
two = {layer: feats_b[layer] for layer in ("conv1_2", "conv2_1")}
check(
    "11.15",
    "alpha content + beta style, part by part",
    perceptual_loss(feats_a, two, feats_b, 0.7, 3.0, w1),
    0.7 * sum(content_loss(feats_a[layer], feats_b[layer]) for layer in two)
    + 3 * total_style_loss(feats_a, feats_b, w1),
    rtol=1e-12,
)

# %% [markdown]
# The gradient that the optimiser will use, by finite differences:

# %%
toy_c, toy_s = ({k: f.detach() for k, f in toy_net(x).items()} for x in (small, aim))
toy_l = lambda x: perceptual_loss(
    x, {"conv2_1": toy_c["conv2_1"]}, toy_s, 1.0, 50.0, w1, net=toy_net
)
start = torch.rand(1, 3, 16, 16, generator=rng(16)).double().to(device)
check("11.15", "gradcheck in X, through the network, by finite differences",
      torch.autograd.gradcheck(toy_l, start.requires_grad_(), eps=1e-7, atol=1e-5))

# %% [markdown]
# **Total variation** is the usual third term. With the neighbours below and to the right, summed over colours,
#
# $$TV_p(X)=\sum_{h,w}|X_{h+1,w}-X_{h,w}|^p+|X_{h,w+1}-X_{h,w}|^p \tag{11.16}$$
#
# $p=1$ is the classical total variation: a step and a ramp of the same height cost the same, so edges survive. $p=2$ prefers ramps: height 1 in $n$ steps
# costs $1/n$; its gradient is linear, minus twice the discrete Laplacian. Both suppress fine noise, which average pooling hides from the deeper layers.

# %%
def total_variation(x, p=1):
    """Total variation (11.16) of images (..., H, W), summed over everything; p = 1 or 2. Scalar."""
    x = as_float(x)
    if x.ndim < 2 or x.numel() == 0 or p not in (1, 2):
        raise ValueError(
            f"total variation takes images (..., H, W) and p = 1 or 2, got {tuple(x.shape)}, {p}"
        )
    down, right = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
    return down.abs().pow(p).sum() + right.abs().pow(p).sum()

# %% [markdown]
# Against numpy:

# %%
x = normal(17, 3, 6, 7).requires_grad_()
steps_of = [np.diff(x.detach().cpu().numpy(), axis=k) for k in (1, 2)]
for p in (1, 2):
    check("11.16", f"p = {p}: numpy's differences along both axes", total_variation(x, p),
          sum((np.abs(d) ** p).sum() for d in steps_of), rtol=1e-12)
check("11.16", "p = 1 unless said otherwise", total_variation(x), total_variation(x, 1))

# %% [markdown]
# The claim about ramps and steps, and the Laplacian with edge pixels repeated:

# %%
ramp, step = torch.linspace(0, 1, 9)[None], torch.tensor([[0.0] * 4 + [1.0] * 5])
check("11.16", "p = 1 likes ramp and step alike, p = 2 makes the ramp 8 times cheaper",
      [total_variation(i, p) for p in (1, 2) for i in (ramp, step)], [1, 1, 1 / 8, 1], atol=1e-6)

# %%
laplace = scipy.signal.convolve2d(np.pad(x[0].detach().cpu().numpy(), 1, mode="edge"),
                                  [[0, 1, 0], [1, -4, 1], [0, 1, 0]], "valid")
check("11.16", "the gradient for p = 2 is minus twice the discrete Laplacian",
      torch.autograd.grad(total_variation(x, 2), x)[0][0], -2 * laplace, atol=1e-12)

# %% [markdown]
# Now everything together. `stylize` refuses what would fail silently or with a riddle: grey images, values outside $[0,1]$, images so small
# that `conv5_1` has no pixel left.

# %%
def checked_image(x, name):
    """x as float RGB image (3, H, W) in [0, 1], at least 16 x 16; else a ValueError with the cure.

    Takes tensors and arrays, permuted views too; bytes are divided by 255.
    """
    if isinstance(x, (str, list)):
        raise ValueError(f"{name} must be an image, a tensor or an array (3, H, W), got {x!r:.40}")
    x = torch.as_tensor(x)
    x = x / 255 if x.dtype == torch.uint8 else as_float(x)
    advice = {x.ndim == 4: "pass one image of a batch at a time: x[0]",
              x.ndim == 2 or x.shape[:1] == (1,): "repeat a grey image three times: "
              "x.expand(3, -1, -1)", x.ndim == 3 and x.shape[-1] in (3, 4): "channels come first: "
              "x[..., :3].permute(2, 0, 1)", x.shape[:1] == (4,): "drop the alpha channel: x[:3]"}
    if x.ndim != 3 or x.shape[0] != 3 or min(x.shape[1:]) < 16:
        raise ValueError(f"{name} must be (3, H, W) of at least 16 x 16 pixels, got "
                         f"{tuple(x.shape)}; {advice.get(True, 'enlarge it')}")
    if not ((x >= 0) & (x <= 1)).all():  # also catches NaN
        raise ValueError(f"{name} must lie in [0, 1]; divide 0..255 by 255, or clip it")
    return x.contiguous()

# %% [markdown]
# Where the pixels start:

# %%
def starting_image(start, content):
    """X_0: the content image, grey noise of its shape, or the given image. ValueError otherwise."""
    if isinstance(start, torch.Tensor) and start.shape == content.shape:
        return checked_image(start.detach(), "start").to(content)
    if not isinstance(start, str) or start not in ("content", "noise"):
        raise ValueError('start must be "content", "noise" or an image of the shape of content')
    noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(0)).to(content)
    return content if start == "content" else 0.4 + 0.2 * noise

# %% [markdown]
# And the function of this chapter:

# %%
def stylize(content, style, net=None, *, alpha=1.0, beta=None, weights=None, tv=0.0, steps=120,
            content_layer="conv4_1", start="content", optimiser="lbfgs", lr=0.02, history=None):
    """Minimise (11.15) + tv * TV_1 over the pixels: images (3, H, W) in [0, 1] -> same.

    net: default feature_net("bundled"). beta: default STRENGTH * H * W. weights: STYLE_WEIGHTS.
    start: "content", "noise" or an image. history: list that receives the losses, the last one that
    of the returned image. ValueError for bad images, names, numbers; sizes may differ.
    """
    content = checked_image(content, "content")
    style = checked_image(style, "style").to(content)
    net = feature_net("bundled").to(content) if net is None else net
    content, style = content.to(net.mean), style.to(net.mean)
    beta = STRENGTH * content[0].numel() if beta is None else beta
    weights = STYLE_WEIGHTS if weights is None else weights
    numbers = (alpha, beta, tv, *weights.values()) if isinstance(weights, dict) else (-1,)
    if not weights or not all(math.isfinite(v) and v >= 0 for v in numbers):
        raise ValueError("alpha, beta, tv, weights (a dict layer -> number) must be finite, >= 0")
    x0 = starting_image(start, content)
    with torch.no_grad():
        target = {content_layer: net(content, content_layer)[content_layer]}
        style_feats = net(style)
    loss = lambda x: (perceptual_loss(x, target, style_feats, alpha, beta, weights, net)
                      + (tv * total_variation(x) if tv else 0))
    x, losses = optimise_pixels(loss, x0, steps, optimiser, lr, wall=WALL)
    if history is not None:
        history += losses
    return x

# %% [markdown]
# What it says to bad input:

# %%
refused = {
    "grey": torch.rand(1, 64, 64),
    "tiny": torch.rand(3, 12, 64),
    "0 to 255": 255 * torch.rand(3, 64, 64),
    "a batch": torch.rand(2, 3, 64, 64),
    "NaN": torch.full((3, 64, 64), float("nan")),
}
for name, bad in refused.items():
    try:
        stylize(bad, cat)
        print(name, "was accepted")
    except ValueError as error:
        print(f"{name:8} {error}")

# %% [markdown]
# One plain step of `stylize` with every option set, against the loss written out and its gradient; then its defaults:

# %%
x_0 = torch.rand(3, 16, 16, generator=rng(34)).double().to(device).requires_grad_()
t_x, t_c, t_s = (toy_net(x) for x in (x_0, small, aim))
spread_out = sum(x_0.diff(dim=d).abs().sum() for d in (1, 2))
wanted = (0.7 * content_loss(t_x["conv2_1"], t_c["conv2_1"])
          + 30 * total_style_loss(t_x, t_s, w1) + 0.5 * spread_out)
downhill = x_0 - 0.05 * torch.autograd.grad(wanted, x_0)[0]
said = []
one_step = stylize(small, aim, toy_net, alpha=0.7, beta=30.0, weights=w1, tv=0.5, steps=1,
                   content_layer="conv2_1", start=x_0, optimiser="sgd", lr=0.05, history=said)

# %%
check("11.15", "stylize steps down alpha content + beta style + tv TV, then clips", one_step,
      downhill.clamp(0, 1), atol=1e-9)
check("11.15", "some pixels were clipped, and the loss is that of the start",
      bool((downhill - one_step).abs().max() > 0.01) and abs(said[0] - wanted.item()) < 1e-8)

# %%
said = []
stylize(small, aim, toy_net, steps=1, history=said)
check("11.15", "unless said otherwise it starts at the content, with beta = 0.1 H W",
      said[0], 0.1 * 256 * total_style_loss(t_c, t_s, STYLE_WEIGHTS), rtol=1e-9)
grain = starting_image("noise", small)
check("11.15", "noise lies between 0.4 and 0.6, and is noise",
      bool((abs(grain - 0.5) <= 0.1).all() and grain.std() > 0.05))

# %% [markdown]
# The whole chain against scipy, float64, 16 × 16 pixels: (11.15) through the net, from the same start.

# %%
start = start.detach()
_, ours = optimise_pixels(toy_l, start, 400)
theirs = by_scipy_lbfgs(toy_l, start, 400)
check("11.15", "scipy's L-BFGS-B ends at the same loss, within 2 % of what was gained",
      abs(ours[-1] - theirs) < 0.02 * (ours[0] - theirs))

# %% [markdown]
# **Two starts, two optimisers.** The same loss, from the content image and from noise:

# %%
content = photo("astronaut", SIZE_MID)
curves, results = {}, {}
for way, begin in progress(list(itertools.product(("lbfgs", "adam"), ("content", "noise")))):
    curves[way, begin] = []
    results[way, begin] = stylize(
        content,
        STYLES["tiles"],
        net,
        start=begin,
        optimiser=way,
        lr=0.03,
        steps=STEPS,
        history=curves[way, begin],
    )

# %% [markdown]
# Four curves of one and the same loss:

# %%
fig, ax = plt.subplots(figsize=(5.4, 2.8))
for pair, curve in curves.items():
    ax.semilogy(curve, label=" from ".join(pair))
ax.set(xlabel="evaluations of loss and gradient", ylabel="loss $L(C, S, X)$",
       ylim=(None, 30 * curves["adam", "content"][0]))
ax.legend()
plt.show()

# %% [markdown]
# The last point of each curve is the loss of the finished picture, clipped to $[0,1]$. With the same number of evaluations L-BFGS ends lower than Adam from either start.

# %%
claim("all four finished pictures have less than 10 % of the loss of their start",
      max(curve[-1] / curve[0] for curve in curves.values()), below=0.1, trivial=1.0)
for begin in ("content", "noise"):
    claim(f"from {begin} the finished picture of L-BFGS has a lower loss than Adam's",
          curves["lbfgs", begin][-1], below=curves["adam", begin][-1],
          trivial=curves["adam", begin][-1])

# %% [markdown]
# The images behind three of the curves:

# %% tags=["nbval-ignore-output"]
show_images({"content": content, "L-BFGS from content": results["lbfgs", "content"],
             "Adam from content": results["adam", "content"],
             "L-BFGS from noise": results["lbfgs", "noise"]}, width=1.9)
plt.show()

# %% [markdown]
# Three more pairs of photo and style, with more weight on style and a little $TV_1$.

# %%
PAIRS = (("coffee", "tiles", 20.0, 2.0), ("temple", "waves", 20.0, 2.0),
         ("flower", "strokes", 20.0, 2.0))
painted = {}
for motif, manner, level, smooth in progress(PAIRS):
    painted[f"{motif} × {manner}"] = stylize(photo(motif, SIZE), STYLES[manner], net,
                                             beta=level * SIZE**2, tv=smooth, steps=STEPS)

# %% [markdown]
# The results:

# %% tags=["nbval-ignore-output"]
show_images(painted, columns=3, width=2.1)
plt.show()

# %% [markdown]
# The same three pairs (cup, flower, temple) at 288 pixels with 250 evaluations each, the style at 384 pixels: a **stored** picture (`data/style_transfer_large.jpg`), made with the `stylize` and the weights of this page, but not computed by this run.
#
# ![Three stylised photos in a row: a coffee cup as a window of leaded glass, a dahlia in blue brush strokes, a temple in marbled waves](../data/style_transfer_large.jpg)
#
# The lead of the window follows the rim of the cup, the marbled bands follow the eaves, the petals become strokes: the content term fixes the edges, and the style term fills what is between them.
#
# **Total variation, measured.** One run with ever more weight on $TV_1$: a little smoothing is almost free, much of it costs style.

# %% tags=["nbval-ignore-output"]
traded = {}
for smooth in (0.0, 1.0, 10.0):
    picture = stylize(cat, STYLES["strokes"], net, tv=smooth, steps=STEPS_SLIDER)
    style_left = total_style_loss(net(picture), net(STYLES["strokes"]), STYLE_WEIGHTS).item()
    traded[smooth] = {"TV per pixel": total_variation(picture).item() / SIZE_SMALL**2,
                      "style loss": style_left}
traded = pd.DataFrame(traded).T.rename_axis("weight")
traded.round(4)

# %%
claim("more weight, less variation", np.diff(traded["TV per pixel"]), below=0)
claim("the heaviest costs style", traded["style loss"].iloc[-1], above=traded["style loss"].iloc[0],
      trivial=traded["style loss"].iloc[0])

# %% [markdown]
# ## 6. Does the network have to be trained?
#
# Ustyuzhaninov et al. and He et al. (2016) noticed that networks with **random** weights give textures too. Compare on equal terms: same
# architecture, same scaling of layers, same optimiser; only the weights differ.
#
# **Style, by numbers.** Two crops of every photo, from its left and its right half. Which left crop has the smallest style loss (11.14) to a given right crop?
# A good style distance finds the same photo although no pixel coincides. Baselines: pixel distance, and the Gram matrix of the colours alone.

# %%
def crops(names, size=64):
    """Left and right crops of photos, resized: two tensors (n, 3, size, size)."""
    def half(x, right):
        s = min(x.shape[1], x.shape[2] // 2)
        top, left = (x.shape[1] - s) // 2, (x.shape[2] - s) * right
        return F.interpolate(x[None, :, top:top + s, left:left + s], (size, size), mode="bilinear",
                             antialias=True)[0]
    photos = [data.photo(name).to(device) for name in names]
    return [torch.stack([half(x, right) for x in photos]) for right in (0, 1)]

# %%
halves, whole = crops(("temple",)), data.photo("temple").to(device)          # 427 x 640
for side, (part, columns) in enumerate(zip(halves, (slice(0, 320), slice(320, 640)))):
    check("11.14", f"crop {side} has the colours of its half of the photo",
          part[0].mean((1, 2)), whole[:, 53:373, columns].mean((1, 2)), atol=2e-3)

# %% [markdown]
# A judge is right when the smallest distance of a row stands on the diagonal:

# %%
def nearest_share(distances, kept):
    """Share of the rows named in `kept` whose smallest distance is on the diagonal."""
    hit = distances.argmin(1) == torch.arange(len(distances), device=distances.device)
    return hit[kept].double().mean().item()

# %%
check("11.14", "row by row: the first finds its column, the second does not",
      nearest_share(torch.tensor([[1, 2], [0, 3]]), torch.tensor([True, True])), 0.5)

# %% [markdown]
# Distance tables, (right crop, left crop), for four judges:

# %%
def style_table(feats_a, feats_b, weights):
    """Style losses (11.14) between all pairs of two batches of features: (n, m)."""

    def stack(feats):
        return torch.cat(
            [
                w**0.5 * (gram_matrix(feats[layer]) / (2 * feats[layer][0].numel())).flatten(1)
                for layer, w in weights.items()
            ],
            1,
        )

    return torch.cdist(stack(feats_a).double(), stack(feats_b).double()) ** 2

# %% [markdown]
# Every photo of the course takes part:

# %%
NAMES = tuple(data.PHOTOS)
left, right = crops(NAMES)
tables = {"pixels": torch.cdist(right.flatten(1), left.flatten(1)),
          "Gram of colours": style_table({"rgb": right}, {"rgb": left}, {"rgb": 1.0}),
          "style, random net": style_table(random_net(right), random_net(left), STYLE_WEIGHTS),
          "style, trained net": style_table(net(right), net(left), STYLE_WEIGHTS)}
from_right, from_left = net(right[:1]), net(left[1:2])
check("11.14", "the table holds the style loss of every pair", tables["style, trained net"][0, 1],
      total_style_loss(from_right, from_left, STYLE_WEIGHTS), rtol=1e-3)

# %% [markdown]
# Twenty-two photos, of which seven were held out of the network's training:

# %% tags=["nbval-ignore-output"]
HELD_OUT = ("camera", "cat", "coffee", "flower", "strokes", "tiles", "waves")
unseen = torch.tensor([name in HELD_OUT for name in NAMES], device=device)
found = pd.DataFrame({which: {"seen in training": nearest_share(table, ~unseen),
                              "held out": nearest_share(table, unseen)}
                      for which, table in tables.items()}).T
found.round(2)

# %%
check(
    "11.14",
    "both nets find the photo more often than pixels do, and than chance",
    all(
        nearest_share(tables[which], unseen | True)
        > max(2 / len(NAMES), nearest_share(tables["pixels"], unseen | True))
        for which in tables
        if "style" in which
    ),
)

# %% [markdown]
# **Content, by numbers.** A content distance should forgive what does not matter. As in section 1: distance of a photo to itself moved by two pixels,
# blurred, or noisy, as a share of the distance to other photos, at `conv4_1`, mean over the held-out photos. Smaller is better.

# %% tags=["nbval-ignore-output"]
CHANGES = {"moved": lambda x: x.roll(2, -1), "blurred": lambda x: blur(x, 1.0),
           "noise": lambda x: x + 0.05 * normal(18, *x.shape).to(x), "darker": lambda x: 0.8 * x}


def forgiven(distance, names, size=72):
    """Mean distance of photos to changed copies, over the mean distance to the other photos."""
    photos = [photo(name, size) for name in names]
    far = sum(distance(a, b) for a, b in itertools.permutations(photos, 2)) / (len(names) - 1)
    return {name: (sum(distance(x, change(x)) for x in photos) / far).item()
            for name, change in CHANGES.items()}


judges = {
    "pixels": pixel_distance,
    "random net": lambda a, b: pixel_distance(random_net(a)["conv4_1"], random_net(b)["conv4_1"]),
    "trained net": lambda a, b: pixel_distance(net(a)["conv4_1"], net(b)["conv4_1"]),
}
shares = pd.DataFrame({which: forgiven(by, HELD_OUT) for which, by in judges.items()}).T
shares.round(2)

# %%
motifs = [photo(name, 72).cpu().numpy() for name in HELD_OUT]               # forgiven's own size
dimmed = [0.2 * np.linalg.norm(image) for image in motifs]
gaps = [np.linalg.norm(p - q) for p, q in itertools.combinations(motifs, 2)]
check("11.1", "the table's first row, darker: by numpy, mean distance over mean distance",
      shares.loc["pixels", "darker"], np.mean(dimmed) / np.mean(gaps), rtol=1e-4)

# %% [markdown]
# **By eye, and by the other's loss.** A texture and a reconstruction with the random net, to be held against *from tiles* and `conv4_1` above. The style loss of each texture is then judged by the *other* net, as a share
# of what that net gives to noise: who cheats his own judge only, shows here.

# %% tags=["nbval-ignore-output"]
random_texture, _ = synthesise(
    random_net, STYLES["tiles"], STYLE_WEIGHTS, noise_start, STEPS_TEXTURE
)
cat_random = random_net(cat)["conv4_1"]
random_rebuilt = optimise_pixels(
    lambda x: content_loss(random_net(x, "conv4_1")["conv4_1"], cat_random),
    grey_noise,
    STEPS_TEXTURE,
)[0].clamp(0, 1)
made = {"texture, trained": textures["tiles"], "texture, random": random_texture}
show_images(
    {"texture, random net": random_texture, "conv4_1, random net": random_rebuilt}, width=2.1
)
plt.show()

# %% [markdown]
# Each texture before both judges; noise would get 1:

# %% tags=["nbval-ignore-output"]
def judged_by(judge, x, style):
    """Style loss of x by a network, as a share of that of noise."""
    return (total_style_loss(judge(x), judge(style), STYLE_WEIGHTS)
            / total_style_loss(judge(noise_start), judge(style), STYLE_WEIGHTS)).item()


cross = pd.DataFrame({which: {"trained net": judged_by(net, picture, STYLES["tiles"]),
                              "random net": judged_by(random_net, picture, STYLES["tiles"])}
                      for which, picture in made.items()}).T.rename_axis("judged by →")
cross.round(4)

# %% [markdown]
# And the reconstructions, by their distance from the photo in pixels (root mean square):

# %% tags=["nbval-ignore-output"]
for which, picture in (("trained", rebuilt["conv4_1"]), ("random", random_rebuilt)):
    print(which, round((picture - cat).square().mean().sqrt().item(), 3))

# %% [markdown]
# What the numbers say, on these few images:
#
# - **Style.** Each net is satisfied by its own texture and less by the other's. Training pays in *shape*: only the trained net makes tiles with lead between them; the random one makes blobs, though in better colours, because it was never taught to ignore colour (the training jittered it). Finding photos by style favours the trained net on photos that it was trained on; on the seven held-out ones the two tie, and even the Gram matrix of the colours keeps up. So style needs *some* rich local statistics, and training buys structure, not everything.
# - **Content.** The trained net forgives darkening, which it was trained to ignore; the random net forgives shift, blur and noise **more**, because it answers mainly to local averages. But forgiving is not knowing: from its `conv4_1` the eye recovers nothing, from the trained one at least where the nose and the eyes were.

# %% [markdown]
# ## 7. One pass instead of hundreds
#
# Pixel optimisation starts anew for every photo. If the style $S$ is fixed, a network $a_\theta$ can learn the map from photo to stylised photo
# (Johnson, Alahi and Fei-Fei 2016). The variable is now $\theta$, and the loss must hold **on average over contents**:
#
# $$\min_\theta\ J(\theta)=\mathbb E_{x\sim data}\,L\big(x,S,a_\theta(x)\big)\approx\frac1N\sum_{n=1}^NL\big(x_n,S,a_\theta(x_n)\big) \tag{11.17}$$
#
# A random batch gives an unbiased estimate of the gradient, because gradient and mean may be exchanged. No stylised image is ever shown to the network as an answer: the
# loss itself is the teacher.
#
# **Instance normalisation.** Contrast belongs to the content photo, not to the style. So the network normalises each channel of each image over its own positions,
#
# $$IN(A)_{ik}=\gamma_i\,\frac{A_{ik}-\mu_i(A)}{\sqrt{\sigma_i^2(A)+\epsilon}}+\beta_i,\qquad
# \mu_i=\frac1M\sum_kA_{ik},\quad \sigma_i^2=\frac1M\sum_k(A_{ik}-\mu_i)^2, \tag{11.18}$$
#
# with $\gamma_i,\beta_i$ learned for each channel (this $\beta_i$ is a shift, not the weight of the style loss) and a tiny $\epsilon$ against division by zero;
# unlike batch normalisation, which would mix the statistics of unrelated photos.

# %%
def instance_norm(A, gamma, beta, eps=1e-5):
    """Instance normalisation (11.18): A (..., C, H, W), gamma and beta (..., C) -> as A."""
    mean, var = A.mean((-2, -1), keepdim=True), A.var((-2, -1), correction=0, keepdim=True)
    return gamma[..., None, None] * (A - mean) / (var + eps).sqrt() + beta[..., None, None]

# %% [markdown]
# Two pairs of feature maps of different sizes:

# %%
A, B = 1 + 2 * normal(19, 2, 4, 6, 5), normal(20, 2, 4, 3, 7)
gamma, shift = normal(21, 4), normal(22, 4)
check("11.18", "instance normalisation is torch's F.instance_norm", instance_norm(A, gamma, shift),
      F.instance_norm(A, weight=gamma, bias=shift), rtol=1e-9)
check("11.18", "one map alone, as in a batch", instance_norm(A[0], gamma, shift),
      instance_norm(A, gamma, shift)[0], rtol=1e-12)

# %% [markdown]
# **One network, many styles.** In (11.18) the style can sit in $\gamma,\beta$ alone: Dumoulin et al. (2017) learn one pair per style and share the rest
# (*conditional* instance normalisation). Huang and Belongie (2017) learn nothing per style; they *compute* the pair from the features $B$ of any style image:
#
# $$AdaIN(A,B)_{ik}=\sigma_i(B)\,\frac{A_{ik}-\mu_i(A)}{\sigma_i(A)}+\mu_i(B) \tag{11.19}$$
#
# The result has exactly the means and deviations of $B$: by (11.10), the diagonal of its $G/M$ is that of $B$. A decoder, trained once, turns it into an image.

# %%
def adain(A, B, eps=1e-12):
    """AdaIN (11.19): A (..., C, H, W) with channel means and deviations of B (..., C, H', W')."""
    return instance_norm(A, B.std((-2, -1), correction=0), B.mean((-2, -1)), eps)

# %% [markdown]
# Means, deviations and the Gram diagonal, by numpy:

# %%
mixed = adain(A, B).flatten(-2).cpu().numpy()
check("11.19", "one pair alone, as in a batch", adain(A[0], B[0]), adain(A, B)[0], atol=1e-12)
check("11.19", "means of B", mixed.mean(-1), B.cpu().numpy().mean((-2, -1)), atol=1e-10)
check("11.19", "deviations of B", mixed.std(-1), B.cpu().numpy().std((-2, -1)), rtol=1e-9)
check("11.19", "the diagonal of G / M is that of B", (mixed**2).mean(-1),
      torch.diagonal(gram_matrix(B), dim1=-2, dim2=-1) / 21, rtol=1e-9)

# %% [markdown]
# **Architecture.** Down twice by stride 2, residual blocks at a quarter of the resolution, up twice by repeating pixels and convolving (a transposed convolution would
# print a checkerboard). Padding reflects the image, so no dark frame appears. There are no long skip connections. Sizes that 4 does not
# divide are padded by reflection and cropped afterwards.

# %%
def conv(c_in, c_out, size, stride=1):
    """Convolution, reflection padding: (B, c_in, H, W) -> (B, c_out, H / stride, W / stride)."""
    return nn.Sequential(nn.ReflectionPad2d(size // 2), nn.Conv2d(c_in, c_out, size, stride))

# %% [markdown]
# With normalisation and ReLU it is the brick of the network:

# %%
def conv_block(c_in, c_out, size, stride=1):
    """conv, instance normalisation (11.18) and ReLU."""
    return nn.Sequential(
        conv(c_in, c_out, size, stride), nn.InstanceNorm2d(c_out, affine=True), nn.ReLU()
    )

# %% [markdown]
# A residual block adds its result to its input:

# %%
class Residual(nn.Module):
    """x + IN(conv(block(x))), (B, c, H, W) -> the same."""

    def __init__(self, c):
        super().__init__()
        self.inner = nn.Sequential(
            conv_block(c, c, 3), conv(c, c, 3), nn.InstanceNorm2d(c, affine=True)
        )

    def forward(self, x):
        return x + self.inner(x)

# %% [markdown]
# The whole network:

# %%
class TransformNet(nn.Module):
    """Image transform network of Johnson et al. (2016): one style, any content, eq. (11.17).

    forward: (B, 3, H, W) or (3, H, W) in [0, 1], sides of at least 16 -> the same shape, in (0, 1).
    width: channels at full resolution. ValueError for other shapes.
    """

    def __init__(self, width=16, n_blocks=5):
        super().__init__()
        c, up = width, nn.Upsample(scale_factor=2, mode="nearest")
        self.down = nn.Sequential(conv_block(3, c, 9), conv_block(c, 2 * c, 3, stride=2),
                                  conv_block(2 * c, 4 * c, 3, stride=2))
        self.blocks = nn.Sequential(*(Residual(4 * c) for _ in range(n_blocks)))
        self.up = nn.Sequential(up, conv_block(4 * c, 2 * c, 3), up, conv_block(2 * c, c, 3),
                                conv(c, 3, 9), nn.Sigmoid())

    def forward(self, x):
        if x.ndim not in (3, 4) or x.shape[-3] != 3 or min(x.shape[-2:]) < 16:
            raise ValueError("TransformNet needs RGB images (B, 3, H, W) or (3, H, W) of at "
                             f"least 16 x 16 pixels, got {tuple(x.shape)}")
        H, W = x.shape[-2:]
        padded = F.pad(x if x.ndim == 4 else x[None], (0, -W % 4, 0, -H % 4), mode="reflect")
        y = self.up(self.blocks(self.down(2 * padded - 1)))[..., :H, :W]     # (B, 3, H, W)
        return y if x.ndim == 4 else y[0]

# %% [markdown]
# Shapes, and the claim about the stochastic gradient: the mean over all batches of 2 from 4 images is the gradient of the whole sum.

# %%
def transform_loss(model, net, x, style_feats, beta, weights):
    """Batch estimate of J in (11.17): mean over the images x (B, 3, H, W) of (11.15), alpha = 1."""
    target = {"conv3_1": net(x, "conv3_1")["conv3_1"]}
    return perceptual_loss(model(x), target, style_feats, 1.0, beta, weights, net) / len(x)

# %% [markdown]
# A miniature in float64, four images, the toy network as judge:

# %%
seed(12)
mini, four = (
    TransformNet(2, 1).double().to(device),
    torch.rand(4, 3, 19, 22, generator=rng(23)).double().to(device),
)
mini_net = toy_net.requires_grad_(False)
mini_style = mini_net(aim)


def mini_gradient(rows):
    loss = transform_loss(mini, mini_net, four[list(rows)], mini_style, 100.0, STYLE_WEIGHTS)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(mini.parameters()))])

# %% [markdown]
# All six batches of two:

# %%
batches = [mini_gradient(rows) for rows in itertools.combinations(range(4), 2)]
check("11.17", "the mean over all batches is the full gradient", torch.stack(batches).mean(0),
      mini_gradient(range(4)), atol=1e-8)

# %%
single = [
    perceptual_loss(
        mini(x),
        {"conv3_1": mini_net(x)["conv3_1"]},
        mini_style,
        1.0,
        100.0,
        STYLE_WEIGHTS,
        mini_net,
    )
    for x in four
]
check(
    "11.17",
    "J is the mean of the losses of single contents",
    transform_loss(mini, mini_net, four, mini_style, 100.0, STYLE_WEIGHTS),
    sum(single) / 4,
    rtol=1e-9,
)

# %% [markdown]
# The network once more, from torch's plain functions and the list of its parameters:

# %%
def transform_by_hand(x, parameters):
    """TransformNet(., 1) written out, for images (B, 3, H, W) with H, W divisible by 4."""
    P = iter(parameters)

    def layer(h, stride=1, norm=True):
        w, b = next(P), next(P)
        k = w.shape[-1] // 2
        h = F.conv2d(F.pad(h, (k, k, k, k), mode="reflect"), w, b, stride)
        return F.instance_norm(h, weight=next(P), bias=next(P)) if norm else h

    h = layer(2 * x - 1).relu()                                  # (B, c, H, W)
    h = layer(layer(h, 2).relu(), 2).relu()                      # (B, 4c, H/4, W/4)
    h = h + layer(layer(h).relu())
    for _ in range(2):                                           # (B, c, H, W) after both
        h = layer(h.repeat_interleave(2, -1).repeat_interleave(2, -2)).relu()
    return torch.sigmoid(layer(h, norm=False))                   # (B, 3, H, W)

# %% [markdown]
# 19 × 22 pixels are padded to 20 × 24 by numpy, below and on the right:

# %%
wider = np.pad(four.cpu().numpy(), ((0, 0), (0, 0), (0, 1), (0, 2)), mode="reflect")
by_hand = transform_by_hand(torch.from_numpy(wider).to(device), mini.parameters())
check("11.18", "sizes not divisible by 4 are padded below and on the right, and cropped there",
      mini(four), by_hand[..., :19, :22], atol=1e-9)
check("11.18", "as many residual blocks as asked for", len(TransformNet(2, 3).blocks), 3)

# %% [markdown]
# **Training data**: random squares of the fifteen photos that are no test photos, resized to `PATCH` pixels. The style is `strokes`.

# %%
def random_patches(photos, n, size, generator):
    """n random squares of photos (3, H, W), half of them flipped: (n, 3, size, size)."""
    out = []
    for k in torch.randint(len(photos), (n,), generator=generator).tolist():
        H, W = photos[k].shape[1:]
        u, v, w, flip = torch.rand(4, generator=generator).tolist()
        s = int(size + u * (min(H, W) - size))
        top, left = int(v * (H - s)), int(w * (W - s))
        patch = photos[k][None, :, top:top + s, left:left + s]
        patch = F.interpolate(patch, (size, size), mode="bilinear", antialias=True)
        out.append(patch.flip(-1) if flip < 0.5 else patch)
    return torch.cat(out)

# %%
square = torch.rand(3, 8, 8, generator=rng(36))
same, mirrored = ((random_patches([square], 20, 8, rng(37)) - x).abs().amax((1, 2, 3)) < 1e-5
                  for x in (square, square.flip(-1)))
check("11.17", "patches of the photo's own size: the photo or its mirror image, both occur",
      bool((same ^ mirrored).all() and same.any() and mirrored.any()))

# %% [markdown]
# `N_PATCHES` of them serve here:

# %%
train_photos = [data.photo(name) for name in NAMES if name not in HELD_OUT]
patches = random_patches(train_photos, N_PATCHES, PATCH, rng(24))
print(
    tuple(patches.shape),
    "values from",
    round(patches.min().item(), 1),
    "to",
    round(patches.max().item(), 1),
)

# %% [markdown]
# The loop: forward through $a_\theta$, forward through the frozen network, backward through both, Adam on $\theta$.

# %%
def train_transform(model, net, style, patches, steps, batch, strength, generator, lr=5e-3):
    """Minimise (11.17) by Adam on random batches of patches (N, 3, s, s). Returns the losses."""
    style_feats, losses = net(style), []
    device, beta = style.device, strength * patches.shape[-1] ** 2
    adam = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, lr, total_steps=steps)
    for _ in progress(range(steps)):
        rows = torch.randint(len(patches), (batch,), generator=generator)
        loss = transform_loss(
            model, net, patches[rows].to(device), style_feats, beta, STYLE_WEIGHTS
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        losses.append(loss.item())
    return losses

# %% [markdown]
# Its first loss belongs to the untouched network, the first rows of the generator and $\beta=\text{strength}\times16^2$:

# %%
squares, rows = four[..., :16, :16].cpu(), torch.randint(4, (2,), generator=rng(35))
expected = transform_loss(mini, mini_net, squares[rows].to(device), mini_style,
                          0.2 * 256, STYLE_WEIGHTS).item()
pupil = TransformNet(2, 1).double().to(device)
pupil.load_state_dict(mini.state_dict())
first_losses = train_transform(pupil, mini_net, aim, squares, 4, 2, 0.2, rng(35))
check("11.17", "training starts from the loss (11.17) of its first batch", first_losses[0],
      expected, rtol=1e-9)

# %% [markdown]
# Training:

# %%
seed(13)
transform = TransformNet(WIDTH_NET, N_BLOCKS).to(device)
learning = train_transform(
    transform, net, STYLES["strokes"], patches, STEPS_NET, BATCH_NET, STRENGTH, rng(25)
)
check("11.17", "training removes more than half of the loss of the untrained network",
      np.mean(learning[-20:]) < 0.5 * np.mean(learning[:3]))

# %% [markdown]
# On a photo that neither network has seen: the same loss (11.15), by one forward pass and by pixel optimisation from the content.

# %%
test_photo = photo("cat", SIZE_NET)
test_beta, slow_losses = STRENGTH * SIZE_NET**2, []
with torch.no_grad():
    fast = transform(test_photo)
slow = stylize(test_photo, STYLES["strokes"], net, beta=test_beta, steps=STEPS,
               content_layer="conv3_1", history=slow_losses)

# %% [markdown]
# The loss of either image against the same targets:

# %%
def loss_of(x):
    """Loss (11.15) of an image against the test photo and the network's style."""
    target = {"conv3_1": net(test_photo)["conv3_1"]}
    return perceptual_loss(
        x, target, net(STYLES["strokes"]), 1.0, test_beta, STYLE_WEIGHTS, net
    ).item()

# %% [markdown]
# The photo and both results:

# %% tags=["nbval-ignore-output"]
show_images({"photo": test_photo, "pixels, L-BFGS": slow, "one forward pass": fast}, width=2.1)
plt.show()

# %% [markdown]
# Time and loss of both, the loss as a share of that of the untouched photo:

# %% tags=["nbval-ignore-output"]
def forward_pass(x):
    with torch.no_grad():
        return transform(x)


def twenty_evaluations():
    return stylize(test_photo, STYLES["strokes"], net, beta=test_beta, steps=20,
                   content_layer="conv3_1")


seconds = {"one forward pass": timed(forward_pass, test_photo),
           "pixels, L-BFGS": timed(twenty_evaluations, repeats=1) * STEPS / 20}
loss_ratio = loss_of(fast) / loss_of(slow)
reached = 1 + int(np.argmax(np.array(slow_losses) <= loss_of(fast)))
run = "large run" if STEPS_NET >= 3000 else "this run"
ratio = seconds["pixels, L-BFGS"] / seconds["one forward pass"]
print(
    f"{run}: {ratio:.0f} times faster, at {loss_ratio:.1f} times the loss; L-BFGS has that loss "
    f"at evaluation {reached}, so {ratio * reached / len(slow_losses):.0f} times faster for it"
)
remaining = {"one forward pass": loss_of(fast), "pixels, L-BFGS": loss_of(slow)}
pd.DataFrame({"seconds": seconds, "loss / loss of the photo": {
    which: left_over / loss_of(test_photo) for which, left_over in remaining.items()}}).round(4)

# %%
check("11.17", "one pass leaves less than half of the photo's loss, but more than the optimisation",
      loss_of(slow) < loss_of(fast) < 0.5 * loss_of(test_photo))

# %% [markdown]
# The third picture: after a short training on patches the network knows the colours and the direction of the strokes, but prints a regular grain that optimisation of the single image would remove. The honest speed-up is the last number of the line above: not against all evaluations, but against those that L-BFGS needs for the same loss. With 3,000 steps instead of `STEPS_NET` and a test photo of 192 pixels (the full run) one pass left 1.7 times the loss of 250 evaluations, a loss that L-BFGS reaches after 23 of them: about 30 times faster.

# %% [markdown]
# ## Try it
#
# **The ratio $\beta/\alpha$**, on strengths computed once: from the photo to a texture in its rough shape. Each run starts where the previous one ended.

# %%
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 20.0)
subject = photo("astronaut", SIZE_SLIDER)
by_strength, latest = {0.0: subject}, subject
for level in progress(STRENGTHS):
    latest = stylize(subject, STYLES["tiles"], net, beta=level * SIZE_SLIDER**2, steps=STEPS_SLIDER,
                     start=latest)
    by_strength[level] = latest

# %% [markdown]
# Both parts of the loss along the chain:

# %% tags=["nbval-ignore-output"]
def both_parts(image):
    """Content and style loss of an image, unweighted."""
    feats, wanted = net(image), net(subject)["conv4_1"]
    return {"content loss": content_loss(feats["conv4_1"], wanted).item(),
            "style loss": total_style_loss(feats, net(STYLES["tiles"]), STYLE_WEIGHTS).item()}


parts = pd.DataFrame({level: both_parts(picture) for level, picture in by_strength.items()}).T
parts.rename_axis("strength").round(3)

# %%
chain = list(by_strength)
check(
    "11.15",
    "more strength: less style loss, more content loss, at every step",
    bool(
        (parts["style loss"].diff()[1:] < 0).all() and (parts["content loss"].diff()[1:] > 0).all()
    ),
)

# %% [markdown]
# What the slider draws:

# %%
def draw(strength):
    """The photo stylised with beta = strength H W."""
    show_images({f"strength {strength:g}": by_strength[strength]}, width=2.6)
    plt.show()

# %% [markdown]
# One position of the slider:

# %%
draw(chain[3])

# %% [markdown]
# The slider:

# %% tags=["nbval-ignore-output"]
interact(draw, strength=SelectionSlider(options=chain, value=chain[3], description="β / (α H W)"));

# %% [markdown]
# **A layer picker**: what the content loss of one layer fixes.

# %%
def draw_layer(layer):
    """Reconstruction of the cat from one layer."""
    show_images({f"rebuilt from {layer}": rebuilt[layer]}, width=2.2)
    plt.show()

# %% [markdown]
# The middle one:

# %%
draw_layer("conv3_1")

# %% [markdown]
# The picker:

# %% tags=["nbval-ignore-output"]
interact(draw_layer, layer=SelectionSlider(options=DEPTHS, value="conv3_1"));

# %% [markdown]
# ## Where the notes slip
#
# ### E1 · Which image is fixed
#
# The table of contents asks for fast transfer "if the *stylised* image is known and will not change". The stylised image is the **output**. With a fixed output there is nothing to
# compute: the loss does not depend on $\theta$. What is fixed is the style image $S$.

# %%
with torch.no_grad():
    out_one, out_two = mini(four[0]), mini(four[1])
check(
    "11.17",
    "E1: one fixed style, two contents, two outputs",
    pixel_distance(out_one, out_two) > 0.01,
)

# %% [markdown]
# And the other way round, the output taken as known:

# %%
fixed = out_one.clone() + 0 * next(mini.parameters()).sum()  # an output that is "known and fixed"
to_theta = torch.autograd.grad(
    perceptual_loss(fixed, {}, mini_style, 1.0, 1.0, STYLE_WEIGHTS, mini_net),
    next(mini.parameters()),
)[0]
check(
    "11.17",
    "E1: with a fixed output the gradient by theta is zero",
    to_theta,
    torch.zeros_like(to_theta),
)

# %% [markdown]
# ### E2 · "We do not use Euclidean distance", "we remake the source image"
#
# The content loss (11.3) **is** a squared Euclidean distance, in the space of features. And $C$ is never remade: it enters only as a constant target; the variable is $X$, which
# may *start* at $C$.

# %%
check("11.3", "E2: the content loss is the squared Euclidean distance of the features",
      content_loss(feats_a["conv2_1"], feats_b["conv2_1"]),
      np.linalg.norm((feats_a["conv2_1"] - feats_b["conv2_1"]).cpu().numpy()) ** 2, rtol=1e-12)

# %% [markdown]
# A short run from the cat:

# %%
before = cat.clone()
after = stylize(cat, STYLES["tiles"], net, steps=10)
check("11.15", "E2: the content image is untouched, although X started from it", cat, before)
check("11.15", "E2: and X has moved", pixel_distance(after, cat) > 0.1)

# %% [markdown]
# ### E3 · "Style loss requires the correlations of the channels to coincide"
#
# $G$ is neither centred nor divided by deviations, (11.10). Add 5 to every feature: all correlations stay, the style loss is huge. And the plain sum grows with
# the image, (11.11): without the normalisation of (11.12), a map and its own tiling differ.

# %%
maps = A[0]
correlation = [np.corrcoef(m.flatten(1).cpu().numpy()) for m in (maps, maps + 5)]
check("11.10", "E3: adding 5 leaves every correlation", correlation[1], correlation[0], atol=1e-12)
check("11.12", "E3: but not the style loss", style_loss(maps, maps + 5) > 10)

# %%
check(
    "11.11",
    "E3: tiling doubles G exactly",
    gram_matrix(maps.repeat(1, 1, 2)),
    2 * gram_matrix(maps),
    atol=1e-10,
)

# %% [markdown]
# ### E4 · One content in the objective; "a new style needs a new network"
#
# $L(x,S,a_\theta(x))\to\min_\theta$ for *one* $x$ is pixel optimisation in disguise: with $a_\theta(x)=x+\theta$ the gradient by $\theta$ is the gradient by pixels. Only the mean over
# contents (11.17) makes a network worth training. One network per style is a property of Johnson's method, not of the problem: (11.19) takes the style as an input.

# %%
theta = torch.zeros_like(small).requires_grad_()
by_theta = torch.autograd.grad(toy_l(small + theta), theta)[0]
pixels = small.clone().requires_grad_()
check("11.17", "E4: for one x, the gradient by theta is that by the pixels", by_theta,
      torch.autograd.grad(toy_l(pixels), pixels)[0], rtol=1e-10)

# %% [markdown]
# And two styles through one function:

# %%
for name, other_style in (("first", B), ("second", 3 * B.flip(0) - 1)):
    check("11.19", f"E4: one function, the {name} style: its means",
          adain(A, other_style).mean((-2, -1)), other_style.mean((-2, -1)), atol=1e-10)

# %% [markdown]
# ### E40 · "Euclidean distance: the sum of differences of pixels"
#
# Differences cancel. The images $(0,10)$ and $(10,0)$ have sum of differences 0 and Euclidean distance $\sqrt{200}\approx14.14$.

# %%
p, q = torch.tensor([0.0, 10.0]), torch.tensor([10.0, 0.0])
check("11.1", "E40: the sum of differences is 0", (p - q).sum(), 0.0)
check("11.1", "E40: the distance is the root of 200", pixel_distance(p, q), 200**0.5, rtol=1e-6)

# %% [markdown]
# ### E41 · Forgotten sums, layers and weights
#
# $G_{ij}=A_{ik}A_{jk}$ without $\sum_k$ is a tensor with three indices: a $4\times50$ map gives 800 numbers instead of 16, and it *does* know places. $L^l_{style}$ without
# $\sum_{ij}$ is a matrix, not a loss. Without $w_l$ the layers' shares are whatever the scale of their features makes them.

# %%
wide = normal(26, 4, 1, 50)
no_sum = torch.einsum("ik,jk->ijk", wide[:, 0], wide[:, 0])
check("11.6", "E41: without the sum over k, 800 numbers instead of 16",
      [no_sum.numel(), gram_matrix(wide).numel()], [800, 16])

# %%
check(
    "11.6",
    "E41: and only the sum is blind to places",
    bool(
        (no_sum.roll(1, 2) - no_sum).abs().max() > 0.1
        and torch.allclose(no_sum.sum(2), gram_matrix(wide))
    ),
)

# %% [markdown]
# The weights: one layer made ten times louder.

# %%
loud = {layer: 10 * f if layer == "conv1_1" else f for layer, f in feats_b.items()}
louder = {layer: 10 * f if layer == "conv1_1" else f for layer, f in feats_a.items()}
check(
    "11.14",
    "E41: features 10 times louder count 10,000 times, unless w_l undoes it",
    total_style_loss(louder, loud, {"conv1_1": 1e-4}),
    total_style_loss(feats_a, feats_b, {"conv1_1": 1.0}),
    rtol=1e-9,
)

# %% [markdown]
# ### E42 · "The transform network is like a U-Net"; two things called α
#
# A U-Net has long skip connections, through which fine detail reaches the output past the bottleneck. Johnson's network has none: replace the output of its residual blocks by zeros,
# and nothing of the photo is left. (And $\alpha$ is a weight in the loss; the model is $a_\theta$.)

# %%
handle = mini.blocks.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
with torch.no_grad():
    blocked = mini(four)
handle.remove()
check("11.17", "E42: with the bottleneck blocked, all photos give one and the same output",
      blocked, blocked[:1].expand(4, -1, -1, -1), atol=1e-12)

# %%
with torch.no_grad():
    check(
        "11.17",
        "E42: unblocked they differ",
        bool((mini(four)[0] - mini(four)[1]).abs().max() > 0.01),
    )

# %% [markdown]
# ## What it costs
#
# A $3\times3$ convolution from $C_{in}$ to $C_{out}$ channels on $H_l\times W_l$ positions takes $9\,C_{in}C_{out}H_lW_l$ multiplications; four
# poolings quarter the positions each. With widths $w\,(1,2,4,8,8)$ for an image of $HW$ pixels, both sides divisible by 16, a forward pass costs
#
# $$\underbrace{9HW\Big[3w+w^2+\tfrac{2w^2+4w^2}{4}+\tfrac{8w^2+3\cdot16w^2}{16}+\tfrac{32w^2+3\cdot64w^2}{64}+\tfrac{64w^2}{256}\Big]}_{\text{convolutions}}=9HW\big[3w+9.75\,w^2\big] \tag{11.20}$$
#
# multiplications, linear in the number of pixels. The Gram matrix of a layer adds $C_l^2M_l$, a ninth of one convolution; backpropagation to the pixels costs as much as another forward pass
# (no gradients of weights are needed), so one evaluation is about twice (11.20).

# %%
def vgg_multiplications(H, W, width):
    """Multiplications (11.20) of one forward pass of VGG(width); H and W divisible by 16."""
    return 9 * H * W * (3 * width + 9.75 * width**2)

# %%
for wide_as, sides in ((16, (64, 64)), (4, (32, 48))):
    with FlopCounterMode(display=False) as counter:
        VGG(wide_as)(torch.rand(1, 3, *sides))
    check("11.20", f"width {wide_as}: half of what torch's counter of operations finds",
          vgg_multiplications(*sides, wide_as), counter.get_total_flops() / 2)

# %% [markdown]
# The notes say four minutes for a 1024 × 1024 image. Measured here: one evaluation at several sizes, and one forward pass of the transform network. A straight line through time against pixels
# extrapolates to 1024, 300 evaluations; on a GPU the cell measures 1024 itself.

# %% tags=["nbval-ignore-output"]
def evaluation_time(n, evaluations=3):
    """Seconds per evaluation of (11.15) and its gradient at n x n pixels, by L-BFGS."""
    a, b = (torch.rand(3, n, n, generator=rng(k)).to(device) for k in (27, 28))
    losses = []
    return (
        timed(lambda: stylize(a, b, net, steps=evaluations, history=losses), repeats=2)
        * 3
        / len(losses)
    )


sizes = [*COST_SIZES, *([1024] if device.type == "cuda" else [])]
passes = {side: timed(forward_pass, torch.rand(3, side, side, device=device)) for side in sizes}
cost = pd.DataFrame({"evaluation, s": {side: evaluation_time(side) for side in sizes},
                     "forward pass of the transform net, s": passes})
cost.rename_axis("side, pixels").round(4)

# %% [markdown]
# The extrapolation:

# %% tags=["nbval-ignore-output"]
at_1024 = {}
for column in cost:
    per_pixel, fixed_cost = np.polyfit(cost.index.to_numpy(float) ** 2, cost[column], 1)
    at_1024[column] = cost[column].get(1024, fixed_cost + per_pixel * 1024**2)
pixel_seconds = 300 * at_1024["evaluation, s"]
print(f"{run}: 1024 x 1024 pixels: {pixel_seconds:.0f} s for 300 evaluations, "
      f"{at_1024['forward pass of the transform net, s']:.2f} s for one pass")
ratio = vgg_multiplications(1024, 1024, 64) / vgg_multiplications(1024, 1024, 16)
print(f"VGG-19 itself needs {ratio:.1f} times the multiplications of our net")

# %% [markdown]
# The order of magnitude in the notes is that of pixel optimisation with our *small* net on a machine like this one; by itself it says nothing without the machine, the network and the number of evaluations: VGG-19 needs about sixteen times the work of our small net. One forward pass of the transform network needs no VGG at all.

# %% tags=["nbval-ignore-output"]
exponents = {column: np.polyfit(np.log(cost.index[1:]), np.log(cost[column].iloc[1:]), 1)[0]
             for column in cost}
print({column: round(float(exponent), 1) for column, exponent in exponents.items()})

# %% [markdown]
# The exponents of time in the side of the image (the smallest size left out, where overhead counts) stay somewhat below the 2 of (11.20): images this small do not yet keep the machine busy, so the straight line is fitted with a constant. The Gram matrix three ways, on a map of 64 channels:

# %% tags=["nbval-ignore-output"]
maps = torch.rand(64, 64, 64, generator=rng(29)).to(device)
compare_speed({"matrix product (ours)": lambda: gram_matrix(maps),
               "torch.einsum": lambda: torch.einsum("ihw,jhw->ij", maps, maps),
               "loop over positions": lambda: gram_matrix_loop(maps)}, repeats=3)

# %% [markdown]
# ## Exercises
#
# ### Exercise 11.A · A Gram matrix for one region
#
# To paint the sky in one style and the house in another, style must be measured on a region. Write `masked_gram(A, mask)`: features `A` $(C,H,W)$, mask $(H,W)$ of bools; the
# **mean** outer product over the positions where the mask is true; $(C,C)$.
#
# <details><summary>Hint</summary>
#
# `A[:, mask]` is $(C,M)$ with only the wanted positions. Divide by their number, not by $HW$.
#
# </details>

# %%
def masked_gram(A, mask):
    """Mean outer product of the features A (C, H, W) over the true positions of mask (H, W)."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
A1, cases_a = normal(30, 3, 4, 5).cpu(), []
for region in (torch.rand(4, 5, generator=rng(31)) > 0.5, torch.eye(4, 5) > 0):
    products = [
        torch.outer(A1[:, row, col], A1[:, row, col]) for row, col in region.nonzero().tolist()
    ]
    cases_a.append(((A1, region), sum(products) / len(products)))
exercise("11.A", masked_gram, cases_a)

# %% [markdown]
# <details><summary>Solution 11.A</summary>
#
# ```python
# def masked_gram(A, mask):
#     a = A[:, mask]                                  # (C, M)
#     return a @ a.T / mask.sum()
# ```
#
# </details>

# %% [markdown]
# ### Exercise 11.B · Style without correlations
#
# Li et al. (2017) get good style from channel means and deviations alone. Write `moment_loss(A, B)` $=\sum_i(\mu_i(A)-\mu_i(B))^2+(\sigma_i(A)-\sigma_i(B))^2$ for maps
# $(C,H,W)$ of any sizes, deviations with $1/M$. Adding 5 to $A$ must cost $25C$: unlike correlations, it notices.
#
# <details><summary>Hint</summary>
#
# `A.flatten(1)`, then `mean(1)` and `std(1, correction=0)`.
#
# </details>

# %%
def moment_loss(A, B):
    """Squared differences of channel means and deviations, summed; A (C, H, W), B (C, H', W')."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
B1 = 2 * normal(32, 3, 2, 3).cpu()
moments = [np.append(fmap.numpy().mean((1, 2)), fmap.numpy().std((1, 2))) for fmap in (A1, B1)]
apart_b = ((moments[0] - moments[1]) ** 2).sum()
exercise("11.B", moment_loss, [((A1, B1), apart_b), ((A1, A1 + 5), 75.0), ((A1, A1.flip(2)), 0.0)])

# %% [markdown]
# <details><summary>Solution 11.B</summary>
#
# ```python
# def moment_loss(A, B):
#     A, B = A.flatten(1), B.flatten(1)
#     means = (A.mean(1) - B.mean(1)).square().sum()
#     return means + (A.std(1, correction=0) - B.std(1, correction=0)).square().sum()
# ```
#
# </details>

# %% [markdown]
# ### Exercise 11.C · Keep the colours of the photo
#
# Style transfer also copies colours. To avoid it, first recolour the style image so that its colour mean and covariance are those of the content. Write `match_colours(style, content)`, images
# $(3,H,W)$ and $(3,H',W')$: $s'=L_CL_S^{-1}(s-\mu_S)+\mu_C$ at every pixel, where $\Sigma=LL^\top$ is the Cholesky factorisation of the colour covariance (with $1/M$). Returns $(3,H,W)$, not clipped.
#
# <details><summary>Hint</summary>
#
# `torch.cov(x, correction=0)` of a $(3,M)$ matrix, `torch.linalg.cholesky`, `torch.linalg.solve_triangular(..., upper=False)`. Check: the covariance of the result is $L_CL_S^{-1}\Sigma_SL_S^{-\top}L_C^\top=\Sigma_C$.
#
# </details>

# %%
def match_colours(style, content):
    """style (3, H, W), moved linearly to the colour mean and covariance of content (3, H', W')."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
def colours_by_numpy(*images):
    source, goal = (picture_.flatten(1).numpy() for picture_ in images)
    L_s, L_c = (np.linalg.cholesky(np.cov(pixels_, bias=True)) for pixels_ in (source, goal))
    white = np.linalg.inv(L_s) @ (source - source.mean(1, keepdims=True))
    return L_c @ white + goal.mean(1, keepdims=True)


pal = [torch.rand(3, tall, 7, generator=rng(tall)).double() ** tall for tall in (3, 4, 5)]
cases_c = [((pal[0], hue), colours_by_numpy(pal[0], hue).reshape(3, 3, 7)) for hue in pal[1:]]
exercise("11.C", match_colours, cases_c)

# %% [markdown]
# <details><summary>Solution 11.C</summary>
#
# ```python
# def match_colours(style, content):
#     s, c = style.flatten(1), content.flatten(1)
#     L_s, L_c = (torch.linalg.cholesky(torch.cov(x, correction=0)) for x in (s, c))
#     white = torch.linalg.solve_triangular(L_s, s - s.mean(1, keepdim=True), upper=False)
#     return (L_c @ white + c.mean(1, keepdim=True)).view_as(style)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 11.D · Style loss is a distance of distributions
#
# Treat the feature vectors $a_k$ of $A$ and $b_k$ of $B$ as two samples. With the kernel $\kappa(x,y)=(x^\top y)^2$ their squared **maximum mean discrepancy** is
# $\operatorname{mean}\kappa(a,a')-2\operatorname{mean}\kappa(a,b)+\operatorname{mean}\kappa(b,b')$, means over all pairs. Prove that it is $4C^2L_{style}$, and
# write `mmd(A, B)` from kernels, without any Gram matrix of channels.
#
# <details><summary>Hint</summary>
#
# $(x^\top y)^2=\langle xx^\top,yy^\top\rangle$, so $\operatorname{mean}\kappa(a,b)=\langle G_A/M_A,G_B/M_B\rangle$. In code: the $M_A\times M_B$ matrix of products, squared, `.mean()`.
#
# </details>

# %%
def mmd(A, B):
    """Squared MMD with kernel (x^T y)^2 between the positions of A (C, H, W) and B (C, H', W')."""
    raise NotImplementedError

# %% tags=["nbval-ignore-output"]
mean_outer = [
    np.einsum("ihw,jhw->ij", fmap, fmap) / fmap[0].size for fmap in (A1.numpy(), B1.numpy())
]
apart, triple = np.linalg.norm(mean_outer[0] - mean_outer[1]), np.linalg.norm(3 * mean_outer[1])
cases_d = [((A1, B1), apart**2), ((A1, A1.roll(1, 2)), 0.0), ((2 * B1, B1), triple**2)]
exercise("11.D", mmd, cases_d)

# %% [markdown]
# <details><summary>Solution 11.D</summary>
#
# Expand $\lVert G_A/M_A-G_B/M_B\rVert_F^2$ into three inner products and use the hint for each; the factor $4C^2$ is that of (11.12). Matching styles is matching the distributions of features, positions ignored
# (Li et al. 2017).
#
# ```python
# def mmd(A, B):
#     A, B = A.flatten(1), B.flatten(1)               # (C, M_A), (C, M_B)
#     def mean_kernel(x, y):
#         return (x.T @ y).square().mean()
#     return mean_kernel(A, A) - 2 * mean_kernel(A, B) + mean_kernel(B, B)
# ```
#
# </details>

# %% [markdown]
# ## Exam

# %% [markdown] tags=["exam"]
# ### Question 1 · Name the content and the style part of the perceptual loss, define every index, and explain how minimising the sum over the pixels of the output transfers style.
#
# **По-русски.** Из каких двух компонент состоит perceptual loss? Выпишите их, поясните все индексы и объясните, как минимизация по пикселям выходного изображения переносит стиль.
#
# <details><summary>Model answer</summary>
#
# A frozen, pretrained network (VGG-19) turns an image $A$ into features $A^l_{ik}$: $l$ the layer, $i$ the channel (filter), $k$ the position, $1\dots M_l=H_lW_l$.
#
# *Content* (11.3): $L^l_{content}(C,X)=\sum_{i,k}(C^l_{ik}-X^l_{ik})^2$ at one, usually deep, layer. It compares responses **at the same place**: what is where. A deep layer forgives small changes of pixels.
#
# *Style*: the Gram matrix (11.6), $G^l_{ij}=\sum_kA^l_{ik}A^l_{jk}$, sums over places, so it keeps which features occur together and how strongly, but not where. Per layer (11.12),
# $L^l_{style}=\sum_{ij}\big(G^l_{ij}(S)/(2C_lM_S)-G^l_{ij}(X)/(2C_lM_X)\big)^2$, over layers (11.14) $\sum_lw_lL^l_{style}$; $i,j$ both run over channels.
#
# *Total* (11.15): $L(C,S,X)=\alpha L_{content}(C,X)+\beta L_{style}(S,X)$. Weights of the network, $C$ and $S$ are constants. Start with $X_0=$ noise or $C$, compute $\nabla_XL$ by backpropagation to the input, and step,
# $X_{t+1}=X_t-\eta\nabla_XL(X_t)$, (11.5), in practice by L-BFGS. The content term holds the arrangement of objects; the style term is free to change everything that leaves it: colours, strokes, textures. $\beta/\alpha$ sets the compromise.
#
# **Кратко по-русски.** Признаки замороженной VGG: $A^l_{ik}$, $l$ — слой, $i$ — канал, $k$ — позиция. Контент: $\sum_{ik}(C^l_{ik}-X^l_{ik})^2$ на одном глубоком слое — что и где. Стиль: матрица Грама $G^l_{ij}=\sum_kA^l_{ik}A^l_{jk}$ (сумма по позициям, место забыто), функция потерь стиля — взвешенная по слоям
# сумма квадратов разностей нормированных матриц Грама. Минимизируем $\alpha L_{content}+\beta L_{style}$ по пикселям $X$ (градиент до входа, L-BFGS); $C$, $S$ и веса сети не меняются.
#
# **Typical mistake.** To say that the content image is changed, or that the network is trained: the only variable is $X$. Next: to forget $\sum_k$ in the Gram matrix.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 2 · The style image is fixed once and for all. How can stylisation be made fast at inference, what is trained, and what is lost?
#
# **По-русски.** Стилевое изображение зафиксировано раз и навсегда. Как ускорить стилизацию на этапе применения, что именно обучается и что при этом теряется?
#
# <details><summary>Model answer</summary>
#
# Train an image transform network $a_\theta$ that maps a content photo to its stylised version. With $S$ fixed, minimise over $\theta$ the mean loss over a set of contents, (11.17):
# $\min_\theta\mathbb E_{x}L(x,S,a_\theta(x))$, by stochastic gradients: batch of photos → $a_\theta$ → frozen VGG → content loss against $x$, style loss against $S$ → backpropagation into $\theta$. No target images are needed. VGG's weights do not change, and VGG is not used at inference: one forward pass.
# Architecture (Johnson et al.): two strided convolutions down, five residual blocks, two upsamplings, instance normalisation (11.18), reflection padding; no long skip connections.
#
# Gained: the cost per image falls from hundreds of forward and backward passes through VGG to a single forward pass of a small net: two orders of magnitude on this page (twenty to thirty times if L-BFGS may stop at the network's loss), three in Johnson et al.
# Lost: (1) time and data for training, per style; (2) quality: a single pass reaches a higher loss than an optimiser that works on this very image (amortisation gap), more so on contents unlike the training set; (3) freedom: style, $\alpha/\beta$ and the size of the
# strokes are frozen into $\theta$. Conditional instance normalisation or AdaIN (11.19) lift the one-style restriction.
#
# **Кратко по-русски.** Обучаем сеть $a_\theta$: $\min_\theta\mathbb E_xL(x,S,a_\theta(x))$, математическое ожидание по контентным изображениям, $S$ фиксировано, VGG заморожена и нужна только для функции потерь. На применении — один прямой проход вместо сотен проходов туда и обратно. Теряем: время на обучение, качество (значение функции потерь выше, чем у
# прямой оптимизации), возможность менять стиль и $\alpha/\beta$ без нового обучения (частично снимается AdaIN и conditional instance norm).
#
# **Typical mistake.** "The stylised image is fixed" (E1): it is the *style* image. And writing the objective for a single $x$ (E4).
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 20 · Prove that the Gram-matrix style loss is invariant to any permutation of spatial positions, and that the content loss is not.
#
# **По-русски.** Докажите, что функция потерь стиля на матрицах Грама инвариантна к любой перестановке пространственных позиций, а контентная — нет.
#
# <details><summary>Model answer</summary>
#
# Write the features of layer $l$ as $A\in\mathbb R^{C\times M}$. A permutation $\pi$ of positions acts as $A\mapsto A\Pi$ with a permutation matrix $\Pi$, for which $\Pi\Pi^\top=I$.
#
# *Style.* $G(A\Pi)=A\Pi(A\Pi)^\top=A\Pi\Pi^\top A^\top=AA^\top=G(A)$, (11.8); equivalently $\sum_kA_{i\pi(k)}A_{j\pi(k)}=\sum_{k'}A_{ik'}A_{jk'}$ after renaming $k'=\pi(k)$. The normalisation depends on $C$ and $M$ only, which do not change. Hence $L_{style}(A\Pi,B)=L_{style}(A,B)$ for every $\Pi$ and $B$.
#
# *Content.* A counter-example suffices: $A=(0,1)$, one channel, two positions, $\Pi$ the swap: $L_{content}(A\Pi,A)=(1-0)^2+(0-1)^2=2\ne0=L_{content}(A,A)$. On average over all permutations the loss is $2M\sum_i\sigma_i^2$ (11.9): it vanishes only for constant channels.
#
# Care: the invariance is to permuting positions of *feature maps*. Permuting the *pixels* of the image changes the features themselves, as every feature sees a neighbourhood; only for $1\times1$ filters is it the same. That is why the style loss still knows strokes: their shape is inside the receptive field.
#
# **Кратко по-русски.** $A\mapsto A\Pi$, $\Pi\Pi^\top=I$, поэтому $G(A\Pi)=A\Pi\Pi^\top A^\top=G(A)$, и любая функция от $G$ не меняется. Контент: $A=(0,1)$, перестановка даёт значение функции потерь $2\ne0$; в среднем по перестановкам $2M\sum_i\sigma_i^2$. Речь о позициях карты признаков, а не о пикселях картинки.
#
# **Typical mistake.** To claim invariance to shuffling the pixels of the image: convolutions see neighbours, so the features change.
#
# </details>

# %% [markdown] tags=["exam"]
# ### Question 21 · The style image has twice as many pixels as the output. Which normalisation makes the Gram matrices comparable?
#
# **По-русски.** У стилевого изображения вдвое больше пикселей, чем у выходного. Какая нормировка делает матрицы Грама сравнимыми?
#
# <details><summary>Model answer</summary>
#
# $G=\sum_ka_ka_k^\top$ is a sum over positions, so it is additive (11.11): an image made of two copies has $2G$. The comparable quantity is the mean over positions, $G/M$ with $M=HW$ **of the same image's own map**: an estimate of $\mathbb E\,aa^\top$, which does not depend on size (border effects aside).
# So each matrix is divided by its own count before subtracting, (11.12): $\sum_{ij}\big(\tfrac{G_{ij}(S)}{2CM_S}-\tfrac{G_{ij}(X)}{2CM_X}\big)^2$. For $M_S=M_X$ this is Gatys' $\tfrac1{4C^2M^2}\sum(G-G')^2$.
#
# What does not work: no normalisation (the minimum wants $G(X)=G(S)$, features $\sqrt2$ times too strong for twice the pixels), or one common factor such as $1/(4C^2M_SM_X)$ in front of the plain difference: it scales the loss but leaves the minimum at the wrong place.
# Dividing by $C$ is harmless, both have the same $C$; it only makes layers comparable. Scale is another matter: resizing the style image changes the size of its strokes, and no normalisation undoes that.
#
# **Кратко по-русски.** Матрица Грама — сумма по позициям, у вдвое большего изображения она вдвое больше. Делить надо каждую на своё $M=HW$: $G(S)/M_S$ и $G(X)/M_X$ — средние, они сравнимы. Общий множитель перед разностью не помогает: минимум остаётся не там.
#
# **Typical mistake.** To divide the difference of the plain sums by a product of both sizes: the loss of a texture against its own tiling is then not zero.
#
# </details>

# %% [markdown]
# ## Summary and references
#
# - Pixel distance weighs every pixel alone; a feature network compares neighbourhoods; deeper layers forgive a shift, not blur or noise.
# - Content loss: squared Euclidean distance of features at one layer, (11.3). Style loss: squared distance of Gram matrices, each divided by its own number of positions, (11.12).
# - The Gram matrix is a sum over positions: positive semidefinite, additive, blind to any permutation; it is not a correlation.
# - Stylisation minimises (11.15) over the pixels of $X$; nothing else changes. L-BFGS needs both tolerances off.
# - A transform network pays the optimisation once, (11.17), for the price of a somewhat higher loss; AdaIN (11.19) makes the style an input.
#
# References
#
# - L. Gatys, A. Ecker, M. Bethge. [Texture synthesis using convolutional neural networks](https://arxiv.org/abs/1505.07376). NIPS 2015.
# - L. Gatys, A. Ecker, M. Bethge. [Image style transfer using convolutional neural networks](https://openaccess.thecvf.com/content_cvpr_2016/html/Gatys_Image_Style_Transfer_CVPR_2016_paper.html). CVPR 2016.
# - J. Johnson, A. Alahi, L. Fei-Fei. [Perceptual losses for real-time style transfer and super-resolution](https://arxiv.org/abs/1603.08155). ECCV 2016.
# - D. Ulyanov, A. Vedaldi, V. Lempitsky. [Instance normalization: the missing ingredient for fast stylization](https://arxiv.org/abs/1607.08022). 2016.
# - V. Dumoulin, J. Shlens, M. Kudlur. [A learned representation for artistic style](https://arxiv.org/abs/1610.07629). ICLR 2017.
# - X. Huang, S. Belongie. [Arbitrary style transfer in real-time with adaptive instance normalization](https://arxiv.org/abs/1703.06868). ICCV 2017.
# - Y. Li, N. Wang, J. Liu, X. Hou. [Demystifying neural style transfer](https://arxiv.org/abs/1701.01036). IJCAI 2017.
# - K. He, Y. Wang, J. Hopcroft. [A powerful generative model using random weights for the deep image representation](https://arxiv.org/abs/1606.04801). NIPS 2016.
# - I. Ustyuzhaninov, W. Brendel, L. Gatys, M. Bethge. [Texture synthesis using shallow convolutional networks with random filters](https://arxiv.org/abs/1606.00021). 2016.
# - A. Mahendran, A. Vedaldi. [Understanding deep image representations by inverting them](https://arxiv.org/abs/1412.0035). CVPR 2015.
# - K. Simonyan, A. Zisserman. [Very deep convolutional networks for large-scale image recognition](https://arxiv.org/abs/1409.1556). ICLR 2015.
#
# <!-- navigation -->
# previous: [00 Start here](00_start_here.ipynb) · map: [00 Start here](00_start_here.ipynb) · next: [12 Image restoration](12_image_restoration.ipynb)
# <!-- /navigation -->
