"""Notebook 41: its public functions on inputs the page does not show, and its checks against broken formulas."""

import ast
import copy
import math

import numpy as np
import pytest
import torch

from helpers.data import Ratings
from tests.book import book, wrong_variant_tests

BOOK = book("41")
NAN, INF = math.nan, math.inf
LISTS = ["hitrate_at_k", "precision_at_k", "recall_at_k", "average_precision_at_k", "reciprocal_rank", "dcg_at_k", "ndcg_at_k"]
every = pytest.mark.parametrize("name", LISTS)


@pytest.fixture(scope="module")
def nb():
    names = BOOK.definitions()
    names["device"] = torch.device("cpu")         # the setup cell's
    return names


def d(*values):
    return torch.tensor(values, dtype=torch.float64)


def log_of(users, times, n_users=4):
    """Ratings of value 1 with item ids 0, 1, 2, … from lists of users and times."""
    n = len(users)
    return Ratings(torch.tensor(users), torch.arange(n), torch.ones(n), torch.tensor(times), n_users, n)


# ---- lists ----------------------------------------------------------------------------------------------------------------

VALUES = {"hitrate_at_k": 1, "precision_at_k": 1 / 2, "recall_at_k": 1 / 3, "average_precision_at_k": 1 / 4, "reciprocal_rank": 1 / 2,
          "dcg_at_k": 3 / math.log2(3), "ndcg_at_k": 3 / math.log2(3) / (7 + 3 / math.log2(3))}


@every
def test_a_list_by_hand(nb, name):
    """Ranked (0, 2, 1, 3, 0) at k = 2."""
    assert float(nb[name](d(3, 0, 1, 0, 2), d(2, 9, 5, 1, 7), 2)) == pytest.approx(VALUES[name])


@every
def test_lists_arrays_bytes_and_views(nb, name):
    relevance, scores = [[3, 0, 1, 0, 2], [0, 1, 1, 0, 0]], [[2, 9, 5, 1, 7], [4, 4, 4, 1, 1]]
    expected = nb[name](d(*relevance), d(*scores), 3)
    f = np.array(scores, dtype=np.float64)
    for r, a in ((relevance, scores), (np.array(relevance), f), (np.array(relevance, dtype=np.uint8), np.array(scores, dtype=np.uint8)),
                 (np.array(relevance)[:, ::-1][:, ::-1], f[::-1][::-1]), (d(*relevance).T.contiguous().T, d(*scores).T.contiguous().T)):
        assert torch.allclose(nb[name](r, a, 3), expected)
    assert nb[name](d(*relevance)[None], d(*scores)[None].float(), 3).dtype == torch.float32
    assert nb[name](d(*relevance)[None], d(*scores)[None], 3).shape == (1, 2)
    assert nb[name](torch.zeros(0, 5), torch.zeros(0, 5), 3).shape == (0,)


@every
def test_what_must_not_be_shown_is_never_a_hit(nb, name):
    assert float(nb[name](d(1, 0, 0), d(-INF, 1, -INF), 2)) == 0
    shown = float(nb[name](d(1, 1, 0, 0), d(-INF, 3, 2, 1), 3))
    unseen = float(nb[name](d(0, 1, 0, 0), d(-INF, 3, 2, 1), 3))
    assert shown == pytest.approx({"recall_at_k": 0.5, "average_precision_at_k": 0.5,
                                   "ndcg_at_k": 1 / (1 + 1 / math.log2(3))}.get(name, unseen))


@every
def test_ties_share_their_positions(nb, name):
    """Four tied items, one relevant: the mean over its four positions."""
    each = [float(nb[name](torch.eye(4).double()[p], d(4, 3, 2, 1), 2)) for p in range(4)]
    assert float(nb[name](d(0, 0, 1, 0), d(7, 7, 7, 7), 2)) == pytest.approx(np.mean(each))


@every
@pytest.mark.parametrize("relevance, scores, k, word", [
    (d(1, 2), d(1, 2), 0, "k must"), (d(1, 2), d(1, 2), 3, "k must"), (d(1, 2), d(1, 2), 1.5, "k must"), (d(1, 2), d(1, 2), True, "k must"),
    (d(1, 2), d(1, 2, 3), 1, "shape"), (d(1)[0], d(1)[0], 1, "shape"), (d(1, 2), d(0, NAN), 1, "-inf"), (d(1, NAN), d(1, 2), 1, "give 0"),
    (d(1, INF), d(1, 2), 1, "finite"), (d(), d(), 1, "at least one")])
def test_bad_lists_are_refused(nb, name, relevance, scores, k, word):
    with pytest.raises(ValueError, match=word):
        nb[name](relevance, scores, k)


