"""Tiny random checkpoints of the common architectures, and which tasks each has a head for."""

from collections.abc import Callable
from pathlib import Path
from string import ascii_letters
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ftkit.tasks import TASKS

TEXT = "the soup room film song walk was is fine lovely great warm awful cold poor dull today"
WORDS = f"{TEXT} Ann Paris who where in lives and went to".split()
SIZES = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SIZES, "intermediate_size": 48, "initializer_range": 0.2}
ROBERTA = {**WIDE, "max_position_embeddings": 50, "pad_token_id": 1}
GROUPED = {**WIDE, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 48}
PADDED = {**GROUPED, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
XLM = {"vocab_size": 96, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "pad_index": 0}
SPECIAL = {  # how a tokenizer frames a text: ids 0 pad, 1 unknown, 2 first, 3 last, 4 mask
    "bert": ("[PAD] [UNK] [CLS] [SEP] [MASK]", "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "roberta": ("<s> <pad> </s> <unk> <mask>", "<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    "gpt": ("<unk> <|endoftext|>", "$A", "$A $B"),
    "llama": ("<pad> <unk> <s> </s>", "<s> $A", "<s> $A <s> $B"),
    "t5": ("<pad> </s> <unk>", "$A </s>", "$A </s> $B </s>"),
    "xlnet": ("<pad> <unk> <cls> <sep> <mask>", "$A <sep> <cls>", "$A <sep> $B <sep> <cls>"),
}
NAMES = {  # tokens by their part
    **{"[PAD]": "pad", "<pad>": "pad", "[UNK]": "unk", "<unk>": "unk", "[CLS]": "cls"},
    **{"<cls>": "cls", "[SEP]": "sep", "<sep>": "sep", "[MASK]": "mask", "<mask>": "mask"},
    **{"<s>": "bos", "</s>": "eos", "<|endoftext|>": "eos"},
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {  # its tokenizer's kind, and sizes
    "bert": ("bert", WIDE),
    "roberta": ("roberta", ROBERTA),
    "xlm-roberta": ("roberta", ROBERTA),
    "distilbert": ("bert", {"vocab_size": 96, "dim": 32, "n_layers": 2, "n_heads": 4}),
    "albert": ("bert", {**WIDE, "embedding_size": 16}),
    "electra": ("bert", {**WIDE, "embedding_size": 16}),
    "deberta": (
        "bert",
        {**WIDE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    ),
    "deberta-v2": (
        "bert",
        {
            **{**WIDE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
            **{"position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
            **{"position_biased_input": False, "type_vocab_size": 0},
        },
    ),
    "mpnet": ("roberta", {**ROBERTA, "bos_token_id": 0, "eos_token_id": 2}),
    "modernbert": (
        "bert",
        {**WIDE, "pad_token_id": 0, "global_attn_every_n_layers": 2, "local_attention": 8},
    ),
    "xlnet": ("xlnet", {"vocab_size": 96, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}),
    "funnel": (
        "bert",
        {
            **{"vocab_size": 96, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32},
            **{"n_head": 4, "d_head": 8, "d_inner": 48},
        },
    ),
    "longformer": ("roberta", {**ROBERTA, "attention_window": 4}),
    "big_bird": ("bert", {**WIDE, "attention_type": "original_full"}),
    "fnet": ("bert", {**WIDE, "num_attention_heads": 4}),
    "squeezebert": ("bert", {**WIDE, "embedding_size": 32}),
    "xlm": ("bert", XLM),
    "flaubert": ("bert", XLM),
    "gpt2": ("gpt", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gpt_neo": (
        "gpt",
        {**SIZES, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    ),
    "gptj": (
        "gpt",
        {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    ),
    "opt": ("llama", {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 0}),
    "bloom": ("llama", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "llama": ("gpt", GROUPED),
    "mistral": ("llama", PADDED),
    "qwen2": ("qwen2", {**GROUPED, "max_position_embeddings": 256, "tie_word_embeddings": True}),
    "qwen3": ("llama", PADDED),
    "gemma2": ("llama", {**PADDED, "query_pre_attn_scalar": 8}),
    "gemma3_text": ("llama", {**PADDED, "query_pre_attn_scalar": 8}),
    "phi": ("gpt", {**WIDE, "partial_rotary_factor": 0.5}),
    "falcon": ("gpt", SIZES),
    "t5": (
        "t5",
        {
            **{"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2},
            **{"num_heads": 4, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1},
        },
    ),
    "bart": (
        "roberta",
        {
            **{"vocab_size": 96, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2},
            **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
            **{"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64},
        },
    ),
    "marian": (
        "t5",
        {
            **{"vocab_size": 96, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2},
            **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
            **{"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64},
            **{"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
        },
    ),
}


def make_config(name: str, **options: object) -> transformers.PreTrainedConfig:
    """Return the configuration of a tiny model of this architecture."""
    return AutoConfig.for_model(name, **{**ARCHITECTURES[name][1], **options})


def make_tokenizer(kind: str, **options: Any) -> PreTrainedTokenizerBase:
    """Return a tokenizer of whole words that frames a text as this kind of model expects it."""
    if kind == "qwen2":  # transformers makes no other of a checkpoint of this name
        letters = {letter: i for i, letter in enumerate(["<|endoftext|>", "Ġ", *ascii_letters])}
        return transformers.Qwen2Tokenizer(letters, [], **options)
    special, single, pair = SPECIAL[kind]
    tokens = special.split()
    vocabulary = {token: i for i, token in enumerate([*tokens, *WORDS])}
    unknown = next(token for token in tokens if NAMES[token] == "unk")
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    used = [(token, vocabulary[token]) for token in tokens if token in f"{single} {pair}"]
    inner.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=used
    )
    left = {"padding_side": "left"} if kind == "xlnet" else {}
    inputs = ["input_ids", *(["token_type_ids"] if kind == "bert" else []), "attention_mask"]
    names = {f"{NAMES[token]}_token": token for token in tokens}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **{"model_input_names": inputs, **names, **left, **options}
    )


def tasks_of(name: str) -> list[str]:
    """Return the names of the tasks that transformers has a head of this architecture for.

    Chat and preferences have the head of a causal language model, and tests of their own.
    """
    config = type(make_config(name))
    kinds = {k: task for k, task in TASKS.items() if k not in ("chat", "preference")}
    return [kind for kind, task in kinds.items() if config in task.auto_model._model_mapping]


def make_checkpoint(name: str, task: str, folder: Path, **options: object) -> Path:
    """Save a random model and a tokenizer as a hub repository holds them.

    A language model has its head; another task finds the body alone.
    """
    torch.manual_seed(0)
    kind = TASKS[task]
    make: Callable = (AutoModel if kind.new_head else kind.auto_model).from_config
    config = make_config(name, **options)
    config.architectures = ["FunnelModel"] if name == "funnel" else None  # it has two bodies
    make(config).save_pretrained(folder)
    make_tokenizer(ARCHITECTURES[name][0]).save_pretrained(folder)
    return folder
