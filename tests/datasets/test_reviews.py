"""The bundled reviews are what their card says, and words alone do not give the labels away."""

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from datasets import Dataset, DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

import ftkit
from ftkit.paths import bundled
from tests.benchmarks.baselines import majority_accuracy

FOLDER = bundled("reviews/train.csv").parent
LABELS = ("negative", "neutral", "positive")
KINDS = ("plain", "negation", "mixed", "irony", "comparison", "expectation")
MINIMUM = {"train": 640, "validation": 140, "test": 250}


@pytest.fixture(scope="module")
def reviews() -> DatasetDict:
    return ftkit.load_splits(FOLDER)


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_reviews", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def card() -> str:
    return (FOLDER / "README.md").read_text(encoding="utf-8")


def all_rows(reviews: DatasetDict, column: str) -> list[str]:
    return [value for split in reviews.values() for value in split[column]]


def length_accuracy(train: Dataset, test: Dataset) -> float:
    """Accuracy of a classifier that sees the number of words and nothing else."""
    seen, unseen = ([[len(text.split())] for text in split["text"]] for split in (train, test))
    classifier = LogisticRegression(max_iter=2000).fit(seen, list(train["label"]))
    return float(classifier.score(unseen, list(test["label"])))


def test_the_files_are_what_the_builder_draws(reviews: DatasetDict, build: ModuleType) -> None:
    for name, rows in build.build().items():
        assert reviews[name].remove_columns("row").to_list() == rows


def test_the_files_are_rewritten_byte_for_byte(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reviews.jsonl").write_bytes((FOLDER / "reviews.jsonl").read_bytes())
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    build.main()
    for name in MINIMUM:
        assert (tmp_path / f"{name}.csv").read_bytes() == (FOLDER / f"{name}.csv").read_bytes()


def test_the_card_states_the_counts(reviews: DatasetDict, card: str) -> None:
    for name, split in reviews.items():
        subjects, labels = len(set(split["subject"])), Counter(split["label"])
        counts = " | ".join(str(labels[label]) for label in LABELS)
        assert f"| {name} | {subjects} | {len(split):,} | {counts} |" in card
    both = Counter(zip(all_rows(reviews, "kind"), all_rows(reviews, "label"), strict=True))
    for kind in KINDS:
        row = next(line for line in card.splitlines() if line.startswith(f"| {kind} |"))
        assert row.endswith(f"| {' | '.join(str(both[kind, label]) for label in LABELS)} |")


def test_no_subject_and_no_text_stands_in_two_splits(reviews: DatasetDict) -> None:
    for column in ("subject", "text"):
        one, other, third = (set(split[column]) for split in reviews.values())
        assert len(one | other | third) == len(one) + len(other) + len(third)
    assert ftkit.find_leaks(reviews, ["text"]) == {}
    texts = all_rows(reviews, "text")
    assert len(set(texts)) == len(texts)


def test_splits_are_large_and_balanced(reviews: DatasetDict) -> None:
    for name, split in reviews.items():
        assert len(split) >= MINIMUM[name]
        assert set(split["label"]) == set(LABELS)
        assert max(Counter(split["label"]).values()) / len(split) <= 0.36
        assert set(split["kind"]) == set(KINDS)
    assert len(set(all_rows(reviews, "subject"))) >= 120


def test_the_subject_does_not_tell_the_label(reviews: DatasetDict) -> None:
    both = Counter(zip(all_rows(reviews, "subject"), all_rows(reviews, "label"), strict=True))
    for subject in set(all_rows(reviews, "subject")):
        counts = [both[subject, label] for label in LABELS]
        assert min(counts) >= 1
        assert max(counts) <= sum(counts) / 2


def test_texts_are_short_and_clean(reviews: DatasetDict) -> None:
    for text in all_rows(reviews, "text"):
        assert 6 <= len(text.split()) <= 45
        assert text == " ".join(text.split())


def test_the_simple_baselines_stay_where_the_card_says(reviews: DatasetDict, card: str) -> None:
    """Between 0.50 and 0.66, words alone learn something and leave room for an encoder."""
    train, test = reviews["train"], reviews["test"]
    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=2000)
    ).fit(list(train["text"]), list(train["label"]))
    predicted = classifier.predict(list(test["text"]))
    right = sum(p == label for p, label in zip(predicted, test["label"], strict=True))
    assert 0.50 <= right / len(test) <= 0.66
    assert 0.50 <= f1_score(list(test["label"]), predicted, average="macro") <= 0.66
    majority = majority_accuracy(train, test)
    assert majority <= 0.36
    assert f"accuracy {majority:.3f}" in card


def test_the_length_does_not_tell_the_label(reviews: DatasetDict) -> None:
    """The majority is right on a third; the number of words must add little to that."""
    assert length_accuracy(reviews["train"], reviews["test"]) <= 0.42
