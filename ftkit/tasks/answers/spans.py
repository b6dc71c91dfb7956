"""Which answers the logits of a question's windows name, the best first."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import log_softmax, logsumexp

from ftkit.data.batches import SPAN_COLUMNS

MAX_ANSWER_TOKENS = 30


@dataclass(frozen=True)
class Question:
    """All windows of one question, and what its answer is counted against.

    Two of them are equal where context and answers are, whichever tokenizer cut the windows.

    Attributes
    ----------
    context : str
    answers : tuple of str
        Empty where nobody knows.
    windows : tuple of int
        Rows of the encoded split.
    offsets : tuple of ndarray of shape (seq_len, 2)
        For each window: where each token begins and ends in the context, in characters, the end
        not included; (0, 0) for what is no token of the context.
    positions : tuple of (int, int)
        For each window: the tokens at which the answer starts and ends. Empty like `answers`.
    """

    context: str
    answers: tuple[str, ...]
    windows: tuple[int, ...] = field(compare=False)
    offsets: tuple[np.ndarray, ...] = field(compare=False)
    positions: tuple[tuple[int, int], ...] = field(compare=False)


class Answer(NamedTuple):
    """One span of the context that may be the answer.

    Attributes
    ----------
    text : str
    start : int
        Where it stands in the context, in characters.
    score : float
        Start logit + end logit.
    probability : float
        Softmax of the score over all spans that are allowed, in all windows of the question.
    """

    text: str
    start: int
    score: float
    probability: float


def span_scores(
    logits: np.ndarray, offsets: Any, max_answer_tokens: int = MAX_ANSWER_TOKENS
) -> np.ndarray:
    """Return start logit + end logit of every span of one window, -inf where it is not allowed.

    Allowed is what starts and ends in the context, starts no later than it ends, and has at most
    `max_answer_tokens` tokens.

    Parameters
    ----------
    logits : ndarray of shape (2, seq_len)
        Of the start and of the end.
    offsets : array of shape (seq_len, 2)
        See `Question`.
    max_answer_tokens : int

    Returns
    -------
    ndarray of shape (seq_len, max_answer_tokens), float64
        [start, number of tokens - 1].

    Examples
    --------
    >>> logits = np.array([[0.0, 2.0, 1.0], [0.0, 1.0, 3.0]])
    >>> span_scores(logits, [[0, 0], [0, 3], [4, 9]], max_answer_tokens=2)
    array([[-inf, -inf],
           [  3.,   5.],
           [  4., -inf]])
    """
    inside = np.less(*np.asarray(offsets).T)  # begins before it ends
    start, end = np.where(inside, logits[:, : len(inside)].astype(np.float64), -np.inf)
    end = np.append(end, np.full(max_answer_tokens - 1, -np.inf))
    return start[:, None] + sliding_window_view(end, max_answer_tokens)


def best_answers(
    question: Question,
    logits: Sequence[np.ndarray],
    n_best: int = 1,
    max_answer_tokens: int = MAX_ANSWER_TOKENS,
) -> list[Answer]:
    """Return the spans with the highest scores over all windows of a question, the best first.

    Every allowed span is looked at; the usual shortcut tries the 20 best starts and ends only.

    Parameters
    ----------
    question : Question
    logits : sequence of ndarray of shape (2, seq_len)
        For each window of the question.
    n_best : int
        A span that stands in two windows counts once, with its higher score.
    max_answer_tokens : int

    Returns
    -------
    list of Answer
        Empty where no span is allowed.
    """
    pairs = zip(logits, question.offsets, strict=True)
    scores = [span_scores(one, offsets, max_answer_tokens) for one, offsets in pairs]
    windows = np.repeat(np.arange(len(scores)), [matrix.size for matrix in scores])
    begins = np.cumsum([0, *(matrix.size for matrix in scores)])
    flat = np.concatenate([matrix.ravel() for matrix in scores])
    total = np.asarray(logsumexp(flat)).item()
    found: dict[tuple[int, int], Answer] = {}
    for place in _descending(flat, n_best * len(scores)):
        window = windows[place]
        first, length = divmod(int(place - begins[window]), max_answer_tokens)
        offsets = question.offsets[window]
        start, end = int(offsets[first][0]), int(offsets[first + length][1])
        score = float(flat[place])
        answer = Answer(question.context[start:end], start, score, float(np.exp(score - total)))
        found.setdefault((start, end), answer)
    return list(found.values())[:n_best]


def _descending(values: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the highest finite values, the highest first, ties in their order."""
    finite = np.flatnonzero(values > -np.inf)
    if count < len(finite):
        least = np.partition(values[finite], -count)[-count]
        finite = finite[values[finite] >= least]
    return finite[np.argsort(-values[finite], kind="stable")]


def window_loss(logits: np.ndarray, places: tuple[int, int]) -> float:
    """Return the mean of the cross-entropies of start and end, in nats.

    Parameters
    ----------
    logits : ndarray of shape (2, seq_len)
    places : (int, int)
        The tokens at which the answer starts and ends.
    """
    return float(-log_softmax(logits, axis=-1)[[0, 1], list(places)].mean())


def group_windows(dataset: Dataset) -> list[Question]:
    """Return the questions of an encoded split, in the order in which their windows begin."""
    names = ("question_index", "offsets", "context", "answers", *SPAN_COLUMNS)
    columns = [name for name in names if name in dataset.column_names]
    found: dict[int, dict[str, list]] = {}
    number = 0
    for rows in dataset.select_columns(columns).iter(1000):
        batch: dict[str, list] = dict(rows)  # type: ignore[call-overload]
        for i, index in enumerate(batch["question_index"]):
            parts = ("context", "answers", "windows", "offsets", "positions")
            one = found.setdefault(index, {name: [] for name in parts})
            one["context"] = batch["context"][i]
            one["windows"].append(number)
            one["offsets"].append(np.array(batch["offsets"][i], dtype=np.int32))
            if "answers" in batch:
                one["answers"] = batch["answers"][i]
                one["positions"].append(tuple(batch[name][i] for name in SPAN_COLUMNS))
            number += 1
    return [
        Question(str(c), *map(tuple, lists)) for c, *lists in (q.values() for q in found.values())
    ]
