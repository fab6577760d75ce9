"""Opening files lazily: volumes as H x W x C arrays (what is not packed stays on disk until touched), pictures as H x W."""

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import DataError
from .formats import Layout, array_of, half_of_memory, layout_of
from .geometry import as_hung, turn_of

SPARE = np.float32(2**20)  # the sum of so many values must be finite, too: shrinking a plane averages them
PICTURES = ("PNG", "JPEG", "TIFF", "BMP")  # PIL knows others, some of which start programs


def open_volume(path: Path) -> np.ndarray:
    """(H, W, C) array of a real type, of an NPY, NIfTI, MHA or NRRD file; memory-mapped where it holds the values as they are.

    Raises `DataError` for a file that cannot be read, is not three-dimensional, is empty, or holds no real numbers.
    """
    return _understood(path, "volume", lambda: array_of(layout_of(path)))


def open_hung_volume(path: Path) -> np.ndarray:
    """As `open_volume`, turned as `prepare_data.py` turns volumes; of a file with a fourth axis the only volume in it."""
    return _understood(path, "volume", lambda: _hung(layout_of(path, axes=(3, 4))))


def _hung(layout: Layout) -> np.ndarray:
    voxels = array_of(layout)
    if voxels.ndim == 4:
        if voxels.shape[3] > 1:
            raise ValueError(f"it holds {voxels.shape[3]} volumes; choose one, as an array")
        voxels = voxels[..., 0]
    axes, flipped, _ = turn_of(layout.rows_first_affine, voxels.shape, layout.rows_first_slices)
    return as_hung(voxels, axes, flipped)


def volume_shape(path: Path) -> tuple[int, int, int]:
    """(H, W, C) from the header alone. Raises `DataError` as `open_volume` does."""
    return _understood(path, "volume", lambda: layout_of(path).rows_first)


def open_image(path: Path) -> Image.Image:
    """A picture, not decoded yet. Raises what PIL raises."""
    return Image.open(path, formats=PICTURES)


def read_image(path: Path) -> np.ndarray:
    """(H, W) uint8, uint16 or float32: a picture, colours turned grey.

    Raises `DataError` for a file that cannot be read, or one of more pixels than PIL takes for safe.
    """
    array = _understood(path, "picture", lambda: _grey(path))
    if array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    return array if array.dtype in (np.uint8, np.uint16) else array.astype(np.float32)


def _grey(path: Path) -> np.ndarray:
    with open_image(path) as image:
        wide = image.mode.startswith(("I", "F"))
        return np.asarray(image if wide else image.convert("L"))


def _understood(path: Path, what: str, read):
    """What `read()` gives. Whatever goes wrong inside is the file's fault, for parsers fail in many ways."""
    try:
        return read()
    except Exception as error:
        raise DataError(f"{path} cannot be read as a {what} ({reason_of(error)}); replace or remove the file.") from None


def refuse_nonfinite(path: Path, *values) -> None:
    """Raises `DataError` when any of the arrays, tensors or numbers read from `path` is NaN or infinite."""
    for value in values:
        value = np.asarray(value)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise DataError(
                f"{path} holds NaN or infinite values (in float32, which training computes in); replace them by numbers, "
                "such as the value of air."
            )


def refuse_constant(path: Path, part: np.ndarray, volume: np.ndarray) -> None:
    """Raises `DataError` when not only the `part` that was read, but all of the volume of `path` has one value."""
    if part.min() == part.max() and volume.min() == volume.max():
        raise DataError(f"{path} has the same value, {volume.min()}, in every voxel; replace or remove the file.")


@contextlib.contextmanager
def held_by_memory(path: Path, size: int = 0):
    """Raises `DataError` when the memory does not hold what is read of `path` inside, of which `size` bytes are known."""
    try:
        if size > half_of_memory():
            raise MemoryError
        yield
    except MemoryError:
        raise DataError(f"{path} needs more memory than there is; make its slices smaller, or give fewer --workers.") from None


def refuse_other_depth(path: Path, volume: np.ndarray, depth: int) -> None:
    """Raises `DataError` when a volume has not the `depth` slices that were counted when the run began."""
    if volume.shape[2] != depth:
        raise DataError(
            f"{path} has {volume.shape[2]} slices, had {depth} when the run began: it was replaced; put the former file back."
        )


def fault_of(path: Path, is_volume: bool) -> str:
    """Why nothing can be learned from a file, in a sentence; "" when it can. Reads all of it."""
    try:
        pixels = open_volume(path) if is_volume else read_image(path)
        extremes = np.stack([pixels.min(), pixels.max()])  # NaN is the least and the largest where there is one
        with np.errstate(over="ignore"):
            refuse_nonfinite(path, extremes.astype(np.float32) * SPARE)  # in the widest type that training has them in
        if is_volume:
            refuse_constant(path, pixels, pixels)
    except DataError as error:
        return str(error)
    return ""


def reason_of(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"its header has no {error.args[0]}"
    if isinstance(error, MemoryError):
        return "the memory does not hold it"
    text = (getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__
    return text.splitlines()[-1][:200]
