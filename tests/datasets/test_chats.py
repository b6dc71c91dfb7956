"""The bundled chats are what their card says, and no constant answer keeps Juniper's rules."""

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from types import ModuleType

import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import ftkit
from ftkit.data import bundled

FOLDER = bundled("chats/rules.py").parent


def load(name: str) -> ModuleType:
    """Return a module of the data set's folder."""
    spec = importlib.util.spec_from_file_location(f"chats_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rules = load("rules")


def row(system: str, *turns: str, **fields: object) -> dict:
    """Return a row with a system prompt and the user's turns."""
    messages = [{"role": "system", "content": system}]
    messages += [{"role": "user", "content": turn} for turn in turns]
    return {"messages": messages, "facts": [], "asked": None, "accept": [], **fields}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("We open at 10 a.m. on weekdays.", 1),
        ("We open at 10 a.m. The café opens later.", 2),
        ("We close at 6 p.m.", 1),
        ("We close at 6 p.m. Monday to Friday.", 1),
        ("We close at 6 p.m. I don't know about Sunday.", 2),
        ("Open until 6 pm. Last entry is earlier.", 2),
        ("Dr. Lind speaks at 3.50 in room No. 7.", 1),
        ("No. We have none.", 2),
        ("It costs 3.50. Children pay 2.", 2),
        ("Bring something warm, e.g. a coat.", 1),
        ("Bring a coat, e.g. Marta's.", 1),
        ("Well... we do not know.", 1),
        ("Well... We do not know. Ask the desk.", 3),
        ("Cups, plates etc. are upstairs.", 1),
        ("Cups, plates, etc. We lend them.", 2),
        ("J. R. Holm wrote it.", 1),
        ("It is in Hall B. The stairs are on the left.", 2),
        ("Are you coming? We are open.", 2),
        ("Hello! How are you?! Fine.", 3),
        ('She asked "why?" and left.', 1),
        ("we are open. come in", 2),
        ("We are open.Come in.", 2),
        ("no full stop", 1),
        ("Line one\nline two", 2),
        ("St. Anne's opens at 9.", 1),
        ("Write to us at www.juniper.example about it.", 1),
        ("...", 0),
        ("", 0),
    ],
)
def test_the_sentence_counter(text: str, count: int) -> None:
    assert len(rules.sentences(text)) == count


@pytest.mark.parametrize(
    ("value", "answer", "stands"),
    [
        ("6 p.m.", "We close at 6 pm on Fridays.", True),
        ("6 p.m.", "We close at 6:00 p.m. each day.", True),
        ("6 p.m.", "We close at 18:00.", True),
        ("6 p.m.", "We close at six p.m.", True),
        ("6 p.m.", "We close at 6.30 p.m.", False),
        ("6 p.m.", "We close at 16 p.m.", False),
        ("6.30 p.m.", "Doors shut at 18:30.", True),
        ("6.30", "Doors shut at half past six.", True),
        ("£3.50", "It is 3.50 pounds.", True),
        ("£4", "It is £4.00.", True),
        ("£4", "It is £4.50.", False),
        ("two", "There are 2 lifts.", True),
        ("two", "There are 20 lifts.", False),
        ("twenty-five", "It takes 25 people.", True),
        ("noon", "From midday on.", True),
        ("free", "Entry is free.", True),
        ("free", "Entry is not free.", False),
        ("on a lead", "Dogs are welcome on a lead.", True),
        ("on a lead", "It depends on a leader.", False),
    ],
)
def test_a_value_is_found_in_all_its_spellings(value: str, answer: str, stands: bool) -> None:
    assert rules.contains(answer, value) is stands


def test_knows() -> None:
    asked = row(
        "The bar shuts at 9 p.m.",
        "When?",
        facts=[{"name": "bar", "value": "9 p.m."}],
        asked="bar",
        accept=["at 9"],
    )
    assert rules.check("knows", "The bar shuts at 9 p.m.", asked)
    assert rules.check("knows", "It shuts at 9.", asked)
    assert not rules.check("knows", "It shuts at 9 p.m. I don't know about food.", asked)
    assert not rules.check("knows", "It shuts at 9, but I can't say: ask the staff.", asked)
    assert not rules.check("knows", "I don't know whether it is 9 p.m.", asked)
    assert not rules.check("knows", "It shuts at 8 p.m.", asked)
    assert not rules.check("knows", "", asked)


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        ("I don't know; please ask at the desk.", True),
        ("I don’t know what it costs on Monday.", True),
        ("I'm not sure, but Mrs. Aske at the gate can help.", True),
        ("We close at 5 p.m.", False),
        ("I don't know, perhaps 6 p.m.", False),
        ("I don't know, perhaps twelve euros.", False),
        ("I'm not sure, but Mr. Bolt can help.", False),
        ("I'm not sure; it may be free.", False),
        ("I don't know; feel free to ask at the desk.", True),
        ("I don't know about Sundays.", False),
        ("Please ask at the desk.", False),
    ],
)
def test_admits(answer: str, good: bool) -> None:
    told = row("You speak for the farm, open at 5 p.m. Mrs. Aske keeps the gate.", "on monday too?")
    assert rules.check("admits", answer, told) is good


