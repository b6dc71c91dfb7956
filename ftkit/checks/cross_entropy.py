"""Checks of notebook 03: softmax, cross-entropy from logits, token loss, perplexity, gradient."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everyone uses)
from torch import Generator

from ftkit.checks import Case, ask, check, draw

Function = Callable[..., Any]
LARGE = 1e-3  # tolerance where logits are large: float32 rounds 1000 to the fourth decimal


@check("Subtracting each row's largest logit changes no probability, and no power overflows.")
def softmax(answer: Function, seed: int = 0) -> None:
    """Check a softmax over the last axis: values, axis, and large logits."""
    generator = Generator().manual_seed(seed)
    otherwise = "e to each logit, divided by the sum of these powers in its row: not yet."
    for shape in ((4, 7), (6, 3), (2, 5, 4)):
        ask(answer, draw(_softmax_case, generator, shape), otherwise=otherwise)
    single = torch.randn(5, generator=generator)
    ask(answer, Case((single,), single.softmax(-1)), otherwise=otherwise)
    large = 1000 + torch.randn(1, 5, generator=generator)
    overflow = (
        "logits of 1000 overflow: e^1000 is inf in float32 and inf/inf is nan. Subtract the "
        "largest logit first."
    )
    ask(answer, Case((large,), large.softmax(-1)), otherwise=overflow, tolerance=LARGE)
    mixed = torch.cat([large, large - 1000])
    of_all = (
        "you subtract the largest logit of the whole batch, so all powers of a row far below it "
        "are 0 and 0/0 is nan. Subtract each row's own: dim=-1, keepdim=True."
    )
    ask(answer, Case((mixed,), mixed.softmax(-1)), otherwise=of_all, tolerance=LARGE)


def _softmax_case(generator: Generator, shape: tuple[int, ...]) -> Case:
    logits = 2 * torch.randn(shape, generator=generator)
    mistakes = {
        "you divide by a sum over the rows: the classes stand in the last axis, so sum over "
        "dim=-1 (with keepdim=True).": torch.softmax(logits, dim=0),
        "you divide by the sum of the whole batch: each row is a distribution of its own, so "
        "sum over dim=-1 with keepdim=True.": logits.exp() / logits.exp().sum(),
        "these are log-probabilities; softmax gives the probabilities.": logits.log_softmax(-1),
    }
    if logits.ndim == 3:
        mistakes["dim=1 is the last axis of a matrix only: take dim=-1."] = logits.softmax(1)
    return Case((logits,), torch.softmax(logits, dim=-1), mistakes)


@check("log p = z - logsumexp(z): one safe step from logits to log-probabilities.")
def cross_entropy(answer: Function, seed: int = 0) -> None:
    """Check the mean cross-entropy of logits (rows, classes): values, unit, and large logits."""
    generator = Generator().manual_seed(seed)
    ask(
        answer,
        *(draw(_loss_case, generator, *shape) for shape in ((2, 3), (5, 4), (8, 2))),
        otherwise="pick each row's log-probability of the true class, take minus the mean: "
        "not yet.",
    )
    far = torch.tensor([[500.0, -500.0], [0.0, 1.0]]) + torch.rand(2, 2, generator=generator)
    labels = torch.tensor([1, 0])
    ask(
        answer,
        Case((far, labels), F.cross_entropy(far, labels)),
        otherwise="with logits of 500 and -500 a probability is rounded to 0 and its logarithm is "
        "infinite. Do not take the log of a softmax: subtract the logsumexp from the logits.",
    )


def _loss_case(generator: Generator, rows: int, classes: int) -> Case:
    logits = 2 * torch.randn(rows, classes, generator=generator)
    labels = torch.randint(classes, (rows,), generator=generator)
    loss, p = F.cross_entropy(logits, labels), torch.softmax(logits, dim=-1)
    mistakes = {
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
    return Case((logits, labels), loss, mistakes)


@check("The sum over the labelled tokens, divided by their number: no padding, no sentence means.")
def token_loss(answer: Function, seed: int = 0) -> None:
    """Check the mean over tokens of ragged sequences padded with -100."""
    generator = Generator().manual_seed(seed)
    ask(
        answer,
        *(draw(_ragged_case, generator, n) for n in ((9, 2, 1), (5, 4), (12, 3, 7, 1))),
        otherwise="sum the losses of the labelled tokens and divide by their number: not yet.",
    )


def _ragged_case(generator: Generator, lengths: tuple[int, ...]) -> Case:
    """Draw logits (batch, longest, 11) and labels padded with -100."""
    logits = 2 * torch.randn(len(lengths), max(lengths), 11, generator=generator)
    labels = torch.randint(11, logits.shape[:2], generator=generator)
    for row, length in enumerate(lengths):
        labels[row, length:] = -100
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    mistakes = {
        "the padding is learnt: positions labelled -100 add to your loss.": (
            F.cross_entropy(logits.transpose(1, 2), labels.clamp(min=0))
        ),
        "you divide by all positions, padding too: divide by the number of labels that are "
        "not -100.": losses.mean(),
        "this is the mean of the sentences' means, in which a token of a short sentence "
        "weighs more: take one mean over all tokens.": (
            losses.sum(dim=1) / torch.tensor(lengths)
        ).mean(),
        "this is the sum over the tokens: divide by their number.": losses.sum(),
    }
    return Case((logits, labels), losses.sum() / sum(lengths), mistakes)


@check("Average in nats, weighed by tokens; take the exponential once, at the end.")
def perplexity(answer: Function, seed: int = 0) -> None:
    """Check a perplexity from the mean losses of batches and their numbers of tokens."""
    generator = Generator().manual_seed(seed)
    ask(
        answer,
        *(draw(_batches_case, generator, batches) for batches in (2, 5, 9)),
        otherwise="e to the power of the mean loss over all tokens: not yet.",
    )


def _batches_case(generator: Generator, batches: int) -> Case:
    losses = torch.linspace(1, 4, batches) + 0.2 * torch.rand(batches, generator=generator)
    more = torch.randint(100, (batches,), generator=generator)
    counts = 200 * torch.arange(1, batches + 1) + more
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
    return Case((losses, counts), mean.exp(), mistakes)


@check("p - y over the number of labelled rows; a row without a label pulls at nothing.")
def gradient(answer: Function, seed: int = 0) -> None:
    """Check the gradient of the mean cross-entropy in the logits, also with labels of -100."""
    generator = Generator().manual_seed(seed)
    otherwise = "softmax of the logits minus the one-hot label, divided by N: not yet."
    for size in ((3, 4, 0), (6, 2, 0), (7, 5, 3)):
        ask(answer, draw(_gradient_case, generator, *size), otherwise=otherwise)


def _gradient_case(generator: Generator, rows: int, classes: int, ignored: int) -> Case:
    logits = 2 * torch.randn(rows, classes, generator=generator)
    labels = torch.randint(classes, (rows,), generator=generator)
    labels[torch.randperm(rows, generator=generator)[:ignored]] = -100
    counted = (labels != -100)[:, None]
    p, y = torch.softmax(logits, dim=-1), F.one_hot(labels.clamp(min=0), classes)
    right, labelled = (p - y) * counted, rows - ignored
    sign = "the sign is turned: what the model said minus what is true, p - y."
    mistakes = {
        sign: -right / labelled,
        f"{sign} And divide by N.": -right,
        "1/N is missing: the loss is a mean, so each row's share is divided by N.": right,
        "p alone is not the gradient: subtract 1 at the true class.": p * counted / labelled,
    }
    if ignored:
        mistakes |= {
            "rows labelled -100 do not count in N either.": right / rows,
            "a row labelled -100 has no loss, so its gradient is 0.": (p - y) / labelled,
            "a row labelled -100 has no loss: its gradient is 0, and N leaves it out.": (
                (p - y) / rows
            ),
        }
    return Case((logits, labels), right / labelled, mistakes)
