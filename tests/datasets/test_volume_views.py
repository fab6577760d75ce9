import numpy as np
import pytest
import torch
from scipy import ndimage

from datasets import volume_transforms as transforms
from datasets.draws import keys
from datasets.volume_views import NAMES, choose_transforms, make_view


def batch(counts=(9, 5), size=(12, 14), seed=0):
    """Volumes, real counts, positions, steps; padded with zeros to the longest."""
    longest, generator = max(counts), torch.Generator().manual_seed(seed)
    count = torch.tensor(counts)
    volumes = torch.rand(len(counts), longest, *size, generator=generator, dtype=torch.float64)
    volumes *= (torch.arange(longest) < count[:, None])[..., None, None]
    positions = torch.arange(float(longest)).expand(len(counts), -1) * 2 + 3
    return volumes, count, positions, torch.full((len(counts),), 2.0)


def only(name, rows=2):
    chosen = np.zeros((rows, len(NAMES)), bool)
    chosen[:, NAMES.index(name)] = True
    return chosen


def viewed(data, view_keys, chosen, **how):
    volumes, count, positions, step = data
    return make_view(volumes, count.numpy(), positions.numpy(), step.numpy(), view_keys, chosen, **how)


def dense(taps, size):
    """The matrices (B, n, size) that taps stand for."""
    matrices = torch.zeros(*taps.index.shape[:2], size, dtype=taps.share.dtype)
    return matrices.scatter_add_(2, taps.index, taps.share)


def view_of(data, chosen, index=None, **how):
    index = np.arange(len(data[0])) if index is None else index
    return viewed(data, keys(31, "view", 4, index, 0), chosen, **how)


