"""Make the bundled sounds: `python data/make_sounds.py [FOLDER]` writes digits.flac, digits.csv, speech.flac, speech.csv.

Two free synthesisers speak, both from Debian (`apt-get install espeak-ng flite`): espeak-ng 1.51 and flite 2.2. With these and
soundfile 0.14.0 (libsndfile 1.2.2), scipy 1.17.1 and numpy 2.4.6 the files come out bit for bit the same; this
program prints yours.
espeak-ng is a GPL program, what it speaks is free; flite is BSD-like, its voices slt, rms, awb and kal were built from recordings
of people. No MBROLA voice (non-commercial) and no novelty variant is used.

digits: voices v00 ... v49 say every digit twice; every fifth one is a flite voice (made another person by resampling, which moves
its formants too), the others are pairs (accent, variant) of espeak-ng, each pair used once, with their own pitch and speed. The
last ten, v40 ... v49, are for tests: they share neither a flite voice nor a pair with the others. The voice slt says every
digit twelve times besides.
speech: the sentences below by slt, with phones and their ends.

Everything is mono at 8,000 Hz, trimmed, at varied levels, amplitudes rounded to multiples of 16 of 32,768 (12 bits).
A table's row: start and length in samples, text, speaker, take, phones ("phone:end in seconds", from the recording's start).
"""

import csv
import io
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import scipy
import soundfile
from scipy.signal import resample_poly

RATE = 8000
WORDS = "zero one two three four five six seven eight nine".split()
ACCENTS = "en-gb en-us en-gb-scotland en-gb-x-rp en-gb-x-gbcwmd en-gb-x-gbclan en-029 en-us-nyc".split()
VARIANTS = "m1 f1 m2 f2 m3 f3 m4 f4 m5 f5 m6 m7".split()
TEST_VARIANTS = {"m3", "f4"}        # half of the pairs with these are kept for the test voices
N_VOICES, N_TEST = 50, 10
SENTENCES = """
the boy found a toy in the garden
she put the good book on the wooden shelf
we usually watch television after dinner
the old house stood at the end of the town
a loud noise came from under the bridge
he made a decision without any pleasure
please measure the table before you cut the cloth
they joined hands and danced around the fire
my brother keeps his treasure in a brown box
the coin was lost in the thick soil
both of them thought about the north wind
i would like a cup of hot coffee with milk
the teacher chose a short story for the children
our choir sang with one clear voice
the judge asked a strange question
you should pull the rope with your full weight
the large orange cat jumped on the chair
water boils faster in a small pan
father took us to the beach last july
we found the answer on page four
the young woman usually walks to church
put your foot on the wood and push
there was a huge cloud over the mountain
the cook added oil and a little salt
a bird sang loudly outside the window
his vision was bad so he wore thick glasses
the train to the south leaves at noon
she bought three yellow flowers at the market
the king gave a gold ring to his daughter
it was a pleasure to meet your mother
the doctor looked at her left hand
nothing is worth more than good health
they usually join us for lunch on sunday
the dog barked at the man with the hat
we had to change trains in the big city
one day the river will reach the sea
a thin path goes through the green valley
the engine made a low and heavy sound
do you know the way to the nearest shop
the boys were playing with a blue ball
the garage stands behind the old farm
he pointed at the dark clouds in the west
every morning she reads the paper in bed
the soup is too hot to eat right now
birds of a feather fly together
the children built a castle in the sand
her voice was soft and full of joy
please choose a chair and sit down with us
the measure of the room was nine feet
the moon was bright above the quiet lake
we should have turned left at the church
rain fell on the roof all night long
the author wrote a book about birds and fish
a cold wind blew through the open door
the farmer put hay into the barn
he took the wrong road and lost an hour
the usual price of the coat is too high
i think this path leads to the south gate
the nurse gave the boy some medicine
the leaves turn yellow and brown in autumn
my cousin works in a large garage
they heard the noise of the crowd below
she wrapped the toy in thin white paper
the ship sailed slowly out of the harbour
an apple a day is a good rule
the poor man pulled a heavy cart
we could see the lights of the village
both brothers joined the army in march
the young king had no choice
he laughed at the joke and shook his head
it took us a month to paint the house
the casual visitor sees nothing strange
some treasure lies deep under the sea
the judge read the decision in a calm voice
look at the cook and learn how she does it
put the butter on the bread with a knife
the wolf stood still and looked at the sheep
the bus was full so we had to walk
she gave him a push and he fell in the pool
who would have thought that it could happen
the jar of jam is on the top shelf
there are fewer people in the hall today
the church bell rang at half past eight
our dog chased a rabbit down the hill
the girl with the curly hair is my sister
we watch birds on the shore each year
these shoes are too tight for my feet
the oil on the road made the car slide
he enjoys his leisure at home by the fire
the garden is full of roses in june
a sharp turn took them into the woods
they measured the depth of the well
the visitors usually arrive around noon
a long journey begins with a single step
your voice sounds tired this evening
the sun went down behind the tall trees
five thousand people came to hear the music
the weather was mild and the air was fresh
she tied the boat to the wooden post
we hope that you enjoyed your visit
""".strip().splitlines()


