"""What a ticket's fields give away cheaply: the commonest value, written rules, word counts.

Run it to print the figures that the card states. Everything is fitted on train (the rules were
written by hand, with train in view) and measured on test. A copied field is right only if it is
the same string, `null` included.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

FOLDER = Path(__file__).parent
SPLITS = ("train", "validation", "test")
CLASSES = {
    "kind": ("repair", "delivery", "booking", "bill"),
    "urgency": ("low", "normal", "high"),
}
SPANS = ("item", "number", "when")
WISHES = ("fix", "replace", "refund", "call", "cancel", "move", "info", "collect")
Value = str | None

KIND_WORDS = {
    "bill": r"\b(bill\w*|invoice|receipt|charged?|paid|pay|deposit|fee|statement|refund)\b",
    "delivery": r"\b(deliver\w*|parcel|order(ed)?|driver|van|box|arrived|came|sent|bring)\b",
    "booking": r"\b(book\w*|appointment|reserv\w*|room|instead|cancel|moved?|visit|coming)\b",
    "repair": r"\b(broken?|leak\w*|drip\w*|fix|mend|repair|stuck|loose|stopped|works?)\b",
}
HIGH = r"\b(now|today|tonight|urgent\w*|2nite|2day|baby|smoke|gas|smell|stuck|water)\b"
LOW = (
    r"no (rush|hurry|need|panic)|\b(whenever|summer|autumn|winter|spring|next (month|year)|"
    r"months?|take your time)\b"
)
WISH_WORDS = {
    "fix": r"\b(fix|mend|repair|put \w+ right|correct|change)\b",
    "replace": r"\b(replace|another|new one|exchange|swap|the right|send (a|the|two|another))\b",
    "refund": r"\b(refund|money back|back|credit|return)\b",
    "call": r"\b(call|ring|phone|telephone|bell)\b",
    "cancel": r"\b(cancel|stop|scrap|drop|strike|void|don't)\b",
    "move": r"\b(move|instead|postpone|rather|bring it|make it)\b",
    "info": r"\?|\b(tell me|say|explain|let (me|us) know)\b",
    "collect": r"\b(collect|pick|fetch|take|come and get|come for)\b",
}
NUMBER = (
    r"(?<![\w£€$.,-])(?:[A-Z]{1,3}-?\d{1,4}|\d{1,2}[A-Z]\d{0,2}|\d{4,5}|[A-Z]{1,2}\d{3,5})"
    r"(?![\w]|[.,]\d|\s?(?:[kc]?m|kg|quid|euro|MHz|%))"
)
NOT_BEFORE = (  # words before a number that is none of the desk's, or another job's
    r"(?:type|model|serial|ext\.?|extension|code|fault|err|error|label|stock no\.?|not|lot|panel|"
    r"message|press|tag|article|item|ticket|quote|see|unit|the)\s*\W?$"
)
NOT_AFTER = (  # what people say next about a job that is done
    r"^\W{0,3}\s*(?:was|were|is fine|fine|came|paid|has paid|sorted|had|went|through|to|and|"
    r"no good|right|the)\b"
)
DAY = r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*"
PART = r"(?:morning|afternoon|evening|night|noon|midday|lunch|lunchtime|bedtime|am|pm)"
WHEN = (
    rf"\b(?:(?:before|after|by|until|any|next|this|first thing) )*(?:the )?"
    rf"(?:{DAY}(?: (?:{PART}|after \w+|before \w+|at \w+|week))?|tonight|today|tomorrow"
    rf"(?: {PART})?|(?:this|next) (?:week|month|year|{PART})|in (?:the )?(?:spring|summer|"
    rf"autumn|winter|new year)|\d{{1,2}}(?:st|nd|rd|th)|(?:weekend|end of the month))\b"
)
THING = (
    r"\b(?:the|my|our|your|a|an) ((?:[a-z]+ )?[a-z]+)"
    r"(?= (?:is|has|came|drips|leaks|won't|keeps|arrived|that|you|we|on|in|for)\b|[,.;!?])"
)


def read_splits() -> dict[str, list[dict]]:
    """Return the rows of every split."""
    files = {split: (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8") for split in SPLITS}
    return {
        split: [json.loads(line) for line in text.splitlines()] for split, text in files.items()
    }


def values(rows: list[dict], field: str) -> list[Value]:
    """Return a field of every row's target."""
    return [row["target"][field] for row in rows]


def accuracy(predicted: list, wanted: list) -> float:
    """Return the share of rows that are equal."""
    return sum(p == w for p, w in zip(predicted, wanted, strict=True)) / len(wanted)


def match_at(pattern: str, message: str, position: int) -> Value:
    """Return the match at the position, case aside, or None."""
    found = [m.group(m.lastindex or 0) for m in re.finditer(pattern, message, re.IGNORECASE)]
    return found[position] if found else None


