import json
import pickle
import random
import struct
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz_files
from models.errors import WeightsError
from models.pretrained import load_encoders
from models.released import to_released
from models.weight_files import read_weights
from tests import reference_recipe as recipe
from tests import released_files as released


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    return folder, released.write(folder)


@pytest.mark.skipif(not recipe.FOLDER.exists(), reason="the list of published names is not here")
def test_the_names_and_shapes_of_these_tests_are_the_published_ones():
    stored = json.loads((recipe.FOLDER / "released_keys.json").read_text(encoding="utf-8"))
    shapes = {
        "resnet_swav2D.pth": released.resnet_shapes("resnet50"),
        "mask_swav.pth": {f"module.{n}": s for n, s in released.mask_shapes().items()},
        "swav3D.pth": {f"module.{n}": s for n, s in released.joint_shapes().items()},
        "deepcluster3D.pth": {f"module.{n}": s for n, s in released.joint_shapes(prototypes=(4, 4, 4)).items()},
    }
    for name, expected in shapes.items():
        assert {n: tuple(s) for n, s in stored[name]["tensors"].items()} == expected, name


@pytest.mark.parametrize(
    "name, stage, method, origin",
    [
        ("resnet_swav2D.pth", "image", "unknown", "a plain ResNet"),
        ("mask_swav.pth", "mask", "unknown", "published"),
        ("swav3D.pth", "joint", "unknown", "published"),
        ("deepcluster3D.pth", "joint", "deepcluster", "published"),
    ],
)
def test_stage_origin_and_where_shapes_tell_the_method_are_recognised(files, name, stage, method, origin):
    weights = read_weights(files[0] / name)
    assert (weights.stage, weights.method, weights.origin) == (stage, method, origin)
    if stage != "image":
        assert weights.config["d_model"] == 32 and weights.config["target_shape"][0] == 16


@pytest.mark.parametrize("name, stage", [("mask_swav.pth", "mask"), ("deepcluster3D.pth", "joint")])
def test_published_names_go_in_and_come_out_with_the_same_tensors(files, name, stage):
    folder, states = files
    out = to_released(stage, read_weights(folder / name).state)
    assert {n.removeprefix("module."): v.shape for n, v in out.items()} == {n: v.shape for n, v in states[name].items()}
    for n, value in states[name].items():
        assert torch.equal(out["module." + n], value), n


def test_a_number_of_an_old_numpy_does_not_keep_a_checkpoint_from_being_read(tmp_path):
    content = released.checkpoint(released.drawn(released.mask_shapes(16, 32), 1))
    torch.save(content, tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "new.pth").read_bytes()
    assert b"numpy._core.multiarray" in data
    (tmp_path / "old.pth").write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_weights(tmp_path / "old.pth").stage == "mask"


def test_a_resnet_in_a_checkpoint_of_several_processes_is_found_and_other_heads_are_left_out(tmp_path):
    state = released.drawn(released.resnet_shapes("resnet18"), 2)
    heads = {
        "fc.weight": torch.ones(3, 512),
        "projection_head.0.weight": torch.ones(4, 512),
        "prototypes.weight": torch.ones(5, 4),
    }
    for kind in ("state_dict", "model"):
        torch.save({"epoch": 3, kind: {f"module.{n}": v for n, v in (state | heads).items()}}, tmp_path / "swav.pth.tar")
        encoders, said = load_encoders(tmp_path / "swav.pth.tar")
        assert said[0].endswith("120 tensors loaded, 0 missing, 3 unexpected (fc, projection_head, prototypes, not used here)")
        assert torch.equal(encoders.slice_encoder.resnet.conv1.weight, state["conv1.weight"])


def test_what_is_said_counts_loaded_missing_and_unexpected_tensors(files):
    _, said = load_encoders(files[0] / "deepcluster3D.pth")
    assert "0.0.18" in said[0] and "--sampling" in said[0]
    assert said[1].endswith("210 tensors loaded, 0 missing, 3 unexpected (prototypes, not used here)")
    assert "method deepcluster" in said[1]


