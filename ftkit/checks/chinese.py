"""Checks of notebook 12: the epoch, the leak's flattery, the key of a text, a sentence's score."""

import math
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ftkit.checks import Case, ask, check, close, draw, expect, judge, number, parts

Function = Callable[..., Any]


@check("Validation decides, the test reports: each split has one job.")
def choose_epoch(answer: Function, seed: int = 0) -> None:
    """Check the epoch that validation chooses, counted from 1, and its test accuracy."""
    rng = random.Random(seed)
    for size in (6, 9, 14):
        validation, test = _scores(rng, size), _scores(rng, size)
        luckiest, best = sorted(rng.sample(range(1, size - 1), 2), reverse=True)  # not the last
        validation[best], test[luckiest] = 0.95, 0.96
        given = list(validation), list(test)
        epoch, score = _epoch(answer(*given))
        expect(given == (validation, test), "you changed the lists: leave them as they came.")
        expect(
            epoch != luckiest + 1 and not close(score, test[luckiest]),
            "you chose by the test: its best epoch is partly the luckiest one, and then nothing is "
            "left to report.",
        )
        expect(epoch != best, "epochs count from 1: the first score is that of epoch 1.")
        expect(
            epoch != size, "the last epoch is not the best one: look for the highest validation."
        )
        expect(
            not close(score, validation[best]),
            "you report the validation accuracy: it did the choosing, so it flatters. Report the "
            "test accuracy of that epoch.",
        )
        expect(epoch == best + 1, "the epoch with the highest validation accuracy, from 1.")
        expect(close(score, test[best]), "the test accuracy of the chosen epoch.")
    epoch, _ = _epoch(answer([0.6, 0.8, 0.7, 0.8], _scores(rng, 4)))
    expect(epoch == 2, "two epochs are equally good on validation: take the earlier one.")


def _epoch(result: Any) -> tuple[float, float]:
    epoch, score = parts(result, 2, "two numbers are wanted, the epoch and its score")
    return number(epoch), number(score)


def _scores(rng: random.Random, size: int) -> list[float]:
    return [round(rng.uniform(0.55, 0.9), 6) for _ in range(size)]


@check("A gift of right answers raises every score, and the better model by less.")
def honest_accuracy(answer: Function, seed: int = 0) -> None:
    """Check the accuracy on the rows that did not leak, where all leaked ones are right."""
    rng = random.Random(seed)
    cases = [draw(_leaked_case, rng) for _ in range(5)]
    ask(answer, *cases, otherwise="right and not leaked, divided by not leaked.")
    whole = Case((0.8, 0.0), 0.8)
    ask(answer, whole, otherwise="without a leak the score is the honest accuracy.")


def _leaked_case(rng: random.Random) -> Case:
    leaked, honest = rng.uniform(0.1, 0.5), rng.uniform(0.55, 0.9)
    score = leaked + (1 - leaked) * honest
    mistakes = {
        "the leaked rows are gone from the right ones, but not from all rows: divide by the "
        "share that is left.": score - leaked,
        "that scales all right answers down, the honest ones too: take away the leaked ones "
        "first.": score * (1 - leaked),
        "divide, but first take the leaked rows away from the right ones.": score / (1 - leaked),
        "this is what a model with that honest accuracy would show: the other way round.": (
            leaked + (1 - leaked) * score
        ),
    }
    return Case((score, leaked), honest, mistakes)


CHARACTERS = "汤面很鲜店家热情送餐快包装差难吃便宜安静房间干净灯光暗声音大"
FULL_WIDTH = {ord(c): ord(c) + 0xFEE0 for c in "ABCDEFGHabcdefgh0123456789"}


@check("Equal to a reader is the standard, so write down what a reader overlooks.")
def leak_key(answer: Function, seed: int = 0) -> None:
    """Check a key that is equal for texts which differ in spaces, case, width or marks only."""
    rng = random.Random(seed)
    for _ in range(5):
        text = _review(rng)
        key = answer(text)
        middle = len(text) // 2
        twins = {
            "spaces and line ends: a reader does not see them, and a key must not "
            "either.": f" {text[:middle]} \n{text[middle:]}\u3000",
            "capitals: WIFI and wifi are one word. Try casefold().": text.swapcase(),
            "width: Ａ１ (full width) and A1 are the same to a reader. Try "
            'unicodedata.normalize("NFKC", text).': text.translate(FULL_WIDTH),
            "marks: a changed 。 or ！ makes no new review. Keep letters, digits and Chinese "
            "characters alone; str.isalnum() knows them.": text.replace("。", "！").replace(
                "，", "、"
            ),
        }
        for hint, twin in twins.items():
            expect(answer(twin) == key, hint)
        for mark in "？…“”；~":
            expect(answer(text + mark) == key, f"marks: {mark} alone makes no new review.")
        _expect_different(answer, text, _review(rng))


