"""Checks of notebook 08: F1, bootstrap interval, discordant rows, honest threshold, macro F1."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from ftkit.checks import Case, array, ask, check, close, draw, expect, judge, number_or_nan, parts

Function = Callable[..., Any]
NO_POSITIVE = (
    "without a true positive a ratio can be 0/0. By custom F1 is 0 then: look before dividing."
)


@check("2 tp / (2 tp + fp + fn): no true negatives, so a rare label cannot hide among them.")
def f1_score(answer: Function, seed: int = 0) -> None:
    """Check the F1 of label 1: which label, which mean, and the case without a true positive."""
    rng = np.random.default_rng(seed)
    ask(
        answer,
        *(draw(_f1_case, rng, size) for size in (40, 90, 200)),
        otherwise="not yet: count true positives, false positives and misses of label 1.",
    )
    nothing = number_or_nan(answer, np.zeros(8, int), np.append(rng.integers(0, 2, 7), 1))
    expect(not np.isnan(nothing), NO_POSITIVE)
    expect(close(nothing, 0), "a model that never says 1 finds nothing: its F1 is 0.")


def _f1_case(rng: Generator, size: int) -> Case:
    labels = (rng.random(size) < 0.3).astype(int)
    predictions = np.where(rng.random(size) < 0.75, labels, 1)
    predictions[:4], labels[:4] = (1, 0, 1, 1), (1, 1, 0, 0)  # hits, a miss, false alarms
    precision, recall, right = _scores(predictions, labels, 1)
    mistakes = {
        "this is the plain mean of precision and recall. F1 is their harmonic mean, which stays "
        "close to the lower one.": (precision + recall) / 2,
        "this is the F1 of label 0. The positive label is 1.": _scores(predictions, labels, 0)[2],
        "this is the accuracy. F1 leaves the true negatives out.": (predictions == labels).mean(),
        "this is tp / (tp + fp + fn), the Jaccard index. In F1 the true positives count twice.": (
            right / (2 - right)
        ),
    }
    return Case((predictions, labels), right, mistakes)


@check("Draw rows with replacement, score each draw, take percentiles: it works for any score.")
def bootstrap_interval(answer: Function, seed: int = 0) -> None:
    """Check a 95 % interval of a mean, of any kind of bootstrap: its place and its width."""
    rng = np.random.default_rng(seed)
    for size in (60, 240):
        # symmetric, so that percentiles, the basic and the BCa interval agree with the normal one
        values = rng.uniform(1, 3, size) + rng.random()
        ends = values.mean() + np.array([-1.96, 1.96]) * values.std() / np.sqrt(size)
        result = answer(values.copy())
        what = "two numbers are wanted: the lower end, the upper end"
        found = array(parts(result, 2, what))
        expect(found.shape == (2,), f"{what}.")
        width = (found[1] - found[0]) / np.ptp(ends)
        expect(
            abs(width) > 0.02,
            "all your draws have the same mean: without replacement each holds every row once.",
        )
        expect(width > 0, "the lower end comes first.")
        expect(
            width < 2,
            "far too wide: this is the spread of single rows. Take the percentiles of the drawn "
            "means, not of the rows.",
        )
        expect(
            width > 0.75,
            "too narrow: one standard deviation to each side covers about 68 %. Take the "
            "percentiles 2.5 and 97.5 of the drawn means.",
        )
        far = np.abs(found - ends).max() > 0.14 * np.ptp(ends)
        expect(not far, "not yet: as many rows as there are, with replacement, 2,000 draws or so.")


@check("Only these rows can tell the two models apart; McNemar's test looks at nothing else.")
def discordant(answer: Function, seed: int = 0) -> None:
    """Check the rows that one model alone gets right; three labels, so both can err differently."""
    rng = np.random.default_rng(seed)
    what = "two counts are wanted: only A right, only B right"
    for size in (60, 150):
        case = draw(_discordant_case, rng, size)
        a, b, labels = case.given
        result = parts(answer(a.copy(), b.copy(), labels.copy()), 2, what)
        disagree = not close(result, case.right) and close(array(result).sum(), (a != b).sum())
        expect(
            not disagree,
            "you count every disagreement. With three labels both can be wrong in different ways; "
            "such a row favours neither.",
        )
        otherwise = "not yet: right for A and wrong for B, then the other way round."
        judge(result, case.right, case.mistakes, otherwise, shape=f"{what}.")


def _discordant_case(rng: Generator, size: int) -> Case:
    while True:
        labels, guesses = rng.integers(0, 3, size), rng.integers(0, 3, (2, size))
        a, b = np.where(rng.random((2, size)) < [[0.65], [0.4]], labels, guesses)
        a[:3], b[:3], labels[:3] = (0, 1, 2), (1, 2, 0), (2, 0, 1)  # both wrong, not alike
        right_a, right_b = a == labels, b == labels
        right = [(right_a & ~right_b).sum(), (right_b & ~right_a).sum()]
        mistakes = {"swapped: first the rows that A alone gets right.": right[::-1]}
        for one, two, what in ((right_a, right_b, "right"), (~right_a, ~right_b, "wrong")):
            hint = f"all rows that each model gets {what}: those that both get {what} cancel."
            mistakes[hint] = [one.sum(), two.sum()]
        if all(sum(mistake) != (a != b).sum() for mistake in mistakes.values()):
            return Case((a, b, labels), right, mistakes)


@check("Choose on validation, report on test: then the number is a forecast for new rows.")
def honest_threshold(answer: Function, seed: int = 0) -> None:
    """Check that the threshold comes from validation and the reported accuracy from test."""
    rng, thresholds = np.random.default_rng(seed), np.linspace(0.05, 0.95, 19)
    what = "two numbers are wanted: the threshold and an accuracy"
    for size in (200, 500):
        given, on_validation, on_test = _split_scores(rng, thresholds, size)
        result = parts(answer(thresholds.copy(), *given), 2, what)
        threshold, accuracy = array(result)
        place = int(np.abs(thresholds - threshold).argmin())
        expect(close(threshold, thresholds[place]), "the threshold is none of the given ones.")
        if on_validation[place] < on_validation.max():
            cheated = on_test[place] == on_test.max()
            expect(not cheated, "chosen on the test split: its score now holds the choice's luck.")
            expect(not close(threshold, 0.5), "0.5 is only a custom; try all the thresholds.")
            expect(False, "another threshold has a higher accuracy on the validation split.")
        mistakes = {
            "this accuracy was measured on the validation split, which chose the threshold. "
            "Report the test split's.": on_validation[place]
        }
        otherwise = "the second number is not the accuracy on test at this threshold."
        judge(accuracy, on_test[place], mistakes, otherwise)


def _split_scores(
    rng: Generator, thresholds: np.ndarray, size: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """Draw two splits whose best thresholds differ; return them and the accuracies of each."""
    while True:
        probabilities = rng.random((2, size))  # validation, test
        labels = probabilities > [[0.28], [0.68]]  # the splits disagree on purpose
        labels = (labels ^ (rng.random((2, size)) < [[0.05], [0.15]])).astype(int)
        (validation, test), (validation_labels, test_labels) = probabilities, labels
        on_validation = _accuracies(thresholds, validation, validation_labels)
        on_test = _accuracies(thresholds, test, test_labels)
        best, best_on_test = on_validation == on_validation.max(), on_test == on_test.max()
        custom = np.isclose(thresholds, 0.5)
        apart = not (best & best_on_test).any() and not (custom & (best | best_on_test)).any()
        if apart and np.abs(on_validation - on_test)[best].min() > 0.01:
            return (validation, validation_labels, test, test_labels), on_validation, on_test


def _accuracies(thresholds: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([((scores >= threshold) == labels).mean() for threshold in thresholds])


@check("Each label's own F1, then the plain mean: a rare label counts as much as a common one.")
def macro_f1(answer: Function, seed: int = 0) -> None:
    """Check macro F1: order of the means, weights, and a label that nobody predicts."""
    rng = np.random.default_rng(seed)
    ask(
        answer,
        *(draw(_macro_case, rng, n_labels, size) for n_labels, size in ((3, 80), (5, 200))),
        otherwise="not yet: the mean over the labels of each label's own F1.",
    )
    rows = np.array([0, 1, 1, 0])
    found = number_or_nan(answer, rows, rows.copy(), 3)
    expect(not np.isnan(found), NO_POSITIVE)
    expect(
        close(found, 2 / 3),
        "a label that stands in no row and in no prediction has F1 0, and the mean is over all "
        "n_labels labels.",
    )


def _macro_case(rng: Generator, n_labels: int, size: int) -> Case:
    share = np.arange(1, n_labels + 1) ** 2.0
    labels = rng.choice(n_labels, size, p=share / share.sum())
    predictions = np.where(rng.random(size) < 0.6, labels, rng.integers(0, n_labels, size))
    labels[:n_labels], predictions[:n_labels] = range(n_labels), range(n_labels)
    scores = np.array([_scores(predictions, labels, label) for label in range(n_labels)])
    precision, recall, right = scores.mean(axis=0)
    mistakes = {
        "this is the F1 of the mean precision and the mean recall. Make each label's F1 "
        "first, then take the mean.": 2 * precision * recall / (precision + recall),
        "this is the accuracy (micro F1): common labels rule it.": (predictions == labels).mean(),
        "you weigh each label by its rows. Macro means a plain mean.": scores[:, 2]
        @ np.bincount(labels, minlength=n_labels)
        / size,
    }
    return Case((predictions, labels, n_labels), right, mistakes)


def _scores(predictions: np.ndarray, labels: np.ndarray, label: int) -> tuple[float, float, float]:
    """Return precision, recall and F1 of one label; 0/0 counts as 0."""
    called, is_one = predictions == label, labels == label
    hits = (called & is_one).sum()
    sizes = (called.sum(), is_one.sum(), (called.sum() + is_one.sum()) / 2)
    precision, recall, f1 = (float(hits / size) if size else 0.0 for size in sizes)
    return precision, recall, f1
