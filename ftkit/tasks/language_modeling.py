"""Language models: continue a text token by token, and count how well."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from ftkit.data.batches import Batch
from ftkit.data.columns import check_texts, guess_text_columns
from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, raise_problems
from ftkit.tasks.base import Task
from ftkit.tasks.generation import MAX_NEW_TOKENS, generate
from ftkit.tasks.truncation import LENGTH

IGNORED = -100  # the label of a token that the loss leaves out
KNOWN_TEXTS = (("completion",), ("text",), ("story", "moral"), ("story",))
KNOWN_PROMPTS = ("prompt", "title")
STORIES = {"story", "completion"}


class LanguageModel(Task):
    """What causal and masked language models share: the loss of each token and its mean."""

    new_head: ClassVar[bool] = False
    best_metric: ClassVar[str] = "loss"
    greater_is_better: ClassVar[bool] = False
    evaluation_batch_size: ClassVar[int] = 8  # logits have the vocabulary's width

    def check(self, splits: DatasetDict) -> None:
        """Raise one `FtkitError` that lists every missing and every empty text."""
        check_texts(splits, self.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        return self.text_columns

    def references(self, dataset: Dataset) -> None:
        """Return nothing: the outputs are counts already."""

    def row_statistics(self, outputs: Any, references: Any) -> np.ndarray:
        """Return for each row its loss in nats, its tokens, and how many were the likeliest."""
        return np.stack(list(outputs))

    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Compute loss (nats a token), perplexity = exp(loss), and accuracy of the tokens.

        Parameters
        ----------
        sums : ndarray of shape (..., 3)
        """
        loss = sums[..., 0] / np.maximum(sums[..., 1], 1)
        accuracy = sums[..., 2] / np.maximum(sums[..., 1], 1)
        return {"loss": loss, "perplexity": np.exp(loss), "accuracy": accuracy}

    def is_correct(self, statistics: np.ndarray) -> np.ndarray:
        """Say of each row whether every token was the likeliest."""
        return statistics[:, 2] == statistics[:, 1]


