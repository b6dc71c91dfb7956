"""Language models: continue a text token by token, and count how well."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch.nn.functional import cross_entropy, pad
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from ftkit.data.batches import Batch
from ftkit.data.columns import check_texts, guess_text_columns
from ftkit.data.leaks import warn_leaks
from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, raise_problems
from ftkit.tasks.base import Task, train_split, wrong_widths

IGNORED = -100  # the label of a token that the loss leaves out
MAX_NEW_TOKENS = 256  # fewer where the model has fewer positions left
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

    def right(self, outputs: Any, references: Any) -> np.ndarray:
        """Say of each row whether every token was the likeliest."""
        counts = self.row_statistics(outputs, references)
        return counts[:, 2] == counts[:, 1]


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

    Examples
    --------
    >>> CausalLM(("story", "moral"), prompt_columns=("title",)).columns
    ('title', 'story', 'moral')
    """

    text_columns: tuple[str, ...]
    prompt_columns: tuple[str, ...] = ()

    name: ClassVar[str] = "causal-lm"
    auto_model: ClassVar[Any] = AutoModelForCausalLM
    default_checkpoint: ClassVar[str] = "tiny-stories-gpt"

    def __post_init__(self) -> None:
        if not self.text_columns or set(self.text_columns) & set(self.prompt_columns):
            raise FtkitError(f'"{self.describe()}": expected columns to learn, none of them given.')

    @classmethod
    def infer(  # type: ignore[override]
        cls,
        splits: DatasetDict,
        text_columns: Sequence[str] | None = None,
        prompt_columns: Sequence[str] | None = None,
    ) -> "CausalLM":
        """Take the given columns, or the usual ones."""
        train = train_split(splits)
        texts = guess_text_columns(train, text_columns, KNOWN_TEXTS)
        if prompt_columns is None and text_columns is None:
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

    def encode(
        self,
        splits: DatasetDict,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
    ) -> DatasetDict:
        """Check the rows, then turn them into token ids, and into labels: -100 for the prompt.

        Parameters
        ----------
        splits : DatasetDict
        tokenizer : PreTrainedTokenizerBase
            Must have an end-of-text token; a beginning one, where there is one, stands first.
        max_length : int, optional
            Longer rows are cut at the end; by default at the tokenizer's own limit.

        Returns
        -------
        DatasetDict
            Columns ``input_ids``, ``attention_mask``, ``labels`` (lists of int) and ``row``.

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
        if tokenizer.eos_token_id is None:
            raise FtkitError("The tokenizer has no end-of-text token (eos_token); set one.")
        limit = max_length or tokenizer.model_max_length

        def encode_row(row: dict[str, Any]) -> dict[str, list[int]]:
            prompt = self._prompt_ids([row[name] for name in self.prompt_columns], tokenizer)
            text = "\n".join(row[name] for name in self.text_columns)
            ids = [*_ids(text, tokenizer), tokenizer.eos_token_id]
            labels = [IGNORED] * len(prompt) + ids
            ids = (prompt + ids)[:limit]
            return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels[:limit]}

        drop = {name: [n for n in s.column_names if n != "row"] for name, s in splits.items()}
        encoded = {n: s.map(encode_row, remove_columns=drop[n]) for n, s in splits.items()}
        full = f"the prompt fills all {limit} tokens and leaves none for the text."
        crowded = [
            row_name(str(name), split, i)
            for name, split in encoded.items()
            for i, labels in enumerate(split["labels"])
            if max(labels) == IGNORED
        ]
        raise_problems([f"{where}: {full}" for where in crowded])
        return DatasetDict({str(name): split for name, split in encoded.items()})

    def _prompt_ids(self, prompts: Sequence[str], tokenizer: Any) -> list[int]:
        begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        return begin + _ids("".join(f"{prompt}\n" for prompt in prompts), tokenizer)

    def encode_texts(self, texts: Sequence[Sequence[str]], tokenizer: Any) -> Dataset:
        """Encode prompts, or where the task has no prompt columns the beginnings of texts."""
        raise_problems(wrong_widths(texts, self.given_columns))
        if self.prompt_columns:
            ids = [self._prompt_ids(row, tokenizer) for row in texts]
        else:
            ids = [self._prompt_ids((), tokenizer) + _ids(row[0], tokenizer) for row in texts]
        most = tokenizer.model_max_length - 1
        wrong = [(i, len(row)) for i, row in enumerate(ids, start=1) if not 0 < len(row) <= most]
        raise_problems([f"text {i}: {n} tokens came; expected 1 to {most}." for i, n in wrong])
        masks = [[1] * len(row) for row in ids]
        return Dataset.from_dict({"input_ids": ids, "attention_mask": masks})

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of each token after the first, in nats.

        Computed here, as some models (`BartForCausalLM`) compare each token with itself.
        """
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**inputs).logits
        following = pad(batch["labels"], (0, 1), value=IGNORED)[:, 1:]
        return cross_entropy(logits.flatten(0, 1).float(), following.flatten())

    def count_labels(self, batch: Batch) -> int:
        """Count the labels that are predicted: no first token is."""
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    @torch.inference_mode()
    def outputs(self, model: Any, batch: Batch) -> Sequence[np.ndarray]:
        """Return each row's counts; of rows without labels, the tokens that the model adds.

        Greedily, unless ``model.generation_config``, saved with the model, says ``do_sample``.
        """
        if "labels" in batch:
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            logits = model(**inputs).logits[:, :-1]  # the last one predicts what is not there
            return list(token_counts(logits, batch["labels"][:, 1:]))
        added, positions = [], getattr(model.config, "max_position_embeddings", 10**9)
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            ids = ids[None, : int(mask.sum())]  # one at a time: a prompt must not end in padding
            whole = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=min(MAX_NEW_TOKENS, positions - ids.shape[1]),
                pad_token_id=model.config.pad_token_id or 0,
            )
            added.append(whole[0, ids.shape[1] :].cpu().numpy())
        return added

    def read(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> Sequence[tuple[str, ...]]:
        """Return the text that the model added to each."""
        return [(tokenizer.decode(ids, skip_special_tokens=True),) for ids in outputs]


def _ids(text: str, tokenizer: Any) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
