"""Break every formula of a notebook, one place at a time, and see a check fail: `python -m tests.mutate 43 [function …]`.

Each public function and class is changed in one operator, number, index or transposition; then the notebook's checks run (with
what they depend on) in a process of their own. Survivors are printed: equivalent changes, or claims without a proof.
"""

import ast
import copy
import multiprocessing
import sys
import time

from tests.book import book

SWAP = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.MatMult: ast.Mult, ast.Lt: ast.LtE,
        ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Pow: ast.Mult,
        ast.And: ast.Or, ast.Or: ast.And, ast.FloorDiv: ast.Div}
OTHER = {"exp": "log", "log": "exp", "sum": "mean", "mean": "sum", "max": "min", "min": "max", "sin": "cos", "cos": "sin",
         "tanh": "sigmoid", "zeros_like": "ones_like", "ones_like": "zeros_like", "argmax": "argmin", "cumsum": "cumprod"}


def places(function):
    """All single changes of a function, as (description, changed copy)."""
    for k, node in enumerate(ast.walk(function)):
        for label, change in _changes(node):
            twin = copy.deepcopy(function)
            target = list(ast.walk(twin))[k]
            change(target)
            ast.fix_missing_locations(twin)
            try:
                compile(ast.Module([twin], []), "mutant", "exec")
            except (SyntaxError, ValueError):
                continue
            if ast.dump(twin) != ast.dump(function):
                yield f"{function.name}, line {getattr(node, 'lineno', function.lineno)}: {label}: {ast.unparse(node)[:70]}", twin


def _changes(node):
    def set_op(new):
        return lambda n: setattr(n, "op", new())

    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAP:
        yield f"{type(node.op).__name__} -> {SWAP[type(node.op)].__name__}", set_op(SWAP[type(node.op)])
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAP:
        yield "comparison", lambda n: setattr(n, "ops", [SWAP[type(n.ops[0])](), *n.ops[1:]])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign dropped", set_op(ast.UAdd)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} + 1", lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "not", lambda n: setattr(n, "value", not n.value)
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        yield "transposition dropped", lambda n: setattr(n, "attr", "real")
    if isinstance(node, ast.Attribute) and node.attr in OTHER:
        yield f"{node.attr} -> {OTHER[node.attr]}", lambda n: setattr(n, "attr", OTHER[n.attr])
    if isinstance(node, ast.Call) and len(node.args) == 2 and not node.keywords:
        yield "arguments swapped", lambda n: setattr(n, "args", n.args[::-1])
    if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.ctx, ast.Load):
        yield "pair swapped", lambda n: setattr(n, "elts", n.elts[::-1])


def _attempt(notebook, program, queue):
    import torch

    torch.set_num_threads(1)
    try:
        notebook.run(program)
        queue.put("survived")
    except BaseException as error:      # whatever stops the page has noticed the change
        queue.put(f"{type(error).__name__}: {' '.join(str(error).split())[:90]}")


def survivors(number, only=(), limit=180, report=print):
    """Descriptions of the changes that no check notices."""
    notebook = book(number)
    import torch  # noqa: F401  (once, before the processes are forked)

    program = notebook.needed([node for _, node in notebook.checks])
    functions = [n for n in program if isinstance(n, (ast.FunctionDef, ast.ClassDef))
                 and (n.name in only if only else not n.name.endswith(("_loop", "_wrong")))]
    alive, context = [], multiprocessing.get_context("fork")
    notebook.run(program)               # unbroken, it must pass: else every change would seem to be noticed
    for function in functions:
        for label, twin in places(function):
            queue, changed = context.Queue(), [twin if n is function else n for n in program]
            process, start = context.Process(target=_attempt, args=(notebook, changed, queue)), time.perf_counter()
            process.start()
            try:
                fate = queue.get(timeout=limit)
            except Exception:
                fate = f"stopped after {limit} s"
            process.kill()
            if fate == "survived":
                alive.append(label)
            report(f"{'SURVIVED' if fate == 'survived' else 'noticed '} {label}   [{fate}, {time.perf_counter() - start:.1f} s]",
                   flush=True)
    return alive


if __name__ == "__main__":
    left = survivors(sys.argv[1], sys.argv[2:])
    print(f"{len(left)} survivors", *left, sep="\n  ")
