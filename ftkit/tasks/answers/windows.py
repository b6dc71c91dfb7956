"""Long contexts as overlapping windows of tokens, and the answer's place in each."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from datasets import DatasetDict

from ftkit.data.batches import SPAN_COLUMNS
from ftkit.errors import FtkitError
from ftkit.tasks.answers.references import question_name

Offsets = Sequence[Sequence[int]]
OUTSIDE = (0, 0)  # the offsets of what is no token of the context


class CutAnswerWarning(UserWarning):
    """No window of a question holds the whole answer, so nothing teaches it."""


def check_offsets(tokenizer: Any) -> None:
    """Raise `FtkitError` where a tokenizer is a slow one: it does not say where tokens stand."""
    if not tokenizer.is_fast:
        raise FtkitError(
            f"{type(tokenizer).__name__} does not say where its tokens stand in the text; expected "
            f"a fast tokenizer."
        )


def make_windows(
    questions: Sequence[str], contexts: Sequence[str], tokenizer: Any, max_length: int, stride: int
) -> dict[str, list]:
    """Turn each question with its context into one row of tokens, or several that overlap.

    Parameters
    ----------
    questions, contexts : sequence of str
    tokenizer : PreTrainedTokenizerFast
    max_length : int
        Tokens in a row.
    stride : int
        Tokens of the context that stand in a row and in the next one too.

    Returns
    -------
    dict of list
        One item a window: what the tokenizer gives, ``question_index`` (the place in `questions`)
        and ``offsets``: for each token where it begins and ends in the context, in characters, the
        end not included; (0, 0) for what is no token of the context.
    """
    windows = tokenizer(
        list(questions),
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    encoded = dict(windows)
    encoded["question_index"] = encoded.pop("overflow_to_sample_mapping")
    encoded["offsets"] = [
        [pair if part == 1 else OUTSIDE for pair, part in zip(pairs, parts, strict=True)]
        for pairs, parts in (
            (pairs, windows.sequence_ids(i))
            for i, pairs in enumerate(encoded.pop("offset_mapping"))
        )
    ]
    return encoded


def long_questions(
    questions: Sequence[str], tokenizer: Any, max_length: int, stride: int
) -> Iterator[tuple[int, str]]:
    """Yield place and complaint for each question that leaves its windows no room to move on."""
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True) - stride - 1
    ids = tokenizer(list(questions), add_special_tokens=False)["input_ids"]
    for i, tokens in enumerate(ids):
        if len(tokens) > room:
            yield (
                i,
                f"the question has {len(tokens)} tokens; expected at most {room}, so that windows "
                f"of {max_length} tokens that share {stride} have room for the context.",
            )


def token_span(offsets: Offsets, start: int, end: int) -> tuple[int, int] | None:
    """Return the first and the last token of the characters from `start` up to `end`.

    None where a part of them is outside this window. A character that the tokenizer drops, such
    as a space, belongs to no token.

    Parameters
    ----------
    offsets : sequence of (int, int)
        See `make_windows`.
    start, end : int
        In characters of the context, the end not included.

    Examples
    --------
    >>> token_span([(0, 0), (0, 3), (4, 9), (0, 0)], 4, 9)  # [CLS] the ferry [SEP]
    (2, 2)
    """
    inside = [i for i, (first, last) in enumerate(offsets) if last > first]
    touched = [i for i in inside if offsets[i][1] > start and offsets[i][0] < end]
    if not touched or offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return None
    return touched[0], touched[-1]


def label_windows(
    encoded: dict[str, list], answers: Sequence[Sequence[tuple[str, int]]], cls_token_id: int | None
) -> None:
    """Add to each window the places of its question's first answer, and all answers' texts.

    Parameters
    ----------
    encoded : dict of list
        From `make_windows`. ``start_positions``, ``end_positions`` (int: the answer's first and
        last token, or twice the place of [CLS] where it is not whole in this window) and
        ``answers`` (lists of str) are added.
    answers : sequence of sequence of (str, int)
        For each question texts and places in the context; spaces around a text do not count.
    cls_token_id : int or None
    """
    starts, ends, texts = [], [], []
    windows = (encoded[name] for name in ("input_ids", "offsets", "question_index"))
    for ids, offsets, index in zip(*windows, strict=True):
        text, start = answers[index][0]
        start += len(text) - len(text.lstrip())
        place = ids.index(cls_token_id) if cls_token_id in ids else 0
        span = token_span(offsets, start, start + len(text.strip())) or (place, place)
        starts.append(span[0])
        ends.append(span[1])
        texts.append([text for text, _ in answers[index]])
    encoded |= {"start_positions": starts, "end_positions": ends, "answers": texts}


def warn_cut_answers(splits: DatasetDict, encoded: DatasetDict) -> None:
    """Warn of questions whose answer no window holds whole: they would be lost in silence."""
    for name, windows in encoded.items():
        held, size = set(), len(splits[name])
        for rows in windows.select_columns(["question_index", "offsets", SPAN_COLUMNS[0]]).iter(99):
            columns = zip(*dict(rows).values(), strict=True)  # type: ignore[call-overload]
            held |= {i for i, offsets, start in columns if tuple(offsets[start]) != OUTSIDE}
        if len(held) < size:
            first = question_name(str(name), splits[name], min(set(range(size)) - held))
            warnings.warn(
                f'{size - len(held)} of {size} answers of "{name}" are whole in no window (the '
                f"first: {first}), so nothing teaches them. Choose a larger stride or max_length.",
                CutAnswerWarning,
                stacklevel=4,
            )
