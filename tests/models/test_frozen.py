"""Frozen lower layers run once: the same losses, less work, any encoder or decoder."""

import copy

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import ftkit
from ftkit.data.batches import collate
from ftkit.models import frozen
from ftkit.models.frozen import (
    FrozenLayers,
    FrozenLayersWarning,
    count_frozen_layers,
    find_frozen_layers,
)
from tests.architectures import make_config
from tests.conftest import tiny_config

SMALL = {"vocab_size": 200, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
DECODER = {"n_embd": 32, "n_layer": 3, "n_head": 4, "pad_token_id": 0, "embd_pdrop": 0.0}
MODELS = {
    "bert": lambda: BertForSequenceClassification(tiny_config(num_hidden_layers=3)),
    "roberta": lambda: RobertaForSequenceClassification(
        RobertaConfig(**SMALL, num_hidden_layers=3, pad_token_id=0)
    ),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=200, dim=32, n_layers=3, n_heads=4, hidden_dim=64)
    ),
    "gpt2": lambda: GPT2ForSequenceClassification(GPT2Config(vocab_size=200, **DECODER)),
    "llama": lambda: LlamaForSequenceClassification(
        LlamaConfig(**SMALL, num_hidden_layers=3, pad_token_id=0)
    ),
}


def config(**options) -> ftkit.TrainingConfig:
    settings = {"learning_rate": 1e-3, "num_train_epochs": 3, "batch_size": 8, "bf16": False}
    return ftkit.TrainingConfig(**{**settings, **options})


@pytest.fixture
def rows(encoded) -> Dataset:
    """The training rows with no columns that only BERT knows."""
    return encoded["train"].remove_columns("token_type_ids")


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("tune", ["head", "top:1", "top:2"])
@pytest.mark.parametrize("name", MODELS)
def test_same_losses_as_without(rows, name, tune, parts):
    """Dropout on above the frozen layers; GPT-2's embedding dropout, which is below, is off."""
    torch.manual_seed(0)
    model: PreTrainedModel = MODELS[name]()
    ftkit.set_trainable(model, tune)
    other = copy.deepcopy(model)
    options = {"gradient_accumulation_steps": parts}
    run = ftkit.TrainingRun(model, rows, config(**options))
    plain = ftkit.TrainingRun(other, rows, config(**options, reuse_frozen=False))
    assert len(run.frozen.layers) == {"head": 3, "top:1": 2, "top:2": 1}[tune]
    assert plain.frozen is None
    assert [step.loss for step in run] == pytest.approx([step.loss for step in plain], abs=1e-5)


@pytest.mark.parametrize("tune", ["full", "bias", "lora", ["*embeddings*", "classifier.*"]])
def test_nothing_to_reuse(model, encoded, tune):
    if tune == "lora":
        model = ftkit.add_lora(model)
    else:
        ftkit.set_trainable(model, tune)
    assert ftkit.TrainingRun(model, encoded["train"], config()).frozen is None


def test_what_thaws_later_is_not_frozen(model, encoded):
    options = config(unfreeze=((0.0, "head"), (0.5, "top:1")))
    run = ftkit.TrainingRun(model, encoded["train"], options)
    assert len(run.frozen.layers) == 1


def test_a_single_epoch_stores_nothing(model, encoded):
    ftkit.set_trainable(model, "head")
    assert ftkit.TrainingRun(model, encoded["train"], config(num_train_epochs=1)).frozen is None


def test_models_without_a_list_of_layers():
    settings = {**SMALL, "embedding_size": 16, "num_hidden_layers": 3}
    model = AlbertForSequenceClassification(AlbertConfig(**settings))
    assert count_frozen_layers(model, list(model.classifier.parameters())) == 0


def test_the_model_stays_as_it_is(model, encoded):
    before = {name: p.clone() for name, p in model.named_parameters()}
    stored = FrozenLayers(model, encoded["train"], 1, bf16=False)
    batch = collate(encoded["train"], [3, 0])
    plain = model(**batch).logits
    with stored.reuse([3, 0]):
        torch.testing.assert_close(model(**batch).logits, plain, atol=1e-6, rtol=0)
    with stored.reuse([0, 3]):  # other rows than the batch's: proof that the store is read
        assert not torch.allclose(model(**batch).logits, plain, atol=1e-3)
    torch.testing.assert_close(model(**batch).logits, plain, atol=0, rtol=0)
    assert list(before) == list(model.state_dict())
    assert all("forward" not in vars(module) for module in model.modules())


def test_frozen_layers_run_once(model, encoded, task):
    """Three epochs with validation: each row goes through the lower layer a single time.

    The proof takes two rows of each split, each alone and then both together.
    """
    ftkit.set_trainable(model, "top:1")
    seen = []
    model.bert.encoder.layer[0].attention.register_forward_hook(
        lambda _, inputs, output: seen.append(len(output[0]))
    )
    history = ftkit.train(model, encoded, task, config())
    assert len(history.evaluations) == 4  # before training, too
    proof = 2 * (2 + 2)
    assert sum(seen) == len(encoded["train"]) + len(encoded["validation"]) + proof


def test_kept_scores_are_those_of_evaluate(model, encoded, task):
    ftkit.set_trainable(model, "head")
    history = ftkit.train(model, encoded, task, config())
    report = ftkit.evaluate(model, encoded["validation"], task, n_resamples=0, bf16=False)
    best = history.evaluations[history.best_epoch]
    assert float(report.losses.mean()) == pytest.approx(best["loss"], abs=1e-6)


