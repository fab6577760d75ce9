import locale
import random
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import RLELossless, generate_uid

from benchmarks import fuzz_files
from datasets.dicom import images_of, pixels_of, same_locale, stacks_of
from datasets.errors import DataError
from tests.dicom_series import write_series

GEOMETRY = ("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
AFFINE = np.array([[0, 0.8, 0, 5.0], [0.8, 0, 0, -7.0], [0, 0, 2.5, 11.0], [0, 0, 0, 1]])


def voxels_of(seed=0, shape=(14, 12, 6)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-900, 900, shape).astype(np.int16)


def stacks(folder):
    return stacks_of(image for path in sorted(folder.rglob("*")) if path.is_file() for image in images_of(path))


@pytest.mark.parametrize("turned", [False, True])
def test_a_series_is_put_in_order_by_its_places_as_simpleitk_does(tmp_path, turned):
    affine = AFFINE @ np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]) if turned else AFFINE
    write_series(tmp_path, voxels_of(), affine, order=[3, 0, 5, 1, 4, 2], slope=2, intercept=-1000)
    (stack,), alone, faults = stacks(tmp_path)
    pixels, slope, intercept = pixels_of(stack.images)
    reader = SimpleITK.ImageSeriesReader()
    with same_locale():
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
        image = reader.Execute()
    expected = SimpleITK.GetArrayFromImage(image).transpose(1, 2, 0)
    assert np.array_equal(pixels * slope + intercept, expected) and not alone and not faults
    for row, column, slice_ in [(0, 0, 0), (13, 11, 5)]:
        place = image.TransformIndexToPhysicalPoint((column, row, slice_))
        assert np.allclose((stack.affine @ [row, column, slice_, 1])[:3], place, atol=1e-4)


@pytest.mark.parametrize("kind", ["rle", "j2k"])
def test_compressed_pixels_are_those_that_were_compressed(tmp_path, kind):
    write_series(tmp_path, voxels_of(), AFFINE)
    for path in tmp_path.iterdir():
        if kind == "rle":
            header = pydicom.dcmread(path)
            header.compress(RLELossless)
            header.save_as(path)
        else:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            with same_locale():
                reader, writer = SimpleITK.ImageFileReader(), SimpleITK.ImageFileWriter()
                reader.SetFileName(str(path))
                writer.SetFileName(str(path) + ".dcm")
                writer.KeepOriginalImageUIDOn()
                writer.UseCompressionOn()
                writer.Execute(reader.Execute())
            written = pydicom.dcmread(str(path) + ".dcm")
            for name in GEOMETRY:
                setattr(written, name, header[name].value)
            written.save_as(path)
            (tmp_path / (path.name + ".dcm")).unlink()
    assert pydicom.dcmread(next(tmp_path.iterdir())).file_meta.TransferSyntaxUID.is_compressed
    before = locale.setlocale(locale.LC_ALL)
    (stack,), _, _ = stacks(tmp_path)
    pixels, slope, intercept = pixels_of(stack.images)
    assert np.array_equal(pixels * slope + intercept, voxels_of())
    assert locale.setlocale(locale.LC_ALL) == before


def test_slices_whose_slopes_differ_are_applied_and_slices_follow_one_another_in_memory(tmp_path):
    write_series(tmp_path, voxels_of(), AFFINE)
    (stack,), _, _ = stacks(tmp_path)
    alike, _, _ = pixels_of(stack.images)
    scaled = [replace(image, slope=1.0 + number) for number, image in enumerate(stack.images)]
    applied, slope, intercept = pixels_of(scaled)
    assert np.array_equal(applied, alike * np.arange(1.0, 1 + len(scaled))) and (slope, intercept) == (1, 0)
    assert all(np.moveaxis(pixels, 2, 0).flags.c_contiguous for pixels in (alike, applied))


def test_series_in_one_folder_are_told_apart_and_twins_counted_once(tmp_path):
    write_series(tmp_path, voxels_of(0), AFFINE, name="a{}")
    write_series(tmp_path, voxels_of(1), AFFINE, name="b{}")
    (tmp_path / "again").mkdir()
    (tmp_path / "again/a0").write_bytes((tmp_path / "a0").read_bytes())
    found, _, faults = stacks(tmp_path)
    assert [len(stack.images) for stack in found] == [6, 6] and not faults


def test_moments_of_one_series_become_volumes_of_their_own(tmp_path):
    series = generate_uid()
    for time in (2, 1):
        write_series(tmp_path, voxels_of(time), AFFINE, series=series, name=f"{time}_{{}}", TemporalPositionIdentifier=time)
    found, _, _ = stacks(tmp_path)
    assert [np.array_equal(pixels_of(stack.images)[0], voxels_of(time)) for stack, time in zip(found, (1, 2))] == [True, True]


def test_frames_of_one_file_are_slices(tmp_path):
    write_series(tmp_path, voxels_of(), AFFINE)
    header = pydicom.dcmread(tmp_path / "IM0000")
    header.NumberOfFrames, header.PixelData = 6, np.moveaxis(voxels_of(), 2, 0).tobytes()
    header.PerFrameFunctionalGroupsSequence = []
    for place in range(6):
        group, position = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = [float(x) for x in (AFFINE @ [0, 0, place, 1])[:3]]
        group.PlanePositionSequence = [position]
        header.PerFrameFunctionalGroupsSequence.append(group)
    del header.ImagePositionPatient
    for path in tmp_path.iterdir():
        path.unlink()
    header.save_as(tmp_path / "a")
    (stack,), _, _ = stacks(tmp_path)
    assert np.array_equal(pixels_of(stack.images)[0], voxels_of()) and np.allclose(stack.affine, AFFINE)


