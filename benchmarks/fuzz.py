"""Reads thousands of damaged and hostile files through the project's own readers, in processes limited to 2 GB.

Each file must be read, or refused with one sentence; a traceback, a crash, ten seconds without an answer, or a file that was
written count as faults, of which there must be none.

Run      python benchmarks/fuzz.py --files 10000
"""

import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tyro  # noqa: E402

from benchmarks.fuzz_files import ARCHIVES, KINDS, WEIGHTS, damaged, hostile_files, valid_files  # noqa: E402

LIMIT, PATIENCE, BATCH = 2 * 10**9, 10.0, 500  # bytes, seconds, files a process
SPARSE = 200_000 * 200_000 * 8 + 128  # bytes that sparse.npy is made long, of which the disk holds the first
OUTCOMES = ("read", "refused", "traceback", "crash", "hang", "write")


@dataclass(kw_only=True)
class Flags:
    files: int = 10_000  # how many
    seed: int = 0  # of the damage


def read(path: Path) -> None:
    """Reads a file as training does, or as what prepares archives does, to its last value."""
    if path.name.endswith((".pth", ".safetensors")):
        from models.weight_files import read_weights

        read_weights(path)
        return
    if path.name.endswith(ARCHIVES):
        from datasets.sources import Source, volumes_of

        for raw in volumes_of(Source(path.name, "volume", (path,), (), ""), "auto", ""):
            raw.voxels.sum()
        return
    from datasets.dicom import images_of, pixels_of
    from datasets.reading import open_volume, read_image, volume_shape

    if path.name.endswith((".png", ".jpg", ".tif", ".bmp")):
        read_image(path).sum()
    elif path.name.endswith(".dcm"):
        images = images_of(path)  # none in reports
        _ = images and pixels_of(images)[0].sum()
    else:
        volume_shape(path)
        open_volume(path).sum()


def _needs_torch(name: str) -> bool:
    return name.endswith((".pth", ".safetensors", *ARCHIVES))


def read_all(list_of_files: str) -> None:
    """In a process of its own: one line for each file, with what came of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    paths = [Path(line) for line in Path(list_of_files).read_text(encoding="utf-8").splitlines()]
    if _needs_torch(paths[0].name):
        import datasets.sources  # noqa: F401
        import models.weight_files  # noqa: F401  torch's own libraries take 3 GB of addresses
    resource.setrlimit(resource.RLIMIT_DATA if _needs_torch(paths[0].name) else resource.RLIMIT_AS, (LIMIT, LIMIT))
    for path in paths:
        try:
            read(path)
            outcome = "read"
        except Exception as error:
            sentence = str(error)
            refused = getattr(error, "exit_code", None) == 2 and "\n" not in sentence and path.name in sentence
            outcome = "refused" if refused else f"traceback {type(error).__name__}: {sentence[:300]!r}"
        print(outcome, flush=True)


def outcomes(paths: list[Path], folder: Path) -> dict[Path, str]:
    """What comes of each file; a process that ends or is silent for ten seconds is started again behind the file it had."""
    found: dict[Path, str] = {}
    while len(found) < len(paths):
        left = paths[len(found) :]
        (folder / "list").write_text("\n".join(map(str, left)), encoding="utf-8")
        command = [sys.executable, __file__, "--read", str(folder / "list")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", cwd=folder) as process:
            for path in left:
                patience = PATIENCE if path != left[0] else 60.0  # it has to import first
                ready, _, _ = select.select([process.stdout], [], [], patience)
                line = process.stdout.readline().strip() if ready else ""
                found[path] = line or ("crash" if ready else "hang")
                if not line:
                    process.kill()
                    break
    return found


def tried(files: dict[str, bytes], folder: Path) -> dict[str, str]:
    """Writes the files into `folder`, reads them, and gives what came of each."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "a.raw").write_bytes(bytes(6 * 7 * 5 * 2))  # which whole .mhd files name
    for name, content in files.items():
        (folder / name).write_bytes(content)
        if name == "sparse.npy":
            os.truncate(folder / name, SPARSE)
    apart = folder.with_name("lists")
    apart.mkdir(exist_ok=True)
    before = _listing(folder)
    groups = [[folder / name for name in files if _needs_torch(name) == torch] for torch in (True, False)]
    found = {path.name: outcome for group in groups if group for path, outcome in outcomes(group, apart).items()}
    changed = {name for name, _ in before ^ _listing(folder)} | {p.name for p in apart.iterdir()} - {"list"}
    return found | {name: "write" for name in changed}


def _listing(folder: Path) -> set[tuple[str, int]]:
    return {(str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*")}


def main(flags: Flags) -> None:
    rng, whole = random.Random(flags.seed), valid_files()
    table, faults = {}, []
    kinds = KINDS + ARCHIVES + WEIGHTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        for kind in ("whole", *kinds, "made to do harm"):
            if kind == "whole":
                files = {f"a.{name}": content for name, content in whole.items()}
            elif kind in kinds:
                share = flags.files // len(kinds) + (kinds.index(kind) < flags.files % len(kinds))
                files = {f"{i}.{kind}": damaged(kind, whole[kind], rng) for i in range(share)}
            else:
                files = hostile_files()
            found: dict[str, str] = {}
            for first in range(0, len(files), BATCH):
                found |= tried(dict(list(files.items())[first : first + BATCH]), folder)
            table[kind] = Counter(outcome.split()[0] for outcome in found.values())
            faults += [(n, outcome, files.get(n, b"")) for n, outcome in found.items() if outcome.split()[0] in OUTCOMES[2:]]
            print(f"| {kind} | {len(files)} | {' | '.join(str(table[kind][o]) for o in OUTCOMES)} |", flush=True)
    if table["whole"]["read"] < len(kinds):
        raise SystemExit("whole files are refused")
    total = sum(table.values(), Counter())
    print(f"| all | {total.total()} | {' | '.join(str(total[o]) for o in OUTCOMES)} |")
    kept = Path("runs/fuzz")
    for name, outcome, content in faults:
        kept.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(content)
        print(f"{kept / name}: {outcome}")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read_all(sys.argv[2])
    else:
        print(f"| file | tried | read | {' | '.join(OUTCOMES[1:])} |")
        print("| --- " * 8 + "|")
        main(tyro.cli(Flags, use_underscores=True, description=__doc__))
