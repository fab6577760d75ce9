"""The optimisers that `--optimizer` names."""

import torch
from timm.optim import Lars
from torch import nn


class Larc(Lars):
    """timm's Lars as apex's LARC with clip=False (You et al. 2017): always adapted, never clipped, around momentum 0.9.

    The one case in which the two differ is mended: a tensor whose gradient is zero is not decayed either.
    """

    def __init__(self, groups: list[dict], lr: float, weight_decay: float):
        super().__init__(
            groups, lr=lr, momentum=0.9, weight_decay=weight_decay, trust_coeff=0.001, trust_clip=False, always_adapt=True,
            foreach=groups[0]["params"][0].is_cuda,  # on a CPU one tensor after the other is faster
        )  # fmt: skip

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if moved and group["weight_decay"]:
                norms = torch._foreach_norm([p.grad for p in moved])
                for parameter, norm in zip(moved, norms):
                    if parameter.device.type == "cpu" and norm > 0:
                        continue  # a GPU would have to be waited for
                    # cancels the decay that Lars adds next
                    parameter.grad.sub_(parameter * (norm == 0) * group["weight_decay"])
        return super().step(closure)


def load_with_own_constants(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """As `load_state_dict`, but weight decay and the like stay those that the optimiser was made with."""
    own = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, constants in zip(optimizer.param_groups, own):
        group.update(constants)


def make_optimizer(
    name: str, model: nn.Module, lr: float, weight_decay: float, shares: dict[str, float] | None = None
) -> torch.optim.Optimizer:
    """AdamW, or LARC as published: SGD with momentum 0.9, each tensor's gradient scaled by 0.001 |w| / (|g| + wd |w|).

    AdamW leaves vectors (biases, norms, the mask token) out of the decay. shares: of the rate, for the parameters whose names
    begin so; a group's is under `share`.
    """
    groups = []
    named = [(of, parameter) for of, parameter in model.named_parameters() if parameter.requires_grad]
    share_of = {of: next((s for start, s in (shares or {}).items() if of.startswith(start)), 1.0) for of, _ in named}
    for share in dict.fromkeys(share_of.values()):
        chosen = [parameter for of, parameter in named if share_of[of] == share]
        if name == "larc":
            groups.append({"params": chosen, "weight_decay": weight_decay, "share": share})
            continue
        groups += [
            {"params": [p for p in chosen if p.ndim > 1], "weight_decay": weight_decay, "share": share},
            {"params": [p for p in chosen if p.ndim <= 1], "weight_decay": 0.0, "share": share},
        ]
    return Larc(groups, lr, weight_decay) if name == "larc" else torch.optim.AdamW(groups, lr=lr, fused=True)
