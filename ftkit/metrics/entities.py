"""Named entities in BIO tags, scored whole, as CoNLL-2000 and CoNLL-2003 define it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ftkit.errors import FtkitError

OUTSIDE = "O"


class Entity(NamedTuple):
    """Words of a sentence that form one name.

    Attributes
    ----------
    start, end : int
        In words, counted from 0; `end` is the first word after it.
    type : str
        Such as ``"PER"``.
    """

    start: int
    end: int
    type: str


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities that the tags of one sentence spell, in their order.

    ``B-PER`` begins an entity of the type PER, ``I-PER`` is inside one, ``O`` is outside. An
    ``I-`` goes on with an entity only if one of its own type ends right before it; anywhere else it
    begins one. So tags that no annotator would write have a meaning too, the one that the script
    of the CoNLL-2000 and CoNLL-2003 shared tasks gives them.

    Parameters
    ----------
    tags : sequence of str

    Returns
    -------
    list of Entity

    References
    ----------
    Tjong Kim Sang and Buchholz 2000, "Introduction to the CoNLL-2000 shared task: chunking";
    Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 shared task".

    Examples
    --------
    >>> find_entities(["B-PER", "I-PER", "O", "I-LOC", "I-PER"])[1:]
    [Entity(start=3, end=4, type='LOC'), Entity(start=4, end=5, type='PER')]
    """
    found: list[Entity] = []
    for i, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix == OUTSIDE:
            continue
        if prefix == "I" and found and found[-1].end == i and found[-1].type == kind:
            found[-1] = found[-1]._replace(end=i + 1)
        else:
            found.append(Entity(i, i + 1, kind))
    return found


def entity_types(tags: Sequence[str]) -> list[str]:
    """Return the types that tags name, sorted.

    Examples
    --------
    >>> entity_types(["O", "B-PER", "I-PER", "B-LOC"])
    ['LOC', 'PER']
    """
    return sorted({tag.partition("-")[2] for tag in tags if tag != OUTSIDE})


def count_entities(
    predicted: Sequence[str], tags: Sequence[str], types: Sequence[str]
) -> np.ndarray:
    """Count the entities of one sentence: rightly predicted, predicted, and there.

    Right is what has the same first word, the same last word and the same type.

    Parameters
    ----------
    predicted, tags : sequence of str
        One tag a word.
    types : sequence of str

    Returns
    -------
    ndarray of shape (n_types, 3), int

    Raises
    ------
    FtkitError
        Not as many predictions as tags.

    Examples
    --------
    >>> tags = ["B-PER", "I-PER", "B-LOC"]
    >>> count_entities(["B-PER", "O", "B-LOC"], tags, ["LOC", "PER"]).tolist()
    [[1, 1, 1], [0, 1, 1]]
    """
    if len(predicted) != len(tags):
        raise FtkitError(f"{len(predicted)} predicted tags; expected {len(tags)}, one a word.")
    guesses, truths = set(find_entities(predicted)), set(find_entities(tags))
    counts = np.zeros((len(types), 3), dtype=int)
    for column, entities in enumerate((guesses & truths, guesses, truths)):
        for entity in entities:
            counts[types.index(entity.type), column] += 1
    return counts


def entity_metrics(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Compute precision, recall and F1 of counts, which may be sums over sentences or types.

    Parameters
    ----------
    counts : ndarray of shape (..., 3)
        Rightly predicted, predicted, and there; see `count_entities`.

    Returns
    -------
    dict
        Metric name → ndarray of shape (...). 0/0 counts as 0.

    Examples
    --------
    >>> {name: float(value) for name, value in entity_metrics(np.array([2, 4, 2])).items()}
    {'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666}
    """
    correct, predicted, true = np.moveaxis(counts.astype(float), -1, 0)
    return {
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, true),
        "f1": _ratio(2 * correct, predicted + true),
    }


def entity_scores(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Score the predicted tags of sentences: all entities together, and each type.

    Parameters
    ----------
    predictions, references : sequence of sequences of str
        One tag a word, sentence by sentence.

    Returns
    -------
    dict
        ``"all"`` (every entity counts once: the micro average) and each type → ``precision``,
        ``recall``, ``f1`` and ``entities``, the number that are there.

    Raises
    ------
    FtkitError
        Not as many predictions as there are sentences, or words in one of them.

    Examples
    --------
    >>> scores = entity_scores([["B-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "B-LOC"]])
    >>> scores["all"]["f1"], scores["LOC"]["f1"], scores["PER"]["f1"]
    (0.5, 1.0, 0.0)
    """
    if len(predictions) != len(references):
        raise FtkitError(f"{len(predictions)} predictions; expected {len(references)}.")
    types = entity_types([tag for tags in (*predictions, *references) for tag in tags])
    counts = np.zeros((len(types), 3), dtype=int)
    for predicted, tags in zip(predictions, references, strict=True):
        counts += count_entities(predicted, tags, types)
    rows = {"all": counts.sum(axis=0), **dict(zip(types, counts, strict=True))}
    return {
        name: {**{n: float(v) for n, v in entity_metrics(row).items()}, "entities": int(row[2])}
        for name, row in rows.items()
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
