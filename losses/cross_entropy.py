"""The loss of telling one class from the others: cross entropy, in which rare classes may count as much as common ones."""

import torch
import torch.nn.functional as F

from .distributed import global_mean
from .precision import at_least_float32


def class_weights(targets: torch.Tensor, classes: int) -> torch.Tensor:
    """targets (n,) int64, each of the K classes among them → (K,) float64: n / (K · n_k).

    So every class has the same share of the whole loss, and the mean weight of an item is 1, which leaves learning rates
    what they are.
    """
    return len(targets) / (classes * torch.bincount(targets, minlength=classes).double())


def classification_loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """logits (B, K), targets (B,) int64, weights (K,) or None for equal ones → scalar: the mean over the rows of all ranks.

    A row's cross entropy is times the weight of its class and the sum is divided by the number of rows, not by the weights
    in the batch: a batch of common items alone then has small gradients, as it should.
    """
    logits = at_least_float32(logits)
    weights = None if weights is None else weights.to(logits)
    return global_mean(F.cross_entropy(logits, targets, weights, reduction="none"))
