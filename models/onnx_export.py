"""Both encoders as ONNX graphs of free sizes, each run once in onnxruntime beside torch before it gets its name."""

import contextlib
import io
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.export import Dim

from .errors import WeightsError
from .slice_encoder import SliceEncoder
from .volume_encoder import VolumeEncoder, volume_embedding

TOLERANCE = 1e-4
# the tracer wants to know that a picture is larger than one pixel of the last stage; the graph takes smaller ones, too
HEIGHT, WIDTH = Dim("height", min=33, max=2**14), Dim("width", min=33, max=2**14)
TRACED, CHECKED = (2, 9), (1, 14)  # volumes and slices, where the number of slices is free


class Volumes(nn.Module):
    """Volumes and their masks → volume embeddings, without a step whose result's size depends on values."""

    def __init__(self, slice_encoder: SliceEncoder, volume_encoder: VolumeEncoder):
        super().__init__()
        self.slice_encoder, self.volume_encoder = slice_encoder, volume_encoder

    def forward(self, volumes: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        # in eval mode padding may go through f_intra: it touches no statistics, and nothing reads what comes out
        slices = self.slice_encoder(volumes.flatten(0, 1)[:, None]).unflatten(0, volumes.shape[:2]) * real[..., None]
        return volume_embedding(self.volume_encoder(slices, real), real)


def export_slices(slice_encoder: SliceEncoder, path: Path) -> None:
    """`images` (batch, channels, height, width) float32, normalised → `embeddings` (batch, D).

    One channel where the stem takes three, of which grey pictures need one. Raises `WeightsError` as `_export` does.
    """
    channels = slice_encoder.resnet.conv1.in_channels
    channels = 1 if channels == 3 else channels
    sizes = {"images": {0: Dim("batch"), 2: HEIGHT, 3: WIDTH}}
    traced, checked = torch.randn(2, channels, 64, 48), torch.randn(3, channels, 40, 56)
    _export(slice_encoder, {"images": traced}, {"images": checked}, sizes, path)


def export_volumes(slice_encoder: SliceEncoder, volume_encoder: VolumeEncoder, path: Path) -> None:
    """`volumes` (batch, slices, height, width) float32, normalised, `real` (batch, slices) bool → `embeddings` (batch, D).

    Real slices come first. Their number is free, unless f_inter is bound to one. Raises `WeightsError` as `_export` does.
    """
    free = {0: Dim("batch"), 1: Dim("slices")} if volume_encoder.slices is None else {0: Dim("batch")}
    sizes = {"volumes": {**free, 2: HEIGHT, 3: WIDTH}, "real": free}

    def example(batch: int, slices: int, height: int, width: int) -> dict[str, torch.Tensor]:
        slices = volume_encoder.slices or slices
        count = slices - torch.arange(batch)[:, None] * (volume_encoder.slices is None)
        return {"volumes": torch.randn(batch, slices, height, width), "real": torch.arange(slices) < count}

    _export(Volumes(slice_encoder, volume_encoder), example(*TRACED, 40, 48), example(*CHECKED, 48, 40), sizes, path)


def _export(network: nn.Module, traced: dict, checked: dict, sizes: dict, path: Path) -> None:
    """Traces the network, and compares graph and network on an input of other sizes.

    Raises `WeightsError` when they differ by more than 1e-4; nothing is left at `path` then.
    """
    network = network.float().eval()
    temporary = path.with_name(path.name + ".tmp")
    try:
        with torch.no_grad(), quiet():
            # deferred: few and many slices take the same path, so nothing has to be decided while tracing
            how = {"strict": False, "prefer_deferred_runtime_asserts_over_guards": True}
            program = torch.export.export(network, (), traced, dynamic_shapes=sizes, **how)
            names = {"input_names": list(traced), "output_names": ["embeddings"], "dynamic_shapes": sizes}
            graph = torch.onnx.export(program, kwargs=traced, dynamo=True, **names)
            graph.save(temporary)
        difference = compare(network, temporary, checked)
        if not difference < TOLERANCE:
            raise WeightsError(f"{path} would differ from the network by {difference:.1e}; report this, with torch's version.")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def compare(network: nn.Module, path: Path, inputs: dict[str, torch.Tensor]) -> float:
    """The largest absolute difference between a graph in onnxruntime and the network."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = network(**inputs).numpy()
    return float(np.abs(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0] - expected).max())


@contextlib.contextmanager
def quiet():
    """Exporters tell a long story; errors are raised, and the rest is of no use to anybody here."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
