"""Exercises that check themselves: one module a notebook, and the one judge of all.

A check takes the learner's function and returns a `Verdict`: right with an insight, wrong with a
hint that names the misconception, or "not answered yet". It draws its inputs from generators of
its own, by a seed that is fixed unless you give one, and leaves the notebook's generators alone.
"""

import contextlib
import copy
import dis
import functools
import html
import inspect
import io
import itertools
import json
import random
import reprlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ftkit.paths import bundled

Status = Literal["right", "wrong", "not answered yet"]
MARKS = {"right": "✓", "wrong": "✗", "not answered yet": "…"}


@dataclass(frozen=True)
class Verdict:
    """What a check says of an answer."""

    status: Status
    message: str = ""

    def __repr__(self) -> str:
        """Return one line, as the notebook shows it."""
        text = f"{MARKS[self.status]} {self.status}"
        return f"{text}: {self.message}" if self.message else text


class WrongAnswer(Exception):
    """Carries the hint out of a check."""


class NotAnswered(Exception):
    """The stub is still a stub."""


def expect(condition: Any, hint: str) -> None:
    """Go on where the condition holds; else end the check with this hint."""
    if not bool(condition):
        raise WrongAnswer(hint)


def check(
    insight: str, *, in_place: bool = False
) -> Callable[[Callable[..., None]], Callable[..., Verdict]]:
    """Make a check of a function that tries an answer; a right answer earns the insight.

    The function gets the learner's answer, and ``seed`` where it draws. What kept an answer from
    giving a value is told: an untouched stub, no ``return`` (allowed where ``in_place``), ``print``
    in its place, the result of a call in place of the function, an exception, ``sys.exit``.

    Examples
    --------
    >>> @check("Doubling is adding to oneself.")
    ... def double(answer):
    ...     expect(answer(3) == 6, "Twice three is six.")
    >>> double(lambda x: x + x)
    ✓ right: Doubling is adding to oneself.
    >>> double(lambda x: ...)
    … not answered yet
    """

    def decorate(body: Callable[..., None]) -> Callable[..., Verdict]:
        @functools.wraps(body)
        def give_verdict(answer: Any, **options: Any) -> Verdict:
            learner = _Learner(answer, in_place)
            try:
                learner.expect_a_function()
                with _generators_put_back(options.get("seed", 0)):
                    body(learner, **options)
            except NotAnswered:
                return Verdict("not answered yet")
            except WrongAnswer as hint:
                return Verdict("wrong", str(hint))
            except SystemExit:
                return Verdict("wrong", "your code ends Python (sys.exit): let it return instead.")
            except Exception as error:
                return Verdict("wrong", learner.explain(error))
            return Verdict("right", insight)

        return give_verdict

    return decorate


@contextlib.contextmanager
def _generators_put_back(seed: int) -> Iterator[None]:
    """Seed the global generators, for answers that draw from them, and put them back after."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # of the CPU alone: torch.manual_seed sets all
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class _Learner:
    """The learner's function, called so that a missing value has its reason told."""

    def __init__(self, answer: Any, in_place: bool) -> None:
        self.answer, self.in_place = answer, in_place
        self.error: BaseException | None = None
        self.result: Any = None

    def expect_a_function(self) -> None:
        """End the check where something else was handed over."""
        if self.answer is None or self.answer is ...:
            raise NotAnswered
        expect(
            callable(self.answer),
            f"hand over the function itself, its name without brackets: {describe(self.answer)} "
            "came, as from a call.",
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                self.result = self.answer(*args, **kwargs)
        except BaseException as error:
            self.error = error
            raise
        finally:
            sys.stdout.write(printed.getvalue())
        if self.result is ... or (self.result is None and _is_stub(self.answer)):
            raise NotAnswered
        if self.result is None and not self.in_place:
            expect(
                not printed.getvalue(),
                "your function prints its result and gives back nothing: replace print by return.",
            )
            expect(False, "your function gives back nothing (None): a return is missing.")
        return self.result

    def explain(self, error: Exception) -> str:
        """Say where the learner's code failed, or that its result is of another kind."""
        if error is not self.error:
            return f"another kind of result is wanted; {describe(self.result)} came."
        frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_learners(f.filename)]
        text = f"your code raised {type(error).__name__}: {error}".removesuffix(": ")
        return f"{text} (line {frames[-1].lineno}: {frames[-1].line})" if frames else text


_LIBRARIES = (
    "<frozen",
    str(Path(__file__).parent),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)


def _is_learners(filename: str) -> bool:
    return not filename.startswith(_LIBRARIES)


