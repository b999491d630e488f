"""The simulated plays: the laws of the generator, and that models of clicks have something to find in them."""

import hashlib
import importlib.util
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy import stats

from helpers import data
from tests.book import ROOT
from tests.test_data import real

DAY = 86_400
FILES = ("plays.csv", "tracks.csv", "listeners.csv", "plays_truth.json")


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("make_plays", ROOT / "data/make_plays.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def log():
    """The log as arrays: user, item, share, time."""
    r = data.ratings("plays")
    return r.user.numpy(), r.item.numpy(), r.value.numpy(), r.time.numpy()


@pytest.fixture(scope="module")
def joined(make):
    return make.simulate()[2]["joined"]


@pytest.fixture(scope="module")
def truth():
    return data.truth("plays")


@pytest.fixture(scope="module")
def released():
    return data.items("plays").released.numpy()


# --- files and loaders ------------------------------------------------------------------------------------------------

def test_the_generator_makes_the_files_bit_for_bit(tmp_path):
    subprocess.run([sys.executable, ROOT / "data/make_plays.py", tmp_path], check=True)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (ROOT / "data" / name).read_bytes(), name


def test_the_files_are_small():
    assert sum((ROOT / "data" / name).stat().st_size for name in FILES) <= 1_300_000


def test_the_generator_refuses_to_depend_on_the_last_digit(make):
    assert make.pick(np.array([[1.0, 0.0, 3.0], [1, 1, 2]]), np.array([0.3, 0.1])).tolist() == [2, 0]
    with pytest.raises(ValueError, match="edge"):
        make.pick(np.array([[1.0, 3.0]]), np.array([0.25 + 1e-13]))
    with pytest.raises(ValueError, match="boundary"):
        make.rounded([0.25 + 1e-12], 0.5)


def test_the_fields_are_these_in_this_order():
    def names(kind):
        return [f.name for f in fields(kind)]
    assert names(data.Items) == ["title", "genre", "genre_names", "artist", "released", "length"]
    assert names(data.Users) == ["age", "group", "group_names"]
    assert names(data.PlaysTruth) == ["P", "Q", "b_i", "bait", "half_life"]
    assert names(data.Truth) == ["mu", "noise_sd", "b_u", "b_i", "P", "Q"]


def test_plays_are_ratings_in_the_order_of_time():
    r = data.ratings("plays")
    assert (len(r), r.n_users, r.n_items) == (40_000, 1000, 600)
    assert (r.user.dtype, r.item.dtype, r.value.dtype, r.time.dtype) == (torch.int64, torch.int64, torch.float64, torch.int64)
    assert (r.time.diff() >= 0).all() and r.time[-1] - r.time[0] < 120 * DAY
    assert r.value.min() >= 0 and r.value.max() <= 1 and torch.equal(r.value, (r.value * 100).round() / 100)
    assert len(torch.unique(r.user * 2**40 + r.time)) == len(r), "nobody plays two tracks at once"


def test_tracks_and_listeners():
    it, u = data.items("plays"), data.users("plays")
    assert len(set(it.title)) == 600 and all(title.endswith(")") for title in it.title)
    assert it.genre.shape == (600, 8) and set(it.genre.sum(1).tolist()) == {1, 2} and it.genre_names == sorted(it.genre_names)
    assert it.artist.dtype == it.released.dtype == torch.int64 and it.length.dtype == torch.float64
    assert it.artist.unique().tolist() == list(range(120)) and 60 < it.length.min() and it.length.max() < 600
    named = {(int(a), title.split(" (")[1]) for a, title in zip(it.artist, it.title)}
    assert len(named) == len({name for _, name in named}) == 120, "one name an artist"
    assert len({(int(a), tuple(g.tolist())) for a, g in zip(it.artist, it.genre)}) == 120, "tracks have the genres of their artist"
    assert u.age.shape == u.group.shape == (1000,) and u.age.dtype == u.group.dtype == torch.int64
    assert 10 < u.age.min() and u.age.max() < 90
    assert len(u.group_names) == 6 and (torch.bincount(u.group, minlength=6) > 50).all()


def test_titles_lean_to_their_genre(make):
    it = data.items("plays")
    own = [any(title.split(" (")[0].split()[-1] in make.WORDS[it.genre_names[g]] for g in row.nonzero()[:, 0])
           for title, row in zip(it.title, it.genre)]
    assert 0.7 < np.mean(own) < 0.95, "a chance title would fit in 1 of 8"


def test_age_leans_with_taste(truth):
    age = data.users("plays").age.numpy().astype(float)
    P = truth.P.numpy()
    left, right = P[::2], P[1::2]
    w = np.linalg.lstsq(np.c_[left, np.ones(500)], age[::2], rcond=None)[0]
    assert np.corrcoef(np.c_[right, np.ones(500)] @ w, age[1::2])[0, 1] > 0.4


@pytest.mark.parametrize("name", [None, "bundled", "plays"])
def test_items_of_the_older_sets_are_as_they_were(name):
    it = data.items(name) if name else data.items()
    new = [it.artist, it.released, it.length]
    assert all((x is None) == (name != "plays") for x in new)


def test_nothing_is_known_of_the_bundled_users():
    with pytest.raises(ValueError, match=r'"bundled".*users\("plays"\).*users\("ml-100k"\)'):
        data.users("bundled")
    for load in (data.users, data.items, data.ratings, data.truth):
        with pytest.raises(ValueError, match="'nope'.*'bundled'.*'plays'"):
            load("nope")
    with pytest.raises(ValueError, match="'ml-100k'.*'bundled', 'plays'"):
        data.truth("ml-100k")


def test_truth_of_the_older_set_is_as_it_was():
    assert torch.equal(data.truth().P, data.truth("bundled").P) and data.truth().mu == 3.2


def test_a_film_without_a_date_counts_as_the_oldest(tmp_path, monkeypatch):
    contents = {"u.data": b"", "u.genre": b"drama|0\n",
                "u.item": "1|Été|4-Feb-1971||u|1\n2|B|||u|0\n3|C|01-Jan-1965||u|0\n4|D|31-Dec-1998||u|0\n".encode("latin-1"),
                "u.user": b"1|24|M|writer|0\n2|30|F|doctor|1\n3|7|F|writer|0\n"}
    (tmp_path / "ml-100k").mkdir()
    for name, body in contents.items():
        (tmp_path / "ml-100k" / name).write_bytes(body)
    sums = {name: "sha256:" + hashlib.sha256(body).hexdigest() for name, body in contents.items()}
    monkeypatch.setitem(data.SOURCES, "ml-100k", replace(data.SOURCES["ml-100k"], checksums=sums))
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    it, u = data.items("ml-100k"), data.users("ml-100k")
    expected = np.array(["1971-02-04", "1965-01-01", "1965-01-01", "1998-12-31"], "datetime64[s]").astype(int)
    assert it.released.tolist() == expected.tolist() and it.artist is None and it.length is None
    assert (u.age.tolist(), u.group.tolist(), u.group_names) == ([24, 30, 7], [1, 0, 1], ["doctor", "writer"])


@real
def test_the_real_users_and_dates():
    u, it = data.users("ml-100k"), data.items("ml-100k")
    assert len(u.age) == len(u.group) == 943 and len(u.group_names) == 21 and u.group_names[u.group[0]] == "technician"
    assert u.age[:3].tolist() == [24, 53, 23] and torch.bincount(u.group)[u.group_names.index("student")] == 196
    assert it.released.shape == (1682,) and it.released[0] == np.datetime64("1995-01-01", "s").astype(int)
    assert it.title[266] == "unknown" and it.released[266] == it.released.min()


# --- the laws of the generator ----------------------------------------------------------------------------------------

def utility(truth, released, user, time, bonus=1.0, taste=1.0):
    """Utilities (n, n_items) of listeners `user` at times `time` as the docstring of `PlaysTruth` states them."""
    age = time[:, None] - released
    u = truth.b_i.numpy() + taste * truth.P.numpy()[user] @ truth.Q.numpy().T + bonus * np.exp2(-age / truth.half_life)
    return np.where(age < 0, -np.inf, u)


def softmax(u):
    w = np.exp(u - u.max(1, keepdims=True))
    return w / w.sum(1, keepdims=True)


def chi_square(observed, expected, least=5):
    """Chi-square and degrees of freedom, cells joined in the order of expectation until each expects `least`."""
    order, cells, o, e = np.argsort(expected), [], 0.0, 0.0
    for i in order:
        o, e = o + observed[i], e + expected[i]
        if e >= least:
            cells, o, e = [*cells, (o, e)], 0.0, 0.0
    cells[-1] = (cells[-1][0] + o, cells[-1][1] + e)
    o, e = np.array(cells).T
    return ((o - e)**2 / e).sum(), len(cells) - 1


def test_choices_of_single_listeners_follow_the_softmax(log, truth, released):
    user, item, _, time = log
    busy = np.argsort(-np.bincount(user))[:40]

    def p_value(**wrong):
        total, freedom = 0.0, 0
        for u in busy:
            mine = user == u
            expected = softmax(utility(truth, released, user[mine], time[mine], **wrong)).sum(0)
            chi, f = chi_square(np.bincount(item[mine], minlength=600), expected)
            total, freedom = total + chi, freedom + f
        return stats.chi2.sf(total, freedom)
    assert p_value() > 0.01
    assert p_value(taste=0.8) < 1e-6 and p_value(taste=1.2) < 1e-6, "the test has power"


def test_choices_of_all_listeners_follow_the_softmax(log, truth, released):
    """Over the tracks, over the ages of the tracks (the bonus of a new one), and over click-bait."""
    user, item, _, time = log
    edges = DAY * np.array([0, 1, 2, 4, 7, 14, 30, 60, 120, 2000])
    tracks, plain, ages, flat = np.zeros(600), np.zeros(600), np.zeros(9), np.zeros(9)
    for part in np.array_split(np.arange(len(user)), 20):
        u = utility(truth, released, user[part], time[part])
        age = time[part, None] - released
        tracks += softmax(u).sum(0)
        plain += softmax(u - truth.bait.numpy()).sum(0)
        ages += np.histogram(age, edges, weights=softmax(u))[0]
        flat += np.histogram(age, edges, weights=softmax(utility(truth, released, user[part], time[part], bonus=0)))[0]
    observed, observed_ages = np.bincount(item, minlength=600), np.histogram(time - released[item], edges)[0]
    assert stats.chi2.sf(*chi_square(observed, tracks)) > 0.01 < stats.chi2.sf(*chi_square(observed_ages, ages))
    assert stats.chi2.sf(*chi_square(observed, plain)) < 1e-6 > stats.chi2.sf(*chi_square(observed_ages, flat)), "the test has power"
    bait = truth.bait.numpy()
    assert observed[bait].sum() > 1.5 * plain[bait].sum(), "click-bait is chosen more than its tracks deserve"


def test_no_play_before_release_or_before_joining(log, released, joined):
    user, item, _, time = log
    assert (time >= released[item]).all()
    assert (time >= joined[user]).all()


def test_half_of_the_tracks_and_listeners_are_new(log, released, make, joined):
    user, item, _, _ = log
    start, end = make.START, make.START + 120 * DAY
    assert (released < start).sum() == ((released >= start) & (released < end)).sum() == 300
    assert (released > end - 5 * DAY).sum() >= 5 and (np.bincount(item, minlength=600) == 0).any(), "cold items"
    assert (joined == start).sum() == ((joined > start) & (joined < end)).sum() == 500
    assert np.flatnonzero(np.bincount(user, minlength=1000) == 0).tolist() == list(range(993, 1000)), "seven never play"


def test_activity_is_long_tailed_and_pairs_come_again(log):
    user, item, _, _ = log
    plays = np.sort(np.bincount(user))[::-1]
    assert plays[:100].sum() > 0.25 * len(user) and np.sort(np.bincount(item))[-60:].sum() > 0.4 * len(user)
    assert 0.2 < 1 - len(np.unique(user * 600 + item)) / len(user) < 0.5


def test_click_bait_is_six_percent_and_left_early(log, truth):
    _, item, share, _ = log
    bait = truth.bait.numpy()
    assert bait.sum() == 36
    assert (share[bait[item]] > 0.6).mean() < 0.2 < 0.6 < (share[~bait[item]] > 0.6).mean()
    assert 0.58 < (share > 0.6).mean() < 0.62


def test_shares_follow_the_sigmoid(log, truth, make):
    user, item, share, _ = log
    mean = 0.8 * (truth.P[user] * truth.Q[item]).sum(1).numpy() + make.RESPONSE - 2.5 * truth.bait.numpy()[item]
    inside = np.abs(mean) < 1.5                             # there, hundredths cut nothing off
    noise = np.log(share[inside] / (1 - share[inside])) - mean[inside]
    error = make.RESPONSE_SD / inside.sum()**0.5
    assert abs(noise.mean()) < 4 * error + 0.005 and abs(noise.std() - make.RESPONSE_SD) < 4 * error + 0.005
    assert abs(np.corrcoef(noise, mean[inside])[0, 1]) < 0.03


def test_half_life_is_fourteen_days_to_one_in_e(truth):
    assert 2**(-14 * DAY / truth.half_life) == pytest.approx(np.exp(-1), abs=1e-8)


# --- the set does its job ---------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def contest(log):
    """(S, ndcg): training clicks (1000, 600) of the split by events of first plays, and mean nDCG@10 of scores on the rest."""
    user, item, _, _ = log
    first = np.sort(np.unique(user * 600 + item, return_index=True)[1])
    user, item = user[first], item[first]
    position = np.array([(user[:k] == u).sum() for k, u in enumerate(user)])
    train = position < np.ceil(0.8 * np.bincount(user)[user] - 1e-9)
    S = sp.csr_matrix((np.ones(train.sum()), (user[train], item[train])), (1000, 600))
    later = np.zeros((1000, 600), bool)
    later[user[~train], item[~train]] = True
    asked, discount = later.any(1), 1 / np.log2(np.arange(2, 12))

    def ndcg(scores):
        scores = np.where(S.toarray() > 0, -np.inf, scores)[asked]
        best = np.argsort(-scores, 1, kind="stable")[:, :10]
        gain = (np.take_along_axis(later[asked], best, 1) * discount).sum(1)
        return (gain / np.cumsum(discount)[np.minimum(later[asked].sum(1), 10) - 1]).mean()
    return S, ndcg


def test_models_of_clicks_have_something_to_find(contest, truth):
    S, ndcg = contest
    chance = ndcg(np.random.RandomState(0).rand(1000, 600))
    popular = np.asarray(S.sum(0)).ravel()
    popularity = ndcg(np.tile(popular, (1000, 1)))
    together = (S.T @ S).toarray() / np.maximum(np.sqrt(np.outer(popular, popular)), 1)
    np.fill_diagonal(together, 0)
    neighbours = ndcg(S @ together)
    ceiling = ndcg((truth.b_i + truth.P @ truth.Q.T).numpy())
    assert 0.01 < chance < 0.02
    assert 4 * chance < popularity < 0.1
    assert 1.5 * popularity < neighbours < 0.2
    assert 1.3 * neighbours < ceiling < 0.35


def test_factors_of_clicks_beat_neighbours_and_popularity(contest):
    """Weighted factors (S = 1 where played, confidence 6 there and 1 elsewhere) by the dense normal equations."""
    S, ndcg = contest
    S = S.toarray()
    Q = 0.1 * np.random.RandomState(0).randn(600, 6)

    def half(S, Q):
        return np.stack([np.linalg.solve(Q.T @ Q + 4 * Q[s > 0].T @ Q[s > 0] + 20 * np.eye(6), 5 * Q[s > 0].sum(0)) for s in S])
    for _ in range(8):
        P = half(S, Q)
        Q = half(S.T, P)
    assert 0.185 < ndcg(P @ Q.T) < 0.23
