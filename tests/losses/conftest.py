"""Starts two gloo processes once for all tests of this folder; each test asserts on its part of what they computed."""

import pytest
import torch
import torch.multiprocessing as mp

from tests.losses import loss_processes


@pytest.fixture(scope="session")
def two(tmp_path_factory) -> list[dict]:
    """What each of the two ranks computed: {part: result}."""
    folder = tmp_path_factory.mktemp("two_processes")
    mp.spawn(loss_processes.run, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="session")
def one() -> dict:
    """The same parts on one process, which has all the rows."""
    return loss_processes.compute(0, 1)