def test_nobody_likes_anything(nb):
    for name in LISTS:
        value = float(nb[name](d(0, 0, 0), d(1, 2, 3), 2))
        assert math.isnan(value) if name in ("recall_at_k", "average_precision_at_k", "reciprocal_rank", "ndcg_at_k") else value == 0
    mean, missing = nb["mean_over_users"](np.array([1.0, NAN, 0.5]))
    assert (float(mean), missing) == (0.75, 1)


def test_gains(nb):
    assert float(nb["dcg_at_k"](d(-1, 2), d(2, 1), 2, "linear")) == pytest.approx(-1 + 2 / math.log2(3))
    for relevance, gain in ((d(-0.5, 2), "exp"), (d(1, 2000), "exp"), (d(1, 2), "log")):
        with pytest.raises(ValueError):
            nb["dcg_at_k"](relevance, d(1, 2), 1, gain)
    with pytest.raises(ValueError, match="0 means worthless"):
        nb["ndcg_at_k"](d(-0.5, 2), d(1, 2), 1, "linear")
    assert float(nb["reciprocal_rank"](d(0, 0, 1), d(3, 2, 1))) == pytest.approx(1 / 3)


def test_auc_with_hidden_items(nb):
    auc = nb["roc_auc"]
    assert float(auc(d(1, 0, 0, 1), d(3, 2, 1, 0))) == 0.5
    assert float(auc(d(1, 0, 0), d(2, 3, -INF))) == 0                  # a hidden item is no opponent
    assert float(auc(d(1, 1, 0), d(3, -INF, 2))) == 0.5                # a hidden relevant item wins nothing
    assert math.isnan(auc(d(1, 1), d(2, 1))) and math.isnan(auc(d(0), d(1)))


def test_f_beta(nb):
    f = nb["f_beta"]
    assert float(f(np.uint8(200), np.uint8(100), np.uint8(100))) == pytest.approx(2 / 3)
    assert float(f(0, 3, 2)) == 0 and math.isnan(f(0, 0, 0))
    for bad in ((1, 1, 1, 0), (1, 1, 1, NAN), (-1, 1, 1), (NAN, 1, 1)):
        with pytest.raises(ValueError):
            f(*bad)


def test_rating_errors(nb):
    f = nb["rating_errors"]
    assert [float(x) for x in f(np.array([5, 0], dtype=np.uint8), np.array([3, 2], dtype=np.uint8))] == [4, 2, 2]
    assert float(f(torch.tensor([300.0]).half(), torch.tensor([-300.0]).half())[0]) == 360000
    for bad in (([1, 2], [1]), ([], []), ([NAN], [1.0]), ([1.0], [INF])):
        with pytest.raises(ValueError):
            f(*bad)


@pytest.mark.parametrize("n, m, k", [(5, 2, 3), (4, 4, 2), (6, 1, 6), (1, 1, 1), (3, 3, 3)])
def test_random_orders_by_listing_them(nb, n, m, k):
    from itertools import combinations
    orders = [[float(p in chosen) for p in range(n)] for chosen in combinations(range(n), m)]
    for name, loop in (("hitrate", "hitrate"), ("reciprocal_rank", "reciprocal_rank"), ("average_precision", "average_precision")):
        assert nb[f"random_{name}"](n, m, k) == pytest.approx(np.mean([nb[f"{loop}_loop"](x, k) for x in orders]))
    for bad in ((n, 0, k), (n, n + 1, k), (n, m, 0), (n, m, n + 1)):
        with pytest.raises(ValueError):
            nb["random_hitrate"](*bad)


# ---- beyond accuracy ------------------------------------------------------------------------------------------------------

def test_novelty(nb):
    f, ids = nb["novelty"], torch.tensor([[0, 1]])
    for dtype in (torch.bool, torch.int64, torch.uint8, torch.float32):
        assert float(f(ids, torch.tensor([[1, 0, 0]]).to(dtype))) == 0.5
    assert float(f([0, -1, -1], [1, 0])) == 0 and float(f(np.array([[1, -1]]), np.array([[1, 0]]))) == 1
    assert math.isnan(f([-1, -1], [1, 0]))
    for bad in (([0, 0], [1, 0]), ([0, 2], [1, 0]), ([0, -2], [1, 0]), ([0.0, 1.0], [1, 0]), ([[0, 1]], [1, 0]), ([0], [NAN, 0.0])):
        with pytest.raises(ValueError):
            f(*bad)


