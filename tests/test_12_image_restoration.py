"""Notebook 12: its public functions on inputs the page does not show."""

import math

import numpy as np
import pytest
import skimage.metrics
import torch
from torch import nn

from helpers import data
from tests.book import book


@pytest.fixture(scope="module")
def nb():
    return book("12").definitions()


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- measures ---------------------------------------------------------------------------------------------------------

WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.mark.parametrize("shape", [(11, 11), (30, 17), (1, 12, 40), (3, 25, 25)])
@pytest.mark.parametrize("data_range", [1.0, 255, 2.5])
def test_psnr_and_ssim_are_those_of_skimage(nb, shape, data_range):
    x, y = data_range * rand(*shape), data_range * (0.7 * rand(*shape) + 0.3 * rand(*shape, seed=1))
    axis = 0 if len(shape) == 3 else None
    assert nb["psnr"](x, y, data_range).item() == pytest.approx(skimage.metrics.peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=data_range))
    theirs = skimage.metrics.structural_similarity(x.numpy(), y.numpy(), data_range=data_range, channel_axis=axis, **WANG)
    assert nb["ssim"](x, y, data_range).item() == pytest.approx(theirs, abs=1e-9)


def test_batches_give_one_value_per_image(nb):
    x, y = rand(4, 3, 16, 20), rand(4, 3, 16, 20, seed=1)
    for name in ("psnr", "ssim"):
        each = torch.stack([nb[name](a, b, 1.0) for a, b in zip(x, y)])
        assert nb[name](x, y, 1.0).shape == (4,) and torch.allclose(nb[name](x, y, 1.0), each)


def test_bytes_are_compared_without_wrapping_round(nb):
    x, y = torch.tensor([[0, 255], [10, 0]], dtype=torch.uint8), torch.tensor([[255, 0], [0, 10]], dtype=torch.uint8)
    assert nb["psnr"](x, y, 255).item() == pytest.approx(10 * math.log10(255**2 / ((2 * 255**2 + 200) / 4)), rel=1e-5)


def test_extremes_of_the_measures(nb):
    x = rand(3, 16, 16)
    assert nb["psnr"](x, x, 1.0) == math.inf and nb["ssim"](x, x, 1.0) == 1
    black, white = torch.zeros(16, 16), torch.ones(16, 16)
    assert nb["psnr"](black, white, 1.0) == 0 and nb["ssim"](black, black, 1.0) == 1
    assert nb["ssim"](black, white, 1.0).item() == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-3)
    assert not nb["psnr"](x.requires_grad_(), rand(3, 16, 16, seed=1), 1.0).isnan()


@pytest.mark.parametrize("name", ["psnr", "ssim"])
@pytest.mark.parametrize("x, y, data_range", [
    (rand(3, 16, 16), rand(16, 16), 1.0), (rand(16), rand(16), 1.0), (rand(3, 16, 16), rand(3, 16, 16), 0), (rand(3, 16, 16), rand(3, 16, 16), -1.0),
    (rand(3, 16, 16) * 255, rand(3, 16, 16), 1.0), (torch.full((16, 16), math.nan), rand(16, 16), 1.0), (torch.zeros(3, 0, 16), torch.zeros(3, 0, 16), 1.0)])
def test_what_cannot_be_compared_is_refused(nb, name, x, y, data_range):
    with pytest.raises(ValueError):
        nb[name](x, y, data_range)


def test_ssim_names_the_smallest_image(nb):
    with pytest.raises(ValueError, match="11 x 11.*10 x 30"):
        nb["ssim"](rand(10, 30), rand(10, 30), 1.0)
    nb["psnr"](rand(1, 1), rand(1, 1, seed=1), 1.0)


# --- super-resolution -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("scale", [2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 7, 5), (1, 1, 6, 9)])
def test_srnet_enlarges_any_size_and_grey_too(nb, scale, shape):
    torch.manual_seed(0)
    net, x = nb["SRNet"](scale), torch.rand(shape)
    n, c, h, w = shape
    out = net(x)
    assert out.shape == (n, c, scale * h, scale * w)
    assert torch.allclose(out, torch.nn.functional.interpolate(x, scale_factor=scale, mode="bicubic"), atol=1e-6), "bicubic before training"
    nn.init.normal_(net.g[-1].weight)
    assert (net(x) - out).abs().max() > 1e-3, "the trained part reaches the output"
    assert torch.allclose(net(torch.cat([x, x]))[0], net(x)[0], atol=1e-5), "images of a batch are independent"


