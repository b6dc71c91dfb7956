"""Token classification: put each word of a sentence into a class, to find names in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForTokenClassification

from ftkit.data.batches import Batch
from ftkit.data.columns import check_column, guess_text_columns, with_column
from ftkit.errors import FtkitError, raise_problems
from ftkit.metrics.entities import OUTSIDE, entity_metrics, entity_types, find_entities
from ftkit.tasks.base import Task, logits_of
from ftkit.tasks.tokens.tags import (
    TAG,
    Sentence,
    best_tag_ids,
    count_row,
    tag_metrics,
    token_labels,
    type_counts,
)
from ftkit.tasks.tokens.words import (
    check_words,
    encode_words,
    split_words,
    tag_lists,
    warn_unseen,
    word_problems,
)

KNOWN_COLUMNS = (("tokens", "tags"), ("tokens", "ner_tags"))


@dataclass(frozen=True)
class TokenClassification(Task):
    """Find names: give each word a BIO tag (Ramshaw and Marcus 1995), read whole entities from it.

    A word's first token carries its label; further tokens of the word and special tokens carry
    none, so that each word counts once, however many pieces it falls into (Devlin et al. 2019).
    A word without any token, because the row was cut before it, counts as predicted O.

    Parameters
    ----------
    tokens_column : str
        Lists of words.
    tags_column : str
        Lists of tags, one a word: names out of `labels`, or numbers of a `ClassLabel`.
    labels : tuple of str
        ``"O"``, and ``"B-TYPE"`` and ``"I-TYPE"`` for each type.

    Raises
    ------
    FtkitError
        No ``"O"``, nothing but ``"O"``, a label of another form, or one that stands twice.

    Examples
    --------
    >>> task = TokenClassification("tokens", "tags", ("O", "B-PER", "I-PER"))
    >>> task.types
    ('PER',)
    """

    tokens_column: str = "tokens"
    tags_column: str = "tags"
    labels: tuple[str, ...] = ()

    name: ClassVar[str] = "token-classification"
    auto_model: ClassVar[Any] = AutoModelForTokenClassification
    best_metric: ClassVar[str] = "f1"
    infer_options: ClassVar[tuple[str, ...]] = ("text_columns", "label_column")

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(map(str, self.labels)))
        strange = [name for name in self.labels if name != OUTSIDE and not TAG.fullmatch(name)]
        repeated = len(set(self.labels)) < len(self.labels)
        if strange or repeated or OUTSIDE not in self.labels or len(self.labels) < 2:
            raise FtkitError(
                f'labels is {self.labels}; expected "O", and "B-TYPE" and "I-TYPE" for each type.'
            )

    @classmethod
    def _infer(cls, train: Dataset, options: dict[str, Any]) -> Self:
        """Take the columns and the types that train holds.

        Labels are O first, then B- and I- of every type, sorted: a type of which train holds
        single words only may have longer names in the other splits.
        """
        text_columns, label_column = options["text_columns"], options["label_column"]
        given = [*(text_columns or ["tokens"]), label_column or "tags"]
        asked = given if text_columns or label_column else None
        columns = guess_text_columns(train, asked, KNOWN_COLUMNS, "--text-columns, --label-column")
        if len(columns) != 2:
            raise FtkitError(f"--text-columns is {' '.join(columns[:-1])}; expected one column.")
        rows = [row for row in tag_lists(train, columns[1]) if isinstance(row, list)]
        tags = sorted({str(tag) for row in rows for tag in row})
        types = entity_types([tag for tag in tags if TAG.fullmatch(tag)])
        if not types:
            raise FtkitError(
                f'Column "{columns[1]}" of the training set holds no B-TYPE and no I-TYPE; its '
                f"tags are: {', '.join(tags[:5]) or train[0][columns[1]]}."
            )
        return cls(*columns, (OUTSIDE, *(f"{prefix}-{t}" for prefix in "BI" for t in types)))

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Say whether there are words and their tags."""
        return any(set(known) <= set(columns) for known in KNOWN_COLUMNS)

    @property
    def text_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The column of the words."""
        return (self.tokens_column,)

    @property
    def given_columns(self) -> tuple[str, ...]:
        """One plain text, which is cut into words."""
        return ("text",)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of entities, sorted."""
        return tuple(entity_types(self.labels))

    def model_options(self) -> dict[str, Any]:
        """Return what ``from_pretrained`` needs for this task's head."""
        names = dict(enumerate(self.labels))
        return {
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: i for i, name in names.items()},
        }

    def describe(self) -> str:
        """Return the column and the types, in one line."""
        return f"{self.tokens_column} → {', '.join(self.types)}"

    def check(self, splits: DatasetDict) -> None:
        """Raise one `FtkitError` that lists every bad row; return quietly where there is none."""
        problems: list[str] = []
        columns = self.tokens_column, self.tags_column
        for name, split in splits.items():
            if len(split) == 0:
                problems.append(f'split "{name}": has no rows; expected at least one.')
                continue
            missing = [p for column in columns for p in check_column(str(name), split, column)]
            problems += missing or word_problems(str(name), split, columns, self.labels)
        raise_problems(problems)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise `FtkitError` where the tokenizer cannot say which word a token is of."""
        check_words(tokenizer)

    def prepare(self, name: str, split: Dataset, tokenizer: Any) -> Dataset:
        """Add ``tag_ids``: for each word the number of its tag."""
        numbers = {label: i for i, label in enumerate(self.labels)}
        rows = tag_lists(split, self.tags_column)
        return with_column(split, "tag_ids", [[numbers[tag] for tag in tags] for tags in rows])

    def encode_rows(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn words into tokens; ``labels`` are -100 but at the first token of each word.

        ``positions`` and ``tag_ids`` are what scoring needs; see `Sentence`.
        """
        encoded = encode_words(rows[self.tokens_column], tokenizer, limit)
        encoded["tag_ids"] = rows["tag_ids"]
        return {**encoded, "labels": token_labels(encoded)}

    def check_encoded(self, splits: DatasetDict, encoded: DatasetDict, limit: int) -> None:
        """Warn of words that have no token."""
        warn_unseen(encoded, limit)

    def text_problems(self, texts: Sequence[tuple[str, ...]], tokenizer: Any) -> list[str]:
        """Return a sentence for each text without a word, too."""
        found = enumerate(texts, start=1)
        empty = [i for i, row in found if not row or not split_words(str(row[0]))]
        problems = super().text_problems(texts, tokenizer)
        return [*problems, *(f"text {i}: has no words." for i in empty)]

    def encode_inputs(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Cut plain texts into words and these into tokens; ``spans`` are the words' characters."""
        texts = rows["text"]
        spans = [split_words(text) for text in texts]
        words = [[text[a:b] for a, b in row] for text, row in zip(texts, spans, strict=True)]
        return {**encode_words(words, tokenizer, limit), "text": texts, "spans": spans}

    @torch.inference_mode()
    def outputs(self, model: Any, batch: Batch) -> Sequence[np.ndarray]:
        """Return each row's logits, shape (seq_len, n_labels), without those of the padding."""
        lengths = batch["attention_mask"].sum(dim=-1).tolist()
        return [row[:n] for row, n in zip(logits_of(model, batch), lengths, strict=True)]

    def references(self, dataset: Dataset) -> list[Sentence]:
        """Return the positions and the tags of each row's words."""
        return [
            Sentence(*row) for row in zip(dataset["positions"], dataset["tag_ids"], strict=True)
        ]

    def tags(self, outputs: Any, positions: Sequence[Sequence[int]]) -> list[list[str]]:
        """Return the tag of each word of each row: the likeliest at its first token.

        Parameters
        ----------
        outputs : sequence of ndarray of shape (seq_len, n_labels)
            From `ftkit.predict`, or a report's ``outputs``.
        positions : sequence of lists of int
            The encoded split's column; -1 gives O.
        """
        found = zip(outputs, positions, strict=True)
        return [[self.labels[i] for i in best_tag_ids(*row, self.labels)] for row in found]

    def row_statistics(self, outputs: Any, references: Sequence[Sentence]) -> np.ndarray:
        """Return the counts of each row, shape (n_rows, 4 + 3 * n_types); see `count_row`."""
        rows = zip(outputs, references, strict=True)
        return np.array([count_row(logits, row, self.labels, self.types) for logits, row in rows])

    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Compute scores of entities, accuracy of words, and loss.

        ``precision``, ``recall`` and ``f1`` are those of all entities (micro), ``accuracy`` is that
        of the words' tags, ``loss`` is in nats a word that has a token; ``f1_TYPE`` of each type.
        0/0 counts as 0.
        """
        return tag_metrics(sums, self.types)

    def per_class(self, sums: np.ndarray) -> dict[str, dict[str, float]]:
        """Return precision, recall, f1 and support (entities that are there) of each type."""
        counts = type_counts(sums, self.types)
        scores = {**entity_metrics(counts), "support": counts[:, 2]}
        columns = zip(*(values.tolist() for values in scores.values()), strict=True)
        pairs = zip(self.types, columns, strict=True)
        return {kind: dict(zip(scores, values, strict=True)) for kind, values in pairs}

    def is_correct(self, statistics: np.ndarray) -> np.ndarray:
        """Say of each sentence whether every word's tag is right."""
        return statistics[:, 2] == statistics[:, 3]

    def decode(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> list[tuple[str, ...]]:
        """Return the entities of each text, such as ``"Ann Lind=PER"``; ``"-"`` where none is."""
        lines = []
        tags = self.tags(outputs, encoded["positions"])
        for text, spans, row in zip(encoded["text"], encoded["spans"], tags, strict=True):
            found = find_entities(row)
            names = [f"{text[spans[e.start][0] : spans[e.end - 1][1]]}={e.type}" for e in found]
            lines.append(tuple(names) or ("-",))
        return lines
