"""Causal language models: encoding by hand, the loss against transformers, and writing."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import ftkit
from ftkit.cli.main import main
from ftkit.data.batches import collate
from ftkit.tasks import find_task, task_from_dict
from ftkit.tasks.language_modeling import token_counts
from tests.conftest import message

END, PAD = "<|endoftext|>", "<|pad|>"
ANIMALS = ("hen", "goat", "fox", "owl", "cat", "dog")
ROWS = [
    {
        "title": f"The {animal.title()} {i}",
        "story": f"A {animal} ran up hill {i}." + " It ran on." * (i % 4),
        "moral": f"Run {'far ' * (i % 3)}and rest {i}.",
    }
    for i, animal in enumerate(ANIMALS * 4)
]
STORY_TASK = ftkit.CausalLM(("story", "moral"), prompt_columns=("title",))
FULL = ftkit.TrainingConfig(learning_rate=1e-2, num_train_epochs=2, batch_size=4, bf16=False)


def byte_pairs(*special: str, **options) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer of the stories, as GPT-2 has one."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[*special], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([" ".join(row.values()) for row in ROWS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=128, **options)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """End of text is the beginning too; padding is a token of its own."""
    return byte_pairs(END, PAD, eos_token=END, bos_token=END, pad_token=PAD)


@pytest.fixture(scope="module")
def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """As GPT-2's own: no padding token."""
    return byte_pairs(END, eos_token=END, bos_token=END)


def tiny_gpt(tokenizer, **options) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "n_positions": 128, "n_embd": 32, "n_layer": 2}
    special = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad")}
    return GPT2LMHeadModel(GPT2Config(n_head=4, **{**sizes, **special, **options})).eval()


def table(rows=ROWS, name: str = "train") -> DatasetDict:
    named = [{**row, "row": f"{name}.jsonl, row {i}"} for i, row in enumerate(rows, start=1)]
    return DatasetDict({name: Dataset.from_list(named)})


def encode(tokenizer, task=STORY_TASK, rows=ROWS, **options) -> Dataset:
    return task.encode(table(rows), tokenizer, **options)["train"]


@pytest.fixture
def checkpoint(tmp_path, tokenizer):
    """A folder with a random GPT-2, as a hub repository would hold it."""
    tiny_gpt(tokenizer).save_pretrained(tmp_path / "tiny-gpt")
    tokenizer.save_pretrained(tmp_path / "tiny-gpt")
    return tmp_path / "tiny-gpt"


# Encoding


def test_a_row_is_beginning_prompt_text_end(tokenizer):
    row = encode(tokenizer)[7]
    prompt = tokenizer(END + "The Goat 7\n")["input_ids"]
    text = tokenizer("A goat ran up hill 7. It ran on. It ran on. It ran on.\nRun far and rest 7.")
    ids = [*prompt, *text["input_ids"], tokenizer.eos_token_id]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(prompt[-1]) == "\n"
    assert row["input_ids"] == ids
    assert row["labels"] == [-100] * len(prompt) + ids[len(prompt) :]
    assert row["attention_mask"] == [1] * len(ids)
    assert row["row"] == "train.jsonl, row 8"


def test_without_a_prompt_all_but_the_beginning_is_learnt(tokenizer):
    row = encode(tokenizer, ftkit.CausalLM(("moral",)))[0]
    ids = tokenizer("Run and rest 0.")["input_ids"]
    assert row["input_ids"] == [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    assert row["labels"] == [-100, *ids, tokenizer.eos_token_id]


def test_a_tokenizer_without_a_beginning():
    tokenizer = byte_pairs(END, eos_token=END)
    row = encode(tokenizer, ftkit.CausalLM(("moral",)))[0]
    assert row["input_ids"] == [*tokenizer("Run and rest 0.")["input_ids"], tokenizer.eos_token_id]
    assert row["labels"] == row["input_ids"]


def test_several_prompts_stand_each_on_its_line(tokenizer):
    task = ftkit.CausalLM(("moral",), prompt_columns=("title", "story"))
    row = encode(tokenizer, task)[0]
    text = END + "The Hen 0\nA hen ran up hill 0.\nRun and rest 0." + END
    assert row["input_ids"] == tokenizer(text)["input_ids"]
    learnt = [i for i in row["labels"] if i != -100]
    assert tokenizer.decode(learnt) == "Run and rest 0." + END


def test_padding_is_no_label_and_the_end_is_one(tokenizer):
    encoded = encode(tokenizer)
    batch = collate(encoded, range(8), tokenizer.pad_token_id)
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["input_ids"][padding] == tokenizer.pad_token_id).all()
    assert (batch["labels"][padding] == -100).all()
    last = batch["attention_mask"].sum(dim=1) - 1
    assert (batch["labels"][range(8), last] == tokenizer.eos_token_id).all()
    assert ((batch["labels"] == tokenizer.eos_token_id).sum(dim=1) == 1).all()
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_long_rows_are_cut_at_the_end(tokenizer):
    whole = encode(tokenizer)
    with pytest.warns(ftkit.TruncationWarning, match=r"^\d+ of \d+ rows of .train. cut, "):
        cut = encode(tokenizer, max_length=12)
    for one, other in zip(whole, cut, strict=True):
        for name in ("input_ids", "attention_mask", "labels"):
            assert other[name] == one[name][:12]


