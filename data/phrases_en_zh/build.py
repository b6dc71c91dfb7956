"""Split pairs.csv into train.csv, validation.csv and test.csv.

Run it to rewrite the three files. Sentences that are nearly the same form a group. Whole groups
are drawn, situation by situation, so that no two splits hold nearly the same sentence.
"""

import csv
import io
import random
from pathlib import Path

FOLDER = Path(__file__).parent
LEAST = {"test": 14, "validation": 9}  # pairs of each situation; train takes the others
COLUMNS = ("english", "chinese", "situation")


def read_pairs() -> list[dict]:
    """Return the pairs in the file's order."""
    text = (FOLDER / "pairs.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def draw_groups(pairs: list[dict], rng: random.Random) -> dict[str, list[dict]]:
    """Deal the groups of one situation out: each split takes groups until it has enough pairs."""
    groups: dict[str, list[dict]] = {}
    for pair in pairs:
        groups.setdefault(pair["group"], []).append(pair)
    order = list(groups.values())
    rng.shuffle(order)
    drawn: dict[str, list[dict]] = {}
    for split, least in LEAST.items():
        drawn[split] = []
        while len(drawn[split]) < least:
            drawn[split] += order.pop()
    return drawn | {"train": [pair for group in order for pair in group]}


def build() -> dict[str, list[dict]]:
    """Return the rows of every split, with their group; the same on every run."""
    rng = random.Random(2026)
    pairs = read_pairs()
    rows: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    for situation in sorted({pair["situation"] for pair in pairs}):
        chosen = [pair for pair in pairs if pair["situation"] == situation]
        for split, drawn in draw_groups(chosen, rng).items():
            rows[split] += drawn
    for split_rows in rows.values():
        rng.shuffle(split_rows)
    return rows


def as_table(rows: list[dict]) -> str:
    """Return the rows as CSV, without the group."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def main() -> None:
    """Rewrite the three files."""
    for split, rows in build().items():
        (FOLDER / f"{split}.csv").write_bytes(as_table(rows).encode())


if __name__ == "__main__":
    main()
