"""What a run depends on: collect it, put it back, and know the run again."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from ftkit.config import TrainingConfig
from ftkit.distributed import shared_like, whole
from ftkit.errors import raise_problems

FREE_TO_CHANGE = ("gradient_accumulation_steps", "save_steps")  # between two halves of a run


def moving_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the parameters that train at some time, and all buffers, by name."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    parameters = {name: p for name, p in model.named_parameters() if id(p) in trained}
    return {**parameters, **dict(model.named_buffers())}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return an optimizer's state flat: ``"3.exp_avg"`` is the first moment of parameter 3."""
    return {
        f"{index}.{name}": whole(value)
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        shared = shared_like(tensor, parameters[int(index)])
        state.setdefault(int(index), {})[name] = shared
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def identity(
    config: TrainingConfig, lengths: Sequence[int], names: Sequence[str]
) -> dict[str, Any]:
    """Return what two halves of one run must share, for JSON: options, rows, what trains."""
    options = {k: v for k, v in asdict(config).items() if k not in FREE_TO_CHANGE}
    options["unfreeze"] = [list(pair) for pair in config.unfreeze]
    data = {"rows": len(lengths), "row lengths": _hash(lengths)}
    return {**options, **data, "trained parameters": _hash(names)}


def _hash(values: Sequence[object]) -> str:
    return hashlib.sha256(",".join(map(str, values)).encode()).hexdigest()[:16]


def check_identity(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise `FtkitError` that names whatever differs between a run and a checkpoint."""
    raise_problems(
        [
            f"The checkpoint is of another run: {key} is {ours.get(key)} now, and was "
            f"{theirs.get(key)}."
            for key in {**ours, **theirs}
            if ours.get(key) != theirs.get(key)
        ]
    )
