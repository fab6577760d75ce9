"""Saving while training goes on: the state is copied in memory, and a thread brings the copy to the disk."""

import threading
from pathlib import Path

import torch
from torch.utils._pytree import tree_map_only

from .checkpoint import save_checkpoint


class Saver:
    """Writes checkpoints below `root`, one after the other. `failed`: why the last one that was tried is not there."""

    def __init__(self, root: Path):
        self.root = root
        self.failed: str | None = None
        self._told = True
        self._bug: Exception | None = None
        self._writing: threading.Thread | None = None

    def save(self, step: int, state: dict, keep_copy: bool = False) -> None:
        """Copies `state` and begins to write it, when the one before is written."""
        self.wait()
        copied = tree_map_only(torch.Tensor, _copy, state)
        self._writing = threading.Thread(target=self._write, args=(step, copied, keep_copy), name="saving")
        self._writing.start()

    def wait(self) -> None:
        """Goes on when nothing is left to write; raises what is no trouble of the disk."""
        if self._writing:
            self._writing.join()
            self._writing = None
        if self._bug:
            raise self._bug

    def said(self) -> str | None:
        """A sentence about a checkpoint that could not be written, once."""
        told, self._told = self._told, True
        return None if told else f"warning: {self.failed}; training goes on."

    def _write(self, step: int, state: dict, keep_copy: bool) -> None:
        try:
            save_checkpoint(self.root, step, state, keep_copy)
            self.failed = None
        except OSError as error:
            self.failed = f"the state of step {step} could not be saved in {self.root} ({error.strerror})"
            self._told = False
        except Exception as error:
            self._bug = error


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone() if tensor.device.type == "cpu" else tensor.detach().cpu()
