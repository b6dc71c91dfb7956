"""Checks of notebook 05: attention mask, number of updates, schedule, training step, prediction."""

import copy
import math
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everyone uses)
from torch import Generator, Tensor, nn

from ftkit.checks import Case, ask, check, close, draw, expect, integers, judge, number

Function = Callable[..., Any]


@check("The mask comes from the lengths alone; which id pads does not matter to the model.")
def attention_mask(answer: Function, seed: int = 0) -> None:
    """Check the mask of ragged lists of token ids: 1 for a token, 0 for padding after it."""
    rng = random.Random(seed)
    for lengths in ((3, 7, 5), (1, 4), (6, 2, 9, 9, 3)):
        rows = [[rng.randint(1, 999) for _ in range(length)] for length in lengths]
        shape = (len(lengths), max(lengths))
        mask = integers(answer([list(row) for row in rows]))
        expect(
            tuple(mask.shape) == shape,
            f"the shape is {tuple(mask.shape)}; expected (rows, longest row), here {shape}.",
        )
        expected = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        mistakes = {
            "the other way round: 1 stands for a token, 0 for padding.": 1 - expected,
            "you mark every place: the padding must get 0, or the model reads it.": expected**0,
            "your padding stands on the left: BERT's tokens start at place 0.": expected.flip(1),
        }
        judge(mask, expected, mistakes, "as many 1s as the row has tokens, then 0s.")
    ask(
        answer,
        Case(([[7, 0, 9], [5]],), [[1, 1, 1], [1, 0, 0]]),
        otherwise="you take every id 0 for padding, but in some vocabularies (GPT-2's) 0 is a real "
        "token. Go by the length of each row.",
    )


@check("A short last batch is an update too, in every epoch: round up, then multiply.")
def optimizer_steps(answer: Function, seed: int = 0) -> None:
    """Check the number of updates of a run, from rows, batch size, accumulation and epochs."""
    rng = random.Random(seed)
    for _ in range(5):
        case = draw(_steps_case, rng)
        rows, size, parts, epochs = case.given
        steps = number(answer(*case.given))
        expect(steps == int(steps), "not a whole number: round up within an epoch.")
        judge(
            steps,
            case.right,
            case.mistakes,
            "rows of a group, groups of an epoch, epochs: not yet.",
        )
        ask(
            answer,
            Case((rows - 1, size, parts, epochs), case.right - epochs),
            otherwise="where the rows divide evenly there is no extra update: use math.ceil, not "
            "// 1 + 1.",
        )


def _steps_case(rng: random.Random) -> Case:
    size, parts = rng.randint(3, 8), rng.randint(2, 4)
    epochs, full = rng.randint(2, 5), rng.randint(2, 9)
    rows = size * parts * full + 1
    mistakes = {
        "the last rows of an epoch are dropped: fewer rows than a group are an update too.": full
        * epochs,
        "you count micro-batches: one update collects several.": math.ceil(rows / size) * epochs,
        "a group never reaches into the next epoch: round up within one epoch, then multiply "
        "by the epochs.": math.ceil(rows * epochs / size / parts),
        "this is one epoch: multiply by their number.": full + 1,
    }
    return Case((rows, size, parts, epochs), (full + 1) * epochs, mistakes)


@check("Up from 0 to the peak, down to 0: the only thing that changes between two updates.")
def learning_rate(answer: Function, seed: int = 0) -> None:
    """Check a linear schedule with warm-up at every step, and without warm-up."""
    rng = random.Random(seed)
    for total, warmup in ((20, 2), (rng.randint(60, 99), rng.randint(5, 20))):
        peak = 1e-4 * rng.uniform(1, 9)
        rates = _rates(answer, range(total), total, warmup, peak)
        _judge_rates(rates, total, warmup, peak)
    for warmup, hint in (
        (0, "warmup_steps=0 must give the peak at step 0."),
        (0.1, "warmup_steps below 1 is a share of all steps: 0.1 of 50."),
    ):
        try:
            with np.errstate(all="ignore"):
                rates = _rates(answer, range(50), 50, warmup, 1.0)
        except ZeroDivisionError:
            rates = np.full(50, np.nan)
        expect(any(close(rates, right) for right in _right_rates(50, 50 * warmup, 1.0)), hint)


def _rates(answer: Function, steps: range, total: int, warmup: float, peak: float) -> np.ndarray:
    return np.array([number(answer(step, total, warmup, peak)) for step in steps])


