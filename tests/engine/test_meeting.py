import datetime
import multiprocessing
import os
import time

import pytest
import torch
import torch.distributed as dist

from engine.meeting import fresh_store
from engine.processes import gather_objects, join_group, leave_group


def start(rank: int, port: int, late: float, results) -> None:
    """A process of a launcher that keeps its store, as torchrun does."""
    time.sleep(late)
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    join_group(timeout_minutes=0.2)
    results.put(gather_objects(os.getpid()))
    leave_group()


def test_processes_that_are_started_again_meet_each_other_and_not_those_that_were_before():
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    spawn = multiprocessing.get_context("spawn")
    for late in ((0, 0), (1.5, 0), (0, 1.5)):  # who comes when the other has long looked for it
        results = spawn.Queue()
        processes = [spawn.Process(target=start, args=(r, store.port, late[r], results)) for r in (0, 1)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
        assert results.get() == results.get() == [process.pid for process in processes]


def test_a_process_that_never_comes_is_told_by_its_number(monkeypatch):
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    store.set("asks/1", "of an earlier start")
    with pytest.raises(dist.DistStoreError, match=r"timeout: process\(es\) 1 did not come"):
        fresh_store(0, 2, datetime.timedelta(seconds=0.5))
