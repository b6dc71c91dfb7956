"""How close ``ftkit.estimate`` comes: estimate a run, train it, and print estimate / measured.

Run ``python -m tests.benchmarks.estimate [--tune WHAT]`` with nothing else on the machine.
"""

import argparse
import time

from datasets import DatasetDict

import ftkit
from ftkit.devices import peak_memory_mib


def main() -> None:
    """Print the estimate, what then happened, and the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="paraphrase")
    parser.add_argument("--tune", default="full")
    parser.add_argument("--rows", type=int, default=1199)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    splits = ftkit.load_splits(args.data)
    rows = range(min(args.rows, len(splits["train"])))
    splits = DatasetDict({**splits, "train": splits["train"].select(rows)})
    task = ftkit.SequenceClassification.infer(splits)
    tokenizer, model = ftkit.load_pretrained("minilm", task)
    ftkit.set_trainable(model, args.tune)
    encoded = task.encode(splits, tokenizer)
    config = ftkit.TrainingConfig(num_train_epochs=args.epochs)
    start = time.perf_counter()
    guess = ftkit.estimate(model, encoded, task, config)
    print(f"estimate in {time.perf_counter() - start:.0f} s: {guess}")
    start = time.perf_counter()
    ftkit.train(model, encoded, task, config)
    seconds = time.perf_counter() - start
    print(f"measured: {seconds / 60:.1f} minutes, {peak_memory_mib():,.0f} MiB")
    print(f"time: {guess.seconds / seconds:.2f}")
    print(f"memory: {guess.peak_memory_mib / peak_memory_mib():.2f}")


if __name__ == "__main__":
    main()
