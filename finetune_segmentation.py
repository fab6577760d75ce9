"""Downstream: a U-Net on slices, whose encoder is f_intra, segments volumes; it is judged by the volume, in its own geometry.

Cross-entropy + soft Dice. With --context the deepest maps of a slice also get what f_inter makes of it among its neighbours.
The few-label setting (--labelled 2) learns from so many subjects, drawn by the seed; --seeds repeats the whole with others.

Reads    pairs of images and labels: folders, patterns or a table (docs/downstream.md); pretrained weights of any stage, or none
Writes   weights/segmentation.pth; runs/finetune_segmentation/: results.json, cases.csv, best_median_worst_*.png
Run      torchrun --nproc_per_node=2 finetune_segmentation.py --data_path LABELLED --start_from swav3D.pth --context
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from datasets.cases import Case, deal_splits, find_cases
from datasets.label_map import LabelMap
from datasets.loader import endless_loader, once_loader
from datasets.plane import size_for, taken_back
from datasets.scans import read_label, read_scan, scan_shape
from datasets.segmentation import ScatteredSlices, WholeCases, collate_scattered, collate_whole, refuse_unreadable
from datasets.segmentation_views import labelled_view, whole_view
from datasets.subject_splits import drawn_subjects, splits_in_words
from engine.config import FinetuneConfig
from engine.finetuning import Best, judged_splits, refuse_empty, refuse_larger, refuse_one_value, runs_of
from engine.pictures import fullest_slice, outlines
from engine.processes import autocast, gather_lists, of_first
from engine.results import forget_other_splits
from engine.run import Run, launch, start
from engine.segmentation_report import CaseScores, best_median_worst, show, write_report
from engine.segmentation_scores import mean_dice, score_volume
from engine.showing import SHOWN, beside_each_other, outlined
from losses.segmentation import cross_entropy_and_dice
from models.frozen import shown_to
from models.starts import network_constants, starting_encoders
from models.unet import PRETRAINED, STRIDE, SliceUNet


@dataclass(kw_only=True)
class SegmentationConfig(FinetuneConfig):
    # files, classes, splits
    preset: Literal["default", "acdc", "brats", "la2018", "mmwhs_ct", "mmwhs_mr", "msd", "msd_brats"] = "default"
    checkpoint_name: str = "segmentation.pth"  # the weight file that this script writes, inside pretrained_path
    # what is segmented
    image_pattern: str = ""  # names of images, such as *_image.nii.gz ("" = found out, docs/downstream.md)
    label_pattern: str = ""  # of their labels, * being the same
    subject_pattern: str = ""  # regular expression whose group is the subject in a name ("" = found out)
    channel: int | Literal["none"] = "none"  # which one is seen of images with several, along a fourth axis; the first is 0
    manifest: str = ""  # table image,label[,subject][,split] instead ("" = cases.csv in data_path, where there is one)
    classes: tuple[str, ...] = ()  # stored values, one a class; 1+2+4 makes one class of three (none = all that occur)
    class_names: tuple[str, ...] = ()  # in the same order (none = the values)
    other_labels: Literal["refuse", "background"] = "refuse"  # what values are that no class has
    valid_cases: tuple[str, ...] = ()  # parts of names of those that validate (none = by folder or table, or 10 % of subjects)
    test_cases: tuple[str, ...] = ()  # likewise of those that test (20 %)
    # network
    d_model: int = 640  # D, where no file tells
    context: bool = False  # f_inter tells the decoder what a slice is in its volume
    image_size: tuple[int, int] | Literal["auto"] = "auto"  # of the network's plane; auto = the largest slice's, up to 256
    crop_size: tuple[int, int] | Literal["all"] = "all"  # of the part of that plane that a step sees; judged is all of it
    # intensities ("" = as start_from was trained, else robust; volume: each volume's own mean and deviation)
    normalise: Literal["", "robust", "volume", "none", "imagenet"] = ""
    # learning
    batch_size: int = 16  # slices a process
    slices_per_volume: int | Literal["auto"] = "auto"  # of one volume in a step; auto = 1, with --context 2
    filled_share: float = 0.67  # chance of a slice to be one with foreground; the others are any
    epochs: int = 40  # of `epoch_steps` each
    epoch_steps: int = 25  # steps an epoch: files are too few to count passes over them
    dice_weight: float = 1.0  # of the soft Dice beside the cross-entropy
    surface_tolerance: float = 2.0  # surface Dice: a distance that is no error, in mm (voxels where the file knows no mm)


def main(config: SegmentationConfig) -> None:
    runs = [train_and_judge(one) for one in runs_of(config, "finetune_segmentation")]
    scores = [score for of_run, _ in runs for score in of_run]
    if scores:
        folder, names = Path(config.dump_path or "runs/finetune_segmentation"), runs[0][1]
        show(write_report(folder, scores, names, config.surface_tolerance))


def train_and_judge(config: SegmentationConfig) -> tuple[list[CaseScores], tuple[str, ...]]:
    """One run → on the first process the scores of all judged cases, on the others none; and the names of the classes."""
    run = start(config, __file__)
    split, label_map = labelled_cases(config, run)
    learned = drawn_subjects(split["train"], config.labelled, config.seed)
    run.say(splits_in_words(learned, split, "volume"))

    path, resnet = (run.input(name) if name else "" for name in (config.start_from, config.resnet_pretrained))
    made_of = config.arch, config.d_model, config.context, config.sampling
    encoders, said = starting_encoders(path, *made_of, resnet, config.seed)
    run.say(*said)
    normalise = config.normalise or shown_to(encoders).normalise
    model = SliceUNet(encoders.slice_encoder, label_map.count, encoders.volume_encoder, config.tune)

    size = config.image_size
    if size == "auto":
        size = size_for([scan_shape(case)[:2] for case in learned], STRIDE, most=256)
    crop = size if config.crop_size == "all" else config.crop_size
    refuse_larger(crop, size)
    count = slices_of_one_volume(config)
    fewest = config.batch_size // count * min(count, *(scan_shape(case)[2] for case in learned))  # slices of a step
    refuse_one_value(fewest, crop, "slice", "--image_size" if config.crop_size == "all" else "--crop_size")
    slices = ScatteredSlices(learned, label_map, size, count, config.filled_share, config.seed)
    slices.hold(quiet=run.rank > 0, processes=run.world)
    dealt = {"rank": run.rank, "world": run.world, "workers": config.workers}
    loader = endless_loader(slices, collate_scattered, config.batch_size // count, config.epoch_steps, config.seed, **dealt)
    best = Best(model)
    network = run.prepare(model, loader, shares=dict.fromkeys(PRETRAINED, config.pretrained_rate) if path else {}, best=best)

    def segmented(cases: list[Case], what: str = ""):
        """Each of this process's share of the cases, its spacing, and its class numbers (H, W, C)."""
        for batch in run.evaluate(once_loader(WholeCases(cases, size), collate_whole, 1, **dealt), what=what):
            with autocast(run.dtype, run.device):
                parts = model.segment(whole_view(batch, normalise, run.float_type))
                classes = [taken_back(logits.float(), batch["placement"]).argmax(1).to(torch.uint8) for logits in parts]
            yield batch["case"], batch["spacing"], torch.cat(classes).movedim(0, 2).cpu().numpy()

    def dice(cases: list[Case]) -> float:
        """The mean over cases of the mean Dice of their classes; the first cases are shown."""
        own, pictures = [], []
        for case, _, of in segmented(cases):
            truth = read_label(case, label_map)
            own.append(mean_dice(of, truth, len(label_map.values)))
            if run.rank == 0 and len(pictures) < SHOWN:
                number = fullest_slice(truth, of)
                pictures.append(outlined(*(one[:, :, number] for one in (read_scan(case).pixels, truth, of))))
        if pictures:
            run.picture("validation", beside_each_other(pictures))
        return float(np.nanmean(gather_lists(own)))

    def judged(cases: list[Case], name: str) -> list[CaseScores]:
        own = []
        for case, spacing, found in segmented(cases, f"judging {name}"):
            how = len(label_map.values), spacing, config.surface_tolerance
            scores = score_volume(found, read_label(case, label_map), *how)
            own.append(CaseScores(config.seed, case.name, case.subject, name, scores))
        return gather_lists(own)

    def draw(scores: list[CaseScores], cases: list[Case], path: Path) -> None:
        """The best, the median and the worst case, truth beside prediction."""
        chosen = {of.case: f"{what}: {of.case}, Dice {of.dice:.3f}" for what, of in best_median_worst(scores).items()}
        shown = gather_lists([(case, of) for case, _, of in segmented([case for case in cases if case.name in chosen])])
        if run.rank == 0 and shown:
            of_file = {case.name: (read_scan(case).pixels, read_label(case, label_map), of) for case, of in shown}
            panels = {title: of_file[name] for name, title in chosen.items()}
            outlines(path, panels, f"Best, median and worst {scores[0].split} case", label_map.names)

    for epoch in run.epochs():
        for batch in run.batches(loader):
            pixels, labels, real = labelled_view(batch, config.seed, normalise, run.float_type, crop)
            entropy, overlap = cross_entropy_and_dice(network(pixels, real), labels[real.to(run.device)])
            run.update(entropy + config.dice_weight * overlap, {"entropy": entropy, "dice_loss": overlap})
        if split["valid"] and ((epoch + 1) % config.score_every == 0 or epoch + 1 == config.epochs):
            score = dice(split["valid"])
            run.log(valid_dice=score)
            best.offer(score, epoch)
    if config.keep == "best":
        best.restore()
    scores = []
    for name in judged_splits(config.evaluate):
        of_split = judged(split[name], name)
        draw(of_split, split[name], run.folder / f"best_median_worst_{name}.png")
        scores += of_split
    if scores:
        of_first(lambda: forget_other_splits(run.folder, judged_splits(config.evaluate)))
    about = {"classes": list(label_map.words), "class_names": list(label_map.names), "image_size": list(size)}
    about |= {"normalise": normalise, "network": network_constants(encoders), "tune": config.tune}
    about |= {"channel": config.channel, "best_epoch": best.kept_epoch(config.keep, config.epochs)}
    run.finish("segmentation", "unet", model.state_dict(), more=about)
    return scores if run.rank == 0 else [], label_map.names


