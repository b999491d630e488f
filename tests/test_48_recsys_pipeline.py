"""Notebook 48: its public functions on inputs the page does not show, and its checks against broken formulas."""

import itertools
import math
import pickle
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch

from helpers.data.ratings import Items, Ratings
from tests.book import book, wrong_variant_tests

BOOK = book("48")
DAY = 86_400
NAN = math.nan


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def random_service(seed=0, n=40, m=60, events=1500, artists=12, bare=False):
    """(Ratings, Items) of a small music service; bare: no artists, release dates, lengths."""
    rng = np.random.default_rng(seed)
    start, days = 1_700_000_000, 90
    item = (m * rng.random(events) ** 1.5).astype(int)
    share = rng.beta(4, 2, events).round(2)
    share[item == 3] = 0.03                                     # played much, heard for a moment
    t = np.sort(rng.integers(start, start + days * DAY, events))
    released = np.sort(start + rng.integers(-300, days + 20, m) * DAY)
    keep = (released[item] <= t) | (rng.random(events) < 0.02)  # a few plays before the release: dirty data
    user = rng.integers(0, n - 3, events)                       # the last three never play
    ratings = Ratings(*(torch.from_numpy(np.ascontiguousarray(x[keep])) for x in (user, item, share, t)), n, m)
    titles = [f"{'Loud Soft Blue Red'.split()[i % 4]} track {i}" for i in range(m)]
    genre = torch.from_numpy(rng.random((m, 4)) < 0.4)
    if bare:
        return ratings, Items(titles, genre, list("abcd"))
    return ratings, Items(titles, genre, list("abcd"), torch.from_numpy(rng.integers(0, artists, m)), torch.from_numpy(released),
                          torch.from_numpy(rng.uniform(100, 400, m)))


@pytest.fixture(scope="module")
def made(nb):
    ratings, items = random_service()
    now = int(ratings.time.max()) - 5 * DAY
    return nb["Recommender"](ratings, items, now=now, n_candidates=40), ratings, items, now


def seen_by(ratings, user, now):
    return set(ratings.item[(ratings.user == user) & (ratings.time < now)].tolist())


# ---- the list and its rules -------------------------------------------------------------------------------------------------

def test_invariants_of_every_list(made):
    service, ratings, items, now = made
    for user in [*range(40), None]:
        ids = service.recommend(user)
        offered = set(itertools.chain(*(x.tolist() for x in service.candidates(user).values())))
        assert ids.dtype == torch.int64 and len(set(ids.tolist())) == len(ids) == 10
        assert set(ids.tolist()) <= offered and len(offered) <= 40
        assert not set(ids.tolist()) & seen_by(ratings, user, now) if user is not None else True
        assert (items.released[ids] <= now).all()
        assert max(Counter(items.artist[ids].tolist()).values()) <= 2
        for own in service.candidates(user).values():
            assert own.dtype == torch.int64 and own.ndim == 1 and len(set(own.tolist())) == len(own)
            assert (items.released[own] <= now).all()


def test_certain_bait_is_out_whatever_the_model_says(made):
    service, ratings, _, now = made
    old = ratings.time < now
    assert int((ratings.item[old] == 3).sum()) >= 30
    assert all(3 not in service.recommend(user, 30) for user in range(40))
    assert any(3 in own for user in range(40) for own in service.candidates(user).values())


def test_bait_by_rule(nb):
    plays, mean = np.array([30, 29, 100, 5, 40.0]), np.array([0.1, 0.1, 0.5, 0.5, 0.13])
    assert nb["certain_bait"](plays, mean).tolist() == [False, False, False, False, False]             # a quarter of 0.13
    assert nb["certain_bait"](plays, np.array([0.1, 0.1, 0.5, 0.5, 0.8])).tolist() == [True, False, False, False, False]


def test_nobody_with_no_history_is_somebody_new(made):
    service = made[0]
    new = service.recommend(None).tolist()
    assert all(service.recommend(user).tolist() == new for user in (37, 38, 39))
    assert service.recommend(0).tolist() != new


