"""Write a language model of the Llama family as GGUF, which llama.cpp and Ollama run."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, get_tensor_name_map
from gguf.constants import GGML_QUANT_VERSION, MODEL_ARCH
from gguf.quants import quantize
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers import __version__ as transformers_version
from transformers.utils import logging

from ftkit.errors import FtkitError, raise_problems
from ftkit.export.modelfile import write_modelfile
from ftkit.export.proof import Answer, Bounds, answers_of, weight_error
from ftkit.export.source import Source
from ftkit.export.vocabulary import (
    HARD_TEXT,
    add_vocabulary,
    check_tokenizer,
    set_named_rule,
)

FAMILY = ("LlamaForCausalLM", "MistralForCausalLM")  # what llama.cpp calls "llama"
TYPES = {
    # name: (the file's type, that of matrices, that of the embeddings and the output)
    "f16": (LlamaFileType.MOSTLY_F16, GGMLQuantizationType.F16, GGMLQuantizationType.F16),
    "q8_0": (LlamaFileType.MOSTLY_Q8_0, GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q8_0),
    "q4_1": (LlamaFileType.MOSTLY_Q4_1, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0),
}
BOUNDS = {  # beyond what two models measured, see `tests/export/test_gguf.py`
    "f16": Bounds(weights=0.002, kl=1e-4, agreement=0.98),
    "q8_0": Bounds(weights=0.02, kl=0.01, agreement=0.95),
    "q4_1": Bounds(weights=0.25, kl=0.3, agreement=0.7),
}
COMPARE_UNTOUCHED = True  # rounding may undo what training did
BLOCK = 32  # weights that share a scale, in both quantised types
ELSEWHERE = "llama.cpp's convert_hf_to_gguf.py knows more architectures."


def check(source: Source) -> None:
    """Raise one `FtkitError` that lists everything which the file could not hold."""
    kind, config = type(source.model).__name__, source.model.config
    if kind not in FAMILY:
        raise FtkitError(
            f"GGUF is written for the Llama family ({', '.join(FAMILY)}), and this is a {kind}. "
            f"{ELSEWHERE}"
        )
    problems = []
    if (rope := config.rope_parameters["rope_type"]) != "default":
        problems.append(f'Its positions are of the kind "{rope}"; expected "default". {ELSEWHERE}')
    if config.hidden_act != "silu":
        problems.append(f'Its activation is "{config.hidden_act}"; llama.cpp computes "silu".')
    biases = [name for name in source.model.state_dict() if name.endswith(".bias")]
    if biases:
        problems.append(f"It has {len(biases)} biases, such as {biases[0]}, and GGUF no place.")
    raise_problems([*problems, *check_tokenizer(source.tokenizer, config.vocab_size)])


def write(source: Source, path: Path, kind: str) -> list[str]:
    """Write weights, shape, tokenizer and chat template into one file, and a Modelfile beside it.

    Parameters
    ----------
    source : Source
        See `check`.
    path : Path
        In a folder that exists.
    kind : {"f16", "q8_0", "q4_1"}
        ``q8_0``: blocks of 32 whole numbers of eight bits with one scale. ``q4_1``: of four bits
        with a scale and a minimum; the embeddings stay in ``q8_0``, as in published files.

    Returns
    -------
    list of str
        What the file holds otherwise than the model, one sentence each.
    """
    model, tokenizer = source.model, source.tokenizer
    file_type, inner, outer = TYPES[kind]
    writer = GGUFWriter(None, "llama")
    writer.add_file_type(file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    notes = _add_shape(writer, model.config)
    add_vocabulary(writer, tokenizer, model.config.vocab_size, end_tokens(model, tokenizer))
    kept = 0
    for name, weights in named_tensors(model).items():
        wanted = outer if name in ("token_embd.weight", "output.weight") else inner
        if weights.ndim == 1:
            wanted = GGMLQuantizationType.F32
        elif weights.shape[-1] % BLOCK and wanted != GGMLQuantizationType.F16:
            wanted, kept = GGMLQuantizationType.F16, kept + 1
        with np.errstate(over="ignore"):  # what f16 cannot hold is found when it is read
            writer.add_tensor(name, quantize(weights, wanted), raw_dtype=wanted)
    if kept:
        notes.append(f"{kept} matrices stay in f16: their rows are no multiple of {BLOCK} wide.")
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return notes + write_modelfile(path, tokenizer, end_tokens(model, tokenizer))


def _add_shape(writer: GGUFWriter, config: Any) -> list[str]:
    """Add the numbers of the config; return a note where the file states a smaller one."""
    heads = config.num_attention_heads
    window = getattr(config, "sliding_window", None) or config.max_position_embeddings
    context = min(window, config.max_position_embeddings)
    writer.add_context_length(context)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_dim(config))
    writer.add_value_length(_head_dim(config))
    writer.add_rope_dimension_count(_head_dim(config))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if context == config.max_position_embeddings:
        return []
    return [
        f"The context is {context} tokens in place of {config.max_position_embeddings}: llama.cpp "
        f"gives this architecture no sliding window."
    ]


def _head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def named_tensors(model: Any) -> dict[str, np.ndarray]:
    """Return the weights, float32, under GGUF's names and in its order of rows.

    Parameters
    ----------
    model : PreTrainedModel
        Of the Llama family.

    Returns
    -------
    dict of ndarray
        Without ``output.weight`` where the embeddings serve as output.
    """
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    weights = model.state_dict()
    if torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"]):
        del weights["lm_head.weight"]
    tensors = {}
    for key, tensor in weights.items():
        values = tensor.detach().float().cpu().numpy()
        if key.endswith("q_proj.weight"):
            values = interleave(values, model.config.num_attention_heads)
        if key.endswith("k_proj.weight"):
            values = interleave(values, model.config.num_key_value_heads)
        tensors[names.get_name(key, try_suffixes=(".weight",))] = values
    return tensors


def interleave(weights: np.ndarray, n_heads: int) -> np.ndarray:
    """Put the rows of a query or key projection into llama.cpp's order.

    Both turn pairs of a head's dimensions by an angle (RoPE): transformers pairs dimension i with
    i + head_dim / 2, llama.cpp its neighbour. So rows 0, 1, 2, 3 become 0, 2, 1, 3.

    Parameters
    ----------
    weights : ndarray of shape (n_heads * head_dim, hidden_size)
    n_heads : int
        Those of keys may be fewer than those of queries.

    Returns
    -------
    ndarray of the same shape

    Examples
    --------
    >>> interleave(np.arange(8)[:, None], n_heads=2)[:, 0].tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    halves = weights.reshape(n_heads, 2, weights.shape[0] // n_heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(weights.shape)


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return every token that ends an answer: the tokenizer's own first, then generation's."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return list(dict.fromkeys(i for i in (tokenizer.eos_token_id, *ends) if i is not None))


def read(path: Path, source: Source, rows: Dataset) -> tuple[str, Answer, float]:
    """Load the file by transformers, and compare tokens and weights.

    Transformers knows a tokenizer's rule of splitting only in part, so the rule that the file names
    is set here.

    Returns
    -------
    reader : str
    answer : callable
        The logits for a batch.
    weights : float
        Largest relative error of a matrix.

    Raises
    ------
    FtkitError
        The tokenizer cuts a text otherwise than the model's own.
    """
    options: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False}
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, **options, dtype=torch.float32, attn_implementation="eager"
        )
    finally:
        if bar:
            logging.enable_progress_bar()
    set_named_rule(tokenizer, path)
    _compare_tokens(tokenizer, source.tokenizer, rows)
    error = weight_error(source.model, model.eval())
    return f"transformers {transformers_version}", answers_of(model), error


def _compare_tokens(tokenizer: Any, own: Any, rows: Dataset) -> None:
    """Raise `FtkitError` where the tokenizer that was read cuts a text otherwise."""
    rules = [t.backend_tokenizer.pre_tokenizer for t in (own, tokenizer)]
    if rules[0].pre_tokenize_str(HARD_TEXT) != rules[1].pre_tokenize_str(HARD_TEXT):
        raise FtkitError(
            f"The gguf export is refused and removed: its tokenizer cuts {HARD_TEXT[:60]!r}… by "
            f"another rule than the model's."
        )
    for text in (HARD_TEXT, *map(own.decode, rows["input_ids"])):
        ours, theirs = (t(text, add_special_tokens=False)["input_ids"] for t in (own, tokenizer))
        if ours != theirs:
            raise FtkitError(
                f"The gguf export is refused and removed: its tokenizer cuts {text[:60]!r}… into "
                f"{len(theirs)} tokens that are not the model's {len(ours)}."
            )
