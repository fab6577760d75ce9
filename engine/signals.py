"""Signals that ask a run to stop: noted at once, agreed on by all processes, obeyed where nothing is lost."""

import signal

import torch
import torch.distributed as dist

from .errors import PREEMPTED

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
GO_ON, SAVE, STOP = 0, 1, 2


class Preempted(Exception):
    """A run was asked to stop and has saved its state; the same command goes on. Ends a script with code 75 (EX_TEMPFAIL)."""

    exit_code = PREEMPTED


class Signals:
    """A context in which the signals of a scheduler, or Ctrl-C, only leave a note in `seen`; a second Ctrl-C ends all at once.

    at_once: while True, such a signal raises `Preempted` right away: there is nothing that is not on the disk.
    """

    def __init__(self, world: int = 1):
        # a group of its own, so that no message waits behind those of a step
        self.group = dist.new_group(backend="gloo") if world > 1 else None
        self.seen: signal.Signals | None = None
        self.at_once = True
        self._asked: tuple[dist.Work, torch.Tensor] | None = None

    def __enter__(self) -> "Signals":
        self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(self, *raised) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wish(self) -> int:
        return STOP if self.seen else GO_ON

    def agreed(self, wish: int) -> int:
        """The largest wish that any process had when it called this the last time; alone, the wish itself. Collective.

        So no process waits for the others in the middle of their step.
        """
        if self.group is None:
            return wish
        agreed = self._answer()
        told = torch.tensor([wish])
        self._asked = dist.all_reduce(told, dist.ReduceOp.MAX, self.group, async_op=True), told
        return agreed

    def agreed_now(self, wish: int) -> int:
        """The largest wish of all processes, also of those told before. Collective; waits for all."""
        return max(self.agreed(wish), self._answer())

    def _answer(self) -> int:
        if self._asked is None:
            return GO_ON
        work, told = self._asked
        self._asked = None
        work.wait()
        return int(told)

    def _note(self, number: int, frame) -> None:
        again = self.seen is not None and number == signal.SIGINT
        self.seen = signal.Signals(number)
        if again:
            raise KeyboardInterrupt
        if self.at_once:
            raise Preempted(f"stopped by {self.seen.name} between two epochs; the same command goes on.")
