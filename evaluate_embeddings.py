"""What frozen weights know: nearest neighbours and a linear probe of labels, effective rank, a picture of the embeddings.

Labels come from `labels.csv` at the root of a data folder (path,label[,subject][,split]) and are told apart *within* each
collection. Every weight file stands beside two baselines: raw pixels, and the same network with random weights. Images are
embedded by the last stage of f_intra; volumes by f_inter, or after stage 1 by the mean of f_intra over their slices.

Reads    folders of images and volumes, weight files of any stage
Writes   <output>/evaluation.json, <output>/embeddings.png
Run      python evaluate_embeddings.py --weights weights/resnet_swav2D.pth weights/swav3D.pth
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.table import Table
from sklearn.decomposition import PCA

from datasets.files import SPLITS, Item, find_images, find_volumes, subject_of, told_apart
from datasets.loader import once_loader
from datasets.pictures import Pictures, WholePictureDataset, collate_pictures
from datasets.views import picture_crops, plain_view
from datasets.volumes import VolumeDataset, collate_volumes
from engine.config import parse
from engine.errors import UserError, speaking_to_people
from engine.listing import Listing, told
from engine.neighbours import knn_hits
from engine.pictures import scatter
from engine.probes import interval, linear_hits
from engine.processes import autocast, computing_dtype, to_device
from engine.tables import cell, print_table
from losses.collapse import rankme
from models.pretrained import Encoders, load_encoders, random_encoders


@dataclass(kw_only=True)
class EvaluationConfig:
    weights: tuple[str, ...] = ()  # weight files of any stage; baselines alone when there is none
    data_path: str = ""  # folder of volumes ("" = none)
    image_path: str = ""  # folder of images ("" = none)
    split: Literal["all", "train", "valid", "test"] = "all"  # files of this split, by labels.csv or folder
    output: str = "runs/evaluation"  # folder for figures and the picture
    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"  # random baseline when no weights are given
    d_model: int = 640  # likewise
    target_shape: tuple[int, int, int] = (64, 128, 128)  # slices, height, width that the network sees
    fit: Literal["", "shrink", "crop"] = ""  # of volumes to target_shape ("" = as each weight file was trained, else shrink)
    normalise: Literal["", "robust", "none", "imagenet"] = ""  # intensities ("" = as each weight file was trained, else robust)
    sampling: Literal["", "da018", "da020"] = ""  # of keys ("" = as each file tells, or da018 for published ones)
    resnet_pretrained: str = ""  # file of stage 1 for weights without a ResNet (published mask_*.pth)
    neighbours: int = 10  # of the nearest-neighbour vote
    batch_size: int = 16  # files at a time
    workers: int = 2  # loader processes (0 = none)
    on_bad_file: Literal["stop", "skip"] = "stop"  # skip: all files are read once before; the bad ones are left out and named
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto = bf16 where the processor has it, else fp32
    seed: int = 31  # of the random weights
    config: str = ""  # YAML file with any of these constants; flags win over it


def main(config: EvaluationConfig) -> None:
    if not config.data_path and not config.image_path:
        raise UserError("Nothing is to be embedded; name a folder with --data_path (volumes) or --image_path (images).")
    splits = SPLITS if config.split == "all" else (config.split,)
    listing = Listing(config.on_bad_file, config.workers)
    images = listing.find(find_images, config.image_path, splits) if config.image_path else []
    volumes = listing.find(find_volumes, config.data_path, splits) if config.data_path else []
    names = [Path(path).name for path in config.weights]
    names = names if len(set(names)) == len(names) else list(config.weights)
    trained = {}
    for name, path in zip(names, config.weights):
        trained[name], said = load_encoders(path, config.sampling, config.resnet_pretrained)
        print(*said, sep="\n")
    first = next(iter(trained.values()), None)
    baseline = random_encoders(first.arch if first else config.arch, first.d_model if first else config.d_model, config.seed)

    rows, panels = {}, {}
    for kind, items in [("images", images), ("volumes", volumes)]:
        if not items:
            continue
        plain = as_trained(first or baseline, config)
        embedded = {"raw pixels": raw_pixels(kind, items, plain), "random weights": embed(kind, items, baseline, plain)}
        for name, encoders in trained.items():
            embedded[name] = embed(kind, items, encoders, as_trained(encoders, config))
        for name, embeddings in embedded.items():
            rows.setdefault(name, {})[kind] = score(embeddings, items, config)
        panels |= {f"{kind}, {name}": two_axes(embedded[name], items) for name in list(embedded)[1:]}
    output = Path(config.output)
    scatter(output / "embeddings.png", panels, "first two principal components, coloured by collection")
    (output / "evaluation.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    show(rows)
    if listing.left_out:
        print(told(listing.left_out))
    print(f"wrote {output}/evaluation.json and {output}/embeddings.png")


def as_trained(encoders: Encoders, config: EvaluationConfig) -> EvaluationConfig:
    """The constants by which files are shown to these encoders: as in their training, but for what a flag names."""
    fit = config.fit or encoders.config.get("fit", "shrink")
    normalise = config.normalise or encoders.config.get("normalise", "robust")
    bound = encoders.volume_encoder.slices if encoders.volume_encoder else None
    slices, *plane = config.target_shape
    return replace(config, fit=fit, normalise=normalise, target_shape=(bound or slices, *plane))


@torch.no_grad()
def embed(kind: str, items: list[Item], encoders: Encoders, config: EvaluationConfig) -> np.ndarray:
    """(n, D) float32 embeddings of whole files, in the order of `items`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = computing_dtype(config.precision, device)
    encoders.to(device)
    rows = []
    with autocast(dtype, device):
        for batch in batches(kind, items, config, device):
            if kind == "images":
                rows.append(encoders.embed_images(picture_crops(batch, 0, config.normalise, torch.float32, augment=False)[0]))
            else:
                rows.append(encoders.embed_volumes(*plain_view(batch, config.normalise, torch.float32)))
    return torch.cat(rows).float().cpu().numpy()


