"""Several processes as one: who am I, add up, and let one of them write."""

import os
from datetime import timedelta

import torch
from torch import distributed

from ftkit.devices import best_device

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
    if world_size() == 1:
        return number
    tensor = torch.tensor(number, device=best_device())
    distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
    return int(tensor)


def wait() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        distributed.barrier()


def sum_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Give every process the sum of all processes' gradients, in one message.

    Each process has weighed its loss by its share of the labels, so that the sum is the gradient
    of the whole batch, and equal to that of a single process but for rounding.
    """
    if world_size() == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = sum_over_processes(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = flat.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
