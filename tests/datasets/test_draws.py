import numpy as np
from scipy.stats import kstest

from datasets.draws import generator, keys, permutation, uniform


def test_same_key_same_numbers_and_any_other_part_other_numbers():
    base = uniform(keys(31, "view", 3, 5, 0), 8)
    assert np.array_equal(base, uniform(keys(31, "view", 3, 5, 0), 8))
    for other in [
        (30, "view", 3, 5, 0),
        (31, "crop", 3, 5, 0),
        (31, "view", 4, 5, 0),
        (31, "view", 5, 3, 0),
        (31, "view", 3, 5, 1),
    ]:
        assert not np.intersect1d(base, uniform(keys(*other), 8)).size


def test_an_array_of_indices_gives_the_numbers_of_each_index():
    together = uniform(keys(1, "place", 2, np.arange(10)), 4)
    alone = np.stack([uniform(keys(1, "place", 2, index), 4) for index in range(10)])
    assert np.array_equal(together, alone)


def test_numbers_are_uniform_over_counters_and_over_keys():
    assert kstest(uniform(keys(0, "x"), 20_000), "uniform").pvalue > 0.001
    assert kstest(uniform(keys(0, "x", np.arange(20_000)), 1)[:, 0], "uniform").pvalue > 0.001


def test_neighbouring_keys_are_not_correlated():
    draws = uniform(keys(0, "x", np.arange(5000)), 2)
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.05
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.05


def test_permutation_holds_every_number_once_and_changes_with_the_key():
    first, second = (permutation(keys(0, "order", epoch), 100) for epoch in range(2))
    assert sorted(first) == list(range(100))
    assert not np.array_equal(first, second)


def test_generators_of_different_keys_give_different_noise():
    import torch

    noise = [torch.randn(4, generator=generator(keys(0, "noise", i))) for i in (1, 1, 2)]
    assert torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[2])
