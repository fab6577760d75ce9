"""Our attention against stored outputs and gradients of the library, in both of its samplings."""

import numpy as np
import pytest
import torch

from models.attention import DeformableAttention
from tests import reference_recipe as recipe

# a constant on all scores: its gradient is zero but for rounding
ZERO = "gradparam/rel_pos_bias.mlp.2.bias"
cases = pytest.mark.parametrize("case", ["feature_axis", "slice_axis_n64", "slice_axis_n16", "small"])
samplings = pytest.mark.parametrize("sampling", ["da018", "da020"])


def run(stored, case: str, sampling: str, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """The output, and the gradients of the sum of its squares by input and parameters."""
    _, dim, _ = shape = tuple(stored["shape"])
    sizes = {"heads": 4, "head_dim": 8} if case == "small" else {}
    seed = int(stored["seed"])
    with recipe.default_dtype(dtype):
        attention = DeformableAttention(dim, sampling=sampling, least_keys=1, **sizes)
        recipe.fill(attention, seed)
        x = recipe.inputs("input/x", seed, shape, dtype).requires_grad_()
        out = attention(x.transpose(1, 2)).transpose(1, 2)
        out.square().sum().backward()
    arrays = {"out": out.detach().numpy(), "grad_input": x.grad.numpy()}
    return arrays | {f"gradparam/{name}": p.grad.numpy() for name, p in attention.named_parameters()}


def parameter_norms(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.array([np.linalg.norm(arrays[name]) for name in sorted(arrays) if name.startswith("gradparam/")])


@samplings
@cases
def test_float64_outputs_and_gradients(case, sampling):
    stored = recipe.load(f"attn_{case}_{sampling}.npz")
    ours = run(stored, case, sampling, torch.float64)
    for name in ("out", "grad_input"):
        recipe.assert_probe(stored, name, ours[name])
    if case == "small":
        complete = {name.removesuffix("_f64") for name in stored if name.endswith("_f64")}
        assert complete == set(ours)
        for name in complete - {ZERO}:
            recipe.assert_float64(ours[name], stored[f"{name}_f64"], name)
        assert np.abs(ours[ZERO]).max() < 1e-12
    else:
        for name in ("out", "grad_input"):
            recipe.assert_float64(ours[name][:, ::8], stored[f"{name}_f64_every8"], name)
        wanted, norms = stored["gradparam_norms_f64"], parameter_norms(ours)
        zero = sorted(name for name in ours if name.startswith("gradparam/")).index(ZERO)
        np.testing.assert_allclose(np.delete(norms, zero), np.delete(wanted, zero), rtol=recipe.FLOAT64)
        assert norms[zero] < 1e-12 * wanted.max()


@samplings
@cases
def test_float32_outputs_and_gradients(case, sampling):
    file = f"attn_{case}_{sampling}.npz"
    stored = recipe.load(file)
    ours = run(stored, case, sampling, torch.float32)
    for name in ("out", "grad_input"):
        recipe.assert_float32(ours[name], stored[f"{name}_f32"], file, name)
    if case == "small":
        for name in set(ours) - {"out", "grad_input", ZERO}:
            recipe.assert_float32(ours[name], stored[f"{name}_f64"], file, name)
    else:
        recipe.assert_float32(parameter_norms(ours), stored["gradparam_norms_f64"], file, "gradparam_norms")
