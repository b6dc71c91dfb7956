"""Find rows that stand in two splits: the quiet way to flatter a test score."""

import unicodedata
import warnings
from collections.abc import Sequence
from itertools import combinations

from datasets import Dataset, DatasetDict

from ftkit.data.columns import check_column
from ftkit.data.splits import row_name
from ftkit.errors import raise_problems


class LeakWarning(UserWarning):
    """Rows of one split stand in another one too."""


def find_leaks(
    splits: DatasetDict, text_columns: Sequence[str]
) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Find rows whose texts stand in two splits, whatever their case, width, spacing or order.

    Returns
    -------
    dict
        ``(split, other split)`` → list of ``(index, index)``; only pairs of splits that overlap.

    Raises
    ------
    FtkitError
        A split has no such column.

    Examples
    --------
    >>> from ftkit.data.splits import load_splits
    >>> find_leaks(load_splits("paraphrase"), ["sentence1", "sentence2"])
    {}
    """
    columns = [(str(n), split, column) for n, split in splits.items() for column in text_columns]
    raise_problems([problem for which in columns for problem in check_column(*which)])
    keys = {name: _text_keys(dataset, text_columns) for name, dataset in splits.items()}
    leaks = {}
    for one, other in combinations(keys, 2):
        first = {key: i for i, key in reversed(list(enumerate(keys[one])))}
        pairs = [(first[key], j) for j, key in enumerate(keys[other]) if key in first]
        if pairs:
            leaks[str(one), str(other)] = pairs
    return leaks


def _text_keys(dataset: Dataset, text_columns: Sequence[str]) -> list[tuple[str, ...]]:
    texts = zip(*(dataset[column] for column in text_columns), strict=True)
    return [tuple(sorted(map(_key, row))) for row in texts]


def _key(text: object) -> str:
    """Return what remains without case, white space, and wide, narrow or joined letters (NFKC)."""
    return "".join(unicodedata.normalize("NFKC", str(text)).casefold().split())


def warn_leaks(splits: DatasetDict, text_columns: Sequence[str]) -> None:
    """Warn, with counts and an example, of rows that stand in two splits."""
    for (one, other), pairs in find_leaks(splits, text_columns).items():
        i, j = pairs[0]
        warnings.warn(
            f'{len(pairs)} of {len(splits[other])} rows of "{other}" stand in "{one}" too '
            f"({row_name(other, splits[other], j)} is {row_name(one, splits[one], i)}): scores on "
            f'"{other}" will flatter. ftkit.remove_leaks(splits, {list(text_columns)}) drops them.',
            LeakWarning,
            stacklevel=3,
        )


def remove_leaks(splits: DatasetDict, text_columns: Sequence[str]) -> DatasetDict:
    """Return the splits without those training and validation rows that a later split holds too.

    The later split (test after validation after train) keeps its rows: a published test set stays
    as it is.
    """
    drop: dict[str, set[int]] = {str(name): set() for name in splits}
    for (one, _), pairs in find_leaks(splits, text_columns).items():
        twins = _text_keys(splits[one], text_columns)
        leaked = {twins[i] for i, _ in pairs}
        drop[one] |= {i for i, key in enumerate(twins) if key in leaked}
    return DatasetDict(
        {
            str(name): split.select([i for i in range(len(split)) if i not in drop[str(name)]])
            for name, split in splits.items()
        }
    )
