"""WNUT-17 beside the checkout: labels as a script with Trainer makes them, and as good a model."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

import ftkit
from ftkit.models.loading import locate
from ftkit.tasks.tokens.words import TruncationWarning
from tests.benchmarks.wnut17 import SETTINGS, align, read, with_ftkit, with_trainer

FOLDER = Path(__file__).parent.parent.parent.parent / "shared" / "datasets" / "wnut17"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no public data sets beside the checkout"),
]


@pytest.mark.filterwarnings("ignore::ftkit.LeakWarning")
def test_every_label_stands_where_the_documented_way_puts_it():
    splits = read(FOLDER)
    sizes = {name: (len(split), sum(map(len, split["tags"]))) for name, split in splits.items()}
    assert sizes == {"train": (3394, 62730), "validation": (1009, 15733), "test": (1287, 23394)}
    task = ftkit.TokenClassification.infer(splits)
    assert len(task.types) == 6
    tokenizer = AutoTokenizer.from_pretrained(locate("minilm"))
    with pytest.warns(TruncationWarning) as caught:  # variation selectors, which BERT drops
        encoded = task.encode(splits, tokenizer)
    assert "are nothing to the tokenizer" in str(caught[-1].message)
    for name, split in align(splits, tokenizer, list(task.labels)).items():
        for column in ("input_ids", "labels"):
            assert list(encoded[name][column]) == list(split[column])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_short_training_is_as_good_as_trainers():
    """Few sentences, small batches: a band of some points, not the one of the whole run."""
    splits = read(FOLDER, {"validation": 200, "test": 400})
    named = [i for i, tags in enumerate(splits["train"]["tags"]) if set(tags) != {"O"}]
    splits["train"] = splits["train"].select(named[:480])
    settings = {**SETTINGS, "learning_rate": 4e-4, "batch_size": 8}
    ours, theirs = (run(splits, 42, settings) for run in (with_ftkit, with_trainer))
    assert min(ours, theirs) > 0.08
    assert abs(ours - theirs) < 0.1