def _right_rates(total: int, warmup: float, peak: float) -> list[np.ndarray]:
    """Return the rates that are 0 after the last step, as transformers has it, or at the last."""
    step = np.arange(total)
    up = step / warmup if warmup else np.ones(total)
    return [peak * np.minimum(up, (end - step) / (end - warmup)) for end in (total, total - 1)]


def _judge_rates(rates: np.ndarray, total: int, warmup: int, peak: float) -> None:
    rights = _right_rates(total, warmup, peak)
    if any(close(rates, right) for right in rights):
        return
    expect(
        not any(close(rates, right / peak) for right in rights),
        "these are shares of the peak: multiply by it.",
    )
    expect(not close(rates[0], peak), "the first rate is the peak: the warm-up is missing.")
    expect(
        not close(rates[0], peak / warmup),
        "steps count from 0: the first update has rate 0, as in transformers.",
    )
    expect(close(rates[:warmup], rights[0][:warmup]), "the warm-up is peak * step / warmup_steps.")
    expect(
        not close(rates[warmup:], peak * (1 - np.arange(warmup, total) / total)),
        "the rate jumps when the warm-up ends: count the way down from there, "
        "(step - warmup_steps) of (total_steps - warmup_steps).",
    )
    expect(False, "after the warm-up, a straight line from the peak to 0.")


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
def training_step(answer: Function, seed: int = 0) -> None:
    """Check one update of a model: value, order, cleared gradients, mode, and clipping."""
    model, reference, batches = _twins_and_batches(Generator().manual_seed(seed))
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, reference)]
    hints = (
        "the weights do not move as they should: first loss.backward(), then clip, then "
        "optimizer.step(); gradients are cleared before backward() or after step(), never between.",
        "the second update is off: the gradients of the first are still there, and backward() "
        "adds to them. Call optimizer.zero_grad().",
        "a long gradient is not cut: nn.utils.clip_grad_norm_(model.parameters(), 1.0) between "
        "backward() and step().",
    )
    for batch, hint in zip(batches, hints, strict=True):
        loss = answer(model, copy.deepcopy(batch), optimizers[0])
        expected, _ = _reference_step(reference, batch, optimizers[1])
        expect(
            not (isinstance(loss, Tensor) and loss.requires_grad),
            "the loss is still a tensor, and holds its graph: return loss.item().",
        )
        judge(loss, expected, otherwise="return the loss before the update.", tolerance=1e-4)
        expect(torch.allclose(model.linear.weight, reference.linear.weight, atol=1e-5), hint)
    expect(all(model.modes), "the model came in eval mode: model.train() switches dropout on.")


def _twins_and_batches(generator: Generator) -> tuple[_Toy, _Toy, list[dict[str, Tensor]]]:
    """Draw a model, its twin, two batches of short gradients and one of a long gradient."""
    while True:
        model = _Toy().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
        batches = [
            {
                "inputs": scale * torch.randn(8, 6, generator=generator),
                "labels": torch.randint(3, (8,), generator=generator),
            }
            for scale in (0.5, 0.5, 40.0)
        ]
        twin = copy.deepcopy(model)
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
        lengths = [_reference_step(twin, batch, optimizer)[1] for batch in batches]
        if min(lengths[:2]) > 0.1 and max(lengths[:2]) < 0.9 and lengths[2] > 2:
            return model, copy.deepcopy(model), batches


def _reference_step(
    model: _Toy, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[float, float]:
    """Return the loss before the update, and the length of the gradient before it is clipped."""
    optimizer.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    length = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item(), length.item()


@check("No dropout, no gradients, and the model goes back as it came.")
def predict(answer: Function, seed: int = 0) -> None:
    """Check a prediction: the logits of eval mode, no graph, and the mode put back."""
    generator = Generator().manual_seed(seed)
    for rows in (4, 9):
        model = _Toy(dropout=0.5)
        batch = {"inputs": torch.randn(rows, 6, generator=generator)}
        expected = model.linear(batch["inputs"])
        logits = answer(model, dict(batch))
        expect(not hasattr(logits, "logits"), "return outputs.logits, not all outputs.")
        judge(
            logits,
            expected,
            {"these are probabilities: return the logits.": expected.softmax(-1)},
            "dropout is on, so that each call answers differently: model.eval() first.",
            shape="return all logits, (rows, labels): no argmax here.",
        )
        expect(
            not (isinstance(logits, Tensor) and logits.requires_grad),
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
