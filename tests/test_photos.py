"""Photos, painted styles and the small feature network: what `helpers.data` gives, and what the scripts in data/ make."""

import dataclasses
import hashlib
import importlib.util
import json
import sys

import matplotlib
import numpy as np
import pytest
import skimage.data
import torch
from torch.nn import functional as F

from helpers import data, feature_net, show_images
from helpers.features import CALIBRATION, LAYERS, FeatureNet
from tests.book import ROOT


def script(name):
    """A script of data/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "data" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def maker():
    before = list(sys.path)
    yield script("make_features")
    sys.path[:] = before


# --- photos -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(data.PHOTOS))
def test_every_photo_is_an_rgb_tensor_between_0_and_1(name):
    x = data.photo(name)
    assert x.dtype == torch.float32 and x.ndim == 3 and x.shape[0] == 3 and x.is_contiguous()
    assert 0 <= x.min() < 0.35 and 0.5 < x.max() <= 1 and x.std() > 0.05
    assert data.photo(name, 64).shape == (3, 64, 64)


def test_photos_are_what_the_libraries_ship():
    assert np.array_equal((data.photo("cat") * 255).round().byte().permute(1, 2, 0), skimage.data.chelsea())
    grey = data.photo("camera")
    assert torch.equal(grey[0], grey[1]) and np.array_equal((grey[2] * 255).round().byte(), skimage.data.camera())
    assert data.photo("motorcycle").shape == (3, 500, 741), "the left picture of the pair"


def test_a_size_takes_the_central_square():
    x, y = data.photo("cat"), data.photo("cat", 300)
    assert x.shape == (3, 300, 451) and torch.allclose(y, x[:, :, 75:375], atol=1e-5)
    half = data.photo("cat", 150)
    assert (half - F.avg_pool2d(y, 2)).abs().mean() < 0.01, "resized with antialiasing"
    assert 0 <= half.min() and half.max() <= 1, "bicubic overshoot is clipped"


def test_a_photo_is_a_copy():
    data.photo("cat").zero_()
    assert data.photo("cat").max() > 0.5


@pytest.mark.parametrize("size", [0, -3, 301, 2.5, True, "64"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="size must be an int from 1 to 300 for 'cat'"):
        data.photo("cat", size)


def test_an_unknown_photo_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown photo 'dog'.*astronaut.*waves"):
        data.photo("dog")


def test_the_styles_are_painted_by_their_script():
    paint = script("make_styles")
    for seed, name in enumerate(("strokes", "tiles", "waves")):
        image = getattr(paint, name)(np.random.RandomState(seed)).resize((512, 512), paint.Image.LANCZOS)
        again = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        assert (again - data.photo(name)).abs().mean() < 0.03, "JPEG's loss only"


# --- pictures side by side --------------------------------------------------------------------------------------------

def test_show_images_draws_grey_and_colour_and_hides_the_rest():
    g = torch.Generator().manual_seed(0)
    images = {"colour": torch.rand(3, 5, 7, generator=g) * 3 - 1, "one channel": torch.rand(1, 5, 7, generator=g), "grey": torch.rand(5, 7, generator=g)}
    fig = show_images(images, columns=2)
    assert len(fig.axes) == 4 and [ax.get_title() for ax in fig.axes] == [*images, ""]
    drawn = fig.axes[0].images[0].get_array()
    assert np.allclose(drawn, images["colour"].clamp(0, 1).permute(1, 2, 0)), "channels last, clipped"
    for ax, name in zip(fig.axes[1:], ("one channel", "grey")):
        assert np.allclose(ax.images[0].get_array(), images[name].reshape(5, 7)) and ax.images[0].get_clim() == (0, 1)
    assert len(show_images({str(k): torch.rand(4, 4, generator=g) for k in range(3)}).axes) == 3
    three = show_images({"": torch.rand(3, 4, generator=g)})      # H = 3 is no colour
    assert three.axes[0].images[0].get_array().shape == (3, 4)
    matplotlib.pyplot.close("all")


def test_show_images_takes_what_people_have():
    byte, image = torch.tensor([[0, 51, 255]], dtype=torch.uint8), np.array([[0.0, 0.2, 1.5]])
    fig = show_images({"bytes": byte, "array": image, "bytes of numpy": byte.numpy(), "mask": byte > 60, "gradient": torch.tensor([[0.0, 0.2, 1.0]], requires_grad=True)})
    wanted = [[0, 0.2, 1]] * 5
    wanted[3] = [0, 0, 1]
    assert all(np.allclose(ax.images[0].get_array(), [row] if np.ndim(row) == 1 else row) for ax, row in zip(fig.axes, wanted))
    assert byte.tolist() == [[0, 51, 255]], "arguments stay as they are"
    digit = data.digits().image[0]
    assert len(np.unique(show_images({"digit": digit}).axes[0].images[0].get_array())) == len(digit.unique())
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("images, says", [({}, "at least one image"), ({"a": torch.zeros(2, 4, 4)}, "'a' is .2, 4, 4."), ({"a": torch.zeros(4)}, "'a' is .4,.")])
def test_show_images_refuses_what_is_no_image(images, says):
    with pytest.raises(ValueError, match=says):
        show_images(images)
    matplotlib.pyplot.close("all")


# --- the feature network ----------------------------------------------------------------------------------------------

def forward(weights, x):
    """Activations after each ReLU of VGG-19's layout with average pooling, by the plain functions."""
    out, last = [], None
    for index in sorted(int(k.split(".")[1]) for k in weights if k.endswith("weight")):
        x = F.avg_pool2d(x, 2) if last is not None and index - last == 3 else x
        x, last = F.relu(F.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1)), index
        out.append(x)
    return out


