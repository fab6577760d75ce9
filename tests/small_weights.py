"""Weight files of stages 1 and 3 as runs write them, of small networks with random weights."""

from pathlib import Path
from types import SimpleNamespace

import torch

from engine.weights import write_weights
from models.joint import JointModel
from models.pretrained import make_encoders
from models.slice_encoder import SliceEncoder

CONSTANTS = {
    "arch": "resnet18", "d_model": 32, "attention": "slices", "sampling": "da020", "slice_embedding": "unit",
    "masking": "filled", "target_shape": [16, 24, 24], "normalise": "robust", "fit": "shrink", "scores": "cosine",
}  # fmt: skip


def write_joint(path: Path, seed: int = 0, **changes) -> Path:
    """Of stage 3."""
    config = CONSTANTS | changes
    torch.manual_seed(seed)
    encoders = make_encoders(SimpleNamespace(**config, dropout=0.0), identity=False)
    model = JointModel(*encoders, (4, 3), (5,), scores=config["scores"])
    write_weights(path, model.state_dict(), {"stage": "joint", "method": "swav", "run": "r", "config": config})
    return path


def write_image(path: Path, seed: int = 0, arch: str = "resnet18", **changes) -> Path:
    """Of stage 1."""
    torch.manual_seed(seed)
    state = SliceEncoder(arch).resnet.state_dict()
    config = {"arch": arch, "size_crops": [24], "normalise": "robust"} | changes
    write_weights(path, state, {"stage": "image", "method": "swav", "run": "r", "config": config}, flat=True)
    return path
