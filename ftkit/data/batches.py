"""Length-bucketed, seeded batches, drawn straight from a data set's Arrow columns."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch
from datasets import Dataset, DatasetDict
from datasets.formatting import query_table

from ftkit.errors import FtkitError

BUCKET_BATCHES = 50  # sort by length within this many batches; the field's usual number
EVALUATION_BATCH_SIZE = 64
CHUNK = 10_000  # rows whose columns are looked at together
PADDING = {"labels": -100, "rejected_labels": -100}  # what the loss ignores; other columns: 0
MODEL_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "labels")
SPAN_COLUMNS = ("start_positions", "end_positions")  # the labels of a question's answer
PAIR_COLUMNS = (  # the other answer of a preference, and what the reference thinks of both
    *("rejected_input_ids", "rejected_attention_mask", "rejected_labels"),
    *("ref_chosen_logps", "ref_rejected_logps"),
)
Batch = dict[str, torch.Tensor]


def check_encoded(dataset: Dataset | DatasetDict) -> None:
    """Raise `FtkitError` unless this is one encoded split with rows to train on."""
    if isinstance(dataset, DatasetDict):
        raise FtkitError('A DatasetDict came; expected one split, such as encoded["train"].')
    wanted = ("input_ids", *(() if SPAN_COLUMNS[0] in dataset.column_names else ("labels",)))
    missing = [name for name in wanted if name not in dataset.column_names]
    if missing:
        raise FtkitError(
            f"The data set has no column {' and no '.join(missing)}; its columns are "
            f"{', '.join(dataset.column_names)}. Encode it first: task.encode(splits, tokenizer)."
        )
    if len(dataset) == 0:
        raise FtkitError("The training split has no rows.")


def row_lengths(dataset: Dataset) -> np.ndarray:
    """Return the number of tokens in each row of an encoded data set, shape (n_rows,)."""
    ids = dataset.select_columns("input_ids")
    found = [_lengths(_take(ids, rows)["input_ids"]) for rows in _chunks(ids)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])


def _chunks(dataset: Dataset) -> Iterator[range]:
    for start in range(0, len(dataset), CHUNK):
        yield range(start, min(start + CHUNK, len(dataset)))


def _take(dataset: Dataset, rows: Sequence[int]) -> dict[str, pa.Array]:
    """Return some rows of each column as Arrow holds them, whatever format the data set has."""
    table = query_table(dataset.data, rows, indices=dataset._indices)  # type: ignore[arg-type]
    return {name: table[name].combine_chunks() for name in table.column_names}


def _is_list(values: pa.Array) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(holds(values.type) for holds in kinds)


def _lengths(values: pa.Array) -> np.ndarray:
    lengths = pyarrow.compute.call_function("list_value_length", [values])
    return lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def class_labels(dataset: Dataset) -> np.ndarray | None:
    """Return the label of each row where it is one whole number, shape (n_rows,); else None."""
    if "labels" not in dataset.column_names:
        return None
    column = dataset.select_columns("labels")
    found = [_take(column, rows)["labels"] for rows in _chunks(column)]
    if not all(pa.types.is_integer(values.type) and not values.null_count for values in found):
        return None
    return np.concatenate([np.zeros(0, dtype=np.int64), *map(_wide, found)])


def column_hashes(dataset: Dataset) -> dict[str, str]:
    """Return for each column but ``row`` a hash of all its values, however they are stored.

    Two data sets have the same hashes where a model would be trained on the same rows in the same
    order; ``row`` says only where in a file a row stood.
    """
    names = [name for name in dataset.column_names if name != "row"]
    hashers: dict[str, Any] = {name: hashlib.sha256() for name in names}
    for rows in _chunks(dataset):
        columns = _take(dataset, rows)
        for name, hasher in hashers.items():
            _update(hasher, columns[name])
    return {name: hasher.hexdigest()[:16] for name, hasher in hashers.items()}


def _update(hasher: Any, values: pa.Array) -> None:
    while _is_list(values):
        hasher.update(_lengths(values).tobytes())
        values = values.flatten()
    if pa.types.is_integer(values.type) and not values.null_count:
        hasher.update(values.to_numpy(zero_copy_only=False).astype(np.int64).tobytes())
    else:
        hasher.update(repr(values.to_pylist()).encode())


def epoch_order(
    lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Return the row indices of every batch of an epoch: shuffled, yet of similar lengths.

    The order is a function of its arguments alone, so that a run can go on from any batch.

    Parameters
    ----------
    lengths : sequence of int
        Tokens in each row.
    batch_size : int
        Rows in a batch; the last one may be smaller.
    seed, epoch : int

    Returns
    -------
    list of list of int
        Every row once.

    Examples
    --------
    >>> sorted(sum(epoch_order([5, 3, 9, 4], batch_size=2, seed=0, epoch=0), []))
    [0, 1, 2, 3]
    """
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    shuffled = torch.randperm(len(lengths), generator=generator).numpy()
    size, ordered = batch_size * BUCKET_BATCHES, np.asarray(lengths)
    batches = []
    for start in range(0, len(shuffled), size):
        bucket = shuffled[start : start + size]
        bucket = bucket[np.argsort(-ordered[bucket], kind="stable")].tolist()
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def length_order(lengths: Sequence[int] | np.ndarray, batch_size: int) -> list[list[int]]:
    """Return batches from the longest rows to the shortest: least padding, for evaluation."""
    order = np.argsort(-np.asarray(lengths), kind="stable").tolist()
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def collate(
    dataset: Dataset,
    rows: Sequence[int],
    pad_token_id: int | None = 0,
    *,
    pad_to_multiple_of: int = 1,
    max_length: int | None = None,
) -> Batch:
    """Take some rows of an encoded data set and pad them to the longest.

    Parameters
    ----------
    dataset : datasets.Dataset
        From ``task.encode``.
    rows : sequence of int
    pad_token_id : int or None
        Fills ``input_ids``; None, as in GPT-2, fills with 0, which the mask hides.
    pad_to_multiple_of : int
        Pad on, to a length that this divides, so that few shapes occur.
    max_length : int, optional
        The model's positions: what stops that.

    Returns
    -------
    dict of torch.Tensor
        ``input_ids`` and masks ``(batch, longest)``; ``labels`` ``(batch,)``, or
        ``(batch, longest)`` padded with -100; positions of a span ``(batch,)``.

    Raises
    ------
    FtkitError
        A value is missing.
    """
    columns, batch = _take(dataset, list(rows)), {}
    for name in (*MODEL_COLUMNS, *SPAN_COLUMNS, *PAIR_COLUMNS):
        if name not in columns:
            continue
        fill = PADDING.get(name, pad_token_id or 0 if name.endswith("input_ids") else 0)
        values, where = columns[name], f'"{name}" in one of the rows {list(rows)[:8]}'
        if values.null_count or (_is_list(values) and values.flatten().null_count):
            raise FtkitError(f"{where}: a value is missing. Encode again: task.encode(splits, …).")
        batch[name] = _to_tensor(values, fill, pad_to_multiple_of, max_length)
    return batch


