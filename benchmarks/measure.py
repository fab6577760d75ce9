"""Two computations side by side: times in turn, so that a busy machine slows both, and the memory that each takes."""

import contextlib
import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.processes import keep_freed_memory

BRIEF = 0.5  # seconds


@dataclass(frozen=True)
class Case:
    """Ours against a peer. `ours` and `peer` are called without arguments; what they need is made before.

    name, size: what is compared, at which size; promise: the least ratio of times that the project promises (0 = none);
    agree: called once, before the timing, to assert that both compute the same; unit: what a call does `count` of; alike: the
    peer is ours, too, and has our settings of the memory.
    """

    name: str
    size: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    peer_name: str
    promise: float = 0.0
    agree: Callable[[], None] | None = None
    count: int = 1
    unit: str = "call"
    alike: bool = False


@dataclass(frozen=True)
class Result:
    """Medians of seconds a call, and the peak memory of a call in MiB above what was there before it."""

    name: str
    size: str
    peer_name: str
    ours_seconds: float
    peer_seconds: float
    ours_mib: float
    peer_mib: float
    ratio: float
    promise: float
    rate: float
    unit: str


def compare(case: Case, rounds: int = 5) -> Result:
    """Medians of `rounds` rounds; in each round both are called once, one after the other."""
    if case.agree:
        case.agree()
    calls = (case.ours, case.peer if case.alike else as_it_comes(case.peer))
    mib = [peak_mib(call) for call in calls]  # also the warm-up
    times: tuple[list[float], list[float]] = ([], [])
    brief = [seconds(call) < BRIEF for call in calls]
    for _ in range(rounds):
        for call, of, again in zip(calls, times, brief):
            if again:
                call()  # finds caches and memory as its own last call left them, not the other's
            of.append(seconds(call))
    ours, peer = (statistics.median(of) for of in times)
    ratio = statistics.median(b / a for a, b in zip(*times))
    return Result(
        case.name, case.size, case.peer_name, ours, peer, *mib, ratio, case.promise, case.count / ours, case.unit
    )  # fmt: skip


def as_it_comes(peer: Callable[[], object]) -> Callable[[], object]:
    """The peer as in a program of its own, where the C library gives large freed blocks back."""

    def call() -> None:
        keep_freed_memory(False)
        try:
            peer()
        finally:
            keep_freed_memory()

    return call


def seconds(call: Callable[[], object]) -> float:
    _wait()
    began = time.perf_counter()
    call()
    _wait()
    return time.perf_counter() - began


def peak_mib(call: Callable[[], object]) -> float:
    """The peak of one call in MiB above what was there before: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        _wait()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        _wait()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # Linux: the peak starts again from here
    before = _resident("VmRSS")
    call()
    return max(0.0, _resident("VmHWM") - before)


def _resident(name: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
