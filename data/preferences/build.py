"""Split preferences.jsonl into train.jsonl and validation.jsonl.

Run it to rewrite the two files.

Whole places are split, never pairs, so that both halves of a swap stay together. A row may carry
`label_2` and `broken_2`, a second reader's choice ("chosen" or "rejected") and the rule that it
found broken; they go into the split files as they are.
"""

import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
VALIDATION_PLACES = 8
SEED = 2026


def read_pairs() -> list[dict]:
    """Return the pairs in the file's order."""
    lines = (FOLDER / "preferences.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def build() -> dict[str, list[dict]]:
    """Return the rows of both splits; the same on every run."""
    rng = random.Random(SEED)
    pairs = read_pairs()
    places = list(dict.fromkeys(pair["group"] for pair in pairs))
    held_out = set(rng.sample(places, VALIDATION_PLACES))
    rows = {
        "train": [pair for pair in pairs if pair["group"] not in held_out],
        "validation": [pair for pair in pairs if pair["group"] in held_out],
    }
    for split in rows.values():
        rng.shuffle(split)
    return rows


def main() -> None:
    """Rewrite the two files."""
    for split, rows in build().items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (FOLDER / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
