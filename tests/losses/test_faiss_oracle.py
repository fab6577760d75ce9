"""Spherical k-means beside that of faiss, from the same rows, for as many iterations, on all rows."""

import SimpleITK  # noqa: F401  SWIG binds both: imported after faiss, it breaks the types that faiss looks for

# isort: split
import faiss
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from losses.kmeans import kmeans_from

faiss.omp_set_num_threads(1)


def rows_of(rows, dim, groups, seed):
    """Unit rows around `groups` directions (0 = around none)."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(rows, dim, generator=generator)
    if groups:
        data = data / 3 + torch.randn(groups, dim, generator=generator)[torch.arange(rows) % groups]
    return F.normalize(data, dim=1)


def of_faiss(data, start, iterations):
    data = data.numpy()
    kmeans = faiss.Kmeans(
        data.shape[1], len(start), niter=iterations, spherical=True, max_points_per_centroid=10**9, min_points_per_centroid=1
    )
    kmeans.train(data, init_centroids=data[start])
    return torch.from_numpy(kmeans.centroids), torch.from_numpy(kmeans.assign(data)[1])


@pytest.mark.parametrize("iterations", [1, 2, 10])
@pytest.mark.parametrize(
    "rows, dim, clusters, groups", [(300, 5, 4, 0), (2000, 16, 30, 0), (500, 32, 8, 8), (1500, 128, 60, 20), (4100, 8, 3, 6)]
)
def test_centroids_and_assignments_are_those_of_faiss(rows, dim, clusters, groups, iterations):
    data, start = rows_of(rows, dim, groups, seed=rows), torch.arange(clusters) * 3
    wanted, expected = of_faiss(data, start, iterations)
    similarities = (data.double() @ wanted.double().T).topk(2).values
    assert (similarities[:, 0] - similarities[:, 1]).min() > 1e-6  # no row is a matter of rounding
    centroids, assigned = kmeans_from(data, torch.arange(rows), start, iterations)
    torch.testing.assert_close(centroids, wanted, rtol=0, atol=2e-6)
    assert torch.equal(assigned, expected)


def test_rows_of_any_length_are_clustered_by_direction_as_faiss_does_those_of_unit_length():
    data = rows_of(400, 12, 0, seed=1)
    wanted, expected = of_faiss(data, torch.arange(7), 5)
    lengths = torch.from_numpy(np.random.default_rng(0).uniform(0.1, 50, (400, 1)))
    centroids, assigned = kmeans_from(data * lengths, torch.arange(400), torch.arange(7), 5)
    torch.testing.assert_close(centroids, wanted, rtol=0, atol=2e-6)
    assert torch.equal(assigned, expected)


def test_an_empty_cluster_takes_the_row_worst_served_where_faiss_splits_a_large_cluster():
    """The departure: with one direction twice among the starts, ours ends at least as close to its rows as faiss."""
    data, start = rows_of(600, 6, 12, seed=2), torch.tensor([0, 0, *range(1, 11)])
    results = {"faiss": of_faiss(data, start, 20), "ours": kmeans_from(data, torch.arange(600), start, 20)}
    means = {name: (data * centroids[assigned]).sum(1).mean() for name, (centroids, assigned) in results.items()}
    assert len(results["ours"][1].unique()) == 12
    assert means["ours"] >= means["faiss"]
