"""Stages 1 → 2 → 3 → evaluation, from a folder of volumes and a folder of images to joint weights and a table.

With volumes only, stage 1 learns from their slices; with images only, the pipeline ends after stage 1. Volumes that are not NPY
arrays (NIfTI, DICOM, …) are converted once, by prepare_data.py, into runs/<name>/volumes. A stage is skipped when
its output is there and nothing that it depends on has changed: its configuration, its data, the code, its input weights.

Reads    volumes with --data_path, images with --image_path
Writes   runs/<name>/weights/*.pth, runs/<name>/<stage>/, runs/<name>/evaluation/
Run      python run_pipeline.py --method swav --data_path training_data_3D --image_path training_data_2D
"""

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml
from rich.table import Table

from datasets.files import VOLUME_ENDINGS, find_images, find_volumes
from datasets.identity import ARCHIVES
from datasets.sources import DICOM_ENDINGS
from engine.checkpoint import sha256, write_atomically
from engine.config import parse
from engine.errors import UserError, speaking_to_people
from engine.tables import cell, print_table

ROOT = Path(__file__).resolve().parent
SET_HERE = {"checkpoint_name", "pretrained_path", "dump_path", "resnet_pretrained", "trans_pretrained", "overwrite", "config"}
CODE = ("models", "datasets", "losses", "engine")


@dataclass(kw_only=True)
class PipelineConfig:
    method: Literal["deepcluster", "swav", "both"] = "swav"  # the clustering of stages 1 and 3
    data_path: str = ""  # folder of volumes: NPY, or whatever prepare_data.py reads ("" = none: stage 1 alone)
    image_path: str = ""  # folder of images ("" = none: stage 1 learns from slices of the volumes)
    name: str = "pipeline"  # everything is written to runs/<name>
    nproc: int = 1  # processes a stage
    preset: Literal["default", "released"] = "default"  # of all stages: released = what the published code computes
    # constants that several stages share
    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"  # the ResNet inside f_intra
    target_shape: tuple[int, int, int] = (64, 128, 128)  # slices, height, width that the network sees
    workers: int = 2  # loader processes a process (0 = none)
    keep_names: bool = False  # of files and folders when volumes are converted, which may be those of patients
    on_bad_file: Literal["stop", "skip"] = "stop"  # skip: files that cannot be read are left out and named
    seed: int = 31  # all draws are functions of it
    stage1: str = ""  # YAML file with further constants of stage 1 ("" = its defaults)
    stage2: str = ""  # likewise of stage 2
    stage3: str = ""  # likewise of stage 3
    # evaluation
    eval_data_path: str = ""  # folder of volumes with labels.csv ("" = data_path)
    eval_image_path: str = ""  # folder of images with labels.csv ("" = image_path)
    config: str = ""  # YAML file with any of these constants; flags win over it


def main(config: PipelineConfig) -> None:
    if not config.data_path and not config.image_path:
        raise UserError("Nothing to learn from; name a folder with --data_path (volumes), --image_path (images), or both.")
    if config.data_path and is_raw(Path(config.data_path)):
        config = replace(config, data_path=converted(config))
    volumes = find_volumes(config.data_path) if config.data_path else []
    images = find_images(config.image_path) if config.image_path else []
    print(f"{len(volumes)} volumes, {len(images)} images → runs/{config.name}", flush=True)
    methods = ["deepcluster", "swav"] if config.method == "both" else [config.method]
    rows, weights = [], []
    for method in methods:
        for stage in stages(config, method):
            rows.append(run_stage(config, stage, fingerprint(volumes + images)))
            weights.append(stage["writes"])
    if not volumes:
        print("There are images only, so this ends after stage 1; stages 2 and 3 learn from volumes (--data_path).")
    figures = evaluate(config, weights)
    show(rows, figures)


def is_raw(root: Path) -> bool:
    """Whether some of its volumes are not the arrays that training reads best."""
    endings = (*VOLUME_ENDINGS, *ARCHIVES, *DICOM_ENDINGS)
    known = {path.name.lower().endswith(".npy") for path in root.rglob("*") if path.name.lower().endswith(endings)}
    return root.is_dir() and known != {True}


