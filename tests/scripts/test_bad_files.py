"""Files that nothing can be learned from: named, or left out on every process alike; and losses that are no numbers."""

import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from datasets.draws import keys, permutation
from datasets.files import find_volumes
from engine.checkpoint import load_checkpoint
from engine.config import Config, parse
from engine.errors import UserError
from engine.run import start
from models.weight_files import read_weights
from tests.scripts.conftest import make_data, run
from tests.scripts.six_scripts import script_flags

COMMON = "--arch resnet18 --precision fp32 --warmup_epochs 0 --base_lr 1e-3 --epochs 1 --workers 0".split()
BAD_VOLUMES = {
    "a/nan.npy": "holds NaN",
    "a/infinite.npy": "holds NaN or infinite",
    "a/constant.npy": "same value, 7, in every voxel",
    "a/objects.npy": "object values",
    "a/flat.npy": r"shape is \(20, 20\)",
    "b/none.npy": r"shape is \(20, 20, 0\)",
    "b/cut.npy": "bytes cannot hold",
    "b/page.nii.gz": "cannot be read as a volume",
    "b/gone.npy": "No such file",
}


def bad_volume(name):
    volume = np.random.default_rng(0).normal(size=(20, 20, 6))
    volume[3, 3, 3] = {"nan": np.nan, "infinite": np.inf}.get(Path(name).stem, 0)
    return {
        "constant": np.full((20, 20, 6), 7, np.int16),
        "objects": volume.astype(object),
        "flat": volume[..., 0],
        "none": volume[..., :0],
    }.get(Path(name).stem, volume)


