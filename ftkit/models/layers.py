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
    if _has_decoder(model):
        raise FtkitError(
            f"{type(without_lora(model)).__name__} has two lists of layers, an encoder's and a "
            f"decoder's, so none is the top of all. Name parameters by patterns, such as "
            f'["*decoder.layers.2.*"], and give all layers one learning rate.'
        )
    names = {id(module): name for name, module in model.named_modules()}
    head, parts = head_parameters(model), _layer_lists(model)
    paths = tuple(names[id(part)] + "." for part in parts)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    depths, above = dict[str, int](), False
    for name, parameter in model.named_parameters():
        path = next((path for path in paths if name.startswith(path)), None)
        if name in head:
            depths[name] = 0
        elif path:
            depths[name] = len(parts[0]) - int(name[len(path) :].split(".")[0])
            above = True
        else:  # DeBERTa and MPNet keep a table for all layers above them
            lowest = not above or "embed" in name or id(parameter) in tables
            depths[name] = len(parts[0]) + 1 if lowest else 1
    return depths


def _has_decoder(model: nn.Module) -> bool:
    """Say whether an encoder has a decoder beside it; T5 can come without."""
    ends = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    return getattr(model.config, "is_encoder_decoder", False) and "decoder" in ends


def without_lora(model: nn.Module) -> Any:
    """Return the model inside a `peft.PeftModel`; any other comes back as it is."""
    return model.get_base_model() if isinstance(model, peft.PeftModel) else model


def head_parameters(model: nn.Module) -> set[str]:
    """Return the names of the head's parameters: what lies outside the pretrained body.

    A head whose weights are the input embeddings has none of its own.
    """
    plain, named = without_lora(model), list(model.named_parameters())
    body: Any = plain.base_model
    if body is not plain:
        ids = {id(parameter) for parameter in body.parameters()}
        return {name for name, parameter in named if id(parameter) not in ids}
    heads = [part for part in plain.children() if isinstance(part, nn.Linear)]  # T5 has no body
    ids = {id(parameter) for head in heads for parameter in head.parameters()}
    ids -= {id(parameter) for parameter in plain.get_input_embeddings().parameters()}
    return {name for name, parameter in named if id(parameter) in ids}


def layer_list(model: nn.Module) -> nn.ModuleList:
    """Return a model's list of layers, lowest first; of an encoder with a decoder, the encoder's.

    Raises
    ------
    FtkitError
        It has none, or several lists that hold a part of each layer.
    """
    layers, *others = _layer_lists(model)
    if others:
        raise FtkitError(
            f"{type(without_lora(model)).__name__} keeps its layers in {len(others) + 1} lists, a "
            f"part of each layer in each; expected one list of layers."
        )
    return layers


def _layer_lists(model: nn.Module) -> list[nn.ModuleList]:
    """Return the list of layers; XLM has several side by side: attentions, norms, …"""
    plain = without_lora(model)
    size = plain.config.get_text_config().num_hidden_layers
    for module in plain.modules():
        lists = [part for part in module.children() if isinstance(part, nn.ModuleList)]
        lists = [part for part in lists if len(part) == size and not _holds_lists(part)]
        if lists:
            return lists
    raise FtkitError(
        f"{type(plain).__name__} has no list of {size} layers; name its parameters by patterns, "
        f'such as ["*.bias"].'
    )


def _holds_lists(layers: nn.ModuleList) -> bool:
    """Say whether a list's members are lists themselves, as Funnel's blocks are."""
    return any(isinstance(layer, nn.ModuleList) for layer in layers)


def computed_parameters(model: nn.Module) -> set[str]:
    """Return the names of tables of sines: parameters by class, but computed, never learnt."""
    tables = [m for m in model.modules() if "Sinusoidal" in type(m).__name__]
    ids = {id(parameter) for table in tables for parameter in table.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}
