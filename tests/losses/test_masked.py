import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.masked import MaskedScore, draw_mask, masked_slice_loss


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.floats(0.01, 0.9), st.integers(0, 99))
def test_a_mask_has_the_asked_share_of_each_volumes_real_slices(lengths, ratio, seed):
    real = torch.arange(40) < torch.tensor(lengths)[:, None]
    masked = draw_mask(torch.rand(len(lengths), 40, generator=torch.Generator().manual_seed(seed)), real, ratio)
    assert not (masked & ~real).any()
    for n, count in zip(lengths, masked.sum(1).tolist()):
        assert count == min(max(1, math.ceil(n * ratio - 1e-6)), n - 1)


def test_a_tenth_of_ten_is_one_whatever_the_rounding():
    assert draw_mask(torch.rand(1, 30), torch.ones(1, 30, dtype=torch.bool), 0.1).sum() == 3


def test_the_loss_is_zero_when_the_masked_slices_are_perfect_whatever_the_rest():
    targets, masked = torch.randn(2, 6, 4), torch.zeros(2, 6, dtype=torch.bool)
    masked[0, 1] = masked[1, 4] = True
    predictions = torch.where(masked[..., None], targets, torch.randn(2, 6, 4))
    assert masked_slice_loss(predictions, targets, masked) == 0
    assert masked_slice_loss(predictions, targets, ~masked) > 0


def test_targets_get_no_gradient():
    targets, predictions = torch.randn(1, 4, 3, requires_grad=True), torch.randn(1, 4, 3, requires_grad=True)
    masked_slice_loss(predictions, targets, torch.tensor([[True, False, False, True]])).backward()
    assert targets.grad is None and predictions.grad[0, 0].any() and not predictions.grad[0, 1].any()


def test_scores_are_one_for_perfect_and_zero_for_the_baselines_themselves():
    targets, real = torch.randn(3, 9, 4).cumsum(1), torch.ones(3, 9, dtype=torch.bool)
    masked = draw_mask(torch.rand(3, 9), real, 0.3)
    mean = targets[masked].mean(0).expand_as(targets)
    straight = (targets.roll(1, 1) + targets.roll(-1, 1)) / 2  # any other guess would do
    guesses = {"perfect": targets, "mean": mean, "interpolation": straight}
    scores = {}
    for name, guess in guesses.items():
        score = MaskedScore()
        for row in range(3):  # in parts, as in training
            score.add(*(x[row : row + 1] for x in (guess, targets, straight, masked)))
        scores[name] = score.compute()
    assert scores["perfect"] == {"r2_mean": 1.0, "r2_interpolation": 1.0, "mse": 0.0}
    assert scores["mean"]["r2_mean"] == pytest.approx(0, abs=1e-6)
    assert scores["interpolation"]["r2_interpolation"] == pytest.approx(0, abs=1e-6)
