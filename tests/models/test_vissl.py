import json
from collections import OrderedDict

import pytest
import torch

from models.image_model import ImageModel, load_image_start
from models.pretrained import load_encoders, load_resnet
from models.slice_encoder import SliceEncoder
from models.vissl import from_vissl, to_vissl
from models.weight_files import read_weights
from tests.reference_recipe import FOLDER, fill, tensor

METHODS = {"swav": ([3000], True), "deepcluster": ([3000, 3000, 3000], False)}


def small(method):
    """A small network of the method, with the recipe's weights."""
    prototypes, batchnorm = METHODS[method]
    model = ImageModel(SliceEncoder("resnet18", 8), [7] * len(prototypes), 16, 6, "dot", batchnorm)
    fill(model, 5)
    return model


def parts(model):
    state = model.state_dict()
    heads = {name: value for name, value in state.items() if name.startswith(("head.", "prototypes."))}
    return dict(model.slice_encoder.resnet.state_dict()), heads


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", METHODS)
def test_ours_to_vissls_layout_and_back_is_the_same_to_the_bit(method, tmp_path):
    state, heads = parts(small(method))
    about = {"format_version": 1, "method": method, "config": {"arch": "resnet18", "normalise": "robust"}, "run": "r"}
    torch.save(to_vissl(state, heads, method, phase=4, steps=3, about=about), tmp_path / "model.torch")
    back = read_weights(tmp_path / "model.torch")
    assert (back.origin, back.stage, back.method, back.about) == ("VISSL", "image", method, about)
    assert same(back.state, state) and same(back.heads, heads) and back.config == about["config"]
    content = torch.load(tmp_path / "model.torch")
    assert (content["phase_idx"], content["iteration"], content["iteration_num"]) == (4, 15, 19)


@pytest.mark.parametrize("method", METHODS)
def test_names_shapes_and_tensors_of_a_full_checkpoint_survive_both_ways(method):
    """Oracle: the names and shapes of VISSL's own modules, with tensors drawn by the recipe."""
    file = FOLDER / f"vissl_keys_{method}.json"
    if not file.exists():
        pytest.skip("the stored names of VISSL are not here")
    stored = json.loads(file.read_text(encoding="utf-8"))
    sizes = {name: shape for name, shape in stored["loss"].items() if name.startswith("centroids")}
    trunk, heads, loss = (
        {name: tensor(name, 3, torch.empty(shape, dtype=torch.int64 if name.endswith("tracked") else torch.float32))
         for name, shape in names.items()}
        for names in (stored["trunk"], stored["heads"], sizes)
    )  # fmt: skip
    model = {"trunk": trunk, "heads": heads}
    content = {"classy_state_dict": {"base_model": {"model": model}}, "loss": loss}
    found = from_vissl(content)
    assert found["method"] == method and len(found["state"]) == 318
    prototypes, batchnorm = METHODS[method]
    ours = ImageModel(SliceEncoder("resnet50", 8), prototypes, head_batchnorm=batchnorm)
    ours.slice_encoder.resnet.load_state_dict(found["state"])
    ours.load_state_dict(found["heads"], strict=False)
    again = to_vissl(*parts(ours), method, phase=104, steps=2, about={})
    assert set(stored["top_level"]) <= again.keys()
    made = again["classy_state_dict"]["base_model"]["model"]
    assert same(made["trunk"], trunk) and same(made["heads"], heads)
    if method == "deepcluster":
        assert same(again["loss"], loss)
    else:
        assert {name: list(value.shape) for name, value in again["loss"].items()} == stored["loss"]


def test_the_other_layouts_hold_the_trunk_alone_and_tell_no_method(tmp_path):
    state, _ = parts(small("swav"))
    trunk = {f"_feature_blocks.{name}": value for name, value in state.items()}
    for number, content in enumerate([{"model_state_dict": trunk}, trunk, OrderedDict(trunk)]):
        torch.save(content, tmp_path / f"{number}.torch")
        found = read_weights(tmp_path / f"{number}.torch")
        assert (found.origin, found.method, found.heads) == ("VISSL", "unknown", {}) and same(found.state, state)
        encoder = SliceEncoder("resnet18", 8)
        assert "0 missing, 0 unexpected" in load_resnet(encoder, tmp_path / f"{number}.torch")
        assert same(encoder.resnet.state_dict(), state)


def test_a_method_that_nobody_tells_is_unknown():
    state, _ = parts(small("swav"))
    trunk = {f"_feature_blocks.{name}": value for name, value in state.items()}
    heads = {f"{i}.clf.0.{what}": torch.zeros(2) for i in (0, 1) for what in ("weight", "bias")}  # SimCLR's, say
    for of_file in ({}, heads):
        content = {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": of_file}}}, "loss": {}}
        found = from_vissl(content)
        assert found["method"] == "unknown" and found["heads"] == {}
    assert from_vissl({"classy_state_dict": {}}) is None and from_vissl({"a": torch.zeros(1)}) is None


def test_stage_1_starts_from_a_checkpoint_with_its_heads_and_says_what_it_left_out(tmp_path):
    source = small("swav")
    torch.save(to_vissl(*parts(source), "swav", 0, 1, {}), tmp_path / "m.torch")
    model = ImageModel(SliceEncoder("resnet18", 8), [7], 16, 6, "dot")
    said = load_image_start(model, tmp_path / "m.torch")
    assert same(parts(model)[0], parts(source)[0]) and same(parts(model)[1], parts(source)[1])
    assert [sentence.count("loaded, too") for sentence in said] == [0, 1, 1]
    other = ImageModel(SliceEncoder("resnet18", 8), [5], 16, 6, "dot")
    assert "prototypes has another shape" in load_image_start(other, tmp_path / "m.torch")[2]
    torch.save(parts(source)[0], tmp_path / "plain.pth")
    said = load_image_start(other, tmp_path / "plain.pth")
    assert "head is not in the file and starts at random" in said[1]


def test_a_checkpoint_of_vissl_is_evaluated_with_the_pictures_that_it_was_trained_on(tmp_path):
    torch.save(to_vissl(*parts(small("swav")), "swav", 0, 1, {"config": {"normalise": "robust"}}), tmp_path / "ours.torch")
    content = to_vissl(*parts(small("swav")), "swav", 0, 1, {})
    del content["joint_ssl"]
    torch.save(content, tmp_path / "theirs.torch")
    assert load_encoders(tmp_path / "ours.torch")[0].config["normalise"] == "robust"
    encoders, _ = load_encoders(tmp_path / "theirs.torch")
    assert encoders.config["normalise"] == "imagenet"
    real = torch.tensor([[True, True], [True, False]])
    with torch.no_grad():
        embedded = encoders.embed_volumes(torch.randn(2, 2, 3, 32, 32), real)
    assert embedded.shape == (2, 512)