def test_a_mask_file_without_a_resnet_asks_for_that_of_stage_1(files):
    folder, _ = files
    with pytest.raises(WeightsError, match=r"mask_swav\.pth holds no ResNet; .* --resnet_pretrained"):
        load_encoders(folder / "mask_swav.pth")
    encoders, said = load_encoders(folder / "mask_swav.pth", resnet=folder / "resnet_swav2D.pth")
    assert encoders.volume_encoder.slices == 16 and len(said) == 3 and "missing (slice_encoder)" in said[1]


class Harmful:
    def __reduce__(self):
        return print, ("code was run",)


def bad_files(folder):
    torch.save({"conv1.weight": Harmful()}, folder / "evil.pth")
    (folder / "evil_old.pth").write_bytes(pickle.dumps(Harmful()))
    whole = folder / "whole.pth"
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, whole)
    (folder / "cut.pth").write_bytes(whole.read_bytes()[:-900])
    (folder / "page.pth").write_text("<!DOCTYPE html><html><body>404</body></html>", encoding="utf-8")
    (folder / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", encoding="utf-8")
    (folder / "empty.pth").write_bytes(b"")
    (folder / "huge.safetensors").write_bytes(struct.pack("<Q", 10**9) + b'{"a"' + b" " * 100)
    (folder / "notes.pth").write_text("some notes", encoding="utf-8")
    torch.save([1, 2], folder / "list.pth")
    torch.save({"conv1.weight": 3, "layer1.0.conv1.weight": 4}, folder / "numbers.pth")
    torch.save({"a.weight": torch.ones(2)}, folder / "other.pth")


@pytest.mark.parametrize(
    "name, says",
    [
        ("evil.pth", "objects other than tensors"),
        ("evil_old.pth", "objects other than tensors"),
        ("cut.pth", "cut off or damaged"),
        ("page.pth", "is a web page"),
        ("pointer.pth", "git lfs pull"),
        ("empty.pth", "is empty"),
        ("huge.safetensors", "no safetensors file"),
        ("notes.pth", "begins as neither"),
        ("list.pth", "holds a list"),
        ("numbers.pth", "holds no plain tensor under conv1.weight"),
        ("other.pth", "holds no weights that are known"),
        ("nothing.pth", "is missing"),
    ],
)
def test_what_holds_no_weights_is_refused_in_one_sentence_that_names_the_file(tmp_path, capsys, name, says):
    bad_files(tmp_path)
    with pytest.raises(WeightsError, match=says) as error:
        read_weights(tmp_path / name)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_a_stem_of_any_number_of_channels_gives_the_same_for_equal_channels(files, channels):
    folder, _ = files
    three, _ = load_encoders(folder / "swav3D.pth")
    other, _ = load_encoders(folder / "swav3D.pth", channels=channels)
    grey = torch.tensor(np.random.default_rng(0).normal(size=(2, 1, 24, 24)))
    outs = []
    for encoders, count in [(three, 3), (three, 1), (other, channels), (other, 1)]:
        encoders.slice_encoder.double().eval()
        outs.append(encoders.slice_encoder(grey.expand(-1, count, -1, -1)).detach())
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=1e-6, atol=1e-7)


def without(state, *parts):
    return {name: value for name, value in state.items() if not any(part in name for part in parts)}


