"""What there is in a raw folder, and which files make one volume: exports of DICOM, downloads of NIfTI, arrays, pictures.

Names of files, folders and patients are private here: nothing but messages on the screen may carry them.
"""

import fnmatch
import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from . import dicom
from .dealing import deal
from .errors import DataError
from .files import IMAGE_ENDINGS, SPLITS, VOLUME_ENDINGS, has_labels, read_labels
from .foreign import Raw, files_of, of_file, of_pictures, of_stack, pages_of, shape_in
from .identity import ARCHIVES, digest_of, key_of, subject_by_name
from .reading import open_image, reason_of

TIFF = (".tif", ".tiff")
DICOM_ENDINGS = (".dcm", ".ima", ".dicom")
# segmentations lie beside what they segment, and macOS leaves files of its own
LABELS = (
    "*_label*", "*-label*", "*_seg.*", "*_seg-*", "*-seg.*", "*_gt.*", "*_mask.*", "*_mask_*", "segmentation-*",
    "*_segmentation*", "._*", "*labelsTr/*", "*labelsTs/*", "*labels/*", "*masks/*", "*segmentations/*",
)  # fmt: skip
HEADERS = 64  # that a process reads before it answers


@dataclass(frozen=True)
class Source:
    """One or several files of a raw folder. name: relative to it. kind: what to do with them. shape: as the header tells.

    subject: who it is of, by header, name or table. collection: the folder directly below the raw one. key: a digest of what
    is in the files, which tells nobody's name.
    """

    name: str
    kind: str  # volume, series (of DICOM), slices (pictures of one folder), picture, radiograph (DICOM)
    files: tuple[Path, ...]
    shape: tuple[int, ...]
    subject: str
    split: str = ""
    label: str = ""
    collection: str = ""
    key: str = ""
    stack: dicom.Stack | None = None
    image: dicom.Image | None = None

    @property
    def is_picture(self) -> bool:
        return self.kind in ("picture", "radiograph")

    def size(self) -> int:
        """Bytes on the disk."""
        return sum(os.path.getsize(path) for path in self.files)


@dataclass
class Found:
    """sources: sorted by key. faults: sentences about files that cannot be read. left_out: how many files, by reason."""

    sources: list[Source] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)


