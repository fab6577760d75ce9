import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.errors import ClusteringError
from losses.kmeans import auto_prototypes, first_rows, kmeans_from, prototype_counts, spherical_kmeans


def unit(rows, dim, seed=0):
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def straight(rows, start, iterations):
    """Spherical k-means written out, in float64."""
    rows = rows.numpy().astype(np.float64)
    centroids = rows[start]
    for _ in range(iterations):
        assigned = (rows @ centroids.T).argmax(1)
        for k in range(len(centroids)):
            assert (assigned == k).any()
            total = rows[assigned == k].sum(0)
            centroids[k] = total / np.linalg.norm(total)
    return centroids, (rows @ centroids.T).argmax(1)


def test_equals_the_straight_line_from_the_same_start():
    rows = unit(5000, 12)
    centroids, assigned = spherical_kmeans(rows, torch.arange(5000), 20, iterations=8, seed=3)
    expected, told = straight(rows, first_rows(5000, 20, 3), 8)
    assert np.allclose(centroids, expected, atol=1e-6)
    assert (assigned.numpy() == told).mean() > 0.9995


def test_permuting_the_rows_permutes_the_assignments():
    rows, order = unit(300, 8), torch.randperm(300, generator=torch.Generator().manual_seed(1))
    centroids, assigned = spherical_kmeans(rows, torch.arange(300), 10)
    again, permuted = spherical_kmeans(rows[order], order, 10)
    assert torch.equal(centroids, again) and torch.equal(assigned[order], permuted)


def test_well_separated_clusters_are_found():
    middles = torch.eye(6)
    truth = torch.arange(600) % 6
    rows = F.normalize(middles[truth] + 0.05 * unit(600, 6), dim=1)
    _, assigned = spherical_kmeans(rows, torch.arange(600), 6, iterations=20, seed=1)
    assert len({(int(a), int(b)) for a, b in zip(truth, assigned)}) == 6


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 50))
def test_no_cluster_stays_empty_when_there_are_enough_directions(clusters, copies, seed):
    rows = unit(clusters, 16, seed).repeat(copies, 1)
    _, assigned = spherical_kmeans(rows, torch.arange(len(rows)), clusters, iterations=clusters + 10, seed=seed)
    assert len(assigned.unique()) == clusters


def test_without_refilling_an_empty_cluster_stays_where_it_is():
    # rows 0 and 1 are the same, and both are first centroids: the second of them gets no row
    rows, start = unit(40, 5), torch.tensor([0, 1, 2])
    rows[1] = rows[0]
    kept, _ = kmeans_from(rows, torch.arange(40), start, iterations=1, refill=False)
    assert torch.allclose(kept[1], rows[0], atol=1e-6) and not torch.allclose(kept[0], rows[0], atol=1e-2)
    refilled, _ = kmeans_from(rows, torch.arange(40), start, iterations=1)
    assert not torch.allclose(refilled[1], rows[0], atol=1e-2)


def test_more_clusters_than_rows_is_an_error_that_says_what_would_do():
    with pytest.raises(ClusteringError, match=r"--nmb_prototypes asks for 9 clusters of 8 rows; use at most 8"):
        spherical_kmeans(unit(8, 4), torch.arange(8), 9)


def test_auto_goes_by_the_rows_and_given_counts_are_taken():
    assert [auto_prototypes(n) for n in (1, 5, 134, 4000, 10**6)] == [1, 2, 16, 500, 3000]
    assert prototype_counts("auto", 134, heads=3) == (16, 16, 16)
    assert prototype_counts((4, 5), 134, heads=3) == (4, 5)


def test_half_precision_rows_are_clustered_as_single_precision_ones():
    rows = unit(2000, 32)
    _, exact = spherical_kmeans(rows, torch.arange(2000), 30)
    _, rough = spherical_kmeans(rows.half(), torch.arange(2000), 30)
    assert (exact == rough).float().mean() > 0.98
