"""Every notebook keeps the form that makes it readable, reproducible and provable. Its content has tests of its own.

Notebooks of the first edition (FIRST) keep their old order of sections until they are rebuilt.
"""

import ast
import itertools
import json
import re
import statistics
import tomllib

import pytest

from tests.book import IGNORE, ROOT, books

BOOKS = books()
FIRST = {"11", "12", "13", "16", "42"}              # first edition: to be rebuilt
LECTURES = [b for b in BOOKS if int(b.number) > 9]
OLD, NEW = ([b for b in LECTURES if (b.number in FIRST) == old] for old in (True, False))
SECTIONS = ["Where the notes slip", "What it costs", "Break it", "Exam", "Summary and references"]
OLD_SECTIONS = ["Try it", "Where the notes slip", "What it costs", "Exercises", "Exam", "Summary and references"]
WIDGET = re.compile(r"^(\w+ = )?(widgets\.)?(interact|interactive|display|break_it)\(", re.M)
EXERCISE = re.compile(r'^exercise\("(\d\d\.[A-Z])"', re.M)
each = pytest.mark.parametrize("book", BOOKS, ids=repr)
lecture = pytest.mark.parametrize("book", LECTURES, ids=repr)
old = pytest.mark.parametrize("book", OLD, ids=repr)
new = pytest.mark.parametrize("book", NEW, ids=repr)


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
    assert book.number in FIRST or re.search(r"^\*\*Reading\*\* \d+ min", first, re.M), "the line of facts starts with the reading time"
    assert re.search(r"^(\*\*Reading\*\* .*)?\*\*Time\*\* .*\*\*Memory\*\* .*\*\*Data\*\* ", first, re.M), "the line of facts is missing"
    assert "](https://colab.research.google.com/)" not in first, "a badge that leads nowhere"


@new
def test_sections_are_there_in_order(book):
    headings = re.findall(r"^## (.+)$", book.markdown, re.M)
    plain = [re.sub(r"^\d+\. ", "", h) for h in headings]
    assert headings[0].startswith("1. ") and plain[-len(SECTIONS):] == SECTIONS
    lectures = plain[:-len(SECTIONS)]
    assert lectures == sorted(lectures, key=lambda h: "☆" in h), "sections marked ☆ come last"
    numbered = [h for h in headings if re.match(r"\d", h)]
    assert [int(h.split(".")[0]) for h in numbered] == list(range(1, len(numbered) + 1))
    assert "**Exam route**" in book.cells[0].source


@each
def test_headings_hold_no_raw_formula(book):
    if book.number not in FIRST:
        assert not [h for h in re.findall(r"^#+ (.+)$", outside_code(book.markdown), re.M) if "$" in h], "the table of contents shows raw LaTeX"


@old
def test_sections_of_the_first_edition_are_there_in_order(book):
    headings = re.findall(r"^## (.+)$", book.markdown, re.M)
    assert headings[0] == "Notation"
    assert headings[1].startswith("1. ")
    assert headings[-len(OLD_SECTIONS):] == OLD_SECTIONS
    numbered = [h for h in headings if re.match(r"\d", h)]
    assert [int(h.split(".")[0]) for h in numbered] == list(range(1, len(numbered) + 1))


@lecture
def test_order_of_the_first_code_cells(book):
    assert "sys.path.insert" in book.code[0].source
    assert "parameters" in tags_of(book.code[2]), "setup, imports, parameters: in this order"
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
    assert statistics.median(lengths) <= 7
    assert [line for c in book.code for line in c.source.splitlines() if len(line) > 100] == []


def outside_code(markdown):
    return re.sub(r"```.*?```", "", markdown, flags=re.S)


def words_of(book):
    """Words of the text that everybody reads: without exam cells, folded parts, code and formulas."""
    text = "\n".join(c.source for c in book.cells if c.cell_type == "markdown" and "exam" not in tags_of(c))
    text = re.sub(r"<details>.*?</details>", "", outside_code(text), flags=re.S)
    return len(re.findall(r"[A-Za-zА-Яа-яё]{2,}|\b[aAI]\b", re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.S)))


@new
def test_a_page_is_a_lecture_of_60_to_90_minutes(book):
    assert len(book.cells) <= 240, "house style: aim at 200 cells, never over 240"
    assert words_of(book) <= 5500


@each
def test_no_text_begins_in_mid_sentence(book):
    """An edit that loses the first line of a cell leaves the rest of its sentence (two pages had that for days)."""
    starts = [c.source.lstrip()[:60] for c in book.cells if c.cell_type == "markdown"]
    assert [s for s in starts if s[:1].islower() and not s.startswith("scikit-")] == []


