import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.errors import DataError
from datasets.files import find_images
from datasets.loader import epoch_loader
from datasets.pictures import CropDataset, Pictures, collate_pictures

HOW = (2, 1), (24, 16), (0.2, 0.1), (1.0, 0.5)


@pytest.fixture
def images(tmp_path) -> Path:
    """Grey, coloured, of 16 bits, of floats, JPG, and a 32-bit one that turns out to need floats."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    grey = rng.integers(0, 255, (30, 26), np.uint8)
    Image.fromarray(grey).save(folder / "a.png")
    Image.fromarray(np.stack([grey, grey // 2, grey // 3], 2)).save(folder / "b.png")
    Image.fromarray(rng.integers(0, 60_000, (25, 31)).astype(np.uint16)).save(folder / "c.png")
    Image.fromarray(rng.normal(size=(28, 29)).astype(np.float32)).save(folder / "d.tif")
    Image.fromarray(grey).save(folder / "e.jpg")
    Image.fromarray(rng.integers(-70_000, 70_000, (27, 30)).astype(np.int32)).save(folder / "f.tif")
    return folder


def room_in(folder: Path, asked: list[int]):
    def room(size: int) -> Path:
        asked.append(size)
        path = folder / "store"
        path.write_bytes(bytes(size))
        return path

    return room


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("whole_range", [False, True])
def test_batches_are_those_without_a_store_in_every_epoch(images, tmp_path, workers, whole_range):
    plain, kept = (CropDataset(Pictures(find_images(images), whole_range=whole_range), 3, *HOW) for _ in range(2))
    kept.keep_decoded(room_in(tmp_path, []))
    loaders = [epoch_loader(dataset, collate_pictures, 3, 0, workers) for dataset in (plain, kept)]
    for epoch in range(3):
        for loader in loaders:
            loader.batch_sampler.set_epoch(epoch)
        for a, b in zip(*loaders, strict=True):
            for name in ("index", "turn", "low", "high"):
                assert torch.equal(a[name], b[name])
            for x, y in zip(a["crops"], b["crops"], strict=True):
                assert x.dtype == y.dtype and x.numpy().tobytes() == y.numpy().tobytes()


def test_a_picture_is_decoded_once_by_whichever_process_comes_first(images, tmp_path):
    dataset = CropDataset(Pictures(find_images(images)), 3, *HOW)
    dataset.keep_decoded(room_in(tmp_path, []))
    for _ in epoch_loader(dataset, collate_pictures, 3, 0, workers=2):
        pass
    other = pickle.loads(pickle.dumps(dataset))
    for path in images.iterdir():
        path.unlink()
    for index in range(5):
        assert other[index, 7]["crops"][0].shape == (2, 24, 24)
    with pytest.raises(DataError, match=r"f\.tif"):  # floats, where 16 bits were promised: decoded each time
        other[5, 7]


def test_a_bad_picture_is_told_when_it_is_read(images, tmp_path):
    (images / "a.png").write_bytes(b"nothing")
    dataset = CropDataset(Pictures(find_images(images)), 3, *HOW)
    dataset.keep_decoded(room_in(tmp_path, []))
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        dataset[0, 0]
    assert len(dataset[1, 0]["crops"]) == 2


def test_without_room_all_is_as_before(images):
    dataset = CropDataset(Pictures(find_images(images)), 3, *HOW)
    dataset.keep_decoded(lambda size: None)
    assert dataset.pictures.store is None and len(dataset[0, 0]["crops"]) == 2
