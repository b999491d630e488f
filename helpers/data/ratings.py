"""Ratings of items by users."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from .. import data
from .fetch import BUNDLED, DataValueError, choose, find


@dataclass(frozen=True, eq=False)
class Ratings:
    """Observed ratings: four 1-D tensors of equal length N and two counts.

    user, item: int64 ids from 0; value: float64 ratings; time: int64, seconds since 1970 (unix time).
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
    """What is known of the items: `title` (list of n_items), `genre` (n_items, n_genres) bool, `genre_names`."""

    title: list
    genre: torch.Tensor
    genre_names: list


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


def ratings(source=BUNDLED):
    """User-item ratings as `Ratings`.

    source: "bundled": 20,000 simulated ratings on a scale of 0.5 to 5 by 0.5, 600 users, 400 items, see `truth()`;
        "ml-100k": MovieLens 100K, 100,000 ratings 1 to 5, 943 users, 1,682 films.
    Raises ValueError for another source or a malformed row, DataError if the data cannot be had.
    """
    if source == BUNDLED:
        rows = _rows(data.DATA / "ratings.csv", ",", 600, 400, (0.5, 5.0), first_id=0, skip=1)
        return _as_ratings(rows, 600, 400)
    path = find(choose(source, (BUNDLED, "ml-100k")), "u.data", lambda p: _rows(p, "\t", 943, 1682, (1, 5), first_id=1))
    return _as_ratings(_rows(path, "\t", 943, 1682, (1, 5), first_id=1), 943, 1682)


def items(source=BUNDLED):
    """Titles and genres of the items of `ratings(source)`, as `Items`. Sources and errors as there."""
    if source == BUNDLED:
        rows = [line.split(",") for line in (data.DATA / "items.csv").read_text(encoding="utf-8").splitlines()[1:]]
        names = sorted({g for row in rows for g in row[2].split("|")})
        return Items([row[1] for row in rows], torch.tensor([[g in row[2].split("|") for g in names] for row in rows]), names)
    known = choose(source, (BUNDLED, "ml-100k"))
    names = [row.split("|")[0] for row in find(known, "u.genre").read_text(encoding="latin-1").split("\n") if row]
    rows = [row.split("|") for row in find(known, "u.item").read_text(encoding="latin-1").split("\n") if row]
    return Items([row[1] for row in rows], torch.tensor([[flag == "1" for flag in row[5:]] for row in rows]), names)


def truth():
    """The parameters behind `ratings("bundled")`, as `Truth`."""
    values = json.loads((data.DATA / "ratings_truth.json").read_text(encoding="utf-8"))
    tensors = {k: torch.tensor(values[k], dtype=torch.float64) for k in ("b_u", "b_i", "P", "Q")}
    return Truth(mu=values["mu"], noise_sd=values["noise_sd"], **tensors)


def _rows(path, separator, n_users, n_items, scale, first_id, skip=0):
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
