"""Pictures with boxes of findings: which there are, what is in them, and to which split they belong."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .box_tables import Row, read_box_table
from .errors import DataError
from .files import IMAGE_ENDINGS, SPLITS, Item, find_images, has_labels, read_labels
from .people import with_subjects
from .readers import Box, merged
from .reading import open_image, reason_of
from .subject_splits import drawn_subjects, with_splits

SPARE = 1.0  # pixels that a box may stand out by, from rounding; it is cut there
SAME_SHAPE = 0.02  # by how much two sides may shrink differently, where a picture is smaller than the table says


@dataclass(frozen=True)
class BoxedPicture(Item):
    """A picture, its (height, width), and what is known to be in it: boxes x1, y1, x2, y2 in its pixels, and their findings.

    size: (0, 0) of a file that cannot be read, which has no boxes then; only where such files are left out after listing.
    """

    size: tuple[int, int] = (0, 0)
    boxes: tuple[Box, ...] = ()
    findings: tuple[str, ...] = ()


def find_boxed(
    root: str,
    tables: Iterable[str],
    unnamed: str = "unknown",
    findings: Iterable[str] = (),
    labelled: int = 0,
    seed: int = 0,
    skip: bool = False,
) -> tuple[list[BoxedPicture], list[BoxedPicture], list[BoxedPicture]]:
    """The pictures of the splits train, valid and test, each sorted by name.

    tables: inside `root`. unnamed: pictures that no table names are left out ("unknown"), or have nothing on them ("negative").
    findings: those to find (none = all); boxes of others are passed over. labelled: subjects of the training split that are
    drawn by the seed (0 = all). A split is taken from the table, else from `labels.csv` (path,label[,subject][,split]), else
    from a folder train/, valid/ or test/; what is then missing is dealt by `with_splits`. A subject that no table tells is
    guessed by names (`with_subjects`). Where several readers drew, their boxes are `merged`. Raises `DataError` for what cannot
    be understood, for a subject in two splits, for a finding that the training split has not, and, unless `skip`, for a picture
    that cannot be read.
    """
    if not root:
        raise DataError("No pictures are given; name the folder of pictures and their table of boxes with --data_path.")
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder with PNG, JPG, TIFF or BMP pictures and a table of boxes.")
    names = _Names(folder)
    rows = defaultdict(list)
    for table in tables:
        for row in read_box_table(folder / table):
            rows[names.of(row)].append(row)
    labels = read_labels(folder) if has_labels(folder) else {}  # others bring tables of that name, too
    pictures = [_picture(folder, name, of, labels.get(name, {}), skip) for name, of in rows.items()]
    if unnamed == "negative":
        pictures += [_picture(folder, name, [], labels.get(name, {}), skip) for name in names.all if name not in rows]
    _refuse_unknown(pictures, set(findings), folder)
    pictures = [_of_findings(picture, set(findings)) for picture in pictures]
    pictures = with_splits(sorted(with_subjects(pictures), key=lambda picture: picture.name))
    train, valid, test = ([p for p in pictures if p.split == split] for split in SPLITS[1:])
    _refuse_unlearned(train, valid + test)
    train = drawn_subjects(train, labelled, seed)
    if not any(picture.boxes for picture in train):
        raise DataError(
            f"{folder} has no box on any of {len(train)} picture(s) of split train; nothing can be learned from it."
        )
    return train, valid, test


def findings_of(*splits: list[BoxedPicture]) -> list[str]:
    """The names of all findings, sorted."""
    return sorted({finding for pictures in splits for picture in pictures for finding in picture.findings})


class _Names:
    """The pictures below a folder, by the ways in which tables name them: path, file name, file name without its ending."""

    def __init__(self, root: Path):
        self.root = root
        self.all = sorted(
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.name.lower().endswith(IMAGE_ENDINGS) and os.path.isfile(path)
        )
        self.known, self.by_name = set(self.all), defaultdict(list)
        for name in self.all:
            base = name.rsplit("/", 1)[-1]
            for short in {base, base.rsplit(".", 1)[0]}:
                self.by_name[short].append(name)

    def of(self, row: Row) -> str:
        """The path of the picture that a row is of, relative to the folder. Raises `DataError` for none, or several."""
        for name in (row.file, f"{row.split}/{row.file}"):
            if name in self.known:
                return name
        found = self.by_name.get(row.file.rsplit("/", 1)[-1], [])
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"{row.where}, names {row.file!r}, which may be {' or '.join(found[:2])}; give the path of one.")
        raise DataError(
            f"{row.where}, names {row.file!r}, which is no picture below {self.root}; correct the row, or add the file."
        )


def unboxed(root: str | Path, skip: bool = False) -> list[BoxedPicture]:
    """All pictures below `root`, of any split: those in which something is to be found. Raises `DataError` as `find_boxed`."""
    return [BoxedPicture(**vars(item), size=_size_of(item.path, skip)) for item in find_images(root, SPLITS)]


def _size_of(path: Path, skip: bool) -> tuple[int, int]:
    """(height, width), from the header; (0, 0) where that cannot be read and such files are left out later."""
    try:
        with open_image(path) as image:
            return image.size[1], image.size[0]
    except Exception as error:  # parsers fail in many ways
        if skip:
            return 0, 0
        raise DataError(f"{path} cannot be read as a picture ({reason_of(error)}); replace or remove the file.") from None


def _picture(root: Path, name: str, rows: list[Row], label: dict, skip: bool) -> BoxedPicture:
    path, (height, width) = root / name, _size_of(root / name, skip)
    split = _only("split", name, [row.split for row in rows]) or label.get("split") or _folder_split(root, name)
    if split not in SPLITS:
        raise DataError(f"{rows[0].where}, gives {name} the split {split!r}; use train, valid, test, or nothing.")
    subject = _only("subject", name, [row.subject for row in rows]) or label.get("subject") or ""
    drawn = [(row.reader, row.finding, _placed(row, (height, width))) for row in rows if row.box and height]
    several = len({row.reader for row in rows}) > 1
    truth = merged(drawn) if several else [(finding, box) for _, finding, box in drawn]
    inner = name.split("/")[1 if _folder_split(root, name) else 0 :]
    collection = inner[0] if len(inner) > 1 else ""
    boxes, findings = tuple(box for _, box in truth), tuple(finding for finding, _ in truth)
    return BoxedPicture(path, name, collection, "", subject, split, (height, width), boxes, findings)


def _only(what: str, name: str, values: list[str]) -> str:
    given = sorted(set(values) - {""})
    if len(given) > 1:
        raise DataError(f"the table of boxes gives {name} the {what} {given[0]!r} and {given[1]!r}; give it one.")
    return given[0] if given else ""


def _folder_split(root: Path, name: str) -> str:
    first = name.split("/")[0]
    return first if first in SPLITS and (root / "train").is_dir() else ""


def _placed(row: Row, size: tuple[int, int]) -> Box:
    """A box in the pixels of the file, which may be a smaller copy of what was drawn on. Raises `DataError`."""
    meant = row.size or size
    down, along = size[0] / meant[0], size[1] / meant[1]
    if abs(down / along - 1) > SAME_SHAPE:
        raise DataError(
            f"{row.where}, is of a picture of {meant[1]:g} x {meant[0]:g} pixels, but {row.file} has {size[1]} x {size[0]}, "
            "which is another shape; give the picture that was drawn on, or a smaller copy of all of it."
        )
    x1, y1, x2, y2 = (value * scale for value, scale in zip(row.box, (along, down, along, down)))
    if x2 <= x1 or y2 <= y1:
        raise DataError(f"{row.where}, has a box without an area, {_told(row.box)}; correct or remove the row.")
    if min(x1, y1) < -SPARE or x2 > size[1] + SPARE or y2 > size[0] + SPARE:
        raise DataError(
            f"{row.where}, has a box from {_told(row.box)}, which reaches out of {row.file} ({meant[1]:g} x {meant[0]:g} "
            "pixels); correct the row, or give the size that the boxes are meant in as columns width,height."
        )
    cut = max(x1, 0.0), max(y1, 0.0), min(x2, float(size[1])), min(y2, float(size[0]))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise DataError(f"{row.where}, has a box outside of {row.file}, {_told(row.box)}; correct or remove the row.")
    return cut


def _told(box: Box) -> str:
    return f"({box[0]:g}, {box[1]:g}) to ({box[2]:g}, {box[3]:g})"


def _refuse_unknown(pictures: list[BoxedPicture], wanted: set[str], root: Path) -> None:
    """Raises `DataError` when there is no box at all, or none of a finding that is asked for."""
    there = set(findings_of(pictures))
    if not there:
        raise DataError(f"{root}: the table of boxes holds no box; give one with findings in it.")
    if wanted - there:
        raise DataError(
            f"--findings names {sorted(wanted - there)[0]!r}, of which there is no box; there are {', '.join(sorted(there))}."
        )


def _refuse_unlearned(train: list[BoxedPicture], judged: list[BoxedPicture]) -> None:
    """Raises `DataError` when something is to be found that no picture teaches; it would count as 0 in every mean."""
    known = set(findings_of(train))
    for picture in judged if known else ():
        for finding in picture.findings:
            if finding not in known:
                raise DataError(
                    f"{picture.name} (split {picture.split}) has a box of {finding!r}, of which the training split has none; "
                    "add such pictures to it, or name the other findings with --findings."
                )


def missing_findings(train: list[BoxedPicture], *judged: list[BoxedPicture]) -> list[str]:
    """A sentence of the findings that are judged, and that the pictures which are learned from have not."""
    absent = sorted({*findings_of(*judged)} - {*findings_of(train)})
    names = ", ".join(map(repr, absent))
    return [f"no picture that is learned from has a box of {names}, which counts as not found."] if absent else []


def _of_findings(picture: BoxedPicture, wanted: set[str]) -> BoxedPicture:
    kept = [(box, finding) for box, finding in zip(picture.boxes, picture.findings) if not wanted or finding in wanted]
    return replace(picture, boxes=tuple(box for box, _ in kept), findings=tuple(finding for _, finding in kept))
