"""Notebook 43: its public functions on inputs the page does not show, and its checks against broken formulas."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from helpers import data
from helpers.data import Ratings
from tests.book import book, wrong_variant_tests

BOOK = book("43")


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def triples(rows, n_users=5, n_items=4):
    user, item, value = zip(*rows) if rows else ((), (), ())
    user = torch.tensor(user, dtype=torch.int64)
    return Ratings(user, torch.tensor(item, dtype=torch.int64), torch.tensor(value, dtype=torch.float64), user, n_users, n_items)


ROWS = [(0, 0, 5.0), (0, 1, 3.0), (1, 0, 4.0), (1, 2, 1.0), (2, 1, 2.0), (2, 2, 5.0), (3, 0, 1.0), (3, 2, 4.0)]
FITS = {"als": lambda nb, r, **k: nb["als"](r, **({"d": 2, "lam": 0.5, "n_sweeps": 3} | k)),
        "als_loop": lambda nb, r, **k: nb["als_loop"](r, **({"d": 2, "lam": 0.5, "n_sweeps": 3} | k)),
        "sgd_mf": lambda nb, r, **k: nb["sgd_mf"](r, **({"d": 2, "lam": 0.5, "lr": 0.02, "n_epochs": 3} | k)),
        "hals": lambda nb, r, **k: nb["hals"](r, **({"d": 2, "lam": 0.5, "n_sweeps": 3} | k)),
        "hals, non-negative": lambda nb, r, **k: nb["hals"](r, **({"d": 2, "lam": 0.5, "n_sweeps": 3, "nonnegative": True} | k))}
fits = pytest.mark.parametrize("fit", FITS)


@fits
def test_what_a_fit_returns(nb, fit):
    model = FITS[fit](nb, triples(ROWS))
    assert model.P.shape == (5, 2) and model.Q.shape == (4, 2) and model.b_u.shape == (5,) and model.b_i.shape == (4,)
    assert len(model.history) == (6 if fit.startswith("als") else 3)
    assert all(isinstance(j, float) and math.isfinite(j) for j in model.history)
    predicted = model.predict(torch.tensor([0, 4]), torch.tensor([1, 3]))
    assert isinstance(predicted, torch.Tensor) and predicted.shape == (2,) and predicted.isfinite().all()
    expected = model.mu + model.b_u[0] + model.b_i[1] + model.P[0] @ model.Q[1]
    assert torch.isclose(predicted[0], expected)
    assert model.mu == (0 if "non" in fit else pytest.approx(np.mean([r for *_, r in ROWS])))


@fits
def test_the_same_seed_gives_the_same_model(nb, fit):
    one, two, other = (FITS[fit](nb, triples(ROWS), seed=s) for s in (3, 3, 4))
    assert torch.equal(one.P, two.P) and not torch.equal(one.P, other.P)


@fits
def test_inputs_are_not_changed(nb, fit):
    r = triples(ROWS)
    before = [x.clone() for x in (r.user, r.item, r.value)]
    FITS[fit](nb, r)
    assert all(torch.equal(a, b) for a, b in zip(before, (r.user, r.item, r.value)))


@fits
def test_users_and_items_without_ratings_get_a_defined_prediction(nb, fit):
    model = FITS[fit](nb, triples(ROWS), n_epochs=3) if fit == "sgd_mf" else FITS[fit](nb, triples(ROWS))
    assert model.predict(4, 3).isfinite()
    if "non" not in fit:
        assert model.predict(4, 3) == pytest.approx(model.mu, abs=1e-12)


BAD_RATINGS = {
    "user ids must be": [(5, 0, 1.0)], "user ids must be integers": [(-1, 0, 1.0)], "item ids must be": [(0, 4, 1.0)],
    "item ids must be integers": [(0, -1, 1.0)], "NaN or infinity": [(0, 0, float("nan"))],
    "NaN or infinity: drop": [(0, 0, float("inf"))],
}


@fits
@pytest.mark.parametrize("message", BAD_RATINGS)
def test_bad_ratings_are_refused(nb, fit, message):
    with pytest.raises(ValueError, match=message):
        FITS[fit](nb, triples(ROWS + BAD_RATINGS[message]))


def test_messages_name_what_came_and_what_is_allowed(nb):
    with pytest.raises(ValueError, match=r"user ids must be integers 0\.\.4, got torch.int64 from -1 to 3:"):
        nb["validated"](triples([*ROWS, (-1, 0, 1.0)]), 2, 0.5, 3)
    with pytest.raises(ValueError, match=r"item ids must be integers 0\.\.3, got torch.int64 from 0 to 4:"):
        nb["validated"](triples([*ROWS, (0, 4, 1.0)]), 2, 0.5, 3)


def test_the_random_start(nb):
    user = torch.arange(2000)
    once = Ratings(user, 0 * user, 3.0 + 0 * user, user, 2001, 2)          # one rating each; the last user and item have none
    P, Q = nb["random_start"](once, 3, 0, torch.zeros(1))
    assert P.shape == (2001, 3) and Q.shape == (2, 3) and P.dtype == torch.float32
    assert P[:-1].std() == pytest.approx(0.1, rel=0.05) and P[:-1].mean().abs() < 0.005
    assert not P[-1].any() and not Q[1].any() and Q[0].all()


def test_a_model_is_equal_to_itself_only(nb):
    one, two = (FITS["als"](nb, triples(ROWS)) for _ in range(2))
    assert len({one, one, two}) == 2


@fits
def test_empty_and_ragged_ratings_are_refused(nb, fit):
    with pytest.raises(ValueError, match="at least one"):
        FITS[fit](nb, triples([]))
    r = triples(ROWS)
    with pytest.raises(ValueError, match="equally many"):
        FITS[fit](nb, Ratings(r.user, r.item, r.value[:-1], r.time, 5, 4))
    with pytest.raises(ValueError, match="integers"):
        FITS[fit](nb, Ratings(r.user.double(), r.item, r.value, r.time, 5, 4))


@fits
@pytest.mark.parametrize("bad", [{"d": 0}, {"lam": -1.0}, {"lam": float("nan")}, {"lam": float("inf")}])
def test_bad_parameters_are_refused(nb, fit, bad):
    with pytest.raises(ValueError, match="need d >= 1"):
        FITS[fit](nb, triples(ROWS), **bad)


@fits
@pytest.mark.parametrize("bad", [{"d": 2.5}, {"d": 2.0}, {"lam": None}, {"lam": "0.5"}])
def test_parameters_of_the_wrong_kind_are_refused_in_words(nb, fit, bad):
    with pytest.raises(ValueError, match="need d >= 1.*whole numbers"):
        FITS[fit](nb, triples(ROWS), **bad)


def test_what_is_no_ratings_object_is_refused_in_words(nb):
    import pandas as pd
    table = pd.DataFrame({"user": [0], "item": [0], "rating": [3.0]})
    for bad in (table, Ratings(["ann", "bob"], [0, 1], [1.0, 2.0], [0, 1], 2, 2)):
        with pytest.raises(ValueError, match="helpers.data.Ratings"):
            nb["als"](bad, 2, 0.5, 3)
    r = triples(ROWS)
    with pytest.raises(ValueError, match="complex"):
        nb["als"](Ratings(r.user, r.item, r.value + 1j, r.time, 5, 4), 2, 0.5, 3)


def test_arrays_go_where_tensors_go(nb):
    r = triples(ROWS)
    model = nb["als"](r, 2, 0.5, 3)
    arrays = Ratings(*(x.numpy() for x in (r.user, r.item, r.value, r.time)), 5, 4)
    assert nb["objective"](model, arrays, 0.5) == pytest.approx(nb["objective"](model, r, 0.5))
    small_ids = Ratings(r.user.to(torch.uint8), r.item.to(torch.int16), r.value, r.time, 5, 4)
    for other in (arrays, small_ids):
        assert all(torch.allclose(a, b) for a, b in zip(nb["gradients"](model, other, 0.5), nb["gradients"](model, r, 0.5)))


@pytest.mark.parametrize("lam, kind", [(1e-16, torch.float64), (1e-6, torch.float32)])
def test_a_penalty_that_drowns_in_rounding_is_refused(nb, lam, kind):
    Q, r = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).to(kind), torch.ones(2, dtype=kind)
    with pytest.raises(ValueError, match=r"2 ratings do not determine 3 unknowns \(singular\): take lam > "):
        nb["solve_user"](Q, r, lam)
    assert nb["solve_user"](torch.eye(3, dtype=kind), torch.ones(3, dtype=kind), lam) == pytest.approx(np.ones(3))


def test_non_negative_fold_in_refuses_a_singular_system(nb):
    model = nb["hals"](triples(ROWS), 2, 0.5, 3, nonnegative=True)
    with pytest.raises(ValueError, match="lam > 0"):
        nb["fold_in"](model, [1], [5.0], 0)


def test_rmse_by_hand(nb):
    zero = torch.zeros
    model = nb["Factors"](3.0, zero(5).double(), zero(4).double(), zero(5, 2).double(), zero(4, 2).double())
    names = dict(nb["rmse"].__globals__)
    nb["rmse"].__globals__["scale"] = (0.5, 5.0)
    try:
        assert nb["rmse"](model, triples([(0, 0, 3.0), (1, 1, 5.0), (2, 2, 0.5)])) == pytest.approx(math.sqrt((0 + 4 + 6.25) / 3))
    finally:
        nb["rmse"].__globals__.pop("scale") if "scale" not in names else None


def test_non_negative_fold_in_with_a_penalty_or_enough_ratings(nb):
    model = nb["hals"](triples(ROWS), 2, 0.5, 3, nonnegative=True)
    assert nb["fold_in"](model, [1], [5.0], 0.5)[0].min() >= 0 and nb["fold_in"](model, [0, 1, 2], [5.0, 3.0, 1.0], 0)[1] == 0
    model.Q[1, 0] = 0.0                         # exact zeros are what non-negative factors are made of
    assert nb["fold_in"](model, [1], [5.0], 0.5)[0].isfinite().all()


def test_defaults_are_what_the_docstrings_say(nb):
    r = triples(ROWS)
    assert torch.equal(nb["hals"](r, 2, 0.5, 2).P, nb["hals"](r, 2, 0.5, 2, seed=0).P)
    assert not torch.equal(nb["hals"](r, 2, 0.5, 2).P, nb["hals"](r, 2, 0.5, 2, seed=1).P)


def test_duplicates_in_a_batch_are_added_up(nb):
    r = triples([(0, 0, 5.0), (0, 0, 5.0), (0, 1, 3.0)])
    P, Q = nb["random_start"](r, 2, 0, r.value)
    start = nb["Factors"](float(r.value.mean()), P.new_zeros(5), Q.new_zeros(4), P, Q)
    step = nb["sgd_mf"](r, 2, 0.5, 0.1, 1, batch_size=3)
    assert torch.allclose(step.Q, Q - 0.05 * nb["gradients"](start, r, 0.5)[1])


def test_sgd_refuses_a_bad_step_and_names_divergence(nb):
    for lr in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="lr > 0"):
            FITS["sgd_mf"](nb, triples(ROWS), lr=lr)
    with pytest.raises(ValueError, match="smaller lr"):
        FITS["sgd_mf"](nb, triples(ROWS), lr=10.0, n_epochs=50)


FULL = [(u, i, float((3 * u + 2 * i + u * i) % 7)) for u in range(5) for i in range(4)]
SINGULAR = {"too few of a user": FULL[2:], "too few of an item": [r for r in FULL if r[1] != 3 or r[0] < 2],
            "constant ratings": [(u, i, 3.0) for u, i, _ in FULL], "one item again and again": [(0, 0, 1.0), (0, 0, 2.0), (0, 0, 3.0), *FULL[4:]]}


@pytest.mark.parametrize("fit", ["als", "als_loop"])
def test_lam_zero_with_singular_ratings_is_refused(nb, fit):
    for rows in SINGULAR.values():
        with pytest.raises(ValueError, match="lam > 0"):
            FITS[fit](nb, triples(rows), lam=0.0)
    FITS[fit](nb, triples(FULL), lam=0.0)


def test_who_lacks_ratings_is_named(nb):
    for rows, who in (("too few of a user", "user"), ("too few of an item", "item")):
        with pytest.raises(ValueError, match=rf"{who} with fewer than d \+ 1 = 3 ratings: take lam > 0"):
            FITS["als"](nb, triples(SINGULAR[rows]), lam=0.0)


def test_lam_zero_accepts_users_without_ratings(nb):
    fast, slow = (FITS[fit](nb, triples(FULL, n_users=7, n_items=5), lam=0.0, n_sweeps=2) for fit in ("als", "als_loop"))
    assert fast.predict(6, 4) == pytest.approx(fast.mu) == slow.predict(6, 4)
    assert torch.allclose(fast.P, slow.P, atol=1e-7)


@pytest.mark.parametrize("lam", [1e-3, 1.0, 2.0])
def test_cold_users_have_a_regular_system_at_every_penalty(nb, lam):
    fast, slow = (FITS[fit](nb, triples(ROWS), lam=lam) for fit in ("als", "als_loop"))
    assert torch.allclose(fast.P, slow.P, atol=1e-8) and not fast.P[4].any() and fast.b_u[4] == 0


def test_ids_of_any_integer_type(nb):
    r = triples(ROWS)
    for kind in (torch.int32, torch.int16, torch.int8, torch.uint8):
        for fit in FITS:
            FITS[fit](nb, Ratings(r.user.to(kind), r.item.to(kind), r.value, r.time, 5, 4))
    with pytest.raises(ValueError, match="integers"):
        FITS["als"](nb, Ratings(r.user > 0, r.item, r.value, r.time, 5, 4))
    with pytest.raises(ValueError, match="equally many"):
        FITS["als"](nb, Ratings(r.user[None], r.item[None], r.value[None], r.time, 5, 4))


def test_integer_ratings_are_fine(nb):
    r = triples(ROWS)
    whole = Ratings(r.user, r.item, r.value.long(), r.time, 5, 4)
    assert torch.allclose(FITS["als"](nb, whole).P, FITS["als"](nb, r).P)
    single = Ratings(r.user, r.item, r.value.float(), r.time, 5, 4)
    assert torch.allclose(FITS["als"](nb, single).P.double(), FITS["als"](nb, r).P, atol=1e-4)


@pytest.mark.parametrize("n_u, d, lam", [(7, 3, 0.1), (3, 3, 0.0), (1, 4, 2.0), (50, 8, 1e-6), (0, 2, 1.0)])
def test_solve_user_is_ridge(nb, n_u, d, lam):
    g = torch.Generator().manual_seed(n_u)
    Q, r = torch.randn(n_u, d, generator=g, dtype=torch.float64), torch.randn(n_u, generator=g, dtype=torch.float64)
    p = nb["solve_user"](Q, r, lam)
    expected = (Ridge(alpha=lam, fit_intercept=False, solver="svd").fit(Q, r).coef_ if n_u else np.zeros(d))
    assert p.shape == (d,) and np.allclose(p, expected, atol=1e-8)


@pytest.mark.parametrize("Q, r, lam, message", [
    (torch.ones(2, 3), torch.ones(2), 0.0, "lam > 0"),
    (torch.ones(5, 3), torch.ones(5), 0.0, "lam > 0"),
    (torch.tensor([[0.1, 0.2], [0.3, 0.6], [0.7, 1.4]]), torch.ones(3), 0.0, "lam > 0"),
    (torch.ones(2, 3), torch.ones(3), 1.0, "n_u"),
    (torch.ones(2, 3) * float("nan"), torch.ones(2), 1.0, "finite"),
    (torch.ones(2, 3), torch.tensor([1.0, float("nan")]), 1.0, "finite"),
    (torch.ones(2, 3), torch.ones(2), -1.0, "zero or positive"),
])
def test_solve_user_refuses(nb, Q, r, lam, message):
    with pytest.raises(ValueError, match=message):
        nb["solve_user"](Q, r, lam)


def test_prediction_refuses_unknown_ids(nb):
    model = FITS["als"](nb, triples(ROWS))
    for user, item in ((5, 0), (-1, 0), (0, 4), (0, -1), (0.5, 0), (True, 0)):
        with pytest.raises(ValueError, match="ids must be"):
            model.predict(user, item)
    for user, item in (([0, 5], 0), ([0, -1], 0), (0, [3, 4]), (0, [-1, 3])):
        with pytest.raises(ValueError, match=r"user ids must be integers 0\.\.4" if item == 0 else r"item ids must be integers 0\.\.3"):
            model.predict(user, item)
    assert model.predict([], []).shape == (0,)


def test_fold_in_on_lists_and_its_refusals(nb):
    model = FITS["als"](nb, triples(ROWS), n_sweeps=300)
    p, b = nb["fold_in"](model, [0, 1], [5.0, 3.0], 0.5)
    assert p.shape == (2,) and b.shape == ()
    assert torch.allclose(p, model.P[0], atol=1e-6) and torch.isclose(b, model.b_u[0], atol=1e-6)
    for items, values, lam, message in (([4], [1.0], 1, "item ids"), ([-1], [1.0], 1, "item ids"), ([0], [1.0, 2.0], 1, "equally"),
                                        ([0], [float("nan")], 1, "NaN"), ([0], [1.0], 0, "lam > 0"), ([0], [1.0], -1, "lam"),
                                        ([], [], -1, "lam"), ([1.5], [3.0], 1, "item ids"), ([], [3.0], 1, "equally")):
        with pytest.raises(ValueError, match=message):
            nb["fold_in"](model, items, values, lam)


def test_als_recovers_what_it_should_on_the_bundled_ratings(nb):
    r, t = data.ratings(), data.truth()
    model = nb["als"](r, 4, 1.3, 20)
    inner, true = model.P @ model.Q.T, t.P @ t.Q.T
    warm = torch.bincount(r.user, minlength=600) >= 30
    corr = torch.corrcoef(torch.stack([inner[warm].flatten(), true[warm].flatten()]))[0, 1]
    assert corr > 0.7, "the interaction of active users with all items is found again"
    assert torch.corrcoef(torch.stack([model.b_i[:395], t.b_i[:395]]))[0, 1] > 0.7


# Wrong variants of each formula: where, what it becomes, and the equation whose check must notice.
MUTANTS = [
    ("e = value - model.predict(ratings.user, ratings.item) ", "e = value - model.predict(ratings.user, ratings.item) / 1.01 ", "43.1"),
    ("return float((e**2).sum() + lam * penalty)", "return float((e**2).sum() - lam * penalty)", "43.1"),
    ("return float((e**2).sum() + lam * penalty)", "return float((e**2).mean() + lam * penalty)", "43.1"),
    ("return float((e**2).sum() + lam * penalty)", "return float((e**2).sum())", "43.1"),
    ("for w in (model.P, model.Q, model.b_u, model.b_i))", "for w in (model.P, model.Q, model.b_u))", "43.1"),
    ("return self.mu + self.b_u[u] + self.b_i[i]", "return self.mu + self.b_u[u] - self.b_i[i]", "43.1"),
    ("lam = sigma**2 / tau**2", "lam = tau**2 / sigma**2", "43.2"),
    ("lam = sigma**2 / tau**2", "lam = sigma / tau", "43.2"),
    ("return (2 * lam * P - 2 * torch", "return (2 * lam * P + 2 * torch", "43.3"),
    ("return (2 * lam * P - 2 * torch", "return (lam * P - 2 * torch", "43.3"),
    ("2 * lam * Q - 2 * torch.zeros_like(Q).index_add(0, i, e[:, None] * P[u])",
     "2 * lam * Q - 2 * torch.zeros_like(Q).index_add(0, i, e[:, None] * Q[i])", "43.3"),
    ("2 * lam * b_i - 2 * torch.zeros_like(b_i).index_add(0, i, e))",
     "2 * lam * b_i + 2 * torch.zeros_like(b_i).index_add(0, i, e))", "43.4"),
    ("2 * lam * b_u - 2 * torch.zeros_like(b_u)", "2 * b_u - 2 * torch.zeros_like(b_u)", "43.4"),
    ("A = Q_u.mT @ Q_u + lam * torch.eye(d, ", "A = Q_u.mT @ Q_u - lam * torch.eye(d, ", "43.5"),
    ("A = Q_u.mT @ Q_u + lam * torch.eye(d, ", "A = Q_u.mT @ Q_u + 0 * torch.eye(d, ", "43.5"),
    ("A = Q_u.mT @ Q_u + lam * torch.eye(d, ", "A = Q_u.mT @ Q_u + lam * n_u * torch.eye(d, ", "43.5"),
    ("A = Q_u.mT @ Q_u + lam * torch.eye(d, ", "A = Q_u.mT @ Q_u.abs() + lam * torch.eye(d, ", "43.5"),
    ("torch.linalg.solve(A, Q_u.mT @ r_u)", "torch.linalg.solve(A, -Q_u.mT @ r_u)", "43.5"),
    ("A = Q_u.mT @ Q_u + lam * torch.eye(d, ", "A = Q_u.mT @ Q_u + 0.9 * lam * torch.eye(d, ", "43.6"),
    ("A = Q_u.mT @ Q_u + lam * torch.eye(d, ", "A = Q_u.mT @ Q_u + lam**2 * torch.eye(d, ", "43.7"),
    ("target = value[rows] - mu - other[theirs[rows], d]", "target = value[rows] - mu + other[theirs[rows], d]", "43.8"),
    ("target = value[rows] - mu - other[theirs[rows], d]", "target = value[rows] - mu", "43.9"),
    ("A = Q_u.mT @ Q_u + lam * torch.eye(d, ", "A = Q_u.mT @ Q_u + 2 * lam * torch.eye(d, ", "43.10"),
    ("c = torch.sparse.mm(C, Z) - sums[:, k * k:]", "c = torch.sparse.mm(C, Z) + sums[:, k * k:]", "43.11"),
    ("c = torch.sparse.mm(C, Z) - sums[:, k * k:]", "c = torch.sparse.mm(C, Z)", "43.11"),
    ("A + (lam + empty.to(Y))[:, None, None] * eye", "A + (1e-9 + empty.to(Y))[:, None, None] * eye", "43.11"),
    ("outer = (Z[:, :, None] * Z[:, None, :]).flatten(1)", "outer = (Z[:, :, None] + Z[:, None, :]).flatten(1)", "43.11"),
    ("Mt, Ct = M.t().coalesce(), C.t().coalesce()", "Mt, Ct = M.t().coalesce(), -C.t().coalesce()", "43.11"),
    ("penalty = sum((w**2).sum() for w", "penalty = sum(w.abs().sum() for w", "43.12"),
    ("dx = e[:, None] * torch.cat([y[:, :-1], one], 1) - (lam / n_u[user].to(x))", "dx = e[:, None] * torch.cat([y[:, :-1], one], 1) + (lam / n_u[user].to(x))",
     "43.13"),
    ("dx = e[:, None] * torch.cat([y[:, :-1], one], 1) - (lam / n_u[user].to(x))[:, None] * x",
     "dx = e[:, None] * torch.cat([y[:, :-1], one], 1) - lam * x", "43.14"),
    ("dy = e[:, None] * torch.cat([x[:, :-1], one], 1)", "dy = e[:, None] * torch.cat([y[:, :-1], one], 1)", "43.14"),
    ("Y.index_add_(0, item[rows], dy, alpha=lr)", "Y.index_add_(0, item[rows], dy, alpha=-lr)", "43.13"),
    ("index_add_(0, mine, (e + own[mine] * other) * other)", "index_add_(0, mine, (e - own[mine] * other) * other)", "43.15"),
    ("index_add_(0, mine, (e + own[mine] * other) * other)", "index_add_(0, mine, e * other)", "43.15"),
    ("index_add_(0, mine, other**2) + lam", "index_add_(0, mine, other**2)", "43.15"),
    ("return new, e - (new - own)[mine] * other", "return new, e + (new - own)[mine] * other", "43.15"),
    ("new = new.clamp(min=0) if nonnegative else new", "new = new.abs() if nonnegative else new", "43.16"),
    ("left = left + lam * torch.eye(Q.shape[-1]).to(Q)", "left = left - lam * torch.eye(Q.shape[-1]).to(Q)", "43.18"),
    ("torch.linalg.solve(left, (W * A) @ Q)", "torch.linalg.solve(left, A @ Q)", "43.18"),
    ("torch.linalg.lstsq(Q_u, r_u[:, None])", "torch.linalg.lstsq(Q_u, -r_u[:, None])", "43.5"),
    ("Q = weighted_half_step(A.mT, W.mT, P, lam)", "Q = weighted_half_step(A.mT, torch.ones_like(W.mT), P, lam)", "43.17"),
    ("left = left + lam * torch.eye(Q.shape[-1]).to(Q)", "left = left + (lam + 0.1) * torch.eye(Q.shape[-1]).to(Q)", "43.19"),
    ("Z, target = Q[items], values - model.mu - model.b_i[items]", "Z, target = Q[items], values - model.mu + model.b_i[items]", "43.20"),
    ("Z, target = Q[items], values - model.mu - model.b_i[items]", "Z, target = Q[items], values - model.b_i[items]", "43.20"),
    ("rows = torch.cat([Z, lam**0.5 * torch.eye(Z.shape[1]).to(Z)])", "rows = torch.cat([Z, lam * torch.eye(Z.shape[1]).to(Z)])", "43.20"),
    ("return x[:-1], x[-1]", "return x[:-1], -x[-1]", "43.20"),
]


(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)
