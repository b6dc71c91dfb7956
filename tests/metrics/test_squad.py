"""Exact match and F1 are those of the evaluation that was published with SQuAD v1.1."""

import collections
import random
import re
import string

import pytest

from ftkit.metrics.squad import answer_f1, exact_match, mixed_segmentation, normalize_answer

PLAIN = "a an the The AN river River's rivers half-past banana theatre can't U.S. 1,066 Москва"
ODD = ["“quoted”", "…", "", " - ", "—", ".", ",,", "the.", "a's", "(an)", "\t", "\n\u00a0", "x's"]
WORDS = [*PLAIN.split(), *ODD]
SIGNS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"  # what CMRC 2018 drops
LATIN = r"\w+(?:[.,']\w+)*|[^\w\s]"
MIXED = [
    *"北京大学校园在一二年月。，《》“”",
    *["iPhone", "14", "3.5", "5,999", "a-b", "(", ".", "…"],
    " ",
]


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


def published_segments(text: str) -> list[str]:
    """CMRC 2018's loop over characters; words between them by a pattern in place of NLTK."""
    found, run = [], ""
    for char in text.lower().strip():
        if char in SIGNS:
            continue
        if "\u4e00" <= char <= "\u9fa5":
            found, run = [*found, *re.findall(LATIN, run), char], ""
        else:
            run += char
    return found + re.findall(LATIN, run)


def published_overlap(one: list[str], other: list[str]) -> int:
    """The length of the longest common run, by the table of all pairs of places."""
    best = 0
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            if left == right:
                table[i + 1][j + 1] = table[i][j] + 1
                best = max(best, table[i + 1][j + 1])
    return best


def test_chinese_answers_agree_with_the_definition_of_cmrc_2018():
    rng, partly = random.Random(1), 0
    for _ in range(1000):
        answers = ["".join(rng.choices(MIXED, k=rng.randint(1, 8))) + "京" for _ in range(2)]
        start = rng.randrange(4)
        prediction = rng.choice(answers)[start : start + rng.randint(0, 9)].upper()
        prediction += rng.choice(["", "京", "。", "x1"])
        scores = []
        for answer in answers:
            one, other = published_segments(prediction), published_segments(answer)
            shared = published_overlap(one, other)
            share = (shared / max(len(one), 1), shared / len(other))
            scores.append(2 * share[0] * share[1] / sum(share) if shared else 0)
        plain = ["".join(c for c in t.lower().strip() if c not in SIGNS) for t in answers]
        same = "".join(c for c in prediction.lower().strip() if c not in SIGNS) in plain
        assert answer_f1(prediction, answers) == pytest.approx(max(scores), abs=1e-12)
        assert exact_match(prediction, answers) == same
        assert [mixed_segmentation(a) for a in answers] == [published_segments(a) for a in answers]
        partly += 0 < max(scores) < 1
    assert partly > 300


@pytest.mark.parametrize(
    ("prediction", "answer", "f1", "exact"),
    [
        ("北京大学", "北京大学校园", 0.8, 0),
        ("北京大学校园", "北京大学校园。", 1.0, 1),
        ("大北学京", "北京大学", 0.25, 0),  # a run counts, not a bag of characters
        ("1998", "1998年", 2 / 3, 0),
        ("《IPHONE》手机", "iPhone手机", 1.0, 1),
        ("", "北京", 0.0, 0),
        ("𠮷野", "𠮷野家", 0.8, 0),  # characters beyond the first plane are such too
        ("Beijing", "the Beijing", 1.0, 1),  # no Chinese: as before
    ],
)
def test_chinese_answers_count_by_character(prediction, answer, f1, exact):
    assert answer_f1(prediction, [answer]) == pytest.approx(f1)
    assert exact_match(prediction, [answer]) == exact
    assert answer_f1(prediction, ["no", answer]) == pytest.approx(f1)
