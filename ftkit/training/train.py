"""Train to the end: validate after each epoch, keep the best weights, save, and go on."""

import logging
import math
import signal
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import nn
from tqdm.auto import tqdm

from ftkit.errors import FtkitError, StoppedError, closest
from ftkit.evaluation.reports import make_report, predict
from ftkit.models.frozen import FrozenLayers, find_frozen_layers
from ftkit.models.parameters import kept_modes
from ftkit.paths import CHECKPOINTS
from ftkit.tasks import Task
from ftkit.training import distributed
from ftkit.training.checkpoints import resume_run, save_run
from ftkit.training.config import TrainingConfig
from ftkit.training.log import TrainingLog, describe
from ftkit.training.run import TrainingRun
from ftkit.training.signals import defer_signals
from ftkit.training.state import check_identity, describe_columns
from ftkit.training.step import Step

LOWER_IS_BETTER = {"loss", "perplexity"}
LOGGER = logging.getLogger(__name__)
Best = dict[str, torch.Tensor]


@dataclass
class History:
    """What happened in a run: one `Step` an update, one dict of metrics an epoch.

    Attributes
    ----------
    steps : list of Step
    evaluations : list of dict
        Validation metrics, ``loss`` and ``epoch``: the untouched model's first, as epoch 0, then
        those after each epoch, so that ``evaluations[k]`` is of epoch k.
    best_epoch : int or None
        The epoch whose weights are kept; 0 where no epoch was better than the untouched model,
        None where nothing was validated.
    """

    steps: list[Step] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None


def train(
    model: nn.Module,
    encoded: DatasetDict,
    task: Task,
    config: TrainingConfig | None = None,
    *,
    output_dir: str | Path | None = None,
    resume: bool = False,
) -> History:
    """Train on ``encoded["train"]``, validate after each epoch, keep the best epoch's weights.

    The untouched model is validated too, and kept where no epoch was better; a warning in the log
    (``logging``) says so. A line of metrics for each epoch goes to the log at level INFO.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        Trained in place, and left in the mode (train or eval) in which it came.
    encoded : DatasetDict
        From ``task.encode``. Without a ``validation`` split the last weights are kept.
    task : Task
        Says what the loss is. ``config.metric_for_best_model``, or else its ``best_metric``,
        decides which epoch is the best; the earlier one where two are equal.
    config : TrainingConfig, optional
    output_dir : str or Path, optional
        Gets ``training.jsonl``, a line an update and a line a validation, and ``checkpoints``: as
        ``config.save_strategy`` says, and when SIGTERM or Ctrl-C ends the run.
    resume : bool
        Go on from the newest valid checkpoint there; without one, begin.

    Returns
    -------
    History
        With the steps before a resumption.

    Raises
    ------
    StoppedError
        A signal came, and the step it came in is finished and saved.
    FtkitError
        The checkpoint is of another run, the disk is full, or there is no such metric.
    """
    config = config or TrainingConfig()
    encoded = task.complete(model, encoded)
    run = TrainingRun(model, encoded["train"], config, task=task)
    validator = _Validator(run, task, encoded.get("validation"))
    history, best = History(), {}
    folder = Path(output_dir) if output_dir else None
    saved = folder / CHECKPOINTS if folder else None
    if saved and resume:
        best = _resume(run, history, saved, validator)
    awaited = (signal.SIGTERM, signal.SIGINT) if saved else ()
    logs = TrainingLog(folder, config)
    with kept_modes(model), defer_signals(*awaited) as received, logs as log:
        if not history.steps:
            best = validator.validate(history, epoch=0) or best
        for step in _with_progress(run):
            history.steps.append(step)
            if step.step % run.steps_per_epoch == 0:
                best = validator.validate(history, epoch=round(step.epoch)) or best
            signum = 0
            if not run.unread:
                log.write(history)
                signum = distributed.all_reduce_max(max(received, default=0))
            if saved and (signum or _due(run)):
                save_run(run, saved, best, history=asdict(history), validation=validator.identity())
            if signum:
                where = f"step {step.step} of {run.total_steps}"
                raise StoppedError(f"stopped after {where}; saved in {saved}", signum)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in best:
                parameter.copy_(best[name])
    validator.tell_in_vain(history)
    return history


