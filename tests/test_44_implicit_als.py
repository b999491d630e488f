"""Notebook 44: its public functions on inputs the page does not show, and its checks against broken formulas."""

import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import torch
from sklearn.linear_model import Ridge

from tests.book import book, wrong_variant_tests

BOOK = book("44")
COUNTS = np.array([[2, 0, 1, 0, 3, 0], [0, 1, 0, 0, 5, 1], [1, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0, 0], [4, 1, 1, 0, 1, 1], [0, 0, 2, 0, 1, 0]], float)
CONVENTIONS = pytest.mark.parametrize("confidence", ["constant", "linear"])


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def counts(kind=np.float64, layout="csr"):
    return scipy.sparse.csr_matrix(COUNTS.astype(kind)).asformat(layout)


def fit(nb, S=None, **options):
    settings = {"d": 2, "alpha": 5.0, "lam": 0.8, "n_sweeps": 3} | options
    return nb["ials"](counts() if S is None else S, **settings)


def weights(alpha, confidence):
    return np.where(COUNTS > 0, alpha if confidence == "constant" else 1 + alpha * COUNTS, 1.0)


def dense_objective(model, alpha, lam, confidence="constant", nu=0.0):
    """J cell by cell, in plain Python."""
    P, Q, b_u, b_i = (np.asarray(w, dtype=float) for w in (model.P, model.Q, model.b_u, model.b_i))
    c, total = weights(alpha, confidence), 0.0
    for u in range(len(P)):
        for i in range(len(Q)):
            total += c[u, i] * ((COUNTS[u, i] > 0) - b_u[u] - b_i[i] - sum(P[u] * Q[i])) ** 2
    for axis, W, b in ((1, P, b_u), (0, Q, b_i)):
        clicks = np.maximum((COUNTS > 0).sum(axis), 1)
        total += sum(lam * k**nu * (sum(w**2) + x**2) for k, w, x in zip(clicks, W, b))
    return total


# --- what a fit is ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("biases", [False, True])
def test_what_a_fit_returns(nb, solver, biases):
    model = fit(nb, solver=solver, biases=biases)
    assert model.P.shape == (6, 2) and model.Q.shape == (6, 2) and model.b_u.shape == (6,) and model.b_i.shape == (6,)
    assert all(isinstance(w, torch.Tensor) and w.isfinite().all() for w in (model.P, model.Q, model.b_u, model.b_i))
    assert len(model.history) == 6 and all(isinstance(j, float) and math.isfinite(j) for j in model.history)
    assert biases == bool(model.b_u.any()) == bool(model.b_i.any())


@CONVENTIONS
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("nu", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 40.0])
def test_every_item_is_a_weighted_ridge_regression_and_J_is_the_sum_over_all_cells(nb, confidence, biases, nu, alpha):
    model = fit(nb, confidence=confidence, biases=biases, nu=nu, alpha=alpha, lam=0.4)
    c, s = weights(alpha, confidence), (COUNTS > 0).astype(float)
    for i in range(6):
        features = np.c_[model.P, np.ones(6)] if biases else model.P.numpy()
        penalty = 0.4 * max((COUNTS[:, i] > 0).sum(), 1) ** nu
        ridge = Ridge(alpha=penalty, fit_intercept=False, solver="svd").fit(features, s[:, i] - model.b_u.numpy(), sample_weight=c[:, i])
        mine = np.r_[model.Q[i], model.b_i[i]] if biases else model.Q[i].numpy()
        assert np.allclose(mine, ridge.coef_, atol=1e-8)
    value = dense_objective(model, alpha, 0.4, confidence, nu)
    assert model.history[-1] == pytest.approx(value, rel=1e-10)
    assert nb["ials_objective"](model, counts(), alpha, 0.4, confidence, nu) == pytest.approx(value, rel=1e-10)


@CONVENTIONS
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 40.0])
def test_no_half_step_raises_the_objective(nb, confidence, solver, biases, alpha):
    history = fit(nb, confidence=confidence, solver=solver, biases=biases, alpha=alpha, n_sweeps=30, cg_steps=1).history
    assert np.diff(history).max() < 1e-10 * history[0]


