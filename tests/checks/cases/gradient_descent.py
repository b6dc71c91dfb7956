"""Right and wrong answers to the exercises on gradient descent."""

import math

import torch


def train_right(loss_fn, theta, learning_rate, steps, *, clear="before", extra=0):
    """Train by autograd; the options plant the errors that learners make."""
    theta = theta.clone().requires_grad_()
    for _ in range(steps + extra):
        if clear == "before":
            theta.grad = None
        loss_fn(theta).backward()
        if clear == "between":
            theta.grad.zero_()
        with torch.no_grad():
            theta -= learning_rate * theta.grad
    return theta.detach()


def schedule(step, total_steps, warmup_steps, *, warmup=True, late=True, half=0.5, linear=False):
    """Give the factor of warm-up and cosine decay, with options that plant errors."""
    if warmup and step < warmup_steps:
        return step / warmup_steps
    start = warmup_steps if late else 0
    progress = (step - start) / (total_steps - start)
    return 1 - progress if linear else half * (1 + math.cos(math.pi * progress))


def averages(gradients, beta, *, shift=0, weight=None, power=True, correct=True):
    """Average with bias correction, with options that plant errors."""
    mean, out = torch.zeros((), dtype=gradients.dtype), []
    for t, gradient in enumerate(gradients, start=1):
        mean = beta * mean + (1 - beta if weight is None else weight) * gradient
        correction = 1 - beta ** (t + shift) if power else 1 - beta
        out.append(mean / correction if correct else mean)
    return torch.stack(out)


CASES = {
    "gradient_step": (
        lambda theta, gradient, rate: theta - rate * gradient,
        [
            (lambda theta, gradient, rate: theta + rate * gradient, "uphill"),
            (lambda theta, gradient, rate: theta - gradient, "learning rate"),
            (lambda theta, gradient, rate: -rate * gradient, "the step alone"),
            (lambda theta, gradient, rate: (theta - rate * gradient).sum(), "each parameter"),
        ],
    ),
    "measure_slope": (
        lambda loss_fn, theta: (loss_fn(theta + 1e-4) - loss_fn(theta - 1e-4)) / 2e-4,
        [
            (lambda loss_fn, theta: (loss_fn(theta + 0.5) - loss_fn(theta)) / 0.5, "one side"),
            (lambda loss_fn, theta: loss_fn(theta + 1e-4) - loss_fn(theta - 1e-4), "Divide it"),
            (lambda loss_fn, theta: (loss_fn(theta + 1e-4) - loss_fn(theta - 1e-4)) / 1e-4, "2h"),
            (lambda loss_fn, theta: (loss_fn(theta + 1) - loss_fn(theta - 1)) / 2, "so long a way"),
            (lambda loss_fn, theta: (loss_fn(theta - 1e-4) - loss_fn(theta + 1e-4)) / 2e-4, "sign"),
        ],
    ),
    "train": (
        train_right,
        [
            (lambda *a: train_right(*a, clear="never"), "adds to .grad"),
            (lambda *a: train_right(*a, clear="between"), "Nothing moved"),
            (lambda *a: train_right(*a, extra=1), "number of updates"),
        ],
    ),
    "warmup_cosine": (
        schedule,
        [
            (lambda *a: schedule(*a, warmup=False, late=False), "no warm-up"),
            (lambda *a: schedule(*a, late=False), "counts its progress"),
            (lambda *a: schedule(*a, half=1.0), "Halve it"),
            (lambda *a: schedule(*a, linear=True), "straight line"),
            (lambda step, *a: schedule(step + 1, *a), "step / warmup_steps"),
        ],
    ),
    "corrected_averages": (
        averages,
        [
            (lambda *a: averages(*a, correct=False), "start near 0"),
            (lambda *a: averages(*a, shift=-1), "t counts from 1"),
            (lambda *a: averages(*a, shift=1), "one too large"),
            (lambda *a: averages(*a, power=False), "power is missing"),
            (lambda *a: averages(*a, weight=1.0), "weight 1 − beta"),
        ],
    ),
}
