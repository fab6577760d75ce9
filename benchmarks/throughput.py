"""The scripts themselves on made-up volumes: volumes (or slices) a second, the share of time that waits for data, peak memory.

Run      python benchmarks/throughput.py --batch_size 4                # stages 1 to 3 at full size, on a GPU where there is one
         python benchmarks/throughput.py --quick                       # small ones, on any machine
Writes   nothing that stays
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import tyro  # noqa: E402
from run import processor  # noqa: E402
from transport import volumes  # noqa: E402

EPOCHS = 3  # the last one counts
TELL_THE_PEAK = (
    "import atexit, resource, runpy, sys, torch; sys.argv = sys.argv[1:];"
    "peak = lambda: torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else"
    " resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20;"
    "atexit.register(lambda: print('peak GiB', peak()));"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@dataclass(kw_only=True)
class Flags:
    batch_size: int = 4  # volumes a process in stages 2 and 3; 16 times as many slices in stage 1
    volumes: int = 256  # made-up int16 volumes of 96 slices of 160 × 160
    workers: int = 8  # loader processes
    quick: bool = False  # a small network, few small volumes
    recompute: bool = False  # as the scripts' flag
    cached_views: int = 0  # as that of stage 2


def main(flags: Flags) -> None:
    if flags.quick:
        flags.volumes, flags.workers = 8, 0
    data = volumes(flags.volumes, (40, 40, 12) if flags.quick else (160, 160, 96))
    small = "--arch resnet18 --target_shape 8 32 32 --d_model 64".split() if flags.quick else []
    common = ["--epochs", EPOCHS, "--workers", flags.workers, "--probed_files", 0]
    again = ["--recompute"] if flags.recompute else []
    pictures = ["--data_path", "", "--volume_path", data, "--batch_size", 16 * flags.batch_size, *small[:2], *again]
    crops = ["--size_crops", 32, 16, "--nmb_prototypes", 8] if flags.quick else []
    both = ["--data_path", data, "--batch_size", flags.batch_size, *small]
    print(f"{processor()}, batches of {flags.batch_size}, {flags.volumes} volumes, {flags.workers} workers")
    with tempfile.TemporaryDirectory() as folder:
        tell(folder, "ssl_swav_2D", 16 * flags.batch_size, "slices", *common, *pictures, *crops)
        tell(folder, "mask_swav_3D", flags.batch_size, "volumes", *common, *both, "--cached_views", flags.cached_views)
        tell(folder, "ssl_swav_3D", flags.batch_size, "volumes", *common, *both, *again)


def tell(folder: str, script: str, batch: int, what: str, *words) -> None:
    """Runs a script in `folder` and prints what its last epoch says."""
    command = [sys.executable, "-c", TELL_THE_PEAK, HERE.parent / f"{script}.py", *words]
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True, encoding="utf-8",
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    lines = [
        json.loads(line) for line in (Path(folder) / "runs" / script / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    epochs = [line for line in lines if "seconds" in line]
    steps = epochs[-1]["step"] // EPOCHS
    rate, wait = steps * batch / epochs[-1]["seconds"], epochs[-1]["data_wait_seconds"] / epochs[-1]["seconds"]
    peak = float(done.stdout.split("peak GiB")[1])
    print(f"{script}: {rate:.1f} {what} a second, {wait:.1%} of the time waits for data, peak {peak:.1f} GiB", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__, use_underscores=True))
