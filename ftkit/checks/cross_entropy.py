"""Checks of notebook 03: softmax, cross-entropy from logits, token loss, perplexity, gradient."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everyone uses)
from torch import Tensor

from ftkit.checks import check, expect

Function = Callable[..., Any]


@check("Subtracting each row's largest logit changes no probability, and no power overflows.")
def softmax(answer: Function) -> None:
    """Check a softmax over the last axis: values, axis, and large logits."""
    for shape in ((4, 7), (6, 3), (2, 5, 4)):
        logits = 2 * torch.randn(shape)
        mistakes = {
            "you divide by a sum over the rows: the classes stand in the last axis, so sum over "
            "dim=-1 (with keepdim=True).": torch.softmax(logits, dim=0),
            "you divide by the sum of the whole batch: each row is a distribution of its own, so "
            "sum over dim=-1 with keepdim=True.": logits.exp() / logits.exp().sum(),
            "these are log-probabilities; softmax gives the probabilities.": logits.log_softmax(-1),
        }
        otherwise = "e to each logit, divided by the sum of these powers in its row: not yet."
        _judge(answer(logits.clone()), torch.softmax(logits, dim=-1), mistakes, otherwise)
    large = 1000 + torch.randn(1, 5)
    expect(
        _close(answer(large.clone()), torch.softmax(large, dim=-1)),
        "logits of 1000 overflow: e^1000 is inf in float32 and inf/inf is nan. Subtract the "
        "largest logit first.",
    )
    mixed = torch.cat([large, large - 1000])
    expect(
        _close(answer(mixed.clone()), torch.softmax(mixed, dim=-1)),
        "you subtract the largest logit of the whole batch, so all powers of a row far below it "
        "are 0 and 0/0 is nan. Subtract each row's own: dim=-1, keepdim=True.",
    )


@check("log p = z - logsumexp(z): one safe step from logits to log-probabilities.")
def cross_entropy(answer: Function) -> None:
    """Check the mean cross-entropy of logits (rows, classes): values, unit, and large logits."""
    otherwise = "pick each row's log-probability of the true class, take minus the mean: not yet."
    for rows, classes in ((2, 3), (5, 4), (8, 2)):
        logits, labels = 2 * torch.randn(rows, classes), torch.randint(classes, (rows,))
        expected, mistakes = F.cross_entropy(logits, labels), _wrong_losses(logits, labels)
        _judge(answer(logits.clone(), labels), expected, mistakes, otherwise)
    far = torch.tensor([[500.0, -500.0], [0.0, 1.0]]) + torch.rand(2, 2)
    labels = torch.tensor([1, 0])
    expect(
        _close(answer(far.clone(), labels), F.cross_entropy(far, labels)),
        "with logits of 500 and -500 a probability is rounded to 0 and its logarithm is infinite. "
        "Do not take the log of a softmax: subtract the logsumexp from the logits.",
    )


def _wrong_losses(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return what each known mistake makes of the mean cross-entropy."""
    loss, p = F.cross_entropy(logits, labels), torch.softmax(logits, dim=-1)
    return {
        "a logarithm of a probability is negative: a minus is missing.": -loss,
        "this is the sum over the rows: take the mean, or the loss grows with the batch.": (
            loss * len(labels)
        ),
        "this is in bits: nats take the natural logarithm, log, not log2.": loss / math.log(2),
        "softmax is applied twice: log-softmax takes the raw logits.": F.cross_entropy(p, labels),
        "take the logarithm of each row first, then the mean.": (
            -p[torch.arange(len(labels)), labels].mean().log()
        ),
    }


@check("The sum over the labelled tokens, divided by their number: no padding, no sentence means.")
def token_loss(answer: Function) -> None:
    """Check the mean over tokens of ragged sequences padded with -100."""
    for lengths in ((9, 2, 1), (5, 4), (12, 3, 7, 1)):
        logits, labels = _ragged(lengths)
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        expected = losses.sum() / sum(lengths)
        as_token_0 = F.cross_entropy(logits.transpose(1, 2), labels.clamp(min=0))
        mistakes = {
            "the padding is learnt: positions labelled -100 add to your loss.": as_token_0,
            "you divide by all positions, padding too: divide by the number of labels that are "
            "not -100.": losses.mean(),
            "this is the mean of the sentences' means, in which a token of a short sentence "
            "weighs more: take one mean over all tokens.": (
                losses.sum(dim=1) / torch.tensor(lengths)
            ).mean(),
            "this is the sum over the tokens: divide by their number.": losses.sum(),
        }
        otherwise = "sum the losses of the labelled tokens and divide by their number: not yet."
        _judge(answer(logits.clone(), labels.clone()), expected, mistakes, otherwise)


