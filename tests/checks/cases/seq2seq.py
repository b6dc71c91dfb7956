"""Right and wrong answers to the exercises on translation and summarisation."""

import itertools
from collections import Counter

import numpy as np
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


def shift_by_lists(labels, start, pad):
    rows = [[start, *row[:-1]] for row in labels.tolist()]
    return [[pad if token == -100 else token for token in row] for row in rows]


def shift_by_joining(labels, start, pad):
    first = torch.full((len(labels), 1), start)
    return torch.cat([first, labels[:, :-1].where(labels[:, :-1] != -100, pad)], dim=1)


def shift_in_numpy(labels, start, pad):
    inputs = np.roll(labels.numpy(), 1, axis=1)
    inputs[:, 0] = start
    inputs[inputs == -100] = pad
    return inputs


def labels_by_filling(rows):
    made = torch.full((len(rows), max(map(len, rows))), -100)
    for i, row in enumerate(rows):
        made[i, : len(row)] = torch.tensor(row)
    return made


def labels_by_pad_sequence(rows):
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=-100)


def labels_in_numpy(rows):
    return np.array(list(itertools.zip_longest(*rows, fillvalue=-100))).T


def f_by_counting(hypothesis, reference, n):
    def runs(text):
        text = "".join(text.split())
        return [text[i : i + n] for i in range(len(text) - n + 1)]

    mine, yours = runs(hypothesis), runs(reference)
    matches = sum(min(mine.count(run), yours.count(run)) for run in set(mine))
    return 5 * matches / (len(mine) + 4 * len(yours)) if matches else 0


def f_by_removing(hypothesis, reference, n):
    texts = [text.replace(" ", "") for text in (hypothesis, reference)]
    mine, yours = ([*map("".join, zip(*(t[i:] for i in range(n))))] for t in texts)  # noqa: B905
    left = list(yours)
    for run in mine:
        if run in left:
            left.remove(run)
    matches = len(yours) - len(left)
    precision, recall = np.float32(matches / len(mine)), np.float32(matches / len(yours))
    return 5 * precision * recall / (4 * precision + recall) if matches else np.float32(0)


def f_in_torch(hypothesis, reference, n):
    return torch.tensor(make_f()(hypothesis, reference, n))


def best_in_a_loop(beams, penalty):
    best = None
    for ids, total in beams:
        score = total / len(ids) ** penalty
        if best is None or score > best[0]:
            best = score, ids
    return tuple(best[1])


ALTERNATIVES = {
    "shift_right": [shift_by_lists, shift_by_joining, shift_in_numpy],
    "batch_labels": [labels_by_filling, labels_by_pad_sequence, labels_in_numpy],
    "character_f": [f_by_counting, f_by_removing, f_in_torch],
    "best_hypothesis": [
        best_in_a_loop,
        lambda beams, penalty: beams[np.argmax([s / len(i) ** penalty for i, s in beams])][0],
        lambda beams, penalty: torch.tensor(
            sorted(beams, key=lambda beam: beam[1] * len(beam[0]) ** -penalty)[-1][0]
        ),
    ],
}
