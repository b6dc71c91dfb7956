"""Masked language models: which tokens are masked, the loss, filling gaps, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from scipy.special import log_softmax
from transformers import BertForMaskedLM

import ftkit
from ftkit.cli.main import main
from ftkit.data.batches import collate
from ftkit.tasks import task_from_dict
from ftkit.tasks.language_modeling import token_counts
from tests.conftest import message, tiny_config

WORDS = ["fine", "lovely", "great", "warm", "awful", "cold", "soup", "room", "film", "song"]


@pytest.fixture(scope="module")
def task() -> ftkit.MaskedLM:
    """One text, and the usual share of gaps."""
    return ftkit.MaskedLM(("text",))


@pytest.fixture
def masked() -> BertForMaskedLM:
    """A two-layer random BERT with its masked head."""
    torch.manual_seed(0)
    return BertForMaskedLM(tiny_config()).eval()


def table(texts: list[str], **others: list) -> DatasetDict:
    """Return one training split of these texts."""
    rows = [f"train.csv, row {i + 2}" for i in range(len(texts))]
    return DatasetDict({"train": Dataset.from_dict({"text": texts, **others, "row": rows})})


def long_texts(number: int) -> list[str]:
    """Return texts of thirty known words."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, 30)) for _ in range(number)]


def originals(split: Dataset) -> list[list[int]]:
    """Put the labels back into the gaps."""
    pairs = zip(split["input_ids"], split["labels"], strict=True)
    return [[i if label == -100 else label for i, label in zip(*p, strict=True)] for p in pairs]


def test_shares_of_masks_are_those_of_bert(tokenizer):
    task = ftkit.MaskedLM(("text",), n_maskings=10)
    split = task.encode(table(long_texts(200)), tokenizer)["train"]
    ids, labels = (np.concatenate(split[name]) for name in ("input_ids", "labels"))
    chosen = labels != -100
    assert chosen.sum() / (200 * 10 * 30) == pytest.approx(0.15, abs=0.008)
    masked = ids[chosen] == tokenizer.mask_token_id
    kept = ids[chosen] == labels[chosen]
    assert masked.mean() == pytest.approx(0.8, abs=0.02)
    assert kept.mean() == pytest.approx(0.1, abs=0.015)
    others = ids[chosen][~masked & ~kept]
    assert len(others) / chosen.sum() == pytest.approx(0.1, abs=0.015)
    assert len(set(others)) > 0.9 * len(tokenizer)  # any token of the vocabulary
    assert others.max() < len(tokenizer)


def test_what_is_not_chosen_stays_and_special_tokens_are_never_chosen(tokenizer):
    task = ftkit.MaskedLM(("text", "other"), mlm_probability=0.9)
    texts = ["the soup was ☂ fine", "☂ ☂ room"]
    split = task.encode(table(texts, other=["was cold"] * 2), tokenizer)["train"]
    whole = tokenizer(texts, ["was cold"] * 2)
    assert originals(split) == whole["input_ids"]
    assert split["token_type_ids"] == whole["token_type_ids"]
    assert split["attention_mask"] == whole["attention_mask"]
    for labels in split["labels"]:
        assert not set(labels) & set(tokenizer.all_special_ids)


def test_every_row_has_a_gap(tokenizer):
    task = ftkit.MaskedLM(("text",), mlm_probability=1e-9)
    split = task.encode(table(["soup", "the soup was fine", "☂ ☂ ☂"]), tokenizer)["train"]
    assert [sum(label != -100 for label in labels) for labels in split["labels"]] == [1, 1, 1]
    assert tokenizer.unk_token_id in split["labels"][2]  # nothing else to choose


