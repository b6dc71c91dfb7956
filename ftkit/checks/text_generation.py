"""Checks of notebook 09: chat labels, padded prompts, top-k, the best beam, forbidden tokens."""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ftkit.checks import check, expect

Function = Callable[..., Any]
Turns = list[tuple[list[int], bool]]


@check("Read everything, learn what you are to say, and learn when to stop.")
def chat_labels(answer: Function) -> None:
    """Check ids and labels of a chat: the model's turns and their ends are learned."""
    for size in (4, 6, 8):
        turns: Turns = [
            ([random.randint(10, 999) for _ in range(random.randint(2, 6))], i % 2 == 1)
            for i in range(size)
        ]
        ids, labels = answer([(list(turn), said) for turn, said in turns], 7)
        ids, labels = list(ids), list(labels)
        expect(len(ids) == len(labels), "ids and labels must be equally long: one label a token.")
        expected_ids, expected = _chat(turns)
        plain = [token for turn, _ in turns for token in turn]
        expect(ids != plain, "the ends are missing: put end_id after each turn of the model.")
        expect(ids != [*plain, 7], "every turn of the model ends, not the last one only.")
        expect(
            ids != [token for turn, _ in turns for token in (*turn, 7)],
            "you end the others' turns too: only the model's turns have an end.",
        )
        expect(ids == expected_ids, "the ids are all turns in their order, ends among them.")
        expect(labels != ids, "everything is learned: what others say gets the label −100.")
        _judge_chat(labels, ids, expected)


def _chat(turns: Turns) -> tuple[list[int], list[int]]:
    ids, labels = [], []
    for turn, said in turns:
        whole = [*turn, 7] if said else turn
        ids += whole
        labels += whole if said else [-100] * len(whole)
    return ids, labels


def _judge_chat(labels: list[int], ids: list[int], expected: list[int]) -> None:
    expect(
        labels
        != [-100 if token == 7 else label for label, token in zip(expected, ids, strict=True)],
        "the ends have no label: a model that learns no end never stops.",
    )
    expect(
        labels != [*expected[1:], -100],
        "you shifted the labels: the model shifts them itself, so a label stands at its own token.",
    )
    swapped = [-100 if e != -100 else i for e, i in zip(expected, ids, strict=True)]
    expect(labels != swapped, "the other way round: learn what the model says.")
    expect(labels == expected, "the model's tokens and ends are their own labels, all else −100.")


@check(
    "Left padding: the newest token of every row stands at the right end, where writing goes on."
)
def pad_prompts(answer: Function) -> None:
    """Check ids and mask of ragged prompts, padded on the left, also with a real token as pad."""
    for lengths in ((3, 6, 4), (1, 5), (7, 2, 2, 5)):
        rows = [[9, *torch.randint(10, 99, (length,)).tolist()] for length in lengths]
        longest = max(map(len, rows))
        for pad_id in (0, 9):  # 9 is the first token of each row, as GPT-2's only special token
            ids, mask = (torch.as_tensor(part) for part in answer([list(r) for r in rows], pad_id))
            shape = (len(rows), longest)
            expect(ids.shape == shape, f"the ids have shape {tuple(ids.shape)}; expected {shape}.")
            right = [row + [pad_id] * (longest - len(row)) for row in rows]
            expect(
                ids.tolist() != right,
                "the padding stands on the right: generate would go on behind it.",
            )
            left = [[pad_id] * (longest - len(row)) + row for row in rows]
            expect(
                ids.tolist() == left, "each row ends with its prompt, and pad_id fills the left."
            )
            _judge_mask(mask, torch.tensor(left), rows, pad_id)


def _judge_mask(mask: Tensor, ids: Tensor, rows: list[list[int]], pad_id: int) -> None:
    """Judge the mask of rows that are padded on the left."""
    expect(mask.shape == ids.shape, "the mask has the shape of the ids.")
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    expected = torch.arange(ids.shape[1]) >= ids.shape[1] - lengths
    hints = {
        "the mask is the other way round: 1 stands for a token, 0 for padding.": ~expected,
        "the mask hides nothing: padding gets 0.": torch.ones_like(expected),
        "the mask fits padding on the right: turn it too.": expected.flip(1),
    }
    for hint, mistake in hints.items():
        expect(not torch.equal(mask.bool(), mistake), hint)
    if pad_id == 9:
        expect(
            not torch.equal(mask.bool(), ids != pad_id),
            "you hide real tokens: an id does not say whether it is padding. Go by the lengths.",
        )
    expect(torch.equal(mask.bool(), expected), "0 for padding, then 1 for each token.")


