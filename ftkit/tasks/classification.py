"""Classification: put one text, or a pair of texts, into one of several classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, DatasetDict
from scipy.sparse import csr_array
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from ftkit.data.columns import (
    KNOWN_LABEL_COLUMNS,
    check_column,
    check_texts,
    guess_label_column,
    guess_text_columns,
    label_names,
    with_label_names,
)
from ftkit.data.leaks import warn_leaks
from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, closest, raise_problems
from ftkit.metrics.classification import classification_metrics
from ftkit.tasks.base import Task, train_split, wrong_widths

SHOWN = 10  # problems that `raise_problems` writes out; looking for the closest label takes time
DENSE = 30  # labels up to which a matrix of mostly zeros is the faster one


@dataclass(frozen=True)
class SequenceClassification(Task):
    """Put one text, or a pair of texts, into one of two or more classes.

    Parameters
    ----------
    text_columns : tuple of str
        One column, or the two of a pair.
    labels : tuple of str
        Names of the classes. With two, the second is the positive one, as in scikit-learn.
    label_column : str
        Its values are names out of `labels`, or their numbers.

    Raises
    ------
    FtkitError
        Not one or two columns, fewer than two labels, or a label that stands twice.

    Examples
    --------
    >>> task = SequenceClassification(("sentence1", "sentence2"), ("different", "paraphrase"))
    >>> task.positive_label
    'paraphrase'
    """

    text_columns: tuple[str, ...]
    labels: tuple[str, ...]
    label_column: str = "label"

    name: ClassVar[str] = "sequence-classification"
    auto_model: ClassVar[Any] = AutoModelForSequenceClassification
    best_metric: ClassVar[str] = "accuracy"

    def __post_init__(self) -> None:
        object.__setattr__(self, "text_columns", tuple(self.text_columns))
        object.__setattr__(self, "labels", tuple(map(str, self.labels)))
        if len(self.text_columns) not in (1, 2):
            raise FtkitError(f"text_columns is {self.text_columns}; expected one or two columns.")
        if len(set(self.labels)) < 2 or len(set(self.labels)) < len(self.labels):
            raise FtkitError(f"labels is {self.labels}; expected two or more different names.")

    @classmethod
    def infer(  # type: ignore[override]
        cls,
        splits: DatasetDict,
        text_columns: Sequence[str] | None = None,
        label_column: str | None = None,
    ) -> "SequenceClassification":
        """Make the task that a data set asks for: its text columns and its training labels.

        Raises
        ------
        FtkitError
            No train split, no such column, or names that cannot be guessed.
        """
        train = train_split(splits)
        text_columns = guess_text_columns(train, text_columns)
        label_column = guess_label_column(train, label_column)
        labels: Sequence[str] = label_names(train, label_column)
        if not labels:
            raise FtkitError(f'Column "{label_column}" of the training set holds no label at all.')
        if len(labels) < 2:
            raise FtkitError(
                f'{row_name("train", train, 0)}: "{label_column}" is "{next(iter(labels))}" in '
                f"this and every other row of the training set; expected at least two classes."
            )
        return cls(tuple(text_columns), tuple(labels), label_column)

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Say whether there is a column of labels."""
        return any(name in columns for name in KNOWN_LABEL_COLUMNS)

    @property
    def positive_label(self) -> str:
        """The class that precision, recall and F1 speak of, where there are two."""
        return self.labels[-1]

    def model_options(self) -> dict[str, Any]:
        """Return what ``from_pretrained`` needs for this task's head."""
        names = dict(enumerate(self.labels))
        return {
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: i for i, name in names.items()},
        }

    def describe(self) -> str:
        """Return the columns and the classes, in one line."""
        return f"{', '.join(self.text_columns)} → {', '.join(self.labels)}"

    def encode(
        self,
        splits: DatasetDict,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
    ) -> DatasetDict:
        """Check the rows, then turn their texts into token ids and their labels into numbers.

        Parameters
        ----------
        splits : DatasetDict
        tokenizer : PreTrainedTokenizerBase
        max_length : int, optional
            Longer texts are cut; by default at the tokenizer's own limit.

        Returns
        -------
        DatasetDict
            Columns ``input_ids``, ``attention_mask`` (lists of int), ``labels`` (int) and ``row``.

        Raises
        ------
        FtkitError
            Lists every bad row of every split.

        Warns
        -----
        LeakWarning
            A text stands in two splits.
        """
        self.check(splits)
        warn_leaks(splits, self.text_columns)

        def encode_rows(rows: dict[str, list]) -> dict[str, list]:
            texts: list[Any] = [list(rows[column]) for column in self.text_columns]
            encoded = tokenizer(*texts, truncation=True, max_length=max_length)  # type: ignore[arg-type]
            labels = [self.label_id(value) for value in rows[self.label_column]]
            return {**encoded, "labels": labels}

        def encode_split(split: Dataset) -> Dataset:
            names = with_label_names(split, self.label_column)
            drop = [name for name in split.column_names if name != "row"]
            return names.map(encode_rows, batched=True, remove_columns=drop)

        return DatasetDict({str(name): encode_split(split) for name, split in splits.items()})

    def encode_texts(self, texts: Sequence[Sequence[str]], tokenizer: Any) -> Dataset:
        """Encode unlabelled texts: one tuple for each row, one text for each text column."""
        raise_problems(wrong_widths(texts, self.text_columns))
        columns = [list(column) for column in zip(*texts, strict=True)]
        return Dataset.from_dict(dict(tokenizer(*columns, truncation=True)))

    def label_id(self, value: object) -> int | None:
        """Return the number of a label, given by name or number; None where it is unknown."""
        if str(value) in self.labels:
            return self.labels.index(str(value))
        if isinstance(value, int) and 0 <= value < len(self.labels):
            return int(value)
        return None

    def check(self, splits: DatasetDict) -> None:
        """Raise one `FtkitError` that lists every bad row; return quietly where there is none."""
        check_texts(splits, self.text_columns)
        problems: list[str] = []
        for split, dataset in splits.items():
            problems += check_column(str(split), dataset, self.label_column)
            if not problems:
                problems += self._label_problems(str(split), dataset)
        raise_problems(problems)

    def _label_problems(self, split: str, dataset: Dataset) -> list[str]:
        values = list(with_label_names(dataset, self.label_column)[self.label_column])
        problems = []
        for i, value in enumerate(values):
            if value is None or value != value or value == "":
                problems.append(f"{row_name(split, dataset, i)}: has no label (NaN or empty).")
            elif self.label_id(value) is None:
                hint = closest(str(value), self.labels) if len(problems) < SHOWN else ""
                problems.append(f'{row_name(split, dataset, i)}: unknown label "{value}". {hint}')
        if split == "train" and not problems and len(set(map(self.label_id, values))) < 2:
            problems.append(
                f'{row_name(split, dataset, 0)}: the label is "{values[0]}" in this and every '
                f"other row of the training set; expected at least two classes."
            )
        return problems

    def row_statistics(self, logits: np.ndarray, labels: np.ndarray) -> Any:
        """Return for each row its cell of the confusion matrix as a 1 among zeros.

        Metrics are functions of the sum of these rows, so that a bootstrap only re-weighs them.

        Parameters
        ----------
        logits : ndarray of shape (n_rows, n_labels)
        labels : ndarray of shape (n_rows,)

        Returns
        -------
        array of shape (n_rows, n_labels * n_labels), sparse where there are many labels
        """
        size = len(self.labels)
        cells, rows = labels * size + logits.argmax(axis=-1), np.arange(len(labels) + 1)
        ones = csr_array((np.ones(len(labels)), cells, rows), shape=(len(labels), size * size))
        return ones if size > DENSE else ones.toarray()

    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Compute accuracy, precision, recall, F1 and Matthews' correlation, as scikit-learn does.

        Parameters
        ----------
        sums : ndarray of shape (..., n_labels * n_labels)
            Confusion matrices, row = true label; sums of `row_statistics`.

        Returns
        -------
        dict
            Metric name → ndarray of shape (...). With two labels precision, recall and F1 are
            those of `positive_label`; with more, the plain mean over the classes ("macro").
            0/0 counts as 0.
        """
        size = len(self.labels)
        return classification_metrics(sums.reshape(*sums.shape[:-1], size, size))

    def right(self, outputs: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Say of each row whether its highest logit is that of its label."""
        return outputs.argmax(axis=-1) == references

    def read(self, outputs: np.ndarray, encoded: Dataset, tokenizer: Any) -> list[tuple[str, ...]]:
        """Return for each row the label and its probability."""
        chances = softmax(outputs, axis=-1)
        return [(self.labels[row.argmax()], f"{row.max():.3f}") for row in chances]
