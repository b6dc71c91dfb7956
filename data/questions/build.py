"""Write train.json, validation.json and test.json in SQuAD v1.1 form from paragraphs.jsonl.

Run it to rewrite the three files.

Paragraphs are split, never questions, so that no context stands in two splits. The builder finds
where each answer starts. Where an answer occurs several times in its paragraph, the source says
which one is meant (`occurrence`, counted from 1).
"""

import json
import random
import re
from pathlib import Path

FOLDER = Path(__file__).parent
SPLIT_PARAGRAPHS = {"train": 62, "validation": 15, "test": 27}


def read_paragraphs() -> list[dict]:
    """Return the paragraphs in the file's order."""
    lines = (FOLDER / "paragraphs.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) | {"number": number} for number, line in enumerate(lines, start=1)]


def locate(context: str, text: str, occurrence: int | None) -> dict:
    """Return the answer with its offset; refuse one that is missing or ambiguous."""
    starts = [m.start() for m in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", context)]
    if not starts or (occurrence is None and len(starts) > 1):
        raise ValueError(f"{text!r} occurs {len(starts)} times in {context[:40]!r}")
    start = starts[(occurrence or 1) - 1]
    assert context[start : start + len(text)] == text
    return {"text": text, "answer_start": start}


def squad_entry(paragraph: dict, most_answers: int) -> dict:
    """Return one paragraph as an entry of SQuAD's `data`."""
    context, qas = paragraph["context"], []
    for number, item in enumerate(paragraph["qas"], start=1):
        occurrences = item.get("occurrence", [None] * len(item["answers"]))
        answers = [
            locate(context, text, occurrence)
            for text, occurrence in zip(item["answers"], occurrences, strict=True)
        ]
        name = f"{paragraph['number']:03d}-{number}"
        qas.append({"id": name, "question": item["question"], "answers": answers[:most_answers]})
    return {"title": paragraph["title"], "paragraphs": [{"context": context, "qas": qas}]}


def build() -> dict[str, dict]:
    """Return every split as one SQuAD object; the same on every run."""
    paragraphs = read_paragraphs()
    random.Random(2026).shuffle(paragraphs)
    splits: dict[str, dict] = {}
    for split, size in SPLIT_PARAGRAPHS.items():
        chosen, paragraphs = paragraphs[:size], paragraphs[size:]
        most_answers = 1 if split == "train" else 3
        data = [squad_entry(paragraph, most_answers) for paragraph in chosen]
        splits[split] = {"version": "1.1", "data": data}
    assert not paragraphs
    return splits


def main() -> None:
    """Rewrite the three files."""
    for split, squad in build().items():
        text = json.dumps(squad, ensure_ascii=False, indent=1) + "\n"
        (FOLDER / f"{split}.json").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
