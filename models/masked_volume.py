"""Stage 2's network: masked slice embeddings are predicted from those of the other slices."""

import torch
from torch import nn

from .volume_encoder import VolumeEncoder


class MaskedVolumeModel(nn.Module):
    """f_inter with a learned token, and a linear decoder back to slice embeddings.

    In the place of a masked slice stands the token plus what interpolating between its visible neighbours gives: at about N/4
    keys attention alone hardly gets at that. The decoder starts as the identity, as f_inter does. `token_alone` is the
    published way: the token stands alone, and the decoder starts at random.
    """

    def __init__(self, volume_encoder: VolumeEncoder, embedding_dim: int = 640, token_alone: bool = False):
        super().__init__()
        self.token_alone = token_alone
        self.volume_encoder = volume_encoder
        self.token = nn.Parameter(torch.randn(embedding_dim) * (1 if token_alone else 0.02))
        self.decoder = nn.Linear(embedding_dim, embedding_dim)
        if not token_alone:
            nn.init.eye_(self.decoder.weight)
            nn.init.zeros_(self.decoder.bias)

    def forward(self, slice_embeddings: torch.Tensor, real: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """slice_embeddings (B, N, D), real and masked (B, N) bool → (B, N, D), of which the masked slices count."""
        masked = masked.to(slice_embeddings.device, non_blocking=True)
        shown = self.token.to(slice_embeddings.dtype).expand_as(slice_embeddings)
        if not self.token_alone:
            shown = shown + interpolate_neighbours(slice_embeddings, real, masked)
        return self.decoder(self.volume_encoder(torch.where(masked[..., None], shown, slice_embeddings), real))


def interpolate_neighbours(targets: torch.Tensor, real: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """targets (B, N, D), real and masked (B, N) bool → (B, N, D): the masked slices guessed from the unmasked real ones.

    Linear between the nearest on each side, the nearest one at an end, zeros where a volume has none; other slices as they are.
    """
    real, masked = (x.to(targets.device, non_blocking=True) for x in (real, masked))
    slices = torch.arange(targets.shape[1], device=targets.device).expand_as(real)
    last = targets.shape[1]
    known = real & ~masked
    before = torch.where(known, slices, -1).cummax(1).values
    after = torch.where(known, slices, last).flip(1).cummin(1).values.flip(1)
    none = (before < 0) & (after == last)
    before, after = torch.where(before < 0, after, before), torch.where(after == last, before, after)
    before, after = (x.clamp(0, last - 1) for x in (before, after))
    share = (slices - before).double() / (after - before).clamp_min(1)
    weight = share.to(targets.dtype)[..., None]

    def at(places: torch.Tensor) -> torch.Tensor:
        return targets.gather(1, places[..., None].expand_as(targets))

    guess = torch.lerp(at(before), at(after), weight).masked_fill(none[..., None], 0)
    return torch.where((masked & real)[..., None], guess, targets)
