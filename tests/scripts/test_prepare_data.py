"""From raw folders to training data, by the command as people give it."""

import csv
import errno
import fcntl
import gzip
import hashlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image
from scipy.spatial.transform import Rotation

import prepare_data
from datasets.errors import DataError
from datasets.files import find_images, find_volumes
from datasets.geometry import spacing_of
from engine.config import parse
from engine.errors import UserError
from prepare_data import PrepareConfig
from tests.dicom_series import write_series
from tests.scripts.conftest import ROOT, environment


def prepare(*words) -> int:
    return prepare_data.main(parse(PrepareConfig, [str(word) for word in words]))


def rows_of(folder: Path) -> list[dict]:
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def affine_of(turn=(0, 0, 0), spacing=(0.7, 0.7, 4.0), origin=(10.0, -20.0, 30.0)) -> np.ndarray:
    """(row, column, slice) → LPS mm: rows to the back, columns to the left, before it is turned."""
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()[:, [1, 0, 2]]
    affine[:3, :3], affine[:3, 3] = turned * spacing, origin
    return affine


def voxels_of(shape=(22, 26, 9), dtype=np.int16, seed=0) -> np.ndarray:
    """Smooth things on a dark ground; every voxel is unlike its neighbours."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[tuple(slice(-1, 1, complex(0, n)) for n in shape)]
    body = (grid[0] ** 2 + grid[1] ** 2 < 0.6) * (900 + 200 * grid[2])
    return (body + rng.integers(0, 90, shape)).astype(dtype)


def as_image(voxels: np.ndarray, affine: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 0, 1)))
    spacing = spacing_of(affine)[[1, 0, 2]]
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, [1, 0, 2]] / spacing).ravel().tolist())
    return image


def tree_of(folder: Path) -> dict:
    """Everything that could change in a folder."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(folder.rglob("*"))
    }


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_places(row: dict, folder: Path, image: SimpleITK.Image) -> None:
    """Voxels of a prepared volume have the value that the source has at their place in the patient, to 0.01 mm."""
    stored = np.load(folder / row["file"])
    affine = np.vstack([np.array(row["affine"].split(), float).reshape(3, 4), [0, 0, 0, 1]])
    source = SimpleITK.GetArrayFromImage(image)
    assert stored.size == source.size
    for index in np.random.default_rng(0).integers(0, stored.shape, (200, 3)):
        place = (affine @ [*index, 1])[:3]
        continuous = np.array(image.TransformPhysicalPointToContinuousIndex(place.tolist()))
        nearest = np.rint(continuous).astype(int)
        back = np.array(image.TransformIndexToPhysicalPoint(nearest.tolist()))
        assert np.abs(back - place).max() < 0.01
        value = stored[tuple(index)] * float(row["scale"]) + float(row["offset"])
        assert value == pytest.approx(source[tuple(nearest[::-1])], abs=float(row["scale"]) / 2 + 1e-3)


TURNS = [(0, 0, 0), (0, 0, 180), (90, 0, 0), (180, 0, 0), (0, 90, 0), (14, -25, 33)]


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("ending", ["nii.gz", "nii", "mha", "nrrd", "dicom"])
def test_voxels_keep_their_place_in_the_patient(tmp_path, turn, ending):
    voxels, affine, raw = voxels_of(), affine_of(turn), tmp_path / "raw"
    image = as_image(voxels, affine)
    raw.mkdir()
    if ending == "dicom":
        write_series(raw, voxels, affine, order=np.random.default_rng(1).permutation(9))
    else:
        SimpleITK.WriteImage(image, str(raw / f"a.{ending}"))
    assert prepare(raw, "--data_path", tmp_path / "out", "--collection", "a") == 0
    (row,) = rows_of(tmp_path / "out/a")
    same_places(row, tmp_path / "out/a", image)
    assert row["shape"].split()[2] == "9" and row["spacing"].split()[2] == "4"
    assert row["dtype"] == "int16" and row["scale"] == "1.0"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_run_along_the_axis_of_the_acquisition_wherever_the_file_has_it(tmp_path, axis):
    (tmp_path / "raw").mkdir()
    spacing = np.ones(3)
    spacing[axis] = 5
    nibabel.save(nibabel.Nifti1Image(voxels_of((20, 21, 22)), np.diag([*spacing, 1])), tmp_path / "raw/a.nii.gz")
    prepare(tmp_path / "raw", "--data_path", tmp_path / "out", "--collection", "a")
    (row,) = rows_of(tmp_path / "out/a")
    assert row["shape"].split()[2] == str((20, 21, 22)[axis]) and row["spacing"].split() == ["1", "1", "5"]


