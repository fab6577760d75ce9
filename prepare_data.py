"""From a hospital's folder to training data: DICOM exports, NIfTI downloads, arrays and pictures become what the stages read.

Volumes become H x W x C arrays of 8 or 16 bits with a manifest; on demand their slices, and pictures, become PNG files that are
split by patient. No patient's name reaches what is written, and nothing is written into the folder that is read. Started
again, it goes on where it was. With --check it looks at data that are there, and says what is wrong with which file.

Reads    FOLDER: DICOM, NIfTI, MHA/MHD, NRRD, NPY, NPZ, HDF5, TIFF, PNG, JPG, BMP, however deep; its labels.csv, if it has one
Writes   training_data_3D/<collection>/*.npy and manifest.csv, training_data_3D/labels.csv; with --image_path pictures, too
Run      python prepare_data.py EXPORT --collection lung_ct
         python prepare_data.py --check full training_data_3D
"""

import contextlib
import math
import os
import re
import shutil
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table
from tqdm import tqdm

from datasets.check import check_folder
from datasets.check_printing import print_report
from datasets.dealing import deal
from datasets.prepared import PreparedData
from datasets.sources import LABELS, TIFF, Found, Source, find_sources
from datasets.writing import NoRoom, prepare_source
from engine.config import parse
from engine.errors import UserError, speaking_to_people
from engine.tables import print_table
from engine.words import size

MOST_NAMED = 20
Folder = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]


@dataclass(kw_only=True)
class PrepareConfig:
    folder: Folder = ""  # what is prepared, or with --check what is checked
    check: Literal["", "quick", "full"] = ""  # only look: at headers (quick) or every voxel (full)
    # what goes out
    collection: str = "volumes"  # what this data set is called ("" = as the folders directly below FOLDER are)
    data_path: str = "training_data_3D"  # root of volumes ("" = none are written)
    image_path: str = ""  # root of pictures: slices of the volumes, and pictures ("" = none are written)
    output: str = "runs/check"  # folder of the tables and pictures that --check makes ("" = none are written)
    overwrite: bool = False  # prepare anew what this collection has
    mirror: bool = False  # remove what FOLDER has no more; else that stays
    # who must not be recognised
    deidentify: bool = True  # files get numbers for names; else they keep their names, and people theirs
    private_map: str = ""  # CSV file that tells which number is which file and person; it goes on with the numbers it has
    # which files
    include: tuple[str, ...] = ("*",)  # patterns of file names, or of paths below FOLDER
    exclude: tuple[str, ...] = LABELS  # patterns that are left out: segmentations
    array: str = ""  # name of the array in NPZ and HDF5 files ("" = found by name and shape)
    stack_pictures: bool = False  # the pictures of one folder are the slices of one volume, by the numbers in their names
    least_slices: int = 3  # DICOM series of fewer are left out
    # whose they are
    subject: str = ""  # pattern whose group (...) in a path tells the person ("" = DICOM's PatientID, or names of folders)
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)  # of people for train, valid, test; test is never trained on
    # what becomes of them
    slice_axis: Literal["auto", "first", "second", "last"] = "auto"  # of the file; auto = by its geometry, else last
    spacing: tuple[float, float, float] = (0.0, 0.0, 0.0)  # mm between rows, columns, slices to resample to (0 = as they are)
    window: tuple[float, ...] = ()  # lowest and highest value that are told apart, such as -1000 400 (HU)
    crop_body: bool = False  # cut off the air around the largest thing
    replace_nan: bool = False  # NaN and infinite values become the lowest one; else such files are refused
    slice_step: int = 1  # every so many slices become pictures
    least_content: float = 0.05  # share of a slice that must not be dark; emptier ones become no pictures
    largest: int = 0  # pictures are shrunk to so many pixels on their longer side (0 = never)
    # machine
    processes: int = 0  # that work side by side (0 = one a core)
    config: str = ""  # YAML file with any of these constants; flags win over it