# Bad rows


def test_a_prompt_that_fills_everything_is_named(tokenizer):
    rows = [*ROWS[:2], {"title": "hen " * 200, "story": "It ran.", "moral": "Rest."}]
    assert message(encode, tokenizer, rows=rows) == (
        "train.jsonl, row 3: the prompt fills all 128 tokens and leaves none for the text."
    )
    assert message(encode, tokenizer, max_length=4).splitlines()[:2] == [
        "train.jsonl, row 1: the prompt fills all 4 tokens and leaves none for the text.",
        "train.jsonl, row 2: the prompt fills all 4 tokens and leaves none for the text.",
    ]


def test_every_bad_text_is_named_in_one_message(tokenizer):
    rows = [{**ROWS[0], "title": ""}, {**ROWS[1], "moral": None}, {**ROWS[2], "story": " "}]
    assert message(encode, tokenizer, rows=rows).splitlines() == [
        'train.jsonl, row 1: "title" is empty; expected text.',
        'train.jsonl, row 3: "story" is empty; expected text.',
        'train.jsonl, row 2: "moral" is missing (NaN); expected text.',
    ]


def test_a_missing_column_gets_the_closest_name(tokenizer):
    assert message(encode, tokenizer, ftkit.CausalLM(("storey",))) == (
        'train.jsonl: no column "storey". Did you mean "story"?'
    )


def test_a_tokenizer_without_an_end_is_refused():
    assert message(encode, byte_pairs(END)) == (
        "The tokenizer has no end-of-text token (eos_token); set one."
    )


def test_a_column_is_learnt_or_given():
    assert message(ftkit.CausalLM, ("story",), ("story",)) == (
        '"story → story": expected columns to learn, none of them given.'
    )
    assert message(ftkit.CausalLM, (), ("story",)) == (
        '"story → ": expected columns to learn, none of them given.'
    )


def test_bad_prompts(tokenizer):
    encode_texts = STORY_TASK.encode_texts
    assert message(encode_texts, [["one", "two"]], tokenizer) == (
        "text 1: 2 texts came; expected 1 (title)."
    )
    assert message(encode_texts, [["The Hen"], ["hen " * 200]], tokenizer) == (
        "text 2: 204 tokens came; expected 1 to 127."
    )
    plain = ftkit.CausalLM(("story",))
    assert message(plain.encode_texts, [[""]], byte_pairs(END, eos_token=END)) == (
        "text 1: 0 tokens came; expected 1 to 127."
    )
    assert plain.encode_texts([[""]], tokenizer)[0]["input_ids"] == [tokenizer.bos_token_id]


# Which columns


def test_stories_are_recognised():
    splits = table()
    assert find_task(None, splits) is ftkit.CausalLM
    assert ftkit.CausalLM.infer(splits) == STORY_TASK
    assert STORY_TASK.describe() == "title → story, moral"
    assert task_from_dict(json.loads(json.dumps(STORY_TASK.to_dict()))) == STORY_TASK


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        (("prompt", "completion"), {}, ftkit.CausalLM(("completion",), ("prompt",))),
        (("title", "text", "label"), {}, ftkit.CausalLM(("text",))),
        (("title", "story"), {"text_columns": ["story"]}, ftkit.CausalLM(("story",))),
        (
            ("title", "story", "moral"),
            {"text_columns": ["moral"], "prompt_columns": ["story"]},
            ftkit.CausalLM(("moral",), ("story",)),
        ),
    ],
)
def test_the_usual_columns(columns, options, expected):
    splits = DatasetDict({"train": Dataset.from_dict({name: ["a"] for name in columns})})
    assert ftkit.CausalLM.infer(splits, **options) == expected


def test_columns_that_cannot_be_guessed():
    splits = DatasetDict({"train": Dataset.from_dict({"comment": ["a"]})})
    assert message(ftkit.CausalLM.infer, splits) == (
        "Say which with --text-columns. The columns are: comment."
    )


