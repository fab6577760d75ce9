import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import onnx_export
from models.attention import DeformableAttention
from models.errors import WeightsError
from models.onnx_export import export_slices, export_volumes
from models.slice_encoder import SliceEncoder, embed_slices
from models.volume_encoder import VolumeEncoder, volume_embedding


class Small(nn.Module):
    """A slice encoder in a few lines: what is tested with it is the graph over the slices."""

    def __init__(self, channels=1):
        super().__init__()
        self.conv, self.to_embedding = nn.Conv2d(channels, 32, 5, stride=2), nn.Linear(32, 64)

    def forward(self, images):
        return F.normalize(self.to_embedding(self.conv(images).relu().mean((2, 3))), dim=-1) * 8


def lively(module):
    """Seeded weights at which the attention counts: it starts as the identity."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def small_volume_encoder(**changes):
    return lively(VolumeEncoder(64, layers=2, feedforward_dim=48, heads=4, head_dim=16, **changes))


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def volumes_and_mask(slices, batch, height=24, width=16):
    """The last of several volumes has a third of padding; one alone has none."""
    lengths = torch.tensor([slices] * (batch - 1) + [slices if batch == 1 else slices - slices // 3])
    generator = torch.Generator().manual_seed(slices)
    brightness = torch.randn(batch, slices, 1, 1, generator=generator)
    volumes = torch.randn(batch, slices, height, width, generator=generator) + 2 * brightness
    return volumes, torch.arange(slices) < lengths[:, None]


@torch.no_grad()
def by_torch(slice_encoder, volume_encoder, volumes, real):
    return volume_embedding(volume_encoder(embed_slices(slice_encoder, volumes, real), real), real)


def by_onnx(run, volumes, real):
    return torch.from_numpy(run.run(None, {"volumes": volumes.numpy(), "real": real.numpy()})[0])


def axes(value):
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@pytest.fixture(scope="module")
def small_slices(tmp_path_factory):
    """A resnet18 in training mode and its file."""
    torch.manual_seed(0)
    encoder, path = SliceEncoder("resnet18", 64), tmp_path_factory.mktemp("onnx") / "slices.onnx"
    export_slices(encoder, path)
    return encoder, path


def test_slices_equal_torch_at_any_size(small_slices):
    encoder, path = small_slices
    assert encoder.training  # as it was
    run = session(path)
    encoder = encoder.eval()
    for shape in [(1, 1, 16, 16), (2, 1, 31, 20), (5, 1, 32, 64)]:
        images = torch.randn(shape)
        with torch.no_grad():
            assert torch.allclose(torch.from_numpy(run.run(None, {"images": images.numpy()})[0]), encoder(images), atol=1e-4)
    encoder.train()


def test_a_file_is_whole_checked_and_says_nothing_of_the_machine(small_slices):
    encoder, path = small_slices
    assert [file.name for file in path.parent.iterdir()] == ["slices.onnx"]
    weights = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    assert weights * 0.95 < path.stat().st_size < weights * 1.05
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import if not opset.domain] == [onnx_export.OPSET]
    assert axes(model.graph.input[0]) == ["batch", 1, "height", "width"]
    assert axes(model.graph.output[0]) == ["batch", 64] and model.graph.output[0].name == "embeddings"
    content = path.read_bytes()
    assert b".py" not in content and b"site-packages" not in content


def test_slices_of_three_channels(tmp_path):
    encoder = lively(Small(channels=3))
    export_slices(encoder, tmp_path / "colour.onnx", channels=3)
    images = torch.randn(1, 3, 16, 24)
    with torch.no_grad():
        found = session(tmp_path / "colour.onnx").run(None, {"images": images.numpy()})[0]
        assert torch.allclose(torch.from_numpy(found), encoder(images), atol=1e-5)


@pytest.mark.parametrize("sampling", ["da020", "da018"])
def test_volumes_of_any_number_of_slices_equal_torch(tmp_path, sampling):
    encoder, attention = lively(Small()), small_volume_encoder(sampling=sampling)
    assert export_volumes(encoder, attention, tmp_path / "volumes.onnx") < 1e-5
    graph = onnx.load(tmp_path / "volumes.onnx").graph
    assert [axes(value) for value in graph.input] == [["batch", "slices", "height", "width"], ["batch", "slices"]]
    run = session(tmp_path / "volumes.onnx")
    for slices in [1, 2, 4, 6, 7, 15, 16, 17, 33, 98]:
        for batch in (1, 2, 3):
            volumes, real = volumes_and_mask(slices, batch, 16 + 3 * batch, 32)
            expected = by_torch(encoder, attention, volumes, real)
            assert torch.allclose(by_onnx(run, volumes, real), expected, atol=1e-6), (slices, batch)
    # the tolerance is far below what the mask and the order of the slices change (da018 reads the middle alone)
    everything = torch.ones_like(real)
    whole = by_onnx(run, volumes, everything)
    assert (whole - expected)[-1].norm() > 0.01
    assert (by_onnx(run, volumes.flip(1), everything) - whole).norm(dim=1).min() > {"da020": 1e-3, "da018": 2e-5}[sampling]
    # what stands in the padding counts for nothing, and no padding is needed
    volumes, real = volumes_and_mask(12, 2)
    clean, length = by_onnx(run, volumes, real), int(real[1].sum())
    volumes[~real] = torch.nan
    assert torch.equal(by_onnx(run, volumes, real), clean)
    assert torch.allclose(by_onnx(run, volumes[1:, :length], real[1:, :length])[0], clean[1], atol=1e-6)


@pytest.mark.parametrize("sampling, fixed", [("da020", 8), ("da018", 36), ("da020", 100)])
def test_volumes_of_a_fixed_number_of_slices_equal_torch(tmp_path, sampling, fixed):
    encoder, attention = lively(Small()), small_volume_encoder(sampling=sampling, axis="features", slices=fixed)
    export_volumes(encoder, attention, tmp_path / "volumes.onnx")
    model = onnx.load(tmp_path / "volumes.onnx")
    assert [axes(value) for value in model.graph.input] == [["batch", fixed, "height", "width"], ["batch", fixed]]
    run = session(tmp_path / "volumes.onnx")
    for batch in (1, 2, 3):
        volumes, real = volumes_and_mask(fixed, batch)
        expected = by_torch(encoder, attention, volumes, real)
        assert torch.allclose(by_onnx(run, volumes, real), expected, atol=1e-5)


def test_nothing_is_printed_and_no_random_number_is_used(tmp_path, capfd, recwarn):
    encoder, attention = lively(Small()), small_volume_encoder()
    state = torch.get_rng_state()
    export_volumes(encoder, attention, tmp_path / "volumes.onnx")
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "") and not recwarn


def refused(export, folder, match):
    (folder / "old.onnx").write_text("the file before", encoding="utf-8")
    with pytest.raises(WeightsError, match=match) as error:
        export(folder / "old.onnx")
    assert "\n" not in str(error.value) and error.value.exit_code == 2
    assert [file.name for file in folder.iterdir()] == ["old.onnx"]
    assert (folder / "old.onnx").read_text(encoding="utf-8") == "the file before"


def test_a_difference_from_torch_leaves_the_old_file(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    refused(lambda path: export_slices(Small(), path), tmp_path, r"old\.onnx is not written, because onnxruntime .* differ by")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    encoder = Small()
    nn.init.constant_(encoder.to_embedding.bias, torch.nan)
    refused(lambda path: export_slices(encoder, path), tmp_path, "the embeddings are not finite")


def test_a_network_beyond_2_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "LARGEST", 1000)
    refused(lambda path: export_slices(Small(), path), tmp_path, "larger than 2 GB")


def test_a_bug_while_exporting_leaves_nothing(tmp_path):
    class Untraceable(Small):
        def forward(self, images):
            return super().forward(images) if images.sum() > 0 else images.flatten(1)

    with pytest.raises(torch.onnx.OnnxExporterError):
        export_slices(Untraceable(), tmp_path / "slices.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"none/slices\.onnx cannot be written"):
        export_slices(Small(), tmp_path / "none" / "slices.onnx")


@pytest.mark.parametrize("items", [1, 3, 4, 5, 15, 16, 33, 98])
def test_the_longest_sequence_has_the_keys_that_are_counted(items):
    # the graph takes their number from the convolution's output, the mask of surplus keys from key_count
    attention = DeformableAttention(32, heads=4, head_dim=8)
    weights = attention.attend(torch.randn(1, items, 32))[1]
    assert weights.shape[-1] == attention.key_count(torch.tensor(items))


@pytest.mark.slow
def test_full_size_equals_torch(tmp_path):
    torch.manual_seed(0)
    encoder, attention = SliceEncoder("resnet50", 640).eval(), lively(VolumeEncoder(640))
    assert export_volumes(encoder, attention, tmp_path / "volumes.onnx") < 1e-4
    run = session(tmp_path / "volumes.onnx")
    for slices, batch in [(6, 3), (33, 2), (98, 1), (98, 2)]:
        volumes, real = volumes_and_mask(slices, batch, 32, 24)
        assert torch.allclose(by_onnx(run, volumes, real), by_torch(encoder, attention, volumes, real), atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["volumes.onnx"]
