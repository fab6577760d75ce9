import numpy as np
import torch
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.draws import keys
from datasets.image_views import adjust_brightness, adjust_contrast, augment_crops, crop_box, gaussian_blur, multi_crop


@settings(max_examples=100, deadline=None)
@given(st.integers(8, 400), st.integers(8, 400), st.floats(0.05, 0.9), st.integers(0, 10**6))
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
