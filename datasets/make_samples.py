"""Writes phantoms as files: the samples of this repository, or any number of them elsewhere, each folder with its `labels.csv`.

Run: python -m datasets.make_samples                              training_data_2D/ and training_data_3D/
     python -m datasets.make_samples --output OUT --volumes 400 --images 400 --labelled 40 --seed 1 --shape 48 48 16

The same bytes on one kind of processor; on another a few pixels may differ by one level.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from .draws import keys, uniform
from .errors import DataError, as_sentences
from .phantom_anatomy import ANATOMIES, shared_classes
from .phantoms import make_phantom, make_slice

SPLITS = {"train": 60, "valid": 15, "test": 15}  # pictures of a collection
VOLUME_SPLITS = {"train": 12, "valid": 2, "test": 2}
PICTURE_SIZE = 64


@dataclass
class Samples:
    output: str = ""  # folder for images/, volumes/ and labelled/ ("" = the samples of this repository)
    volumes: int = 400  # volumes, over all collections
    images: int = 400  # pictures, over all collections
    labelled: int = 0  # volumes with label maps, over all collections: half of them for testing (0 = none)
    seed: int = 1  # other phantoms than the samples', which have seed 0
    shape: tuple[int, int, int] = (48, 48, 16)  # rows, columns, slices of the volumes; the pictures have as many rows


def main(wanted: Samples) -> None:
    if wanted.labelled and (not wanted.output or wanted.labelled < 3 * len(ANATOMIES)):
        raise DataError(
            f"--labelled {wanted.labelled} needs --output and a number of at least {3 * len(ANATOMIES)}, "
            "so that each collection has a volume in each split."
        )
    if not wanted.output:
        write_pictures(Path("training_data_2D"), SPLITS, 0, PICTURE_SIZE)
        write_volumes(Path("training_data_3D"), VOLUME_SPLITS, 0)
        return
    each = {"": wanted.images // len(ANATOMIES)}
    write_pictures(Path(wanted.output) / "images", each, wanted.seed, wanted.shape[0])
    write_volumes(Path(wanted.output) / "volumes", {"": wanted.volumes // len(ANATOMIES)}, wanted.seed, wanted.shape)
    if wanted.labelled:
        write_labelled(Path(wanted.output) / "labelled", wanted.labelled // len(ANATOMIES), wanted.seed, wanted.shape)


def labelled_split(number: int) -> str:
    """Few to learn from, many to be judged on; where a volume is stays when there are more."""
    return "test" if number % 2 else "valid" if number % 10 == 0 else "train"


def write_pictures(root: Path, splits: dict[str, int], seed: int, size: int) -> None:
    """8-bit grey PNG: root/[<split>/]<collection>/<number>.png."""
    rows = []
    for split, collection, number in progress(root, splits):
        phantom = make_slice(collection, seed, number, size)
        name = "/".join(filter(None, [split, collection, f"{number:04d}.png"]))
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_bytes(phantom.image, collection)).save(root / name)
        rows.append([name, ANATOMIES[collection].variants[phantom.variant], f"{collection}-{number:04d}", split])
    write_labels(root, rows)


def write_volumes(root: Path, splits: dict[str, int], seed: int, shape: tuple[int, int, int] | None = None) -> None:
    """NPY in the type of the collection: root/<collection>/<number>.npy; without a shape, sizes and depths that differ."""
    rows = []
    for split, collection, number in progress(root, splits):
        phantom = make_phantom(collection, seed, number, shape or sample_shape(collection, seed, number))
        name = f"{collection}/{number:04d}.npy"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, phantom.image)
        rows.append([name, ANATOMIES[collection].variants[phantom.variant], f"{collection}-{number:04d}", split])
    write_labels(root, rows)


def write_labelled(root: Path, each: int, seed: int, shape: tuple[int, int, int]) -> None:
    """NPZ with `image`, in the type of the collection, and `label`, uint8: root/<split>/<collection>-<number>.npz.

    What is there with the same bytes is not written again: it keeps its time, by which the pipeline knows it.
    """
    for _, collection, number in progress(root, {"": each}):
        phantom = make_phantom(collection, seed, number, shape)
        archive = io.BytesIO()
        np.savez(archive, image=phantom.image, label=shared_classes(ANATOMIES[collection], phantom.label_map))
        path = root / labelled_split(number) / f"{collection}-{number:04d}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != archive.getvalue():
            path.write_bytes(archive.getvalue())


def sample_shape(collection: str, seed: int, number: int) -> tuple[int, int, int]:
    """40 to 56 rows and columns, 10 to 28 slices."""
    rows, columns, slices = uniform(keys(seed, collection, "shape", number), 3)
    return 40 + int(17 * rows), 40 + int(17 * columns), 10 + int(19 * slices)


def progress(root: Path, splits: dict[str, int]):
    """(split, collection, number) of every phantom; numbers go on from split to split."""
    plan = []
    for collection in ANATOMIES:
        numbers = iter(range(sum(splits.values())))
        plan += [(split, collection, next(numbers)) for split, many in splits.items() for _ in range(many)]
    return tqdm(plan, desc=str(root), unit="phantom", mininterval=1)


def to_bytes(image: np.ndarray, collection: str) -> np.ndarray:
    anatomy = ANATOMIES[collection]
    return np.rint((image.astype(np.float64) - anatomy.low) / (anatomy.high - anatomy.low) * 255).clip(0, 255).astype(np.uint8)


def write_labels(root: Path, rows: list[list[str]]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["path", "label", "subject", "split"], *rows])


if __name__ == "__main__":
    with as_sentences():
        main(tyro.cli(Samples, use_underscores=True))
