"""The files that every judged run leaves: figures in `results.json`, a line a case in `cases.csv`."""

import contextlib
import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from .checkpoint import write_atomically

SPLITS = ("valid", "test")
OF_SPLIT = ("best_median_worst_{}.png", "{}_truth.json", "{}_found.json", "{}_boxes.png")  # files of one judged split
RESULTS = ("results.json", "cases.csv", "reliability.png", *(name.format(split) for split in SPLITS for name in OF_SPLIT))


def seeds_told(results: dict) -> list[int]:
    """The seeds that the content of a `results.json` names; that of a single run names its own, or none."""
    named = [of["seeds"] for of in (results, *results.values()) if isinstance(of, dict) and isinstance(of.get("seeds"), list)]
    return list(dict.fromkeys(seed for of in named for seed in of))


def forget_results(folder: Path) -> None:
    """Removes what the scripts downstream write of their judgement, and nothing else."""
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)


def forget_means_over(of_seed: Path) -> None:
    """Removes the results of several seeds, one of whose folders is `of_seed`: its run, which they are of, is no more."""
    with contextlib.suppress(OSError, ValueError):  # none, or none of ours
        results = json.loads((of_seed.parent / "results.json").read_text(encoding="utf-8"))
        if isinstance(results, dict) and of_seed.name in [f"seed-{seed}" for seed in seeds_told(results)]:
            forget_results(of_seed.parent)


def forget_other_splits(folder: Path, judged: Sequence[str]) -> None:
    """Removes what an earlier judgement of the run has left of the splits that it was not judged on this time."""
    for name in (name.format(split) for split in SPLITS if split not in judged for name in OF_SPLIT):
        (folder / name).unlink(missing_ok=True)


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
