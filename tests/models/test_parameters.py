"""Which parameters train, in which groups, and what else is in eval mode with the frozen ones."""

import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    GPT2Config,
    RobertaConfig,
)

import ftkit
from ftkit.models.layers import head_parameters
from ftkit.models.parameters import freeze_modules, kept_modes, layer_depths
from tests.architectures import make_config
from tests.conftest import message, tiny_config

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


def test_a_model_without_layers_is_told_so():
    model = AutoModelForSequenceClassification.from_config(tiny_config())
    model.config.num_hidden_layers = 7
    with pytest.raises(ftkit.FtkitError, match="has no list of 7 layers; name its parameters by"):
        layer_depths(model)


@pytest.mark.parametrize("name", ["bert", "albert", "xlm", "gpt2", "bart", "t5"])
def test_the_body_is_all_but_the_input_embeddings(name):
    model = AutoModelForSequenceClassification.from_config(make_config(name))
    every, table = trainable(model), model.get_input_embeddings().weight
    (frozen,) = (name for name, parameter in model.named_parameters() if parameter is table)
    ftkit.set_trainable(model, "body")
    assert trainable(model) == every - {frozen}


def test_the_body_of_a_language_model_keeps_the_tied_head():
    model = AutoModelForCausalLM.from_config(make_config("gpt2"))
    ftkit.set_trainable(model, "body")
    assert not model.lm_head.weight.requires_grad


@pytest.mark.parametrize(
    ("kind", "name", "tune", "expected"),
    [
        (
            *(AutoModelForCausalLM, "gpt2", "head"),
            'Cannot tune "head": GPT2LMHeadModel has no head of its own: its output layer is the '
            'table of input embeddings. Expected another way, such as "lora", "body" or "full".',
        ),
        (
            *(AutoModelForSequenceClassification, "llama", "bias"),
            'Cannot tune "bias": LlamaForSequenceClassification has no biases but those of its '
            'head. Expected another way, such as "head", "lora" or "full".',
        ),
    ],
)
def test_a_preset_that_would_train_nothing_is_refused(kind, name, tune, expected):
    model = kind.from_config(make_config(name))
    before = trainable(model)
    assert message(ftkit.set_trainable, model, tune) == expected
    assert trainable(model) == before


def test_an_output_layer_of_its_own_is_a_head():
    model = AutoModelForCausalLM.from_config(make_config("llama", tie_word_embeddings=False))
    assert head_parameters(model) == {"lm_head.weight"}


def test_a_tied_table_is_no_head_whichever_name_comes_first():
    """XLM-R makes its head before its body, so that the shared table carries the head's name."""
    model = AutoModelForMaskedLM.from_config(make_config("xlm-roberta"))
    assert model.get_input_embeddings().weight is model.lm_head.decoder.weight
    ftkit.set_trainable(model, "head")
    assert not model.get_input_embeddings().weight.requires_grad
    assert model.lm_head.dense.weight.requires_grad


def test_a_head_beside_an_encoder_and_a_decoder():
    model = AutoModelForQuestionAnswering.from_config(make_config("t5"))
    assert head_parameters(model) == {"qa_outputs.weight", "qa_outputs.bias"}


@pytest.mark.parametrize("name", ["xlm", "flaubert"])
def test_layers_that_are_kept_in_parts(name):
    """XLM has a list of attentions, one of norms, …; the top layer is the last of each."""
    model = AutoModelForSequenceClassification.from_config(make_config(name))
    ftkit.set_trainable(model, "top:1")
    body = {name for name in trainable(model) if name.startswith("transformer.")}
    parts = {name.split(".")[1] for name in body}
    assert parts == {"attentions", "layer_norm1", "ffns", "layer_norm2"}
    assert {name.split(".")[2] for name in body} == {"1"}


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("deberta", "deberta.encoder.rel_embeddings.weight"),
        ("mpnet", "mpnet.encoder.relative_attention_bias.weight"),
    ],
)
def test_tables_that_all_layers_share_lie_below_them(name, table):
    depths = layer_depths(AutoModelForSequenceClassification.from_config(make_config(name)))
    assert depths[table] == 3


def test_dropout_between_frozen_embeddings_and_frozen_layers_is_off():
    model = AutoModelForSequenceClassification.from_config(make_config("gpt2", pad_token_id=0))
    ftkit.set_trainable(model, "top:1")
    freeze_modules(model)
    assert not model.transformer.drop.training
    assert model.transformer.h[1].attn.resid_dropout.training
    ftkit.set_trainable(model, "full")
    freeze_modules(model)
    assert all(module.training for module in model.modules())


def test_modes_come_back(model):
    model.train()
    model.bert.pooler.eval()
    modes = [module.training for module in model.modules()]
    with kept_modes(model):
        model.eval()
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("training", [True, False])
def test_training_leaves_the_mode_as_it_was(model, encoded, task, training):
    model.train(training)
    ftkit.train(model, encoded, task, ftkit.TrainingConfig(num_train_epochs=1, bf16=False))
    assert {module.training for module in model.modules()} == {training}
