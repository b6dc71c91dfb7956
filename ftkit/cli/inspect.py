"""``ftkit inspect``: see the first rows as tokens, and which of them the loss looks at."""

import argparse
import sys
from typing import Any

import ftkit
from ftkit.cli.train import add_columns, infer_task
from ftkit.tasks.names import TASK_NAMES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the data, the checkpoint whose tokenizer cuts it, and the task."""
    parser.add_argument("--data", required=True, metavar="SOURCE")
    parser.add_argument("--task", choices=TASK_NAMES, help="default: what the columns are for")
    parser.add_argument("--checkpoint", help="default: the task's own small model")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument("--split", default="train", help="default: train")
    parser.add_argument("--rows", type=int, default=3, help="how many to show; default: 3")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="cut longer rows")
    add_columns(parser)


def run(args: argparse.Namespace) -> int:
    """Print rows and counts; raise where a row teaches nothing, or not to stop."""
    from datasets import DatasetDict

    splits = ftkit.load_splits(args.data)
    task = infer_task(args, splits)
    if args.split not in splits:
        known = map(str, splits)
        closest = ftkit.errors.closest(args.split, known)
        raise ftkit.FtkitError(f'{args.data} has no split "{args.split}". {closest}')
    name: Any = args.checkpoint or task.default_checkpoint
    tokenizer, _ = ftkit.load_pretrained(name, task, revision=args.revision)
    rows = DatasetDict({args.split: splits[args.split]})
    encoded = task.encode(rows, tokenizer, max_length=args.max_length)
    found = ftkit.inspect(encoded, tokenizer, task, n_rows=args.rows)
    if isinstance(task, ftkit.Chat):
        print(f"before the first turn the template writes {ftkit.tasks.unasked_text(tokenizer)!r}")
    print(found.to_text(color=sys.stdout.isatty()))
    found.check()
    return 0
