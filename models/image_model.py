"""The network of stage 1: f_intra, a projection head, prototypes."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from torch import nn

from .heads import ProjectionHead, Prototypes
from .pretrained import load_resnet
from .slice_encoder import SliceEncoder
from .weight_files import read_weights


class ImageModel(nn.Module):
    """Crops of pictures → unit projections and scores. The head stands on the last stage of the ResNet, as VISSL's does."""

    def __init__(
        self,
        slice_encoder: SliceEncoder,
        prototypes: Sequence[int],
        hidden_dim: int = 2048,
        output_dim: int = 128,
        scores: str = "cosine",
        head_batchnorm: bool = True,
    ):
        super().__init__()
        self.output_dim = output_dim
        self.slice_encoder = slice_encoder
        self.head = ProjectionHead(slice_encoder.pooled_dim, hidden_dim, output_dim, head_batchnorm)
        self.prototypes = Prototypes(output_dim, prototypes, scores)
        # stage 1 does not train the map to D
        slice_encoder.to_embedding.requires_grad_(False)

    def forward(self, crops: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
        """crops: (B, 1 or 3, s, s) each, equal sizes together → a crop's projections (B, 128), and its scores (B, K) a head.

        Crops of one size make one pass through the encoder, as in SwAV.
        """
        pooled = []
        for _, same in groupby(crops, key=lambda crop: crop.shape[-1]):
            images = torch.cat(list(same)).contiguous(memory_format=torch.channels_last)
            pooled.append(self.slice_encoder.pooled(images))
        projections = self.head(torch.cat(pooled)).chunk(len(crops))
        return list(projections), [self.prototypes(projection) for projection in projections]


def load_image_start(model: ImageModel, path: str | Path) -> list[str]:
    """Loads a ResNet of any origin, and the head and prototypes that are in the file and fit; says what was loaded."""
    said, held = [load_resnet(model.slice_encoder, path)], read_weights(path).heads
    for part, module in [("head", model.head), ("prototypes", model.prototypes)]:
        found = {name.removeprefix(f"{part}."): value for name, value in held.items() if name.startswith(f"{part}.")}
        if _shapes(found) == _shapes(module.state_dict()):
            module.load_state_dict(found)
            said.append(f"{path}: {part} loaded, too")
        else:
            why = "has another shape in the file and" if found else "is not in the file and"
            said.append(f"{path}: {part} {why} starts at random")
    return said


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}
