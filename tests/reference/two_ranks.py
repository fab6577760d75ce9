"""What each of two gloo processes computes from the stored cases of two processes: codes and clusters."""

import torch
import torch.distributed as dist

from losses.kmeans import kmeans_from
from losses.sinkhorn import sinkhorn
from tests import reference_recipe as recipe

ITERATIONS = 10


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save({"codes": codes(rank), "clusters": clusters(rank)}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def sinkhorn_case(name: str, seed: int) -> tuple[torch.Tensor, float, int]:
    """The scores (B, K) float32, epsilon and iterations of an array's name, such as q1_B64_K30_eps0.05_it3."""
    rows, columns, epsilon, iterations = name.split("_")[1:]
    rows, columns = int(rows[1:]), int(columns[1:])
    scores = (0.4 * recipe.draw(f"scores/{rows}x{columns}", seed, (rows, columns))).clip(-1, 1)
    return torch.tensor(scores).float(), float(epsilon[3:]), int(iterations[2:])


def codes(rank: int) -> dict[str, torch.Tensor]:
    """By name of the stored array, this rank's rows in float32; with `/double` after it, in float64."""
    stored = recipe.load("sinkhorn.npz")
    results = {}
    for name in (name for name in stored if name.startswith("q2_")):
        scores, epsilon, iterations = sinkhorn_case(name, int(stored["seed"]))
        own = scores.split(stored[name.replace("q2", "split")].tolist())[rank]
        results[name] = sinkhorn(own, epsilon, iterations)
        results[f"{name}/double"] = sinkhorn(own.double(), epsilon, iterations)
    return results


def clusters(rank: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each head the centroids, and the assignments of this rank's half of the rows."""
    stored = recipe.load("deepcluster.npz")
    return [clusters_of(stored, "p2", head, half=rank) for head in range(len(stored["K"]))]


def clusters_of(stored, case: str, head: int, half: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """k-means of a head, from the stored first rows; with `half`, on one of two processes that share the rows."""
    bank = torch.tensor(stored["bank"][head % 2])
    index = torch.arange(len(bank))
    if half is not None:
        bank, index = bank.chunk(2)[half], index.chunk(2)[half]
    return kmeans_from(bank, index, torch.tensor(stored[f"{case}_drawn_rows{head}"]), ITERATIONS)
