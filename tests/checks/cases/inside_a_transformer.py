"""Right and wrong answers to the exercises on the inside of a transformer."""

import math

import numpy as np
import torch
from torch.nn import functional


def rms_norm(x, weight, eps, *, wide=True, back=True, centre=(), mean=None, outside=0.0):
    """RMSNorm as Llama does it, or with one mistake."""
    wider = x.float() if wide else x
    middle = wider.mean(dim=-1, keepdim=True)
    above = wider - middle if "above" in centre else wider
    below = wider - middle if "below" in centre else wider
    square = below.pow(2)
    found = square.mean(dim=-1, keepdim=True) if mean is None else mean(square)
    found = above / ((found + eps).sqrt() + outside) * weight.to(wider.dtype)
    return found.to(x.dtype) if back else found


def rms_norm_by_norm(x, weight, eps):
    wide = x.double()
    root = torch.sqrt(torch.linalg.vector_norm(wide, dim=-1, keepdim=True) ** 2 / x.shape[-1] + eps)
    return (wide / root * weight).to(x.dtype)


def rms_norm_by_rows(x, weight, eps):
    rows = x.float().reshape(-1, x.shape[-1])
    done = [row * (row.square().mean() + eps).rsqrt() * weight.float() for row in rows]
    return torch.stack(done).reshape(x.shape).type_as(x)


def rms_norm_by_torch(x, weight, eps):
    return functional.rms_norm(x.float(), x.shape[-1:], weight.float(), eps).to(x.dtype)


def windowed(query, key, value, window, *, low=0, high=0, scale=None, hide="before"):
    """Attention over a window; `low` and `high` move its two ends."""
    scores = query @ key.transpose(-2, -1) / (scale or math.sqrt(query.shape[-1]))
    seq_len = query.shape[1]
    back = torch.arange(seq_len)[:, None] - torch.arange(seq_len)
    inside = (back >= low) & (back < window + high)
    if hide == "after":
        return scores.softmax(dim=-1) * inside @ value
    if hide == "zero":
        return (scores * inside).softmax(dim=-1) @ value
    return scores.masked_fill(~inside, float("-inf")).softmax(dim=-1) @ value


def windowed_by_bands(query, key, value, window):
    seq_len = query.shape[1]
    allowed = torch.ones(seq_len, seq_len).tril().triu(1 - window).bool()
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)


def windowed_by_loop(query, key, value, window):
    rows = []
    for i in range(query.shape[1]):
        seen = slice(max(0, i - window + 1), i + 1)
        scores = torch.einsum("bd,bkd->bk", query[:, i], key[:, seen]) * query.shape[-1] ** -0.5
        rows.append(torch.einsum("bk,bkd->bd", scores.softmax(dim=-1), value[:, seen]))
    return torch.stack(rows, dim=1)


def windowed_by_numpy(query, key, value, window):
    q, k, v = query.numpy(), key.numpy(), value.numpy()
    back = np.arange(q.shape[1])[:, None] - np.arange(q.shape[1])
    scores = np.where((back < 0) | (back >= window), -np.inf, q @ k.swapaxes(1, 2))
    powers = np.exp((scores - scores.max(axis=-1, keepdims=True)) / np.sqrt(q.shape[-1]))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


def parameters(h, inner, n_heads, n_kv, *, matrices=3, norms=2, output=True, biases=False):
    kv = h * n_kv // n_heads
    total = (1 + output) * h * h + 2 * h * kv + matrices * h * inner + norms * h
    return total + biases * (2 * h + 2 * kv + 2 * inner + h)


def parameters_by_torch(h, inner, n_heads, n_kv):
    size = h // n_heads
    shapes = [(n_heads * size, h), (n_kv * size, h), (n_kv * size, h), (h, n_heads * size)]
    shapes += [(inner, h), (inner, h), (h, inner), (h,), (h,)]
    return torch.tensor([math.prod(shape) for shape in shapes]).sum()


def parameters_by_transformers(h, inner, n_heads, n_kv):
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        hidden_size=h,
        intermediate_size=inner,
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv,
        num_hidden_layers=1,
    )
    with torch.device("meta"):
        layer = LlamaModel(config).layers[0]
    return sum(parameter.numel() for parameter in layer.parameters())


