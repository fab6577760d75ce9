"""Raw files of every kind → training data → check → stages 1 to 3 → report → embeddings → similar cases, by commands alone."""

import json
import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from engine.embedding_files import read_pieces
from run_pipeline import PipelineConfig, converted
from tests.dicom_series import write_series
from tests.scripts.conftest import ROOT, report_figures, run

LABELLED = ROOT.parent / "shared" / "data" / "labelled"
STAGES = ("ssl_swav_2D", "mask_swav_3D", "ssl_swav_3D")
WEIGHTS = ("--weights", "runs/p/weights/swav3D.pth")


def real_or_made(name: str, kind: str, count: int, real: bool) -> list[np.ndarray]:
    """(H, W, C) volumes of a public data set, or made ones."""
    if real:
        paths = [p for p in sorted((LABELLED / name / "train").glob(f"*.{kind}")) if "label" not in p.name][:count]
        if kind == "npz":
            return [np.load(path)["image"] for path in paths]
        return [np.asarray(nibabel.load(path).dataobj).swapaxes(0, 1) for path in paths]
    return [made(np.random.default_rng([number, *name.encode()])) for number in range(count)]


def made(rng: np.random.Generator) -> np.ndarray:
    """(H, W, C): two bright ellipsoids in noise, which no other volume has."""
    grid = np.mgrid[-1:1:40j, -1:1:38j, -1:1:12j]
    places, sizes = rng.uniform(-0.5, 0.5, (2, 3, 1, 1, 1)), rng.uniform(0.2, 0.9, (2, 3, 1, 1, 1))
    inside = [(((grid - place) / size) ** 2).sum(0) < 1 for place, size in zip(places, sizes)]
    return inside[0] * 120 + inside[1] * 60 + rng.integers(0, 60, grid.shape[1:])


def write_raw(raw: Path, real: bool) -> None:
    for folder in ("nifti", "arrays", "dicom", "other"):
        (raw / folder).mkdir(parents=True)
    for number, volume in enumerate(real_or_made("LA2018", "nii.gz", 4, real)):
        image = nibabel.Nifti1Image(volume.swapaxes(0, 1).astype(np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]))
        nibabel.save(image, raw / f"nifti/la{number}.nii.gz")
        label = nibabel.Nifti1Image((volume.swapaxes(0, 1) > 99).astype(np.uint8), image.affine)
        nibabel.save(label, raw / f"nifti/la{number}_label.nii.gz")
    for number, volume in enumerate(real_or_made("ACDC", "npz", 4, real)):
        np.savez_compressed(raw / f"arrays/patient{number // 2:03d}_frame{number % 2:02d}.npz", image=volume, label=volume > 99)
    brains = real_or_made("IBSR18", "nii.gz", 5, real)
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


def command(here: Path, script: str, *words: str) -> str:
    """What a script prints that ends well."""
    done = run(ROOT / script, *words, cwd=here)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def last_epoch(folder: Path) -> dict:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["kind"] == "epoch"][-1]


def nearest(said: str) -> list[tuple[float, str]]:
    """(cosine, file) of the table of similar cases, as it is printed."""
    rows = [line.split("│") for line in said.splitlines() if line.startswith("│")]
    return [(float(cosine), file.strip()) for _, cosine, file, *_ in rows]


def the_report_tells_the_figures_of_the_log(here: Path) -> None:
    page = (here / "runs/p/report.html").read_bytes()
    told, wanted = report_figures(page.decode()), ("images_loss", "loss", "r2_mean", "volumes_loss", "slices_rank")
    assert len(page) < 5e6
    for stage in STAGES:
        log = last_epoch(here / "runs/p" / stage)
        shown = {name: told[stage, name, "last"] for name in wanted if (stage, name, "last") in told}
        assert shown and shown == {name: log[name] for name in shown}, stage


def every_volume_finds_itself_and_then_others(here: Path) -> None:
    """Embeddings of the prepared folder; its files, and the raw ones that they were made of, as queries."""
    command(here, "embed.py", "volumes", *WEIGHTS, "--output", "embeddings.parquet")
    rows, blocks = zip(*read_pieces(here / "embeddings.parquet"))
    files = [row["file"] for of in rows for row in of]
    volumes = here / "volumes"
    assert files == sorted(path.relative_to(volumes).as_posix() for path in volumes.glob("*/*.npy"))
    embeddings = np.concatenate(blocks)
    assert len(embeddings) == len(files) and np.isfinite(embeddings).all()

    def similar(query: str, *words: str) -> list[tuple[float, str]]:
        return nearest(command(here, "embed.py", "--query", query, "--among", "embeddings.parquet", *words))

    shutil.copy(volumes / files[0], here / "copied.npy")
    cosines, names = zip(*similar("copied.npy", *WEIGHTS, "--nearest", "99"))
    assert cosines[0] == 1 and names[0] == files[0] and {*names} == {*files}
    assert list(cosines) == sorted(cosines, reverse=True) and -1 <= cosines[-1] < 0.9999
    for query in ("nifti/la0.nii.gz", "arrays/patient000_frame00.npz", "dicom/DOE^0", "other/brain.h5"):
        cosine, name = similar(f"raw/{query}", *WEIGHTS)[0]
        assert cosine == 1 and name.startswith(query.split("/")[0]), query
    by_name = [name for _, name in similar(files[0], "--nearest", "99")]
    assert len(by_name) == len(files) - 2  # neither itself nor the other frame of its subject


@pytest.mark.slow
@pytest.mark.parametrize(
    "real", [pytest.param(True, marks=pytest.mark.skipif(not LABELLED.is_dir(), reason="needs real volumes")), False]
)
def test_raw_files_become_weights_a_report_and_similar_cases_by_commands_alone(tmp_path, real):
    write_raw(tmp_path / "raw", real)
    for folder, more in [("nifti", []), ("arrays", ["--subject", r"(patient\d+)"]), ("dicom", []), ("other", [])]:
        words = ["--data_path", "volumes", "--image_path", "pictures", "--collection", folder, "--slice_step", "4", *more]
        command(tmp_path, "prepare_data.py", f"raw/{folder}", *words)
    for root in ("volumes", "pictures"):
        command(tmp_path, "prepare_data.py", "--check", "full", root)
    words = ["--data_path", "volumes", "--image_path", "pictures", *short_run(tmp_path)]
    assert "kNN volumes" in command(tmp_path, "run_pipeline.py", *words)
    the_report_tells_the_figures_of_the_log(tmp_path)
    every_volume_finds_itself_and_then_others(tmp_path)


@pytest.mark.slow
def test_the_pipeline_converts_a_folder_of_nifti_files_once(tmp_path, monkeypatch, capfd):
    write_raw(tmp_path / "raw", real=LABELLED.is_dir())
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
