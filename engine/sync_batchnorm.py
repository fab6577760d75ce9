"""Batch norm over all processes: torch's on CUDA, and one for the CPU, which torch's refuses."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn


class SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes; each process's value is in all sums, so that gradients are summed too."""

    @staticmethod
    def forward(context, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class CpuSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Statistics of all processes, weighted by their counts, which may differ; the rule of `nn.SyncBatchNorm`.

    Two sums are reduced, with gradients: of the values, then of the squared distances from the common mean.
    """

    def _check_input_dim(self, x: torch.Tensor) -> None:
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        count = torch.tensor([exact.numel() / max(exact.shape[1], 1)], dtype=exact.dtype)
        dist.all_reduce(count)
        mean = SumOverRanks.apply(exact.sum(dims)) / count
        centred = exact - mean.view(shape)
        variance = SumOverRanks.apply(centred.square().sum(dims)) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked += 1
        out = centred * (variance + self.eps).rsqrt().view(shape) * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)


def synchronize_batchnorm(model: nn.Module) -> nn.Module:
    """`model` with every batch norm computing over all processes; as it is when there is one. Names in its state stay."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return model
    if any(parameter.is_cuda for parameter in model.parameters()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, child in model.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            norm = CpuSyncBatchNorm(child.num_features, child.eps, child.momentum)
            norm.to(child.weight)
            norm.load_state_dict(child.state_dict())
            setattr(model, name, norm)
        else:
            synchronize_batchnorm(child)
    return model