def token_counts(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Count a batch's loss in nats, its labels, and those that were the likeliest, row by row.

    Parameters
    ----------
    logits : Tensor of shape (batch, seq_len, vocab_size)
    labels : Tensor of shape (batch, seq_len)
        -100 where the loss looks away.

    Returns
    -------
    ndarray of shape (batch, 3)
    """
    counted = labels != IGNORED
    nats = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
    correct = (logits.argmax(-1) == labels) & counted
    columns = (nats.view(labels.shape).sum(-1), counted.sum(-1), correct.sum(-1))
    return torch.stack([column.double() for column in columns], dim=-1).cpu().numpy()


@dataclass(frozen=True)
class CausalLM(LanguageModel):
    """Continue a text: predict each token from those before it.

    A row reads: prompt columns, text columns, each on a line of its own, then the end-of-text
    token. The loss looks at the text columns and the end only.

    Parameters
    ----------
    text_columns : tuple of str
        What the model learns to write.
    prompt_columns : tuple of str
        What it is given.
    max_new_tokens : int
        The most that `ftkit.predict` adds to a prompt.

    Examples
    --------
    >>> CausalLM(("story", "moral"), prompt_columns=("title",)).columns
    ('title', 'story', 'moral')
    """

    text_columns: tuple[str, ...]
    prompt_columns: tuple[str, ...] = ()
    max_new_tokens: int = MAX_NEW_TOKENS

    name: ClassVar[str] = "causal-lm"
    auto_model: ClassVar[Any] = AutoModelForCausalLM
    default_checkpoint: ClassVar[str] = "tiny-stories-gpt"
    infer_options: ClassVar[tuple[str, ...]] = ("text_columns", "prompt_columns")

    def __post_init__(self) -> None:
        if not self.text_columns or set(self.text_columns) & set(self.prompt_columns):
            raise FtkitError(f'"{self.describe()}": expected columns to learn, none of them given.')
        if self.max_new_tokens < 1:
            raise FtkitError(f"max_new_tokens is {self.max_new_tokens}; expected 1 or more.")

    @classmethod
    def _infer(cls, train: Dataset, options: dict[str, Any]) -> Self:
        given, prompt_columns = options["text_columns"], options["prompt_columns"]
        texts = guess_text_columns(train, given, KNOWN_TEXTS)
        if prompt_columns is None and given is None:
            known = [name for name in KNOWN_PROMPTS if name in train.column_names]
            prompt_columns = known[:1] if STORIES & set(texts) else []
        prompts = guess_text_columns(train, prompt_columns) if prompt_columns else ()
        return cls(texts, prompts)

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Say whether there are stories or completions."""
        return bool(STORIES & set(columns))

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read, in their order."""
        return (*self.prompt_columns, *self.text_columns)

    @property
    def given_columns(self) -> tuple[str, ...]:
        """The prompt; without prompt columns, the beginning of a text."""
        return self.prompt_columns or ("text",)

    def describe(self) -> str:
        """Return what is given and what is learned, in one line."""
        given = f"{', '.join(self.prompt_columns)} → " if self.prompt_columns else ""
        return given + ", ".join(self.text_columns)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise `FtkitError` where the tokenizer has no end-of-text token."""
        check_end(tokenizer)

    def encode_rows(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Join prompt and text, and cut at the end; ``labels`` are -100 for the prompt."""
        prompts = self._prompt_ids([rows[name] for name in self.prompt_columns], tokenizer)
        columns = zip(*(rows[name] for name in self.text_columns), strict=True)
        texts = _ids(["\n".join(parts) for parts in columns], tokenizer)
        begin, end = _beginning(tokenizer), [tokenizer.eos_token_id]
        heads = [begin + ids for ids in prompts or [[] for _ in texts]]
        pairs = [(head, ids + end) for head, ids in zip(heads, texts, strict=True)]
        ids = [(head + text)[:limit] for head, text in pairs]
        return {
            "input_ids": ids,
            "attention_mask": [[1] * len(row) for row in ids],
            "labels": [([IGNORED] * len(head) + text)[:limit] for head, text in pairs],
            LENGTH: [len(head) + len(text) for head, text in pairs],
        }

    def check_encoded(self, splits: DatasetDict, encoded: DatasetDict, limit: int) -> None:
        """Raise one `FtkitError` that lists the rows whose prompt leaves no room for the text."""
        full = f"the prompt fills all {limit} tokens and leaves none for the text."
        crowded = [
            row_name(str(name), split, i)
            for name, split in encoded.items()
            for i, labels in enumerate(split["labels"])
            if max(labels) == IGNORED
        ]
        raise_problems([f"{where}: {full}" for where in crowded])

    def encode_inputs(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Encode prompts, or where the task has no prompt columns the beginnings of texts."""
        columns = [rows[name] for name in self.given_columns]
        if self.prompt_columns:
            ids = self._prompt_ids(columns, tokenizer)
        else:
            ids = _ids(columns[0], tokenizer)
        ids = [_beginning(tokenizer) + row for row in ids]
        wrong = [(i, len(row)) for i, row in enumerate(ids, start=1) if not 0 < len(row) < limit]
        raise_problems([f"text {i}: {n} tokens came; expected 1 to {limit - 1}." for i, n in wrong])
        return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of each token after the first, in nats.

        Computed here, as some models (`BartForCausalLM`) compare each token with itself.
        """
        logits = next_token_logits(model, batch)
        return cross_entropy(logits.flatten(0, 1).float(), batch["labels"][:, 1:].flatten())

    def count_labels(self, batch: Batch) -> int:
        """Count the labels that are predicted: no first token is."""
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def _prompt_ids(self, columns: Sequence[Sequence[str]], tokenizer: Any) -> list[list[int]]:
        lines = ["".join(f"{text}\n" for text in row) for row in zip(*columns, strict=True)]
        return _ids(lines, tokenizer) if lines else []

    @torch.inference_mode()
    def outputs(self, model: Any, batch: Batch) -> Sequence[np.ndarray]:
        """Return each row's counts; of rows without labels, the tokens that the model adds.

        Greedily, unless ``model.generation_config``, saved with the model, says ``do_sample``.
        """
        if "labels" in batch:
            logits = next_token_logits(model, batch)
            return list(token_counts(logits, batch["labels"][:, 1:]))
        return generate(model, batch, self.max_new_tokens)

    def decode(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> Sequence[tuple[str, ...]]:
        """Return the text that the model added to each."""
        return [(tokenizer.decode(ids, skip_special_tokens=True),) for ids in outputs]


def next_token_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Return the logits for each token after the first, (batch, seq_len - 1, vocab_size).

    Rows that were packed (`ftkit.data.pack`) are kept apart by their positions, which transformers
    looks at only where no cache of keys and values is made.
    """
    inputs: dict[str, Any] = {n: tensor for n, tensor in batch.items() if n != "labels"}
    if "position_ids" in batch:
        inputs["use_cache"] = False
    return model(**inputs).logits[:, :-1]  # the last one predicts what is not there


def check_end(tokenizer: Any) -> None:
    """Raise `FtkitError` where a tokenizer has no end-of-text token."""
    if tokenizer.eos_token_id is None:
        raise FtkitError("The tokenizer has no end-of-text token (eos_token); set one.")


def _beginning(tokenizer: Any) -> list[int]:
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def _ids(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
