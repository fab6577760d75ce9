"""Arrays that `prepare_data.py` has made are judged in mm, as the files they come from; a wrong manifest is refused."""

import csv
from pathlib import Path

import monai.metrics
import nibabel
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import prepare_data
from datasets.cases import Case
from datasets.errors import DataError
from datasets.manifest import COLUMNS, NAME
from datasets.scans import read_scan, scan_shape, stored_label
from engine.config import parse
from engine.segmentation_scores import score_volume

SHAPE, SPACING = (20, 9, 16), (0.7, 4.0, 1.1)  # slices are coronal
PREPARED = "--no_deidentify --processes 1 --slice_axis second --data_path".split()


def ball(middle, radius: float) -> np.ndarray:
    """A mask of the file's axes, round in mm."""
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING
    return np.linalg.norm(grid - np.multiply(middle, SPACING), axis=-1) < radius


TRUTH, FOUND = ball((9, 4, 8), 6.0), ball((11, 5, 7), 4.5)


@pytest.fixture
def raw(tmp_path) -> Path:
    """An anisotropic, oblique, flipped NIfTI file with its label and a prediction."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (8, -12, 5), degrees=True).as_matrix() * SPACING * (-1, 1, 1)
    affine[:3, 3] = 11, -35, 6
    image = np.random.default_rng(0).integers(0, 90, SHAPE).astype(np.int16) + 300 * TRUTH
    for kind, voxels in [("images", image), ("labels", 205 * TRUTH), ("found", 205 * FOUND)]:
        (tmp_path / "raw" / kind).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.int16), affine), tmp_path / "raw" / kind / "a.nii.gz")
    return tmp_path / "raw"


@pytest.fixture
def prepared(raw) -> Path:
    root = raw.parent / "prepared"
    for kind in ("images", "labels", "found"):
        words = [str(raw / kind), "--collection", kind, *PREPARED, str(root)]
        assert prepare_data.main(parse(prepare_data.PrepareConfig, words)) == 0
    return root


def case_of(root: Path, label: Path) -> Case:
    image = next((root / "images").glob("a.n*"))
    return Case(image, f"images/{image.name}", label)


def test_hd95_is_in_mm_and_that_of_the_file_itself(raw, prepared):
    oracle = monai.metrics.compute_hausdorff_distance(
        *(torch.from_numpy(mask[None, None]).float() for mask in (FOUND, TRUTH)), percentile=95, spacing=SPACING
    ).item()
    for root, ending in ((raw, "nii.gz"), (prepared, "npy")):
        truth, found = (stored_label(case_of(root, root / kind / f"a.{ending}")) for kind in ("labels", "found"))
        scan = read_scan(case_of(root, root / f"labels/a.{ending}"))
        (score,) = score_volume(found == 205, truth == 205, 1, scan.spacing, 2.0)
        assert score.unit == "mm" and score.hd95 == pytest.approx(oracle, rel=1e-5)
        assert scan.pixels.shape == scan_shape(case_of(root, root / f"labels/a.{ending}"))


def test_a_label_that_was_not_prepared_is_turned_as_its_prepared_image(raw, prepared):
    for root, other, endings in ((prepared, raw, ("npy", "nii.gz")), (raw, prepared, ("nii.gz", "npy"))):
        alike = stored_label(case_of(root, root / f"labels/a.{endings[0]}"))
        apart = stored_label(case_of(root, other / f"labels/a.{endings[1]}"))
        assert np.array_equal(alike, apart) and alike.any()


def test_a_label_that_lies_elsewhere_is_refused(raw, prepared):
    moved = nibabel.load(raw / "labels/a.nii.gz")
    moved.affine[0, 3] += 3
    nibabel.save(nibabel.Nifti1Image(moved.dataobj, moved.affine), raw / "labels/a.nii.gz")
    with pytest.raises(DataError, match=r"a\.nii\.gz lies 3 mm from its image .*images/a\.npy"):
        stored_label(case_of(prepared, raw / "labels/a.nii.gz"))


def changed(prepared: Path, **values) -> Case:
    """The case, after some columns of its row were changed."""
    path = prepared / "images" / NAME
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row | values for row in csv.DictReader(file)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return case_of(prepared, prepared / "labels/a.npy")


def test_a_spacing_without_a_place_is_in_mm_too(prepared):
    assert read_scan(changed(prepared, affine="", spacing="1.5 2 3")).spacing == (1.5, 2.0, 3.0)
    assert read_scan(changed(prepared, affine="", spacing="")).spacing is None


@pytest.mark.parametrize(
    "values, said",
    [
        ({"shape": "16 20 8"}, r"a\.npy has 16 20 8 voxels .*it has 16 20 9"),
        ({"affine": "", "spacing": "1 2"}, "has '1 2' as spacing of"),
        ({"affine": "", "spacing": "1 2 0"}, "has '1 2 0' as spacing of"),
        ({"affine": "1 0 x"}, "has '1 0 x' as affine of"),
    ],
)
def test_a_row_that_cannot_be_of_the_file_is_refused(prepared, values, said):
    with pytest.raises(DataError, match=rf"images/manifest\.csv .*{said}"):
        read_scan(changed(prepared, **values))


def test_files_that_no_manifest_of_ours_names_are_read_as_they_are(prepared):
    case = case_of(prepared, prepared / "labels/a.npy")
    for text in ("image,label\na.npy,b.npy\n", ",".join(COLUMNS) + "\n"):
        (prepared / "images" / NAME).write_text(text, encoding="utf-8")
        assert read_scan(case).spacing is None
