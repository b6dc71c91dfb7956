"""Checks of notebook 07: rates by depth, gradual unfreezing, LoRA's count, forward and merge."""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ftkit.checks import check, expect

Function = Callable[..., Any]


@check("r numbers for each input and r for each output: a sum, where the full update is a product.")
def lora_parameters(answer: Function) -> None:
    """Check the number of parameters that LoRA adds to one linear layer."""
    for _ in range(5):
        inputs, outputs = random.sample(range(20, 500), 2)
        r = random.randint(2, 16)
        mistakes = {
            "this is the size of W itself: LoRA trains A and B in its place.": inputs * outputs,
            "this is A alone; B trains too, with one row for each output.": r * inputs,
            "this is B alone; A trains too, with one column for each input.": r * outputs,
            "this is right for r = 1: A has r rows and B has r columns.": inputs + outputs,
            "A and B are two matrices beside each other: add their sizes, do not multiply them.": (
                r * inputs * r * outputs
            ),
            "W is frozen, so its numbers do not count; only A and B train.": (
                inputs * outputs + r * (inputs + outputs)
            ),
        }
        otherwise = "A is (r, in_features) and B is (out_features, r): count the numbers in both."
        _judge(answer(inputs, outputs, r), r * (inputs + outputs), mistakes, otherwise)


@check(
    "The layer nearest to the head learns fastest; what lies deep is more general and moves less."
)
def layer_rate(answer: Function) -> None:
    """Check the learning rate of one layer, the lowest being layer 0."""
    for num_layers in (5, 6, 12):
        rate, decay = random.uniform(1e-5, 1e-2), random.uniform(0.5, 0.95)
        for layer in (1, 0, num_layers - 1, random.randrange(num_layers)):
            steps = num_layers - 1 - layer
            mistakes = {
                "the decay counts from the bottom here, so the lowest layer learns fastest. Count "
                "the layers above this one.": rate * decay**layer,
                "one factor too many: the top layer, number num_layers - 1, learns at "
                "learning_rate itself.": rate * decay ** (steps + 1),
                "the rate grows towards the bottom: multiply by layer_decay, do not divide.": (
                    rate / decay**steps
                ),
                "each layer learns at layer_decay times the rate of the layer ABOVE it, so the "
                "factors multiply: a power, not a product.": rate * decay * steps,
            }
            otherwise = "multiply learning_rate by layer_decay once for each layer above this one."
            _judge(answer(rate, decay, layer, num_layers), rate * decay**steps, mistakes, otherwise)


