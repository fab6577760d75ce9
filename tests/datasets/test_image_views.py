import numpy as np
import pytest
import torch
import torchvision.transforms as transforms
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.draws import keys
from datasets.files import find_images
from datasets.image_views import adjust_brightness, adjust_contrast, augment_crops, crop_box, gaussian_blur, multi_crop
from datasets.pictures import Pictures, WholePictureDataset, collate_pictures
from datasets.views import picture_crops, plain_view


@settings(max_examples=100, deadline=None)
@given(st.integers(8, 400), st.integers(8, 400), st.floats(0.05, 0.5), st.integers(0, 10**6))  # above, ten tries may not fit
def test_boxes_lie_in_the_picture_with_area_and_aspect_in_range(height, width, scale, seed):
    draws = np.random.default_rng(seed).random(40)
    top, left, h, w = crop_box((height, width), scale, 1.0, draws)
    assert 0 <= top <= height - h and 0 <= left <= width - w and h > 0 and w > 0
    if min(height, width) > 100 and 0.6 < height / width < 1.6:
        assert 0.74 < w / h < 1.35 and h * w >= 0.95 * scale * height * width


def test_same_key_same_crops_in_the_type_of_the_picture():
    image = torch.randint(0, 60_000, (70, 50)).to(torch.uint16)
    crops = [multi_crop(image, keys(0, "crops", 1, i), (2, 3), (32, 16)) for i in (5, 5, 6)]
    assert [(tuple(c.shape), c.dtype) for c in crops[0]] == [((2, 32, 32), torch.uint16), ((3, 16, 16), torch.uint16)]
    same = [all(torch.equal(a.int(), b.int()) for a, b in zip(crops[0], other)) for other in crops[1:]]
    assert same == [True, False]
    assert not torch.equal(crops[0][0][0].int(), crops[0][0][1].int())


def test_a_crop_is_the_picture_cut_and_resized():
    image = torch.rand(64, 48)
    draws = np.tile([0.5, 0.5, 0.3, 0.6], 10)
    top, left, h, w = crop_box(image.shape, 0.4, 0.6, draws)
    assert abs(h * w / image.numel() - 0.5) < 0.02
    expected = reference.resized_crop(image[None], top, left, h, w, [20, 20], antialias=True)[0]
    import datasets.image_views as module

    original, module.uniform = module.uniform, lambda key, count: np.broadcast_to(draws, (*np.shape(key), count))
    try:
        crop = multi_crop(image, keys(0), (1,), (20,), (0.4,), (0.6,))[0][0]
    finally:
        module.uniform = original
    assert torch.allclose(crop, expected, atol=1e-6)


def test_brightness_and_contrast_are_torchvisions():
    pixels, factors = torch.rand(5, 12, 12), torch.tensor([0.2, 0.7, 1.0, 1.3, 1.8])
    for ours, theirs in [(adjust_brightness, reference.adjust_brightness), (adjust_contrast, reference.adjust_contrast)]:
        expected = torch.stack([theirs(p[None], f.item())[0] for p, f in zip(pixels, factors)])
        assert torch.allclose(ours(pixels, factors), expected, atol=1e-6)


def test_blur_is_torchvisions_with_a_wide_kernel():
    pixels, sigmas = torch.rand(3, 40, 40), torch.tensor([0.1, 0.9, 2.0])
    expected = torch.stack([reference.gaussian_blur(p[None], [17, 17], [s.item()] * 2)[0] for p, s in zip(pixels, sigmas)])
    assert torch.allclose(gaussian_blur(pixels, sigmas), expected, atol=1e-5)


def test_each_crop_is_augmented_by_its_own_key():
    crops, own = torch.rand(3, 2, 24, 24), keys(0, "colours", np.arange(3)[:, None], np.arange(2))
    together = augment_crops(crops, own)
    assert together.shape == crops.shape and not torch.equal(together, crops)
    for row in range(3):
        for crop in range(2):
            alone = augment_crops(crops[row : row + 1, crop : crop + 1], own[row : row + 1, crop : crop + 1])
            assert torch.allclose(alone[0, 0], together[row, crop], atol=1e-6)


def test_on_three_equal_channels_torchvisions_jitter_is_brightness_and_contrast_in_either_order():
    """Saturation, hue and greyscale leave grey pictures as they are, so that nothing of the distortion is left out here."""
    picture = torch.rand(1, 16, 16, dtype=torch.float64)
    colour = picture.expand(3, -1, -1)
    orders = set()
    for seed in range(24):
        torch.manual_seed(seed)
        jitter = transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)
        order, brightness, contrast, _, _ = jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        torch.manual_seed(seed)
        expected = transforms.RandomGrayscale(1.0)(jitter(colour))
        ours = picture
        for number in [int(step) for step in order if step < 2]:
            adjust, factor = [(adjust_brightness, brightness), (adjust_contrast, contrast)][number]
            ours = adjust(ours, torch.tensor([factor], dtype=torch.float64))
        orders.add(next(int(step) for step in order if step < 2))
        # torchvision's grey of three equal channels weighs them by 0.2989 + 0.587 + 0.114 = 0.9999
        assert torch.allclose(expected, ours.expand(3, -1, -1), atol=5e-4)
    assert orders == {0, 1}


def test_the_blur_of_small_crops_is_scaled_or_as_wide_as_that_of_large_ones():
    crops, own = torch.rand(40, 1, 56, 56), keys(0, "colours", np.arange(40)[:, None], np.arange(1))
    scaled, fixed = (augment_crops(crops, own, how) for how in ("scaled", "fixed"))
    detail = lambda x: (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))  # noqa: E731
    assert (detail(fixed) <= detail(scaled) + 1e-6).all() and (detail(fixed) < 0.9 * detail(scaled)).sum() > 8


@pytest.mark.parametrize("kind, top", [(np.uint8, 255), (np.uint16, 65535)])
def test_imagenets_normalisation_is_torchvisions_over_the_whole_range_of_the_type(tmp_path, kind, top):
    pixels = (np.random.default_rng(0).random((20, 20)) * top / 3).astype(kind)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    dataset = WholePictureDataset(Pictures(find_images(tmp_path), whole_range=True), (20, 20))
    batch = collate_pictures([dataset[0, 0]])
    ours = picture_crops(batch, 0, "imagenet", torch.float64, augment=False)[0]
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    expected = normalise(torch.from_numpy(pixels / top).expand(3, -1, -1))
    assert ours.shape == (1, 3, 20, 20) and torch.allclose(ours[0], expected, atol=1e-7)


def test_volumes_come_in_their_robust_range_and_three_channels():
    slices = torch.randint(-1000, 2000, (1, 4, 8, 8), dtype=torch.int16)
    batch = {
        "slices": slices,
        "low": torch.tensor([-900.0]),
        "high": torch.tensor([1900.0]),
        "on_host": {"count": np.array([3])},
    }
    pixels, real = plain_view(batch, "imagenet", torch.float32)
    grey, _ = plain_view(batch, "robust", torch.float32)
    assert pixels.shape == (1, 4, 3, 8, 8) and real.tolist() == [[True, True, True, False]]
    assert torch.allclose(pixels[:, :, 0], (grey * 0.226 + 0.449 - 0.485) / 0.229, atol=1e-5)
