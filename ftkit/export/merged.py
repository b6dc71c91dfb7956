"""Write a model as a plain folder of transformers, LoRA added to its weights."""

import json
from pathlib import Path

import torch
from datasets import Dataset
from transformers import __version__ as transformers_version

from ftkit.export.proof import Answer, Bounds, answers_of, weight_error
from ftkit.export.source import RECORD, Source
from ftkit.paths import TASK_FILE

BOUNDS = {None: Bounds(weights=1e-6, kl=1e-6, agreement=0.99)}  # the same numbers, copied
COMPARE_UNTOUCHED = False


def check(source: Source) -> None:
    """Do nothing: every model can be written as it is."""


def write(source: Source, path: Path, kind: None) -> list[str]:
    """Write weights, config, tokenizer and task into a folder."""
    source.model.save_pretrained(path)
    source.tokenizer.save_pretrained(path)
    for name, values in ((TASK_FILE, source.task.to_dict()), (RECORD, source.record)):
        if values is not None:
            text = json.dumps(values, ensure_ascii=False, indent=2)
            (path / name).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return []


def read(path: Path, source: Source, rows: Dataset) -> tuple[str, Answer, float]:
    """Load the folder by plain transformers; see `ftkit.export.gguf.read`."""
    model = source.task.auto_model.from_pretrained(path, dtype=torch.float32).eval()
    error = weight_error(source.model, model)
    return f"transformers {transformers_version}", answers_of(model), error
