"""Constants of a script: one dataclass, which is its flags, its help text and its `config.yaml`.

`Config` has what every pre-training script needs, `VolumeConfig` what stages 2 and 3 share. A script adds its own fields
and calls `parse`. `--config FILE` reads a file back as if its lines stood first on the command line, and `--preset NAME` reads
`configs/NAME/<script>.yaml` before that.
"""

import contextlib
import dataclasses
import difflib
import inspect
import io
import re
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import tyro
import yaml

from .errors import UserError
from .values import refuse_impossible

FORMAT_VERSION = 1
PRESETS = Path(__file__).resolve().parent.parent / "configs"


@dataclass(kw_only=True)
class Config:
    preset: Literal["default", "released"] = "default"  # released = what the published code computes, with its constants
    # what goes in and out
    pretrained_path: str = "weights"  # folder of weight files, those read and the one written
    checkpoint_name: str = ""  # the weight file that this script writes, inside pretrained_path
    dump_path: str = ""  # folder of this run: configuration, checkpoints, metrics ("" = runs/<script>)
    log_dir: str = ""  # folder of TensorBoard events ("" = the run's folder)
    tensorboard_name: str = "tensorboard"  # folder inside log_dir
    overwrite: bool = False  # start over in a used folder, and replace a weight file that another run wrote
    resume: Literal["auto", "anyway", "never"] = "auto"  # go on where the same constants, or any, stopped; or refuse
    # network
    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"  # the ResNet inside f_intra
    normalise: Literal["robust", "none"] = "robust"  # intensities: percentiles to [0, 1], then mean and deviation; or raw
    # optimisation
    optimizer: Literal["adamw", "larc"] = "adamw"  # larc = SGD with layer-wise rates, as published
    epochs: int = 100  # passes over the data
    batch_size: int = 4  # items a process
    base_lr: float = 1e-3  # highest learning rate
    final_lr: float = 0.0  # learning rate at the end of the cosine
    wd: float = 1e-6  # weight decay
    warmup_epochs: int = 10  # epochs of linear warm-up, cut to the length of the run
    start_warmup: float = 0.0  # learning rate at the start of the warm-up
    clip_grad: float = 0.0  # gradients are scaled down to at most this norm over all tensors (0 = never)
    # machine
    workers: int = 2  # loader processes a process (0 = none)
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = "auto"  # auto = bf16 where the processor has it, else fp32
    use_fp16: bool = False  # the published name of --precision fp16
    compile: bool = False  # torch.compile of the residual blocks: minutes at the start, less time a step on GPUs
    sync_bn: Literal["pytorch", "none"] = "pytorch"  # batch statistics over all processes, or of each one's own
    on_bad_file: Literal["stop", "skip"] = "stop"  # skip: all files are read once before; the bad ones are left out and named
    check_data: bool = True  # look at the headers of all files before the start, and say what seems wrong with them
    checkpoint_minutes: float = 30.0  # save the state also within an epoch, every so many minutes (0 = never)
    checkpoint_freq: int = 25  # keep a copy of the checkpoint every so many epochs
    timeout_minutes: float = 30.0  # a process that does not answer the others for so long ends them all
    seed: int = 31  # all draws are functions of it
    config: str = ""  # YAML file with any of these constants; flags win over it

    def __post_init__(self):
        if self.use_fp16:
            self.precision = "fp16"


@dataclass(kw_only=True)
class VolumeConfig(Config):
    probed_files: int = 512  # labelled files, at most, whose nearest neighbours are scored every epoch (0 = none)
    # volumes
    data_path: str = "training_data_3D"  # folder of volumes: <collection>/*.npy (H x W x C), NIfTI, MHA, NRRD
    target_shape: tuple[int, int, int] = (64, 128, 128)  # slices, height, width that the network sees
    fit: Literal["shrink", "crop"] = "shrink"  # shrunk to target_shape and masked; or cut and zero-padded about the middle
    view_policy: Literal["compose", "one"] = "compose"  # several of the seven transforms for a view, or one of them
    # networks
    d_model: int = 640  # D, length of slice and volume embeddings
    dropout: float = 0.0  # in f_inter
    attention: Literal["slices", "features"] = "slices"  # f_inter attends along them; features: as published, with --fit crop
    sampling: Literal["da020", "da018"] = "da020"  # of keys; da018 is the fault of the library that is published with
    slice_embedding: Literal["unit", "published"] = "unit"  # of unit root mean square; or raw, with the last stage twice in it
    masking: Literal["filled", "published"] = "filled"  # token on interpolated neighbours; or alone, and a loss of all slices
    base_lr: float = 3e-4  # highest learning rate
    mask_ratio: float = 0.3  # share of a volume's slices that are masked