def test_self_information_and_coverage(nb):
    assert float(nb["self_information"]([0, -1], [0.5, 0.25, 0.125])) == 1
    assert float(nb["self_information"](torch.tensor([[2, 1]]), np.array([0.5, 0.25, 0.125]))) == 2.5
    for bad in (([3], [0.5, 0.25]), ([0], [0.0, 0.5]), ([0], [NAN, 0.5]), ([0], [2.0, 0.5])):
        with pytest.raises(ValueError):
            nb["self_information"](*bad)
    assert float(nb["coverage"]([[0, -1]], 2)) == 0.5 and float(nb["coverage"]([[-1, -1]], 2)) == 0
    with pytest.raises(ValueError, match="another catalogue"):
        nb["coverage"]([[0, 5, 7]], 2)


def test_diversity(nb):
    f = nb["diversity"]
    opposite = torch.ones(1, 300) * torch.tensor([[100.0], [-100.0]])
    assert f(opposite.half(), "cosine") == 2 and f(opposite.half(), "cosine").dtype == torch.float16
    assert float(f(torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8))) == pytest.approx(255 * math.sqrt(2))
    assert float(f(d([1e200, 0], [0, 1e200]), "cosine")) == pytest.approx(1)
    assert float(f(d([0, 0], [3, 4], [0, 0]))) == pytest.approx(10 / 3)
    assert math.isnan(f(d([0, 0], [3, 4]), "cosine"))
    assert f(torch.rand(2, 3, 4, 5)).shape == (2, 3)
    for bad in ((d([1, 2]),), (d(1, 2),), (d([1, NAN], [2, 3]),), (d([1, 2], [3, 4]), "dot")):
        with pytest.raises(ValueError):
            f(*bad)


def test_variance_and_entropy_of_genres(nb):
    x = np.array([[1, 0], [0, 0], [1, 1]], dtype=np.uint8)
    assert float(nb["metadata_variance"](x)) == pytest.approx(np.var(x.astype(float), axis=0, ddof=1).sum())
    assert float(nb["genre_entropy"](x)) == pytest.approx(-(2 / 3) * math.log2(2 / 3) - (1 / 3) * math.log2(1 / 3))
    assert math.isnan(nb["genre_entropy"](np.zeros((2, 2))))
    for bad in (x[:1], [[NAN, 1], [0, 1]]):
        with pytest.raises(ValueError):
            nb["metadata_variance"](bad)


def test_serendipity(nb):
    assert nb["surprise"]([0, 1, 2], np.array([5, 2, 0], dtype=np.uint8)).tolist() == pytest.approx([1 / 6, 4 / 6, 1])
    assert float(nb["serendipity"]([1, 0], [2, 2], [5, 2, 0])) == 0.5
    assert float(nb["serendipity"]([1, 1], [2, -1], [5, 2, 0])) == 1            # an empty place counts nowhere
    assert float(nb["serendipity"]([1], [0], [0, 0])) == 1                      # nothing read yet
    for bad in (([1], [0, 1], [1, 2]), ([1], [2], [1, 2]), ([NAN], [0], [1, 2]), ([[1]], [[0]], [1, 2])):
        with pytest.raises(ValueError):
            nb["serendipity"](*bad)


# ---- splits ---------------------------------------------------------------------------------------------------------------

def test_splits_on_a_tiny_log(nb):
    tiny = log_of([0, 1, 0, 1, 2, 0], [5, 5, 9, 5, 7, 2])
    position, length = nb["position_in_history"](tiny)
    assert position.tolist() == [1, 0, 2, 1, 0, 0] and length.tolist() == [3, 2, 3, 2, 1, 3]
    assert nb["leave_one_out"](tiny)[1].item.tolist() == [2, 3]                 # the later row of equal times; no single ratings
    assert nb["event_split"](tiny, 2 / 3)[1].item.tolist() == [2]
    assert nb["time_split"](tiny, 0.5)[0].item.tolist() == [5]                  # equal times go to test together
    assert float(nb["future_share"](tiny[:2], tiny[3:4])) == 0.5
    for split in ("time_split", "event_split"):
        for share in (0, 1, -1, NAN):
            with pytest.raises(ValueError):
                nb[split](tiny, share)
    with pytest.raises(ValueError, match="older than the cut"):
        nb["time_split"](log_of([0, 1], [3, 3]), 0.5)
    with pytest.raises(ValueError):
        nb["future_share"](tiny[:0], tiny)


def test_no_rating_is_lost_to_rounding(nb):
    hundred = log_of([0] * 100, list(range(100)))
    assert len(nb["event_split"](hundred, 0.07)[0]) == 7
    train, test = nb["random_split"](hundred, 0.29, seed=0)
    assert len(train) == 29 and sorted([*train.item.tolist(), *test.item.tolist()]) == list(range(100))


