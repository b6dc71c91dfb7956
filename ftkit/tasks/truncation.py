"""How many tokens a row may have: the limit, the cut, and the warning that says what was cut."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import DatasetDict

from ftkit.errors import FtkitError

# where a tokenizer names no limit, transformers says 1e30: more than 64 bits
NO_LIMIT = 2**31 - 1
LENGTH = "length"  # tokens of each row before the cut; `Task.encode` counts and drops this column


class TruncationWarning(UserWarning):
    """The model does not see a part of the data."""


def length_limit(tokenizer: Any, max_length: int | None = None) -> int:
    """Return how many tokens a row may have: the smaller of the tokenizer's limit and the given.

    Raises
    ------
    FtkitError
        `max_length` is below 1.
    """
    most = min(tokenizer.model_max_length, NO_LIMIT)
    if max_length is None:
        return most
    if max_length < 1:
        raise FtkitError(f"max_length is {max_length}; expected 1 or more.")
    return min(max_length, most)


def tokenize(
    tokenizer: Callable[..., Mapping[str, list]], columns: Sequence[Sequence[Any]], limit: int
) -> dict[str, list]:
    """Turn a batch of texts, or of pairs, into tokens; cut what is too long as the tokenizer does.

    One call for the whole batch; a second one for those rows alone that are too long.

    Parameters
    ----------
    tokenizer : callable
        A tokenizer, or a function that calls one.
    columns : sequence of sequences
        One for single texts, two for pairs.
    limit : int
        Tokens in a row, special ones included.

    Returns
    -------
    dict of lists
        What the tokenizer gives, and ``length``: the tokens of each row before the cut.

    Raises
    ------
    FtkitError
        The limit is below the number of special tokens.
    """
    columns = [list(column) for column in columns]
    encoded = dict(tokenizer(*columns, verbose=False))
    lengths = [len(ids) for ids in encoded["input_ids"]]
    long = [i for i, length in enumerate(lengths) if length > limit]
    if long:
        some = [[column[i] for i in long] for column in columns]
        for name, values in tokenizer(*some, truncation=True, max_length=limit).items():
            for i, value in zip(long, values, strict=True):
                encoded[name][i] = value
    check_cut(encoded["input_ids"], limit)
    return {**encoded, LENGTH: lengths}


def check_cut(rows: Sequence[Sequence[int]], limit: int) -> None:
    """Raise `FtkitError` where rows are still too long: a tokenizer does not cut special tokens."""
    if max(map(len, rows), default=0) > limit:
        raise FtkitError(
            f"max_length is {limit}, and the special tokens of a row alone are more; choose a "
            f"larger one."
        )


def told_truncation(
    encoded: DatasetDict, sizes: Mapping[str, int], limit: int, max_length: int | None
) -> DatasetDict:
    """Warn once, with counts, of rows that were cut; return the splits without ``length``.

    Parameters
    ----------
    encoded : DatasetDict
        Where it has a column ``length``: the tokens of each row before the cut.
    sizes : dict of str to int
        For each split its number of rows before they were encoded.
    limit : int
    max_length : int or None
        What the user asked for.
    """
    lines, kept = [], DatasetDict()
    for name, split in encoded.items():
        lengths = split[LENGTH] if LENGTH in split.column_names else []
        kept[name] = split.remove_columns(LENGTH) if len(lengths) else split
        cut = sum(length > limit for length in lengths)
        if cut:
            counts = f'{cut:,} of {sizes[str(name)]:,} rows of "{name}"'
            lines.append(f"{counts} cut, the longest has {max(lengths):,} tokens; ")
    if lines:
        why = "max_length" if limit == max_length else "the model's most"
        message = f"{''.join(lines)}the limit is {limit} ({why})."
        warnings.warn(message, TruncationWarning, stacklevel=3)
    return kept
