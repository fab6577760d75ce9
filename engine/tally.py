"""The figures of an epoch: their sums over steps, the time that passed, and what was waited for."""

import time

import torch

from .processes import gather_each, mean_over_ranks, own_share


class Tally:
    """Sums of one process. `add` each step; `means` at the end. Collective: `means`, `state_dict`."""

    def __init__(self, device: torch.device):
        self.device = device
        self.start()

    def start(self) -> None:
        """A new epoch."""
        self.names: list[str] = []
        self.sums, self.steps, self.waited = torch.zeros((), device=self.device), 0, 0.0
        self.began = self._lap_began = time.monotonic()
        self._before_lap = 0, 0.0
        self.report: dict[str, float] = {}

    def add(self, figures: dict[str, torch.Tensor]) -> torch.Tensor:
        """figures: scalars of one step on this process → the same, stacked."""
        stacked = torch.stack([figure.detach() for figure in figures.values()]).float()
        self.names, self.sums, self.steps = list(figures), self.sums + stacked, self.steps + 1
        return stacked

    def means(self) -> dict[str, float]:
        """The means over steps and processes."""
        return dict(zip(self.names, mean_over_ranks(self.sums / self.steps)))

    def lap(self, items: int) -> dict[str, float]:
        """Since the last call, the share of the time in which the step waited for data, and items, `items` a step, a second."""
        now, (steps, waited) = time.monotonic(), self._before_lap
        seconds = max(now - self._lap_began, 1e-9)
        self._lap_began, self._before_lap = now, (self.steps, self.waited)
        return {"data_wait": (self.waited - waited) / seconds, "items_per_second": items * (self.steps - steps) / seconds}

    def seconds(self) -> dict[str, float]:
        return {"seconds": time.monotonic() - self.began, "data_wait_seconds": self.waited}

    def speed(self, items: int) -> dict[str, float]:
        """Of the epoch: its seconds, those of waiting for data, and items, `items` a step, a second."""
        seconds = self.seconds()
        return {**seconds, "items_per_second": items * self.steps / max(seconds["seconds"], 1e-9)}

    def state_dict(self) -> dict:
        """With the sums of every process (R, figures), so that each can go on with its own."""
        told = {"names": self.names, "steps": self.steps, "report": self.report, **self.seconds()}
        return {**told, "sums": gather_each(self.sums)}

    def load_state_dict(self, state: dict) -> None:
        self.start()
        self.names, self.steps, self.report = list(state["names"]), state["steps"], dict(state["report"])
        self.began -= state["seconds"]
        self.waited = state["data_wait_seconds"]
        self._before_lap = self.steps, self.waited
        self.sums = own_share(state["sums"]).to(self.device)
