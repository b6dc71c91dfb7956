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
SAVE_STRATEGIES = ("no", "steps", "epoch")
REPORTS = ("none", "tensorboard")
CHOICES = {  # field → what it may be
    "optim": tuple(OPTIMIZERS),
    "lr_scheduler_type": tuple(SCHEDULES),
    "save_strategy": SAVE_STRATEGIES,
    "report_to": REPORTS,
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
    class_weights : "balanced" or tuple of float, optional
        What an error in each class costs, in the order of the labels, as in
        ``torch.nn.CrossEntropyLoss(weight=)``: the loss is the weighted mean. ``"balanced"`` makes
        rare classes count as much as common ones, as in scikit-learn. For sequence
        classification; the validation loss stays the plain one.
    metric_for_best_model : str, optional
        The metric of `ftkit.Report`, or ``"loss"``, that decides which epoch is the best; by
        default the task's own.
    bf16 : bool, optional
        Compute in bfloat16 where it is safe to; by default where the hardware does. On a GPU,
        False also keeps float32 products from being rounded to TF32.
    fp16 : bool, optional
        Compute in float16, the loss scaled so that small gradients survive; by default on a GPU
        that lacks bfloat16, unless `bf16` is False.
    torch_compile : bool
        Compile the model for a few lengths of rows, to which all are padded. The first steps take
        minutes; frozen layers are not stored.
    reuse_frozen : bool
        Compute the outputs of frozen lower layers once, in eval mode, and keep them for all
        epochs.
    save_strategy : {"no", "steps", "epoch"}
        When `train` writes a checkpoint, where it has a folder: every `save_steps` updates, or
        after each epoch. By default only when the run is told to stop, unless `save_steps` is
        given.
    save_steps : int
        Updates between two checkpoints.
    logging_steps : int
        On a GPU: updates between two readings of the loss, which make the CPU wait.
    report_to : {"none", "tensorboard"}
        Where `train` writes losses and metrics besides ``training.jsonl``.
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
    class_weights: str | tuple[float, ...] | None = None
    metric_for_best_model: str | None = None
    bf16: bool | None = None
    fp16: bool | None = None
    torch_compile: bool = False
    reuse_frozen: bool = True
    save_strategy: str = "no"
    save_steps: int = 0
    logging_steps: int = 10
    report_to: str = "none"
    seed: int = 42

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)}; expected a number above 0."
            for name in ("learning_rate", "max_grad_norm", "head_learning_rate", "layer_decay")
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf
        ]
        whole = ("num_train_epochs", "batch_size", "gradient_accumulation_steps", "logging_steps")
        for name in whole:
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                problems.append(
                    f"{name} is {getattr(self, name)}; expected a whole number above 0."
                )
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                problems.append(
                    f'{name} is "{getattr(self, name)}". {closest(getattr(self, name), known)}'
                )
        for name in ("warmup_steps", "weight_decay", "save_steps", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                problems.append(f"{name} is {getattr(self, name)}; expected 0 or more.")
        if self.seed >= 2**64:
            problems.append(f"seed is {self.seed}; expected less than 2^64.")
        raise_problems([*problems, *self._contradictions(), *self._bad_class_weights()])

    def _contradictions(self) -> list[str]:
        problems = []
        if self.save_strategy == "steps" and self.save_steps == 0:
            problems.append('save_strategy is "steps" and save_steps is 0; expected it above 0.')
        if self.save_strategy == "epoch" and self.save_steps != 0:
            problems.append(
                f'save_strategy is "epoch" and save_steps is {self.save_steps}; expected one of '
                f"the two."
            )
        if self.bf16 and self.fp16:
            problems.append("bf16 and fp16 are both True; expected one of the two.")
        return problems

    def _bad_class_weights(self) -> list[str]:
        weights = self.class_weights
        if weights is None or weights == "balanced":
            return []
        if isinstance(weights, str):
            return [f'class_weights is "{weights}". {closest(weights, ["balanced"])}']
        if weights and all(isinstance(w, int | float) and 0 < w < math.inf for w in weights):
            return []
        return [f"class_weights is {weights}; expected a number above 0 for each class."]
