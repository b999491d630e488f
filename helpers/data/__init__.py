"""The data sets of the course: one function each, bundled data by default, the real set when asked for by name.

A real set is looked for in `$COURSE_DATA/NAME`, then in `data/cache/NAME`; else it is downloaded there from its owner.
A relative COURSE_DATA starts at the course's folder (or, if there is none, at the working folder or one above it).
Files are accepted by the checksum of their contents only, wherever they come from.
"""

from pathlib import Path

from .fetch import BUNDLED, DataError, found, known, places
from .images import PHOTOS, Digits, digits, feature_weights, photo
from .ratings import Items, PlaysTruth, Ratings, Truth, Users, items, ratings, truth, users
from .series import Series, nab
from .sound import Sounds, sounds
from .text import Squad, Utterances, squad, utterances

DATA = Path(__file__).resolve().parents[2] / "data"
SOURCES = known()

__all__ = ["BUNDLED", "DATA", "DataError", "Digits", "Items", "PHOTOS", "PlaysTruth", "Ratings", "SOURCES", "Series",
           "Sounds", "Squad", "Truth", "Users", "Utterances", "digits", "feature_weights", "found", "items", "nab",
           "photo", "places", "ratings", "sounds", "squad", "truth", "users", "utterances"]
