"""``ftkit export``: write a saved model in another format, loaded again and compared."""

import argparse
from pathlib import Path

import ftkit
from ftkit.errors import FtkitError
from ftkit.export.formats import FORMATS, GGUF_TYPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which model, in which format, and where to."""
    parser.add_argument(
        "model", metavar="DIR", help="a folder that `ftkit train` or peft wrote, or a checkpoint"
    )
    parser.add_argument("--to", required=True, choices=list(FORMATS))
    parser.add_argument("--type", choices=GGUF_TYPES, help="of gguf's matrices; default: q8_0")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="PATH", help="file, or folder for model.*"
    )
    parser.add_argument(
        "--texts",
        type=Path,
        metavar="FILE",
        help="what to compare on, one text a line; default: 32 bundled stories",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")


def run(args: argparse.Namespace) -> int:
    """Print what was measured, and where the export lies."""
    proof = ftkit.export(
        *(args.model, args.output),
        to=args.to,
        type=args.type,
        texts=_read_texts(args.texts) if args.texts else None,
        overwrite=args.overwrite,
    )
    print(proof)
    print(f"saved in {args.output}")
    return 0


def _read_texts(path: Path) -> list[str]:
    """Return the lines of a file that hold more than blanks."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FtkitError(f"{path}: could not be read: {error}") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise FtkitError(f"{path}: holds no text; expected one a line.")
    return texts
