"""Preferences: make the chosen answer likelier than the rejected one, with DPO."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch.nn.functional import logsigmoid, pad

from ftkit.data.batches import Batch, collate, length_order, row_lengths
from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, raise_problems
from ftkit.tasks.chat import Chat
from ftkit.tasks.chats.messages import Message, message_problems, preference_messages
from ftkit.tasks.chats.templates import encode_conversation
from ftkit.tasks.language_modeling import IGNORED
from ftkit.tasks.truncation import LENGTH

SIDES = ("chosen", "rejected")
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Preference(Chat):
    """Prefer one answer to another: direct preference optimisation (Rafailov et al. 2023).

    A row holds ``prompt``, ``chosen`` and ``rejected``, each a text or messages; without a prompt,
    the turns with which both answers begin. Both are written in the checkpoint's chat template.
    The loss of a row is −log σ(β · ((log π(chosen) − log ref(chosen)) − (log π(rejected) −
    log ref(rejected)))), where log π is summed over the answer's tokens. The reference is the
    model as it was before training: its log-probabilities never change, so that `add_reference`
    computes them once.

    Parameters
    ----------
    beta : float
        How dear it is to move away from the reference.

    Examples
    --------
    >>> Preference(beta=0.1).name
    'preference'
    """

    beta: float = 0.1

    name: ClassVar[str] = "preference"
    best_metric: ClassVar[str] = "loss"
    evaluation_batch_size: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise FtkitError(f"beta is {self.beta}; expected a number above 0.")

    @classmethod
    def _infer(cls, train: Dataset, options: dict[str, Any]) -> Self:
        return cls()

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Say whether there are chosen and rejected answers."""
        return {"chosen", "rejected"} <= set(columns)

    def describe(self) -> str:
        """Return what is learned."""
        return f"prompts → chosen above rejected answers, beta {self.beta:g}"

    def check(self, splits: DatasetDict) -> None:
        """Raise one `FtkitError` that lists every pair that is not as it should be."""
        with_pairs(splits)

    @property
    def leak_columns(self) -> tuple[str, ...]:
        """A pair is known by its prompt and both answers."""
        return COLUMNS

    def convert(self, splits: DatasetDict) -> DatasetDict:
        """Return the rows with ``prompt``, ``chosen`` and ``rejected`` as messages."""
        return with_pairs(splits)

    def encode_rows(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Write prompt and answer twice; ``labels`` look at the last answer alone."""
        chosen, rejected = (self._encode_side(rows, side, tokenizer, limit) for side in SIDES)
        lengths = map(max, zip(chosen.pop(LENGTH), rejected.pop(LENGTH), strict=True))
        ends = map(any, zip(chosen.pop("ends"), rejected.pop("ends"), strict=True))
        others = {f"rejected_{name}": values for name, values in rejected.items()}
        return {**chosen, **others, LENGTH: list(lengths), "ends": list(ends)}

    def _encode_side(
        self, rows: dict[str, list], side: str, tokenizer: Any, limit: int
    ) -> dict[str, list]:
        pairs = zip(rows["prompt"], rows[side], strict=True)
        conversations = [[*prompt, *answer] for prompt, answer in pairs]
        named = {"messages": conversations, **({"row": rows["row"]} if "row" in rows else {})}
        encoded = super().encode_rows(named, tokenizer, limit)
        for labels, prompt, answer in zip(
            encoded["labels"], rows["prompt"], rows[side], strict=True
        ):
            before = sum(turn["role"] == "assistant" for turn in [*prompt, *answer][:-1])
            if before:  # earlier answers belong to the prompt
                last = _encode_last(tokenizer, [*prompt, *answer])[: len(labels)]
                labels[:] = [x if own else IGNORED for x, own in zip(labels, last, strict=True)]
        return encoded

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the mean loss of the pairs of a batch, in nats.

        Raises
        ------
        FtkitError
            The batch has no log-probabilities of the reference.
        """
        return -logsigmoid(self.beta * self.margins(model, batch)).mean()

    def margins(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return by how much chosen gained on rejected since the reference, in nats, (batch,)."""
        missing = [name for name in REFERENCE_COLUMNS if name not in batch]
        if missing:
            raise FtkitError(
                f"The rows have no {' and no '.join(missing)}. Compute them once, with the model "
                f"as it is before training: encoded = task.add_reference(model, encoded)."
            )
        chosen, rejected = self.log_probabilities(model, batch)
        gains = (chosen - batch[REFERENCE_COLUMNS[0]], rejected - batch[REFERENCE_COLUMNS[1]])
        return gains[0] - gains[1]

    def log_probabilities(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed log-probability of each chosen and each rejected answer, (batch,).

        Both go through the model in one forward pass.
        """
        both = []
        for name in ("input_ids", "attention_mask", "labels"):
            one, other = batch[name], batch[f"rejected_{name}"]
            width, fill = max(one.shape[1], other.shape[1]), IGNORED if name == "labels" else 0
            both.append(
                torch.cat([pad(t, (0, width - t.shape[1]), value=fill) for t in (one, other)])
            )
        ids, mask, labels = both
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        return tuple(sequence_log_probability(logits, labels[:, 1:]).chunk(2))  # type: ignore[return-value]

    def count_labels(self, batch: Batch) -> int:
        """Count the pairs: each weighs the same, however long its answers are."""
        return len(batch["input_ids"])

    @torch.inference_mode()
    def outputs(self, model: Any, batch: Batch) -> Sequence[np.ndarray]:
        """Return each pair's log-probabilities and their reference; of prompts alone, answers."""
        if "rejected_input_ids" not in batch:
            return super().outputs(model, batch)
        found = self.log_probabilities(model, batch)
        held = [batch[name] for name in REFERENCE_COLUMNS if name in batch]
        return list(torch.stack([*found, *held], dim=-1).double().cpu().numpy())

    def row_statistics(self, outputs: Any, references: Any) -> np.ndarray:
        """Return for each pair its loss, whether chosen gained more, the margin, 1, and both gains.

        Raises
        ------
        FtkitError
            The rows have no log-probabilities of the reference.
        """
        values = np.stack(list(outputs))
        if values.shape[1] != 4:
            raise FtkitError("The rows have no reference: task.add_reference(model, encoded).")
        chosen, rejected = values[:, 0] - values[:, 2], values[:, 1] - values[:, 3]
        margin = self.beta * (chosen - rejected)
        columns = (np.logaddexp(0, -margin), margin > 0, margin, np.ones(len(values)))
        return np.stack([*columns, self.beta * chosen, self.beta * rejected], axis=-1)

    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the loss, and TRL's reward accuracy, margins and rewards: β · (log π − log ref).

        Parameters
        ----------
        sums : ndarray of shape (..., 6)
        """
        names = ("loss", "rewards/accuracies", "rewards/margins")
        rows = np.maximum(sums[..., 3], 1)
        scores = {name: sums[..., i] / rows for i, name in enumerate(names)}
        rewards = ("rewards/chosen", "rewards/rejected")
        return {**scores, **{name: sums[..., 4 + i] / rows for i, name in enumerate(rewards)}}

    def is_correct(self, statistics: np.ndarray) -> np.ndarray:
        """Say of each pair whether the chosen answer gained more than the rejected one."""
        return statistics[:, 1] == 1

    def complete(self, model: Any, encoded: DatasetDict) -> DatasetDict:
        """Return the rows with the reference's log-probabilities: see `add_reference`."""
        return self.add_reference(model, encoded)

    @torch.inference_mode()
    def add_reference(self, model: Any, encoded: DatasetDict) -> DatasetDict:
        """Return the rows with the log-probabilities that a model, the reference, gives them.

        Parameters
        ----------
        model : PreTrainedModel
            As it is before training. A LoRA model's adapter, if one is there, is switched off.
        encoded : DatasetDict
            From `encode`.

        Returns
        -------
        DatasetDict
            With columns ``ref_chosen_logps`` and ``ref_rejected_logps`` (float).
        """
        found = DatasetDict()
        for name, split in encoded.items():
            found[str(name)] = split
            if REFERENCE_COLUMNS[0] not in split.column_names:
                values = self._reference(model, split)
                for column, numbers in zip(REFERENCE_COLUMNS, values.T, strict=True):
                    added = found[str(name)].add_column(column, numbers.tolist())  # type: ignore[call-arg]
                    found[str(name)] = added
        return found

    def _reference(self, model: Any, split: Dataset) -> np.ndarray:
        device, values = next(model.parameters()).device, np.zeros((len(split), 2))
        pad_id, training = model.config.pad_token_id, model.training
        model.eval()
        for rows in length_order(row_lengths(split), self.evaluation_batch_size):
            batch = {n: t.to(device) for n, t in collate(split, rows, pad_id).items()}
            if hasattr(model, "disable_adapter"):
                with model.disable_adapter():
                    pair = self.log_probabilities(model, batch)
            else:
                pair = self.log_probabilities(model, batch)
            values[rows] = torch.stack(pair, dim=-1).double().cpu().numpy()
        model.train(training)
        return values


def sequence_log_probability(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed log-probability of the labels of each row, -100 left out.

    Parameters
    ----------
    logits : Tensor of shape (batch, seq_len, vocab_size)
    labels : Tensor of shape (batch, seq_len)
        What each position is to predict.

    Returns
    -------
    Tensor of shape (batch,)
    """
    counted = labels != IGNORED
    rows, places = counted.nonzero(as_tuple=True)
    chosen = logits[rows, places].float().log_softmax(-1)  # (n_labels, vocab_size): no more
    taken = chosen.gather(-1, labels[rows, places][:, None]).squeeze(-1)
    return torch.zeros(len(labels), device=logits.device).index_add(0, rows, taken)


def _encode_last(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return 1 for the tokens of the last answer: those that a prompt without it lacks."""
    ids, mask = encode_conversation(tokenizer, messages)
    last = len(ids) - 1 - mask[::-1].index(1)
    first = last
    while first > 0 and mask[first - 1]:
        first -= 1
    return [int(first <= i <= last) for i in range(len(ids))]


def with_pairs(splits: DatasetDict) -> DatasetDict:
    """Return the splits with ``prompt``, ``chosen`` and ``rejected`` as messages; ``row`` stays.

    Raises
    ------
    FtkitError
        A column is missing, or pairs are faulty: all of them, by file and row.
    """
    problems: list[str] = []
    converted = DatasetDict()
    for name, split in splits.items():
        if not {"chosen", "rejected"} <= set(split.column_names):
            held = ", ".join(column for column in split.column_names if column != "row")
            raise FtkitError(
                f'split "{name}" holds {held}; expected prompt, chosen and rejected, or chosen and '
                f"rejected that begin with the prompt."
            )
        converted[str(name)] = _convert(str(name), split, problems)
    raise_problems(problems)
    return converted


def _convert(name: str, split: Dataset, problems: list[str]) -> Dataset:
    found: dict[str, list] = {column: [] for column in COLUMNS}
    for i, row in enumerate(split):
        try:
            parts = preference_messages(row)  # type: ignore[arg-type]
            faults = message_problems(parts[0], answered=False)
            faults += [
                f"{side}: {fault}"
                for side, answer in zip(SIDES, parts[1:], strict=True)
                for fault in message_problems([{"role": "user", "content": "?"}, *answer])
            ]
            faults += ["chosen and rejected are equal"] if parts[1] == parts[2] else []
        except FtkitError as error:
            parts, faults = ([], [], []), [str(error)]
        for column, messages in zip(COLUMNS, parts, strict=True):
            found[column].append(messages)
        problems += [f"{row_name(name, split, i)}: {fault}." for fault in faults]
    kept = {"row": split["row"]} if "row" in split.column_names else {}
    return Dataset.from_dict({**found, **kept})
