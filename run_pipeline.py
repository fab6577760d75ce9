"""Stages 1 → 2 → 3 → evaluation → segmentation → report, from folders of volumes and images to weights, tables and a page.

With volumes only, stage 1 learns from their slices; with images only, the pipeline ends after stage 1. Volumes that are not NPY
arrays (NIfTI, DICOM, …) are converted once, by prepare_data.py, into runs/<name>/volumes. A stage is skipped when
its output is there and nothing that it depends on has changed: its configuration, its data, the code, its input weights.
With labelled volumes, segmentations start from random weights, from stage 1's and from the last stage's; linear probes, too.

Reads    volumes with --data_path, images with --image_path, volumes with label maps with --labelled_path
Writes   runs/<name>/weights/*.pth, runs/<name>/<stage>/, runs/<name>/evaluation/, runs/<name>/segmentation-<start>/,
         runs/<name>/report.html
Run      python run_pipeline.py --method swav --data_path training_data_3D --image_path training_data_2D
"""

import importlib
import inspect
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml
from rich.table import Table

from datasets.cases import find_cases
from datasets.files import VOLUME_ENDINGS, find_images, find_volumes
from datasets.identity import ARCHIVES
from datasets.sources import DICOM_ENDINGS
from engine.config import Config, parse, words_of
from engine.errors import UserError, speaking_to_people
from engine.listing import Listing
from engine.stages import Stage, fingerprint, last_epoch, results_on_test, run_stage
from engine.tables import cell, print_table, with_interval
from finetune_segmentation import dealt, where_cases_are

ROOT = Path(__file__).resolve().parent
SET_HERE = {"checkpoint_name", "pretrained_path", "dump_path", "resnet_pretrained", "trans_pretrained", "overwrite", "config"}
SET_BY_START = {"start_from", "context", "tune", "evaluate", "seeds"}  # of segmentations, too
MOST_COLUMNS = 10  # classes of which each has a column


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
    # segmentation from the weights of the stages
    labelled_path: str = ""  # folder of labelled volumes, as finetune_segmentation.py finds them ("" = no segmentation)
    segmentation: str = ""  # YAML file with constants of finetune_segmentation.py ("" = its defaults)
    report: bool = True  # write runs/<name>/report.html, to be looked at, at the end
    config: str = ""  # YAML file with any of these constants; flags win over it


def main(config: PipelineConfig) -> None:
    if not config.data_path and not config.image_path:
        raise UserError("Nothing to learn from; name a folder with --data_path (volumes), --image_path (images), or both.")
    if config.data_path and is_raw(Path(config.data_path)):
        config = replace(config, data_path=converted(config))
    volumes = find_volumes(config.data_path) if config.data_path else []
    images = find_images(config.image_path) if config.image_path else []
    print(f"{len(volumes)} volumes, {len(images)} images → runs/{config.name}", flush=True)
    methods = [stages(config, name) for name in (["deepcluster", "swav"] if config.method == "both" else [config.method])]
    downstream = segmentations(config, methods) if config.labelled_path else []
    labelled = fingerprint(labelled_files(config)) if downstream else ""
    data = fingerprint(item.path for item in volumes + images)
    pretraining = [stage for of_method in methods for stage in of_method]
    refuse_unfit(pretraining, downstream)
    rows = [run_stage(stage, config.nproc, data, last_epoch) for stage in pretraining]
    if not volumes:
        print("There are images only, so this ends after stage 1; stages 2 and 3 learn from volumes (--data_path).")
    figures = evaluate(config, [stage.writes for stage in pretraining])
    segmented = [run_stage(stage, config.nproc, labelled, results_on_test) for stage in downstream]
    show(rows, figures)
    if segmented:
        show_segmentations(downstream, segmented)
    if config.report:
        write_report(config)


def refuse_unfit(pretraining: list[Stage], downstream: list[Stage]) -> None:
    """Raises `UserError` for what a late stage would refuse, before the first begins: its constants, its labelled volumes."""
    for stage in pretraining + downstream:
        module = importlib.import_module(Path(stage.script).stem)
        known = [of for of in vars(module).values() if inspect.isclass(of) and issubclass(of, Config)]
        (own,) = (of for of in known if of.__module__ == module.__name__)
        config = parse(own, words_of(own, stage.constants, where=f" of {stage.script}"))
        if stage in downstream[:1]:  # the others read the same volumes
            listing = Listing(config.on_bad_file, config.workers)
            found = listing.find(find_cases, *where_cases_are(config))
            dealt(config, found)
            listing.concerns(found)


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


