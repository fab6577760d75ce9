import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attention import DeformableAttention
from tests import reference_recipe as recipe

has_reference = pytest.mark.skipif(not recipe.FOLDER.exists(), reason="the stored arrays are not here")


def small(least_keys=4, sampling="da020", seed=0):
    torch.manual_seed(seed)
    return DeformableAttention(32, heads=4, head_dim=8, least_keys=least_keys, sampling=sampling).double()


@pytest.fixture(autouse=True)
def float64_grid():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@has_reference
@pytest.mark.parametrize("sampling", ["da018", "da020"])
def test_small_case_equals_the_library_in_outputs_and_gradients(sampling):
    stored = np.load(recipe.FOLDER / f"attn_small_{sampling}.npz")
    seed = int(stored["seed"])
    attention = small(least_keys=1, sampling=sampling)
    recipe.fill(attention, seed)
    x = recipe.inputs("input/x", seed, (2, 32, 12)).requires_grad_()
    out = attention(x.transpose(1, 2)).transpose(1, 2)
    (out**2).sum().backward()
    key = {k.removesuffix("_f64"): stored[k] for k in stored.files if k.endswith("_f64")}
    assert np.allclose(out.detach(), key["out"], rtol=1e-9, atol=1e-12)
    assert np.allclose(x.grad, key["grad_input"], rtol=1e-9, atol=1e-10)
    for name, parameter in attention.named_parameters():
        assert np.allclose(parameter.grad, key[f"gradparam/{name}"], rtol=1e-8, atol=1e-9), name


@has_reference
@pytest.mark.parametrize("sampling", ["da018", "da020"])
@pytest.mark.parametrize(
    "case, dim, items", [("slice_axis_n64", 640, 64), ("slice_axis_n16", 640, 16), ("feature_axis", 64, 640)]
)
def test_full_cases_equal_the_library(case, dim, items, sampling):
    stored = np.load(recipe.FOLDER / f"attn_{case}_{sampling}.npz")
    seed = int(stored["seed"])
    attention = DeformableAttention(dim, sampling=sampling).double()
    recipe.fill(attention, seed)
    x = recipe.inputs("input/x", seed, (2, dim, items)).requires_grad_()
    out = attention(x.transpose(1, 2)).transpose(1, 2)
    (out**2).sum().backward()
    for name, array in [("out", out.detach().numpy()), ("grad_input", x.grad.numpy())]:
        probe = recipe.draw("probe/" + name, seed, array.size)
        assert np.allclose([array.ravel() @ probe, np.linalg.norm(array)], stored[f"{name}_f64_probe"], rtol=1e-9)


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