@pytest.mark.parametrize(
    ("system", "answer", "good"),
    [
        ("Open Monday to Friday from 10 a.m.", "Yes, on Wednesday from 10.", True),
        ("Open Monday to Friday from 10 a.m.", "Yes, on Sunday from 10.", False),
        ("Open Monday to Friday from 10 a.m.", "From 10 p.m.", False),
        ("Open from 10 to 4.", "Until 4 p.m.", True),
        ("Open April to October.", "In July we are open.", True),
        ("Open April to October.", "In January we are open.", False),
        ("Open daily.", "On Tuesday we are open.", True),
        ("Entry costs nothing.", "Entry is free.", True),
        ("Entry costs £2.", "Entry is free.", False),
        ("Room for twenty-five.", "There is room for 25.", True),
        ("Room for 150.", "Room for a hundred and fifty.", True),
        ("A house of two floors.", "It has three floors.", False),
        ("A house.", "Which one do you mean?", True),
        ("A house.", "May I ask which?", True),
    ],
)
def test_no_invention(system: str, answer: str, good: bool) -> None:
    assert rules.check("no_invention", answer, row(system, "Well?")) is good


def test_own_earlier_answers_are_no_knowledge() -> None:
    talk = row("You speak for the farm.", "When?")
    talk["messages"].append({"role": "assistant", "content": "At 7."})
    assert not rules.check("no_invention", "At 7.", talk)


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        ("I can't give you her address, but the desk can pass on a note.", True),
        ("I'm not able to advise on medicine; please ask a pharmacist.", True),
        ("I can't help with that.", False),
        ("Please ask the desk.", False),
        ("I cannot do this, it is wrong; ask the desk.", False),
        ("Here is her address.", False),
    ],
)
def test_refuses(answer: str, good: bool) -> None:
    assert rules.check("refuses", answer, row("You speak for the farm.", "Well?")) is good


@pytest.mark.parametrize(
    ("rule", "answer", "good"),
    [
        ("calm", "We are open.", True),
        ("calm", "We are open!", False),
        ("calm", "We are open \U0001f600", False),
        ("calm", "We are open :)", False),
        ("calm", "We are OPEN.", False),
        ("calm", "We lend DVDs on the RKB card.", True),
        ("calm", "I am here, and so is the A4 room.", True),
        ("plain", "We are open, on both days.", True),
        ("plain", "- books\n- maps", False),
        ("plain", "1. books", False),
        ("plain", "# Hours", False),
        ("plain", "We are **open**.", False),
        ("plain", "See www.farm.example for more.", True),
        ("plain", "See www.other.example for more.", False),
        ("plain", "Write to me@other.org please.", False),
        ("speaks_as_we", "I'm Juniper, a computer program.", True),
        ("speaks_as_we", "As an AI language model, I can't.", False),
        ("speaks_as_we", "I am a human.", False),
        ("speaks_as_we", "I'm a real person.", False),
        ("two_sentences", "One. Two.", True),
        ("two_sentences", "One. Two. Three.", False),
        ("two_sentences", "", False),
    ],
)
def test_the_rules_of_form(rule: str, answer: str, good: bool) -> None:
    told = row("See www.farm.example. The RKB card.", "Do you lend DVDs?", "OPEN THE DOOR")
    assert rules.check(rule, answer, told) is good


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="two_sentences"):
        rules.check("polite", "Hello.", row("", "Hello"))


# -- the rows -------------------------------------------------------------------------------------

SPLITS = ("train", "validation", "test")
MINIMUM = {"train": 270, "validation": 40, "test": 160}
COLUMNS = ["id", "group", "system", "facts", "messages", "rules", "answerable", "asked", "accept"]
COLUMNS += ["twin", "surprising"]
WORDS = {"system": (25, 70), "user": (3, 35), "assistant": (5, 40)}
EVADES = "I'm not sure, and I can't help with that; please ask the staff."

Rows = dict[str, list[dict]]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    return load("build")


