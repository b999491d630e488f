"""Notebook 45: its public functions on inputs the page does not show, and its checks against broken formulas."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from tests.book import book

BOOK = book("45")


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def problem(seed=0, N=30, p=6, dense=False):
    """X (N, p) with zeros and y (N,)."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-2, 3, (N, p)) * (rng.random((N, p)) < 0.6) + (0.5 if dense else 0.0)
    return X.astype(float), rng.standard_normal(N)


X, Y = problem()
CLASSES = (Y > 0).astype(float)
FITS = {"sgd": lambda nb, X, y, **k: nb["fm_sgd"](X, y, **({"rank": 2, "lam_w": 0.5, "lam_v": 0.5, "lr": 0.01, "n_epochs": 3} | k)),
        "als": lambda nb, X, y, **k: nb["fm_als"](X, y, **({"rank": 2, "lam_w": 0.5, "lam_v": 0.5, "n_sweeps": 3} | k)),
        "gibbs": lambda nb, X, y, **k: nb["fm_gibbs"](X, y, **({"rank": 2, "n_sweeps": 4, "burn_in": 1} | k))}
fits = pytest.mark.parametrize("fit", FITS)
FORMATS = {"array": lambda x: x, "list": lambda x: x.tolist(), "tensor": torch.tensor, "float32": lambda x: torch.tensor(x).float(),
           "strided": lambda x: torch.stack([torch.tensor(x)] * 2, -1)[..., 1], "int": lambda x: x.astype(np.int64), "reversed": lambda x: x[::-1].copy()[::-1], "table": pd.DataFrame,
           **{f: (lambda x, f=f: scipy.sparse.coo_matrix(x).asformat(f)) for f in ("csr", "csc", "coo", "lil", "dok", "bsr")},
           "sparse array": scipy.sparse.csr_array}


@fits
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_model(nb, fit, kind):
    given = FORMATS[kind](X)
    model, expected = FITS[fit](nb, given, Y), FITS[fit](nb, X, Y)
    assert torch.allclose(model.V, expected.V) and torch.allclose(model.w, expected.w)
    assert torch.allclose(model.predict(given), expected.predict(X))


@pytest.mark.parametrize("kind", FORMATS)
def test_prediction_in_every_format(nb, kind):
    w, V = torch.arange(6.0).double(), torch.arange(12.0).reshape(6, 2).double() / 7
    expected = nb["fm_predict_naive"](X, 0.3, w, V)
    for name in ("fm_predict", "fm_predict_naive"):
        assert torch.allclose(nb[name](FORMATS[kind](X), 0.3, w, V).double(), expected)