def test_the_draws_are_those_that_the_docstring_names(tokenizer):
    task = ftkit.MaskedLM(("text",), n_maskings=2, seed=7)
    split = task.encode(table(long_texts(3)), tokenizer)["train"]
    rng = np.random.default_rng([7, 2, 1])  # seed, row, copy
    ids = np.array(tokenizer(long_texts(3)[2])["input_ids"])
    chosen = np.arange(1, 31)[rng.random(30) < 0.15]
    fate = rng.random(len(chosen))
    expected = ids.copy()
    expected[chosen[fate < 0.8]] = tokenizer.mask_token_id
    others = chosen[(fate >= 0.8) & (fate < 0.9)]
    expected[others] = rng.integers(0, len(tokenizer), len(others))
    assert split[5]["input_ids"] == expected.tolist()
    assert [i for i, label in enumerate(split[5]["labels"]) if label != -100] == chosen.tolist()


def test_copies_of_a_row_differ_and_stay_with_it(splits, tokenizer):
    task = ftkit.MaskedLM(("text",), mlm_probability=0.5, n_maskings=4)
    encoded = task.encode(splits, tokenizer)
    assert {name: len(split) for name, split in encoded.items()} == {
        "train": 4 * 56,
        "validation": 12,
        "test": 12,
    }
    texts = dict(zip(splits["train"]["row"], splits["train"]["text"], strict=True))
    restored = originals(encoded["train"])
    for row, ids in zip(encoded["train"]["row"], restored, strict=True):
        assert ids == tokenizer(texts[row])["input_ids"]
    row = splits["train"]["row"][3]
    copies = encoded["train"].filter(lambda found: found == row, input_columns="row")
    assert len(copies) == 4
    assert len(set(map(tuple, copies["labels"]))) > 1


def test_masks_depend_on_the_seed_and_not_on_the_batches_of_map(tokenizer, monkeypatch):
    splits = table(long_texts(30))

    def encode(seed: int, batch_size: int) -> list[tuple[str, tuple[int, ...]]]:
        task = ftkit.MaskedLM(("text",), n_maskings=3, seed=seed)
        whole = Dataset.map
        with monkeypatch.context() as patch:
            patch.setattr(
                Dataset, "map", lambda *a, **k: whole(*a, **{**k, "batch_size": batch_size})
            )
            split = task.encode(splits, tokenizer)["train"]
        pairs = zip(split["row"], map(tuple, split["input_ids"]), strict=True)
        return sorted(pairs)

    assert encode(0, 1000) == encode(0, 7) == encode(0, 1)
    assert encode(0, 1000) != encode(1, 1000)


def test_the_loss_is_that_of_transformers(splits, task, tokenizer, masked):
    encoded = task.encode(splits, tokenizer)["test"]
    report = ftkit.evaluate(masked, encoded, task, bf16=False)
    batch = collate(encoded, range(len(encoded)), tokenizer.pad_token_id)
    with torch.inference_mode():
        outputs = masked(**batch)
    gaps = batch["labels"] != -100
    right = outputs.logits.argmax(-1)[gaps] == batch["labels"][gaps]
    assert report.metrics["loss"] == pytest.approx(float(outputs.loss), abs=1e-5)
    assert report.metrics["perplexity"] == pytest.approx(float(outputs.loss.exp()), rel=1e-4)
    assert report.metrics["accuracy"] == pytest.approx(float(right.float().mean()))
    low, high = report.intervals["loss"]
    assert low < report.metrics["loss"] < high


def test_counts_against_an_independent_reference():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1000, 6, 11)).astype(np.float32)
    labels = rng.integers(0, 11, (1000, 6))
    labels[rng.random(labels.shape) < 0.6] = -100
    counts = token_counts(torch.tensor(logits), torch.tensor(labels))
    scores = log_softmax(logits.astype(float), axis=-1)
    for row in range(1000):
        places = np.flatnonzero(labels[row] != -100)
        named = labels[row, places]
        expected = (
            -scores[row, places, named].sum(),
            len(places),
            (logits[row, places].argmax(-1) == named).sum(),
        )
        np.testing.assert_allclose(counts[row], expected, atol=1e-5)


