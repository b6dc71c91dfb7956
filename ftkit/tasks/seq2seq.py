"""Sequence to sequence: write a target text for a source text, as translators do."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import sacrebleu
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from ftkit.data.batches import Batch
from ftkit.data.columns import check_texts, guess_text_columns
from ftkit.data.leaks import warn_leaks
from ftkit.errors import FtkitError, closest, raise_problems
from ftkit.metrics.ngrams import (
    bleu_score,
    bleu_statistics,
    chrf_score,
    chrf_statistics,
)
from ftkit.tasks.base import Task, train_split, wrong_widths
from ftkit.tasks.language_modeling import token_counts

KNOWN_PAIRS = (("english", "chinese"), ("text", "summary"), ("source", "target"))
CHINESE = re.compile("[\u4e00-\u9fff]")
COUNTS = 2  # numbers before the token ids in an output: nats, tokens


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
    def infer(  # type: ignore[override]
        cls, splits: DatasetDict, text_columns: Sequence[str] | None = None
    ) -> "Seq2Seq":
        """Take the given columns (source and target), or the usual ones; look for Chinese."""
        train = train_split(splits)
        texts = guess_text_columns(train, text_columns, KNOWN_PAIRS)
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

    def encode(
        self,
        splits: DatasetDict,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
    ) -> DatasetDict:
        """Check the rows, then turn sources into token ids and targets into labels.

        Labels stand unshifted and end with the end-of-text token. The task remembers the
        tokenizer: scores are of text, and the model's tokens must be read.

        Parameters
        ----------
        splits : DatasetDict
        tokenizer : PreTrainedTokenizerBase
            Must have an end-of-text token.
        max_length : int, optional
            Longer sources and targets are cut; by default at the tokenizer's own limit.

        Returns
        -------
        DatasetDict
            Columns ``input_ids``, ``attention_mask``, ``labels`` (lists of int), ``reference``
            (the target as text) and ``row``.

        Raises
        ------
        FtkitError
            Lists every bad row of every split; or the tokenizer has no end-of-text token.

        Warns
        -----
        LeakWarning
            A source stands in two splits.
        """
        self.check(splits)
        warn_leaks(splits, (self.source_column,))
        self._remember(tokenizer)
        end, limit = tokenizer.eos_token_id, max_length or tokenizer.model_max_length

        def encode_rows(rows: dict[str, list]) -> dict[str, list]:
            sources, targets = self._with_prefix(rows[self.source_column]), rows[self.target_column]
            encoded = tokenizer(
                sources, text_target=targets, truncation=True, max_length=max_length
            )
            labels: Any = encoded["labels"]
            ended = [ids if ids[-1:] == [end] else [*ids[: limit - 1], end] for ids in labels]
            names = ("input_ids", "attention_mask")
            return {**{n: encoded[n] for n in names}, "labels": ended, "reference": targets}

        drop = {name: [n for n in s.column_names if n != "row"] for name, s in splits.items()}
        encoded: dict[Any, Dataset] = {
            str(name): split.map(encode_rows, batched=True, remove_columns=drop[name])
            for name, split in splits.items()
        }
        return DatasetDict(encoded)

    def encode_texts(self, texts: Sequence[Sequence[str]], tokenizer: Any) -> Dataset:
        """Encode sources without targets: a tuple of one text for each row."""
        raise_problems(wrong_widths(texts, self.given_columns))
        encoded = tokenizer(self._with_prefix([text for (text,) in texts]), truncation=True)
        return Dataset.from_dict({n: encoded[n] for n in ("input_ids", "attention_mask")})

    def _with_prefix(self, sources: Sequence[str]) -> list[str]:
        return [self.prefix + source for source in sources]

    def _remember(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token_id is None:
            raise FtkitError("The tokenizer has no end-of-text token (eos_token); set one.")
        object.__setattr__(self, "_tokenizer", tokenizer)  # no field: nothing to save or compare

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

    def references(self, dataset: Dataset) -> list[str]:
        """Return the target of each row, as text."""
        return list(dataset["reference"])

    def row_statistics(self, outputs: Any, references: Any) -> np.ndarray:
        """Return each row's counts for chrF (18), for BLEU (10), its loss in nats, its tokens."""
        texts = self._texts(outputs)
        losses = np.array([output[:COUNTS] for output in outputs]).reshape(-1, COUNTS)
        words = bleu_statistics(texts, references, self.tokenize)
        return np.concatenate([chrf_statistics(texts, references), words, losses], axis=1)

    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Compute chrF2 and BLEU (0 to 100, as sacrebleu) and the loss (nats a token).

        Parameters
        ----------
        sums : ndarray of shape (..., 30)
        """
        letters, words, losses = np.split(sums, [18, 28], axis=-1)
        loss = losses[..., 0] / np.maximum(losses[..., 1], 1)
        return {"chrf": chrf_score(letters), "bleu": bleu_score(words), "loss": loss}

    def right(self, outputs: Any, references: Any) -> np.ndarray:
        """Say of each row whether the model wrote the reference, letter for letter."""
        pairs = zip(self._texts(outputs), references, strict=True)
        return np.array([text == reference.strip() for text, reference in pairs], dtype=bool)

    def _texts(self, outputs: Any) -> list[str]:
        tokenizer = getattr(self, "_tokenizer", None)
        if tokenizer is None:
            raise FtkitError(
                "This task has encoded nothing yet, so it knows no tokenizer to read the model's "
                "tokens with. Encode first: task.encode(splits, tokenizer)."
            )
        return _decode([output[COUNTS:] for output in outputs], tokenizer)

    def read(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> Sequence[tuple[str, ...]]:
        """Return the text that the model wrote for each row, with labels or without."""
        skipped = COUNTS if "labels" in encoded.column_names else 0
        return [(text,) for text in _decode([output[skipped:] for output in outputs], tokenizer)]


def _decode(rows: Sequence[np.ndarray], tokenizer: Any) -> list[str]:
    ids = [[int(i) for i in row] for row in rows]
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