def test_it_ends_where_lbfgs_ends(nb):
    model = fit(nb, n_sweeps=2000, biases=True)

    def objective(x):
        w = SimpleNamespace(P=x[:12].reshape(6, 2), Q=x[12:24].reshape(6, 2), b_u=x[24:30], b_i=x[30:])
        return dense_objective(w, 5.0, 0.8)

    start = np.concatenate([w.numpy().ravel() for w in (model.P, model.Q, model.b_u, model.b_i)])
    found = scipy.optimize.minimize(objective, start + 0.01 * np.sin(np.arange(36)), method="L-BFGS-B")
    assert model.history[-1] == pytest.approx(found.fun, rel=1e-6)


@pytest.mark.parametrize("biases", [False, True])
def test_enough_conjugate_gradients_are_exact(nb, biases):
    exact, cg = (fit(nb, biases=biases, solver=solver, cg_steps=12) for solver in ("cholesky", "cg"))
    assert torch.allclose(exact.P, cg.P, atol=1e-8) and np.allclose(exact.history, cg.history, rtol=1e-10)
    one, three = (fit(nb, biases=biases, solver="cg", cg_steps=k) for k in (1, 3))
    assert three.history[-1] <= one.history[-1] * (1 + 1e-3) and not torch.allclose(one.P, three.P)
    assert torch.equal(fit(nb, solver="cg").P, fit(nb, solver="cg", cg_steps=3).P)


def test_rows_and_columns_without_clicks_get_zero(nb):
    for solver in ("cholesky", "cg"):
        model = fit(nb, solver=solver)
        assert not model.P[3].any() and not model.Q[3].any()
        assert nb["recommend"](model, counts(), [3], 2).tolist() == [[0, 1]]       # all scores tie: the lower ids


def test_biases_answer_silence_exactly_for_who_never_clicked(nb):
    model = fit(nb, biases=True, n_sweeps=500)
    Z = np.c_[model.Q, np.ones(6)]
    alone = np.linalg.solve(Z.T @ Z + 0.8 * np.eye(3), -Z.T @ model.b_i.numpy())
    assert np.allclose(np.r_[model.P[3], model.b_u[3]], alone, atol=1e-6)


@pytest.mark.parametrize("kind, expected", [(np.float32, torch.float32), (np.float64, torch.float64), (np.int64, torch.float64),
                                            (np.int8, torch.float64), (bool, torch.float64), (np.float16, torch.float32)])
def test_computes_in_the_type_of_the_counts(nb, kind, expected):
    S = COUNTS.astype(kind) if kind is np.float16 else counts(kind)       # scipy has no sparse float16
    for solver in ("cholesky", "cg"):
        model = fit(nb, S, biases=True, solver=solver)
        assert {w.dtype for w in (model.P, model.Q, model.b_u, model.b_i)} == {expected}
        assert torch.allclose(model.P.double(), fit(nb, counts(bool).astype(float) if kind is bool else None, biases=True, solver=solver).P, atol=2e-3)
        assert torch.allclose(model.P.double(), fit(nb, S.astype(float), biases=True, solver=solver).P, atol=2e-3)


@pytest.mark.parametrize("layout", ["csc", "coo", "lil", "dok", "bsr", "dia"])
def test_other_sparse_formats_and_dense_tables(nb, layout):
    right = fit(nb).P
    assert torch.equal(fit(nb, counts(layout=layout)).P, right)
    assert torch.equal(fit(nb, scipy.sparse.csr_array(COUNTS)).P, right)
    for S in (COUNTS, torch.tensor(COUNTS), torch.tensor(COUNTS).to_sparse(), COUNTS.tolist()):
        assert torch.equal(fit(nb, S).P, right)


def test_duplicates_are_summed_and_zeros_are_no_clicks(nb):
    coo = counts(layout="coo")
    twice = scipy.sparse.coo_matrix((np.r_[coo.data - 0.5, 0 * coo.data + 0.5, 0.0], (np.r_[coo.row, coo.row, 3], np.r_[coo.col, coo.col, 3])), (6, 6))
    assert torch.allclose(fit(nb, twice, confidence="linear").P, fit(nb, confidence="linear").P)
    raw = scipy.sparse.csr_matrix((np.r_[1.0, 1.0, 0.0], np.r_[1, 1, 0], np.r_[0, 3]), (1, 2))         # not canonical
    one = scipy.sparse.csr_matrix(np.array([[0.0, 2.0]]))
    assert torch.allclose(fit(nb, raw, confidence="linear").Q, fit(nb, one, confidence="linear").Q)
    assert nb["ials_objective"](fit(nb, one), raw, 5.0, 0.8, "linear") == pytest.approx(nb["ials_objective"](fit(nb, one), one, 5.0, 0.8, "linear"))


