"""The command line: ``ftkit train | evaluate | predict | doctor | course``."""

import argparse
import dataclasses
import json
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from datasets import DatasetDict, concatenate_datasets
from scipy.special import softmax

import ftkit
from ftkit.checkpoints import check_output_dir
from ftkit.config import OPTIMIZERS, SCHEDULES
from ftkit.errors import FtkitError, closest

CHOICES = {"optim": sorted(OPTIMIZERS), "lr_scheduler_type": sorted(SCHEDULES)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 where doctor or course found a fault, or 2 for bad input.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; by default the process's own.
    """
    args = build_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return args.run(args)
    except FtkitError as error:
        print(f"ftkit {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"ftkit {args.command}: stopped; nothing was written.", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="ftkit", description=ftkit.__doc__)
    parser.add_argument("--version", action="version", version=ftkit.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="fine-tune a checkpoint and save it"))
    _add_evaluate(commands.add_parser("evaluate", help="score a saved model on a split"))
    _add_predict(commands.add_parser("predict", help="let a saved model label texts"))
    doctor = commands.add_parser("doctor", help="check this machine")
    doctor.set_defaults(run=run_doctor)
    _add_course(commands.add_parser("course", help="run the notebooks and write them as HTML"))
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_train)
    data_help = "bundled name, file or folder of CSV/TSV/JSONL/Parquet, or hub id[:config]"
    parser.add_argument("--data", required=True, metavar="SOURCE", help=data_help)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--checkpoint", default="minilm", help="bundled name, folder or hub id")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument("--text-columns", nargs="+", metavar="COLUMN", help="one, or two for pairs")
    parser.add_argument("--label-column", metavar="COLUMN")
    parser.add_argument(
        "--tune",
        nargs="+",
        default=["full"],
        metavar="WHAT",
        help="full, head, top:K, bias, lora, or patterns of parameter names "
        "(head and lora want a learning rate near 1e-3)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    for option in dataclasses.fields(ftkit.TrainingConfig):
        if option.name == "unfreeze":
            continue
        parser.add_argument(
            "--" + option.name.replace("_", "-"),
            type={"bf16": _boolean, "head_learning_rate": float}.get(
                option.name, type(option.default)
            ),
            default=option.default,
            choices=CHOICES.get(option.name),
            help=f"default: {option.default}",
        )


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f'"{text}"; expected true or false')
    return text.lower() == "true"


def run_train(args: argparse.Namespace) -> int:
    """``ftkit train``: check everything first, then train, then save the whole folder at once."""
    names = [o.name for o in dataclasses.fields(ftkit.TrainingConfig) if o.name != "unfreeze"]
    config = ftkit.TrainingConfig(**{name: getattr(args, name) for name in names})
    check_output_dir(args.output, overwrite=args.overwrite)
    splits = ftkit.load_splits(args.data)
    task = ftkit.SequenceClassification.infer(splits, args.text_columns, args.label_column)
    task.check(splits)
    tokenizer, model = ftkit.load_pretrained(
        args.checkpoint, task, revision=args.revision, seed=config.seed
    )
    encoded = task.encode(splits, tokenizer)
    model = _tune(model, args.tune)
    trainable, total = ftkit.count_parameters(model)
    sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    print(f"{sizes} rows; {', '.join(task.text_columns)} → {', '.join(task.labels)}")
    print(f"{trainable:,} of {total:,} parameters train")
    history = ftkit.train(model, encoded, task, config)
    record = {"config": dataclasses.asdict(config), "tune": args.tune, **_record(args, history)}
    ftkit.save_pretrained(
        args.output, model, tokenizer, task, overwrite=args.overwrite, record=record
    )
    if history.best_epoch:
        _print_verdict(history, task, encoded["validation"]["labels"])
    print(f"saved in {args.output}")
    return 0


def _print_verdict(history: ftkit.History, task: Any, labels: Sequence[int]) -> None:
    """Print the best score on validation beside that of one answer for all rows."""
    score = history.evaluations[history.best_epoch - 1]["accuracy"]
    ((commonest, count),) = Counter(labels).most_common(1)
    share = count / len(labels)
    print(
        f"validation accuracy {score:.3f} after epoch {history.best_epoch}; "
        f'always saying "{task.labels[commonest]}" scores {share:.3f}'
    )
    if score <= share < 1:
        _show_warning(
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


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_evaluate)
    parser.add_argument("model", metavar="DIR", help="a folder that `ftkit train` wrote")
    parser.add_argument("--data", required=True, metavar="SOURCE")
    parser.add_argument("--split", default="test", help='a split, or "all"; default: test')
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores here too")


def run_evaluate(args: argparse.Namespace) -> int:
    """``ftkit evaluate``: print the scores with their intervals, and write them as JSON."""
    if args.json and not args.json.parent.is_dir():
        raise FtkitError(f"{args.json}: the folder {args.json.parent} does not exist.")
    task, tokenizer, model = ftkit.load_saved(args.model)
    splits = ftkit.load_splits(args.data)
    if args.split == "all":
        splits = DatasetDict({"all": concatenate_datasets(list(splits.values()))})
    if args.split not in splits:
        raise FtkitError(
            f'{args.data} has no split "{args.split}". {closest(args.split, map(str, splits))}'
        )
    encoded = task.encode(DatasetDict({args.split: splits[args.split]}), tokenizer)
    report = ftkit.evaluate(model, encoded[args.split], task)
    print(f"{args.data}, {args.split}: {report}")
    if args.json:
        text = json.dumps(report.to_dict(), indent=2)
        args.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_predict)
    parser.add_argument("model", metavar="DIR", help="a folder that `ftkit train` wrote")
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="two texts each for a pair task")


def run_predict(args: argparse.Namespace) -> int:
    """``ftkit predict``: print label, probability and text, one row a line."""
    task, tokenizer, model = ftkit.load_saved(args.model)
    size = len(task.text_columns)
    rows = [args.texts[i : i + size] for i in range(0, len(args.texts), size)]
    probabilities = softmax(ftkit.predict(model, task.encode_texts(rows, tokenizer)), axis=-1)
    for row, chances in zip(rows, probabilities, strict=True):
        print(task.labels[chances.argmax()], f"{chances.max():.3f}", *row, sep="\t")
    return 0


def run_doctor(args: argparse.Namespace) -> int:
    """``ftkit doctor``: one line a check; 1 where something needs mending."""
    from ftkit.doctor import check_machine

    fine = True
    for ok, line in check_machine():
        print("OK  " if ok else "FIX ", line)
        fine = fine and ok
    return 0 if fine else 1


def _add_course(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_course)
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="name or number")
    parser.add_argument("--output", type=Path, default=Path("course"), metavar="DIR")
    parser.add_argument("--update", action="store_true", help="write outputs into the notebooks")


def run_course(args: argparse.Namespace) -> int:
    """``ftkit course``: one line a notebook; 1 where a cell failed."""
    from ftkit import course

    total, failed = 0.0, 0
    paths = course.find_notebooks(args.notebooks)
    for run in course.run_course(paths, args.output, update=args.update):
        verdict = run.error or "ok"
        print(f"{run.name:<36}{run.seconds:6.1f} s {run.peak_mib:6.0f} MiB  {verdict}", flush=True)
        total, failed = total + run.seconds, failed + (run.error is not None)
    print(f"{len(paths)} notebooks in {total:.0f} s, {failed} failed; HTML in {args.output}")
    return 1 if failed else 0


def _show_warning(message: Any, *_: Any) -> None:
    print(f"ftkit: warning: {message}", file=sys.stderr)
