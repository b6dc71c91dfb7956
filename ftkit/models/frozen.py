"""Run the frozen lower layers once, and train the rest from their stored outputs."""

import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from ftkit.data.batches import (
    EVALUATION_BATCH_SIZE,
    Batch,
    collate,
    length_order,
    row_lengths,
)
from ftkit.errors import FtkitError
from ftkit.models.layers import layer_depths, layer_list

MEMORY_BUDGET = 2 * 2**30  # bytes; more than that goes to a memory-mapped file


def count_frozen_layers(model: nn.Module, trained: Iterable[nn.Parameter]) -> int:
    """Count the layers from the embeddings upwards in and below which nothing ever trains.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        An encoder or a decoder with a list of layers; 0 for any other.
    trained : iterable of Parameter
        What trains at some time of a run.

    Returns
    -------
    int
    """
    if getattr(model.config, "is_encoder_decoder", False):
        return 0
    try:
        depths = layer_depths(model)
    except FtkitError:  # no list of layers
        return 0
    ids = {id(parameter) for parameter in trained}
    deepest = max(depths[name] for name, p in model.named_parameters() if id(p) in ids)
    return max(0, len(layer_list(model)) - deepest)


class FrozenLayers:
    """The outputs of frozen lower layers for every token of one data set.

    They are computed in eval mode, in the order and the batches of an evaluation, so that they
    are the same bits in a run that is resumed. Any model goes whose layers are called one after
    the other: the forward of the lower ones is replaced for the time of a call, and the model
    itself stays as it is.

    Parameters
    ----------
    model : PreTrainedModel
    dataset : datasets.Dataset
        One encoded split.
    n_layers : int
        How many layers, counted from the embeddings.
    bf16 : bool
        As in training.

    Raises
    ------
    OSError
        Neither memory nor disk holds the outputs.

    Examples
    --------
    >>> frozen = FrozenLayers(model, encoded["train"], 4, bf16=False)  # doctest: +SKIP
    >>> with frozen.reuse([0, 1]):  # doctest: +SKIP
    ...     logits = model(**collate(encoded["train"], [0, 1])).logits
    """

    def __init__(self, model: nn.Module, dataset: Dataset, n_layers: int, *, bf16: bool) -> None:
        self.layers = list(layer_list(model)[:n_layers])
        self.lengths = row_lengths(dataset)
        self.starts = [0, *accumulate(self.lengths)]
        self.outputs = torch.empty(0)  # (tokens of all rows, hidden_size)
        self._in_tuple = False  # whether this model's layers return a tuple
        self._fill(model, dataset, bf16)

    @torch.no_grad()
    def _fill(self, model: nn.Module, dataset: Dataset, bf16: bool) -> None:
        device = next(model.parameters()).device
        pad: Any = model.config.pad_token_id  # type: ignore[union-attr]
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        hook = self.layers[-1].register_forward_hook(_stop)
        try:
            for rows in length_order(self.lengths, EVALUATION_BATCH_SIZE):
                batch = {n: t.to(device) for n, t in collate(dataset, rows, pad).items()}
                self._store(rows, _output_of_the_layers(model, batch, bf16))
        finally:
            hook.remove()
            for module, training in modes:
                module.training = training

    def _store(self, rows: Sequence[int], output: Any) -> None:
        self._in_tuple = isinstance(output, tuple)
        hidden = output[0] if self._in_tuple else output  # (batch, longest, hidden_size)
        if not len(self.outputs):
            self.outputs = _allocate((self.starts[-1], hidden.shape[-1]), hidden.dtype)
        for row, states in zip(rows, hidden.cpu(), strict=True):
            length = self.lengths[row]
            self.outputs[self.starts[row] : self.starts[row] + length] = states[:length]

    @contextmanager
    def reuse(self, rows: Sequence[int]) -> Iterator[None]:
        """Let the frozen layers return what is stored for these rows, padded with zeros."""
        parts = [self.outputs[self.starts[row] : self.starts[row + 1]] for row in rows]
        stored = pad_sequence(parts, batch_first=True)

        def pass_on(*args: Any, **kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            return (hidden,) if self._in_tuple else hidden

        def recall(*args: Any, **kwargs: Any) -> Any:
            hidden = stored.to(args[0].device if args else kwargs["hidden_states"].device)
            return (hidden,) if self._in_tuple else hidden

        for layer in self.layers:
            layer.forward = pass_on
        self.layers[-1].forward = recall
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward


class _Reached(Exception):  # noqa: N818 - no error: the layers above need not run
    def __init__(self, output: Any) -> None:
        self.output = output


def _output_of_the_layers(model: nn.Module, batch: Batch, bf16: bool) -> Any:
    try:
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=bf16):
            model(**batch)
    except _Reached as reached:
        return reached.output
    raise AssertionError("unreachable: the hook raises")


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _Reached(output)


def _allocate(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """Return an empty tensor in memory, or in a file that vanishes with it."""
    size = shape[0] * shape[1] * dtype.itemsize
    if size <= MEMORY_BUDGET:
        return torch.empty(shape, dtype=dtype)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise OSError(f"{size / 2**30:.1f} GiB are needed, and {free / 2**30:.1f} GiB are free")
    with tempfile.TemporaryFile() as file:  # the map keeps the space until it goes, too
        mapped = np.memmap(file, dtype=np.uint8, mode="w+", shape=(size,))  # type: ignore[call-overload]
    return torch.from_numpy(mapped).view(dtype).view(shape)


def find_frozen_layers(
    model: nn.Module, dataset: Dataset, trained: Iterable[nn.Parameter], *, bf16: bool
) -> FrozenLayers | None:
    """Return the stored outputs of the frozen layers; None where no layer is, or none fits.

    Warns
    -----
    UserWarning
        The disk is too small: training goes on without.
    """
    n_layers = count_frozen_layers(model, trained)
    if n_layers == 0:
        return None
    try:
        return FrozenLayers(model, dataset, n_layers, bf16=bf16)
    except OSError as error:
        warnings.warn(f"Frozen layers are computed anew each epoch: {error}.", stacklevel=2)
        return None
