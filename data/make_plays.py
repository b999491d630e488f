"""Make the plays: `python data/make_plays.py [FOLDER]` writes plays.csv, tracks.csv, listeners.csv, plays_truth.json.

A music service: 1,000 listeners, 600 tracks of 120 artists in eight genres, 40,000 plays over 120 days. At time t listener
u picks one track among those released by then, and hears a share of it:

    P(u picks i at t) = softmax over released i of  b_i + <p_u, q_i> + e^(-age_i(t) / 14 days),   age_i(t) = t - released_i
    share = sigmoid(0.8 <p_u, q_i> + RESPONSE - 2.5 [i is click-bait] + RESPONSE_SD * noise), in hundredths, noise ~ N(0, 1)

Six factors. Genres have mean vectors, an artist scatters around the mean of its one or two genres, a track around its artist;
a listener mixes two genres and has a taste of his or her own. b_i is a track effect plus an artist effect, both exponential,
so that e^b has a long tail; click-bait (6 % of the tracks) has 1 more in b_i. Half of the tracks are older than the log, half
come out during it; half of the listeners join during it; activity is log-normal. Listeners 993-999 never play anything.

The files come out bit for bit the same on every machine: the legacy generator numpy.random.RandomState has a frozen stream,
no sum is left to a BLAS, `rounded` refuses values so near to a rounding boundary that the last digit of a logarithm could
matter, and `pick` refuses choices so near to the edge between two tracks that the last digit of an exponential could.
"""

import json
import sys
from pathlib import Path

import numpy as np

N_LISTENERS, N_TRACKS, N_ARTISTS, N_PLAYS, D = 1_000, 600, 120, 40_000, 6
N_SILENT = 7                # the last listeners never play anything
START, DAY, N_DAYS = 1_735_689_600, 86_400, 120                # 2025-01-01 00:00 UTC; seconds; days
FRESH = 14 * DAY            # seconds after which the bonus of a new track has fallen to 1/e
TASTE, OWN = 0.53, 0.5      # length of p_u; of the part of it that no genre explains, relative to a genre's mean
TRACK, ARTIST = 0.6, 0.45   # means of the two exponential effects in b_i
RESPONSE, RESPONSE_SD, BAIT_SHARE = -1.05, 0.8, 0.06
COUNTRIES, COUNTRY_WEIGHTS = "Brazil Canada France India Japan Kenya".split(), [0.25, 0.1, 0.15, 0.25, 0.15, 0.1]
WORDS = {
    "ambient": "Drift Vapour Tide Stillness Aurora Distance Cloud Lullaby".split(),
    "classical": "Nocturne Prelude Sonata Rondo Minuet Adagio Fugue Serenade".split(),
    "electronic": "Circuit Pulse Voltage Static Laser Modem Pixel Loop".split(),
    "folk": "Orchard Shepherd Harbour Lantern Meadow Ferryman Willow Hearth".split(),
    "hip hop": "Corner Cipher Hustle Block Microphone Cadence Rooftop Sidewalk".split(),
    "jazz": "Midnight Saxophone Avenue Velvet Swing Cigarette Bourbon Blues".split(),
    "metal": "Anvil Throne Wrath Iron Raven Gallows Inferno Serpent".split(),
    "pop": "Heartbeat Summer Dancefloor Kiss Glitter Radio Weekend Sunshine".split(),
}
AGES = [38, 52, 27, 44, 23, 48, 31, 20]             # mean age of a genre's listeners, in the order of WORDS
OPENINGS = ("Last Golden Hidden Second Paper Slow Broken Electric Quiet Burning Blue Endless Little Wild Foreign "
            "Hollow Sudden Seventh Distant Gentle").split()
COLOURS = "Amber Crimson Copper Ivory Cobalt Scarlet Silver Olive Indigo Marble Coral Walnut".split()
BANDS = "Sparrows Cartographers Engines Tailors Comets Gardeners Foxes Typewriters Beacons Pilots Beekeepers Umbrellas".split()


def rounded(values, step, margin=1e-9):
    """values rounded to multiples of step; refuses a value within `margin` steps of a boundary."""
    scaled = np.asarray(values) / step
    near = np.abs(scaled - np.floor(scaled) - 0.5) < margin
    if near.any():
        raise ValueError("a value lies on a rounding boundary; the file would depend on the machine: change the seed")
    return np.floor(scaled + 0.5) * step


