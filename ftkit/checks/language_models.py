"""Checks of notebook 01: bigrams, perplexity, nearest neighbours, top-p, causal attention."""

import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from ftkit.checks import check, expect

Case = tuple[Any, Any, dict[str, Any]]  # what came, what is right, hint → what it would explain


def _judge(cases: list[Case]) -> None:
    """End with the hint that explains every answer, or else with the first wrong one."""
    if all(_same(found, right) for found, right, _ in cases):
        return
    for hint in cases[0][2]:
        expect(not all(_same(found, wrongs[hint]) for found, _, wrongs in cases), hint)
    for found, right, _ in cases:
        expect(_same(found, right), f"Expected {_show(right)}, got {_show(found)}.")


def _same(found: Any, other: Any) -> bool:
    if isinstance(other, list):
        return found == other
    return math.isclose(found, other, rel_tol=1e-4)


def _show(value: Any) -> str:
    return str(value) if isinstance(value, list) else f"{value:.4g}"


@check("k joins the count once above the line, and once for each word of the vocabulary below it.")
def bigram_probability(answer: Callable[[list[str], str, str, float], float]) -> None:
    """Check P(second | first) with add-k smoothing on random texts."""
    cases: list[Case] = []
    for vocabulary, k in (("abc", 0.5), ("abcd", 1.0), ("abcdef", 0.1), ("abcde", 2.0)):
        tokens = [*vocabulary, *random.choices(vocabulary, k=random.randint(10, 40)), "a"]
        first, second, size = "a", random.choice(vocabulary[1:]), len(vocabulary)
        pairs, contexts = list(pairwise(tokens)), tokens[:-1]
        n_pair, n_first = pairs.count((first, second)), contexts.count(first)
        above, below = n_pair + k, n_first + k * size
        wrongs = {
            "That is the plain share of the pair: k is missing.": n_pair / n_first,
            "Below the line k is missing: a word's probabilities add up to more than 1.": (
                above / n_first
            ),
            "Below the line, add k once for each word of the vocabulary: k times V.": (
                above / (n_first + k)
            ),
            "The last token has no next word, so it is no context: count in tokens[:-1].": (
                above / (below + 1)
            ),
            "Divide by how often the first word is followed by anything, not by all pairs.": (
                above / (len(pairs) + k * size)
            ),
            "The wrong way round: `first` is the context, and `second` is predicted.": (
                (pairs.count((second, first)) + k) / (contexts.count(second) + k * size)
            ),
        }
        cases.append((float(answer(tokens, first, second, k)), above / below, wrongs))
    _judge(cases)


@check(
    "Average the log-likelihoods over all words, then take exp once: longer sentences weigh more."
)
def text_perplexity(answer: Callable[[list[list[float]]], float]) -> None:
    """Check the perplexity of random texts whose sentences differ in length."""
    cases: list[Case] = []
    for lengths in ((1, 6), (3, 2, 9), (12, 1)):
        sentences = [[random.uniform(0.02, 0.9) for _ in range(n)] for n in lengths]
        nats = [[-math.log(p) for p in sentence] for sentence in sentences]
        every = [value for sentence in nats for value in sentence]
        mean, means = _mean(every), [_mean(sentence) for sentence in nats]
        wrongs = {
            "That is the mean negative log-likelihood; perplexity is its exponential.": mean,
            "Upside down: negate the mean of the logarithms before the exponential.": (
                math.exp(-mean)
            ),
            "Bases mixed: natural logarithms go with exp, log2 goes with 2 ** x.": 2**mean,
            "Bases mixed: log2 goes with 2 ** x, not with exp.": math.exp(mean / math.log(2)),
            "That is the mean of the sentences' perplexities: average the logarithms instead.": (
                _mean([math.exp(value) for value in means])
            ),
            "Here every sentence counts the same, but every word should.": math.exp(_mean(means)),
            "That is the mean of 1 / p: average the logarithms, then take exp.": (
                _mean([math.exp(value) for value in every])
            ),
        }
        cases.append((float(answer(sentences)), math.exp(mean), wrongs))
    _judge(cases)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


