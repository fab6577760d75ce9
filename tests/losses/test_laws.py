"""Laws of the losses for drawn data: what a permutation of rows does, and that no cluster is left empty."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.deepcluster import deepcluster_loss
from losses.kmeans import kmeans_from, spherical_kmeans
from losses.sinkhorn import sinkhorn
from losses.swav import swav_codes, swav_loss

seeds = st.integers(0, 10_000)


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def an_order(seed, rows):
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.sampled_from([0.3, 3.0, 300.0]), seeds)
def test_permuting_rows_permutes_their_codes(rows, clusters, size, seed):
    scores, order = size * drawn(seed, rows, clusters), an_order(seed + 1, rows)
    torch.testing.assert_close(sinkhorn(scores[order]), sinkhorn(scores)[order], rtol=1e-9, atol=1e-13)
    queue, other = size * drawn(seed + 2, 7, clusters), an_order(seed + 3, 7)
    codes = swav_codes(scores, queue)
    torch.testing.assert_close(swav_codes(scores[order], queue[other]), codes[order], rtol=1e-9, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(2, 4), seeds)
def test_permuting_rows_or_naming_prototypes_anew_changes_no_loss(rows, clusters, crops, seed):
    scores = [drawn(seed + crop, rows, clusters) for crop in range(crops)]
    order, names = an_order(seed, rows), an_order(seed + 1, clusters)

    def swav(scores):
        return swav_loss(scores, [swav_codes(crop, None) for crop in scores[:2]])

    torch.testing.assert_close(swav([crop[order][:, names] for crop in scores]), swav(scores), rtol=1e-9, atol=1e-12)

    targets = [an_order(seed + crop, max(rows, clusters))[:rows] % clusters for crop in range(crops)]
    targets[0][:: 1 + seed % 3] = -100
    new_name = torch.cat([names.argsort(), torch.tensor([-100])])  # -1 … reads the last
    renamed = [new_name[target.clamp(min=-1)][order] for target in targets]
    loss = deepcluster_loss(scores, targets)
    torch.testing.assert_close(
        deepcluster_loss([crop[order][:, names] for crop in scores], renamed), loss, rtol=1e-9, atol=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 20), st.integers(1, 5), st.integers(2, 6), seeds)
def test_kmeans_leaves_no_cluster_empty_whatever_rows_are_duplicates(clusters, more, copies, dim, seed):
    distinct = drawn(seed, clusters + more, dim)
    which = torch.cat([torch.arange(len(distinct)), torch.zeros(copies * 3, dtype=torch.int64)])
    which = which[an_order(seed, len(which))]
    lengths = 0.5 + drawn(seed, len(which), 1).abs()  # the same direction in any length
    rows = distinct[which] * lengths
    for iterations in (0, 1, 8):
        _, assigned = spherical_kmeans(rows, torch.arange(len(rows)), clusters, iterations, seed)
        assert len(assigned.unique()) == clusters


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 10),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from(["any", "twice", "ties"]),
    seeds,
)
def test_permuted_rows_with_their_numbers_give_the_same_bits(rows, clusters, dtype, kind, seed):
    data, order, clusters = drawn(seed, rows, 5).to(dtype), an_order(seed, rows), min(clusters, rows)
    if kind == "twice":
        data = data[torch.arange(rows) % (1 + rows // 2)]
    if kind == "ties":  # few directions, many of them equally far from a centroid
        data = data.sign()
    start = an_order(seed + 1, rows)[:clusters]
    centroids, assigned = kmeans_from(data, torch.arange(rows), start, 6)
    again, permuted = kmeans_from(data[order], order, start, 6)
    assert torch.equal(again, centroids) and torch.equal(permuted, assigned[order])


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(2, 6), seeds)
def test_rotating_all_rows_rotates_the_centroids(rows, dim, seed):
    clusters = max(1, rows // 5)
    data = F.normalize(drawn(seed, rows, dim), dim=1)
    turn = torch.linalg.qr(drawn(seed + 1, dim, dim))[0]
    centroids, assigned = spherical_kmeans(data, torch.arange(rows), clusters, 1, seed)
    turned, same = spherical_kmeans(data @ turn, torch.arange(rows), clusters, 1, seed)
    assert torch.equal(assigned, same)
    shortest = min(data[assigned == cluster].mean(0).norm() for cluster in assigned.unique())
    # rows that all but cancel leave the direction of their mean to rounding
    torch.testing.assert_close(turned.double(), centroids.double() @ turn, rtol=0, atol=1e-6 / float(shortest))
