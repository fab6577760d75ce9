"""What is unlike the rest of its collection, or unlike any volume: the order of axes, sizes, spacings, intensities.

All of it asks for strong evidence, because collections are as they are: crops of any shape, ranges a hundredfold apart.
"""

from collections.abc import Sequence

import numpy as np

from .geometry import ALIKE

LEAST_FILES = 8  # of a collection before one of them can be unlike the rest
FAR = 6.0  # robust standard deviations; of normal ones one in 10^9 is as far
RARE = 0.1  # share of a collection that can be outliers: more of them are a second kind of scan
FAR_SIZE = np.log(3.0)  # voxels along an axis against the median: real collections differ by 2 (6 to 16 heart slices)
FAR_SPACING = np.log(3.0)  # thick and thin series of one protocol differ by less
FAR_WIDTH = np.log(10.0)  # intensity range against the median: of uint8 and uint16, of 0 … 1 and 0 … 255, of HU and 0 … 1
FAR_PLACE = 2.0  # how many ranges the middle of the range is moved: HU plus 1024 is moved by one

SHORT = 0.4  # slices against pixels of a plane, for the shape alone to be evidence; boxes about an organ are more cubic
SQUARE = 1.1  # the sides of a plane, there
THICK = 1.5  # spacing, or difference of neighbours, along slices against in the plane; where it is less, axes look alike
SHORTER = 0.7  # slices against pixels, where the difference of neighbours is evidence as well
OBLONG = 1.5  # the sides of a plane, there
LOOSE = 1.15  # beyond the 10 and 90 percentiles of a collection's sizes is still within it
OUTSIDE = np.log(1.2)  # and this far beyond that is outside
NEARLY = 0.25  # of how far outside a shape is as it is
ORDINAL = ("first", "second")


def axis_order(
    shape: tuple[int, int, int],
    spacing: Sequence[float] | None,
    roughness: Sequence[float] | None,
    usual: tuple[np.ndarray, np.ndarray] | None,
) -> str:
    """Why the slices of a volume seem to run along its first or second axis, half a sentence; "" when they need not.

    usual: of the collection, as `usual_sizes` gives them.
    """
    if spacing is not None and _coarser(spacing, 2):
        return ""
    for axis in (0, 1):
        one, two = (size for of, size in enumerate(shape) if of != axis)
        where = f"along its {ORDINAL[axis]} axis"
        if spacing is not None and _coarser(spacing, axis):
            return f"voxels are {spacing[axis]:.3g} mm long {where} and {spacing[2]:.3g} mm along its last one"
        if _moved_fits(shape, axis, usual):
            return f"its shape is that of the rest of the collection when its {ORDINAL[axis]} axis is the last"
        if roughness is not None and roughness[2] >= THICK * max(roughness[:2]) > 0:
            continue
        if shape[axis] <= SHORT * min(one, two) and max(one, two) <= SQUARE * min(one, two):
            return f"it has {shape[axis]} voxels {where}, and a square plane of {one} x {two} along the others"
        if shape[axis] > SHORTER * min(one, two) or max(one, two) > OBLONG * min(one, two) or roughness is None:
            continue
        rest = max(rough for of, rough in enumerate(roughness) if of != axis)
        if roughness[axis] >= THICK * rest > 0:
            return f"neighbours differ {roughness[axis] / rest:.1f} times as much {where} as along the others"
    return ""


def usual_sizes(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """((3,), (3,)): the least and the largest sizes that are usual among (n, 3) shapes; None when they are too few to tell."""
    if len(shapes) <= LEAST_FILES:
        return None
    low = np.percentile(shapes, 10, axis=0, method="higher")  # the odd one of nine does not count
    return low / LOOSE, np.percentile(shapes, 90, axis=0, method="lower") * LOOSE


def far_off(values: np.ndarray, floor: float) -> np.ndarray:
    """Which of (n,) values are far from the median, by `FAR` robust deviations and by `floor` at least; few or none are."""
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    if known.sum() < LEAST_FILES:
        return np.zeros(len(values), bool)
    away = np.abs(values - np.median(values[known]))
    deviation = 1.4826 * np.median(away[known])
    far = known & (away >= max(FAR * deviation, floor))
    return far if far.sum() <= max(1, RARE * known.sum()) else np.zeros(len(values), bool)


def _coarser(spacing: Sequence[float], axis: int) -> bool:
    one, two = (step for of, step in enumerate(spacing) if of != axis)
    return abs(one - two) <= ALIKE * one and spacing[axis] >= THICK * one


def _moved_fits(shape: tuple[int, int, int], axis: int, usual: tuple[np.ndarray, np.ndarray] | None) -> bool:
    """Whether a shape is outside a collection as it is, and inside, or nearly so, when one of its axes goes last."""
    if usual is None:
        return False
    one, two = (size for of, size in enumerate(shape) if of != axis)
    as_it_is, *moved = (
        np.maximum(np.log(usual[0] / sizes), np.log(sizes / usual[1])).clip(0).sum()
        for sizes in (np.array(shape), np.array([one, two, shape[axis]]), np.array([two, one, shape[axis]]))
    )
    return bool(as_it_is >= OUTSIDE and min(moved) <= NEARLY * as_it_is)
