"""What becomes of loader processes that end before their time."""

import multiprocessing
import os
import signal

import pytest
from torch.utils.data import Dataset

from datasets.errors import DataError
from datasets.loader import epoch_loader, once_loader


class Files(Dataset):
    """Twelve numbers, some of which end the process that reads them by a signal."""

    def __init__(self, deadly: dict[int, signal.Signals]):
        self.deadly = deadly

    def __len__(self) -> int:
        return 12

    def name_of(self, index: int) -> str:
        return f"folder/{index}.npy"

    def __getitem__(self, place: tuple[int, int]) -> int:
        if place[0] in self.deadly:
            os.kill(os.getpid(), self.deadly[place[0]])
        return place[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTRAP])
def test_a_file_that_ends_the_process_that_reads_it_is_named_and_batches_before_it_are_given(number):
    given = []
    with pytest.raises(DataError, match=rf"was ended \({number.name}\) while it read folder/7\.npy; .*fewer --workers"):
        given += once_loader(Files({7: number}), list, batch_size=2, workers=2)
    assert given == [[0, 1], [2, 3], [4, 5]][: len(given)]


def test_processes_that_are_killed_while_they_wait_are_told_without_a_file():
    loader = epoch_loader(Files({}), list, batch_size=1, seed=0, workers=1)
    batches = iter(loader)
    next(batches)
    with pytest.raises(DataError, match=r"was ended \(SIGKILL\), most often because the memory is used up"):
        for _ in batches:
            for child in multiprocessing.active_children():
                child.kill()
                child.join()


def test_a_loader_leaves_the_signal_of_ended_children_as_it_was():
    before = signal.getsignal(signal.SIGCHLD)
    assert sum(once_loader(Files({}), sum, batch_size=4, workers=2)) == sum(range(12))
    assert signal.getsignal(signal.SIGCHLD) == before
