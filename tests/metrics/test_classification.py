"""Our counts against scikit-learn's metrics."""

import numpy as np
import pytest
from sklearn import metrics as sk

from ftkit.metrics.classification import classification_metrics


@pytest.mark.parametrize("n_labels", [2, 3, 5])
def test_equal_to_scikit_learn_on_random_predictions(n_labels):
    rng = np.random.default_rng(n_labels)
    average = "binary" if n_labels == 2 else "macro"
    for size in (1, 2, 7, 60):
        labels, predictions = rng.integers(0, n_labels, (2, size))
        every = list(range(n_labels))
        ours = classification_metrics(sk.confusion_matrix(labels, predictions, labels=every))
        kwargs = {"average": average, "zero_division": 0}
        expected = {
            "accuracy": sk.accuracy_score(labels, predictions),
            "precision": sk.precision_score(labels, predictions, **kwargs),
            "recall": sk.recall_score(labels, predictions, **kwargs),
            "f1": sk.f1_score(labels, predictions, **kwargs),
        }
        if len({*labels, *predictions}) > 1:
            expected["matthews_corrcoef"] = sk.matthews_corrcoef(labels, predictions)
        for name, value in expected.items():
            np.testing.assert_allclose(ours[name], value, atol=1e-12, err_msg=name)


def test_many_matrices_at_once():
    matrices = np.random.default_rng(0).integers(0, 9, (4, 6, 3, 3))
    at_once = classification_metrics(matrices)
    one = classification_metrics(matrices[2, 5])
    assert all(at_once[name][2, 5] == one[name] for name in one)


def test_no_rows_score_zero():
    scores = classification_metrics(np.zeros((2, 2)))
    assert [float(score) for score in scores.values()] == [0.0] * 5