def test_arguments_are_not_changed(nb):
    raw = scipy.sparse.csr_matrix((np.r_[1.0, 1.0, 0.0, 2.0], np.r_[1, 1, 0, 0], np.r_[0, 3, 4]), (2, 2))
    before = [x.copy() for x in (raw.data, raw.indices, raw.indptr)]
    model = fit(nb, raw)
    nb["ials_objective"](model, raw, 5.0, 0.8)
    nb["recommend"](model, raw, [0, 1], 2)
    nb["explain"](model, raw, 1, 1, 5.0, 0.8)
    assert all(np.array_equal(a, b) for a, b in zip(before, (raw.data, raw.indices, raw.indptr)))


def test_the_same_seed_gives_the_same_model(nb):
    assert torch.equal(fit(nb, seed=np.int64(3)).P, fit(nb, seed=3).P)
    one, two, other = (fit(nb, seed=s) for s in (3, 3, 4))
    assert torch.equal(one.P, two.P) and not torch.equal(one.P, other.P)
    assert torch.equal(fit(nb).P, fit(nb, seed=0).P)


def test_blocks_of_any_size_give_the_same_half_step(nb):
    g = torch.Generator().manual_seed(0)
    Y = torch.randn(6, 3, generator=g, dtype=torch.float64)
    S, c = nb["usable"](counts(), 5.0, "linear")
    penalty = torch.full((6,), 0.8, dtype=torch.float64)
    fits = [nb["half_step"](nb["padded_rows"](S, c, 3, room), penalty, Y, True) for room in (1, 12, 30, 400_000)]
    assert all(torch.allclose(x, fits[0], atol=1e-12) for x in fits)
    for rows, items, weight in nb["padded_rows"](S, c, 3, room=12):
        assert items.shape == weight.shape and (len(rows) == 1 or items.numel() * 3 <= 12)
        assert (weight[items == 6] == 1).all()


def test_a_row_longer_than_the_room_is_a_block_of_its_own(nb):
    S = scipy.sparse.csr_matrix(np.ones((2, 50)))
    blocks = nb["padded_rows"](S, np.ones(100), 3, room=12)
    assert [len(rows) for rows, *_ in blocks] == [1, 1]


def test_long_rows_and_short_rows_of_many_lengths(nb):
    rng = np.random.default_rng(0)
    S = scipy.sparse.csr_matrix((rng.random((40, 150)) < rng.random((40, 1))) * rng.integers(1, 4, (40, 150)))
    model = nb["ials"](S, 20, 7.0, 2.0, 1, confidence="linear")
    P = np.stack([np.linalg.solve(Q.T @ (c[:, None] * Q) + 2 * np.eye(20), Q.T @ (c * (r > 0)))
                  for Q in [nb["starting_point"](S.astype(float), 20, False, 0)[1].numpy()] for r, c in
                  ((r, np.where(r > 0, 1 + 7 * r, 1)) for r in S.toarray())])
    assert np.allclose(model.P, P, atol=1e-8)


