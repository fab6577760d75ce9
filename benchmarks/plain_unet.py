"""What libraries alone reach from random weights with the same files and steps: the floor under finetune_segmentation.py.

segmentation-models-pytorch's U-Net and losses, torchvision's transforms, torch's AdamW in one plain loop. Only how
files are read, the subjects and splits, the plane and the scores are this repository's, so that the two can be compared volume
by volume.

Run      python benchmarks/plain_unet.py --data_path LABELLED/ACDC --image_size 160 160 --crop_size 96 96 --steps 650
Writes   <output>/seed-<n>/cases.csv and results.json, as finetune_segmentation.py does, and asked.json, which says of what;
         finished seeds are not run again, and refused where they were asked for something else
"""

import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import tyro
from torchvision import tv_tensors
from torchvision.transforms import v2
from tqdm import trange

from benchmarks.finished import begin, finished, mean_and_seeds, told
from datasets.cases import Case, deal_splits, find_cases
from datasets.label_map import LabelMap
from datasets.plane import Placement, placed_labels, taken_back
from datasets.scans import read_label, read_scan
from datasets.segmentation import WholeCases
from datasets.subject_splits import drawn_subjects
from engine.errors import UserError, speaking_to_people
from engine.finetuning import refuse_larger, refuse_one_value
from engine.segmentation_report import CaseScores, write_report
from engine.segmentation_scores import score_volume
from engine.segmented_cases import Cases, dice_by_case, dice_difference
from engine.values import STRIDE, refuse_impossible

TOLERANCE = 2.0  # of surface Dice


@dataclass(kw_only=True)
class Flags:
    data_path: str  # labelled volumes
    labelled: int = 0  # subjects to learn from (0 = all)
    seeds: tuple[int, ...] = (0, 1, 2)
    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet18"  # those of finetune_segmentation.py
    image_size: tuple[int, int] = (96, 96)
    crop_size: tuple[int, int] | Literal["all"] = "all"  # of the part that a step sees
    batch_size: int = 8
    steps: int = 650
    base_lr: float = 1e-3
    evaluate: Literal["valid", "test"] = "valid"
    output: str = "runs/plain_unet"
    against: str = ""  # folder with seed-*/cases.csv of finetune_segmentation.py: the difference, volume by volume


class Pixels(NamedTuple):
    """A volume in the plane: images (C, h, w) in [0, 1]; their mean and deviation in the volume."""

    images: torch.Tensor
    mean: float
    deviation: float
    place: Placement


def main(flags: Flags) -> None:
    refuse_unfit(flags)
    cases = deal_splits(find_cases(flags.data_path))
    train, judged = ([case for case in cases if case.split == name] for name in ("train", flags.evaluate))
    if not judged:
        raise UserError(
            f"{flags.data_path} has no {flags.evaluate} volumes; give a folder or table with some, or another --evaluate."
        )
    classes = LabelMap.found_in(train, (), False)
    classes.refuse_unmapped(judged)
    theirs = scores_of_others(flags, judged) if flags.against else {}
    folders = {seed: Path(flags.output) / f"seed-{seed}" for seed in flags.seeds}
    todo = [seed for seed, folder in folders.items() if not finished(folder, asked_of(flags))]
    for seed in todo:
        drawn = drawn_subjects(train, flags.labelled, seed)
        begin(folders[seed], asked_of(flags))
        model = learned(flags, drawn, classes, seed)
        scores = [score(model, case, classes, flags, seed) for case in judged]
        write_report(folders[seed], scores, classes.names, TOLERANCE)
    own = dice_by_case([folder / "cases.csv" for folder in folders.values()], flags.evaluate)
    mean, seeds = mean_and_seeds(own)
    print(f"{flags.evaluate} Dice {mean}, seeds {seeds}")
    if flags.against:
        print(f"{flags.against} - this: {told(dice_difference(theirs, own))}")


def refuse_unfit(flags: Flags) -> None:
    """Raises `UserError` for flags by which nothing can be learned."""
    refuse_impossible(flags)
    if not flags.seeds:
        raise UserError("--seeds is without a value; give one at least.")
    crop = crop_of(flags)
    for name, size in (("image_size", flags.image_size), ("crop_size", crop)):
        if any(side < STRIDE or side % STRIDE for side in size):
            raise UserError(f"--{name} is {size[0]} {size[1]}; its sides must be multiples of {STRIDE}.")
    refuse_larger(crop, flags.image_size)
    refuse_one_value(flags.batch_size, crop, "slice", "--image_size" if flags.crop_size == "all" else "--crop_size")


def crop_of(flags: Flags) -> tuple[int, int]:
    return flags.image_size if flags.crop_size == "all" else flags.crop_size


