"""Checks of the exercises in notebook 02: gradient descent."""

import math
from collections.abc import Callable

import numpy as np
import torch

from ftkit.checks import check, expect

LossFn = Callable[[torch.Tensor], torch.Tensor]


@check("Every optimizer is a variation of this one line.")
def gradient_step(answer: Callable[..., torch.Tensor]) -> None:
    """Take one step of gradient descent: ``gradient_step(theta, gradient, learning_rate)``."""
    for size in (1, 3, 50):
        theta, gradient = torch.randn(size), torch.randn(size) + 2
        rate = float(torch.rand(1)) / 2 + 0.1
        step = rate * gradient
        result = torch.as_tensor(answer(theta.clone(), gradient.clone(), rate))
        expect(result.shape == theta.shape, "There is one new value for each parameter.")
        expect(not _near(result, theta + step), "With a plus you walk uphill: the loss grows.")
        expect(
            not _near(result, theta - gradient), "Where is the learning rate? It scales the step."
        )
        expect(not _near(result, -step), "That is the step alone. Return the θ that it leads to.")
        expect(_near(result, theta - step), "θ becomes θ minus learning rate times gradient.")


@check("A slope measured from both sides is wrong by about h², from one side by about h.")
def measure_slope(answer: Callable[..., float]) -> None:
    """Measure a slope by finite differences: ``measure_slope(loss_fn, theta)``."""
    for _ in range(5):
        a, b, c = (torch.rand(3, dtype=torch.float64) + 0.5).tolist()
        theta = float(torch.rand(1)) + 1.0
        loss_fn = _RecordedCubic(a, b, c)
        result = float(answer(loss_fn, theta))
        _judge_slope(result, 3 * a * theta**2 + 2 * b * theta + c, theta, loss_fn.calls)


class _RecordedCubic:
    """A loss that remembers where it was asked for."""

    def __init__(self, a: float, b: float, c: float) -> None:
        self.factors, self.calls = (a, b, c), []

    def __call__(self, theta: float) -> float:
        self.calls.append(float(theta))
        a, b, c = self.factors
        return a * theta**3 + b * theta**2 + c * theta


def _judge_slope(result: float, slope: float, theta: float, calls: list[float]) -> None:
    if math.isclose(result, slope, rel_tol=1e-4):
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
def train(answer: Callable[..., torch.Tensor]) -> None:
    """Train with autograd: ``train(loss_fn, theta, learning_rate, steps)``."""
    for size, steps in ((1, 3), (4, 5), (9, 8)):
        curvatures, target = torch.rand(size) + 0.5, torch.randn(size)
        start, rate = target + torch.rand(size) + 1, 0.1
        result = answer(_bowl(curvatures, target), start.clone(), rate, steps)
        result = torch.as_tensor(result).detach()
        expect(result.shape == start.shape, "Return the trained theta, of the same shape.")
        expect(not _near(result, start), "Nothing moved. Is the gradient cleared before the step?")
        paths = {
            clear: _descend(curvatures, target, start, rate, steps + 1, clear=clear)
            for clear in (True, False)
        }
        expect(
            not _near(result, paths[False][steps]),
            "The gradients of all steps add up: backward() adds to .grad. Clear it in every step.",
        )
        off = [paths[True][1], paths[True][steps - 1], paths[True][steps + 1]]
        expect(
            not any(_near(result, other) for other in off),
            f"Right direction, but the number of updates is not {steps}.",
        )
        expect(_near(result, paths[True][steps]), "That is not where gradient descent arrives.")


def _bowl(curvatures: torch.Tensor, target: torch.Tensor) -> LossFn:
    return lambda theta: 0.5 * (curvatures * (theta - target) ** 2).sum()


def _descend(
    curvatures: torch.Tensor,
    target: torch.Tensor,
    theta: torch.Tensor,
    rate: float,
    steps: int,
    *,
    clear: bool,
) -> list[torch.Tensor]:
    gradient, path = torch.zeros_like(theta), [theta]
    for _ in range(steps):
        slope = curvatures * (theta - target)
        gradient = slope if clear else gradient + slope
        theta = theta - rate * gradient
        path.append(theta)
    return path


