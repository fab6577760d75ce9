"""A small volume around a point of the patient, cut out of a scan and resampled along the patient's axes."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import affine_transform

# what an index along (row, column, slice) of a patch grows towards, in LPS: the back, the left, the head
PATCH_AXES = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float64)
BEYOND = 2  # voxels that are read around what a patch covers, so that its border is interpolated like the rest


def voxel_of(affine: np.ndarray, point: Sequence[float]) -> np.ndarray:
    """(3,) the continuous indices, along the axes of an array with this affine, of a point (x, y, z) in LPS millimetres."""
    return np.linalg.solve(affine, [*point, 1.0])[:3]


def cut_patch(
    volume: np.ndarray,
    affine: np.ndarray,
    point: Sequence[float],
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    air: float,
) -> np.ndarray:
    """(H, W, C) float32 patch with `point` (LPS mm) in the middle of its box; `air` where the scan ends.

    volume (rows, columns, slices), affine: of its indices; only the part that is needed is read. shape, spacing in mm: of the
    patch, (H, W, C). However the scan lies, rows of the patch go to the back, columns to the left, slices to the head.
    Voxels are interpolated linearly.
    """
    step = PATCH_AXES * spacing  # mm along the patient's axes (rows) of one index of the patch (columns)
    corner = np.asarray(point, np.float64) - step @ ((np.array(shape) - 1) / 2)
    # indices of the volume are `turn @ indices of the patch + start`
    turn, start = np.linalg.solve(affine[:3, :3], step), voxel_of(affine, corner)
    turn, start = turn.round(9), start.round(9)  # a rounding beyond the outermost voxel would be air
    across = turn * (np.array(shape) - 1)
    reach = across.clip(min=0).sum(1), across.clip(max=0).sum(1)
    first = np.floor(start + reach[1]).astype(int) - BEYOND
    last = np.ceil(start + reach[0]).astype(int) + BEYOND + 1
    first, last = first.clip(0, volume.shape), last.clip(0, volume.shape)
    if (last <= first).any():
        return np.full(shape, air, np.float32)
    block = volume[tuple(slice(a, b) for a, b in zip(first, last))].astype(np.float32)
    return affine_transform(block, turn, start - first, tuple(shape), np.float32, order=1, mode="constant", cval=air)