@check("Divide, cut, then softmax: what is left always adds up to 1.")
def sampling_probabilities(answer: Function) -> None:
    """Check temperature and top-k: values, sum, places; the logits stay as they were."""
    for size, top_k, temperature in ((30, 5, 0.6), (50, 12, 1.7), (9, 1, 0.8)):
        logits = 2 * torch.randn(size)
        given = logits.clone()
        found = torch.as_tensor(answer(given, temperature, top_k))
        expect(
            found.shape == logits.shape,
            f"the shape is {tuple(found.shape)}; expected every token in its place, ({size},).",
        )
        best = logits.topk(top_k).indices
        expected = _top_k(logits / temperature, best)
        uncut = torch.zeros(size).index_copy(0, best, (logits / temperature).softmax(-1)[best])
        hints = {
            "all tokens have a probability: keep the k likeliest.": (logits / temperature).softmax(
                -1
            ),
            "they do not add up to 1: cut before the softmax, or divide by the sum.": uncut,
        }
        if top_k > 1:
            hints["you multiply by the temperature: divide the logits."] = _top_k(
                logits * temperature, best
            )
            hints["the temperature does nothing: divide the logits by it."] = _top_k(logits, best)
            hints["the temperature divides the logits, not the probabilities."] = _top_k(
                logits.softmax(-1) / temperature, best
            )
        for hint, mistake in hints.items():
            expect(not torch.allclose(found, mistake, atol=1e-5), hint)
        expect(int((found > 0).sum()) == top_k, f"{top_k} tokens are to be kept, no more, no less.")
        expect(torch.allclose(found, expected, atol=1e-5), "the softmax of the kept logits / T.")
        expect(torch.equal(given, logits), "you changed the logits that came: work on a copy.")


def _top_k(logits: Tensor, best: Tensor) -> Tensor:
    cut = torch.full_like(logits, -torch.inf).index_copy(0, best, logits[best])
    return cut.softmax(-1)


@check("Each token lowers the sum, so without the division the shortest text wins.")
def best_beam(answer: Function) -> None:
    """Check the choice among beams of different length, where each mistake chooses another one."""
    for _ in range(5):
        scale = random.uniform(0.8, 1.2)
        beams = [[-1.2 * scale] * 3, [-0.5 * scale] * 8, [-0.45 * scale] * 20]
        order = random.sample(range(3), 3)
        short, middle = order.index(0), order.index(1)
        rows = [beams[i] for i in order]  # sums −3.6, −4 and −9; means −1.2, −0.5 and −0.45
        choice = answer([list(row) for row in rows], 1.0)
        expect(choice == int(choice) and 0 <= choice < 3, "return an index, from 0; not the score.")
        expect(choice != short, "you compare sums: each token lowers a sum, so short texts win.")
        expect(
            choice != middle, "you do not choose by the mean: at penalty 1, divide by the length."
        )
        choices = [answer([list(row) for row in rows], penalty) for penalty in (0.0, 0.5)]
        expect(
            choices[0] == short, "at penalty 0, length ** 0 is 1: the plain sums decide. Use it."
        )
        expect(
            choices[1] == middle,
            "length ** length_penalty divides; at 0.5 that is its square root.",
        )


@check("Look for the last n − 1 tokens earlier in the text: whatever followed them is forbidden.")
def forbidden_tokens(answer: Function) -> None:
    """Check the tokens that would complete a run again, also for n = 1 and for short texts."""
    expect(
        set(answer([1, 2, 3, 1, 2], 3)) == {3},
        "1 2 3 1 2 with n = 3: only 3 would complete a run that is there already (1 2 3).",
    )
    expect(
        set(answer([5, 6, 5, 8, 5], 2)) == {6, 8},
        "5 6 5 8 5 with n = 2: 5 was followed by 6 and by 8, so both are forbidden.",
    )
    for hint, ids, n in (
        ("in a text shorter than n − 1 nothing is forbidden.", [4], 3),
        ("a text of n − 1 tokens holds no run of n yet: nothing is forbidden.", [4, 5], 3),
    ):
        expect(set(answer(list(ids), n)) == set(), hint)
    expect(
        set(answer([4, 4], 3)) != {4} and set(answer([4, 4, 4], 3)) == {4},
        "runs may overlap, but each must lie wholly in the text: 4 4 4 forbids 4, 4 4 does not.",
    )
    expect(set(answer([3, 4, 3], 1)) == {3, 4}, "with n = 1, every token of the text is forbidden.")
    for _ in range(20):
        n = random.randint(1, 4)
        ids = random.choices(range(4), k=random.randint(n, 20))
        runs = {tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)}
        expected = {token for token in range(4) if (*ids, token)[-n:] in runs}
        expect(set(answer(list(ids), n)) == expected, f"{ids} with n = {n}: expected {expected}.")
