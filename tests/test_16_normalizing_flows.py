"""Notebook 16: its public layers on inputs the page does not show, and its data preparation broken on purpose."""

import ast

import pytest
import torch

from helpers import CheckFailed
from tests.book import book

BOOK = book("16")


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


LAYERS = {"ActNorm": lambda nb: nb["ActNorm"](4), "AffineCoupling": lambda nb: nb["AffineCoupling"](4, [1, 0, 1, 0], 8),
          "MAF": lambda nb: nb["MaskedAutoregressiveFlow"](4, 8), "IAF": lambda nb: nb["InverseAutoregressiveFlow"](4, 8)}
layers = pytest.mark.parametrize("layer", LAYERS)


@layers
def test_both_directions_refuse_another_dimension(nb, layer):
    made = LAYERS[layer](nb)
    for direction in (made.forward, made.inverse):
        for shape in ((2, 3), (2, 5), (2, 1), ()):
            with pytest.raises(ValueError, match="expected points of 4 components"):
                direction(torch.zeros(shape))


@layers
def test_an_empty_batch_has_no_densities(nb, layer):
    flow = nb["Flow"]([LAYERS[layer](nb)], nb["standard_normal"](4, torch.zeros(1)))
    assert flow.log_prob(torch.zeros(0, 4)).shape == (0,) and flow.inverse(torch.zeros(0, 4)).shape == (0, 4)


@layers
def test_views_that_are_not_contiguous(nb, layer):
    made, x = LAYERS[layer](nb), torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(made(x.T)[0], made(x.T.contiguous())[0])


def test_every_flow_keeps_its_own_base(nb):
    base = nb["standard_normal"](2, torch.zeros(1))
    one, two = (nb["Flow"]([nb["ActNorm"](2)], base) for _ in range(2))
    two.double()
    assert one.sample(1).dtype == torch.float32 and two.sample(1).dtype == torch.float64
    assert base.sample().dtype == torch.float32, "the caller's distribution is left alone"


def test_actnorm_of_a_constant_component_and_of_one_point(nb):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    x[:, 1] = 7
    z, logdet = nb["ActNorm"](3).initialize(x)(x)
    assert z.isfinite().all() and logdet.isfinite().all() and torch.equal(z[:, 1], torch.zeros(64))
    assert torch.equal(nb["ActNorm"](3).initialize(x[:1])(x[:1])[0], torch.zeros(1, 3))
    for bad in (x[:0], x[:, :1], x[0], torch.where(x == 7, torch.nan, x), x * torch.inf):
        with pytest.raises(ValueError):
            nb["ActNorm"](3).initialize(bad)


def test_pixels_may_be_bytes(nb):
    layer, bytes_ = nb["LogitPixels"](), torch.tensor([[0, 1, 128, 255]], dtype=torch.uint8)
    for ours, wanted in zip(layer(bytes_), layer(bytes_.float())):
        assert torch.allclose(ours, wanted) and ours.isfinite().all()
    levels = nb["dequantize"](bytes_, torch.Generator().manual_seed(0))
    assert torch.equal(levels.floor(), bytes_.float()) and bytes_.dtype == torch.uint8


def test_dequantisation_never_reaches_the_next_level(nb):
    x = torch.full((200_000,), 255.0)
    y = nb["dequantize"](x, torch.Generator().manual_seed(3))
    assert (y < 256).all() and (y >= 255).all()


def test_the_threshold_of_what_people_have(nb):
    threshold, inf = nb["density_threshold"], torch.inf
    assert threshold(torch.cat([torch.full((6,), -inf), torch.zeros(94)]), 0.05) == -inf
    assert threshold([-inf, -3.0, -2.0, -1.0], 0.4) == -3
    assert abs(float(threshold(torch.rand(17_000_000, generator=torch.Generator().manual_seed(0)), 0.05)) - 0.05) < 1e-3
    for bad in (torch.zeros(0), torch.tensor([0.0, torch.nan])):
        with pytest.raises(ValueError, match="none of them NaN"):
            threshold(bad, 0.05)


BROKEN = {
    "a test set out of the training set": ("pix_test = rest[:N_TEST]", "pix_test = pix_train[:N_TEST]"),
    "a validation set out of the training set": ("digits[N_TRAIN:N_TRAIN + N_VAL]", "digits[:N_VAL]"),
    "pixels scaled twice": ("digits = flat_pixels(DATA)", "digits = flat_pixels(DATA) / 255"),
    "half the noise": ("torch.rand(x.shape, generator=generator)", "0.5 * torch.rand(x.shape, generator=generator)"),
    "noise of width two": ("torch.rand(x.shape, generator=generator)", "2 * torch.rand(x.shape, generator=generator)"),
    "no noise": ("torch.rand(x.shape, generator=generator)", "torch.zeros(x.shape)"),
    "noise before the level": ("y = x + torch.rand", "y = x - torch.rand"),
}


def preparation(notebook):
    """Run the cells that prepare the digits, with their checks, and nothing of the training before them."""
    first = next(k for k, n in enumerate(notebook.statements) if ast.unparse(n).startswith("digits = flat_pixels(DATA)"))
    last = next(k for k, n in enumerate(notebook.statements) if "levels run from 0 to 255" in ast.unparse(n))
    namespace = notebook.definitions()
    namespace["device"] = torch.device("cpu")
    return notebook.run(notebook.statements[first:last + 1], namespace)


def test_the_data_preparation_as_it_stands():
    said = preparation(BOOK)[1]
    assert said.count("✓ (16.22)") == 2 and said.count("•") == 2


@pytest.mark.parametrize("what", BROKEN)
def test_broken_data_preparation_is_noticed(what):
    with pytest.raises(CheckFailed):
        preparation(BOOK.with_source(*BROKEN[what]))
