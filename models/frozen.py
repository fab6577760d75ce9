"""What frozen encoders (`models.pretrained.Encoders`) give to those who use them: embeddings of slices and of volumes."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from .slice_encoder import embed_slices
from .volume_encoder import volume_embedding


class Shown(NamedTuple):
    """How files are shown: fitted by `fit` to at most target_shape (slices, height, width), intensities by `normalise`."""

    target_shape: tuple[int, int, int]
    fit: str
    normalise: str


def shown_to(encoders) -> Shown:
    """As in the training of these encoders, by the constants that their file holds."""
    config, normalise = encoders.config, encoders.config.get("normalise", "robust")
    if normalise == "imagenet" and encoders.slice_encoder.resnet.conv1.in_channels != 3:
        normalise = "robust"  # a mean for each of three channels fits no other number of them
    side = config.get("size_crops", [224])[0]
    return Shown(tuple(config.get("target_shape", (64, side, side))), config.get("fit", "shrink"), normalise)


def slice_network(encoders) -> Callable[[torch.Tensor], torch.Tensor]:
    """Images (B, C, H, W) → slice embeddings (B, D); after stage 1, which knows no map to D, the slice features."""
    return encoders.slice_encoder.features if encoders.volume_encoder is None else encoders.slice_encoder


def embed_volumes(encoders, pixels: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """pixels (B, N, H, W) or (B, N, 3, H, W), real (B, N) → (B, D) of unit length; after stage 1 the mean of slice features."""
    slices = embed_slices(slice_network(encoders), pixels, real)
    return volume_embedding(slices if encoders.volume_encoder is None else encoders.volume_encoder(slices, real), real)
