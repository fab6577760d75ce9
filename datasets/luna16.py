"""Nodule candidates of LUNA16 as small labelled volumes, which `finetune_classification.py --preset luna16` learns from.

A candidate is a point of a scan, in millimetres of the patient, that is a nodule (class 1) or only looks like one (0). The
challenge's ten folders subset0 … subset9 are its folds; here one is the validation split, one the test split. There are some
500 false candidates to a nodule: of each fold those with the smallest hash are kept, `--negatives` to a nodule.

Reads    <volumes>/subset*/<seriesuid>.mhd (or .mha, .nii, .nii.gz, .nrrd), a table seriesuid,coordX,coordY,coordZ,class
Writes   <output>/subset*/<seriesuid>_<row>.npy (H x W x C, int16 Hounsfield units), <output>/labels.csv
Run      python -m datasets.luna16 --volumes LUNA16 --candidates LUNA16/candidates_V2.csv --output training_data_luna16
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from tqdm import tqdm

from .errors import DataError, as_sentences
from .files import VOLUME_ENDINGS, hash_of, read_table
from .formats import layout_of
from .identity import stem_of
from .manifest import table, write_text
from .patches import cut_patch, voxel_of
from .reading import open_volume
from .tables import LABELS

AIR = -1000  # Hounsfield units
FOLDS = set(range(10))
COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "class")


@dataclass(kw_only=True)
class Candidates:
    volumes: str  # folder with subset0 … subset9
    candidates: str  # the table of candidates
    output: str  # folder of the patches; a new one
    shape: tuple[int, int, int] = (32, 64, 64)  # slices, rows, columns of a patch
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)  # mm from slice to slice, row to row, column to column
    negatives: int = 10  # false candidates kept for each nodule of a fold (0 = all)
    valid: tuple[int, ...] = (8,)  # folds of the validation split
    test: tuple[int, ...] = (9,)  # folds of the test split
    missing: Literal["stop", "leave_out"] = "stop"  # what is done about candidates of series that are not there


@dataclass(frozen=True)
class Candidate:
    """A row of the table, by its number; x, y, z in LPS mm."""

    row: int
    series: str
    point: tuple[float, float, float]
    label: str


def main(config: Candidates) -> None:
    refuse_impossible(config)
    output = Path(config.output)
    if (output / "labels.csv").exists():
        raise DataError(f"{output} holds labelled files already; name a new folder with --output.")
    scans = find_scans(Path(config.volumes))
    candidates = read_candidates(Path(config.candidates))
    there = [candidate for candidate in candidates if candidate.series in scans]
    absent = len({c.series for c in candidates}) - len({c.series for c in there})
    if not there or (absent and config.missing == "stop"):
        raise DataError(
            f"{absent} series of {config.candidates} have no volume below {config.volumes}; get all subsets, or leave out what "
            "is not there: --missing leave_out."
        )
    kept = kept_candidates(there, scans, config.negatives)
    rows = []
    for candidate, patch in tqdm(patches_of(kept, scans, config.shape, config.spacing), "patches", len(kept), unit="patch"):
        fold = scans[candidate.series].parent.name
        name = f"{fold}/{candidate.series}_{candidate.row}.npy"
        (output / fold).mkdir(parents=True, exist_ok=True)
        np.save(output / name, patch)
        split = split_of(fold, config.valid, config.test)
        rows.append(dict(zip(LABELS, (name, candidate.label, candidate.series, split))))
    write_text(output / "labels.csv", table(LABELS, sorted(rows, key=lambda row: row["path"])))
    empty = [split for split in ("train", "valid", "test") if split not in {row["split"] for row in rows}]
    nodules = sum(candidate.label == "1" for candidate in kept)
    print(
        f"wrote {nodules} nodules and {len(kept) - nodules} other candidates of {len({c.series for c in kept})} series to "
        f"{output}"
        + (f"; {absent} series are not there and were left out" if absent else "")
        + (f"; nothing is in the split {' and '.join(empty)}" if empty else "")
    )


def refuse_impossible(config: Candidates) -> None:
    """Raises `DataError` for numbers that no patches, or no splits, can be made with."""
    in_words = lambda numbers: " ".join(f"{number:g}" for number in numbers)  # noqa: E731
    if min(config.shape) < 1:
        raise DataError(f"--shape is {in_words(config.shape)}; slices, rows and columns of a patch must be 1 or more.")
    if not all(0 < step < math.inf for step in config.spacing):
        raise DataError(f"--spacing is {in_words(config.spacing)}; the mm between slices, rows and columns must be above 0.")
    if config.negatives < 0:
        raise DataError(f"--negatives is {config.negatives}; it must be 0, which keeps all, or above.")
    for name, folds in (("valid", config.valid), ("test", config.test)):
        if not set(folds) <= FOLDS:
            raise DataError(f"--{name} is {in_words(folds)}; the folds are 0 to 9, of subset0 to subset9.")
    both = sorted(set(config.valid) & set(config.test))
    if both:
        raise DataError(f"--valid and --test both name the fold {both[0]}; a fold is in one split.")
    if {*config.valid, *config.test} == FOLDS:
        raise DataError("--valid and --test name all ten folds; leave one, at least, to train on.")


def find_scans(root: Path) -> dict[str, Path]:
    """The volume of each series below subset0 … subset9. Raises `DataError` when there is none, or one series twice."""
    scans: dict[str, Path] = {}
    for path in sorted(root.glob("subset[0-9]/*")):
        if path.name.lower().endswith(VOLUME_ENDINGS):
            series = stem_of(path.name)
            if series in scans:
                raise DataError(f"{path} and {scans[series]} are of one series; keep one of them.")
            scans[series] = path
    if not scans:
        raise DataError(f"{root} has no volumes in subset0 … subset9; name the folder that these are in with --volumes.")
    return scans


def read_candidates(path: Path) -> list[Candidate]:
    """The rows of the table. Raises `DataError` when it is none, or a value is no number."""
    rows, there = read_table(path, "--candidates")
    if not set(COLUMNS) <= set(there):
        raise DataError(f"{path} needs the columns {','.join(COLUMNS)} in its first line.")
    return [_candidate(path, number, row) for number, row in enumerate(rows)]


def _candidate(path: Path, number: int, row: dict) -> Candidate:
    try:
        point = tuple(float(row[name]) for name in COLUMNS[1:4])
        if row["class"] in ("0", "1") and np.isfinite(point).all():
            return Candidate(number, row["seriesuid"], point, row["class"])
    except (TypeError, ValueError):
        pass
    raise DataError(f"{path}, line {number + 2}: coordinates must be numbers (mm), the class 0 or 1.")


def kept_candidates(candidates: list[Candidate], scans: dict[str, Path], negatives: int) -> list[Candidate]:
    """All nodules and, of each fold, `negatives` times as many of the others: those with the smallest hash. 0 keeps all.

    So which ones are kept depends on no order, and a larger number keeps the same and more.
    """
    kept = [candidate for candidate in candidates if candidate.label == "1" or not negatives]
    for fold in sorted({path.parent for path in scans.values()}) if negatives else ():
        of_fold = [candidate for candidate in candidates if scans[candidate.series].parent == fold]
        others = [candidate for candidate in of_fold if candidate.label == "0"]
        others.sort(key=lambda candidate: hash_of(f"{candidate.series} {candidate.point}", "negatives"))
        kept += others[: negatives * (len(of_fold) - len(others))]
    return sorted(kept, key=lambda candidate: candidate.row)


def split_of(fold: str, valid: tuple[int, ...], test: tuple[int, ...]) -> str:
    """train, valid or test, by the number at the end of a fold's name."""
    number = int(fold[-1])
    return "valid" if number in valid else "test" if number in test else "train"


