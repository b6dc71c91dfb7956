"""Several processes as one: who am I, add up, share a model out, let one of them write."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ftkit.devices import best_device
from ftkit.errors import FtkitError
from ftkit.models.layers import layer_list

TIMEOUT = timedelta(minutes=10)  # a validation on a slow disk must fit in


def join() -> None:
    """Join the other processes where ``torchrun`` started this one; else do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        device = best_device()
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=TIMEOUT)


def leave() -> None:
    """Leave the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """Return the number of this process, 0 where it is the only one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """Add a tensor up over all processes, in place."""
    if world_size() > 1:
        distributed.all_reduce(tensor)
    return tensor


def largest(number: int) -> int:
    """Return the largest of all processes' numbers."""
    tensor = torch.tensor(number, device=best_device())
    if world_size() > 1:
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
    return int(tensor)


@contextmanager
def explain_loss_of_others() -> Iterator[None]:
    """Raise `FtkitError` in place of what a backend says when another process is gone."""
    try:
        yield
    except RuntimeError as error:
        backends = (distributed.DistBackendError, distributed.DistNetworkError)
        if world_size() == 1 or not (isinstance(error, backends) or "gloo" in str(error)):
            raise
        raise FtkitError(
            f"Process {rank()} of {world_size()} has lost another one ({error}). The newest "
            f"checkpoint is valid: start again with --resume."
        ) from error


def wait() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        distributed.barrier()


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Give every process the sum of all processes' gradients, in one message.

    Each process has weighed its loss by its share of the labels, so that the sum is the gradient
    of the whole batch, and equal to that of a single process but for rounding. A sharded model
    has done this in its backward pass.
    """
    if world_size() == 1 or any(map(is_sharded, parameters)):
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = sum_over_processes(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = flat.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def shard(model: nn.Module) -> None:
    """Share a model's parameters out over all processes, layer by layer (FSDP2).

    Each process keeps a part of every layer, with its gradient and its optimizer state, and
    fetches the rest for the moment in which the layer computes (ZeRO stage 3, Rajbhandari et al.
    2020).

    Raises
    ------
    FtkitError
        There is one process only.
    """
    if world_size() == 1:
        raise FtkitError(
            "--shard needs several processes: torchrun --nproc-per-node 2 -m ftkit train …"
        )
    model.to(best_device())
    mesh = init_device_mesh(best_device().type, (world_size(),))
    for module in [*layer_list(model), model]:
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the sum, as in `sum_gradients`
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def is_sharded(tensor: torch.Tensor) -> bool:
    """Say whether this process holds only a part of a tensor."""
    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in full; all processes must ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Share a full tensor out as a parameter is; what has another shape stays whole."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
