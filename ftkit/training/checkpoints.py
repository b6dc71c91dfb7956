"""Checkpoints of a run: complete on the disk or invisible, and the newest valid one is loaded."""

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ftkit.atomic import complete_or_invisible
from ftkit.errors import FtkitError
from ftkit.training import distributed

MANIFEST = "manifest.json"
STATE = "state.json"
KEPT = 2  # the newest, and one to fall back on
Tensors = dict[str, dict[str, torch.Tensor]]  # file name without ending → its tensors


class CheckpointWarning(UserWarning):
    """A checkpoint is not used; the message says which and why."""


def write_checkpoint(folder: Path, step: int, tensors: Tensors, state: dict[str, Any]) -> Path:
    """Write ``step-…`` below a folder, and remove all but the newest two.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    step : int
        Updates so far.
    tensors : dict of dict of torch.Tensor
        One safetensors file each.
    state : dict
        Anything JSON holds.

    Returns
    -------
    Path

    Raises
    ------
    FtkitError
        The disk is full or not writable; earlier checkpoints are untouched.
    """
    target = folder / f"step-{step:08d}"
    try:
        with complete_or_invisible(target) as beside:
            for name, group in tensors.items():
                group = {key: tensor.detach().cpu().contiguous() for key, tensor in group.items()}
                save_file(group, beside / f"{name}.safetensors")
            (beside / STATE).write_text(json.dumps(state), encoding="utf-8")
            manifest = {path.name: _fingerprint(path) for path in sorted(beside.iterdir())}
            (beside / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise FtkitError(
            f"{target}: could not be written: {error}. Earlier checkpoints are as they were; make "
            f"room, then go on with --resume."
        ) from error
    for path in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(path)
    return target


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": sha256}


def newest_checkpoint(folder: Path) -> tuple[Path, Tensors, dict[str, Any]] | None:
    """Return the newest valid checkpoint below a folder: its path, tensors and state; else None.

    Warns
    -----
    CheckpointWarning
        For each newer one that is damaged: which, and why.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return _read(path)
        except (OSError, ValueError, RecursionError, SafetensorError) as error:
            warnings.warn(f"{path} is skipped: {error}", CheckpointWarning, stacklevel=2)
    return None


def save_run(run: Any, folder: Path, best: dict[str, torch.Tensor], **state: Any) -> None:
    """Let the first process write all that a run depends on, and the others wait for it.

    Parameters
    ----------
    run : TrainingRun
    folder : Path
    best : dict of torch.Tensor
        Weights to keep beside those that the run has now.
    **state
        Anything JSON holds.
    """
    tensors, progress = run.state_dict()
    tensors["best"] = distributed.gather(best)
    if distributed.get_rank() == 0:
        write_checkpoint(folder, run.step, tensors, {"progress": progress, **state})
    distributed.barrier()


def resume_run(run: Any, folder: Path) -> tuple[Path, Tensors, dict[str, Any]] | None:
    """Let a run go on from the newest valid checkpoint; return it, or None where there is none."""
    found = newest_checkpoint(folder)
    if found:
        _, tensors, state = found
        run.load_state_dict(tensors, state.get("progress", {}))
    return found


def _read(path: Path) -> tuple[Path, Tensors, dict[str, Any]]:
    if not (path / MANIFEST).is_file():
        raise ValueError(f"{MANIFEST} is missing")
    manifest = _read_object(path / MANIFEST)
    for name, expected in manifest.items():
        if Path(name).name != name:
            raise ValueError(f"{MANIFEST} names {name!r}; expected names of files beside it")
        if not (path / name).is_file():
            raise ValueError(f"{name} is missing")
        found = _fingerprint(path / name)
        if not isinstance(expected, dict) or set(expected) != set(found):
            raise ValueError(f"{MANIFEST} does not say the bytes and the sha256 of {name}")
        if found["bytes"] != expected["bytes"]:
            raise ValueError(f"{name} has {found['bytes']} bytes; expected {expected['bytes']}")
        if found != expected:
            raise ValueError(f"{name} is damaged: its sha256 is not the one in {MANIFEST}")
    files = sorted(path.glob("*.safetensors"))
    for file in (*files, path / STATE):
        if file.name not in manifest:
            raise ValueError(f"{MANIFEST} does not name {file.name}")
    return path, {file.stem: load_file(file) for file in files}, _read_object(path / STATE)


def _read_object(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise ValueError(f"{kind!r} object in {path.name}; expected names with their values")
    return values
