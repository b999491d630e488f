"""`check`, `claim` and `exercise`: what passes, what fails, what they say. The course is only as good as these functions."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import CheckFailed, check, checks, claim, exercise
from tests.book import ROOT

AGREE = [
    (1, 1), (1.5, torch.tensor(1.5)), (np.float32(0.5), 0.5), ([1, 2], torch.tensor([1, 2])),
    (torch.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3)), (torch.ones(2, requires_grad=True), [1.0, 1.0]),
    (torch.tensor([True, False]), [True, False]), (np.array([1 + 2j]), torch.tensor([1 + 2j])),
    ([torch.tensor(1.0), torch.tensor(2.0)], [1, 2]), (pd.Series([1.0, 2.0]), [1, 2]), (float("inf"), math.inf),
    (torch.eye(2).to_sparse(), np.eye(2)), (torch.tensor([1 + 1j]).conj(), [1 - 1j]), (torch.tensor(1.5).bfloat16(), 1.5),
]
NEAR = (1.0, 1.0 + 1e-15)
DIFFER = [
    NEAR, (1, 2), ([1, 2], [2, 1]), ([1, 2], [1, 2, 3]), (1, [1]), ([[1, 2]], [[1], [2]]),
    (float("nan"), float("nan")), ([1, float("nan")], [1, 2]), ([1, 2], [1, float("nan")]), (math.inf, -math.inf),
    (math.inf, 1.0), (1.0, math.inf), ([], []), (torch.zeros(0, 3), torch.zeros(0, 3)), (1 + 1j, 1 - 1j), (-1.0, 1.0),
    ([[1], [2, 3]], [1, 2]), ([1, 2], [1, 4]),
]
LARGE = [(torch.tensor([2**53 + 1]), torch.tensor([2**53])), (2**60 + 1, 2**60), (np.array([2**62 - 1]), np.array([2**62]))]


@pytest.mark.parametrize("ours, reference", AGREE)
def test_equal_values_pass_without_tolerance(ours, reference, capsys):
    check("43.2", "a claim", ours, reference)
    assert capsys.readouterr().out == "✓ (43.2) a claim\n"


@pytest.mark.parametrize("ours, reference", DIFFER + LARGE)
def test_different_values_never_pass(ours, reference, capsys):
    with pytest.raises(CheckFailed):
        check("43.2", "a claim", ours, reference)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ours, reference", DIFFER[1:])
def test_a_tolerance_does_not_excuse_shape_nan_infinity_or_sign(ours, reference):
    with pytest.raises(CheckFailed):
        check("43.2", "a claim", ours, reference, atol=0.5, rtol=1e-3)


def test_tolerances_add_up_and_are_relative_to_the_reference():
    check("1", "c", 1.5, 1.0, atol=0.5)
    check("1", "c", 110.0, 100.0, rtol=0.1)
    check("1", "c", 110.5, 100.0, rtol=0.1, atol=0.5)
    for ours, reference, atol, rtol in ((1.51, 1.0, 0.5, 0), (110.1, 100.0, 0, 0.1), (110.6, 100.0, 0.5, 0.1),
                                        (100.0, 90.0, 0, 0.1), (0.1, 0.0, 0, 0.5), (2.0, 1.0, 0, 0.99)):
        with pytest.raises(CheckFailed):
            check("1", "c", ours, reference, atol=atol, rtol=rtol)


def test_compares_in_float64():
    check("1", "c", torch.tensor(0.1, dtype=torch.float32), np.float32(0.1))
    with pytest.raises(CheckFailed):
        check("1", "c", torch.tensor(0.1, dtype=torch.float32), 0.1)
    with pytest.raises(CheckFailed):
        check("1", "c", 1.0 + 1e-12, torch.tensor(1.0, dtype=torch.float32), atol=1e-13)


@pytest.mark.parametrize("condition", [True, np.True_, torch.tensor(True), [True, True], np.ones((2, 2), bool)])
def test_a_true_condition_passes(condition, capsys):
    check("43.1", "holds", condition)
    assert capsys.readouterr().out == "✓ (43.1) holds\n"


@pytest.mark.parametrize("condition", [False, torch.tensor([True, False]), [True, False], np.zeros(0, bool)])
def test_a_false_or_empty_condition_fails(condition):
    with pytest.raises(CheckFailed):
        check("43.1", "does not hold", condition)


@pytest.mark.parametrize("value", [1, 1.0, None, "yes", torch.ones(2), [1, 0]])
def test_a_number_is_no_condition(value):
    with pytest.raises(TypeError, match="condition"):
        check("43.1", "forgot the reference", value)


def test_says_how_much_and_where():
    ours, reference = torch.zeros(2, 3), torch.zeros(2, 3)
    ours[1, 2], reference[1, 2], ours[0, 1], reference[0, 1] = 107.0, 100.0, 0.2, 0.1
    with pytest.raises(CheckFailed) as failed:
        check("43.7", "the claim as it stands", ours, reference, atol=1e-3)
    said = str(failed.value)
    assert "(43.7) the claim as it stands" in said
    assert re.search(r"absolute error 7 at index \[1, 2\] \(ours 107, reference 100\)", said)
    assert re.search(r"relative error 1 at index \[0, 1\] \(ours 0.2\d*, reference 0.1\d*\)", said)
    assert "atol 0.001" in said


def test_names_nan_and_shapes():
    with pytest.raises(CheckFailed, match=r"NaN of 2, the first at index \[1\]"):
        check("1", "c", [0.0, float("nan")], [0.0, 0.0], atol=1)
    with pytest.raises(CheckFailed, match=r"shapes differ: ours \(2,\), reference \(2, 1\)"):
        check("1", "c", np.ones(2), np.ones((2, 1)), atol=1)
    with pytest.raises(CheckFailed, match=r"false at index \[1\], in 1 of 2"):
        check("1", "c", np.array([True, False]))


@pytest.mark.parametrize("value", ["abc", object(), {"a": 1}, ["a", "b"]])
def test_what_cannot_be_compared_is_a_type_error(value):
    with pytest.raises(TypeError, match="compare it yourself"):
        check("1", "c", value, value)


@pytest.mark.parametrize("tolerance", [{"atol": -1.0}, {"rtol": -1e-9}, {"atol": float("nan")}])
def test_tolerances_must_make_sense(tolerance):
    with pytest.raises(ValueError, match="tolerances"):
        check("1", "c", 1.0, 1.0, **tolerance)


def test_prints_exactly_one_line(capsys):
    check("2", "a claim\nof two lines", 1, 1)
    assert capsys.readouterr().out == "✓ (2) a claim of two lines\n"


MUTATIONS_OF_CHECK = [
    ("if ours.shape != reference.shape:", "if False:"),
    ("if ours.size == 0:", "if False:"),
    ("            where = [int(k) for k in np.argwhere(np.isnan(values))[0]]\n", "            return None\n"),
    ("absolute = np.where(ours == reference, 0.0, np.abs(ours - reference))", "absolute = np.abs(ours) - np.abs(reference)"),
    ("bound = atol + (rtol * np.abs(reference) if rtol else 0.0)", "bound = atol + 1e-3"),
    ("bound = atol + (rtol * np.abs(reference) if rtol else 0.0)", "bound = atol + rtol * np.abs(ours)"),
    ("np.where(np.isfinite(bound), bound, 0.0)).all()", "np.where(np.isfinite(bound), bound, np.inf)).all()"),
    ("np.where(np.isfinite(bound), bound, 0.0)).all()", "np.where(np.isfinite(bound), bound, 0.0)).any()"),
    ("value.to(torch.complex128 if value.is_complex() else torch.float64)", "value.real.to(torch.float32)"),
    ("    if not values.all():", "    if not values.any():"),
    ("    if values.size == 0:", "    if False:"),
    ("    if values.dtype != bool:", "    if False:"),
    ("    if problem:\n        raise CheckFailed", "    if False:\n        raise CheckFailed"),
    ("if not (atol >= 0 and rtol >= 0):", "if False:"),
    ('return "the integers differ by less than float64 can show"', "return None"),
    ("bad = ~holds(ours, bound)", "bad = holds(bound, ours)"),
    ("if not bad.any():", "if not bad.all():"),
    ('("below", below, np.less)', '("below", below, np.less_equal)'),
    ("if ours.size == 0 or bound.shape not in ((), ours.shape):", "if False:"),
]


@pytest.mark.parametrize("old, new", MUTATIONS_OF_CHECK)
def test_a_broken_check_would_be_noticed(old, new, monkeypatch, capsys):
    """The tests above, run against a broken copy of check, must fail: they guard every condition in it."""
    source = (ROOT / "helpers/checks.py").read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{old!r} is not in helpers/checks.py once"
    broken = {"__name__": "broken_checks", "__file__": str(ROOT / "helpers/checks.py")}
    exec(compile(source.replace(old, new), "broken_checks", "exec"), broken)
    monkeypatch.setitem(globals(), "check", broken["check"])
    monkeypatch.setitem(globals(), "CheckFailed", broken["CheckFailed"])
    monkeypatch.setitem(globals(), "claim", broken["claim"])
    trials = [*((test_equal_values_pass_without_tolerance, (*pair, capsys)) for pair in AGREE),
              *((test_different_values_never_pass, (*pair, capsys)) for pair in DIFFER + LARGE),
              *((test_a_tolerance_does_not_excuse_shape_nan_infinity_or_sign, pair) for pair in DIFFER[1:]),
              (test_tolerances_add_up_and_are_relative_to_the_reference, ()), (test_compares_in_float64, ()),
              *((test_a_false_or_empty_condition_fails, (c,)) for c in (False, [True, False], np.zeros(0, bool))),
              *((test_a_number_is_no_condition, (v,)) for v in (1, torch.ones(2))),
              (test_tolerances_must_make_sense, ({"atol": -1.0},)),
              *((test_bounds_that_hold, (*pair, capsys)) for pair in ((1.0, {"above": 0.5}), (1.0, {"below": 2}))),
              *((test_bounds_that_do_not_hold_show_the_values, pair) for pair in (
                  (1.0, {"below": 1}), ([1, 4], {"above": 0, "below": 3}), ([], {"above": 0})))]
    noticed = 0
    for test, arguments in trials:
        try:
            test(*arguments)
        except BaseException:
            noticed += 1
        capsys.readouterr()
    assert noticed, f"{new!r} went unnoticed"


# --- exercise ---------------------------------------------------------------------------------------------------------

CASES = [((2.0,), 4.0), ((3.0,), 9.0), ((torch.tensor([1.0, -2.0]),), torch.tensor([1.0, 4.0]))]


def said(attempt, capsys, cases=CASES, **options):
    exercise("43.A", attempt, cases, **options)
    out = capsys.readouterr().out
    assert out.count("\n") == (1 if out[0] in "…✓" else 2 + ("Perhaps" in out))
    return out.strip()


def test_exercise_waits_for_the_reader(capsys):
    def stub(x):
        raise NotImplementedError
    assert said(stub, capsys).startswith("… 43.A: yours to write")


def test_only_the_stubs_own_raise_counts_as_unwritten(capsys):
    """torch raises NotImplementedError too, for integers in softmax and for densities it does not know."""
    ints = [((torch.tensor([1, 2]),), torch.tensor([0.27, 0.73]))]
    assert said(lambda x: x.softmax(0), capsys, ints).startswith("✗ 43.A, case 1 of 1: your function stopped with NotImplementedError")

    def calls_a_helper(x):
        def helper(x):
            raise NotImplementedError("not for this")
        return helper(x)
    assert said(calls_a_helper, capsys).startswith("✗ 43.A")


def test_exercise_takes_truth_values_of_numpy_and_torch(capsys):
    for right in (True, np.True_, np.array(True), torch.tensor(True)):
        assert said(lambda x, right=right: right, capsys, [((1,), True)]).startswith("✓")
        assert said(lambda x, right=right: right, capsys, [((1,), False)]).startswith("✗")
    assert said(lambda x: torch.tensor(1), capsys, [((1,), True)]).startswith("✗"), "a number is no truth value"


def test_exercise_shows_arguments_and_a_missing_return(capsys):
    assert "the arguments: (3.0,)" in said(lambda x: 2 * x, capsys)
    assert "return" in said(lambda x: None, capsys)


def test_exercise_recognises_famous_mistakes(capsys):
    mistakes = {"you doubled": lambda x: 2 * x, "you cubed": lambda x: x**3}
    assert said(lambda x: x + x, capsys, mistakes=mistakes).endswith("Perhaps you doubled.")
    assert said(lambda x: x * x * x, capsys, mistakes=mistakes).endswith("Perhaps you cubed.")
    assert "Perhaps" not in said(lambda x: x - 1, capsys, mistakes=mistakes)
    assert said(lambda x: x * x, capsys, mistakes=mistakes).startswith("✓")
    stops = {"you divided by zero": lambda x: 1 / 0}
    assert said(lambda x: 2 / 0, capsys, mistakes=stops).endswith("Perhaps you divided by zero.")
    with pytest.raises(ValueError, match="no case refuses"):
        exercise("43.A", lambda x: x * x, CASES, mistakes={"this is right": lambda x: x**2})


# --- claim and bounds -------------------------------------------------------------------------------------------------

def test_a_claim_carries_no_number(capsys):
    claim("what the\nfigure shows", 1.0, 1.1, atol=0.2)
    assert capsys.readouterr().out == "• what the figure shows\n"


@pytest.mark.parametrize("ours, bounds", [(1.0, {"above": 0.5}), (1.0, {"below": 2}), ([1, 2], {"above": 0, "below": 3}),
                                          (torch.tensor([1.0, 2.0]), {"above": np.array([0.5, 1.5])})])
def test_bounds_that_hold(ours, bounds, capsys):
    check("1", "c", ours, **bounds)
    claim("c", ours, **bounds)
    assert capsys.readouterr().out == "✓ (1) c\n• c\n"


@pytest.mark.parametrize("ours, bounds", [(1.0, {"above": 1.0}), (1.0, {"below": 1}), ([1, 4], {"above": 0, "below": 3}), (float("nan"), {"above": 0}),
                                          ([], {"above": 0}), ([1.0, 2.0], {"above": [0.0, 0.0, 0.0]}), (1.0, {"above": float("nan")})])
def test_bounds_that_do_not_hold_show_the_values(ours, bounds):
    for verb in (lambda: check("1", "c", ours, **bounds), lambda: claim("c", ours, **bounds)):
        with pytest.raises(CheckFailed, match="ours .* is not (above|below)|nothing to compare"):
            verb()


def test_bounds_and_reference_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        check("1", "c", 1.0, 1.0, above=0)
    with pytest.raises(ValueError, match="not both"):
        claim("c", 1.0, atol=1.0, below=2)


def test_the_trivial_answer_must_fail(capsys):
    claim("better than the mean image", 0.9, above=0.8, trivial=0.5)
    claim("near", 1.0, 1.05, atol=0.1, trivial=0.0)
    claim("a condition", True, trivial=False)
    for broken in (lambda: claim("c", 0.9, above=0.4, trivial=0.5), lambda: claim("c", 1.0, 1.05, atol=2, trivial=0.0),
                   lambda: claim("c", True, trivial=True)):
        with pytest.raises(CheckFailed, match="trivial answer passes too"):
            broken()


def test_a_false_claim_stops_the_page_unless_its_parameters_were_changed(monkeypatch, capsys):
    monkeypatch.setattr(checks, "_parameters", lambda number: ({"D": 4, "LAM": 1.3}, {"D": 16}) if number == "43" else ({}, {}))

    def page(**names):
        exec("claim('a score', 0.1, above=0.5, trivial=0.0)", {"claim": claim} | names)
        return capsys.readouterr().out
    assert page(PAGE="43", D=2, LAM=1.3) == "○ not with these parameters: a score (ours 0.1 is not above 0.5)\n"
    for strict in ({"PAGE": "43", "D": 4, "LAM": 1.3}, {"PAGE": "43", "D": 16, "LAM": 1.3}, {"D": 2, "LAM": 1.3}, {"PAGE": "77", "D": 2}):
        with pytest.raises(CheckFailed, match="ours 0.1 is not above 0.5"):
            page(**strict)
    with pytest.raises(CheckFailed):          # an equation holds whatever the parameters are
        exec("check('43.1', 'c', 1, 2)", {"check": check, "PAGE": "43", "D": 2, "LAM": 1.3})


def test_the_parameters_of_a_page_are_read_from_its_text():
    committed, full = checks._parameters("43")
    assert committed["DATA"] == "bundled" and full["DATA"] == "ml-100k" and set(full) <= set(committed)
    assert checks._parameters("77") == ({}, {})


def test_exercise_solved(capsys):
    assert said(lambda x: x * x, capsys) == "✓ 43.A solved (3 cases)"


def test_exercise_names_the_first_case_that_fails(capsys):
    assert said(lambda x: 2 * x, capsys).startswith("✗ 43.A, case 2 of 3: expected 9.0, got 6.0")
    message = said(lambda x: x * abs(x), capsys)
    assert message.startswith("✗ 43.A, case 3 of 3: expected [1.0, 4.0], got [1.0, -4.0]") and "index [1]" in message


@pytest.mark.parametrize("wrong", [lambda x: None, lambda x: "4", lambda x: (x,), lambda x: torch.zeros(3), lambda x: float("nan"),
                                   lambda x: [x, [x]], lambda x: True, lambda x: object(), lambda x: []])
def test_exercise_survives_any_answer(wrong, capsys):
    message = said(wrong, capsys)
    assert message.startswith("✗ 43.A, case 1 of 3: expected 4.0, got ")
    assert len(message) < 400


def test_exercise_turns_an_exception_into_one_line(capsys):
    def attempt(x):
        y = x.nothing
        return y
    message = said(attempt, capsys)
    assert message.startswith("✗ 43.A, case 1 of 3: your function stopped with AttributeError")
    assert "y = x.nothing" in message and "Traceback" not in message
    assert "takes 0 positional arguments" in said(lambda: 1, capsys)


def test_exercise_gives_every_attempt_fresh_arguments(capsys):
    x = torch.ones(2)

    def spoils(x):
        x.zero_()
        return x
    said(spoils, capsys, [((x,), torch.ones(2))])
    assert torch.equal(x, torch.ones(2))


def test_exercise_compares_texts_flags_and_tuples(capsys):
    assert said(lambda x: "ab", capsys, [((1,), "ab")]).startswith("✓")
    assert said(lambda x: "a", capsys, [((1,), "ab")]).startswith("✗")
    assert said(lambda x: 1, capsys, [((1,), True)]).startswith("✗")
    assert said(lambda x: (x, 2 * x), capsys, [((1.0,), (1.0, 2.0))]).startswith("✓")
    assert "value 2" in said(lambda x: (x, x), capsys, [((1.0,), (1.0, 2.0))])
    assert "tuple of 2 values" in said(lambda x: x, capsys, [((1.0,), (1.0, 2.0))])
    assert said(lambda x: ["a", "b"], capsys, [((1,), ["a", "b"])]).startswith("✓")


def test_exercise_uses_its_tolerance(capsys):
    assert said(lambda x: x + 1e-3, capsys, [((1.0,), 1.0)], atol=1e-2).startswith("✓")
    assert said(lambda x: x + 1e-3, capsys, [((1.0,), 1.0)], atol=1e-4).startswith("✗")


def test_exercise_without_cases_is_refused():
    with pytest.raises(ValueError, match="no cases"):
        exercise("43.A", lambda x: x, [])


def test_a_mistake_that_makes_nan_is_recognised(capsys):
    zeros = np.array([0.5, 0.5, 0.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        exercise("9.A", lambda p: -(np.log(p) * p).sum(), [((zeros,), np.log(2))],
                 mistakes={"0 log 0 is 0, not NaN": lambda p: -(p * np.log(p)).sum()})
    assert "Perhaps 0 log 0 is 0, not NaN." in capsys.readouterr().out


def test_long_answers_of_the_right_shape_say_that_the_values_differ(capsys):
    exercise("9.B", lambda x: x + 1, [((np.zeros(13),), np.zeros(13))])
    assert "an array of shape (13,) with other values was expected; largest absolute error 1" in capsys.readouterr().out
