"""Notebook 51: its public functions on inputs the page does not show, and its checks against broken formulas."""

import hashlib
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportions_ztest

from tests.book import book, wrong_variant_tests

BOOK = book("51")
SIDES = ("two-sided", "greater", "less")
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def normal(*shape, seed=0, mean=0.0, sd=1.0):
    return np.random.default_rng(seed).normal(mean, sd, shape)


# --- tests of a mean -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_one_and_two_samples_are_those_of_scipy(nb, side, alpha):
    x, y = normal(3, 2, 9, mean=0.5), normal(3, 2, 5, seed=1, sd=4)
    cases = [(nb["t_test"](x, 0.3, side, alpha), stats.ttest_1samp(x, 0.3, axis=-1, alternative=side)),
             (nb["welch_t_test"](x, y, side, alpha), stats.ttest_ind(x, y, axis=-1, equal_var=False, alternative=side)),
             (nb["pooled_t_test"](x, y, side, alpha), stats.ttest_ind(x, y, axis=-1, equal_var=True, alternative=side))]
    for ours, judge in cases:
        ends = judge.confidence_interval(1 - alpha)
        assert ours.statistic.shape == ours.df.shape == ours.p_value.shape == ours.estimate.shape == (3, 2) and ours.interval.shape == (3, 2, 2)
        assert ours.statistic.dtype == torch.float64
        for a, b in ((ours.statistic, judge.statistic), (ours.df, judge.df), (ours.p_value, judge.pvalue), (ours.interval[..., 0], ends.low),
                     (ours.interval[..., 1], ends.high)):
            assert np.allclose(a, b, atol=1e-9)
    assert np.allclose(cases[0][0].estimate, x.mean(-1)) and np.allclose(cases[1][0].estimate, x.mean(-1) - y.mean(-1))


@pytest.mark.parametrize("side", SIDES)
def test_z_test(nb, side):
    x, law = normal(4, 7), stats.norm(0.2, 3 / math.sqrt(7))
    found = nb["z_test"](x, 3.0, 0.2, side)
    tails = {"less": law.cdf(x.mean(-1)), "greater": law.sf(x.mean(-1))}
    tails["two-sided"] = 2 * np.minimum(*tails.values())
    assert np.allclose(found.p_value, tails[side]) and (found.df == INF).all() and found.df.shape == (4,)
    assert nb["z_test"]([1.0], 2.0).statistic.shape == ()
    assert np.allclose(nb["z_test"](x, [1.0, 2, 3, 4]).statistic, x.mean(-1) * math.sqrt(7) / [1, 2, 3, 4])


def test_an_interval_is_open_where_the_alternative_is(nb):
    x, y = normal(6), normal(5, seed=2)
    for found in (lambda s: nb["z_test"](x, 1.0, 0.0, s), lambda s: nb["t_test"](x, 0.0, s), lambda s: nb["welch_t_test"](x, y, s),
                  lambda s: nb["proportion_z_test"]([3, 5], [9, 9], s)):
        assert found("greater").interval[1] == INF and found("less").interval[0] == -INF
        assert found("greater").interval[0].isfinite() and found("less").interval[1].isfinite()
        assert found("greater").statistic == found("less").statistic == found("two-sided").statistic
        assert found("greater").p_value + found("less").p_value == pytest.approx(1)


def test_batches_broadcast(nb):
    x, y = normal(3, 1, 6), normal(4, 5, seed=3)
    found = nb["welch_t_test"](x, y)
    assert found.statistic.shape == (3, 4) and found.interval.shape == (3, 4, 2)
    assert found.statistic[2, 1] == pytest.approx(stats.ttest_ind(x[2, 0], y[1], equal_var=False).statistic)


def test_groups_without_variance_give_nan(nb):
    flat = np.full(7, 0.1)                  # 0.1 has no exact mean: the sum of squares is not 0 by luck
    for found in (nb["t_test"](flat), nb["welch_t_test"](flat, np.full(4, 0.3)), nb["pooled_t_test"](flat, np.full(4, 0.3))):
        assert found.statistic.isnan() and found.p_value.isnan() and found.interval.isnan().all() and not found.estimate.isnan()
    both = nb["t_test"](np.stack([flat, np.arange(7.0)]))
    assert both.p_value.isnan().tolist() == [True, False]
    one = nb["welch_t_test"](flat, [1.0, 2, 4])                 # the other group still has a variance
    assert one.statistic.isfinite() and one.df == pytest.approx(2)
    for side in ("greater", "less"):
        assert nb["t_test"](flat, 0.0, side).interval.isnan().all()


