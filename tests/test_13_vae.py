"""Notebook 13: its public functions on inputs the page does not show, and its claims against broken data preparation."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import distributions as td

from helpers import CheckFailed
from tests.book import book

BOOK = book("13")


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


# --- numbers that rounding loses ---------------------------------------------------------------------------------------

def test_kl_is_never_negative_and_exact_near_the_prior(nb):
    logvar = torch.linspace(-1e-3, 1e-3, 2001)[:, None]
    kl = nb["kl_diag_gaussian"](torch.zeros_like(logvar), logvar)
    exact = 0.5 * (torch.expm1(logvar.double()) - logvar.double()).squeeze(1)
    assert (kl >= 0).all() and torch.allclose(kl.double(), exact, rtol=1e-3, atol=1e-11)
    logvar.requires_grad_()
    nb["kl_diag_gaussian"](torch.zeros_like(logvar), logvar).sum().backward()
    assert torch.allclose(logvar.grad, torch.expm1(logvar.detach()) / 2, atol=1e-7)


@pytest.mark.parametrize("kind", [torch.float16, torch.int64, torch.float64])
def test_kl_of_other_types(nb, kind):
    mu, logvar = torch.tensor([[1, -2]], dtype=kind), torch.tensor([[0, 2]], dtype=kind)
    expected = td.kl_divergence(td.Normal(mu.double(), (logvar.double() / 2).exp()), td.Normal(0.0, 1.0)).sum(-1)
    assert torch.allclose(nb["kl_diag_gaussian"](mu, logvar).double(), expected, rtol=1e-6)
    assert torch.allclose(nb["kl_diag_gaussian"](mu.numpy(), logvar.numpy()).double(), expected, rtol=1e-6)


def test_density_of_very_narrow_clouds(nb):
    one = torch.ones(3, 1)
    assert nb["log_normal"](one, one, one * -110).tolist() == pytest.approx([-0.5 * (math.log(2 * math.pi) - 110)] * 3, rel=1e-6)


def test_weights_of_very_narrow_clouds_keep_their_noise(nb):
    """The encoder's density comes from the noise: z - mu rounds to 0 here, and the mean of log q would be half a nat off."""
    model = nb["VAE"](4, 3, 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.encoder[-1].bias.copy_(torch.tensor([1.0, -40.0]))
        log_w = nb["log_weights"](model, torch.zeros(1, 4), 20_000, nb["rng"](0))
    prior = scipy.stats.norm.logpdf(1.0)
    expected = 4 * math.log(0.5) + prior + 0.5 * (math.log(2 * math.pi) - 40 + 1)
    assert log_w.mean().item() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_with_confident_logits(nb, dtype):
    logits = torch.tensor([[-90.0, -21, -1, 0, 1, 21, 90]], dtype=dtype).T.requires_grad_()
    for x in (0.0, 0.25, 1.0):
        pixels = torch.full_like(logits, x).detach()
        wide = logits.detach().double()
        expected = (x * torch.nn.functional.logsigmoid(wide) + (1 - x) * torch.nn.functional.logsigmoid(-wide)).squeeze(1)
        found = nb["bernoulli_log_likelihood"](pixels, logits)
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-45)
        [slope] = torch.autograd.grad(found.sum(), logits)
        assert torch.allclose(slope.double(), x - torch.sigmoid(wide), atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bernoulli_refuses_logits_that_are_no_numbers(nb, bad):
    with pytest.raises(ValueError, match="diverge"):
        nb["bernoulli_log_likelihood"](torch.ones(1, 2), torch.tensor([[bad, 0.0]]))


def test_gradient_by_a_learned_width(nb):
    sd = torch.tensor(0.5, requires_grad=True)
    value = nb["gaussian_log_likelihood"](torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2), sd)
    assert value.item() == pytest.approx(scipy.stats.norm.logpdf([1, 2], 0, 0.5).sum(), rel=1e-5)
    [slope] = torch.autograd.grad(value.sum(), sd)
    assert slope.item() == pytest.approx(5 / 0.5**3 - 2 / 0.5, rel=1e-5)


def test_discrete_kl(nb):
    kl = nb["kl_discrete"]
    assert kl([0.5, 0.5, 0.0], [0.25, 0.75, 0.0]).item() == pytest.approx(scipy.stats.entropy([0.5, 0.5], [0.25, 0.75]), rel=1e-6)
    assert kl([0.5, 0.5], [1.0, 0.0]) == math.inf
    near = torch.rand(500, 4, generator=nb["rng"](1)) + 0.5
    near = near / near.sum(-1, keepdim=True)
    tilted = near * (1 + 1e-6 * torch.tensor([1.0, -1, 1, -1]))
    assert (kl(near, tilted / tilted.sum(-1, keepdim=True)) >= 0).all()
    for q, p in (([2.0, 3.0], [0.5, 0.5]), ([1.5, -0.5], [0.5, 0.5]), ([math.nan, 1.0], [0.5, 0.5]), ([0.5, 0.5], [1.0])):
        with pytest.raises(ValueError, match="probabilities"):
            kl(q, p)


