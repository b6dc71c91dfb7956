"""The frame that all tasks share: limits, cuts that are told, one call a column, no state."""

import copy
import warnings

import pytest
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerFast

import ftkit
from ftkit.tasks import TASKS, length_limit
from ftkit.tasks.base import Task
from tests.conftest import message

LONG, SHORT = "the soup was cold " * 20, "the room was fine"  # 80 words, 4 words
CLASSES = ftkit.SequenceClassification(("text",), ("bad", "good"))
CUT_TASKS = {
    "sequence-classification": CLASSES,
    "causal-lm": ftkit.CausalLM(("text",)),
    "masked-lm": ftkit.MaskedLM(("text",), n_maskings=3),
    "seq2seq": ftkit.Seq2Seq("text", "other"),
}
ALL_TASKS = {
    **CUT_TASKS,
    "question-answering": ftkit.QuestionAnswering("other", "text", max_length=32, stride=8),
    "token-classification": ftkit.TokenClassification("words", "tags", ("O", "B-X", "I-X")),
}


@pytest.fixture
def words(tokenizer) -> PreTrainedTokenizerFast:
    """The shared tokenizer, with an end, as some tasks need it; 64 tokens at most."""
    ended = copy.deepcopy(tokenizer)
    ended.eos_token = "[SEP]"
    return ended


