"""Checks of notebook 10: labels of tokens, BIO from spans, stray I- tags, F1 of one type."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from ftkit.checks import Case, ask, check, close, draw, expect, integers, number_or_nan

Function = Callable[..., Any]
Span = tuple[int, int, str]
TYPES = ("PER", "LOC", "ORG")


@check("One label a word: a name of many pieces counts no more than a short one.")
def token_labels(answer: Function, seed: int = 0) -> None:
    """Check the labels of tokens: first pieces, further pieces, special tokens."""
    rng = random.Random(seed)
    for size in (3, 6, 9):
        labels = [rng.randint(1, 4) for _ in range(size)]
        labels[rng.randrange(1, size)] = 0
        pieces = [2, *(rng.randint(1, 3) for _ in labels[1:])]
        word_ids = [None, *(word for word, n in enumerate(pieces) for _ in range(n)), None]
        right = _first_only(word_ids, labels)
        result = answer(list(word_ids), list(labels))
        expect(
            _is_row(result) and len(result) == len(word_ids),
            f"one label a token is wanted: {len(word_ids)} of them here, special tokens included.",
        )
        _judge_labels(integers(result).tolist(), right, word_ids, labels)


def _judge_labels(
    result: list[int], right: list[int], word_ids: list[int | None], labels: list[int]
) -> None:
    special = [i for i, word in enumerate(word_ids) if word is None]
    rest = [i for i, word in enumerate(word_ids) if word is not None and right[i] == -100]
    expect(
        all(result[i] == -100 for i in special),
        "a special token such as [CLS] is no word: its label is -100, not O and not a word's.",
    )
    expect(
        not all(r == labels[w] for r, w in zip(result, word_ids, strict=True) if w is not None),
        "every piece has its word's label: a long name then counts several times. Only the first "
        "piece is labelled.",
    )
    expect(
        not all(result[i] == 0 for i in rest),
        "0 is the label of O: you teach that the rest of a name is no name. -100 is left out.",
    )
    last = list(reversed(_first_only(word_ids[::-1], labels)))
    expect(result != last, "you label the last piece of each word; the custom is the first one.")
    expect(result == right, "not yet: a word's label at its first token, -100 everywhere else.")


def _first_only(word_ids: list[int | None], labels: list[int]) -> list[int]:
    seen: set[int | None] = {None}
    row = []
    for word in word_ids:
        row.append(-100 if word in seen else labels[word or 0])
        seen.add(word)
    return row


@check("B- says where one entity ends and the next begins; without it neighbours would merge.")
def to_bio(answer: Function, seed: int = 0) -> None:
    """Check the tags of spans: their ends, their beginnings, and neighbours of one type."""
    rng = random.Random(seed)
    for _ in range(4):
        kind = rng.choice(TYPES)
        spans: list[Span] = [(1, 3, kind), (3, 4, kind), (5, 5 + rng.randint(2, 3), "DATE")]
        size = spans[-1][1] + rng.randint(1, 3)
        right = _tags(size, spans)
        result = answer(size, list(spans))
        expect(_is_row(result) and len(result) == size, f"{size} tags are wanted, one a word.")
        result = list(result)
        expect(
            set(result) & {"O"},
            'a word outside all entities has the tag "O", the letter.',
        )
        longer = _tags(size, [(start, end + 1, name) for start, end, name in reversed(spans)])
        expect(
            result[spans[-1][1]] == "O" and result != longer,
            "your entities are one word too long: `end` is the first word after the entity.",
        )
        begun = [result[start].startswith("B-") for start, *_ in spans]
        expect(any(begun), "no entity begins with B-. The first word of each has B-.")
        expect(all(begun), "two neighbours became one: each entity begins with B-, always.")
        inside = [result[i] for start, end, _ in spans for i in range(start + 1, end)]
        expect(
            not all(tag.startswith("B-") for tag in inside),
            "every word has B-: that reads as many entities of one word. Further words have I-.",
        )
        expect(result == right, "not yet: B-TYPE, then I-TYPE up to `end`, and O elsewhere.")


def _tags(size: int, spans: Sequence[Span]) -> list[str]:
    tags = ["O"] * size
    for start, end, kind in spans:
        for i in range(start, min(end, size)):
            tags[i] = f"{'B' if i == start else 'I'}-{kind}"
    return tags


@check("Now every entity begins with B-, and the CoNLL script reads the same entities as before.")
def repair(answer: Function, seed: int = 0) -> None:
    """Check that an I- which begins an entity becomes B-, and that nothing else changes."""
    rng = random.Random(seed)
    for _ in range(5):
        one, other = rng.sample(TYPES, 2)
        tags = [f"I-{one}", "O", f"B-{one}", f"I-{one}", f"I-{other}", f"I-{other}", "O"]
        tags += [*[f"I-{other}"] * rng.randint(2, 3), f"B-{other}", f"I-{other}", "O"]
        given = list(tags)
        result = answer(given)
        expect(_is_row(result) and len(result) == len(tags), "one tag a word, as many as came.")
        result, right = list(result), _repaired(tags)
        expect(
            result[0] != tags[0],
            "the very first tag is an I-: nothing stands before it, so it begins an entity.",
        )
        expect(
            not any(new == "O" != old for new, old in zip(result, tags, strict=True)),
            "you drop entities: a stray I- begins one, so it becomes B-, not O.",
        )
        expect(
            result[4] != tags[4],
            "an I- after an entity of another type begins one too: compare the types.",
        )
        expect(
            result[5] == tags[5],
            "an I- that goes on with an entity stays I-, also where you have just made its first "
            "word a B-.",
        )
        expect(result == right, "not yet: only an I- that goes on with its own type may stay.")
        untouched = given == tags
        expect(untouched, "your function changes the list that it is given; return a new one.")


def _repaired(tags: Sequence[str]) -> list[str]:
    return [
        f"B-{tag[2:]}" if tag[0] == "I" and old[2:] != tag[2:] else tag
        for old, tag in pairwise(["O", *tags])
    ]


@check("Count over all sentences first, divide once; an entity is right as a whole or not at all.")
def type_f1(answer: Function, seed: int = 0) -> None:
    """Check the F1 of one type: whole entities, their own sentence, one division at the end."""
    rng = random.Random(seed)
    ask(
        answer,
        *(draw(_sentences_case, rng, size) for size in (6, 12)),
        otherwise="not yet: 2 · right / (predicted + there), entities of this type only.",
    )
    nothing = number_or_nan(answer, [set()], [{(0, 1, "LOC")}], "PER")
    hint = "a type that is neither there nor predicted is 0/0: by custom F1 is 0."
    expect(close(nothing, 0), hint)


def _sentences_case(rng: random.Random, size: int) -> Case:
    truths = [_random_spans(rng) for _ in range(size)]
    guesses = [_near(spans, rng) for spans in truths]
    guesses[0], truths[0] = set(), {(0, 1, "PER")}
    right, mistakes = _f1_and_mistakes(guesses, truths, "PER")
    return Case((guesses, truths, "PER"), right, mistakes)


def _random_spans(rng: random.Random) -> set[Span]:
    starts = rng.sample(range(0, 12, 3), rng.randint(1, 4))
    return {(start, start + rng.randint(1, 2), rng.choice(TYPES)) for start in starts}


def _near(spans: set[Span], rng: random.Random) -> set[Span]:
    """Return a prediction with right entities, wrong types, wrong ends, and misses."""
    changed = set()
    for start, end, kind in spans:
        fate = rng.random()
        kind = rng.choice(TYPES) if fate < 0.25 else kind
        end = end + 1 if 0.25 < fate < 0.45 else end
        changed |= set() if fate > 0.85 else {(start, end, kind)}
    return changed


def _f1_and_mistakes(
    guesses: list[set[Span]], truths: list[set[Span]], kind: str
) -> tuple[float, dict[str, float]]:
    mine, yours = ([{s for s in row if s[2] == kind} for row in rows] for rows in (guesses, truths))
    pairs = list(zip(mine, yours, strict=True))
    hits = sum(len(a & b) for a, b in pairs)
    found, there = sum(map(len, mine)), sum(map(len, yours))
    pooled, wanted = set().union(*mine), set().union(*yours)
    overlaps = sum(any(a[0] < e and s < a[1] for s, e, _ in b) for m, b in pairs for a in m)
    mistakes = {
        "this is the F1 of all types together. Keep the entities of the asked type only.": _f1(
            sum(len(a & b) for a, b in zip(guesses, truths, strict=True)),
            sum(map(len, guesses)) + sum(map(len, truths)),
        ),
        "this is the mean of the sentences' own F1. Add up the counts of all sentences first.": (
            sum(_f1(len(a & b), len(a) + len(b)) for a, b in pairs) / len(pairs)
        ),
        "you put all sentences into one set: the third word of one sentence is not that of "
        "another.": _f1(len(pooled & wanted), len(pooled) + len(wanted)),
        "you count an overlap as right. An entity with a wrong border is wrong.": _f1(
            overlaps, found + there
        ),
        "this is the precision; entities that were missed must count too.": hits / max(found, 1),
        "this is the recall; entities that are not there must count too.": hits / max(there, 1),
    }
    return _f1(hits, found + there), mistakes


def _f1(hits: int, total: int) -> float:
    return 2 * hits / total if total else 0.0


def _is_row(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)
