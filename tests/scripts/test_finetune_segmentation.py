"""Runs of the segmentation script on volumes with bright discs, small enough to be learned in seconds."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import finetune_segmentation
import prepare_data
from datasets.label_map import LabelMap
from engine.config import parse
from engine.errors import UserError
from finetune_segmentation import SegmentationConfig
from models.downstream import read_downstream
from tests.discs import write_discs
from tests.scripts.conftest import events, run

ROOT = Path(finetune_segmentation.__file__).parent
SMALL = "--arch resnet18 --d_model 32 --precision fp32 --workers 0 --image_size 32 32 --base_lr 3e-3".split()
SHORT = "--epochs 2 --epoch_steps 3 --batch_size 4 --score_every 1".split()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two frames each of ten people: a bright disc (5) and a dark one (9), which lie elsewhere in each."""
    monkeypatch.chdir(tmp_path)
    write_discs(tmp_path / "data")
    return tmp_path


def fine_tune(*words):
    finetune_segmentation.main(parse(SegmentationConfig, ["--data_path", "data", *SMALL, *SHORT, *words]))


def results(folder="runs/finetune_segmentation"):
    return json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))


def test_discs_are_learned_and_judged_by_the_volume(here):
    fine_tune("--epochs", "5", "--epoch_steps", "12", "--batch_size", "8")
    of_test = results()["test"]
    assert of_test["mean"]["dice"]["value"] > 0.6 and of_test["unit"] == "voxel"
    assert of_test["volumes"] == 2 * of_test["subjects"] > 0 and set(of_test["classes"]) == {"5", "9"}
    with open("runs/finetune_segmentation/cases.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == of_test["volumes"] * 2
    assert Path("runs/finetune_segmentation/best_median_worst_test.png").exists()
    assert [of.step for of in events("runs/finetune_segmentation").Images("validation")] == [12, 24, 36, 48, 60]
    about = read_downstream("weights/segmentation.pth", "segmentation").about
    assert about["classes"] == ["5", "9"] and about["image_size"] == [32, 32] and about["network"]["arch"] == "resnet18"


def test_steps_see_crops_of_the_plane_and_whole_slices_are_judged(here, monkeypatch):
    seen = []
    plain = finetune_segmentation.SliceUNet.forward

    def noted(net, pixels, real):
        seen.append(pixels.shape)
        return plain(net, pixels, real)

    monkeypatch.setattr(finetune_segmentation.SliceUNet, "forward", noted)
    sizes = "--image_size 64 64 --crop_size 32 32"
    fine_tune(*f"{sizes} --epochs 6 --epoch_steps 12 --batch_size 8".split())
    assert set(seen) == {(8, 1, 32, 32)} and results()["test"]["mean"]["dice"]["value"] > 0.5
    assert read_downstream("weights/segmentation.pth", "segmentation").about["image_size"] == [64, 64]


@pytest.mark.parametrize("fill, message", [(np.nan, "NaN or infinite"), (3.0, "same value, 3.0")])
def test_a_volume_that_cannot_be_judged_is_said_before_anything_is_learned(here, fill, message):
    path = Path("data/patient009_frame02.npz")
    with np.load(path) as stored:
        np.savez(path, image=np.full(stored["image"].shape, fill, np.float32), label=stored["label"])
    with pytest.raises(ValueError, match=message):
        fine_tune("--test_cases", "patient009")
    assert not Path("runs").exists()


def test_seeds_are_runs_of_their_own_with_one_mean(here, capsys):
    fine_tune("--seeds", "1", "2", "--labelled", "2", "--evaluate", "valid", "--context")
    of_valid = results()["valid"]
    assert of_valid["seeds"] == [1, 2] and of_valid["mean"]["dice"]["seeds"].keys() == {"1", "2"}
    said = capsys.readouterr().out
    assert said.count("train: 4 volumes of 2 subjects, drawn from ") == 2 and "; valid: 2 volumes of 1 subject; test: " in said
    assert Path("weights/segmentation-1.pth").exists() and Path("runs/finetune_segmentation/seed-2/metrics.jsonl").exists()


def test_a_finished_run_is_judged_again_with_the_same_weights(here):
    fine_tune("--evaluate", "valid")
    before, weights = results(), torch.load("weights/segmentation.pth", weights_only=True)["model"]
    fine_tune("--evaluate", "both")
    assert results()["valid"] == before["valid"] and "test" in results()
    again = torch.load("weights/segmentation.pth", weights_only=True)["model"]
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    fine_tune("--evaluate", "test")
    pictures = [path.name for path in Path("runs/finetune_segmentation").glob("*.png")]
    assert "valid" not in results() and pictures == ["best_median_worst_test.png"]
    fine_tune("--evaluate", "none", "--epochs", "1", "--seed", "2", "--overwrite")
    left = {path.name for path in Path("runs/finetune_segmentation").iterdir()}
    assert not left & {"results.json", "cases.csv", "best_median_worst_test.png"}


def test_a_stage_whose_weights_are_frozen_keeps_them(here):
    resnet = finetune_segmentation.starting_encoders("", "resnet18", 32, False)[0].slice_encoder.resnet
    Path("weights").mkdir()
    torch.save({name: value for name, value in resnet.state_dict().items()}, "weights/start.pth")
    for tune in ("frozen", "linear"):
        fine_tune("--start_from", "start.pth", "--tune", tune, "--evaluate", "none", "--overwrite")
        state = read_downstream("weights/segmentation.pth").state
        own = {name.removeprefix("slice_encoder.resnet."): value for name, value in state.items() if "resnet" in name}
        assert all(torch.equal(own[name], value) for name, value in resnet.state_dict().items())


def test_pretrained_weights_learn_at_their_share_of_the_rate(here):
    resnet = finetune_segmentation.starting_encoders("", "resnet18", 32, False)[0].slice_encoder.resnet
    Path("weights").mkdir()
    torch.save(resnet.state_dict(), "weights/start.pth")
    moved = []
    for share in ("1", "0.01"):
        fine_tune(
            "--start_from", "start.pth", "--pretrained_rate", share, "--evaluate", "none", "--keep", "last", "--overwrite"
        )
        state = read_downstream("weights/segmentation.pth").state
        moved.append((state["slice_encoder.resnet.conv1.weight"] - resnet.conv1.weight.detach()).norm())
    assert 0 < moved[1] < 0.05 * moved[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--classes", "5"], "unmapped label values: 9"),
        (["--classes", "4", "--other_labels", "background"], "has any foreground"),
        (["--classes", "5", "9", "--class_names", "disc"], "1 names are given for 2 classes"),
        (["--class_names", "disc"], "1 names are given for 2 classes"),
        (["--class_names", "disc", "disc"], "'disc', 'disc', are not all different; give each its own"),
        (["--seeds", "3", "3"], "--seeds 3 3 names a seed twice"),
        (["--labelled", "50"], "--labelled 50 asks for more"),
        (["--image_size", "30", "32"], "--image_size is 30 32; it must be a multiple of 32"),
        (["--crop_size", "32", "30"], "--crop_size is 32 30; it must be a multiple of 32, or all"),
        (["--crop_size", "32", "64"], "--crop_size 32 64 is more than the plane of 32 x 32"),
        (["--slices_per_volume", "32"], "--slices_per_volume 32 is more than --batch_size 4"),
        (["--slices_per_volume", "3"], "--slices_per_volume 3 does not divide --batch_size 4"),
        (["--channel", "-1"], "--channel is -1; it must be 0 or above"),
        (["--channel", "3"], "has one channel, of which --channel 3 is none"),
        (["--batch_size", "1", "--image_size", "64", "64", "--crop_size", "32", "32"], "raise --batch_size or --crop_size"),
        (["--batch_size", "1"], "One slice of 32 x 32 is too little for batch norm"),
        (["--valid_cases", "patient077"], "is in the name of no case"),
    ],
)
def test_what_cannot_be_is_one_sentence(here, words, sentence):
    with pytest.raises(ValueError, match=sentence):
        fine_tune(*words)
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", ["--context --batch_size 2", "--context --slices_per_volume 4 --batch_size 4"])
def test_volumes_of_one_slice_are_counted_as_such(here, words):
    for path in sorted(Path("data").glob("*.npz")):
        with np.load(path) as file:
            flat = {name: voxels[:, :, 2:3] for name, voxels in file.items()}
        np.savez(path, **flat)
    with pytest.raises(UserError, match="One slice of 32 x 32 is too little for batch norm; raise --batch_size"):
        fine_tune(*words.split())
    fine_tune(*words.split(), "--batch_size", "8", "--evaluate", "none", "--epochs", "1")


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("", 1),
        ("--context", 2),
        ("--context --batch_size 1", 1),
        ("--context --slices_per_volume 4", 4),
        ("--slices_per_volume 8", 8),
    ],
)
def test_with_context_two_slices_of_a_volume_are_in_a_step_or_as_many_as_are_asked_for(words, count):
    assert finetune_segmentation.slices_of_one_volume(parse(SegmentationConfig, ["--data_path", "x", *words.split()])) == count


