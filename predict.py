"""What a fine-tuned network says of every file of a folder: label maps, classes, or boxes.

A label map lies where its image does: NIfTI with the image's own geometry and label values (.npz beside arrays that have none).
Files are read one batch at a time, and written as they are done; label maps that the same network has made are not made again.

Reads    --data_path (volumes) or --image_path (pictures), --weights: a file that finetune_*.py wrote
Writes   <output>/<name>.nii.gz for each volume; or <output>/predictions.csv: classes with their probabilities, or boxes;
         <output>/predictions.json: which network made them of what
Run      python predict.py --weights weights/segmentation.pth --data_path SCANS --output PREDICTIONS
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from datasets.box_dataset import BoxDataset, collate_boxes, detector_images
from datasets.boxes import unboxed
from datasets.cases import find_cases, labels_in_words, taken_for_labels
from datasets.classification import Shown
from datasets.files import SPLITS, find_images, find_volumes
from datasets.identity import stem_of
from datasets.label_map import LabelMap
from datasets.loader import once_loader
from datasets.plane import taken_back
from datasets.scans import read_scan, write_prediction
from datasets.segmentation import WholeCases, collate_whole
from datasets.segmentation_views import whole_view
from engine.checkpoint import sha256
from engine.config import parse
from engine.errors import UserError, speaking_to_people
from engine.listing import Listing, told
from engine.predicted import MAP_ENDINGS, TABLE, refuse_inside, take_folder
from engine.processes import autocast, computing_dtype, to_device
from engine.results import write_rows
from engine.words import counted
from models.classifier import load_classifier
from models.detector import rebuilt
from models.downstream import DownstreamWeights, read_downstream
from models.unet import load_unet


@dataclass(kw_only=True)
class PredictionConfig:
    weights: str = ""  # file that finetune_segmentation.py, finetune_classification.py or finetune_detection.py wrote
    data_path: str = ""  # folder of volumes
    image_path: str = ""  # folder of pictures
    output: str = "runs/predictions"  # folder for what is predicted
    image_pattern: str = ""  # which volumes are segmented, such as *_flair.nii.gz ("" = all that are no labels)
    channel: int | Literal["trained"] = "trained"  # which one is seen of volumes with several; trained = as in training
    batch_size: int = 8  # files at a time (classes and boxes)
    workers: int = 2  # loader processes (0 = none)
    on_bad_file: Literal["stop", "skip"] = "stop"  # skip: all files are read once before; the bad ones are left out and named
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto = bf16 where the processor has it, else fp32
    overwrite: bool = False  # make predictions again that are there, also those of another network
    config: str = ""  # YAML file with any of these constants; flags win over it


def main(config: PredictionConfig) -> None:
    if not config.weights:
        raise UserError("No network is named; give the file that a finetune_*.py script wrote with --weights.")
    weights = read_downstream(config.weights)
    listing = Listing(config.on_bad_file, config.workers)
    {"segmentation": segment, "classification": classify, "detection": detect}[weights.task](weights, config, listing)
    if listing.left_out:
        print(told(listing.left_out))


def segment(weights: DownstreamWeights, config: PredictionConfig, listing: Listing) -> None:
    """A label map for each volume."""
    model, label_map = load_unet(weights), LabelMap.from_words(weights.about["classes"], weights.about["class_names"])
    print(network_in_words(weights, label_map.names))
    channel = weights.about.get("channel", "none") if config.channel == "trained" else config.channel
    which = config.image_pattern, "", "", False, "", None if channel == "none" else channel
    refuse_inside(Path(config.output), Path(wanted(config, "data_path")))
    cases = listing.find(find_cases, config.data_path, *which)
    labels = taken_for_labels(config.data_path, config.image_pattern)
    if labels:
        print(labels_in_words(labels))
    output_of = {case.name: Path(config.output) / f"{stem_of(case.name)}" for case in cases}
    if len(set(output_of.values())) < len(cases):
        raise UserError(f"{config.data_path} has images whose names differ in their ending only; choose with --image_pattern.")
    device, dtype = machine(config)
    maps = [of.with_name(of.name + ending) for of in output_of.values() for ending in MAP_ENDINGS]
    note(weights, config, config.data_path, dtype, maps, channel)
    left = [case for case in cases if config.overwrite or not written(output_of[case.name])]
    if len(left) < len(cases):
        print(f"{len(cases) - len(left)} of {len(cases)} are there already; --overwrite makes them again.")
    model.to(device).eval()
    loader = once_loader(WholeCases(left, tuple(weights.about["image_size"])), collate_whole, 1, config.workers)
    for batch in tqdm(loader, "segmenting", unit="volume"):
        with torch.no_grad(), autocast(dtype, device):
            parts = model.segment(whole_view(to_device(batch, device), weights.about["normalise"], torch.float32))
            classes = [taken_back(logits.float(), batch["placement"]).argmax(1).to(torch.uint8) for logits in parts]
        case = batch["case"]
        stored = label_map.stored_of(torch.cat(classes).movedim(0, 2).cpu().numpy())
        write_prediction(output_of[case.name], case, read_scan(case), stored)
    print(f"wrote {counted(len(left), 'new label map')} to {config.output}; {len(cases) - len(left)} were there.")


def classify(weights: DownstreamWeights, config: PredictionConfig, listing: Listing) -> None:
    """A row for each file: its class, and the probability of each."""
    model, shown = load_classifier(weights), Shown(**weights.about["shown"])
    classes = weights.about["classes"]
    print(network_in_words(weights, classes))
    what = (find_volumes, "data_path") if shown.what == "volumes" else (find_images, "image_path")
    items = listing.find(what[0], wanted(config, what[1]), SPLITS)
    device, dtype = machine(config)
    note(weights, config, getattr(config, what[1]), dtype, [Path(config.output) / TABLE])
    model.to(device)

    def rows():
        for batch in tqdm(shown.judged_on(items, config.batch_size, config.workers), "classifying", unit="batch"):
            with torch.no_grad(), autocast(dtype, device):
                shares = model(*shown.plain(to_device(batch, device), torch.float32)).double().softmax(1).cpu()
            for index, of in zip(batch["index"].tolist(), shares):
                yield [items[index].name, classes[of.argmax()], *(f"{share:.6f}" for share in of)]

    write_predictions(config, ["path", "class", *(f"p({name})" for name in classes)], rows())


def detect(weights: DownstreamWeights, config: PredictionConfig, listing: Listing) -> None:
    """A row for each box that is found, in pixels of the picture, best first within a picture."""
    model, about = rebuilt(weights), weights.about
    print(network_in_words(weights, about["findings"]))
    pictures = BoxDataset(
        listing.find(unboxed, wanted(config, "image_path"), config.on_bad_file == "skip"), about["findings"], about["side"],
        whole_range=about["normalise"] == "imagenet",
    )  # fmt: skip
    device, dtype = machine(config)
    note(weights, config, config.image_path, dtype, [Path(config.output) / TABLE])
    model.to(device)

    def rows():
        for batch in tqdm(once_loader(pictures, collate_boxes, config.batch_size, config.workers), "detecting", unit="batch"):
            with torch.no_grad(), autocast(dtype, device):
                found = model(detector_images(to_device(batch, device), about["normalise"], torch.float32))
            for index, of in zip(batch["on_host"]["index"].tolist(), found):
                boxes = pictures.place(index).back(of["boxes"].double().cpu()).tolist()
                for (left, top, right, bottom), label, score in zip(boxes, of["labels"].tolist(), of["scores"].tolist()):
                    place = [f"{side:.2f}" for side in (left, top, right - left, bottom - top)]
                    yield [pictures.items[index].name, about["findings"][label - 1], f"{score:.4f}", *place]

    write_predictions(config, ["path", "finding", "score", *"xywh"], rows())


def network_in_words(weights: DownstreamWeights, names: Sequence[str]) -> str:
    """Which network this is. names: of what it tells apart."""
    return f"{weights.path}: {weights.task} of {', '.join(map(str, names))}."


def wanted(config: PredictionConfig, flag: str) -> str:
    """The folder that the network needs. Raises `UserError` where another kind is named, or none."""
    other = {"data_path": "image_path", "image_path": "data_path"}[flag]
    if getattr(config, other) or not getattr(config, flag):
        kind = "volumes" if flag == "data_path" else "pictures"
        raise UserError(f"{config.weights} is a network for {kind}; name their folder with --{flag}, and no other.")
    return getattr(config, flag)


def note(
    weights: DownstreamWeights, config: PredictionConfig, data: str, dtype: torch.dtype, targets: Sequence[Path], channel=None
) -> None:
    """Notes what makes the predictions. Raises `UserError` where others are in their place, unless they are overwritten."""
    about = {"weights": str(weights.path), "sha256": sha256(weights.path), "data": str(Path(data).resolve())}
    about |= {"channel": channel, "precision": str(dtype).removeprefix("torch.")}
    take_folder(Path(config.output), about, targets, config.overwrite)


def written(stem: Path) -> bool:
    return any(stem.with_name(stem.name + ending).exists() for ending in MAP_ENDINGS)


def write_predictions(config: PredictionConfig, columns: list[str], rows) -> None:
    """The table appears under its name when it is whole."""
    path, count = Path(config.output) / TABLE, itertools.count()
    write_rows(path, columns, (row for row, _ in zip(rows, count)))
    print(f"wrote {path} ({counted(next(count), 'row')})")


def machine(config: PredictionConfig) -> tuple[torch.device, torch.dtype]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return device, computing_dtype(config.precision, device)


if __name__ == "__main__":
    with speaking_to_people():
        main(parse(PredictionConfig))
