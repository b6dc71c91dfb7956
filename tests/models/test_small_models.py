"""The course's own pretrained models: small, documented, and better than what they must beat."""

import json

import pytest
import torch
from safetensors import safe_open

import ftkit
from ftkit.models.loading import own_models
from ftkit.paths import bundled
from ftkit.plots import mean_interval
from ftkit.tasks import TASKS

MODELS = {"tiny-bert-zh": "masked-lm", "tiny-en-zh": "seq2seq", "tiny-stories-gpt": "causal-lm"}


def load(name: str):
    """Return tokenizer and model, for the task that it was pretrained on."""
    kind = TASKS[MODELS[name]]
    task = kind("a", "b") if name == "tiny-en-zh" else kind(("text",))
    return ftkit.load_pretrained(name, task)


def read_log(name: str) -> list[dict]:
    return json.loads((bundled("models") / name / "log.json").read_text(encoding="utf-8"))


def test_all_are_there():
    assert own_models() == sorted(MODELS)
    assert all(TASKS[task].default_checkpoint == name for name, task in MODELS.items())


@pytest.mark.parametrize("name", MODELS)
def test_small_with_a_card_and_a_recipe(name):
    folder = bundled("models") / name
    files = {path.name for path in folder.iterdir()} - {"__pycache__"}
    assert {"README.md", "build.py", "config.json", "log.json", "tokenizer.json"} <= files
    assert (folder / "model.safetensors").stat().st_size <= 20e6
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(key).dtype for key in weights.keys()} == {torch.float16}  # noqa: SIM118
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(
        f"**{part}" in card for part in ("Licence", "What it read", "How it was trained", "Limits")
    )
    assert "{" not in card


@pytest.mark.parametrize("name", MODELS)
def test_it_loads_in_float32(name):
    _, model = load(name)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_card_states_the_end_of_the_log(name):
    log, card = read_log(name), (bundled("models") / name / "README.md").read_text(encoding="utf-8")
    assert [line["step"] for line in log] == sorted(line["step"] for line in log)
    assert f"{log[-1]['step']:,} updates" in card
    last = {"tiny-stories-gpt": "bits_per_character", "tiny-bert-zh": "named", "tiny-en-zh": "chrf"}
    assert f"{log[-1][last[name]]:.2f}" in card


def test_the_story_model_reached_its_goal():
    assert read_log("tiny-stories-gpt")[-1]["bits_per_character"] <= 1.05


def test_the_chinese_model_is_worth_more_than_random_weights():
    results = json.loads(bundled("results/chinese.json").read_text(encoding="utf-8"))
    starts = {s["name"]: [run["accuracy"] for run in s["runs"]] for s in results["starts"]}
    assert len(starts["model"]) == len(starts["random weights"]) == 5
    assert mean_interval(starts["model"])[0] > mean_interval(starts["random weights"])[1]


def mean_loss(model, tokenizer, text: str) -> float:
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        return float(model(input_ids=ids, labels=ids).loss)


def test_the_story_model_prefers_words_in_their_order():
    tokenizer, model = load("tiny-stories-gpt")
    text = "One day, a little girl went to the park with her mom. She saw a big dog."
    words = text.split()
    torch.manual_seed(0)
    shuffled = [words[i] for i in torch.randperm(len(words))]
    loss, disordered = (mean_loss(model, tokenizer, t) for t in (text, " ".join(shuffled)))
    assert loss + 1 < disordered
