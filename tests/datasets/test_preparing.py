import io
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from datasets.errors import DataError
from datasets.foreign import Raw
from datasets.geometry import spacing_of
from datasets.preparing import as_picture, body_of, compacted, hung, prepare, resampled, with_numbers, write_npy

AFFINE = np.array([[0, 0.8, 0, 5.0], [0.8, 0, 0, -7.0], [0, 0, 2.5, 11.0], [0, 0, 0, 1]])  # rows to the back, columns left


def smooth(shape=(20, 24, 10), seed=0) -> np.ndarray:
    grid = np.mgrid[tuple(slice(0, 3, complex(0, n)) for n in shape)]
    return (np.sin(grid[0] + seed) * np.cos(grid[1]) * np.sin(2 * grid[2]) * 500).astype(np.float32)


whole = arrays.arrays(
    st.sampled_from([np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64]),
    (3, 4, 2),
    elements=st.integers(0, 100),
)


@given(whole, st.integers(-2000, 30000))
@settings(deadline=None)
def test_whole_numbers_of_16_bits_are_kept_in_the_smallest_type(voxels, shift):
    values = voxels.astype(np.int64) + shift
    stored, scale, offset, clipped = compacted(Raw(values))
    assert np.array_equal(stored, values) and (scale, offset, clipped) == (1, 0, 0)
    types = [t for t in (np.uint8, np.int16, np.uint16) if np.iinfo(t).min <= values.min() and values.max() <= np.iinfo(t).max]
    assert stored.dtype == types[0]


@given(
    arrays.arrays(np.float32, (4, 3, 5), elements=st.floats(-1e6, 1e6, width=32)), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3)
)
@settings(deadline=None)
def test_other_numbers_come_back_to_half_a_level(voxels, slope, intercept):
    stored, scale, offset, clipped = compacted(Raw(voxels, slope, intercept))
    values = voxels.astype(np.float64) * slope + intercept
    if not clipped:
        error = np.abs(stored.astype(np.float64) * scale + offset - values).max()
        assert error <= abs(scale) / 2 + 1e-6 * np.abs(values).max()
    assert stored.dtype in (np.uint8, np.int16, np.uint16)


def test_rescaling_by_whole_numbers_is_applied_and_by_others_is_kept_beside():
    voxels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    stored, scale, offset, _ = compacted(Raw(voxels, 1, -1024))
    assert np.array_equal(stored, voxels.astype(int) - 1024) and (scale, offset) == (1, 0)
    stored, scale, offset, _ = compacted(Raw(voxels, 0.37, -3.0))
    assert np.array_equal(stored, voxels) and (scale, offset) == (0.37, -3.0)


def test_a_wild_value_does_not_take_all_levels_and_is_counted():
    voxels = smooth((40, 40, 40)) / 7
    voxels[1, 2, 3] = 1e9
    stored, scale, offset, clipped = compacted(Raw(voxels))
    assert clipped == 1 and scale < 0.01
    mild = voxels < 1e6
    assert np.abs(stored * scale + offset - voxels)[mild].max() <= scale / 2 + 1e-4


def test_a_spacing_that_gets_finer_is_interpolated_as_simpleitk_does():
    voxels = smooth()
    got = resampled(Raw(voxels, affine=AFFINE), (0.4, 0.4, 1.25))
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 0, 1)))
    image.SetSpacing((0.8, 0.8, 2.5))
    image.SetOrigin((5.0, -7.0, 11.0))
    grid = SimpleITK.Image([48, 40, 20], SimpleITK.sitkFloat32)
    grid.SetSpacing(spacing_of(got.affine)[[1, 0, 2]].tolist())
    grid.SetOrigin(got.affine[:3, 3].tolist())
    expected = SimpleITK.GetArrayFromImage(SimpleITK.Resample(image, grid)).transpose(1, 2, 0)
    inner = np.s_[2:-2, 2:-2, 2:-2]  # SimpleITK has nothing beyond the centres of the outermost voxels
    assert got.voxels.shape == (40, 48, 20)
    assert np.abs(got.voxels - expected)[inner].max() < 1e-3 * np.abs(voxels).max()