@check("With lengths divided out, a short vector is found as easily as a long one.")
def most_similar(answer: Callable[[torch.Tensor, int, int], list[int]]) -> None:
    """Check the nearest rows by cosine among vectors of very different lengths."""
    cases: list[Case] = []
    for n_vectors, size, n in ((10, 3, 2), (20, 8, 5), (40, 16, 3)):
        vectors = torch.randn(n_vectors, size) * (torch.rand(n_vectors, 1) * 3).exp()
        row = random.randrange(n_vectors)
        found = [int(i) for i in answer(vectors.clone(), row, n)]
        expect(row not in found, "The word itself came back: its cosine is 1, leave it out.")
        expect(len(found) == n, f"Expected {n} rows, got {len(found)}.")
        norms, dots = vectors.norm(dim=-1), vectors @ vectors[row]
        scores = {
            "That is the order of the dot products, in which long vectors win: divide by both "
            "lengths (norms).": dots,
            "These are the farthest ones: sort from the highest cosine to the lowest.": -dots
            / norms,
            "That is the order of the distances: compare directions, by the cosine.": -(
                vectors - vectors[row]
            ).norm(dim=-1),
        }
        wrongs: dict[str, Any] = {hint: _best(values, row, n) for hint, values in scores.items()}
        right = _best(dots / norms, row, n)
        wrongs["The right rows in another order: the nearest first."] = (
            found if set(found) == set(right) else None
        )
        cases.append((found, right, wrongs))
    _judge(cases)


def _best(scores: torch.Tensor, row: int, n: int) -> list[int]:
    order = scores.argsort(descending=True).tolist()
    return [i for i in order if i != row][:n]


@check("The word that crosses p stays, so that at least p of the probability is always kept.")
def top_p(answer: Callable[[torch.Tensor, float], torch.Tensor]) -> None:
    """Check top-p on random distributions, one in each row."""
    for batch, size, p in ((1, 5, 0.5), (4, 12, 0.7), (3, 40, 0.9)):
        probabilities = (torch.randn(batch, size) * 2).softmax(dim=-1)
        found = answer(probabilities.clone(), p)
        expect(found.shape == (batch, size), f"Expected the shape {(batch, size)}.")
        ranked, order = probabilities.sort(dim=-1, descending=True)
        cut = ranked * (ranked.cumsum(dim=-1) - ranked < p)
        right = torch.zeros_like(cut).scatter(-1, order, cut)
        whole = right.sum(dim=-1, keepdim=True)
        if torch.allclose(found, right / whole, atol=1e-5):
            continue
        in_order = torch.allclose(found, cut / whole, atol=1e-5)
        expect(not in_order, "Still sorted: put each probability back in its own place.")
        cut_only = torch.allclose(found, right, atol=1e-5)
        expect(not cut_only, "The rows do not add up to 1: divide by what is left.")
        n_found, n_right = (found > 0).sum(dim=-1), (right > 0).sum(dim=-1)
        fewer, more = (n_found < n_right).any(), (n_found > n_right).any()
        expect(not fewer, "The word that crosses p was dropped: what is kept must reach p.")
        expect(not more, "Too many words are kept: stop as soon as the sum reaches p.")
        expect(
            False,
            "The right number of words, but wrong probabilities: keep the likeliest "
            "ones, and their proportions.",
        )


@check("One mask joins both conditions, and it acts before the softmax, so that rows add up to 1.")
def causal_weights(answer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Check causal attention weights that leave out padding at the end."""
    for batch, seq_len in ((1, 4), (2, 6), (3, 9)):
        scores = torch.randn(batch, seq_len, seq_len) * 2
        real = torch.arange(seq_len) < torch.randint(3, seq_len, (batch, 1))
        weights = answer(scores.clone(), real)
        expect(weights.shape == scores.shape, f"Expected the shape {tuple(scores.shape)}.")
        later = torch.ones_like(scores).triu(diagonal=1).bool()
        padding = (~real[:, None]).expand_as(scores)  # columns: nobody looks at padding
        rows = real[:, :, None].expand_as(scores)
        _expect_causal(weights, rows & later, rows & ~later & ~padding)
        sums = weights.sum(dim=-1)
        one = torch.allclose(sums, torch.ones_like(sums), atol=1e-4)
        expect(one, "The rows do not add up to 1: mask the scores before the softmax, not after.")
        hint = "Some weight goes to padding: mask the columns where `real` is False, too."
        expect((weights[padding] == 0).all(), hint)
        right = scores.masked_fill(later | padding, float("-inf")).softmax(dim=-1)
        hint = "The right cells, but other weights: take the softmax over the last dimension."
        expect(torch.allclose(weights[rows], right[rows], atol=1e-5), hint)


def _expect_causal(weights: torch.Tensor, later: torch.Tensor, allowed: torch.Tensor) -> None:
    """Expect weights on all allowed cells, and none on later tokens."""
    peeks = (weights[later] != 0).any()
    hint = "The mask is the wrong way round: a token may look at itself and at earlier ones."
    expect(not (peeks and (weights[:, 1, 0] == 0).any()), hint)
    hint = (
        "There is NaN: some row has nothing left to look at. Leave the diagonal free, and mask "
        "the columns of padding, not its rows."
    )
    expect(not weights.isnan().any(), hint)
    hint = "A token looks at later ones: set the scores above the diagonal to minus infinity."
    expect(not peeks, hint)
    hint = "A token may look at itself and at every earlier one, but some of these weights are 0."
    expect((weights[allowed] > 0).all(), hint)
