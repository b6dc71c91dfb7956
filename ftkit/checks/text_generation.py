"""Checks of notebook 09: chat labels, padded prompts, top-k, the best beam, forbidden tokens."""

import random
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Generator, Tensor

from ftkit.checks import Case, check, describe, draw, expect, integers, judge, number, parts

Function = Callable[..., Any]
Turns = list[tuple[list[int], bool]]


@check("Read everything, learn what you are to say, and learn when to stop.")
def chat_labels(answer: Function, seed: int = 0) -> None:
    """Check ids and labels of a chat: the model's turns and their ends are learned."""
    rng = random.Random(seed)
    for size in (4, 6, 8):
        turns: Turns = [
            ([rng.randint(10, 999) for _ in range(rng.randint(2, 6))], i % 2 == 1)
            for i in range(size)
        ]
        result = answer([(list(turn), said) for turn, said in turns], 7)
        what = "two lists are wanted, ids and labels"
        ids, labels = (integers(part).tolist() for part in parts(result, 2, what))
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
def pad_prompts(answer: Function, seed: int = 0) -> None:
    """Check ids and mask of ragged prompts, padded on the left, also with a real token as pad."""
    rng = random.Random(seed)
    for lengths in ((3, 6, 4), (1, 5), (7, 2, 2, 5)):
        rows = [[9, *(rng.randint(10, 99) for _ in range(length))] for length in lengths]
        longest = max(map(len, rows))
        for pad_id in (0, 9):  # 9 is the first token of each row, as GPT-2's only special token
            result = answer([list(row) for row in rows], pad_id)
            what = "two tensors are wanted, the ids and the mask"
            ids, mask = (integers(part) for part in parts(result, 2, what))
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
def sampling_probabilities(answer: Function, seed: int = 0) -> None:
    """Check temperature and top-k: values, sum, places; the logits stay as they were."""
    generator = Generator().manual_seed(seed)
    for size, top_k, temperature in ((30, 5, 0.6), (50, 12, 1.7), (9, 1, 0.8)):
        case = draw(_sampling_case, generator, size, top_k, temperature)
        logits = case.given[0]
        given = logits.clone()
        judge(
            answer(given, temperature, top_k),
            case.right,
            case.mistakes,
            f"expected the softmax of the {top_k} highest logits / T, and 0 for all other tokens.",
            shape=f"the shape is another one; expected every token in its place, ({size},).",
        )
        expect(torch.equal(given, logits), "you changed the logits that came: work on a copy.")


def _sampling_case(generator: Generator, size: int, top_k: int, temperature: float) -> Case:
    """Draw logits of which no two near the cut are equal."""
    while True:
        logits = 2 * torch.randn(size, generator=generator)
        ranked = logits.sort(descending=True).values
        if ranked[top_k - 1] - ranked[top_k] > 1e-3:
            break
    best, scaled = logits.topk(top_k).indices, logits / temperature
    mistakes = {
        "all tokens have a probability: keep the k likeliest.": scaled.softmax(-1),
        "they do not add up to 1: cut before the softmax, or divide by the sum.": (
            torch.zeros(size).index_copy(0, best, scaled.softmax(-1)[best])
        ),
    }
    if top_k > 1:
        mistakes |= {
            "you multiply by the temperature: divide the logits.": _top_k(
                logits * temperature, best
            ),
            "the temperature does nothing: divide the logits by it.": _top_k(logits, best),
            "the temperature divides the logits, not the probabilities.": _top_k(
                logits.softmax(-1) / temperature, best
            ),
        }
    return Case((logits, temperature, top_k), _top_k(scaled, best), mistakes)


def _top_k(logits: Tensor, best: Tensor) -> Tensor:
    cut = torch.full_like(logits, -torch.inf).index_copy(0, best, logits[best])
    return cut.softmax(-1)


@check("Each token lowers the sum, so without the division the shortest text wins.")
def best_beam(answer: Function, seed: int = 0) -> None:
    """Check the choice among beams of different length, where each mistake chooses another one."""
    rng = random.Random(seed)
    for _ in range(5):
        scale = rng.uniform(0.8, 1.2)
        beams = [[-1.2 * scale] * 3, [-0.5 * scale] * 8, [-0.45 * scale] * 20]
        order = rng.sample(range(3), 3)
        short, middle = order.index(0), order.index(1)
        rows = [beams[i] for i in order]  # sums −3.6, −4 and −9; means −1.2, −0.5 and −0.45
        choice = number(answer([list(row) for row in rows], 1.0))
        expect(choice == int(choice) and 0 <= choice < 3, "return an index, from 0; not the score.")
        expect(choice != short, "you compare sums: each token lowers a sum, so short texts win.")
        expect(
            choice != middle, "you do not choose by the mean: at penalty 1, divide by the length."
        )
        choices = [number(answer([*map(list, rows)], penalty)) for penalty in (0.0, 0.5)]
        expect(
            choices[0] == short, "at penalty 0, length ** 0 is 1: the plain sums decide. Use it."
        )
        expect(
            choices[1] == middle,
            "length ** length_penalty divides; at 0.5 that is its square root.",
        )


@check("Look for the last n − 1 tokens earlier in the text: whatever followed them is forbidden.")
def forbidden_tokens(answer: Function, seed: int = 0) -> None:
    """Check the tokens that would complete a run again, also for n = 1 and for short texts."""
    rng = random.Random(seed)
    expect(
        _forbidden(answer, [1, 2, 3, 1, 2], 3) == {3},
        "1 2 3 1 2 with n = 3: only 3 would complete a run that is there already (1 2 3).",
    )
    expect(
        _forbidden(answer, [5, 6, 5, 8, 5], 2) == {6, 8},
        "5 6 5 8 5 with n = 2: 5 was followed by 6 and by 8, so both are forbidden.",
    )
    for hint, ids, n in (
        ("in a text shorter than n − 1 nothing is forbidden.", [4], 3),
        ("a text of n − 1 tokens holds no run of n yet: nothing is forbidden.", [4, 5], 3),
    ):
        expect(_forbidden(answer, ids, n) == set(), hint)
    expect(
        _forbidden(answer, [4, 4], 3) != {4} and _forbidden(answer, [4, 4, 4], 3) == {4},
        "runs may overlap, but each must lie wholly in the text: 4 4 4 forbids 4, 4 4 does not.",
    )
    hint = "with n = 1, every token of the text is forbidden."
    expect(_forbidden(answer, [3, 4, 3], 1) == {3, 4}, hint)
    for _ in range(20):
        n = rng.randint(1, 4)
        ids = rng.choices(range(4), k=rng.randint(n, 20))
        runs = {tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)}
        expected = {token for token in range(4) if (*ids, token)[-n:] in runs}
        hint = f"{ids} with n = {n}: expected {expected}."
        expect(_forbidden(answer, ids, n) == expected, hint)


def _forbidden(answer: Function, ids: list[int], n: int) -> set[int]:
    found = answer(list(ids), n)
    expect(isinstance(found, Iterable), f"a set of tokens is wanted; {describe(found)} came.")
    return set(integers(list(found)).tolist())
