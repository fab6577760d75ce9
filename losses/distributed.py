"""What R processes know together. Without a process group everything here is about one process.

Ranks may hold unequal numbers of rows, none included. Every function but the first three is collective: all ranks call it.
"""

import math

import torch
import torch.distributed as dist


def world_size() -> int:
    """R, the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, 0 … R - 1."""
    return dist.get_rank() if world_size() > 1 else 0


def collective_device() -> torch.device:
    """Where a number that lies on no device yet must be for the ranks to talk about it."""
    on_gpu = world_size() > 1 and dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def all_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over ranks of tensors of one shape. No gradient."""
    return _reduced(tensor, "SUM")


def all_max(tensor: torch.Tensor) -> torch.Tensor:
    """The elementwise maximum over ranks of tensors of one shape. No gradient."""
    return _reduced(tensor, "MAX")


def _reduced(tensor: torch.Tensor, operation: str) -> torch.Tensor:
    tensor = tensor.detach()
    if world_size() == 1:
        return tensor
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(tensor, getattr(dist.ReduceOp, operation))
    return tensor


def gather_rows(tensor: torch.Tensor) -> torch.Tensor:
    """(n, …) of each rank, n its own, → (sum of n over ranks, …) in rank order, on every rank. No gradient, any dtype."""
    tensor = tensor.detach()
    if world_size() == 1:
        return tensor
    counts = torch.zeros(world_size(), dtype=torch.int64, device=tensor.device)
    counts[rank()] = len(tensor)
    counts = all_sum(counts).tolist()
    # rows travel as bytes, padded to the longest share: backends want equal sizes and do not know every dtype
    width = math.prod(tensor.shape[1:])
    own = tensor.reshape(len(tensor), width).contiguous().view(torch.uint8)
    padded = own.new_zeros(max(counts), width * tensor.element_size())
    padded[: len(own)] = own
    shares = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(shares, padded)
    rows = torch.cat([share[:count] for share, count in zip(shares, counts)])
    return rows.view(tensor.dtype).reshape(sum(counts), *tensor.shape[1:])


def global_mean(values: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """(n,) values of this rank → R x local sum / global count, whose mean over ranks is the mean over all values.

    valid: (n,) bool, the values that count; the others are 0 already. So gradients that DistributedDataParallel averages are
    those of one process. 0, still in the graph, when nobody has a value.
    """
    count = values.new_full((), len(values), dtype=torch.int64) if valid is None else valid.sum()
    count = all_sum(count).clamp_min(1)
    return values.sum() * (world_size() / count.to(values.dtype))
