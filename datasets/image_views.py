"""Multi-crop views of grey pictures, as in SwAV (Caron et al. 2020): crops in the loader, colours on the device."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .draws import keys, uniform

# VISSL's colour distortion of strength 1, of which brightness and contrast act on grey pictures
JITTER_CHANCE, JITTER_STRENGTH = 0.8, 0.8
BLUR_CHANCE, BLUR_SIGMAS, BLUR_SIZE = 0.5, (0.1, 2.0), 224
ASPECTS, TRIES = (3 / 4, 4 / 3), 10


def multi_crop(
    image: torch.Tensor,
    key: np.ndarray,
    nmb_crops: Sequence[int] = (2, 6),
    size_crops: Sequence[int] = (224, 96),
    min_scale_crops: Sequence[float] = (0.14, 0.05),
    max_scale_crops: Sequence[float] = (1.0, 0.14),
) -> list[torch.Tensor]:
    """Crops (n, s, s) for each of the sizes, in the type of the image (H, W): keyed boxes, brought to s × s pixels."""
    boxes = crop_boxes(image.shape, key, nmb_crops, min_scale_crops, max_scale_crops)
    return [
        torch.stack([resized(image[top : top + h, left : left + w], (side, side)) for top, left, h, w in of_size])
        for side, of_size in zip(size_crops, boxes)
    ]


def crop_boxes(
    shape: Sequence[int],
    key: np.ndarray,
    nmb_crops: Sequence[int],
    min_scale_crops: Sequence[float],
    max_scale_crops: Sequence[float],
) -> list[list[tuple[int, int, int, int]]]:
    """For each of the sizes of `multi_crop` its boxes in a picture of `shape`: (top, left, height, width)."""
    boxes = []
    for size, count in enumerate(nmb_crops):
        draws = uniform(keys(key.view(np.int64), "box", size, np.arange(count)), 4 * TRIES)
        boxes.append([crop_box(shape, min_scale_crops[size], max_scale_crops[size], d) for d in draws])
    return boxes


def resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(H, W) → `size`, linearly and without aliasing, in the type of the image."""
    pixels = F.interpolate(image[None, None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0, 0]
    return pixels if image.is_floating_point() else pixels.round().to(image.dtype)


def crop_box(shape: Sequence[int], min_scale: float, max_scale: float, draws: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random resized crop, by torchvision's rule, from 4 draws a try.

    A share of the area within the scales and a log-uniform aspect; after ten that do not fit, the largest middle that does.
    """
    height, width = shape
    low, high = (math.log(aspect) for aspect in ASPECTS)
    for area, aspect, down, right in draws.reshape(TRIES, 4):
        area = height * width * (min_scale + area * (max_scale - min_scale))
        aspect = math.exp(low + aspect * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    w = min(width, round(height * ASPECTS[1]))
    h = min(height, round(width / ASPECTS[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def augment_crops(crops: torch.Tensor, crop_keys: np.ndarray, blur_radius: str = "scaled", mirror: bool = True) -> torch.Tensor:
    """crops (B, n, s, s) in [0, 1], keys (B, n) uint64 → mirrored, brighter or darker, blurred: each by its own key.

    blur_radius: "scaled" with the crop's size from 224 pixels, or "fixed" in pixels. mirror: half of them, or none.
    """
    draws = torch.from_numpy(uniform(crop_keys.reshape(-1), 7)).to(crops.dtype).to(crops.device, non_blocking=True)
    flip, jitter, brightness, contrast, order, blur, sigma = draws.unbind(1)
    pixels = crops.flatten(0, 1)
    if mirror:
        pixels = torch.where((flip < 0.5)[:, None, None], pixels.flip(-1), pixels)
    pixels = torch.where(
        (jitter < JITTER_CHANCE)[:, None, None], _jitter(pixels, _factor(brightness), _factor(contrast), order < 0.5), pixels
    )
    low, high = BLUR_SIGMAS
    scale = crops.shape[-1] / BLUR_SIZE if blur_radius == "scaled" else 1.0
    blurred = gaussian_blur(pixels, (low + sigma * (high - low)) * scale)
    return torch.where((blur < BLUR_CHANCE)[:, None, None], blurred, pixels).view_as(crops)


def adjust_brightness(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """pixels (n, s, s) in [0, 1] times factors (n,), clamped, as torchvision does."""
    return (pixels * factors[:, None, None]).clamp(0, 1)


def adjust_contrast(pixels: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """pixels (n, s, s) moved from their mean by factors (n,), clamped, as torchvision does."""
    mean = pixels.mean((1, 2), keepdim=True)
    return (mean + factors[:, None, None] * (pixels - mean)).clamp(0, 1)


def gaussian_blur(pixels: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """pixels (n, s, s) blurred by sigmas (n,) pixels, each row and column by a band matrix; the border is mirrored."""
    bands = blur_bands(pixels.shape[-1], sigmas)
    return bands @ pixels @ bands.transpose(1, 2)


def blur_bands(side: int, sigmas: torch.Tensor) -> torch.Tensor:
    """(n, side, side) matrices that blur a vector by sigmas (n,), mirrored at its ends (the end item not repeated)."""
    reach = min(side - 1, math.ceil(4 * BLUR_SIGMAS[1]))
    offsets = torch.arange(-reach, reach + 1, device=sigmas.device)
    weights = torch.exp(-0.5 * (offsets / sigmas.clamp(min=1e-3)[:, None]) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    place = torch.arange(side, device=sigmas.device)[:, None] + offsets
    place = (side - 1 - (side - 1 - place.abs()).abs()).expand(len(sigmas), -1, -1)
    bands = torch.zeros(len(sigmas), side, side, dtype=sigmas.dtype, device=sigmas.device)
    return bands.scatter_add_(2, place, weights[:, None].expand_as(place))


def _factor(draws: torch.Tensor) -> torch.Tensor:
    return 1 + JITTER_STRENGTH * (2 * draws - 1)


def _jitter(pixels: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    one = adjust_contrast(adjust_brightness(pixels, brightness), contrast)
    other = adjust_brightness(adjust_contrast(pixels, contrast), brightness)
    return torch.where(first[:, None, None], one, other)