def odd_states(states):
    """Checkpoints of others that are not what their names say: what is odd, with the content."""
    joint, resnet = states["swav3D.pth"], states["resnet_swav2D.pth"]
    stem, turned = resnet["conv1.weight"], "intra.deconv.weight"
    first = "inter.encoder.layers.0."
    yield "lacks blocks", without(joint, "intra.layer3.")
    yield "lacks a size", without(joint, first + "attention.to_out.weight")
    yield "lacks a norm", without(joint, first + "norm1.weight")
    yield "a number for a matrix", {**joint, first + "attention.to_out.weight": torch.tensor(1.0)}
    yield "a text for a matrix", {**joint, first + "attention.to_out.weight": "text"}
    yield "a flat map", {**joint, turned: joint[turned][:, :, 0]}
    yield "a map of two taps", {**joint, turned: joint[turned].repeat(1, 1, 2)}
    yield "a flat stem", {**resnet, "conv1.weight": stem.flatten()}
    yield "a stem without channels", {**resnet, "conv1.weight": stem[:, :0]}
    yield "a stem that is not stored", {**resnet, "conv1.weight": stem[:, :1].expand(64, 10**9, 7, 7)}
    yield "no numbers", {**resnet, "bn1.weight": torch.full((64,), torch.nan)}
    yield "whole numbers", {**resnet, "bn1.weight": torch.ones(64, dtype=torch.int32)}
    yield "complex numbers", {**resnet, "bn1.weight": torch.ones(64, dtype=torch.complex64)}
    yield "a sparse tensor", {**resnet, "bn1.weight": torch.ones(64).to_sparse()}
    yield "no tensor", {**resnet, "bn1.weight": [1.0] * 64}
    yield "VISSL without a model", {"classy_state_dict": {"base_model": None}}
    yield "VISSL with numbers for names", {"model_state_dict": {"_feature_blocks.conv1.weight": stem, 3: stem}}
    ours = {"format_version": 1, "stage": "image", "method": "swav", "config": {}, "model": resnet}
    yield "no method", without(ours, "method")
    yield "a format in words", {**ours, "format_version": "1"}
    yield "no configuration", {**ours, "config": None}


def test_what_is_not_what_its_names_say_is_refused_in_one_sentence_that_names_the_file(files, tmp_path):
    for what, content in odd_states(files[1]):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(WeightsError, match=r"odd\.pth") as refused:
            load_encoders(tmp_path / "odd.pth")
        assert len(str(refused.value)) < 400 and "\n" not in str(refused.value), what


def test_batches_that_an_old_file_does_not_count_are_no_reason_to_refuse_it(files, tmp_path):
    state = without(files[1]["resnet_swav2D.pth"], "num_batches_tracked")
    torch.save(state, tmp_path / "old.pth")
    _, said = load_encoders(tmp_path / "old.pth")
    assert "100 tensors loaded, 20 missing (bn1, layer1" in said[0]


def test_what_is_missing_unexpected_or_of_another_shape_is_named(files, tmp_path):
    resnet = files[1]["resnet_swav2D.pth"]
    torch.save({**without(resnet, "bn1.bias"), "more": torch.ones(2), "bn1.weight": torch.ones(3)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"bn1\.bias .*missing; more unexpected; bn1\.weight of another shape"):
        load_encoders(tmp_path / "odd.pth")


def test_packed_tensors_are_refused_before_they_are_unpacked(tmp_path):
    (tmp_path / "a.pth").write_bytes(fuzz_files.hostile_weights()["bomb.pth"])
    with pytest.raises(WeightsError, match="packed tensors"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("metadata", [["joint_ssl"], {"joint_ssl": [1]}, {"joint_ssl": {"format_version": "x"}}])
def test_what_a_file_says_of_itself_in_another_form_is_passed_over_or_refused(tmp_path, metadata):
    state = OrderedDict(w=torch.ones(2))
    state._metadata = metadata
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth (holds no weights that are known|is laid out as no file)"):
        read_weights(tmp_path / "a.pth")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fuzz_files.write_weight_files(folder)
    return {kind: (folder / f"a.{kind}").read_bytes() for kind in fuzz_files.WEIGHTS}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", fuzz_files.WEIGHTS)
def test_damaged_files_are_read_or_refused_with_a_sentence(tmp_path_factory, whole, kind):
    path = tmp_path_factory.mktemp("damaged") / f"b.{kind}"

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 2**63))
    def damage(seed):
        path.write_bytes(fuzz_files.damaged(kind, whole[kind], random.Random(seed)))
        try:
            read_weights(path)
        except WeightsError as error:
            assert path.name in str(error) and "\n" not in str(error)

    damage()
    assert list(path.parent.iterdir()) == [path]
