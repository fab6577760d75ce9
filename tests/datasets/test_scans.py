import itertools
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from datasets.cases import Case
from datasets.errors import DataError
from datasets.foreign import of_file
from datasets.label_map import LabelMap
from datasets.preparing import hung
from datasets.scans import read_label, read_scan, scan_shape, stored_label, write_prediction

SHAPE = (5, 7, 6)
VOXELS = np.arange(5 * 7 * 6, dtype=np.int16).reshape(SHAPE)  # each voxel is known by its value
LABELS = (VOXELS % 4).astype(np.uint8)
TURNS = {"straight": (0, 0, 0), "half turn": (0, 0, 180), "coronal": (90, 0, 0), "oblique": (12, -25, 33)}


def affine_of(turn=(0, 0, 0), spacing=(0.8, 0.8, 3.0), flips=(1, 1, 1), origin=(10.0, -20.0, 30.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * spacing * flips
    affine[:3, 3] = origin
    return affine


def nifti_case(folder, image, label=None) -> Case:
    """Of nibabel's images, or of arrays that are saved with an affine of 0.8 x 0.8 x 3 mm."""
    paths = []
    for name, what in [("a.nii.gz", image), ("a_seg.nii.gz", label)]:
        if what is not None:
            what = nibabel.Nifti1Image(what, affine_of()) if isinstance(what, np.ndarray) else what
            nibabel.save(what, folder / name)
            paths.append(folder / name)
    return Case(paths[0], "a.nii.gz", paths[1] if len(paths) > 1 else None)


def predict_voxels(case) -> nibabel.Nifti1Image:
    """The file that is written for a case when the map of labels is the scan itself."""
    scan = read_scan(case)
    path = write_prediction(case.path.parent / "out" / "prediction", case, scan, scan.pixels)
    assert [file.name for file in path.parent.iterdir()] == ["prediction.nii.gz"]
    return nibabel.load(path)


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("slices", [0, 1, 2])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_a_prediction_lies_voxel_for_voxel_on_the_file_it_was_made_from(tmp_path, turn, slices, flips):
    spacing = np.insert([0.8, 0.8], slices, 3.0)
    affine = affine_of(turn, spacing, flips)
    case = nifti_case(tmp_path, nibabel.Nifti1Image(VOXELS, affine), nibabel.Nifti1Image(LABELS, affine))
    scan = read_scan(case)
    assert np.allclose(scan.spacing, (0.8, 0.8, 3.0)) and scan.pixels.shape[2] == SHAPE[slices]
    assert scan_shape(case) == scan.pixels.shape
    assert np.array_equal(stored_label(case), scan.pixels % 4)
    written = predict_voxels(case)
    assert np.array_equal(written.get_fdata(), VOXELS)
    for form in ("get_sform", "get_qform"):
        assert np.abs(getattr(written, form)() - affine).max() < 1e-4, form


def test_a_scan_hangs_as_a_prepared_volume_does(tmp_path):
    for number, axes in enumerate(itertools.permutations(range(3))):
        affine = affine_of((12, -25, 33))[:, [*axes, 3]]
        case = nifti_case(tmp_path, nibabel.Nifti1Image(VOXELS, affine))
        prepared = hung(of_file(case.path, "auto", "")[0])
        assert np.array_equal(read_scan(case).pixels, prepared.voxels), number


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3), st.integers(0, 2))
def test_a_map_is_restored_from_any_orientation(tmp_path_factory, axes, flips, slices):
    affine = affine_of(spacing=np.insert([1.0, 1.0], slices, 4.0), flips=flips)[:, [*axes, 3]]
    scan = read_scan(nifti_case(tmp_path_factory.mktemp("any"), nibabel.Nifti1Image(VOXELS, affine)))
    assert np.array_equal(scan.restored(scan.pixels), VOXELS)
    assert np.array_equal(scan.restored(scan.pixels == 17), VOXELS == 17)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_forms_codes_and_units_of_a_nifti_file_stay_as_they_are(tmp_path, codes, kind, order):
    ras = affine_of((12, -25, 33), flips=(-1, 1, 1))
    header = kind.header_class(endianness=order)
    image = kind(VOXELS, None, header)
    header = image.header
    header.set_zooms((0.8, 0.8, 3.0))
    header.set_qform(ras, codes[0])
    header.set_sform(ras @ np.diag([1, 1, 1, 1]) if codes[1] else np.zeros((4, 4)), codes[1])
    header.set_xyzt_units("micron")
    header["descrip"] = b"DOE^JANE"
    nibabel.save(image, tmp_path / "a.nii")
    case = Case(tmp_path / "a.nii", "a.nii", None)
    written, source = predict_voxels(case), nibabel.load(case.path)
    assert np.array_equal(written.get_fdata(), VOXELS)
    assert np.abs(written.affine - source.affine).max() < 1e-4
    assert [int(written.header[f"{form}_code"]) for form in ("qform", "sform")] == list(codes)
    assert written.header.get_xyzt_units() == ("micron", "unknown") and np.allclose(written.header.get_zooms(), (0.8, 0.8, 3))
    assert b"JANE" not in written.header.binaryblock


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("flips", [(1, 1, 1), (1, 1, -1)])
@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_a_prediction_for_other_formats_lies_at_the_same_place_in_the_patient(tmp_path, turn, flips, ending):
    image, affine = SimpleITK.GetImageFromArray(VOXELS), affine_of(turn, flips=flips)
    image.SetSpacing((0.8, 0.8, 3.0))
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / (0.8, 0.8, 3.0)).ravel().tolist())
    SimpleITK.WriteImage(image, str(tmp_path / f"a.{ending}"))
    case = Case(tmp_path / f"a.{ending}", f"a.{ending}", None)
    written = predict_voxels(case)
    again = SimpleITK.ReadImage(str(tmp_path / "out/prediction.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(again), VOXELS)
    lps = np.diag([-1, -1, 1, 1])
    for index in itertools.product(*((0, length - 1) for length in image.GetSize())):
        expected = image.TransformIndexToPhysicalPoint(index)
        assert np.abs(np.subtract(again.TransformIndexToPhysicalPoint(index), expected)).max() < 1e-4
        for form in (written.get_sform(), written.get_qform()):
            assert np.abs((lps @ form @ [*index, 1])[:3] - expected).max() < 1e-4


def test_a_sheared_geometry_is_told_by_the_sform_alone(tmp_path):
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 7 5\nencoding: raw\nendian: little\nspace: left-posterior-superior\n"
        "space directions: (0.8,0,0) (0,0.8,0.4) (0,0,3)\nspace origin: (1,2,3)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + VOXELS.tobytes())
    written = predict_voxels(Case(tmp_path / "a.nrrd", "a.nrrd", None))
    expected = np.diag([-1, -1, 1]) @ [[0.8, 0, 0, 1], [0, 0.8, 0, 2], [0, 0.4, 3, 3]]
    assert np.allclose(written.affine[:3], expected) and written.header["qform_code"] == 0


@pytest.mark.parametrize("values, dtype", [([0, 255], "uint8"), ([0, 850], "int16"), ([0, -1], "int16"), ([0, 70000], "int32")])
def test_a_prediction_takes_the_smallest_type_and_the_same_bytes_each_time(tmp_path, values, dtype):
    case = nifti_case(tmp_path, VOXELS)
    scan = read_scan(case)
    labels = np.array(values)[scan.pixels % 2]
    paths = [write_prediction(tmp_path / name, case, scan, labels) for name in ("one.nii.gz", "two.mha")]
    assert [path.name for path in paths] == ["one.nii.gz", "two.nii.gz"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    read = nibabel.load(paths[0])
    assert read.get_data_dtype() == dtype and np.array_equal(read.get_fdata(), np.array(values)[VOXELS % 2])


def test_arrays_are_read_as_they_are_stored_and_predicted_as_an_archive(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", image=VOXELS, label=LABELS)
    np.save(tmp_path / "b.npy", VOXELS.astype(">i2"))
    np.savez(tmp_path / "b_label.npz", LABELS)
    both = Case(tmp_path / "a.npz", "a.npz", tmp_path / "a.npz")
    apart = Case(tmp_path / "b.npy", "b.npy", tmp_path / "b_label.npz")
    for case in (both, apart):
        scan = read_scan(case)
        assert scan.spacing is None and np.array_equal(scan.pixels, VOXELS) and scan.pixels.dtype.isnative
        assert np.array_equal(stored_label(case), LABELS)
        path = write_prediction(tmp_path / "out" / case.name, case, scan, stored_label(case))
        assert path == tmp_path / "out" / f"{case.name[0]}.npz"
        assert np.array_equal(np.load(path)["label"], LABELS)
        assert np.array_equal(stored_label(Case(case.path, case.name, path)), LABELS)


def test_an_array_beside_a_file_with_geometry_has_rows_first(tmp_path):
    case = nifti_case(tmp_path, VOXELS)
    np.save(tmp_path / "a_label.npy", LABELS.swapaxes(0, 1))
    case = Case(case.path, case.name, tmp_path / "a_label.npy")
    assert np.array_equal(stored_label(case), read_scan(case).pixels % 4)


def test_image_and_label_may_be_of_different_formats(tmp_path):
    for voxels, name in [(VOXELS, "a.mha"), (LABELS, "a_seg.nii.gz")]:
        image = SimpleITK.GetImageFromArray(voxels)
        image.SetSpacing((0.8, 3.0, 0.8))
        image.SetOrigin((10, -20, 30))
        image.SetDirection(Rotation.from_euler("xyz", (12, -25, 33), degrees=True).as_matrix().ravel().tolist())
        SimpleITK.WriteImage(image, str(tmp_path / name))
    case = Case(tmp_path / "a.mha", "a.mha", tmp_path / "a_seg.nii.gz")
    assert np.array_equal(stored_label(case), read_scan(case).pixels % 4)


def test_scales_of_a_header_count(tmp_path):
    scan, label = nibabel.Nifti1Image(VOXELS, affine_of()), nibabel.Nifti1Image(LABELS * 10, affine_of())
    scan.header.set_slope_inter(2, -1000)
    label.header.set_slope_inter(0.1, 0)  # not a number of the machine
    case = nifti_case(tmp_path, scan, label)
    read = read_scan(case)
    assert np.array_equal(read.restored(read.pixels), nibabel.load(case.path).get_fdata())
    assert np.array_equal(read.restored(read.pixels), VOXELS * 2.0 - 1000)
    assert np.array_equal(read.restored(stored_label(case)), LABELS)


def test_labels_in_float_are_whole_numbers_or_refused(tmp_path):
    assert stored_label(nifti_case(tmp_path, VOXELS, LABELS.astype(np.float32))).dtype.kind == "i"
    for wrong, said in [(0.5, r"0\.5"), (np.nan, "nan"), (np.inf, "inf"), (1e12, r"1e\+12")]:
        labels = LABELS.astype(np.float64)
        labels[2, 3, 4] = wrong
        with pytest.raises(DataError, match=rf"a_seg\.nii\.gz holds the value {said}; labels are whole numbers"):
            stored_label(nifti_case(tmp_path, VOXELS, labels))


def test_a_label_of_other_voxels_is_refused_and_where_is_said(tmp_path):
    case = nifti_case(tmp_path, VOXELS, LABELS[:4])
    with pytest.raises(DataError, match=r"a_seg\.nii\.gz has 7 x 4 x 6 voxels.* 7 x 5 x 6; give a label of the same"):
        stored_label(case)
    moved = affine_of(origin=(10, -20, 31.5))
    case = nifti_case(tmp_path, VOXELS, nibabel.Nifti1Image(LABELS, moved))
    with pytest.raises(DataError, match=r"a_seg\.nii\.gz lies 1\.5 mm from its image .*at \(-10, 20, 31\.5\) mm"):
        stored_label(case)
    turned = affine_of((0, 0, 5))
    with pytest.raises(DataError, match=r"row, column, slice \(6, 4, [05]\) is at"):
        stored_label(nifti_case(tmp_path, VOXELS, nibabel.Nifti1Image(LABELS, turned)))


def test_rounded_geometry_and_a_label_that_tells_no_place_are_taken(tmp_path):
    rounded = nibabel.Nifti1Image(LABELS, affine_of() + 1e-3 * np.eye(4))
    assert stored_label(nifti_case(tmp_path, VOXELS, rounded)).max() == 3
    nowhere = nibabel.Nifti1Image(LABELS, None)
    assert stored_label(nifti_case(tmp_path, VOXELS, nowhere)).max() == 3


def test_files_that_are_no_scans_are_refused(tmp_path):
    of_time = nifti_case(tmp_path, np.stack([VOXELS] * 3, -1))
    np.savez(tmp_path / "t.npz", image=np.zeros((2, 2, 2, 2, 2)))
    with pytest.raises(DataError, match=r"t\.npz .*\(2, 2, 2, 2, 2\)"):
        read_scan(Case(tmp_path / "t.npz", "t.npz", None))
    with pytest.raises(DataError, match=r"a_seg\.nii\.gz cannot be read as a volume \(its shape is \(5, 7, 6, 3\)"):
        stored_label(nifti_case(tmp_path, VOXELS, np.stack([LABELS] * 3, -1)))
    np.save(tmp_path / "nan.npy", np.full(SHAPE, np.nan))
    with pytest.raises(DataError, match=r"nan\.npy holds NaN"):
        read_scan(Case(tmp_path / "nan.npy", "nan.npy", None))
    (tmp_path / "cut.nii.gz").write_bytes(of_time.path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cut\.nii\.gz cannot be read"):
        read_scan(Case(tmp_path / "cut.nii.gz", "cut.nii.gz", None))


CHANNELS = np.stack([VOXELS, VOXELS + 1000, VOXELS * 2], -1)


def write_channels(folder) -> list:
    """Files with three channels."""
    image = SimpleITK.GetImageFromArray(CHANNELS.transpose(3, 2, 1, 0), isVector=False)
    SimpleITK.WriteImage(image, str(folder / "c.mha"))
    nibabel.save(nibabel.Nifti1Image(CHANNELS, affine_of(TURNS["oblique"])), folder / "c.nii.gz")
    np.save(folder / "c.npy", CHANNELS)
    np.savez(folder / "c.npz", image=CHANNELS)
    return [folder / f"c.{ending}" for ending in ("mha", "nii.gz", "npy", "npz")]


def test_one_of_several_channels_is_read_and_a_map_lies_on_it(tmp_path):
    for path in write_channels(tmp_path):
        for channel in range(3):
            case = Case(path, path.name, None, channel=channel)
            scan = read_scan(case)
            assert np.array_equal(scan.restored(scan.pixels), CHANNELS[..., channel]), path
            assert scan_shape(case) == scan.pixels.shape
        written = write_prediction(tmp_path / "out" / path.name, case, scan, scan.pixels)
        if path.name == "c.nii.gz":
            image, source = nibabel.load(written), nibabel.load(path)
            assert np.array_equal(image.get_fdata(), CHANNELS[..., 2]) and np.array_equal(image.affine, source.affine)
            assert image.header.get_zooms() == source.header.get_zooms()[:3]


def test_a_channel_of_a_file_that_has_one_alone_is_refused_unless_it_is_the_first(tmp_path):
    np.save(tmp_path / "a.npy", CHANNELS[..., 0])
    case = Case(tmp_path / "a.npy", "a.npy", None, channel=3)
    for read in (read_scan, scan_shape):
        with pytest.raises(DataError, match=r"a\.npy has one channel, of which --channel 3 is none; leave the flag out"):
            read(case)
    assert read_scan(replace(case, channel=0)).pixels.shape == CHANNELS.shape[:3]


def test_channels_of_which_none_is_chosen_are_refused(tmp_path):
    for path in write_channels(tmp_path):
        for channel, said in [(None, r"\)"), (3, ", of which --channel 3 is none"), (-1, ", of which --channel -1 is none")]:
            with pytest.raises(DataError, match=rf"{path.name} has 3 channels \(along a fourth axis.*{said}; .*from 0 to 2"):
                read_scan(Case(path, path.name, None, channel=channel))
    np.save(tmp_path / "one.npy", CHANNELS[..., :1])
    assert np.array_equal(read_scan(Case(tmp_path / "one.npy", "one.npy", None)).pixels, VOXELS)


def test_classes_beside_the_scan_go_back_to_the_values_of_the_file(tmp_path):
    values = np.array([0, 205, 420, 850], np.int16)[LABELS]
    case = nifti_case(tmp_path, VOXELS, values)
    label_map = LabelMap.from_words(("205", "420", "850"))
    classes = read_label(case, label_map)
    assert classes.dtype == np.uint8 and np.array_equal(classes, read_scan(case).pixels % 4)
    path = write_prediction(tmp_path / "back", case, read_scan(case), label_map.stored_of(classes))
    assert np.array_equal(nibabel.load(path).get_fdata(), values)