def asked_of(flags: Flags) -> dict:
    """What the scores of a seed are of."""
    asked = {name: value for name, value in asdict(flags).items() if name not in ("seeds", "output", "against")}
    return asked | {"data_path": str(Path(flags.data_path).resolve())}


def scores_of_others(flags: Flags, judged: list[Case]) -> Cases:
    """Those in the folder `--against`. Raises `UserError` when there are none of the volumes that are judged here."""
    tables = [Path(flags.against) / f"seed-{seed}" / "cases.csv" for seed in flags.seeds]
    for path in tables:
        try:
            names = dice_by_case([path], flags.evaluate).keys()
        except (OSError, KeyError, ValueError):
            raise UserError(
                f"--against: {path} cannot be read as scores; give a folder with seed-<n>/cases.csv of each of --seeds."
            ) from None
        if names != {case.name for case in judged}:
            said = f"{path} has other {flags.evaluate} volumes than {flags.data_path}"
            raise UserError(f"--against: {said}; give a folder that was judged on the same.")
    return dice_by_case(tables, flags.evaluate)


def learned(flags: Flags, cases: list[Case], classes: LabelMap, seed: int) -> torch.nn.Module:
    """A network that saw `steps` batches of slices drawn evenly, half of the chance for those without foreground."""
    torch.manual_seed(seed)
    volumes = [read(case, flags.image_size) for case in cases]
    images = torch.cat([volume.images for volume in volumes])
    mean, deviation = (
        torch.cat([torch.full((len(volume.images),), value) for volume, value in zip(volumes, of)])[:, None, None, None]
        for of in ([volume.mean for volume in volumes], [volume.deviation for volume in volumes])
    )
    labels = torch.cat([labels_of(case, classes, volume.place) for case, volume in zip(cases, volumes)])
    chances = torch.where((labels > 0).flatten(1).any(1), 1.0, 0.5)

    model = smp.Unet(flags.arch, encoder_weights=None, in_channels=1, classes=len(classes.names) + 1)
    optimizer = torch.optim.AdamW(model.parameters(), flags.base_lr)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, flags.steps))
    overlap = smp.losses.DiceLoss("multiclass", classes=list(range(1, len(classes.names) + 1)))
    view = v2.Compose([
        v2.RandomAffine(20, translate=(0.1, 0.1), scale=(0.75, 1.33), interpolation=v2.InterpolationMode.BILINEAR),
        v2.RandomCrop(crop_of(flags)),
        v2.ColorJitter(brightness=0.2, contrast=0.2),
    ])  # fmt: skip
    started = time.process_time()
    for _ in trange(flags.steps, desc=f"seed {seed}", unit="step"):
        chosen = torch.multinomial(chances, flags.batch_size)
        pairs = [view(tv_tensors.Image(images[i][None]), tv_tensors.Mask(labels[i])) for i in chosen]
        pixels, truth = torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs]).long()
        logits = model((pixels - mean[chosen]) / deviation[chosen])
        optimizer.zero_grad()
        (F.cross_entropy(logits, truth) + overlap(logits, truth)).backward()
        optimizer.step()
        rate.step()
    print(f"seed {seed}: {time.process_time() - started:.0f} s of the processor, {torch.get_num_threads()} threads")
    return model.eval()


def factor(step: int, steps: int) -> float:
    """Of the rate: a linear start of 25 steps, then a cosine to 0."""
    return min(1, (step + 1) / 25) * (1 + math.cos(math.pi * step / steps)) / 2


@torch.inference_mode()
def score(model: torch.nn.Module, case: Case, classes: LabelMap, flags: Flags, seed: int) -> CaseScores:
    volume = read(case, flags.image_size)
    pixels = ((volume.images - volume.mean) / volume.deviation)[:, None]
    logits = torch.cat([model(part) for part in pixels.split(16)])
    found = taken_back(logits, volume.place).argmax(1).to(torch.uint8).movedim(0, 2).numpy()
    rows = score_volume(found, read_label(case, classes), len(classes.names), read_scan(case).spacing, TOLERANCE)
    return CaseScores(seed, case.name, case.subject, flags.evaluate, rows)


def read(case: Case, size: tuple[int, int]) -> Pixels:
    """As finetune_segmentation.py does, whose figures this one's are compared with."""
    of = WholeCases([case], size)[0, 0]
    images = (of["slices"].float() - of["low"]) / (of["high"] - of["low"])
    return Pixels(images.clamp(0, 1), of["mean"], of["deviation"], of["placement"])


def labels_of(case: Case, classes: LabelMap, place: Placement) -> torch.Tensor:
    return placed_labels(torch.from_numpy(np.moveaxis(read_label(case, classes), 2, 0).copy()), place)


if __name__ == "__main__":
    with speaking_to_people():
        main(tyro.cli(Flags, description=__doc__, use_underscores=True))
