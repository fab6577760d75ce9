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


class View(NamedTuple):
    """pixels (B, N, H, W), real (B, N) bool, positions (B, N) source slice numbers, step (B,) source slices a slice."""

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
    count: torch.Tensor,
    positions: torch.Tensor,
    step: torch.Tensor,
    view_keys: np.ndarray,
    chosen: np.ndarray,
    turn_in_plane: bool = True,
) -> View:
    """One view of each volume (B, N, H, W), of which the first `count` (B,) slices are real.

    positions (B, N), step (B,): where the slices come from; view_keys (B,) uint64 draw all parameters; chosen (B, 7) bool.
    `turn_in_plane`: rotation about the slice axis only, so that a slice stays one anatomical slice.
    """
    pixels, positions, step = volumes.clone(), positions.clone(), step.clone()
    drawn = {name: uniform(keys(view_keys.view(np.int64), name), 20) for name in NAMES}

    def on(name: str, *ranges: tuple[float, float, int]):
        """The rows that have a transform, and their parameters: (low, high, how many) for each range."""
        rows = np.flatnonzero(chosen[:, NAMES.index(name)])
        numbers, first = [], 0
        for low, high, many in ranges:
            values = low + drawn[name][rows, first : first + many] * (high - low)
            numbers.append(torch.from_numpy(values).to(pixels.device, pixels.dtype, non_blocking=True))
            first += many
        return torch.from_numpy(rows).to(pixels.device, non_blocking=True), rows, numbers

    rows, which, _ = on("flip")
    if not turn_in_plane:  # under "one" TorchIO's flip is itself a matter of chance
        rows = rows[torch.from_numpy(drawn["flip"][which, 0] < 0.5).to(rows.device)]
    if len(rows):
        order = transforms.flipped_order(pixels.shape[1], count[rows])
        pixels[rows] = transforms.flip(pixels[rows], count[rows])
        positions[rows] = positions[rows].gather(1, order)

    rows, _, (scales, angles) = on("affine", (*SCALES, 3), (*ANGLES, 3))
    if len(rows):
        angles = torch.deg2rad(angles) * torch.tensor([1, 0, 0] if turn_in_plane else [1, 1, 1], device=angles.device)
        pixels[rows] = transforms.affine(pixels[rows], count[rows], scales, angles)
        source = transforms.scaled_positions(pixels.shape[1], count[rows], scales[:, 0]).to(positions.dtype)
        read = transforms.interpolation(source, pixels.shape[1])
        positions[rows] = (read @ positions[rows][..., None])[..., 0]
        step[rows] = step[rows] / scales[:, 0].to(step.dtype)

    axes = np.minimum((drawn["anisotropy"][:, 19] * 3).astype(int), 2)
    rows, which, (factors,) = on("anisotropy", (*FACTORS, 1))
    for axis in range(3):
        here = torch.from_numpy(np.flatnonzero(axes[which] == axis)).to(rows.device)
        if len(here):
            part = rows[here]
            pixels[part] = transforms.anisotropy(pixels[part], count[part], axis, factors[here, 0])

    rows, which, (deviations,) = on("noise", (*DEVIATIONS, 1))
    if len(rows):
        sources = [generator(key, pixels.device) for key in keys(view_keys[which].view(np.int64), "voxels")]
        pixels[rows] = transforms.noise(pixels[rows], deviations[:, 0], sources)

    rows, _, (sigmas,) = on("blur", (*SIGMAS, 3))
    if len(rows):
        pixels[rows] = transforms.blur(pixels[rows], count[rows], sigmas)

    rows, _, (coefficients,) = on("bias_field", (*COEFFICIENTS, 20))
    if len(rows):
        pixels[rows] = transforms.bias_field(pixels[rows], count[rows], coefficients)

    rows, _, (logarithms,) = on("gamma", (*LOG_GAMMAS, 1))
    if len(rows):
        pixels[rows] = transforms.gamma(pixels[rows], logarithms[:, 0].exp())

    real = torch.arange(pixels.shape[1], device=pixels.device) < count[:, None]
    return View(pixels * real[..., None, None], real, positions * real, step)