@pytest.mark.parametrize("turn_in_plane", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_view_depends_on_its_key_alone_not_on_batch_order_or_padding(name, turn_in_plane):
    counts = (9, 1, 5, 6)
    data, chosen = batch(counts), only(name, 4)
    together = view_of(data, chosen, turn_in_plane=turn_in_plane)
    for row, n in enumerate(counts):
        alone = [x[row : row + 1] for x in data]
        alone[0], alone[2] = alone[0][:, :n], alone[2][:, :n]
        view = view_of(alone, chosen[row : row + 1], np.array([row]), turn_in_plane=turn_in_plane)
        assert torch.allclose(view.pixels[0], together.pixels[row, :n], rtol=1e-10, atol=1e-12)
        assert torch.allclose(view.positions[0], together.positions[row, :n])
        assert view.step[0] == together.step[row]
    assert not together.pixels[~together.real].any()


@pytest.mark.parametrize("name", NAMES)
def test_every_transform_changes_the_view_and_another_epoch_changes_it_otherwise(name):
    data, chosen = batch(), only(name)
    views = [viewed(data, keys(31, "view", epoch, np.arange(2), 0), chosen).pixels for epoch in (0, 1)]
    assert not torch.allclose(views[0], data[0])
    if name != "flip":
        assert not torch.allclose(views[0], views[1])


def test_no_transform_is_the_volume_itself():
    data = batch()
    view = view_of(data, np.zeros((2, len(NAMES)), bool))
    assert torch.equal(view.pixels, data[0])
    assert torch.equal(view.positions, data[2] * view.real)


def test_slices_of_a_flipped_view_carry_their_sources_positions():
    volumes, count, positions, step = batch()
    view = view_of((volumes, count, positions, step), only("flip"))
    for row, n in enumerate(count.tolist()):
        for slice_ in range(n):
            source = int((view.positions[row, slice_] - 3) / 2)
            assert torch.equal(view.pixels[row, slice_], volumes[row, source])
    assert torch.equal(transforms.flip(transforms.flip(volumes, count), count), volumes)


def test_positions_of_a_scaled_view_say_where_each_slice_was_read():
    volumes, count, positions, step = batch((20, 11))
    ramp = positions[..., None, None].expand_as(volumes).double()
    view = view_of((ramp, count, positions, step), only("affine"))
    middle = view.pixels[:, :, 6, 7]
    for row, n in enumerate(count.tolist()):
        assert torch.allclose(middle[row, :n].float(), view.positions[row, :n], atol=1e-4)
        inside = view.positions[row, 1 : n - 1].diff()
        assert torch.allclose(inside[2:-2], view.step[row].expand(len(inside[2:-2])), atol=1e-4)


def test_under_one_each_view_has_a_single_transform_and_another_one():
    chosen = choose_transforms(keys(0, "transforms", 3, np.arange(500)), "one")
    assert (chosen.sum(2) == 1).all() and not (chosen[0] & chosen[1]).any()
    assert (chosen.sum(1) > 30).all()
    assert not choose_transforms(keys(0, np.arange(5)), "none").any()
    assert 2 < choose_transforms(keys(0, np.arange(500)), "compose").sum(2).mean() < 4


def test_rotation_and_scale_are_those_of_scipy_inside_the_plane():
    volumes, count, _, _ = batch((6, 6), (31, 27))
    volumes = torch.from_numpy(ndimage.gaussian_filter(volumes.numpy(), (0, 1, 2, 2)))
    scales = torch.tensor([[1.1, 0.9, 1.05], [0.95, 1.1, 0.9]]).double()
    angles = torch.deg2rad(torch.tensor([[7.0, -4.0, 9.0], [-10.0, 0.0, 0.0]]).double())
    turned = transforms.affine_in_space(volumes, count, scales, angles)
    for row in range(2):
        matrix = transforms._rotation(angles[row : row + 1])[0] @ torch.diag(1 / scales[row])
        middle = (np.array(volumes.shape[1:]) - 1) / 2
        expected = ndimage.affine_transform(
            volumes[row].numpy(), matrix.numpy(), middle - matrix.numpy() @ middle, order=1, mode="nearest"
        )
        inside = (slice(None), slice(5, -5), slice(5, -5))
        assert np.allclose(turned[row].numpy()[inside], expected[inside], atol=1e-10)
    assert torch.allclose(transforms._rotation(angles) @ transforms._rotation(angles).transpose(1, 2), torch.eye(3).double())


def test_in_plane_and_in_space_agree_where_both_apply():
    volumes, count, _, _ = batch((6, 6), (31, 27))
    scales = torch.tensor([[1.1, 0.9, 1.05]]).double().repeat(2, 1)
    angles = torch.tensor([[0.1, 0.0, 0.0], [-0.07, 0.0, 0.0]]).double()
    in_plane = transforms.affine_in_plane(volumes, count, scales, angles[:, 0])
    assert torch.allclose(in_plane, transforms.affine_in_space(volumes, count, scales, angles), atol=1e-12)


def test_blur_is_scipys_gaussian_filter_on_the_real_slices():
    volumes, count, _, _ = batch((9, 5))
    sigmas = torch.tensor([[1.5, 0.3, 2.0], [0.7, 1.1, 0.0001]]).double()
    blurred = transforms.blur(volumes, count, sigmas)
    for row, n in enumerate(count.tolist()):
        expected = volumes[row, :n].numpy()
        for axis, sigma in enumerate(sigmas[row].tolist()):
            expected = ndimage.gaussian_filter1d(expected, sigma, axis, mode="reflect", radius=8)
        assert np.allclose(blurred[row, :n], expected, atol=1e-12)


def test_the_bias_field_is_the_polynomial_written_out():
    volumes, count, _, _ = batch((7, 4))
    coefficients = torch.rand(2, 20, dtype=torch.float64) - 0.5
    biased = transforms.bias_field(volumes, count, coefficients)
    for row, n in enumerate(count.tolist()):
        z, y, x = np.meshgrid(*(np.linspace(-1, 1, m) for m in (n, 12, 14)), indexing="ij")
        terms = [(i, j, k) for i in range(4) for j in range(4) for k in range(4) if i + j + k <= 3]
        field = sum(c * z**i * y**j * x**k for c, (i, j, k) in zip(coefficients[row].tolist(), terms))
        assert np.allclose(biased[row, :n], volumes[row, :n].numpy() * np.exp(field), rtol=1e-10)


def test_anisotropy_reads_few_samples_and_keeps_what_is_constant_or_fine_enough():
    volumes, count, _, _ = batch((12, 12))
    constant = torch.ones_like(volumes)
    factor = torch.tensor([2.0, 3.5]).double()
    for axis in range(3):
        assert torch.allclose(transforms.anisotropy(constant, count, axis, factor), constant)
        assert torch.allclose(transforms.anisotropy(volumes, count, axis, torch.ones(2).double()), volumes)
    coarse = dense(transforms.coarse_taps(12, torch.tensor([12, 7]), factor), 12)
    assert (coarse[0].abs().sum(0) > 0).sum() == 6 and (coarse[1].abs().sum(0) > 0).sum() == 2
    ramp = torch.arange(12.0).double()
    assert torch.allclose((coarse[0] @ ramp)[1:-1].diff(), torch.ones(9).double(), atol=1e-9)


def test_noise_has_the_asked_deviation_and_gamma_keeps_signs():
    zeros = torch.zeros(2, 8, 40, 40)
    view = make_view(
        zeros, np.array([8, 8]), np.zeros((2, 8), np.float32), np.ones(2, np.float32), keys(0, np.arange(2)), only("noise")
    )
    stds = view.pixels.flatten(1).std(1)
    assert ((stds > 0) & (stds < 0.26)).all() and stds[0] != stds[1]
    powers = transforms.gamma(torch.tensor([-0.25, 0.25]).view(2, 1, 1, 1), torch.tensor([0.5, 2.0]))
    assert powers.flatten().tolist() == [-0.5, 0.0625]
