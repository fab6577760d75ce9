from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision

from convert_weights import ConvertConfig, main
from engine.config import parse
from engine.errors import UserError
from engine.weights import write_weights
from joint_ssl import load_model
from models.errors import WeightsError
from models.joint import JointModel
from models.pretrained import make_encoders
from models.vissl import to_vissl
from models.weight_files import read_weights
from tests import released_files as released


def convert(*words) -> None:
    main(parse(ConvertConfig, [str(word) for word in words]))


def constants(**changes) -> dict:
    known = {"arch": "resnet18", "d_model": 32, "attention": "slices", "sampling": "da020", "slice_embedding": "unit"}
    known |= {"target_shape": [16, 24, 24], "normalise": "robust", "fit": "shrink", "masking": "filled", "scores": "cosine"}
    return known | {"data_path": "some/volumes"} | changes


def joint_file(path, **changes):
    """A file of stage 3 as a run writes it, with random weights."""
    config = constants(**changes)
    torch.manual_seed(0)
    encoders = make_encoders(SimpleNamespace(**config, dropout=0.0), identity=False)
    model = JointModel(*encoders, (4, 3), (5,), scores=config["scores"])
    data = [{"what": "volumes", "items": 3, "collections": {"ct": 2, "mr": 1}, "names": "ab" * 32}]
    about = {
        "stage": "joint",
        "method": "swav",
        "run": "r",
        "config": config,
        "inputs": {"weights/a.pth": "cd" * 32},
        "data": data,
    }
    write_weights(path, model.state_dict(), about)
    return path


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["resnet_swav2D.pth", "mask_swav.pth", "deepcluster3D.pth"])
def test_published_files_go_through_ours_and_safetensors_and_back_with_identical_tensors(tmp_path, name):
    states = released.write(tmp_path, seed=11, arch="resnet50", slices=64, dim=640)
    convert("--weights", tmp_path / name, "--to", "ours", "--output", tmp_path / "ours.pth")
    convert("--weights", tmp_path / "ours.pth", "--to", "safetensors", "--output", tmp_path / "ours.safetensors")
    convert("--weights", tmp_path / "ours.safetensors", "--to", "released", "--output", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    back = {n.removeprefix("module."): v for n, v in back.get("state_dict", back).items()}
    assert same(back, states[name])


@pytest.mark.parametrize("method", ["swav", "deepcluster"])
def test_vissl_files_go_through_ours_and_back_with_heads_and_prototypes(tmp_path, method):
    last = "layers.3" if method == "swav" else "layers.2"  # DeepCluster's has no batch norm
    shapes = {"head.layers.0.weight": (16, 512), "head.layers.0.bias": (16,)}
    shapes |= {f"head.{last}.weight": (8, 16), f"head.{last}.bias": (8,)}
    shapes |= {f"prototypes.heads.{i}": (5, 8) for i in range(1 if method == "swav" else 3)}
    state, heads = released.drawn(released.resnet_shapes("resnet18"), 3), released.drawn(shapes, 3)
    torch.save(to_vissl(state, heads, method, 104, 10, {}), tmp_path / "in.torch")
    convert("--weights", tmp_path / "in.torch", "--to", "ours", "--output", tmp_path / "ours.pth", "--heads")
    convert("--weights", tmp_path / "ours.pth", "--to", "vissl", "--output", tmp_path / "out.torch")
    one, other = read_weights(tmp_path / "in.torch"), read_weights(tmp_path / "out.torch")
    assert other.method == method and same(one.state, state) and same(other.state, state)
    assert same(one.heads, heads) and same(other.heads, heads)


def test_a_run_with_the_published_computations_becomes_a_published_file_of_the_same_function(tmp_path):
    published = {"attention": "features", "slice_embedding": "published", "masking": "published", "sampling": "da018"}
    published |= {"arch": "resnet50", "d_model": 640, "normalise": "none", "fit": "crop"}
    source = joint_file(tmp_path / "swav3D.pth", **published)
    convert("--weights", source, "--to", "released", "--output", tmp_path / "out.pth")
    volume = np.random.default_rng(0).normal(size=(1, 16, 24, 24)).astype(np.float32)
    ours, theirs = (load_model(str(tmp_path / name)) for name in ("swav3D.pth", "out.pth"))
    assert torch.equal(ours.encode_volumes(volume, fit=False), theirs.encode_volumes(volume, fit=False))
    state = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    expected = released.joint_shapes("resnet50", 16, 640, (4, 3))
    assert {name.removeprefix("module."): tuple(value.shape) for name, value in state.items()} == expected
    lengths = state["module.prototypes.prototypes0.weight"].norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(4))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({}, "holds a resnet18, .* a published file is of a resnet50"),
        ({"arch": "resnet50", "d_model": 640}, "made with --attention slices, which no published file can hold"),
    ],
)
def test_networks_that_the_published_code_does_not_have_are_not_written_as_its_files(tmp_path, changes, message):
    source = joint_file(tmp_path / "swav3D.pth", **changes)
    with pytest.raises(UserError, match=message):
        convert("--weights", source, "--to", "released", "--output", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("channels", [3, 1])
def test_the_resnet_gives_the_same_features_in_torchvision_timm_and_segmentation_models(tmp_path, channels):
    source = joint_file(tmp_path / "swav3D.pth", arch="resnet50")
    output = tmp_path / "resnet.pth"
    convert("--weights", source, "--to", "torchvision", "--output", output, "--channels", channels)
    state = torch.load(output, weights_only=True)
    images = torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    encoder = load_model(str(source), channels=channels).slice_encoder.double()
    with torch.no_grad():
        expected = encoder.pooled(images)
        if channels == 3:
            net = torchvision.models.resnet50()
            missing, unexpected = net.load_state_dict(state, strict=False)
            assert sorted(missing) == ["fc.bias", "fc.weight"] and not unexpected
            net.fc = torch.nn.Identity()
            torch.testing.assert_close(net.double().eval()(images), expected)
        net = timm.create_model("resnet50", in_chans=channels, num_classes=0)
        net.load_state_dict(state)
        torch.testing.assert_close(net.double().eval()(images), expected)
        unet = smp.Unet("resnet50", encoder_weights=None, in_channels=channels)
        unet.encoder.load_state_dict(state)
        last = unet.encoder.double().eval()(images)[-1]
        torch.testing.assert_close(last.mean((2, 3)), expected)


def test_a_safetensors_file_has_a_card_and_says_what_the_source_said(tmp_path):
    source = joint_file(tmp_path / "swav3D.pth")
    convert("--weights", source, "--to", "safetensors")
    one, other = read_weights(source), read_weights(tmp_path / "swav3D_safetensors.safetensors")
    assert same(one.state, other.state) and other.method == "swav" and other.config == one.config
    card = (tmp_path / "swav3D_safetensors.md").read_text(encoding="utf-8")
    for text in ["3 volumes (ct 2, mr 1)", "d_model: 32", "cd" * 32, "method: swav", "weights/a.pth"]:
        assert text in card
    assert load_model(str(tmp_path / "swav3D_safetensors.safetensors")).encode_volumes(np.ones((1, 5, 24, 24))).shape == (1, 32)


def test_onnx_graphs_give_what_torch_gives(tmp_path):
    source = joint_file(tmp_path / "swav3D.pth")
    convert("--weights", source, "--to", "onnx", "--output", tmp_path / "net.onnx", "--channels", 1)
    model = load_model(str(source), channels=1)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 1, 40, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "net_slices.onnx"))
    with torch.no_grad():
        expected = model.slice_encoder(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-4)
    assert (tmp_path / "net_volumes.onnx").exists()


