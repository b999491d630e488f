"""`check` proves an equation, `claim` states what data showed, `exercise` marks a reader's function. Each prints one line."""

import ast
import copy
import dis
import linecache
import re
import reprlib
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
COURSE = Path(__file__).resolve().parents[1]


class CheckFailed(AssertionError):
    """A claim of the course does not hold here; the message says by how much and where."""


def check(eq, claim, ours, reference=None, *, atol=0.0, rtol=0.0, above=None, below=None):
    """Print `✓ (eq) claim` if `ours` agrees with `reference`, else raise: for what proves a numbered equation.

    eq: number of the equation, "43.2". claim: what is being proved, one sentence.
    ours, reference: numbers, (nested) lists, numpy arrays or tensors of one and the same shape; they are
        compared in float64 on the CPU (complex values in complex128): |ours - reference| <= atol + rtol |reference|
        everywhere. Without tolerances they must be equal, integers exactly. NaN never passes, an empty array neither.
        Without `reference`, `ours` is a bare condition: a bool, or an array of bools that must all hold.
    above, below: instead of a reference, bounds (numbers, or arrays of the shape of `ours`): above < ours < below everywhere.
    Raises CheckFailed (an AssertionError) with the largest absolute and relative error, where they are and both
        values there; TypeError for what cannot be compared; ValueError for a negative tolerance.
    """
    head = f"({eq}) {' '.join(str(claim).split())}"
    problem = _problem(head, ours, reference, atol, rtol, above, below)
    if problem:
        raise CheckFailed(f"✗ {head}\n  {problem}")
    print(f"✓ {head}")


def claim(text, ours, reference=None, *, atol=0.0, rtol=0.0, above=None, below=None, trivial=None):
    """Print `• text` if what data, training or a figure showed holds: compared as by `check`, but it proves no equation.

    trivial: what a trivial answer (the mean image, a random list, doing nothing) would put in the place of `ours`. It is
        compared in the same way and must fail, else the threshold says nothing: CheckFailed.
    When a claim is false, its values are shown. With the parameters of the committed page, or those of its full run, that
    is CheckFailed; a reader who has changed the parameters cell gets one line beginning with `○`, and the page goes on.
    A page names itself by `PAGE = "43"`; without that, a false claim always raises.
    """
    head = " ".join(str(text).split())
    how = reference, atol, rtol, above, below
    problem = _problem(head, ours, *how)
    if not problem and trivial is not None and not _problem(head, trivial, *how):
        problem = "the trivial answer passes too: this threshold shows nothing"
    if not problem:
        print(f"• {head}")
    elif _parameters_changed(sys._getframe(1).f_globals):
        print(f"○ not with these parameters: {head} ({problem.splitlines()[0]})")
    else:
        raise CheckFailed(f"✗ {head}\n  {problem}")


def exercise(name, attempt, cases, *, atol=1e-6, mistakes=None):
    """Run a reader's function on test cases and print how it stands; never raises for the reader's errors.

    name: "43.A". attempt: the function. cases: sequence of (args, expected), `args` a tuple; every case gets a copy
    of its arguments. expected: a number, string, bool, array, tensor, or a tuple/list of these. atol: absolute tolerance.
    mistakes: dict sentence -> function that makes this famous mistake ("you summed over all items, not over I_u"); an
    attempt that answers every case as it does is told so. A mistake that passes all cases is a ValueError.
    Prints `… 43.A: yours to write` while the stub raises its own NotImplementedError, `✓ 43.A solved (3 cases)`, or the first
    case that fails with its arguments, what was expected and what came back.
    """
    cases = list(cases)
    if not cases:
        raise ValueError(f"exercise {name}: no cases, so nothing could ever fail")
    for sentence, wrong in (mistakes or {}).items():
        if all(_verdict(wrong, args, expected, atol) is None for args, expected in cases):
            raise ValueError(f"exercise {name}: no case refuses the mistake {sentence!r}")
    for number, (args, expected) in enumerate(cases, 1):
        problem = _verdict(attempt, args, expected, atol)
        if problem is NotImplemented:
            print(f"… {name}: yours to write (written it? run the cell of your function first)")
            return
        if problem:
            known = [s for s, wrong in (mistakes or {}).items() if all(_alike(attempt, wrong, a, atol) for a, _ in cases)]
            print(f"✗ {name}, case {number} of {len(cases)}: {problem}\n  the arguments: {_short(args)}" +
                  (f"\n  Perhaps {known[0]}." if known else ""))
            return
    print(f"✓ {name} solved ({len(cases)} cases)")


