"""Prediction from weight files of all three downstream scripts, on made volumes and pictures."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import finetune_classification
import finetune_detection
import finetune_segmentation
import predict
from engine.config import parse
from engine.errors import UserError, speaking_to_people
from models.errors import WeightsError
from tests.scripts.conftest import make_data, write_labels

RUN = "--arch resnet18 --precision fp32 --workers 0 --epochs 1 --evaluate none --keep last".split()
AFFINE = np.array([[0, -0.9, 0.1, 12], [1.1, 0, 0, -40], [0, 0.1, 2.5, 7], [0, 0, 0, 1.0]])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    Path("scans").mkdir()
    for number in range(5):
        label = np.zeros((20, 24, 6), np.int16)
        label[6:12, 8:15, 2:4] = 205
        image = draws.normal(0, 5, label.shape) + label
        for kind, voxels in [("image", image.astype(np.int16)), ("label", label)]:
            nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), f"scans/c{number}_{kind}.nii.gz")
    return tmp_path


def predicted(*words):
    predict.main(parse(predict.PredictionConfig, ["--workers", "0", "--output", "out", *words]))


def table() -> list[dict]:
    with open("out/predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("normalise", ["robust", "volume"])
def test_volumes_become_label_maps_that_lie_where_they_do(here, normalise):
    flags = [*RUN, "--data_path", "scans", "--d_model", "32", "--epoch_steps", "12", "--base_lr", "3e-3", "--context"]
    words = [*flags, "--epochs", "3", "--normalise", normalise]
    finetune_segmentation.main(parse(finetune_segmentation.SegmentationConfig, words))
    predicted("--weights", "weights/segmentation.pth", "--data_path", "scans")
    made = sorted(path.name for path in Path("out").iterdir())
    assert made == [*(f"c{number}_image.nii.gz" for number in range(5)), "predictions.json"]
    map_, truth = nibabel.load("out/c1_image.nii.gz"), nibabel.load("scans/c1_label.nii.gz")
    np.testing.assert_allclose(map_.affine, truth.affine, atol=1e-4)
    found, real = map_.get_fdata(), truth.get_fdata()
    assert set(np.unique(found)) <= {0, 205} and 2 * ((found == 205) & (real == 205)).sum() / ((found + real) / 205).sum() > 0.5


def test_a_channel_is_learned_from_and_predicted_where_it_lies(here, capsys):
    Path("four/imagesTr").mkdir(parents=True)
    Path("four/labelsTr").mkdir()
    draws = np.random.default_rng(1)
    for number in range(5):
        plain, label = (nibabel.load(f"scans/c{number}_{kind}.nii.gz") for kind in ("image", "label"))
        noise = draws.normal(0, 5, (*plain.shape, 3))
        channels = np.insert(noise, 2, plain.get_fdata(), axis=3)  # the third one shows what is to be found
        nibabel.save(nibabel.Nifti1Image(channels.astype(np.int16), AFFINE), f"four/imagesTr/c{number}.nii.gz")
        nibabel.save(label, f"four/labelsTr/c{number}.nii.gz")
    flags = [*RUN, "--data_path", "four", "--preset", "msd", "--epoch_steps", "12", "--epochs", "3", "--base_lr", "3e-3"]
    fine_tune = lambda *words: finetune_segmentation.main(  # noqa: E731
        parse(finetune_segmentation.SegmentationConfig, [*flags, "--d_model", "32", *words])
    )
    with pytest.raises(SystemExit) as stop, speaking_to_people():
        fine_tune()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "imagesTr/c" in said and "has 4 channels" in said and "choose one with --channel" in said
    fine_tune("--channel", "2")
    predicted("--weights", "weights/segmentation.pth", "--data_path", "four/imagesTr")
    map_, truth = nibabel.load("out/c1.nii.gz"), nibabel.load("four/labelsTr/c1.nii.gz")
    assert map_.shape == truth.shape and map_.header.get_zooms() == truth.header.get_zooms()
    np.testing.assert_array_equal(map_.affine, nibabel.load("four/imagesTr/c1.nii.gz").affine)
    found, real = map_.get_fdata() > 0, truth.get_fdata() > 0
    assert 2 * (found & real).sum() / (found.sum() + real.sum()) > 0.5
    with pytest.raises(ValueError, match=r"has 4 channels .*of which --channel 4 is none"):
        predicted("--weights", "weights/segmentation.pth", "--data_path", "four/imagesTr", "--channel", "4", "--overwrite")


def test_label_maps_that_are_there_are_made_again_on_request_alone(here, capsys):
    flags = [*RUN, "--data_path", "scans", "--epoch_steps", "1"]
    finetune_segmentation.main(parse(finetune_segmentation.SegmentationConfig, flags))
    predicted("--weights", "weights/segmentation.pth", "--data_path", "scans")
    Path("out/c3_image.nii.gz").unlink()
    before = Path("out/c0_image.nii.gz").stat().st_mtime_ns
    predicted("--weights", "weights/segmentation.pth", "--data_path", "scans")
    said = capsys.readouterr().out
    assert "wrote 1 new label map to out; 4 were there." in said
    assert "4 of 5 are there already" in said and Path("out/c3_image.nii.gz").exists()
    assert "weights/segmentation.pth: segmentation of 205." in said
    assert "5 files were taken for labels by name and left out (c0_label.nii.gz, " in said
    assert Path("out/c0_image.nii.gz").stat().st_mtime_ns == before
    predicted("--weights", "weights/segmentation.pth", "--data_path", "scans", "--overwrite")
    assert Path("out/c0_image.nii.gz").stat().st_mtime_ns > before
    others = ["--other_labels", "background", "--classes", "205", "--class_names", "cube", "--checkpoint_name", "other.pth"]
    others += ["--dump_path", "runs/other"]
    finetune_segmentation.main(parse(finetune_segmentation.SegmentationConfig, [*flags, *others]))
    with pytest.raises(
        UserError, match=r"out holds predictions of other weights \(weights/segmentation\.pth\); choose another"
    ):
        predicted("--weights", "weights/other.pth", "--data_path", "scans")
    before = Path("out/c0_image.nii.gz").stat().st_mtime_ns
    predicted("--weights", "weights/other.pth", "--data_path", "scans", "--overwrite")
    assert Path("out/c0_image.nii.gz").stat().st_mtime_ns > before
    with pytest.raises(UserError, match="--output scans/out is inside --data_path scans"):
        predicted("--weights", "weights/other.pth", "--data_path", "scans", "--output", "scans/out")


def test_pictures_and_volumes_get_the_probabilities_that_the_network_gives_them(here, capsys):
    make_data(here, volumes=10, images=8)
    for flag, folder, files in [("--image_path", "images", 12), ("--data_path", "volumes", 10)]:
        names = sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.*") if path.suffix != ".csv")
        write_labels(Path(folder), [f"{name},{number % 2},train" for number, name in enumerate(names)])
        flags = [*RUN, flag, folder, "--image_size", "32", "--target_shape", "6", "24", "24", "--d_model", "32", "--overwrite"]
        finetune_classification.main(parse(finetune_classification.ClassificationConfig, [*flags, "--batch_size", "2"]))
        if flag == "--data_path":
            with pytest.raises(UserError, match=r"out holds predictions of other weights .* and another folder"):
                predicted("--weights", "weights/classification.pth", flag, folder)
        predicted("--weights", "weights/classification.pth", flag, folder, "--overwrite")
        said = capsys.readouterr().out
        assert "weights/classification.pth: classification of 0, 1." in said
        assert f"wrote out/predictions.csv ({files} rows)" in said
        rows = table()
        assert len(rows) == files and all(Path(folder, row["path"]).exists() for row in rows)
        shares = np.array([[float(row["p(0)"]), float(row["p(1)"])] for row in rows])
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
        assert [row["class"] for row in rows] == [str(place) for place in shares.argmax(1)]


def test_boxes_are_inside_their_pictures(here, capsys):
    make_data(here, volumes=1, images=8)
    Path("images/labels.csv").unlink()
    names = sorted(path.relative_to("images").as_posix() for path in Path("images").rglob("*.png"))
    rows = ["file,x,y,w,h,finding,split", *(f"{name},3,4,9,8,disc,train" for name in names)]
    Path("images/boxes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    flags = [*RUN, "--data_path", "images", "--side", "64", "--batch_size", "2", "--least_score", "0"]
    finetune_detection.main(parse(finetune_detection.DetectionConfig, flags))
    predicted("--weights", "weights/detection.pth", "--image_path", "images")
    assert "weights/detection.pth: detection of disc." in capsys.readouterr().out
    for row in table():
        x, y, w, h = (float(row[side]) for side in "xywh")
        assert -0.01 <= x and x + w <= 34.01 and -0.01 <= y and y + h <= 30.01 and row["finding"] == "disc"
    assert table()


def test_what_does_not_go_together_is_one_sentence(here):
    with pytest.raises(UserError, match="No network is named"):
        predicted("--data_path", "scans")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "resnet.pth")
    with pytest.raises(WeightsError, match=r"resnet\.pth is no such file; a weight file that finetune_segmentation\.py or"):
        predicted("--weights", "resnet.pth", "--data_path", "scans")
    finetune_segmentation.main(
        parse(finetune_segmentation.SegmentationConfig, [*RUN, "--data_path", "scans", "--epoch_steps", "1"])
    )
    with pytest.raises(UserError, match="is a network for volumes; name their folder with --data_path"):
        predicted("--weights", "weights/segmentation.pth", "--image_path", "scans")
