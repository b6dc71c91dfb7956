"""Masked language models: fill the gaps of a text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from ftkit.data.batches import Batch
from ftkit.data.columns import guess_text_columns
from ftkit.data.leaks import warn_leaks
from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, raise_problems
from ftkit.tasks.base import train_split, wrong_widths
from ftkit.tasks.language_modeling import IGNORED, LanguageModel, token_counts

SHOWN = 5  # tokens shown for a gap


@dataclass(frozen=True)
class MaskedLM(LanguageModel):
    """Fill gaps: predict the tokens of a text that were masked (BERT, Devlin et al. 2019).

    Of the chosen tokens 80 % become the mask, 10 % any token at random, 10 % stay. They are chosen
    when the rows are encoded, as in BERT itself: `n_maskings` copies of each training row differ.
    Special tokens are never chosen, and unknown ones only in a text that holds nothing else.

    Parameters
    ----------
    text_columns : tuple of str
        One column, or the two of a pair.
    mlm_probability : float
        Each token is chosen with this chance; at least one in each row is.
    n_maskings : int
        Copies of each training row, each with other tokens chosen.
    seed : int
        Decides which: the draws of a row are those of
        ``np.random.default_rng([seed, index of the row in its split, number of the copy])``.

    Raises
    ------
    FtkitError
        Not one or two columns, or a number that cannot be.

    Examples
    --------
    >>> MaskedLM(("text",), n_maskings=4).describe()
    'text'
    """

    text_columns: tuple[str, ...]
    mlm_probability: float = 0.15
    n_maskings: int = 1
    seed: int = 0

    name: ClassVar[str] = "masked-lm"
    auto_model: ClassVar[Any] = AutoModelForMaskedLM
    default_checkpoint: ClassVar[str] = "tiny-bert-zh"

    def __post_init__(self) -> None:
        object.__setattr__(self, "text_columns", tuple(self.text_columns))
        problems = []
        if len(self.text_columns) not in (1, 2):
            problems.append(f"text_columns is {self.text_columns}; expected one or two columns.")
        if not 0 < self.mlm_probability < 1:
            problems.append(
                f"mlm_probability is {self.mlm_probability}; expected more than 0, less than 1."
            )
        for name, least in (("n_maskings", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                problems.append(f"{name} is {value}; expected a whole number, {least} or more.")
        raise_problems(problems)

    @classmethod
    def infer(  # type: ignore[override]
        cls, splits: DatasetDict, text_columns: Sequence[str] | None = None
    ) -> "MaskedLM":
        """Take the given columns, or the usual ones."""
        return cls(guess_text_columns(train_split(splits), text_columns))

    def encode(
        self,
        splits: DatasetDict,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
    ) -> DatasetDict:
        """Check the rows, then turn them into token ids with gaps, and into labels: the gaps.

        Returns
        -------
        DatasetDict
            Columns ``input_ids``, ``attention_mask``, ``labels`` (lists of int; -100 but at the
            chosen tokens) and ``row``.

        Raises
        ------
        FtkitError
            Lists every bad row of every split, or the tokenizer has no mask token.

        Warns
        -----
        LeakWarning
            A text stands in two splits.
        """
        self.check(splits)
        warn_leaks(splits, self.text_columns)
        _check_mask_token(tokenizer)

        def encode_rows(rows: dict[str, list], indices: list[int], copies: int) -> dict[str, list]:
            texts: list[Any] = [list(rows[column]) for column in self.text_columns]
            whole = tokenizer(*texts, truncation=True, max_length=max_length)  # type: ignore[arg-type]
            encoded: dict[str, list] = {**whole, "labels": [None] * len(indices)}
            encoded = {name: values * copies for name, values in encoded.items()}
            if "row" in rows:
                encoded["row"] = rows["row"] * copies
            for i, ids in enumerate(encoded["input_ids"]):
                copy, place = divmod(i, len(indices))
                rng = np.random.default_rng([self.seed, indices[place], copy])
                encoded["input_ids"][i], encoded["labels"][i] = self._mask(ids, tokenizer, rng)
            return encoded

        def encode_split(name: str, split: Dataset) -> Dataset:
            copies = {"copies": self.n_maskings if name == "train" else 1}
            names = split.column_names
            return split.map(
                encode_rows, batched=True, with_indices=True, remove_columns=names, fn_kwargs=copies
            )

        encoded: dict[Any, Dataset] = {
            str(name): encode_split(str(name), split) for name, split in splits.items()
        }
        raise_problems(list(dict.fromkeys(_without_gap(encoded))))
        return DatasetDict(encoded)

    def _mask(
        self, ids: Sequence[int], tokenizer: Any, rng: np.random.Generator
    ) -> tuple[list[int], list[int]]:
        """Return the ids with gaps, and the labels."""
        tokens = np.array(ids)
        plain = np.flatnonzero(~np.isin(tokens, tokenizer.all_special_ids))
        if not len(plain):
            plain = np.flatnonzero(tokens == tokenizer.unk_token_id)
        chosen = plain[rng.random(len(plain)) < self.mlm_probability]
        if not len(chosen) and len(plain):
            chosen = rng.choice(plain, 1)
        labels = np.full(len(tokens), IGNORED)
        labels[chosen] = tokens[chosen]
        fate = rng.random(len(chosen))
        tokens[chosen[fate < 0.8]] = tokenizer.mask_token_id
        others = chosen[(fate >= 0.8) & (fate < 0.9)]
        tokens[others] = rng.integers(0, len(tokenizer), len(others))
        return tokens.tolist(), labels.tolist()

    def encode_texts(self, texts: Sequence[Sequence[str]], tokenizer: Any) -> Dataset:
        """Encode texts that hold the mask token where something is missing.

        Raises
        ------
        FtkitError
            Lists every text without a mask token, or with one too late to be read.
        """
        _check_mask_token(tokenizer)
        problems = wrong_widths(texts, self.text_columns)
        problems += [
            f"text {i}: holds no {tokenizer.mask_token}; expected one for each gap, such as "
            f'"It is {tokenizer.mask_token} today."'
            for i, row in enumerate(texts, start=1)
            if not any(tokenizer.mask_token in text for text in row)
        ]
        raise_problems(problems)
        columns = [list(column) for column in zip(*texts, strict=True)]
        encoded = dict(tokenizer(*columns, truncation=True))
        masks = [
            [token == tokenizer.mask_token_id for token in ids] for ids in encoded["input_ids"]
        ]
        limit = tokenizer.model_max_length
        problems = [
            f"text {i}: its {tokenizer.mask_token} stands after the {limit} tokens that are read."
            for i, mask in enumerate(masks, start=1)
            if not any(mask)
        ]
        raise_problems(problems)
        return Dataset.from_dict({**encoded, "gaps": masks})

    @torch.inference_mode()
    def outputs(self, model: Any, batch: Batch) -> Sequence[np.ndarray]:
        """Return each row's counts; of rows without labels, all probabilities of each token."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs).logits.float()
        if "labels" in batch:
            return list(token_counts(logits, batch["labels"]))
        return list(logits.softmax(-1).cpu().numpy())

    def read(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> Sequence[tuple[str, ...]]:
        """Return for each gap of each row its likeliest tokens with their probabilities."""
        lines = []
        for chances, gaps in zip(outputs, encoded["gaps"], strict=True):
            fields = []
            for row in chances[: len(gaps)][np.array(gaps)]:
                best = row[: len(tokenizer)].argsort()[::-1][:SHOWN]
                fields.append(" ".join(f"{tokenizer.decode([i])} {row[i]:.3f}" for i in best))
            lines.append(tuple(fields))
        return lines


def _check_mask_token(tokenizer: Any) -> None:
    if tokenizer.mask_token_id is None:
        raise FtkitError("The tokenizer has no mask token: it is not of a masked model.")


def _without_gap(encoded: Mapping[str, Dataset]) -> Iterator[str]:
    for name, split in encoded.items():
        for i, labels in enumerate(split["labels"]):
            if max(labels, default=IGNORED) == IGNORED:
                yield f"{row_name(name, split, i)}: the tokenizer makes no token of its text."
