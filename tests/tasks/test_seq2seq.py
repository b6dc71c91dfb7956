"""Translation and summarisation: encoding by hand, the shift, metrics against sacrebleu."""

import copy
import json
import random

import numpy as np
import pytest
import sacrebleu
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch.nn.functional import cross_entropy
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

import ftkit
from ftkit.cli.main import main
from ftkit.data.batches import collate
from ftkit.evaluation.reports import bootstrap_weights, make_report
from ftkit.metrics.ngrams import (
    bleu_score,
    bleu_statistics,
    chrf_score,
    chrf_statistics,
)
from ftkit.models.parameters import layer_depths
from ftkit.tasks import find_task, task_from_dict
from tests.conftest import message, write_csv

PAD, END, UNKNOWN = 0, 1, 2
THINGS = {"tea": "茶", "rice": "饭", "fish": "鱼", "soup": "汤", "fruit": "果", "meat": "肉"}
VERBS = {"buy": "买", "want": "要", "eat": "吃", "see": "看"}
ROWS = [
    {"english": f"I {verb} {thing}.", "chinese": f"我{sign}{other}。"}
    for verb, sign in VERBS.items()
    for thing, other in THINGS.items()
]
TASK = ftkit.Seq2Seq("english", "chinese", tokenize="zh", max_new_tokens=8)
CONFIG = ftkit.TrainingConfig(learning_rate=1e-2, num_train_epochs=20, batch_size=4, bf16=False)
LETTERS = "我你吃茶饭鱼。，ab c?"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """English words and Chinese characters, each a token, and the end after them."""
    words = sorted({w for row in ROWS for w in row["english"].lower().rstrip(".").split()})
    signs = sorted({c for row in ROWS for c in row["chinese"]} | {"."})
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *words, *signs])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+|\S"), "removed", invert=True)
    inner.decoder = decoders.Fuse()
    inner.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", END)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=16,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )


def tiny_marian(tokenizer, **options) -> MarianMTModel:
    torch.manual_seed(0)
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        scale_embedding=True,
        init_std=0.1,  # learns within a few steps
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=PAD,
        forced_eos_token_id=None,
        **{"dropout": 0.0, "max_position_embeddings": 32, **sizes, **heads, **options},
    )
    return MarianMTModel(config).eval()


def table(rows, name: str = "train") -> DatasetDict:
    named = [{**row, "row": f"{name}.csv, row {i}"} for i, row in enumerate(rows, start=1)]
    return DatasetDict({name: Dataset.from_list(named)})


