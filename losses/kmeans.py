"""Spherical k-means over the rows of all ranks, the same to the bit for any number of them.

Directions are rounded to multiples of 2^-24, which float32 holds exactly; dot products and sums of them are exact in float64,
so that neither the order of sums, nor blocks, threads or ranks change anything. The nearest centroid is searched in float32,
whose error has a bound; where several centroids lie within it, float64 decides.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

from .distributed import all_max, all_sum
from .errors import ClusteringError
from .products import products

GRID = 2.0**24
BLOCK_ROWS = 2**14
KEPT = 2**28  # numbers of all rows of this rank up to which their directions are kept, and not made in every iteration
# similarities that are searched at a time: on a CPU what stays in the cache
SEARCHED = {"cpu": 2**20, "cuda": 2**26}

Blocks = Callable[[], Iterable[torch.Tensor]]


def spherical_kmeans(
    embeddings: torch.Tensor, index: torch.Tensor, clusters: int, iterations: int = 10, seed: int = 0, refill: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """embeddings (m, D), any float dtype, any length; index (m,) int64, their global row numbers → centroids, assignments.

    Global row numbers are 0 … total - 1, dealt over the ranks in any way. centroids (K, D) float32 of unit length, the same on
    every rank; assignments (m,) int64, the centroid with the largest dot product (the first of equals). Collective.
    `refill`: an empty cluster is moved to a row that lies far from its centroid; else it stays where it is, as published.
    Raises ClusteringError when there are fewer rows than clusters.
    """
    total = int(all_sum(torch.tensor(len(index), device=embeddings.device)))
    refuse_more_clusters_than_rows((clusters,), total)
    return kmeans_from(embeddings, index, first_rows(total, clusters, seed), iterations, refill)


def first_rows(total: int, clusters: int, seed: int) -> torch.Tensor:
    """(K,) int64: the distinct global rows that are the first centroids."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:clusters]


