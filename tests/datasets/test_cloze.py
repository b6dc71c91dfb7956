"""The bundled cloze questions are what their card says, and share no text with other splits."""

import importlib.util
import json
from collections import Counter
from types import ModuleType

import pytest

from ftkit.paths import bundled
from tests.datasets.test_questions import (
    SPLITS,
    closest_sentence,
    read_paragraphs,
    read_questions,
    score,
)

WORDS = ("what", "where", "who", "how", "when")


@pytest.fixture(scope="module")
def squads() -> dict[str, dict]:
    """The three files."""
    return {s: json.loads(bundled(f"cloze/{s}.json").read_text("utf-8")) for s in SPLITS}


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The builder, as a module."""
    spec = importlib.util.spec_from_file_location("build", bundled("cloze/build.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def card() -> str:
    """The data card."""
    return bundled("cloze/README.md").read_text("utf-8")


def test_the_files_are_what_the_builder_writes(build, tmp_path, monkeypatch) -> None:
    for name in ("questions", "stories", "summaries"):
        (tmp_path / name).symlink_to(bundled(name))
    (tmp_path / "cloze").mkdir()
    monkeypatch.setattr(build, "FOLDER", tmp_path / "cloze")
    build.main()
    for name in SPLITS:
        written = (tmp_path / "cloze" / f"{name}.json").read_bytes()
        assert written == bundled(f"cloze/{name}.json").read_bytes()


def test_the_card_states_the_counts(squads, card) -> None:
    for name, squad in squads.items():
        questions = list(read_questions(squad))
        row = f"| {name} | {len(read_paragraphs(squad))} | {len(questions)} |"
        kinds = Counter(question.text.split()[0] for question in questions)
        assert set(kinds) <= set(WORDS)
        assert " ".join([row, *(f"{kinds[word]} |" for word in WORDS)]) in card


def test_every_answer_stands_once_and_where_its_offset_says(squads) -> None:
    for squad in squads.values():
        for question in read_questions(squad):
            (answer,) = question.answers
            assert question.context.count(answer["text"]) == 1
            assert question.context.index(answer["text"]) == answer["answer_start"]
            assert 1 <= len(answer["text"].split()) <= 4
            assert len(question.text.split()) >= 5


def test_no_question_stands_twice(squads) -> None:
    everything = [question for squad in squads.values() for question in read_questions(squad)]
    assert len({question.name for question in everything}) == len(everything) == 1700
    assert len({question.text for question in everything}) == len(everything)


def test_each_split_is_cut_out_of_the_same_split_of_its_sources(squads, build) -> None:
    texts = {s: [" ".join(text.split()) for _, text in build.read_texts(s)] for s in SPLITS}
    for split, squad in squads.items():
        others = [text for other in SPLITS if other != split for text in texts[other]]
        for paragraph in read_paragraphs(squad):
            assert any(paragraph["context"] in text for text in texts[split])
            assert not any(paragraph["context"] in text for text in others)


def test_the_card_states_what_the_closest_sentence_scores(squads, card) -> None:
    figures, shares = [], []
    for squad in squads.values():
        questions = list(read_questions(squad))
        guesses = [closest_sentence(question) for question in questions]
        exact, overlap = score(guesses, questions)
        hits = [q.answers[0]["text"] in guess for q, guess in zip(questions, guesses, strict=True)]
        figures.append(f"{exact:.3f} / {overlap:.3f}")
        shares.append(f"{sum(hits) / len(hits):.3f}")
    assert f"| {' | '.join(figures)} |" in card
    assert f"| {' | '.join(shares)} |" in card
