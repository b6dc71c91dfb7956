"""The bundled Chinese reviews are what their card says, and no single cue gives the label away."""

import importlib.util
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

import ftkit
from ftkit.paths import bundled

LABELS = ("positive", "negative")
KINDS = ("ordinary", "plain", "negation", "mixed", "irony", "comparison", "expectation")
MINIMUM_ROWS = {"train": 1250, "validation": 280, "test": 500}


@pytest.fixture(scope="module")
def reviews() -> DatasetDict:
    return ftkit.load_splits("reviews_zh")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", bundled("reviews_zh/build.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accuracy_by_kind(reviews: DatasetDict, split: str) -> dict[str, float]:
    """Fit TF-IDF on characters and a logistic regression on train; score a split by kind."""
    classifier = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3)), LogisticRegression(max_iter=2000)
    )
    classifier.fit(list(reviews["train"]["text"]), list(reviews["train"]["label"]))
    rows = reviews[split]
    right = classifier.predict(list(rows["text"])) == np.array(rows["label"])
    kinds = np.array(rows["kind"])
    by_kind = {kind: float(right[kinds == kind].mean()) for kind in KINDS}
    return {"all": float(right.mean())} | by_kind


def accuracy_on_pieces(reviews: DatasetDict, cut: Callable[[str], str]) -> float:
    """Score on test the same classifier when it sees only a piece of each text."""
    pieces = {
        name: Dataset.from_dict(
            {
                "text": [cut(text) for text in split["text"]],
                "label": list(split["label"]),
                "kind": list(split["kind"]),
            }
        )
        for name, split in reviews.items()
    }
    return accuracy_by_kind(DatasetDict(pieces), "test")["all"]


def test_the_files_are_what_the_builder_draws(reviews: DatasetDict, build: ModuleType) -> None:
    for name, rows in build.build().items():
        assert reviews[name].remove_columns("row").to_list() == rows


def test_the_builder_writes_the_same_bytes(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bundled("reviews_zh/reviews.jsonl")
    (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    build.main()
    for name in MINIMUM_ROWS:
        assert (tmp_path / f"{name}.csv").read_bytes() == (
            bundled(f"reviews_zh/{name}.csv").read_bytes()
        )


def test_the_card_states_the_counts(reviews: DatasetDict) -> None:
    card = bundled("reviews_zh/README.md").read_text(encoding="utf-8")
    for name, split in reviews.items():
        subjects, labels, kinds = (Counter(split[c]) for c in ("subject", "label", "kind"))
        counts = [len(subjects), len(split), *(labels[label] for label in LABELS)]
        cells = [name, *counts, *(kinds[kind] for kind in KINDS)]
        assert f"| {' | '.join(str(cell) for cell in cells)} |" in card


def test_no_subject_and_no_text_stands_in_two_splits(reviews: DatasetDict) -> None:
    for column in ("subject", "text"):
        one, other, third = (set(split[column]) for split in reviews.values())
        assert len(one | other | third) == len(one) + len(other) + len(third)
    assert ftkit.find_leaks(reviews, ("text",)) == {}
    assert all(len(set(split["text"])) == len(split) for split in reviews.values())


def test_the_splits_are_large_enough_and_balanced(reviews: DatasetDict) -> None:
    assert sum(len(split) for split in reviews.values()) >= 2050
    for name, split in reviews.items():
        assert len(split) >= MINIMUM_ROWS[name]
        assert set(split["label"]) == set(LABELS)
        assert 0.48 <= np.mean(np.array(split["label"]) == "positive") <= 0.52
        assert set(split["kind"]) == set(KINDS)
        assert 0.46 <= np.mean(np.array(split["kind"]) == "ordinary") <= 0.52


def test_every_subject_has_both_labels_in_near_balance(build: ModuleType) -> None:
    labels = defaultdict(list)
    for review in build.read_reviews():
        labels[review["subject"]].append(review["label"])
    assert len(labels) >= 120
    for found in labels.values():
        assert 15 <= len(found) <= 18
        assert abs(found.count("positive") - found.count("negative")) <= 1


def test_every_text_is_one_short_line_with_full_width_punctuation(build: ModuleType) -> None:
    for review in build.read_reviews():
        assert 12 <= len(review["text"]) <= 90
        assert not set(review["text"]) & set(",!?;:\"'()\n\r\t")


def test_characters_alone_reach_what_the_card_says(reviews: DatasetDict) -> None:
    """Enough signal to learn from, and room above: the card gives 0.783 and 0.792."""
    test, validation = (accuracy_by_kind(reviews, name) for name in ("test", "validation"))
    assert 0.75 <= test["all"] <= 0.82
    assert 0.75 <= validation["all"] <= 0.83
    assert test["ordinary"] > 0.85
    assert test["irony"] <= 0.65


def test_words_of_praise_tell_something_where_people_say_what_they_think(
    reviews: DatasetDict,
) -> None:
    """The card gives 85 % and 48 %, of the reviews in which such a word stands."""
    words = json.loads(bundled("reviews_zh/words.json").read_text(encoding="utf-8"))
    praise, blame = (re.compile("|".join(words[mood])) for mood in ("praise", "blame"))
    right: dict[bool, list[bool]] = {True: [], False: []}
    for row in (row for split in reviews.values() for row in split):
        balance = len(praise.findall(row["text"])) - len(blame.findall(row["text"]))
        if balance:
            said = row["kind"] == "ordinary"
            right[said].append((balance > 0) == (row["label"] == "positive"))
    assert round(float(np.mean(right[True])), 2) == 0.85
    assert round(float(np.mean(right[False])), 2) == 0.48


def test_length_and_kind_tell_next_to_nothing(reviews: DatasetDict) -> None:
    """A tree on the length and one on the kind must stay near the coin (0.5)."""
    features: dict[str, Callable[[dict], list[float]]] = {
        "length": lambda row: [len(row["text"])],
        "kind": lambda row: [float(row["kind"] == kind) for kind in KINDS],
    }
    for feature in features.values():
        tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=15, random_state=0)
        tree.fit([feature(row) for row in reviews["train"]], list(reviews["train"]["label"]))
        rows = reviews["test"]
        assert tree.score([feature(row) for row in rows], list(rows["label"])) <= 0.6


def test_the_first_and_the_last_characters_tell_little(reviews: DatasetDict) -> None:
    """Openings and endings are natural, so they tell a little; they must not tell the label."""
    assert accuracy_on_pieces(reviews, lambda text: text[:4]) <= 0.66
    assert accuracy_on_pieces(reviews, lambda text: text[-5:]) <= 0.66
