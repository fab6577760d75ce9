"""The network of stage 3: both encoders with all their heads."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from .heads import ProjectionHead, Prototypes
from .masked_volume import MaskedVolumeModel
from .slice_encoder import SliceEncoder, embed_slices, rows_of
from .volume_encoder import VolumeEncoder, volume_embedding


class JointOutput(NamedTuple):
    """B volumes of N slices (M of them real), I images, prototypes K a head."""

    slice_embeddings: torch.Tensor  # (B, N, D), zero at padding
    predictions: torch.Tensor  # (B, N, D), of the masked slices
    volume_embeddings: torch.Tensor  # (B, D) unit
    volume_scores: list[torch.Tensor]  # a head: (B, K)
    projections: torch.Tensor  # (M + I, 128) unit: real slices in the order of `real`, then images
    scores: list[torch.Tensor]  # a head: (M + I, K)


class JointModel(nn.Module):
    """Volumes and images → embeddings and scores. Only real slices go through f_intra; images in a pass of their own."""

    def __init__(
        self,
        slice_encoder: SliceEncoder,
        volume_encoder: VolumeEncoder,
        volume_prototypes: Sequence[int],
        slice_prototypes: Sequence[int],
        head_dim: int = 128,
        scores: str = "cosine",
        token_alone: bool = False,
    ):
        super().__init__()
        dim = slice_encoder.embedding_dim
        self.head_dim = head_dim
        self.slice_encoder = slice_encoder
        self.masked = MaskedVolumeModel(volume_encoder, dim, token_alone)
        self.slice_head = ProjectionHead(dim, dim, head_dim)
        self.prototypes = nn.Module()
        self.prototypes.volumes = Prototypes(dim, volume_prototypes, scores)
        self.prototypes.slices = Prototypes(head_dim, slice_prototypes, scores)

    def embed(self, pixels: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Slice embeddings (B, N, D) and volume embeddings (B, D) of volumes (B, N, H, W)."""
        slices = embed_slices(self.slice_encoder, pixels, real)
        return slices, volume_embedding(self.masked.volume_encoder(slices, real), real)

    def each_view_alone(self, pixels: torch.Tensor, real: torch.Tensor, masked: torch.Tensor, images: torch.Tensor | None):
        """As `forward`, but each of the two views by itself, so that in train mode it has its own batch statistics."""
        halves = [x.chunk(2) if x is not None else (None, None) for x in (pixels, real, masked, images)]
        outs = [self(*half) for half in zip(*halves)]
        slices = [int(half.sum()) for half in halves[1]]
        parts = [out.projections.split([count, len(out.projections) - count]) for out, count in zip(outs, slices)]
        order = [parts[0][0], parts[1][0], parts[0][1], parts[1][1]]  # slices of both views, then images
        return outs[0]._replace(
            volume_embeddings=torch.cat([out.volume_embeddings for out in outs]), projections=torch.cat(order)
        )

    def forward(
        self, pixels: torch.Tensor, real: torch.Tensor, masked: torch.Tensor, images: torch.Tensor | None = None
    ) -> JointOutput:
        """pixels (B, N, H, W), real and masked (B, N) bool (best on the host), images (I, 1, h, w) or None."""
        slices, volumes = self.embed(pixels, real)
        predictions = self.masked(slices, real, masked)
        pictures = slices.flatten(0, 1).index_select(0, rows_of(real, slices.device))
        if images is not None:
            pictures = torch.cat([pictures, self.slice_encoder(images.contiguous(memory_format=torch.channels_last))])
        projections = self.slice_head(pictures)
        return JointOutput(
            slices, predictions, volumes, self.prototypes.volumes(volumes), projections, self.prototypes.slices(projections)
        )