def test_the_future_changes_nothing(nb, made):
    service, ratings, items, now = made
    late = ratings.time >= now
    rng = np.random.default_rng(5)
    item = torch.where(late, torch.from_numpy(rng.integers(0, 60, len(ratings))), ratings.item)
    value = torch.where(late, 0.01, ratings.value)
    other = Ratings(ratings.user, item, value, ratings.time, 40, 60)
    unborn = items.released > now
    titles = [f"Loud Blue {i}" if unborn[i] else title for i, title in enumerate(items.title)]
    changed = Items(titles, torch.where(unborn[:, None], True, items.genre), items.genre_names, items.artist, items.released, items.length)
    again = nb["Recommender"](other, changed, now=now, n_candidates=40)
    assert int(unborn.sum()) >= 2
    for user in [*range(40), None]:
        assert again.recommend(user).tolist() == service.recommend(user).tolist()


def test_same_seed_same_lists_and_default_now(nb):
    ratings, items = random_service(1)
    a, b = (nb["Recommender"](ratings, items, seed=7) for _ in range(2))
    c = nb["Recommender"](ratings, items, now=int(ratings.time.max()) + 1, seed=7)
    for user in range(40):
        assert a.recommend(user, 5).tolist() == b.recommend(user, 5).tolist() == c.recommend(user, 5).tolist()


def test_without_artists_dates_and_lengths(nb):
    ratings, items = random_service(2, bare=True)
    service = nb["Recommender"](ratings, items)
    assert {"same artist", "artist factors", "new"}.isdisjoint(service.candidates(0))
    assert len(service.recommend(0)) == 10 and set(service.explain(0, 5)) == {"sources", "score", "base", "contributions"}


def test_stars_are_no_shares(nb):
    ratings, items = random_service(3)
    stars = Ratings(ratings.user, ratings.item, (ratings.value * 5).round(), ratings.time, 40, 60)
    service = nb["Recommender"](stars, items)
    assert not service.parts[2].any() and len(service.recommend(1)) == 10


def test_tiny_logs(nb):
    _, items = random_service(4, m=5)
    one = Ratings(torch.tensor([1]), torch.tensor([0]), torch.tensor([0.5]).double(), torch.tensor([2_000_000_000]), 3, 5)
    service = nb["Recommender"](one, items, max_per_artist=5)
    assert sorted(service.recommend(1).tolist()) == [1, 2, 3, 4] and len(service.recommend(None)) == 5
    assert service.score(1, []).shape == (0,)


def test_k_beyond_what_is_left_and_caps(nb, made):
    service, _, items, _ = made
    everything = service.recommend(0, 500)
    assert 10 < len(everything) <= 40
    ratings, items = random_service()
    tight = nb["Recommender"](ratings, items, max_per_artist=1, lam=0.3)
    ids = tight.recommend(0, 12)
    assert len(ids) == len(set(items.artist[ids].tolist()))
    assert nb["Recommender"](ratings, items, lam=1).recommend(0).tolist() != tight.recommend(0).tolist()


# ---- sources, deadline, threads ---------------------------------------------------------------------------------------------

def messy(user):
    return [5, 5.0, np.int64(7), torch.tensor(9), -1, 10**6, 2.5, NAN, "x", None, 11]


def test_ids_of_any_kind(nb):
    ratings, items = random_service()
    extra = {"messy": messy, "tensor": lambda u: torch.tensor([12, 13]), "set": lambda u: {14}, "generator": lambda u: (i for i in (15, 16)),
             "all": lambda u: range(60)}
    service = nb["Recommender"](ratings, items, extra_sources=extra, budget=5.0)
    now = int(ratings.time.max()) + 1
    for user in (0, 1, 39):
        found = service.candidates(user)
        free = {i for i in range(60) if items.released[i] <= now} - seen_by(ratings, user, now)
        assert set(found["messy"].tolist()) <= {5, 7, 9, 11} & free
        assert set(found["tensor"].tolist()) == {12, 13} & free and set(found["set"].tolist()) == {14} & free
        assert set(found["generator"].tolist()) == {15, 16} & free and set(found["all"].tolist()) <= free
    assert service.dropped == {}


