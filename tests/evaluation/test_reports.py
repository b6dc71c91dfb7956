"""Predictions in order, intervals that cover, comparisons that pair."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import f1_score, log_loss

import ftkit
from ftkit.evaluation.reports import bootstrap_weights, make_report


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