def test_nothing_is_replaced_or_left_half_written(tmp_path):
    source = joint_file(tmp_path / "swav3D.pth")
    with pytest.raises(UserError, match="Nothing is to be converted"):
        convert("--to", "ours")
    (tmp_path / "x.pth").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.pth is there already; .*--overwrite"):
        convert("--weights", source, "--to", "torchvision", "--output", tmp_path / "x.pth")
    assert (tmp_path / "x.pth").read_text(encoding="utf-8") == "mine"
    convert("--weights", source, "--to", "torchvision", "--output", tmp_path / "x.pth", "--overwrite")
    assert read_weights(tmp_path / "x.pth").stage == "image"


def test_the_resnet_of_stage_3_goes_through_vissl_and_back_as_stage_1(tmp_path):
    source = joint_file(tmp_path / "swav3D.pth")
    convert("--weights", source, "--to", "vissl", "--output", tmp_path / "a.torch")
    convert("--weights", tmp_path / "a.torch", "--to", "ours", "--output", tmp_path / "b.pth")
    back = read_weights(tmp_path / "b.pth")
    prefix = "slice_encoder.resnet."
    resnet = {n.removeprefix(prefix): v for n, v in read_weights(source).state.items() if n.startswith(prefix)}
    assert (back.stage, back.method) == ("image", "swav") and same(back.state, resnet)
    assert load_model(str(tmp_path / "b.pth")).volume_encoder is None


@pytest.mark.parametrize("form", ["ours", "released", "vissl", "torchvision", "safetensors", "onnx"])
def test_what_fits_no_network_is_not_converted(tmp_path, form):
    state = torchvision.models.wide_resnet50_2().state_dict()
    torch.save(state, tmp_path / "wide.pth")
    torch.save({"conv1.weight": state["conv1.weight"]}, tmp_path / "stem.pth")
    before = sorted(tmp_path.iterdir())
    for name in ("wide.pth", "stem.pth"):
        with pytest.raises(WeightsError, match=name):
            convert("--weights", tmp_path / name, "--to", form)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "words, message",
    [
        (["--to", "vissl", "--sampling", "da018"], "--sampling can't be said"),
        (["--to", "ours", "--resnet_pretrained", "a.pth"], "--resnet_pretrained is read for --to onnx alone"),
        (["--to", "ours", "--heads"], "--heads keeps those of stage 1"),
        (["--to", "ours", "--channels", "0"], "--channels is 0; it must be above 0"),
        (["--to", "safetensors", "--output", "a.md"], r"does not end in \.safetensors"),
        (["--to", "ours", "--output", "."], r"--output \. is a folder"),
        (["--to", "ours", "--output", "none/a.pth"], "in no folder that is there"),
    ],
)
def test_flags_that_would_do_nothing_or_harm_are_refused(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    source = joint_file(tmp_path / "swav3D.pth")
    with pytest.raises(UserError, match=message):
        convert("--weights", source, *words)
    assert list(tmp_path.iterdir()) == [source]


def test_a_sampling_that_was_asked_for_stays_with_the_file(tmp_path):
    released.write(tmp_path)
    convert("--weights", tmp_path / "swav3D.pth", "--to", "ours", "--output", tmp_path / "a.pth", "--sampling", "da020")
    assert load_model(str(tmp_path / "a.pth")).volume_encoder.sampling == "da020"


def test_all_forms_can_be_read_by_those_who_can_read_the_source(tmp_path):
    source = joint_file(tmp_path / "swav3D.pth")
    for form in ("safetensors", "torchvision"):
        convert("--weights", source, "--to", form)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
