"""Finds findings in radiographs: Faster R-CNN with a feature pyramid on f_intra, learned from pictures with boxes.

L = objectness and box of the proposals + class and box of what is found in them (Ren et al. 2015; torchvision's losses)
The ResNet is that of any pre-training stage, published, VISSL's, torchvision's or timm's, or random. A picture's longer side
becomes `side` pixels. What is found is scored by COCO's rules: mAP at an overlap of 0.5, and at 0.5 to 0.95.

Reads    <data_path>/**/*.png and its table of boxes: CSV file,x,y,w,h,finding[,split][,subject], COCO's JSON, or VinDr-CXR's
Writes   weights/detection.pth; in runs/finetune_detection results.json, cases.csv, COCO's truth and found, a sheet
Run      python finetune_detection.py --data_path radiographs --start_from resnet_swav2D.pth
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.box_dataset import BoxDataset, collate_boxes, detector_images, targets_of
from datasets.boxes import find_boxed, findings_of, missing_findings
from datasets.files import subject_of
from datasets.loader import epoch_loader, once_loader
from datasets.subject_splits import splits_in_words
from engine.config import FinetuneConfig
from engine.detection_results import Judged, gathered, write_cases, write_mean, write_results
from engine.detection_scores import Boxes, detection_scores
from engine.errors import UserError
from engine.finetuning import Best, judged_splits, refuse_empty, runs_of
from engine.processes import of_first
from engine.run import Run, launch, start
from models.detector import BACKBONE, Detector, make_detector

SPLIT_NAMES = ("train", "valid", "test")


@dataclass(kw_only=True)
class DetectionConfig(FinetuneConfig):
    preset: Literal["default", "vindr"] = "default"  # vindr = VinDr-CXR: its tables, 14 findings, 18,000 radiographs
    checkpoint_name: str = "detection.pth"  # the weight file that this script writes, inside pretrained_path
    # what it starts from
    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"  # of random weights; others bring their own
    normalise: Literal["", "robust", "none", "imagenet"] = ""  # intensities ("" = as the weights were trained, else robust)
    tune: Literal["full", "frozen"] = "full"  # all, or all but the ResNet; no linear: pyramid and heads are never one layer
    # what it learns from
    boxes: tuple[str, ...] = ("boxes.csv",)  # tables of boxes, inside data_path
    unnamed: Literal["unknown", "negative"] = "unknown"  # pictures that no table names: left out, or with nothing on them
    findings: tuple[str, ...] = ()  # those to find (none = all that the tables have)
    side: int = 512  # pixels that the longer side of a picture is brought to
    # augmentation
    scale_jitter: float = 0.2  # pictures are shown 1 ± this times as large, at a random place
    intensity_jitter: float = 0.2  # brightness and contrast are 1 ± this
    flip: bool = False  # mirror pictures left to right; never for chests, in which the side of the heart is a finding
    # detector
    proposals: int = 500  # of a picture, that the second stage learns from in a step (it judges twice as many)
    least_score: float = 0.05  # found boxes below it are dropped
    # optimisation
    epochs: int = 30  # passes over the training pictures
    batch_size: int = 4  # pictures a process
    base_lr: float = 1e-4  # highest learning rate
    wd: float = 1e-4  # weight decay


def main(config: DetectionConfig) -> None:
    folder = Path(config.dump_path or f"runs/{Path(__file__).stem}")
    results, judged = zip(*(learn(one) for one in runs_of(config, Path(__file__).stem)))
    if config.evaluate != "none":
        of_first(lambda: write_cases(folder, judged))
    if config.seeds:
        of_first(lambda: write_mean(folder, results))


def learn(config: DetectionConfig) -> tuple[dict, tuple[int, list[str], dict[str, Judged]]]:
    """One run: learns, keeps the weights that are best on valid, and judges them.

    Gives what is in its results.json, and for the table of all runs its seed, its findings and what it was judged on.
    """
    run = start(config, __file__)
    which = config.unnamed, config.findings, config.labelled, config.seed, config.on_bad_file == "skip"
    splits = run.find(find_boxed, config.data_path, config.boxes, *which)
    findings = findings_of(*splits)
    run.say(*(f"warning: {sentence}" for sentence in missing_findings(*splits)))
    weights = str(run.input(config.start_from)) if config.start_from else ""
    resnet = str(run.input(config.resnet_pretrained)) if config.resnet_pretrained else ""
    refuse_unusable(config, dict(zip(SPLIT_NAMES, splits)))
    how = weights, config.arch, config.normalise, len(findings), config.side, config.tune, config.least_score, config.proposals
    detector, about, said = make_detector(*how, config.sampling, resnet)
    run.say(*said)

    picture = findings, config.side, config.seed, about["normalise"] == "imagenet"
    learned = BoxDataset(splits[0], *picture, scale_jitter=config.scale_jitter, flip=config.flip)
    judged = {split: BoxDataset(items, *picture) for split, items in zip(SPLIT_NAMES[1:], splits[1:]) if items}
    loader = epoch_loader(
        learned, collate_boxes, config.batch_size, config.seed, config.workers, run.rank, run.world, what="pictures"
    )
    best = Best(detector)
    network = run.prepare(detector, loader, shares={BACKBONE: config.pretrained_rate if weights else 1.0}, best=best)
    run.say(*in_words(dict(zip(SPLIT_NAMES, splits)), findings))

    for epoch in run.epochs():
        for batch in run.batches(loader):
            images = detector_images(batch, about["normalise"], run.float_type, config.seed, config.intensity_jitter)
            run.show([images])
            losses = network(images, targets_of(batch, run.float_type))
            run.update(sum(losses.values()), {name.removeprefix("loss_"): loss for name, loss in losses.items()})
        if "valid" in judged and ((epoch + 1) % config.score_every == 0 or epoch + 1 == config.epochs):
            of = judge(run, detector, judged["valid"], about["normalise"], config)
            scores = of_first(lambda of=of: detection_scores(of.truth, of.found, findings))
            run.log(**{f"valid_{name}": scores[name] for name in ("map", "map50") if scores[name] is not None})
            best.offer(scores["map"] if scores["map"] is not None else float("nan"), epoch)

    if config.keep == "best":
        best.restore()
    shown = {split: judge(run, detector, judged[split], about["normalise"], config) for split in judged_splits(config.evaluate)}
    told = {"seed": config.seed, "started_from": config.start_from, "method": about["method"], "tune": config.tune}
    told |= {"kept": config.keep, "epoch": best.epoch + 1 if config.keep == "best" else config.epochs}
    told |= {"pictures": {split: len(items) for split, items in zip(SPLIT_NAMES, splits)}}
    pixels_of = lambda split, number: judged[split].pictures.read(number)[0]  # noqa: E731
    results = of_first(lambda: write_results(run.folder, shown, findings, told, pixels_of))
    run.finish("detection", about["method"], detector.state_dict(), more={**about, "findings": findings})
    return results, (config.seed, findings, shown)


def judge(run: Run, detector: Detector, pictures: BoxDataset, normalise: str, config: DetectionConfig) -> Judged:
    """What the detector finds in whole pictures, beside the truth. Collective: each process looks at its share."""
    found = {}
    loader = once_loader(pictures, collate_boxes, config.batch_size, config.workers, run.rank, run.world)
    for batch in run.evaluate(loader, what="judging"):
        of_batch = detector(detector_images(batch, normalise, run.float_type))
        for index, of in zip(batch["on_host"]["index"].tolist(), of_batch):
            boxes = pictures.place(index).back(of["boxes"].double().cpu())
            found[index] = Boxes(boxes.numpy(), of["labels"].cpu().numpy(), of["scores"].double().cpu().numpy())
    items = pictures.items
    truth = [Boxes(*pictures.truth(index)) for index in range(len(items))]
    told = [item.name for item in items], [subject_of(item) for item in items], [item.size for item in items]
    return Judged(*told, truth, gathered(found))


def refuse_unusable(config: DetectionConfig, splits: dict[str, list]) -> None:
    """Raises `UserError` for what the constants ask for and the data or the weights do not give."""
    if config.tune == "frozen" and not config.start_from:
        raise UserError("--tune frozen leaves a random ResNet as it is; name pretrained weights with --start_from.")
    refuse_empty(splits, config.evaluate)
    if config.keep == "best" and not any(picture.boxes for picture in splits["valid"]):
        raise UserError("--keep best needs boxes in the split valid, of which there are none; use --keep last.")


def in_words(splits: dict[str, list], findings: list[str]) -> tuple[str, str]:
    boxes = [f"{sum(len(picture.boxes) for picture in of)} in {name}" for name, of in splits.items()]
    return splits_in_words(splits["train"], splits, "picture"), f"boxes: {', '.join(boxes)}; findings: {', '.join(findings)}."


if __name__ == "__main__":
    launch(DetectionConfig, main)
