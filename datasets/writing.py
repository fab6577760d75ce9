"""One source after the other becomes files: what a worker process of `prepare_data.py` does."""

import errno
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .errors import DataError
from .fit import shrink_plane
from .foreign import Raw
from .geometry import orientation_of, spacing_of
from .manifest import atomic
from .preparing import Prepared, as_picture, compacted, grey_levels, prepare, write_npy
from .sources import Source, volumes_of

DARK = 15 / 255  # of the grey levels; what is below is air


@dataclass(frozen=True)
class Place:
    """What a source is called, whose it is, and where it goes."""

    case: str
    subject: str
    split: str
    collection: str


@dataclass
class Rows:
    """What a worker made of a source: rows of the two manifests, remarks in words."""

    volumes: list[dict]
    pictures: list[dict]
    notes: list[str]


class NoRoom(str):
    """Why nothing more can be written, in place of what a worker made."""


def prepare_source(source: Source, place: Place, config) -> Rows | str:
    """Writes the volumes, slices or picture of a source; or the sentence that says why it cannot be prepared."""
    written: list[Path] = []
    try:
        return _prepare(source, place, config, written)
    except DataError as error:
        fault: Rows | str = str(error)
    except OSError as error:
        fault = _of_the_disk(error, source, config)
    except MemoryError:
        fault = f"{source.files[0]} needs more memory than there is; use fewer --processes."
    for path in written:  # half of a source would be of nobody
        path.unlink(missing_ok=True)
    return fault


def _of_the_disk(error: OSError, source: Source, config) -> str:
    outputs = [str(Path(root).absolute()) for root in (config.data_path, config.image_path) if root]
    of_output = str(Path(error.filename or "").absolute()).startswith(tuple(outputs)) if error.filename else False
    if of_output or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return NoRoom(f"{error.filename or config.data_path or config.image_path} cannot be written ({error.strerror})")
    return f"{source.files[0]} cannot be read ({error.strerror}); replace or remove the file."


def _prepare(source: Source, place: Place, config, written: list[Path]) -> Rows:
    """written: takes up every file, for the case that a later one fails."""
    raws = volumes_of(source, config.slice_axis, config.array)
    rows = Rows([], [], [])
    for number, raw in enumerate(raws):
        case = place.case if len(raws) == 1 else f"{place.case}_{number:03d}"
        part = f"{number + 1}/{len(raws)}"
        common = {"case": case, "subject": place.subject, "split": place.split, "part": part, "source": source.key}
        if source.is_picture:
            written.append(write_png(_picture_path(config, place, case), _picture(raw, config.largest)))
            rows.pictures.append(common | {"pictures": 1})
            continue
        prepared = _prepared(raw, config, source)
        pictures = _write_slices(prepared, config, place, case, written) if config.image_path else 0
        if config.image_path:
            rows.pictures.append(common | {"pictures": pictures})
        if config.data_path:
            written.append(pending(Path(config.data_path) / place.collection / f"{case}.npy"))
            rows.volumes.append(_write_volume(prepared, raw.modality, written[-1], common) | {"pictures": pictures})
        rows.notes += [note for note in prepared.notes if note not in rows.notes]
    return rows


def pending(path: Path) -> Path:
    """Where a volume waits until it is in the manifest."""
    return path.with_name(f".{path.name}.done.tmp")


def _prepared(raw: Raw, config, source: Source) -> Prepared:
    try:
        return prepare(raw, config.spacing, config.window, config.crop_body, config.replace_nan)
    except DataError as error:
        raise DataError(f"{source.files[0]} is not prepared: {error}.") from None


def _write_volume(prepared: Prepared, modality: str, path: Path, common: dict) -> dict:
    with atomic(path) as out:
        digest = write_npy(out, prepared.voxels)
    affine, spacing = prepared.affine, prepared.spacing
    spacing = spacing if affine is None else tuple(spacing_of(affine))
    return common | {
        "file": f"{common['case']}.npy",
        "shape": " ".join(map(str, prepared.voxels.shape)),
        "dtype": prepared.voxels.dtype.name,
        "scale": repr(float(prepared.scale)),
        "offset": repr(float(prepared.offset)),
        "spacing": "" if spacing is None else " ".join(f"{step:.6g}" for step in spacing),
        "orientation": "" if affine is None else orientation_of(affine),
        "affine": "" if affine is None else " ".join(f"{number:.9g}" for number in affine[:3].ravel() + 0.0),
        "positions": "" if prepared.positions is None else " ".join(f"{place:.6g}" for place in prepared.positions),
        "modality": modality,
        "sha256": digest,
        "notes": "; ".join(prepared.notes),
    }


def _write_slices(prepared: Prepared, config, place: Place, case: str, written: list[Path]) -> int:
    """PNG files of slices that show something; how many."""
    low, high = grey_levels(prepared.voxels, bool(config.window))
    count = 0
    for number in range(0, prepared.voxels.shape[2], config.slice_step):
        pixels = as_picture(prepared.voxels[:, :, number], low, high)
        if (pixels > 255 * DARK).mean() >= config.least_content:
            written.append(write_png(_picture_path(config, place, f"{case}_{number:03d}"), _shrunk(pixels, config.largest)))
            count += 1
    return count


def _picture(raw: Raw, largest: int) -> np.ndarray:
    pixels = compacted(raw)[0][:, :, 0]
    if pixels.dtype == np.int16:
        pixels = (pixels.astype(np.int32) - pixels.min()).astype(np.uint16)
    return _shrunk(pixels, largest)


def _shrunk(pixels: np.ndarray, largest: int) -> np.ndarray:
    longer = max(pixels.shape)
    if not largest or longer <= largest:
        return pixels
    size = tuple(max(1, round(length * largest / longer)) for length in pixels.shape)
    return (
        shrink_plane(torch.from_numpy(np.ascontiguousarray(pixels, np.float32))[None], size)[0]
        .round()
        .numpy()
        .astype(pixels.dtype)
    )


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return path


def picture_folder(root: Path, split: str, collection: str) -> Path:
    return root / split / collection


def _picture_path(config, place: Place, name: str) -> Path:
    return picture_folder(Path(config.image_path), place.split, place.collection) / f"{name}.png"
