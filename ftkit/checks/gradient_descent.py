"""Checks of the exercises in notebook 02: gradient descent."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ftkit.checks import Case, array, ask, check, close, draw, expect, number

LossFn = Callable[[Tensor], Tensor]


@check("Every optimizer is a variation of this one line.")
def gradient_step(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Take one step of gradient descent: ``gradient_step(theta, gradient, learning_rate)``."""
    generator = Generator().manual_seed(seed)
    ask(
        answer,
        *(draw(_step_case, generator, size) for size in (1, 3, 50)),
        otherwise="θ becomes θ minus learning rate times gradient.",
        shape="There is one new value for each parameter.",
    )


def _step_case(generator: Generator, size: int) -> Case:
    theta, gradient = torch.randn(2, size, generator=generator) + torch.tensor([[0.0], [2.0]])
    rate = float(torch.rand(1, generator=generator)) / 2 + 0.1
    step = rate * gradient
    mistakes = {
        "With a plus you walk uphill: the loss grows.": theta + step,
        "Where is the learning rate? It scales the step.": theta - gradient,
        "That is the step alone. Return the θ that it leads to.": -step,
    }
    return Case((theta, gradient, rate), theta - step, mistakes)


@check("A slope measured from both sides is wrong by about h², from one side by about h.")
def measure_slope(answer: Callable[..., float], seed: int = 0) -> None:
    """Measure a slope by finite differences: ``measure_slope(loss_fn, theta)``."""
    rng = np.random.default_rng(seed)
    for _ in range(5):
        a, b, c = (rng.random(3) + 0.5).tolist()
        theta = float(rng.random()) + 1.0
        loss_fn = _RecordedCubic(a, b, c)
        result = number(answer(loss_fn, theta))
        _judge_slope(result, 3 * a * theta**2 + 2 * b * theta + c, theta, loss_fn.calls)


class _RecordedCubic:
    """A loss that remembers where it was asked for."""

    def __init__(self, a: float, b: float, c: float) -> None:
        self.factors, self.calls = (a, b, c), []

    def __call__(self, theta: Any) -> Any:
        self.calls.extend(array(theta).ravel().tolist())
        a, b, c = self.factors
        return a * theta**3 + b * theta**2 + c * theta


def _judge_slope(result: float, slope: float, theta: float, calls: list[float]) -> None:
    if math.isclose(result, slope, rel_tol=1e-3):  # h is free, and so is float32
        return
    expect(calls, "Ask loss_fn for the loss at points near theta; its formula is not known.")
    h, width = max(abs(at - theta) for at in calls), max(calls) - min(calls)
    expect(width > 0, "Two different points are needed: a slope is a change divided by a way.")
    undivided = math.isclose(result, slope * width, rel_tol=0.2)
    expect(
        not undivided or math.isclose(width, 1, rel_tol=0.2),
        "That is the change of the loss. Divide it by the way between the two points.",
    )
    expect(result > 0, "The sign is turned: take the loss on the right minus the one on the left.")
    one_sided = min(calls) >= theta or max(calls) <= theta
    expect(not one_sided, "Both points lie on one side of theta. Take one on each side.")
    expect(h < 5e-3, f"h is {h:.2g}: over so long a way the curve bends. Take about 1e-4.")
    expect(h > 1e-9, f"h is {h:.2g}: the two losses agree in nearly all digits. Take about 1e-4.")
    twice = math.isclose(result, 2 * slope, rel_tol=0.01)
    expect(not twice, "Twice the slope: from theta − h to theta + h the way is 2h, not h.")
    expect(False, "Not the slope. It is (L(θ + h) − L(θ − h)) / 2h with a small h.")


@check("Clear, loss, backward, step: the loop of this whole course.")
def train(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Train with autograd: ``train(loss_fn, theta, learning_rate, steps)``."""
    generator = Generator().manual_seed(seed)
    ask(
        answer,
        *(draw(_train_case, generator, size, steps) for size, steps in ((1, 3), (4, 5), (9, 8))),
        otherwise="That is not where gradient descent arrives.",
        shape="Return the trained theta, of the same shape.",
    )


def _train_case(generator: Generator, size: int, steps: int) -> Case:
    curvatures, target, way = torch.rand(3, size, generator=generator) + 0.5
    start, rate = target + way, 0.1
    cleared = _descend(curvatures, target, start, rate, steps + 1, clear=True)
    added = _descend(curvatures, target, start, rate, steps, clear=False)
    number_is_off = "Right direction, but the number of updates is not `steps`"
    mistakes = {
        "Nothing moved. Is the gradient cleared before the step?": start,
        "The gradients of all steps add up: backward() adds to .grad. Clear it in every step.": (
            added[-1]
        ),
        f"{number_is_off}: it is one.": cleared[1],
        f"{number_is_off}: one is missing.": cleared[steps - 1],
        f"{number_is_off}: it is one too many.": cleared[steps + 1],
    }
    return Case((_bowl(curvatures, target), start, rate, steps), cleared[steps], mistakes)


def _bowl(curvatures: Tensor, target: Tensor) -> LossFn:
    return lambda theta: 0.5 * (curvatures * (theta - target) ** 2).sum()


def _descend(
    curvatures: Tensor, target: Tensor, theta: Tensor, rate: float, steps: int, *, clear: bool
) -> list[Tensor]:
    gradient, path = torch.zeros_like(theta), [theta]
    for _ in range(steps):
        slope = curvatures * (theta - target)
        gradient = slope if clear else gradient + slope
        theta = theta - rate * gradient
        path.append(theta)
    return path


@check("A schedule is a function of the step alone, so a resumed run needs no memory of it.")
def warmup_cosine(answer: Callable[..., float], seed: int = 0) -> None:
    """Write warm-up and cosine decay: ``warmup_cosine(step, total_steps, warmup_steps)``."""
    rng = np.random.default_rng(seed)
    for _ in range(5):
        warmup = int(rng.integers(4, 20))
        total = warmup + 2 * int(rng.integers(10, 100))
        got = np.array([number(answer(step, total, warmup)) for step in range(total + 1)])
        _judge_schedule(got, warmup, total)


def _judge_schedule(got: np.ndarray, warmup: int, total: int) -> None:
    """Judge the factors of all steps."""
    progress = np.arange(total - warmup + 1) / (total - warmup)
    middle, late = len(progress) // 2, len(progress) // 4
    up, down = got[: warmup + 1], got[warmup:]
    expect(not got[0] > 0.5, "There is no warm-up: step 0 has to give 0.")
    expect(
        close(up[:-1], np.arange(warmup) / warmup),
        "In the warm-up the factor is step / warmup_steps: half way up it is 0.5.",
    )
    expect(got.max() < 1.5, "The factor climbs to 2: 1 + cos runs from 2 to 0. Halve it.")
    expect(
        close(up[-1], 1),
        "At the end of the warm-up the factor has to be 1. The cosine counts its progress from "
        "there, not from step 0.",
    )
    straight = close(down[late], 1 - progress[late])
    expect(not straight, "That decay is a straight line. A cosine starts flat, then falls.")
    expect(close(down[-1], 0), "At the last step the factor has to be 0.")
    expect(close(down[middle], 0.5), "Half way down, the factor is 0.5.")
    cosine = 0.5 * (1 + np.cos(np.pi * progress))
    expect(close(down, cosine), "That is not the shape of a cosine.")


@check("With the correction, the average of equal numbers is that number from the first step on.")
def corrected_averages(answer: Callable[..., Tensor], seed: int = 0) -> None:
    """Average with Adam's bias correction: ``corrected_averages(gradients, beta)``."""
    generator = Generator().manual_seed(seed)
    ask(
        answer,
        *(draw(_average_case, generator, *size) for size in ((6, 0.5), (40, 0.9))),
        otherwise="Running mean first, then divide by 1 − beta^t.",
        shape="There is one average for each gradient.",
    )
    single = torch.rand(1, dtype=torch.float64, generator=generator) + 1
    ask(answer, Case((single, 0.9), single), otherwise="The average of one number is that number.")


def _average_case(generator: Generator, size: int, beta: float) -> Case:
    gradients = torch.randn(size, dtype=torch.float64, generator=generator) + 3
    t, means = torch.arange(1, size + 1), _running_means(gradients, beta)
    mistakes = {
        "These averages start near 0: divide by 1 − beta^t.": means,
        "Division by zero: t counts from 1, not from 0.": means / (1 - beta ** (t - 1)),
        "t is one too large: after the first gradient t is 1.": means / (1 - beta ** (t + 1)),
        "The power is missing: beta to the t-th.": means / (1 - beta),
        "Each gradient enters with weight 1 − beta; without it the average grows too large.": (
            means / (1 - beta) / (1 - beta**t)
        ),
    }
    return Case((gradients, beta), means / (1 - beta**t), mistakes)


def _running_means(gradients: Iterable[Tensor], beta: float) -> Tensor:
    mean, means = torch.zeros((), dtype=torch.float64), []
    for gradient in gradients:
        mean = beta * mean + (1 - beta) * gradient
        means.append(mean)
    return torch.stack(means)