BAD = [
    ({"S": scipy.sparse.csr_matrix((3, 4))}, "no interaction"), ({"S": scipy.sparse.csr_matrix(np.zeros((0, 4)))}, "no interaction"),
    ({"S": -counts()}, "not be negative|>= 0"), ({"S": counts() * np.nan}, "finite"), ({"S": counts() * np.inf}, "finite"),
    ({"S": scipy.sparse.coo_matrix(([3.0, -1.0], ([0, 0], [1, 1])), (2, 2))}, ">= 0"), ({"S": counts(np.float32), "alpha": 1e20, "n_sweeps": 9}, "smaller alpha"), ({"S": counts(np.float32), "alpha": 1e300}, "smaller alpha"),
    ({"S": counts(np.float32), "alpha": 1e5}, "float64"), ({"S": counts(np.float32), "alpha": 2e3, "confidence": "linear"}, "float64"), ({"alpha": 1e14}, "smaller alpha"),
    ({"S": np.ones(3)}, "table"), ({"S": counts().astype(complex)}, "table"), ({"S": np.array([["a"]])}, "table"),
    ({"d": 0}, "d=0"), ({"d": -1}, "d=-1"), ({"d": 2.5}, "d=2.5"), ({"d": True}, "d=True"), ({"lam": 0.0}, "lam must be"), ({"lam": -1.0}, "lam must be"),
    ({"lam": float("nan")}, "lam must be"), ({"lam": float("inf")}, "lam must be"), ({"lam": "1"}, "lam must be"), ({"alpha": 0.0}, "alpha must be"),
    ({"alpha": -2.0}, "alpha must be"), ({"alpha": float("nan")}, "alpha must be"), ({"alpha": True}, "alpha must be"),
    ({"confidence": "log"}, '"constant" or "linear"'), ({"solver": "lu"}, '"cholesky" or "cg"'), ({"n_sweeps": 0}, "n_sweeps=0"),
    ({"n_sweeps": 1.5}, "n_sweeps=1.5"), ({"cg_steps": 0}, "cg_steps=0"), ({"nu": -0.5}, "nu=-0.5"), ({"nu": float("nan")}, "nu=nan")]


@pytest.mark.parametrize("options, message", BAD, ids=[str(k) for k in range(len(BAD))])
def test_bad_input_is_refused_in_words(nb, options, message):
    with pytest.raises(ValueError, match=message):
        fit(nb, **options)


@pytest.mark.parametrize("lam", [1e-5, 1.0, 1e3])
def test_float32_is_enough_for_what_it_accepts_whatever_the_penalty(nb, lam):
    rng = np.random.default_rng(0)
    S = scipy.sparse.csr_matrix((rng.random((60, 40)) < 0.1).astype(np.float32))
    single, double = (nb["ials"](T, 8, 1e3, lam, 1) for T in (S, S.astype(float)))
    assert (single.score(slice(None)).double() - double.score(slice(None))).abs().max() < 0.01
    assert single.history[-1] == pytest.approx(double.history[-1], rel=1e-2)
    assert len(nb["ials"](S.astype(float), 8, 1e5, lam, 1).history) == 2


def test_fold_in_and_explain_refuse_what_the_type_of_the_model_does_not_resolve(nb):
    model = fit(nb, counts(np.float32))
    for bad in (lambda: nb["fold_in"](model, [0], 1e8, 0.8), lambda: nb["explain"](model, counts(), 0, 1, 1e8, 0.8)):
        with pytest.raises(ValueError, match="float64"):
            bad()


def test_confidences_take_two_words(nb):
    with pytest.raises(KeyError, match="Linear"):
        nb["confidences"](COUNTS, 10.0, "Linear")


def test_the_objective_refuses_what_the_fit_refuses(nb):
    model, ask = fit(nb), nb["ials_objective"]
    for bad, message in ((lambda: ask(model, counts()[:5], 5.0, 0.8), "model"), (lambda: ask(model, counts(), 0, 0.8), "alpha"),
                         (lambda: ask(model, counts(), 5.0, 0), "lam"), (lambda: ask(model, counts(), 5.0, 0.8, "x"), "constant"),
                         (lambda: ask(model, 0 * counts(), 5.0, 0.8), "no interaction")):
        with pytest.raises(ValueError, match=message):
            bad()
    assert isinstance(ask(model, counts(), 5.0, 0.8), float)
    assert ask(fit(nb, counts(np.float32)), counts(np.float32), 5.0, 0.8) == pytest.approx(ask(model, counts(), 5.0, 0.8), rel=1e-4)


# --- one user, lists, explanations, fold-in -----------------------------------------------------------------------------

@pytest.mark.parametrize("wrong", [
    (np.ones((3, 2)), np.ones(2), np.ones(3), 1.0), (np.ones((3, 2)), np.ones(3), np.ones(4), 1.0), (np.ones(3), np.ones(3), np.ones(3), 1.0),
    (np.ones((0, 2)), np.ones(0), np.ones(0), 1.0), (np.ones((3, 2)) * np.nan, np.ones(3), np.ones(3), 1.0),
    (np.ones((3, 2)), np.ones(3), np.zeros(3), 1.0), (np.ones((3, 2)), np.ones(3), -np.ones(3), 1.0), (np.ones((3, 2)), np.ones(3), np.ones(3), 0.0),
    (np.ones((3, 2)), np.ones(3), np.ones(3), -1.0), (np.ones((3, 2)) * 1j, np.ones(3), np.ones(3), 1.0)])