@pytest.mark.parametrize("name, arguments", [
    ("t_test", ([1.0, NAN],)), ("t_test", ([1.0, INF],)), ("t_test", ([1.0],)), ("t_test", (3.0,)), ("t_test", ([],)),
    ("t_test", ([1.0, 2.0], 0.0, "both")), ("t_test", ([1.0, 2.0], 0.0, "two-sided", 0.0)), ("t_test", ([1.0, 2.0], 0.0, "two-sided", 1.0)),
    ("t_test", ([1.0, 2.0], 0.0, "two-sided", NAN)), ("t_test", (["a", "b"],)), ("z_test", ([1.0, 2.0], 0.0)), ("z_test", ([1.0, 2.0], -1.0)),
    ("z_test", ([1.0, 2.0], NAN)), ("z_test", ([1.0, 2.0], INF)), ("z_test", ([], 1.0)), ("welch_t_test", ([1.0, 2.0], [1.0])),
    ("welch_t_test", ([1.0, 2.0], [1.0, NAN])), ("welch_t_test", ([1.0, 2.0], [1.0, 3.0], "bigger")), ("pooled_t_test", ([1.0], [1.0, 3.0])),
    ("proportion_z_test", ([1, 2, 3], [4, 5, 6])), ("proportion_z_test", ([5, 2], [4, 5])), ("proportion_z_test", ([-1, 2], [4, 5])),
    ("proportion_z_test", ([1.5, 2], [4, 5])), ("proportion_z_test", ([0, 0], [0, 5])), ("proportion_z_test", ([1, NAN], [4, 5])),
    ("proportion_z_test", ([1, 2], [4, 5.5])), ("srm_test", ([10, 20], [0.5, 0.6])), ("srm_test", ([10, 20], [0.0, 1.0])),
    ("srm_test", ([10, -1], [0.5, 0.5])), ("srm_test", ([10.5, 1], [0.5, 0.5])), ("srm_test", ([0, 0], [0.5, 0.5])),
    ("srm_test", ([1, 2, 3], [0.5, 0.5])), ("srm_test", ([[1, 2]], [[0.5, 0.5]])), ("ratio_metric", ([1.0, 2], [1.0, 2, 3])), ("ratio_metric", ([1.0, 2], [1.0, -2])),
    ("ratio_metric", ([1.0, NAN], [1.0, 2])), ("mann_whitney_u", ([], [1.0])), ("mann_whitney_u", ([[1.0]], [1.0])),
    ("mann_whitney_u", ([1.0], [NAN])), ("mann_whitney_u", ([1.0], [2.0], "larger")), ("mann_whitney_u", ([1.0], [2.0], "less", "normal")),
    ("sample_size", (0.0, 1.0)), ("sample_size", (NAN, 1.0)), ("sample_size", (1.0, 0.0)), ("sample_size", (1.0, INF)),
    ("sample_size", (1.0, 1.0, 0.0)), ("sample_size", (1.0, 1.0, 0.05, 1.0)), ("sample_size", (1.0, 1.0, 0.05, 0.05)),
    ("sample_size", (1.0, 1.0, 0.05, 0.8, 0.0)), ("sample_size", (1.0, 1.0, 0.05, 0.8, 1.0, "one-sided")), ("detectable_effect", (0, 10, 1.0)),
    ("detectable_effect", (10, 10, -1.0)), ("detectable_effect", (10, 10, 1.0, 1.5)), ("assign_group", (1, "s", [0.5, 0.6])),
    ("assign_group", (1, "s", [])), ("assign_group", (1, "s", [1.5, -0.5])), ("assign_group", (1, "s", [NAN, 0.5])),
    ("assign_group", (5.0, "s", [0.5, 0.5])), ("assign_group", (None, "s", [0.5, 0.5])), ("assign_group", (b"5", "s", [0.5, 0.5])),
    ("assign_group", (np.float32(5), "s", [0.5, 0.5])), ("assign_group", (torch.tensor(5.0), "s", [0.5, 0.5])), ("assign_group", (True, "s", [0.5, 0.5])),
    ("assign_group", ([1, 2], "s", [0.5, 0.5])), ("assign_group", (1, None, [0.5, 0.5])), ("t_test", ([1.0, 2.0], NAN)), ("t_test", ([1.0, 2.0], "a")),
    ("t_test", (np.ones((2, 5)), [1.0, 2.0, 3.0])), ("z_test", (np.ones((3, 5)), [1.0, 2.0])), ("welch_t_test", (np.ones((3, 5)), np.ones((2, 5)))),
    ("pooled_t_test", (np.ones((3, 5)), np.ones((2, 5)))), ("ratio_metric", (np.ones((2, 5)), np.ones((3, 5)))), ("proportion_z_test", ([1, 2], 10)),
    ("sample_size", ("0.1", 1.0)), ("sample_size", (None, 1.0)), ("sample_size", (np.array([0.1, 0.2]), 1.0)), ("detectable_effect", ("10", 10, 1.0)),
    ("assign_group", (1, "s", {"A": 0.5, "B": 0.5})), ("assign_group", (1, "s", [50, 50])),
    ("t_test", ([1.0, 2.0], 0.0, "two-sided", "0.05")), ("t_test", ([1.0, 2.0], 0.0, "two-sided", np.array([0.05, 0.1]))),
    ("t_test", ([1.0, 2.0], 0.0, ["greater"])), ("t_test", (np.ma.array([1.0, 2, 3, 99], mask=[0, 0, 0, 1]),)),
])
def test_bad_input_is_refused_and_says_what_to_do(nb, name, arguments):
    with pytest.raises(ValueError) as refused:
        nb[name](*arguments)
    assert len(str(refused.value)) > 25, refused.value


