"""Loading splits from folders, single files and bundled names."""

import pytest

import ftkit
from ftkit.data.splits import load_splits, row_name, split_rows
from ftkit.paths import bundled_names
from tests.conftest import write_csv


def message(source) -> str:
    with pytest.raises(ftkit.FtkitError) as caught:
        load_splits(source)
    return str(caught.value)


def test_a_folder_gives_its_splits_in_order(folder):
    splits = load_splits(folder)
    assert list(splits) == ["train", "validation", "test"]
    assert [len(split) for split in splits.values()] == [56, 12, 12]
    assert row_name("test", splits["test"], 0) == "test.csv, row 2"


def test_dev_is_another_name_of_validation(folder):
    (folder / "validation.csv").rename(folder / "dev.csv")
    assert list(load_splits(folder)) == ["train", "validation", "test"]
    write_csv(folder / "val.csv", [{"text": "a", "label": "b"}])
    assert message(folder) == (
        f'{folder}: both dev.csv and val.csv could be the split "validation".'
    )


def test_a_folder_without_splits(tmp_path):
    assert message(tmp_path) == (
        f"{tmp_path}: holds no train, validation or test file. Expected one of: train.csv, "
        "train.tsv, train.jsonl, train.parquet, train.conll, train.json."
    )


def test_an_unknown_name_gets_the_closest_one():
    assert message("parafrase") == (
        '"parafrase" is no bundled data set, no file and no folder. Did you mean "paraphrase"?'
    )


def test_bundled_names_load():
    assert "paraphrase" in bundled_names()
    for name in bundled_names():
        test = set() if name == "preferences" else {"test"}  # its test is the prompts of `chats`
        assert set(load_splits(name)) == {"train", "validation"} | test


def test_a_single_file_is_split_once_and_for_all_and_equal_rows_stay_together(tmp_path):
    rows = [{"text": f"text {i % 50}", "label": str(i % 2)} for i in range(100)]
    path = write_csv(tmp_path / "all.csv", rows)
    one, other = load_splits(path), load_splits(path)
    assert {name: list(split["row"]) for name, split in one.items()} == {
        name: list(split["row"]) for name, split in other.items()
    }
    assert [len(split) for split in one.values()] == [80, 10, 10]
    assert ftkit.find_leaks(one, ["text"]) == {}
    assert sorted(sum((list(split["row"]) for split in one.values()), [])) == sorted(
        f"all.csv, row {i}" for i in range(2, 102)
    )


def test_split_by_group_keeps_groups_whole(splits):
    table = splits["train"].map(lambda row: {"group": row["text"].split()[1]})
    table = ftkit.split_rows(
        table.add_column("extra", [f"{g}{i % 3}" for i, g in enumerate(table["group"])]),
        group_column="extra",
    )
    seen = [set(split["extra"]) for split in table.values()]
    assert not (seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2])


def test_too_few_rows_to_split(splits):
    with pytest.raises(ftkit.FtkitError, match="^9 different rows are too few to split"):
        split_rows(splits["train"].select(range(9)))
