"""Right and wrong answers to the exercises on evaluation."""

import random
import statistics

import numpy as np
import scipy.stats
import sklearn.metrics
import torch


def counts(predictions, labels, label=1):
    called, is_one = predictions == label, labels == label
    return (called & is_one).sum(), (called & ~is_one).sum(), (~called & is_one).sum()


def right_f1(predictions, labels, label=1):
    tp, fp, fn = counts(predictions, labels, label)
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


def plain_mean(predictions, labels):
    tp, fp, fn = counts(predictions, labels)
    return (tp / (tp + fp) + tp / (tp + fn)) / 2


def jaccard(predictions, labels):
    tp, fp, fn = counts(predictions, labels)
    return tp / (tp + fp + fn)


def divides_by_zero(predictions, labels):
    tp, fp, fn = (int(count) for count in counts(predictions, labels))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return 2 * precision * recall / (precision + recall)


def means(values):
    rng = np.random.default_rng()
    return rng.choice(values, (2000, len(values))).mean(axis=1)


def right_interval(values):
    return np.percentile(means(values), [2.5, 97.5])


def without_replacement(values):
    rng = np.random.default_rng()
    drawn = [rng.permutation(values).mean() for _ in range(200)]
    return np.percentile(drawn, [2.5, 97.5])


def one_standard_deviation(values):
    drawn = means(values)
    return drawn.mean() - drawn.std(), drawn.mean() + drawn.std()


def right_discordant(a, b, labels):
    right_a, right_b = a == labels, b == labels
    return (right_a & ~right_b).sum(), (~right_a & right_b).sum()


def all_disagreements(a, b, labels):
    only_a = (a == labels) & (a != b)
    return only_a.sum(), (a != b).sum() - only_a.sum()


def accuracy(threshold, probabilities, labels):
    return np.mean((probabilities >= threshold) == labels)


def best(thresholds, probabilities, labels):
    return max(thresholds, key=lambda t: accuracy(t, probabilities, labels))


def right_threshold(thresholds, validation, validation_labels, test, test_labels):
    threshold = best(thresholds, validation, validation_labels)
    return threshold, accuracy(threshold, test, test_labels)


def chosen_on_test(thresholds, validation, validation_labels, test, test_labels):
    threshold = best(thresholds, test, test_labels)
    return threshold, accuracy(threshold, test, test_labels)


def scored_on_validation(thresholds, validation, validation_labels, test, test_labels):
    threshold = best(thresholds, validation, validation_labels)
    return threshold, accuracy(threshold, validation, validation_labels)


def right_macro(predictions, labels, n_labels):
    return np.mean([right_f1(predictions, labels, label) for label in range(n_labels)])


def f1_of_means(predictions, labels, n_labels):
    shares = []
    for label in range(n_labels):
        tp, fp, fn = counts(predictions, labels, label)
        shares.append((tp / max(tp + fp, 1), tp / max(tp + fn, 1)))
    precision, recall = np.mean(shares, axis=0)
    return 2 * precision * recall / (precision + recall)


def weighted(predictions, labels, n_labels):
    scores = [right_f1(predictions, labels, label) for label in range(n_labels)]
    return np.average(scores, weights=np.bincount(labels, minlength=n_labels))


CASES = {
    "f1_score": (
        right_f1,
        [
            (plain_mean, "plain mean of precision and recall"),
            (lambda predictions, labels: right_f1(predictions, labels, 0), "F1 of label 0"),
            (lambda predictions, labels: np.mean(predictions == labels), "true negatives out"),
            (jaccard, "Jaccard"),
            (divides_by_zero, "0/0. By custom"),
        ],
    ),
    "bootstrap_interval": (
        right_interval,
        [
            (without_replacement, "without replacement"),
            (one_standard_deviation, "68 %"),
            (lambda values: np.percentile(values, [2.5, 97.5]), "spread of single rows"),
            (lambda values: right_interval(values)[::-1], "lower end comes first"),
            (lambda values: right_interval(values)[0], "two numbers"),
        ],
    ),
    "discordant": (
        right_discordant,
        [
            (lambda a, b, labels: right_discordant(b, a, labels), "swapped"),
            (lambda a, b, labels: ((a == labels).sum(), (b == labels).sum()), "model gets right"),
            (lambda a, b, labels: ((a != labels).sum(), (b != labels).sum()), "model gets wrong"),
            (all_disagreements, "every disagreement"),
        ],
    ),
    "honest_threshold": (
        right_threshold,
        [
            (chosen_on_test, "chosen on the test split"),
            (scored_on_validation, "measured on the validation split"),
            (lambda ts, v, vl, t, tl: (0.5, accuracy(0.5, t, tl)), "only a custom"),
        ],
    ),
    "macro_f1": (
        right_macro,
        [
            (f1_of_means, "mean precision and the mean recall"),
            (lambda predictions, labels, n_labels: np.mean(predictions == labels), "micro F1"),
            (weighted, "weigh each label by its rows"),
            (
                lambda predictions, labels, n_labels: right_macro(
                    predictions, labels, int(max(predictions.max(), labels.max())) + 1
                ),
                "stands in no row",
            ),
        ],
    ),
}


