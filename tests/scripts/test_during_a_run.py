"""What a run says and shows while it goes."""

import json
from pathlib import Path

import pytest

import mask_swav_3D
import ssl_deepcluster_3D
import ssl_swav_2D
import ssl_swav_3D
from datasets.files import find_volumes, thinned
from engine.config import parse
from engine.logbook import OF_THE_MACHINE
from engine.showing import GAP
from tests.scripts.conftest import events
from tests.scripts.six_scripts import script_flags

COMMON = "--arch resnet18 --precision fp32 --warmup_epochs 0 --base_lr 1e-3 --workers 0".split()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(module, config_class, method, stage, data, *more) -> None:
    words = [*COMMON, *script_flags(method, stage, data, "4"), *map(str, more)]
    module.main(parse(config_class, words))


def test_it_says_at_the_start_what_will_happen_and_shows_what_it_sees(data, here, capsys):
    train(ssl_swav_2D, ssl_swav_2D.SwavImageConfig, "swav", "2D", data, "--epochs", 4, "--checkpoint_freq", 1)
    said = capsys.readouterr().out
    assert "ssl_swav_2D: starting, 4 epochs of 3 steps, 1 process on " in said
    assert "learns from 12 pictures in 2 collections (a 6, b 6)." in said
    assert "writes weights/resnet_swav2D.pth (" in said and "into runs/ssl_swav_2D (3 states and 3 kept copies)" in said
    told = sum(path.stat().st_size for path in Path("runs/ssl_swav_2D/checkpoints").glob("step-000003/*.pt"))
    state = float(said.split("up to ")[1].split(" MB")[0]) * 1e6 / 6
    assert state == pytest.approx(told, rel=0.05)

    lines = [json.loads(line) for line in Path("runs/ssl_swav_2D/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    (step,) = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert OF_THE_MACHINE - {"seconds", "data_wait_seconds"} <= set(step)
    assert step["images_clusters_used"] == epochs[2]["images_clusters_used"]  # step 10 is the first of epoch 4
    for line in epochs:
        assert line["items_per_second"] == pytest.approx(12 / line["seconds"], rel=1e-6) and line["memory_gb"] > 0.05
        assert f"{line['items_per_second']:.3g} pictures/s" in said

    shown = events("runs/ssl_swav_2D")
    assert [of.step for of in shown.Images("views")] == [of.step for of in shown.Images("embeddings")] == [3, 6, 9, 12]
    assert {"step/items_per_second", "step/images_clusters_used", "epoch/memory_gb"} <= set(shown.Tags()["scalars"])
    (about,) = Path("runs/ssl_swav_2D/tensorboard").glob("00012/embeddings*/metadata.tsv")
    names = about.read_text(encoding="utf-8").splitlines()
    assert names[0] == "file\tfolder" and sorted(names[1:]) == [f"{n:02d}.png\t{'ab'[n % 2]}" for n in range(12)]


@pytest.mark.slow
def test_stages_2_and_3_show_the_middle_slices_of_both_views_and_a_map_of_volumes(data, here, capsys):
    train(ssl_swav_2D, ssl_swav_2D.SwavImageConfig, "swav", "2D", data, "--epochs", 1)
    words = [*COMMON, *script_flags("swav", "mask", data, "4"), "--epochs", "2", "--scored_volumes", "9"]
    left_out = int(({*find_volumes(data / "volumes")} - {*thinned(find_volumes(data / "volumes"), 9)}).pop().path.stem)
    mask_swav_3D.main(parse(mask_swav_3D.MaskSwavConfig, words), method="swav")
    train(ssl_swav_3D, ssl_swav_3D.SwavJointConfig, "swav", "3D", data, "--epochs", 1)
    Path("weights/mask_deepcluster.pth").symlink_to("mask_swav.pth")
    Path("weights/resnet_deepcluster2D.pth").symlink_to("resnet_swav2D.pth")
    train(ssl_deepcluster_3D, ssl_deepcluster_3D.DeepClusterJointConfig, "deepcluster", "3D", data, "--epochs", 1)
    assert "and from 12 pictures in 2 collections" in capsys.readouterr().out
    shown = events("runs/mask_swav_3D")
    assert len(shown.Images("views")) == len(shown.Images("embeddings")) == 2
    (about,) = Path("runs/mask_swav_3D/tensorboard").glob("*/embeddings*/metadata.tsv")
    names = about.read_text(encoding="utf-8").splitlines()
    assert sorted(names[1:]) == [f"{n:02d}.npy\t{'ab'[n % 2]}" for n in range(10) if n != left_out]
    for run in ("ssl_swav_3D", "ssl_deepcluster_3D"):
        shown = events(f"runs/{run}")
        assert len(shown.Images("views")) == len(shown.Images("embeddings")) == 1
        assert shown.Images("views")[0].width == 2 * (24 + GAP)