def test_rolling_splits_and_trend(nb):
    edges = log_of([0, 0, 0, 0], [0, 1, 50_000, 50_001])
    assert [(len(a), len(b)) for a, b in nb["rolling_splits"](edges, [1, 50_000, 50_002])] == [(1, 1), (2, 2)]
    assert nb["trend_scores"](edges, edges.time[3:])[0].tolist() == [0, 1, 1, 0]   # lags 50,001 and 0 are outside


def test_knn_leaves_the_item_itself_out(nb):
    log = Ratings(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.ones(3), torch.arange(3), 3, 3)
    cosine = 1 / math.sqrt(2)
    assert nb["knn_scores"](log, [0, 1, 2]).numpy() == pytest.approx(np.array([[cosine, cosine, 0], [cosine, 0, 0], [0, 0, 0]]))
    query = Ratings(torch.tensor([0, 1, 2]), torch.tensor([2, 2, 2]), torch.ones(3), torch.tensor([3, 3, 3]), 3, 3)
    assert nb["knn_each"](log, query, nb["past_only"], size=2).numpy() == pytest.approx(nb["knn_scores"](log, [0, 1, 2]).numpy(), abs=1e-4)
    times = torch.tensor([[0.0, 1.0], [NAN, 2.0]])
    user, time = torch.tensor([1])[:, None, None], torch.tensor([2])[:, None, None]
    assert nb["past_only"](times, user, time).tolist() == [[[True, True], [False, False]]]
    late = times * 100_000
    assert nb["near"](late, user, time).tolist() == [[[True, True], [False, False]]]
    assert nb["far"](late, user, time).tolist() == [[[True, False], [False, True]]]


# ---- weights, samples -----------------------------------------------------------------------------------------------------

def test_weights(nb):
    w, margin = nb["degradation_weights"](np.array([[-2, 0], [1, -3]]))
    assert margin > 0 and (np.array([[-2, 0], [1, -3]]) @ w.numpy() <= -margin + 1e-9).all() and w.dtype == torch.float64
    assert nb["degradation_weights"](d([1, 2], [-1, -2]))[1] == pytest.approx(0)
    assert nb["degradation_weights"](torch.tensor([[-1.0, 0]]))[0].dtype == torch.float32
    for bad in (d(1, 2), d([1, NAN]), torch.zeros(0, 2)):
        with pytest.raises(ValueError, match="deltas must"):
            nb["degradation_weights"](bad)


def test_regression(nb):
    f = np.array([[0, 1], [1, 0], [2, 2], [3, 1]])
    w, intercept = nb["regression_weights"](f, 3 * f[:, 0] - f[:, 1] + 4)
    assert w.tolist() == pytest.approx([3, -1]) and float(intercept) == pytest.approx(4)
    for bad in ((f[:, [0, 0]], f[:, 0]), (f, f[:3, 0]), (f[:0], f[:0, 0]), (f * NAN, f[:, 0])):
        with pytest.raises(ValueError):
            nb["regression_weights"](*bad)


def test_wendel_and_samples(nb):
    assert [nb["weights_by_chance"](E, J) for E, J in ((3, 3), (6, 3), (3, 1))] == [1, 0.5, 0.25]
    f = nb["sampled_hitrate"]
    assert [f(r, 10, 3, 5) for r in (1, 10)] == [1, 1]                          # s < k: constant
    assert f(4, 10, 1, 1) == pytest.approx(6 / 9) and [f(r, 10, 9, 3) for r in (3, 4)] == [1, 0]
    for bad in ((0, 10, 3, 5), (11, 10, 3, 5), (1, 10, 10, 5), (1, 10, 3, 0)):
        with pytest.raises(ValueError):
            f(*bad)
    with pytest.raises(ValueError):
        nb["weights_by_chance"](0, 2)


def test_no_function_changes_its_arguments(nb):
    relevance, scores = d([1, 0, 2]), d([3, -INF, 3])
    calls = [(nb[name], (relevance, scores, 2)) for name in LISTS] + [
        (nb["roc_auc"], (relevance, scores)), (nb["diversity"], (d([1, 2], [3, 4]), "cosine")),
        (nb["novelty"], (torch.tensor([[0, -1]]), torch.tensor([[1, 0]]))), (nb["serendipity"], (d(1, 0), torch.tensor([0, -1]), d(1, 2))),
        (nb["regression_weights"], (d([0, 1], [1, 0], [2, 2]), d(1, 2, 3))), (nb["degradation_weights"], (d([-1, 2]),))]
    for function, arguments in calls:
        before = copy.deepcopy(arguments)
        function(*arguments)
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(arguments, before)), function.__name__


# ---- wrong variants -------------------------------------------------------------------------------------------------------

