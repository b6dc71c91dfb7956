"""ftkit's command line against a script with Hugging Face Trainer on WNUT-17, emerging entities.

Run ``python -m tests.benchmarks.wnut17 WNUT17_FOLDER``; it prints one line a run and the means.
The script aligns labels on its own, as the documentation of transformers does it.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    set_seed,
)

from ftkit.cli.main import main as run_ftkit
from ftkit.data.annotated import parse_conll
from ftkit.devices import best_device, supports_bf16
from ftkit.metrics.entities import entity_scores
from ftkit.models.loading import locate

FILES = {
    "train": "wnut17train.conll",
    "validation": "emerging.dev.conll",
    "test": "emerging.test.annotated",
}
SETTINGS = {
    "learning_rate": 2e-4,
    "num_train_epochs": 3,
    "warmup_steps": 0.1,
    "batch_size": 32,
}


def read(folder: Path, limits: dict[str, int] | None = None) -> DatasetDict:
    """Return the splits as they were published, or the first sentences of each."""
    splits = {}
    for name, file in FILES.items():
        rows = parse_conll((folder / file).read_text(encoding="utf-8"), file)
        rows = rows[: (limits or {}).get(name)]
        splits[name] = Dataset.from_list([{k: row[k] for k in ("tokens", "tags")} for row in rows])
    return DatasetDict(splits)


def write(splits: DatasetDict, folder: Path) -> None:
    """Write the splits as `load_splits` wants them."""
    for name, split in splits.items():
        sentences = (zip(row["tokens"], row["tags"], strict=True) for row in split)
        blocks = ("".join(f"{word}\t{tag}\n" for word, tag in pairs) for pairs in sentences)
        (folder / f"{name}.conll").write_text("\n".join(blocks), encoding="utf-8")


def with_ftkit(splits: DatasetDict, seed: int, settings: dict[str, Any]) -> float:
    """Return the test F1 of ``ftkit train`` and ``ftkit evaluate``."""
    with tempfile.TemporaryDirectory() as folder:
        write(splits, Path(folder))
        model, scores = f"{folder}/model", Path(folder) / "scores.json"
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        arguments = ["--checkpoint=minilm", f"--data={folder}", f"--output={model}"]
        assert run_ftkit(["train", *arguments, f"--seed={seed}", *options]) == 0
        assert run_ftkit(["evaluate", model, f"--data={folder}", f"--json={scores}"]) == 0
        return json.loads(scores.read_text(encoding="utf-8"))["f1"]


def align(splits: DatasetDict, tokenizer: Any, labels: list[str]) -> DatasetDict:
    """Tokenise, and label the first token of each word, by the tokenizer's `word_ids`."""

    def one(row: dict[str, Any]) -> dict[str, Any]:
        encoded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True)
        row_labels, before = [], None
        for word in encoded.word_ids():
            new = word is not None and word != before
            row_labels.append(labels.index(row["tags"][word]) if new else -100)
            before = word
        return {**encoded, "labels": row_labels}

    return splits.map(one, remove_columns=["tokens", "tags"])


def read_tags(prediction: Any, labels: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the predicted and the true tags of the labelled tokens, row by row."""
    found, true = [], []
    for best, ids in zip(prediction.predictions.argmax(-1), prediction.label_ids, strict=True):
        chosen = ids != -100
        found.append([labels[i] for i in best[chosen]])
        true.append([labels[i] for i in ids[chosen]])
    return found, true


def with_trainer(splits: DatasetDict, seed: int, settings: dict[str, Any]) -> float:
    """Return the test F1 of Trainer, the best of its epochs kept as ftkit does."""
    labels = ["O", *sorted({t for tags in splits["train"]["tags"] for t in tags} - {"O"})]
    tokenizer = AutoTokenizer.from_pretrained(locate("minilm"))
    set_seed(seed)
    model = AutoModelForTokenClassification.from_pretrained(
        locate("minilm"), num_labels=len(labels), dtype="float32"
    )
    encoded = align(splits, tokenizer, labels)

    def f1(prediction: EvalPrediction) -> dict[str, float]:
        return {"f1": entity_scores(*read_tags(prediction, labels))["all"]["f1"]}

    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=settings["batch_size"],
            per_device_eval_batch_size=64,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="f1",
            use_cpu=best_device().type == "cpu",
            bf16=supports_bf16(best_device()),
            seed=seed,
            report_to="none",
            disable_tqdm=True,
            **{name: value for name, value in settings.items() if name != "batch_size"},
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=encoded["train"],
            eval_dataset=encoded["validation"],
            data_collator=DataCollatorForTokenClassification(tokenizer),
            compute_metrics=f1,
        )
        trainer.train()
        found, _ = read_tags(trainer.predict(encoded["test"]), labels)
    test = splits["test"]
    return entity_scores(_whole(found, test, tokenizer), test["tags"])["all"]["f1"]


def _whole(found: list[list[str]], split: Dataset, tokenizer: Any) -> list[list[str]]:
    """Put O where a word has no token, so that every word of the file is scored."""
    rows = []
    for tags, words in zip(found, split["tokens"], strict=True):
        encoded = tokenizer(words, is_split_into_words=True, truncation=True)
        seen = sorted({word for word in encoded.word_ids() if word is not None})
        row = np.full(len(words), "O", dtype=object)
        row[seen] = tags
        rows.append(row.tolist())
    return rows


def main() -> None:
    """Alternate both over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-rows", type=int, help="fewer sentences, for a first look")
    args = parser.parse_args()
    splits = read(args.folder, {"train": args.train_rows} if args.train_rows else None)
    rivals = {"ftkit": with_ftkit, "Trainer": with_trainer}
    scores: dict[str, list[float]] = {name: [] for name in rivals}
    for seed in args.seeds:
        for name, run in rivals.items():
            scores[name].append(run(splits, seed, SETTINGS))
            print(f"seed {seed}  {name:<8} entity F1 {scores[name][-1]:.4f}", flush=True)
    for name, values in scores.items():
        print(f"mean    {name:<8} entity F1 {np.mean(values):.4f}")


if __name__ == "__main__":
    main()
