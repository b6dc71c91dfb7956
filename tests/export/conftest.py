"""A two-layer random Llama with a tokenizer that merges bytes, saved as ftkit saves."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import ftkit
from tests.conftest import sentences

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tokenizer(rule: pre_tokenizers.PreTokenizer | None = None) -> PreTrainedTokenizerFast:
    """Train byte-level merges on the sentences of the other tests."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = rule or pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([*sentences("good"), *sentences("bad")], trainer)
    end, begin, pad = SPECIAL[0], SPECIAL[1], SPECIAL[0]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=end, bos_token=begin, pad_token=pad, unk_token=end
    )


def make_llama(**options: object) -> LlamaForCausalLM:
    """Two layers, 64 wide, four heads of queries and two of keys, drawn afresh."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
    shape = {"vocab_size": 320, "max_position_embeddings": 128, "tie_word_embeddings": True}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **heads, **ids, **shape, **options})).eval()


def move(model: torch.nn.Module, size: float) -> None:
    """Add noise to every matrix, as training would: `size` times its own spread."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                noise = torch.randn(weights.shape, generator=generator)
                weights += size * weights.std() * noise


@pytest.fixture(scope="session")
def bpe() -> PreTrainedTokenizerFast:
    """The tokenizer; read-only."""
    return make_tokenizer()


@pytest.fixture
def save(bpe, tmp_path: Path) -> Callable[..., Path]:
    """A function that saves a language model as `ftkit train` does, and returns its folder."""

    def call(model=None, tokenizer=None, name="model", **record: object) -> Path:
        task = ftkit.CausalLM(("text",))
        folder = tmp_path / name
        tokenizer = tokenizer or bpe
        return ftkit.save_pretrained(folder, model or make_llama(), tokenizer, task, record=record)

    return call
