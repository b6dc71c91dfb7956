"""Several processes as one: who am I, add up, share a model out, let one of them write."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ftkit.devices import best_device
from ftkit.errors import FtkitError
from ftkit.models.layers import layer_list

TIMEOUT = timedelta(minutes=10)  # a validation on a slow disk must fit in


def init_process_group() -> None:
    """Join the other processes where ``torchrun`` started this one; else do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        return
    device = best_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        distributed.init_process_group("nccl", timeout=TIMEOUT, device_id=device)
    else:
        distributed.init_process_group("gloo", timeout=TIMEOUT)


def destroy_process_group() -> None:
    """Leave the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def get_rank() -> int:
    """Return the number of this process, 0 where it is the only one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def get_world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Add a tensor up over all processes, in place."""
    if get_world_size() > 1:
        distributed.all_reduce(tensor)
    return tensor


def all_reduce_max(number: int) -> int:
    """Return the largest of all processes' numbers."""
    if get_world_size() == 1:
        return number  # a tensor on a GPU would be waited for
    tensor = torch.tensor(number, device=best_device())
    distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
    return int(tensor)


def all_gather_object(value: Any) -> list[Any]:
    """Return every process's value, in the order of their ranks."""
    values = [value] * get_world_size()
    if get_world_size() > 1:
        distributed.all_gather_object(values, value)
    return values


@contextmanager
def explain_loss_of_others() -> Iterator[None]:
    """Raise `FtkitError` in place of what a backend says when another process is gone."""
    try:
        yield
    except RuntimeError as error:
        backends = (distributed.DistBackendError, distributed.DistNetworkError)
        if get_world_size() == 1 or not (isinstance(error, backends) or "gloo" in str(error)):
            raise
        raise FtkitError(
            f"Process {get_rank()} of {get_world_size()} has lost another one ({error}). The "
            f"newest checkpoint is valid: start again with --resume."
        ) from error


def barrier() -> None:
    """Wait until every process is here."""
    if get_world_size() > 1:
        distributed.barrier()


def all_reduce_gradients(parameters: list[nn.Parameter]) -> None:
    """Give every process the sum of all processes' gradients, in one message.

    Each process has weighed its loss by its share of the labels, so that the sum is the gradient
    of the whole batch, and equal to that of a single process but for rounding. A sharded model
    has done this in its backward pass.
    """
    if get_world_size() == 1 or any(map(is_sharded, parameters)):
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
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
    if get_world_size() == 1:
        raise FtkitError(
            "--shard needs several processes: torchrun --nproc-per-node 2 -m ftkit train …"
        )
    model.to(best_device())
    mesh = init_device_mesh(best_device().type, (get_world_size(),))
    for module in [*layer_list(model), model]:
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the sum, as in `all_reduce_gradients`
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
            module.unshard()  # its buffers are made now: those of a first call in inference mode,
            module.reshard()  # as a validation is, could never be trained


def is_sharded(tensor: torch.Tensor) -> bool:
    """Say whether this process holds only a part of a tensor."""
    return isinstance(tensor, DTensor)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in full; all processes must ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors in full: sharded ones in the CPU memory of the first process alone.

    All processes must ask together. One tensor at a time is whole on a device; the other processes
    get empty ones in place of what was sharded.
    """

    def collect(tensor: torch.Tensor) -> torch.Tensor:
        if not is_sharded(tensor):
            return tensor
        full = full_tensor(tensor)
        return full.cpu() if get_rank() == 0 else torch.empty(0)

    return {name: collect(tensor.detach()) for name, tensor in tensors.items()}


def distribute_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Share a full tensor out as a parameter is; what has another shape stays whole."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
