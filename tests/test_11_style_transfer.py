"""Notebook 11: its public functions on inputs the page does not show, the script that paints its large picture, and wrong variants that its checks notice."""

import ast
import importlib.util

import numpy as np
import pytest
import torch

from helpers import data
from tests.book import ROOT, book


@pytest.fixture(scope="module")
def nb():
    return book("11").definitions()


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- losses -----------------------------------------------------------------------------------------------------------

def test_losses_by_hand(nb):
    A, B = torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]]), torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])       # (2, 1, 2)
    assert nb["content_loss"](A, B) == 0 + 4 + 1 + 4
    assert nb["gram_matrix"](A).tolist() == [[5, 6], [6, 9]] and nb["gram_matrix"](B).tolist() == [[1, 1], [1, 2]]
    assert nb["style_loss"](A, B).item() == pytest.approx((16 + 25 + 25 + 49) / (4 * 2**2 * 2**2))
    three = torch.cat([B, torch.zeros(2, 1, 1)], 2)                                                     # M = 3
    expected = sum((a / 8 - b / 12) ** 2 for a, b in zip((5, 6, 6, 9), (1, 1, 1, 2)))
    assert nb["style_loss"](A, three).item() == pytest.approx(expected)
    assert nb["total_variation"](torch.tensor([[0.0, 1.0], [3.0, -1.0]])).item() == 3 + 2 + 1 + 4


@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3)])
def test_gram_matrices_of_batches(nb, lead):
    A = rand(*lead, 4, 3, 5)
    G = nb["gram_matrix"](A)
    assert G.shape == (*lead, 4, 4) and torch.allclose(G, torch.einsum("...ihw,...jhw->...ij", A, A))


def test_losses_refuse_what_does_not_correspond(nb):
    with pytest.raises(ValueError, match="differ"):
        nb["content_loss"](rand(4, 3, 5), rand(4, 5, 3))
    for A, B in ((rand(4, 3, 5), rand(5, 3, 5)), (rand(3, 5), rand(3, 5))):
        with pytest.raises(ValueError, match="channels"):
            nb["style_loss"](A, B)
    for bad in (rand(4, 3), torch.zeros(4, 0, 3)):
        with pytest.raises(ValueError, match="C, H, W"):
            nb["gram_matrix"](bad)


def test_perceptual_loss_takes_features_or_an_image(nb):
    torch.manual_seed(0)
    net, (x, c, s) = nb["VGG"](2).double(), (rand(1, 3, 24, 16, seed=k) for k in range(3))
    weights, content = {"conv1_2": 2.0, "conv3_1": 0.5}, {"conv2_2": net(c)["conv2_2"], "conv4_1": net(c)["conv4_1"]}
    by_hand = 0.3 * sum(nb["content_loss"](net(x)[k], f) for k, f in content.items())
    by_hand += 7 * sum(w * nb["style_loss"](net(x)[k], net(s)[k]) for k, w in weights.items())
    given = (content, net(s), 0.3, 7.0, weights)
    assert torch.isclose(nb["perceptual_loss"](net(x), *given), by_hand)
    assert torch.isclose(nb["perceptual_loss"](x, *given, net=net), by_hand)
    with pytest.raises(ValueError, match="net"):
        nb["perceptual_loss"](x, *given)
    for wrong in ((net(x), {"conv9_9": x}, *given[1:]), (net(x), *given[:4], {"conv9_9": 1.0})):
        with pytest.raises(ValueError, match="conv9_9"):
            nb["perceptual_loss"](*wrong)


def test_bytes_and_half_precision_are_widened_first(nb):
    A, B = torch.tensor([[[20, 0]]], dtype=torch.uint8), torch.tensor([[[0, 20]]], dtype=torch.uint8)
    assert nb["content_loss"](A, B) == 800 and nb["gram_matrix"](A).item() == 400 and nb["total_variation"](A) == 20
    big = 60 * torch.ones(3, 40, 40, dtype=torch.float16)
    assert nb["style_loss"](big, big / 2).isfinite()


def test_the_gradient_of_a_distance_of_zero_is_zero(nb):
    x = torch.ones(3, 4, 4, requires_grad=True)
    nb["pixel_distance"](x, x.detach()).backward()
    assert torch.equal(x.grad, torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="differ"):
        nb["pixel_distance"](torch.ones(3, 4, 4), torch.ones(3, 1, 4))


# --- pixels and networks ----------------------------------------------------------------------------------------------

def test_stylize_lowers_the_loss_keeps_the_shape_and_touches_no_input(nb):
    content, style = data.photo("cat")[:, 100:150, 100:133], data.photo("tiles", 40)
    before, losses = (content.clone(), style.clone()), []
    x = nb["stylize"](content, style, steps=12, history=losses)
    assert x.shape == content.shape and 0 <= x.min() and x.max() <= 1 and not x.requires_grad
    assert losses[-1] < 0.7 * losses[0] and torch.equal(content, before[0]) and torch.equal(style, before[1])
    again = nb["stylize"](content, style, steps=12)
    assert torch.allclose(x, again, atol=1e-3)


