"""Whether two files show the same scan, though their bytes differ: windowed, with other noise, in another type.

Fingerprints find candidates: what is left of a coarse grid when its own blur is taken away. Bodies of one kind are alike in
their outline, which the blur holds; so a fingerprint tells one from the other. Candidates are read again. Of the same scan
one is a function of the other, voxel by voxel, up to noise; of two scans of one patient, registered to each other, it is not:
what a function leaves is structure. Noise and structure are told apart on two halves of the voxels, as the squares of a
chessboard: noise of one half knows nothing of the other's.
"""

import functools
from pathlib import Path

import numpy as np

from .reading import open_volume, read_image

SAMPLE = {True: (64, 64, 32), False: (128, 128, 1)}  # voxels of a volume, pixels of a picture, that stand for all
COARSE = {True: (8, 8, 8), False: (16, 16, 1)}  # cells of a fingerprint
FINE = {True: (12, 12, 8), False: (24, 24, 1)}  # cells of the second look
CANDIDATE = 0.9  # correlation of fingerprints: the hardest windows of one volume reach 0.91 and more
MOST_CANDIDATES = 4  # for each file: a copy is among the most alike
# explained by a function. Volumes: copies 0.998 and more, T1 with and without contrast, registered, 0.988, all others at most
# 0.97. Pictures, of which none are registered: copies 0.98 and more, also of half the size, all others at most 0.85.
SAME = {True: 0.994, False: 0.95}
LEVELS = 32  # steps of that function
ROWS = 256  # of the matrix of correlations at a time


def sampled(voxels: np.ndarray) -> np.ndarray:
    """(h, w, c) of a type that numpy computes with: voxels of (H, W, C) at even distances, at most those of `SAMPLE`."""
    most = SAMPLE[voxels.shape[2] > 1]
    places = [np.floor((np.arange(min(n, m)) + 0.5) * n / min(n, m)).astype(np.int64) for n, m in zip(voxels.shape, most)]
    plain = {"b": np.dtype(np.uint8), "f": np.dtype(np.float32) if voxels.dtype.itemsize < 8 else np.dtype(np.float64)}
    return voxels[np.ix_(*places)].astype(plain.get(voxels.dtype.kind, voxels.dtype.newbyteorder("=")), copy=False)


def numbers_of(values: np.ndarray) -> np.ndarray:
    """(n,): those that are neither NaN nor infinite."""
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values.ravel()


