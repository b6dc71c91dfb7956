"""Answers that stand in a context: read them, and say which ones do not stand where they should."""

from collections.abc import Iterator
from typing import Any

from datasets import Dataset

from ftkit.data.splits import row_name


def answer_problems(
    name: str, split: Dataset, context_column: str, answers_column: str
) -> Iterator[str]:
    """Yield a sentence for each row without an answer and for each answer out of place.

    Parameters
    ----------
    name : str
        Of the split.
    split : datasets.Dataset
    context_column, answers_column : str
    """
    values = zip(split[answers_column], split[context_column], strict=True)
    for i, (answers, context) in enumerate(values):
        for problem in _problems(answers, context):
            yield f'{question_name(name, split, i)}: "{answers_column}" {problem}.'


def _problems(answers: Any, context: str) -> list[str]:
    try:
        pairs = answer_pairs(answers)
    except (TypeError, ValueError, KeyError):
        return [f"is {str(answers)[:60]}; expected lists of text and answer_start"]
    if not pairs:
        return ["holds no answer; expected one or more"]
    return [problem for text, start in pairs if (problem := _misplaced(text, start, context))]


def answer_pairs(answers: Any) -> list[tuple[str, int]]:
    """Return text and place of each answer, from two lists (as in SQuAD) or from a list of pairs.

    Raises
    ------
    TypeError, ValueError, KeyError
        It is neither.

    Examples
    --------
    >>> answer_pairs({"text": ["a ferry"], "answer_start": [17]})
    [('a ferry', 17)]
    """
    if isinstance(answers, dict):
        pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
    else:
        pairs = [(answer["text"], answer["answer_start"]) for answer in answers]
    for text, start in pairs:
        if not isinstance(text, str) or not isinstance(start, int):
            raise TypeError("expected a text and a whole number")
    return pairs


def _misplaced(text: str, start: int, context: str) -> str:
    if not text.strip():
        return "holds an empty answer; expected text"
    found = context[start : start + len(text)] if start >= 0 else ""
    if found == text:
        return ""
    place = context.find(text)
    hint = f"it stands at {place}" if place >= 0 else "it stands nowhere in the context"
    return f'"{text}" does not stand at character {start}, where "{found}" stands; {hint}'


def question_name(split: str, dataset: Dataset, index: int) -> str:
    """Return where a question came from: its file and id, or its split, index and id."""
    name = row_name(split, dataset, index)
    known = "id" in dataset.column_names and "row" not in dataset.column_names
    return f"{name}, question {dataset[index]['id']}" if known else name
