"""Whether a checkpoint can do a task; and what tokenizer and model must know of each other."""

import inspect
import warnings
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ftkit.errors import FtkitError
from ftkit.tasks import TASKS, Task

POSITIONS = (
    "max_position_embeddings",
    "max_encoder_position_embeddings",
    "max_decoder_position_embeddings",
)
TOKENS_OF_PROOF = 8


class PaddingWarning(UserWarning):
    """The tokenizer had no token for padding; another one takes its part."""


def check_head(source: str, task: Task, config: PreTrainedConfig) -> None:
    """Raise `FtkitError` where transformers has no head for the task on this architecture."""
    kind, wanted = type(config), task.auto_model
    what = f"{source}: an architecture of type {config.model_type}"
    if kind not in wanted._model_mapping:
        able = [name for name, other in TASKS.items() if kind in other.auto_model._model_mapping]
        raise FtkitError(
            f"{what} has no head for {task.name}. {_for_others(able)} For {task.name} take one "
            f"such as {task.default_checkpoint}."
        )
    if not config.is_encoder_decoder:
        return
    if wanted in (AutoModelForCausalLM, AutoModelForMaskedLM):
        raise FtkitError(
            f"{what} is an encoder with a decoder, which writes a text for a text; alone, neither "
            f"does {task.name}. Use it for seq2seq; for {task.name} take one such as "
            f"{task.default_checkpoint}."
        )
    if getattr(config, "decoder_start_token_id", None) is None:
        raise FtkitError(
            f"{source}: config.json has no decoder_start_token_id, so that the decoder cannot "
            f"begin. Set it there: T5 and Marian begin with the padding token "
            f"(pad_token_id is {config.pad_token_id}), BART with the end-of-text token."
        )


def _for_others(able: list[str]) -> str:
    return f"It can be trained for: {', '.join(able)}." if able else "It is for none of the tasks."


@torch.no_grad()
def check_causal(source: str, task: Task, model: PreTrainedModel) -> None:
    """Raise `FtkitError` where a causal language model sees the tokens that it should predict.

    Proved on one row: another last token must not move an earlier logit.
    """
    if task.auto_model is not AutoModelForCausalLM:
        return
    size = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
    ids = torch.arange(2 * TOKENS_OF_PROOF).view(2, -1) % size
    ids[1, :-1] = ids[0, :-1]
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1]
    moved = (logits[0] - logits[1]).abs().max()
    if moved > 1e-5 * logits.abs().max():
        raise FtkitError(
            f"{source}: {type(model).__name__} looks ahead: a later token changes what it says of "
            f"an earlier one, so that it would read the answers of {task.name}. Use masked-lm, or "
            f"take a decoder such as {task.default_checkpoint}."
        )


def fit_tokenizer(
    source: str, task: Task, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> None:
    """Tell the tokenizer what the model reads, and how much of it; agree on the padding token.

    Raises
    ------
    FtkitError
        Neither names a padding token, and the tokenizer has none that could take its part.

    Warns
    -----
    PaddingWarning
        The end-of-text token takes its part.
    """
    known, config = inspect.signature(model.forward).parameters, model.config
    unread = {"token_type_ids"} if getattr(config, "type_vocab_size", 2) < 2 else set()
    tokenizer.model_input_names = [
        name
        for name in tokenizer.model_input_names
        if name not in unread and (name in known or name == "attention_mask")
    ]
    limit = position_limit(model)
    if limit is not None and limit < tokenizer.model_max_length:
        tokenizer.model_max_length = limit
    _agree_on_padding(source, task, tokenizer, config.get_text_config())


def position_limit(model: PreTrainedModel) -> int | None:
    """Return the most tokens that a model's positions reach; None where it counts no positions.

    T5 and XLNet know only distances. RoBERTa and its kin begin to count after the padding index.
    """
    config = model.config.get_text_config()
    sizes = [getattr(config, name, None) or 0 for name in POSITIONS]
    sizes = [size for size in sizes if size > 0]  # XLNet says -1
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.endswith("position_embeddings"):
            sizes.append(module.num_embeddings)
            if module.padding_idx is not None:
                sizes.append(module.num_embeddings - module.padding_idx - 1)
    return min(sizes, default=None)


def _agree_on_padding(source: str, task: Task, tokenizer: Any, config: Any) -> None:
    known = config.pad_token_id
    if known is not None and not 0 <= known < getattr(config, "vocab_size", 0):
        known = None
    if tokenizer.pad_token is None and known is not None and known < len(tokenizer):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(known)
    elif tokenizer.pad_token is None and known is None and task.new_head:
        if tokenizer.eos_token is None:
            raise FtkitError(
                f"{source}: the tokenizer has neither a padding token (pad_token) nor an "
                f"end-of-text token (eos_token), and {task.name} needs one to fill short rows "
                f"with. Set one and save the tokenizer again."
            )
        tokenizer.pad_token = tokenizer.eos_token
        warnings.warn(
            f'{source}: the tokenizer has no padding token; its end-of-text token "'
            f'{tokenizer.eos_token}" takes the part, in the saved tokenizer too.',
            PaddingWarning,
            stacklevel=3,
        )
    config.pad_token_id = tokenizer.pad_token_id if known is None else known


def pad_left(model: PreTrainedModel) -> None:
    """Let a model whose head reads the last token find it there, as XLNet's does.

    Batches are padded on the right; each row is turned until its padding stands on the left, as
    the tokenizer of such a model pads.
    """
    summary: Any = getattr(model, "sequence_summary", None)
    if summary is not None and summary.summary_type == "last":
        model.register_forward_pre_hook(_turn_rows, with_kwargs=True)


def _turn_rows(model: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    mask = kwargs.get("attention_mask")
    if mask is None:
        return args, kwargs
    padding = mask.flip(1).argmax(1, keepdim=True)  # (batch, 1): how much stands on the right
    places = (torch.arange(mask.shape[1], device=mask.device) - padding) % mask.shape[1]
    turned = {
        name: value.gather(1, places)
        for name, value in kwargs.items()
        if isinstance(value, torch.Tensor) and value.shape == mask.shape
    }
    return args, {**kwargs, **turned}
