"""Compare two models on the same rows: paired bootstrap and McNemar's test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ftkit.errors import FtkitError
from ftkit.evaluation.reports import Report, bootstrap_weights, percentile_interval


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
        The reports are not of the same rows.

    References
    ----------
    McNemar 1947; Dietterich 1998, "Approximate statistical tests for comparing supervised
    classification learning algorithms".
    """
    rows_a, rows_b = len(report_a.right), len(report_b.right)
    if rows_a != rows_b or not _same(report_a.references, report_b.references):
        raise FtkitError(
            f"The reports are of other rows ({rows_a} and {rows_b}): "
            f"a paired comparison needs both models on the same split."
        )
    task, weights = report_a.task, bootstrap_weights(rows_a, n_resamples)
    both = [task.row_statistics(r.outputs, r.references) for r in (report_a, report_b)]
    drawn_a, drawn_b = (task.metrics(weights @ statistics) for statistics in both)
    right_a, right_b = report_a.right, report_b.right
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    names: Sequence[str] = list(report_a.metrics)
    return Comparison(
        {name: report_b.metrics[name] - report_a.metrics[name] for name in names},
        {name: percentile_interval(drawn_b[name] - drawn_a[name]) for name in names},
        only_a,
        only_b,
        float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0,
    )


def _same(references: Any, others: Any) -> bool:
    if isinstance(references, np.ndarray):
        return np.array_equal(references, others)
    return references == others
