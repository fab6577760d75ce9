"""What pre-training is worth: segmentation from several starts, with few labels, on the same volumes, subjects and seeds.

For every set, number of labelled subjects, start and seed one run of finetune_segmentation.py; those that are finished are not
run again. Differences are paired: of the same volume, learned from the same subjects. A start is `name=file` (`random=` for
none), a file of `--pretrained_path`; `name=file+context` also lets f_inter speak. Of a run its scores, log and configuration
stay; its weights and states, a quarter of a gigabyte each, do not.

Run      python benchmarks/compare_starts.py --sets ACDC=DIR LA2018=DIR --starts random= stage3=swav3D.pth+context
Writes   <output>/<set>-<labelled>-<start>/seed-<n>/, <output>/table.md
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tyro  # noqa: E402
from tqdm import tqdm  # noqa: E402

from engine.bootstrap import Estimate, known_mean, mean_of_cases  # noqa: E402
from engine.segmented_cases import dice_by_case, dice_difference  # noqa: E402


@dataclass(kw_only=True)
class Flags:
    sets: tuple[str, ...]  # name=folder of labelled volumes
    starts: tuple[str, ...] = ("random=",)  # name=weight file; the first is what the others are compared with
    labelled: tuple[int, ...] = (2, 5)  # subjects to learn from (0 = all)
    seeds: tuple[int, ...] = (0, 1, 2)
    pretrained_path: str = "weights"  # where the weight files are
    output: str = "runs/compare_starts"
    evaluate: Literal["valid", "test"] = "test"  # what is judged: valid while constants are being chosen, test once
    more: tuple[str, ...] = ()  # further flags of finetune_segmentation.py, name=value, or SET:name=value for one set
    jobs: int = 1  # runs at a time, the cores shared among them


class Cell(NamedTuple):
    """One run: which set, how many labelled subjects, from which start, with which seed."""

    set: str
    labelled: int
    start: str
    seed: int

    def folder(self, output: str) -> Path:
        return Path(output) / f"{self.set}-{self.labelled}-{self.start}" / f"seed-{self.seed}"


def main(flags: Flags) -> None:
    cells = [Cell(*of) for of in product(flags.sets, flags.labelled, flags.starts, flags.seeds)]
    cells = [cell._replace(set=named(cell.set)[0], start=named(cell.start)[0]) for cell in cells]
    todo = [cell for cell in cells if not (cell.folder(flags.output) / "results.json").exists()]
    print(f"{len(cells)} runs, {len(cells) - len(todo)} of them finished before", flush=True)
    with ThreadPoolExecutor(flags.jobs) as pool:
        for _ in tqdm(pool.map(lambda cell: run(flags, cell), todo), "runs", total=len(todo)):
            write(flags)
    write(flags)
    print((Path(flags.output) / "table.md").read_text(encoding="utf-8"))


def named(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def run(flags: Flags, cell: Cell) -> None:
    """Runs one cell; what it prints goes to log.txt in its folder."""
    here, own = cell.folder(flags.output), f"{cell.set}-{cell.labelled}-{cell.start}-{cell.seed}.pth"
    words = [*words_of(flags, cell), "--dump_path", here, "--checkpoint_name", own]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // flags.jobs))
    here.mkdir(parents=True, exist_ok=True)
    with open(here / "log.txt", "a", encoding="utf-8") as log:
        script = [sys.executable, str(ROOT / "finetune_segmentation.py"), *map(str, words)]
        ended = subprocess.run(script, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": threads})
    if ended.returncode:
        raise SystemExit(f"{here} ended with code {ended.returncode}; {here}/log.txt says why.")
    shutil.rmtree(here / "checkpoints", ignore_errors=True)
    (Path(flags.pretrained_path) / own).unlink(missing_ok=True)


def words_of(flags: Flags, cell: Cell) -> list:
    """The flags by which `finetune_segmentation.py` does what a cell is of."""
    file, _, context = dict(map(named, flags.starts))[cell.start].partition("+")
    words = ["--data_path", dict(map(named, flags.sets))[cell.set], "--labelled", cell.labelled, "--seed", cell.seed]
    words += ["--pretrained_path", flags.pretrained_path, "--start_from", file, "--evaluate", flags.evaluate]
    return [*words, *(["--context"] if context else []), *more_for(flags, cell.set)]


def more_for(flags: Flags, name: str) -> list[str]:
    """The words of the further flags that a set gets: those of all sets, then its own."""
    words = []
    for word in sorted(flags.more, key=lambda word: ":" in named(word)[0]):
        flag, value = named(word)
        only, _, flag = flag.rpartition(":")
        if only in ("", name):
            words += [f"--{flag}", *(value.split(",") if value else [])]
    return words


def write(flags: Flags) -> None:
    """The table of the starts whose seeds are all there, in Markdown."""
    first = named(flags.starts[0])[0]
    lines = [f"| set, labelled | start | Dice | seeds | against {first} |", "| --- | --- | --- | --- | --- |"]
    for name, labelled in product((named(word)[0] for word in flags.sets), flags.labelled):
        of_start = {}
        for start in (named(word)[0] for word in flags.starts):
            tables = [Cell(name, labelled, start, seed).folder(flags.output) / "cases.csv" for seed in flags.seeds]
            if all(path.with_name("results.json").exists() for path in tables):
                of_start[start] = dice_by_case(tables)
        lines += [row(f"{name}, {labelled or 'all'}", start, cases, of_start.get(first)) for start, cases in of_start.items()]
    path = Path(flags.output) / "table.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(what: str, start: str, cases: dict, of_first: dict | None) -> str:
    """A line of the table; of_first: the cases of the start that it is compared with, None where that is not finished."""
    subjects, values = zip(*cases.values())
    values = np.array(values)
    compared = of_first is not None and of_first is not cases
    difference = told(dice_difference(cases, of_first), "+.3f") if compared else ""
    seeds = " / ".join(f"{mean:.3f}" for mean in known_mean(values, axis=0))
    return f"| {what} | {start} | {told(mean_of_cases(known_mean(values, axis=1), subjects))} | {seeds} | {difference} |"


def told(found: Estimate, form: str = ".3f") -> str:
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__, use_underscores=True))
