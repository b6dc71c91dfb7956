"""ftkit against Hugging Face Trainer on real questions: same checkpoint, windows and settings.

Run ``python -m tests.benchmarks.squad FOLDER``; it prints one line a run and the means. Both begin
with the same weights, head included; with few questions let ``--checkpoint`` be a folder that was
trained on ``cloze``, because a new head learns nothing from a thousand. The reference decodes and
scores on its own: the 20 best starts and ends of each window, and the published definition of
exact match and F1.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

import ftkit
from ftkit.data.batches import MODEL_COLUMNS, SPAN_COLUMNS
from ftkit.data.files import read_table
from ftkit.devices import best_device, supports_bf16
from tests.metrics.test_squad import published_f1, published_normalize

TASK = ftkit.QuestionAnswering(max_length=256, stride=64)
SETTINGS: dict[str, Any] = {"learning_rate": 2e-4, "num_train_epochs": 2, "warmup_steps": 0.1}
BATCH_SIZE = 16
N_BEST, LONGEST = 20, 30
N_TEST_ARTICLES = 4  # the last ones in the alphabet; the other 13 train

Scores = dict[str, float]


def split_articles(folder: Path, limit: int | None = None) -> DatasetDict:
    """Return train and test without a common article, each cut to `limit` questions, evenly."""
    (path,) = folder.glob("*.json")
    table = read_table(path)
    questions = table if isinstance(table, Dataset) else Dataset.from_list(list(table))
    test = sorted(set(questions["title"]))[-N_TEST_ARTICLES:]
    splits = {
        "train": [i for i, title in enumerate(questions["title"]) if title not in test],
        "test": [i for i, title in enumerate(questions["title"]) if title in test],
    }
    return DatasetDict(
        {name: questions.select(_evenly(rows, limit)) for name, rows in splits.items()}
    )


def _evenly(rows: list[int], limit: int | None) -> list[int]:
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i * len(rows) // limit] for i in range(limit)]


def with_ftkit(encoded: DatasetDict, tokenizer: Any, model: Any, seed: int) -> Scores:
    """Train and score with ftkit."""
    config = ftkit.TrainingConfig(batch_size=BATCH_SIZE, seed=seed, **SETTINGS)
    ftkit.train(model, encoded, TASK, config)
    return ftkit.evaluate(model, encoded["test"], TASK, n_resamples=0).metrics


def with_trainer(encoded: DatasetDict, tokenizer: Any, model: Any, seed: int) -> Scores:
    """Train with Trainer, decode the usual way, and score by the published definition."""
    names = [n for n in (*MODEL_COLUMNS, *SPAN_COLUMNS) if n in encoded["train"].column_names]
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=64,
            save_strategy="no",
            use_cpu=best_device().type == "cpu",
            bf16=supports_bf16(best_device()),
            seed=seed,
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            **SETTINGS,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=encoded["train"].select_columns(names),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.train()
        found: Any = trainer.predict(encoded["test"].select_columns(names)).predictions
    return score(list(read_answers(encoded["test"], *found)))


def read_answers(
    windows: Dataset, start_logits: np.ndarray, end_logits: np.ndarray
) -> Iterator[tuple[str, list[str]]]:
    """Yield the best answer of each question, and the right ones."""
    best: dict[int, tuple[float, str, list[str]]] = {}
    for row, starts, ends in zip(windows, start_logits, end_logits, strict=True):
        index, offsets = row["question_index"], row["offsets"]
        best.setdefault(index, (-np.inf, "", row["answers"]))
        for s in np.argsort(starts)[: -N_BEST - 1 : -1]:
            for e in np.argsort(ends)[: -N_BEST - 1 : -1]:
                if max(s, e) >= len(offsets) or e < s or e - s + 1 > LONGEST:
                    continue
                if offsets[s] == [0, 0] or offsets[e] == [0, 0]:
                    continue
                total = float(starts[s] + ends[e])
                if total > best[index][0]:
                    text = row["context"][offsets[s][0] : offsets[e][1]]
                    best[index] = (total, text, row["answers"])
    for _, text, answers in best.values():
        yield text, answers


def score(pairs: list[tuple[str, list[str]]]) -> Scores:
    """Return exact match and F1, the best over each question's answers."""
    exact = [any(published_normalize(p) == published_normalize(a) for a in an) for p, an in pairs]
    f1 = [max(published_f1(prediction, answer) for answer in an) for prediction, an in pairs]
    return {"exact_match": float(np.mean(exact)), "f1": float(np.mean(f1))}


def main() -> None:
    """Alternate both over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--checkpoint", default="minilm", help="bundled name, folder or hub id")
    parser.add_argument("--limit", type=int, help="questions of each split, evenly; default: all")
    args = parser.parse_args()
    splits = split_articles(args.folder, args.limit)
    rivals = {"ftkit": with_ftkit, "Trainer": with_trainer}
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for seed in args.seeds:
        for name, run in rivals.items():
            tokenizer, model = ftkit.load_pretrained(args.checkpoint, TASK, seed=seed)
            encoded = TASK.encode(splits, tokenizer)
            metrics = run(encoded, tokenizer, model, seed)
            scores[name].append((100 * metrics["exact_match"], 100 * metrics["f1"]))
            exact, f1 = scores[name][-1]
            print(f"seed {seed}  {name:<8} exact match {exact:.2f}  F1 {f1:.2f}", flush=True)
    for name, pairs in scores.items():
        exact, f1 = np.mean(pairs, axis=0)
        print(f"mean    {name:<8} exact match {exact:.2f}  F1 {f1:.2f}")


if __name__ == "__main__":
    main()
