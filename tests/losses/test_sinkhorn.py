import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.sinkhorn import sinkhorn
from tests.losses.loss_processes import ROWS, SHARES, draw


def plain_sinkhorn(scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """Straight-line float64 statement of the algorithm, on the whole matrix."""
    q = np.exp((scores.astype(np.float64) - scores.max()) / epsilon)
    for _ in range(iterations):
        q /= q.sum(0, keepdims=True) * q.shape[1]
        q /= q.sum(1, keepdims=True) * q.shape[0]
    return q * q.shape[0]


@pytest.mark.parametrize("epsilon, iterations", [(0.05, 3), (0.03, 10), (0.5, 1)])
def test_equals_the_float64_statement(epsilon, iterations):
    scores = (0.4 * draw(300, 40)).clamp(-1, 1)
    wanted = plain_sinkhorn(scores.numpy(), epsilon, iterations)
    np.testing.assert_allclose(sinkhorn(scores, epsilon, iterations), wanted, rtol=1e-11, atol=1e-16)
    np.testing.assert_allclose(sinkhorn(scores.float(), epsilon, iterations), wanted, rtol=1e-3, atol=3e-6)


@pytest.mark.parametrize("spread", [70, 79.9, 80.1, 200])
def test_both_domains_agree_around_the_border(spread):
    scores = draw(20, 8)
    scores = (scores - scores.min()) / (scores.max() - scores.min()) * spread
    np.testing.assert_allclose(sinkhorn(scores, 1.0, 5), plain_sinkhorn(scores.numpy(), 1.0, 5), rtol=1e-9, atol=1e-20)


def test_prototypes_are_used_equally_after_many_iterations():
    codes = sinkhorn(draw(60, 5) / 4, 0.2, 200)
    torch.testing.assert_close(codes.sum(0), torch.full((5,), 12.0, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    clusters=st.integers(1, 7),
    size=st.sampled_from([1e-3, 1.0, 3.9, 4.1, 100.0, 1e4]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_rows_sum_to_one_for_any_scores(rows, clusters, size, dtype, seed):
    scores = ((2 * torch.rand(rows, clusters, generator=torch.Generator().manual_seed(seed)) - 1) * size).to(dtype)
    codes = sinkhorn(scores)
    assert codes.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(codes).all() and (codes >= 0).all()
    torch.testing.assert_close(codes.sum(1), torch.ones(rows, dtype=codes.dtype), rtol=0, atol=1e-5)


def test_autocast_and_gradient_are_left_outside():
    scores = draw(30, 6).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        codes = sinkhorn(scores, 0.5)
    assert not codes.requires_grad and torch.equal(codes, sinkhorn(scores, 0.5))


@pytest.mark.parametrize("share", SHARES)
def test_two_processes_equal_one(one, two, share):
    for name, tolerance in {"double": 1e-12, "single": 3e-6, "log": 1e-12}.items():
        joined = torch.cat([results["codes", share][name] for results in two])
        assert len(joined) == ROWS
        torch.testing.assert_close(joined, one["codes", share][name], rtol=tolerance, atol=tolerance)
    assert all(results["codes", share]["nobody"].shape == (0, 7) for results in two)
