"""Deformable attention in one dimension: keys and values are read at about N/4 learned, fractional positions of the sequence.

Xia et al., Vision Transformer with Deformable Attention (2022), in the one-dimensional form of the library
`deformable-attention`, whose parameter names are kept. Axes: B batch, G offset groups, H heads, C channels, N items, M keys.
Inside, items come last, so that products are of matrices and neighbouring items of a key lie side by side.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .position_bias import PositionBias


class DeformableAttention(nn.Module):
    """Attention over a sequence (B, N, C), for sequences of any length in one batch.

    sampling: "da020" reads at the learned positions (0.0.19 and later); "da018" is the broken sampler of 0.0.18, which the
    published environment pins: every key is the middle of the sequence times max(0, 1 - |p| / 2), p its position in [-1, 1].
    least_keys: a sequence of n items has at least min(least_keys, n) keys.
    """

    def __init__(
        self, dim: int, heads: int = 8, head_dim: int = 64, groups: int | None = None, downsample: int = 4,
        offset_scale: float = 2.0, offset_kernel: int = 6, sampling: str = "da020", least_keys: int = 4,
    ):  # fmt: skip
        super().__init__()
        self.heads, self.groups, self.stride, self.kernel = heads, groups or heads, downsample, offset_kernel
        self.scale, self.sampling, self.least_keys = head_dim**-0.5, sampling, least_keys
        self.offset_scale = offset_scale
        self.padding = (offset_kernel - downsample) // 2
        inner, per_group = heads * head_dim, heads * head_dim // self.groups
        self.to_offsets = nn.Sequential(
            nn.Conv1d(per_group, per_group, offset_kernel, stride=downsample, padding=self.padding, groups=per_group),
            nn.GELU(),
            nn.Conv1d(per_group, 1, 1, bias=False),
        )
        self.rel_pos_bias = PositionBias(dim // 4, heads // self.groups)
        self.to_q = nn.Conv1d(dim, inner, 1, groups=self.groups, bias=False)
        self.to_k = nn.Conv1d(dim, inner, 1, groups=self.groups, bias=False)
        self.to_v = nn.Conv1d(dim, inner, 1, groups=self.groups, bias=False)
        self.to_out = nn.Conv1d(inner, dim, 1)

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, C) attended; zero at padding. real: (B, N) bool, the first n of each sequence; None = all."""
        return self.attend(x, real)[0]

    def attend(self, x: torch.Tensor, real: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The output (B, N, C) and the attention map (B, H, N, M)."""
        real = _whole(x) if real is None else real
        length = real.sum(1)
        x, q, keys, positions = self._queries_and_positions(x, real)
        sampled = self._sample(x, positions, length).to(x.dtype)
        k, v = _grouped(self.to_k, sampled), _grouped(self.to_v, sampled)
        q, k, v = (t.flatten(1, 2).unflatten(1, (self.heads, -1)) for t in (q, k, v))  # (B, H, head_dim, N or M)

        scores = (self.scale * k).transpose(-1, -2) @ q + self._bias(positions, keys, length, x.shape[-1])  # (B, H, M, N)
        weights = scores.softmax(2)
        out = (v @ weights.to(v.dtype)).flatten(1, 2).transpose(1, 2)  # (B, N, inner)
        out = F.linear(out, self.to_out.weight[..., 0], self.to_out.bias)
        return out * real[..., None], weights.transpose(-1, -2)

    def places(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """(B, G, M): where in the sequence each key is read, in items, fractions between them; outside 0 … n - 1 is nothing."""
        real = _whole(x) if real is None else real
        length = real.sum(1)[:, None, None]
        positions = self._queries_and_positions(x, real)[3]
        if self.sampling == "da018":
            return ((length - 1) / 2).expand_as(positions).to(positions.dtype)
        return ((positions + 1) * length - 1) / 2

    def _queries_and_positions(self, x: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """x in groups (B, G, C/G, N), the queries (B, G, inner/G, N), the number of keys (B,), their positions (B, G, M)."""
        x = (x * real[..., None]).transpose(1, 2)  # (B, C, N); what is zero cannot be read
        x = x.unflatten(1, (self.groups, -1)).contiguous()
        q = _grouped(self.to_q, x)
        keys = self.key_count(real.sum(1))
        return x, q, keys, self._positions(q, keys)  # in [-1, 1]

    def key_count(self, length: torch.Tensor) -> torch.Tensor:
        """The number of keys of sequences of the given lengths: what the strided convolution gives, but not too few."""
        regular = torch.div(length + 2 * self.padding - self.kernel, self.stride, rounding_mode="floor") + 1
        return torch.maximum(regular, length.clamp(max=self.least_keys)).clamp(min=1)

    def _positions(self, q: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """q (B, G, inner/G, N) → (B, G, M). Not under autocast: bf16 convolutions of so few channels are slower than fp32."""
        batch, _, _, items = q.shape
        # room for the least keys; torch.sym_min and sym_max are min and max, and stay formulas in an exported graph
        needed = (torch.sym_min(items, self.least_keys) - 1) * self.stride + self.kernel - 2 * self.padding
        grouped = F.pad(q.flatten(0, 1), (0, torch.sym_max(0, needed - items)))
        with torch.autocast(q.device.type, enabled=False):
            grouped = grouped.to(self.to_offsets[0].weight.dtype)
            offsets = self.offset_scale * self.to_offsets(grouped).tanh()  # as many as key_count(items)
        most = offsets.shape[-1]
        offsets = offsets.view(batch, self.groups, most).to(torch.promote_types(q.dtype, torch.float32))
        grid = torch.arange(most, device=q.device) + offsets
        return 2 * grid / (keys - 1).clamp(min=1)[:, None, None] - 1

    def _sample(self, x: torch.Tensor, positions: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """x (B, G, C/G, N) at positions (B, G, M) → (B, G, C/G, M): linear between items, zero outside."""
        length = length[:, None, None]
        if self.sampling == "da018":
            middle = ((length - 1) / 2).expand_as(positions).to(positions.dtype)
            return _interpolate(x, middle) * (1 - positions.abs() / 2).clamp(min=0)[:, :, None]
        return _interpolate(x, ((positions + 1) * length - 1) / 2)

    def _bias(self, positions: torch.Tensor, keys: torch.Tensor, length: torch.Tensor, items: int) -> torch.Tensor:
        """(B, H, M, N), from the distance between key and item; -inf for keys that a shorter sequence does not have."""
        own = 2 * torch.arange(items, device=length.device) / (length - 1).clamp(min=1)[:, None] - 1  # (B, N)
        bias = self.rel_pos_bias(own[:, None, None] - positions[..., None]).flatten(1, 2)
        surplus = torch.arange(positions.shape[-1], device=keys.device) >= keys[:, None]  # (B, M)
        return bias + bias.new_zeros(surplus.shape).masked_fill(surplus, -torch.inf)[:, None, :, None]


def _whole(x: torch.Tensor) -> torch.Tensor:
    return x.new_ones(x.shape[:2], dtype=torch.bool)


def _grouped(layer: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """x (B, G, C/G, N) → (B, G, inner/G, N): a convolution of width 1 in groups; torch's own is slow on a CPU."""
    return layer.weight[..., 0].unflatten(0, (x.shape[1], -1)) @ x


def _interpolate(x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """x (B, G, C, N) at the fractional items `place` (B, G, M), linearly, zero outside."""
    below = place.detach().floor()
    sampled = 0.0
    for item, weight in ((below, below + 1 - place), (below + 1, place - below)):
        inside = (item >= 0) & (item < x.shape[-1])
        # clamped as whole numbers, for NaN is clamped to NaN, which is the place of nothing
        index = item.long().clamp(0, x.shape[-1] - 1)[:, :, None].expand(-1, -1, x.shape[2], -1)
        sampled = sampled + x.gather(-1, index) * (weight * inside)[:, :, None]
    return sampled
