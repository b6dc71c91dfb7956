"""``ftkit predict``: let a saved model answer texts."""

import argparse

import ftkit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which model, and the texts."""
    parser.add_argument("model", metavar="DIR", help="a folder that `ftkit train` wrote")
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="two texts each for a pair task")
    parser.add_argument("--seed", type=int, default=42, help="of text drawn at random; default: 42")


def run(args: argparse.Namespace) -> int:
    """Print what the model says, then the text; one row a line."""
    import torch

    task, tokenizer, model = ftkit.load_saved(args.model)
    size = len(task.given_columns)
    rows = [args.texts[i : i + size] for i in range(0, len(args.texts), size)]
    torch.manual_seed(args.seed)
    answers = ftkit.predict(model, rows, task, tokenizer)
    for row, answer in zip(rows, answers, strict=True):
        print(*answer, *row, sep="\t")
    return 0
