"""Right and wrong answers to the exercises on text generation."""

import math
from collections import defaultdict

import numpy as np
import torch


def make_chat(*, end="model", learn="model", shift=False, end_label=True):
    """Return an answer to the chat, right or with one fault."""

    def chat_labels(turns, end_id):
        input_ids, labels = [], []
        for i, (ids, said) in enumerate(turns):
            ended = {"model": said, "all": True, "never": False, "last": i == len(turns) - 1}[end]
            learned = {"model": said, "all": True, "others": not said}[learn]
            whole = [*ids, end_id] if ended else list(ids)
            input_ids += whole
            labels += whole if learned else [-100] * len(whole)
            if ended and not end_label:
                labels[-1] = -100
        return input_ids, [*labels[1:], -100] if shift else labels

    return chat_labels


def labels_of_the_model_only(turns, end_id):
    input_ids, labels = make_chat()(turns, end_id)
    return input_ids, [label for label in labels if label != -100]


def right_prompts(rows, pad_id):
    longest = max(len(row) for row in rows)
    ids = [[pad_id] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def prompts_on_the_right(rows, pad_id):
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])
    return ids, (ids != pad_id).long()


def mask_by_id(rows, pad_id):
    ids, _ = right_prompts(rows, pad_id)
    return ids, (ids != pad_id).long()


def with_mask(change):
    def pad_prompts(rows, pad_id):
        ids, mask = right_prompts(rows, pad_id)
        return ids, change(mask)

    return pad_prompts


def right_probabilities(logits, temperature, top_k):
    scaled = logits / temperature
    smallest = scaled.topk(top_k).values[-1]
    return scaled.masked_fill(scaled < smallest, -torch.inf).softmax(dim=-1)


def cut_after_softmax(logits, temperature, top_k):
    probabilities = (logits / temperature).softmax(dim=-1)
    return probabilities * (probabilities >= probabilities.topk(top_k).values[-1])


def changing_probabilities(logits, temperature, top_k):
    logits /= temperature
    return right_probabilities(logits, 1.0, top_k)


def right_beam(beams, length_penalty):
    scores = [sum(beam) / len(beam) ** length_penalty for beam in beams]
    return scores.index(max(scores))


def beam_by_product(beams, length_penalty):
    scores = [sum(beam) / (len(beam) * length_penalty + 1e-9) for beam in beams]
    return scores.index(max(scores))


def right_tokens(ids, n):
    last = ids[len(ids) - n + 1 :]
    if len(ids) < n:
        return set()
    return {ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i : i + n - 1] == last}


def first_only(ids, n):
    return set(list(right_tokens(ids, n))[:1])


def tokens_of_n_before(ids, n):
    last = ids[-n:]
    return {ids[i + n] for i in range(len(ids) - n) if ids[i : i + n] == last}


def not_for_one(ids, n):
    return right_tokens(ids, n) if n > 1 else set()


CASES = {
    "chat_labels": (
        make_chat(),
        [
            (make_chat(end="never"), "ends are missing"),
            (make_chat(end="last"), "not the last one only"),
            (make_chat(end="all"), "end the others' turns"),
            (make_chat(learn="all"), "everything is learned"),
            (make_chat(learn="others"), "other way round"),
            (make_chat(end_label=False), "never stops"),
            (make_chat(shift=True), "shifts them itself"),
            (labels_of_the_model_only, "equally long"),
        ],
    ),
    "pad_prompts": (
        right_prompts,
        [
            (prompts_on_the_right, "stands on the right"),
            (mask_by_id, "hide real tokens"),
            (with_mask(lambda mask: 1 - mask), "1 stands for a token"),
            (with_mask(torch.ones_like), "hides nothing"),
            (with_mask(lambda mask: mask.flip(1)), "turn it too"),
        ],
    ),
    "sampling_probabilities": (
        right_probabilities,
        [
            (lambda logits, t, k: (logits / t).softmax(-1), "keep the k likeliest"),
            (cut_after_softmax, "do not add up to 1"),
            (lambda logits, t, k: right_probabilities(logits, 1 / t, k), "you multiply"),
            (lambda logits, t, k: right_probabilities(logits, 1.0, k), "does nothing"),
            (
                lambda logits, t, k: right_probabilities(logits.softmax(-1), t, k),
                "not the probabilities",
            ),
            (lambda logits, t, k: (logits / t).topk(k).values.softmax(-1), "the shape is"),
            (changing_probabilities, "work on a copy"),
        ],
    ),
    "best_beam": (
        right_beam,
        [
            (lambda beams, penalty: right_beam(beams, 0), "you compare sums"),
            (lambda beams, penalty: right_beam(beams, 1), "at penalty 0"),
            (lambda beams, penalty: right_beam(beams, 0.5), "choose by the mean"),
            (lambda beams, penalty: right_beam(beams, round(penalty)), "square root"),
            (lambda beams, penalty: sum(beams[0]), "return an index"),
        ],
    ),
    "forbidden_tokens": (
        right_tokens,
        [
            (lambda ids, n: set(ids), "only 3 would complete"),
            (tokens_of_n_before, "only 3 would complete"),
            (first_only, "both are forbidden"),
            (not_for_one, "with n = 1"),
        ],
    ),
}


