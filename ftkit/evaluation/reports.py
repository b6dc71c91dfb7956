"""Predict, and score with intervals."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from scipy.special import log_softmax
from torch import nn

from ftkit.data.batches import EVALUATION_BATCH_SIZE, collate, length_order, row_lengths
from ftkit.devices import supports_bf16
from ftkit.errors import FtkitError
from ftkit.models.frozen import FrozenLayers
from ftkit.tasks.base import Task, logits_of


@torch.inference_mode()
def predict(
    model: nn.Module,
    dataset: Dataset,
    task: Task | None = None,
    *,
    bf16: bool | None = None,
    frozen: FrozenLayers | None = None,
) -> Any:
    """Return what the model says of every row, in the rows' order.

    Parameters
    ----------
    model : PreTrainedModel
        Put in eval mode for the call, and back.
    dataset : datasets.Dataset
        One encoded split.
    task : Task, optional
        Decides what is kept of a row, see ``task.outputs``; by default the logits.
    bf16 : bool, optional
        Compute in bfloat16; by default where the hardware does.
    frozen : FrozenLayers, optional
        The stored outputs of lower layers for this data set.

    Returns
    -------
    ndarray of shape (n_rows, n_labels), float32
        For a task whose rows have outputs of different shapes: a list of ndarray.
    """
    if isinstance(dataset, DatasetDict):
        raise FtkitError(
            f'A DatasetDict came; expected one split, such as dataset["{next(iter(dataset))}"].'
        )
    device = next(model.parameters()).device
    use_bf16 = supports_bf16(device) if bf16 is None else bf16
    pad: Any = model.config.pad_token_id  # type: ignore[union-attr]
    size = task.evaluation_batch_size if task else EVALUATION_BATCH_SIZE
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    outputs: dict[int, np.ndarray] = {}
    for rows in length_order(row_lengths(dataset), size):
        batch = {name: t.to(device) for name, t in collate(dataset, rows, pad).items()}
        stored = frozen.reuse(rows) if frozen else nullcontext()
        with stored, torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            found = task.outputs(model, batch) if task else logits_of(model, batch)
        outputs.update(zip(rows, found, strict=True))
    for module, training in modes:
        module.training = training
    ordered = [outputs[row] for row in range(len(dataset))]
    equal = len({output.shape for output in ordered}) == 1
    return np.stack(ordered) if equal else ordered


@dataclass(frozen=True)
class Report:
    """Scores of one model on one split, and the outputs that they rest on.

    Attributes
    ----------
    metrics : dict of float
        Metric name → value.
    intervals : dict of tuple
        Metric name → 95 % bootstrap interval ``(low, high)``; empty where none was asked for.
    outputs, references
        What the model said of each row and what it was counted against: for a classification
        `logits` of shape (n_rows, n_labels) and `labels` of shape (n_rows,); else see the task.
    right : ndarray of shape (n_rows,), bool
        Which rows are wholly right.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    outputs: Any = field(repr=False)
    references: Any = field(repr=False)
    right: np.ndarray = field(repr=False)
    task: Task = field(repr=False)

    @property
    def logits(self) -> np.ndarray:
        """The outputs of a classification, shape (n_rows, n_labels)."""
        return self.outputs

    @property
    def labels(self) -> np.ndarray:
        """The references of a classification, shape (n_rows,)."""
        return self.references

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.task.labels  # type: ignore[attr-defined]

    @property
    def predictions(self) -> np.ndarray:
        """Predicted labels, shape (n_rows,)."""
        return self.logits.argmax(axis=-1)

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, shape (n_rows, n_labels)."""
        return np.exp(log_softmax(self.logits, axis=-1))

    @property
    def losses(self) -> np.ndarray:
        """Cross-entropy of each row in nats, shape (n_rows,)."""
        return -log_softmax(self.logits, axis=-1)[np.arange(len(self.labels)), self.labels]

    def to_dict(self) -> dict[str, object]:
        """Return one flat object: metric → value, with ``intervals`` and ``rows`` beside."""
        intervals = {name: list(pair) for name, pair in self.intervals.items()}
        return {**self.metrics, "intervals": intervals, "rows": len(self.right)}

    def __str__(self) -> str:
        """Return a small table: one metric a line."""
        lines = [f"{len(self.right)} rows"]
        for name, value in self.metrics.items():
            low, high = self.intervals.get(name, (None, None))
            interval = "" if low is None else f"  [{low:.3f}, {high:.3f}]"
            lines.append(f"{name:<18}{value:.3f}{interval}")
        return "\n".join(lines)


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    task: Task,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    bf16: bool | None = None,
    frozen: FrozenLayers | None = None,
) -> Report:
    """Score a model on one encoded split, with 95 % bootstrap intervals.

    The interval is the percentile bootstrap over rows (Efron 1979): it says how much the score
    would move with another test set of this size. It does not say how much another seed would.

    Parameters
    ----------
    model : PreTrainedModel
    dataset : datasets.Dataset
        One split of ``task.encode``.
    task : Task
    n_resamples : int
        0 leaves the intervals out.
    seed : int
        Decides the resamples.
    bf16, frozen : optional
        See `predict`.

    Returns
    -------
    Report

    Examples
    --------
    >>> report = evaluate(model, encoded["test"], task)  # doctest: +SKIP
    >>> report.metrics["accuracy"], report.intervals["accuracy"]  # doctest: +SKIP
    (0.858, (0.826, 0.886))
    """
    outputs = predict(model, dataset, task, bf16=bf16, frozen=frozen)
    return make_report(task, outputs, task.references(dataset), n_resamples, seed)


def make_report(
    task: Task,
    outputs: Any,
    references: Any,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Report:
    """Score outputs that are there already, such as logits against labels; see `evaluate`."""
    statistics = task.row_statistics(outputs, references)
    metrics = {name: float(v) for name, v in task.metrics(statistics.sum(axis=0)).items()}
    intervals = {}
    if n_resamples:
        weights = bootstrap_weights(statistics.shape[0], n_resamples, seed)
        drawn = task.metrics(weights @ statistics)
        intervals = {name: percentile_interval(values) for name, values in drawn.items()}
    right = task.right(outputs, references)
    return Report(metrics, intervals, outputs, references, right, task)


def bootstrap_weights(n_rows: int, n_resamples: int, seed: int = 0) -> np.ndarray:
    """Return how often each row stands in each resample, shape (n_resamples, n_rows)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=n_resamples)


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
