"""Where the processes of a run meet: a store without what an earlier start under the same launcher left there.

`torchrun --max-restarts` keeps its store for the next start, and gloo and NCCL leave their addresses in it: a process that is
quicker than another one reads where that one was before, and both wait for ever.
"""

import datetime
import time
import uuid

import torch.distributed as dist

POLL_SECONDS = 0.02


def fresh_store(rank: int, world: int, timeout: datetime.timedelta) -> dist.Store:
    """The store that the environment names, under a name that the first process of this start has made up. Collective.

    Every other process leaves a word that nobody used before; only a first process that lives answers it, with the name.
    Raises `dist.DistStoreError` when not all have come within `timeout`.
    """
    store = next(dist.rendezvous("env://", rank, world, timeout=timeout))[0]
    store.set_timeout(timeout)
    word = uuid.uuid4().hex
    if rank == 0:
        _answer_all(store, word, world, time.monotonic() + timeout.total_seconds())
        return dist.PrefixStore(word, store)
    store.set(f"asks/{rank}", word)
    name = store.get(f"answer/{word}").decode()
    store.set(f"came/{name}/{rank}", "")
    return dist.PrefixStore(name, store)


def _answer_all(store: dist.Store, name: str, world: int, until: float) -> None:
    missing, answered = set(range(1, world)), {}
    while missing:
        for rank in sorted(missing):
            if store.check([f"asks/{rank}"]):
                word = store.get(f"asks/{rank}").decode()  # or what an earlier start left, until the process has come
                if answered.get(rank) != word:
                    store.set(f"answer/{word}", name)
                    answered[rank] = word
        missing = {rank for rank in missing if not store.check([f"came/{name}/{rank}"])}
        if missing and time.monotonic() > until:
            raise dist.DistStoreError(f"timeout: process(es) {', '.join(map(str, sorted(missing)))} did not come")
        time.sleep(POLL_SECONDS if missing else 0)
