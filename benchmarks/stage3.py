"""A step of stage 3 (SwAV, two views, all three losses, AdamW) against the same model in plain fp32.

The plain one has three equal channels, torch's own memory order, and the library `deformable-attention`. Views are made before.
"""

import copy
import functools
from dataclasses import dataclass

import torch
from deformable_attention import DeformableAttention1D
from measure import Case
from torch import nn

from engine.optimizers import make_optimizer
from engine.processes import autocast, computing_dtype
from losses.masked import draw_mask, masked_slice_loss
from losses.swav import swapped_prediction
from models.joint import JointModel
from models.slice_encoder import SliceEncoder
from models.volume_encoder import VolumeEncoder, volume_embedding

CPU, HEADS, SLICE_HEADS = torch.device("cpu"), (3000,), (3000,)


class LibraryAttention(nn.Module):
    """The library's attention in the place of ours, over slices (B, N, D)."""

    def __init__(self, dim: int, weights: dict[str, torch.Tensor]):
        super().__init__()
        self.attention = DeformableAttention1D(dim=dim, downsample_factor=4, offset_scale=2, offset_kernel_size=6)
        self.attention.load_state_dict(weights)

    def forward(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return self.attention(x.transpose(1, 2)).transpose(1, 2)


@dataclass(frozen=True)
class Batch:
    """pixels: (B, N, H, W); real, masked: (B, N)."""

    pixels: torch.Tensor
    real: torch.Tensor
    masked: torch.Tensor


def sizes(quick: bool) -> tuple[str, tuple[int, int, int], int, int]:
    """Network, (N, H, W), volumes a step, D."""
    return ("resnet18", (16, 32, 32), 1, 64) if quick else ("resnet50", (64, 128, 128), 1, 640)


def make_batch(shape: tuple[int, int, int], volumes: int) -> Batch:
    pixels = torch.randn(2 * volumes, *shape, generator=torch.Generator().manual_seed(0))
    real = torch.ones(2 * volumes, shape[0], dtype=torch.bool)
    draws = torch.rand(2 * volumes, shape[0], generator=torch.Generator().manual_seed(1))
    return Batch(pixels, real, draw_mask(draws, real, 0.3))


def make_model(arch: str, dim: int) -> JointModel:
    return JointModel(SliceEncoder(arch, dim), VolumeEncoder(dim, dropout=0.0, identity=False), HEADS, SLICE_HEADS)


def ours(model: JointModel, batch: Batch):
    with autocast(computing_dtype("auto", CPU), CPU):
        return model(batch.pixels, batch.real, batch.masked)


def plain_fp32(model: JointModel, batch: Batch):
    slices = model.slice_encoder(batch.pixels.flatten(0, 1)[:, None].expand(-1, 3, -1, -1)).unflatten(0, batch.real.shape)
    volumes = volume_embedding(model.masked.volume_encoder(slices, batch.real), batch.real)
    predictions, projections = model.masked(slices, batch.real, batch.masked), model.slice_head(slices.flatten(0, 1))
    scores = model.prototypes.volumes(volumes), model.prototypes.slices(projections)
    return slices, predictions, volumes, scores[0], projections, scores[1]


def step(model: JointModel, optimizer, batch: Batch, outputs=ours) -> float:
    """One step of training; `outputs`: `ours` or `plain_fp32`. Gives the loss."""
    optimizer.zero_grad()
    slices, predictions, _, volume_scores, _, scores = outputs(model, batch)
    largest = 1.0 if outputs is ours else None
    inter, intra = (
        swapped_prediction(list(zip(*(s.chunk(2) for s in both))), None, 0.05, 3, 0.1, largest)[0]
        for both in (volume_scores, scores)
    )
    loss = inter + intra + masked_slice_loss(predictions, slices, batch.masked)
    loss.backward()
    optimizer.step()
    return loss.item()


def cases(quick: bool):
    arch, shape, volumes, dim = sizes(quick)
    batch, model = make_batch(shape, volumes), make_model(arch, dim)
    plain = copy.deepcopy(model)
    for layer in plain.masked.volume_encoder.layers:
        layer.attention = LibraryAttention(dim, layer.attention.state_dict())
    model.to(memory_format=torch.channels_last)
    again = copy.deepcopy(model)
    again.slice_encoder.recompute = True
    steps = {
        name: functools.partial(step, of, make_optimizer("adamw", of, 1e-6, 1e-6), batch, plain_fp32 if of is plain else ours)
        for name, of in {"fast": model, "again": again, "plain": plain}.items()
    }

    def agree():
        losses = [call() for call in steps.values()]
        assert max(losses) - min(losses) < 0.02 * max(losses), losses

    size = f"{arch}, {volumes} × {' × '.join(map(str, shape))}"
    dtype = computing_dtype("auto", CPU)
    how, promise = str(dtype).removeprefix("torch."), 2.2 if dtype == torch.bfloat16 else 1.2
    named = ("stage-3 step", size, steps["fast"], steps["plain"], "plain fp32", promise * (not quick), agree, volumes, "volume")
    yield Case(f"{named[0]}, {how}", *named[1:])
    yield Case(
        f"stage-3 step, {how}, --recompute", size, steps["again"], steps["plain"], "plain fp32", 0.0, None, volumes, "volume"
    )
