"""Loading what is safe, saving what loads again, and refusing the rest."""

import json

import httpx2
import pytest
import torch
from transformers import AutoConfig

import ftkit
from ftkit.models.loading import BUNDLED_MODELS, check_sha256, locate
from tests.conftest import message


def test_the_bundled_model_is_the_published_one_and_its_head_is_seeded(task):
    tokenizer, model = ftkit.load_pretrained("minilm", task, seed=3)
    _, same = ftkit.load_pretrained("minilm", task, seed=3)
    _, other = ftkit.load_pretrained("minilm", task, seed=4)
    assert len(tokenizer) == 30522
    assert sum(p.numel() for p in model.parameters()) == 22_713_986
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert torch.equal(model.classifier.weight, same.classifier.weight)
    assert not torch.equal(model.classifier.weight, other.classifier.weight)
    weight = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(model.state_dict()[weight], other.state_dict()[weight])


def test_random_weights_share_nothing_with_the_pretrained_ones(checkpoint, task):
    _, one = ftkit.load_pretrained(checkpoint, task)
    _, other = ftkit.load_pretrained(checkpoint, task, pretrained=False)
    weight = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])


def test_loading_leaves_the_global_generator_alone(checkpoint, task):
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    ftkit.load_pretrained(checkpoint, task)
    assert torch.equal(torch.rand(2), expected)


def test_a_folder_without_weights(copy, task):
    (copy / "model.safetensors").unlink()
    assert message(ftkit.load_pretrained, copy, task) == (
        f"{copy}: holds no weights; expected model.safetensors."
    )


def test_pickled_weights_only(copy, task):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert message(ftkit.load_pretrained, copy, task) == (
        f"{copy}: its weights are pickled (pytorch_model.bin), and unpickling can run any code. "
        "Expected model.safetensors; the hub converts a repository on request."
    )


def test_no_config(copy, task):
    (copy / "config.json").unlink()
    assert message(ftkit.load_pretrained, copy, task) == (
        f"{copy}: holds no config.json, so it is no checkpoint."
    )


def test_remote_code_is_refused(copy, task):
    config = json.loads((copy / "config.json").read_text())
    config.update(model_type="mybert", auto_map={"AutoConfig": "evil.Config"})
    (copy / "config.json").write_text(json.dumps(config))
    text = message(ftkit.load_pretrained, copy, task)
    assert text.startswith(f"{copy}: wants to run code of its own (auto_map in config.json)")


def test_truncated_weights(copy, task):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert message(ftkit.load_pretrained, copy, task).startswith(
        f"{copy}: the weights do not load: "
    )


def test_weights_of_another_architecture(copy, task):
    config = json.loads((copy / "config.json").read_text())
    config["num_hidden_layers"] = 3
    (copy / "config.json").write_text(json.dumps(config))
    text = message(ftkit.load_pretrained, copy, task)
    assert text.startswith(f"{copy}: the weights lack 16 parameters of BertForSequenceClass")
    assert text.endswith("Is it a checkpoint of another architecture?")


def test_wrong_sha256(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"abc")
    found = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    check_sha256(path, found)
    expected = BUNDLED_MODELS["minilm"][2]
    assert message(check_sha256, path, expected) == (
        f"{path}: sha256 is {found}; expected {expected}, that of the published file. It is "
        "damaged or not the published one: install the package that carries it again."
    )


@pytest.mark.parametrize("name", ["gpt2", "bert-base-chinese", "t5-small"])
def test_short_names_stand_for_hub_ids(monkeypatch, name):
    asked = []
    files = ["config.json", "model.safetensors"]
    monkeypatch.setattr("ftkit.hub.file_names", lambda *what: asked.append(what[0]) or files)
    assert locate(name) == asked[0]
    assert asked[0].count("/") == 1
    assert asked[0].endswith(f"/{name}")


def test_unknown_names():
    assert message(locate, "minilmm") == (
        '"minilmm" is no bundled model, no folder and no hub id. Did you mean "minilm"?'
    )


@pytest.mark.parametrize(
    ("part", "text"),
    [("config", "cannot be reached (ReadError)"), ("weights", "do not load: connection reset")],
)
def test_a_network_that_fails_midway_is_an_error_of_ours(checkpoint, task, monkeypatch, part, text):
    def fail(*args, **options):
        raise httpx2.ReadError("connection reset")

    owner = AutoConfig if part == "config" else task.auto_model
    monkeypatch.setattr(owner, "from_pretrained", fail)
    assert text in message(ftkit.load_pretrained, checkpoint, task)
