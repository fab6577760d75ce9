import pytest
import segmentation_models_pytorch as smp
import torch

from models.errors import WeightsError
from models.slice_encoder import SliceEncoder
from models.starts import encoders_of, network_constants, starting_encoders
from models.unet import SliceUNet
from models.volume_encoder import VolumeEncoder
from tests.small_weights import write_image, write_joint

REAL = torch.tensor([[True] * 4, [True, True, False, False]])


@pytest.fixture(scope="module")
def encoders():
    torch.manual_seed(0)
    return SliceEncoder("resnet18", 32), VolumeEncoder(32, dropout=0.0, identity=False)


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 4, 64, 96, generator=torch.Generator().manual_seed(1))


def test_without_context_it_is_the_unet_of_the_library(encoders, pixels):
    ours = SliceUNet(encoders[0], 3).eval()
    theirs = smp.Unet("resnet18", encoder_weights=None, classes=3).eval()
    theirs.encoder.load_state_dict(encoders[0].resnet.state_dict())
    theirs.decoder.load_state_dict(ours.decoder.state_dict())
    theirs.segmentation_head.load_state_dict(ours.head.state_dict())
    expected = theirs(pixels[0][:, None].expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours(pixels[:1], REAL[:1]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tune", ["full", "frozen", "linear"])
def test_a_volume_in_chunks_and_in_a_padded_batch_is_the_same(encoders, pixels, tune):
    model = SliceUNet(encoders[0], 3, encoders[1], tune).eval()
    torch.nn.init.normal_(model.inject.weight)
    together = model(pixels, REAL)
    assert together.shape == (6, 3, 64, 96)
    torch.testing.assert_close(torch.cat(list(model.segment(pixels[0], chunk=3))), together[:4], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.cat(list(model.segment(pixels[1, :2]))), together[4:], atol=1e-4, rtol=1e-4)


def test_context_is_nothing_at_first_and_then_depends_on_the_neighbours(encoders, pixels):
    model = SliceUNet(encoders[0], 3, encoders[1]).eval()
    alone = SliceUNet(encoders[0], 3).eval()
    alone.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(model(pixels, REAL), alone(pixels, REAL))
    torch.nn.init.normal_(model.inject.weight)
    other = pixels.clone()
    other[0, 3] += 1
    assert not torch.allclose(model(pixels, REAL)[0], model(other, REAL)[0], atol=1e-3)


@pytest.mark.parametrize("tune", ["frozen", "linear"])
def test_what_is_not_tuned_stays_also_its_batch_statistics(encoders, pixels, tune):
    model = SliceUNet(encoders[0], 3, encoders[1], tune).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(pixels, REAL).square().mean().backward()
    optimizer.step()
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"inject", "head"} | ({"decoder"} if tune == "frozen" else set())


def test_everything_that_is_tuned_gets_a_gradient(encoders, pixels):
    f_intra = SliceEncoder("resnet18", 32)
    model = SliceUNet(f_intra, 3, VolumeEncoder(32, dropout=0.0, identity=False)).train()
    torch.nn.init.normal_(model.inject.weight)
    model(pixels, REAL).square().mean().backward()
    assert not [name for name, of in model.named_parameters() if of.requires_grad and (of.grad is None or not of.grad.any())]
    bare = SliceUNet(SliceEncoder("resnet18", 32), 3)
    bare(pixels, REAL).sum().backward()
    assert not [name for name, of in bare.named_parameters() if of.requires_grad and of.grad is None]


def test_a_linear_probe_is_linear_in_the_features(encoders, pixels):
    model = SliceUNet(encoders[0], 2, tune="linear").eval()
    maps = encoders[0].maps(pixels[0][:, None])
    zero = model._decoded([0 * of for of in maps], None, (64, 96))
    twice = model._decoded([2 * of for of in maps], None, (64, 96))
    torch.testing.assert_close(twice - zero, 2 * (model._decoded(maps, None, (64, 96)) - zero), atol=1e-4, rtol=1e-4)


def test_constants_build_the_same_network_again(encoders, tmp_path):
    found, _ = starting_encoders(None, "resnet18", 32, with_volumes=True)
    model = SliceUNet(found.slice_encoder, 3, found.volume_encoder)
    again = encoders_of(network_constants(found), tmp_path)
    SliceUNet(again.slice_encoder, 3, again.volume_encoder).load_state_dict(model.state_dict())
    with pytest.raises(WeightsError, match="does not say which network"):
        encoders_of({"arch": "resnet18"}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="does not say which network"):
        encoders_of({**network_constants(found), "arch": "load"}, tmp_path / "x.pth")


def test_decoders_begin_alike_whatever_the_encoders_were_read_from(tmp_path):
    starts = ["", write_image(tmp_path / "image.pth"), write_joint(tmp_path / "joint.pth")]
    decoders = []
    for start, with_volumes in [(start, with_volumes) for start in starts for with_volumes in (False, True)]:
        torch.manual_seed(1)
        found, _ = starting_encoders(start, "resnet18", 32, with_volumes, seed=1)
        model = SliceUNet(found.slice_encoder, 3, found.volume_encoder)
        decoders.append(torch.cat([value.flatten() for value in [*model.decoder.parameters(), *model.head.parameters()]]))
    assert all(torch.equal(decoder, decoders[0]) for decoder in decoders)