def batches(kind: str, items: list[Item], config: EvaluationConfig, device: torch.device):
    if kind == "images":
        pictures = Pictures(items, whole_range=config.normalise == "imagenet")
        dataset, collate = WholePictureDataset(pictures, config.target_shape[1:]), collate_pictures
    else:
        dataset, collate = VolumeDataset(items, config.target_shape, config.seed, config.fit, centred=True), collate_volumes
    for batch in once_loader(dataset, collate, config.batch_size, config.workers):
        yield to_device(batch, device)


def raw_pixels(kind: str, items: list[Item], config: EvaluationConfig) -> np.ndarray:
    """(n, 16 · 16) or (n, 8 · 16 · 16): the files themselves, averaged down to a small grid, standardised one by one."""
    rows = []
    config = replace(config, normalise=config.normalise.replace("imagenet", "robust"))  # one channel says it all
    for batch in batches(kind, items, config, torch.device("cpu")):
        if kind == "images":
            pixels = picture_crops(batch, 0, config.normalise, torch.float32, augment=False)[0]
            rows.append(torch.nn.functional.interpolate(pixels, size=(16, 16), mode="area").flatten(1))
        else:
            pixels, real = plain_view(batch, config.normalise, torch.float32)
            for volume, slices in zip(pixels, real):
                small = torch.nn.functional.adaptive_avg_pool3d(volume[slices][None], (8, 16, 16))
                rows.append(small.flatten(1))
    flat = torch.cat(rows).numpy()
    return (flat - flat.mean(1, keepdims=True)) / (flat.std(1, keepdims=True) + 1e-6)


def score(embeddings: np.ndarray, items: list[Item], config: EvaluationConfig) -> dict:
    """RankMe of all embeddings; neighbours and linear probe, with 95 % intervals, of those that have a label."""
    figures = {"files": len(items), "rankme": rankme(torch.from_numpy(embeddings)).item()}
    apart = set(told_apart(items))
    known = [i for i, item in enumerate(items) if item in apart]
    if len(known) >= 10:
        labels, groups = (np.array([getattr(items[i], name) for i in known]) for name in ("label", "collection"))
        subjects = np.array([subject_of(items[i]) for i in known])
        linear, scored = linear_hits(embeddings[known], labels, groups, subjects)
        for name, hits in [
            ("knn", knn_hits(embeddings[known], labels, groups, subjects, config.neighbours)),
            ("linear", linear[scored]),
        ]:
            if len(hits):
                share = float(hits.mean())
                figures |= {name: share, f"{name}_interval": interval(share, len(hits)), "labelled": len(hits)}
    return figures


def two_axes(embeddings: np.ndarray, items: list[Item]) -> tuple[np.ndarray, np.ndarray]:
    points = PCA(2, random_state=0).fit_transform(embeddings) if len(items) > 2 else np.zeros((len(items), 2))
    return points, np.array([item.collection for item in items])


def show(rows: dict[str, dict[str, dict]]) -> None:
    """The figures as a table: one line a weight file."""
    kinds = list(next(iter(rows.values())))
    columns = [(kind, what) for kind in kinds for what in ("knn", "linear", "rankme")]
    table = Table("embedding", *(f"{kind} {what}" for kind, what in columns), title="within-collection labels, frozen weights")
    for name, of_kind in rows.items():
        table.add_row(name, *(cell(of_kind[kind], what) for kind, what in columns))
    print_table(table)


if __name__ == "__main__":
    with speaking_to_people():
        main(parse(EvaluationConfig))
