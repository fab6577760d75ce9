"""What a script computes depends on its constants and its data alone."""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from datasets.labelled import labelled_volumes
from datasets.views import plain_view
from engine.checkpoint import sha256
from engine.config import parse
from engine.errors import UserError
from engine.logbook import OF_THE_MACHINE
from engine.neighbours import held_out_share
from mask_deepcluster_3D import MaskConfig
from models.errors import WeightsError
from models.pretrained import load_encoders
from models.weight_files import read_weights
from tests.scripts.conftest import make_data
from tests.scripts.six_scripts import script_flags

COMMON = "--arch resnet18 --precision fp32 --warmup_epochs 0 --base_lr 1e-3".split()


def train(script, data, *more):
    module = importlib.import_module(script)
    config_class = next(v for k, v in vars(module).items() if k.endswith("Config") and v.__module__ == script)
    stage = "2D" if script.endswith("2D") else script.split("_")[0].replace("ssl", "3D")
    method = "swav" if "swav" in script else "deepcluster"
    config = parse(config_class, [*COMMON, *script_flags(method, stage, data, "4"), *map(str, more)])
    model = module.main(config, method) if stage == "mask" else module.main(config)
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def last_line(run):
    return json.loads(Path(f"runs/{run}/metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("script", ["ssl_swav_2D", pytest.param("ssl_deepcluster_2D", marks=pytest.mark.slow)])
def test_same_seed_same_weights_for_0_1_and_4_workers(script, data, here):
    ends = [
        train(
            script,
            data,
            "--epochs",
            2,
            "--workers",
            workers,
            "--dump_path",
            f"runs/{workers}",
            "--checkpoint_name",
            f"{workers}.pth",
        )
        for workers in (0, 1, 4)
    ]
    other = train(
        script, data, "--epochs", 2, "--workers", 0, "--seed", 32, "--dump_path", "runs/s", "--checkpoint_name", "s.pth"
    )
    assert same(ends[0], ends[1]) and same(ends[0], ends[2]) and not same(ends[0], other)


@pytest.mark.parametrize("bank", ["complete", "published"])
def test_a_run_stopped_after_an_epoch_ends_as_one_that_was_not(data, here, bank):
    words = ["--epochs", 3, "--workers", 0, "--bank", bank]
    whole = train("ssl_deepcluster_2D", data, *words, "--dump_path", "runs/whole", "--checkpoint_name", "a.pth")
    shutil.copytree("runs/whole", "runs/cut")
    checkpoints = here / "runs/cut/checkpoints"
    shutil.rmtree(sorted(checkpoints.glob("step-*"))[-1])  # as if it had stopped after its second epoch
    words += ["--dump_path", "runs/cut", "--checkpoint_name", "b.pth"]
    edited = (
        (here / "runs/cut/config.yaml").read_text(encoding="utf-8").replace("runs/whole", "runs/cut").replace("a.pth", "b.pth")
    )
    (here / "runs/cut/config.yaml").write_text(edited, encoding="utf-8")
    assert same(train("ssl_deepcluster_2D", data, *words), whole)
    lines = [
        [json.loads(line) for line in (here / f"runs/{run}/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for run in ("whole", "cut")
    ]
    assert [{k: v for k, v in line.items() if k not in OF_THE_MACHINE} for line in lines[0]] == [
        {k: v for k, v in line.items() if k not in OF_THE_MACHINE} for line in lines[1]
    ]
    assert same(train("ssl_deepcluster_2D", data, *words), whole)  # a finished run stays as it is


def test_a_finished_run_says_so_and_takes_more_epochs_but_no_other_constants(data, here, capsys):
    words = ["--workers", 0, "--epochs"]
    whole = train("ssl_swav_2D", data, *words, 2)
    written = Path("weights/resnet_swav2D.pth").stat().st_mtime_ns
    assert same(whole, train("ssl_swav_2D", data, *words, 2))
    assert "nothing is left to train" in capsys.readouterr().out
    assert Path("weights/resnet_swav2D.pth").stat().st_mtime_ns == written
    assert not same(whole, train("ssl_swav_2D", data, *words, 3))
    assert "from 2 to 3 epochs; the learning rates are those of 3 epochs" in capsys.readouterr().out
    with pytest.raises(UserError, match="finished run of 3 epochs, --epochs is 1"):
        train("ssl_swav_2D", data, *words, 1)
    with pytest.raises(UserError, match=r"wd was 1e-06, is 0\.5.*--resume anyway"):
        train("ssl_swav_2D", data, *words, 3, "--wd", 0.5)
    train("ssl_swav_2D", data, *words, 4, "--wd", 0.5, "--resume", "anyway")
    assert "going on with another configuration: wd was 1e-06, is 0.5" in capsys.readouterr().out


def test_stage_1_starts_from_a_resnet_of_another_origin_and_records_it(data, here, capsys):
    torch.manual_seed(3)
    given = torchvision.models.resnet18()
    torch.save(given.state_dict(), here / "imagenet.pth")
    words = ["--epochs", 1, "--workers", 0, "--start_from", here / "imagenet.pth", "--optimizer", "larc", "--base_lr", 1e-9]
    train("ssl_swav_2D", data, *words)
    said = capsys.readouterr().out
    assert "a plain ResNet" in said and "prototypes is not in the file and starts at random" in said
    written = read_weights("weights/resnet_swav2D.pth")
    assert written.about["inputs"] == {str(here / "imagenet.pth"): sha256(here / "imagenet.pth")}
    assert torch.allclose(written.state["conv1.weight"], given.conv1.weight, atol=1e-6)
    with pytest.raises(WeightsError, match=r"none\.pth is missing"):
        train("ssl_swav_2D", data, *words, "--start_from", "none.pth", "--overwrite")


def test_stages_2_and_3_leave_f_intra_frozen_or_train_it(data, here):
    train("ssl_swav_2D", data, "--epochs", 1, "--workers", 0)
    before = torch.load("weights/resnet_swav2D.pth")
    assert 0 <= last_line("ssl_swav_2D")["knn_held_out"] <= 1
    train("mask_swav_3D", data, "--epochs", 1, "--workers", 0)
    config = parse(MaskConfig, [*script_flags("swav", "mask", data, "4"), "--workers", "0"])
    labelled = labelled_volumes(config, lambda find, *args: find(*args))
    encoders, _ = load_encoders("weights/mask_swav.pth")
    encoders.to("cpu")
    with torch.no_grad():
        embedded = [encoders.embed_volumes(*plain_view(batch, "robust", torch.float32)) for batch in labelled.loader]
    known = labelled.labels, labelled.collections, labelled.subjects, labelled.held_out
    assert last_line("mask_swav_3D")["knn_held_out"] == held_out_share(torch.cat(embedded).numpy(), *known)
    stage2 = torch.load("weights/mask_swav.pth")["model"]
    for name, value in before.items():
        assert torch.equal(stage2[f"slice_encoder.resnet.{name}"], value), name
    trained = train("ssl_swav_3D", data, "--epochs", 1, "--workers", 0)
    assert not torch.equal(trained["slice_encoder.resnet.conv1.weight"], before["conv1.weight"])
    last = last_line("ssl_swav_3D")
    assert 0 <= last["knn_held_out"] <= 1
    assert last["loss"] == pytest.approx(last["inter"] + last["intra"] + last["mask"], rel=1e-5)
    assert all(last[part] > 0 for part in ("inter", "intra", "mask")) and 0.5 < last["matched"] <= 1


def test_deep_volumes_go_through_all_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path, volumes=3)
    big = np.zeros((160, 150, 70), np.int16)
    big[:6], big[-6:] = 900, 900
    np.save("volumes/a/big.npy", big)
    for script in ("ssl_deepcluster_2D", "mask_deepcluster_3D", "ssl_deepcluster_3D"):
        train(script, tmp_path, "--epochs", 1, "--workers", 0)
    assert (tmp_path / "weights/deepcluster3D.pth").exists()


def test_stage_2_does_not_cheat_by_shrinking_its_targets(data, here, monkeypatch):
    import mask_deepcluster_3D as script

    train("ssl_deepcluster_2D", data, "--epochs", 1, "--workers", 0)
    words = ["--epochs", 2, "--workers", 0, "--precision", "fp64", "--overwrite"]
    train("mask_deepcluster_3D", data, *words)
    as_it_is, set_map = last_line("mask_deepcluster_3D"), script.set_map

    def set_smaller_map(encoder, *rest):
        set_map(encoder, *rest)
        for parameter in encoder.to_embedding.parameters():
            parameter.data.mul_(0.1)

    monkeypatch.setattr(script, "set_map", set_smaller_map)
    train("mask_deepcluster_3D", data, *words)
    shrunk = last_line("mask_deepcluster_3D")
    for figure in ("loss", "r2_mean", "r2_interpolation"):
        assert shrunk[figure] == pytest.approx(as_it_is[figure], rel=1e-6), figure


def test_a_run_is_not_gone_on_with_when_files_or_input_weights_have_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path)
    train("ssl_swav_2D", tmp_path, "--epochs", 1, "--workers", 0)
    train("mask_swav_3D", tmp_path, "--epochs", 1, "--workers", 0)
    train("ssl_swav_2D", tmp_path, "--epochs", 1, "--workers", 0, "--seed", 32, "--overwrite")
    with pytest.raises(UserError, match="started from another weights/resnet_swav2D"):
        train("mask_swav_3D", tmp_path, "--epochs", 1, "--workers", 0)
    (tmp_path / "images/labels.csv").unlink()
    for picture in sorted((tmp_path / "images/train").rglob("*.png"))[:6]:
        picture.unlink()
    with pytest.raises(UserError, match=r"learns from other files \(12 pictures, now 6 pictures\)"):
        train("ssl_swav_2D", tmp_path, "--epochs", 1, "--workers", 0, "--seed", 32)


def test_cached_views_are_the_views_of_the_first_epochs(data, here):
    train("ssl_deepcluster_2D", data, "--epochs", 1)
    how = ["--epochs", 1, "--cached_views"]
    ends = [train("mask_deepcluster_3D", data, *how, n, "--dump_path", f"runs/{n}", "--overwrite") for n in (0, 2, 8)]
    losses = [last_line(n)["loss"] for n in (0, 2, 8)]
    # two are those of the first pass, to float16; of eight others may be drawn
    assert losses[1] == pytest.approx(losses[0], rel=2e-3) and losses[2] != pytest.approx(losses[0], rel=2e-3)
    moved = [torch.cat([(end[k] - ends[0][k]).flatten() for k in end]).norm() for end in ends[1:]]
    assert moved[0] < 0.2 * moved[1]
    assert not Path("runs/2/cached_views").exists()


def test_a_run_with_cached_views_that_was_stopped_ends_as_one_that_was_not(data, here):
    train("ssl_deepcluster_2D", data, "--epochs", 1)
    words = ["--epochs", 3, "--cached_views", 4]
    whole = train("mask_deepcluster_3D", data, *words, "--dump_path", "runs/whole", "--checkpoint_freq", 1)
    for step in sorted(Path("runs/whole/checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(step)
    Path("weights/mask_deepcluster.pth").unlink()
    assert same(whole, train("mask_deepcluster_3D", data, *words, "--dump_path", "runs/whole", "--checkpoint_freq", 1))


def test_a_disk_that_is_too_small_for_cached_views_is_an_error_before_training(data, here):
    train("ssl_deepcluster_2D", data, "--epochs", 1)
    with pytest.raises(UserError, match=r"cached_views cannot be made .* GiB are needed"):
        train("mask_deepcluster_3D", data, "--epochs", 1, "--cached_views", 10**11)
    assert not Path("runs/mask_deepcluster_3D/cached_views").exists()
