"""Change one place of a page's functions and see which checks notice: behind break_it and the mutation sweep."""

import ast
import contextlib
import copy
import html
import io
import random
import re
import signal
import threading
import types

import numpy as np
import torch

from tools import program as p

SWAP = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.MatMult: ast.Mult, ast.Lt: ast.LtE,
        ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Pow: ast.Mult,
        ast.And: ast.Or, ast.Or: ast.And, ast.FloorDiv: ast.Div}
SIGN = {ast.Add: "+", ast.Sub: "−", ast.Mult: "*", ast.Div: "/", ast.MatMult: "@", ast.Pow: "**", ast.FloorDiv: "//",
        ast.And: "and", ast.Or: "or", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
OTHER = {"exp": "log", "log": "exp", "sum": "mean", "mean": "sum", "max": "min", "min": "max", "sin": "cos", "cos": "sin",
         "tanh": "sigmoid", "zeros_like": "ones_like", "ones_like": "zeros_like", "argmax": "argmin", "cumsum": "cumprod"}
NOT_SWAPPED = {"isinstance", "promote_types",
               "maximum", "minimum", "max", "min", "isclose", "allclose", "equal", "array_equal", "hypot"}
LIMIT = 6.0         # seconds that one statement may take inside a page


def places(function, guards=True):
    """All single changes of a function or class, as (description, changed copy). guards: those in `if …: raise` too."""
    guarded = {id(n) for part in ast.walk(function) if _is_guard(part) for n in ast.walk(part)}
    for k, node in enumerate(ast.walk(function)):
        if id(node) in guarded and not guards:
            continue
        for label, change in _changes(node):
            twin = copy.deepcopy(function)
            change(list(ast.walk(twin))[k])
            ast.fix_missing_locations(twin)
            try:
                compile(ast.Module([twin], []), "mutant", "exec")
            except (SyntaxError, ValueError):
                continue
            if ast.dump(twin) != ast.dump(function):
                line = getattr(node, "lineno", function.lineno) - function.lineno + 1
                yield f"{function.name}, line {line}: {label} in {ast.unparse(node)[:70]}", twin


def _is_guard(node):
    return isinstance(node, ast.Raise) or (isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise))


def _changes(node):
    def set_to(**fields):
        return lambda n: [setattr(n, k, v) for k, v in fields.items()]

    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAP:
        new = SWAP[type(node.op)]
        yield f"{SIGN[type(node.op)]} → {SIGN[new]}", set_to(op=new())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAP:
        new = SWAP[type(node.ops[0])]
        yield f"{SIGN[type(node.ops[0])]} → {SIGN[new]}", set_to(ops=[new(), *node.ops[1:]])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "minus dropped", set_to(op=ast.UAdd())
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} → {node.value + 1}", set_to(value=node.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield f"{node.value} → {not node.value}", set_to(value=not node.value)
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        yield "transposition dropped", set_to(attr="real")
    if isinstance(node, ast.Attribute) and node.attr in OTHER:
        yield f"{node.attr} → {OTHER[node.attr]}", set_to(attr=OTHER[node.attr])
    if isinstance(node, ast.Call) and len(node.args) == 2 and not node.keywords and \
            getattr(node.func, "attr", getattr(node.func, "id", "")) not in NOT_SWAPPED:
        yield "arguments swapped", lambda n: setattr(n, "args", n.args[::-1])
    if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.ctx, ast.Load):
        yield "pair swapped", lambda n: setattr(n, "elts", n.elts[::-1])


