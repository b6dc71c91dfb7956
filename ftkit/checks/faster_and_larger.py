"""Checks of notebook 14: padding, accumulated losses, the bytes of training, speed-up."""

import random
from collections.abc import Callable
from typing import Any

from ftkit.checks import check, expect

Function = Callable[..., Any]


def _near(number: Any, other: float) -> bool:
    return abs(float(number) - other) <= 1e-9 * max(1.0, abs(other))


def _compare(answer: Any, right: float, hints: dict[str, float], hint: str) -> None:
    """End the check with the hint of a known mistake, or else the last one, unless it is right."""
    if _near(answer, right):  # first: by chance a mistake may give the same number
        return
    for known, mistake in hints.items():
        expect(not _near(answer, mistake), known)
    expect(False, hint)


@check("Only the lengths within a batch matter: put like beside like, and padding goes.")
def padding_share(answer: Function) -> None:
    """Check the share of padding in batches of unequal sizes."""
    for _ in range(3):
        lengths = random.sample(range(5, 90), 11)
        rows = random.sample(range(11), 11)
        batches = [rows[:5], rows[5:9], rows[9:]]
        real = sum(lengths)
        padded = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
        shares = [
            1 - sum(lengths[i] for i in batch) / size
            for batch, size in zip(batches, padded, strict=True)
        ]
        total = sum(padded)
        _compare(
            answer(lengths, batches),
            1 - real / total,
            {
                "this is the share of real tokens: padding is the rest.": real / total,
                "padding over real tokens is a ratio: divide by all tokens, padding "
                "included.": total / real - 1,
                "the mean of the batches' shares lets a small batch weigh as much as a large one: "
                "add up tokens first, then divide.": sum(shares) / len(shares),
                "each batch is padded to its own longest row, not to the longest of all.": 1
                - real / (len(lengths) * max(lengths)),
                "these are tokens: divide by all tokens, padding included.": total - real,
            },
            "padding tokens, divided by all tokens.",
        )


@check("Sum what was summed, divide by what was counted: the split then leaves no trace.")
def accumulated_loss(answer: Function) -> None:
    """Check the loss of a whole batch from the mean losses of its parts."""
    for n_parts in (2, 3, 5):
        counts = random.sample(range(1, 40), n_parts)
        losses = [random.uniform(0.1, 3) for _ in counts]
        summed = sum(loss * count for loss, count in zip(losses, counts, strict=True))
        _compare(
            answer(losses, counts),
            summed / sum(counts),
            {
                "the mean of means counts each part alike, though one holds more labels than "
                "another.": sum(losses) / n_parts,
                "a sum of means grows with the number of parts: weigh each by its share of the "
                "labels.": sum(losses),
                "the weights are right; divide by the number of labels, not of parts.": summed
                / n_parts,
                "this is the sum over all labels: divide by their number.": summed,
            },
            "weigh each loss by its share of all labels.",
        )
    loss = answer([0.0, 0.7], [0, 4])
    expect(_near(loss, 0.7), "a part without any label must not count at all.")


@check("Four bytes for each weight, and twelve more only for those that train.")
def training_bytes(answer: Function) -> None:
    """Check the bytes of weights, gradients and AdamW's moments in float32."""
    for _ in range(3):
        total = random.randint(10_000, 10_000_000)
        trains = random.randint(total // 10, total // 3)
        _compare(
            answer(total, trains),
            4 * total + 12 * trains,
            {
                "a frozen weight has neither gradient nor moments.": 16 * total,
                "the frozen weights take no gradient, yet they are in memory: count their "
                "4 bytes too.": 16 * trains,
                "one of three is missing: the gradient, and AdamW's two moments.": 4 * total
                + 8 * trains,
                "this counts the gradients, but AdamW keeps two moments besides.": 4 * total
                + 4 * trains,
                "bfloat16 is for computing: weights, gradients and moments stay in float32, at "
                "4 bytes.": 2 * total + 6 * trains,
                "these are numbers: a float32 takes 4 bytes.": total + 3 * trains,
            },
            "4 bytes for each weight; 4 of gradient and 8 of moments for each that trains.",
        )


@check("What you did not make faster soon is all that is left: measure before you tune.")
def speedup(answer: Function) -> None:
    """Check Amdahl's law."""
    for _ in range(3):
        share, factor = random.uniform(0.2, 0.8), random.uniform(2, 9)
        time = 1 - share + share / factor
        _compare(
            answer(share, factor),
            1 / time,
            {
                "only a part of the step becomes faster, not all of it.": factor,
                "this is the new time, as a share of the old one: the speed-up is its "
                "inverse.": time,
                "times add up, speeds do not: add the time of both parts, then divide.": 1
                - share
                + share * factor,
                "this is the limit for a part that takes no time at all; it still takes "
                "share / factor.": 1 / (1 - share),
                "the rest of the step takes its time too: add 1 - share.": factor / share,
            },
            "the old time is 1; the new one is the rest, plus the part that became faster.",
        )
