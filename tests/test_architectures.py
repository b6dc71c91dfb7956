"""Every architecture through every door: each head, each way of tuning; or a refusal by name.

``make test`` runs each architecture with each way of tuning, its heads in turn; the whole matrix
runs where the environment says ``FTKIT_ALL_ARCHITECTURES=1``.
"""

import copy
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict

import ftkit
from ftkit.data.batches import PAIR_COLUMNS, collate
from ftkit.models.frozen import FrozenLayersWarning
from ftkit.models.layers import without_lora
from ftkit.tasks import TASKS, Task
from tests.architectures import ARCHITECTURES, make_checkpoint, tasks_of

Cell = tuple[str, str, str]  # architecture, task, way of tuning
TUNES = ("full", "head", "top:1", "bias", "lora")
NOUNS, ENDS = ("soup", "song", "film"), ("fine", "great and warm", "awful and cold in the room")
SENTENCES = [f"the {noun} was {end} today" for noun in NOUNS for end in ENDS]
ANY = "*"
TIED = "has no head of its own: its output layer is the table of input embeddings"
NO_BIASES = "has no biases but those of its head"
TWO_LISTS = "has two lists of layers, an encoder's and a decoder's, so none is the top of all"
LOOKS_AHEAD = "looks ahead: a later token changes what it says of an earlier one"
CAUSAL = ("causal-lm", "chat", "preference")
BOTH_WAYS = ("bert", "roberta", "xlm-roberta", "electra", "xlnet", "big_bird", "xlm")
TIES = ("gpt2", "gpt_neo", "opt", "bloom", "qwen2", "gemma2", "gemma3_text", "falcon")
REFUSED: dict[Cell, str] = {
    # A model that reads both ways would see what it should predict.
    **{(name, task, ANY): LOOKS_AHEAD for name in BOTH_WAYS for task in CAUSAL},
    # An encoder with a decoder gets a text to write, not gaps to fill.
    ("bart", "masked-lm", ANY): "is an encoder with a decoder, which writes a text for a text",
    # The output layer is the table of input embeddings; BERT's has a layer before it.
    **{(name, task, "head"): TIED for name in (*TIES, "bart", "marian") for task in CAUSAL},
    **{(name, "seq2seq", "head"): TIED for name in ("t5", "bart", "marian")},
    # Nothing but a head would train under a name that promises more.
    **{(name, ANY, "bias"): NO_BIASES for name in ("llama", "mistral", "qwen3", "t5")},
    **{(name, ANY, "bias"): NO_BIASES for name in ("gemma2", "gemma3_text", "modernbert")},
    # One layer for all depths, blocks of layers, or two lists of them.
    ("albert", ANY, "top:1"): "has no list of 2 layers; name its parameters by patterns",
    ("funnel", ANY, "top:1"): "has no list of 2 layers; name its parameters by patterns",
    **{("t5", task, "top:1"): TWO_LISTS for task in ("seq2seq", "question-answering")},
    **{("bart", task, "top:1"): TWO_LISTS for task in ("seq2seq", "question-answering")},
    **{(name, "sequence-classification", "top:1"): TWO_LISTS for name in ("t5", "bart")},
    ("marian", "seq2seq", "top:1"): TWO_LISTS,
    # Its layers are convolutions.
    ("squeezebert", ANY, "lora"): "SqueezeBertFor[A-Za-z]+ has none in its layers",
}
NO_STORE = {"albert", "funnel", "xlm", "flaubert", "t5", "bart", "marian"}  # no one list of layers
PROVED_WRONG = {  # the proof stops the store, and the note says why
    "bart": "drops embeddings at random in the decoder itself, which trains",
    "deberta-v2": "top:K trains the norm of the positions that all layers share",
    "fnet": "mixes the padding in, so that each batch has other outputs",
    "longformer": "cuts rows into windows, and the padding with them",
    "preference": "two answers go through the layers together",
    "marian": "drops embeddings at random in the decoder itself, which trains",
    "question-answering": "the loss counts padding as possible answers, and none is stored",
    "squeezebert": "calls its layers past all hooks",
    "t5": "the first layer hands on the distances between tokens",
    "xlnet": "has the tokens first and the rows second",
}
PADDING_COUNTS = {"fnet", "funnel"}  # no mask; or neighbours are pooled, the padding among them


def rows_of(task: str) -> tuple[Task, Dataset]:
    """Return a task and nine rows of it, some long and some short."""
    columns: dict[str, list]
    if task == "sequence-classification":
        kind: Task = ftkit.SequenceClassification(("text",), ("bad", "good", "so-so"))
        columns = {"text": SENTENCES, "label": [0, 1, 2] * 3}
    elif task == "token-classification":
        kind = ftkit.TokenClassification("tokens", "tags", ("O", "B-PER", "I-PER"))
        words = [f"Ann {text}".split() for text in SENTENCES]
        columns = {"tokens": words, "tags": [["B-PER", *["O"] * (len(w) - 1)] for w in words]}
    elif task == "question-answering":
        kind = ftkit.QuestionAnswering()
        answers = [{"text": ["Paris"], "answer_start": [13]}] * 9
        contexts = [f"Ann lives in Paris and {text}" for text in SENTENCES]
        columns = {"question": ["where Ann lives"] * 9, "context": contexts, "answers": answers}
    elif task in ("chat", "preference"):
        kind = TASKS[task]()
        columns = {"prompt": SENTENCES, "completion": SENTENCES[::-1]}
        if task == "preference":
            columns = {"prompt": SENTENCES, "chosen": SENTENCES[::-1], "rejected": ["poor"] * 9}
    elif task == "seq2seq":
        kind = ftkit.Seq2Seq("source", "target", max_new_tokens=4)
        columns = {"source": SENTENCES, "target": SENTENCES[::-1]}
    else:
        kind = TASKS[task](("text",))  # type: ignore[call-arg]
        columns = {"text": SENTENCES}
    return kind, Dataset.from_dict(columns)


