"""Weight files that the downstream scripts write: read for prediction, told apart from those of pre-training."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from .errors import WeightsError
from .weight_files import DOWNSTREAM, FORMAT_VERSION, STAGES, read_content

NEEDED = {
    "segmentation": ("network", "classes", "class_names", "image_size", "normalise", "tune"),
    "classification": ("network", "classes", "shown", "tune"),
    "detection": ("arch", "channels", "normalise", "side", "least_score", "fixed_norms", "findings"),
}


@dataclass(frozen=True)
class DownstreamWeights:
    """task: which script wrote it; state: tensors by our names; config: the constants of the run; about: all else it says."""

    path: Path
    task: str
    state: dict[str, torch.Tensor]
    config: dict
    about: dict

    def load_into(self, model: nn.Module) -> None:
        """Raises `WeightsError` when the tensors are not those of the network."""
        own = model.state_dict()
        wrong = own.keys() ^ self.state.keys()
        wrong |= {name for name in own.keys() & self.state.keys() if own[name].shape != self.state[name].shape}
        if wrong:
            raise WeightsError(f"{self.path} does not fit the network of its constants ({sorted(wrong)[0]}); replace it.")
        model.load_state_dict(self.state)


def read_downstream(path: str | Path, task: str | None = None) -> DownstreamWeights:
    """What finetune_<task>.py wrote; any task's where none is named. Raises `WeightsError` for any other file."""
    path = Path(path)
    content, _ = read_content(path)
    found = content.get("stage") if isinstance(content, dict) else None
    config = content.get("config") if isinstance(content, dict) else None
    wanted = [task] if task else list(DOWNSTREAM)
    if found not in wanted or not isinstance(config, dict) or not isinstance(content.get("model"), dict):
        known = {**STAGES, **{of: f"finetune_{of}.py" for of in DOWNSTREAM}}
        origin = f"is from {known[found]}" if isinstance(found, str) and found in known else "is no such file"
        needed = " or ".join(f"finetune_{of}.py" for of in wanted)
        raise WeightsError(f"{path} {origin}; a weight file that {needed} wrote is needed here.")
    lacking = [name for name in NEEDED[found] if name not in content]
    if lacking:
        raise WeightsError(f"{path} does not say its {lacking[0]}, without which nothing can be predicted; replace it.")
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise WeightsError(f"{path} was written by a newer version (format {version}); update this one.")
    about = {name: value for name, value in content.items() if name not in ("model", "config")}
    return DownstreamWeights(path, found, content["model"], config, about)
