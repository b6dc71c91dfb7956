"""``ftkit train``: from a source of rows to a saved folder."""

import argparse
import dataclasses
import importlib.metadata
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ftkit
from ftkit.cli.main import show_warning
from ftkit.paths import CHECKPOINTS, TASK_FILE, TRAINING_LOG
from ftkit.tasks.names import TASK_NAMES
from ftkit.training.config import CHOICES, TrainingConfig

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from ftkit.tasks import Task

INFER_OPTIONS = ("text_columns", "label_column", "prompt_columns", "positive_label")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the data, the checkpoint, what trains, and one option a field of TrainingConfig."""
    parser.add_argument(
        "--data",
        required=True,
        metavar="SOURCE",
        help="bundled name, file, folder of CSV/TSV/JSONL/Parquet/CoNLL/SQuAD, or hub id[:config]",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--task", choices=TASK_NAMES, help="default: what the columns are for")
    parser.add_argument(
        "--checkpoint", help="bundled name, folder or hub id; default: the task's own small model"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument(
        "--tune",
        nargs="+",
        default=["full"],
        metavar="WHAT",
        help="full, body, head, top:K, bias, lora, or patterns of parameter names "
        "(head and lora want a learning rate near 1e-3)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest valid checkpoint in the output"
    )
    parser.add_argument(
        "--shard", action="store_true", help="share the model out over torchrun's processes"
    )
    add_columns(parser)
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="cut longer rows, and say how many; default: at the most that the model takes",
    )
    _add_config(parser)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a row holds."""
    parser.add_argument("--text-columns", nargs="+", metavar="COLUMN", help="one, or two for pairs")
    parser.add_argument("--label-column", metavar="COLUMN")
    parser.add_argument(
        "--positive-label",
        metavar="LABEL",
        help="of two classes the one that precision, recall and F1 speak of; default: the second",
    )
    parser.add_argument(
        "--prompt-columns", nargs="+", metavar="COLUMN", help="what a causal-lm task is given"
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    """Add one option a field of TrainingConfig."""
    kinds = {"bf16": _boolean, "fp16": _boolean, "reuse_frozen": _boolean, "warmup_steps": float}
    kinds |= {"torch_compile": _boolean, "head_learning_rate": float}
    kinds |= {"metric_for_best_model": str, "class_weights": str}
    for option in dataclasses.fields(TrainingConfig):
        if option.name == "unfreeze":
            continue
        parser.add_argument(
            "--" + option.name.replace("_", "-"),
            type=kinds.get(option.name, type(option.default)),
            default=option.default,
            choices=CHOICES.get(option.name),
            nargs="+" if option.name == "class_weights" else None,
            help=f"default: {option.default}",
        )


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f'"{text}"; expected true or false')
    return text.lower() == "true"


def run(args: argparse.Namespace) -> int:
    """Check everything first, then train, then save the whole folder at once."""
    config = _config(args)
    if (
        args.resume
        and (args.output / TASK_FILE).is_file()
        and not (args.output / CHECKPOINTS).exists()
    ):
        _check_finished(args, config)
        print(f"{args.output} is finished; nothing to resume")
        return 0
    distributed = ftkit.training.distributed
    distributed.init_process_group()
    try:
        ftkit.models.check_output_dir(args.output, overwrite=args.overwrite, resume=args.resume)
        distributed.barrier()  # until all have looked: the first soon writes there
        with distributed.explain_loss_of_others(), _epoch_lines():
            _train(args, config)
    finally:
        distributed.destroy_process_group()
    return 0


def _config(args: argparse.Namespace) -> TrainingConfig:
    """Make the config of the options that bear its fields' names."""
    names = [o.name for o in dataclasses.fields(TrainingConfig) if o.name != "unfreeze"]
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
    return TrainingConfig(**values)


def _check_finished(args: argparse.Namespace, config: TrainingConfig) -> None:
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
    distributed = ftkit.training.distributed
    logger, handler = logging.getLogger("ftkit.training.train"), _Printer()
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
        from tqdm.auto import tqdm

        tqdm.write(record.getMessage())


def _train(args: argparse.Namespace, config: TrainingConfig) -> None:
    distributed = ftkit.training.distributed
    splits = ftkit.load_splits(args.data)
    task = infer_task(args, splits)
    task.check(splits)
    args.checkpoint = args.checkpoint or task.default_checkpoint
    tokenizer, model = ftkit.load_pretrained(
        args.checkpoint, task, revision=args.revision, seed=config.seed
    )
    model = _tune(model, args.tune, config.seed)  # refuses what cannot be before rows are encoded
    limit = ftkit.tasks.length_limit(tokenizer, args.max_length)
    tokenizer.model_max_length = limit  # saved, so it stays
    encoded = task.encode(splits, tokenizer, max_length=args.max_length)
    if args.shard:
        distributed.shard(model)
    if distributed.get_rank() == 0:
        _begin(args, splits, task, model)
    history = ftkit.train(model, encoded, task, config, output_dir=args.output, resume=args.resume)
    weights = distributed.gather(model.state_dict())
    if distributed.get_rank() > 0:
        return
    if args.shard:
        model = _tune(task.auto_model.from_config(model.config), args.tune, config.seed)
        model.load_state_dict(weights)
    record = {"config": dataclasses.asdict(config), "tune": args.tune, **_record(args, history)}
    ftkit.save_pretrained(args.output, model, tokenizer, task, overwrite=True, record=record)
    ftkit.training.write_log(args.output / TRAINING_LOG, history)
    if history.best_epoch is not None:
        _print_verdict(history, task, encoded["validation"])
    print(f"saved in {args.output}")


def infer_task(args: argparse.Namespace, splits: "DatasetDict") -> "Task":
    """Make the task, by its name or by the columns; it complains of what it has no use for."""
    options = {name: getattr(args, name) for name in INFER_OPTIONS}
    return ftkit.tasks.find_task(args.task, splits).infer(splits, **options)


def _begin(args: argparse.Namespace, splits: "DatasetDict", task: Any, model: Any) -> None:
    """Say what is about to happen; drop the checkpoints of a run that is not gone on with."""
    trainable, total = ftkit.count_parameters(model)
    sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    print(f"{sizes} rows; {task.describe()}")
    print(f"{trainable:,} of {total:,} parameters train")
    pooler = [name for name in getattr(model, "newly_initialized", ()) if ".pooler." in name]
    if pooler:
        print(f"{args.checkpoint} holds no pooler: {', '.join(pooler)} begin at random")
    folder = args.output / CHECKPOINTS
    if not args.resume:
        shutil.rmtree(folder, ignore_errors=True)
    elif not folder.is_dir():
        print(f"no checkpoint in {args.output}; training begins")


def _print_verdict(history: "ftkit.History", task: "Task", validation: "Dataset") -> None:
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


def _tune(model: Any, tune: list[str], seed: int) -> Any:
    if tune == ["lora"]:
        return ftkit.add_lora(model, seed=seed)
    ftkit.set_trainable(model, tune[0] if len(tune) == 1 else tune)
    return model


def _record(args: argparse.Namespace, history: "ftkit.History") -> dict[str, Any]:
    return {
        "checkpoint": args.checkpoint,
        "data": args.data,
        "versions": {n: importlib.metadata.version(n) for n in ("ftkit", "transformers")},
        "best_epoch": history.best_epoch,
        "evaluations": history.evaluations,
        "losses": [step.loss for step in history.steps],
    }
