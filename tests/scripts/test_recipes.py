"""The recipes of docs/data.md, each run as it stands there on small files laid out as the data set is."""

import csv
import re
import shlex
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image

import prepare_data
from engine.config import parse
from tests.dicom_series import write_series
from tests.scripts.conftest import ROOT


def head(seed: int, shape=(24, 26, 12)) -> np.ndarray:
    grid = np.mgrid[tuple(slice(-1, 1, complex(0, n)) for n in shape)]
    rng = np.random.default_rng(seed)
    return ((grid**2).sum(0) < 0.7) * (300 + rng.integers(0, 200, shape)).astype(np.int16)


def nifti(path: Path, voxels: np.ndarray, spacing=(1, 1, 1)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*spacing, 1])), path)


def brats(root: Path) -> None:
    for case in range(3):
        for number, kind in enumerate(["flair", "t1", "t1ce", "t2", "seg"]):
            name = f"BraTS2021_{case:05d}"
            nifti(root / f"BraTS2021/{name}/{name}_{kind}.nii.gz", head(10 * case + number))


def luna(root: Path) -> None:
    for number in range(4):
        path = root / f"LUNA16/subset{number % 2}/1.3.6.1.4.1.{number}.mhd"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = SimpleITK.GetImageFromArray(np.moveaxis(head(number) - 1000, -1, 0).astype(np.int16))
        image.SetSpacing((0.7, 0.7, 2.5))
        SimpleITK.WriteImage(image, str(path))
        mask = root / f"LUNA16/seg-lungs-LUNA16/{path.name}"
        mask.parent.mkdir(exist_ok=True)
        SimpleITK.WriteImage(image > -900, str(mask), useCompression=True)
    (root / "LUNA16/candidates.csv").write_text("seriesuid,coordX,coordY,coordZ,class\n", encoding="utf-8")


def lits(root: Path) -> None:
    for number in range(3):
        nifti(root / f"LiTS/volume-{number}.nii", head(number), (0.8, 0.8, 5))
        nifti(root / f"LiTS/segmentation-{number}.nii", (head(number) > 0).astype(np.uint8), (0.8, 0.8, 5))


def decathlon(root: Path) -> None:
    task = root / "Task04_Hippocampus"
    for number in range(3):
        nifti(task / f"imagesTr/hippocampus_{number:03d}.nii.gz", head(number))
        nifti(task / f"labelsTr/hippocampus_{number:03d}.nii.gz", (head(number) > 0).astype(np.uint8))
        nifti(task / f"imagesTs/hippocampus_{number + 10:03d}.nii.gz", head(number + 10))
        (task / f"imagesTr/._hippocampus_{number:03d}.nii.gz").write_bytes(b"\0\5\x16\7")
    (task / "dataset.json").write_text("{}", encoding="utf-8")


def mmwhs(root: Path) -> None:
    for kind in ("ct", "mr"):
        for number in range(2):
            path = root / f"MM-WHS/{kind}_train/{kind}_train_{1001 + number}"
            nifti(path.with_name(path.name + "_image.nii.gz"), head(number + len(kind)))
            nifti(path.with_name(path.name + "_label.nii.gz"), (head(number) > 0).astype(np.int16) * 205)


def acdc(root: Path) -> None:
    for number in range(2):
        name = f"patient{number + 1:03d}"
        frames = np.stack([head(10 * number + time) for time in range(3)], -1)
        nifti(root / f"ACDC/training/{name}/{name}_4d.nii.gz", frames, (1.5, 1.5, 10))
        nifti(root / f"ACDC/training/{name}/{name}_frame01.nii.gz", frames[..., 0], (1.5, 1.5, 10))
        nifti(root / f"ACDC/training/{name}/{name}_frame01_gt.nii.gz", (frames[..., 0] > 0).astype(np.uint8), (1.5, 1.5, 10))


def vindr(root: Path) -> None:
    for number, split in enumerate(["train", "train", "test"]):
        pixels = np.random.default_rng(number).integers(0, 4096, (40, 36, 1)).astype(np.uint16)
        write_series(root / "VinDr-CXR" / split, pixels, np.eye(4), name=f"{number}abc.dicom", modality="DX", patient="")
        path = root / "VinDr-CXR" / split / f"{number}abc.dicom"
        header = pydicom.dcmread(path)
        del header.ImagePositionPatient, header.ImageOrientationPatient
        header.save_as(path)


def nih(root: Path) -> None:
    for number in range(8):
        path = root / f"NIH/images_00{1 + number % 2}/images/{number // 2:08d}_{number % 2:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (64, 64)).astype(np.uint8)).save(path)


# what comes out: volumes and people of each collection, or pictures and people
RECIPES = {
    "BraTS": (brats, {"BraTS_flair": (3, 3)}),
    "LUNA16": (luna, {"LUNA16": (4, 4)}),
    "LiTS": (lits, {"LiTS": (3, 3)}),
    "Medical Segmentation Decathlon": (decathlon, {"MSD_Hippocampus": (6, 6)}),
    "MM-WHS": (mmwhs, {"MMWHS_CT": (2, 2), "MMWHS_MR": (2, 2)}),
    "ACDC": (acdc, {"ACDC": (6, 2)}),
    "VinDr-CXR": (vindr, {"VinDr": (3, 3)}),
    "NIH ChestX-ray14": (nih, {"NIH": (8, 4)}),
}


def commands() -> dict[str, list[str]]:
    """The commands of each recipe, by its heading."""
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8").partition("## Recipes")[2]
    found = {}
    for section in text.split("\n### ")[1:]:
        heading = re.sub(r" \(.*", "", section.splitlines()[0])
        found[heading] = [line for block in re.findall(r"```\n(.*?)```", section, re.S) for line in block.splitlines()]
    return found


def test_every_recipe_is_tried():
    assert commands().keys() == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_prepares_files_laid_out_as_its_data_set(name, tmp_path, monkeypatch):
    make, expected = RECIPES[name]
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in commands()[name]:
        python, script, *words = shlex.split(command)
        assert (python, script) == ("python", "prepare_data.py")
        assert prepare_data.main(parse(prepare_data.PrepareConfig, words)) == 0
    for collection, (count, people) in expected.items():
        volumes = Path("training_data_3D") / collection / "manifest.csv"
        with open(volumes if volumes.is_file() else f"training_data_2D/{collection}.manifest.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == count and len({row["subject"] for row in rows}) == people
        splits = Counter(subject for subject, _ in {(row["subject"], row["split"]) for row in rows})
        assert set(splits.values()) == {1}
    if name == "VinDr-CXR":
        assert [row["split"] for row in rows].count("test") == 1
        assert {Image.open(path).mode for path in Path("training_data_2D").rglob("*.png")} == {"I;16"}
