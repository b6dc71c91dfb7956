"""Predictions in order, intervals that cover, comparisons that pair."""

import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import f1_score, log_loss
from transformers import BertForQuestionAnswering, BertForTokenClassification

import ftkit
from ftkit.data.batches import collate
from ftkit.evaluation import reports
from ftkit.evaluation.reports import bootstrap_weights, make_report
from tests.conftest import tiny_config


def random_report(task, n_rows=200, seed=0, skill=1.0) -> ftkit.Report:
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(0, 2, n_rows)
    logits = rng.normal(size=(n_rows, 2))
    logits[np.arange(n_rows), labels] += skill
    return make_report(task, logits, labels)


def test_predictions_equal_transformers_one_row_at_a_time(model, encoded):
    logits = ftkit.predict(model, encoded["train"], bf16=False)
    for i in (0, 17, 55):
        row = encoded["train"][i]
        alone = model(input_ids=torch.tensor([row["input_ids"]])).logits
        np.testing.assert_allclose(logits[i], alone.detach()[0], atol=1e-5)


def test_predicting_leaves_every_mode_as_it_was(model, encoded):
    model.train()
    model.bert.embeddings.eval()
    before = [module.training for module in model.modules()]
    ftkit.predict(model, encoded["test"])
    assert [module.training for module in model.modules()] == before


def test_a_dictionary_of_splits_is_refused(model, encoded):
    with pytest.raises(ftkit.FtkitError, match=r'expected one split, such as dataset\["train"\]'):
        ftkit.predict(model, encoded)


def test_report_against_scikit_learn(task):
    report = random_report(task)
    expected = f1_score(report.labels, report.predictions)
    assert report.metrics["f1"] == pytest.approx(expected)
    assert report.losses.mean() == pytest.approx(log_loss(report.labels, report.probabilities))
    assert report.to_dict()["f1"] == report.metrics["f1"]
    assert report.to_dict()["rows"] == 200
    assert set(report.to_dict()["intervals"]) == set(report.metrics)


def test_bootstrap_equals_resampling_rows_one_by_one(task):
    report = random_report(task, n_rows=40)
    weights = bootstrap_weights(40, 300)
    assert (weights.sum(axis=1) == 40).all()
    scores = [
        f1_score(np.repeat(report.labels, w), np.repeat(report.predictions, w)) for w in weights
    ]
    expected = np.percentile(scores, [2.5, 97.5])
    again = make_report(task, report.logits, report.labels, n_resamples=300)
    assert again.intervals["f1"] == pytest.approx(tuple(expected))


def test_intervals_cover_the_truth_about_as_often_as_they_say(task):
    truth = random_report(task, n_rows=20_000, seed=1).metrics["accuracy"]
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed + 100)
        labels = rng.integers(0, 2, 150)
        logits = rng.normal(size=(150, 2))
        logits[np.arange(150), labels] += 1.0
        low, high = make_report(task, logits, labels, n_resamples=400).intervals["accuracy"]
        hits += low <= truth <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_comparison_is_paired(task):
    one, other = random_report(task, seed=1), random_report(task, seed=2, skill=2.0)
    comparison = ftkit.compare(one, other)
    right = [report.predictions == report.labels for report in (one, other)]
    only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    assert [comparison.only_a_right, comparison.only_b_right] == only
    assert comparison.p_value == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    difference = other.metrics["accuracy"] - one.metrics["accuracy"]
    assert comparison.differences["accuracy"] == pytest.approx(difference)
    low, high = comparison.intervals["accuracy"]
    assert low < difference < high


def test_a_model_against_itself(task):
    report = random_report(task)
    comparison = ftkit.compare(report, report)
    assert comparison.p_value == 1.0
    assert set(comparison.differences.values()) == {0.0}
    assert set(comparison.intervals.values()) == {(0.0, 0.0)}


def test_other_rows_cannot_be_compared(task):
    with pytest.raises(ftkit.FtkitError, match=r"^The reports are of other rows \(200 and 100\)"):
        ftkit.compare(random_report(task), random_report(task, n_rows=100))


def test_a_report_reads_as_a_table(task):
    lines = str(random_report(task)).splitlines()
    assert lines[0] == "200 rows"
    assert lines[1].startswith("accuracy             0.")
    assert lines[4].startswith('f1 of "good"         0.')
    assert len({line.index("[") for line in lines[1:]}) == 1