MUTANTS = [
    ("observed = ~matrix.isnan()", "observed = matrix.isnan()", "41.1"),
    ("mse = (error**2).mean()", "mse = (error**2).sum()", "41.2"),
    ("return mse, mse.sqrt(), error.abs().mean()", "return mse, mse.sqrt(), error.mean()", "41.2"),
    ("(((divided - a).abs() ** power).sum())", "(((divided - a).abs() ** (3 - power)).sum())", "41.3"),
    ("weighted + fp + beta**2 * fn", "weighted + beta**2 * fp + fn", "41.4"),
    ("P, S = tp / (tp + fp), tp / (tp + fn)", "S, P = tp / (tp + fp), tp / (tp + fn)", "41.4"),
    ("5 * P_S[0] * P_S[1] / (4 * P_S[0] + P_S[1])", "5 * P_S[0] * P_S[1] / (P_S[0] + 4 * P_S[1])", "41.5"),
    ("duels = [(a > b) + tie * (a == b)", "duels = [(a < b) + tie * (a == b)", "41.6"),
    ("(rank * found).sum(-1) - m * (m + 1) / 2", "(rank * found).sum(-1) - m * (m - 1) / 2", "41.7"),
    ("rank = (below + upto + 1) / 2", "rank = below + 1", "41.7"),
    ("return float(any(r > 0 for r in ranked[:k]))", "return float(any(r > 0 for r in ranked[:1]))", "41.8"),
    ("return sum(r > 0 for r in ranked[:k]) / k", "return sum(r > 0 for r in ranked[:k]) / len(ranked)", "41.9"),
    ("return sum(r > 0 for r in ranked[:k]) / m if m", "return sum(r > 0 for r in ranked[:k]) / k if m", "41.9"),
    ("return sum(found) / min(k, m) if m", "return sum(found) / k if m", "41.10"),
    ("1 / first if first <= k else 0.0", "1 / (first + 1) if first <= k else 0.0", "41.10"),
    ("return sum(gain_of(r, gain) / math.log2(p + 1)", "return sum(gain_of(r, gain) / math.log2(p + 2)", "41.11"),
    ("return 2**r - 1 if gain", "return 2**r if gain", "41.11"),
    ("ideal = dcg_loop(sorted(ranked, reverse=True), k, gain)", "ideal = dcg_loop(sorted(ranked[:k], reverse=True), k, gain)", "41.13"),
    ("return sum(gain_of(r, gain) / math.log2(p + 1)", "return sum(gain_of(r, gain) / math.log2(p + 2)", "41.12"),
    ("* math.log2(math.e), natural", "/ math.log2(math.e), natural", "41.14"),
    ("1 - math.comb(n - m, k) / math.comb(n, k)", "1 - math.comb(n - m, k) / math.comb(n + 1, k)", "41.15"),
    ("[k / 6 for k in ks]", "[k / 4 for k in ks]", "41.16"),
    ("math.comb(n - p, m - 1) / p for p", "math.comb(n - p, m) / p for p", "41.17"),
    ("(harmonic + (m - 1) / max(n - 1, 1) * (k - harmonic))", "(harmonic + (m - 1) / max(n - 1, 1) * k)", "41.18"),
    ("return mean_gain * sum(", "return sum(", "41.19"),
    ("size = torch.where(end == k, last.sum(-1, keepdim=True), end - start)", "size = end - start", "41.20"),
    ("total = torch.where(end == k, (gain * last).sum(-1, keepdim=True), inner)", "total = inner", "41.20"),
    ("mates = within * (total - 1) / (size - 1).clamp(min=1)", "mates = within * total / size", "41.21"),
    ("expected = total / size * (before + 1 + mates)", "expected = total / size * (1 + mates)", "41.21"),
    ("return (1 - total / (size - within)).cumprod(-1)", "return (1 - total / size).cumprod(-1)", "41.22"),
    ("[min(k, 4) / k for k in ks]", "[min(k, 4) / 4 for k in ks]", "41.23"),
    ("gather(-1, ids.clamp(min=0)) == 0, real)", "gather(-1, ids.clamp(min=0)) != 0, real)", "41.24"),
    ("pairs = (x - y).norm(dim=-1) if", "pairs = (x + y).norm(dim=-1) if", "41.25"),
    ("else 1 - (x * y).sum(-1)", "else (x * y).sum(-1)", "41.25"),
    ("var(dim=-2, correction=1)", "var(dim=-2, correction=0)", "41.26"),
    ("value = (1 + most - counts.gather", "value = (1 + counts.gather", "41.27"),
    ("mean_of_real((relevance > 0) * value", "mean_of_real(1 * value", "41.28"),
    ("ids[real].unique().numel() / n_items", "ids[real].numel() / n_items", "41.29"),
    ("1 - (below + upto).double().mean() / (2 * len(times))", "(below + upto).double().mean() / (2 * len(times))", "41.30"),
    ("((own / norm) @ X.T) @ X / norm - own", "((own / norm) @ X.T) @ X / norm", "41.31"),
    ("return (so_far[end] - so_far[start]).double()", "return so_far[end].double()", "41.31"),
    ("return w, M.mean() - f.mean(0) @ w", "return w, M.mean()", "41.32"),
    ("bounds=[(-1, 1)] * J + [(0, None)]", "bounds=[(0, 1)] * J + [(0, None)]", "41.33"),
    ("A_ub=np.block([[D, -np.eye(J)], [-D, -np.eye(J)]])", "A_ub=np.block([[D, -np.eye(J)], [D, -np.eye(J)]])", "41.34"),
    ("for j in range(J)) / 2 ** (E - 1)", "for j in range(J)) / 2 ** E", "41.35"),
    ("math.comb(n - rank, s - o) for o in range(min(k, s + 1))", "math.comb(n - rank, s - o) for o in range(min(k - 1, s + 1))", "41.36"),
]


