"""What a run says while it goes: a progress bar with the time left, `metrics.jsonl`, TensorBoard. Rank 0 only."""

import json
import math
import sys
import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


class Logbook:
    """Writes one line a logging step and one an epoch to `metrics.jsonl`, the same figures to TensorBoard, and shows them."""

    def __init__(self, folder: Path, events: Path, title: str, first_step: int, total_steps: int):
        self.file = open(folder / "metrics.jsonl", "a", buffering=1)
        self.events = SummaryWriter(str(events))
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

    def say(self, sentence: str) -> None:
        self.bar.write(sentence, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        self.bar.close()
        self.file.close()
        self.events.close()

    def _write(self, kind: str, step: int, figures: dict[str, float]) -> None:
        self.file.write(json.dumps({"kind": kind, "step": step, **{k: _plain(v) for k, v in figures.items()}}) + "\n")
        for name, value in figures.items():
            if name != "epoch" and isinstance(value, (int, float)):
                self.events.add_scalar(f"{kind}/{name}", value, step)


def _plain(value: float):
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _short(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
