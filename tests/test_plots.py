"""Figures: they draw what they are given, on the axes they are given."""

import matplotlib
import numpy as np
import pytest

import ftkit
from ftkit import plots
from ftkit.evaluation.reports import make_report

matplotlib.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def _close_figures():
    plots.use_style()
    yield
    plt.close("all")
    plt.rcdefaults()


@pytest.fixture
def report(task):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    logits = rng.normal(size=(300, 2))
    logits[np.arange(300), labels] += 1
    return make_report(task, logits, labels, n_resamples=0)


def test_loss_curve():
    steps = [ftkit.Step(i + 1, (i + 1) / 4, 1.0 - i / 10, 1.0, 1e-3) for i in range(8)]
    history = ftkit.History(steps, [{"epoch": e, "loss": 1 / e} for e in (1, 2)], 2)
    ax = plots.loss_curve(history)
    training, validation = ax.lines
    assert training.get_xdata()[-1] == 2.0
    assert list(validation.get_xdata()) == [1, 2]
    assert list(validation.get_ydata()) == [1.0, 0.5]
    assert ax.get_ylabel() == "cross-entropy (nats)"


def test_confusion_matrix_counts(report):
    ax = plots.confusion_matrix(report)
    counts = sorted(int(text.get_text()) for text in ax.texts)
    assert sum(counts) == 300
    right = sorted(int(n) for n in np.bincount(report.labels[report.labels == report.predictions]))
    assert set(right) <= set(counts)


def test_calibration_bins_hold_the_truth(report):
    ax = plots.calibration(report, n_bins=1)
    (x,), (y,) = ax.lines[1].get_data()
    assert x == pytest.approx(report.probabilities.max(axis=1).mean())
    assert y == pytest.approx(report.metrics["accuracy"])


def test_intervals_use_the_axes_given():
    _, ax = plt.subplots()
    assert plots.intervals({"full": [0.8, 0.9], "mine": [0.5, 0.7]}, ax) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == ["full", "mine"]
    means = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert means == pytest.approx([0.85, 0.6])


def test_mean_interval_against_theory():
    values = np.random.default_rng(0).normal(size=200)
    low, high = plots.mean_interval(values)
    error = values.std() / np.sqrt(200)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.02)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.02)