def _verdict(attempt, args, expected, atol):
    """None if the attempt answers this case rightly, NotImplemented for an untouched stub, else what is wrong, in one line."""
    try:
        got = attempt(*copy.deepcopy(args))
    except Exception as error:      # a reader's bug of any kind becomes one readable line
        if isinstance(error, NotImplementedError) and _raised_by(error, attempt):
            return NotImplemented
        return f"your function stopped with {type(error).__name__}: {error}{_line_of(error)}"
    if got is None and expected is not None:
        return f"expected {_short(expected)}, got None: the function must end with `return`, printing is not enough"
    return _unequal(got, expected, atol)


def _raised_by(error, attempt):
    """Was the error raised by a `raise` statement of the attempt itself (and not by a library that it called)?"""
    frames = list(traceback.walk_tb(error.__traceback__))
    frame, last = frames[-1][0], error.__traceback__
    while last.tb_next:
        last = last.tb_next
    raises = frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raises and frame.f_code is getattr(attempt, "__code__", frame.f_code)


def _alike(attempt, wrong, args, atol):
    """Do two functions answer alike, errors included?"""
    answers = []
    for function in (attempt, wrong):
        try:
            answers.append(function(*copy.deepcopy(args)))
        except Exception as error:
            answers.append(type(error).__name__)
    try:
        return _unequal(*map(_without_nan, answers), atol) is None
    except Exception:       # two answers that cannot be compared are not alike
        return False


def _without_nan(answer):
    """The answer with a number for each NaN: two functions that stumble over the same 0/0 are alike."""
    if isinstance(answer, tuple):
        return tuple(map(_without_nan, answer))
    if isinstance(answer, (float, torch.Tensor, np.ndarray, np.floating)) and not _is_flag(answer):
        return np.nan_to_num(_array(answer, "answer", "exercise"), nan=1.2345e6)
    return answer


def _parameters_changed(page):
    """Has the reader of the page with these globals changed its parameters cell? (Full-size parameters count as unchanged.)"""
    committed, full = _parameters(page.get("PAGE"))
    return bool(committed) and not any(all(page.get(k) == v for k, v in known.items()) for known in (committed, committed | full))


@cache
def _parameters(number):
    """The parameters of a page as committed, and those that its full run changes: two dicts, empty if they cannot be found."""
    import yaml

    try:
        text = next((COURSE / "notebooks/text").glob(f"{number}_*.py")).read_text(encoding="utf-8")
        cell = re.split(r'# %% tags=\[.*"parameters".*\]\n', text)[1].split("\n# %%")[0]
        full = yaml.safe_load((COURSE / "notebooks/full.yaml").read_text(encoding="utf-8"))
        return {a.targets[0].id: ast.literal_eval(a.value) for a in ast.parse(cell).body}, full.get(number) or {}
    except (OSError, StopIteration, IndexError, ValueError):
        return {}, {}


class _Worst(NamedTuple):
    size: float
    where: tuple
    ours: complex
    reference: complex

    def __str__(self):
        place = f" at index {list(self.where)}" if self.where else ""
        return f"{self.size:.3g}{place} (ours {self.ours:.10g}, reference {self.reference:.10g})"


