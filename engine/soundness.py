"""Whether figures and weights are still numbers; and if not, since which step, and which files were in that step's batch."""

from pathlib import Path

import torch
from torch import nn

from .errors import UserError
from .processes import gather_objects

MOST_NAMED = 6


class Soundness:
    """Remembers the steps since the last look, so that the first one gone wrong can be named. Methods but `add` are collective.

    loaders: of the run, whose data sets know the names of what they give. folder: where the states are kept.
    """

    def __init__(self, folder: Path, loaders: list):
        self.folder, self.loaders = folder, loaders
        self.recent: list[tuple[int, torch.Tensor, list]] = []

    def add(self, step: int, figures: torch.Tensor, shown: list[torch.Tensor]) -> None:
        """figures: those of this process and step, on the device; shown: the indices of its batch, of each loader."""
        self.recent.append((step, figures, shown))

    def refuse_nonfinite(self, values: dict[str, float]) -> None:
        """Raises `UserError` when one of the means over all processes is no number."""
        bad = [name for name, value in values.items() if not abs(value) < float("inf")]
        if bad:
            raise UserError(
                f"{', '.join(bad)} is not a number{self._first_bad_step()}; look at these files, lower --base_lr or use "
                f"--precision fp32. The state before is kept in {self.folder}/checkpoints."
            )
        self.recent.clear()

    def refuse_broken(self, model: nn.Module, sums: torch.Tensor) -> None:
        """Keeps a state that holds NaN from taking the place of a good one. sums: (R, figures) of the epoch so far."""
        numbers = [value for value in model.state_dict().values() if value.is_floating_point()]
        sizes = torch.stack(torch._foreach_norm(numbers, float("inf")))
        if not sums.isfinite().all():
            self.refuse_nonfinite({"loss": float("nan")})
        if not sizes.isfinite().all():
            self.refuse_nonfinite({"a weight": float("nan")})

    def _first_bad_step(self) -> str:
        """Since when, and which files were in that batch; of the process that met it first."""
        bad = ((step, shown) for step, figures, shown in self.recent if not figures.isfinite().all())
        step, shown = next(bad, (float("inf"), []))
        names = [of.dataset.name_of(int(index)) for of, indices in zip(self.loaders, shown) for index in indices]
        step, names = min(gather_objects((step, names)))
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return f" since step {step}, in the batch of {', '.join(names[:MOST_NAMED])}{more}" if names else ""
