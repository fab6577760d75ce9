"""The voxels of a case: the scan and its label map, turned alike; and label maps back in the file's own order of axes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .cases import Case, has_array
from .errors import DataError
from .foreign import Raw, of_file, shape_in
from .formats import layout_of
from .geometry import as_hung, hang, spacing_of, turn_of
from .identity import ARCHIVES, stem_of
from .manifest import atomic
from .nifti import header_like, header_of, is_nifti, smallest_type, tells_place, write_labels_as_nifti
from .prepared_geometry import prepared_geometry
from .reading import reason_of, refuse_nonfinite

LABEL = "label"  # the array of an archive
ROWS_FIRST = (".npy", *ARCHIVES)  # files whose axes are rows, columns, slices; medical ones have columns first
SLACK = 0.1  # of the smallest step between voxels: so far may a label lie from its image
ROUNDING = 1e-3  # so far may a stored value lie from a whole number


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan as it is looked at, and the way back to its file.

    pixels (H, W, C), slices last, in the file's type or, scaled, float32: turned as `prepare_data.py` turns volumes where the
    geometry is known, else as stored; a view of what is read, maybe with negative strides. spacing: mm between its rows,
    columns, slices; None where neither the file nor the manifest of its collection knows. axes, flipped: which axis of the
    file each axis of `pixels` is, and whether it runs backwards. affine (4, 4): the file's indices to LPS mm; None = not known.
    """

    pixels: np.ndarray
    spacing: tuple[float, float, float] | None
    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    affine: np.ndarray | None

    def restored(self, labels: np.ndarray) -> np.ndarray:
        """A map (H, W, C) beside `pixels` in the order of the file's axes: NPY's rows, columns, slices, or NIfTI's i, j, k."""
        unflipped = labels[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]
        return unflipped.transpose(np.argsort(self.axes))


Turn = tuple[tuple[int, int, int], tuple[bool, bool, bool], np.ndarray | None]  # order of axes, which are flipped, new affine


@dataclass(frozen=True, eq=False)
class Header:
    """shape, affine, slices' axis and spacing of (row, column, slice), as a file or its manifest tells them.

    turned: it lies already as it is looked at, since `prepare_data.py` wrote it. channels: how many there are, along a fourth
    axis.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray | None
    slices: int | None
    spacing: tuple[float, float, float] | None = None
    turned: bool = False
    channels: int = 1

    def turn(self) -> Turn:
        """How the file's array is looked at."""
        if self.turned:
            return (0, 1, 2), (False, False, False), self.affine
        return turn_of(self.affine, self.shape, self.slices)

    def after(self, turn: Turn) -> "Header":
        """That of the array in another order of axes."""
        axes, _, affine = turn
        return replace(self, shape=tuple(self.shape[axis] for axis in axes), affine=affine)


def read_scan(case: Case) -> Scan:
    """The scan of a case. Raises `DataError` for a file that is no volume of finite numbers, or has channels, none chosen."""
    header, raw = _image_header(case), _raw(case.path, "", case.channel)
    axes, flipped, affine = header.turn()
    pixels = _scaled(as_hung(raw.voxels, axes, flipped), raw)
    refuse_nonfinite(case.path, np.stack([pixels.min(), pixels.max()]).astype(np.float32))
    spacing = header.spacing if affine is None else tuple(map(float, spacing_of(affine)))
    if _rows_first(case.path):
        return Scan(pixels, spacing, axes, flipped, header.affine)
    of_file = tuple((1, 0, 2)[axis] for axis in axes)
    return Scan(pixels, spacing, of_file, flipped, None if header.affine is None else header.affine[:, [1, 0, 2, 3]])


def scan_shape(case: Case) -> tuple[int, int, int]:
    """That of `read_scan(case).pixels`, from the header alone."""
    header = _image_header(case)
    return header.after(header.turn()).shape


