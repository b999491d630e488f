"""Notebook 52: its public functions on inputs the page does not show, and its checks against broken formulas."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from tests.book import book, wrong_variant_tests

BOOK = book("52")
NAN, INF = math.nan, math.inf


@pytest.fixture(scope="module")
def nb():
    names = BOOK.definitions()
    names["device"] = torch.device("cpu")         # the setup cell's
    return names


def d(*values):
    return torch.tensor(values, dtype=torch.float64)


# ---- looks ------------------------------------------------------------------------------------------------------------------

def test_one_look_is_a_z_test(nb):
    f = nb["crossing_probability"]
    for bound, drift in ((1.96, 0.0), (1.0, 2.5), (3.0, -1.0), (0.01, 0.0)):
        assert float(f([bound], drift)[0]) == pytest.approx(stats.norm.sf(bound - drift) + stats.norm.cdf(-bound - drift), abs=1e-6)
    assert float(f([INF], 3.0)[0]) == pytest.approx(0, abs=1e-6)
    assert float(f([1.96], 40.0)[0]) == pytest.approx(1)


def test_two_looks_by_the_joint_normal_law(nb):
    for bounds, drift in (((2.0, 1.5), 0.0), ((2.5, 2.0), 1.7), ((INF, 1.96), 1.0), ((0.5, 3.0), -2.0)):
        law = stats.multivariate_normal([drift / math.sqrt(2), drift], [[1, math.sqrt(0.5)], [math.sqrt(0.5), 1]])
        inside = law.cdf(np.minimum(bounds, 30), lower_limit=-np.minimum(bounds, 30))
        assert float(nb["crossing_probability"](list(bounds), drift)[1]) == pytest.approx(1 - inside, abs=1e-4)


def test_many_looks_and_strong_drifts(nb):
    f = nb["crossing_probability"]
    by_looks = f([1.96] * 300)
    assert (by_looks.diff() > 0).all() and by_looks[-1] < 1 and float(by_looks[95]) == pytest.approx(0.3706, abs=2e-4)
    assert torch.allclose(f([2.0] * 5, 3.0), f(np.full(5, 2.0), -3.0))                                 # two-sided: the sign is nothing
    assert torch.allclose(f([2.0] * 9, 60.0), torch.ones(9).double(), atol=1e-4)
    assert float(f([INF] * 9 + [1.96])[-1]) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize("bad", [[], [1.0, 0.0], [-1.0], [NAN], [[1.0]], 2.0])
def test_bad_bounds_are_refused(nb, bad):
    with pytest.raises(ValueError, match="positive number for each look"):
        nb["crossing_probability"](bad)
    with pytest.raises(ValueError, match="drift"):
        nb["crossing_probability"]([2.0], NAN)


@pytest.mark.parametrize("kind", ["pocock", "obrien-fleming"])
def test_bounds_spend_alpha(nb, kind):
    f = nb["group_sequential_bounds"]
    assert float(f(1, kind=kind)[0]) == pytest.approx(1.959964, abs=1e-5)
    for K, alpha in ((2, 0.01), (7, 0.1), (30, 0.05)):
        b = f(K, alpha, kind)
        assert b.shape == (K,) and float(nb["crossing_probability"](b)[-1]) == pytest.approx(alpha, abs=1e-5)
    ratio = b[0] / b[-1]
    assert float(ratio) == pytest.approx(1 if kind == "pocock" else math.sqrt(30))


@pytest.mark.parametrize("arguments, word", [((0,), "n_looks"), ((2.5,), "n_looks"), ((True,), "n_looks"), ((3, 0.0), "alpha"), ((3, 1.0), "alpha"),
                                             ((3, NAN), "alpha"), ((3, 0.05, "haybittle"), "kind"), ((1, 0.05, "haybittle"), "kind")])
def test_bad_plans_are_refused(nb, arguments, word):
    with pytest.raises(ValueError, match=word):
        nb["group_sequential_bounds"](*arguments)


# ---- always valid -----------------------------------------------------------------------------------------------------------

def test_always_valid_p_by_hand(nb):
    ratio = math.sqrt(1 / 5) * math.exp(4 * 4 / (2 * 1 * 5))                                           # s = 1, tau = 2, d = 2
    p = nb["always_valid_p"]([2.0, 0.0], [1.0, 1.0], 2)
    assert p.tolist() == pytest.approx([1 / ratio, 1 / ratio]) and p.dtype == torch.float64
    assert nb["always_valid_p"]([0.0, 0.1], [1.0, 0.9], 0.5).tolist() == [1, 1]


def test_always_valid_in_batches(nb):
    x, s = torch.randn(3, 4, 6, dtype=torch.float64), torch.rand(6, dtype=torch.float64) + 0.2
    p = nb["always_valid_p"](x, s, 0.7)
    ends = nb["always_valid_interval"](x, s, 0.7, 0.1)
    assert p.shape == (3, 4, 6) and ends.shape == (3, 4, 6, 2) and (p.diff(dim=-1) <= 0).all() and (p <= 1).all()
    for i in range(3):
        for j in range(4):
            assert torch.allclose(p[i, j], nb["always_valid_p"](x[i, j], s, 0.7))
    assert torch.allclose(ends.mean(-1), x)
    now = torch.stack([nb["always_valid_p"](x[..., k:k + 1], s[k:k + 1], 0.7)[..., 0] for k in range(6)], -1)
    assert torch.equal((ends[..., 0] > 0) | (ends[..., 1] < 0), now < 0.1)


def test_any_tau_that_is_one_number(nb):
    ends = [nb["always_valid_interval"]([0.5], [1.0], tau) for tau in (0.3, [0.3], d(0.3), np.float32(0.3))]
    assert all(torch.allclose(e, ends[0], rtol=1e-6) for e in ends)
    tiny = nb["always_valid_interval"]([0.0], [1.0], 1e-9)[0, 1]                                      # to first order s**2 / tau * sqrt(2 ln(1 / alpha))
    assert float(tiny) == pytest.approx(1e9 * math.sqrt(2 * math.log(20)), rel=1e-6)


def test_bounds_are_the_edge_of_the_interval(nb):
    k = torch.arange(1, 41).double()
    half = nb["always_valid_interval"](torch.zeros(40), k.rsqrt(), 0.7)[:, 1]
    assert torch.allclose(nb["always_valid_bounds"](40, 0.7), half * k.sqrt())


def test_spending_bounds_of_many_looks(nb):
    f = nb["spending_bounds"]
    b = f(12)
    assert (b[1:] <= b[:-1]).all() and float(nb["crossing_probability"](b)[-1]) == pytest.approx(0.05, abs=1e-5)


def test_huge_effects_do_not_overflow(nb):
    assert nb["always_valid_p"]([1e6], [1e-3], 1.0).tolist() == [0]
    assert nb["always_valid_interval"]([1e6], [1e-3], 1.0).isfinite().all()


@pytest.mark.parametrize("arguments, word", [(([1.0], [1.0], 0.0), "tau"), (([1.0], [1.0], -1.0), "tau"), (([1.0], [0.0], 1.0), "standard error"),
                                             (([1.0], [-1.0], 1.0), "standard error"), (([NAN], [1.0], 1.0), "difference"), (([1.0], [INF], 1.0), "standard_error"),
                                             (([1.0, 2.0, 3.0], [1.0, 2.0], 1.0), "n_looks"), (([], [], 1.0), "empty"), (([1.0], [1.0], NAN), "tau"),
                                             ((np.ones((2, 3)), np.ones((4, 3)), 1.0), "n_looks"), (([1.0], [1.0, 2.0], 1.0), "n_looks"),
                                             (([1.0], [1.0], [0.3, 0.4]), "tau must be one number"), (([1.0], [1.0], "wide"), "tau needs numbers")])
@pytest.mark.parametrize("name", ["always_valid_p", "always_valid_interval"])
def test_bad_looks_are_refused(nb, name, arguments, word):
    with pytest.raises(ValueError, match=word):
        nb[name](*arguments)


def test_bad_alpha_is_refused(nb):
    for alpha in (0, 1, -0.1, NAN, True, "0.05"):
        with pytest.raises(ValueError, match="alpha"):
            nb["always_valid_interval"]([1.0], [1.0], 1.0, alpha)


# ---- many tests -------------------------------------------------------------------------------------------------------------

ADJUSTED = {"bonferroni": [0.12, 0.04, 0.08, 1.0], "holm": [0.06, 0.04, 0.06, 0.5], "benjamini_hochberg": [0.04, 0.04, 0.04, 0.5]}


@pytest.mark.parametrize("name", ADJUSTED)
def test_adjusted_p_values_by_hand(nb, name):
    p = [0.03, 0.01, 0.02, 0.5]
    assert nb[name](p).tolist() == pytest.approx(ADJUSTED[name])
    both = nb[name](np.array([p, p[::-1]]))
    assert both[1].tolist() == pytest.approx(ADJUSTED[name][::-1])
    assert nb[name]([0.3]).tolist() == [0.3] and nb[name]([1.0, 0.0]).tolist() == [1, 0]
    assert nb[name](torch.tensor([[0.4, 0.4, 0.4]])).tolist()[0] == pytest.approx([0.4] * 3 if name[1] == "e" else [1.0] * 3, abs=1e-6)


@pytest.mark.parametrize("name", ADJUSTED)
@pytest.mark.parametrize("bad", [[0.1, 1.1], [-0.1], [NAN, 0.1], [], 0.5, {"a": 0.1}, (p for p in [0.1]), ["0.1"], [[0.1], [0.1, 0.2]], [0.1 + 1j],
                                 torch.tensor([1j]), np.ma.array([0.1, 0.2], mask=[0, 1])])
def test_bad_p_values_are_refused(nb, name, bad):
    with pytest.raises(ValueError):
        nb[name](bad)


# ---- CUPED ------------------------------------------------------------------------------------------------------------------

def test_cuped_by_hand(nb):
    result = nb["cuped"]([1.0, 2.0, 6.0, 3.0], [0.0, 1.0, 2.0, 1.0])                                   # slope 2.5
    assert float(result.theta) == pytest.approx(2.5) and result.theta.ndim == 0
    assert result.adjusted.tolist() == pytest.approx([3.5, 2.0, 3.5, 3.0]) and float(result.adjusted.mean()) == pytest.approx(3.0)
    two = nb["cuped"](np.array([1.0, 2, 6, 4, 7]), np.array([[0, 1], [1, 0], [2, 5], [3, 1], [3, 2]], dtype=np.float32))
    assert two.theta.shape == (2,) and float(two.adjusted.mean()) == pytest.approx(4.0)
    bools = pd.DataFrame({"before": [0.0, 1, 2, 5, 3], "new": [True, False, True, True, False]})       # an object array for numpy
    assert nb["cuped"](pd.Series([1.0, 2, 6, 3, 4], index=range(4, 9)), bools).theta.shape == (2,)


def test_cuped_does_not_depend_on_units(nb):
    y, x = torch.randn(50, dtype=torch.float64), torch.randn(50, 2, dtype=torch.float64)
    plain = nb["cuped"](y, x).adjusted
    assert torch.allclose(nb["cuped"](y, x * d(1e6, 1e-6) + d(5.0, 1e-3)).adjusted, plain, atol=1e-6)


def test_a_share_beside_a_time_in_nanoseconds(nb):
    """Each column is compared with its own size, not with the largest of all; a constant one is refused as before."""
    time, share = 1.7e18 * (1 + 1e-3 * torch.randn(200, dtype=torch.float64)), torch.rand(200, dtype=torch.float64)
    y = share + 0.1 * torch.randn(200, dtype=torch.float64)
    by_numpy = np.linalg.lstsq(np.stack([np.ones(200), (time - time.mean()) / time.std(), share], 1), y.numpy(), rcond=None)[0][2]
    assert float(nb["cuped"](y, torch.stack([time, share], 1)).theta[1]) == pytest.approx(by_numpy, rel=1e-6)
    with pytest.raises(ValueError, match="constant"):
        nb["cuped"](y, torch.stack([time, torch.full_like(share, 0.3)], 1))


def test_own_slopes_are_lins_regression(nb):
    """y on 1, w, x and w times (x - mean x): the coefficient of w."""
    y, x, w = nb["slopes_apart"](300, 0.3, 5)
    adjusted = nb["own_slopes"](y, x, w)
    full = np.linalg.lstsq(np.stack([np.ones(300), w, x - x.mean(), w * (x - x.mean())], 1), y.numpy(), rcond=None)[0]
    assert float(nb["difference_of"](adjusted, w)[0]) == pytest.approx(full[1], abs=1e-10)


def test_the_tenure_fit_finds_an_exact_curve(nb):
    stays, fades, h = nb["fit_tenure"]((0.03 + 0.07 * np.exp(-np.arange(60) / np.geomspace(1, 60, 90)[40]))[None])
    assert (float(stays[0]), float(fades[0]), float(h[0])) == pytest.approx((0.03, 0.07, np.geomspace(1, 60, 90)[40]))


@pytest.mark.parametrize("call, word", [
    (lambda nb: nb["holm"]([0.1, NAN]), "p-values must be finite and not empty: drop NaN"),
    (lambda nb: nb["holm"]([[0.1], [0.1, 0.2]]), "rows of one length"),
    (lambda nb: nb["group_sequential_bounds"](3, torch.tensor(0.05)), "one Python number")])
def test_messages_name_the_cause(nb, call, word):
    with pytest.raises(ValueError, match=word):
        call(nb)


@pytest.mark.parametrize("y, x, word", [
    ([1.0, 2, 3, 4], [1.0, 1, 1, 1], "constant"), ([1.0, 2, 3, 4, 5], [[1.0, 2], [2, 4], [3, 6], [1, 2], [0, 0]], "follows from the others"),
    ([1.0, 2, 4], [1.0, 3, 2], "too few"), (d(1.0, 2, 4, 5), torch.randn(4, 2), "too few"), ([1.0, 2, 3, 4], ["a", "b", "c", "d"], "x needs numbers"),
    (np.ma.array([1.0, 2, 600, 4], mask=[0, 0, 1, 0]), [1.0, 2, 3, 5], "masked"), ([1.0, 2, 3, 4], np.ma.array([1.0, 2, 600, 4], mask=[0, 0, 1, 0]), "masked"),
    ([1.0, 2, 3], [1.0, NAN, 2], "0/1 column"), ([1.0, 2, 3], [1.0, 2], "x is"), ([1.0, NAN, 3], [1.0, 2, 3], "y must be finite"),
    ([[1.0, 2]], [[1.0, 2]], "y is"), ([], [], "empty"), ([1.0, 2, 3], [1.0, INF, 2], "0/1 column")])
def test_bad_covariates_are_refused(nb, y, x, word):
    with pytest.raises(ValueError, match=word):
        nb["cuped"](y, x)


# ---- parts of the page ------------------------------------------------------------------------------------------------------

def test_both_clocks_give_one_curve_for_other_cohorts():
    for gamma in (2, 5, 20):
        fade = (1 - 1 / gamma) ** np.arange(40)
        average = [(gamma * fade[t] + fade[:t].sum()) / (gamma + t) for t in range(40)]
        assert np.allclose(average, gamma / (gamma + np.arange(40)))


def test_exercises_do_not_repeat_a_mistake_as_the_solution():
    assert sorted(BOOK.solutions) == [f"52.{letter}" for letter in "ABCDEFGH"]


WRONG = [
    ("(2 * pooled * (1 - pooled) / torch.from_numpy(size)).sqrt()", "(pooled * (1 - pooled) / torch.from_numpy(size)).sqrt()", "52.1"),
    ("steps = normal(n, n_looks, seed=seed) + drift / math.sqrt(n_looks)", "steps = normal(n, n_looks, seed=seed) + drift / n_looks", "52.1"),
    ("density = normal_density(onward[:, None] - nodes - step) @ mass", "density = normal_density(onward[:, None] - nodes + step) @ mass", "52.2"),
    ("half = torch.minimum(bounds.cpu() * k.sqrt(), reach)", "half = torch.minimum(bounds.cpu() * k, reach)", "52.2"),
    ("return 1 + (stats.norm.pdf(b - mu) - stats.norm.pdf(b + mu)) / (mu *", "return 1 + (stats.norm.pdf(b - mu) + stats.norm.pdf(b + mu)) / (mu *", "52.3"),
    ("return float(stats.norm.sf(b - mu) + stats.norm.cdf(-b - mu))", "return float(stats.norm.sf(b - mu) - stats.norm.cdf(-b - mu))", "52.3"),
    ("torch.ones_like(k) if kind == \"pocock\" else (n_looks / k).sqrt()", "torch.ones_like(k) if kind == \"pocock\" else n_looks / k", "52.4"),
    ("spent = 2 * two_sided(stats.norm.isf(probability(alpha) / 4)", "spent = two_sided(stats.norm.isf(probability(alpha) / 2)", "52.5"),
    ("tau**2 * d**2 / (2 * s2 * (s2 + tau**2))", "tau**2 * d**2 / (s2 * (s2 + tau**2))", "52.6"),
    ("return (s2 / (s2 + tau**2)).log() / 2 +", "return (s2 / (s2 + tau**2)).log() +", "52.7"),
    ("(math.log(400) + (1 + tau**2 / s2).log())", "(math.log(20) + (1 + tau**2 / s2).log())", "52.8"),
    ("(math.log(400) + (1 + tau**2 / s2).log())", "(math.log(400) + (1 + tau / s2).log())", "52.9"),
    ("(torch.log1p(tau**2 / s2) - 2 * math.log(alpha))", "(torch.log1p(tau**2 / s2) - math.log(alpha))", "52.9"),
    ("return 1 - (1 - alpha) ** m", "return m * alpha * (1 - alpha) ** (m - 1)", "52.10"),
    ("factor = torch.arange(p.shape[-1], 0, -1, dtype=torch.float64", "factor = torch.arange(p.shape[-1], 0, -1, dtype=torch.float64).flip(-1).to(dtype=torch.float64",
     "52.11"),
    ("return (p * p.shape[-1]).clamp(max=1)", "return (p / p.shape[-1]).clamp(max=1)", "52.11"),
    ("return (p * p.shape[-1]).clamp(max=1)", "return (p * p.shape[1]).clamp(max=1)", "52.11"),
    ("stepped = scaled.flip(-1).cummin(-1).values.flip(-1).clamp(max=1)", "stepped = scaled.clamp(max=1)", "52.12"),
    ("V, R = rejected[:, 4:].sum(1).double(), rejected.sum(1).double()", "V, R = rejected[:, 4:].sum(1).double(), rejected[:, 4:].sum(1).double()", "52.13"),
    ("return Cuped(y - centred @ theta", "return Cuped(y + centred @ theta", "52.14"),
    ("with_theirs = difference_of(y - fit.params[2] * x, w)[0]", "with_theirs = difference_of(y + fit.params[2] * x, w)[0]", "52.15"),
    ("return share @ sd**2 / n", "return share**2 @ sd**2 / n", "52.16"),
    ("return (main / proxy) ** 2", "return main / proxy", "52.17"),
    ("fade = (1 - 1 / ARRIVAL) ** day", "fade = (1 - 1 / (ARRIVAL + 1)) ** day", "52.18"),
    ("return 1 + (M - 1) * kappa", "return 1 + M * kappa", "52.19"),
    ("return 2 * stats.norm.sf(b) + 2 * integrate.quad(inner, low, b)[0]", "return 2 * stats.norm.sf(b) + integrate.quad(inner, low, b)[0]", "52.20"),
]
test_wrong, test_right, test_every = wrong_variant_tests(BOOK, WRONG)