def never_shown(source):
    """Values that stand alone on a line before the last statement of a cell: Jupyter shows the last one only."""
    lost = [node.value for node in ast.parse(source).body[:-1] if isinstance(node, ast.Expr)]
    return [ast.unparse(v) for v in lost if isinstance(v, (ast.Name, ast.Attribute, ast.Subscript)) or ast.unparse(v).startswith("pd.")]


@each
def test_every_table_is_shown(book):
    """Two pages computed their main table in the middle of a cell, where nobody sees it."""
    assert [value for c in book.code for value in never_shown(c.source)] == []


def test_a_table_in_the_middle_of_a_cell_is_found():
    assert never_shown("pd.DataFrame(rows).T\nplay(x)") == ["pd.DataFrame(rows).T"]
    assert never_shown("board\nprint(1)") == ["board"]
    assert never_shown("print(1)\nplt.show()\nboard") == []


@each
def test_figures_of_full_runs_stand_on_one_line(book):
    """`make sync` fills a span on one line; one that runs over a line break would keep its old figure for ever."""
    broken = [line for c in book.cells if c.cell_type == "markdown" for line in c.source.splitlines()
              if line.count("<!--full:") != line.count("<!--/full-->")]
    assert broken == []


@each
def test_markdown_is_wrapped(book):
    if book.number not in FIRST:
        long = [line for c in book.cells if c.cell_type == "markdown" for line in c.source.splitlines()
                if len(line) > 110 and not line.lstrip().startswith(("|", "#", "$$", "**Time**", "**Reading**", "**Exam route**", "<!--", "<details>")) and "](" not in line and "\\tag" not in line]
        assert not long, f"longer than 110 characters: {long[0][:70]!r} and {len(long) - 1} more"


@new
def test_the_idea_comes_as_a_picture_first(book):
    early = [c for c in book.cells[:10] if c.cell_type == "code" and re.search(r"\b(scheme|plt|show_images)\b.*\(", c.source) and "import" not in c.source]
    assert early, "no picture within the first ten cells"


@new
def test_readers_are_active_from_the_start_to_the_end(book):
    widgets_at, exercises_at = ([k for k, c in enumerate(book.cells) if c.cell_type == "code" and rx.search(c.source)] for rx in (WIDGET, EXERCISE))
    fifth = len(book.cells) / 5
    assert len(widgets_at) >= 3, "at least two widgets a page, and break_it"
    assert widgets_at[0] <= fifth, f"the first widget comes at {widgets_at[0] / len(book.cells):.0%} of the page"
    assert exercises_at and exercises_at[0] <= fifth, f"the first exercise comes at {exercises_at[0] / len(book.cells):.0%} of the page"
    code_at = [k for k, c in enumerate(book.code) if EXERCISE.search(c.source)]
    gaps = [b - a for a, b in itertools.pairwise([0, *code_at])]
    assert max(gaps) <= 40, f"{max(gaps)} code cells without an exercise"


@new
def test_has_at_least_eight_figures(book):
    drawn = [o for _, o in outputs(book) if {"image/png", "image/jpeg"} & set(o.get("data", {}))]
    assert len(drawn) >= 8


@new
def test_setup_and_drawing_are_folded(book):
    for cell in book.code[:3]:
        assert "hide-input" in tags_of(cell), f"folded in JupyterLab: {cell.source[:50]!r}"
    for cell in book.executed.cells:
        if cell.cell_type == "code":
            hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            assert hidden == ("hide-input" in tags_of(cell)), f"make run NB={book.number} folds what is tagged: {cell.source[:50]!r}"
    for cell in book.code:
        if "plt.show()" in cell.source and "def " not in cell.source and len(cell.source.splitlines()) > 12:
            assert "hide-input" in tags_of(cell), f"drawing code of more than ten lines is folded: {cell.source[:50]!r}"


@each
def test_full_runs_are_not_in_default_outputs(book):
    assert not [o for _, o in outputs(book) if "full run" in text_of(o).lower()]


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
    limit = {"11": 900, "12": 1600}.get(book.number, 700)        # photos, not yet laid out anew
    assert book.path.stat().st_size <= limit * 1024


