"""Series in time with known anomalies."""

import csv
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from .fetch import DataValueError, choose, find


@dataclass(frozen=True, eq=False)
class Series:
    """time (n,) int64, seconds since 1970 of the stamps read as UTC; value (n,) float64; windows: [(first row, last row)] of
    the labelled anomalies, both included."""

    time: torch.Tensor
    value: torch.Tensor
    windows: list

    def __len__(self):
        return len(self.value)


def nab(name):
    """A series of the Numenta Anomaly Benchmark as `Series`, rows as published, which need not be in the order of time.

    name: "nyc_taxi" (passengers in New York by half-hours, 10,320 rows) or "machine_temperature_system_failure" (a sensor
        by five minutes, 22,695 rows; the clock is put back by 55 minutes once).
    Raises ValueError for another name or a malformed row (named); DataError if the data cannot be had.
    """
    file = choose(name, ("nyc_taxi", "machine_temperature_system_failure"), "series") + ".csv"
    time, value = _stamped(find("nab", file, _stamped))
    windows = json.loads(find("nab", "combined_windows.json").read_text(encoding="utf-8"))[f"realKnownCause/{file}"]
    rows = [((time >= _seconds(start)) & (time <= _seconds(end))).nonzero()[:, 0] for start, end in windows]
    return Series(time, value, [(int(r[0]), int(r[-1])) for r in rows])


def _seconds(stamp):
    return int(datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp())


def _stamped(path):
    """Times and values of a file "timestamp,value"; ValueError names a malformed row."""
    time, value = [], []
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            try:
                if number > 1:
                    time.append(_seconds(row[0]))
                    value.append(float(row[1]))
            except (ValueError, IndexError):
                raise DataValueError(f"{path}, line {number}: expected a time like 2014-07-01 00:30:00 and a number, "
                                     f"got {','.join(row)[:80]!r}") from None
    return torch.tensor(time), torch.tensor(value, dtype=torch.float64)
