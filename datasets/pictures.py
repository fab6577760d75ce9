"""Pictures from image files and from slices of volumes, as one list; and what the loader makes of them."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from .draws import keys
from .files import Item, summary
from .fit import compact, fit_volume, robust_range
from .image_views import multi_crop
from .picture_store import PictureStore
from .reading import (
    held_by_memory,
    open_volume,
    read_image,
    refuse_constant,
    refuse_nonfinite,
    refuse_other_depth,
    volume_shape,
)
from .volumes import on_host, widest_type

TYPE_RANGES = {np.dtype(np.uint8): (0.0, 255.0), np.dtype(np.uint16): (0.0, 65535.0)}


class Pictures:
    """Images first, then every slice of every volume: picture i is the i-th of that row, on every rank and in every run.

    whole_range: images of 8 and 16 bits come with the range of their type, instead of the robust one that all else has.
    """

    def __init__(self, images: list[Item], volumes: list[Item] = (), whole_range: bool = False):
        self.images, self.volumes, self.whole_range = list(images), list(volumes), whole_range
        self.store: PictureStore | None = None  # of decoded images
        self.depths = [volume_shape(item.path)[2] for item in self.volumes]
        self.first_slices = len(self.images) + np.concatenate([[0], np.cumsum(self.depths, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self.first_slices[-1])

    def read(self, index: int) -> tuple[np.ndarray, tuple[float, float]]:
        """(H, W) pixels in a compact type, and their intensity range (that of the whole volume for a slice)."""
        if index < len(self.images):
            return (self.store and self.store.read(index)) or self._decode(index)
        volume, number = self._slice(index)
        path = self.volumes[volume].path
        refuse_other_depth(path, _opened(path), self.depths[volume])
        with held_by_memory(path):
            pixels = _own(_opened(path)[:, :, number])
            refuse_nonfinite(path, pixels, *_range_of(path))
        return pixels, _range_of(path)

    def name_of(self, index: int) -> str:
        """The file, and the slice of it, that a picture is read from."""
        if index < len(self.images):
            return str(self.images[index].path)
        volume, number = self._slice(index)
        return f"{self.volumes[volume].path} (slice {number})"

    def source(self, index: int) -> tuple[Item, int | None]:
        """The file that a picture is read from, and which slice of it: None for an image."""
        if index < len(self.images):
            return self.images[index], None
        volume, number = self._slice(index)
        return self.volumes[volume], number

    def _slice(self, index: int) -> tuple[int, int]:
        """The number of the volume, and of the slice in it."""
        volume = int(np.searchsorted(self.first_slices, index, side="right")) - 1
        return volume, index - int(self.first_slices[volume])

    def _decode(self, index: int) -> tuple[np.ndarray, tuple[float, float]]:
        pixels = _own(read_image(self.images[index].path))
        refuse_nonfinite(self.images[index].path, pixels)
        whole = TYPE_RANGES.get(pixels.dtype) if self.whole_range else None
        intensities = whole or robust_range(pixels)
        if self.store:
            self.store.write(index, pixels, intensities)
        return pixels, intensities


def _own(pixels: np.ndarray) -> np.ndarray:
    return np.require(compact(np.asarray(pixels)), requirements=["C", "W"])


@functools.lru_cache(maxsize=4)
def _opened(path: Path) -> np.ndarray:
    return open_volume(path)


@functools.lru_cache(maxsize=100_000)
def _range_of(path: Path) -> tuple[float, float]:
    volume = _opened(path)
    stride = max(1, round((volume.size / 65536) ** (1 / 3)))
    part = compact(np.ascontiguousarray(volume[::stride, ::stride, ::stride]))
    refuse_constant(path, part, volume)
    return robust_range(part)


class CropDataset(Dataset):
    """Multi-crops by (index, turn): nmb_crops[i] crops of size_crops[i] pixels, each of a keyed part of the picture."""

    def __init__(self, pictures: Pictures, seed: int, nmb_crops, size_crops, min_scale_crops, max_scale_crops):
        self.pictures, self.seed = pictures, seed
        self.how = (tuple(nmb_crops), tuple(size_crops), tuple(min_scale_crops), tuple(max_scale_crops))

    def __len__(self) -> int:
        return len(self.pictures)

    def summary(self) -> dict:
        return summary(self.pictures.images + self.pictures.volumes, "pictures", len(self), self.pictures.depths)

    def name_of(self, index: int) -> str:
        return self.pictures.name_of(index)

    def keep_decoded(self, room) -> None:
        """Decodes every image once. room: bytes → a file of that size for all processes of this machine, or None."""
        if self.pictures.images:
            store = PictureStore([item.path for item in self.pictures.images])
            path = room(store.size)
            if path:
                store.open(path)
                self.pictures.store = store

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, turn = place
        pixels, (low, high) = self.pictures.read(index)
        crops = multi_crop(torch.from_numpy(pixels), keys(self.seed, "crops", turn, index), *self.how)
        return {"index": index, "turn": turn, "low": low, "high": high, "crops": crops}


class WholePictureDataset(Dataset):
    """Whole pictures by (index, turn), fitted to `size` (H, W) at their centre, for evaluation."""

    def __init__(self, pictures: Pictures, size: tuple[int, int]):
        self.pictures, self.size = pictures, size

    def __len__(self) -> int:
        return len(self.pictures)

    def name_of(self, index: int) -> str:
        return self.pictures.name_of(index)

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, turn = place
        pixels, (low, high) = self.pictures.read(index)
        fitted = fit_volume(pixels[:, :, None], (1, *self.size), None)
        return {"index": index, "turn": turn, "low": low, "high": high, "crops": [fitted.slices]}


def collate_pictures(samples: list[dict]) -> dict:
    """A batch of B pictures: crops, a list with (B, n, s, s) for each resolution; low, high, index, turn (B,), `on_host`."""
    batch: dict = {name: torch.tensor([sample[name] for sample in samples]) for name in ("index", "turn")}
    batch["on_host"] = on_host(batch)
    batch |= {name: torch.tensor([s[name] for s in samples], dtype=torch.float32) for name in ("low", "high")}
    columns = list(zip(*(sample["crops"] for sample in samples)))
    batch["crops"] = [torch.stack([c.to(widest_type([c.dtype for c in column])) for c in column]) for column in columns]
    return batch
