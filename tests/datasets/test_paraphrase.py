"""The bundled pairs are what their card says, and real enough to learn from."""

import importlib.util
from collections import Counter

import numpy as np
import pytest
from datasets import DatasetDict

import ftkit
from ftkit.paths import bundled
from tests.benchmarks.baselines import majority_accuracy, tfidf_margins

COLUMNS = ("sentence1", "sentence2")


@pytest.fixture(scope="module")
def paraphrase() -> DatasetDict:
    return ftkit.load_splits("paraphrase")


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", bundled("paraphrase/build.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_the_builder_draws(paraphrase, build):
    for name, rows in build.build().items():
        assert paraphrase[name].remove_columns("row").to_list() == rows


def test_the_card_states_the_counts(paraphrase):
    card = bundled("paraphrase/README.md").read_text(encoding="utf-8")
    for name, split in paraphrase.items():
        groups, labels = len(set(split["group"])), Counter(split["label"])
        near = sum(kind.startswith("near") for kind in split["kind"])
        row = f"| {name} | {groups} | {len(split):,} | {labels['paraphrase']} | "
        assert f"{row}{labels['different']} | {near} |" in card


def test_groups_have_seven_different_sentences(build):
    seen: Counter = Counter()
    for group in build.read_groups():
        others = [item["text"] for item in group["paraphrases"] + group["different"]]
        assert len(others) == 6
        seen.update([group["statement"], *others])
    assert max(seen.values()) == 1
    assert len(build.read_groups()) >= 400


def test_no_group_and_no_sentence_stands_in_two_splits(paraphrase):
    for column in ("group", *COLUMNS):
        one, other, third = (set(split[column]) for split in paraphrase.values())
        assert len(one | other | third) == len(one) + len(other) + len(third)
    assert ftkit.find_leaks(paraphrase, COLUMNS) == {}


def test_the_simple_baselines_stay_low(paraphrase):
    assert majority_accuracy(paraphrase["train"], paraphrase["test"]) <= 0.55
    margins = tfidf_margins(paraphrase, COLUMNS, "label", "paraphrase")
    right = (margins > 0) == (np.array(paraphrase["test"]["label"]) == "paraphrase")
    assert right.mean() <= 0.72


def test_one_sentence_alone_does_not_tell(paraphrase):
    """A classifier that sees only one sentence of each pair must stay near the coin."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    for column in COLUMNS:
        classifier = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=2000))
        train, test = paraphrase["train"], paraphrase["test"]
        classifier.fit(list(train[column]), list(train["label"]))
        assert classifier.score(list(test[column]), list(test["label"])) < 0.6
