"""Whole files for evaluation: each once, in order, fitted at its centre, not augmented; and what a network sees of them."""

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from .files import Item
from .loader import once_loader
from .pictures import Pictures, WholePictureDataset, collate_pictures
from .views import picture_crops, plain_view
from .volumes import VolumeDataset, collate_volumes


def whole_files(kind: str, items: list[Item], config) -> DataLoader:
    """Batches of `items`. kind: "images" or "volumes".

    config: target_shape (slices, height, width), fit, normalise, seed, batch_size, workers.
    """
    if kind == "images":
        pictures = Pictures(items, whole_range=config.normalise == "imagenet")
        dataset, collate = WholePictureDataset(pictures, config.target_shape[1:]), collate_pictures
    else:
        dataset, collate = VolumeDataset(items, config.target_shape, config.seed, config.fit, centred=True), collate_volumes
    return once_loader(dataset, collate, config.batch_size, config.workers)


def network_input(kind: str, batch: dict, normalise: str) -> tuple[torch.Tensor, ...]:
    """Of a batch of `whole_files`: images (B, 1, H, W); or pixels (B, N, H, W) and, on the host, real slices (B, N).

    float32, standardised; "imagenet" gives three channels.
    """
    if kind == "images":
        return (picture_crops(batch, 0, normalise, torch.float32, augment=False)[0],)
    return plain_view(batch, normalise, torch.float32)


def coarse_pixels(kind: str, batch: dict, normalise: str) -> torch.Tensor:
    """(B, 16 · 16) or (B, 8 · 16 · 16): the files themselves, averaged down to a small grid, standardised one by one."""
    given = network_input(kind, batch, normalise.replace("imagenet", "robust"))  # one channel says it all
    if kind == "images":
        flat = F.interpolate(given[0], size=(16, 16), mode="area").flatten(1)
    else:
        flat = torch.cat([F.adaptive_avg_pool3d(volume[real][None], (8, 16, 16)).flatten(1) for volume, real in zip(*given)])
    return (flat - flat.mean(1, keepdim=True)) / (flat.std(1, correction=0, keepdim=True) + 1e-6)
