"""Right and wrong answers to the exercises on pretraining and transfer."""

import itertools
import math
import random

import numpy as np
import torch


def right_causal_labels(input_ids, pad_id):
    labels = torch.full_like(input_ids, -100)
    labels[:, :-1] = input_ids[:, 1:]
    return labels.masked_fill(labels == pad_id, -100)


def no_shift(input_ids, pad_id):
    return input_ids.masked_fill(input_ids == pad_id, -100)


def wrong_way(input_ids, pad_id):
    labels = torch.full_like(input_ids, -100)
    labels[:, 1:] = input_ids[:, :-1]
    return labels.masked_fill(labels == pad_id, -100)


def padding_counted(input_ids, pad_id):
    labels = torch.full_like(input_ids, -100)
    labels[:, :-1] = input_ids[:, 1:]
    return labels


def own_padding_only(input_ids, pad_id):
    return padding_counted(input_ids, pad_id).masked_fill(input_ids == pad_id, -100)


def rolled(input_ids, pad_id):
    labels = torch.roll(input_ids, -1, dims=1)
    return labels.masked_fill(labels == pad_id, -100)


def right_bits(token_losses, text):
    return token_losses.sum() / math.log(2) / len(text)


def right_blocks(texts, end_id, size):
    joined = [i for text in texts for i in [*text, end_id]]
    return [joined[i : i + size] for i in range(0, len(joined) - size + 1, size)]


def no_end(texts, end_id, size):
    joined = [i for text in texts for i in text]
    return [joined[i : i + size] for i in range(0, len(joined) - size + 1, size)]


def end_in_front(texts, end_id, size):
    joined = [i for text in texts for i in [end_id, *text]]
    return [joined[i : i + size] for i in range(0, len(joined) - size + 1, size)]


def rest_kept(texts, end_id, size):
    joined = [i for text in texts for i in [*text, end_id]]
    return [joined[i : i + size] for i in range(0, len(joined), size)]


def text_by_text(texts, end_id, size):
    return [[*text, *[end_id] * size][:size] for text in texts]


def masking(rate=0.15, hide=0.8, keep=0.9, *, everywhere=False, specials=False, in_place=False):
    def answer(input_ids, special, mask_id, vocab_size):
        chosen = torch.rand(input_ids.shape) < rate
        if not specials:
            chosen &= ~special
        labels = input_ids.clone() if everywhere else input_ids.masked_fill(~chosen, -100)
        read = input_ids if in_place else input_ids.clone()
        dice = torch.rand(input_ids.shape)
        read[chosen & (dice < hide)] = mask_id
        swapped = chosen & (dice >= keep)
        read[swapped] = torch.randint(vocab_size, (int(swapped.sum()),))
        return read, labels

    return answer


def one_random_token(input_ids, special, mask_id, vocab_size):
    read, labels = masking(keep=1.1)(input_ids, special, mask_id, vocab_size)
    swap = (labels != -100) & (read == input_ids) & (torch.rand(read.shape) < 0.5)
    return read.masked_fill(swap, int(torch.randint(10, vocab_size, ()))), labels


def labels_too_late(input_ids, special, mask_id, vocab_size):
    read, labels = masking()(input_ids, special, mask_id, vocab_size)
    return read, read.masked_fill(labels == -100, -100)


CASES = {
    "causal_labels": (
        right_causal_labels,
        [
            (no_shift, "there is no shift"),
            (wrong_way, "the wrong way"),
            (padding_counted, "padding is labelled"),
            (rolled, "torch.roll"),
            (lambda ids, pad_id: ids[:, 1:], "the shape is"),
        ],
    ),
    "bits_per_character": (
        right_bits,
        [
            (lambda losses, text: losses.sum() / len(text), "these are nats"),
            (lambda losses, text: losses.mean() / math.log(2), "per token"),
            (lambda losses, text: right_bits(losses, text.encode()), "per byte"),
            (lambda losses, text: right_bits(losses, text.split()), "per word"),
            (lambda losses, text: losses.sum() * math.log(2) / len(text), "multiply by ln 2"),
            (lambda losses, text: right_bits(losses, "a"), "sum over the text"),
        ],
    ),
    "group_into_blocks": (
        right_blocks,
        [
            (no_end, "no end-of-text between"),
            (rest_kept, "the rest that does not fill"),
            (text_by_text, "a block of its own"),
            (end_in_front, "stands before each text"),
        ],
    ),
    "mask_tokens": (
        masking(),
        [
            (masking(everywhere=True), "labels everywhere"),
            (masking(hide=1.1, keep=1.1), "every chosen token becomes [MASK]"),
            (masking(specials=True), "special tokens are chosen"),
            (masking(rate=0.3), "expected 15 %"),
            (masking(hide=0.8, keep=0.8), "expected 80, 10 and 10"),
            (masking(in_place=True), "you wrote over"),
            (one_random_token, "the same in many places"),
            (labels_too_late, "before you changed it"),
        ],
    ),
}


