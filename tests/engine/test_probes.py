import numpy as np
import pytest

from engine.neighbours import knn_hits
from engine.probes import interval, linear_hits


def clusters(n=60, spread=0.05, seed=0):
    """Two labels in two groups, told apart by the first axis; a file a subject."""
    rng = np.random.default_rng(seed)
    labels, groups = np.arange(n) % 2, np.arange(n) // 2 % 2
    embeddings = np.stack([np.where(labels == groups, 1.0, -1.0), np.ones(n)], 1) + spread * rng.normal(size=(n, 2))
    return embeddings, labels, groups, np.arange(n)


def test_labels_are_told_apart_within_groups_only():
    embeddings, labels, groups, subjects = clusters()
    assert knn_hits(embeddings, labels, groups, subjects, k=5).all()
    assert np.all(linear_hits(embeddings, labels, groups, subjects))
    together = np.zeros_like(groups)  # the same place means opposite labels in the two groups
    assert knn_hits(embeddings, labels, together, subjects, k=5).mean() < 0.8


def test_rows_of_one_subject_are_no_neighbours():
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(30), 2)
    embeddings = np.repeat(rng.normal(size=(30, 8)), 2, 0) + 1e-3 * rng.normal(size=(60, 8))
    labels = np.repeat(rng.integers(0, 2, 30), 2)
    assert knn_hits(embeddings, labels, np.zeros(60), np.arange(60), k=1).all()
    assert knn_hits(embeddings, labels, np.zeros(60), subjects, k=1).mean() < 0.8
    assert linear_hits(embeddings, labels, np.zeros(60), subjects)[0].mean() < 0.8


@pytest.mark.parametrize("share, count, expected", [(0.5, 100, (0.404, 0.596)), (1.0, 10, (0.722, 1.0)), (0.0, 0, (0, 1))])
def test_the_interval_is_wilsons(share, count, expected):
    assert interval(share, count) == pytest.approx(expected, abs=1e-3)


def test_labels_that_cannot_be_learned_from_other_subjects_are_left_out_of_the_linear_probe():
    embeddings, labels, groups, subjects = clusters()
    labels = labels.astype(str)
    labels[0] = "rare"
    hits, scored = linear_hits(embeddings, labels, groups, subjects)
    assert hits[1:].all() and scored.tolist() == [False] + [True] * 59
    one_subject = np.where((groups == 1) & (labels == "1"), 1000, subjects)
    hits, scored = linear_hits(embeddings, labels, groups, one_subject)
    assert not scored[groups == 1].any() and scored[1:][groups[1:] == 0].all()
