"""Right and wrong answers to the exercises on cross entropy."""

import math

import numpy as np
import torch
from torch.nn.functional import cross_entropy, one_hot


def right_softmax(logits):
    powers = (logits - logits.amax(dim=-1, keepdim=True)).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def powers_over(dim):
    def answer(logits):
        powers = (logits - logits.max()).exp()
        return powers / (powers.sum() if dim is None else powers.sum(dim, keepdim=True))

    return answer


def overflows(logits):
    return logits.exp() / logits.exp().sum(dim=-1, keepdim=True)


def right_cross_entropy(logits, labels):
    log_probabilities = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
    return -log_probabilities[torch.arange(len(labels)), labels].mean()


def log_of_softmax(logits, labels):
    return -right_softmax(logits)[torch.arange(len(labels)), labels].log().mean()


def token_losses(logits, labels):
    losses = logits.logsumexp(-1) - logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return losses * (labels != -100)


def right_token_loss(logits, labels):
    return token_losses(logits, labels).sum() / (labels != -100).sum()


def mean_of_means(logits, labels):
    return (token_losses(logits, labels).sum(dim=1) / (labels != -100).sum(dim=1)).mean()


def padding_learnt(logits, labels):
    return cross_entropy(logits.flatten(0, 1), labels.clamp(min=0).flatten())


def right_perplexity(mean_losses, counts):
    return ((mean_losses * counts).sum() / counts.sum()).exp()


def right_gradient(logits, labels):
    counted = labels != -100
    pull = right_softmax(logits) - one_hot(labels.clamp(min=0), logits.shape[-1])
    return pull * counted[:, None] / counted.sum()


def pull_of_all(logits, labels):
    return right_softmax(logits) - one_hot(labels.clamp(min=0), logits.shape[-1])


CASES = {
    "softmax": (
        right_softmax,
        [
            (powers_over(0), "you divide by a sum over the rows"),
            (powers_over(None), "the sum of the whole batch"),
            (powers_over(-1), "largest logit of the whole batch"),
            (overflows, "overflow"),
            (lambda logits: logits.log_softmax(-1), "log-probabilities"),
            (lambda logits: logits / logits.sum(-1, keepdim=True), "e to each logit"),
        ],
    ),
    "cross_entropy": (
        right_cross_entropy,
        [
            (log_of_softmax, "Do not take the log of a softmax"),
            (lambda z, y: right_cross_entropy(z, y) * len(y), "the sum over the rows"),
            (lambda z, y: right_cross_entropy(z, y) / 0.6931472, "in bits"),
            (lambda z, y: -right_cross_entropy(z, y), "a minus is missing"),
            (lambda z, y: right_cross_entropy(z.softmax(-1), y), "applied twice"),
            (lambda z, y: cross_entropy(z, y, reduction="none"), "the shape is"),
        ],
    ),
    "token_loss": (
        right_token_loss,
        [
            (padding_learnt, "the padding is learnt"),
            (lambda z, y: token_losses(z, y).mean(), "divide by all positions"),
            (mean_of_means, "the mean of the sentences' means"),
            (lambda z, y: token_losses(z, y).sum(), "the sum over the tokens"),
        ],
    ),
    "perplexity": (
        right_perplexity,
        [
            (lambda losses, counts: losses.mean().exp(), "weigh each loss by its count"),
            (lambda losses, counts: losses.exp().mean(), "without their counts"),
            (lambda losses, counts: 2 ** right_perplexity(losses, counts).log(), "not 2"),
            (lambda losses, counts: right_perplexity(losses, counts).log(), "is e to its power"),
        ],
    ),
    "gradient": (
        right_gradient,
        [
            (lambda z, y: -right_gradient(z, y), "the sign is turned"),
            (lambda z, y: right_gradient(z, y) * (y != -100).sum(), "1/N is missing"),
            (lambda z, y: right_softmax(z) / len(y), "p alone"),
            (lambda z, y: pull_of_all(z, y) / (y != -100).sum(), "so its gradient is 0"),
            (lambda z, y: right_gradient(z, y) * (y != -100).float().mean(), "count in N either"),
        ],
    ),
}


def softmax_in_numpy(logits):
    powers = np.exp(logits.numpy() - logits.numpy().max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def softmax_by_rows(logits):
    if logits.ndim > 1:
        return torch.stack([softmax_by_rows(row) for row in logits])
    powers = [math.exp(z) for z in (logits - max(logits)).tolist()]
    return torch.tensor([power / sum(powers) for power in powers])


def cross_entropy_in_numpy(logits, labels):
    z, y = logits.double().numpy(), labels.numpy()
    top = z.max(axis=1, keepdims=True)
    log_sums = top[:, 0] + np.log(np.exp(z - top).sum(axis=1))
    return np.mean(log_sums - z[range(len(y)), y])


def cross_entropy_in_a_loop(logits, labels):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total += (torch.logsumexp(row, dim=0) - row[label]).item()
    return total / len(labels)


def token_loss_in_a_loop(logits, labels):
    losses = [
        (row.logsumexp(0) - row[label]).item()
        for rows, row_labels in zip(logits, labels, strict=True)
        for row, label in zip(rows, row_labels, strict=True)
        if label >= 0
    ]
    return sum(losses) / len(losses)


def token_loss_of_the_labelled(logits, labels):
    counted = labels != -100
    return right_cross_entropy(logits[counted], labels[counted])


def gradient_in_numpy(logits, labels):
    p, y = softmax_in_numpy(logits), labels.numpy()
    rows = np.flatnonzero(y >= 0)
    p[rows, y[rows]] -= 1
    p[y < 0] = 0
    return p / len(rows)


def gradient_in_a_loop(logits, labels):
    n = (labels >= 0).sum()
    rows = [[0.0] * logits.shape[1] for _ in labels]
    for i, label in enumerate(labels.tolist()):
        for k, p in enumerate(right_softmax(logits[i]).tolist()):
            rows[i][k] = (p - (k == label)) / n if label >= 0 else 0.0
    return rows


def gradient_by_autograd(logits, labels):
    logits = logits.clone().requires_grad_()
    cross_entropy(logits, labels, ignore_index=-100).backward()
    return logits.grad


ALTERNATIVES = {
    "softmax": [
        softmax_in_numpy,
        softmax_by_rows,
        lambda logits: (logits - logits.logsumexp(-1, keepdim=True)).exp(),
        lambda logits: right_softmax(logits.double()).tolist(),
    ],
    "cross_entropy": [
        cross_entropy_in_numpy,
        cross_entropy_in_a_loop,
        lambda z, y: (z.logsumexp(-1) - z.gather(1, y[:, None])[:, 0]).mean(),
    ],
    "token_loss": [
        token_loss_in_a_loop,
        token_loss_of_the_labelled,
        lambda z, y: cross_entropy(z.transpose(1, 2), y),
    ],
    "perplexity": [
        lambda losses, counts: np.exp(np.average(losses.numpy(), weights=counts.numpy())),
        lambda losses, counts: math.exp(
            sum(x * n for x, n in zip(losses.tolist(), counts.tolist(), strict=True))
            / sum(counts.tolist())
        ),
        lambda losses, counts: torch.exp(losses @ (counts / counts.sum())),
    ],
    "gradient": [gradient_in_numpy, gradient_in_a_loop, gradient_by_autograd],
}
