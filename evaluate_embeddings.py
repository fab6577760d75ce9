"""What frozen weights know of labels (neighbours, linear probe, retrieval, clusters), their effective rank, and pictures.

Labels come from `labels.csv` at the root of a data folder (path,label[,subject][,split]) and are told apart *within* each
collection. Weight files stand beside two baselines: raw pixels, and each of their networks with random weights. Images are
embedded by the last stage of f_intra; volumes by f_inter, or after stage 1 by the mean of f_intra over their slices.

Reads    folders of images and volumes, weight files of any stage
Writes   <output>/evaluation.json; maps in embeddings.png (PCA) and embeddings_tsne.png; neighbours_<kind>_<weights>.png
Run      python evaluate_embeddings.py --weights weights/resnet_swav2D.pth weights/swav3D.pth
"""

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.table import Table

from datasets.contact_sheet import thumbnail
from datasets.files import SPLITS, Item, find_images, find_volumes, spread, subject_of, thinned, told_apart
from datasets.whole_files import coarse_pixels, network_input, whole_files
from engine.clusters_and_labels import cluster_scores
from engine.config import parse
from engine.embedding import computing_device, embed_files
from engine.embedding_pictures import MapRow, draw_maps
from engine.errors import UserError, speaking_to_people
from engine.listing import Listing, told
from engine.neighbour_sheet import draw_neighbours
from engine.neighbours import knn_hits, most_frequent_share, nearest_strangers
from engine.probes import interval, linear_hits
from engine.projections import principal_components, tsne_map
from engine.retrieval import retrieval_scores
from engine.tables import cell, print_table
from engine.weights import about_weights
from losses.collapse import rankme
from models.frozen import shown_to
from models.pretrained import Encoders, load_encoders, random_encoders
from models.weight_files import DOWNSTREAM

MOST_DRAWN = 1000  # points of a map, chosen by hash
NEAREST_DRAWN = 5  # neighbours of a query
MAPS = [
    (
        "embeddings.png",
        principal_components,
        "PCA: a point is a file, at its place along the\ntwo directions in which embeddings differ most",
    ),
    (
        "embeddings_tsne.png",
        tsne_map,
        "t-SNE: a point is a file; files side by side are alike,\nhow far apart groups lie means nothing",
    ),
]
SHOWN = {
    "knn": "kNN",
    "linear": "linear probe",
    "map": "mAP",
    "map_chance": "mAP by chance",
    "precision_at_1": "P@1",
    "precision_at_5": "P@5",
    "nmi": "NMI",
    "ari": "ARI",
    "rankme": "RankMe",
}


@dataclass(kw_only=True)
class EvaluationConfig:
    weights: tuple[str, ...] = ()  # weight files of any stage; baselines alone when there is none
    data_path: str = ""  # folder of volumes ("" = none)
    image_path: str = ""  # folder of images ("" = none)
    split: Literal["all", "train", "valid", "test"] = "all"  # files of this split, by labels.csv or folder
    output: str = "runs/evaluation"  # folder for figures and pictures
    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"  # random baseline when no weights are given
    d_model: int = 640  # likewise
    target_shape: tuple[int, int, int] = (64, 128, 128)  # slices, height, width that the network sees
    fit: Literal["", "shrink", "crop"] = ""  # of volumes to target_shape ("" = as each weight file was trained, else shrink)
    normalise: Literal["", "robust", "none", "imagenet"] = ""  # intensities ("" = as each weight file was trained, else robust)
    sampling: Literal["", "da018", "da020"] = ""  # of keys ("" = as each file tells, or da018 for published ones)
    resnet_pretrained: str = ""  # file of stage 1 for weights without a ResNet (published mask_*.pth)
    neighbours: int = 10  # of the nearest-neighbour vote
    queries: int = 12  # files whose nearest neighbours are drawn, from all collections and labels in turn (0 = none)
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
    paths = [path for path in config.weights if about_weights(Path(path)).get("stage") not in DOWNSTREAM]
    if 0 < len(paths) < len(config.weights):  # a pattern, such as weights/*.pth, means the others
        print(f"left out, since they are fine-tuned: {', '.join(path for path in config.weights if path not in paths)}")
    paths = paths or config.weights
    names = [Path(path).name for path in paths]
    names = names if len(set(names)) == len(names) else paths
    trained = {}
    for name, path in zip(names, paths):
        trained[name], said = load_encoders(path, config.sampling, config.resnet_pretrained)
        print(*said, sep="\n")
    baselines, plain = at_random(list(trained.values()), config)

    embedded = {}
    for kind, items in [("images", images), ("volumes", volumes)]:
        if items:
            of_kind = {"raw pixels": raw_pixels(kind, items, plain)}
            of_kind |= {name: embed(kind, items, encoders, plain) for name, encoders in baselines.items()}
            of_kind |= {name: embed(kind, items, encoders, as_trained(encoders, config)) for name, encoders in trained.items()}
            embedded[kind] = items, of_kind
    figures = {name: {} for name in ("raw pixels", *baselines, *trained)}
    for kind, (items, of_kind) in embedded.items():
        for name, embeddings in of_kind.items():
            figures[name][kind] = score(embeddings, items, config)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "evaluation.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    draw_planes(embedded, output)
    sheets = draw_sheets(embedded, output, config.queries)
    show(figures)
    if listing.left_out:
        print(told(listing.left_out))
    print(f"wrote, into {output}: {', '.join(['evaluation.json', *(name for name, *_ in MAPS), *sheets])}")


