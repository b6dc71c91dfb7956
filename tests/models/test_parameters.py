"""Which parameters train, in which groups; LoRA against peft and against plain algebra."""

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, GPT2Config, RobertaConfig

import ftkit
from ftkit.models.parameters import freeze_modules, layer_depths
from tests.conftest import tiny_config

HEAD = {"classifier.weight", "classifier.bias"}


def trainable(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def starting(model, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def test_presets(model):
    every = {name for name, _ in model.named_parameters()}
    top = starting(model, "bert.encoder.layer.1.", "bert.pooler.")
    ftkit.set_trainable(model, "head")
    assert trainable(model) == HEAD
    ftkit.set_trainable(model, "top:1")
    assert trainable(model) == HEAD | top
    ftkit.set_trainable(model, "top:2")
    assert trainable(model) == every - starting(model, "bert.embeddings.")
    ftkit.set_trainable(model, "bias")
    assert trainable(model) == HEAD | {name for name in every if name.endswith("bias")}
    ftkit.set_trainable(model, "full")
    assert trainable(model) == every


def test_patterns(model):
    ftkit.set_trainable(model, ["bert.encoder.layer.1.*", "classifier.*"])
    assert trainable(model) == HEAD | starting(model, "bert.encoder.layer.1.")
    ftkit.set_trainable(model, "classifier.*")
    assert trainable(model) == HEAD


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        ("heads", 'Cannot tune "heads". Did you mean "head"?'),
        ("top:0", 'Cannot tune "top:0": this model has layers 1 to 2.'),
        ("top:3", 'Cannot tune "top:3": this model has layers 1 to 2.'),
        ("top:x", 'Cannot tune "top:x". Did you mean "top:K"?'),
        (
            ["clasifier.weight"],
            'No parameter matches "clasifier.weight". Did you mean "classifier.weight"?',
        ),
    ],
)
def test_what_cannot_be_tuned(model, tune, expected):
    before = trainable(model)
    with pytest.raises(ftkit.FtkitError) as caught:
        ftkit.set_trainable(model, tune)
    assert str(caught.value) == expected
    assert trainable(model) == before


@pytest.mark.parametrize(
    "config",
    [
        RobertaConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
        ),
        GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=4),
    ],
)
def test_other_architectures(config):
    model = AutoModelForSequenceClassification.from_config(config)
    depths = layer_depths(model)
    assert set(depths.values()) == {0, 1, 2, 3, 4}
    ftkit.set_trainable(model, "head")
    assert all(name.startswith(("classifier", "score")) for name in trainable(model))


def test_counts(model):
    ftkit.set_trainable(model, "head")
    total = sum(parameter.numel() for parameter in model.parameters())
    assert ftkit.count_parameters(model) == (32 * 2 + 2, total)


def test_parameter_groups_by_depth(model):
    groups = ftkit.parameter_groups(
        model, 1e-3, head_learning_rate=1e-2, layer_decay=0.5, weight_decay=0.1
    )
    rate = {name: group["lr"] for group in groups for name in group["names"]}
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert rate["classifier.weight"] == 1e-2
    assert rate["bert.pooler.dense.weight"] == 1e-3
    assert rate["bert.encoder.layer.1.output.dense.weight"] == 1e-3
    assert rate["bert.encoder.layer.0.output.dense.weight"] == 5e-4
    assert rate["bert.embeddings.word_embeddings.weight"] == 2.5e-4
    assert decay["bert.encoder.layer.0.output.dense.weight"] == 0.1
    assert decay["bert.encoder.layer.0.output.dense.bias"] == 0
    assert decay["bert.encoder.layer.0.output.LayerNorm.weight"] == 0
    assert len(rate) == len(list(model.parameters()))


def test_frozen_parameters_are_in_no_group(model):
    ftkit.set_trainable(model, "head")
    (names,) = (
        [name for group in groups for name in group["names"]]
        for groups in [ftkit.parameter_groups(model, 1e-3)]
    )
    assert set(names) == HEAD


def test_frozen_modules_are_in_eval_mode(model):
    ftkit.set_trainable(model, "top:1")
    freeze_modules(model)
    assert not model.bert.embeddings.dropout.training
    assert not model.bert.encoder.layer[0].output.dropout.training
    assert model.bert.encoder.layer[1].output.dropout.training
    assert model.dropout.training


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


def test_a_model_without_layers_is_told_so():
    model = AutoModelForSequenceClassification.from_config(tiny_config())
    model.config.num_hidden_layers = 7
    with pytest.raises(ftkit.FtkitError, match="has no list of 7 layers; name its parameters by"):
        layer_depths(model)
