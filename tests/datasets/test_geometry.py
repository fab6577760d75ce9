import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from datasets.formats import layout_of
from datasets.geometry import cropped, hang, orientation_of, rescaled, slice_axis, spacing_of

SHAPE = (5, 7, 6)  # columns, rows, slices


def affine_of(turn=(0, 0, 0), spacing=(0.8, 0.8, 3.0), origin=(10.0, -20.0, 30.0)) -> np.ndarray:
    """(column, row, slice) → mm."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * spacing
    affine[:3, 3] = origin
    return affine


def image_of(affine: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.arange(5 * 7 * 6, dtype=np.int16).reshape(SHAPE[::-1]))
    spacing = spacing_of(affine)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def close_to_simpleitk(path, tolerance=1e-4) -> None:
    image, affine = SimpleITK.ReadImage(str(path)), layout_of(path).affine
    for index in [(0, 0, 0), (4, 0, 0), (0, 6, 0), (0, 0, 5), (4, 6, 5)]:
        expected = image.TransformIndexToPhysicalPoint(index)
        assert np.abs((affine @ [*index, 1])[:3] - expected).max() < tolerance


@pytest.mark.parametrize("turn", [(0, 0, 0), (0, 0, 180), (90, 0, 0), (12, -25, 33)])
@pytest.mark.parametrize("ending", ["nii", "nii.gz", "mha", "mhd", "nrrd"])
def test_voxels_lie_where_simpleitk_puts_them(tmp_path, turn, ending):
    path = tmp_path / f"a.{ending}"
    SimpleITK.WriteImage(image_of(affine_of(turn)), str(path))
    close_to_simpleitk(path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (1, 1)])
def test_nifti_is_placed_by_its_sform_or_else_its_qform(tmp_path, kind, codes):
    ras = np.diag([-1, -1, 1, 1]) @ affine_of((12, -25, 33)) @ np.diag([-1, 1, 1, 1])  # a quaternion's fourth sign
    image = kind(np.zeros(SHAPE, np.int16), None)
    image.header.set_sform(ras if codes[1] else np.eye(4), codes[1])
    image.header.set_qform(ras if codes[0] else np.eye(4), codes[0])
    nibabel.save(image, tmp_path / "a.nii")
    expected = np.diag([-1, -1, 1, 1]) @ nibabel.load(tmp_path / "a.nii").affine
    assert np.abs(layout_of(tmp_path / "a.nii").affine - expected).max() < 1e-4


def test_a_half_turn_of_a_qform_is_exact_and_units_count(tmp_path):
    ras = np.diag([-1, -1, 1, 1]) @ affine_of((0, 0, 180), (0.5, 0.5, 3)) @ np.diag([-1, 1, 1, 1])
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    image.header.set_qform(ras, 1)
    image.header.set_sform(np.zeros((4, 4)), 1)  # says that it counts, and is none
    nibabel.save(image, tmp_path / "a.nii")
    expected = np.diag([-1, -1, 1, 1]) @ image.header.get_qform()
    assert np.abs((layout_of(tmp_path / "a.nii").affine - expected) @ [512, 512, 150, 1]).max() < 1e-3
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    assert np.allclose(layout_of(tmp_path / "a.nii").affine[:3] * 1000, expected[:3], atol=1e-4)


def test_nrrd_says_which_way_its_axes_point(tmp_path):
    header = (
        "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspace: {}\n"
        "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (1,2,3)\n\n"
    )
    for space, signs in [("left-posterior-superior", (1, 1, 1)), ("RAS", (-1, -1, 1)), ("LAS", (1, -1, 1))]:
        (tmp_path / "a.nrrd").write_bytes(header.format(space).encode() + bytes(8))
        affine = layout_of(tmp_path / "a.nrrd").affine
        assert np.allclose(affine[:3], np.diag(signs) @ [[2, 0, 0, 1], [0, 3, 0, 2], [0, 0, 4, 3]])


@given(
    turn=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
    last=st.sampled_from([0, 1, 2]),
)
@settings(deadline=None)
def test_every_voxel_of_a_hung_array_stays_where_it_was(turn, spacing, last):
    affine, voxels = affine_of(turn, spacing), np.arange(5 * 7 * 6).reshape(SHAPE)
    axes, flipped, new = hang(affine, SHAPE, last)
    hung = voxels.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)]
    assert axes[2] == last and hung.size == voxels.size
    for index in [(0, 0, 0), tuple(np.subtract(hung.shape, 1)), (1, 2, 3)]:
        before = np.unravel_index(hung[index], SHAPE)
        assert np.allclose(affine @ [*before, 1], new @ [*index, 1], atol=1e-9)


def test_slices_hang_with_the_front_or_the_head_above():
    for start, last, expected in [
        ((0, 0, 0), 2, "PLS"),
        ((0, 0, 180), 2, "PLS"),
        ((90, 0, 0), 2, "ILP"),
        ((0, 90, 0), 2, "IPL"),
    ]:
        _, _, hung = hang(affine_of(start), SHAPE, last)
        assert orientation_of(hung) == expected


@pytest.mark.parametrize("spacing, axis", [((1, 1, 5), 2), ((5, 1, 1), 0), ((1, 0.5, 1), 1), ((1, 1, 1), 2), ((1, 2, 3), 2)])
def test_slices_run_along_the_axis_whose_spacing_is_unlike_the_others(spacing, axis):
    assert slice_axis(affine_of(spacing=spacing), SHAPE) == axis


def test_what_is_cropped_or_rescaled_keeps_its_place():
    affine = affine_of((10, 20, 30))
    assert np.allclose(cropped(affine, (1, 2, 3)) @ [0, 0, 0, 1], affine @ [1, 2, 3, 1])
    half = rescaled(affine, (0.5, 0.5, 0.5))  # twice as many voxels; the corner of the first one is where it was
    assert np.allclose(half @ [-0.5, -0.5, -0.5, 1], affine @ [-0.5, -0.5, -0.5, 1])
    assert np.allclose(spacing_of(half), spacing_of(affine) / 2)
