"""A whole step of stage 1 (SwAV, multi-crop, AdamW) against lightly's modules and loss around the same network."""

import torch
import torchvision
from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
from measure import Case
from torch import nn

from engine.optimizers import make_optimizer
from engine.processes import autocast, computing_dtype
from losses.swav import swapped_prediction
from models.image_model import ImageModel
from models.slice_encoder import SliceEncoder

CPU, TEMPERATURE, EPSILON, ITERATIONS = torch.device("cpu"), 0.1, 0.05, 3


class Lightly(nn.Module):
    """Its example of SwAV: every crop goes through the network by itself."""

    def __init__(self, arch: str, prototypes: int):
        super().__init__()
        self.backbone = getattr(torchvision.models, arch)()
        width = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        self.head, self.prototypes = SwaVProjectionHead(width, 2048, 128), SwaVPrototypes(128, prototypes)

    def forward(self, crops: list[torch.Tensor]) -> list[torch.Tensor]:
        projections = [nn.functional.normalize(self.head(self.backbone(crop)), dim=1) for crop in crops]
        return [self.prototypes(projection) for projection in projections]


def cases(quick: bool):
    arch, batch, sizes, prototypes = ("resnet18", 4, (64, 32), 100) if quick else ("resnet50", 8, (224, 96), 3000)
    generator = torch.Generator().manual_seed(0)
    crops = [torch.randn(batch, 1, side, side, generator=generator) for side in [sizes[0]] * 2 + [sizes[1]] * 6]
    model = ImageModel(SliceEncoder(arch), (prototypes,)).to(memory_format=torch.channels_last)
    peer, criterion = Lightly(arch, prototypes), SwaVLoss(TEMPERATURE, ITERATIONS, EPSILON, False)
    share_weights(model, peer)
    optimizer, other = (make_optimizer("adamw", of, 1e-6, 1e-6) for of in (model, peer))
    dtype = computing_dtype("auto", CPU)

    def ours() -> float:
        optimizer.zero_grad()
        with autocast(dtype, CPU):
            _, scores = model(crops)
        loss, _ = swapped_prediction(scores, None, EPSILON, ITERATIONS, TEMPERATURE, largest=1.0)
        loss.backward()
        optimizer.step()
        return loss.item()

    def theirs() -> float:
        other.zero_grad()
        peer.prototypes.normalize()
        scores = peer([crop.expand(-1, 3, -1, -1) for crop in crops])
        loss = criterion(scores[:2], scores[2:])
        loss.backward()
        other.step()
        return loss.item()

    def agree():
        # each crop has batch statistics of its own there, and those of its size here: the losses are near, not equal
        assert abs(ours() - theirs()) < 0.1 * theirs()

    size = f"{arch}, {batch} pictures, 2 × {sizes[0]}² + 6 × {sizes[1]}², K {prototypes}"
    name = f"stage-1 step, SwAV, {str(dtype).removeprefix('torch.')}"
    yield Case(name, size, ours, theirs, "lightly, fp32", 1.0 * (not quick), agree, batch, "picture")


def share_weights(model: ImageModel, peer: Lightly) -> None:
    """The peer starts where ours does; its head has the same layers but for a bias that its batch norm takes away."""
    peer.backbone.load_state_dict(model.slice_encoder.resnet.state_dict())
    peer.head.layers.load_state_dict({n: v for n, v in model.head.layers.state_dict().items() if n != "0.bias"})
    with torch.no_grad():
        peer.prototypes.heads[0].weight.copy_(model.prototypes.heads[0])