def test_the_last_loss_is_that_of_the_picture_that_is_returned(nb):
    content, style, losses = data.photo("coffee", 48), data.photo("tiles", 48), []
    x = nb["stylize"](content, style, steps=15, beta=10.0 * 48**2, history=losses)
    net, weights = nb["feature_net"]("bundled"), nb["STYLE_WEIGHTS"]
    loss = nb["perceptual_loss"](x, {"conv4_1": net(content)["conv4_1"]}, net(style), 1.0, 10.0 * 48**2, weights, net=net)
    assert losses[-1] == pytest.approx(loss.item(), rel=1e-4) and losses[-1] < losses[0]


def test_stylize_takes_photos_as_people_have_them(nb):
    image = (data.photo("cat", 32) * 255).round().byte()
    wanted = nb["stylize"](image.float() / 255, image.float() / 255, steps=2, start="noise")
    pixels = image.permute(1, 2, 0).numpy().copy()
    for given in (image, image.numpy(), torch.from_numpy(pixels / 255).permute(2, 0, 1).float(), torch.from_numpy(pixels / 255).permute(2, 0, 1)):
        assert torch.allclose(nb["stylize"](given, given, steps=2, start="noise").float(), wanted, atol=2e-2)


@pytest.mark.parametrize("bad", [{"alpha": float("nan")}, {"beta": -1.0}, {"tv": float("inf")}, {"weights": {}}, {"weights": [1.0]}, {"steps": 0}, {"steps": 1.5},
                                 {"steps": -1}, {"optimiser": "sgd", "lr": float("nan")}, {"optimiser": "sgd", "lr": 1e30}, {"start": 300 * rand(3, 16, 16)},
                                 {"start": torch.full((3, 16, 16), float("nan"))}])
def test_stylize_refuses_numbers_without_meaning(nb, bad):
    with pytest.raises(ValueError):
        nb["stylize"](rand(3, 16, 16).float(), rand(3, 16, 16, seed=1).float(), **({"steps": 2} | bad))


@pytest.mark.parametrize("options", [{"start": "noise"}, {"start": torch.full((3, 16, 20), 0.5)}, {"optimiser": "adam"}, {"optimiser": "sgd", "lr": 1e-6},
                                     {"alpha": 0.0}, {"beta": 0.0}, {"content_layer": "conv2_1"}, {"weights": {"conv2_1": 1.0}}, {"tv": 1.0}])
def test_stylize_accepts_its_options(nb, options):
    x = nb["stylize"](rand(3, 16, 20).float(), rand(3, 18, 17, seed=1).float(), steps=2, **options)
    assert x.shape == (3, 16, 20) and x.isfinite().all()


@pytest.mark.parametrize("bad", [rand(1, 32, 32), rand(3, 15, 32), rand(3, 32, 32) * 255, rand(3, 32, 32) - 1, rand(32, 32), rand(1, 3, 32, 32),
                                 torch.full((3, 32, 32), float("nan")), "cat"])
def test_stylize_refuses_bad_images_as_content_and_as_style(nb, bad):
    good = rand(3, 32, 32).float()
    for pair, name in (((bad, good), "content"), ((good, bad), "style")):
        with pytest.raises(ValueError, match=name):
            nb["stylize"](*pair, steps=1)


@pytest.mark.parametrize("options, says", [({"start": "photo"}, "start"), ({"start": rand(3, 8, 8)}, "start"), ({"optimiser": "newton"}, "optimiser"),
                                           ({"content_layer": "conv6_1"}, "conv6_1"), ({"weights": {"relu1": 1.0}}, "relu1")])
def test_stylize_names_a_wrong_option(nb, options, says):
    with pytest.raises(ValueError, match=says):
        nb["stylize"](rand(3, 16, 16).float(), rand(3, 16, 16).float(), steps=1, **options)


def test_a_noise_start_is_noise_around_grey(nb):
    noise = nb["starting_image"]("noise", rand(3, 20, 20))
    assert (noise - 0.5).abs().max() <= 0.1 and noise.std() > 0.05 and torch.equal(noise, nb["starting_image"]("noise", rand(3, 20, 20)))


# --- pictures worth sharing -------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def small_net(nb):
    torch.manual_seed(0)
    return nb["VGG"](2).requires_grad_(False)


def test_the_colour_layer_is_the_image_and_a_one(nb, small_net):
    x = rand(3, 18, 20).float()
    coloured = nb["WithColour"](small_net)
    features = coloured(x)
    assert set(features) == {*nb["LAYERS"], "colour"} and torch.equal(features["conv2_1"], small_net(x)["conv2_1"])
    assert torch.equal(features["colour"][0, :3], x) and torch.equal(features["colour"][0, 3], torch.ones(18, 20))
    assert set(coloured(x, "conv1_2")) == {"conv1_1", "conv1_2", "colour"} and coloured(x[None])["colour"].shape == (1, 4, 18, 20)


