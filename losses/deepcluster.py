"""The loss of DeepClusterV2 (Caron et al. 2018, 2020): tell the cluster that k-means gave to the item."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .distributed import global_mean
from .precision import at_least_float32

IGNORED = -100


def deepcluster_loss(scores: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], temperature: float = 0.1) -> torch.Tensor:
    """scores: (B, K_h) of each head; targets: (B,) int64 of each head, -100 = ignored → scalar.

    The mean over heads of the cross entropy of softmax(scores / temperature), each over the valid rows of all ranks; a head
    without any valid row counts as 0.
    """
    losses = []
    for of_head, target in zip(scores, targets):
        logits = at_least_float32(of_head) / temperature
        values = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
        losses.append(global_mean(values, target != IGNORED))
    return torch.stack(losses).mean()
