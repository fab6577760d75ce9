"""Weights and inputs of the stored reference arrays: drawn by name, so that anybody can rebuild them."""

import math
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1].parent / "shared" / "reference"


def draw(name: str, seed: int, shape) -> np.ndarray:
    return np.random.RandomState((seed + zlib.crc32(name.encode())) % 2**32).standard_normal(shape)


def tensor(name: str, seed: int, like: torch.Tensor) -> torch.Tensor:
    """The value of one entry of a state dict, by the recipe's first rule that fits."""
    last, shape = name.rsplit(".", 1)[-1], tuple(like.shape)
    if last == "num_batches_tracked":
        return torch.zeros_like(like)
    noise = draw(name, seed, shape)
    if last in ("running_mean", "bias"):
        value = 0.1 * noise
    elif last == "running_var":
        value = 1 + 0.1 * np.abs(noise)
    elif last == "weight" and len(shape) == 1:
        value = 1 + 0.1 * noise
    elif len(shape) == 1:
        value = noise
    else:
        value = noise / math.sqrt(shape[0] if name.endswith("deconv.weight") else math.prod(shape[1:]))
    return torch.tensor(value.astype(np.float32)).to(like.dtype)


def fill(module: torch.nn.Module, seed: int, prefix: str = "") -> None:
    """Gives a module the recipe's weights; `prefix` completes its names."""
    module.load_state_dict({name: tensor(prefix + name, seed, value) for name, value in module.state_dict().items()})


def inputs(name: str, seed: int, shape, dtype=torch.float64) -> torch.Tensor:
    return torch.tensor(draw(name, seed, shape).astype(np.float32)).to(dtype)
