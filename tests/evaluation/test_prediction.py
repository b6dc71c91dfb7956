"""Texts in, answers out; and batches that are halved when the memory runs out."""

import warnings

import numpy as np
import pytest
import torch
from transformers import BertForQuestionAnswering, BertForTokenClassification

import ftkit
from ftkit.evaluation import OutOfMemoryWarning
from tests.conftest import NOUNS, message, tiny_config

TEXTS = [f"the {noun} was {'cold ' * i}today" for i, noun in enumerate(NOUNS)]


def test_texts_are_answered_as_their_encoded_rows(model, task, tokenizer):
    answers = ftkit.predict(model, TEXTS, task, tokenizer, bf16=False)
    encoded = task.encode_texts([(text,) for text in TEXTS], tokenizer)
    outputs = ftkit.predict(model, encoded, task, bf16=False)
    assert answers == task.decode(outputs, encoded, tokenizer)
    assert ftkit.predict(model, tuple((t,) for t in TEXTS), task, tokenizer, bf16=False) == answers
    for text, (label, chance) in zip(TEXTS, answers, strict=True):
        with torch.inference_mode():
            alone = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1)
        assert label == task.labels[int(alone.argmax())]
        assert float(chance) == pytest.approx(float(alone.max()), abs=1e-3)


def test_a_column_of_a_data_set_is_texts_too(model, task, tokenizer, splits):
    answers = ftkit.predict(model, splits["test"]["text"], task, tokenizer)
    assert answers == ftkit.predict(model, list(splits["test"]["text"]), task, tokenizer)
    assert len(answers) == 12


def test_pairs_and_words_are_answered(tokenizer):
    torch.manual_seed(0)
    asking, tagging = ftkit.QuestionAnswering(), ftkit.TokenClassification(labels=("O", "B-X"))
    rows = [("the soup was", f"the soup was cold {noun}") for noun in NOUNS]
    answers = ftkit.predict(BertForQuestionAnswering(tiny_config()), rows, asking, tokenizer)
    assert len(answers) == len(rows)
    assert all(answer in context for (answer, _), (_, context) in zip(answers, rows, strict=True))
    tagger = BertForTokenClassification(tiny_config(num_labels=2))
    assert len(ftkit.predict(tagger, TEXTS, tagging, tokenizer)) == len(TEXTS)


def test_what_is_missing_is_named(model, task, tokenizer, splits):
    expected = "Texts came; they need a task and a tokenizer too."
    assert message(ftkit.predict, model, TEXTS) == expected
    assert message(ftkit.predict, model, TEXTS, task) == expected
    assert message(ftkit.predict, model, "the soup", task, tokenizer) == (
        'A single text came; expected a list of texts, such as ["the soup"].'
    )
    assert message(ftkit.predict, model, [], task, tokenizer) == (
        "No texts came; expected one or more."
    )
    assert message(ftkit.predict, model, [("a", "b")], task, tokenizer) == (
        "text 1: 2 texts came; expected 1 (text)."
    )
    assert message(ftkit.predict, model, splits["test"], task) == (
        "The data set has no column input_ids; its columns are text, label, row. Encode it first: "
        "task.encode(splits, tokenizer)."
    )


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_out_of_memory_halves_the_batch_and_goes_on(model, encoded, task, monkeypatch, error):
    expected = ftkit.predict(model, encoded["train"], task, bf16=False)
    whole, sizes = model.forward, []

    def forward(**inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 15:
            raise error("out of memory")
        return whole(**inputs)

    monkeypatch.setattr(model, "forward", forward)
    model.train()
    with pytest.warns(OutOfMemoryWarning) as caught:
        found = ftkit.predict(model, encoded["train"], task, bf16=False)
    assert [str(warning.message) for warning in caught] == [
        f"Out of memory: {rows} rows at a time are too many to predict. These rows, and all after "
        f"them, go on in batches of {half}."
        for rows, half in ((56, 28), (28, 14))
    ]
    assert sizes == [56, 28, 14, 14, 14, 14]
    assert model.training
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_not_even_one_row_fits(model, encoded, task, monkeypatch):
    def forward(**inputs):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model, "forward", forward)
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfMemoryWarning)
        with pytest.raises(torch.OutOfMemoryError):
            ftkit.predict(model, encoded["test"], task, bf16=False)
    assert model.training


def test_any_other_error_stops_at_once(model, encoded, task, monkeypatch):
    def forward(**inputs):
        raise RuntimeError("mat1 and mat2")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(RuntimeError, match="mat1"):
        ftkit.predict(model, encoded["test"], task, bf16=False)
