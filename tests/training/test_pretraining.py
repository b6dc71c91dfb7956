"""Pretraining: blocks of running text, and a run that is interrupted and goes on."""

import json
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import ftkit
from ftkit.training.pretraining import pack_blocks, pretrain, save_half
from tests.conftest import message


class Letters:
    """A tokenizer of letters: a is 1, b is 2; the end of a text is 0."""

    eos_token_id = 0

    def __call__(self, texts, add_special_tokens):
        assert add_special_tokens is False
        return {"input_ids": [[ord(letter) - 96 for letter in text] for text in texts]}


def packed(texts, block_size) -> list[list[int]]:
    dataset = pack_blocks(texts, Letters(), block_size)  # type: ignore[arg-type]
    assert dataset["input_ids"] == dataset["labels"]
    return list(dataset["input_ids"])


def test_texts_are_joined_and_cut_into_blocks():
    assert packed(["abc", "d", "efg"], 4) == [[1, 2, 3, 0], [4, 0, 5, 6]]  # 7 and 0 fill no block
    assert packed(iter(["ab", "c"]), 5) == [[1, 2, 0, 3, 0]]
    assert packed(["abcdefgh"], 3) == [[1, 2, 3], [4, 5, 6], [7, 8, 0]]
    assert packed(["abc"], 5) == packed([], 5) == []


def test_too_little_text_is_refused_by_the_run():
    blocks = pack_blocks(["abc"], Letters(), 9)  # type: ignore[arg-type]
    assert message(ftkit.TrainingRun, tiny_gpt(), blocks) == "The training split has no rows."


def tiny_gpt() -> GPT2LMHeadModel:
    """Dropout on, so that a resumed run must draw the same again."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "n_positions": 8, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, pad_token_id=0))


@pytest.fixture(scope="module")
def blocks() -> Dataset:
    words = ("hen", "goat", "fox", "owl")
    texts = [f"{one}{two}" for one in words for two in words]
    return pack_blocks(texts, Letters(), 8)  # type: ignore[arg-type]


def config(**options) -> ftkit.TrainingConfig:
    sizes = {"num_train_epochs": 3, "batch_size": 3, "save_steps": 4, "bf16": False}
    return ftkit.TrainingConfig(learning_rate=1e-2, warmup_steps=2, **{**sizes, **options})


class PowerCutError(Exception):
    """Stands for a machine that is switched off."""


def run(model, blocks, folder, *, stop_at=None, **options):
    """Pretrain, and measure what disturbs: eval mode, random draws, and the power cut."""
    calls = SimpleNamespace(n=0)

    def measure():
        calls.n += 1
        if calls.n == stop_at:
            raise PowerCutError
        model.eval()
        torch.rand(7)
        with torch.no_grad():
            ids = torch.tensor(blocks["input_ids"])
            return {"held_out": float(model(input_ids=ids, labels=ids).loss)}

    return pretrain(model, blocks, config(**options), folder, measure)


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def without_seconds(log) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in log]


def test_interrupted_and_called_again_it_is_the_same(blocks, tmp_path):
    """Log and weights, bit for bit; interrupted in the middle of an epoch, and twice."""
    model = tiny_gpt()
    log = run(model, blocks, tmp_path / "whole")
    steps = 3 * -(-len(blocks) // 3)
    assert [line["step"] for line in log] == [*range(4, steps, 4), steps]
    assert log[-1]["held_out"] < log[0]["held_out"]
    for stop_at in (3, 2):
        other = tiny_gpt()
        with pytest.raises(PowerCutError):
            run(other, blocks, tmp_path / "parts", stop_at=stop_at)
    other = tiny_gpt()
    again = run(other, blocks, tmp_path / "parts")
    assert without_seconds(again) == without_seconds(log)
    assert torch.equal(weights(other), weights(model))
    seconds = [line["seconds"] for line in again]
    assert seconds == sorted(seconds)


def test_the_log_is_on_the_disk(blocks, tmp_path):
    log = run(tiny_gpt(), blocks, tmp_path)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == log
    assert set(log[0]) == {"step", "seconds", "loss", "held_out"}


def test_the_loss_is_the_mean_since_the_line_before(blocks, tmp_path):
    log = run(tiny_gpt(), blocks, tmp_path)
    losses = [step.loss for step in ftkit.TrainingRun(tiny_gpt(), blocks, config())]
    before = [0, *(line["step"] for line in log)]
    for start, line in zip(before, log, strict=False):
        some = losses[start : line["step"]]
        assert line["loss"] == pytest.approx(sum(some) / len(some))


def test_a_finished_run_stays_as_it_is(blocks, tmp_path):
    model = tiny_gpt()
    log = run(model, blocks, tmp_path)
    other = tiny_gpt()
    assert run(other, blocks, tmp_path, stop_at=1) == log
    assert torch.equal(weights(other), weights(model))


def test_without_save_steps_it_measures_at_the_end_only(blocks, tmp_path):
    (line,) = run(tiny_gpt(), blocks, tmp_path, save_steps=0)
    assert line["step"] == 3 * -(-len(blocks) // 3)


def test_another_run_is_not_gone_on_with(blocks, tmp_path):
    with pytest.raises(PowerCutError):
        run(tiny_gpt(), blocks, tmp_path, stop_at=2)
    assert message(run, tiny_gpt(), blocks, tmp_path, batch_size=2) == (
        "The checkpoint is of another run: batch_size is 2 now, and was 3."
    )


def test_a_finished_model_is_saved_at_half_size(blocks, tmp_path):
    model = tiny_gpt()
    log = run(model, blocks, tmp_path, save_steps=0)
    exact = weights(model)
    words = Tokenizer(models.WordLevel({"hen": 0, "?": 1}, unk_token="?"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    save_half(tmp_path / "model", model, tokenizer, log)
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path / "model")
    assert loaded.dtype == torch.float32
    assert torch.equal(weights(loaded), exact.half().float())
    assert json.loads((tmp_path / "model" / "log.json").read_text()) == log
    assert AutoTokenizer.from_pretrained(tmp_path / "model").tokenize("hen") == ["hen"]
