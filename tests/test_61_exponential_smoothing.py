"""Notebook 61: its public functions on inputs the page does not show, and its checks against broken formulas."""

import math
import time

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from tests.book import book, wrong_variant_tests

BOOK = book("61")
NAN, INF = math.nan, math.inf


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def d(*values):
    return torch.tensor(values, dtype=torch.float64)


def series(n, period=1, seed=0, noise=1.0):
    """A positive series with trend and season."""
    rng, t = np.random.default_rng(seed), np.arange(n)
    return 100 + 0.8 * t + (15 * np.sin(2 * np.pi * t / period) if period > 1 else 0) + noise * rng.normal(size=n).cumsum()


PLUS = dict(alpha=0.3, beta=0.05, gamma=0.25, level=100.0, trend=1.0, season=[3.0, -1.0, -4.0, 2.0])
TIMES = PLUS | dict(season=[1.1, 0.9, 0.95, 1.05])


# ---- recursions -------------------------------------------------------------------------------------------------------------

def test_ses_by_hand_and_in_batches(nb):
    f = nb["ses"]
    assert f([1, 2, 3, 4, 5, 6], 0.5).tolist() == pytest.approx([1, 1, 1.5, 2.25, 3.125, 4.0625, 5.03125])
    assert f([4.0], 0.3, 2.0).tolist() == pytest.approx([2.0, 2.6])
    y = torch.randn(2, 3, 7, dtype=torch.float64)
    both = f(y, d(0.1, 0.5, 1.0), torch.zeros(2, 1))
    assert both.shape == (2, 3, 8)
    for i in range(2):
        for j, alpha in enumerate((0.1, 0.5, 1.0)):
            assert torch.allclose(both[i, j], f(y[i, j], alpha, 0.0))


@pytest.mark.parametrize("arguments, word", [(([1.0], 1.5), "alpha"), (([1.0], -0.1), "alpha"), (([1.0, NAN], 0.5), "finite"), (([], 0.5), "empty"),
                                             ((3.0, 0.5), "series"), ((["a"], 0.5), "numbers"), (([1.0], NAN), "alpha")])
def test_ses_refuses(nb, arguments, word):
    with pytest.raises(ValueError, match=word):
        nb["ses"](*arguments)


@pytest.mark.parametrize("seasonal, p", [("add", PLUS), ("mul", TIMES), (None, PLUS)])
@pytest.mark.parametrize("phi", [1.0, 0.85])
def test_holt_winters_is_statsmodels(nb, seasonal, p, phi):
    y = series(31, 4, 1)
    fitted, ahead = nb["holt_winters"](y, 4, **p, phi=phi, seasonal=seasonal, horizon=10)
    known = dict(initial_level=p["level"], initial_trend=p["trend"]) | ({"initial_seasonal": p["season"]} if seasonal else {})
    shares = dict(smoothing_level=0.3, smoothing_trend=0.05 / 0.3) | ({"smoothing_seasonal": 0.25} if seasonal else {}) | (
        {"damping_trend": phi} if phi < 1 else {})
    peer = ExponentialSmoothing(y, trend="add", damped_trend=phi < 1, seasonal=seasonal, seasonal_periods=4 if seasonal else None,
                                initialization_method="known", **known).fit(optimized=False, **shares)
    assert np.allclose(fitted, peer.fittedvalues, atol=1e-11)
    for h in range(1, 11):
        if h % 4 or not seasonal:
            assert float(ahead[h - 1]) == pytest.approx(peer.forecast(10)[h - 1], abs=1e-10)


