"""The loaders: batches made by worker processes that have no state and no randomness of their own."""

import multiprocessing
import multiprocessing.util
import signal

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from .epochs import EndlessBatches, EpochBatches, EveryItemOnce


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
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
        # the loader draws a seed for its workers; nothing uses it, and the global generator is left alone
        generator=torch.Generator(),
    )


def _end_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's own would say of each that it was killed
    for child in multiprocessing.active_children():
        child.kill()


def _begin_worker(worker: int) -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # who started it decides when it ends
