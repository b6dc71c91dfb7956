"""Turn the published four-bit file of multilingual-e5-small into a folder for transformers."""

import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ftkit.errors import FtkitError

MAGIC = b"E5S1" + struct.pack("<I", 1)  # and the version of the layout
BLOCK = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])  # 32 weights of four bits
SPECIAL = {"bos": "<s>", "cls": "<s>", "pad": "<pad>", "eos": "</s>", "sep": "</s>", "unk": "<unk>"}
KEPT = {"～": "\ufdd0", "🈻": "\ufdd1"}  # NFKC changes them, this model's table does not
MODULES = {  # the file's name for a module: BertModel's
    "emb.word": "embeddings.word_embeddings",
    "emb.pos": "embeddings.position_embeddings",
    "emb.type": "embeddings.token_type_embeddings",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def convert(source: Path, folder: Path) -> None:
    """Read the file and save a BertModel without a pooler in float32, with its tokenizer.

    It was trained on texts that begin with ``query: `` or ``passage: ``, and a text's vector is the
    mean over its tokens (Wang et al. 2024); the pooler of a sequence classifier begins at random.

    Parameters
    ----------
    source : Path
        The four-bit file; its weights stay as rounded.
    folder : Path
        An empty one.

    Raises
    ------
    FtkitError
        It is another kind of file.
    """
    config, pieces, tensors = read(source)
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {name: torch.from_numpy(tensors[name]).view(shapes[name]) for name in shapes}
    model.load_state_dict(state, assign=True)
    model.save_pretrained(folder)
    make_tokenizer(pieces, config.max_position_embeddings).save_pretrained(folder)


def read(source: Path) -> tuple[BertConfig, list[tuple[str, float]], dict[str, np.ndarray]]:
    """Return what the file holds: config, pieces with their scores, and flat tensors by name."""
    with source.open("rb") as file:
        if file.read(8) != MAGIC:
            raise FtkitError(f"{source}: not a file of four-bit E5 weights, version 1.")
        width, layers, heads, inner, words, positions, types, epsilon, block = _unpack(file, "7ifi")
        if block != 2 * BLOCK["codes"].itemsize:
            raise FtkitError(f"{source}: blocks of {block} weights; expected 32.")
        pieces, pad = _read_pieces(file)
        _skip_normalizer(file)
        tensors = dict(_read_tensor(file, entry) for entry in _read_directory(file))
    config = BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=float(np.format_float_scientific(np.float32(epsilon))),
        pad_token_id=pad,
    )
    return config, pieces, tensors


def _unpack(file: IO[bytes], form: str) -> tuple[Any, ...]:
    return struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))


def _read_pieces(file: IO[bytes]) -> tuple[list[tuple[str, float]], int]:
    count, _bos, _eos, pad, _unk, size = _unpack(file, "5iQ")
    ends = np.frombuffer(file.read(4 * (count + 1)), "<u4")
    scores = np.frombuffer(file.read(4 * count), "<f4").tolist()
    text = file.read(size)
    pieces = [text[ends[i] : ends[i + 1]].decode() for i in range(count)]
    return list(zip(pieces, scores, strict=True)), pad


def _skip_normalizer(file: IO[bytes]) -> None:
    """Skip the table of characters: NMT's rules and NFKC, save for two (a test compares all)."""
    _count, size = _unpack(file, "iI")
    file.seek(size, 1)


def _read_directory(file: IO[bytes]) -> list[tuple[str, int, int, int]]:
    """Return name, kind (0: float32, 1: four bits), place and bytes of each tensor."""
    entries = []
    for _ in range(*_unpack(file, "i")):
        name = file.read(*_unpack(file, "H")).decode()
        kind, _count, place, size = _unpack(file, "BIQQ")
        entries.append((name, kind, place, size))
    return entries


def _read_tensor(file: IO[bytes], entry: tuple[str, int, int, int]) -> tuple[str, np.ndarray]:
    name, kind, place, size = entry
    file.seek(place)
    data = file.read(size)
    values = dequantize(data) if kind == 1 else np.frombuffer(data, "<f4").astype("f4")
    return _module_name(name), values


def dequantize(data: bytes) -> np.ndarray:
    """Return the weights of four-bit blocks: scale × (code - 8), the low halves of bytes first.

    Examples
    --------
    >>> block = np.float16(0.5).tobytes() + bytes([0x80]) * 16
    >>> dequantize(block)[[0, 15, 16, 31]]
    array([-4., -4.,  0.,  0.], dtype=float32)
    """
    blocks = np.frombuffer(data, BLOCK)
    weights = np.empty((len(blocks), 32), "f4")
    weights[:, :16], weights[:, 16:] = blocks["codes"] & 0xF, blocks["codes"] >> 4
    weights -= 8
    weights *= blocks["scale"].astype("f4")[:, None]
    return weights.reshape(-1)


def _module_name(name: str) -> str:
    """Return BertModel's name for a tensor, such as "l3.q.w", "emb.ln.b" or "emb.word"."""
    if name in MODULES:
        return MODULES[name] + ".weight"
    module, _, last = name.rpartition(".")
    parameter = {"w": "weight", "b": "bias"}[last]
    if module in MODULES:
        return f"{MODULES[module]}.{parameter}"
    layer, _, module = module.partition(".")
    return f"encoder.layer.{layer.removeprefix('l')}.{MODULES[module]}.{parameter}"


def make_tokenizer(pieces: list[tuple[str, float]], max_length: int) -> PreTrainedTokenizerFast:
    """Return XLM-RoBERTa's kind of tokenizer: unigram pieces, a space before every word.

    It is no `XLMRobertaTokenizer`, since that drops every normalizer but SentencePiece's own
    precompiled one when it is loaded again.
    """
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    away = [normalizers.Replace(character, spare) for character, spare in KEPT.items()]
    back = [normalizers.Replace(spare, character) for character, spare in KEPT.items()]
    tokenizer.normalizer = normalizers.Sequence(
        [*away, normalizers.Nmt(), normalizers.NFKC(), *back]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        mask_token=AddedToken("<mask>", lstrip=True),
        **{f"{name}_token": token for name, token in SPECIAL.items()},
    )