def rows(*texts: str, split: str = "train") -> DatasetDict:
    """Rows that every task can read, and whose other columns are short."""
    table = {
        "text": list(texts),
        "other": ["was fine"] * len(texts),
        "label": ["bad", "good"] * (len(texts) // 2),
        "answers": [{"text": ["the"], "answer_start": [0]}] * len(texts),
        "words": [["soup"]] * len(texts),
        "tags": [["B-X"]] * len(texts),
        "row": [f"{split}.csv, row {i + 2}" for i in range(len(texts))],
    }
    return DatasetDict({split: Dataset.from_dict(table)})


class Counter:
    """A tokenizer that counts its calls."""

    def __init__(self, tokenizer):
        self.tokenizer, self.calls = tokenizer, 0

    def __call__(self, *args, **options):
        self.calls += 1
        return self.tokenizer(*args, **options)

    def __len__(self):
        return len(self.tokenizer)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


def test_the_frame_stands_once():
    for kind in TASKS.values():
        for cls in kind.__mro__[: kind.__mro__.index(Task)]:
            assert not {"encode", "encode_texts", "infer"} & vars(cls).keys()


@pytest.mark.parametrize("name", CUT_TASKS)
def test_every_task_tells_with_counts_what_it_cuts(words, name):
    task = CUT_TASKS[name]
    tokens = {"causal-lm": 81}.get(name, 82)  # a text's 80 words, and the special ones
    splits = DatasetDict(
        {**rows(LONG, SHORT), **rows(LONG + "x", "was " * 99, "cold", "fine", split="test")}
    )
    with pytest.warns(ftkit.TruncationWarning) as caught:
        encoded = task.encode(splits, words)
    assert [str(warning.message) for warning in caught] == [
        f'1 of 2 rows of "train" cut, the longest has {tokens} tokens; 2 of 4 rows of "test" cut, '
        f"the longest has {tokens + 19} tokens; the limit is 64 (the model's most)."
    ]
    assert caught[0].filename == __file__
    assert {max(map(len, split["input_ids"])) for split in encoded.values()} == {64}
    assert "length" not in encoded["train"].column_names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.encode(rows(SHORT, "cold"), words)


def test_a_target_that_is_cut_is_told(words):
    task = ftkit.Seq2Seq("other", "text")
    with pytest.warns(
        ftkit.TruncationWarning, match='^1 of 2 rows of "train" cut, the longest has'
    ):
        encoded = task.encode(rows(SHORT, LONG), words)["train"]
    assert len(encoded[1]["labels"]) == 64


def test_texts_to_be_answered_are_told_too(words):
    with pytest.warns(ftkit.TruncationWarning) as caught:
        encoded = CLASSES.encode_texts([LONG, (SHORT,), LONG], words)
    assert str(caught[0].message) == (
        '2 of 3 rows of "texts" cut, the longest has 82 tokens; the limit is 64 '
        "(the model's most)."
    )
    expected = words([LONG, SHORT, LONG], truncation=True)
    assert encoded["input_ids"] == expected["input_ids"]
    assert "length" not in encoded.column_names


def test_the_smaller_limit_counts(words):
    assert length_limit(words) == 64
    assert length_limit(words, 10) == 10
    assert length_limit(words, 1000) == 64
    with pytest.warns(ftkit.TruncationWarning, match=r"the limit is 64 \(the model's most\)\.$"):
        encoded = CLASSES.encode(rows(LONG, LONG), words, max_length=1000)
    assert set(map(len, encoded["train"]["input_ids"])) == {64}


@pytest.mark.parametrize("name", ALL_TASKS)
@pytest.mark.parametrize("max_length", [0, -3])
def test_a_limit_below_one_is_refused(words, name, max_length):
    expected = f"max_length is {max_length}; expected 1 or more."
    task = ALL_TASKS[name]
    assert message(task.encode, rows(SHORT, SHORT), words, max_length=max_length) == expected


@pytest.mark.parametrize("name", ["sequence-classification", "masked-lm", "token-classification"])
def test_a_limit_below_the_special_tokens_is_refused(words, name):
    """Tokenizers leave such rows as long as they are."""
    assert message(ALL_TASKS[name].encode, rows(SHORT, SHORT), words, max_length=1) == (
        "max_length is 1, and the special tokens of a row alone are more; choose a larger one."
    )


@pytest.mark.parametrize("name", ALL_TASKS)
def test_the_tokenizer_is_called_by_the_batch(words, name):
    """As often for 40 rows as for 4: once or twice a column, never once a row."""
    calls = []
    for size in (4, 40):
        counter = Counter(words)
        ALL_TASKS[name].encode(rows(*[SHORT] * size), counter)
        calls.append(counter.calls)
    assert calls[0] == calls[1] <= 4


@pytest.mark.parametrize("name", ALL_TASKS)
def test_a_task_remembers_nothing_of_what_it_encodes(words, name):
    task = ALL_TASKS[name]
    before = copy.deepcopy(vars(task))
    task.encode(rows(SHORT, "the cold"), words)
    assert vars(task) == before


@pytest.mark.parametrize("name", ALL_TASKS)
def test_rows_stay_known_and_other_columns_go(words, name):
    encoded = ALL_TASKS[name].encode(rows(SHORT, "the cold"), words)["train"]
    assert set(encoded["row"]) == {"train.csv, row 2", "train.csv, row 3"}
    assert not {"other", "label", "words", "tags", "seeds", "source"} & set(encoded.column_names)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_an_option_that_says_nothing_to_a_task_is_refused(name):
    kind = TASKS[name]
    known = {"text_columns", "label_column", "prompt_columns", "positive_label"}
    for option in known - set(kind.infer_options):
        told = message(kind.infer, rows(SHORT, SHORT), **{option: ["text"]})
        written = "--" + option.replace("_", "-")
        assert told == f"{written} says nothing to the task {name}; leave it out."
    none = dict.fromkeys(known)
    assert isinstance(kind.infer(rows(SHORT, SHORT), **{**none, **given(name)}), kind)


def given(name: str) -> dict:
    """What a task must be told of these columns."""
    if name == "seq2seq":
        return {"text_columns": ["text", "other"]}
    if name == "question-answering":
        return {"text_columns": ["other", "text"]}
    if name == "token-classification":
        return {"text_columns": ["words"], "label_column": "tags"}
    return {}


def test_no_texts_and_other_things_than_texts_are_refused(words):
    assert message(CLASSES.encode_texts, [], words) == "No texts came; expected one or more."
    assert message(CLASSES.encode_texts, [None, "fine", 3], words).splitlines() == [
        "text 1: a NoneType came (None); expected text.",
        "text 3: a int came (3); expected text.",
    ]


# The positive label


def test_the_positive_label_can_be_either():
    task = ftkit.SequenceClassification(("text",), ("fault", "fine"), positive_label="fault")
    assert task.positive_label == "fault"
    assert ftkit.tasks.task_from_dict(task.to_dict()) == task
    old = {k: v for k, v in task.to_dict().items() if k != "positive_label"}
    assert ftkit.tasks.task_from_dict(old).positive_label == "fine"  # of files before the field
    assert ftkit.SequenceClassification(("text",), ("bad", "good"), "label", "good") == CLASSES


def test_an_impossible_positive_label_is_refused():
    make = ftkit.SequenceClassification
    assert message(make, ("text",), ("fault", "fine"), positive_label="falt") == (
        'positive_label is "falt". Did you mean "fault"?'
    )
    assert message(make, ("text",), ("a", "b", "c"), positive_label="a") == (
        'positive_label is "a", and there are 3 classes, of which precision, recall and F1 are '
        "means; leave it out."
    )
    assert make(("text",), ("a", "b", "c")).positive_label is None


def test_infer_takes_the_positive_label():
    splits = rows(SHORT, SHORT)
    infer = ftkit.SequenceClassification.infer
    assert infer(splits, positive_label="bad").positive_label == "bad"
    assert infer(splits).positive_label == "good"
    assert 'Did you mean "good"?' in message(infer, splits, positive_label="goood")
