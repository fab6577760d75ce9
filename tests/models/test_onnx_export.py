import onnx
import pytest
import torch

from models import onnx_export
from models.errors import WeightsError
from models.onnx_export import Volumes, compare, export_slices, export_volumes
from models.slice_encoder import SliceEncoder
from models.volume_encoder import VolumeEncoder


class SmallEncoder(torch.nn.Module):
    """In the place of a ResNet, whose tracing takes long: (B, 1, H, W) → (B, 32)."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 32, 3, stride=2, padding=1)

    def forward(self, images):
        return self.conv(images).relu().mean((2, 3))


def encoders(axis="slices", sampling="da020", slices=16):
    torch.manual_seed(0)
    volume_encoder = VolumeEncoder(
        32, layers=1, feedforward_dim=40, head_dim=8, dropout=0.0, axis=axis, slices=slices, sampling=sampling, identity=False
    )
    return SmallEncoder().eval(), volume_encoder.eval()


def volumes(batch, slices, height, width):
    counts = torch.tensor([slices, max(1, slices - 3), max(1, slices // 2)][:batch])
    pixels = torch.randn(batch, slices, height, width, generator=torch.Generator().manual_seed(slices))
    return {"volumes": pixels, "real": torch.arange(slices) < counts[:, None]}


@pytest.fixture(scope="module", params=["da020", "da018"])
def over_slices(request, tmp_path_factory):
    parts = encoders(sampling=request.param)
    path = tmp_path_factory.mktemp("onnx") / "volumes.onnx"
    export_volumes(*parts, path)
    return Volumes(*parts), path


@pytest.mark.parametrize("shape", [(2, 6, 24, 40), (3, 33, 32, 24), (1, 98, 16, 16), (2, 1, 24, 24), (3, 16, 40, 40)])
def test_volumes_of_any_number_and_size_of_slices_give_what_torch_gives(over_slices, shape):
    network, path = over_slices
    assert compare(network, path, volumes(*shape)) < 1e-5


def test_a_graph_is_one_whole_file_of_named_inputs(over_slices):
    _, path = over_slices
    assert [child.name for child in path.parent.iterdir()] == ["volumes.onnx"]
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert [node.name for node in graph.graph.input] == ["volumes", "real"]
    assert [d.dim_param for d in graph.graph.input[0].type.tensor_type.shape.dim] == ["batch", "slices", "height", "width"]


def test_attention_along_features_keeps_its_number_of_slices(tmp_path):
    parts = encoders("features", "da018")
    export_volumes(*parts, tmp_path / "v.onnx")
    for batch in (1, 3):
        inputs = {"volumes": torch.randn(batch, 16, 24, 32), "real": torch.ones(batch, 16, dtype=torch.bool)}
        assert compare(Volumes(*parts), tmp_path / "v.onnx", inputs) < 1e-5


@pytest.mark.parametrize("channels, taken", [(3, 1), pytest.param(5, 5, marks=pytest.mark.slow)])
def test_pictures_of_any_size_give_what_torch_gives(tmp_path, channels, taken):
    torch.manual_seed(0)
    encoder = SliceEncoder("resnet18", 32, channels=channels).eval()
    export_slices(encoder, tmp_path / "s.onnx")
    for batch, height, width in [(1, 32, 32), (4, 70, 33)]:
        assert compare(encoder, tmp_path / "s.onnx", {"images": torch.randn(batch, taken, height, width)}) < 1e-4


def test_a_graph_that_differs_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "TOLERANCE", 0.0)
    with pytest.raises(WeightsError, match="would differ"):
        export_volumes(*encoders(), tmp_path / "v.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("slices", [6, 33, 98])
def test_the_default_networks_give_what_torch_gives(tmp_path, slices):
    torch.manual_seed(0)
    parts = SliceEncoder("resnet50", 640).eval(), VolumeEncoder(640, identity=False).eval()
    export_volumes(*parts, tmp_path / "v.onnx")
    assert compare(Volumes(*parts), tmp_path / "v.onnx", volumes(2, slices, 64, 64)) < 1e-4
