import numpy as np

from engine.reconstructions import hits, reconstruct


def test_the_nearest_slice_is_that_of_the_smallest_distance():
    rng = np.random.default_rng(0)
    slices, masked = rng.normal(size=(40, 6)), np.array([3, 17, 30])
    predictions, subjects = rng.normal(size=(3, 6)), np.arange(40) // 10
    found = reconstruct(predictions, slices, masked, subjects)
    distance = np.linalg.norm(predictions[:, None] - slices[None], axis=2)
    assert (found.nearest == distance.argmin(1)).all()
    distance[subjects[masked][:, None] == subjects[None]] = np.inf
    assert (found.nearest_stranger == distance.argmin(1)).all()


def test_perfect_predictions_find_themselves_and_one_subject_has_no_stranger():
    slices = np.eye(5)
    found = reconstruct(slices[[1, 4]], slices, np.array([1, 4]), np.zeros(5))
    assert found.nearest.tolist() == [1, 4] and found.nearest_stranger.tolist() == [-1, -1]


def test_a_slice_beside_the_masked_one_counts_only_in_its_own_volume():
    volumes = np.array([0, 0, 0, 1, 1])
    assert hits(np.array([0, 1, 3]), np.array([0, 2, 2]), volumes) == (1 / 3, 2 / 3)
