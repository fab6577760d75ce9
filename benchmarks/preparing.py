"""Preparing volumes against a loop with SimpleITK, side by side: read, turn, write an NPY file; on one process and on several.

The loop reads a file or a series, turns it into LPS, and saves its array; it keeps no geometry, makes no hash, checks nothing.

Run      python benchmarks/preparing.py
"""

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import SimpleITK  # noqa: E402
import tyro  # noqa: E402

from datasets.dealing import deal  # noqa: E402
from datasets.sources import Source, find_sources  # noqa: E402
from datasets.writing import Place, prepare_source  # noqa: E402
from prepare_data import PrepareConfig  # noqa: E402
from tests.dicom_series import write_series  # noqa: E402

KINDS = ("nii.gz", "nii", "mha", "nrrd", "dicom")
AFFINE = np.array([[0, 0.7, 0, 5.0], [0.7, 0, 0, -7.0], [0, 0, 2.5, 11.0], [0, 0, 0, 1]])


@dataclass(kw_only=True)
class Flags:
    shape: tuple[int, int, int] = (384, 384, 60)  # of a volume: rows, columns, slices; int16
    volumes: int = 6  # of each kind
    rounds: int = 5  # of both, interleaved
    processes: tuple[int, ...] = (1, 2)  # side by side, for ours


def main(flags: Flags) -> None:
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    print(f"{flags.volumes} volumes of {flags.shape} int16, medians of {flags.rounds} interleaved rounds, one thread a process")
    print(f"{'kind':8} {'MB/s':>6} {'MB/s of the loop':>17} {'ratio':>6}", *(f"{n} processes" for n in flags.processes[1:]))
    with tempfile.TemporaryDirectory() as name:
        for kind in KINDS:
            root = Path(name) / kind
            write_volumes(root, kind, flags)
            measure(root, Path(name) / "out", kind, flags)


def write_volumes(root: Path, kind: str, flags: Flags) -> None:
    """Noise on smooth ground, as compressible as CT."""
    rng = np.random.default_rng(0)
    root.mkdir()
    for number in range(flags.volumes):
        ground = np.add.outer(np.add.outer(np.arange(flags.shape[0]), np.arange(flags.shape[1])), np.arange(flags.shape[2]))
        voxels = (ground % 700 + rng.normal(0, 12, flags.shape)).astype(np.int16)
        if kind == "dicom":
            write_series(root / str(number), voxels, AFFINE)
            continue
        image = SimpleITK.GetImageFromArray(np.moveaxis(voxels, -1, 0))
        image.SetSpacing((0.7, 0.7, 2.5))
        SimpleITK.WriteImage(image, str(root / f"{number}.{kind}"), useCompression=kind in ("mha", "nrrd"))


def measure(root: Path, out: Path, kind: str, flags: Flags) -> None:
    sources = find_sources(root, 1).sources
    ways = {"loop": lambda: simpleitk_loop(root, out)}
    ways |= {n: lambda n=n: ours(sources, out, n) for n in flags.processes}
    seconds: dict = {way: [] for way in ways}
    for _ in range(flags.rounds):
        for way, run in ways.items():
            shutil.rmtree(out, ignore_errors=True)
            (out / "a").mkdir(parents=True)
            begin = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - begin)
    median = {way: float(np.median(of_one)) for way, of_one in seconds.items()}
    size = flags.volumes * np.prod(flags.shape) * 2 / 1e6
    one = median[flags.processes[0]]
    more = (f"{one / median[n]:10.2f} x" for n in flags.processes[1:])
    print(f"{kind:8} {size / one:6.0f} {size / median['loop']:17.0f} {median['loop'] / one:6.2f}", *more, flush=True)


def ours(sources: list[Source], out: Path, processes: int) -> None:
    """All that prepare_data.py does with sources that it has found."""
    config = PrepareConfig(data_path=str(out))
    tasks = [(source, Place(source.key, "p", "train", "a"), config) for source in sources]
    for _, result, why in deal(prepare_source, tasks, processes):
        if result is None or isinstance(result, str):
            raise RuntimeError(result or why)


def simpleitk_loop(root: Path, out: Path) -> None:
    for path in sorted(root.iterdir()):
        if path.is_dir():
            reader = SimpleITK.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
            image = reader.Execute()
        else:
            image = SimpleITK.ReadImage(str(path))
        turned = SimpleITK.DICOMOrient(image, "LPS")  # named: a view does not keep its image alive
        np.save(out / "a" / f"{path.name}.npy", np.moveaxis(SimpleITK.GetArrayViewFromImage(turned), 0, -1))


if __name__ == "__main__":
    main(tyro.cli(Flags))
