"""Pretrain a model from random weights: blocks of running text, a log, and resumption."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftkit.paths import CHECKPOINTS
from ftkit.training.checkpoints import resume_run, save_run
from ftkit.training.config import TrainingConfig
from ftkit.training.run import TrainingRun

LOG = "log.jsonl"


def pack_blocks(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, block_size: int
) -> Dataset:
    """Join texts, each with an end-of-text token after it, and cut the whole into equal blocks.

    Nothing is padded and no text is cut off: the usual form of pretraining data since GPT-2
    (Radford et al. 2019).

    Parameters
    ----------
    texts : iterable of str
    tokenizer : PreTrainedTokenizerBase
        Its ``eos_token`` stands between two texts.
    block_size : int
        Tokens in a block; the last few tokens that fill none are left out.

    Returns
    -------
    datasets.Dataset
        ``input_ids`` and ``labels``, equal lists of `block_size` numbers: a causal model shifts
        its labels itself.
    """
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    tokens = list(chain.from_iterable([*ids, tokenizer.eos_token_id] for ids in encoded))  # type: ignore[misc]
    starts = range(0, len(tokens) - block_size + 1, block_size)
    blocks = [tokens[start : start + block_size] for start in starts]
    return Dataset.from_dict({"input_ids": blocks, "labels": blocks})


def pretrain(
    model: nn.Module,
    dataset: Dataset,
    config: TrainingConfig,
    output_dir: str | Path,
    measure: Callable[[], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Train to the end; every ``config.save_steps`` updates measure, log and write a checkpoint.

    The last update does so too, and where `save_steps` is 0 it alone.

    Called again with the same arguments, it goes on from the newest checkpoint.

    Parameters
    ----------
    model : PreTrainedModel
        Trained in place.
    dataset : datasets.Dataset
        From `pack_blocks`, or any other encoded split.
    config : TrainingConfig
    output_dir : str or Path
        Gets ``log.jsonl`` and ``checkpoints``.
    measure : callable
        Returns what to log beside the training loss, such as the loss on held-out text.

    Returns
    -------
    list of dict
        The log: ``step``, ``seconds``, ``loss`` (mean since the line before) and what `measure`
        gave; seconds count training only.
    """
    folder = Path(output_dir)
    run = TrainingRun(model, dataset, config)
    found = resume_run(run, folder / CHECKPOINTS)
    log: list[dict[str, Any]] = found[2]["log"] if found else []
    every = config.save_steps or run.total_steps
    seconds, steps, start = log[-1]["seconds"] if log else 0.0, [], time.perf_counter()
    for step in run:
        steps.append(step)
        if step.step % every and step.step < run.total_steps:
            continue
        run.read()
        seconds += time.perf_counter() - start
        loss = sum(step.loss for step in steps) / len(steps)
        line = {"step": step.step, "seconds": round(seconds, 1), "loss": loss}
        log.append({**line, **measure()})
        save_run(run, folder / CHECKPOINTS, {}, log=log, config=asdict(config))
        (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in log))
        steps, start = [], time.perf_counter()
    return log


def save_half(
    folder: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    log: list[dict[str, Any]],
) -> None:
    """Save a finished model at two bytes a weight, its tokenizer, and the log as ``log.json``.

    The config asks for float32, so that plain transformers, too, computes in it.

    Parameters
    ----------
    folder : str or Path
    model : PreTrainedModel
        Its weights are rounded in place.
    tokenizer : PreTrainedTokenizerBase
    log : list of dict
        From `pretrain`.
    """
    folder = Path(folder)
    model.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({**config, "dtype": "float32"}, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    lines = ",\n".join(json.dumps(line) for line in log)
    (folder / "log.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
