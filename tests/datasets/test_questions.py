"""The bundled questions are what their card says, and word overlap alone does not answer them."""

import importlib.util
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from ftkit.paths import bundled

SPLITS = ("train", "validation", "test")
FIRST_WORDS = ("what", "how", "which", "who", "why", "where", "when", "other")
NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million half"
)
FUNCTION_WORDS = (
    "a an the and but or so as if in on at to of by for from with since after before when while "
    "i you he she it we they my your his her its our their this that there these is was"
)


class Question(NamedTuple):
    """One question with its paragraph."""

    name: str
    text: str
    context: str
    answers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def squads() -> dict[str, dict]:
    """The three files."""
    return {s: json.loads(bundled(f"questions/{s}.json").read_text("utf-8")) for s in SPLITS}


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The builder, as a module."""
    spec = importlib.util.spec_from_file_location("build", bundled("questions/build.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def card() -> str:
    """The data card."""
    return bundled("questions/README.md").read_text("utf-8")


def read_paragraphs(squad: dict) -> list[dict]:
    return [paragraph for entry in squad["data"] for paragraph in entry["paragraphs"]]


def read_questions(squad: dict) -> Iterator[Question]:
    for paragraph in read_paragraphs(squad):
        for item in paragraph["qas"]:
            yield Question(item["id"], item["question"], paragraph["context"], item["answers"])


def normalise(text: str) -> list[str]:
    """Return the words as SQuAD's scorer sees them."""
    plain = "".join(c for c in text.lower() if c not in string.punctuation)
    return [word for word in plain.split() if word not in ("a", "an", "the")]


def token_f1(prediction: str, answer: str) -> float:
    words, gold = normalise(prediction), normalise(answer)
    common = (Counter(words) & Counter(gold)).total()
    return 2 * common / (len(words) + len(gold)) if common else 0.0


def split_sentences(context: str) -> list[str]:
    return re.split(r'(?<=[.!?])["\')]*\s+(?=["\']?[A-Z0-9])', context)


def closest_sentence(question: Question) -> str:
    """Return the sentence that shares most words with the question, the first among equals."""
    asked = set(normalise(question.text))
    sentences = split_sentences(question.context)
    return max(sentences, key=lambda sentence: len(asked & set(normalise(sentence))))


def is_name_or_number(word: str) -> bool:
    word = word.strip(string.punctuation)
    parts = word.lower().split("-")
    if word.lower() in FUNCTION_WORDS.split():
        return False
    return word[:1].isupper() or word[:1].isdigit() or set(parts) <= set(NUMBERS.split())


def longest_run(question: Question) -> str:
    """Return the longest run of capitalised words or numbers that the question does not have."""
    asked, runs = set(normalise(question.text)), [[]]
    for word in closest_sentence(question).split():
        if is_name_or_number(word) and not asked & set(normalise(word)):
            runs[-1].append(word)
        elif runs[-1]:
            runs.append([])
        if word[-1] in ".,;:?!)" and runs[-1]:
            runs.append([])
    return " ".join(max(runs, key=len)).strip(string.punctuation)


def score(predictions: list[str], questions: list[Question]) -> tuple[float, float]:
    """Return exact match and F1, each the best over a question's answers."""
    exact = overlap = 0.0
    for prediction, question in zip(predictions, questions, strict=True):
        answers = [answer["text"] for answer in question.answers]
        exact += any(normalise(prediction) == normalise(answer) for answer in answers)
        overlap += max(token_f1(prediction, answer) for answer in answers)
    return exact / len(questions), overlap / len(questions)


def first_word(text: str) -> str:
    """Return the question's first word: `who` for whose and whom, `other` for a preposition."""
    word = normalise(text)[0]
    word = "who" if word in ("whose", "whom") else word
    return word if word in FIRST_WORDS else "other"