def encode(tokenizer, task=TASK, rows=ROWS, **options) -> Dataset:
    return task.encode(table(rows), tokenizer, **options)["train"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tokenizer):
    """A folder with a random Marian, as a hub repository would hold it."""
    path = tmp_path_factory.mktemp("marian") / "tiny-marian"
    tiny_marian(tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


# Encoding


def test_a_row_is_source_and_target_each_with_its_end(tokenizer):
    row = encode(tokenizer)[0]
    words = ["i", "buy", "tea", ".", "</s>"]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == words
    assert tokenizer.convert_ids_to_tokens(row["labels"]) == ["我", "买", "茶", "。", "</s>"]
    assert row["attention_mask"] == [1] * 5
    assert row["reference"] == "我买茶。"
    assert row["row"] == "train.csv, row 1"


def test_labels_are_padded_with_minus_100_and_inputs_with_pad(tokenizer):
    rows = [{"english": "I buy tea.", "chinese": "茶"}, {"english": "tea", "chinese": "我买茶。"}]
    batch = collate(encode(tokenizer, rows=rows), [0, 1], tokenizer.pad_token_id)
    assert batch["labels"][0, 2:].tolist() == [-100] * 3
    assert batch["input_ids"][1, 2:].tolist() == [PAD] * 3
    assert batch["attention_mask"][1].tolist() == [1, 1, 0, 0, 0]


def test_a_prefix_stands_before_each_source(tokenizer):
    task = ftkit.Seq2Seq("english", "chinese", prefix="I want ")
    assert encode(tokenizer, task)[0]["input_ids"] == tokenizer("I want I buy tea.")["input_ids"]
    texts = task.encode_texts([("tea",)], tokenizer)
    assert texts[0]["input_ids"] == tokenizer("I want tea")["input_ids"]


def test_long_texts_are_cut_and_keep_their_end(tokenizer):
    with pytest.warns(ftkit.TruncationWarning) as caught:
        row = encode(tokenizer, max_length=3)[0]
    assert str(caught[0].message) == (
        '24 of 24 rows of "train" cut, the longest has 5 tokens; the limit is 3 (max_length).'
    )
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == ["i", "buy", "</s>"]
    assert tokenizer.convert_ids_to_tokens(row["labels"]) == ["我", "买", "</s>"]


def test_a_tokenizer_that_adds_no_end_gets_one(tokenizer):
    plain = copy.deepcopy(tokenizer)
    plain.backend_tokenizer.post_processor = processors.TemplateProcessing("$A")
    assert encode(plain)[0]["labels"][-1] == END
    with pytest.warns(ftkit.TruncationWarning):
        cut, expected = (encode(one, max_length=3)[0]["labels"] for one in (plain, tokenizer))
    assert cut == expected


def test_a_tokenizer_without_an_end(tokenizer):
    plain = copy.deepcopy(tokenizer)
    plain.eos_token = None
    told = message(encode, plain)
    assert told == "The tokenizer has no end-of-text token (eos_token); set one."


def test_a_source_in_two_splits_is_a_leak(tokenizer):
    splits = DatasetDict({**table(ROWS), **table(ROWS[:2], "test")})
    with pytest.warns(ftkit.LeakWarning, match='2 of 2 rows of "test" stand in "train" too'):
        TASK.encode(splits, tokenizer)


# Bad rows and bad fields


def test_bad_rows_are_all_named(tokenizer):
    rows = [*ROWS[:2], {"english": " ", "chinese": "茶"}, {"english": "tea", "chinese": None}]
    assert message(encode, tokenizer, rows=rows) == (
        'train.csv, row 3: "english" is empty; expected text.\n'
        'train.csv, row 4: "chinese" is missing (NaN); expected text.'
    )


def test_a_missing_column_names_the_closest(tokenizer):
    told = message(encode, tokenizer, ftkit.Seq2Seq("english", "chinees"))
    assert told == 'train.csv: no column "chinees". Did you mean "chinese"?'


def test_bad_fields_are_all_named():
    told = message(ftkit.Seq2Seq, "text", "text", tokenize="zhh", max_new_tokens=0)
    assert 'source and target are both "text"; expected two.' in told
    assert 'tokenize is "zhh". Did you mean "zh"?' in told
    assert "max_new_tokens is 0; expected 1 or more." in told


def test_scores_need_a_tokenizer_that_encoding_gives():
    task = ftkit.Seq2Seq("english", "chinese")
    told = message(task.row_statistics, [np.zeros(3)], ["茶"])
    assert "Encode first: task.encode(splits, tokenizer)." in told


def test_each_row_of_texts_is_one_source(tokenizer):
    told = message(TASK.encode_texts, [("tea", "rice")], tokenizer)
    assert told == "text 1: 2 texts came; expected 1 (english)."


# Which task


def test_columns_choose_the_task():
    assert find_task(None, table(ROWS)) is ftkit.Seq2Seq
    assert ftkit.Seq2Seq.infer(table(ROWS)) == ftkit.Seq2Seq("english", "chinese", tokenize="zh")
    summaries = table([{"text": "Long.", "summary": "Short.", "kind": "news"}])
    assert find_task(None, summaries) is ftkit.Seq2Seq
    assert ftkit.Seq2Seq.infer(summaries) == ftkit.Seq2Seq("text", "summary")
    assert not ftkit.Seq2Seq.recognises(["text", "label"])


def test_given_columns_win():
    task = ftkit.Seq2Seq.infer(table(ROWS), text_columns=["chinese", "english"])
    assert (task.text_columns, task.tokenize) == (("chinese", "english"), "13a")
    told = message(ftkit.Seq2Seq.infer, table(ROWS), text_columns=["english"])
    assert told == "--text-columns is english; expected source and target."
    other = table([{"a": "x", "b": "y"}])
    told = message(ftkit.Seq2Seq.infer, other)
    assert told == "Say which with --text-columns. The columns are: a, b."


def test_a_task_comes_back_from_its_dict(tokenizer):
    before = vars(TASK).copy()
    encode(tokenizer)
    assert vars(TASK) == before  # encoding leaves nothing behind in a task
    assert task_from_dict(json.loads(json.dumps(TASK.to_dict()))) == TASK


@pytest.mark.parametrize("name", ["phrases_en_zh", "summaries"])
def test_bundled_data_is_recognised(name):
    splits = ftkit.load_splits(name)
    kind = find_task(None, splits)
    assert kind is ftkit.Seq2Seq
    kind.infer(splits).check(splits)


# The shift and the loss


def shifted(labels: torch.Tensor) -> torch.Tensor:
    """One place later, the start token first, and padding where the loss looks away."""
    start = torch.full((len(labels), 1), PAD)
    return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == -100, PAD)], dim=1)


