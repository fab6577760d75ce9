import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.errors import ClusteringError
from losses.kmeans import (
    GRID,
    SEARCHED,
    _on_grid,
    auto_prototypes,
    first_rows,
    kmeans_from,
    nearest,
    prototype_counts,
    spherical_kmeans,
)


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


def exactly(rows, centroids):
    """The nearest centroid in whole numbers of any length, the first of equals."""
    numbers = [(x.double() * GRID).long().numpy().astype(object) for x in (rows, centroids)]
    return torch.from_numpy((numbers[0] @ numbers[1].T).astype(object).argmax(1).astype(np.int64))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.sampled_from([1, 3, 64, 640]), st.integers(0, 10**6))
def test_the_nearest_centroid_is_the_exact_one_also_where_many_are_nearly_or_just_as_near(rows, clusters, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    middle = unit(1, dim, seed)
    sizes = 10.0 ** torch.randint(-8, 1, (clusters, 1), generator=generator)
    near = middle + torch.randn(clusters, dim, generator=generator) * sizes
    centroids = _on_grid(near[torch.randint(clusters, (clusters,), generator=generator)])  # some of them twice
    data = _on_grid(torch.cat([unit(rows, dim, seed + 1), near, middle, torch.zeros(1, dim)]))
    assert torch.equal(nearest(data, centroids), exactly(data, centroids))


def test_a_lower_precision_of_products_changes_no_assignment():
    data, centroids = _on_grid(unit(500, 32)), _on_grid(unit(40, 32, 1))
    wanted, before = nearest(data, centroids), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(nearest(data, centroids), wanted)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("noise, least", [(0.05, 0.999), (0.3, 0.999)])
def test_a_bank_in_half_precision_is_clustered_as_one_in_single_precision(noise, least):
    """Of 4000 rows around 60 directions. (Of rows without any cluster 93 % agree: there every gap is small.)"""
    rows = F.normalize(unit(60, 64)[torch.arange(4000) % 60] + noise * unit(4000, 64, 1) * 64**0.5 / 8, dim=1)
    start = torch.arange(60) * 7
    single, half = (kmeans_from(x, torch.arange(4000), start, 10)[1] for x in (rows, rows.half()))
    assert (single == half).float().mean() >= least


def test_rows_that_are_not_kept_between_iterations_give_the_same(monkeypatch):
    rows = unit(3000, 16)
    kept = spherical_kmeans(rows, torch.arange(3000), 40)
    monkeypatch.setattr("losses.kmeans.KEPT", 0)
    monkeypatch.setattr("losses.kmeans.BLOCK_ROWS", 700)
    monkeypatch.setitem(SEARCHED, "cpu", 1000)
    again = spherical_kmeans(rows, torch.arange(3000), 40)
    assert torch.equal(kept[0], again[0]) and torch.equal(kept[1], again[1])
