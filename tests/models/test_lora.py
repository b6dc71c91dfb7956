"""LoRA against peft and against plain algebra; ties stay tied; the merged weights need no copy."""

import copy
import warnings

import peft
import pytest
import torch
from datasets import DatasetDict
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

import ftkit
from ftkit.models.lora import merged_weights, unmerged_state_dict
from tests.architectures import make_checkpoint, make_config
from tests.conftest import message
from tests.test_architectures import rows_of


def trainable(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def batch() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(5, 200, (3, 7)), "labels": torch.tensor([0, 1, 1])}


def test_lora_leaves_the_function_as_it_was(model):
    inputs = batch()
    before = model(**inputs).logits
    adapted = ftkit.add_lora(model, r=4)
    torch.testing.assert_close(adapted(**inputs).logits, before)
    assert {name.split(".")[-3] for name in trainable(adapted)} <= {
        "lora_A",
        "lora_B",
        "modules_to_save",
    }


def test_merged_lora_is_a_plain_model_with_the_same_logits(model):
    names = [name for name, _ in model.named_parameters()]
    adapted = ftkit.add_lora(model, r=4).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    inputs = batch()
    before = adapted(**inputs).logits
    plain = ftkit.merge_lora(adapted)
    assert [name for name, _ in plain.named_parameters()] == names
    torch.testing.assert_close(plain(**inputs).logits, before, rtol=1e-4, atol=1e-5)


def test_lora_by_hand_equals_peft():
    """W x + (alpha / r) B A x, and the gradients of A and B, for one layer."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(6, 5)
    wrapped = peft.get_peft_model(
        torch.nn.Sequential(linear), peft.LoraConfig(r=2, lora_alpha=8, target_modules=["0"])
    )
    weights = dict(wrapped.named_parameters())
    a, b = (weights[f"base_model.model.0.lora_{k}.default.weight"] for k in "AB")
    torch.nn.init.normal_(b)
    inputs = torch.randn(4, 6)
    by_hand = inputs @ linear.weight.T + linear.bias + (8 / 2) * inputs @ a.T @ b.T
    torch.testing.assert_close(wrapped(inputs), by_hand, atol=1e-6, rtol=1e-6)
    ours = torch.autograd.grad(by_hand.square().sum(), (a, b))
    theirs = torch.autograd.grad(wrapped(inputs).square().sum(), (a, b))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((AutoModelForMaskedLM, name) for name in ("bert", "roberta", "distilbert", "albert")),
        *((AutoModelForCausalLM, name) for name in ("gpt2", "qwen2", "gemma2", "opt")),
    ],
)
def test_a_tied_head_stays_tied(kind, name):
    model = kind.from_config(make_config(name))
    adapted = ftkit.add_lora(model, r=2)
    plain = adapted.get_base_model()
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    assert all("lora_" in name for name in trainable(adapted))
    assert not any("modules_to_save" in name for name, _ in adapted.named_parameters())


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_a_language_model_with_lora_is_saved_loaded_and_says_the_same(name, tmp_path):
    kind = {"bert": "masked-lm", "gpt2": "causal-lm", "t5": "seq2seq"}[name]
    task, rows = rows_of(kind)
    tokenizer, model = ftkit.load_pretrained(make_checkpoint(name, kind, tmp_path / name), task)
    encoded = task.encode(DatasetDict({"train": rows}), tokenizer)
    adapted = ftkit.add_lora(model, r=2)
    config = ftkit.TrainingConfig(num_train_epochs=2, learning_rate=1e-2, bf16=False)
    ftkit.train(adapted, encoded, task, config)
    before = ftkit.evaluate(adapted, encoded["train"], task, n_resamples=0, bf16=False)
    saved = ftkit.save_pretrained(tmp_path / "saved", adapted, tokenizer, task)
    _, _, loaded = ftkit.load_saved(saved)
    after = ftkit.evaluate(loaded, encoded["train"], task, n_resamples=0, bf16=False)
    assert after.metrics == pytest.approx(before.metrics, abs=1e-5)


def test_chosen_modules(model):
    adapted = ftkit.add_lora(model, r=2, target_modules=["query", "value"])
    changed = {
        name.split(".lora_")[0].split(".")[-1] for name in trainable(adapted) if "lora" in name
    }
    assert changed == {"query", "value"}


def test_modules_that_are_not_there(model):
    text = message(ftkit.add_lora, model, target_modules=["q_proj"])
    assert text.startswith("LoRA finds nothing to update in BertForSequenceClassification: ")
    assert text.endswith("Its linear layers end in: dense, key, query, value.")


def test_convolutions_are_no_linear_layers():
    model = AutoModelForMaskedLM.from_config(make_config("squeezebert"))
    assert message(ftkit.add_lora, model) == (
        "LoRA updates linear layers, and SqueezeBertForMaskedLM has none in its layers. Expected "
        'another way to tune, such as "full", "head" or "top:1".'
    )


def test_the_transposed_layers_of_gpt2_bring_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ftkit.add_lora(AutoModelForCausalLM.from_config(make_config("gpt2")))


def test_the_seed_decides_and_the_global_generator_is_left_alone(model):
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first, again = (ftkit.add_lora(copy.deepcopy(model)).state_dict() for _ in range(2))
    other = ftkit.add_lora(copy.deepcopy(model), seed=1).state_dict()
    assert torch.equal(torch.rand(2), expected)
    (name, *_) = [name for name in first if "lora_A" in name]
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("name", ["bert", "gpt2", "albert", "bart"])
def test_merged_weights_are_those_of_peft(name):
    """GPT-2 keeps its matrices transposed, ALBERT has one layer for all depths."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(make_config(name, pad_token_id=0))
    adapted = ftkit.add_lora(model, r=2)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter)
    found = {**unmerged_state_dict(adapted), **dict(merged_weights(adapted))}
    expected = ftkit.merge_lora(adapted).state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
