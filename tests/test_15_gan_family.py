"""Notebook 15: its public functions on inputs the page does not show, and its checks against wrong formulas."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from torch import nn

from tests.book import book, wrong_variant_tests

BOOK = book("15")
DOUBLE = torch.float64


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def refused(function, *arguments, match, **options):
    with pytest.raises(ValueError, match=match):
        function(*arguments, **options)


def clouds(n=6, m=4, d=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, d, generator=g, dtype=DOUBLE) for k in (n, m))
    a, b = (torch.softmax(torch.randn(k, generator=g, dtype=DOUBLE), 0) for k in (n, m))
    return x, y, a, b


# --- transport -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(4))
def test_plan_and_potentials_prove_each_other(nb, seed):
    x, y, a, b = clouds(7, 5, 2, seed)
    found = nb["emd"](x, y, a, b)
    assert found._fields == ("distance", "plan", "potentials")
    C, (u, v) = torch.cdist(x, y), found.potentials
    assert torch.allclose(found.plan.sum(1), a, atol=1e-9) and torch.allclose(found.plan.sum(0), b, atol=1e-9)
    assert (found.plan >= 0).all() and (u[:, None] + v <= C + 1e-9).all()
    assert (a @ u + b @ v).item() == pytest.approx(found.distance, abs=1e-9) == pytest.approx((found.plan * C).sum().item())
    assert all(t.dtype == DOUBLE and t.device.type == "cpu" for t in (found.plan, u, v))
    assert (found.plan > 1e-12).sum() <= 7 + 5 - 1


def test_costs_of_any_kind_and_size(nb):
    emd = nb["emd"]
    x, y, a, b = clouds()
    C = torch.cdist(x, y) ** 2
    for factor in (1e-9, 1.0, 1e9):
        assert emd(None, None, a, b, cost=factor * C).distance == pytest.approx(factor * emd(x, y, a, b, cost=C).distance, rel=1e-9)
    assert emd(None, None, a, b, cost=C - 3).distance == pytest.approx(emd(None, None, a, b, cost=C).distance - 3)
    assert emd([1.0, 2.0], [2.0, 1.0]).distance == 0 and emd([0.0], [0.0]).plan.tolist() == [[1.0]]
    assert emd(x.numpy(), y.numpy()).distance == pytest.approx(emd(x, y).distance)
    assert emd([0.0, 5.0, 9.0], [0.0, 9.0], a=[0.5, 0.0, 0.5]).distance == pytest.approx(0, abs=1e-12)
    assert emd(x, y[:1]).distance == pytest.approx((x - y[0]).norm(dim=1).mean().item())
    leaf = x.clone().requires_grad_()
    assert isinstance(emd(leaf, y).distance, float) and leaf.grad is None


def test_emd_of_equal_clouds_is_the_assignment(nb):
    x, y, _, _ = clouds(30, 30, 2)
    C = torch.cdist(x, y).numpy()
    rows, columns = scipy.optimize.linear_sum_assignment(C)
    assert nb["emd"](x, y).distance == pytest.approx(C[rows, columns].mean())
    assert nb["emd_assigned"](x, y)[0] == pytest.approx(C[rows, columns].mean())


def test_emd_refuses(nb):
    emd, (x, y, a, b) = nb["emd"], clouds()
    refused(emd, x, y, a, -b, match="b must be >= 0")
    refused(emd, x, y, 2 * a, b, match="sum to 1, not 2")
    refused(emd, x, y, b, a, match="must hold 6 weights")
    refused(emd, x, y[:, :2], match="dimensions differ")
    refused(emd, x, torch.full((4, 3), math.nan), match="NaN")
    refused(emd, x[:0], y, match="at least one")
    refused(emd, None, y, match="give points")
    refused(emd, x, y, cost=torch.ones(6, 3), match="cost must be a matrix")
    refused(emd, None, None, cost=torch.ones(6), match="cost must be a matrix")
    refused(emd, x, y, torch.full((6,), math.nan), match="NaN")
    refused(emd, x[None], y, match="points")


def test_emd_on_a_line(nb):
    emd_1d = nb["emd_1d"]
    g = np.random.default_rng(0)
    for n, m in ((5, 9), (1, 4), (200, 200)):
        x, y = g.normal(size=n).round(1), g.normal(size=m).round(1)
        a, b = g.dirichlet(np.ones(n)), g.dirichlet(np.ones(m))
        assert emd_1d(x, y) == pytest.approx(scipy.stats.wasserstein_distance(x, y))
        assert emd_1d(x, y, a, b) == pytest.approx(scipy.stats.wasserstein_distance(x, y, a, b))
    assert emd_1d([3], [7]) == 4 and emd_1d([1, 2], [2, 1]) == 0
    refused(emd_1d, [1.0], [], match="at least one")
    refused(emd_1d, np.zeros((3, 2)), [1.0], match="on a line")
    refused(emd_1d, [1.0, math.nan], [1.0], match="NaN")
    refused(emd_1d, [1.0, 2.0], [1.0], [0.5, 0.6], match="sum to 1")


def test_potential_is_lipschitz_and_attains(nb):
    x, y, a, b = clouds(9, 8, 2, 3)
    found = nb["emd"](x, y, a, b)

    def f(t):
        return nb["kantorovich_potential"](t, y, found.potentials[1])

    assert (a @ f(x) - b @ f(y)).item() == pytest.approx(found.distance)
    s, t = 5 * torch.randn(2, 200, 2, dtype=DOUBLE)
    assert ((f(s) - f(t)).abs() <= (s - t).norm(dim=1) + 1e-12).all()
    assert f(x.float()).dtype == DOUBLE and f(x).shape == (9,)
    refused(nb["kantorovich_potential"], x, y, b[:3], match="need t")
    refused(nb["kantorovich_potential"], x[:, :1], y, b, match="need t")
    refused(nb["kantorovich_potential"], x, y, torch.full((8,), math.nan), match="NaN")


def test_gradient_of_the_distance(nb):
    x, y, a, b = clouds(5, 6, 3, 4)
    plan = nb["emd"](x, y, a, b).plan
    leaf = x.clone().requires_grad_()
    (plan * torch.cdist(leaf, y)).sum().backward()
    assert torch.allclose(nb["emd_gradient"](x, y, plan), leaf.grad, atol=1e-12)
    same = nb["emd_gradient"](y, y, torch.eye(6, dtype=DOUBLE) / 6)
    assert same.shape == (6, 3) and same.abs().max() == 0
    assert nb["emd_gradient"](x.float(), y.float(), plan).dtype == torch.float32
    refused(nb["emd_gradient"], x, y, plan.T, match="plan")
    refused(nb["emd_gradient"], x, y[:, :2], plan, match="plan")


# --- critics -------------------------------------------------------------------------------------------------------------

def test_wgan_losses(nb):
    real, fake = torch.randn(7, 1, dtype=DOUBLE), torch.randn(4, dtype=DOUBLE)
    critic_loss, generator_loss = nb["wgan_losses"](real, fake)
    assert critic_loss.item() == pytest.approx((fake.mean() - real.mean()).item())
    assert generator_loss.item() == pytest.approx(-fake.mean().item()) and generator_loss.shape == ()
    refused(nb["wgan_losses"], torch.zeros(3, 2), fake, match=r"\(B,\) or \(B, 1\)")
    refused(nb["wgan_losses"], real, fake[:0], match="at least one")
    refused(nb["wgan_losses"], torch.full((2,), math.nan), fake, match="NaN")


@pytest.mark.parametrize("shape", [(8, 3), (8, 1, 4, 4), (8,)])
def test_penalty_of_a_plane(nb, shape):
    x, y = torch.randn(2, *shape, dtype=DOUBLE)
    w = torch.randn(math.prod(shape[1:]), dtype=DOUBLE, requires_grad=True)
    for critic in (lambda t: t.reshape(len(t), -1) @ w, lambda t: (t.reshape(len(t), -1) @ w)[:, None]):
        assert nb["gradient_penalty"](critic, x, y).item() == pytest.approx((w.norm() - 1).item() ** 2)
    nb["gradient_penalty"](lambda t: t.reshape(len(t), -1) @ w, x, y).backward()
    assert torch.allclose(w.grad, 2 * (w.norm() - 1) * w / w.norm())


def test_penalty_mixes_once_a_sample_between_real_and_fake(nb):
    real, fake = torch.zeros(2000, 2, 3, dtype=DOUBLE), torch.ones(2000, 2, 3, dtype=DOUBLE)
    seen = []
    nb["gradient_penalty"](lambda t: (seen.append(t.detach()), t.flatten(1).sum(1))[1], real, fake, torch.Generator().manual_seed(1))
    share = seen[0].flatten(1)
    assert torch.equal(share, share[:, :1].expand(-1, 6)) and 0 <= share.min() < 0.01 and 0.99 < share.max() <= 1
    assert scipy.stats.kstest(share[:, 0], "uniform").pvalue > 1e-3
    again = [nb["gradient_penalty"](nn.Linear(2, 1).double(), real[:, :, 0], fake[:, :, 0], torch.Generator().manual_seed(1))]
    assert again[0].isfinite()


def test_nothing_flows_into_fake_and_weights_learn(nb):
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    real, fake = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    nb["gradient_penalty"](critic, real, fake).backward()
    assert fake.grad is None and real.grad is None and critic[0].weight.grad.abs().max() > 0
    flat = nb["gradient_penalty"](lambda t: t[:, 0] * 0, real, fake)
    assert flat.item() == pytest.approx(1)
    assert nb["gradient_penalty"](critic, torch.randint(0, 255, (5, 3), dtype=torch.uint8), fake.detach()).isfinite()
    refused(nb["gradient_penalty"], critic, real, fake[:3], match="one shape")
    refused(nb["gradient_penalty"], critic, real[:0], fake[:0], match="at least one")
    refused(nb["gradient_penalty"], critic, torch.tensor(1.0), torch.tensor(1.0), match="one shape")
    refused(nb["gradient_penalty"], critic, torch.full((5, 3), math.nan), fake, match="NaN")


def test_clipping(nb):
    net = nn.Linear(30, 20)
    before = net.weight.detach().clone()
    nb["clip_weights"](net, 0.05)
    assert torch.equal(net.weight, before.clamp(-0.05, 0.05)) and net.bias.abs().max() <= 0.05 and net.weight.requires_grad
    for bad in (0, -1, math.nan):
        refused(nb["clip_weights"], net, bad, match="positive")


def test_undoing_the_overshoot(nb):
    back = nb["emd_from_critic"]
    for W, lam in ((0.3, 0.1), (2.0, 10.0), (1e-9, 10.0), (0.0, 1.0)):
        assert back(W + W**2 / (2 * lam), lam) == pytest.approx(W, rel=1e-9, abs=1e-15)
    assert isinstance(back(1, 1), float) and back(torch.tensor([1.0, 4.0]), 2).shape == (2,)
    assert back(np.array([1.5]), 1.0)[0] == pytest.approx(1.0) and back([1.5, 4.0], 1.0).tolist() == pytest.approx([1.0, 2.0])
    assert back(-0.1, 10.0) == pytest.approx(10 * (math.sqrt(1 - 0.02) - 1))
    for lam in (0, -1, math.nan):
        refused(back, 1.0, lam, match="lam must be positive")
    refused(back, -6.0, 10.0, match="below -lam/2")
    refused(back, math.nan, 1.0, match="NaN")


def test_certificate(nb):
    certificate, x = nb["certificate"], torch.tensor([[0.0], [1.0]], dtype=DOUBLE)
    y = x + 3
    assert certificate(-x[:, 0], -y[:, 0], x, y).item() == pytest.approx(3)                    # a straight line attains it
    assert certificate(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0]), x, x).item() == 0, "a gain between equal points"
    refused(certificate, x[:, 0], y[:, 0], x, y, match="larger on x")
    refused(certificate, torch.full((2,), math.nan), y[:, 0], x, y, match="larger on x")


# --- conditional ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("joined", [False, True])
def test_conditional_nets(nb, joined):
    torch.manual_seed(0)
    G, D = nb["ConditionalGenerator"](4, 3, 16, 5), nb["ConditionalDiscriminator"](5, 3, 16, joined=joined)
    y = torch.tensor([0, 1, 2, 2])
    x = G(torch.randn(4, 4), y)
    assert x.shape == (4, 5) and D(x, y).shape == (4,) and D(x[:1], y[:1]).shape == (1,)
    G.eval()
    z = torch.zeros(3, 4)
    assert not torch.allclose(*G(z[:2], torch.tensor([0, 1]))), "the label is heard"
    assert len(set(D(x[:1].expand(3, -1), torch.arange(3)).tolist())) == 3
    assert torch.equal(G(z, torch.tensor([1, 1, 1], dtype=torch.uint8)), G(z, torch.tensor([1, 1, 1])))
    assert torch.allclose(D(x.detach().double().numpy(), y.numpy()), D(x, y)), "numpy, float64"
    assert D(torch.ones(4, 5, 1, dtype=torch.uint8), y).isfinite().all() and G(z.double().numpy(), [0, 1, 2]).shape == (3, 5)
    for net, first in ((G, z), (D, torch.zeros(3, 5))):
        refused(net, first, torch.tensor([0, 1, 3]), match=r"0 … 2")
        refused(net, first, torch.tensor([0, -1, 2]), match=r"0 … 2")
        refused(net, first, torch.tensor([0.0, 1.0, 2.0]), match="whole numbers")
        refused(net, first, torch.tensor([1]), match="a label each")
        refused(net, first[:, :2], torch.tensor([0, 1, 2]), match="a label each")
        refused(net, first * math.nan, torch.tensor([0, 1, 2]), match="NaN")


# --- cycle and identity --------------------------------------------------------------------------------------------------

def test_cycle_and_identity_loss(nb):
    x, y = torch.randn(5, 2, 3, dtype=DOUBLE), torch.randn(7, 2, 3, dtype=DOUBLE)
    G, back, shift = (lambda t: 2 * t), (lambda t: t / 2), (lambda t: t / 2 + 1)
    assert nb["cycle_loss"](G, back, x, y).item() == pytest.approx(0, abs=1e-12)
    assert nb["cycle_loss"](G, shift, x, y).item() == pytest.approx(6 + 12)           # 6 numbers: by 1 at home, by 2 abroad
    assert nb["identity_loss"](G, shift, x, y).item() == pytest.approx(
        y.abs().flatten(1).sum(1).mean().item() + (1 - x / 2).abs().flatten(1).sum(1).mean().item())
    assert nb["cycle_loss"](lambda t: t[:, :1], lambda t: t.expand(-1, 2, -1), x, y[:, :1]).isfinite(), "domains of other shapes"
    for name in ("cycle_loss", "identity_loss"):
        refused(nb[name], G, back, x[:0], y, match="at least one")
        refused(nb[name], G, back, x, torch.full((2, 2), math.nan), match="NaN")
        refused(nb[name], G, back, torch.tensor(1.0), y, match="batches")
        refused(nb[name], lambda t: t[:, :1], lambda t: t, x, y, match="return the shape")


# --- BiGAN ---------------------------------------------------------------------------------------------------------------

def test_bigan_losses(nb):
    real, fake = torch.randn(6, dtype=DOUBLE, requires_grad=True), torch.randn(3, 1, dtype=DOUBLE, requires_grad=True)
    d_loss, ge_loss = nb["bigan_losses"](real, fake)
    p, q = torch.sigmoid(real), torch.sigmoid(fake)
    assert d_loss.item() == pytest.approx((-p.log().mean() - (1 - q).log().mean()).item())
    assert ge_loss.item() == pytest.approx((-q.log().mean() - (1 - p).log().mean()).item())
    assert all(t.abs().max() > 0 for t in torch.autograd.grad(ge_loss, [real, fake])), "E feels the real term, G the other"
    huge = torch.tensor([1000.0, -1000.0])
    assert nb["bigan_losses"](huge, huge)[0] == 1000 and nb["bigan_losses"](huge, huge)[1] == 1000
    refused(nb["bigan_losses"], torch.zeros(2, 2), fake, match=r"\(B,\) or \(B, 1\)")
    refused(nb["bigan_losses"], real[:0], fake, match="at least one")
    refused(nb["bigan_losses"], real, torch.full((2,), math.nan), match="NaN")


# Wrong variants of each formula: where, what it becomes, and the equation whose check must notice.
MUTANTS = [
    ("return math.log(2), abs(t), math.copysign(1, t)", "return 2 * math.log(2), abs(t), math.copysign(1, t)", "15.1"),
    ("return math.log(2), abs(t), math.copysign(1, t)", "return math.log(2), t * t, 2 * t", "15.1"),
    ("torch.where(r > 0, r / mean, 1.0)).sum(-1) / 2", "torch.where(r > 0, r / mean, 1.0)).sum(-1)", "15.1"),
    ("return Transport(float((plan * C).sum()), plan", "return Transport(float((plan * C**2).sum()), plan", "15.2"),
    ("A_eq=marginal_sums(n, m),", "A_eq=marginal_sums(n, m)[:n],", "15.2"),
    ("v = (C - u[:, None]).amin(0)", "v = (C + u[:, None]).amin(0)", "15.3"),
    ("u = torch.from_numpy(found.eqlin.marginals[:n].copy()) * unit", "u = -torch.from_numpy(found.eqlin.marginals[:n].copy()) * unit", "15.3"),
    ("v = (C - u[:, None]).amin(0)", "v = (C - u[:, None]).amax(0)", "15.3"),
    ("found.eqlin.marginals[:n].copy()) * unit", "found.eqlin.marginals[:n].copy())", "15.4"),
    ("return n + m - 1", "return n + m", "15.5"),
    ("between = signed[order].cumsum(0)[:-1]", "between = signed[order][:-1]", "15.6"),
    ("return float(between.abs() @ place.diff())", "return float(between.square() @ place.diff())", "15.6"),
    ("return float(between.abs() @ place.diff())", "return abs(float(between @ place.diff()))", "15.6"),
    ("return C[np.arange(len(C)), tau].mean(), tau", "return C[np.arange(len(C)), tau].sum(), tau", "15.7"),
    ("tau = scipy.optimize.linear_sum_assignment(C)[1]", "tau = C.argmin(1)", "15.7"),
    ("return (distances(t, y) - v).amin(1)", "return (distances(t, y) + v).amin(1)", "15.8"),
    ("return (distances(t, y) - v).amin(1)", "return 1.1 * (distances(t, y) - v).amin(1)", "15.8"),
    ("return (distances(t, y) - v).amin(1)", "return -(distances(t, y) - v).amin(1)", "15.9"),
    ("return (distances(t, y) - v).amin(1)", "return distances(t, y).amin(1)", "15.9"),
    ("expected = f_x[i] - along * C[i, j]", "expected = f_x[i] - 0.5 * along * C[i, j]", "15.10"),
    ("return (distances(t, y) - v).amin(1)", "return (distances(t, y) - v).amin(1).square()", "15.10"),
    ("torch.where(far > 0, ways / far, 0.0)", "torch.where(far > 0, ways, 0.0)", "15.11"),
    ("ways = x[:, None] - y.to(x)", "ways = y.to(x) - x[:, None]", "15.11"),
    ("torch.where(far > 0, ways / far, 0.0)", "torch.where(far > 0, ways / far.clamp(min=1), 0.0)", "15.11"),
    ("return fake.mean() - real.mean(), -fake.mean()", "return real.mean() - fake.mean(), -fake.mean()", "15.12"),
    ("return fake.mean() - real.mean(), -fake.mean()", "return fake.mean() - real.mean(), fake.mean()", "15.12"),
    ("return (slopes.reshape(len(x), -1).norm(dim=1) - 1).square().mean()",
     "return (slopes.reshape(len(x), -1).square().sum(1) - 1).square().mean()", "15.13"),
    ("return (slopes.reshape(len(x), -1).norm(dim=1) - 1).square().mean()",
     "return (slopes.reshape(len(x), -1).norm(dim=1)).square().mean()", "15.13"),
    ("share = share.reshape(-1, *[1] * (x.dim() - 1))", "share = torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x)", "15.13"),
    ("alpha = 1 + W / (2 * lam)", "alpha = 1 + W / lam", "15.14"),
    ("return alpha, alpha * W", "return alpha, alpha * W - lam * (alpha - 1) ** 2", "15.14"),
    ("distance = 2 * nu / (1 + (1 + 2 * nu / lam).sqrt())", "distance = 2 * nu / (1 + (1 + nu / lam).sqrt())", "15.15"),
    ("steepest = (rise / far)[far > 0].max()", "steepest = (rise / far)[far > 0].mean()", "15.16"),
    ("return gain / steepest", "return gain * steepest", "15.16"),
    ("2 * math.log(2) - 2 * p_y @ jensen_shannon(p_xy, q_xy)", "2 * math.log(2) - 2 * jensen_shannon(p_xy, q_xy).mean()", "15.17"),
    ("2 * math.log(2) - 2 * p_y @ jensen_shannon(p_xy, q_xy)", "2 * math.log(2) - p_y @ jensen_shannon(p_xy, q_xy)", "15.17"),
    ("jensen_shannon(p_y @ p_xy, p_y @ q_xy)", "jensen_shannon(p_xy.mean(0), q_xy.mean(0))", "15.18"),
    ("(self.of_label(one_hot) * h).sum(1)", "(self.of_label(one_hot) * h).mean(1)", "15.19"),
    ("return (end - start).abs().flatten(1).sum(1).mean()", "return (end - start).abs().mean()", "15.20"),
    ("return (end - start).abs().flatten(1).sum(1).mean()", "return (end - start).square().flatten(1).sum(1).mean()", "15.20"),
    ("return mean_way(x, F(G(x))) + mean_way(y, G(F(y)))", "return mean_way(x, F(G(x)))", "15.20"),
    ("return mean_way(y, G(y)) + mean_way(x, F(x))", "return mean_way(x, G(x)) + mean_way(y, F(y))", "15.21"),
    ("return mean_way(x, F(G(x))) + mean_way(y, G(F(y)))", "return mean_way(x, G(F(x))) * 0", "15.22"),
    ("as_map(F_), positions[:n]", "as_map(G), positions[:n]", "15.22"),
    ("d_loss = -F.logsigmoid(real).mean(-1) - F.logsigmoid(-fake).mean(-1)", "d_loss = -F.logsigmoid(-real).mean(-1) - F.logsigmoid(fake).mean(-1)", "15.23"),
    ("return d_loss, -F.logsigmoid(fake).mean(-1) - F.logsigmoid(-real).mean(-1)", "return d_loss, -F.logsigmoid(fake).mean(-1)", "15.23"),
    ("return d_loss, -F.logsigmoid(fake).mean(-1) - F.logsigmoid(-real).mean(-1)", "return d_loss, -d_loss", "15.23"),
    ("fake[G[k], k] += 1 / 3", "fake[k, G[k]] += 1 / 3", "15.24"),
    ("return 2 * math.log(2) - 2 * float(jensen_shannon(real.flatten(), fake.flatten()))",
     "return 2 * math.log(2) - 2 * float(jensen_shannon(real.sum(1), fake.sum(1)))", "15.24"),
]


(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)
