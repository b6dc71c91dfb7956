"""What all checks share: verdicts, blanks, errors in answers, the quiz's page."""

import functools
import json
import linecache
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from ftkit.checks import Case, array, ask, check, close, draw, judge, quiz
from ftkit.paths import bundled


@check("An insight.")
def double(answer):
    """Twice the number."""
    judge(answer(3), 6, {"That is the square.": 9}, "Twice three is six.")


def in_a_cell(source):
    """Define functions as a notebook's cell does; return the last one."""
    filename = f"/tmp/ipykernel_1/{abs(hash(source))}.py"
    linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename
    names = {}
    exec(compile(source, filename, "exec"), names)
    return list(names.values())[-1]


raises = in_a_cell("def double(x):\n    y = 1 / 0\n    return 2 * x\n")
inner = in_a_cell("def inner(x):\n    raise ValueError(f'no {x}')\n")
asserts = in_a_cell("def double(x):\n    assert x > 3\n")
nothing = in_a_cell('def double(x):\n    """Return twice the number."""\n    ...\n')
forgets = in_a_cell("def double(x):\n    y = 2 * x\n    ...\n")


def outer(x):
    return sorted([x], key=inner)


FORGOTTEN = "your function gives back nothing (None): a return is missing."
PRINTED = "your function prints its result and gives back nothing: replace print by return."
HAND_OVER = "hand over the function itself, its name without brackets:"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda x: 2 * x, "✓ right: An insight."),
        (lambda x: x * x, "✗ wrong: That is the square."),
        (lambda x: 7, "✗ wrong: Twice three is six."),
        (lambda x: None, "… not answered yet"),
        (lambda x: ..., "… not answered yet"),
        (..., "… not answered yet"),
        (None, "… not answered yet"),
        (
            raises,
            "✗ wrong: your code raised ZeroDivisionError: division by zero (line 2: y = 1 / 0)",
        ),
        (outer, "✗ wrong: your code raised ValueError: no 3 (line 2: raise ValueError(f'no {x}'))"),
        (asserts, "✗ wrong: your code raised AssertionError (line 2: assert x > 3)"),
        (nothing, "… not answered yet"),
        (forgets, f"✗ wrong: {FORGOTTEN}"),
        (functools.partial(forgets), f"✗ wrong: {FORGOTTEN}"),
        (lambda x: print(2 * x), f"✗ wrong: {PRINTED}"),
        (lambda x: sys.exit(), "✗ wrong: your code ends Python (sys.exit): let it return instead."),
        (6, f"✗ wrong: {HAND_OVER} int 6 came, as from a call."),
        (torch.ones(2), f"✗ wrong: {HAND_OVER} Tensor of shape (2,) came, as from a call."),
        (lambda x: f"{2 * x}", "✗ wrong: numbers are wanted; str '6' came."),
    ],
)
def test_verdicts(answer, line):
    assert repr(double(answer)) == line


def test_what_an_answer_prints_is_shown(capsys):
    assert double(lambda x: print("so far", x) or 2 * x).status == "right"
    assert capsys.readouterr().out == "so far 3\n"


@pytest.mark.parametrize(
    "kind",
    [
        *(int, float, np.float32, np.int64, np.array, torch.tensor, Fraction),
        lambda x: torch.tensor(x + 1e-5),
        lambda x: torch.nn.Parameter(torch.tensor(float(x))),
    ],
)
def test_a_number_may_be_of_any_kind(kind):
    assert double(lambda x: kind(2 * x)).status == "right"


@pytest.mark.parametrize(
    "value", [[6], "6", {6}, {}, None.__class__, 6 + 1j, [[1], [1, 2]], object()]
)
def test_what_is_no_number_is_told(value):
    verdict = double(lambda x: value)
    assert verdict.status == "wrong"
    assert "wanted" in verdict.message


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3, 4]],
        ((1, 2), (3.0, 4.0)),
        np.array([[1, 2], [3, 4]], np.float32),
        torch.tensor([[1, 2], [3, 4]], dtype=torch.bfloat16),
        [torch.tensor([1, 2]), np.array([3, 4])],
        [[torch.tensor(1.0, requires_grad=True), 2], (Fraction(3), np.float64(4))],
    ],
)
def test_arrays_are_read_from_whatever_holds_numbers(value):
    assert array(value).tolist() == [[1, 2], [3, 4]]
    assert array(value).dtype == np.float64


@pytest.mark.parametrize(
    ("value", "right", "same"),
    [
        (0.1 + 0.2, 0.3, True),
        (np.float32(1 / 3), 1 / 3, True),
        (1.0001, 1.0, False),
        (1.0001e-6, 1e-6, False),  # small numbers count as much as large ones
        (0, 0, True),
        (1e-4, 0, False),
        ([1, 2], [1, 2, 3], False),
        ([1000, 1e-4], [1000, 0], True),  # rounding goes by the largest
        (float("nan"), 1, False),
        ([float("inf"), 1], [float("inf"), 1], True),
        ([float("inf"), 1], [-float("inf"), 1], False),
    ],
)
def test_close_forgives_rounding_alone(value, right, same):
    assert close(value, right) is same


def test_a_hint_must_explain_all_wrong_values():
    cases = [Case((x,), 2 * x, {"That is the square.": x**2, "That is 3.": 3}) for x in (4, 5)]

    @check("An insight.")
    def doubles(answer):
        ask(answer, *cases)

    assert doubles(lambda x: x**2).message == "That is the square."
    assert doubles(lambda x: x**2 if x == 4 else 2 * x).message == "That is the square."
    assert doubles(lambda x: 3 if x == 4 else x**2).message == "Expected 8, got 3."
    assert doubles(lambda x: [x]).message == "the shape is (1,); one number is wanted."


def test_a_case_is_drawn_until_right_and_wrong_differ():
    drawn = iter([Case((2,), 4, {"square": 4}), Case((1,), 2, {"a": 3, "b": 3}), Case((3,), 6, {})])
    assert draw(lambda: next(drawn)).given == (3,)


def test_an_answer_gets_copies():
    case = Case(([1, 2],), 3)

    @check("An insight.")
    def adds(answer):
        ask(answer, case, case)

    assert adds(lambda numbers: sum(numbers.pop() for _ in range(2))).status == "right"
    assert case.given == ([1, 2],)


QUIZZES = sorted(path.stem for path in bundled("quiz").glob("*.json"))


@pytest.mark.parametrize("number", QUIZZES)
def test_quizzes_are_whole(number):
    questions = json.loads(bundled(f"quiz/{number}.json").read_text(encoding="utf-8"))
    assert 3 <= len(questions) <= 5
    for question in questions:
        assert set(question) == {"question", "options", "answer", "why"}
        assert 0 <= question["answer"] < len(question["options"]) >= 3
        assert len(set(question["options"])) == len(question["options"])
    assert len({question["answer"] for question in questions}) > 1


def test_quiz_pages_are_escaped(monkeypatch, tmp_path):
    entry = {"question": "<script>?", "options": ["<b>", "&"], "answer": 1, "why": "1 < 2"}
    (tmp_path / "quiz").mkdir()
    (tmp_path / "quiz" / "99.json").write_text(json.dumps([entry]))
    monkeypatch.setattr("ftkit.checks.bundled", lambda name: tmp_path / name)
    page = quiz("99")._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;?" in page
    assert "<b>b</b>: 1 &lt; 2" in page
    assert repr(quiz("99")) == "1. <script>?"
