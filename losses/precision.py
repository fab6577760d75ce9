"""The one rule of precision: losses and clustering compute in float32, or in float64 where the input is float64."""

import torch


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` as float32; a float64 one as it is. Keeps the gradient."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