@dataclass(kw_only=True)
class ImageConfig(Config):
    preset: Literal["default", "released", "vissl"] = "default"  # vissl = released: VISSL's recipe, as published
    probed_files: int = 512  # labelled files, at most, whose nearest neighbours are scored every epoch (0 = none)
    # images
    normalise: Literal["robust", "none", "imagenet"] = "robust"  # imagenet: the whole range, ImageNet's mean a channel (VISSL)
    data_path: str = "training_data_2D"  # folder of pictures, `train/` inside it when there is one ("" = none)
    volume_path: str = ""  # folder of volumes whose slices are learned from, too ("" = none)
    nmb_crops: tuple[int, ...] = (2, 6)  # crops of a picture, by size
    size_crops: tuple[int, ...] = (224, 96)  # their pixels
    min_scale_crops: tuple[float, ...] = (0.14, 0.05)  # least share of the picture that a crop shows, by size
    max_scale_crops: tuple[float, ...] = (1.0, 0.14)  # largest share
    blur: Literal["scaled", "fixed"] = "scaled"  # its radius shrinks with crops of less than 224 pixels, or (VISSL) does not
    batch_size: int = 64  # pictures a process
    image_store: Literal["auto", "on", "off"] = "auto"  # decode pictures once, to disk; auto = if half the memory holds them
    recompute: bool = False  # f_intra keeps little for the backward pass and computes it again: less memory, more time
    # what it starts from
    start_from: str = ""  # weights of any ResNet of this arch, inside pretrained_path ("" = at random)
    # clusters
    nmb_prototypes: tuple[int, ...] | Literal["auto"] = "auto"  # prototypes of each head; auto goes by the number of pictures
    temperature: float = 0.1  # of the softmax over prototypes
    freeze_prototypes_niters: int = 0  # steps during which the prototypes stay as they are
    scores: Literal["cosine", "dot"] = "cosine"  # with the prototypes; dot leaves their length in the gradient


@dataclass(kw_only=True)
class JointConfig(VolumeConfig):
    # what it starts from
    resnet_pretrained: str = ""  # weights of stage 1, inside pretrained_path
    trans_pretrained: str = ""  # weights of stage 2, inside pretrained_path
    recompute: bool = False  # f_intra keeps little for the backward pass and computes it again: less memory, more time
    # images beside the volumes
    image_path: str = ""  # folder of pictures, learned in the same steps ("" = none)
    image_batch_size: int = 32  # pictures a process
    image_store: Literal["auto", "on", "off"] = "auto"  # decode pictures once, to disk; auto = if half the memory holds them
    image_min_scale: float = 0.25  # least share of a picture that a crop shows
    # clusters
    nmb_prototypes: tuple[int, ...] | Literal["auto"] = "auto"  # volume prototypes of each head; auto goes by the volumes
    nmb_slice_prototypes: tuple[int, ...] | Literal["auto"] = "auto"  # slice prototypes of each head; auto goes by the slices
    temperature: float = 0.1  # of the softmax over prototypes
    freeze_prototypes_niters: int = 0  # steps during which the prototypes stay as they are
    scores: Literal["cosine", "dot"] = "cosine"  # with the prototypes; dot leaves their length in the gradient
    # L = L_inter + intra_weight L_intra + mask_weight L_mask
    intra_weight: float = 1.0  # weight of the loss of slices and images
    mask_weight: float = 1.0  # weight of the loss of masked slices


@dataclass(kw_only=True)
class FinetuneConfig(Config):
    """What the downstream scripts share."""

    # what it starts from
    start_from: str = ""  # pretrained weights of any stage and origin, inside pretrained_path ("" = random weights)
    resnet_pretrained: str = ""  # weights of stage 1, inside pretrained_path, for a published mask_*.pth, which has no ResNet
    sampling: Literal["", "da018", "da020"] = ""  # of keys of f_inter ("" = as the file tells, or da018 for published ones)
    tune: Literal["full", "frozen", "linear"] = "full"  # all weights; all but the pretrained ones; a linear layer on those
    pretrained_rate: float = 1.0  # learning rate of pretrained weights, as a share of the scheduled one
    # what it learns from, and is judged on
    data_path: str = ""  # folder of labelled data
    labelled: int = 0  # subjects of the training split to learn from, drawn by the seed (0 = all)
    evaluate: Literal["valid", "test", "both", "none"] = "test"  # what the result is judged on, once, after training
    keep: Literal["best", "last"] = "best"  # weights of the epoch that scored best on the validation split; or of the last
    score_every: int = 5  # epochs from one scoring of the validation split to the next
    seeds: tuple[int, ...] = ()  # as many runs, one after the other, and their mean (none = one run, with --seed)
    # optimisation
    warmup_epochs: int = 1  # epochs of linear warm-up, cut to the length of the run
    wd: float = 1e-2  # weight decay


