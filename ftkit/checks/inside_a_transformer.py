"""Checks of notebook 04: RMSNorm, a sliding window, a count, rotary positions, a gradient."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from ftkit.checks import Case, ask, check, close, draw, expect

Function = Callable[..., Any]


@check("Squares need range: 16-bit models compute their norms in float32 and then go back.")
def rms_norm(answer: Function, seed: int = 0) -> None:
    """Check RMSNorm of float32, and of float16 inputs whose squares overflow."""
    generator = Generator().manual_seed(seed)
    sizes = (((4, 8), 0.3), ((2, 5, 16), 0.1), ((3, 6), 0.5))
    cases = [draw(_norm_case, generator, shape, eps) for shape, eps in sizes]
    ask(answer, *cases, otherwise="x over the root of its mean square, times weight: not yet.")
    x = (200 + 200 * torch.rand(3, 8, generator=generator)).half()
    weight = (1 + torch.rand(8, generator=generator)).half()
    found, wide = answer(x.clone(), weight.clone(), 1e-5), x.float()
    hint = (
        "float16 ends at 65,504, and the square of 300 is larger: turn x into float32 before you "
        "square it."
    )
    right = wide / (wide.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt() * weight
    expect(close(found, right, tolerance=1e-2), hint)
    hint = "the values are right; return them in the type of x, here float16."
    expect(not isinstance(found, Tensor) or found.dtype == torch.float16, hint)


def _norm_case(generator: Generator, shape: tuple[int, ...], eps: float) -> Case:
    x = 1 + 2 * torch.randn(shape, generator=generator)
    weight = 0.5 + torch.rand(shape[-1], generator=generator)
    square, centred = x.pow(2), x - x.mean(dim=-1, keepdim=True)
    mean, total = square.mean(dim=-1, keepdim=True), square.sum(dim=-1, keepdim=True)
    deviation = (centred.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt()
    right = x / (mean + eps).sqrt() * weight
    mistakes = {
        "that is layer norm: RMSNorm subtracts no mean.": centred / deviation * weight,
        "you divide by the standard deviation: RMSNorm takes the root of the mean square.": (
            x / deviation * weight
        ),
        "the weight is missing.": x / (mean + eps).sqrt(),
        "the root is missing: divide by the root of the mean square.": x / (mean + eps) * weight,
        "you sum the squares: take their mean.": x / (total + eps).sqrt() * weight,
        "the mean is over the whole tensor: each token has its own, over dim=-1 with "
        "keepdim=True.": x / (square.mean() + eps).sqrt() * weight,
        "eps belongs under the root, beside the mean square.": x / (mean.sqrt() + eps) * weight,
        "eps is missing: add it under the root.": x / mean.sqrt() * weight,
    }
    return Case((x, weight, eps), right, mistakes)


@check("A window caps the cost of a token; what lies farther back arrives by way of other layers.")
def windowed_attention(answer: Function, seed: int = 0) -> None:
    """Check causal attention that looks back over a window only."""
    generator = Generator().manual_seed(seed)
    sizes = ((7, 16, 3), (9, 4, 2), (12, 32, 5))
    cases = [draw(_window_case, generator, *size) for size in sizes]
    ask(answer, *cases, otherwise="softmax of the masked scores, times value: not yet.")


def _window_case(generator: Generator, seq_len: int, size: int, window: int) -> Case:
    query, key, value = 2 * torch.randn(3, 2, seq_len, size, generator=generator)
    scores = query @ key.transpose(-2, -1) / math.sqrt(size)
    back = torch.arange(seq_len)[:, None] - torch.arange(seq_len)  # how far back the key is
    inside = (back >= 0) & (back < window)

    def mix(allowed: Tensor, factor: float = 1.0) -> Tensor:
        return (factor * scores).masked_fill(~allowed, -math.inf).softmax(dim=-1) @ value

    mistakes = {
        "the window is one token too long: the token itself counts, so `window - 1` before it.": (
            mix((back >= 0) & (back <= window))
        ),
        "the window is one token too short: itself and `window - 1` more.": (
            mix((back >= 0) & (back < window - 1))
        ),
        "tokens see later ones: nobody may look ahead.": mix(back.abs() < window),
        "the window looks ahead: row i may look at columns i - window + 1 to i.": (
            mix((back <= 0) & (back > -window))
        ),
        "later tokens are hidden, but the window is missing.": mix(back >= 0),
        "the scores are not divided by √d.": mix(inside, math.sqrt(size)),
        "you divide by d: divide by its root.": mix(inside, 1 / math.sqrt(size)),
        "the weights no longer add up to 1: mask the scores before the softmax, with minus "
        "infinity.": scores.softmax(dim=-1) * inside @ value,
        "a score of 0 still has a weight: hide it with minus infinity.": (
            (scores * inside).softmax(dim=-1) @ value
        ),
    }
    return Case((query, key, value, window), mix(inside), mistakes)


@check("Fewer key-value heads save little here; what they save is memory while a model writes.")
def llama_layer_parameters(answer: Function, seed: int = 0) -> None:
    """Check the parameters of one Llama layer, for sizes of real models and random ones."""
    heads = int(torch.randint(2, 9, (), generator=Generator().manual_seed(seed)))
    sizes = ((576, 1536, 9, 3), (4096, 14336, 32, 8), (48 * heads, 200, 2 * heads, heads))
    cases = [_count_case(*size) for size in sizes]
    ask(answer, *cases, otherwise="seven matrices and two norms: not yet.", tolerance=0.0)


def _count_case(h: int, inner: int, n_heads: int, n_kv: int) -> Case:
    kv = h // n_heads * n_kv
    swiglu = 3 * h * inner
    right = 2 * h * h + 2 * h * kv + swiglu + 2 * h
    mistakes = {
        "keys and values have fewer heads: their matrices are hidden_size × (n_key_value_heads · "
        "head_size).": right + 2 * h * (h - kv),
        "SwiGLU has three matrices: gate, up and down.": right - h * inner,
        "the two norms are missing: one weight for each of the hidden_size numbers, twice.": (
            right - 2 * h
        ),
        "RMSNorm has a weight and no bias.": right + 2 * h,
        "a layer has two norms, one before attention and one before feed-forward.": right - h,
        "Llama's linear layers have no biases.": right + 3 * h + 2 * kv + 2 * inner,
        "o_proj is missing, the matrix after the heads are merged.": right - h * h,
        "the heads' matrices together are one hidden_size × hidden_size: do not multiply by the "
        "number of heads.": 2 * (n_heads + n_kv) * h * h + swiglu + 2 * h,
    }
    return Case((h, inner, n_heads, n_kv), right, mistakes)


@check(
    "The same turns in another order of the numbers: read one kind of file as the other, and "
    "queries and keys are scrambled."
)
def rotary_of_neighbours(answer: Function, seed: int = 0) -> None:
    """Check rotary positions whose pairs are neighbours."""
    generator = Generator().manual_seed(seed)
    cases = [
        draw(_rotary_case, generator, *size) for size in ((5, 8, 20.0), (9, 4, 100.0), (4, 6, 9.0))
    ]
    otherwise = "turn each pair (x[2k], x[2k + 1]) by position times base ** (-2k/d): not yet."
    ask(answer, *cases, otherwise=otherwise)


def _rotary_case(generator: Generator, seq_len: int, size: int, base: float) -> Case:
    x = torch.randn(seq_len, size, generator=generator)
    speeds = base ** (-torch.arange(0, size, 2).double() / size)
    places = torch.arange(seq_len)[:, None]
    pairs = x.double().unflatten(-1, (-1, 2))  # (seq_len, size / 2, 2)
    halves = x.double().unflatten(-1, (2, -1)).transpose(-2, -1)
    right = _turn(pairs, places * speeds)
    mistakes = {
        "that is Llama's pairing, k with k + d/2: here numbers 0 and 1 make an arrow, then 2 and "
        "3.": _turn(halves, places * speeds).transpose(-2, -1),
        "the arrows turn the other way: (x cos - y sin, x sin + y cos).": (
            _turn(pairs, -places * speeds)
        ),
        "positions count from 0: the first token stays as it is.": (
            _turn(pairs, (places + 1) * speeds)
        ),
        "the numbers are right, but not in their places: put the pairs back, x, y, x, y.": (
            right.transpose(-2, -1)
        ),
        "every arrow has its own speed, base to the power of -2k/d.": (
            _turn(pairs, places * torch.ones_like(speeds))
        ),
        "the exponent is -2k/d, for arrow number k: yours is half of it.": (
            _turn(pairs, places * speeds.sqrt())
        ),
        "the exponent is -2k/d: yours is positive, so that arrows turn ever faster.": (
            _turn(pairs, places / speeds)
        ),
    }
    flat = {hint: mistake.flatten(-2) for hint, mistake in mistakes.items()}
    return Case((x, base), right.flatten(-2), flat)


def _turn(arrows: Tensor, angles: Tensor) -> Tensor:
    """Turn arrows (seq_len, size / 2, 2) by angles (seq_len, size / 2)."""
    turns = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(torch.view_as_complex(arrows.contiguous()) * turns)


@check("By the skip the gradient of y reaches x untouched, and the layer adds its own share.")
def residual_gradient(answer: Function, seed: int = 0) -> None:
    """Check the gradient in x of x + relu(x W1) W2."""
    generator = Generator().manual_seed(seed)
    cases = [draw(_gradient_case, generator, *size) for size in ((3, 4, 6), (5, 6, 6), (2, 8, 5))]
    otherwise = "upstream, plus upstream @ w_2.T, where x @ w_1 > 0, @ w_1.T: not yet."
    ask(answer, *cases, otherwise=otherwise)


def _gradient_case(generator: Generator, rows: int, size: int, inner: int) -> Case:
    x, upstream = torch.randn(2, rows, size, generator=generator)
    w_1 = torch.randn(size, inner, generator=generator)
    w_2 = torch.randn(inner, size, generator=generator)
    z, d_hidden = x @ w_1, upstream @ w_2.T
    through = (d_hidden * (z > 0)) @ w_1.T
    mistakes = {
        "the skip is missing: y contains x itself, so the gradient of y arrives as it is, too.": (
            through
        ),
        "that is the skip alone: the layer's share is missing.": upstream,
        "ReLU's slope is missing: where its input is negative, nothing goes through.": (
            upstream + d_hidden @ w_1.T
        ),
        "the slope of ReLU is 1 or 0, by the sign of x W1: not its value.": (
            upstream + (d_hidden * z.relu()) @ w_1.T
        ),
        "ReLU's slope depends on its input x W1, not on the gradient that arrives.": (
            upstream + d_hidden.relu() @ w_1.T
        ),
        "the skip hands on the gradient, not x.": x + through,
        "the slope of the skip is 1: upstream is to be added, not the number 1.": 1 + through,
    }
    return Case((x, w_1, w_2, upstream), upstream + through, mistakes)
