from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.errors import DataError
from datasets.fit import fit_volume, robust_range
from datasets.preparing import prepare
from datasets.sources import volumes_of
from datasets.streamed import AnyFiles, Place, files_at, read_volume, streamed
from tests.dicom_series import write_series

SHOWN = SimpleNamespace(target_shape=(8, 20, 20), fit="shrink", normalise="robust")
# rows go to the feet and the back, columns to the left: nothing lies as it is looked at
AFFINE = np.array([[0.1, 0.9, 0, 12], [0.2, 0, 2.5, -40], [-1.1, 0, 0.2, 7], [0, 0, 0, 1.0]])


def voxels(seed: int, shape=(26, 30, 7)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-900, 900, shape).astype(np.int16)


def sources(root: Path) -> list:
    return files_at(root, 1)[1].sources


def test_a_series_its_nifti_file_and_its_prepared_array_are_shown_alike(tmp_path):
    write_series(tmp_path / "a_series", voxels(0), AFFINE, slope=2, intercept=-1024)
    ras = np.diag([-1.0, -1, 1, 1]) @ AFFINE[:, [1, 0, 2, 3]]
    stored = voxels(0).swapaxes(0, 1) * np.int16(2) - np.int16(1024)
    nibabel.save(nibabel.Nifti1Image(stored, ras), tmp_path / "b.nii.gz")
    series = sources(tmp_path)[0]
    assert series.kind == "series"
    np.save(tmp_path / "c.npy", prepare(volumes_of(series, "auto", "")[0]).voxels)
    files = AnyFiles(sources(tmp_path), SHOWN)
    parts = [files[(number, 0)]["parts"][0] for number in range(3)]
    for part in parts[1:]:
        assert torch.equal(part.slices, parts[0].slices) and (part.low, part.high) == (parts[0].low, parts[0].high)
    for name in ("a_series", "b.nii.gz", "c.npy"):
        assert np.array_equal(read_volume(tmp_path / name), read_volume(tmp_path / "c.npy"))


def test_each_volume_of_a_file_and_each_slice_of_a_volume_has_its_place(tmp_path):
    nibabel.save(nibabel.Nifti1Image(voxels(0, (26, 30, 5, 3)), np.eye(4)), tmp_path / "a.nii")
    np.save(tmp_path / "b.npy", voxels(1, (26, 30, 11)))
    Image.fromarray((voxels(2)[..., 0] + 900).astype(np.uint16)).save(tmp_path / "c.png")
    batch = next(iter(streamed(AnyFiles(sources(tmp_path), SHOWN), 3, 0)))
    assert batch["volumes"]["places"] == [Place(0, 0), Place(0, 1), Place(0, 2), Place(1)]
    assert batch["slices"]["places"] == [Place(2)] and batch["slices"]["pixels"].shape == (1, 20, 20)
    assert list(batch["volumes"]["on_host"]["count"]) == [5, 5, 5, 8]
    batch = next(iter(streamed(AnyFiles(sources(tmp_path), SHOWN, slices=True), 3, 0)))
    assert batch["volumes"] is None
    frames = [Place(0, frame, number) for frame in range(3) for number in range(5)]
    assert batch["slices"]["places"] == [*frames, *(Place(1, -1, number) for number in range(11)), Place(2)]
    expected = fit_volume(voxels(1, (26, 30, 11)), (11, 20, 20), None)
    assert torch.equal(batch["slices"]["pixels"][15:26].float(), expected.slices.float())
    low, high = robust_range(np.moveaxis(voxels(1, (26, 30, 11)), 2, 0))  # of the whole volume, not of a slice
    assert batch["slices"]["low"][15:26].tolist() == pytest.approx([low] * 11)
    assert batch["slices"]["high"][15:26].tolist() == pytest.approx([high] * 11)


def test_what_cannot_be_embedded_is_a_sentence_and_the_rest_goes_on(tmp_path):
    np.save(tmp_path / "a.npy", np.full((20, 20, 5), 3, np.int16))
    np.save(tmp_path / "b.npy", np.full((20, 20, 5), np.nan))
    np.save(tmp_path / "c.npy", voxels(0))
    Image.fromarray(voxels(1)[..., 0].astype(np.uint8)).save(tmp_path / "d.png")
    (tmp_path / "d.png").write_bytes((tmp_path / "d.png").read_bytes()[:300])
    batch = next(iter(streamed(AnyFiles(sources(tmp_path), SHOWN), 4, 0)))
    assert batch["files"] == [0, 1, 2, 3] and batch["volumes"]["places"] == [Place(2)] and batch["slices"] is None
    said = batch["faults"]
    assert sorted(said) == [0, 1, 3]
    assert "same value, 3" in said[0] and "NaN or infinite" in said[1] and "d.png cannot be read" in said[3]


def test_files_are_read_when_their_batch_is_due(tmp_path):
    for number in range(12):
        np.save(tmp_path / f"{number:02d}.npy", voxels(number))
    seen = []

    class Counted(AnyFiles):
        def __getitem__(self, place):
            seen.append(place[0])
            return super().__getitem__(place)

    batches = iter(streamed(Counted(sources(tmp_path), SHOWN), 2, 0))
    for due in range(1, 7):
        next(batches)
        assert seen == list(range(2 * due))


def test_copies_are_files_of_their_own(tmp_path):
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, voxels(0))
    assert [source.name for source in sources(tmp_path)] == ["a.npy", "b.npy"]


@pytest.mark.parametrize("name, says", [("two.nii", "holds 2 volumes"), ("one.png", "holds 0 volumes"), ("x.npy", "x.npy")])
def test_what_is_not_one_volume_is_refused(tmp_path, name, says):
    nibabel.save(nibabel.Nifti1Image(voxels(0, (9, 9, 5, 2)), np.eye(4)), tmp_path / "two.nii")
    Image.new("L", (20, 20)).save(tmp_path / "one.png")
    (tmp_path / "x.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=says):
        read_volume(tmp_path / name)
