"""What the nearest neighbours of embeddings know: labels, told apart within each collection."""

import numpy as np


def knn_hits(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, subjects: np.ndarray, k: int = 10) -> np.ndarray:
    """(n,) bool: is the label of each row that of most of its k nearest neighbours (cosine) in its own group?

    Leave-one-subject-out: rows of the same subject are no neighbours of each other. Ties go to the nearer neighbours.
    embeddings (n, D), labels, groups (collections) and subjects (n,) of any type.
    """
    hits = np.zeros(len(labels), bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        strangers = subjects[rows][:, None] != subjects[rows][None]
        hits[rows] = _vote(embeddings[rows], labels[rows], strangers, k)
    return hits


def held_out_share(
    embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, subjects: np.ndarray, held_out: np.ndarray, k: int = 10
) -> float:
    """The share of held-out rows (n,) bool whose label is that of most of their k nearest other rows of their group.

    Rows of the same subject are no neighbours. Rows of a group in which all rows are held out count as misses.
    """
    hits = np.zeros(len(labels), bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        strangers = subjects[rows][:, None] != subjects[rows][None]
        hits[rows] = _vote(embeddings[rows], labels[rows], strangers & ~held_out[rows], k)
    return float(hits[held_out].mean())


def _vote(embeddings: np.ndarray, labels: np.ndarray, allowed: np.ndarray, k: int) -> np.ndarray:
    """(n,) bool: the label of each row wins the vote of its k nearest of the rows that `allowed` (n, n) lets vote."""
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    similar = np.where(allowed, unit @ unit.T, -np.inf)
    _, codes = np.unique(labels, return_inverse=True)
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, : min(k, len(labels) - 1)]
    weight = np.where(np.isfinite(np.take_along_axis(similar, nearest, 1)), 1.0, 0.0)
    weight *= 1 - 1e-6 * np.arange(nearest.shape[1])  # a nearer neighbour breaks a tie
    votes = np.zeros((len(labels), codes.max() + 1))
    np.add.at(votes, (np.arange(len(labels))[:, None], codes[nearest]), weight)
    return (votes.argmax(1) == codes) & (votes.max(1) > 0)
