"""Device, seed, figure style, progress bars and timing."""

import json
import os
import random
import statistics
import sys
import time

import numpy as np
import pandas as pd
import torch
from cycler import cycler
from tqdm.auto import tqdm


def get_device():
    """The torch.device to compute on: cuda if there is one, else cpu; `COURSE_DEVICE` (cpu, cuda, cuda:1, mps) overrides.

    Raises ValueError if COURSE_DEVICE names a device that is unknown or not on this machine. mps is never chosen by
    itself: it has no float64, in which the identities of the course are checked.
    """
    wanted = os.environ.get("COURSE_DEVICE", "").strip()
    if not wanted:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(f"COURSE_DEVICE={wanted!r} cannot be used here ({str(error).splitlines()[0]}); "
                         "unset it, or set it to cpu, cuda, cuda:N or mps") from None
    return device


def seed(n):
    """Seed Python's, numpy's and torch's (all devices') random generators with the integer n, 0 <= n < 2**32."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 0 <= n < 2**32:
        raise ValueError(f"a seed is an integer from 0 to 2**32 - 1, got {n!r}")
    random.seed(int(n))
    np.random.seed(int(n))
    torch.manual_seed(int(n))


def use_style():
    """The figure style of the course: sharp PNG, quiet axes, lines that differ in greyscale (colour and dash)."""
    import matplotlib.pyplot as plt

    colours = ["#1b4f8f", "#d1601f", "#3d8a4f", "#8b2f6b", "#6b6b6b", "#b8960c"]
    dashes = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))]
    plt.rcParams.update({
        "figure.figsize": (6.4, 3.4), "figure.dpi": 90, "savefig.dpi": "figure", "figure.constrained_layout.use": True,
        "font.size": 10, "axes.titlesize": 10.5, "axes.labelsize": 10, "legend.fontsize": 9, "legend.frameon": False,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd",
        "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.8, "image.cmap": "viridis",
        "axes.prop_cycle": cycler(color=colours) + cycler(linestyle=dashes)})
    shell = "IPython" in sys.modules and sys.modules["IPython"].get_ipython()
    if shell:
        if hasattr(shell, "kernel") and plt.get_backend().lower() == "agg":     # MPLBACKEND=Agg would show no figure at all
            shell.enable_matplotlib("inline")
        from matplotlib_inline.backend_inline import set_matplotlib_formats
        set_matplotlib_formats("retina")


def show_images(images, columns=None, width=2.2):
    """Draw images in rows of `columns` (default: one row), without axes; the caller ends with `plt.show()`.

    images: dict title -> tensor or array (3, H, W), (1, H, W) or (H, W), on any device: bytes (uint8) from 0 to 255, or numbers
        from 0 to 1, clipped outside.
    width: of one image, in inches. Returns the matplotlib figure.
    """
    import matplotlib.pyplot as plt

    if not images:
        raise ValueError("show_images needs at least one image: {'title': tensor}")
    images = {title: torch.as_tensor(x) for title, x in images.items()}
    for title, x in images.items():
        if x.ndim != 2 and (x.ndim != 3 or x.shape[0] not in (1, 3)):
            raise ValueError(f"an image is (3, H, W), (1, H, W) or (H, W); {title!r} is {tuple(x.shape)}")
    columns = columns or len(images)
    rows, (h, w) = -(-len(images) // columns), x.shape[-2:]
    fig, axes = plt.subplots(rows, columns, figsize=(width * columns, rows * (width * h / w + 0.3)), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, (title, x) in zip(axes.flat, images.items()):
        x = ((x / 255 if x.dtype == torch.uint8 else x).detach().float().cpu()).clamp(0, 1).numpy()
        x = x.transpose(1, 2, 0) if x.ndim == 3 and len(x) == 3 else x.reshape(x.shape[-2:])
        ax.imshow(x, cmap="gray" if x.ndim == 2 else None, vmin=0, vmax=1, interpolation="none")
        ax.set_title(title)
    return fig


def _quiet():
    return bool(os.environ.get("COURSE_QUIET"))


def progress(iterable, desc=None, total=None, **options):
    """`iterable` with a tqdm progress bar that vanishes when done; silent when COURSE_QUIET is set, as tests do."""
    return tqdm(iterable, desc=desc, total=total, disable=_quiet(), leave=False, **options)


def _synchronise():
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _once(fn, args):
    _synchronise()
    start = time.perf_counter()
    fn(*args)
    _synchronise()
    return time.perf_counter() - start


def timed(fn, *args, repeats=5, warmup=1):
    """Median wall-clock seconds of `fn(*args)` over `repeats` runs after `warmup` unmeasured ones, CUDA-synchronised."""
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats must be at least 1 and warmup at least 0, got {repeats} and {warmup}")
    for _ in range(warmup):
        fn(*args)
    return statistics.median(_once(fn, args) for _ in range(repeats))


def compare_speed(functions, repeats=5, warmup=1):
    """Time functions without arguments against the first of them, in turns so that a noisy machine hurts all alike.

    functions: dict name -> function. Returns a DataFrame indexed by name: median `ms`, `times the first` (median ratio to
    the first function's run of the same round: 2.0 means twice as slow as the first).
    """
    if not functions:
        raise ValueError("compare_speed needs at least one function: {'ours': f, 'library': g}")
    for fn in functions.values():
        timed(fn, repeats=1, warmup=max(warmup - 1, 0))
    rounds = pd.DataFrame([{name: _once(fn, ()) for name, fn in functions.items()} for _ in range(repeats)])
    ratio = rounds.div(rounds.iloc[:, 0], axis=0)
    return pd.DataFrame({"ms": rounds.median().mul(1e3).round(3), "times the first": ratio.median().round(2)})


def measured(key, value, error=None):
    """Record a figure of a full run (`make full`), which README and pages are filled from; silent in a default run.

    key: "rmse", unique in its notebook. value: a number; error: its standard error or deviation, if there is one.
    """
    target = os.environ.get("COURSE_FULL")
    if target:
        record = {"key": str(key), "value": float(value), "error": None if error is None else float(error)}
        with open(target, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"full run: {key} = {record['value']:.6g}" + ("" if error is None else f" ± {record['error']:.2g}"))
