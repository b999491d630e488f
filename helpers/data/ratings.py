"""Ratings of items by users, and plays of tracks by listeners."""

import calendar
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from .. import data
from .fetch import BUNDLED, DataValueError, choose, find

PLAYS = "plays"
FORMATS = {     # file, separator, number of users, of items, scale, first id, lines to skip
    BUNDLED: ("ratings.csv", ",", 600, 400, (0.5, 5.0), 0, 1),
    PLAYS: ("plays.csv", ",", 1000, 600, (0, 1), 0, 1),
    "ml-100k": ("u.data", "\t", 943, 1682, (1, 5), 1, 0)}
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


@dataclass(frozen=True, eq=False)
class Ratings:
    """Observed ratings: four 1-D tensors of equal length N and two counts.

    user, item: int64 ids from 0; value: float64 ratings (of plays: the share of the track that was heard, 0 to 1);
    time: int64, seconds since 1970 (unix time).
    n_users, n_items: how many there are, those without ratings included.
    """

    user: torch.Tensor
    item: torch.Tensor
    value: torch.Tensor
    time: torch.Tensor
    n_users: int
    n_items: int

    def __len__(self):
        return len(self.value)

    def __getitem__(self, rows):
        """The ratings at `rows` (bool mask, slice or 1-D int tensor) as Ratings of the same users and items."""
        return Ratings(self.user[rows], self.item[rows], self.value[rows], self.time[rows], self.n_users, self.n_items)

    def to(self, device):
        """The same ratings on a device."""
        return Ratings(*(x.to(device) if isinstance(x, torch.Tensor) else x
                         for x in (getattr(self, f.name) for f in fields(self))))


@dataclass(frozen=True, eq=False)
class Items:
    """What is known of the items: `title` (list of n_items), `genre` (n_items, n_genres) bool, `genre_names`.

    And, None where a set lacks them: `artist` (n_items,) int64, ids from 0; `released` (n_items,) int64, seconds since 1970;
    `length` (n_items,) float64, seconds.
    """

    title: list
    genre: torch.Tensor
    genre_names: list
    artist: torch.Tensor | None = None
    released: torch.Tensor | None = None
    length: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Users:
    """What is known of the users: `age` (n_users,) int64, years; `group` (n_users,) int64, ids from 0; `group_names` (list)."""

    age: torch.Tensor
    group: torch.Tensor
    group_names: list


@dataclass(frozen=True, eq=False)
class Truth:
    """The model that the bundled ratings were drawn from; `data/make_ratings.py` says how.

    mu, noise_sd: floats; b_u (n_users,), b_i (n_items,), P (n_users, d), Q (n_items, d): float64 tensors.
    """

    mu: float
    noise_sd: float
    b_u: torch.Tensor
    b_i: torch.Tensor
    P: torch.Tensor
    Q: torch.Tensor


@dataclass(frozen=True, eq=False)
class PlaysTruth:
    """The model that the plays were drawn from; `data/make_plays.py` says how.

    At time t a listener picks an item released by then with probability softmax(b_i + <p_u, q_i> + 2^(-age / half_life)).

    P (n_users, d), Q (n_items, d), b_i (n_items,): float64 tensors, the 1 that click-bait has more included in b_i;
    bait (n_items,): bool; half_life: seconds (14 days times ln 2, so that the bonus of a new track is e^(-age / 14 days)).
    """

    P: torch.Tensor
    Q: torch.Tensor
    b_i: torch.Tensor
    bait: torch.Tensor
    half_life: float


def ratings(source=BUNDLED):
    """User-item ratings as `Ratings`.

    source: "bundled": 20,000 simulated ratings on a scale of 0.5 to 5 by 0.5, 600 users, 400 items, see `truth()`;
        "plays": 40,000 simulated plays of 600 tracks by 1,000 listeners, value the share of the track that was heard (0 to
        1 by 0.01), sorted by time; a pair may come more than once, and which pairs are there depends on taste: `truth("plays")`;
        "ml-100k": MovieLens 100K, 100,000 ratings 1 to 5, 943 users, 1,682 films.
    Raises ValueError for another source or a malformed row, DataError if the data cannot be had.
    """
    name, *how = FORMATS[choose(source, FORMATS)]
    path = find(source, name, lambda p: _rows(p, *how)) if source in data.SOURCES else data.DATA / name
    return _as_ratings(_rows(path, *how), *how[1:3])


