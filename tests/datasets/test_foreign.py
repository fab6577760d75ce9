import io
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

from datasets.foreign import of_file, shape_in

VOLUME = np.arange(5 * 4 * 3, dtype=np.int16).reshape(5, 4, 3)


def read(path, array=""):
    (raw,) = of_file(path, "auto", array)
    assert shape_in(path, array) == raw.voxels.shape
    return raw.voxels


def write(path, **arrays):
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_the_array_of_intensities_is_found_by_name_or_by_being_the_only_one(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    assert np.array_equal(read(write(path, label=VOLUME * 0, image=VOLUME)), VOLUME)
    assert np.array_equal(read(write(path, scan=VOLUME, mask=VOLUME * 0, spacing=np.ones(3))), VOLUME)
    assert np.array_equal(read(write(path, one=VOLUME * 0, two=VOLUME), array="two"), VOLUME)
    for asked, said in [("", "2 of its arrays could be"), ("three", "no array three")]:
        with pytest.raises(ValueError, match=said):
            read(path, array=asked)


@pytest.mark.parametrize("axis, number", [("first", 0), ("last", 2), ("auto", None)])
def test_a_flag_says_along_which_axis_the_slices_of_an_array_lie(tmp_path, axis, number):
    np.save(tmp_path / "a.npy", VOLUME)
    assert of_file(tmp_path / "a.npy", axis, "")[0].slices == number


def test_an_archive_that_promises_more_than_it_holds_or_names_other_files_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i2", "fortran_order": False, "shape": (10**4, 10**4, 10**4)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", header.getvalue() + bytes(100))
    np.savez(tmp_path / "code.npz", image=np.array([[[None]]]))
    write(tmp_path / "other.h5", image=VOLUME)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["image"] = h5py.ExternalLink("other.h5", "image")
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("image", VOLUME.shape, "<i2", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    for name in ("a.npz", "code.npz", "link.h5", "outside.h5"):
        with pytest.raises(ValueError):
            of_file(tmp_path / name, "auto", "")


def test_pages_of_several_sizes_are_no_volume(tmp_path):
    pages = [Image.new("L", size, 9) for size in [(4, 5), (5, 5)]]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="several sizes"):
        of_file(tmp_path / "a.tif", "auto", "")
