"""Sinkhorn and SwAV's loss beside those of the library `lightly`, which also takes scores as rows (B, K)."""

import lightly.loss.swav_loss as lightly
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.sinkhorn import sinkhorn
from losses.swav import swapped_prediction, swav_codes, swav_loss


def cosines(rows, clusters, seed):
    generator = torch.Generator().manual_seed(seed)
    return (0.4 * torch.randn(rows, clusters, generator=generator, dtype=torch.float64)).clamp(-1, 1)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 60),
    clusters=st.integers(1, 40),
    epsilon=st.sampled_from([0.02, 0.03, 0.05, 0.5]),  # the first in the log domain
    iterations=st.integers(1, 10),
    seed=st.integers(0, 999),
)
def test_sinkhorn_is_lightlys(rows, clusters, epsilon, iterations, seed):
    scores = cosines(rows, clusters, seed)
    expected = lightly.sinkhorn(scores, iterations=iterations, epsilon=epsilon, gather_distributed=False)
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), expected, rtol=1e-10, atol=1e-14)


def test_sinkhorn_is_finite_where_lightlys_overflows():
    scores = 5 * cosines(20, 7, 0).float()
    assert not lightly.sinkhorn(scores.clone(), epsilon=0.05).isfinite().all()
    expected = lightly.sinkhorn(scores.double(), epsilon=0.05)
    torch.testing.assert_close(sinkhorn(scores).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("queued", [0, 30])
@pytest.mark.parametrize("low", [0, 1, 4])
@pytest.mark.parametrize("temperature, epsilon, iterations", [(0.1, 0.05, 3), (0.2, 0.03, 10)])
def test_loss_and_gradients_are_lightlys(queued, low, temperature, epsilon, iterations):
    crops = [cosines(12, 9, seed).requires_grad_() for seed in range(2 + low)]
    queue = [cosines(queued, 9, 100 + crop) for crop in range(2)] if queued else None
    theirs = lightly.SwaVLoss(temperature, iterations, epsilon, sinkhorn_gather_distributed=False)
    expected = theirs(crops[:2], crops[2:], queue)[0]
    wanted = torch.autograd.grad(expected, crops)
    codes = [swav_codes(crop, queue and queue[i], epsilon, iterations) for i, crop in enumerate(crops[:2])]
    loss = swav_loss(crops, codes, temperature)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for own, other in zip(torch.autograd.grad(loss, crops), wanted):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-14)


def test_swapped_prediction_is_the_mean_of_lightlys_over_heads():
    scores = [[cosines(10, clusters, 10 * crop + clusters) for clusters in (5, 8)] for crop in range(4)]
    queue = [[cosines(20, clusters, 100 * (crop + 1) + clusters) for clusters in (5, 8)] for crop in range(2)]
    theirs = lightly.SwaVLoss(0.1, 3, 0.05)
    expected = [
        theirs([crop[h] for crop in scores[:2]], [crop[h] for crop in scores[2:]], [crop[h] for crop in queue])
        for h in range(2)
    ]
    loss, codes = swapped_prediction(scores, queue, 0.05, 3, 0.1)
    torch.testing.assert_close(loss, sum(expected)[0] / 2, rtol=1e-12, atol=0)
    of_first = lightly.sinkhorn(torch.cat([scores[0][0], queue[0][0]]), iterations=3, epsilon=0.05)[:10]
    torch.testing.assert_close(codes, of_first, rtol=1e-10, atol=1e-14)
