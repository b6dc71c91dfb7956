"""Chat: answer as the assistant does, in the checkpoint's own template."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from datasets import Dataset, DatasetDict
from transformers import AutoModelForCausalLM

from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, raise_problems
from ftkit.tasks.chats.messages import (
    as_messages,
    find_form,
    message_problems,
    with_messages,
)
from ftkit.tasks.chats.templates import (
    encode_conversation,
    encode_prompt,
    end_ids,
    ensure_template,
    render,
)
from ftkit.tasks.language_modeling import IGNORED, CausalLM
from ftkit.tasks.truncation import LENGTH


class EndMarkerWarning(UserWarning):
    """Rows were cut before the marker that ends an answer, so that they do not teach to stop."""


@dataclass(frozen=True)
class Chat(CausalLM):
    """Answer in a conversation: the loss looks at the assistant's turns and their end markers.

    A row is a conversation in one of four forms: ``messages`` (with ``role`` and ``content``),
    ShareGPT's ``conversations``, Alpaca's ``instruction``, ``input`` and ``output``, or ``prompt``
    and ``completion``. The checkpoint's own chat template writes it; where there is none, ChatML
    takes its place, and a warning says so.

    Parameters
    ----------
    max_new_tokens : int
        The most that an answer may have in `ftkit.predict`.

    Examples
    --------
    >>> task = Chat()
    >>> task.name
    'chat'
    """

    text_columns: tuple[str, ...] = ("messages",)

    name: ClassVar[str] = "chat"
    auto_model: ClassVar[Any] = AutoModelForCausalLM
    default_checkpoint: ClassVar[str] = "smollm2"
    infer_options: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def _infer(cls, train: Dataset, options: dict[str, Any]) -> Self:
        return cls()

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Say whether the columns are those of a conversation."""
        return find_form(columns) not in (None, "prompt and completion")

    @property
    def given_columns(self) -> tuple[str, ...]:
        """What the user says."""
        return ("user",)

    def describe(self) -> str:
        """Return what is learned."""
        return "conversations → the assistant's turns"

    def check(self, splits: DatasetDict) -> None:
        """Raise one `FtkitError` that lists every conversation that is not as it should be."""
        with_messages(splits)

    def adapt(self, model: Any, tokenizer: Any) -> None:
        """Let the model's generation stop at the template's end marker too."""
        self.check_tokenizer(tokenizer)
        model.generation_config.eos_token_id = end_ids(tokenizer)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Give a tokenizer without a chat template ChatML; refuse one whose turns do not end."""
        ensure_template(tokenizer)
        end_ids(tokenizer)

    def convert(self, splits: DatasetDict) -> DatasetDict:
        """Return the rows with one column ``messages``, whichever of the forms they had."""
        return with_messages(splits)

    def encode_rows(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Write each conversation in the template; ``labels`` are -100 but for the assistant's."""
        encoded = []
        for i, messages in enumerate(rows["messages"]):
            try:
                encoded.append(encode_conversation(tokenizer, messages))
            except FtkitError as error:
                where = rows["row"][i] if "row" in rows else f"row {i}"
                raise FtkitError(f"{where}: {error}.") from error
        labels = [
            [token if own else IGNORED for token, own in zip(ids, mask, strict=True)]
            for ids, mask in encoded
        ]
        return {
            "input_ids": [ids[:limit] for ids, _ in encoded],
            "attention_mask": [[1] * min(len(ids), limit) for ids, _ in encoded],
            "labels": [row[:limit] for row in labels],
            LENGTH: [len(ids) for ids, _ in encoded],
            "ends": [_cuts_an_answer(row, limit) for row in labels],
        }

    def check_encoded(self, splits: DatasetDict, encoded: DatasetDict, limit: int) -> None:
        """Raise where a cut leaves a row without a label; warn where it takes an end marker."""
        problems, told = [], []
        for name, split in encoded.items():
            problems += [
                f"{row_name(str(name), split, i)}: no token of the assistant is left within "
                f"{limit} tokens; raise the limit, or shorten what comes before the answer."
                for i, labels in enumerate(split["labels"])
                if max(labels, default=IGNORED) == IGNORED
            ]
            cut = sum(split["ends"])
            told += [f'{cut:,} of {len(split):,} rows of "{name}"'] if cut else []
            encoded[name] = split.remove_columns("ends")
        raise_problems(problems)
        if told:
            warnings.warn(
                f"{', '.join(told)} are cut within an answer, and lose the marker that ends it: "
                f"from them the model does not learn to stop. Raise --max-length.",
                EndMarkerWarning,
                stacklevel=4,
            )

    def read_text(self, text: Any) -> tuple[Any, ...]:
        """Return a conversation: a text is one turn of the user, a list is messages."""
        alone = isinstance(text, tuple) and len(text) == 1
        said = text[0] if alone else text
        return ([{"role": "user", "content": said}] if isinstance(said, str) else said,)

    def text_problems(self, texts: Sequence[tuple[Any, ...]], tokenizer: Any) -> list[str]:
        """Return a sentence for each conversation that does not end with the user's turn."""
        problems = []
        for i, (said,) in enumerate(texts, start=1):
            try:
                faults = message_problems(as_messages(said), answered=False)
                _ = faults or render(tokenizer, said, prompt=True)
            except FtkitError as error:
                faults = [str(error)]
            problems += [f"text {i} {fault}." for fault in faults]
        return problems

    def encode_inputs(self, rows: dict[str, list], tokenizer: Any, limit: int) -> dict[str, list]:
        """Write each conversation in the template, up to where the assistant answers."""
        ids = [encode_prompt(tokenizer, messages) for messages in rows["user"]]
        wrong = [(i, len(row)) for i, row in enumerate(ids, start=1) if len(row) >= limit]
        told = f"expected fewer than {limit}"
        raise_problems([f"text {i} has {n} tokens; {told}." for i, n in wrong])
        return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}

    def decode(self, outputs: Any, encoded: Dataset, tokenizer: Any) -> Sequence[tuple[str, ...]]:
        """Return each answer as text, without the marker that ends it."""
        return [(tokenizer.decode(ids, skip_special_tokens=True).strip(),) for ids in outputs]


def _cuts_an_answer(labels: Sequence[int], limit: int) -> bool:
    """Say whether the limit falls within an answer: between a label and the one that follows."""
    return limit < len(labels) and labels[limit] != IGNORED
