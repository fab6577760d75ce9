"""From the words of VISSL's command line to the flags of this project's stage 1.

`config=NAME` chooses the recipe, `config.A.B=value` overrides one of its values, by VISSL's names; the last of equal ones wins.
Words in `--flag value` form are flags of our script, and win over both.
"""

import difflib
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from engine.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "vissl" / "configs" / "config" / "dataset_catalog.json"
# VISSL's configuration → method, its epochs, and the share of the first learning rate that its cosine ends at
CONFIGS = {
    "pretrain/swav/swav_8node_resnet": ("swav", 400, 0.0048 / 4.8),
    "pretrain/deepcluster_v2/deepclusterv2_2crops_resnet": ("deepcluster", 100, 0.0),
}
DEFAULTS = {
    "DATA.TRAIN.DATASET_NAMES": ["imagenet1k_folder"],
    "DATA.TRAIN.BATCHSIZE_PER_REPLICA": 64,
    "DISTRIBUTED.NUM_NODES": 8,
    "DISTRIBUTED.NUM_PROC_PER_NODE": 8,
}
SCALING = "OPTIMIZER.param_schedulers.lr.auto_lr_scaling"
SET_HERE = ("dump_path", "pretrained_path", "checkpoint_name", "preset")


@dataclass
class Command:
    """What is to be run: the method ("swav" or "deepcluster"), flags of its script, processes, VISSL's checkpoint folder."""

    method: str
    flags: list[str]
    processes: int
    folder: Path
    said: list[str] = field(default_factory=list)

    @property
    def script(self) -> str:
        return f"ssl_{self.method}_2D.py"


def translate(words: list[str]) -> Command:
    """The command that VISSL's words ask for. Raises `UserError` for what has no counterpart here."""
    theirs = [word for word in words if word.removeprefix("+").startswith(("config=", "config."))]
    overrides, own = _overrides(theirs), [word for word in words if word not in theirs]
    if own and not own[0].startswith("--"):
        raise UserError(f"{own[0]!r} is no override; write config.NAME=value, or --flag value after all of them.")
    for flag in SET_HERE:
        if any(word.split("=")[0].replace("-", "_") == f"__{flag}" for word in own):
            raise UserError(f"--{flag} is set by this command; config.CHECKPOINT.DIR is where everything goes.")
    name = overrides.pop("", None)
    if name not in CONFIGS:
        given = f"config={name} is not known here" if name else "config=… is missing"
        raise UserError(f"{given}; use {' or '.join(f'config={known}' for known in CONFIGS)}.")
    method, epochs, last_share = CONFIGS[name]
    table = _table(method)
    for key in overrides:
        if key not in table:
            near = difflib.get_close_matches(key, table, n=1)
            hint = f"did you mean config.{near[0]}?" if near else "vissl/README.md lists those that have one."
            raise UserError(f"config.{key} has no counterpart in ssl_{method}_2D.py; {hint}")
    values = {**DEFAULTS, "OPTIMIZER.num_epochs": epochs, **overrides}
    processes = _processes(values)
    flags = ["--preset", "vissl", *(word for key in values for word in table[key](key, values[key]))]
    folder = _folder(values)
    if "DATA.TRAIN.DATA_PATHS" in values:
        images = _data_path(Path(_one(values["DATA.TRAIN.DATA_PATHS"], "DATA.TRAIN.DATA_PATHS")).absolute())
    else:
        images = catalogued(values["DATA.TRAIN.DATASET_NAMES"])
    flags += ["--data_path", images]
    batch = int(_last_number(own, "batch_size") or flags[flags.index("--batch_size") + 1])
    rates, said = _learning_rate(values, batch, last_share, _last_number(own, "base_lr"))
    run = folder / "run"
    flags += [*rates, "--pretrained_path", str(run), "--checkpoint_name", f"resnet_{method}2D.pth", "--dump_path", str(run)]
    return Command(method, flags + own, processes, folder, [said])


