"""Right and wrong answers to the exercises on gradient descent."""

import math

import numpy as np
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


def step_in_place(theta, gradient, learning_rate):
    theta -= learning_rate * gradient
    return theta


def train_by_autograd_grad(loss_fn, theta, learning_rate, steps):
    for _ in range(steps):
        theta = theta.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_fn(theta), theta)
        theta = theta - learning_rate * gradient
    return theta


def train_by_optimizer(loss_fn, theta, learning_rate, steps):
    theta = torch.nn.Parameter(theta)
    optimizer = torch.optim.SGD([theta], lr=learning_rate)
    for _ in range(steps):
        loss_fn(theta).backward()
        optimizer.step()
        optimizer.zero_grad()
    return theta


def train_in_float64(loss_fn, theta, learning_rate, steps):
    theta = theta.double().requires_grad_()
    for _ in range(steps):
        loss_fn(theta).backward()
        with torch.no_grad():
            theta -= learning_rate * theta.grad
            theta.grad.zero_()
    return theta.detach().numpy()


def train_in_float32(loss_fn, theta, learning_rate, steps):
    theta = torch.tensor(theta.tolist(), dtype=torch.float32, requires_grad=True)
    for _ in range(steps):
        theta.grad = None
        loss_fn(theta).backward()
        theta.data = theta.data - np.float32(learning_rate) * theta.grad
    return theta.tolist()


def schedule_in_torch(step, total_steps, warmup_steps):
    step = torch.tensor(float(step))
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return torch.where(
        step < warmup_steps, step / warmup_steps, (1 + (math.pi * progress).cos()) / 2
    )


def averages_by_weights(gradients, beta):
    out = []
    for t in range(1, len(gradients) + 1):
        weights = beta ** np.arange(t)[::-1]
        out.append(np.dot(weights, gradients[:t].numpy()) / weights.sum())
    return out


def averages_in_float32(gradients, beta):
    mean, out = np.float32(0), np.zeros(len(gradients), np.float32)
    for i, gradient in enumerate(gradients.numpy().astype(np.float32)):
        mean = np.float32(beta) * mean + np.float32(1 - beta) * gradient
        out[i] = mean / (1 - beta ** (i + 1))
    return out


def averages_by_product(gradients, beta):
    power, mean, out = 1.0, 0.0, ()
    for gradient in gradients.tolist():
        power *= beta
        mean += (1 - beta) * (gradient - mean)
        out += (mean / (1 - power),)
    return out


ALTERNATIVES = {
    "gradient_step": [
        step_in_place,
        lambda theta, gradient, rate: [t - rate * g for t, g in zip(theta, gradient, strict=True)],
        lambda theta, gradient, rate: theta.numpy() - rate * gradient.numpy(),
        lambda theta, gradient, rate: theta.sub(gradient, alpha=rate),
    ],
    "measure_slope": [
        lambda loss_fn, theta: (loss_fn(theta + 1e-6) - loss_fn(theta)) / 1e-6,
        lambda loss_fn, theta: np.gradient(loss_fn(theta + np.arange(-2, 3) * 1e-3), 1e-3)[2],
        lambda loss_fn, theta: (
            (loss_fn(torch.tensor(theta + 1e-3)) - loss_fn(torch.tensor(theta - 1e-3))) / 2e-3
        ),
        lambda loss_fn, theta: (
            (loss_fn(np.float32(theta + 4e-3)) - loss_fn(np.float32(theta - 4e-3))) / 8e-3
        ),
    ],
    "train": [
        train_by_autograd_grad,
        train_by_optimizer,
        train_in_float64,
        train_in_float32,
    ],
    "warmup_cosine": [
        schedule_in_torch,
        lambda step, total, warmup: np.float32(
            min(step / warmup, math.cos(math.pi / 2 * (step - warmup) / (total - warmup)) ** 2)
            if step < warmup
            else math.cos(math.pi / 2 * (step - warmup) / (total - warmup)) ** 2
        ),
        lambda step, total, warmup: np.where(
            step < warmup,
            step / warmup,
            0.5 + 0.5 * np.cos(np.pi * (step - warmup) / (total - warmup)),
        ),
    ],
    "corrected_averages": [averages_by_weights, averages_in_float32, averages_by_product],
}