def _ragged(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return random logits (batch, longest, 11) and labels padded with -100."""
    logits = 2 * torch.randn(len(lengths), max(lengths), 11)
    labels = torch.randint(11, logits.shape[:2])
    for row, length in enumerate(lengths):
        labels[row, length:] = -100
    return logits, labels


@check("Average in nats, weighed by tokens; take the exponential once, at the end.")
def perplexity(answer: Function) -> None:
    """Check a perplexity from the mean losses of batches and their numbers of tokens."""
    for batches in (2, 5, 9):
        losses = torch.linspace(1, 4, batches) + 0.2 * torch.rand(batches)
        counts = 200 * torch.arange(1, batches + 1) + torch.randint(100, (batches,))
        mean = (losses * counts).sum() / counts.sum()
        mistakes = {
            "this is the cross-entropy: perplexity is e to its power.": mean,
            "the losses are in nats, so the base is e, not 2.": 2**mean,
            "the batches hold different numbers of tokens: weigh each loss by its count.": (
                losses.mean().exp()
            ),
            "you average perplexities: average the losses first, then take exp once.": (
                (losses.exp() * counts).sum() / counts.sum()
            ),
            "you average the batches' perplexities, and without their counts: average the losses, "
            "weighed by tokens, then take exp once.": losses.exp().mean(),
            "minus the loss is not wanted: the losses are positive already.": (-mean).exp(),
        }
        otherwise = "e to the power of the mean loss over all tokens: not yet."
        _judge(answer(losses.clone(), counts.clone()), mean.exp(), mistakes, otherwise)


@check("p - y over the number of labelled rows; a row without a label pulls at nothing.")
def gradient(answer: Function) -> None:
    """Check the gradient of the mean cross-entropy in the logits, also with labels of -100."""
    for rows, classes, ignored in ((3, 4, 0), (6, 2, 0), (7, 5, 3)):
        logits, labels = 2 * torch.randn(rows, classes), torch.randint(classes, (rows,))
        labels[torch.randperm(rows)[:ignored]] = -100
        counted = (labels != -100)[:, None]
        p, y = torch.softmax(logits, dim=-1), F.one_hot(labels.clamp(min=0), classes)
        right, number = (p - y) * counted, rows - ignored
        sign = "the sign is turned: what the model said minus what is true, p - y."
        mistakes = {
            sign: -right / number,
            f"{sign} And divide by N.": -right,
            "1/N is missing: the loss is a mean, so each row's share is divided by N.": right,
            "p alone is not the gradient: subtract 1 at the true class.": p * counted / number,
            "rows labelled -100 do not count in N either.": right / rows,
            "a row labelled -100 has no loss, so its gradient is 0.": (p - y) / number,
            "a row labelled -100 has no loss: its gradient is 0, and N leaves it out.": (
                (p - y) / rows
            ),
        }
        otherwise = "softmax of the logits minus the one-hot label, divided by N: not yet."
        _judge(answer(logits.clone(), labels.clone()), right / number, mistakes, otherwise)


def _judge(value: Any, expected: Tensor, mistakes: dict[str, Tensor], otherwise: str) -> None:
    """Return where the value is right; else give the hint of the mistake that it equals."""
    if _close(value, expected):
        return
    shape = tuple(torch.as_tensor(value).shape)
    expect(
        shape == tuple(expected.shape),
        f"the shape is {shape}; expected {tuple(expected.shape) or '(), one number'}.",
    )
    for hint, mistake in mistakes.items():
        expect(not _close(value, mistake), hint)
    expect(False, otherwise)


def _close(value: Any, expected: Tensor) -> bool:
    tensor = torch.as_tensor(value).detach().double()
    return tensor.shape == expected.shape and torch.allclose(
        tensor, expected.double(), rtol=1e-4, atol=1e-5
    )
