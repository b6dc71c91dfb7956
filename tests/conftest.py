"""A two-layer random BERT and a small labelled data set, made afresh for each test run."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase

import pytest
import torch
from datasets import DatasetDict
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

import ftkit
from ftkit.cli.notebooks import QUIET
from ftkit.models.fetching import is_fetched

os.environ.update(QUIET)  # no progress bars in what nbval compares

ADJECTIVES = {"good": ("fine", "lovely", "great", "warm"), "bad": ("awful", "cold", "poor", "dull")}
NOUNS = ("soup", "room", "film", "song", "walk", "book", "train", "cake", "coat", "game")


def sentences(label: str) -> list[str]:
    """Return forty different sentences of one class."""
    return [f"the {noun} was {word} today" for noun in NOUNS for word in ADJECTIVES[label]]


def write_csv(path: Path, rows: list[dict]) -> Path:
    """Write rows as CSV, their keys as the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def message(call: Callable[..., object], *args: object, **options: object) -> str:
    """Return what the error says that this call must end with."""
    with pytest.raises(ftkit.FtkitError) as caught:
        call(*args, **options)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with train, validation and test CSV files: one text, two classes, 80 rows in all."""
    for split, part in {
        "train": slice(0, 28),
        "validation": slice(28, 34),
        "test": slice(34, 40),
    }.items():
        rows = [
            {"text": text, "label": label}
            for label in ADJECTIVES
            for text in sentences(label)[part]
        ]
        write_csv(tmp_path / "reviews" / f"{split}.csv", rows)
    return tmp_path / "reviews"


@pytest.fixture
def splits(folder: Path) -> DatasetDict:
    """The splits of `folder`."""
    return ftkit.load_splits(folder)


@pytest.fixture(scope="session")
def task() -> ftkit.SequenceClassification:
    """One text, two classes."""
    return ftkit.SequenceClassification(("text",), ("bad", "good"))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer for the sentences above, with BERT's special tokens."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted(set(" ".join([*sentences("good"), *sentences("bad")]).split()))
    letters = [prefix + letter for prefix in ("", "##") for letter in ascii_lowercase]
    vocabulary = {token: i for i, token in enumerate([*special, *letters, *words])}
    inner = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": token for name, token in names.items()},
    )


def tiny_config(**options: object) -> BertConfig:
    """Two layers, 32 wide."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes["initializer_range"] = 0.1  # type: ignore[assignment]  # learns within a few steps
    return BertConfig(vocab_size=200, intermediate_size=64, **{**sizes, **options})


@pytest.fixture
def model() -> BertForSequenceClassification:
    """A two-layer random BERT with a head for two classes; the same weights in every test."""
    torch.manual_seed(0)
    return BertForSequenceClassification(tiny_config(num_labels=2)).eval()


@pytest.fixture(scope="session")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Path:
    """A folder with a random masked language model, as a hub repository would hold it."""
    path = tmp_path_factory.mktemp("checkpoints") / "tiny-bert"
    torch.manual_seed(1)
    BertForMaskedLM(tiny_config()).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own, to damage."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def need_fetched(name: str) -> None:
    """Skip the test where a model is not in this machine's cache; `make test` fetches it."""
    if not is_fetched(name):
        pytest.skip(f"{name} is not fetched; `ftkit fetch {name}` brings it")


@pytest.fixture
def encoded(splits: DatasetDict, task, tokenizer) -> DatasetDict:
    """The encoded splits of `folder`."""
    return task.encode(splits, tokenizer)
