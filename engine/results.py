"""The files that every judged run leaves: figures in `results.json`, a line a case in `cases.csv`."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from .checkpoint import write_atomically


def write_json(path: Path, content: dict, indent: int | None = 1) -> None:
    """By rename; a figure that does not exist is None, for JSON has no NaN."""
    text = json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """A CSV table by rename, its rows as they come; names keep what is no UTF-8 in them."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)