def test_a_nifti_header_that_names_its_slice_axis_is_believed(tmp_path):
    (tmp_path / "raw").mkdir()
    image = nibabel.Nifti1Image(voxels_of((20, 21, 22)), np.eye(4))
    image.header.set_dim_info(slice=0)
    nibabel.save(image, tmp_path / "raw/a.nii")
    prepare(tmp_path / "raw", "--data_path", tmp_path / "out", "--collection", "a")
    assert rows_of(tmp_path / "out/a")[0]["shape"].split()[2] == "20"


def test_what_is_prepared_is_what_training_reads(tmp_path):
    raw = tmp_path / "raw"
    for number in range(12):
        write_series(raw / f"patient{number // 2}/scan{number}", voxels_of(seed=number), affine_of(), number=f"P{number // 2}")
    words = ["--data_path", tmp_path / "v", "--image_path", tmp_path / "p", "--shares", 0.5, 0.25, 0.25]
    assert prepare(raw, "--collection", "ct", *words) == 0
    rows = {row["file"]: row for row in rows_of(tmp_path / "v/ct")}
    trained = find_volumes(tmp_path / "v")
    assert {item.path.name for item in trained} == {name for name, row in rows.items() if row["split"] != "test"}
    assert all(item.subject == rows[item.path.name]["subject"] for item in trained)
    splits = {}
    for row in rows.values():
        splits.setdefault(row["subject"], set()).add(row["split"])
        assert hashlib.sha256((tmp_path / "v/ct" / row["file"]).read_bytes()).hexdigest() == row["sha256"]
    assert len(splits) == 6 and all(len(of_one) == 1 for of_one in splits.values())
    for split in ("train", "valid", "test"):
        cases = {row["case"] for row in rows.values() if row["split"] == split}
        folder = tmp_path / "p" / split / "ct"
        assert {path.stem.rpartition("_")[0] for path in folder.glob("*.png")} == cases
    assert len(find_images(tmp_path / "p")) == 9 * sum(row["split"] == "train" for row in rows.values())


PLANTED = "Grünewald^Zacharias"


def test_no_name_of_a_patient_reaches_an_output(tmp_path):
    raw = tmp_path / "export"
    for number, folder in enumerate([f"{PLANTED}/1990", "deep/er", PLANTED]):
        names = dict.fromkeys(["patient", "InstitutionName", "PatientComments", "SeriesDescription"], PLANTED)
        names |= {"number": f"{PLANTED}7", "name": PLANTED + "{:03d}.dcm", "StudyDate": "20010203"}
        write_series(raw / folder, voxels_of(seed=number), affine_of(), **names)
    image = nibabel.Nifti1Image(voxels_of(seed=9), np.diag([1, 1, 4, 1]))
    image.header["descrip"] = PLANTED.encode()[:79]
    nibabel.save(image, raw / f"{PLANTED}.nii.gz")
    SimpleITK.WriteImage(as_image(voxels_of(seed=8), affine_of()), str(raw / f"{PLANTED}.mha"))
    Image.fromarray(voxels_of(dtype=np.uint8)[:, :, 0]).save(raw / f"{PLANTED}.png", comment=PLANTED)
    (raw / "broken.nii.gz").write_bytes(PLANTED.encode() * 9)
    words = ["--data_path", tmp_path / "v", "--image_path", tmp_path / "p", "--collection", "ct"]
    assert prepare(raw, *words) == 1
    written = [path for root in ("v", "p") for path in (tmp_path / root).rglob("*")]
    assert len([path for path in written if path.suffix == ".npy"]) == 5
    for path in written:
        content = path.read_bytes() if path.is_file() else b""
        for part in ("newald", "Zacharias", "20010203", str(raw)):
            assert part not in path.name and part.encode() not in content, path
    assert len({row["subject"] for row in rows_of(tmp_path / "v/ct")}) == 2  # the one of the export, and of two files


