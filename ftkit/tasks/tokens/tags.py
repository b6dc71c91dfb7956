"""Tags and tokens: a word's label stands at its first token, and its tag is read from there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import log_softmax

from ftkit.metrics.entities import OUTSIDE, count_entities, entity_metrics
from ftkit.tasks.tokens.words import NO_TOKEN

IGNORED = -100  # the label of a token that the loss leaves out
TAG = re.compile(r"[BI]-.+")


@dataclass(frozen=True)
class Sentence:
    """What a row's logits are counted against.

    Two of them are equal where the tags are, whichever tokenizer placed the words.

    Attributes
    ----------
    positions : list of int
        For each word the place of its first token; -1 where it has none.
    tag_ids : list of int
        For each word the number of its tag.
    """

    positions: list[int] = field(compare=False)
    tag_ids: list[int]


def token_labels(encoded: dict[str, list]) -> list[list[int]]:
    """Return the labels of each row's tokens: a word's at its first token, else -100.

    Parameters
    ----------
    encoded : dict of lists
        ``input_ids``, and the ``positions`` and ``tag_ids`` of each row's words.
    """
    rows = []
    columns = (encoded[name] for name in ("input_ids", "positions", "tag_ids"))
    for ids, positions, tag_ids in zip(*columns, strict=True):
        labels = [IGNORED] * len(ids)
        for position, tag in zip(positions, tag_ids, strict=True):
            if position != NO_TOKEN:
                labels[position] = tag
        rows.append(labels)
    return rows


def best_tag_ids(logits: np.ndarray, positions: Sequence[int], labels: Sequence[str]) -> np.ndarray:
    """Return the number of each word's likeliest tag; that of O for a word without a token.

    Parameters
    ----------
    logits : ndarray of shape (seq_len, n_labels)
    positions : sequence of int
    labels : sequence of str
    """
    places = np.array(positions)
    best = logits.argmax(axis=-1)[places]
    return np.where(places == NO_TOKEN, labels.index(OUTSIDE), best)


def count_row(
    logits: np.ndarray, row: Sentence, labels: Sequence[str], types: Sequence[str]
) -> np.ndarray:
    """Count one row: loss in nats, words with a token, words, right words, entities type by type.

    Returns
    -------
    ndarray of shape (4 + 3 * n_types,)
    """
    positions, tag_ids = np.array(row.positions), np.array(row.tag_ids)
    seen = positions != NO_TOKEN
    chances = log_softmax(logits[positions[seen]], axis=-1)
    nats = -chances[np.arange(seen.sum()), tag_ids[seen]].sum()
    found = best_tag_ids(logits, row.positions, labels)
    guesses, truths = ([labels[int(i)] for i in ids] for ids in (found, tag_ids))
    words = [nats, seen.sum(), len(tag_ids), (found == tag_ids).sum()]
    return np.array([*words, *count_entities(guesses, truths, types).ravel()])


def type_counts(sums: np.ndarray, types: Sequence[str]) -> np.ndarray:
    """Return the counts of entities, type by type, of sums of `count_row`: (..., n_types, 3)."""
    return sums[..., 4:].reshape(*sums.shape[:-1], len(types), 3)


def tag_metrics(sums: np.ndarray, types: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute the metrics of sums of `count_row`, shape (..., 4 + 3 * n_types) → (...)."""
    nats, seen, words, right = np.moveaxis(sums[..., :4], -1, 0)
    counts = type_counts(sums, types)
    by_type = entity_metrics(counts)["f1"]
    return {
        **entity_metrics(counts.sum(axis=-2)),
        "accuracy": right / np.maximum(words, 1),
        "loss": nats / np.maximum(seen, 1),
        **{f"f1_{name}": by_type[..., i] for i, name in enumerate(types)},
    }
