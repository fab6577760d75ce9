"""Attention and encoder beside the stored outputs and gradients of the published code."""

import numpy as np
import pytest
import torch

from models.attention import DeformableAttention
from models.heads import Prototypes
from models.volume_encoder import VolumeEncoder, volume_embedding
from tests import reference_recipe as recipe

pytestmark = pytest.mark.skipif(not recipe.FOLDER.exists(), reason="the stored arrays are not here")
SAMPLINGS = pytest.mark.parametrize("sampling", ["da018", "da020"])
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
# the bias of all scores alike has no gradient but rounding
WITHOUT_GRADIENT = "rel_pos_bias.mlp.2.bias"


@pytest.fixture(autouse=True)
def default_type(request):
    torch.set_default_dtype(request.node.callspec.params.get("dtype", torch.float64))
    yield
    torch.set_default_dtype(torch.float32)


def attended(stored, attention, dtype):
    """Output, input gradient and parameter gradients of the sum of the squared output, as the published layout has them."""
    recipe.fill(attention, stored.seed)
    x = recipe.inputs("input/x", stored.seed, stored.arrays["shape"], dtype).requires_grad_()
    out = attention.to(dtype)(x.transpose(1, 2)).transpose(1, 2)
    (out**2).sum().backward()
    return out, x.grad, {name: p.grad.double() for name, p in attention.named_parameters()}


@TYPES
@SAMPLINGS
@pytest.mark.parametrize(
    "case, sizes",
    [
        ("small", {"dim": 32, "heads": 4, "head_dim": 8, "least_keys": 1}),
        ("slice_axis_n16", {"dim": 640}),
        ("slice_axis_n64", {"dim": 640}),
        ("feature_axis", {"dim": 64}),
    ],
)
def test_attention_in_outputs_and_all_gradients(case, sizes, sampling, dtype):
    stored = recipe.Stored(f"attn_{case}_{sampling}")
    out, grad_input, gradients = attended(stored, DeformableAttention(**sizes, sampling=sampling), dtype)
    stored.check("out", out)
    stored.check("grad_input", grad_input)
    for name, gradient in gradients.items() if case == "small" and dtype == torch.float64 else ():
        whole = stored.arrays[f"gradparam/{name}_f64"]
        assert np.linalg.norm(gradient - whole) <= 1e-9 * max(1, np.linalg.norm(whole)), name
    if case != "small":
        names = sorted(gradients)
        norms = np.array([gradients[name].norm() for name in names])
        expected = stored.arrays["gradparam_norms_f64"]
        share = 1e-9 if dtype == torch.float64 else stored.tolerance("gradparam_norms")
        known = np.array([name != WITHOUT_GRADIENT for name in names])
        if dtype == torch.float64:
            np.testing.assert_allclose(norms[known], expected[known], rtol=1e-9)
        assert np.linalg.norm((norms - expected)[known]) <= share * np.linalg.norm(expected)
        assert norms[~known] <= share * expected.max()


@TYPES
@SAMPLINGS
@pytest.mark.parametrize("axis", ["slices", "features"])
def test_encoder_layers_volume_embedding_and_scores(axis, sampling, dtype):
    stored = recipe.Stored(f"encoder_{axis.removesuffix('s')}_axis_{sampling}")
    encoder = VolumeEncoder(axis=axis, sampling=sampling).eval()
    recipe.fill(encoder, stored.seed, prefix="inter.encoder.")
    prototypes = Prototypes(640, stored.arrays["n_prototypes"].tolist(), scores="dot")
    for head, weight in enumerate(prototypes.heads):
        weight.data = recipe.tensor(f"prototypes.prototypes{head}.weight", stored.seed, weight)
    hidden = recipe.inputs("input/slice_embeddings", stored.seed, stored.arrays["shape"], dtype)
    with torch.no_grad():
        for number, layer in enumerate(encoder.to(dtype).layers):
            hidden = layer(hidden, torch.ones(hidden.shape[:2], dtype=torch.bool))
            if dtype == torch.float64 or number == 3:  # of the first three layers, float64 alone is stored
                stored.check(f"layer{number}", hidden)
        volume = volume_embedding(hidden)
        scores = prototypes.to(dtype)(volume)
    stored.check("volume", volume)
    for head, of_head in enumerate(scores):
        stored.check(f"scores{head}", of_head)
