"""The project around the notebooks: pins, README, commands, readers' copies, the lone notebook."""

import ast
import base64
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.book import ROOT, books
from tools import course

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def requirement_lines(path):
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


# --- what is installed ------------------------------------------------------------------------------------------------

def test_requirements_repeat_the_dependencies_as_ranges():
    lines = requirement_lines("requirements.txt")
    assert set(PYPROJECT["project"]["dependencies"]) <= set(lines)
    assert not [line for line in lines if "==" in line], "pins belong into constraints.txt"
    runtime = {name_of(d) for d in PYPROJECT["project"]["dependencies"]}
    assert not runtime & {"jupyterlab", "jupyter", "nbval", "pytest", "notebook"}, "a lone notebook must not install Jupyter"


def test_constraints_pin_everything_that_is_required():
    pins = {name_of(line): line for line in requirement_lines("constraints.txt")}
    assert {name_of(line) for line in requirement_lines("requirements.txt")} <= set(pins)
    assert all("==" in line for line in pins.values()) and "+" not in pins["torch"]
    assert not [p for p in pins if p.startswith("nvidia")]


def test_environment_yml_points_to_the_requirements():
    pip = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"][-1]["pip"]
    assert "-r requirements.txt" in pip


def test_a_lone_notebook_never_replaces_torch(tmp_path):
    from helpers.install import requirements
    here = {"torch": "2.8.0", "torchaudio": "2.8.0", "numpy": "2.0.1"}
    lines = requirements(ROOT / "pyproject.toml", here.get)
    assert "torch==2.8.0" in lines and "torchaudio==2.8.0" in lines and "numpy==2.0.1" in lines
    assert {name_of(line) for line in lines} == {name_of(d) for d in PYPROJECT["project"]["dependencies"]}
    without = requirements(ROOT / "pyproject.toml", {"torch": "2.8.0"}.get)
    assert "torchaudio" not in {name_of(line) for line in without}, "a newer torchaudio would bring another torch"
    assert set(requirements(ROOT / "pyproject.toml", {}.get)) == set(PYPROJECT["project"]["dependencies"])


def test_extras_are_pinned_and_installed_by_ci_alone():
    extras = sum(PYPROJECT["project"]["optional-dependencies"].values(), [])
    pins = {name_of(line) for line in requirement_lines("constraints.txt")}
    assert extras and {name_of(line) for line in extras} <= pins
    assert not {name_of(line) for line in requirement_lines("requirements.txt")} & {name_of(line) for line in extras}
    said = make("-n", "extras", "PY=" + sys.executable).stdout
    command = re.search(r"^.*pip install (?!.*-r ).*\$\((.*)\)$", said, re.M)[1]
    listed = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert listed == extras, "make extras installs every one of them"
    assert "extras" not in make("-n", "lab").stdout + make("-n", "test").stdout
    assert "make extras" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_where_ci_promised_the_extras_they_are_there():
    if not os.environ.get("COURSE_EXTRAS"):
        pytest.skip("COURSE_EXTRAS is not set: make extras has not been promised")
    assert importlib.util.find_spec("pyspark") and shutil.which("java"), "what needs Spark must run there"


# --- README -----------------------------------------------------------------------------------------------------------

def test_readme_table_is_true():
    rows = [line for line in README.splitlines() if re.match(r"\| \[\d\d · ", line)]
    assert rows == course.readme_rows(), "the table of notebooks is out of date: make sync"
    assert len(rows) == len(books())


def test_readme_rows_say_what_the_notebooks_say():
    for b, row in zip(books(), course.readme_rows()):
        topic, formulas, time, _, questions = [c.strip() for c in row.strip("|").split("|")]
        assert topic == f"[{b.cells[0].source.splitlines()[0][2:]}](notebooks/{b.path.name})"
        assert formulas == (f"{b.tags[0]}–{b.tags[-1]}" if len(b.tags) > 1 else "".join(b.tags) or "–")
        assert f"**Time** {time} on 2 CPU cores" in b.cells[0].source
        asked = [re.match(r"### Question (\d+)", c.source)[1] for c in b.cells if "exam" in c.metadata.get("tags", [])]
        assert (questions == "–") == (not asked)


