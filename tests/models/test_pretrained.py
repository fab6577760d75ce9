from collections import OrderedDict

import pytest
import torch
import torchvision

from models.errors import WeightsError
from models.joint import JointModel
from models.masked_volume import MaskedVolumeModel
from models.pretrained import load_encoders, load_joint_start, load_masked, load_resnet
from models.slice_encoder import SliceEncoder
from models.volume_encoder import VolumeEncoder
from models.weight_files import architecture, read_weights


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    encoder, masked = SliceEncoder("resnet18", 640), MaskedVolumeModel(VolumeEncoder(640))
    torch.save(OrderedDict(encoder.resnet.state_dict()), folder / "resnet.pth")
    parts = torch.nn.ModuleDict({"slice_encoder": encoder, "masked": masked})
    about = {"format_version": 1, "method": "swav", "config": {"arch": "resnet18", "d_model": 640}}
    torch.save({**about, "stage": "mask", "model": parts.state_dict()}, folder / "mask.pth")
    joint = JointModel(encoder, masked.volume_encoder, (2,), (3,))
    torch.save({**about, "stage": "joint", "model": joint.state_dict()}, folder / "joint.pth")
    (folder / "page.pth").write_text("<html>404</html>", encoding="utf-8")
    (folder / "cut.pth").write_bytes((folder / "mask.pth").read_bytes()[:5000])
    torch.save({"a": 1}, folder / "other.pth")
    return folder, encoder, masked


def test_stage_3_starts_from_the_map_that_stage_2_saved(files):
    folder, encoder, masked = files
    joint = JointModel(SliceEncoder("resnet18", 640), VolumeEncoder(640), (4,), (4,))
    load_joint_start(joint, folder / "resnet.pth", folder / "mask.pth", seed=1)
    for name, value in encoder.state_dict().items():
        assert torch.equal(joint.slice_encoder.state_dict()[name], value), name
    assert torch.equal(joint.masked.token, masked.token)


@pytest.mark.parametrize("name", ["resnet", "mask", "joint"])
def test_encoders_come_out_of_any_stage(files, name):
    folder, encoder, masked = files
    encoders, said = load_encoders(folder / f"{name}.pth")
    assert "tensors loaded, " in said[0]
    assert encoders.arch == "resnet18" and (encoders.volume_encoder is None) == (name == "resnet")
    assert torch.equal(encoders.slice_encoder.resnet.conv1.weight, encoder.resnet.conv1.weight)
    if name != "resnet":
        assert torch.equal(
            encoders.volume_encoder.state_dict()["layers.3.norm2.weight"], masked.volume_encoder.layers[3].norm2.weight
        )
    encoders.to(torch.device("cpu"))
    with torch.no_grad():
        real = torch.tensor([[True, True, True], [True, False, False]])
        embedded = encoders.embed_volumes(torch.randn(2, 3, 32, 32), real)
    assert embedded.shape == (2, 512 if name == "resnet" else 640)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize(
    "name, message",
    [
        ("none.pth", "none.pth is missing; train the stage that writes it"),
        ("page.pth", "page.pth is a web page"),
        ("cut.pth", "cut.pth is no weight file"),
        ("other.pth", "other.pth holds no weights that are known"),
        ("mask.pth", r"mask.pth is from stage 2 .* but a file of stage 1"),
    ],
)
def test_what_is_no_resnet_of_stage_1_is_refused_in_one_sentence(files, name, message):
    with pytest.raises(WeightsError, match=message) as error:
        load_resnet(SliceEncoder("resnet18", 8), files[0] / name)
    assert "\n" not in str(error.value)


def test_another_architecture_is_named_with_the_flag_that_would_do(files):
    folder = files[0]
    with pytest.raises(WeightsError, match=r"resnet\.pth holds a resnet18, but --arch is resnet50"):
        load_resnet(SliceEncoder("resnet50", 8), folder / "resnet.pth")
    torch.save(torchvision.models.resnet152().state_dict(), folder / "deep.pth")
    with pytest.raises(WeightsError, match=r"deep\.pth holds a network of 50 blocks; ResNet-18, 34, 50 and 101 are known"):
        load_resnet(SliceEncoder("resnet50", 8), folder / "deep.pth")
    with pytest.raises(WeightsError, match=r"mask\.pth was made with --d_model 640, not 32"):
        load_masked(SliceEncoder("resnet18", 32), MaskedVolumeModel(VolumeEncoder(32, 1), 32), folder / "mask.pth")
    with pytest.raises(WeightsError, match=r"resnet\.pth is from stage 1"):
        load_masked(SliceEncoder("resnet18", 32), MaskedVolumeModel(VolumeEncoder(32, 1), 32), folder / "resnet.pth")


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_architectures_are_told_by_their_blocks(arch):
    assert architecture(SliceEncoder(arch, 4).resnet.state_dict()) == arch


def test_a_file_that_would_run_code_is_refused(tmp_path):
    import pickle

    class Harmful:
        def __reduce__(self):
            return print, ("code was run",)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(WeightsError, match=r"evil\.pth is no weight file"):
        read_weights(tmp_path / "evil.pth")
