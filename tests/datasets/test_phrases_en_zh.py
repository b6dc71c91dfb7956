"""The bundled phrase pairs are what their card says, and a word list cannot translate them."""

import csv
import importlib.util
import io
import re
from collections import Counter
from types import ModuleType

import pytest

from ftkit.paths import bundled

Row = dict[str, str]
Ngrams = list[str]
LEAST = {"train": 320, "validation": 50, "test": 80}
SITUATIONS = ("doctor", "hotel", "market", "repair", "restaurant", "station")
TERMS = {
    "deposit": "押金",
    "invoice": "发票",
    "check out|check-out|checking out": "退房",
    "room card": "房卡",
    "breakfast voucher": "早餐券",
    "private room": "包间",
    "pack": "打包",
    "change trains": "换乘",
    "ticket gate": "检票口",
    "insurance card": "医保卡",
    "consulting room": "诊室",
    "blood test": "验血",
    "spare part": "配件",
    "pick-up slip": "取件单",
    "warranty": "保修",
    "quote": "报价",
}
LONGEST, LEAST_DICE, LEAST_TOGETHER = 4, 0.4, 2  # of the word list; chosen on validation


@pytest.fixture(scope="module")
def phrases() -> dict[str, list[Row]]:
    splits = {}
    for name in LEAST:
        text = bundled(f"phrases_en_zh/{name}.csv").read_text(encoding="utf-8")
        splits[name] = list(csv.DictReader(io.StringIO(text)))
    return splits


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", bundled("phrases_en_zh/build.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def card() -> str:
    return bundled("phrases_en_zh/README.md").read_text(encoding="utf-8")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def ngrams(text: str, size: int) -> Ngrams:
    """All runs of that many characters, punctuation left out."""
    text = re.sub(r"\W", "", text)
    return [text[i : i + size] for i in range(len(text) - size + 1)]


def bigram_f1(guess: str, reference: str) -> float:
    one, other = Counter(ngrams(guess, 2)), Counter(ngrams(reference, 2))
    total = sum(one.values()) + sum(other.values())
    return 2 * sum((one & other).values()) / total if total else 0.0


def learn_word_list(rows: list[Row]) -> dict[str, str]:
    """Give each English word the run of characters with the highest Dice coefficient."""
    english: Counter = Counter()
    chinese: Counter = Counter()
    together: Counter = Counter()
    for row in rows:
        left = set(words(row["english"]))
        sizes = range(1, LONGEST + 1)
        right = {run for size in sizes for run in ngrams(row["chinese"], size)}
        english.update(left)
        chinese.update(right)
        together.update((word, run) for word in left for run in right)
    best: dict[str, tuple[float, int, str]] = {}
    for (word, run), count in together.items():
        dice = 2 * count / (english[word] + chinese[run])
        if count >= LEAST_TOGETHER and dice >= LEAST_DICE:
            best[word] = max(best.get(word, (0.0, 0, "")), (dice, len(run), run))
    return {word: run for word, (_, _, run) in best.items()}


def most_similar(row: Row, rows: list[Row]) -> Row:
    """The row whose English shares most words: a translation memory."""
    left = set(words(row["english"]))
    return max(rows, key=lambda other: jaccard(left, set(words(other["english"]))))


def jaccard(one: set, other: set) -> float:
    return len(one & other) / len(one | other)


def all_rows(phrases: dict[str, list[Row]]) -> list[Row]:
    return [row for rows in phrases.values() for row in rows]


def test_the_files_are_what_the_builder_draws(build: ModuleType) -> None:
    for name, rows in build.build().items():
        assert bundled(f"phrases_en_zh/{name}.csv").read_bytes() == build.as_table(rows).encode()


def test_the_card_states_the_counts(phrases: dict[str, list[Row]], card: str) -> None:
    for name, rows in phrases.items():
        situations = Counter(row["situation"] for row in rows)
        assert sorted(situations) == list(SITUATIONS)
        cells = " | ".join(str(situations[situation]) for situation in SITUATIONS)
        assert f"| {name} | {len(rows)} | {cells} |" in card


def test_the_splits_are_large_enough_and_balanced(phrases: dict[str, list[Row]]) -> None:
    for name, rows in phrases.items():
        assert len(rows) >= LEAST[name]
        shares = [count / len(rows) for count in Counter(r["situation"] for r in rows).values()]
        assert max(shares) - min(shares) < 0.05


def test_sentences_have_the_right_form(phrases: dict[str, list[Row]]) -> None:
    for row in all_rows(phrases):
        assert list(row) == ["english", "chinese", "situation"]
        assert 4 <= len(row["english"].split()) <= 14
        assert row["english"].isascii()
        assert row["english"][-1] in ".?!"
        assert row["chinese"][-1] in "。？！"
        assert not re.search(r"[\s,.?!;:()]", row["chinese"])


def test_a_term_is_always_translated_alike(phrases: dict[str, list[Row]]) -> None:
    for english, chinese in TERMS.items():
        rows = [row for row in all_rows(phrases) if re.search(rf"\b({english})", row["english"])]
        assert len(rows) >= 2
        assert all(chinese in row["chinese"] for row in rows)


def test_no_group_and_no_sentence_stands_in_two_splits(build: ModuleType) -> None:
    splits = build.build().values()
    for column in ("group", "english", "chinese"):
        one, other, third = ({row[column] for row in rows} for rows in splits)
        assert len(one | other | third) == len(one) + len(other) + len(third)


def test_no_nearly_identical_sentence_stands_in_two_splits(
    phrases: dict[str, list[Row]],
) -> None:
    for name, other_name in (("validation", "train"), ("test", "train"), ("test", "validation")):
        for row in phrases[name]:
            other = most_similar(row, phrases[other_name])
            assert jaccard(set(words(row["english"])), set(words(other["english"]))) < 0.6


def test_the_word_list_stays_where_the_card_says(phrases: dict[str, list[Row]], card: str) -> None:
    """Below 0.2: words in English order, one run each, hardly make a Chinese sentence."""
    word_list = learn_word_list(phrases["train"])
    scores = []
    for row in phrases["test"]:
        guess = "".join(word_list.get(word, "") for word in words(row["english"]))
        scores.append(bigram_f1(guess, row["chinese"]))
    mean = sum(scores) / len(scores)
    assert mean < 0.2
    assert f"| word list | {mean:.3f} |" in card


def test_the_translation_memory_stays_where_the_card_says(
    phrases: dict[str, list[Row]], card: str
) -> None:
    """Below 0.15: no sentence of train nearly is one of test."""
    rows = phrases["test"]
    found = [most_similar(row, phrases["train"])["chinese"] for row in rows]
    pairs = zip(found, rows, strict=True)
    mean = sum(bigram_f1(guess, row["chinese"]) for guess, row in pairs) / len(rows)
    assert mean < 0.15
    assert f"| translation memory | {mean:.3f} |" in card
