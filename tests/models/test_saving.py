"""Saving whole or not at all, and loading again: with ftkit and with plain transformers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import ftkit
from ftkit.models import saving
from tests.conftest import message


def test_saved_models_load_in_plain_transformers(model, tokenizer, task, encoded, tmp_path):
    ftkit.train(model, encoded, task, ftkit.TrainingConfig(num_train_epochs=1, bf16=False))
    before = ftkit.predict(model, encoded["test"], bf16=False)
    folder = ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, task)
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    logits = ftkit.predict(plain, encoded["test"], bf16=False)  # another attention, same function
    np.testing.assert_allclose(logits, before, atol=1e-6)
    loaded_task, loaded_tokenizer, loaded = ftkit.load_saved(folder)
    assert loaded_task == task
    assert loaded_tokenizer("the soup")["input_ids"] == tokenizer("the soup")["input_ids"]
    np.testing.assert_allclose(
        ftkit.predict(loaded, encoded["test"], bf16=False), before, atol=1e-6
    )
    assert not list(tmp_path.glob(".saved*"))


def test_lora_is_saved_merged(model, tokenizer, task, encoded, tmp_path):
    adapted = ftkit.add_lora(model, r=2)
    options = ftkit.TrainingConfig(num_train_epochs=2, learning_rate=1e-2, bf16=False)
    ftkit.train(adapted, encoded, task, options)
    before = ftkit.predict(adapted, encoded["test"], bf16=False)
    folder = ftkit.save_pretrained(tmp_path / "saved", adapted, tokenizer, task)
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    assert (ftkit.predict(adapted, encoded["test"], bf16=False) == before).all()
    after = ftkit.predict(plain, encoded["test"], bf16=False)
    assert abs(after - before).max() < 1e-5


def test_an_existing_output_is_kept(model, tokenizer, task, tmp_path):
    folder = tmp_path / "saved"
    ftkit.save_pretrained(folder, model, tokenizer, task)
    expected = f"{folder} exists. Choose another output, or say --overwrite."
    assert message(ftkit.save_pretrained, folder, model, tokenizer, task) == expected
    ftkit.save_pretrained(folder, model, tokenizer, task, overwrite=True)
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    assert message(ftkit.save_pretrained, other, model, tokenizer, task, overwrite=True) == (
        f"{other} was not written by ftkit (it holds no task.json), so it is not overwritten. "
        "Choose another output."
    )
    assert (other / "thesis.txt").is_file()


def test_a_failed_save_leaves_the_old_one(model, tokenizer, task, tmp_path, monkeypatch):
    folder = ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, task)
    before = (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr(type(tokenizer), "save_pretrained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ftkit.save_pretrained(folder, model, tokenizer, task, overwrite=True)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_saved_folder_that_is_none(tmp_path, copy):
    assert message(ftkit.load_saved, tmp_path / "no") == (
        f"{tmp_path / 'no'}: no such folder. Expected one that `ftkit train` wrote."
    )
    assert message(ftkit.load_saved, copy) == (
        f"{copy}: holds no task.json. Expected a folder that `ftkit train` wrote."
    )
    (copy / "task.json").write_text("[1]")
    assert message(ftkit.load_saved, copy).startswith(f"{copy / 'task.json'}: not a task: ")


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_saving_changes_no_bit_of_the_model(
    model, tokenizer, task, encoded, tmp_path, lora, training
):
    if lora:
        model = ftkit.add_lora(model, r=2)
    for step in ftkit.TrainingRun(model, encoded["train"], ftkit.TrainingConfig(bf16=False)):
        assert step.loss > 0
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    trains = [parameter.requires_grad for parameter in model.parameters()]
    ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, task)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name: tensor.data_ptr() for name, tensor in after.items()} == places
    assert {module.training for module in model.modules()} == {training}
    assert [parameter.requires_grad for parameter in model.parameters()] == trains


MEMORY = """
import resource, sys
import torch
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification
import ftkit
from tests.architectures import make_tokenizer

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

sizes = dict(vocab_size=100, hidden_size=1024, intermediate_size=4096, num_attention_heads=4)
task = ftkit.SequenceClassification(("text",), ("bad", "good"))
tokenizer = make_tokenizer("bert")
small = BertForSequenceClassification(BertConfig(hidden_size=8, num_attention_heads=1))
ftkit.save_pretrained(Path(sys.argv[1]) / "small", small, tokenizer, task)  # all imports done
model = BertForSequenceClassification(BertConfig(**sizes, num_hidden_layers=8))
if sys.argv[2] == "lora":
    model = ftkit.add_lora(model)
whole = sum(p.nbytes for p in model.parameters()) / 2**20
before = peak()
ftkit.save_pretrained(Path(sys.argv[1]) / "saved", model, tokenizer, task)
print(whole, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others count memory in other units")
@pytest.mark.parametrize("kind", ["plain", "lora"])
def test_saving_needs_no_copy_of_the_model(tmp_path, kind):
    command = [sys.executable, "-c", MEMORY, str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    whole, more = map(float, done.stdout.split())
    assert whole > 350
    assert more < whole / 2


def test_a_second_rename_that_fails_puts_the_old_folder_back(
    model, tokenizer, task, tmp_path, monkeypatch
):
    folder = ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, task)
    before = (folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.classifier.bias += 1
    rename = Path.rename

    def fail(path, target):
        if path.name.endswith(".partial"):
            raise OSError("no such luck")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    assert message(ftkit.save_pretrained, folder, model, tokenizer, task, overwrite=True) == (
        f"{folder}: could not be written: no such luck; the old folder stands there again. What "
        "stood there is as it was."
    )
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_an_old_folder_that_cannot_come_back_is_named(
    model, tokenizer, task, tmp_path, monkeypatch
):
    folder = ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, task)
    rename = Path.rename

    def fail(path, target):
        if path.name != "saved":
            raise OSError("no such luck")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    text = message(ftkit.save_pretrained, folder, model, tokenizer, task, overwrite=True)
    assert text.endswith(f"putting the old one back: it is {tmp_path / '.saved.old'}.")
    assert (tmp_path / ".saved.old" / "model.safetensors").is_file()
    monkeypatch.undo()
    ftkit.save_pretrained(folder, model, tokenizer, task, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("known", [True, False])
def test_merged_weights_are_written_over_the_others(
    model, tokenizer, task, tmp_path, monkeypatch, known
):
    """Matrix by matrix into the file; as a whole where transformers writes other names."""
    adapted = ftkit.add_lora(model, r=2)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    if not known:
        monkeypatch.setattr(saving, "_places", lambda _: [])
    folder = ftkit.save_pretrained(tmp_path / "saved", adapted, tokenizer, task)
    found = load_file(folder / "model.safetensors")
    expected = ftkit.merge_lora(adapted).state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