def test_values_that_are_equal_up_to_rounding_have_no_variance(nb):
    third = nb["t_test"]([0.1 + 0.2, 0.3, 0.3])
    assert third.statistic.isnan() and third.p_value.isnan() and third.interval.isnan().all()
    assert nb["t_test"]([1e6, 1e6 + 1e-6, 1e6]).statistic.isfinite(), "a small spread is one"
    ratio, error = nb["ratio_metric"]([0.1, 0.2, 0.3], [1, 2, 3])
    assert ratio == pytest.approx(0.1) and error == 0


def test_null_values_and_shares_of_every_kind(nb):
    x = normal(3, 6)
    by_list = nb["t_test"](x, [1.0, 2.0, 3.0]).statistic
    assert torch.equal(by_list, nb["t_test"](x, np.array([1.0, 2.0, 3.0])).statistic) and torch.equal(by_list, nb["t_test"](x, torch.tensor([1, 2, 3])).statistic)
    assert by_list[1] == pytest.approx(stats.ttest_1samp(x[1], 2.0).statistic)
    assert nb["z_test"](x[0], [1.0, 2.0]).statistic.shape == nb["z_test"](x[0], 1.0, [0.0, 1.0]).p_value.shape == (2,)
    assert nb["assign_group"](3, "s", np.array([0.1, 0.2, 0.7], "float32")) == nb["assign_group"](3, "s", [0.1, 0.2, 0.7])


def test_the_bootstrap_takes_the_pair_of_torchs_median(nb):
    x = torch.as_tensor(normal(31))
    ends = [nb["bootstrap_interval"]((x,), f, 200, 0.05, method, torch.Generator().manual_seed(1))
            for method in ("percentile", "basic") for f in (lambda x: x.median(-1), lambda x: x.median(-1).values)]
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[2], ends[3]) and (ends[0][0] < x.median() < ends[0][1])


def test_what_people_have(nb):
    import pandas as pd
    x, y = [1, 2, 4, 7], [0, 1, 1, 3, 2]
    expected = nb["welch_t_test"](x, y)
    frame = pd.Series(x, index=[5, 6, 7, 8])
    for a in (np.array(x), torch.tensor(x), torch.tensor(x, dtype=torch.float16), frame, tuple(x), torch.tensor(x, dtype=torch.uint8),
              torch.tensor(x, dtype=torch.float32, requires_grad=True)):
        assert nb["welch_t_test"](a, y).p_value == pytest.approx(float(expected.p_value), abs=1e-12)
    assert nb["srm_test"](pd.Series([10, 20]), torch.tensor([0.5, 0.5], dtype=torch.float32)).df == 1


# --- proportions, SRM, ratios --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("side, name", [("two-sided", "two-sided"), ("greater", "larger"), ("less", "smaller")])
def test_proportions(nb, side, name):
    k, n = np.array([[4, 9], [13, 2]]), np.array([20, 25])
    found = nb["proportion_z_test"](k, n, side)
    for row in range(2):
        z, p = proportions_ztest(k[row], n, alternative=name)
        assert found.statistic[row] == pytest.approx(z) and found.p_value[row] == pytest.approx(p)
    assert torch.allclose(found.estimate, torch.tensor([4 / 20 - 9 / 25, 13 / 20 - 2 / 25], dtype=torch.float64))