def patches_of(
    candidates: list[Candidate], scans: dict[str, Path], shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> Iterator[tuple[Candidate, np.ndarray]]:
    """Each candidate with its (H, W, C) int16 patch, slice by slice in memory; a scan is opened once.

    Raises `DataError` when a candidate lies outside its scan, or the scan does not say where it lies.
    """
    of_series: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        of_series.setdefault(candidate.series, []).append(candidate)
    slices_last = lambda sizes: (*sizes[1:], sizes[0])  # noqa: E731
    for series, some in of_series.items():
        volume = open_volume(scans[series])
        affine = layout_of(scans[series]).rows_first_affine
        if affine is None:
            raise DataError(f"{scans[series]} does not say where its voxels lie; points cannot be found in it.")
        for candidate in some:
            place = voxel_of(affine, candidate.point)
            if not ((place > -1) & (place < volume.shape)).all():
                raise DataError(
                    f"Candidate {candidate.row} of series {series} lies outside {scans[series]}; its coordinates must be "
                    "millimetres of the patient, as MetaImage has them."
                )
            patch = cut_patch(volume, affine, candidate.point, slices_last(shape), slices_last(spacing), AIR)
            yield candidate, np.asfortranarray(np.rint(patch).astype(np.int16))


if __name__ == "__main__":
    with as_sentences():
        main(tyro.cli(Candidates, use_underscores=True))