def test_the_private_map_is_for_its_owner_and_goes_on_with_its_numbers(tmp_path):
    raw, private = tmp_path / "raw", tmp_path / "private.csv"
    write_series(raw / "a", voxels_of(seed=0), affine_of(), patient=PLANTED)
    words = ["--data_path", tmp_path / "v", "--private_map", private]
    prepare(raw, *words, "--collection", "ct")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600 and PLANTED in private.read_text(encoding="utf-8")
    write_series(tmp_path / "other/b", voxels_of(seed=1), affine_of(), patient=PLANTED)
    prepare(tmp_path / "other", *words, "--collection", "mr")
    first, second = rows_of(tmp_path / "v/ct")[0], rows_of(tmp_path / "v/mr")[0]
    assert first["subject"] == second["subject"] and first["split"] == second["split"] and first["case"] != second["case"]
    assert len(private.read_text(encoding="utf-8").splitlines()) == 3


def test_a_second_call_does_what_is_left_and_the_tables_are_as_if_made_at_once(tmp_path):
    raw = tmp_path / "raw"
    for number in range(4):
        write_series(raw / str(number), voxels_of(seed=number), affine_of(), number=f"P{number}")
    words = ["--collection", "ct", "--processes", 1]
    prepare(raw, "--data_path", tmp_path / "once", *words)
    (tmp_path / "some").mkdir()
    for number in (2, 0):
        os.rename(raw / str(number), tmp_path / "some" / str(number))
    prepare(raw, "--data_path", tmp_path / "v", *words)
    for number in (2, 0):
        os.rename(tmp_path / "some" / str(number), raw / str(number))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "v").rglob("*.npy")}
    prepare(raw, "--data_path", tmp_path / "v", *words)
    assert len(before) == 2 and all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert contents_of(tmp_path / "once") == contents_of(tmp_path / "v")


def test_a_killed_call_leaves_whole_files_and_is_gone_on_with(tmp_path):
    raw = tmp_path / "raw"
    for number in range(30):
        raw.mkdir(exist_ok=True)
        SimpleITK.WriteImage(as_image(voxels_of((90, 90, 60), seed=number), affine_of()), str(raw / f"{number}.nii.gz"))
    words = ["--data_path", tmp_path / "v", "--collection", "a"]
    command = [sys.executable, ROOT / "prepare_data.py", raw, *words, "--processes", "1"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list((tmp_path / "v").rglob("*.npy"))) < 3:
            pass
        process.send_signal(signal.SIGKILL)
    for path in (tmp_path / "v").rglob("*.npy"):
        assert np.load(path).shape == (90, 90, 60)
    assert prepare(raw, *words) == 0
    assert len(rows_of(tmp_path / "v/a")) == 30 == len(list((tmp_path / "v/a").glob("*.npy")))
    assert not list((tmp_path / "v").rglob(".*"))


