"""The training loop: a run that one loops over, each turn an update."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from datasets import Dataset
from torch import nn

from ftkit.data.batches import (
    Batch,
    check_encoded,
    collate,
    epoch_order,
    micro_batches,
    row_lengths,
    step_seed,
    to_device,
)
from ftkit.devices import best_device, fork_seed, is_out_of_memory, mixed_precision, set_tf32
from ftkit.errors import FtkitError
from ftkit.models.frozen import find_frozen_layers
from ftkit.models.parameters import freeze_modules, set_trainable
from ftkit.tasks import Task
from ftkit.training import distributed
from ftkit.training.checkpoints import Tensors
from ftkit.training.config import TrainingConfig
from ftkit.training.loss import TrainingLoss
from ftkit.training.optimization import make_optimizer, make_scheduler
from ftkit.training.signals import defer_interrupt
from ftkit.training.state import (
    check_state,
    identity,
    load_optimizer_tensors,
    optimizer_tensors,
    trainable_state_dict,
)
from ftkit.training.step import Step, read_steps

COMPILED_MULTIPLE = 64  # tokens; rows of up to 512 then have eight lengths
COMPILED_SHAPES = 32  # eight lengths, with full and with last batches, and some to spare


class TrainingWarning(UserWarning):
    """Part of the model, or all of it, does not learn; the message says what shows it."""


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
    task : Task, optional
        Says what the loss is and what its mean is taken over; without one, the model does.

    Attributes
    ----------
    step, total_steps, steps_per_epoch : int
        Updates so far, in all, and in an epoch.
    reads_late : bool
        On a GPU: the numbers of a step stay on the device until ``config.logging_steps`` steps are
        done, an epoch ends, the state is saved, or somebody looks at them. A loss that is not
        finite is found then; from its step on, no update was made.

    Raises
    ------
    FtkitError
        Here, not at step 900: no trainable parameter, no labels, an empty split, a label that is
        no class.

    Warns
    -----
    TrainingWarning
        The first batch gives some parameters, or all, no gradient.

    Examples
    --------
    >>> run = TrainingRun(model, encoded["train"], TrainingConfig())  # doctest: +SKIP
    >>> for step in run:  # doctest: +SKIP
    ...     if step.step == 50:
    ...         break
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        config: TrainingConfig | None = None,
        *,
        task: Task | None = None,
    ) -> None:
        self.model, self.dataset, self.config = model, dataset, config or TrainingConfig()
        check_encoded(dataset)
        self.device = best_device()
        self.model.to(self.device)
        precision = {"bf16": self.config.bf16, "fp16": self.config.fp16}
        self.dtype = mixed_precision(self.device, **precision)
        self.bf16, fp16 = self.dtype is torch.bfloat16, self.dtype is torch.float16
        set_tf32(self.device, self.config.bf16 is not False)
        self.loss = TrainingLoss(model, dataset, self.config, task)
        self.lengths = row_lengths(dataset)
        self.steps_per_epoch = math.ceil(len(dataset) / self.config.batch_size)
        self.total_steps = self.steps_per_epoch * self.config.num_train_epochs
        self.reads_late = self.device.type == "cuda" and self.config.optim != "rmsprop"
        self.optimizer = make_optimizer(model, self.config, fused=self.reads_late)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        self.micro_batches = self.config.gradient_accumulation_steps
        self.frozen, trained = None, self.parameters()
        sharded = distributed.is_sharded(trained[0])
        if fp16 and sharded:
            raise FtkitError("--shard cannot scale the loss of float16; say --bf16 false.")
        several = self.config.num_train_epochs > 1 and not sharded
        if self.config.reuse_frozen and several and not self.config.torch_compile:
            self.frozen = find_frozen_layers(model, dataset, trained, bf16=self.bf16)
        self._forward: Any = model
        if self.config.torch_compile:
            limits = torch._dynamo.config
            limits.recompile_limit = max(limits.recompile_limit, COMPILED_SHAPES)
            self._forward = torch.compile(model, dynamic=False)
        self.unread: list[Step] = []  # whose numbers are still on the device
        self._failed = torch.zeros((), dtype=torch.bool, device=self.device)  # a loss was no number
        self._first = 0  # the first step of this process, whose gradients are looked at
        self._order: tuple[int, list[list[int]]] = (-1, [])  # epoch, its batches
        self._tune: str | None = None  # the last preset that `unfreeze` asked for
        self.seek(0)

    def seek(self, step: int) -> None:
        """Go to a step (counted from 0): its rows and its learning rate come next."""
        self.step = step
        self.scheduler = make_scheduler(self.optimizer, self.config, self.total_steps, step)

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        if self.step >= self.total_steps:
            raise StopIteration
        self._unfreeze()
        loss = self._gradients(self.rows_of_step(self.step))
        if self.reads_late:
            self._failed |= ~loss.isfinite()
        if self.scaler.is_enabled():
            self._spoil_gradients()
            self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters(), self.config.max_grad_norm)
        norm = distributed.full_tensor(norm)
        done, rate = self.step + 1, self.optimizer.param_groups[0]["lr"]
        step = Step(done, done / self.steps_per_epoch, loss, norm, rate)
        self._first = self._first or done
        if not self.reads_late:
            self._check([step])
        if done == self._first:
            self._check_gradients()
        with defer_interrupt():  # Ctrl-C finds an update done, or not begun
            self._update(norm)
            self.scheduler.step()
            self.step = done
        if self.reads_late:
            self.unread.append(step)
            if done % self.config.logging_steps == 0 or done % self.steps_per_epoch == 0:
                self.read()
        return step

    def _update(self, norm: torch.Tensor) -> None:
        """Update the weights; where losses are read late, not from a bad one on."""
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return
        if self.reads_late:  # a fused optimizer then changes nothing, and nobody waits to know
            self._failed |= ~norm.isfinite()
            self.optimizer.found_inf = self._failed.float()  # type: ignore[attr-defined]
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
        self.optimizer.step()

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

    def read(self) -> None:
        """Read the numbers of all steps that are still on the device, in one transfer.

        Raises
        ------
        FtkitError
            One is not finite: the weights are those before its step.
        """
        steps, self.unread = self.unread, []
        read_steps(steps)
        self._check(steps)

    def _check(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if not math.isfinite(step.loss) or not (
                math.isfinite(step.grad_norm) or self._scale_can_fall()
            ):
                if self.step >= step.step:  # read late: all updates since were left out
                    self.seek(step.step - 1)
                    self._failed.zero_()
                raise FtkitError(self._non_finite(step))
            if step.step == self._first and step.grad_norm == 0:
                warnings.warn(
                    f"The gradient of step {step.step} is 0: the loss, {step.loss:.4g}, is a "
                    f"constant, and nothing is learned. Are the labels those of this model?",
                    TrainingWarning,
                    stacklevel=4,
                )

    def _gradients(self, rows: Sequence[int]) -> torch.Tensor:
        """Return the loss and leave its gradient; out of memory, try again with smaller parts."""
        pad: Any = self.model.config.pad_token_id  # type: ignore[union-attr]
        batch = collate(self.dataset, rows, pad, **self._shapes)
        while True:
            try:
                return self._backward(batch, rows)
            except (RuntimeError, MemoryError) as error:
                processes = distributed.get_world_size()
                size = -(-len(rows) // (self.micro_batches * processes))
                if not is_out_of_memory(error) or size == 1 or processes > 1:
                    raise
            self.micro_batches *= 2
            warnings.warn(
                f"Out of memory at step {self.step + 1}: {size} rows at a time are too many. The "
                f"step begins again, and all others too go on, with micro-batches of half the "
                f"size: --gradient-accumulation-steps {self.micro_batches}.",
                stacklevel=3,
            )

    @cached_property
    def _shapes(self) -> dict[str, int]:
        """What `collate` pads to: few lengths where the model is compiled."""
        if not self.config.torch_compile:
            return {}
        most = getattr(self.model.config, "max_position_embeddings", 10**9)
        most = most // COMPILED_MULTIPLE * COMPILED_MULTIPLE  # longer rows are left as they are
        return {"pad_to_multiple_of": COMPILED_MULTIPLE, "max_length": most}

    def _backward(self, batch: Batch, rows: Sequence[int]) -> torch.Tensor:
        """Add up the gradients of all micro-batches, each weighed by its number of labels."""
        self.optimizer.zero_grad()
        freeze_modules(self.model)
        rank, size = distributed.get_rank(), distributed.get_world_size()
        cut = micro_batches(batch, self.micro_batches * size)
        width = len(cut[0]["input_ids"])
        parts = [(part, rows[i * width :][:width]) for i, part in enumerate(cut)]
        weighed = [(part, self.loss.weight(part[0])) for part in parts]
        weighed = [(part, weight) for part, weight in weighed if weight]  # else the mean is 0/0
        total = torch.zeros((), device=self.device)
        if not weighed:
            return total + math.nan
        whole = sum(weight for _, weight in weighed)
        for i in range(rank, -(-len(weighed) // size) * size, size):
            (part, indices), weight = weighed[i % len(weighed)]
            share = (
                weight / whole if i < len(weighed) else 0.0
            )  # none left: as many steps as others
            with fork_seed(step_seed(self.config.seed, self.step, i), self.device):
                total += self._backward_part(to_device(part, self.device), indices, share)
        distributed.all_reduce_gradients([p for p in self.parameters() if p.requires_grad])
        return distributed.all_reduce_sum(total)

    def _backward_part(self, part: Batch, rows: Sequence[int], share: float) -> torch.Tensor:
        stored = self.frozen.reuse(rows) if self.frozen else nullcontext()
        kind, dtype = self.device.type, self.dtype
        with stored, torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None):
            loss = self.loss(self._forward, part) * share
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _unfreeze(self) -> None:
        step, total = self.step, self.total_steps
        due = [tune for share, tune in self.config.unfreeze if share * total <= step]
        if due and due[-1] != self._tune:
            self._tune = due[-1]
            set_trainable(self.model, self._tune)

    def _check_gradients(self) -> None:
        """Warn of what should train, and got no gradient from the first batch."""
        idle = [n for n, p in self.model.named_parameters() if p.requires_grad and p.grad is None]
        if idle:
            shown = ", ".join(idle[:4]) + (", …" if len(idle) > 4 else "")
            warnings.warn(
                f"{len(idle)} trainable parameters got no gradient from the first batch, so they "
                f"do not learn: {shown}. Freeze them, or look whether the model uses them.",
                TrainingWarning,
                stacklevel=3,
            )

    def _spoil_gradients(self) -> None:
        """After a bad loss, let the scaler find a gradient that is no number: it skips updates."""
        gradients = (p.grad for p in self.parameters() if p.grad is not None)
        next(gradients, self._failed.float()).add_(torch.where(self._failed, math.nan, 0.0))

    def _scale_can_fall(self) -> bool:
        """Say whether float16's loss scale is what made a gradient overflow; it falls by itself."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def _non_finite(self, step: Step) -> str:
        bad_loss = not math.isfinite(step.loss)
        what = f"loss is {step.loss}" if bad_loss else f"gradient's length is {step.grad_norm}"
        rows: Sequence[Any] = self.rows_of_step(step.step - 1)
        if "row" in self.dataset.column_names:
            rows = self.dataset.select_columns("row")[list(rows)]["row"]
        shown = ", ".join(map(str, rows[:4])) + (", …" if len(rows) > 4 else "")
        return (
            f"The {what} at step {step.step} (rows: {shown}); nothing was updated. "
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
        self.read()
        model = distributed.gather(trainable_state_dict(self.model, self.optimizer))
        optimizer = distributed.gather(optimizer_tensors(self.optimizer))
        progress = {"step": self.step, "micro_batches": self.micro_batches}
        if self.scaler.is_enabled():
            progress["scaler"] = self.scaler.state_dict()
        return {"model": model, "optimizer": optimizer}, {**progress, "identity": self.identity}

    def load_state_dict(self, tensors: Tensors, progress: dict[str, Any]) -> None:
        """Go on where a run of the same model, data and config was.

        Raises
        ------
        FtkitError
            It was another run, or something is missing; the message names what differs.
        """
        ours = trainable_state_dict(self.model, self.optimizer)
        check_state(self.identity, ours, tensors, progress)
        load_optimizer_tensors(self.optimizer, tensors.get("optimizer", {}))
        with torch.no_grad():
            for name, tensor in ours.items():
                tensor.copy_(distributed.distribute_like(tensors["model"][name], tensor))
        self.scaler.load_state_dict(progress.get("scaler", {}))
        self.micro_batches = progress["micro_batches"]
        self.seek(progress["step"])

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What two halves of one run must share, for JSON."""
        trained = trainable_state_dict(self.model, self.optimizer)
        return {
            **identity(self.config, self.dataset, self.model, trained),
            "dtype": str(self.dtype),
        }
