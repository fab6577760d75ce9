"""Bad input ends in one sentence, exit code 2, and nothing written."""

import importlib

import numpy as np
import pytest
import torch

from datasets.files import find_volumes
from datasets.loader import once_loader
from datasets.volumes import VolumeDataset, collate_volumes
from engine.config import Config, parse
from engine.errors import speaking_to_people
from engine.processes import batches_of
from engine.run import start

SMALL = "--arch resnet18 --workers 0 --epochs 1 --precision fp32".split()


def refused(script, words, capsys) -> str:
    """The one sentence that a script ends with."""
    module = importlib.import_module(script)
    config_class = next(v for k, v in vars(module).items() if k.endswith("Config") and v.__module__ == script)
    with pytest.raises(SystemExit) as stop, speaking_to_people():
        module.main(parse(config_class, [*SMALL, *map(str, words)]))
    said = capsys.readouterr()
    assert stop.value.code == 2
    lines = [line for line in said.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "Traceback" not in said.err
    return lines[0]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.glob("runs*")) and not list(tmp_path.glob("weights/*.pth.tmp"))


@pytest.mark.parametrize("script", ["ssl_swav_2D", "ssl_deepcluster_2D", "mask_swav_3D", "ssl_swav_3D", "ssl_deepcluster_3D"])
def test_a_missing_and_an_empty_folder(script, tmp_path, capsys):
    assert "nowhere is not a folder" in refused(script, ["--data_path", "nowhere"], capsys)
    (tmp_path / "empty").mkdir()
    assert "empty has no" in refused(script, ["--data_path", "empty"], capsys)


def test_fewer_files_than_a_batch(data, capsys):
    sentence = refused("ssl_swav_2D", ["--data_path", data / "images", "--batch_size", 13], capsys)
    assert "12 pictures make no batch of 13" in sentence and "--batch_size" in sentence


def test_more_clusters_than_rows(data, capsys):
    words = ["--data_path", data / "images", "--batch_size", 4, "--nmb_prototypes", 13, "--size_crops", 16]
    sentence = refused("ssl_deepcluster_2D", words, capsys)
    assert "--nmb_prototypes asks for 13 clusters of 12 rows" in sentence and "at most 12" in sentence


def test_weights_that_are_missing_of_another_architecture_or_stage(data, tmp_path, capsys):
    import torchvision

    volumes = ["--data_path", data / "volumes", "--target_shape", 8, 24, 24]
    assert "resnet_swav2D.pth is missing" in refused("mask_swav_3D", volumes, capsys)
    (tmp_path / "weights").mkdir()
    torch.save(torchvision.models.resnet34().state_dict(), "weights/resnet_swav2D.pth")
    assert "holds a resnet34, but --arch is resnet18" in refused("mask_swav_3D", volumes, capsys)
    torch.save(torchvision.models.resnet18().state_dict(), "weights/resnet_swav2D.pth")
    torch.save(torchvision.models.resnet18().state_dict(), "weights/mask_swav.pth")
    assert "mask_swav.pth is from stage 1" in refused("ssl_swav_3D", volumes, capsys)


def test_another_runs_weights_are_not_replaced(data, tmp_path, capsys):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/resnet_swav2D.pth").write_bytes(b"somebody's")
    sentence = refused("ssl_swav_2D", ["--data_path", data / "images", "--batch_size", 4], capsys)
    assert "written by another run" in sentence and "--overwrite" in sentence
    assert (tmp_path / "weights/resnet_swav2D.pth").read_bytes() == b"somebody's"


def test_a_damaged_volume_is_named(tmp_path, capsys):
    (tmp_path / "v").mkdir()
    np.save(tmp_path / "v/1.npy", np.zeros((4, 4)))
    assert "1.npy cannot be read as a volume (its shape is (4, 4)" in refused(
        "ssl_swav_2D", ["--data_path", "", "--volume_path", "v"], capsys
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_file_that_turns_out_bad_in_the_loop_is_one_sentence_of_the_rank_that_read_it(
    workers, rank, tmp_path, capsys, monkeypatch
):
    (tmp_path / "v").mkdir()
    volume = np.ones((8, 8, 4), np.float32)
    volume[0, 0] = np.nan
    np.save(tmp_path / "v/1.npy", volume)

    def main(config):
        run = start(config, "any.py")
        dataset = VolumeDataset(find_volumes("v"), (4, 8, 8), 0)
        list(batches_of([once_loader(dataset, collate_volumes, 1, config.workers)], run.device))

    config = parse(Config, ["--workers", str(workers), "--checkpoint_name", "x.pth"])
    with pytest.raises(SystemExit) as stop, speaking_to_people():
        monkeypatch.setenv("WORLD_SIZE", "1")
        monkeypatch.setenv("RANK", rank)
        main(config)
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err.strip()
        == "error: v/1.npy holds NaN or infinite values (in float32, which training computes in); replace them by numbers, "
        "such as the value of air."
    )


def test_unknown_and_mistyped_flags(capsys):
    assert "did you mean --epochs?" in refused("ssl_swav_2D", ["--epoch", 3], capsys)
    assert "batch_size" in refused("ssl_swav_2D", ["--batch_size", "many"], capsys)
