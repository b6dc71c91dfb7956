"""Write train.conll, validation.conll and test.conll from sentences.jsonl.

Run it to rewrite the three files.

The source marks its entities inline: ``[PER Anna Lind] left on [DATE 4 March].`` Sentences that
share the name of a person, organisation or place stay in one split, except for names of two
types, such as *Jordan*: these may stand in several.
"""

import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

FOLDER = Path(__file__).parent
SHARES = {"train": 0.61, "validation": 0.14, "test": 0.25}
MARKED = re.compile(r"\[(PER|ORG|LOC|DATE) ([^\[\]]+)\]|([^\[\]]+)")
TOKEN = re.compile(
    r"(?:Dr|Mrs?|Ms|Prof|St|Ltd|[ap]\.m|[A-HJ-Z])\.(?!\w)"  # abbreviations and initials
    r"|\d+(?:[.,:/-]\d+)*\w*"  # 3-2, 412.60, 14/03/98, 1960s, 3rd
    r"|'s\b|\w+(?:(?!'s\b)['-]\w+)*"  # the possessive apart; O'Brien, Mei-Ling, don't
    r"|:[()]|[^\w\s]"
)


def read_sentences() -> list[dict]:
    """Return the source rows with their tokens, tags and (type, name) pairs."""
    lines = (FOLDER / "sentences.jsonl").read_text(encoding="utf-8").splitlines()
    return [row | tag(row["text"]) for row in map(json.loads, lines)]


def tag(text: str) -> dict[str, list]:
    """Turn the inline marks of one sentence into tokens, BIO tags and (type, name) pairs."""
    row: dict[str, list] = {"tokens": [], "tags": [], "entities": []}
    for kind, name, outside in MARKED.findall(text):
        words = TOKEN.findall(name or outside)
        row["tokens"] += words
        inside = [f"B-{kind}", *[f"I-{kind}"] * (len(words) - 1)]
        row["tags"] += inside if kind else ["O"] * len(words)
        row["entities"] += [(kind, " ".join(words).casefold())] if kind else []
    return row


def tie(rows: list[dict]) -> list[list[dict]]:
    """Group the rows that share the name of a person, organisation or place."""
    kinds = defaultdict(set)
    for kind, name in (entity for row in rows for entity in row["entities"]):
        kinds[name].add(kind)
    groups: list[tuple[set[str], list[dict]]] = []
    for row in rows:
        names = {name for kind, name in row["entities"] if kind != "DATE" and len(kinds[name]) < 2}
        near = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        tied = [old for _, members in near for old in members]
        groups.append((names.union(*(group[0] for group in near)), [*tied, row]))
    return [members for _, members in groups]


def build(seed: int = 2010) -> dict[str, list[dict]]:
    """Return the rows of every split, balanced by register; the same on every run."""
    rng = random.Random(seed)
    splits: dict[str, list[dict]] = {split: [] for split in SHARES}
    placed: Counter = Counter()
    groups = tie(read_sentences())
    rng.shuffle(groups)
    for group in sorted(groups, key=len, reverse=True):
        kinds = [(row["register"], bool(row["entities"])) for row in group]
        split = min(SHARES, key=lambda s: (placed[s, kinds[0]] + len(group)) / SHARES[s])
        splits[split] += group
        placed.update((split, kind) for kind in kinds)
    return {split: rng.sample(rows, len(rows)) for split, rows in splits.items()}


if __name__ == "__main__":
    for split, rows in build().items():
        pairs = (zip(row["tokens"], row["tags"], strict=True) for row in rows)
        text = "\n".join("".join(f"{token}\t{label}\n" for token, label in pair) for pair in pairs)
        (FOLDER / f"{split}.conll").write_text(text, encoding="utf-8", newline="\n")
