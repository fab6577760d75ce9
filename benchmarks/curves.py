"""How cost grows over a decade: with volumes (reading and two views), slices (f_intra's step), prototypes (k-means, Sinkhorn).

Run      python benchmarks/curves.py
Writes   benchmarks/results/curves-<processor>.png
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from measure import seconds  # noqa: E402
from run import file_name, processor  # noqa: E402
from transport import volumes  # noqa: E402

from datasets.files import find_volumes  # noqa: E402
from datasets.loader import once_loader  # noqa: E402
from datasets.views import two_views  # noqa: E402
from datasets.volumes import VolumeDataset, collate_volumes  # noqa: E402
from engine.processes import autocast, computing_dtype, keep_freed_memory  # noqa: E402
from losses.kmeans import kmeans_from  # noqa: E402
from losses.sinkhorn import sinkhorn  # noqa: E402
from models.slice_encoder import SliceEncoder  # noqa: E402

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

ROUNDS, CPU = 5, torch.device("cpu")


def main() -> None:
    keep_freed_memory()
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.4), layout="constrained")
    for axis, (what, sizes, make) in zip(axes, curves()):
        calls = [make(size) for size in sizes]
        for call in calls:
            call()
        times = np.array([[seconds(call) for call in calls] for _ in range(ROUNDS)])
        medians = np.median(times, axis=0)
        power = np.polyfit(np.log(sizes), np.log(medians), 1)[0]
        a_unit = medians[-1] / sizes[-1] / (medians[0] / sizes[0])
        print(f"{what}: {sizes[0]} to {sizes[-1]}, time ~ size^{power:.2f}; a unit costs {a_unit:.2f} times as much at the end")
        axis.loglog(sizes, medians * 1e3, "o-")
        axis.loglog(sizes, medians[-1] * 1e3 * np.array(sizes) / sizes[-1], ":", color="grey")
        axis.set(xlabel=what, ylabel="ms", title=f"size^{power:.2f}", xticks=sizes, xticklabels=sizes)
        axis.minorticks_off()
    path = HERE / "results" / f"curves-{file_name(torch.get_num_threads())}.png"
    path.parent.mkdir(exist_ok=True)
    figure.suptitle(f"{processor()}, {torch.get_num_threads()} thread(s); dotted: linear")
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def curves() -> list[tuple[str, list[int], Callable[[int], Callable[[], object]]]]:
    """What is counted, its sizes, and what makes the computation of a size."""
    return [
        ("volumes, 32 × 64 × 64", [8, 16, 32, 80], views_of),
        ("slices, ResNet-18, 128²", [16, 32, 64, 160], step_of),
        ("K of k-means, 20,000 × 128", [300, 600, 1200, 3000], kmeans_of),
        ("K of Sinkhorn, 4096 rows", [300, 600, 1200, 3000], sinkhorn_of),
    ]


def views_of(count: int):
    items = find_volumes(volumes(80, (64, 64, 32)))[:count]
    loader = once_loader(VolumeDataset(items, (32, 64, 64), 0), collate_volumes, 4, workers=0)
    return lambda: [two_views(batch, 0, "compose", "robust", torch.float32) for batch in loader]


def step_of(slices: int):
    encoder, dtype = encoder_of_curve(), computing_dtype("auto", CPU)
    images = torch.randn(slices, 1, 128, 128)

    def step():
        encoder.zero_grad()
        with autocast(dtype, CPU):
            embedded = encoder(images)
        embedded.square().mean().backward()

    return step


@functools.cache
def encoder_of_curve() -> SliceEncoder:
    return SliceEncoder("resnet18").to(memory_format=torch.channels_last)


def kmeans_of(clusters: int):
    rows = F.normalize(torch.randn(20_000, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    return lambda: kmeans_from(rows, torch.arange(20_000), torch.arange(clusters), 2)


def sinkhorn_of(clusters: int):
    scores = torch.rand(4096, clusters, generator=torch.Generator().manual_seed(0))
    return lambda: sinkhorn(scores, 0.05, 3, largest=1.0)


if __name__ == "__main__":
    main()
