"""The bundled fables are what their card says, and a character model predicts them badly."""

import importlib.util
import json
import math
import re
from collections import Counter, defaultdict
from types import ModuleType

import pytest

from ftkit.paths import bundled

Row = dict[str, str]
SPLITS = ("train", "validation", "test")
ORDER = 5  # characters in an n-gram
END = "\n"  # closes a story; stands in no story


@pytest.fixture(scope="module")
def stories() -> dict[str, list[Row]]:
    splits = {}
    for name in SPLITS:
        text = bundled(f"stories/{name}.jsonl").read_text(encoding="utf-8")
        splits[name] = [json.loads(line) for line in text.splitlines()]
    return splits


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", bundled("stories/build.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def card() -> str:
    return bundled("stories/README.md").read_text(encoding="utf-8")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def count_ngrams(texts: list[str]) -> list[dict[str, Counter]]:
    """Count, for contexts of 0 to ORDER - 1 characters, what follows them."""
    counts: list[dict[str, Counter]] = [defaultdict(Counter) for _ in range(ORDER)]
    for text in texts:
        padded = END * (ORDER - 1) + text + END
        for end in range(ORDER - 1, len(padded)):
            for length in range(ORDER):
                counts[length][padded[end - length : end]][padded[end]] += 1
    return counts


def bits_per_character(counts: list[dict[str, Counter]], texts: list[str]) -> float:
    """Cross-entropy under a Witten-Bell model; a new character shares in one unknown symbol."""
    alphabet = len(counts[0][""]) + 1
    bits, characters = 0.0, 0
    for text in texts:
        padded = END * (ORDER - 1) + text + END
        for end in range(ORDER - 1, len(padded)):
            chance = 1 / alphabet
            for length in range(ORDER):
                seen = counts[length].get(padded[end - length : end])
                if seen:
                    kinds, total = len(seen), sum(seen.values())
                    chance = (seen[padded[end]] + kinds * chance) / (total + kinds)
            bits -= math.log2(chance)
            characters += 1
    return bits / characters


def test_the_files_are_what_the_builder_draws(build: ModuleType) -> None:
    for name, rows in build.build().items():
        assert bundled(f"stories/{name}.jsonl").read_bytes() == build.as_lines(rows).encode()


def test_the_card_states_the_counts(stories: dict[str, list[Row]], card: str) -> None:
    for name, rows in stories.items():
        texts = [row["story"] for row in rows]
        mean = sum(len(text.split()) for text in texts) / len(texts)
        types = len({word for text in texts for word in words(text)})
        assert f"| {name} | {len(rows)} | {mean:.1f} | {types:,} |" in card


def test_the_splits_are_large_enough(stories: dict[str, list[Row]]) -> None:
    sizes = [len(stories[name]) for name in SPLITS]
    assert all(size >= least for size, least in zip(sizes, (180, 30, 30), strict=True))


def test_stories_and_morals_have_the_right_form(stories: dict[str, list[Row]]) -> None:
    for row in (row for rows in stories.values() for row in rows):
        assert list(row) == ["title", "story", "moral"]
        assert 50 <= len(row["story"].split()) <= 110
        assert 3 <= len(row["moral"].split()) <= 14
        assert row["moral"].endswith(".")
        assert row["moral"] not in row["story"]
        assert "".join(row.values()).isascii()
        assert "  " not in row["story"]


def test_no_text_stands_twice(stories: dict[str, list[Row]]) -> None:
    rows = [row for rows in stories.values() for row in rows]
    for column in ("title", "story", "moral"):
        assert len({row[column].lower() for row in rows}) == len(rows)
    openings = Counter(" ".join(words(row["story"])[:4]) for row in rows)
    assert max(openings.values()) == 1


def test_no_two_stories_share_many_phrases(stories: dict[str, list[Row]]) -> None:
    """Near duplicates would share many runs of three words."""
    runs = []
    for row in (row for rows in stories.values() for row in rows):
        tokens = words(row["story"])
        runs.append(set(zip(tokens, tokens[1:], tokens[2:], strict=False)))
    pairs = ((one, other) for i, one in enumerate(runs) for other in runs[:i])
    shared = ((len(one & other), len(one) + len(other)) for one, other in pairs)
    assert max(both / (total - both) for both, total in shared) < 0.04


def test_the_character_model_stays_where_the_card_says(
    stories: dict[str, list[Row]], card: str
) -> None:
    """Above 2 bits: few phrases come back, so that copying from train does not help."""
    texts = {name: [row["story"] for row in rows] for name, rows in stories.items()}
    bits = bits_per_character(count_ngrams(texts["train"]), texts["test"])
    assert 2.0 < bits < 2.6
    assert f"{bits:.3f} bits" in card


def test_few_words_of_test_are_new(stories: dict[str, list[Row]], card: str) -> None:
    """At most 8 %: the vocabulary is small on purpose."""
    known = {word for row in stories["train"] for word in words(row["story"])}
    tokens = [word for row in stories["test"] for word in words(row["story"])]
    share = sum(word not in known for word in tokens) / len(tokens)
    assert share < 0.08
    assert f"{100 * share:.1f} %" in card
