"""Masked slices and the slices whose embeddings lie nearest to what was predicted for them."""

from typing import NamedTuple

import numpy as np


class Reconstructions(NamedTuple):
    """For each of m masked slices the rows of all slices that lie nearest to its prediction: of all, and of other subjects."""

    nearest: np.ndarray
    nearest_stranger: np.ndarray  # -1 where there is no other subject


def reconstruct(predictions: np.ndarray, slices: np.ndarray, masked: np.ndarray, subjects: np.ndarray) -> Reconstructions:
    """predictions (m, D) of the slices at rows `masked` (m,) of all slices (n, D), which have subjects (n,). Euclidean."""
    squares = np.square(slices, dtype=np.float64).sum(1)
    nearest, strangers = [], []
    for prediction, row in zip(predictions.astype(np.float64), masked):
        distance = squares - 2 * (slices @ prediction)  # but for what is the same for all
        nearest.append(distance.argmin())
        others = np.where(subjects == subjects[row], np.inf, distance)
        strangers.append(others.argmin() if np.isfinite(others).any() else -1)
    return Reconstructions(np.array(nearest, int), np.array(strangers, int))


def hits(nearest: np.ndarray, masked: np.ndarray, volumes: np.ndarray) -> tuple[float, float]:
    """The shares of masked slices whose nearest is the slice itself, and it or one beside it in its volume.

    nearest, masked (m,): rows of all slices, which lie one below the other by volume; volumes (n,): whose they are.
    """
    same = volumes[nearest] == volumes[masked]
    return float((nearest == masked).mean()), float((same & (np.abs(nearest - masked) <= 1)).mean())