def test_drawing_in_parts_changes_nothing(task, monkeypatch):
    whole = [random_report(task, seed=seed) for seed in (1, 2)]
    compared = ftkit.compare(*whole, n_resamples=100)
    for numbers in (1, 450, 10**9):
        monkeypatch.setattr(reports, "NUMBERS_AT_ONCE", numbers)
        parts = [random_report(task, seed=seed) for seed in (1, 2)]
        for one, other in zip(whole, parts, strict=True):
            for name, interval in one.intervals.items():
                assert other.intervals[name] == pytest.approx(interval, abs=1e-12)
        again = ftkit.compare(*parts, n_resamples=100)
        for name, interval in compared.intervals.items():
            assert again.intervals[name] == pytest.approx(interval, abs=1e-12)


def test_a_part_of_the_bootstrap_is_small(task, monkeypatch):
    """However many rows or classes there are."""
    drawn = []
    whole = np.random.Generator.multinomial
    names = tuple(map(str, range(60)))
    many = ftkit.SequenceClassification(("text",), names)
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 60, 50), rng.normal(size=(50, 60))

    class Rng:
        def multinomial(self, *args, size):
            drawn.append(size)
            return whole(rng, *args, size=size)

    monkeypatch.setattr(reports.np.random, "default_rng", lambda seed: Rng())
    make_report(many, logits, labels, n_resamples=2000)
    n_counts = 60 * 60 + 1
    assert sum(drawn) == 2000
    assert max(drawn) * n_counts <= reports.NUMBERS_AT_ONCE
    drawn.clear()
    make_report(task, rng.normal(size=(20_000, 2)), rng.integers(0, 2, 20_000), n_resamples=300)
    assert sum(drawn) == 300
    assert max(drawn) * 20_000 <= reports.NUMBERS_AT_ONCE


# Classes that are absent: scikit-learn's word


@given(data=st.data(), n_labels=st.integers(2, 40), positive=st.integers(0, 1))
@settings(max_examples=50, deadline=None)
def test_every_score_and_resample_is_scikit_learns(data, n_labels, positive):
    numbers = st.integers(0, n_labels - 1)  # 31 and more labels are counted in sparse matrices
    pairs = data.draw(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12))
    labels, predictions = np.array(pairs).T
    names = tuple(f"class {i}" for i in range(n_labels))
    binary = {"positive_label": names[positive]} if n_labels == 2 else {}
    task = ftkit.SequenceClassification(("text",), names, **binary)
    logits = np.eye(n_labels)[predictions] * 3

    def expected(rows) -> dict[str, float]:
        one, other = labels[rows], predictions[rows]
        how = {"zero_division": 0, "average": "binary" if n_labels == 2 else "macro"}
        scores = {"accuracy": sk.accuracy_score(one, other)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a resample with a single class
            scores["matthews_corrcoef"] = sk.matthews_corrcoef(one, other)
        for score in ("precision", "recall", "f1"):
            function = getattr(sk, f"{score}_score")
            if n_labels == 2:  # its "binary" refuses a positive label that no row has
                how = {"zero_division": 0, "labels": [positive], "average": "macro"}
            scores[score] = function(one, other, **how)
        return scores

    report = make_report(task, logits, labels, n_resamples=0)
    (drawn,) = reports.bootstrap_metrics(task, [report.statistics], 4, seed=7)
    weights = bootstrap_weights(len(labels), 4, seed=7)
    for name, value in expected(np.arange(len(labels))).items():
        assert report.metrics[name] == pytest.approx(value, abs=1e-9), name
    for i, times in enumerate(weights):
        for name, value in expected(np.repeat(np.arange(len(labels)), times)).items():
            assert drawn[name][i] == pytest.approx(value, abs=1e-9), name
    chances = softmax(logits, axis=1)[np.arange(len(labels)), labels]
    assert report.metrics["loss"] == pytest.approx(-np.log(chances).mean())
    assert report.is_correct.tolist() == (labels == predictions).tolist()
    table = sk.classification_report(
        labels,
        predictions,
        labels=range(n_labels),
        target_names=names,
        output_dict=True,
        zero_division=0,
    )
    assert list(report.per_class) == list(names)
    for name in names:
        theirs = {key.removesuffix("-score"): value for key, value in table[name].items()}
        assert report.per_class[name] == pytest.approx(theirs)


def test_a_test_split_without_the_third_class():
    task = ftkit.SequenceClassification(("text",), ("a", "b", "c"))
    labels = np.array([0, 1, 0, 1])
    report = make_report(task, np.eye(3)[labels], labels)
    assert report.metrics["f1"] == 1.0
    assert report.intervals["f1"] == (1.0, 1.0)  # of resamples without the second class, too
    assert report.per_class["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0.0}


def test_the_positive_label_decides_and_is_named():
    labels, predictions = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 1, 0])
    for number, name in enumerate(("fault", "fine")):
        task = ftkit.SequenceClassification(("text",), ("fault", "fine"), positive_label=name)
        report = make_report(task, np.eye(2)[predictions], labels, n_resamples=0)
        expected = sk.f1_score(labels, predictions, pos_label=number)
        assert report.metrics["f1"] == pytest.approx(expected)
        assert f'\nf1 of "{name}" ' in str(report)
        assert f'\nprecision of "{name}" ' in str(report)
        assert report.metrics["f1"] == pytest.approx(report.per_class[name]["f1"])
    three = ftkit.SequenceClassification(("text",), ("a", "b", "c"))
    assert "\nf1  " in str(make_report(three, np.eye(3), np.arange(3), n_resamples=0))


