"""Pack several rows into one sequence, so that little is padding and no row sees another."""

from typing import Any

from datasets import Dataset

from ftkit.data.batches import check_encoded, row_lengths
from ftkit.errors import FtkitError

IGNORED = -100


def pack(dataset: Dataset, max_length: int) -> Dataset:
    """Return rows of which each holds several of the rows that came, the longest placed first.

    Positions begin anew with each row, and there is no attention mask: by the positions the
    attention of transformers' decoders keeps the rows apart. The first label of each row is left
    out, as it would be without packing: nothing before it predicts it.

    Parameters
    ----------
    dataset : datasets.Dataset
        One encoded split of a causal language model: chat or text.
    max_length : int
        Tokens in a packed row, at most.

    Returns
    -------
    datasets.Dataset
        Columns ``input_ids``, ``position_ids``, ``labels``.

    Raises
    ------
    FtkitError
        A row is longer, or the rows are not those of a causal language model.

    References
    ----------
    Krell et al. 2021, "Efficient sequence packing without cross-contamination"; the rows are laid
    into the first packed row that has room (first fit, decreasing).

    Examples
    --------
    >>> rows = {"input_ids": [[5, 6], [7, 8, 9]], "labels": [[5, 6], [-100, 8, 9]]}
    >>> pack(Dataset.from_dict(rows), max_length=5)["labels"]
    [[-100, 8, 9, -100, 6]]
    """
    check_encoded(dataset)
    lengths = row_lengths(dataset)
    longest = max(lengths)
    if longest > max_length:
        raise FtkitError(f"A row has {longest} tokens; expected at most max_length, {max_length}.")
    labels = dataset[0]["labels"]
    if not isinstance(labels, list) or len(labels) != lengths[0]:
        raise FtkitError("The labels are not one a token; only chat and causal-lm rows are packed.")
    packed: dict[str, list[Any]] = {"input_ids": [], "position_ids": [], "labels": []}
    for rows in _first_fit(list(lengths), max_length):
        parts = [dataset[row] for row in rows]
        packed["input_ids"].append([token for part in parts for token in part["input_ids"]])
        packed["position_ids"].append([i for part in parts for i in range(len(part["input_ids"]))])
        packed["labels"].append([x for part in parts for x in (IGNORED, *part["labels"][1:])])
    return Dataset.from_dict(packed)


def _first_fit(lengths: list[int], max_length: int) -> list[list[int]]:
    """Return rows in groups of at most so many tokens: each row in the first that has room."""
    groups: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((i for i, left in enumerate(room) if left >= lengths[row]), None)
        if place is None:
            groups.append([])
            room.append(max_length)
            place = len(groups) - 1
        groups[place].append(row)
        room[place] -= lengths[row]
    return groups