def auto_prototypes(rows: int) -> int:
    """K for `--nmb_prototypes auto`: one cluster for eight rows, from 2 up to the 3000 of SwAV and DeepClusterV2.

    Eight is about the least number of rows from which a mean direction is better than one row's own. Never more than rows.
    """
    return min(rows, max(2, min(3000, rows // 8)))


@torch.no_grad()
def kmeans_from(
    embeddings: torch.Tensor, index: torch.Tensor, start: torch.Tensor, iterations: int, refill: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """`spherical_kmeans` whose first centroids are the global rows `start` (K,).

    refill: an empty cluster is moved to where a row lies worst; otherwise it keeps its centroid, as in VISSL.
    """
    blocks = _directions(embeddings)
    centroids = _rows_at(embeddings, index, start.to(index.device))
    for iteration in range(iterations + 1):
        assignments = torch.cat([index.new_zeros(0), *(nearest(rows, centroids) for rows in blocks())])
        if refill:
            _fill_empty(embeddings, blocks, index, centroids, assignments)
        if iteration < iterations:
            sums = _sums(blocks, assignments, centroids)
            # an empty cluster, or one whose rows cancel, keeps its centroid
            centroids = torch.where((sums != 0).any(1, keepdim=True), _on_grid(sums), centroids)
    return F.normalize(centroids.double()).float(), assignments


def nearest(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """rows (n, D), centroids (K, D), float32 on the grid → (n,) int64: the largest exact dot product, the first of equals.

    A float32 dot product of two unit vectors, summed in any order, is off by at most D 2^-24 (1 + tiny), so that the best one
    lies within twice that of the largest.
    """
    if torch.get_float32_matmul_precision() != "highest":  # then products may be of fewer digits, and the bound another
        return _exactly_nearest(rows, centroids)
    margin, count = 2.01 * rows.shape[1] / GRID, len(centroids)
    # summed over the candidates of a row: below 2 K there is a single one, and the sum tells which
    numbers = count + torch.arange(count, device=rows.device, dtype=torch.float32)
    told = [rows.new_zeros(0)]
    for some in rows.split(max(1, SEARCHED[rows.device.type] // count)):
        similarities = products(some, centroids)
        least = similarities.amax(1, keepdim=True) - margin
        told.append(products(numbers[None], torch.ge(similarities, least, out=similarities))[0])
    told = torch.cat(told)
    found, several = told.long() - count, ((told < count) | (told >= 2 * count)).nonzero()[:, 0]
    found[several] = _exactly_nearest(rows[several], centroids)
    return found


def _exactly_nearest(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    exact = centroids.double().T
    found = [(some.double() @ exact).argmax(1) for some in rows.split(1024)]
    return torch.cat(found) if found else rows.new_zeros(0, dtype=torch.int64)


def _directions(embeddings: torch.Tensor) -> Blocks:
    """The directions of all rows, block by block, as often as it is called."""
    parts = embeddings.split(BLOCK_ROWS) if len(embeddings) else ()
    if embeddings.numel() > KEPT:
        return lambda: (_on_grid(part) for part in parts)
    kept = [_on_grid(part) for part in parts]
    return lambda: kept


def _on_grid(rows: torch.Tensor) -> torch.Tensor:
    """(n, D) float32 directions: components are multiples of 2^-24, the length is 1 to rounding; zero rows stay zero."""
    return F.normalize(rows.double()).mul_(GRID).round_().div_(GRID).float()


def _rows_at(embeddings: torch.Tensor, index: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """(len(wanted), D): the directions of global rows, from whichever rank holds them."""
    ordered, order = wanted.sort()
    place = torch.searchsorted(ordered, index).clamp_max(len(ordered) - 1)
    here = ordered[place] == index
    rows = torch.zeros(len(wanted), embeddings.shape[1], device=embeddings.device)
    rows[order[place[here]]] = _on_grid(embeddings[here])
    return all_sum(rows)


def _sums(blocks: Blocks, assignments: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """(K, D) float64: the exact sum of each cluster's directions over all ranks."""
    sums = centroids.new_zeros(centroids.shape, dtype=torch.float64)
    for rows, assigned in _beside(blocks, assignments):
        ordered, order = assigned.sort()
        ends = torch.searchsorted(ordered, torch.arange(len(centroids), device=ordered.device))
        sums += F.embedding_bag(order, rows.double(), ends, mode="sum")
    return all_sum(sums)


def _beside(blocks: Blocks, *values: torch.Tensor) -> Iterable[tuple[torch.Tensor, ...]]:
    """Each block of rows with its part of the values (m, …), which can be written to."""
    first = 0
    for rows in blocks():
        yield rows, *(value[first : first + len(rows)] for value in values)
        first += len(rows)


def _fill_empty(
    embeddings: torch.Tensor, blocks: Blocks, index: torch.Tensor, centroids: torch.Tensor, assignments: torch.Tensor
) -> None:
    """Moves the centroid of each empty cluster onto the row with the largest gap, in place, until no cluster is empty.

    A gap is what a row would gain if it were a centroid itself. Each move raises the sum of similarities, so that it ends; it
    ends early when every row lies on a centroid, that is, when there are fewer directions than clusters.
    """
    gaps = None
    while True:
        counts = all_sum(torch.bincount(assignments, minlength=len(centroids)))
        empty = (counts == 0).nonzero()[:, 0]
        if not len(empty):
            return
        gaps = _gaps(blocks, centroids, assignments) if gaps is None else gaps
        gap, row = _worst(gaps, index)
        if not gap > 0:
            return
        cluster = int(empty[0])
        centroids[cluster] = _rows_at(embeddings, index, row)[0]
        _take_rows(blocks, centroids[cluster].double(), cluster, assignments, gaps)


def _gaps(blocks: Blocks, centroids: torch.Tensor, assignments: torch.Tensor) -> torch.Tensor:
    """(m,) float64, exact."""
    gaps = assignments.new_zeros(len(assignments), dtype=torch.float64)
    for rows, assigned, gap in _beside(blocks, assignments, gaps):
        exact = rows.double()
        gap.copy_((exact * (exact - centroids[assigned].double())).sum(1))
    return gaps


def _worst(gaps: torch.Tensor, index: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The largest gap of all ranks and the lowest global row (1,) that has it."""
    largest = all_max(torch.cat([gaps, gaps.new_tensor([-1.0])]).max())
    rows = torch.cat([index[gaps == largest], index.new_tensor([torch.iinfo(torch.int64).max])])
    return float(largest), -all_max(-rows.min().reshape(1))


def _take_rows(blocks: Blocks, centroid: torch.Tensor, cluster: int, assignments: torch.Tensor, gaps: torch.Tensor) -> None:
    """Gives the moved cluster every row that it is now the nearest to, in place."""
    for rows, assigned, gap in _beside(blocks, assignments, gaps):
        exact = rows.double()
        own = (exact * (exact - centroid)).sum(1)
        nearer = (own < gap) | ((own == gap) & (cluster < assigned))
        assigned[nearer], gap[nearer] = cluster, own[nearer]


def prototype_counts(setting: tuple[int, ...] | str, rows: int, heads: int = 1) -> tuple[int, ...]:
    """The prototypes of each head that `--nmb_prototypes` asks for; "auto" gives `heads` of them, by the number of rows."""
    return (auto_prototypes(rows),) * heads if setting == "auto" else tuple(setting)


def cluster_counts(setting: tuple[int, ...] | str, rows: int, heads: int, flag: str = "--nmb_prototypes") -> tuple[int, ...]:
    """`prototype_counts` for k-means, which raises ClusteringError when a head has more clusters than there are rows."""
    counts = prototype_counts(setting, rows, heads)
    refuse_more_clusters_than_rows(counts, rows, flag)
    return counts


def refuse_more_clusters_than_rows(counts: tuple[int, ...], rows: int, flag: str = "--nmb_prototypes") -> None:
    if max(counts) > rows:
        raise ClusteringError(
            f"{flag} asks for {max(counts)} clusters of {rows} rows; "
            f"use at most {rows}, or auto, which takes {auto_prototypes(rows)}."
        )
