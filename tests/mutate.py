"""Break every function of a notebook, one place at a time, and see a check or a test fail: `make mutate NB=43 [ARGS="-k als"]`.

Each change of tools/breaking.py is tried in three steps, the fastest first: the checks that the function reaches, on a copy of the
page's state; then the tests of its functions and exercises; then the page's claims, with the checks that the first step could not
judge, from the start. What all three leave alone is a survivor: an equivalent change (tests/equivalents.yaml holds those that a person has confirmed, with the reason), or a gap.
Functions that draw (draw_…) are looked at, not proved. Results go to build/mutants/NB.jsonl line by line: a sweep that was stopped goes on where it was. Changed code is tried anew.
"""

import argparse
import ast
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

from tests.book import ROOT, book
from tools import program as p
from tools.breaking import Workbench, places

SKIP = "not wrong_formula and not right_formulas"      # these break the page themselves, and take minutes
EQUIVALENT = ROOT / "tests/equivalents.yaml"


def key_of(notebook, label, twin):
    """A name for a change that stays as long as the function and the change stay."""
    return f"{notebook.number}:{hashlib.sha256((label + ast.dump(twin)).encode()).hexdigest()[:12]}"


def in_child(function, seconds):
    """function() in a forked process: what it returns, or a sentence if it stops or takes too long."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def work():
        torch.set_num_threads(1)
        sys.stdout = sys.stderr = open(os.devnull, "w")
        try:
            queue.put(function())
        except BaseException as error:      # whatever stops the page has noticed the change
            queue.put(f"{type(error).__name__}: {' '.join(str(error).split())[:90]}")

    child = context.Process(target=work, daemon=True)
    child.start()
    try:
        return queue.get(timeout=seconds)
    except Exception:
        return f"stopped after {seconds} s"
    finally:
        child.kill()


def on_the_bench(bench, name, twin):
    """The first check that fails on a copy of the page's state, or None."""
    verdicts, _ = bench.judge(name, twin, first=True)
    return next((f"({eq}) {fate}" for eq, _, fate in verdicts if fate), None)


def claims(notebook):
    """The statements that contain a claim: they stop the page as a check does."""
    return [n for n in notebook.statements if not p.is_definition(n) and
            any(isinstance(c, ast.Call) and getattr(c.func, "id", "") == "claim" for c in ast.walk(n))]


def from_the_start(notebook, node, twin, proofs):
    """None if these statements all hold with the changed function."""
    notebook.run([twin if n is node else n for n in notebook.needed(proofs)])


def by_the_tests(notebook, node, twin):
    """Which of the notebook's own tests fails with the changed function, or None. For a forked process: the change travels as text."""
    cell = next(c for c in notebook.code if any(ast.dump(n) == ast.dump(node) for n in ast.parse(c.source).body))
    old = next(n for n in ast.parse(cell.source).body if ast.dump(n) == ast.dump(node))
    first = min([old.lineno, *(d.lineno for d in old.decorator_list)]) - 1
    lines = cell.source.splitlines()
    broken = "\n".join([*lines[:first], ast.unparse(twin), *lines[old.end_lineno:]])
    text = notebook.text.read_text(encoding="utf-8")
    assert text.count(cell.source) == 1
    failed = []

    class Ear:
        def pytest_runtest_logreport(self, report):
            failed.extend([report.nodeid] * report.failed)

    number = notebook.number
    own = sorted(map(str, ROOT.glob(f"tests/test_{number}_*.py")))
    shared = ["tests/test_notebooks.py::test_every_exercise_is_solved_by_its_solution", "tests/test_probes.py"]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "notebooks/text", notebook.text.name)
        target.parent.mkdir(parents=True)
        target.write_text(text.replace(cell.source, broken), encoding="utf-8")
        os.environ["COURSE_MUTANT"] = str(target)
        torch.set_default_dtype(torch.float32)
        for name in [n for n in sys.modules if n.startswith("tests.test_")]:      # they hold the unchanged page
            del sys.modules[name]
        for which, files in ((SKIP, own), (f"{number}_ or {number}-", shared)):
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", which, *files], plugins=[Ear()]) if files else 0
            if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                return (failed or ["the tests stopped"])[0]
    return None