def test_duplicates_in_a_sparse_matrix_are_summed_and_it_is_not_changed(nb):
    twice = scipy.sparse.coo_matrix((np.array([1.0, 2.0, 1.0]), ([0, 0, 1], [1, 1, 0])), (2, 3))
    raw = scipy.sparse.csr_matrix((np.array([1.0, 2.0, 1.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), (2, 3))
    w, V = np.ones(3), np.ones((3, 1))
    for x in (twice, raw):
        assert nb["fm_predict"](x, 0.0, w, V).tolist() == [3.0, 1.0]
        for fit in FITS:
            FITS[fit](nb, x, np.array([1.0, 2.0]))
        assert x.nnz == 3 and x.data.tolist() == [1.0, 2.0, 1.0]


@fits
def test_what_a_fit_returns(nb, fit):
    model = FITS[fit](nb, X, Y)
    assert isinstance(model.w0, float) and model.w.shape == (6,) and model.V.shape == (6, 2)
    assert len(model.history) == (4 if fit == "gibbs" else 3) and all(isinstance(j, float) and math.isfinite(j) for j in model.history)
    predicted = model.predict(X[:5])
    assert isinstance(predicted, torch.Tensor) and predicted.shape == (5,) and predicted.dtype == torch.float64
    if fit == "gibbs":
        assert len(model.draws) == 3
        each = [nb["fm_predict"](X[:5], *draw) for draw in model.draws]
        assert torch.allclose(predicted, torch.stack(each).mean(0))
        assert model.draws[-1][0] == model.w0 and torch.equal(model.draws[-1][2], model.V)
    else:
        assert torch.allclose(predicted, nb["fm_predict"](X[:5], model.w0, model.w, model.V))
        assert model.draws == []
    assert model.predict(X[:0]).shape == (0,)


@fits
def test_the_same_seed_gives_the_same_model(nb, fit):
    one, two, other, default = (FITS[fit](nb, X, Y, **k) for k in ({"seed": 3}, {"seed": 3}, {"seed": 4}, {}))
    assert torch.equal(one.V, two.V) and not torch.equal(one.V, other.V)
    assert torch.equal(default.V, FITS[fit](nb, X, Y, seed=0).V)


@fits
def test_inputs_are_not_changed(nb, fit):
    x, y = torch.tensor(X), torch.tensor(Y)
    FITS[fit](nb, x, y)
    assert torch.equal(x, torch.tensor(X)) and torch.equal(y, torch.tensor(Y))


BAD = {"one y for every row": [(X, Y[:-1]), (X[:0], Y[:0]), (X, Y[:, None]), (X[:, :0], Y)],
       "X contains NaN": [(np.where(X == 0, np.nan, X), Y), (np.where(X == 0, np.inf, X), Y)],
       "y contains NaN": [(X, np.where(Y > 0, np.nan, Y))],
       "rows of features": [(X[0], Y)]}


@fits
@pytest.mark.parametrize("message", BAD)
def test_bad_data_are_refused(nb, fit, message):
    for x, y in BAD[message]:
        with pytest.raises(ValueError, match=message):
            FITS[fit](nb, x, y)


@fits
@pytest.mark.parametrize("bad", [{"rank": 0}, {"rank": -1}, {"rank": 1.5}, {"rank": True}])
def test_a_bad_rank_is_refused(nb, fit, bad):
    with pytest.raises(ValueError, match="whole numbers"):
        FITS[fit](nb, X, Y, **bad)


def test_bad_numbers_of_steps_are_refused(nb):
    for fit, name in (("sgd", "n_epochs"), ("als", "n_sweeps"), ("gibbs", "n_sweeps")):
        for bad in (0, -1, 2.5):
            with pytest.raises(ValueError):
                FITS[fit](nb, X, Y, **{name: bad})


@pytest.mark.parametrize("fit", ["sgd", "als"])
@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_bad_penalties_are_refused(nb, fit, bad):
    for name in ("lam_w", "lam_v"):
        with pytest.raises(ValueError, match=name):
            FITS[fit](nb, X, Y, **{name: bad})


def test_bad_options_of_gibbs_are_refused(nb):
    for bad, message in (({"burn_in": 4}, "burn_in"), ({"burn_in": 9}, "burn_in"), ({"burn_in": -1}, "burn_in"), ({"burn_in": 0.5}, "burn_in"),
                         ({"alpha": 0.0}, "alpha"), ({"alpha": -1.0}, "alpha"), ({"lam": -1.0}, "lam"), ({"lam": 0.0}, "lam"),
                         ({"lam": [1.0, 2.0]}, "lam"), ({"task": "ranking"}, "unknown task"), ({"task": "classification"}, "0 and 1"),
                         ({"alpha": float("nan")}, "alpha")):
        with pytest.raises(ValueError, match=message):
            FITS["gibbs"](nb, X, Y, **bad)
    with pytest.raises(ValueError, match="alpha"):
        FITS["gibbs"](nb, X, CLASSES, task="classification", alpha=2.0)


def test_bad_options_of_sgd_are_refused(nb):
    for lr in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lr"):
            FITS["sgd"](nb, X, Y, lr=lr)
    with pytest.raises(ValueError, match="smaller lr"):
        FITS["sgd"](nb, 10 * X, Y, lr=5.0, n_epochs=20)
    with pytest.raises(ValueError, match="0 and 1"):
        FITS["sgd"](nb, X, Y, task="classification")
    with pytest.raises(ValueError, match="unknown task"):
        FITS["sgd"](nb, X, Y, task="counts")


@pytest.mark.parametrize("fit", ["als", "gibbs"])
def test_groups(nb, fit):
    for bad in ([0] * 5, [0] * 7, [[0] * 6], [0.0] * 6, [-1] + [0] * 5):
        with pytest.raises(ValueError, match="groups"):
            FITS[fit](nb, X, Y, groups=bad)
    for good in ([0, 0, 1, 1, 2, 2], np.array([0, 0, 1, 1, 2, 2], dtype=np.int32), torch.tensor([0, 0, 1, 1, 2, 2])):
        assert FITS[fit](nb, X, Y, groups=good).V.shape == (6, 2)
    with pytest.raises(ValueError, match="groups"):
        FITS[fit](nb, X, Y, groups=[0, 0, 1, 1, 2, 2], **({"lam_w": [1.0, 2.0]} if fit == "als" else {"lam": [1.0, 2.0]}))


def test_one_penalty_for_each_group(nb):
    groups = [0, 0, 0, 1, 1, 1]
    both = nb["fm_als"](X, Y, 2, [0.5, 0.5], [0.7, 0.7], 4, groups=groups)
    assert torch.allclose(both.V, nb["fm_als"](X, Y, 2, 0.5, 0.7, 4).V)
    held = nb["fm_als"](X, Y, 2, [0.5, 1e9], [0.7, 1e9], 4, groups=groups)
    assert held.w[3:].abs().max() < 1e-6 and held.V[3:].abs().max() < 1e-6 < held.V[:3].abs().max()
    assert held.history[-1] == pytest.approx(nb["fm_objective"](X, Y, held.w0, held.w, held.V, np.repeat([0.5, 1e9], 3), np.repeat([0.7, 1e9], 3)))
    fixed = nb["fm_gibbs"](X, Y, 2, 5, groups=groups, alpha=1.0, lam=[1.0, 1e8])
    assert fixed.V[3:].abs().max() < 1e-2


def test_a_zero_penalty_leaves_useless_features_alone(nb):
    x = np.hstack([X, np.zeros((30, 1))])
    model = nb["fm_als"](x, Y, 2, 0.0, 0.0, 3)
    assert model.w[6] == 0 and torch.isfinite(model.V).all() and torch.isfinite(model.predict(x)).all()


@fits
def test_a_matrix_of_zeros_and_one_row(nb, fit):
    model = FITS[fit](nb, np.zeros((4, 3)), np.array([1.0, 2, 3, 4]))
    assert torch.isfinite(model.predict(np.zeros((2, 3)))).all()
    assert torch.isfinite(FITS[fit](nb, X[:1], Y[:1]).predict(X[:1])).all()
    assert torch.isfinite(FITS[fit](nb, X[:, :1], Y).predict(X[:, :1])).all()


@fits
def test_prediction_refuses_other_features(nb, fit):
    with pytest.raises(ValueError, match="features"):
        FITS[fit](nb, X, Y).predict(X[:, :5])


def test_fm_predict_refuses_what_does_not_fit(nb):
    w, V = torch.ones(6), torch.ones(6, 2)
    for args, message in (((X[:, :5], 0, w, V), "features"), ((X, 0, w[:5], V), "need w"), ((X, 0, w, V[:, 0]), "need w"), ((X, 0, w, V[:, :0]), "need w"),
                          ((X[0], 0, w, V), "one row is X"), ((X * np.nan, 0, w, V), "NaN"), ((scipy.sparse.csr_matrix(X * np.nan), 0, w, V), "NaN"),
                          ((X * 1j, 0, w, V), "complex"), ((scipy.sparse.csr_matrix(X * 1j), 0, w, V), "complex")):
        for name in ("fm_predict", "fm_predict_naive"):
            with pytest.raises(ValueError, match=message):
                nb[name](*args)


def test_fm_predict_keeps_types_and_gradients(nb):
    w, V = torch.ones(6, dtype=torch.float32, requires_grad=True), torch.ones(6, 2, dtype=torch.float32, requires_grad=True)
    for x in (torch.tensor(X).float(), scipy.sparse.csr_matrix(X)):
        out = nb["fm_predict"](x, torch.zeros((), requires_grad=True), w, V)
        assert out.dtype == torch.float32
        assert [s.shape for s in torch.autograd.grad(out.sum(), (w, V))] == [(6,), (6, 2)]
    assert nb["fm_predict"](X, 0, w, V).dtype == torch.float64


@pytest.mark.parametrize("dense", [True, False])
def test_als_never_rises_and_ends_at_a_stationary_point(nb, dense):
    x, y = problem(3, 40, 5, dense)
    model = nb["fm_als"](x, y, 2, 0.4, 0.9, 800)
    assert np.diff(model.history).max() < 1e-9
    leaves = [torch.tensor(model.w0), model.w.clone(), model.V.clone()]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    J = ((torch.tensor(y) - nb["fm_predict"](x, *leaves)) ** 2).sum() + 0.4 * (leaves[1] ** 2).sum() + 0.9 * (leaves[2] ** 2).sum()
    assert J.item() == pytest.approx(model.history[-1])
    assert max(s.abs().max() for s in torch.autograd.grad(J, leaves)) < 1e-4


def test_als_of_one_hot_pairs_is_far_below_the_mean(nb):
    rng = np.random.default_rng(0)
    u, i = np.repeat(np.arange(20), 15), np.tile(np.arange(15), 20)
    P, Q = rng.standard_normal((20, 2)), rng.standard_normal((15, 2))
    x = scipy.sparse.hstack([nb["one_hot"](u, 20), nb["one_hot"](i, 15)])
    y = 3 + (P[u] * Q[i]).sum(1)
    model = nb["fm_als"](x, y, 2, 1e-3, 1e-3, 200)
    assert ((model.predict(x).numpy() - y) ** 2).mean() < 1e-3 * y.var()
    assert nb["colours"](nb["as_csr"](x)).tolist() == [0] * 20 + [1] * 15


def test_colours_are_proper_whatever_their_number(nb):
    for seed in range(5):
        x = nb["as_csr"](problem(seed, 25, 30)[0])
        for reach in (1, 3, 8):
            colour = nb["colours"](x, reach)
            for c in range(colour.max() + 1):
                assert np.diff(x[:, np.flatnonzero(colour == c)].tocsr().indptr).max() <= 1


def test_few_rows_of_a_colour_are_updated_alone(nb):
    x = np.zeros((40, 4))
    x[:, 0], x[:5, 1], x[3:9, 2], x[20:22, 3] = 1, 2, -1, 3
    y = np.random.default_rng(1).standard_normal(40)
    fast, slow = nb["fm_als"](x, y, 2, 0.3, 0.5, 4), nb["als_loop"](torch.tensor(x), torch.tensor(y), 2, 0.3, 0.5, 4)
    # the loop visits features in order, the colours 0; 1, 3; 2
    order = np.argsort(nb["colours"](nb["as_csr"](x)), kind="stable")
    slow = nb["als_loop"](torch.tensor(x[:, order]), torch.tensor(y), 2, 0.3, 0.5, 300)
    fast = nb["fm_als"](x, y, 2, 0.3, 0.5, 300)
    J = nb["fm_objective"](x[:, order], y, *slow, 0.3, 0.5)
    assert fast.history[-1] == pytest.approx(J, rel=1e-5)


def test_classes_by_sgd_and_by_gibbs(nb):
    x, _ = problem(5, 200, 4)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)
    sgd = nb["fm_sgd"](x, y, 2, 0.1, 0.1, 0.1, 30, task="classification")
    gibbs = nb["fm_gibbs"](x, y, 2, 80, 20, task="classification")
    for model in (sgd, gibbs):
        q = model.predict(x)
        assert (q > 0).all() and (q < 1).all() and ((q > 0.5) == torch.tensor(y == 1)).double().mean() > 0.85
    a = nb["fm_predict"](x, sgd.w0, sgd.w, sgd.V)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(a, torch.tensor(y).double(), reduction="sum")
    assert sgd.history[-1] == pytest.approx(float(loss + 0.1 * (sgd.w**2).sum() + 0.1 * (sgd.V**2).sum()))
    assert gibbs.history[-1] == pytest.approx(float(-torch.distributions.Bernoulli(torch.tensor(
        nb["ndtr"](nb["fm_predict"](x, gibbs.w0, gibbs.w, gibbs.V).numpy()))).log_prob(torch.tensor(y).double()).mean()))
    assert gibbs.alphas == [1.0] * 60


def test_one_class_only_stays_finite(nb):
    for y in (np.ones(30), np.zeros(30)):
        model = nb["fm_gibbs"](X, y, 1, 30, 5, task="classification")
        assert torch.isfinite(model.predict(X)).all() and np.isfinite(model.history).all()


def test_history_of_gibbs_is_the_training_rmse_of_its_draw(nb):
    model = nb["fm_gibbs"](X, Y, 2, 6, 0)
    for (w0, w, V), rmse in zip(model.draws, model.history):
        assert rmse == pytest.approx(float(((nb["fm_predict"](X, w0, w, V) - torch.tensor(Y)) ** 2).mean().sqrt()))


def test_gibbs_with_learned_precisions_finds_the_noise(nb):
    rng = np.random.default_rng(0)
    x = nb["one_hot"](rng.integers(10, size=2000), 10)
    y = (x @ rng.standard_normal(10)) + 0.5 * rng.standard_normal(2000)
    model = nb["fm_gibbs"](x, y, 1, 200, 50)
    assert np.mean(model.alphas) == pytest.approx(4.0, rel=0.1)
    fixed = nb["fm_gibbs"](x, y, 1, 20, 5, alpha=9.0)
    assert fixed.alphas == [9.0] * 15


# Wrong variants of each formula: where, what it becomes, and the equation whose check must notice.
MUTANTS = [
    ("pairs = sum(0.5 * (V[j] @ V[k])", "pairs = sum(1.0 * (V[j] @ V[k])", "45.1"),
    ("    return w0 + X @ w + pairs", "    return w0 + X @ w - pairs", "45.1"),
    ("itertools.permutations(range(len(w)), 2)", "itertools.product(range(len(w)), repeat=2)", "45.1"),
    ("vectors * (values - values[0]).clamp(min=0).sqrt()", "vectors * values.clamp(min=0).sqrt()", "45.2"),
    ("vectors * (values - values[0]).clamp(min=0).sqrt()", "vectors * (values - values[0]).clamp(min=0)", "45.2"),
    ("return w0 + X @ w + 0.5 * (q * q - squares).sum(1)", "return w0 + X @ w + (q * q - squares).sum(1)", "45.3"),
    ("return w0 + X @ w + 0.5 * (q * q - squares).sum(1)", "return w0 + X @ w + 0.5 * (q * q + squares).sum(1)", "45.3"),
    ("squares = X2 @ (V * V)", "squares = X @ (V * V)", "45.3"),
    ("(q[:, None, :] - X[:, :, None] * V)", "(q[:, None, :] + X[:, :, None] * V)", "45.4"),
    ("(q[:, None, :] - X[:, :, None] * V)", "(q[:, None, :] - V)", "45.4"),
    ("return ((y - a) ** 2).sum(), -2 * (y - a)", "return ((y - a) ** 2).sum(), -(y - a)", "45.5"),
    ("return ((y - a) ** 2).sum(), -2 * (y - a)", "return ((y - a) ** 2).mean(), -2 * (y - a)", "45.5"),
    ("penalty = (lam_w * np.asarray(w) ** 2).sum() + (lam_v", "penalty = (lam_w * np.asarray(w) ** 2).sum() - (lam_v", "45.5"),
    ("return (np.logaddexp(0, a) - y * a).sum(), expit(a) - y", "return (np.logaddexp(0, a) + y * a).sum(), expit(a) - y", "45.6"),
    ("return (np.logaddexp(0, a) - y * a).sum(), expit(a) - y", "return (np.logaddexp(0, a) - y * a).sum(), a - y", "45.6"),
    ("w[j] -= step * (dw + lams[0] * share[j] * w[j])", "w[j] -= step * (dw + 2 * lams[0] * w[j])", "45.7"),
    ("V[j] -= step * (dV + lams[1] * share[j, None] * V[j])", "V[j] -= step * (dV - lams[1] * share[j, None] * V[j])", "45.7"),
    ("return slope, slope * x, (slope * x)[:, None] * (q - vx)", "return slope, slope * x, (slope * x)[:, None] * q", "45.7"),
    ("slope = 2 * (a - y) if task", "slope = (a - y) if task", "45.7"),
    ("step = lr / (1 + 10 * epoch / n_epochs)", "step = lr / (1 + epoch / n_epochs)", "45.7"),
    ("E.fill_diagonal_(0)", "E.fill_diagonal_(1)", "45.8"),
    ('E = torch.einsum("n,nj,nk->jk", e_0, X_toy, X_toy)', 'E = torch.einsum("n,nj,nk->jk", -e_0, X_toy, X_toy)', "45.8"),
    ('h = X_toy[:, 2] if name == "w_2" else h_V[:, 2, 1]', 'h = X_toy[:, 2] if name == "w_2" else h_V[:, 1, 2]', "45.9"),
    ("by_g[n] = target @ h / (h @ h + lam)", "by_g[n] = target @ h / (h @ h - lam)", "45.10"),
    ("by_g[n] = target @ h / (h @ h + lam)", "by_g[n] = e_toy @ h / (h @ h + lam)", "45.10"),
    ("np.divide(old * A + B, bottom,", "np.divide(old * A - B, bottom,", "45.11"),
    ("np.divide(old * A + B, bottom,", "np.divide(B, bottom,", "45.11"),
    ("    q_p += change\n", "", "45.11"),
    ("    e_p -= np.multiply(change, other", "    e_p += np.multiply(change, other", "45.11"),
    ("np.subtract(q_p, p.spread(old, other), out=other)", "other[:] = q_p", "45.11"),
    ("e -= moved - w0", "e += moved - w0", "45.11"),
    ("e[p.rows] -= p.spread(new - w[p.features]", "e[p.rows] -= p.spread(new", "45.11"),
    ("return out if self.x is None else np.multiply(out, self.x, out=out)", "return out", "45.11"),
    ("T2 = T.multiply(T).tocsr()", "T2 = T", "45.11"),
    ("if not busy[c][rows].any()), len(busy))", "if busy[c][rows].any()), len(busy))", "45.12"),
    ("return (alpha * (old * A + B) + lam * mu) / precision, 1 / np.sqrt(precision)",
     "return (alpha * (old * A + B) + lam * mu) / precision, 1 / precision", "45.13"),
    ("return (alpha * (old * A + B) + lam * mu) / precision, 1 / np.sqrt(precision)",
     "return (old * A + B + lam * mu) / precision, 1 / np.sqrt(precision)", "45.13"),
    ("return (alpha * (old * A + B) + lam * mu) / precision, 1 / np.sqrt(precision)",
     "return (alpha * (old * A + B) - lam * mu) / precision, 1 / np.sqrt(precision)", "45.13"),
    ("return mean + sd * rng.standard_normal(len(mean))", "return mean + sd**2 * rng.standard_normal(len(mean))", "45.13"),
    ("return 0.5 * (1 + len(e)), 0.5 * (1 + e @ e)", "return 0.5 * (1 + len(e)), 0.5 * (e @ e)", "45.14"),
    ("return 0.5 * (members.sum(0) + 2), 0.5 * (1 + spread + mu**2)", "return 0.5 * (members.sum(0) + 1), 0.5 * (1 + spread + mu**2)", "45.14"),
    ("return 0.5 * (members.sum(0) + 2), 0.5 * (1 + spread + mu**2)", "return 0.5 * (members.sum(0) + 2), 0.5 * (1 + spread)", "45.14"),
    ("return theta @ members / size, (size * lam) ** -0.5", "return theta @ members / size, size * lam", "45.14"),
    ("size = members.sum(0) + 1 ", "size = members.sum(0) ", "45.14"),
    ("from_draws - apart.var(0).mean()", "from_draws + apart.var(0).mean()", "45.15"),
    ("y_draws = a_draws + np.random", "y_draws = 0 * a_draws + np.random", "45.16"),
    ("/ np.sqrt(loose.alphas)", "/ np.sqrt(np.mean(loose.alphas))", "45.16"),
    ('mf = 3.1 + b_u[u] + b_i[i] + torch.einsum("nf,nf->n", P[u], Q[i])', 'mf = 3.1 + b_u[u] - b_i[i] + torch.einsum("nf,nf->n", P[u], Q[i])', "45.17"),
    ('three = b_t[t] + torch.einsum("nf,nf->n", P[u] + Q[i], T[t])', 'three = b_t[t] + torch.einsum("nf,nf->n", P[u], T[t])', "45.18"),
    ("pad(Q, (rank, 0)), torch", "pad(Q, (0, rank)), torch", "45.18"),
    ("itertools.combinations(range(3), 2)) / 9", "itertools.combinations(range(3), 2)) / 3", "45.19"),
    ("itertools.combinations(range(3), 2)) / 9", "itertools.permutations(range(3), 2)) / 9", "45.19"),
    ("root, y = len(mine) ** -0.5, Y[mine]", "root, y = len(mine) ** -1.0, Y[mine]", "45.20"),
    ("return a - sign * ndtri_exp(", "return a + sign * ndtri_exp(", "45.21"),
    ("+ log_ndtr(sign * a))", "+ log_ndtr(a))", "45.21"),
    ("yield self.link(w0 + X @ w.numpy()", "yield (lambda a: a)(w0 + X @ w.numpy()", "45.21"),
]


@pytest.mark.parametrize("old, new, eq", MUTANTS, ids=[f"{eq}-{k}" for k, (*_, eq) in enumerate(MUTANTS)])
def test_a_wrong_formula_fails_its_own_check(old, new, eq):
    """The checks of equation `eq`, with what they depend on and nothing else, must refuse the wrong variant."""
    assert BOOK.notices(old, new, eq)


def test_the_right_formulas_pass_the_same_slices():
    """Without this, a slice that fails for another reason would make every wrong variant seem noticed."""
    said = BOOK.run(BOOK.needed([node for _, node in BOOK.checks]))[1]
    assert all(f"✓ ({eq})" in said for eq in BOOK.tags)


def test_every_equation_has_a_wrong_variant():
    assert {eq for *_, eq in MUTANTS} == set(BOOK.tags)