def chat_in_tensors(turns, end_id):
    ids, labels = [], []
    for turn, said in turns:
        turn = torch.tensor(turn + [end_id] * said)
        ids.append(turn)
        labels.append(turn if said else torch.full_like(turn, -100))
    return torch.cat(ids), torch.cat(labels)


def chat_token_by_token(turns, end_id):
    pairs = []
    for turn, said in turns:
        for token in turn:
            pairs.append((token, token if said else -100))
        if said:
            pairs.append((end_id, end_id))
    return tuple(zip(*pairs, strict=True))


def chat_in_numpy(turns, end_id):
    ids = np.concatenate([turn + [end_id] * said for turn, said in turns])
    learned = np.concatenate([[said] * (len(turn) + said) for turn, said in turns])
    return [ids, np.where(learned, ids, -100)]


def prompts_in_numpy(rows, pad_id):
    lengths = [len(row) for row in rows]
    ids = np.full((len(rows), max(lengths)), pad_id)
    mask = np.zeros(ids.shape, dtype=bool)
    for i, row in enumerate(rows):
        ids[i, -len(row) :] = row
        mask[i, -len(row) :] = True
    return ids, mask


def prompts_by_flipping(rows, pad_id):
    backwards = [torch.tensor(row[::-1]) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(backwards, batch_first=True, padding_value=pad_id).flip(1)
    return ids, pad([torch.ones_like(row) for row in backwards], batch_first=True).flip(1)


def prompts_by_side(rows, pad_id):
    longest = max(map(len, rows))
    padded = [
        torch.nn.functional.pad(torch.tensor(r), (longest - len(r), 0), value=pad_id) for r in rows
    ]
    starts = torch.tensor([longest - len(row) for row in rows])
    return [torch.stack(padded), torch.arange(longest) >= starts[:, None]]


def probabilities_in_numpy(logits, temperature, top_k):
    best = np.argsort(-logits.numpy())[:top_k]
    powers = np.exp((logits.numpy()[best] - logits.numpy().max()) / temperature)
    found = np.zeros(len(logits), np.float32)
    found[best] = powers / powers.sum()
    return found


def probabilities_renormalised(logits, temperature, top_k):
    probabilities = (logits / temperature).softmax(dim=-1)
    best, places = probabilities.topk(top_k)
    return torch.zeros_like(logits).scatter(0, places, best / best.sum())


def probabilities_in_a_loop(logits, temperature, top_k):
    best = sorted(range(len(logits)), key=lambda i: -logits[i])[:top_k]
    powers = {i: math.exp(float(logits[i]) / temperature) for i in best}
    return [powers.get(i, 0.0) / sum(powers.values()) for i in range(len(logits))]


def beam_in_a_loop(beams, length_penalty):
    best, highest = 0, -math.inf
    for i, beam in enumerate(beams):
        score = sum(beam) / len(beam) ** length_penalty
        if score > highest:
            best, highest = i, score
    return best


def tokens_in_a_dictionary(ids, n):
    followed = defaultdict(set)
    for i in range(len(ids) - n + 1):
        *before, last = ids[i : i + n]
        followed[tuple(before)].add(last)
    return followed[tuple(ids[len(ids) - n + 1 :])]


def tokens_by_trial(ids, n):
    text = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return [token for token in set(ids) if tuple([*ids, token][-n:]) in text]


def tokens_in_torch(ids, n):
    if len(ids) < n:
        return torch.tensor([])
    runs = torch.tensor(ids).unfold(0, n, 1)
    last = torch.tensor(ids)[len(ids) - n + 1 :]
    return runs[(runs[:, :-1] == last).all(dim=1), -1].unique()


ALTERNATIVES = {
    "chat_labels": [chat_in_tensors, chat_token_by_token, chat_in_numpy],
    "pad_prompts": [prompts_in_numpy, prompts_by_flipping, prompts_by_side],
    "sampling_probabilities": [
        probabilities_in_numpy,
        probabilities_renormalised,
        probabilities_in_a_loop,
    ],
    "best_beam": [
        beam_in_a_loop,
        lambda beams, penalty: np.argmax([np.sum(b) / len(b) ** penalty for b in beams]),
        lambda beams, penalty: torch.tensor(
            [torch.tensor(b).sum() / len(b) ** penalty for b in beams]
        ).argmax(),
    ],
    "forbidden_tokens": [tokens_in_a_dictionary, tokens_by_trial, tokens_in_torch],
}
