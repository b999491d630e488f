"""Make the bundled ratings: `python data/make_ratings.py [FOLDER]` writes ratings.csv, ratings_truth.json, items.csv.

The model that the ratings follow, with u = 1..600, i = 1..400 and d = 4:

    r_ui = round_to_half(mu + b_u + b_i + <p_u, q_i> + e_ui), clipped to 0.5..5,  e_ui ~ N(0, noise_sd^2)

Items belong to one or two of eight genres; a genre has a mean vector and q_i scatters around the mean of its genres, so that
genres carry a part of what the factors do. Which cells are observed: items are long-tailed (weight of the item of
popularity rank k is (k + 5)^-0.8), users differ in activity (log-normal); the last users and items are cold: users
595-599 and items 395-399 (ids from 0) have no rating at all, users 590-594 three each, items 390-394 three at most.

The files come out bit for bit the same on every machine: the legacy generator numpy.random.RandomState has a frozen
stream, no sum is left to a BLAS, and `rounded` refuses values so near to a rounding boundary that the last digit of a
logarithm could matter.
"""

import json
import sys
from pathlib import Path

import numpy as np

N_USERS, N_ITEMS, D, N_RATINGS = 600, 400, 4, 20_000
MU, NOISE_SD = 3.2, 0.5
START = 1_704_067_200       # 2024-01-01 00:00 UTC
NOUNS = {
    "adventure": "Voyage Island Map Horizon Summit Caravan River Compass".split(),
    "comedy": "Cousin Wedding Landlord Holiday Parrot Waiter Umbrella Neighbour".split(),
    "crime": "Alibi Witness Ledger Heist Detective Safe Verdict Informer".split(),
    "documentary": "Harvest Glacier Archive Workshop Migration Orchestra Reef Railway".split(),
    "drama": "Letter Inheritance Winter Promise Daughter Silence House Farewell".split(),
    "horror": "Cellar Mirror Whisper Lighthouse Shadow Doll Fog Corridor".split(),
    "romance": "Summer Dance Balcony Postcard Garden Rendezvous Melody Kiss".split(),
    "science fiction": "Orbit Signal Colony Android Paradox Nebula Machine Station".split(),
}
ADJECTIVES = "Last Silent Golden Second Hidden Paper Distant Crooked Quiet Burning Blue Forgotten".split()


def rounded(values, step, margin=1e-9):
    """values rounded to multiples of step; refuses a value within `margin` steps of a boundary."""
    scaled = np.asarray(values) / step
    near = np.abs(scaled - np.floor(scaled) - 0.5) < margin
    if near.any():
        raise ValueError("a value lies on a rounding boundary; the file would depend on the machine: change the seed")
    return np.floor(scaled + 0.5) * step


def draw_items(rng):
    """Genres (N_ITEMS, 8) bool, factors (N_ITEMS, D) and titles."""
    names = list(NOUNS)
    genre_mean = rng.randn(len(names), D) * 0.6
    genre = np.zeros((N_ITEMS, len(names)), bool)
    genre[np.arange(N_ITEMS), rng.randint(len(names), size=N_ITEMS)] = True
    second = rng.rand(N_ITEMS) < 0.35
    genre[second, rng.randint(len(names), size=N_ITEMS)[second]] = True
    mean = np.stack([genre_mean[row].mean(0) for row in genre])
    Q = mean + 0.45 * rng.randn(N_ITEMS, D)
    titles, used = [], set()
    for row in genre:
        nouns = [noun for g in np.flatnonzero(row) for noun in NOUNS[names[g]]]
        while True:
            title = f"The {ADJECTIVES[rng.randint(len(ADJECTIVES))]} {nouns[rng.randint(len(nouns))]}"
            year = f"{title} ({1960 + rng.randint(64)})"
            if year not in used:
                break
        used.add(year)
        titles.append(year)
    return genre, Q, titles


def draw_observed(rng):
    """Which cells are rated: (N_USERS, N_ITEMS) bool with N_RATINGS ones."""
    popularity = (rng.permutation(N_ITEMS) + 5.0) ** -0.8
    activity = np.exp(0.8 * rng.randn(N_USERS))
    activity[595:], popularity[395:] = 0, 0                 # cold: none at all
    activity[590:595], popularity[390:395] = 0, 0           # nearly cold: set below
    keys = np.log(activity[:, None] * popularity + 1e-300) - np.log(-np.log(rng.rand(N_USERS, N_ITEMS)))
    observed = np.zeros((N_USERS, N_ITEMS), bool)
    for u in range(590, 595):
        observed[u, rng.choice(390, 3, replace=False)] = True
    for i in range(390, 395):
        observed[rng.choice(590, 3, replace=False), i] = True
    best = np.argsort(-keys.ravel(), kind="stable")[:N_RATINGS - observed.sum()]
    observed.ravel()[best] = True
    return observed


def simulate(seed=43):
    """Everything that is written: ratings as (user, item, rating, time) arrays, the truth, genres and titles."""
    rng = np.random.RandomState(seed)
    genre, Q, titles = draw_items(rng)
    P = rng.randn(N_USERS, D) * 0.45
    b_u, b_i = rng.randn(N_USERS) * 0.35, rng.randn(N_ITEMS) * 0.4
    P, Q, b_u, b_i = (rounded(x, 1e-4) for x in (P, Q, b_u, b_i))
    user, item = np.nonzero(draw_observed(rng))
    mean = MU + b_u[user] + b_i[item]
    for k in range(D):                                      # term by term: the order of additions is fixed
        mean = mean + P[user, k] * Q[item, k]
    rating = np.clip(rounded(mean + NOISE_SD * rng.randn(len(user)), 0.5), 0.5, 5.0)
    first_day = rng.randint(0, 600, size=N_USERS)
    time = START + first_day[user] * 86_400 + rng.randint(0, 130 * 86_400, size=len(user))
    order = np.argsort(time, kind="stable")
    truth = {"mu": MU, "noise_sd": NOISE_SD, "b_u": b_u, "b_i": b_i, "P": P, "Q": Q}
    return (user[order], item[order], rating[order], time[order]), truth, genre, titles


def write(folder):
    """Write the three files into `folder`."""
    (user, item, rating, time), truth, genre, titles = simulate()
    rows = [f"{u},{i},{r:.1f},{t}" for u, i, r, t in zip(user, item, rating, time)]
    (folder / "ratings.csv").write_bytes(("user,item,rating,time\n" + "\n".join(rows) + "\n").encode())
    plain = {k: np.round(v, 4).tolist() if isinstance(v, np.ndarray) else v for k, v in truth.items()}
    (folder / "ratings_truth.json").write_bytes((json.dumps(plain) + "\n").encode())
    names = list(NOUNS)
    lines = [f"{i},{title},{'|'.join(names[g] for g in np.flatnonzero(row))}"
             for i, (title, row) in enumerate(zip(titles, genre))]
    (folder / "items.csv").write_bytes(("item,title,genres\n" + "\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
