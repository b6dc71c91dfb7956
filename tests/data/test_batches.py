"""The order of batches, and their padding."""

import random
from unittest.mock import MagicMock

import pytest
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets

from ftkit.data.batches import (
    class_labels,
    collate,
    column_hashes,
    epoch_order,
    length_order,
    micro_batches,
    row_lengths,
    to_device,
)
from tests.conftest import message


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


def plain_collate(dataset, rows, pad):
    """Row by row in Python: what the Arrow buffers must give."""
    batch = {}
    for name in set(dataset.column_names) - {"row"}:
        values = [dataset[i][name] for i in rows]
        if isinstance(values[0], list):
            longest = max(map(len, values))
            fill = {"labels": -100, "input_ids": pad}.get(name, 0)
            values = [value + [fill] * (longest - len(value)) for value in values]
        batch[name] = torch.tensor(values)
    return batch


WIDTHS = {
    "input_ids": List(Value("int32")),
    "attention_mask": List(Value("int8")),
    "token_type_ids": List(Value("int64")),
    "labels": List(Value("int64")),
}


@pytest.mark.parametrize("labels", [[[1, -100]] * 40, [3] * 40, [0.5] * 40, [True] * 40])
@pytest.mark.parametrize("change", ["plain", "shuffled", "selected", "torch", "joined"])
def test_buffers_give_what_a_loop_over_rows_gives(change, labels):
    rng = random.Random(0)
    lists = [[rng.randrange(100) for _ in range(rng.randint(1, 9))] for _ in range(40)]
    columns = {"input_ids": lists, "attention_mask": [[1] * len(ids) for ids in lists]}
    columns |= {"token_type_ids": [[i % 2 for i in ids] for ids in lists], "labels": labels}
    kinds = {**WIDTHS, "labels": WIDTHS["labels"]} if isinstance(labels[0], list) else None
    data = Dataset.from_dict(columns, features=Features(kinds) if kinds else None)
    data = {
        "plain": lambda: data,
        "shuffled": lambda: data.shuffle(seed=1),
        "selected": lambda: data.select([7, 3, 3, *range(20)]),
        "torch": lambda: data.with_format("torch"),
        "joined": lambda: concatenate_datasets([data, data.shuffle(seed=2)]),
    }[change]()
    rows = [5, 0, 19, 5]
    expected = plain_collate(data.with_format(None), rows, 9)
    found = collate(data, rows, pad_token_id=9)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def test_lists_of_a_fixed_size():
    kinds = Features({"input_ids": List(Value("int64"), length=3), "labels": Value("int64")})
    data = Dataset.from_dict(
        {"input_ids": [[1, 2, 3], [4, 5, 6]], "labels": [0, 1]}, features=kinds
    )
    assert row_lengths(data).tolist() == [3, 3]
    assert collate(data, [1, 0])["input_ids"].tolist() == [[4, 5, 6], [1, 2, 3]]


def test_padding_to_few_lengths(ragged):
    shapes = {"pad_to_multiple_of": 8, "max_length": 16}
    batch = collate(ragged, [0, 1], **shapes)
    assert {t.shape for n, t in batch.items() if n != "labels"} == {(2, 8)}
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 1]
    assert collate(ragged, [2], pad_to_multiple_of=8, max_length=0)["input_ids"].shape == (1, 4)


def test_a_missing_value_is_refused():
    data = Dataset.from_dict({"input_ids": [[1], [2]], "labels": [0, None]})
    assert message(collate, data, [0, 1]).startswith('"labels" in one of the rows [0, 1]: a value')


def test_hashes_know_values_and_order_but_no_storage(ragged):
    hashes = column_hashes(ragged)
    assert set(hashes) == {"input_ids", "attention_mask", "labels"}  # a row's name may change
    assert column_hashes(ragged.shuffle(seed=0).select([0, 1, 2, 3])) != hashes
    order = ragged.shuffle(seed=0)["row"]
    back = ragged.shuffle(seed=0).select([order.index(letter) for letter in "abcd"])
    assert column_hashes(back) == hashes
    narrow = ragged.cast_column("labels", Value("int8")).with_format("torch")
    assert column_hashes(narrow) == hashes
    other = ragged.map(lambda row: {"labels": 1 - row["labels"]})
    changed = {name for name, value in column_hashes(other).items() if value != hashes[name]}
    assert changed == {"labels"}
    moved = Dataset.from_dict({"x": [[1, 2], [3]]}), Dataset.from_dict({"x": [[1], [2, 3]]})
    assert column_hashes(moved[0]) != column_hashes(moved[1])


def test_hashes_of_text_and_nested_lists():
    columns = {"answers": [["a", "b"], []], "offsets": [[[0, 1], [1, 2]], [[3, 4]]]}
    data = Dataset.from_dict(columns)
    assert column_hashes(data) == column_hashes(Dataset.from_dict(columns))
    columns["answers"] = [["a"], ["b"]]
    assert column_hashes(Dataset.from_dict(columns)) != column_hashes(data)


def test_class_labels_are_those_of_whole_rows(ragged):
    assert class_labels(ragged).tolist() == [0, 1, 1, 0]
    assert class_labels(ragged.remove_columns("labels")) is None
    assert class_labels(Dataset.from_dict({"labels": [[1], [2]]})) is None
    assert class_labels(Dataset.from_dict({"labels": [0.5, 1.0]})) is None


def test_a_gpu_gets_its_batch_through_pinned_memory():
    tensor = MagicMock()
    found = to_device({"labels": tensor}, torch.device("cuda", 0))
    tensor.pin_memory().to.assert_called_once_with(torch.device("cuda", 0), non_blocking=True)
    assert found == {"labels": tensor.pin_memory().to()}
