"""The order of batches, and their padding."""

import random

import pytest
import torch
from datasets import Dataset

from ftkit.data.batches import (
    collate,
    epoch_order,
    length_order,
    micro_batches,
    row_lengths,
)


@pytest.fixture
def ragged() -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [[7] * n for n in (3, 1, 4, 2)],
            "attention_mask": [[1] * n for n in (3, 1, 4, 2)],
            "labels": [0, 1, 1, 0],
            "row": list("abcd"),
        }
    )


def test_every_row_once_and_similar_lengths_together():
    rng = random.Random(0)
    lengths = [rng.randrange(5, 90) for _ in range(1000)]
    order = epoch_order(lengths, batch_size=16, seed=3, epoch=0)
    assert sorted(sum(order, [])) == list(range(1000))
    assert max(map(len, order)) == 16
    tokens = sum(max(lengths[i] for i in batch) * len(batch) for batch in order)
    shuffled = epoch_order([1] * 1000, batch_size=16, seed=3, epoch=0)
    unsorted = sum(max(lengths[i] for i in batch) * len(batch) for batch in shuffled)
    assert tokens < 1.1 * sum(lengths) < 1.3 * sum(lengths) < unsorted


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    lengths = list(range(200))
    torch.manual_seed(5)
    one = epoch_order(lengths, 8, seed=1, epoch=2)
    torch.manual_seed(6)
    assert epoch_order(lengths, 8, seed=1, epoch=2) == one
    assert epoch_order(lengths, 8, seed=1, epoch=3) != one
    assert epoch_order(lengths, 8, seed=2, epoch=2) != one


def test_batches_do_not_come_sorted_by_length():
    order = epoch_order(list(range(800)), 8, seed=0, epoch=0)
    firsts = [batch[0] for batch in order]
    assert firsts != sorted(firsts)
    assert firsts != sorted(firsts, reverse=True)


def test_evaluation_order_holds_every_row_once():
    assert length_order([3, 1, 4, 2], 3) == [[2, 0, 3], [1]]


def test_row_lengths_after_select(ragged):
    assert row_lengths(ragged).tolist() == [3, 1, 4, 2]
    assert row_lengths(ragged.select([2, 1])).tolist() == [4, 1]


def test_padding(ragged):
    batch = collate(ragged, [1, 0], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[7, 9, 9], [7, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [1, 0]
    assert "row" not in batch


def test_token_labels_are_padded_with_what_the_loss_ignores():
    data = Dataset.from_dict({"input_ids": [[5], [6, 7]], "labels": [[1], [0, 1]]})
    assert collate(data, [0, 1])["labels"].tolist() == [[1, -100], [0, 1]]


def test_micro_batches_hold_the_same_rows(ragged):
    batch = collate(ragged, [0, 1, 2])
    parts = micro_batches(batch, 2)
    assert [len(part["labels"]) for part in parts] == [2, 1]
    assert torch.equal(torch.cat([part["input_ids"] for part in parts]), batch["input_ids"])
    assert len(micro_batches(batch, 8)) == 3
