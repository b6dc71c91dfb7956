"""Words and tags: what is refused, where labels stand, what is scored, and what is read."""

import copy

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, List
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertForTokenClassification, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

import ftkit
from ftkit.cli.main import main
from ftkit.data.batches import collate
from ftkit.evaluation.reports import make_report
from ftkit.metrics.entities import entity_scores
from ftkit.tasks import find_task, task_from_dict
from ftkit.tasks.tokens.tags import Sentence
from ftkit.tasks.tokens.words import TruncationWarning, split_words
from tests.conftest import message, tiny_config

LABELS = ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")
PEOPLE = ("ann", "bo", "cy lind", "dee", "ed fox", "flo", "gus", "hal yates", "ida", "jo")
PLACES = ("leeds", "york", "east ham", "hull", "bath", "deal", "rye", "west kirby", "ely", "ware")


def sentence(person: str, place: str) -> tuple[list[str], list[str]]:
    """Return the words and the tags of one sentence with two entities."""
    words, tags = person.split(), ["B-PER", "I-PER"]
    there, kinds = place.split(), ["B-LOC", "I-LOC"]
    return (
        [*words, "was", "in", *there, "today"],
        [*tags[: len(words)], "O", "O", *kinds[: len(there)], "O"],
    )


def table(tokens, tags, column="tags", **features) -> DatasetDict:
    """One train split."""
    rows = [f"train.conll, row {10 * i + 1}" for i in range(len(tokens))]
    dataset = Dataset.from_dict({"tokens": tokens, column: tags, "row": rows})
    for name, feature in features.items():
        dataset = dataset.cast_column(name, feature)
    return DatasetDict({"train": dataset})


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """A folder of CoNLL files: 60 sentences to train on, 20 to validate, 20 to test."""
    path = tmp_path_factory.mktemp("data") / "tagged"
    path.mkdir()
    pairs = [sentence(person, place) for person in PEOPLE for place in PLACES]
    for name, part in {"train": pairs[:60], "validation": pairs[60:80], "test": pairs[80:]}.items():
        blocks = [
            "".join(f"{w}\t{t}\n" for w, t in zip(words, tags, strict=True)) for words, tags in part
        ]
        (path / f"{name}.conll").write_text("\n".join(blocks), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def splits(tagged):
    return ftkit.load_splits(tagged)


@pytest.fixture(scope="module")
def task(splits):
    return ftkit.TokenClassification.infer(splits)


@pytest.fixture
def encoded(splits, task, tokenizer):
    return task.encode(splits, tokenizer)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return BertForTokenClassification(tiny_config(num_labels=len(LABELS))).eval()


# What the data ask for


def test_the_columns_name_the_task(splits, task):
    assert find_task(None, splits) is ftkit.TokenClassification
    assert (task.tokens_column, task.tags_column, task.labels) == ("tokens", "tags", LABELS)
    assert task.types == ("LOC", "PER")
    assert task.describe() == "tokens → LOC, PER"
    assert task_from_dict(task.to_dict()) == task


def test_a_type_of_single_words_may_have_longer_names_elsewhere():
    splits = table([["ann", "sang"]], [["B-PER", "O"]])
    assert ftkit.TokenClassification.infer(splits).labels == ("O", "B-PER", "I-PER")


def test_numbers_with_names_as_on_the_hub():
    names = ClassLabel(names=["O", "B-PER", "I-PER"])
    splits = table([["ann", "lind", "sang"]], [[1, 2, 0]], "ner_tags", ner_tags=List(names))
    task = ftkit.TokenClassification.infer(splits)
    assert (task.tags_column, task.labels) == ("ner_tags", ("O", "B-PER", "I-PER"))
    task.check(splits)


def test_columns_can_be_named():
    splits = table([["ann"]], [["B-PER"]]).rename_columns({"tokens": "w", "tags": "t"})
    infer = ftkit.TokenClassification.infer
    assert infer(splits, text_columns=["w"], label_column="t").text_columns == ("w",)
    assert message(infer, splits) == (
        "Say which with --text-columns, --label-column. The columns are: w, t."
    )
    assert message(infer, splits, text_columns=["w", "t"], label_column="t") == (
        "--text-columns is w t; expected one column."
    )
    assert message(infer, splits, text_columns=["w"], label_column="tt") == (
        'train.conll: no column "tt". Did you mean "t"?'
    )


def test_no_entity_in_train():
    infer = ftkit.TokenClassification.infer
    assert message(infer, table([["it", "rains"]], [["PRP", "VBZ"]])) == (
        'Column "tags" of the training set holds no B-TYPE and no I-TYPE; its tags are: PRP, VBZ.'
    )
    assert message(infer, table([["it", "rains"]], ["O O"])).endswith("its tags are: O O.")


@pytest.mark.parametrize("labels", [(), ("O",), ("B-PER",), ("O", "O", "B-PER"), ("O", "S-PER")])
def test_impossible_labels(labels):
    assert message(ftkit.TokenClassification, labels=labels) == (
        f'labels is {labels}; expected "O", and "B-TYPE" and "I-TYPE" for each type.'
    )


def test_every_bad_row_is_named_in_one_message(task):
    tokens = [["ann", "sang"], ["ann"], ["leeds"], [], ["ann", " "], ["ok"]]
    tags = [["B-PER"], ["B-PRE"], ["PER"], [], ["O", "O"], ["I-PER"]]
    assert message(task.check, table(tokens, tags)).splitlines() == [
        "train.conll, row 1: 2 words and 1 tags; expected one tag a word.",
        'train.conll, row 11, word 1 ("ann"): unknown tag "B-PRE". Did you mean "B-PER"?',
        'train.conll, row 21, word 1 ("leeds"): unknown tag "PER". Did you mean "I-PER"?',
        "train.conll, row 31: has no words; expected at least one.",
        "train.conll, row 41, word 2: \"tokens\" holds ' '; expected a word.",
    ]


def test_texts_in_place_of_words(task):
    assert message(task.check, table(["ann sang"], [["O", "O"]])) == (
        'train.conll, row 1: "tokens" is a str (ann sang); expected a list of words.'
    )
    assert message(task.check, table([["ann"]], [None])) == (
        'train.conll, row 1: "tags" is a NoneType (None); expected a list of tags.'
    )


def test_a_missing_column_and_an_empty_split(task, splits):
    renamed = DatasetDict({"train": splits["train"].rename_column("tags", "tag")})
    assert message(task.check, renamed) == 'train.conll: no column "tags". Did you mean "tag"?'
    empty = DatasetDict({"test": splits["test"].select([])})
    assert message(task.check, empty) == 'split "test": has no rows; expected at least one.'


# Where the labels stand


def test_a_word_is_labelled_at_its_first_token(task, tokenizer):
    words, tags = sentence("ann", "east ham")
    row = task.encode(table([words], [tags]), tokenizer)["train"][0]
    pieces = "[CLS] a ##n ##n was i ##n e ##a ##s ##t h ##a ##m today [SEP]"
    assert " ".join(tokenizer.convert_ids_to_tokens(row["input_ids"])) == pieces
    assert row["positions"] == [1, 4, 5, 7, 11, 14]
    assert row["tag_ids"] == [2, 0, 0, 1, 3, 0]
    expected = [-100] * 16
    for position, label in zip(row["positions"], row["tag_ids"], strict=True):
        expected[position] = label
    assert row["labels"] == expected
    assert row["attention_mask"] == [1] * 16
    assert row["row"] == "train.conll, row 1"


def test_every_row_has_one_label_a_word(encoded, splits):
    for name, split in encoded.items():
        for row, source in zip(split, splits[name], strict=True):
            labels = [label for label in row["labels"] if label != -100]
            assert [LABELS[label] for label in labels] == source["tags"]


def test_words_beyond_the_limit_count_as_predicted_o(task, tokenizer, model):
    words, tags = sentence("ann", "york")  # [CLS] a ##n ##n was i ##n y ##o ##r ##k today [SEP]
    splits = table([words, words[:2]], [tags, tags[:2]])
    with pytest.warns(TruncationWarning) as caught:
        encoded = task.encode(splits, tokenizer, max_length=8)["train"]
    assert [str(warning.message) for warning in caught] == [
        '2 of 7 words of "train" stand beyond the 8 tokens of a row and count as predicted O. '
        "Cut long sentences in two."
    ]
    assert encoded[0]["positions"] == [1, 4, 5, -1, -1]
    assert sum(label != -100 for label in encoded[0]["labels"]) == 3
    logits = [np.eye(5)[[2] * 8], np.eye(5)[[0, 2, 0, 0, 0, 0]]]  # all PER; right
    report = make_report(task, logits, task.references(encoded), n_resamples=0)
    assert task.tags(logits, encoded["positions"])[0] == ["B-PER"] * 3 + ["O", "O"]
    assert report.metrics["accuracy"] == pytest.approx(4 / 7)  # ann, today; ann, was
    assert report.metrics["recall"] == pytest.approx(2 / 3)  # york is missed
    assert report.is_correct.tolist() == [False, True]


def test_a_word_of_which_the_tokenizer_keeps_nothing(task, tokenizer):
    picky = copy.deepcopy(tokenizer)
    drop = [normalizers.Lowercase(), normalizers.Replace("☺", "")]
    picky.backend_tokenizer.normalizer = normalizers.Sequence(drop)
    with pytest.warns(TruncationWarning) as caught:
        encoded = task.encode(table([["☺", "ann", "☺"]], [["O", "B-PER", "O"]]), picky)["train"]
    assert str(caught[0].message) == (
        '2 of 3 words of "train" are nothing to the tokenizer; they count as predicted O.'
    )
    assert encoded[0]["positions"] == [-1, 1, -1]


def test_a_row_cut_before_its_first_word(task, tokenizer):
    with pytest.warns(TruncationWarning, match=r"^2 of 2 words .* beyond the 2 tokens"):
        task.encode(table([["ann", "sang"]], [["B-PER", "O"]]), tokenizer, max_length=2)


def test_a_sentence_in_two_splits_is_told(task, splits, tokenizer):
    leaky = DatasetDict({**splits, "test": splits["train"].select(range(5))})
    with pytest.warns(ftkit.LeakWarning, match=r"^5 of 5 rows of \"test\" stand in \"train\" too"):
        task.encode(leaky, tokenizer)


def test_byte_level_tokenizers_see_a_space_before_each_word(task):
    """GPT-2's kind writes a word after a space with other tokens; a list of words has no spaces."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "Ġa"])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "a")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64)
    row = task.encode(table([["ann", "at"]], [["B-PER", "O"]]), tokenizer)["train"][0]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == ["Ġa", "n", "n", "Ġa", "t"]
    assert row["positions"] == [0, 3]


def test_slow_tokenizers_are_refused(task, splits):
    class Slow:
        is_fast, model_max_length = False, 64

    assert message(task.encode, splits, Slow()) == (
        "Slow cannot say which word a token is of; expected a fast tokenizer (a checkpoint with "
        "tokenizer.json)."
    )


# What is scored


def test_the_loss_is_the_models_own(encoded, task, model):
    split = encoded["test"]
    with torch.inference_mode():
        loss = model(**collate(split, range(len(split)))).loss.item()
    report = ftkit.evaluate(model, split, task, n_resamples=0, bf16=False)
    assert report.metrics["loss"] == pytest.approx(loss)


def test_padding_and_order_change_no_prediction(encoded, task, model):
    split = encoded["train"]
    outputs = ftkit.predict(model, split, task, bf16=False)
    for i in (0, 7, 33):
        with torch.inference_mode():
            alone = model(**collate(split, [i])).logits[0].numpy()
        assert len(outputs[i]) == len(split[i]["input_ids"])
        np.testing.assert_allclose(outputs[i], alone, atol=1e-5)


def test_metrics_on_random_logits(task):
    rng = np.random.default_rng(0)
    outputs, references = [], []
    for _ in range(1000):
        size = int(rng.integers(1, 9))
        positions = sorted(rng.choice(12, size, replace=False).tolist())
        references.append(Sentence(positions, rng.integers(0, 5, size).tolist()))
        logits = rng.normal(size=(12, 5))
        logits[positions, references[-1].tag_ids] += 1.5
        outputs.append(logits)
    report = make_report(task, outputs, references, n_resamples=50)
    found = task.tags(outputs, [row.positions for row in references])
    truths = [[LABELS[i] for i in row.tag_ids] for row in references]
    scores = entity_scores(found, truths)
    for name in ("precision", "recall", "f1"):
        assert report.metrics[name] == pytest.approx(scores["all"][name])
    for name in task.types:
        assert report.metrics[f"f1_{name}"] == pytest.approx(scores[name]["f1"])
    pairs = [pair for f, t in zip(found, truths, strict=True) for pair in zip(f, t, strict=True)]
    assert report.metrics["accuracy"] == pytest.approx(np.mean([a == b for a, b in pairs]))
    assert report.is_correct.tolist() == [f == t for f, t in zip(found, truths, strict=True)]
    rows = zip(outputs, references, strict=True)
    chosen = [(logits[r.positions], r.tag_ids) for logits, r in rows]
    flat = torch.tensor(np.concatenate([c for c, _ in chosen]))
    labels = torch.tensor(np.concatenate([t for _, t in chosen]))
    loss = torch.nn.functional.cross_entropy(flat, labels).item()
    assert report.metrics["loss"] == pytest.approx(loss)
    for name, (low, high) in report.intervals.items():
        assert low < report.metrics[name] < high


def test_nothing_found_scores_0(task):
    logits, references = [np.eye(5)[[0, 0]]], [Sentence([0, 1], [2, 0])]
    metrics = make_report(task, logits, references, n_resamples=5).metrics
    assert (metrics["f1"], metrics["accuracy"]) == (0, 0.5)


def test_two_reports_compare(encoded, task, model):
    one = ftkit.evaluate(model, encoded["test"], task, n_resamples=0)
    perfect = [np.zeros((40, 5)) for _ in one.references]
    for logits, row in zip(perfect, one.references, strict=True):
        logits[row.positions, row.tag_ids] = 1
    other = make_report(task, perfect, one.references, n_resamples=0)
    assert other.metrics["f1"] == 1
    assert ftkit.compare(one, other).only_b_right == 20 - one.is_correct.sum()


def test_another_tokenizer_places_words_elsewhere_in_the_same_rows(task):
    outputs = [np.eye(5)[[0, 1, 2, 0]]] * 2
    rows = [[Sentence(places, [1, 2])] * 2 for places in ([0, 1], [1, 2])]
    one, other = (make_report(task, outputs, row, n_resamples=0) for row in rows)
    assert ftkit.compare(one, other).only_b_right == 2
    strange = make_report(task, outputs, [Sentence([0, 1], [1, 0])] * 2, n_resamples=0)
    with pytest.raises(ftkit.FtkitError, match=r"^The reports are of other rows \(2 and 2\)"):
        ftkit.compare(one, strange)


# What comes out


def test_plain_text_is_cut_into_words():
    cut = {
        "Dr Okafor's ferry, at 7.30!": "Dr|Okafor|'s|ferry|,|at|7.30|!",
        "Mei-Ling didn’t pay £20,000.": "Mei-Ling|didn’t|pay|£|20,000|.",
        "李雷去了Leeds。": "李|雷|去|了|Leeds|。",
        " \n ": "",
    }
    for text, expected in cut.items():
        assert "|".join(text[start:end] for start, end in split_words(text)) == expected


def test_texts_without_words_are_refused(task, tokenizer):
    assert message(task.encode_texts, [["fine"], [""], ["a", "b"]], tokenizer).splitlines() == [
        "text 3: 2 texts came; expected 1 (text).",
        "text 2: has no words.",
    ]


def test_entities_read_as_they_stand_in_the_text(task, tokenizer):
    texts = [["Cy  Lind was in York."], ["today"]]
    encoded = task.encode_texts(texts, tokenizer)
    tags = [["B-PER", "I-PER", "O", "O", "B-LOC", "O"], ["O"]]
    outputs = []
    for row, positions in zip(tags, encoded["positions"], strict=True):
        logits = np.zeros((40, 5))
        logits[positions, [LABELS.index(tag) for tag in row]] = 1
        outputs.append(logits)
    assert task.decode(outputs, encoded, tokenizer) == [("Cy  Lind=PER", "York=LOC"), ("-",)]


def test_trained_saved_and_loaded_it_says_the_same(encoded, task, tokenizer, model, tmp_path):
    config = ftkit.TrainingConfig(learning_rate=2e-3, num_train_epochs=12, batch_size=8, bf16=False)
    history = ftkit.train(model, encoded, task, config)
    assert history.evaluations[-1]["f1"] > 0.5
    ftkit.save_pretrained(tmp_path / "saved", model, tokenizer, task)
    loaded_task, loaded_tokenizer, loaded = ftkit.load_saved(tmp_path / "saved")
    assert loaded_task == task
    texts = loaded_task.encode_texts([["ann was in leeds today"], ["today"]], loaded_tokenizer)
    before = ftkit.predict(model, texts, task, bf16=False)
    after = ftkit.predict(loaded, texts, loaded_task, bf16=False)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert loaded_task.decode(before, texts, loaded_tokenizer)[0] == ("ann=PER", "leeds=LOC")
    assert loaded.config.id2label == dict(enumerate(LABELS))


def test_from_the_command_line(tagged, checkpoint, tmp_path, capsys):
    output = str(tmp_path / "out")
    options = ["--num-train-epochs=4", "--learning-rate=2e-3", "--batch-size=8", "--bf16=false"]
    data = ["--data", str(tagged)]
    train = ["train", "--checkpoint", str(checkpoint), *data, "--output", output, *options]
    assert main(train) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "60 train, 20 validation, 20 test rows; tokens → LOC, PER"
    assert lines[-2].startswith("validation f1 0.")
    assert main(["evaluate", output, *data]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tagged}, test: 20 rows"
    names = ["precision", "recall", "f1", "accuracy", "loss", "f1_LOC", "f1_PER"]
    assert [line.split()[0] for line in lines[1:]] == names
    assert main(["predict", output, "ann was in leeds today"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    *found, text = line.split("\t")
    assert text == "ann was in leeds today"
    assert all(name == "-" or name.endswith(("=PER", "=LOC")) for name in found)
    assert main([*train[:-4], "--prompt-columns", "x"]) == 2


def test_a_tokenizer_without_a_limit(tokenizer):
    """T5's and XLNet's: what stands for none is a number that no tokenizer takes."""
    unlimited = copy.deepcopy(tokenizer)
    unlimited.model_max_length = VERY_LARGE_INTEGER
    task = ftkit.TokenClassification("tokens", "tags", ("O", "B-PER", "I-PER"))
    rows = Dataset.from_dict({"tokens": [["Ann", "sings"]], "tags": [["B-PER", "O"]]})
    encoded = task.encode(DatasetDict({"train": rows}), unlimited)
    assert encoded["train"]["tag_ids"] == [[1, 0]]