def test_holt_winters_in_batches(nb):
    y = torch.tensor(np.stack([series(20, 4, k) for k in range(3)]))
    fitted, ahead = nb["holt_winters"](y, 4, d(0.1, 0.5, 0.9), 0.05, 0.1, 100.0, 0.0, torch.zeros(3, 4), horizon=5)
    assert fitted.shape == (3, 20) and ahead.shape == (3, 5)
    for k, alpha in enumerate((0.1, 0.5, 0.9)):
        one = nb["holt_winters"](y[k], 4, alpha, 0.05, 0.1, 100.0, 0.0, [0.0] * 4, horizon=5)
        assert torch.allclose(fitted[k], one[0]) and torch.allclose(ahead[k], one[1])
    assert nb["holt_winters"](y, 4, **PLUS)[1].shape == (3, 0)


@pytest.mark.parametrize("changed, word", [(dict(alpha=1.2), "alpha"), (dict(beta=-0.1), "beta"), (dict(gamma=2), "gamma"), (dict(phi=1.1), "phi"),
                                           (dict(season=[1.0, 2.0]), "season needs 4"), (dict(period=1), "period"), (dict(seasonal="additive"), "seasonal"),
                                           (dict(y=[1.0, NAN]), "finite"), (dict(y=[1.0, -2.0], seasonal="mul"), "above 0"), (dict(horizon=-1), "horizon")])
def test_holt_winters_refuses(nb, changed, word):
    with pytest.raises(ValueError, match=word):
        nb["holt_winters"](**dict(y=series(9), period=4) | PLUS | changed)


def test_thirty_names(nb):
    names = nb["ets_forms"]()
    assert len(names) == len(set(names)) == 30 and {"ANN", "AAdM", "MMdN", "MAM"} <= set(names)
    for bad in ("AAX", "aaa", "", "AAAd", "NNN"):
        with pytest.raises(ValueError, match="ets_forms"):
            nb["ETS"](bad, 4)
    for form in ("AAA", "ANM"):
        with pytest.raises(ValueError, match="period"):
            nb["ETS"](form)


def test_filter_of_a_batch_has_the_promised_shapes(nb):
    y = torch.tensor(np.stack([series(20, 4, k) for k in range(3)]))
    for form in nb["ets_forms"]():
        p = nb["example"](form) | {"level": 100.0}
        path = nb["ETS"](form, 4 if form[-1] != "N" else 1).filter(y, p)
        assert path.fitted.shape == path.error.shape == (3, 20) and path.level.shape == (3, 21)
        assert (path.trend is None) == (form[1] == "N") and (path.season is None) == (form[-1] == "N")
        assert path.trend is None or path.trend.shape == (3, 21)
        assert path.season is None or path.season.shape == (3, 24)
        assert torch.allclose(path.error, y / path.fitted - 1 if form[0] == "M" else y - path.fitted)


def test_parameters_may_be_batched(nb):
    y = series(15)
    model = nb["ETS"]("AAN")
    many = model.log_likelihood(y, {"alpha": d(0.1, 0.6), "beta": 0.05, "level": d(100, 99), "trend": 0.5})
    assert many.shape == (2,)
    assert float(many[1]) == pytest.approx(float(model.log_likelihood(y, {"alpha": 0.6, "beta": 0.05, "level": 99.0, "trend": 0.5})))


def test_log_likelihood_is_a_sum_of_log_densities(nb):
    y = series(25, 4)
    for form in ("AAA", "MAdM", "MNN", "AMdA"):
        p = nb["example"](form) | {"level": 100.0}
        model = nb["ETS"](form, 4)
        path = model.filter(y, p)
        s = float(path.error.square().mean().sqrt())
        scale = s * path.fitted if form[0] == "M" else s
        assert float(model.log_likelihood(y, p)) == pytest.approx(stats.norm.logpdf(y, path.fitted, scale).sum())


@pytest.mark.parametrize("form, y, p, word", [("AAA", [1.0] * 9, {"alpha": 0.1}, "beta, trend, gamma, season"), ("MNN", [1.0, 0.0], {"alpha": 0.1, "level": 1.0}, "above 0"),
                                              ("ANN", [1.0, 2.0], {"alpha": 1.1, "level": 1.0}, "alpha"), ("ANN", [1.0, INF], {"alpha": 0.1, "level": 1.0}, "finite"),
                                              ("ANA", [1.0] * 9, {"alpha": 0.1, "level": 1.0, "gamma": 0.1, "season": [1.0] * 3}, "season needs 4")])