def labelled_cases(config: SegmentationConfig, run: Run) -> tuple[dict[str, list[Case]], LabelMap]:
    """The cases of each split, and which values make which class; what is wrong is said before anything is learned."""
    split = dealt(config, run.find(find_cases, *where_cases_are(config)))
    if config.keep == "best" and not split["valid"]:
        run.say("warning: the validation split is empty: the weights of the last epoch are kept, best or not.")
    others = config.other_labels == "background"
    if config.classes:
        label_map = LabelMap.from_words(config.classes, config.class_names, others)
        label_map.refuse_absent(split["train"])
    else:
        label_map = LabelMap.found_in(split["train"], config.class_names, others)
    to_be_judged = [case for name in dict.fromkeys(("valid", *judged_splits(config.evaluate))) for case in split[name]]
    of_first(lambda: label_map.refuse_unmapped(to_be_judged))
    of_first(lambda: refuse_unreadable(to_be_judged))
    return split, label_map


def where_cases_are(config: SegmentationConfig) -> tuple:
    """What `find_cases` is asked for."""
    patterns = config.image_pattern, config.label_pattern, config.subject_pattern
    return config.data_path, *patterns, True, config.manifest, None if config.channel == "none" else config.channel


def dealt(config: SegmentationConfig, found: list[Case]) -> dict[str, list[Case]]:
    """The cases of each split. Raises `UserError` where nothing is to be learned from, or judged."""
    cases = deal_splits(found, config.valid_cases, config.test_cases)
    split = {name: [case for case in cases if case.split == name] for name in ("train", "valid", "test")}
    refuse_empty(split, config.evaluate)
    return split


def slices_of_one_volume(config: SegmentationConfig) -> int:
    """How many of a step's slices are of one volume: with context two, since more are fewer volumes, which costs more."""
    if config.slices_per_volume != "auto":
        return config.slices_per_volume
    return min(2, config.batch_size) if config.context else 1


if __name__ == "__main__":
    launch(SegmentationConfig, main)
