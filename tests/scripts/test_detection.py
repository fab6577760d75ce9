"""finetune_detection.py on made radiographs: discs are the findings."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

import finetune_detection
import predict
from engine.config import parse, preset_file
from finetune_detection import DetectionConfig, main
from models.detector import BACKBONE, make_detector, rebuilt
from models.downstream import read_downstream
from tests.scripts.conftest import events, run
from tests.scripts.test_errors import refused

SCRIPT = Path(__file__).parents[2] / "finetune_detection.py"
SMALL = "--arch resnet18 --side 64 --proposals 32 --batch_size 4 --workers 0 --precision fp32 --warmup_epochs 0".split()


COUNTS = {"train": 8, "valid": 2, "test": 4}


def make_radiographs(root: Path, counts: dict[str, int] = COUNTS, side: int = 64) -> None:
    """Noise with a large bright disc on the left and a small dark one on the right, or without the latter."""
    rng = np.random.default_rng(0)
    lines = ["file,x,y,w,h,finding,subject"]
    for split, count in counts.items():
        for number in range(count):
            pixels = rng.normal(100, 12, (side, side))
            for finding, radius, left in [("bright", 10, 16), ("dark", 6, 46)][: 1 + number % 2]:
                row, column = rng.integers(16, 46), left + rng.integers(-3, 4)
                rows, columns = np.mgrid[:side, :side]
                pixels[np.hypot(rows - row, columns - column) < radius] += 90 if finding == "bright" else -80
                box = column - radius, row - radius, 2 * radius + 1, 2 * radius + 1
                lines.append(
                    f"{number}.png,{','.join(map(str, box))},{finding},{split}-{number}".replace("png", f"{split}.png")
                )
            (root / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / split / f"{number}.{split}.png")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("radiographs")
    make_radiographs(root)
    return root


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def learn(radiographs, *words):
    main(parse(DetectionConfig, [*SMALL, "--data_path", str(radiographs), *map(str, words)]))


def logged(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "valid_map" in line or "seconds" in line]


def test_a_short_run_learns_and_writes_what_prediction_needs(radiographs, tmp_path):
    learn(radiographs, "--epochs", 2, "--score_every", 2, "--evaluate", "both", "--base_lr", 5e-4)
    folder = tmp_path / "runs/finetune_detection"
    assert len(events(folder).Images("views")) == 2
    losses = [line["loss"] for line in logged(folder)]
    assert losses[-1] < losses[0]
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["pictures"] == {"train": 8, "valid": 2, "test": 4} and results["epoch"] == 2
    assert set(results["test"]["findings"]) == {"bright", "dark"} and results["valid"]["boxes"] == 3
    rows = list(csv.DictReader((folder / "cases.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["split"] for row in rows] == ["valid"] * 2 + ["test"] * 4
    weights = read_downstream("weights/detection.pth", "detection")
    assert weights.about["findings"] == ["bright", "dark"]
    assert (weights.about["side"], weights.about["normalise"], weights.about["method"]) == (64, "robust", "random")
    with torch.no_grad():
        assert len(rebuilt(weights)(torch.randn(2, 1, 64, 64))) == 2


@pytest.mark.slow
def test_discs_are_found(tmp_path):
    make_radiographs(tmp_path / "more", {"train": 40, "valid": 12, "test": 20})
    learn(tmp_path / "more", "--epochs", 20, "--base_lr", 1e-3)
    results = json.loads(Path("runs/finetune_detection/results.json").read_text(encoding="utf-8"))
    assert min(of["ap50"] for of in results["test"]["findings"].values()) > 0.8


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_bits_of_one_that_was_not(radiographs, tmp_path):
    """With evaluations in between, and the best weights as a part of the state."""
    words = [*SMALL, "--data_path", radiographs, "--score_every", 1, "--evaluate", "valid", "--precision", "fp64"]
    learn(radiographs, "--score_every", 1, "--evaluate", "valid", "--precision", "fp64", "--epochs", 3)
    whole = torch.load("weights/detection.pth")["model"]
    (tmp_path / "stopped").mkdir()
    driver = tmp_path / "stops.py"
    driver.write_text(
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from engine.config import parse\nfrom engine.run import Run\nimport finetune_detection as script\n"
        "update = Run.update\n"
        "def stops(run, *args, **kwargs):\n"
        "    update(run, *args, **kwargs)\n"
        "    if run.step == 3:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "Run.update = stops\n"
        "from engine.run import launch\nlaunch(script.DetectionConfig, script.main)\n",
        encoding="utf-8",
    )
    done = run(driver, *words, "--epochs", 3, cwd=tmp_path / "stopped")
    assert done.returncode == 75, done.stderr[-2000:]
    done = run(SCRIPT, *words, "--epochs", 3, cwd=tmp_path / "stopped")
    assert done.returncode == 0 and "going on at epoch 2, step 2" in done.stdout, done.stderr[-2000:]
    again = torch.load(tmp_path / "stopped/weights/detection.pth")["model"]
    assert all(torch.equal(again[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_two_processes_find_and_write_once(radiographs, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = [*SMALL, "--data_path", radiographs, "--epochs", 2, "--score_every", 1, "--batch_size", 2]
    done = run(*launcher, SCRIPT, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "runs/finetune_detection/results.json").read_text(encoding="utf-8"))
    assert results["test"]["pictures"] == 4 and done.stdout.count("wrote weights/detection.pth") == 1


@pytest.mark.slow
def test_seeds_are_runs_of_their_own_with_a_mean_and_pretrained_weights_stay_where_they_are_frozen(radiographs, tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    (tmp_path / "weights").mkdir()
    torch.save(resnet18().state_dict(), "weights/plain.pth")
    more = ["--start_from", "plain.pth", "--tune", "frozen", "--seeds", 1, 2, "--epochs", 1, "--labelled", 4]
    learn(radiographs, *more)
    mean = json.loads(Path("runs/finetune_detection/results.json").read_text(encoding="utf-8"))
    assert mean["seeds"] == [1, 2] and len(mean["test"]["map"]["each"]) == 2
    with open("runs/finetune_detection/cases.csv", newline="", encoding="utf-8") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1"] * 4 + ["2"] * 4
    assert not list(Path("runs").rglob("seed-*/cases.csv"))
    start = make_detector("weights/plain.pth", "", "", 2, 64, "frozen", 0.05, 32)[0].state_dict()
    for seed in (1, 2):
        weights = read_downstream(f"weights/detection-{seed}.pth", "detection")
        assert list(weights.about["inputs"]) == ["weights/plain.pth"] and weights.about["fixed_norms"] is True
        for name in (name for name in start if name.startswith("backbone.body.")):
            assert torch.equal(weights.state[name], start[name]), name


def test_what_cannot_be_learned_or_judged_is_one_sentence(radiographs, tmp_path, capsys):
    data = ["--data_path", radiographs]
    assert "No pictures are given" in refused("finetune_detection", [], capsys)
    assert "nowhere is not a folder" in refused("finetune_detection", ["--data_path", "nowhere"], capsys)
    assert "none.csv is missing" in refused("finetune_detection", [*data, "--boxes", "none.csv"], capsys)
    assert "--findings names 'heart'" in refused("finetune_detection", [*data, "--findings", "heart"], capsys)
    assert "--tune frozen leaves a random ResNet" in refused("finetune_detection", [*data, "--tune", "frozen"], capsys)
    assert "none.pth is missing" in refused("finetune_detection", [*data, "--start_from", "none.pth"], capsys)
    assert "--side is 0" in refused("finetune_detection", [*data, "--side", 0], capsys)
    assert "8 pictures make no batch of 9" in refused("finetune_detection", [*data, "--batch_size", 9], capsys)
    make_radiographs(tmp_path / "few", {"train": 4})
    rows = (tmp_path / "few/boxes.csv").read_text(encoding="utf-8").splitlines()
    named = [rows[0] + ",split", *(f"{row},train" for row in rows[1:4]), *(f"{row},valid" for row in rows[4:])]
    (tmp_path / "few/boxes.csv").write_text("\n".join(named), encoding="utf-8")
    said = refused("finetune_detection", ["--data_path", tmp_path / "few"], capsys)
    assert "No file is in the split test" in said


def test_a_picture_with_an_unreadable_header_is_left_out_of_learning_and_of_prediction(tmp_path, capsys):
    make_radiographs(tmp_path / "dirty")
    (tmp_path / "dirty/train/7.train.png").write_bytes(b"no picture")
    words = ["--data_path", tmp_path / "dirty"]
    assert "7.train.png cannot be read as a picture" in refused("finetune_detection", words, capsys)
    skip = ["--on_bad_file", "skip"]
    learn(tmp_path / "dirty", *skip, "--epochs", 1, "--batch_size", 7, "--evaluate", "none", "--keep", "last")
    assert "1 file(s) were left out (--on_bad_file skip): " in capsys.readouterr().out
    words = ["--weights", "weights/detection.pth", "--image_path", tmp_path / "dirty", "--workers", 0]
    predict.main(parse(predict.PredictionConfig, [*map(str, words), *skip]))
    assert "1 file(s) were left out (--on_bad_file skip): " in capsys.readouterr().out


def test_the_preset_of_vindr_is_a_file_of_constants():
    assert preset_file(DetectionConfig, "vindr").is_file()
    config = parse(DetectionConfig, ["--preset", "vindr", "--side", "512"])
    assert (config.side, config.boxes) == (512, ("annotations_train.csv", "annotations_test.csv"))
    assert finetune_detection.__doc__.startswith("Finds findings")


def test_pretrained_weights_learn_at_their_share_of_the_rate(radiographs):
    torch.manual_seed(0)
    network, name = resnet18(), "layer1.0.conv1.weight"
    Path("weights").mkdir()
    torch.save(network.state_dict(), "weights/start.pth")
    moved = []
    for share in (1, 0.01):
        words = ["--pretrained_rate", share, "--epochs", 1, "--evaluate", "none", "--keep", "last", "--overwrite"]
        learn(radiographs, "--start_from", "start.pth", *words)
        moved.append((read_downstream("weights/detection.pth").state[BACKBONE + name] - network.state_dict()[name]).norm())
    assert 0 < moved[1] < 0.05 * moved[0]
