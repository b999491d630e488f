"""The workbench behind break_it and the mutation sweep, on a small page of its own."""

import ast
import os
import random

import numpy as np
import pytest
import torch

from helpers import break_it, check
from tests.book import book
from tests.mutate import by_the_tests, in_child, key_of, score
from tools import program as p
from tools.breaking import Workbench, places, table

TINY = '''
# %% [markdown]
# # A page
# %%
import torch
g = torch.Generator().manual_seed(1)
x = torch.randn(5, generator=g)
# %%
def square(x):
    if x.ndim != 1:
        raise ValueError("one dimension")
    return x * x
def norm(x):
    """Root of the sum of squares."""
    return square(x).sum() ** 0.5
def idle(x):
    return x + 0 * x.sum()
# %%
total, calls = square(x).sum(), []
calls.append(total)
check("1.1", "squares", square(x), x**2)
# %%
y = torch.randn(5, generator=g)
check("1.2", "the norm is torch's", norm(y), y.norm(), rtol=1e-6)
# %% tags=["x"]
x = 2 * y          # the name is used anew
check("1.2", "the norm is homogeneous", norm(x), 2 * norm(y), rtol=1e-6)
check("1.3", "another thing", x, 2 * y)
check("1.4", "nothing is added", idle(y), y)
for v in (x, y):
    check("1.5", "kept", idle(v), v)
    check("1.6", "the square of a double", square(2 * v), 4 * square(v))
for v in (x,):
    check("1.7", "nothing of it", v, 2 * y)
# %%
leaf = torch.arange(3.0, requires_grad=True)
doubled = 2 * leaf                                  # a result inside a graph cannot be copied
def half_square(x):
    return x * x / 2
# %%
check("1.8", "the gradient", torch.autograd.grad(half_square(doubled).sum(), leaf, retain_graph=True)[0], 4 * leaf)
'''


@pytest.fixture
def page(capsys):
    program = p.statements(p.code_cells(TINY))
    space = {"check": check}
    for node in program:
        exec(compile(ast.Module([node], []), "page", "exec"), space)
    capsys.readouterr()
    return program, space


def broken(program, name, part):
    node = next(n for n in program if getattr(n, "name", "") == name)
    return next((label, twin) for label, twin in places(node) if part in label)


def test_code_cells_are_read_from_the_text():
    for b in (book("43"), book("00")):
        ours = [ast.dump(n) for n in p.statements(p.code_cells(b.text.read_text(encoding="utf-8")))]
        assert ours == [ast.dump(n) for n in b.statements]


def test_the_checks_that_notice_turn_red_and_the_others_stay(page):
    bench = Workbench(*page)
    label, twin = broken(page[0], "square", "* → /")
    assert label == "square, line 4: * → / in x * x"
    verdicts, left = bench.judge("square", twin)
    assert [eq for eq, *_ in verdicts][:3] == ["1.1", "1.2", "1.2"] and not left
    assert not {"1.3", "1.4"} & {eq for eq, *_ in verdicts}, "these do not depend on it"
    assert verdicts[0][1] == "squares" and "largest absolute error" in verdicts[0][2]
    assert "largest absolute error" in verdicts[1][2]
    verdicts, _ = bench.judge("norm", broken(page[0], "norm", "0.5 → 1.5")[1])
    assert [bool(fate) for *_, fate in verdicts] == [True, True]


def test_a_failed_check_is_told_by_its_own_number_and_spoils_no_other(page):
    bench = Workbench(*page)
    verdicts, _ = bench.judge("square", ast.parse("def square(x):\n    return x**3").body[0])
    fates = {eq: fate for eq, _, fate in verdicts}
    assert fates["1.6"] and "1.5" not in fates, "the check that failed first; what comes after it in the same loop is not known"
    assert "1.7" not in fates or not fates["1.7"], "the loop's name was bound all the same"
    verdicts, _ = bench.judge("idle", ast.parse("def idle(x):\n    return x + 1").body[0])
    assert {eq for eq, _, fate in verdicts if fate} == {"1.4", "1.5"}


def test_an_unbroken_function_stays_green(page):
    bench = Workbench(*page)
    for name, node in bench.functions().items():
        verdicts, left = bench.judge(name, node)
        assert verdicts and not left and not [fate for *_, fate in verdicts if fate]