def _expect_different(answer: Function, text: str, other: str) -> None:
    key = answer(text)
    expect(answer(text.replace("WiFi", "VIP")) != key, "letters count: WiFi is not VIP.")
    expect(
        answer(other) != key,
        "every Chinese text gets the same key: you threw the characters away with the marks.",
    )
    expect(
        answer(text[::-1]) != key,
        "the order is lost: 不太好 and 太不好 hold the same characters. Keep them in place.",
    )
    expect(
        answer(text.replace("很", "不", 1)) != key,
        "one other character is another review: 很好 and 不好 must differ.",
    )
    expect(answer(text.replace("7", "8")) != key, "digits count: 7块 is not 8块.")


def _review(rng: random.Random) -> str:
    first, second = ("".join(rng.sample(CHARACTERS, 6)) for _ in range(2))
    return f"{first}很好，WiFi花了7块。{second}，B座{rng.randint(0, 9)}号。"


class _Reader(nn.Module):
    """A masked model in small: the logits of a place come from its token and its neighbours."""

    def __init__(self, vocab_size: int, generator: Generator) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(vocab_size, 8), nn.Linear(8, vocab_size)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        hidden = self.embed(input_ids)  # (batch, seq_len, 8)
        hidden = hidden + hidden.roll(1, dims=1) + 0.5 * hidden.roll(-1, dims=1)
        return SimpleNamespace(logits=self.head(hidden))


@check("A masked model scores a sentence too: one gap at a time, everything else in sight.")
def sentence_score(answer: Function, seed: int = 0) -> None:
    """Check the sum of the log-probabilities of all tokens, each masked alone."""
    generator = Generator().manual_seed(seed)
    for length in (4, 7, 11):
        case = draw(_sentence_case, generator, length)
        model, input_ids, mask_id = case.given
        given = input_ids.clone()
        with torch.no_grad():
            found = answer(model, given, mask_id)
        expect(torch.equal(input_ids, given), "you wrote over input_ids: clone them for each gap.")
        judge(
            found,
            case.right,
            case.mistakes,
            "mask one token between [CLS] and [SEP], take the log-probability of the token that "
            "stood there, put it back, go on; add all up.",
        )


def _sentence_case(generator: Generator, length: int) -> Case:
    model, mask_id = _Reader(30, generator).eval(), 4
    tokens = torch.randint(5, 30, (length,), generator=generator)
    input_ids = torch.cat([torch.tensor([2]), tokens, torch.tensor([3])])
    with torch.no_grad():
        mistakes = _mistakes(model, input_ids, mask_id)
    return Case((model, input_ids, mask_id), mistakes.pop(""), mistakes)


def _mistakes(model: nn.Module, input_ids: Tensor, mask_id: int) -> dict[str, float]:
    """Return the right score under the empty hint, and the usual wrong ones under theirs."""
    places = range(1, len(input_ids) - 1)

    def at(place: int, masked: list[int]) -> float:
        read = input_ids.clone()
        read[masked] = mask_id
        logits = model(input_ids=read[None]).logits[0, place]
        return float(logits.log_softmax(-1)[input_ids[place]])

    each = [at(place, [place]) for place in places]
    return {
        "": sum(each),
        "nothing is masked: the model reads the very token that it should guess.": sum(
            at(place, []) for place in places
        ),
        "all tokens are masked at once: then there is nothing to guess from. One at a time.": sum(
            at(place, list(places)) for place in places
        ),
        "the masks pile up: put the token back before you mask the next.": sum(
            at(place, list(range(1, place + 1))) for place in places
        ),
        "[CLS] and [SEP] stand in every text and say nothing of it: leave them out.": sum(each)
        + at(0, [0])
        + at(len(input_ids) - 1, [len(input_ids) - 1]),
        "this is the mean: add the log-probabilities up.": sum(each) / len(each),
        "these are probabilities: add up their logarithms.": sum(math.exp(p) for p in each),
        "the sign: log-probabilities are below 0, this is a loss.": -sum(each),
    }
