"""What the downstream scripts share: runs of several seeds, and the weights that scored best on the validation split."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .config import FinetuneConfig
from .errors import UserError
from .folder import clear_seeds
from .processes import of_first
from .values import STRIDE


def runs_of(config: FinetuneConfig, name: str) -> Iterator[FinetuneConfig]:
    """The configuration of each seed's run: its own folder and weight file; the configuration itself where no seeds are named.

    name: of the script.
    """
    folder, weights = Path(config.dump_path or f"runs/{name}"), Path(config.checkpoint_name)
    for seed in config.seeds:
        own = {
            "dump_path": str(folder / f"seed-{seed}"),
            "checkpoint_name": str(weights.with_name(f"{weights.stem}-{seed}{weights.suffix}")),
        }
        yield replace(config, seed=seed, seeds=(), **own)
        if config.overwrite:  # now that nothing speaks against the new runs
            of_first(lambda: clear_seeds(folder, keep=config.seeds))
    if not config.seeds:
        yield replace(config, dump_path=str(folder))


class Best:
    """The weights of the epoch that scored best, the later of equals; a part of the run's state.

    The model itself is what training goes on with; `restore` puts the best weights into it.
    """

    def __init__(self, model: nn.Module):
        self.model, self.score, self.epoch = model, float("-inf"), -1
        self.kept: dict[str, torch.Tensor] = {}

    def offer(self, score: float, epoch: int) -> None:
        """Keeps the present weights if none scored better; a score that is no number is none."""
        if score >= self.score:
            self.score, self.epoch = score, epoch
            self.kept = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def restore(self) -> None:
        if self.kept:
            self.model.load_state_dict(self.kept)

    def kept_epoch(self, keep: str, epochs: int) -> int:
        """The epoch, from 0, whose weights `--keep` leaves: the last one of `epochs`, too, where none has scored."""
        return self.epoch if keep == "best" and self.kept else epochs - 1

    def state_dict(self) -> dict:
        return {"score": self.score, "epoch": self.epoch, "kept": self.kept}

    def load_state_dict(self, state: dict) -> None:
        self.score, self.epoch, self.kept = state["score"], state["epoch"], state["kept"]


def judged_splits(evaluate: str) -> tuple[str, ...]:
    """The splits that `--evaluate` names."""
    return {"both": ("valid", "test"), "none": ()}.get(evaluate, (evaluate,))


def refuse_one_value(count: int, size: tuple[int, int], what: str, flag: str = "--image_size") -> None:
    """Raises `UserError` where a ResNet's deepest maps have one value a channel in a batch: then there are no batch statistics.

    count: of slices or pictures (`what`) in a batch; size: their height and width; flag: which sets it.
    """
    height, width = size
    if count * -(-height // STRIDE) * -(-width // STRIDE) < 2:
        raise UserError(f"One {what} of {height} x {width} is too little for batch norm; raise --batch_size or {flag}.")


def refuse_larger(crop: tuple[int, int], plane: tuple[int, int]) -> None:
    """Raises `UserError` where a crop (height, width) is larger than the plane that it is a part of."""
    if any(of > whole for of, whole in zip(crop, plane)):
        (rows, columns), (height, width) = crop, plane
        raise UserError(f"--crop_size {rows} {columns} is more than the plane of {height} x {width}; give less, or all.")


def refuse_empty(files_of: dict[str, list], evaluate: str) -> None:
    """Raises `UserError` when there is nothing to train on, or in a split that the result is to be judged on."""
    for split in ("train", *judged_splits(evaluate)):
        if not files_of[split]:
            raise UserError(
                f"No file is in the split {split}; deal the data into splits otherwise, or choose another --evaluate."
            )