def sweep(number, only="", jobs=2, seconds=120, tests=True, report=print):
    """Try every change of a notebook's functions; returns {key: (description, fate)}, fate None for a survivor."""
    notebook = book(number)
    proofs = [node for _, node in notebook.checks]
    functions = [n for n in notebook.needed(proofs) if p.is_definition(n) and only in n.name and not n.name.endswith("_wrong") and not n.name.startswith("draw_")]
    log = ROOT / "build/mutants" / f"{number}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    done = {r["key"]: r for r in map(json.loads, log.read_text(encoding="utf-8").splitlines())} if log.exists() else {}
    space, _ = notebook.run(notebook.needed(proofs))          # unbroken, it must pass: else every change would seem noticed
    torch.set_default_dtype(space["__default_dtype__"])
    bench = Workbench(notebook.statements, space, limit=seconds)

    patience = seconds
    if tests and functions:
        start = time.perf_counter()
        fate = in_child(lambda: by_the_tests(notebook, functions[0], functions[0]), 10 * seconds)
        patience = max(seconds, 10 * (time.perf_counter() - start))        # a crowded machine is not a noticed change
        assert fate is None, f"the tests of {number} fail with nothing changed, every change would seem noticed: {fate}"

    def one(node, label, twin):
        start = time.perf_counter()
        fate = in_child(lambda: on_the_bench(bench, node.name, twin), seconds)
        fate = fate or (in_child(lambda: by_the_tests(notebook, node, twin), patience) if tests else None)
        everything = bench.known[node.name][1] and not any(fate for *_, fate in bench.known[node.name][1])
        rest = claims(notebook) + ([] if everything else proofs)
        fate = fate or in_child(lambda: from_the_start(notebook, node, twin, rest), patience)
        return fate, time.perf_counter() - start

    found = {}
    with ThreadPoolExecutor(jobs) as pool, open(log, "a", encoding="utf-8") as out:
        for node in functions:
            todo = [(key_of(notebook, label, twin), label, twin) for label, twin in places(node)]
            if any(key not in done for key, *_ in todo):
                bench._plan(node.name)                        # the unbroken run, once, before the forks
            fates = pool.map(lambda t, node=node: (t, done[t[0]]) if t[0] in done else (t, one(node, t[1], t[2])), todo)
            for (key, label, _), result in fates:
                if key not in done:
                    result = {"key": key, "change": label, "fate": result[0], "seconds": round(result[1], 1)}
                    out.write(json.dumps(result, ensure_ascii=False) + "\n")
                    out.flush()
                found[key] = result["change"], result["fate"]
                report(f"{'noticed ' if result['fate'] else 'SURVIVED'} {key} {label}   [{result['fate']}, {result['seconds']} s]", flush=True)
    return found


def score(number, found):
    """(noticed, equivalent, open survivors) of a sweep; equivalents are those that a person confirmed."""
    confirmed = (yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.exists() else None) or {}
    survivors = {key: change for key, (change, fate) in found.items() if not fate}
    return len(found) - len(survivors), [k for k in survivors if k in confirmed], {k: c for k, c in survivors.items() if k not in confirmed}


def main():
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number")
    parser.add_argument("-k", default="", help="only functions whose name contains this")
    parser.add_argument("-j", type=int, default=2, help="processes at once")
    parser.add_argument("--seconds", type=int, default=120, help="limit for one change")
    parser.add_argument("--no-tests", action="store_true", help="only the page's checks")
    a = parser.parse_args()
    noticed, equivalent, left = score(a.number, sweep(a.number, a.k, a.j, a.seconds, not a.no_tests))
    print(f"{a.number}: {noticed} noticed, {len(equivalent)} equivalent (confirmed in {EQUIVALENT.name}), {len(left)} open; "
          f"score {noticed / max(noticed + len(left), 1):.1%} of the changes that are not equivalent")
    print(*(f"  {key}: {change}" for key, change in left.items()), sep="\n")


if __name__ == "__main__":
    main()
