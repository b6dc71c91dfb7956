"""Merged: LoRA in the weights, a folder that plain transformers loads."""

import json
import subprocess
import sys

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import ftkit
from ftkit.export import open_model
from tests.conftest import message
from tests.export.conftest import make_llama


def adapter(base, path, **options):
    """Save an adapter that is not zero, as peft saves it, and return the adapted model."""
    model = AutoModelForCausalLM.from_pretrained(base)
    model.name_or_path = str(base)
    config = peft.LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, **options)
    adapted = peft.get_peft_model(model, config).eval()
    adapted.save_pretrained(path)
    return adapted


def test_an_adapter_becomes_a_plain_folder(save, tmp_path):
    adapted = adapter(save(), tmp_path / "adapter")
    proof = ftkit.export(tmp_path / "adapter", tmp_path / "merged", to="merged")
    assert proof.notes == (f"LoRA of rank 4 is added to the weights of {tmp_path / 'model'}.",)
    ids = torch.arange(3, 40)[None]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.inference_mode():
        difference = (plain(ids).logits - adapted(ids).logits).abs().max()
    assert difference < 1e-4
    assert json.loads((tmp_path / "merged" / "export.json").read_text()) == {
        "merged": proof.to_dict()
    }
    task, _, _ = ftkit.load_saved(tmp_path / "merged")
    assert task == ftkit.CausalLM(("text",))


def test_an_adapter_goes_to_gguf_and_is_compared_with_its_base(save, tmp_path):
    adapter(save(), tmp_path / "adapter")
    proof = ftkit.export(tmp_path / "adapter", tmp_path / "m.gguf", to="gguf", type="f16")
    assert proof.untouched == str(tmp_path / "model")
    assert proof.kl_untouched > proof.kl


def test_a_classifier_is_copied_with_its_record(model, task, tokenizer, tmp_path):
    record = {"checkpoint": "minilm"}
    folder = ftkit.save_pretrained(tmp_path / "model", model, tokenizer, task, record=record)
    ftkit.export(folder, tmp_path / "merged", to="merged")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    for name, weights in model.state_dict().items():
        np.testing.assert_array_equal(plain.state_dict()[name], weights)
    assert open_model(tmp_path / "merged").record == record


def test_a_plain_language_model_needs_no_task(tmp_path, bpe):
    make_llama().save_pretrained(tmp_path / "plain")
    bpe.save_pretrained(tmp_path / "plain")
    assert ftkit.export(tmp_path / "plain", tmp_path / "m.gguf", to="gguf").agreement > 0.9


def test_bad_adapters(save, tmp_path):
    adapter(save(), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())

    def told(**changes) -> str:
        path.write_text(json.dumps({**config, **changes}))
        return message(open_model, tmp_path / "adapter")

    assert "names no base_model_name_or_path" in told(base_model_name_or_path=None)
    assert "its adapter is for SEQ_CLS; expected a folder that" in told(task_type="SEQ_CLS")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "x.bin")
    assert "holds no adapter_model.safetensors; pickled weights" in told()
    path.write_text("[")
    assert message(open_model, tmp_path / "adapter").startswith(f"{path}: not JSON: ")
    path.write_text("[]")
    assert message(open_model, tmp_path / "adapter") == f"{path}: holds list; expected an object."


def test_names_are_checked_before_anything_is_loaded(tmp_path):
    def told(output="m.gguf", **options) -> str:
        return message(ftkit.export, tmp_path / "no", tmp_path / output, **options)

    assert told(to="ggfu") == 'Unknown format "ggfu". Did you mean "gguf"?'
    assert told(to="gguf", type="q8") == 'Unknown type "q8". Did you mean "q8_0"?'
    assert told(to="merged", type="f16") == (
        'type "f16" says nothing to the format merged; leave it out.'
    )
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "thesis.txt").write_text("years of work")
    assert told("merged", to="merged").endswith(
        "merged exists. Choose another output, or say --overwrite."
    )
    assert told("merged", to="merged", overwrite=True).endswith(
        "(it holds no export.json), so it is not overwritten. Choose another output."
    )
    (tmp_path / "m.gguf").mkdir()
    assert told(to="gguf").endswith("m.gguf is a folder; expected the name of a file.")
    assert "is no bundled model, no folder and no hub id" in told("n.gguf", to="gguf")


@pytest.mark.parametrize(
    "first", ["ftkit.export.formats", "ftkit.export", "ftkit.cli.export", "ftkit"]
)
def test_the_function_is_not_hidden_by_its_room(first):
    lines = (f"import {first}", "import ftkit", "from ftkit.export import gguf")
    code = "\n".join([*lines, "print(callable(ftkit.export))"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
