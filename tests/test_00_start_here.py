"""Notebook 00: what it promises to newcomers holds, on machines where something is missing as well."""

import ast
import importlib
import re
import sys
import types

import pytest
import torch

from tests.book import ROOT, book
from tests.test_notebooks import EXERCISE, WIDGET, every_mistake_is_recognised, outputs, tags_of, text_of

BOOK = book("00")


@pytest.fixture(scope="module")
def nb():
    return BOOK.run(BOOK.statements)[0]


def test_the_loop_comes_before_the_map_and_the_page_is_short():
    assert len(BOOK.cells) <= 100
    kinds = {name: next(k for k, c in enumerate(BOOK.cells) if re.search(rx, c.source, re.M)) for name, rx in {
        "formula": r"\\tag\{00.1\}", "check": r"^check\(", "widget": WIDGET.pattern, "exercise": EXERCISE.pattern, "claim": r"^claim\(",
        "questions": "^## 3. The 19 official questions", "map": "^## 4. The map"}.items()}
    assert list(kinds) == sorted(kinds, key=kinds.get)
    assert kinds["widget"] <= len(BOOK.cells) / 5
    assert "Where to go next" in BOOK.cells[0].source
    for key in ("Shift+Enter", "Run All Cells", "Run All Above", "Interrupt", "make fresh NB=43"):
        assert key in BOOK.cells[1].source, key


def test_names_only_commands_that_exist():
    known = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"`make ([a-z]+)", BOOK.markdown)) <= set(known)


@pytest.mark.parametrize("name", ["00.A", "00.B"])
def test_exercises(name):
    calls = [n for n in BOOK.statements if f"exercise('{name}'" in ast.unparse(n)]
    namespace, said = BOOK.run(BOOK.needed([calls[0]]))
    assert f"… {name}: yours to write" in said
    stub = re.search(r"^def (\w+)", BOOK.solutions[name], re.M)[1]
    solved = dict(namespace)
    exec(BOOK.solutions[name], solved)
    assert f"✓ {name} solved" in BOOK.run([calls[0]], solved)[1]
    every_mistake_is_recognised(BOOK, name, calls[0], stub, namespace)
    assert re.search(rf"^### Exercise {name} · .+ · [●○]{{3}} · \d+ min$", BOOK.markdown, re.M)


@pytest.mark.parametrize("old, new", [("LAM = 5.0", "LAM = 0.0"), ("LAM = 5.0", "LAM = 60.0"), ("DRAWS = 200_000", "DRAWS = 50"), ("MU = 0.4", "MU = 0.0"),
                                      ("STARS = [5.0, 4.5, 4.0, 5.0, 3.0]", "STARS = [2.0, 5.0]")])
def test_checks_hold_whatever_the_parameters_say(old, new):
    changed = BOOK.with_source(old, new)
    last = max(k for k, n in enumerate(changed.statements) if ast.unparse(n).startswith("check('00.2'"))
    said = changed.run(changed.statements[:last + 1])[1]
    assert said.count("✓ (00.") == 3 and ("• " in said or "○ not with these parameters" in said)


@pytest.mark.parametrize("shape, lam, says", [((3, 0), 1.0, "not 0, 1.0"), ((2, 3), -1.0, "not 3, -1.0"), ((0,), 0.0, "not 0, 0.0")])
def test_shrunken_mean_refuses_what_has_no_answer(nb, shape, lam, says):
    with pytest.raises(ValueError, match=says):
        nb["shrunken_mean"](torch.ones(shape), lam)
    assert nb["shrunken_mean"](torch.ones(2, 3), 0.0).tolist() == [1.0, 1.0] and nb["shrunken_mean"](torch.ones(1), 1.0).item() == 0.5


