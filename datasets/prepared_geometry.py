"""Where the voxels of a prepared volume lie: told by the manifest beside it, since an NPY file has no place for that."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import DataError
from .manifest import COLUMNS, NAME, read_rows


class PreparedGeometry(NamedTuple):
    """affine (4, 4): (row, column, slice) → LPS mm. spacing: mm between rows, columns, slices. None = not known."""

    affine: np.ndarray | None
    spacing: tuple[float, float, float] | None


def prepared_geometry(path: Path, shape: tuple[int, ...]) -> PreparedGeometry | None:
    """What the manifest of its collection tells of an NPY file of this shape; None where there is no manifest that names it.

    Raises `DataError` for a row that is not of this file, or not as `prepare_data.py` writes it.
    """
    manifest = path.with_name(NAME)
    if not manifest.is_file():
        return None
    row = _rows(manifest, manifest.stat().st_mtime_ns).get(path.name)
    if row is None:
        return None
    if row["shape"].split() != list(map(str, shape)):
        raise DataError(
            f"{manifest} says that {path.name} has {row['shape']} voxels (rows, columns, slices), it has "
            f"{' '.join(map(str, shape))}; put the prepared file back, or take its row out of the manifest."
        )
    affine, spacing = (_numbers(manifest, row, *column) for column in (("affine", 12), ("spacing", 3)))
    return PreparedGeometry(
        None if affine is None else np.vstack([affine.reshape(3, 4), [0, 0, 0, 1]]),
        None if spacing is None else tuple(map(float, spacing)),
    )


@lru_cache(maxsize=64)
def _rows(manifest: Path, changed: int) -> dict[str, dict]:
    """By file; none of a table of that name that somebody else made. changed: the time of it, for the cache."""
    with open(manifest, encoding="utf-8", errors="replace") as file:
        ours = set(COLUMNS) <= set(file.readline().strip().split(","))
    return {row["file"]: row for row in read_rows(manifest)} if ours else {}


def _numbers(manifest: Path, row: dict, column: str, count: int) -> np.ndarray | None:
    words = row[column].split()
    try:
        numbers = np.array(words, np.float64)
    except ValueError:
        numbers = np.array([np.nan])
    if words and (len(numbers) != count or not np.isfinite(numbers).all() or (column == "spacing" and numbers.min() <= 0)):
        raise DataError(
            f"{manifest} has {row[column]!r} as {column} of {row['file']}, which should be {count} numbers; prepare the "
            "collection anew with --overwrite."
        )
    return numbers if words else None
