import pytest
import torch

from models.joint import JointModel
from models.slice_encoder import SliceEncoder
from models.volume_encoder import VolumeEncoder


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    encoder = VolumeEncoder(32, layers=1, feedforward_dim=16, heads=4, head_dim=8, dropout=0.0)
    return JointModel(SliceEncoder("resnet18", 32), encoder, (3, 2), (5,), head_dim=8)


def data():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(4, 6, 32, 32, generator=generator)
    real = torch.arange(6) < torch.tensor([6, 4, 6, 4])[:, None]
    masked = torch.zeros(4, 6, dtype=torch.bool)
    masked[:, 1] = True
    return pixels, real, masked, torch.randn(2, 1, 40, 40, generator=generator)


def test_shapes_with_and_without_images(model):
    pixels, real, masked, images = data()
    out = model(pixels, real, masked, images)
    assert out.slice_embeddings.shape == (4, 6, 32) and not out.slice_embeddings[~real].any()
    assert [s.shape for s in out.volume_scores] == [(4, 3), (4, 2)]
    assert out.projections.shape == (22, 8) and out.scores[0].shape == (22, 5)
    assert model(pixels, real, masked).projections.shape == (20, 8)


def test_images_and_volumes_do_not_touch_each_other_in_eval_mode(model):
    pixels, real, masked, images = data()
    model.eval()
    with torch.no_grad():
        both, alone = model(pixels, real, masked, images), model(pixels, real, masked)
        other = model(pixels[:1], real[:1], masked[:1], images)
    model.train()
    assert torch.allclose(both.volume_embeddings, alone.volume_embeddings, atol=1e-6)
    assert torch.allclose(both.projections[-2:], other.projections[-2:], atol=1e-5)


def test_every_loss_reaches_what_it_is_to_train(model):
    out = model(*data())
    reached = {}
    losses = {
        "inter": out.volume_scores[0].square().sum(),
        "intra": out.scores[0].square().sum(),
        "mask": out.predictions.sum(),
    }
    for name, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        reached[name] = {
            n.split(".")[0] + ("." + n.split(".")[1] if n.startswith("masked") else "")
            for n, p in model.named_parameters()
            if p.grad is not None and p.grad.any()
        }
    assert {"slice_encoder", "masked.volume_encoder", "prototypes"} <= reached["inter"]
    assert reached["intra"] == {"slice_encoder", "slice_head", "prototypes"}
    assert "masked.decoder" in reached["mask"] and "slice_head" not in reached["mask"]
