"""Right and wrong answers to the exercises on hybrid fine-tuning and LoRA."""

import bisect

import numpy as np
import torch
from torch.nn.functional import linear


def _forward(x, weight, bias, a, b, alpha):
    return x @ weight.T + bias + alpha / len(a) * (x @ a.T @ b.T)


def _stage(step, total_steps, schedule):
    return [tune for share, tune in schedule if share * total_steps <= step][-1]


def _merge_in_place(weight, a, b, alpha):
    weight += alpha / len(a) * b @ a
    return weight


CASES = {
    "lora_parameters": (
        lambda i, o, r: r * (i + o),
        [
            (lambda i, o, r: i * o, "size of W itself"),
            (lambda i, o, r: r * i, "A alone"),
            (lambda i, o, r: r * o, "B alone"),
            (lambda i, o, r: i + o, "right for r = 1"),
            (lambda i, o, r: r * i * r * o, "do not multiply"),
            (lambda i, o, r: i * o + r * (i + o), "W is frozen"),
            (lambda i, o, r: 0, "count the numbers in both"),
        ],
    ),
    "layer_rate": (
        lambda rate, decay, layer, n: rate * decay ** (n - 1 - layer),
        [
            (lambda rate, decay, layer, n: rate * decay**layer, "counts from the bottom"),
            (lambda rate, decay, layer, n: rate * decay ** (n - layer), "one factor too many"),
            (lambda rate, decay, layer, n: rate / decay ** (n - 1 - layer), "do not divide"),
            (lambda rate, decay, layer, n: rate * decay * (n - 1 - layer), "a power, not"),
            (lambda rate, decay, layer, n: rate, "once for each layer above"),
        ],
    ),
    "lora_forward": (
        _forward,
        [
            (
                lambda x, w, bias, a, b, alpha: x @ w.T + bias + len(a) / alpha * (x @ a.T @ b.T),
                "upside down",
            ),
            (lambda x, w, bias, a, b, alpha: x @ w.T + bias + x @ a.T @ b.T, "not scaled"),
            (
                lambda x, w, bias, a, b, alpha: x @ w.T + bias + alpha * (x @ a.T @ b.T),
                "alpha alone",
            ),
            (
                lambda x, w, bias, a, b, alpha: x @ w.T + alpha / len(a) * (x @ a.T @ b.T),
                "bias is missing",
            ),
            (lambda x, w, bias, a, b, alpha: alpha / len(a) * (x @ a.T @ b.T), "without W x"),
            (
                lambda x, w, bias, a, b, alpha: alpha / len(a) * (x @ w.T + bias + x @ a.T @ b.T),
                "scales the update alone",
            ),
            (
                lambda x, w, bias, a, b, alpha: x @ w.T + bias + alpha / len(a) * (x @ b @ a),
                "A and B are swapped",
            ),
            (lambda x, w, bias, a, b, alpha: x @ w.T + bias + x @ a @ b, "shapes do not fit"),
            (lambda x, w, bias, a, b, alpha: x @ w.T + bias, "this is not W x"),
        ],
    ),
    "merge": (
        lambda w, a, b, alpha: w + alpha / len(a) * b @ a,
        [
            (lambda w, a, b, alpha: w + b @ a, "scale is missing"),
            (lambda w, a, b, alpha: w + len(a) / alpha * b @ a, "upside down"),
            (lambda w, a, b, alpha: alpha / len(a) * b @ a, "update alone"),
            (lambda w, a, b, alpha: alpha / len(a) * (w + b @ a), "W is scaled too"),
            (lambda w, a, b, alpha: w + alpha / len(a) * (b @ a).T, "transposed"),
            (lambda w, a, b, alpha: w + alpha / len(a) * a @ b, "A @ B has not"),
            (_merge_in_place, "changed W itself"),
            (lambda w, a, b, alpha: w, "not yet"),
        ],
    ),
    "stage": (
        _stage,
        [
            (
                lambda step, n, plan: next(t for s, t in plan if s * n <= step),
                "holds for ever",
            ),
            (lambda step, n, plan: [t for s, t in plan if s <= step][-1], "Shares are no steps"),
            (
                lambda step, n, plan: ([t for s, t in plan if s * n < step] or ["head"])[-1],
                "one step late",
            ),
            (lambda step, n, plan: plan, "expected"),
        ],
    ),
}


def _rate_in_a_loop(rate, decay, layer, n):
    for _ in range(layer, n - 1):
        rate *= decay
    return rate


def _rate_of_all(rate, decay, layer, n):
    rates = [rate]
    while len(rates) < n:
        rates.insert(0, rates[0] * decay)
    return np.float32(rates[layer])


def _forward_in_a_loop(x, weight, bias, a, b, alpha):
    rows = []
    for row in x:
        few = torch.tensor([torch.dot(direction, row) for direction in a])
        rows.append(weight @ row + bias + alpha / a.shape[0] * (b @ few))
    return torch.stack(rows)


def _forward_in_numpy(x, weight, bias, a, b, alpha):
    x, weight, bias, a, b = (tensor.numpy() for tensor in (x, weight, bias, a, b))
    return x @ (weight + alpha / len(a) * b @ a).T + bias


def _stage_in_a_loop(step, total_steps, schedule):
    holds = None
    for share, tune in schedule:
        if step >= share * total_steps:
            holds = tune
    return holds


def _stage_by_bisection(step, total_steps, schedule):
    shares = [share for share, _ in schedule]
    return schedule[bisect.bisect_right(shares, step / total_steps) - 1][1]


def _stage_from_the_end(step, total_steps, schedule):
    return next(tune for share, tune in reversed(schedule) if step / total_steps >= share)


def _merge_in_numpy(weight, a, b, alpha):
    return weight.numpy() + np.float32(alpha / a.shape[0]) * (b.numpy() @ a.numpy())


def _merge_in_a_loop(weight, a, b, alpha):
    merged = weight.tolist()
    for i in range(len(merged)):
        for j in range(len(merged[0])):
            merged[i][j] += alpha / len(a) * sum(float(b[i, k] * a[k, j]) for k in range(len(a)))
    return merged


ALTERNATIVES = {
    "lora_parameters": [
        lambda i, o, r: np.prod((r, i)) + np.prod((o, r)),
        lambda i, o, r: torch.empty(r, i).numel() + torch.empty(o, r).numel(),
        lambda i, o, r: float(r * i + r * o),
    ],
    "layer_rate": [
        _rate_in_a_loop,
        _rate_of_all,
        lambda rate, decay, layer, n: rate * torch.tensor(decay).pow(n - layer - 1),
    ],
    "lora_forward": [
        _forward_in_a_loop,
        _forward_in_numpy,
        lambda x, weight, bias, a, b, alpha: (
            linear(x, weight, bias) + linear(linear(x, a), b) * (alpha / a.size(0))
        ),
    ],
    "merge": [
        _merge_in_numpy,
        _merge_in_a_loop,
        lambda w, a, b, alpha: torch.einsum("or,ri->oi", b, a).mul(alpha / len(a)).add(w),
    ],
    "stage": [_stage_in_a_loop, _stage_by_bisection, _stage_from_the_end],
}