def test_repeated_edges_are_those_of_a_copy(nb, small_net):
    x, before = torch.full((3, 32, 32), 0.9), small_net(torch.full((3, 32, 32), 0.9))["conv2_2"]
    flat = nb["replicate_edges"](small_net)(x)["conv2_2"]
    assert torch.allclose(flat, flat[..., :1, :1].expand_as(flat), atol=1e-5), "a constant image has constant features"
    assert torch.equal(small_net(x)["conv2_2"], before) and before.std((2, 3)).max() > 1e-3


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_recoloured_photos_have_the_wanted_colours(nb, kind):
    image, like = data.photo("cat", 40).to(kind), data.photo("tiles", 30).to(kind)
    before = image.clone()
    x = nb["recolour"](image, like)
    assert x.dtype == kind and x.shape == image.shape and torch.equal(image, before)
    for measure, atol in ((lambda v: v.flatten(1).mean(1), 1e-5), (lambda v: torch.cov(v.flatten(1), correction=0), 1e-4)):
        assert torch.allclose(measure(x), measure(like), atol=atol)
    assert torch.allclose(nb["recolour"](image, image), image, atol=1e-4), "what has the colours already stays as it is"


def test_a_grey_photo_is_recoloured_without_nan(nb):
    assert nb["recolour"](data.photo("camera", 32), data.photo("tiles", 32)).isfinite().all()


def test_paint_goes_through_its_levels(nb, small_net):
    content, style, sides = rand(3, 48, 36).float(), rand(3, 40, 44, seed=1).float(), []
    before = content.clone()

    class Watched(torch.nn.Module):
        mean = small_net.mean

        def forward(self, x, layers=nb["LAYERS"]):
            sides.append(tuple(x.shape[-2:]))
            return small_net(x, layers)

    x = nb["paint"](content, style, Watched(), shares=(0.5, 1), steps=(2, 2), weights={"conv1_1": 1.0})
    assert x.shape == content.shape and 0 <= x.min() and x.max() <= 1 and torch.equal(content, before)
    assert {(24, 18), (20, 22), (48, 36), (40, 44)} == set(sides), "photo and style are reduced alike"
    with pytest.raises(ValueError):
        nb["paint"](content, style, small_net, shares=(0.5, 1), steps=(2,), weights={"conv1_1": 1.0})


def test_the_script_paints_the_large_picture():
    spec = importlib.util.spec_from_file_location("make_style_transfer", ROOT / "data/make_style_transfer.py")
    spec.loader.exec_module(script := importlib.util.module_from_spec(spec))
    twice = [list(script.pictures(pairs=[("cat", "tiles"), ("cat", "waves")], side=36, style_side=40, steps=(2, 2, 2))) for _ in range(2)]
    assert all(x.shape == (3, 36, 36) and x.isfinite().all() for x in twice[0]) and torch.allclose(twice[0][1], twice[1][1], atol=1e-3)
    image = script.row(twice[0])
    assert image.size == (72, 36) and np.allclose(np.asarray(image)[0, 36] / 255, twice[0][1][:, 0, 0], atol=3e-3)


@pytest.mark.parametrize("says, old, new", [
    ("numpy's norm of the difference", "return torch.linalg.vector_norm(A - B)", "return (A - B).abs().sum()"),
    ("transposed Jacobian times", "return (A - B).square().sum()", "return (A - B).square().sum() / 2"),
    ("central differences of the style loss", "return 2 / (C * H * W) * (D", "return 4 / (C * H * W) * (D"),
    ("of every layer, pulled back", "return alpha * content + beta * total_style_loss", "return alpha * content + 2 * beta * total_style_loss"),
])
def test_the_checks_notice(says, old, new):
    b = book("11").with_source(old, new)
    with pytest.raises(AssertionError, match=says):
        b.run(b.needed([node for _, node in b.checks if says in ast.unparse(node)]))


# --- the transform network --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 17, 19), (3, 18, 31), (3, 35, 16)])
def test_the_transform_network_keeps_every_size(nb, shape):
    torch.manual_seed(0)
    net = nb["TransformNet"](width=4, n_blocks=1).eval()
    with torch.no_grad():
        y = net(torch.rand(shape))
    assert y.shape == shape and 0 < y.min() and y.max() < 1


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 3), (2, 1, 32, 32), (3, 8, 32)])
def test_the_transform_network_refuses_grey_and_tiny_images(nb, shape):
    with pytest.raises(ValueError, match="TransformNet"):
        nb["TransformNet"](width=4, n_blocks=1)(torch.rand(shape))


def test_the_images_of_a_batch_do_not_influence_each_other(nb):
    torch.manual_seed(0)
    net = nb["TransformNet"](width=4, n_blocks=1)
    x = torch.rand(2, 3, 20, 20)
    assert torch.allclose(net(x)[0], net(x[0]), atol=1e-5), "instance, not batch statistics"
