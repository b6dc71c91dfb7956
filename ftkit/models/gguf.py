"""Turn the published GGUF file of smollm2 into a folder that plain transformers loads."""

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(source: Path, folder: Path) -> None:
    """Read a language model's GGUF file and save it as float32, with its tokenizer.

    The file's end token is its pad token too (``<|im_end|>``), and stays so: a loss must not be
    masked by the pad token's id, or the model never learns to end.

    Parameters
    ----------
    source : Path
        A GGUF file whose weights are rounded to four bits; they stay as rounded.
    folder : Path
        An empty one.
    """
    options = {"gguf_file": source.name, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **options)
    model: Any = AutoModelForCausalLM.from_pretrained(source.parent, **options, dtype=torch.float32)
    # SmolLM cuts digits off first, one by one (`tokenizer.ggml.pre` is "smollm"); transformers
    # builds GPT-2's rule alone, under which "a  5" has other tokens.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    _plain(model).save_pretrained(folder)


def _plain(model: Any) -> Any:
    """Return the model without its quantizer, which forbids saving; the weights are shared."""
    config = copy.copy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain
