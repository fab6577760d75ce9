import gzip
import itertools
import random
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz, fuzz_files
from datasets.errors import DataError
from datasets.formats import NPY_HEADERS
from datasets.reading import open_volume, read_image, volume_shape

TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 3 2 4\nencoding: raw\nendian: {endian}\ndata file: {file}\n\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = 3 2 4\nElementType = MET_SHORT\n{more}ElementDataFile = {file}\n"


def volume(dtype):
    return (np.random.default_rng(0).normal(size=(5, 4, 3)) * 100).astype(dtype)


@pytest.mark.parametrize("dtype, packed", itertools.product(TYPES, [False, True]))
@pytest.mark.parametrize("ending", ["nii", "nii.gz", "mha", "mhd", "nrrd"])
def test_files_that_simpleitk_writes_have_its_values_and_types(tmp_path, dtype, packed, ending):
    path = tmp_path / f"a.{ending}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.moveaxis(volume(dtype), -1, 0)), str(path), packed)
    read = open_volume(path)
    assert np.array_equal(read, volume(dtype)) and read.dtype == np.dtype(dtype)
    assert volume_shape(path) == (5, 4, 3)


@pytest.mark.parametrize("kind, order", itertools.product([nibabel.Nifti1Image, nibabel.Nifti2Image], "<>"))
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_nifti_of_both_versions_and_byte_orders_is_scaled_as_nibabel_does(tmp_path, kind, order, ending):
    image = kind(volume("i2"), np.eye(4), kind.header_class(endianness=order))
    image.header.set_slope_inter(0.5, -10)
    nibabel.save(image, tmp_path / f"a.{ending}")
    expected = nibabel.load(tmp_path / f"a.{ending}").get_fdata().transpose(1, 0, 2)
    read = open_volume(tmp_path / f"a.{ending}")
    assert read.dtype == np.float32 and np.abs(read - expected).max() < 1e-4


def test_a_fourth_axis_of_one_is_none_and_a_longer_one_is_refused(tmp_path):
    for length in (1, 2):
        nibabel.save(nibabel.Nifti1Image(np.ones((2, 3, 4, length), np.int16), np.eye(4)), tmp_path / "a.nii")
        if length == 1:
            assert volume_shape(tmp_path / "a.nii") == (3, 2, 4)
        else:
            with pytest.raises(DataError, match="H x W x C"):
                volume_shape(tmp_path / "a.nii")


@pytest.mark.parametrize("ending", ["npy", "nii", "mha", "nrrd"])
def test_what_is_not_packed_stays_on_the_disk(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "npy":
        np.save(path, volume("i2"))
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume("i2")), str(path))
    assert isinstance(open_volume(path), np.memmap)


def test_numpys_column_order_and_second_version_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(volume("f4")))
    with open(tmp_path / "b.npy", "wb") as file:
        np.lib.format.write_array(file, volume("f4"), version=(2, 0))
    for name in ("a.npy", "b.npy"):
        assert np.array_equal(open_volume(tmp_path / name), volume("f4"))


@pytest.mark.parametrize("order, endian, said", [("<", "little", "False"), (">", "big", "True")])
def test_voxels_beside_a_header_are_found_in_both_byte_orders(tmp_path, order, endian, said):
    voxels = np.arange(24, dtype=f"{order}i2").reshape(4, 2, 3)  # C H W
    (tmp_path / "a.raw").write_bytes(b"some" + voxels.tobytes())
    more = f"BinaryDataByteOrderMSB = {said}\nHeaderSize = {{}}\n"
    (tmp_path / "a.mhd").write_text(META.format(more=more.format(4), file="a.raw"), encoding="utf-8")
    (tmp_path / "b.mhd").write_text(META.format(more=more.format(-1), file="a.raw"), encoding="utf-8")
    nrrd = NRRD.format(endian=endian, file="a.raw").replace("data file", "byte skip: 4\ndata file")
    (tmp_path / "a.nrrd").write_text(nrrd, encoding="utf-8")
    for name in ("a.mhd", "b.mhd", "a.nrrd"):
        assert np.array_equal(open_volume(tmp_path / name), np.moveaxis(voxels, 0, -1))
        ours, theirs = open_volume(tmp_path / name), SimpleITK.ReadImage(str(tmp_path / name))
        assert np.array_equal(ours, np.moveaxis(SimpleITK.GetArrayFromImage(theirs), 0, -1))


def test_gzip_of_several_members_is_one_volume_and_its_check_sum_counts(tmp_path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume("i2")), str(tmp_path / "a.nii"))
    whole = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(whole[:400]) + gzip.compress(whole[400:]))
    assert np.array_equal(open_volume(tmp_path / "a.nii.gz"), open_volume(tmp_path / "a.nii"))
    packed = bytearray(gzip.compress(whole, 0))
    packed[-40] ^= 1  # a voxel
    (tmp_path / "a.nii.gz").write_bytes(packed)
    with pytest.raises(DataError, match="incorrect data check"):
        open_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("file", ["/etc/passwd", "../a.raw", "b/../../a.raw", ""])
