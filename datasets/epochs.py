"""Who sees what, when: keyed orders of the items, cut into global batches, dealt evenly over the ranks.

Nothing here has a state but a position, so that a run goes on exactly where it stopped, with any number of processes.
Every item comes with the number of its pass over the data, which keys its random draws.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from .draws import keys, permutation
from .errors import DataError


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """This rank's batches of one epoch, as lists of (index, epoch); the incomplete last global batch is left out.

    `set_epoch` chooses the epoch and how many of its steps are done; `len` is the number of steps of a whole one. Raises
    `DataError` when the items make no global batch.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, what: str = "files"):
        self.count, self.batch_size, self.seed, self.rank, self.world = count, batch_size, seed, rank, world
        self.epoch = self.done = 0
        if count < batch_size * world:
            raise DataError(
                f"{count} {what} make no batch of {batch_size} on {world} process(es); lower --batch_size or the processes "
                f"to at most {count} together."
            )

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        self.epoch, self.done = epoch, done

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.world)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = permutation(keys(self.seed, "order", self.epoch), self.count)
        for step in range(self.done, len(self)):
            first = (step * self.world + self.rank) * self.batch_size
            yield [(int(index), self.epoch) for index in order[first : first + self.batch_size]]


class EndlessBatches(Sampler[list[tuple[int, int]]]):
    """`steps` batches from step `first_step` on of an endless row of permutations: images beside the volumes' epochs."""

    def __init__(self, count: int, batch_size: int, steps: int, seed: int, rank: int = 0, world: int = 1):
        self.count, self.batch_size, self.steps, self.seed, self.rank, self.world = count, batch_size, steps, seed, rank, world
        self.first_step, self.end = 0, steps

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        self.first_step, self.end = epoch * self.steps + done, (epoch + 1) * self.steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        orders: dict[int, np.ndarray] = {}
        for step in range(self.first_step, self.end):
            first = (step * self.world + self.rank) * self.batch_size
            batch = []
            for place in range(first, first + self.batch_size):
                turn, within = divmod(place, self.count)
                if turn not in orders:
                    orders = {t: o for t, o in orders.items() if t >= turn - 1}
                    orders[turn] = permutation(keys(self.seed, "endless order", turn), self.count)
                batch.append((int(orders[turn][within]), turn))
            yield batch


class EveryItemOnce(Sampler[list[tuple[int, int]]]):
    """Every index once, in order, batches dealt over the ranks; for evaluation. Keyed as pass `turn`.

    With `steps`, that many batches on every rank, from the start again when they run out: for filling banks, where the ranks
    must take equally many steps, and seeing an item twice does no harm.
    """

    def __init__(self, count: int, batch_size: int, rank: int = 0, world: int = 1, turn: int = -1, steps: int | None = None):
        batches = [range(i, min(i + batch_size, count)) for i in range(0, count, batch_size)]
        mine = range(rank, len(batches) if steps is None else steps * world, world)
        self.batches, self.turn = [batches[i % len(batches)] for i in mine], turn

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return ([(index, self.turn) for index in batch] for batch in self.batches)
