"""Stands in for VISSL's script of the same name: a checkpoint's trunk by torchvision's names, without `_feature_blocks.`.

When the checkpoint tells its method, the file that stage 2 reads by default is written as well, unless another's is there.

Reads    a checkpoint of VISSL or of vissl/tools/run_distributed_engines.py
Writes   <output_dir>/converted_vissl_<output_name>.torch, and weights/resnet_{swav,deepcluster}2D.pth
Run      python vissl/extra_scripts/convert_vissl_to_torchvision.py \\
             --model_url_or_file FILE --output_dir weights --output_name NAME
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.checkpoint import sha256, write_atomically
from engine.config import parse
from engine.errors import UserError, speaking_to_people
from engine.weights import refuse_foreign, write_weights
from models.weight_files import Weights, architecture, read_weights


@dataclass(kw_only=True)
class ConversionConfig:
    model_url_or_file: str = ""  # the checkpoint (a file: nothing is downloaded here)
    output_dir: str = ""  # an existing folder
    output_name: str = ""  # the file becomes converted_vissl_<output_name>.torch
    config: str = ""  # YAML file with any of these constants; flags win over it


def main(config: ConversionConfig) -> None:
    for name in ("model_url_or_file", "output_dir", "output_name"):
        if not getattr(config, name):
            raise UserError(f"--{name} is missing; --help describes it.")
    if "://" in config.model_url_or_file:
        raise UserError(f"--model_url_or_file {config.model_url_or_file} is not a file; download it and name the file.")
    folder = Path(config.output_dir)
    if not folder.is_dir():
        raise UserError(f"--output_dir {folder} is not a folder; make it first.")
    print("This stands in for VISSL's converter.")
    weights = read_weights(config.model_url_or_file)
    if weights.origin != "VISSL":
        raise UserError(f"{weights.path} is no checkpoint of VISSL but of {weights.origin}; it needs no conversion.")
    path = folder / f"converted_vissl_{config.output_name}.torch"
    write_atomically(path, lambda temporary: torch.save(weights.state, temporary))
    print(f"wrote {path}: {len(weights.state)} tensors", write_for_stage_2(weights), sep="\n")


def write_for_stage_2(weights: Weights) -> str:
    """Writes what `mask_*_3D.py` reads by default; says what was done."""
    arch = architecture(weights.state)
    if weights.method == "unknown" or not arch.startswith("resnet"):
        return f"the {arch} of an {weights.method} method is nobody's default: name the file to stage 2 by --resnet_pretrained."
    path = Path("weights") / f"resnet_{weights.method}2D.pth"
    # the same checkpoint, or a later one of the same run, may replace what an earlier conversion wrote
    about = weights.about or {
        "run": f"VISSL {sha256(weights.path)}",
        "config": {**weights.config, "arch": arch},
        "inputs": {str(weights.path): sha256(weights.path)},
    }
    try:
        refuse_foreign(path, about.get("run"), overwrite=False)
    except UserError:
        return f"{path} was written by another run and stays: remove it and convert again, or use --resnet_pretrained."
    write_weights(path, weights.state, {**about, "stage": "image", "method": weights.method}, flat=True)
    return f"wrote {path}, which mask_{weights.method}_3D.py reads"


if __name__ == "__main__":
    with speaking_to_people():
        main(parse(ConversionConfig))
