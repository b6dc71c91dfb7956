"""Exact match and F1 of an answer, as SQuAD v1.1 defines them, and CMRC 2018 for Chinese."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
CHINESE = re.compile(f"[{HAN}]")
CMRC_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
SEGMENT = re.compile(rf"[{HAN}]|[^\W{HAN}]+(?:[.,'][^\W{HAN}]+)*|[^\w\s]")


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


def mixed_segmentation(text: str) -> list[str]:
    """Return each Chinese character, and each word and number of another script, as CMRC 2018.

    Lower case, without the signs that CMRC 2018 drops. Where its script calls NLTK, words are runs
    of letters and digits, and what joins two of them: ``.``, ``,`` or ``'``.

    Parameters
    ----------
    text : str

    References
    ----------
    Cui et al. 2019, "A span-extraction dataset for Chinese machine reading comprehension".

    Examples
    --------
    >>> mixed_segmentation("《iPhone 14》售价5,999元。")
    ['iphone', '14', '售', '价', '5,999', '元']
    """
    return SEGMENT.findall(text.lower().translate(CMRC_PUNCTUATION))


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 where the prediction is one of the answers once all are normalised, else 0.0.

    An answer that holds Chinese characters is compared as CMRC 2018 does it: lower case, without
    punctuation, spaces as they stand; every other one by `normalize_answer`.

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
    >>> exact_match("《红楼梦》", ["红楼梦"])
    1.0
    """
    return max(float(_plain(prediction, a) == _plain(a, a)) for a in answers)


def _plain(text: str, answer: str) -> str:
    if CHINESE.search(answer):
        return text.lower().strip().translate(CMRC_PUNCTUATION)
    return normalize_answer(text)


def answer_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the F1 of what prediction and answer share, the best over the answers.

    F1 is the harmonic mean of two shares: of the prediction's words that are in the answer, and of
    the answer's words that are in the prediction. Words are what spaces separate, and one counts as
    often as it stands in both. Where an answer holds Chinese characters, words are those of
    `mixed_segmentation`, and shared is the longest run of them that stands in both (CMRC 2018).

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
    >>> answer_f1("北京大学", ["北京大学校园"])  # 4 of 4 characters, 4 of 6
    0.8
    """
    return max(_f1(prediction, answer) for answer in answers)


def _f1(prediction: str, answer: str) -> float:
    if CHINESE.search(answer):
        words, wanted = mixed_segmentation(prediction), mixed_segmentation(answer)
        shared = SequenceMatcher(None, words, wanted, autojunk=False).find_longest_match().size
    else:
        words, wanted = normalize_answer(prediction).split(), normalize_answer(answer).split()
        shared = (Counter(words) & Counter(wanted)).total()
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0
