import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.masked_volume import MaskedVolumeModel, interpolate_neighbours
from models.volume_encoder import VolumeEncoder


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 20), st.integers(0, 999))
def test_interpolation_is_that_of_numpy_between_visible_slices(n, seed):
    rng = np.random.default_rng(seed)
    targets, masked = rng.normal(size=(1, 24, 3)), np.zeros((1, 24), bool)
    masked[0, : n - 1] = rng.random(n - 1) < 0.5
    real = np.arange(24)[None] < n
    guessed = interpolate_neighbours(torch.tensor(targets), torch.tensor(real), torch.tensor(masked)).numpy()
    visible = np.flatnonzero(real[0] & ~masked[0])
    for d in range(3):
        assert np.allclose(guessed[0, :n, d], np.interp(np.arange(n), visible, targets[0, visible, d]), atol=1e-12)


def model(**how):
    torch.manual_seed(0)
    return MaskedVolumeModel(VolumeEncoder(32, layers=2, feedforward_dim=16, heads=4, head_dim=8), 32, **how).eval()


def randomly(network):
    """Away from the identity that it starts as."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def test_it_does_not_see_what_is_masked():
    for token_alone in (False, True):
        network = randomly(model(token_alone=token_alone))
        slices, real = torch.randn(1, 12, 32), torch.ones(1, 12, dtype=torch.bool)
        masked = torch.zeros(1, 12, dtype=torch.bool)
        masked[0, [3, 7]] = True
        changed = torch.where(masked[..., None], torch.randn(1, 12, 32), slices)
        assert torch.equal(network(slices, real, masked), network(changed, real, masked))
        assert not torch.equal(network(slices, real, masked), network(slices, real, ~masked))


def test_before_training_it_nearly_predicts_the_interpolation():
    slices = torch.nn.functional.layer_norm(torch.randn(2, 9, 32), (32,))
    real, masked = torch.arange(9) < torch.tensor([[9], [6]]), torch.zeros(2, 9, dtype=torch.bool)
    masked[:, [0, 4]] = True
    predicted, guess = model()(slices, real, masked)[masked], interpolate_neighbours(slices, real, masked)[masked]
    assert (torch.nn.functional.cosine_similarity(predicted, guess, dim=1) > 0.98).all()


def test_padding_changes_no_prediction():
    network = randomly(model())
    slices = torch.randn(1, 6, 32)
    masked = torch.zeros(1, 6, dtype=torch.bool)
    masked[0, [2, 5]] = True
    alone = network(slices, torch.ones(1, 6, dtype=torch.bool), masked)
    padded = [torch.nn.functional.pad(x, (0, 0, 0, 3) if x.ndim == 3 else (0, 3)) for x in (slices, masked)]
    together = network(padded[0], torch.arange(9)[None] < 6, padded[1])
    assert torch.allclose(together[:, :6], alone, atol=1e-5)
