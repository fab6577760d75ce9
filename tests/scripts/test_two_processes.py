"""The six scripts under torchrun: ranks end alike, and gradients are those of one process at the same global batch."""

import json

import pytest
import torch

from tests.scripts.conftest import load

SCRIPTS = ["ssl_swav_2D", "mask_swav_3D", "ssl_swav_3D", "ssl_deepcluster_2D", "mask_deepcluster_3D", "ssl_deepcluster_3D"]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("script", SCRIPTS)
def test_parameters_and_buffers_are_equal_on_both_ranks(one_and_two, script):
    first, second = (load(one_and_two[1], script, rank) for rank in (0, 1))
    assert first.keys() == second.keys() and len(first) > 20
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("script", SCRIPTS)
def test_one_and_two_processes_end_with_the_same_weights_in_float64(one_and_two, script):
    # AdamW divides by the size of a gradient, so that a gradient of rounding errors moves its weight by a whole step:
    # what is compared is the optimiser's mean gradient, and the losses
    means = []
    for folder in one_and_two:
        (checkpoint,) = sorted((folder / "runs" / script / "checkpoints").glob("step-*"))[-1:]
        state = torch.load(checkpoint / "optimizer.pt")["state"]
        means.append(torch.cat([state[i]["exp_avg"].flatten() for i in sorted(state)]))
    assert means[0].dtype == torch.float64
    assert (means[0] - means[1]).norm() / means[0].norm() < 1e-7


@pytest.mark.parametrize("script", SCRIPTS)
def test_one_and_two_processes_log_the_same_losses(one_and_two, script):
    losses = []
    for folder in one_and_two:
        lines = [
            json.loads(line) for line in (folder / "runs" / script / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        losses.append([line["loss"] for line in lines if line["kind"] == "epoch"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_deepcluster_assigns_every_volume_of_every_collection_once(one_and_two):
    for folder in one_and_two:
        (checkpoint,) = sorted((folder / "runs/ssl_deepcluster_3D/checkpoints").glob("step-*"))[-1:]
        bank = torch.load(checkpoint / "bank.pt")
        assigned = torch.load(checkpoint / "guard.pt")["last"]["volumes"]
        assert bank["written"].shape == (2, 10) and bank["written"].all()
        assert assigned.shape == (10,) and set(assigned.tolist()) <= {0, 1}


def test_stage_3_started_from_the_map_that_stage_2_saved(one_and_two):
    stage2 = torch.load(one_and_two[0] / "weights/mask_swav.pth")
    assert stage2["stage"] == "mask" and list(stage2["inputs"]) == ["weights/resnet_swav2D.pth"]
    stage3 = torch.load(one_and_two[0] / "weights/swav3D.pth")
    assert set(stage3["inputs"]) == {"weights/resnet_swav2D.pth", "weights/mask_swav.pth"}
    moved = (stage3["model"]["slice_encoder.to_embedding.weight"] - stage2["model"]["slice_encoder.to_embedding.weight"]).abs()
    assert 0 < moved.max() < 1e-3  # a few steps of 1e-4 away from where stage 2 left it
