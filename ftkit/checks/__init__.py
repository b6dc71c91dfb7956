"""Exercises that check themselves: one module a notebook, and what they share.

A check takes the learner's function (or value) and returns a `Verdict`: right with an insight,
wrong with a hint that names the misconception, or "not answered yet".
"""

import functools
import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

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


def check(insight: str) -> Callable[[Callable[..., None]], Callable[..., Verdict]]:
    """Make a check of a function that calls `expect`; a right answer earns the insight.

    A learner's function that returns None or ``...``, or a value that is one of them, counts as
    not answered. An exception in it becomes a hint.

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
        def judge(*answers: Any) -> Verdict:
            try:
                body(*(_guard(answer) for answer in answers))
            except NotAnswered:
                return Verdict("not answered yet")
            except WrongAnswer as hint:
                return Verdict("wrong", str(hint))
            except Exception as error:
                return Verdict("wrong", f"your code raised {type(error).__name__}: {error}")
            return Verdict("right", insight)

        return judge

    return decorate


def _guard(answer: Any) -> Any:
    if answer is None or answer is ...:
        raise NotAnswered
    if not callable(answer) or isinstance(answer, type):
        return answer

    @functools.wraps(answer)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = answer(*args, **kwargs)
        if result is None or result is ...:
            raise NotAnswered
        return result

    return call


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
