"""What a network sees of labelled slices in training: turned, scaled, shifted with their labels, with other intensities."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from .draws import generator, keys, uniform
from .volumes import intensities, standardise

TURN = math.radians(20)  # at most, to either side
SCALES = (0.75, 1.33)  # drawn evenly in their logarithm
SHIFT = 0.1  # of the plane, at most, to either side
LOG_GAMMAS, CONTRASTS, BRIGHTNESS, NOISE = (-0.4, 0.4), (0.75, 1.25), (-0.1, 0.1), 0.05
CHANCE = 0.5  # of gamma, contrast and brightness, noise; each


def labelled_view(
    batch: dict, seed: int, normalise: str, dtype: torch.dtype, crop: tuple[int, int] | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch of `collate_scattered` → standardised pixels (B, N, h, w), labels (B, N, h, w) uint8, real (B, N) on the host.

    All slices of an item are moved alike; what comes in from beyond the plane is dark, and background. crop: (h, w) of the
    part of the plane that is seen, anywhere in it; None = all of it. Draws are keyed by (seed, pass, index).
    """
    pixels = intensities(batch["slices"], batch["low"], batch["high"], normalise, dtype)
    drawn_by = keys(seed, "labelled view", batch["on_host"]["turn"], batch["on_host"]["index"])
    draws = uniform(drawn_by, 13)
    grid = _grid(draws, pixels.shape[2:], crop or pixels.shape[2:], pixels)
    darkest = pixels.amin((1, 2, 3), keepdim=True)
    pixels = F.grid_sample(pixels - darkest, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + darkest
    labels = F.grid_sample(batch["labels"].to(dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    if normalise != "none":
        pixels = _other_intensities(pixels, draws, drawn_by)
    real = torch.arange(pixels.shape[1]) < torch.from_numpy(batch["on_host"]["count"])[:, None]
    return _standardised(pixels, batch, normalise), labels.to(torch.uint8), real


def whole_view(batch: dict, normalise: str, dtype: torch.dtype) -> torch.Tensor:
    """A case of `collate_whole` → its standardised pixels, (C, h, w) or ("imagenet") (C, 3, h, w)."""
    return _standardised(intensities(batch["slices"], batch["low"], batch["high"], normalise, dtype), batch, normalise)[0]


def _standardised(pixels: torch.Tensor, batch: dict, normalise: str) -> torch.Tensor:
    """(B, N, h, w) in [0, 1] brought to zero mean and unit deviation: of each volume (`normalise` = volume), or fixed ones."""
    if normalise != "volume":
        return standardise(pixels, normalise)
    mean, deviation = (batch[name].to(pixels.dtype)[:, None, None, None] for name in ("mean", "deviation"))
    return (pixels - mean) / deviation


def _grid(draws: np.ndarray, plane: tuple[int, int], crop: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """(B, *crop, 2): where in the plane each pixel is taken from; turned in pixels, which need not be a square of them."""
    turn = (2 * draws[:, 0] - 1) * TURN
    low, high = np.log(SCALES)
    scale = np.exp(low + draws[:, 1] * (high - low))
    (height, width), (rows, columns) = plane, crop
    room = np.array([1 - columns / width, 1 - rows / height])
    shift = (2 * draws[:, 2:4] - 1) * 2 * SHIFT + (2 * draws[:, 11:13] - 1) * room
    cosine, sine = np.cos(turn) / scale, np.sin(turn) / scale
    matrix = np.stack(
        [
            cosine * columns / width, -sine * rows / width, shift[:, 0],
            sine * columns / height, cosine * rows / height, shift[:, 1],
        ], axis=1,
    ).reshape(-1, 2, 3)  # fmt: skip
    theta = torch.from_numpy(matrix).to(like.dtype).to(like.device, non_blocking=True)
    return F.affine_grid(theta, [len(draws), 1, rows, columns], align_corners=False)


def _other_intensities(pixels: torch.Tensor, draws: np.ndarray, drawn_by: np.ndarray) -> torch.Tensor:
    """Values in [0, 1] after gamma, contrast and brightness, noise."""

    def drawn(column: int, low: float, high: float, without: float, happens: int) -> torch.Tensor:
        values = np.where(draws[:, happens] < CHANCE, low + draws[:, column] * (high - low), without)
        return torch.from_numpy(values).to(pixels.dtype).to(pixels.device, non_blocking=True)[:, None, None, None]

    pixels = pixels.clamp(0, 1) ** drawn(4, *LOG_GAMMAS, 0.0, happens=5).exp()
    middle = pixels.mean((1, 2, 3), keepdim=True)
    pixels = (pixels - middle) * drawn(6, *CONTRASTS, 1.0, happens=7) + middle + drawn(8, *BRIGHTNESS, 0.0, happens=7)
    deviations = drawn(9, 0.0, NOISE, 0.0, happens=10)
    noise = torch.stack([torch.randn(of.shape, generator=generator(key, of.device), device=of.device, dtype=of.dtype)
                         for of, key in zip(pixels, keys(drawn_by.view(np.int64), "noise"))])  # fmt: skip
    return pixels + deviations * noise
