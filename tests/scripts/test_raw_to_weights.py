"""Raw files of every kind → training data → check → stages 1 to 3, by commands alone."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from run_pipeline import PipelineConfig, converted
from tests.dicom_series import write_series
from tests.scripts.conftest import ROOT, run

LABELLED = ROOT.parent / "shared" / "data" / "labelled"


def real_or_made(name: str, kind: str, count: int) -> list[np.ndarray]:
    """(H, W, C) volumes of a public data set, where those are; else made ones."""
    if LABELLED.is_dir():
        paths = [p for p in sorted((LABELLED / name / "train").glob(f"*.{kind}")) if "label" not in p.name][:count]
        if kind == "npz":
            return [np.load(path)["image"] for path in paths]
        return [np.asarray(nibabel.load(path).dataobj).swapaxes(0, 1) for path in paths]
    grid = np.mgrid[-1:1:40j, -1:1:38j, -1:1:12j]
    rngs = [np.random.default_rng(number + len(name)) for number in range(count)]
    return [((grid**2).sum(0) < r.uniform(0.4, 0.9)) * 120 + r.integers(0, 60, (40, 38, 12)) for r in rngs]


def write_raw(raw: Path) -> None:
    for folder in ("nifti", "arrays", "dicom", "other"):
        (raw / folder).mkdir(parents=True)
    for number, volume in enumerate(real_or_made("LA2018", "nii.gz", 4)):
        image = nibabel.Nifti1Image(volume.swapaxes(0, 1).astype(np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]))
        nibabel.save(image, raw / f"nifti/la{number}.nii.gz")
        label = nibabel.Nifti1Image((volume.swapaxes(0, 1) > 99).astype(np.uint8), image.affine)
        nibabel.save(label, raw / f"nifti/la{number}_label.nii.gz")
    for number, volume in enumerate(real_or_made("ACDC", "npz", 4)):
        np.savez_compressed(raw / f"arrays/patient{number // 2:03d}_frame{number % 2:02d}.npz", image=volume, label=volume > 99)
    brains = real_or_made("IBSR18", "nii.gz", 5)
    affine = np.array([[0, 1.5, 0.1, -70], [1.5, 0, 0, -90], [0, -0.1, 1.5, -40], [0, 0, 0, 1]])
    affine[:3, 2] = np.cross(affine[:3, 1], affine[:3, 0]) / 1.5
    for number, volume in enumerate(brains[:2]):
        write_series(raw / f"dicom/DOE^{number}", volume.astype(np.int16), affine, number=str(number), modality="MR")
    image = SimpleITK.GetImageFromArray(np.moveaxis(brains[2], -1, 0).astype(np.int16))
    SimpleITK.WriteImage(image, str(raw / "other/brain.nrrd"), useCompression=True)
    pages = [Image.fromarray(np.ascontiguousarray(brains[3][:, :, i]).astype(np.uint16)) for i in range(brains[3].shape[2])]
    pages[0].save(raw / "other/brain.tif", save_all=True, append_images=pages[1:])
    with h5py.File(raw / "other/brain.h5", "w") as file:
        file["image"] = brains[4]


def short_run(folder: Path) -> list[str]:
    """Flags of a pipeline of few steps."""
    of_crops = "size_crops: [32]\nnmb_crops: [2]\nmin_scale_crops: [0.3]\nmax_scale_crops: [1.0]\n"
    for name, constants in [("s1", f"batch_size: 32\n{of_crops}"), ("s23", "batch_size: 4\n")]:
        (folder / f"{name}.yaml").write_text(f"epochs: 1\nwarmup_epochs: 0\n{constants}", encoding="utf-8")
    words = "--name p --arch resnet18 --target_shape 8 32 32 --stage1 s1.yaml --stage2 s23.yaml --stage3 s23.yaml --workers 0"
    return words.split()


@pytest.mark.slow
def test_raw_files_of_every_kind_become_weights_by_commands_alone(tmp_path):
    write_raw(tmp_path / "raw")
    for folder, more in [("nifti", []), ("arrays", ["--subject", r"(patient\d+)"]), ("dicom", []), ("other", [])]:
        words = ["--data_path", "volumes", "--image_path", "pictures", "--collection", folder, "--slice_step", "4", *more]
        done = run(ROOT / "prepare_data.py", f"raw/{folder}", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for root in ("volumes", "pictures"):
        done = run(ROOT / "prepare_data.py", "--check", "full", root, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    words = short_run(tmp_path)
    done = run(ROOT / "run_pipeline.py", "--data_path", "volumes", "--image_path", "pictures", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs/p/weights/swav3D.pth").is_file()
    assert "kNN volumes" in done.stdout


@pytest.mark.slow
def test_the_pipeline_converts_a_folder_of_nifti_files_once(tmp_path, monkeypatch, capfd):
    write_raw(tmp_path / "raw")
    first = run(ROOT / "run_pipeline.py", "--data_path", "raw", "--keep_names", *short_run(tmp_path), cwd=tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    assert "converted once" in first.stdout and "reads" in first.stdout and "writes about" in first.stdout
    volumes = tmp_path / "runs/p/volumes"
    names = sorted(path.relative_to(volumes).as_posix() for path in volumes.glob("*/*.npy"))
    assert "nifti/la0.npy" in names and not any("label" in name for name in names) and len(names) == 4 + 4 + 2 + 3
    (tmp_path / "raw/nifti/la3.nii.gz").unlink()
    monkeypatch.chdir(tmp_path)
    converted(PipelineConfig(name="p", data_path="raw", keep_names=True))
    assert "12 are there already" in capfd.readouterr().out
    assert sorted(path.relative_to(volumes).as_posix() for path in volumes.glob("*/*.npy")) == sorted(
        {*names} - {"nifti/la3.npy"}
    )
    converted(PipelineConfig(name="q", data_path="raw"))  # nobody's name
    assert len(list(Path("runs/q/volumes/volumes").glob("c*.npy"))) == 12
    assert not any("la0" in str(path) or "DOE" in str(path) for path in Path("runs/q").rglob("*"))