def converted(config: PipelineConfig) -> str:
    """The folder with the volumes as arrays; what is there already stays."""
    folder = f"runs/{config.name}/volumes"
    print(f"{config.data_path} has volumes that are not NPY arrays; they are converted once, into {folder}:", flush=True)
    words = [config.data_path, "--data_path", folder, "--shares", "1", "0", "0", "--mirror"]
    words += ["--collection", "", "--no_deidentify"] if config.keep_names else ["--collection", "volumes"]
    code = subprocess.run([sys.executable, str(ROOT / "prepare_data.py"), *words]).returncode
    if code == 1 and config.on_bad_file == "stop":
        raise UserError("Some volumes cannot be converted; replace or remove them, or go on without them: --on_bad_file skip.")
    if code > 1:
        raise UserError(f"prepare_data.py ended with code {code}; mend what it says and run the same command again.")
    return folder


def stages(config: PipelineConfig, method: str) -> list[dict]:
    """The stages of one method: script, file of constants, flags, input weights, the file it writes."""
    weights = Path("runs") / config.name / "weights"
    names = [f"resnet_{method}2D.pth", f"mask_{method}.pth", f"{method}3D.pth"]
    scripts = [f"ssl_{method}_2D.py", f"mask_{method}_3D.py", f"ssl_{method}_3D.py"]
    shape = list(config.target_shape)
    slices = {} if config.image_path else {"volume_path": config.data_path}
    flags = [
        {"data_path": config.image_path, **slices},
        {"data_path": config.data_path, "target_shape": shape},
        {"data_path": config.data_path, "target_shape": shape, "image_path": config.image_path},
    ]
    shared = {name: getattr(config, name) for name in ("preset", "arch", "workers", "seed", "on_bad_file")}
    shared |= {"pretrained_path": str(weights)}
    files = [config.stage1, config.stage2, config.stage3]
    return [
        {
            "script": scripts[i],
            "folder": Path("runs") / config.name / Path(scripts[i]).stem,
            "constants": {**read_constants(files[i]), **shared, **flags[i]},
            "reads": [weights / name for name in names[:i]],
            "writes": weights / names[i],
        }
        for i in range(3 if config.data_path else 1)
    ]


def read_constants(path: str) -> dict:
    """The constants of a stage's YAML file. Raises `UserError` when it cannot be read."""
    if not path:
        return {}
    try:
        constants = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML ({error}); give a file of `name: value` lines.") from None
    if not isinstance(constants, dict):
        raise UserError(f"{path} holds no `name: value` lines; give a file of those.")
    for name in sorted(SET_HERE & set(constants)):
        raise UserError(f"{path} sets {name}, which run_pipeline.py sets itself; take it out.")
    return constants


def run_stage(config: PipelineConfig, stage: dict, data: str) -> dict:
    """Runs a stage unless its output is up to date, and returns its line of the table."""
    folder, record = stage["folder"], stage["folder"] / "stage.json"
    depends = {
        "constants": {**stage["constants"], "nproc": config.nproc},
        "data": data,
        "code": code_of(stage["script"]),
        "inputs": {str(path): sha256(path) for path in stage["reads"]},
    }
    done = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if stage["writes"].exists() and done.get("depends") == depends and done.get("output") == sha256(stage["writes"]):
        print(f"{stage['script']}: up to date, skipped", flush=True)
        return done["row"]
    record.unlink(missing_ok=True)
    goes_on = interrupted(folder, depends)
    if goes_on:
        stage["writes"].unlink(missing_ok=True)  # damaged, or from before
    constants = {**stage["constants"], "dump_path": str(folder), "overwrite": not goes_on}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "depends.json", lambda path: path.write_text(json.dumps(depends), encoding="utf-8"))
    (folder / "constants.yaml").write_text(yaml.safe_dump(constants, sort_keys=False), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={config.nproc}"] if config.nproc > 1 else []
    began = time.monotonic()
    code = subprocess.run([sys.executable, *launcher, str(ROOT / stage["script"]), "--config", str(folder / "constants.yaml")])
    if code.returncode:
        raise UserError(
            f"{stage['script']} ended with code {code.returncode}; mend what it says and run the same command again."
        )
    row = {**last_epoch(folder), "script": stage["script"], "seconds": time.monotonic() - began}
    done = {"depends": depends, "output": sha256(stage["writes"]), "row": row}
    write_atomically(record, lambda path: path.write_text(json.dumps(done, indent=1), encoding="utf-8"))
    return row


def interrupted(folder: Path, depends: dict) -> bool:
    """Was this very stage begun before, so that its checkpoints can be gone on with?"""
    path = folder / "depends.json"
    return path.exists() and json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(depends))


