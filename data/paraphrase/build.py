"""Draw the pairs of train.csv, validation.csv and test.csv from groups.jsonl.

Run it to rewrite the three files.

Each group gives two paraphrases and two others, and every second group a fifth pair. Groups are
split before pairs are drawn, so that no sentence stands in two splits.
"""

import csv
import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
SPLIT_GROUPS = {"train": 268, "validation": 68, "test": 112}
SHARE_NEAR = 0.08  # of the pairs that differ; a small encoder learns nothing from many more
SHARE_TOPIC = 0.55
SHARE_FIFTH = 0.46
COLUMNS = ("sentence1", "sentence2", "label", "kind", "group")


def read_groups() -> list[dict]:
    """Return the groups in the file's order."""
    lines = (FOLDER / "groups.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def draw_pairs(group: dict, others: list[dict], rng: random.Random) -> list[dict]:
    """Draw four or five pairs of one group, with easy and hard ones mixed."""
    statement = group["statement"]
    close, *far = (item["text"] for item in group["paraphrases"])
    pairs = [
        (statement, close, "paraphrase", "close"),
        (rng.choice([statement, close]), rng.choice(far), "paraphrase", "far"),
    ]
    for texts in ([statement, close], far):
        pairs.append((rng.choice(texts), *draw_different(group, others, rng)))
    if rng.random() < SHARE_FIFTH:
        pairs.append(draw_fifth(group, pairs, rng))
    return [order(pair, rng) | {"group": group["id"]} for pair in pairs]


def draw_different(group: dict, others: list[dict], rng: random.Random) -> tuple[str, str, str]:
    """Draw a near-miss, a related statement, or another group's on the same topic."""
    *near, related = group["different"]
    kind = rng.random()
    if kind < SHARE_NEAR:
        miss = rng.choice(near)
        return miss["text"], "different", f"near: {miss['change']}"
    same_topic = [g for g in others if g["topic"] == group["topic"] and g is not group]
    if kind < SHARE_NEAR + SHARE_TOPIC and same_topic:
        other = rng.choice(same_topic)
        texts = [other["statement"], *(item["text"] for item in other["paraphrases"])]
        return rng.choice(texts), "different", "topic"
    return related["text"], "different", "related"


def draw_fifth(group: dict, pairs: list[tuple], rng: random.Random) -> tuple:
    """Draw one more pair that is not among the others."""
    statement, related = group["statement"], group["different"][2]["text"]
    close, *far = (item["text"] for item in group["paraphrases"])
    options = [(a, b, "paraphrase", "far") for a in (statement, close) for b in far]
    if rng.random() < 0.5:
        options = [(a, related, "different", "related") for a in (statement, close, *far)]
    return rng.choice([option for option in options if option not in pairs])


def order(pair: tuple, rng: random.Random) -> dict:
    """Put the two sentences in a random order, so that the order tells nothing."""
    one, other, label, kind = pair
    if rng.random() < 0.5:
        one, other = other, one
    return {"sentence1": one, "sentence2": other, "label": label, "kind": kind}


def build() -> dict[str, list[dict]]:
    """Return the rows of every split; the same on every run."""
    rng = random.Random(2026)
    groups = read_groups()
    rng.shuffle(groups)
    rows: dict[str, list[dict]] = {}
    for split, size in SPLIT_GROUPS.items():
        chosen, groups = groups[:size], groups[size:]
        rows[split] = [row for group in chosen for row in draw_pairs(group, chosen, rng)]
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
