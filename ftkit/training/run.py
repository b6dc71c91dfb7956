"""The training loop: a run that one loops over, and a plain function that does it all."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from datasets import Dataset
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ftkit.data.batches import (
    Batch,
    check_encoded,
    collate,
    epoch_order,
    micro_batches,
    row_lengths,
    step_seed,
)
from ftkit.devices import best_device, is_out_of_memory, supports_bf16
from ftkit.errors import FtkitError
from ftkit.models.frozen import find_frozen_layers
from ftkit.models.parameters import freeze_modules, set_trainable
from ftkit.training import distributed
from ftkit.training.checkpoints import Tensors
from ftkit.training.config import TrainingConfig
from ftkit.training.optimization import make_optimizer, set_learning_rates
from ftkit.training.signals import undivided
from ftkit.training.state import (
    check_state,
    identity,
    load_optimizer_tensors,
    moving_tensors,
    optimizer_tensors,
)


@dataclass(frozen=True)
class Step:
    """What one update did.

    Attributes
    ----------
    step : int
        Updates so far, this one included.
    epoch : float
        Passes over the training split so far.
    loss : float
        Mean cross-entropy of the batch in nats, before the update.
    grad_norm : float
        Length of the gradient before clipping.
    learning_rate : float
        Rate of the first parameter group.
    """

    step: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float


class TrainingRun:
    """A training run that one loops over: each turn is one update.

    Leaving the loop with ``break`` keeps everything; another loop over the same run goes on with
    the next update. The dropout of a step depends on seed and step alone, so that nothing done
    between two steps, such as an evaluation, changes what follows.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        Trained in place; parameters that do not require gradients stay as they are.
    dataset : datasets.Dataset
        One encoded split.
    config : TrainingConfig, optional

    Raises
    ------
    FtkitError
        Here, not at step 900: no trainable parameter, no labels, an empty split.

    Examples
    --------
    >>> run = TrainingRun(model, encoded["train"], TrainingConfig())  # doctest: +SKIP
    >>> for step in run:  # doctest: +SKIP
    ...     if step.step == 50:
    ...         break
    """

    def __init__(
        self, model: nn.Module, dataset: Dataset, config: TrainingConfig | None = None
    ) -> None:
        self.model, self.dataset, self.config = model, dataset, config or TrainingConfig()
        check_encoded(dataset)
        self.device = best_device()
        self.model.to(self.device)
        self.bf16 = supports_bf16(self.device) if self.config.bf16 is None else self.config.bf16
        self.lengths = row_lengths(dataset)
        self.steps_per_epoch = math.ceil(len(dataset) / self.config.batch_size)
        self.total_steps = self.steps_per_epoch * self.config.num_train_epochs
        self.optimizer = make_optimizer(model, self.config)
        self.micro_batches = self.config.gradient_accumulation_steps
        self.frozen = None
        trained = self.parameters()
        several = self.config.num_train_epochs > 1 and not distributed.is_sharded(trained[0])
        if self.config.reuse_frozen and several:
            self.frozen = find_frozen_layers(model, dataset, trained, bf16=self.bf16)
        self.step = 0
        self._order: tuple[int, list[list[int]]] = (-1, [])  # epoch, its batches
        self._tune: str | None = None  # the last preset that `unfreeze` asked for

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        if self.step >= self.total_steps:
            raise StopIteration
        self._thaw()
        set_learning_rates(self.optimizer, self.config, self.step, self.total_steps)
        rows = self.rows_of_step(self.step)
        pad: Any = self.model.config.pad_token_id  # type: ignore[union-attr]
        loss = self._gradients({"rows": torch.tensor(rows), **collate(self.dataset, rows, pad)})
        norm = nn.utils.clip_grad_norm_(self.parameters(), self.config.max_grad_norm)
        norm = float(distributed.whole(norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FtkitError(self._non_finite(loss, norm, rows))
        with undivided():  # Ctrl-C finds an update done, or not begun
            self.optimizer.step()
            self.step += 1
        rate = self.optimizer.param_groups[0]["lr"]
        return Step(self.step, self.step / self.steps_per_epoch, loss, norm, rate)

    def parameters(self) -> list[nn.Parameter]:
        """Return all parameters that train at some time of the run, thawed later ones included."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def rows_of_step(self, step: int) -> list[int]:
        """Return the indices of the rows that a step (counted from 0) trains on."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            size, seed = self.config.batch_size, self.config.seed
            self._order = (epoch, epoch_order(self.lengths, size, seed, epoch))
        return self._order[1][position]

    def _gradients(self, batch: Batch) -> float:
        """Return the loss and leave its gradient; out of memory, try again with smaller parts."""
        while True:
            try:
                return self._backward(batch)
            except (RuntimeError, MemoryError) as error:
                rows = -(-len(batch["rows"]) // (self.micro_batches * distributed.world_size()))
                if not is_out_of_memory(error) or rows == 1 or distributed.world_size() > 1:
                    raise
            self.micro_batches *= 2
            warnings.warn(
                f"Out of memory at step {self.step + 1}: {rows} rows at a time are too many. The "
                f"step begins again, and all others too go on, with micro-batches of half the "
                f"size: --gradient-accumulation-steps {self.micro_batches}.",
                stacklevel=3,
            )

    def _backward(self, batch: Batch) -> float:
        """Add up the gradients of all micro-batches, each weighed by its number of labels."""
        self.optimizer.zero_grad()
        freeze_modules(self.model)
        rank, size = distributed.rank(), distributed.world_size()
        parts = micro_batches(batch, self.micro_batches * size)
        parts = [part for part in parts if self._count_labels(part)]  # the others' mean is 0/0
        counts = [self._count_labels(part) for part in parts]
        total = torch.full((1,), 0.0 if parts else math.nan, device=self.device)
        with torch.random.fork_rng():
            for i in range(rank, -(-len(parts) // size) * size, size):
                share = counts[i] / sum(counts) if i < len(parts) else 0.0  # none left: as many
                torch.manual_seed(step_seed(self.config.seed, self.step, i))  # steps as the others
                part = {n: t.to(self.device) for n, t in parts[i % len(parts)].items()}
                rows = part.pop("rows").tolist()
                stored = self.frozen.reuse(rows) if self.frozen else nullcontext()
                with stored, torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    loss = self.model(**part).loss * share
                loss.backward()
                total += loss.detach()
        distributed.sum_gradients([p for p in self.parameters() if p.requires_grad])
        return distributed.sum_over_processes(total).item()

    def _count_labels(self, batch: Batch) -> int:
        """Count what the loss averages over; a causal model predicts no first token."""
        labels, model = batch.get("labels", batch["rows"]), cast(Any, self.model)
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model
        causal = type(plain).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        return int(((labels[:, 1:] if causal else labels) != -100).sum())

    def _thaw(self) -> None:
        step, total = self.step, self.total_steps
        due = [tune for share, tune in self.config.unfreeze if share * total <= step]
        if due and due[-1] != self._tune:
            self._tune = due[-1]
            set_trainable(self.model, self._tune)

    def _non_finite(self, loss: float, norm: float, rows: Sequence[int]) -> str:
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient's length is {norm}"
        named = rows
        if "row" in self.dataset.column_names:
            named = self.dataset.select_columns("row")[list(rows)]["row"]
        shown = ", ".join(map(str, named[:4])) + (", …" if len(named) > 4 else "")
        return (
            f"The {what} at step {self.step + 1} (rows: {shown}); nothing was updated. "
            f"If these rows have labels, try a lower learning rate, or bf16=False."
        )

    def state_dict(self) -> tuple[Tensors, dict[str, Any]]:
        """Return all that the next step depends on, and what the run is known by.

        Returns
        -------
        tensors : dict of dict of torch.Tensor
            ``model``: what trains, and buffers; ``optimizer``.
        progress : dict
            For JSON.
        """
        moving = moving_tensors(self.model, self.optimizer)
        model = {name: distributed.whole(tensor) for name, tensor in moving.items()}
        progress = {"step": self.step, "micro_batches": self.micro_batches}
        tensors = {"model": model, "optimizer": optimizer_tensors(self.optimizer)}
        return tensors, {**progress, "identity": self._identity()}

    def load_state_dict(self, tensors: Tensors, progress: dict[str, Any]) -> None:
        """Go on where a run of the same model, data and config was.

        Raises
        ------
        FtkitError
            It was another run, or something is missing; the message names what differs.
        """
        moving = moving_tensors(self.model, self.optimizer)
        check_state(self._identity(), moving, tensors, progress)
        load_optimizer_tensors(self.optimizer, tensors.get("optimizer", {}))
        with torch.no_grad():
            for name, tensor in moving.items():
                tensor.copy_(distributed.shared_like(tensors["model"][name], tensor))
        self.step, self.micro_batches = progress["step"], progress["micro_batches"]

    def _identity(self) -> dict[str, Any]:
        names = list(moving_tensors(self.model, self.optimizer))
        return {**identity(self.config, self.lengths, names), "bf16": self.bf16}
