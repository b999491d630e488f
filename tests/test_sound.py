"""Players in the page, and torchaudio without its compiled part."""

import base64
import io
import re
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch

from helpers import get_torchaudio, play
from tests.book import ROOT

SECONDS = torch.arange(8000) / 8000
TONE = 0.5 * torch.sin(2 * torch.pi * (300 * SECONDS + 400 * SECONDS**2))           # rising, so that it fits itself at one place only


def page(*args, **options):
    """The HTML that `play` shows."""
    with mock.patch("IPython.display.display") as display:
        assert play(*args, **options) is None
    [[shown], _] = display.call_args
    return shown.data


def inside(text):
    """The sounds in a page: [(kind, samples, rate)]."""
    found = re.findall(r'src="data:audio/(\w+);base64,([^"]+)"', text)
    return [(kind, *soundfile.read(io.BytesIO(base64.b64decode(body)))) for kind, body in found]


@pytest.mark.parametrize("codec, kind, size, error", [("MP3", "mpeg", 6_000, 0.02), ("FLAC", "flac", 25_000, 1e-4), ("WAV", "wav", 22_000, 1e-4)])
def test_the_sound_is_inside_the_page(codec, kind, size, error):
    text = page({"a tone": TONE}, codec=codec)
    assert "a tone" in text and text.count("<audio controls") == 1 and len(text) < size and "http" not in text
    [(found, x, rate)] = inside(text)
    start = int(np.argmax(np.correlate(x, TONE[1000:3000].numpy(), "valid")))                 # MP3 adds a little silence
    assert found == kind and rate == 8000 and abs(len(x) - 8000) < 2500
    assert np.square(x[start:start + 6000] - TONE[1000:7000].numpy()).mean() ** 0.5 < error


def test_what_can_be_played():
    text = page({"<b>tensor</b>": TONE, 3: TONE.numpy(), "list": [0.0, 0.5, -1.0, 1.0], "half": TONE.half(), "gradient": TONE.clone().requires_grad_()})
    assert "&lt;b&gt;tensor&lt;/b&gt;" in text and ">3<" in text and len(inside(text)) == 5
    [(_, x, rate)] = inside(page(TONE, 16000, codec="WAV"))
    assert rate == 16000 and np.allclose(x, TONE, atol=1e-4), "one sound without a title"
    assert page({"a": TONE[::2].flip(0)}) == page({"a": TONE[::2].flip(0).contiguous()})
    with pytest.raises(ValueError, match="at least one sound"):
        play({})


@pytest.mark.parametrize("sound, says", [
    (TONE * 3, "values from -1.5 to 1.5"), ([0.0, float("nan")], "in .-1, 1."), ([float("inf")], "inf"), (TONE[None], r"shape \(1, 8000\)"), ([], "T > 0"),
    (0.5, r"shape \(\)"), ((TONE * 32767).short(), "by 32768")])
def test_what_cannot_be_played(sound, says):
    with pytest.raises(ValueError, match=says):
        play({"this one": sound})
    with pytest.raises(ValueError, match="'this one' has"):
        play({"good": TONE, "this one": sound})


@pytest.mark.parametrize("options, says", [({"codec": "OGG"}, 'codec must be "MP3", "FLAC" or "WAV"'), ({"sample_rate": 7999}, "MP3 cannot hold 7999"),
                                           ({"sample_rate": "8k"}, "cannot hold '8k'"), ({"sample_rate": 0, "codec": "WAV"}, "WAV cannot hold 0")])
def test_a_codec_or_rate_that_cannot_be_is_named(options, says):
    with pytest.raises(ValueError, match=says):
        play({"tone": TONE}, **options)


def test_nothing_is_played_before_all_is_judged():
    with mock.patch("IPython.display.display") as display, pytest.raises(ValueError):
        play({"good": TONE, "bad": TONE * 9})
    assert not display.called


# --- torchaudio -------------------------------------------------------------------------------------------------------

def run(code):
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


FAKE = """
import sys, types, importlib.abc, importlib.machinery
class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "torchaudio._extension" else None
    def exec_module(self, module):
        raise OSError("libc10_cuda.so: cannot open shared object file")
sys.meta_path.insert(0, Broken())
"""
USE = """
import torch
mel = ta.transforms.MelSpectrogram(8000, n_fft=256, n_mels=20)(torch.rand(1, 4000))
assert mel.shape == (1, 20, 32) and mel.isfinite().all()
code = ta.functional.mu_law_encoding(torch.tensor([-1.0, 0.0, 1.0]), 256)
assert code.tolist() == [0, 128, 255] and ta.functional.edit_distance("seven", "eleven") == 2
"""


def test_torchaudio_works_without_its_compiled_part():
    run(FAKE + """
try: import torchaudio
except OSError as error: assert "libc10_cuda" in str(error)
else: raise SystemExit("the fake is no good")
from helpers import get_torchaudio
ta = get_torchaudio()
assert ta is get_torchaudio() and sys.modules["torchaudio"] is ta
assert ta._extension._IS_TORCHAUDIO_EXT_AVAILABLE is False
""" + USE)


def test_a_healthy_torchaudio_is_left_alone():
    run("""
import sys, types
healthy = sys.modules["torchaudio"] = types.ModuleType("torchaudio")
from helpers import get_torchaudio
before = set(sys.modules)
assert get_torchaudio() is healthy and get_torchaudio() is healthy and set(sys.modules) == before
""")


def test_a_missing_torchaudio_is_an_import_error():
    run("""
import sys
sys.modules["torchaudio"] = None
from helpers import get_torchaudio
try: get_torchaudio()
except ImportError: pass
else: raise SystemExit("imported what is not there")
""")


def test_torchaudio_as_it_is_here():
    ta = get_torchaudio()
    exec(USE, {"ta": ta})
    assert get_torchaudio() is ta
