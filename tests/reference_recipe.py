"""Weights and inputs of the stored reference arrays, drawn by name, so that anybody can rebuild them; and how to compare."""

import json
import math
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[1].parent / "shared" / "reference"
# relative: how near two float64 computations of the same thing have to be
FLOAT64 = 1e-9


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


def load(file: str):
    """A stored file; where the arrays are absent, the test is skipped."""
    if not FOLDER.exists():
        pytest.skip("the stored arrays are not here")
    return np.load(FOLDER / file)


@contextmanager
def default_dtype(dtype: torch.dtype):
    """The arrays were made with it set: a grid of whole numbers would otherwise be rounded to float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def probe(name: str, seed: int, array: np.ndarray) -> list[float]:
    """[dot product with a drawn direction, L2 norm]: two numbers that stand for an array."""
    return [array.ravel() @ draw("probe/" + name, seed, array.size), np.linalg.norm(array)]


def assert_probe(stored, name: str, array) -> None:
    array = np.asarray(array)
    np.testing.assert_allclose(probe(name, int(stored["seed"]), array), stored[f"{name}_f64_probe"], rtol=FLOAT64, err_msg=name)


def differences(ours, wanted) -> tuple[float, float]:
    """(largest absolute difference, relative L2 difference)."""
    ours, wanted = np.asarray(ours, np.float64), np.asarray(wanted, np.float64)
    assert ours.shape == wanted.shape
    return float(np.abs(ours - wanted).max()), float(np.linalg.norm(ours - wanted) / np.linalg.norm(wanted))


def assert_float64(ours, wanted, what: str) -> None:
    largest, relative = differences(ours, wanted)
    assert relative <= FLOAT64 and largest <= FLOAT64 * np.abs(wanted).max(), (what, largest, relative)


def float32_limits(file: str, name: str) -> tuple[float, float]:
    """Ten times the two differences between float32 and float64 of the code that made the array, 1e-6 relative at least."""
    listed = json.loads((FOLDER / "differences_f32_f64.json").read_text(encoding="utf-8"))[file][name]
    return max(10 * listed["max_abs"], 1e-6 * listed["max_abs_value"]), max(10 * listed["rel_l2"], 1e-6)


def assert_float32(ours, wanted, file: str, name: str) -> None:
    largest, relative = differences(ours, wanted)
    largest_allowed, relative_allowed = float32_limits(file, name)
    assert relative <= relative_allowed and largest <= largest_allowed, (file, name, largest, relative)