def test_a_subject_in_two_splits_is_refused(here):
    for split, frame in [("train", 1), ("valid", 2)]:
        (here / "data" / split).mkdir()
        (here / f"data/patient001_frame0{frame}.npz").rename(here / f"data/{split}/patient001_frame0{frame}.npz")
    with pytest.raises(ValueError, match="Subject patient001 is in two splits"):
        fine_tune()


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not_and_two_processes_as_one(here):
    words = ["--data_path", "data", *SMALL, *SHORT, "--precision", "fp64", "--context"]
    fine_tune("--precision", "fp64", "--context", "--dump_path", "runs/whole", "--checkpoint_name", "whole.pth")
    driver = Path(__file__).with_name("disturbed.py")
    stopped = run(driver, "finetune_segmentation", here, "SIGTERM", 0, 2, *words, cwd=here)
    assert stopped.returncode == 75, stopped.stderr[-2000:]
    done = run(ROOT / "finetune_segmentation.py", *words, cwd=here)
    assert done.returncode == 0, done.stderr[-2000:]
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", ROOT / "finetune_segmentation.py"]
    words += ["--slices_per_volume", "2"]
    shared = [*words, "--batch_size", "2", "--dump_path", "runs/two", "--checkpoint_name", "two.pth"]
    one = [*words, "--dump_path", "runs/one", "--checkpoint_name", "one.pth"]
    for command in ([*two, *shared], [ROOT / "finetune_segmentation.py", *one]):
        done = run(*command, cwd=here)
        assert done.returncode == 0, done.stderr[-2000:]
    states = {name: read_downstream(f"weights/{name}.pth").state for name in ("whole", "segmentation", "one", "two")}
    assert all(torch.equal(states["whole"][name], value) for name, value in states["segmentation"].items())
    for name, value in states["one"].items():
        # AdamW makes a step of a gradient that is nothing but rounding; what is dealt wrongly moves weights by 1e-4
        torch.testing.assert_close(states["two"][name], value, rtol=1e-7, atol=1e-7)