def test_filter_refuses(nb, form, y, p, word):
    with pytest.raises(ValueError, match=word):
        nb["ETS"](form, 4).filter(y, p)


# ---- fitting ----------------------------------------------------------------------------------------------------------------

def test_fit_of_one_parameter_against_brute_force(nb):
    y = series(60, seed=3, noise=3.0) - 0.8 * np.arange(60)
    fit = nb["ETS"]("ANN").fit(y)
    grid = [-float(nb["ETS"]("ANN").log_likelihood(y, {"alpha": a, "level": m})) for a in np.linspace(0.02, 0.98, 49)
            for m in np.linspace(y[:5].min() - 5, y[:5].max() + 5, 41)]
    assert float(fit.log_likelihood(y, fit.params)) >= -min(grid) - 1e-3
    assert fit.n_params == 3 and fit.sigma2 == pytest.approx(float(fit.filter(y, fit.params).error.square().mean()))


@pytest.mark.parametrize("form", ["AAdA", "MAM", "MMdN", "MNA"])
def test_no_small_change_of_the_fit_is_better(nb, form):
    y = series(72, 6, 5)
    model = nb["ETS"](form, 6).fit(y)
    best = float(model.log_likelihood(y, model.params))
    assert model.aic == pytest.approx(2 * model.n_params - 2 * best, abs=1e-6)
    for name, value in model.params.items():
        for step in (0.99, 1.01):
            changed = {k: v.clone() for k, v in model.params.items()} | {name: value * step if name != "season" else value}
            if name in ("alpha", "beta", "gamma", "phi") and (min(step * float(value), 1) < 2e-3 or float(value) > 0.97):
                continue
            if not 0 <= float(changed[name].min() if name != "season" else 0) <= 1 and name in ("alpha", "beta", "gamma", "phi"):
                continue
            inside = float(changed.get("beta", 0)) <= float(changed["alpha"]) and float(changed.get("gamma", 0)) <= 1 - float(changed["alpha"])
            if inside:
                assert float(model.log_likelihood(y, changed)) <= best + 2e-2


def test_fit_keeps_the_usual_region_and_the_restriction(nb):
    y = series(60, 4, 2)
    for form, total in (("AAdA", 0), ("MAdM", 4), ("MMA", 0), ("AMM", 4)):
        p = nb["ETS"](form, 4).fit(y).params
        assert float(p["season"].sum()) == pytest.approx(total, abs=1e-6) and p["season"].shape == (4,)
        assert 0 <= p["beta"] <= p["alpha"] <= 1 and 0 <= p["gamma"] <= 1 - p["alpha"]
        assert "phi" not in p or 0.8 <= p["phi"] <= 0.98


def test_fit_finds_the_parameters_of_a_long_series(nb):
    paths = nb["paths_from"]("AAN", (50.0, 0.2, [0.0]), [d(v)[0] for v in (0.4, 0.1, 0.0, 1.0)], 1.0, 3000, 1, 5)
    p = nb["ETS"]("AAN").fit(paths[0]).params
    assert float(p["alpha"]) == pytest.approx(0.4, abs=0.08) and float(p["beta"]) == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("value", [0.0, 5.0, 1e6, -3.0])
def test_constant_series_have_a_defined_result(nb, value):
    model = nb["auto_ets"](np.full(30, value), 4)
    assert model.form == "ANN" and np.allclose(model.forecast(5), value) and math.isfinite(model.aicc)
    low, high = model.interval(5)
    assert np.allclose(low, value, atol=1e-3 * abs(value) + 1e-12) and np.allclose(high, value, atol=1e-3 * abs(value) + 1e-12)
    ahead, names = nb["auto_ets_many"]([np.full(20, value), series(30)], 1, 3)
    assert np.allclose(ahead[0], value) and names[0] == "ANN" and ahead.isfinite().all()


