"""Exact match and F1 of an answer, as SQuAD v1.1 defines them."""

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Return what is compared: lower case, no punctuation, no articles, single spaces.

    The steps and their order are those of the evaluation that Rajpurkar et al. published with
    SQuAD v1.1 (2016). Only ASCII punctuation counts as such.

    Parameters
    ----------
    text : str

    Examples
    --------
    >>> normalize_answer("The  River's mouth, at dawn.")
    'rivers mouth at dawn'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 where the prediction is one of the answers once all are normalised, else 0.0.

    Parameters
    ----------
    prediction : str
    answers : sequence of str
        At least one.

    Raises
    ------
    ValueError
        There is no answer.

    Examples
    --------
    >>> exact_match("the ferry", ["Ferry.", "a boat"])
    1.0
    """
    normal = normalize_answer(prediction)
    return max(float(normal == normalize_answer(answer)) for answer in answers)


def answer_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the F1 of the words that prediction and answer share, the best over the answers.

    A word counts as often as it stands in both. F1 is the harmonic mean of two shares: of the
    prediction's words that are in the answer, and of the answer's words that are in the prediction.
    Words are what spaces separate, so a Chinese answer is one word.

    Parameters
    ----------
    prediction : str
    answers : sequence of str
        At least one.

    Returns
    -------
    float
        From 0 to 1; 0 where no word is shared.

    Raises
    ------
    ValueError
        There is no answer.

    Examples
    --------
    >>> answer_f1("the red ferry", ["ferry", "a red boat at dawn"])  # 1 of 2 words, 1 of 1
    0.6666666666666666
    """
    words = normalize_answer(prediction).split()
    return max(_f1(words, normalize_answer(answer).split()) for answer in answers)


def _f1(words: Sequence[str], wanted: Sequence[str]) -> float:
    shared = (Counter(words) & Counter(wanted)).total()
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0
