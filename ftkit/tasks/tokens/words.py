"""Sentences as lists of words, each with a tag: checking them, and finding each word's token."""

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict

from ftkit.data.splits import row_name
from ftkit.errors import FtkitError, closest
from ftkit.tasks.truncation import TruncationWarning, check_cut

SHOWN = 10  # problems that `raise_problems` writes out; looking for the closest tag takes time
NO_TOKEN = -1  # the position of a word that has no token
HAN = "\u3400-\u9fff"  # Chinese characters: one word each
WORD = re.compile(rf"['’]s\b|[{HAN}]|[^\W{HAN}]+(?:(?!['’]s\b)[-'’.,:/][^\W{HAN}]+)*|[^\w\s]")


def split_words(text: str) -> list[tuple[int, int]]:
    """Return where the words and signs of a text begin and end, in characters.

    Numbers, hyphenated words and web addresses stay whole; a possessive ``'s`` and every sign
    stand apart, as in most tagged corpora; each Chinese character is a word.

    Examples
    --------
    >>> text = "Ann's ferry left at 7.30."
    >>> [text[start:end] for start, end in split_words(text)]
    ['Ann', "'s", 'ferry', 'left', 'at', '7.30', '.']
    """
    return [match.span() for match in WORD.finditer(text)]


def tag_lists(dataset: Dataset, column: str) -> list[Any]:
    """Return a column of tags; where it holds numbers of a `ClassLabel`, their names."""
    values = list(dataset[column])
    inner = getattr(dataset.features[column], "feature", None)
    if not isinstance(inner, ClassLabel):
        return values
    names = dict(enumerate(inner.names))
    return [row and [names.get(number, number) for number in row] for row in values]


def word_problems(
    split: str, dataset: Dataset, columns: tuple[str, str], labels: Sequence[str]
) -> list[str]:
    """Return a sentence for each row whose words and tags are not as they should be.

    Parameters
    ----------
    split : str
    dataset : Dataset
    columns : tuple of str
        Of the words, and of their tags.
    labels : sequence of str
        The tags that are known.
    """
    problems: list[str] = []
    rows = zip(dataset[columns[0]], tag_lists(dataset, columns[1]), strict=True)
    for i, (words, tags) in enumerate(rows):
        fault = next(_faults(words, tags, columns, labels, helpful=len(problems) < SHOWN), None)
        if fault:
            problems.append(f"{row_name(split, dataset, i)}{fault}")
    return problems


def _faults(
    words: Any, tags: Any, columns: tuple[str, str], labels: Sequence[str], *, helpful: bool
) -> Iterator[str]:
    for column, values, what in zip(columns, (words, tags), ("words", "tags"), strict=True):
        if not isinstance(values, list):
            kind = type(values).__name__
            yield f': "{column}" is a {kind} ({values}); expected a list of {what}.'
    if not words:
        yield ": has no words; expected at least one."
    if len(words) != len(tags):
        yield f": {len(words)} words and {len(tags)} tags; expected one tag a word."
    for number, (word, tag) in enumerate(zip(words, tags, strict=True), start=1):
        if not isinstance(word, str) or not word.strip():
            yield f', word {number}: "{columns[0]}" holds {word!r}; expected a word.'
        if tag not in labels:
            hint = closest(str(tag), labels) if helpful else ""
            yield f', word {number} ("{word}"): unknown tag "{tag}". {hint}'


def check_words(tokenizer: Any) -> None:
    """Raise `FtkitError` where a tokenizer cannot say which word a token is of."""
    if not getattr(tokenizer, "is_fast", False):
        raise FtkitError(
            f"{type(tokenizer).__name__} cannot say which word a token is of; expected a fast "
            f"tokenizer (a checkpoint with tokenizer.json)."
        )


def encode_words(rows: Sequence[Sequence[str]], tokenizer: Any, limit: int) -> dict[str, list]:
    """Turn sentences into token ids, and find the first token of each word.

    Parameters
    ----------
    rows : sequence of sequences of str
        Words.
    tokenizer : PreTrainedTokenizerBase
    limit : int
        Tokens in a row; longer ones are cut.

    Returns
    -------
    dict
        What the tokenizer gives, and ``positions``: for each word the place of its first token;
        -1 where it has none, since the row was cut before it or the tokenizer drops all its
        characters.

    Raises
    ------
    FtkitError
        The limit is below the number of special tokens.
    """
    begin = " " if _ids("a", tokenizer) != _ids(" a", tokenizer) else ""  # GPT-2's kind
    spaced = [[begin + word for word in words] for words in rows]
    most = min(limit, sys.maxsize)  # T5's tokenizer has no limit, and says so with a larger number
    encoded = tokenizer(spaced, is_split_into_words=True, truncation=True, max_length=most)
    check_cut(encoded["input_ids"], limit)
    positions = []
    for i, words in enumerate(rows):
        places = list(enumerate(encoded.word_ids(i)))
        first = {word: place for place, word in reversed(places) if word is not None}
        positions.append([first.get(word, NO_TOKEN) for word in range(len(words))])
    return {**encoded, "positions": positions}


def _ids(text: str, tokenizer: Any) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def warn_unseen(splits: DatasetDict, limit: int) -> None:
    """Warn once, with counts, of words that have no token.

    Parameters
    ----------
    splits : DatasetDict
        Encoded, with ``input_ids`` and ``positions``.
    limit : int
        Tokens in a row, at most.
    """
    cut, dropped = [], []
    for name, split in splits.items():
        positions = [np.array(row) for row in split["positions"]]
        full = [len(ids) >= limit for ids in split["input_ids"]]
        ends = [np.append(row[::-1] != NO_TOKEN, True).argmax() for row in positions]
        beyond = int(np.dot(full, ends))  # words after the last one that has a token
        unseen = sum(int((row == NO_TOKEN).sum()) for row in positions)
        words = f'of {sum(map(len, positions)):,} words of "{name}"'
        cut += [f"{beyond:,} {words}"] if beyond else []
        dropped += [f"{unseen - beyond:,} {words}"] if unseen > beyond else []
    lines = []
    if cut:
        lines.append(
            f"{', '.join(cut)} stand beyond the {limit} tokens of a row and count as predicted O. "
            f"Cut long sentences in two."
        )
    if dropped:
        lines.append(
            f"{', '.join(dropped)} are nothing to the tokenizer; they count as predicted O."
        )
    if lines:
        warnings.warn("\n".join(lines), TruncationWarning, stacklevel=4)
