"""What a run says while it goes: a progress bar with the time left, `metrics.jsonl`, TensorBoard. Rank 0 only."""

import contextlib
import errno
import json
import math
import os
import sys
import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .errors import UserError


class Logbook:
    """Writes one line a logging step and one an epoch to `metrics`, the same figures to TensorBoard, and shows them.

    A line that cannot be written (a full disk) is left out whole, which is said once.
    """

    def __init__(self, metrics: Path, events: Path, title: str, first_step: int, total_steps: int):
        self.metrics = metrics
        self.file = open(metrics, "ab", buffering=0)
        self._length = os.fstat(self.file.fileno()).st_size
        self.events_folder = events
        try:
            self.events = SummaryWriter(str(events), purge_step=first_step + 1)
        except OSError as error:
            raise UserError(f"{events} cannot be written ({error.strerror}); choose another --log_dir.") from None
        self.warned: set[Path] = set()
        quiet = not sys.stderr.isatty()
        self.bar = tqdm(
            total=total_steps,
            initial=first_step,
            desc=title,
            mininterval=30 if quiet else 0.2,
            dynamic_ncols=not quiet,
            unit="step",
        )
        self.began = time.monotonic()

    def step(self, step: int, figures: dict[str, float]) -> None:
        self._write("step", step, figures)
        self.bar.set_postfix({"loss": f"{figures['loss']:.3f}", "wait": f"{figures['data_wait']:.0%}"}, refresh=False)

    def epoch(self, step: int, epoch: int, epochs: int, figures: dict[str, float]) -> None:
        self._write("epoch", step, {"epoch": epoch, **figures})
        parts = [f"{name} {_short(value)}" for name, value in figures.items() if not name.endswith("seconds")]
        self.bar.write(f"epoch {epoch + 1}/{epochs}  {figures['seconds']:.1f} s  " + "  ".join(parts), file=sys.stdout)
        sys.stdout.flush()

    def note(self, kind: str, content: dict) -> None:
        """A line of `metrics.jsonl` that holds no figures."""
        self._append((json.dumps({"kind": kind, "step": 0, **content}) + "\n").encode())

    def say(self, sentence: str) -> None:
        self.bar.write(sentence, file=sys.stdout)
        sys.stdout.flush()

    def length(self) -> int:
        """The bytes of `metrics.jsonl`, all of which are on the disk; those of before where that fails, which is said."""
        try:
            if not self.metrics.exists():  # somebody has removed the folder
                anew = open(self.metrics, "ab", buffering=0)
                self.file.close()
                self.file = anew
            os.fsync(self.file.fileno())
            self._length = os.fstat(self.file.fileno()).st_size
        except OSError as error:
            self._warn(self.metrics, error)
        return self._length

    def close(self) -> None:
        self.bar.close()
        self.file.close()
        with contextlib.suppress(OSError):
            self.events.close()

    def _write(self, kind: str, step: int, figures: dict[str, float]) -> None:
        line = json.dumps({"kind": kind, "step": step, **{k: _plain(v) for k, v in figures.items()}}) + "\n"
        try:
            self._append(line.encode())
        except OSError as error:
            self._warn(self.metrics, error)
        try:
            for name, value in figures.items():
                if name != "epoch" and isinstance(value, (int, float)):
                    self.events.add_scalar(f"{kind}/{name}", value, step)
        except OSError as error:
            self._warn(self.events_folder, error)
            self._begin_events_anew(step)

    def _warn(self, path: Path, error: OSError) -> None:
        if path not in self.warned:
            self.say(f"warning: {path} could not be written ({error.strerror}); training goes on.")
        self.warned.add(path)

    def _begin_events_anew(self, step: int) -> None:
        """Its thread ends with the first error, and would raise that for ever."""
        with contextlib.suppress(OSError):
            self.events.close()
        with contextlib.suppress(OSError):
            self.events = SummaryWriter(str(self.events_folder), purge_step=step)

    def _append(self, line: bytes) -> None:
        before = os.fstat(self.file.fileno()).st_size
        try:
            written = self.file.write(line)
        except OSError:
            written = 0
        if written < len(line):
            os.ftruncate(self.file.fileno(), before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _plain(value: float):
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _short(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
