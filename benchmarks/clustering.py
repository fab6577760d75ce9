"""Spherical k-means against faiss and against a loop over clusters; Sinkhorn against lightly."""

import faiss
import torch
import torch.nn.functional as F
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
from measure import Case

from losses.kmeans import kmeans_from
from losses.sinkhorn import sinkhorn

ITERATIONS = 10


def cases(quick: bool):
    rows, dim, clusters = (2000, 128, 100) if quick else (20_000, 128, 3000)
    generator = torch.Generator().manual_seed(0)
    data = F.normalize(torch.randn(rows, dim, generator=generator), dim=1)
    start, index = torch.randperm(rows, generator=generator)[:clusters], torch.arange(rows)
    size = f"{rows} × {dim}, K {clusters}, {ITERATIONS} iterations"

    def ours() -> torch.Tensor:
        return kmeans_from(data, index, start, ITERATIONS)[1]

    def of_faiss() -> torch.Tensor:
        faiss.omp_set_num_threads(torch.get_num_threads())
        kmeans = faiss.Kmeans(dim, clusters, niter=ITERATIONS, spherical=True, max_points_per_centroid=10**9)
        kmeans.train(data.numpy(), init_centroids=data[start].numpy())
        return torch.from_numpy(kmeans.assign(data.numpy())[1])

    def agree(other):
        # each moves an empty cluster in its own way, and rounding is a matter of chance in few rows
        assert (ours() == other()).float().mean() > 0.95

    yield Case("k-means", size, ours, of_faiss, "faiss", 0.67 * (not quick), lambda: agree(of_faiss), rows, "row")
    loop = lambda: by_loop(data, start)  # noqa: E731
    yield Case("k-means", size, ours, loop, "loop over clusters", 0.0, lambda: agree(loop), rows, "row")

    rows = 256 if quick else 4096
    scores = F.normalize(torch.randn(rows, dim, generator=generator), dim=1) @ data[:clusters].T
    codes = lambda: sinkhorn(scores, 0.05, 3, largest=1.0)  # noqa: E731
    theirs = lambda: lightly_sinkhorn(scores, 3, 0.05)  # noqa: E731
    same = lambda: torch.testing.assert_close(codes(), theirs(), rtol=1e-3, atol=1e-7)  # noqa: E731
    yield Case(
        "Sinkhorn, 3 iterations", f"{rows} × {clusters}", codes, theirs, "lightly", 3.0 * (not quick), same, rows, "row"
    )  # fmt: skip


def by_loop(data: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """K-means as it is usually written: an argmax over all similarities, then the mean of each cluster's rows."""
    centroids = data[start].clone()
    for iteration in range(ITERATIONS + 1):
        assigned = (data @ centroids.T).argmax(1)
        for cluster in range(len(centroids)) if iteration < ITERATIONS else ():
            members = data[assigned == cluster]
            if len(members):
                centroids[cluster] = F.normalize(members.mean(0), dim=0)
    return assigned