def items(source=BUNDLED):
    """What is known of the items of `ratings(source)`, as `Items`. Sources and errors as there.

    "plays": a title is "Golden Circuit (Copper Sparrows)", the artist's name in brackets. "ml-100k": a film without a date
    counts as released with the oldest one.
    """
    if choose(source, FORMATS) == "ml-100k":
        names = [row.split("|")[0] for row in find(source, "u.genre").read_text(encoding="latin-1").split("\n") if row]
        rows = [row.split("|") for row in find(source, "u.item").read_text(encoding="latin-1").split("\n") if row]
        date = [_seconds(row[2]) for row in rows]
        oldest = min((t for t in date if t is not None), default=0)
        return Items([row[1] for row in rows], torch.tensor([[flag == "1" for flag in row[5:]] for row in rows]), names,
                     released=torch.tensor([oldest if t is None else t for t in date]))
    rows = _table("tracks.csv" if source == PLAYS else "items.csv")
    names = sorted({g for row in rows for g in row["genres"].split("|")})
    title = [row["title"] + (f" ({row['artist_name']})" if source == PLAYS else "") for row in rows]
    known = Items(title, torch.tensor([[g in row["genres"].split("|") for g in names] for row in rows]), names)
    if source == BUNDLED:
        return known
    artist, released = (torch.tensor([int(row[k]) for row in rows]) for k in ("artist", "released"))
    return replace(known, artist=artist, released=released,
                   length=torch.tensor([float(row["length"]) for row in rows], dtype=torch.float64))


def users(source):
    """What is known of the users of `ratings(source)`, as `Users`; a group is a country or an occupation.

    source: "plays" (countries) or "ml-100k" (occupations). Raises ValueError for another source ("bundled" knows nothing of
    its users), DataError if the data cannot be had.
    """
    if choose(source, FORMATS) == BUNDLED:
        raise DataValueError(f'nothing is known of the users of "{BUNDLED}"; take users("{PLAYS}") or users("ml-100k")')
    if source == PLAYS:
        about = [(row["age"], row["country"]) for row in _table("listeners.csv")]
    else:
        rows = find(source, "u.user").read_text(encoding="latin-1").split("\n")
        about = [(row.split("|")[1], row.split("|")[3]) for row in rows if row]
    names = sorted({group for _, group in about})
    return Users(torch.tensor([int(age) for age, _ in about]), torch.tensor([names.index(group) for _, group in about]), names)


def truth(source=BUNDLED):
    """The parameters behind `ratings("bundled")`, as `Truth`, or behind `ratings("plays")`, as `PlaysTruth`.

    ValueError for another source.
    """
    name = "plays_truth.json" if choose(source, (BUNDLED, PLAYS)) == PLAYS else "ratings_truth.json"
    values = json.loads((data.DATA / name).read_text(encoding="utf-8"))
    tensors = {k: torch.tensor(values[k], dtype=torch.float64) for k in ("b_u", "b_i", "P", "Q") if k in values}
    if source == BUNDLED:
        return Truth(mu=values["mu"], noise_sd=values["noise_sd"], **tensors)
    bait = torch.zeros(len(tensors["b_i"]), dtype=torch.bool)
    bait[values["bait"]] = True
    return PlaysTruth(bait=bait, half_life=values["half_life"], **tensors)


def _table(name):
    """The rows of one of the course's own tables as dicts."""
    header, *rows = [line.split(",") for line in (data.DATA / name).read_text(encoding="utf-8").splitlines()]
    return [dict(zip(header, row)) for row in rows]


def _seconds(date):
    """Seconds since 1970 of "01-Jan-1995", None of an empty date."""
    if not date:
        return None
    day, month, year = date.split("-")
    return calendar.timegm((int(year), MONTHS.index(month) + 1, int(day), 0, 0, 0))


def _rows(path, separator, n_users, n_items, scale, first_id, skip):
    """Rows (user, item, value, time) of a ratings file, ids from 0; ValueError names file and line of a malformed one."""
    wanted = (f"expected user {first_id}..{n_users - 1 + first_id}, item {first_id}..{n_items - 1 + first_id}, rating "
              f"{scale[0]:g}..{scale[1]:g}, unix time, separated by {separator!r}")
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if number <= skip:
            continue
        try:
            user, item, value, time = line.split(separator)
            row = int(user) - first_id, int(item) - first_id, float(value), int(time)
        except ValueError:
            row = (-1, -1, 0.0, -1)
        if not (0 <= row[0] < n_users and 0 <= row[1] < n_items and scale[0] <= row[2] <= scale[1] and row[3] >= 0):
            raise DataValueError(f"{path}, line {number}: {wanted}; got {line[:80]!r}")
        rows.append(row)
    if not rows:
        raise DataValueError(f"{path}: no ratings in it; {wanted}")
    return rows


def _as_ratings(rows, n_users, n_items):
    user, item, value, time = zip(*rows)
    return Ratings(torch.tensor(user), torch.tensor(item), torch.tensor(value, dtype=torch.float64),
                   torch.tensor(time), n_users, n_items)
