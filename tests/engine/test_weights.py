from collections import OrderedDict

import pytest
import torch
import torchvision

from engine.errors import UserError
from engine.weights import about_weights, refuse_foreign, write_weights

ABOUT = {"stage": "image", "method": "swav", "run": "r1", "config": {"arch": "resnet18"}, "inputs": {}}


def test_a_flat_file_loads_into_plain_torchvision_and_says_where_it_comes_from(tmp_path):
    state = {name: value for name, value in torchvision.models.resnet18().state_dict().items() if not name.startswith("fc")}
    write_weights(tmp_path / "resnet.pth", state, ABOUT, flat=True)
    loaded = torch.load(tmp_path / "resnet.pth", weights_only=True)
    missing, unexpected = torchvision.models.resnet18().load_state_dict(loaded, strict=False)
    assert sorted(missing) == ["fc.bias", "fc.weight"] and not unexpected
    assert about_weights(tmp_path / "resnet.pth") == {"format_version": 1, **ABOUT}


def test_other_files_hold_their_tensors_under_model(tmp_path):
    write_weights(tmp_path / "mask.pth", {"w": torch.ones(2)}, ABOUT)
    assert torch.equal(torch.load(tmp_path / "mask.pth")["model"]["w"], torch.ones(2))
    assert about_weights(tmp_path / "mask.pth")["run"] == "r1"
    assert [p.name for p in tmp_path.iterdir()] == ["mask.pth"]


def test_only_the_run_that_wrote_a_file_replaces_it(tmp_path):
    path = tmp_path / "mask.pth"
    refuse_foreign(path, None, overwrite=False)
    write_weights(path, {"w": torch.ones(2)}, ABOUT)
    refuse_foreign(path, "r1", overwrite=False)
    refuse_foreign(path, "r2", overwrite=True)
    for other in ("r2", None):
        with pytest.raises(UserError, match=r"mask\.pth was written by another run.*--overwrite"):
            refuse_foreign(path, other, overwrite=False)
    path.write_text("<html>", encoding="utf-8")
    with pytest.raises(UserError):
        refuse_foreign(path, "r1", overwrite=False)


def test_a_file_of_a_newer_version_is_refused(tmp_path):
    torch.save({"format_version": 99, "model": {}}, tmp_path / "new.pth")
    with pytest.raises(UserError, match="newer version"):
        about_weights(tmp_path / "new.pth")


@pytest.mark.parametrize("metadata", [["joint_ssl"], {"joint_ssl": [1]}, {"joint_ssl": {"format_version": "x"}}])
def test_what_a_file_says_of_itself_in_another_form_is_not_ours(tmp_path, metadata):
    state = OrderedDict(w=torch.ones(2))
    state._metadata = metadata
    torch.save(state, tmp_path / "a.pth")
    torch.save({"format_version": "x", "model": {}}, tmp_path / "b.pth")
    assert about_weights(tmp_path / "a.pth") == about_weights(tmp_path / "b.pth") == {}
