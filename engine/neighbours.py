"""Which embeddings of other subjects lie nearest, and what they know: labels, told apart within each collection."""

from collections.abc import Iterator

import numpy as np

BLOCK = 2**20  # similarities at a time


def similarities(embeddings: np.ndarray, subjects: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Block by block, so that any number of rows goes: the rows, and their cosines (b, n) float64 with all rows.

    −∞ with rows of the same subject, itself among them. Float64, since features without a negative entry have cosines close
    to 1; rounded to 1e-9, so that equal rows are equally near in whatever order a product was summed.
    embeddings (n, D), subjects (n,) of any type.
    """
    unit = unit_rows(embeddings)
    codes = np.unique(subjects, return_inverse=True)[1]
    step = max(1, BLOCK // max(1, len(unit)))
    for first in range(0, len(unit), step):
        rows = slice(first, first + step)
        similar = (unit[rows] @ unit.T).round(9)
        similar[codes[rows, None] == codes] = -np.inf
        yield rows, similar


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """(n, D) float64 of length 1; rows of zeros stay."""
    rows = np.asarray(embeddings, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)


def nearest_strangers(embeddings: np.ndarray, subjects: np.ndarray, asked: np.ndarray, k: int) -> list[tuple[np.ndarray, ...]]:
    """For each of the `asked` rows (q,): at most k rows of other subjects, the nearest first, and their cosines."""
    unit, found = unit_rows(embeddings), []
    for row in asked:
        similar = np.where(subjects == subjects[row], -np.inf, (unit @ unit[row]).round(9))[None]
        near = _nearest(similar, k)[0]
        near = near[np.isfinite(similar[0, near])]
        found.append((near, similar[0, near]))
    return found


def knn_hits(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, subjects: np.ndarray, k: int = 10) -> np.ndarray:
    """(n,) bool: is the label of each row that of most of its k nearest neighbours (cosine) in its own group?

    Leave-one-subject-out: rows of the same subject are no neighbours of each other. Ties go to the nearer neighbours.
    embeddings (n, D), labels, groups (collections) and subjects (n,) of any type.
    """
    hits = np.zeros(len(labels), bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        hits[rows] = _votes(embeddings[rows], labels[rows], subjects[rows], np.ones(len(rows), bool), k)
    return hits


def most_frequent_share(labels: np.ndarray, groups: np.ndarray) -> float:
    """The share of rows (n,) that have the most frequent label of their group: what hits by chance amount to."""
    counts = (np.unique(labels[groups == group], return_counts=True)[1].max() for group in np.unique(groups))
    return float(sum(counts) / len(labels))


def same_label_shares(embeddings: np.ndarray, labels: np.ndarray, subjects: np.ndarray) -> tuple[float, float]:
    """The share of rows whose nearest row of another subject has their label, and that of all rows of other subjects.

    Rows without one do not count; both are NaN where there is none.
    """
    codes, hits, shares = np.unique(labels, return_inverse=True)[1], [], []
    for rows, similar in similarities(embeddings, subjects):
        same, other = codes[rows, None] == codes, np.isfinite(similar)
        asked = other.any(1)
        hits += list(same[np.arange(len(same)), similar.argmax(1)][asked])
        shares += list(((same & other).sum(1) / np.maximum(other.sum(1), 1))[asked])
    return (float(np.mean(hits)), float(np.mean(shares))) if hits else (np.nan, np.nan)


def held_out_share(
    embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, subjects: np.ndarray, held_out: np.ndarray, k: int = 10
) -> float:
    """The share of held-out rows (n,) bool whose label is that of most of their k nearest other rows of their group.

    Rows of the same subject are no neighbours. Rows of a group in which all rows are held out count as misses.
    """
    hits = np.zeros(len(labels), bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        hits[rows] = _votes(embeddings[rows], labels[rows], subjects[rows], ~held_out[rows], k)
    return float(hits[held_out].mean())


def _votes(embeddings: np.ndarray, labels: np.ndarray, subjects: np.ndarray, voting: np.ndarray, k: int) -> np.ndarray:
    """(n,) bool: the label of each row wins the vote of its k nearest of the `voting` rows (n,) of other subjects."""
    names, codes = np.unique(labels, return_inverse=True)
    hits = np.zeros(len(labels), bool)
    for rows, similar in similarities(embeddings, subjects):
        similar[:, ~voting] = -np.inf
        nearest = _nearest(similar, k)
        weight = np.where(np.isfinite(np.take_along_axis(similar, nearest, 1)), 1.0, 0.0)
        weight *= 1 - 1e-6 * np.arange(nearest.shape[1])  # a nearer neighbour breaks a tie
        votes = np.zeros((len(similar), len(names)))
        np.add.at(votes, (np.arange(len(similar))[:, None], codes[nearest]), weight)
        hits[rows] = (votes.argmax(1) == codes[rows]) & (votes.max(1) > 0)
    return hits


def _nearest(similar: np.ndarray, k: int) -> np.ndarray:
    """(b, min(k, n)) columns of the largest of (b, n) similarities, the largest first, the first of equals first."""
    k = min(k, similar.shape[1])
    some = np.sort(np.argpartition(-similar, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(similar, some, 1), axis=1, kind="stable")
    return np.take_along_axis(some, order, 1)
