"""Figures from histories and reports: an `Axes` goes in or is made, and comes out."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from sklearn.calibration import calibration_curve
from sklearn.metrics import ConfusionMatrixDisplay

from ftkit.evaluation.reports import Report
from ftkit.training.train import History

# Okabe and Ito's colours; the same colour and marker for a method throughout the course.
METHOD_STYLE = {
    "full": ("#0072B2", "o"),
    "hybrid": ("#D55E00", "D"),
    "lora": ("#CC79A7", "s"),
    "top-2": ("#009E73", "^"),
    "bias": ("#E69F00", "v"),
    "head": ("#56B4E9", "P"),
    "frozen": ("#8B4513", "h"),
    "random weights": ("#000000", "X"),
    "tf-idf": ("#7F7F7F", "*"),
}


def use_style() -> None:
    """Use the course's look for every figure that follows: stock fonts, colour-blind safe."""
    plt.style.use(str(resources.files("ftkit") / "ftkit.mplstyle"))


def loss_curve(history: History, ax: Axes | None = None, *, label: str = "training") -> Axes:
    """Draw the training loss of every step, and the validation loss of every epoch.

    Epoch 0 is the untouched model.

    Parameters
    ----------
    history : History
    ax : Axes, optional
    label : str
        Stands in the legend.

    Returns
    -------
    Axes
        Epochs from left to right, cross-entropy in nats upwards.
    """
    ax = ax or plt.subplots()[1]
    epochs = [step.epoch for step in history.steps]
    line = ax.plot(epochs, [step.loss for step in history.steps], lw=1, alpha=0.8, label=label)
    if history.evaluations:
        losses = [metrics["loss"] for metrics in history.evaluations]
        numbers = [metrics["epoch"] for metrics in history.evaluations]
        ax.plot(numbers, losses, "o--", color=line[0].get_color(), label="validation")
    ax.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    ax.legend()
    return ax


def confusion_matrix(report: Report, ax: Axes | None = None) -> Axes:
    """Draw how many rows of each true class were predicted as each class."""
    ax = ax or plt.subplots()[1]
    ConfusionMatrixDisplay.from_predictions(
        report.labels,
        report.predictions,
        display_labels=report.label_names,
        labels=range(len(report.label_names)),
        cmap="Blues",
        colorbar=False,
        ax=ax,
    )
    ax.grid(False)
    return ax


def calibration(report: Report, ax: Axes | None = None, *, n_bins: int = 8) -> Axes:
    """Draw how often the model is right among rows of which it is equally sure.

    Bins hold equally many rows. Below the diagonal, the model is surer than it should be.
    """
    ax = ax or plt.subplots()[1]
    confidence = report.probabilities.max(axis=1)
    right = report.predictions == report.labels
    share, mean = calibration_curve(right, confidence, n_bins=n_bins, strategy="quantile")
    low = 1 / len(report.label_names)
    ax.plot([low, 1], [low, 1], color="grey", ls=":", label="perfect")
    ax.plot(mean, share, "o-", label="model")
    ax.set(xlabel="mean confidence", ylabel="share of right answers", xlim=(low, 1), ylim=(0, 1))
    ax.legend()
    return ax


def intervals(
    rows: Mapping[str, Sequence[float]], ax: Axes | None = None, *, xlabel: str = "test accuracy"
) -> Axes:
    """Draw for each method its runs as small points, and their mean with its 95 % interval.

    Parameters
    ----------
    rows : mapping
        Method → one value a seed.
    ax : Axes, optional
    xlabel : str

    Returns
    -------
    Axes
        One method a line, the first at the top.
    """
    ax = ax or plt.subplots()[1]
    for y, (name, values) in enumerate(rows.items()):
        colour, marker = METHOD_STYLE.get(name, ("#333333", "o"))
        low, high = mean_interval(values)
        ax.plot(values, np.full(len(values), y) + 0.22, "|", color=colour, ms=6, alpha=0.7)
        ax.plot([low, high], [y, y], color=colour, lw=3, solid_capstyle="butt")
        ax.plot(np.mean(values), y, marker, color=colour, ms=8, mec="white", mew=0.5)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.4, -0.6)  # the first at the top
    ax.set_xlabel(xlabel)
    return ax


def mean_interval(values: Sequence[float], *, n_resamples: int = 10_000) -> tuple[float, float]:
    """Return the 95 % interval of a mean over seeds: the percentile bootstrap over runs.

    Examples
    --------
    >>> mean_interval([0.5, 0.5, 0.5])
    (0.5, 0.5)
    """
    array: Any = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0)
    means = rng.choice(array, size=(n_resamples, len(array))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
