"""Train to the end: validate after each epoch, keep the best weights, save, and go on."""

import signal
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from torch import nn
from tqdm.auto import tqdm

from ftkit.errors import FtkitError, StoppedError
from ftkit.evaluation.reports import evaluate
from ftkit.models.frozen import FrozenLayers, find_frozen_layers
from ftkit.models.parameters import kept_modes
from ftkit.paths import CHECKPOINTS
from ftkit.training import distributed
from ftkit.training.checkpoints import newest_checkpoint, write_checkpoint
from ftkit.training.config import TrainingConfig
from ftkit.training.run import Step, TrainingRun
from ftkit.training.signals import hold

Best = dict[str, torch.Tensor]


@dataclass
class History:
    """What happened in a run: one `Step` an update, one dict of metrics an epoch.

    Attributes
    ----------
    steps : list of Step
    evaluations : list of dict
        Validation metrics and ``loss`` after each epoch.
    best_epoch : int
        Counted from 1; its weights are the ones kept. 0 where nothing was validated.
    """

    steps: list[Step] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0


def train(
    model: nn.Module,
    encoded: DatasetDict,
    task: Any,
    config: TrainingConfig | None = None,
    *,
    output_dir: str | Path | None = None,
    resume: bool = False,
) -> History:
    """Train on ``encoded["train"]``, validate after each epoch, keep the best epoch's weights.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        Trained in place, and left in the mode it came in: train or eval.
    encoded : DatasetDict
        From ``task.encode``. Without a ``validation`` split the last weights are kept.
    task : Task
        Its ``best_metric`` decides which epoch is the best; the earlier one where two are equal.
    config : TrainingConfig, optional
    output_dir : str or Path, optional
        Checkpoints go to ``checkpoints`` below it: every ``config.save_steps`` updates, and when
        SIGTERM or Ctrl-C ends the run.
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
        The checkpoint is of another run, or the disk is full.
    """
    run, history, best = TrainingRun(model, encoded["train"], config), History(), {}
    folder = Path(output_dir) / CHECKPOINTS if output_dir else None
    if folder and resume:
        best = _go_on(run, history, folder, task.best_metric)
    split, frozen = encoded.get("validation"), None
    if run.frozen and split is not None:
        frozen = find_frozen_layers(model, split, run.parameters(), bf16=run.bf16)
    awaited = (signal.SIGTERM, signal.SIGINT) if folder else ()
    with kept_modes(model), hold(*awaited) as received, _progress(run) as bar:
        for step in run:
            history.steps.append(step)
            bar.update()
            if step.step % run.steps_per_epoch == 0 and split is not None:
                best = _validate(run, history, split, task, frozen) or best
            signum = distributed.largest(max(received, default=0))
            if folder and (signum or _due(run)):
                _save(run, history, best, folder)
            if signum:
                where = f"step {step.step} of {run.total_steps}"
                raise StoppedError(f"stopped after {where}; saved in {folder}", signum)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in best:
                parameter.copy_(best[name])
    return history


def _progress(run: TrainingRun) -> tqdm:
    """Return a progress bar; the first process shows it, unless TQDM_DISABLE says no."""
    silent: dict[str, Any] = {"disable": True} if distributed.rank() > 0 else {}
    return tqdm(total=run.total_steps, initial=run.step, desc="training", unit="step", **silent)


def _due(run: TrainingRun) -> bool:
    every = run.config.save_steps
    return every > 0 and run.step % every == 0 and run.step < run.total_steps


def _validate(
    run: TrainingRun, history: History, split: Any, task: Any, frozen: FrozenLayers | None
) -> Best | None:
    """Score the model; return a copy of what trains where no epoch before was as good."""
    report = evaluate(run.model, split, task, n_resamples=0, bf16=run.bf16, frozen=frozen)
    loss = {} if "loss" in report.metrics else {"loss": float(report.losses.mean())}
    history.evaluations.append({**report.metrics, **loss})
    scores = [metrics[task.best_metric] for metrics in history.evaluations]
    best = max(scores) if task.greater_is_better else min(scores)
    if scores.index(best) < len(scores) - 1:
        return None
    history.best_epoch = len(scores)
    trained = {id(parameter) for parameter in run.parameters()}
    named = run.model.named_parameters()
    return {name: p.detach().clone() for name, p in named if id(p) in trained}


def _save(run: TrainingRun, history: History, best: Best, folder: Path) -> None:
    """Let the first process write a checkpoint, and the others wait for it."""
    tensors, progress = run.state_dict()
    best = {name: distributed.whole(tensor) for name, tensor in best.items()}
    if distributed.rank() == 0:
        state = {"progress": progress, "history": asdict(history)}
        write_checkpoint(folder, run.step, {**tensors, "best": best}, state)
    distributed.wait()


def _go_on(run: TrainingRun, history: History, folder: Path, metric: str) -> Best:
    """Load the newest valid checkpoint into run and history; return the best weights so far."""
    found = newest_checkpoint(folder)
    if not found:
        return {}
    path, tensors, state = found
    run.load_state_dict(tensors, state.get("progress", {}))
    try:
        past = _read_history(state["history"], run.step, metric)
    except (KeyError, TypeError, ValueError) as error:
        raise FtkitError(f"{path}: the history is not as it was written: {error}") from error
    vars(history).update(vars(past))
    parameters = dict(run.model.named_parameters())
    best = tensors.get("best", {})
    return {n: distributed.shared_like(t.to(run.device), parameters[n]) for n, t in best.items()}


def _read_history(values: dict[str, Any], n_steps: int, metric: str) -> History:
    """Return the history of so many steps that a checkpoint holds."""
    past = History(**values)
    past.steps = [Step(**step) for step in values["steps"]]
    numbers = [number for step in past.steps for number in astuple(step)]
    numbers += [metrics[metric] for metrics in past.evaluations]
    if not all(isinstance(number, int | float) for number in numbers):
        raise TypeError("a number is missing")
    if len(past.steps) != n_steps:
        raise ValueError(f"{len(past.steps)} steps, expected {n_steps}")
    best, epochs = past.best_epoch, len(past.evaluations)
    if type(best) is not int or not 0 <= best <= epochs:
        raise ValueError(f"best epoch {best} of {epochs}")
    return past
