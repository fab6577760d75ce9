"""Weights and inputs of the stored reference arrays: drawn by name, so that anybody can rebuild them."""

import json
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


class Stored:
    """One file of stored arrays, with what is drawn beside it."""

    def __init__(self, name):
        self.name, self.arrays = name, np.load(FOLDER / f"{name}.npz")
        self.seed = int(self.arrays["seed"])

    def state(self, case, dtype):
        """The weights of a case, by published names and in the order of its index."""
        shapes = json.loads((FOLDER / "weights_index.json").read_text())[case]["tensors"]
        return {name: tensor(name, self.seed, torch.empty(shape, dtype=dtype)) for name, shape in shapes.items()}

    def check(self, key, value):
        """float64 by its probe to 1e-9, float32 to ten times what the published code itself differs by."""
        array = value.detach().numpy()
        if array.dtype == np.float64:
            probe = draw("probe/" + key, self.seed, array.size)
            dot, norm = self.arrays[f"{key}_f64_probe"]
            found = np.linalg.norm(array)
            assert abs(found - norm) <= 1e-9 * norm, key
            assert abs(array.ravel() @ probe - dot) <= 1e-9 * norm * np.sqrt(array.size), key
            for end, part in [("", ...), ("_every8", np.s_[:, ::8]), ("_first_slice", np.s_[:, 0])]:
                if f"{key}_f64{end}" in self.arrays:
                    whole = self.arrays[f"{key}_f64{end}"]
                    assert np.linalg.norm(array[part] - whole) <= 1e-9 * np.linalg.norm(whole), key + end
        else:
            whole = self.arrays[f"{key}_f32"]
            assert np.linalg.norm(array - whole) <= self.tolerance(key) * np.linalg.norm(whole), key

    def tolerance(self, key):
        """For float32: ten times what the published code itself differs by between its two types, but not below 1e-6."""
        listed = json.loads((FOLDER / "differences_f32_f64.json").read_text())[f"{self.name}.npz"]
        return max(1e-6, 10 * listed[key]["rel_l2"])