(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)


def test_top_lists_never_shows_what_must_not_be_shown_and_breaks_ties_at_every_scale(nb):
    assert nb["top_lists"](d(1, -INF, 3, -INF)[None], 3).tolist() == [[2, 0, -1]]
    for size in (1e-12, 1.0, 1e12):
        lists = nb["top_lists"](torch.full((4000, 8), size, dtype=torch.float64), 2)
        z = (torch.bincount(lists.flatten(), minlength=8) - 1000) / math.sqrt(4000 * 0.25 * 0.75)
        assert z.abs().max() < 4
        assert nb["top_lists"](size * torch.arange(5.0).double()[None], 2).tolist() == [[4, 3]]
    with pytest.raises(ValueError, match="-inf"):
        nb["top_lists"](d(1, NAN)[None], 1)


def test_top_lists_of_any_number_of_users_in_any_shape(nb):
    scores = torch.rand(2, 3, 40, generator=torch.Generator().manual_seed(0)).double()
    scores[..., :30] = -INF                          # ten may be shown
    scores[1, 2, 30:37] = -INF                       # here three
    lists = nb["top_lists"](scores, 5)
    assert lists.shape == (2, 3, 5) and lists[1, 2, 3:].tolist() == [-1, -1]
    for i in range(2):
        for j in range(3):
            assert torch.equal(lists[i, j], nb["top_lists"](scores[i, j], 5))
            real = lists[i, j][lists[i, j] >= 0]
            assert torch.equal(real, scores[i, j].argsort(descending=True)[:len(real)])


def test_splits_of_arrays_of_nothing_and_without_times(nb):
    arrays = Ratings(np.array([0, 0, 1]), np.arange(3), np.ones(3), np.array([1, 2, 3]), 4, 3)
    assert nb["leave_one_out"](arrays)[1].item.tolist() == [1] and nb["time_split"](arrays, 0.5)[1].item.tolist() == [1, 2]
    assert float(nb["future_share"](arrays, arrays)) == 0.5
    none, unknown = log_of([0, 0], [1, 2])[:0], log_of([0, 0], [1.0, NAN])
    for bad in (none, unknown):
        for split in (lambda r: nb["time_split"](r, 0.5), lambda r: nb["event_split"](r, 0.5), nb["leave_one_out"], lambda r: nb["random_split"](r, 0.5, 0)):
            with pytest.raises(ValueError, match="known times"):
                split(bad)
    with pytest.raises(ValueError, match="negative"):
        nb["surprise"]([0], [-1, 2])


def test_what_has_no_meaning_is_refused_in_words(nb):
    for call, message in (
            (lambda: nb["random_dcg"]([1, 0], 5), "k <= n"), (lambda: nb["dcg_loop"]([2, 1], 2, "Exp"), 'gain is "exp"'),
            (lambda: nb["roc_auc"]([1, 0], torch.tensor([2**60, 2**60 + 1])), "ranks instead"),
            (lambda: nb["self_information"]([0], 0.5), "one number per item"), (lambda: nb["self_information"]([0], np.full((2, 2), 0.5)), "one number"),
            (lambda: nb["coverage"](np.zeros((0, 2), dtype=int), 0), "at least one item"),
            (lambda: nb["coverage"]([[0, 1]], 4.5), "whole number"), (lambda: nb["novelty"]([0, 1], [7, 8]), "no list of ids"),
            (lambda: nb["surprise"]([[0, 1], [1, 0]], [[1.0, 2.0]]), "same users"), (lambda: nb["surprise"]([0, 1], [[1.0, 2.0]]), "same users"),
            (lambda: nb["diversity"](np.zeros((3, 0)), "cosine"), "dim >= 1"), (lambda: nb["f_beta"](np.ones(2), np.ones(3), np.ones(2)), "one shape"),
            (lambda: nb["top_lists"](np.ones((1, 3)), 9), "from 1 to the number 3"), (lambda: nb["top_lists"](np.ones((1, 3)), 0), "from 1 to")):
        with pytest.raises(ValueError, match=message):
            call()
    assert nb["mean_over_users"]([1, 2]) == (1.5, 0)
    assert float(nb["f_beta"](1, 2, 3)) == pytest.approx(2 / 7)