def test_proportions_at_the_border(nb):
    for k in ([0, 0], [9, 8]):
        found = nb["proportion_z_test"](k, [9, 8])
        assert found.statistic.isnan() and found.p_value.isnan() and found.interval.isnan().all() and found.estimate == 0
    sure = nb["proportion_z_test"]([9, 0], [9, 8])                        # the pooled error is not 0, the own ones are
    assert sure.statistic > 4 and sure.p_value < 1e-4 and sure.interval.isnan().all()


def test_srm(nb):
    counts = np.array([[90, 60, 150], [100, 100, 100]])
    judge = stats.chisquare(counts, 300 * np.array([0.3, 0.2, 0.5]), axis=1)
    found = nb["srm_test"](counts, [0.3, 0.2, 0.5])
    assert np.allclose(found.statistic, judge.statistic) and np.allclose(found.p_value, judge.pvalue) and (found.df == 2).all()
    assert found.statistic[0] == pytest.approx(0, abs=1e-12) and found.p_value[0] == pytest.approx(1)


def test_ratio_metric(nb):
    rng = np.random.default_rng(3)
    b = rng.integers(1, 9, (2, 40))
    a = rng.binomial(b, 0.3)
    ratio, error = nb["ratio_metric"](a, b)
    assert ratio.shape == error.shape == (2,)
    for k in range(2):
        gradient = np.array([1 / b[k].mean(), -a[k].mean() / b[k].mean() ** 2])
        assert ratio[k] == pytest.approx(a[k].sum() / b[k].sum())
        assert error[k] == pytest.approx(math.sqrt(gradient @ np.cov(a[k], b[k]) @ gradient / 40))
    mean, plain = nb["ratio_metric"](a, np.ones_like(a))                   # one view each: an ordinary mean
    assert np.allclose(mean, a.mean(-1)) and np.allclose(plain, a.std(-1, ddof=1) / math.sqrt(40))
    empty = nb["ratio_metric"]([1.0, 2.0], [0.0, 0.0])
    assert empty[0].isnan() and empty[1].isnan()


# --- ranks ---------------------------------------------------------------------------------------------------------------

def by_subsets(x, y):
    rank = stats.rankdata([*x, *y])
    sums, seen = np.array([sum(c) for c in combinations(rank, len(x))]), rank[:len(x)].sum()
    less, greater = (sums <= seen + 1e-9).mean(), (sums >= seen - 1e-9).mean()
    return {"less": less, "greater": greater, "two-sided": min(1, 2 * min(less, greater))}


@pytest.mark.parametrize("x, y", [([1, 2, 2], [2, 3, 4, 4]), ([5], [1, 2, 3]), ([1], [1]), ([3, 1, 2], [0]), ([0, 0, 1, 9], [0, 0, 0, 5, 9])])
@pytest.mark.parametrize("side", SIDES)
def test_exact_ranks_are_the_count_of_all_subsets(nb, x, y, side):
    found = nb["mann_whitney_u"](x, y, side)
    assert found.method == "exact" and found.p_value == pytest.approx(by_subsets(x, y)[side], abs=1e-12)
    assert found.U1 == sum((a < b) + 0.5 * (a == b) for a in x for b in y) and found.U1 + found.U2 == len(x) * len(y)


@pytest.mark.parametrize("side", SIDES)
def test_ranks_against_scipy(nb, side):
    x, y = normal(12, mean=0.6), normal(9, seed=5)
    for method in ("exact", "asymptotic"):
        judge = stats.mannwhitneyu(x, y, alternative=side, method=method)
        found = nb["mann_whitney_u"](x, y, side, method)
        assert found.p_value == pytest.approx(judge.pvalue, abs=1e-12) and found.U2 == judge.statistic and found.method == method
    tied = np.round(normal(70, mean=0.2), 1), np.round(normal(80, seed=6), 1)
    judge = stats.mannwhitneyu(*tied, alternative=side, method="asymptotic")
    assert nb["mann_whitney_u"](*tied, side).p_value == pytest.approx(judge.pvalue, abs=1e-12)


def test_which_method_is_used_and_the_sign_of_z(nb):
    assert nb["mann_whitney_u"](normal(25), normal(25, seed=1)).method == "exact"
    assert nb["mann_whitney_u"](normal(25), normal(26, seed=1)).method == "asymptotic"
    high, low = np.arange(10.0) + 20, np.arange(10.0)
    assert nb["mann_whitney_u"](high, low).z > 3 and nb["mann_whitney_u"](low, high).z < -3
    assert nb["mann_whitney_u"](high, low, "greater").p_value < 1e-4 < 0.99 < nb["mann_whitney_u"](high, low, "less").p_value
    found = nb["mann_whitney_u"](high, low)
    assert found.z == pytest.approx(50 / math.sqrt(10 * 10 * 21 / 12)), "without the continuity correction"