def test_bad_files_are_named_and_counted_and_the_rest_goes_on(tmp_path, capsys):
    raw = tmp_path / "raw"
    raw.mkdir()
    good = voxels_of()
    np.save(raw / "good.npy", good)
    with_nan = good.astype(np.float32)
    with_nan[3, 3, 3] = np.nan
    np.save(raw / "nan.npy", with_nan)
    np.save(raw / "constant.npy", np.ones((9, 9, 9), np.int16))
    np.save(raw / "objects.npy", np.array([[[None]]]), allow_pickle=True)
    np.save(raw / "flat.npy", good[0])
    np.savez(raw / "two.npz", one=good, other=good)
    (raw / "cut.nii.gz").write_bytes(gzip.compress(bytes(2000))[:50])
    (raw / "no.dcm").write_bytes(b"no DICOM at all")
    write_series(raw / "scan", good, affine_of())
    (raw / "scan/IM0003").write_bytes((raw / "scan/IM0003").read_bytes()[:-100])
    (raw / "text.txt").write_text("notes", encoding="utf-8")
    before = tree_of(raw)
    assert prepare(raw, "--data_path", tmp_path / "v", "--collection", "a") == 1
    assert tree_of(raw) == before
    said = capsys.readouterr()
    for name in ["nan.npy", "constant.npy", "objects.npy", "flat.npy", "two.npz", "cut.nii.gz", "no.dcm", "scan/IM0003"]:
        assert [line for line in said.err.splitlines() if name in line and line.startswith("not prepared: ")], name
    assert "8 could not be prepared" in said.err and "1 files that end in .txt" in said.out
    assert len(rows_of(tmp_path / "v/a")) == 1
    assert prepare(raw, "--data_path", tmp_path / "v2", "--collection", "a", "--replace_nan") == 1
    assert {row["notes"] for row in rows_of(tmp_path / "v2/a")} == {"", "1 values were no numbers"}


def test_arrays_archives_stacks_and_series_of_four_axes_become_volumes(tmp_path):
    raw, voxels = tmp_path / "raw", voxels_of()
    (raw / "slices").mkdir(parents=True)
    np.savez_compressed(raw / "a.npz", image=voxels, label=voxels > 500)
    with h5py.File(raw / "b.h5", "w") as file:
        file["image"], file["label"] = voxels_of(seed=1), voxels > 500
    pages = [Image.fromarray(voxels_of(seed=2)[:, :, i].astype(np.uint16)) for i in range(9)]
    about = {270: "ImageJ=1.53\nimages=9\nslices=9\nunit=mm\nspacing=3.0", 282: 2.0, 283: 2.0}
    pages[0].save(raw / "c.tif", save_all=True, append_images=pages[1:], tiffinfo=about)
    four = np.stack([voxels_of(seed=3), voxels_of(seed=4), voxels_of(seed=5)], -1)
    nibabel.save(nibabel.Nifti1Image(four, np.diag([1, 1, 4, 1])), raw / "d.nii.gz")
    np.save(raw / "e.npy", voxels_of(seed=6))
    assert prepare(raw, "--data_path", tmp_path / "v", "--collection", "", "--no_deidentify") == 0
    rows = {row["case"]: row for row in rows_of(tmp_path / "v")}
    assert sorted(rows) == ["a", "b", "c", "d_000", "d_001", "d_002", "e"]
    for case, seed in [("a", 0), ("b", 1), ("c", 2), ("e", 6)]:
        assert np.array_equal(np.load(tmp_path / f"v/{case}.npy"), voxels_of(seed=seed)), case
    assert rows["c"]["spacing"] == "0.5 0.5 3" and rows["d_001"]["part"] == "2/3"
    for i in range(9):
        Image.fromarray(voxels_of(seed=7)[:, :, i].astype(np.uint16)).save(raw / f"slices/slice{i}.png")
        Image.fromarray(voxels_of(seed=7)[:, :, i].astype(np.uint16)).save(raw / f"slices/slice{i + 9}.png")
    words = ["--include", "slices/*", "--stack_pictures", "--data_path", tmp_path / "s", "--collection", "s"]
    prepare(raw, *words)
    (row,) = rows_of(tmp_path / "s/s")
    assert np.array_equal(np.load(tmp_path / "s/s" / row["file"])[:, :, :9], voxels_of(seed=7))  # slice2 before slice10


