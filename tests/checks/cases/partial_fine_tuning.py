"""Right and wrong answers to the exercises on partial fine-tuning."""

import re
from fnmatch import filter as fnfilter
from fnmatch import fnmatchcase, translate

import numpy as np
import torch
from torch import nn


def make_freeze(*, rule=any, both=True, inverted=False, module_flag=False, prefix=False):
    """Return a freezing function, right or with one fault."""

    def fits(name, pattern):
        return name.startswith(pattern.strip("*")) if prefix else fnmatchcase(name, pattern)

    def freeze_all_but(model, patterns):
        if module_flag:
            for module in model.modules():
                module.requires_grad = False
        for name, parameter in model.named_parameters():
            chosen = rule(fits(name, pattern) for pattern in patterns) != inverted
            if both:
                parameter.requires_grad = chosen
            elif not chosen and not module_flag:
                parameter.requires_grad = False
        return {name for name, p in model.named_parameters() if p.requires_grad}

    return freeze_all_but


def freeze_and_return_all(model, patterns):
    make_freeze()(model, patterns)
    return {name for name, _ in model.named_parameters()}


def count(model, *, only_trainable=False):
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not only_trainable)


def right_share(model):
    return count(model, only_trainable=True) / count(model)


def share_of_tensors(model):
    flags = [p.requires_grad for p in model.parameters()]
    return sum(flags) / len(flags)


def share_by_modules(model):
    own = [p for module in model.modules() for p in module.parameters(recurse=False)]
    return sum(p.numel() for p in own if p.requires_grad) / sum(p.numel() for p in own)


def ratio_to_frozen(model):
    trains = count(model, only_trainable=True)
    return trains / (count(model) - trains)


def right_bytes(model):
    return sum(3 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def adamw(choose):
    def make_optimizer(model, learning_rate):
        chosen = [p for name, p in model.named_parameters() if choose(name, p)]
        return torch.optim.AdamW(chosen, lr=learning_rate)

    return make_optimizer


def default_rate(model, learning_rate):
    return torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)


def thaw_all(model, learning_rate):
    return torch.optim.AdamW(model.requires_grad_().parameters(), lr=learning_rate)


def make_train_mode(*, first="train", empty=False, modules="modules", mixed=False):
    """Return a function that sets the modes, right or with one fault."""

    def train_mode(model):
        if first == "train":
            model.train()
        for module in getattr(model, modules)():
            flags = [p.requires_grad for p in module.parameters()]
            frozen = not all(flags) if mixed else not any(flags)
            if frozen and (flags or empty) and not (mixed and module is model):
                module.eval()
        return model

    return train_mode


CASES = {
    "freeze_all_but": (
        make_freeze(),
        [
            (make_freeze(both=False, module_flag=True), "new attribute"),
            (make_freeze(inverted=True), "other way round"),
            (make_freeze(both=False), "frozen before stay frozen"),
            (make_freeze(rule=all), "not both"),
            (make_freeze(prefix=True), "startswith"),
            (freeze_and_return_all, "return the names"),
        ],
    ),
    "trainable_share": (
        right_share,
        [
            (share_of_tensors, "you count tensors"),
            (ratio_to_frozen, "trainable over frozen"),
            (lambda model: 1 - right_share(model), "frozen share"),
            (lambda model: 100 * right_share(model), "percent"),
            (share_by_modules, "counts once"),
        ],
    ),
    "training_bytes": (
        right_bytes,
        [
            (lambda model: 12 * count(model), "neither gradient nor moments"),
            (lambda model: right_bytes(model) // 3 * 2, "Adam keeps two moments, the mean"),
            (lambda model: right_bytes(model) // 3, "gradient alone"),
            (lambda model: 3 * count(model, only_trainable=True), "not bytes"),
            (lambda model: 16 * count(model, only_trainable=True), "leave them out"),
            (lambda model: right_bytes(model) + 4 * count(model), "leave all of them out"),
            (lambda model: 12 * count(model, only_trainable=True), "bfloat16 takes 2"),
        ],
    ),
    "make_optimizer": (
        adamw(lambda name, p: p.requires_grad),
        [
            (adamw(lambda name, p: True), "frozen parameter is in the optimizer"),
            (adamw(lambda name, p: name.startswith("classifier")), "by requires_grad, not by name"),
            (thaw_all, "changed what trains"),
            (default_rate, "learning rate is"),
            (lambda model, rate: torch.optim.SGD(model.parameters(), lr=rate), "AdamW"),
        ],
    ),
    "train_mode": (
        make_train_mode(),
        [
            (lambda model: model.eval(), "whole model is in eval mode"),
            (lambda model: model.train(), "whole model is in train mode"),
            (make_train_mode(empty=True), "all([]) is True"),
            (make_train_mode(modules="children"), "not only through model.children()"),
            (make_train_mode(mixed=True), "frozen in part only"),
            (lambda model: model.train().requires_grad_(), "leave requires_grad"),
        ],
    ),
}


def freeze_in_place(model, patterns):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))


