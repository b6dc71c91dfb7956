"""Entity F1 is that of the CoNLL shared tasks: their rules written out, and seqeval."""

import random
from collections import Counter

import numpy as np
import pytest

from ftkit.metrics.entities import (
    count_entities,
    entity_metrics,
    entity_scores,
    find_entities,
)
from tests.conftest import message

TAGS = ("O", "O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")


def random_sentences(seed: int, count: int) -> list[list[str]]:
    """Return sentences with every kind of stray I-, and some that hold nothing."""
    rng = random.Random(seed)
    return [rng.choices(TAGS, k=rng.randint(1, 12)) for _ in range(count)]


def near(tags: list[str], rng: random.Random) -> list[str]:
    """Return a prediction that is often right."""
    return [tag if rng.random() < 0.7 else rng.choice(TAGS) for tag in tags]


def starts(previous: str, tag: str) -> bool:
    """Say whether a chunk starts at `tag`: the rules of the shared tasks' script, one by one."""
    (before, old), (now, kind) = (t.partition("-")[::2] for t in (previous, tag))
    rules = [
        (before, now) in {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I")},
        now != "O" and old != kind,
    ]
    return any(rules)


def ends(previous: str, tag: str) -> bool:
    """Say whether the chunk of `previous` ends before `tag`."""
    (before, old), (now, kind) = (t.partition("-")[::2] for t in (previous, tag))
    rules = [
        (before, now) in {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O")},
        before != "O" and old != kind,
    ]
    return any(rules)


def published_counts(predictions, references) -> tuple[Counter, Counter, Counter]:
    """Count correct, predicted and true chunks by walking both columns at once, as published."""
    correct, predicted, true = Counter(), Counter(), Counter()
    before_guess = before_truth = "O"
    in_correct = None
    for guesses, truths in zip(predictions, references, strict=True):
        for guess, truth in zip([*guesses, "O"], [*truths, "O"], strict=True):
            old, new = before_truth.partition("-")[2], truth.partition("-")[2]
            guess_ends, truth_ends = ends(before_guess, guess), ends(before_truth, truth)
            if in_correct and guess_ends and truth_ends:
                correct[old] += 1
            if guess_ends or truth_ends or guess.partition("-")[2] != new:
                in_correct = None
            guess_starts, truth_starts = starts(before_guess, guess), starts(before_truth, truth)
            if guess_starts and truth_starts and guess.partition("-")[2] == new:
                in_correct = new
            predicted[guess.partition("-")[2]] += guess_starts
            true[new] += truth_starts
            before_guess, before_truth = guess, truth
    return correct, predicted, true


@pytest.fixture(scope="module")
def cases() -> tuple[list[list[str]], list[list[str]]]:
    references, rng = random_sentences(0, 1000), random.Random(1)
    return [near(tags, rng) for tags in references], references


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("B-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("I-PER I-PER O", [(0, 2, "PER")]),
        ("O I-PER B-PER", [(1, 2, "PER"), (2, 3, "PER")]),
        ("B-PER I-LOC I-LOC", [(0, 1, "PER"), (1, 3, "LOC")]),
        ("B-PER O I-PER", [(0, 1, "PER"), (2, 3, "PER")]),
        ("B-creative-work I-creative-work", [(0, 2, "creative-work")]),
    ],
)
def test_entities_by_hand(tags, expected):
    assert find_entities(tags.split()) == expected


def test_no_tags_no_entities():
    assert find_entities([]) == []
    assert entity_scores([], []) == {
        "all": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "entities": 0}
    }


def test_counts_are_those_of_the_published_walk(cases):
    """One sentence at a time: the walk over both columns, and sets of spans, agree."""
    for predicted, tags in zip(*cases, strict=True):
        correct, guessed, true = published_counts([predicted], [tags])
        counts = count_entities(predicted, tags, ["LOC", "ORG", "PER"])
        expected = [[correct[t], guessed[t], true[t]] for t in ("LOC", "ORG", "PER")]
        assert counts.tolist() == expected


def test_scores_are_those_of_the_published_walk(cases):
    correct, guessed, true = published_counts(*cases)
    scores = entity_scores(*cases)
    precision, recall = correct.total() / guessed.total(), correct.total() / true.total()
    assert scores["all"]["precision"] == pytest.approx(precision)
    assert scores["all"]["recall"] == pytest.approx(recall)
    assert scores["all"]["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert all(scores[t]["entities"] == true[t] for t in ("LOC", "ORG", "PER"))


def test_scores_are_those_of_seqeval(cases):
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    predictions, references = cases
    scores = entity_scores(predictions, references)
    for predicted, tags in zip(predictions, references, strict=True):
        expected = seqeval.f1_score([tags], [predicted], zero_division=0)
        assert entity_scores([predicted], [tags])["all"]["f1"] == pytest.approx(expected)
    report = seqeval.classification_report(references, predictions, output_dict=True)
    for ours, theirs in (("all", "micro avg"), *((t, t) for t in ("LOC", "ORG", "PER"))):
        for name in ("precision", "recall"):
            assert scores[ours][name] == pytest.approx(report[theirs][name])
        assert scores[ours]["f1"] == pytest.approx(report[theirs]["f1-score"])
        assert scores[ours]["entities"] == report[theirs]["support"]


def test_metrics_of_many_sums_at_once():
    counts = np.random.default_rng(0).integers(0, 9, (5, 4, 3))
    metrics = entity_metrics(counts)
    for place in np.ndindex(5, 4):
        for name, value in entity_metrics(counts[place]).items():
            assert metrics[name][place] == value


def test_nothing_predicted_scores_0_without_a_warning():
    metrics = entity_metrics(np.array([0, 0, 7]))
    assert {name: float(value) for name, value in metrics.items()} == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
    }


def test_lengths_must_agree():
    assert message(entity_scores, [["O"]], [["O", "O"]]) == (
        "1 predicted tags; expected 2, one a word."
    )
    assert message(entity_scores, [], [["O"]]) == "0 predictions; expected 1."