def _problem(head, ours, reference, atol, rtol, above=None, below=None):
    """What is wrong with a statement, or None."""
    if not (atol >= 0 and rtol >= 0):
        raise ValueError(f"{head}: tolerances must be zero or positive, got atol={atol}, rtol={rtol}")
    if above is not None or below is not None:
        if reference is not None or atol or rtol:
            raise ValueError(f"{head}: give either a reference with tolerances or bounds (above, below), not both")
        ours = _array(ours, "ours", head)
        bounds = (("above", above, np.greater), ("below", below, np.less))
        found = (_beyond(ours, _array(bound, name, head), name, holds) for name, bound, holds in bounds if bound is not None)
        return next((problem for problem in found if problem), None)
    if reference is None:
        return _refuted(ours, head)
    exact = [_integers(x) for x in (ours, reference)]
    if all(x is not None for x in exact) and exact[0] != exact[1]:     # float64 rounds integers beyond 2**53
        rounded = [_array(x, "value", head) for x in (ours, reference)]
        if rounded[0].shape == rounded[1].shape and (rounded[0] == rounded[1]).all():
            return "the integers differ by less than float64 can show" if atol < 1 and not rtol else None
    return _difference(_array(ours, "ours", head), _array(reference, "reference", head), atol, rtol)


def _integers(value):
    """The integers of an array or tensor as nested lists, None for other values."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy() if value.layout == torch.strided and value.dtype in INTEGERS else None
    value = value if isinstance(value, (int, np.ndarray, np.integer)) else np.zeros(0)
    return np.asarray(value).tolist() if np.asarray(value).dtype.kind in "iu" else None


def _beyond(ours, bound, name, holds):
    """How an array misses a bound, or None."""
    if ours.size == 0 or bound.shape not in ((), ours.shape):
        return f"nothing to compare: ours has shape {ours.shape}, {name} {bound.shape}"
    bad = ~holds(ours, bound)           # NaN holds nothing
    if not bad.any():
        return None
    where = tuple(int(k) for k in np.argwhere(bad)[0])
    place = f" at index {list(where)}, in {int(bad.sum())} of {bad.size} places" if where else ""
    return f"ours {ours[where]:.6g} is not {name} {np.broadcast_to(bound, ours.shape)[where]:.6g}{place}"


def _array(value, name, head):
    """value as a float64 or complex128 numpy array on the CPU."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.to_dense() if value.layout != torch.strided else value).resolve_conj().resolve_neg()
        value = value.to(torch.complex128 if value.is_complex() else torch.float64).numpy()
    elif isinstance(value, (list, tuple)):
        try:
            value = np.stack([_array(part, name, head) for part in value]) if value else np.zeros(0)
        except ValueError:
            raise CheckFailed(f"✗ {head}\n  {name} is a ragged list: its parts have different shapes") from None
    try:
        value = np.asarray(value)
        if value.dtype.kind not in "biufc":
            raise TypeError
        return value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"check {head}: {name} is {type(value).__name__}, not a number, array or tensor; "
                        "compare it yourself and pass the condition") from None


def _refuted(condition, head):
    """What is wrong with a bare condition, or None."""
    values = condition.detach().cpu().numpy() if isinstance(condition, torch.Tensor) else np.asarray(condition)
    if values.dtype != bool:
        raise TypeError(f"check {head}: without a reference a condition (bool) is needed, "
                        f"got {type(condition).__name__}; give the reference value to compare with")
    if values.size == 0:
        return "the condition is empty: nothing was checked"
    if not values.all():
        first = [int(k) for k in np.argwhere(~values)[0]]
        return "the condition is false" + (f" at index {first}, in {int((~values).sum())} of {values.size} places"
                                           if values.ndim else "")
    return None


