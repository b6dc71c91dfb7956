"""Metrics as functions of counts, so that a bootstrap only has to re-weigh the counts."""

import numpy as np


def classification_metrics(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute accuracy, precision, recall, F1 and Matthews' correlation, as scikit-learn does.

    Parameters
    ----------
    confusion : ndarray of shape (..., n_labels, n_labels)
        How many rows of each true label (row) were predicted as each label (column).

    Returns
    -------
    dict
        Metric name → ndarray of shape (...). With two labels precision, recall and F1 are those
        of the second label; with more, the plain mean over the labels ("macro"). 0/0 counts as 0.

    Examples
    --------
    >>> scores = classification_metrics(np.array([[3, 1], [2, 4]]))
    >>> float(scores["accuracy"]), float(scores["precision"])
    (0.7, 0.8)
    """
    matrix = confusion.astype(float)
    correct = np.diagonal(matrix, axis1=-2, axis2=-1)
    true, predicted, total = matrix.sum(-1), matrix.sum(-2), matrix.sum((-1, -2))
    scores = {
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, true),
        "f1": _ratio(2 * correct, true + predicted),
    }
    binary = matrix.shape[-1] == 2
    covariance = correct.sum(-1) * total - (true * predicted).sum(-1)
    spread = (total**2 - (true**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    return {
        "accuracy": _ratio(correct.sum(-1), total),
        **{name: s[..., -1] if binary else s.mean(-1) for name, s in scores.items()},
        "matthews_corrcoef": _ratio(covariance, np.sqrt(spread)),
    }


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