def test_readme_links_and_commands_exist():
    for target in re.findall(r"\]\((?!https?://|#)([^)\s]+)\)", README):
        assert (ROOT / target.split("#")[0]).exists(), target
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"make ([a-z]+)\b", " ".join(re.findall(r"`([^`]*)`|```(?:.*?)```", README, re.S))))
    assert {"lab", "test", "extras", "run", "sync", "full", "help", "clean", "constraints", "stamp"} <= targets
    assert named <= targets | {"sure"}, named - targets


def test_data_readme_describes_every_bundled_file():
    about = (ROOT / "data/README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "data").iterdir()):
        if path.is_file() and path.name != "README.md":
            assert f"`{path.name}`" in about, path.name


def test_full_parameters_name_real_parameters():
    full = yaml.safe_load((ROOT / "notebooks/full.yaml").read_text(encoding="utf-8"))
    for b in books():
        cell = next((c for c in b.code if "parameters" in c.metadata.get("tags", [])), None)
        for name in full.get(b.number) or {}:
            assert cell and re.search(rf"^{name} *=", cell.source, re.M), f"full.yaml: {b.number} has no parameter {name}"
            small = ast.literal_eval(re.search(rf"^{name} *= *([^#\n]+)", cell.source, re.M)[1].strip())
            assert type(full[b.number][name]) is type(small), f"{b.number}: {name} is {small!r} here, {full[b.number][name]!r} in full.yaml"
    assert set(full) <= {b.number for b in books()}


def test_course_files_name_nothing_of_one_workplace():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in tracked or []:
        path = ROOT / name
        if path.is_file() and name not in (".ci/run", "tests/test_project.py", "tests/test_notebooks.py"):
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not re.search(r"/work/(main|shared|\.library)|/root/|shared/(real|course|design)", text), name


# --- make: pairs, copies, full runs -------------------------------------------------------------------------------------

@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A course of two notebooks and a reader's desk."""
    shelf, mine = tmp_path / "notebooks", tmp_path / "work"
    shelf.mkdir()
    (shelf / "text").mkdir()
    for name in ("00_a", "01_b"):
        write_notebook(shelf / f"{name}.ipynb", f"{name} v1")
        (shelf / f"text/{name}.py").write_text("# %%\n", encoding="utf-8")
    monkeypatch.setattr(course, "NOTEBOOKS", shelf)
    return shelf, mine


def write_notebook(path, source, **metadata):
    """A notebook of one cell; metadata is what JupyterLab adds when it opens one."""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, id="a")], metadata=metadata)
    path.write_text(nbformat.writes(nb), encoding="utf-8")


def source_of(path):
    return nbformat.read(path, 4).cells[0].source


def test_copies_are_made_and_refreshed(desk, capsys):
    shelf, mine = desk
    course.work(mine)
    assert source_of(mine / "00_a.ipynb") == "00_a v1"
    write_notebook(shelf / "00_a.ipynb", "v2")
    course.work(mine)
    assert source_of(mine / "00_a.ipynb") == "v2", "an untouched copy is refreshed"
    course.work(mine)
    assert capsys.readouterr().out == ""


def test_opening_a_notebook_is_no_change(desk, capsys):
    """JupyterLab writes metadata and outputs as soon as a notebook is opened and run."""
    shelf, mine = desk
    course.work(mine)
    write_notebook(mine / "00_a.ipynb", "00_a v1", language_info={"name": "python"}, kernelspec={"name": "python3", "display_name": "X"})
    write_notebook(shelf / "00_a.ipynb", "v2")
    course.work(mine)
    assert source_of(mine / "00_a.ipynb") == "v2" and capsys.readouterr().out == ""