def test_what_the_sweep_of_41_left_open(nb):
    with pytest.raises(ValueError, match="^ratings"):
        nb["rating_errors"]([NAN], [1.0])
    with pytest.raises(ValueError, match="^predictions"):
        nb["rating_errors"]([1.0], [NAN])
    with pytest.raises(ValueError, match="negative"):
        nb["f_beta"]([-1, 2], [1, 1], [1, 1])
    assert float(nb["random_average_precision"](2, 2, 2)) == pytest.approx(1)
    assert float(nb["random_dcg"]([3], 1)) == pytest.approx(7)
    with pytest.raises(ValueError, match="from 0 to 4"):
        nb["novelty"]([5], [0, 1, 0, 1, 0])
    with pytest.raises(ValueError, match="item ids|same users"):
        nb["novelty"]([0], torch.tensor(1))
    assert nb["reciprocal_rank"]([1, 0, 0], torch.tensor([2**53, 1000, -2**53])) == 1
    for big in (2**53 + 1, -2**53 - 1):
        with pytest.raises(ValueError, match="ranks instead"):
            nb["reciprocal_rank"]([1, 0], torch.tensor([0, big]))
    assert float(nb["self_information"]([0], [1.0])) == 0
    assert float(nb["diversity"](np.array([[[1.0], [3.0]]]), "euclidean")) == 2          # one dimension is enough
    with pytest.raises(ValueError, match="dim"):
        nb["diversity"](np.zeros((2, 3, 0)), "cosine")
    assert float(nb["serendipity"]([0.5, 0.0], [0, 1], [0, 3])) == pytest.approx(0.5)
    assert float(nb["coverage"]([[0], [0]], 1)) == 1
    some, none = log_of([0, 1], [1, 2]), log_of([0, 1], [1, 2])[:0]
    for split in ((some, none), (none, some)):
        with pytest.raises(ValueError, match="none on one side"):
            nb["future_share"](*split)
    weights = nb["shop_weights"](d(0.2, 0.3), d(0.2, 0.1, 0.25), d(1, 3, 2), torch.tensor([[True, False, True], [False, True, True]]))
    assert weights.tolist() == [pytest.approx([8, 1.5, 0]), pytest.approx([0.5, 3 * 2**-2 * 8, 2 * 2**-0.5 * 8])]


def test_a_shop_is_what_the_page_says(nb):
    """The simulated shop again, event by event, from the same random numbers."""
    n, m, k = 12, 9, 6                                # more users than items
    shop, g = nb["shop_log"](n, m, k, seed=3), torch.Generator().manual_seed(3)
    released = [1.2 * float(v) - 0.2 for v in torch.rand(m, generator=g)]
    quality = [math.exp(0.7 * float(v)) for v in torch.randn(m, generator=g)]
    style, taste = torch.randint(5, (m,), generator=g).tolist(), torch.randint(5, (n,), generator=g).tolist()
    arrival, wait = torch.rand(n, generator=g).tolist(), torch.rand(n * k, generator=g).tolist()
    events = sorted((0.95 * arrival[u] + 0.05 * wait[k * u + j], u) for u in range(n) for j in range(k))
    weights = [[0.0 if t < released[i] else quality[i] * 2 ** (-(t - released[i]) / 0.1) * (8 if style[i] == taste[u] else 1) for i in range(m)]
               for t, u in events]
    chosen = torch.multinomial(torch.tensor(weights), 1, generator=g)[:, 0].tolist()
    first = {}
    for (t, u), i in zip(events, chosen):
        first.setdefault((u, i), t)                   # a pair counts once, when it comes first
    assert list(zip(shop.user.tolist(), shop.item.tolist())) == list(first)
    assert shop.time.tolist() == pytest.approx([1e6 * t for t in first.values()], abs=2)
    assert n < len(first) < n * k and (shop.value == 1).all() and (shop.n_users, shop.n_items) == (n, m)