def put_bad_files(data):
    for name in BAD_VOLUMES:
        path = data / "volumes" / name
        np.save(path.with_suffix(".npy"), bad_volume(name), allow_pickle=True)
        if "cut" in name:
            os.truncate(path, 500)
        if "page" in name:
            path.with_suffix(".npy").unlink()
            path.write_text("<html>", encoding="utf-8")
    (data / "images/train/a/text.png").write_text("no picture", encoding="utf-8")
    whole = Path(data / "images/train/a/00.png").read_bytes()
    (data / "images/train/b/cut.png").write_bytes(whole[: len(whole) // 2])
    values = np.zeros((30, 34), np.float32)
    values[2, 2] = np.nan
    Image.fromarray(values).save(data / "images/train/b/nan.tif")


def train(script, data, *more):
    module = importlib.import_module(script)
    config_class = next(v for k, v in vars(module).items() if k.endswith("Config") and v.__module__ == script)
    stage = "2D" if script.endswith("2D") else script.split("_")[0].replace("ssl", "3D")
    config = parse(config_class, [*COMMON, *script_flags("swav", stage, data, "4"), *map(str, more)])
    return module.main(config, "swav") if stage == "mask" else module.main(config)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in ("clean", "dirty"):
        make_data(tmp_path / data)
        (tmp_path / f"of_{data}").mkdir()
    put_bad_files(tmp_path / "dirty")
    (tmp_path / "dirty/volumes/b/gone.npy").unlink()
    (tmp_path / "dirty/volumes/b/gone.npy").symlink_to("nowhere.npy")
    return tmp_path


def test_without_the_bad_files_a_run_is_the_one_that_never_had_them(here, monkeypatch):
    ends = []
    for data in ("clean", "dirty"):
        os.makedirs(f"of_{data}", exist_ok=True)
        os.chdir(f"of_{data}")
        for script in ("ssl_swav_2D", "mask_swav_3D", "ssl_swav_3D"):
            model = train(
                script, here / data, "--on_bad_file", "skip", *(["--volume_path", here / data / "volumes"] * ("2D" in script))
            )
        ends.append(model.state_dict())
        os.chdir("..")
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    about = read_weights("of_dirty/weights/swav3D.pth").about
    assert set(about["left_out"]) == set(BAD_VOLUMES) | {"train/a/text.png", "train/b/cut.png", "train/b/nan.tif"}
    first = json.loads(Path("of_dirty/runs/ssl_swav_3D/metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["kind"] == "left_out" and first["a/constant.npy"].endswith("in every voxel; replace or remove the file.")
    assert read_weights("of_clean/weights/swav3D.pth").about["left_out"] == {}


@pytest.mark.parametrize("name", BAD_VOLUMES)
def test_a_bad_volume_stops_the_run_with_its_name_and_what_is_wrong(here, name):
    for other in BAD_VOLUMES:
        if other != name:
            (here / "dirty/volumes" / other).unlink()
    torch.save(torchvision.models.resnet18().state_dict(), here / "resnet_swav2D.pth")
    with pytest.raises(ValueError, match=rf"{name} .*{BAD_VOLUMES[name]}") as stop:
        train("mask_swav_3D", here / "dirty", "--pretrained_path", here, "--epochs", 3)
    assert stop.value.exit_code == 2 and not (here / "mask_swav.pth").exists()


def test_a_volume_of_which_only_the_part_that_is_read_is_air_is_no_bad_one(here):
    volume = np.zeros((20, 20, 300), np.uint8)
    volume[:, :, -1] = 9
    np.save(here / "clean/volumes/a/air.npy", volume)
    torch.save(torchvision.models.resnet18().state_dict(), here / "resnet_swav2D.pth")
    train("mask_swav_3D", here / "clean", "--pretrained_path", here, "--batch_size", "1", "--fit", "crop")
    assert (here / "mask_swav.pth").is_file()


@pytest.mark.slow
def test_two_processes_leave_out_the_same_files(here):
    script = Path(__file__).parents[2] / "ssl_swav_2D.py"
    flags = [*COMMON, *script_flags("swav", "2D", here / "dirty", "2"), "--on_bad_file", "skip"]
    done = run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, *flags, cwd=here)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("3 file(s) were left out") == 2  # at the start and at the end
    left_out = read_weights("weights/resnet_swav2D.pth").about["left_out"]
    assert set(left_out) == {"train/a/text.png", "train/b/cut.png", "train/b/nan.tif"}


def test_a_loss_that_is_no_number_names_the_files_of_its_batch_and_the_good_state_stays(here):
    volume = np.random.default_rng(0).normal(size=(28, 26, 8)).astype(np.float32)
    volume[5, 5] = 3e38
    np.save(here / "clean/volumes/b/large.npy", volume)
    torch.save(torchvision.models.resnet18().state_dict(), here / "resnet_swav2D.pth")
    late = next(seed for seed in range(99) if 10 in permutation(keys(seed, "order", 0), 11)[6:8])  # in the fourth step
    flags = ["--seed", late, "--pretrained_path", here, *"--normalise none --batch_size 2 --checkpoint_minutes 1e-5".split()]
    with pytest.raises(UserError, match=r"loss is not a number since step 4, in the batch of .*b/large\.npy") as stop:
        train("mask_swav_3D", here / "clean", *flags, "--epochs", 3, "--probed_files", 0, "--scored_volumes", 1)
    assert "checkpoints" in str(stop.value)
    state = load_checkpoint(here / "runs/mask_swav_3D/checkpoints")
    assert all(value.isfinite().all() for value in state["model"].values())


def test_what_headers_tell_is_said_before_the_training_starts(tmp_path, monkeypatch, capsys):
    make_data(tmp_path, volumes=10)
    monkeypatch.chdir(tmp_path)
    for path in sorted((tmp_path / "volumes").glob("*/*.npy"))[:3]:
        volume = np.load(path)
        np.save(path, np.tile(volume, (3, 3, 1)))
    np.save(tmp_path / "volumes/a/00.npy", np.moveaxis(np.load(tmp_path / "volumes/a/00.npy"), -1, 0))
    found = find_volumes("volumes")
    run_ = start(parse(Config, ["--checkpoint_name", "x.pth"]), "any.py")
    assert run_.find(find_volumes, "volumes") == found
    assert "warning: volumes/a/00.npy" in capsys.readouterr().out
    (tmp_path / "volumes/a/02.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"volumes/a/02.npy has no bytes.*--on_bad_file skip"):
        start(run_.config, "any.py").find(find_volumes, "volumes")
    quiet = start(parse(Config, ["--checkpoint_name", "x.pth", "--no_check_data"]), "any.py")
    quiet.find(find_volumes, "volumes")
    assert "warning" not in capsys.readouterr().out and not (tmp_path / "runs").exists()