def rule_kind(message: str) -> str:
    """Return the kind with most cue words; bill first among equals."""
    counts = {k: len(re.findall(p, message, re.IGNORECASE)) for k, p in KIND_WORDS.items()}
    return max(counts, key=lambda kind: counts[kind])


def rule_urgency(message: str) -> str:
    """Return low for words of patience, else high for words of haste, else normal."""
    if re.search(LOW, message, re.IGNORECASE):
        return "low"
    return "high" if re.search(HIGH, message, re.IGNORECASE) else "normal"


def rule_wishes(message: str) -> list[str]:
    """Return the wishes with a cue word, in order of the first cue."""
    found = {w: re.search(p, message, re.IGNORECASE) for w, p in WISH_WORDS.items()}
    starts = {wish: match.start() for wish, match in found.items() if match}
    return sorted(starts, key=lambda wish: starts[wish])[:3]


def rule_number(message: str) -> Value:
    """Return the first number in no bad company, else the last number, else None."""
    found = list(re.finditer(NUMBER, message))
    good = [
        match
        for match in found
        if not re.search(NOT_BEFORE, message[: match.start()], re.IGNORECASE)
        and not re.search(NOT_AFTER, message[match.end() :], re.IGNORECASE)
    ]
    chosen = good[:1] or found[-1:]
    return chosen[0].group() if chosen else None


RULES: dict[str, Callable[[str], Value]] = {
    "kind": rule_kind,
    "urgency": rule_urgency,
    "item": lambda message: match_at(THING, message, 0),
    "number": rule_number,
    "when": lambda message: match_at(WHEN, message, -1),
}


def majority(splits: dict[str, list[dict]], field: str) -> float:
    """Return the test accuracy of the commonest training value."""
    train, test = ([json.dumps(v) for v in values(splits[s], field)] for s in ("train", "test"))
    return accuracy([Counter(train).most_common(1)[0][0]] * len(test), test)


def by_rule(splits: dict[str, list[dict]], field: str) -> float:
    """Return the test accuracy of the written rule."""
    rule: Callable = rule_wishes if field == "wishes" else RULES[field]
    return accuracy([rule(row["message"]) for row in splits["test"]], values(splits["test"], field))


def null_precision(splits: dict[str, list[dict]], field: str) -> float:
    """Return the share of right ones among the rule's `null` on test."""
    pairs = [(RULES[field](row["message"]), row["target"][field]) for row in splits["test"]]
    wanted = [value for predicted, value in pairs if predicted is None]
    return sum(value is None for value in wanted) / len(wanted)


def word_counts(splits: dict[str, list[dict]], label: Callable[[dict], object]) -> float:
    """Return the test accuracy of logistic regression on TF-IDF of one and two words."""
    train, test = splits["train"], splits["test"]
    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=2000, random_state=0),
    )
    classifier.fit([row["message"] for row in train], [label(row) for row in train])
    return accuracy(
        list(classifier.predict([r["message"] for r in test])), [label(r) for r in test]
    )


def unseen_items(splits: dict[str, list[dict]]) -> float:
    """Return the share of the test's items (`null` apart) that no training row has, case aside."""
    seen = {item.lower() for item in values(splits["train"], "item") if item}
    items = [item.lower() for item in values(splits["test"], "item") if item]
    return sum(item not in seen for item in items) / len(items)


def wish_line(splits: dict[str, list[dict]], wish: str) -> str:
    """Return one wish's line: the accuracy of yes or no, asked alone."""
    test = splits["test"]
    wanted = [wish in row["target"]["wishes"] for row in test]
    ruled = accuracy([wish in rule_wishes(row["message"]) for row in test], wanted)
    counted = word_counts(splits, lambda row: wish in row["target"]["wishes"])
    absent = accuracy([False] * len(test), wanted)
    return f"| wish `{wish}` | {absent:.3f} | {ruled:.3f} | {counted:.3f} |"


def measure() -> list[str]:
    """Return the card's table of baselines, line by line."""
    splits = read_splits()
    lines = []
    for field in ("kind", "urgency", "item", "number", "when", "wishes"):
        counted = "–"
        if field in CLASSES:
            counted = f"{word_counts(splits, lambda row, f=field: row['target'][f]):.3f}"
        figures = f"{majority(splits, field):.3f} | {by_rule(splits, field):.3f} | {counted}"
        lines.append(f"| {field} | {figures} |")
    return lines + [wish_line(splits, wish) for wish in WISHES]


if __name__ == "__main__":
    print("\n".join(measure()))
    everything = read_splits()
    for span in SPANS:
        print(f"precision of null, {span}: {null_precision(everything, span):.3f}")
    print(f"unseen items: {unseen_items(everything):.3f}")