def test_the_model_shifts_labels_as_by_hand(tokenizer):
    model = tiny_marian(tokenizer)
    rows = [*ROWS[:3], {"english": "tea", "chinese": "茶"}]
    batch = collate(encode(tokenizer, rows=rows), range(4), PAD)
    by_hand = shifted(batch["labels"])
    assert (by_hand == model.prepare_decoder_input_ids_from_labels(batch["labels"])).all()
    with torch.inference_mode():
        given = {n: batch[n] for n in ("input_ids", "attention_mask")}
        logits = model(**given, decoder_input_ids=by_hand).logits
        loss = model(**batch).loss
    torch.testing.assert_close(cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()), loss)


def test_the_loss_is_the_models_own(tokenizer):
    model = tiny_marian(tokenizer)
    rows = [*ROWS[:6], {"english": "tea", "chinese": "茶"}]
    encoded = encode(tokenizer, rows=rows)
    report = ftkit.evaluate(model, encoded, TASK, n_resamples=0, bf16=False)
    with torch.inference_mode():
        loss = model(**collate(encoded, range(7), PAD)).loss
    assert report.metrics["loss"] == pytest.approx(float(loss), rel=1e-5)


# Metrics


def random_texts(generator: random.Random, rows: int) -> list[str]:
    return [
        "".join(generator.choices(LETTERS, k=generator.randint(0, 12))).strip() or "茶"
        for _ in range(rows)
    ]


def test_chrf_and_bleu_are_sacrebleus_on_a_thousand_random_sets():
    generator = random.Random(0)
    for turn in range(1000):
        rows, tokenize = generator.randint(1, 6), ("zh", "13a")[turn % 2]
        references = random_texts(generator, rows)
        texts = [
            reference[: generator.randint(0, 12)] if generator.random() < 0.5 else other
            for reference, other in zip(references, random_texts(generator, rows), strict=True)
        ]
        chrf = chrf_score(chrf_statistics(texts, references).sum(axis=0))
        assert chrf == pytest.approx(sacrebleu.corpus_chrf(texts, [references]).score, abs=1e-9)
        bleu = bleu_score(bleu_statistics(texts, references, tokenize).sum(axis=0))
        theirs = sacrebleu.corpus_bleu(texts, [references], tokenize=tokenize, force=True).score
        assert bleu == pytest.approx(theirs, abs=1e-9)


def test_nothing_written_scores_nothing():
    assert chrf_score(chrf_statistics([""], ["茶"])).tolist() == [0.0]
    assert bleu_score(bleu_statistics([""], ["茶"], "zh")).tolist() == [0.0]
    assert chrf_statistics([], []).shape == (0, 18)
    assert bleu_statistics([], []).shape == (0, 10)


def outputs_of(texts: list[str], tokenizer) -> list[np.ndarray]:
    """What a model would have written, after a loss of 3 nats over 2 tokens."""
    ids = [tokenizer(text)["input_ids"] for text in texts]
    return [np.array([3.0, 2.0, *row]) for row in ids]


def test_a_resample_scores_as_its_rows_written_out(tokenizer):
    references = TASK.references(encode(tokenizer, rows=ROWS[:6]))
    texts = [row["chinese"] for row in ROWS[3:9]]
    statistics = TASK.row_statistics(outputs_of(texts, tokenizer), references)
    weights = bootstrap_weights(6, 20, seed=1)
    scores = TASK.metrics(weights @ statistics)
    for turn, row in enumerate(weights):
        drawn = [i for i, times in enumerate(row) for _ in range(times)]
        some, wanted = [texts[i] for i in drawn], [references[i] for i in drawn]
        chrf = sacrebleu.corpus_chrf(some, [wanted]).score
        bleu = sacrebleu.corpus_bleu(some, [wanted], tokenize="zh").score
        assert scores["chrf"][turn] == pytest.approx(chrf)
        assert scores["bleu"][turn] == pytest.approx(bleu)
    assert scores["loss"].tolist() == [1.5] * 20


def test_what_is_right(tokenizer):
    written = ["我买茶。", "我买饭。", "我吃鱼。"]
    references = TASK.references(
        encode(tokenizer, rows=[{"english": "tea", "chinese": text} for text in written])
    )
    assert references == written
    outputs = outputs_of(["我买茶。", "我买鱼。", "我吃鱼。"], tokenizer)
    report = make_report(TASK, outputs, references, n_resamples=50)
    assert report.is_correct.tolist() == [True, False, True]
    low, high = report.intervals["chrf"]
    assert low <= report.metrics["chrf"] <= high


