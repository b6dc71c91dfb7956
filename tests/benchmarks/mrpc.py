"""ftkit's command line against Hugging Face Trainer on MRPC: same checkpoint, settings and seeds.

Run ``python -m tests.benchmarks.mrpc MRPC_FOLDER``; it prints one line a run and the means.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from transformers import DataCollatorWithPadding, EvalPrediction, Trainer, TrainingArguments

import ftkit
from ftkit.cli.main import main as run_ftkit
from ftkit.devices import best_device, supports_bf16
from ftkit.evaluation.reports import make_report

SETTINGS = {"learning_rate": 5e-5, "num_train_epochs": 3}
BATCH_SIZE = 32


def with_ftkit(folder: Path, seed: int) -> dict[str, float]:
    """Train and score with ``ftkit train`` and ``ftkit evaluate``."""
    with tempfile.TemporaryDirectory() as output:
        model, scores = f"{output}/model", Path(output) / "scores.json"
        options = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
        arguments = ["--checkpoint", "minilm", "--data", str(folder), "--output", model]
        sizes = [f"--batch-size={BATCH_SIZE}", f"--seed={seed}"]
        assert run_ftkit(["train", *arguments, *options, *sizes]) == 0
        scored = ["--data", str(folder), "--split", "test", "--json", str(scores)]
        assert run_ftkit(["evaluate", model, *scored]) == 0
        return json.loads(scores.read_text(encoding="utf-8"))


def with_trainer(folder: Path, seed: int) -> dict[str, float]:
    """Train with Trainer, the best of its epochs kept as ftkit does, and score the same way."""
    splits = ftkit.load_splits(folder)
    task = ftkit.SequenceClassification.infer(splits)
    tokenizer, model = ftkit.load_pretrained("minilm", task, seed=seed)
    encoded = task.encode(splits, tokenizer)

    def accuracy(prediction: EvalPrediction) -> dict[str, float]:
        return {
            "accuracy": float(np.mean(prediction.predictions.argmax(-1) == prediction.label_ids))
        }

    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=64,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            use_cpu=best_device().type == "cpu",
            bf16=supports_bf16(best_device()),
            seed=seed,
            report_to="none",
            disable_tqdm=True,
            **SETTINGS,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=encoded["train"],
            eval_dataset=encoded["validation"],
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=accuracy,
        )
        trainer.train()
        logits = trainer.predict(encoded["test"]).predictions
    return make_report(task, logits, np.array(encoded["test"]["labels"]), n_resamples=0).metrics


def main() -> None:
    """Alternate both over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    rivals = {"ftkit": with_ftkit, "Trainer": with_trainer}
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for seed in args.seeds:
        for name, run in rivals.items():
            metrics = run(args.folder, seed)
            scores[name].append((metrics["accuracy"], metrics["f1"]))
            print(
                f"seed {seed}  {name:<8} accuracy {metrics['accuracy']:.4f}  F1 {metrics['f1']:.4f}"
            )
    for name, pairs in scores.items():
        accuracy, f1 = np.mean(pairs, axis=0)
        print(f"mean    {name:<8} accuracy {accuracy:.4f}  F1 {f1:.4f}")


if __name__ == "__main__":
    main()
