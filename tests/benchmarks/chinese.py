"""The study behind notebook 13: what each stage of Chinese pretraining is worth on `reviews_zh`.

Run ``python -m tests.benchmarks.chinese FOLDER…`` with the snapshots that
``data/models/tiny-bert-zh/build.py`` left, in their order, and the finished model last. The same
network with random weights comes first. Every finished run is kept, so that a stopped study goes
on where it was. ``--search`` tries settings on validation with the last folder and with random
weights, and records what it saw; ``--chnsenticorp FOLDER`` runs both on public reviews, whose
leaked rows are removed, and prints.
"""

import argparse
import json
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import ftkit
from ftkit.evaluation.reports import Report, make_report
from ftkit.paths import bundled
from tests.benchmarks.baselines import majority_accuracy
from tests.benchmarks.tuning_methods import about

RESULTS = bundled("results/chinese.json")
DATA, RANDOM = "reviews_zh", "random weights"
TASK = ftkit.SequenceClassification(("text",), ("negative", "positive"))
TOKENS_A_STEP = 24 * 64
# The best of `--search` on validation, for either start.
SETTINGS: dict[str, dict[str, Any]] = {
    RANDOM: {"learning_rate": 2e-4, "num_train_epochs": 5, "batch_size": 16},
    "pretrained": {"learning_rate": 5e-4, "num_train_epochs": 5, "batch_size": 16},
}
GRID: dict[str, tuple[Any, ...]] = {
    "learning_rate": (2e-4, 5e-4, 1e-3),
    "num_train_epochs": (5,),
    "batch_size": (16,),
}


def fine_tune(
    folder: Path,
    splits: DatasetDict,
    task: ftkit.SequenceClassification,
    settings: dict[str, Any],
    *,
    seed: int,
    pretrained: bool = True,
) -> tuple[Report | None, ftkit.History]:
    """Train all weights; return the report on test, where there is one, and the history."""
    tokenizer, model = ftkit.load_pretrained(folder, task, pretrained=pretrained, seed=seed)
    encoded = task.encode(splits, tokenizer, max_length=128)
    config = ftkit.TrainingConfig(seed=seed, warmup_steps=0.1, **settings)
    history = ftkit.train(model, encoded, task, config)
    report = None
    if "test" in encoded:
        report = ftkit.evaluate(model, encoded["test"], task, n_resamples=0)
    return report, history


def one_run(folder: Path, seed: int, *, pretrained: bool) -> dict[str, Any]:
    """Fine-tune on the bundled reviews and return what is recorded."""
    settings = SETTINGS["pretrained" if pretrained else RANDOM]
    splits = ftkit.load_splits(DATA)
    report, history = fine_tune(folder, splits, TASK, settings, seed=seed, pretrained=pretrained)
    assert report is not None
    return {"seed": seed, **scores(report), "best_epoch": history.best_epoch}


def scores(report: Report) -> dict[str, Any]:
    """Return accuracy, F1, and which rows are right as a string of 0 and 1."""
    numbers = {name: round(report.metrics[name], 4) for name in ("accuracy", "f1")}
    return {**numbers, "right": "".join(str(int(value)) for value in report.is_correct)}


def baseline(splits: DatasetDict, task: ftkit.SequenceClassification) -> dict[str, Any]:
    """Score TF-IDF on 1 to 3 characters with a logistic regression."""
    (column,) = task.text_columns
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3))
    classifier = make_pipeline(vectorizer, LogisticRegression(max_iter=2000))
    labels = {name: [task.label_id(v) for v in split["label"]] for name, split in splits.items()}
    classifier.fit(list(splits["train"][column]), labels["train"])
    margins = classifier.decision_function(list(splits["test"][column]))
    logits = np.stack([np.zeros_like(margins), margins], axis=1)
    return scores(make_report(task, logits, np.array(labels["test"]), n_resamples=0))


def count_words(splits: DatasetDict, task: ftkit.SequenceClassification) -> dict[str, Any]:
    """Count the words of praise, less those of blame; a tie is negative."""
    words = json.loads(bundled("reviews_zh/words.json").read_text(encoding="utf-8"))
    praise, blame = (re.compile("|".join(words[mood])) for mood in ("praise", "blame"))
    texts = splits["test"][task.text_columns[0]]
    margins = np.array([len(praise.findall(t)) - len(blame.findall(t)) for t in texts], float)
    labels = np.array([task.label_id(value) for value in splits["test"]["label"]])
    logits = np.stack([np.zeros_like(margins), margins], axis=1)
    return scores(make_report(task, logits, labels, n_resamples=0))


def start_of(folder: Path | None, tokens_a_step: int) -> dict[str, Any]:
    """Describe a start: its name, step and tokens, and what its pretraining's log says of it."""
    if folder is None:
        return {"name": RANDOM, "step": 0, "tokens": 0, "runs": []}
    log = folder.parent / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    line = lines[-1]
    if folder.name != "model":
        line = lines[int(folder.name.removeprefix("snapshot-")) - 1]
    tokens = line["step"] * tokens_a_step
    return {"name": folder.name, "step": line["step"], "tokens": tokens, "log": line, "runs": []}