def read_label(case: Case, label_map) -> np.ndarray:
    """(H, W, C) uint8: the class of each of the scan's pixels, by `label_map` (`datasets.label_map.LabelMap`).

    Raises `DataError` as `stored_label` and `LabelMap.classes_of` do.
    """
    return label_map.classes_of(stored_label(case), case.label_path)


def stored_label(case: Case) -> np.ndarray:
    """(H, W, C): the whole numbers that the label's file holds, beside `read_scan(case).pixels`.

    Raises `DataError` for a file that is no volume of whole numbers, or lies not where its image does.
    """
    axes, flipped, _ = refuse_misfit(case)
    raw = _raw(case.label_path, _array_of(case))
    return as_hung(_whole(case.label_path, raw), axes, flipped)


def refuse_misfit(case: Case) -> Turn:
    """How a case's label is turned. Raises `DataError` when it, by header, is not of the image's voxels.

    A label that tells no place is taken for one of the same voxels if it has as many.
    """
    image = _image_header(case)
    turn = image.turn()
    if case.label_path is None:
        return turn
    label = _header(case.label_path, _array_of(case), axes=(3,))
    if image.turned or label.turned:
        turn, image = _turn_like(label, image.after(turn)), image.after(turn)
        label = label.after(turn)
    if label.shape != image.shape:
        of_label, of_image = (" x ".join(map(str, shape)) for shape in (label.shape, image.shape))
        raise DataError(
            f"{case.label_path} has {of_label} voxels (rows x columns x slices), its image {case.path} {of_image}; "
            "give a label of the same voxels."
        )
    if case.label_path == case.path or image.affine is None or label.affine is None:
        return turn
    corner, distance = _farthest_corner(image, label)
    known = lambda: tells_place(case.path) and tells_place(case.label_path)  # noqa: E731
    if distance > SLACK * min(spacing_of(image.affine)) and known():
        of_label, of_image = (_point(header.affine @ [*corner, 1]) for header in (label, image))
        raise DataError(
            f"{case.label_path} lies {distance:.3g} mm from its image {case.path}: the voxel of row, column, slice "
            f"{_point(corner)} is at {of_label} mm, that of the image at {of_image} mm (to the left, the back, the head); "
            "save it with the image's geometry."
        )
    return turn


