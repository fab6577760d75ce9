"""Opening files lazily: volumes as H x W x C arrays (NPY stays on disk until a part is touched), pictures as H x W."""

from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image

from .errors import DataError


def open_volume(path: Path) -> np.ndarray:
    """(H, W, C) array of a real type; an NPY file is memory-mapped, other formats are read by SimpleITK.

    Raises `DataError` for a file that cannot be read, is not three-dimensional, is empty, or holds no real numbers.
    """
    try:
        if path.suffix == ".npy":
            volume = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            # SimpleITK gives (slices, rows, columns)
            volume = np.moveaxis(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), 0, -1)
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a volume ({_reason(error)}); replace or remove the file.") from None
    _refuse_odd(path, volume.shape, volume.dtype)
    return volume


def volume_shape(path: Path) -> tuple[int, int, int]:
    """(H, W, C) from the header alone. Raises `DataError` as `open_volume` does."""
    if path.suffix == ".npy":
        return open_volume(path).shape
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read as a volume ({_reason(error)}); replace or remove the file.") from None
    size = reader.GetSize()  # columns, rows, slices
    shape = (size[1], size[0], *size[2:])
    _refuse_odd(path, shape, np.dtype(np.float32))
    return shape


def read_image(path: Path) -> np.ndarray:
    """(H, W) uint8, uint16 or float32: a picture, colours turned grey.

    Raises `DataError` for a file that cannot be read, or one of more pixels than PIL takes for safe.
    """
    try:
        with Image.open(path) as image:
            wide = image.mode.startswith(("I", "F"))
            array = np.asarray(image if wide else image.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture ({_reason(error)}); replace or remove the file.") from None
    if array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    return array if array.dtype in (np.uint8, np.uint16) else array.astype(np.float32)


def refuse_nonfinite(path: Path, *values) -> None:
    """Raises `DataError` when any of the arrays, tensors or numbers read from `path` is NaN or infinite."""
    for value in values:
        value = np.asarray(value)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise DataError(f"{path} holds NaN or infinite values; replace them by numbers, such as the value of air.")


def _refuse_odd(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) != 3 or 0 in shape:
        raise DataError(f"{path} has shape {tuple(shape)}; a volume is H x W x C, slices last, none of them 0.")
    if dtype.kind not in "biuf":
        raise DataError(f"{path} holds {dtype} values; a volume holds real numbers.")


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
