"""What pre-training is worth: segmentation from several starts, with few labels, on the same volumes, subjects and seeds.

For every set, number of labelled subjects, start and seed one run of finetune_segmentation.py; those that are finished are not
run again. Differences are paired: of the same volume, learned from the same subjects. A start is `name=file` (`random=` for
none), a file of `--pretrained_path`; `name=file+context` also lets f_inter speak.

Run      python benchmarks/compare_starts.py --sets ACDC=DIR LA2018=DIR --starts random= stage3=swav3D.pth+context
Writes   <output>/<set>-<labelled>-<start>/seed-<n>/, <output>/table.md
"""

import csv
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tyro  # noqa: E402

from engine.bootstrap import Estimate, known_mean, mean_of_cases, paired_difference  # noqa: E402


@dataclass(kw_only=True)
class Flags:
    sets: tuple[str, ...]  # name=folder of labelled volumes
    starts: tuple[str, ...] = ("random=",)  # name=weight file; the first is what the others are compared with
    labelled: tuple[int, ...] = (2, 5)  # subjects to learn from (0 = all)
    seeds: tuple[int, ...] = (0, 1, 2)
    pretrained_path: str = "weights"  # where the weight files are
    output: str = "runs/compare_starts"
    evaluate: Literal["valid", "test"] = "test"  # what is judged: valid while constants are being chosen, test once
    more: tuple[str, ...] = ()  # further flags of finetune_segmentation.py, without their dashes: arch=resnet18 epochs=20


def main(flags: Flags) -> None:
    table = defaultdict(dict)
    for name, folder in map(named, flags.sets):
        for labelled in flags.labelled:
            for start, file in map(named, flags.starts):
                here = Path(flags.output) / f"{name}-{labelled}-{start}"
                for seed in flags.seeds:
                    run(flags, folder, labelled, file, seed, here / f"seed-{seed}")
                table[name, labelled][start] = dice_by_case([here / f"seed-{seed}/cases.csv" for seed in flags.seeds])
                write(flags, table)
    print((Path(flags.output) / "table.md").read_text(encoding="utf-8"))


def named(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def run(flags: Flags, folder: str, labelled: int, file: str, seed: int, here: Path) -> None:
    if (here / "results.json").exists():
        return
    file, _, context = file.partition("+")
    words = ["--data_path", folder, "--labelled", labelled, "--seed", seed, "--dump_path", here, "--evaluate", flags.evaluate]
    words += [
        "--pretrained_path",
        flags.pretrained_path,
        "--start_from",
        file,
        "--checkpoint_name",
        f"{here.parent.name}-{seed}.pth",
    ]
    words += ["--context"] if context else []
    words += [part for word in flags.more for part in (f"--{named(word)[0]}", *named(word)[1].split(","))]
    print(f"{here}: {' '.join(map(str, words))}", flush=True)
    subprocess.run([sys.executable, ROOT / "finetune_segmentation.py", *map(str, words)], check=True)


def dice_by_case(tables: list[Path]) -> dict[str, tuple[str, list[float]]]:
    """By case: its subject, and for each seed the mean Dice of its classes that are not absent."""
    found: dict[str, tuple[str, list[float]]] = {}
    for path in tables:
        of_case = defaultdict(list)
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                of_case[row["case"], row["subject"]].append(float(row["dice"] or "nan"))
        for (case, subject), dice in of_case.items():
            found.setdefault(case, (subject, []))[1].append(float(known_mean(np.array(dice), axis=0)))
    return found


def write(flags: Flags, table: dict) -> None:
    """The table so far, in Markdown."""
    first = named(flags.starts[0])[0]
    lines = [f"| set, labelled | start | Dice | seeds | against {first} |", "| --- | --- | --- | --- | --- |"]
    for (name, labelled), of_start in table.items():
        for start, cases in of_start.items():
            subjects, values = zip(*cases.values())
            values, theirs = np.array(values), np.array([of_start[first][case][1] for case in cases])
            seeds = " / ".join(f"{mean:.3f}" for mean in known_mean(values, axis=0))
            difference = (
                ""
                if start == first
                else told(paired_difference(*(known_mean(of, axis=1) for of in (values, theirs)), subjects), "+.3f")
            )
            mean = told(mean_of_cases(known_mean(values, axis=1), subjects))
            lines.append(f"| {name}, {labelled or 'all'} | {start} | {mean} | {seeds} | {difference} |")
    path = Path(flags.output) / "table.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def told(found: Estimate, form: str = ".3f") -> str:
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__, use_underscores=True))
