"""Voxels out of all files that can be prepared: those that training reads, archives of arrays (NPZ, HDF5), stacks of pictures.

All that a file says is compared with its size or the memory before anything is allocated; nothing that it names is opened.
"""

import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ImageSequence

from .dicom import Stack, pixels_of
from .formats import CHUNK, half_of_memory, layout_of, npy_header, stored_array_of
from .reading import open_image, read_image

ARRAYS = ("image", "img", "volume", "vol", "data", "arr_0", "ct", "mr")  # names of the array of intensities, best first
NO_ARRAYS = re.compile("label|mask|seg|gt")
MILLIMETRES = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "um": 1e-3, "micron": 1e-3, "\\u00b5m": 1e-3, "µm": 1e-3}


@dataclass(frozen=True)
class Raw:
    """One volume as its file holds it.

    voxels: three axes, stored values; a value is stored · slope + intercept. affine: of the indices of `voxels`, to LPS mm;
    None = not told. Then `spacing` may be, mm along the axes of `voxels`. slices: the axis from slice to slice, where the
    format tells. positions (C,): mm from the first slice to each, where they are not even. notes: what is unusual; they quote
    no text of the file.
    """

    voxels: np.ndarray
    slope: float = 1.0
    intercept: float = 0.0
    affine: np.ndarray | None = None
    spacing: tuple[float, float, float] | None = None
    slices: int | None = None
    positions: np.ndarray | None = None
    modality: str = ""
    notes: tuple[str, ...] = ()


def of_file(path: Path, slice_axis: str, array: str) -> list[Raw]:
    """The volumes of one file; several when it has a fourth axis. Raises whatever a parser may.

    slice_axis: "first", "second" or "last" of the file's axes, or "auto". array: its name in an archive; "" = found by name.
    """
    name = path.name.lower()
    axes = {"first": 0, "second": 1, "last": 2}
    if name.endswith((".npz", ".h5", ".hdf5")):
        return _by_time(_npz(path, array) if name.endswith(".npz") else _hdf5(path, array), slices=axes.get(slice_axis))
    if name.endswith((".tif", ".tiff")):
        return [_pages(path)]
    layout = layout_of(path, axes=(3, 4))
    slices = axes.get(slice_axis)
    if slices is not None and layout.xyz:
        slices = {0: 1, 1: 0}.get(slices, slices)
    return _by_time(
        stored_array_of(layout), slope=layout.slope, intercept=layout.intercept, affine=layout.rows_first_affine,
        slices=layout.rows_first_slices if slices is None else slices,
    )  # fmt: skip


def of_stack(stack: Stack) -> Raw:
    """The volume of a DICOM series."""
    voxels, slope, intercept = pixels_of(stack.images)
    return Raw(
        voxels, slope, intercept, stack.affine, slices=2, positions=stack.steps, modality=stack.images[0].modality,
        notes=stack.notes,
    )  # fmt: skip


def of_pictures(paths: tuple[Path, ...]) -> Raw:
    """The volume whose slices are the pictures of one folder."""
    first = read_image(paths[0])
    _refuse_large(first.nbytes * len(paths))
    slices = [first, *map(read_image, paths[1:])]
    shapes = {pixels.shape for pixels in slices}
    if len(shapes) > 1:
        raise ValueError(f"its pictures have {len(shapes)} sizes; the slices of a volume have one")
    return Raw(np.stack(slices, -1), slices=2)


def pages_of(path: Path) -> int:
    """The number of pictures in a TIFF file."""
    with open_image(path) as image:
        return getattr(image, "n_frames", 1)


def files_of(path: Path) -> tuple[Path, ...]:
    """A file, and the one beside it that holds its voxels, if there is one. Raises whatever a parser may."""
    if not path.name.lower().endswith((".mhd", ".mha", ".nrrd")):
        return (path,)
    beside = layout_of(path, axes=(3, 4)).file
    return (path,) if beside == path else (path, beside)


def shape_in(path: Path, array: str = "") -> tuple[int, ...]:
    """The shape of the volume, or volumes, that a file holds, from its header. Raises whatever a parser may."""
    name = path.name.lower()
    if name.endswith(".npz"):
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive, array)) as file:
            shape, _, dtype = npy_header(file)
            _refuse_large(math.prod(shape) * dtype.itemsize)
            return shape
    if name.endswith((".h5", ".hdf5")):
        import h5py

        with h5py.File(path, "r") as file:
            found = _data_set(file, array)
            _refuse_large(math.prod(found.shape) * found.dtype.itemsize)
            return found.shape
    if name.endswith((".tif", ".tiff")):
        with open_image(path) as image:
            return image.height, image.width, getattr(image, "n_frames", 1)
    return layout_of(path, axes=(3, 4)).shape