class Workbench:
    """A page that has run: its program and the names it left. Tries changes on copies and never touches the page's own state."""

    def __init__(self, program, namespace, limit=LIMIT):
        self.program, self.namespace, self.limit, self.known = program, namespace, limit, {}

    def functions(self):
        """Public functions and classes that at least one check depends on, by name."""
        proofs = [node for _, node in p.checks(self.program)]
        used = p.needed(self.program, proofs) if proofs else []
        return {n.name: n for n in used if p.is_definition(n) and not n.name.startswith(("_", "draw_"))
                and next(places(n, False), None)}

    def _plan(self, name):
        """What to run for a function, and the checks among it that pass unbroken, here and now, in time."""
        if name not in self.known:
            proofs = [node for _, node in p.checks(self.program)]
            chosen = p.affected(self.program, name, proofs)
            self.known[name] = chosen, self._execute(chosen, {})
        chosen, verdicts = self.known[name]
        good = [node for node, _, fate in verdicts if fate is None]
        wanted = chosen if good else []
        return wanted, good, [(eq, fate) for _, eq, fate in verdicts if fate is not None]

    def judge(self, name, twin, first=False):
        """[(equation, what the check says, None or how it failed)] with the function `name` replaced by `twin`; and what
        could not be judged. first: stop at the first check that fails."""
        wanted, good, left = self._plan(name)
        verdicts = self._execute(wanted, {name: twin}, first)
        return [(eq, _said(node, eq), fate) for node, eq, fate in verdicts if node in good], left

    def _execute(self, chosen, changed, first=False):
        """Run statements in a copy of the namespace; [(check statement, equation, None or how it failed)].

        What a statement that stops would have bound is lost to those after it; a check that fails leaves its names as they are.
        """
        import matplotlib.pyplot as plt

        space, equations = _copied(self.namespace, chosen), {}
        for eq, node in p.checks(chosen):
            equations.setdefault(id(node), []).append(eq)
        open_before, verdicts, lost = set(plt.get_fignums()), [], {}
        with _unmoved():
            for node in chosen:
                twin = changed.get(getattr(node, "name", None), node)
                broken = next((lost[n] for n in sorted(p.uses(node)) if n in lost), None)
                fate, failed = (broken, None) if broken else _attempt(twin, space, self.limit)
                if fate and not failed:
                    lost |= {n: fate for n in p.binds(node)}
                elif not fate:
                    lost = {n: why for n, why in lost.items() if n not in p.binds(node)}      # bound anew
                named = equations.get(id(node), [])
                verdicts += [(node, eq, fate) for eq in dict.fromkeys([failed] if failed in named else named)]
                if named and fate and first:
                    break
        for number in set(plt.get_fignums()) - open_before:
            plt.close(number)
        return verdicts


@contextlib.contextmanager
def _unmoved():
    """Leave the random generators and torch's defaults as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)


def _copied(namespace, chosen):
    """A copy of the namespace in which the data that the chosen statements use are copies too."""
    used = {name for node in chosen for name in p.uses(node)} & set(namespace)
    space = dict(namespace)
    fixed = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
    together = {name: namespace[name] for name in used if not isinstance(namespace[name], fixed)}
    memo, shared = {}, set()
    for name, value in together.items():
        try:
            space[name] = copy.deepcopy(value, memo)
        except Exception:       # what cannot be copied is shared: generators, open files, results inside a graph
            shared.add(name)
    for name in set(together) - shared if shared else ():
        if isinstance(together[name], torch.Tensor) and together[name].requires_grad:
            space[name] = together[name]            # a shared graph ends in the page's own leaves
    return space


def _attempt(node, space, limit):
    """Run one statement; (None or one line that says how it failed, the number that a failed check carries)."""
    code = compile(ast.Module([node], []), "<the changed page>", "exec")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), _alarm(limit):
            exec(code, space)
    except AssertionError as error:
        said = str(error).strip().splitlines()
        number = re.search(r"\((\d[\d.]*)\)", said[0]) if said else None
        return " · ".join(said[1:2] or said[:1]).strip() or "AssertionError", number[1] if number else "a claim"
    except TimeoutError:
        return f"took more than {limit:g} s here", None
    except Exception as error:      # whatever stops the page has noticed the change
        return f"stopped with {type(error).__name__}: {' '.join(str(error).split())[:90]}", None
    return None, None


@contextlib.contextmanager
def _alarm(seconds):
    """Stop what takes longer, where the system can (Unix, main thread)."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _said(node, eq):
    """The sentence of a statement's first check of an equation."""
    calls = [c for c in ast.walk(node) if isinstance(c, ast.Call) and getattr(c.func, "id", "") == "check"]
    text = next(c.args[1] for c in calls if ast.unparse(c.args[0]) == repr(eq))
    return text.value if isinstance(text, ast.Constant) else ast.unparse(text)


def table(bench, name, label, twin):
    """One try as HTML: the change, then every check that could notice it with ✓ or ✗ and by how much."""
    verdicts, left = bench.judge(name, twin)
    red = sum(fate is not None for *_, fate in verdicts)
    rows = "".join(f"<tr><td>{'✗' if fate else '✓'} ({eq})</td><td style='text-align:left'>{html.escape(text)}</td>"
                   f"<td style='text-align:left'>{html.escape(fate or '')}</td></tr>" for eq, text, fate in verdicts)
    end = f"<b>{red} of {len(verdicts)} checks noticed.</b>" if red else (
        "<b>No check noticed.</b> Either the change alters nothing that matters (can you say why?), or a proof is missing here.")
    slow = ", ".join(sorted({eq for eq, _ in left}))
    slow = slow and f"<br>Not tried again here, they need more of the page or more time: {slow}."
    return f"<p><code>{html.escape(label)}</code></p><p>{end}{slow}</p><table>{rows}</table>"