def test_ials_user_refuses(nb, wrong):
    with pytest.raises(ValueError, match="need|must be|complex"):
        nb["ials_user"](*wrong)


def test_ials_user_on_many_types(nb):
    Q, s, c = np.array([[1, 2], [0, 1], [3, 1]]), np.array([1, 0, 1]), np.array([5, 1, 4])
    right = np.linalg.solve(Q.T @ np.diag(c) @ Q + 0.5 * np.eye(2), Q.T @ (c * s))
    for change in (lambda x: x, lambda x: x.astype(np.float32), lambda x: torch.tensor(x), lambda x: torch.tensor(x).half(), lambda x: x.tolist()):
        got = nb["ials_user"](change(Q), change(s), change(c), 0.5)
        assert got.shape == (2,) and np.allclose(got, right, atol=1e-5)
    assert nb["ials_user"](torch.tensor(Q).float(), s > 0, c, 0.5).dtype == torch.float32


def test_lists(nb):
    model, S = fit(nb), counts()
    lists = nb["recommend"](model, S, [4, 0, 4], 3)
    assert lists.dtype == torch.int64 and lists.shape == (3, 3) and torch.equal(lists[0], lists[2])
    assert lists[0].tolist() == [3, -1, -1], "four has all but one"
    score = (model.P @ model.Q.T)[0]
    assert lists[1].tolist() == sorted([1, 3, 5], key=lambda i: -score[i])
    assert nb["recommend"](model, S, [], 3).shape == (0, 3)
    assert nb["recommend"](model, S, range(6), 9).shape == (6, 9) and (nb["recommend"](model, S, range(6), 9)[:, 6:] == -1).all()
    for users in (np.array([4, 0]), torch.tensor([4, 0]), np.array([4, 0], dtype=np.uint8), (4, 0)):
        assert torch.equal(nb["recommend"](model, S, users, 3), lists[:2])


def test_lists_use_the_items_biases_and_skip_stored_zeros(nb):
    zero = torch.zeros(1, 2)
    model = SimpleNamespace(P=zero, Q=torch.zeros(4, 2), b_u=torch.zeros(1), b_i=torch.tensor([0.1, 0.4, 0.3, 0.2]))
    model.score = lambda users: model.P[users] @ model.Q.T + model.b_u[users, None] + model.b_i
    S = scipy.sparse.csr_matrix((np.r_[1.0, 0.0], np.r_[1, 2], np.r_[0, 2]), (1, 4))
    assert nb["recommend"](model, S, [0], 4).tolist() == [[3, 0, -1, -1]]
    assert nb["recommend"](nb["ImplicitModel"](model.P, model.Q, model.b_u, model.b_i), 0 * S, [0], 2).tolist() == [[3, 0]]


def test_models_of_others_can_be_asked_for_lists(nb):
    """Whatever has P, Q, b_u, b_i."""
    model = fit(nb, biases=True)
    other = SimpleNamespace(P=model.P, Q=model.Q, b_u=model.b_u, b_i=model.b_i)
    assert torch.equal(nb["recommend"](other, counts(), [0, 1], 3), nb["recommend"](model, counts(), [0, 1], 3))


@pytest.mark.parametrize("users, k, message", [([6], 1, "fold"), ([-1], 1, "fold"), ([0.5], 1, "ids"), ([True], 1, "ids"), ([0], 0, "k"), ([0], -2, "k"),
                                               ([0], 1.5, "k")])
def test_lists_refuse(nb, users, k, message):
    with pytest.raises(ValueError, match=message):
        nb["recommend"](fit(nb), counts(), users, k)


def test_lists_refuse_another_table(nb):
    with pytest.raises(ValueError, match="shape"):
        nb["recommend"](fit(nb), counts()[:, :5], [0], 1)


def test_many_users_go_in_parts(nb):
    rng = np.random.default_rng(0)
    S = scipy.sparse.csr_matrix((rng.random((2500, 5)) < 0.3).astype(float))
    model = nb["ials"](S, 2, 3.0, 1.0, 2)
    everybody = nb["recommend"](model, S, np.arange(2500), 2)
    assert torch.equal(everybody[2100:2110], nb["recommend"](model, S, np.arange(2100, 2110), 2))


