"""Label maps as NIfTI-1 files: with the geometry of the NIfTI file that was labelled, number for number, or with an affine."""

import gzip
from pathlib import Path

import numpy as np

from .formats import nifti_header
from .geometry import spacing_of
from .manifest import atomic

VOXELS_AT = 352  # the header's 348 bytes, and 4 that say that no extension follows
TYPES = {"uint8": 2, "int16": 4, "int32": 8}  # the smallest that fits is taken
SCANNER = 1  # a code: the axes are those of the scanner
PERPENDICULAR = 1e-4  # of columns of unit length; else no quaternion tells them
GEOMETRY = ("dim_info", "pixdim", "xyzt_units", "qform_code", "sform_code", "quaternion", "srow")
UNIT_OF_SPACE, MILLIMETRES = 7, 2  # bits of xyzt_units; a code
# quaternion: b, c, d and the offset; V: bytes that are left alone
NIFTI_1 = np.dtype([
    ("size", "<i4"), ("1", "V35"), ("dim_info", "u1"), ("dim", "<8i2"), ("2", "V14"), ("datatype", "<i2"), ("bitpix", "<i2"),
    ("3", "V2"), ("pixdim", "<8f4"), ("vox_offset", "<f4"), ("slope", "<f4"), ("4", "V7"), ("xyzt_units", "u1"), ("5", "V128"),
    ("qform_code", "<i2"), ("sform_code", "<i2"), ("quaternion", "<6f4"), ("srow", "<12f4"), ("6", "V16"), ("magic", "S4"),
])  # fmt: skip
NIFTI_2 = np.dtype([
    ("1", "V104"), ("pixdim", "<8f8"), ("2", "V176"), ("qform_code", "<i4"), ("sform_code", "<i4"), ("quaternion", "<6f8"),
    ("srow", "<12f8"), ("3", "V4"), ("xyzt_units", "<i4"), ("4", "V20"), ("dim_info", "u1"),
])  # fmt: skip


def header_like(path: Path) -> np.ndarray:
    """A NIfTI-1 header with the geometry of a NIfTI file of any kind, and nothing else of it. Raises what parsers raise."""
    data, order, new = nifti_header(path)
    source = np.frombuffer(data, (NIFTI_2 if new else NIFTI_1).newbyteorder(order), 1)[0]
    header = _empty()
    for name in GEOMETRY:
        header[name] = source[name]
    header["xyzt_units"] &= UNIT_OF_SPACE
    return header


def header_of(affine: np.ndarray | None) -> np.ndarray:
    """A NIfTI-1 header with an affine (4, 4) of the file's indices to LPS mm; None tells no place."""
    header = _empty()
    header["pixdim"][:4], header["xyzt_units"] = 1, MILLIMETRES
    if affine is None:
        return header
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    header["srow"], header["sform_code"] = ras[:3].ravel(), SCANNER
    spacing = spacing_of(ras)
    header["pixdim"][1:4] = spacing
    directions = ras[:3, :3] / spacing
    if np.abs(directions.T @ directions - np.eye(3)).max() < PERPENDICULAR:
        header["pixdim"][0] = handed = 1.0 if np.linalg.det(directions) > 0 else -1.0
        header["quaternion"], header["qform_code"] = [*_quaternion(directions * [1, 1, handed]), *ras[:3, 3]], SCANNER
    return header


def tells_place(path: Path) -> bool:
    """Whether a file says where its voxels are, and not only how large they are."""
    if not is_nifti(path):
        return True
    header = header_like(path)
    return bool(header["qform_code"] > 0 or header["sform_code"] > 0)


def is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def write_labels_as_nifti(path: Path, labels: np.ndarray, header: np.ndarray) -> None:
    """`path` (.nii.gz) appears whole or not at all. labels: whole numbers, in the order of axes that the header describes."""
    labels = labels.astype(smallest_type(labels), copy=False)
    header = header.copy()
    header["dim"], header["pixdim"][4:] = [3, *labels.shape, 1, 1, 1, 1], 1
    header["datatype"], header["bitpix"] = TYPES[labels.dtype.name], 8 * labels.dtype.itemsize
    # no name and no time: the same labels are the same bytes
    with atomic(path) as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=3, mtime=0) as packed:
        packed.write(header.tobytes().ljust(VOXELS_AT, b"\0"))
        packed.write(labels.astype(labels.dtype.newbyteorder("<"), copy=False).tobytes(order="F"))


def smallest_type(labels: np.ndarray) -> np.dtype:
    """Of those that label maps are stored in."""
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    return next(np.dtype(name) for name in TYPES if np.iinfo(name).min <= low and high <= np.iinfo(name).max)


def _empty() -> np.ndarray:
    header = np.zeros((), NIFTI_1)
    header["size"], header["vox_offset"], header["slope"], header["magic"] = NIFTI_1.itemsize, VOXELS_AT, 1, b"n+1"
    return header


def _quaternion(turn: np.ndarray) -> np.ndarray:
    """(3,): b, c, d of a rotation (3, 3), a ≥ 0."""
    from scipy.spatial.transform import Rotation  # takes a third of a second

    return Rotation.from_matrix(turn).as_quat(canonical=True)[:3]