def at_random(trained: list[Encoders], config: EvaluationConfig) -> tuple[dict[str, Encoders], EvaluationConfig]:
    """The ResNets of the trained ones, each once, with random weights; and by what constants they are shown files."""
    wanted = [(of.arch, of.d_model) for of in trained] or [(config.arch, config.d_model)]
    once = [of for i, of in enumerate(wanted) if of[0] not in dict(wanted[:i])]  # D changes no figure of theirs
    networks = [random_encoders(*of, config.seed) for of in once]
    names = ["random weights", *(f"random weights, {of.arch}" for of in networks[1:])]
    return dict(zip(names, networks)), as_trained(trained[0] if trained else networks[0], config)


def as_trained(encoders: Encoders, config: EvaluationConfig) -> EvaluationConfig:
    """The constants by which files are shown to these encoders: as in their training, but for what a flag names."""
    shown = shown_to(encoders)
    bound = encoders.volume_encoder.slices if encoders.volume_encoder else None
    shape = (bound or config.target_shape[0], *config.target_shape[1:])
    return replace(config, fit=config.fit or shown.fit, normalise=config.normalise or shown.normalise, target_shape=shape)


def embed(kind: str, items: list[Item], encoders: Encoders, shown: EvaluationConfig) -> np.ndarray:
    """(n, D) float32 embeddings of whole files, in the order of `items`; shown: the constants by which they are shown."""
    encoders.to(computing_device())
    network = encoders.embed_images if kind == "images" else encoders.embed_volumes
    loader = whole_files(kind, items, shown)
    return embed_files(loader, lambda batch: network(*network_input(kind, batch, shown.normalise)), shown.precision, kind)


def raw_pixels(kind: str, items: list[Item], shown: EvaluationConfig) -> np.ndarray:
    """(n, 256) or (n, 2048): the files themselves, on a small grid."""
    loader = whole_files(kind, items, shown)
    return embed_files(loader, lambda batch: coarse_pixels(kind, batch, shown.normalise), "fp32", kind)


def score(embeddings: np.ndarray, items: list[Item], config: EvaluationConfig) -> dict:
    """RankMe of all embeddings; of those that have a label neighbours, linear probe, retrieval and clusters."""
    figures = {"files": len(items), "rankme": rankme(torch.from_numpy(embeddings)).item()}
    apart = set(told_apart(items))
    known = [i for i, item in enumerate(items) if item in apart]
    if len(known) < 10:
        return figures
    labels, groups = (np.array([getattr(items[i], name) for i in known]) for name in ("label", "collection"))
    subjects = np.array([subject_of(items[i]) for i in known])
    of_labelled = embeddings[known], labels, groups
    linear, scored = linear_hits(*of_labelled, subjects)
    for name, hits in [("knn", knn_hits(*of_labelled, subjects, config.neighbours)), ("linear", linear[scored])]:
        if len(hits):
            share = float(hits.mean())
            figures |= {name: share, f"{name}_interval": interval(share, len(hits)), f"{name}_files": len(hits)}
    figures["knn_chance"] = most_frequent_share(labels, groups)
    return figures | retrieval_scores(*of_labelled, subjects) | cluster_scores(*of_labelled)


def draw_planes(embedded: dict[str, tuple[list[Item], dict[str, np.ndarray]]], output: Path) -> None:
    """PCA and t-SNE of all but the raw pixels, a column for each; a row for each kind by collection and one by label."""
    for name, project, title in MAPS:
        rows = []
        for kind, (items, of_kind) in embedded.items():
            chosen = set(thinned(items, MOST_DRAWN))
            places = [i for i, item in enumerate(items) if item in chosen]
            share = f"\n({len(places)} of {len(items)} files)" if len(places) < len(items) else ""
            planes = {network: project(of_kind[network][places]) for network in list(of_kind)[1:]}
            for what in ("collection", "label"):
                groups = np.array([getattr(items[i], what) for i in places])
                if what == "collection" or any(groups):
                    rows.append(MapRow(f"{kind} by {what}{share}", planes, groups))
        draw_maps(output / name, title, rows)


def draw_sheets(embedded: dict[str, tuple[list[Item], dict[str, np.ndarray]]], output: Path, queries: int) -> list[str]:
    """A picture for each kind and network: the same queries, and what lies nearest to them. The names of the pictures."""
    drawn = []
    for kind, (items, of_kind) in embedded.items() if queries else ():
        place = {item: i for i, item in enumerate(items)}
        chosen = sorted(spread(items, queries), key=lambda item: (item.collection, item.label, item.name))
        asked, subjects = np.array([place[item] for item in chosen]), np.array([subject_of(item) for item in items])
        picture = functools.cache(functools.partial(thumbnail, volume=kind == "volumes"))
        for network in list(of_kind)[1:]:
            drawn.append(f"neighbours_{kind}_{network.translate(str.maketrans('/ ', '-_'))}.png")
            found = nearest_strangers(of_kind[network], subjects, asked, NEAREST_DRAWN)
            title = f"Nearest {kind}{' (their middle slices)' if kind == 'volumes' else ''}, by {network}"
            draw_neighbours(output / drawn[-1], title, items, asked, found, picture)
    return drawn


def show(figures: dict[str, dict[str, dict]]) -> None:
    """A table for each kind: one line a weight file, a column for each score that there is."""
    for kind, of_first in next(iter(figures.values())).items():
        if "knn" not in of_first:
            print(
                f"{kind}: fewer than 10 files have a label (labels.csv) that tells them apart, so that there is RankMe alone."
            )
        known = [what for what in SHOWN if any(what in of_kind[kind] for of_kind in figures.values())]
        title = f"{kind}: frozen weights, labels within each collection"
        table = Table("embedding", *(SHOWN[what] for what in known), title=title)
        for name, of_kind in figures.items():
            table.add_row(name, *(cell(of_kind[kind], what) for what in known))
        print_table(table)


if __name__ == "__main__":
    with speaking_to_people():
        main(parse(EvaluationConfig))
