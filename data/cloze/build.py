"""Cut cloze questions out of the texts of questions, stories and summaries, in SQuAD v1.1 form.

Run it to rewrite train.json, validation.json and test.json.

A cloze question is a sentence with one span taken out: a question word stands in front, and about
a third of the other words are dropped. The answer is the span. Each split is cut out of the same
split of the three sources, so that no text stands in two splits.
"""

import json
import random
import re
from pathlib import Path

FOLDER = Path(__file__).parent
SIZES = {"train": 1600, "validation": 50, "test": 50}  # questions
SENTENCES, MOST = 6, 5  # of a context; questions about it
KEEP, LEAST = 0.7, 4  # share of the other words that stay; how many must
RARE = 5  # how much more often a name or a number is taken out, if there is one

COUNTS = "one|two|three|four|five|six|seven|eight|nine|ten"
BEGIN = rf"the|an?|his|her|its|their|my|our|your|{COUNTS}|\d+"
SMALL = (
    "of|and|or|but|was|were|is|are|had|has|in|on|at|to|for|from|with|by|that|which|who|when|where|"
    "as|if|so|than|then|until|after|before|because|would|could|will|did|he|she|it|they|we|I|you|"
    "not|into|over|under|out|up|down"
)
PHRASE = rf"\b(?:{BEGIN})(?:\s(?!(?:{SMALL})\b)[\w'-]+){{1,3}}(?=[.,;:!?]|\s(?:{SMALL})\b)"
NAME = r"(?<=\w\s)[A-Z][\w'-]+(?:\s[A-Z][\w'-]+)*"
NUMBER = r"\b\d[\d.,:]*\d"
SPAN = re.compile(rf"{PHRASE}|{NAME}|{NUMBER}")
GAP = re.compile(r'(?<=[.!?])(["\')]*) (?=["\']?[A-Z0-9])')
TIME = re.compile(r"1\d\d\d|20\d\d|\d+[.:]\d\d")


def read_texts(split: str) -> list[tuple[str, str]]:
    """Return name and text of everything in one split of the sources."""
    found = []
    squad = json.loads((FOLDER.parent / "questions" / f"{split}.json").read_text("utf-8"))
    for entry in squad["data"]:
        found += [(f"questions: {entry['title']}", p["context"]) for p in entry["paragraphs"]]
    for name, column in (("stories", "story"), ("summaries", "text")):
        lines = (FOLDER.parent / name / f"{split}.jsonl").read_text("utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            found.append((f"{name}: {split} {number}", json.loads(line)[column]))
    return found


def question_word(span: str, before: str) -> str:
    """Return the word that asks for a span, roughly."""
    if TIME.fullmatch(span):
        return "when"
    if span[0].isdigit() or span.split()[0] in COUNTS.split("|"):
        return "how many"
    if before.split()[-1:] in (["in"], ["at"], ["into"], ["to"], ["from"]):
        return "where"
    return "who" if span[0].isupper() else "what"


def cloze(sentence: str, context: str, rng: random.Random) -> dict | None:
    """Return a question whose answer stands once in the context, or None."""
    spans = [m for m in SPAN.finditer(sentence) if context.count(m[0]) == 1 and len(m[0]) > 2]
    if not spans:
        return None
    rare = [RARE if m[0][0].isupper() or m[0][0].isdigit() else 1 for m in spans]
    (span,) = rng.choices(spans, rare)
    before, after = sentence[: span.start()], sentence[span.end() :]
    words = re.findall(r"\w\S*", f"{before} {after}")
    kept = [word for word in words if rng.random() < KEEP]
    if len(kept) < LEAST:
        return None
    question = " ".join([question_word(span[0], before), *kept]).rstrip(".,;:!?)\"'") + "?"
    answer = {"text": span[0], "answer_start": context.index(span[0])}
    return {"question": question, "answers": [answer]}


def cut(text: str, rng: random.Random) -> tuple[str, list[dict]]:
    """Return some neighbouring sentences, and up to `MOST` questions about different ones."""
    sentences = GAP.sub(r"\1\n", " ".join(text.split())).split("\n")
    first = rng.randrange(max(1, len(sentences) - SENTENCES + 1))
    chosen = sentences[first : first + SENTENCES]
    context = " ".join(chosen)
    drawn = (cloze(sentence, context, rng) for sentence in rng.sample(chosen, len(chosen)))
    different = {question["question"]: question for question in drawn if question}
    return context, list(different.values())[:MOST]


def cut_split(split: str, size: int) -> list[dict]:
    """Return as many texts, as entries of SQuAD's `data`, as make `size` questions."""
    rng = random.Random(f"2026 {split}")
    texts = read_texts(split)
    rng.shuffle(texts)
    data, count, asked = [], 0, set()
    for title, text in texts:
        context, questions = cut(text, rng)
        questions = [q for q in questions if q["question"] not in asked][: size - count]
        asked.update(question["question"] for question in questions)
        for number, question in enumerate(questions, start=count + 1):
            question["id"] = f"{split}-{number:03d}"
        count += len(questions)
        if questions:
            data.append({"title": title, "paragraphs": [{"context": context, "qas": questions}]})
    assert count == size, f"{split}: {count} questions"
    return data


def build() -> dict[str, dict]:
    """Return every split as one SQuAD object; the same on every run."""
    return {
        split: {"version": "1.1", "data": cut_split(split, size)} for split, size in SIZES.items()
    }


def main() -> None:
    """Rewrite the three files."""
    for split, squad in build().items():
        text = json.dumps(squad, ensure_ascii=False, indent=1) + "\n"
        (FOLDER / f"{split}.json").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
