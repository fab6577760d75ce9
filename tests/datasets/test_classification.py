from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.classification import Shown, targets_of
from datasets.errors import DataError
from datasets.files import Item
from datasets.views import two_views

FLOAT = torch.float32


@pytest.fixture
def pictures(tmp_path):
    """Four of 20 x 30 pixels, left half dark."""
    items = []
    for number in range(4):
        pixels = np.full((20, 30), 40 + number, np.uint8)
        pixels[:, 15:] = 200
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        items.append(Item(tmp_path / f"{number}.png", f"{number}.png", "", "a"))
    return items


@pytest.fixture
def volumes(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", rng.integers(-1000, 600, (18, 16, 5 + number)).astype(np.int16))
    return [Item(tmp_path / f"{number}.npy", f"{number}.npy", "", "a") for number in range(3)]


def first(loader):
    loader.batch_sampler.set_epoch(0) if hasattr(loader.batch_sampler, "set_epoch") else None
    return next(iter(loader))


def test_a_whole_image_is_shown_with_nothing_cut_off_and_small_ones_are_enlarged(pictures):
    shown = Shown("images", (40, 40), "robust")
    (pixels,) = shown.plain(first(shown.judged_on(pictures, 4, 0)), FLOAT)
    assert pixels.shape == (4, 1, 40, 40)
    dark = pixels[:, 0] < pixels.mean()
    assert dark[:, :, :20].all() and not dark[:, :, 20:].any()


def test_an_image_that_is_learned_from_is_one_crop_that_differs_between_epochs(pictures):
    shown = Shown("images", (16, 16), "robust")
    loader = shown.learned_from(pictures, 4, 3, 0, 0, 1, 0.5)
    batches = []
    for epoch in (0, 1, 0):
        loader.batch_sampler.set_epoch(epoch)
        batch = next(iter(loader))
        order = np.argsort(batch["on_host"]["index"])
        batches.append(shown.augmented(batch, 3, "compose", FLOAT)[0][order])
    assert batches[0].shape == (4, 1, 16, 16)
    assert torch.equal(batches[0], batches[2]) and not torch.equal(batches[0], batches[1])


def test_a_view_of_volumes_is_the_first_of_two(volumes):
    shown = Shown("volumes", (8, 16, 16), "robust")
    batch = first(shown.learned_from(volumes, 3, 5, 0, 0, 1, 0.5))
    pixels, real = shown.augmented(batch, 5, "compose", FLOAT)
    both = two_views(batch, 5, "compose", "robust", FLOAT)
    assert torch.equal(pixels, both.pixels[:3]) and torch.equal(real, both.real[:3])
    assert sorted(real.sum(1).tolist()) == [5, 6, 7]


def test_a_window_is_black_and_white_of_all_files(volumes):
    shown = Shown("volumes", (8, 18, 16), "robust", window=(-1000.0, 400.0))
    batch = first(shown.judged_on(volumes, 3, 0))
    pixels, _ = shown.plain(batch, FLOAT)
    grey = pixels[0, :5] * 0.226 + 0.449
    wanted = (np.moveaxis(np.load(volumes[0].path), 2, 0).clip(-1000, 400) + 1000) / 1400
    np.testing.assert_allclose(grey, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "window, normalise, sentence",
    [((400.0, -1000.0), "robust", "give the values of black and of white"), ((1.0,), "robust", "--window is 1.0"),
     ((0.0, 1.0), "none", "no meaning with --normalise none")],
)  # fmt: skip
def test_a_window_that_means_nothing_is_refused(window, normalise, sentence):
    with pytest.raises(DataError, match=sentence):
        Shown("images", (8, 8), normalise, window=window)


def test_imagenet_intensities_have_three_channels(pictures):
    shown = Shown("images", (16, 16), "imagenet")
    assert shown.plain(first(shown.judged_on(pictures, 4, 0)), FLOAT)[0].shape == (4, 3, 16, 16)


def test_targets_are_found_by_the_index_of_an_item(pictures):
    shown = Shown("images", (16, 16), "robust")
    batch = first(shown.learned_from(pictures, 4, 3, 0, 0, 1, 0.5))
    found = targets_of(batch, np.array([5, 6, 7, 8]), torch.device("cpu"))
    assert found.tolist() == [5 + index for index in batch["index"].tolist()]


@pytest.mark.parametrize("what", ["images", "volumes"])
def test_files_with_other_labels_are_other_files_for_a_run_that_goes_on(pictures, volumes, what):
    items = pictures if what == "images" else volumes
    shown = Shown(what, (16, 16) if what == "images" else (4, 16, 16), "robust")
    relabelled = [*items[:-1], replace(items[-1], label="b")]
    names = [shown.learned_from(of, 2, 3, 0, 0, 1, 0.5).dataset.summary()["names"] for of in (items, items, relabelled)]
    assert names[0] == names[1] != names[2]
