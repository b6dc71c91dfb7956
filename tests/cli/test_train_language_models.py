"""Chat and preferences from the command line: train, evaluate, predict."""

import json

import pytest

import ftkit
from ftkit.cli.main import main
from tests.tasks.chat_templates import TEMPLATES
from tests.tasks.test_chat import chat_tokenizer, tiny_llama, turn


def rows_of(name: str, start: int) -> list[dict]:
    """Return eight rows that no other start has."""
    asked = [[turn("user", f"Is {start + i} even?")] for i in range(8)]
    answers = [[turn("assistant", "No." if i % 2 else "Yes.")] for i in range(8)]
    if name == "chat":
        return [{"messages": q + a} for q, a in zip(asked, answers, strict=True)]
    rejected = [turn("assistant", "Perhaps.")]
    pairs = zip(asked, answers, strict=True)
    return [{"prompt": q, "chosen": a, "rejected": rejected} for q, a in pairs]


@pytest.fixture
def llama(tmp_path):
    """A random language model with a chat template, as a hub repository holds it."""
    tokenizer = chat_tokenizer(TEMPLATES["ChatML"][0])
    tiny_llama(tokenizer).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.mark.parametrize("name", ["chat", "preference"])
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_train_and_predict(name, tune, llama, tmp_path, capsys):
    for start, split in enumerate(("train", "validation", "test")):
        lines = [json.dumps(row) for row in rows_of(name, 8 * start)]
        (tmp_path / "rows").mkdir(exist_ok=True)
        (tmp_path / "rows" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows, model = str(tmp_path / "rows"), str(tmp_path / "model")
    options = ["--checkpoint", str(llama), "--learning-rate=1e-2", "--batch-size=4", "--bf16=false"]
    options += ["--num-train-epochs=2", "--tune", tune]
    assert main(["train", "--data", rows, "--output", model, *options]) == 0
    assert "validation loss" in capsys.readouterr().out
    task, tokenizer, loaded = ftkit.load_saved(model)
    assert task.name == name
    answer = ftkit.predict(loaded, ["Hi"], type(task)(max_new_tokens=3), tokenizer)
    assert len(answer) == 1
    if name == "chat":
        assert main(["evaluate", model, "--data", rows]) == 0