def neighbours(x, base, *, sign=1, first=0, exponent=-2.0, halves=False, place=True):
    """Turn pairs of neighbours by their position, or with one mistake."""
    seq_len, size = x.shape
    speeds = base ** (exponent * torch.arange(size // 2) / size)
    angles = sign * (torch.arange(seq_len) + first)[:, None] * speeds
    a, b = x.chunk(2, dim=-1) if halves else (x[:, ::2], x[:, 1::2])
    turned = a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()
    if halves or not place:
        return torch.cat(turned, dim=-1)
    return torch.stack(turned, dim=-1).flatten(-2)


def neighbours_in_place(x, base):
    found = torch.empty_like(x)
    for position in range(x.shape[0]):
        for k in range(x.shape[1] // 2):
            angle = position * base ** (-2 * k / x.shape[1])
            a, b = x[position, 2 * k], x[position, 2 * k + 1]
            found[position, 2 * k] = a * math.cos(angle) - b * math.sin(angle)
            found[position, 2 * k + 1] = a * math.sin(angle) + b * math.cos(angle)
    return found


def neighbours_complex(x, base):
    numbers = x.numpy().astype(np.float64)
    arrows = numbers[:, ::2] + 1j * numbers[:, 1::2]
    speeds = base ** (-np.arange(0, x.shape[1], 2) / x.shape[1])
    arrows = arrows * np.exp(1j * np.outer(np.arange(x.shape[0]), speeds))
    return np.stack([arrows.real, arrows.imag], axis=-1).reshape(numbers.shape)


def neighbours_by_matrices(x, base):
    rows = []
    for position, row in enumerate(x):
        angles = [position * base ** (-2 * k / len(row)) for k in range(len(row) // 2)]
        turns = [
            torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) for a in angles
        ]
        rows.append(torch.block_diag(*turns) @ row)
    return torch.stack(rows)


def gradient(x, w_1, w_2, upstream, *, skip=None, slope=lambda z, d: (z > 0) * d):
    z = x @ w_1
    through = slope(z, upstream @ w_2.T) @ w_1.T
    return (upstream if skip is None else skip) + through


def gradient_by_rows(x, w_1, w_2, upstream):
    found = []
    for row, up in zip(x, upstream, strict=True):
        jacobian = w_1 @ torch.diag((row @ w_1 > 0).float()) @ w_2  # of the layer, (size, size)
        found.append((torch.eye(len(row)) + jacobian) @ up)
    return torch.stack(found)


def gradient_by_numpy(x, w_1, w_2, upstream):
    a, b = w_1.numpy(), w_2.numpy()
    open_gates = np.heaviside(x.numpy() @ a, 0)
    return upstream.numpy() + (open_gates * (upstream.numpy() @ b.T)) @ a.T


def gradient_by_mask(x, w_1, w_2, upstream):
    d_hidden = torch.einsum("rs,is->ri", upstream, w_2)
    d_hidden[(x @ w_1) <= 0] = 0
    return torch.einsum("ri,si->rs", d_hidden, w_1).add(upstream)


CASES = {
    "rms_norm": (
        rms_norm,
        [
            (lambda x, w, e: rms_norm(x, w, e, centre=("above", "below")), "subtracts no mean"),
            (lambda x, w, e: rms_norm(x, w, e, centre=("below",)), "standard deviation"),
            (lambda x, w, e: rms_norm(x, torch.ones_like(w), e), "the weight is missing"),
            (lambda x, w, e: rms_norm(x, w, e, mean=lambda s: s.sum(-1, True)), "take their mean"),
            (lambda x, w, e: rms_norm(x, w, e, mean=lambda s: s.mean()), "the whole tensor"),
            (lambda x, w, e: rms_norm(x, w, 0.0, outside=e), "eps belongs under the root"),
            (lambda x, w, e: rms_norm(x, w, 0.0), "eps is missing"),
            (lambda x, w, e: rms_norm(x, w, e) ** 2, "not yet"),
            (lambda x, w, e: rms_norm(x, w, e, wide=False), "float16 ends at"),
            (lambda x, w, e: rms_norm(x, w, e, back=False), "return them in the type"),
        ],
    ),
    "windowed_attention": (
        windowed,
        [
            (lambda q, k, v, w: windowed(q, k, v, w, high=1), "one token too long"),
            (lambda q, k, v, w: windowed(q, k, v, max(w - 1, 1)), "one token too short"),
            (lambda q, k, v, w: windowed(q, k, v, w, low=1 - w), "tokens see later ones"),
            (lambda q, k, v, w: windowed(q, k, v, 1, low=1 - w), "the window looks ahead"),
            (lambda q, k, v, w: windowed(q, k, v, 99), "the window is missing"),
            (lambda q, k, v, w: windowed(q, k, v, w, scale=1.0), "not divided"),
            (lambda q, k, v, w: windowed(q, k, v, w, scale=q.shape[-1]), "divide by its root"),
            (lambda q, k, v, w: windowed(q, k, v, w, hide="after"), "no longer add up"),
            (lambda q, k, v, w: windowed(q, k, v, w, hide="zero"), "still has a weight"),
            (lambda q, k, v, w: v * 0.5, "softmax of the masked scores"),
        ],
    ),
    "llama_layer_parameters": (
        parameters,
        [
            (lambda h, i, n, k: parameters(h, i, n, n), "keys and values have fewer heads"),
            (lambda h, i, n, k: parameters(h, i, n, k, matrices=2), "gate, up and down"),
            (lambda h, i, n, k: parameters(h, i, n, k, norms=0), "the two norms are missing"),
            (lambda h, i, n, k: parameters(h, i, n, k, norms=4), "a weight and no bias"),
            (lambda h, i, n, k: parameters(h, i, n, k, norms=1), "a layer has two norms"),
            (lambda h, i, n, k: parameters(h, i, n, k, biases=True), "have no biases"),
            (lambda h, i, n, k: parameters(h, i, n, k, output=False), "o_proj is missing"),
            (
                lambda h, i, n, k: 2 * (n + k) * h * h + 3 * h * i + 2 * h,
                "do not multiply by the number of heads",
            ),
            (lambda h, i, n, k: 12 * h * h, "seven matrices and two norms"),
        ],
    ),
    "rotary_of_neighbours": (
        neighbours,
        [
            (lambda x, b: neighbours(x, b, halves=True), "Llama's pairing"),
            (lambda x, b: neighbours(x, b, sign=-1), "turn the other way"),
            (lambda x, b: neighbours(x, b, first=1), "positions count from 0"),
            (lambda x, b: neighbours(x, b, place=False), "not in their places"),
            (lambda x, b: neighbours(x, b, exponent=0.0), "its own speed"),
            (lambda x, b: neighbours(x, b, exponent=-1.0), "yours is half"),
            (lambda x, b: neighbours(x, b, exponent=2.0), "ever faster"),
            (lambda x, b: x, "turn each pair"),
        ],
    ),
    "residual_gradient": (
        gradient,
        [
            (lambda x, a, b, u: gradient(x, a, b, u, skip=0), "the skip is missing"),
            (lambda x, a, b, u: u, "the skip alone"),
            (lambda x, a, b, u: gradient(x, a, b, u, slope=lambda z, d: d), "slope is missing"),
            (lambda x, a, b, u: gradient(x, a, b, u, slope=lambda z, d: z.relu() * d), "1 or 0"),
            (lambda x, a, b, u: gradient(x, a, b, u, slope=lambda z, d: d.relu()), "that arrives"),
            (lambda x, a, b, u: gradient(x, a, b, u, skip=x), "not x"),
            (lambda x, a, b, u: gradient(x, a, b, u, skip=1), "not the number 1"),
            (lambda x, a, b, u: 2 * u, "upstream, plus upstream @ w_2.T"),
        ],
    ),
}
# three more right answers each, in other ways
ALTERNATIVES = {
    "rms_norm": [rms_norm_by_norm, rms_norm_by_rows, rms_norm_by_torch],
    "windowed_attention": [windowed_by_bands, windowed_by_loop, windowed_by_numpy],
    "llama_layer_parameters": [
        parameters_by_torch,
        parameters_by_transformers,
        lambda *sizes: np.int64(parameters(*sizes)),
    ],
    "rotary_of_neighbours": [neighbours_in_place, neighbours_complex, neighbours_by_matrices],
    "residual_gradient": [gradient_by_rows, gradient_by_numpy, gradient_by_mask],
}
