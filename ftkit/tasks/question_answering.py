"""Extractive question answering: find the answer to a question in a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForQuestionAnswering

from ftkit.data.batches import SPAN_COLUMNS, Batch
from ftkit.data.columns import check_column, check_texts, guess_text_columns, with_column
from ftkit.errors import FtkitError, raise_problems
from ftkit.metrics.squad import answer_f1, exact_match
from ftkit.tasks.answers.references import answer_pairs, answer_problems, question_name
from ftkit.tasks.answers.spans import (
    Answer,
    Question,
    best_answers,
    group_windows,
    window_loss,
)
from ftkit.tasks.answers.windows import (
    check_offsets,
    label_windows,
    long_questions,
    make_windows,
    warn_cut_answers,
)
from ftkit.tasks.base import SOURCE, Task

KNOWN_COLUMNS = ("question", "context", "answers")


@dataclass(frozen=True)
class QuestionAnswering(Task):
    """Find the answer in a context: its first and its last token (SQuAD, Rajpurkar et al. 2016).

    A context that is too long for one row of tokens becomes several overlapping windows, each
    after the same question. Where a window does not hold the whole answer, both labels are the
    place of ``[CLS]``.

    Parameters
    ----------
    question_column, context_column : str
    answers_column : str
        Each value has ``text`` and ``answer_start`` (in characters), lists of one length, as in
        SQuAD; or it is a list of such pairs. The first answer trains; all of them score.
    max_length : int
        Tokens in a window, question and special tokens included.
    stride : int
        Tokens of the context that two neighbouring windows share. Where a tokenizer's limit is
        lower than `max_length`, both shrink alike.
    max_answer_tokens : int
        The longest answer that is looked for.

    Raises
    ------
    FtkitError
        Not ``0 <= stride < max_length``, or `max_answer_tokens` below 1.

    Examples
    --------
    >>> QuestionAnswering().given_columns
    ('question', 'context')
    """

    question_column: str = "question"
    context_column: str = "context"
    answers_column: str = "answers"
    max_length: int = 384
    stride: int = 128
    max_answer_tokens: int = 30

    name: ClassVar[str] = "question-answering"
    auto_model: ClassVar[Any] = AutoModelForQuestionAnswering
    best_metric: ClassVar[str] = "f1"
    infer_options: ClassVar[tuple[str, ...]] = ("text_columns", "label_column")

    def __post_init__(self) -> None:
        problems = []
        if not 0 <= self.stride < self.max_length:
            problems.append(f"stride is {self.stride}; expected 0 to {self.max_length - 1}.")
        if self.max_answer_tokens < 1:
            problems.append(f"max_answer_tokens is {self.max_answer_tokens}; expected 1 or more.")
        raise_problems(problems)

    @classmethod
    def _infer(cls, train: Dataset, options: dict[str, Any]) -> Self:
        texts = guess_text_columns(train, options["text_columns"], [KNOWN_COLUMNS[:2]])
        if len(texts) != 2:
            raise FtkitError(f"--text-columns is {' '.join(texts)}; expected question and context.")
        label_column = options["label_column"] or KNOWN_COLUMNS[2]
        raise_problems(check_column("train", train, label_column))
        return cls(texts[0], texts[1], label_column)

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Say whether there are the columns of SQuAD."""
        return set(KNOWN_COLUMNS) <= set(columns)

    @property
    def text_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The question's column and the context's."""
        return self.question_column, self.context_column

    def describe(self) -> str:
        """Return what goes in and what comes out, in one line."""
        return f"{', '.join(self.text_columns)} → {self.answers_column}"

    def check(self, splits: DatasetDict) -> None:
        """Raise one `FtkitError` that lists every bad row; return quietly where there is none."""
        check_texts(splits, self.text_columns)
        problems, columns = list[str](), (self.context_column, self.answers_column)
        for name, split in splits.items():
            missing = check_column(str(name), split, self.answers_column)
            problems += missing or answer_problems(str(name), split, *columns)
        raise_problems(problems)

    def limit(self, tokenizer: Any, max_length: int | None = None) -> int:
        """Return the tokens of a window: the task's own number, where no other is given."""
        return super().limit(tokenizer, self.max_length if max_length is None else max_length)

    def _sizes(self, limit: int) -> tuple[int, int]:
        """Return the tokens of a window, and of those the ones that the next one shares."""
        return limit, min(self.stride, self.stride * limit // self.max_length)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise `FtkitError` where the tokenizer does not say where its tokens stand."""
        check_offsets(tokenizer)

    def check_lengths(self, splits: DatasetDict, tokenizer: Any, limit: int) -> None:
        """Raise one `FtkitError` that lists the questions that leave no room for the context."""
        raise_problems(
            [
                f"{question_name(str(name), split, i)}: {problem}"
                for name, split in splits.items()
                for i, problem in long_questions(
                    split[self.question_column], tokenizer, *self._sizes(limit)
                )
            ]
        )

    def prepare(self, name: str, split: Dataset, tokenizer: Any) -> Dataset:
        """Add ``question_index``: the place of each question in its split."""
        return with_column(split, "question_index", list(range(len(split))))

    def encode_rows(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn each question into one window or more, and its answer into places.

        A row a window: ``input_ids``, ``attention_mask`` (lists of int), ``start_positions``,
        ``end_positions`` (int); ``question_index`` (the row of the split), ``context``, ``answers``
        (list of str), ``offsets`` (see `spans.Question`).
        """
        encoded = self._windows(rows, tokenizer, limit)
        pairs = [answer_pairs(answers) for answers in rows[self.answers_column]]
        label_windows(encoded, pairs, tokenizer.cls_token_id)
        source = encoded["question_index"]
        encoded["question_index"] = [rows["question_index"][i] for i in source]
        return {**encoded, SOURCE: source}

    def check_encoded(self, splits: DatasetDict, encoded: DatasetDict, limit: int) -> None:
        """Warn of answers that no window holds whole."""
        warn_cut_answers(splits, encoded)

    def encode_inputs(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn each question into one window or more; see `make_windows`."""
        long = long_questions(rows[self.question_column], tokenizer, *self._sizes(limit))
        raise_problems([f"text {i + 1}: {problem}" for i, problem in long])
        return self._windows(rows, tokenizer, limit)

    def _windows(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        questions, contexts = (rows[column] for column in self.text_columns)
        encoded = make_windows(questions, contexts, tokenizer, *self._sizes(limit))
        return {**encoded, "context": [contexts[i] for i in encoded["question_index"]]}

    def count_labels(self, batch: Batch) -> int:
        """Count the windows."""
        return len(batch["input_ids"])

    @torch.inference_mode()
    def outputs(self, model: Any, batch: Batch) -> Sequence[np.ndarray]:
        """Return the logits of start and end for each window, shape (2, seq_len), float32."""
        inputs = {name: tensor for name, tensor in batch.items() if name not in SPAN_COLUMNS}
        found = model(**inputs)
        logits = torch.stack([found.start_logits, found.end_logits], dim=1).float().cpu().numpy()
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        return [row[:, :length] for row, length in zip(logits, lengths, strict=True)]

    def references(self, dataset: Dataset) -> list[Question]:
        """Return the questions of an encoded split, each with its windows and its answers."""
        return group_windows(dataset)

    def best(self, outputs: Sequence[np.ndarray], question: Question) -> Answer:
        """Return the best answer to a question; an empty one where its context has no token.

        Parameters
        ----------
        outputs : sequence of ndarray of shape (2, seq_len)
            Of the whole split, from `ftkit.predict`.
        question : Question
            Out of `references`.
        """
        logits = [outputs[i] for i in question.windows]
        found = best_answers(question, logits, max_answer_tokens=self.max_answer_tokens)
        return found[0] if found else Answer("", 0, -np.inf, 0.0)

    def row_statistics(self, outputs: Any, references: Sequence[Question]) -> np.ndarray:
        """Count for each question: exact match, F1, 1, its windows' loss in nats, windows.

        Parameters
        ----------
        outputs : sequence of ndarray of shape (2, seq_len)
            One a window.
        references : sequence of Question

        Returns
        -------
        ndarray of shape (n_questions, 5)
        """
        counts = []
        for question in references:
            answer = self.best(outputs, question).text
            places = zip(question.windows, question.positions, strict=True)
            loss = sum(window_loss(outputs[i], place) for i, place in places)
            scores = exact_match(answer, question.answers), answer_f1(answer, question.answers)
            counts.append([*scores, 1, loss, len(question.windows)])
        return np.array(counts)

    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Compute exact match and F1 (means over the questions, 0 to 1), and loss.

        The loss is that of the model: of each window the mean of two cross-entropies, that of the
        answer's start and that of its end, in nats.

        Parameters
        ----------
        sums : ndarray of shape (..., 5)
        """
        n_questions, n_windows = np.maximum(sums[..., 2], 1), np.maximum(sums[..., 4], 1)
        return {
            "exact_match": sums[..., 0] / n_questions,
            "f1": sums[..., 1] / n_questions,
            "loss": sums[..., 3] / n_windows,
        }

    def is_correct(self, statistics: np.ndarray) -> np.ndarray:
        """Say of each question whether its answer is an exact match."""
        return statistics[:, 0] == 1

    def decode(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> Sequence[tuple[str, ...]]:
        """Return for each question its best answer and that span's probability."""
        found = [self.best(outputs, question) for question in group_windows(encoded)]
        return [(answer.text, f"{answer.probability:.3f}") for answer in found]
