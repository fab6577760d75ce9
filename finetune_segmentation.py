"""Downstream: a U-Net on slices, whose encoder is f_intra, segments volumes; it is judged volume by volume, in their own geometry.

Cross-entropy + soft Dice. With --context the deepest maps of a slice also get what f_inter makes of it among its neighbours. The
few-label setting (--labelled 2) learns from so many subjects, drawn by the seed; --seeds repeats the whole with others.

Reads    pairs of images and labels: folders, patterns or a table (docs/downstream.md), pretrained weights of any stage or none
Writes   weights/segmentation.pth; in runs/finetune_segmentation/: results.json, cases.csv, best_median_worst.png
Run      torchrun --nproc_per_node=2 finetune_segmentation.py --data_path LABELLED --start_from swav3D.pth --context
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from datasets.cases import Case, chosen_subjects, deal_splits, find_cases
from datasets.label_map import LabelMap
from datasets.loader import endless_loader, once_loader
from datasets.plane import size_for, taken_back
from datasets.scans import read_label, read_scan
from datasets.segmentation import SliceWindows, WholeCases, collate_whole, collate_windows
from datasets.segmentation_views import labelled_view, whole_view
from engine.config import FinetuneConfig
from engine.finetuning import Best, runs_of
from engine.processes import autocast, gather_objects
from engine.run import launch, start
from engine.segmentation_report import report
from engine.segmentation_scores import mean_dice, score_volume
from losses.segmentation import cross_entropy_and_dice
from models.starts import network_constants, starting_encoders
from models.unet import PRETRAINED, STRIDE, SliceUNet


@dataclass(kw_only=True)
class SegmentationConfig(FinetuneConfig):
    preset: Literal["default", "acdc", "brats", "la2018", "mmwhs_ct", "mmwhs_mr", "msd"] = "default"  # which files, classes, splits
    checkpoint_name: str = "segmentation.pth"  # the weight file that this script writes, inside pretrained_path
    # what is segmented
    image_pattern: str = ""  # names of images, such as *_image.nii.gz ("" = found out, see docs/downstream.md)
    label_pattern: str = ""  # of their labels, * being the same
    subject_pattern: str = ""  # regular expression whose group is the subject in a name ("" = found out)
    manifest: str = ""  # table image,label[,subject][,split] instead ("" = cases.csv in data_path, where there is one)
    classes: tuple[str, ...] = ()  # stored values, one for each class; 1+2+4 makes one class of three (none = all that occur)
    class_names: tuple[str, ...] = ()  # in the same order (none = the values)
    other_labels: Literal["refuse", "background"] = "refuse"  # what values are that no class has
    valid_cases: tuple[str, ...] = ()  # parts of the names of those that validate (none = by folder or table, else 10 % of subjects)
    test_cases: tuple[str, ...] = ()  # likewise of those that test (20 %)
    # network
    d_model: int = 640  # D, where no file tells
    context: bool = False  # f_inter tells the decoder what a slice is in its volume
    image_size: tuple[int, int] | Literal["auto"] = "auto"  # height, width of the network's plane; auto = the largest slice's, up to 256
    normalise: Literal["", "robust", "none", "imagenet"] = ""  # intensities ("" = as start_from was trained, else robust)
    # learning
    batch_size: int = 16  # slices a process
    window: int | Literal["auto"] = "auto"  # of which so many are neighbours, all that context sees; auto = 1, or 8 with --context
    filled_share: float = 0.67  # of the windows that lie about a slice with foreground; the others lie about any
    epochs: int = 40  # of `epoch_steps` each
    epoch_steps: int = 25  # steps an epoch: files are too few to count passes over them
    dice_weight: float = 1.0  # of the soft Dice beside the cross-entropy
    surface_tolerance: float = 2.0  # surface Dice: distance that is no error, in mm (voxels where the file knows no mm)


def main(config: SegmentationConfig) -> None:
    rows = [row for one in runs_of(config, "finetune_segmentation") for row in train_and_judge(one)]
    print(report(rows, config))


def train_and_judge(config: SegmentationConfig) -> list[dict]:
    """The rows of the judged cases of one run, on its first process; none on others."""
    run = start(config, __file__)
    patterns = config.image_pattern, config.label_pattern, config.subject_pattern
    found = run.find(find_cases, config.data_path, *patterns, True, config.manifest)
    cases = deal_splits(found, config.valid_cases, config.test_cases, config.seed)
    of_split = {split: [case for case in cases if case.split == split] for split in ("train", "valid", "test")}
    label_map = LabelMap.found_in(of_split["train"])
    if config.classes:
        label_map = LabelMap.from_words(config.classes, config.class_names, config.other_labels == "background")
    chosen = chosen_subjects(of_split["train"], config.labelled, config.seed)

    path = run.input(config.start_from) if config.start_from else None
    resnet = run.input(config.resnet_pretrained) if config.resnet_pretrained else ""
    encoders, said = starting_encoders(
        path, config.arch, config.d_model, config.context, config.sampling, resnet, config.seed
    )
    run.say(*said)
    normalise = config.normalise or encoders.config.get("normalise", "robust")
    model = SliceUNet(encoders.slice_encoder, label_map.count, encoders.volume_encoder, config.tune)
    size = config.image_size
    if size == "auto":
        size = size_for([read_scan(case).pixels.shape[:2] for case in chosen], STRIDE, most=256)

    window = config.window if config.window != "auto" else 8 if config.context else 1
    windows = SliceWindows(chosen, label_map, size, window, config.filled_share, config.seed)
    windows.hold(quiet=run.rank > 0)
    dealt = {"rank": run.rank, "world": run.world, "workers": config.workers}
    loader = endless_loader(windows, collate_windows, config.batch_size // window, config.epoch_steps, config.seed, **dealt)
    best = Best(model)
    shares = dict.fromkeys(PRETRAINED, config.pretrained_rate) if path else {}
    network = run.prepare(model, loader, shares=shares, best=best)

    def segmented(cases: list[Case], what: str):
        """(case, class numbers (H, W, C)) of this process's share of the cases."""
        for batch in run.evaluate(once_loader(WholeCases(cases, size), collate_whole, 1, **dealt), what=what):
            with autocast(run.dtype, run.device):
                logits = model.segment(whole_view(batch, normalise, run.float_type))
            whole = taken_back(logits.float(), batch["placement"]).argmax(1)
            yield cases[batch["index"]], np.moveaxis(whole.cpu().numpy().astype(np.uint8), 0, 2)

    def valid_dice() -> float:
        scores = [mean_dice(map_, read_label(case, label_map), len(label_map.values)) for case, map_ in segmented(valid, "")]
        return float(np.nanmean([score for of_rank in gather_objects(scores) for score in of_rank]))

    valid = of_split["valid"]
    for epoch in run.epochs():
        for batch in run.batches(loader):
            pixels, labels, real = labelled_view(batch, config.seed, normalise, run.float_type)
            logits = network(pixels, real)
            entropy, dice = cross_entropy_and_dice(logits, labels[real.to(run.device)])
            run.update(entropy + config.dice_weight * dice, {"entropy": entropy, "dice_loss": dice})
        if valid and ((epoch + 1) % config.score_every == 0 or epoch + 1 == config.epochs):
            score = valid_dice()
            run.log(valid_dice=score)
            best.offer(score, epoch)
    if config.keep == "best":
        best.restore()
    more = {"classes": list(label_map.words), "class_names": list(label_map.names), "image_size": list(size), "normalise": normalise, "best_epoch": best.epoch}
    run.finish("segmentation", "unet", model.state_dict(), more=more | {"network": network_constants(encoders)})

    rows = []
    for split in {"both": ("valid", "test"), "none": ()}.get(config.evaluate, (config.evaluate,)):
        for case, map_ in segmented(of_split[split], f"judging {split}"):
            truth, spacing = read_label(case, label_map), read_scan(case).spacing
            about = {"seed": config.seed, "case": case.name, "subject": case.subject, "split": split}
            rows += [about | vars(row) for row in score_volume(map_, truth, len(label_map.values), spacing, config.surface_tolerance)]
    return [row for of_rank in gather_objects(rows) for row in of_rank]


if __name__ == "__main__":
    launch(SegmentationConfig, main)
