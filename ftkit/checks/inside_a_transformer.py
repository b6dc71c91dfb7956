"""Checks of notebook 04: RMSNorm, a sliding window, a count, rotary positions, a gradient."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from ftkit.checks import check, expect

Function = Callable[..., Any]


@check("Squares need range: 16-bit models compute their norms in float32 and then go back.")
def rms_norm(answer: Function, seed: int = 0) -> None:
    """Check RMSNorm of float32, and of float16 inputs whose squares overflow."""
    generator = Generator().manual_seed(seed)
    for shape, eps in (((4, 8), 1e-6), ((2, 5, 16), 1e-5), ((3, 6), 0.5)):
        x = 1 + 2 * torch.randn(shape, generator=generator)
        weight = 0.5 + torch.rand(shape[-1], generator=generator)
        _judge(answer(x.clone(), weight.clone(), eps), *_norms(x, weight, eps))
    x, weight = 200 + 200 * torch.rand(3, 8, generator=generator), torch.rand(8) + 1
    found = answer(x.half(), weight.half(), 1e-5)
    right, _, _ = _norms(x.half().float(), weight.half().float(), 1e-5)
    hint = (
        "float16 ends at 65,504, and the square of 300 is larger: turn x into float32 before you "
        "square it."
    )
    expect(_close(found, right, tolerance=1e-2), hint)
    hint = "the values are right; return them in the type of x, here float16."
    expect(torch.as_tensor(found).dtype == torch.float16, hint)


def _norms(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, dict[str, Tensor], str]:
    """Return RMSNorm, what each known mistake makes of it, and the last hint."""
    square, centred = x.pow(2), x - x.mean(dim=-1, keepdim=True)
    variance = centred.pow(2).mean(dim=-1, keepdim=True)
    mean = square.mean(dim=-1, keepdim=True)
    mistakes = {
        "that is layer norm: RMSNorm subtracts no mean.": centred
        / (variance + eps).sqrt()
        * weight,
        "you divide by the standard deviation: RMSNorm takes the root of the mean square.": (
            x / (variance + eps).sqrt() * weight
        ),
        "the weight is missing.": x / (mean + eps).sqrt(),
        "the root is missing: divide by the root of the mean square.": x / (mean + eps) * weight,
        "you sum the squares: take their mean.": (
            x / (square.sum(dim=-1, keepdim=True) + eps).sqrt() * weight
        ),
        "the mean is over the whole tensor: each token has its own, over dim=-1 with "
        "keepdim=True.": x / (square.mean() + eps).sqrt() * weight,
        "eps belongs under the root, beside the mean square.": x / (mean.sqrt() + eps) * weight,
        "eps is missing: add it under the root.": x / mean.sqrt() * weight,
    }
    return (
        x / (mean + eps).sqrt() * weight,
        mistakes,
        "x over the root of its mean square: not yet.",
    )


@check("A window caps the cost of a token; what lies farther back arrives by way of other layers.")
def windowed_attention(answer: Function, seed: int = 0) -> None:
    """Check causal attention that looks back over a window only."""
    generator = Generator().manual_seed(seed)
    for seq_len, size, window in ((7, 16, 3), (9, 4, 2), (12, 32, 5)):
        query, key, value = 2 * torch.randn(3, 2, seq_len, size, generator=generator)
        scores = query @ key.transpose(-2, -1)
        back = torch.arange(seq_len)[:, None] - torch.arange(seq_len)  # how far back the key is
        inside, root = (back >= 0) & (back < window), math.sqrt(size)

        def mix(allowed: Tensor, scores: Tensor = scores / root, value: Tensor = value) -> Tensor:
            return scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1) @ value

        mistakes = {
            "the window is one token too long: the token itself counts, so `window - 1` before "
            "it.": mix((back >= 0) & (back <= window)),
            "the window is one token too short: itself and `window - 1` more.": (
                mix((back >= 0) & (back < max(window - 1, 1)))
            ),
            "tokens see later ones: nobody may look ahead.": mix(back.abs() < window),
            "the window looks ahead: row i may look at columns i - window + 1 to i.": (
                mix((back <= 0) & (back > -window))
            ),
            "later tokens are hidden, but the window is missing.": mix(back >= 0),
            "the scores are not divided by √d.": mix(inside, scores),
            "you divide by d: divide by its root.": mix(inside, scores / size),
            "the weights no longer add up to 1: mask the scores before the softmax, with minus "
            "infinity.": (scores / root).softmax(dim=-1) * inside @ value,
            "a score of 0 still has a weight: hide it with minus infinity.": (
                (scores / root * inside).softmax(dim=-1) @ value
            ),
        }
        if window == 2:
            mistakes.pop("the window is one token too short: itself and `window - 1` more.")
        found = answer(query.clone(), key.clone(), value.clone(), window)
        _judge(found, mix(inside), mistakes, "softmax of the masked scores, times value: not yet.")


@check("Fewer key-value heads save little here; what they save is memory while a model writes.")
def llama_layer_parameters(answer: Function, seed: int = 0) -> None:
    """Check the parameters of one Llama layer, for sizes of real models and random ones."""
    generator = Generator().manual_seed(seed)
    heads = int(torch.randint(2, 9, (), generator=generator))
    for sizes in ((576, 1536, 9, 3), (4096, 14336, 32, 8), (48 * heads, 200, 2 * heads, heads)):
        right, mistakes = _counts(*sizes)
        _judge(
            answer(*sizes), right, mistakes, "seven matrices and two norms: not yet.", exact=True
        )


def _counts(h: int, inner: int, n_heads: int, n_kv: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the right count, and what each known mistake makes of it."""
    kv = h // n_heads * n_kv
    attention, swiglu = 2 * h * h + 2 * h * kv, 3 * h * inner
    right = attention + swiglu + 2 * h
    biases = 2 * h + 2 * kv + 2 * inner + h
    wrong = {
        "keys and values have fewer heads: their matrices are hidden_size × (n_key_value_heads · "
        "head_size).": right + 2 * h * (h - kv),
        "SwiGLU has three matrices: gate, up and down.": right - h * inner,
        "the two norms are missing: one weight for each of the hidden_size numbers, twice.": (
            right - 2 * h
        ),
        "RMSNorm has a weight and no bias.": right + 2 * h,
        "a layer has two norms, one before attention and one before feed-forward.": right - h,
        "Llama's linear layers have no biases.": right + biases,
        "o_proj is missing, the matrix after the heads are merged.": right - h * h,
        "the heads' matrices together are one hidden_size × hidden_size: do not multiply by the "
        "number of heads.": n_heads * (2 * h * h) + n_kv * (2 * h * h) + swiglu + 2 * h,
    }
    return torch.tensor(right), {hint: torch.tensor(value) for hint, value in wrong.items()}