def test_a_file_takes_what_memory_does_not(model, encoded, monkeypatch):
    ftkit.set_trainable(model, "head")
    other = copy.deepcopy(model)
    in_memory = [step.loss for step in ftkit.TrainingRun(model, encoded["train"], config())]
    monkeypatch.setattr(frozen, "MEMORY_BUDGET", 1000)
    run = ftkit.TrainingRun(other, encoded["train"], config())
    assert run.frozen.outputs.untyped_storage().nbytes() > 1000
    assert [step.loss for step in run] == in_memory


def test_a_disk_too_small_goes_on_without(model, encoded, monkeypatch):
    ftkit.set_trainable(model, "head")
    monkeypatch.setattr(frozen, "MEMORY_BUDGET", 1000)
    monkeypatch.setattr(
        frozen.shutil, "disk_usage", lambda _: frozen.shutil._ntuple_diskusage(1, 1, 0)
    )
    with pytest.warns(UserWarning, match="computed anew each epoch: 0.0 GiB are needed, and 0.0"):
        run = ftkit.TrainingRun(model, encoded["train"], config())
    assert run.frozen is None
    assert len(list(run)) == run.total_steps


def test_a_store_that_is_inexact_stands_down_with_a_note(task, tokenizer):
    """FNet knows no mask: what it makes of a row depends on the padding of its batch."""
    texts = ["the soup was fine", "the room was cold and the film was dull today"] * 4
    rows = Dataset.from_dict({"text": texts, "label": ["good", "bad"] * 4})
    encoded = task.encode(DatasetDict({"train": rows}), tokenizer)
    model = AutoModelForSequenceClassification.from_config(make_config("fnet", num_labels=2))
    ftkit.set_trainable(model, "head")
    expected = "anew each epoch: with their stored outputs the loss of FNetForSequenceClass"
    with pytest.warns(FrozenLayersWarning, match=expected):
        run = ftkit.TrainingRun(model, encoded["train"], config())
    assert run.frozen is None
    assert len(list(run)) == run.total_steps


def test_layers_that_do_not_run_one_by_one_stand_down_with_a_note(encoded):
    model = AutoModelForSequenceClassification.from_config(make_config("xlnet", num_labels=2))
    ftkit.set_trainable(model, "head")
    with pytest.warns(FrozenLayersWarning, match="the layers of XLNetFor.* do not run one by one"):
        run = ftkit.TrainingRun(model, encoded["train"], config())
    assert run.frozen is None


def test_what_trains_below_is_found_out(model, encoded, monkeypatch):
    """The count of layers says that all are frozen; the gradient knows better."""
    ftkit.set_trainable(model, ["classifier.*", "bert.embeddings.LayerNorm.*"])
    monkeypatch.setattr(frozen, "count_frozen_layers", lambda *_: 2)
    with pytest.warns(FrozenLayersWarning, match="something that trains reaches the layers of"):
        run = ftkit.TrainingRun(model, encoded["train"], config())
    assert run.frozen is None


def test_dropout_below_the_frozen_layers_is_off_with_and_without(rows):
    """GPT-2 drops embeddings at random before its first layer; its default is 0.1."""
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification(
        GPT2Config(vocab_size=200, n_embd=32, n_layer=3, n_head=4, pad_token_id=0)
    )
    ftkit.set_trainable(model, "top:1")
    other = copy.deepcopy(model)
    run = ftkit.TrainingRun(model, rows, config())
    plain = ftkit.TrainingRun(other, rows, config(reuse_frozen=False))
    assert run.frozen is not None
    assert [step.loss for step in run] == pytest.approx([step.loss for step in plain], abs=1e-5)


def test_the_proof_leaves_no_trace(model, encoded):
    ftkit.set_trainable(model, "head")
    modes = [module.training for module in model.modules()]
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    assert find_frozen_layers(model, encoded["train"], model.classifier.parameters(), bf16=False)
    assert torch.equal(torch.rand(2), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_memory_is_no_disk(model, encoded, monkeypatch):
    ftkit.set_trainable(model, "head")
    monkeypatch.setattr(frozen, "MEMORY_BUDGET", 1000)
    monkeypatch.setattr(frozen, "_file_system", lambda _: "tmpfs")
    with pytest.warns(
        FrozenLayersWarning, match="lies in memory; name a folder on a disk in TMPDIR"
    ):
        run = ftkit.TrainingRun(model, encoded["train"], config())
    assert run.frozen is None


def test_file_systems():
    assert frozen._file_system("/proc") in ("proc", "")
    assert frozen._file_system("/dev/shm") in ("tmpfs", "")


def test_half_of_the_disk_stays_free(model, encoded, monkeypatch):
    ftkit.set_trainable(model, "head")
    monkeypatch.setattr(frozen, "MEMORY_BUDGET", 1000)
    size = sum(map(len, encoded["train"]["input_ids"])) * 32 * 4
    usage = frozen.shutil._ntuple_diskusage(10**9, 10**9, 2 * size - 1)
    monkeypatch.setattr(frozen.shutil, "disk_usage", lambda _: usage)
    with pytest.warns(FrozenLayersWarning, match="of which half stays free"):
        run = ftkit.TrainingRun(model, encoded["train"], config())
    assert run.frozen is None


def test_two_answers_in_one_row_are_not_stored(model, encoded):
    """A preference sends both through the model at once; one of them alone would come back."""
    ftkit.set_trainable(model, "head")
    rows = encoded["train"]
    pairs = rows.add_column("rejected_input_ids", rows["input_ids"])
    with pytest.warns(FrozenLayersWarning, match="two answers of a row go through the layers"):
        assert find_frozen_layers(model, pairs, model.classifier.parameters(), bf16=False) is None
