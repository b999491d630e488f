"""Notebook 11: its public functions on inputs the page does not show, and VGG-19's weights without the network."""

import pytest
import torch

from helpers import data
from tests.book import book
from tests.test_photos import forward


@pytest.fixture(scope="module")
def nb():
    return book("11").definitions()


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the feature network ----------------------------------------------------------------------------------------------

def test_the_bundled_network_computes_what_the_plain_functions_do(nb):
    net = nb["feature_net"]("bundled", torch.device("cpu"))
    x = rand(2, 3, 32, 48).float()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    theirs = forward(data.feature_weights(), (x - mean) / std)
    ours = net(x)
    assert list(ours)[0] == "conv1_1" and list(ours)[-1] == "conv5_1" and len(ours) == 13
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours.values(), theirs))
    assert not any(p.requires_grad for p in net.parameters()) and not net.training


@pytest.fixture
def vgg19(nb, monkeypatch):
    """As the download would give it: all of VGG-19's names, here with small random numbers; the calls are kept."""
    net, calls = nb["VGG"](64), []
    weights = {name: torch.randn(v.shape, generator=torch.Generator().manual_seed(k)) for k, (name, v) in enumerate(net.state_dict().items())}
    weights |= {"features.30.weight": torch.zeros(512, 512, 3, 3), "classifier.0.bias": torch.zeros(4096)}

    def load(url, **options):
        calls.append((url, options))
        return weights
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load)
    return weights, calls


def test_vgg19_is_loaded_by_name_with_its_hash_checked(nb, vgg19):
    weights, calls = vgg19
    net = nb["feature_net"]("vgg19", torch.device("cpu"))
    (url, options), = calls
    assert url == "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
    assert options["check_hash"] is True and options["weights_only"] is True
    widths = [p.shape[0] for name, p in net.named_parameters() if name.endswith("bias")]
    assert widths == [64, 64, 128, 128] + [256] * 4 + [512] * 5
    assert all(torch.equal(p, weights[name]) for name, p in net.named_parameters())


def test_a_failed_download_names_the_way_out(nb, monkeypatch):
    def fail(*args, **options):
        raise OSError("no route to host")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(RuntimeError, match="no route to host.*FEATURES = \"bundled\""):
        nb["feature_net"]("vgg19", torch.device("cpu"))


def test_nothing_is_downloaded_unless_asked_for(nb, vgg19):
    for kind in ("bundled", "random"):
        nb["feature_net"](kind, torch.device("cpu"))
    assert vgg19[1] == []
    with pytest.raises(ValueError, match="vgg16"):
        nb["feature_net"]("vgg16", torch.device("cpu"))


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 4, 64, 64), (3, 15, 64), (3, 64), (1, 1, 3, 64, 64)])
def test_the_network_refuses_what_is_no_rgb_image(nb, shape):
    with pytest.raises(ValueError, match="16"):
        nb["feature_net"]("bundled", torch.device("cpu"))(torch.rand(shape))


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


# --- pixels and networks ----------------------------------------------------------------------------------------------

def test_stylize_lowers_the_loss_keeps_the_shape_and_touches_no_input(nb):
    content, style = data.photo("cat")[:, 100:150, 100:133], data.photo("tiles", 40)
    before, losses = (content.clone(), style.clone()), []
    x = nb["stylize"](content, style, steps=12, history=losses)
    assert x.shape == content.shape and 0 <= x.min() and x.max() <= 1 and not x.requires_grad
    assert losses[-1] < 0.7 * losses[0] and torch.equal(content, before[0]) and torch.equal(style, before[1])
    again = nb["stylize"](content, style, steps=12)
    assert torch.allclose(x, again, atol=1e-3)


@pytest.mark.parametrize("options", [{"start": "noise"}, {"start": torch.full((3, 16, 20), 0.5)}, {"optimiser": "adam"}, {"optimiser": "sgd", "lr": 1e-6},
                                     {"alpha": 0.0}, {"beta": 0.0}, {"content_layer": "conv2_1"}, {"weights": {"conv2_1": 1.0}}, {"tv": 1.0}])
def test_stylize_accepts_its_options(nb, options):
    x = nb["stylize"](rand(3, 16, 20).float(), rand(3, 18, 17, seed=1).float(), steps=2, **options)
    assert x.shape == (3, 16, 20) and x.isfinite().all()


@pytest.mark.parametrize("bad", [rand(1, 32, 32), rand(3, 15, 32), rand(3, 32, 32) * 255, rand(3, 32, 32) - 1, rand(32, 32), rand(1, 3, 32, 32),
                                 torch.full((3, 32, 32), float("nan")), (rand(3, 32, 32) * 255).byte(), "cat"])
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