def main(config: PrepareConfig) -> int:
    """The exit code: 0, or 1 when files could not be prepared, or something is wrong with those that were checked."""
    if not config.folder:
        raise UserError("Name the folder with the data: python prepare_data.py FOLDER, or --check full FOLDER.")
    processes = config.processes or len(os.sched_getaffinity(0))
    if config.check:
        return look_at(Path(config.folder), config, processes)
    refuse_contradictions(config)
    found = find_sources(
        Path(config.folder), processes, config.include, config.exclude, config.subject, config.array, config.stack_pictures,
        config.least_slices, progress=partial(tqdm, leave=False, delay=1),
    )  # fmt: skip
    sources = [source for source in found.sources if config.image_path or not source.is_picture]
    with writable(config):
        data = PreparedData(config, sources)
    data.mirror &= not found.faults  # what cannot be read for now is not gone
    todo = [source for source in sources if not data.has(source)]
    announce(config, found, todo, data)
    with (
        writable(config),
        data,
        tqdm(total=sum(source.size() for source in todo), unit="B", unit_scale=True, desc="preparing") as bar,
    ):
        tasks = [(source, data.places[source.key]) for source in todo]
        for number, result, why in deal(partial(prepare_source, config=config), tasks, processes):
            bar.update(todo[number].size())
            if isinstance(result, NoRoom):
                raise UserError(f"{result}; what is done stays, and the same command goes on.")
            if result is None:
                found.faults.append(f"{todo[number].files[0]} cannot be prepared ({why}); replace or remove the file.")
            elif isinstance(result, str):
                found.faults.append(result)
            else:
                data.add(todo[number], result)
    show(config, found, data)
    return int(bool(found.faults))


@contextlib.contextmanager
def writable(config: PrepareConfig):
    """Tells in a sentence when the disk is full or may not be written."""
    try:
        yield
    except OSError as error:
        place = error.filename or config.data_path or config.image_path
        raise UserError(f"{place} cannot be written ({error.strerror}); what is done stays, the same call goes on.") from None


def look_at(folder: Path, config: PrepareConfig, processes: int) -> int:
    """Checks a folder, and says and writes what was found. The exit code: 1 when something is wrong."""
    report = check_folder(folder, config.check, Path(config.output) if config.output else None, processes)
    print_report(report)
    if config.output:
        print(f"wrote {config.output}/findings.csv, facts.csv and a picture of each collection")
    return int(bool(report.findings))


def refuse_contradictions(config: PrepareConfig) -> None:
    """Raises `UserError` for flags that cannot be followed, before anything is read."""
    if not config.data_path and not config.image_path:
        raise UserError("Nothing would be written; name a root with --data_path (volumes), --image_path (pictures), or both.")
    if not config.collection and config.deidentify:
        raise UserError('--collection "" takes names of folders, which may be those of patients; name it, or --no_deidentify.')
    if Path(config.collection).name != config.collection or config.collection in (".", ".."):
        raise UserError(f"--collection {config.collection} is no name of a folder; give one without slashes.")
    if len(config.window) not in (0, 2) or (config.window and config.window[0] >= config.window[1]):
        raise UserError("--window takes the lowest and the highest value, such as --window -1000 400.")
    if not all(share >= 0 for share in config.shares) or not 0 < sum(config.shares) < math.inf:
        raise UserError("--shares takes three shares for train, valid, test, none below 0, such as --shares 0.8 0.1 0.1.")
    try:
        re.compile(config.subject)
    except re.error as error:
        raise UserError(f"--subject {config.subject} is no regular expression ({error}).") from None
    source = Path(config.folder).resolve()
    for flag in ("data_path", "image_path", "private_map"):
        path = Path(getattr(config, flag)).resolve()
        written = [path / split / config.collection for split in ("", "train", "valid", "test")]
        over = any(source.is_relative_to(place) or place.is_relative_to(source) for place in (path, *written) if place != path)
        if getattr(config, flag) and (path.is_relative_to(source) or over):
            raise UserError(
                f"--{flag} {getattr(config, flag)} lies in {config.folder}, which is only read; name another place."
            )
    if config.private_map:
        for flag in ("data_path", "image_path"):
            if getattr(config, flag) and Path(config.private_map).resolve().is_relative_to(
                Path(getattr(config, flag)).resolve()
            ):
                raise UserError(f"--private_map {config.private_map} lies among the training data; name another place.")


