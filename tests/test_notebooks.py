"""Every notebook keeps the form that makes it readable, reproducible and provable."""

import ast
import itertools
import json
import re
import statistics
import tomllib

import pytest

from tests.book import IGNORE, ROOT, books

BOOKS = books()
LECTURES = [b for b in BOOKS if int(b.number) > 9]
SECTIONS = ["Try it", "Where the notes slip", "What it costs", "Exercises", "Exam", "Summary and references"]
each = pytest.mark.parametrize("book", BOOKS, ids=repr)
lecture = pytest.mark.parametrize("book", LECTURES, ids=repr)


def tags_of(cell):
    return cell.metadata.get("tags", [])


def outputs(book):
    return [(c, o) for c in book.executed.cells if c.cell_type == "code" for o in c.outputs]


def text_of(output):
    """What an output says in words (pictures left out)."""
    data = {k: v for k, v in output.get("data", {}).items() if k.startswith("text/")}
    return output.get("text", "") + json.dumps(data, ensure_ascii=False) + json.dumps(output.get("traceback", ""))


def test_there_are_notebooks():
    assert {"00", "43"} <= {b.number for b in BOOKS}
    assert sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb")) == [b.text.stem for b in BOOKS]


@each
def test_pair_is_in_sync(book):
    def content(cells):
        return [(c.cell_type, c.source, tags_of(c)) for c in cells]
    assert content(book.cells) == content(book.executed.cells), f"drift between text and notebook: make run NB={book.number}"


@each
def test_setup_cell_is_the_same_everywhere(book):
    assert book.code[0].source == BOOKS[0].code[0].source
    assert len(book.code[0].source.splitlines()) <= 12


@each
def test_opens_with_title_and_facts(book):
    first = book.cells[0].source
    assert re.match(rf"# {book.number} · \S", first)
    assert re.search(r"^\*\*Time\*\* .*\*\*Memory\*\* .*\*\*Data\*\* ", first, re.M), "the line of facts is missing"
    assert "colab-badge.svg" in first


@lecture
def test_sections_are_there_in_order(book):
    headings = re.findall(r"^## (.+)$", book.markdown, re.M)
    assert headings[0] == "Notation"
    assert headings[1].startswith("1. ")
    assert headings[-len(SECTIONS):] == SECTIONS
    numbered = [h for h in headings if re.match(r"\d", h)]
    assert [int(h.split(".")[0]) for h in numbered] == list(range(1, len(numbered) + 1))


@lecture
def test_order_of_the_first_code_cells(book):
    assert "sys.path.insert" in book.code[0].source
    assert tags_of(book.code[2]) == ["parameters"], "setup, imports, parameters: in this order"
    assert not re.search(r"import \*", "\n".join(c.source for c in book.code))
    for line in book.code[2].source.splitlines():
        assert re.match(r"[A-Z][A-Z_0-9]* = |#|$|\s", line), f"one parameter a line, or papermill does not know it: {line}"


@each
def test_equations_are_numbered_checked_and_proved(book):
    assert book.tags == [f"{book.number}.{k}" for k in range(1, len(book.tags) + 1)], "tags must be consecutive"
    unproved = set(book.tags) - {eq for eq, _ in book.checks}
    assert not unproved, f"equations without a check: {sorted(unproved)}"
    said = "".join(o.get("text", "") for _, o in outputs(book))
    silent = [eq for eq in book.tags if f"✓ ({eq})" not in said]
    assert not silent, f"no ✓ in the stored outputs: {silent}"
    assert {eq for eq, _ in book.checks} <= set(book.tags), "a check names an equation that is not on the page"


@each
def test_cells_are_short(book):
    lengths = sorted(len(c.source.splitlines()) for c in book.code)
    assert lengths[-1] <= 30
    assert lengths[int(0.9 * (len(lengths) - 1))] <= 20
    assert statistics.median(lengths) <= 6
    assert [line for c in book.code for line in c.source.splitlines() if len(line) > 100] == []


@lecture
def test_text_and_code_alternate(book):
    ratio = (len(book.cells) - len(book.code)) / len(book.code)
    assert 0.8 <= ratio <= 1.4, f"{ratio:.2f} markdown cells for a code cell"
    for before, cell in itertools.pairwise(book.cells):
        if before.cell_type == cell.cell_type == "code":
            assert re.search(r"\b(check|exercise)\(", cell.source), f"no sentence before the cell {cell.source[:60]!r}"


@each
def test_is_stored_as_executed(book):
    counts = [c.execution_count for c in book.executed.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), f"not executed from top to bottom: make run NB={book.number}"
    assert not [c.source[:60] for c, o in outputs(book) if o.output_type == "error"]
    assert "widgets" not in book.executed.metadata


