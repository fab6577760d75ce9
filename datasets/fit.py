"""Fitting a volume of any size to the shape that the network sees: shrink or pad in the plane, sample or pad the slices."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


@dataclass
class Fitted:
    """A volume as the network takes it, still in a compact type.

    slices: (n, H, W), n real slices; positions: (n,) float32, their source slice numbers; step: source slices from one to the
    next; low, high: the robust intensity range; shrink: source pixels a pixel.
    """

    slices: torch.Tensor
    positions: np.ndarray
    step: float
    low: float
    high: float
    shrink: float


def fit_volume(volume: np.ndarray, target_shape: tuple[int, int, int], draws: np.ndarray | None, fit: str = "shrink") -> Fitted:
    """Fits `volume` (H, W, C) to at most N slices of H x W pixels, `target_shape` being (N, H, W).

    `shrink`: a larger plane is averaged down, its aspect kept, until the shorter side fits, then cut; a smaller one is padded
    with its minimum. A volume of at least twice N slices is sampled over its whole length, else cut. `crop`, as published: cut
    or padded with zeros about the middle on all three axes, so that padding makes slices like others (TorchIO's CropOrPad).
    `draws`: four numbers in [0, 1) that place slices, rows, columns; None = the centre.
    """
    place = (0.5, 0.5, 0.5) if draws is None or fit == "crop" else tuple(draws[:3])
    positions, step = slice_positions(volume.shape[2], target_shape[0], place[0], sample=fit == "shrink")
    picked = _pick(volume, positions)
    low, high = robust_range(picked)
    plane, shrink = _fit_plane(picked, target_shape[1:], place[1:], fit == "shrink")
    if fit == "crop":
        missing = target_shape[0] - len(plane)
        before = (missing + 1) // 2
        plane = _pad(plane, 0, before, missing - before, fill=0)
        positions = np.arange(target_shape[0]) + positions[0] - before
    return Fitted(plane, positions.astype(np.float32), step, low, high, shrink)


def slice_positions(count: int, wanted: int, place: float, sample: bool = True) -> tuple[np.ndarray, float]:
    """((n,) slice numbers, their distance): all of `count` slices, a cut of `wanted`, or samples over the whole length."""
    if count <= wanted:
        return np.arange(count), 1.0
    if count < 2 * wanted or not sample:
        return np.arange(wanted) + int(place * (count - wanted + 1)), 1.0
    return np.floor((np.arange(wanted) + place) * count / wanted).astype(np.int64), count / wanted


def evenly(count: int, wanted: int) -> np.ndarray:
    """(wanted,) of `count` slice numbers, spread over the whole length; some more than once where there are fewer."""
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(int)


def robust_range(pixels: np.ndarray, limit: int = 65536) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles of at most `limit` pixels, evenly spread; 1 apart where the pixels are constant."""
    low, high = np.percentile(_evenly_spread(pixels, limit), (0.5, 99.5))
    return float(low), float(high if high > low else low + 1)


def mean_and_deviation(pixels: np.ndarray, low: float, high: float, limit: int = 65536) -> tuple[float, float]:
    """Those of at most `limit` pixels, evenly spread, low … high brought to [0, 1]; the deviation is at least 0.01."""
    values = np.clip((_evenly_spread(pixels, limit).astype(np.float64) - low) / (high - low), 0, 1)
    return float(values.mean()), max(float(values.std()), 0.01)


def _evenly_spread(pixels: np.ndarray, limit: int) -> np.ndarray:
    flat = pixels.reshape(-1)
    return flat[:: -(-flat.size // limit)]


def compact(array: np.ndarray) -> np.ndarray:
    """The array in the smallest type that torch computes with and that holds it: its own, or float32."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    small = array.dtype.kind in "iu" and array.dtype.itemsize <= 2
    return array.astype(array.dtype.newbyteorder("=") if small else np.float32, copy=False)


def _pick(volume: np.ndarray, positions: np.ndarray) -> np.ndarray:
    first, last = int(positions[0]), int(positions[-1]) + 1
    block = volume[:, :, first:last]
    if len(positions) < last - first:
        block = block[:, :, positions - first]
    return np.require(compact(np.moveaxis(np.asarray(block), 2, 0)), requirements=["C", "W"])


def _fit_plane(
    slices: np.ndarray, size: tuple[int, int], place: tuple[float, float], shrink: bool
) -> tuple[torch.Tensor, float]:
    pixels = torch.from_numpy(slices)
    height, width = slices.shape[1:]
    factor = min(height / size[0], width / size[1])
    if shrink and factor > 1:
        pixels = shrink_plane(pixels, (max(size[0], round(height / factor)), max(size[1], round(width / factor))))
    else:
        factor = 1.0
    for axis, wanted, share in [(1, size[0], place[0]), (2, size[1], place[1])]:
        spare = pixels.shape[axis] - wanted
        if spare > 0:
            pixels = pixels.narrow(axis, int(share * (spare + 1)), wanted)
        elif spare < 0:
            before = int(share * (-spare + 1))
            pixels = _pad(pixels, axis, before, -spare - before, fill=_lowest(pixels) if shrink else 0)
    return pixels.contiguous(), factor


def shrink_plane(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(n, H, W) averaged down to (n, *size), in the type of the input."""
    averaged = F.interpolate(pixels[:, None].float(), size=size, mode="area")[:, 0]
    return averaged if pixels.is_floating_point() else averaged.round().to(pixels.dtype)


def _pad(pixels: torch.Tensor, axis: int, before: int, after: int, fill: float) -> torch.Tensor:
    shapes = [[n if i == axis else s for i, s in enumerate(pixels.shape)] for n in (before, after)]
    edges = [torch.full(shape, fill, dtype=pixels.dtype) for shape in shapes]
    return torch.cat([edges[0], pixels, edges[1]], dim=axis)


def _lowest(pixels: torch.Tensor) -> float:
    return (pixels.to(torch.int32) if pixels.dtype == torch.uint16 else pixels).min().item()
