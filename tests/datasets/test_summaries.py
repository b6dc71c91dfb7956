"""The bundled summaries are what their card says, and no sentence of a text does their work."""

import importlib.util
import json
import re
from collections import Counter
from types import ModuleType

import pytest

from ftkit.paths import bundled

Row = dict[str, str]
LEAST = {"train": 280, "validation": 50, "test": 70}
KINDS = ("conversation", "diary", "instruction", "message", "news", "notice", "report")
TITLES = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|K)\.")


@pytest.fixture(scope="module")
def summaries() -> dict[str, list[Row]]:
    splits = {}
    for name in LEAST:
        text = bundled(f"summaries/{name}.jsonl").read_text(encoding="utf-8")
        splits[name] = [json.loads(line) for line in text.splitlines()]
    return splits


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", bundled("summaries/build.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def card() -> str:
    return bundled("summaries/README.md").read_text(encoding="utf-8")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def sentences(text: str) -> list[str]:
    """Split after a full stop, question or exclamation mark, but not after a title."""
    text = TITLES.sub(r"\1", text)
    return [part.strip() for part in re.findall(r".+?[.!?]+\"?(?=\s|$)", text)]


def longest_common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        previous = row
        row = [0]
        for column, candidate in enumerate(other):
            best = max(row[-1], previous[column + 1])
            row.append(previous[column] + 1 if word == candidate else best)
    return row[-1]


def rouge(guess: str, reference: str) -> tuple[float, float]:
    """ROUGE-1 F1 and ROUGE-L F1 over lower-case words, without stemming."""
    one, other = words(guess), words(reference)
    shared = sum((Counter(one) & Counter(other)).values())
    total = len(one) + len(other)
    return 2 * shared / total, 2 * longest_common(one, other) / total


def mean_rouge(rows: list[Row], place: int) -> tuple[float, float]:
    """Mean ROUGE of the sentence at that place of each text against the summary."""
    scores = [rouge(sentences(row["text"])[place], row["summary"]) for row in rows]
    return sum(one for one, _ in scores) / len(rows), sum(long for _, long in scores) / len(rows)


def test_the_files_are_what_the_builder_draws(build: ModuleType) -> None:
    for name, rows in build.build().items():
        assert bundled(f"summaries/{name}.jsonl").read_bytes() == build.as_lines(rows).encode()


def test_the_card_states_the_counts(summaries: dict[str, list[Row]], card: str) -> None:
    for name, rows in summaries.items():
        kinds = Counter(row["kind"] for row in rows)
        assert sorted(kinds) == list(KINDS)
        cells = " | ".join(str(kinds[kind]) for kind in KINDS)
        assert f"| {name} | {len(rows)} | {cells} |" in card


def test_the_splits_are_large_enough_and_balanced(summaries: dict[str, list[Row]]) -> None:
    for name, rows in summaries.items():
        assert len(rows) >= LEAST[name]
        assert len(set(Counter(row["kind"] for row in rows).values())) == 1


def test_texts_and_summaries_have_the_right_form(summaries: dict[str, list[Row]]) -> None:
    for row in (row for rows in summaries.values() for row in rows):
        assert list(row) == ["text", "summary", "kind"]
        assert 40 <= len(row["text"].split()) <= 90
        assert 5 <= len(row["summary"].split()) <= 14
        assert row["summary"].endswith(".")
        assert len(sentences(row["summary"])) == 1
        assert len(sentences(row["text"])) >= 3
        assert row["summary"] not in row["text"]


def test_no_text_stands_twice(summaries: dict[str, list[Row]]) -> None:
    rows = [row for rows in summaries.values() for row in rows]
    for column in ("text", "summary"):
        assert len({row[column].lower() for row in rows}) == len(rows)
    openings = Counter(" ".join(words(row["text"])[:4]) for row in rows)
    assert max(openings.values()) == 1


def test_one_sentence_of_the_text_is_a_poor_summary(
    summaries: dict[str, list[Row]], card: str
) -> None:
    """Below 0.3: a summary has to put together what several sentences say."""
    for place in (0, -1):
        one, long = mean_rouge(summaries["test"], place)
        assert one < 0.3
        assert f"| {one:.3f} | {long:.3f} |" in card


def test_no_single_sentence_nearly_is_the_summary(summaries: dict[str, list[Row]]) -> None:
    for row in (row for rows in summaries.values() for row in rows):
        assert max(rouge(part, row["summary"])[1] for part in sentences(row["text"])) < 0.75
