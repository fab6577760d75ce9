"""What a run has seen, again: the files of its constants, and views of some of them by the very draws of a step.

`config` has a run's constants; before and after are grey pictures (h, w) uint8 of the range that the network sees as 0 to 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from .draws import keys, permutation
from .epochs import EndlessBatches, EpochBatches
from .errors import DataError
from .files import Item, find_images, find_pictures, find_volumes, spread, summary
from .image_views import crop_boxes
from .loader import make_loader
from .pictures import CropDataset, Pictures, WholePictureDataset, collate_pictures
from .views import picture_crops, two_views
from .volume_views import NAMES, choose_transforms
from .volumes import IMAGENET_DEVIATION, IMAGENET_MEAN, VolumeDataset, collate_volumes, intensities

CHOSEN, BATCH = 4, 32  # files of a step that are shown; whole pictures at a time


class Seen(NamedTuple):
    """A file of a step before augmentation and its views. boxes: of crops, shares of the picture (left, top, width, height)."""

    item: Item
    slice: int | None  # its number in the file, of a volume
    before: np.ndarray
    views: list[np.ndarray]
    captions: list[str]
    boxes: list[tuple[float, float, float, float]]


def files_of(stage: int, config, left_out: Sequence[str] = (), then: Sequence[dict] = ()) -> tuple[list[Item], list[Item]]:
    """The images and the volumes that a stage learned from. left_out: names of those that the run passed over.

    then: the `summary` of each of its loaders, as the run has kept them. Raises `DataError` when other files are there now.
    """
    if stage == 1:
        images, volumes = find_pictures(config.data_path, config.volume_path)
    else:
        images = find_images(config.image_path) if getattr(config, "image_path", "") else []
        volumes = find_volumes(config.data_path)
    images, volumes = ([item for item in items if item.name not in left_out] for items in (images, volumes))
    for kept, now in zip(then, [images + volumes] if stage == 1 else [volumes, images]):
        if kept["names"] != summary(now, "", 0)["names"]:
            files = sum(kept["collections"].values())
            raise DataError(f"the data have changed since the training (then {files} files, now {len(now)}).")
    return images, volumes


def seen_crops(stage: int, config, pictures: Pictures, epoch: int, batch_size: int, steps: int) -> list[Seen]:
    """Crops of some pictures of the first step of an epoch. steps: of an epoch of stage 3, whose pictures have no epochs."""
    if stage == 1:
        how = config.nmb_crops, config.size_crops, config.min_scale_crops, config.max_scale_crops
        batches = EpochBatches(len(pictures), batch_size, config.seed)
        blur = config.blur
    else:
        how = (2,), (min(config.target_shape[1:]),), (config.image_min_scale,), (1.0,)
        batches, blur = EndlessBatches(len(pictures), batch_size, steps, config.seed), "scaled"
    batches.set_epoch(epoch)
    seen = []
    for index, turn in _some(next(iter(batches)), lambda index: pictures.source(index)[0]):
        batch = collate_pictures([CropDataset(pictures, config.seed, *how)[index, turn]])
        crops = picture_crops(batch, config.seed, config.normalise, torch.float32, blur=blur)
        pixels, (low, high) = pictures.read(index)
        boxes = crop_boxes(pixels.shape, keys(config.seed, "crops", turn, index), how[0], *how[2:])
        boxes = [(x / pixels.shape[1], y / pixels.shape[0], w / pixels.shape[1], h / pixels.shape[0])
                 for of_size in boxes for y, x, h, w in of_size]  # fmt: skip
        before = _grey((torch.from_numpy(pixels.astype(np.float32)) - low) / max(high - low, 1e-12))
        views = [as_grey(crop[0], config.normalise) for crop in crops]
        captions = [f"crop {number + 1}" for number in range(len(views))]
        seen.append(Seen(*pictures.source(index), before, views, captions, boxes))
    return seen


def seen_views(config, items: list[Item], epoch: int, batch_size: int) -> list[Seen]:
    """Both views of some volumes of the first step of an epoch: the middle slice, and the same slice in the views.

    A run that keeps views (`cached_views`) has made them before its epochs; then the first two that it keeps are shown.
    """
    volumes = VolumeDataset(items, config.target_shape, config.seed, config.fit)
    batches = EpochBatches(len(volumes), batch_size, config.seed)
    batches.set_epoch(epoch)
    seen = []
    for index, turn in _some(next(iter(batches)), lambda index: items[index]):
        turn = 0 if getattr(config, "cached_views", 0) else turn
        batch = collate_volumes([volumes[index, turn]])
        plain = intensities(batch["slices"], batch["low"], batch["high"], config.normalise, torch.float32)[0]
        views = two_views(batch, config.seed, config.view_policy, config.normalise, torch.float32)
        chosen = choose_transforms(keys(config.seed, "transforms", [turn], [index]), config.view_policy)[:, 0]
        wanted = batch["on_host"]["positions"][0]
        middle = int(batch["on_host"]["count"][0]) // 2
        count = int(views.real[0].sum())
        places = [int((views.positions[view, :count] - wanted[middle]).abs().argmin()) for view in (0, 1)]
        shown = [as_grey(views.pixels[view, place], config.normalise) for view, place in enumerate(places)]
        captions = [f"view {'ab'[view]}: {_in_words(chosen[view])}" for view in (0, 1)]
        before = as_grey(plain[middle], "none") if config.normalise == "none" else _grey(plain[middle])
        seen.append(Seen(items[index], int(wanted[middle]), before, shown, captions, []))
    return seen


def some_pictures(pictures: Pictures, size: tuple[int, int], most: int, seed: int) -> tuple[DataLoader, list[int]]:
    """Batches of at most `most` whole pictures, fitted to `size`, and their numbers, in that order."""
    chosen = sorted(int(index) for index in permutation(keys(seed, "report"), len(pictures))[:most])
    batches = [[(index, -1) for index in chosen[first : first + BATCH]] for first in range(0, len(chosen), BATCH)]
    return make_loader(WholePictureDataset(pictures, size), batches, collate_pictures), chosen


def as_grey(pixels: torch.Tensor, normalise: str) -> np.ndarray:
    """Standardised pixels (h, w), or (c, h, w) of which the first is taken → (h, w) uint8. Raw ones: from lowest to highest."""
    pixels = pixels[0] if pixels.ndim == 3 else pixels
    if normalise == "none":
        return _grey((pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp_min(1e-12))
    mean, deviation = (IMAGENET_MEAN[0], IMAGENET_DEVIATION[0]) if normalise == "imagenet" else (0.449, 0.226)
    return _grey(pixels * deviation + mean)


def _some(batch: list[tuple[int, int]], item_of) -> list[tuple[int, int]]:
    """A few of a batch, of all collections and labels in turn."""
    by_item = {item_of(index): (index, turn) for index, turn in reversed(batch)}
    return [by_item[item] for item in spread(list(by_item), CHOSEN)]


def _grey(pixels: torch.Tensor) -> np.ndarray:
    return (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _in_words(chosen: np.ndarray) -> str:
    return ", ".join(name.replace("_", " ") for name, has in zip(NAMES, chosen) if has) or "as it is"
