"""What becomes of a volume on its way to training: turned as it is looked at, cropped, resampled, in a compact type.

Everything keeps its place: the affine that goes with the result takes its indices to where the voxels were in the patient.
"""

import hashlib
import io
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from .errors import DataError
from .fit import robust_range
from .foreign import Raw
from .formats import half_of_memory
from .geometry import as_hung, cropped, rescaled, spacing_of, turn_of

BLOCK = 2**25  # bytes that are worked on at a time
MARGIN = 4  # voxels that stay around a body
LEVELS = 65535
LONGEST = 128  # voxels along an axis, in which a body is looked for


@dataclass(frozen=True)
class Prepared:
    """voxels (H, W, C); a value is stored · scale + offset. affine, spacing, positions: as in `Raw`."""

    voxels: np.ndarray
    scale: float
    offset: float
    affine: np.ndarray | None
    spacing: tuple[float, float, float] | None
    positions: np.ndarray | None
    notes: tuple[str, ...]


def prepare(
    raw: Raw,
    spacing: tuple[float, float, float] = (0, 0, 0),
    window: tuple[float, ...] = (),
    crop_body: bool = False,
    replace_nan: bool = False,
) -> Prepared:
    """A volume as it is trained on. spacing: mm between rows, columns, slices to resample to, 0 = as they are. window: lowest
    and highest value that are told apart.

    Raises `DataError` (without the file's name) for NaN, infinite or constant values, and where a spacing is asked of a file
    that tells none.
    """
    raw = hung(with_numbers(raw, replace_nan))
    if crop_body:
        raw = body_of(raw)
    if any(spacing):
        raw = resampled(raw, spacing)
    voxels, scale, offset, clipped = windowed(raw, *window) if window else compacted(raw)
    notes = raw.notes + ((f"{clipped} outlying values were clipped",) if clipped else ())
    return Prepared(voxels, scale, offset, raw.affine, raw.spacing, raw.positions, notes)


def hung(raw: Raw) -> Raw:
    """The volume with slices last; turned so that the head or the front is above, where its geometry is known."""
    axes, flipped, affine = turn_of(raw.affine, raw.voxels.shape, raw.slices)
    voxels = as_hung(raw.voxels, axes, flipped)
    if affine is None:
        spacing = raw.spacing and tuple(raw.spacing[axis] for axis in axes)
        return replace(raw, voxels=voxels, spacing=spacing, slices=2)
    positions = raw.positions
    if positions is not None and flipped[2]:
        step = spacing_of(affine)[2]
        # its first slice is the former last one, which does not lie where even steps would have brought it
        affine[:3, 3] += affine[:3, 2] / step * (step * (len(positions) - 1) - positions[-1])
        positions = positions[-1] - positions[::-1]
    return replace(raw, voxels=voxels, affine=affine, slices=2, positions=positions)


def with_numbers(raw: Raw, replace_nan: bool) -> Raw:
    """The volume, if it can be learned from. Raises `DataError` for NaN, infinite (unless replaced) or constant values."""
    voxels = raw.voxels
    low, high = voxels.min(), voxels.max()
    if not np.isfinite([low, high]).all():
        if not replace_nan:
            raise DataError("it holds NaN or infinite values; --replace_nan puts the lowest value in their place")
        finite = np.isfinite(voxels)
        if not finite.any():
            raise DataError("it holds no number at all")
        low = voxels.min(where=finite, initial=np.inf)
        voxels = np.where(finite, voxels, low)
        raw = replace(raw, voxels=voxels, notes=(*raw.notes, f"{int((~finite).sum())} values were no numbers"))
        high = voxels.max()
    if low == high:
        raise DataError(f"it has the same value, {low}, in every voxel")
    return raw


