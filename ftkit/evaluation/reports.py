"""Score with intervals: what a model said, counted once, and the scores of those counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.special import log_softmax
from torch import nn

from ftkit.evaluation.prediction import predict
from ftkit.models.frozen import FrozenLayers
from ftkit.tasks.base import Task

NUMBERS_AT_ONCE = 2**21  # of weights or of sums, in one part of the bootstrap: 16 MiB


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
    statistics : array of shape (n_rows, n_counts)
        The counts of each row, of which all scores are made; see ``task.row_statistics``.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    outputs: Any = field(repr=False)
    references: Any = field(repr=False)
    statistics: Any = field(repr=False)
    task: Task = field(repr=False)

    @property
    def is_correct(self) -> np.ndarray:
        """Which rows are wholly right, shape (n_rows,), bool."""
        return self.task.is_correct(self.statistics)

    @property
    def per_class(self) -> dict[str, dict[str, float]]:
        """Each label, or type of entity → its precision, recall, f1 and support.

        As scikit-learn's ``classification_report``: support is how often it is there.
        """
        return self.task.per_class(self.statistics.sum(axis=0))

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
        return {**self.metrics, "intervals": intervals, "rows": self.statistics.shape[0]}

    def __str__(self) -> str:
        """Return a small table: one metric a line."""
        lines = [f"{self.statistics.shape[0]} rows"]
        titles = {name: self.task.metric_title(name) for name in self.metrics}
        width = max(16, *map(len, titles.values())) + 2
        for name, value in self.metrics.items():
            low, high = self.intervals.get(name, (None, None))
            interval = "" if low is None else f"  [{low:.3f}, {high:.3f}]"
            lines.append(f"{titles[name]:<{width}}{value:.3f}{interval}")
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
        (drawn,) = bootstrap_metrics(task, [statistics], n_resamples, seed)
        intervals = {name: percentile_interval(values) for name, values in drawn.items()}
    return Report(metrics, intervals, outputs, references, statistics, task)


def bootstrap_weights(n_rows: int, n_resamples: int, seed: int = 0) -> np.ndarray:
    """Return how often each row stands in each resample, shape (n_resamples, n_rows)."""
    return next(_weights(n_rows, n_resamples, n_resamples, seed))


def bootstrap_metrics(
    task: Task, statistics: Sequence[Any], n_resamples: int, seed: int = 0
) -> list[dict[str, np.ndarray]]:
    """Return the metrics of each resample, drawn part by part so that memory stays flat.

    Parameters
    ----------
    task : Task
    statistics : sequence of arrays of shape (n_rows, n_counts)
        Several, of the same rows, are resampled alike.
    n_resamples, seed : int

    Returns
    -------
    list of dict
        For each of `statistics` metric name → ndarray of shape (n_resamples,).
    """
    size = max(1, NUMBERS_AT_ONCE // max(max(counts.shape) for counts in statistics))
    drawn = [
        [task.metrics(weights @ counts) for counts in statistics]
        for weights in _weights(statistics[0].shape[0], n_resamples, size, seed)
    ]
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*drawn, strict=True)
    ]


def _weights(n_rows: int, n_resamples: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the weights of all resamples, `size` of them at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, n_resamples, size):
        n_drawn = min(size, n_resamples - start)
        yield rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=n_drawn)


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
