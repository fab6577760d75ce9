"""Phantom anatomies: made-up pictures and volumes of four collections, with label maps and a hidden variant each.

The sample data of the project and of its tests. A phantom's *variant* (0 or 1) is the direction of the stripes in its largest
organ: independent of position, size, brightness, contrast, bias field and noise, and invisible to intensity statistics.

Run: python -m datasets.phantoms                                          the samples (writer: datasets/make_samples.py)
     python -m datasets.phantoms OUT --volumes 400 --images 400 --seed 1 --shape 48 48 16
"""

import argparse
from typing import NamedTuple

import numpy as np

from .draws import keys, uniform
from .phantom_anatomy import ANATOMIES, Anatomy, grid, paint_labels, paint_lesions, pose, texture


class Phantom(NamedTuple):
    """image (H, W, C) or (H, W), uint8 or int16; label_map, same shape, uint8 (0 = outside); variant 0 or 1."""

    image: np.ndarray
    label_map: np.ndarray
    variant: int


def variant_of(collection: str, seed: int, index: int, purpose: str) -> int:
    """The variant of a phantom: of each two neighbours (2i, 2i + 1) one has 0 and one has 1."""
    return (index ^ int(keys(seed, collection, purpose, "variant", index // 2) & np.uint64(1))) & 1


def make_phantom(collection: str, seed: int, index: int, shape: tuple[int, int, int] = (48, 48, 16)) -> Phantom:
    """Volume number `index` of a collection (a name in ANATOMIES), of shape (H, W, C): slices last."""
    return _make(
        collection, keys(seed, collection, "volume", index), variant_of(collection, seed, index, "volume"), shape, (-0.7, 0.7)
    )


def make_slice(collection: str, seed: int, index: int, size: int) -> Phantom:
    """Picture number `index` of a collection: size × size, a slice somewhere through the middle of a body of its own."""
    key = keys(seed, collection, "slice", index)
    z = 0.8 * float(uniform(key, 1)[0]) - 0.4
    image, labels, variant = _make(collection, key, variant_of(collection, seed, index, "slice"), (size, size, 1), (z, z))
    return Phantom(image[..., 0], labels[..., 0], variant)


def _make(collection: str, key: np.ndarray, variant: int, shape: tuple[int, int, int], z_range: tuple[float, float]) -> Phantom:
    anatomy = ANATOMIES[collection]
    names = ("pose", "organs", "lesions", "texture", "light", "noise")
    parts = {name: keys(key.view(np.int64), name) for name in names}
    noise = np.random.default_rng(int(parts["noise"]))
    coordinates = grid(shape, z_range)
    body = pose(coordinates, parts["pose"])
    labels = paint_labels(anatomy, body, parts["organs"])
    paint_lesions(anatomy, labels, body, parts["lesions"])
    field = texture(shape, variant == 0, parts["texture"], noise)
    brightness = _expose(_tissue(anatomy, labels, field, parts["light"]), coordinates, parts["light"], noise)
    image = anatomy.low + (anatomy.high - anatomy.low) * np.clip(brightness, 0, 1)
    return Phantom(np.rint(image).astype(anatomy.dtype), labels, variant)


def _tissue(anatomy: Anatomy, labels: np.ndarray, field: np.ndarray, key: np.ndarray) -> np.ndarray:
    """(H, W, C) float32: each organ in its brightness, the textured ones with their field."""
    classes = len(anatomy.organs) + 2
    u = uniform(key ^ np.uint64(1), classes + 1)
    means = np.array([0.03, *(organ.brightness for organ in anatomy.organs), 0.9], np.float32)
    means[1:] += 0.16 * (u[1:classes] - 0.5)
    strength = np.zeros(classes, np.float32)
    strength[[anatomy.organ(name) for name in anatomy.textured]] = 0.22 + 0.04 * u[classes]
    return means.take(labels) + strength.take(labels) * field


def _expose(image: np.ndarray, coordinates: list[np.ndarray], key: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """The scanner: a smooth bias field, contrast, gamma, brightness and noise, all random."""
    y, x, z = coordinates
    u = (2 * uniform(key ^ np.uint64(2), 10) - 1).astype(np.float32)
    bias = 0.15 * (u[0] * y + u[1] * x + 0.5 * u[2] * z + u[3] * x * y + u[4] * y * y)
    image = np.clip(image, 0, 1) ** np.exp(0.2 * u[5]) * (1 + bias)
    image = (image - 0.4) * (0.8 + 0.3 * u[6]) + 0.4 + 0.12 * u[7]
    spread = 0.02 + 0.03 * (u[8] + 1)
    return image + spread * noise.standard_normal(image.shape, dtype=np.float32)


def _command_line() -> None:
    from .make_samples import Samples, main  # it imports this module

    parser = argparse.ArgumentParser(description="Write the sample data, or any number of phantoms to another folder.")
    parser.add_argument("output", nargs="?", default="", help="folder for images/ and volumes/ (left out: the samples)")
    parser.add_argument("--volumes", type=int, default=Samples.volumes, help="volumes, over all collections")
    parser.add_argument("--images", type=int, default=Samples.images, help="pictures, over all collections")
    parser.add_argument("--seed", type=int, default=Samples.seed)
    parser.add_argument("--shape", type=int, nargs=3, default=Samples.shape, metavar=("ROWS", "COLUMNS", "SLICES"))
    flags = vars(parser.parse_args())
    main(Samples(**{**flags, "shape": tuple(flags["shape"])}))


if __name__ == "__main__":
    _command_line()
