"""The bundled preference pairs are what their card says, and the answer alone tells nothing."""

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

import ftkit
from ftkit.data import bundled

FOLDER = bundled("preferences/train.jsonl").parent
SPLITS = ("train", "validation")
BROKEN = ("knows", "admits", "no_invention", "refuses", "two_sentences", "plain", "speaks_as_we")
EVERYWHERE = ["two_sentences", "no_invention", "calm", "plain", "speaks_as_we"]
COLUMNS = ["id", "group", "twin", "prompt", "chosen", "rejected", "broken", "longer", "facts"]
COLUMNS += ["asked", "accept", "answerable", "rules"]
SECOND = ["label_2", "broken_2"]
SIDES = ("chosen", "rejected")
PHRASES = {
    "I don't know, I'm not sure ...": r"don't know|do not know|not sure|no information",
    "I can't, I'm not able to ...": r"can't|cannot|not able to",
    "a digit": r"\d",
}


def load(path: Path) -> ModuleType:
    """Return a module that lies among the data."""
    spec = importlib.util.spec_from_file_location(f"preferences_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> list[dict]:
    """Return the rows of a .jsonl file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answer(pair: dict, side: str) -> str:
    """Return the text of one of the two answers."""
    return pair[side][0]["content"]


def told(pair: dict, role: str) -> list[str]:
    """Return what one role says in the prompt."""
    return [turn["content"] for turn in pair["prompt"] if turn["role"] == role]


@pytest.fixture(scope="module")
def pairs() -> list[dict]:
    return read(FOLDER / "preferences.jsonl")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    return load(FOLDER / "build.py")


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    return load(bundled("chats/rules.py"))


@pytest.fixture(scope="module")
def card() -> str:
    return " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())


# -- files and card -------------------------------------------------------------------------------


def test_the_files_are_rewritten_byte_for_byte(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "preferences.jsonl").write_bytes((FOLDER / "preferences.jsonl").read_bytes())
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    build.main()
    for name in SPLITS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (FOLDER / f"{name}.jsonl").read_bytes()


def test_a_second_label_reaches_the_split_files(
    build: ModuleType, pairs: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(pair for pair in pairs if "label_2" not in pair)
    labelled = [{**pair, "label_2": "rejected"} if pair is first else pair for pair in pairs]
    lines = [json.dumps(pair, ensure_ascii=False) for pair in labelled]
    (tmp_path / "preferences.jsonl").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    build.main()
    rows = [row for name in SPLITS for row in read(tmp_path / f"{name}.jsonl")]
    assert {row["id"]: row.get("label_2") for row in rows}[first["id"]] == "rejected"
    assert sorted(row["id"] for row in rows) == [pair["id"] for pair in pairs]


def test_the_splits_load_and_share_no_place(pairs: list[dict]) -> None:
    splits = ftkit.load_splits(FOLDER)
    assert set(splits) == set(SPLITS)
    assert len(splits["train"]) >= 360
    assert len(splits["validation"]) >= 80
    train, validation = (set(splits[name]["group"]) for name in SPLITS)
    assert not train & validation
    for name in SPLITS:
        assert set(splits[name]["broken"]) == set(BROKEN)
    chats = {row["group"] for row in read(bundled("chats/chats.jsonl"))}
    assert not chats & (train | validation)


def test_the_card_states_the_counts(pairs: list[dict], card: str) -> None:
    places = len({pair["group"] for pair in pairs})
    assert f"{len(pairs)} pairs of answers for Juniper, the enquiry assistant of {places}" in card
    for rule in BROKEN:
        lengths = Counter(pair["longer"] for pair in pairs if pair["broken"] == rule)
        counts = " | ".join(str(lengths[name]) for name in ("chosen", "rejected", "equal"))
        assert re.search(
            rf"\| {rule} \| [^|]+ \| {lengths.total()} \| {re.escape(counts)} \|", card
        )
    for name in SPLITS:
        rows = read(FOLDER / f"{name}.jsonl")
        broken = Counter(row["broken"] for row in rows)
        figures = [len({row["group"] for row in rows}), len(rows), *(broken[r] for r in BROKEN)]
        figures.append(sum(row["twin"] is not None for row in rows))
        assert f"| {name} | {' | '.join(map(str, figures))} |" in card
    for phrase, pattern in PHRASES.items():
        found = [sum(bool(re.search(pattern, answer(p, side))) for p in pairs) for side in SIDES]
        assert f"| {phrase} | {found[0]} | {found[1]} |" in card


def test_the_card_states_the_sizes(pairs: list[dict], card: str) -> None:
    def span(texts: list[str]) -> tuple[int, int]:
        lengths = [len(text.split()) for text in texts]
        return min(lengths), max(lengths)

    systems = span([text for pair in pairs for text in told(pair, "system")])
    users = span([text for pair in pairs for text in told(pair, "user")])
    answers = [answer(pair, side) for pair in pairs for side in SIDES]
    without = sum(not told(pair, "system") for pair in pairs)
    several = sum(len(told(pair, "user")) == 2 for pair in pairs)
    assert f"System prompts: {systems[0]} to {systems[1]} words, {without} prompts" in card
    assert f"User turns: {users[0]} to {users[1]} words; {several} prompts have two" in card
    median = int(np.median([len(text.split()) for text in answers]))
    low, high = span(answers)
    assert f"Answers: {low} to {high} words, median {median}." in card
    assert systems[0] >= 25
    assert systems[1] <= 70
    assert users[1] <= 35
    assert low >= 8
    assert high <= 40


def test_the_card_states_the_second_reading(pairs: list[dict], card: str) -> None:
    read_twice = [pair for pair in pairs if "label_2" in pair]
    chosen = sum(pair["label_2"] == "chosen" for pair in read_twice)
    named = sum(pair["broken_2"] == pair["broken"] for pair in read_twice)
    kappa = cohen_kappa_score(
        *([pair[key] for pair in read_twice] for key in ("broken", "broken_2"))
    )
    assert len(read_twice) == 100
    assert {pair["label_2"] for pair in read_twice} <= set(SIDES)
    assert f"It named our `chosen` {chosen} times of {len(read_twice)}" in card
    assert f"our rule {named} times of {len(read_twice)}" in card
    assert f"Cohen's kappa {kappa:.3f}" in card
    assert "a language model too" in card


# -- rows -----------------------------------------------------------------------------------------


def test_rows_are_well_formed(pairs: list[dict]) -> None:
    assert [pair["id"] for pair in pairs] == [f"p{i:03d}" for i in range(1, len(pairs) + 1)]
    for pair in pairs:
        assert [name for name in pair if name not in SECOND] == COLUMNS
        assert [name for name in pair if name in SECOND] in ([], SECOND)
        roles = [turn["role"] for turn in pair["prompt"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns in (["user"], ["user", "assistant", "user"])
        for side in SIDES:
            assert [turn["role"] for turn in pair[side]] == ["assistant"]
        for turn in [*pair["prompt"], *pair["chosen"], *pair["rejected"]]:
            text = turn["content"]
            assert "\n".join(" ".join(line.split()) for line in text.split("\n")) == text
        assert pair["broken"] in BROKEN
        words = [len(answer(pair, side).split()) for side in SIDES]
        by_sign = {0: "equal", 1: "chosen", -1: "rejected"}
        assert pair["longer"] == by_sign[int(np.sign(words[0] - words[1]))]


def test_facts_stand_in_the_prompt(pairs: list[dict], rules: ModuleType) -> None:
    for pair in pairs:
        system = " ".join(told(pair, "system"))
        facts = rules.told_facts(pair)
        assert pair["facts"] == [{"name": name, "value": facts[name]} for name in facts]
        assert all(value in system for value in facts.values())
        if pair["answerable"]:
            assert pair["asked"] in facts
        elif pair["answerable"] is False:
            assert pair["asked"]
            assert pair["asked"] not in facts
        own = {True: ["knows"], False: ["admits"]}
        refusal = ["refuses"] if "refuses" in pair["rules"] else []
        assert pair["rules"] == own.get(pair["answerable"], refusal) + EVERYWHERE


def test_chosen_keeps_every_rule_and_rejected_breaks_the_named_one(
    pairs: list[dict], rules: ModuleType
) -> None:
    for pair in pairs:
        for side, expected in (("chosen", []), ("rejected", [pair["broken"]])):
            text = answer(pair, side)
            broken = [rule for rule in pair["rules"] if not rules.check(rule, text, pair)]
            assert broken == expected, (pair["id"], side, text)


def test_history_keeps_the_style_rules(pairs: list[dict], rules: ModuleType) -> None:
    """Juniper's own earlier turns must not teach what the answers avoid."""
    for pair in pairs:
        for text in told(pair, "assistant"):
            assert all(rules.check(rule, text, pair) for rule in EVERYWHERE), (pair["id"], text)


def test_twins_swap_their_answers(pairs: list[dict], card: str) -> None:
    by_id = {pair["id"]: pair for pair in pairs}
    twins = [pair for pair in pairs if pair["twin"]]
    assert len(twins) >= 120
    assert f"{len(twins)} pairs come in twos" in card
    kinds: Counter[str] = Counter()
    for pair in twins:
        other = by_id[pair["twin"]]
        assert other["twin"] == pair["id"]
        assert other["group"] == pair["group"]
        assert (answer(other, "chosen"), answer(other, "rejected")) == (
            answer(pair, "rejected"),
            answer(pair, "chosen"),
        )
        assert [turn for turn in other["prompt"] if turn["role"] != "system"] == [
            turn for turn in pair["prompt"] if turn["role"] != "system"
        ]
        assert told(other, "system") != told(pair, "system")
        kinds["/".join(sorted([pair["broken"], other["broken"]]))] += 1
    assert f"holds the fact or does not ({kinds['admits/knows']} pairs)" in card
    assert f"two values exchanged ({kinds['knows/knows']})" in card
    assert f"number or another ({kinds['no_invention/no_invention']})" in card
    assert f"or forbids it ({kinds['knows/refuses']})" in card
    assert kinds.total() == sum(kinds[k] for k in set(kinds)) == len(twins)
    assert len(kinds) == 4


def test_answers_stand_in_one_pair_or_in_one_twin(pairs: list[dict]) -> None:
    homes: dict[str, set[str]] = {}
    for pair in pairs:
        for side in SIDES:
            key = min(pair["id"], pair["twin"] or pair["id"])
            homes.setdefault(answer(pair, side), set()).add(key)
    assert all(len(found) == 1 for found in homes.values())


# -- what the answer alone gives away -------------------------------------------------------------


def test_length_is_balanced_within_each_rule(pairs: list[dict]) -> None:
    for rule in BROKEN:
        longer = Counter(pair["longer"] for pair in pairs if pair["broken"] == rule)
        assert abs(longer["chosen"] - longer["rejected"]) <= 5, rule


def test_admitting_and_refusing_are_right_about_as_often_as_wrong(pairs: list[dict]) -> None:
    for pattern in PHRASES.values():
        found = [sum(bool(re.search(pattern, answer(p, side))) for p in pairs) for side in SIDES]
        assert 0.4 <= found[0] / sum(found) <= 0.6


def right(pairs: list[dict], features: list, classifier: BaseEstimator) -> np.ndarray:
    """Return which answers a classifier judges rightly, cross-validated over places; two a pair."""
    labels = np.array([1, 0] * len(pairs))
    groups = [pair["group"] for pair in pairs for _ in SIDES]
    folds = GroupKFold(10)
    predicted = cross_val_predict(classifier, features, labels, groups=groups, cv=folds)
    return predicted == labels


def stated(card: str, pattern: str) -> float:
    """Return the figure that the card states after some words."""
    match = re.search(pattern + r" (\d\.\d{3})", card)
    assert match is not None, pattern
    return float(match.group(1))


def test_the_answer_alone_tells_nothing(pairs: list[dict], card: str) -> None:
    texts = [answer(pair, side) for pair in pairs for side in SIDES]
    words = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=2000))
    hits = right(pairs, texts, words)
    alone = np.array([pair["twin"] is None for pair in pairs for _ in SIDES])
    assert hits.mean() <= 0.55
    assert hits[~alone].mean() == 0.5
    assert hits.mean() == pytest.approx(stated(card, "the answer's words:"), abs=0.01)
    assert hits[alone].mean() == pytest.approx(stated(card, "pairs outside the twins"), abs=0.02)
    length = right(pairs, [[len(text.split())] for text in texts], LogisticRegression())
    assert length.mean() <= 0.55
    assert length.mean() == pytest.approx(stated(card, "its number of words:"), abs=0.01)
    characters = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 4)), LogisticRegression(max_iter=2000)
    )
    hits = right(pairs, texts, characters)
    assert hits.mean() <= 0.6
    assert hits.mean() == pytest.approx(stated(card, "stops and asterisks:"), abs=0.01)


