"""Weight files from one form into another: the same function under other names.

Reads    any weight file: of this project, published, VISSL's, torchvision's, safetensors
Writes   --to ours         this project's form, with its constants
         --to released     the published names and shapes, for networks that compute what the published ones compute
         --to vissl        VISSL's checkpoint of stage 1
         --to torchvision  the ResNet alone, by the names of torchvision, timm and segmentation-models-pytorch
         --to safetensors  this project's form without pickles, and a model card beside it
         --to onnx         two graphs: pictures to embeddings, volumes to embeddings
Run      python convert_weights.py --weights weights/swav3D.pth --to safetensors
"""

import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch

from engine.checkpoint import sha256, write_atomically
from engine.config import parse
from engine.errors import UserError, speaking_to_people
from engine.model_card import model_card
from engine.weights import FORMAT_VERSION, write_weights
from models.onnx_export import export_slices, export_volumes
from models.pretrained import DEFAULTS, OTHER_HEADS, PUBLISHED_SEED, RESNET, check_weights, load_encoders
from models.released import to_released
from models.slice_encoder import adapt_stem
from models.vissl import to_vissl
from models.weight_files import OURS, Weights, architecture, read_weights

# parts of our files that published ones have a place for
KEPT = {"mask": ("masked.",), "joint": ("masked.volume_encoder.", "slice_encoder.", "prototypes.volumes.")}
ENDINGS = {"safetensors": ".safetensors", "onnx": ".onnx", "vissl": ".torch"}


@dataclass(kw_only=True)
class ConvertConfig:
    weights: str = ""  # the file to convert
    to: Literal["ours", "released", "vissl", "torchvision", "safetensors", "onnx"] = "torchvision"  # the form wanted
    output: str = ""  # the file to write ("" = <name>_<form> beside the input)
    heads: bool = False  # keep the head and prototypes of stage 1, too (ours, safetensors)
    channels: int = 3  # of the pictures that the ResNet takes; its first layer is adapted
    sampling: Literal["", "da018", "da020"] = ""  # of keys, for onnx ("" = as the file tells, or da018)
    resnet_pretrained: str = ""  # file of stage 1 for weights without a ResNet (published mask_*.pth), for onnx
    overwrite: bool = False  # replace the file to write
    config: str = ""  # YAML file with any of these constants; flags win over it


def main(config: ConvertConfig) -> None:
    if not config.weights:
        raise UserError("Nothing is to be converted; name a weight file with --weights.")
    weights = read_weights(config.weights)
    source = weights.path
    output = Path(config.output or source.with_name(f"{source.stem}_{config.to}{ENDINGS.get(config.to, '.pth')}"))
    refuse_what_has_no_effect(weights, config)
    refuse_output(output, weights, config)
    print(*check_weights(weights), sep="\n")
    with_channels(weights, config.channels)
    if config.sampling:
        weights.config = {**weights.config, "sampling": config.sampling}
    WRITERS[config.to](weights, output, config)
    print(*(f"wrote {path}" for path in written(output, config.to, weights)), sep="\n")


def refuse_what_has_no_effect(weights: Weights, config: ConvertConfig) -> None:
    """A flag that would change nothing in the file wanted is a mistake."""
    if config.heads and (config.to not in ("ours", "safetensors") or weights.stage != "image"):
        raise UserError("--heads keeps those of stage 1 in files of --to ours and safetensors; leave it out here.")
    if config.heads and not weights.heads:
        raise UserError(f"{weights.path} holds no heads that are known; leave out --heads.")
    if config.sampling and (config.to not in ("ours", "safetensors", "onnx") or weights.stage == "image"):
        raise UserError(f"--sampling can't be said in a file of --to {config.to} for {weights}; leave it out.")
    if config.resnet_pretrained and config.to != "onnx":
        raise UserError("--resnet_pretrained is read for --to onnx alone; leave it out.")


def refuse_output(output: Path, weights: Weights, config: ConvertConfig) -> None:
    if not output.parent.is_dir() or output.is_dir():
        raise UserError(f"--output {output} is {'a folder' if output.is_dir() else 'in no folder that is there'}; name a file.")
    if config.to in ("safetensors", "onnx") and output.suffix != ENDINGS[config.to]:
        raise UserError(f"--output {output} does not end in {ENDINGS[config.to]}, by which readers know such a file.")
    for path in written(output, config.to, weights):
        if path.exists() and not config.overwrite:
            raise UserError(f"{path} is there already; choose another --output, or replace it with --overwrite.")


def written(output: Path, form: str, weights: Weights) -> list[Path]:
    """The files that a conversion writes."""
    if form == "safetensors":
        return [output, output.with_suffix(".md")]
    if form == "onnx":
        kinds = ["slices"] if weights.stage == "image" else ["slices", "volumes"]
        return [output.with_name(f"{output.stem}_{kind}.onnx") for kind in kinds]
    return [output]


def with_channels(weights: Weights, channels: int) -> None:
    """Adapts the first layer of the ResNet, where the file has one."""
    for name in {"conv1.weight", RESNET + "conv1.weight"} & set(weights.state):
        weights.state[name] = adapt_stem(weights.state[name], channels)