def _difference(ours, reference, atol, rtol):
    """What is wrong when `ours` should be `reference`, or None."""
    if ours.shape != reference.shape:
        return f"shapes differ: ours {ours.shape}, reference {reference.shape}"
    if ours.size == 0:
        return f"both are empty (shape {ours.shape}): nothing was checked"
    for name, values in (("ours", ours), ("reference", reference)):
        if np.isnan(values).any():
            where = [int(k) for k in np.argwhere(np.isnan(values))[0]]
            return f"{name} has {int(np.isnan(values).sum())} NaN of {values.size}, the first at index {where}"
    with np.errstate(invalid="ignore", divide="ignore"):
        absolute = np.where(ours == reference, 0.0, np.abs(ours - reference))     # equal infinities agree
        relative = np.where(absolute == 0, 0.0, absolute / np.abs(reference))
        absolute, relative = (np.nan_to_num(e, nan=np.inf, posinf=np.inf) for e in (absolute, relative))
        bound = atol + (rtol * np.abs(reference) if rtol else 0.0)
        if (absolute <= np.where(np.isfinite(bound), bound, 0.0)).all():
            return None
    worst = [_worst(errors, ours, reference) for errors in (absolute, relative)]
    return (f"largest absolute error {worst[0]}\n  largest relative error {worst[1]}\n"
            f"  allowed: atol {atol:g}, rtol {rtol:g}")


def _worst(errors, ours, reference):
    where = tuple(int(k) for k in np.unravel_index(int(np.argmax(errors)), errors.shape))
    return _Worst(float(errors[where]), where, ours[where], reference[where])


def _unequal(got, expected, atol):
    """One line that says how `got` misses `expected`, or None."""
    seen = f"expected {_short(expected)}, got {_short(got)}"
    if _short(got) == _short(expected) and _short(got).startswith("an array"):
        seen = f"{_short(got)} with other values was expected"
    plain = (str, bytes, bool, np.bool_, dict, set, type(None))
    got = bool(got) if _is_flag(got) else got
    if isinstance(expected, plain) or (isinstance(expected, (list, tuple)) and any(isinstance(e, plain) for e in expected)):
        return None if type(got) is type(expected) and got == expected else seen
    if isinstance(expected, tuple):
        if not isinstance(got, (tuple, list)) or len(got) != len(expected):
            return f"{seen} (a tuple of {len(expected)} values is expected)"
        problems = [_unequal(g, e, atol) for g, e in zip(got, expected)]
        return next((f"value {k + 1}: {p}" for k, p in enumerate(problems) if p), None)
    try:
        ours, reference = _array(got, "your answer", "exercise"), _array(expected, "expected", "exercise")
    except (TypeError, CheckFailed):
        return f"{seen} ({type(got).__name__} is not a number or an array of numbers)"
    problem = _difference(ours, reference, atol, 0.0)
    return problem and f"{seen}; {problem.splitlines()[0]}"


def _is_flag(value):
    """Is it one truth value, as Python, numpy or torch give it?"""
    return isinstance(value, (bool, np.bool_)) or (isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim == 0
                                                   and str(value.dtype).removeprefix("torch.") == "bool")


def _short(value):
    """A value in one readable line of at most 120 characters."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        array = _array(value, "value", "exercise")
        if array.size > 12:
            return f"an array of shape {tuple(array.shape)}"
        value = np.round(array, 6).tolist()
    elif isinstance(value, tuple) and any(isinstance(v, (torch.Tensor, np.ndarray)) for v in value):
        return f"({', '.join(_short(v) for v in value)})"
    short = reprlib.Repr()
    short.maxlist = short.maxtuple = 12
    short.maxother = short.maxstring = 100
    text = " ".join(short.repr(value).split())
    return text if len(text) <= 120 else text[:117] + "…"


def _line_of(error):
    """Where in the reader's own cell the error arose, as ` (line 3: code)`."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename][1:]
    if not own:
        return ""
    code = (own[-1].line or linecache.getline(own[-1].filename, own[-1].lineno)).strip()
    return f" (line {own[-1].lineno}{': ' + code if code else ''})"
