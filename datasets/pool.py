"""Work on files in several processes, of which one may die of its file without harm to the others."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import torch

AHEAD = 4  # items a process that wait for it


class Died:
    """In place of a result: the process that worked on the item ended. A library crashed, or the memory was used up."""


def in_processes(function: Callable, items: list, processes: int) -> Iterator[tuple[int, Any]]:
    """(number of the item, `function(item)` or `Died`), as they get done. What `function` raises is raised."""
    todo = deque(range(len(items)))
    while todo:
        lost = yield from _until_one_dies(function, items, processes, todo)
        for number in sorted(lost):  # one of them was the cause
            yield number, _alone(function, items[number])


def _until_one_dies(function: Callable, items: list, processes: int, todo: deque) -> Iterator[tuple[int, Any]]:
    """Takes numbers from `todo`; returns those that were begun and have no result."""
    lost: list[int] = []
    with _pool(min(processes, len(todo))) as pool:
        running = {}
        while (todo and not lost) or running:
            while todo and not lost and len(running) < AHEAD * processes:
                try:
                    running[pool.submit(function, items[todo[0]])] = todo[0]
                except BrokenProcessPool:
                    break
                todo.popleft()
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                number = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    lost.append(number)
                else:
                    yield number, result
    return lost


def _pool(processes: int) -> ProcessPoolExecutor:
    # forked: nothing is imported again, and no thread of the parent computes anything
    return ProcessPoolExecutor(processes, get_context("fork"), initializer=torch.set_num_threads, initargs=(1,))


def _alone(function: Callable, item) -> Any:
    with _pool(1) as pool:
        try:
            return pool.submit(function, item).result()
        except BrokenProcessPool:
            return Died()
