"""Soft assignments that use all prototypes equally: the Sinkhorn-Knopp of SwAV (Caron et al. 2020, appendix A)."""

import math

import torch

from .distributed import all_max, all_sum
from .precision import at_least_float32
from .products import products, weighted_sum

# exp(-80) is the last power of e that float32 holds with room for sums over rows and prototypes
LINEAR_RANGE = 80.0
# elements of a block of rows on a CPU: what is read twice in an iteration stays in the cache
BLOCK_ELEMENTS = 2**19


@torch.no_grad()
def sinkhorn(scores: torch.Tensor, epsilon: float = 0.05, iterations: int = 3, largest: float | None = None) -> torch.Tensor:
    """scores (B, K), the rows of this rank → codes (B, K) float32 (float64 for float64 scores), each row summing to 1.

    Each iteration (one at least) scales the columns of exp(scores / epsilon), over the rows of all ranks, to sum 1 / K, then
    the rows to 1 / B. Collective; ranks may hold unequal numbers of rows. Where (max - min) / epsilon reaches 80, the same
    iterations run in the log domain in float64. `largest`: what no |score| exceeds by more than a rounding (1 for cosines), so
    that nobody has to look for the largest and smallest.
    """
    assert iterations >= 1
    scores = at_least_float32(scores)
    with torch.autocast(scores.device.type, enabled=False):
        if largest is not None and 2 * largest / epsilon < LINEAR_RANGE:
            return _by_scaling_vectors(scores, largest, epsilon, iterations)
        limits = scores.new_full((2,), -torch.inf)
        if scores.numel():
            lowest, highest = scores.aminmax()
            limits = torch.stack([highest, -lowest])
        highest, minus_lowest = all_max(limits).tolist()
        if (highest + minus_lowest) / epsilon < LINEAR_RANGE:
            return _by_scaling_vectors(scores, highest, epsilon, iterations)
        return _in_log_domain(scores, highest, epsilon, iterations)


def _by_scaling_vectors(scores: torch.Tensor, highest: float, epsilon: float, iterations: int) -> torch.Tensor:
    """Q = diag(u) exp((scores - highest) / epsilon) diag(v): only the vectors u (B) and v (K) are iterated."""
    count = all_sum(scores.new_full((), len(scores), dtype=torch.int64)).to(scores.dtype)
    clusters = scores.shape[1]
    rows = max(1, BLOCK_ELEMENTS // clusters) if scores.device.type == "cpu" else max(1, len(scores))
    kernel, columns = torch.empty_like(scores), scores.new_zeros(clusters)
    sharpness = math.log2(math.e) / epsilon
    offset = scores.new_full((), -highest * sharpness)
    blocks = kernel.split(rows)
    for block, of_block in zip(blocks, scores.split(rows)):
        torch.exp2(torch.add(offset, of_block, alpha=sharpness), out=block)  # three times faster than exp
        columns += block.sum(0)
    for iteration in range(iterations):
        v = 1 / (clusters * all_sum(columns))
        columns = torch.zeros_like(v)
        blocks = blocks[::-1]  # begins with what the last pass has left in the cache
        for block in blocks:
            if iteration < iterations - 1:
                u = 1 / (count * products(v[None], block)[0])
                columns += weighted_sum(block, u)
            else:
                block.mul_(v)
                block.mul_(block.sum(1, keepdim=True).reciprocal_())
    return kernel


def _in_log_domain(scores: torch.Tensor, highest: float, epsilon: float, iterations: int) -> torch.Tensor:
    """The same with log u and log v; the constants 1 / K and 1 / B cancel when the rows are scaled last."""
    logits = (scores.double() - highest) / epsilon
    log_u = logits.new_zeros(len(logits), 1)
    for _ in range(iterations):
        log_v = -_all_logsumexp(logits + log_u)
        log_u = -torch.logsumexp(logits + log_v, dim=1, keepdim=True)
    return (logits + log_u + log_v).exp().to(scores.dtype)


def _all_logsumexp(logits: torch.Tensor) -> torch.Tensor:
    """(K,): log of the sum of exp over the rows of all ranks."""
    top = logits.amax(0) if len(logits) else logits.new_full((logits.shape[1],), -torch.inf)
    top = all_max(top)
    return top + all_sum((logits - top).exp().sum(0)).log()