def code_of(script: str) -> str:
    """A hash of everything that a stage's script takes from this project."""
    paths = [ROOT / script, ROOT / script.replace("swav", "deepcluster")]
    paths += sorted(path for package in CODE for path in (ROOT / package).glob("*.py"))
    paths += sorted((ROOT / "configs" / "released").glob("*.yaml"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def fingerprint(items: list) -> str:
    """A hash of names and sizes of all files to learn from."""
    listed = [(item.name, item.path.stat().st_size, item.path.stat().st_mtime_ns) for item in items]
    return hashlib.sha256(repr(listed).encode()).hexdigest()


def last_epoch(folder: Path) -> dict:
    """The figures of a run's last epoch, from its `metrics.jsonl`."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == "epoch"][-1]


def evaluate(config: PipelineConfig, weights: list[Path]) -> dict:
    """Scores all weights beside the baselines, in a process of its own."""
    output = Path("runs") / config.name / "evaluation"
    words = ["--weights", *map(str, weights), "--target_shape", *map(str, config.target_shape), "--output", str(output)]
    words += [
        "--data_path",
        config.eval_data_path or config.data_path,
        "--image_path",
        config.eval_image_path or config.image_path,
    ]
    words += ["--arch", config.arch, "--workers", str(config.workers), "--seed", str(config.seed)]
    words += ["--on_bad_file", config.on_bad_file]
    if subprocess.run([sys.executable, str(ROOT / "evaluate_embeddings.py"), *words]).returncode:
        raise UserError("evaluate_embeddings.py failed; mend what it says and run the same command again.")
    return json.loads((output / "evaluation.json").read_text(encoding="utf-8"))


def show(rows: list[dict], figures: dict) -> None:
    """The table that everything ends in."""
    kinds = [kind for kind in ("images", "volumes") if kind in next(iter(figures.values()))]
    table = Table("stage", "time", "loss (ln K)", "clusters in use", "R² masked", *(f"kNN {kind}" for kind in kinds))
    for name in ("raw pixels", "random weights"):
        table.add_row(name, *[""] * 4, *(cell(figures[name][kind], "knn") for kind in kinds))
    for row, name in zip(rows, list(figures)[2:]):
        table.add_row(
            row["script"], f"{row['seconds']:.0f} s", *stage_cells(row), *(cell(figures[name][k], "knn") for k in kinds)
        )
    print_table(table)


def stage_cells(row: dict) -> list[str]:
    """Loss beside ln K, clusters in use and R² of a stage's last epoch."""
    family = next((name for name in ("volumes", "images") if f"{name}_ln_k" in row), None)
    loss = f"{row['loss']:.3f}" if family is None else f"{row[f'{family}_loss']:.2f} ({row[f'{family}_ln_k']:.2f})"
    families = [name for name in ("images", "volumes", "slices") if f"{name}_clusters_used" in row]
    used = ", ".join(f"{row[f'{name}_clusters_used']} {name}" for name in families)
    r2 = f"{row['r2_mean']:.2f}, {row['r2_interpolation']:.2f} over interpolation" if row.get("r2_mean") is not None else ""
    return [loss, used, r2]


if __name__ == "__main__":
    with speaking_to_people():
        main(parse(PipelineConfig))