@CONVENTIONS
@pytest.mark.parametrize("nu", [0.0, 1.0])
def test_explanations_add_up_to_the_fresh_score(nb, confidence, nu):
    model = fit(nb, confidence=confidence, nu=nu)
    for user in range(6):
        played, parts = nb["explain"](model, counts(), user, 1, 5.0, 0.8, confidence, nu)
        p, _ = nb["fold_in"](model, played, 5.0, 0.8, COUNTS[user][COUNTS[user] > 0], confidence=confidence, nu=nu)
        assert played.tolist() == np.flatnonzero(COUNTS[user]).tolist()
        assert float(parts.sum()) == pytest.approx(float(model.Q[1] @ p), abs=1e-10)


def test_explanations_refuse_biases_and_strangers(nb):
    with pytest.raises(ValueError, match="biases=False"):
        nb["explain"](fit(nb, biases=True), counts(), 0, 1, 5.0, 0.8)
    model = fit(nb)
    for S, user, item, lam in ((counts(), -1, 1, 0.8), (counts(), 6, 1, 0.8), (counts(), 0, -1, 0.8), (counts(), 0, 6, 0.8), (counts()[:, :5], 0, 1, 0.8)):
        with pytest.raises(ValueError, match="need S of shape"):
            nb["explain"](model, S, user, item, 5.0, lam)
    with pytest.raises(ValueError, match="lam must be"):
        nb["explain"](model, counts(), 0, 1, 5.0, 0.0)


def test_fold_in_refuses_and_takes_lists(nb):
    model = fit(nb)
    assert torch.allclose(nb["fold_in"](model, [0, 4], 5.0, 0.8)[0], nb["fold_in"](model, torch.tensor([0, 4]), 5.0, 0.8, [1, 1])[0])
    assert torch.allclose(nb["fold_in"](model, [0, 0], 5.0, 0.8, confidence="linear")[0], nb["fold_in"](model, [0], 5.0, 0.8, [2], confidence="linear")[0])
    assert nb["fold_in"](fit(nb, counts(np.float32)), [0], 5.0, 0.8)[0].dtype == torch.float32
    for played, plays, alpha, lam in (([6], None, 5.0, 0.8), ([-1], None, 5.0, 0.8), ([0.5], None, 5.0, 0.8), ([0], [1, 2], 5.0, 0.8),
                                      ([0], [-1], 5.0, 0.8), ([0], None, 0.0, 0.8), ([0], None, 5.0, 0.0)):
        with pytest.raises(ValueError):
            nb["fold_in"](model, played, alpha, lam, plays)
    for wrong in ({"alpha": -1.0}, {"confidence": "foo"}, {"nu": -1.0}):
        with pytest.raises(ValueError, match="alpha|constant|nu"):
            nb["fold_in"](model, [], **({"alpha": 5.0, "lam": 0.8} | wrong))


# --- splits and metrics of the page -------------------------------------------------------------------------------------

def small_log():
    from helpers.data import Ratings
    rng = np.random.default_rng(1)
    user, item = torch.tensor(rng.integers(8, size=300)), torch.tensor(rng.integers(30, size=300))
    return Ratings(user, item, torch.ones(300, dtype=torch.float64), torch.tensor(np.sort(rng.integers(10**6, size=300))), 8, 30)


def test_splits_share_no_pair_and_lose_none(nb):
    log = small_log()
    S = nb["to_counts"](log)
    for train, test in (nb["split_by_pairs"](log), nb["split_within_items"](S), nb["leave_last_out"](log)):
        assert train.multiply(test).nnz == 0 and (train + test != S).nnz == 0 and train.nnz > test.nnz > 0
    train, test = nb["split_by_time"](log)
    assert train.multiply(test).nnz == 0 and train.sum() + test.sum() <= len(log)
    assert S.sum() == len(log), "the counts themselves are not changed by splitting"


def test_a_quarter_of_every_column(nb):
    S = scipy.sparse.csr_matrix(np.tri(8, 8))
    train, test = nb["split_within_items"](S, 0.25, seed=3)
    assert np.asarray((train > 0).sum(0)).ravel().tolist() == [round(0.75 * k) for k in range(8, 0, -1)]


