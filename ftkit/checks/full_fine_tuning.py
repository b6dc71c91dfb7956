"""Checks of notebook 05: attention mask, number of updates, schedule, training step, prediction."""

import copy
import math
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everyone uses)
from torch import Tensor, nn

from ftkit.checks import check, expect

Function = Callable[..., Any]


@check("The mask comes from the lengths alone; which id pads does not matter to the model.")
def attention_mask(answer: Function) -> None:
    """Check the mask of ragged lists of token ids: 1 for a token, 0 for padding after it."""
    for lengths in ((3, 7, 5), (1, 4), (6, 2, 9, 9, 3)):
        rows = [torch.randint(1, 999, (length,)).tolist() for length in lengths]
        shape = (len(lengths), max(lengths))
        places, sizes = torch.arange(max(lengths)), torch.tensor(lengths)[:, None]
        expected = (places < sizes).long()
        mask = torch.as_tensor(answer([list(row) for row in rows]))
        expect(
            tuple(mask.shape) == shape,
            f"the shape is {tuple(mask.shape)}; expected (rows, longest row), here {shape}.",
        )
        hints = {
            "the other way round: 1 stands for a token, 0 for padding.": 1 - expected,
            "you mark every place: the padding must get 0, or the model reads it.": expected**0,
            "your padding stands on the left: BERT's tokens start at place 0.": expected.flip(1),
        }
        for hint, mistake in hints.items():
            expect(not torch.equal(mask.long(), mistake) or torch.equal(mistake, expected), hint)
        expect(torch.equal(mask.long(), expected), "as many 1s as the row has tokens, then 0s.")
    rows = [[7, 0, 9], [5]]
    expect(
        torch.as_tensor(answer(rows)).tolist() == [[1, 1, 1], [1, 0, 0]],
        "you take every id 0 for padding, but in some vocabularies (GPT-2's) 0 is a real token. "
        "Go by the length of each row.",
    )


@check("A short last batch is an update too, in every epoch: round up, then multiply.")
def optimizer_steps(answer: Function) -> None:
    """Check the number of updates of a run, from rows, batch size, accumulation and epochs."""
    for _ in range(5):
        size, parts = random.randint(3, 8), random.randint(2, 4)
        epochs, full = random.randint(2, 5), random.randint(2, 9)
        rows = size * parts * full + 1
        hints = {
            "the last rows of an epoch are dropped: fewer rows than a group are an update "
            "too.": full * epochs,
            "you count micro-batches: one update collects several.": math.ceil(rows / size)
            * epochs,
            "a group never reaches into the next epoch: round up within one epoch, then multiply "
            "by the epochs.": math.ceil(rows * epochs / size / parts),
            "this is one epoch: multiply by their number.": full + 1,
        }
        steps = answer(rows, size, parts, epochs)
        expect(steps == int(steps), "not a whole number: round up within an epoch.")
        for hint, mistake in hints.items():
            expect(not math.isclose(steps, mistake), hint)
        expect(
            steps == (full + 1) * epochs, "rows of a group, groups of an epoch, epochs: not yet."
        )
        expect(
            answer(size * parts * full, size, parts, epochs) == full * epochs,
            "where the rows divide evenly there is no extra update: use math.ceil, not // 1 + 1.",
        )


@check("Up from 0 to the peak, down to 0: the only thing that changes between two updates.")
def learning_rate(answer: Function) -> None:
    """Check a linear schedule with warm-up at every step, and without warm-up."""
    for total, warmup in ((20, 2), (random.randint(60, 99), random.randint(5, 20))):
        peak = 1e-4 * random.uniform(1, 9)
        rates = [answer(step, total, warmup, peak) for step in range(total)]
        down = [1 - (step - warmup) / (total - warmup) for step in range(total)]
        expected = [peak * min(step / warmup, down[step]) for step in range(total)]
        expect(
            not _close(rates, [e / peak for e in expected]),
            "these are shares of the peak: multiply by it.",
        )
        expect(
            not _close(rates[:1], [peak]),
            "the first rate is the peak: the warm-up is missing.",
        )
        expect(
            not _close(rates[:1], [peak / warmup]),
            "steps count from 0: the first update has rate 0, as in transformers.",
        )
        expect(
            _close(rates[:warmup], expected[:warmup]), "the warm-up is peak * step / warmup_steps."
        )
        expect(
            not _close(rates[warmup:], [peak * (1 - s / total) for s in range(warmup, total)]),
            "the rate jumps when the warm-up ends: count the way down from there, "
            "(step - warmup_steps) of (total_steps - warmup_steps).",
        )
        expect(_close(rates, expected), "after the warm-up, a straight line from the peak to 0.")
    expect(_works_without_warmup(answer), "warmup_steps=0 must give the peak at step 0.")
    expect(_takes_a_share(answer), "warmup_steps below 1 is a share of all steps: 0.1 of 50.")