@pytest.mark.parametrize("scale", [1, 0, -2, 2.0, "2", True])
def test_srnet_refuses_other_scales(nb, scale):
    with pytest.raises(ValueError, match="scale must be an integer of at least 2"):
        nb["SRNet"](scale)


@pytest.mark.parametrize("x", [torch.rand(3, 8, 8), torch.rand(1, 2, 8, 8), 255 * torch.rand(1, 3, 8, 8), torch.full((1, 3, 4, 4), math.nan),
                               torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(0, 3, 4, 4)])
def test_srnet_refuses_what_is_no_batch_of_images(nb, x):
    with pytest.raises(ValueError):
        nb["SRNet"](2)(x)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_degrading_keeps_means_and_names_the_crop(nb, scale):
    y = rand(2, 3, 6 * scale, 4 * scale)
    x = nb["degrade"](y, scale)
    assert x.shape == (2, 3, 6, 4) and torch.allclose(x.mean((2, 3)), y.mean((2, 3)))
    assert x[1, 2, 3, 1].item() == pytest.approx(y[1, 2, 3 * scale:4 * scale, scale:2 * scale].mean().item())
    if scale > 1:
        with pytest.raises(ValueError, match="crop"):
            nb["degrade"](rand(3, 6 * scale + 1, 4 * scale), scale)


# --- inpainting -------------------------------------------------------------------------------------------------------

def test_inpainting_never_looks_behind_the_mask(nb):
    torch.manual_seed(0)
    net, y, m = nb["InpaintNet"](), torch.rand(2, 3, 20, 17), (rand(2, 1, 20, 17) < 0.7).float()
    nn.init.normal_(net.g[-1].weight)
    out = net(y, m)
    assert out.shape == y.shape and out.isfinite().all()
    for value in (0.0, 0.9, math.nan):
        assert torch.equal(net(torch.where(m.bool(), y, torch.tensor(value)), m), out)
    assert net(y[:, :1], m).shape == (2, 1, 20, 17)
    assert torch.equal(net(y, m.bool()), out), "a boolean mask is a mask"


def test_before_training_a_hole_in_a_plain_surface_is_filled(nb):
    m = torch.ones(1, 1, 24, 24)
    m[..., 8:16, 5:12] = 0
    assert torch.allclose(nb["InpaintNet"]()(torch.full((1, 3, 24, 24), 0.3), m), torch.tensor(0.3), atol=1e-5)
    assert torch.allclose(nb["InpaintNet"]()(rand(1, 3, 24, 24).float(), torch.ones(1, 1, 24, 24)), rand(1, 3, 24, 24).float(), atol=1e-6)


@pytest.mark.parametrize("m, says", [(torch.ones(2, 3, 9, 9), "mask"), (torch.ones(2, 1, 9, 8), "mask"), (torch.zeros(2, 1, 9, 9), "whole image"),
                                     (torch.full((2, 1, 9, 9), 0.5), "only 1"), (torch.full((2, 1, 9, 9), 255.0), "only 1"), (torch.ones(9, 9), "mask")])
def test_bad_masks_are_refused(nb, m, says):
    with pytest.raises(ValueError, match=says):
        nb["InpaintNet"]()(torch.rand(2, 3, 9, 9), m)


def test_the_masked_loss_by_hand(nb):
    y, out = torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]]), torch.tensor([[[[0.5, 1.0], [0.5, 0.0]]]])
    m = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    assert nb["masked_loss"](y, out, m).item() == pytest.approx((0.25 + 0.0625) / 2)


# --- the rest ---------------------------------------------------------------------------------------------------------

def test_tweedie_on_one_normal_is_the_wiener_filter(nb):
    x, one = torch.linspace(-3, 3, 7, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    wiener = 0.4 + 0.25 / (0.25 + 0.09) * (x - 0.4)
    for f in ("tweedie", "mixture_posterior_mean"):
        assert torch.allclose(nb[f](x, one, 0.4 * one, 0.5, 0.3), wiener)


def test_the_reported_photos_are_unknown_to_every_net(nb):
    import json
    seen = {name.split()[0] for name in json.loads((data.DATA / "features.json").read_text(encoding="utf-8"))["classes"]}
    held_out = set(nb["HELD_OUT"])
    assert held_out == {"cat", "coffee", "flower", "camera"} and not held_out & (seen | set(nb["TRAINING"]))
    assert np.all([name in data.PHOTOS for name in nb["TRAINING"]])
