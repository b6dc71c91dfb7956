"""What one update did: numbers that may still be on their way from the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


class _Number:
    """A field that holds a number, or a tensor of one until somebody looks: that waits for it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_{name}"

    def __get__(self, step: "Step | None", owner: type) -> float:
        if step is None:
            raise AttributeError(self.name)  # to a dataclass: there is no default
        value = vars(step)[self.name]
        if isinstance(value, torch.Tensor):
            value = vars(step)[self.name] = value.item()
        return value

    def __set__(self, step: "Step", value: "float | torch.Tensor") -> None:
        vars(step)[self.name] = value


@dataclass(frozen=True)
class Step:
    """What one update did.

    Attributes
    ----------
    step : int
        Updates so far, this one included.
    epoch : float
        Passes over the training split so far.
    loss : float
        Mean loss of the batch, before the update: cross-entropy in nats, unless the task says
        otherwise. On a GPU, to look at it is to wait for the step.
    grad_norm : float
        Length of the gradient before clipping.
    learning_rate : float
        Rate of the first parameter group.
    """

    step: int
    epoch: float
    loss: _Number = _Number()
    grad_norm: _Number = _Number()
    learning_rate: float  # type: ignore[misc] - the two above have no default, whatever it seems


def read_steps(steps: Sequence[Step]) -> None:
    """Read the numbers of several steps, whether they still are on a device, in one transfer."""
    pairs = [[vars(step)[name] for name in ("_loss", "_grad_norm")] for step in steps]
    waiting = [n for pair in pairs for n in pair if isinstance(n, torch.Tensor)]
    numbers = iter(torch.stack([n.double() for n in waiting]).tolist() if waiting else ())
    for step, (loss, norm) in zip(steps, pairs, strict=True):
        vars(step)["_loss"] = next(numbers) if isinstance(loss, torch.Tensor) else loss
        vars(step)["_grad_norm"] = next(numbers) if isinstance(norm, torch.Tensor) else norm