def test_every_form_fits_a_constant(nb):
    for form in nb["ets_forms"]():
        assert np.allclose(nb["ETS"](form, 4).fit([7.0] * 30).forecast(6), 7.0, atol=1e-2), form


def test_choice_respects_the_data(nb):
    y = series(60, 4)
    assert nb["auto_ets"](y, 4).form[-1] != "N" and nb["auto_ets"](y).form[-1] == "N"
    assert "M" not in nb["auto_ets"](y - 200, 4).form
    assert nb["auto_ets"](y[:7], 4).form[-1] == "N", "no season below two periods"
    assert nb["auto_ets"](y, 4, forms=["ANN", "AAN"]).form == "AAN"
    for criterion in ("aic", "aicc", "bic"):
        scores = {f: getattr(nb["ETS"](f, 4).fit(y), criterion) for f in ("ANN", "AAA", "MAM")}
        assert nb["auto_ets"](y, 4, forms=list(scores), criterion=criterion).form == min(scores, key=scores.get)


@pytest.mark.parametrize("call, word", [(lambda nb: nb["ETS"]("AAA", 12).fit(np.arange(17.0)), "too few"), (lambda nb: nb["ETS"]("MNN").fit([1.0] * 9 + [-1.0]), "above 0"),
                                        (lambda nb: nb["ETS"]("ANN").fit(np.ones((2, 9))), "one series"), (lambda nb: nb["auto_ets"]([1.0, 2.0]), "at least 5"),
                                        (lambda nb: nb["auto_ets"](series(30), criterion="mse"), "criterion"), (lambda nb: nb["auto_ets"](series(30), forms=["XYZ"]), "ets_forms"),
                                        (lambda nb: nb["auto_ets"](series(30) - 500, forms=["MNN"]), "positive"), (lambda nb: nb["auto_ets_many"]([], 1, 3), "no series"),
                                        (lambda nb: nb["auto_ets_many"]([series(9), [1.0, NAN]], 1, 3), "finite"), (lambda nb: nb["auto_ets_many"]([series(9), [1.0]], 1, 3), "series 1"),
                                        (lambda nb: nb["ETS"]("ANN").forecast(3), "fit"), (lambda nb: nb["ETS"]("ANN").fit(series(20)).forecast(0), "horizon"),
                                        (lambda nb: nb["ETS"]("ANN").fit(series(20)).interval(3, 95), "level")])
def test_fitting_refuses(nb, call, word):
    with pytest.raises(ValueError, match=word):
        call(nb)


def test_many_are_fitted_as_one_by_one(nb):
    many = [series(n, 4, n, 2.0) for n in (9, 17, 30, 31, 55, 80)]
    ahead, names = nb["auto_ets_many"](many, 4, 5)
    assert ahead.shape == (6, 5) and len(names) == 6
    for y, name, forecast in zip(many, names, ahead):
        alone = nb["auto_ets"](y, 4)
        assert alone.form == name and np.allclose(alone.forecast(5), forecast, rtol=2e-2)


def test_forecasts_do_not_blow_up(nb):
    rng = np.random.default_rng(0)
    wild = [np.exp(rng.normal(0, 1, n).cumsum() / 3) for n in rng.integers(10, 200, 40)] + [np.r_[np.full(30, 5.0), 500.0], np.r_[np.zeros(20), 1, 40, 900]]
    ahead, names = nb["auto_ets_many"](wild, 1, 12)
    for y, forecast in zip(wild, ahead.numpy()):
        width = (y.max() - y.min()) * (1 + 12 / len(y))
        assert (forecast >= max(y.min() - width, 0) - 1e-6).all() and (forecast <= y.max() + width + 1e-6).all()