def _to_tensor(
    values: pa.Array, fill: int, multiple: int = 1, most: int | None = None
) -> torch.Tensor:
    """Return numbers as int64, float32 or bool, as torch makes them of Python's; lists padded."""
    if not _is_list(values):
        return torch.from_numpy(_wide(values).copy())
    lengths, numbers = _lengths(values), _wide(values.flatten())
    longest = int(lengths.max())
    padded = -(-longest // multiple) * multiple
    padded = max(longest, min(padded, padded if most is None else most))
    filled = np.full((len(values), padded), fill, dtype=numbers.dtype)
    filled[np.arange(padded) < lengths[:, None]] = numbers
    return torch.from_numpy(filled)


def _wide(values: pa.Array) -> np.ndarray:
    kind = values.type
    dtype = np.float32 if pa.types.is_floating(kind) else np.int64
    dtype = np.bool_ if pa.types.is_boolean(kind) else dtype
    return values.to_numpy(zero_copy_only=False).astype(dtype, copy=False)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Copy a batch to a device; to a GPU through pinned memory, so that nothing waits for it."""
    if device.type != "cuda":
        return {name: tensor.to(device) for name, tensor in batch.items()}
    return {n: tensor.pin_memory().to(device, non_blocking=True) for n, tensor in batch.items()}


def micro_batches(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into `parts` smaller ones of nearly equal size, fewer where rows are too few."""
    size = -(-len(batch["input_ids"]) // parts)
    chunks = {name: tensor.split(size) for name, tensor in batch.items()}
    return [dict(zip(chunks, values, strict=True)) for values in zip(*chunks.values(), strict=True)]


def _mix(seed: int, number: int) -> int:
    """Make one seed of two; torch's CPU generator reads the lower 32 bits only."""
    return (seed * 1_000_003 + number) % 2**32


def step_seed(seed: int, step: int, part: int = 0) -> int:
    """Return the seed that decides the dropout of one micro-batch of a training step.

    Examples
    --------
    >>> step_seed(0, 7)
    7
    """
    return (_mix(seed, step) + part * 2_654_435_761) % 2**32
