"""A checkpoint's chat template: write a conversation, and know which tokens are the assistant's."""

import re
import warnings
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from ftkit.errors import FtkitError
from ftkit.tasks.chats.messages import Message

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ 'END' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


GENERATION = re.compile(r"\{%-?\s*generation\b")


class TemplateWarning(UserWarning):
    """A checkpoint has no chat template, and another takes its place."""


def ensure_template(tokenizer: Any) -> None:
    """Give a tokenizer that has no chat template ChatML, and say so.

    Where the vocabulary has no ``<|im_end|>``, the tokenizer's own end of text ends a turn.

    Warns
    -----
    TemplateWarning
    """
    if tokenizer.chat_template:
        return
    known = "<|im_end|>" in tokenizer.get_vocab()
    end = "<|im_end|>" if known else tokenizer.eos_token
    if not end:
        raise FtkitError("The tokenizer has no chat template and no end-of-text token; set one.")
    tokenizer.chat_template = CHATML.replace("END", end)
    warnings.warn(
        f"The checkpoint has no chat template: ChatML takes its place, each turn ended by {end}. "
        f"It is saved with the tokenizer.",
        TemplateWarning,
        stacklevel=2,
    )


def render(tokenizer: Any, messages: Sequence[Message], *, prompt: bool = False) -> str:
    """Write messages as the checkpoint's template does; with `prompt`, up to where it answers.

    Raises
    ------
    FtkitError
        The template refuses them, as Gemma's does a system turn.
    """
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=prompt
        )
    except (TemplateError, TypeError, KeyError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise FtkitError(f"the chat template refuses the turns {roles}: {error}") from error


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the token ids of a conversation up to where the assistant answers."""
    return tokenizer(render(tokenizer, messages, prompt=True), add_special_tokens=False)[
        "input_ids"
    ]


def encode_conversation(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """Return the token ids of a conversation, and 1 for those of the assistant's turns, else 0.

    A turn is the assistant's text and the marker that ends it, and nothing that the template
    writes before or after. Found by the template's own ``{% generation %}`` where it has one; else
    by writing the conversation up to each turn, and up to its end.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
    messages : sequence of dict

    Returns
    -------
    input_ids, mask : list of int
        Both of shape (seq_len,).

    Raises
    ------
    FtkitError
        The template writes a turn otherwise once others follow, or ends none by a marker.
    """
    text = render(tokenizer, messages)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    if GENERATION.search(tokenizer.chat_template):
        spans = _generation_spans(tokenizer, messages, text, offsets)
    else:
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        spans = [_answer_span(tokenizer, messages[: i + 1], text) for i in answers]
    mask = [
        int(end > start and any(start < last and end > first for first, last in spans))
        for start, end in offsets
    ]
    return encoded["input_ids"], mask


def _generation_spans(
    tokenizer: Any, messages: Sequence[Message], text: str, offsets: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return where the template says that the assistant speaks, each with the marker after it."""
    marked = tokenizer.apply_chat_template(
        list(messages), return_dict=True, return_assistant_tokens_mask=True
    )["assistant_masks"]
    spans: list[tuple[int, int]] = []
    for (start, end), inside in zip(offsets, marked, strict=True):
        if inside and spans and spans[-1][1] >= start:
            spans[-1] = (spans[-1][0], end)
        elif inside:
            spans.append((start, end))
    return [(start, end + (_marker_length(tokenizer, text[end:]) or 0)) for start, end in spans]


def _answer_span(tokenizer: Any, messages: Sequence[Message], text: str) -> tuple[int, int]:
    """Return where in a text the last of `messages` begins, and where its end marker ends."""
    until, prompt = render(tokenizer, messages), render(tokenizer, messages[:-1], prompt=True)
    pairs = enumerate(zip(until, prompt, strict=False))
    begin = next((i for i, (a, b) in pairs if a != b), min(len(until), len(prompt)))
    content = messages[-1]["content"]
    if until.find(content, begin) < 0:
        content = content.strip()  # as many templates do
    place = until.find(content, begin)
    stop = place + len(content)
    if place < 0 or not text.startswith(until[:stop]):
        raise FtkitError(
            "the chat template writes an earlier turn of the assistant otherwise once others "
            "follow, so that its tokens cannot be told; give each answer a row of its own"
        )
    marker = _marker_length(tokenizer, text[stop:])
    if marker is None:
        raise FtkitError(
            "the chat template ends the assistant's turn by no marker, so that a model cannot "
            f"learn to stop; after the answer it writes {text[stop : stop + 40]!r}"
        )
    return (place if until[begin:place].strip() else begin), stop + marker


def _marker_length(tokenizer: Any, rest: str) -> int | None:
    """Return the length of the special token that follows, white space before it included."""
    tokens = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens |= {tokenizer.eos_token} if tokenizer.eos_token else set()
    longest_first = sorted(map(re.escape, tokens), key=len, reverse=True)
    found = re.match(rf"\s*(?:{'|'.join(longest_first)})", rest) if tokens else None
    return found.end() if found else None


def end_ids(tokenizer: Any) -> list[int]:
    """Return the ids of the tokens at which an answer ends: the template's marker, end of text."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    ids, mask = encode_conversation(tokenizer, turns)
    last = [token for token, supervised in zip(ids, mask, strict=True) if supervised][-1]
    known = [last, tokenizer.eos_token_id]
    return list(dict.fromkeys(token for token in known if token is not None))


def unasked_text(tokenizer: Any) -> str:
    """Return what the template writes before a first turn of the user: perhaps a system turn.

    Examples
    --------
    >>> unasked_text(tokenizer)  # doctest: +SKIP
    '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM…'
    """
    words = "What is asked?"
    return render(tokenizer, [{"role": "user", "content": words}]).partition(words)[0]
