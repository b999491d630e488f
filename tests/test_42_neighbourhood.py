"""Notebook 42: its public functions on inputs the page does not show, and its checks against broken formulas."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import data
from helpers.data import Ratings
from tests.book import book

BOOK = book("42")
NAN, INF = math.nan, math.inf
TOY = [[5, 4, 1, NAN, NAN, 2], [4, 5, 2, 4, NAN, 1], [1, 2, 5, NAN, 4, NAN], [NAN, NAN, NAN, 5, 3, NAN], [3, 3, 3, 4, NAN, NAN],
       [NAN] * 6]


@pytest.fixture(scope="module")
def nb():
    names = BOOK.definitions()
    names["device"] = torch.device("cpu")         # the setup cell's
    return names


@pytest.fixture
def toy():
    return torch.tensor(TOY, dtype=torch.float64)


def same(a, b, atol=1e-12):
    """Equal where defined, undefined in the same places."""
    a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=atol, equal_nan=True)


def rated(rows, n_users=2, n_items=4):
    user, item, value = zip(*rows)
    return Ratings(torch.tensor(user), torch.tensor(item), torch.tensor(value), torch.arange(len(rows)), n_users, n_items)


SIMILARITIES = ["pearson_similarity", "cosine_similarity", "common_cosine", "pearson_overall", "adjusted_cosine"]
W6 = torch.arange(36.0, dtype=torch.float64).reshape(6, 6) * 7 % 11 / 11 - 0.3
# every public function of a table of ratings: name -> call with the table alone
CALLS = {
    **{name: lambda nb, R, name=name: nb[name](R) for name in SIMILARITIES},
    "user_based_scores": lambda nb, R: nb["user_based_scores"](R, W6, 0.1),
    "item_based_scores": lambda nb, R: nb["item_based_scores"](R, W6, 0.1),
    "liked_share_scores": lambda nb, R: nb["liked_share_scores"](R, W6, 0.1, 4.0),
    "predict_ratings": lambda nb, R: nb["predict_ratings"](R, W6, 2),
    "baseline_ratings": lambda nb, R: nb["baseline_ratings"](R),
    "user_profiles": lambda nb, R: nb["user_profiles"](R, torch.eye(6, 3).double() + 0.1, 1.0),
}
every = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every
def test_takes_what_people_have(nb, toy, call):
    expected = call(nb, toy)
    spread = torch.stack([toy, toy], 2)[:, :, 0]                       # not contiguous
    flipped = toy.numpy()[::-1].copy()[::-1]                           # negative strides
    for R in (toy.numpy(), spread, flipped, pd.DataFrame(TOY), TOY):
        assert same(call(nb, R), expected)
    whole = torch.tensor([[1, 2, 3, 4, 5, 5], [2, 2, 3, 5, 4, 1]] * 3)
    for kind in (torch.uint8, torch.int64):
        assert same(call(nb, whole.to(kind)), call(nb, whole.double()))


@every
def test_precision_and_arguments(nb, toy, call):
    expected, before = call(nb, toy), (toy.clone(), W6.clone())
    for kind, atol in ((torch.float16, 0.02), (torch.bfloat16, 0.05), (torch.float32, 1e-5)):
        result = call(nb, toy.to(kind))
        assert result.dtype in (torch.float32, torch.float64) and same(result, expected, atol)
    assert expected.dtype == torch.float64
    assert same(toy, before[0], 0) and same(W6, before[1], 0)


@every
def test_refuses_with_cause_and_cure(nb, toy, call):
    for R, words in ((toy[0], "n_users, n_items"), (toy.nan_to_num(nan=INF), "NaN"), (toy.isnan(), "NaN where nothing is rated"),
                     ([["a"] * 6] * 6, "no table of numbers"), (toy + 0j, "numbers")):
        with pytest.raises(ValueError, match=words):
            call(nb, R)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_without_anything_to_compare(nb, name):
    f = nb[name]
    assert f(torch.zeros(0, 0)).shape == (0, 0)
    assert f(torch.full((2, 2), NAN)).isnan().all()
    if name != "cosine_similarity":
        assert f(torch.tensor([[3.0], [4.0]]))[0, 0].isnan()          # one item, or one user: nothing in common but one
        for kind in (torch.float32, torch.float64):
            same_marks = torch.full((3, 7), 0.1, dtype=kind)
            if name != "common_cosine":                               # takes what is centred already
                assert f(same_marks).isnan().all()


def test_similarity_of_users_who_are_constant_on_the_common_items_only(nb):
    R = torch.tensor([[0.1, 0.1, 0.1, NAN], [3.3, 3.3, 3.3, 1.0], [1.0, 2.0, 4.0, NAN]]).double()
    assert nb["pearson_similarity"](R)[[0, 0, 1], [1, 2, 2]].isnan().all()
    W = nb["pearson_overall"](R)
    assert W[0].isnan().all() and W[1, 2] == pytest.approx(0.0, abs=1) and not W[1, 2].isnan()
    assert torch.isclose(nb["pearson_similarity"](R + 1e6)[2, 2], torch.tensor(1.0).double(), atol=1e-9)
    assert same(nb["pearson_similarity"](1e-8 * R), nb["pearson_similarity"](R), 1e-9)


@pytest.mark.parametrize("name", ["pearson_similarity", "common_cosine", "pearson_overall", "adjusted_cosine"])
def test_options_of_the_similarities(nb, toy, name):
    f = nb[name]
    table = toy - 3 if name == "common_cosine" else toy
    n = nb["masked_sums"](toy.T if name == "adjusted_cosine" else toy)[0]
    assert same(f(table, 2, 3.0), f(table) * n / (n + 3))
    assert f(table, 4)[n < 4].isnan().all() and same(f(table, 4)[n >= 4], f(table)[n >= 4])
    assert (f(table).nan_to_num().abs() <= 1).all()
    for bad in ((0, 0.0), (2, -1.0), (2, INF), (2, NAN)):
        with pytest.raises(ValueError, match="min_common"):
            f(table, *bad)


def test_similarity_of_one_float32_table_is_that_of_its_double(nb):
    R = nb["random_table"](12, 30, 0.5, 1).float().cpu()
    assert nb["cosine_similarity"](R).dtype == nb["common_cosine"](R).dtype == torch.float32
    for name in SIMILARITIES[:1] + SIMILARITIES[3:]:
        assert nb[name](R).dtype == torch.float32
        assert torch.equal(nb[name](R).nan_to_num(nan=9), nb[name](R.double()).float().nan_to_num(nan=9)), name


def test_rating_matrix_refuses_what_it_would_lose(nb):
    rows = [(0, 0, 1.0), (0, 2, 5.0), (1, 3, 2.0)]
    R = nb["rating_matrix"](rated(rows))
    assert same(R, [[1, NAN, 5, NAN], [NAN, NAN, NAN, 2]])
    assert nb["rating_matrix"](rated([(0, 1, 1.0), (1, 0, 2.0)])).isnan().sum() == 6       # two pairs with one sum of ids
    whole = nb["rating_matrix"](rated([(0, 0, 1), (1, 3, 2)]))
    assert same(whole, [[1, NAN, NAN, NAN], [NAN, NAN, NAN, 2]])
    with pytest.raises(ValueError, match="twice"):
        nb["rating_matrix"](rated([(0, 0, 1.0), (0, 0, 5.0)]))
    for bad in ((2, 0, 1.0), (0, 4, 1.0), (-1, 0, 1.0), (0, -1, 1.0)):
        with pytest.raises(ValueError, match="outside"):
            nb["rating_matrix"](rated([bad]))


def test_scores_of_wrong_similarities_are_refused(nb, toy):
    for f in ("user_based_scores", "item_based_scores"):
        assert same(nb[f](toy, W6.numpy(), 0.1), nb[f](toy, W6, 0.1))
        assert same(nb[f](toy, W6.float(), 0.1), nb[f](toy, W6, 0.1), 1e-6)
        for W in (W6[:5], 1.0, W6[:4, :4]):
            with pytest.raises(ValueError, match="a row and a column"):
                nb[f](toy, W, 0.1)
        with pytest.raises(ValueError, match="undefined"):
            nb[f](toy, W6, NAN)
        with pytest.raises(ValueError, match="undefined"):
            nb[f](toy, W6.masked_fill(W6 < 0, -INF), 0.1)


def test_threshold_is_exclusive_and_nobody_is_their_own_neighbour(nb, toy):
    W = torch.full((6, 6), NAN, dtype=torch.float64).fill_diagonal_(1)
    W[0, 1], W[0, 2] = 0.5, 0.4
    U = nb["collaboration"](W, 0.4)
    assert U.sum() == 1 and U[0, 1]
    p = nb["user_based_scores"](toy, W, 0.4)
    assert p[0, 3] == 1 and p[0, 4] == 0 and p[0, [0, 1, 2, 5]].isnan().all() and p[1:].isnan().all()
    assert nb["user_based_scores"](toy, W, 0.3)[0, 4] == 0.5
    assert nb["liked_share_scores"](toy, W, 0.3, 4.0)[0, [3, 4]].tolist() == [0.5, 0.5]
    assert nb["liked_share_scores"](toy, W, 0.3, 4.5)[0, [3, 4]].tolist() == [0, 0]


def test_top_items(nb):
    f = nb["top_items"]
    assert f(torch.tensor([[1.0, -INF, NAN]]), 3).tolist() == [[0, -1, -1]]
    assert f(torch.tensor([[0.2, NAN, 0.9, INF], [NAN] * 4]), 3).tolist() == [[3, 2, 0], [-1, -1, -1]]
    assert f(torch.tensor([[2, 5, 5, 1]]), 3).tolist() == [[1, 2, 0]]                 # whole numbers, ties by id
    assert f(np.array([[2.0, 5.0]]), 2).tolist() == [[1, 0]] and f([[2.0, 5.0]], 1).tolist() == [[1]]
    assert f(torch.tensor([[1, 2.0]]).half(), 2).tolist() == [[1, 0]]
    lowest = torch.finfo(torch.float32).min
    assert f(torch.tensor([[lowest, -INF]]), 2).tolist() == [[0, -1]]
    assert f(torch.zeros(0, 3), 2).shape == (0, 2)
    scores = torch.tensor([[1.0, NAN]])
    f(scores, 1)
    assert same(scores, [[1, NAN]])
    for bad in (0, 3, -1, 1.5):
        with pytest.raises(ValueError, match="from 1 to n_items"):
            f(scores, bad)
    with pytest.raises(ValueError, match="n_users, n_items"):
        f(scores[0], 1)


def test_ranking_metrics_by_hand(nb):
    f, none = nb["ranking_metrics"], torch.full((1, 4), NAN)
    flat = torch.ones(1, 4)
    for i in range(4):                                                # all tied: each in a quarter of the lists of one
        assert f(flat, none, rated([(0, i, 5.0)], 1), 1, 4.0) == [0.25] * 3
    held = rated([(0, 0, 5.0), (0, 1, 4.0), (0, 2, 3.0)], 1)
    scores = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    d = 1 / math.log2(3)
    assert f(scores, none, held, 2, 4.0) == pytest.approx([0.5, 0.5, 1 / (1 + d)])
    assert f(scores, none, held, 1, 4.0) == pytest.approx([1.0, 0.5, 1.0])
    assert f(scores, none, held, 3, 3.0) == pytest.approx([1.0, 1.0, 1.0])
    hidden = torch.tensor([[-INF, 1.0, -INF, NAN]])                   # the liked item must not be shown
    assert f(hidden, none, rated([(0, 0, 5.0)], 1), 2, 4.0) == [0.0] * 3
    history = torch.tensor([[NAN, NAN, NAN, 5.0]])
    assert f(-scores, history, rated([(0, 1, 5.0)], 1), 1, 4.0) == [1.0] * 3
    assert all(map(math.isnan, f(scores, none, held, 2, 6.0)))
    for k in (0, 5):
        with pytest.raises(ValueError, match="from 1 to 4"):
            f(scores, none, held, k, 4.0)
    half = torch.tensor([[2.0, 2.0, 1.0, 2.0]])                       # three tied for two places
    assert f(half, none, rated([(0, 0, 5.0)], 1), 2, 4.0) == pytest.approx([1 / 3, 2 / 3, (1 + d) / 3])


def test_predictions(nb, toy):
    f, W = nb["predict_ratings"], nb["pearson_similarity"](toy)
    alone = f(toy[:1], torch.ones(1, 1), 3)
    assert alone.shape == (1, 6) and alone.isnan().all()              # nobody but the user
    assert f(torch.zeros(0, 3), torch.zeros(0, 0), 1).shape == (0, 3)
    assert same(f(toy, W.numpy(), 5), f(toy, W, 5)) and same(f(toy, W.float(), 2), f(toy, W, 2), 1e-5)
    assert same(f(toy, W, 2.0), f(toy, W, 2)) and same(f(toy, W, np.int64(2)), f(toy, W, 2))
    assert same(f(toy, W, 2, np.full((6, 6), 3.0)), f(toy, W, 2, torch.tensor([[3.0]])))
    for bad in ((0,), (1.5,), (NAN,), (INF,), (1, None, -0.5), (1, None, INF)):
        with pytest.raises(ValueError, match="n_neighbours"):
            f(toy, W, *bad)
    for wrong in (W[:5], toy[:, :3]):
        with pytest.raises(ValueError, match="a row and a column"):
            f(toy, wrong, 1)
    with pytest.raises(ValueError, match="undefined"):
        f(toy, W.nan_to_num(nan=INF), 1)


def test_consensus_takes_the_sign_of_a_weight(nb):
    w, delta = torch.tensor([0.5, -0.4]), torch.tensor([1.0, 1.0])
    assert nb["consensus"](w, delta) == pytest.approx(0.1 / 0.9)
    assert nb["consensus"](w, delta, 0.1) == pytest.approx(0.1)
    assert nb["consensus"](torch.zeros(2), delta, 1.0).isnan()


def test_baseline(nb, toy):
    f = nb["baseline_ratings"]
    assert not f(toy).isnan().any() and not f(toy, 0.0).isnan().any()
    assert torch.allclose(f(toy, 1e12), toy.nanmean().expand(6, 6))
    assert not f(torch.cat([toy, toy[:, :1] * NAN], 1), 0.0).isnan().any()                 # an item without ratings
    for bad in (-1.0, NAN):
        with pytest.raises(ValueError, match="lam"):
            f(toy, bad)


def test_profiles(nb, toy):
    f, X = nb["user_profiles"], torch.eye(6, 3).double()
    D = toy - 3
    assert f(D, X.float(), 1.0).dtype == torch.float32 and f(D, X, 1.0)[5].abs().max() == 0
    for kind in (torch.bool, torch.int64, torch.float16):
        assert same(f(D, X.to(kind), 1.0), f(D, X, 1.0), 1e-6)
    assert same(f(D, X.numpy(), 1.0), f(D, X, 1.0))
    assert same(f(D, X, 1.0)[0], [1.0, 0.5, -1.0])                    # δ / (1 + lam)
    for bad in ((X, 0.0), (X, INF), (X, NAN), (X[:5], 1.0), (X[:, 0], 1.0), (X * INF, 1.0)):
        with pytest.raises(ValueError, match="need finite features"):
            f(D, *bad)


def test_held_out_error_clips_to_the_scale_not_to_the_answers(nb):
    f, ones = nb["held_out_error"], torch.ones(2, 4)
    assert f(ones, ones, rated([(0, 0, 5.0)])) == (4.0, 0.0)
    assert f(ones, ones, rated([(0, 0, 4.0), (1, 1, 5.0)]))[0] == pytest.approx(12.5 ** 0.5)
    assert f(-ones, ones, rated([(0, 0, 1.5)])) == (1.0, 0.0)         # half a star is the lowest of the bundled scale
    assert f(9 * ones, ones, rated([(0, 0, 4.0)]), (0, 10)) == (5.0, 0.0)
    assert f(NAN * ones, 2 * ones, rated([(0, 0, 5.0)])) == (3.0, 1.0)
    with pytest.raises(ValueError, match="nothing to measure"):
        f(ones, ones, rated([(0, 0, 5.0)])[torch.tensor([False])])


def test_scale_of_the_bundled_ratings(nb):
    value = data.ratings().value
    assert nb["STARS"]["bundled"] == (float(value.min()), float(value.max()))


def test_folds_and_histories(nb):
    fold = nb["fold_of"](10, 3, 0)
    assert np.bincount(fold).tolist() == [4, 3, 3] and not torch.equal(fold, nb["fold_of"](10, 3, 1))
    for bad in (1, 0, 11):
        with pytest.raises(ValueError, match="n_folds"):
            nb["fold_of"](10, bad, 0)
    who, time = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([5, 3, 5, 1, 2])
    assert nb["position_in_history"](who, time, 3).tolist() == [1, 1, 2, 0, 0]
    assert nb["position_in_history"](who[:0], time[:0], 3).shape == (0,)


def test_cold_split_shows_the_first_ratings_only(nb):
    r = data.ratings()
    for who, n in ((r.user, r.n_users), (r.item, r.n_items)):
        train, test = nb["cold_split"](r, who, n, 3)
        assert not (train & test).any() and test.any()
        place = nb["position_in_history"](who, r.time, n)
        new = torch.bincount(who[test], minlength=n) > 0
        assert (place[train & new[who]] < 3).all() and (place[test] >= 10).all() and train[~new[who]].all()


def test_epsilon_greedy(nb):
    f, g = nb["epsilon_greedy"], lambda: torch.Generator().manual_seed(0)
    shown, click, explored = f(torch.tensor([0.0, 1.0]), 0.0, 6, 3, g())
    assert (shown[2:] == 1).all() and shown[:2].T.tolist() == [[0, 1]] * 3
    assert torch.equal(click, (shown == 1).float()) and not explored.any()
    assert f(torch.tensor([0, 1]), 1.0, 6, 3, g())[2][2:].all()       # whole chances
    assert not f(torch.tensor([0, 1]), 1.0, 6, 3, g())[2][:2].any()
    for theta, epsilon, steps in ((torch.tensor([0.5, 1.5]), 0.1, 5), (torch.tensor([-0.5, 0.5]), 0.1, 5),
                                  (torch.tensor([0.5, 0.5]), 1.5, 5), (torch.tensor([0.5, 0.5]), -0.5, 5),
                                  (torch.tensor([0.5, 0.5]), 0.1, 1), (torch.tensor([0.5, NAN]), 0.1, 5)):
        with pytest.raises(ValueError, match="steps"):
            f(theta, epsilon, steps, 2, g())


def test_refusal(nb):
    assert nb["refusal"](int, "x") is not None and nb["refusal"](int, "1") is None


# (what is broken, what it becomes, equation whose check must notice)
BROKEN = [
    ("S * S                                 # (n", "S                                     # (n", "42.3"),
    ("w = (n * C - S * S.T)", "w = (n * C + S * S.T)", "42.3"),
    ("return (w * n / (n + shrinkage))", "return (w * n / (n + 2 * shrinkage))", "42.5"),
    ("return (X @ X.T / (length[:, None] * length))", "return (X @ X.T / length)", "42.6"),
    ("n, _, A, C = masked_sums(X)", "n, A, _, C = masked_sums(X)", "42.7"),
    ("(R - mean).abs() <= 1e-12 * mean.abs()", "(R - mean).abs() < 0", "42.7"),
    ("return (W > alpha) & ~torch.eye(len(W), dtype=torch.bool, device=W.device)", "return W > alpha", "42.8"),
    ("return (W > alpha) & ~torch.eye", "return (W >= alpha) & ~torch.eye", "42.8"),
    ("W = torch.where(W > alpha, W, -math.inf)", "W = torch.where(W.T > alpha, W.T, -math.inf)", "42.9"),
    ("W = torch.where(W > alpha, W, -math.inf)", "W = torch.where(W >= alpha, W, -math.inf)", "42.9"),
    ("weight = w.abs().sum(-1)\n", "weight = w.sum(-1)\n", "42.10"),
    ("W = W.clone().fill_diagonal_(math.nan).nan_to_num", "W = W.clone().nan_to_num", "42.11"),
    ("delta = (R[:, i] - B[:, i])[raters][place]", "delta = R[:, i][raters][place]", "42.11"),
    ("b_u = (R - mu - b_i).nansum", "b_u = (R - mu).nansum", "42.12"),
    ("A = A + lam * torch.eye(F", "A = A + 2 * lam * torch.eye(F", "42.13"),
]


@pytest.mark.parametrize("old, new, eq", BROKEN, ids=[f"{eq} {new.strip()[:30]}" for _, new, eq in BROKEN])
def test_checks_notice_a_broken_formula(old, new, eq):
    assert BOOK.notices(old, new, eq)
