"""Right and wrong answers to the exercises on evaluation."""

import numpy as np


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
    return np.array([rng.choice(values, len(values)).mean() for _ in range(2000)])


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
