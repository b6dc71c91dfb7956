"""Right and wrong answers to the exercises on starting."""

import operator
import random
import statistics
from collections import Counter
from fractions import Fraction

import numpy as np


def accuracy(predictions, labels):
    return sum(p == y for p, y in zip(predictions, labels, strict=True)) / len(labels)


def majority_baseline(train_labels, test_labels):
    common = Counter(train_labels).most_common(1)[0][0]
    return test_labels.count(common) / len(test_labels)


def split_rows(rows, seed, generator=random.Random):
    shuffled = list(rows)
    generator(seed).shuffle(shuffled)
    one, other = len(rows) * 8 // 10, len(rows) * 9 // 10
    return shuffled[:one], shuffled[one:other], shuffled[other:]


def shuffles_in_place(rows, seed):
    parts = split_rows(rows, seed)
    random.Random(seed).shuffle(rows)
    return parts


CASES = {
    "accuracy": (
        accuracy,
        [
            (lambda p, y: accuracy(p, y) * len(y), "divide by all"),
            (lambda p, y: 100 * accuracy(p, y), "not a percentage"),
            (lambda p, y: 1 - accuracy(p, y), "the error"),
        ],
    ),
    "majority_baseline": (
        majority_baseline,
        [
            (lambda train, test: majority_baseline(test, test), "peeking"),
            (lambda train, test: majority_baseline(train, train), "its share in train"),
        ],
    ),
    "split_rows": (
        split_rows,
        [
            (shuffles_in_place, "shuffle a copy"),
            (lambda rows, seed: (rows[: len(rows) // 2], [], rows[len(rows) // 2 :]), "Sizes are"),
            (
                lambda rows, seed: (
                    rows[: (n := len(rows)) * 8 // 10],
                    rows[n * 8 // 10 : n * 9 // 10],
                    rows[n * 9 // 10 :],
                ),
                "not shuffled",
            ),
            (lambda rows, seed: split_rows(rows, None), "same seed"),
        ],
    ),
}


def accuracy_in_a_loop(predictions, labels):
    right = 0
    for i in range(len(labels)):
        if predictions[i] == labels[i]:
            right += 1
    return right / len(labels)


def majority_in_a_loop(train_labels, test_labels):
    best = None
    for label in train_labels:
        if best is None or train_labels.count(label) > train_labels.count(best):
            best = label
    return sum(label == best for label in test_labels) / len(test_labels)


def split_by_sample(rows, seed):
    drawn = random.Random(seed).sample(rows, len(rows))
    size = len(rows) // 10
    return [drawn[: 8 * size], drawn[8 * size : 9 * size], drawn[9 * size :]]


def split_by_global_seed(rows, seed):
    random.seed(seed)
    copied = rows[:]
    random.shuffle(copied)
    one, other = int(0.8 * len(rows)), int(0.9 * len(rows))
    return copied[:one], copied[one:other], copied[other:]


def split_array(rows, seed):
    places = list(range(len(rows)))
    random.Random(seed).shuffle(places)
    drawn, size = np.array(rows)[places], len(rows) // 10
    return np.split(drawn, [8 * size, 9 * size])


ALTERNATIVES = {
    "accuracy": [
        lambda predictions, labels: np.mean(np.array(predictions) == np.array(labels)),
        accuracy_in_a_loop,
        lambda predictions, labels: Fraction(
            sum(map(operator.eq, predictions, labels)), len(labels)
        ),
    ],
    "majority_baseline": [
        majority_in_a_loop,
        lambda train, test: np.mean(np.array(test) == max(set(train), key=train.count)),
        lambda train, test: np.float32(test.count(statistics.mode(train)) / len(test)),
    ],
    "split_rows": [split_by_sample, split_by_global_seed, split_array],
}