def test_a_gap_a_tilt_and_uneven_slices_are_told(tmp_path):
    write_series(tmp_path / "gap", voxels_of(), AFFINE, order=[0, 1, 3, 4, 5])
    tilted = AFFINE.copy()
    tilted[1, 2] = 0.4
    write_series(tmp_path / "tilt", voxels_of(), tilted)
    write_series(tmp_path / "uneven", voxels_of(), AFFINE)
    path = tmp_path / "uneven/IM0003"
    header = pydicom.dcmread(path)
    header.ImagePositionPatient = [5.0, -7.0, 11 + 3 * 2.5 + 0.9]
    header.save_as(path)
    notes = {name: stacks(tmp_path / name)[0][0].notes for name in ("gap", "tilt", "uneven")}
    assert notes["gap"] == ("1 slices are missing, the first after slice 2",)
    assert len(notes["tilt"]) == 1 and "tilted by 9.1 degrees" in notes["tilt"][0]
    assert notes["uneven"] == ("its slices are unevenly spaced",)
    assert np.allclose(stacks(tmp_path / "uneven")[0][0].steps, [0, 2.5, 5, 8.4, 10, 12.5])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_header_that_was_cut_or_changed_is_one_sentence_without_its_words(tmp_path):
    write_series(tmp_path, voxels_of(), AFFINE, patient="SECRET^NAME")
    whole = (tmp_path / "IM0000").read_bytes()
    rng = random.Random(0)
    for _ in range(150):
        data = bytearray(whole[: rng.randrange(140, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randrange(6)):
            data[rng.randrange(128, len(data))] = rng.randrange(256)
        (tmp_path / "IM0000").write_bytes(data)
        try:
            for image in images_of(tmp_path / "IM0000"):
                pixels_of([image])
        except DataError as error:
            assert str(error).startswith(str(tmp_path / "IM0000")) and "SECRET" not in str(error) and "\n" not in str(error)


def test_a_file_deflated_as_a_whole_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    (tmp_path / "1.dcm").write_bytes(fuzz_files.deflated_dicom(10**6))
    monkeypatch.setattr("pydicom.dcmread", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(DataError, match=r"1\.dcm .*deflated as a whole; save it uncompressed"):
        images_of(tmp_path / "1.dcm")


@pytest.mark.parametrize("compressed", [False, True])
def test_images_that_are_bright_downwards_are_turned_round_once_and_all_alike(tmp_path, compressed):
    voxels = (voxels_of() + 1000).astype(np.uint16)
    write_series(tmp_path, voxels, AFFINE, BitsStored=16)
    for path in tmp_path.iterdir():
        if compressed:
            placed = pydicom.dcmread(path, stop_before_pixels=True)
            with same_locale():
                reader, writer = SimpleITK.ImageFileReader(), SimpleITK.ImageFileWriter()
                reader.SetFileName(str(path))
                writer.SetFileName(str(tmp_path / "a.dcm"))
                writer.UseCompressionOn()
                writer.Execute(reader.Execute())
            (tmp_path / "a.dcm").rename(path)
        header = pydicom.dcmread(path)
        header.PhotometricInterpretation, header.RescaleSlope, header.RescaleIntercept = "MONOCHROME1", 1, 0
        for name in (
            ("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing") if compressed else ()
        ):
            setattr(header, name, placed[name].value)
        header.save_as(path)
    (stack,), _, _ = stacks(tmp_path)
    pixels, slope, intercept = pixels_of(stack.images)
    assert np.array_equal(pixels * slope + intercept, 65535 - voxels.astype(int))


def test_acquisitions_that_lie_over_each_other_are_volumes_of_their_own_and_those_in_a_row_are_one(tmp_path):
    series, later = generate_uid(), AFFINE.copy()
    later[2, 3] += 1.25
    for number, (seed, affine) in enumerate([(0, AFFINE), (1, later)]):
        words = {"series": series, "name": f"{number}_{{}}", "AcquisitionNumber": number + 1}
        write_series(tmp_path / "over", voxels_of(seed), affine, **words)
        write_series(tmp_path / "row", voxels_of(), AFFINE, order=[range(3), range(3, 6)][number], **words)
    found, _, faults = stacks(tmp_path / "over")
    assert [len(stack.images) for stack in found] == [6, 6] and not faults
    assert [len(stack.images) for stack in stacks(tmp_path / "row")[0]] == [6]


def test_segmentations_are_no_images_and_identifiers_that_are_all_alike_or_missing_do_no_harm(tmp_path):
    write_series(tmp_path / "seg", voxels_of(), AFFINE, modality="SEG")
    assert stacks(tmp_path / "seg") == ([], [], [])
    write_series(tmp_path / "alike", voxels_of(), AFFINE, SOPInstanceUID="1.2.3")
    write_series(tmp_path / "none", voxels_of(), AFFINE, SOPInstanceUID="")
    for name in ("alike", "none"):
        (stack,), _, _ = stacks(tmp_path / name)
        assert len(stack.images) == 6 and not any(name in image.uid for image in stack.images)
    write_series(tmp_path / "flat", voxels_of(), AFFINE, slope=0)
    with pytest.raises(DataError, match="RescaleSlope 0"):
        stacks(tmp_path / "flat")