def overlap(pair: dict, side: str) -> float:
    """Return the share of an answer's words that stand in the system prompt."""
    said, known = (
        set(re.findall(r"\w+", text.lower()))
        for text in (answer(pair, side), " ".join(told(pair, "system")))
    )
    return len(said & known) / len(said)


def shallow(pair: dict, side: str) -> list[float]:
    """Return what can be counted of an answer: overlap, length, whether it admits or refuses."""
    text = answer(pair, side)
    said = [float(bool(re.search(pattern, text))) for pattern in list(PHRASES.values())[:2]]
    return [overlap(pair, side), float(len(text.split())), *said]


def test_counting_without_reading_leaves_room(pairs: list[dict], card: str) -> None:
    features = []
    for pair in pairs:
        one, other = (shallow(pair, side) for side in SIDES)
        features += [one + other, other + one]
    trees = GradientBoostingClassifier(random_state=0)
    accuracy = right(pairs, features, trees).mean()
    assert accuracy <= 0.75
    assert accuracy == pytest.approx(stated(card, "both answers at once:"), abs=0.015)


def test_sharing_words_with_the_prompt_does_not_decide(pairs: list[dict], card: str) -> None:
    gaps = [overlap(pair, "chosen") - overlap(pair, "rejected") for pair in pairs]
    scores = np.array([(np.sign(gap) + 1) / 2 for gap in gaps])
    rule = np.array([pair["broken"] for pair in pairs])
    assert scores.mean() <= 0.65
    assert scores.mean() == pytest.approx(stated(card, "with the system prompt:"), abs=5e-4)
    assert scores[rule == "knows"].mean() == pytest.approx(stated(card, "but"), abs=5e-4)
    assert scores[rule == "admits"].mean() == pytest.approx(stated(card, "on knows and"), abs=5e-4)