def test_accumulation_weighs_by_the_number_of_gaps(tokenizer, masked):
    texts = ["soup", *long_texts(7)]  # one row with one gap among rows with several
    encoded = ftkit.MaskedLM(("text",), mlm_probability=0.3).encode(table(texts), tokenizer)
    twin = copy.deepcopy(masked)
    for model, parts in ((masked, 1), (twin, 4)):
        for dropout in (m for m in model.modules() if isinstance(m, torch.nn.Dropout)):
            dropout.p = 0.0  # micro-batches draw their own
        config = ftkit.TrainingConfig(
            num_train_epochs=1, batch_size=8, gradient_accumulation_steps=parts, bf16=False
        )
        list(ftkit.TrainingRun(model, encoded["train"], config))
    for one, other in zip(masked.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_training_lowers_the_loss_and_the_saved_model_fills_as_before(splits, tokenizer, tmp_path):
    task = ftkit.MaskedLM(("text",), mlm_probability=0.3, n_maskings=4)
    encoded = task.encode(splits, tokenizer)
    torch.manual_seed(0)
    model = BertForMaskedLM(tiny_config())
    before = ftkit.evaluate(model, encoded["validation"], task, n_resamples=0).metrics["loss"]
    config = ftkit.TrainingConfig(learning_rate=3e-3, num_train_epochs=2, batch_size=16)
    history = ftkit.train(model, encoded, task, config)
    assert history.evaluations[history.best_epoch]["loss"] < before - 1
    ftkit.save_pretrained(tmp_path / "model", model, tokenizer, task)
    saved_task, saved_tokenizer, saved = ftkit.load_saved(tmp_path / "model")
    assert saved_task == task
    texts = [("the soup was [MASK] today",), ("the [MASK] was [MASK]",)]
    chances = []
    for one, words in ((model, tokenizer), (saved, saved_tokenizer)):
        gaps = saved_task.encode_texts(texts, words)
        chances.append(ftkit.predict(one, gaps, saved_task, bf16=False))
    for one, other in zip(*chances, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_gaps_read_as_the_likeliest_tokens_with_their_probabilities(task, tokenizer, masked):
    texts = [("the [MASK] was [MASK] today",), ("[MASK] soup",)]
    encoded = task.encode_texts(texts, tokenizer)
    lines = task.decode(ftkit.predict(masked, encoded, task, bf16=False), encoded, tokenizer)
    assert [len(fields) for fields in lines] == [2, 1]
    for (text,), fields in zip(texts, lines, strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        places = inputs["input_ids"][0] == tokenizer.mask_token_id
        with torch.inference_mode():
            chances = masked(**inputs).logits[0].softmax(-1)[places][:, : len(tokenizer)]
        best = chances.topk(5)
        for field, values, ids in zip(fields, best.values, best.indices, strict=True):
            names = tokenizer.convert_ids_to_tokens(ids.tolist())
            pairs = zip(names, values.tolist(), strict=True)
            assert field == " ".join(f"{name} {value:.3f}" for name, value in pairs)


def test_texts_without_a_gap_are_named_in_one_message(task, tokenizer):
    texts = [("the soup",), ("the [MASK]",), ("the room", "the film"), ("fine " * 70 + "[MASK]",)]
    assert message(task.encode_texts, texts[:3], tokenizer).splitlines() == [
        "text 3: 2 texts came; expected 1 (text).",
        'text 1: holds no [MASK]; expected one for each gap, such as "It is [MASK] today."',
        'text 3: holds no [MASK]; expected one for each gap, such as "It is [MASK] today."',
    ]
    assert message(task.encode_texts, texts[3:], tokenizer) == (
        "text 1: its [MASK] stands after the 64 tokens that are read."
    )


def test_a_tokenizer_without_a_mask_token(task, tokenizer, splits):
    plain = copy.deepcopy(tokenizer)
    plain.mask_token = None
    expected = "The tokenizer has no mask token: it is not of a masked model."
    assert message(task.encode, splits, plain) == expected
    assert message(task.encode_texts, [("the soup",)], plain) == expected


def test_bad_rows(task, tokenizer):
    assert message(task.encode, table(["fine", "", " "]), tokenizer).splitlines() == [
        'train.csv, row 3: "text" is empty; expected text.',
        'train.csv, row 4: "text" is empty; expected text.',
    ]
    other = ftkit.MaskedLM(("texts",), n_maskings=2)
    assert message(other.encode, table(["fine"]), tokenizer) == (
        'train.csv: no column "texts". Did you mean "text"?'
    )


def test_a_text_of_which_no_token_is_left(tokenizer):
    task = ftkit.MaskedLM(("text",), n_maskings=2)
    assert message(task.encode, table(["fine", "soup"]), tokenizer, max_length=2).splitlines() == [
        "train.csv, row 2: the tokenizer makes no token of its text.",
        "train.csv, row 3: the tokenizer makes no token of its text.",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"mlm_probability": 0},
            "mlm_probability is 0; expected more than 0, less than 1.",
        ),
        ({"mlm_probability": 1.0}, "mlm_probability is 1.0; expected more than 0, less than 1."),
        ({"n_maskings": 0}, "n_maskings is 0; expected a whole number, 1 or more."),
        ({"n_maskings": 1.5}, "n_maskings is 1.5; expected a whole number, 1 or more."),
        ({"seed": -1}, "seed is -1; expected a whole number, 0 or more."),
        (
            {"text_columns": ("a", "b", "c")},
            "text_columns is ('a', 'b', 'c'); expected one or two columns.",
        ),
    ],
)
def test_impossible_tasks(options, expected):
    assert message(ftkit.MaskedLM, **{"text_columns": ("text",), **options}) == expected