def test_a_test_split_that_is_empty_is_told(here):
    with pytest.raises(UserError, match="No file is in the split test"):
        finetune_segmentation.refuse_empty({"train": [1], "valid": [], "test": []}, "test")


def test_values_of_judged_labels_that_no_class_has_are_told_before_the_training(here):
    for path in sorted(Path("data").glob("*.npz"))[:4]:
        with np.load(path) as file:
            image, label = file["image"], file["label"].copy()
        label[0, 0, 0] = 7
        np.savez(path, image=image, label=label)
    with pytest.raises(ValueError, match="unmapped label values: 7"):
        fine_tune("--test_cases", "patient000", "patient001")
    assert not Path("runs").exists()


def test_prepared_volumes_are_judged_in_mm(here):
    """Their spacing is the manifest's."""
    affine = np.diag([0.7, 0.7, 4.0, 1.0])
    for path in sorted(Path("data").glob("*_frame01.npz")):
        for kind, voxels in np.load(path).items():
            Path("raw", kind).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels.swapaxes(0, 1), affine), f"raw/{kind}/{path.stem}.nii.gz")
    for kind in ("image", "label"):
        words = [f"raw/{kind}", "--collection", f"{kind}s", "--data_path", "prepared", "--no_deidentify", "--processes", "1"]
        assert prepare_data.main(parse(prepare_data.PrepareConfig, words)) == 0
    fine_tune("--data_path", "prepared")
    of_test = results()["test"]
    assert of_test["unit"] == "mm"
    with open("runs/finetune_segmentation/cases.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missed = [float(row["hd95"]) for row in rows if row["status"] == "missed"]
    assert {row["unit"] for row in rows} == {"mm"}
    assert missed == pytest.approx([np.hypot(np.hypot(30 * 0.7, 28 * 0.7), 5 * 4.0)] * len(missed))


@pytest.mark.parametrize("preset", ["acdc", "brats", "la2018", "mmwhs_ct", "mmwhs_mr", "msd", "msd_brats"])
def test_presets_are_constants_that_the_script_knows(preset):
    config, plain = parse(SegmentationConfig, ["--preset", preset]), parse(SegmentationConfig, [])
    changed = {name for name, value in vars(config).items() if value != getattr(plain, name)}
    assert changed > {"preset"} and len(config.classes) == len(config.class_names)
    assert parse(SegmentationConfig, ["--preset", preset, "--epochs", "3"]).epochs == 3


def test_the_odd_value_of_one_mr_label_map_is_the_left_atrium():
    config = parse(SegmentationConfig, ["--preset", "mmwhs_mr"])
    stored = LabelMap.from_words(config.classes, config.class_names).classes_of(np.array([[[0, 205, 420, 421]]]), Path("x"))
    assert stored.tolist() == [[[0, 1, 2, 2]]] and config.class_names[1] == "left atrium"