def freeze_by_regular_expression(model, patterns):
    rule = re.compile("|".join(translate(pattern) for pattern in patterns))
    model.requires_grad_(False)
    chosen = [name for name, _ in model.named_parameters() if rule.match(name)]
    for name in chosen:
        model.get_parameter(name).requires_grad = True
    return chosen


def freeze_pattern_by_pattern(model, patterns):
    model.requires_grad_(False)
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        for name in fnfilter(parameters, pattern):
            parameters[name].requires_grad_()
    return tuple(name for name, p in parameters.items() if p.requires_grad)


def share_in_torch(model):
    vector = nn.utils.parameters_to_vector(
        torch.full_like(p, float(p.requires_grad)) for p in model.parameters()
    )
    return vector.mean()


def share_in_a_loop(model):
    trains = total = 0
    for parameter in model.parameters():
        total += np.prod(parameter.shape)
        trains += np.prod(parameter.shape) * parameter.requires_grad
    return np.float32(trains / total)


def share_by_identity(model):
    own = {id(p): p for module in model.modules() for p in module.parameters(recurse=False)}
    sizes = torch.tensor([[p.numel(), p.numel() * p.requires_grad] for p in own.values()])
    total, trains = sizes.sum(dim=0)
    return (trains / total).item()


def bytes_in_a_loop(model):
    total = 0
    for _, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.nelement() * parameter.element_size()
            moments = 2 * gradient
            total += gradient + moments
    return float(total)


def optimizer_of_two_groups(model, learning_rate):
    chosen = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in chosen if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in chosen if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate)


def modes_from_below(model):
    """Decide for each module by its parameters, or by those of the module that holds it."""

    def decide(module, mode):
        flags = [p.requires_grad for p in module.parameters()]
        module.training = any(flags) if flags else mode
        for child in module.children():
            decide(child, module.training)

    decide(model, True)


def modes_by_eval_alone(model):
    model.train()
    for module in model.modules():
        chosen = list(module.parameters())
        if chosen and not sum(p.requires_grad for p in chosen):
            module.train(False)


def modes_by_name(model):
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    for name, module in model.named_modules():
        own = [n for n, _ in module.named_parameters()]
        holder = name.rpartition(".")[0]
        mode = any(f"{name}.{n}".lstrip(".") in names for n in own)
        module.training = mode if own else model.get_submodule(holder).training
    return model


ALTERNATIVES = {
    "freeze_all_but": [freeze_in_place, freeze_by_regular_expression, freeze_pattern_by_pattern],
    "trainable_share": [share_in_torch, share_in_a_loop, share_by_identity],
    "training_bytes": [
        bytes_in_a_loop,
        lambda model: 3 * sum(p.nbytes for p in model.parameters() if p.requires_grad),
        lambda model: torch.tensor(
            [3 * p.numel() * p.itemsize * p.requires_grad for p in model.parameters()]
        ).sum(),
    ],
    "make_optimizer": [
        optimizer_of_two_groups,
        lambda model, rate: torch.optim.AdamW(
            filter(lambda p: p.requires_grad, model.parameters()), rate
        ),
        lambda model, rate: torch.optim.AdamW(
            [{"params": [p], "lr": rate} for p in model.parameters() if p.requires_grad]
        ),
    ],
    "train_mode": [modes_from_below, modes_by_eval_alone, modes_by_name],
}