def test_a_task_that_encodes_with_another_tokenizer_scores_as_before(tokenizer):
    """Rows are read with the tokenizer that encoded them, whatever came after."""
    other = copy.deepcopy(tokenizer)
    vocabulary = {**other.get_vocab()}
    signs = sorted(set(vocabulary) - {"<pad>", "</s>", "<unk>"}, reverse=True)
    shuffled = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}
    shuffled |= {sign: i for i, sign in enumerate(signs, start=3)}
    other.backend_tokenizer.model = models.WordLevel(shuffled, unk_token="<unk>")
    encoded = encode(tokenizer)
    perfect = outputs_of([row["chinese"] for row in ROWS], tokenizer)
    one = make_report(TASK, perfect, TASK.references(encoded), n_resamples=0)
    elsewhere = encode(other)
    assert elsewhere["labels"] != encoded["labels"]
    two = make_report(TASK, perfect, TASK.references(encoded), n_resamples=0)
    assert one.metrics["chrf"] == two.metrics["chrf"] == pytest.approx(100)
    assert two.is_correct.all()
    there = outputs_of([row["chinese"] for row in ROWS], other)
    three = make_report(TASK, there, TASK.references(elsewhere), n_resamples=0)
    assert three.metrics["chrf"] == pytest.approx(100)
    assert ftkit.compare(two, three).differences["chrf"] == 0
    both = concatenate_datasets([encoded.select(range(3)), elsewhere.select(range(3, 6))])
    mixed = make_report(TASK, perfect[:3] + there[3:6], TASK.references(both), n_resamples=0)
    assert mixed.metrics["chrf"] == pytest.approx(100)


def test_a_report_can_be_copied(tokenizer):
    encoded = encode(tokenizer)
    outputs = outputs_of([row["chinese"] for row in ROWS], tokenizer)
    report = make_report(TASK, outputs, TASK.references(encoded), n_resamples=0)
    assert copy.deepcopy(report).references == report.references


# Training, writing, saving


@pytest.fixture(scope="module")
def trained(tokenizer):
    """A model that has learnt the rows, and the encoded split."""
    encoded = TASK.encode(table(ROWS), tokenizer)
    model = tiny_marian(tokenizer)
    ftkit.set_trainable(model, "full")
    ftkit.train(model, encoded, TASK, CONFIG)
    return model, encoded


def test_training_teaches_it_to_translate(trained, tokenizer):
    model, encoded = trained
    report = ftkit.evaluate(model, encoded["train"], TASK, bf16=False)
    assert report.metrics["chrf"] > 90
    assert report.is_correct.mean() > 0.8
    assert list(report.intervals) == ["chrf", "bleu", "loss"]


def test_with_and_without_labels_it_writes_the_same(trained, tokenizer):
    model, encoded = trained
    with_labels = ftkit.predict(model, encoded["train"], TASK, bf16=False)
    texts = TASK.encode_texts([(row["english"],) for row in ROWS], tokenizer)
    without = ftkit.predict(model, texts, TASK, bf16=False)
    read = TASK.decode(without, texts, tokenizer)
    assert read == TASK.decode(with_labels, encoded["train"], tokenizer)
    assert all(PAD not in row for row in without)
    assert [type(text) for (text,) in read] == [str] * len(ROWS)


def test_greedy_by_hand_is_what_it_writes(trained, tokenizer):
    model, _ = trained
    source = torch.tensor([tokenizer("I want fish.")["input_ids"]])
    ids = torch.tensor([[PAD]])
    with torch.inference_mode():
        while ids[0, -1] != END and ids.shape[1] <= TASK.max_new_tokens:
            best = model(input_ids=source, decoder_input_ids=ids).logits[:, -1].argmax(-1)
            ids = torch.cat([ids, best[:, None]], dim=1)
    texts = TASK.encode_texts([("I want fish.",)], tokenizer)
    (written,) = ftkit.predict(model, texts, TASK, bf16=False)
    assert written.tolist() == ids[0, 1:].tolist()


def test_it_writes_no_more_than_the_model_has_places_for(tokenizer):
    model, task = tiny_marian(tokenizer, max_position_embeddings=9), ftkit.Seq2Seq("a", "b")
    model.generation_config.eos_token_id = None  # never stops by itself
    (written,) = ftkit.predict(model, task.encode_texts([("tea",)], tokenizer), task)
    assert len(written) <= 8 < task.max_new_tokens


