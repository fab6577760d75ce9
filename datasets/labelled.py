"""The files with a label that a pre-training run scores its embeddings on, every epoch. Labels are used for nothing else."""

from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader

from .draws import keys, uniform
from .files import Item, find_images, find_volumes
from .loader import once_loader
from .pictures import Pictures, WholePictureDataset, collate_pictures
from .volumes import VolumeDataset, collate_volumes

HELD_OUT_SHARE = 0.25


@dataclass
class Labelled:
    """Labelled files, in the order of `loader`; the held-out ones are asked, the others answer. Arrays (n,)."""

    loader: DataLoader
    labels: np.ndarray
    collections: np.ndarray
    held_out: np.ndarray  # bool


def labelled_pictures(root: str, size: int, most: int, batch_size: int, workers: int) -> Labelled | None:
    """At most `most` labelled pictures below `root`, whole, of `size` × `size` pixels; None where nothing can be scored."""
    items = _chosen(find_images(root, ("train", "valid", "")), most) if root else []
    dataset = WholePictureDataset(Pictures(items), (size, size))
    return _labelled(items, once_loader(dataset, collate_pictures, batch_size, workers))


def labelled_volumes(
    root: str, target_shape: tuple[int, int, int], fit: str, most: int, batch_size: int, workers: int
) -> Labelled | None:
    """At most `most` labelled volumes below `root`, fitted at their centre; None where nothing can be scored."""
    items = _chosen(find_volumes(root), most)
    dataset = VolumeDataset(items, target_shape, 0, fit, centred=True)
    return _labelled(items, once_loader(dataset, collate_volumes, batch_size, workers))


def held_out(items: list[Item]) -> np.ndarray:
    """(n,) bool: the items of split `valid`; where no item has a split, a quarter of the subjects, by hash of their name."""
    if any(item.split for item in items):
        return np.array([item.split == "valid" for item in items], bool)
    return np.array([_draw(item.subject or item.name) < HELD_OUT_SHARE for item in items], bool)


def _chosen(items: list[Item], most: int) -> list[Item]:
    known = [item for item in items if item.label]
    return sorted(sorted(known, key=lambda item: _draw(item.name))[:most], key=lambda item: item.name)


def _draw(name: str) -> float:
    return float(uniform(keys("held out", name), 1)[0])


def _labelled(items: list[Item], loader: DataLoader) -> Labelled | None:
    asked = held_out(items)
    if not asked.any() or asked.all():
        return None
    labels, collections = (np.array([getattr(item, name) for item in items]) for name in ("label", "collection"))
    return Labelled(loader, labels, collections, asked)