@check(
    "The same turns in another order of the numbers: convert the one file as the other, and q "
    "and k are scrambled."
)
def rotary_of_neighbours(answer: Function, seed: int = 0) -> None:
    """Check rotary positions whose pairs are neighbours."""
    generator = Generator().manual_seed(seed)
    for seq_len, size, base in ((5, 8, 10_000.0), (9, 4, 100.0), (3, 16, 1_000.0)):
        x = torch.randn(seq_len, size, generator=generator)
        speeds = base ** (-torch.arange(0, size, 2) / size)
        angles = torch.arange(seq_len)[:, None] * speeds
        first, second = x[:, : size // 2], x[:, size // 2 :]
        halves = torch.polar(torch.ones_like(angles), angles) * torch.complex(first, second)
        pairs = _turn(x, angles)
        mistakes = {
            "that is Llama's pairing, k with k + d/2: here numbers 0 and 1 make an arrow, then 2 "
            "and 3.": torch.cat([halves.real, halves.imag], dim=-1),
            "the arrows turn the other way: (x cos - y sin, x sin + y cos).": _turn(x, -angles),
            "positions count from 0: the first token stays as it is.": _turn(x, angles + speeds),
            "the numbers are right, but not in their places: put the pairs back, x, y, x, y.": (
                torch.cat([pairs[:, ::2], pairs[:, 1::2]], dim=-1)
            ),
            "every arrow has its own speed, base to the power of -2k/d.": (
                _turn(x, torch.arange(seq_len)[:, None] * torch.ones(size // 2))
            ),
            "the exponent is -2k/d, for arrow number k: yours is half of it.": (
                _turn(x, torch.arange(seq_len)[:, None] * speeds.sqrt())
            ),
            "the exponent is -2k/d: yours is positive, so that arrows turn ever faster.": (
                _turn(x, torch.arange(seq_len)[:, None] / speeds)
            ),
        }
        otherwise = "turn each pair (x[2k], x[2k + 1]) by position times base ** (-2k/d): not yet."
        _judge(answer(x.clone(), base), pairs, mistakes, otherwise)


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs of neighbours in x (seq_len, size) by the angles (seq_len, size / 2)."""
    arrows = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    turned = arrows * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2)


@check("By the skip the gradient of y reaches x untouched, and the layer adds its own share.")
def residual_gradient(answer: Function, seed: int = 0) -> None:
    """Check the gradient in x of x + relu(x W1) W2."""
    generator = Generator().manual_seed(seed)
    for rows, size, inner in ((3, 4, 6), (5, 6, 6), (2, 8, 5)):
        x, upstream = torch.randn(2, rows, size, generator=generator)
        w_1 = torch.randn(size, inner, generator=generator)
        w_2 = torch.randn(inner, size, generator=generator)
        z, d_h = x @ w_1, upstream @ w_2.T
        through = (d_h * (z > 0)) @ w_1.T
        mistakes = {
            "the skip is missing: y contains x itself, so the gradient of y arrives as it is, "
            "too.": through,
            "that is the skip alone: the layer's share is missing.": upstream,
            "ReLU's slope is missing: where its input is negative, nothing goes through.": (
                upstream + d_h @ w_1.T
            ),
            "the slope of ReLU is 1 or 0, by the sign of x W1: not its value.": (
                upstream + (d_h * z.relu()) @ w_1.T
            ),
            "ReLU's slope depends on its input x W1, not on the gradient that arrives.": (
                upstream + d_h.relu() @ w_1.T
            ),
            "the skip hands on the gradient, not x.": x + through,
            "the slope of the skip is 1: upstream is to be added, not the number 1.": 1 + through,
        }
        otherwise = "upstream, plus upstream @ w_2.T, where x @ w_1 > 0, @ w_1.T: not yet."
        found = answer(x.clone(), w_1.clone(), w_2.clone(), upstream.clone())
        _judge(found, upstream + through, mistakes, otherwise)


def _judge(
    value: Any, right: Tensor, mistakes: dict[str, Tensor], otherwise: str, exact: bool = False
) -> None:
    """Return where the value is right; else give the hint of the mistake that it equals."""
    if _close(value, right, 0.0 if exact else 1e-5):
        return
    shape = tuple(torch.as_tensor(value).shape)
    expected = tuple(right.shape) or "(), one number"
    expect(shape == tuple(right.shape), f"the shape is {shape}; expected {expected}.")
    for hint, mistake in mistakes.items():
        expect(not _close(value, mistake, 0.0 if exact else 1e-3), hint)
    expect(False, otherwise)


def _close(value: Any, right: Tensor, tolerance: float) -> bool:
    """Say whether values are equal, up to a share of the largest, whatever kind they are."""
    found, wanted = torch.as_tensor(value).detach().double(), right.double()
    scale = max(float(wanted.abs().max()), 1e-12)
    same = found.shape == wanted.shape
    return same and torch.allclose(found, wanted, rtol=0, atol=tolerance * scale)
