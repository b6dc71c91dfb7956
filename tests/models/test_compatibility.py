"""What a checkpoint cannot do is refused by name; what its tokenizer lacks is set, and told."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertLMHeadModel
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

import ftkit
from ftkit.data.batches import collate
from ftkit.models import loading
from ftkit.models.compatibility import PaddingWarning
from ftkit.tasks import TASKS
from ftkit.tasks.truncation import TruncationWarning
from tests.architectures import ARCHITECTURES, make_checkpoint, make_tokenizer, tasks_of
from tests.conftest import message, tiny_config
from tests.test_architectures import SENTENCES, rows_of

CLASSES = ftkit.SequenceClassification(("text",), ("bad", "good"))
TEXTS = ftkit.CausalLM(("text",))


def change(folder: Path, name: str, **values: object) -> Path:
    """Write values into one of a checkpoint's JSON files."""
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def load_quietly(folder: Path, task: ftkit.tasks.Task):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ftkit.load_pretrained(folder, task)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_gpu_takes_every_architecture(name, tmp_path, monkeypatch):
    """Not all have SDPA; transformers knows which attention each has."""
    task, _ = rows_of(tasks_of(name)[0])
    folder = make_checkpoint(name, task.name, tmp_path / name)
    _, on_cpu = load_quietly(folder, task)
    monkeypatch.setattr(loading, "best_device", lambda: torch.device("cuda"))
    _, model = load_quietly(folder, task)
    plain = task.auto_model.from_pretrained(folder, num_labels=model.config.num_labels)
    assert on_cpu.config._attn_implementation == "eager"
    assert model.config._attn_implementation == plain.config._attn_implementation


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_decoder_without_padding_becomes_a_classifier(name, tmp_path):
    folder = make_checkpoint(name, "sequence-classification", tmp_path / name)
    with pytest.warns(PaddingWarning, match="no padding token; its end-of-text token") as told:
        tokenizer, model = ftkit.load_pretrained(folder, CLASSES)
    assert len(told) == 1
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"
    assert model.config.pad_token_id == tokenizer.eos_token_id
    rows = Dataset.from_dict({"text": SENTENCES, "label": [0, 1, 1] * 3})
    encoded = CLASSES.encode(DatasetDict({"train": rows}), tokenizer)
    ftkit.train(model, encoded, CLASSES, ftkit.TrainingConfig(num_train_epochs=1, bf16=False))
    saved = ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PaddingWarning)  # once is enough
        _, again, loaded = ftkit.load_saved(saved)
    assert again.pad_token_id == loaded.config.pad_token_id == tokenizer.eos_token_id


def test_a_padding_token_that_only_the_config_knows(tmp_path):
    folder = make_checkpoint("gpt2", "sequence-classification", tmp_path / "gpt2", pad_token_id=0)
    tokenizer, _ = ftkit.load_pretrained(folder, CLASSES)
    assert tokenizer.pad_token == "<unk>"


def test_no_token_that_could_pad(tmp_path):
    folder = make_checkpoint("llama", "sequence-classification", tmp_path / "llama")
    make_tokenizer("gpt", eos_token=None).save_pretrained(folder)
    assert message(ftkit.load_pretrained, folder, CLASSES) == (
        f"{folder}: the tokenizer has neither a padding token (pad_token) nor an end-of-text token "
        "(eos_token), and sequence-classification needs one to fill short rows with. Set one and "
        "save the tokenizer again."
    )


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "big_bird", "xlnet", "xlm"])
def test_a_model_that_looks_ahead_is_no_causal_one(name, pretrained, tmp_path):
    folder = make_checkpoint(name, "causal-lm", tmp_path / name)
    text = message(ftkit.load_pretrained, folder, TEXTS, pretrained=pretrained)
    assert " looks ahead: a later token changes what it says of an earlier one" in text
    assert text.endswith("Use masked-lm, or take a decoder such as tiny-stories-gpt.")


def test_the_chinese_model_looks_ahead():
    assert "BertLMHeadModel looks ahead" in message(ftkit.load_pretrained, "tiny-bert-zh", TEXTS)


def test_a_bert_that_was_made_a_decoder_is_a_causal_one(checkpoint, tmp_path, tokenizer):
    BertLMHeadModel(tiny_config(is_decoder=True)).save_pretrained(tmp_path / "decoder")
    tokenizer.save_pretrained(tmp_path / "decoder")
    _, model = ftkit.load_pretrained(tmp_path / "decoder", TEXTS)
    assert model.config.is_decoder


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        *(("bert", 512), ("roberta", 48), ("mpnet", 48), ("longformer", 48), ("distilbert", 512)),
        *(("gpt2", 1024), ("llama", 48), ("opt", 2048), ("bart", 64), ("xlm", 512)),
        *(("t5", None), ("xlnet", None), ("bloom", None)),
    ],
)
def test_the_tokenizer_cuts_where_positions_end(name, limit, tmp_path):
    task, _ = rows_of(tasks_of(name)[0])
    folder = make_checkpoint(name, task.name, tmp_path / name)
    tokenizer, _ = load_quietly(folder, task)
    assert tokenizer.model_max_length == (VERY_LARGE_INTEGER if limit is None else limit)


