"""Where the voxels of a volume file lie, from its header: NPY, NIfTI, MetaImage, NRRD.

A header comes from strangers. What it promises is compared with the size of the file and of the memory before anything is
allocated; voxels lie in the file itself or in one beside it; no library that was not written for hostile files sees it.
What is uncompressed stays on disk until a part of it is touched.
"""

import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from .geometry import meta_image_affine, nifti_affine, nrrd_affine

LONGEST_HEADER = 2**20  # bytes of text
LONGEST_SKIP = 2**28  # bytes before the voxels: extensions hold DICOM headers and histories
INFLATION = 1032  # deflate makes at most so many bytes of one
LARGEST_SLICE = 2**28  # pixels, a gigabyte in float32: a file with holes promises more than the disk holds

NIFTI_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
NRRD_TYPES = {
    "i1": ["signed char", "int8", "int8_t"],
    "u1": ["uchar", "unsigned char", "uint8", "uint8_t"],
    "i2": ["short", "short int", "signed short", "signed short int", "int16", "int16_t"],
    "u2": ["ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"],
    "i4": ["int", "signed int", "int32", "int32_t"],
    "u4": ["uint", "unsigned int", "uint32", "uint32_t"],
    "i8": ["longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"],
    "u8": ["ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"],
    "f4": ["float"],
    "f8": ["double"],
}
NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
PARSES = 20  # of a header, at most
AUTOMATIC = 47  # the window bits for which zlib tells zlib and gzip streams apart
CHUNK = 2**20


@dataclass(frozen=True)
class Layout:
    """`shape` of an array of `dtype` that begins at byte `offset` of `file`; or whose packed stream (zlib, gzip) begins there.

    order: "F" when the first axis runs fastest. xyz: the axes are columns, rows, slices, as in medical files; else rows,
    columns, slices. offset: None when the voxels are the last bytes of the file. skip: bytes before the voxels in the unpacked
    stream. A value is the stored one · slope + intercept. affine: what `datasets.geometry` makes of the header, for the indices
    of `shape`; None where the format tells nothing. slices: the axis of `shape` along which slices were taken, where told.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    file: Path
    offset: int | None
    packed: bool = False
    skip: int = 0
    order: Literal["C", "F"] = "F"
    xyz: bool = True
    slope: float = 1.0
    intercept: float = 0.0
    affine: np.ndarray | None = None
    slices: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the voxels as they are stored, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def rows_first(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        first, second, slices = self.shape[:3]
        return (second, first, slices) if self.xyz else self.shape

    @property
    def rows_first_affine(self) -> np.ndarray | None:
        """`affine` for (row, column, slice)."""
        return self.affine[:, [1, 0, 2, 3]] if self.affine is not None and self.xyz else self.affine

    @property
    def rows_first_slices(self) -> int | None:
        """`slices` among (row, column, slice)."""
        return {0: 1, 1: 0}.get(self.slices, self.slices) if self.xyz else self.slices

    @property
    def scaled(self) -> bool:
        return (self.slope, self.intercept) != (1.0, 0.0)


def layout_of(path: Path, axes: tuple[int, ...] = (3,)) -> Layout:
    """The layout that a file's header promises, found to be possible. Raises whatever error a parser may.

    axes: how many it may have; a fourth one counts volumes.
    """
    name = path.name.lower()
    if name.endswith(".npy"):
        layout = _npy(path)
    elif name.endswith((".nii", ".nii.gz")):
        layout = _nifti(path)
    elif name.endswith((".mha", ".mhd")):
        layout = _meta_image(path)
    else:
        layout = _nrrd(path)
    _refuse_impossible(layout, axes)
    return layout


def array_of(layout: Layout) -> np.ndarray:
    """(H, W, C), or (H, W, C, T); memory-mapped where it is neither packed nor scaled."""
    stored = stored_array_of(layout)
    return (stored * np.float64(layout.slope) + layout.intercept).astype(np.float32) if layout.scaled else stored


def stored_array_of(layout: Layout) -> np.ndarray:
    """The same before slope and intercept."""
    if layout.packed:
        stored = _unpacked(layout)
    else:
        offset = os.path.getsize(layout.file) - layout.size if layout.offset is None else layout.offset
        stored = np.memmap(layout.file, layout.dtype, "r", offset, layout.shape, layout.order)
    return stored.swapaxes(0, 1) if layout.xyz else stored


def _refuse_impossible(layout: Layout, axes: tuple[int, ...]) -> None:
    if len(layout.shape) not in axes or min(layout.shape) < 1:
        raise ValueError(f"its shape is {layout.shape}; a volume is H x W x C, slices last, none of them 0")
    if layout.dtype.kind not in "biuf" or layout.dtype.itemsize > 8:
        raise ValueError(f"it holds {layout.dtype} values; a volume holds real numbers")
    if (layout.offset or 0) < 0 or not 0 <= layout.skip <= LONGEST_SKIP:
        raise ValueError("its header puts the voxels where they cannot be")
    held = os.path.getsize(layout.file) - (layout.offset or 0)
    if layout.skip + layout.size > held * (INFLATION if layout.packed else 1):
        raise ValueError(f"its header promises {layout.size} bytes of voxels, which {max(held, 0)} bytes cannot hold")
    if layout.rows_first[0] * layout.rows_first[1] > LARGEST_SLICE:
        raise ValueError(f"its slices have {layout.rows_first[0]} x {layout.rows_first[1]} pixels, over {LARGEST_SLICE}")
    if (layout.packed or layout.scaled) and layout.size > half_of_memory():
        raise ValueError(f"{layout.size} bytes of voxels are over half of the memory; store it as NPY")


def half_of_memory() -> int:
    """Bytes; no more are allocated because a file says so."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _unpacked(layout: Layout) -> np.ndarray:
    whole = np.empty(layout.skip + layout.size, np.uint8)
    with open(layout.file, "rb") as file:
        file.seek(layout.offset)
        _inflate(file, memoryview(whole))
    voxels = np.frombuffer(whole, layout.dtype, math.prod(layout.shape), layout.skip)
    return np.require(voxels, requirements="A").reshape(layout.shape, order=layout.order)


