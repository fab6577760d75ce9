import numpy as np
import pytest
import SimpleITK as sitk

from datasets.formats import layout_of
from datasets.patches import cut_patch, voxel_of
from datasets.reading import open_volume

AIR = -1000


def oblique(degrees, axis):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    one, two = [(1, 2), (0, 2), (0, 1)][axis]
    turn[[one, one, two, two], [one, two, one, two]] = c, -s, s, c
    return turn


DIRECTIONS = {
    "straight": np.eye(3),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "from the head": np.diag([1.0, -1.0, -1.0]),
    "oblique": oblique(20, 0) @ oblique(-33, 2),
    "oblique, flipped, axes exchanged": oblique(15, 1) @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, -1]]),
}


def scan(direction, tmp_path, compress=False):
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.integers(-900, 600, (24, 36, 40)).astype(np.int16))  # z, y, x
    image.SetSpacing((0.7, 0.8, 1.6))
    image.SetOrigin((-120.5, 33.25, -71.0))
    image.SetDirection(direction.flatten())
    path = tmp_path / ("scan.mha" if compress else "scan.mhd")
    sitk.WriteImage(image, path, useCompression=compress)
    return image, path


def middle(image, shift=(0.0, 0.0, 0.0)):
    place = [size / 2 + by for size, by in zip(image.GetSize(), shift)]
    return image.TransformContinuousIndexToPhysicalPoint(place)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_point_of_the_patient_is_the_voxel_that_simpleitk_finds(name, tmp_path):
    image, path = scan(DIRECTIONS[name], tmp_path)
    affine = layout_of(path).rows_first_affine
    rng = np.random.default_rng(1)
    for _ in range(20):
        point = image.TransformContinuousIndexToPhysicalPoint((rng.random(3) * [39, 35, 23]).tolist())
        column, row, of_slice = image.TransformPhysicalPointToContinuousIndex(point)
        np.testing.assert_allclose(voxel_of(affine, point), [row, column, of_slice], atol=1e-6)
        column, row, of_slice = image.TransformPhysicalPointToIndex(point)
        assert np.array_equal(np.floor(voxel_of(affine, point) + 0.5), [row, column, of_slice])
        assert open_volume(path)[row, column, of_slice] == image.GetPixel(column, row, of_slice)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_patch_is_what_simpleitk_resamples_onto_the_axes_of_the_patient(name, compress, tmp_path):
    image, path = scan(DIRECTIONS[name], tmp_path, compress)
    point, (rows, columns, slices), spacing = middle(image, (1.3, -2.1, 0.4)), (9, 12, 6), (1.1, 0.9, 1.5)
    patch = cut_patch(open_volume(path), layout_of(path).rows_first_affine, point, (rows, columns, slices), spacing, AIR)

    grid = sitk.Image(columns, rows, slices, sitk.sitkFloat32)
    grid.SetSpacing((spacing[1], spacing[0], spacing[2]))
    grid.SetOrigin([p - s * (n - 1) / 2 for p, s, n in zip(point, grid.GetSpacing(), grid.GetSize())])
    wanted = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, AIR, sitk.sitkFloat32)
    np.testing.assert_allclose(patch, np.moveaxis(sitk.GetArrayFromImage(wanted), 0, 2), atol=0.05)


def test_beyond_the_scan_is_air(tmp_path):
    image, path = scan(DIRECTIONS["flipped"], tmp_path)
    corner = image.TransformContinuousIndexToPhysicalPoint((0, 0, 0))
    how = open_volume(path), layout_of(path).rows_first_affine
    patch = cut_patch(*how, corner, (9, 9, 5), (0.8, 0.7, 1.6), AIR)
    # rows and columns of the scan run against the patient's axes, slices along them: what is inside lies before the middle
    assert (patch[5:] == AIR).all() and (patch[:, 5:] == AIR).all() and (patch[:, :, :2] == AIR).all()
    inside = open_volume(path)[:5, :5, :3][::-1, ::-1]
    np.testing.assert_allclose(patch[:5, :5, 2:], inside, atol=0.05)
    assert (cut_patch(*how, (9e3, 0, 0), (4, 4, 4), (1, 1, 1), AIR) == AIR).all()
