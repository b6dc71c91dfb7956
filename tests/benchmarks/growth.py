"""How time and memory grow with the rows: batches come straight from the memory-mapped columns.

Run ``python -m tests.benchmarks.growth``. It writes encoded rows to the disk, and trains a small
random BERT on them for one epoch, each size in its own process; one line a size.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from datasets import Dataset, DatasetDict, disable_progress_bars, load_from_disk
from transformers import BertConfig, BertForSequenceClassification

import ftkit
from ftkit.devices import peak_memory_mib

SIZES = (1_000, 10_000, 100_000)
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def write_rows(folder: Path, size: int) -> None:
    """Write rows of 8 to 64 random tokens."""
    rng = random.Random(0)
    ids = [[rng.randrange(5, 1000) for _ in range(rng.randint(8, 64))] for _ in range(size)]
    columns = {
        "input_ids": ids,
        "attention_mask": [[1] * len(row) for row in ids],
        "labels": [rng.randrange(2) for _ in ids],
    }
    DatasetDict(train=Dataset.from_dict(columns)).save_to_disk(folder)


def measure(folder: Path) -> dict[str, float]:
    """Train one epoch; return seconds to the end of the first step, a thousand rows, and MiB."""
    model = BertForSequenceClassification(
        BertConfig(vocab_size=1000, intermediate_size=128, **SMALL)
    )
    before = peak_memory_mib()
    start = time.perf_counter()
    dataset = load_from_disk(folder)["train"]
    run = ftkit.TrainingRun(model, dataset, ftkit.TrainingConfig(num_train_epochs=1, bf16=False))
    next(run)
    first = time.perf_counter() - start
    start = time.perf_counter()
    steps = sum(1 for _ in run)
    seconds = (time.perf_counter() - start) / max(1, steps) * (1000 / 32)
    grown = peak_memory_mib() - before
    return {"first step s": first, "s per 1,000 rows": seconds, "MiB above the start": grown}


def main() -> None:
    """Print one line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="measure only this one, here")
    args = parser.parse_args()
    disable_progress_bars()
    if args.folder:
        print(json.dumps(measure(args.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            write_rows(Path(folder) / str(size), size)
            command = [sys.executable, "-m", "tests.benchmarks.growth"]
            command += ["--folder", f"{folder}/{size}"]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            values = json.loads(output.splitlines()[-1])
            shown = "  ".join(f"{name} {value:.2f}" for name, value in values.items())
            print(f"{size:>7,} rows  {shown}", flush=True)


if __name__ == "__main__":
    main()
