"""f_inter: a transformer over the slices of a volume."""

import torch
import torch.nn.functional as F
from torch import nn

from .attention import DeformableAttention


class VolumeEncoder(nn.Module):
    """Layers of deformable attention and feed-forward networks over slice embeddings (B, N, D) → (B, N, D).

    axis="slices" attends over the slices, as the paper says, for any number of them. axis="features" is what the published code
    does: the slices are channels (their number fixed to `slices`), and the attention runs along the features.
    identity: every layer starts as the identity, up to its norms, so that a volume embedding starts as the mean of its slices.
    """

    def __init__(
        self, embedding_dim: int = 640, layers: int = 4, feedforward_dim: int = 720, heads: int = 8, head_dim: int = 64,
        dropout: float = 0.1, axis: str = "slices", slices: int = 64, sampling: str = "da020", identity: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.axis, self.sampling = axis, sampling
        self.slices = None if axis == "slices" else slices  # how many it is bound to
        dim = embedding_dim if axis == "slices" else slices
        self.layers = nn.ModuleList(
            EncoderLayer(
                DeformableAttention(dim, heads, head_dim, sampling=sampling), embedding_dim, feedforward_dim, dropout, axis
            )
            for _ in range(layers)
        )
        for layer in self.layers if identity else ():
            for last in (layer.attention.to_out, layer.ffn.linear2):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, slice_embeddings: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """slice_embeddings: (B, N, D); real: (B, N) bool, the first n of each volume, None = all. Zero at padding."""
        hidden, real = slice_embeddings, _beside(slice_embeddings, real)
        for layer in self.layers:
            hidden = layer(hidden, real)
        return hidden if real is None else hidden * real[..., None]


class EncoderLayer(nn.Module):
    """Attention, norm, dropout, feed-forward, norm, dropout, as published (dropout after the norms)."""

    def __init__(self, attention: nn.Module, dim: int, feedforward_dim: int, dropout: float, axis: str):
        super().__init__()
        self.axis = axis
        self.attention = attention
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, feedforward_dim, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        if self.axis == "slices":
            attended = self.attention(x, real)
        else:
            attended = self.attention(x.transpose(1, 2)).transpose(1, 2)
        x = self.dropout(self.norm1(x + attended))
        return self.dropout(self.norm2(x + self.ffn(x)))


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float):
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.dropout(F.gelu(self.linear1(x))))


def volume_embedding(hidden: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
    """(B, N, D) → (B, D) float: the mean over real slices, L2-normalised."""
    if hidden.dtype in (torch.bfloat16, torch.float16):
        hidden = hidden.float()
    if real is None:
        return F.normalize(hidden.mean(1), dim=-1)
    real = _beside(hidden, real)
    return F.normalize((hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1), dim=-1)


def _beside(hidden: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor | None:
    return real if real is None else real.to(hidden.device, non_blocking=True)
