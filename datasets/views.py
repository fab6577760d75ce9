"""From a loader's batch to what a network sees: two views of volumes, crops of pictures, masks.

Pixels are where the batch is. Which slices are real or masked, and where they come from, stays on the host, so that counting
or choosing slices never waits for a device.
"""

import itertools
from typing import NamedTuple

import torch

from .draws import keys, uniform
from .image_views import augment_crops
from .volume_views import choose_transforms, make_view
from .volumes import intensities, standardise


class Views(NamedTuple):
    """Two views of B volumes, one after the other: pixels (2B, N, H, W); on the host real, positions (2B, N), step (2B,)."""

    pixels: torch.Tensor
    real: torch.Tensor
    positions: torch.Tensor
    step: torch.Tensor


def two_views(batch: dict, seed: int, policy: str, normalise: str, dtype: torch.dtype) -> Views:
    """Two augmented views of each volume of a batch (`collate_volumes`); draws are keyed by (seed, pass, index, view)."""
    return _views(2, batch, seed, policy, normalise, dtype)


def one_view(batch: dict, seed: int, policy: str, normalise: str, dtype: torch.dtype) -> Views:
    """The first of `two_views`: pixels (B, N, H, W), and so on."""
    return _views(1, batch, seed, policy, normalise, dtype)


def _views(views: int, batch: dict, seed: int, policy: str, normalise: str, dtype: torch.dtype) -> Views:
    pixels = intensities(batch["slices"], batch["low"], batch["high"], normalise, dtype)
    on_host = batch["on_host"]
    turn, index = on_host["turn"], on_host["index"]
    chosen = choose_transforms(keys(seed, "transforms", turn, index), policy)
    # one volume at a time stays in a processor's cache; a GPU takes all at once
    some = 1 if pixels.device.type == "cpu" else len(pixels)
    parts = []
    for view, first in itertools.product(range(views), range(0, len(pixels), some)):
        block = slice(first, first + some)
        of = pixels[block], *(on_host[name][block] for name in ("count", "positions", "step"))
        view_keys = keys(seed, "view", turn[block], index[block], view)
        parts.append(make_view(*of, view_keys, chosen[view, block], turn_in_plane=policy != "one"))
    joined = [torch.cat(part) for part in zip(*parts)]
    return Views(standardise(joined[0], normalise), *joined[1:])


def middle_slices(view: Views) -> list[torch.Tensor]:
    """The middle slice of each volume in both views, to be looked at: two of (B, 1, H, W)."""
    return list(middle_slice(view.pixels, view.real)[:, None].chunk(2))


def middle_slice(pixels: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """The middle one of each volume's real slices: of (B, N, [3,] H, W), (B, [3,] H, W)."""
    return torch.stack([volume[number] for volume, number in zip(pixels, (real.sum(1) // 2).tolist())])


def plain_view(batch: dict, normalise: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """((B, N, H, W) standardised pixels, (B, N) real slices, on the host) of a batch without any augmentation.

    "imagenet" gives (B, N, 3, H, W).
    """
    pixels = intensities(batch["slices"], batch["low"], batch["high"], normalise, dtype)
    real = torch.arange(pixels.shape[1]) < torch.from_numpy(batch["on_host"]["count"])[:, None]
    return standardise(pixels, normalise), real


def mask_draws(batch: dict, seed: int, slices: int, views: int = 2, one_for_both: bool = False) -> torch.Tensor:
    """(views * B, slices) numbers in [0, 1), on the host, that choose the masked slices of each view, or of two (published)."""
    turn, index = batch["on_host"]["turn"], batch["on_host"]["index"]
    which = [view // 2 if one_for_both else view for view in range(views)]
    draws = [torch.from_numpy(uniform(keys(seed, "mask", turn, index, view), slices)) for view in which]
    return torch.cat(draws)


def picture_crops(
    batch: dict, seed: int, normalise: str, dtype: torch.dtype, augment: bool = True, blur: str = "scaled", mirror: bool = True
) -> list[torch.Tensor]:
    """The crops of a batch (`collate_pictures`): one (B, 1, s, s) tensor a crop, largest first, augmented, standardised.

    "imagenet" gives (B, 3, s, s). blur, mirror: as `augment_crops` takes them.
    """
    turn, index = batch["on_host"]["turn"], batch["on_host"]["index"]
    crops = []
    for size, block in enumerate(batch["crops"]):
        pixels = intensities(block, batch["low"], batch["high"], normalise, dtype)
        if augment:
            which = torch.arange(block.shape[1]).numpy()
            drawn_by = keys(seed, "colours", turn[:, None], index[:, None], size, which[None])
            pixels = augment_crops(pixels, drawn_by, blur, mirror)
        pixels = standardise(pixels, normalise)
        crops += list((pixels if pixels.ndim == 5 else pixels[:, :, None]).unbind(1))
    return crops
