"""Right and wrong answers to the exercises on translation and summarisation."""

from collections import Counter

import torch


def right_shift(labels, start, pad):
    inputs = labels.roll(1, dims=1)
    inputs[:, 0] = start
    return inputs.masked_fill(inputs == -100, pad)


def shift_and_keep_ignored(labels, start, pad):
    inputs = labels.roll(1, dims=1)
    inputs[:, 0] = start
    return inputs


def shift_left(labels, start, pad):
    inputs = labels.roll(-1, dims=1)
    return inputs.masked_fill(inputs == -100, pad)


def longer_shift(labels, start, pad):
    first = labels.new_full((len(labels), 1), start)
    return torch.cat([first, labels.masked_fill(labels == -100, pad)], dim=1)


def shift_in_place(labels, start, pad):
    labels[labels == -100] = pad
    return right_shift(labels, start, pad)


def make_labels(*, fill=-100, left=False, drop_end=False):
    def batch_labels(rows):
        longest = max(map(len, rows))
        made = []
        for row in rows:
            tokens = [*row[:-1], fill] if drop_end else row
            rest = [fill] * (longest - len(row))
            made.append(rest + tokens if left else tokens + rest)
        return torch.tensor(made)

    return batch_labels


def make_f(*, beta=2, swapped=False, kind=Counter, spaces=False, scale=1):
    def character_f(hypothesis, reference, n):
        texts = [t if spaces else "".join(t.split()) for t in (hypothesis, reference)]
        found, wanted = (kind(t[i : i + n] for i in range(len(t) - n + 1)) for t in texts)
        sizes = [sum(c.values()) if kind is Counter else len(c) for c in (found, wanted)]
        common = found & wanted
        matches = sum(common.values()) if kind is Counter else len(common)
        precision, recall = matches / sizes[0], matches / sizes[1]
        if swapped:
            precision, recall = recall, precision
        weighed = beta**2 * precision + recall
        return scale * (1 + beta**2) * precision * recall / weighed if weighed else 0.0

    return character_f


def choose(score, best=max):
    return lambda beams, penalty: best(beams, key=lambda beam: score(*beam, penalty))[0]


def right_score(ids, total, penalty):
    return total / len(ids) ** penalty


CASES = {
    "shift_right": (
        right_shift,
        [
            (lambda labels, start, pad: labels, "the labels themselves"),
            (longer_shift, "the shape has changed"),
            (shift_left, "nothing is written yet"),
            (shift_and_keep_ignored, "still a -100"),
            (shift_in_place, "came back changed"),
        ],
    ),
    "batch_labels": (
        make_labels(),
        [
            (make_labels(fill=0), "counts as words"),
            (make_labels(left=True), "on the left"),
            (make_labels(drop_end=True), "learn to stop"),
        ],
    ),
    "character_f": (
        make_f(),
        [
            (make_f(beta=1), "this is F1"),
            (make_f(swapped=True), "changed places"),
            (make_f(kind=set), "use a Counter"),
            (make_f(spaces=True), "spaces count here"),
            (make_f(scale=100), "not a percentage"),
        ],
    ),
    "best_hypothesis": (
        choose(right_score),
        [
            (choose(right_score, min), "the highest wins"),
            (choose(lambda ids, total, penalty: total), "by its sum alone"),
            (choose(lambda ids, total, penalty: total / len(ids)), "penalty is not used"),
            (
                choose(lambda ids, total, penalty: total / (len(ids) - 1) ** penalty),
                "no start token",
            ),
        ],
    ),
}
