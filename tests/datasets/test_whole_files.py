from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from datasets.files import find_images, find_volumes
from datasets.whole_files import coarse_pixels, network_input, whole_files


def config(batch_size, normalise="robust"):
    shape = {"target_shape": (8, 32, 32), "fit": "shrink", "seed": 0}
    return SimpleNamespace(**shape, normalise=normalise, batch_size=batch_size, workers=0)


@pytest.fixture
def items(tmp_path):
    """Files as large as what is seen of them, of whole ranges, so that nothing but the mean and deviation changes."""
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (32, 32, 8 if number else 5)).astype(np.uint8)
        np.save(tmp_path / f"{number}.npy", pixels)
        Image.fromarray(pixels[:, :, 0]).save(tmp_path / f"{number}.png")
    return {"images": find_images(tmp_path), "volumes": find_volumes(tmp_path)}


def standardised(blocks):
    flat = blocks.reshape(-1).astype(np.float64)
    return (flat - flat.mean()) / flat.std()


def test_coarse_pixels_are_means_of_blocks_of_the_file(items):
    for normalise in ("none", "imagenet"):
        batch = next(iter(whole_files("images", items["images"], config(5, normalise))))
        pixels = np.asarray(Image.open(items["images"][3].path), np.float64)
        expected = standardised(pixels.reshape(16, 2, 16, 2).mean((1, 3)))
        assert coarse_pixels("images", batch, normalise)[3].numpy() == pytest.approx(expected, abs=0.02)
    batch = next(iter(whole_files("volumes", items["volumes"], config(5, "none"))))
    voxels = np.load(items["volumes"][3].path).transpose(2, 0, 1).astype(np.float64)
    expected = standardised(voxels.reshape(8, 16, 2, 16, 2).mean((2, 4)))
    assert coarse_pixels("volumes", batch, "none")[3].numpy() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", ["images", "volumes"])
def test_a_file_looks_the_same_alone_and_in_a_batch(items, kind):
    together = next(iter(whole_files(kind, items[kind], config(5))))
    for number, alone in enumerate(whole_files(kind, items[kind], config(1))):
        one, many = coarse_pixels(kind, alone, "robust")[0], coarse_pixels(kind, together, "robust")[number]
        assert one.numpy() == pytest.approx(many.numpy(), abs=1e-5)
        given = network_input(kind, alone, "robust")[0]
        assert np.array_equal(given[0], network_input(kind, together, "robust")[0][number, : given.shape[1]])