def spoken(command):
    """(T,) float64 in [-1, 1] and its rate: what a command writes into the file in place of FILE, and what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spoken.wav"
        command = [str(file) if part == "FILE" else part for part in command]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
        x, rate = soundfile.read(file)
    return x, rate, said.stdout


def espeak(text, accent, variant, pitch, speed):
    return spoken(["espeak-ng", "-v", f"{accent}+{variant}", "-p", str(pitch), "-s", str(speed), "-w", "FILE", text])


def flite(text, voice, pitch, stretch):
    return spoken(["flite", "-voice", voice, "-psdur", "--setf", f"int_f0_target_mean={pitch}",
                   "--setf", f"duration_stretch={stretch}", "-t", text, "-o", "FILE"])


def at_8000(x, rate, percent=100):
    """x at 8,000 Hz, played at `percent` of its speed (pitch and formants move too)."""
    return resample_poly(x, RATE * 100, rate * percent)


def edges(x, keep=0.01, below=0.01):
    """Start and end of what is louder (frames of 10 ms) than `below` of the loudest frame, with `keep` seconds around."""
    n = RATE // 100
    frames = np.abs(x[:len(x) // n * n]).reshape(-1, n).max(1)
    loud = np.flatnonzero(frames > below * frames.max())
    return max(0, loud[0] * n - round(keep * RATE)), min(len(x), (loud[-1] + 1) * n + round(keep * RATE))


def stored(x, peak):
    """x with the given peak, as int16 in multiples of 16."""
    return (np.round(x / np.abs(x).max() * peak * 2047).astype(np.int16) * 16).astype(np.int16)


def voices(rng):
    """Name -> function (text, take) -> sound of the 50 voices."""
    pairs = [(a, v) for a in ACCENTS for v in VARIANTS]
    rng.shuffle(pairs)
    kept = [pair for pair in pairs if pair[1] in TEST_VARIANTS][:8]
    pairs = [pair for pair in pairs if pair not in kept]
    made = {}
    for i in range(N_VOICES):
        test = i >= N_VOICES - N_TEST
        if i % 5 == 4:
            voice = "awb" if test else ("slt", "rms", "kal")[i // 5 % 3]
            middle = {"slt": 170, "rms": 100, "kal": 105, "awb": 120}[voice] + rng.randrange(-15, 16)
            percent = rng.choice((88, 92, 96, 104, 108, 112)) if voice != "awb" else (94, 108)[i // 5 % 2]
            stretch = rng.uniform(0.85, 1.2)

            def speak(text, take, voice=voice, middle=middle, stretch=stretch, percent=percent):
                x, rate, _ = flite(text, voice, middle + 8 * take, round(stretch * (1 - 0.12 * take), 3))
                return at_8000(x, rate, percent)
        else:
            accent, variant = (kept if test else pairs).pop()
            pitch, speed = rng.randrange(30, 71), rng.randrange(110, 181)

            def speak(text, take, accent=accent, variant=variant, pitch=pitch, speed=speed):
                x, rate, _ = espeak(text, accent, variant, pitch + 8 * take, speed + 20 * take)
                return at_8000(x, rate)
        made[f"v{i:02}"] = speak
    return made


def digits():
    """Rows (sound, text, speaker, take, phones) of the spoken digits."""
    rng = random.Random(20)
    for name, speak in voices(rng).items():
        level = rng.uniform(-14, -1)
        for digit in WORDS:
            for take in range(2):
                x = speak(digit, take)
                start, end = edges(x)
                yield stored(x[start:end], 10 ** ((level + rng.uniform(-3, 1)) / 20)), digit, name, take, ""
    for digit in WORDS:
        for take in range(12):
            x, rate, _ = flite(digit, "slt", 155 + 30 * rng.random(), round(0.85 + 0.4 * rng.random(), 3))
            x = at_8000(x, rate)
            start, end = edges(x)
            yield stored(x[start:end], 10 ** (rng.uniform(-9, -1) / 20)), digit, "slt", take, ""


def speech(keep=0.05):
    """Rows of the sentences: at most `keep` seconds of silence before and behind."""
    rng = random.Random(21)
    for text in SENTENCES:
        x, rate, said = flite(text, "slt", 170, 1.0)
        x = at_8000(x, rate)
        phones = [(phone, float(end)) for phone, end in (part.split(":") for part in said.split())]
        assert phones[0][0] == phones[-1][0] == "pau" and abs(phones[-1][1] - len(x) / RATE) < 0.03, (text, phones)
        start = max(0, round((phones[0][1] - keep) * RATE))
        end = min(len(x), round((phones[-2][1] + keep) * RATE))
        phones = [(phone, min(t - start / RATE, (end - start) / RATE)) for phone, t in phones]
        phones = " ".join(f"{phone}:{t:.4f}" for phone, t in phones)
        yield stored(x[start:end], 10 ** (rng.uniform(-6, -1) / 20)), text, "slt", 0, phones


def write(folder, name, rows):
    table, start, parts = io.StringIO(), 0, []
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["start", "length", "text", "speaker", "take", "phones"])
    for x, *about in rows:
        writer.writerow([start, len(x), *about])
        parts.append(x)
        start += len(x)
    soundfile.write(folder / f"{name}.flac", np.concatenate(parts), RATE, subtype="PCM_16", compression_level=1.0)
    (folder / f"{name}.csv").write_text(table.getvalue(), encoding="utf-8")


def versions():
    tools = {"espeak-ng": ["espeak-ng", "--version"], "flite": ["flite", "--version"]}
    lines = {name: subprocess.run(c, capture_output=True, text=True).stdout.splitlines() for name, c in tools.items()}
    said = {name: next(line.strip() for line in said if line.strip() and "Carnegie" not in line) for name, said in lines.items()}
    return said | {"soundfile": soundfile.__version__, "libsndfile": soundfile.__libsndfile_version__, "scipy": scipy.__version__,
                   "numpy": np.__version__}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    print(versions())
    write(folder, "digits", digits())
    write(folder, "speech", speech())
