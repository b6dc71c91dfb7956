"""Folders that are complete on the disk, or invisible."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftkit.errors import FtkitError


@contextmanager
def complete_or_invisible(target: Path) -> Iterator[Path]:
    """Give a folder to fill, and make it `target` once all of it is on the disk.

    A process that is killed on the way leaves `target` as it was. `OSError` where the new folder
    cannot take its place; the old one then stands there again.
    """
    target = target.resolve()
    beside, old = (_beside(target, what) for what in ("partial", "old"))
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        for path in [*beside.rglob("*"), beside]:
            _flush(path)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        _take_the_place(target, beside, old)
        _flush(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _take_the_place(target: Path, beside: Path, old: Path) -> None:
    """Make `beside` the target; where that fails, put the old one back, and say where it is."""
    try:
        beside.rename(target)
    except OSError as error:
        if not old.exists():
            raise
        try:
            old.rename(target)
        except OSError as second:
            raise OSError(f"{error}, and so does putting the old one back: it is {old}") from second
        raise OSError(f"{error}; the old folder stands there again") from error


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}")


def check_can_be_made(folder: Path) -> None:
    """Raise `FtkitError` where no folder can be made, or filled with `complete_or_invisible`."""
    try:
        target = folder.resolve()
        str(target).encode("utf-8")  # safetensors and tokenizers know no other names
        beside = _beside(target, "partial")
        above = next(path for path in target.parents if path.exists())
        if not above.is_dir():
            raise NotADirectoryError(f"{above} is a file")
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(f"{above} is not writable")
        for name in (*target.relative_to(above).parts, beside.name):
            (above / name).exists()  # fails where a name is too long
        beside.exists()
    except (OSError, ValueError, RuntimeError) as error:  # NUL; links in a ring
        raise FtkitError(
            f"{folder}: no folder can be made there: {error}. Choose another output."
        ) from error


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk; Windows cannot open a folder."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def files_complete_or_invisible(target: Path) -> Iterator[Path]:
    """Give a folder to fill; once all of it is on the disk, move its files beside `target`.

    The file of the target's own name comes last, so that where it stands, all of them do. A process
    that is killed on the way, or an error, leaves every earlier file as it was.
    """
    target = target.resolve()
    made = [folder for folder in target.parents if not folder.exists()]
    beside = _beside(target, "partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        files = sorted(beside.iterdir(), key=lambda path: path.name == target.name)
        for path in files:
            _flush(path)
        for path in files:
            path.replace(target.with_name(path.name))
        _flush(target.parent)
        made = []
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        for folder in made:
            folder.rmdir()
