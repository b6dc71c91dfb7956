"""Right and wrong answers to the exercises on speed and memory."""

from fractions import Fraction

import numpy as np
import torch


def padded(lengths, batches):
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)


def right_padding_share(lengths, batches):
    return 1 - sum(lengths) / padded(lengths, batches)


def mean_of_shares(lengths, batches):
    return sum(
        1 - sum(lengths[i] for i in batch) / padded(lengths, [batch]) for batch in batches
    ) / len(batches)


def weighted(losses, counts):
    return sum(loss * count for loss, count in zip(losses, counts, strict=True))


def right_loss(losses, counts):
    return weighted(losses, counts) / sum(counts)


def at_least_one_label(losses, counts):
    return right_loss(losses, [max(1, count) for count in counts])


def right_speedup(share, factor):
    return 1 / (1 - share + share / factor)


CASES = {
    "padding_share": (
        right_padding_share,
        [
            (lambda lengths, batches: sum(lengths) / padded(lengths, batches), "real tokens: p"),
            (lambda lengths, batches: padded(lengths, batches) / sum(lengths) - 1, "is a ratio"),
            (mean_of_shares, "a small batch weigh"),
            (
                lambda lengths, batches: 1 - sum(lengths) / (len(lengths) * max(lengths)),
                "own longest row",
            ),
            (lambda lengths, batches: padded(lengths, batches) - sum(lengths), "these are tokens"),
        ],
    ),
    "accumulated_loss": (
        right_loss,
        [
            (lambda losses, counts: sum(losses) / len(losses), "mean of means"),
            (lambda losses, counts: sum(losses), "sum of means grows"),
            (lambda losses, counts: weighted(losses, counts) / len(losses), "not of parts"),
            (weighted, "sum over all labels"),
            (at_least_one_label, "without any label"),
        ],
    ),
    "training_bytes": (
        lambda total, trains: 4 * total + 12 * trains,
        [
            (lambda total, trains: 16 * total, "neither gradient nor moments"),
            (lambda total, trains: 16 * trains, "yet they are in memory"),
            (lambda total, trains: 4 * total + 8 * trains, "one of three is missing"),
            (lambda total, trains: 4 * total + 4 * trains, "this counts the gradients"),
            (lambda total, trains: 2 * total + 6 * trains, "bfloat16 is for computing"),
            (lambda total, trains: total + 3 * trains, "these are numbers"),
        ],
    ),
    "speedup": (
        right_speedup,
        [
            (lambda share, factor: factor, "not all of it"),
            (lambda share, factor: 1 / right_speedup(share, factor), "this is the new time"),
            (lambda share, factor: 1 - share + share * factor, "times add up"),
            (lambda share, factor: 1 / (1 - share), "takes no time at all"),
            (lambda share, factor: factor / share, "the rest of the step"),
        ],
    ),
}


def padding_in_a_loop(lengths, batches):
    padding = tokens = 0
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        for i in batch:
            padding += longest - lengths[i]
            tokens += longest
    return Fraction(padding, tokens)


def padding_in_numpy(lengths, batches):
    lengths = np.array(lengths, dtype=np.float32)
    whole = sum(len(batch) * lengths[batch].max() for batch in batches)
    return 1 - lengths.sum() / whole


def padding_in_torch(lengths, batches):
    lengths = torch.tensor(lengths)
    rows = [lengths[batch] for batch in batches]
    padding = torch.cat([row.max() - row for row in rows])
    return padding.sum() / (padding + torch.cat(rows)).sum()


def loss_in_a_loop(losses, counts):
    total = labels = 0
    for loss, count in zip(losses, counts, strict=True):
        if count:
            total += loss * count
            labels += count
    return total / labels


def loss_in_torch(losses, counts):
    counts = torch.tensor(counts)
    return (torch.tensor(losses) * counts / counts.sum()).sum()


ALTERNATIVES = {
    "padding_share": [padding_in_a_loop, padding_in_numpy, padding_in_torch],
    "accumulated_loss": [
        loss_in_a_loop,
        loss_in_torch,
        lambda losses, counts: np.average(np.float32(losses), weights=counts),
    ],
    "training_bytes": [
        lambda total, trains: 4 * (total - trains) + 16 * trains,
        lambda total, trains: np.dtype(np.float32).itemsize * np.array([total, 3 * trains]).sum(),
        lambda total, trains: torch.tensor(4.0) * total + 12.0 * trains,
    ],
    "speedup": [
        lambda share, factor: factor / (factor * (1 - share) + share),
        lambda share, factor: np.float32(1) / np.float32(1 - share + share / factor),
        lambda share, factor: torch.tensor([1 - share, share / factor]).sum().reciprocal(),
    ],
}
