"""Exact match and F1 are those of the evaluation that was published with SQuAD v1.1."""

import collections
import random
import re
import string

import pytest

from ftkit.metrics.squad import answer_f1, exact_match, normalize_answer

PLAIN = "a an the The AN river River's rivers half-past banana theatre can't U.S. 1,066 naïve 東京"
ODD = ["“quoted”", "…", "", " - ", "—", ".", ",,", "the.", "a's", "(an)", "\t", "\n\u00a0", "x's"]
WORDS = [*PLAIN.split(), *ODD]


def published_normalize(text: str) -> str:
    """The definition, step by step: lower case, punctuation, articles, white space."""
    text = text.lower()
    text = "".join(ch for ch in text if ch not in set(string.punctuation))
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return " ".join(text.split())


def published_f1(prediction: str, answer: str) -> float:
    """The harmonic mean of precision and recall over the bag of words."""
    predicted = published_normalize(prediction).split()
    wanted = published_normalize(answer).split()
    same = sum((collections.Counter(predicted) & collections.Counter(wanted)).values())
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(predicted), 1.0 * same / len(wanted)
    return (2 * precision * recall) / (precision + recall)


def random_text(rng: random.Random) -> str:
    return rng.choice([" ", "  ", ""]).join(rng.choices(WORDS, k=rng.randrange(9)))


def test_a_thousand_random_cases_agree_with_the_published_definition():
    rng = random.Random(0)
    scores = []
    for _ in range(1000):
        answers = [random_text(rng) for _ in range(rng.randint(1, 3))]
        prediction = rng.choice([random_text(rng), rng.choice(answers).upper()]) + rng.choice(WORDS)
        assert normalize_answer(prediction) == published_normalize(prediction)
        exact = max(published_normalize(prediction) == published_normalize(a) for a in answers)
        f1 = max(published_f1(prediction, answer) for answer in answers)
        assert exact_match(prediction, answers) == exact
        assert answer_f1(prediction, answers) == pytest.approx(f1, abs=1e-12)
        scores.append((exact, f1))
    assert 100 < sum(exact for exact, _ in scores) < 900  # both happen
    assert sum(0 < f1 < 1 for _, f1 in scores) > 100


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  River's mouth, at dawn.", "rivers mouth at dawn"),
        ("theatre, banana", "theatre banana"),  # articles are whole words
        ("a.m.", "am"),  # punctuation goes first
        ("A-team", "ateam"),
        ("the an a", ""),
        ("“The ferry”", "“ ferry”"),  # only ASCII punctuation is punctuation
    ],
)
def test_normalisation(text, normal):
    assert normalize_answer(text) == normal == published_normalize(text)


def test_words_count_as_often_as_they_stand_in_both():
    assert answer_f1("no no no", ["no"]) == pytest.approx(0.5)
    assert answer_f1("no no", ["no no yes yes"]) == pytest.approx(2 / 3)


def test_the_best_answer_counts_and_nothing_shared_is_zero():
    assert exact_match("Ferry", ["boat", "the ferry"]) == 1.0
    assert answer_f1("ferry", ["boat", "ferry boat"]) == pytest.approx(2 / 3)
    assert answer_f1("", [""]) == 0.0  # as published: no word is shared
    assert exact_match("", ["the"]) == 1.0


def test_without_an_answer_there_is_no_score():
    with pytest.raises(ValueError, match="empty"):
        exact_match("x", [])
