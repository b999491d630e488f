"""`check` proves a claim of the text; `exercise` marks a reader's function. Both print one line."""

import copy
import linecache
import reprlib
import traceback
from typing import NamedTuple

import numpy as np
import torch


class CheckFailed(AssertionError):
    """A claim of the course does not hold here; the message says by how much and where."""


def check(eq, claim, ours, reference=None, *, atol=0.0, rtol=0.0):
    """Print `✓ (eq) claim` if `ours` agrees with `reference`, else raise.

    eq: number of the equation, "43.2". claim: what is being proved, one sentence.
    ours, reference: numbers, (nested) lists, numpy arrays or tensors of one and the same shape; they are
        compared in float64 on the CPU (complex values in complex128): |ours - reference| <= atol + rtol |reference|
        everywhere. Without tolerances they must be equal. NaN never passes, an empty array neither.
        Without `reference`, `ours` is a bare condition: a bool, or an array of bools that must all hold.
    Raises CheckFailed (an AssertionError) with the largest absolute and relative error, where they are and both
        values there; TypeError for what cannot be compared; ValueError for a negative tolerance.
    """
    head = f"({eq}) {' '.join(str(claim).split())}"
    if not (atol >= 0 and rtol >= 0):
        raise ValueError(f"check {head}: tolerances must be zero or positive, got atol={atol}, rtol={rtol}")
    if reference is None:
        problem = _refuted(ours, head)
    else:
        problem = _difference(_array(ours, "ours", head), _array(reference, "reference", head), atol, rtol)
    if problem:
        raise CheckFailed(f"✗ {head}\n  {problem}")
    print(f"✓ {head}")


def exercise(name, attempt, cases, *, atol=1e-6):
    """Run a reader's function on test cases and print one line that says how it stands; never raises for his errors.

    name: "43.A". attempt: the function. cases: sequence of (args, expected), `args` a tuple; every case gets a copy
    of its arguments. expected: a number, string, bool, array, tensor, or a tuple/list of these. atol: absolute tolerance.
    Prints `… 43.A: yours to write` while the attempt raises NotImplementedError, `✓ 43.A solved (3 cases)`, or the first
    case that fails with what was expected and what came back.
    """
    cases = list(cases)
    if not cases:
        raise ValueError(f"exercise {name}: no cases, so nothing could ever fail")
    for number, (args, expected) in enumerate(cases, 1):
        label = f"✗ {name}, case {number} of {len(cases)}:"
        try:
            got = attempt(*copy.deepcopy(args))
        except NotImplementedError:
            print(f"… {name}: yours to write")
            return
        except Exception as error:      # a reader's bug of any kind becomes one readable line
            print(f"{label} your function stopped with {type(error).__name__}: {error}{_line_of(error)}")
            return
        problem = _unequal(got, expected, atol)
        if problem:
            print(f"{label} {problem}")
            return
    print(f"✓ {name} solved ({len(cases)} cases)")


class _Worst(NamedTuple):
    size: float
    where: tuple
    ours: complex
    reference: complex

    def __str__(self):
        place = f" at index {list(self.where)}" if self.where else ""
        return f"{self.size:.3g}{place} (ours {self.ours:.10g}, reference {self.reference:.10g})"


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
    plain = (str, bytes, bool, np.bool_, dict, set, type(None))
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


def _short(value):
    """A value in one readable line of at most 120 characters."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        array = _array(value, "value", "exercise")
        if array.size > 12:
            return f"an array of shape {tuple(array.shape)}"
        value = np.round(array, 6).tolist()
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