def body_of(raw: Raw) -> Raw:
    """The box around the largest thing that is not air, with a margin of some voxels; of a volume that hangs."""
    import SimpleITK  # takes half a second

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    strides = [-(-length // LONGEST) for length in raw.voxels.shape]
    small = np.ascontiguousarray(raw.voxels[tuple(slice(None, None, stride) for stride in strides)], dtype=np.float32)
    low, high = robust_range(small)
    mask = SimpleITK.OtsuThreshold(SimpleITK.GetImageFromArray(small.clip(low, high)), 0, 1, 128)
    opened = SimpleITK.BinaryMorphologicalOpening(mask, [1, 1, 1])  # a table touches a patient at few voxels
    labels = SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(opened), sortByObjectSize=True)
    inside = np.argwhere(SimpleITK.GetArrayViewFromImage(labels) == 1)
    if not len(inside):
        return replace(raw, notes=(*raw.notes, "no body was found to crop to"))
    first = np.maximum(0, inside.min(0) * strides - MARGIN)
    last = np.minimum(raw.voxels.shape, (inside.max(0) + 1) * strides + MARGIN)
    voxels = raw.voxels[tuple(slice(a, b) for a, b in zip(first, last))]
    positions = None if raw.positions is None else raw.positions[first[2] : last[2]] - raw.positions[first[2]]
    affine = None if raw.affine is None else cropped(raw.affine, first)
    if raw.positions is not None and affine is not None:
        affine[:3, 3] += affine[:3, 2] / spacing_of(affine)[2] * (raw.positions[first[2]] - first[2] * spacing_of(affine)[2])
    return replace(raw, voxels=voxels, affine=affine, positions=positions)


def resampled(raw: Raw, spacing: tuple[float, float, float]) -> Raw:
    """The volume with voxels of (nearly) the given size, float32: linear where it gets finer, averaged where it gets coarser.

    A whole number of voxels fills the same box, so the spacing that comes out is that box over their number.
    """
    steps = raw.spacing if raw.affine is None else tuple(spacing_of(raw.affine))
    if steps is None:
        raise DataError("it tells no spacing, so it cannot be resampled; leave out --spacing, or give files with geometry")
    raw = evenly_spaced(raw, steps[2]) if spacing[2] else raw
    shape = raw.voxels.shape
    wanted = [max(1, round(n * old / new)) if new else n for n, old, new in zip(shape, steps, spacing)]
    if 4 * math.prod(wanted) > half_of_memory():
        raise DataError(
            f"with this --spacing it has {' x '.join(map(str, wanted))} voxels, which half the memory does not hold"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(raw.voxels.transpose(2, 0, 1), dtype=np.float32))
    pixels = F.interpolate(pixels[:, None], wanted[:2], mode="bilinear", antialias=True)[:, 0]
    if wanted[2] != len(pixels):
        flat = pixels.reshape(1, 1, len(pixels), -1)
        pixels = F.interpolate(flat, (wanted[2], flat.shape[3]), mode="bilinear", antialias=True).view(wanted[2], *wanted[:2])
    ratio = np.divide(shape, wanted)
    voxels = pixels.permute(1, 2, 0).numpy()
    if raw.affine is None:
        return replace(raw, voxels=voxels, spacing=tuple(float(old * by) for old, by in zip(steps, ratio)))
    return replace(raw, voxels=voxels, affine=rescaled(raw.affine, ratio))


def evenly_spaced(raw: Raw, step: float) -> Raw:
    """Slices at even distances, by linear interpolation between those that there are."""
    if raw.positions is None:
        return raw
    count = round(raw.positions[-1] / step) + 1
    at = np.interp(np.arange(count) * step, raw.positions, np.arange(len(raw.positions)))
    below = np.minimum(at.astype(int), len(raw.positions) - 2)
    share = (at - below).astype(np.float32)
    voxels = raw.voxels[..., below] * (1 - share) + raw.voxels[..., below + 1] * share
    return replace(raw, voxels=voxels, positions=None, notes=(*raw.notes, "slices were interpolated to even distances"))


def windowed(raw: Raw, low: float, high: float) -> tuple[np.ndarray, float, float, int]:
    """(uint8 voxels, scale, offset, 0): values from `low` to `high` on 256 levels, others at the ends."""
    stored = np.empty(raw.voxels.shape, np.uint8, order="F")
    scale = (high - low) / 255
    for part in _blocks(raw.voxels):
        values = raw.voxels[part] * np.float32(raw.slope) + np.float32(raw.intercept)
        stored[part] = np.rint((values.clip(low, high) - low) / scale)
    if stored.min() == stored.max():
        raise DataError(f"all of its values are on one side of the window {low:g} … {high:g}")
    return stored, scale, low, 0


def compacted(raw: Raw) -> tuple[np.ndarray, float, float, int]:
    """(voxels in 8 or 16 bits, scale, offset, how many were clipped): whole numbers as they are, others on 65536 levels.

    Those levels span what lies between the 0.1 and 99.9 percentiles and as much again on both sides, so that a few wild values
    do not take them all.
    """
    voxels, slope, intercept = raw.voxels, raw.slope, raw.intercept
    low, high = voxels.min(), voxels.max()
    whole = voxels.dtype.kind in "biu" or (low == np.rint(low) and _whole(voxels))
    plain = whole and float(slope).is_integer() and float(intercept).is_integer()
    ends = sorted((float(low) * slope + intercept, float(high) * slope + intercept))
    dtype = _smallest(*ends) if plain else None
    if dtype:
        return (
            _stored(voxels, dtype, lambda part: part * int(slope) + int(intercept), (slope, intercept) == (1, 0)),
            1.0,
            0.0,
            0,
        )
    dtype = _smallest(float(low), float(high)) if whole else None
    if dtype:
        return _stored(voxels, dtype, None, True), float(slope), float(intercept), 0
    stride = max(1, round((voxels.size / 10**6) ** (1 / 3)))
    inner = np.percentile(voxels[::stride, ::stride, ::stride], (0.1, 99.9)).astype(np.float64)
    spread = float(inner[1] - inner[0]) or float(high) - float(low)
    first, last = max(float(low), inner[0] - spread), min(float(high), inner[1] + spread)
    step = (last - first) / LEVELS or 1.0
    clipped = sum(int(((voxels[part] < first) | (voxels[part] > last)).sum()) for part in _blocks(voxels))
    clipped *= first > low or last < high
    stored = _stored(voxels, np.uint16, lambda part: np.rint((part.astype(np.float64).clip(first, last) - first) / step), False)
    return stored, step * slope, first * slope + intercept, clipped


def header_and_pieces(voxels: np.ndarray):
    """The bytes of an NPY file of `voxels` (H, W, C), slice after slice, so that a few of them are read alone."""
    header = {"descr": np.lib.format.dtype_to_descr(voxels.dtype), "fortran_order": True, "shape": voxels.shape}
    yield _npy_header(header)
    for part in _blocks(voxels):
        yield np.ascontiguousarray(voxels[part].T).data


def write_npy(file, voxels: np.ndarray) -> str:
    """Writes an NPY file and gives its SHA-256."""
    digest = hashlib.sha256()
    for piece in header_and_pieces(voxels):
        digest.update(piece)
        file.write(piece)
    return digest.hexdigest()


def grey_levels(voxels: np.ndarray, window: bool) -> tuple[float, float]:
    """The stored values that become black and white in pictures of slices: the robust range, or the ends of a window."""
    if window:
        return 0.0, 255.0
    stride = max(1, round((voxels.size / 65536) ** (1 / 3)))
    return robust_range(np.ascontiguousarray(voxels[::stride, ::stride, ::stride]))


def as_picture(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """(H, W) uint8."""
    return np.rint((pixels.astype(np.float32).clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)


def _npy_header(header: dict) -> bytes:
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, header)
    return text.getvalue()


def _blocks(voxels: np.ndarray):
    """Indices of runs of slices, of some megabytes each."""
    of_slice = voxels.shape[0] * voxels.shape[1] * voxels.dtype.itemsize
    count = max(1, BLOCK // of_slice)
    for first in range(0, voxels.shape[2], count):
        yield np.s_[:, :, first : first + count]


def _whole(voxels: np.ndarray) -> bool:
    return all(np.array_equal(np.rint(voxels[part]), voxels[part]) for part in _blocks(voxels))


def _smallest(low: float, high: float) -> type | None:
    """The smallest of the types that the loader reads as they are, which holds whole numbers from `low` to `high`."""
    fits = (t for t in (np.uint8, np.int16, np.uint16) if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return next(fits, None)


def _stored(voxels: np.ndarray, dtype: type, values, as_they_are: bool) -> np.ndarray:
    if as_they_are and voxels.dtype == dtype:
        return voxels
    stored = np.empty(voxels.shape, dtype, order="F")
    for part in _blocks(voxels):
        block = voxels[part]
        stored[part] = block if as_they_are else values(block.astype(np.int64) if block.dtype.kind in "biu" else block)
    return stored
