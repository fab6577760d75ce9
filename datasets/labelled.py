"""The files with a label that a pre-training run scores its embeddings on, every epoch. Labels are used for nothing else."""

from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader

from .files import Item, find_images, find_volumes, hash_of, thinned, told_apart
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
    subjects: np.ndarray
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
    """(n,) bool: the items of split `valid`; where there is none, a quarter of the subjects, by hash of their name."""
    valid = np.array([item.split == "valid" for item in items], bool)
    return valid if valid.any() else np.array([hash_of(subject_of(item), "held out") < HELD_OUT_SHARE for item in items], bool)


def subject_of(item: Item) -> str:
    """The subject of a file; a file without one is a subject of its own."""
    return item.subject or item.name


def _chosen(items: list[Item], most: int) -> list[Item]:
    return thinned(told_apart(items), most)


def _labelled(items: list[Item], loader: DataLoader) -> Labelled | None:
    asked = held_out(items)
    if not asked.any() or asked.all():
        return None
    labels, collections = (np.array([getattr(item, name) for item in items]) for name in ("label", "collection"))
    subjects = np.array([subject_of(item) for item in items])
    return Labelled(loader, labels, collections, subjects, asked)
