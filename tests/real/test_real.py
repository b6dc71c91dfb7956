"""Public data beside the checkout: files as they are found in the world."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

import ftkit
from ftkit.data.columns import guess_text_columns
from tests.benchmarks.baselines import majority_accuracy, tfidf_margins

DATASETS = Path(__file__).parent.parent.parent.parent / "shared" / "datasets"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATASETS.is_dir(), reason="no public data sets beside the checkout"),
]


def test_mrpc_with_its_bare_quotes_loads_whole():
    splits = ftkit.load_splits(DATASETS / "mrpc")
    sizes = {name: (len(split), Counter(split["label"])["1"]) for name, split in splits.items()}
    assert sizes == {"train": (3668, 2474), "validation": (408, 279), "test": (1725, 1147)}
    task = ftkit.SequenceClassification.infer(splits)
    assert (task.text_columns, task.labels) == (("sentence1", "sentence2"), ("0", "1"))
    task.check(splits)


def test_mrpc_baselines_are_the_known_ones():
    splits = ftkit.load_splits(DATASETS / "mrpc")
    assert majority_accuracy(splits["train"], splits["test"]) == pytest.approx(0.665, abs=5e-4)
    predicted = tfidf_margins(splits, ("sentence1", "sentence2"), "label", "1") > 0
    labels = np.array(splits["test"]["label"]) == "1"
    assert 0.70 < (predicted == labels).mean() < 0.76
    assert 0.79 < f1_score(labels, predicted) < 0.83


def test_the_leak_of_a_famous_benchmark_is_found():
    """331 of 1200 test texts, and 338 of 1200 validation texts, stand in train."""
    splits = ftkit.load_splits(DATASETS / "chnsenticorp")
    (column,) = guess_text_columns(
        splits["train"], [name for name in splits["train"].column_names if "text" in name]
    )
    leaks = ftkit.find_leaks(splits, [column])
    assert len(leaks["train", "validation"]) == pytest.approx(338, abs=4)
    assert len(leaks["train", "test"]) == pytest.approx(331, abs=4)
    assert not any(
        "test" in pair for pair in ftkit.find_leaks(ftkit.remove_leaks(splits, [column]), [column])
    )


def test_tagged_words_load_directly():
    read = ftkit.data.read_table
    sentences = read(DATASETS / "wnut17" / "wnut17train.conll")
    assert len(sentences) == 3394
    assert {tag[:2] for tags in sentences["tags"] for tag in tags} == {"B-", "I-", "O"}


def test_squad_loads_directly():
    questions = ftkit.data.read_table(
        DATASETS / "squad_slice" / "derived_train_only_17articles.json"
    )
    assert len(questions) == 3939
    assert len(set(questions["title"])) == 17
