"""Read texts with marked parts: CoNLL's tagged words, and SQuAD's questions with their answers."""

import json
from typing import Any

from ftkit.errors import FtkitError, raise_problems

Row = dict[str, Any]


def parse_conll(text: str, name: str) -> list[Row]:
    """Read one word a line, its tag in the last column, and an empty line after each sentence.

    Parameters
    ----------
    text : str
        Columns are separated by tabs or spaces; ``-DOCSTART-`` lines are left out.
    name : str
        The file's name, for messages.

    Returns
    -------
    list of dict
        ``tokens`` and ``tags``, lists of str of one length, and ``row``: the sentence's first line.

    Raises
    ------
    FtkitError
        A word has no tag.

    Examples
    --------
    >>> parse_conll("Ann\\tB-PER\\nsings\\tO\\n", "a.conll")[0]["tags"]
    ['B-PER', 'O']
    """
    rows: list[Row] = []
    problems, open_sentence = [], False
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0] == "-DOCSTART-":
            open_sentence = False
            continue
        if len(fields) < 2:
            problems.append(
                f'{name}, row {number}: "{fields[0]}" has no tag; expected a word and its tag.'
            )
            continue
        if not open_sentence:
            rows.append({"tokens": [], "tags": [], "row": f"{name}, row {number}"})
            open_sentence = True
        rows[-1]["tokens"].append(fields[0])
        rows[-1]["tags"].append(fields[-1])
    raise_problems(problems)
    return rows


def parse_squad(text: str, name: str) -> list[Row]:
    """Read the official form of SQuAD v1.1 (Rajpurkar et al. 2016): one row a question.

    Parameters
    ----------
    text : str
        JSON: ``{"data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}``.
    name : str
        The file's name, for messages.

    Returns
    -------
    list of dict
        ``id``, ``title``, ``context``, ``question``, ``answers`` (``text`` and ``answer_start``,
        lists of one length) and ``row``: the question's id.

    Raises
    ------
    FtkitError
        Not JSON, not of this form, or an answer does not stand where it should.
    """
    try:
        articles = json.loads(text)["data"]
        rows = [
            _question(article["title"], paragraph["context"], question, name)
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (ValueError, RecursionError) as error:
        raise FtkitError(f"{name}: not JSON ({error}).") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise FtkitError(
            f"{name}: not in the form of SQuAD v1.1 ({type(error).__name__}: {error}); expected "
            f"data, paragraphs, context, qas, question, answers."
        ) from error
    raise_problems([problem for row in rows for problem in _misplaced(row)])
    return rows


def _question(title: str, context: str, question: dict[str, Any], name: str) -> Row:
    answers = question["answers"]
    return {
        "id": str(question["id"]),
        "title": str(title),
        "context": str(context),
        "question": str(question["question"]),
        "answers": {
            "text": [str(answer["text"]) for answer in answers],
            "answer_start": [int(answer["answer_start"]) for answer in answers],
        },
        "row": f"{name}, question {question['id']}",
    }


def _misplaced(row: Row) -> list[str]:
    answers = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
    return [
        f'{row["row"]}: "{text}" does not stand at character {start} of its context, where '
        f'"{row["context"][start : start + len(text)]}" stands.'
        for text, start in answers
        if row["context"][start : start + len(text)] != text
    ]
