"""Slice embeddings of augmented views, made once and read in every epoch: stage 2 without its frozen encoder."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from .draws import keys, uniform
from .volumes import on_host


class CachedViews(Dataset):
    """Items by (index, turn): the slice embeddings of two of a volume's kept views, chosen by (seed, turn, index).

    `path`: a file of `file_size` bytes that all processes see. It is memory-mapped, so that it may be larger than the memory.
    """

    def __init__(self, path: Path, volumes: int, views: int, slices: int, dim: int, seed: int):
        self.seed = seed
        self.counts = np.memmap(path, np.int64, "r+", shape=(volumes,))
        self.table = np.memmap(path, np.float16, "r+", offset=8 * volumes, shape=(volumes, views, slices, dim))

    @staticmethod
    def file_size(volumes: int, views: int, slices: int, dim: int) -> int:
        """Bytes: a number of slices for each volume, and two for each of the numbers of its embeddings."""
        return 8 * volumes + 2 * volumes * views * slices * dim

    def __len__(self) -> int:
        return len(self.counts)

    def write(self, index: np.ndarray, count: np.ndarray, first: int, embeddings: torch.Tensor) -> None:
        """Keeps two views of the volumes `index` (B,), with `count` (B,) real slices, as views `first` and `first` + 1.

        embeddings: (2B, N, D), the first views of all volumes, then the second.
        """
        pairs = embeddings.view(2, len(index), *embeddings.shape[1:]).transpose(0, 1)
        self.table[index, first : first + 2, : embeddings.shape[1]] = pairs.to("cpu", torch.float16).numpy()
        self.counts[index] = count

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, turn = place
        views = np.sort(np.argsort(uniform(keys(self.seed, "cached views", turn, index), self.table.shape[1]))[:2])
        count = int(self.counts[index])
        return {"index": index, "turn": turn, "count": count, "slices": torch.from_numpy(self.table[index, views, :count])}


def collate_cached(samples: list[dict]) -> dict[str, torch.Tensor]:
    """slices (2B, N, D) float16, the first views of all volumes, then the second; `on_host`: real (2B, N), index, turn (B,)."""
    longest, dim = max(sample["count"] for sample in samples), samples[0]["slices"].shape[2]
    slices = torch.zeros(2, len(samples), longest, dim, dtype=torch.float16)
    for row, sample in enumerate(samples):
        slices[:, row, : sample["count"]] = sample["slices"]
    whole = {name: torch.tensor([sample[name] for sample in samples]) for name in ("index", "turn")}
    real = torch.arange(longest) < torch.tensor([sample["count"] for sample in samples])[:, None]
    return {"slices": slices.flatten(0, 1), "on_host": on_host({**whole, "real": real.repeat(2, 1)})}