def find_sources(
    root: Path,
    processes: int,
    include: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] = LABELS,
    subject: str = "",
    array: str = "",
    stack_pictures: bool = False,
    least_slices: int = 3,
    progress=lambda things, **about: things,
    only: tuple[str, ...] = (),
    twice: bool = False,
) -> Found:
    """All that can be prepared below `root`. subject: a pattern whose first group, in a path, tells the person.

    only: names below `root`; () = all that lies there. twice: keeps what is there twice, and needs no digests (`key` is "").

    Raises `DataError` when `root` is no folder, its `labels.csv` is wrong, or nothing is found.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give one with DICOM, NIfTI, MHA, NRRD, NPY, NPZ, H5, TIFF files or pictures.")
    found = Found()
    rows = read_labels(root) if has_labels(root) else {}
    found.left_out["table labels.csv without the columns path,label"] += (root / "labels.csv").is_file() and not rows
    names = sorted(only) or [name for name in _names(root, found) if name != "labels.csv"]
    taken = [name for name in names if _matches(name, include) and not _matches(name, exclude)]
    excluded = sum(_matches(name, include) and _matches(name, exclude) and _is_medical(name) for name in names)
    found.left_out["segmentations and other files that --exclude names"] += excluded
    found.left_out["files that --include does not name"] += sum(not _matches(name, include) for name in names)
    headers, others = [], []
    for name in taken:
        ending = name.lower()
        if ending.endswith(DICOM_ENDINGS) or (not _is_known(ending) and _begins_as_dicom(root / name, found)):
            headers.append(name)
        elif _is_known(ending):
            others.append(name)
        else:
            ending = PurePosixPath(ending).suffix
            found.left_out[f"files that end in {ending}" if 1 < len(ending) < 7 else "files of other kinds"] += 1
    images = _scan(root, headers, processes, found, progress)
    sources = _series(root, images, least_slices, found)
    sources += _files(root, others, array, stack_pictures, processes, found, progress)
    sources.sort(key=lambda source: source.name)
    found.faults.sort()
    # a folder of splits tells the split, as it does in training
    splits = {"train", "valid", "test"} if (root / "train").is_dir() else set()
    read = sources if twice else progress(sources, total=len(sources), desc="digests", unit="file")
    sources = [_placed(root, source, rows, subject, splits, keyed=not twice) for source in read]
    found.sources = sources if twice else _without_duplicates(sources, found)
    if not found.sources and not found.faults:
        raise DataError(f"{root} has nothing to prepare ({_counted(found.left_out)}); --include and --exclude choose files.")
    return found


def volumes_of(source: Source, slice_axis: str, array: str) -> list[Raw]:
    """The volumes, or the picture as a volume of one slice, of a source. Raises `DataError`, which names the file."""
    path = source.files[0]
    try:
        if source.kind == "series":
            return [of_stack(source.stack)]
        if source.kind == "radiograph":
            voxels, slope, intercept = dicom.pixels_of([source.image])
            return [Raw(voxels, slope, intercept, modality=source.image.modality)]
        if source.kind in ("slices", "picture"):
            return [of_pictures(source.files)]
        return of_file(path, slice_axis, array)
    except DataError:
        raise
    except Exception as error:  # parsers fail in many ways
        raise DataError(f"{path} cannot be read as a volume ({reason_of(error)}); replace or remove the file.") from None


def _names(root: Path, found: Found) -> list[str]:
    """All files below `root`, relative to it; links to folders are not followed, so that nothing outside is read."""
    names: list[str] = []
    refused = lambda error: found.faults.append(f"{error.filename} cannot be opened ({error.strerror}); allow it.")  # noqa: E731
    for folder, folders, files in os.walk(root, onerror=refused):
        links = sum(os.path.islink(os.path.join(folder, name)) for name in folders)
        found.left_out["links to folders, which are not followed"] += links
        paths = [os.path.join(folder, name) for name in files]
        regular = [path for path in paths if os.path.isfile(path)]
        found.left_out["links to nothing, pipes and devices"] += len(paths) - len(regular)
        names += [Path(path).relative_to(root).as_posix() for path in regular]
    return sorted(names)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Patterns with a slash are of paths, others of names of files."""
    last = name.rpartition("/")[2]
    return any(fnmatch.fnmatch(name if "/" in pattern else last, pattern) for pattern in patterns)


def _is_known(name: str) -> bool:
    return name.endswith((*VOLUME_ENDINGS, *ARCHIVES, *IMAGE_ENDINGS))


def _is_medical(name: str) -> bool:
    return name.lower().endswith((*VOLUME_ENDINGS, *ARCHIVES, *IMAGE_ENDINGS, *DICOM_ENDINGS))


def _begins_as_dicom(path: Path, found: Found) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        found.faults.append(f"{path} cannot be read ({error.strerror}); allow it, or remove the file.")
        return False


def _scan(root: Path, names: list[str], processes: int, found: Found, progress) -> list[dicom.Image]:
    """The headers of all DICOM files."""
    images: list[dicom.Image] = []
    paths = [root / name for name in names]
    tasks = [(paths[first : first + HEADERS],) for first in range(0, len(paths), HEADERS)]
    for number, results, why in progress(
        deal(_headers, tasks, processes), total=len(tasks), desc="headers", unit_scale=HEADERS
    ):
        results = results or _one_by_one(tasks[number][0], why)
        for result in results:
            if isinstance(result, str):
                found.faults.append(result)
            elif not result:
                found.left_out["DICOM files that are no images (reports, directories, segmentations, doses)"] += 1
            else:
                images += result
    return sorted(images, key=lambda image: (str(image.path), image.frame))


def _headers(paths: list[Path]) -> list[list[dicom.Image] | str]:
    return [_header(path) for path in paths]


def _one_by_one(paths: list[Path], why: str) -> list[list[dicom.Image] | str]:
    """The same when one of the files ended the process that read them."""
    seen = {number: result for number, result, _ in deal(_header, [(path,) for path in paths], 1)}
    lost = "{} cannot be read ({}); replace or remove the file."
    return [lost.format(path, why) if seen[number] is None else seen[number] for number, path in enumerate(paths)]


def _header(path: Path) -> list[dicom.Image] | str:
    try:
        return dicom.images_of(path)
    except DataError as error:
        return str(error)


