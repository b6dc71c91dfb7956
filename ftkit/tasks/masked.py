"""Masked language models: fill the gaps of a text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForMaskedLM

from ftkit.data.batches import Batch
from ftkit.data.columns import guess_text_columns, with_column
from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, raise_problems
from ftkit.tasks.base import SOURCE
from ftkit.tasks.language_modeling import IGNORED, LanguageModel, token_counts
from ftkit.tasks.truncation import LENGTH, tokenize

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
    def _infer(cls, train: Dataset, options: dict[str, Any]) -> Self:
        return cls(guess_text_columns(train, options["text_columns"]))

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise `FtkitError` where the tokenizer has no mask token."""
        if tokenizer.mask_token_id is None:
            raise FtkitError("The tokenizer has no mask token: it is not of a masked model.")

    def prepare(self, name: str, split: Dataset, tokenizer: Any) -> Dataset:
        """Add ``seeds``: for each row those of its copies."""
        copies = range(self.n_maskings if name == "train" else 1)
        seeds = [[[self.seed, i, copy] for copy in copies] for i in range(len(split))]
        return with_column(split, "seeds", seeds)

    def encode_rows(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn texts into tokens with gaps; ``labels`` are -100 but at the gaps."""
        whole = tokenize(tokenizer, [rows[column] for column in self.text_columns], limit)
        lengths, copies = whole.pop(LENGTH), len(rows["seeds"][0])
        encoded = {name: values * copies for name, values in whole.items()}
        seeds = [row[copy] for copy in range(copies) for row in rows["seeds"]]
        draws = [
            self._mask(ids, tokenizer, np.random.default_rng(seed))
            for ids, seed in zip(encoded["input_ids"], seeds, strict=True)
        ]
        encoded["input_ids"], encoded["labels"] = map(list, zip(*draws, strict=True))
        again = [0] * (len(lengths) * (copies - 1))  # a row counts once as cut, not each copy
        return {**encoded, LENGTH: lengths + again, SOURCE: list(range(len(lengths))) * copies}

    def check_encoded(self, splits: DatasetDict, encoded: DatasetDict, limit: int) -> None:
        """Raise one `FtkitError` that lists the rows without a token."""
        raise_problems(list(dict.fromkeys(_without_gap(encoded))))

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

    def text_problems(self, texts: Sequence[tuple[str, ...]], tokenizer: Any) -> list[str]:
        """Return a sentence for each text without a mask token, too."""
        return [
            *super().text_problems(texts, tokenizer),
            *(
                f"text {i}: holds no {tokenizer.mask_token}; expected one for each gap, such as "
                f'"It is {tokenizer.mask_token} today."'
                for i, row in enumerate(texts, start=1)
                if not any(tokenizer.mask_token in str(text) for text in row)
            ),
        ]

    def encode_inputs(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Turn texts into tokens; ``gaps`` are the places of the mask token.

        Raises
        ------
        FtkitError
            Lists every text whose mask token stands too late to be read.
        """
        encoded = tokenize(tokenizer, [rows[column] for column in self.text_columns], limit)
        gaps = [[token == tokenizer.mask_token_id for token in ids] for ids in encoded["input_ids"]]
        raise_problems(
            [
                f"text {i}: its {tokenizer.mask_token} stands after the {limit} tokens that are "
                f"read."
                for i, row in enumerate(gaps, start=1)
                if not any(row)
            ]
        )
        return {**encoded, "gaps": gaps}

    @torch.inference_mode()
    def outputs(self, model: Any, batch: Batch) -> Sequence[np.ndarray]:
        """Return each row's counts; of rows without labels, all probabilities of each token."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs).logits.float()
        if "labels" in batch:
            return list(token_counts(logits, batch["labels"]))
        return list(logits.softmax(-1).cpu().numpy())

    def decode(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> Sequence[tuple[str, ...]]:
        """Return for each gap of each row its likeliest tokens with their probabilities."""
        lines = []
        for chances, gaps in zip(outputs, encoded["gaps"], strict=True):
            fields = []
            for row in chances[: len(gaps)][np.array(gaps)]:
                best = row[: len(tokenizer)].argsort()[::-1][:SHOWN]
                fields.append(" ".join(f"{tokenizer.decode([i])} {row[i]:.3f}" for i in best))
            lines.append(tuple(fields))
        return lines


def _without_gap(encoded: DatasetDict) -> Iterator[str]:
    for name, split in encoded.items():
        for i, labels in enumerate(split["labels"]):
            if max(labels, default=IGNORED) == IGNORED:
                yield f"{row_name(str(name), split, i)}: the tokenizer makes no token of its text."
