"""The seven transforms of a view against TorchIO's: each alone, and all in sequence, each with parameters of its own."""

import functools

import numpy as np
import torch
import torchio
from measure import Case

from datasets.draws import keys
from datasets.volume_views import NAMES, make_view


def cases(quick: bool):
    shape = (16, 48, 48) if quick else (64, 128, 128)
    volume = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    size = " × ".join(map(str, shape))
    for turn_in_plane in (True, False):
        where = "in the plane" if turn_in_plane else "in space"
        for name in [*NAMES, "all seven"]:
            if not turn_in_plane and name not in ("affine", "all seven"):
                continue
            chosen = np.array([[name in (other, "all seven") for other in NAMES]])
            call = functools.partial(view, volume, chosen, turn_in_plane, iter(range(10**6)))
            label = f"{name}, {where}" if name in ("affine", "all seven") else name
            promise = 8.0 if name == "all seven" and not quick else 0.0
            yield Case(label, size, call, peer(name, volume), "TorchIO", promise, unit="volume")


def view(volume, chosen, turn_in_plane, numbers):
    """The next view: other parameters in every call, as TorchIO draws them."""
    slices = volume.shape[1]
    count, positions, step = np.array([slices]), np.arange(slices, dtype=np.float32)[None], np.ones(1, np.float32)
    return make_view(volume, count, positions, step, keys(0, [next(numbers)]), chosen, turn_in_plane)


def peer(name: str, volume):
    transforms = {
        "flip": torchio.RandomFlip(flip_probability=1), "affine": torchio.RandomAffine(),
        "anisotropy": torchio.RandomAnisotropy(), "noise": torchio.RandomNoise(), "blur": torchio.RandomBlur(),
        "bias_field": torchio.RandomBiasField(), "gamma": torchio.RandomGamma(),
    }  # fmt: skip
    chosen = torchio.Compose(list(transforms.values())) if name == "all seven" else transforms[name]
    return lambda: chosen(volume)