def f1_in_a_loop(predictions, labels):
    hits = called = actual = 0
    for prediction, label in zip(predictions, labels, strict=True):
        hits += prediction == label == 1
        called += prediction == 1
        actual += label == 1
    if hits == 0:
        return 0
    precision, recall = hits / called, hits / actual
    return 2 / (1 / precision + 1 / recall)


def f1_in_torch(predictions, labels):
    predictions, labels = torch.tensor(predictions), torch.tensor(labels)
    hits = ((predictions == 1) & (labels == 1)).sum()
    return 2 * hits / ((predictions == 1).sum() + (labels == 1).sum())


def interval_by_scipy(method):
    def answer(values):
        return scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=2000, method=method
        ).confidence_interval

    return answer


def interval_by_quantiles(values):
    drawn = [statistics.fmean(random.choices(values.tolist(), k=len(values))) for _ in range(2000)]
    drawn.sort()
    return drawn[50], drawn[1949]


def interval_in_torch(values):
    values = torch.tensor(values, dtype=torch.float32)
    places = torch.randint(len(values), (4000, len(values)))
    return values[places].mean(dim=1).quantile(torch.tensor([0.025, 0.975]))


def discordant_in_a_loop(a, b, labels):
    only_a = only_b = 0
    for one, other, label in zip(a, b, labels, strict=True):
        if one == label != other:
            only_a += 1
        elif other == label != one:
            only_b += 1
    return [only_a, only_b]


def threshold_in_a_loop(thresholds, validation, validation_labels, test, test_labels):
    best, highest = None, -1.0
    for threshold in thresholds:
        right = sum(
            (p >= threshold) == y for p, y in zip(validation, validation_labels, strict=True)
        )
        if right >= highest:  # of equally good ones the last
            best, highest = threshold, right
    hits = [int(p >= best) == y for p, y in zip(test, test_labels, strict=True)]
    return [float(best), sum(hits) / len(hits)]


def threshold_by_table(thresholds, validation, validation_labels, test, test_labels):
    table = (validation[:, None] >= thresholds) == validation_labels[:, None]
    place = table.mean(axis=0).argmax()
    accuracy = ((test >= thresholds[place]) == test_labels).mean(dtype=np.float32)
    return np.array([thresholds[place], accuracy])


def threshold_in_torch(thresholds, validation, validation_labels, test, test_labels):
    thresholds, validation, test = map(torch.tensor, (thresholds, validation, test))
    called = validation >= thresholds[:, None]
    place = (called == torch.tensor(validation_labels)).float().mean(dim=1).argmax()
    hits = (test >= thresholds[place]) == torch.tensor(test_labels)
    return thresholds[place], hits.float().mean()


def macro_by_confusion(predictions, labels, n_labels):
    table = np.zeros((n_labels, n_labels))
    np.add.at(table, (labels, predictions), 1)
    hits, sizes = np.diag(table), table.sum(axis=0) + table.sum(axis=1)
    return float((2 * hits / np.maximum(sizes, 1)).mean())


ALTERNATIVES = {
    "f1_score": [
        f1_in_a_loop,
        f1_in_torch,
        lambda predictions, labels: sklearn.metrics.f1_score(labels, predictions),
    ],
    "bootstrap_interval": [
        interval_by_scipy("BCa"),
        interval_by_scipy("basic"),
        interval_by_quantiles,
        interval_in_torch,
    ],
    "discordant": [
        discordant_in_a_loop,
        lambda a, b, labels: np.bincount(2 * (a == labels) + (b == labels), minlength=4)[2:0:-1],
        lambda a, b, labels: (
            torch.tensor(((a == labels) > (b == labels)).sum()),
            torch.tensor(((a == labels) < (b == labels)).sum()),
        ),
    ],
    "honest_threshold": [threshold_in_a_loop, threshold_by_table, threshold_in_torch],
    "macro_f1": [
        macro_by_confusion,
        lambda predictions, labels, n_labels: (
            sum(f1_in_a_loop(predictions == k, labels == k) for k in range(n_labels)) / n_labels
        ),
        lambda predictions, labels, n_labels: sklearn.metrics.f1_score(
            labels, predictions, average="macro", labels=range(n_labels), zero_division=0
        ),
    ],
}
