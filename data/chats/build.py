"""Split chats.jsonl into train.jsonl, validation.jsonl and test.jsonl.

Run it to rewrite the three files.

Whole places are split, never conversations. The kinds of place in the test set (ferries, markets,
observatories, ...) occur nowhere else; the places of validation are drawn from the other kinds.
"""

import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
TEST_KINDS = ("ferry", "boats", "lighthouse", "planetarium", "market", "botanical")
TEST_KINDS += ("parcels", "observatory", "icerink")
VALIDATION_PLACES = 4
SEED = 2026


def read_chats() -> list[dict]:
    """Return the conversations in the file's order."""
    lines = (FOLDER / "chats.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def kind(row: dict) -> str:
    """Return the kind of place: the first word of its name."""
    return row["group"].split("-")[0]


def build() -> dict[str, list[dict]]:
    """Return the rows of every split; the same on every run."""
    rng = random.Random(SEED)
    chats = read_chats()
    known = [row for row in chats if kind(row) not in TEST_KINDS]
    places = list(dict.fromkeys(row["group"] for row in known))
    held_out = set(rng.sample(places, VALIDATION_PLACES))
    rows = {
        "train": [row for row in known if row["group"] not in held_out],
        "validation": [row for row in known if row["group"] in held_out],
        "test": [row for row in chats if kind(row) in TEST_KINDS],
    }
    for split in rows.values():
        rng.shuffle(split)
    return rows


def main() -> None:
    """Rewrite the three files."""
    for split, rows in build().items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (FOLDER / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