def test_a_touched_copy_is_never_overwritten_and_the_newer_one_lies_beside_it(desk, capsys):
    shelf, mine = desk
    course.work(mine)
    write_notebook(mine / "00_a.ipynb", "my own work")
    course.work(mine)
    assert capsys.readouterr().out == "", "nothing new in the course: nothing to say"
    for version in ("v2", "v3"):
        write_notebook(shelf / "00_a.ipynb", version)
        course.work(mine)
        assert source_of(mine / "00_a.ipynb") == "my own work"
        assert source_of(mine / "00_a (new).ipynb") == version
        said = capsys.readouterr().out
        assert "work/00_a.ipynb has your changes" in said and "make fresh NB=00" in said
        course.work(mine)
        assert capsys.readouterr().out == "", "said once"
    assert source_of(mine / "01_b.ipynb") == "01_b v1"


def test_fresh_gives_the_courses_version_and_keeps_the_readers(desk, capsys):
    shelf, mine = desk
    course.work(mine)
    write_notebook(mine / "00_a.ipynb", "my own work")
    write_notebook(shelf / "00_a.ipynb", "v2")
    course.work(mine)
    course.fresh("00", mine)
    assert source_of(mine / "00_a.ipynb") == "v2" and not (mine / "00_a (new).ipynb").exists()
    kept, = mine.glob("00_a (2*).ipynb")
    assert source_of(kept) == "my own work" and kept.name in capsys.readouterr().out
    write_notebook(shelf / "00_a.ipynb", "v3")
    course.work(mine)
    assert source_of(mine / "00_a.ipynb") == "v3", "after that it is refreshed again"


@pytest.mark.parametrize("theirs", ["was here before", '{"cells": 3}', ""])
def test_a_file_that_the_course_did_not_put_there_is_the_readers(desk, capsys, theirs):
    shelf, mine = desk
    mine.mkdir()
    (mine / "00_a.ipynb").write_text(theirs, encoding="utf-8")
    course.work(mine)
    assert (mine / "00_a.ipynb").read_text(encoding="utf-8") == theirs
    assert "has your changes" in capsys.readouterr().out


@pytest.mark.parametrize("record", ["", "not json", "[]", None])
def test_without_its_record_a_copy_counts_as_touched(desk, record):
    shelf, mine = desk
    course.work(mine)
    (mine / ".copied.json").unlink() if record is None else (mine / ".copied.json").write_text(record, encoding="utf-8")
    write_notebook(mine / "00_a.ipynb", "my own work")
    write_notebook(shelf / "00_a.ipynb", "v2")
    course.work(mine)
    assert source_of(mine / "00_a.ipynb") == "my own work"


def test_a_copy_recorded_by_an_older_version_of_the_course_is_still_refreshed(desk):
    shelf, mine = desk
    course.work(mine)
    digest = hashlib.sha256((mine / "00_a.ipynb").read_bytes()).hexdigest()
    (mine / ".copied.json").write_text(json.dumps({"00_a.ipynb": digest}), encoding="utf-8")
    write_notebook(shelf / "00_a.ipynb", "v2")
    course.work(mine)
    assert source_of(mine / "00_a.ipynb") == "v2"


def test_what_cannot_be_written_is_said_in_a_sentence(desk, tmp_path):
    with pytest.raises(SystemExit, match="could not be written.*Free some space"):
        course.write(tmp_path / "missing/folder.txt", "x")
    assert not list(tmp_path.rglob("*.part"))


def test_an_unknown_notebook_is_named_with_the_choices():
    with pytest.raises(SystemExit, match="There is no notebook 77.*43"):
        course.text_of("77")
    with pytest.raises(SystemExit, match=r"Name one with NB=…: 00"):
        course.text_of("")


