"""Save a trained model whole or not at all, with the task it learned, and load it again."""

import json
import os
from pathlib import Path
from typing import Any

import peft
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from ftkit.atomic import check_can_be_made, complete_or_invisible
from ftkit.errors import FtkitError
from ftkit.models.layers import without_lora
from ftkit.models.loading import load_pretrained
from ftkit.models.lora import merged_weights, unmerged_state_dict
from ftkit.paths import CHECKPOINTS, TASK_FILE, TRAINING_LOG
from ftkit.tasks import Task, task_from_dict

UNREADABLE = (  # what transformers raises where a config or a tokenizer is not of its form
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError),
    *(RecursionError, SafetensorError, StrictDataclassError, TypeError, ValueError),
)


def save_pretrained(
    output_dir: str | Path,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    *,
    overwrite: bool = False,
    record: dict[str, Any] | None = None,
) -> Path:
    """Save model, tokenizer and task so that plain transformers, and `load_saved`, load them.

    LoRA is merged in what is written; `model` stays as it is. The folder appears whole or not at
    all.

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
        The folder exists and `overwrite` is False, or it cannot be written.
    """
    target = Path(output_dir)
    check_output_dir(target, overwrite=overwrite)
    try:
        with complete_or_invisible(target) as beside:
            _save_weights(model, beside)
            tokenizer.save_pretrained(beside)
            for name, values in ((TASK_FILE, task.to_dict()), ("training.json", record)):
                if values is not None:
                    text = json.dumps(values, ensure_ascii=False, indent=2)
                    path, errors = beside / name, "backslashreplace"  # file names may be no UTF-8
                    path.write_text(text + "\n", encoding="utf-8", errors=errors)
    except (OSError, SafetensorError) as error:
        kept = " What stood there is as it was." if target.exists() else ""
        raise FtkitError(f"{target}: could not be written: {error}.{kept}") from error
    return target


def _save_weights(model: Any, folder: Path) -> None:
    """Write config and weights; what LoRA updates is merged matrix by matrix, in the file."""
    if not isinstance(model, peft.PeftModel):
        model.save_pretrained(folder)
        return
    plain, weights = without_lora(model), unmerged_state_dict(model)
    plain.save_pretrained(folder, state_dict=dict(weights))
    places = {name: at for path in folder.glob("*.safetensors") for name, at in _places(path)}
    for name, tensor in merged_weights(model):
        if name not in places:  # transformers writes this architecture under other names
            merged = {**weights, **dict(merged_weights(model))}
            plain.save_pretrained(folder, state_dict=merged)
            return
        path, start = places[name]
        with path.open("r+b") as file:
            file.seek(start)
            file.write(tensor.cpu().contiguous().view(torch.uint8).numpy().data)


def _places(path: Path) -> list[tuple[str, tuple[Path, int]]]:
    """Return where in a safetensors file each tensor's bytes begin.

    The file begins with the size of its header, 8 bytes, and the header, JSON.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    starts = {name: 8 + size + tensor["data_offsets"][0] for name, tensor in header.items()}
    return [(name, (path, start)) for name, start in starts.items()]


def check_output_dir(output_dir: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Raise `FtkitError` where training into this folder would fail, or destroy something."""
    check_can_be_made(output_dir)
    if not output_dir.exists():
        return
    held = [path.name for path in output_dir.iterdir()] if output_dir.is_dir() else ["a file"]
    begun = CHECKPOINTS in held or (TRAINING_LOG in held and TASK_FILE not in held)
    if begun and not (overwrite or resume):
        what = "checkpoints" if CHECKPOINTS in held else "the log"
        raise FtkitError(
            f"{output_dir} holds {what} of a run that did not end. Go on with --resume, or "
            f"begin anew with --overwrite."
        )
    if not begun and not overwrite:
        raise FtkitError(f"{output_dir} exists. Choose another output, or say --overwrite.")
    if TASK_FILE not in held and set(held) - {CHECKPOINTS, TRAINING_LOG}:
        raise FtkitError(
            f"{output_dir} was not written by ftkit (it holds no {TASK_FILE}), so it is not "
            f"overwritten. Choose another output."
        )


def load_saved(
    folder: str | Path,
) -> tuple[Task, PreTrainedTokenizerBase, PreTrainedModel]:
    """Load what `save_pretrained` wrote: task, tokenizer and model.

    Raises
    ------
    FtkitError
        The folder is missing, holds no task, weights or config, or one of them is damaged.
    """
    path = Path(folder)
    if not os.path.isdir(path):  # False, too, for what can be no name
        raise FtkitError(f"{path}: no such folder. Expected one that `ftkit train` wrote.")
    if not (path / TASK_FILE).is_file():
        raise FtkitError(
            f"{path}: holds no {TASK_FILE}. Expected a folder that `ftkit train` wrote."
        )
    try:
        task = task_from_dict(json.loads((path / TASK_FILE).read_text(encoding="utf-8")))
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FtkitError(f"{path / TASK_FILE}: not a task: {error}") from error
    try:
        _check_layers(path)
        return task, *load_pretrained(path, task, new_head=False)
    except FtkitError:
        raise
    except Exception as error:
        if not (isinstance(error, UNREADABLE) or type(error) is Exception):  # as tokenizers raises
            raise
        raise FtkitError(
            f"{path}: config, tokenizer or weights are not as `ftkit train` wrote them: "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_layers(folder: Path) -> None:
    """Raise `FtkitError` where the config asks for more layers than any weights could fill.

    Transformers makes all layers before it looks at the weights.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    layers = getattr(config, "num_hidden_layers", 0)
    n_tensors = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            n_tensors += len(weights.keys())
    if layers > n_tensors > 0:
        raise FtkitError(
            f"{folder / 'config.json'}: num_hidden_layers is {layers}, and the weights hold only "
            f"{n_tensors} tensors. Expected the config that `ftkit train` wrote."
        )