def test_exact_ranks_cost_the_same_either_way_round(nb, monkeypatch):
    x, y = np.round(normal(40, mean=0.4), 1), np.round(normal(5, seed=3), 1)
    law, asked = nb["rank_sum_law"], []
    monkeypatch.setitem(nb["exact_tails"].__globals__, "rank_sum_law", lambda ranks, n1: asked.append(n1) or law(ranks, n1))
    for side, other in (("two-sided", "two-sided"), ("less", "greater"), ("greater", "less")):
        assert nb["mann_whitney_u"](x, y, side, "exact").p_value == pytest.approx(float(nb["mann_whitney_u"](y, x, other, "exact").p_value), abs=1e-12)
    assert set(asked) == {5}


def test_equal_values(nb):
    found = nb["mann_whitney_u"](np.ones(3), np.ones(4))
    assert found.z.isnan() and found.p_value == 1 and found.U1 == found.U2 == 6
    assert nb["mann_whitney_u"](np.ones(3), np.ones(4), "two-sided", "asymptotic").p_value.isnan()


def test_large_samples_keep_their_ranks(nb):
    n = 60_000
    found = nb["mann_whitney_u"](np.arange(n) * 2.0, np.arange(n) * 2.0 + 1)
    assert found.U1 + found.U2 == n * n and found.U1 == n * (n + 1) / 2


# --- planning, bootstrap, splitting --------------------------------------------------------------------------------------

@pytest.mark.parametrize("delta, sigma, alpha, power, ratio", [(0.2, 1.0, 0.05, 0.8, 1.0), (-0.2, 1.0, 0.05, 0.8, 1.0), (1.5, 4.0, 0.01, 0.95, 0.5),
                                                               (0.03, 1.0, 0.1, 0.9, 4.0)])
@pytest.mark.parametrize("side, name", [("two-sided", "two-sided"), ("greater", "larger"), ("less", "larger")])
def test_sample_size_is_that_of_statsmodels(nb, delta, sigma, alpha, power, ratio, side, name):
    n1, n2 = nb["sample_size"](delta, sigma, alpha, power, ratio, side)
    judge = NormalIndPower().solve_power(abs(delta) / sigma, None, alpha, power, ratio, name)
    assert isinstance(n1, int) and isinstance(n2, int)
    assert n1 - 1 < judge * (1 + 1e-4) and judge * (1 - 1e-4) <= n1 and n2 == math.ceil(ratio * n1)
    assert nb["detectable_effect"](n1, n2, sigma, alpha, power, side) <= abs(delta) * (1 + 1e-12)
    assert nb["detectable_effect"](n1 - 1, ratio * (n1 - 1), sigma, alpha, power, side) > abs(delta) * (1 - 1e-12)


def test_planning_defaults(nb):
    assert nb["sample_size"](torch.tensor(1.0), np.float32(1.0), torch.tensor(0.05)) == (16, 16)
    assert nb["sample_size"](1.0, 1.0) == (16, 16)                        # 2 (1.96 + 0.84)² = 15.7
    assert nb["detectable_effect"](100, 100, 2.0) == pytest.approx(2 * (1.959964 + 0.841621) * math.sqrt(0.02), rel=1e-6)


def test_bootstrap(nb):
    x, y = torch.as_tensor(normal(30)), torch.as_tensor(normal(50, seed=1))
    difference = lambda a, b: a.mean(-1) - b.mean(-1)  # noqa: E731

    def interval(seed=1, **options):
        return nb["bootstrap_interval"]((x, y), difference, generator=torch.Generator().manual_seed(seed), **options)

    first = interval()
    assert first.shape == (2,) and first[0] < difference(x, y) < first[1] and torch.equal(first, interval()) and not torch.equal(first, interval(2))
    basic = interval(method="basic")
    assert torch.allclose(basic, 2 * difference(x, y) - first.flip(0))
    narrow = interval(alpha=0.5)
    assert first[0] < narrow[0] < narrow[1] < first[1]
    welch = nb["welch_t_test"](x, y).interval
    assert torch.allclose(interval(n_resamples=20_000), welch, atol=0.05)
    seen = []
    nb["bootstrap_interval"](([1.0, 2, 3],), lambda a: seen.append(tuple(a.shape)) or a.mean(-1), 17)
    assert (17, 3) in seen