class _Validator:
    """Scores a run's model on the validation split, if there is one, and knows which is best."""

    def __init__(self, run: TrainingRun, task: Task, split: Dataset | None) -> None:
        self.run, self.task, self.split = run, task, split
        self.metric = run.config.metric_for_best_model or task.best_metric
        if split is None and run.config.metric_for_best_model:
            raise FtkitError(
                f'metric_for_best_model is "{self.metric}", and there is no split "validation" to '
                f"measure it on."
            )
        by_name = self.metric not in LOWER_IS_BETTER
        self.greater = task.greater_is_better if self.metric == task.best_metric else by_name
        self.alone = distributed.is_sharded(run.parameters()[0])  # all compute every row together
        self.references = None if split is None else task.references(split)

    @cached_property
    def mine(self) -> Dataset:
        """The rows that this process scores: of a sharded model all, else every n-th."""
        split = cast(Dataset, self.split)
        if self.alone or distributed.get_world_size() == 1:
            return split
        return split.select(range(distributed.get_rank(), len(split), distributed.get_world_size()))

    @cached_property
    def frozen(self) -> FrozenLayers | None:
        """The stored outputs of frozen layers for those rows, where the run has such layers."""
        if not self.run.frozen or not len(self.mine):
            return None
        run = self.run
        return find_frozen_layers(run.model, self.mine, run.parameters(), bf16=run.bf16)

    def _outputs(self) -> Any:
        """Return what the model says of every row, each process having asked it of its own."""
        run, size = self.run, distributed.get_world_size()
        outputs: Any = []
        if len(self.mine):
            outputs = predict(run.model, self.mine, self.task, bf16=run.bf16, frozen=self.frozen)
        if self.alone or size == 1:
            return outputs
        shares = distributed.all_gather_object(list(outputs))
        ordered = [shares[i % size][i // size] for i in range(len(cast(Dataset, self.split)))]
        equal = len({np.shape(output) for output in ordered}) == 1
        return np.stack(ordered) if equal else ordered

    def validate(self, history: History, epoch: int) -> Best | None:
        """Score the model; return a copy of what trains where no epoch before was as good."""
        if self.split is None:
            return None
        report = make_report(self.task, self._outputs(), self.references, n_resamples=0)
        loss = {} if "loss" in report.metrics else {"loss": float(report.losses.mean())}
        metrics = {"epoch": epoch, **report.metrics, **loss}
        if self.metric not in metrics:
            known = [name for name in metrics if name != "epoch"]
            raise FtkitError(
                f'metric_for_best_model is "{self.metric}". {closest(self.metric, known)}'
            )
        history.evaluations.append(metrics)
        LOGGER.info("%s", describe(metrics))
        values = [self._value(evaluation) for evaluation in history.evaluations]
        if values.index(max(values)) < len(values) - 1:
            return None
        history.best_epoch = epoch
        trained = {id(parameter) for parameter in self.run.parameters()}
        named = self.run.model.named_parameters()
        return {name: p.detach().clone() for name, p in named if id(p) in trained}

    def _value(self, metrics: dict[str, float]) -> float:
        """Return how good an epoch is: more is better, and what is no number is worst."""
        score = metrics[self.metric]
        return -math.inf if math.isnan(score) else score if self.greater else -score

    def tell_in_vain(self, history: History) -> None:
        """Say so where the untouched model is what is kept."""
        if history.best_epoch == 0 and distributed.get_rank() == 0:
            LOGGER.warning(
                "None of %d epochs made the model better on the validation rows (%s %.4g before "
                "training), so it is kept as it came.",
                len(history.evaluations) - 1,
                self.metric,
                history.evaluations[0][self.metric],
            )

    def identity(self) -> dict[str, str]:
        """What a resumed run must share of the validation, for JSON."""
        return {} if self.split is None else describe_columns(self.split, "validation")


def _with_progress(run: TrainingRun) -> Iterator[Step]:
    """Loop over a run with a progress bar; the first process shows it, unless TQDM_DISABLE."""
    silent: dict[str, Any] = {"disable": True} if distributed.get_rank() > 0 else {}
    start, total = run.step, run.total_steps
    with tqdm(total=total, initial=start, desc="training", unit="step", **silent) as bar:
        for step in run:
            if not run.unread:
                shown = {"loss": f"{step.loss:.4g}", "lr": f"{step.learning_rate:.3g}"}
                bar.set_postfix(shown, refresh=False)
            bar.update()
            yield step


def _due(run: TrainingRun) -> bool:
    by_epoch = run.config.save_strategy == "epoch"
    every = run.steps_per_epoch if by_epoch else run.config.save_steps
    return every > 0 and run.step % every == 0 and run.step < run.total_steps


def _resume(run: TrainingRun, history: History, folder: Path, validator: _Validator) -> Best:
    """Load the newest valid checkpoint into run and history; return the best weights so far."""
    found = resume_run(run, folder)
    if not found:
        return {}
    path, tensors, state = found
    theirs = state.get("validation")
    check_identity(validator.identity(), theirs if isinstance(theirs, dict) else {})
    try:
        past = _read_history(state["history"], run.step, validator)
    except (KeyError, TypeError, ValueError) as error:
        raise FtkitError(f"{path}: the history is not as it was written: {error}") from error
    vars(history).update(vars(past))
    parameters = dict(run.model.named_parameters())
    best = tensors.get("best", {})
    return {
        n: distributed.distribute_like(t.to(run.device), parameters[n]) for n, t in best.items()
    }


def _read_history(values: dict[str, Any], n_steps: int, validator: _Validator) -> History:
    """Return the history of so many steps that a checkpoint holds."""
    past = History(**values)
    past.steps = [Step(**step) for step in values["steps"]]
    numbers = [number for step in past.steps for number in astuple(step)]
    numbers += [metrics[validator.metric] for metrics in past.evaluations]
    if not all(isinstance(number, int | float) for number in numbers):
        raise TypeError("a number is missing")
    if len(past.steps) != n_steps:
        raise ValueError(f"{len(past.steps)} steps, expected {n_steps}")
    epochs = [metrics["epoch"] for metrics in past.evaluations]
    done = 0 if validator.split is None else 1 + n_steps // validator.run.steps_per_epoch
    if epochs != list(range(done)):
        raise ValueError(f"validations of epochs {epochs}, expected 0 to {done - 1}")
    if past.best_epoch not in (epochs or [None]) or isinstance(past.best_epoch, bool | float):
        raise ValueError(f"best epoch {past.best_epoch} of {epochs}")
    return past
