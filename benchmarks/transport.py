"""Volumes from files to the main process by one worker: in the file's own type, against two float views of three channels.

The peer is how the published loader sends volumes; transforms are left out of both, so that reading and sending are measured.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import Case
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from datasets.files import find_images, find_volumes
from datasets.loader import once_loader
from datasets.pictures import CropDataset, Pictures
from datasets.volumes import VolumeDataset, collate_volumes

BATCH = 4


class PublishedVolumes(Dataset):
    """Two views (3, H, W, N) float32 of each volume (H, W, N)."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        volume = torch.from_numpy(np.load(self.paths[number]).astype(np.float32))
        return volume.expand(3, *volume.shape).clone(), volume.expand(3, *volume.shape).clone()


@functools.cache
def volumes(count: int, shape: tuple[int, int, int]) -> Path:
    """A folder of int16 volumes (H, W, N), as a CT is stored; it goes when Python ends."""
    folder = tempfile.TemporaryDirectory()
    (Path(folder.name) / "ct").mkdir()
    noise = np.random.default_rng(0).integers(-1000, 2000, shape, np.int16)
    for number in range(count):
        np.save(Path(folder.name) / "ct" / f"{number:04}.npy", np.roll(noise, number))
    kept.append(folder)
    return Path(folder.name)


kept: list[tempfile.TemporaryDirectory] = []


def cases(quick: bool):
    count, shape = (16, (64, 64, 16)) if quick else (80, (128, 128, 64))
    items = find_volumes(volumes(count, shape))
    ours = once_loader(VolumeDataset(items, (shape[2], *shape[:2]), 0), collate_volumes, BATCH, workers=1)
    peer = DataLoader(PublishedVolumes([item.path for item in items]), BATCH, num_workers=1)
    size = f"{count} volumes of {shape[2]} × {shape[0]} × {shape[1]}, int16"
    call, other = functools.partial(sum_of_sizes, ours), functools.partial(sum_of_sizes, peer)

    def fewer_bytes():
        ratio = other() / call()
        assert ratio >= 9, f"{ratio:.1f} times fewer bytes"

    promise = 5.0 * (not quick)
    yield Case(
        "loading, at least 9 × fewer bytes", size, call, other, "published loader", promise, fewer_bytes, count, "volume"
    )

    yield pictures(*(8, 128) if quick else (48, 1024))


def pictures(count: int, side: int) -> Case:
    """Crops of one epoch, all pictures decoded before, against decoding them each time; in this process."""
    folder = tempfile.TemporaryDirectory()
    kept.append(folder)
    rows, columns = np.mgrid[:side, :side]
    noise = np.random.default_rng(0).normal(0, 3, (side, side))
    for number in range(count):
        picture = 128 + 60 * np.sin(rows / (20 + number)) * np.cos(columns / 31) + noise
        Image.fromarray(picture.astype(np.uint8)).save(Path(folder.name) / f"{number:04}.png")
    how = (2, 6), (224, 96), (0.14, 0.05), (1.0, 0.14)
    ours, peer = (CropDataset(Pictures(find_images(folder.name)), 0, *how) for _ in range(2))

    def room(size: int) -> Path:
        path = Path(folder.name) / "store"
        path.write_bytes(bytes(size))
        return path

    ours.keep_decoded(room)

    def epoch(dataset: CropDataset) -> list[dict]:
        return [dataset[number, 0] for number in range(count)]

    def agree():
        for a, b in zip(epoch(ours), epoch(peer)):
            assert all(torch.equal(x, y) for x, y in zip(a["crops"], b["crops"]))

    size = f"{count} PNG of {side}², 2 crops of 224², 6 of 96²"
    call, other = functools.partial(epoch, ours), functools.partial(epoch, peer)
    return Case("crops of pictures decoded once", size, call, other, "decoding each time", 0.0, agree, count, "picture", True)


def sum_of_sizes(loader: DataLoader) -> int:
    """Bytes of all tensors of a pass."""
    total = 0
    for batch in loader:
        tensors = batch.values() if isinstance(batch, dict) else batch
        total += sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
    return total
