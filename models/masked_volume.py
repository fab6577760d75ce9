"""Stage 2's network: some slice embeddings are replaced by a token, and predicted from the others."""

import torch
from torch import nn

from .volume_encoder import VolumeEncoder


class MaskedVolumeModel(nn.Module):
    """f_inter with a learned token in the place of masked slices, and a linear decoder back to slice embeddings."""

    def __init__(self, volume_encoder: VolumeEncoder, embedding_dim: int = 640):
        super().__init__()
        self.volume_encoder = volume_encoder
        self.token = nn.Parameter(torch.randn(embedding_dim) * 0.02)
        self.decoder = nn.Linear(embedding_dim, embedding_dim)

    def forward(self, slice_embeddings: torch.Tensor, real: torch.Tensor | None, masked: torch.Tensor) -> torch.Tensor:
        """slice_embeddings (B, N, D), real and masked (B, N) bool → predictions (B, N, D), of which the masked ones count."""
        visible = torch.where(masked[..., None], self.token.to(slice_embeddings.dtype), slice_embeddings)
        return self.decoder(self.volume_encoder(visible, real))
