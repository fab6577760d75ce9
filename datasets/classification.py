"""How a classifier is shown its files: changed at random to learn from, whole to be judged on."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .errors import DataError
from .files import Item, summary, with_truth
from .image_views import resized
from .loader import epoch_loader, once_loader
from .pictures import CropDataset, Pictures, collate_pictures
from .views import middle_slice, one_view, picture_crops, plain_view
from .volumes import VolumeDataset, collate_volumes


@dataclass(frozen=True)
class Shown:
    """What a weight file keeps of how its files were shown, and prediction goes by.

    size: (slices, height, width) of volumes, (side, side) of images. fit: of volumes. window: (low, high) of all files in
    place of each one's own percentiles, () for those.
    """

    what: Literal["images", "volumes"]
    size: tuple[int, ...]
    normalise: str
    fit: str = "shrink"
    window: tuple[float, ...] = ()

    def __post_init__(self):
        if self.window and not (len(self.window) == 2 and self.window[0] < self.window[1]):
            raise DataError(f"--window is {' '.join(map(str, self.window))}; give the values of black and of white.")
        if self.window and self.normalise == "none":
            raise DataError("--window has no meaning with --normalise none, which leaves intensities as they are.")

    def learned_from(
        self, items: list[Item], batch_size: int, seed: int, workers: int, rank: int, world: int, min_scale: float
    ):
        """The loader of training batches. min_scale: least share of an image that a crop shows."""
        if self.what == "volumes":
            dataset, collate = LabelledVolumes(items, self.size, seed, self.fit), collate_volumes
        else:
            dataset = LabelledCrops(self._pictures(items), seed, (1,), self.size[:1], (min_scale,), (1.0,))
            collate = collate_pictures
        return epoch_loader(dataset, collate, batch_size, seed, workers, rank, world, self.what)

    def judged_on(self, items: list[Item], batch_size: int, workers: int, rank: int = 0, world: int = 1) -> DataLoader:
        """Every item once, whole, in order, dealt over the ranks."""
        if self.what == "volumes":
            dataset, collate = VolumeDataset(items, self.size, 0, self.fit, centred=True), collate_volumes
        else:
            dataset, collate = ResizedPictures(self._pictures(items), self.size), collate_pictures
        return once_loader(dataset, collate, batch_size, workers, rank, world)

    def augmented(
        self, batch: dict, seed: int, policy: str, dtype: torch.dtype, flip: bool = False
    ) -> tuple[torch.Tensor, ...]:
        """One changed view of each item: (pixels,) of images (B, 1 or 3, s, s); (pixels, real) of volumes (B, N, [3,] H, W).

        policy: of the transforms of volumes. flip: mirrors half of the images. Draws are keyed by (seed, pass, index).
        """
        batch = self._windowed(batch)
        if self.what == "volumes":
            view = one_view(batch, seed, policy, self.normalise, dtype)
            return view.pixels, view.real
        return (picture_crops(batch, seed, self.normalise, dtype, mirror=flip)[0],)

    def looked_at(self, pixels: torch.Tensor, real: torch.Tensor | None = None) -> list[torch.Tensor]:
        """What a person is shown of the same: (B, 1 or 3, h, w); of volumes the middle slice."""
        if real is None:
            return [pixels]
        slices = middle_slice(pixels, real)
        return [slices if slices.ndim == 4 else slices[:, None]]

    def plain(self, batch: dict, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """The same of items as they are."""
        batch = self._windowed(batch)
        if self.what == "volumes":
            return plain_view(batch, self.normalise, dtype)
        return (picture_crops(batch, 0, self.normalise, dtype, augment=False)[0],)

    def _windowed(self, batch: dict) -> dict:
        if not self.window:
            return batch
        low, high = self.window
        return {**batch, "low": torch.full_like(batch["low"], low), "high": torch.full_like(batch["high"], high)}

    def _pictures(self, items: list[Item]) -> Pictures:
        return Pictures(items, whole_range=self.normalise == "imagenet")


class LabelledVolumes(VolumeDataset):
    def summary(self) -> dict:
        return with_truth(super().summary(), [item.label for item in self.items])


class LabelledCrops(CropDataset):
    def summary(self) -> dict:
        return with_truth(super().summary(), [item.label for item in self.pictures.images])


class ResizedPictures(Dataset):
    """Whole pictures by (index, turn), brought to `size` (H, W) whatever their aspect.

    Nothing is cut off, for what tells the class may lie at the border; crops that are learned from are squeezed, too. Smaller
    pictures are enlarged, as crops of them are.
    """

    def __init__(self, pictures: Pictures, size: tuple[int, int]):
        self.pictures, self.size = pictures, size

    def __len__(self) -> int:
        return len(self.pictures)

    def summary(self) -> dict:
        return summary(self.pictures.images, "pictures", len(self))

    def name_of(self, index: int) -> str:
        return self.pictures.name_of(index)

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, turn = place
        pixels, (low, high) = self.pictures.read(index)
        crop = resized(torch.from_numpy(pixels), self.size)
        return {"index": index, "turn": turn, "low": low, "high": high, "crops": [crop[None]]}


def targets_of(batch: dict, targets: np.ndarray, device: torch.device) -> torch.Tensor:
    """targets (n,) of all items → (B,) int64 of those in the batch, on the device."""
    return torch.from_numpy(targets[batch["on_host"]["index"]]).to(device, non_blocking=True)
