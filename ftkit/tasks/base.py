"""What every task has: one small class that knows rows, encoding, head, metric and reading."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from ftkit.data.batches import Batch
from ftkit.errors import FtkitError


class Task(ABC):
    """A kind of problem that a language model is fine-tuned for.

    Data goes one way: `check` the rows, `encode` them, let the model make `outputs` of a batch,
    count them against the references in `row_statistics`, and compute `metrics` of the sums.
    A subclass is a frozen dataclass: its fields are all that a saved model remembers of it.

    Attributes
    ----------
    name : str
        As in ``ftkit train --task NAME``.
    auto_model : type
        The class of transformers whose ``from_pretrained`` adds this task's head.
    default_checkpoint : str
    new_head : bool
        True where the head begins at random; False where the checkpoint must hold it.
    best_metric : str
        Decides which epoch is the best, by its highest value or its lowest.
    greater_is_better : bool
    evaluation_batch_size : int
    """

    name: ClassVar[str]
    auto_model: ClassVar[Any]
    default_checkpoint: ClassVar[str] = "minilm"
    new_head: ClassVar[bool] = True
    best_metric: ClassVar[str]
    greater_is_better: ClassVar[bool] = True
    evaluation_batch_size: ClassVar[int] = 64

    text_columns: tuple[str, ...]

    @classmethod
    @abstractmethod
    def infer(cls, splits: DatasetDict, **columns: Any) -> "Task":
        """Make the task that a data set asks for, from its columns and its training rows."""

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Say whether a data set with these columns is plainly meant for this task."""
        return False

    def model_options(self) -> dict[str, Any]:
        """Return what ``from_pretrained`` needs for this task's head."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Return what `task_from_dict` makes this task of again; plain JSON values."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]

    def describe(self) -> str:
        """Return what goes in and what comes out, in one line."""
        return ", ".join(self.text_columns)

    @property
    def given_columns(self) -> tuple[str, ...]:
        """What a row holds before the model answers; one text each in ``ftkit predict``."""
        return self.text_columns

    @abstractmethod
    def check(self, splits: DatasetDict) -> None:
        """Raise one `FtkitError` that lists every bad row; return quietly where there is none."""

    @abstractmethod
    def encode(
        self,
        splits: DatasetDict,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
    ) -> DatasetDict:
        """Check the rows, then turn them into ``input_ids``, ``attention_mask`` and labels."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[Sequence[str]], tokenizer: Any) -> Dataset:
        """Encode unlabelled rows, one tuple of texts each, for `ftkit.predict`."""

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return what training minimises, a mean over a batch: the model's own loss."""
        return model(**batch).loss

    def count_labels(self, batch: Batch) -> int:
        """Count what the mean of `loss` is taken over: the labels that it does not ignore."""
        return int((batch["labels"] != -100).sum())

    @torch.inference_mode()
    def outputs(self, model: Any, batch: Batch) -> Any:
        """Return what is kept of each row of a batch: the logits, unless a task says otherwise.

        Parameters
        ----------
        model : PreTrainedModel
            In eval mode.
        batch : dict of torch.Tensor
            From `ftkit.data.collate`; with labels where the data set has them.

        Returns
        -------
        sequence of ndarray
            One a row.
        """
        return logits_of(model, batch)

    def references(self, dataset: Dataset) -> Any:
        """Return what the outputs of an encoded split are counted against."""
        return np.array(dataset["labels"])

    @abstractmethod
    def row_statistics(self, outputs: Any, references: Any) -> Any:
        """Return counts, one row each, whose sums `metrics` needs: shape (n_rows, n_counts)."""

    @abstractmethod
    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the metrics of sums of `row_statistics`, shape (..., n_counts) → (...)."""

    @abstractmethod
    def right(self, outputs: Any, references: Any) -> np.ndarray:
        """Say of each row whether it is wholly right, shape (n_rows,), bool."""

    @abstractmethod
    def read(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> Sequence[tuple[str, ...]]:
        """Return how the outputs of unlabelled rows read: the fields of a line, for each row."""


def logits_of(model: Any, batch: Batch) -> np.ndarray:
    """Return a model's logits for a batch, float32; labels in the batch are left out."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    return model(**inputs).logits.float().cpu().numpy()


def train_split(splits: DatasetDict) -> Dataset:
    """Return the training split, once it is known to be there and to have rows."""
    if "train" not in splits:
        raise FtkitError(f"No train split; there are only: {', '.join(map(str, splits))}.")
    if len(splits["train"]) == 0:
        raise FtkitError('split "train": has no rows; expected at least one.')
    return splits["train"]


def wrong_widths(texts: Sequence[Sequence[str]], columns: Sequence[str]) -> list[str]:
    """Return a sentence for each row that has not one text for each column."""
    return [
        f"text {i}: {len(row)} texts came; expected {len(columns)} ({', '.join(columns)})."
        for i, row in enumerate(texts, start=1)
        if len(row) != len(columns)
    ]
