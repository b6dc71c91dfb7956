"""Four bits: what bitsandbytes rounds, that LoRA beside it learns, and what is saved."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from transformers import AutoModelForSequenceClassification

import ftkit
from tests.conftest import message

bitsandbytes = pytest.importorskip("bitsandbytes", reason='needs pip install "ftkit[quantize]"')


@pytest.fixture
def rounded(checkpoint, task):
    """The random BERT with a body of four bits."""
    return ftkit.load_pretrained(checkpoint, task, quantize="nf4")[1]


def full(model, name: str) -> torch.Tensor:
    """Return a rounded layer's weights as bitsandbytes computes with them."""
    weight = model.get_submodule(name).weight
    return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).float()


QUERY = "bert.encoder.layer.0.attention.self.query"


def test_the_body_is_rounded_and_the_head_is_not(rounded, checkpoint, task):
    plain = ftkit.load_pretrained(checkpoint, task)[1]
    assert rounded.classifier.weight.dtype == torch.float32
    assert rounded.get_submodule(QUERY).weight.dtype == torch.uint8
    assert ftkit.count_parameters(rounded)[1] == ftkit.count_parameters(plain)[1]
    own = plain.get_submodule(QUERY).weight
    error = float((full(rounded, QUERY) - own).norm() / own.norm())
    assert 0.03 < error < 0.2  # four bits of a normal distribution


def test_weights_are_levels_times_the_largest_of_their_block(checkpoint, task, rounded):
    """By hand, as QLoRA defines NF4: quantiles of the normal distribution, 0 among them."""
    offset = 0.5 * (1 / 32 + 1 / 30)
    positive = norm.ppf(np.linspace(1 - offset, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(1 - offset, 0.5, 8)[:-1])
    levels = np.sort([*negative, 0.0, *positive]) / positive.max()
    plain = ftkit.load_pretrained(checkpoint, task)[1].get_submodule(QUERY).weight
    blocks = plain.detach().reshape(-1, 64).numpy()
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    nearest = np.abs(blocks[..., None] / largest[..., None] - levels).argmin(axis=-1)
    by_hand = (levels[nearest] * largest).reshape(plain.shape)
    np.testing.assert_allclose(full(rounded, QUERY).numpy(), by_hand, atol=1e-3)


def test_lora_learns_beside_it_and_is_saved_plain(rounded, encoded, tokenizer, task, tmp_path):
    before = full(rounded, QUERY)
    adapted = ftkit.add_lora(rounded, r=4)
    config = ftkit.TrainingConfig(learning_rate=1e-2, num_train_epochs=4, batch_size=8, bf16=False)
    history = ftkit.train(adapted, encoded, task, config)
    assert history.steps[-1].loss < history.steps[0].loss
    assert torch.equal(full(adapted.base_model.model, QUERY + ".base_layer"), before)
    logits = ftkit.predict(adapted, encoded["test"], bf16=False)
    folder = ftkit.save_pretrained(tmp_path / "saved", adapted, tokenizer, task)
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    assert not hasattr(plain.config, "quantization_config")
    assert plain.get_submodule(QUERY).weight.dtype == torch.float32
    tolerance = 0.1 if ftkit.devices.supports_bf16(torch.device("cpu")) else 1e-3
    found = ftkit.predict(plain, encoded["test"], bf16=False)
    np.testing.assert_allclose(found, logits, atol=tolerance)


def test_what_four_bits_cannot_do_is_refused(rounded, checkpoint, task):
    told = message(ftkit.set_trainable, rounded, "full")
    assert told.startswith("Cannot tune 'full': it takes 12 weights of four bits, such as bert.")
    ftkit.set_trainable(rounded, "head")
    assert message(ftkit.load_pretrained, checkpoint, task, quantize="nf5") == (
        'Cannot quantize to "nf5". Did you mean "nf4"?'
    )


def test_without_bitsandbytes_one_sentence_says_so(checkpoint, task, monkeypatch):
    monkeypatch.setattr("ftkit.models.quantization.find_spec", lambda name: None)
    assert message(ftkit.load_pretrained, checkpoint, task, quantize="nf4") == (
        'bitsandbytes is missing: pip install "ftkit[quantize]"'
    )