# Metrics


def test_token_counts_against_torch():
    """A thousand random batches: summed loss, number of labels, number of right guesses."""
    generator = torch.Generator().manual_seed(0)
    for case in range(1000):
        batch, length, vocabulary = (torch.randint(1, 9, (3,), generator=generator) + 1).tolist()
        logits = 3 * torch.randn(batch, length, vocabulary, generator=generator)
        labels = torch.randint(vocabulary, (batch, length), generator=generator)
        labels[torch.rand(batch, length, generator=generator) < case % 4 / 3] = -100
        found = token_counts(logits, labels)
        assert found.shape == (batch, 3)
        for counts, scores, truth in zip(found, logits, labels, strict=True):
            loss = cross_entropy(scores, truth, reduction="sum")  # -100 is torch's own choice
            right = sum(int(s.argmax()) == t for s, t in zip(scores, truth.tolist(), strict=True))
            assert counts[0] == pytest.approx(float(loss), abs=1e-5)
            assert counts[1:].tolist() == [int((truth >= 0).sum()), right]


def test_the_loss_is_that_of_transformers_weighted_by_tokens(tokenizer):
    """On ragged batches with padding; a mean of batch means would differ."""
    model, encoded = tiny_gpt(tokenizer, initializer_range=0.5), encode(tokenizer)
    nats, n_tokens, means = 0.0, 0, []
    for start in range(0, len(encoded), 5):
        rows = range(start, min(start + 5, len(encoded)))
        batch = collate(encoded, rows, tokenizer.pad_token_id)
        with torch.no_grad():
            loss = float(model(**batch).loss)
        count = int((batch["labels"][:, 1:] != -100).sum())
        nats, n_tokens, means = nats + loss * count, n_tokens + count, [*means, loss]
    report = ftkit.evaluate(model, encoded, STORY_TASK, bf16=False)
    assert report.metrics["loss"] == pytest.approx(nats / n_tokens, rel=1e-5)
    assert report.metrics["perplexity"] == pytest.approx(math.exp(nats / n_tokens), rel=1e-5)
    assert abs(np.mean(means) - nats / n_tokens) > 1e-3
    assert report.outputs[:, 1].sum() == n_tokens
    low, high = report.intervals["perplexity"]
    assert low < report.metrics["perplexity"] < high


def test_accuracy_and_right_rows(tokenizer):
    encoded = encode(tokenizer)
    model = tiny_gpt(tokenizer)
    report = ftkit.evaluate(model, encoded, STORY_TASK, n_resamples=0, bf16=False)
    right = total = 0
    for i, row in enumerate(encoded):
        with torch.no_grad():
            guesses = model(torch.tensor([row["input_ids"]])).logits[0, :-1].argmax(-1).tolist()
        pairs = [(g, t) for g, t in zip(guesses, row["labels"][1:], strict=True) if t != -100]
        right, total = right + sum(g == t for g, t in pairs), total + len(pairs)
        assert report.is_correct[i] == all(g == t for g, t in pairs)
    assert report.metrics["accuracy"] == pytest.approx(right / total)


# Without a padding token, as in GPT-2


def test_a_tokenizer_without_padding_works(gpt2_tokenizer):
    assert gpt2_tokenizer.pad_token_id is None
    model, encoded = tiny_gpt(gpt2_tokenizer), encode(gpt2_tokenizer)
    alone = copy.deepcopy(encoded).select(range(6))
    report = ftkit.evaluate(model, alone, STORY_TASK, n_resamples=0, bf16=False)
    for i, row in enumerate(alone):
        single = ftkit.evaluate(model, alone.select([i]), STORY_TASK, n_resamples=0, bf16=False)
        np.testing.assert_allclose(report.outputs[i], single.outputs[0], rtol=1e-5)
        assert report.outputs[i][1] == sum(label != -100 for label in row["labels"])
    before = ftkit.evaluate(model, encoded, STORY_TASK, n_resamples=0, bf16=False).metrics["loss"]
    list(ftkit.TrainingRun(model, encoded, FULL))
    after = ftkit.evaluate(model, encoded, STORY_TASK, n_resamples=0, bf16=False).metrics["loss"]
    assert after < before - 1.5
    prompts = STORY_TASK.encode_texts([["The Hen 0"], ["The Goat 7"]], gpt2_tokenizer)
    assert len(ftkit.predict(model, prompts, STORY_TASK, bf16=False)) == 2


# Writing


