"""chrF and BLEU as functions of counts, so that a bootstrap only has to re-weigh the counts."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import sacrebleu

CHRF_ORDER, BLEU_ORDER = 6, 4  # the longest n-grams that count
BETA = 2  # chrF weighs recall BETA² times as much as precision


def chrf_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Count the character n-grams of each hypothesis, of its reference, and those in common.

    Parameters
    ----------
    hypotheses, references : sequence of str
        One reference for each hypothesis; spaces do not count.

    Returns
    -------
    ndarray of shape (n_rows, 18), float64
        For n = 1…6: n-grams of the hypothesis, of the reference, and matches. A hypothesis that
        is longer than its reference has no n-grams where the reference has none, as in sacrebleu.

    Examples
    --------
    >>> chrf_statistics(["ab"], ["abc"])[0, :6]
    array([2., 3., 2., 1., 2., 1.])
    """
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        counts = []
        for n in range(1, CHRF_ORDER + 1):
            found, wanted = _character_ngrams(hypothesis, n), _character_ngrams(reference, n)
            matches = (found & wanted).total()
            counts += [found.total() if wanted else 0, wanted.total(), matches]
        rows.append(counts)
    return np.array(rows, dtype=float).reshape(len(rows), 3 * CHRF_ORDER)


def _character_ngrams(text: str, n: int) -> Counter[str]:
    letters = "".join(text.split())
    return Counter(letters[i : i + n] for i in range(len(letters) - n + 1))


def chrf_score(sums: np.ndarray) -> np.ndarray:
    """Compute chrF2 (Popović 2015), 0 to 100, of sums of `chrf_statistics`.

    Precision and recall are means over the orders n for which both sides have n-grams; chrF is
    ``(1 + β²) P R / (β² P + R)`` with β = 2.

    Parameters
    ----------
    sums : ndarray of shape (..., 18)

    Returns
    -------
    ndarray of shape (...)

    Examples
    --------
    >>> round(float(chrf_score(chrf_statistics(["ab"], ["abc"])[0])), 2)
    63.64
    """
    found, wanted, matches = np.moveaxis(sums.reshape(*sums.shape[:-1], CHRF_ORDER, 3), -1, 0)
    counted = (found > 0) & (wanted > 0)
    orders = np.maximum(counted.sum(-1), 1)
    precision = np.where(counted, matches / np.maximum(found, 1), 0).sum(-1) / orders
    recall = np.where(counted, matches / np.maximum(wanted, 1), 0).sum(-1) / orders
    weighed = BETA**2 * precision + recall
    return 100 * (1 + BETA**2) * precision * recall / np.where(weighed > 0, weighed, 1)


def bleu_statistics(
    hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a"
) -> np.ndarray:
    """Count the words of each hypothesis and of its reference, and the n-grams in common.

    Parameters
    ----------
    hypotheses, references : sequence of str
        One reference for each hypothesis.
    tokenize : str
        What sacrebleu takes for a word: ``"13a"`` for languages with spaces, ``"zh"`` for Chinese,
        where each character is one.

    Returns
    -------
    ndarray of shape (n_rows, 10), float64
        Words of the hypothesis, of the reference; for n = 1…4 matches; for n = 1…4 n-grams of the
        hypothesis.

    Examples
    --------
    >>> bleu_statistics(["a cat sat"], ["the cat sat"])[0]
    array([3., 3., 2., 1., 0., 0., 3., 2., 1., 0.])
    """
    metric, rows = sacrebleu.BLEU(tokenize=tokenize), []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        score = metric.corpus_score([hypothesis], [[reference]])
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return np.array(rows, dtype=float).reshape(len(rows), 2 + 2 * BLEU_ORDER)


def bleu_score(sums: np.ndarray) -> np.ndarray:
    """Compute BLEU (Papineni et al. 2002), 0 to 100, of sums of `bleu_statistics`.

    The geometric mean of the precisions for n = 1…4, times ``exp(1 - reference / hypothesis)``
    where the hypotheses are the shorter side. An order without a match counts as half a match,
    the next such one as a quarter, and so on: sacrebleu's smoothing (Post 2018).

    Parameters
    ----------
    sums : ndarray of shape (..., 10)

    Returns
    -------
    ndarray of shape (...)

    Examples
    --------
    >>> round(float(bleu_score(bleu_statistics(["the cat sat up"], ["the cat sat down"])[0])), 1)
    59.5
    """
    lengths, matches, totals = np.split(sums, [2, 2 + BLEU_ORDER], axis=-1)
    halvings = np.cumsum((matches == 0) & (totals > 0), axis=-1)
    shares = np.where(matches > 0, matches, 0.5**halvings) / np.maximum(totals, 1)
    mean = np.exp(np.log(shares).mean(-1))
    with np.errstate(divide="ignore"):
        too_short = np.exp(np.minimum(0, 1 - lengths[..., 1] / lengths[..., 0]))
    possible = (totals > 0).all(-1) & (matches > 0).any(-1)
    return np.where(possible, 100 * too_short * mean, 0.0)
