"""Save a trained model whole or not at all, with the task it learned, and load it again."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftkit.checkpoints import FOLDER, complete_or_invisible
from ftkit.errors import FtkitError
from ftkit.models import load_pretrained
from ftkit.parameters import merge_lora
from ftkit.tasks import SequenceClassification, task_from_dict

TASK_FILE = "task.json"


def save_pretrained(
    output_dir: str | Path,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    task: SequenceClassification,
    *,
    overwrite: bool = False,
    record: dict[str, Any] | None = None,
) -> Path:
    """Save model, tokenizer and task so that plain transformers, and `load_saved`, load them.

    LoRA is merged in a copy; `model` stays as it is. The folder appears whole or not at all.

    Parameters
    ----------
    output_dir : str or Path
    model, tokenizer, task
        What `load_pretrained` gave, after training.
    overwrite : bool
        Replace what an earlier call wrote.
    record : dict, optional
        How the model was trained; stands beside it as ``training.json``.

    Raises
    ------
    FtkitError
        The folder exists and `overwrite` is False.
    """
    target = Path(output_dir)
    check_output_dir(target, overwrite=overwrite)
    with complete_or_invisible(target) as beside:
        merge_lora(copy.deepcopy(model)).save_pretrained(beside)  # type: ignore[operator]
        tokenizer.save_pretrained(beside)
        for name, values in ((TASK_FILE, task.to_dict()), ("training.json", record)):
            if values is not None:
                text = json.dumps(values, ensure_ascii=False, indent=2)
                (beside / name).write_text(text + "\n", encoding="utf-8")
    return target


def check_output_dir(output_dir: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Raise `FtkitError` where training into this folder would destroy something."""
    if not output_dir.exists():
        return
    held = [path.name for path in output_dir.iterdir()] if output_dir.is_dir() else ["a file"]
    if FOLDER in held and not (overwrite or resume):
        raise FtkitError(
            f"{output_dir} holds checkpoints of a run that did not end. Go on with --resume, or "
            f"begin anew with --overwrite."
        )
    if FOLDER not in held and not overwrite:
        raise FtkitError(f"{output_dir} exists. Choose another output, or say --overwrite.")
    if TASK_FILE not in held and set(held) - {FOLDER}:
        raise FtkitError(
            f"{output_dir} was not written by ftkit (it holds no {TASK_FILE}), so it is not "
            f"overwritten. Choose another output."
        )


def load_saved(
    folder: str | Path,
) -> tuple[SequenceClassification, PreTrainedTokenizerBase, PreTrainedModel]:
    """Load what `save_pretrained` wrote: task, tokenizer and model.

    Raises
    ------
    FtkitError
        The folder is missing, or holds no task, weights or config.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FtkitError(f"{path}: no such folder. Expected one that `ftkit train` wrote.")
    if not (path / TASK_FILE).is_file():
        raise FtkitError(
            f"{path}: holds no {TASK_FILE}. Expected a folder that `ftkit train` wrote."
        )
    try:
        task = task_from_dict(json.loads((path / TASK_FILE).read_text(encoding="utf-8")))
    except (TypeError, ValueError, AttributeError) as error:
        raise FtkitError(f"{path / TASK_FILE}: not a task: {error}") from error
    return task, *load_pretrained(path, task)
