"""f_intra and f_inter as ONNX files, for programs without torch; each is run in onnxruntime and compared first.

Axes: B batch, C channels, N slices, H W pixels, D embedding. Inputs are float32 and already normalised.
"""

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import nn

from .errors import WeightsError
from .slice_encoder import embed_slices
from .volume_encoder import volume_embedding

OPSET = 18  # has all that is needed, and more programs read it than the newest
TOLERANCE = 1e-4
LARGEST = 2**31 - 2**24  # bytes of weights: a protobuf file ends at 2 GiB, and the graph needs a little of that


def export_slices(slice_encoder: nn.Module, path: str | Path, channels: int = 1) -> float:
    """Writes images (B, C, H, W) → embeddings (B, D); B, H and W are free. Returns the largest difference from torch.

    channels: 1 for grey images; a file for another number (that of the stem) needs all the channels of an image.
    """
    encoder = _frozen(slice_encoder)

    def trial(batch: int, height: int, width: int) -> tuple[torch.Tensor]:
        return (_images(batch, channels, height, width),)

    axes = {"images": {0: "batch", 2: "height", 3: "width"}}
    return _export(encoder, encoder, axes, [trial(2, 40, 48), trial(1, 64, 32), trial(3, 32, 56)], path)


def export_volumes(slice_encoder: nn.Module, volume_encoder: nn.Module, path: str | Path) -> float:
    """Writes volumes (B, N, H, W), real (B, N) bool → embeddings (B, D). Returns the largest difference from torch.

    real: the mask of real slices, which come first; what stands in the others does not matter. All axes are free, but N
    is fixed to the encoder's for axis="features".
    """
    encoder = _frozen(slice_encoder)
    attention = _frozen(volume_encoder)
    sizes = [(2, 19, 40, 48), (1, 3, 48, 32), (3, 33, 32, 40)]  # N: with and without room made for the least keys
    axes = {"volumes": {0: "batch", 1: "slices", 2: "height", 3: "width"}, "real": {0: "batch", 1: "slices"}}
    if volume_encoder.axis == "features":
        fixed = volume_encoder.layers[0].attention.to_out.out_channels
        sizes = [(batch, fixed, height, width) for batch, _, height, width in sizes]
        axes = {name: {axis: free for axis, free in frees.items() if free != "slices"} for name, frees in axes.items()}

    def expected(volumes: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return volume_embedding(attention(embed_slices(encoder, volumes, real), real), real)

    def trial(batch: int, slices: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        real = torch.arange(slices).expand(batch, -1) < torch.tensor([slices] * (batch - 1) + [slices - slices // 3])[:, None]
        return _images(batch, slices, height, width), real

    return _export(VolumeGraph(encoder, attention), expected, axes, [trial(*size) for size in sizes], path)


class VolumeGraph(nn.Module):
    """Volumes and their mask → volume embeddings, as one graph without indexing by the mask.

    In eval mode no slice changes another's embedding, so that the padding may go through the encoder too, and is then dropped.
    """

    def __init__(self, slice_encoder: nn.Module, volume_encoder: nn.Module):
        super().__init__()
        self.slice_encoder, self.volume_encoder = slice_encoder, volume_encoder

    def forward(self, volumes: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        embedded = self.slice_encoder(volumes.flatten(0, 1)[:, None])  # (B·N, D)
        embedded = embedded.unflatten(0, (-1, volumes.shape[1]))
        embedded = torch.where(real[..., None], embedded, 0.0)  # no product: padding may hold what is not finite
        return volume_embedding(self.volume_encoder(embedded, real), real)


def _export(
    graph: nn.Module,
    expected: Callable,
    axes: dict[str, dict[int, str]],
    trials: list[tuple[torch.Tensor, ...]],
    path: str | Path,
) -> float:
    """Traces `graph` on the first trial, writes it, runs it on all trials, and only then gives the file its name.

    axes: the name of each free axis by its number, for each input.
    """
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise WeightsError(f"{path} cannot be written; name a file in a folder that is there.")
    if sum(tensor.nbytes for tensor in graph.state_dict().values()) > LARGEST:
        raise WeightsError(f"{path} would be larger than 2 GB, which no ONNX file can be; export a smaller network.")
    with torch.no_grad():
        references = [expected(*trial) for trial in trials]
    if not all(reference.isfinite().all() for reference in references):
        raise WeightsError(f"{path} is not written, because the embeddings are not finite; export other weights.")
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(_traced(graph, trials[0], axes).SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        onnx.checker.check_model(temporary, full_check=True)
        difference = max(
            float((found - reference).abs().max()) for found, reference in zip(_run(temporary, axes, trials), references)
        )
        if not difference <= TOLERANCE:  # so written, NaN is refused
            raise WeightsError(
                f"{path} is not written, because onnxruntime {onnxruntime.__version__} and torch {torch.__version__} differ by "
                f"{difference:.1e} on it, and {TOLERANCE:.0e} is allowed; install the locked versions (requirements.txt)."
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return difference


def _traced(graph: nn.Module, example: tuple[torch.Tensor, ...], axes: dict[str, dict[int, str]]) -> onnx.ModelProto:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # two inputs share an axis, and the exporter says so
        model = torch.onnx.export(
            graph, example, input_names=list(axes), output_names=["embeddings"], opset_version=OPSET, dynamo=True,
            dynamic_shapes=tuple(axes.values()), verbose=False,
        ).model_proto  # fmt: skip
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]  # the trace of each node: paths of this machine, and no use to a reader
    return model


def _run(path: Path, axes: dict[str, dict[int, str]], trials: list[tuple[torch.Tensor, ...]]) -> list[torch.Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [
        torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in zip(axes, trial)})[0]) for trial in trials
    ]


def _frozen(module: nn.Module) -> nn.Module:
    """A copy in eval mode, float32, on the CPU; the module itself may be in training elsewhere."""
    return copy.deepcopy(module).cpu().float().eval()


def _images(*shape: int) -> torch.Tensor:
    """Noise of a brightness that differs between the images: slices that are all alike would hide errors in their order."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator) + 2 * torch.randn(*shape[:-2], 1, 1, generator=generator)
