"""What a run says while it goes: a progress line with the time left, `metrics.jsonl`, TensorBoard. Rank 0 only."""

import contextlib
import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .errors import UserError
from .pace import progress_line, speed_said

# figures that tell of the machine, and are others each time
OF_THE_MACHINE = {"seconds", "data_wait_seconds", "data_wait", "items_per_second", "memory_gb"}


class Logbook:
    """Writes one line a logging step and one an epoch to `metrics`, the same figures to TensorBoard, and shows them.

    A line that cannot be written (a full disk) is left out whole, which is said once.
    """

    def __init__(self, metrics: Path, events: Path, title: str, first_step: int, total_steps: int, items: str = "items"):
        self.metrics, self.items = metrics, items
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
        self.bar.set_postfix_str(progress_line(figures, self.items), refresh=False)

    def epoch(self, step: int, epoch: int, epochs: int, figures: dict[str, float]) -> None:
        self._write("epoch", step, {"epoch": epoch, **figures})
        parts = [f"{name} {_short(value)}" for name, value in figures.items() if name not in OF_THE_MACHINE]
        wait = figures["data_wait_seconds"] / max(figures["seconds"], 1e-9)
        speed = speed_said(figures["items_per_second"], self.items, wait, figures["memory_gb"])
        told = f"epoch {epoch + 1}/{epochs}  {figures['seconds']:.1f} s  {'  '.join(parts)}  ({speed})"
        self.bar.write(told, file=sys.stdout)
        sys.stdout.flush()

    def note(self, kind: str, content: dict) -> None:
        """A line of `metrics.jsonl` that holds no figures."""
        self._append((json.dumps({"kind": kind, "step": 0, **content}) + "\n").encode())

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A picture (h, w) or (h, w, 3) uint8 for TensorBoard."""
        layout = "HW" if pixels.ndim == 2 else "HWC"
        self._show(step, lambda: self.events.add_image(name, pixels, step, dataformats=layout))

    def embeddings(self, rows: np.ndarray, about: list[list[str]], columns: list[str], step: int) -> None:
        """Embeddings (n, D) for TensorBoard's projector, with what is known of each."""
        named = {"metadata": about, "metadata_header": columns, "tag": "embeddings", "global_step": step}
        self._show(step, lambda: self.events.add_embedding(rows, **named))

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
        numbers = {n: value for n, value in figures.items() if n != "epoch" and isinstance(value, (int, float))}
        self._show(step, lambda: [self.events.add_scalar(f"{kind}/{n}", value, step) for n, value in numbers.items()])

    def _show(self, step: int, write: Callable[[], object]) -> None:
        """Writes for TensorBoard; where that fails, it is said."""
        try:
            write()
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
