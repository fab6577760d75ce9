"""Our volume encoder against what the published layers gave, after each layer, along both axes and in both samplings."""

import numpy as np
import pytest
import torch

from models.heads import Prototypes
from models.volume_encoder import VolumeEncoder, volume_embedding
from tests import reference_recipe as recipe

cases = pytest.mark.parametrize("axis", ["slices", "features"])
samplings = pytest.mark.parametrize("sampling", ["da018", "da020"])


def file_of(axis: str, sampling: str) -> str:
    return f"encoder_{axis.removesuffix('s')}_axis_{sampling}.npz"


def run(stored, axis: str, sampling: str, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """What leaves each layer, the volume embedding and its scores."""
    seed, (batch, slices, dim) = int(stored["seed"]), stored["shape"].tolist()
    with recipe.default_dtype(dtype), torch.no_grad():
        encoder = VolumeEncoder(dim, axis=axis, slices=slices, sampling=sampling).eval()
        recipe.fill(encoder, seed, prefix="inter.encoder.")
        prototypes = Prototypes(dim, stored["n_prototypes"].tolist(), scores="dot")
        for head, weight in enumerate(prototypes.heads):
            weight.copy_(recipe.tensor(f"prototypes.prototypes{head}.weight", seed, weight))
        arrays = {}
        for number, layer in enumerate(encoder.layers):
            layer.register_forward_hook(lambda _, __, out, number=number: arrays.update({f"layer{number}": out}))
        volume = volume_embedding(encoder(recipe.inputs("input/slice_embeddings", seed, (batch, slices, dim), dtype)))
        arrays["volume"] = volume
        arrays |= {f"scores{head}": scores for head, scores in enumerate(prototypes(volume))}
    return {name: array.numpy() for name, array in arrays.items()}


@samplings
@cases
def test_float64(axis, sampling):
    stored = recipe.load(file_of(axis, sampling))
    ours = run(stored, axis, sampling, torch.float64)
    assert set(ours) == {name.removesuffix("_f64_probe") for name in stored if name.endswith("_f64_probe")}
    for name, array in ours.items():
        recipe.assert_probe(stored, name, array)
    for name in ("layer0", "layer1", "layer2"):
        recipe.assert_float64(ours[name][:, 0], stored[f"{name}_f64_first_slice"], name)
    recipe.assert_float64(ours["layer3"][:, ::8], stored["layer3_f64_every8"], "layer3")
    for name in ("volume", "scores0", "scores1"):
        recipe.assert_float64(ours[name], stored[f"{name}_f64"], name)


@samplings
@cases
def test_float32(axis, sampling):
    file = file_of(axis, sampling)
    stored = recipe.load(file)
    ours = run(stored, axis, sampling, torch.float32)
    for name in ("layer3", "volume", "scores0", "scores1"):
        recipe.assert_float32(ours[name], stored[f"{name}_f32"], file, name)
    for name in ("layer0", "layer1", "layer2"):
        recipe.assert_float32(ours[name][:, 0], stored[f"{name}_f64_first_slice"], file, name)
