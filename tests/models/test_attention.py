import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attention import DeformableAttention


def small(least_keys=4, sampling="da020", seed=0):
    torch.manual_seed(seed)
    return DeformableAttention(32, heads=4, head_dim=8, least_keys=least_keys, sampling=sampling).double()


@pytest.fixture(autouse=True)
def float64_grid():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.integers(0, 100))
def test_a_sequence_alone_and_in_a_padded_batch_are_the_same(lengths, seed):
    attention, longest = small(seed=seed), max(lengths)
    x = torch.randn(len(lengths), longest, 32)
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    together = attention(x, real)
    assert not together[~real].any()
    for row, n in enumerate(lengths):
        assert torch.allclose(together[row, :n], attention(x[row : row + 1, :n])[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [4, 5, 6, 15, 16, 33, 64, 98])
def test_the_map_goes_from_every_slice_to_about_a_quarter_as_many_keys(n):
    out, weights = small().attend(torch.randn(1, n, 32))
    assert out.shape == (1, n, 32)
    assert weights.shape[:3] == (1, 4, n)
    assert max(4, n // 4 - 1) <= weights.shape[3] <= max(4, n // 4)
    assert torch.allclose(weights.sum(-1), torch.ones(1, 4, n))


def test_padding_gets_no_gradient():
    x = torch.randn(2, 12, 32, requires_grad=True)
    real = torch.arange(12) < torch.tensor([[7], [12]])
    small()(x, real).pow(2).sum().backward()
    assert not x.grad[0, 7:].any() and x.grad[0, :7].any()


def test_bfloat16_keeps_positions_exact():
    torch.set_default_dtype(torch.float32)
    attention, x = small().float(), torch.randn(2, 64, 32)
    exact = attention(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(x)
    assert (rounded - exact).norm() / exact.norm() < 0.03
