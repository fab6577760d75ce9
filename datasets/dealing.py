"""Work dealt over processes, any of which may die without ending the rest."""

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait

import torch


def deal(function: Callable, tasks: Sequence[tuple], processes: int) -> Iterator[tuple[int, object, str]]:
    """(number of the task, `function(*task)`, "") as they are done; (number, None, why) where that raised or ended its process.

    A process works at one task at a time, so that it is known which one ended it; another process takes its place.
    """
    context = multiprocessing.get_context("fork")  # the function and its modules are there at once
    waiting, idle, busy = deque(enumerate(tasks)), [], {}
    try:
        while waiting or busy:
            while waiting and len(busy) < max(1, processes):
                process, connection = idle.pop() if idle else _started(context, function, [c for _, c in idle] + list(busy))
                number, task = waiting.popleft()
                with contextlib.suppress(BrokenPipeError):  # it died idle; reading from it says so
                    connection.send(task)
                busy[connection] = (process, number)
            for connection in wait(list(busy)):
                process, number = busy.pop(connection)
                try:
                    result, why = connection.recv()
                    idle.append((process, connection))
                except (EOFError, OSError):
                    process.join()
                    result, why = None, f"the process that read it was ended ({how_it_ended(process.exitcode)})"
                yield number, result, why
    finally:
        for process, connection in [*idle, *((process, connection) for connection, (process, _) in busy.items())]:
            process.terminate()
            process.join()
            connection.close()


def _started(context, function: Callable, open_ends: list[Connection]):
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(function, there, [here, *open_ends]), daemon=True)
    process.start()
    there.close()  # the end of the process is then the end of the pipe
    return process, here


def _work(function: Callable, tasks: Connection, open_ends: list[Connection]) -> None:
    for end in open_ends:  # which a fork has, too; while it does, nobody notices that the one that deals was killed
        end.close()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that deals ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            task = tasks.recv()
        except EOFError:
            return
        try:
            answer = (function(*task), "")
        except Exception as error:
            answer = (None, f"{type(error).__name__}: {error}")
        tasks.send(answer)


def how_it_ended(exit_code: int) -> str:
    """The signal that ended a process, or its exit code, in words."""
    return signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
