"""Files of any kind, one after the other, as frozen networks are shown them; what cannot be read becomes a sentence."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .errors import DataError
from .fit import Fitted, evenly, fit_volume
from .foreign import Raw
from .loader import once_loader
from .pictures import TYPE_RANGES
from .preparing import compacted, hung
from .reading import held_by_memory, refuse_constant, refuse_nonfinite
from .sources import LABELS, Found, Source, find_sources, volumes_of
from .volumes import collate_volumes, widest_type


class Place(NamedTuple):
    """Of what an embedding is: the number of the file; of the volume in it, where it has several; of the slice; -1 = none."""

    file: int
    frame: int = -1
    slice: int = -1


class AnyFiles(Dataset):
    """Files by (index, turn), each once, at its centre, not augmented: volumes turned as `prepare_data.py` turns them.

    shown: target_shape (N, H, W), fit, normalise. bound: the number of slices that the network takes, None = any. slices: a
    volume is shown as all of its slices, one by one, with the intensity range of the whole.
    """

    def __init__(self, sources: list[Source], shown, bound: int | None = None, slices: bool = False):
        self.sources, self.shown, self.bound, self.slices = sources, shown, bound, slices

    def __len__(self) -> int:
        return len(self.sources)

    def name_of(self, index: int) -> str:
        return str(self.sources[index].files[0])

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index = place[0]
        try:
            with held_by_memory(self.sources[index].files[0]):
                parts, fault = self._parts(self.sources[index]), ""
        except DataError as error:
            parts, fault = [], str(error)
        kind = "picture" if self.sources[index].is_picture else "slice" if self.slices else "volume"
        return {"index": index, "kind": kind, "parts": parts, "fault": fault}

    def _parts(self, source: Source) -> list[Fitted]:
        """The volumes of a file, or its picture, fitted."""
        parts = [self._fitted(source, raw) for raw in volumes_of(source, "auto", "")]
        for part in parts:
            refuse_nonfinite(source.files[0], part.slices, part.low, part.high)
        return parts

    def _fitted(self, source: Source, raw: Raw) -> Fitted:
        plane, fit = self.shown.target_shape[1:], self.shown.fit
        if source.is_picture:
            pixels = intensities_of(raw)[:, :, :1]
            fitted = fit_volume(pixels, (1, *plane), None, fit)
            whole = TYPE_RANGES.get(pixels.dtype) if self.shown.normalise == "imagenet" else None
            return replace(fitted, low=whole[0], high=whole[1]) if whole else fitted
        volume = intensities_of(hung(raw))
        if self.slices:
            fitted = fit_volume(volume, (volume.shape[2], *plane), None, fit)
        else:
            if self.bound and self.bound != volume.shape[2]:
                volume = volume[:, :, evenly(volume.shape[2], self.bound)]
            fitted = fit_volume(volume, (self.bound or self.shown.target_shape[0], *plane), None, fit)
        refuse_constant(source.files[0], fitted.slices.numpy(), volume)
        return fitted


def intensities_of(raw: Raw) -> np.ndarray:
    """(H, W, C): the values that a file means; whole numbers of 16 bits where they are, as prepared files hold them."""
    voxels, slope, intercept = raw.voxels, float(raw.slope), float(raw.intercept)
    if (slope, intercept) == (1.0, 0.0) and (voxels.dtype.kind == "f" or voxels.dtype.itemsize <= 2):
        return voxels
    if voxels.dtype.kind in "biu" and slope.is_integer() and intercept.is_integer():
        stored, scale, offset, _ = compacted(raw)
        if (scale, offset) == (1.0, 0.0):
            return stored
    return (voxels * np.float64(slope) + intercept).astype(np.float32)


def files_at(
    place: Path,
    processes: int,
    include: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] = LABELS,
    progress: Callable = lambda things, **about: things,
) -> tuple[Path, Found]:
    """(root, `Found`): a folder and all that lies in it, as `find_sources` tells, also twice; or a file and its folder."""
    if not place.is_file():
        return place, find_sources(place, processes, include, exclude, progress=progress, twice=True)
    return place.parent, find_sources(place.parent, 1, exclude=(), only=(place.name,), twice=True)


def read_volume(path: str | Path) -> np.ndarray:
    """(N, H, W): the volume of a file of any format, or of a folder with one DICOM series, turned as for training.

    Raises `DataError` where that is not one volume.
    """
    found = files_at(Path(path), 1)[1]
    if found.faults:
        raise DataError(found.faults[0])
    volumes = [raw for source in found.sources if not source.is_picture for raw in volumes_of(source, "auto", "")]
    if len(volumes) != 1:
        raise DataError(f"{path} holds {len(volumes)} volumes; name a file, or a folder, of one.")
    return np.moveaxis(intensities_of(hung(volumes[0])), 2, 0)


def streamed(files: AnyFiles, batch_size: int, workers: int) -> DataLoader:
    """All files in their order, `batch_size` at a time; what is held in memory does not depend on their number."""
    return once_loader(files, collate_files, batch_size, workers)


def collate_files(samples: list[dict]) -> dict:
    """A batch: files (n,) numbers, of those that were read, too; faults: sentences, by number.

    volumes: as `collate_volumes` makes it, with its `places`; None where there are none. slices: pictures and slices of
    volumes as pixels (m, H, W), low, high (m,), and `places`; None likewise.
    """
    faults = {sample["index"]: sample["fault"] for sample in samples if sample["fault"]}
    volumes = [one for sample in samples if sample["kind"] == "volume" for one in _placed(sample)]
    slices = [(*one, sample["kind"]) for sample in samples if sample["kind"] != "volume" for one in _placed(sample)]
    return {
        "files": [sample["index"] for sample in samples],
        "faults": faults,
        "volumes": _volumes(volumes) if volumes else None,
        "slices": _slices(slices) if slices else None,
    }


def _placed(sample: dict) -> list[tuple[Place, Fitted]]:
    parts = sample["parts"]
    return [(Place(sample["index"], frame if len(parts) > 1 else -1), part) for frame, part in enumerate(parts)]


def _volumes(parts: list[tuple[Place, Fitted]]) -> dict:
    batch = collate_volumes([{"index": place.file, "turn": 0, "fitted": fitted} for place, fitted in parts])
    return {**batch, "places": [place for place, _ in parts]}


def _slices(parts: list[tuple[Place, Fitted, str]]) -> dict:
    """A picture is the only slice of its file, and has no number."""
    all_fitted = [fitted for _, fitted, _ in parts]
    dtype, many = widest_type([fitted.slices.dtype for fitted in all_fitted]), torch.tensor([len(f.slices) for f in all_fitted])
    ends = {end: torch.tensor([getattr(fitted, end) for fitted in all_fitted]) for end in ("low", "high")}
    places = [
        place if kind == "picture" else place._replace(slice=number)
        for place, fitted, kind in parts
        for number in range(len(fitted.slices))
    ]
    pixels = torch.cat([fitted.slices.to(dtype) for fitted in all_fitted])
    return {"pixels": pixels, **{end: of.repeat_interleave(many) for end, of in ends.items()}, "places": places}
