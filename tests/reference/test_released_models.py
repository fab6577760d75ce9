"""Our networks with the published settings give the stored outputs of the published code."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from losses.masked import published_mask_loss
from models.masked_volume import MaskedVolumeModel
from models.released import from_released
from models.slice_encoder import SliceEncoder, embed_slices
from models.volume_encoder import VolumeEncoder, volume_embedding
from tests import reference_recipe as recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not recipe.FOLDER.exists(), reason="the stored arrays are not here"),
]
SAMPLINGS = pytest.mark.parametrize("sampling", ["da018", "da020"])
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


@pytest.fixture(autouse=True)
def default_type(request):
    torch.set_default_dtype(request.node.callspec.params["dtype"])
    yield
    torch.set_default_dtype(torch.float32)


class Stored:
    """One file of stored arrays, with what is drawn beside it."""

    def __init__(self, name):
        self.name, self.arrays = name, np.load(recipe.FOLDER / f"{name}.npz")
        self.seed = int(self.arrays["seed"])

    def state(self, case, dtype):
        """The weights of a case, by published names and in the order of its index."""
        shapes = json.loads((recipe.FOLDER / "weights_index.json").read_text(encoding="utf-8"))[case]["tensors"]
        return {name: recipe.tensor(name, self.seed, torch.empty(shape, dtype=dtype)) for name, shape in shapes.items()}

    def check(self, key, value):
        """float64 by its probe to 1e-9, float32 to ten times what the published code itself differs by."""
        array = value.detach().numpy()
        if array.dtype == np.float64:
            probe = recipe.draw("probe/" + key, self.seed, array.size)
            dot, norm = self.arrays[f"{key}_f64_probe"]
            found = np.linalg.norm(array)
            assert abs(found - norm) <= 1e-9 * norm, key
            assert abs(array.ravel() @ probe - dot) <= 1e-9 * norm * np.sqrt(array.size), key
            if f"{key}_f64" in self.arrays:
                whole = self.arrays[f"{key}_f64"]
                assert np.linalg.norm(array - whole) <= 1e-9 * np.linalg.norm(whole), key
        else:
            listed = json.loads((recipe.FOLDER / "differences_f32_f64.json").read_text(encoding="utf-8"))[f"{self.name}.npz"][
                key
            ]
            whole = self.arrays[f"{key}_f32"]
            assert np.linalg.norm(array - whole) <= max(1e-6, 10 * listed["rel_l2"]) * np.linalg.norm(whole), key


def volumes(seed, name, shape, dtype):
    return recipe.inputs(name, seed, shape, dtype), torch.ones(shape[:2], dtype=torch.bool)


def load(module, state):
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not missing and all("prototypes" in name for name in unexpected)
    return module.to(torch.get_default_dtype()).eval()


@TYPES
def test_slice_features_and_embeddings(dtype):
    stored = Stored("slice_features")
    state = stored.state("slice_features", dtype)
    weight = state.pop("deconv.weight")
    encoder = SliceEncoder("resnet50", 640, "published")
    ours = {f"resnet.{name}": value for name, value in state.items() if not name.startswith("deconv.")}
    ours |= {"to_embedding.weight": weight[:, :, 0].T, "to_embedding.bias": state["deconv.bias"]}
    load(encoder, ours)
    slices, real = volumes(stored.seed, "input/slices", (2, 4, 64, 64), dtype)
    with torch.no_grad():
        stored.check("features", encoder.features(slices[real][:, None]).unflatten(0, (2, 4)))
        stored.check("embedding", embed_slices(encoder, slices, real))


@SAMPLINGS
@TYPES
def test_images_to_volume_and_scores(dtype, sampling):
    stored = Stored(f"full_model_{sampling}")
    found = from_released({f"module.{name}": value for name, value in stored.state("full_model", dtype).items()})
    f_intra = SliceEncoder("resnet50", 640, "published")
    f_inter = VolumeEncoder(axis="features", sampling=sampling, identity=False)
    load(nn.ModuleDict({"slice_encoder": f_intra, "masked": nn.ModuleDict({"volume_encoder": f_inter})}), found["state"])
    pixels, real = volumes(stored.seed, "input/volume", (1, 64, 32, 32), dtype)
    with torch.no_grad():
        volume = volume_embedding(f_inter(embed_slices(f_intra, pixels, real), real), real)
    stored.check("volume", volume)
    for head in (0, 1):
        stored.check(f"scores{head}", volume @ found["state"][f"prototypes.volumes.heads.{head}"].T)


@SAMPLINGS
@TYPES
@pytest.mark.parametrize("axis", ["features", "slices"])
def test_masked_output_loss_and_gradients(axis, dtype, sampling):
    case = {"features": "masked_feature_axis", "slices": "masked_slice_axis"}[axis]
    stored = Stored(f"{case}_{sampling}")
    found = from_released({f"module.{name}": value for name, value in stored.state(case, dtype).items()})
    model = MaskedVolumeModel(VolumeEncoder(axis=axis, sampling=sampling, identity=False), 640, token_alone=True)
    load(model, {name.removeprefix("masked."): value for name, value in found["state"].items()})
    (view1, real), (view2, _) = (volumes(stored.seed, f"input/view{i}", (2, 64, 640), dtype) for i in (1, 2))
    masked = torch.from_numpy(stored.arrays["mask"][..., 0]).repeat(2, 1)
    views = torch.cat([view1, view2])
    output = model(views, real.repeat(2, 1), masked)
    loss = published_mask_loss(output, views, float(stored.arrays["mask_ratio"]))
    loss.backward()
    stored.check("output", output[:2])
    stored.check("loss", loss)
    stored.check("grad_mask_token", model.token.grad)
    stored.check("grad_decoder_bias", model.decoder.bias.grad)