def test_the_weights_are_vgg19_up_to_conv5_1_at_a_quarter_of_the_width():
    w = data.feature_weights()
    convs = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28]          # in torchvision's vgg19().features
    assert sorted(w) == sorted(f"features.{k}.{part}" for k in convs for part in ("weight", "bias"))
    widths = [w[f"features.{k}.bias"].numel() for k in convs]
    assert widths == [16, 16, 32, 32] + [64] * 4 + [128] * 5
    assert all(w[f"features.{k}.weight"].shape == (n, c, 3, 3) for k, c, n in zip(convs, [3, *widths], widths))
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in w.values())
    assert (ROOT / "data/features.safetensors").stat().st_size <= 4 * 2**20


@pytest.fixture(scope="module")
def net():
    return feature_net()


def calibration():
    return torch.stack([data.photo(name, 128) for name in CALIBRATION])


def test_the_feature_network_is_frozen_and_calibrated(net):
    maps = net(calibration())
    assert tuple(maps) == LAYERS and all(abs(a.mean() - 1) < 1e-4 and a.min() == 0 for a in maps.values())
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    assert not any(name.split()[0] in CALIBRATION for name in ("camera", "cat", "coffee", "flower", "strokes", "tiles", "waves"))


def test_calibration_rescales_every_layer_and_nothing_else(net):
    x = data.photo("coffee", 64)
    normalised = (x[None] - net.mean) / net.std
    for ours, theirs in zip(net(x).values(), forward(data.feature_weights(), normalised)):
        factor = theirs.sum() / ours.sum()
        assert torch.allclose(ours * factor, theirs, atol=1e-4 * theirs.max().item())
    torch.manual_seed(0)
    rough = FeatureNet(2).double().requires_grad_(False)
    for k, conv in enumerate(rough.features):
        if isinstance(conv, torch.nn.Conv2d):
            conv.weight *= 1.5 + k % 5                       # layers of very different strength, with biases that count
            conv.bias.uniform_(0, 0.1)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    before = rough(x)
    after = rough.calibrate(x)(x)
    assert all(torch.allclose(after[n], before[n] / before[n].mean(), rtol=1e-9) and abs(after[n].mean() - 1) < 1e-9 for n in LAYERS)
    with pytest.raises(ValueError, match="mean activation 0"):
        FeatureNet(2).requires_grad_(False).apply(lambda m: [p.zero_() for p in m.parameters(recurse=False)]).calibrate(torch.rand(1, 3, 16, 16))


def test_the_network_says_which_layers_and_stops_there(net):
    x = data.photo("cat", 64)
    whole = net(x)
    assert [tuple(whole[n].shape) for n in ("conv1_1", "conv2_1", "conv5_1")] == [(1, 16, 64, 64), (1, 32, 32, 32), (1, 128, 4, 4)]
    assert list(net(x, "conv2_1")) == ["conv1_1", "conv1_2", "conv2_1"], "one name: up to it"
    two = net(x[None], ("conv3_2", "conv1_2"))
    assert list(two) == ["conv1_2", "conv3_2"] and torch.equal(two["conv3_2"], whole["conv3_2"])
    passed = []
    hooks = [layer.register_forward_hook(lambda *_: passed.append(1)) for layer in net.features]
    net(x, ["conv1_2"])
    for hook in hooks:
        hook.remove()
    assert len(passed) == 4, "what lies behind is not computed"


def test_gradients_flow_through_the_network_into_the_picture(net):
    import copy

    x = data.photo("cat", 32).double().requires_grad_()
    copy.deepcopy(net).double()(x, "conv2_1")["conv2_1"].sum().backward()
    assert x.grad.abs().max() > 0 and all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("x, layers, says", [
    (torch.zeros(3, 15, 32), LAYERS, "16 x 16"), (torch.zeros(1, 32, 32), LAYERS, "RGB"), (torch.zeros(32, 32), LAYERS, "RGB"),
    (torch.zeros(3, 32, 32, dtype=torch.uint8), LAYERS, "divide by 255"), (torch.zeros(3, 32, 32).double(), LAYERS, "net.double"),
    (torch.zeros(3, 32, 32), "conv5_2", "unknown layer"), (torch.zeros(3, 32, 32), (), "unknown layer"), (torch.zeros(3, 32, 32), ["conv1_1", "relu"], "unknown layer")])
