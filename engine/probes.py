"""What frozen embeddings know to a linear probe: labels, told apart within each collection; and intervals of such scores."""

import math
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def linear_hits(
    embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, subjects: np.ndarray, folds: int = 5
) -> np.ndarray:
    """(n,) bool: does a logistic regression within the group, fitted on other subjects, tell each row's label?

    Rows of groups that have too few subjects for a split count as misses only where other rows of them could be scored.
    """
    hits = np.zeros(len(labels), bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        counts = np.unique(labels[rows], return_counts=True)[1]
        parts = min(folds, counts.min(), len(np.unique(subjects[rows])))
        if len(counts) < 2 or parts < 2:
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        splits = StratifiedGroupKFold(parts, shuffle=True, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            told = cross_val_predict(probe, embeddings[rows], labels[rows], cv=splits, groups=subjects[rows])
        hits[rows] = told == labels[rows]
    return hits


def interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson interval of a share of `count` trials."""
    if count == 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
