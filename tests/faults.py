"""A small training to be killed, in a process of its own: a fork of one that has torch loaded."""

import multiprocessing
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from safetensors.torch import save_file
from transformers import BertForSequenceClassification

import ftkit
from ftkit import atomic
from ftkit.cli.main import main
from tests.conftest import tiny_config

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults"])
TASK = ftkit.SequenceClassification(("text",), ("bad", "good"))
CONFIG = ftkit.TrainingConfig(
    learning_rate=1e-3,
    num_train_epochs=3,
    batch_size=8,
    gradient_accumulation_steps=2,
    save_steps=2,
    warmup_steps=4,
    bf16=False,
)
WEIGHTS = "weights.safetensors"


def start(function: Callable[..., Any], *arguments: Any) -> Any:
    """Start a function in a process of its own; its exit code is what the function returns."""
    process = CONTEXT.Process(target=_call, args=(function, *arguments))
    process.start()
    return process


def _call(function: Callable[..., Any], *arguments: Any) -> None:
    torch.set_num_threads(1)
    sys.exit(function(*arguments))


def start_together(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Start a function in several processes that can join, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(_join_and_call, rank, size, port, function, *arguments) for rank in range(size)]


def _join_and_call(
    rank: int, size: int, port: int, function: Callable[..., Any], *arguments: Any
) -> int:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    return function(*arguments)


def train(encoded_dir: Path, output_dir: Path) -> int:
    """Train, or go on; write the final weights."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(tiny_config(num_labels=2))
    encoded = DatasetDict.load_from_disk(encoded_dir)
    history = ftkit.train(model, encoded, TASK, CONFIG, output_dir=output_dir, resume=True)
    assert [step.step for step in history.steps] == list(range(1, 22))
    assert [metrics["epoch"] for metrics in history.evaluations] == [0, 1, 2, 3]
    save_file(model.state_dict(), output_dir / WEIGHTS)
    return 0


def train_and_die_in_a_save(encoded_dir: Path, output_dir: Path, flushes: int) -> int:
    """Train until so many files were flushed to the disk, and be killed right there."""
    flush, seen = atomic._flush, []

    def deadly(path: Path) -> None:
        seen.append(path)
        if len(seen) == flushes:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)

    atomic._flush = deadly
    return train(encoded_dir, output_dir)


def run_ftkit(arguments: list[str], errors: Path, bytes_a_file: int | None = None) -> int:
    """Run one command, its stderr in a file; at will with a limit on the size of every file."""
    if bytes_a_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, resource.RLIM_INFINITY))
    with errors.open("w", encoding="utf-8") as sys.stderr:
        return main(arguments)
