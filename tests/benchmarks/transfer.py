"""The study behind notebook 05: what pretraining is worth, by number of training pairs.

Run ``python -m tests.benchmarks.transfer``. Four ways to learn `paraphrase` from some of its
training pairs, three seeds each; a seed decides which pairs, too. Every finished run is kept, so
that a stopped study goes on where it was. Nothing is chosen, so no validation split is used.
"""

import argparse
import json
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

import ftkit
from ftkit.evaluation.reports import make_report
from ftkit.paths import bundled
from tests.benchmarks.baselines import tfidf_margins
from tests.benchmarks.tuning_methods import CHECKPOINT, DATA, TASK, about

RESULTS = bundled("results/transfer.json")
SIZES = (75, 150, 300, 600, 1199)
METHODS = ("tf-idf", "random weights", "frozen", "full")
SETTINGS: dict[str, Any] = {"learning_rate": 2e-4, "batch_size": 32, "warmup_steps": 0.1}
LEAST_EPOCHS, LEAST_UPDATES = 3, 60  # few pairs need more epochs to be learnt at all


def run_method(name: str, size: int, seed: int) -> float:
    """Learn from `size` training pairs and return the accuracy on all test pairs."""
    splits = ftkit.load_splits(DATA)
    rows = np.random.default_rng(seed).permutation(len(splits["train"]))[:size]
    splits["train"] = splits["train"].select(rows)
    labels = np.array([TASK.label_id(label) for label in splits["test"]["label"]])
    if name == "tf-idf":
        margins = tfidf_margins(splits, TASK.text_columns, "label", "paraphrase")
    elif name == "frozen":
        margins = _frozen(splits)
    else:
        margins = _fine_tune(splits, seed, pretrained=name == "full")
    logits = np.stack([np.zeros_like(margins), margins], axis=1)
    return make_report(TASK, logits, labels, n_resamples=0).metrics["accuracy"]


def _fine_tune(splits: DatasetDict, seed: int, *, pretrained: bool) -> np.ndarray:
    tokenizer, model = ftkit.load_pretrained(CHECKPOINT, TASK, pretrained=pretrained, seed=seed)
    encoded = TASK.encode(splits, tokenizer)
    updates_per_epoch = -(-len(splits["train"]) // SETTINGS["batch_size"])
    epochs = max(LEAST_EPOCHS, -(-LEAST_UPDATES // updates_per_epoch))
    config = ftkit.TrainingConfig(seed=seed, num_train_epochs=epochs, **SETTINGS)
    ftkit.train(model, DatasetDict(train=encoded["train"]), TASK, config)
    logits = ftkit.predict(model, encoded["test"])
    return logits[:, 1] - logits[:, 0]


def _frozen(splits: DatasetDict) -> np.ndarray:
    """Decision function of a logistic regression on two frozen sentence vectors."""
    tokenizer, model = ftkit.load_pretrained(CHECKPOINT, TASK)
    model.eval()

    def features(name: str) -> np.ndarray:
        one, other = (
            mean_vectors(model, tokenizer, list(splits[name][c])) for c in TASK.text_columns
        )
        cosine = (one * other).sum(axis=1, keepdims=True)
        return np.concatenate([abs(one - other), one * other, cosine], axis=1)

    labels = np.array(splits["train"]["label"]) == "paraphrase"
    classifier = LogisticRegression(max_iter=2000).fit(features("train"), labels)
    return classifier.decision_function(features("test"))


@torch.inference_mode()
def mean_vectors(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Return the mean of each text's last hidden states, scaled to length 1: (texts, hidden)."""
    vectors = []
    for start in range(0, len(texts), 64):
        batch = tokenizer(texts[start : start + 64], padding=True, return_tensors="pt")
        states = model.base_model(**batch).last_hidden_state  # (batch, seq_len, hidden_size)
        mask = batch["attention_mask"].unsqueeze(-1)
        vectors.append((states * mask).sum(1) / mask.sum(1))
    return torch.nn.functional.normalize(torch.cat(vectors)).numpy()


def main() -> None:
    """Run what the results file lacks; write it after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = {key: value for key, value in about(args.threads).items() if key != "seconds"}
    settings = {**SETTINGS, "least_epochs": LEAST_EPOCHS, "least_updates": LEAST_UPDATES}
    results: dict[str, Any] = {"about": machine, "settings": settings, "runs": []}
    if RESULTS.is_file():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    done = {(run["method"], run["size"], run["seed"]) for run in results["runs"]}
    todo = [(m, n, s) for s in range(args.seeds) for n in SIZES for m in METHODS]
    for method, size, seed in tqdm([key for key in todo if key not in done]):
        accuracy = round(run_method(method, size, seed), 4)
        results["runs"].append({"method": method, "size": size, "seed": seed, "accuracy": accuracy})
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
