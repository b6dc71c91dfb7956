"""The bundled entities are what their card says, and a dictionary does not find them."""

import importlib.util
import re
from collections import Counter, defaultdict
from itertools import groupby

import pytest

from ftkit.paths import bundled

KINDS = ("PER", "ORG", "LOC", "DATE")
Sentence = tuple[list[str], list[str]]
Span = tuple[int, int, str]


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", bundled("entities/build.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Sentence]]:
    return {name: read(name) for name in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def card() -> str:
    text = bundled("entities/README.md").read_text(encoding="utf-8")
    return " ".join(text.split())


def read(split: str) -> list[Sentence]:
    """Read one CoNLL file into (tokens, tags) pairs."""
    text = bundled(f"entities/{split}.conll").read_text(encoding="utf-8")
    groups = [group.split("\n") for group in text.strip("\n").split("\n\n")]
    pairs = [[line.split("\t") for line in group] for group in groups]
    return [([token for token, _ in group], [tag for _, tag in group]) for group in pairs]


def spans(tags: list[str]) -> list[Span]:
    """Return the entities of one sentence as (start, end, type), in order."""
    starts = [i for i, tag in enumerate(tags) if tag.startswith("B-")]
    found = []
    for start in starts:
        end = start + 1
        while end < len(tags) and tags[end] == f"I-{tags[start][2:]}":
            end += 1
        found.append((start, end, tags[start][2:]))
    return found


def names(sentences: list[Sentence]) -> list[tuple[str, str]]:
    """Return (type, lower-case name) of every entity."""
    return [
        (kind, " ".join(tokens[start:end]).casefold())
        for tokens, tags in sentences
        for start, end, kind in spans(tags)
    ]


def f1(sentences: list[Sentence], guesses: list[list[Span]]) -> float:
    """Micro F1 over entities: borders and type must be right."""
    truths = [spans(tags) for _, tags in sentences]
    right = sum(len(set(a) & set(b)) for a, b in zip(truths, guesses, strict=True))
    return 2 * right / (sum(map(len, truths)) + sum(map(len, guesses)))


def look_up(tokens: list[str], types: dict[str, Counter]) -> list[Span]:
    """Find training names in a sentence, the longest first."""
    longest = max(len(name.split()) for name in types)
    found: list[Span] = []
    start = 0
    while start < len(tokens):
        for end in range(min(start + longest, len(tokens)), start, -1):
            name = " ".join(tokens[start:end]).casefold()
            if name in types:
                found.append((start, end, types[name].most_common(1)[0][0]))
                start = end - 1
                break
        start += 1
    return found


def capitalised(tokens: list[str], kind: str) -> list[Span]:
    """Call every run of capitalised words (but *I*) an entity of one type."""
    large = [token[0].isupper() and token != "I" for token in tokens]
    runs, start = [], 0
    for is_large, group in groupby(large):
        end = start + len(list(group))
        runs += [(start, end, kind)] if is_large else []
        start = end
    return runs


def test_the_files_are_what_the_builder_writes(splits, build):
    for name, rows in build.build().items():
        assert splits[name] == [(row["tokens"], row["tags"]) for row in rows]


def test_the_tags_are_well_formed(splits):
    for tokens, tags in (sentence for split in splits.values() for sentence in split):
        assert all(re.fullmatch(r"O|[BI]-(PER|ORG|LOC|DATE)", tag) for tag in tags)
        assert all(token and not re.search(r"\s", token) for token in tokens)
        inside = sum(end - start for start, end, _ in spans(tags))
        assert inside == len(tags) - tags.count("O")  # so that no I- stands without its B-
        assert 8 <= len(tokens) <= 35


def test_the_card_states_the_counts(splits, card):
    for name, split in splits.items():
        kinds = Counter(kind for kind, _ in names(split))
        empty = sum(not spans(tags) for _, tags in split)
        counts = " | ".join(str(kinds[kind]) for kind in KINDS)
        tokens = sum(len(tokens) for tokens, _ in split)
        assert f"| {name} | {len(split)} | {tokens:,} | {counts} | {empty} |" in card


def test_there_is_enough_of_everything(splits):
    sizes = {name: len(split) for name, split in splits.items()}
    assert sizes["train"] >= 400
    assert sizes["validation"] >= 90
    assert sizes["test"] >= 160
    for split in splits.values():
        kinds = Counter(kind for kind, _ in names(split))
        assert min(kinds[kind] for kind in KINDS) >= 0.18 * kinds.total()
        assert 0.14 <= sum(not spans(tags) for _, tags in split) / len(split) <= 0.2


def test_registers_are_alike_in_every_split(build):
    for rows in build.build().values():
        registers = Counter(row["register"] for row in rows)
        assert len(registers) == 10
        assert min(registers.values()) >= 0.08 * len(rows)


def test_splits_share_no_sentence_and_only_names_of_two_types(splits):
    texts = Counter(" ".join(tokens).casefold() for s in splits.values() for tokens, _ in s)
    assert max(texts.values()) == 1
    kinds, homes = defaultdict(set), defaultdict(set)
    for split, sentences in splits.items():
        for kind, name in names(sentences):
            kinds[name].add(kind)
            homes[name].add(split)
    shared = [name for name, found in homes.items() if len(found) > 1]
    assert all(len(kinds[name]) > 1 or kinds[name] == {"DATE"} for name in shared)


def test_most_test_names_are_new(splits, card):
    known = {name for _, name in names(splits["train"])}
    new = [name not in known for _, name in names(splits["test"])]
    assert f"{sum(new)} of {len(new)} test entities" in card
    assert sum(new) / len(new) >= 0.8


def test_a_dictionary_and_capital_letters_do_not_suffice(splits, card):
    """Bounds leave room above the figures on the card; a learner must read the context."""
    train, test = splits["train"], splits["test"]
    types: dict[str, Counter] = defaultdict(Counter)
    for kind, name in names(train):
        types[name][kind] += 1
    commonest = Counter(kind for kind, _ in names(train)).most_common(1)[0][0]
    nothing = f1(test, [[] for _ in test])
    dictionary = f1(test, [look_up(tokens, types) for tokens, _ in test])
    capitals = f1(test, [capitalised(tokens, commonest) for tokens, _ in test])
    assert nothing == 0
    assert dictionary <= 0.2
    assert capitals <= 0.3
    assert f"always O {nothing:.2f}; dictionary {dictionary:.3f}; capitals {capitals:.3f}" in card
