"""The table of a prepared collection, `manifest.csv`: one row a volume, nothing that tells who the patient is.

A row is written when its volume is on the disk, so that preparing goes on where it was stopped.
"""

import csv
import io
import os
from pathlib import Path

from .errors import DataError

NAME = "manifest.csv"
COLUMNS = (
    "file", "case", "subject", "split", "part", "shape", "dtype", "scale", "offset", "spacing", "orientation", "affine",
    "positions", "modality", "pictures", "sha256", "notes", "source",
)  # fmt: skip
PICTURE_COLUMNS = ("case", "subject", "split", "part", "pictures", "source")


class Manifest:
    """Rows by source: `file` and `shape` (H W C) of a volume; how its values and places are to be read.

    A value is stored · scale + offset. spacing: mm between rows, columns, slices. affine: twelve numbers, (row, column, slice)
    → LPS mm. positions: mm from the first slice to each, where they are not even. source: a digest of the file it came from.
    part: "2/5" of a source of five.
    """

    def __init__(self, path: Path, columns: tuple[str, ...] = COLUMNS):
        self.path, self.columns = path, columns
        self.sources: dict[str, list[dict]] = {}
        self.source_of: dict[str, str] = {}  # by case
        by_case = {row["case"]: row for row in read_rows(path, columns)} if path.is_file() else {}
        found: dict[str, list[dict]] = {}
        for row in by_case.values():
            found.setdefault(row["source"], []).append(row)
        for source, rows in found.items():
            if len(rows) == int(rows[0]["part"].partition("/")[2] or 1):  # else stopped while its rows were written
                self._take(source, rows)

    @property
    def rows(self) -> list[dict]:
        return sorted((row for rows in self.sources.values() for row in rows), key=lambda row: row["case"])

    def add(self, source: str, rows: list[dict]) -> None:
        """Appends the rows of one source, on the disk when this returns."""
        self._take(source, rows)
        new = not self.path.is_file()
        with open(self.path, "a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(table(self.columns, rows, header=new))
            file.flush()
            os.fsync(file.fileno())

    def _take(self, source: str, rows: list[dict]) -> None:
        for row in rows:
            before = self.source_of.get(row["case"], source)
            if before != source:
                self.sources.pop(before, None)  # a file of this name held something else
            self.source_of[row["case"]] = source
        self.sources[source] = rows

    def forget(self) -> None:
        """Removes the table."""
        self.sources = {}
        self.path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Writes the table anew, in the order of cases: the same bytes whatever the order in which volumes were prepared."""
        write_text(self.path, table(self.columns, self.rows))


def read_rows(path: Path, columns: tuple[str, ...] = COLUMNS) -> list[dict]:
    """The whole rows of a manifest. Raises `DataError` when it is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error):
        raise DataError(f"{path} cannot be read as a CSV table in UTF-8; remove the folder and prepare it anew.") from None
    if text.strip() and set(columns) - set(reader.fieldnames or ()):
        missing = ", ".join(sorted(set(columns) - set(reader.fieldnames or ())))
        raise DataError(f"{path} has no column {missing}; remove the folder and prepare it anew.")
    return [row for row in rows if None not in row.values() and row["case"]]


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """`text` in place of what is in `path`, at once."""
    with atomic(path, mode) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


class atomic:
    """`with atomic(path) as file`: a binary file that appears under its name, whole and on the disk, or not at all."""

    def __init__(self, path: Path, mode: int = 0o666):
        self.path, self.temporary, self.mode = path, path.with_name(f".{path.name}.tmp"), mode

    def __enter__(self):
        self.temporary.unlink(missing_ok=True)
        self.file = open(self.temporary, "wb", opener=lambda path, flags: os.open(path, flags, self.mode))
        return self.file

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())
            self.file.close()
            if kind is None:
                os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)


def table(columns: tuple[str, ...], rows: list[dict], header: bool = True) -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
