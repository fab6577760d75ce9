import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from engine.neighbours import (
    held_out_share,
    knn_hits,
    most_frequent_share,
    nearest_strangers,
    same_label_shares,
    similarities,
)  # fmt: skip
from tests.engine.test_probes import clusters


def test_knn_equals_scikit_learns_where_subjects_are_files():
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    embeddings, labels, _, subjects = clusters(spread=1.0)
    told = cross_val_predict(KNeighborsClassifier(7, metric="cosine"), embeddings, labels, cv=LeaveOneOut())
    assert np.array_equal(knn_hits(embeddings, labels, np.zeros(60), subjects, k=7), told == labels)


def test_a_row_without_neighbours_is_a_miss():
    embeddings, labels = np.eye(3), np.array(["a", "a", "b"])
    assert not knn_hits(embeddings, labels, np.arange(3), np.arange(3)).any()


def test_held_out_rows_are_told_by_the_other_rows_alone_as_scikit_learn_tells_them():
    from sklearn.neighbors import KNeighborsClassifier

    embeddings, labels, groups, _ = clusters(spread=1.0, seed=1)
    held_out = np.arange(60) % 3 == 0
    hits = []
    for group in (0, 1):
        asked, answer = (groups == group) & held_out, (groups == group) & ~held_out
        told = KNeighborsClassifier(5, metric="cosine").fit(embeddings[answer], labels[answer]).predict(embeddings[asked])
        hits += list(told == labels[asked])
    assert held_out_share(embeddings, labels, groups, np.arange(60), held_out, k=5) == pytest.approx(np.mean(hits))


def test_a_collection_that_is_held_out_as_a_whole_counts_as_missed():
    embeddings, labels, groups, _ = clusters()
    assert held_out_share(embeddings, labels, groups, np.arange(60), groups == 0) == 0


def test_a_held_out_row_is_not_told_by_its_own_subject():
    rng = np.random.default_rng(0)
    embeddings = np.repeat(rng.normal(size=(200, 8)), 2, 0) + 1e-3 * rng.normal(size=(400, 8))
    labels, subjects = np.repeat(rng.integers(0, 2, 200), 2), np.repeat(np.arange(200), 2)
    share = held_out_share(embeddings, labels, np.zeros(400), subjects, np.arange(400) % 2 == 0, k=1)
    assert share == pytest.approx(0.5, abs=0.12)


def test_rows_are_compared_block_by_block_with_the_same_result(monkeypatch):
    embeddings, labels, groups, subjects = clusters(spread=1.0)
    subjects = subjects // 2
    whole = knn_hits(embeddings, labels, groups, subjects)
    for block in (1, 100, 333):
        monkeypatch.setattr("engine.neighbours.BLOCK", block)
        assert np.array_equal(knn_hits(embeddings, labels, groups, subjects), whole)
        assert sum(len(similar) for _, similar in similarities(embeddings, subjects)) == 60


@given(st.integers(0, 2**31), st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_the_nearest_strangers_are_those_that_scikit_learn_finds_and_never_of_the_same_subject(seed, k):
    rng = np.random.default_rng(seed)
    subjects = rng.integers(0, 12, 40)
    embeddings = rng.normal(size=(12, 6))[subjects] + 1e-3 * rng.normal(size=(40, 6))  # files of a subject are almost equal
    asked = rng.permutation(40)[:5]
    for row, (near, cosines) in zip(asked, nearest_strangers(embeddings, subjects, asked, k)):
        others = np.flatnonzero(subjects != subjects[row])
        search = NearestNeighbors(n_neighbors=k, metric="cosine").fit(embeddings[others])
        distances, found = search.kneighbors(embeddings[[row]])
        assert np.array_equal(near, others[found[0]]) and cosines == pytest.approx(1 - distances[0])


def test_a_row_with_fewer_strangers_than_asked_for_has_those():
    [(near, cosines)] = nearest_strangers(np.eye(3)[[0, 0, 1]], np.array(["s", "s", "t"]), np.array([0]), 5)
    assert near.tolist() == [2] and cosines.tolist() == [0]


def test_chance_is_the_most_frequent_label_of_each_group():
    labels, groups = np.array(["x", "x", "y", "z", "z"]), np.array(["a", "a", "a", "b", "b"])
    assert most_frequent_share(labels, groups) == 4 / 5


def test_the_label_of_the_nearest_stranger_is_held_against_that_of_any():
    embeddings = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0.001]])
    labels, subjects = np.array(["x", "x", "y", "x", "y"]), np.array(["a", "b", "c", "d", "a"])  # the last is a's, too
    nearest, chance = same_label_shares(embeddings, labels, subjects)
    assert nearest == 1 / 5  # of b the last row is nearest, of c and d each other, of a's both b
    assert chance == pytest.approx((2 / 3 + 2 / 4 + 1 / 4 + 2 / 4 + 1 / 3) / 5)
    assert np.isnan(same_label_shares(embeddings, labels, np.zeros(5))).all()
