"""Random draws as functions of a key: the same numbers on any worker, on any rank, and after a resume.

A key is a 64-bit number made from what names a draw (seed, purpose, epoch, index, view). Numbers come from the key
through the finaliser of SplitMix64 (Steele, Lea, Flood 2014) used as a counter hash: no state exists.
"""

import zlib

import numpy as np
import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _as_words(part) -> np.ndarray:
    if isinstance(part, str):
        part = zlib.crc32(part.encode())
    return np.asarray(part, dtype=np.int64).view(np.uint64)


def keys(*parts) -> np.ndarray:
    """uint64 keys from `parts`, each a text, an integer or an integer array; arrays broadcast.

    >>> keys(0, "noise", [1, 2], 0).shape
    (2,)
    """
    key = np.zeros((), np.uint64)
    for part in parts:
        with np.errstate(over="ignore"):
            key = _mix((key ^ _as_words(part)) + _GOLDEN)
    return key


def seeds(seed: int, purpose: str, epoch: int, count: int) -> list[int]:
    """A seed for each of `count` things of an epoch, such as the k-means of several heads."""
    return [int(keys(seed, purpose, epoch, number) >> np.uint64(1)) for number in range(count)]


def uniform(key: np.ndarray, count: int) -> np.ndarray:
    """(*key.shape, count) float64 in [0, 1): `count` independent numbers for every key."""
    with np.errstate(over="ignore"):
        counters = (np.arange(1, count + 1, dtype=np.uint64)) * _GOLDEN
        words = _mix(np.asarray(key, np.uint64)[..., None] + counters)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: np.ndarray, count: int) -> np.ndarray:
    """(count,) int64: the keyed permutation of 0 … count - 1."""
    return np.argsort(uniform(key, count), kind="stable")


def generator(key: np.ndarray, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device`, seeded by one key, for bulk noise."""
    return torch.Generator(device).manual_seed(int(np.uint64(key) >> np.uint64(1)))
