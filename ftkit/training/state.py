"""What a run depends on: collect it, put it back, and know the run again."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from datasets import Dataset
from torch import nn

from ftkit.data.batches import column_hashes
from ftkit.errors import FtkitError, raise_problems
from ftkit.training.config import TrainingConfig
from ftkit.training.distributed import distribute_like, full_tensor

FREE_TO_CHANGE = (  # between two halves of a run
    *("gradient_accumulation_steps", "save_strategy", "save_steps", "logging_steps", "report_to"),
)


def trainable_state_dict(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """Return the parameters that train at some time, and all buffers, by name."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    parameters = {name: p for name, p in model.named_parameters() if id(p) in trained}
    return {**parameters, **dict(model.named_buffers())}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return an optimizer's state flat: ``"3.exp_avg"`` is the first moment of parameter 3."""
    return {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave, or raise `FtkitError` where it is not that."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    check_tensors("optimizer", _expected_state(optimizer, parameters), tensors, some=True)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        shared = distribute_like(tensor, parameters[int(index)])
        state.setdefault(int(index), {})[name] = shared
    names = {frozenset(values) for values in state.values()}
    if len(names) > 1:
        raise FtkitError(f"The checkpoint's optimizer is incomplete: {sorted(map(sorted, names))}.")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def identity(
    config: TrainingConfig, dataset: Dataset, model: nn.Module, trained: Iterable[str]
) -> dict[str, Any]:
    """Return what two halves of one run must share, for JSON: options, rows, model, what trains."""
    options = {k: v for k, v in asdict(config).items() if k not in FREE_TO_CHANGE}
    data = {"the number of rows": len(dataset), **describe_columns(dataset)}
    trained = list(trained)
    frozen = [tensor for name, tensor in model.named_parameters() if name not in set(trained)]
    names = hashlib.sha256(",".join(trained).encode()).hexdigest()[:16]
    of_model = {"the list of trained parameters": names, "the frozen weights": _sample(frozen)}
    return json.loads(json.dumps({**options, **data, **of_model}))  # tuples become lists


def describe_columns(dataset: Dataset, split: str = "training") -> dict[str, str]:
    """Return a hash of each column of a split, by what to call it in a message."""
    return {f'column "{n}" of the {split} rows': h for n, h in column_hashes(dataset).items()}


def _sample(tensors: Sequence[torch.Tensor]) -> str:
    """Hash up to a thousand weights of each tensor: another checkpoint differs in nearly all."""
    hasher = hashlib.sha256()
    for tensor in tensors:
        flat = full_tensor(tensor.detach()).flatten()
        some = flat[:: max(1, len(flat) // 1000)]
        hasher.update(some.to("cpu", torch.float32).numpy().tobytes())
    return hasher.hexdigest()[:16]


def _expected_state(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return a tensor of the right shape for every one that the optimizer may hold."""
    probe = nn.Parameter(torch.zeros(1))
    probe.grad = torch.zeros(1)
    small = type(optimizer)([probe], lr=0.0)  # type: ignore[call-arg]
    small.step()
    names = [name for name, value in small.state[probe].items() if isinstance(value, torch.Tensor)]
    return {
        f"{i}.{name}": torch.zeros(()) if name == "step" else parameter
        for i, parameter in enumerate(parameters)
        for name in names
    }


def check_tensors(
    what: str, ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], *, some: bool = False
) -> None:
    """Raise `FtkitError` unless a checkpoint holds our tensors, or only some, each in its shape."""
    problems = [
        f"The checkpoint's {what} has a tensor {name}, and this run has none."
        for name in theirs
        if name not in ours
    ]
    for name, tensor in ours.items():
        wanted, found = (_form(tensor), _form(theirs[name])) if name in theirs else ("", "")
        if name not in theirs and not some:
            problems.append(f"The checkpoint's {what} has no tensor {name}.")
        elif wanted != found:
            problems.append(f"The checkpoint's {what} has {name} as {found}; expected {wanted}.")
    raise_problems(problems)


def _form(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} of {tensor.dtype}"


def check_progress(progress: Any) -> None:
    """Raise `FtkitError` unless a checkpoint says how far it is, and what run it is of."""
    for name, kind, least in (
        ("step", int, 0),
        ("micro_batches", int, 1),
        ("identity", dict, None),
    ):
        value = progress.get(name) if isinstance(progress, dict) else None
        if type(value) is not kind or (isinstance(value, int) and value < (least or 0)):
            raise FtkitError(
                f"The checkpoint's {name} is {value!r}; expected what an earlier run wrote."
            )


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


def check_state(
    ours: dict[str, Any], moving: dict[str, torch.Tensor], tensors: dict[str, Any], progress: Any
) -> None:
    """Raise `FtkitError` unless a checkpoint is of this run and lacks nothing."""
    check_progress(progress)
    check_identity(ours, progress["identity"])
    check_tensors("model", moving, tensors.get("model", {}))
    check_tensors("best", moving, tensors.get("best", {}), some=True)
