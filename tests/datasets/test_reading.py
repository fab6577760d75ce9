import numpy as np
import pytest
import SimpleITK
from PIL import Image

from datasets.errors import DataError
from datasets.reading import fault_of, open_volume, read_image, volume_shape


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_medical_files_are_read_as_rows_columns_slices(tmp_path, ending):
    volume = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)  # H W C
    path = tmp_path / f"v{ending}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.moveaxis(volume, -1, 0)), str(path))
    assert np.array_equal(open_volume(path), volume)
    assert open_volume(path).dtype == np.int16
    assert volume_shape(path) == (2, 3, 4)


def test_npy_stays_on_disk_in_its_own_type(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((3, 4, 5), np.int16))
    volume = open_volume(tmp_path / "v.npy")
    assert isinstance(volume, np.memmap)
    assert volume.dtype == np.int16
    assert volume_shape(tmp_path / "v.npy") == (3, 4, 5)


@pytest.mark.parametrize(
    "array, reason",
    [
        (np.zeros((2, 2)), "H x W x C"),
        (np.zeros((2, 2, 0)), "none of them 0"),
        (np.zeros((2, 2, 2), complex), "real numbers"),
        (np.array([[[{}]]], dtype=object), "cannot be read"),
    ],
)
def test_what_is_no_volume_is_refused_with_the_reason(tmp_path, array, reason):
    np.save(tmp_path / "odd.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=rf"odd.npy.*{reason}"):
        open_volume(tmp_path / "odd.npy")


def test_damaged_files_are_refused(tmp_path):
    for name in ("a.npy", "a.nii.gz", "a.png"):
        (tmp_path / name).write_bytes(b"<html>not found</html>")
    for name, read in [("a.npy", open_volume), ("a.nii.gz", open_volume), ("a.nii.gz", volume_shape), ("a.png", read_image)]:
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            read(tmp_path / name)


def test_pictures_are_grey_in_8_and_16_bit(tmp_path):
    Image.fromarray(np.full((3, 5, 3), 100, np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray(np.full((3, 5), 40_000, np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "rgb.png").dtype == np.uint8
    assert np.array_equal(read_image(tmp_path / "rgb.png"), np.full((3, 5), 100))
    assert np.array_equal(read_image(tmp_path / "deep.png"), np.full((3, 5), 40_000))
    assert read_image(tmp_path / "deep.png").dtype == np.uint16


def test_values_that_are_no_numbers_are_refused_with_their_file(tmp_path):
    from datasets.files import Item
    from datasets.pictures import Pictures
    from datasets.volumes import VolumeDataset

    volume = np.ones((8, 8, 4), np.float32)
    volume[0, 0, 1] = np.nan
    np.save(tmp_path / "1.npy", volume)
    item = Item(tmp_path / "1.npy", "1.npy", "")
    for read in (lambda: Pictures([], [item]).read(1), lambda: VolumeDataset([item], (4, 8, 8), 0)[0, 0]):
        with pytest.raises(DataError, match=r"1\.npy holds NaN"):
            read()


@pytest.mark.parametrize("value", [1e39, -1e39, 3e38, np.nan, np.inf])
def test_the_check_finds_what_training_would_stop_at(tmp_path, value):
    from datasets.files import Item
    from datasets.volumes import VolumeDataset

    volume = np.ones((16, 16, 4))
    volume[:2, :2] = value
    np.save(tmp_path / "1.npy", volume)
    with np.errstate(all="ignore"), pytest.raises(DataError) as stopped:
        VolumeDataset([Item(tmp_path / "1.npy", "1.npy", "")], (4, 8, 8), 0)[0, 0]
    assert fault_of(tmp_path / "1.npy", is_volume=True) == str(stopped.value)


def test_large_numbers_that_float32_holds_are_no_fault(tmp_path):
    np.save(tmp_path / "1.npy", np.array([0, 2**62], np.int64).reshape(1, 1, 2))
    np.save(tmp_path / "2.npy", np.array([0, 1e30]).reshape(1, 1, 2))
    assert not fault_of(tmp_path / "1.npy", is_volume=True) and not fault_of(tmp_path / "2.npy", is_volume=True)


@pytest.mark.parametrize("depth", [3, 9])
def test_a_volume_replaced_by_one_of_another_depth_while_slices_are_counted_is_named(tmp_path, depth):
    from datasets.files import Item
    from datasets.pictures import CropDataset, Pictures
    from datasets.volumes import VolumeDataset

    np.save(tmp_path / "1.npy", np.arange(8 * 8 * 6).reshape(8, 8, 6))
    item = Item(tmp_path / "1.npy", "1.npy", "")
    crops = CropDataset(Pictures([], [item]), 0, (1,), (8,), (0.5,), (1.0,))
    volumes = VolumeDataset([item], (4, 8, 8), 0)
    assert volumes.depths() == [6] and volumes.summary()["depths"] == crops.summary()["depths"]
    np.save(tmp_path / "1.npy", np.arange(8 * 8 * depth).reshape(8, 8, depth))
    for dataset, place in [(crops, (5, 0)), (volumes, (0, 0))]:
        with pytest.raises(DataError, match=rf"1\.npy has {depth} slices, had 6 when the run began"):
            dataset[place]
    other = CropDataset(Pictures([], [item]), 0, (1,), (8,), (0.5,), (1.0,)).summary()
    assert other["names"] == crops.summary()["names"] and other["depths"] != crops.summary()["depths"]


def sparse(path, shape):
    """An NPY file that is nearly all hole: 4 KB on the disk."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + int(np.prod(shape)))


def test_a_file_of_holes_with_slices_of_gigabytes_is_refused_by_its_header(tmp_path):
    sparse(tmp_path / "1.npy", (200_000, 200_000, 8))
    for read in (open_volume, volume_shape):
        with pytest.raises(DataError, match=r"1\.npy .*200000 x 200000 pixels"):
            read(tmp_path / "1.npy")


def test_slices_that_together_are_too_large_for_the_memory_are_named_before_they_are_read(tmp_path, monkeypatch):
    from datasets.files import Item
    from datasets.volumes import VolumeDataset

    sparse(tmp_path / "1.npy", (10_000, 10_000, 500))
    monkeypatch.setattr("datasets.reading.half_of_memory", lambda: 2 * 10**9)
    with pytest.raises(DataError, match=r"1\.npy needs more memory than there is"):
        VolumeDataset([Item(tmp_path / "1.npy", "1.npy", "")], (6, 8, 8), 0)[0, 0]


def test_a_slice_that_the_memory_does_not_hold_is_named(tmp_path, monkeypatch):
    from datasets import pictures
    from datasets.files import Item

    def too_large(_):
        raise MemoryError

    np.save(tmp_path / "1.npy", np.arange(8).reshape(2, 2, 2))
    monkeypatch.setattr(pictures, "_own", too_large)
    with pytest.raises(DataError, match=r"1\.npy needs more memory than there is"):
        pictures.Pictures([], [Item(tmp_path / "1.npy", "1.npy", "")]).read(0)
