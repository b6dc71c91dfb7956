"""``ftkit evaluate``: score a saved model on a split."""

import argparse
import json
from pathlib import Path

import ftkit
from ftkit.errors import FtkitError, closest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which model, on which rows."""
    parser.add_argument("model", metavar="DIR", help="a folder that `ftkit train` wrote")
    parser.add_argument("--data", required=True, metavar="SOURCE")
    parser.add_argument("--split", default="test", help='a split, or "all"; default: test')
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores here too")


def run(args: argparse.Namespace) -> int:
    """Print the scores with their intervals, and write them as JSON."""
    from datasets import DatasetDict, concatenate_datasets

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
