"""How time, memory and traffic of stage 3 grow with processes, and of lists, orders and banks with files and clusters.

Run      python benchmarks/scaling.py          # on a machine that does nothing else: traffic is that of the loopback device
Writes   nothing that stays

Traffic is counted by the kernel, over all processes, beside what a formula says: an all-reduce of S bytes sends 2 (R - 1) S,
the least that a ring can do. The same formulas make the table of sizes that were not tried.
"""

import functools
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import torch  # noqa: E402
import torchvision  # noqa: E402
from measure import peak_mib, seconds  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from run import processor  # noqa: E402
from transport import volumes  # noqa: E402

from datasets.draws import keys, permutation  # noqa: E402
from datasets.files import Item  # noqa: E402
from engine.run import Run, launch  # noqa: E402
from losses.kmeans import kmeans_from  # noqa: E402
from losses.memory_bank import MemoryBank  # noqa: E402
from models.joint import JointModel  # noqa: E402
from models.slice_encoder import SliceEncoder  # noqa: E402
from models.volume_encoder import VolumeEncoder  # noqa: E402

VOLUMES, SHAPE, DIM, BATCH, EPOCHS = 80, (16, 48, 48), 64, 4, 2
FEW, MANY = (8, 64), (40, 640)  # prototypes of volumes and of slices
MIB = 2**20


def main() -> None:
    print(f"{processor()}, {os.cpu_count()} cores; one thread a process", flush=True)
    Console(width=150).print(processes())
    Console(width=150).print(files())
    Console(width=150).print(clusters())
    Console(width=150).print(model())


def processes() -> Table:
    """Stage 3 with ResNet-18 on small volumes, a global batch of 4, on 1, 2 and 4 processes."""
    table = Table(title="stage 3, ResNet-18, 4 volumes of 16 × 48 × 48 a step, dealt over the processes")
    for name in (
        "method",
        "K",
        "processes",
        "volumes a second",
        "a process",
        "MiB a step",
        "formula",
        "MiB a clustering",
        "formula",
    ):
        table.add_column(name, justify="left" if name == "method" else "right")
    table.columns[4].header = "peak MiB a process"
    data = volumes(VOLUMES, (SHAPE[1], SHAPE[2], SHAPE[0]))
    for method, counts in (("swav", FEW), ("swav", MANY), ("deepcluster", FEW), ("deepcluster", MANY)):
        for world in (1, 2, 4):
            seen = trained(method, world, counts, data)
            step, clustering = gradient_bytes(world, "resnet18", DIM), 0.0
            if method == "deepcluster":
                heads = [(counts[0], DIM, VOLUMES)] * 3 + [(counts[1], 128, VOLUMES * SHAPE[0])]
                clustering = sum(clustering_bytes(world, *head) for head in heads)
            table.add_row(
                method, f"{counts[0]}, {counts[1]}", str(world), f"{seen['rate']:.2f}", f"{seen['peak']:.0f}",
                f"{seen['step'] / MIB:.1f}", f"{step / MIB:.1f}", f"{seen['clustering'] / MIB:.2f}", f"{clustering / MIB:.2f}",
            )  # fmt: skip
    return table


def start_from(folder: Path, data: Path) -> None:
    """Weights of stages 1 (drawn) and 2 (trained for an epoch) in `folder`."""
    torch.save(torchvision.models.resnet18().state_dict(), folder / "resnet.pth")
    command = [sys.executable, HERE.parent / "mask_swav_3D.py", *words(folder, data, BATCH), "--checkpoint_name", "mask.pth"]
    started([*command, "--dump_path", folder / "stage-2"], folder)


def words(folder: Path, data: Path, batch: int) -> list:
    small = ["--arch", "resnet18", "--target_shape", *SHAPE, "--d_model", DIM, "--precision", "fp32"]
    return [
        "--data_path", data, "--pretrained_path", folder, "--resnet_pretrained", "resnet.pth", "--batch_size", batch,
        "--epochs", EPOCHS, "--workers", 0, "--probed_files", 0, "--checkpoint_minutes", 0, *small,
    ]  # fmt: skip


