"""What is shown of a step is what the step was made of."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.files import find_images, find_volumes
from datasets.image_views import crop_boxes, multi_crop, resized
from datasets.loader import endless_loader, epoch_loader
from datasets.pictures import CropDataset, Pictures, collate_pictures
from datasets.seen import as_grey, files_of, seen_crops, seen_views
from datasets.views import picture_crops, two_views
from datasets.volumes import VolumeDataset, collate_volumes

CROPS = {"nmb_crops": (2, 1), "size_crops": (16, 8), "min_scale_crops": (0.3, 0.1), "max_scale_crops": (1.0, 0.3)}
VOLUMES = {
    "target_shape": (6, 16, 16),
    "fit": "shrink",
    "view_policy": "compose",
    "normalise": "robust",
    "image_min_scale": 0.3,
}


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(8):
        for kind in ("images", "volumes"):
            (tmp_path / kind / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24), np.uint8)).save(tmp_path / f"images/{'ab'[number % 2]}/{number}.png")
        np.save(tmp_path / f"volumes/{'ab'[number % 2]}/{number}.npy", rng.normal(size=(20, 18, 5 + number)))
    return tmp_path


@pytest.mark.parametrize("stage", [1, 3])
def test_crops_are_those_of_the_step(root, stage):
    pictures, config = Pictures(find_images(root / "images")), SimpleNamespace(seed=3, normalise="robust", blur="scaled")
    vars(config).update(CROPS if stage == 1 else VOLUMES)
    if stage == 1:
        loader = epoch_loader(CropDataset(pictures, 3, *CROPS.values()), collate_pictures, 4, 3, 0)
        loader.batch_sampler.set_epoch(2)
    else:
        loader = endless_loader(CropDataset(pictures, 3, (2,), (16,), (0.3,), (1.0,)), collate_pictures, 4, 5, 3, 0)
        loader.batch_sampler.set_epoch(2)
    batch = next(iter(loader))
    wanted = picture_crops(batch, 3, "robust", torch.float32)
    seen = seen_crops(stage, config, pictures, 2, 4, 5)
    assert len(seen) == 4
    for of in seen:
        row = [pictures.images[index].name for index in batch["index"]].index(of.item.name)
        assert len(of.views) == len(wanted) == len(of.boxes)
        for view, crops in zip(of.views, wanted):
            assert (view == as_grey(crops[row, 0], "robust")).all()


def test_views_of_volumes_are_those_of_the_step_at_the_same_place(root):
    items, config = find_volumes(root / "volumes"), SimpleNamespace(seed=3, **VOLUMES)
    loader = epoch_loader(VolumeDataset(items, (6, 16, 16), 3), collate_volumes, 4, 3, 0)
    loader.batch_sampler.set_epoch(1)
    batch = next(iter(loader))
    views = two_views(batch, 3, "compose", "robust", torch.float32)
    for of in seen_views(config, items, 1, 4):
        row = [items[index].name for index in batch["index"]].index(of.item.name)
        for view, pixels in enumerate(of.views):
            place = (views.positions[4 * view + row] - of.slice).abs().masked_fill(~views.real[4 * view + row], 99).argmin()
            wanted = as_grey(views.pixels[4 * view + row, place], "robust")
            assert np.abs(pixels.astype(int) - wanted).max() <= 1  # a batch of one is summed in another order
            assert abs(float(views.positions[4 * view + row, place]) - of.slice) <= 1


def test_boxes_are_where_crops_are_cut():
    image, key = torch.arange(600.0).view(20, 30), np.array(5, np.uint64)
    crops = multi_crop(image, key, *CROPS.values())
    boxes = crop_boxes(image.shape, key, CROPS["nmb_crops"], CROPS["min_scale_crops"], CROPS["max_scale_crops"])
    for side, of_size, crops_of_size in zip((16, 8), boxes, crops):
        for (top, left, height, width), crop in zip(of_size, crops_of_size):
            assert torch.equal(crop, resized(image[top : top + height, left : left + width], (side, side)))


def test_files_that_a_run_left_out_are_left_out(root):
    config = SimpleNamespace(data_path=str(root / "volumes"), image_path=str(root / "images"))
    images, volumes = files_of(3, config, ["a/0.png", "b/1.npy"])
    assert (len(images), len(volumes)) == (7, 7)
    config = SimpleNamespace(data_path="", volume_path=str(root / "volumes"))
    assert [len(found) for found in files_of(1, config)] == [0, 8]


@pytest.mark.parametrize("normalise", ["robust", "imagenet", "none"])
def test_grey_undoes_what_the_network_is_given(normalise):
    from datasets.volumes import standardise

    grey = torch.linspace(0, 1, 16).view(4, 4)
    assert (as_grey(standardise(grey, normalise), normalise) == (grey * 255).round().numpy()).all()
