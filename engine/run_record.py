"""What a run has left in its folder, read back: constants, figures of every epoch, results, evaluation."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import yaml

from .checkpoint import load_part
from .errors import UserError
from .results import seeds_told
from .weights import about_weights

STAGES = {"ssl_swav_2D": 1, "ssl_deepcluster_2D": 1, "mask_swav_3D": 2, "mask_deepcluster_3D": 2}
STAGES |= {"ssl_swav_3D": 3, "ssl_deepcluster_3D": 3}


@dataclass(frozen=True)
class StageRecord:
    """One script's run. stage: 1 to 3, 0 for one of the scripts downstream; epochs, steps: lines of `metrics.jsonl`."""

    folder: Path
    script: str
    config: dict = field(default_factory=dict)
    identity: dict = field(default_factory=dict)  # run.json
    epochs: list[dict] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)
    left_out: dict = field(default_factory=dict)
    results: dict = field(default_factory=dict)
    about: dict = field(default_factory=dict)  # what its weight file says of itself; empty without one
    data: list[dict] = field(default_factory=list)  # what it learned from, a loader each (`datasets.files.summary`); or unknown

    @property
    def stage(self) -> int:
        return STAGES.get(self.script, 0)

    @property
    def method(self) -> str:
        return "SwAV" if "swav" in self.script else "DeepClusterV2" if "deepcluster" in self.script else ""

    @property
    def name(self) -> str:
        """Of the folder, which several runs of one script have each their own of."""
        return self.folder.name

    @property
    def steps_per_epoch(self) -> int:
        first = self.epochs[0] if self.epochs else {}
        return first["step"] // (first["epoch"] + 1) if first else 0

    @property
    def seconds(self) -> float:
        return sum(line.get("seconds") or 0.0 for line in self.epochs)

    def batch(self, name: str = "batch_size") -> int:
        """The batch of all processes together."""
        return self.identity.get("global_batch", {}).get(name) or self.config.get(name, 1)

    def path_of(self, value: str) -> Path:
        """A path of its constants, from where the run was started, if that can be told, else from here."""
        own = self.config.get("dump_path") or f"runs/{self.script}"
        parts, tail = self.folder.resolve().parts, Path(own).parts
        moved = Path(own).is_absolute() or parts[-len(tail) :] != tail
        return Path(value) if moved or not value else Path(*parts[: -len(tail)]) / value

    def constants(self) -> SimpleNamespace:
        """Its constants, folders of data as they lie from here."""
        given = {name: self.config.get(name) for name in ("data_path", "volume_path", "image_path")}
        paths = {name: str(self.path_of(path)) if path else "" for name, path in given.items()}
        return SimpleNamespace(**{**self.config, **paths})

    @property
    def weights(self) -> Path:
        return self.path_of(self.config.get("pretrained_path", "weights")) / self.config.get("checkpoint_name", "")

    def own_weights(self) -> Path:
        """The weight file. Raises `UserError` when it is not there, or is another run's."""
        if not self.about:
            reason = "was written by another run" if self.weights.is_file() else "is not there"
            raise UserError(f"the weight file {self.weights} {reason}.")
        return self.weights

    def last_model(self) -> dict:
        """The model's tensors in its last state, with the heads that no weight file has. Raises `UserError` without a state."""
        state = load_part(self.folder / "checkpoints", "model")
        if state is None:
            raise UserError(f"{self.folder / 'checkpoints'} holds no state, and prototypes are nowhere else.")
        return state

    @property
    def unfinished(self) -> str:
        """How far it is, in words; "" when it has done all of its epochs."""
        done, wanted = len(self.epochs), self.config.get("epochs", 0)
        last = self.epochs[-1]["epoch"] + 1 if self.epochs else 0
        return f"{last} of {wanted} epochs are done" if done and last < wanted else "" if done else "no epoch is finished"


@dataclass(frozen=True)
class RunRecord:
    """A folder that run_pipeline.py has left, with a record for each of its stages; or that of one script alone."""

    folder: Path
    stages: list[StageRecord]
    downstream: list[StageRecord]
    evaluation: dict
    pictures: list[Path]  # of the evaluation

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def read_run(folder: Path) -> RunRecord:
    """Raises `UserError` for a folder that is no run."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give that of a run, such as runs/demo.")
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    found = [read_stage(path) for path in ([folder] if _is_stage(folder) else filter(_is_stage, inside))]
    evaluated = folder / "evaluation" if (folder / "evaluation/evaluation.json").is_file() else folder
    evaluation = _json(evaluated / "evaluation.json")
    if not found and not evaluation:
        raise UserError(
            f"{folder} holds no run; give a folder that run_pipeline.py or a script of a stage has written, such as runs/demo."
        )
    stages = sorted((of for of in found if of.stage), key=lambda of: (of.method != "DeepClusterV2", of.stage))
    downstream = [of for of in found if not of.stage]
    return RunRecord(folder, stages, downstream, evaluation, sorted(evaluated.glob("embeddings*.png")) if evaluation else [])


def read_stage(folder: Path) -> StageRecord:
    """The record of one script's folder. Raises `UserError` where a file of it cannot be understood."""
    results = _json(folder / "results.json")
    seeds = _folders_of_seeds(folder, results)
    if seeds:
        return _of_seeds(folder, seeds, results)
    config = _yaml(folder / "config.yaml")
    identity = _json(folder / "run.json")
    lines = _lines(folder / "metrics.jsonl")
    script = identity.get("script") or folder.resolve().name
    left_out = {name: why for line in lines if line.get("kind") == "left_out" for name, why in line.items()}
    record = StageRecord(
        folder,
        script,
        config,
        identity,
        epochs=[line for line in lines if line.get("kind") == "epoch"],
        steps=[line for line in lines if line.get("kind") == "step"],
        left_out={name: why for name, why in left_out.items() if name not in ("kind", "step")},
        results=results,
    )
    path = record.weights
    about = about_weights(path) if config and path.is_file() else {}
    about = about if about.get("run") == identity.get("id") else {}
    data = about.get("data") or (_data_of_state(folder / "checkpoints") if record.stage else [])
    return replace(record, about=about, data=data)


def _folders_of_seeds(folder: Path, results: dict) -> list[Path]:
    """Where the runs lie whose seeds the results name; none for the results of a single run, which has no folders inside."""
    folders = [folder / f"seed-{seed}" for seed in seeds_told(results)]
    return folders if all((of / "config.yaml").is_file() for of in folders) else []


def _of_seeds(folder: Path, seeds: list[Path], results: dict) -> StageRecord:
    """Several seeds as one record: what their scripts were told alike, and the results of them all."""
    configs = [_yaml(seed / "config.yaml") for seed in seeds]
    alike = {name: value for name, value in configs[0].items() if all(name in of and of[name] == value for of in configs)}
    script = _json(seeds[0] / "run.json").get("script") or folder.resolve().name
    return StageRecord(folder, script, alike, results=results)


def _data_of_state(checkpoints: Path) -> list[dict]:
    """What the last state says that the run learns from; nothing without one."""
    position = load_part(checkpoints, "position")
    return position.get("data", []) if isinstance(position, dict) else []


def _is_stage(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() or (folder / "results.json").is_file()


def _json(path: Path) -> dict:
    """The object in a JSON file; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read as the JSON that a run writes; remove it, or give another run.")
    return content


def _yaml(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read as the YAML that a run writes; give another run.")
    return content


def _lines(path: Path) -> list[dict]:
    """The lines of `metrics.jsonl`; the last one of a run that is going on may be half written, and is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise UserError(f"{path} cannot be read (line {number} is no JSON); give another run.") from None
    return found
