"""Right and wrong answers to the exercises on language models."""

import math
from collections import Counter
from itertools import pairwise

import torch
from torch.nn.functional import cosine_similarity


def bigram(tokens, first, second, k, *, below=lambda k, size: k * size, contexts=None):
    pairs = Counter(pairwise(tokens))
    context = contexts(tokens) if contexts else tokens[:-1].count(first)
    return (pairs[first, second] + k) / (context + below(k, len(set(tokens))))


def nats(sentences):
    return [-math.log(p) for sentence in sentences for p in sentence]


def mean(values):
    return sum(values) / len(values)


def text_perplexity(sentences):
    return math.exp(mean(nats(sentences)))


def neighbours(vectors, row, n, *, scores=None, skip=True, descending=True):
    scores = cosine_similarity(vectors, vectors[row][None]) if scores is None else scores
    order = scores.argsort(descending=descending).tolist()
    return [i for i in order if i != row or not skip][:n]


def top_p(probabilities, p, *, keep="cross", renormalise=True, unsort=True):
    ranked, order = probabilities.sort(dim=-1, descending=True)
    total = ranked.cumsum(dim=-1)
    kept = {"cross": total - ranked < p, "drop": total <= p, "all": total > -1}[keep]
    kept[:, 0] = True
    ranked = ranked * kept
    if renormalise:
        ranked = ranked / ranked.sum(dim=-1, keepdim=True)
    return torch.zeros_like(ranked).scatter(-1, order, ranked) if unsort else ranked


def drop_all(probabilities, p):
    """Drop the crossing word even where it is the first one, so that a row may be empty."""
    ranked, order = probabilities.sort(dim=-1, descending=True)
    ranked = ranked * (ranked.cumsum(dim=-1) <= p)
    return torch.zeros_like(ranked).scatter(-1, order, ranked / ranked.sum(dim=-1, keepdim=True))


def attention(scores, real, *, later=None, padding=None):
    later = torch.ones_like(scores).triu(1).bool() if later is None else later(scores)
    padding = ~real[:, None] if padding is None else padding(real)
    return scores.masked_fill(later | padding, float("-inf")).softmax(dim=-1)


def mask_after_softmax(scores, real):
    return scores.softmax(dim=-1) * torch.ones_like(scores).tril() * real[:, None]


CASES = {
    "bigram_probability": (
        bigram,
        [
            (lambda t, a, b, k: bigram(t, a, b, k, below=lambda k, size: k), "once for each word"),
            (
                lambda t, a, b, k: bigram(t, a, b, k, below=lambda k, size: 0),
                "Below the line k is missing",
            ),
            (lambda t, a, b, k: bigram(t, a, b, 0.0), "plain share"),
            (lambda t, a, b, k: bigram(t, a, b, k, contexts=lambda t: t.count(a)), "tokens[:-1]"),
            (lambda t, a, b, k: bigram(t, a, b, k, contexts=lambda t: len(t) - 1), "all pairs"),
            (lambda t, a, b, k: bigram(t, b, a, k), "wrong way round"),
            (lambda t, a, b, k: 0.5, "Expected"),
        ],
    ),
    "text_perplexity": (
        text_perplexity,
        [
            (lambda s: mean([math.exp(mean(nats([x]))) for x in s]), "mean of the sentences'"),
            (
                lambda s: math.exp(mean([mean(nats([x])) for x in s])),
                "every sentence counts the same",
            ),
            (lambda s: 2 ** mean(nats(s)), "natural logarithms go with exp"),
            (lambda s: math.exp(mean(nats(s)) / math.log(2)), "not with exp"),
            (lambda s: mean([1 / p for x in s for p in x]), "mean of 1 / p"),
            (lambda s: mean(nats(s)), "perplexity is its exponential"),
            (lambda s: math.exp(-mean(nats(s))), "Upside down"),
            (lambda s: math.exp(sum(nats(s))), "Expected"),
        ],
    ),
    "most_similar": (
        neighbours,
        [
            (lambda v, r, n: neighbours(v, r, n, scores=v @ v[r]), "dot products"),
            (lambda v, r, n: neighbours(v, r, n, skip=False), "itself came back"),
            (lambda v, r, n: neighbours(v, r, n, descending=False), "farthest"),
            (
                lambda v, r, n: neighbours(v, r, n, scores=-torch.cdist(v[r][None], v)[0]),
                "order of the distances",
            ),
            (lambda v, r, n: neighbours(v, r, n)[:-1], "rows, got"),
        ],
    ),
    "top_p": (
        top_p,
        [
            (lambda q, p: top_p(q, p, keep="drop"), "crosses p was dropped"),
            (drop_all, "crosses p was dropped"),
            (lambda q, p: top_p(q, p, renormalise=False), "divide by what is left"),
            (lambda q, p: top_p(q, p, unsort=False), "Still sorted"),
            (lambda q, p: top_p(q, p, keep="all"), "Too many words"),
        ],
    ),
    "causal_weights": (
        attention,
        [
            (
                lambda s, r: attention(s, r, later=lambda s: torch.ones_like(s).tril(-1).bool()),
                "wrong way round",
            ),
            (
                lambda s, r: attention(s, r).clone().triu(),
                "some of these weights are 0",
            ),
            (mask_after_softmax, "before the softmax"),
            (
                lambda s, r: attention(s, r, padding=lambda r: torch.tensor(False)),
                "goes to padding",
            ),
            (
                lambda s, r: attention(s, r, later=lambda s: torch.zeros_like(s).bool()),
                "above the diagonal",
            ),
            (
                lambda s, r: attention(s, r, later=lambda s: torch.ones_like(s).triu(0).bool()),
                "NaN",
            ),
        ],
    ),
}
