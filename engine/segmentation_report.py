"""What is written and shown of the scores of segmented volumes: each case, and means over cases with intervals.

The mean of a split is over volumes, of each the mean of its classes; classes that are in neither truth nor prediction are in
no mean (`engine/segmentation_scores.py`). With several seeds, a volume's value is the mean over the seeds that have one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from .bootstrap import known_mean, mean_over_seeds
from .errors import UserError
from .results import write_json, write_rows
from .segmentation_scores import MEASURES, STATUSES, ClassScores
from .tables import print_table, with_interval

COLUMNS = ("seed", "case", "subject", "split", "class", "status", *MEASURES, "unit")


@dataclass(frozen=True)
class CaseScores:
    """One volume as one seed's run segmented it. case: its name, unique in its split; classes: a row for each, in order."""

    seed: int
    case: str
    subject: str
    split: str
    classes: list[ClassScores]

    @property
    def dice(self) -> float:
        """The mean over the classes that are there or were invented; NaN without any."""
        return float(known_mean(np.array([row.dice for row in self.classes]), axis=0))


def write_report(folder: Path, cases: Sequence[CaseScores], names: Sequence[str], tolerance: float) -> dict:
    """Writes `folder/cases.csv` and `folder/results.json`, and returns what the latter holds: the figures of each split.

    names: of the classes 1, 2, … tolerance: that of the surface Dice. Raises `UserError` when seeds have other cases.
    """
    results = {
        split: _summary([case for case in cases if case.split == split], names, tolerance)
        for split in sorted({case.split for case in cases})
    }
    write_rows(folder / "cases.csv", COLUMNS, _rows(cases, names))
    write_json(folder / "results.json", results)
    return results


def show(results: dict) -> None:
    """The figures of each split as a table, a line a class."""
    for split, of in results.items():
        unit, several = of["unit"], len(of["seeds"]) > 1
        notes = ["± is the deviation of the seeds, counts are of all seeds"] if several else []
        if unit == "mixed":
            notes.append("some volumes have a known spacing and others none: their distances have no mean")
        table = Table(
            *("class", "dice", "iou", f"hd95 ({unit})", f"surface dice ({of['tolerance']:g} {unit})", *STATUSES),
            title=f"{split}: {of['volumes']} volumes of {of['subjects']} subjects"
            + (f", mean of {len(of['seeds'])} seeds" if several else "")
            + " (95 % intervals over subjects)",
            caption="; ".join(notes) or None,
        )
        for name, figures in of["classes"].items():
            table.add_row(name, *_cells(figures), *(str(figures[status]) for status in STATUSES))
        table.add_section()
        table.add_row("mean", *_cells(of["mean"]))
        print_table(table)


def best_median_worst(cases: Sequence[CaseScores]) -> dict[str, CaseScores]:
    """The cases to be looked at, by their dice; fewer where there are not three with a dice."""
    ordered = sorted((case for case in cases if not math.isnan(case.dice)), key=lambda case: (-case.dice, case.case))
    if not ordered:
        return {}
    names = {len(ordered) // 2: "median"} | {len(ordered) - 1: "worst"} | {0: "best"}
    return {name: ordered[place] for place, name in sorted(names.items())}


def _summary(cases: list[CaseScores], names: Sequence[str], tolerance: float) -> dict:
    """The figures of one split."""
    of_seed = {seed: {case.case: case for case in cases if case.seed == seed} for seed in sorted({case.seed for case in cases})}
    seeds = list(of_seed)
    first = of_seed[seeds[0]]
    for seed, own in of_seed.items():
        if own.keys() != first.keys():
            raise UserError(f"seed {seed} was scored on other volumes than seed {seeds[0]}; score all on the same ones.")
    keys = sorted(first)
    subjects = np.array([first[key].subject for key in keys])
    units = {row.unit for case in cases for row in case.classes}
    unit = units.pop() if len(units) == 1 else "mixed"
    # each (seeds, cases, classes)
    values = {
        measure: np.array([[[getattr(row, measure) for row in own[key].classes] for key in keys] for own in of_seed.values()])
        for measure in (MEASURES if unit != "mixed" else ("dice", "iou"))
    }
    classes = {}
    for place, name in enumerate(names):
        statuses = [case.classes[place].status for case in cases]
        counts = {status: statuses.count(status) for status in STATUSES}
        classes[name] = counts | {of: mean_over_seeds(array[..., place], subjects, seeds) for of, array in values.items()}
    return {
        "volumes": len(keys),
        "subjects": len(set(subjects)),
        "seeds": seeds,
        "unit": unit,
        "tolerance": tolerance,
        "classes": classes,
        "mean": {of: mean_over_seeds(known_mean(array, axis=2), subjects, seeds) for of, array in values.items()},
    }


def _cells(figures: dict) -> list[str]:
    return [with_interval(figures.get(measure), digits=1 if measure == "hd95" else 3) for measure in MEASURES]


def _rows(cases: Sequence[CaseScores], names: Sequence[str]) -> Iterator[list]:
    for case in cases:
        for name, row in zip(names, case.classes):
            figures = [getattr(row, measure) for measure in MEASURES]
            told = ["" if math.isnan(value) else value for value in figures]
            yield [case.seed, case.case, case.subject, case.split, name, row.status, *told, row.unit]