def _inflate(file, into: memoryview) -> None:
    """Fills `into` with what the zlib stream or the gzip members in `file` hold, and looks at the check sum behind it."""
    inflate, packed, filled, beyond = zlib.decompressobj(AUTOMATIC), b"", 0, 0
    while filled < len(into) or not inflate.eof:
        packed = packed or file.read(CHUNK)
        if not packed:
            raise EOFError("it is cut off")
        piece = inflate.decompress(packed, min(CHUNK, len(into) - filled) or CHUNK)
        if filled == len(into):
            beyond, piece = beyond + len(piece), b""  # more than was promised, which a damaged stream may hold as well
            if beyond > LONGEST_SKIP:
                return
        into[filled : filled + len(piece)] = piece
        filled += len(piece)
        packed = inflate.unconsumed_tail
        if inflate.eof and filled < len(into):
            packed, inflate = inflate.unused_data, zlib.decompressobj(AUTOMATIC)


# ---- one a format


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, type; `file` is at the first value then. Raises `ValueError`, and what NumPy does."""
    version = np.lib.format.read_magic(file)
    if version not in NPY_HEADERS:
        raise ValueError(f"version {version} of the format")
    begin = file.tell()
    for left in reversed(range(PARSES)):
        try:
            return NPY_HEADERS[version](file)
        except SystemError:  # Python 3.11 counts the depth of what threads parse at one time together
            if not left:
                raise
            file.seek(begin)


def _npy(path: Path) -> Layout:
    with open(path, "rb") as file:
        shape, columns_first, dtype = npy_header(file)
        return Layout(shape, dtype, path, file.tell(), order="F" if columns_first else "C", xyz=False)


def _nifti(path: Path) -> Layout:
    packed = path.name.lower().endswith(".gz")
    header, order, new = nifti_header(path)
    if new:
        dims, kind, offset, scale = _at(header, order + "i8", 16, 8), _at(header, order + "i2", 12), 168, 176
        begin, (slope, intercept) = int(_at(header, order + "i8", offset)[0]), _at(header, order + "f8", scale, 2)
    else:
        dims, kind = _at(header, order + "i2", 40, 8), _at(header, order + "i2", 70)
        begin, (slope, intercept) = int(_at(header, order + "f4", 108)[0]), _at(header, order + "f4", 112, 2)
    if int(kind[0]) not in NIFTI_TYPES:
        raise ValueError(f"values of NIfTI's type {int(kind[0])}; real numbers of at most 64 bits are read")
    if not 1 <= dims[0] <= 7:
        raise ValueError(f"{dims[0]} dimensions")
    shape = [int(length) for length in dims[1 : 1 + dims[0]]]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        slope, intercept = 1.0, 0.0
    begin = max(begin, 544 if new else 352)
    where = {"offset": 0, "skip": begin, "packed": True} if packed else {"offset": begin}
    dtype, affine = np.dtype(order + NIFTI_TYPES[int(kind[0])]), nifti_affine(header, order, new)
    slices = (header[524 if new else 39] >> 4 & 3) - 1  # of dim_info; 0 = not told
    return Layout(
        tuple(shape), dtype, path, **where, slope=float(slope), intercept=float(intercept), affine=affine,
        slices=slices if slices >= 0 else None,
    )  # fmt: skip


def nifti_header(path: Path) -> tuple[bytes, str, bool]:
    """(540 bytes, "<" or ">", whether it is NIfTI-2); behind the 348 of NIfTI-1 lie others. Raises `ValueError`."""
    packed = path.name.lower().endswith(".gz")
    with open(path, "rb") as file:
        header = zlib.decompressobj(AUTOMATIC).decompress(file.read(CHUNK), 540) if packed else file.read(540)
    header = header.ljust(540, b"\0")
    return header, *_nifti_kind(header)


def _nifti_kind(header: bytes) -> tuple[str, bool]:
    """("<" or ">", whether it is NIfTI-2)."""
    for order, name in [("<", "little"), (">", "big")]:
        size = int.from_bytes(header[:4], name)
        if size == 348 and header[344:348] == b"n+1\0":
            return order, False
        if size == 540 and header[4:8] == b"n+2\0":
            return order, True
    if header[344:348] == b"ni1\0" or header[4:8] == b"ni2\0":
        raise ValueError("its voxels are in another file (.img); save both as one .nii")
    raise ValueError("it does not begin as a NIfTI file does")


def _at(header: bytes, dtype: str, offset: int, count: int = 1) -> np.ndarray:
    return np.frombuffer(header, dtype, count, offset)


def _meta_image(path: Path) -> Layout:
    text, end = _text_header(path, rb"^ElementDataFile\s*=[^\n]*\n?")
    fields = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}
    said = lambda *names: any(fields.get(name, "False").lower() in ("true", "1") for name in names)  # noqa: E731
    shape = tuple(map(int, fields["DimSize"].split()))
    if len(shape) != int(fields["NDims"]) or fields["ElementType"] not in META_TYPES:
        raise ValueError(f"DimSize {fields['DimSize']}, ElementType {fields['ElementType']}")
    if int(fields.get("ElementNumberOfChannels", 1)) != 1:
        raise ValueError("several values a voxel; one is read")
    if fields.get("BinaryData", "True").lower() not in ("true", "1"):
        raise ValueError("its voxels are text; save it in binary form")
    name, skip = fields["ElementDataFile"], int(fields.get("HeaderSize", 0))
    packed = said("CompressedData")
    file, offset = (path, end) if name.upper() == "LOCAL" else (_beside(path, name), None if skip == -1 else skip)
    if packed and offset is None:
        raise ValueError("HeaderSize -1 of compressed voxels")
    order = ">" if said("BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
    dtype = np.dtype(order + META_TYPES[fields["ElementType"]])
    return Layout(shape, dtype, file, offset, packed, affine=meta_image_affine(fields))


def _nrrd(path: Path) -> Layout:
    text, end = _text_header(path, rb"^\r?\n")
    if not text.startswith("NRRD000"):
        raise ValueError("it does not begin as an NRRD file does")
    lines = [line for line in text.splitlines()[1:] if ": " in line and not line.startswith("#")]
    fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(": ") for line in lines)}
    types = {name: kind for kind, names in NRRD_TYPES.items() for name in names}
    shape = tuple(map(int, fields["sizes"].split()))
    if len(shape) != int(fields["dimension"]) or fields["type"] not in types:
        raise ValueError(f"sizes {fields['sizes']}, type {fields['type']}")
    kinds = fields.get("kinds", "").lower().split()
    if set(kinds[:3]) - {"domain", "space", "none", "???"}:
        raise ValueError(f"kinds {fields['kinds']}; three axes of space are read")
    if fields["encoding"] not in ("raw", "gzip", "gz"):
        raise ValueError(f"encoding {fields['encoding']}; raw and gzip are read")
    skip = int(fields.get("byte skip", fields.get("byteskip", 0)))
    if int(fields.get("line skip", fields.get("lineskip", 0))):
        raise ValueError("line skip; its voxels must begin at a known byte")
    name = fields.get("data file", fields.get("datafile"))
    file, begin = (path, end) if name is None else (_beside(path, name), 0)
    dtype = np.dtype((">" if fields.get("endian") == "big" else "<") + types[fields["type"]])
    affine = nrrd_affine(fields)
    if fields["encoding"] != "raw":
        return Layout(shape, dtype, file, begin, packed=True, skip=skip, affine=affine)
    return Layout(shape, dtype, file, None if skip == -1 else begin + skip, affine=affine)


def _text_header(path: Path, last_line: bytes) -> tuple[str, int]:
    """The text to the line that ends a header, and the byte after that line."""
    with open(path, "rb") as file:
        start = file.read(LONGEST_HEADER)
    end = re.search(last_line, start, re.MULTILINE)
    if not end:
        raise ValueError("its header has no end")
    return start[: end.end()].decode("utf-8", "replace"), end.end()


def _beside(path: Path, name: str) -> Path:
    """The file that a header names: in its folder or below, whatever strangers wrote."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
        raise ValueError(f"its voxels are said to be in {name!r}, which is not beside it")
    return path.parent / name