def test_the_page_itself_is_never_touched(page):
    program, space = page
    before = {k: (v, v.clone() if isinstance(v, torch.Tensor) else None) for k, v in space.items()}
    calls, states = list(space["calls"]), (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    drawn = space["g"].get_state()
    bench = Workbench(program, space)
    for name, node in bench.functions().items():
        for _, twin in places(node):
            bench.judge(name, twin)
    assert set(space) == set(before) and space["calls"] == calls
    assert all(space[k] is v and (copy is None or torch.equal(v, copy)) for k, (v, copy) in before.items())
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert torch.equal(space["g"].get_state(), drawn)


def test_a_gradient_is_tried_again_inside_the_pages_graph(page):
    bench = Workbench(*page)
    (eq, said, fate), = bench.judge("half_square", broken(page[0], "half_square", "2 → 3")[1])[0]
    assert (eq, said) == ("1.8", "the gradient") and "largest absolute error" in fate


def test_a_change_that_nothing_notices_is_shown_as_such(page):
    bench = Workbench(*page)
    label, twin = broken(page[0], "idle", "sum → mean")
    assert "No check noticed" in table(bench, "idle", label, twin)
    label, twin = broken(page[0], "idle", "0 → 1")
    assert "2 of 3 checks noticed" in table(bench, "idle", label, twin)


def test_what_takes_too_long_is_stopped_and_said(page):
    program, space = page
    bench = Workbench(program, space, limit=0.3)
    endless = ast.parse("def norm(x):\n    while True:\n        pass").body[0]
    verdicts, _ = bench.judge("norm", endless)
    assert verdicts[0][2] == "took more than 0.3 s here"


def test_first_stops_at_the_first_failure(page):
    bench = Workbench(*page)
    assert len(bench.judge("square", broken(page[0], "square", "* → /")[1], first=True)[0]) == 1


def test_changes_of_refusals_are_offered_to_the_sweep_only(page):
    node = next(n for n in page[0] if getattr(n, "name", "") == "square")
    every, offered = ([label for label, _ in places(node, guards)] for guards in (True, False))
    assert any("!= → ==" in label for label in every) and not any("!= → ==" in label for label in offered)
    assert set(offered) < set(every)


@pytest.mark.parametrize("source, change", [
    ("a + b", "a - b"), ("a * b", "a / b"), ("a @ b", "a * b"), ("a < b", "a <= b"), ("-a", "+a"), ("a.mT", "a.real"), ("a.sum(0)", "a.mean(0)"),
    ("a.sum(0)", "a.sum(1)"), ("f(a, b)", "f(b, a)"), ("(a, b)", "(b, a)"), ("a and b", "a or b"), ("f(k=True)", "f(k=False)"), ("a ** 2", "a * 2")])
def test_the_changes(source, change):
    node = ast.parse(f"def f(a, b):\n    return {source}").body[0]
    assert change in [ast.unparse(twin.body[0].value) for _, twin in places(node)]


def test_break_it_wants_a_page():
    with pytest.raises(RuntimeError, match='PAGE = "43"'):
        break_it()


def test_the_sweep_keeps_score():
    found = {"43:a": ("change a", "noticed"), "43:b": ("change b", None), "43:c": ("change c", None)}
    import tests.mutate as m
    assert score("43", found)[0] == 1
    known = m.yaml.safe_load(m.EQUIVALENT.read_text(encoding="utf-8")) if m.EQUIVALENT.exists() else {}
    assert all(isinstance(reason, str) and len(reason) > 20 for reason in (known or {}).values()), "an equivalent needs its reason"


def test_a_change_travels_into_the_tests_of_its_notebook(tmp_path):
    b = book("43")
    node = next(n for n in b.statements if getattr(n, "name", "") == "solve_user")
    label, twin = next((label, twin) for label, twin in places(node) if "@ → *" in label)
    assert key_of(b, label, twin) != key_of(b, label, node)
    assert in_child(lambda: by_the_tests(b, node, twin), 120).startswith("tests/test_43")
    assert "COURSE_MUTANT" not in os.environ, "the change stays in its process"
