"""The project around the notebooks: pins, README, commands, readers' copies, the lone notebook."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import nbformat
import pytest
import yaml

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
    pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
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
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"make ([a-z]+)\b", " ".join(re.findall(r"`([^`]*)`|```(?:.*?)```", README, re.S))))
    assert {"lab", "test", "run", "sync", "full", "help", "clean", "constraints", "stamp"} <= targets
    assert named <= targets | {"sure"}, named - targets


def test_data_readme_describes_every_bundled_file():
    about = (ROOT / "data/README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "data").iterdir()):
        if path.is_file() and path.name != "README.md":
            assert f"`{path.name}`" in about, path.name


def test_full_parameters_name_real_parameters():
    full = yaml.safe_load((ROOT / "notebooks/full.yaml").read_text())
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
    for name in ("00_a.ipynb", "01_b.ipynb"):
        (shelf / name).write_text(f"{name} v1")
    monkeypatch.setattr(course, "NOTEBOOKS", shelf)
    return shelf, mine


def test_copies_are_made_and_refreshed(desk, capsys):
    shelf, mine = desk
    course.work(mine)
    assert (mine / "00_a.ipynb").read_text() == "00_a.ipynb v1"
    (shelf / "00_a.ipynb").write_text("v2")
    course.work(mine)
    assert (mine / "00_a.ipynb").read_text() == "v2", "an untouched copy is refreshed"
    course.work(mine)
    assert capsys.readouterr().out == ""


def test_a_touched_copy_is_never_overwritten(desk, capsys):
    shelf, mine = desk
    course.work(mine)
    (mine / "00_a.ipynb").write_text("my own work")
    course.work(mine)
    assert capsys.readouterr().out == "", "nothing new in the course: nothing to say"
    for version in ("v2", "v3"):
        (shelf / "00_a.ipynb").write_text(version)
        course.work(mine)
        assert (mine / "00_a.ipynb").read_text() == "my own work"
        said = capsys.readouterr().out
        assert "work/00_a.ipynb has your changes" in said and "rename" in said and "notebooks/00_a.ipynb" in said
    assert (mine / "01_b.ipynb").read_text() == "01_b.ipynb v1"
    (mine / "00_a.ipynb").rename(mine / "00_mine.ipynb")
    course.work(mine)
    assert (mine / "00_a.ipynb").read_text() == "v3" and (mine / "00_mine.ipynb").read_text() == "my own work"


def test_a_file_that_the_course_did_not_put_there_is_the_readers(desk, capsys):
    shelf, mine = desk
    mine.mkdir()
    (mine / "00_a.ipynb").write_text("was here before")
    course.work(mine)
    assert (mine / "00_a.ipynb").read_text() == "was here before"
    assert "has your changes" in capsys.readouterr().out


@pytest.mark.parametrize("record", ["", "not json", "[]", None])
def test_without_its_record_a_copy_counts_as_touched(desk, record):
    shelf, mine = desk
    course.work(mine)
    (mine / ".copied.json").unlink() if record is None else (mine / ".copied.json").write_text(record)
    (mine / "00_a.ipynb").write_text("my own work")
    (shelf / "00_a.ipynb").write_text("v2")
    course.work(mine)
    assert (mine / "00_a.ipynb").read_text() == "my own work"


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
    ran = execute_first_cells(lone, 4, COURSE_REPO=published.as_uri())
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "20,000 ratings" in ran.stdout
    assert (tmp_path / "course/helpers/checks.py").exists() and (tmp_path / "course/data/ratings.csv").exists()
    again = execute_first_cells(lone, 4, COURSE_REPO="file:///nowhere")
    assert again.returncode == 0, "the course beside it is found, nothing is fetched twice"


def test_a_lone_notebook_without_an_address_says_so(tmp_path):
    if course.address():
        pytest.skip("the address is set")
    lone = tmp_path / "43_latent_factors.ipynb"
    shutil.copy(ROOT / "notebooks" / lone.name, lone)
    ran = execute_first_cells(lone, 1)
    assert ran.returncode != 0 and "COURSE_REPO" in ran.stderr and "address is not set" in ran.stderr


@pytest.mark.parametrize("folder", ["notebooks", "work", "work/deep/down"])
def test_the_course_is_found_from_below(published, folder):
    below = published / folder
    below.mkdir(parents=True, exist_ok=True)
    if folder != "notebooks":
        shutil.copy(ROOT / "notebooks/43_latent_factors.ipynb", below)
    ran = execute_first_cells(below / "43_latent_factors.ipynb", 4)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "20,000 ratings" in ran.stdout and not (below / "course").exists()


def test_stamping_reaches_cells_badges_and_nothing_else(published):
    pyproject = published / "pyproject.toml"
    before = {p: p.read_text() for p in (published / "notebooks").rglob("*.*") if p.suffix in (".py", ".ipynb")}
    pyproject.write_text(re.sub(r'^Repository = ".*"', 'Repository = "https://github.com/some/course"', pyproject.read_text(), flags=re.M))
    subprocess.run([sys.executable, "tools/course.py", "stamp"], cwd=published, check=True, capture_output=True)
    for path, old in before.items():
        new = path.read_text()
        assert 'COURSE_REPO\\") or \\"https://github.com/some/course' in new or 'COURSE_REPO") or "https://github.com/some/course"' in new
        assert f"colab.research.google.com/github/some/course/blob/main/notebooks/{path.stem}.ipynb" in new
        back = re.sub(r"https://github\.com/some/course", course.address(), new)
        back = re.sub(r"research\.google\.com/github/some/course/blob/main/notebooks/\w+\.ipynb", "research.google.com/", back)
        if not course.address():
            assert back == old
        if path.suffix == ".ipynb":
            nbformat.validate(nbformat.reads(new, as_version=4))


def test_full_run_leaves_the_committed_notebook_alone(published):
    """`make full` on a small notebook of its own, with a parameter from full.yaml and one from the command line."""
    text = published / "notebooks/text/99_tiny.py"
    text.write_text('# %% tags=["parameters"]\nDATA, N, K = "bundled", 1, 1\n\n# %%\nprint(f"full run: {N} {K} {DATA}")\n')
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('DATA, N, K = "bundled", 1, 1', metadata={"tags": ["parameters"]}),
                                         nbformat.v4.new_code_cell('print(f"full run: {N} {K} {DATA}")')],
                                  metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}})
    nbformat.write(nb, published / "notebooks/99_tiny.ipynb")
    full = published / "notebooks/full.yaml"
    full.write_text(full.read_text() + '\n"99":\n  N: 20\n')
    before = (published / "notebooks/99_tiny.ipynb").read_bytes()
    ran = subprocess.run([sys.executable, "tools/course.py", "full", "99", "-p", "DATA", "ml-100k", "-p", "K", "3"], cwd=published,
                         capture_output=True, text=True, env=environment())
    assert ran.returncode == 0, ran.stderr
    assert "full run: 20 3 ml-100k" in ran.stdout
    assert (published / "build/full/99_tiny.ipynb").exists()
    assert (published / "notebooks/99_tiny.ipynb").read_bytes() == before


def test_run_stores_outputs_without_widget_state(published):
    text = published / "notebooks/text/98_run.py"
    text.write_text('# %% [markdown]\n# words\n\n# %% tags=["nbval-ignore-output"]\nfrom ipywidgets import interact\n\n'
                    'interact(lambda k: print(k), k=3);\n\n# %%\nprint("✓ done")\n\n# %% tags=["no-output"]\nprint("mine")\n')
    ran = subprocess.run([sys.executable, "tools/course.py", "run", "98"], cwd=published, capture_output=True, text=True, env=environment())
    assert ran.returncode == 0, ran.stderr
    stored = json.loads((published / "notebooks/98_run.ipynb").read_text())
    assert "widgets" not in stored["metadata"]
    assert [len(c.get("outputs", [])) for c in stored["cells"]] == [0, 0, 1, 0]
    assert [c.get("execution_count") for c in stored["cells"] if c["cell_type"] == "code"] == [1, 2, 3]
    text.write_text(text.read_text().replace('print("✓ done")', 'raise ValueError("no")'))
    before = (published / "notebooks/98_run.ipynb").read_text()
    ran = subprocess.run([sys.executable, "tools/course.py", "run", "98"], cwd=published, capture_output=True, text=True, env=environment())
    assert ran.returncode != 0 and "stopped with an error" in ran.stderr
    assert "✓ done" in before and '"output_type": "error"' not in (published / "notebooks/98_run.ipynb").read_text()


# --- make itself --------------------------------------------------------------------------------------------------------

def make(*arguments, cwd=ROOT, **extra):
    return subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True, env=environment(**extra))


def test_make_help_lists_every_command():
    said = make("help").stdout
    for command in ("lab", "test", "run", "sync", "full", "stamp", "constraints", "clean"):
        assert f"make {command}" in said


@pytest.mark.parametrize("python, message", [("no-such-python", "there is no 'no-such-python'"), ("./old-python", "needs Python 3.11 or newer")])
def test_make_says_clearly_what_is_wrong(published, python, message):
    old = published / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.8.1\n[ "$1" = -V ]\n')
    old.chmod(0o755)
    ran = make("lab", f"PYTHON={python}", cwd=published)
    assert ran.returncode != 0 and message in ran.stdout, ran.stdout + ran.stderr
    assert not (published / ".venv").exists()
