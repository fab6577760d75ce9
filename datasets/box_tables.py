"""Tables of boxes as others write them: COCO's JSON, a CSV file,x,y,w,h,finding, and VinDr-CXR's annotations."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError

PLAIN = ("file", "x", "y", "w", "h", "finding")
VINDR = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
NOTHING = ("", "no finding", "no_finding", "none")  # as a finding: that there is none
NOT_GIVEN = ("", "nan", "none")  # as a number


@dataclass(frozen=True)
class Row:
    """One box, or the statement that a picture has none (`box` None).

    file: as the table names the picture; box: x1, y1, x2, y2 in pixels; size: (height, width) of the picture that the box is
    meant in, where the table says so; reader: who drew it, where several did; where: for messages, the table and the place.
    """

    file: str
    box: tuple[float, float, float, float] | None
    finding: str
    split: str = ""
    subject: str = ""
    reader: str = ""
    size: tuple[float, float] | None = None
    where: str = ""


def read_box_table(path: Path) -> list[Row]:
    """The rows of a table, by what it holds. Raises `DataError` for a file that is none of the three, and for a bad row."""
    if not path.is_file():
        raise DataError(f"{path} is missing; name the table of boxes inside --data_path with --boxes.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return _coco(path, json.loads(text))
        lines = list(csv.DictReader(text.splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError, RecursionError):
        raise DataError(f"{path} cannot be read as CSV or JSON in UTF-8; save it as such a table.") from None
    columns = set(lines[0]) if lines else set()
    for known, read in ((PLAIN, _plain), (VINDR, _vindr)):
        if set(known) <= columns:
            return [read(line, f"{path}, line {number}") for number, line in enumerate(lines, 2)]
    raise DataError(
        f"{path} is no table of boxes; it needs the columns {','.join(PLAIN)}[,split][,subject], or {','.join(VINDR)}, and "
        "at least one row; or to be COCO's JSON."
    )


def _plain(line: dict, where: str) -> Row:
    x, y, w, h = (line[name] for name in "xywh")
    box = _corners(x, y, w, h, where) if _states_box(line["finding"], (x, y, w, h), where) else None
    return _row(line, line["file"], box, line["finding"], where)


def _vindr(line: dict, where: str) -> Row:
    corners = [line[name] for name in VINDR[2:]]
    box = tuple(_number(value, where) for value in corners) if _states_box(line["class_name"], corners, where) else None
    return _row(line, line["image_id"], box, line["class_name"], where)


def _row(line: dict, file: str, box, finding: str, where: str) -> Row:
    size = None
    if line.get("width") and line.get("height"):
        size = _number(line["height"], where), _number(line["width"], where)
    told = [(line.get(name) or "").strip() for name in ("split", "subject", "rad_id")]
    return Row((file or "").strip(), box, (finding or "").strip(), *told, size, where)


def _states_box(finding: str, numbers, where: str) -> bool:
    """Whether a row is of a box, and not the statement that there is none. Raises `DataError` when it is half of both."""
    given = [(value or "").strip().lower() not in NOT_GIVEN for value in numbers]
    nothing = (finding or "").strip().lower() in NOTHING
    # the Kaggle version of VinDr-CXR has a box of one pixel in the corner with "No finding"
    if nothing and (finding or not any(given)):
        return False
    if nothing or not all(given):
        what = "a box without a finding" if nothing else f"{finding!r} without four numbers"
        raise DataError(f"{where}, gives {what}; give both, or neither where nothing is seen.")
    return True


def _corners(x, y, w, h, where: str) -> tuple[float, float, float, float]:
    x, y, w, h = (_number(value, where) for value in (x, y, w, h))
    return x, y, x + w, y + h


def _number(value, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}, has {value!r} where a number of pixels is needed; correct it.")
    return number


def _coco(path: Path, content) -> list[Row]:
    """COCO's: a picture that no annotation names has nothing on it."""
    try:
        findings = {category["id"]: str(category["name"]) for category in content["categories"]}
        pictures = {picture["id"]: picture for picture in content["images"]}
        annotations = list(content["annotations"])
        rows, empty = [], dict(pictures)
        for number, annotation in enumerate(annotations):
            where = f"{path}, annotation {annotation.get('id', number)}"
            of, category = annotation["image_id"], annotation["category_id"]
            if of not in pictures or category not in findings:
                what = f"picture {of!r}" if of not in pictures else f"category {category!r}"
                raise DataError(f"{where}, is of {what}, which the file does not list; add it, or remove the annotation.")
            if annotation.get("iscrowd"):
                raise DataError(f"{where}, is of a crowd (iscrowd), which is no box of a finding; remove it.")
            x, y, w, h = annotation["bbox"]
            empty.pop(of, None)
            rows.append(_coco_row(pictures[of], _corners(x, y, w, h, where), findings[category], where))
        return rows + [_coco_row(picture, None, "", f"{path}, image {of}") for of, picture in empty.items()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is not laid out as COCO's detection files are (images, categories, annotations with bbox); export it so."
        ) from None


def _coco_row(picture: dict, box, finding: str, where: str) -> Row:
    # some exporters write 0 where they do not know
    size = (float(picture["height"]), float(picture["width"])) if picture.get("width") and picture.get("height") else None
    told = [str(picture.get(name) or "") for name in ("split", "subject")]
    return Row(str(picture["file_name"]), box, finding, *told, "", size, where)
