"""Pictures with boxes as the loader gives them, and as the detector takes them."""

import numpy as np
import torch
from torch.utils.data import Dataset

from .box_views import Placement, change_intensities, placed, show
from .boxes import BoxedPicture
from .draws import keys, uniform
from .files import summary, with_truth
from .pictures import Pictures
from .volumes import intensities, on_host, standardise, widest_type


class BoxDataset(Dataset):
    """Squares of `side` pixels by (index, turn), with the boxes that are seen in them.

    findings: the names of labels 1, 2, … (0 is the background). scale_jitter and flip: of keyed windows; whole pictures
    without them (evaluation). whole_range: as in `Pictures`.
    """

    def __init__(
        self, items: list[BoxedPicture], findings: list[str], side: int, seed: int = 0, whole_range: bool = False,
        scale_jitter: float | None = None, flip: bool = False,
    ):  # fmt: skip
        self.items, self.side, self.seed, self.scale_jitter, self.flip = items, side, seed, scale_jitter, flip
        self.pictures = Pictures(items, whole_range=whole_range)
        self.label_of = {finding: label for label, finding in enumerate(findings, 1)}

    def __len__(self) -> int:
        return len(self.items)

    def summary(self) -> dict:
        about = summary(self.items, "pictures with boxes", len(self))
        return with_truth(about, [(item.boxes, item.findings) for item in self.items])

    def name_of(self, index: int) -> str:
        return self.pictures.name_of(index)

    def place(self, index: int, turn: int = -1) -> Placement:
        """Where the picture lies in its square, in a pass over the data."""
        size = self.items[index].size
        if self.scale_jitter is None:
            return placed(size, self.side)
        return placed(size, self.side, uniform(keys(self.seed, "window", turn, index), 4), self.scale_jitter, self.flip)

    def truth(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 4) in the pixels of the picture, and labels (n,)."""
        item = self.items[index]
        labels = [self.label_of[finding] for finding in item.findings]
        return np.array(item.boxes, np.float64).reshape(-1, 4), np.array(labels, np.int64)

    def __getitem__(self, position: tuple[int, int]) -> dict:
        index, turn = position
        pixels, (low, high) = self.pictures.read(index)
        place = self.place(index, turn)
        boxes, labels = (torch.from_numpy(values) for values in self.truth(index))
        boxes, seen = place.into(boxes)
        square = show(torch.from_numpy(pixels), place)
        told = {"index": index, "turn": turn, "low": low, "high": high}
        return {**told, "pixels": square, "boxes": boxes[seen], "labels": labels[seen]}


def collate_boxes(samples: list[dict]) -> dict:
    """A batch of B: pixels (B, S, S); low, high, index, turn (B,); boxes, B of (n, 4); labels, B of (n,); `on_host`."""
    batch: dict = {name: torch.tensor([sample[name] for sample in samples]) for name in ("index", "turn")}
    batch["on_host"] = on_host(batch)
    batch |= {name: torch.tensor([s[name] for s in samples], dtype=torch.float32) for name in ("low", "high")}
    dtype = widest_type([sample["pixels"].dtype for sample in samples])
    batch["pixels"] = torch.stack([sample["pixels"].to(dtype) for sample in samples])
    return {**batch, "boxes": [s["boxes"] for s in samples], "labels": [s["labels"] for s in samples]}


def detector_images(
    batch: dict, normalise: str, dtype: torch.dtype, seed: int = 0, intensity_jitter: float = 0.0
) -> torch.Tensor:
    """(B, 1, S, S), or (B, 3, S, S) with "imagenet": a batch's pixels as the backbone was trained to see them.

    intensity_jitter: by how much brightness and contrast differ, keyed (0 = as they are; raw intensities have no such range).
    """
    pixels = intensities(batch["pixels"], batch["low"], batch["high"], normalise, dtype)
    if intensity_jitter and normalise != "none":
        where = keys(seed, "intensities", batch["on_host"]["turn"], batch["on_host"]["index"])
        draws = torch.from_numpy(uniform(where, 2)).to(dtype).to(pixels.device, non_blocking=True)
        pixels = change_intensities(pixels, draws, intensity_jitter)
    pixels = standardise(pixels, normalise)
    return pixels if pixels.ndim == 4 else pixels[:, None]


def targets_of(batch: dict, dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    """What a picture's boxes and labels are called by torchvision's detectors."""
    return [{"boxes": boxes.to(dtype), "labels": labels} for boxes, labels in zip(batch["boxes"], batch["labels"])]
