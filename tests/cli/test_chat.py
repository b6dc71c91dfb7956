"""The terminal: a talk that goes on, its commands, Ctrl-C, and rows as tokens."""

import io

import pytest

import ftkit
from ftkit.cli import chat
from ftkit.cli.main import main
from tests.conftest import write_csv
from tests.tasks.chat_templates import TEMPLATES
from tests.tasks.test_chat import chat_tokenizer, tiny_llama


@pytest.fixture
def folder(tmp_path):
    """A tiny random chat model, saved."""
    tokenizer = chat_tokenizer(TEMPLATES["ChatML"][0])
    model = tiny_llama(tokenizer)
    return ftkit.save_pretrained(tmp_path / "model", model, tokenizer, ftkit.Chat())


@pytest.fixture
def heard(monkeypatch):
    """What the model is asked: the conversations, one an answer."""
    seen = []
    answer = chat._answer

    def listen(model, tokenizer, messages, options):
        seen.append([dict(message) for message in messages])
        return answer(model, tokenizer, messages, options)

    monkeypatch.setattr(chat, "_answer", listen)
    return seen


def talk(monkeypatch, folder, *lines, **options) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return main(["chat", str(folder), "--max-new-tokens=4", *given])


def test_a_talk_goes_on_until_it_is_reset(monkeypatch, folder, heard):
    lines = ("Hi", "And?", "/reset", "New", "/system Be brief.", "Now", "/wat", "/quit", "never")
    assert talk(monkeypatch, folder, *lines) == 0
    asked = [[(m["role"], m["content"]) for m in messages] for messages in heard]
    assert asked[0] == [("user", "Hi")]
    assert [role for role, _ in asked[1]] == ["user", "assistant", "user"]
    assert asked[2] == [("user", "New")]
    assert asked[3] == [("system", "Be brief."), ("user", "Now")]
    assert len(asked) == 4


def test_the_end_of_input_ends_the_talk(monkeypatch, folder, heard):
    assert talk(monkeypatch, folder, "Hi", temperature=1.0, top_p=0.9, seed=1) == 0
    assert len(heard) == 1


def test_ctrl_c_stops_an_answer_and_not_the_program(monkeypatch, folder, heard):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.LlamaForCausalLM.generate", interrupted)
    assert talk(monkeypatch, folder, "Hi", "Still there?", "/quit") == 0
    assert len(heard) == 2


def test_a_classifier_does_not_chat(model, tokenizer, task, tmp_path, capsys):
    ftkit.save_pretrained(tmp_path / "out", model, tokenizer, task)
    assert main(["chat", str(tmp_path / "out")]) == 2
    assert "was trained for sequence-classification; expected chat." in capsys.readouterr().err


def test_inspect_shows_rows_and_counts(checkpoint, tmp_path, capsys):
    rows = [{"text": f"the soup was {w}", "label": x} for w, x in (("fine", 1), ("cold", 0))] * 9
    data = write_csv(tmp_path / "rows" / "train.csv", rows).parent
    arguments = ("--data", data, "--checkpoint", checkpoint, "--rows", 1)
    assert main(["inspect", *map(str, arguments)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("18 rows, ")
    assert "1: ⟦[CLS]⟧⟦the⟧" in said


def test_inspect_refuses_a_row_that_teaches_nothing(tokenizer):
    from datasets import Dataset

    rows = Dataset.from_dict({"input_ids": [[5, 6], [6, 7]], "labels": [[-100, 6], [-100, -100]]})
    found = ftkit.inspect(rows, tokenizer)
    with pytest.raises(ftkit.FtkitError, match="index 1: no token is supervised"):
        found.check()
    assert found.counts["supervised"] == 1
    assert "<script" not in ftkit.inspect(rows, tokenizer)._repr_html_()


def test_inspect_knows_a_text_that_does_not_end():
    tokenizer = chat_tokenizer(TEMPLATES["ChatML"][0])
    from tests.tasks.test_chat import TURNS, splits

    encoded = ftkit.Chat().encode(splits({"messages": TURNS}), tokenizer)
    ftkit.inspect(encoded, tokenizer, ftkit.Chat()).check()
    row = encoded["train"][0]
    cut = {name: [row[name][:-3]] for name in ("input_ids", "labels", "attention_mask")}
    from datasets import Dataset

    found = ftkit.inspect(Dataset.from_dict(cut), tokenizer, ftkit.Chat())
    with pytest.raises(ftkit.FtkitError, match="does not learn to stop"):
        found.check()
