"""What every task has: one small class that knows rows, encoding, head, metric and decoding."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from ftkit.data.batches import Batch
from ftkit.data.leaks import warn_leaks
from ftkit.errors import FtkitError, raise_problems
from ftkit.tasks.truncation import length_limit, told_truncation

SOURCE = "source"  # the place of the row that an encoded one is made of; not kept


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
    infer_options : tuple of str
        What `infer` may be told, of this task's columns and classes.
    """

    name: ClassVar[str]
    auto_model: ClassVar[Any]
    default_checkpoint: ClassVar[str] = "minilm"
    new_head: ClassVar[bool] = True
    best_metric: ClassVar[str]
    greater_is_better: ClassVar[bool] = True
    evaluation_batch_size: ClassVar[int] = 64
    infer_options: ClassVar[tuple[str, ...]] = ("text_columns",)

    text_columns: tuple[str, ...]

    @classmethod
    def infer(
        cls,
        splits: DatasetDict,
        text_columns: Sequence[str] | None = None,
        label_column: str | None = None,
        **options: Any,
    ) -> Self:
        """Make the task that a data set asks for, from its columns and its training rows.

        Parameters
        ----------
        splits : DatasetDict
        text_columns : sequence of str, optional
            By default the usual names.
        label_column : str, optional
            By default the usual name.
        **options
            Whatever else stands in `infer_options`.

        Raises
        ------
        FtkitError
            No train split, no such column, names that cannot be guessed, or an option that says
            nothing to this task.
        """
        given = {"text_columns": text_columns, "label_column": label_column, **options}
        for name in given:
            if given[name] and name not in cls.infer_options:
                option = "--" + name.replace("_", "-")
                raise FtkitError(f"{option} says nothing to the task {cls.name}; leave it out.")
        known = {name: given.get(name) for name in cls.infer_options}
        return cls._infer(train_split(splits), known)

    @classmethod
    @abstractmethod
    def _infer(cls, train: Dataset, options: dict[str, Any]) -> Self:
        """Make the task of the training rows and of all `infer_options`, None where not given."""

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Say whether a data set with these columns is plainly meant for this task."""
        return False

    def model_options(self) -> dict[str, Any]:
        """Return what ``from_pretrained`` needs for this task's head."""
        return {}

    def adapt(self, model: Any, tokenizer: Any) -> None:  # noqa: B027 - most tasks need nothing
        """Set what this task needs of a model and a tokenizer that were just loaded."""

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

    @property
    def leak_columns(self) -> tuple[str, ...]:
        """The columns that make a row of one split the twin of a row of another."""
        return self.text_columns

    @abstractmethod
    def check(self, splits: DatasetDict) -> None:
        """Raise one `FtkitError` that lists every bad row; return quietly where there is none."""

    def encode(
        self,
        splits: DatasetDict,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
    ) -> DatasetDict:
        """Check the rows, then turn them into token ids and labels.

        Parameters
        ----------
        splits : DatasetDict
        tokenizer : PreTrainedTokenizerBase
        max_length : int, optional
            Tokens in a row, at most; by default, and in any case, no more than the tokenizer's own
            limit. What is longer is cut, and told.

        Returns
        -------
        DatasetDict
            ``input_ids``, ``attention_mask`` (lists of int), labels as the task's model takes
            them, ``row`` where the rows say where they are from, and what scoring needs: see
            the task's `encode_rows`.

        Raises
        ------
        FtkitError
            Lists every bad row of every split; or this tokenizer cannot serve the task.

        Warns
        -----
        LeakWarning
            A row stands in two splits.
        TruncationWarning
            Some rows are longer than the limit.
        """
        splits = self.convert(splits)
        self.check(splits)
        warn_leaks(splits, self.leak_columns)
        limit = self.limit(tokenizer, max_length)
        self.check_tokenizer(tokenizer)
        self.check_lengths(splits, tokenizer, limit)

        def encode_batch(rows: dict[str, list]) -> dict[str, list]:
            encoded = self.encode_rows(rows, tokenizer, limit)
            source = encoded.pop(SOURCE, range(len(encoded["input_ids"])))
            return encoded | ({"row": [rows["row"][i] for i in source]} if "row" in rows else {})

        encoded = DatasetDict()
        for name, split in splits.items():
            rows = self.prepare(str(name), split, tokenizer)
            columns = rows.column_names
            encoded[str(name)] = rows.map(encode_batch, batched=True, remove_columns=columns)
        self.check_encoded(splits, encoded, limit)
        sizes = {str(name): len(split) for name, split in splits.items()}
        return told_truncation(encoded, sizes, limit, max_length)

    def convert(self, splits: DatasetDict) -> DatasetDict:
        """Return the rows in the one form that `check` and `encode_rows` read."""
        return splits

    def read_text(self, text: Any) -> tuple[Any, ...]:
        """Return one row of `encode_texts`: a value for each of `given_columns`."""
        return tuple(text) if isinstance(text, list | tuple) else (text,)

    def limit(self, tokenizer: Any, max_length: int | None = None) -> int:
        """Return how many tokens a row may have; see `length_limit`."""
        return length_limit(tokenizer, max_length)

    def check_tokenizer(self, tokenizer: Any) -> None:  # noqa: B027 - most tasks take any
        """Raise `FtkitError` where this tokenizer cannot serve the task."""

    def check_lengths(  # noqa: B027 - most tasks cut
        self, splits: DatasetDict, tokenizer: Any, limit: int
    ) -> None:
        """Raise one `FtkitError` that lists the rows which no cut makes short enough."""

    def prepare(self, name: str, split: Dataset, tokenizer: Any) -> Dataset:
        """Return a split with the columns that `encode_rows` reads: what one row cannot tell."""
        return split

    @abstractmethod
    def encode_rows(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn a batch of checked rows into what the model takes, labels and what scoring needs.

        Parameters
        ----------
        rows : dict of lists
            The columns of `prepare`.
        tokenizer : PreTrainedTokenizerBase
            Called once a column, not once a row.
        limit : int
            Tokens in a row, at most.

        Returns
        -------
        dict of lists
            ``length``, the tokens of each row before the cut, is told and dropped. Where rows
            become more or fewer, ``source`` says for each which of `rows` it is made of.
        """

    def check_encoded(  # noqa: B027 - some tasks have seen all before
        self, splits: DatasetDict, encoded: DatasetDict, limit: int
    ) -> None:
        """Raise or warn of what only the encoded rows show."""

    def encode_texts(
        self,
        texts: Sequence[str | Sequence[str]],
        tokenizer: Any,
        *,
        max_length: int | None = None,
    ) -> Dataset:
        """Encode unlabelled rows, for `ftkit.predict`.

        Parameters
        ----------
        texts : sequence of str or of tuple of str
            For each row one text for each of `given_columns`; a plain text where there is one.
        tokenizer, max_length
            See `encode`.

        Returns
        -------
        datasets.Dataset
            Token ids, and what `decode` needs.

        Raises
        ------
        FtkitError
            Lists every row that is not as it should be.

        Warns
        -----
        TruncationWarning
            Some texts are longer than the limit.
        """
        rows = [self.read_text(row) for row in texts]
        if not rows:
            raise FtkitError("No texts came; expected one or more.")
        self.check_tokenizer(tokenizer)
        raise_problems(self.text_problems(rows, tokenizer))
        limit = self.limit(tokenizer, max_length)
        columns = [list(column) for column in zip(*rows, strict=True)]
        given = dict(zip(self.given_columns, columns, strict=True))
        encoded = Dataset.from_dict(self.encode_inputs(given, tokenizer, limit))
        splits = DatasetDict({"texts": encoded})
        return told_truncation(splits, {"texts": len(rows)}, limit, max_length)["texts"]

    def text_problems(self, texts: Sequence[tuple[str, ...]], tokenizer: Any) -> list[str]:
        """Return a sentence for each row of `encode_texts` that is not as it should be."""
        return wrong_texts(texts, self.given_columns)

    @abstractmethod
    def encode_inputs(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn the `given_columns` of unlabelled rows into what the model takes and `decode` needs.

        Like `encode_rows`, without labels.
        """

    def complete(self, model: Any, encoded: DatasetDict) -> DatasetDict:
        """Return encoded rows with what only the model, as it is before training, can add."""
        return encoded

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
        """Compute the metrics of sums of `row_statistics`, shape (..., n_counts) → (...).

        ``loss`` is among them: the mean of what training lowers, in nats.
        """

    @abstractmethod
    def is_correct(self, statistics: Any) -> np.ndarray:
        """Say of each row of `row_statistics` whether it is wholly right, shape (n_rows,), bool."""

    def metric_title(self, name: str) -> str:
        """Return how a report writes a metric's name."""
        return name

    def per_class(self, sums: np.ndarray) -> dict[str, dict[str, float]]:
        """Return precision, recall, f1 and support of each class, of the sums of all rows."""
        raise FtkitError(f"The task {self.name} has no classes, and so no scores of each.")

    @abstractmethod
    def decode(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> Sequence[tuple[str, ...]]:
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


def wrong_texts(texts: Sequence[Sequence[Any]], columns: Sequence[str]) -> list[str]:
    """Return a sentence for each row that has not one text for each column."""
    problems = []
    for i, row in enumerate(texts, start=1):
        strange = [value for value in row if not isinstance(value, str)]
        if len(row) != len(columns):
            names = f"{len(columns)} ({', '.join(columns)})"
            problems.append(f"text {i}: {len(row)} texts came; expected {names}.")
        elif strange:
            kind = type(strange[0]).__name__
            problems.append(f"text {i}: a {kind} came ({strange[0]}); expected text.")
    return problems
