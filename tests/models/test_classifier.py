import pytest
import torch
from torch import nn

from engine.weights import write_weights
from models.classifier import Classifier, load_classifier
from models.downstream import read_downstream
from models.errors import WeightsError
from models.pretrained import Encoders, random_encoders
from models.slice_encoder import SliceEncoder
from models.starts import network_constants
from models.volume_encoder import VolumeEncoder


def encoders(volumes=True):
    return random_encoders("resnet18", 32, seed=0, volumes=volumes)


def images(count=3):
    return torch.randn(count, 1, 24, 24, generator=torch.Generator().manual_seed(1))


def volumes():
    pixels = torch.randn(2, 5, 24, 24, generator=torch.Generator().manual_seed(2))
    return pixels, torch.arange(5) < torch.tensor([[5], [3]])


@pytest.mark.parametrize("tune", ["frozen", "linear"])
@pytest.mark.parametrize("what", ["images", "volumes"])
def test_training_a_head_changes_no_pretrained_tensor_and_no_statistics(what, tune):
    model = Classifier(encoders(), what, 3, tune)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    inputs = (images(2),) if what == "images" else volumes()
    for _ in range(2):
        model.train()
        nn.functional.cross_entropy(model(*inputs), torch.tensor([0, 2])).backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("head.")}
    assert len(changed) == (4 if tune == "frozen" else 2)


def test_full_fine_tuning_changes_encoders_and_statistics():
    model = Classifier(encoders(), "volumes", 2).train()
    statistics = model.slice_encoder.resnet.bn1.running_mean.clone()
    model(*volumes()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not torch.equal(model.slice_encoder.resnet.bn1.running_mean, statistics)


def test_embeddings_are_those_that_evaluation_scores():
    for of_volumes in (True, False):
        pretrained = encoders(of_volumes)
        pretrained.to(torch.device("cpu"))
        with torch.no_grad():
            wanted_images, wanted_volumes = pretrained.embed_images(images()), pretrained.embed_volumes(*volumes())
            for what, inputs, wanted in [("volumes", volumes(), wanted_volumes), ("images", (images(),), wanted_images)]:
                model = Classifier(pretrained, what, 2, "linear").eval()
                found = model.embed(*inputs)
                scale = model.embedding_dim**0.5 if what == "volumes" else 1
                assert model.embedding_dim == wanted.shape[1]
                torch.testing.assert_close(found, wanted * scale)


def test_padding_changes_nothing():
    model = Classifier(encoders(), "volumes", 2).eval()
    pixels, real = volumes()
    with torch.no_grad():
        together, alone = model(pixels, real), model(pixels[1:, :3], real[1:, :3])
    torch.testing.assert_close(together[1:], alone)


def test_standardised_features_have_mean_0_and_deviation_1_and_constant_ones_stay_small():
    model = Classifier(encoders(), "images", 2, "linear")
    features = torch.randn(50, model.embedding_dim) * 3 + 7
    features[:, 0] = 5
    model.set_standard(features.mean(0), features.std(0, correction=0))
    seen = model.standardise(features)
    torch.testing.assert_close(seen.mean(0), torch.zeros(model.embedding_dim), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[:, 1:].std(0, correction=0), torch.ones(model.embedding_dim - 1), atol=1e-4, rtol=0)
    features[:, 0] += 1
    assert model.standardise(features)[:, 0].max() < 50


def test_logits_are_float32_under_autocast():
    model = Classifier(encoders(), "images", 2).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images()).dtype == torch.float32


def networks():
    published = Encoders(
        SliceEncoder("resnet18", 32, "published"), VolumeEncoder(32, axis="features", slices=16, sampling="da018"), {}
    )
    return [(published, "volumes", "full"), (encoders(), "volumes", "frozen"), (encoders(False), "volumes", "linear")]


@pytest.mark.parametrize("number", range(3))
def test_a_written_network_is_built_from_its_file_and_computes_the_same(tmp_path, number):
    pretrained, what, tune = networks()[number]
    constants = network_constants(pretrained)
    model = Classifier(pretrained, what, 3, tune).eval()
    about = {"stage": "classification", "method": tune, "config": {}, "network": constants}
    about |= {"classes": ["a", "b", "c"], "shown": {"what": what}, "tune": tune}
    write_weights(tmp_path / "c.pth", model.state_dict(), about)
    again = load_classifier(read_downstream(tmp_path / "c.pth", "classification"))
    slices = 16 if number == 0 else 5
    pixels = torch.randn(2, slices, 24, 24)
    with torch.no_grad():
        assert torch.equal(again(pixels, torch.ones(2, slices).bool()), model(pixels, torch.ones(2, slices).bool()))


def test_a_file_whose_tensors_are_of_another_network_is_refused(tmp_path):
    model = Classifier(encoders(), "volumes", 3)
    about = {"stage": "classification", "method": "full", "config": {}, "network": network_constants(encoders())}
    about |= {"classes": ["a", "b", "c", "d"], "shown": {"what": "volumes"}, "tune": "full"}
    write_weights(tmp_path / "c.pth", model.state_dict(), about)
    with pytest.raises(WeightsError, match="does not fit"):
        load_classifier(read_downstream(tmp_path / "c.pth"))
