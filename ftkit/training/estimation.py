"""Say before a long run how long it takes and how much memory it needs, from ten of its steps."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import nn

from ftkit.data.batches import epoch_order, row_lengths
from ftkit.devices import peak_memory_mib
from ftkit.evaluation.prediction import predict
from ftkit.models.layers import layer_list
from ftkit.tasks import Task
from ftkit.training.config import TrainingConfig
from ftkit.training.run import TrainingRun

TRIAL_STEPS = 10
VALIDATION_ROWS = 256


@dataclass(frozen=True)
class Estimate:
    """What a run will need.

    Attributes
    ----------
    seconds : float
        From `train` being called to its return, validation included.
    peak_memory_mib : float
        On a GPU of tensors, else of the whole process. Before anything is saved.
    steps : int
        Updates in all.
    tokens : int
        Tokens in all epochs, padding included.
    """

    seconds: float
    peak_memory_mib: float
    steps: int
    tokens: int

    def __str__(self) -> str:
        """Return one line."""
        minutes = self.seconds / 60
        return f"{self.steps} steps: {minutes:.1f} minutes, {self.peak_memory_mib:,.0f} MiB"


def estimate(
    model: nn.Module,
    encoded: DatasetDict,
    task: Task,
    config: TrainingConfig | None = None,
) -> Estimate:
    """Estimate time and memory of `train` by a trial of ten steps; the model stays as it is.

    The trial takes the longest batch, which needs the most memory, and rows of all lengths. Its
    seconds a token are multiplied by the tokens of the whole run.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
    encoded : DatasetDict
        From ``task.encode``.
    task : Task
    config : TrainingConfig, optional

    Returns
    -------
    Estimate

    Raises
    ------
    FtkitError
        Whatever `TrainingRun` would not take either.

    Examples
    --------
    >>> print(estimate(model, encoded, task, config))  # doctest: +SKIP
    114 steps: 1.2 minutes, 1,350 MiB
    """
    config = config or TrainingConfig()
    encoded = task.complete(model, encoded)
    lengths = row_lengths(encoded["train"])
    batches = epoch_order(lengths, config.batch_size, config.seed, 0)
    before = [(p, p.detach().clone(), p.requires_grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    cost = _trial(model, encoded["train"].select(_sample(lengths, batches)), config, task)
    tokens = config.num_train_epochs * _padded(batches, lengths)
    total = cost.fill * int(lengths.sum()) + cost.step * tokens
    if "validation" in encoded:
        passes = cost.frozen_share + (1 + config.num_train_epochs) * (1 - cost.frozen_share)
        total += passes * _validation_seconds(model, encoded["validation"], task)
    memory = peak_memory_mib()
    with torch.no_grad():
        for parameter, value, trains in before:
            parameter.copy_(value)
            parameter.requires_grad_(trains)
    for module, training in modes:
        module.training = training
    return Estimate(total, memory, config.num_train_epochs * len(batches), tokens)


@dataclass(frozen=True)
class _Cost:
    fill: float  # seconds a token, once
    step: float  # seconds a token and epoch
    frozen_share: float  # of the layers, whose outputs are stored


def _trial(model: nn.Module, rows: Dataset, config: TrainingConfig, task: Task) -> _Cost:
    """Time ten steps, spread over the run so that each stage of gradual unfreezing is met."""
    predict(model, rows.select(range(min(8, len(rows)))), task)  # the first call of all is slow
    start = time.perf_counter()
    run = TrainingRun(model, rows, config, task=task)
    fill = (time.perf_counter() - start) / int(run.lengths.sum()) if run.frozen else 0.0
    sizes = [_padded([run.rows_of_step(i)], run.lengths) for i in range(run.steps_per_epoch)]
    spent = tokens = 0.0
    for i in range(-1, TRIAL_STEPS):  # the one before is the largest batch, for its memory
        run.seek(i * run.total_steps // TRIAL_STEPS if i >= 0 else sizes.index(max(sizes)))
        batch = run.rows_of_step(run.step)
        start = time.perf_counter()
        _ = next(run).loss  # wait for it: a GPU's steps return at once
        if i >= 0:
            spent += time.perf_counter() - start
            tokens += _padded([batch], run.lengths)
    run.optimizer.zero_grad()
    share = len(run.frozen.layers) / len(layer_list(model)) if run.frozen else 0.0
    return _Cost(fill, spent / tokens, share)


def _sample(lengths: np.ndarray, batches: list[list[int]]) -> list[int]:
    """Return the rows of the largest batch, and enough others of all lengths."""
    largest = max(batches, key=lambda batch: _padded([batch], lengths))
    others = sorted(set(range(len(lengths))) - set(largest), key=lambda row: lengths[row])
    wanted = (TRIAL_STEPS - 1) * len(largest)
    return largest + others[:: max(1, math.ceil(len(others) / wanted))]


def _padded(batches: list[list[int]], lengths: np.ndarray) -> int:
    return sum(len(batch) * int(lengths[batch].max()) for batch in batches)


def _validation_seconds(model: nn.Module, split: Dataset, task: Task) -> float:
    rows = range(0, len(split), max(1, len(split) // VALIDATION_ROWS))
    start = time.perf_counter()
    predict(model, split.select(rows), task)
    return (time.perf_counter() - start) * len(split) / len(rows)