def pick(weight, where, margin=1e-11):
    """Column k of each row of weight (n, m) at which the running sum passes `where` (n,), a share of the row's sum.

    Refuses a place within `margin` of an edge between two columns.
    """
    passed = np.add.accumulate(weight, axis=1)
    passed /= passed[:, -1:]
    if (np.abs(passed[:, :-1] - where[:, None]) < margin).any():
        raise ValueError("a choice lies on the edge between two tracks; it would depend on the machine: change the seed")
    return (passed <= where[:, None]).sum(1)


def products(A, B):
    """<a, b> for rows of A and B, term by term: the order of additions is fixed."""
    total = A[..., 0] * B[..., 0]
    for k in range(1, D):
        total = total + A[..., k] * B[..., k]
    return total


def in_parts(function, *arrays):
    """function(*arrays), computed for some hundred rows at a time."""
    return np.concatenate([function(*part) for part in zip(*(np.array_split(a, 80) for a in arrays))])


def draw_tracks(rng):
    """What is known of the tracks and genres as a dict: means of genres, factors Q, b_i, artists, genres, times, titles."""
    names = list(WORDS)
    genre_mean = rng.randn(len(names), D)
    genre_mean *= 1.1 / np.sqrt(products(genre_mean, genre_mean) / D)[:, None]
    artist_genre = np.zeros((N_ARTISTS, len(names)), bool)
    artist_genre[np.arange(N_ARTISTS), rng.permutation(N_ARTISTS) % len(names)] = True
    second = rng.rand(N_ARTISTS) < 0.25
    artist_genre[second, rng.randint(len(names), size=N_ARTISTS)[second]] = True
    artist_mean = np.stack([genre_mean[row].mean(0) for row in artist_genre]) + 0.5 * rng.randn(N_ARTISTS, D)
    artist = rng.permutation(np.concatenate([np.arange(N_ARTISTS), rng.randint(N_ARTISTS, size=N_TRACKS - N_ARTISTS)]))
    Q = artist_mean[artist] + 0.35 * rng.randn(N_TRACKS, D)
    bait = np.zeros(N_TRACKS, bool)
    bait[rng.choice(N_TRACKS, int(BAIT_SHARE * N_TRACKS), replace=False)] = True
    b_i = TRACK * rng.exponential(size=N_TRACKS) + ARTIST * rng.exponential(size=N_ARTISTS)[artist] + bait
    age_days = rng.permutation(np.concatenate([rng.randint(1, 1200, size=N_TRACKS // 2),
                                               -rng.randint(0, N_DAYS, size=N_TRACKS // 2)]))
    released = START - age_days * DAY + rng.randint(24, size=N_TRACKS) * 3_600
    length = rounded(np.exp(5.35 + 0.25 * rng.randn(N_TRACKS)), 1.0)
    pairs = rng.permutation(len(COLOURS) * len(BANDS))[:N_ARTISTS]
    artist_name = [f"{COLOURS[p // len(BANDS)]} {BANDS[p % len(BANDS)]}" for p in pairs]
    return {"genre_mean": genre_mean, "genre": artist_genre[artist], "artist": artist, "artist_name": artist_name,
            "Q": rounded(Q, 1e-4), "b_i": rounded(b_i, 1e-4), "bait": bait, "released": released, "length": length,
            "title": draw_titles(rng, artist_genre[artist])}


def draw_titles(rng, genre):
    """A title for each track, no two alike; four in five have a word of their genre, the others of any."""
    names, titles = list(WORDS), []
    for row in genre:
        while True:
            own = np.flatnonzero(row if rng.rand() < 0.8 else np.ones(len(names)))
            nouns = WORDS[names[own[rng.randint(len(own))]]]
            title = f"{OPENINGS[rng.randint(len(OPENINGS))]} {nouns[rng.randint(len(nouns))]}"
            if title not in titles:
                break
        titles.append(title)
    return titles


def draw_listeners(rng, genre_mean):
    """What is known of the listeners as a dict: factors P, ages, countries, time of joining, relative activity."""
    first, second = rng.randint(len(genre_mean), size=(2, N_LISTENERS))
    mix = (0.5 + 0.5 * rng.rand(N_LISTENERS))[:, None]
    P = TASTE * (mix * genre_mean[first] + (1 - mix) * genre_mean[second] + OWN * rng.randn(N_LISTENERS, D))
    ages = np.array(AGES, float)
    age = mix[:, 0] * ages[first] + (1 - mix[:, 0]) * ages[second] + 7 * rng.randn(N_LISTENERS)
    country = pick(np.tile(COUNTRY_WEIGHTS, (N_LISTENERS, 1)), rng.rand(N_LISTENERS))
    joined = START + rng.permutation(np.concatenate([np.zeros(N_LISTENERS // 2, int),
                                                     rng.randint(1, (N_DAYS - 5) * DAY, size=N_LISTENERS // 2)]))
    activity = np.exp(0.8 * rng.randn(N_LISTENERS))
    activity[-N_SILENT:] = 0
    return {"P": rounded(P, 1e-4), "age": np.clip(rounded(age, 1), 14, 80).astype(int), "country": country, "joined": joined,
            "activity": activity}


def simulate(seed=44):
    """(plays, tracks, listeners): the log as arrays (listener, track, share, time) in the order of time, and two dicts."""
    rng = np.random.RandomState(seed)
    tracks = draw_tracks(rng)
    listeners = draw_listeners(rng, tracks["genre_mean"])
    P, Q, b_i, bait, released = listeners["P"], tracks["Q"], tracks["b_i"], tracks["bait"], tracks["released"]
    end = START + N_DAYS * DAY
    present = listeners["activity"] * (end - listeners["joined"])
    rest = in_parts(lambda where: pick(np.tile(present, (len(where), 1)), where), rng.rand(N_PLAYS - N_LISTENERS + N_SILENT))
    user = np.concatenate([np.arange(N_LISTENERS - N_SILENT), rest])                # everybody else plays at least once
    time = listeners["joined"][user] + np.floor(rng.rand(N_PLAYS) * (end - listeners["joined"][user])).astype(int)
    order = np.argsort(time, kind="stable")
    user, time, where = user[order], time[order], rng.rand(N_PLAYS)
    item = in_parts(lambda u, t, w: choices(P[u], Q, b_i, released, t, w), user, time, where)
    logit = 0.8 * products(P[user], Q[item]) + RESPONSE - 2.5 * bait[item] + RESPONSE_SD * rng.randn(N_PLAYS)
    return (user, item, rounded(1 / (1 + np.exp(-logit)), 0.01), time), tracks, listeners


def choices(P, Q, b_i, released, time, where):
    """Tracks picked by listeners with factors P (n, D) at times (n,)."""
    age = time[:, None] - released
    utility = b_i + products(P[:, None], Q) + np.exp(-np.maximum(age, 0) / FRESH)
    return pick(np.where(age < 0, 0.0, np.exp(utility)), where)


def write(folder):
    """Write the four files into `folder`."""
    (user, item, share, time), tracks, listeners = simulate()
    rows = [f"{u},{i},{s:.2f},{t}" for u, i, s, t in zip(user, item, share, time)]
    (folder / "plays.csv").write_bytes(("listener,track,share,time\n" + "\n".join(rows) + "\n").encode())
    names = list(WORDS)
    genres = ["|".join(names[g] for g in np.flatnonzero(row)) for row in tracks["genre"]]
    columns = zip(tracks["title"], tracks["artist"], genres, tracks["released"], tracks["length"])
    rows = [f"{i},{title},{a},{tracks['artist_name'][a]},{g},{released},{length:.0f}"
            for i, (title, a, g, released, length) in enumerate(columns)]
    head = "track,title,artist,artist_name,genres,released,length\n"
    (folder / "tracks.csv").write_bytes((head + "\n".join(rows) + "\n").encode())
    rows = [f"{u},{age},{COUNTRIES[c]}" for u, (age, c) in enumerate(zip(listeners["age"], listeners["country"]))]
    (folder / "listeners.csv").write_bytes(("listener,age,country\n" + "\n".join(rows) + "\n").encode())
    truth = {"P": np.round(listeners["P"], 4).tolist(), "Q": np.round(tracks["Q"], 4).tolist(),
             "b_i": np.round(tracks["b_i"], 4).tolist(), "bait": np.flatnonzero(tracks["bait"]).tolist(),
             "half_life": round(FRESH * 0.6931471805599453, 3)}
    (folder / "plays_truth.json").write_bytes((json.dumps(truth) + "\n").encode())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