@check("A schedule is a function of the step alone, so a resumed run needs no memory of it.")
def warmup_cosine(answer: Callable[..., float]) -> None:
    """Write warm-up and cosine decay: ``warmup_cosine(step, total_steps, warmup_steps)``."""
    for _ in range(5):
        warmup = int(torch.randint(4, 20, ()))
        total = warmup + 2 * int(torch.randint(10, 100, ()))
        got = np.array([float(answer(step, total, warmup)) for step in range(total + 1)])
        middle = (warmup + total) // 2
        expect(not got[0] > 0.5, "There is no warm-up: step 0 has to give 0.")
        expect(math.isclose(got[warmup // 2], warmup // 2 / warmup, abs_tol=1e-6), _WARMUP_HINT)
        expect(got.max() < 1.5, "The factor climbs to 2: 1 + cos runs from 2 to 0. Halve it.")
        peak = got[warmup]
        expect(math.isclose(peak, 1, abs_tol=1e-6), _JUMP_HINT)
        quarter = got[warmup + (total - warmup) // 4]
        share = ((total - warmup) // 4) / (total - warmup)
        linear = math.isclose(quarter, 1 - share, abs_tol=1e-6)
        expect(not linear, "That decay is a straight line. A cosine starts flat, then falls.")
        expect(math.isclose(got[-1], 0, abs_tol=1e-6), "At the last step the factor has to be 0.")
        expect(math.isclose(got[middle], 0.5, abs_tol=1e-6), "Half way down, the factor is 0.5.")
        cosine = 0.5 * (1 + math.cos(math.pi * share))
        expect(math.isclose(quarter, cosine, abs_tol=1e-6), "That is not the shape of a cosine.")


_WARMUP_HINT = "In the warm-up the factor is step / warmup_steps: half way up it is 0.5."
_JUMP_HINT = (
    "At the end of the warm-up the factor has to be 1. The cosine counts its progress from there, "
    "not from step 0."
)


@check("With the correction, the average of equal numbers is that number from the first step on.")
def corrected_averages(answer: Callable[..., torch.Tensor]) -> None:
    """Average with Adam's bias correction: ``corrected_averages(gradients, beta)``."""
    for size, beta in ((1, 0.9), (6, 0.5), (40, 0.9)):
        gradients = torch.randn(size, dtype=torch.float64) + 3
        got = torch.as_tensor(answer(gradients.clone(), beta)).to(torch.float64)
        expect(got.shape == gradients.shape, "There is one average for each gradient.")
        t = torch.arange(1, size + 1)
        means = _running_means(gradients, beta)
        expect(not _near(got, means), "These averages start near 0: divide by 1 − beta^t.")
        expect(bool(got.isfinite().all()), "Division by zero: t counts from 1, not from 0.")
        late = means / (1 - beta ** (t + 1))
        expect(not _near(got, late), "t is one too large: after the first gradient t is 1.")
        constant = means / (1 - beta)
        expect(not (size > 1 and _near(got, constant)), "The power is missing: beta to the t-th.")
        unweighted = means / (1 - beta) / (1 - beta**t)
        expect(
            not _near(got, unweighted),
            "Each gradient enters with weight 1 − beta; without it the average grows too large.",
        )
        expect(_near(got, means / (1 - beta**t)), "Running mean first, then divide by 1 − beta^t.")


def _running_means(gradients: torch.Tensor, beta: float) -> torch.Tensor:
    mean, means = torch.zeros((), dtype=gradients.dtype), []
    for gradient in gradients:
        mean = beta * mean + (1 - beta) * gradient
        means.append(mean)
    return torch.stack(means)


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(
        one.to(torch.float64), other.to(torch.float64), rtol=1e-4, atol=1e-5
    )
