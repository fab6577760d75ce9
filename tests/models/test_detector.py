import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from engine.weights import write_weights
from models.detector import BACKBONE, Detector, make_detector, rebuilt
from models.downstream import read_downstream
from models.errors import WeightsError
from models.pretrained import load_encoders
from models.slice_encoder import SliceEncoder
from tests.small_weights import write_joint

TARGETS = [
    {"boxes": torch.tensor([[5.0, 5, 40, 30]]), "labels": torch.tensor([1])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


def made(path="", arch="resnet18", normalise="", tune="full"):
    return make_detector(str(path), arch, normalise, 2, 64, tune, 0.05, 32)


@pytest.fixture
def plain(tmp_path):
    """A ResNet-18 by torchvision's names, with statistics of batch norm that are not those of a new one."""
    torch.manual_seed(0)
    network = resnet18()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, 3, 64, 64))
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    return network.eval(), tmp_path / "plain.pth"


def test_the_backbone_computes_what_the_weights_compute(plain):
    network, path = plain
    detector, about, said = made(path)
    assert about["normalise"] == "robust" and about["channels"] == 1 and "tensors loaded" in said[0]
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        detector.train()  # batch norms stay
        stages = detector.backbone.body(grey)
        x = network.maxpool(network.relu(network.bn1(network.conv1(grey.expand(-1, 3, -1, -1)))))
        for level, layer in enumerate((network.layer1, network.layer2, network.layer3, network.layer4)):
            x = layer(x)
            torch.testing.assert_close(stages[str(level)], x, atol=1e-4, rtol=1e-4)
        pooled = load_encoders(path)[0].slice_encoder.eval().pooled(grey)
        torch.testing.assert_close(stages["3"].mean((2, 3)), pooled, atol=1e-4, rtol=1e-4)


def test_imagenet_weights_keep_their_three_channels_on_request(plain):
    network, path = plain
    detector, about, _ = made(path, normalise="imagenet")
    assert about["channels"] == 3 and torch.equal(detector.backbone.body.conv1.weight, network.conv1.weight)


def test_a_pretrained_resnet_keeps_its_norms_and_a_random_one_learns_them(plain):
    for path, learns in [("", True), (plain[1], False)]:
        detector = made(path)[0].train()
        norms = [m for m in detector.backbone.body.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert all(norm.training is learns and norm.weight.requires_grad is learns for norm in norms) and len(norms) == 20


def test_frozen_leaves_the_resnet_and_full_learns_all_of_it(plain):
    for tune in ("frozen", "full"):
        detector = made(plain[1], tune=tune)[0].train()
        sum(detector(torch.randn(2, 1, 64, 64), TARGETS).values()).backward()
        moved = {name for name, parameter in detector.named_parameters() if parameter.grad is not None}
        assert (BACKBONE + "conv1.weight" in moved) is (tune == "full")
        assert {"backbone.fpn.inner_blocks.0.0.weight", "rpn.head.cls_logits.weight"} <= moved


def test_pictures_are_seen_as_they_are_given(plain):
    """torchvision's own resizing and normalisation would change the pyramid."""
    detector = made(plain[1])[0].eval()
    seen = []
    detector.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        detector(images)
    assert torch.equal(seen[0], images)


def test_coordinates_are_exact_also_where_the_resnet_computes_in_half_precision():
    detector = made()[0].eval()
    boxes = []
    detector.rpn.anchor_generator.register_forward_hook(lambda module, inputs, out: boxes.extend(out))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = detector(torch.randn(1, 1, 64, 64))
    assert boxes[0].dtype == torch.float32 and found[0]["boxes"].dtype == torch.float32


def test_a_picture_is_found_alone_as_in_a_batch(plain):
    detector = made(plain[1])[0].double().eval()
    images = torch.randn(3, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        together, alone = detector(images), detector(images[1:2])
    np.testing.assert_allclose(together[1]["boxes"], alone[0]["boxes"], atol=1e-8)
    np.testing.assert_allclose(together[1]["scores"], alone[0]["scores"], atol=1e-8)


def test_what_was_written_is_built_again(tmp_path):
    detector, about, _ = made()
    findings = {"findings": ["mass", "node"]}
    write_weights(tmp_path / "d.pth", detector.state_dict(), {"stage": "detection", "config": {}, **about, **findings})
    again = rebuilt(read_downstream(tmp_path / "d.pth", "detection"))
    detector.eval()
    images = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images)[0]["scores"], detector(images)[0]["scores"])


def test_weights_without_a_resnet_are_refused(tmp_path):
    torch.save({"token": torch.zeros(3)}, tmp_path / "t.pth")
    with pytest.raises(WeightsError, match="holds no weights that are known"):
        made(tmp_path / "t.pth")


def test_anchors_have_sides_of_shares_of_the_picture():
    detector = Detector(SliceEncoder("resnet18", channels=1), 1, 128, fixed_norms=False)
    areas = [float(((a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])).max()) for a in detector.rpn.anchor_generator.cell_anchors]
    assert np.sqrt(areas) == pytest.approx([4, 8, 16, 32, 64], rel=0.1)


def test_what_stands_on_the_resnet_begins_alike_whatever_it_was_read_from(tmp_path):
    states = []
    for path in ("", write_joint(tmp_path / "joint.pth")):
        torch.manual_seed(1)
        states.append(made(path)[0].state_dict())
    rest = [name for name in states[0] if not name.startswith(BACKBONE)]
    assert rest and all(torch.equal(states[0][name], states[1][name]) for name in rest)
