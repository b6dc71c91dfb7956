"""Length-bucketed, seeded batches, drawn straight from a data set's Arrow columns."""

from collections.abc import Sequence

import pyarrow.compute
import torch
from datasets import Dataset, DatasetDict

from ftkit.errors import FtkitError

BUCKET_BATCHES = 50  # sort by length within this many batches; the field's usual number
EVALUATION_BATCH_SIZE = 64
PADDING = {"labels": -100}  # what the loss ignores; every other column is padded with 0
MODEL_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "labels")
SPAN_COLUMNS = ("start_positions", "end_positions")  # the labels of a question's answer
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


def row_lengths(dataset: Dataset) -> list[int]:
    """Return the number of tokens in each row of an encoded data set."""
    table = dataset.with_format("arrow")[:]
    return pyarrow.compute.call_function("list_value_length", [table["input_ids"]]).to_pylist()


def epoch_order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
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
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    size = batch_size * BUCKET_BATCHES
    batches = []
    for start in range(0, len(shuffled), size):
        bucket = sorted(shuffled[start : start + size], key=lambda i: -lengths[i])
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def length_order(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return batches from the longest rows to the shortest: least padding, for evaluation."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def collate(dataset: Dataset, rows: Sequence[int], pad_token_id: int | None = 0) -> Batch:
    """Take some rows of an encoded data set and pad them to the longest.

    Parameters
    ----------
    dataset : datasets.Dataset
        From ``task.encode``.
    rows : sequence of int
    pad_token_id : int or None
        Fills ``input_ids``; None, as in GPT-2, fills with 0, which the mask hides.

    Returns
    -------
    dict of torch.Tensor
        ``input_ids`` and masks ``(batch, longest)``; ``labels`` ``(batch,)``, or
        ``(batch, longest)`` padded with -100; positions of a span ``(batch,)``.
    """
    known = (*MODEL_COLUMNS, *SPAN_COLUMNS)
    columns = [name for name in known if name in dataset.column_names]
    values = dataset.select_columns(columns)[list(rows)]
    padding = {**PADDING, "input_ids": pad_token_id or 0}
    return {name: _to_tensor(values[name], padding.get(name, 0)) for name in columns}


def _to_tensor(values: list, fill: int) -> torch.Tensor:
    if not isinstance(values[0], list):
        return torch.tensor(values)
    longest = max(map(len, values))
    return torch.tensor([value + [fill] * (longest - len(value)) for value in values])


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
