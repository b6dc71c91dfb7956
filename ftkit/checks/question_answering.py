"""Checks of notebook 11: windows, answer tokens, loss, F1, best span."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everyone uses)
from torch import Generator, Tensor

from ftkit.checks import (
    Case,
    WrongAnswer,
    ask,
    check,
    close,
    draw,
    expect,
    integers,
    number,
    number_or_nan,
    parts,
)

Function = Callable[..., Any]


@check("`stride` is what two windows share; a window moves on by its size minus the stride.")
def windows(answer: Function, seed: int = 0) -> None:
    """Check where windows begin and end: how far they move, and where the last one stops."""
    rng = random.Random(seed)
    drawn = rng.randint(20, 40), rng.randint(5, 9)
    for size, stride, step_count in ((10, 3, 4), (*drawn, 3), (*drawn, 2)):
        step = size - stride
        n_tokens = size + step * step_count - (rng.randint(1, step - 1) if step_count > 2 else 0)
        right = _windows(n_tokens, size, step)
        found = _pairs(answer(n_tokens, size, stride))
        if found == right:
            continue
        moves = found[1][0] - found[0][0] if len(found) > 1 else None
        hints = {
            "you move on by the stride. In transformers the stride is what two windows share: move "
            "on by size - stride.": moves == stride,
            "your windows share nothing: an answer across a border is whole in none of them.": (
                moves == size
            ),
            "the last tokens stand in no window: an answer there is lost.": (
                not found or found[-1][1] < n_tokens
            ),
            "the last window reaches beyond the text: it may be shorter than the others.": (
                found and found[-1][1] > n_tokens
            ),
            "one window too many: stop when a window has reached the end of the text.": (
                len(found) > len(right)
            ),
        }
        for hint, mistake in hints.items():
            expect(not mistake, hint)
        expect(False, "not yet: windows are (first token, end), the end not included, from 0 on.")
    short = _pairs(answer(7, 10, 3))
    expect(short == [(0, 7)], "a text that is shorter than a window is one window: (0, n_tokens).")


def _pairs(found: Any) -> list[tuple[int, int]]:
    return [_pair(pair, "(first token, end) is wanted for each window") for pair in found]


def _windows(n_tokens: int, size: int, step: int) -> list[tuple[int, int]]:
    starts = itertools.takewhile(
        lambda s: s == 0 or s + size - step < n_tokens, range(0, n_tokens, step)
    )
    return [(start, min(start + size, n_tokens)) for start in starts]


@check("Characters to tokens is where most home-made readers go wrong, and nothing crashes.")
def token_positions(answer: Function, seed: int = 0) -> None:
    """Check the tokens of an answer that is given in characters, here and outside the window.

    `end` is the first character after the answer; who reads it as the last one is right, too.
    """
    try:
        _expect_positions(answer, random.Random(seed))
    except WrongAnswer as hint:
        try:
            _expect_positions(lambda o, s, e: answer(o, s, e - 1), random.Random(seed))
        except WrongAnswer:
            raise hint from None


def _expect_positions(answer: Function, rng: random.Random) -> None:
    for n_words in (6, 12, 20):
        offsets, n_question = _offsets(rng, n_words)
        first = rng.randint(n_question + 3, len(offsets) - 4)
        last = first + rng.randint(1, 2)
        start, end = offsets[first][0], offsets[last][1]
        found = _pair(answer([*offsets], start, end))
        hints = {
            "these are characters: look for the tokens whose offsets hold them.": (start, end),
            "you count from the context's first token; the question and [CLS] stand before it.": (
                first - n_question,
                last - n_question,
            ),
            "the end is one too far: the label is the answer's last token, which is part of it.": (
                first,
                last + 1,
            ),
            "you found the first token only; the last one is that of the answer's last "
            "character.": (first, first),
        }
        for hint, mistake in hints.items():
            expect(found != mistake, hint)
        expect(found == (first, last), "the first token holds `start`, the last one `end - 1`.")
        expect(
            _pair(answer([*offsets], start + 1, end)) == (first, last),
            "an answer may begin inside a token: take each token that shares a character with it.",
        )
        _expect_edges(answer, offsets, n_question)


def _expect_edges(answer: Function, offsets: list[tuple[int, int]], n_question: int) -> None:
    hint = "the answer is not whole in this window: both labels are 0, the place of [CLS]."
    for start, end in ((0, 4), (offsets[-2][1] + 1, offsets[-2][1] + 9)):
        expect(_pair(answer([*offsets], start, end)) == (0, 0), hint)
    right, left = offsets[-2][1] + 5, offsets[n_question][0] - 3
    for start, end in ((offsets[-3][0], right), (left, offsets[n_question + 1][1])):
        expect(
            _pair(answer([*offsets], start, end)) == (0, 0),
            "the window cuts this answer. Half an answer is a wrong label: give (0, 0).",
        )


def _offsets(rng: random.Random, n_words: int) -> tuple[list[tuple[int, int]], int]:
    """Return the offsets of a window, its context from character 100 on, and where that begins."""
    n_question, place = rng.randint(5, 9), 100
    offsets = [(0, 0)] * n_question
    for _ in range(n_words):
        length = rng.randint(2, 8)
        offsets.append((place, place + length))
        place += length + 1
    return [*offsets, (0, 0)], n_question


def _pair(
    value: Any, what: str = "two numbers are wanted: the first token and the last"
) -> tuple[int, int]:
    first, last = integers(parts(value, 2, what)).tolist()
    return first, last


@check("Two classifications over the tokens, and the mean of their losses: no new formula.")
def span_loss(answer: Function, seed: int = 0) -> None:
    """Check the loss of start and end: two cross-entropies over the tokens, and their mean."""
    generator = Generator().manual_seed(seed)
    otherwise = "softmax over the tokens of each row, then minus the log of the right one."
    for batch, seq_len in ((4, 30), (7, 9), (1, 12)):
        ask(answer, draw(_span_case, generator, batch, seq_len), otherwise=otherwise)


def _span_case(generator: Generator, batch: int, seq_len: int) -> Case:
    start_logits, end_logits = 3 * torch.randn(2, batch, seq_len, generator=generator)
    starts = torch.randint(seq_len - 1, (batch,), generator=generator)
    more = torch.randint(1, 4, (batch,), generator=generator)
    ends = torch.minimum(starts + more, torch.tensor(seq_len - 1))
    losses = F.cross_entropy(start_logits, starts), F.cross_entropy(end_logits, ends)
    mistakes = {
        "this is the sum of both: take their mean.": sum(losses),
        "this is the start alone: the end has a loss of its own.": losses[0],
        "this is the end alone.": losses[1],
        "start and end are swapped.": _mean_loss(start_logits, end_logits, ends, starts),
        "the sign: a loss is minus the logarithm of a probability.": -sum(losses) / 2,
    }
    if batch > 2:  # of two rows the sum of the means is the sum of the rows
        mistakes["this is the sum over the rows: take the mean."] = sum(losses) / 2 * batch
    return Case((start_logits, end_logits, starts, ends), sum(losses) / 2, mistakes)


def _mean_loss(start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    return (F.cross_entropy(start_logits, starts) + F.cross_entropy(end_logits, ends)) / 2


@check("A bag of words, counted; and among several fair answers the kindest one counts.")
def answer_f1(answer: Function, seed: int = 0) -> None:
    """Check the F1 of words: repeated words, the best answer, and nothing shared."""
    rng = random.Random(seed)
    for _ in range(5):
        words = rng.sample(["river", "boat", "dawn", "rope", "mill", "bell", "tower"], 5)
        one, two, three, four, five = words
        cases = [
            (f"{one} {two}", [f"{two} {three} {four}"], 2 / 5),
            (f"{one} {one} {two}", [f"{one} {three}"], 2 / 5),  # a word counts once
            (f"{one} {two}", [four, f"{one} {five}", f"{one} {two} {three}"], 4 / 5),
        ]
        hints = (
            "F1 is 2 * shared / (words of the prediction + words of the answer).",
            "a word counts as often as it stands in both: Counter(...) & Counter(...), no sets and "
            "no `in`.",
            "several answers: the best of their F1 counts, not the first and not the mean.",
        )
        for (prediction, answers, right), hint in zip(cases, hints, strict=True):
            found = number(answer(prediction, list(answers)))
            expect(close(found, right), _f1_hint(cases, hint, found))
        nothing = number_or_nan(answer, one, [two])
        expect(close(nothing, 0), "nothing is shared: F1 is 0, not 0/0.")
        normal = number(answer(f"The {one.upper()}, {two}.", [f"{one} {two}"]))
        expect(close(normal, 1), "normalise both first: The BOAT, dawn. is boat dawn.")


def _f1_hint(cases: Sequence[tuple[str, list[str], float]], hint: str, found: float) -> str:
    prediction, answers, _ = cases[0]
    shared = len(set(prediction.split()) & set(answers[0].split()))
    if close(found, shared / len(prediction.split())):
        return "this is the precision: the answer's own words count too."
    if close(found, shared / len(answers[0].split())):
        return "this is the recall: the prediction's own words count too."
    return hint


@check("A search over pairs, under three rules. The model itself knows none of them.")
def best_span(answer: Function, seed: int = 0) -> None:
    """Check the best span: both ends together, in order, in the context, and not too long."""
    generator, limit = Generator().manual_seed(seed), 5
    for _ in range(4):
        for rule in ("in order", "in the context", "not too long", "not by one", "together"):
            start, end, mask = _logits(generator, rule, limit)
            right = _best(start, end, mask, limit)[0]
            found = _pair(answer(start.clone(), end.clone(), mask.clone(), limit))
            if found == right:
                continue
            _judge_span(found, right, mask, limit)
            single = int(start.masked_fill(~mask, -math.inf).argmax())
            expect(
                found[0] != single or right[0] == single,
                "you fix the best start first; a worse start with a far better end can win. Look "
                "at all pairs.",
            )
            expect(False, "not the highest sum: start logit + end logit, over all allowed pairs.")


def _logits(generator: Generator, rule: str, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw logits that tempt to break a rule, and in which the best span is so by a margin."""
    while True:
        size = int(torch.randint(14, 25, (), generator=generator))
        first = int(torch.randint(3, 6, (), generator=generator))
        mask = torch.tensor([first <= i < size - 1 for i in range(size)])
        start, end = 0.1 * torch.randn(2, size, generator=generator)
        start[first + 2], end[first + 3] = 1.0, 1.0
        _tempt(rule, start, end, (first, size - 2), limit)
        (s, e), (t, f) = _best(start, end, mask, limit)[:2]
        if start[s] + end[e] > start[t] + end[f] + 0.01:
            return start, end, mask


