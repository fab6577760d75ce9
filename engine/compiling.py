"""torch.compile of residual blocks, for those who ask for it, with a way back where a machine cannot."""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

KINDS_OF_BLOCK = 64  # blocks share their code: by widths, strides, training or not, numbers of slices


def compile_blocks(model: nn.Module, device: torch.device) -> str | None:
    """Compiles every residual block of `model`, each at its first call; names in its state stay.

    → a sentence when this machine cannot compile; the model is then as it was. A block that fails later is computed as it is
    by torch, which warns.
    """
    try:
        _try_out(device)
    except Exception as error:  # a missing compiler speaks in many types
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return f"warning: torch.compile does not work on this machine ({reason[0][:200]}); going on without --compile."
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, KINDS_OF_BLOCK)
    for block in model.modules():
        if isinstance(block, (BasicBlock, Bottleneck)):
            block.compile()
    return None


def _try_out(device: torch.device) -> None:
    torch._dynamo.reset()
    values = torch.ones(8, device=device)
    torch.compile(lambda x: torch.relu(x) * 2 + 1, fullgraph=True)(values)