def test_radiographs_and_pictures_become_png_files_split_by_person_with_their_labels(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = ["path,label"]
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 30)).astype(np.uint8)
        Image.fromarray(pixels).save(raw / f"{number // 2:03d}_{number}.png")
        lines.append(f"{number // 2:03d}_{number}.png,{'sick' if number % 4 else 'well'}")
    (raw / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    deep = (voxels_of((40, 40, 3)) + 1000).astype(np.uint16)
    write_series(raw / "dx", deep, np.eye(4), modality="DX")
    for path in (raw / "dx").iterdir():
        header = __import__("pydicom").dcmread(path)
        del header.ImagePositionPatient, header.ImageOrientationPatient
        header.PhotometricInterpretation = "MONOCHROME1"
        header.save_as(path)
    words = ["--data_path", "", "--image_path", tmp_path / "p", "--collection", "cxr", "--subject", r"^(\d+)_", "--largest", 20]
    assert prepare(raw, *words) == 0
    items = find_images(tmp_path / "p", ("train", "valid", "test"))
    assert len(items) == 23 and sum(item.label == "sick" for item in items) == 15
    subjects = {}
    for item in items:
        subjects.setdefault(item.subject, set()).add(item.split)
    assert all(len(splits) == 1 for splits in subjects.values()) and len(subjects) == 11
    sizes = {Image.open(item.path).size for item in items}
    assert sizes == {(15, 20), (20, 20)} and {Image.open(item.path).mode for item in items} == {"L", "I;16"}


def test_resampling_windows_and_cropping_say_what_they_made(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    voxels = np.full((40, 40, 12), -1000, np.int16)
    voxels[10:30, 12:28, 2:10] = 40 + np.random.default_rng(0).integers(0, 50, (20, 16, 8))
    SimpleITK.WriteImage(as_image(voxels, affine_of(spacing=(1, 1, 3))), str(raw / "a.nii.gz"))
    words = ["--collection", "a", "--window", -1000, 400, "--crop_body", "--spacing", 2, 2, 0]
    assert prepare(raw, "--data_path", tmp_path / "v", *words) == 0
    (row,) = rows_of(tmp_path / "v/a")
    stored = np.load(tmp_path / "v/a" / row["file"])
    assert row["dtype"] == "uint8" and stored.shape == (14, 12, 12) and row["spacing"] == "2 2 3"
    values = stored * float(row["scale"]) + float(row["offset"])
    assert abs(values.min() + 1000) < 3 and 60 < np.median(values[5:10, 4:8, 4:8]) < 70
    place = np.array(row["affine"].split(), float).reshape(3, 4)[:, 3]  # of the first voxel: 6 rows, 8 columns were cut off
    assert np.allclose(place, [10 + 8 + 0.5, -20 + 6 + 0.5, 30], atol=1e-3)


def test_missing_slices_tilted_gantries_and_scouts_are_reported(tmp_path, capsys):
    raw, voxels, affine = tmp_path / "raw", voxels_of(), affine_of()
    write_series(raw / "gap", voxels, affine, order=[0, 1, 2, 3, 5, 6, 7, 8])
    tilted = affine.copy()
    tilted[:3, 2] += 0.2 * tilted[:3, 0]
    write_series(raw / "tilt", voxels_of(seed=1), tilted, order=range(9))
    write_series(raw / "scout", voxels_of(seed=2), affine, order=[4])
    assert prepare(raw, "--data_path", tmp_path / "v", "--collection", "a") == 0
    said = capsys.readouterr().out
    assert "1 slices are missing" in said and "the gantry is tilted by 2.0 degrees" in said
    assert "1 series of fewer than 3 slices" in said
    (gap,) = [row for row in rows_of(tmp_path / "v/a") if row["positions"]]
    assert gap["positions"].split() == ["0", "4", "8", "12", "20", "24", "28", "32"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["raw", "--data_path", "raw/out"], "only read"),
        (["raw", "--data_path", "", "--image_path", ""], "Nothing would be written"),
        (["raw", "--collection", ""], "may be those of patients"),
        (["raw", "--collection", "a/b"], "no name of a folder"),
        (["raw", "--window", "3"], "lowest and the highest"),
        (["raw", "--subject", "("], "no regular expression"),
        (["raw", "--private_map", "training_data_3D/map.csv"], "among the training data"),
        (["raw", "--shares", "0", "0", "0"], "three shares"),
        ([], "Name the folder"),
        (["nowhere"], "not a folder"),
        (["empty"], "has nothing to prepare"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_nothing_is_written(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "raw").mkdir()
    np.save(tmp_path / "raw/a.npy", voxels_of())
    before = tree_of(tmp_path)
    with pytest.raises((UserError, DataError), match=message):
        prepare(*words)
    assert tree_of(tmp_path) == before


def test_other_constants_do_not_mix_with_what_is_there(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    np.save(raw / "a.npy", voxels_of())
    words = [raw, "--data_path", tmp_path / "v", "--collection", "a"]
    prepare(*words)
    with pytest.raises(DataError, match=r"other constants \(window was \[\], is \[0.0, 900.0\]\)"):
        prepare(*words, "--window", 0, 900)
    assert prepare(*words, "--window", 0, 900, "--overwrite") == 0
    assert rows_of(tmp_path / "v/a")[0]["dtype"] == "uint8"
    (tmp_path / "v/mine").mkdir()
    np.save(tmp_path / "v/mine/b.npy", voxels_of())
    with pytest.raises(DataError, match="were not prepared here"):
        prepare(raw, "--data_path", tmp_path / "v", "--collection", "mine")


def test_labels_that_somebody_wrote_stay(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    np.save(raw / "a.npy", voxels_of())
    words = [raw, "--data_path", tmp_path / "v", "--collection", "a", "--shares", 1, 0, 0]
    prepare(*words)
    name = f"a/{rows_of(tmp_path / 'v/a')[0]['file']}"
    np.save(tmp_path / "v/other.npy", voxels_of())
    (tmp_path / "v/labels.csv").write_text(f"path,label\n{name},sick\nother.npy,well\n", encoding="utf-8")
    np.save(raw / "b.npy", voxels_of(seed=1))
    prepare(*words)
    labels = {item.name: item.label for item in find_volumes(tmp_path / "v")}
    assert labels[name] == "sick" and labels["other.npy"] == "well" and len(labels) == 3


def test_a_second_call_at_the_same_time_and_a_folder_that_cannot_be_written_are_told(tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    raw.mkdir()
    np.save(raw / "a.npy", voxels_of())
    words = [raw, "--data_path", tmp_path / "v", "--collection", "a"]
    (tmp_path / "v").mkdir()
    handle = os.open(tmp_path / "v", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(DataError, match="another call is preparing"):
        prepare(*words)
    os.close(handle)
    assert prepare(*words) == 0

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr("datasets.manifest.Manifest.add", full)
    np.save(raw / "b.npy", voxels_of(seed=1))
    with pytest.raises(UserError, match=r"somewhere cannot be written \(No space left on device\); what is done stays"):
        prepare(*words)
    monkeypatch.undo()
    assert prepare(*words) == 0 and len(rows_of(tmp_path / "v/a")) == 2


def test_people_of_test_are_never_trained_on_whenever_a_call_is_killed(tmp_path):
    raw = tmp_path / "raw"
    for number in range(16):
        raw.mkdir(exist_ok=True)
        np.save(raw / f"{number}.npy", voxels_of((80, 80, 40), seed=number))
    words = [raw, "--data_path", tmp_path / "v", "--collection", "a", "--shares", "1", "0", "3"]
    command = [sys.executable, ROOT / "prepare_data.py", *map(str, words), "--processes", "1"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list((tmp_path / "v").rglob("*.npy"))) < 6:
            pass
        process.kill()
    there = {path.stem for path in (tmp_path / "v/a").glob("*.npy")}
    trained = {item.path.stem for item in find_volumes(tmp_path / "v")}
    prepare(*words)
    test = {row["case"] for row in rows_of(tmp_path / "v/a") if row["split"] == "test"}
    assert there & test and not trained & test


def test_half_of_a_file_with_several_volumes_does_not_stay(tmp_path):
    (tmp_path / "raw").mkdir()
    frames = np.stack([voxels_of(seed=0), voxels_of(seed=1), np.ones((22, 26, 9), np.int16)], -1)
    nibabel.save(nibabel.Nifti1Image(frames, np.eye(4)), tmp_path / "raw/a.nii")
    words = ["--data_path", tmp_path / "v", "--image_path", tmp_path / "p", "--collection", "a"]
    assert prepare(tmp_path / "raw", *words) == 1
    assert not [path for root in ("v", "p") for path in (tmp_path / root).rglob("*") if path.suffix in (".npy", ".png", ".tmp")]


def test_headers_that_are_alike_with_other_voxels_beside_them_are_two_files(tmp_path):
    for number in range(2):
        (tmp_path / f"raw/p{number}").mkdir(parents=True)
        SimpleITK.WriteImage(as_image(voxels_of(seed=number), affine_of()), str(tmp_path / f"raw/p{number}/image.mhd"))
    assert prepare(tmp_path / "raw", "--data_path", tmp_path / "v", "--collection", "a") == 0
    assert len(rows_of(tmp_path / "v/a")) == 2


def test_studies_tell_people_apart_where_their_numbers_were_taken_away(tmp_path):
    study = "1.2.3.4"
    for number in range(8):
        more = {"PatientID": "", "StudyInstanceUID": study if number % 2 else "1.2.3.5"}
        write_series(tmp_path / f"raw/{number}", voxels_of(seed=number), affine_of(), **more)
    prepare(tmp_path / "raw", "--data_path", tmp_path / "v", "--collection", "a")
    assert len({row["subject"] for row in rows_of(tmp_path / "v/a")}) == 2


def test_all_of_a_person_goes_where_one_of_her_files_must(tmp_path, capsys):
    for split in ("train", "test"):
        (tmp_path / "raw" / split).mkdir(parents=True)
        for person in range(3):
            np.save(tmp_path / f"raw/{split}/p{person}_{split}.npy", voxels_of(seed=person + 10 * len(split)))
    prepare(tmp_path / "raw", "--data_path", tmp_path / "v", "--collection", "a", "--subject", r"(p\d)_")
    assert {row["split"] for row in rows_of(tmp_path / "v/a")} == {"test"}
    assert "3 people are in several splits" in capsys.readouterr().out


def test_a_case_whose_name_begins_as_anothers_keeps_its_pictures(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("scan1", "scan10"):
        np.save(raw / f"{name}.npy", voxels_of(seed=len(name)))
    words = [raw, "--data_path", tmp_path / "v", "--image_path", tmp_path / "p", "--collection", "a", "--no_deidentify"]
    prepare(*words, "--shares", 1, 0, 0)
    before = len(list((tmp_path / "p").rglob("scan10_*.png")))
    (raw / "scan1.npy").unlink()
    prepare(*words, "--shares", 1, 0, 0, "--mirror")
    assert before and len(list((tmp_path / "p").rglob("scan10_*.png"))) == before
    assert not list((tmp_path / "p").rglob("scan1_*.png"))


def test_where_slices_are_missing_the_places_hold_from_both_ends(tmp_path):
    for name, turn in [("up", (0, 0, 0)), ("down", (180, 0, 0))]:
        voxels, affine = voxels_of(), affine_of(turn)
        write_series(tmp_path / name, voxels, affine, order=[0, 1, 2, 3, 5, 6, 7, 8])
        prepare(tmp_path / name, "--data_path", tmp_path / f"v{name}", "--collection", "a")
        (row,) = rows_of(tmp_path / f"v{name}/a")
        stored = np.load(tmp_path / f"v{name}/a" / row["file"])
        new = np.array(row["affine"].split(), float).reshape(3, 4)
        along = new[:, 2] / np.linalg.norm(new[:, 2])
        source = as_image(voxels, affine)
        for slice_, position in enumerate(map(float, row["positions"].split())):
            place = new[:, 0] * 3 + new[:, 1] * 4 + new[:, 3] + along * position
            index = np.rint(source.TransformPhysicalPointToContinuousIndex(place.tolist())).astype(int)
            back = source.TransformIndexToPhysicalPoint(index.tolist())
            assert np.abs(np.array(back) - place).max() < 0.01
            assert stored[3, 4, slice_] == source.GetPixel(index.tolist())