def test_many_long_series_take_seconds(nb):
    rng = np.random.default_rng(1)
    long = [50 + rng.normal(0, 1, n).cumsum() + rng.normal(0, 2, n) for n in np.geomspace(80, 1200, 24).astype(int)]
    start = time.process_time()
    ahead, _ = nb["auto_ets_many"](long, 1, 13)
    assert time.process_time() - start < 60 and ahead.isfinite().all()


# ---- forecasts --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["ANN", "AAdA", "MAM", "MMdM", "AMA"])
def test_forecast_is_the_filter_run_on_without_errors(nb, form):
    y = series(40, 4, 7)
    model = nb["ETS"](form, 4).fit(y)
    ahead = model.forecast(9)
    again = model.filter(torch.cat([torch.from_numpy(y), ahead]), model.params)
    assert torch.allclose(again.fitted[40:], ahead, rtol=1e-8)


def test_variance_is_that_of_paths(nb):
    for form, p in (("ANN", dict(alpha=0.7)), ("AAdN", dict(alpha=0.5, beta=0.2, phi=0.9)), ("ANA", dict(alpha=0.2, gamma=0.6)), ("AAA", dict(alpha=0.3, beta=0.1, gamma=0.4))):
        shares = [d(p.get(k, float(k == "phi")))[0] for k in ("alpha", "beta", "gamma", "phi")]
        paths = nb["paths_from"](form, (0.0, 0.0, [0.0] * 3), shares, 2.0, 8, 30_000, 3)
        ratio = paths.var(0) / nb["ets_variance"](form, p, 4.0, 8, 3 if form[-1] == "A" else 1)
        assert torch.allclose(ratio, torch.ones(8).double(), atol=5 * math.sqrt(2 / 30_000))
    assert nb["ets_variance"]("ANN", dict(alpha=0.5), 4.0, 3).tolist() == pytest.approx([4, 5, 6])
    assert nb["ets_variance"]("AAN", dict(alpha=0.5, beta=0.1), 1.0, 1).tolist() == [1.0]


@pytest.mark.parametrize("form, p, s, h, word", [("MAM", PLUS, 1.0, 3, "closed form"), ("AAM", PLUS, 1.0, 3, "closed form"), ("MMdN", PLUS, 1.0, 3, "closed form"),
                                                 ("AAA", dict(alpha=0.1), 1.0, 3, "beta, gamma"), ("ANN", dict(alpha=0.1), -1.0, 3, "sigma2"), ("ANN", dict(alpha=0.1), 1.0, 0, "horizon"),
                                                 ("ANN", dict(alpha=1.1), 1.0, 3, "alpha"), ("ANX", {}, 1.0, 3, "ets_forms")])
def test_variance_refuses(nb, form, p, s, h, word):
    with pytest.raises(ValueError, match=word):
        nb["ets_variance"](form, p, s, h, 4)


def test_intervals(nb):
    y = series(48, 4, 9)
    for form in ("AAA", "MAM", "MNN", "AMN"):
        model = nb["ETS"](form, 4).fit(y)
        (low, high), (low9, high9) = model.interval(6), model.interval(6, 0.5)
        assert low.shape == high.shape == (6,) and (low < low9).all() and (high9 < high).all()
        paths = model.simulate(6, 20_000, seed=4)
        assert paths.shape == (20_000, 6) and torch.equal(paths[:3], model.simulate(6, 20_000, seed=4)[:3])
        inside = ((paths > low) & (paths < high)).double().mean(0)
        assert torch.allclose(inside, torch.full((6,), 0.95).double(), atol=0.015)


def test_relative_variance_of_a_damped_trend(nb):
    p, s2 = dict(alpha=0.5, beta=0.1, gamma=0.0, phi=0.9), 0.04
    paths = nb["paths_from"]("MAdN", (10.0, 0.5, [0.0]), [d(p[k])[0] for k in ("alpha", "beta", "gamma", "phi")], 0.2, 6, 100_000, 8)
    forecast = nb["point_forecast"]("A", "N", d(10.0)[0], d(0.5)[0], d(0.0), d(0.9)[0], 6)
    assert torch.allclose(paths.var(0) / nb["relative_variance"](forecast, nb["effects"]("MAdN", p, 6), s2), torch.ones(6).double(), atol=0.05)