@lecture
def test_widgets_stand_in_cells_of_their_own(book):
    cells = [c for c in book.code if WIDGET.search(c.source)]
    assert cells, "no widget cell"
    for cell in cells:
        assert IGNORE in tags_of(cell) and "def " not in cell.source, f"a widget stands alone, tagged {IGNORE}: {cell.source[:60]!r}"


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
    short = "**Кратко по-русски.**"         # what first-edition pages may still have
    for cell in cells:
        russian = short if book.number in FIRST and short in cell.source else "**Ответ по-русски.**"
        for part in ("**По-русски.**", "<details><summary>Model answer</summary>", russian, "**Typical mistake.**"):
            assert part in cell.source, f"{part} is missing in {cell.source[:60]!r}"
        assert cell.source.rstrip().endswith("</details>")
        answer = cell.source.split(russian)[1].split("**Typical mistake.**")[0]
        assert len(re.findall(r"[а-яё]{2,}", answer, re.I)) >= 15, f"the Russian answer must be worth full marks alone: {cell.source[:60]!r}"


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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    always, extra = ({re.match(r"[\w-]+", d)[0].lower().replace("-", "_") for d in lines} for lines in
                     (project["dependencies"], sum(project["optional-dependencies"].values(), [])))
    known = {"faiss": "faiss_cpu", "ot": "pot", "sklearn": "scikit_learn", "skimage": "scikit_image", "PIL": "pillow", "yaml": "pyyaml",
             "torchcrf": "pytorch_crf", "pycrfsuite": "python_crfsuite"}
    used, at_once = set(), {id(n) for n in book.statements}
    for node in itertools.chain(*(ast.walk(s) for s in book.statements)):
        if isinstance(node, ast.Import):
            names = {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {node.module.split(".")[0]}
        else:
            continue
        used |= names
        assert id(node) not in at_once or not names & extra, f"an extra is imported in a function, where it is needed: {sorted(names)}"
    import sys
    outside = {known.get(u, u).lower() for u in used - set(sys.stdlib_module_names) - {"helpers", "IPython", "mpl_toolkits"}}
    assert outside <= always | extra, f"not in [project] dependencies: {sorted(outside - always - extra)}"


@lecture
def test_public_names_load_without_running_the_page(book):
    names = book.definitions()
    defined = [n.name for n in book.statements if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    assert len(defined) == len(set(defined)), f"defined twice: {sorted({n for n in defined if defined.count(n) > 1})}"
    assert all(n in names for n in defined)


@lecture
def test_every_exercise_is_solved_by_its_solution(book):
    asked = EXERCISE.findall("\n".join(c.source for c in book.code))
    least, most = (3, 6) if book.number in FIRST else (5, 8)
    assert least <= len(asked) <= most
    assert asked == [f"{book.number}.{letter}" for letter in "ABCDEFGH"[:len(asked)]]
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
        if book.number not in FIRST:
            every_mistake_is_recognised(book, name, call, stub, namespace)


def every_mistake_is_recognised(book, name, call, stub, namespace):
    """Each famous wrong answer, handed in as the reader's own, is refused and called by its name."""
    handed_in = {}

    def collect(name_, attempt, cases, *, atol=1e-6, mistakes=None):
        handed_in.update(mistakes or {})

    book.run([call], namespace | {"exercise": collect})
    assert handed_in, f"exercise {name} recognises no mistake"
    for sentence, wrong in handed_in.items():
        said = book.run([call], namespace | {stub: wrong})[1]
        assert f"✗ {name}" in said and f"Perhaps {sentence}" in said, f"{name}: the mistake {sentence!r} is not recognised: {said}"


@new
def test_exercise_cards(book):
    for name in EXERCISE.findall("\n".join(c.source for c in book.code)):
        card = re.search(rf"^### Exercise {re.escape(name)} · .+ · [●○]{{3}} · \d+ min$", book.markdown, re.M)
        assert card, f"no card '### Exercise {name} · Title · ●●○ · 10 min'"
    assert book.markdown.count("<summary>Hint 1</summary>") >= len(book.solutions)


@new
def test_thresholds_stand_next_to_the_trivial_answer(book):
    """A claim with a bound says what the trivial answer gives; `claim` itself demands that it fails."""
    for node in book.statements:
        for call in (c for c in ast.walk(node) if isinstance(c, ast.Call) and getattr(c.func, "id", "") == "claim"):
            names = {k.arg for k in call.keywords}
            if names & {"above", "below"}:
                assert "trivial" in names, f"{book}: {ast.unparse(call)[:90]}"


@new
def test_public_functions_have_docstrings(book):
    for node in book.statements:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and node.name in promised(book.number):
            assert ast.get_docstring(node), node.name


def promised(number):
    """Public names of the course map: what readers reuse."""
    import csv

    with open(ROOT / "data/course_map.csv", encoding="utf-8", newline="") as file:
        row = next((r for r in csv.DictReader(file) if number in r.values()), {})
    return set(re.findall(r"\w+", " ".join(str(v) for v in row.values())))
