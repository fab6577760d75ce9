"""Which files there are: one sorted list over all collections, so that an item's index is the same everywhere."""

import csv
import hashlib
import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .draws import keys, uniform
from .errors import DataError
from .reading import fault_of

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SPLITS = ("", "train", "valid", "test")
VOLUME_ENDINGS = (".npy", ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")


@dataclass(frozen=True)
class Item:
    """A file: where it is, its name relative to the root, its collection (the first folder below the root), its label."""

    path: Path
    name: str
    collection: str
    label: str = ""
    subject: str = ""
    split: str = ""

    def fault(self) -> str:
        """Why nothing can be learned from it, in a sentence; "" when it can. Reads all of it."""
        return fault_of(self.path, is_volume=self.path.name.lower().endswith(VOLUME_ENDINGS))

    @staticmethod
    def concerns(items: list["Item"]) -> list[tuple[bool, str]]:
        """What their headers say is wrong with listed files: (whether such a file cannot be read at all, a sentence)."""
        from .check import quick_findings
        from .findings import CANNOT_BE_READ

        path_of = {item.name: str(item.path) for item in items}
        return [
            (finding.kind in CANNOT_BE_READ, finding.sentence.replace(name, path_of.get(name, name), 1))
            for finding in quick_findings(items)
            for name in finding.files[:1]
        ]


def find_images(root: str | Path, splits: tuple[str, ...] = ("train", "")) -> list[Item]:
    """Pictures below `root`, sorted by name; only those below `train/`, `valid/`, … when such folders exist.

    Rows of `labels.csv` give label and subject; its split, where it has one, wins over the folder's name.
    Raises `DataError` when the folder is missing or has no picture.
    """
    return _find(root, IMAGE_ENDINGS, "PNG, JPG, TIFF or BMP pictures", splits)


def find_volumes(root: str | Path, splits: tuple[str, ...] = ("train", "valid", "")) -> list[Item]:
    """Volumes below `root`, sorted by name. By default all but those that `labels.csv` marks `test`.

    Raises `DataError` when the folder is missing or has no volume.
    """
    return _find(root, VOLUME_ENDINGS, "NPY, NIfTI, MHA or NRRD volumes", splits)


def find_pictures(image_root: str, volume_root: str) -> tuple[list[Item], list[Item]]:
    """Pictures and volumes to learn slices from; either root may be "" when the other is given."""
    if not image_root and not volume_root:
        raise DataError("No pictures are given; name a folder with --data_path (pictures) or --volume_path (volumes).")
    return find_images(image_root) if image_root else [], find_volumes(volume_root) if volume_root else []


def read_labels(root: Path, missing_ok: bool = False) -> dict[str, dict[str, str]]:
    """The rows of `root/labels.csv` (`path,label[,subject][,split]`) by path; empty when there is no such file.

    Raises `DataError` when it is not such a table in UTF-8, names a file that is not there, or a split that there is not:
    a row that is passed over could be one that says `test`.
    """
    path = root / "labels.csv"
    if not path.is_file():
        return {}
    listed, columns = read_table(path)
    if not {"path", "label"} <= set(columns):
        raise DataError(f"{path} needs the columns path,label[,subject][,split] in its first line.")
    rows = {row["path"]: row for row in listed}
    for name, row in rows.items():
        inside = name == Path(name).as_posix() and not name.startswith("/") and ".." not in Path(name).parts
        if not inside or not (missing_ok or (root / name).is_file()):
            raise DataError(f"{path} names {name!r}, which is no file below {root}; give paths like a/b.png, relative to it.")
        if (row.get("split") or "") not in SPLITS:
            raise DataError(f"{path} gives {name} the split {row['split']!r}; use train, valid, test, or nothing.")
    return rows


def read_table(path: Path, named_by: str = "") -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a CSV table, and its columns. named_by: its flag. Raises `DataError` when it is no such table in UTF-8."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            return list(reader), list(reader.fieldnames or ())
    except OSError as error:
        what = f"name a CSV table with {named_by}" if named_by else "look at its permissions"
        raise DataError(f"{path} cannot be read ({error.strerror}); {what}.") from None
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{path} cannot be read as a CSV table in UTF-8; save it as one.") from None


def has_labels(root: Path) -> bool:
    """Whether `root/labels.csv` is there and begins as ours do; others bring tables of that name, too."""
    path = root / "labels.csv"
    if not path.is_file():
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return {"path", "label"} <= set(file.readline().strip().split(","))


def told_apart(items: list[Item]) -> list[Item]:
    """The labelled items of collections in which there are at least two labels."""
    labels: dict[str, set[str]] = {}
    for item in items:
        labels.setdefault(item.collection, set()).update({item.label} - {""})
    return [item for item in items if item.label and len(labels[item.collection]) > 1]


def subject_of(item: Item) -> str:
    """The subject of a file; a file without one is a subject of its own."""
    return item.subject or item.name


def thinned(items: list[Item], most: int) -> list[Item]:
    """At most `most` of the items, in their order, chosen by a hash of their names, so that every collection has its share."""
    chosen = sorted(items, key=lambda item: hash_of(item.name, "thinned"))[:most]
    return sorted(chosen, key=lambda item: item.name)


def spread(items: list[Item], most: int) -> list[Item]:
    """At most `most` of the items, of all collections in turn and, within each, of all labels; chosen by hash of the names."""
    hashed = sorted(items, key=lambda item: hash_of(item.name, "spread"))
    by_label = _in_turn(hashed, lambda item: (item.collection, item.label))
    return _in_turn(by_label, lambda item: item.collection)[:most]


def _in_turn(items: list[Item], group: Callable[[Item], Hashable]) -> list[Item]:
    """The first of each group, then the second of each, and so on."""
    seen, turns = Counter(), {}
    for item in items:
        turns[item], seen[group(item)] = seen[group(item)], seen[group(item)] + 1
    return sorted(items, key=turns.get)


def summary(items: list[Item], what: str, count: int, depths: Sequence[int] = ()) -> dict:
    """What a run learns from, for its weight file: `count` pieces, files a collection, the SHA-256 of all names in order.

    depths: slices a volume, where numbers of slices count; their SHA-256 tells when volumes were replaced by others.
    """
    names = hashlib.sha256(_bytes_of("\n".join(item.name for item in items))).hexdigest()
    collections = Counter(_bytes_of(item.collection).decode("utf-8", "replace") for item in items)
    about = {"what": what, "items": count, "collections": dict(collections), "names": names}
    return {**about, "depths": hashlib.sha256(" ".join(map(str, depths)).encode()).hexdigest()} if len(depths) else about


def with_truth(about: dict, truth) -> dict:
    """A `summary` whose names are a hash of what is true of the files, too: a run does not go on with other labels."""
    return {**about, "names": hashlib.sha256((about["names"] + repr(truth)).encode()).hexdigest()}


def hash_of(name: str, purpose: str) -> float:
    """A number in [0, 1) that depends on the name and the purpose alone."""
    return float(uniform(keys(purpose, zlib.crc32(_bytes_of(name))), 1)[0])


def _bytes_of(name: str) -> bytes:
    """A name as the disk has it; Linux takes any bytes for one, and Python keeps those that are no UTF-8 as surrogates."""
    return name.encode("utf-8", "surrogateescape")


def _find(root: str | Path, endings: tuple[str, ...], what: str, splits: tuple[str, ...]) -> list[Item]:
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give a folder with {what}.")
    labels = read_labels(root)
    folders = {"train", "valid", "test"} if (root / "train").is_dir() else set()
    items = []
    for path in sorted(p for p in root.rglob("*") if p.name.lower().endswith(endings) and _may_be_read(p)):
        parts = path.relative_to(root).parts
        row = labels.get("/".join(parts), {})
        folder = parts[0] if folders else ""
        split = row.get("split") or folder
        if split in splits and (not folders or folder in folders):
            inner = parts[1:] if folders else parts
            collection = inner[0] if len(inner) > 1 else ""
            items.append(Item(path, "/".join(parts), collection, row.get("label") or "", row.get("subject") or "", split))
    if not items:
        raise DataError(f"{root} has no {what} to read (split {' or '.join(s for s in splits if s) or 'any'}).")
    return sorted(items, key=lambda item: item.name)


def _may_be_read(path: Path) -> bool:
    """Whether it is a file, and no folder nor a pipe, which would wait for somebody to write into it.

    A link to nothing counts as a file: reading it says what is wrong, leaving it out would say nothing.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True