# --- refusals ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("bad", [torch.full((4, 3), math.nan), torch.full((4, 3), math.inf), torch.zeros(1, 3), torch.zeros(0, 3),
                                 torch.zeros(4, 2), torch.zeros(4)])
def test_frechet_distance_refuses_instead_of_killing_the_kernel(nb, bad):
    good = nb["normal"](nb["rng"](0), 6, 3)
    for a, b in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match="a and b must be"):
            nb["frechet_distance"](a, b)


def test_frechet_distance_of_bytes_and_of_one_column(nb):
    rows = torch.randint(0, 256, (40, 3), generator=nb["rng"](2), dtype=torch.uint8)
    assert nb["frechet_distance"](rows, rows.flip(0)).item() == pytest.approx(0, abs=0.5)
    a, b = rows[:, :1].double(), 2 * rows[:, :1].double()
    assert nb["frechet_distance"](a, b).item() == pytest.approx((a.mean() ** 2 + a.std() ** 2).item(), rel=1e-9)


REFUSED = {
    "kl shapes": ("kl_diag_gaussian", lambda n: (torch.zeros(2, 3), torch.zeros(2, 1)), "both be"),
    "reparametrize shapes": ("reparametrize", lambda n: (torch.zeros(2, 3), torch.zeros(3)), "one shape"),
    "log_normal widths": ("log_normal", lambda n: (torch.zeros(2, 3), torch.zeros(2, 1), torch.zeros(2, 3)), "end in one d"),
    "gaussian column": ("gaussian_log_likelihood", lambda n: (torch.zeros(2, 3), torch.zeros(2, 1), 1.0), "one D"),
    "gaussian sd": ("gaussian_log_likelihood", lambda n: (torch.zeros(2, 3), torch.zeros(2, 3), 0.0), "sd must be positive"),
    "bernoulli bytes": ("bernoulli_log_likelihood", lambda n: (torch.full((2, 3), 255, dtype=torch.uint8), torch.zeros(2, 3)), "255"),
    "binarise bytes": ("binarise", lambda n: (torch.full((2, 3), 9, dtype=torch.uint8), n["rng"](0)), "255"),
    "binarise NaN": ("binarise", lambda n: (torch.full((2, 3), math.nan), n["rng"](0)), "NaN"),
    "wiener NaN": ("wiener_filter", lambda n: (torch.full((2, 2), math.nan), 1.0), "finite"),
    "wiener sd": ("wiener_filter", lambda n: (torch.eye(2), math.nan), "noise_sd must be positive"),
    "risk sizes": ("linear_denoising_risk", lambda n: (torch.eye(2), torch.eye(3), 1.0), "one size"),
    "optimum NaN": ("linear_vae_optimum", lambda n: (torch.full((2, 2), math.nan), 1.0, 1), "finite"),
    "optimum d": ("linear_vae_optimum", lambda n: (torch.eye(2), 1.0, 3), "between 1 and D"),
    "posterior shapes": ("linear_posterior", lambda n: (torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(1), 1.0), "x, W, b"),
    "mle nothing": ("normal_mle", lambda n: (torch.zeros(0),), "n >= 1"),
    "tile": ("tile", lambda n: (torch.zeros(5, 784), 2), "multiple"),
    "elbo draws": ("elbo", lambda n: (n["VAE"](6, 8, 2), torch.zeros(2, 6), 0), "n_samples"),
    "elbo bytes": ("elbo", lambda n: (n["VAE"](6, 8, 2), torch.full((2, 6), 255, dtype=torch.uint8)), "255"),
    "elbo image": ("elbo", lambda n: (n["VAE"](784, 8, 2), torch.zeros(2, 28, 28)), "flatten"),
    "bound chunk": ("iwae_bound", lambda n: (n["VAE"](6, 8, 2), torch.zeros(2, 6), 3, None, n["bernoulli_log_likelihood"], 0), "chunk"),
    "loss of one column": ("denoising_loss", lambda n: (lambda v: v[:, :1], torch.zeros(2, 3), torch.zeros(2, 3)), "must return"),
    "score of a column": ("score_gradient", lambda n: (lambda z: z[:, :1], torch.zeros(2), torch.ones(2), torch.zeros(5, 2)), "per row"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_a_reason(nb, case):
    name, arguments, reason = REFUSED[case]
    with pytest.raises(ValueError, match=reason):
        nb[name](*arguments(nb))


# --- what people have --------------------------------------------------------------------------------------------------

def test_empty_batches_stay_empty(nb):
    model, none = nb["VAE"](6, 8, 2), torch.zeros(0, 6)
    assert nb["elbo"](model, none).shape == nb["iwae_bound"](model, none, 3).shape == (0,)
    assert nb["bernoulli_log_likelihood"](none, none).shape == (0,)
    assert nb["binarise"](none, nb["rng"](0)).shape == (0, 6)
    assert nb["kl_diag_gaussian"](none, none).shape == (0,)


@pytest.mark.parametrize("cast", [lambda x: x.numpy(), lambda x: x.to(torch.uint8), lambda x: x.bool(), lambda x: x.half(),
                                  lambda x: x.double(), lambda x: torch.stack([x, x], -1)[..., 0]])
def test_the_bounds_take_any_type_of_bits_and_leave_them_alone(nb, cast):
    torch.manual_seed(0)
    model, bits = nb["VAE"](6, 8, 2), (torch.rand(4, 6) < 0.5).float()
    given = cast(bits)
    before = given.copy() if isinstance(given, np.ndarray) else given.clone()
    for bound in ("elbo", "iwae_bound"):
        expected = nb[bound](model, bits, 3, nb["rng"](1))
        assert torch.allclose(nb[bound](model, given, 3, nb["rng"](1)), expected, rtol=1e-6)
    assert (torch.as_tensor(given) == torch.as_tensor(before)).all()


def test_noise_on_bytes_is_not_wrapped(nb):
    bytes_ = torch.full((2, 500), 200, dtype=torch.uint8)
    noisy = nb["corrupt"](bytes_, 100.0, nb["rng"](0))
    assert noisy.dtype == torch.float32 and (noisy > 255).any() and noisy.mean().item() == pytest.approx(200, abs=15)
    assert nb["denoising_loss"](lambda v: v, bytes_ * 0, bytes_ * 0 + 20).item() == 400 * 500


# --- the split ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def stand_in(nb, monkeypatch):
    """MNIST's training set, of which the bundled digits are a part: here with a thousand other images."""
    data = nb["data"]
    real, bundled = data.digits, data.digits("bundled")
    more = torch.randint(0, 256, (1000, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    full = data.Digits(torch.cat([bundled.image, more]), torch.cat([bundled.label, bundled.label[:1000]]))

    def digits(source="bundled"):
        if source == "mnist-test":
            raise data.DataError("not to be had")
        return full if source == "mnist-train" else real(source)

    monkeypatch.setattr(data, "digits", digits)
    return nb


@pytest.mark.parametrize("train, test", [("bundled", "bundled"), ("mnist-train", "bundled"), ("bundled", "mnist-train"),
                                         ("mnist-train", "mnist-train"), ("bundled", "mnist-test"), ("mnist-train", "mnist-test")])
@pytest.mark.parametrize("n_train, n_test", [(4000, 500), (60_000, 500), (10, 1), (5000, 4000)])
def test_splits_are_disjoint_and_not_empty(stand_in, train, test, n_train, n_test):
    x, held_out, label, _, name = stand_in["digits"](train, test, n_train, n_test)
    assert 0 < len(x) == len(label) <= n_train and 0 < len(held_out) <= n_test
    assert not {row.numpy().tobytes() for row in x} & {row.numpy().tobytes() for row in held_out}
    assert x.min() >= 0 and x.max() <= 1
    assert ("not to be had" in name) == (test == "mnist-test")


def test_a_folder_that_cannot_be_written_is_replaced(nb, monkeypatch):
    def refused(source):
        if source != "bundled":
            raise PermissionError("read-only")
        return real(source)

    real = nb["data"].digits
    monkeypatch.setattr(nb["data"], "digits", refused)
    assert "mnist-train not to be had" in nb["digits"]("mnist-train", "bundled", 100, 10)[3]


def test_a_split_without_training_digits_is_refused(nb):
    with pytest.raises(ValueError, match="reduce N_TEST"):
        nb["digits"]("bundled", "bundled", 100, 5000)


# --- claims about the data must notice broken preparation ----------------------------------------------------------------

PREPARATION = [
    ("held_out = held_out[:n_test]", "held_out = held_out[:n_test]; return pool[:n_train], pool[:n_test], label[:n_train], name, test_name",
     "no test digit"),
    ("float() / 255, found", "float() / 256, found", "grey values"),
]


@pytest.mark.parametrize("old, new, noticed", PREPARATION)
def test_broken_data_preparation_is_noticed(old, new, noticed):
    broken = BOOK.with_source(old, new)
    import ast
    target, = (n for n in broken.statements if isinstance(n, ast.Expr) and f"claim('{noticed}" in ast.unparse(n))
    with pytest.raises(CheckFailed):
        broken.run(broken.needed([target]))


def test_bits_and_noise_have_their_law(nb):
    level = torch.linspace(0.05, 0.95, 10).repeat(20_000, 1)
    rate = nb["binarise"](level, nb["rng"](3)).mean(0)
    assert torch.allclose(rate, level[0], atol=0.02)
    noise = nb["corrupt"](level, 0.5, nb["rng"](4)) - level
    assert scipy.stats.kstest(noise.flatten()[:20_000].numpy(), "norm", (0, 0.5)).pvalue > 1e-3