@each
def test_outputs_are_the_same_on_every_machine(book):
    for cell, output in outputs(book):
        said = text_of(output)
        assert not re.search(r"0x[0-9a-f]{6,}", said), f"an address in {said[:200]}"
        assert not re.search(r"(?<![\w.])/(tmp|root|home|work|usr|opt|Users)/|[A-Z]:\\\\", said), f"a path in {said[:200]}"
        assert not re.search(r"cuda|NVIDIA|Tesla|device\(type", said), f"a device name in {said[:200]}"
        assert output.get("name") != "stderr", f"a warning or a log: {said[:200]}"
        assert "image/svg+xml" not in output.get("data", {}), "SVG figures are compared as text: use PNG"
        assert not any("widget" in kind for kind in output.get("data", {})), "a widget in a stored output"
        assert "no-output" not in tags_of(cell)


@each
def test_is_small(book):
    assert book.path.stat().st_size <= 700 * 1024


@lecture
def test_has_a_widget_in_a_cell_of_its_own(book):
    cells = [c for c in book.code if re.search(r"^(\w+ = )?(widgets\.)?(interact|interactive|display)\(", c.source, re.M)
             and IGNORE in tags_of(c) and "def " not in c.source]
    assert cells, "no widget cell"


@lecture
def test_reader_cells_do_not_break_the_tests(book):
    for cell in book.code:
        if re.search(r"^exercise\(", cell.source, re.M):
            assert IGNORE in tags_of(cell), f"a reader who solves this breaks nbval: {cell.source[:60]!r}"


@lecture
def test_exam_cells(book):
    cells = [c for c in book.cells if "exam" in tags_of(c)]
    promised = re.search(r"\*\*Exam questions\*\* ([\d, –-]+)", book.cells[0].source)[1]
    numbers = [n for part in re.findall(r"\d+(?:[–-]\d+)?", promised) for n in _range(part)]
    assert [int(re.match(r"### Question (\d+) · ", c.source)[1]) for c in cells] == numbers
    for cell in cells:
        for part in ("**По-русски.**", "<details><summary>Model answer</summary>", "**Кратко по-русски.**", "**Typical mistake.**"):
            assert part in cell.source, f"{part} is missing in {cell.source[:60]!r}"
        assert cell.source.rstrip().endswith("</details>")


def _range(part):
    low, *high = map(int, re.split("[–-]", part))
    return range(low, (high or [low])[0] + 1)


@each
def test_relative_links_lead_somewhere(book):
    for target in re.findall(r"\]\((?!https?://|mailto:|#)([^)\s]+)\)", book.markdown):
        path = (book.path.parent / target.split("#")[0]).resolve()
        assert path.exists() and ROOT in path.parents, f"dead link {target}"
        assert path.parent in (ROOT / "notebooks", ROOT / "data", ROOT), f"{target} would not work from work/"


@each
def test_names_nothing_of_one_machine(book):
    for where in (book.text, book.path):
        found = re.search(r"/work/|/tmp/|/root/|/home/|shared/real|house.style", where.read_text(encoding="utf-8"))
        assert not found, f"{where.name}: {found[0]}"


@each
def test_imports_are_declared(book):
    declared = {re.match(r"[\w-]+", d)[0].lower().replace("-", "_") for d in
                tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]}
    known = {"sklearn": "scikit_learn", "skimage": "scikit_image", "PIL": "pillow", "yaml": "pyyaml"}
    used = set()
    for node in itertools.chain(*(ast.walk(s) for s in book.statements)):
        if isinstance(node, ast.Import):
            used |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            used.add(node.module.split(".")[0])
    import sys
    outside = {known.get(u, u).lower() for u in used - set(sys.stdlib_module_names) - {"helpers", "IPython", "mpl_toolkits"}}
    assert outside <= declared, f"not in [project] dependencies: {sorted(outside - declared)}"


@lecture
def test_public_names_load_without_running_the_page(book):
    names = book.definitions()
    defined = [n.name for n in book.statements if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    assert len(defined) == len(set(defined)), f"defined twice: {sorted({n for n in defined if defined.count(n) > 1})}"
    assert all(n in names for n in defined)


@lecture
def test_every_exercise_is_solved_by_its_solution(book):
    asked = re.findall(r'^exercise\("([\d.A-Z]+)"', "\n".join(c.source for c in book.code), re.M)
    assert 3 <= len(asked) <= 6
    assert asked == [f"{book.number}.{letter}" for letter in "ABCDEF"[:len(asked)]]
    assert sorted(book.solutions) == asked, "an exercise without a model solution"
    calls = [n for n in book.statements if "exercise" in {getattr(getattr(c, "func", None), "id", "") for c in ast.walk(n)}
             and isinstance(n, ast.Expr)]
    namespace, said = book.run(book.needed(calls))
    for name in asked:
        assert f"… {name}: yours to write" in said
    stubs = {n.name for n in book.statements if isinstance(n, ast.FunctionDef) and "raise NotImplementedError" in ast.unparse(n)}
    for name, call in zip(asked, calls):
        stub, = stubs & {n.id for n in ast.walk(call) if isinstance(n, ast.Name)}
        solved = dict(namespace)
        exec(book.solutions[name], solved)
        assert solved[stub] is not namespace[stub], f"the solution of {name} does not define {stub}"
        assert f"✓ {name} solved" in book.run([call], solved)[1], f"the solution of {name} fails its own check"
