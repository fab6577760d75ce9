"""Labelled volumes as the loaders give them: some slices of each to learn from, whole volumes to be judged on."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from .cases import Case
from .draws import keys, uniform
from .files import Item, summary, with_truth
from .fit import compact, mean_and_deviation, robust_range
from .formats import half_of_memory
from .label_map import THREADS, LabelMap
from .plane import Placement, placed, placed_labels, placement
from .reading import refuse_constant, refuse_nonfinite
from .scans import read_label, read_scan, scan_shape
from .volumes import on_host, widest_type

MOST_BYTES = 5  # of a pixel and its label, in memory


STAYS = ("case", "placement", "spacing")  # on the host, of a whole case


class Greys(NamedTuple):
    """Of a volume: its robust range of intensities; with low … high brought to [0, 1], mean and deviation."""

    low: float
    high: float
    mean: float
    deviation: float


@dataclass(frozen=True)
class Labelled:
    """A volume in the network's plane: slices (C, h, w) compact, labels (C, h, w) uint8; filled (C,) bool: with foreground."""

    slices: torch.Tensor
    labels: torch.Tensor
    filled: np.ndarray
    greys: Greys


class ScatteredSlices(Dataset):
    """Items by (index, turn): `count` slices from all over case `index`, or all of a shorter one, in order, with their labels.

    Each is one with foreground with a chance of `filled_share`, as long as there are such, else any slice of the volume, so
    that empty slices are neither left out nor all that is seen.
    """

    def __init__(
        self, cases: list[Case], label_map: LabelMap, size: tuple[int, int], count: int, filled_share: float, seed: int
    ):
        self.cases, self.label_map, self.size = cases, label_map, size
        self.count, self.filled_share, self.seed = count, filled_share, seed
        self.held: dict[int, Labelled] = {}

    def __len__(self) -> int:
        return len(self.cases)

    def summary(self) -> dict:
        items = [Item(case.path, case.name, case.name.split("/")[0] if "/" in case.name else "") for case in self.cases]
        return with_truth(summary(items, "labelled volumes", len(self)), self.label_map.words)

    def name_of(self, index: int) -> str:
        """The file that an item is read from."""
        return str(self.cases[index].path)

    def hold(self, quiet: bool, processes: int = 1) -> None:
        """Reads all volumes into memory, where half of it holds them; loader processes that begin later share them.

        processes: that may hold them, each for itself, in one memory.
        """
        area = MOST_BYTES * self.size[0] * self.size[1]
        if processes * sum(scan_shape(case)[2] * area for case in self.cases) > half_of_memory():
            return
        for index in tqdm(range(len(self.cases)), "reading labelled volumes", unit="volume", leave=False, disable=quiet):
            self.held[index] = self._read(index)

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, turn = place
        volume = self.held.get(index) or self._read(index)
        chosen = self._chosen(volume.filled, uniform(keys(self.seed, "slices", turn, index), 2 * self.count).reshape(-1, 2))
        return {
            "index": index, "turn": turn, **volume.greys._asdict(),
            "slices": volume.slices[chosen], "labels": volume.labels[chosen],
        }  # fmt: skip

    def _chosen(self, filled: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Slice numbers, rising, by draws (count, 2): whether the next has foreground, and which of those left it is."""
        left = np.ones(len(filled), bool)
        for chance, where in draws[: len(filled)]:
            among = np.flatnonzero(left & filled) if chance < self.filled_share else ()
            among = among if len(among) else np.flatnonzero(left)
            left[among[int(where * len(among))]] = False
        return np.flatnonzero(~left)

    def _read(self, index: int) -> Labelled:
        slices, greys, place = _slices_of(self.cases[index], read_scan(self.cases[index]).pixels, self.size)
        truth = read_label(self.cases[index], self.label_map)
        labels = placed_labels(torch.from_numpy(np.ascontiguousarray(np.moveaxis(truth, 2, 0))), place)
        return Labelled(slices, labels, labels.flatten(1).any(1).numpy(), greys)


class WholeCases(Dataset):
    """Items by (index, turn): all slices of case `index` in the network's plane, where they lie in it, and their spacing."""

    def __init__(self, cases: list[Case], size: tuple[int, int]):
        self.cases, self.size = cases, size

    def __len__(self) -> int:
        return len(self.cases)

    def name_of(self, index: int) -> str:
        return str(self.cases[index].path)

    def __getitem__(self, place: tuple[int, int]) -> dict:
        case, scan = self.cases[place[0]], read_scan(self.cases[place[0]])
        slices, greys, where = _slices_of(case, scan.pixels, self.size)
        return {"case": case, "slices": slices, **greys._asdict(), "placement": where, "spacing": scan.spacing}


def refuse_unreadable(cases: list[Case]) -> None:
    """Raises `DataError` when an image cannot be read to its end, or is nothing to judge: before the training, not after it."""
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(_read_to_its_end, cases):
            pass


def _read_to_its_end(case: Case) -> None:
    pixels = read_scan(case).pixels
    _slices_of(case, pixels, pixels.shape[:2])


def collate_scattered(samples: list[dict]) -> dict:
    """B items, padded to the longest (N slices): slices (B, N, h, w), labels (B, N, h, w) uint8, `Greys` (B,) each, index (B,).

    `on_host`: index, turn, count (B,) real slices.
    """
    longest = max(len(sample["slices"]) for sample in samples)
    dtype = widest_type([sample["slices"].dtype for sample in samples])
    shape = (len(samples), longest, *samples[0]["slices"].shape[1:])
    slices, labels = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=torch.uint8)
    for row, sample in enumerate(samples):
        slices[row, : len(sample["slices"])] = sample["slices"].to(dtype)
        labels[row, : len(sample["labels"])] = sample["labels"]
    index, turn = (torch.tensor([sample[name] for sample in samples]) for name in ("index", "turn"))
    count = torch.tensor([len(sample["slices"]) for sample in samples])
    stays = on_host({"index": index, "turn": turn, "count": count})
    return {"slices": slices, "labels": labels, **_greys(samples), "index": index, "on_host": stays}


def collate_whole(samples: list[dict]) -> dict:
    """One whole case: slices (1, C, h, w), `Greys` (1,) each; case, placement and spacing (mm, or None) stay on the host."""
    (sample,) = samples
    return {"slices": sample["slices"][None], **_greys(samples), **{k: sample[k] for k in STAYS}}


def _greys(samples: list[dict]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([sample[name] for sample in samples], dtype=torch.float32) for name in Greys._fields}


def _slices_of(case: Case, pixels: np.ndarray, size: tuple[int, int]) -> tuple[torch.Tensor, Greys, Placement]:
    """pixels (H, W, C) → slices (C, h, w) in their compact type, what their intensities are, where they lie in the plane."""
    slices = np.require(compact(np.moveaxis(np.asarray(pixels), 2, 0)), requirements=["C", "W"])
    low, high = robust_range(slices)
    refuse_nonfinite(case.path, slices, low, high)
    refuse_constant(case.path, slices, pixels)
    place = placement(slices.shape[1:], size)
    greys = Greys(low, high, *mean_and_deviation(slices, low, high))
    return placed(torch.from_numpy(slices), place, fill=slices.min().item()), greys, place