@check("The update passes a waist of r numbers; alpha / r keeps its size comparable as r grows.")
def lora_forward(answer: Function) -> None:
    """Check the forward pass of a linear layer with a low-rank update."""
    shapes = "shapes do not fit: x is (batch, in), A (r, in), B (out, r); first A, then B: x @ A.T."
    for inputs, outputs in ((6, 6), (5, 9), (8, 3)):
        r, alpha = random.choice([(2, 16), (3, 12), (4, 8)])
        x, weight, bias = torch.randn(4, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
        a, b = torch.randn(r, inputs), torch.randn(outputs, r)
        plain, update = x @ weight.T + bias, x @ a.T @ b.T
        mistakes: dict[str, Any] = {
            "the scale is upside down: it is alpha / r, not r / alpha.": plain + r / alpha * update,
            "the update is not scaled: multiply it by alpha / r.": plain + update,
            "the scale is alpha alone here: divide by r, the number of rows of A.": (
                plain + alpha * update
            ),
            "the bias is missing: the frozen layer stays whole.": plain - bias + alpha / r * update,
            "the update came out, without W x + bias: it is added to what the layer gave.": (
                alpha / r * update
            ),
            "alpha / r scales the update alone, not W x.": alpha / r * (plain + update),
        }
        if inputs == outputs:
            mistakes["A and B are swapped: A comes first and makes r numbers of x, then B."] = (
                plain + alpha / r * (x @ b @ a)
            )
        got = _try(answer, shapes, x, weight, bias, a, b, alpha)
        otherwise = "this is not W x + bias + (alpha / r) B A x yet."
        _judge(got, plain + alpha / r * update, mistakes, otherwise)


@check("A merged model has its old shape and speed; the adapter has become part of the weights.")
def merge(answer: Function) -> None:
    """Check the merged weight of a linear layer with a low-rank update."""
    shapes = "shapes do not fit: B @ A has the shape of W, (out, in); A @ B has not."
    for inputs, outputs in ((6, 6), (5, 9), (8, 3)):
        r, alpha = random.choice([(2, 16), (3, 12), (4, 8)])
        weight, a, b = (torch.randn(s) for s in ((outputs, inputs), (r, inputs), (outputs, r)))
        update, kept = b @ a, weight.clone()
        mistakes: dict[str, Any] = {
            "the scale is missing: W x + (alpha / r) B A x holds alpha / r too.": weight + update,
            "the scale is upside down: it is alpha / r, not r / alpha.": (
                weight + r / alpha * update
            ),
            "this is the update alone: add it to W.": alpha / r * update,
            "W is scaled too: alpha / r belongs to B A alone.": alpha / r * (weight + update),
        }
        if inputs == outputs:
            mistakes["the update is transposed: it is B @ A."] = weight + alpha / r * update.T
        got = _try(answer, shapes, weight, a, b, alpha)
        expect(
            torch.equal(weight, kept),
            "your function changed W itself: merged twice, it would add the update twice. Return "
            "a new matrix: weight + …, not weight += ….",
        )
        _judge(got, weight + alpha / r * update, mistakes, "W + (alpha / r) B A: not yet.")


@check(
    "The last stage that is due holds; the optimizer knows the parameters of all from the start."
)
def stage(answer: Function) -> None:
    """Check which stage of a schedule of gradual unfreezing holds at a step."""
    total = 64  # a power of two, so that every share below is exact
    shares = [0.0, *sorted(random.sample([k / 8 for k in range(1, 8)], 2))]
    schedule = tuple(zip(shares, ("head", "top:2", "full"), strict=True))
    _, second, third = (int(share * total) for share in shares)
    cases = {
        random.randrange(0, second): "head",
        random.randrange(second + 1, third): "top:2",
        random.randrange(third + 1, total): "full",
    }
    for step, expected in cases.items():
        got = answer(step, total, schedule)
        expect(got in ("head", "top:2", "full"), f"{got!r} came; expected head, top:2 or full.")
        expect(
            got == expected or expected == "head" or got != "head",
            "the first stage holds for ever: several stages are due, and the last of them counts.",
        )
        expect(
            got == expected or expected == "full" or got != "full",
            "the last stage holds too early: a stage is due once step reaches share * total_steps. "
            "Shares are no steps.",
        )
        expect(got == expected, f"at step {step} of {total} with {schedule}: {got} is not it.")
    expect(
        answer(second, total, schedule) == "top:2" and answer(third, total, schedule) == "full",
        "one step late: at the very step share * total_steps the new stage holds already (<=).",
    )
    expect(answer(0, total, schedule) == "head", "at step 0 the stage with share 0.0 holds.")


def _try(answer: Function, hint: str, *values: Any) -> Any:
    """Call the answer; turn an error of shapes into the hint."""
    try:
        return answer(*values)
    except RuntimeError:
        expect(False, hint)


def _judge(got: Any, expected: Any, mistakes: dict[str, Any], otherwise: str) -> None:
    """Pass the right value; else end with the hint of the mistake that gives this value."""
    if _close(got, expected):
        return
    for hint, value in mistakes.items():
        expect(not _close(got, value), hint)
    expect(False, otherwise)


def _close(got: Any, expected: Any) -> bool:
    first, second = (torch.as_tensor(value).detach().double() for value in (got, expected))
    return first.shape == second.shape and _near(first, second)


def _near(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-4, atol=0.0 if second.dim() == 0 else 1e-5)
