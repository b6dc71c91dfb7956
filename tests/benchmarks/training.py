"""How fast ftkit trains beside Hugging Face Trainer and the plain loop, each in its own process.

Run ``python -m tests.benchmarks.training [--data FOLDER]`` with nothing else on the machine: it
alternates the rivals, prints a line a run, and records medians and ratios in
``data/results/training.json``. With ``--tune head --num-train-epochs 10`` it measures the reuse of
frozen layers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import DataCollatorWithPadding, PreTrainedModel, Trainer, TrainingArguments

import ftkit
from ftkit.data.batches import collate, epoch_order, row_lengths
from ftkit.devices import best_device, peak_memory_mib, supports_bf16
from ftkit.paths import bundled

RESULTS = bundled("results/training.json")
BATCH_SIZE = 32
SEED = 42


def load(args: argparse.Namespace, attention: str | None) -> tuple[Any, PreTrainedModel, Dataset]:
    """Return tokenizer, model and the first rows of the training split, encoded."""
    splits = ftkit.load_splits(args.data)
    task = ftkit.SequenceClassification.infer(splits)
    tokenizer, model = ftkit.load_pretrained("minilm", task)
    if attention:
        model.set_attn_implementation(attention)
    ftkit.set_trainable(model, args.tune)
    rows = splits["train"].select(range(min(args.rows, len(splits["train"]))))
    splits["train"] = rows
    return tokenizer, model, task.encode(splits, tokenizer)["train"]


def with_ftkit(args: argparse.Namespace) -> Callable[[], object]:
    """``TrainingRun`` with its defaults."""
    _, model, dataset = load(args, None)
    config = ftkit.TrainingConfig(num_train_epochs=args.num_train_epochs, seed=SEED)
    return lambda: list(ftkit.TrainingRun(model, dataset, config))


def with_trainer(args: argparse.Namespace, **options: Any) -> Callable[[], object]:
    """Trainer as its documentation shows it, or with the given options."""
    attention = "eager" if options and best_device().type == "cpu" else "sdpa"
    tokenizer, model, dataset = load(args, attention)
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            num_train_epochs=args.num_train_epochs,
            per_device_train_batch_size=BATCH_SIZE,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=best_device().type == "cpu",
            seed=SEED,
            **options,
        ),
        train_dataset=dataset,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    return trainer.train


def with_tuned_trainer(args: argparse.Namespace) -> Callable[[], object]:
    """Trainer with all that its options offer: bf16, rows of like length, the better attention."""
    bf16 = supports_bf16(best_device())
    return with_trainer(args, bf16=bf16, train_sampling_strategy="group_by_length")


def with_plain_loop(args: argparse.Namespace) -> Callable[[], object]:
    """The loop that notebook 06 begins with: float32, rows in random order."""
    tokenizer, model, dataset = load(args, "sdpa")
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=5e-5)
    device = best_device()

    def loop() -> None:
        model.to(device).train()
        for _ in range(args.num_train_epochs):
            for rows in torch.randperm(len(dataset)).split(BATCH_SIZE):
                batch = collate(dataset, rows.tolist(), tokenizer.pad_token_id)
                loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return loop


def matrix_products(args: argparse.Namespace) -> Callable[[], object]:
    """Nothing but the matrix products of full fine-tuning, in bf16, on ftkit's own batches."""
    _, model, dataset = load(args, None)
    device, lengths = best_device(), row_lengths(dataset)
    dtype = torch.bfloat16 if supports_bf16(device) else torch.float32
    shapes = [tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Linear)]
    weights = [torch.randn(shape, dtype=dtype, device=device) for shape in shapes]
    heads, size = model.config.num_attention_heads, model.config.hidden_size
    most = max(lengths) * BATCH_SIZE
    inputs = {n: torch.randn(most, n, dtype=dtype, device=device) for n in {s[1] for s in shapes}}
    queries = torch.randn(BATCH_SIZE * heads, max(lengths), size // heads, dtype=dtype)
    queries = queries.to(device)

    def multiply() -> None:
        for epoch in range(args.num_train_epochs):
            for rows in epoch_order(lengths, BATCH_SIZE, SEED, epoch):
                longest = max(lengths[row] for row in rows)
                _linear_layers(len(rows) * longest, len(rows), weights, inputs)
                split = queries[: len(rows) * heads, :longest].contiguous()
                _attention(split, model.config.num_hidden_layers)

    return multiply


def _linear_layers(
    tokens: int, rows: int, weights: list[torch.Tensor], inputs: dict[int, torch.Tensor]
) -> None:
    """Forward, gradient of the inputs and gradient of the weights; the pooler sees one token."""
    for i, weight in enumerate(weights):
        n = rows if i >= len(weights) - 2 else tokens  # pooler and classifier come last
        batch = inputs[weight.shape[1]][:n]
        outputs = batch @ weight.T
        outputs @ weight
        outputs.T @ batch


def _attention(queries: torch.Tensor, n_layers: int) -> None:
    """Two products forward and four backward in each layer."""
    for _ in range(n_layers):
        for _ in range(2):  # scores, and the gradient of the weights
            scores = queries @ queries.transpose(1, 2)
        for _ in range(3):  # context, and the gradients of queries and keys
            scores @ queries
        scores.transpose(1, 2) @ queries  # the gradient of the values


RIVALS = {
    "ftkit": with_ftkit,
    "Trainer, tuned": with_tuned_trainer,
    "Trainer, defaults": with_trainer,
    "plain loop, fp32": with_plain_loop,
    "matrix products alone": matrix_products,
}


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Run one rival here; return its seconds, examples a second and peak resident memory."""
    train = RIVALS[args.rival](args)
    start = time.perf_counter()
    train()
    if best_device().type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    examples = args.rows * args.num_train_epochs
    return {
        "seconds": seconds,
        "examples_per_second": examples / seconds,
        "peak_mib": peak_memory_mib(),
    }


def alternate(args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Run all rivals in turn, so many times over, each in a fresh process."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in args.rivals}
    for turn in range(args.alternations):
        for name in args.rivals:
            command = [sys.executable, "-m", "tests.benchmarks.training", *sys.argv[1:]]
            output = subprocess.run(
                [*command, "--rival", name], capture_output=True, text=True, check=True
            ).stdout
            runs[name].append(json.loads(output.splitlines()[-1]))
            print(f"{turn + 1}  {name:<24}{runs[name][-1]['examples_per_second']:7.1f} rows/s")
    return runs


def record(args: argparse.Namespace, runs: dict[str, list[dict[str, float]]]) -> None:
    """Add medians, and ftkit's ratio to each rival within the turns, to the recorded results."""
    medians = {
        name: {key: median(run[key] for run in turns) for key in turns[0]}
        for name, turns in runs.items()
    }
    speed = "examples_per_second"
    ratios = {
        name: median(a[speed] / b[speed] for a, b in zip(runs["ftkit"], turns, strict=True))
        for name, turns in runs.items()
        if name != "ftkit"
    }
    device = best_device()
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    settings = {"rows": args.rows, "epochs": args.num_train_epochs, "batch_size": BATCH_SIZE}
    entry = {
        **{"data": Path(args.data).name, "tune": args.tune, **settings},
        **{"device": machine, "threads": torch.get_num_threads(), "torch": torch.__version__},
        **{"medians": medians, "ratios": ratios, "runs": runs},
    }
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[f"{machine}, {args.tune}"] = entry
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, ratio in ratios.items():
        print(f"ftkit is {ratio:.2f} times as fast as {name}")


def main() -> None:
    """Measure one rival, or alternate all and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="paraphrase")
    parser.add_argument("--tune", default="full")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--num-train-epochs", type=int, default=3)
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--rival", choices=RIVALS, help="measure only this one, here")
    args = parser.parse_args()
    if args.rival:
        print(json.dumps(measure(args)))
    else:
        record(args, alternate(args))


if __name__ == "__main__":
    main()
