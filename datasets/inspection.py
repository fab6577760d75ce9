"""What one file holds: from its header alone, or from every voxel."""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .errors import DataError
from .formats import layout_of
from .geometry import spacing_of
from .likeness import fingerprint, normalised, numbers_of, sampled
from .reading import open_image, open_volume, read_image

BLOCK = 2**22  # voxels that are looked at together
MOST_SORTED = 2**16  # voxels for percentiles, as many as training takes (`fit.robust_range`)
NEIGHBOURS = (40, 40, 40)  # voxels about the middle in which neighbours are compared; all axes alike, for any may be the last
AIR = 0.05  # of the range between the 0.5 and 99.9 percentiles: noise of air stays below, tissue in PET does not
WITH_VOXELS_BESIDE = (".mhd", ".mha", ".nrrd")  # headers that may name another file
MODES = {"1": "bool", "L": "uint8", "P": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}
# what the reader says, and which kind of fault that is
SAID = (
    (r"its shape is \((\d+, ){2}\d+\)", "empty"),
    (r"its shape is ", "not a volume"),
    (r"it holds .* values; a volume holds real numbers", "not real numbers"),
)


@dataclass(frozen=True)
class Content:
    """What all voxels of a file are like, as numbers, NaN and infinite ones left aside.

    least, most: of every voxel; low, high, top: the 0.5, 99.5 and 99.9 percentiles of at most 65,536 voxels. air: the share
    of voxels in the lowest twentieth between low and top. roughness: the mean difference of neighbours along rows,
    columns and slices, as a share of high − low. print: what `likeness.candidates` compares, (512,) or (256,) float16.
    """

    sha256: str
    least: float
    most: float
    low: float
    high: float
    top: float
    air: float
    nans: int
    infinities: int
    roughness: tuple[float, float, float]
    print: np.ndarray

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def constant(self) -> bool:
        return self.least == self.most and not self.nans and not self.infinities


@dataclass(frozen=True)
class Facts:
    """bytes: size of the file. shape: (H, W, C), of a picture (H, W); dtype: as stored; spacing: mm, where the header tells.

    fault: why the file cannot be read, a sentence without its full stop that begins with the path; of a kind "unreadable",
    "not a volume", "not real numbers" or "empty". content: when every voxel was read.
    """

    bytes: int
    shape: tuple[int, ...] = ()
    dtype: str = ""
    spacing: tuple[float, ...] | None = None
    kind: str = ""
    fault: str = ""
    content: Content | None = None


def quick_facts(path: Path, volume: bool) -> Facts:
    """From the header alone; whatever is wrong with it is in `fault`."""
    try:
        size = os.path.getsize(path)
        if size == 0:
            return Facts(0, kind="empty", fault=f"{path} has no bytes")
        facts = _volume_header(path, size) if volume else _picture_header(path, size)
    except Exception as error:  # parsers fail in many ways, and all of them are the file's fault
        return _faulty(path, volume, error)
    return facts


def full_facts(path: Path, volume: bool) -> Facts:
    """From every voxel. Memory-mapped files are read block by block, packed ones as a whole."""
    facts = quick_facts(path, volume)
    if facts.fault:
        return facts
    try:
        voxels = open_volume(path) if volume else read_image(path)[:, :, None]
        return replace(facts, content=content_of(voxels, _digest(path)))
    except (DataError, OSError) as error:
        return _faulty(path, volume, error)


def content_of(voxels: np.ndarray, sha256: str) -> Content:
    """voxels: (H, W, C) of any real type."""
    voxels = np.asarray(voxels)  # of a memory map each part would be one, which costs more than a small part
    with np.errstate(invalid="ignore", over="ignore"):
        least, most, nans, infinities = _extremes(voxels)
        sample = sampled(voxels)
        numbers = numbers_of(sample)
        if not numbers.size:
            numbers = np.array([least])
        low, high, top = map(float, np.percentile(numbers[:: -(-numbers.size // MOST_SORTED)], (0.5, 99.5, 99.9)))
        air = float(np.mean(numbers <= low + AIR * (top - low)))
        roughness = _roughness(voxels, low, high)
        print_ = fingerprint(normalised(sample, low, high))
    return Content(sha256, least, most, low, high, top, air, nans, infinities, roughness, print_)


def _digest(path: Path) -> str:
    """SHA-256 of the file; of a header whose voxels are in another file, of both."""
    digest, beside = hashlib.sha256(), [layout_of(path).file] if path.name.lower().endswith(WITH_VOXELS_BESIDE) else []
    for part in dict.fromkeys([path, *beside]):
        with open(part, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _volume_header(path: Path, size: int) -> Facts:
    layout = layout_of(path)
    affine = layout.rows_first_affine
    spacing = None if affine is None else tuple(float(step) for step in spacing_of(affine))
    if layout.file != path:
        size += os.path.getsize(layout.file)
    return Facts(size, layout.rows_first, layout.dtype.name, spacing)


def _picture_header(path: Path, size: int) -> Facts:
    with open_image(path) as image:
        return Facts(size, image.size[::-1], MODES.get(image.mode, image.mode))


def _faulty(path: Path, volume: bool, error: Exception) -> Facts:
    reason = str(error).removesuffix("; replace or remove the file.")
    if not isinstance(error, DataError):
        reason = getattr(error, "strerror", None) or reason.strip() or type(error).__name__
        reason = f"{path} cannot be read as a {'volume' if volume else 'picture'} ({reason.splitlines()[-1][:200]})"
    kind = next((kind for said, kind in SAID if volume and re.search(said, reason)), "unreadable")
    return Facts(os.path.getsize(path) if path.exists() else 0, kind=kind, fault=reason)


def _extremes(voxels: np.ndarray) -> tuple[float, float, int, int]:
    """(least, most, NaN, infinite) over every voxel; the first two of the numbers alone, NaN where there is none."""
    in_file_order = voxels.transpose(np.argsort(voxels.strides)[::-1]).reshape(-1)
    least, most, nans, infinities = np.inf, -np.inf, 0, 0
    for begin in range(0, in_file_order.size, BLOCK):
        block = in_file_order[begin : begin + BLOCK]
        low, high = float(block.min()), float(block.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            nan, finite = int(np.isnan(block).sum()), np.isfinite(block)
            nans, infinities = nans + nan, infinities + block.size - nan - int(finite.sum())
            if not finite.any():
                continue
            block = block[finite]
            low, high = float(block.min()), float(block.max())
        least, most = min(least, low), max(most, high)
    return (least, most, nans, infinities) if least <= most else (np.nan, np.nan, nans, infinities)


def _roughness(voxels: np.ndarray, low: float, high: float) -> tuple[float, float, float]:
    middle = tuple(slice(max(0, (n - most) // 2), (n + most + 1) // 2) for n, most in zip(voxels.shape, NEIGHBOURS))
    block = normalised(voxels[middle], low, high)
    return tuple(float(np.abs(np.diff(block, axis=axis)).mean()) if n > 1 else 0.0 for axis, n in enumerate(block.shape))
