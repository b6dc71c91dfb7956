"""``ftkit course``: run the notebooks and write them as HTML."""

import argparse
from pathlib import Path

from ftkit.errors import FtkitError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which notebooks, and where the pages go."""
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="name or number")
    parser.add_argument("--output", type=Path, default=Path("course"), metavar="DIR")
    parser.add_argument("--update", action="store_true", help="write outputs into the notebooks")


def run(args: argparse.Namespace) -> int:
    """Print one line a notebook; return 1 where a cell failed."""
    try:
        from ftkit.cli.notebooks import find_notebooks, run_course
    except ModuleNotFoundError as error:
        raise FtkitError(
            f'{error.name} is missing, which runs notebooks: pip install "ftkit[course]"'
        ) from error

    total, failed = 0.0, 0
    paths = find_notebooks(args.notebooks)
    for done in run_course(paths, args.output, update=args.update):
        verdict = done.error or "ok"
        line = f"{done.name:<36}{done.seconds:6.1f} s {done.peak_mib:6.0f} MiB  {verdict}"
        print(line, flush=True)
        total, failed = total + done.seconds, failed + (done.error is not None)
    print(f"{len(paths)} notebooks in {total:.0f} s, {failed} failed; HTML in {args.output}")
    return 1 if failed else 0
