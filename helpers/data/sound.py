"""Spoken words, mono, at 8,000 samples a second."""

import csv
import re
from dataclasses import dataclass

import torch

from .. import data  # DATA is read from the package, at each call
from .fetch import DataError, DataValueError, choose, find

RATE = 8000
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, eq=False)
class Sounds:
    """Recordings: lists of equal length, one entry each.

    sound: (T,) float32 tensors in [-1, 1], not normalised; text: what is said ("seven", or a sentence); speaker: name;
    take: int, which of the speaker's recordings of that text; phones: lists of (phone, end in seconds), or None where
    they are not known; sample_rate: samples a second.
    """

    sound: list
    text: list
    speaker: list
    take: list
    phones: list | None = None
    sample_rate: int = RATE

    def __len__(self):
        return len(self.sound)


def sounds(source="digits"):
    """Spoken digits or sentences as `Sounds`.

    source: "digits": ten digits by 50 synthetic voices v00 to v49, two takes each (v40 to v49 are for tests only), and twelve
        takes by the voice slt; "speech": a hundred sentences by slt, with phones; "fsdd": Free Spoken Digit Dataset, 3,000
        recordings of the digits by six speakers, 50 takes each, of which 0 to 4 are the test split; sorted by file name.
    Raises ValueError for another source, or a file (named) that is no mono WAV of 8 kHz or not named DIGIT_SPEAKER_TAKE.wav;
    DataError if the data cannot be had.
    """
    if choose(source, ("digits", "speech", "fsdd")) != "fsdd":
        return _bundled(source)
    return _recordings(find("fsdd", "recordings/", _recordings))


def _bundled(name):
    """The sounds of data/NAME.flac, cut by the rows of data/NAME.csv."""
    import soundfile

    try:
        x = torch.from_numpy(soundfile.read(data.DATA / f"{name}.flac", dtype="float32")[0])
        rows = list(csv.DictReader((data.DATA / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"data/{name}.flac and data/{name}.csv cannot be read ({error}): fetch the course again") from None
    sound = [x[int(row["start"]):][:int(row["length"])].clone() for row in rows]
    phones = [[(phone, float(end)) for phone, end in (p.split(":") for p in row["phones"].split())] for row in rows]
    text, speaker, take = ([row[key] for row in rows] for key in ("text", "speaker", "take"))
    return Sounds(sound, text, speaker, list(map(int, take)), phones if any(phones) else None)


def _recordings(folder):
    """The recordings of FSDD's folder; ValueError names a file that is none."""
    import soundfile

    sound, about = [], []
    for path in sorted(folder.glob("*.wav")):
        name = re.fullmatch(r"([0-9])_([a-z]+)_([0-9]+)\.wav", path.name)
        if not name:
            raise DataValueError(f"{path}: expected a name like 7_jackson_32.wav: digit, speaker, take")
        try:
            x, rate = soundfile.read(path, dtype="float32", always_2d=True)         # (T, channels)
            kind = soundfile.info(path).format
        except (soundfile.SoundFileError, OSError) as error:
            raise DataValueError(f"{path}: expected a mono WAV file of {RATE} Hz, but it cannot be read ({error})") from None
        if kind not in ("WAV", "WAVEX") or rate != RATE or x.shape[1] != 1 or not len(x):
            raise DataValueError(f"{path}: expected a mono WAV file of {RATE} Hz, got {kind}, {rate} Hz, {x.shape[1]} "
                                 f"channels, {len(x)} samples")
        sound.append(torch.from_numpy(x[:, 0].copy()))
        about.append((WORDS[int(name[1])], name[2], int(name[3])))
    text, speaker, take = map(list, zip(*about))
    return Sounds(sound, text, speaker, take)
