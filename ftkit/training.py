"""The training loop: a run that one loops over, and a plain function that does it all."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from torch import nn
from tqdm.auto import tqdm

from ftkit.batches import Batch, collate, epoch_order, micro_batches, row_lengths, step_seed
from ftkit.config import OPTIMIZERS, SCHEDULES, TrainingConfig
from ftkit.devices import best_device, supports_bf16
from ftkit.errors import FtkitError
from ftkit.parameters import freeze_modules, parameter_groups, set_trainable


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
        _check_dataset(dataset)
        self.device = best_device()
        self.model.to(self.device)
        self.bf16 = supports_bf16(self.device) if self.config.bf16 is None else self.config.bf16
        self.lengths = row_lengths(dataset)
        self.steps_per_epoch = math.ceil(len(dataset) / self.config.batch_size)
        self.total_steps = self.steps_per_epoch * self.config.num_train_epochs
        self.optimizer = self._make_optimizer()
        self.peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0
        self._order: tuple[int, list[list[int]]] = (-1, [])  # epoch, its batches
        self._tune: str | None = None  # the last preset that `unfreeze` asked for

    def _make_optimizer(self) -> torch.optim.Optimizer:
        names: set[str] = set()
        for _, tune in self.config.unfreeze:
            set_trainable(self.model, tune)
            names |= {n for n, p in self.model.named_parameters() if p.requires_grad}
        groups = parameter_groups(
            self.model,
            self.config.learning_rate,
            head_learning_rate=self.config.head_learning_rate,
            layer_decay=self.config.layer_decay,
            weight_decay=self.config.weight_decay,
            names=names or None,
        )
        if not groups:
            raise FtkitError('No parameter is trainable. Call ftkit.set_trainable(model, "full").')
        options = {"fused": True} if self.config.optim == "adamw_torch" else {}
        return OPTIMIZERS[self.config.optim](groups, lr=self.config.learning_rate, **options)

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        if self.step >= self.total_steps:
            raise StopIteration
        self._thaw()
        self._set_learning_rates()
        rows = self.rows_of_step(self.step)
        batch = collate(self.dataset, rows, self.model.config.pad_token_id)  # type: ignore[union-attr]
        self.optimizer.zero_grad()
        loss = self._backward(batch)
        if not math.isfinite(loss):
            raise FtkitError(self._non_finite(loss, rows))
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.step += 1
        rate = self.optimizer.param_groups[0]["lr"]
        return Step(self.step, self.step / self.steps_per_epoch, loss, float(grad_norm), rate)

    def parameters(self) -> list[nn.Parameter]:
        """Return all parameters that train at some time of the run, thawed later ones included."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def rows_of_step(self, step: int) -> list[int]:
        """Return the indices of the rows that a step (counted from 0) trains on."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            config = self.config
            order = epoch_order(self.lengths, config.batch_size, config.seed, epoch)
            self._order = (epoch, order)
        return self._order[1][position]

    def _backward(self, batch: Batch) -> float:
        """Add up the gradients of all micro-batches, each weighed by its number of labels."""
        freeze_modules(self.model)
        parts = micro_batches(batch, self.config.gradient_accumulation_steps)
        counts = [int((part["labels"] != -100).sum()) for part in parts]
        total = 0.0
        with torch.random.fork_rng():
            torch.manual_seed(step_seed(self.config.seed, self.step))
            for part, count in zip(parts, counts, strict=True):
                part = {name: tensor.to(self.device) for name, tensor in part.items()}
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    loss = self.model(**part).loss * (count / sum(counts))
                loss.backward()
                total += loss.item()
        return total

    def _set_learning_rates(self) -> None:
        warmup = self.config.warmup_steps
        warmup = warmup * self.total_steps if warmup < 1 else warmup
        if self.step < warmup:
            factor = self.step / warmup
        else:
            progress = (self.step - warmup) / max(1, self.total_steps - warmup)
            factor = SCHEDULES[self.config.lr_scheduler_type](progress)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor

    def _thaw(self) -> None:
        due = [
            tune for share, tune in self.config.unfreeze if share * self.total_steps <= self.step
        ]
        if due and due[-1] != self._tune:
            self._tune = due[-1]
            set_trainable(self.model, self._tune)

    def _non_finite(self, loss: float, rows: Sequence[int]) -> str:
        named = rows
        if "row" in self.dataset.column_names:
            named = self.dataset.select_columns("row")[list(rows)]["row"]
        shown = ", ".join(map(str, named[:4])) + (", …" if len(named) > 4 else "")
        return (
            f"The loss is {loss} at step {self.step + 1} (rows: {shown}); nothing was updated. "
            f"Try a lower learning rate, or bf16=False."
        )


def _check_dataset(dataset: Any) -> None:
    if isinstance(dataset, DatasetDict):
        raise FtkitError('A DatasetDict came; expected one split, such as encoded["train"].')
    missing = [name for name in ("input_ids", "labels") if name not in dataset.column_names]
    if missing:
        raise FtkitError(
            f"The data set has no column {' and no '.join(missing)}; its columns are "
            f"{', '.join(dataset.column_names)}. Encode it first: task.encode(splits, tokenizer)."
        )
    if len(dataset) == 0:
        raise FtkitError("The training split has no rows.")


@dataclass
class History:
    """What happened in a run: one `Step` an update, one dict of metrics an epoch.

    Attributes
    ----------
    steps : list of Step
    evaluations : list of dict
        Validation metrics and ``loss`` after each epoch.
    best_epoch : int
        Counted from 1; its weights are the ones kept. 0 where nothing was validated.
    """

    steps: list[Step] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0


def train(
    model: nn.Module, encoded: DatasetDict, task: Any, config: TrainingConfig | None = None
) -> History:
    """Train on ``encoded["train"]``, validate after each epoch, keep the best epoch's weights.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        Trained in place.
    encoded : DatasetDict
        From ``task.encode``. Without a ``validation`` split the last weights are kept.
    task : SequenceClassification
        Its ``best_metric`` decides which epoch is the best; the earlier one where two are equal.
    config : TrainingConfig, optional

    Returns
    -------
    History
    """
    from ftkit.evaluation import evaluate

    run, history = TrainingRun(model, encoded["train"], config), History()
    best: list[tuple[nn.Parameter, torch.Tensor]] = []
    for step in tqdm(run, total=run.total_steps, desc="training", unit="step"):
        history.steps.append(step)
        if step.step % run.steps_per_epoch or "validation" not in encoded:
            continue
        report = evaluate(model, encoded["validation"], task, n_resamples=0, bf16=run.bf16)
        history.evaluations.append({**report.metrics, "loss": float(report.losses.mean())})
        scores = [metrics[task.best_metric] for metrics in history.evaluations]
        if scores.index(max(scores)) == len(scores) - 1:
            history.best_epoch = len(scores)
            best = [(p, p.detach().clone()) for p in run.parameters()]
    with torch.no_grad():
        for parameter, kept in best:
            parameter.copy_(kept)
    return history
