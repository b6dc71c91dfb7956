"""Sequence to sequence: write a target text for a source text, as translators do."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import sacrebleu
import torch
from datasets import Dataset, DatasetDict
from datasets.fingerprint import Hasher
from transformers import AutoModelForSeq2SeqLM

from ftkit.data.batches import Batch
from ftkit.data.columns import check_texts, guess_text_columns, with_column
from ftkit.errors import FtkitError, closest, raise_problems
from ftkit.metrics.ngrams import (
    bleu_score,
    bleu_statistics,
    chrf_score,
    chrf_statistics,
)
from ftkit.tasks.base import Task
from ftkit.tasks.language_modeling import check_end, token_counts
from ftkit.tasks.truncation import LENGTH, tokenize

KNOWN_PAIRS = (("english", "chinese"), ("text", "summary"), ("source", "target"))
CHINESE = re.compile("[\u4e00-\u9fff]")
COUNTS = 2  # numbers before the token ids in an output: nats, tokens
TOKENIZERS: dict[str, Any] = {}  # by fingerprint; an encoded row names the one that made it
UNKNOWN = (
    "Nobody knows the tokenizer that the model's tokens are read with: these references are plain "
    "text, or were encoded in another process. Encode first: task.encode(splits, tokenizer)."
)


class Target(str):
    """A reference, and the tokenizer with which an output is read that is counted against it."""

    tokenizer: Any

    def __new__(cls, text: str, tokenizer: Any) -> Self:
        """Return the text, which equals any other text that reads the same."""
        target = super().__new__(cls, text)
        target.tokenizer = tokenizer
        return target

    def __getnewargs__(self) -> tuple[str, Any]:  # type: ignore[override]
        """Return what a copy is made of."""
        return str(self), self.tokenizer


@dataclass(frozen=True)
class Seq2Seq(Task):
    """Write a target text for a source text: a translation, a summary.

    The model is an encoder and a decoder (Vaswani et al. 2017). In training the decoder is given
    the target itself, one place later ("teacher forcing"): the model shifts the labels. For the
    scores it writes by itself, greedily or as ``model.generation_config`` says.

    Parameters
    ----------
    source_column, target_column : str
    prefix : str
        Stands before each source, such as T5's ``"summarize: "``.
    tokenize : str
        How sacrebleu finds words for BLEU: ``"13a"``, or ``"zh"`` where targets are Chinese.
    max_new_tokens : int
        The longest text that the model may write; shorter where the model has fewer places.

    Raises
    ------
    FtkitError
        One column for both, no tokenizer of that name, or `max_new_tokens` below 1.

    Examples
    --------
    >>> Seq2Seq("english", "chinese", tokenize="zh").describe()
    'english → chinese'
    """

    source_column: str
    target_column: str
    prefix: str = ""
    tokenize: str = "13a"
    max_new_tokens: int = 64

    name: ClassVar[str] = "seq2seq"
    auto_model: ClassVar[Any] = AutoModelForSeq2SeqLM
    default_checkpoint: ClassVar[str] = "tiny-en-zh"
    new_head: ClassVar[bool] = False
    best_metric: ClassVar[str] = "chrf"
    evaluation_batch_size: ClassVar[int] = 32  # logits have the vocabulary's width

    def __post_init__(self) -> None:
        problems, known = [], sacrebleu.BLEU.TOKENIZERS
        if self.source_column == self.target_column:
            problems.append(f'source and target are both "{self.source_column}"; expected two.')
        if self.tokenize not in known:
            problems.append(f'tokenize is "{self.tokenize}". {closest(self.tokenize, known)}')
        if self.max_new_tokens < 1:
            problems.append(f"max_new_tokens is {self.max_new_tokens}; expected 1 or more.")
        raise_problems(problems)

    @classmethod
    def _infer(cls, train: Dataset, options: dict[str, Any]) -> Self:
        """Take the columns; look for Chinese in the targets."""
        texts = guess_text_columns(train, options["text_columns"], KNOWN_PAIRS)
        if len(texts) != 2:
            raise FtkitError(f"--text-columns is {' '.join(texts)}; expected source and target.")
        chinese = any(CHINESE.search(str(text)) for text in train[:100][texts[1]])
        return cls(texts[0], texts[1], tokenize="zh" if chinese else "13a")

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Say whether there is a text and its translation or summary."""
        return any(set(pair) <= set(columns) for pair in KNOWN_PAIRS)

    @property
    def text_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The source's column and the target's."""
        return self.source_column, self.target_column

    @property
    def given_columns(self) -> tuple[str, ...]:
        """The source."""
        return (self.source_column,)

    def describe(self) -> str:
        """Return what goes in and what comes out, in one line."""
        return f"{self.source_column} → {self.target_column}"

    def check(self, splits: DatasetDict) -> None:
        """Raise one `FtkitError` that lists every missing and every empty text."""
        check_texts(splits, self.text_columns)

    @property
    def leak_columns(self) -> tuple[str, ...]:
        """The source: two good translations of one sentence differ."""
        return (self.source_column,)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise `FtkitError` where the tokenizer has no end-of-text token."""
        check_end(tokenizer)

    def prepare(self, name: str, split: Dataset, tokenizer: Any) -> Dataset:
        """Add ``tokenizer``: the fingerprint of the one that encodes, to be found by it again."""
        fingerprint = Hasher.hash(tokenizer)
        TOKENIZERS[fingerprint] = tokenizer
        return with_column(split, "tokenizer", [fingerprint] * len(split))

    def encode_rows(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn sources into tokens, and targets into ``labels``: unshifted, the end token last.

        ``reference`` is the target as text: scores are of text, and what the model writes is read
        with the tokenizer that encoded the row.
        """

        def as_target(texts: list[str], **options: Any) -> Any:
            return tokenizer(text_target=texts, **options)

        encoded = self.encode_inputs(rows, tokenizer, limit)
        targets = tokenize(as_target, [rows[self.target_column]], limit)
        end, ids = [tokenizer.eos_token_id], targets["input_ids"]
        return {
            **encoded,
            "labels": [row if row[-1:] == end else row[: limit - 1] + end for row in ids],
            "reference": rows[self.target_column],
            "tokenizer": rows["tokenizer"],
            LENGTH: list(map(max, encoded[LENGTH], targets[LENGTH])),
        }

    def encode_inputs(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn sources into tokens."""
        sources = [self.prefix + source for source in rows[self.source_column]]
        encoded = tokenize(tokenizer, [sources], limit)
        return {name: encoded[name] for name in ("input_ids", "attention_mask", LENGTH)}

    @torch.inference_mode()
    def outputs(self, model: Any, batch: Batch) -> Sequence[np.ndarray]:
        """Return the tokens that the model writes for each row; before them, with labels, counts.

        Parameters
        ----------
        model : PreTrainedModel
            In eval mode.
        batch : dict of torch.Tensor

        Returns
        -------
        list of ndarray
            Without labels: token ids, start and padding left out. With labels: the loss in nats
            when the decoder is given the reference, the number of its tokens, then the ids.
        """
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        places = getattr(model.config, "max_position_embeddings", self.max_new_tokens + 1)
        longest = min(self.max_new_tokens, places - 1)  # the start takes a place too
        written = model.generate(**inputs, max_new_tokens=longest)
        special = (model.config.pad_token_id, model.config.decoder_start_token_id)
        ids = [[i for i in row if i not in special] for row in written.tolist()]
        if "labels" not in batch:
            return [np.array(row, dtype=int) for row in ids]
        counts = token_counts(model(**batch).logits, batch["labels"])[:, :COUNTS]
        return [np.array([*n, *row]) for n, row in zip(counts, ids, strict=True)]

    def references(self, dataset: Dataset) -> list[Target]:
        """Return the target of each row, as text, with the tokenizer that encoded the row.

        Raises
        ------
        FtkitError
            The rows were encoded in another process, so that the tokenizer is not here.
        """
        columns = zip(dataset["reference"], dataset["tokenizer"], strict=True)
        try:
            return [Target(text, TOKENIZERS[name]) for text, name in columns]
        except KeyError as error:
            raise FtkitError(UNKNOWN) from error

    def row_statistics(self, outputs: Any, references: Sequence[Target]) -> np.ndarray:
        """Count for each row what chrF (18) and BLEU (10) need, nats, tokens, and 1 if exact.

        Parameters
        ----------
        outputs : sequence of ndarray
            With labels; see `outputs`.
        references : sequence of Target
            From `references`.

        Returns
        -------
        ndarray of shape (n_rows, 31)
        """
        if not all(isinstance(target, Target) for target in references):
            raise FtkitError(UNKNOWN)
        texts = [
            _decode([output[COUNTS:]], target.tokenizer)[0]
            for output, target in zip(outputs, references, strict=True)
        ]
        losses = np.array([output[:COUNTS] for output in outputs]).reshape(-1, COUNTS)
        exact = [[text == target.strip()] for text, target in zip(texts, references, strict=True)]
        words = bleu_statistics(texts, references, self.tokenize)
        return np.concatenate([chrf_statistics(texts, references), words, losses, exact], axis=1)

    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Compute chrF2 and BLEU (0 to 100, as sacrebleu) and the loss (nats a token).

        Parameters
        ----------
        sums : ndarray of shape (..., 31)
        """
        letters, words, losses = np.split(sums[..., :30], [18, 28], axis=-1)
        loss = losses[..., 0] / np.maximum(losses[..., 1], 1)
        return {"chrf": chrf_score(letters), "bleu": bleu_score(words), "loss": loss}

    def is_correct(self, statistics: np.ndarray) -> np.ndarray:
        """Say of each row whether the model wrote the reference, letter for letter."""
        return statistics[:, -1] == 1

    def decode(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> Sequence[tuple[str, ...]]:
        """Return the text that the model wrote for each row, with labels or without."""
        skipped = COUNTS if "labels" in encoded.column_names else 0
        return [(text,) for text in _decode([output[skipped:] for output in outputs], tokenizer)]


def _decode(rows: Sequence[np.ndarray], tokenizer: Any) -> list[str]:
    ids = [[int(i) for i in row] for row in rows]
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
