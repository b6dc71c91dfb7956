"""The command line's entry: one file of this folder a command, imported when it is called for."""

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import ftkit
from ftkit.errors import FtkitError, StoppedError

ABOUT = "Fine-tune language models: load, encode, train, evaluate, compare."
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: everything is saved, start me again with --resume
COMMANDS = {  # name, which is its file's too: what it is for
    "train": "fine-tune a checkpoint and save it",
    "evaluate": "score a saved model on a split",
    "predict": "let a saved model answer texts",
    "chat": "talk with a language model",
    "inspect": "see rows as tokens, and what the loss looks at",
    "export": "write a saved model in another format, and prove it",
    "fetch": "bring two real models into this machine's cache",
    "doctor": "check this machine",
    "course": "run the notebooks and write them as HTML",
}


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
    parser = argparse.ArgumentParser(prog="ftkit", description=ABOUT)
    parser.add_argument("--version", action="version", version=ftkit.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in COMMANDS.items():
        module = import_module(f"ftkit.cli.{name}")
        command = commands.add_parser(name, help=purpose, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def show_warning(message: Any, *_: Any) -> None:
    """Print a warning as a command does: one line on stderr."""
    print(f"ftkit: warning: {message}", file=sys.stderr)
