"""Split summaries.jsonl into train.jsonl, validation.jsonl and test.jsonl.

Run it to rewrite the three files. The texts do not belong to groups; every kind of text is
shuffled and cut by itself, so that each split holds all kinds in the same shares.
"""

import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
HELD_OUT = {"validation": 8, "test": 10}  # rows of each kind; train takes the others


def read_summaries() -> list[dict]:
    """Return the rows in the file's order."""
    lines = (FOLDER / "summaries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def build() -> dict[str, list[dict]]:
    """Return the rows of every split; the same on every run."""
    rng = random.Random(2026)
    source = read_summaries()
    rows: dict[str, list[dict]] = {"train": [], **{split: [] for split in HELD_OUT}}
    for kind in sorted({row["kind"] for row in source}):
        chosen = [row for row in source if row["kind"] == kind]
        rng.shuffle(chosen)
        for split, size in HELD_OUT.items():
            rows[split] += chosen[:size]
            chosen = chosen[size:]
        rows["train"] += chosen
    for split_rows in rows.values():
        rng.shuffle(split_rows)
    return rows


def as_lines(rows: list[dict]) -> str:
    """Return the rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    """Rewrite the three files."""
    for split, rows in build().items():
        (FOLDER / f"{split}.jsonl").write_bytes(as_lines(rows).encode())


if __name__ == "__main__":
    main()