def test_voxels_elsewhere_than_beside_a_header_are_refused(tmp_path, file):
    (tmp_path / "a.raw").write_bytes(bytes(48))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mhd").write_text(META.format(more="", file=file), encoding="utf-8")
    (tmp_path / "in/a.nrrd").write_text(NRRD.format(endian="little", file=file), encoding="utf-8")
    for name in ("a.mhd", "a.nrrd"):
        with pytest.raises(DataError, match="not beside it"):
            open_volume(tmp_path / "in" / name)


@pytest.mark.parametrize(
    "content, said",
    [
        (META.format(more="CompressedData = True\nHeaderSize = -1\n", file="LOCAL").replace("LOCAL", "a.raw"), "HeaderSize"),
        (META.format(more="BinaryData = False\n", file="LOCAL"), "text"),
        (META.format(more="ElementNumberOfChannels = 3\n", file="LOCAL"), "several values a voxel"),
        (META.format(more="", file="LOCAL").replace("NDims = 3\n", ""), "no NDims"),
        (META.format(more="", file="LOCAL").replace("3 2 4", "30000 20000 40000"), "bytes cannot hold"),
    ],
)
def test_headers_that_cannot_be_followed_are_refused_with_the_reason(tmp_path, content, said):
    (tmp_path / "a.raw").write_bytes(bytes(48))
    (tmp_path / "a.mhd").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"a.mhd cannot be read as a volume .*{said}"):
        open_volume(tmp_path / "a.mhd")


def test_a_packed_file_may_promise_what_deflate_can_hold_and_no_more(tmp_path):
    header = bytearray(352)
    header[:4], header[344:348], header[70:74] = struct.pack("<i", 348), b"n+1\0", struct.pack("<hh", 2, 8)
    header[40:56], header[108:112] = struct.pack("<8h", 3, 1000, 1000, 50, 1, 1, 1, 1), struct.pack("<f", 352)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header + bytes(50_000_000), 9))
    assert open_volume(tmp_path / "a.nii.gz").shape == (1000, 1000, 50)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(header))
    with pytest.raises(DataError, match="50000000 bytes of voxels, which"):
        volume_shape(tmp_path / "b.nii.gz")


def test_a_damaged_stream_that_holds_more_than_was_promised_is_refused(tmp_path):
    header = bytearray(352)
    header[:4], header[344:348], header[70:74] = struct.pack("<i", 348), b"n+1\0", struct.pack("<hh", 2, 8)
    header[40:56], header[108:112] = struct.pack("<8h", 3, 20, 30, 10, 1, 1, 1, 1), struct.pack("<f", 352)
    whole = bytearray(gzip.compress(bytes(header) + np.random.default_rng(0).bytes(2 * 6000)))
    (tmp_path / "a.nii.gz").write_bytes(whole)
    assert open_volume(tmp_path / "a.nii.gz").shape == (30, 20, 10)
    whole[4000] ^= 255
    (tmp_path / "a.nii.gz").write_bytes(whole)
    with pytest.raises(DataError, match="data check"):
        open_volume(tmp_path / "a.nii.gz")


def test_a_picture_that_is_a_program_is_not_run(tmp_path):
    (tmp_path / "a.png").write_bytes(fuzz_files.hostile_pictures()["program.png"])
    with pytest.raises(DataError, match="cannot identify"):
        read_image(tmp_path / "a.png")


def test_a_picture_of_196_megapixels_in_200_kilobytes_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(fuzz_files.hostile_pictures()["megapixels.png"])
    with pytest.raises(DataError, match="196000000 pixels"):
        read_image(tmp_path / "a.png")


@pytest.fixture(scope="module")
def whole():
    return fuzz_files.valid_files(weights=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", fuzz_files.KINDS)
def test_damaged_files_are_read_or_refused_with_a_sentence(tmp_path_factory, whole, kind):
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "a.raw").write_bytes(bytes(420))

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 2**63))
    def damage(seed):
        path = folder / f"b.{kind}"
        path.write_bytes(fuzz_files.damaged(kind, whole[kind], random.Random(seed)))
        try:
            fuzz.read(path)
        except DataError as error:
            assert path.name in str(error) and "\n" not in str(error)

    damage()
    assert {p.name for p in folder.iterdir()} == {"a.raw", f"b.{kind}"}


@pytest.mark.parametrize(("failures", "read"), [(3, True), (10**6, False)])
def test_a_parser_that_threads_disturb_is_asked_again_and_not_for_ever(tmp_path, monkeypatch, failures, read):
    np.save(tmp_path / "a.npy", volume("i2"))
    parse, asked = NPY_HEADERS[1, 0], iter(range(failures))

    def disturbed(file):
        shape = parse(file)
        if next(asked, None) is not None:
            raise SystemError("AST constructor recursion depth mismatch (before=42, after=39)")
        return shape

    monkeypatch.setitem(NPY_HEADERS, (1, 0), disturbed)
    if read:
        assert volume_shape(tmp_path / "a.npy") == (5, 4, 3)
    else:
        with pytest.raises(DataError, match="AST constructor"):
            volume_shape(tmp_path / "a.npy")
