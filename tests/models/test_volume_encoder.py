import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models.masked_volume import MaskedVolumeModel
from models.volume_encoder import VolumeEncoder, volume_embedding
from tests import reference_recipe as recipe

CASES = [(axis, sampling) for axis in ("slices", "features") for sampling in ("da018", "da020")]


@pytest.fixture(autouse=True)
def float64_grid():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("axis, sampling", CASES)
def test_equals_the_published_masked_model(axis, sampling):
    stored = recipe.load(f"masked_{axis.removesuffix('s')}_axis_{sampling}.npz")
    seed, encoder = int(stored["seed"]), VolumeEncoder(axis=axis, sampling=sampling)
    model = MaskedVolumeModel(encoder, token_alone=True).double().eval()
    names = {"token": "mask_token", "decoder.weight": "decoder.weight", "decoder.bias": "decoder.bias"}
    published = {k: names.get(k) or k.replace("volume_encoder.", "encoder.encoder.") for k in model.state_dict()}
    model.load_state_dict({k: recipe.tensor(published[k], seed, v) for k, v in model.state_dict().items()})
    with torch.no_grad():
        out = model(
            recipe.inputs("input/view1", seed, (2, 64, 640)),
            torch.ones(2, 64, dtype=torch.bool),
            torch.tensor(stored["mask"])[..., 0].bool(),
        )
    recipe.assert_probe(stored, "output", out)


def tiny(**changes):
    torch.manual_seed(0)
    encoder = VolumeEncoder(32, layers=2, feedforward_dim=16, heads=4, head_dim=8, **changes).double().eval()
    for parameter in encoder.parameters():  # away from the identity that it starts as
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder


def test_a_volume_embedding_starts_as_the_mean_of_its_slices():
    slices = F.layer_norm(torch.randn(2, 7, 32), (32,))
    encoder = VolumeEncoder(32, layers=2, feedforward_dim=16, heads=4, head_dim=8).double().eval()
    assert torch.allclose(volume_embedding(encoder(slices)), F.normalize(slices.mean(1), dim=1), atol=1e-4)


@pytest.mark.parametrize("lengths", [(6, 9), (1, 98), (4, 33, 20)])
def test_a_volume_alone_and_in_a_padded_batch_has_the_same_embedding(lengths):
    encoder, longest = tiny(), max(lengths)
    slices = torch.randn(len(lengths), longest, 32)
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    hidden = encoder(slices, real)
    assert not hidden[~real].any()
    together = volume_embedding(hidden, real)
    for row, n in enumerate(lengths):
        assert torch.allclose(together[row], volume_embedding(encoder(slices[row : row + 1, :n]))[0], atol=1e-12)
    assert torch.allclose(together.norm(dim=1), torch.ones(len(lengths)))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.sampled_from(["da018", "da020"]), st.integers(0, 99))
def test_permuting_the_volumes_of_a_batch_permutes_what_they_become(lengths, sampling, seed):
    encoder, draws = tiny(sampling=sampling), torch.Generator().manual_seed(seed)
    slices = torch.randn(len(lengths), max(lengths), 32, generator=draws)
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    order = torch.randperm(len(lengths), generator=draws)
    hidden, permuted = encoder(slices, real), encoder(slices[order], real[order])
    assert torch.allclose(permuted, hidden[order], rtol=1e-10, atol=1e-12)
    embedded = volume_embedding(hidden, real)
    assert torch.allclose(volume_embedding(permuted, real[order]), embedded[order], rtol=1e-10, atol=1e-12)


def test_features_axis_mixes_features_of_a_fixed_number_of_slices():
    encoder = VolumeEncoder(40, layers=1, feedforward_dim=16, heads=8, head_dim=4, axis="features", slices=8).double().eval()
    out, weights = encoder.layers[0].attention.attend(torch.randn(1, 40, 8))
    assert out.shape == (1, 40, 8) and weights.shape == (1, 8, 40, 10)
    assert F.layer_norm(encoder(torch.randn(2, 8, 40)), (40,)).isfinite().all()