def test_the_files_are_what_the_builder_writes(
    squads: dict[str, dict],
    build: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = bundled("questions/paragraphs.jsonl").read_bytes()
    (tmp_path / "paragraphs.jsonl").write_bytes(source)
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    assert build.build() == squads
    build.main()
    for name in SPLITS:
        written = (tmp_path / f"{name}.json").read_bytes()
        assert written == bundled(f"questions/{name}.json").read_bytes()


def test_the_card_states_the_counts(squads: dict[str, dict], card: str) -> None:
    for name, squad in squads.items():
        questions = list(read_questions(squad))
        answers = sum(len(question.answers) for question in questions)
        row = f"| {name} | {len(read_paragraphs(squad))} | {len(questions)} | {answers} |"
        kinds = Counter(first_word(question.text) for question in questions)
        assert " ".join([row, *(f"{kinds[kind]} |" for kind in FIRST_WORDS)]) in card


def test_the_sizes_are_large_enough(squads: dict[str, dict]) -> None:
    questions = {name: list(read_questions(squad)) for name, squad in squads.items()}
    assert sum(len(read_paragraphs(squad)) for squad in squads.values()) >= 100
    assert len(questions["train"]) >= 200
    assert len(questions["validation"]) >= 45
    assert len(questions["test"]) >= 80


def test_every_answer_stands_where_its_offset_says(squads: dict[str, dict]) -> None:
    for name, squad in squads.items():
        for question in read_questions(squad):
            texts = [answer["text"] for answer in question.answers]
            assert len(texts) == len(set(texts)) <= (1 if name == "train" else 3)
            for answer in question.answers:
                start = answer["answer_start"]
                assert question.context[start:].startswith(answer["text"])
                assert 1 <= len(answer["text"].split()) <= 8


def test_paragraphs_are_short_and_have_three_or_four_questions(squads: dict[str, dict]) -> None:
    for squad in squads.values():
        for paragraph in read_paragraphs(squad):
            assert 60 <= len(paragraph["context"].split()) <= 140
            assert 3 <= len(paragraph["qas"]) <= 4


def test_nothing_stands_twice(squads: dict[str, dict]) -> None:
    everything = [question for squad in squads.values() for question in read_questions(squad)]
    assert len({question.name for question in everything}) == len(everything)
    assert len({question.text for question in everything}) == len(everything)
    for part in ("title", "context"):
        texts = [
            " ".join(normalise(entry["title"] if part == "title" else paragraph["context"]))
            for squad in squads.values()
            for entry in squad["data"]
            for paragraph in entry["paragraphs"]
        ]
        assert len(set(texts)) == len(texts)


def test_no_first_word_prevails(squads: dict[str, dict]) -> None:
    for squad in squads.values():
        kinds = Counter(first_word(question.text) for question in read_questions(squad))
        assert set(kinds) == set(FIRST_WORDS)
        assert max(kinds.values()) <= 0.35 * kinds.total()


@pytest.mark.parametrize("baseline", [closest_sentence, longest_run])
def test_word_overlap_does_not_answer(
    squads: dict[str, dict], card: str, baseline: Callable[[Question], str]
) -> None:
    """Below 0.25 exact match, there is something for a fine-tuned model to learn."""
    figures = []
    for squad in squads.values():
        questions = list(read_questions(squad))
        exact, overlap = score([baseline(question) for question in questions], questions)
        assert exact < 0.25
        figures.append(f"{exact:.3f} / {overlap:.3f}")
    assert f"| {' | '.join(figures)} |" in card


def test_the_closest_sentence_often_lacks_the_answer(squads: dict[str, dict], card: str) -> None:
    shares = []
    for squad in squads.values():
        questions = list(read_questions(squad))
        hits = [any(a["text"] in closest_sentence(q) for a in q.answers) for q in questions]
        shares.append(f"{sum(hits) / len(hits):.3f}")
        assert sum(hits) / len(hits) <= 0.75
    assert f"| {' | '.join(shares)} |" in card
