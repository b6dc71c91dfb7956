"""What all checks share: verdicts, blanks, errors in answers, the quiz's page."""

import json

import pytest

from ftkit.checks import check, expect, quiz
from ftkit.paths import bundled


@check("An insight.")
def double(answer):
    """Twice the number."""
    expect(answer(3) != 9, "That is the square.")
    expect(answer(3) == 6, "Twice three is six.")


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
        (lambda x: x / 0, "✗ wrong: your code raised ZeroDivisionError: division by zero"),
    ],
)
def test_verdicts(answer, line):
    assert repr(double(answer)) == line


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
