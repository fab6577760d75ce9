"""The position bias by pieces is the network: values, gradients, kinks, and what it costs."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from models.position_bias import PositionBias


def made(dim=12, heads=2, seed=0, scale=1.0):
    torch.manual_seed(seed)
    bias = PositionBias(dim, heads).double()
    for parameter in bias.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return bias


def distances(shape=(2, 3, 4, 9), seed=0, scale=2.0):
    return scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_distance(distance):
    return distance.sign() * distance.abs().log1p()


def value_and_gradients(bias, compute, distance, out_gradient):
    """[the bias, the gradient of the distance, those of all parameters]."""
    distance = distance.detach().clone().requires_grad_()
    value = compute(distance)
    return [value.detach(), *torch.autograd.grad(value, (distance, *bias.parameters()), out_gradient.to(value.dtype))]


def assert_is_the_network(bias, distance):
    out_gradient = torch.randn(*distance.shape[:2], bias.mlp[2].out_features, *distance.shape[2:], dtype=torch.float64)
    found = value_and_gradients(bias, bias, distance, out_gradient)
    expected = value_and_gradients(bias, lambda d: bias.network(log_distance(d)), distance, out_gradient)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10 * (1 + theirs.abs().max().item()))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 3),
    st.integers(0, 999),
    st.sampled_from([0.1, 1.0, 10.0]),
    st.sampled_from([0.01, 2.0, 100.0]),
)
def test_values_and_all_gradients_are_the_networks(dim, heads, seed, scale, spread):
    assert_is_the_network(made(dim, heads, seed, scale), distances(seed=seed, scale=spread))


def test_gradients_are_those_of_finite_differences():
    bias, distance = made(5, 2), distances((1, 2, 2, 3)).requires_grad_()
    names, parameters = zip(*bias.named_parameters())

    def compute(distance, *parameters):
        return functional_call(bias, dict(zip(names, parameters)), distance)

    assert torch.autograd.gradcheck(compute, (distance, *parameters))


@pytest.mark.parametrize("value", [0.0, 0.7, -1.3])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5)])
def test_distances_that_are_all_equal(value, shape):
    assert_is_the_network(made(), torch.full(shape, value, dtype=torch.float64))


def test_distances_of_zero_among_others():
    distance = distances()
    distance[..., ::3] = 0
    assert_is_the_network(made(), distance)


def test_units_without_a_kink_and_units_that_are_alike():
    bias = made()
    with torch.no_grad():
        bias.mlp[0][0].weight[:3] = 0  # constant, on and off
        bias.mlp[0][0].bias[:3] = torch.tensor([1.0, -1.0, 2.0])
        for linear in (bias.mlp[0][0], bias.mlp[1][0]):
            linear.weight[5], linear.bias[5] = linear.weight[4], linear.bias[4]
    assert_is_the_network(bias, distances())


def test_a_network_without_biases_bends_at_zero_alone():
    bias = made()
    for linear in (bias.mlp[0][0], bias.mlp[1][0]):
        torch.nn.init.zeros_(linear.bias)
    ends = bias.kinks(torch.tensor(-1.0).double(), torch.tensor(1.0).double())
    assert set(ends.tolist()) == {-1.0, 0.0, 1.0}
    assert_is_the_network(bias, distances())


def test_at_a_kink_the_value_is_the_networks_and_the_gradient_that_of_one_side():
    bias = made(8, 1)
    kinks = bias.kinks(torch.tensor(-2.0).double(), torch.tensor(2.0).double())[1:-1]
    assert len(kinks) > 8
    scalar = torch.cat([kinks, torch.tensor([-2.0, 2.0])])[None, None, None].requires_grad_()
    value = bias.by_pieces(scalar)
    torch.testing.assert_close(value, bias.network(scalar), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(value.sum(), scalar)
    sides = []
    for step in (-1e-9, 1e-9):
        beside = (scalar + step).detach().requires_grad_()
        sides += torch.autograd.grad(bias.network(beside).sum(), beside)
    nearest = torch.minimum((slope - sides[0]).abs(), (slope - sides[1]).abs())
    assert nearest[..., :-2].max() < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_between_two_kinks_the_network_is_a_line_and_over_each_it_bends(seed):
    bias = made(seed=seed)
    ends = bias.kinks(torch.tensor(-3.0).double(), torch.tensor(3.0).double())
    assert (ends.diff() > 0).all() and ends[0] == -3 and ends[-1] == 3
    share = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    inside = bias.network((ends[:-1, None] + ends.diff()[:, None] * share)[None, None])  # (1, 1, H, P, 3)
    assert (inside[..., 0] + inside[..., 2] - 2 * inside[..., 1]).abs().max() < 1e-12 * inside.abs().max()
    slope = bias.pieces(ends)[0]
    # a unit of the first layer bends the bias only where a unit of the second is on
    assert (slope.diff().abs().max(0).values > 1e-9).float().mean() > 0.5


def test_pieces_are_hundreds_where_pairs_are_tens_of_thousands():
    torch.manual_seed(0)
    ends = PositionBias(160, 1).kinks(torch.tensor(-1.5), torch.tensor(1.5))
    assert 100 < len(ends) < 1000


def test_float32_is_as_near_to_float64_as_the_network_in_float32():
    bias = made(160, 1, scale=0.2)
    distance = distances((4, 8, 16, 64), scale=0.5).float()
    out_gradient = torch.randn(4, 8, 1, 16, 64)
    single = copy.deepcopy(bias).float()
    exact = value_and_gradients(bias, bias, distance.double(), out_gradient)
    found = value_and_gradients(single, single, distance, out_gradient)
    plain = value_and_gradients(single, lambda d: single.network(log_distance(d)), distance, out_gradient)
    for ours, theirs, wanted in zip(found, plain, exact, strict=True):
        error, of_network = ((t - wanted).norm() / wanted.norm() for t in (ours, theirs))
        assert error < 2 * of_network + 2e-6


def test_autocast_does_not_round_the_bias():
    bias, distance = made().float(), distances().float()
    exact = bias(distance)
    with torch.autocast("cpu", torch.bfloat16):
        found = bias(distance)
    assert found.dtype == torch.float32 and torch.equal(found, exact)


def test_what_is_not_finite_stays_visible():
    bias = made()
    assert bias(torch.full((1, 1, 1, 2), torch.nan, dtype=torch.float64)).isnan().all()
    torch.nn.init.constant_(bias.mlp[1][0].weight, torch.nan)
    assert bias(distances()).isnan().all()
