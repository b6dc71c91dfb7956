"""Split stories.jsonl into train.jsonl, validation.jsonl and test.jsonl.

Run it to rewrite the three files. The fables do not belong to groups, so that a plain seeded
shuffle is enough.
"""

import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
HELD_OUT = {"validation": 30, "test": 30}  # train takes the others


def read_stories() -> list[dict]:
    """Return the fables in the file's order."""
    lines = (FOLDER / "stories.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def build() -> dict[str, list[dict]]:
    """Return the rows of every split; the same on every run."""
    stories = read_stories()
    random.Random(2026).shuffle(stories)
    train = len(stories) - sum(HELD_OUT.values())
    rows, start = {}, 0
    for split, size in {"train": train, **HELD_OUT}.items():
        rows[split] = stories[start : start + size]
        start += size
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
