"""Checks of notebook 01: bigrams, perplexity, nearest neighbours, top-p, causal attention."""

import math
import random
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor

from ftkit.checks import Case, array, ask, check, close, draw, expect, integers, judge


@check("k joins the count once above the line, and once for each word of the vocabulary below it.")
def bigram_probability(
    answer: Callable[[list[str], str, str, float], float], seed: int = 0
) -> None:
    """Check P(second | first) with add-k smoothing on random texts."""
    rng = random.Random(seed)
    sizes = (("abc", 0.5), ("abcd", 1.0), ("abcdef", 0.1), ("abcde", 2.0))
    ask(answer, *(draw(_bigram_case, rng, vocabulary, k) for vocabulary, k in sizes))


def _bigram_case(rng: random.Random, vocabulary: str, k: float) -> Case:
    tokens = [*vocabulary, *rng.choices(vocabulary, k=rng.randint(10, 40)), "a"]
    first, second, size = "a", rng.choice(vocabulary[1:]), len(vocabulary)
    pairs, contexts = list(pairwise(tokens)), tokens[:-1]
    n_pair, n_first = pairs.count((first, second)), contexts.count(first)
    above, below = n_pair + k, n_first + k * size
    mistakes = {
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
    return Case((tokens, first, second, k), above / below, mistakes)


@check(
    "Average the log-likelihoods over all words, then take exp once: longer sentences weigh more."
)
def text_perplexity(answer: Callable[[list[list[float]]], float], seed: int = 0) -> None:
    """Check the perplexity of random texts whose sentences differ in length."""
    rng = random.Random(seed)
    ask(answer, *(draw(_text_case, rng, lengths) for lengths in ((1, 6), (3, 2, 9), (12, 1))))


def _text_case(rng: random.Random, lengths: tuple[int, ...]) -> Case:
    sentences = [[rng.uniform(0.02, 0.9) for _ in range(n)] for n in lengths]
    nats = [[-math.log(p) for p in sentence] for sentence in sentences]
    every = [value for sentence in nats for value in sentence]
    mean, means = _mean(every), [_mean(sentence) for sentence in nats]
    mistakes = {
        "That is the mean negative log-likelihood; perplexity is its exponential.": mean,
        "Upside down: negate the mean of the logarithms before the exponential.": math.exp(-mean),
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
    return Case((sentences,), math.exp(mean), mistakes)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


@check("With lengths divided out, a short vector is found as easily as a long one.")
def most_similar(answer: Callable[[Tensor, int, int], list[int]], seed: int = 0) -> None:
    """Check the nearest rows by cosine among vectors of very different lengths."""
    generator = Generator().manual_seed(seed)
    for n_vectors, size, n in ((10, 3, 2), (20, 8, 5), (40, 16, 3)):
        case = draw(_vectors_case, generator, n_vectors, size, n)
        vectors, row, _ = case.given
        found = integers(answer(vectors.clone(), row, n)).tolist()
        expect(row not in found, "The word itself came back: its cosine is 1, leave it out.")
        expect(len(found) == n, f"Expected {n} rows, got {len(found)}.")
        hint = "The right rows in another order: the nearest first."
        judge(found, case.right, case.mistakes, hint if set(found) == set(case.right) else None)


def _vectors_case(generator: Generator, n_vectors: int, size: int, n: int) -> Case:
    while True:
        lengths = (torch.rand(n_vectors, 1, generator=generator) * 3).exp()
        vectors = torch.randn(n_vectors, size, generator=generator) * lengths
        row = int(torch.randint(n_vectors, (), generator=generator))
        dots = vectors @ vectors[row]
        cosines = dots / vectors.norm(dim=-1) / vectors[row].norm()
        ranked = cosines.sort(descending=True).values
        if (ranked[:-1] - ranked[1:])[: n + 1].min() > 1e-3:  # rounding cannot change the order
            break
    scores = {
        "That is the order of the dot products, in which long vectors win: divide by both "
        "lengths (norms).": dots,
        "These are the farthest ones: sort from the highest cosine to the lowest.": -cosines,
        "That is the order of the distances: compare directions, by the cosine.": -(
            vectors - vectors[row]
        ).norm(dim=-1),
    }
    mistakes = {hint: _best(values, row, n) for hint, values in scores.items()}
    return Case((vectors, row, n), _best(cosines, row, n), mistakes)


def _best(scores: Tensor, row: int, n: int) -> list[int]:
    order = scores.argsort(descending=True).tolist()
    return [i for i in order if i != row][:n]


@check("The word that crosses p stays, so that at least p of the probability is always kept.")
def top_p(answer: Callable[[Tensor, float], Tensor], seed: int = 0) -> None:
    """Check top-p on random distributions, one in each row."""
    generator = Generator().manual_seed(seed)
    for batch, size, p in ((1, 5, 0.5), (4, 12, 0.7), (3, 40, 0.9)):
        case = draw(_top_p_case, generator, batch, size, p)
        found = torch.from_numpy(array(answer(case.given[0].clone(), p)))
        expect(found.shape == (batch, size), f"Expected the shape {(batch, size)}.")
        if close(found, case.right):
            continue
        for hint, mistake in case.mistakes.items():
            expect(not close(found, mistake), hint)
        n_found, n_right = (found > 0).sum(dim=-1), (case.right > 0).sum(dim=-1)
        fewer, more = (n_found < n_right).any(), (n_found > n_right).any()
        expect(not fewer, "The word that crosses p was dropped: what is kept must reach p.")
        expect(not more, "Too many words are kept: stop as soon as the sum reaches p.")
        expect(
            False,
            "The right number of words, but wrong probabilities: keep the likeliest "
            "ones, and their proportions.",
        )


def _top_p_case(generator: Generator, batch: int, size: int, p: float) -> Case:
    """Draw rows in which no sum falls on p, and in one of which several words are kept."""
    while True:
        probabilities = (torch.randn(batch, size, generator=generator) * 2).softmax(dim=-1)
        ranked, order = probabilities.sort(dim=-1, descending=True)
        total = ranked.cumsum(dim=-1)
        cut = ranked * (total - ranked < p)
        if (total - p).abs().min() > 1e-3 and (cut > 0).sum(dim=-1).max() > 1:
            break
    in_place = torch.zeros_like(cut).scatter(-1, order, cut)
    whole = in_place.sum(dim=-1, keepdim=True)
    mistakes = {
        "Still sorted: put each probability back in its own place.": cut / whole,
        "The rows do not add up to 1: divide by what is left.": in_place,
        "Too many words are kept: all of them. Stop as soon as the sum reaches p.": probabilities,
    }
    return Case((probabilities, p), in_place / whole, mistakes)


@check("One mask joins both conditions, and it acts before the softmax, so that rows add up to 1.")
def causal_weights(answer: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Check causal attention weights that leave out padding at the end."""
    generator = Generator().manual_seed(seed)
    for batch, seq_len in ((1, 4), (2, 6), (3, 9)):
        case = draw(_weights_case, generator, batch, seq_len)
        scores, real = case.given
        weights = torch.from_numpy(array(answer(scores.clone(), real.clone())))
        expect(weights.shape == scores.shape, f"Expected the shape {tuple(scores.shape)}.")
        _judge_weights(weights, case)


def _weights_case(generator: Generator, batch: int, seq_len: int) -> Case:
    scores = torch.randn(batch, seq_len, seq_len, generator=generator) * 2
    real = torch.arange(seq_len) < torch.randint(3, seq_len, (batch, 1), generator=generator)
    causal = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
    mistakes = {
        "Some weight goes to padding: mask the columns where `real` is False, too.": (
            causal.softmax(dim=-1)  # `real` is not used
        )
    }
    right = causal.masked_fill(~real[:, None], float("-inf")).softmax(dim=-1)
    return Case((scores, real), right, mistakes)


def _judge_weights(weights: Tensor, case: Case) -> None:
    """Judge the rows of real tokens; those of padding may hold anything that adds up to 1."""
    real = case.given[1]
    rows = real[:, :, None].expand_as(weights)
    later = torch.ones_like(weights).triu(diagonal=1).bool()
    _expect_causal(weights, rows & later, rows & ~later)
    hint = "The rows do not add up to 1: mask the scores before the softmax, not after."
    expect(close(weights.sum(dim=-1), torch.ones(real.shape)), hint)
    for hint, mistake in case.mistakes.items():
        expect(not close(weights, mistake), hint)
    hint = "The right cells, but other weights: take the softmax over the last dimension."
    expect(close(weights[rows], case.right[rows]), hint)


def _expect_causal(weights: Tensor, later: Tensor, allowed: Tensor) -> None:
    """Expect weights on all allowed cells, and none on later tokens."""
    peeks = (weights[later].abs() > 1e-6).any()
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
