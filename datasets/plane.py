"""Slices of any size in a plane of one size, whole, and back."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .fit import shrink_plane


@dataclass(frozen=True)
class Placement:
    """Where a slice of `original` (H, W) lies in a plane of `size` (h, w): shrunk to `inner`, its corner at `corner`."""

    original: tuple[int, int]
    size: tuple[int, int]
    inner: tuple[int, int]
    corner: tuple[int, int]


def placement(original: tuple[int, int], size: tuple[int, int]) -> Placement:
    """In the middle, never enlarged, shrunk only as far as all of it needs, its aspect kept."""
    factor = max(1.0, *(of / fits for of, fits in zip(original, size)))
    inner = tuple(max(1, min(fits, round(of / factor))) for of, fits in zip(original, size))
    return Placement(tuple(original), tuple(size), inner, tuple((fits - of) // 2 for of, fits in zip(inner, size)))


def size_for(planes: list[tuple[int, int]], multiple: int, most: int) -> tuple[int, int]:
    """The least size, of multiples, in which all planes (H, W) lie as they are; sides of more than `most` are `most`."""
    largest = (max(plane[axis] for plane in planes) for axis in (0, 1))
    return tuple(min(most, -(-side // multiple) * multiple) for side in largest)


def placed(slices: torch.Tensor, place: Placement, fill: float) -> torch.Tensor:
    """(n, H, W) of any real type → (n, h, w), pixels averaged where they are shrunk, `fill` around them."""
    shrunk = slices if place.inner == place.original else shrink_plane(slices, place.inner)
    return _framed(shrunk, place, fill)


def placed_labels(labels: torch.Tensor, place: Placement) -> torch.Tensor:
    """(n, H, W) class numbers → (n, h, w), each pixel that of the middle of what it covers, 0 around them."""
    if place.inner != place.original:
        rows, columns = (
            ((torch.arange(inner) + 0.5) * (original / inner)).long() for inner, original in zip(place.inner, place.original)
        )
        labels = labels[:, rows[:, None], columns[None]]
    return _framed(labels, place, 0)


def taken_back(maps: torch.Tensor, place: Placement) -> torch.Tensor:
    """(n, K, h, w) floating → (n, K, H, W): what lay where the slice was, bilinear where it was shrunk."""
    (top, left), (height, width) = place.corner, place.inner
    inner = maps[..., top : top + height, left : left + width]
    return inner if place.inner == place.original else F.interpolate(inner, size=place.original, mode="bilinear")


def _framed(slices: torch.Tensor, place: Placement, fill: float) -> torch.Tensor:
    out = torch.full((len(slices), *place.size), fill, dtype=slices.dtype)
    (top, left), (height, width) = place.corner, place.inner
    out[:, top : top + height, left : left + width] = slices
    return out