@pytest.mark.parametrize("arguments, options", [
    ((torch.ones(5), lambda x: x.mean(-1)), {}), (((), lambda: 0), {}), ((([1.0, NAN],), lambda x: x.mean(-1)), {}),
    ((([[1.0, 2.0]],), lambda x: x.mean(-1)), {}), ((([1.0, 2.0],), lambda x: x.mean()), {}), ((([1.0, 2.0],), lambda x: x.mean(-1)), {"method": "bca"}),
    ((([1.0, 2.0],), lambda x: x.mean(-1)), {"alpha": 1.0}), ((([1.0, 2.0],), lambda x: x.mean(-1)), {"n_resamples": 1}),
    ((([1.0, 2.0],), lambda x: x.mean(-1)), {"n_resamples": 10.5}), ((([1.0, 2.0],), lambda x: x.mean(-1)), {"generator": 3}),
    ((([1.0, 2.0],), lambda x: x.mean(-1)), {"generator": np.random.default_rng(3)})])
def test_bootstrap_refuses(nb, arguments, options):
    with pytest.raises(ValueError) as refused:
        nb["bootstrap_interval"](*arguments, **options)
    assert len(str(refused.value)) > 25


def test_assign_group(nb):
    def by_hand(user, salt, shares):
        u, end = int.from_bytes(hashlib.sha256(f"{salt}:{user}".encode()).digest()[:8], "big") / 2**64, 0.0
        for g, share in enumerate(shares):
            end += share
            if end > u:
                return g

    shares = [0.05, 0.0, 0.15, 0.8]
    groups = [nb["assign_group"](k, "salt", shares) for k in range(3000)]
    assert groups == [by_hand(k, "salt", shares) for k in range(3000)] and 1 not in groups and isinstance(groups[0], int)
    assert nb["assign_group"]("юзер-7", "соль", [0.5, 0.5]) == by_hand("юзер-7", "соль", [0.5, 0.5])
    assert nb["assign_group"](7, "s", [0.5, 0.5]) == nb["assign_group"]("7", "s", [0.5, 0.5]) == nb["assign_group"](np.int64(7), "s", np.array([0.5, 0.5]))
    assert nb["assign_group"](1, "s", [0, 1.0]) == 1 and nb["assign_group"](1, "s", [1.0]) == 0
    assert set(nb["assign_group"](k, "ten", [0.1] * 10) for k in range(500)) == set(range(10))


def test_a_sum_of_shares_just_below_one_leaves_nobody_out(nb, monkeypatch):
    class Top:                                                             # the largest hash there is
        def __init__(self, _):
            pass

        def digest(self):
            return b"\xff" * 32

    monkeypatch.setattr(hashlib, "sha256", Top)
    assert nb["assign_group"](1, "s", [0.1] * 10) == 9
    assert nb["assign_group"](1, "s", [0.1] * 10 + [0.0]) == 9


def test_no_argument_is_changed(nb):
    x, y = torch.tensor([1.0, 2, 2]), torch.tensor([2.0, 5])
    before = x.clone(), y.clone()
    nb["mann_whitney_u"](x, y), nb["welch_t_test"](x, y), nb["bootstrap_interval"]((x, y), lambda a, b: a.mean(-1) - b.mean(-1), 20)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


# --- the checks of the page ----------------------------------------------------------------------------------------------

