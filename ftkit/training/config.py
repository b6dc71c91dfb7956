"""How to train: one frozen object, checked as a whole when it is made."""

import math
from dataclasses import dataclass

from ftkit.errors import closest, raise_problems

OPTIMIZERS = {  # Trainer's name: the class of torch.optim
    "adamw_torch": "AdamW",
    "rmsprop": "RMSprop",
    "sgd": "SGD",
}
SCHEDULES = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train. The names and defaults are those of `transformers.TrainingArguments`.

    Parameters
    ----------
    learning_rate : float
        Highest rate of the top layer.
    num_train_epochs : int
        Passes over the training split.
    batch_size : int
        Rows in one update, however many micro-batches it is cut into.
    gradient_accumulation_steps : int
        Micro-batches an update: more of them need less memory and change nothing else.
    lr_scheduler_type : {"linear", "cosine", "constant"}
        How the rate falls after the warm-up.
    warmup_steps : float
        Updates over which the rate rises from 0; below 1, their share of all updates.
    weight_decay : float
        For weight matrices only.
    max_grad_norm : float
        Longer gradients are cut to this length.
    optim : {"adamw_torch", "rmsprop", "sgd"}
    head_learning_rate : float, optional
        A rate of its own for the new head.
    layer_decay : float
        Each layer learns at this share of the rate of the layer above it.
    unfreeze : tuple of (float, str)
        Gradual unfreezing: ``((0.0, "head"), (0.3, "top:2"))`` trains the head alone until 30 % of
        the updates are done, then the top two layers with it.
    bf16 : bool, optional
        Compute in bfloat16 where it is safe to; by default where the hardware does.
    reuse_frozen : bool
        Compute the outputs of frozen lower layers once, in eval mode, and keep them for all
        epochs.
    save_steps : int
        Updates between two checkpoints, where `train` has a folder for them; 0 saves only when the
        run is told to stop.
    seed : int
        Decides the order of the rows and the dropout.

    Raises
    ------
    FtkitError
        Lists every value that cannot be.
    """

    learning_rate: float = 5e-5
    num_train_epochs: int = 3
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    lr_scheduler_type: str = "linear"
    warmup_steps: float = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optim: str = "adamw_torch"
    head_learning_rate: float | None = None
    layer_decay: float = 1.0
    unfreeze: tuple[tuple[float, str], ...] = ()
    bf16: bool | None = None
    reuse_frozen: bool = True
    save_steps: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)}; expected a number above 0."
            for name in ("learning_rate", "max_grad_norm", "head_learning_rate", "layer_decay")
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf
        ]
        for name in ("num_train_epochs", "batch_size", "gradient_accumulation_steps"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                problems.append(
                    f"{name} is {getattr(self, name)}; expected a whole number above 0."
                )
        for name, known in (("optim", OPTIMIZERS), ("lr_scheduler_type", SCHEDULES)):
            if getattr(self, name) not in known:
                problems.append(
                    f'{name} is "{getattr(self, name)}". {closest(getattr(self, name), known)}'
                )
        for name in ("warmup_steps", "weight_decay", "save_steps", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                problems.append(f"{name} is {getattr(self, name)}; expected 0 or more.")
        if self.seed >= 2**64:
            problems.append(f"seed is {self.seed}; expected less than 2^64.")
        raise_problems(problems)
