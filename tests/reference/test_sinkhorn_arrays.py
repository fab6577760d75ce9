"""Our Sinkhorn against the published one, on one process and on two."""

import numpy as np
import torch

from losses.sinkhorn import sinkhorn
from tests import reference_recipe as recipe
from tests.reference.two_ranks import sinkhorn_case

FILE = "sinkhorn.npz"


def names_of(stored, start: str) -> list[str]:
    return [name for name in stored if name.startswith(start)]


def joined(two: list[dict], name: str) -> np.ndarray:
    return torch.cat([results["codes"][name] for results in two]).numpy()


def is_shared_equally(stored, name: str) -> bool:
    first, second = stored[name.replace("q2", "split")]
    return bool(first == second)


def test_one_process():
    stored = recipe.load(FILE)
    names = names_of(stored, "q1_")
    assert len(names) == 16
    for name in names:
        scores, epsilon, iterations = sinkhorn_case(name, int(stored["seed"]))
        recipe.assert_float32(sinkhorn(scores, epsilon, iterations), stored[name], FILE, name)
        exact = sinkhorn(scores.double(), epsilon, iterations).numpy()
        # a probe is drawn by the name without its prefix
        wanted = stored[name.replace("q1", "q1probe")]
        np.testing.assert_allclose(recipe.probe(name[3:], int(stored["seed"]), exact), wanted, rtol=recipe.FLOAT64)


def test_two_processes_with_equal_shares(two):
    stored = recipe.load(FILE)
    names = [name for name in names_of(stored, "q2_") if is_shared_equally(stored, name)]
    assert len(names) == 4
    for name in names:
        recipe.assert_float32(joined(two, name), stored[name], FILE, name)


def test_with_unequal_shares_ours_is_the_answer_of_one_process_and_the_published_one_is_not(two):
    """The published code takes the number of rows for that of its own rank, times the processes."""
    stored = recipe.load(FILE)
    names = [name for name in names_of(stored, "q2_") if not is_shared_equally(stored, name)]
    assert len(names) == 4
    for name in names:
        of_one = stored[name.replace("q2", "q1")]
        recipe.assert_float32(joined(two, name), of_one, FILE, name.replace("q2", "q1"))
        largest, _ = recipe.differences(stored[name], of_one)
        assert 1e-3 < largest < 6e-3
        assert recipe.differences(joined(two, name), stored[name])[0] > 1e-3


def test_two_processes_equal_one_in_float64(two):
    stored = recipe.load(FILE)
    for name in names_of(stored, "q2_"):
        scores, epsilon, iterations = sinkhorn_case(name, int(stored["seed"]))
        recipe.assert_float64(joined(two, f"{name}/double"), sinkhorn(scores.double(), epsilon, iterations).numpy(), name)
