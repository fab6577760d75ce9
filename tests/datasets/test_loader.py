"""What becomes of loader processes that end before their time."""

import multiprocessing
import os
import signal
import threading
import time

import pytest
from torch.utils.data import Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

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


class Large(Files):
    """Each fills the pipe to the process that waits for it."""

    def __getitem__(self, place: tuple[int, int]) -> bytes:
        return bytes(2**20)


@pytest.fixture
def at_most_a_minute():
    before = signal.signal(signal.SIGALRM, lambda *about: pytest.fail("it waits for ever"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_a_process_that_is_killed_while_it_sends_a_batch_is_not_waited_for(at_most_a_minute):
    batches = iter(once_loader(Large({}), list, batch_size=1, workers=1))
    next(batches)
    time.sleep(1)  # the next batch is on its way, as far as the pipe holds it
    for child in multiprocessing.active_children():
        child.kill()
    with pytest.raises(DataError, match=r"was ended \(SIGKILL\)"):
        list(batches)


def test_of_two_loaders_that_one_is_told_whose_process_has_ended():
    sound, other = (once_loader(Files({}), list, batch_size=1, workers=1) for _ in range(2))
    of_sound, of_other = iter(sound), iter(other)
    assert next(of_sound) == next(of_other) == [0]
    os.kill(other.reading[0], signal.SIGKILL)
    assert list(of_sound) == [[number] for number in range(1, 12)]
    with pytest.raises(DataError, match=r"was ended \(SIGKILL\)"):
        list(of_other)


def test_children_that_end_while_no_batch_is_waited_for_are_told_to_who_asked_before(monkeypatch):
    told = []
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._SIGCHLD_handler_set", False)
    before = signal.signal(signal.SIGCHLD, lambda *about: told.append(1))
    try:
        batches = iter(once_loader(Files({}), list, batch_size=1, workers=1))
        next(batches)
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        assert told
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_batch_whose_process_ends_before_its_tensors_are_fetched_is_told_as_such(monkeypatch):
    def ended_meanwhile(batches, *about, **how):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # the word of it comes later than the broken connection
        os.kill(batches._workers[0].pid, signal.SIGKILL)
        raise ConnectionResetError("Connection reset by peer")

    batches = iter(once_loader(Files({}), list, batch_size=1, workers=1))
    next(batches)
    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_try_get_data", ended_meanwhile)
    try:
        with pytest.raises(DataError, match=r"was ended \(SIGKILL\)"):
            next(batches)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def test_a_process_whose_pipe_is_closed_before_the_system_knows_its_end_is_told_as_such(monkeypatch):
    batches = iter(once_loader(Files({}), list, batch_size=1, workers=1))
    next(batches)

    def ending(of_iterator, *about, **how):
        threading.Timer(0.3, os.kill, (of_iterator._workers[0].pid, signal.SIGKILL)).start()
        raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_try_get_data", ending)
    monkeypatch.setattr("datasets.loader.wait", lambda sentinels, timeout: sentinels)
    with pytest.raises(DataError, match=r"was ended \(SIGKILL\)"):
        next(batches)


def test_an_error_of_reading_that_no_process_died_of_stays_what_it_is(monkeypatch):
    def broken(files, place):
        raise OSError("the disk is gone")

    monkeypatch.setattr(Files, "__getitem__", broken)
    for workers in (0, 1):
        with pytest.raises(OSError, match="the disk is gone"):
            list(once_loader(Files({}), list, batch_size=1, workers=workers))