def test_a_spacing_that_gets_coarser_keeps_the_mean_and_the_place():
    voxels = np.random.default_rng(0).normal(size=(32, 32, 16)).astype(np.float32)
    got = resampled(Raw(voxels, affine=AFFINE), (3.2, 3.2, 5.0))
    assert got.voxels.shape == (8, 8, 8) and got.voxels.std() < 0.3  # averaged, not picked
    assert got.voxels.mean() == pytest.approx(voxels.mean(), abs=0.02)
    assert np.allclose(got.affine @ [-0.5, -0.5, -0.5, 1], AFFINE @ [-0.5, -0.5, -0.5, 1])


def test_slices_that_are_missing_are_interpolated_when_slices_are_resampled():
    ramp = np.broadcast_to(np.array([0, 1, 2, 5, 6], np.float32) * 10, (6, 6, 5))
    raw = Raw(ramp, affine=AFFINE, slices=2, positions=np.array([0, 1, 2, 5, 6]) * 2.5)
    got = resampled(raw, (0, 0, 2.5))
    assert np.allclose(got.voxels[0, 0], np.arange(7) * 10) and got.positions is None


def test_positions_of_slices_turn_with_them():
    raw = Raw(smooth((6, 6, 4)), affine=AFFINE @ np.diag([1, 1, -1, 1]), slices=2, positions=np.array([0, 1, 2, 5.0]))
    assert hung(raw).positions.tolist() == [0, 3, 4, 5]


def test_a_body_is_found_without_the_table_under_it():
    voxels = np.full((64, 64, 20), -1000, np.int16)
    voxels[16:40, 20:44] = 30
    voxels[52:54] = 200  # a table
    got = body_of(Raw(voxels, affine=AFFINE))
    assert got.voxels.shape == (32, 32, 20)
    assert np.allclose(got.affine @ [0, 0, 0, 1], AFFINE @ [12, 16, 0, 1])


def test_volumes_from_which_nothing_can_be_learned_are_refused():
    for value, said in [(np.nan, "NaN"), (np.inf, "infinite")]:
        voxels = smooth()
        voxels[0, 0, 0] = value
        with pytest.raises(DataError, match=said):
            with_numbers(Raw(voxels), replace_nan=False)
        assert np.isfinite(with_numbers(Raw(voxels), replace_nan=True).voxels).all()
    with pytest.raises(DataError, match="same value, 3"):
        with_numbers(Raw(np.full((3, 3, 3), 3)), replace_nan=False)
    with pytest.raises(DataError, match="no number at all"):
        with_numbers(Raw(np.full((3, 3, 3), np.nan)), replace_nan=True)
    with pytest.raises(DataError, match="tells no spacing"):
        prepare(Raw(smooth()), spacing=(1, 1, 1))
    with pytest.raises(DataError, match="one side of the window"):
        prepare(Raw(smooth()), window=(2000, 3000))


@given(arrays.arrays(st.sampled_from([np.uint8, np.int16, np.uint16]), st.tuples(*[st.integers(1, 6)] * 3)))
@settings(deadline=None)
def test_files_hold_what_was_written_slice_by_slice(voxels):
    file = io.BytesIO()
    write_npy(file, voxels)
    file.seek(0)
    read = np.load(file)
    assert np.array_equal(read, voxels) and read.dtype == voxels.dtype and read.flags.f_contiguous


def test_pictures_are_black_and_white_at_the_ends_of_the_range():
    assert as_picture(np.array([[-5, 0], [50, 999]]), 0, 100).tolist() == [[0, 0], [128, 255]]


def test_arrays_whose_slices_come_first_are_turned():
    raw = Raw(smooth((7, 8, 9)), slices=0, spacing=(3.0, 1.0, 2.0))
    assert hung(raw).voxels.shape == (8, 9, 7) and hung(raw).spacing == (1.0, 2.0, 3.0)
    assert hung(replace(raw, slices=None)).voxels.shape == (7, 8, 9)
