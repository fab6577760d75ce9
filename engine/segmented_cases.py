"""Volumes that several runs have segmented, read back from their `cases.csv`, and how far two runs differ on them."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .bootstrap import Estimate, known_mean, paired_difference

Cases = dict[str, tuple[str, list[float]]]  # by case: its subject, and for each seed the mean Dice of its classes


def dice_by_case(tables: Sequence[Path], split: str = "") -> Cases:
    """What several tables say of the cases of a split, or of all: the mean Dice of the classes that are not absent."""
    found: Cases = {}
    for path in tables:
        of_case = defaultdict(list)
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                if not split or row["split"] == split:
                    of_case[row.get("seed"), row["case"], row["subject"]].append(float(row["dice"] or "nan"))
        for (_, case, subject), dice in of_case.items():
            found.setdefault(case, (subject, []))[1].append(float(known_mean(np.array(dice), axis=0)))
    return found


def dice_difference(ours: Cases, theirs: Cases) -> Estimate:
    """The mean over cases, which both have, of ours − theirs, each the mean over its seeds."""
    subjects = [subject for subject, _ in ours.values()]
    both = ([float(known_mean(np.array(of[case][1]), axis=0)) for case in ours] for of in (ours, theirs))
    return paired_difference(*map(np.array, both), np.array(subjects))