def test_eight_clients_with_a_slow_and_a_broken_source(nb):
    ratings, items = random_service()

    def slow(user):
        time.sleep(0.5)
        return range(60)

    def broken(user):
        raise KeyError("gone")

    plain = nb["Recommender"](ratings, items)
    service = nb["Recommender"](ratings, items, extra_sources={"slow": slow, "broken": broken, "none": lambda u: None}, budget=0.03)
    lists = {}
    users = list(range(40)) + [None]
    seconds = nb["latencies"](lambda u: lists.__setitem__(u, service.recommend(u).tolist()), users, 8)
    assert seconds.shape == (41,) and seconds.dtype == torch.float64 and (seconds > 0).all()
    assert lists == {u: plain.recommend(u).tolist() for u in users}
    assert service.dropped == {"slow": 41, "broken": 41, "none": 41}


def test_a_source_that_hangs_is_skipped_in_the_end(nb):
    gate, before = threading.Event(), threading.active_count()
    slots = {"hang": threading.Semaphore(2)}
    for _ in range(5):
        answers = nb["start_sources"]({"hang": lambda u: gate.wait(5)}, 0, slots)
        nb["in_time"](answers, 1, time.perf_counter() + 0.01)
    assert threading.active_count() <= before + 2
    assert nb["in_time"](nb["start_sources"]({"hang": lambda u: [1]}, 0, slots), 1, time.perf_counter() + 1) == {}
    gate.set()


def test_static_lists_are_one_more_source(nb):
    ratings, items = random_service()
    service = nb["Recommender"](ratings, items, static_lists={0: [50, 51, 52.0, "?"], 39: [1]})
    free = {50, 51, 52} - seen_by(ratings, 0, 2**40)
    assert set(service.candidates(0)["static"].tolist()) == {i for i in free if items.released[i] <= int(ratings.time.max()) + 1}
    assert len(service.candidates(1)["static"]) == 0
    assert service.recommend(39).tolist() == service.recommend(None).tolist()


def test_explore_gives_the_last_place_away(nb):
    ratings, items = random_service(6, events=600)
    plain, curious = (nb["Recommender"](ratings, items, explore=e) for e in (0.0, 1.0))
    plays = torch.bincount(ratings.item, minlength=60)
    for user in range(20):
        ids, base = curious.recommend(user), plain.recommend(user)
        assert ids[:9].tolist() == base[:9].tolist() and len(set(ids.tolist())) == 10
        assert plays[ids[9]] < 30 and int(ids[9]) not in seen_by(ratings, user, 2**40)
        assert max(Counter(items.artist[ids].tolist()).values()) <= 2
    half = nb["Recommender"](ratings, items, explore=0.5)
    assert 5 < sum(half.recommend(u)[9] != plain.recommend(u)[9] for u in [*range(37)] * 2) < 70


def test_turns_are_taken_in_order(nb):
    turn, order, entered = nb["InTurn"](), [], threading.Event()

    def client(number):
        with turn:
            order.append(number)

    with turn:
        threads = []
        for number in range(6):
            threads.append(threading.Thread(target=client, args=(number,)))
            threads[-1].start()
            while len(turn.waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(6)) and not turn.busy and not entered.is_set()


def test_latencies_raise_what_fails(nb):
    with pytest.raises(ZeroDivisionError):
        nb["latencies"](lambda u: 1 / (u - 3), range(8), 4)
    for bad in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="n_clients"):
            nb["latencies"](print, [1], bad)
    asked = nb["latencies"](lambda u: time.sleep(0.02 * u), [3, 0, 1], 2)
    assert asked[0] >= 0.06 and asked[2] >= 0.02 and asked.shape == (3,) and nb["latencies"](print, [], 2).shape == (0,)


def test_the_parts_can_be_stored(made):
    import joblib.externals.loky  # noqa: F401

    ranker = made[0].parts[1]
    again = pickle.loads(pickle.dumps(ranker.model))
    assert np.array_equal(again.predict_proba(np.ones((3, 13)))[:, 1], ranker(np.ones((3, 13))))


# ---- scores and reasons -----------------------------------------------------------------------------------------------------