def write_prediction(path: Path, case: Case, scan: Scan, labels: np.ndarray) -> Path:
    """Writes a map (H, W, C) of whole numbers beside `scan.pixels`, and gives the file's path: `path` with its right ending.

    .nii.gz in the geometry of the case's file: its size, order of axes, and affine (of a NIfTI file all numbers as they are);
    .npz with the array `label` of files without geometry. labels: what is to stand in the file (`LabelMap.stored_of`).
    """
    assert labels.shape == scan.pixels.shape, (labels.shape, scan.pixels.shape)
    stored, stem = scan.restored(labels), stem_of(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if _rows_first(case.path):
        path = path.with_name(f"{stem}.npz")
        with atomic(path) as file:
            np.savez_compressed(file, **{LABEL: stored.astype(smallest_type(stored))})
        return path
    path = path.with_name(f"{stem}.nii.gz")
    if is_nifti(case.path):
        header = _understood(case.path, lambda: header_like(case.path))
    else:
        header = header_of(scan.affine)
    write_labels_as_nifti(path, stored, header)
    return path


def _rows_first(path: Path) -> bool:
    return path.name.lower().endswith(ROWS_FIRST)


def _array_of(case: Case) -> str:
    """The array that holds labels, in an archive; where it holds nothing else, any name will do."""
    archive = case.label_path.name.lower().endswith(ARCHIVES)
    return LABEL if archive and (case.label_path == case.path or has_array(case.label_path, LABEL)) else ""


def _image_header(case: Case) -> Header:
    """That of the image. Raises `DataError` when it has several channels, and the case names none of them, or not so many."""
    header = _header(case.path, "", axes=(3, 4))
    if header.channels > 1 and case.channel not in range(header.channels):
        chosen = "" if case.channel is None else f", of which --channel {case.channel} is none"
        raise DataError(
            f"{case.path} has {header.channels} channels (along a fourth axis){chosen}; choose one with --channel, from 0 to "
            f"{header.channels - 1}."
        )
    if header.channels == 1 and case.channel:
        raise DataError(
            f"{case.path} has one channel, of which --channel {case.channel} is none; leave the flag out, or give --channel 0."
        )
    return header


def _header(path: Path, array: str, axes: tuple[int, ...]) -> Header:
    """axes: how many it may have; the fourth counts channels."""

    def read() -> Header:
        if not path.name.lower().endswith(ARCHIVES):
            layout = layout_of(path, axes)
            told = prepared_geometry(path, layout.shape) if path.name.lower().endswith(".npy") else None
            if told:
                return Header(layout.shape, told.affine, 2, told.spacing, turned=True)
            place = layout.rows_first_affine, layout.rows_first_slices
            return Header(layout.rows_first[:3], *place, channels=math.prod(layout.shape[3:]))
        shape = shape_in(path, array)
        if len(shape) not in axes or min(shape) < 1:
            raise ValueError(f"its shape is {shape}; a volume is H x W x C, slices last, none of them 0")
        return Header(shape[:3], None, None, channels=math.prod(shape[3:]))

    return _understood(path, read)


def _raw(path: Path, array: str, channel: int | None = None) -> Raw:
    """channel: of several."""
    volumes = _understood(path, lambda: of_file(path, "auto", array))
    return volumes[channel if len(volumes) > 1 else 0]


def _understood(path: Path, read: Callable):
    """What `read()` gives. Whatever goes wrong inside is the file's fault, for parsers fail in many ways."""
    try:
        return read()
    except DataError:  # a sentence already
        raise
    except Exception as error:
        raise DataError(f"{path} cannot be read as a volume ({reason_of(error)}); replace or remove the file.") from None


def _scaled(voxels: np.ndarray, raw: Raw) -> np.ndarray:
    if (raw.slope, raw.intercept) == (1, 0):
        return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)  # torch takes no other
    return (voxels * np.float64(raw.slope) + raw.intercept).astype(np.float32)


def _whole(path: Path, raw: Raw) -> np.ndarray:
    """The values as integers, slice by slice, so that a large map needs no large memory."""
    if raw.voxels.dtype.kind in "biu" and (raw.slope, raw.intercept) == (1, 0):
        return raw.voxels
    whole, limit = np.empty(raw.voxels.shape, np.int32, order="F"), np.iinfo(np.int32).max
    for number in range(raw.voxels.shape[2]):
        values = raw.voxels[..., number] * np.float64(raw.slope) + raw.intercept
        nearest = np.rint(values)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            wrong = values[~(np.abs(values - nearest) <= ROUNDING) | ~(np.abs(nearest) <= limit)]
        if wrong.size:
            raise DataError(f"{path} holds the value {wrong[0]:.6g}; labels are whole numbers, one a class.")
        whole[..., number] = nearest
    return whole


def _turn_like(label: Header, image: Header) -> Turn:
    """How a label is turned whose image, as it is looked at, is not in the order of the file that was labelled: as it lies."""
    if (label.turned and image.turned) or label.affine is None or image.affine is None:
        return label.turn()
    along = np.abs(image.affine[:3, 2] @ (label.affine[:3, :3] / spacing_of(label.affine)))
    return hang(label.affine, label.shape, int(along.argmax()))


def _farthest_corner(image: Header, label: Header) -> tuple[list[int], float]:
    """The corner that two geometries place farthest apart, and how far in mm; no other voxel is farther."""
    corners = np.stack(np.meshgrid(*((0, length - 1) for length in image.shape), indexing="ij"), -1).reshape(-1, 3)
    apart = (image.affine - label.affine) @ np.hstack([corners, np.ones((8, 1))]).T
    distances = np.linalg.norm(apart[:3], axis=0)
    return corners[distances.argmax()].tolist(), float(distances.max())


def _point(numbers) -> str:
    return "(" + ", ".join(f"{number:.6g}" for number in list(numbers)[:3]) + ")"