ConfigType = TypeVar("ConfigType")


def parse(config_class: type[ConfigType], argv: list[str] | None = None) -> ConfigType:
    """The configuration that the command line (default: this process's), its `--config` file and its `--preset` ask for.

    Raises `UserError` for an unknown flag (with the nearest one that exists), a value of the wrong type or out of range, an
    unreadable file.
    """
    words = _own_words(config_class, sys.argv[1:] if argv is None else argv)
    file = _last(words, "--config")
    if file:
        of_file, asked = read_flags(config_class, file), _last(words, "--preset")
        stored = _last(of_file, "--preset")
        if asked and stored and asked != stored:
            raise UserError(f"--config {file} holds the constants of preset {stored}; leave out --preset {asked}.")
        words = of_file + words
    preset = preset_file(config_class, _last(words, "--preset"))
    if preset:
        words = read_flags(config_class, str(preset)) + words
    _refuse_unknown(config_class, words)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = tyro.cli(config_class, args=words, use_underscores=True, description=_description())
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_first_sentence(said.getvalue())) from None
    refuse_impossible(config)
    return config


def preset_file(config_class: type, name: str) -> Path | None:
    """The file of a preset's constants for the script that `config_class` stands in; None where it has no such preset."""
    script = Path(inspect.getfile(config_class)).stem
    path = PRESETS / ("released" if name == "vissl" else name) / f"{script}.yaml"
    return path if name and path.is_file() else None


def _last(words: list[str], flag: str) -> str:
    places = [place for place, word in enumerate(words[:-1]) if word == flag]
    return words[places[-1] + 1] if places else ""


def read_flags(config_class: type, path: str) -> list[str]:
    """The words that a configuration file stands for: one flag for each of its lines."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not YAML"
        raise UserError(f"--config {path} cannot be read ({reason}); give a config.yaml as a run writes it.") from None
    if not isinstance(values, dict):
        raise UserError(f"--config {path} holds no `name: value` lines; give a config.yaml as a run writes it.")
    return words_of(config_class, values, where=f" in {path}")


def words_of(config_class: type, values: dict, where: str = "") -> list[str]:
    """The words of the command line that constants by name stand for. Raises `UserError` for one that is no flag."""
    words = []
    for name, value in values.items():
        if name == "format_version":
            continue
        if isinstance(value, bool):
            words += [f"--{name}" if value else f"--no_{name}"]
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    _refuse_unknown(config_class, words, where)
    return words


def as_plain(config: Config) -> dict:
    """The configuration as plain YAML values (tuples become lists)."""
    values = dataclasses.asdict(config)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def write_config(config: Config, path: Path) -> None:
    """Writes every constant of the run; `--config` reads it back."""
    values = {"format_version": FORMAT_VERSION, **as_plain(config), "config": ""}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _description() -> str:
    # its list of what is read and written stays a list
    return re.sub(r"\n(?=\S+ {2,}\S)", "\n\n", (sys.modules["__main__"].__doc__ or "").strip())


def _own_words(config_class: type, argv: list[str]) -> list[str]:
    """Splits `--flag=value`, drops the launcher's `--local-rank`, takes `--flag true` and `--flag false`."""
    switches = {field.name for field in dataclasses.fields(config_class) if field.type is bool}
    words: list[str] = []
    for word in (part for arg in argv for part in (arg.split("=", 1) if arg.startswith("--") else [arg])):
        name = words[-1][2:].replace("-", "_") if words else ""
        if name in switches and word.lower() in ("true", "1", "yes"):
            continue
        if name in switches and word.lower() in ("false", "0", "no"):
            words[-1] = f"--no_{name}"
        elif name == "local_rank" and not word.startswith("-"):
            words.pop()
        else:
            words.append(word)
    return words


def _refuse_unknown(config_class: type, words: list[str], where: str = "") -> None:
    # a positional one is no flag
    fields = [field for field in dataclasses.fields(config_class) if tyro.conf.Positional not in typing.get_args(field.type)]
    known = {field.name for field in fields} | {f"no_{field.name}" for field in fields if field.type is bool}
    for word in words:
        name = word[2:].replace("-", "_")
        if word.startswith("--") and name not in known | {"help"}:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"did you mean --{near[0]}?" if near else "--help lists the flags."
            raise UserError(f"--{name}{where} is not a flag of this script; {hint}")


def _first_sentence(box: str) -> str:
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()]
    body = lines[1 : next((i for i, line in enumerate(lines) if i and set(line) == {"─"}), len(lines))]
    said = re.sub(r"\s+", " ", " ".join(body)).strip()
    several = " Several values are separated by blanks." if re.search("Expected [2-9] values", said) else ""
    return f"{said.removesuffix('.')}; --help describes every flag.{several}"