# Wrong variants of each formula: where, what it becomes, and the equation whose check must notice.
MUTANTS = [
    ("return activity, without, without + 1.0, chose", "return activity, without, without + 1.3, chose", "51.1"),
    ("chose = rng.random(n) < special.expit(choice * activity)", "chose = rng.random(n) < special.expit(-choice * activity)", "51.1"),
    ('int.from_bytes(digest[:8], "big")', 'int.from_bytes(digest[:8], "little")', "51.2"),
    ('f"{salt}:{user_id}".encode()).digest()', 'f"{user_id}:{salt}".encode()).digest()', "51.2"),
    ("if u < end * 2**64), None)", "if u > end * 2**64), None)", "51.2"),
    ("for g, end in enumerate(accumulate(shares))", "for g, end in enumerate(shares)", "51.2"),
    ("chi2 = ((counts - expected) ** 2 / expected).sum(-1)", "chi2 = ((counts - expected) ** 2 / counts).sum(-1)", "51.3"),
    ("df = torch.full_like(chi2, len(shares) - 1)", "df = torch.full_like(chi2, len(shares))", "51.3"),
    ("lam = n * sum((b - a) ** 2 / a for", "lam = n * sum((b - a) ** 2 for", "51.4"),
    ("lam = n * sum((b - a) ** 2 / a for", "lam = n / 2 * sum((b - a) ** 2 / a for", "51.4"),
    ("[[1, 1 / n, 2 / math.sqrt(n)] for n in sizes]", "[[1, 1 / n, 2 / n] for n in sizes]", "51.5"),
    ("edgeworth = normal + 2 / (6 * np.sqrt(sizes))", "edgeworth = normal - 2 / (6 * np.sqrt(sizes))", "51.6"),
    ("edgeworth = normal + 2 / (6 * np.sqrt(sizes))", "edgeworth = normal + 2 / (3 * np.sqrt(sizes))", "51.6"),
    ("error = sigma / math.sqrt(x.shape[-1]) + 0", "error = sigma / x.shape[-1] + 0", "51.7"),
    ("return conclude(x.mean(-1), error, infinite, mean0,", "return conclude(x.mean(-1), error, infinite, -mean0,", "51.7"),
    ("s2 = ((x - x.mean(-1, keepdim=True)) ** 2).sum(-1) / (n - 1)", "s2 = ((x - x.mean(-1, keepdim=True)) ** 2).sum(-1) / n", "51.8"),
    ("df = torch.tensor(float(n - 1), dtype", "df = torch.tensor(float(n), dtype", "51.9"),
    ("(variance(x) / n).sqrt(), df, mean0", "(variance(x) * n).sqrt(), df, mean0", "51.9"),
    ("against = -statistic.abs() if side == 0 else -side * statistic", "against = -statistic.abs() if side == 0 else side * statistic", "51.9"),
    ("law(special.stdtr, df, against) * (2 if side == 0 else 1)", "law(special.stdtr, df, against)", "51.9"),
    ("reach if side != -1 else infinite), (reach if side != 1", "reach if side != 1 else infinite), (reach if side != -1", "51.9"),
    ("tail = torch.tensor(1 - alpha / (2 if side == 0 else 1)", "tail = torch.tensor(1 - alpha / 2", "51.9"),
    ("s2 = ((n - 1) * variance(x) + (m - 1) * variance(y)) / (n + m - 2)", "s2 = (n * variance(x) + m * variance(y)) / (n + m)", "51.10"),
    ("(s2 / n + s2 / m).sqrt(), df, 0.0", "(s2 / n - s2 / m).sqrt(), df, 0.0", "51.10"),
    ("total = v + w\n    df = total", "total = v - w\n    df = total", "51.10"),
    ("df = total**2 / (v**2 / (x.shape[-1] - 1) + w**2", "df = total**2 / (v**2 / (y.shape[-1] - 1) + w**2", "51.11"),
    ("by_formula = (v + w) ** 2 / (v**2 / 4 + w**2 / 19)", "by_formula = (v + w) ** 2 / (v**2 / 5 + w**2 / 20)", "51.11"),
    ("both = successes.sum(-1) / trials.sum(-1)", "both = rate.mean(-1)", "51.12"),
    ("own = (rate * (1 - rate) / trials).sum(-1).sqrt()", "own = pooled", "51.12"),
    ("0.0, alternative, alpha, pooled)", "0.0, alternative, alpha)", "51.12"),
    ("residual = a - ratio.unsqueeze(-1) * b", "residual = a - b", "51.13"),
    ("error = ((residual**2).sum(-1) / (n - 1) / n).sqrt() / (total / n)", "error = ((residual**2).sum(-1) / (n - 1) / n).sqrt()", "51.13"),
    ("residual = a - ratio.unsqueeze(-1) * b", "residual = a + ratio.unsqueeze(-1) * b", "51.14"),
    ('check("51.14", "the residuals sum to 0", (a - r * b)', 'check("51.14", "the residuals sum to 0", (a - 1.01 * r * b)', "51.14"),
    ("rho = 1 / (1 + tau)", "rho = 1 / (2 + tau)", "51.15"),
    ("return 1 + (b - 1) * rho", "return 1 + b * rho", "51.15"),
    ("wrong = 2 * stats.norm.sf(1.96 / math.sqrt(factor))", "wrong = 2 * stats.norm.sf(1.96)", "51.15"),
    ("U1 = n1 * n2 + n1 * (n1 + 1) / 2 - rank_sum", "U1 = rank_sum - n1 * (n1 + 1) / 2", "51.16"),
    ("+ torch.searchsorted(ordered, values, right=True) + 1)", "+ torch.searchsorted(ordered, values) + 1)", "51.16"),
    ("U2 = n1 * n2 - U1", "U2 = n1 * n2 + U1", "51.17"),
    ("take = np.clip((n1 - chosen) / (N - i), 0, 1)[:, None]", "take = np.clip((n1 - chosen) / N, 0, 1)[:, None]", "51.18"),
    ("W[1:, v:] += taken", "W[1:, v:] -= taken", "51.18"),
    ("for part in (law[:observed + 1], law[observed:])]", "for part in (law[:observed], law[observed:])]", "51.18"),
    ("p = {1: tails[1], -1: tails[0], 0:", "p = {1: tails[0], -1: tails[1], 0:", "51.18"),
    ("0: min(2 * min(tails), 1.0)}", "0: min(2 * max(tails), 1.0)}", "51.18"),
    ("(s * away + 0.5) / sd", "(s * away) / sd", "51.19"),
    ("(N + 1 - (tied**3 - tied).sum()", "(N + 1 + (tied**3 - tied).sum()", "51.19"),
    ("away = U2 - n1 * n2 / 2", "away = U1 - n1 * n2 / 2", "51.19"),
    ("by_density = 12 * law_of.var() * square**2", "by_density = 12 * law_of.var() * square", "51.20"),
    ("by_density = 12 * law_of.var() * square**2", "by_density = 6 * law_of.var() * square**2", "51.20"),
    ("law(special.stdtrit, df, tail) * error", "law(special.stdtrit, df, tail - 0.02) * error", "51.21"),
    ("level_overlap = 2 * stats.norm.cdf(-math.sqrt(2)", "level_overlap = 2 * stats.norm.cdf(-math.sqrt(3)", "51.22"),
    ("2 * reduced(*samples) - q.flip(0)", "2 * reduced(*samples) - q", "51.23"),
    ("star.new_tensor([alpha / 2, 1 - alpha / 2])", "star.new_tensor([alpha, 1 - alpha])", "51.23"),
    ("torch.randint(len(x), (n_resamples, len(x))", "torch.randint(len(x), (n_resamples, 2 * len(x))", "51.23"),
    ("law(special.stdtr, df, against) * (2 if side == 0 else 1)", "law(special.stdtr, df, against / 1.1) * (2 if side == 0 else 1)", "51.24"),
    ("(nulls * alpha + (1 - nulls) * power)", "(nulls * alpha + nulls * power)", "51.25"),
    ("return nulls * alpha / (nulls", "return nulls * power / (nulls", "51.25"),
    ("expected = false_share(nulls, at)", "expected = false_share(nulls)", "51.25"),
    ("q, law = stats.norm.ppf(1 - alpha / 2), stats.norm", "q, law = stats.norm.ppf(0.975), stats.norm", "51.26"),
    ("return planned(alpha, power, alternative) * float", "return planned(alpha, power, 'two-sided') * float", "51.28"),
    ("return conclude(x.mean(-1), (variance(x) / n).sqrt(), df, mean0, alternative, alpha)",
     "return conclude(x.mean(-1), (variance(x) / n).sqrt(), df, mean0, alternative, 0.05)", "51.9"),
    ("infinite, 0.0, alternative, alpha, pooled)", "infinite, 0.0, alternative, 0.05, pooled)", "51.12"),
    ("total.sqrt(), df, 0.0, alternative, alpha)", "total.sqrt(), df, 0.0, alternative, 0.05)", "51.10"),
    ("return low + high, low / (low + high),", "return low + high, high / (low + high),", "51.26"),
    ("shift * (high - low)", "shift * (high + low)", "51.26"),
    ("by_normal = stats.norm.cdf(effects / math.sqrt(2 / n_each)", "by_normal = stats.norm.cdf(effects / math.sqrt(1 / n_each)", "51.27"),
    ("float(sigma) * math.sqrt(1 / n1 + 1 / n2)", "float(sigma) * math.sqrt(1 / n1 + 2 / n2)", "51.28"),
    ("n1 = math.ceil((1 + 1 / ratio) *", "n1 = math.ceil((1 + ratio) *", "51.29"),
    ("tail = alpha / 2 if sides(alternative) == 0 else alpha", "tail = alpha / 2", "51.29"),
    ("return n1, math.ceil(ratio * n1)", "return n1, math.floor(ratio * n1)", "51.29"),
    ("(coming - 2 * n) * abs(effect) * wrong", "(coming - n) * abs(effect) * wrong", "51.30"),
    ("wrong = stats.norm.cdf(-abs(effect) / sigma *", "wrong = stats.norm.cdf(-abs(effect) * sigma *", "51.30"),
    ("wrong = stats.norm.cdf(-abs(effect) / sigma *", "wrong = stats.norm.cdf(-effect / sigma *", "51.30"),
    ("wrong = stats.norm.cdf(-abs(effect) / sigma * np.sqrt(n / 2))", "wrong = stats.norm.cdf(-abs(effect) / sigma * np.sqrt(n))", "51.30"),
    ("orders = rng.binomial(days, 0.02)", "orders = rng.binomial(days, 0.03)", "51.31"),
]

(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)