def test_saved_and_loaded_it_writes_the_same(trained, tokenizer, tmp_path):
    model = trained[0]
    ftkit.save_pretrained(tmp_path / "model", model, tokenizer, TASK)
    task, loaded_tokenizer, loaded = ftkit.load_saved(tmp_path / "model")
    assert task == TASK
    texts = task.encode_texts([("I see rice.",), ("I eat soup.",)], loaded_tokenizer)
    for one, other in zip(
        ftkit.predict(model, texts, TASK, bf16=False),
        ftkit.predict(loaded, texts, task, bf16=False),
        strict=True,
    ):
        assert one.tolist() == other.tolist()


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tokenizer):
    encoded = encode(tokenizer)
    runs = []
    for _ in range(2):
        model = tiny_marian(tokenizer, dropout=0.1)
        ftkit.set_trainable(model, "full")
        runs.append(ftkit.TrainingRun(model, encoded, CONFIG))
    for step in runs[0]:
        if step.step == 3:
            break
    state = copy.deepcopy(runs[0].state_dict())
    expected = [next(runs[0]).loss for _ in range(3)]
    runs[1].load_state_dict(*state)
    assert [next(runs[1]).loss for _ in range(3)] == expected


def test_micro_batches_give_the_same_gradient(tokenizer):
    encoded, losses = encode(tokenizer), []
    for parts in (1, 2):
        model = tiny_marian(tokenizer)
        config = ftkit.TrainingConfig(
            learning_rate=1e-2, batch_size=8, bf16=False, gradient_accumulation_steps=parts
        )
        losses.append([step.loss for step in ftkit.TrainingRun(model, encoded, config)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# What trains


def test_presets_of_an_encoder_and_decoder(tokenizer):
    model = tiny_marian(tokenizer)
    ftkit.set_trainable(model, "full")
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert still == {f"model.{part}.embed_positions.weight" for part in ("encoder", "decoder")}
    ftkit.set_trainable(model, "bias")
    trains = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trains
    assert all(name.endswith("bias") for name in trains)
    ftkit.set_trainable(model, ["*decoder.layers.1.*"])
    trains = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all(name.startswith("model.decoder.layers.1.") for name in trains)


def test_the_top_of_an_encoder_and_decoder_is_asked_for_by_name(tokenizer):
    model = tiny_marian(tokenizer)
    expected = (
        "MarianMTModel has two lists of layers, an encoder's and a decoder's, so none is the top "
        'of all. Name parameters by patterns, such as ["*decoder.layers.2.*"], and give all '
        "layers one learning rate."
    )
    assert message(ftkit.set_trainable, model, "top:1") == expected
    assert message(layer_depths, model) == expected
    assert 'Did you mean "top:K"?' in message(ftkit.set_trainable, model, "tpo:1")


def test_lora_trains_and_merges(tokenizer):
    model = ftkit.add_lora(tiny_marian(tokenizer), r=4)
    assert all("lora_" in n for n, p in model.named_parameters() if p.requires_grad)
    encoded = encode(tokenizer)
    losses = [step.loss for step in ftkit.TrainingRun(model, encoded, CONFIG)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    before = ftkit.predict(model, encoded, TASK, bf16=False)
    after = ftkit.predict(ftkit.merge_lora(model), encoded, TASK, bf16=False)
    assert [row[2:].tolist() for row in before] == [row[2:].tolist() for row in after]


# The command line


def test_train_evaluate_predict(checkpoint, tmp_path, capsys):
    data, output = tmp_path / "pairs", tmp_path / "out"
    for name, rows in {"train": ROWS[:16], "validation": ROWS[16:20], "test": ROWS[20:]}.items():
        write_csv(data / f"{name}.csv", rows)
    options = ["--learning-rate", "1e-2", "--num-train-epochs", "20", "--batch-size", "4"]
    argv = ["--data", str(data), "--output", str(output), "--checkpoint", str(checkpoint)]
    assert main(["train", *argv, *options]) == 0
    told = capsys.readouterr().out
    assert "16 train, 4 validation, 4 test rows; english → chinese" in told
    assert "validation chrf " in told
    assert main(["evaluate", str(output), "--data", str(data), "--split", "train"]) == 0
    told = capsys.readouterr().out
    assert "\nchrf " in told
    assert "\nbleu " in told
    assert main(["predict", str(output), "I buy tea.", "I want rice."]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in lines] == ["I buy tea.", "I want rice."]
    assert all(line.split("\t")[0].startswith("我") for line in lines)
