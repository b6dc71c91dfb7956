"""Right and wrong answers to the exercises on speed and memory."""


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
