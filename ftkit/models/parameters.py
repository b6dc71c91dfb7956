"""Decide which parameters train, and how fast: presets, LoRA, layer-wise learning rates."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ftkit.errors import FtkitError, closest
from ftkit.models.layers import computed_parameters, head_parameters, layer_depths, without_lora

PRESETS = ("full", "body", "head", "top:K", "bias")


def set_trainable(model: nn.Module, tune: str | Sequence[str]) -> None:
    """Freeze every parameter but the named ones.

    Parameters
    ----------
    model : PreTrainedModel
        Changed in place.
    tune : str or sequence of str
        ``"full"``: all, but for tables of sines. ``"body"``: all of that but the input embeddings,
        which are most of a multilingual model. ``"head"``: what pretraining did not hold.
        ``"top:K"``: the head and the K layers below it, where there is one list of layers (an
        encoder with a decoder has two). ``"bias"``: the head and every bias (BitFit, Ben Zaken et
        al. 2022). Else patterns of parameter names, such as ``["bert.encoder.layer.5.*",
        "classifier.*"]``.

    Raises
    ------
    FtkitError
        An unknown preset, more layers than there are, a pattern that matches nothing, or a preset
        that would train nothing of this model: it has no biases, or no head of its own.

    Examples
    --------
    >>> set_trainable(model, "top:2")  # doctest: +SKIP
    >>> count_parameters(model)  # doctest: +SKIP
    (3697922, 22713986)
    """
    chosen = _choose(model, tune)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)


def _choose(model: nn.Module, tune: str | Sequence[str]) -> set[str]:
    fixed = computed_parameters(model)
    names = [name for name, _ in model.named_parameters() if name not in fixed]
    if tune == "full":
        return set(names)
    if isinstance(tune, str) and not any(sign in tune for sign in "*.?["):
        return _choose_preset(model, tune, names)
    patterns = [tune] if isinstance(tune, str) else list(tune)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise FtkitError(f'No parameter matches "{pattern}". {closest(pattern, names)}')
    return {n for n in names if any(fnmatchcase(n, pattern) for pattern in patterns)}


def _choose_preset(model: nn.Module, tune: str, names: list[str]) -> set[str]:
    if tune == "body":
        plain: Any = without_lora(model)
        table = {id(parameter) for parameter in plain.get_input_embeddings().parameters()}
        parameters = dict(model.named_parameters())
        return {name for name in names if id(parameters[name]) not in table}
    if tune in ("bias", "head"):
        head = head_parameters(model) & set(names)
        biases = {n for n in names if n.endswith("bias") and n not in head}
        _check_some(model, tune, head if tune == "head" else biases)
        return head | biases if tune == "bias" else head
    _check_preset(tune)
    depths = layer_depths(model)
    return {n for n in names if depths[n] <= _top(tune, max(depths.values()) - 1)}


def _check_some(model: nn.Module, tune: str, chosen: set[str]) -> None:
    """Raise `FtkitError` where a preset finds nothing of its own to train."""
    if chosen:
        return
    lacking = {
        "head": "no head of its own: its output layer is the table of input embeddings",
        "bias": "no biases but those of its head",
    }
    others = {"head": '"lora", "body" or "full"', "bias": '"head", "lora" or "full"'}
    raise FtkitError(
        f'Cannot tune "{tune}": {type(without_lora(model)).__name__} has {lacking[tune]}. Expected '
        f"another way, such as {others[tune]}."
    )


def _check_preset(tune: str) -> None:
    kind, _, number = tune.partition(":")
    if kind != "top" or not number.isdecimal():
        raise FtkitError(f'Cannot tune "{tune}". {closest(tune, PRESETS)}')


def _top(tune: str, layers: int) -> int:
    number = tune.partition(":")[2]
    if number.lstrip("0") not in map(str, range(1, layers + 1)):
        raise FtkitError(f'Cannot tune "{tune}": this model has layers 1 to {layers}.')
    return int(number)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count the trainable parameters and all parameters.

    Examples
    --------
    >>> count_parameters(nn.Linear(3, 2))
    (8, 8)
    """
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    *,
    head_learning_rate: float | None = None,
    layer_decay: float = 1.0,
    weight_decay: float = 0.0,
    names: set[str] | None = None,
) -> list[dict]:
    """Group parameters for an optimizer: one learning rate a depth, no decay on biases and norms.

    The top layer learns at `learning_rate`, each layer below at `layer_decay` times the rate above
    it (ULMFiT, Howard and Ruder 2018), and the head at `head_learning_rate`.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
    learning_rate, head_learning_rate : float
        Without a rate of its own, the head learns at `learning_rate`.
    layer_decay : float
        1.0 treats all layers alike.
    weight_decay : float
    names : set of str, optional
        The parameters to group; by default those that train now.

    Returns
    -------
    list of dict
        For ``torch.optim``: ``params``, ``lr``, ``weight_decay``, and ``names``.
    """
    depths = layer_depths(model) if layer_decay != 1.0 or head_learning_rate else {}
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in model.named_parameters():
        if not (parameter.requires_grad if names is None else name in names):
            continue
        depth = depths.get(name, 1)
        rate = _layer_rate(learning_rate, layer_decay, depth)
        rate = head_learning_rate if depth == 0 and head_learning_rate else rate
        decay = weight_decay if parameter.dim() > 1 else 0.0  # biases and norms are vectors
        group = groups.setdefault(
            (rate, decay), {"params": [], "names": [], "lr": rate, "weight_decay": decay}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _layer_rate(learning_rate: float, layer_decay: float, depth: int) -> float:
    try:
        return learning_rate * layer_decay ** max(depth - 1, 0)
    except OverflowError as error:
        raise FtkitError(
            f"layer_decay is {layer_decay}, and its power of {depth - 1} is too large; expected "
            f"a share, such as 0.9."
        ) from error


def freeze_modules(model: nn.Module) -> None:
    """Put the model in train mode, and every module whose parameters are all frozen in eval mode.

    A frozen layer that still drops activations at random adds noise to what the head sees. The
    same goes for a module without parameters between two frozen ones, below all that trains:
    GPT-2's dropout after the embeddings.
    """
    model.train()
    between, below = list[nn.Module](), True
    for module in model.modules():
        parameters, own = list(module.parameters()), list(module.parameters(recurse=False))
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
        if not parameters:
            between.append(module)
        elif own and below:
            below = not any(p.requires_grad for p in own)
            for passed in between if below else ():
                passed.eval()
            between = []


@contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """Give each module its mode back at the end: train or eval."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
