"""How well a predicted label map agrees with the truth: one row for each class of a volume, in which a miss counts.

Libraries leave a structure that was missed out of the mean distance (MONAI: NaN or infinity, which its mean skips), so that
missing the hard ones improves the figure. Here it counts, as does one that was invented; one that is in neither does not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FOUND, MISSED, INVENTED, ABSENT = STATUSES = ("found", "missed", "invented", "absent")
MEASURES = ("dice", "iou", "hd95", "surface_dice")


@dataclass(frozen=True)
class ClassScores:
    """The agreement on one class of one volume.

    number: of the class, from 1. unit: of `hd95`, mm or voxel. `dice`, `iou`, `surface_dice` lie in [0, 1].
    """

    number: int
    status: str
    dice: float
    iou: float
    hd95: float
    surface_dice: float
    unit: str


def score_volume(
    predicted: np.ndarray, truth: np.ndarray, classes: int, spacing: Sequence[float] | None, tolerance: float
) -> list[ClassScores]:
    """One row for each of the classes 1 … `classes`.

    predicted, truth: (H, W, C) whole numbers, 0 is the background. spacing: mm between rows, columns, slices; None where it is
    not known: distances are in voxels then. tolerance: of surface Dice, in the same unit.

    * found, in both: `hd95` is the larger of the two 95th percentiles of the distances from one surface to the other;
      `surface_dice` the share of the voxels of both surfaces that lie within `tolerance` of the other one (Nikolov et al. 2018,
      counted in voxels). A surface has the voxels with a face to the outside. A volume of one slice is a picture: its surfaces
      are outlines.
    * missed, in the truth alone, and invented, in the prediction alone: dice, iou and surface_dice are 0, and hd95 is the
      diagonal of the volume, which no distance inside it reaches.
    * absent from both: all are NaN and belong in no mean.
    """
    assert predicted.shape == truth.shape and truth.ndim == 3, (predicted.shape, truth.shape)
    steps = (1.0, 1.0, 1.0) if spacing is None else tuple(map(float, spacing))
    diagonal = math.hypot(*(side * step for side, step in zip(truth.shape, steps)))
    unit = "voxel" if spacing is None else "mm"
    return [
        ClassScores(number, *_agreement(predicted == number, truth == number, steps, tolerance, diagonal), unit)
        for number in range(1, classes + 1)
    ]


def _agreement(predicted: np.ndarray, truth: np.ndarray, steps: tuple[float, ...], tolerance: float, diagonal: float) -> tuple:
    """Masks (H, W, C) of one class → status, and the measures in their order."""
    in_predicted, in_truth = int(predicted.sum()), int(truth.sum())
    if not in_predicted and not in_truth:
        return ABSENT, *[math.nan] * len(MEASURES)
    if not in_predicted or not in_truth:
        return MISSED if in_truth else INVENTED, 0.0, 0.0, diagonal, 0.0
    shared = int((predicted & truth).sum())
    dice, iou = 2 * shared / (in_predicted + in_truth), shared / (in_predicted + in_truth - shared)
    box = _box(predicted | truth)
    there, back = _surface_distances(predicted[box], truth[box], steps, in_plane=truth.shape[2] == 1)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    within = np.float32(tolerance)  # as the distances are: 0.3 mm is within 0.3 mm
    near = (there <= within).sum() + (back <= within).sum()
    return FOUND, dice, iou, float(hd95), float(near / (len(there) + len(back)))


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty. Beyond it no voxel is, as surfaces take it for beyond an array."""
    axes = range(mask.ndim)
    kept = [np.flatnonzero(mask.any(tuple(other for other in axes if other != axis))) for axis in axes]
    return tuple(slice(places[0], places[-1] + 1) for places in kept)


def _surface_distances(
    predicted: np.ndarray, truth: np.ndarray, steps: tuple[float, ...], in_plane: bool
) -> tuple[np.ndarray, np.ndarray]:
    """From each surface voxel of the prediction to the nearest one of the truth, and the other way; float32."""
    if in_plane:
        predicted, truth, steps = predicted[..., 0], truth[..., 0], steps[:2]
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, truth)]
    to = [ndimage.distance_transform_edt(~surface, sampling=steps).astype(np.float32) for surface in surfaces]
    return to[1][surfaces[0]], to[0][surfaces[1]]


def mean_dice(predicted: np.ndarray, truth: np.ndarray, classes: int) -> float:
    """The mean of the Dice coefficients of `score_volume` over the classes that are not absent; NaN where all are."""
    both = np.bincount(truth[predicted == truth], minlength=classes + 1)[1:]
    sizes = sum(np.bincount(of.ravel(), minlength=classes + 1)[1:] for of in (predicted, truth))
    return float((2 * both[sizes > 0] / sizes[sizes > 0]).mean()) if sizes.any() else math.nan
