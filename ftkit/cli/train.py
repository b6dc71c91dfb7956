"""What ``ftkit train`` does: from a source of rows to a saved folder."""

import argparse
import dataclasses
import inspect
import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers
from datasets import Dataset, DatasetDict
from tqdm.auto import tqdm

import ftkit
from ftkit.models.saving import TASK_FILE, check_output_dir
from ftkit.paths import CHECKPOINTS, TRAINING_LOG
from ftkit.tasks import Task, find_task
from ftkit.training import distributed
from ftkit.training.log import write_log

COLUMN_OPTIONS = ("text_columns", "label_column", "prompt_columns")


def run_train(args: argparse.Namespace) -> int:
    """``ftkit train``: check everything first, then train, then save the whole folder at once."""
    config = _config(args)
    if (
        args.resume
        and (args.output / TASK_FILE).is_file()
        and not (args.output / CHECKPOINTS).exists()
    ):
        _check_finished(args, config)
        print(f"{args.output} is finished; nothing to resume")
        return 0
    distributed.init_process_group()
    try:
        check_output_dir(args.output, overwrite=args.overwrite, resume=args.resume)
        distributed.barrier()  # until all have looked: the first soon writes there
        with distributed.explain_loss_of_others(), _epoch_lines():
            _train(args, config)
    finally:
        distributed.destroy_process_group()
    return 0


def _config(args: argparse.Namespace) -> ftkit.TrainingConfig:
    """Make the config of the options that bear its fields' names."""
    names = [o.name for o in dataclasses.fields(ftkit.TrainingConfig) if o.name != "unfreeze"]
    values = {name: getattr(args, name) for name in names}
    weights = values["class_weights"]
    if weights is not None and weights != ["balanced"]:
        try:
            values["class_weights"] = tuple(map(float, weights))
        except ValueError as error:
            raise ftkit.FtkitError(
                f"--class-weights is {' '.join(weights)}; expected balanced, or a number for each "
                f"class."
            ) from error
    elif weights:
        values["class_weights"] = "balanced"
    return ftkit.TrainingConfig(**values)


def _check_finished(args: argparse.Namespace, config: ftkit.TrainingConfig) -> None:
    """Raise `FtkitError` where a finished run is to be gone on with under other options."""
    record = args.output / "training.json"
    try:
        before = json.loads(record.read_text(encoding="utf-8"))["config"]
        now = json.loads(json.dumps(dataclasses.asdict(config)))
        changed = [name for name in now if name in before and now[name] != before[name]]
    except (OSError, KeyError, TypeError, ValueError):
        return  # nothing tells what it was trained with
    if changed:
        told = ", ".join(f"{name} is {now[name]} now, and was {before[name]}" for name in changed)
        raise ftkit.FtkitError(
            f"{args.output} is finished, and {told}. To train its model on, begin from it: "
            f"ftkit train --checkpoint {args.output} --data {args.data} --output ANOTHER …"
        )


@contextmanager
def _epoch_lines() -> Iterator[None]:
    """Print a line of metrics for each epoch; the first process does."""
    logger, handler = logging.getLogger(ftkit.train.__module__), _Printer()
    if distributed.get_rank() == 0:
        logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Printer(logging.Handler):
    """Prints what is logged, above a progress bar that may be there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        tqdm.write(record.getMessage())


def _train(args: argparse.Namespace, config: ftkit.TrainingConfig) -> None:
    splits = ftkit.load_splits(args.data)
    task = _infer_task(args, splits)
    task.check(splits)
    args.checkpoint = args.checkpoint or task.default_checkpoint
    tokenizer, model = ftkit.load_pretrained(
        args.checkpoint, task, revision=args.revision, seed=config.seed
    )
    encoded = task.encode(splits, tokenizer)
    model = _tune(model, args.tune)
    if args.shard:
        distributed.shard(model)
    if distributed.get_rank() == 0:
        _begin(args, splits, task, model)
    history = ftkit.train(model, encoded, task, config, output_dir=args.output, resume=args.resume)
    weights = distributed.gather(model.state_dict())
    if distributed.get_rank() > 0:
        return
    if args.shard:
        model = _tune(task.auto_model.from_config(model.config), args.tune)
        model.load_state_dict(weights)
    record = {"config": dataclasses.asdict(config), "tune": args.tune, **_record(args, history)}
    log = args.output.resolve() / TRAINING_LOG  # saving may replace the folder that we stand in
    ftkit.save_pretrained(args.output, model, tokenizer, task, overwrite=True, record=record)
    write_log(log, history)
    if history.best_epoch is not None:
        _print_verdict(history, task, encoded["validation"])
    print(f"saved in {args.output}")


def _infer_task(args: argparse.Namespace, splits: DatasetDict) -> Task:
    """Make the task, by its name or by the columns; complain of columns that it has no use for."""
    kind = find_task(args.task, splits)
    known = inspect.signature(kind.infer).parameters
    given = {name: getattr(args, name) for name in COLUMN_OPTIONS if getattr(args, name)}
    unused = [name for name in given if name not in known]
    if unused:
        option = "--" + unused[0].replace("_", "-")
        raise ftkit.FtkitError(f"{option} says nothing to the task {kind.name}; leave it out.")
    return kind.infer(splits, **given)


def _begin(args: argparse.Namespace, splits: DatasetDict, task: Any, model: Any) -> None:
    """Say what is about to happen; drop the checkpoints of a run that is not gone on with."""
    trainable, total = ftkit.count_parameters(model)
    sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    print(f"{sizes} rows; {task.describe()}")
    print(f"{trainable:,} of {total:,} parameters train")
    folder = args.output / CHECKPOINTS
    if not args.resume:
        shutil.rmtree(folder, ignore_errors=True)
    elif not folder.is_dir():
        print(f"no checkpoint in {args.output}; training begins")


def _print_verdict(history: ftkit.History, task: Task, validation: Dataset) -> None:
    """Print the best score on validation; of classes, beside that of one answer for all rows."""
    best = history.evaluations[history.best_epoch or 0]
    when = f"after epoch {history.best_epoch}" if history.best_epoch else "before training"
    if not isinstance(task, ftkit.SequenceClassification):
        print(f"validation {task.best_metric} {best[task.best_metric]:.3f} {when}")
        return
    score = best["accuracy"]
    labels = validation["labels"]
    ((commonest, count),) = Counter(labels).most_common(1)
    share = count / len(labels)
    print(
        f"validation accuracy {score:.3f} {when}; "
        f'always saying "{task.labels[commonest]}" scores {share:.3f}'
    )
    if score <= share < 1:
        show_warning(
            f"{len(history.steps)} updates taught nothing that {len(labels)} validation rows show. "
            f"Few rows want more epochs and a higher rate, such as --num-train-epochs 10 "
            f"--learning-rate 2e-4, and some 100 validation rows to choose the epoch by."
        )


def _tune(model: Any, tune: list[str]) -> Any:
    if tune == ["lora"]:
        return ftkit.add_lora(model)
    ftkit.set_trainable(model, tune[0] if len(tune) == 1 else tune)
    return model


def _record(args: argparse.Namespace, history: ftkit.History) -> dict[str, Any]:
    return {
        "checkpoint": args.checkpoint,
        "data": args.data,
        "versions": {"ftkit": ftkit.__version__, "transformers": transformers.__version__},
        "best_epoch": history.best_epoch,
        "evaluations": history.evaluations,
        "losses": [step.loss for step in history.steps],
    }


def show_warning(message: Any, *_: Any) -> None:
    """Print a warning as a command does: one line on stderr."""
    print(f"ftkit: warning: {message}", file=sys.stderr)
