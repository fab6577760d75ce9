"""How fast a run goes, how long the rest will take, and how much memory it has."""

import datetime
import resource
import time
from collections.abc import Callable

import torch

from .words import duration

SETTLED = 10  # steps that are timed before anything is expected
CLUSTERS = "_clusters_used"  # how figures of clusters end
SHORT = 60  # seconds: what ends so soon needs no foretelling


class Expectation:
    """Tells once, after the first steps, how long all of them will take. clock: seconds, from any moment on."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic):
        self.total, self.clock = total, clock
        self.first: tuple[int, float] | None = None  # the first step is not timed: it waits for loaders, and fills caches
        self.told = False

    def after(self, step: int) -> str | None:
        """A sentence, when it is time for it. step: how many are done."""
        if self.first is None:
            self.first = step, self.clock()
        if self.told or step < self.first[0] + SETTLED:
            return None
        self.told = True
        of_step = (self.clock() - self.first[1]) / (step - self.first[0])
        left = of_step * (self.total - step)
        if left < SHORT:
            return None
        until = datetime.datetime.now() + datetime.timedelta(seconds=left)
        return (
            f"a step takes {duration(of_step)}: the {self.total - step} that are left take about {duration(left)}, until "
            f"{until:%d %b %H:%M}, and what ends each epoch."
        )


def peak_memory(device: torch.device) -> float:
    """GB that this process has had at most until now: on its GPU; else of the machine, without its loader processes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB


def progress_line(figures: dict[str, float], items: str) -> str:
    """The figures of a step beside the bar. items: what `items_per_second` counts."""
    used = {name.removesuffix(CLUSTERS): value for name, value in figures.items() if name.endswith(CLUSTERS)}
    clusters = [f"{value:.0f} {family}" for family, value in used.items()]
    parts = [f"loss {figures['loss']:.3f}", *([f"clusters {', '.join(clusters)}"] if clusters else [])]
    return ", ".join([*parts, speed_said(figures["items_per_second"], items, figures["data_wait"], figures["memory_gb"])])


def speed_said(items_per_second: float, items: str, data_wait: float, memory_gb: float) -> str:
    return f"{items_per_second:.3g} {items}/s, {data_wait:.0%} waiting for data, {memory_gb:.2g} GB"
