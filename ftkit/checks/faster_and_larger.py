"""Checks of notebook 14: padding, accumulated losses, the bytes of training, speed-up."""

import random
from collections.abc import Callable
from typing import Any

from ftkit.checks import Case, ask, check, draw

Function = Callable[..., Any]


@check("Only the lengths within a batch matter: put like beside like, and padding goes.")
def padding_share(answer: Function, seed: int = 0) -> None:
    """Check the share of padding in batches of unequal sizes."""
    rng = random.Random(seed)
    cases = [draw(_padding_case, rng) for _ in range(3)]
    ask(answer, *cases, otherwise="padding tokens, divided by all tokens.")


def _padding_case(rng: random.Random) -> Case:
    lengths = rng.sample(range(5, 90), 11)
    rows = rng.sample(range(11), 11)
    batches = [rows[:5], rows[5:9], rows[9:]]
    real = sum(lengths)
    padded = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    shares = [
        1 - sum(lengths[i] for i in batch) / size
        for batch, size in zip(batches, padded, strict=True)
    ]
    total = sum(padded)
    mistakes = {
        "this is the share of real tokens: padding is the rest.": real / total,
        "padding over real tokens is a ratio: divide by all tokens, padding included.": (
            total / real - 1
        ),
        "the mean of the batches' shares lets a small batch weigh as much as a large one: "
        "add up tokens first, then divide.": sum(shares) / len(shares),
        "each batch is padded to its own longest row, not to the longest of all.": (
            1 - real / (len(lengths) * max(lengths))
        ),
        "these are tokens: divide by all tokens, padding included.": total - real,
    }
    return Case((lengths, batches), 1 - real / total, mistakes)


@check("Sum what was summed, divide by what was counted: the split then leaves no trace.")
def accumulated_loss(answer: Function, seed: int = 0) -> None:
    """Check the loss of a whole batch from the mean losses of its parts."""
    rng = random.Random(seed)
    cases = [draw(_parts_case, rng, n_parts) for n_parts in (2, 3, 5)]
    ask(answer, *cases, otherwise="weigh each loss by its share of all labels.")
    ask(
        answer,
        Case(([0.0, 0.7], [0, 4]), 0.7),
        otherwise="a part without any label must not count at all.",
    )


def _parts_case(rng: random.Random, n_parts: int) -> Case:
    counts = rng.sample(range(1, 40), n_parts)
    losses = [rng.uniform(0.1, 3) for _ in counts]
    summed = sum(loss * count for loss, count in zip(losses, counts, strict=True))
    mistakes = {
        "the mean of means counts each part alike, though one holds more labels than another.": (
            sum(losses) / n_parts
        ),
        "a sum of means grows with the number of parts: weigh each by its share of the labels.": (
            sum(losses)
        ),
        "the weights are right; divide by the number of labels, not of parts.": summed / n_parts,
        "this is the sum over all labels: divide by their number.": summed,
    }
    return Case((losses, counts), summed / sum(counts), mistakes)


@check("Four bytes for each weight, and twelve more only for those that train.")
def training_bytes(answer: Function, seed: int = 0) -> None:
    """Check the bytes of weights, gradients and AdamW's moments in float32."""
    rng = random.Random(seed)
    ask(
        answer,
        *(draw(_bytes_case, rng) for _ in range(3)),
        otherwise="4 bytes for each weight; 4 of gradient and 8 of moments for each that trains.",
    )


def _bytes_case(rng: random.Random) -> Case:
    total = rng.randint(10_000, 10_000_000)
    trains = rng.randint(total // 10, total // 3)
    mistakes = {
        "a frozen weight has neither gradient nor moments.": 16 * total,
        "the frozen weights take no gradient, yet they are in memory: count their 4 bytes too.": 16
        * trains,
        "one of three is missing: the gradient, and AdamW's two moments.": 4 * total + 8 * trains,
        "this counts the gradients, but AdamW keeps two moments besides.": 4 * total + 4 * trains,
        "bfloat16 is for computing: weights, gradients and moments stay in float32, at 4 bytes.": 2
        * total
        + 6 * trains,
        "these are numbers: a float32 takes 4 bytes.": total + 3 * trains,
    }
    return Case((total, trains), 4 * total + 12 * trains, mistakes)


@check("What you did not make faster soon is all that is left: measure before you tune.")
def speedup(answer: Function, seed: int = 0) -> None:
    """Check Amdahl's law."""
    rng = random.Random(seed)
    ask(
        answer,
        *(draw(_speedup_case, rng) for _ in range(3)),
        otherwise="the old time is 1; the new one is the rest, plus the part that became faster.",
    )


def _speedup_case(rng: random.Random) -> Case:
    share, factor = rng.uniform(0.2, 0.8), rng.uniform(2, 9)
    time = 1 - share + share / factor
    mistakes = {
        "only a part of the step becomes faster, not all of it.": factor,
        "this is the new time, as a share of the old one: the speed-up is its inverse.": time,
        "times add up, speeds do not: add the time of both parts, then divide.": (
            1 - share + share * factor
        ),
        "this is the limit for a part that takes no time at all; it still takes share / factor.": 1
        / (1 - share),
        "the rest of the step takes its time too: add 1 - share.": factor / share,
    }
    return Case((share, factor), 1 / time, mistakes)
