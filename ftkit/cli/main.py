"""The command line: ``ftkit train | evaluate | predict | doctor | course``."""

import argparse
import dataclasses
import json
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import DatasetDict, concatenate_datasets

import ftkit
from ftkit.cli.train import run_train, show_warning
from ftkit.errors import FtkitError, StoppedError, closest
from ftkit.tasks import TASKS
from ftkit.training.config import OPTIMIZERS, SCHEDULES

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: everything is saved, start me again with --resume
CHOICES = {"optim": sorted(OPTIMIZERS), "lr_scheduler_type": sorted(SCHEDULES)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0: done. 1: doctor or course found a fault. 2: bad input. 75: SIGTERM came, and the run is
    saved. 130: Ctrl-C.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; by default the process's own.
    """
    args = build_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            return args.run(args)
    except StoppedError as error:
        print(f"ftkit {args.command}: {error}. Go on with --resume.", file=sys.stderr)
        return 130 if error.signum == signal.SIGINT else STOPPED
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
    _add_predict(commands.add_parser("predict", help="let a saved model answer texts"))
    doctor = commands.add_parser("doctor", help="check this machine")
    doctor.set_defaults(run=run_doctor)
    _add_course(commands.add_parser("course", help="run the notebooks and write them as HTML"))
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_train)
    parser.add_argument(
        "--data",
        required=True,
        metavar="SOURCE",
        help="bundled name, file, folder of CSV/TSV/JSONL/Parquet/CoNLL/SQuAD, or hub id[:config]",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--task", choices=sorted(TASKS), help="default: what the columns are for")
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
    _add_columns(parser)
    _add_config(parser)


def _add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a row holds."""
    parser.add_argument("--text-columns", nargs="+", metavar="COLUMN", help="one, or two for pairs")
    parser.add_argument("--label-column", metavar="COLUMN")
    parser.add_argument(
        "--prompt-columns", nargs="+", metavar="COLUMN", help="what a causal-lm task is given"
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    """Add one option a field of TrainingConfig."""
    kinds = {"bf16": _boolean, "reuse_frozen": _boolean, "warmup_steps": float}
    kinds["head_learning_rate"] = float
    for option in dataclasses.fields(ftkit.TrainingConfig):
        if option.name == "unfreeze":
            continue
        parser.add_argument(
            "--" + option.name.replace("_", "-"),
            type=kinds.get(option.name, type(option.default)),
            default=option.default,
            choices=CHOICES.get(option.name),
            help=f"default: {option.default}",
        )


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f'"{text}"; expected true or false')
    return text.lower() == "true"


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
    parser.add_argument("--seed", type=int, default=42, help="of text drawn at random; default: 42")


def run_predict(args: argparse.Namespace) -> int:
    """``ftkit predict``: print what the model says, then the text; one row a line."""
    task, tokenizer, model = ftkit.load_saved(args.model)
    size = len(task.given_columns)
    rows = [args.texts[i : i + size] for i in range(0, len(args.texts), size)]
    encoded = task.encode_texts(rows, tokenizer)
    torch.manual_seed(args.seed)
    answers = task.read(ftkit.predict(model, encoded, task), encoded, tokenizer)
    for row, answer in zip(rows, answers, strict=True):
        print(*answer, *row, sep="\t")
    return 0


def run_doctor(args: argparse.Namespace) -> int:
    """``ftkit doctor``: one line a check; 1 where something needs mending."""
    from ftkit.cli.doctor import check_machine

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
    from ftkit.cli import course

    total, failed = 0.0, 0
    paths = course.find_notebooks(args.notebooks)
    for run in course.run_course(paths, args.output, update=args.update):
        verdict = run.error or "ok"
        print(f"{run.name:<36}{run.seconds:6.1f} s {run.peak_mib:6.0f} MiB  {verdict}", flush=True)
        total, failed = total + run.seconds, failed + (run.error is not None)
    print(f"{len(paths)} notebooks in {total:.0f} s, {failed} failed; HTML in {args.output}")
    return 1 if failed else 0
