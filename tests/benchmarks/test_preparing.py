"""The loop with SimpleITK that preparing is held against."""

import numpy as np
import pytest
import SimpleITK

from benchmarks.preparing import Flags, simpleitk_loop, write_volumes


@pytest.mark.parametrize("kind", ["nii", "mha"])
def test_the_loop_saves_the_voxels_that_it_has_read(tmp_path, kind):
    write_volumes(tmp_path / "in", kind, Flags(shape=(96, 80, 24), volumes=3))
    (tmp_path / "a").mkdir()
    simpleitk_loop(tmp_path / "in", tmp_path)
    for path in (tmp_path / "in").iterdir():
        expected = np.moveaxis(SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")), 0, -1)
        assert np.array_equal(np.load(tmp_path / "a" / f"{path.name}.npy"), expected)
