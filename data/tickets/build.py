"""Split tickets.jsonl into train.jsonl, validation.jsonl and test.jsonl.

Run it to rewrite the three files.

Groups (a household, a customer, an affair) are split, not messages, so that none stands in two
splits. A group with a message by `TEST_WRITER` goes to test, so that nobody trains on that voice.
"""

import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
SIZES = {"train": 320, "validation": 80}  # test takes the rest
TEST_WRITER = "w12"
SEED = 2028  # the first from 2026 on that fills train and validation exactly
TARGET_KEYS = ("kind", "urgency", "item", "number", "when", "wishes")
ROW_KEYS = ("id", "group", "writer", "message", "target", "target_1", "target_2")


def read_tickets() -> list[dict]:
    """Return the rows in the file's order."""
    lines = (FOLDER / "tickets.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def in_order(row: dict) -> dict:
    """Return the row with its keys in the written order; the readings only where they are."""
    ordered = {key: row[key] for key in ROW_KEYS if key in row}
    for name in ("target", "target_1", "target_2"):
        if name in ordered:
            ordered[name] = {key: row[name][key] for key in TARGET_KEYS}
    return ordered


def build() -> dict[str, list[dict]]:
    """Return the rows of every split; the same on every run."""
    rng = random.Random(SEED)
    groups: dict[str, list[dict]] = {}
    for row in read_tickets():
        groups.setdefault(row["group"], []).append(in_order(row))
    rows: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    order = sorted(groups)
    rng.shuffle(order)
    for name in order:
        unseen = any(row["writer"] == TEST_WRITER for row in groups[name])
        fits = [s for s, n in SIZES.items() if len(rows[s]) + len(groups[name]) <= n]
        rows["test" if unseen or not fits else fits[0]] += groups[name]
    for split, size in SIZES.items():
        if len(rows[split]) != size:
            raise ValueError(f"{split} has {len(rows[split])} rows and not {size}: change SEED")
    for split in rows.values():
        rng.shuffle(split)
    return rows


def main() -> None:
    """Rewrite the three files."""
    for split, rows in build().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (FOLDER / f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
