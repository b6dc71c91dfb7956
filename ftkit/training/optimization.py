"""The optimizer of a run and its learning rate at each step."""

import torch
from torch import nn

from ftkit.errors import FtkitError
from ftkit.models.parameters import parameter_groups, set_trainable
from ftkit.training.config import OPTIMIZERS, SCHEDULES, TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer of all parameters that train at some time of the run.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
    config : TrainingConfig

    Returns
    -------
    torch.optim.Optimizer
        Each group holds its highest rate as ``peak_lr``.

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
        group["peak_lr"] = group["lr"]
    options = {"fused": True} if config.optim == "adamw_torch" else {}
    return getattr(torch.optim, OPTIMIZERS[config.optim])(
        groups, lr=config.learning_rate, **options
    )


def set_learning_rates(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, step: int, total_steps: int
) -> None:
    """Set every group's rate for one step: rising in the warm-up, then as the schedule says."""
    warmup = config.warmup_steps
    warmup = warmup * total_steps if warmup < 1 else warmup
    if step < warmup:
        factor = step / warmup
    else:
        progress = (step - warmup) / max(1, total_steps - warmup)
        factor = SCHEDULES[config.lr_scheduler_type](progress)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
