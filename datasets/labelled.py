"""The files with a label that a pre-training run scores its embeddings on, every epoch. Labels are used for nothing else."""

from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader

from .files import Item, find_images, find_volumes, hash_of, subject_of, thinned, told_apart
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


def labelled_pictures(config, find) -> Labelled | None:
    """From a stage-1 configuration: labelled pictures, whole, as large as the first crops; None where nothing can be scored.

    find: the run's.
    """
    found = find(find_images, config.data_path, ("train", "valid", "")) if config.data_path else []
    items = thinned(told_apart(found), config.probed_files)
    pictures = Pictures(items, whole_range=config.normalise == "imagenet")
    dataset = WholePictureDataset(pictures, (config.size_crops[0], config.size_crops[0]))
    return _labelled(items, once_loader(dataset, collate_pictures, config.batch_size, config.workers))


def labelled_volumes(config, find) -> Labelled | None:
    """From a configuration of stage 2 or 3: labelled volumes, fitted at their centre; None where nothing can be scored.

    find: the run's.
    """
    items = thinned(told_apart(find(find_volumes, config.data_path)), config.probed_files)
    dataset = VolumeDataset(items, config.target_shape, config.seed, config.fit, centred=True)
    return _labelled(items, once_loader(dataset, collate_volumes, config.batch_size, config.workers))


def held_out(items: list[Item]) -> np.ndarray:
    """(n,) bool: the items of split `valid`; where there is none, a quarter of the subjects, by hash of their name."""
    valid = np.array([item.split == "valid" for item in items], bool)
    return valid if valid.any() else np.array([hash_of(subject_of(item), "held out") < HELD_OUT_SHARE for item in items], bool)


def _labelled(items: list[Item], loader: DataLoader) -> Labelled | None:
    asked = held_out(items)
    if not asked.any() or asked.all():
        return None
    labels, collections = (np.array([getattr(item, name) for item in items]) for name in ("label", "collection"))
    subjects = np.array([subject_of(item) for item in items])
    return Labelled(loader, labels, collections, subjects, asked)
