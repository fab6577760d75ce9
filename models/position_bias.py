"""The position bias of deformable attention: a small network of one scalar, computed piece by piece.

Two layers of ReLU of one scalar t are continuous and piecewise affine in t, with the same pieces for all pairs of a query and a
key. So the network itself is run on one row a piece (some hundreds), and not on one a pair (tens of thousands; millions along
features): each pair looks up its piece and takes slope · t + intercept. Nothing is approximated, gradients included; exactly
at a kink, where there are two gradients, it is one of them.
Axes: B batch, G offset groups, H heads per group, M keys, N items, U units of a layer, P pieces.
"""

import torch
import torch.nn.functional as F
from torch import nn


class PositionBias(nn.Module):
    """A bias for each head from the signed log distance between query and key."""

    def __init__(self, dim: int, heads_per_group: int):
        super().__init__()
        self.mlp = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(1, dim), nn.ReLU()),
                nn.Sequential(nn.Linear(dim, dim), nn.ReLU()),
                nn.Linear(dim, heads_per_group),
            ]
        )

    def forward(self, distance: torch.Tensor) -> torch.Tensor:
        """(B, G, M, N) → (B, G, heads per group, M, N), in the type of the distance whatever autocast says."""
        scalar = distance.sign() * distance.abs().log1p()
        with torch.autocast(distance.device.type, enabled=False):
            # the number of pieces depends on the weights: an exported graph can't hold it, and a GPU would have to wait for it
            if torch.compiler.is_compiling() or scalar.is_cuda:
                return self.network(scalar)
            return self.by_pieces(scalar)

    def network(self, scalar: torch.Tensor) -> torch.Tensor:
        """(B, G, M, N) → (B, G, H, M, N): the definition."""
        bias = scalar[..., None]
        for layer in self.mlp:
            bias = layer(bias)
        return bias.movedim(-1, 2)

    def by_pieces(self, scalar: torch.Tensor) -> torch.Tensor:
        """(B, G, M, N) → (B, G, H, M, N): the same."""
        ends = self.kinks(*scalar.detach().aminmax())
        slope, intercept = self.pieces(ends)
        # along N the scalar only grows, so that neighbours mostly share their piece, and the search is quick
        piece = torch.bucketize(scalar.detach(), ends[1:-1])
        return torch.addcmul(_looked_up(intercept, piece), _looked_up(slope, piece), scalar).movedim(0, 2)

    @torch.no_grad()
    def kinks(self, least: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
        """(P + 1,) sorted: `least`, where a unit of either layer passes zero between the two, and `most`."""
        (first, _), (second, _), _ = self.mlp
        passes = -first.bias / first.weight[:, 0]
        passes = passes[(passes > least) & (passes < most)].sort().values
        ends = torch.cat([least[None], passes, most[None]])
        before = second(F.relu(first(ends[:, None])))  # (at most U + 2, U), affine between two neighbouring ends
        left, right = before[:-1], before[1:]
        share = left / (left - right)
        crossed = (ends[:-1, None] + (ends[1:] - ends[:-1])[:, None] * share)[left * right < 0]
        return torch.cat([ends, crossed]).sort().values

    def pieces(self, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """ends (P + 1,) → slopes and intercepts (H, P) of the pieces between them, which carry gradients to the weights."""
        middle = ((ends[:-1] + ends[1:]) / 2)[:, None]
        value, slope = middle, torch.ones_like(middle)
        for linear, _ in self.mlp[:2]:
            value, slope = linear(value), slope @ linear.weight.T
            on = value > 0
            value, slope = value * on, slope * on
        value, slope = self.mlp[2](value), slope @ self.mlp[2].weight.T
        return slope.T, (value - slope * middle).T


def _looked_up(line: torch.Tensor, piece: torch.Tensor) -> torch.Tensor:
    """line (H, P), piece (B, G, M, N) → (H, B, G, M, N)."""
    # a copy of the line for each key: gradients are then sums of sums, which round less than one long sum
    rows = line[:, None, None, None].expand(-1, *piece.shape[:3], -1)
    return rows.gather(-1, piece.expand(len(line), -1, -1, -1, -1))