def _takes_a_share(answer: Function) -> bool:
    return _close([answer(step, 50, 0.1, 1.0) for step in (0, 2, 5, 50)], [0, 0.4, 1, 0])


def _close(values: list[float], expected: list[float]) -> bool:
    pairs = zip(values, expected, strict=True)
    return all(math.isclose(v, e, rel_tol=1e-6, abs_tol=1e-12) for v, e in pairs)


def _works_without_warmup(answer: Function) -> bool:
    try:
        return _close([answer(0, 10, 0, 0.5), answer(5, 10, 0, 0.5)], [0.5, 0.25])
    except ZeroDivisionError:
        return False


class _Toy(nn.Module):
    """A classifier that is called as one of transformers, and remembers its mode."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(6, 3)
        self.modes: list[bool] = []

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> SimpleNamespace:
        self.modes.append(self.training)
        logits = self.linear(self.dropout(inputs))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)


@check("Clear, forward, backward, clip, step: every training loop is these five lines.")
def training_step(answer: Function) -> None:
    """Check one update of a model: value, order, cleared gradients, mode, and clipping."""
    model, reference = _twins()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, reference)]
    hints = (
        "the weights do not move as they should: first loss.backward(), then clip, then "
        "optimizer.step(); gradients are cleared before backward() or after step(), never between.",
        "the second update is off: the gradients of the first are still there, and backward() "
        "adds to them. Call optimizer.zero_grad().",
        "a long gradient is not cut: nn.utils.clip_grad_norm_(model.parameters(), 1.0) between "
        "backward() and step().",
    )
    for scale, hint in zip((0.5, 0.5, 40.0), hints, strict=True):
        batch = {"inputs": scale * torch.randn(8, 6), "labels": torch.randint(3, (8,))}
        loss = answer(model, batch, optimizers[0])
        expected = _reference_step(reference, batch, optimizers[1])
        expect(not isinstance(loss, Tensor), "the loss is still a tensor: return loss.item().")
        expect(math.isclose(loss, expected, rel_tol=1e-3), "return the loss before the update.")
        expect(torch.allclose(model.linear.weight, reference.linear.weight, atol=1e-5), hint)
    expect(all(model.modes), "the model came in eval mode: model.train() switches dropout on.")


def _twins() -> tuple[_Toy, _Toy]:
    model = _Toy().eval()
    return model, copy.deepcopy(model)


def _reference_step(model: _Toy, batch: dict[str, Tensor], optimizer: Any) -> float:
    optimizer.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@check("No dropout, no gradients, and the model goes back as it came.")
def predict(answer: Function) -> None:
    """Check a prediction: the logits of eval mode, no graph, and the mode put back."""
    for rows in (4, 9):
        model, batch = _Toy(dropout=0.5), {"inputs": torch.randn(rows, 6)}
        expected = model.linear(batch["inputs"])
        logits = answer(model, dict(batch))
        expect(isinstance(logits, Tensor), "return the tensor outputs.logits, not all outputs.")
        expect(logits.shape == expected.shape, "return all logits, (rows, labels): no argmax here.")
        expect(
            not torch.allclose(logits, expected.softmax(-1), atol=1e-5),
            "these are probabilities: return the logits.",
        )
        expect(
            torch.allclose(logits, expected, atol=1e-5),
            "dropout is on, so that each call answers differently: model.eval() first.",
        )
        expect(
            not logits.requires_grad,
            "the logits carry a graph for backward(): with torch.inference_mode(): needs less "
            "memory and time.",
        )
        expect(
            model.training,
            "the model came in train mode and is left in eval mode: the training that goes on "
            "would lack its dropout. Put the mode back.",
        )
        model.eval()
        answer(model, dict(batch))
        expect(not model.training, "the model came in eval mode and is left in train mode.")
