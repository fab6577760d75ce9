"""What frozen embeddings know to a linear probe: labels, told apart within each collection; and intervals of such scores."""

import math
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def linear_hits(
    embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, subjects: np.ndarray, folds: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool: does a logistic regression within the group, fitted on other subjects, tell each row's label? And (n,) bool:
    was the row scored?

    A label of one subject alone cannot be learned from others: its rows are left out, as are groups with a single label.
    """
    hits, scored = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        of_label = {label: len(np.unique(subjects[rows][labels[rows] == label])) for label in np.unique(labels[rows])}
        rows = rows[[of_label[label] > 1 for label in labels[rows]]]
        parts = min([folds, *(many for many in of_label.values() if many > 1)])
        if len(np.unique(labels[rows])) < 2:
            continue
        splits = StratifiedGroupKFold(parts, shuffle=True, random_state=0).split(rows, labels[rows], subjects[rows])
        for learned, asked in splits:
            if len(np.unique(labels[rows[learned]])) == len(np.unique(labels[rows])):
                told = _logistic_regression(embeddings[rows[learned]], labels[rows[learned]]).predict(embeddings[rows[asked]])
                hits[rows[asked]], scored[rows[asked]] = told == labels[rows[asked]], True
    return hits, scored


def _logistic_regression(embeddings: np.ndarray, labels: np.ndarray):
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(embeddings, labels)


def interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson interval of a share of `count` trials."""
    if count == 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