def test_writing_is_greedy_and_stops_at_the_end(tokenizer):
    """The end of text is learnt: a model that knows its rows by heart writes them and stops."""
    model, encoded = tiny_gpt(tokenizer, resid_pdrop=0.0, attn_pdrop=0.0), encode(tokenizer)
    config = ftkit.TrainingConfig(
        learning_rate=1e-2, num_train_epochs=120, batch_size=2, bf16=False, warmup_steps=0.1
    )
    list(ftkit.TrainingRun(model, encoded.select(range(2)), config))
    prompts = STORY_TASK.encode_texts([[row["title"]] for row in ROWS[:2]], tokenizer)
    written = ftkit.predict(model, prompts, STORY_TASK, bf16=False)
    for ids, row in zip(written, ROWS, strict=False):
        assert ids[-1] == tokenizer.eos_token_id
        text = STORY_TASK.decode([ids], prompts, tokenizer)[0][0]
        assert text == f"{row['story']}\n{row['moral']}"


def test_a_prompt_is_continued_as_if_it_were_alone(tokenizer):
    model = tiny_gpt(tokenizer, initializer_range=0.5)
    prompts = STORY_TASK.encode_texts([["The Hen 0"], ["A"], ["The Goat and the Owl"]], tokenizer)
    together = ftkit.predict(model, prompts, STORY_TASK, bf16=False)
    for i, ids in enumerate(together):
        row, by_hand = prompts[i]["input_ids"], []
        while len(row) < 128 and (not by_hand or by_hand[-1] != tokenizer.eos_token_id):
            with torch.no_grad():
                by_hand.append(int(model(torch.tensor([row])).logits[0, -1].argmax()))
            row = [*row, by_hand[-1]]
        assert ids.tolist() == by_hand  # to the model's last position, and not beyond


def test_drawing_follows_the_saved_settings_and_the_seed(tokenizer):
    model = tiny_gpt(tokenizer, initializer_range=0.5)
    model.generation_config.do_sample = True
    prompts = STORY_TASK.encode_texts([["The Hen 0"]], tokenizer)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(ftkit.predict(model, prompts, STORY_TASK, bf16=False)[0].tolist())
    assert drawn[0] == drawn[1] != drawn[2]


# From the data to a saved model


def test_saved_and_loaded_it_is_the_same(tokenizer, checkpoint, tmp_path):
    tokenizer, model = ftkit.load_pretrained(checkpoint, STORY_TASK)
    splits = DatasetDict({**table(ROWS[:16]), **table(ROWS[16:], "validation")})
    encoded = STORY_TASK.encode(splits, tokenizer)
    history = ftkit.train(model, encoded, STORY_TASK, FULL)
    losses = [metrics["loss"] for metrics in history.evaluations]
    assert history.best_epoch == losses.index(min(losses))
    report = ftkit.evaluate(model, encoded["train"], STORY_TASK, bf16=False)
    ftkit.save_pretrained(tmp_path / "out", model, tokenizer, STORY_TASK)
    task, tokenizer, model = ftkit.load_saved(tmp_path / "out")
    assert task == STORY_TASK
    again = task.encode(splits, tokenizer)["train"]
    other = ftkit.evaluate(model, again, task, bf16=False)
    np.testing.assert_array_equal(report.outputs, other.outputs)
    assert report.metrics == other.metrics


def test_the_command_line(checkpoint, tmp_path, capsys, recwarn):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name, rows in (("train", ROWS[:12]), ("validation", ROWS[12:18]), ("test", ROWS[18:])):
        lines = [json.dumps(row) + "\n" for row in rows]
        (data / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    train = ["train", "--data", data, "--checkpoint", checkpoint, "--output", out]
    assert main([*map(str, train), "--learning-rate", "1e-2", "--num-train-epochs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "12 train, 6 validation, 6 test rows; title → story, moral"
    assert lines[-2].startswith("validation loss ")
    assert main(["evaluate", str(out), "--data", str(data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["loss", "perplexity", "accuracy"]
    assert main(["predict", str(out), "The Hen 1", "The Owl"]) == 0
    text = capsys.readouterr().out
    assert "\tThe Hen 1\n" in text
    assert text.endswith("\tThe Owl\n")


def test_columns_on_the_command_line(checkpoint, tmp_path, capsys):
    data, out = tmp_path / "rows.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    train = ["train", "--data", data, "--checkpoint", checkpoint, "--output", out]
    train += ["--task", "causal-lm", "--text-columns", "moral", "--num-train-epochs", "1"]
    assert main([*map(str, train), "--prompt-columns", "title", "story"]) == 0
    assert "; title, story → moral\n" in capsys.readouterr().out
    assert main(["predict", str(out), "The Hen", "A hen ran.", "The Fox"]) == 2
    assert "text 2: 1 texts came; expected 2 (title, story)." in capsys.readouterr().err
