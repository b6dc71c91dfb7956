"""Classification: put one text, or a pair of texts, into one of several classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from datasets import Dataset, DatasetDict
from scipy.sparse import csr_array
from scipy.special import log_softmax, softmax
from transformers import AutoModelForSequenceClassification

from ftkit.data.columns import (
    KNOWN_LABEL_COLUMNS,
    check_column,
    check_texts,
    guess_label_column,
    guess_text_columns,
    label_names,
    with_label_names,
)
from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, closest, raise_problems
from ftkit.metrics.classification import class_metrics, classification_metrics
from ftkit.tasks.base import Task
from ftkit.tasks.truncation import tokenize

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
        Names of the classes.
    label_column : str
        Its values are names out of `labels`, or their numbers.
    positive_label : str, optional
        Of two classes the one that precision, recall and F1 speak of; by default the second, as in
        scikit-learn. None where there are more than two.

    Raises
    ------
    FtkitError
        Not one or two columns, fewer than two labels, a label that stands twice, or a
        `positive_label` that is none of two.

    Examples
    --------
    >>> task = SequenceClassification(("sentence1", "sentence2"), ("different", "paraphrase"))
    >>> task.positive_label
    'paraphrase'
    """

    text_columns: tuple[str, ...]
    labels: tuple[str, ...]
    label_column: str = "label"
    positive_label: str | None = None

    name: ClassVar[str] = "sequence-classification"
    auto_model: ClassVar[Any] = AutoModelForSequenceClassification
    best_metric: ClassVar[str] = "accuracy"
    infer_options: ClassVar[tuple[str, ...]] = ("text_columns", "label_column", "positive_label")

    def __post_init__(self) -> None:
        object.__setattr__(self, "text_columns", tuple(self.text_columns))
        object.__setattr__(self, "labels", tuple(map(str, self.labels)))
        if len(self.text_columns) not in (1, 2):
            raise FtkitError(f"text_columns is {self.text_columns}; expected one or two columns.")
        if len(set(self.labels)) < 2 or len(set(self.labels)) < len(self.labels):
            raise FtkitError(f"labels is {self.labels}; expected two or more different names.")
        if self.positive_label is None and len(self.labels) == 2:
            object.__setattr__(self, "positive_label", self.labels[-1])
        self._check_positive_label()

    def _check_positive_label(self) -> None:
        given = self.positive_label
        if given is not None and len(self.labels) > 2:
            raise FtkitError(
                f'positive_label is "{given}", and there are {len(self.labels)} classes, of which '
                f"precision, recall and F1 are means; leave it out."
            )
        if given is not None and given not in self.labels:
            raise FtkitError(f'positive_label is "{given}". {closest(str(given), self.labels)}')

    @classmethod
    def _infer(cls, train: Dataset, options: dict[str, Any]) -> Self:
        text_columns = guess_text_columns(train, options["text_columns"])
        label_column = guess_label_column(train, options["label_column"])
        labels: Sequence[str] = label_names(train, label_column)
        if not labels:
            raise FtkitError(f'Column "{label_column}" of the training set holds no label at all.')
        if len(labels) < 2:
            raise FtkitError(
                f'{row_name("train", train, 0)}: "{label_column}" is "{next(iter(labels))}" in '
                f"this and every other row of the training set; expected at least two classes."
            )
        return cls(text_columns, labels, label_column, options["positive_label"])

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Say whether there is a column of labels."""
        return any(name in columns for name in KNOWN_LABEL_COLUMNS)

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

    def prepare(self, name: str, split: Dataset, tokenizer: Any) -> Dataset:
        """Return a split with the names of its classes, where it holds numbers that have names."""
        return with_label_names(split, self.label_column)

    def encode_rows(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn texts into what the tokenizer gives, and labels into numbers, ``labels``."""
        labels = [self.label_id(value) for value in rows[self.label_column]]
        return {**self.encode_inputs(rows, tokenizer, limit), "labels": labels}

    def encode_inputs(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn texts into what the tokenizer gives."""
        return tokenize(tokenizer, [rows[column] for column in self.text_columns], limit)

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

    def row_statistics(self, outputs: np.ndarray, references: np.ndarray) -> Any:
        """Return for each row its cell of the confusion matrix as a 1 among zeros, and its loss.

        Metrics are functions of the sum of these rows, so that a bootstrap only re-weighs them.

        Parameters
        ----------
        outputs : ndarray of shape (n_rows, n_labels)
            Logits.
        references : ndarray of shape (n_rows,)
            Numbers of labels.

        Returns
        -------
        array of shape (n_rows, n_labels * n_labels + 1), sparse where there are many labels
            Last the cross-entropy in nats.
        """
        size, rows = len(self.labels), np.arange(len(references))
        cells = references * size + outputs.argmax(axis=-1)
        nats = -log_softmax(outputs.astype(float), axis=-1)[rows, references]
        columns = np.stack([cells, np.full(len(rows), size * size)], axis=1)
        values = np.stack([np.ones(len(rows)), nats], axis=1)
        ends = np.arange(0, 2 * len(rows) + 1, 2)
        shape = (len(rows), size * size + 1)
        found = csr_array((values.ravel(), columns.ravel(), ends), shape=shape)
        return found if size > DENSE else found.toarray()

    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Compute loss, accuracy, precision, recall, F1 and Matthews' correlation, as scikit-learn.

        Parameters
        ----------
        sums : ndarray of shape (..., n_labels * n_labels + 1)
            Confusion matrices, row = true label, and losses; sums of `row_statistics`.

        Returns
        -------
        dict
            Metric name → ndarray of shape (...). With two labels precision, recall and F1 are
            those of `positive_label`; with more, the plain mean over the classes that are there or
            predicted ("macro"). 0/0 counts as 0. ``loss`` is the mean cross-entropy in nats.
        """
        confusion = self._confusion(sums)
        n_rows = confusion.sum(axis=(-2, -1))
        positive = self.labels.index(self.positive_label) if self.positive_label else -1
        return {
            **classification_metrics(confusion, positive),
            "loss": sums[..., -1] / np.maximum(n_rows, 1),
        }

    def _confusion(self, sums: np.ndarray) -> np.ndarray:
        return sums[..., :-1].reshape(*sums.shape[:-1], len(self.labels), len(self.labels))

    def metric_title(self, name: str) -> str:
        """Return a metric's name; of two classes also the one that it speaks of."""
        of_one = self.positive_label and name in ("precision", "recall", "f1")
        return f'{name} of "{self.positive_label}"' if of_one else name

    def per_class(self, sums: np.ndarray) -> dict[str, dict[str, float]]:
        """Return precision, recall, f1 and support of each label; see `class_metrics`."""
        scores = class_metrics(self._confusion(sums))
        columns = zip(*(values.tolist() for values in scores.values()), strict=True)
        pairs = zip(self.labels, columns, strict=True)
        return {label: dict(zip(scores, values, strict=True)) for label, values in pairs}

    def is_correct(self, statistics: Any) -> np.ndarray:
        """Say of each row whether its highest logit is that of its label."""
        size = len(self.labels)
        return statistics[:, np.arange(size) * (size + 1)].sum(axis=1) > 0

    def decode(
        self, outputs: np.ndarray, encoded: Dataset, tokenizer: Any
    ) -> list[tuple[str, ...]]:
        """Return for each row the label and its probability."""
        chances = softmax(outputs, axis=-1)
        return [(self.labels[row.argmax()], f"{row.max():.3f}") for row in chances]
