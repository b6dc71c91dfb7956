"""Where a model keeps its layers, its head, and what is no weight at all."""

from typing import Any

import peft
from torch import nn

from ftkit.errors import FtkitError


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Say for each parameter how far below the head it lies.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel

    Returns
    -------
    dict
        Parameter name → 0 for the head, 1 for the top layer (and a pooler or final norm above it),
        then 2, 3, …, and the number of layers plus 1 for the embeddings.

    Raises
    ------
    FtkitError
        The model has no list of layers, or two: an encoder's and a decoder's.

    Examples
    --------
    >>> depths = layer_depths(model)  # doctest: +SKIP
    >>> depths["classifier.weight"], depths["bert.encoder.layer.5.output.dense.weight"]
    (0, 1)
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise FtkitError(
            f"{type(model).__name__} has two lists of layers, an encoder's and a decoder's, so "
            f"none is the top of all. Name parameters by patterns, such as "
            f'["*decoder.layers.2.*"], and give all layers one learning rate.'
        )
    plain, names, base = _find_body(model)
    layers = layer_list(plain)
    path = names[id(layers)] + "."
    depths, above = {}, False
    for name, _ in model.named_parameters():
        if not name.startswith(base):
            depths[name] = 0
        elif name.startswith(path):
            depths[name] = len(layers) - int(name[len(path) :].split(".")[0])
            above = True
        else:
            depths[name] = 1 if above else len(layers) + 1
    return depths


def _find_body(model: nn.Module) -> tuple[Any, dict[int, str], str]:
    """Return the model without LoRA, its modules' names by id, and the body's name."""
    plain: Any = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    names = {id(module): name for name, module in model.named_modules()}
    return plain, names, names[id(plain.base_model)]


def head_parameters(model: nn.Module) -> set[str]:
    """Return the names of the head's parameters: what lies outside the pretrained body."""
    base = _find_body(model)[2]
    return {name for name, _ in model.named_parameters() if not name.startswith(base)}


def layer_list(model: nn.Module) -> nn.ModuleList:
    """Return a model's list of layers, lowest first; of an encoder with a decoder, the encoder's.

    Raises
    ------
    FtkitError
        It has none.
    """
    size = model.config.num_hidden_layers  # type: ignore[union-attr]
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == size:
            return module
    raise FtkitError(
        f"{type(model).__name__} has no list of {size} layers; name its parameters by patterns, "
        f'such as ["*.bias"].'
    )


def computed_parameters(model: nn.Module) -> set[str]:
    """Return the names of tables of sines: parameters by class, but computed, never learnt."""
    tables = [m for m in model.modules() if "Sinusoidal" in type(m).__name__]
    ids = {id(parameter) for table in tables for parameter in table.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}
