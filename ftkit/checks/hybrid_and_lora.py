"""Checks of notebook 07: rates by depth, gradual unfreezing, LoRA's count, forward and merge."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from ftkit.checks import Case, ask, check, draw, expect

Function = Callable[..., Any]


@check("r numbers for each input and r for each output: a sum, where the full update is a product.")
def lora_parameters(answer: Function, seed: int = 0) -> None:
    """Check the number of parameters that LoRA adds to one linear layer."""
    rng = random.Random(seed)
    ask(
        answer,
        *(draw(_parameters_case, rng) for _ in range(5)),
        otherwise="A is (r, in_features) and B is (out_features, r): count the numbers in both.",
    )


def _parameters_case(rng: random.Random) -> Case:
    inputs, outputs = rng.sample(range(20, 500), 2)
    r = rng.randint(2, 16)
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
    return Case((inputs, outputs, r), r * (inputs + outputs), mistakes)


@check(
    "The layer nearest to the head learns fastest; what lies deep is more general and moves less."
)
def layer_rate(answer: Function, seed: int = 0) -> None:
    """Check the learning rate of one layer, the lowest being layer 0."""
    rng = random.Random(seed)
    cases = [draw(_rate_case, rng, num_layers) for num_layers in (5, 6, 12)]
    for case in cases[:]:
        rate, decay, _, num_layers = case.given
        for layer in (0, num_layers - 1):  # the ends, where some mistakes would not show
            right = rate * decay ** (num_layers - 1 - layer)
            cases.append(Case((rate, decay, layer, num_layers), right))
    otherwise = "multiply learning_rate by layer_decay once for each layer above this one."
    ask(answer, *cases, otherwise=otherwise)


def _rate_case(rng: random.Random, num_layers: int) -> Case:
    rate, decay = rng.uniform(1e-5, 1e-2), rng.uniform(0.5, 0.95)
    layer = rng.randrange(1, num_layers - 2)
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
    return Case((rate, decay, layer, num_layers), rate * decay**steps, mistakes)


@check("The update passes a waist of r numbers; alpha / r keeps its size comparable as r grows.")
def lora_forward(answer: Function, seed: int = 0) -> None:
    """Check the forward pass of a linear layer with a low-rank update."""
    generator = Generator().manual_seed(seed)
    shapes = "shapes do not fit: x is (batch, in), A (r, in), B (out, r); first A, then B: x @ A.T."
    otherwise = "this is not W x + bias + (alpha / r) B A x yet."
    for size in ((6, 6, 2, 16), (5, 9, 3, 12), (8, 3, 4, 8)):
        _ask_in_shape(answer, draw(_forward_case, generator, *size), shapes, otherwise)


def _forward_case(generator: Generator, inputs: int, outputs: int, r: int, alpha: float) -> Case:
    shapes = ((4, inputs), (outputs, inputs), (outputs,), (r, inputs), (outputs, r))
    x, weight, bias, a, b = (torch.randn(shape, generator=generator) for shape in shapes)
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
    return Case((x, weight, bias, a, b, alpha), plain + alpha / r * update, mistakes)


@check("A merged model has its old shape and speed; the adapter has become part of the weights.")
def merge(answer: Function, seed: int = 0) -> None:
    """Check the merged weight of a linear layer with a low-rank update."""
    generator = Generator().manual_seed(seed)
    otherwise = "W + (alpha / r) B A: not yet."
    shapes = "shapes do not fit: B @ A has the shape of W, (out, in); A @ B has not."
    for size in ((6, 6, 2, 16), (5, 9, 3, 12), (8, 3, 4, 8)):
        case = draw(_merge_case, generator, *size)
        kept = case.given[0].clone()
        _ask_in_shape(partial(_merge_and_keep, answer, kept), case, shapes, otherwise)


def _merge_and_keep(answer: Function, kept: Tensor, weight: Tensor, *others: Any) -> Any:
    result = answer(weight, *others)
    expect(
        torch.equal(weight, kept),
        "your function changed W itself: merged twice, it would add the update twice. Return "
        "a new matrix: weight + …, not weight += ….",
    )
    return result


def _merge_case(generator: Generator, inputs: int, outputs: int, r: int, alpha: float) -> Case:
    shapes = ((outputs, inputs), (r, inputs), (outputs, r))
    weight, a, b = (torch.randn(shape, generator=generator) for shape in shapes)
    update = b @ a
    mistakes: dict[str, Any] = {
        "the scale is missing: W x + (alpha / r) B A x holds alpha / r too.": weight + update,
        "the scale is upside down: it is alpha / r, not r / alpha.": weight + r / alpha * update,
        "this is the update alone: add it to W.": alpha / r * update,
        "W is scaled too: alpha / r belongs to B A alone.": alpha / r * (weight + update),
    }
    if inputs == outputs:
        mistakes["the update is transposed: it is B @ A."] = weight + alpha / r * update.T
    return Case((weight, a, b, alpha), weight + alpha / r * update, mistakes)


def _ask_in_shape(answer: Function, case: Case, shapes: str, otherwise: str) -> None:
    """Ask; turn an error of shapes into the hint, of PyTorch's kind or of NumPy's."""
    try:
        ask(answer, case, otherwise=otherwise)
    except (RuntimeError, ValueError):
        expect(False, shapes)


@check(
    "The last stage that is due holds; the optimizer knows the parameters of all from the start."
)
def stage(answer: Function, seed: int = 0) -> None:
    """Check which stage of a schedule of gradual unfreezing holds at a step."""
    rng = random.Random(seed)
    total = 64  # a power of two, so that every share below is exact
    shares = [0.0, *sorted(rng.sample([k / 8 for k in range(1, 8)], 2))]
    schedule = tuple(zip(shares, ("head", "top:2", "full"), strict=True))
    _, second, third = (int(share * total) for share in shares)
    cases = {
        rng.randrange(0, second): "head",
        rng.randrange(second + 1, third): "top:2",
        rng.randrange(third + 1, total): "full",
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
