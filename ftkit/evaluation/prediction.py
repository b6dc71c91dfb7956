"""Let a model answer: encoded rows, or plain texts, in batches that fit the memory."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from ftkit.data.batches import EVALUATION_BATCH_SIZE, collate, length_order, row_lengths
from ftkit.devices import is_out_of_memory, supports_bf16
from ftkit.errors import FtkitError
from ftkit.models.frozen import FrozenLayers
from ftkit.tasks.base import Task, logits_of


class OutOfMemoryWarning(UserWarning):
    """A batch was too large for the memory, and goes on in smaller ones."""


def predict(
    model: nn.Module,
    rows: Dataset | Sequence[str | Sequence[str]],
    task: Task | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    bf16: bool | None = None,
    frozen: FrozenLayers | None = None,
) -> Any:
    """Return what the model says of every row, in the rows' order.

    Parameters
    ----------
    model : PreTrainedModel
        Put in eval mode for the call, and back.
    rows : datasets.Dataset, or sequence of str or of tuple of str
        One encoded split; or plain texts, for each row one for each of ``task.given_columns``.
    task : Task, optional
        Decides what is kept of a row, see ``task.outputs``; by default the logits. Texts need one.
    tokenizer : PreTrainedTokenizerBase, optional
        Texts need it.
    bf16 : bool, optional
        Compute in bfloat16; by default where the hardware does.
    frozen : FrozenLayers, optional
        The stored outputs of lower layers for this data set.

    Returns
    -------
    ndarray of shape (n_rows, n_labels), float32
        Of encoded rows. For a task whose rows have outputs of different shapes: a list of ndarray.
    list of tuple of str
        Of texts: the answers as they read, such as ``("paraphrase", "0.983")``, a label and its
        probability; see ``task.decode``.

    Raises
    ------
    FtkitError
        Rows that are not encoded, or texts that are not as they should be, all in one message.

    Warns
    -----
    OutOfMemoryWarning
        A batch did not fit; it, and all after it, are computed in halves.

    Examples
    --------
    >>> predict(model, ["a fine film", "a dull one"], task, tokenizer)  # doctest: +SKIP
    [('positive', '0.998'), ('negative', '0.991')]
    """
    if isinstance(rows, DatasetDict):
        raise FtkitError(
            f'A DatasetDict came; expected one split, such as dataset["{next(iter(rows))}"].'
        )
    if isinstance(rows, Dataset):
        return _predict_encoded(model, rows, task, bf16, frozen)
    if task is None or tokenizer is None:
        raise FtkitError("Texts came; they need a task and a tokenizer too.")
    if isinstance(rows, str):
        raise FtkitError(f'A single text came; expected a list of texts, such as ["{rows[:40]}"].')
    encoded = task.encode_texts(list(rows), tokenizer)
    outputs = _predict_encoded(model, encoded, task, bf16, None)
    return task.decode(outputs, encoded, tokenizer)


@torch.inference_mode()
def _predict_encoded(
    model: nn.Module,
    dataset: Dataset,
    task: Task | None,
    bf16: bool | None,
    frozen: FrozenLayers | None,
) -> Any:
    if "input_ids" not in dataset.column_names:
        raise FtkitError(
            f"The data set has no column input_ids; its columns are "
            f"{', '.join(dataset.column_names)}. Encode it first: task.encode(splits, tokenizer)."
        )
    first = next(model.parameters())
    device = first.device
    use_bf16 = supports_bf16(device) if bf16 is None else bf16
    pad: Any = model.config.pad_token_id  # type: ignore[union-attr]

    def outputs_of(rows: Sequence[int]) -> Any:
        batch = {name: t.to(device) for name, t in collate(dataset, rows, pad).items()}
        stored = frozen.reuse(rows) if frozen else nullcontext()
        with stored, torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            return task.outputs(model, batch) if task else logits_of(model, batch)

    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        size = task.evaluation_batch_size if task else EVALUATION_BATCH_SIZE
        outputs = _in_batches(outputs_of, dataset, size, alone=not isinstance(first, DTensor))
    finally:
        for module, training in modes:
            module.training = training
    ordered = [outputs[row] for row in range(len(dataset))]
    equal = len({output.shape for output in ordered}) == 1
    return np.stack(ordered) if equal else ordered


def _in_batches(
    outputs_of: Any, dataset: Dataset, size: int, *, alone: bool
) -> dict[int, np.ndarray]:
    """Return the outputs of each row; out of memory, go on in batches of half the size.

    Not where the model is shared out: the other processes would wait for a batch of the old size.
    """
    order = [row for batch in length_order(row_lengths(dataset), size) for row in batch]
    outputs: dict[int, np.ndarray] = {}
    while len(outputs) < len(order):
        rows = order[len(outputs) : len(outputs) + size]
        try:
            outputs.update(zip(rows, outputs_of(rows), strict=True))
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(rows) == 1 or not alone:
                raise
        size = -(-len(rows) // 2)
        warnings.warn(
            f"Out of memory: {len(rows)} rows at a time are too many to predict. These rows, and "
            f"all after them, go on in batches of {size}.",
            OutOfMemoryWarning,
            stacklevel=5,
        )
    return outputs
