"""Files with marked parts: what is read, and what is refused."""

import json

import pytest

from ftkit.data.annotated import parse_conll, parse_squad
from tests.conftest import message

CONLL = "-DOCSTART- -X- O O\n\nAnn\tB-PER\nO'Brien\tI-PER\nsings\tO\n\n\nIn NNP O\nRome NNP B-LOC\n"


def squad(**changes):
    answer = {"text": "Rome", "answer_start": 13, **changes}
    question = {"id": "q1", "question": "Where?", "answers": [answer]}
    paragraph = {"context": "Ann lives in Rome.", "qas": [question]}
    return json.dumps({"version": "1.1", "data": [{"title": "Ann", "paragraphs": [paragraph]}]})


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_sentences_and_tags(end):
    rows = parse_conll(CONLL.replace("\n", end), "a.conll")
    assert [row["tokens"] for row in rows] == [["Ann", "O'Brien", "sings"], ["In", "Rome"]]
    assert [row["tags"] for row in rows] == [["B-PER", "I-PER", "O"], ["O", "B-LOC"]]
    assert [row["row"] for row in rows] == ["a.conll, row 3", "a.conll, row 8"]


def test_words_without_a_tag_are_told_all_at_once():
    assert message(parse_conll, "Ann\nsings\tO\nloud\n", "a.conll").splitlines() == [
        'a.conll, row 1: "Ann" has no tag; expected a word and its tag.',
        'a.conll, row 3: "loud" has no tag; expected a word and its tag.',
    ]


def test_questions_and_answers():
    (row,) = parse_squad(squad(), "a.json")
    assert row["answers"] == {"text": ["Rome"], "answer_start": [13]}
    assert (row["id"], row["title"], row["row"]) == ("q1", "Ann", "a.json, question q1")


def test_an_answer_that_stands_elsewhere():
    assert message(parse_squad, squad(answer_start=4), "a.json") == (
        'a.json, question q1: "Rome" does not stand at character 4 of its context, where "live" '
        "stands."
    )


@pytest.mark.parametrize("text", ["[1]", "{}", '{"data": [{"title": "x"}]}', '{"data": 3}'])
def test_json_of_another_form(text):
    assert message(parse_squad, text, "a.json").startswith(
        "a.json: not in the form of SQuAD v1.1 ("
    )


def test_not_json():
    assert message(parse_squad, "{", "a.json").startswith("a.json: not JSON (")
