"""Saving while training goes on: the state is copied in memory, and a thread brings the copy to the disk."""

import threading
from pathlib import Path

import torch
from torch.utils._pytree import tree_map_only

from .checkpoint import save_checkpoint


class Saver:
    """Writes checkpoints below `root`, one after the other. `trouble`: why the last one could not be written, once."""

    def __init__(self, root: Path):
        self.root = root
        self.trouble: str | None = None
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
        trouble, self.trouble = self.trouble, None
        return trouble

    def _write(self, step: int, state: dict, keep_copy: bool) -> None:
        try:
            save_checkpoint(self.root, step, state, keep_copy)
        except OSError as error:
            self.trouble = (
                f"warning: the state of step {step} could not be saved in {self.root} ({error.strerror}); training goes on."
            )
        except Exception as error:
            self._bug = error


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone() if tensor.device.type == "cpu" else tensor.detach().cpu()
