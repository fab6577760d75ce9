"""Each of the seven transforms beside TorchIO's, with the same parameters; (slices, rows, columns) are its axes (X, Y, Z)."""

import numpy as np
import pytest
import torch
import torchio as tio
from scipy import stats

from datasets import volume_transforms as transforms
from datasets import volume_views

SIZE = (21, 18, 24)


def volume(size=SIZE, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed)) - 0.3


def theirs(transform, of):
    return transform(of[None].clone())[0].double()


def ours(function, of, *parameters, padding=3):
    """`function` on a batch of the volume and, behind padding, a shorter one; the volume's part is returned."""
    batch = torch.zeros(2, len(of) + padding, *of.shape[1:], dtype=torch.float64)
    batch[0, : len(of)], batch[1, :2] = of, 9.0
    parameters = [p if type(p) is int else torch.tensor([p, p], dtype=torch.float64) for p in parameters]
    counted = [] if function is transforms.gamma else [torch.tensor([len(of), 2])]
    return function(batch, *counted, *parameters)[0, : len(of)]


def test_flip_is_torchios_along_the_slices():
    assert torch.equal(ours(transforms.flip, volume()), theirs(tio.Flip(axes=0), volume()))


TURNS = [
    ((1.1, 1.0, 1.0), (0.0, 0.0, 0.0)),
    ((0.93, 1.1, 0.9), (10.0, 0.0, 0.0)),
    ((1.07, 0.9, 1.1), (-7.0, 0.0, 0.0)),
    ((1.0, 1.0, 1.0), (0.0, 9.0, 0.0)),
    ((1.0, 1.0, 1.0), (0.0, 0.0, 9.0)),
    ((1.1, 0.9, 0.95), (8.0, -10.0, 6.0)),
    ((0.9, 1.05, 1.1), (-10.0, 7.0, 10.0)),
]


@pytest.mark.parametrize("scales, degrees", TURNS)
def test_affine_is_torchios_but_repeats_the_end_slices_where_torchio_has_the_minimum(scales, degrees):
    of, how = volume(), {"scales": scales, "degrees": degrees, "translation": (0, 0, 0)}
    angles, expected = np.radians(degrees).tolist(), theirs(tio.Affine(**how), of)
    result = ours(transforms.affine_in_space, of, scales, angles)
    if not any(degrees[1:]):
        in_plane = ours(transforms.affine_in_plane, of, scales, angles[0])
        torch.testing.assert_close(in_plane, result, rtol=0, atol=1e-12)
    beyond = theirs(tio.Affine(**how, default_pad_value=100.0), of) == 100
    assert beyond.double().mean() < 0.35
    torch.testing.assert_close(result[~beyond], expected[~beyond], rtol=0, atol=1e-6)
    # with its end slices repeated beforehand, TorchIO's is ours everywhere
    ends = [of[:1].expand(8, -1, -1), of[-1:].expand(8, -1, -1)]
    expected = theirs(tio.Affine(**how), torch.cat([ends[0], of, ends[1]]))[8:-8]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("factor", [1.5, 1.57, 2.0, 2.35, 3.1, 4.0, 4.7])
def test_anisotropy_is_torchios_but_repeats_the_ends_where_torchio_has_zeros(axis, factor):
    # an odd number of samples of an even length has a sample between two items: rounding decides
    size = [n - (n - int(n / factor)) % 2 for n in SIZE] if factor in (2.35, 3.1, 4.7) else list(SIZE)
    if factor == 2.0:
        size = [20, 16, 24]
    of = volume(size)
    n, number = size[axis], np.arange(size[axis])
    lost = (n - int(n / factor) * factor) / 2
    inside = torch.from_numpy((number > lost - 0.5 - 1e-6) & (number < n - 0.5 - lost - 1e-6))
    result = ours(transforms.anisotropy, of, axis, factor).movedim(axis, 0)
    expected = theirs(tio.RandomAnisotropy(axes=axis, downsampling=(factor, factor)), of).movedim(axis, 0)
    assert (~inside).sum() <= factor
    torch.testing.assert_close(result[inside], expected[inside], rtol=0, atol=1e-6)
    assert not expected[~inside].any() and (result[~inside] != 0).all()


def test_noise_has_the_distribution_of_torchios():
    zeros = torch.zeros(1, 30, 40, 40)
    generator = torch.Generator().manual_seed(0)
    mine = transforms.noise(zeros, [30], torch.tensor([0.2]), [generator])[0].flatten()
    expected = theirs(tio.Noise(mean=0, std=0.2, seed=0), zeros[0]).flatten()
    assert stats.ks_2samp(mine, expected).pvalue > 0.01
    assert mine.std().item() == pytest.approx(expected.std().item(), rel=0.01) and abs(mine.mean()) < 0.003


@pytest.mark.parametrize("sigmas", [(2.0, 2.0, 2.0), (1.9, 1.95, 2.0)])
def test_blur_is_torchios_at_the_widest(sigmas):
    result, expected = ours(transforms.blur, volume(), sigmas), theirs(tio.Blur(sigmas), volume())
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigmas", [(0.3, 1.1, 1.7), (0.0, 0.6, 0.9), (1.4, 0.1, 0.0)])
def test_blur_keeps_the_tails_that_torchio_cuts_at_four_deviations(sigmas):
    result, expected = ours(transforms.blur, volume(), sigmas), theirs(tio.Blur(sigmas), volume())
    torch.testing.assert_close(result, expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize("size", [SIZE, (7, 10, 5), (1, 8, 9)])
def test_bias_field_is_torchios_with_the_coefficients_in_its_order(size):
    of = volume(size)
    coefficients = (torch.rand(20, generator=torch.Generator().manual_seed(1)) - 0.5).tolist()
    result = ours(transforms.bias_field, of, coefficients)
    torch.testing.assert_close(result, theirs(tio.BiasField(coefficients, order=3), of), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lowest", [0.0, -0.3])
@pytest.mark.parametrize("exponent", [np.exp(-0.3), 1.0, np.exp(0.3)])
def test_gamma_is_torchios_with_negative_intensities_and_without(exponent, lowest):
    of = volume() + 0.3 + lowest
    torch.testing.assert_close(ours(transforms.gamma, of, exponent), theirs(tio.Gamma(exponent), of), rtol=1e-6, atol=1e-6)


def test_parameters_are_drawn_from_torchios_default_ranges():
    flip, affine, anisotropy = tio.RandomFlip(), tio.RandomAffine(), tio.RandomAnisotropy()
    assert (flip.axes, flip.flip_probability) == ((0,), 0.5)
    assert affine.scales == volume_views.SCALES * 3 and affine.degrees == volume_views.ANGLES * 3
    assert not any(affine.translation) and not affine.isotropic and affine.center == "image"
    assert (affine.default_pad_value, affine.image_interpolation) == ("minimum", "linear")
    assert (anisotropy.axes, anisotropy.downsampling_range) == ((0, 1, 2), volume_views.FACTORS)
    noise, bias_field = tio.RandomNoise(), tio.RandomBiasField()
    assert (noise.mean_range, noise.std_range) == ((0, 0), volume_views.DEVIATIONS)
    assert tio.RandomBlur().std_ranges == volume_views.SIGMAS * 3
    assert (bias_field.coefficients_range, bias_field.order) == (volume_views.COEFFICIENTS, 3)
    assert tio.RandomGamma().log_gamma_range == volume_views.LOG_GAMMAS
    assert volume_views.SIGMAS[1] == transforms.LARGEST_BLUR
