"""Our attention beside the library `deformable-attention`: outputs, gradients of the input and of every parameter."""

import deformable_attention.deformable_attention_1d as library
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attention import DeformableAttention


@pytest.fixture(autouse=True)
def float64_grid():
    """The library builds its grid of whole numbers and makes it floating point by the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sample_as_in_0_0_18(feats, grid, **how):
    """0.0.18 gives the position to the other coordinate, that of a picture's one column; the place is always the middle."""
    grid = torch.nn.functional.pad(grid[..., None, None], (0, 1))  # (p, 0): p runs across the one column
    return torch.nn.functional.grid_sample(feats[..., None], grid, **how)[..., 0]


def both(sampling, dim, heads, head_dim, groups, items, batch, seed, offset_scale=2.0):
    """{what: (ours, theirs)} for the output and all gradients, with the same weights and input."""
    torch.manual_seed(seed)
    theirs = library.DeformableAttention1D(
        dim=dim, dim_head=head_dim, heads=heads, dropout=0.0, downsample_factor=4, offset_scale=offset_scale,
        offset_groups=groups, offset_kernel_size=6,
    )  # fmt: skip
    for parameter in theirs.parameters():  # wide enough that offsets are large and positions fall outside
        torch.nn.init.normal_(parameter, std=0.5)
    ours = DeformableAttention(dim, heads, head_dim, groups, offset_scale=offset_scale, sampling=sampling, least_keys=1)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(batch, dim, items, requires_grad=True)
    y = x.detach().transpose(1, 2).clone().requires_grad_()
    weights = torch.randn(batch, dim, items)
    expected, result = theirs(x), ours(y).transpose(1, 2)
    (expected * weights).sum().backward()
    (result * weights).sum().backward()
    pairs = {"output": (result, expected), "input": (y.grad.transpose(1, 2), x.grad)}
    of_theirs = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        zeros = torch.zeros_like(parameter)
        pairs[name] = tuple(zeros if p.grad is None else p.grad for p in (parameter, of_theirs[name]))
    return pairs


def assert_same(pairs):
    for name, (ours, theirs) in pairs.items():
        torch.testing.assert_close(
            ours, theirs, rtol=1e-9, atol=1e-9 * (1 + theirs.abs().max().item()), msg=lambda m, n=name: f"{n}: {m}"
        )


@st.composite
def shapes(draw, even=False):
    groups, per_group, head_dim = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 2)), draw(st.sampled_from([3, 8]))
    items = draw(st.integers(4, 40))
    return {
        "dim": groups * draw(st.sampled_from([4, 8])),
        "heads": groups * per_group,
        "head_dim": head_dim,
        "groups": groups,
        "items": items + items % 2 if even else items,
        "batch": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 999)),
    }


@settings(max_examples=40, deadline=None)
@given(shapes(), st.sampled_from([1.0, 2.0, 4.0]))
def test_da020_is_the_librarys_for_any_dims_heads_groups_and_lengths(shape, offset_scale):
    assert_same(both("da020", **shape, offset_scale=offset_scale))


@settings(max_examples=40, deadline=None)
@given(shapes())
def test_da018_is_the_library_with_the_sampler_of_0_0_18(shape):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "grid_sample_1d", sample_as_in_0_0_18)
        assert_same(both("da018", **shape))


@pytest.mark.parametrize("dim, items", [(64, 16), (16, 64)])
@pytest.mark.parametrize("sampling", ["da018", "da020"])
def test_both_orientations_of_a_volume_are_the_librarys(monkeypatch, sampling, dim, items):
    """Slices as items, features as channels; and the other way round, as published."""
    if sampling == "da018":
        monkeypatch.setattr(library, "grid_sample_1d", sample_as_in_0_0_18)
    assert_same(both(sampling, dim, 8, 8, None, items, 2, seed=5))


def test_short_sequences_have_four_keys_where_the_library_has_fewer():
    """The departure: `least_keys` is 4; for 4 … 18 slices the library has 1 … 4 keys."""
    attention = DeformableAttention(8, 2, 4)
    library_attention = library.DeformableAttention1D(dim=8, heads=2, dim_head=4, downsample_factor=4)
    for items in range(4, 19):
        x = torch.randn(1, 8, items)
        keys = library_attention.to_offsets(library_attention.to_q(x).unflatten(1, (2, 4)).flatten(0, 1)).shape[-1]
        assert attention.attend(x.transpose(1, 2))[1].shape[-1] == max(4, keys) and keys == (items - 4) // 4 + 1
