"""Saving whole or not at all, and loading again: with ftkit and with plain transformers."""

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

import ftkit
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
