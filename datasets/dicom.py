"""DICOM: which images of a tree of files make a volume, in which order, and where it lies in the patient.

Headers are read by pydicom, without pixels; compressed pixels by GDCM, inside SimpleITK. Nothing of a header but what is
named in `TAGS` is looked at.
"""

import contextlib
import hashlib
import itertools
import locale
import logging
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from .errors import DataError
from .formats import half_of_memory

TAGS = [
    "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "Rows", "Columns", "SamplesPerPixel",
    "BitsAllocated", "BitsStored", "PixelRepresentation", "NumberOfFrames", "PhotometricInterpretation", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices", "SliceThickness", "RescaleSlope",
    "RescaleIntercept", "InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier", "EchoTime", "DiffusionBValue",
    "TriggerTime", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
# its warnings quote what headers hold: names
warnings.filterwarnings("ignore", module="pydicom")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

NO_IMAGES = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG", "DOC")  # and nothing to learn from
ORDER = ("TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "TriggerTime", "AcquisitionNumber", "InstanceNumber")
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
DECODED_BY_PYDICOM = {*PLAIN, "1.2.840.10008.1.2.5"}  # run lengths
DEFLATED = "1.2.840.10008.1.2.1.99"
EXACT = 0.01  # mm, within which positions must lie where the affine says
TILTED = 0.1  # degrees


@dataclass(frozen=True)
class Image:
    """One image, or one frame of a file.

    subject: PatientID, or the study where that is empty. whitest: of stored values, where they are bright downwards.
    position (3,): of its first pixel, mm. directions (6,): along a row, along a column. spacing (2,): of rows, of columns, mm.
    """

    path: Path
    frame: int
    frames: int
    syntax: str
    uid: str
    series: str
    subject: str
    modality: str
    shape: tuple[int, int]
    whitest: float | None
    position: tuple[float, ...] | None
    directions: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float
    slope: float
    intercept: float
    order: tuple[float, ...]

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.directions[:3], self.directions[3:])

    @property
    def plane(self) -> tuple:
        """What images of one stack have in common."""
        directions = tuple(np.round(self.directions, 3) + 0.0) if self.directions else None
        spacing = tuple(np.round(self.spacing, 4)) if self.spacing else None
        return self.series, self.shape, directions, spacing


@dataclass(frozen=True)
class Stack:
    """The images of a volume, from its first slice to its last. affine: of (row, column, slice). steps (C,): mm from the first
    slice to each, where that is not even; else None. notes: what is unusual, in words."""

    images: tuple[Image, ...]
    affine: np.ndarray
    steps: np.ndarray | None
    notes: tuple[str, ...]


def images_of(path: Path) -> list[Image]:
    """The images of a DICOM file; none for what is no DICOM image (reports, directories). Raises `DataError`."""
    try:
        if read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED:
            # header and pixels are one stream, which pydicom unpacks whole before anybody has seen a size in it
            raise _Impossible("it is deflated as a whole; save it uncompressed, with dcmconv of DCMTK")
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
        return _images(path, header)
    except InvalidDicomError:
        raise DataError(f"{path} is no DICOM file; replace or remove it.") from None
    except _Impossible as error:
        raise DataError(f"{path} cannot be read as a DICOM image ({error}); replace or remove it.") from None
    except Exception:  # whose text may quote the header
        raise DataError(f"{path} cannot be read as a DICOM image (its header is damaged); replace or remove it.") from None


class _Impossible(ValueError):
    """What a header says cannot be; in words that quote no text of it."""


def _images(path: Path, header) -> list[Image]:
    if str(header.get("Modality", "")) in NO_IMAGES:
        return []
    if "Rows" not in header or "Columns" not in header:
        kind = pydicom.uid.UID(str(header.file_meta.get("MediaStorageSOPClassUID", "")))
        if kind.name == kind or "Image Storage" in kind.name:
            raise _Impossible("its header ends before the size of the image")
        return []
    count, shape = int(header.get("NumberOfFrames", None) or 1), (int(header.Rows), int(header.Columns))
    _refuse_impossible(path, header, count, shape)
    if count > 1 and "PerFrameFunctionalGroupsSequence" not in header:
        raise _Impossible(f"{count} frames without positions")
    shared = header.get("SharedFunctionalGroupsSequence", [None])[0]
    of_frames = header.get("PerFrameFunctionalGroupsSequence", [None])
    if len(of_frames) != count:
        raise _Impossible(f"{count} frames, but {len(of_frames)} descriptions of frames")
    return [_image(path, header, shared, of_frame, frame, count, shape) for frame, of_frame in enumerate(of_frames)]


def _image(path: Path, header, shared, of_frame, frame: int, count: int, shape: tuple[int, int]) -> Image:
    def value(name: str, group: str = ""):
        for where in (of_frame, shared):
            if where is not None and group in where and name in where[group].value[0]:
                return where[group].value[0].get(name)
        return header.get(name)

    numbers = lambda found, least: tuple(map(float, found)) if found is not None and len(found) >= least else None  # noqa: E731
    directions = numbers(value("ImageOrientationPatient", "PlaneOrientationSequence"), 6)
    spacing = value("PixelSpacing", "PixelMeasuresSequence") or header.get("ImagerPixelSpacing")
    thickness = value("SpacingBetweenSlices", "PixelMeasuresSequence") or value("SliceThickness", "PixelMeasuresSequence")
    slope = value("RescaleSlope", "PixelValueTransformationSequence")
    intercept = value("RescaleIntercept", "PixelValueTransformationSequence")
    slope, intercept = float(1 if slope is None else slope), float(intercept or 0)
    if not slope or not np.isfinite([slope, intercept]).all():
        raise _Impossible(f"RescaleSlope {slope:g}, RescaleIntercept {intercept:g}")
    position = numbers(value("ImagePositionPatient", "PlanePositionSequence"), 3)
    order = [header.get(name) for name in ORDER[:-1]]
    # what anonymisers leave out, or give to all images alike, is made up for by the content and the place
    uid = str(header.get("SOPInstanceUID", "") or "") or hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return Image(
        path, frame, count, str(header.file_meta.TransferSyntaxUID), f"{uid}/{frame}/{position}",
        str(header.get("SeriesInstanceUID", path.parent)),
        str(header.get("PatientID", "") or "") or str(header.get("StudyInstanceUID", "") or ""),
        "".join(c for c in str(header.get("Modality", "")) if c.isalnum())[:8], shape,
        _whitest(header), position, directions, numbers(spacing, 2), float(thickness or 1), slope, intercept,
        (*(float(number or 0) for number in order), float(header.get("InstanceNumber", None) or 0) + frame / count),
    )  # fmt: skip


def _whitest(header) -> float | None:
    """The sum of the darkest and the brightest value that may be stored, where the lowest value is the brightest one."""
    if str(header.get("PhotometricInterpretation", "")) != "MONOCHROME1":
        return None
    signed = int(header.get("PixelRepresentation", 0) or 0)
    return -1.0 if signed else 2.0 ** int(header.get("BitsStored", None) or header.get("BitsAllocated", 16)) - 1


def _refuse_impossible(path: Path, header, count: int, shape: tuple[int, int]) -> None:
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise _Impossible("several values a pixel; one is read")
    size = count * shape[0] * shape[1] * int(header.get("BitsAllocated", 16)) // 8
    if min(count, *shape) < 1:
        raise _Impossible(f"{count} frames of {shape[0]} x {shape[1]} pixels")
    plain = str(header.file_meta.TransferSyntaxUID) in PLAIN
    if size > (os.path.getsize(path) if plain else half_of_memory()):
        raise _Impossible(f"its header promises {size} bytes of pixels")


def stacks_of(images: Iterable[Image]) -> tuple[list[Stack], list[Image], list[str]]:
    """Volumes, images that lie nowhere (radiographs), and sentences about what is no volume. Images with one UID count once."""
    unique = {image.uid: image for image in images}.values()
    alone = [image for image in unique if image.position is None or image.directions is None]
    placed = sorted((image for image in unique if image.position and image.directions), key=lambda image: repr(image.plane))
    stacks, faults = [], []
    for _, of_plane in itertools.groupby(placed, key=lambda image: repr(image.plane)):
        of_plane = list(of_plane)
        try:
            stacks += [_stack(of_volume) for of_one in _acquisitions(of_plane) for of_volume in _volumes(of_one)]
        except ValueError as error:
            faults.append(f"{of_plane[0].path.parent}: the series of {of_plane[0].path.name} is no volume ({error}).")
    return stacks, alone, faults


def _acquisitions(images: list[Image]) -> list[list[Image]]:
    """Images of one series and plane, apart by acquisition where those lie over each other; a scan bed by bed is one volume."""
    normal, groups = images[0].normal, {}
    for image in images:
        groups.setdefault(image.order[ORDER.index("AcquisitionNumber")], []).append(float(np.dot(image.position, normal)))
    ranges = sorted((min(places), max(places)) for places in groups.values())
    over = any(later[0] < before[1] for before, later in itertools.pairwise(ranges))
    if not over or min(map(len, groups.values())) < 2:
        return [images]
    number = lambda image: image.order[ORDER.index("AcquisitionNumber")]  # noqa: E731
    return [list(of_one) for _, of_one in itertools.groupby(sorted(images, key=number), key=number)]


def _volumes(images: list[Image]) -> list[list[Image]]:
    """Images of one plane → those of each volume, sorted along the normal. Where k lie at each place, there are k volumes."""
    normal = images[0].normal
    along = lambda image: float(np.dot(image.position, normal))  # noqa: E731
    images = sorted(images, key=along)
    places: list[list[Image]] = []
    for image in images:
        if places and along(image) - along(places[-1][0]) < EXACT:
            places[-1].append(image)
        else:
            places.append([image])
    counts = {len(place) for place in places}
    if len(counts) > 1:
        raise ValueError(f"{len(places)} places with {min(counts)} to {max(counts)} images each")
    ordered = [sorted(place, key=lambda image: image.order) for place in places]
    return [[place[number] for place in ordered] for number in range(counts.pop())]


def _stack(images: list[Image]) -> Stack:
    first, notes = images[0], []
    normal, spacing = first.normal, first.spacing or (1.0, 1.0)
    if not first.spacing:
        notes.append("its pixels have no size; 1 mm was taken")
    places = np.array([image.position for image in images])
    gaps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    gap = float(np.median(gaps)) if len(gaps) else first.thickness
    direction = (places[-1] - places[0]) / np.linalg.norm(places[-1] - places[0]) if len(gaps) else normal
    steps = (places - places[0]) @ direction
    if np.abs(places - places[0] - steps[:, None] * direction).max() > max(EXACT, 0.02 * gap):
        raise ValueError("its slices do not lie in a row")
    angle = float(np.degrees(np.arccos(np.clip(abs(direction @ normal) / np.linalg.norm(normal), -1, 1))))
    if angle > TILTED:
        notes.append(f"the gantry is tilted by {angle:.1f} degrees; the affine tells, voxels are as they were taken")
    missing = [(number, round(of / gap) - 1) for number, of in enumerate(gaps) if of > 1.5 * gap]
    if missing:
        notes.append(f"{sum(many for _, many in missing)} slices are missing, the first after slice {missing[0][0] + 1}")
    even = gap if missing or not len(gaps) else steps[-1] / len(gaps)
    uneven = np.abs(steps - even * np.arange(len(steps))).max() > EXACT / 2
    if uneven and not missing:
        notes.append("its slices are unevenly spaced")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = np.multiply(first.directions[3:], spacing[0]), np.multiply(first.directions[:3], spacing[1])
    affine[:3, 2], affine[:3, 3] = direction * even, places[0]
    return Stack(tuple(images), affine, steps if uneven else None, tuple(notes))


def pixels_of(images: Iterable[Image]) -> tuple[np.ndarray, float, float]:
    """(H, W, C) as stored, slope and intercept; already applied, and 1 and 0, where they differ between images.

    In memory slice follows slice, as in the files: interleaved here and parted when written, they took a third longer.

    Raises `DataError` for pixels that cannot be decoded.
    """
    images, files, slices = list(images), {}, []
    for image in images:
        try:
            if image.path not in files:
                files = {image.path: _decoded(image)}
            slices.append(_frame(files[image.path], image))
        except _Impossible as error:
            raise DataError(f"{image.path} cannot be decoded ({error}); replace or remove it.") from None
        except Exception:
            raise DataError(f"{image.path} cannot be decoded (its pixels are damaged); replace or remove it.") from None
    scales = {(slope, intercept) for _, slope, intercept in slices}
    if len(scales) == 1:
        return np.moveaxis(np.stack([pixels for pixels, _, _ in slices]), 0, -1), *scales.pop()
    applied = [(pixels * slope + intercept).astype(np.float32) for pixels, slope, intercept in slices]
    return np.moveaxis(np.stack(applied), 0, -1), 1.0, 0.0


def _frame(decoded: tuple[np.ndarray, bool], image: Image) -> tuple[np.ndarray, float, float]:
    pixels, applied = decoded
    pixels = pixels[image.frame] if pixels.ndim == 3 else pixels
    if image.whitest is not None and not applied:  # GDCM has turned its values round
        pixels = (image.whitest - pixels.astype(np.float64)).astype(pixels.dtype)
    if pixels.shape != image.shape:
        raise _Impossible(f"{pixels.shape[0]} x {pixels.shape[1]} pixels, its header says {image.shape[0]} x {image.shape[1]}")
    slope, intercept = (1.0, 0.0) if applied else (image.slope, image.intercept)
    return pixels, slope, intercept


@contextlib.contextmanager
def same_locale():
    """GDCM leaves the whole process in the C locale, where text files are ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


def _decoded(image: Image) -> tuple[np.ndarray, bool]:
    """The pixels of a file, and whether slope and intercept were applied to them."""
    if image.syntax in DECODED_BY_PYDICOM:
        return pydicom.dcmread(image.path).pixel_array, False
    import SimpleITK  # takes half a second, for compressed files alone

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(image.path))
    reader.SetImageIO("GDCMImageIO")
    with same_locale():
        pixels = SimpleITK.GetArrayFromImage(reader.Execute())
    return (pixels[0] if image.frames == 1 and pixels.ndim == 3 else pixels), True