def test_the_last_new_item_is_left_out(nb):
    from helpers.data import Ratings
    t = torch.tensor
    log = Ratings(t([0, 0, 0, 1, 1]), t([2, 3, 2, 1, 0]), t([1.0] * 5), t([1, 2, 3, 5, 4]), 2, 4)
    train, test = nb["leave_last_out"](log)
    assert test.toarray().tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]] and train.toarray().tolist() == [[0, 0, 2, 0], [1, 0, 0, 0]]


def test_vectors_sent_by_hand(nb):
    S = scipy.sparse.csr_matrix(np.array([[1, 0, 1], [1, 0, 0], [2, 1, 0], [0, 0, 0]]))
    assert nb["vectors_sent"](S, np.array([0, 1, 0, 1])) == 2 + 1 + 1 and nb["vectors_sent"](S, np.zeros(4, int)) == 3
    assert nb["vectors_expected"]([3, 1, 1, 0], 2) == pytest.approx(2 * (1 - 1 / 8) + 1 + 1 + 0)


@pytest.mark.skipif(not os.environ.get("COURSE_EXTRAS"), reason="Spark is an extra: make extras")
def test_spark_was_asked():
    assert "our half-step on Spark's tracks" in BOOK.proved[1]


def test_judged_lists_by_hand(nb):
    test = scipy.sparse.csr_matrix(np.array([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]))
    lists = torch.tensor([[3, 2], [0, 1], [-1, -1]])
    got = nb["judge"](lists, test)
    assert got["recall"] == pytest.approx((0.5 + 0) / 2)
    assert got["nDCG"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)) / 2)


# --- Wrong variants of each formula: where, what it becomes, and the equation whose check must notice --------------------