def causal_labels_in_a_loop(input_ids, pad_id):
    rows = [[*row[1:], pad_id] for row in input_ids.tolist()]
    return [[-100 if i == pad_id else i for i in row] for row in rows]


def causal_labels_in_numpy(input_ids, pad_id):
    ids = input_ids.numpy()
    end = np.full((len(ids), 1), -100)
    return np.concatenate([np.where(ids[:, 1:] == pad_id, -100, ids[:, 1:]), end], axis=1)


def causal_labels_by_padding(input_ids, pad_id):
    labels = torch.nn.functional.pad(input_ids[:, 1:], (0, 1), value=pad_id)
    labels[labels == pad_id] = -100
    return labels.to(torch.int32)


def blocks_in_a_loop(texts, end_id, size):
    blocks, block = [], []
    for text in texts:
        for i in (*text, end_id):
            block.append(i)
            if len(block) == size:
                blocks.append(tuple(block))
                block = []
    return tuple(blocks)


def blocks_in_torch(texts, end_id, size):
    joined = torch.cat([torch.tensor([*text, end_id]) for text in texts])
    return joined[: len(joined) // size * size].view(-1, size)


def blocks_in_numpy(texts, end_id, size):
    joined = np.array([*itertools.chain(*([*text, end_id] for text in texts))])
    return joined[: len(joined) - len(joined) % size].reshape(-1, size).tolist()


def masking_in_numpy(input_ids, special, mask_id, vocab_size):
    rng, ids, special = np.random.default_rng(), input_ids.numpy(), special.numpy()
    dice = rng.random(ids.shape)
    chosen = (rng.random(ids.shape) < 0.15) & ~special
    drawn = rng.integers(vocab_size, size=ids.shape)
    read = np.where(chosen & (dice < 0.8), mask_id, ids)
    return np.where(chosen & (dice > 0.9), drawn, read), np.where(chosen, ids, -100)


def masking_in_a_loop(input_ids, special, mask_id, vocab_size):
    read, labels = input_ids.tolist(), (input_ids * 0 - 100).tolist()
    for row, column in (~special).nonzero().tolist():
        if random.random() < 0.15:
            labels[row][column] = read[row][column]
            dice = random.random()
            if dice < 0.1:
                read[row][column] = random.randrange(vocab_size)
            elif dice < 0.9:
                read[row][column] = mask_id
    return read, labels


def masking_by_bernoulli(input_ids, special, mask_id, vocab_size):
    chosen = torch.full(input_ids.shape, 0.15).masked_fill(special, 0).bernoulli().bool()
    labels = torch.where(chosen, input_ids, -100)
    hidden = torch.full(input_ids.shape, 0.8).bernoulli().bool() & chosen
    swapped = torch.full(input_ids.shape, 0.5).bernoulli().bool() & chosen & ~hidden
    read = torch.where(hidden, mask_id, input_ids)
    return [torch.where(swapped, torch.randint_like(input_ids, vocab_size), read), labels]


ALTERNATIVES = {
    "causal_labels": [
        causal_labels_in_a_loop,
        causal_labels_in_numpy,
        causal_labels_by_padding,
    ],
    "bits_per_character": [
        lambda losses, text: sum(losses.tolist()) / math.log(2) / len(text),
        lambda losses, text: np.sum(losses.numpy() / np.log(2), dtype=np.float32) / len(text),
        lambda losses, text: torch.log2(losses.exp()).sum() / len(text),
    ],
    "group_into_blocks": [blocks_in_a_loop, blocks_in_torch, blocks_in_numpy],
    "mask_tokens": [masking_in_numpy, masking_in_a_loop, masking_by_bernoulli],
}
