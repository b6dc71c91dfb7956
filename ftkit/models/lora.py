"""LoRA (Hu et al. 2021): small trained matrices beside frozen ones, and both added up again."""

import copy
import re
from collections.abc import Iterator, Sequence
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ftkit.errors import FtkitError
from ftkit.models.layers import head_parameters, without_lora

LINEAR = (nn.Linear, Conv1D)  # GPT-2 keeps the transpose of a linear layer's matrix
IN_A_LAYER = re.compile(r"\.\d+\.")


def add_lora(
    model: PreTrainedModel,
    *,
    r: int = 8,
    lora_alpha: int = 16,
    lora_dropout: float = 0.0,
    target_modules: Sequence[str] | str | None = None,
    seed: int = 42,
) -> peft.PeftModel:
    """Freeze the model and add low-rank updates to its linear layers; a new head trains in full.

    W x becomes W x + (lora_alpha / r) B A x, with A of r rows, B of r columns and zero at first
    (LoRA, Hu et al. 2021). The head of a language model was pretrained, and often is the table of
    input embeddings: it stays as it is.

    Parameters
    ----------
    model : PreTrainedModel
        Its linear layers are wrapped in place.
    r : int
        Rank of the update.
    lora_alpha : int
        The update is scaled by ``lora_alpha / r``.
    lora_dropout : float
        Share of inputs dropped before A.
    target_modules : sequence of str or str, optional
        Which modules get an update, as peft reads it: ends of their names, such as
        ``["query", "value"]``, or a regular expression. By default every linear layer of the body.
    seed : int
        Decides A; the global generator is left alone.

    Returns
    -------
    peft.PeftModel
        Train it as any model; `merge_lora` makes it a plain one again.

    Raises
    ------
    FtkitError
        Nothing matches `target_modules`, or no layer of the model is a linear one.

    Examples
    --------
    >>> adapted = add_lora(model, r=4, target_modules=["query", "value"])  # doctest: +SKIP
    """
    body = _linear_layers(model)
    new_head = set() if model.get_output_embeddings() else head_parameters(model)
    chosen = target_modules if isinstance(target_modules, str) else list(target_modules or body)
    config = peft.LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=chosen,
        modules_to_save=sorted({name.split(".")[0] for name in new_head}),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return peft.get_peft_model(model, config)  # type: ignore[return-value]
    except ValueError as error:
        raise FtkitError(
            f"LoRA finds nothing to update in {type(model).__name__}: {error} Its linear layers "
            f"end in: {', '.join(sorted({name.rpartition('.')[2] for name in body}))}."
        ) from error


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the names of the body's linear layers, once some are known to lie in its layers."""
    heads = {name.rpartition(".")[0] for name in head_parameters(model)}
    output: Any = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, LINEAR) and name not in heads and module is not output
    ]
    if not any(IN_A_LAYER.search(name) for name in names):
        raise FtkitError(
            f"LoRA updates linear layers, and {type(model).__name__} has none in its layers. "
            f'Expected another way to tune, such as "full", "head" or "top:1".'
        )
    return names


def merge_lora(model: nn.Module) -> nn.Module:
    """Return a plain model, the low-rank updates added to its weights; others come back as is."""
    return model.merge_and_unload() if isinstance(model, peft.PeftModel) else model  # type: ignore[operator]


def unmerged_state_dict(model: peft.PeftModel) -> dict[str, torch.Tensor]:
    """Return the weights under the names of the plain model, without LoRA's updates; no copies."""
    plain: Any = without_lora(model)
    tensors = plain.state_dict()
    for path, module in plain.named_modules():
        if isinstance(module, BaseTunerLayer):
            found = module.get_base_layer().state_dict()
        elif isinstance(module, peft.utils.ModulesToSaveWrapper):
            found = module.modules_to_save[module.active_adapters[0]].state_dict()
        else:
            continue
        tensors = {name: t for name, t in tensors.items() if not name.startswith(path + ".")}
        tensors.update({f"{path}.{name}": tensor for name, tensor in found.items()})
    return tensors


@torch.no_grad()
def merged_weights(model: peft.PeftModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Give each weight that LoRA updates, merged, and its name in the plain model; one at a time.

    The model stays as it is.
    """
    for path, module in without_lora(model).named_modules():
        if isinstance(module, BaseTunerLayer):
            layer: Any = copy.deepcopy(module)
            layer.merge()
            yield f"{path}.weight", layer.get_base_layer().weight.detach()
