"""A step of stage 2 on kept views (--cached_views) against one that makes and embeds its views, as an epoch has it."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import Case

from datasets.cached_views import CachedViews, collate_cached
from datasets.fit import fit_volume
from datasets.views import mask_draws, two_views
from datasets.volumes import collate_volumes
from engine.optimizers import make_optimizer
from engine.processes import autocast, computing_dtype
from losses.masked import draw_mask, masked_slice_loss
from models.masked_volume import MaskedVolumeModel
from models.slice_encoder import SliceEncoder, embed_slices
from models.volume_encoder import VolumeEncoder

CPU, VIEWS = torch.device("cpu"), 8


def cases(quick: bool):
    arch, shape, batch, dim = ("resnet18", (8, 32, 32), 2, 64) if quick else ("resnet50", (64, 128, 128), 4, 640)
    dtype = computing_dtype("auto", CPU)
    encoder = SliceEncoder(arch, dim).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    noise = np.random.default_rng(0).integers(-1000, 2000, (batch, *shape[1:], shape[0]), np.int16)
    fitted = [{"index": i, "turn": 0, "fitted": fit_volume(volume, shape, None)} for i, volume in enumerate(noise)]
    volumes, size = collate_volumes(fitted), (batch, VIEWS, shape[0], dim)

    def embedded(batch):
        view = two_views(batch, 0, "compose", "robust", torch.float32)
        with torch.no_grad(), autocast(dtype, CPU):
            return embed_slices(encoder, view.pixels, view.real), view.real

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "views"
    path.write_bytes(bytes(CachedViews.file_size(*size)))
    cached = CachedViews(path, *size, seed=0)
    for first in range(0, VIEWS, 2):
        cached.write(np.arange(batch), volumes["on_host"]["count"], first, embedded(volumes)[0])

    turns = iter(range(10**6))

    def read():
        now = next(turns)
        kept = collate_cached([cached[index, now] for index in range(batch)])
        return kept["slices"].float(), torch.from_numpy(kept["on_host"]["real"])

    for masks in (1, 4):
        model = MaskedVolumeModel(VolumeEncoder(dim, dropout=0.0), dim)
        step = functools.partial(learn, model, make_optimizer("adamw", model, 1e-5, 1e-6), masks, volumes, dtype)
        name = f"stage-2 step on kept views, {masks} mask{'s' if masks > 1 else ''} a view"
        yield Case(
            name, f"{arch}, {batch} × {' × '.join(map(str, shape))}", lambda step=step: step(*read()),
            lambda step=step: step(*embedded(volumes)), "without", 20.0 * (masks == 1 and not quick), None, batch, "volume",
            alike=True,
        )  # fmt: skip
    folder.cleanup()


def learn(model, optimizer, masks: int, batch: dict, dtype: torch.dtype, targets: torch.Tensor, real: torch.Tensor) -> None:
    """One step on slice embeddings (2B, N, D), as `mask_deepcluster_3D.py` takes it."""
    targets, real = targets.repeat(masks, 1, 1), real.repeat(masks, 1)
    masked = draw_mask(mask_draws(batch, 0, real.shape[1], views=2 * masks), real, 0.3)
    optimizer.zero_grad()
    with autocast(dtype, CPU):
        predictions = model(targets, real, masked)
    masked_slice_loss(predictions, targets, masked).backward()
    optimizer.step()
