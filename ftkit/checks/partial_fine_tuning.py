"""Checks of notebook 06: freeze by pattern, count, optimizer, memory, train mode."""

import random
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ftkit.checks import Case, ask, check, close, draw, expect, number

Function = Callable[..., Any]


class _Body(nn.Module):
    """Embeddings and a few layers with dropout, named as BERT names them."""

    def __init__(self, rows: int, layers: int, width: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(rows, width)
        blocks = [
            nn.Sequential(nn.Linear(width, width), nn.Dropout(), nn.LayerNorm(width))
            for _ in range(layers)
        ]
        self.layer = nn.ModuleList(blocks)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.embeddings(input_ids)  # (batch, width)
        for layer in self.layer:
            hidden = layer(hidden)
        return hidden


class _Model(nn.Module):
    """A body, a dropout of no parameters, and a head."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        width = rng.randint(4, 9)
        self.body = _Body(rng.randint(11, 29), rng.randint(3, 5), width)
        self.dropout = nn.Dropout()
        self.classifier = nn.Linear(width, 2)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.body(input_ids)))


def _fits(model: nn.Module, patterns: Iterable[str]) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def _trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _partly_frozen(rng: random.Random) -> _Model:
    model = _Model(rng)
    chosen = _fits(model, [f"body.layer.{len(model.body.layer) - 1}.*", "classifier.*"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in chosen
    return model


@check("Two states to set, not one: what was frozen before must train again.", in_place=True)
def freeze_all_but(answer: Function, seed: int = 0) -> None:
    """Check that exactly the parameters whose names fit a pattern train, whatever was before."""
    rng = random.Random(seed)
    for patterns in (["classifier.*"], ["*.bias"], ["body.layer.2.*", "classifier.*"]):
        model = _Model(rng)
        chosen, every = _fits(model, patterns), _trainable(model)
        told = answer(model, list(patterns))
        expect(
            _trainable(model) != every,
            "every parameter still trains: requires_grad belongs to parameters. Set on a module "
            "it is a new attribute that nothing reads.",
        )
        expect(
            _trainable(model) != every - chosen,
            "the other way round: the patterns name what trains, all others freeze.",
        )
        expect(
            _trainable(model) == chosen or len(patterns) == 1,
            "with two patterns a name needs to fit one of them, not both (any, not all).",
        )
        expect(
            _trainable(model) == chosen,
            f'with {patterns} the wrong names train. fnmatchcase(name, "*.bias") fits the whole '
            f"name; startswith knows no *.",
        )
        expect(
            told is None or (isinstance(told, Iterable) and set(told) == chosen),
            "the model is right; return the names that train, as a set.",
        )
        model.requires_grad_(False)
        answer(model, list(patterns))
        expect(
            _trainable(model) == chosen,
            "parameters that were frozen before stay frozen: set requires_grad to True as well.",
        )


@check("Numbers, not tensors: one embedding table outweighs every bias of the model.")
def trainable_share(answer: Function, seed: int = 0) -> None:
    """Check the share of numbers that train, also where two names hold one tensor."""
    rng = random.Random(seed)
    ask(
        answer,
        *(draw(_share_case, rng) for _ in range(3)),
        otherwise="trainable numbers, divided by all numbers.",
    )
    tied = nn.Module()
    tied.first, tied.last = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
    tied.last.weight = tied.first.weight
    tied.head = nn.Linear(5, 2).requires_grad_(False)
    ask(
        answer,
        Case((tied,), 25 / 37),
        otherwise="a tensor that two modules share counts once: model.parameters() yields it once.",
    )


def _share_case(rng: random.Random) -> Case:
    model = _partly_frozen(rng)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trains, total = sum(n for n, t in sizes if t), sum(n for n, _ in sizes)
    mistakes = {
        "you count tensors; a tensor holds p.numel() numbers.": sum(t for _, t in sizes)
        / len(sizes),
        "trainable over frozen is a ratio, not a share: divide by all of them.": trains
        / (total - trains),
        "this is the frozen share: count those with requires_grad.": 1 - trains / total,
        "these are percent: a share lies between 0 and 1.": 100 * trains / total,
    }
    return Case((model,), trains / total, mistakes)


@check("Three numbers for each one that trains: the gradient and Adam's two moments.")
def training_bytes(answer: Function, seed: int = 0) -> None:
    """Check the bytes of gradients and Adam's moments, in two precisions."""
    case = draw(_bytes_case, random.Random(seed))
    (model,), right = case.given, case.right
    ask(
        answer,
        case,
        otherwise=f"{right // 12} numbers train in float32; expected {right} bytes.",
    )
    ask(
        answer,
        Case((model.to(torch.bfloat16),), right // 2),
        otherwise="4 bytes are right for float32 only; bfloat16 takes 2. Ask p.element_size().",
    )


def _bytes_case(rng: random.Random) -> Case:
    model = _partly_frozen(rng)
    total = sum(p.numel() for p in model.parameters())
    n = sum(p.numel() for p in model.parameters() if p.requires_grad)
    mistakes = {
        "frozen parameters have neither gradient nor moments: count those that train.": 12 * total,
        "one of three is missing. Adam keeps two moments, the mean gradient and the mean squared "
        "gradient, and the gradient itself is there too.": 8 * n,
        "this is the gradient alone; Adam keeps two moments besides.": 4 * n,
        "these are numbers, not bytes: a float32 takes p.element_size() = 4 bytes.": 3 * n,
        "the weights are there without training too: leave them out.": 16 * n,
        "the weights are there without training too: leave all of them out.": 12 * n + 4 * total,
    }
    return Case((model,), 12 * n, mistakes)


@check("What the optimizer does not hold it cannot move, and keeps no moments for.")
def make_optimizer(answer: Function, seed: int = 0) -> None:
    """Check that AdamW holds the trainable parameters, all of them, and no frozen one."""
    rng = random.Random(seed)
    for _ in range(3):
        model, rate = _partly_frozen(rng), rng.uniform(2e-3, 1e-2)
        names = _trainable(model)
        optimizer = answer(model, rate)
        expect(isinstance(optimizer, torch.optim.AdamW), "return a torch.optim.AdamW.")
        expect(_trainable(model) == names, "you changed what trains; only read requires_grad.")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        frozen = {id(p) for p in model.parameters() if not p.requires_grad}
        expect(
            not held & frozen,
            "a frozen parameter is in the optimizer, as model.parameters() hands over all. With a "
            "gradient left over, or zeros, its weight decay and momentum still move it.",
        )
        trains = {id(p) for p in model.parameters() if p.requires_grad}
        expect(
            held == trains,
            "a trainable parameter is missing: the head is not all that trains here. Go by "
            "requires_grad, not by name.",
        )
        for group in optimizer.param_groups:
            given = number(group["lr"])
            expect(close(given, rate), f"the learning rate is {given:.4g}; expected {rate:.4g}.")


@check(
    "Nothing to train, nothing to drop: but a dropout that feeds the head stays on.", in_place=True
)
def train_mode(answer: Function, seed: int = 0) -> None:
    """Check that frozen modules are in eval mode and everything else in train mode."""
    rng = random.Random(seed)
    for before in (True, False):
        _check_frozen_body(_modes(answer, _with_frozen_body(rng).train(before)))
        modes = _modes(answer, _partly_frozen(rng).train(before))
        expect(
            not modes["body.layer.0"] and not modes["body.embeddings"],
            "a frozen layer is in train mode where the body around it trains in part: go through "
            "model.modules(), down to the last one, not only through model.children().",
        )
        top = max(name for name in modes if name.startswith("body.layer."))
        expect(
            modes[top] and modes["classifier"],
            "a layer that trains is in eval mode: the body is frozen in part only, and body.eval() "
            "reaches every layer in it.",
        )
        expect(not modes["body.layer.0.1"], "the dropout inside a frozen layer is still on.")


def _check_frozen_body(modes: dict[str, bool]) -> None:
    expect(
        any(modes.values()),
        "the whole model is in eval mode, the part that trains as well: begin with model.train().",
    )
    expect(
        not all(modes.values()),
        "the whole model is in train mode: the frozen layers still drop at random.",
    )
    expect(modes["classifier"], "the head is in eval mode: begin with model.train().")
    expect(
        modes["dropout"],
        "the dropout before the head is off: it has no parameters, and all([]) is True. Only a "
        "module that has parameters, all frozen, goes to eval mode.",
    )


def _with_frozen_body(rng: random.Random) -> _Model:
    model = _Model(rng)
    model.body.requires_grad_(False)
    return model


def _modes(answer: Function, model: nn.Module) -> dict[str, bool]:
    """Return which modules are in train mode after the learner's function."""
    names = _trainable(model)
    answer(model)
    expect(_trainable(model) == names, "modes only: leave requires_grad as it is.")
    return {name: module.training for name, module in model.named_modules()}
