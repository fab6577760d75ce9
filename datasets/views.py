"""From a loader's batch to what a network sees: two views of volumes, crops of pictures, masks. On the batch's device."""

from typing import NamedTuple

import torch

from .draws import keys, uniform
from .image_views import augment_crops
from .volume_views import choose_transforms, make_view
from .volumes import intensities, standardise


class Views(NamedTuple):
    """Two views of B volumes, one after the other: pixels (2B, N, H, W), real (2B, N) bool, positions (2B, N), step (2B,)."""

    pixels: torch.Tensor
    real: torch.Tensor
    positions: torch.Tensor
    step: torch.Tensor


def two_views(batch: dict, seed: int, policy: str, normalise: str, dtype: torch.dtype) -> Views:
    """Two augmented views of each volume of a batch (`collate_volumes`); draws are keyed by (seed, pass, index, view)."""
    pixels = intensities(batch["slices"], batch["low"], batch["high"], normalise, dtype)
    turn, index = batch["turn"].cpu().numpy(), batch["index"].cpu().numpy()
    chosen = choose_transforms(keys(seed, "transforms", turn, index), policy)
    where = (pixels, batch["count"], batch["positions"], batch["step"])
    views = [
        make_view(*where, keys(seed, "view", turn, index, view), chosen[view], turn_in_plane=policy != "one")
        for view in range(2)
    ]
    joined = [torch.cat(parts) for parts in zip(*views)]
    return Views(standardise(joined[0], normalise), *joined[1:])


def plain_view(batch: dict, normalise: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """((B, N, H, W) standardised pixels, (B, N) real slices) of a batch without any augmentation.

    "imagenet" gives (B, N, 3, H, W).
    """
    pixels = intensities(batch["slices"], batch["low"], batch["high"], normalise, dtype)
    real = torch.arange(pixels.shape[1], device=pixels.device) < batch["count"][:, None]
    return standardise(pixels, normalise), real


def mask_draws(batch: dict, seed: int, slices: int, views: int = 2, one_for_both: bool = False) -> torch.Tensor:
    """(views * B, slices) numbers in [0, 1) that choose the masked slices of each view, or (published) of two views at once."""
    turn, index = batch["turn"].cpu().numpy(), batch["index"].cpu().numpy()
    which = [view // 2 if one_for_both else view for view in range(views)]
    draws = [torch.from_numpy(uniform(keys(seed, "mask", turn, index, view), slices)) for view in which]
    return torch.cat(draws).to(batch["slices"].device)


def picture_crops(
    batch: dict, seed: int, normalise: str, dtype: torch.dtype, augment: bool = True, blur: str = "scaled"
) -> list[torch.Tensor]:
    """The crops of a batch (`collate_pictures`): one (B, 1, s, s) tensor a crop, largest first, augmented, standardised.

    "imagenet" gives (B, 3, s, s).
    """
    turn, index = batch["turn"].cpu().numpy(), batch["index"].cpu().numpy()
    crops = []
    for size, block in enumerate(batch["crops"]):
        pixels = intensities(block, batch["low"], batch["high"], normalise, dtype)
        if augment:
            which = torch.arange(block.shape[1]).numpy()
            pixels = augment_crops(pixels, keys(seed, "colours", turn[:, None], index[:, None], size, which[None]), blur)
        pixels = standardise(pixels, normalise)
        crops += list((pixels if pixels.ndim == 5 else pixels[:, :, None]).unbind(1))
    return crops
