"""Players inside the page, and torchaudio without its compiled part."""

import base64
import html
import io
import sys
import types

import numpy as np
import torch


def play(sounds, sample_rate=8000, codec="MP3"):
    """Show players for sounds; they stay inside the page (3 s are about 12 KB as MP3, 35 as FLAC, 64 as WAV at 8 kHz).

    sounds: dict title -> sound, or one sound: (T,) floats in [-1, 1], a tensor on any device, an array or a list.
    sample_rate: samples a second. codec: "MP3", or "FLAC", "WAV" (16 bits) where MP3's artefacts would drown what is to be heard.
    Raises ValueError for another shape or codec, values outside [-1, 1], NaN, or a rate that the codec does not know.
    """
    import soundfile
    from IPython.display import HTML, display

    if codec not in ("MP3", "FLAC", "WAV"):
        raise ValueError(f'codec must be "MP3", "FLAC" or "WAV", got {codec!r}')
    if isinstance(sounds, dict) and not sounds:
        raise ValueError("play needs at least one sound: {'title': sound}")
    players = []
    for title, sound in (sounds if isinstance(sounds, dict) else {"": sounds}).items():
        x = sound.detach().cpu().double().numpy() if isinstance(sound, torch.Tensor) else np.asarray(sound, dtype=np.float64)
        if x.ndim != 1 or not len(x) or not (np.abs(x) <= 1).all():
            what = f"values from {x.min():.3g} to {x.max():.3g}" if x.ndim == 1 and len(x) else f"shape {x.shape}"
            raise ValueError(f"a sound is (T,), T > 0, with values in [-1, 1]; {title!r} has {what}. "
                             "Divide by x.abs().max() (16-bit integers: by 32768); a batch is played one by one")
        file = io.BytesIO()
        try:
            soundfile.write(file, x, sample_rate, format=codec)
        except (soundfile.SoundFileError, TypeError) as error:
            raise ValueError(f"{codec} cannot hold {sample_rate!r} samples a second ({error}); try 8000 or 16000") from None
        kind = {"MP3": "mpeg", "FLAC": "flac", "WAV": "wav"}[codec]
        inside = base64.b64encode(file.getvalue()).decode()
        players.append(f'<figure style="margin: 4px"><figcaption>{html.escape(str(title))}</figcaption>'
                       f'<audio controls style="width: 240px" src="data:audio/{kind};base64,{inside}"></audio></figure>')
    display(HTML(f'<div style="display: flex; flex-wrap: wrap">{"".join(players)}</div>'))


def get_torchaudio():
    """The module torchaudio, also where its compiled part does not fit torch (a CUDA build beside a CPU torch: OSError).

    There, transforms, functional and datasets work; forced_align, rnnt_loss, load and save do not (read files by soundfile).
    A torchaudio that can be imported is left alone. Raises ImportError if it is not installed.
    """
    try:
        import torchaudio
    except OSError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        stub = types.ModuleType("torchaudio._extension")
        stub._IS_TORCHAUDIO_EXT_AVAILABLE = False
        stub.fail_if_no_align, stub._check_cuda_version = lambda f: f, lambda: None
        sys.modules["torchaudio._extension"] = stub
        import torchaudio
    return torchaudio
