"""Reading files: what loads, and the message of everything that does not."""

import json
import math

import pytest
from datasets import Dataset

import ftkit
from ftkit.data.files import read_table


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def message(path) -> str:
    with pytest.raises(ftkit.FtkitError) as caught:
        read_table(path)
    return str(caught.value)


def test_all_formats_give_the_same_rows(tmp_path):
    rows = [{"text": "a, “quoted” one", "label": "x"}, {"text": "two", "label": "y"}]
    write(tmp_path / "a.csv", 'text,label\n"a, “quoted” one",x\ntwo,y\n')
    write(tmp_path / "a.tsv", "text\tlabel\na, “quoted” one\tx\ntwo\ty\n")
    write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    for suffix, first in {"csv": 2, "tsv": 2, "jsonl": 1, "parquet": 1}.items():
        table = read_table(tmp_path / f"a.{suffix}")
        assert table.remove_columns("row").to_list() == rows
        assert table["row"][1] == f"a.{suffix}, row {first + 1}"


def test_bare_quotes_in_tsv_are_text_and_swallow_no_row(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n" It begins\t1\nand it " ends\t0\n"\t1\n')
    assert list(read_table(path)["text"]) == ['" It begins', 'and it " ends', '"']


def test_quoted_tab_in_tsv(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"one\tcell"\t1\n')
    assert message(path) == (
        "a.tsv, row 2: 3 fields; expected 2, as in the header.\n"
        "TSV is read without quoting, so a tab always ends a field. Save the file as CSV if its "
        "texts hold tabs or line breaks."
    )


def test_wholly_quoted_tsv(tmp_path):
    path = write(tmp_path / "a.tsv", '"text"\t"label"\n"one"\t"1"\n')
    assert message(path) == (
        "a.tsv, row 1: every column name stands in double quotes, and TSV is read without "
        "quoting. Save the file as CSV."
    )


def test_bare_quote_in_csv(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"one" and two,1\n')
    assert message(path) == "a.csv, line 2: ',' expected after '\"'."


def test_broken_utf8_names_the_row(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\ngood,1\ncafé,0\n", encoding="latin-1")
    assert message(path) == (
        'a.csv, row 3: byte 0xE9 is not UTF-8. Save the file as UTF-8 (in a spreadsheet: "CSV '
        'UTF-8").'
    )


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    path = write(tmp_path / "a.csv", "\ufefftext,label\none,1\n")
    assert read_table(path).column_names == ["text", "label", "row"]


def test_every_ragged_row_is_named_in_one_message(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\none,1\ntwo\n\nthree,3,3\n")
    assert message(path).splitlines() == [
        "a.csv, row 3: 1 fields; expected 2, as in the header.",
        "a.csv, row 4: 0 fields; expected 2, as in the header.",
        "a.csv, row 5: 3 fields; expected 2, as in the header.",
    ]


def test_long_lists_of_problems_are_counted(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\n" + "one\n" * 14)
    assert message(path).splitlines()[-1] == "… and 4 more"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a.csv, row 1: empty; expected the names of the columns."),
        ("text,label\n", "a.csv: has no rows; expected at least one."),
        ("text,text\na,b\n", "a.csv, row 1: column names stand twice: text."),
        ("text,row\na,b\n", 'a.csv, row 1: "row" is ftkit\'s own column; rename yours.'),
    ],
)
def test_headers(tmp_path, text, expected):
    assert message(write(tmp_path / "a.csv", text)) == expected


def test_broken_json_names_every_row(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": \n[1]\n')
    lines = message(path).splitlines()
    assert lines[0].startswith("a.jsonl, row 2: not JSON (Expecting value")
    assert lines[1] == "a.jsonl, row 3: a list; expected an object."


def test_json_nan_and_missing_keys_are_kept_for_the_task_to_judge(tmp_path):
    table = read_table(write(tmp_path / "a.jsonl", '{"a": 1.5, "b": "x"}\n{"a": NaN}\n'))
    assert math.isnan(table["a"][1])
    assert table["b"][1] is None


def test_mixed_column(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": "x"}\n{"a": {"b": 1}}\n')
    assert message(path).startswith("a.jsonl: a column mixes kinds of values: ")


def test_broken_parquet(tmp_path):
    path = write(tmp_path / "a.parquet", "not parquet")
    assert message(path).startswith("a.parquet: not a readable Parquet file (")


def test_unknown_kind_and_missing_file(tmp_path):
    write(tmp_path / "train.csv", "text\none\n")
    assert message(tmp_path / "train.xlsx") == (
        'train.xlsx: cannot read a file that ends in ".xlsx". Expected one of: .csv, .tsv, .jsonl, '
        ".parquet, .conll, .json."
    )
    assert message(tmp_path / "trian.csv") == (
        f'{tmp_path / "trian.csv"}: no such file. Did you mean "train.csv"?'
    )