# ---- measures ---------------------------------------------------------------------------------------------------------------

def test_measures_by_hand(nb):
    assert float(nb["smape"]([100.0, 0.0], [50.0, 0.0])) == pytest.approx(100 / 3)
    assert nb["smape"](np.ones((2, 3)), np.full((2, 3), 3.0)).tolist() == pytest.approx([100, 100])
    assert float(nb["mase"]([5.0, 7.0], [6.0, 6.0], [1.0, 2, 4, 8], 1)) == pytest.approx(3 / 7)
    assert float(nb["mase"]([5.0], [6.0], [1.0, 2, 4, 8], 2)) == pytest.approx(1 / 4.5)
    assert nb["mase"]([5.0], [6.0], [3.0, 3.0]).item() == INF and nb["mase"]([5.0], [5.0], [3.0, 3.0]).item() == 0
    batch = nb["mase"](torch.ones(2, 3), torch.zeros(2, 3), torch.arange(10.0).reshape(2, 5))
    assert batch.tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("name, arguments, word", [("smape", ([1.0], [1.0, 2.0]), "forecast 2"), ("smape", ([NAN], [1.0]), "finite"), ("mase", ([1.0], [1.0], [1.0, 2.0], 2), "history"),
                                                   ("mase", ([1.0], [1.0], [1.0, 2.0], 0), "period"), ("mase", ([1.0], [1.0], []), "history"), ("smape", ([], []), "empty")])
def test_measures_refuse(nb, name, arguments, word):
    with pytest.raises(ValueError, match=word):
        nb[name](*arguments)


# ---- parts of the page ------------------------------------------------------------------------------------------------------

def test_initial_states_are_least_squares_for_other_forms(nb):
    y, shares = torch.from_numpy(series(30, 3, 4)), dict(alpha=0.3, beta=0.1, gamma=0.2, phi=0.9)
    best = nb["initial_states"]("AAdA", 3, y, shares)
    loss = lambda x: float(nb["ets_filter"]("AAdA", 3, y, shares | dict(level=x[0], trend=x[1], season=[x[2], x[3], -x[2] - x[3]])).error.square().sum())     # noqa: E731
    start = [float(best["level"]), float(best["trend"]), *best["season"][:2].tolist()]
    assert loss(start) <= optimize.minimize(loss, start, method="Nelder-Mead").fun + 1e-8
    assert float(best["season"].sum()) == pytest.approx(0, abs=1e-9)


def test_the_best_alpha_solves_its_equation(nb):
    for ratio in (1e-4, 0.5, 40.0):
        a = nb["best_alpha"](ratio)
        assert 0 < a < 1 and a**2 / (1 - a) == pytest.approx(ratio)


def test_exercises_do_not_repeat_a_mistake_as_the_solution():
    assert sorted(BOOK.solutions) == [f"61.{letter}" for letter in "ABCDEFGH"]