def test_a_task_survives_its_dictionary():
    task = ftkit.MaskedLM(["text"], mlm_probability=0.3, n_maskings=2, seed=5)
    assert task.text_columns == ("text",)
    assert task_from_dict(task.to_dict()) == task


def test_an_encoder_without_a_masked_head_is_refused(task):
    said = message(ftkit.load_pretrained, "minilm", task)
    assert said.endswith(
        ": the weights lack 6 parameters of BertForMaskedLM, such as cls.predictions.bias. For "
        "masked-lm take one that was saved with its head, such as tiny-bert-zh."
    )


def test_the_command_line(checkpoint, folder, tmp_path, capsys):
    def run(*args: object) -> tuple[int, list[str], str]:
        status = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err

    output = tmp_path / "out"
    train = ["train", "--task", "masked-lm", "--data", folder, "--output", output]
    train += ["--checkpoint", checkpoint, "--num-train-epochs", 1, "--learning-rate", "1e-3"]
    status, _, err = run(*train, "--label-column", "label")
    assert status == 2
    assert "--label-column says nothing to the task masked-lm; leave it out." in err
    status, out, _ = run(*train)
    assert status == 0
    assert out[0] == "56 train, 12 validation, 12 test rows; text"
    assert out[-2].startswith("validation loss ")
    assert out[-2].endswith(" after epoch 1")
    status, out, _ = run("evaluate", output, "--data", folder)
    assert status == 0
    assert [line.split()[0] for line in out[1:]] == ["loss", "perplexity", "accuracy"]
    status, out, _ = run("predict", output, "the soup was [MASK] today", "[MASK] film was [MASK]")
    assert status == 0
    assert [line.count("\t") for line in out] == [1, 2]
    assert out[0].split("\t")[1] == "the soup was [MASK] today"
    assert len(out[0].split("\t")[0].split()) == 10
    status, _, err = run("predict", output, "the soup was fine")
    assert status == 2
    assert err.startswith("ftkit predict: text 1: holds no [MASK];")
