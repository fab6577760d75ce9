"""Signals that ask a run to stop: noted at once, agreed on by all processes, obeyed where nothing is lost."""

import os
import signal

import torch
import torch.distributed as dist

from .errors import Preempted

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
GO_ON, SAVE, STOP = 0, 1, 2


class Signals:
    """From now until `release`, signals of a scheduler, or Ctrl-C, leave a note in `seen`; a second Ctrl-C ends all at once.

    at_once: while True, such a signal, also one that came before, raises `Preempted` right away: nothing would be lost.
    leave: called with the sentence where that exception ends up. unsaved: asked in that moment whether something would be lost
    all the same.
    """

    def __init__(self, leave=lambda sentence: None, unsaved=lambda: False):
        self.group: dist.ProcessGroup | None = None
        self.seen: signal.Signals | None = None
        self.where = "before the first step"
        self._leave, self._unsaved = leave, unsaved
        self._at_once, self._process = True, os.getpid()
        self._asked: tuple[dist.Work, torch.Tensor] | None = None
        self._before = {number: _handler_below(number) for number in STOPPING}
        for number in STOPPING:
            signal.signal(number, self._note)

    def join(self, world: int) -> None:
        """Makes the group in which processes agree: one of its own, so that no message waits behind those of a step."""
        self.group = dist.new_group(backend="gloo") if world > 1 else None

    def release(self) -> None:
        """Gives the signals back to whom they belonged to before."""
        for number in STOPPING:
            if signal.getsignal(number) == self._note:
                signal.signal(number, self._before[number])

    @property
    def at_once(self) -> bool:
        return self._at_once

    @at_once.setter
    def at_once(self, now: bool) -> None:
        self._at_once = now
        self._stop_if_asked()

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

    def preempted(self, where: str) -> Preempted:
        """What to raise when the run is to end here."""
        name = self.seen.name if self.seen else "a signal to another process"
        sentence = f"stopped by {name} {where}; the same command goes on."
        return Preempted(sentence, lambda: self._leave(sentence))

    def _answer(self) -> int:
        if self._asked is None:
            return GO_ON
        work, told = self._asked
        self._asked = None
        work.wait()
        return int(told)

    def _note(self, number: int, frame) -> None:
        if os.getpid() != self._process:
            return  # a loader process that has just begun: who started it decides when it ends
        again = self.seen is not None and number == signal.SIGINT
        self.seen = signal.Signals(number)
        if again:
            raise KeyboardInterrupt
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.seen and self._at_once and not self._unsaved():
            self._at_once = False  # another signal must not disturb what is done before the process ends
            raise self.preempted(self.where)


def _handler_below(number: int):
    """Whose the signal is when no run has it; an earlier run that ended in an error may not have given it back."""
    handler = signal.getsignal(number)
    run = getattr(handler, "__self__", None)
    return run._before[number] if isinstance(run, Signals) else handler
