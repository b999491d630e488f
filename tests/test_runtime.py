"""Device, seed, progress, timing, style and the size of helpers."""

import ast
import random
import time

import matplotlib
import numpy as np
import pytest
import torch

import helpers
from helpers import compare_speed, get_device, progress, seed, timed, use_style
from tests.book import ROOT


def test_device_is_overridden_by_the_environment(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert get_device() == torch.device("cpu")
    monkeypatch.delenv("COURSE_DEVICE")
    assert get_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu cpu", "7"])
def test_an_unusable_device_is_named(monkeypatch, name):
    monkeypatch.setenv("COURSE_DEVICE", name)
    with pytest.raises(ValueError, match="COURSE_DEVICE.*cpu, cuda"):
        get_device()


def test_seed_makes_all_three_generators_repeat():
    def draw():
        seed(7)
        return random.random(), np.random.rand(), torch.rand(1).item()
    assert draw() == draw()
    seed(8)
    assert random.random() != draw()[0]


@pytest.mark.parametrize("bad", [-1, 2**32, 1.5, "1", True, None])
def test_seed_refuses_what_is_no_seed(bad):
    with pytest.raises(ValueError, match="seed"):
        seed(bad)


def test_progress_yields_everything_and_is_quiet_under_tests(capfd):
    assert list(progress(range(5), desc="x")) == [0, 1, 2, 3, 4]
    assert capfd.readouterr() == ("", "")


def test_progress_shows_a_bar_to_readers(monkeypatch, capfd):
    monkeypatch.delenv("COURSE_QUIET", raising=False)
    assert list(progress(range(3), desc="reading")) == [0, 1, 2]
    assert "reading" in capfd.readouterr().err


def test_timed_is_the_median():
    naps = iter([0.0, 0.03, 0.001, 0.001, 0.001, 0.001])
    assert 0.0005 < timed(lambda: time.sleep(next(naps))) < 0.02
    with pytest.raises(ValueError, match="repeats"):
        timed(lambda: None, repeats=0)


def test_compare_speed_is_a_small_table():
    table = compare_speed({"ours": lambda: time.sleep(0.002), "slow": lambda: time.sleep(0.02)}, repeats=3)
    assert list(table.index) == ["ours", "slow"]
    assert table.loc["ours", "times the first"] == 1
    assert table.loc["slow", "times the first"] > 3
    assert 1.5 < table.loc["ours", "ms"] < 15
    with pytest.raises(ValueError, match="at least one"):
        compare_speed({})


def test_style_differs_in_greyscale():
    with matplotlib.rc_context():
        use_style()
        dashes = [str(style["linestyle"]) for style in matplotlib.rcParams["axes.prop_cycle"]]
        assert len(set(dashes)) == len(dashes)


def test_public_names_have_docstrings():
    for name in helpers.__all__:
        assert getattr(helpers, name).__doc__, name


def code_lines(source):
    """How many lines of a program hold code: no blank lines, comments or docstrings."""
    lines = {n for n, line in enumerate(source.splitlines(), 1) if line.strip() and not line.strip().startswith("#")}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_helpers_stay_thin():
    assert code_lines('"""Doc."""\n\n# why\ndef f():\n    """Doc\n    more."""\n    return 1\n') == 2
    assert sum(code_lines(p.read_text(encoding="utf-8")) for p in (ROOT / "helpers").rglob("*.py")) <= 1200


def test_importing_helpers_does_nothing():
    """No style, no seed, no thread setting, no output, no pyplot window system."""
    import subprocess
    import sys
    code = ("import sys, random, torch, numpy as np; random.seed(1); torch.manual_seed(1); np.random.seed(1); "
            "s = random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(); import helpers; "
            "assert s == (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()); "
            "assert 'matplotlib.pyplot' not in sys.modules")
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_figures_appear_where_the_environment_asks_for_agg(monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("MPLBACKEND", "Agg")
    source = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom helpers import use_style\nuse_style()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (source, "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")])
    nbclient.NotebookClient(notebook, timeout=120).execute()
    assert "image/png" in notebook.cells[1].outputs[-1]["data"]
