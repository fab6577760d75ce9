import pytest
import torch
from torch import nn

from engine.weights import write_weights
from models.downstream import NEEDED, read_downstream
from models.errors import WeightsError
from models.weight_files import read_weights


@pytest.fixture
def written(tmp_path):
    about = {
        "stage": "segmentation",
        "method": "swav",
        "config": {"arch": "resnet18"},
        **dict.fromkeys(NEEDED["segmentation"], 1),
    }
    write_weights(tmp_path / "s.pth", nn.Linear(2, 3).state_dict(), about)
    return tmp_path / "s.pth"


def test_what_was_written_is_read_with_all_that_it_says(written):
    weights = read_downstream(written, "segmentation")
    assert (weights.task, weights.config, weights.about["classes"]) == ("segmentation", {"arch": "resnet18"}, 1)
    model = nn.Linear(2, 3)
    weights.load_into(model)
    assert torch.equal(model.weight, weights.state["weight"])


def test_weights_of_another_network_are_refused(written):
    with pytest.raises(WeightsError, match=r"s\.pth does not fit the network"):
        read_downstream(written).load_into(nn.Linear(2, 4))


def test_weights_of_another_task_or_of_pretraining_are_refused(written, tmp_path):
    with pytest.raises(
        WeightsError, match=r"is from finetune_segmentation\.py; a weight file that finetune_detection\.py wrote"
    ):
        read_downstream(written, "detection")
    write_weights(tmp_path / "m.pth", {}, {"stage": "mask", "method": "swav", "config": {}})
    with pytest.raises(WeightsError, match="is from stage 2"):
        read_downstream(tmp_path / "m.pth")
    with pytest.raises(
        WeightsError,
        match=r"^\S+ is from finetune_segmentation\.py; give pretrained weights here \(predict\.py takes the former\)\.$",
    ):
        read_weights(written)
    with pytest.raises(WeightsError, match="is missing"):
        read_downstream(tmp_path / "none.pth")


@pytest.mark.parametrize("task", sorted(NEEDED))
def test_a_file_that_does_not_say_what_prediction_needs_is_refused(tmp_path, task):
    about = {"stage": task, "method": "swav", "config": {}, **dict.fromkeys(NEEDED[task][1:], 1)}
    write_weights(tmp_path / "x.pth", {}, about)
    with pytest.raises(WeightsError, match=f"does not say its {NEEDED[task][0]}"):
        read_downstream(tmp_path / "x.pth")