def test_the_network_refuses_what_it_cannot_see(net, x, layers, says):
    with pytest.raises(ValueError, match=says):
        net(x, layers)


def test_the_kinds_of_networks(monkeypatch, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    x = data.photo("cat", 32)
    one, two = feature_net("random"), feature_net("random")
    assert torch.equal(torch.get_rng_state(), before), "the reader's random numbers stay as they are"
    assert torch.equal(one(x)["conv5_1"], two(x)["conv5_1"]) and not torch.allclose(one(x)["conv5_1"], feature_net()(x)["conv5_1"], atol=0.01)
    for kind in ("vgg16", None, ""):
        with pytest.raises(ValueError, match='"bundled", "vgg19" or "random"'):
            feature_net(kind)
    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setitem(data.SOURCES, "vgg19", dataclasses.replace(data.SOURCES["vgg19"], urls=("http://127.0.0.1:9/",)))
    with pytest.raises(data.DataError, match="VGG-19 for ImageNet.*could not be downloaded"):
        feature_net("vgg19")


def test_vgg19_is_loaded_by_name_and_calibrated(monkeypatch, tmp_path):
    """With random weights under the names of torchvision's file, its last convolutions and classifier included."""
    g = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(v.shape, generator=g) * 0.05 for name, v in FeatureNet(64).state_dict().items()}
    torch.save(weights | {"features.30.weight": torch.zeros(2), "classifier.0.bias": torch.zeros(2)}, tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    name = f"vgg19-{digest[:8]}.pth"
    (tmp_path / "vgg19").mkdir()
    (tmp_path / "w.pth").rename(tmp_path / "vgg19" / name)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setitem(data.SOURCES, "vgg19", dataclasses.replace(data.SOURCES["vgg19"], checksums={name: f"sha256:{digest[:8]}"}))
    assert data.SOURCES["vgg19"].urls[0].startswith("https://download.pytorch.org/")
    net = feature_net("vgg19")
    assert [c.out_channels for c in net.features if isinstance(c, torch.nn.Conv2d)] == [64, 64, 128, 128] + [256] * 4 + [512] * 5
    assert all(abs(a.mean() - 1) < 1e-3 for a in net(calibration()).values())
    first = net.features[0].weight / weights["features.0.weight"]
    assert torch.allclose(first, first.mean(), rtol=1e-4), "one factor for the whole layer"


def test_every_layer_answers_with_mean_activation_near_1(maker):
    parts = [maker.split(x)[0] for x in maker.classes().values()]
    x = torch.cat([maker.batch(parts, torch.Generator().manual_seed(k))[0] for k in range(2)])
    with torch.no_grad():
        means = [a.mean().item() for a in forward(data.feature_weights(), x)]
    assert all(0.8 < m < 1.25 for m in means), means


def test_the_record_of_the_training_is_that_of_the_script(maker):
    about = json.loads((ROOT / "data/features.json").read_text(encoding="utf-8"))
    assert about["classes"] == list(maker.classes()) and about["held_out"] == list(maker.HELD_OUT)
    assert (about["steps"], about["batch"]) == (maker.STEPS, maker.BATCH) and np.isclose(about["chance"], 1 / len(about["classes"]))
    assert about["test_accuracy_of_photo"] >= about["test_accuracy"] > 10 * about["chance"]
    assert not any(name.split()[0] in maker.HELD_OUT for name in about["classes"])


def test_folding_the_normalisation_changes_nothing_but_the_scale(maker):
    torch.manual_seed(0)
    net = maker.network(5).double()
    for layer in net:
        if isinstance(layer, torch.nn.BatchNorm2d):
            for v, low, high in ((layer.running_mean, -1, 1), (layer.running_var, 0.5, 2), (layer.weight.data, 0.5, 2), (layer.bias.data, -1, 1)):
                v.uniform_(low, high)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        theirs, ours = net.eval()[:-4](x), forward(maker.folded(net, x), x)
    assert len(ours) == 13 and all(abs(a.mean().item() - 1) < 1e-9 for a in ours)
    assert torch.allclose(theirs / theirs.mean(), ours[-1], atol=1e-9)


def test_training_and_test_patches_never_overlap(maker):
    marked = torch.arange(160 * 80.0).reshape(1, 160, 80).expand(3, -1, -1)
    train, test = maker.split(marked)
    assert train.max() < test.min() and train.shape[1] + test.shape[1] == 160


def test_a_short_training_writes_what_the_loader_reads(maker, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(maker, "BATCH", 4)
    monkeypatch.setattr(maker, "accuracy", lambda *args: (0.5, 0.5, 1))
    maker.main(tmp_path, steps=20)
    before = data.feature_weights()
    monkeypatch.setattr(data, "DATA", tmp_path)
    after = data.feature_weights()
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