def about(weights: Weights) -> dict:
    """What a converted file says of itself: what its source says, and the source as its input."""
    now = {"stage": weights.stage, "method": weights.method, "config": weights.config}
    known = {"run": None, **weights.about, **now}
    return {**known, "inputs": {**known.get("inputs", {}), str(weights.path): sha256(weights.path)}}


def resnet_of(weights: Weights) -> dict[str, torch.Tensor]:
    """The ResNet alone, by torchvision's names, without a classifier."""
    if weights.stage == "image":
        return {name: value for name, value in weights.state.items() if not name.startswith(OTHER_HEADS)}
    state = {name.removeprefix(RESNET): value for name, value in weights.state.items() if name.startswith(RESNET)}
    if not state:
        raise UserError(f"{weights.path} holds no ResNet; convert the file of stage 1 that belongs to it.")
    return state


def write_ours(weights: Weights, output: Path, config: ConvertConfig) -> None:
    if weights.stage == "image":
        heads = weights.heads if config.heads else {}
        write_weights(output, resnet_of(weights) | heads, about(weights), flat=not heads)
    else:
        write_weights(output, weights.state, about(weights))


def write_torchvision(weights: Weights, output: Path, config: ConvertConfig) -> None:
    write_atomically(output, lambda path: torch.save(OrderedDict(resnet_of(weights)), path))


def write_safetensors(weights: Weights, output: Path, config: ConvertConfig) -> None:
    state = weights.state if weights.stage != "image" else resnet_of(weights) | (weights.heads if config.heads else {})
    said = {"format_version": FORMAT_VERSION, **about(weights)}
    tensors = {name: value.contiguous().clone() for name, value in state.items()}
    metadata = {"format": "pt", OURS: json.dumps(said)}
    write_atomically(output, lambda path: safetensors.torch.save_file(tensors, path, metadata))
    card = model_card(output.name, said, tensors, sha256(output))
    write_atomically(output.with_suffix(".md"), lambda path: path.write_text(card, encoding="utf-8"))


def write_released(weights: Weights, output: Path, config: ConvertConfig) -> None:
    if weights.stage == "image":
        refuse_other_resnet(weights, architecture(resnet_of(weights)), config)
        return write_torchvision(weights, output, config)
    known = {**DEFAULTS, **weights.config}
    arch = architecture(resnet_of(weights)) if weights.stage == "joint" else known.get("arch", "resnet50")
    refuse_other_resnet(weights, arch, config)
    only = {"attention": "features", "slice_embedding": "published", "d_model": 640}
    if weights.stage == "mask":
        only["masking"] = "published"
    for name, published in only.items():
        if known[name] != published:
            raise UserError(
                f"{weights.path} was made with --{name} {known[name]}, which no published file can hold ({published} there); "
                "train with --preset released."
            )
    state = dict(weights.state)
    if known.get("scores") == "cosine":
        for name in [name for name in state if name.startswith("prototypes.volumes.")]:
            state[name] = torch.nn.functional.normalize(state[name], dim=1)
    content = {"epoch": known.get("epochs", 0), "state_dict": OrderedDict(to_released(weights.stage, state))}
    dropped = sorted(name for name in state if not name.startswith(KEPT[weights.stage]))
    if dropped:
        print(f"{len(dropped)} tensors have no place in published files and are left out ({', '.join(dropped[:3])}, …)")
    if weights.stage == "mask" and known.get("seed", PUBLISHED_SEED) != PUBLISHED_SEED:
        print(f"The map to D, drawn by seed {known['seed']}, is left out; the published code draws one by {PUBLISHED_SEED}.")
    if known.get("normalise", "none") != "none":
        print(f"The published code takes intensities as they are; these networks had --normalise {known['normalise']}.")
    write_atomically(output, lambda path: torch.save(content, path))


def refuse_other_resnet(weights: Weights, arch: str, config: ConvertConfig) -> None:
    if arch != "resnet50" or config.channels != 3:
        raise UserError(
            f"{weights.path} holds a {arch}, wanted with {config.channels} channels; a published file is of a resnet50 of 3."
        )


def write_vissl(weights: Weights, output: Path, config: ConvertConfig) -> None:
    heads = weights.heads if weights.stage == "image" else {}
    last = about(weights)["config"].get("epochs", 1) - 1
    said = {**about(weights), "stage": "image"}
    content = to_vissl(resnet_of(weights), heads, weights.method, phase=last, steps=0, about=said)
    write_atomically(output, lambda path: torch.save(content, path))


def write_onnx(weights: Weights, output: Path, config: ConvertConfig) -> None:
    encoders, said = load_encoders(weights.path, config.sampling, config.resnet_pretrained, config.channels)
    print(*said, sep="\n")
    encoders.to(torch.device("cpu"))
    paths = written(output, "onnx", weights)
    # a grey picture is all that a stem of three channels needs
    export_slices(encoders.slice_encoder, paths[0], 1 if config.channels == 3 else config.channels)
    if encoders.volume_encoder is not None:
        export_volumes(encoders.slice_encoder, encoders.volume_encoder, paths[1])


WRITERS = {
    "ours": write_ours,
    "released": write_released,
    "vissl": write_vissl,
    "torchvision": write_torchvision,
    "safetensors": write_safetensors,
    "onnx": write_onnx,
}


if __name__ == "__main__":
    with speaking_to_people():
        main(parse(ConvertConfig))
