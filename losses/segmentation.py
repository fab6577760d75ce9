"""What a segmentation minimises: cross-entropy and soft Dice."""

import torch
import torch.nn.functional as F

from .distributed import all_sum, global_mean, world_size
from .precision import at_least_float32


def cross_entropy_and_dice(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """logits (M, K + 1, H, W), labels (M, H, W) whole numbers, 0 background → (cross-entropy, 1 − soft Dice).

    Both are of the batch of all ranks together, scaled so that the mean of their gradients over ranks is that of one process.
    Soft Dice (Milletari et al. 2016) has its sums over all pixels of the batch, and is the mean over the classes of 1 … K that
    occur in it: one that does not occur has nothing to overlap with, and would add a constant.
    """
    logits, labels = at_least_float32(logits), labels.long()
    entropy = global_mean(F.cross_entropy(logits, labels, reduction="none").flatten())
    shares = logits.softmax(1)[:, 1:]
    truth = torch.zeros_like(logits).scatter_(1, labels[:, None], 1)[:, 1:]
    both, size, true_size = (of.sum((0, 2, 3)) for of in (shares * truth, shares, truth))
    both, size, true_size = _over_ranks(both), _over_ranks(size), all_sum(true_size)
    occurs = true_size > 0
    dice = 2 * both / (size + true_size).clamp_min(1e-6)
    return entropy, ((1 - dice) * occurs).sum() / occurs.sum().clamp_min(1)


def _over_ranks(sums: torch.Tensor) -> torch.Tensor:
    """The sums of all ranks, with R times the gradient of this rank's own: what is averaged later adds up."""
    ranks = world_size()
    return all_sum(sums) + ranks * (sums - sums.detach())
