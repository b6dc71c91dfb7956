"""Find the columns that hold text and labels, and check their values row by row."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict

from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, closest, raise_problems

KNOWN_TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text",),
    ("sentence",),
)
KNOWN_LABEL_COLUMNS = ("label", "labels")
MOST_CLASSES = 1000  # the confusion matrix has its square in numbers


def guess_text_columns(
    dataset: Dataset,
    given: Sequence[str] | None = None,
    known: Iterable[tuple[str, ...]] = KNOWN_TEXT_COLUMNS,
    option: str = "--text-columns",
) -> tuple[str, ...]:
    """Return the given columns once they are known to exist, or else the first usual ones."""
    return _guess(dataset, given, known, option)


def guess_label_column(dataset: Dataset, given: str | None = None) -> str:
    """Return the given column once it is known to exist, or else the first usual one."""
    known = [(name,) for name in KNOWN_LABEL_COLUMNS]
    return _guess(dataset, [given] if given else None, known, "--label-column")[0]


def check_texts(splits: DatasetDict, text_columns: Sequence[str]) -> None:
    """Raise one `FtkitError` that names every missing column and every cell that is no text."""
    problems: list[str] = []
    for split, dataset in splits.items():
        name = str(split)
        if len(dataset) == 0:
            problems.append(f'split "{name}": has no rows; expected at least one.')
            continue
        for column in text_columns:
            problems.extend(_text_problems(name, dataset, column))
    raise_problems(problems)


def check_column(split: str, dataset: Dataset, column: str) -> list[str]:
    """Return a sentence for a column that is not there, with the closest name; else nothing."""
    if column in dataset.column_names:
        return []
    where = row_name(split, dataset, 0).split(",")[0]
    names = [name for name in dataset.column_names if name != "row"]
    return [f'{where}: no column "{column}". {closest(column, names)}']


def _text_problems(split: str, dataset: Dataset, column: str) -> Iterator[str]:
    missing = check_column(split, dataset, column)
    if missing:
        yield from missing
        return
    values = list(dataset[column])
    if all(_is_number(value) for value in values):
        yield (
            f'{row_name(split, dataset, 0)}: column "{column}" holds numbers (here {values[0]}); '
            f"expected text. Is it the right column?"
        )
        return
    for i, value in enumerate(values):
        if value is None or value != value or value in ("nan", "NaN"):
            yield f'{row_name(split, dataset, i)}: "{column}" is missing (NaN); expected text.'
        elif not isinstance(value, str):
            kind = type(value).__name__
            yield f'{row_name(split, dataset, i)}: "{column}" is a {kind} ({value}); expected text.'
        elif not value.strip():
            yield f'{row_name(split, dataset, i)}: "{column}" is empty; expected text.'


def _is_number(value: object) -> bool:
    if value is None or value in ("nan", "NaN"):
        return False
    try:
        return float(value) == float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _guess(
    dataset: Dataset, given: Sequence[str] | None, known: Iterable[tuple[str, ...]], option: str
) -> tuple[str, ...]:
    if given:
        raise_problems([p for column in given for p in check_column("train", dataset, column)])
        return tuple(given)
    for columns in known:
        if set(columns) <= set(dataset.column_names):
            return tuple(columns)
    names = ", ".join(name for name in dataset.column_names if name != "row")
    raise FtkitError(f"Say which with {option}. The columns are: {names}.")


def with_label_names(dataset: Dataset, column: str) -> Dataset:
    """Return the data set with the names of a `ClassLabel` column in place of its numbers."""
    feature = dataset.features[column]
    if not isinstance(feature, ClassLabel):
        return dataset
    names = [feature.int2str(v) if v is not None and v >= 0 else v for v in dataset[column]]
    return with_column(dataset, column, names)


def with_column(dataset: Dataset, name: str, values: Sequence[Any]) -> Dataset:
    """Return a data set with a new column, in place of any other of its name."""
    others = dataset.remove_columns(name) if name in dataset.column_names else dataset
    return others.add_column(name, values)  # type: ignore[call-arg]


def label_names(dataset: Dataset, column: str) -> tuple[str, ...]:
    """Return the names of the classes that a column holds; numbers in their order."""
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    for i, value in enumerate(dataset[column]):
        if isinstance(value, list | dict):
            raise FtkitError(
                f'{row_name("train", dataset, i)}: "{column}" is a {type(value).__name__} '
                f"({value}); expected the name or the number of a class."
            )
    values = {v for v in dataset[column] if v is not None and v == v and v != ""}
    if len(values) > MOST_CLASSES:
        raise FtkitError(
            f'Column "{column}" of the training set holds {len(values):,} different values; '
            f"expected at most {MOST_CLASSES:,} classes. Is it the right column?"
        )
    fractions = sorted(v for v in values if isinstance(v, float) and not v.is_integer())
    if fractions:
        raise FtkitError(
            f'Column "{column}" holds fractions ({fractions[0]}); expected names or whole numbers '
            f"of classes."
        )
    by_name = sorted(values, key=str)
    try:
        return tuple(str(v) for v in sorted(by_name, key=float))
    except (TypeError, ValueError):
        return tuple(map(str, by_name))
