import numpy as np
import pytest
import torch
import torchio
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.fit import fit_volume, mean_and_deviation, robust_range, slice_positions


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**31))
def test_any_size_fits(height, width, depth, seed):
    rng = np.random.default_rng(seed)
    volume = rng.integers(-1000, 1000, (height, width, depth)).astype(np.int16)
    fitted = fit_volume(volume, (8, 16, 24), rng.random(3))
    assert fitted.slices.shape == (min(depth, 8), 16, 24)
    assert fitted.slices.dtype == torch.int16
    assert np.all(np.diff(fitted.positions) >= 1) and 0 <= fitted.positions[0] and fitted.positions[-1] < depth
    assert volume.min() <= fitted.slices.min() and fitted.slices.max() <= volume.max()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**31))
def test_crop_is_the_crop_or_pad_of_torchio(height, width, depth, seed):
    volume = np.random.default_rng(seed).integers(-1000, 1000, (height, width, depth)).astype(np.int16)
    fitted = fit_volume(volume, (8, 16, 24), None, "crop")
    slices_first = torch.from_numpy(np.ascontiguousarray(volume.transpose(2, 0, 1)))[None]
    assert torch.equal(fitted.slices, torchio.CropOrPad((8, 16, 24))(slices_first)[0])
    inside = (fitted.positions >= 0) & (fitted.positions < depth)
    assert np.all(np.diff(fitted.positions) == 1) and inside.sum() == min(depth, 8)


def test_a_large_ct_keeps_its_whole_body():
    volume = np.zeros((512, 512, 300), np.int16)
    volume[:8, :8], volume[-8:, -8:] = 1000, 2000  # markers at two corners of every slice
    volume[..., :6] += 300
    volume[..., -6:] += 300
    fitted = fit_volume(volume, (64, 128, 128), None)
    assert fitted.shrink == 4
    assert (fitted.slices[:, 0, 0] >= 1000).all() and (fitted.slices[:, -1, -1] >= 2000).all()
    assert (fitted.slices[0] >= 300).all() and (fitted.slices[-1] >= 300).all()
    assert fitted.step == pytest.approx(300 / 64)


def test_shrinking_is_the_average_of_the_pixels_it_covers():
    volume = np.random.default_rng(0).random((32, 48, 3)).astype(np.float32)
    fitted = fit_volume(volume, (3, 16, 24), None)
    expected = volume.reshape(16, 2, 24, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.allclose(fitted.slices.numpy(), expected, atol=1e-6)


def test_a_small_plane_is_padded_with_its_minimum():
    volume = np.full((4, 4, 2), 7, np.uint8)
    volume[0, 0] = 3
    fitted = fit_volume(volume, (4, 8, 8), None)
    assert fitted.slices.shape == (2, 8, 8)
    assert fitted.slices[:, 0, 0].tolist() == [3, 3]
    assert np.array_equal(fitted.slices[0, 2:6, 2:6].numpy(), volume[..., 0])


def test_crop_takes_the_middle_whatever_is_drawn():
    volume = np.arange(10 * 10 * 10).reshape(10, 10, 10).astype(np.int16)
    fitted = fit_volume(volume, (4, 4, 4), np.array([0.9, 0.9, 0.9]), fit="crop")
    assert np.array_equal(fitted.slices.numpy(), volume[3:7, 3:7, 3:7].transpose(2, 0, 1))


def test_positions_are_the_slices_that_were_taken():
    volume = np.broadcast_to(np.arange(200, dtype=np.uint8), (4, 4, 200))
    for target, place in [(64, 0.0), (64, 0.99), (150, 0.5), (256, 0.3)]:
        fitted = fit_volume(volume, (target, 4, 4), np.array([place, 0, 0]))
        assert np.array_equal(fitted.slices[:, 0, 0].numpy(), fitted.positions)


def test_sampled_slices_span_the_volume():
    positions, step = slice_positions(600, 64, 0.5)
    assert len(positions) == 64 and step == 600 / 64
    assert positions[0] < step and positions[-1] >= 600 - step


@pytest.mark.parametrize(
    "dtype, kept",
    [("uint8", "uint8"), ("uint16", "uint16"), (">i2", "int16"), ("f8", "float32"), ("i4", "float32"), (bool, "uint8")],
)
def test_types_stay_compact(dtype, kept):
    assert str(fit_volume(np.ones((6, 6, 6), dtype), (4, 8, 4), None).slices.dtype) == f"torch.{kept}"


def test_a_constant_volume_has_a_range():
    assert robust_range(np.full(10, 5)) == (5, 6)
    assert mean_and_deviation(np.full(10, 5), 5, 6) == (0, 0.01)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200_000), st.integers(0, 2**31))
def test_mean_and_deviation_are_those_of_a_scaled_and_clipped_volume(count, seed):
    pixels = np.random.default_rng(seed).normal(50, 200, count).astype(np.int16)
    low, high = robust_range(pixels)
    whole = np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1)
    mean, deviation = mean_and_deviation(pixels, low, high)
    within = 0 if count <= 65536 else 0.02
    assert abs(mean - whole.mean()) <= within + 1e-12 and abs(deviation - max(whole.std(), 0.01)) <= within + 1e-12
