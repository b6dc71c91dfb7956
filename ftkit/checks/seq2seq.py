"""Checks of notebook 13: the shift, labels of a batch, chrF of one order, the best of the beams."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Generator, Tensor

from ftkit.checks import Case, ask, check, close, draw, expect, integers, number_or_nan

Function = Callable[..., Any]
LETTERS = "我你茶饭鱼买要"


@check("The decoder sees the token before, never the one it has to write.")
def shift_right(answer: Function, seed: int = 0) -> None:
    """Check decoder inputs made of labels: one place later, start first, no -100 left."""
    generator = Generator().manual_seed(seed)
    for rows, longest, start, pad in ((3, 6, 0, 0), (2, 4, 7, 1), (4, 5, 9, 9)):
        ids = 10 + torch.randperm(89, generator=generator)[: rows * longest]
        labels = ids.view(rows, longest)
        labels[0, -2:] = -100
        before, expected = labels.clone(), _shifted(labels, start, pad)
        found = integers(answer(labels, start, pad))
        expect(
            found.shape == labels.shape,
            "the shape has changed: the start token comes in and the last token goes out.",
        )
        expect(
            not torch.equal(found, before),
            "these are the labels themselves: the decoder would be shown what it has to write.",
        )
        expect(
            (found[:, 0] == start).all(),
            "the first place must hold the start token: nothing is written yet.",
        )
        expect(
            (found != -100).all(),
            "there is still a -100: no embedding has that number, put the pad id in its place.",
        )
        expect(torch.equal(found, expected), "place i must hold the label of place i - 1.")
        expect(torch.equal(labels, before), "labels came back changed: the loss needs its -100.")


def _shifted(labels: Tensor, start: int, pad: int) -> Tensor:
    inputs = labels.new_full(labels.shape, start)
    inputs[:, 1:] = labels[:, :-1]
    return inputs.masked_fill(inputs == -100, pad)


@check("Padding is no word: the loss must look away from it, and from nothing else.")
def batch_labels(answer: Function, seed: int = 0) -> None:
    """Check labels of one batch: -100 after each row's end, the end itself kept."""
    rng = random.Random(seed)
    for lengths in ((4, 2, 3), (1, 6), (5, 5)):
        rows = [[*(rng.randint(3, 99) for _ in range(n)), 1] for n in lengths]
        found, longest = answer([list(row) for row in rows]), max(lengths) + 1
        expect(hasattr(found, "shape"), "return one tensor, (rows, longest).")
        found = integers(found)
        expect(tuple(found.shape) == (len(rows), longest), "the shape must be (rows, longest).")
        for row, made in zip(rows, found.tolist(), strict=True):
            rest = [-100] * (longest - len(row))
            expect(made != rest + row or not rest, "the padding is on the left; it comes last.")
            expect(made[len(row) - 1] == 1, "the end token is gone: the model must learn to stop.")
            expect(
                made[len(row) :] == rest,
                "the padding counts as words here: the loss looks away from -100 alone.",
            )
            expect(made == [*row, *rest], "the tokens of a row have changed.")


@check("Recall counts four times: chrF asks first whether everything was said.")
def character_f(answer: Function, seed: int = 0) -> None:
    """Check chrF of one order n: clipped counts of characters, β = 2, spaces left out."""
    rng = random.Random(seed)
    ask(
        answer,
        *(draw(_characters_case, rng, n) for n in (1, 2, 3) for _ in range(3)),
        otherwise="the score is off: (1 + β²) P R / (β² P + R), matches clipped at both counts.",
    )
    spaced = Case(("我 要 茶", "我要茶", 2), 1.0)
    ask(answer, spaced, otherwise="spaces count here: leave them out of both texts.")
    nothing = number_or_nan(answer, "饭", "我要茶", 1)
    expect(close(nothing, 0), "without a match the score is 0.")


def _characters_case(rng: random.Random, n: int) -> Case:
    reference = "".join(rng.choices(LETTERS, k=rng.choice([6, 8, 9])))
    hypothesis = reference[:4] + reference[0] * 3
    found, wanted = _ngrams(hypothesis, n), _ngrams(reference, n)
    matches, kinds = (found & wanted).total(), len(found.keys() & wanted.keys())
    precision, recall = matches / found.total(), matches / wanted.total()
    right = _f(precision, recall, 2)
    mistakes = {
        "precision and recall have changed places.": _f(recall, precision, 2),
        "this is F1: with β = 2, recall weighs β² = 4 times as much.": _f(precision, recall, 1),
        "a run counts once here, however often it stands: use a Counter, not a set.": (
            _f(kinds / len(found), kinds / len(wanted), 2)
        ),
        "return a share from 0 to 1 here, not a percentage.": 100 * right,
    }
    return Case((hypothesis, reference, n), right, mistakes)


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def _f(precision: float, recall: float, beta: int) -> float:
    weighed = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / weighed if weighed else 0.0


@check("Each token lowers the sum, so a raw sum prefers to say little.")
def best_hypothesis(answer: Function, seed: int = 0) -> None:
    """Check the choice among finished beams: the sum over length ** penalty, highest wins."""
    rng = random.Random(seed)
    for penalty in (1.0, 0.5, 0.0, 2.0):
        for _ in range(6):
            beams = _beams(rng)
            expected = max(beams, key=lambda beam: beam[1] / len(beam[0]) ** penalty)[0]
            _expect_best(_ids(answer(list(beams), penalty)), beams, penalty, expected)
    close_ones = [([5, 1], -2.0), ([6, 7, 1], -3.5)]
    expect(
        _ids(answer(close_ones, 1.0)) != [6, 7, 1],
        "the length is the number of ids, the end token included: these hold no start token.",
    )


def _ids(found: Any) -> list[int]:
    flat = isinstance(found, Iterable) and not any(isinstance(part, list) for part in found)
    expect(flat, "return the token ids of the best beam, a list, and nothing else.")
    return integers(found).tolist()


def _beams(rng: random.Random) -> list[tuple[list[int], float]]:
    """Return three beams: the short one has the best sum, the long one the best mean."""
    base = rng.uniform(0.9, 1.1)
    made = [(2, -2.0 * base), (6, -12.0 * base), (14, -9.8 * base)]
    return rng.sample([(rng.sample(range(3, 99), n), score) for n, score in made], 3)


def _expect_best(
    found: list[int], beams: list[tuple[list[int], float]], penalty: float, expected: list[int]
) -> None:
    lowest = min(beams, key=lambda beam: beam[1] / len(beam[0]) ** penalty)[0]
    by_sum = max(beams, key=lambda beam: beam[1])[0]
    times = max(beams, key=lambda beam: beam[1] * len(beam[0]) ** penalty)[0]
    mean = max(beams, key=lambda beam: beam[1] / len(beam[0]))[0]
    expect(found == expected or found != lowest, "this is the lowest score: the highest wins.")
    if penalty == 1:
        expect(
            found == expected or found not in (by_sum, times),
            "the shortest wins by its sum alone: divide the sum by length ** length_penalty.",
        )
    expect(
        found == expected or found != mean,
        "the length penalty is not used: length ** 0 is 1 and leaves the plain sum.",
    )
    expect(found == expected, "divide each sum by the number of tokens ** length_penalty.")
