"""A tokenizer as GGUF holds it: pieces, merges, special tokens, and the name of its splitting."""

import json
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFWriter, TokenType
from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

from ftkit.errors import FtkitError


def _split(pattern: str) -> PreTokenizer:
    return Sequence([Split(Regex(pattern), "isolated"), ByteLevel(False, use_regex=False)])


PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    # how a text is split before merging begins, under llama.cpp's names
    "gpt-2": ByteLevel(add_prefix_space=False),
    "smollm": Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
    "llama-bpe": _split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": _split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "tekken": _split(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
HARD_TEXT = (  # on which the rules above differ: digits, cases, blanks, scripts, emoji
    "It's 7, we'LL pay 1234567.50 €  for 2 helloWorldABCs/\n\n\n  \tx² + ½ = Ⅷ; v2.0b3 \u00a0 "
    "naïve e\u0301tude 手机3台 ١٢٣ мир's 🚀🇫🇷!!?\r\n   end  9"
)


def check_tokenizer(tokenizer: Any, vocab_size: int) -> list[str]:
    """Return a sentence for each thing about a tokenizer that the file could not hold.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    vocab_size : int
        Rows of the model's embeddings.
    """
    inner = _inner(tokenizer)
    if inner.get("model", {}).get("type") != "BPE" or inner["model"]["byte_fallback"]:
        return [
            f"Its tokenizer ({type(tokenizer).__name__}) does not merge bytes (byte-level BPE), "
            f"the one kind that is written here; llama.cpp's convert_hf_to_gguf.py knows others."
        ]
    problems = []
    if inner["normalizer"] is not None:
        kind = inner["normalizer"]["type"]
        problems.append(f"Its tokenizer rewrites text first ({kind}), and llama.cpp does not.")
    if find_pre_tokenizer(tokenizer) is None:
        problems.append(
            f"Its tokenizer splits text by a rule which has no name here; expected that of one of: "
            f"{', '.join(PRE_TOKENIZERS)}."
        )
    if len(tokenizer) > vocab_size:
        problems.append(
            f"Its tokenizer has {len(tokenizer)} tokens, and the embeddings {vocab_size} rows. "
            f"Before training: model.resize_token_embeddings(len(tokenizer))."
        )
    if tokenizer.eos_token_id is None:
        problems.append("Its tokenizer has no end token (eos_token), so no answer would end.")
    return problems


def _inner(tokenizer: Any) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return json.loads(backend.to_str()) if backend else {}


def find_pre_tokenizer(tokenizer: Any) -> str | None:
    """Return the name of the rule that splits a hard text as the tokenizer does, or None."""
    rule = tokenizer.backend_tokenizer.pre_tokenizer
    pieces = rule.pre_tokenize_str(HARD_TEXT) if rule else None
    for name, known in PRE_TOKENIZERS.items():
        if known.pre_tokenize_str(HARD_TEXT) == pieces:
            return name
    return None


def add_vocabulary(writer: GGUFWriter, tokenizer: Any, vocab_size: int, ends: list[int]) -> None:
    """Add a tokenizer that `check_tokenizer` found nothing against, and its chat template.

    Parameters
    ----------
    writer : GGUFWriter
    tokenizer : PreTrainedTokenizerBase
    vocab_size : int
        Rows of the model's embeddings; those without a token are marked as unused.
    ends : list of int
        All tokens that end an answer; the file names two.
    """
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [TokenType.UNUSED] * vocab_size
    for token, i in tokenizer.get_vocab().items():
        tokens[i], types[i] = token, TokenType.NORMAL
    for i, added in tokenizer.added_tokens_decoder.items():
        types[i] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(str(find_pre_tokenizer(tokenizer)))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in _inner(tokenizer)["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    others = [i for i in ends if i != tokenizer.eos_token_id]
    if others:
        writer.add_eot_token_id(others[0])
    for name in ("bos", "unk", "pad"):
        if (number := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(whole[0] != plain[0])
    writer.add_add_eos_token(whole[-1] != plain[-1])
    writer.add_add_space_prefix(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def set_named_rule(tokenizer: Any, path: Path) -> None:
    """Let a tokenizer that was read from a GGUF file split text by the rule that the file names."""
    name = GGUFReader(path).fields["tokenizer.ggml.pre"].contents()
    if name not in PRE_TOKENIZERS:
        raise FtkitError(f'{path}: its tokenizer splits by "{name}", which has no rule here.')
    tokenizer.backend_tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
