"""The tables beside prepared data: `labels.csv`, which training reads, and the private map of who is who."""

import csv
import os
from pathlib import Path

from .errors import DataError
from .files import read_labels
from .manifest import table, write_text

LABELS = ("path", "label", "subject", "split")
PRIVATE = ("collection", "case", "file", "pseudonym", "person")


def append_labels(root: Path, rows: dict[str, tuple[str, str, str]]) -> None:
    """Rows at the end of a table that has all columns, on the disk when this returns."""
    path = root / "labels.csv"
    new = not path.is_file()
    with open(path, "a", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(table(LABELS, [dict(zip(LABELS, (name, *row))) for name, row in rows.items()], header=new))
        file.flush()
        os.fsync(file.fileno())


def write_labels(root: Path, rows: dict[str, tuple[str, str, str]]) -> None:
    """Puts rows into `labels.csv`; those of other files stay, and so does a label that somebody wrote for these."""
    there = read_labels(root, missing_ok=True)
    kept = {path: tuple(row.get(name) or "" for name in LABELS[1:]) for path, row in there.items() if (root / path).is_file()}
    for path, (label, *rest) in rows.items():
        kept[path] = (label or kept.get(path, ("",))[0], *rest)
    if kept:
        lines = [dict(zip(LABELS, (path, *values))) for path, values in sorted(kept.items())]
        write_text(root / "labels.csv", table(LABELS, lines))


def read_private_map(path: str) -> dict[tuple[str, str], dict]:
    """Its rows by collection and case; none where there is no such file yet. Raises `DataError` when it is something else."""
    if not path or not Path(path).is_file():
        return {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {(row["collection"], row["case"]): {name: row[name] for name in PRIVATE} for row in rows}
    except (UnicodeDecodeError, csv.Error, KeyError):
        raise DataError(f"--private_map {path} is no map of this script; name another file.") from None


def write_private_map(path: Path, rows: dict[tuple[str, str], dict]) -> None:
    """For its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, table(PRIVATE, [rows[key] for key in sorted(rows)]), mode=0o600)
