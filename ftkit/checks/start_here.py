"""Checks of notebook 00's exercises: accuracy, the majority baseline, a split."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from ftkit.checks import Case, ask, check, draw, expect, parts

Labels = list[str]


def _draw(rng: random.Random, size: int, weights: Sequence[int] = (5, 3, 2)) -> Labels:
    return rng.choices(["yes", "no", "perhaps"], weights=weights, k=size)


@check("Accuracy is a mean: it needs its baseline and the number of rows to be read.")
def accuracy(answer: Callable[[Labels, Labels], float], seed: int = 0) -> None:
    """Share of equal pairs."""
    rng = random.Random(seed)
    cases = [draw(_accuracy_case, rng, size) for size in (10, 37, 200)]
    ask(answer, *cases, otherwise="Count equal pairs, divide by their number.")


def _accuracy_case(rng: random.Random, size: int) -> Case:
    predictions, labels = _draw(rng, size), _draw(rng, size)
    right = sum(p == y for p, y in zip(predictions, labels, strict=True))
    mistakes = {
        "That is the number of right rows; divide by all.": right,
        "A share, not a percentage.": 100 * right / size,
        "That is the error.": 1 - right / size,
    }
    return Case((predictions, labels), right / size, mistakes)


@check("The label is chosen in train and scored in test, as with any model.")
def majority_baseline(answer: Callable[[Labels, Labels], float], seed: int = 0) -> None:
    """Accuracy on test of the commonest label of train."""
    rng = random.Random(seed)
    cases = [draw(_majority_case, rng, size) for size in (10, 20, 111)]
    ask(answer, *cases, otherwise="Count the train label among test rows.")


def _majority_case(rng: random.Random, size: int) -> Case:
    train, test = _draw(rng, size) + ["yes"] * size, _draw(rng, size, weights=(3, 5, 2))
    in_test = Counter(test).most_common(1)[0][1]
    mistakes = {
        "You looked up the commonest label in test: that is peeking.": in_test / size,
        "That is its share in train; the score is asked on test.": train.count("yes") / len(train),
        "That is the number of such rows in test; divide by all.": test.count("yes"),
    }
    return Case((train, test), test.count("yes") / size, mistakes)


@check("Same seed, same split: without that, no result can be repeated.")
def split_rows(answer: Callable[[list, int], tuple[list, list, list]], seed: int = 0) -> None:
    """80/10/10 after a seeded shuffle of a copy."""
    rng = random.Random(seed)
    for size in (10, 50, 200):
        rows = [f"row {i}" for i in range(size)]
        kept, number = list(rows), rng.randrange(1000)
        split = _split(answer, rows, number)
        expect(rows == kept, "The list that came in was shuffled too: shuffle a copy of it.")
        sizes = [len(part) for part in split]
        expected = [size * 8 // 10, size // 10, size // 10]
        expect(sizes == expected, f"Sizes are {sizes}; expected {expected}.")
        joined = [row for part in split for row in part]
        expect(sorted(joined) == sorted(rows), "Every row belongs in one part.")
        expect(
            joined != rows,
            "The rows are not shuffled: a sorted file would put one class into test alone.",
        )
        expect(
            _split(answer, rows, number) == split,
            "The same seed must give the same split: draw from random.Random(seed).",
        )
        expect(
            _split(answer, rows, number + 1) != split,
            "Another seed gives the same split: draw from random.Random(seed).",
        )


def _split(answer: Callable, rows: list[str], seed: int) -> list[list[str]]:
    split = parts(answer(rows, seed), 3, "Three parts are wanted, train, validation and test")
    return [list(part) for part in split]
