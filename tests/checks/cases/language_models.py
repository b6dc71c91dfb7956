"""Right and wrong answers to the exercises on language models."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
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


def bigram_in_a_loop(tokens, first, second, k):
    n_pair = n_first = 0
    for i in range(len(tokens) - 1):
        if tokens[i] == first:
            n_first += 1
            n_pair += tokens[i + 1] == second
    return (n_pair + k) / (n_first + k * len(set(tokens)))


def bigram_in_numpy(tokens, first, second, k):
    words = np.array(tokens)
    context = words[:-1] == first
    above = (context & (words[1:] == second)).sum() + k
    return above / (context.sum() + k * np.unique(words).size)


def bigram_by_table(tokens, first, second, k):
    vocabulary = sorted(set(tokens))
    counts = torch.full((len(vocabulary), len(vocabulary)), float(k), dtype=torch.float32)
    for one, other in pairwise(tokens):
        counts[vocabulary.index(one), vocabulary.index(other)] += 1
    table = counts / counts.sum(dim=1, keepdim=True)
    return table[vocabulary.index(first), vocabulary.index(second)]


def neighbours_in_a_loop(vectors, row, n):
    def cosine(i):
        return float(vectors[i] @ vectors[row] / vectors[i].norm() / vectors[row].norm())

    others = [i for i in range(len(vectors)) if i != row]
    return tuple(sorted(others, key=cosine, reverse=True)[:n])


def neighbours_in_numpy(vectors, row, n):
    unit = vectors.numpy() / np.linalg.norm(vectors.numpy(), axis=1, keepdims=True)
    cosines = unit @ unit[row]
    cosines[row] = -np.inf
    return np.argsort(-cosines)[:n]


def neighbours_by_topk(vectors, row, n):
    cosines = cosine_similarity(vectors, vectors[row : row + 1])
    found = cosines.topk(n + 1).indices
    return found[found != row]


def top_p_in_a_loop(probabilities, p):
    rows = []
    for row in probabilities.tolist():
        kept, total = [0.0] * len(row), 0.0
        for i in sorted(range(len(row)), key=lambda i: -row[i]):
            if total >= p:
                break
            kept[i] = row[i]
            total += row[i]
        rows.append([value / total for value in kept])
    return rows


def top_p_in_numpy(probabilities, p):
    q = probabilities.numpy()
    order = np.argsort(-q, axis=1)
    ranked = np.take_along_axis(q, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    kept = np.zeros_like(q)
    np.put_along_axis(kept, order, np.where(before < p, ranked, 0), axis=1)
    return kept / kept.sum(axis=1, keepdims=True)


def top_p_by_threshold(probabilities, p):
    ranked = probabilities.sort(dim=-1, descending=True).values
    n_kept = (ranked.cumsum(dim=-1) < p).sum(dim=-1, keepdim=True)
    smallest = ranked.gather(-1, n_kept)
    kept = torch.where(probabilities >= smallest, probabilities, 0)
    return kept / kept.sum(dim=-1, keepdim=True)


def attention_with_uniform_padding(scores, real):
    weights = attention(scores, real)
    return torch.where(real[:, :, None], weights, 1 / scores.shape[-1])


def attention_with_padding_on_itself(scores, real):
    size = scores.shape[-1]
    allowed = torch.ones(size, size).tril().bool() & real[:, None] & real[:, :, None]
    allowed = allowed | torch.eye(size).bool()
    return scores.masked_fill(~allowed, -1e9).softmax(dim=-1)


def attention_in_a_loop(scores, real):
    weights = np.zeros(scores.shape)
    for b, i in np.ndindex(scores.shape[:2]):
        seen = [j for j in range(i + 1) if real[b, j]]
        powers = np.exp(scores[b, i, seen].numpy())
        weights[b, i, seen] = powers / powers.sum()
    return weights


def attention_by_lengths(scores, real):
    places = torch.arange(scores.shape[-1])
    lengths = real.sum(dim=1)[:, None, None]
    seen = (places[None, :, None] >= places) & (places < lengths)
    powers = scores.exp() * seen
    return powers / powers.sum(dim=-1, keepdim=True)


ALTERNATIVES = {
    "bigram_probability": [bigram_in_a_loop, bigram_in_numpy, bigram_by_table],
    "text_perplexity": [
        lambda s: 2 ** -mean([math.log2(p) for x in s for p in x]),
        lambda s: np.exp(-np.log(np.concatenate(s)).mean()),
        lambda s: torch.exp(-torch.cat([torch.tensor(x) for x in s]).log().mean()),
        lambda s: math.prod(p for x in s for p in x) ** (-1 / sum(map(len, s))),
    ],
    "most_similar": [neighbours_in_a_loop, neighbours_in_numpy, neighbours_by_topk],
    "top_p": [top_p_in_a_loop, top_p_in_numpy, top_p_by_threshold],
    "causal_weights": [
        attention_with_uniform_padding,
        attention_with_padding_on_itself,
        attention_in_a_loop,
        attention_by_lengths,
    ],
}