def study(folders: list[Path], seeds: Iterable[int], tokens_a_step: int) -> None:
    """Run what the results file lacks; write it after each run."""
    results = _begin()
    known = {start["name"]: start for start in results["starts"]}
    for folder in (None, *folders):
        start = start_of(folder, tokens_a_step)
        start = known.setdefault(start["name"], start)
        if start not in results["starts"]:
            results["starts"].append(start)
        done = {run["seed"] for run in start["runs"]}
        for seed in (seed for seed in seeds if seed not in done):
            run = one_run(folder or folders[-1], seed, pretrained=folder is not None)
            start["runs"].append(run)
            print(start["name"], {k: v for k, v in run.items() if k != "right"}, flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _begin() -> dict[str, Any]:
    if RESULTS.is_file():
        return json.loads(RESULTS.read_text(encoding="utf-8"))
    splits = ftkit.load_splits(DATA)
    machine = {**about(torch.get_num_threads()), "data": DATA, "checkpoint": "tiny-bert-zh"}
    machine.pop("seconds")
    majority = majority_accuracy(splits["train"], splits["test"])
    baselines = {
        "majority": {"accuracy": round(majority, 4)},
        "words": count_words(splits, TASK),
        "tf-idf": baseline(splits, TASK),
    }
    empty: dict[str, Any] = {"search": [], "starts": []}
    return {"about": machine, "settings": SETTINGS, "baselines": baselines, **empty}


def search(folder: Path, seeds: list[int], *, pretrained: bool) -> None:
    """Record the best epoch's validation accuracy for each setting of the grid."""
    results, name = _begin(), "pretrained" if pretrained else RANDOM
    splits = ftkit.load_splits(DATA)
    splits.pop("test")  # nothing is chosen on it
    for values in product(*GRID.values()):
        settings = dict(zip(GRID, values, strict=True))
        entry = {"start": name, "settings": settings, "validation": [], "loss": []}
        for seed in seeds:
            _, history = fine_tune(folder, splits, TASK, settings, seed=seed, pretrained=pretrained)
            epochs = history.evaluations
            entry["validation"].append(round(max(epoch["accuracy"] for epoch in epochs), 4))
            entry["loss"].append(round(min(epoch["loss"] for epoch in epochs), 4))
        print(entry, flush=True)
        others = [e for e in results["search"] if (e["start"], e["settings"]) != (name, settings)]
        results["search"] = [*others, entry]
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def public_reviews(source: Path, folder: Path, seeds: list[int], rows: int) -> None:
    """Fine-tune on some rows of ChnSentiCorp, without its leaks, and print."""
    splits = ftkit.load_splits(source)
    sizes = {name: len(split) for name, split in splits.items()}
    for pair, leaked in ftkit.find_leaks(splits, ["text_a"]).items():
        print(f"{len(leaked)} of {sizes[pair[1]]} rows of {pair[1]} stand in {pair[0]}")
    splits = ftkit.remove_leaks(splits, ["text_a"])
    print(sizes, "without leaks:", {name: len(split) for name, split in splits.items()})
    task = ftkit.SequenceClassification(("text_a",), ("0", "1"))
    print(f"words alone: {count_words(splits, task)['accuracy']}")
    found: dict[str, list[float]] = {"tf-idf": [], RANDOM: [], "pretrained": []}
    for seed in seeds:
        drawn = np.random.default_rng(seed).permutation(len(splits["train"]))
        some = DatasetDict(
            train=splits["train"].select(drawn[:rows]),
            validation=splits["validation"].select(range(min(300, len(splits["validation"])))),
            test=splits["test"],
        )
        found["tf-idf"].append(baseline(some, task)["accuracy"])
        for name in (RANDOM, "pretrained"):
            report, _ = fine_tune(
                folder, some, task, SETTINGS[name], seed=seed, pretrained=name != RANDOM
            )
            assert report is not None
            found[name].append(round(report.metrics["accuracy"], 4))
        print(f"seed {seed}", {name: values[-1] for name, values in found.items()}, flush=True)
    for name, values in found.items():
        print(f"{name}: mean test accuracy {np.mean(values):.4f} of {values}")


def main() -> None:
    """Run the study, the search or the public reviews."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens-a-step", type=int, default=TOKENS_A_STEP)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--chnsenticorp", type=Path)
    parser.add_argument("--rows", type=int, default=600)
    args = parser.parse_args()
    seeds = list(range(args.seeds))
    if args.search:
        for pretrained in (False, True):
            search(args.folders[-1], seeds, pretrained=pretrained)
    elif args.chnsenticorp:
        public_reviews(args.chnsenticorp, args.folders[-1], seeds, args.rows)
    else:
        study(args.folders, seeds, args.tokens_a_step)


if __name__ == "__main__":
    main()