# Nothing is counted twice


def counted(monkeypatch, module, name: str) -> list:
    """Count the calls of a function, which does its work as before."""
    calls, whole = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: calls.append(1) or whole(*a, **k))
    return calls


def test_an_answer_is_looked_for_once(monkeypatch, tokenizer):
    import ftkit.tasks.question_answering as room

    calls = counted(monkeypatch, room, "best_answers")
    task = ftkit.QuestionAnswering(max_length=16, stride=4)
    context = "the soup was cold the room was fine today"
    rows = {
        "question": [f"the {word} was" for word in ("soup", "room")] * 10,
        "context": [context] * 20,
        "answers": [{"text": ["cold"], "answer_start": [13]}] * 20,
    }
    encoded = task.encode(DatasetDict({"test": Dataset.from_dict(rows)}), tokenizer)["test"]
    torch.manual_seed(0)
    model = BertForQuestionAnswering(tiny_config()).eval()
    report = ftkit.evaluate(model, encoded, task, n_resamples=20)
    assert report.is_correct.shape == (20,)
    ftkit.compare(report, report, n_resamples=20)
    assert (str(report), report.metrics["loss"]) == (str(report), report.metrics["loss"])
    assert len(calls) == 20


@pytest.mark.parametrize("name", ["row_statistics", "outputs"])
def test_rows_are_counted_once(model, encoded, task, monkeypatch, name):
    calls = counted(monkeypatch, type(task), name)
    report = ftkit.evaluate(model, encoded["test"], task, n_resamples=20)
    assert len(report.is_correct) == len(encoded["test"])
    ftkit.compare(report, report, n_resamples=20)
    assert len(calls) == 1


# The loss of every task


def test_the_loss_is_the_models_own(model, encoded, task):
    report = ftkit.evaluate(model, encoded["train"], task, bf16=False)
    batch = collate(encoded["train"], range(56))
    with torch.inference_mode():
        assert report.metrics["loss"] == pytest.approx(float(model(**batch).loss), abs=1e-5)
    assert report.metrics["loss"] == pytest.approx(float(report.losses.mean()))
    low, high = report.intervals["loss"]
    assert low < report.metrics["loss"] < high


def test_the_loss_of_a_tagger_is_the_models_own(tokenizer):
    task = ftkit.TokenClassification("tokens", "tags", ("O", "B-X", "I-X"))
    words = [["the", "soup", "was", "zorb"], ["fine"], ["lovely", "today"]]
    rows = Dataset.from_dict(
        {"tokens": words, "tags": [["B-X"] + ["O"] * (len(w) - 1) for w in words]}
    )
    encoded = task.encode(DatasetDict({"test": rows}), tokenizer)["test"]
    torch.manual_seed(0)
    model = BertForTokenClassification(tiny_config(num_labels=3)).eval()
    report = ftkit.evaluate(model, encoded, task, n_resamples=0, bf16=False)
    with torch.inference_mode():
        loss = float(model(**collate(encoded, range(3))).loss)
    assert report.metrics["loss"] == pytest.approx(loss, abs=1e-5)
    assert report.per_class["X"]["support"] == 3


def test_scores_of_each_class_need_classes():
    task = ftkit.CausalLM(("text",))
    report = make_report(task, np.array([[1.0, 2, 1]]), None, n_resamples=0)
    with pytest.raises(ftkit.FtkitError, match="^The task causal-lm has no classes"):
        _ = report.per_class


def test_reports_of_other_labels_cannot_be_compared(task):
    other = ftkit.SequenceClassification(("text",), ("good", "bad"))
    one, two = random_report(task), random_report(other)
    with pytest.raises(ftkit.FtkitError, match=r"^The reports are of other tasks \(sequence-class"):
        ftkit.compare(one, two)
