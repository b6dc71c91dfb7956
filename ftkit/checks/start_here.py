"""Checks of notebook 00's exercises: accuracy, the majority baseline, a split."""

import random
from collections import Counter
from collections.abc import Callable

from ftkit.checks import check, expect

Labels = list[str]


def _draw(size: int) -> Labels:
    return random.choices(["yes", "no", "perhaps"], weights=[5, 3, 2], k=size)


@check("Accuracy is a mean: it needs its baseline and the number of rows to be read.")
def accuracy(answer: Callable[[Labels, Labels], float]) -> None:
    """Share of equal pairs."""
    for size in (10, 37, 200):
        predictions, labels = _draw(size), _draw(size)
        right = sum(p == y for p, y in zip(predictions, labels, strict=True))
        result = answer(predictions, labels)
        expect(result != right or right == 0, "That is the number of right rows; divide by all.")
        expect(abs(result - 100 * right / size) > 1e-9 or right == 0, "A share, not a percentage.")
        expect(abs(result - (1 - right / size)) > 1e-9 or 2 * right == size, "That is the error.")
        expect(abs(result - right / size) < 1e-9, "Count equal pairs, divide by their number.")


@check("The label is chosen in train and scored in test, as with any model.")
def majority_baseline(answer: Callable[[Labels, Labels], float]) -> None:
    """Accuracy on test of the commonest label of train."""
    train, test = ["a"] * 6 + ["b"] * 4, ["b"] * 7 + ["a"] * 3
    result = answer(train, test)
    expect(abs(result - 0.7) > 1e-9, "You looked up the commonest label in test: that is peeking.")
    expect(abs(result - 0.6) > 1e-9, "That is its share in train; the score is asked on test.")
    for size in (20, 111):
        train, test = _draw(size) + ["yes"] * size, _draw(size)
        common = Counter(train).most_common(1)[0][0]
        expected = test.count(common) / len(test)
        expect(abs(answer(train, test) - expected) < 1e-9, "Count the train label among test rows.")


@check("Same seed, same split: without that, no result can be repeated.")
def split_rows(answer: Callable[[list, int], tuple[list, list, list]]) -> None:
    """80/10/10 after a seeded shuffle of a copy."""
    for size in (10, 50, 200):
        rows = [f"row {i}" for i in range(size)]
        kept = list(rows)
        parts = answer(rows, 1)
        expect(rows == kept, "The list that came in was shuffled too: shuffle a copy of it.")
        sizes = [len(part) for part in parts]
        expected = [size * 8 // 10, size // 10, size - size * 8 // 10 - size // 10]
        expect(sizes == expected, f"Sizes are {sizes}; expected {expected}.")
        expect(
            sorted(row for part in parts for row in part) == sorted(rows),
            "Every row belongs in one part.",
        )
        expect(
            list(parts[0]) != rows[: sizes[0]],
            "The rows are not shuffled: a sorted file would put one class into test alone.",
        )
        again = answer(rows, 1)
        expect(
            list(map(list, again)) == list(map(list, parts)),
            "The same seed must give the same split: draw from random.Random(seed).",
        )
