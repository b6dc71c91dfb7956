"""Compare two models on the same rows: paired bootstrap and McNemar's test."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ftkit.errors import FtkitError
from ftkit.evaluation.reports import Report, bootstrap_metrics, percentile_interval
from ftkit.tasks.base import Task


@dataclass(frozen=True)
class Comparison:
    """How model B differs from model A on the same rows.

    Attributes
    ----------
    differences : dict of float
        Metric name → B minus A.
    intervals : dict of tuple
        Metric name → 95 % interval of the difference, by paired bootstrap.
    only_a_right, only_b_right : int
        Rows that one model alone gets right.
    p_value : float
        Exact McNemar test: how probable a split of those rows at least this uneven is, were both
        models equally good.
    """

    differences: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    only_a_right: int
    only_b_right: int
    p_value: float


def compare(report_a: Report, report_b: Report, *, n_resamples: int = 2000) -> Comparison:
    """Compare two reports of the same rows, pair by pair.

    Parameters
    ----------
    report_a, report_b : Report
        Of two models on one split.
    n_resamples : int

    Returns
    -------
    Comparison

    Raises
    ------
    FtkitError
        The reports are not of the same rows, or of one kind of task with the same labels.

    References
    ----------
    McNemar 1947; Dietterich 1998, "Approximate statistical tests for comparing supervised
    classification learning algorithms".
    """
    both = report_a.statistics, report_b.statistics
    if both[0].shape[0] != both[1].shape[0] or not _same(report_a.references, report_b.references):
        raise FtkitError(
            f"The reports are of other rows ({both[0].shape[0]} and {both[1].shape[0]}): "
            f"a paired comparison needs both models on the same split."
        )
    task, other = report_a.task, report_b.task
    if _counted(task) != _counted(other):
        raise FtkitError(
            f"The reports are of other tasks ({task.name}: {task.describe()}; {other.name}: "
            f"{other.describe()}): a paired comparison needs one measure for both models."
        )
    scores_a, scores_b = (task.metrics(statistics.sum(axis=0)) for statistics in both)
    drawn_a, drawn_b = bootstrap_metrics(task, both, n_resamples)
    right_a, right_b = report_a.is_correct, report_b.is_correct
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return Comparison(
        {name: float(scores_b[name] - scores_a[name]) for name in scores_a},
        {name: percentile_interval(drawn_b[name] - drawn_a[name]) for name in scores_a},
        only_a,
        only_b,
        float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0,
    )


def _counted(task: Task) -> tuple[Any, ...]:
    """Return what the counts of a task depend on, whatever model or tokenizer they are of."""
    return type(task), getattr(task, "labels", None), getattr(task, "tokenize", None)


def _same(references: Any, others: Any) -> bool:
    if isinstance(references, np.ndarray):
        return np.array_equal(references, others)
    return references == others
