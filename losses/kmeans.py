"""Spherical k-means over the rows of all ranks, the same to the bit for any number of them.

Directions are rounded to a grid of 2^-24 and kept as whole numbers in float64: every dot product is then a sum of integers
below 2^53, and every centroid one of int64, so that neither the order of sums, nor blocks, threads or ranks change anything.
"""

import torch
import torch.nn.functional as F

from .distributed import all_max, all_sum
from .errors import ClusteringError

GRID = 2**24
BLOCK_ROWS = 2048


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
    centroids = _rows_at(embeddings, index, start.to(index.device))
    for iteration in range(iterations + 1):
        assignments, gaps = _nearest(embeddings, centroids)
        if refill:
            _fill_empty(embeddings, index, centroids, assignments, gaps)
        if iteration < iterations:
            sums = _sums(embeddings, assignments, len(centroids))
            # an empty cluster, or one whose rows cancel, keeps its centroid
            centroids = torch.where((sums != 0).any(1, keepdim=True), _on_grid(sums), centroids)
    return F.normalize(centroids).float(), assignments


def _on_grid(rows: torch.Tensor) -> torch.Tensor:
    """(n, D) directions as whole numbers in float64, of length 2^24 to rounding; zero rows stay zero."""
    return F.normalize(rows.double()).mul_(GRID).round_()


def _rows_at(embeddings: torch.Tensor, index: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """(len(wanted), D): the directions of global rows, from whichever rank holds them."""
    ordered, order = wanted.sort()
    place = torch.searchsorted(ordered, index).clamp_max(len(ordered) - 1)
    here = ordered[place] == index
    rows = torch.zeros(len(wanted), embeddings.shape[1], dtype=torch.float64, device=embeddings.device)
    rows[order[place[here]]] = _on_grid(embeddings[here])
    return all_sum(rows)


def _nearest(embeddings: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(assignments (m,) int64, gaps (m,) float64): a gap is what a row would gain if it were a centroid itself."""
    assignments, gaps = [centroids.new_zeros(0, dtype=torch.int64)], [centroids.new_zeros(0)]
    for block in embeddings.split(BLOCK_ROWS):
        rows = _on_grid(block)
        similarities = rows @ centroids.T
        best = similarities.argmax(1, keepdim=True)
        assignments.append(best[:, 0])
        gaps.append(rows.square().sum(1) - similarities.gather(1, best)[:, 0])
    return torch.cat(assignments), torch.cat(gaps)


def _sums(embeddings: torch.Tensor, assignments: torch.Tensor, clusters: int) -> torch.Tensor:
    """(K, D) int64: the sum of each cluster's directions over all ranks."""
    sums = assignments.new_zeros(clusters, embeddings.shape[1])
    for block, assigned in zip(embeddings.split(BLOCK_ROWS), assignments.split(BLOCK_ROWS)):
        sums.index_add_(0, assigned, _on_grid(block).long())
    return all_sum(sums)


def _fill_empty(
    embeddings: torch.Tensor, index: torch.Tensor, centroids: torch.Tensor, assignments: torch.Tensor, gaps: torch.Tensor
) -> None:
    """Moves the centroid of each empty cluster onto the row with the largest gap, in place, until no cluster is empty.

    Each move raises the sum of similarities, so that it ends; it ends early when every row lies on a centroid, that is, when
    there are fewer directions than clusters.
    """
    while True:
        counts = all_sum(torch.bincount(assignments, minlength=len(centroids)))
        empty = (counts == 0).nonzero()[:, 0]
        if not len(empty):
            return
        gap, row = _worst(gaps, index)
        if not gap > 0:
            return
        cluster = int(empty[0])
        centroids[cluster] = _rows_at(embeddings, index, row)[0]
        _take_rows(embeddings, centroids[cluster], cluster, assignments, gaps)


def _worst(gaps: torch.Tensor, index: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The largest gap of all ranks and the lowest global row (1,) that has it."""
    largest = all_max(torch.cat([gaps, gaps.new_tensor([-1.0])]).max())
    rows = torch.cat([index[gaps == largest], index.new_tensor([torch.iinfo(torch.int64).max])])
    return float(largest), -all_max(-rows.min().reshape(1))


def _take_rows(
    embeddings: torch.Tensor, centroid: torch.Tensor, cluster: int, assignments: torch.Tensor, gaps: torch.Tensor
) -> None:
    """Gives the moved cluster every row that it is now the nearest to, in place."""
    for block, assigned, gap in zip(embeddings.split(BLOCK_ROWS), assignments.split(BLOCK_ROWS), gaps.split(BLOCK_ROWS)):
        rows = _on_grid(block)
        own = rows.square().sum(1) - rows @ centroid
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
