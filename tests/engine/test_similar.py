import numpy as np
import pytest

from engine.similar import most_similar


def pieces(embeddings: np.ndarray, step: int):
    for first in range(0, len(embeddings), step):
        block = embeddings[first : first + step]
        yield [{"number": first + place} for place in range(len(block))], block


@pytest.mark.parametrize("step", [1, 7, 100])
def test_the_nearest_of_all_pieces_are_those_of_the_whole(step):
    rng = np.random.default_rng(0)
    embeddings, query = rng.normal(size=(60, 5)), rng.normal(size=5)
    embeddings[40] = 3 * embeddings[10]  # as near, and later
    cosines = (embeddings @ query) / np.linalg.norm(embeddings, axis=1) / np.linalg.norm(query)
    order = [number for number in np.argsort(-cosines.round(9), kind="stable") if number % 3]
    found = most_similar(pieces(embeddings, step), query, 8, lambda row: row["number"] % 3)
    assert [row["number"] for _, row in found] == order[:8]
    np.testing.assert_allclose([cosine for cosine, _ in found], cosines[order[:8]], atol=1e-8)


def test_there_may_be_fewer_than_asked_for():
    found = most_similar(pieces(np.eye(3), 2), np.array([1.0, 0.5, 0]), 9, lambda row: row["number"] != 1)
    assert [row["number"] for _, row in found] == [0, 2]


def test_of_equally_near_ones_the_first_are_told():
    found = most_similar(pieces(np.ones((9, 2)), 4), np.ones(2), 3, lambda row: True)
    assert [row["number"] for _, row in found] == [0, 1, 2]
