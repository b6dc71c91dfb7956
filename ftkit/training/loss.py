"""What a run minimises, and what its mean is taken over, whatever wraps the model."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn.functional import cross_entropy
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ftkit.data.batches import Batch, class_labels
from ftkit.errors import FtkitError
from ftkit.tasks import Task
from ftkit.training.config import TrainingConfig

WRAPPERS = ("_orig_mod", "module")  # where torch.compile and DataParallel keep the model


class TrainingLoss:
    """The loss of a batch, and the weight of that loss among other batches'.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
    dataset : datasets.Dataset
        The encoded training split: class weights are counted on it.
    config : TrainingConfig
    task : Task, optional
        Says what is averaged over; without one, the class of the model does.

    Raises
    ------
    FtkitError
        Class weights for a task without classes, or another number of them than of classes; a
        label that is no class.
    """

    def __init__(
        self, model: nn.Module, dataset: Dataset, config: TrainingConfig, task: Task | None = None
    ) -> None:
        self.task = task
        self.causal = task is None and is_causal(model)
        labels = class_labels(dataset)
        classes = getattr(model.config, "num_labels", 0)
        if labels is not None:
            _check_labels(labels, classes)
        self.class_weights: torch.Tensor | None = None
        if config.class_weights is not None:
            if labels is None:
                name = task.name if task else "this one"
                raise FtkitError(
                    f"class_weights weighs the classes of a sequence-classification; {name} has "
                    f"none. Leave it out."
                )
            self.class_weights = _class_weights(config, labels, classes)

    def weight(self, batch: Batch) -> float:
        """Return what the mean of a batch divides by: its labels, or their classes' weights."""
        if self.class_weights is not None:
            return float(self.class_weights[batch["labels"]].sum())
        if self.task:
            return self.task.count_labels(batch)
        labels = batch.get("labels")
        if labels is None:  # spans: one answer a row
            return len(batch["input_ids"])
        return int(((labels[:, 1:] if self.causal else labels) != -100).sum())

    def __call__(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the mean loss of a batch that lies on the model's device."""
        if self.class_weights is None:
            return self.task.loss(model, batch) if self.task else model(**batch).loss
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs).logits.float()
        weights = self.class_weights.to(logits.device, non_blocking=True)
        return cross_entropy(logits, batch["labels"], weight=weights)


def is_causal(model: nn.Module) -> bool:
    """Say whether a model predicts each token from those before it, so that no first one counts.

    LoRA, `torch.compile` and data parallelism wrap a model, and FSDP makes a subclass of its class:
    neither changes the answer.
    """
    plain: Any = model
    while True:
        if hasattr(plain, "get_base_model"):
            plain = plain.get_base_model()
        elif inner := [getattr(plain, name) for name in WRAPPERS if hasattr(plain, name)]:
            plain = inner[0]
        else:
            names = {kind.__name__ for kind in type(plain).__mro__}
            return bool(names & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))


def _check_labels(labels: np.ndarray, classes: int) -> None:
    """Raise `FtkitError` for a label that would index no logit: on a GPU that ends the process."""
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if classes > 1 and len(bad):
        raise FtkitError(
            f"The label of {len(bad)} rows is no class, such as {labels[bad[0]]} in row {bad[0]}; "
            f"the model has {classes}, 0 to {classes - 1}."
        )


def _class_weights(config: TrainingConfig, labels: np.ndarray, classes: int) -> torch.Tensor:
    given = config.class_weights
    if isinstance(given, str):  # "balanced"
        present = np.unique(labels)
        weights = np.ones(classes)  # a class without a row is never looked up
        weights[present] = compute_class_weight(given, classes=present, y=labels)
        return torch.tensor(weights, dtype=torch.float32)
    if given is None or len(given) != classes:
        raise FtkitError(f"class_weights is {given}; expected {classes} numbers, one for a class.")
    return torch.tensor(given, dtype=torch.float32)