def _series(root: Path, images: list[dicom.Image], least_slices: int, found: Found) -> list[Source]:
    stacks, alone, faults = dicom.stacks_of(images)
    found.faults += faults
    sources = []
    for stack in stacks:
        if len(stack.images) < least_slices:
            found.left_out[f"series of fewer than {least_slices} slices (scouts)"] += 1
            continue
        files = tuple(dict.fromkeys(image.path for image in stack.images))
        first = stack.images[0]
        key = digest_of(image.uid for image in stack.images)
        shape = (*first.shape, len(stack.images))
        sources.append(Source(_relative(root, files[0]), "series", files, shape, first.subject, key=key, stack=stack))
    for image in alone:
        key = digest_of([image.uid])
        sources.append(
            Source(_relative(root, image.path), "radiograph", (image.path,), image.shape, image.subject, key=key, image=image)
        )
    return sources


def _files(
    root: Path, names: list[str], array: str, stack_pictures: bool, processes: int, found: Found, progress
) -> list[Source]:
    sources: list[Source] = []
    of_folder: dict[str, dict[str, tuple[int, ...]]] = {}
    tasks = [(root / name, array) for name in names]
    for number, told, why in progress(deal(_described, tasks, processes), total=len(tasks), desc="headers", unit="file"):
        name, path = names[number], root / names[number]
        kind, shape, files, fault = told or ("", (), (), f"{path} cannot be read ({why}); replace or remove the file.")
        if fault:
            found.faults.append(fault)
        elif kind == "picture" and stack_pictures:
            of_folder.setdefault(name.rpartition("/")[0], {})[name] = shape
        else:
            sources.append(Source(name, kind, files, shape, ""))
    for folder, shapes in of_folder.items():
        ordered = sorted(shapes, key=_by_number)
        paths = tuple(root / name for name in ordered)
        sources.append(Source(folder or ".", "slices", paths, (*shapes[ordered[0]], len(paths)), ""))
    return sources


def _described(path: Path, array: str) -> tuple[str, tuple[int, ...], tuple[Path, ...], str]:
    """(kind of source, shape, files, "") from a header; or a sentence in the last place."""
    try:
        name = path.name.lower()
        if name.endswith(IMAGE_ENDINGS) and not (name.endswith(TIFF) and pages_of(path) > 1):
            return "picture", _picture_shape(path), (path,), ""
        return "volume", shape_in(path, array), files_of(path), ""
    except Exception as error:  # parsers fail in many ways
        return "", (), (), f"{path} cannot be read ({reason_of(error)}); replace or remove the file."


def _picture_shape(path: Path) -> tuple[int, int]:
    with open_image(path) as image:
        return image.height, image.width


def _by_number(name: str) -> list:
    """Sorts slice2 before slice10."""
    return [(int(word), "") if word.isdigit() else (0, word) for word in re.split(r"(\d+)", name)]


def _placed(root: Path, source: Source, rows: dict[str, dict], pattern: str, splits: set[str], keyed: bool) -> Source:
    """The source with its subject, split, label, collection and, if it is to be `keyed`, its key."""
    row, parts = rows.get(source.name, {}), PurePosixPath(source.name).parts
    split = row.get("split") or (parts[0] if parts[0] in splits else "")
    inner = parts[1:] if parts[0] in splits else parts
    match = re.search(pattern, source.name) if pattern else None
    by_pattern = match.group(match.lastindex or 0) if match else ""
    subject = by_pattern or row.get("subject") or source.subject
    return replace(
        source,
        subject=subject or subject_by_name("/".join(inner)),
        split=split if split in SPLITS else "",
        label=row.get("label") or "",
        collection=inner[0] if len(inner) > 1 else "",
        key=(source.key or key_of(source.files)) if keyed else "",
    )


def _without_duplicates(sources: list[Source], found: Found) -> list[Source]:
    """One of several sources with the same content, by key; where pieces are alike but the wholes are not, by whole digests."""
    by_key: dict[str, list[Source]] = {}
    for source in sources:
        by_key.setdefault(source.key, []).append(source)
    kept: dict[str, Source] = {}
    for alike in by_key.values():
        if len(alike) > 1 and alike[0].stack is None and alike[0].image is None:
            alike = [replace(source, key=key_of(source.files, whole=True)) for source in alike]
        for source in alike:
            if source.key in kept:
                found.left_out["files that are there twice"] += 1
            else:
                kept[source.key] = source
    return [kept[key] for key in sorted(kept)]


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _counted(left_out: Counter) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "it is empty"
