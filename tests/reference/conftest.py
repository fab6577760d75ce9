import pytest
import torch
import torch.multiprocessing as mp

from tests import reference_recipe as recipe
from tests.reference import two_ranks


@pytest.fixture(scope="session")
def two(tmp_path_factory) -> list[dict]:
    """What each of two gloo processes computed; they are started once."""
    if not recipe.FOLDER.exists():
        pytest.skip("the stored arrays are not here")
    folder = tmp_path_factory.mktemp("two_ranks")
    mp.spawn(two_ranks.run, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]