def test_scores_are_probabilities_in_any_order(made):
    service = made[0]
    ids = [7, 3, 3, 59]
    p = service.score(2, ids)
    assert p.dtype == torch.float64 and ((p > 0) & (p < 1)).all() and p[1] == p[2]
    assert torch.allclose(service.score(2, torch.tensor(ids[::-1])), p.flip(0)) and torch.equal(service.score(2, np.array(ids)), p)


def test_reasons_add_up_and_name_their_sources(made):
    service = made[0]
    for user in (0, 5, None):
        lists = service.candidates(user)
        for item in (4, 30, 59):
            why = service.explain(user, item)
            assert why["sources"] == [name for name, own in lists.items() if item in own.tolist()]
            total = why["base"] + sum(why["contributions"].values())
            assert 1 / (1 + math.exp(-total)) == pytest.approx(why["score"]) == pytest.approx(float(service.score(user, [item])[0]))


# ---- refusals ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, word", [({"lam": 1.1}, "lam"), ({"lam": -0.1}, "lam"), ({"lam": NAN}, "lam"), ({"explore": 2}, "explore"),
                                           ({"budget": 0}, "budget"), ({"n_candidates": 0}, "n_candidates"), ({"max_per_artist": 0}, "max_per_artist"),
                                           ({"now": 5}, "no interaction before")])
def test_bad_options_are_refused(nb, options, word):
    with pytest.raises(ValueError, match=word):
        nb["Recommender"](*random_service(), **options)


def test_bad_data_are_refused(nb):
    ratings, items = random_service()
    with pytest.raises(ValueError, match="one title for each"):
        nb["Recommender"](ratings, random_service(m=50)[1])
    with pytest.raises(ValueError, match="no interaction"):
        nb["Recommender"](ratings[:0], items)
    ratings.value[4] = NAN
    with pytest.raises(ValueError, match="NaN"):
        nb["Recommender"](ratings, items)


@pytest.mark.parametrize("user", [-1, 40, 1.5, "ann", True, NAN])
def test_unknown_users_are_refused(made, user):
    for call in (made[0].recommend, made[0].candidates, lambda u: made[0].score(u, [1]), lambda u: made[0].explain(u, 1)):
        with pytest.raises(ValueError, match="None for somebody new"):
            call(user)


def test_bad_places_and_items_are_refused(made):
    for k in (0, -3, 2.0, None, True):
        with pytest.raises(ValueError, match="k must be"):
            made[0].recommend(0, k)
    for ids in ([60], [-1], [0.5], [[1]], ["a"], [True]):
        with pytest.raises(ValueError, match="items are"):
            made[0].score(0, ids)


# ---- MMR, search ------------------------------------------------------------------------------------------------------------

def test_mmr_by_hand(nb):
    r, s = [1.0, 0.9, 0.6], [[1, 0.9, 0.1], [0.9, 1, 0.1], [0.1, 0.1, 1]]
    assert nb["mmr"](r, s, 3, 0.5).tolist() == [0, 2, 1] and nb["mmr"](r, s, 3, 0.9).tolist() == [0, 1, 2]
    assert nb["mmr"](r, s, 99, 1).tolist() == [0, 1, 2] and nb["mmr"]([1, 1, 1], np.zeros((3, 3)), 2, 0.5).tolist() == [0, 1]
    assert nb["mmr"]([0.2, 0.9], np.eye(2), 1, 0).tolist() == [1]                     # the first by relevance alone
    negative = nb["mmr"]([0.5, 0.4, 0.3], [[1, -1, 0], [-1, 1, 0], [0, 0, 1]], 2, 0.0)
    assert negative.tolist() == [0, 1] and negative.dtype == torch.int64


@pytest.mark.parametrize("arguments, word", [(([1.0], np.eye(2), 1, 0.5), "shape"), (([1.0, 2], np.eye(2), 0, 0.5), "k must"), (([1.0, 2], np.eye(2), 1, 1.5), "lam"),
                                             (([1.0, 2], np.eye(2), 1, NAN), "lam"), (([1.0, NAN], np.eye(2), 1, 0.5), "finite"), (([], np.zeros((0, 0)), 1, 0.5), "finite"),
                                             (([1.0, 2], np.ones(2), 1, 0.5), "similarity")])
