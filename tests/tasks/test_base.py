"""Checking rows, encoding them, and the metrics' counts."""

import math

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, log_loss

import ftkit
from ftkit.tasks import task_from_dict


def table(**columns) -> DatasetDict:
    """One train split; other splits are made by the tests that need them."""
    rows = [f"train.csv, row {i + 2}" for i in range(len(next(iter(columns.values()))))]
    return DatasetDict({"train": Dataset.from_dict({**columns, "row": rows})})


def infer_message(splits, **options) -> str:
    with pytest.raises(ftkit.FtkitError) as caught:
        ftkit.SequenceClassification.infer(splits, **options)
    return str(caught.value)


def check_message(task, splits) -> str:
    with pytest.raises(ftkit.FtkitError) as caught:
        task.check(splits)
    return str(caught.value)


def test_inference_of_columns_and_labels(splits):
    task = ftkit.SequenceClassification.infer(splits)
    assert (task.text_columns, task.labels, task.label_column) == (
        ("text",),
        ("bad", "good"),
        "label",
    )


def test_numbers_as_labels_keep_their_order():
    splits = table(text=list("abc"), label=["10", "2", "0"])
    assert ftkit.SequenceClassification.infer(splits).labels == ("0", "2", "10")


def test_class_label_names_are_used():
    splits = table(text=["a", "b"], label=[1, 0])
    splits = splits.cast_column("label", ClassLabel(names=["no", "yes"]))
    task = ftkit.SequenceClassification.infer(splits)
    assert task.labels == ("no", "yes")
    task.check(splits)


def test_missing_column_gets_the_closest_name(splits):
    assert infer_message(splits, text_columns=["txet"]) == (
        'train.csv: no column "txet". Did you mean "text"?'
    )
    assert infer_message(splits, label_column="lable") == (
        'train.csv: no column "lable". Did you mean "label"?'
    )


def test_columns_that_cannot_be_guessed():
    splits = table(comment=["a", "b"], mark=["x", "y"])
    assert infer_message(splits) == (
        "Say which with --text-columns. The columns are: comment, mark."
    )
    assert infer_message(splits, text_columns=["comment"]) == (
        "Say which with --label-column. The columns are: comment, mark."
    )


def test_one_class_only():
    splits = table(text=["a", "b"], label=["x", "x"])
    expected = (
        'train.csv, row 2: {} "x" in this and every other row of the training set; expected at '
        "least two classes."
    )
    assert infer_message(splits) == expected.format('"label" is')
    task = ftkit.SequenceClassification(("text",), ("x", "y"))
    assert check_message(task, splits) == expected.format("the label is")


def test_no_labels_at_all():
    splits = table(text=["a", "b"], label=[None, None])
    assert infer_message(splits) == 'Column "label" of the training set holds no label at all.'


def test_fractions_are_no_classes():
    splits = table(text=["a", "b"], label=[0.25, 1.0])
    assert infer_message(splits) == (
        'Column "label" holds fractions (0.25); expected names or whole numbers of classes.'
    )


def test_no_train_split(splits):
    del splits["train"]
    assert infer_message(splits) == "No train split; there are only: validation, test."


def test_empty_split(splits, task):
    splits["validation"] = splits["validation"].select([])
    assert check_message(task, splits) == (
        'split "validation": has no rows; expected at least one.'
    )


def test_every_bad_text_is_named_in_one_message(task):
    splits = table(
        text=["fine", "", None, "NaN", "  "], label=["good", "bad", "good", "bad", "good"]
    )
    assert check_message(task, splits).splitlines() == [
        'train.csv, row 3: "text" is empty; expected text.',
        'train.csv, row 4: "text" is missing (NaN); expected text.',
        'train.csv, row 5: "text" is missing (NaN); expected text.',
        'train.csv, row 6: "text" is empty; expected text.',
    ]


def test_a_text_column_of_numbers(task):
    splits = table(text=["17", "3.5"], label=["good", "bad"])
    assert check_message(task, splits) == (
        'train.csv, row 2: column "text" holds numbers (here 17); expected text. Is it the right '
        "column?"
    )


