"""What a detection run writes about the pictures that it is judged on: figures, a line a picture, COCO's files, a sheet."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from .box_pictures import MOST_PICTURES, box_sheet
from .detection_scores import Boxes, coco_files, detection_scores
from .processes import gather_objects
from .results import forget_other_splits, write_json, write_rows
from .tables import print_table

FIGURES = ("map", "map50")
COLUMNS = ("seed", "file", "subject", "split", "true boxes (finding x y w h)", "found boxes (finding score x y w h)")


@dataclass(frozen=True)
class Judged:
    """A split's pictures in one order: names, subjects, sizes (height, width), what is true and what was found in them."""

    names: Sequence[str]
    subjects: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    truth: Sequence[Boxes]
    found: Sequence[Boxes]


SeedRun = tuple[int, Sequence[str], dict[str, Judged]]  # of one seed: the findings that it knows, and what it was judged on


def gathered(found: dict[int, Boxes]) -> list[Boxes]:
    """What all processes found, by the number of the picture, in that order. Collective."""
    everything = {number: boxes for of_one in gather_objects(found) for number, boxes in of_one.items()}
    return [everything[number] for number in sorted(everything)]


def write_results(
    folder: Path, splits: dict[str, Judged], findings: Sequence[str], about: dict, pixels_of: Callable[[str, int], np.ndarray]
) -> dict:
    """Writes results.json, and for each split COCO's files and a sheet; gives what is in results.json.

    pixels_of: (split, number of the picture) → its pixels (H, W), for the sheet.
    """
    results = dict(about)
    for split, of in splits.items():
        results[split] = detection_scores(of.truth, of.found, findings, of.subjects)
        truth, found = coco_files(of.truth, of.found, findings, of.names, of.sizes)
        write_json(folder / f"{split}_truth.json", truth, indent=None)
        write_json(folder / f"{split}_found.json", found, indent=None)
        shown = [number for number, true in enumerate(of.truth) if len(true.labels)][:MOST_PICTURES]
        if shown:
            panels = [(of.names[number], pixels_of(split, number)) for number in shown]
            sides = ([side[number] for number in shown] for side in (of.truth, of.found))
            box_sheet(folder / f"{split}_boxes.png", panels, *sides, findings)
    write_json(folder / "results.json", results)
    forget_other_splits(folder, list(splits))
    for split in splits:
        _show(split, results[split])
    return results


def write_mean(folder: Path, runs: Sequence[dict]) -> None:
    """Writes the mean and the standard deviation over runs of several seeds into results.json of the folder of them all."""
    means: dict = {"runs": len(runs), "seeds": [run["seed"] for run in runs]}
    for split in ("valid", "test"):
        scored = [run[split] for run in runs if split in run]
        for figure in FIGURES if scored else ():
            values = [of[figure] for of in scored if of[figure] is not None]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            mean = float(np.mean(values)) if values else None
            means.setdefault(split, {})[figure] = {"mean": mean, "deviation": spread, "each": values}
    write_json(folder / "results.json", means)


def write_cases(folder: Path, runs: Sequence[SeedRun]) -> None:
    """Writes cases.csv: a line for each picture that a seed's run was judged on."""
    write_rows(folder / "cases.csv", COLUMNS, _rows(runs))


def _rows(runs: Sequence[SeedRun]) -> Iterator[list]:
    for seed, findings, splits in runs:
        for split, of in splits.items():
            for name, subject, truth, found in zip(of.names, of.subjects, of.truth, of.found):
                yield [seed, name, subject, split, _in_words(truth, findings), _in_words(found, findings)]


def _in_words(of: Boxes, findings: Sequence[str]) -> str:
    scores = [""] * len(of.labels) if of.scores is None else [f" {score:.4f}" for score in of.scores]
    return "; ".join(
        f"{findings[label - 1]}{score} {x1:.1f} {y1:.1f} {x2 - x1:.1f} {y2 - y1:.1f}"
        for (x1, y1, x2, y2), label, score in zip(of.boxes, of.labels, scores)
    )


def _show(split: str, scores: dict) -> None:
    table = Table("finding", "boxes", "AP at 0.5", "AP at 0.5 … 0.95", title=f"{scores['pictures']} pictures of split {split}")
    for finding, of in scores["findings"].items():
        table.add_row(finding, str(of["boxes"]), _share(of["ap50"]), _share(of["ap"]))
    both = [_share(scores[name]) + _edges(scores.get(name.replace("map", "interval"))) for name in ("map50", "map")]
    table.add_row("mean", str(scores["boxes"]), *both)
    print_table(table)


def _share(value: float | None) -> str:
    return "absent" if value is None else f"{100 * value:.1f} %"


def _edges(interval: list[float] | None) -> str:
    return f" ({100 * interval[0]:.0f}–{100 * interval[1]:.0f})" if interval else ""
