"""Notebook 00: what it promises to newcomers holds, on machines where something is missing as well."""

import ast
import csv
import importlib
import re
import sys
import types

import numpy as np
import pytest
import torch

from helpers.data import Ratings
from tests.book import ROOT, book, books, wrong_variant_tests
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


@pytest.mark.parametrize("old, new", [("LAM = 5.0", "LAM = 0.0"), ("LAM = 5.0", "LAM = 60.0"), ("DRAWS = 200_000", "DRAWS = 50"), ("MU = 0.38", "MU = 0.0"), ("SIGMA = 0.87", "SIGMA = 0.0"),
                                      ("STARS = [5.0, 4.5, 4.0, 5.0, 3.0]", "STARS = [2.0, 5.0]")])
def test_checks_hold_whatever_the_parameters_say(old, new):
    changed = BOOK.with_source(old, new)
    last = max(k for k, n in enumerate(changed.statements) if ast.unparse(n).startswith("check('00.2'"))
    said = changed.run(changed.statements[:last + 1])[1]
    assert said.count("✓ (00.") == 3 and ("• " in said or "○ not with these parameters" in said)


@pytest.mark.parametrize("shape, lam, says", [((3, 0), 1.0, "not 0, 1.0"), ((2, 3), -1.0, "not 3, -1.0"), ((0,), 0.0, "not 0, 0.0"),
                                              ((), 1.0, "not 0, 1.0"), ((3,), float("nan"), "not 3, nan")])
def test_shrunken_mean_refuses_what_has_no_answer(nb, shape, lam, says):
    with pytest.raises(ValueError, match=says):
        nb["shrunken_mean"](torch.ones(shape), lam)
    assert nb["shrunken_mean"](torch.ones(2, 3), 0.0).tolist() == [1.0, 1.0] and nb["shrunken_mean"](torch.ones(1), 1.0).item() == 0.5


def test_shrunken_mean_takes_what_people_have(nb):
    mean = nb["shrunken_mean"]
    assert mean([2.0, 4.0, 9.0], 2).item() == 3.0 and mean(np.array([[1, 2], [3, 4]]), 1.0).tolist() == [1.0, 7 / 3]
    assert mean(torch.full((2000,), 60.0, dtype=torch.float16), 0.0).item() == 60.0, "a sum in half precision would be infinite"


def test_the_terms_of_the_error_refuse_what_has_no_answer(nb):
    terms = nb["bias2_and_variance"]
    for lam, n in [(0.0, 0), (1.0, -1), (-1.0, 5), (np.array([1.0, -1.0]), 5), (float("nan"), 5)]:
        with pytest.raises(ValueError, match="at least one observation and lam >= 0"):
            terms(lam, n, 1.0, 1.0)
    assert terms(0.0, 1, 1.0, 3.0) == (0.0, 9.0)
    assert np.allclose(terms(np.array([0.0, 2.0]), 2, 1.0, 2.0), [[0, 0.25], [2, 0.5]])


CODE_1, CODE_2 = "return x.sum(-1) / (n + lam)", "return (lam * mu / (n + lam)) ** 2, n * sigma**2 / (n + lam) ** 2"
MUTANTS = [        # some of them are right where n = λ, as in the parameters cell
    *((CODE_1, f"return x.sum(-1) / ({wrong})", "00.1") for wrong in ("2 * lam + 1e-300", "2 * n", "10", "n + 2 * lam", "n - lam")),
    *((CODE_2, f"return {wrong}", "00.2") for wrong in (
        "(n * mu / (n + lam)) ** 2, n * sigma**2 / (n + lam) ** 2", "(lam * mu / (n + lam)) ** 2, lam * sigma**2 / (n + lam) ** 2",
        "(mu / 2) ** 2, n * sigma**2 / (n + lam) ** 2", "(lam * mu / (n + lam)) ** 2, sigma**2 / 20",
        "(lam * mu / (5 + lam)) ** 2, 5 * sigma**2 / (5 + lam) ** 2", "(lam * mu / (n + lam)) ** 2, n * sigma / (n + lam) ** 2")),
]
(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)


def three_ratings():
    """Two films; the first has three ratings, 5, 3, 1 in the order of their times but told out of it; the second has one."""
    item, value, time = [0, 0, 1, 0], [1.0, 5.0, 4.0, 3.0], [30, 10, 5, 20]
    return Ratings(torch.arange(4), torch.tensor(item), torch.tensor(value, dtype=torch.float64), torch.tensor(time), 4, 2)