def started(command: list, folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    if done.returncode:
        sys.exit(done.stderr[-3000:])


def trained(method: str, world: int, counts: tuple[int, int], data: Path) -> dict[str, float]:
    """Volumes a second, bytes of a step and a clustering over all processes, the largest peak, of the last epoch."""
    heads = ["--nmb_prototypes", *[counts[0]] * (3 if method == "deepcluster" else 1), "--nmb_slice_prototypes", counts[1]]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"] if world > 1 else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        start_from(folder, data)
        command = [
            sys.executable,
            *launcher,
            __file__,
            "child",
            folder,
            f"ssl_{method}_3D",
            *words(folder, data, BATCH // world),
        ]
        started([*command, *heads, "--trans_pretrained", "mask.pth"], folder)
        seen = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("rank-*.json")]
    first = next(one for one in seen if one["rank"] == 0)
    return first | {"peak": max(one["peak"] for one in seen)}


def child(folder: str, name: str, *flags: str) -> None:
    """Trains, and notes the traffic from the second step of the last epoch to its last, and that of its clustering."""
    script, at, clustering = importlib.import_module(name), {}, []
    plain_update, plain_cluster = Run.update, MemoryBank.cluster_heads

    def update(run, *args, **more):
        plain_update(run, *args, **more)
        at[run.step] = time.monotonic(), loopback_bytes()
        if run.step == EPOCHS * run.steps_per_epoch:
            (start, before), (end, after) = at[run.step - run.steps_per_epoch + 1], at[run.step]
            steps = run.steps_per_epoch - 1
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            told = {"rank": run.rank, "rate": steps * BATCH / (end - start), "step": (after - before) / steps, "peak": peak}
            told["clustering"] = sum(clustering[-2:])
            (Path(folder) / f"rank-{run.rank}.json").write_text(json.dumps(told), encoding="utf-8")

    def cluster_heads(bank, *args):
        together()
        before = loopback_bytes()
        assigned = plain_cluster(bank, *args)
        together()
        clustering.append(loopback_bytes() - before)
        return assigned

    Run.update, MemoryBank.cluster_heads = update, cluster_heads
    sys.argv = [name, *flags]
    config = next(v for k, v in vars(script).items() if k.endswith("Config") and v.__module__ == name)
    launch(config, script.main)


def together() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def loopback_bytes() -> int:
    line = next(
        line for line in Path("/proc/net/dev").read_text(encoding="utf-8").splitlines() if line.strip().startswith("lo:")
    )
    return int(line.split(":")[1].split()[8])


def reduced(world: int, size: float) -> float:
    """Bytes that all processes send together for an all-reduce of `size` bytes, by a ring."""
    return 2 * (world - 1) * size


def gradient_bytes(world: int, arch: str, dim: int) -> float:
    model = JointModel(SliceEncoder(arch, dim), VolumeEncoder(dim), (1,), (1,))
    return reduced(world, 4 * sum(p.numel() for p in model.parameters() if p.requires_grad))


def clustering_bytes(world: int, clusters: int, dim: int, rows: float, iterations: int = 10) -> float:
    """First centroids (float32), in each iteration sums (float64) and counts, at the end everybody's assignments (int64)."""
    sums, counts = iterations * clusters * dim * 8, (iterations + 1) * clusters * 8
    return reduced(world, clusters * dim * 4 + sums + counts + rows * 8)


def files() -> Table:
    """What a process keeps of a list of files, and what it takes to put them in order for an epoch."""
    table = Table(title="lists and orders, in each process")
    for name in ("files", "list, MiB", "bytes a file", "order, s", "order, peak MiB"):
        table.add_column(name, justify="right")
    for count in (10**4, 10**5, 10**6, 10**7):
        listed = f"{list_bytes(count) / MIB:.0f}", f"{list_bytes(count) / count:.0f}"
        order = lambda count=count: permutation(keys(0, "order", 1), count)  # noqa: E731
        table.add_row(
            f"{count:,}", *(listed if count <= 10**6 else ("", "")), f"{seconds(order):.2f}", f"{peak_mib(order):.0f}"
        )
    return table


def list_bytes(count: int) -> float:
    """Of items with paths of usual length, as they are listed; measured on the process."""
    before, root = resident(), Path("training_data_2D")
    items = [
        Item(root / f"hospital/study-{n:09}/{n % 300:04}.png", f"hospital/study-{n:09}/{n % 300:04}.png", "hospital")
        for n in range(min(count, 10**6))
    ]
    return (resident() - before) * count / len(items)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def clusters() -> Table:
    """Seconds of an iteration of k-means over one process's rows."""
    table = Table(title=f"k-means of 128 numbers a row, an iteration, {torch.get_num_threads()} thread(s)")
    for name in ("rows", "K", "s", "ns a row and cluster"):
        table.add_column(name, justify="right")
    for rows, count in ((20_000, 300), (20_000, 3000), (200_000, 300), (200_000, 3000)):
        points = torch.nn.functional.normalize(torch.randn(rows, 128, generator=torch.Generator().manual_seed(0)), dim=1).half()
        call = functools.partial(kmeans_from, points, torch.arange(rows), torch.arange(count))
        call(1)
        one, six = (min(seconds(functools.partial(call, iterations)) for _ in range(3)) for iterations in (1, 6))
        each = (six - one) / 5
        table.add_row(f"{rows:,}", str(count), f"{each:.3f}", f"{each / rows / count * 1e9:.2f}")
    return table


def model() -> Table:
    """Sizes that were not tried: ResNet-50, D 640, DeepClusterV2 with three heads of 3000, two crops of a row."""
    table = Table(title="by the formulas: ResNet-50, D = 640, heads of 3000 prototypes; traffic over all processes")
    for name in (
        "slices",
        "volumes",
        "GPUs",
        "bank a GPU, GiB",
        "bank in a state, GiB",
        "traffic of a step, GiB",
        "of a clustering, GiB",
        "similarities a GPU",
    ):
        table.add_column(name, justify="right")
    gib, step = 2**30, {world: gradient_bytes(world, "resnet50", 640) for world in (8, 64)}
    for slices in (1e6, 1e7, 1e8):
        scans = slices / 200
        for world in (8, 64):
            rows = [(scans, 640, 3), (32 * scans, 128, 1)]
            bank = sum(2 * 2 * count * dim for count, dim, _ in rows)
            traffic = sum(heads * clustering_bytes(world, 3000, dim, count) for count, dim, heads in rows)
            similarities = sum(heads * 11 * 3000 * count for count, _, heads in rows) / world
            table.add_row(
                f"{slices:.0e}", f"{scans:,.0f}", str(world), f"{bank / world / gib:.3f}", f"{bank / gib:.2f}",
                f"{step[world] / gib:.1f}", f"{traffic / gib:.1f}", f"{similarities:.1e}",
            )  # fmt: skip
    return table


if __name__ == "__main__":
    child(*sys.argv[2:]) if sys.argv[1:2] == ["child"] else main()
