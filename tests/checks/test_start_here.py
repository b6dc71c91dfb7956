"""Every check of notebook 00: solution, blank, planted wrong answers with their own hints."""

import random
from collections import Counter

import pytest

from ftkit.checks import start_here


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


@pytest.mark.parametrize("name", CASES)
def test_solution_and_blank(name):
    check = getattr(start_here, name)
    assert check(CASES[name][0]).status == "right"
    assert check(lambda *_: ...).status == "not answered yet"
    assert check(...).status == "not answered yet"


@pytest.mark.parametrize(
    ("name", "wrong", "hint"), [(n, w, h) for n, (_, cases) in CASES.items() for w, h in cases]
)
def test_wrong_answers_get_their_own_hint(name, wrong, hint):
    verdict = getattr(start_here, name)(wrong)
    assert verdict.status == "wrong"
    assert hint in verdict.message