def cells() -> list[Cell]:
    """Return each architecture with each way of tuning and its tasks in turn, or with all tasks."""
    tasks = {name: tasks_of(name) for name in ARCHITECTURES}
    if os.environ.get("FTKIT_ALL_ARCHITECTURES"):
        return [(n, task, tune) for n in tasks for task in tasks[n] for tune in (*TUNES, "body")]
    turns = [(i, j) for i in range(len(tasks)) for j in range(len(TUNES))]
    names = list(tasks)
    return [(n := names[i], tasks[n][(i + j) % len(tasks[n])], TUNES[j]) for i, j in turns]


def refusal(cell: Cell) -> str:
    """Return what the refusal of a cell must say; nothing where it must work."""
    for known, text in REFUSED.items():
        if all(part in (ANY, value) for part, value in zip(known, cell, strict=True)):
            return text
    return ""


def load(folder: Path, task: Task, tune: str) -> tuple[Any, Any]:
    """Load and tune, as ``ftkit train`` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no padding token, no chat template: told
        tokenizer, model = ftkit.load_pretrained(folder, task)
    if tune == "lora":
        return tokenizer, ftkit.add_lora(model, r=2)
    ftkit.set_trainable(model, tune)
    return tokenizer, model


def train(
    model: Any, encoded: Dataset, task: Task, *, reuse: bool
) -> tuple[list[float], bool, bool]:
    """Train two epochs of one update; return losses, and if a store was used, or refused."""
    config = ftkit.TrainingConfig(
        learning_rate=1e-2, num_train_epochs=2, batch_size=9, bf16=False, reuse_frozen=reuse
    )
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        run = ftkit.TrainingRun(model, encoded, config, task=task)
        losses = [step.loss for step in run]
    refused = any(note.category is FrozenLayersWarning for note in notes)
    return losses, run.frozen is not None, refused


@torch.inference_mode()
def logits(model: Any, encoded: Dataset, rows: list[int], *, together: bool = False) -> list:
    """Return what a model says of each row's own tokens, alone or together in one batch."""
    found = []
    for group in [rows] if together else [[row] for row in rows]:
        batch = collate(encoded, group, model.config.pad_token_id)
        batch = {name: tensor for name, tensor in batch.items() if name not in PAIR_COLUMNS}
        outputs = model(**batch)
        values = outputs.logits if "logits" in outputs else outputs.start_logits
        mask = batch.get("labels", batch["attention_mask"]) if "labels" in batch else None
        mask = batch["attention_mask"] if mask is None or mask.dim() < 2 else mask != -100
        whole = values.shape[:2] != mask.shape
        if type(without_lora(model)).__name__ == "FunnelForMaskedLM":
            values = values[..., 1:]  # transformers sets the padding's row to 0 when it loads
        found += [v if whole else v[m.bool()] for v, m in zip(values, mask, strict=True)]
    return [value.numpy() for value in found]


def assert_close(found: list, expected: list) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cell", cells(), ids="-".join)
def test_trains_saves_loads_and_predicts_or_is_refused(cell, tmp_path):
    name, kind, tune = cell
    task, rows = rows_of(kind)
    folder = make_checkpoint(name, kind, tmp_path / name)
    if refusal(cell):
        with pytest.raises(ftkit.FtkitError, match=refusal(cell)):
            load(folder, task, tune)
        return
    tokenizer, model = load(folder, task, tune)
    encoded = task.encode(DatasetDict({"train": rows}), tokenizer)
    if isinstance(task, ftkit.Preference):
        encoded = task.add_reference(model, encoded)
    encoded = encoded["train"]
    other = copy.deepcopy(model)
    losses, stored, refused = train(model, encoded, task, reuse=True)
    assert losses == pytest.approx(train(other, encoded, task, reuse=False)[0], abs=1e-5)
    if tune in ("head", "top:1") and name not in NO_STORE and not {name, kind} & set(PROVED_WRONG):
        assert stored
    if not {name, kind} & set(PROVED_WRONG):
        assert not refused
    model.eval()
    expected = logits(model, encoded, [0, 2])
    saved = ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, task)
    _, _, loaded = ftkit.load_saved(saved)
    plain = task.auto_model.from_pretrained(saved)
    assert_close(logits(loaded, encoded, [0, 2]), expected)
    assert_close(logits(plain.eval(), encoded, [0, 2]), expected)
    if name not in PADDING_COUNTS:
        assert_close(logits(loaded, encoded, [0, 2], together=True), expected)
    assert len(ftkit.predict(loaded, encoded, task, bf16=False)) == len(encoded)
