"""Run the frozen lower layers once, and train the rest from their stored outputs."""

import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from datasets import Dataset
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from ftkit.data.batches import (
    EVALUATION_BATCH_SIZE,
    PAIR_COLUMNS,
    Batch,
    collate,
    length_order,
    row_lengths,
)
from ftkit.errors import FtkitError
from ftkit.models.layers import layer_depths, layer_list, without_lora
from ftkit.models.parameters import freeze_modules, kept_modes

MEMORY_BUDGET = 2 * 2**30  # bytes; more than that goes to a memory-mapped file
ROUNDING = 100  # what is equal differs by no more than so many units in the last place
IN_MEMORY = {"tmpfs", "ramfs"}  # file systems that are no disk


class FrozenLayersWarning(UserWarning):
    """The frozen layers are computed anew each epoch, and the message says why."""


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
        depths, layers = layer_depths(model), layer_list(model)
    except FtkitError:  # no list of layers
        return 0
    ids = {id(parameter) for parameter in trained}
    deepest = max(depths[name] for name, p in model.named_parameters() if id(p) in ids)
    return max(0, len(layers) - deepest)


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
    batch_size : int
        Rows whose outputs are computed at a time.

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

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        n_layers: int,
        *,
        bf16: bool,
        batch_size: int = EVALUATION_BATCH_SIZE,
    ) -> None:
        self.layers = list(layer_list(model)[:n_layers])
        self.lengths = row_lengths(dataset)
        self.starts = [0, *accumulate(self.lengths)]
        self.outputs = torch.empty(0)  # (tokens of all rows, hidden_size)
        self._tuple_size = 0  # of what this model's layers return; 0 for no tuple
        self._fill(model, dataset, bf16, batch_size)

    @torch.no_grad()
    def _fill(self, model: nn.Module, dataset: Dataset, bf16: bool, batch_size: int) -> None:
        device = next(model.parameters()).device
        pad: Any = model.config.pad_token_id  # type: ignore[union-attr]
        hook = self.layers[-1].register_forward_hook(_stop)
        try:
            with kept_modes(model):
                model.eval()
                for rows in length_order(self.lengths, batch_size):
                    batch = {n: t.to(device) for n, t in collate(dataset, rows, pad).items()}
                    self._store(rows, _output_of_the_layers(model, batch, bf16))
        finally:
            hook.remove()

    def _store(self, rows: Sequence[int], output: Any) -> None:
        self._tuple_size = len(output) if isinstance(output, tuple) else 0
        hidden: Any = output[0] if self._tuple_size else output  # (batch, longest, hidden_size)
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

        def as_layers_do(hidden: torch.Tensor) -> Any:  # whatever comes after it is not stored
            rest = [None] * (self._tuple_size - 1)
            return (hidden, *rest) if self._tuple_size else hidden

        def pass_on(*args: Any, **kwargs: Any) -> Any:
            return as_layers_do(args[0] if args else kwargs["hidden_states"])

        def recall(*args: Any, **kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            return as_layers_do(stored.to(hidden.device))

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
    raise FtkitError("the last of the layers is never called")


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _Reached(output)


def _allocate(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """Return an empty tensor in memory, or in a file that vanishes with it."""
    size = shape[0] * shape[1] * dtype.itemsize
    if size <= MEMORY_BUDGET:
        return torch.empty(shape, dtype=dtype)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > free / 2:  # what else writes there needs room, too
        raise OSError(
            f"{size / 2**30:.1f} GiB are needed, and {free / 2**30:.1f} GiB are free in {folder}, "
            f"of which half stays free"
        )
    if _file_system(folder) in IN_MEMORY:
        raise OSError(f"{folder} lies in memory; name a folder on a disk in TMPDIR")
    with tempfile.TemporaryFile() as file:  # the map keeps the space until it goes, too
        mapped = np.memmap(file, dtype=np.uint8, mode="w+", shape=(size,))  # type: ignore[call-overload]
    return torch.from_numpy(mapped).view(dtype).view(shape)


def _file_system(folder: str) -> str:
    """Return the type of the file system that a folder lies on, such as ``"ext4"``."""
    mounts = {Path(disk.mountpoint): disk.fstype for disk in psutil.disk_partitions(all=True)}
    path = Path(folder).resolve()
    return next((mounts[above] for above in (path, *path.parents) if above in mounts), "")


def find_frozen_layers(
    model: nn.Module, dataset: Dataset, trained: Iterable[nn.Parameter], *, bf16: bool
) -> FrozenLayers | None:
    """Return the stored outputs of the frozen layers; None where no layer is, or none fits.

    First the shortest and the longest row prove that the store changes nothing.

    Warns
    -----
    FrozenLayersWarning
        The proof fails, or the disk is too small: training goes on without.
    """
    n_layers = count_frozen_layers(model, trained)
    if n_layers == 0:
        return None
    try:
        doubt = _why_inexact(model, dataset, n_layers)
        if not doubt:
            return FrozenLayers(model, dataset, n_layers, bf16=bf16)
    except OSError as error:
        doubt = str(error)
    text = f"Frozen layers are computed anew each epoch: {doubt}."
    warnings.warn(text, FrozenLayersWarning, stacklevel=2)
    return None


def _why_inexact(model: nn.Module, dataset: Dataset, n_layers: int) -> str | None:
    """Return why stored outputs are not the plain forward pass of a training step, if so.

    Two rows of different lengths go together through the plain layers and, each stored alone,
    through the rest: in train mode, with the same dropout.
    """
    order = row_lengths(dataset).argsort(kind="stable").tolist()
    rows = dataset.select(sorted({order[0], order[-1]}))
    if set(PAIR_COLUMNS) & set(dataset.column_names):
        return "two answers of a row go through the layers together, and one would be stored"
    name = type(without_lora(model)).__name__
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with kept_modes(model):
            frozen = FrozenLayers(model, rows, n_layers, bf16=False, batch_size=1)
            freeze_modules(model)
            plain, trains = _forward(model, rows, frozen, reuse=False)
            if trains:
                return f"something that trains reaches the layers of {name} that do not"
            stored, _ = _forward(model, rows, frozen, reuse=True)
            return _difference(name, plain, stored)
    except OSError:
        raise  # no place for the store
    except Exception as error:  # whatever an architecture does with layers that do nothing
        return f"the layers of {name} do not run one by one ({type(error).__name__}: {error})"
    finally:
        torch.set_float32_matmul_precision(precision)


def _forward(
    model: nn.Module, rows: Dataset, frozen: FrozenLayers, *, reuse: bool
) -> tuple[dict[str, torch.Tensor], bool]:
    """Return loss and logits of all tokens, and whether a frozen layer's output needs a gradient.

    The dropout is the same in each call; the global generator is left alone.
    """
    numbers = range(len(rows))
    device, pad = next(model.parameters()).device, model.config.pad_token_id  # type: ignore[union-attr]
    batch = {n: t.to(device) for n, t in collate(rows, numbers, pad).items()}  # type: ignore[arg-type]
    trains: list[bool] = []
    hook = frozen.layers[-1].register_forward_hook(
        lambda _, __, output: trains.append(
            (output[0] if isinstance(output, tuple) else output).requires_grad
        )
    )
    try:
        with frozen.reuse(numbers) if reuse else nullcontext(), torch.random.fork_rng():
            torch.manual_seed(0)
            outputs = model(**batch)
    finally:
        hook.remove()
    mask = batch["attention_mask"].bool()
    found = {"loss": outputs.loss.detach()}
    for part in ("logits", "start_logits", "end_logits"):
        if part in outputs:
            logits = outputs[part].detach()
            found[part] = logits[mask] if logits.shape[:2] == mask.shape else logits
    return found, any(trains)


def _difference(
    name: str, plain: dict[str, torch.Tensor], stored: dict[str, torch.Tensor]
) -> str | None:
    for part, expected in plain.items():
        bound = ROUNDING * torch.finfo(expected.dtype).eps * max(1.0, float(expected.abs().max()))
        largest = float((stored[part] - expected).abs().max())
        if not largest <= bound:
            return f"with their stored outputs the {part} of {name} would differ by {largest:.0e}"
    return None