def _by_time(voxels: np.ndarray, **what) -> list[Raw]:
    if voxels.ndim not in (3, 4) or voxels.dtype.kind not in "biuf" or min(voxels.shape) < 1:
        raise ValueError(f"an array of shape {voxels.shape} and type {voxels.dtype}; a volume has three axes of real numbers")
    return [Raw(voxels, **what)] if voxels.ndim == 3 else [Raw(voxels[..., time], **what) for time in range(voxels.shape[3])]


def _best(names: list[str], shapes: list[tuple[int, ...]], asked: str) -> int:
    """The number of the array that holds intensities."""
    if asked:
        if asked not in names:
            raise ValueError(f"it has no array {asked}, but {', '.join(names[:5]) or 'none'}")
        return names.index(asked)
    last = [name.lower().rpartition("/")[2] for name in names]
    for known in ARRAYS:
        if known in last:
            return last.index(known)
    fitting = [i for i, shape in enumerate(shapes) if len(shape) in (3, 4) and not NO_ARRAYS.search(last[i])]
    if len(fitting) != 1:
        raise ValueError(
            f"{len(fitting)} of its arrays could be the volume, of {', '.join(names[:5]) or 'none'}; call it image, or let "
            "prepare_data.py --array name it"
        )
    return fitting[0]


def _npz(path: Path, array: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        member = _member(archive, array)
        with archive.open(member) as file:
            shape, columns_first, dtype = npy_header(file)
            size = math.prod(shape) * dtype.itemsize
            if dtype.hasobject or min(shape, default=0) < 1 or size > member.file_size:
                raise ValueError(f"an array of shape {shape} and type {dtype}")
            _refuse_large(size)
            whole = np.empty(size, np.uint8)  # before anything is unpacked
            _fill(file, memoryview(whole))
    voxels = np.frombuffer(whole, dtype, math.prod(shape))
    return voxels.reshape(shape, order="F" if columns_first else "C")


def _fill(file, into: memoryview) -> None:
    filled = 0
    while filled < len(into):
        count = file.readinto(into[filled : filled + CHUNK])
        if not count:
            raise EOFError("it is cut off")
        filled += count


def _member(archive: zipfile.ZipFile, array: str) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
    shapes = []
    for member in members:
        with archive.open(member) as file:
            shapes.append(npy_header(file)[0])
    return members[_best([member.filename.removesuffix(".npy") for member in members], shapes, array)]


def _hdf5(path: Path, array: str) -> np.ndarray:
    import h5py  # for such files alone

    with h5py.File(path, "r") as file:
        found = _data_set(file, array)
        _refuse_large(math.prod(found.shape) * found.dtype.itemsize)
        return found[()]


def _data_set(file, array: str):
    """The data set of intensities. Links to other files are not followed."""
    import h5py

    found: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, thing: found.update({name: thing}) if isinstance(thing, h5py.Dataset) else None)
    found = {name: one for name, one in found.items() if one.dtype.kind in "biuf" and not one.external and not one.is_virtual}
    return list(found.values())[_best(list(found), [one.shape for one in found.values()], array)]


def _pages(path: Path) -> Raw:
    with open_image(path) as image:
        count = getattr(image, "n_frames", 1)
        _refuse_large(count * image.width * image.height * 4)
        about = str(image.tag_v2.get(270, ""))
        spacing = _tiff_spacing(about, image.tag_v2.get(282), image.tag_v2.get(283))
        frames = ImageSequence.Iterator(image)
        slices = [np.asarray(page if page.mode.startswith(("I", "F")) else page.convert("L")) for page in frames]
    if len({page.shape for page in slices}) > 1:
        raise ValueError("its pages have several sizes; the slices of a volume have one")
    return Raw(np.stack(slices, -1), spacing=spacing, slices=2)


def _tiff_spacing(about: str, per_x, per_y) -> tuple[float, float, float] | None:
    """mm between rows, columns, slices, as ImageJ writes them: pixels a unit, and `spacing` and `unit` in the description."""
    words = dict(line.split("=", 1) for line in about.splitlines() if "=" in line)
    unit = MILLIMETRES.get(words.get("unit", ""))
    if unit is None or "spacing" not in words or not per_x or not per_y:
        return None
    spacing = (unit / float(per_y), unit / float(per_x), unit * abs(float(words["spacing"])))
    return spacing if all(math.isfinite(step) and step > 0 for step in spacing) else None


def _refuse_large(size: int) -> None:
    if size > half_of_memory():
        raise ValueError(f"{size} bytes of voxels are over half of the memory")