WRONG = [
    ("forecast.append(forecast[-1] + alpha * (y[..., t] - forecast[-1]))", "forecast.append(forecast[-1] - alpha * (y[..., t] - forecast[-1]))", "61.1"),
    ("first = y[..., 0] if level is None else", "first = 0 * y[..., 0] if level is None else", "61.1"),
    ("j = torch.arange(t, dtype=torch.float64)", "j = torch.arange(t, dtype=torch.float64) + 1", "61.2"),
    ("return torch.cat([alpha * (1 - alpha) ** j,", "return torch.cat([(1 - alpha) ** j,", "61.3"),
    ("return (math.sqrt(ratio**2 + 4 * ratio) - ratio) / 2", "return (math.sqrt(ratio**2 + 4 * ratio) + ratio) / 2", "61.4"),
    ("base, s = level + phi * trend, seasons[len(fitted)]", "base, s = level - phi * trend, seasons[len(fitted)]", "61.5"),
    ("level, trend = base + alpha * v, phi * trend + beta * v", "level, trend = base + alpha * v, trend + beta * v", "61.6"),
    ("seasons.append(s + gamma * (u / base if seasonal == \"mul\" else u))", "seasons.append(s - gamma * (u / base if seasonal == \"mul\" else u))", "61.6"),
    ("s = season[..., (j - 1) % season.shape[-1]]", "s = season[..., j % season.shape[-1]]", "61.7"),
    ("total = (torch.as_tensor(phi)[..., None] ** j).cumsum(-1)", "total = (torch.as_tensor(phi)[..., None] ** (j - 1)).cumsum(-1)", "61.7"),
    ("new_slope = beta_star * (new_level - level) + (1 - beta_star) * phi * slope", "new_slope = beta_star * (new_level + level) + (1 - beta_star) * phi * slope", "61.8"),
    ("new_season = gamma * (y / base if mul else y - base) + (1 - gamma) * season", "new_season = gamma * (y / base if mul else y + base) + (1 - gamma) * season", "61.8"),
    ("new_level = alpha * (y / season if mul else y - season) + (1 - alpha) * base", "new_level = alpha * (y / season if mul else y + season) + (1 - alpha) * base", "61.8"),
    ("v = u / s if seasonal == \"mul\" else u", "v = u", "61.9"),
    ("return gamma_star * (1 - alpha)", "return gamma_star / (1 - alpha)", "61.10"),
    ("return forecast, u, (base + alpha * v, grown + beta", "return forecast, u, (level + alpha * v, grown + beta", "61.11"),
    ("s + gamma * (u / base if cycle == \"M\" else u))", "s + gamma * (u / level if cycle == \"M\" else u))", "61.11"),
    ("log_likelihood = -T / 2 * (torch.log(2 * math.pi * sigma2) + 1)", "log_likelihood = -T / 2 * torch.log(2 * math.pi * sigma2)", "61.12"),
    ("log_likelihood - path.fitted.abs().log().sum(-1) if", "log_likelihood if", "61.13"),
    ("2 * k * (k + 1) / (T - k - 1) if", "2 * k * (k + 1) / (T - k) if", "61.14"),
    ("else 1 for name in needs(form)) + 1", "else 1 for name in needs(form))", "61.14"),
    ("one[:, 0], \"trend\": one[:, 1], \"season\": one[:, 2:]}", "one[:, 1], \"trend\": one[:, 0], \"season\": one[:, 2:]}", "61.15"),
    ("{\"level\": x[0] + shift, \"trend\": x[1], \"season\": x[2:] - shift}", "{\"level\": x[0] - shift, \"trend\": x[1], \"season\": x[2:] - shift}", "61.16"),
    ("to_v = alpha * L + beta * B_", "to_v = alpha * L - beta * B_", "61.17"),
    ("L, B = to_base, phi * (B + to_base)", "L, B = to_base, phi * B + to_base", "61.17"),
    ("return alpha + beta * (phi**j).cumsum(0) + gamma * (j % period == 0)", "return alpha + beta * (phi**j).cumsum(0) + gamma * (j % period == 1)", "61.18"),
    ("return sigma2 * (1 + torch.cat([c.new_zeros(1), c.square().cumsum(0)]))", "return sigma2 * (1 + torch.cat([c.new_zeros(1), c.cumsum(0)]))", "61.19"),
    ("return (1 + sigma2) * torch.stack(theta) - forecast**2", "return sigma2 * torch.stack(theta) - forecast**2", "61.20"),
    ("return (200 * (y - forecast).abs()", "return (100 * (y - forecast).abs()", "61.21"),
    ("history[..., m:] - history[..., :-m]", "history[..., 1:] - history[..., :-1]", "61.22"),
]
test_wrong, test_right, test_every = wrong_variant_tests(BOOK, WRONG)
