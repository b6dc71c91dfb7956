"""Metrics as functions of counts, so that a bootstrap only has to re-weigh the counts."""

import numpy as np


def classification_metrics(confusion: np.ndarray, positive: int = -1) -> dict[str, np.ndarray]:
    """Compute accuracy, precision, recall, F1 and Matthews' correlation, as scikit-learn does.

    Parameters
    ----------
    confusion : ndarray of shape (..., n_labels, n_labels)
        How many rows of each true label (row) were predicted as each label (column).
    positive : int
        Of two labels the one that precision, recall and F1 speak of.

    Returns
    -------
    dict
        Metric name → ndarray of shape (...). With two labels precision, recall and F1 are those
        of `positive`; with more, the plain mean over the labels that are there or predicted
        ("macro"). 0/0 counts as 0.

    Examples
    --------
    >>> scores = classification_metrics(np.array([[3, 1], [2, 4]]))
    >>> float(scores["accuracy"]), float(scores["precision"])
    (0.7, 0.8)
    """
    matrix = confusion.astype(float)
    correct = np.diagonal(matrix, axis1=-2, axis2=-1)
    true, predicted, total = matrix.sum(-1), matrix.sum(-2), matrix.sum((-1, -2))
    scores = class_metrics(confusion)
    scores.pop("support")
    if matrix.shape[-1] == 2:
        means = {name: values[..., positive] for name, values in scores.items()}
    else:
        n_counted = np.count_nonzero(true + predicted, axis=-1)
        means = {name: _ratio(values.sum(-1), n_counted) for name, values in scores.items()}
    covariance = correct.sum(-1) * total - (true * predicted).sum(-1)
    spread = (total**2 - (true**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    return {
        "accuracy": _ratio(correct.sum(-1), total),
        **means,
        "matthews_corrcoef": _ratio(covariance, np.sqrt(spread)),
    }


def class_metrics(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute precision, recall, F1 and support (rows that are there) of each label.

    Parameters
    ----------
    confusion : ndarray of shape (..., n_labels, n_labels)
        See `classification_metrics`.

    Returns
    -------
    dict
        Metric name → ndarray of shape (..., n_labels), as scikit-learn's
        ``precision_recall_fscore_support``. 0/0 counts as 0.

    Examples
    --------
    >>> class_metrics(np.array([[3, 1], [2, 4]]))["recall"].tolist()
    [0.75, 0.6666666666666666]
    """
    matrix = confusion.astype(float)
    correct = np.diagonal(matrix, axis1=-2, axis2=-1)
    true, predicted = matrix.sum(-1), matrix.sum(-2)
    return {
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, true),
        "f1": _ratio(2 * correct, true + predicted),
        "support": true,
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