def test_the_report_imports_in_earnest(nb, monkeypatch):
    state_of, verdict = nb["state_of"], nb["verdict"]
    wanted = nb["wanted_packages"](ROOT)
    assert wanted["torchaudio>=2.2"] == "course" and wanted["jupyterlab>=4.2"] == "tools"
    for requirement, kind in wanted.items():
        if kind == "course":
            version, said = state_of(requirement, kind)
            assert version[0].isdigit() and said in ("", nb["GUARDED"]), (requirement, said)
    assert state_of("no-such-package>=1", "course") == ("–", "**missing**")
    assert "optional" in state_of("no-such-package>=1", "optional")[1]

    def broken(name):
        raise OSError("libsomething.so: cannot open shared object file")

    monkeypatch.setitem(nb, "importlib", types.SimpleNamespace(import_module=broken, metadata=importlib.metadata))
    said = state_of("numpy>=1.26", "course")[1]
    assert said == "**cannot be imported**: OSError: libsomething.so: cannot open shared object file"
    assert verdict({"numpy": said, "x": ""}).startswith("Missing or broken: numpy.") and "make lab" in verdict({"numpy": said})
    assert verdict({"numpy": "", "y": ""}) == "Nothing is missing."
    said = verdict({"torchaudio": nb["GUARDED"]})
    assert "Nothing is missing" not in said and "through the guard" in said
    assert verdict({"z": "**missing**" + nb["OPTIONAL"]}) == "Nothing is missing. Not here, optional: z."


def test_the_report_says_that_torchaudio_works_through_the_guard(nb, monkeypatch):
    extension = types.ModuleType("torchaudio._extension")
    monkeypatch.setitem(sys.modules, "torchaudio._extension", extension)
    monkeypatch.setitem(nb, "get_torchaudio", lambda: types.ModuleType("torchaudio"))
    assert "guard" in nb["state_of"]("torchaudio>=2.2", "course")[1]
    extension.__file__ = "somewhere"
    assert nb["state_of"]("torchaudio>=2.2", "course")[1] == ""


def test_the_report_is_not_stored():
    cell, = [c for c in BOOK.executed.cells if c.cell_type == "code" and "print(verdict(" in c.source]
    assert cell.outputs == [] and "no-output" in tags_of(cell)


def test_reading_paths_list_prerequisites_first(nb):
    for no in nb["needs"]:
        path = nb["reading_path"](nb["needs"], no)
        assert path[-1] == no and len(path) == len(set(path))
        assert all(set(nb["needs"][n]) <= set(path[:k]) for k, n in enumerate(path))


def test_searches(nb):
    find = nb["find_terms"]
    assert find(nb["glossary"], "") == nb["glossary"]
    assert [t["en"] for t in find(nb["glossary"], "ОТЛОЖЕННЫМ объектом")] == ["leave-one-out split"]
    assert {t["notebook"] for t in find(nb["glossary"], "43")} == {"43"}
    assert find(nb["glossary"], "сверточная") == find(nb["glossary"], "свёрточная") != []
    symbols = nb["find_symbols"]
    assert {r["letter"] for r in symbols(nb["notation"], "τ")} == {"τ"} == {r["letter"] for r in symbols(nb["notation"], "tau")}
    assert all("16" in r["notebooks"].split() for r in symbols(nb["notation"], "16"))
    assert all("rating" in r["meaning"].lower() for r in symbols(nb["notation"], "rating"))


def test_everything_that_exists_is_linked():
    said = "".join(text_of(o) for _, o in outputs(BOOK))
    for row in (ROOT / "data/course_map.csv").read_text(encoding="utf-8").splitlines()[1:]:
        no, topic = row.split(",")[:2]
        assert (f"({no}_{topic}.ipynb)" in said) == (ROOT / f"notebooks/{no}_{topic}.ipynb").exists(), no
    for number in range(1, 20):
        assert re.search(rf"\| {number} \| .+[?.] \| .+[?.] \|", said.replace("\\n", "\n")), f"question {number} in words"


def test_drawing_code_is_folded():
    for cell in BOOK.code[:3]:
        assert "hide-input" in tags_of(cell)
    for cell in BOOK.code:
        if len(cell.source.splitlines()) > 10 and "plt." in cell.source:
            assert "hide-input" in tags_of(cell), cell.source[:60]