def test_bad_mmr_is_refused(nb, arguments, word):
    with pytest.raises(ValueError, match=word):
        nb["mmr"](*arguments)


def test_cap_keeps_the_order(nb):
    rng = np.random.default_rng(0)
    for limit in (1, 2, 3):
        artist, count, kept = rng.integers(0, 6, 40), Counter(), []
        for place, a in enumerate(artist.tolist()):
            count[a] += 1
            kept += [place] if count[a] <= limit else []
        assert nb["at_most"](artist, limit).tolist() == kept


def test_merge_takes_turns(nb):
    lists = {"a": np.array([1, 2, 3, 4]), "b": np.array([2, 9]), "c": np.array([], dtype=np.int64)}
    assert {k: v.tolist() for k, v in nb["merge"](lists, 3, {}).items()} == {"a": [1, 2], "b": [2], "c": []} or \
        set(nb["union"](nb["merge"](lists, 3, {})).tolist()) == {1, 2, 9}
    assert nb["union"](nb["merge"](lists, 99, {})).tolist() == [1, 2, 3, 4, 9]
    heavy = nb["merge"](lists, 3, {"a": 3})
    assert heavy["a"].tolist() == [1, 2, 3] or set(nb["union"](heavy).tolist()) == {1, 2, 3}
    assert nb["union"](nb["merge"]({}, 3, {})).tolist() == []


def test_augmented_rows(nb):
    Q = np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    A = nb["mips_to_nn"](Q)
    assert A.tolist() == [[3, 4, 0], [0, 1, pytest.approx(math.sqrt(24))], [0, 0, 5]] and A.dtype == torch.float64
    assert torch.allclose(nb["mips_to_nn"](torch.randn(50, 7)).norm(dim=1).diff(), torch.zeros(49).double(), atol=1e-6)


def test_exact_search_with_ties(nb):
    Q = np.array([[1.0, 0], [2, 0], [2, 5], [-1, 0], [2, 1]])
    assert nb["exact_top_k"](Q, [1.0, 0.0], 2).tolist() == [1, 2] and nb["exact_top_k"](Q, [1.0, 0.0], 9).tolist() == [1, 2, 4, 0, 3]
    for arguments, word in (((Q, [1.0], 1), "as many"), ((Q, [1.0, 0], 0), "k must"), ((Q, [NAN, 0], 1), "finite"), ((Q[0], [1.0, 0], 1), "Q needs")):
        with pytest.raises(ValueError, match=word):
            nb["exact_top_k"](*arguments)


@pytest.mark.parametrize("d, spread", [(2, 0.0), (8, 1.0), (24, 0.3)])
def test_graph_finds_and_reaches_everything(nb, d, spread):
    rng = np.random.default_rng(d)
    X = rng.standard_normal((400, d)) * np.exp(spread * rng.standard_normal((400, 1)))
    index = nb["GraphIndex"](X, M=8, ef_construction=32, seed=1)
    assert max(len(set(links)) for links in index.links.values()) <= 2 * 8 + 8 + 1
    hits = []
    for p in rng.standard_normal((30, d)):
        ids, n = index.search(p, 10, 60)
        exact = nb["exact_top_k"](X, p, 10)
        assert n <= 400 and (np.diff(X[ids] @ p) <= 1e-12).all()
        hits.append(len(set(ids.tolist()) & set(exact.tolist())) / 10)
        every, all_of_them = index.search(p, 10, 400)
        assert every.tolist() == exact.tolist() and all_of_them == 400
    assert np.mean(hits) > 0.9


def test_graph_refuses(nb):
    index = nb["GraphIndex"](np.eye(3), M=2)
    assert sorted(index.search([1.0, 0, 0], 3, 5)[0].tolist()) == [0, 1, 2]
    for arguments, word in ((([1.0, 0, 0], 3, 2), "ef >= k"), (([1.0, 0], 1, 2), "3 numbers"), (([1.0, 0, NAN], 1, 2), "finite"), (([1.0, 0, 0], 0, 2), "k must")):
        with pytest.raises(ValueError, match=word):
            index.search(*arguments)
    for arguments in (([[NAN]],), ([],), (np.eye(2), 0), (np.eye(2), 2, 0)):
        with pytest.raises(ValueError):
            nb["GraphIndex"](*arguments)
    assert nb["GraphIndex"]([[1.0, 2.0]]).search([1.0, 1.0], 1, 1)[0].tolist() == [0]


