"""The study behind notebook 08: eight ways to learn `paraphrase`, ten seeds each.

Run ``python -m tests.benchmarks.tuning_methods``. Methods alternate within a seed, each run has a
process of its own, and every finished run is kept, so that a stopped study goes on where it was.
Time is CPU time, which other programs on the machine do not lengthen.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm

import ftkit
from ftkit.devices import best_device, supports_bf16
from ftkit.evaluation.reports import make_report
from ftkit.paths import bundled
from tests.benchmarks.baselines import tfidf_margins

RESULTS = bundled("results/tuning_methods.json")
CHECKPOINT, DATA = "minilm", "paraphrase"
TASK = ftkit.SequenceClassification(("sentence1", "sentence2"), ("different", "paraphrase"))
SHARED = {"num_train_epochs": 3, "batch_size": 32, "warmup_steps": 0.1}
# One learning rate a method, chosen among a few on the validation split with one seed.
SETTINGS: dict[str, dict[str, Any]] = {
    "tf-idf": {},
    "random weights": {"tune": "full", "learning_rate": 2e-4},
    "head": {"tune": "head", "learning_rate": 1e-2},
    "bias": {"tune": "bias", "learning_rate": 3e-3},
    "top-2": {"tune": "top:2", "learning_rate": 1e-3},
    "lora": {"tune": "lora", "learning_rate": 1e-3},
    "hybrid": {
        "tune": "full",
        "learning_rate": 3e-4,
        "head_learning_rate": 1e-3,
        "layer_decay": 0.8,
        "unfreeze": ((0.0, "head"), (0.05, "top:2"), (0.15, "full")),
    },
    "full": {"tune": "full", "learning_rate": 2e-4},
}


def run_method(name: str, seed: int, threads: int) -> dict[str, Any]:
    """Train one method with one seed in this process and return what is recorded of it."""
    torch.set_num_threads(threads)
    splits = ftkit.load_splits(DATA)
    start = time.process_time()
    if name == "tf-idf":
        margins, trainable = tfidf_margins(splits, TASK.text_columns, "label", "paraphrase"), 0
        seconds = time.process_time() - start
    else:
        margins, trainable, seconds = _fine_tune(name, seed, splits)
    labels = np.array([TASK.label_id(label) for label in splits["test"]["label"]])
    logits = np.stack([np.zeros_like(margins), margins], axis=1)
    metrics = make_report(TASK, logits, labels, n_resamples=0).metrics
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seed": seed,
        **{key: round(metrics[key], 4) for key in ("accuracy", "f1")},
        "trainable_parameters": trainable,
        "seconds": round(seconds, 1),
        "peak_memory_mib": round(peak),
        "margins": [round(float(value), 3) for value in margins],
    }


def _fine_tune(name: str, seed: int, splits: Any) -> tuple[np.ndarray, int, float]:
    settings = {**SHARED, **SETTINGS[name]}
    tune = settings.pop("tune")
    pretrained = name != "random weights"
    tokenizer, model = ftkit.load_pretrained(CHECKPOINT, TASK, pretrained=pretrained, seed=seed)
    encoded = TASK.encode(splits, tokenizer)
    if tune == "lora":
        model = ftkit.add_lora(model)
    else:
        ftkit.set_trainable(model, tune)
    trainable, _ = ftkit.count_parameters(model)
    start = time.process_time()
    ftkit.train(model, encoded, TASK, ftkit.TrainingConfig(seed=seed, **settings))
    seconds = time.process_time() - start
    logits = ftkit.predict(model, encoded["test"])
    return logits[:, 1] - logits[:, 0], trainable, seconds


def about(threads: int) -> dict[str, Any]:
    """Describe the machine, so that seconds can be read for what they are."""
    device = best_device()
    return {
        "date": date.today().isoformat(),
        "data": DATA,
        "checkpoint": CHECKPOINT,
        "device": device.type,
        "precision": "bfloat16" if supports_bf16(device) else "float32",
        "threads": threads,
        "seconds": "CPU seconds of training and validation, all threads together",
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {
            "ftkit": ftkit.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def main() -> None:
    """Run what the results file lacks; write it after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    results = {"about": about(args.threads), "shared": SHARED, "labels": [], "methods": {}}
    if RESULTS.is_file():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    splits = ftkit.load_splits(DATA)
    results["labels"] = [TASK.label_id(label) for label in splits["test"]["label"]]
    for name, settings in SETTINGS.items():
        results["methods"].setdefault(name, {"settings": settings, "runs": []})
    done = {(n, run["seed"]) for n, m in results["methods"].items() for run in m["runs"]}
    todo = [(n, s) for s in range(args.seeds) for n in SETTINGS if (n, s) not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for name, seed in tqdm(todo):
            run = pool.submit(run_method, name, seed, args.threads).result()
            results["methods"][name]["runs"].append(run)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