MUTANTS = [
    ('c = {"linear": 1 + alpha * r,', 'c = {"linear": alpha * r,', "44.1"),
    ('"constant": torch.full_like(r, alpha)}', '"constant": torch.full_like(r, 1 + alpha)}', "44.1"),
    ('"constant": torch.full_like(r, alpha)}', '"constant": alpha * r}', "44.1"),
    ("return torch.where(r > 0, c, 1.0)", "return torch.where(r > 0, c, 0.0)", "44.1"),
    ("return (c * (s - a) ** 2).sum() + lam *", "return (c * (s - a) ** 2).mean() + lam *", "44.2"),
    ("return (c * (s - a) ** 2).sum() + lam *", "return (c * s * (s - a) ** 2).sum() + lam *", "44.2"),
    ("a = model.b_u[:, None] + model.b_i + model.P @ model.Q.mT", "a = model.b_u[:, None] - model.b_i + model.P @ model.Q.mT", "44.2"),
    ("own_u, own_i = ((w**2).sum(1) + b**2 for w, b in", "own_u, own_i = ((w**2).sum(1) for w, b in", "44.2"),
    ("e = c * (s - model.score(slice(None)))", "e = s - model.score(slice(None))", "44.3"),
    ("return (2 * n_u[:, None] * model.P - 2 * e @ model.Q,", "return (2 * n_u[:, None] * model.P + 2 * e @ model.Q,", "44.3"),
    ("2 * n_u * model.b_u - 2 * e.sum(1), 2 * m_i", "2 * n_u * model.b_u - 2 * e.sum(1), m_i", "44.3"),
    ("A = Q.mT @ (c_u[:, None] * Q) + lam *", "A = Q.mT @ Q + lam *", "44.4"),
    ("A = Q.mT @ (c_u[:, None] * Q) + lam *", "A = Q.mT @ (c_u[:, None] * Q) + 0 * lam *", "44.4"),
    ("return torch.linalg.solve(A, Q.mT @ (c_u * s_u))", "return torch.linalg.solve(A, Q.mT @ s_u)", "44.4"),
    ("A = silent * gram + V.mT @ ((c - less)[:, None] * V)", "A = silent * gram + V.mT @ (c[:, None] * V)", "44.5"),
    ("torch.linalg.solve(A, V.mT @ right(c))", "torch.linalg.solve(A, V.mT @ torch.ones_like(c))", "44.5"),
    ("V.mT @ (c * (1 - b_played) + b_played) - Z.mT @ b)", "V.mT @ (c * (1 - b_played)) - Z.mT @ b)", "44.6"),
    ("V.mT @ (c * (1 - b_played) + b_played) - Z.mT @ b)", "V.mT @ (c * (1 - b_played) + b_played))", "44.6"),
    ("penalty = lam * max(len(played), 1) ** nu\n    A = Z.mT", "penalty = lam\n    A = Z.mT", "44.6"),
    ("x = half_step(blocks, penalty, Y, biases)[0]", "x = -half_step(blocks, penalty, Y, biases)[0]", "44.6"),
    ("h = X[rows] + torch.bmm(pull[:, None], V)[:, 0]", "h = torch.bmm(pull[:, None], V)[:, 0]", "44.7"),
    ("X = -root * (b @ Z @ O) ", "X = root * (b @ Z @ O) ", "44.7"),
    ("(V, c - 1, h)", "(V, c, h)", "44.7"),
    ("return (X * root) @ O.mT", "return (X * root) @ O", "44.7"),
    ("pull = c * (1 - b_padded[items]) + b_padded[items] if biases else c", "pull = c", "44.7"),
    ("root = (E.clamp(min=0) + penalty[:, None]).rsqrt()", "root = (E.clamp(min=0) + penalty[0]).rsqrt()", "44.7"),
    ("return h - sign * torch.bmm(F.mT, inner)[..., 0]", "return h + sign * torch.bmm(F.mT, inner)[..., 0]", "44.8"),
    ("K = sign * torch.bmm(F, F.mT)", "K = torch.bmm(F, F.mT)", "44.8"),
    ("return float(every + (c * (1 - a) ** 2 - a**2).sum(dtype=torch.float64)", "return float(every + (c * (1 - a) ** 2).sum(dtype=torch.float64)", "44.9"),
    ("clamp(min=1).double() ** nu", "clamp(min=1).double() ** 1", "44.9"),
    ("every = ((P.mT @ P) * (Q.mT @ Q)).sum(dtype=torch.float64)", "every = (P.mT @ P @ Q.mT @ Q).sum(dtype=torch.float64)", "44.9"),
    ("((toy.P.mT @ toy.P) * (toy.Q.mT @ toy.Q)).sum(), every", "(toy.P.mT @ toy.P @ toy.Q.mT @ toy.Q).sum(), every", "44.10"),
    ("(x - x_u) @ A_u @ (x - x_u), rtol=1e-9)", "2 * (x - x_u) @ A_u @ (x - x_u), rtol=1e-9)", "44.11"),
    ("ials_objective(toy, small_S, 1 / w0, 0.3 / w0), family / w0", "ials_objective(toy, small_S, 1 / w0, 0.3), family / w0", "44.12"),
    ("return played, c * (V @ torch.linalg.solve(A, Q[item]))", "return played, V @ torch.linalg.solve(A, Q[item])", "44.13"),
    ("return played, c * (V @ torch.linalg.solve(A, Q[item]))", "return played, c * (V @ Q[item])", "44.13"),
    ("x, r = x + a * v, r - a * Av", "x, r = x + a * v, r + a * Av", "44.14"),
    ("v, size = r + new / size.clamp(min=tiny) * v, new", "v, size = r, new", "44.14"),
    ("a = size / (v * Av).sum(-1, keepdim=True).clamp(min=tiny)", "a = size / (v * v).sum(-1, keepdim=True).clamp(min=tiny)", "44.14"),
    ("return v @ gram + own * v + torch.bmm(inner[:, None], V)[:, 0]", "return v @ gram + torch.bmm(inner[:, None], V)[:, 0]", "44.14"),
    ("X[empty] = torch.linalg.solve(gram + penalty[empty][0] * eye, shared)", "X[empty] = torch.linalg.solve(gram + penalty[empty][0] * eye, -shared)", "44.14"),
    ("v, size = r + new / size.clamp(min=tiny) * v, new", "v, size = r, new", "44.15"),
    ("a_0, tau = 0.2, 1 / 1.2", "a_0, tau = 0.2, 0.2", "44.16"),
    ("block[pairs.row]))", "block[pairs.row] * 0))", "44.17"),
    ("(1 - (1 - 1 / B)**", "(1 - (1 + 1 / B)**", "44.18"),
]


(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)
