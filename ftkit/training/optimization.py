"""The optimizer of a run, and the schedule of its learning rates."""

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ftkit.errors import FtkitError
from ftkit.models.parameters import parameter_groups, set_trainable
from ftkit.training.config import OPTIMIZERS, SCHEDULES, TrainingConfig


def make_optimizer(
    model: nn.Module, config: TrainingConfig, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Return the optimizer of all parameters that train at some time of the run.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
    config : TrainingConfig
    fused : bool
        One kernel updates all weights, or none where it is told that a gradient is not finite.
        AdamW always has it, RMSprop never.

    Returns
    -------
    torch.optim.Optimizer
        Each group holds its highest rate as ``initial_lr``.

    Raises
    ------
    FtkitError
        No parameter is trainable.
    """
    names: set[str] = set()
    for _, tune in config.unfreeze:
        set_trainable(model, tune)
        names |= {n for n, p in model.named_parameters() if p.requires_grad}
    groups = parameter_groups(
        model,
        config.learning_rate,
        head_learning_rate=config.head_learning_rate,
        layer_decay=config.layer_decay,
        weight_decay=config.weight_decay,
        names=names or None,
    )
    if not groups:
        raise FtkitError('No parameter is trainable. Call ftkit.set_trainable(model, "full").')
    for group in groups:
        group["initial_lr"] = group["lr"]
    always = {"adamw_torch": True, "rmsprop": False}
    options = {"fused": True} if always.get(config.optim, fused) else {}
    kind = getattr(torch.optim, OPTIMIZERS[config.optim])
    return kind(groups, lr=config.learning_rate, **options)


def make_scheduler(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, total_steps: int, step: int = 0
) -> LambdaLR:
    """Return the schedule of all groups' rates: rising in the warm-up, then as the config says.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        From `make_optimizer`.
    config : TrainingConfig
    total_steps : int
    step : int
        Updates so far; the optimizer has the rates of the next one when this returns.

    Returns
    -------
    torch.optim.lr_scheduler.LambdaLR
    """
    warmup = config.warmup_steps
    warmup = warmup * total_steps if warmup < 1 else warmup

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return SCHEDULES[config.lr_scheduler_type](progress)

    return LambdaLR(optimizer, factor, last_epoch=step - 1)
