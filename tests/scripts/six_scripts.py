"""Runs all six scripts one after the other in float64, and saves what each rank ends with. `six_scripts.py DATA BATCH`."""

import importlib
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.config import parse
from engine.processes import leave_group

COMMON = "--arch resnet18 --precision fp64 --epochs 1 --warmup_epochs 0 --workers 0 --base_lr 1e-4".split()
VOLUMES = "--target_shape 8 24 24 --d_model 32 --dropout 0".split()
CROPS = {
    "swav": "--nmb_crops 2 1 --size_crops 24 16".split(),
    "deepcluster": "--nmb_crops 2 --size_crops 24".split(),
}


def script_flags(method: str, stage: str, data: Path, batch: str) -> list[str]:
    images, volumes = ["--data_path", str(data / "images")], ["--data_path", str(data / "volumes")]
    if stage == "2D":
        return [*images, *CROPS[method], "--nmb_prototypes", "3", "4", "--batch_size", batch]
    if stage == "mask":
        return [*volumes, *VOLUMES, "--batch_size", batch]
    prototypes = "--nmb_prototypes 2 3 --nmb_slice_prototypes 5".split()
    queues = "--queue_length 8 --slice_queue_length 16 --epoch_queue_starts 0".split() if method == "swav" else []
    beside = ["--image_path", str(data / "images"), "--image_batch_size", batch]
    return [*volumes, *VOLUMES, *beside, *prototypes, *queues, "--batch_size", batch]


def main(data: str, batch: str) -> None:
    rank = os.environ.get("RANK", "0")
    for method in ("swav", "deepcluster"):
        for stage, name in [("2D", f"ssl_{method}_2D"), ("mask", f"mask_{method}_3D"), ("3D", f"ssl_{method}_3D")]:
            script = importlib.import_module(name)
            config_class = next(v for k, v in vars(script).items() if k.endswith("Config") and v.__module__ == name)
            config = parse(config_class, [*COMMON, *script_flags(method, stage, Path(data), batch)])
            model = script.main(config, method) if stage == "mask" else script.main(config)
            torch.save(model.state_dict(), f"{name}-{rank}.pt")
    leave_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