def test_a_text_that_is_no_string(task):
    splits = table(text=[["a"], ["b"]], label=["good", "bad"])
    assert check_message(task, splits).splitlines()[0] == (
        "train.csv, row 2: \"text\" is a list (['a']); expected text."
    )


def test_unknown_and_missing_labels(task):
    splits = table(text=list("abcd"), label=["good", "goood", None, "bad"])
    assert check_message(task, splits).splitlines() == [
        'train.csv, row 3: unknown label "goood". Did you mean "good"?',
        "train.csv, row 4: has no label (NaN or empty).",
    ]


def test_hub_test_sets_without_labels(task):
    splits = table(text=["a", "b"], label=[0, -1])
    assert check_message(task, splits) == (
        'train.csv, row 3: unknown label "-1". Expected one of: bad, good.'
    )


@pytest.mark.parametrize(
    ("columns", "labels", "expected"),
    [
        (("a", "b", "c"), ("x", "y"), "text_columns is ('a', 'b', 'c'); expected one or two"),
        (("a",), ("x",), "labels is ('x',); expected two or more different names."),
        (("a",), ("x", "x"), "labels is ('x', 'x'); expected two or more different names."),
    ],
)
def test_impossible_tasks(columns, labels, expected):
    with pytest.raises(ftkit.FtkitError) as caught:
        ftkit.SequenceClassification(columns, labels)
    assert str(caught.value).startswith(expected)


def test_encoding_equals_the_tokenizer_on_each_row(splits, task, tokenizer):
    encoded = task.encode(splits, tokenizer)
    for i in (0, 30, 55):
        row = splits["train"][i]
        expected = tokenizer(row["text"])
        assert encoded["train"][i]["input_ids"] == expected["input_ids"]
        assert encoded["train"][i]["labels"] == ["bad", "good"].index(row["label"])
        assert encoded["train"][i]["row"] == row["row"]


def test_pairs_are_encoded_as_pairs_and_long_ones_cut(tokenizer):
    task = ftkit.SequenceClassification(("a", "b"), ("x", "y"))
    splits = table(a=["the soup", "the room"], b=["was cold"] * 2, label=["x", "y"])
    encoded = task.encode(splits, tokenizer)["train"][0]
    assert encoded["input_ids"] == tokenizer("the soup", "was cold")["input_ids"]
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    with pytest.warns(ftkit.TruncationWarning) as caught:
        encoded = task.encode(splits, tokenizer, max_length=5)["train"]
    cut = tokenizer("the soup", "was cold", truncation=True, max_length=5)
    assert {name: encoded[0][name] for name in cut} == dict(cut)
    assert [str(warning.message) for warning in caught] == [
        '2 of 2 rows of "train" cut, the longest has 7 tokens; the limit is 5 (max_length).'
    ]


def test_unlabelled_texts_must_come_in_pairs(tokenizer):
    task = ftkit.SequenceClassification(("a", "b"), ("x", "y"))
    with pytest.raises(ftkit.FtkitError, match=r"^text 2: 1 texts came; expected 2 \(a, b\)\.$"):
        task.encode_texts([["one", "two"], ["three"]], tokenizer)


def test_row_statistics_sum_to_the_confusion_matrix(task):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 2)), rng.integers(0, 2, 50)
    *sums, nats = task.row_statistics(logits, labels).sum(axis=0)
    assert nats == pytest.approx(50 * log_loss(labels, softmax(logits, axis=1)))
    np.testing.assert_array_equal(
        np.reshape(sums, (2, 2)), confusion_matrix(labels, logits.argmax(axis=1))
    )


def test_a_task_survives_its_dictionary(task):
    assert task_from_dict(task.to_dict()) == task
    with pytest.raises(ftkit.FtkitError, match='^Unknown task "sequence-clasification"'):
        task_from_dict({"name": "sequence-clasification"})


def test_nan_label_from_parquet(task):
    splits = table(text=["a", "b", "c"], label=[0.0, 1.0, math.nan])
    assert "train.csv, row 4: has no label (NaN or empty)." in check_message(task, splits)