def normalised(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """float32 in [0, 1] over the range low … high; 0 for what is no number."""
    scaled = values.astype(np.float32) - np.float32(low)
    scaled /= np.float32(high - low if high > low else 1)
    np.clip(scaled, 0, 1, out=scaled)
    return np.nan_to_num(scaled, copy=False) if values.dtype.kind == "f" else scaled


def fingerprint(grey: np.ndarray) -> np.ndarray:
    """(512,) or, of a picture, (256,) float16 of unit length; zeros where there is no structure. grey: (h, w, c) in [0, 1]."""
    detail = _detail(_pooled(grey, COARSE[grey.shape[2] > 1])).ravel()
    detail -= detail.mean()
    length = np.linalg.norm(detail)
    return (detail / length if length > 1e-4 else np.zeros_like(detail)).astype(np.float16)


def candidates(prints: np.ndarray, groups: np.ndarray) -> list[tuple[int, int]]:
    """Pairs i < j of rows of (n, d) that may show the same scan: for each i the few j that are most alike.

    groups: (n,) int64; rows of one group are no pairs, such as the slices of one case, which are alike by nature.
    """
    prints = prints.astype(np.float32)
    pairs = []
    for begin in range(0, len(prints), ROWS):
        alike = prints[begin : begin + ROWS] @ prints[begin:].T
        rows = np.arange(len(alike))
        alike[groups[begin : begin + ROWS, None] == groups[begin:]] = 0
        alike[:, : len(alike)][np.tril_indices(len(alike))] = 0  # j > i
        for _ in range(MOST_CANDIDATES):
            best = alike.argmax(1)
            near = alike[rows, best] >= CANDIDATE
            if not near.any():
                break
            pairs += [(begin + int(i), begin + int(best[i])) for i in rows[near]]
            alike[rows, best] = 0
    return pairs


def same_scan(one: Path, other: Path, volume: bool) -> bool:
    """Whether one of two files is a copy of the other. Raises `DataError` as reading does."""
    grey = _grey_sample(one, volume), _grey_sample(other, volume)
    return likeness(*grey) >= SAME[grey[0].shape[2] > 1]


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """How much of the structure of one (h, w, c) in [0, 1] is a function of the other's values: 1 is all of it."""
    common = tuple(min(sizes) for sizes in zip(one.shape, other.shape))
    one, other = (grey if grey.shape == common else _pooled(grey, common) for grey in (one, other))
    return max(_explained(one, other), _explained(other, one))  # a window loses what the other one had


def _explained(by: np.ndarray, of: np.ndarray) -> float:
    """The function goes straight from level to level, each the means of both over a part of the values of `by`."""
    shares, values = np.quantile(by, np.linspace(0, 1, LEVELS + 1)[1:-1]), np.linspace(0, 1, LEVELS + 1)[1:-1]
    edges = np.unique(np.concatenate([shares, values]))
    level = np.searchsorted(edges, by.ravel(), side="right")
    count = np.bincount(level, minlength=len(edges) + 1)
    sums = [np.bincount(level, grey.ravel(), minlength=len(count))[count > 0] for grey in (by, of)]
    means = [part / count[count > 0] for part in sums]
    left = of - np.interp(by, *means).astype(np.float32)
    everything = _structure(of)
    return 1 - _structure(left) / everything if everything > 1e-9 else 0.0


def _structure(grey: np.ndarray) -> float:
    """The variance of the detail that both halves of the voxels show."""
    white = (np.indices(grey.shape, np.int8).sum(0) % 2).astype(np.float32)
    cells = FINE[grey.shape[2] > 1]
    halves = []
    for half in (white, 1 - white):
        detail = _detail(_pooled(grey * half, cells) / np.maximum(_pooled(half, cells), 1e-3))
        halves.append(detail - detail.mean())
    return float((halves[0] * halves[1]).mean())


@functools.lru_cache(maxsize=8)
def _grey_sample(path: Path, volume: bool) -> np.ndarray:
    sample = sampled(open_volume(path) if volume else read_image(path)[:, :, None])
    numbers = numbers_of(sample)
    return normalised(sample, *(np.percentile(numbers, (0.5, 99.5)) if numbers.size else (0, 1)))


def _pooled(grey: np.ndarray, cells: tuple[int, ...]) -> np.ndarray:
    """Means over `cells` boxes of equal size; a voxel on a border counts for both with its share."""
    return _each_axis(grey, [_boxes(n, m) for n, m in zip(grey.shape, cells)])


def _detail(cells: np.ndarray) -> np.ndarray:
    """Cells less the mean of each and its neighbours."""
    return cells - _each_axis(cells, [_neighbours(n) for n in cells.shape])


def _each_axis(array: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    rows, columns, slices = matrices
    array = columns @ (array @ slices.T)  # the last axis first: what is next to each other in memory becomes less
    return (rows @ array.reshape(len(array), -1)).reshape(len(rows), *array.shape[1:])


@functools.lru_cache(maxsize=256)
def _boxes(length: int, count: int) -> np.ndarray:
    """(count, length) float32, rows sum to 1."""
    edges = np.arange(count + 1) * length / count
    begin, end = edges[:-1, None], edges[1:, None]
    at = np.arange(length)
    share = np.clip(np.minimum(end, at + 1) - np.maximum(begin, at), 0, 1)
    return (share / share.sum(1, keepdims=True)).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _neighbours(length: int) -> np.ndarray:
    """(length, length) float32: the mean of each and its neighbours; the last one is its own neighbour."""
    matrix = np.zeros((length, length), np.float32)
    for step in (-1, 0, 1):
        np.add.at(matrix, (np.arange(length), np.clip(np.arange(length) + step, 0, length - 1)), 1 / 3)
    return matrix
