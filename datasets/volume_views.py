"""A view of a volume: which of the seven transforms it goes through, with which parameters, and where its slices come from."""

from typing import NamedTuple

import numpy as np
import torch

from . import volume_transforms as transforms
from .draws import generator, keys, uniform

NAMES = ("flip", "affine", "anisotropy", "noise", "blur", "bias_field", "gamma")
CHANCES = (0.5, 0.5, 0.25, 0.5, 0.25, 0.5, 0.5)  # of each, under "compose"
# TorchIO's default ranges
SCALES, ANGLES = (0.9, 1.1), (-10.0, 10.0)
FACTORS, DEVIATIONS, SIGMAS = (1.5, 5.0), (0.0, 0.25), (0.0, 2.0)
COEFFICIENTS, LOG_GAMMAS = (-0.5, 0.5), (-0.3, 0.3)
HOST = torch.device("cpu")


class View(NamedTuple):
    """pixels (B, N, H, W); on the host real (B, N) bool, positions (B, N) source slice numbers, step (B,) slices a slice."""

    pixels: torch.Tensor
    real: torch.Tensor
    positions: torch.Tensor
    step: torch.Tensor


def choose_transforms(pair_keys: np.ndarray, policy: str) -> np.ndarray:
    """(2, B, 7) bool: the transforms of both views of B volumes.

    "one": a single one for each view, and another for the other view, as published; "compose": each with its chance.
    """
    chosen = np.zeros((2, len(pair_keys), len(NAMES)), bool)
    if policy == "compose":
        for view in range(2):
            chosen[view] = uniform(keys(pair_keys.view(np.int64), view), len(NAMES)) < CHANCES
    elif policy == "one":
        order = np.argsort(uniform(pair_keys, len(NAMES)), axis=1)
        for view in range(2):
            chosen[view, np.arange(len(pair_keys)), order[:, view]] = True
    return chosen


def make_view(
    volumes: torch.Tensor,
    count: np.ndarray,
    positions: np.ndarray,
    step: np.ndarray,
    view_keys: np.ndarray,
    chosen: np.ndarray,
    turn_in_plane: bool = True,
) -> View:
    """One view of each volume (B, N, H, W), of which the first `count` (B,) slices are real.

    positions (B, N), step (B,): where the slices come from; view_keys (B,) uint64 draw all parameters; chosen (B, 7) bool.
    `turn_in_plane`: rotation about the slice axis only, so that a slice stays one anatomical slice. All but pixels is on the
    host, so that nothing waits for the device.
    """
    pixels, positions, step = volumes.clone(), torch.from_numpy(positions.copy()), torch.from_numpy(step.copy())
    slices, device = pixels.shape[1], pixels.device
    counted = torch.from_numpy(count)
    length = counted.to(device, non_blocking=True)
    drawn = {name: uniform(keys(view_keys.view(np.int64), name), 20) for name in NAMES}

    def change(rows: torch.Tensor, transform, *how) -> None:
        """The volumes at `rows` are replaced by what the transform makes of them."""
        nonlocal pixels
        if len(rows) == len(pixels):
            pixels = transform(pixels, *how)
        else:
            pixels[rows] = transform(pixels[rows], *how)

    def having(name: str, chance: float = 1.0, axis: int | None = None):
        """(numbers, the same on the device) of the volumes that have a transform; None for none."""
        has = chosen[:, NAMES.index(name)] & (drawn[name][:, 0] < chance)
        if axis is not None:
            has = has & (np.minimum((drawn[name][:, 19] * 3).astype(int), 2) == axis)
        which = np.flatnonzero(has)
        return (which, torch.from_numpy(which).to(device, non_blocking=True)) if len(which) else None

    def parameters(name: str, which: np.ndarray, *ranges: tuple[float, float, int], to: torch.device = device):
        """The drawn parameters (B', how many) for each range (low, high, how many)."""
        ends = np.cumsum([0, *(many for _, _, many in ranges)])
        values = [low + drawn[name][which, a:b] * (high - low) for (low, high, _), a, b in zip(ranges, ends, ends[1:])]
        return [torch.from_numpy(of).to(pixels.dtype).to(to, non_blocking=True) for of in values]

    # under "one" TorchIO's flip is itself a matter of chance
    if found := having("flip", 1.0 if turn_in_plane else 0.5):
        which, rows = found
        change(rows, transforms.flip, length[rows])
        positions[which] = positions[which].gather(1, transforms.flipped_order(slices, counted[which]))

    if found := having("affine"):
        which, rows = found
        scales, angles = parameters("affine", which, (*SCALES, 3), (*ANGLES, 3))
        angles = torch.deg2rad(angles)
        turn = transforms.affine_in_plane if turn_in_plane else transforms.affine_in_space
        change(rows, turn, length[rows], scales, angles[:, 0] if turn_in_plane else angles)
        scale = parameters("affine", which, (*SCALES, 3), to=HOST)[0][:, 0]
        source = transforms.scaled_positions(slices, counted[which], scale).to(positions.dtype)
        positions[which] = transforms.combine(transforms.interpolation(source, slices), positions[which, :, None])[..., 0]
        step[which] = step[which] / scale.to(step.dtype)

    for axis in range(3):
        if found := having("anisotropy", axis=axis):
            which, rows = found
            (factors,) = parameters("anisotropy", which, (*FACTORS, 1))
            change(rows, transforms.anisotropy, length[rows], axis, factors[:, 0])

    if found := having("noise"):
        which, rows = found
        (deviations,) = parameters("noise", which, (*DEVIATIONS, 1))
        sources = [generator(key, device) for key in keys(view_keys[which].view(np.int64), "voxels")]
        change(rows, transforms.noise, count[which].tolist(), deviations[:, 0], sources)

    if found := having("blur"):
        which, rows = found
        (sigmas,) = parameters("blur", which, (*SIGMAS, 3))
        change(rows, transforms.blur, length[rows], sigmas)

    if found := having("bias_field"):
        which, rows = found
        (coefficients,) = parameters("bias_field", which, (*COEFFICIENTS, 20))
        change(rows, transforms.bias_field, length[rows], coefficients)

    if found := having("gamma"):
        which, rows = found
        (logarithms,) = parameters("gamma", which, (*LOG_GAMMAS, 1))
        change(rows, transforms.gamma, logarithms[:, 0].exp())

    real = torch.arange(slices) < counted[:, None]
    return View(pixels.mul_(real.to(device, non_blocking=True)[..., None, None]), real, positions * real, step)
