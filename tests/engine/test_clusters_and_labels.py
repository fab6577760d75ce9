import numpy as np
import pytest

from engine.clusters_and_labels import cluster_scores


def separated(n=60, groups=2, seed=0):
    """Three far clusters in each collection, which are the labels; the same direction means another label in the second."""
    rng = np.random.default_rng(seed)
    clusters, group = np.arange(n) % 3, np.arange(n) // 3 % groups
    embeddings = 10 * np.eye(4)[(clusters + group) % 3] + rng.normal(size=(n, 4))
    return embeddings, clusters.astype(str), group


def test_labels_that_are_the_clusters_of_their_collection_score_one():
    assert cluster_scores(*separated()) == {"nmi": pytest.approx(1), "ari": pytest.approx(1)}
    embeddings, labels, groups = separated()
    assert cluster_scores(embeddings, labels, np.zeros_like(groups))["ari"] < 0.5


def test_labels_dealt_anew_score_about_zero():
    embeddings, labels, groups = separated(300)
    scores = cluster_scores(embeddings, np.random.default_rng(1).permutation(labels), groups)
    assert abs(scores["ari"]) < 0.05 and scores["nmi"] < 0.1


def test_collections_count_by_their_files():
    embeddings, labels, groups = separated(120)
    some = (groups == 0) | (np.arange(120) < 42)  # 60 of one, 21 of the other
    labels = np.where(groups == 1, np.random.default_rng(0).permutation(labels), labels)
    of_each = [
        cluster_scores(embeddings[rows], labels[rows], groups[rows])["ari"] for rows in (groups == 0, some & (groups == 1))
    ]
    together = cluster_scores(embeddings[some], labels[some], groups[some])["ari"]
    assert together == pytest.approx((60 * of_each[0] + 21 * of_each[1]) / 81) and of_each[0] == 1 > of_each[1]


def test_neither_the_length_of_embeddings_nor_a_rotation_changes_a_score():
    embeddings, labels, groups = separated()
    embeddings += 4 * np.random.default_rng(0).normal(size=embeddings.shape)  # clusters that are not the labels
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    lengths = np.random.default_rng(2).uniform(0.1, 10, (60, 1))
    before = cluster_scores(embeddings, labels, groups)
    assert 0.05 < before["ari"] < 0.95 and cluster_scores(lengths * embeddings @ turn, labels, groups) == pytest.approx(before)


def test_an_encoder_that_makes_all_files_alike_scores_zero():
    _, labels, groups = separated()
    assert cluster_scores(np.ones((60, 4)), labels, groups) == {"nmi": 0, "ari": 0}