def catalogued(names: list, catalogue: Path = CATALOGUE) -> str:
    """The folder of training pictures of a data set in the catalogue, as `--data_path` takes it.

    A folder `train/` stands for the folder around it, from which only `train/` is read: there lies `labels.csv`.
    """
    name = _one(names, "DATA.TRAIN.DATASET_NAMES")
    try:
        known = json.loads(catalogue.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{catalogue} cannot be read as JSON ({error}); mend it, or take it from the repository.") from None
    if name not in known:
        raise UserError(f"{catalogue} has no data set {name!r}; it has {', '.join(sorted(known))}.")
    try:
        path = str(known[name]["train"][0])
    except (KeyError, IndexError, TypeError):
        raise UserError(f'{catalogue} gives {name} no training folder; write {{"train": ["FOLDER", "<unused>"]}}.') from None
    if "path/to" in path or path.startswith("<"):
        raise UserError(f"{catalogue} still has {path!r} as the training folder of {name}; write the folder of your pictures.")
    return _data_path(ROOT / path)


def _data_path(folder: Path) -> str:
    """The folder as `--data_path` takes it: for a folder `train/` that is there, the one around it."""
    return str(folder.parent if folder.name == "train" and folder.is_dir() else folder)


def _overrides(words: list[str]) -> dict[str, object]:
    """VISSL's names without `config.`, with their values; the configuration's own name stands under ""."""
    values = {}
    for word in words:
        key, given, text = word.removeprefix("+").partition("=")
        if not given:
            raise UserError(f"{word!r} has no value; write {word}=value.")
        key = key.removeprefix("config").removeprefix(".")
        try:
            values[key] = yaml.safe_load(text) if key else text
        except yaml.YAMLError:
            raise UserError(f"{word!r} has a value that cannot be read; write it as in YAML, lists as [a,b].") from None
    return values


Words = Callable[[str, object], list[str]]


def _table(method: str) -> dict[str, Words]:
    """What each of VISSL's names becomes: flags, or none where it only asks for what is so anyway."""
    nothing = lambda key, value: []  # noqa: E731  (read elsewhere)
    table = {
        "DATA.TRAIN.DATA_SOURCES": _only(["disk_folder"], "pictures are read from folders"),
        "DATA.TRAIN.DATASET_NAMES": nothing,
        "DATA.TRAIN.DATA_PATHS": nothing,
        "DATA.TRAIN.BATCHSIZE_PER_REPLICA": _number("batch_size", int),
        "DATA.TRAIN.DROP_LAST": _only(True, "an incomplete batch is always left out"),
        "DATA.NUM_DATALOADER_WORKERS": _number("workers", int),
        "SEED_VALUE": _number("seed", int),
        "MODEL.TRUNK.NAME": _only("resnet", "stage 1 trains a ResNet"),
        "MODEL.TRUNK.RESNETS.DEPTH": _depth,
        "MODEL.TRUNK.TRUNK_PARAMS.RESNETS.DEPTH": _depth,
        "MODEL.WEIGHTS_INIT.PARAMS_FILE": lambda key, value: ["--start_from", str(Path(str(value)).absolute())],
        "MODEL.AMP_PARAMS.USE_AMP": _switch([], ["--precision", "fp32"]),
        "MODEL.SYNC_BN_CONFIG.CONVERT_BN_TO_SYNC_BN": _switch(["--sync_bn", "pytorch"], ["--sync_bn", "none"]),
        "OPTIMIZER.num_epochs": _number("epochs", int),
        "OPTIMIZER.weight_decay": _number("wd", float),
        "OPTIMIZER.use_larc": _only(True, "SGD comes with LARC"),
        f"{SCALING}.auto_scale": _only(True, "a rate of your own is --base_lr"),
        **{f"{SCALING}.{name}": nothing for name in ("base_value", "base_lr_batch_size", "scaling_type")},
        "CHECKPOINT.DIR": nothing,
        "CHECKPOINT.AUTO_RESUME": _switch(["--resume", "auto"], ["--resume", "never"]),
        "CHECKPOINT.OVERWRITE_EXISTING": _switch(["--overwrite"], []),
        "CHECKPOINT.CHECKPOINT_FREQUENCY": _number("checkpoint_freq", int),
        "DISTRIBUTED.NUM_NODES": nothing,
        "DISTRIBUTED.NUM_PROC_PER_NODE": nothing,
        "DISTRIBUTED.RUN_ID": _only("auto", "the processes of one machine find a free port"),
        "HOOKS.TENSORBOARD_SETUP.USE_TENSORBOARD": _only(True, "events are always written"),
        "HOOKS.TENSORBOARD_SETUP.LOG_DIR": _number("log_dir", str),
        "HOOKS.TENSORBOARD_SETUP.EXPERIMENT_LOG_DIR": _number("tensorboard_name", str),
    }
    if method == "swav":
        own = {
            "temperature": _number("temperature", float),
            "epsilon": _number("epsilon", float),
            "num_iters": _number("sinkhorn_iterations", int),
            "num_prototypes": _numbers("nmb_prototypes"),
            "crops_for_assign": _only([0, 1], "the first two crops are assigned"),
            "normalize_last_layer": _only(True, "prototypes have unit length"),
            "queue.queue_length": _number("queue_length", int),
            "queue.start_iter": _only(0, "the first epoch with a queue is --epoch_queue_starts"),
        }
    else:
        own = {
            "temperature": _number("temperature", float),
            "num_clusters": _numbers("nmb_prototypes"),
            "kmeans_iters": _number("kmeans_iterations", int),
        }
    loss = "swav_loss" if method == "swav" else "deepclusterv2_loss"
    return table | {f"LOSS.{loss}.{name}": words for name, words in own.items()}


def _number(flag: str, kind: type) -> Words:
    def words(key: str, value: object) -> list[str]:
        return [f"--{flag}", str(_as(kind, key, value))]

    return words


def _numbers(flag: str) -> Words:
    def words(key: str, value: object) -> list[str]:
        given = value if isinstance(value, list) else [value]
        if not given:
            raise UserError(f"config.{key}=[] is empty; give a number for each head, as [3000].")
        return [f"--{flag}", *(str(_as(int, key, number)) for number in given)]

    return words


def _switch(on: list[str], off: list[str]) -> Words:
    def words(key: str, value: object) -> list[str]:
        if not isinstance(value, bool):
            raise UserError(f"config.{key}={value} is neither true nor false; write one of them.")
        return on if value else off

    return words


def _only(allowed: object, why: str) -> Words:
    def words(key: str, value: object) -> list[str]:
        if value != allowed:
            raise UserError(f"config.{key}={_shown(value)} cannot be done here; only {_shown(allowed)} can, as {why}.")
        return []

    return words


def _depth(key: str, value: object) -> list[str]:
    if value not in (18, 34, 50, 101):
        raise UserError(f"config.{key}={value} is no ResNet that is known here; use 18, 34, 50 or 101.")
    return ["--arch", f"resnet{value}"]


def _processes(values: dict) -> int:
    nodes, processes = (
        _as(int, f"DISTRIBUTED.{name}", values[f"DISTRIBUTED.{name}"]) for name in ("NUM_NODES", "NUM_PROC_PER_NODE")
    )
    if nodes != 1:
        raise UserError(
            f"config.DISTRIBUTED.NUM_NODES={nodes} cannot be done here; this command starts processes on this machine alone: "
            "write config.DISTRIBUTED.NUM_NODES=1, or start the script itself by torchrun on each node."
        )
    if processes < 1:
        raise UserError(f"config.DISTRIBUTED.NUM_PROC_PER_NODE={processes} is no number of processes; use 1 or more.")
    return processes


def _folder(values: dict) -> Path:
    folder = values.get("CHECKPOINT.DIR")
    if not isinstance(folder, str) or not folder:
        raise UserError(
            'config.CHECKPOINT.DIR is missing or no name; name a folder to write to, as config.CHECKPOINT.DIR="./weights/run".'
        )
    return Path(folder)


def _learning_rate(values: dict, batch: int, last_share: float, own_rate: float | None) -> tuple[list[str], str]:
    """The rates that VISSL computes for the global batch, and a sentence about them.

    On one node the warm-up would start at the rate that it ends at, so that VISSL deletes it, and one cosine is left.
    """
    base = _as(float, f"{SCALING}.base_value", values.get(f"{SCALING}.base_value", 0.3))
    images = _as(float, f"{SCALING}.base_lr_batch_size", values.get(f"{SCALING}.base_lr_batch_size", 256))
    if images <= 0 or batch <= 0:
        raise UserError(
            f"config.{SCALING}.base_lr_batch_size={images:g} and {batch} pictures give no rate; use numbers above 0."
        )
    kind = values.get(f"{SCALING}.scaling_type", "linear")
    if kind not in ("linear", "sqrt"):
        raise UserError(f"config.{SCALING}.scaling_type={kind} is not known; use linear or sqrt.")
    processes = int(values["DISTRIBUTED.NUM_PROC_PER_NODE"])
    scale = batch * processes / images
    first = base * (scale if kind == "linear" else scale**0.5)
    if own_rate is not None:
        return ["--final_lr", repr(own_rate * last_share), "--warmup_epochs", "0"], f"learning rate: {own_rate:g}, by --base_lr"
    said = (
        f"learning rate: {base:g} for {images:g} pictures, scaled ({kind}) to {processes} x {batch}: {first:g}, "
        f"by one cosine to {first * last_share:g}; on one node VISSL has no warm-up"
    )
    return ["--base_lr", repr(first), "--final_lr", repr(first * last_share), "--warmup_epochs", "0"], said


def _last_number(words: list[str], flag: str) -> float | None:
    joined = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    given = [value for word, value in itertools.pairwise(joined) if word.replace("-", "_") == f"__{flag}"]
    try:
        return float(given[-1]) if given else None
    except ValueError:
        return None  # the script says what is wrong with it


def _one(names: object, key: str) -> str:
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise UserError(f"config.{key}={_shown(names)} cannot be done here; give one, as [ssl_2d].")
    return names[0]


def _as(kind: type, key: str, value: object):
    """A value as a number or text. YAML takes 1e-6 for text, so that it is tried, too."""
    try:
        if isinstance(value, bool) or (kind is not str and not math.isfinite(float(value))):
            raise ValueError
        if kind is int and float(value) != int(float(value)):
            raise ValueError
        return kind(float(value)) if kind is int else kind(value)
    except (TypeError, ValueError):
        what = {int: "a whole number", float: "a number", str: "text"}[kind]
        raise UserError(f"config.{key}={_shown(value)} is not {what}; give one.") from None


def _shown(value: object) -> str:
    """A value as one types it."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("'", "").replace(" ", "") if isinstance(value, list) else text
