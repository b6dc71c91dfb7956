"""Rows that stand in two splits are found, told and removed."""

import pytest
from datasets import Dataset, DatasetDict

import ftkit


@pytest.fixture
def leaky(splits) -> DatasetDict:
    twin = {"text": "  THE soup was   fine today", "label": "good", "row": "test.csv, row 14"}
    test = Dataset.from_list([*splits["test"].to_list(), twin])
    return DatasetDict({**splits, "test": test})


def test_case_and_spacing_do_not_hide_a_leak(leaky):
    assert ftkit.find_leaks(leaky, ["text"]) == {("train", "test"): [(0, 12)]}


def test_width_and_inserted_spaces_do_not_hide_a_leak():
    train = Dataset.from_dict({"text": ["房间很大，服务好", "ＡＢＣ very good"]})
    test = Dataset.from_dict({"text": ["abc VERY good", "房间 很大,服务好", "房间很小，服务好"]})
    leaks = ftkit.find_leaks(DatasetDict({"train": train, "test": test}), ["text"])
    assert leaks == {("train", "test"): [(1, 0), (0, 1)]}


def test_a_column_that_is_not_there(splits):
    with pytest.raises(ftkit.FtkitError, match='train.csv: no column "txet".*"text"'):
        ftkit.remove_leaks(splits, ["txet"])


def test_the_order_of_a_pair_does_not_hide_a_leak():
    one = Dataset.from_dict({"a": ["x", "p"], "b": ["y", "q"]})
    other = Dataset.from_dict({"a": ["y"], "b": ["x"]})
    splits = DatasetDict({"train": one, "test": other})
    assert ftkit.find_leaks(splits, ["a", "b"]) == {("train", "test"): [(0, 0)]}


def test_encoding_warns_with_counts_and_the_rows(leaky, task, tokenizer):
    expected = (
        r'^1 of 13 rows of "test" stand in "train" too \(test.csv, row 14 is train.csv, row 2\): '
        r'scores on "test" will flatter. ftkit.remove_leaks\(splits, \[\'text\'\]\) drops them.$'
    )
    with pytest.warns(ftkit.LeakWarning, match=expected):
        task.encode(leaky, tokenizer)


def test_removing_keeps_the_test_set_whole(leaky):
    clean = ftkit.remove_leaks(leaky, ["text"])
    assert [len(split) for split in clean.values()] == [55, 12, 13]
    assert ftkit.find_leaks(clean, ["text"]) == {}