def announce(config: PrepareConfig, found: Found, todo: list[Source], data: PreparedData) -> None:
    """What was found, and what will be done. Raises `UserError` when the disk is too small for it."""
    kinds = Counter("pictures" if source.is_picture else "volumes" for source in found.sources)
    people = data.people()
    splits = ", ".join(f"{people[split]} {split}" for split in ("train", "valid", "test"))
    things = " and ".join(f"{count} {kind}" for kind, count in kinds.items())
    print(f"{config.folder}: {things} of {sum(people.values())} people ({splits})")
    if sum(people.values()) == len(data.sources) > 1 and not config.subject and not any(s.stack for s in data.sources):
        print("  each file counts as one person; --subject '(pattern)' tells from the names who it is of")
    if sum(source.kind == "picture" and source.name.lower().endswith(TIFF) for source in data.sources) > 1:
        print("  TIFF files of one page are pictures; --stack_pictures makes one volume of those of a folder")
    for reason, count in found.left_out.items():
        if count:
            print(f"  left out: {count} {reason}")
    if kinds["pictures"] and not config.image_path:
        print(f"  left out: {kinds['pictures']} pictures; --image_path training_data_2D writes them")
    if len(todo) < len(data.sources):
        print(f"  {len(data.sources) - len(todo)} are there already; --overwrite prepares them anew")
    if data.gone():
        does = "are removed" if data.mirror else "stay" if config.mirror else "stay; --mirror removes them"
        print(f"  {len(data.gone())} that were prepared before are not in {config.folder} any more; they {does}")
        if config.deidentify and not config.private_map and not data.mirror:
            print("  warning: if their people are here, they have another number now, maybe another split (--private_map)")
    if data.contradicted:
        print(f"  warning: {data.contradicted} people are in several splits; all that is theirs goes to test, or else to valid")
    read, written = sum(source.size() for source in todo), sum(written_by(source, config) for source in todo)
    root = Path(config.data_path or config.image_path)
    free = shutil.disk_usage(next(path for path in (root, *root.absolute().parents) if path.exists())).free
    print(f"  reads {size(read)}, writes about {size(written)} to {root} ({size(free)} are free)", flush=True)
    if written > free and not any(config.spacing) and not config.crop_body:
        raise UserError(f"{root} has {size(free)} left and about {size(written)} are needed; make room, or name another place.")


def written_by(source: Source, config: PrepareConfig) -> int:
    """About how many bytes a source becomes."""
    voxels = math.prod(source.shape)
    of_volume = voxels * (1 if config.window else 2) if config.data_path and not source.is_picture else 0
    return of_volume + (voxels // config.slice_step // 2 if config.image_path else 0)


def show(config: PrepareConfig, found: Found, data: PreparedData) -> None:
    """What there is now, and what went wrong."""
    table = Table("collection", "volumes", "H × W × C", "spacing, mm", "types", "pictures")
    for collection in sorted(data.volumes | data.pictures):
        rows = data.volumes[collection].rows if collection in data.volumes else []
        pictures = data.pictures[collection].rows if collection in data.pictures else []
        count = str(sum(int(row["pictures"]) for row in pictures)) if pictures else "–"
        table.add_row(collection or "–", str(len(rows)), _span(rows, "shape"), _span(rows, "spacing"), _types(rows), count)
    print_table(table)
    for name, note in data.notes[:MOST_NAMED]:
        print(f"note: {name}: {note}")
    if len(data.notes) > MOST_NAMED:
        print(f"and {len(data.notes) - MOST_NAMED} more notes, in the manifests")
    for fault in found.faults:
        print(f"not prepared: {fault}", file=sys.stderr)
    if found.faults:
        print(f"{len(found.faults)} could not be prepared; all others are.", file=sys.stderr)
    roots = [root for root in (config.data_path, config.image_path) if root]
    print(f"look at them: {' and '.join(f'python prepare_data.py --check full {root}' for root in roots)}")


def _span(rows: list[dict], column: str) -> str:
    """The least and the largest value along each axis."""
    values = [tuple(map(float, row[column].split())) for row in rows if row[column]]
    ends = [(min(axis), max(axis)) for axis in zip(*values)]
    return " × ".join(f"{low:.3g}" if low == high else f"{low:.3g}–{high:.3g}" for low, high in ends) or "–"


def _types(rows: list[dict]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(row["dtype"] for row in rows).items()) or "–"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: tables are left tidy
    with speaking_to_people():
        sys.exit(main(parse(PrepareConfig)))
