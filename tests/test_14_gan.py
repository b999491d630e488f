"""Notebook 14: its public functions on inputs the page does not show, and its checks against wrong formulas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon
from torch import nn

from tests.book import book, wrong_variant_tests

BOOK = book("14")
DOUBLE = torch.float64


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def refused(function, *arguments, match, **options):
    with pytest.raises(ValueError, match=match):
        function(*arguments, **options)


# --- losses --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [lambda a: a, lambda a: a[:, None]])
def test_losses_are_cross_entropies_of_batches_that_may_differ_in_size(nb, shape):
    real, fake = torch.randn(7, dtype=DOUBLE), torch.randn(4, dtype=DOUBLE)
    bce = F.binary_cross_entropy_with_logits
    d_loss, g_loss = nb["gan_losses"](shape(real), fake)
    assert d_loss.shape == g_loss.shape == ()
    assert torch.isclose(d_loss, bce(real, torch.ones(7, dtype=DOUBLE)) + bce(fake, torch.zeros(4, dtype=DOUBLE)))
    assert torch.isclose(g_loss, bce(fake, torch.ones(4, dtype=DOUBLE)))
    assert torch.isclose(nb["gan_losses"](real, shape(fake), "saturating")[1], torch.log(1 - torch.sigmoid(fake)).mean())


def test_losses_are_exact_at_huge_logits(nb):
    huge = torch.tensor([1000.0, -1000.0])
    for kind, expected in (("saturating", -500.0), ("non_saturating", 500.0)):
        d_loss, g_loss = nb["gan_losses"](huge, huge, kind)
        assert d_loss == 1000 and g_loss == expected
    leaf = torch.tensor([-1000.0, 1000.0], requires_grad=True)
    for kind, expected in (("saturating", [0.0, -0.5]), ("non_saturating", [-0.5, 0.0])):
        assert torch.autograd.grad(nb["gan_losses"](huge, leaf, kind)[1], leaf)[0].tolist() == expected
    middle = torch.tensor([21.0], dtype=DOUBLE)
    assert nb["gan_losses"](middle, middle)[1].item() == pytest.approx(math.log1p(math.exp(-21)), rel=1e-12)


def test_the_real_term_reaches_no_generator(nb):
    real, fake = (torch.randn(3, requires_grad=True) for _ in range(2))
    for kind in ("saturating", "non_saturating"):
        assert torch.autograd.grad(nb["gan_losses"](real, fake, kind)[1], real, allow_unused=True)[0] is None


def test_losses_refuse_what_they_cannot_use(nb):
    good = torch.zeros(3)
    refused(nb["gan_losses"], good, good, "hinge", match="kind must be")
    refused(nb["gan_losses"], good, torch.tensor([0.0, math.nan]), match="fake_logits must hold real numbers")
    refused(nb["gan_losses"], good[:0], good, match="real_logits must hold")
    refused(nb["gan_losses"], torch.zeros(3, 2), good, match=r"\(B,\) or \(B, 1\)")
    refused(nb["gan_losses"], torch.tensor(0.0), good, match=r"\(B,\) or \(B, 1\)")


# --- finite supports -----------------------------------------------------------------------------------------------------

P, Q = [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]


def test_best_judge_on_densities_of_every_size(nb):
    D = nb["optimal_discriminator"]
    assert torch.allclose(D([1.0, 0.0, 3.0], [1.0, 2.0, 0.0]), torch.tensor([0.5, 0, 1], dtype=DOUBLE))
    assert D(1e308, 1e308) == 0.5 and D(5e-324, 5e-324) == 0.5 and D(1e-300, 3e-300) == pytest.approx(0.25)
    assert D([0.0, 1.0], [0.0, 1.0]).isnan().tolist() == [True, False]
    assert D(torch.rand(2, 3, 4), torch.rand(2, 3, 4)).shape == (2, 3, 4)
    refused(D, [1.0], [-1.0], match="not negative")
    refused(D, [math.inf], [1.0], match="finite")
    refused(D, [1.0, 2.0], [1.0], match="shapes differ")
    refused(D, [math.nan], [1.0], match="NaN")
    refused(D, [], [], match="at least one")


def test_jsd_is_scipys_batched_and_never_negative(nb):
    jsd = nb["jensen_shannon"]
    p, q = torch.softmax(torch.randn(2, 5, 4, 6, dtype=DOUBLE), -1)
    assert jsd(p, q).shape == (5, 4)
    assert np.allclose(jsd(p, q), jensenshannon(p.numpy(), q.numpy(), axis=-1) ** 2, atol=1e-14)
    assert jsd([1.0, 0.0], [0.0, 1.0]) == pytest.approx(math.log(2)) and jsd(P, P) == 0
    assert jsd([1.0, 0.0], [1.0, 0.0]) == 0 and torch.isfinite(jsd([0.5, 0.5, 0.0], [0.5, 0.5, 0.0]))
    near = torch.tensor(P, dtype=DOUBLE) + torch.tensor([1e-9, -1e-9, 0.0], dtype=DOUBLE)
    assert jsd(P, near).item() == pytest.approx(1e-18 / 8 * (1 / 0.5 + 1 / 0.3), rel=1e-6)
    assert torch.equal(jsd(p, q), jsd(q, p))


def test_loss_on_a_finite_support(nb):
    loss = nb["game_loss"]
    best = nb["optimal_discriminator"](P, Q)
    assert loss(P, Q, best).item() == pytest.approx(1.205, abs=1e-3)
    assert loss(P, Q, 1 - best).item() == pytest.approx(1.960, abs=1e-3)
    assert loss(P, Q, [1e-9] * 3).item() == pytest.approx(20.7, abs=0.03)
    assert loss(P, Q, [0.0, 0.5, 0.5]) == math.inf and loss(P, Q, [0.5, 0.5, 1.0]) == math.inf
    assert loss([1.0, 0.0], [0.0, 1.0], [1.0, 0.0]) == 0
    nowhere = nb["optimal_discriminator"]([0.5, 0.5, 0.0], [1.0, 0.0, 0.0])
    assert nowhere[2].isnan() and loss([0.5, 0.5, 0.0], [1.0, 0.0, 0.0], nowhere).isfinite()
    p, q = torch.softmax(torch.randn(2, 5, 4, 6, dtype=DOUBLE), -1)
    assert loss(p, q, torch.rand(5, 4, 6, dtype=DOUBLE)).shape == (5, 4)


@pytest.mark.parametrize("name, more", [("jensen_shannon", ()), ("game_loss", ([0.5] * 3,))])
def test_probabilities_are_checked(nb, name, more):
    f = nb[name]
    refused(f, [0.5, 0.3, 0.1], Q, *more, match="sums to 0.9")
    refused(f, P, [0.5, 0.7, -0.2], *more, match="none of them negative")
    refused(f, P, [0.5, math.nan, 0.2], *more, match="NaN")
    refused(f, P, [0.5, 0.5], *more, match="shapes differ")
    refused(f, [], [], *more, match="at least one")
    refused(f, 1.0, 1.0, *more, match=r"\(\.\.\., n\)")


def test_verdicts_are_checked(nb):
    refused(nb["game_loss"], P, Q, [0.5, 1.1, 0.5], match=r"D must be probabilities in \[0, 1\]")
    refused(nb["game_loss"], P, Q, [0.5, -0.1, 0.5], match=r"D must be probabilities")
    refused(nb["game_loss"], P, Q, [0.5, math.nan, 0.5], match="NaN")
    refused(nb["game_loss"], P, Q, [0.5], match="shapes differ")


def test_the_bound_holds_for_any_judge(nb):
    p, q = torch.softmax(torch.randn(2, 100, 5, dtype=DOUBLE), -1)
    bound = math.log(2) - nb["game_loss"](p, q, torch.rand(100, 5, dtype=DOUBLE)) / 2
    assert (bound <= nb["jensen_shannon"](p, q)).all()


# --- nets ----------------------------------------------------------------------------------------------------------------

def test_nets_have_two_hidden_layers_and_the_shapes_they_promise(nb):
    G, D = nb["Generator"](3, 8, 5), nb["Discriminator"](5, 7)
    assert G(torch.zeros(4, 3)).shape == (4, 5) and D(torch.zeros(4, 5)).shape == (4,) and D(torch.zeros(1, 5)).shape == (1,)
    for net, widths in ((G, [8, 8, 5]), (D, [7, 7, 1])):
        assert [m.out_features for m in net.modules() if isinstance(m, nn.Linear)] == widths
    assert (G(100 * torch.randn(50, 3)).abs() > 1).any(), "the output is linear"
    for bad in (0, -1, 1.5):
        refused(nb["Generator"], 3, bad, 5, match="whole numbers")
        refused(nb["Discriminator"], bad, 5, match="whole numbers")


def test_r1_of_known_functions(nb):
    x = torch.randn(6, 3, dtype=DOUBLE)
    w = torch.tensor([1.0, -2.0, 2.0], dtype=DOUBLE, requires_grad=True)
    assert nb["r1_penalty"](lambda x: x @ w, x).item() == pytest.approx(9)
    assert nb["r1_penalty"](lambda x: (x @ w)[:, None], x).item() == pytest.approx(9)
    quadratic = nb["r1_penalty"](lambda x: (x**2).flatten(1).sum(1) * w[0], x.reshape(6, 1, 3, 1))
    assert quadratic.item() == pytest.approx(4 * x.square().sum(1).mean().item())
    slope, = torch.autograd.grad(nb["r1_penalty"](lambda x: x @ w, x), w)
    assert torch.allclose(slope, 2 * w)
    assert nb["r1_penalty"](lambda x: x * w[1], x[:, 0]).item() == pytest.approx(4)
    refused(nb["r1_penalty"], lambda x: x, torch.zeros(0, 3), match="at least one")
    refused(nb["r1_penalty"], lambda x: x, torch.tensor([[math.nan]]), match="NaN")
    refused(nb["r1_penalty"], lambda x: x, torch.tensor(1.0), match="batch")


def test_r1_takes_bytes_and_leaves_its_input_alone(nb):
    D, x = nb["Discriminator"](4, 8), torch.randint(0, 255, (5, 4), dtype=torch.uint8)
    assert torch.allclose(nb["r1_penalty"](D, x), nb["r1_penalty"](D, x.float()))
    leaf = torch.randn(5, 4, requires_grad=True)
    nb["r1_penalty"](D, leaf).backward()
    assert leaf.grad is None and D.net[0].weight.grad is not None


def test_a_population_is_its_nets(nb):
    torch.manual_seed(0)
    nets = [nb["Discriminator"](3, 6, n_layers=3) for _ in range(4)]
    x = torch.randn(4, 5, 3)
    assert torch.allclose(nb["Population"](nets)(x), torch.stack([D(one) for D, one in zip(nets, x)]), atol=1e-6)
    one = nb["Population"]([nb["Generator"](2, 6, 3)])
    assert one(torch.randn(1, 5, 2)).shape == (1, 5, 3)


def test_a_step_of_g_follows_k_steps_of_d(nb):
    torch.manual_seed(0)
    for k in (1, 3):
        drawn, rounds = [], []
        G, D = nb["Generator"](2, 4, 2), nb["Discriminator"](2, 4)
        before = [w.detach().clone() for w in G.parameters()]
        nb["train_gan"](G, D, lambda: drawn.append(1) or torch.randn(5, 2), lambda: torch.randn(5, 2), 4, k=k, after=rounds.append)
        assert len(drawn) == 4 * k and rounds == [0, 1, 2, 3]
        assert all((w != old).any() for w, old in zip(G.parameters(), before))


def test_slopes_of_the_generators_loss_know_two_losses(nb):
    with pytest.raises(KeyError):
        nb["slopes_of_logit"](torch.zeros(2), "saturated")


# --- the Dirac-GAN -------------------------------------------------------------------------------------------------------

def test_paths_of_the_dirac_gan(nb):
    path = nb["dirac_gan"](1, -1, 0.1, 3)
    assert path.shape == (4, 2) and path.dtype == DOUBLE and path[0].tolist() == [1, -1]
    s = 1 / (1 + math.exp(1))
    assert path[1].tolist() == pytest.approx([1 - 0.1 * s, -1 - 0.1 * s])
    other = nb["dirac_gan"](1, -1, 0.1, 1, order="alternating", gamma=2.0)[1]
    psi = -1 - 0.1 * (s - 2)
    assert other.tolist() == pytest.approx([1 + 0.1 * psi / (1 + math.exp(-psi)), psi])
    assert nb["dirac_gan"](0, 0, 0.1, 5).abs().max() == 0 and nb["dirac_gan"](1, 1, 0.1, 0).shape == (1, 2)
    radius = nb["dirac_gan"](1e-4, 0, 0.5, 200).norm(dim=1)
    assert (radius[-1] / radius[0]).item() == pytest.approx((1 + 0.25 / 4) ** 100, rel=1e-3)
    assert nb["dirac_gan"](1, 1, 0.2, 2000, gamma=0.5)[-1].norm() < 1e-8
    assert nb["dirac_gan"](1.0, 1.0, 5.0, 2000).isfinite().all()


def test_the_dirac_gan_refuses(nb):
    f = nb["dirac_gan"]
    refused(f, 1, 1, 0.1, 5, "random", match="order must be")
    refused(f, math.nan, 1, 0.1, 5, match="NaN")
    refused(f, 1, 1, 0, 5, match="lr > 0")
    refused(f, 1, 1, 0.1, 5, gamma=-1, match="gamma >= 0")
    refused(f, 1, 1, 0.1, -1, match="n_steps")
    refused(f, 1, 1, 0.1, 2.5, match="n_steps")


# --- samples and coverage ------------------------------------------------------------------------------------------------

def test_samplers(nb):
    g = torch.Generator().manual_seed(0)
    x, mode = nb["ring_of_gaussians"](8000, g, n_modes=5, radius=2.0, sd=0.1)
    assert x.shape == (8000, 2) and mode.shape == (8000,) and set(mode.tolist()) == set(range(5))
    for j in range(5):
        centre = 2 * torch.tensor([math.cos(2 * math.pi * j / 5), math.sin(2 * math.pi * j / 5)])
        assert (x[mode == j].mean(0) - centre).abs().max() < 0.02 and abs(x[mode == j].std(0) - 0.1).max() < 0.01
    x, mode = nb["grid_of_gaussians"](5000, g)
    assert x.mean(0).abs().max() < 0.2 and set(mode.tolist()) == set(range(25))
    assert sorted({round(v, 0) for v in x.flatten().tolist()}) == [-4, -2, 0, 2, 4]
    one = nb["ring_of_gaussians"](5, torch.Generator().manual_seed(1))[0]
    assert torch.equal(one, nb["ring_of_gaussians"](5, torch.Generator().manual_seed(1))[0])
    for name in ("ring_of_gaussians", "grid_of_gaussians"):
        refused(nb[name], 10, g, sd=0.0, match="sd must be positive")
        refused(nb[name], 10, g, sd=-1.0, match="sd must be positive")
        refused(nb[name], 0, g, match="whole numbers")
    refused(nb["ring_of_gaussians"], 5, g, n_modes=0, match="whole numbers")


def test_coverage(nb):
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    samples = torch.tensor([[0.0, 0], [0.2, 0], [10, 0.29], [10, 0.31], [5, 5]])
    found = nb["mode_coverage"](samples, centres, 0.1)
    assert found._fields == ("n_modes", "high_quality", "counts", "reverse_kl")
    assert found.n_modes == 2 and found.high_quality == pytest.approx(3 / 5) and found.counts.tolist() == [2, 1, 0]
    assert found.reverse_kl == pytest.approx(2 / 3 * math.log(2) + 1 / 3 * math.log(1))
    border = nb["mode_coverage"](torch.tensor([[0.5, 0.0]]), centres, 0.25, n_sd=2)
    assert border.n_modes == 0 and border.high_quality == 0 and math.isnan(border.reverse_kl)
    assert nb["mode_coverage"](centres, centres, 0.1).reverse_kl == pytest.approx(0, abs=1e-12)
    f = nb["mode_coverage"]
    refused(f, samples, centres, 0.0, match="positive")
    refused(f, samples, torch.zeros(3, 3), 0.1, match="centres")
    refused(f, samples[:0], centres, 0.1, match="at least one")
    refused(f, torch.full((2, 2), math.nan), centres, 0.1, match="NaN")


# --- measures ------------------------------------------------------------------------------------------------------------

def test_effective_modes_take_any_numbers_and_no_nan(nb):
    centres = nb["ring_centres"]()
    for x in (centres.double()[:3], centres.numpy()[:3], centres[:3].tolist()):
        assert nb["effective_modes"](x, centres) == pytest.approx(3, rel=1e-6)
    refused(nb["effective_modes"], torch.full((4, 2), math.nan), centres, match="samples")
    refused(nb["effective_modes"], torch.zeros(0, 2), centres, match="samples")


def test_frechet_distance(nb):
    f = nb["frechet_distance"]
    A = torch.randn(4, 4, dtype=DOUBLE)
    S = A @ A.T
    assert f(A[0], S, A[0], S).item() == pytest.approx(0, abs=1e-12)
    assert f(torch.zeros(2), 4 * torch.eye(2), torch.tensor([3.0, 0]), torch.eye(2)).item() == pytest.approx(9 + 2)
    low = A[:, :1] @ A[:, :1].T                                     # rank one
    assert f(A[0], low, A[0], low).item() == pytest.approx(0, abs=1e-12)
    assert f(torch.zeros(4), low, torch.zeros(4), 0 * low).item() == pytest.approx(low.trace().item())
    batch = f(torch.stack([A[0], A[1]]), torch.stack([S, low]), torch.stack([A[2], A[3]]), torch.stack([low, S]))
    assert batch.shape == (2,) and batch.dtype == DOUBLE and torch.isclose(batch[1], f(A[1], low, A[3], S))
    x = torch.randn(30, 40)                                         # fewer samples than dimensions
    assert f(x.mean(0), torch.cov(x.T), x.mean(0), torch.cov(x.T)).item() == pytest.approx(0, abs=1e-5)


def test_frechet_distance_refuses(nb):
    f, mu, S = nb["frechet_distance"], torch.zeros(2), torch.eye(2)
    refused(f, mu, torch.tensor([[1.0, 0.5], [0.0, 1.0]]), mu, S, match="S1 is not symmetric")
    refused(f, mu, S, mu, torch.tensor([[1.0, 2.0], [2.0, 1.0]]), match="S2 has a negative eigenvalue")
    refused(f, mu, S, torch.zeros(3), S, match="shapes differ")
    refused(f, mu, S, mu, torch.eye(3), match="means")
    refused(f, mu, torch.full((2, 2), math.nan), mu, S, match="NaN")
    refused(f, mu, torch.ones(2), mu, S, match="covariance matrix")
    refused(f, mu[:0], S, mu[:0], S, match="at least one")


def test_precision_and_recall(nb):
    f = nb["precision_recall"]
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    assert f(real, torch.tensor([[0.5], [2.9], [5.0]]), k=1) == (1.0, 0.75)      # the ball of 10 reaches 2
    assert f(real[:3], torch.tensor([[3.01], [3.5], [4.0]]), k=1) == (0.0, 0.0)
    assert f(real, real.clone(), k=3) == (1.0, 1.0)
    copies = torch.zeros(5, 1)
    assert f(real, copies, k=3) == (1.0, 0.25)                                   # radius 0 around copies
    assert f(real[:3], real[:3] + 1, k=1) == (1.0, 1.0)                          # the border belongs to the ball
    assert f(np.zeros((3, 2)), torch.zeros(4, 2), k=2) == (1.0, 1.0)


def test_precision_and_recall_refuse(nb):
    f, x = nb["precision_recall"], torch.randn(5, 2)
    for k in (0, -1, 5, 2.5):
        refused(f, x, x, k, match="k must be")
    refused(f, x, x[:3], 3, match="k must be")
    refused(f, x, torch.randn(5, 3), match="features")
    refused(f, x[0], x, match="features")
    refused(f, x[:0], x, match="at least one")
    refused(f, x, torch.full((5, 2), math.nan), match="NaN")


def test_large_samples_are_split(nb):
    x, y = torch.randn(1500, 2, dtype=DOUBLE), torch.randn(1100, 2, dtype=DOUBLE)
    d = torch.cdist(y, x, compute_mode="donot_use_mm_for_euclid_dist")
    radius = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sort(1).values[:, 3]
    assert nb["precision_recall"](x, y)[0] == pytest.approx((d <= radius).any(1).double().mean().item())


# Wrong variants of each formula: where, what it becomes, and the equation whose check must notice.
MUTANTS = [
    ("log_loss = -(y * verdicts.log() + (1 - y)", "log_loss = (-y * verdicts.log() + (1 - y)", "14.1"),
    ("(1 - verdicts).log()).mean()", "(1 - verdicts).log()).sum()", "14.1"),
    ("d_loss = -F.logsigmoid(real_logits).mean(-1) - F.logsigmoid(-fake_logits)", "d_loss = -F.logsigmoid(-real_logits).mean(-1) - F.logsigmoid(fake_logits)", "14.2"),
    ("d_loss = -F.logsigmoid(real_logits).mean(-1) - F.logsigmoid(-fake_logits)", "d_loss = -F.logsigmoid(real_logits).mean(-1) + F.logsigmoid(-fake_logits)", "14.2"),
    ("return d_loss, F.logsigmoid(-fake_logits).mean(-1)", "return d_loss, -F.logsigmoid(-fake_logits).mean(-1)", "14.2"),
    ("return d_loss, -F.logsigmoid(fake_logits).mean(-1)", "return d_loss, -F.logsigmoid(-fake_logits).mean(-1)", "14.2"),
    ("torch.special.xlog1py(q, -D)).sum(-1)", "torch.special.xlog1py(q, -D)).mean(-1)", "14.2"),
    ("torch.special.xlogy(p, D) + torch.special.xlog1py(q, -D)", "torch.special.xlogy(q, D) + torch.special.xlog1py(p, -D)", "14.2"),
    ("return p / (p + q)", "return q / (p + q)", "14.3"),
    ("contrast = (p - q) / torch.where(total > 0, total, 1.0)", "contrast = (p - q) / torch.where(total > 0, 2 * total, 1.0)", "14.4"),
    ("return (halves.sum(-1) / 2).clamp(min=0)", "return halves.sum(-1).clamp(min=0)", "14.4"),
    ("return (halves.sum(-1) / 2).clamp(min=0)", "return (halves.sum(-1) / 2 / math.log(2)).clamp(min=0)", "14.4"),
    ("bound = math.log(2) - game_loss(p_many, q_many, D_any) / 2", "bound = math.log(2) - game_loss(p_many, q_many, D_any)", "14.5"),
    ("optimal_discriminator(share * p_any, (1 - share) * q_any)", "optimal_discriminator(p_any, q_any)", "14.6"),
    ("optimal_discriminator(share * p_any, (1 - share) * q_any)", "optimal_discriminator((1 - share) * p_any, share * q_any)", "14.6"),
    ("return theta * weight @ verdict, theta * weight @ (1 - verdict)", "return theta * weight @ (1 - verdict), theta * weight @ (1 - verdict)", "14.7"),
    ("expit(theta**2 / 2 - theta * x)", "expit(theta**2 / 2 + theta * x)", "14.7"),
    ("return theta * weight @ verdict, theta * weight @ (1 - verdict)", "return theta * weight @ verdict, theta * weight @ verdict", "14.8"),
    ("return math.log(2) + (r * math.log(r) - (1 + r) * math.log(1 + r)) / 2", "return math.log(2) + (r * math.log(r) - (1 + r) * math.log(1 + r))", "14.9"),
    ("* math.log(1 + r)) / 2, -math.log(r)", "* math.log(1 + r)) / 2, math.log(r)", "14.9"),
    ('return {"saturating": -torch.sigmoid(a), "non_saturating": -torch.sigmoid(-a)}[kind]', 'return {"saturating": -torch.sigmoid(-a), "non_saturating": -torch.sigmoid(a)}[kind]', "14.10"),
    ('return {"saturating": -torch.sigmoid(a), "non_saturating": -torch.sigmoid(-a)}[kind]', 'return {"saturating": torch.sigmoid(a), "non_saturating": torch.sigmoid(-a)}[kind]', "14.10"),
    ('factor = slopes_of_logit(fake_a.detach(), "saturating")', 'factor = slopes_of_logit(fake_a.detach(), "non_saturating")', "14.11"),
    ("(factor[:, None] * each_a).mean(0)", "(factor[:, None] * each_a).sum(0)", "14.11"),
    ('g_saturating = gan_losses(D(x_real), D(G(z)), "saturating")[1]', 'g_saturating = gan_losses(D(x_real), D(G(z)), "non_saturating")[1]', "14.12"),
    ("new_psi = psi - lr * (theta", "new_psi = psi + lr * (theta", "14.13"),
    ("* torch.sigmoid(psi * theta) + gamma * psi)", "* torch.sigmoid(psi * theta) - gamma * psi)", "14.13"),
    ("theta + lr * felt_psi * torch.sigmoid", "theta - lr * felt_psi * torch.sigmoid", "14.13"),
    ('felt_psi = new_psi if order == "alternating" else psi', 'felt_psi = psi if order == "alternating" else new_psi', "14.13"),
    ("derived = [[1 + lr / 2 * (-gamma", "derived = [[1 + lr / 2 * (gamma", "14.14"),
    ("np.emath.sqrt(gamma**2 - 1)", "1j * math.sqrt(abs(gamma**2 - 1))", "14.14"),
    ("[[1 - lr * gamma + lr**2 / 4] * 2", "[[1 - lr * gamma + lr**2 / 2] * 2", "14.14"),
    ("derived = [(1 - lr * gamma, 2 - lr * gamma - lr**2 / 4)", "derived = [(1 + lr * gamma, 2 - lr * gamma - lr**2 / 4)", "14.15"),
    ("slopes.reshape(len(x), -1).square().sum(1).mean()", "slopes.reshape(len(x), -1).square().mean()", "14.16"),
    ("slopes.reshape(len(x), -1).square().sum(1).mean()", "slopes.reshape(len(x), -1).square().sum(1).sqrt().mean()", "14.16"),
    ("loss + gamma / 2 * input_gradient", "loss + gamma * input_gradient", "14.16"),
    ("return int(D.argmax()), -math.log(1 - float(D.max()))", "return int(D.argmin()), -math.log(1 - float(D.max()))", "14.17"),
    ("return int(D.argmax()), -math.log(1 - float(D.max()))", "return int(D.argmax()), -math.log(float(D.max()))", "14.17"),
    ("max_min, min_max = 2 * math.log(2) - 2 * price", "max_min, min_max = 2 * math.log(2) + 2 * price", "14.18"),
    ("F.leaky_relu(x, self.slope) if k else x", "F.leaky_relu(x, 0.1) if k else x", "14.19"),
    ("self.biases.append(torch.stack([m.bias.detach() for m in same])[:, None])", "self.biases.append(-torch.stack([m.bias.detach() for m in same])[:, None])", "14.19"),
    ("counts, math.log(len(c)) - entropy)", "counts, entropy)", "14.20"),
    ("torch.special.entr(counts / len(x)).sum().exp()", "torch.special.entr(counts / len(x)).sum()", "14.20"),
    ("counts.double() / good).sum()", "counts.double() / len(x)).sum()", "14.20"),
    ("counts = torch.bincount(mode[nearest < n_sd * sd]", "counts = torch.bincount(mode[nearest < n_sd * sd**2]", "14.21"),
    ("expected = 1 - np.exp(-(radii**2) / 2)", "expected = 1 - np.exp(-(radii**2))", "14.21"),
    ("square().sum(-1) + spread - 2 * overlap)", "square().sum(-1) + spread - overlap)", "14.22"),
    ("overlap = torch.linalg.svdvals(R1.mT @ R2).sum(-1)", "overlap = torch.linalg.svdvals(R1 @ R2).sum(-1)", "14.22"),
    ("overlap = torch.linalg.svdvals(R1.mT @ R2).sum(-1)", "overlap = (R1.mT @ R2).diagonal(dim1=-2, dim2=-1).sum(-1)", "14.22"),
    ("return inverse_root @ (U * w.clamp(min=0).sqrt() @ U.T) @ inverse_root", "return inverse_root @ (U * w.clamp(min=0) @ U.T) @ inverse_root", "14.23"),
    ("return inverse_root @ (U * w.clamp(min=0).sqrt() @ U.T) @ inverse_root", "return root @ (U * w.clamp(min=0).sqrt() @ U.T) @ root", "14.23"),
    ("return float(S.trace()) * (1 / n + 1 / n_other)", "return float(S.trace()) * (1 / n)", "14.24"),
    ("return float(S.trace()) * (1 / n + 1 / n_other)", "return float(S.trace()) / (n + n_other)", "14.24"),
    ("return share_inside(y, x, int(k)), share_inside(x, y, int(k))", "return share_inside(x, y, int(k)), share_inside(y, x, int(k))", "14.25"),
    ("distances(part, centres).kthvalue(k + 1).values", "distances(part, centres).kthvalue(k).values", "14.25"),
]


(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)
