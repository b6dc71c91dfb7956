"""Split reviews.jsonl into train.csv, validation.csv and test.csv.

Run it to rewrite the three files.

Subjects are split, not reviews, so that no subject stands in two splits.
"""

import csv
import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
SPLIT_SUBJECTS = {"train": 82, "validation": 19, "test": 34}
COLUMNS = ("text", "label", "kind", "subject")
SEED = 2026


def read_reviews() -> list[dict]:
    """Return the reviews in the file's order."""
    lines = (FOLDER / "reviews.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def build() -> dict[str, list[dict]]:
    """Return the rows of every split; the same on every run."""
    rng = random.Random(SEED)
    reviews = read_reviews()
    subjects = list(dict.fromkeys(review["subject"] for review in reviews))
    rng.shuffle(subjects)
    rows: dict[str, list[dict]] = {}
    for split, size in SPLIT_SUBJECTS.items():
        chosen, subjects = set(subjects[:size]), subjects[size:]
        rows[split] = [review for review in reviews if review["subject"] in chosen]
        rng.shuffle(rows[split])
    return rows


def main() -> None:
    """Rewrite the three files."""
    for split, rows in build().items():
        with (FOLDER / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
