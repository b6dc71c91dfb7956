"""What is exported: a folder of ftkit, a LoRA adapter with its base, or any plain checkpoint."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ftkit.errors import FtkitError
from ftkit.models import load_pretrained, load_saved, locate
from ftkit.paths import TASK_FILE
from ftkit.tasks import CausalLM, Task, task_from_dict

RECORD = "training.json"  # how a model was trained, beside its weights
ADAPTER = "adapter_config.json"  # peft's, beside the adapter's weights


@dataclass
class Source:
    """A model ready to be exported.

    Attributes
    ----------
    task, tokenizer, model
        The model plain, LoRA merged, in float32 and in eval mode.
    untouched : str or None
        The checkpoint that training began with, where the folder says which.
    record : dict or None
        What ``training.json`` holds.
    notes : list of str
        What was changed or could not be found, one sentence each.
    """

    task: Task
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    untouched: str | None = None
    record: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def open_model(name: str | Path) -> Source:
    """Load what is to be exported.

    Parameters
    ----------
    name : str or Path
        A folder that `save_pretrained` or peft wrote; or any language model that
        `load_pretrained` finds.

    Raises
    ------
    FtkitError
        See `load_saved` and `load_pretrained`; or an adapter whose base or task is not known.
    """
    folder = Path(name)
    if (folder / ADAPTER).is_file():
        return _open_adapter(folder)
    if not (folder / TASK_FILE).is_file():
        task = CausalLM(("text",))
        return Source(task, *load_pretrained(name, task))
    task, tokenizer, model = load_saved(folder)
    record = _read_json(folder / RECORD) if (folder / RECORD).is_file() else None
    untouched = record.get("checkpoint") if record else None
    return Source(task, tokenizer, model, untouched, record)


def _open_adapter(folder: Path) -> Source:
    """Load an adapter's base, put the adapter on it, and add it to the weights."""
    config = _read_json(folder / ADAPTER)
    base = config.get("base_model_name_or_path")
    if not base:
        raise FtkitError(f"{folder / ADAPTER}: names no base_model_name_or_path to add LoRA to.")
    if not (folder / "adapter_model.safetensors").is_file():
        raise FtkitError(
            f"{folder}: holds no adapter_model.safetensors; pickled weights are not loaded."
        )
    if (folder / TASK_FILE).is_file():
        task = task_from_dict(_read_json(folder / TASK_FILE))
    elif config.get("task_type") == "CAUSAL_LM":
        task = CausalLM(("text",))
    else:
        raise FtkitError(
            f"{folder}: holds no {TASK_FILE}, and its adapter is for {config.get('task_type')}; "
            f"expected a folder that `ftkit train` wrote, or an adapter of a language model."
        )
    tokenizer, model = load_pretrained(base, task)
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    adapted: Any = peft.PeftModel.from_pretrained(model, folder)
    note = f"LoRA of rank {config.get('r')} is added to the weights of {locate(base)}."
    return Source(task, tokenizer, adapted.merge_and_unload().eval(), base, None, [note])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FtkitError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise FtkitError(f"{path}: holds {type(values).__name__}; expected an object.")
    return values
