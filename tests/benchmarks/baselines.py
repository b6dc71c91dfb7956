"""What a fine-tuned model has to beat: the majority, and words without any pretraining."""

import numpy as np
import scipy.sparse as sparse
from datasets import Dataset, DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression


def majority_accuracy(train: Dataset, test: Dataset, label_column: str = "label") -> float:
    """Accuracy on the test rows of always saying the commonest training label."""
    names, counts = np.unique(train[label_column], return_counts=True)
    return float(np.mean(np.array(test[label_column]) == names[counts.argmax()]))


def tfidf_margins(
    splits: DatasetDict, text_columns: tuple[str, str], label_column: str, positive: str
) -> np.ndarray:
    """Decision function on the test pairs of a logistic regression on TF-IDF vectors.

    Features of a pair: the absolute difference and the product of the two vectors, and their
    cosine.

    Returns
    -------
    ndarray of shape (n_test_rows,)
        Above 0 means `positive`.
    """
    train, test = splits["train"], splits["test"]
    vectorizer = TfidfVectorizer().fit([t for c in text_columns for t in train[c]])

    def features(split: Dataset) -> sparse.csr_matrix:
        one, other = (vectorizer.transform(list(split[column])) for column in text_columns)
        product = one.multiply(other)
        cosine = sparse.csr_matrix(product.sum(axis=1))
        return sparse.hstack([abs(one - other), product, cosine]).tocsr()

    labels = np.array(train[label_column]) == positive
    classifier = LogisticRegression(max_iter=2000).fit(features(train), labels)
    return classifier.decision_function(features(test))
