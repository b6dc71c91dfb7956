"""Right and wrong answers to the exercises on partial fine-tuning."""

from fnmatch import fnmatchcase

import torch


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
