"""What a detector sees of a picture: all of it or a keyed window, as a square; and boxes into that square and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .image_views import adjust_brightness, adjust_contrast


@dataclass(frozen=True)
class Placement:
    """Where a picture (height, width) lies in a square of `side` pixels: `shape`, its size there; top, left: of its corner.

    Where it is larger than the square, the corner lies outside, and what reaches out is not seen.
    """

    size: tuple[int, int]
    side: int
    shape: tuple[int, int]
    top: int
    left: int
    mirrored: bool = False

    def into(self, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (n, 4) of the picture → (boxes in the square, cut at its sides; (n,) bool: whether their middle is seen)."""
        moved = boxes * self._scale(boxes) + self._corner(boxes)
        if self.mirrored:
            moved = torch.stack([self.side - moved[:, 2], moved[:, 1], self.side - moved[:, 0], moved[:, 3]], dim=1)
        middle = (moved[:, :2] + moved[:, 2:]) / 2
        return moved.clamp(0, self.side), ((middle > 0) & (middle < self.side)).all(1)

    def back(self, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes (n, 4) of a square that is not mirrored → boxes in the pixels of the picture, cut at its sides."""
        moved = (boxes - self._corner(boxes)) / self._scale(boxes)
        height, width = self.size
        return moved.clamp(min=0).minimum(moved.new_tensor([width, height, width, height]))

    def _scale(self, like: torch.Tensor) -> torch.Tensor:
        down, along = self.shape[0] / self.size[0], self.shape[1] / self.size[1]
        return like.new_tensor([along, down, along, down])

    def _corner(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_tensor([self.left, self.top, self.left, self.top])


def placed(
    size: Sequence[int], side: int, draws: np.ndarray | None = None, scale_jitter: float = 0.0, flip: bool = False
) -> Placement:
    """How a picture of `size` (height, width) is shown in a square of `side` pixels.

    Without draws its longer side fills the square, and it lies in the middle. draws: four numbers in [0, 1) for the scale,
    1 ± scale_jitter times that, the place along both axes, and, with `flip`, whether it is mirrored.
    """
    scale, down, along, mirror = (0.5, 0.5, 0.5, 1.0) if draws is None else draws
    factor = side / max(size) * (1 + scale_jitter * (2 * scale - 1))
    shape = tuple(max(1, round(length * factor)) for length in size)
    top, left = (_corner(side - length, share) for length, share in zip(shape, (down, along)))
    return Placement(tuple(size), side, shape, top, left, flip and mirror < 0.5)


def _corner(spare: int, share: float) -> int:
    return int(share * (spare + 1)) if spare >= 0 else -int(share * (1 - spare))


def show(pixels: torch.Tensor, place: Placement) -> torch.Tensor:
    """(side, side) in the type of `pixels` (H, W): resized with what is finer than a pixel averaged, the rest its minimum."""
    wide = pixels[None, None].float()
    scaled = F.interpolate(wide, place.shape, mode="bilinear", antialias=True, align_corners=False)[0, 0]
    canvas = wide.new_full((place.side, place.side), wide.min())
    top, left = max(place.top, 0), max(place.left, 0)
    seen = scaled[max(-place.top, 0) :, max(-place.left, 0) :][: place.side - top, : place.side - left]
    canvas[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    canvas = canvas.flip(-1) if place.mirrored else canvas
    return canvas if pixels.is_floating_point() else canvas.round().to(pixels.dtype)


def change_intensities(pixels: torch.Tensor, draws: torch.Tensor, strength: float) -> torch.Tensor:
    """pixels (B, H, W) in [0, 1], draws (B, 2) in [0, 1) → brightness and contrast times 1 ± strength."""
    brightness, contrast = (1 + strength * (2 * draws - 1)).unbind(1)
    return adjust_contrast(adjust_brightness(pixels, brightness), contrast)
