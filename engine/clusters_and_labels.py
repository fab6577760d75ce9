"""Whether clusters of embeddings, found without labels, are the labels: k-means within each collection."""

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from .neighbours import unit_rows

STARTS = 10


def cluster_scores(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> dict[str, float]:
    """`nmi` and `ari`, each the mean over groups, weighted by rows, of k-means with as many clusters as the group has labels.

    Directions are clustered (rows of unit length), from `STARTS` starts, of which the tightest clusters are taken. Chance is
    an ARI of 0; an NMI is above 0 by chance, the more so with many labels of few rows. embeddings (n, D); labels, groups
    (collections) (n,), at least a row.
    """
    scores, weights = [], []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        clusters = _clusters(unit_rows(embeddings[rows]), len(np.unique(labels[rows])), seed)
        scores.append([normalized_mutual_info_score(labels[rows], clusters), adjusted_rand_score(labels[rows], clusters)])
        weights.append(len(rows))
    nmi, ari = np.average(scores, axis=0, weights=weights)
    return {"nmi": float(nmi), "ari": float(ari)}


def _clusters(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: it finds fewer
        return KMeans(clusters, n_init=STARTS, random_state=seed).fit_predict(rows)
