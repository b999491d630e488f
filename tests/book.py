"""The notebooks as the tests see them: cells, equation tags, checks, exercises, and parts that run on their own."""

import ast
import contextlib
import copy
import io
import os
import re
from functools import cached_property
from pathlib import Path

import jupytext
import nbformat

from tools import program
from tools.breaking import Workbench

ROOT = Path(__file__).resolve().parents[1]
IGNORE = "nbval-ignore-output"
SOLUTION = re.compile(r"<summary>Solution (\d\d\.[A-Z])</summary>.*?```python\n(.*?)```", re.S)


class Book:
    """One notebook, read from its text (`cells`) and from its executed pair (`executed`)."""

    def __init__(self, text):
        self.text, self.number = Path(text), Path(text).name[:2]
        self.path = ROOT / "notebooks" / f"{self.text.stem}.ipynb"

    def __repr__(self):
        return self.text.stem

    @cached_property
    def cells(self):
        return jupytext.read(self.text).cells

    @cached_property
    def executed(self):
        return nbformat.read(self.path, as_version=4)

    @cached_property
    def code(self):
        return [c for c in self.cells if c.cell_type == "code"]

    @cached_property
    def markdown(self):
        return "\n\n".join(c.source for c in self.cells if c.cell_type == "markdown")

    @cached_property
    def tags(self):
        """Numbers of the tagged equations in order, ["43.1", …]."""
        return re.findall(r"\\tag\{([\d.]+)\}", self.markdown)

    @cached_property
    def statements(self):
        """Every top-level statement of the code, in order (widget cells and magics left out)."""
        return program.statements([c.source for c in self.code])

    @cached_property
    def checks(self):
        """(equation, statement) for every statement that contains a call of check."""
        return program.checks(self.statements)

    @cached_property
    def solutions(self):
        """{"43.A": code of the model solution}."""
        return dict(SOLUTION.findall(self.markdown))

    def needed(self, targets):
        """The statements that the target statements depend on, themselves included, in order: a static slice."""
        return program.needed(self.statements, targets)

    def run(self, statements, namespace=None):
        """Execute statements as the notebook would, in notebooks/; returns (namespace, what they printed).

        torch's default dtype is float32 at the start, as in a fresh kernel; what a notebook sets holds for its namespace only.
        """
        import matplotlib
        import matplotlib.pyplot
        import torch

        matplotlib.use("Agg")
        namespace = {"__name__": "__main__", "__builtins__": __builtins__} if namespace is None else namespace
        said, here, before = io.StringIO(), os.getcwd(), torch.get_default_dtype()
        torch.set_default_dtype(namespace.get("__default_dtype__", torch.float32))
        os.chdir(self.path.parent)
        try:
            with contextlib.redirect_stdout(said):
                for node in statements:
                    exec(compile(ast.Module([node], []), f"<{self}>", "exec"), namespace)
        finally:
            os.chdir(here)
            matplotlib.pyplot.close("all")
            namespace["__default_dtype__"] = torch.get_default_dtype()
            torch.set_default_dtype(before)
        return namespace, said.getvalue()

    def definitions(self):
        """Namespace of imports, functions, classes and upper-case constants, loaded without running the page."""
        kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
        wanted = [n for n in self.statements if isinstance(n, kinds) or
                  (isinstance(n, ast.Assign) and all(isinstance(t, ast.Name) and t.id.isupper() for t in n.targets)
                   and _is_literal(n.value))]
        return self.run(wanted)[0]

    def with_source(self, old, new):
        """A copy of the notebook with `old` replaced in its code; `old` must occur exactly once."""
        hits = [c for c in self.code if old in c.source]
        if len(hits) != 1 or hits[0].source.count(old) != 1:
            raise ValueError(f"{self}: {old!r} occurs in {len(hits)} cells; a mutation must hit exactly one place")
        twin = Book(self.text)
        twin.cells = copy.deepcopy(self.cells)
        for cell in twin.code:
            cell.source = cell.source.replace(old, new)
        return twin

    @cached_property
    def proved(self):
        """(namespace, what was printed) after a run of all checks with what they need, once in a process."""
        return self.run(self.needed([node for _, node in self.checks]))

    @cached_property
    def bench(self):
        """The page after a run of its checks, on which changes can be tried; torch's default type goes with it."""
        return Workbench(self.statements, self.proved[0], limit=60)

    def notices(self, old, new, eq):
        """Does a check of equation eq fail (or stop) when `old` is replaced by `new` in the code? Raises AssertionError if it fails unchanged.

        A change inside one function is tried on the state that the page left (fast); any other on a slice from the start.
        """
        twin = self.with_source(old, new)
        changed = [(a, b) for a, b in zip(self.statements, twin.statements) if ast.dump(a) != ast.dump(b)]
        if len(changed) == 1 and program.is_definition(changed[0][0]) and changed[0][0].name == changed[0][1].name:
            (before, after), = changed
            targets = [node for number, node in self.checks if number == eq]
            slices = [(target, program.affected(self.statements, before.name, [target])) for target in targets]
            for target, chosen in sorted(slices, key=lambda s: len(s[1])):         # the shortest slice first
                if target in chosen and not self._fails(chosen, before, target) and self._fails(chosen, after, target):
                    return True
        try:
            twin.run(twin.needed([node for number, node in twin.checks if number == eq]))
        except (AssertionError, ValueError, RuntimeError):
            return True
        return False

    def _fails(self, chosen, definition, target):
        import torch

        space, before = self.bench.namespace, torch.get_default_dtype()
        torch.set_default_dtype(space["__default_dtype__"])
        try:
            return any(fate for node, _, fate in self.bench._execute(chosen, {definition.name: definition}) if node is target)
        finally:
            torch.set_default_dtype(before)


def books():
    """All notebooks, in order; the mutation sweep puts its changed text (COURSE_MUTANT) in the place of one."""
    mutant = Path(os.environ.get("COURSE_MUTANT", "."))
    return [Book(mutant if p.name == mutant.name else p) for p in sorted((ROOT / "notebooks/text").glob("[0-9][0-9]_*.py"))]


def book(number):
    return next(b for b in books() if b.number == number)


def wrong_variant_tests(book, variants):
    """Three tests of a page with variants (old code, wrong code, equation): each is noticed by a check of its equation, unbroken
    the same checks pass (else a slice that fails for another reason would seem to notice), and every equation has a variant."""
    import pytest

    @pytest.mark.parametrize("old, new, eq", variants, ids=[f"{eq}-{k}" for k, (_, _, eq) in enumerate(variants)])
    def test_a_wrong_formula_fails_its_own_check(old, new, eq):
        assert book.notices(old, new, eq)

    def test_the_right_formulas_pass_the_same_slices():
        assert not [eq for eq in book.tags if f"✓ ({eq})" not in book.proved[1]]

    def test_every_equation_has_a_wrong_variant():
        assert {eq for *_, eq in variants} == set(book.tags)

    return test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices, test_every_equation_has_a_wrong_variant


def _is_literal(node):
    try:
        ast.literal_eval(node)
        return True
    except ValueError:
        return False