def _is_stub(function: Any) -> bool:
    """Return whether a function does nothing at all: it returns a constant right away."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    idle = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    return code is not None and {i.opname for i in dis.get_instructions(code)} <= idle


def describe(value: Any) -> str:
    """Return the kind of a value, and its shape or length."""
    kind = type(value).__name__
    if hasattr(value, "shape"):
        return f"{kind} of shape {tuple(value.shape)}"
    if hasattr(value, "__len__") and not isinstance(value, str):
        return f"{kind} of length {len(value)}"
    return f"{kind} {reprlib.repr(value)}"


def array(value: Any) -> np.ndarray:
    """Read numbers of any kind, in tensors, arrays, lists or tuples, as one float64 array."""
    try:
        return _read(value)
    except (TypeError, ValueError, RuntimeError):
        raise WrongAnswer(f"numbers are wanted; {describe(value)} came.") from None


def _read(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    elif isinstance(value, list | tuple):
        value = [_read(part) for part in value]
    found = np.asarray(value)
    if found.dtype.kind not in "biufO":  # an object may be a Fraction; a string is no number
        raise TypeError
    return found.astype(np.float64)


def number(value: Any) -> float:
    """Read one number: int, float, NumPy scalar, array or tensor without dimensions."""
    found = array(value)
    expect(found.ndim == 0, f"the shape is {found.shape}; one number is wanted.")
    return float(found)


def number_or_nan(answer: Callable[..., Any], *given: Any) -> float:
    """Return the number that an answer gives, nan where it divides by zero."""
    try:
        with np.errstate(all="ignore"):
            return number(answer(*given))
    except ZeroDivisionError:
        return float("nan")


def integers(value: Any) -> torch.Tensor:
    """Read whole numbers, such as token ids, as one tensor of int64."""
    found = array(value)
    expect((found == np.floor(found)).all(), "whole numbers are wanted.")
    return torch.from_numpy(found).long()


def parts(value: Any, count: int, hint: str) -> list[Any]:
    """Take a result of several parts, a tuple or list or the like, to pieces."""
    try:
        found = [] if isinstance(value, str | dict) else list(value)
    except TypeError:
        found = []
    expect(len(found) == count, f"{hint}; {describe(value)} came.")
    return found


def close(value: Any, right: Any, tolerance: float = 1e-5) -> bool:
    """Return whether shapes are equal and numbers too, but for a share of the largest one."""
    return _close(array(value), array(right), tolerance)


def _close(one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    sizes = np.abs(other)
    largest = sizes.max(initial=0, where=np.isfinite(other)) or 1.0
    with np.errstate(invalid="ignore"):  # inf - inf; two equal infinities are close
        return bool(((one == other) | (np.abs(one - other) <= tolerance * largest)).all())


@dataclass(frozen=True)
class Case:
    """What an answer is given, the right value, and what each known mistake makes of it."""

    given: tuple[Any, ...]
    right: Any
    mistakes: dict[str, Any] = field(default_factory=dict)  # hint -> value

    def discriminates(self) -> bool:
        """Return whether no two of these values could be taken for each other."""
        values = map(array, (self.right, *self.mistakes.values()))
        pairs = itertools.combinations(values, 2)
        return not any(_close(one, other, tolerance=1e-3) for one, other in pairs)


def draw(make: Callable[..., Case], *given: Any) -> Case:
    """Draw cases until one discriminates: by chance a mistake may give the right value."""
    while not (case := make(*given)).discriminates():
        pass
    return case


def ask(
    answer: Callable[..., Any], *cases: Case, otherwise: str | None = None, **kind: Any
) -> None:
    """Give an answer copies of what belongs to each case, and judge all that it returns."""
    _judge([(answer(*copy.deepcopy(case.given)), case) for case in cases], otherwise, **kind)


def judge(
    value: Any,
    right: Any,
    mistakes: dict[str, Any] | None = None,
    otherwise: str | None = None,
    **kind: Any,
) -> None:
    """Go on where the value is right; else end with the hint of the mistake that it equals."""
    _judge([(value, Case((), right, mistakes or {}))], otherwise, **kind)


def _judge(
    answers: list[tuple[Any, Case]],
    otherwise: str | None,
    shape: str | None = None,
    tolerance: float = 1e-5,
) -> None:
    """End with the hint that explains all wrong values, else with the last one."""
    wrong = [(v, case) for v, case in answers if not close(v, case.right, tolerance)]
    for value, case in wrong:
        came, wanted = array(value).shape, array(case.right).shape
        what = f"expected {wanted}" if wanted else "one number is wanted"
        expect(came == wanted, shape or f"the shape is {came}; {what}.")
    for hint in dict.fromkeys(hint for _, case in wrong for hint in case.mistakes):
        told = [(v, case.mistakes[hint]) for v, case in wrong if hint in case.mistakes]
        expect(not all(close(v, mistake, tolerance) for v, mistake in told), hint)
    for value, case in wrong:
        expect(False, otherwise or f"Expected {_show(case.right)}, got {_show(value)}.")


def _show(value: Any) -> str:
    found = array(value)
    return f"{float(found):.4g}" if found.ndim == 0 else np.array2string(found, precision=4)


@dataclass(frozen=True)
class Quiz:
    """Questions whose answers unfold at a click; needs no kernel and no script."""

    questions: list[dict[str, Any]]

    def _repr_html_(self) -> str:
        """Return the questions as HTML, everything escaped."""
        return "".join(_question_html(i, q) for i, q in enumerate(self.questions, start=1))

    def __repr__(self) -> str:
        """Return the questions alone, for a place without HTML."""
        return "\n".join(f"{i}. {q['question']}" for i, q in enumerate(self.questions, start=1))


def quiz(number: str) -> Quiz:
    """Return the quiz of a notebook, such as ``quiz("03")``, from ``data/quiz``."""
    return Quiz(json.loads(bundled(f"quiz/{number}.json").read_text(encoding="utf-8")))


def _question_html(number: int, question: dict[str, Any]) -> str:
    letters = "abcdefgh"
    options = "".join(
        f"<br>{letter}) {html.escape(option)}"
        for letter, option in zip(letters, question["options"], strict=False)
    )
    return (
        f"<p><b>{number}. {html.escape(question['question'])}</b>{options}</p>"
        f"<details><summary>Answer</summary><b>{letters[question['answer']]}</b>: "
        f"{html.escape(question['why'])}"
        f"</details>"
    )
