"""What trained networks do with given slices, to be looked at: the slices that f_inter attends to, and networks with heads."""

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from .heads import ProjectionHead, Prototypes
from .image_model import ImageModel
from .masked_volume import MaskedVolumeModel, interpolate_neighbours
from .pretrained import DEFAULTS, expect_stage, make_encoders
from .slice_encoder import SliceEncoder, embed_slices
from .volume_encoder import VolumeEncoder, volume_embedding
from .weight_files import read_weights, understood


class WholeNetwork(nn.Module):
    """What stage 2 or 3 has learned, with its heads: `slice_encoder`, `masked`; after stage 3 `slice_head`, `prototypes`."""

    def __init__(self, slice_encoder: SliceEncoder, masked: MaskedVolumeModel, heads: dict[str, nn.Module]):
        super().__init__()
        self.slice_encoder, self.masked = slice_encoder, masked
        for name, module in heads.items():
            self.add_module(name, module)


def load_whole_network(path: str | Path) -> WholeNetwork:
    """The network in a weight file of stage 2 or 3 of this project, in eval mode. Raises `WeightsError` for other files."""
    weights = read_weights(path)
    if weights.stage == "image":
        expect_stage(path, "joint")  # which says so
    config, state = {**DEFAULTS, "scores": "cosine", **weights.config}, weights.state
    with understood(weights.path):
        slice_encoder, volume_encoder = make_encoders(SimpleNamespace(**{**config, "dropout": 0.0}))
        masked = MaskedVolumeModel(volume_encoder, config["d_model"], config["masking"] == "published")
        network = WholeNetwork(slice_encoder, masked, _heads(state, config))
        network.load_state_dict(state)
    return network.eval()


def load_image_network(state: dict[str, torch.Tensor], arch: str, scores: str) -> ImageModel:
    """The network of stage 1 from the model's state in a checkpoint, in eval mode."""
    batchnorm = "head.layers.1.running_mean" in state
    model = ImageModel(SliceEncoder(arch), _counts(state, "prototypes."), scores=scores, head_batchnorm=batchnorm)
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def look_at_volumes(network: WholeNetwork, pixels: torch.Tensor, real: torch.Tensor, masked: torch.Tensor) -> dict:
    """What the network makes of whole volumes: pixels (B, N, H, W) on its device; real, masked (B, N) bool on the host.

    slices (B, N, D), guesses of interpolation and predictions (B, N, D), volumes (B, D), and after stage 3 projections of the
    slices (B, N, 128), zero at padding.
    """
    slices = embed_slices(network.slice_encoder, pixels, real)
    found = {"slices": slices, "volumes": volume_embedding(network.masked.volume_encoder(slices, real), real)}
    found["predictions"] = network.masked(slices, real, masked)
    found["guesses"] = interpolate_neighbours(slices, real, masked)
    if hasattr(network, "slice_head"):
        projections = network.slice_head(slices.flatten(0, 1)).unflatten(0, real.shape)
        found["projections"] = projections * real[..., None].to(projections.device)
    return found


@torch.no_grad()
def attended_slices(encoder: VolumeEncoder, slices: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each layer of an f_inter that attends along slices, of one volume's slice embeddings (N, D):

    (N, N) shares, from each slice (row) to the slices that its keys are read from, the mean over heads, and (N,) the share
    that goes to keys beyond the ends, which are read as nothing. A key between two slices counts for both, by distance.
    """
    hidden, maps = slices[None], []
    for layer in encoder.layers:
        weights = layer.attention.attend(hidden)[1][0].float()  # (H, N, M)
        places = layer.attention.places(hidden)[0].float()  # (G, M)
        places = places.repeat_interleave(weights.shape[0] // places.shape[0], 0)  # (H, M)
        below = places.floor()
        shares = weights.new_zeros(weights.shape[0], weights.shape[2], len(slices))  # (H, M, N)
        for item, part in ((below, below + 1 - places), (below + 1, places - below)):
            inside = (item >= 0) & (item < len(slices))
            index = item.clamp(0, len(slices) - 1).long()
            shares.scatter_add_(2, index[..., None], (part * inside)[..., None])
        of_layer = (weights @ shares).mean(0)
        maps.append((of_layer, 1 - of_layer.sum(1)))
        hidden = layer(hidden, None)
    return maps


def _heads(state: dict[str, torch.Tensor], config: dict) -> dict[str, nn.Module]:
    """The modules of stage 3 beside the encoders, as large as their tensors; none after stage 2."""
    if "slice_head.layers.0.weight" not in state:
        return {}
    hidden, dim = state["slice_head.layers.0.weight"].shape
    out = state["slice_head.layers.3.weight"].shape[0]
    prototypes = nn.Module()
    for family, size in (("volumes", config["d_model"]), ("slices", out)):
        counts = _counts(state, f"prototypes.{family}.")
        setattr(prototypes, family, Prototypes(size, counts, config["scores"]))
    return {"slice_head": ProjectionHead(dim, hidden, out), "prototypes": prototypes}


def _counts(state: dict[str, torch.Tensor], prefix: str) -> list[int]:
    """The number of prototypes of each head."""
    return [len(value) for name, value in state.items() if name.startswith(f"{prefix}heads.")]