def tree_copy(target):
    """A git repository of the working tree as it is (tracked and new files), so that uncommitted work is tested too."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".venv", "work", "build", "cache", ".git", "__pycache__"))
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "as it stands"]):
        subprocess.run([*git, *command], cwd=target, check=True, capture_output=True)
    return target


def environment(**extra):
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "COURSE_REPO", "COURSE_DATA")}
    return clean | {"COURSE_QUIET": "1"} | extra


def execute_first_cells(path, n_cells, **extra):
    """Run the first n code cells of a notebook as Jupyter would, in its own folder; returns the printed text."""
    script = ("import sys, nbformat; from nbclient import NotebookClient\n"
              "nb = nbformat.read(sys.argv[1], 4); n = int(sys.argv[2])\n"
              "code = [c for c in nb.cells if c.cell_type == 'code'][:n]; nb.cells = code\n"
              "NotebookClient(nb, timeout=300, kernel_name='python3', resources={'metadata': {'path': '.'}}).execute()\n"
              "print(''.join(o.get('text', '') for c in nb.cells for o in c.outputs))")
    return subprocess.run([sys.executable, "-c", script, path.name, str(n_cells)], cwd=path.parent, env=environment(**extra),
                          capture_output=True, text=True)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return tree_copy(tmp_path_factory.mktemp("published"))


def test_a_lone_notebook_fetches_its_course(tmp_path, published):
    lone = tmp_path / "43_latent_factors.ipynb"
    shutil.copy(ROOT / "notebooks" / lone.name, lone)
    ran = execute_first_cells(lone, 12, COURSE_REPO=published.as_uri())
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "20,000 ratings" in ran.stdout
    assert (tmp_path / "course/helpers/checks.py").exists() and (tmp_path / "course/data/ratings.csv").exists()
    again = execute_first_cells(lone, 12, COURSE_REPO="file:///nowhere")
    assert again.returncode == 0, "the course beside it is found, nothing is fetched twice"


def test_a_lone_notebook_without_an_address_says_so(tmp_path):
    if course.address():
        pytest.skip("the address is set")
    lone = tmp_path / "43_latent_factors.ipynb"
    shutil.copy(ROOT / "notebooks" / lone.name, lone)
    ran = execute_first_cells(lone, 1)
    assert ran.returncode != 0 and "Where is the course?" in ran.stderr and "%env COURSE_REPO=" in ran.stderr


@pytest.mark.parametrize("folder", ["notebooks", "work", "work/deep/down"])
def test_the_course_is_found_from_below(published, folder):
    below = published / folder
    below.mkdir(parents=True, exist_ok=True)
    if folder != "notebooks":
        shutil.copy(ROOT / "notebooks/43_latent_factors.ipynb", below)
    ran = execute_first_cells(below / "43_latent_factors.ipynb", 12)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "20,000 ratings" in ran.stdout and not (below / "course").exists()


def test_stamping_reaches_the_setup_cells_and_nothing_else(published):
    pyproject = published / "pyproject.toml"
    before = {p: p.read_text(encoding="utf-8") for p in (published / "notebooks").rglob("*.*") if p.suffix in (".py", ".ipynb")}
    pyproject.write_text(re.sub(r'^Repository = ".*"', 'Repository = "https://github.com/some/course"', pyproject.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    subprocess.run([sys.executable, "tools/course.py", "stamp"], cwd=published, check=True, capture_output=True)
    for path, old in before.items():
        new = path.read_text(encoding="utf-8")
        assert 'COURSE_REPO\\") or \\"https://github.com/some/course' in new or 'COURSE_REPO") or "https://github.com/some/course"' in new
        back = re.sub(r"https://github\.com/some/course", course.address(), new)
        if not course.address():
            assert back == old
        if path.suffix == ".ipynb":
            nbformat.validate(nbformat.reads(new, as_version=4))


PARAMETERS = 'DATA = "bundled"\nN = 1\nK = 1.5'
SAYS = 'from helpers import measured\nmeasured("rmse", N / 3, 0.0123)\nprint(f"• {N} {K!r} {DATA}")'


def test_full_run_keeps_what_it_measured_and_leaves_the_committed_notebook_alone(published):
    """`make full` on a small notebook of its own, with parameters from full.yaml and from the command line."""
    setup = "import sys; sys.path.insert(0, '..')"
    (published / "notebooks/text/99_tiny.py").write_text(f'# %% tags=["parameters"]\n{PARAMETERS}\n\n# %%\n{setup}\n{SAYS}\n', encoding="utf-8")
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(f"{setup}\n{SAYS}")]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), published / "notebooks/99_tiny.ipynb")
    yaml_file, stored = published / "notebooks/full.yaml", published / "notebooks/full.json"
    yaml_file.write_text(yaml_file.read_text(encoding="utf-8") + '\n"99":\n  N: 20\n', encoding="utf-8")
    before = (published / "notebooks/99_tiny.ipynb").read_bytes()

    def full(*own, **extra):
        return subprocess.run([sys.executable, "tools/course.py", "full", "99", *own], cwd=published, capture_output=True, text=True,
                              encoding="utf-8", errors="replace", env=environment(**extra))
    ran = full("-p", "DATA", "ml-100k", "-p", "K", "1e-3")
    assert ran.returncode == 0, ran.stderr
    assert "• 20 0.001 ml-100k" in ran.stdout, "a number on the command line is a number"
    assert "99" not in course.json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else True, "parameters by hand are not kept"
    ran = full(PYTHONIOENCODING="cp1252")
    assert ran.returncode == 0, ran.stderr
    run = json.loads(stored.read_text(encoding="utf-8"))["99"]
    assert run["measured"] == {"rmse": {"value": pytest.approx(20 / 3), "error": 0.0123}} and run["parameters"] == {"N": 20}
    assert (published / "notebooks/99_tiny.ipynb").read_bytes() == before
    ran = full("-p", "LAMM", "3")
    assert ran.returncode != 0 and "no parameter LAMM. It has: DATA, N, K" in ran.stderr
    ran = full("-p", "N", "None")
    assert ran.returncode != 0 and ran.stderr.strip().splitlines()[-1].startswith("TypeError")
    for path in (published / "notebooks/99_tiny.ipynb", published / "notebooks/text/99_tiny.py"):
        path.unlink()


def test_full_run_figures_are_filled_not_typed(monkeypatch):
    run = {"43": {"seconds": 132, "hardware": "2 CPU cores", "measured": {"rmse": {"value": 0.91384, "error": 0.0041}, "n": {"value": 12000}}}}
    monkeypatch.setattr(course, "kept", lambda: run)
    text = "<!--full:43.rmse-->0.9<!--/full--> in <!--full:43.seconds-->?<!--/full--> s, <!--full:43.n-->?<!--/full-->, <!--full:44.x-->as it was<!--/full-->"
    assert re.sub(r"<!--.*?-->", "", course.filled(text)) == "0.914 ± 0.004 in 132 s, 12,000, as it was"
    assert course.filled(course.filled(text)) == course.filled(text)


@pytest.mark.parametrize("value, error, says", [(0.91384, 0.0041, "0.914 ± 0.004"), (103.68, 0.3, "103.7 ± 0.3"), (1.8864, 0.0042, "1.886 ± 0.004"),
                                                (27.2137, None, "27.21"), (0.16934, None, "0.169"), (0.95, 1e-16, "0.950"), (500.0, None, "500"), (0.0, None, "0")])
def test_figures_are_written_with_the_digits_that_count(value, error, says):
    assert course.shown(value, error) == says


def test_readme_and_pages_show_what_full_runs_measured():
    for path in [ROOT / "README.md", *course.texts()]:
        source = path.read_text(encoding="utf-8")
        assert course.filled(source) == source, f"{path.name}: make sync fills it from full.json"


def test_every_page_leads_to_its_neighbours():
    every = course.texts()
    for text in every:
        cells = [c for c in books()[every.index(text)].cells if c.cell_type == "markdown"]
        for cell in (cells[0], cells[-1]):
            assert course.navigation(text) in cell.source, f"make sync writes previous · map · next into {text.name}"


def test_run_stores_outputs_without_widget_state(published):
    text = published / "notebooks/text/98_run.py"
    text.write_text('# %% [markdown]\n# words\n\n# %% tags=["nbval-ignore-output"]\nfrom ipywidgets import interact\n\n'
                    'interact(lambda k: print(k), k=3);\n\n# %% tags=["hide-input"]\nprint("✓ done")\n\n# %% tags=["no-output"]\nprint("mine")\n\n'
                    '# %% tags=["nbval-ignore-output"]\nfrom IPython.display import display\nfrom ipywidgets import IntSlider\n'
                    'display({"text/plain": "a static twin"}, raw=True, metadata={"twin": True})\ndisplay(IntSlider())\n', encoding="utf-8")
    ran = subprocess.run([sys.executable, "tools/course.py", "run", "98"], cwd=published, capture_output=True, text=True, env=environment())
    assert ran.returncode == 0, ran.stderr
    stored = json.loads((published / "notebooks/98_run.ipynb").read_text(encoding="utf-8"))
    assert "widgets" not in stored["metadata"]
    assert [len(c.get("outputs", [])) for c in stored["cells"]] == [0, 0, 1, 0, 1]
    assert "".join(stored["cells"][-1]["outputs"][0]["data"]["text/plain"]) == "a static twin", "the widget goes, its twin stays"
    assert [c.get("execution_count") for c in stored["cells"] if c["cell_type"] == "code"] == [1, 2, 3, 4]
    assert [c["metadata"].get("jupyter") for c in stored["cells"]] == [None, None, {"source_hidden": True}, None, None]
    text.write_text(text.read_text(encoding="utf-8").replace('print("✓ done")', 'raise ValueError("no")'), encoding="utf-8")
    before = (published / "notebooks/98_run.ipynb").read_text(encoding="utf-8")
    ran = subprocess.run([sys.executable, "tools/course.py", "run", "98"], cwd=published, capture_output=True, text=True, env=environment())
    assert ran.returncode != 0 and "stopped with an error" in ran.stderr
    assert "✓ done" in before and '"output_type": "error"' not in (published / "notebooks/98_run.ipynb").read_text(encoding="utf-8")
    for path in (text, published / "notebooks/98_run.ipynb"):
        path.unlink()


def test_timings_of_a_busy_machine_are_not_stored(monkeypatch):
    monkeypatch.setattr(course.os, "getloadavg", lambda: (99.0, 9.0, 9.0), raising=False)
    monkeypatch.delenv("COURSE_LOADED", raising=False)
    with pytest.raises(SystemExit, match="busy.*FORCE=1"):
        course.run("43")


def test_drawings_are_packed_and_photos_stay_unharmed():
    photo = np.random.RandomState(0).randint(0, 256, (240, 320, 3)).astype(np.uint8)
    drawing = np.full((200, 300, 3), 255, np.uint8)
    drawing[50:52], drawing[:, 100:103], drawing[60:120, 150:250] = (30, 80, 140), (90, 90, 90), (200, 100, 30)
    for picture, packed in ((photo, False), (drawing, True)):
        raw = io.BytesIO()
        Image.fromarray(picture).save(raw, "png", compress_level=1)
        png = base64.b64encode(raw.getvalue()).decode()
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", {"image/png": png})])])
        stored = course.cleaned(nb).cells[0].outputs[0]["data"]["image/png"]
        assert (stored != png) == packed
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(stored))).convert("RGB"))
        assert np.array_equal(seen, picture)


# --- make itself --------------------------------------------------------------------------------------------------------

def make(*arguments, cwd=ROOT, **extra):
    return subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True, env=environment(**extra))


def test_make_help_lists_every_command():
    said = make("help").stdout
    for command in ("lab", "test", "extras", "run", "sync", "full", "fresh", "pdf", "mutate", "stamp", "constraints", "clean"):
        assert f"make {command}" in said


@pytest.mark.parametrize("python, message", [("no-such-python", "there is no 'no-such-python'"), ("./old-python", "tested with Python 3.11 to 3.13")])
def test_make_says_clearly_what_is_wrong(published, python, message):
    old = published / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.8.1\n[ "$1" = -V ]\n', encoding="utf-8")
    old.chmod(0o755)
    ran = make("lab", f"PYTHON={python}", cwd=published)
    assert ran.returncode != 0 and message in ran.stdout, ran.stdout + ran.stderr
    assert not (published / ".venv").exists()


def test_text_is_read_and_written_as_utf8():
    """On Windows the locale's encoding knows no Cyrillic and no ✓."""
    bare = []
    for path in (p for folder in ("helpers", "tools", "tests", "data") for p in (ROOT / folder).rglob("*.py")):
        for call in (n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)):
            name, said = getattr(call.func, "attr", ""), any(k.arg == "encoding" for k in call.keywords)
            if not said and (name == "read_text" and not call.args or name == "write_text" and len(call.args) < 2):
                bare.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert not bare
