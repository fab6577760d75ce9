"""What pre-training is worth: segmentation from several starts, with few labels, on the same volumes, subjects and seeds.

For every set, number of labelled subjects, start and seed one run of finetune_segmentation.py. One that is finished is not run
again, and refused where it was asked for something else. Differences are paired: of the same volume, learned from the same
subjects. A start is `name=file` (`random=` for none), a file of `--pretrained_path`; `name=file+context` also lets f_inter
speak. Of a run its scores, log and configuration stay; its weights and states, a quarter of a gigabyte each, do not.

Run      python benchmarks/compare_starts.py --sets ACDC=DIR LA2018=DIR --starts random= stage3=swav3D.pth+context
Writes   <output>/<set>-<labelled>-<start>/seed-<n>/, with asked.json beside the scores; <output>/table.md
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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tyro  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.finished import begin, finished, mean_and_seeds, told  # noqa: E402
from engine.checkpoint import sha256  # noqa: E402
from engine.errors import UserError, speaking_to_people  # noqa: E402
from engine.segmented_cases import Cases, dice_by_case, dice_difference  # noqa: E402
from engine.values import refuse_impossible  # noqa: E402

# what a cell says itself; no further flag may say it otherwise
OF_A_CELL = "data_path labelled seed seeds pretrained_path start_from evaluate context dump_path checkpoint_name".split()
NOT_COMPARED = {"pretrained_path", "workers"}  # they change no score


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
    refuse_unfit(flags)
    cells = [Cell(*of) for of in product(flags.sets, flags.labelled, flags.starts, flags.seeds)]
    cells = [cell._replace(set=named(cell.set)[0], start=named(cell.start)[0]) for cell in cells]
    todo = [cell for cell in cells if not finished(cell.folder(flags.output), asked_of(flags, cell))]
    print(f"{len(cells)} runs, {len(cells) - len(todo)} of them finished before", flush=True)
    with ThreadPoolExecutor(flags.jobs) as pool:
        for _ in tqdm(pool.map(lambda cell: run(flags, cell), todo), "runs", total=len(todo)):
            write(flags)
    write(flags)
    print((Path(flags.output) / "table.md").read_text(encoding="utf-8"))


def refuse_unfit(flags: Flags) -> None:
    """Raises `UserError` for flags by which nothing would be run, or something else than the table says."""
    refuse_impossible(flags)
    for flag in ("sets", "starts", "labelled", "seeds"):
        words = [*map(str, getattr(flags, flag))]
        if not words or len({named(word)[0] for word in words}) < len(words):
            raise UserError(f"--{flag} names {' '.join(words) or 'nothing'}; give one at least, and none twice.")
    for flag, what, words in (("sets", "folder", flags.sets), ("starts", "file", flags.starts)):
        for word in words:
            name, value = named(word)
            if not name or "/" in name or "=" not in word or (flag == "sets" and not value):
                raise UserError(f"--{flag} {word} is not name={what}; give it so, the name without a slash.")
    for word in flags.more:
        only, _, flag = named(word)[0].rpartition(":")
        if only and only not in [named(of)[0] for of in flags.sets]:
            raise UserError(f"--more {word} is for {only}, which is none of --sets; name one of them, or none.")
        if flag.replace("-", "_") in OF_A_CELL:
            raise UserError(f"--more {word} would replace what this script itself says of each run; leave it out.")


def named(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def run(flags: Flags, cell: Cell) -> None:
    """Runs one cell; what it prints goes to log.txt in its folder."""
    here, own = cell.folder(flags.output), f"{cell.set}-{cell.labelled}-{cell.start}-{cell.seed}.pth"
    words = [*words_of(flags, cell), "--dump_path", here, "--checkpoint_name", own]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // flags.jobs))
    begin(here, asked_of(flags, cell))
    with open(here / "log.txt", "a", encoding="utf-8") as log:
        script = [sys.executable, str(ROOT / "finetune_segmentation.py"), *map(str, words)]
        ended = subprocess.run(script, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": threads})
    if ended.returncode:
        raise UserError(f"{here} ended with code {ended.returncode}; {here}/log.txt says why.")
    shutil.rmtree(here / "checkpoints", ignore_errors=True)
    (Path(flags.pretrained_path) / own).unlink(missing_ok=True)


def asked_of(flags: Flags, cell: Cell) -> dict[str, list[str]]:
    """The values of each flag of a cell's run; of files that may be replaced what they are, not what they are called."""
    asked: dict[str, list[str]] = {}
    for word in map(str, words_of(flags, cell)):
        if word.startswith("--"):
            flag = word[2:]
            asked[flag] = []
        else:
            asked[flag].append(word)
    asked["data_path"] = [str(Path(*asked["data_path"]).resolve())]
    for flag in {"start_from", "resnet_pretrained"} & asked.keys():
        asked[flag] = [hash_of(Path(flags.pretrained_path) / name) for name in asked[flag] if name]
    return {flag: values for flag, values in asked.items() if flag not in NOT_COMPARED}


def hash_of(weights: Path) -> str:
    try:
        return f"SHA-256 {sha256(weights)[:16]}"
    except OSError as error:
        raise UserError(
            f"{weights} cannot be read ({error.strerror}); give files of --pretrained_path as --starts name=file."
        ) from None


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
    columns = ("set, labelled", "start", f"Dice on {flags.evaluate}", "seeds", f"against {first}")
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for name, labelled in product((named(word)[0] for word in flags.sets), flags.labelled):
        of_start = {}
        for start in (named(word)[0] for word in flags.starts):
            tables = [Cell(name, labelled, start, seed).folder(flags.output) / "cases.csv" for seed in flags.seeds]
            if all(path.with_name("results.json").exists() for path in tables):
                of_start[start] = dice_by_case(tables, flags.evaluate)
        lines += [row(f"{name}, {labelled or 'all'}", start, cases, of_start.get(first)) for start, cases in of_start.items()]
    path = Path(flags.output) / "table.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(what: str, start: str, cases: Cases, of_first: Cases | None) -> str:
    """A line of the table; of_first: the cases of the start that it is compared with, None where that is not finished."""
    compared = of_first is not None and of_first is not cases
    difference = told(dice_difference(cases, of_first), "+.3f") if compared else ""
    return f"| {' | '.join((what, start, *mean_and_seeds(cases), difference))} |"


if __name__ == "__main__":
    with speaking_to_people():
        main(tyro.cli(Flags, description=__doc__, use_underscores=True))