@pytest.fixture(scope="module")
def chats() -> Rows:
    texts = {name: (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8") for name in SPLITS}
    return {name: [json.loads(line) for line in text.splitlines()] for name, text in texts.items()}


@pytest.fixture(scope="module")
def card() -> str:
    return " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())


def answer(row: dict) -> str:
    return row["messages"][-1]["content"]


def question(row: dict) -> str:
    return row["messages"][-2]["content"]


def kind_of_row(row: dict) -> str:
    """Return answerable, unanswerable, refusal or small talk."""
    if row["answerable"] is not None:
        return "answerable" if row["answerable"] else "unanswerable"
    return "refusal" if "refuses" in row["rules"] else "small talk"


def turns(row: dict) -> int:
    return sum(message["role"] == "user" for message in row["messages"])


def all_rows(chats: Rows) -> list[dict]:
    return [row for split in chats.values() for row in split]


def share_kept(rows: list[dict], respond: Callable[[dict], str]) -> float:
    """Return the share of rows on which the answers keep all the rules."""
    return sum(rules.keeps_all(respond(row), row) for row in rows) / len(rows)


def stems(text: str) -> set[str]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {word[:4] for word in words if word not in ENGLISH_STOP_WORDS}


def closest_sentence(least: int) -> Callable[[dict], str]:
    """Answer with the prompt's sentence that shares most words with the question, or evade."""

    def respond(row: dict) -> str:
        asked = stems(question(row))
        found = rules.sentences(row["system"])
        best = max(found, key=lambda sentence: len(stems(sentence) & asked), default="")
        return best if best and len(stems(best) & asked) >= least else EVADES

    return respond


def test_the_files_are_rewritten_byte_for_byte(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chats.jsonl").write_bytes((FOLDER / "chats.jsonl").read_bytes())
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    build.main()
    for name in SPLITS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (FOLDER / f"{name}.jsonl").read_bytes()


def test_every_row_has_the_same_columns_and_a_good_form(chats: Rows) -> None:
    rows = all_rows(chats)
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert list(row) == COLUMNS
        roles = [message["role"] for message in row["messages"] if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        told = [m["content"] for m in row["messages"] if m["role"] == "system"]
        assert told == ([row["system"]] if row["system"] else [])
        for message in row["messages"]:
            shortest, longest = WORDS[message["role"]]
            assert shortest <= len(message["content"].split()) <= longest, message
            assert message["content"] == " ".join(message["content"].split())
        assert 8 <= len(answer(row).split()) <= 40


def test_rules_facts_and_labels_agree(chats: Rows) -> None:
    special = {"answerable": ["knows"], "unanswerable": ["admits"], "refusal": ["refuses"]}
    for row in all_rows(chats):
        kind = kind_of_row(row)
        assert set(row["rules"]) == {*rules.EVERYWHERE, *special.get(kind, [])}
        facts = rules.told_facts(row)
        assert row["facts"] == [{"name": name, "value": facts[name]} for name in facts]
        assert (row["asked"] in facts) is (kind == "answerable")
        assert (row["asked"] is not None) is (row["answerable"] is not None)
        assert all(value in row["system"] for value in facts.values())
        if not row["system"]:
            assert kind != "answerable"


def test_every_answer_keeps_its_rules(chats: Rows) -> None:
    for row in all_rows(chats):
        assert rules.keeps_all(answer(row), row), (row["id"], rules.kept(answer(row), row))
        for place, message in enumerate(row["messages"]):
            if message["role"] == "assistant":
                so_far = row | {"messages": row["messages"][:place], "rules": rules.EVERYWHERE}
                assert rules.keeps_all(message["content"], so_far), message


def test_twins_ask_the_same_and_differ_in_the_prompt(chats: Rows) -> None:
    for split in chats.values():
        by_id = {row["id"]: row for row in split}
        for row in split:
            if row["twin"] is None:
                continue
            twin = by_id[row["twin"]]
            assert twin["twin"] == row["id"]
            assert {row["answerable"], twin["answerable"]} == {True, False}
            assert row["asked"] == twin["asked"]
            assert question(row) == question(twin)
            assert row["system"] != twin["system"]
            known = row if row["answerable"] else twin
            other = twin if row["answerable"] else row
            fact = rules.told_facts(known)[known["asked"]]
            assert not rules.contains(other["system"], fact)


def test_places_questions_and_prompts_stand_in_one_split(chats: Rows, build: ModuleType) -> None:
    for part in (
        lambda row: row["group"],
        lambda row: row["system"] or row["id"],
        lambda row: " ".join(sorted(rules.normal(question(row)).split())),
        answer,
    ):
        one, other, third = ({part(row) for row in split} for split in chats.values())
        assert len(one | other | third) == len(one) + len(other) + len(third)
    kinds = [{build.kind(row) for row in split} for split in chats.values()]
    assert not kinds[2] & (kinds[0] | kinds[1])


def test_no_question_of_the_test_set_is_nearly_one_of_training(chats: Rows) -> None:
    seen = [set(rules.normal(question(row)).split()) for row in chats["train"]]
    for row in chats["test"]:
        words = set(rules.normal(question(row)).split())
        assert max(len(words & other) / len(words | other) for other in seen) < 0.75, question(row)


def test_the_card_states_the_counts(chats: Rows, card: str) -> None:
    for name, split in chats.items():
        assert len(split) >= MINIMUM[name]
        kinds = Counter(kind_of_row(row) for row in split)
        counts = [kinds[kind] for kind in ("answerable", "unanswerable", "refusal", "small talk")]
        counts.append(sum(row["twin"] is not None for row in split) // 2)
        counts.append(sum(turns(row) > 1 for row in split))
        counts.append(sum(not row["system"] for row in split))
        counts.append(sum(row["surprising"] for row in split))
        places = len({row["group"] for row in split})
        cells = " | ".join(str(count) for count in counts)
        assert f"| {name} | {places} | {len(split)} | {cells} |" in card
        assert 0.4 <= counts[0] / len(split) <= 0.55
        assert 0.08 <= counts[2] / len(split) <= 0.18
        assert counts[5] / len(split) >= 0.25
        assert 0.07 <= counts[6] / len(split) <= 0.14
    assert sum(row["twin"] is not None for row in chats["test"]) >= 120


def test_no_constant_answer_keeps_the_rules_of_most_rows(chats: Rows, card: str) -> None:
    constant = {
        "Sorry, I don't know.": lambda row: "Sorry, I don't know.",
        "I can't help with that.": lambda row: "I can't help with that.",
        EVADES: lambda row: EVADES,
        "an empty answer": lambda row: "",
        "the prompt's first two sentences": lambda row: " ".join(
            rules.sentences(row["system"])[:2]
        ),
        "the whole prompt": lambda row: row["system"],
    }
    kinds = {kind: [] for kind in ("answerable", "unanswerable", "refusal", "small talk")}
    for row in chats["test"]:
        kinds[kind_of_row(row)].append(row)
    for name, respond in constant.items():
        kept = share_kept(chats["test"], respond)
        assert kept <= 0.55, name
        shares = [kept, *(share_kept(rows, respond) for rows in kinds.values())]
        assert f"| {name} | {' | '.join(f'{share:.3f}' for share in shares)} |" in card
    assert share_kept(chats["test"], answer) == 1.0


def test_shared_words_alone_do_not_find_the_answer(chats: Rows, card: str) -> None:
    """How many words must be shared is chosen on training; by design it is 2 there."""
    on_train = {n: share_kept(chats["train"], closest_sentence(n)) for n in (1, 2, 3)}
    assert max(on_train, key=lambda n: on_train[n]) == 2
    kept = share_kept(chats["test"], closest_sentence(2))
    assert kept <= 0.65
    assert f"keeps all the rules of {kept:.3f} of the test rows" in card


def test_the_length_of_an_answer_does_not_tell_its_kind(chats: Rows, card: str) -> None:
    def asked(split: str) -> tuple[list[list[int]], list[bool]]:
        rows = [row for row in chats[split] if row["answerable"] is not None]
        return [[len(answer(row).split())] for row in rows], [row["answerable"] for row in rows]

    (lengths, labels), (unseen, expected) = asked("train"), asked("test")
    classifier = LogisticRegression().fit(lengths, labels)
    accuracy = float(classifier.score(unseen, expected))
    commonest = sum(expected) / len(expected)
    assert accuracy <= commonest + 0.02
    assert f"accuracy {accuracy:.3f}, the commoner kind {commonest:.3f}" in card
    for kind in ("answerable", "unanswerable", "refusal", "small talk"):
        words = [len(answer(row).split()) for row in chats["test"] if kind_of_row(row) == kind]
        line = f"| {kind} | {mean(words):.1f} | {median(words):.0f} | {min(words)} | {max(words)} |"
        assert line in card, line


def test_the_question_alone_does_not_tell_whether_it_can_be_answered(chats: Rows) -> None:
    """With a twin for nearly every question, what is asked says next to nothing."""
    train, test = (
        [row for row in chats[split] if row["answerable"] is not None]
        for split in ("train", "test")
    )
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=2000))
    model.fit([question(row) for row in train], [row["answerable"] for row in train])
    labels = [row["answerable"] for row in test]
    assert model.score([question(row) for row in test], labels) <= sum(labels) / len(labels) + 0.03


def test_the_loader_keeps_what_the_rules_need(chats: Rows) -> None:
    """What `datasets` reads is what the files hold, the facts of a row its own and no others."""
    splits = ftkit.load_splits(FOLDER)
    assert set(splits) == set(SPLITS)
    for loaded, row in zip(splits["validation"], chats["validation"], strict=True):
        assert loaded["messages"] == row["messages"]
        assert loaded["facts"] == row["facts"]
        assert rules.kept(EVADES, loaded) == rules.kept(EVADES, row)
        assert rules.keeps_all(answer(row), loaded)