def test_a_tokenizer_that_stops_earlier_keeps_its_limit(tmp_path):
    folder = make_checkpoint("bert", "masked-lm", tmp_path / "bert")
    change(folder, "tokenizer_config.json", model_max_length=20)
    tokenizer, _ = ftkit.load_pretrained(folder, TASKS["masked-lm"](("text",)))
    assert tokenizer.model_max_length == 20


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_long_texts_train_where_the_tokenizer_knows_no_limit(name, tmp_path):
    sizes = {"max_position_embeddings": 24}
    folder = make_checkpoint(name, "sequence-classification", tmp_path / name, **sizes)
    tokenizer, model = load_quietly(folder, CLASSES)
    texts = [f"{text} " * 20 for text in SENTENCES]
    rows = Dataset.from_dict({"text": texts, "label": [0, 1, 1] * 3})
    with pytest.warns(TruncationWarning, match="9 of 9 rows"):
        encoded = CLASSES.encode(DatasetDict({"train": rows}), tokenizer)
    assert {len(ids) for ids in encoded["train"]["input_ids"]} == {tokenizer.model_max_length}
    ftkit.train(model, encoded, CLASSES, ftkit.TrainingConfig(num_train_epochs=1, bf16=False))


@pytest.mark.parametrize(
    ("checkpoint", "task", "expected"),
    [
        (
            "tiny-stories-gpt",
            TASKS["masked-lm"](("text",)),
            "tiny-stories-gpt: an architecture of type gpt2 has no head for masked-lm. It can be "
            "trained for: sequence-classification, chat, preference, causal-lm, "
            "question-answering, token-classification. For masked-lm take one such as "
            "tiny-bert-zh.",
        ),
        (
            "minilm",
            TASKS["seq2seq"]("a", "b"),
            "minilm: an architecture of type bert has no head for seq2seq. It can be trained for: ",
        ),
        (
            "tiny-en-zh",
            CLASSES,
            "tiny-en-zh: an architecture of type marian has no head for sequence-classification. ",
        ),
        (
            "tiny-en-zh",
            TEXTS,
            "tiny-en-zh: an architecture of type marian is an encoder with a decoder, which writes "
            "a text for a text; alone, neither does causal-lm. Use it for seq2seq; for causal-lm "
            "take one such as tiny-stories-gpt.",
        ),
    ],
)
def test_the_wrong_architecture_for_a_task(checkpoint, task, expected):
    for pretrained in (True, False):
        text = message(ftkit.load_pretrained, checkpoint, task, pretrained=pretrained)
        assert text.startswith(expected)


@pytest.mark.parametrize("kind", ["seq2seq", "sequence-classification"])
def test_a_decoder_that_cannot_begin(kind, tmp_path):
    folder = make_checkpoint("t5", kind, tmp_path / "t5")
    change(folder, "config.json", decoder_start_token_id=None)
    task, _ = rows_of(kind)
    assert message(ftkit.load_pretrained, folder, task) == (
        f"{folder}: config.json has no decoder_start_token_id, so that the decoder cannot begin. "
        "Set it there: T5 and Marian begin with the padding token (pad_token_id is 0), BART with "
        "the end-of-text token."
    )


@pytest.mark.parametrize("name", ["distilbert", "roberta"])
def test_inputs_that_the_model_does_not_read_are_not_made(name, tmp_path):
    """DistilBERT takes no token types, and RoBERTa has one type for all."""
    one_type = {"type_vocab_size": 1} if name == "roberta" else {}
    folder = make_checkpoint(name, "sequence-classification", tmp_path / name, **one_type)
    make_tokenizer("bert").save_pretrained(folder)
    tokenizer, _ = ftkit.load_pretrained(folder, CLASSES)
    assert list(tokenizer("the soup", "was fine")) == ["input_ids", "attention_mask"]


def test_a_head_that_reads_the_last_token_finds_it(tmp_path):
    """XLNet's tokenizer pads on the left; ftkit's batches are turned for it."""
    folder = make_checkpoint("xlnet", "sequence-classification", tmp_path / "xlnet")
    tokenizer, model = ftkit.load_pretrained(folder, CLASSES)
    saved = ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, CLASSES)
    texts = ["the soup was fine", "the song"]
    encoded = CLASSES.encode_texts([(text,) for text in texts], tokenizer)
    ours = ftkit.predict(model, encoded, bf16=False)
    plain = AutoModelForSequenceClassification.from_pretrained(saved)
    inputs = AutoTokenizer.from_pretrained(saved)(texts, padding=True, return_tensors="pt")
    assert inputs["attention_mask"][1, 0] == 0
    with torch.inference_mode():
        theirs, turned = plain(**inputs).logits, model(**inputs).logits
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(turned, theirs, atol=1e-5)  # what is padded so stays so
    alone = model(**collate(encoded, [1], 0)).logits.detach()
    np.testing.assert_allclose(alone[0], theirs[1], atol=1e-5)


def test_a_head_for_other_labels_begins_at_random_and_is_told(tmp_path, model, tokenizer, task):
    saved = ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, task)
    three = ftkit.SequenceClassification(("text",), ("bad", "good", "so-so"))
    with pytest.warns(loading.NewHeadWarning, match=r"begins at random: classifier\.bias, class"):
        _, other = ftkit.load_pretrained(saved, three)
    assert other.classifier.out_features == 3
    weight = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(other.state_dict()[weight], model.state_dict()[weight])


@pytest.mark.parametrize("labels", [("bad", "good"), ("bad", "good", "so-so")])
def test_a_saved_model_without_its_head_is_refused(labels, tmp_path, model, tokenizer, task):
    """Whoever trained it expects the trained head, never one at random."""
    saved = ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, task)
    if len(labels) == 2:
        model.bert.save_pretrained(saved)
        change(saved, "config.json", architectures=["BertForSequenceClassification"])
    change(saved, "task.json", labels=labels)
    assert str(saved) in message(ftkit.load_saved, saved)