def stages(config: PipelineConfig, method: str) -> list[Stage]:
    """The stages of one method."""
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
        Stage(
            script=scripts[i],
            folder=Path("runs") / config.name / Path(scripts[i]).stem,
            constants={**read_constants(files[i]), **shared, **flags[i]},
            reads=[weights / name for name in names[:i]],
            writes=weights / names[i],
        )
        for i in range(3 if config.data_path else 1)
    ]


def read_constants(path: str, set_here: set[str] = SET_HERE) -> dict:
    """The constants of a stage's YAML file. Raises `UserError` when it cannot be read, or names one that is `set_here`."""
    if not path:
        return {}
    try:
        constants = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML ({error}); give a file of `name: value` lines.") from None
    if not isinstance(constants, dict):
        raise UserError(f"{path} holds no `name: value` lines; give a file of those.")
    for name in sorted(set_here & set(constants)):
        raise UserError(f"{path} sets {name}, which run_pipeline.py sets itself; take it out.")
    return constants


def segmentations(config: PipelineConfig, methods: list[list[Stage]]) -> list[Stage]:
    """Fine-tunings and linear probes of one network from random weights and each method's first and last stage.

    And fine-tunings in which f_inter, which the later stages learn, takes part (`--context`), where it attends along slices.
    """
    weights = Path("runs") / config.name / "weights"
    constants = read_constants(config.segmentation, SET_HERE | SET_BY_START)
    constants |= {name: getattr(config, name) for name in ("arch", "workers", "seed", "on_bad_file")}
    constants |= {"data_path": config.labelled_path, "pretrained_path": str(weights), "evaluate": "test"}
    starts = dict.fromkeys([None, *(stage for of_method in methods for stage in (of_method[0], of_method[-1]))])
    with_f_inter = [start for start in starts if start and tells_of_slices(start)]
    runs = [
        *((start, "", {"context": False, "tune": "full"}) for start in starts),
        *((start, "-context", {"context": True, "tune": "full"}) for start in with_f_inter),
        *((start, "-linear", {"context": False, "tune": "linear"}) for start in starts),
    ]
    found = []
    for start, ending, how in runs:
        name = "segmentation-" + (start.writes.stem if start else "random") + ending
        own = {**how, "start_from": start.writes.name if start else ""}
        found.append(
            Stage(
                script="finetune_segmentation.py",
                folder=Path("runs") / config.name / name,
                constants={**constants, **own, "checkpoint_name": f"{name}.pth"},
                reads=[start.writes] if start else [],
                writes=weights / f"{name}.pth",
            )
        )
    return found


def tells_of_slices(stage: Stage) -> bool:
    """Whether its weights have an f_inter that tells what a slice is in its volume, as one along features does not."""
    usual = "features" if stage.constants["preset"] == "released" else "slices"
    return bool(stage.reads) and stage.constants.get("attention", usual) == "slices"


def labelled_files(config: PipelineConfig) -> list[Path]:
    """All that the fine-tunings may read. Raises `UserError` when there is nothing."""
    found = sorted(path for path in Path(config.labelled_path).rglob("*") if path.is_file())
    if not found:
        raise UserError(f"--labelled_path {config.labelled_path} holds no files; give a folder of images with label maps.")
    table = Path(read_constants(config.segmentation).get("manifest") or config.labelled_path)
    return [*found, *([table] if table.is_file() else [])]


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


def write_report(config: PipelineConfig) -> None:
    """The page of all that was done, in a process of its own."""
    code = subprocess.run([sys.executable, str(ROOT / "report.py"), str(Path("runs") / config.name)]).returncode
    if code:
        raise UserError(f"report.py ended with code {code}, all else is written; mend what it says, or give --no_report.")


def show(rows: list[dict], figures: dict) -> None:
    """The table of the stages."""
    kinds = [kind for kind in ("images", "volumes") if "knn" in figures["raw pixels"].get(kind, {})]
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


def show_segmentations(stages: list[Stage], rows: list[dict]) -> None:
    """The table of what each start scored on the test split: Dice, also of each class where those are few."""
    classes = list(rows[0]["classes"]) if len(rows[0]["classes"]) <= MOST_COLUMNS else []
    title = f"Dice of {rows[0]['volumes']} test volumes (95 % interval)"
    table = Table("start", "time", "mean", *(name.replace("_", " ") for name in classes), title=title)
    for stage, row in zip(stages, rows):
        of_class = [with_interval({**row["classes"][name]["dice"], "interval": None}, digits=2) for name in classes]
        start = stage.folder.name.removeprefix("segmentation-")
        table.add_row(start, f"{row['seconds']:.0f} s", with_interval(row["mean"]["dice"], digits=2), *of_class)
    print_table(table)


if __name__ == "__main__":
    with speaking_to_people():
        main(parse(PipelineConfig))
