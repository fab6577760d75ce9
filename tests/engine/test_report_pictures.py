from types import SimpleNamespace

import numpy as np

from engine.report_pictures import cluster_sizes, nearest_in_words, prototype_rows


def item(collection, label, name):
    return SimpleNamespace(collection=collection, label=label, subject=name, name=name, path=SimpleNamespace(name=name))


ITEMS = [item("a", "x", "1"), item("a", "x", "2"), item("a", "y", "3"), item("b", "y", "4"), item("b", "", "5")]


def test_clusters_tell_collections_and_labels_and_what_one_cluster_would():
    scores = np.eye(3)[[0, 0, 0, 2, 2]]
    text = prototype_rows(scores, ITEMS, [None] * 5, lambda row: np.zeros((4, 4), np.uint8), "slice")
    assert cluster_sizes(scores) == [3, 0, 2] and "fall to 2 of 3 clusters" in text
    assert "100 % have the collection of most of their cluster (60 % if all were in one)" in text
    assert "75 % have the label of most of their cluster (50 % if all were in one)" in text  # of the four that have one


def test_neighbours_are_told_in_shares_where_there_is_something_to_tell():
    embeddings, subjects = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1]]), np.arange(5)
    text = nearest_in_words(embeddings, ITEMS, subjects)
    assert "the same collection for 100 % of 5 (any one has it for 40 %) and the same label for 50 % of 4" in text
    assert nearest_in_words(embeddings[:2], ITEMS[:2], subjects[:2]) == ""
