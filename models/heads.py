"""Heads on embeddings: the projection that is clustered, and the prototypes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class ProjectionHead(nn.Module):
    """Linear, batch norm, ReLU, Linear, L2-normalised: (B, input_dim) → (B, output_dim) unit vectors (SwAV's head).

    batchnorm: False leaves it out, as VISSL's head for DeepClusterV2 does.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int = 128, batchnorm: bool = True):
        super().__init__()
        self.output_dim = output_dim
        norm = [nn.BatchNorm1d(hidden_dim)] if batchnorm else []
        self.layers = nn.Sequential(nn.Linear(input_dim, hidden_dim), *norm, nn.ReLU(), nn.Linear(hidden_dim, output_dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == 0:
            return x.new_zeros(0, self.output_dim)
        projected = self.layers(x)
        return F.normalize(projected.to(torch.promote_types(projected.dtype, torch.float32)), dim=-1)


class Prototypes(nn.Module):
    """One set of vectors a head; the score of an embedding is its cosine with each.

    scores: "dot" takes the vectors as they are, as published; their gradient then has a part along them, too.
    """

    def __init__(self, dim: int, counts: Sequence[int], scores: str = "cosine"):
        super().__init__()
        self.scores = scores
        self.largest_score = 1.0 if scores == "cosine" else None  # of unit embeddings, where it is known
        self.heads = nn.ParameterList(nn.Parameter(F.normalize(torch.randn(count, dim), dim=1)) for count in counts)

    def forward(self, embeddings: torch.Tensor) -> list[torch.Tensor]:
        """embeddings (B, dim) unit vectors → for each head the scores (B, K), not under autocast."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.to(self.heads[0].dtype)
            vectors = self.heads if self.scores == "dot" else [F.normalize(weight, dim=1) for weight in self.heads]
            return [embeddings @ weight.T for weight in vectors]

    @torch.no_grad()
    def normalize_(self) -> None:
        """Brings the vectors back to unit length, after a step of the optimiser."""
        for weight in self.heads:
            weight.copy_(F.normalize(weight, dim=1))

    @torch.no_grad()
    def set_(self, head: int, centroids: torch.Tensor) -> None:
        """Makes the centroids (K, dim) the prototypes of a head."""
        self.heads[head].copy_(centroids)
