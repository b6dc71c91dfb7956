"""Read one labelled file, from CSV to SQuAD, into rows that know where they came from."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
from datasets import Dataset

from ftkit.data.annotated import parse_conll, parse_squad
from ftkit.errors import FtkitError, closest, raise_problems

Row = dict[str, object]


def read_table(path: str | Path) -> Dataset:
    """Read a file whole, and add a column ``row`` such as ``"train.csv, row 7"``.

    Rows are counted as an editor or a spreadsheet shows them: the header of a CSV or TSV is row 1.
    TSV is read without quoting, as GLUE's files need it: a bare ``"`` is part of the text.

    Parameters
    ----------
    path : str or Path
        Ends in ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, ``.conll`` (tagged words) or
        ``.json`` (SQuAD's form). Text is UTF-8, with or without BOM.

    Returns
    -------
    datasets.Dataset
        The file's columns and ``row``.

    Raises
    ------
    FtkitError
        The file is missing, of another kind, empty, or broken; every broken row is named.

    Examples
    --------
    >>> from ftkit.paths import bundled
    >>> read_table(bundled("paraphrase/test.csv"))[0]["row"]
    'test.csv, row 2'
    """
    path = Path(path)
    if path.suffix.lower() not in READERS:
        raise FtkitError(
            f'{path.name}: cannot read a file that ends in "{path.suffix}". '
            f"{closest(path.suffix, READERS)}"
        )
    if path.is_dir():
        raise FtkitError(f"{path}: is a folder; expected a file.")
    if not path.is_file():
        neighbours = [p.name for p in path.parent.glob("*") if p.suffix.lower() in READERS]
        hint = f" {closest(path.name, neighbours)}" if neighbours else ""
        raise FtkitError(f"{path}: no such file.{hint}")
    dataset = READERS[path.suffix.lower()](path)
    if len(dataset) == 0:
        raise FtkitError(f"{path.name}: has no rows; expected at least one.")
    return dataset


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n") + 1
        raise FtkitError(
            f"{path.name}, row {row}: byte 0x{raw[error.start]:02X} is not UTF-8. Save the file as "
            f'UTF-8 (in a spreadsheet: "CSV UTF-8").'
        ) from error


def _to_dataset(path: Path, columns: dict[str, list], first_row: int) -> Dataset:
    size = len(next(iter(columns.values()), []))
    name = path.name.encode("utf-8", errors="backslashreplace").decode()
    where = [f"{name}, row {first_row + i}" for i in range(size)]
    try:
        return Dataset.from_dict({**columns, "row": where})
    except OverflowError as error:
        cells = (
            (w, n, v) for n, values in columns.items() for w, v in zip(where, values, strict=True)
        )
        large = (f'{w}: "{n}"' for w, n, v in cells if isinstance(v, int) and abs(v) >= 2**63)
        raise FtkitError(
            f"{next(large, path.name)} holds a whole number that is too large; expected one of "
            f"less than 2^63, or text."
        ) from error
    except (pyarrow.ArrowException, TypeError) as error:
        raise FtkitError(f"{path.name}: a column mixes kinds of values: {error}") from error


def _read_delimited(path: Path, delimiter: str, quoting: int) -> Dataset:
    text = io.StringIO(_decode(path), newline="")
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
    try:
        header, *rows = list(reader) or [[]]
    except csv.Error as error:
        raise FtkitError(f"{path.name}, line {reader.line_num}: {error}.") from error
    while rows and not rows[-1]:
        rows.pop()
    _check_header(path, header)
    problems = [
        f"{path.name}, row {i}: {len(row)} fields; expected {len(header)}, as in the header."
        for i, row in enumerate(rows, start=2)
        if len(row) != len(header)
    ]
    if problems and quoting == csv.QUOTE_NONE:
        problems.append(
            "TSV is read without quoting, so a tab always ends a field. Save the file as CSV if "
            "its texts hold tabs or line breaks."
        )
    raise_problems(problems)
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return _to_dataset(path, dict(zip(header, map(list, columns), strict=True)), first_row=2)


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise FtkitError(f"{path.name}, row 1: empty; expected the names of the columns.")
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise FtkitError(f"{path.name}, row 1: column names stand twice: {', '.join(twice)}.")
    broken = [name for name in header if "\0" in name]
    if broken:
        raise FtkitError(
            f"{path.name}, row 1: the column name {broken[0]!r} holds a NUL byte. Save the file as "
            f"plain UTF-8 text."
        )
    if "row" in header:
        raise FtkitError(f'{path.name}, row 1: "row" is ftkit\'s own column; rename yours.')
    if path.suffix == ".tsv" and all(n.startswith('"') and n.endswith('"') for n in header):
        raise FtkitError(
            f"{path.name}, row 1: every column name stands in double quotes, and TSV is read "
            f"without quoting. Save the file as CSV."
        )


def _read_jsonl(path: Path) -> Dataset:
    rows: list[Row] = []
    problems: list[str] = []
    for number, line in enumerate(io.StringIO(_decode(path), newline=None), start=1):
        try:
            row = json.loads(line)
            if "\\u" in line:
                json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            half = error.object[error.start].encode("ascii", "backslashreplace").decode()
            problems.append(
                f'{path.name}, row {number}: "{half}" is half a character; expected both halves, '
                f'such as "\\ud83d\\ude00".'
            )
        except (ValueError, RecursionError) as error:
            problems.append(f"{path.name}, row {number}: not JSON ({error}).")
        else:
            rows.append(row)
            if not isinstance(row, dict):
                kind = type(row).__name__
                problems.append(f"{path.name}, row {number}: a {kind}; expected an object.")
    raise_problems(problems)
    names = list(dict.fromkeys(name for row in rows for name in row))
    _check_header(path, names or ["empty"])
    return _to_dataset(path, {n: [row.get(n) for row in rows] for n in names}, first_row=1)


def _read_parquet(path: Path) -> Dataset:
    try:
        table = pyarrow.parquet.read_table(path)
        names = table.column_names
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FtkitError(f"{path.name}: not a readable Parquet file ({error}).") from error
    _check_header(path, names)
    columns = {}
    for name in names:
        try:
            columns[name] = table[name].to_pylist()
        except (pyarrow.ArrowException, ValueError, OverflowError) as error:
            raise FtkitError(
                f'{path.name}: column "{name}" ({table[name].type}) holds a value that cannot be '
                f"read ({error}). Write it anew as text or numbers, or leave it out."
            ) from error
    return _to_dataset(path, columns, first_row=1)


def _read_annotated(path: Path, parse: Callable[[str, str], list[Row]]) -> Dataset:
    rows = parse(_decode(path), path.name)
    return Dataset.from_list(rows)


READERS: dict[str, Callable[[Path], Dataset]] = {
    ".csv": lambda path: _read_delimited(path, ",", csv.QUOTE_MINIMAL),
    ".tsv": lambda path: _read_delimited(path, "\t", csv.QUOTE_NONE),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".conll": lambda path: _read_annotated(path, parse_conll),
    ".json": lambda path: _read_annotated(path, parse_squad),
}