def test_the_first_ratings_are_shown_and_the_later_hidden(nb):
    few, later, hidden = nb["few_and_later"](three_ratings(), 1, 1)
    assert few.tolist() == [[5.0]] and later.tolist() == [2.0] and hidden.tolist() == [2]
    few, later, hidden = nb["few_and_later"](three_ratings(), 2, 1)
    assert few.tolist() == [[5.0, 3.0]] and later.tolist() == [1.0] and hidden.tolist() == [1]


@pytest.mark.parametrize("old, new", [("later.append(values[n:].mean())", "later.append(values.mean())"),
                                      ("hidden.append(len(values) - n)", "hidden.append(len(values))")])
def test_the_page_notices_a_leak(old, new):
    leaky = BOOK.with_source(old, new)
    node, = [n for n in leaky.statements if "shown and hidden ratings together" in ast.unparse(n)]
    with pytest.raises(AssertionError, match="shown and hidden"):
        leaky.run(leaky.needed([node]))


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
    assert verdict({"numpy": said, "x": ""}).startswith("Missing, too old or broken: numpy.") and "make lab" in verdict({"numpy": said})
    assert verdict({"numpy": "", "y": ""}) == "Nothing is missing."
    said = verdict({"torchaudio": nb["GUARDED"]})
    assert "Nothing is missing" not in said and "through the guard" in said
    assert verdict({"z": "**missing**" + nb["OPTIONAL"]}) == "Nothing is missing. Not here, optional: z."


def test_the_report_tells_what_is_too_old(nb):
    assert all(re.fullmatch(r"[\w.-]+>=[\d.]+(,<[\d.]+)?", line) for line in nb["wanted_packages"](ROOT)), "state_of reads name>=version,<version"
    for kind, says in (("course", "**too old**, wanted >=99"), ("tools", "**too old**, wanted >=99"), ("optional", "**too old**, wanted >=99" + nb["OPTIONAL"])):
        assert nb["state_of"]("numpy>=99", kind)[1] == says
    assert nb["state_of"]("numpy>=1,<2", "course")[1] == "**too new**, wanted >=1,<2"
    assert nb["verdict"]({"numpy>=99": "**too old**, wanted >=99"}).startswith("Missing, too old or broken: numpy>=99.")
    older = nb["older"]
    assert older("1.25.9", "1.26") and older("2.1", "2.1.1") and older("4", "10")
    assert not any(older(have, wanted) for have, wanted in [("1.26.0", "1.26"), ("4", "4.0"), ("10.0", "9"), ("2.12.1+cpu", "2.12.1"), ("3.0rc1", "3.0")])


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
    for letter in "mRS":
        assert {r["letter"] for r in symbols(nb["notation"], letter)} == {letter}
    for name in ("lambda", r"\lambda", "λ"):
        assert {r["letter"] for r in symbols(nb["notation"], name)} == {"λ"}, name
    assert symbols(nb["notation"], "ы") == []


def test_what_the_page_says_of_the_others():
    """Sentences that go stale when a page is written or mended."""
    books_, said = books(), " ".join(BOOK.markdown.split())
    short = [b.number for b in books_ if "**Кратко по-русски.**" in b.markdown]
    assert f"(in {', '.join(short[:-1])} and {short[-1]} the Russian is shorter)" in said
    assert f"(в лекциях {', '.join(short[:-1])} и {short[-1]} русский ответ короче английского)" in said
    without = [b.number for b in books_ if not any(c.source.strip() == "break_it()" for c in b.code)]
    assert f"({', '.join(without[:-1])} and {without[-1]} not yet)" in said
    with open(ROOT / "data/course_map.csv", encoding="utf-8", newline="") as file:
        rows = {row["no"]: row for row in csv.DictReader(file)}
    early = {no for no, row in rows.items() if row["state"] == "ready" and any(rows[n]["state"] != "ready" for n in row["needs"].split())}
    assert early == set(re.findall(r"\((\d\d) can be read although", said)), "section 4 names the pages whose prerequisites are planned"
    assert BOOK.markdown.count("72 further questions") == 1 and sum(len(row["exam"].split()) for row in rows.values()) == 19 + 72


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