def test_hits_of_events_hide_what_was_seen_and_nothing_else(nb):
    train = Ratings(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), torch.ones(3), torch.tensor([1, 2, 3]), 2, 13)
    test = Ratings(torch.tensor([0, 0, 1, 1]), torch.tensor([11, 12, 10, 11]), torch.ones(4), torch.tensor([4, 5, 6, 7]), 2, 13)
    scores = -torch.arange(13.0).double().expand(4, 13)            # item 0 first; without 0 and 1 item 11 is tenth, without 0 it is eleventh
    assert nb["event_hits"](scores, train, test).tolist() == [1, 0, 1, 0]
    assert nb["event_hits"](scores, train, test, k=11).tolist() == [1, 1, 1, 1]


def test_own_items_that_nobody_has_in_training_score_nothing(nb):
    train = Ratings(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.ones(3), torch.tensor([1, 2, 3]), 2, 3)
    scores = nb["knn_scores"](train, torch.tensor([0]), torch.tensor([[1.0, 0, 1]]).double())
    assert scores[0].tolist() == pytest.approx([0, 1 / math.sqrt(2), 0])


def test_what_the_bars_of_the_leak_keep(nb):
    nb = dict(nb, device=torch.device("cpu"))
    T = d(50, 100, 100_099, 100_100, 200_000, NAN)
    assert nb["near"](T, None, 100).tolist() == [True, True, True, False, False, False]
    assert nb["far"](T, None, 100).tolist() == [True, False, False, True, True, False]
    T = torch.arange(400.0).double().view(1, 4, 100).clone()
    T[0, 3, :50] = NAN
    T *= 1000
    kept = nb["swapped"](T[0], torch.tensor([[[2]]]), torch.tensor([[[210_000.0]]]))[0]
    assert kept[2, :10].all() and not kept[2, 10:].any(), "the user's own past stays, their future does not come"
    assert not kept[3].any(), "later than a tenth of the period after the event"
    assert kept[0].all() and kept[1, :10].all() and not kept[1, 10:].any(), "the last tenth goes"
    log = log_of([0, 1, 2], [10, 20, 30])
    (train, test), = nb["rolling_splits"](log, [15, 25])
    assert (train.time.tolist(), test.time.tolist()) == ([10], [20])


def test_gains_do_not_overflow_in_half_precision(nb):
    scores = np.array([2, 1], np.float16)
    assert float(nb["dcg_at_k"]([20.0, 3], scores, 2)) == pytest.approx(2**20 - 1 + 7 / math.log2(3))
    assert float(nb["dcg_at_k"]([90_000.0, 3], scores, 2, gain="linear")) == pytest.approx(90_000 + 3 / math.log2(3))


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_weights_do_not_depend_on_the_unit_of_all_changes(nb, unit):
    two = d(-2.0, 0.5, 0.4, -1.0, -1.0, -0.2).view(3, 2)
    w, margin = nb["degradation_weights"](two)
    w_unit, margin_unit = nb["degradation_weights"](unit * two)
    assert torch.allclose(w, w_unit, atol=1e-9) and margin_unit == pytest.approx(unit * margin) and margin > 0.5
    assert math.copysign(1, nb["degradation_weights"](torch.cat([two, -two]))[1]) == 1, "no -0.0"


PREPARATION = [     # what breaks the data or the protocol, and the claim that must say so
    ("train = position < torch.ceil(checked_fraction(fraction) * length.double() - 1e-9)",
     "train = position >= length - torch.ceil(checked_fraction(fraction) * length.double() - 1e-9)", "by events trains on"),
    ("cut = ratings.time.sort().values[int(checked_fraction(fraction) * len(ratings))]",
     "cut = ratings.time.sort().values[int((1 - checked_fraction(fraction)) * len(ratings))]", "80% train"),
    ("~((T >= time - 100_000) & (T < time))", "~((T >= time - 50_000) & (T < time))", "swapped exchanges"),
    ("return ratings[~last], ratings[last]", "return ratings, ratings[last]", "every split keeps"),
    ('good.masked_fill(genre[:, 1] == 0, -1.0)', 'good.masked_fill(genre[:, 1] == 1, -1.0)', "one genre"),
    ("for f in (ndcg_at_k, recall_at_k)]", "for f in (ndcg_at_k, precision_at_k)]", "the report by"),
]


@pytest.mark.parametrize("old, new, noticed", PREPARATION)
def test_broken_protocols_are_noticed(old, new, noticed):
    broken = BOOK.with_source(old, new)
    target, = (n for n in broken.statements if isinstance(n, ast.Expr) and "claim(" in ast.unparse(n)[:8] and noticed in ast.unparse(n))
    with pytest.raises(AssertionError):
        broken.run(broken.needed([target]))
