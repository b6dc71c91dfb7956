"""The bundled tickets are what their card and guideline say, and cheap means do not solve them."""

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from sklearn.metrics import cohen_kappa_score

from ftkit.paths import bundled

FOLDER = bundled("tickets/train.jsonl").parent
SPLITS = ("train", "validation", "test")
FIELDS = ("kind", "urgency", "item", "number", "when", "wishes")
SPANS = ("item", "number", "when")
VALUES = {
    "kind": ("repair", "delivery", "booking", "bill"),
    "urgency": ("low", "normal", "high"),
}
WISHES = ("fix", "replace", "refund", "call", "cancel", "move", "info", "collect")
REWORDED = ("t284", "t320", "t356", "t452")  # after the second reading
WRITERS = tuple(f"w{number:02}" for number in range(1, 13))
Rows = dict[str, list[dict]]


def load(name: str) -> ModuleType:
    """Return a script of the data set's folder as a module."""
    spec = importlib.util.spec_from_file_location(f"tickets_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build() -> ModuleType:
    return load("build")


@pytest.fixture(scope="module")
def baselines() -> ModuleType:
    return load("baselines")


@pytest.fixture(scope="module")
def tickets(baselines: ModuleType) -> Rows:
    return baselines.read_splits()


@pytest.fixture(scope="module")
def rows(tickets: Rows) -> list[dict]:
    return [row for split in tickets.values() for row in split]


@pytest.fixture(scope="module")
def card() -> str:
    """The card, with its paragraphs' line breaks taken out of the way of a search."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    return text + "\n" + " ".join(text.split())


def words(row: dict) -> list[str]:
    return re.findall(r"\w+", row["message"].lower())


def grams(row: dict, size: int) -> set[tuple[str, ...]]:
    spelt = words(row)
    return {tuple(spelt[i : i + size]) for i in range(len(spelt) - size + 1)}


def compact(target: dict) -> str:
    return json.dumps(target, separators=(",", ":"), ensure_ascii=False)


def longest_shared(one: list[dict], other: list[dict]) -> int:
    """Return the length in words of the longest stretch that both have."""
    size = 1
    while set().union(*(grams(r, size) for r in one)) & set().union(
        *(grams(r, size) for r in other)
    ):
        size += 1
    return size - 1


def closest_pair(rows: list[dict]) -> float:
    """Return the largest Jaccard similarity of two messages' five-word stretches."""
    sets = [grams(row, 5) for row in rows]
    pairs = ((a, b) for i, a in enumerate(sets) for b in sets[:i] if a & b)
    return max((len(a & b) / len(a | b) for a, b in pairs), default=0.0)


def split_lines(tickets: Rows) -> list[str]:
    """Return the card's table of splits."""
    lines = []
    for name, split in tickets.items():
        targets = [row["target"] for row in split]
        counts = [Counter(target[field] for target in targets) for field in ("kind", "urgency")]
        cells = [len(split), len({row["group"] for row in split})]
        cells += [counts[0][value] for value in VALUES["kind"]]
        cells += [counts[1][value] for value in VALUES["urgency"]]
        cells += [sum(target[span] is None for target in targets) for span in SPANS]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return lines


def wish_lines(tickets: Rows) -> list[str]:
    """Return the card's table of wishes."""
    lines = []
    for name, split in tickets.items():
        kept = [row["target"]["wishes"] for row in split]
        lengths, named = Counter(map(len, kept)), Counter(w for wishes in kept for w in wishes)
        cells = [lengths[n] for n in range(4)] + [named[wish] for wish in WISHES]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return lines


def test_the_files_are_what_the_builder_draws(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tickets.jsonl").write_bytes((FOLDER / "tickets.jsonl").read_bytes())
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    build.main()
    for name in SPLITS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (FOLDER / f"{name}.jsonl").read_bytes()


def test_a_second_labelling_is_carried_through(build: ModuleType) -> None:
    target = dict.fromkeys(reversed(FIELDS), "x")
    row = dict.fromkeys(("target_2", "target_1", "target"), target)
    row |= {"message": "m", "writer": "w", "group": "g"}
    assert list(build.in_order({**row, "id": "t"})) == list(build.ROW_KEYS)
    assert list(build.in_order({**row, "id": "t"})["target_2"]) == list(FIELDS)


def test_rows_have_the_written_form(rows: list[dict]) -> None:
    assert len({row["id"] for row in rows}) == len({row["message"] for row in rows}) == len(rows)
    for row in rows:
        columns = ["id", "group", "writer", "message", "target"]
        assert list(row) in (columns, [*columns, "target_1", "target_2"])
        assert row["writer"] in WRITERS
        message = row["message"]
        assert 10 <= len(message.split()) <= 80
        assert message == " ".join(message.split())
        for name in ("target", "target_1", "target_2"):
            if name in row and (name == "target" or row["id"] not in REWORDED):
                check_target(row[name], message)


def check_target(target: dict, message: str) -> None:
    """The guideline's form: fixed keys, listed values, spans that stand in the message."""
    assert tuple(target) == FIELDS
    for field, allowed in VALUES.items():
        assert target[field] in allowed
    for span in SPANS:
        text = target[span]
        assert text is None or re.search(rf"(?<!\w){re.escape(text)}(?!\w)", message), (
            text,
            message,
        )
    assert not re.match(r"(the|an?|my|our|your|his|her|their) ", target["item"] or "", re.I)
    assert not re.match(r"(on|at|for) ", target["when"] or "", re.I)
    assert len(set(target["wishes"])) == len(target["wishes"]) <= 3
    assert set(target["wishes"]) <= set(WISHES)


def test_no_group_stands_in_two_splits_and_one_writer_only_in_test(
    tickets: Rows, rows: list[dict]
) -> None:
    groups = [{row["group"] for row in split} for split in tickets.values()]
    assert len(set().union(*groups)) == sum(map(len, groups))
    assert set(Counter(row["group"] for row in rows).values()) <= {2, 3, 4}
    assert {row["writer"] for row in tickets["train"]} == set(WRITERS) - {"w12"}
    assert "w12" not in {row["writer"] for row in tickets["validation"]}
    assert sum(row["writer"] == "w12" for row in tickets["test"]) >= 25


def test_the_card_states_the_counts(tickets: Rows, rows: list[dict], card: str) -> None:
    for line in split_lines(tickets) + wish_lines(tickets):
        assert line in card
    written = Counter(row["writer"] for row in rows)
    for writer in WRITERS:
        line = next(line for line in card.splitlines() if line.startswith(f"| {writer} |"))
        assert line.endswith(f"| {written[writer]} |")
    assert len(tickets["train"]) == 320
    assert len(tickets["validation"]) == 80
    assert len(tickets["test"]) >= 200


def test_null_and_several_wishes_are_common(tickets: Rows) -> None:
    for split in tickets.values():
        targets = [row["target"] for row in split]
        for span in SPANS:
            assert 0.19 <= sum(t[span] is None for t in targets) / len(targets) <= 0.48
        assert sum(len(t["wishes"]) >= 2 for t in targets) / len(targets) >= 0.35
        assert any(not t["wishes"] for t in targets)


def test_no_number_serves_twice(rows: list[dict]) -> None:
    numbers = [row["target"]["number"] for row in rows if row["target"]["number"]]
    assert len(set(numbers)) == len(numbers)
    assert all(2 <= len(number) <= 6 for number in numbers)


def test_targets_are_short(rows: list[dict], card: str) -> None:
    """In tokens, as the card has it, this was counted with the tokenizer of `smollm2`."""
    lengths = [len(compact(row["target"])) for row in rows]
    assert (
        f"at most {max(lengths)} characters, {sum(lengths) / len(lengths):.1f} on average" in card
    )
    assert max(lengths) <= 160


def test_most_items_of_the_test_are_new(baselines: ModuleType, tickets: Rows, card: str) -> None:
    share = baselines.unseen_items(tickets)
    assert share >= 0.5
    assert f"unseen in train: {share:.3f}" in card


def test_messages_are_not_made_from_each_other(tickets: Rows, rows: list[dict], card: str) -> None:
    shared, closest = longest_shared(tickets["train"], tickets["test"]), closest_pair(rows)
    assert shared <= 7
    assert closest <= 0.2
    assert f"longest stretch that train and test share: {shared} words" in card
    assert f"closest two messages: {closest:.3f}" in card
    frames = Counter(" ".join(words(row)[:3]) for row in rows)
    frame, times = frames.most_common(1)[0]
    assert times / len(rows) <= 0.02
    assert f'"{frame}", {times} of {len(rows)}' in card


def test_the_simple_baselines_are_what_the_card_says(
    baselines: ModuleType, tickets: Rows, card: str
) -> None:
    lines = baselines.measure()
    for line in lines:
        assert line in card
    counted = {line.split(" | ")[0]: line.strip("| ").split(" | ") for line in lines}
    for field in VALUES:
        major, _, tfidf = map(float, counted[f"| {field}"][1:])
        assert major + 0.1 <= tfidf <= 0.85
    for span in SPANS:
        assert float(counted[f"| {span}"][2]) <= 0.75
        assert f"{span} {baselines.null_precision(tickets, span):.3f}" in card


def agreement_lines(rows: list[dict]) -> list[str]:
    """Return the card's table of agreement: first labels and final labels against the second."""
    lines = []
    for field in FIELDS:
        first, final, second = (
            [json.dumps(row[name][field]) for row in rows]
            for name in ("target_1", "target", "target_2")
        )
        kappa = f"{cohen_kappa_score(first, second):.3f}" if field in VALUES else "–"
        shares = [
            sum(a == b for a, b in zip(one, second, strict=True)) / len(rows)
            for one in (first, final)
        ]
        lines.append(f"| {field} | {len(rows)} | {shares[0]:.3f} | {kappa} | {shares[1]:.3f} |")
    whole = [
        sum(row[name] == row["target_2"] for row in rows) / len(rows)
        for name in ("target_1", "target")
    ]
    return [*lines, f"| whole object | {len(rows)} | {whole[0]:.3f} | – | {whole[1]:.3f} |"]


def test_the_card_states_the_agreement_of_two_readers(rows: list[dict], card: str) -> None:
    read_twice = [row for row in rows if "target_2" in row]
    assert len(read_twice) == 159
    assert "t240" not in {row["id"] for row in read_twice}
    for line in agreement_lines(read_twice):
        assert line in card
    pairs = [
        (row["target_1"][f], row["target"][f], row["target_2"][f], row["id"] in REWORDED)
        for row in read_twice
        for f in FIELDS
    ]
    same = [sum(pair[i] == pair[2] for pair in pairs) / len(pairs) for i in (0, 1)]
    assert same[1] >= 0.97
    assert f"{same[0]:.3f} of all fields before, {same[1]:.3f} after" in card
    split = [(kept == one, kept == two, new) for one, kept, two, new in pairs if one != two]
    counts = Counter(split)
    assert set(counts) <= {(True, False, False), (False, True, False), (True, False, True),
                           (False, True, True)}  # fmt: skip
    assert (
        f"{len(split)} fields in {sum(r['target_1'] != r['target_2'] for r in read_twice)} messages"
    ) in card
    assert (
        f"for the second reader {counts[False, True, False]} times, for the first labels "
        f"{counts[True, False, False]} times"
    ) in card
    assert f"{counts[False, True, True] + counts[True, False, True]} fields" in card
    assert all(f"`{name}`" in card for name in REWORDED)


def test_the_guideline_names_every_value_and_shows_no_message(rows: list[dict]) -> None:
    guideline = (FOLDER / "guideline.md").read_text(encoding="utf-8")
    for value in (*VALUES["kind"], *VALUES["urgency"], *WISHES):
        assert f"`{value}`" in guideline
    shown = grams({"message": guideline}, 5)
    spelt = f" {' '.join(words({'message': guideline}))} "
    for row in rows:
        assert not grams(row, 5) & shown, row["id"]
        number, item = row["target"]["number"], row["target"]["item"] or ""
        assert not (number and re.search(rf"(?<!\w){re.escape(number)}(?!\w)", guideline)), number
        assert not (" " in item and f" {' '.join(words({'message': item}))} " in spelt), item
