"""Right and wrong answers to the exercises on starting."""

import random
from collections import Counter


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