def _tempt(rule: str, start: Tensor, end: Tensor, context: tuple[int, int], limit: int) -> None:
    """Put high logits where a careless search would take them."""
    first, last = context
    if rule == "in order":
        start[last - 1], end[first + 1] = 8.0, 8.0
    elif rule == "in the context":
        start[1], end[2] = 9.0, 9.0
    elif rule == "not too long":
        start[first], end[last] = 8.0, 8.0
    elif rule == "not by one":
        start[first], end[first + limit] = 9.0, 8.0  # unequal: no tie within the limit
    else:
        start[last], start[first + 1], end[first + 2] = 3.0, 2.5, 9.0


def _judge_span(found: tuple[int, int], right: tuple[int, int], mask: Tensor, limit: int) -> None:
    """End the check with the rule that a span breaks."""
    start, end = found
    expect(0 <= start < len(mask) and 0 <= end < len(mask), "the places are tokens of this window.")
    expect(start <= end, "the end stands before the start: no argmax of each on its own.")
    expect(
        mask[start] and mask[end],
        "this span leaves the context: the question and [SEP] hold no answer.",
    )
    expect(
        end - start + 1 != limit + 1,
        "one token too long: from start to end there are end - start + 1 tokens.",
    )
    expect(end - start + 1 <= limit, "too long: at most `max_tokens` tokens.")
    expect(
        (start, end) != (right[0], right[1] + 1),
        "the end is one too far: it is the last token of the answer.",
    )


def _best(start: Tensor, end: Tensor, mask: Tensor, limit: int) -> list[tuple[int, int]]:
    """Return the allowed spans, the best one first."""
    starts, ends, inside = start.tolist(), end.tolist(), mask.nonzero().flatten().tolist()
    pairs = [(s, e) for s in inside for e in inside if s <= e < s + limit]
    return sorted(pairs, key=lambda pair: -starts[pair[0]] - ends[pair[1]])
