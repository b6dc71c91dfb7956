"""Real questions beside the checkout: every answer survives encoding, decoding and scoring."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

import ftkit
from tests.benchmarks.squad import TASK, read_answers, score, split_articles

FOLDER = Path(__file__).parent.parent.parent.parent / "shared" / "datasets" / "squad_slice"
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no public data sets beside the checkout"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ftkit.models.locate("minilm"))


def test_the_articles_of_train_and_test_differ():
    splits = split_articles(FOLDER)
    assert {name: len(split) for name, split in splits.items()} == {"train": 3382, "test": 557}
    assert not set(splits["train"]["title"]) & set(splits["test"]["title"])
    assert len(split_articles(FOLDER, 100)["test"]) == 100


def test_a_model_that_knows_all_answers_scores_nearly_one(tokenizer):
    """Logits that are high at the labels alone: what is lost is lost by windows and tokens."""
    encoded = TASK.encode(split_articles(FOLDER, 500), tokenizer)["test"]
    outputs = []
    for row in encoded:
        logits = np.zeros((2, len(row["input_ids"])), dtype=np.float32)
        logits[0, row["start_positions"]] = logits[1, row["end_positions"]] = 9.0
        outputs.append(logits)
    questions = TASK.references(encoded)
    sums = TASK.row_statistics(outputs, questions).sum(axis=0)
    metrics = {name: float(value) for name, value in TASK.metrics(sums).items()}
    assert len(encoded) > len(questions) == 500  # some contexts need several windows
    assert metrics["exact_match"] > 0.98  # an answer may begin or end within a word
    assert metrics["f1"] > 0.99
    width = max(logits.shape[1] for logits in outputs)
    padded = np.stack([np.pad(o, ((0, 0), (0, width - o.shape[1]))) for o in outputs], axis=1)
    reference = score(list(read_answers(encoded, *padded)))
    assert metrics["exact_match"] == pytest.approx(reference["exact_match"], abs=1e-9)
    assert metrics["f1"] == pytest.approx(reference["f1"], abs=1e-9)
