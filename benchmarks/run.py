"""Ours against others, side by side in one run: a table of times, ratios and memory, and the same as JSON.

Run      python benchmarks/run.py [--quick] [--only views attention] [--threads 1] [--check]
Writes   with --write, benchmarks/results/<processor>.json

The other libraries are those of the group `oracles` in pyproject.toml. Times of a busy machine say nothing; the ratios, of
calls in turn, do. `--check` compares the ratios with those stored for this kind of processor.
"""

import importlib
import json
import platform
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from measure import Result, compare  # noqa: E402

from engine.processes import keep_freed_memory  # noqa: E402

PARTS = ("views", "transport", "encoder", "attention", "clustering", "stage1", "stage2", "stage3")
KEPT = 0.8  # the share of a stored ratio below which --check fails


@dataclass(kw_only=True)
class Flags:
    only: tuple[str, ...] = ()  # parts, by name (none = all)
    quick: bool = False  # small sizes, three rounds
    threads: int = 0  # of torch, for both sides (0 = as many as torch takes by itself)
    rounds: int = 5  # each figure is a median of so many
    write: bool = False  # store what was measured in the table of this kind of processor
    check: bool = False  # fail when a ratio is more than a fifth below the stored one


def main(flags: Flags) -> int:
    flags.threads = flags.threads or torch.get_num_threads()
    torch.set_num_threads(flags.threads)
    keep_freed_memory()  # as every run of ours does
    unknown = set(flags.only) - set(PARTS)
    if unknown:
        print(f"error: --only {' '.join(sorted(unknown))} is no part; there are {' '.join(PARTS)}.", file=sys.stderr)
        return 2
    rounds = 3 if flags.quick else flags.rounds
    stored = read_stored(flags) if flags.check else {}
    results = []
    for part in flags.only or PARTS:
        for case in importlib.import_module(part).cases(flags.quick):
            result = compare(case, rounds)
            if lost(result, stored):
                result = compare(case, 3 * rounds)  # a busy moment is no loss
            print(f"{result.name} ({result.size}): {result.ratio:.2f} × {result.peer_name}", flush=True)
            results.append(result)
    Console(width=160).print(table(results, flags.threads))
    if flags.write:
        write_stored(flags, results)
    for result in results if flags.check else ():
        if lost(result, stored):
            print(
                f"error: {result.name} ({result.size}): {result.ratio:.2f} ×, stored {stored[key(result)]:.2f} ×.",
                file=sys.stderr,
            )
    return int(any(lost(result, stored) for result in results))


def table(results: list[Result], threads: int) -> Table:
    """Milliseconds a call, their ratio, the promised one, the peak memory of both, and ours a second."""
    out = Table(title=f"{processor()}, {threads} thread(s), medians; ratio = time of the other / ours")
    for name in ("what", "size", "ours", "other", "", "ratio", "promised", "memory, MiB", "ours a second"):
        out.add_column(name, justify="left" if name in ("what", "size", "") else "right")
    for r in results:
        out.add_row(
            r.name, r.size, f"{r.ours_seconds * 1e3:.1f} ms", f"{r.peer_seconds * 1e3:.1f} ms", r.peer_name, f"{r.ratio:.2f} ×",
            f"{r.promise:g} ×" if r.promise else "", f"{r.ours_mib:.0f}, {r.peer_mib:.0f}", f"{r.rate:.3g} {r.unit}s",
        )  # fmt: skip
    return out


def processor() -> str:
    """The GPU's name, or that of the processor and whether it multiplies bf16."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        name = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8")).group(1)
    except (OSError, AttributeError):
        name = platform.processor() or platform.machine()
    return f"{name}{' with' if torch.cpu._is_avx512_bf16_supported() else ' without'} bf16"


def stored_file(flags: Flags) -> Path:
    return HERE / "results" / f"{file_name(flags.threads)}{'-quick' if flags.quick else ''}.json"


def file_name(threads: int) -> str:
    """The processor and the threads, for the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", f"{processor()} {threads} threads".lower())


def write_stored(flags: Flags, results: list[Result]) -> None:
    path = stored_file(flags)
    path.parent.mkdir(exist_ok=True)
    about = {
        "processor": processor(),
        "threads": flags.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    before = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []
    kept = {(r["name"], r["size"], r["peer_name"]): r for r in before} | {key(r): asdict(r) for r in results}
    path.write_text(json.dumps({**about, "results": list(kept.values())}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def read_stored(flags: Flags) -> dict[tuple[str, str, str], float]:
    path = stored_file(flags)
    if not path.exists():
        print(f"no ratios are stored for {processor()}, {flags.threads} thread(s); --write stores them.")
        return {}
    return {(r["name"], r["size"], r["peer_name"]): r["ratio"] for r in json.loads(path.read_text(encoding="utf-8"))["results"]}


def key(result: Result) -> tuple[str, str, str]:
    return result.name, result.size, result.peer_name


def lost(result: Result, stored: dict[tuple[str, str, str], float]) -> bool:
    return result.ratio < KEPT * stored.get(key(result), 0.0)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Flags, description=__doc__, use_underscores=True)))