def test_lists_of_the_night(nb, tmp_path):
    now = 10**9
    for age in (1, 2, 9):
        (tmp_path / f"date={now - age * DAY}").mkdir()
    newest = nb["load_lists"](str(tmp_path), now, lambda path: path)
    assert newest.endswith(f"date={now - DAY}") and nb["load_lists"](str(tmp_path), now + 9 * DAY, lambda path: path) is None
    assert nb["load_lists"](str(tmp_path / "none"), now, lambda path: path) is None
    assert nb["load_lists"](str(tmp_path), now - 5 * DAY, lambda path: path) is None                     # lists of the future, or too old

    def unreadable(path):
        raise OSError("torn")

    assert nb["load_lists"](str(tmp_path), now, unreadable) is None


WRONG = [
    ("return min(k, len(C & R)) / len(R)", "return min(k, len(C & R)) / len(C)", "48.1"),
    ("return min(k, len(C & R)) / len(R)", "return len(C & R) / len(R)", "48.1"),
    ("+ (X**2).sum(1) - 2 * P @ X.T", "+ (X**2).sum(1) - P @ X.T", "48.2"),
    ("np.column_stack([Q, np.sqrt(squared.max() - squared)])", "np.column_stack([Q, np.sqrt(squared.max() - np.sqrt(squared))])", "48.3"),
    ("np.column_stack([Q, np.sqrt(squared.max() - squared)])", "np.column_stack([Q, squared.max() - squared])", "48.3"),
    ("return torch.from_numpy(best(Q @ p, np.ones(len(Q), bool), k))", "return torch.from_numpy(best(-(Q @ p), np.ones(len(Q), bool), k))", "48.3"),
    ("parts = (np.diff(there) + np.diff(back)[::-1]) / 2", "parts = (np.diff(there) - np.diff(back)[::-1]) / 2", "48.4"),
    ("paths = np.vstack([np.where(steps, x, base), np.where(steps[:, ::-1], x, base)])",
     "paths = np.vstack([np.where(steps, x, base), np.where(steps[:, ::-1], base, x)])", "48.4"),
    ("nearest = np.maximum(nearest, s[:, chosen[-1]])", "nearest = s[:, chosen[-1]]", "48.5"),
    ("gain = lam * r - (1 - lam) * nearest", "gain = lam * r + (1 - lam) * nearest", "48.5"),
    ("gain = lam * r - (1 - lam) * nearest", "gain = r - (1 - lam) * nearest", "48.5"),
    ("return lam * r[list(order)].sum() - (1 - lam) * sum(near)", "return lam * r[list(order)].sum() - lam * sum(near)", "48.6"),
    ("near = [s[j, order[:t]].max() for t, j in enumerate(order) if t]", "near = [s[j, order[:t]].mean() for t, j in enumerate(order) if t]", "48.6"),
    ("return np.log1p((alpha - 1) * (Q", "return np.log1p(alpha * (Q", "48.7"),
    ("return c * (1 - c) / w2", "return c / w2", "48.8"),
    ("return 1 - (1 - late) ** h", "return h * late", "48.9"),
    ("g, ids = k if g is None else g, np.arange(len(scores))", "g, ids = k // S if g is None else g, np.arange(len(scores))", "48.10"),
    ("key=lambda i: (-scores[i], i))[:k])", "key=lambda i: (-scores[i], -i))[:k])", "48.10"),
    ("return S * scipy.stats.binom.sf(g, k, 1 / S)", "return scipy.stats.binom.sf(g, k, 1 / S)", "48.11"),
    ("return S * scipy.stats.binom.sf(g, k, 1 / S)", "return S * scipy.stats.binom.sf(g - 1, k, 1 / S)", "48.11"),
]
test_wrong, test_right, test_every = wrong_variant_tests(BOOK, WRONG)
