"""What libraries alone reach from random weights with the same files and steps: the floor under finetune_segmentation.py.

segmentation-models-pytorch's U-Net and losses, torchvision's transforms, torch's AdamW in one plain loop. Only the files, the
subjects and splits, the plane and the scores are this repository's, so that the two can be compared volume by volume.

Run      python benchmarks/plain_unet.py --data_path LABELLED/ACDC --image_size 160 160 --crop_size 96 96 --steps 650
Writes   <output>/seed-<n>/cases.csv and results.json, as finetune_segmentation.py does; finished seeds are not run again
"""

import math
import sys
import time
from dataclasses import dataclass
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

from datasets.cases import Case, deal_splits, find_cases
from datasets.label_map import LabelMap
from datasets.plane import Placement, placed, placed_labels, placement, taken_back
from datasets.scans import read_label, read_scan
from datasets.subject_splits import drawn_subjects
from engine.bootstrap import Estimate, known_mean, mean_of_cases
from engine.errors import UserError, speaking_to_people
from engine.segmentation_report import CaseScores, write_report
from engine.segmentation_scores import score_volume
from engine.segmented_cases import dice_by_case, dice_difference

TOLERANCE = 2.0  # of surface Dice


@dataclass(kw_only=True)
class Flags:
    data_path: str  # labelled volumes
    labelled: int = 0  # subjects to learn from (0 = all)
    seeds: tuple[int, ...] = (0, 1, 2)
    arch: str = "resnet18"
    image_size: tuple[int, int] = (96, 96)
    crop_size: tuple[int, int] | None = None  # of the part that a step sees (None = all)
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
    cases = deal_splits(find_cases(flags.data_path))
    train, judged = ([case for case in cases if case.split == name] for name in ("train", flags.evaluate))
    if not judged:
        raise UserError(
            f"{flags.data_path} has no {flags.evaluate} volumes; give a folder or table with some, or another --evaluate."
        )
    classes = LabelMap.found_in(train, (), False)
    for seed in flags.seeds:
        folder = Path(flags.output) / f"seed-{seed}"
        if not (folder / "results.json").exists():
            model = learned(flags, drawn_subjects(train, flags.labelled, seed), classes, seed)
            write_report(folder, [score(model, case, classes, flags, seed) for case in judged], classes.names, TOLERANCE)
    own = dice_by_case([Path(flags.output) / f"seed-{seed}" / "cases.csv" for seed in flags.seeds])
    subjects, values = zip(*own.values())
    values = np.array(values)
    seeds = " / ".join(f"{mean:.3f}" for mean in known_mean(values, axis=0))
    print(f"{flags.evaluate} Dice {told(mean_of_cases(known_mean(values, axis=1), subjects))}, seeds {seeds}")
    if flags.against:
        theirs = dice_by_case([Path(flags.against) / f"seed-{seed}" / "cases.csv" for seed in flags.seeds], flags.evaluate)
        print(f"{flags.against} - this: {told(dice_difference(theirs, own))}")


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
        v2.RandomCrop(flags.crop_size or flags.image_size),
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
    pixels = np.moveaxis(np.asarray(read_scan(case).pixels, np.float32), 2, 0)
    low, high = map(float, np.percentile(pixels, [0.5, 99.5]))
    pixels = np.clip((pixels - low) / (high - low), 0, 1)
    place = placement(pixels.shape[1:], size)
    return Pixels(placed(torch.from_numpy(pixels), place, 0), float(pixels.mean()), float(pixels.std()), place)


def labels_of(case: Case, classes: LabelMap, place: Placement) -> torch.Tensor:
    return placed_labels(torch.from_numpy(np.moveaxis(read_label(case, classes), 2, 0).copy()), place)


def told(found: Estimate) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


if __name__ == "__main__":
    with speaking_to_people():
        main(tyro.cli(Flags, description=__doc__, use_underscores=True))
