"""The loaders: batches made by worker processes that have no state and no randomness of their own."""

import multiprocessing
import multiprocessing.util
import os
import signal
from functools import partial
from multiprocessing.connection import wait

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from .dealing import how_it_ended
from .epochs import EndlessBatches, EpochBatches, EveryItemOnce
from .errors import DataError


def epoch_loader(
    dataset: Dataset, collate, batch_size: int, seed: int, workers: int, rank: int = 0, world: int = 1, what: str = "files"
) -> DataLoader:
    """Training batches: every epoch another keyed order of the items (`what`: their name in messages)."""
    return make_loader(dataset, EpochBatches(len(dataset), batch_size, seed, rank, world, what), collate, workers)


def endless_loader(
    dataset: Dataset, collate, batch_size: int, steps: int, seed: int, workers: int, rank: int = 0, world: int = 1
) -> DataLoader:
    """`steps` training batches an epoch of items that have no epochs of their own."""
    return make_loader(dataset, EndlessBatches(len(dataset), batch_size, steps, seed, rank, world), collate, workers)


def once_loader(
    dataset: Dataset, collate, batch_size: int, workers: int, rank: int = 0, world: int = 1, turn: int = -1,
    steps: int | None = None,
) -> DataLoader:  # fmt: skip
    """Every item once, in order, dealt over the ranks (`EveryItemOnce`): for evaluation, and with `steps` for banks."""
    batches = EveryItemOnce(len(dataset), batch_size, rank, world, turn, steps)
    return make_loader(dataset, batches, collate, workers, persistent=False)


def bank_loaders(loaders: list[DataLoader | None], workers: int, rank: int, world: int) -> list[DataLoader | None]:
    """Loaders that show all items of training loaders to memory banks, in equally many steps on every rank."""
    sizes = [loader.batch_sampler.batch_size * world if loader else 1 for loader in loaders]
    steps = max(-(-len(loader.dataset) // size) for loader, size in zip(loaders, sizes) if loader)
    return [
        once_loader(of.dataset, of.collate_fn, of.batch_sampler.batch_size, workers, rank, world, steps=steps) if of else None
        for of in loaders
    ]


def make_loader(dataset: Dataset, batches: Sampler, collate, workers: int = 0, persistent: bool = True) -> DataLoader:
    """Batches of `dataset`, put together by `collate`, in the order of `batches` (lists of (index, turn))."""
    if workers:
        # runs at exit before Python asks its children to end, which ours would not hear
        multiprocessing.util.Finalize(None, _end_workers, exitpriority=100)
    return Loader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
        pin_memory=torch.cuda.is_available(),
        # the loader draws a seed for its workers; nothing uses it, and the global generator is left alone
        generator=torch.Generator(),
    )


class Loader(DataLoader):
    """Each of its processes notes what it reads, so that one that is killed by its file is told with the file's name.

    The data set gives items by (index, turn), and the name of each by `name_of(index)`.
    """

    waited_for: "Loader | None" = None  # the one whose batch is waited for

    def __init__(self, dataset: Dataset, num_workers: int, **how):
        # of each process its id, and the index that it is reading, or -1
        self.reading = multiprocessing.RawArray("q", 2 * max(1, num_workers))
        self.children: list = []
        super().__init__(dataset, num_workers=num_workers, worker_init_fn=partial(_begin_worker, self.reading), **how)

    def __iter__(self):
        """Raises `DataError` when a process is gone."""
        heeded = signal.getsignal(signal.SIGCHLD)
        try:
            batches = super().__iter__()
            if signal.getsignal(signal.SIGCHLD) != heeded:  # torch's own raises wherever the caller is by then
                signal.signal(signal.SIGCHLD, partial(_child_ended, heeded))
            self.children = multiprocessing.active_children() if self.num_workers else []
            while True:
                Loader.waited_for = self
                try:
                    self.refuse_dead()
                    batch = next(batches)
                except StopIteration:
                    return
                finally:
                    Loader.waited_for = None
                yield batch
        except (RuntimeError, OSError, EOFError) as error:
            self._await_ending()
            if not self._dead() and "DataLoader worker (pid" not in str(error):
                raise
            raise DataError(self._what_happened()) from None

    def refuse_dead(self) -> None:
        """Raises `DataError` when a process is gone."""
        if self._dead():
            raise DataError(self._what_happened())

    def _await_ending(self) -> None:
        """Of a batch that was sent the tensors are fetched from its process, which may be about to end just now."""
        own = self._own()
        ended = wait([child.sentinel for child in own], timeout=1) if own else []
        for child in own:
            if child.sentinel in ended:
                child.join()  # its pipe is closed a moment before the system knows how it ended

    def _own(self) -> list:
        return [child for child in self.children if child.pid in self.reading[::2]]

    def _dead(self) -> list:
        return [child for child in self._own() if child.exitcode]

    def _what_happened(self) -> str:
        index_of, dead = dict(zip(self.reading[::2], self.reading[1::2])), self._dead()
        how = ", ".join(sorted({how_it_ended(child.exitcode) for child in dead})) or "unknown how"
        files = [self.dataset.name_of(index_of[child.pid]) for child in dead if index_of[child.pid] >= 0]
        if not files:
            return f"a loader process was ended ({how}), most often because the memory is used up: give fewer --workers."
        return (
            f"a loader process was ended ({how}) while it read {' and '.join(files)}; either the memory is used up (fewer "
            "--workers need less), or the file is damaged or was cut meanwhile: replace or remove it."
        )


def _child_ended(before, number: int, frame) -> None:
    """Ends the wait for a batch, which may have no end: of a batch that its process had begun to send the rest never comes."""
    if callable(before):
        before(number, frame)
    if Loader.waited_for:
        Loader.waited_for.refuse_dead()


def _end_workers() -> None:
    for child in multiprocessing.active_children():
        child.kill()


def _begin_worker(reading, worker: int) -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # who started it decides when it ends
    dataset = get_worker_info().dataset

    def noted(place: tuple[int, int]):
        reading[2 * worker + 1] = place[0]
        item = dataset[place]
        reading[2 * worker + 1] = -1
        return item

    reading[2 * worker : 2 * worker + 2] = os.getpid(), -1
    dataset.__getitems__ = lambda batch: [noted(place) for place in batch]  # what torch takes a batch by, where it is there
