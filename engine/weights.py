"""The weight files that stages write: what they hold, where they come from, and who may replace them.

Stage 1 writes flat torchvision names, so that the file loads into a plain ResNet; what else is known of it travels in the
`_metadata` that every torch state dict has. Stages 2 and 3 write a dictionary with the state dict under `model`.
"""

import os
from collections import OrderedDict
from pathlib import Path

import torch

from .checkpoint import write_atomically
from .errors import UserError

FORMAT_VERSION = 1
_OURS = "joint_ssl"


def write_weights(path: Path, state: dict[str, torch.Tensor], about: dict, flat: bool = False) -> None:
    """Writes tensors and `about` (stage, method, run, config, inputs) to `path`, replacing it in one step.

    Raises `UserError` when it cannot be written; the file that was there stays.
    """
    tensors = OrderedDict((name, tensor.detach().cpu().contiguous()) for name, tensor in state.items())
    about = {"format_version": FORMAT_VERSION, **about}
    if flat:
        tensors._metadata = OrderedDict({_OURS: about})
    content = tensors if flat else {**about, "model": tensors}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: torch.save(content, temporary))
    except (OSError, RuntimeError) as error:  # torch's own word for a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path} could not be written ({reason}); make room for it, and give the same command again.") from None


def refuse_unwritable(path: Path) -> None:
    """Raises `UserError` when a weight file could not be written to `path`: before the training, not after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(path.parent, os.W_OK | os.X_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise UserError(f"{path} cannot be written ({reason}); give a folder for weights with --pretrained_path.")


def about_weights(path: Path) -> dict:
    """What a weight file says of itself; empty for a file that is not ours.

    Raises `UserError` when the file was written by a newer version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # whatever it is, it is not ours: the reader of weights says what is wrong with it
        return {}
    about = content
    if isinstance(content, OrderedDict):
        metadata = getattr(content, "_metadata", None)
        about = metadata.get(_OURS) if isinstance(metadata, dict) else None
    version = about.get("format_version") if isinstance(about, dict) else None
    if not isinstance(version, int):  # ours have a whole number there
        return {}
    if version > FORMAT_VERSION:
        raise UserError(f"{path} was written by a newer version (format {version}); update this one.")
    return {key: value for key, value in about.items() if key != "model"}


def refuse_foreign(path: Path, run_id: str | None, overwrite: bool) -> None:
    """Raises `UserError` when writing `path` would destroy weights that this run did not write."""
    if path.exists() and not overwrite and (run_id is None or about_weights(path).get("run") != run_id):
        raise UserError(f"{path} was written by another run; choose another --checkpoint_name, or replace it with --overwrite.")
