"""What tiny-stories-gpt forgets of its pretraining text while it learns fables.

Run ``python -m tests.benchmarks.forgetting CORPORA``, where CORPORA holds the folder `tinystories`
that ``data/models/tiny-stories-gpt/build.py`` reads; three seeds take about four minutes. It writes
``data/results/forgetting.json``: for each seed the change of the loss on the 80 held-out stories,
which were never trained on, and on the openings of these stories. The stories themselves are not
part of the repository.
"""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset, DatasetDict

import ftkit
from ftkit.evaluation.reports import bootstrap_weights, percentile_interval
from ftkit.paths import bundled

RECIPE = bundled("models/tiny-stories-gpt/build.py")
RESULTS = RECIPE.parents[2] / "results" / "forgetting.json"
GENTLE = {"learning_rate": 3e-4, "num_train_epochs": 3, "batch_size": 8, "warmup_steps": 0.1}
HARSH = {"learning_rate": 3e-3, "num_train_epochs": 1, "batch_size": 4}
OPENING = 60  # words: about as long as the stories of the notebook's own probe
RUNS = {  # name: settings, number of fables; those of notebook 10
    "fine-tuned": ({**GENTLE, "weight_decay": 0.1}, 200),
    "rate ten times as high": (HARSH, 64),
}


def read_held_out(folder: Path) -> list[str]:
    """Return the stories that the recipe holds out."""
    spec = importlib.util.spec_from_file_location("build", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return build.read_tinystories(folder)[1]


def count_nats(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Return nats and tokens of each text, (n_texts, 2)."""
    plain = ftkit.CausalLM(("text",))
    split = DatasetDict({"test": Dataset.from_dict({"text": texts})})
    encoded = plain.encode(split, tokenizer)["test"]
    return ftkit.evaluate(model, encoded, plain, n_resamples=0).outputs[:, :2]


def compare(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Return the loss before, its change, and the change's interval, in nats a token."""
    change, tokens = after[:, 0] - before[:, 0], before[:, 1]
    weights = bootstrap_weights(len(tokens), 2000)
    return {
        "loss before": float(before[:, 0].sum() / tokens.sum()),
        "change": float(change.sum() / tokens.sum()),
        "interval": list(percentile_interval(weights @ change / (weights @ tokens))),
    }


def measure(corpora: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Fine-tune once in each way, and compare with the pretrained model story by story."""
    task = ftkit.CausalLM(("story", "moral"), prompt_columns=("title",))
    tokenizer, pretrained = ftkit.load_pretrained("tiny-stories-gpt", task)
    encoded = task.encode(ftkit.load_splits("stories"), tokenizer)
    stories = read_held_out(corpora / "tinystories")
    openings = [" ".join(story.split()[:OPENING]) for story in stories]  # one line each
    texts = {"stories": stories, "openings": openings}
    before = {what: count_nats(pretrained, tokenizer, some) for what, some in texts.items()}
    found = {}
    for name, (settings, n_fables) in RUNS.items():
        _, model = ftkit.load_pretrained("tiny-stories-gpt", task)
        some = DatasetDict({**encoded, "train": encoded["train"].select(range(n_fables))})
        ftkit.train(model, some, task, ftkit.TrainingConfig(seed=seed, **settings))
        found[name] = {
            what: compare(before[what], count_nats(model, tokenizer, some))
            for what, some in texts.items()
        }
    return found


def main() -> None:
    """Measure each seed and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    runs = []
    for seed in args.seeds:
        runs.append({"seed": seed, **measure(args.corpora, seed)})
        print(runs[-1], flush=True)
    about = {
        "what": "nats a token on 80 held-out TinyStories, after minus before; 95 % over stories",
        "openings": f"their first {OPENING} words, joined to one line",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    RESULTS.write_text(json.dumps({"about": about, "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
