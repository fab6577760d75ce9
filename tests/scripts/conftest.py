"""Small data of our own making, and the six scripts run on one and on two processes, once for all tests of this folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]


def make_data(root: Path, volumes: int = 10, images: int = 12) -> None:
    """Two collections of volumes (depths 5 to 9, two types) and of images (four more are held out), with labels."""
    rng = np.random.default_rng(0)
    for number in range(volumes):
        collection = root / "volumes" / "ab"[number % 2]
        collection.mkdir(parents=True, exist_ok=True)
        rows, columns = np.mgrid[:28, :26]
        disc = np.hypot(rows - 14, columns - 13) < 5 + number
        noise = rng.integers(0, 40, (28, 26, 5 + number % 5))
        volume = disc[..., None] * 120 + noise
        np.save(collection / f"{number:02d}.npy", volume.astype([np.uint8, np.int16][number % 2]))
    names = [f"{'ab'[number % 2]}/{number:02d}" for number in range(max(volumes, images + 4))]
    for number in range(images + 4):
        path = root / "images" / ("train" if number < images else "valid") / f"{names[number]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 60, (30, 34)) + 100 * (np.mgrid[:30, :34][0] > number)
        Image.fromarray(picture.astype(np.uint8)).save(path)
    splits = ["valid" if number % 4 < 2 else "train" for number in range(volumes)]
    write_labels(root / "volumes", [f"{name}.npy,{i // 2 % 2},{split}" for i, (name, split) in enumerate(zip(names, splits))])
    splits = ["train"] * images + ["valid"] * 4
    write_labels(
        root / "images", [f"{split}/{name}.png,{i // 2 % 2},{split}" for i, (name, split) in enumerate(zip(names, splits))]
    )


def write_labels(root: Path, rows: list[str]) -> None:
    (root / "labels.csv").write_text("\n".join(["path,label,split", *rows]) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    return root


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    """`python words` in `cwd`; nothing is asserted."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, encoding="utf-8", timeout=900)


@pytest.fixture(scope="session")
def one_and_two(data, tmp_path_factory) -> tuple[Path, Path]:
    """Folders with what `six_scripts.py` left after runs on one process and on two, at the same global batch."""
    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    driver = Path(__file__).with_name("six_scripts.py")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for folder, words, share in [(folders[0], [], 4), (folders[1], launcher, 2)]:
        done = run(*words, driver, data, share, cwd=folder)
        assert done.returncode == 0, done.stderr[-3000:]
    return folders


def load(folder: Path, name: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{name}-{rank}.pt")


def report_figures(page: str) -> dict[tuple[str, str, str], float]:
    """The figures of a report by (folder of the script, figure, "first" or "last")."""
    found = re.findall(r'<data value="([^"]+)" data-figure="(\w+)/(\w+)/(first|last)">', page)
    return {(script, name, at): float(value) for value, script, name, at in found}


def events(folder: str | Path) -> EventAccumulator:
    """What a run has written for TensorBoard, all of it."""
    return EventAccumulator(str(Path(folder) / "tensorboard"), {"images": 0, "scalars": 0}).Reload()
