"""Packed rows give the loss and the gradient of the same rows apart."""

import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

import ftkit
from ftkit.data import pack
from tests.conftest import message
from tests.tasks.chat_templates import TEMPLATES
from tests.tasks.test_chat import SYSTEM, TURNS, chat_tokenizer, splits, tiny_llama


@pytest.fixture
def tokenizer():
    return chat_tokenizer(TEMPLATES["ChatML"][0])


@pytest.fixture
def rows(tokenizer) -> Dataset:
    conversations = [TURNS, TURNS[:2], [SYSTEM, *TURNS], [SYSTEM, *TURNS[:2]], TURNS[2:]]
    encoded = ftkit.Chat().encode(splits(*({"messages": c} for c in conversations)), tokenizer)
    return encoded["train"]


def loss_and_gradient(model, batches) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for batch in batches:
        counts = (batch["labels"][:, 1:] != -100).sum()
        loss = ftkit.Chat().loss(model, batch) * counts
        loss.backward()
        total += loss.item()
    return total, [p.grad.clone() for p in model.parameters()]


def tiny_gpt2(tokenizer) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 400}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    config = GPT2Config(vocab_size=len(tokenizer), initializer_range=0.2, **sizes, **ends)
    model = GPT2LMHeadModel(config).eval()
    model.loss_type = "ForCausalLM"
    return model


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_loss_and_gradient_are_those_of_the_rows_apart(rows, tokenizer, make):
    model = make(tokenizer)
    apart = [ftkit.data.collate(rows, [i]) for i in range(len(rows))]
    packed = pack(rows, 260)
    assert len(packed) < len(rows)
    together = [ftkit.data.collate(packed, list(range(len(packed))))]  # the shorter one is padded
    assert "attention_mask" not in together[0]
    one, gradient = loss_and_gradient(model, apart)
    other, packed_gradient = loss_and_gradient(model, together)
    assert other == pytest.approx(one, rel=1e-5)
    for mine, theirs in zip(gradient, packed_gradient, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-4)


def test_a_leaky_variant_is_noticed(rows, tokenizer):
    """Without positions that begin anew the rows see each other, and the loss is another."""
    model, packed = tiny_llama(tokenizer), pack(rows, 400)
    batch = ftkit.data.collate(packed, [0])
    whole = ftkit.Chat().loss(model, batch)
    del batch["position_ids"]
    assert abs(ftkit.Chat().loss(model, batch) - whole) > 1e-3


def test_every_token_is_packed_once(rows):
    packed = pack(rows, 300)
    before = sorted(token for row in rows for token in row["input_ids"])
    assert sorted(token for row in packed for token in row["input_ids"]) == before
    assert max(map(len, packed["input_ids"])) <= 300


def test_what_cannot_be_packed_is_told(rows):
    assert message(pack, rows, 20).startswith("A row has ")
    classes = Dataset.from_dict({"input_ids": [[1, 2]], "labels": [0]})
    assert "only chat and causal-lm rows are packed" in message(pack, classes, 8)
