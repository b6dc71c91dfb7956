"""ONNX: the encoders' tasks, read by onnxruntime, for batches and texts of any length."""

import json

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM, BertForQuestionAnswering, BertForTokenClassification

import ftkit
from tests.conftest import message, tiny_config
from tests.export.conftest import make_llama

onnxruntime = pytest.importorskip("onnxruntime", reason='needs pip install "ftkit[onnx]"')

TAGS = ("O", "B-noun", "I-noun")
CASES = {
    "sequence-classification": None,  # the fixtures of all tests
    "token-classification": (
        lambda: ftkit.TokenClassification("tokens", "tags", TAGS),
        lambda: BertForTokenClassification(tiny_config(num_labels=3)),
    ),
    "question-answering": (
        ftkit.QuestionAnswering,
        lambda: BertForQuestionAnswering(tiny_config()),
    ),
    "masked-lm": (lambda: ftkit.MaskedLM(("text",)), lambda: BertForMaskedLM(tiny_config())),
}


@pytest.fixture(params=CASES)
def saved(request, model, task, tokenizer, tmp_path):
    """A saved folder of each task, its model, and the task."""
    torch.manual_seed(0)
    if CASES[request.param]:
        task, model = (make() for make in CASES[request.param])
        model.eval()
    return ftkit.save_pretrained(tmp_path / "model", model, tokenizer, task), model, task


def test_onnxruntime_reads_the_same_model(saved, tokenizer, tmp_path):
    folder, model, task = saved
    proof = ftkit.export(folder, tmp_path / "out.onnx", to="onnx")
    assert proof.max_difference < 1e-4
    assert proof.n_texts == 32
    assert json.loads((tmp_path / "export.json").read_text()) == {"out.onnx": proof.to_dict()}
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx")
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["task"]) == json.loads(json.dumps(task.to_dict()))
    for texts in (["the soup"], ["the walk was dull today", "a song", "the"]):  # other shapes
        batch = tokenizer(texts, padding=True, return_tensors="np")
        found = session.run(None, dict(batch))
        with torch.inference_mode():
            expected = model(**{name: torch.tensor(ids) for name, ids in batch.items()})
        for output, array in zip(session.get_outputs(), found, strict=True):
            np.testing.assert_allclose(array, expected[output.name].numpy(), atol=1e-4)


def test_another_tasks_model_is_refused(save, tmp_path):
    told = message(ftkit.export, save(make_llama()), tmp_path / "m.onnx", to="onnx")
    assert told.startswith("ONNX is written for the tasks of encoders (sequence-classification, ")
    assert told.endswith("A language model of the Llama family: --to gguf.")


def test_a_wrong_graph_is_refused(model, task, tokenizer, tmp_path, monkeypatch):
    from ftkit.export import onnx

    folder = ftkit.save_pretrained(tmp_path / "model", model, tokenizer, task)
    honest = onnx.read

    def swapped(path, source, rows):
        reader, answer, weights = honest(path, source, rows)
        return reader, lambda batch: {"logits": answer(batch)["logits"][:, ::-1]}, weights

    monkeypatch.setattr(onnx, "read", swapped)
    told = message(ftkit.export, folder, tmp_path / "m.onnx", to="onnx")
    assert told.startswith("The onnx export is refused and removed: the KL divergence is ")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
