"""What lies in a folder of training data: the files that scripts read, those that nobody reads, and what tables say of them."""

import csv
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import DataError
from .files import IMAGE_ENDINGS, VOLUME_ENDINGS, Item, read_labels

LABELS, MANIFEST = "labels.csv", "manifest.csv"
# endings that hold images, or many of them, and that no script reads
UNREAD_ENDINGS = (
    ".dcm", ".dicom", ".ima", ".npz", ".h5", ".hdf5", ".mat", ".hdr", ".img", ".mgz", ".mgh", ".gipl", ".vtk", ".vti", ".pt",
    ".zip", ".tar", ".tgz", ".7z", ".gif", ".webp", ".jp2", ".svs", ".dcm.gz", ".npy.gz", ".tar.gz", ".nhdr",
)  # fmt: skip
# a slice or a time frame of a case, after the modality where there are several (BraTS)
OF_A_CASE = re.compile(r"(.+?)(?:[_-](?:flair|t1|t1c|t1ce|t1gd|t2|pd|dwi|adc))?[_-](?:frame|slice)[_-]?\d+", re.IGNORECASE)


@dataclass
class Contents:
    """items: volumes and pictures, sorted by name. unread: names of files that hold images and that no script reads.

    manifest: what manifests say, by file, names relative to `root`. persons: whom a file shows, as far as tables or names
    tell, each name written so that it means one person in all of the folder. table_faults: (table, sentence).
    """

    root: Path
    items: list[Item] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    manifest: dict[str, dict[str, str]] = field(default_factory=dict)
    persons: dict[str, list[str]] = field(default_factory=dict)
    table_faults: list[tuple[str, str]] = field(default_factory=list)


def contents_of(root: Path) -> Contents:
    """Lists everything below `root`, of all splits. Raises `DataError` when it is no folder or holds no data."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the collections.")
    contents = Contents(root)
    labels = _labels(contents)
    names = sorted(_names(root))
    splits = {"train", "valid", "test"} if (root / "train").is_dir() else set()
    for name in names:
        if _ends(name, VOLUME_ENDINGS + IMAGE_ENDINGS):
            contents.items.append(_item(root, name, splits, labels.get(name, {})))
        elif _ends(name, UNREAD_ENDINGS) or _is_dicom(root / name):
            contents.unread.append(name)
    if not contents.items and not contents.unread:
        raise DataError(f"{root} holds no volumes and no pictures; give the folder that holds the collections.")
    cases = {}
    for name in names:
        if name.endswith(f"/{MANIFEST}") or name == MANIFEST:
            contents.manifest |= {str(Path(name).parent / row["file"]): row for row in _rows(contents, name, "file")}
        elif name.endswith(f".{MANIFEST}"):
            collection = Path(name).name.removesuffix(f".{MANIFEST}")
            cases |= {(collection, row["case"]): row for row in _rows(contents, name, "case")}
    _name_persons(contents, cases)
    return contents


def is_volume(item: Item) -> bool:
    return _ends(item.name, VOLUME_ENDINGS)


def case_of(item: Item) -> str:
    """The collection and the case that a slice or a time frame is of, from its name; "" when the name does not tell."""
    found = OF_A_CASE.fullmatch(Path(item.name).name.split(".")[0] if is_volume(item) else Path(item.name).stem)
    return f"{item.collection}/{found[1]}" if found else ""


def printable(text: str) -> str:
    """The text, in which names of files that are no UTF-8 are written out byte by byte."""
    return text.encode("utf-8", "backslashreplace").decode()


def _names(root: Path):
    for folder, _, files in os.walk(root):
        for file in files:
            if not file.startswith("."):
                yield (Path(folder) / file).relative_to(root).as_posix()


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings)


def _is_dicom(path: Path) -> bool:
    """Whether a file without an ending is DICOM, as scanners write them."""
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False  # a pipe would wait for somebody to write into it
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _item(root: Path, name: str, splits: set[str], row: dict[str, str]) -> Item:
    first, *inner = name.split("/")
    split = first if first in splits else ""
    parts = inner if split else [first, *inner]
    collection = parts[0] if len(parts) > 1 else ""
    return Item(root / name, name, collection, row.get("label") or "", row.get("subject") or "", row.get("split") or split)


def _labels(contents: Contents) -> dict[str, dict[str, str]]:
    try:
        return read_labels(contents.root)
    except DataError as error:
        contents.table_faults.append((LABELS, str(error).replace(f"{contents.root}/", "")))
        return {}


def _rows(contents: Contents, name: str, key: str) -> list[dict[str, str]]:
    """The rows of a manifest that have a value in the column `key`."""
    try:
        with open(contents.root / name, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if key not in (reader.fieldnames or ()):
                raise csv.Error(f"it has no column {key}")
            return [row for row in reader if row[key]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        contents.table_faults.append((name, f"{name} cannot be read as a manifest ({error})."))
        return []


def _name_persons(contents: Contents, cases: dict[tuple[str, str], dict[str, str]]) -> None:
    """Fills in `persons`, and the split of items that manifests alone give one."""
    for place, item in enumerate(contents.items):
        stem = Path(item.name).stem  # of a picture: the case, or the case and the number of the slice
        of_case = cases.get((item.collection, stem)) or cases.get((item.collection, stem.rpartition("_")[0]), {})
        row = contents.manifest.get(item.name) or of_case
        # subjects of labels.csv are one list of names; manifests were made collection by collection
        said = [item.subject, row.get("subject") and f"{item.collection}/{row['subject']}", case_of(item)]
        contents.persons[item.name] = list(dict.fromkeys(name for name in said if name))
        if not item.split and row.get("split"):
            contents.items[place] = replace(item, split=row["split"])
