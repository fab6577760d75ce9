"""Products of matrices as fast as a processor has them: those that torch's `@` leaves to one thread or to a slower library."""

import torch
import torch.nn.functional as F

BAGS = 8  # parts of a sum over rows, for as many threads; fixed, so that the sum does not depend on the threads there are


def products(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """rows (n, D), others (K, D) → (n, K): all products. float32 on a CPU by oneDNN, twice as fast as BLAS where measured."""
    if rows.device.type == "cpu" and rows.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(rows, others, None, "none", [], "")
    return rows @ others.T


def weighted_sum(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """rows (n, K), weights (n,) → (K,): the sum of the rows times their weights."""
    if rows.device.type != "cpu" or not len(rows):
        return weights @ rows
    bags = torch.arange(0, len(rows), -(-len(rows) // BAGS))
    return F.embedding_bag(torch.arange(len(rows)), rows, bags, mode="sum", per_sample_weights=weights).sum(0)
