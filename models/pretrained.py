"""Weight files of the stages: reading them into networks, with a sentence for each thing that can be wrong with one."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .errors import WeightsError
from .joint import JointModel
from .masked_volume import MaskedVolumeModel
from .slice_encoder import SliceEncoder, embed_slices
from .volume_encoder import VolumeEncoder, volume_embedding

STAGES = {"image": "stage 1 (ssl_*_2D.py)", "mask": "stage 2 (mask_*_3D.py)", "joint": "stage 3 (ssl_*_3D.py)"}


def read_weights(path: str | Path) -> dict:
    """{"stage", "model", …} of a weight file: tensors by name under `model`; a flat file is one of stage "image".

    Raises `WeightsError` when there is no such file, or it holds no weights. No code in it is run.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"{path} is missing; train the stage that writes it, put a released file there, or name another (training: "
            "--pretrained_path, --resnet_pretrained, --trans_pretrained; evaluation: --weights)."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise WeightsError(f"{path} is no weight file that can be read ({reason}); replace it.") from None
    if isinstance(content, dict) and isinstance(content.get("model"), dict) and content.get("stage") in STAGES:
        return content
    if isinstance(content, dict) and "conv1.weight" in content and all(isinstance(v, torch.Tensor) for v in content.values()):
        return {"stage": "image", "model": dict(content), **getattr(content, "_metadata", {}).get("joint_ssl", {})}
    raise WeightsError(f"{path} holds no weights of a stage; give a file written by {', '.join(STAGES.values())}.")


def load_resnet(encoder: SliceEncoder, path: str | Path) -> None:
    """Loads the flat torchvision names of stage 1 into the encoder's ResNet; a classifier `fc` in the file is left out."""
    content = expect_stage(path, "image")
    state = {name: value for name, value in content["model"].items() if not name.startswith("fc.")}
    found = architecture(state)
    if found != encoder.arch:
        raise WeightsError(
            f"{path} holds a {found}, but --arch is {encoder.arch}; name a {encoder.arch} file, or set --arch {found}."
        )
    load_exactly(encoder.resnet, state, path)


def load_joint_start(model: JointModel, resnet: str | Path, mask: str | Path) -> None:
    """Starts stage 3: f_intra with its map to D, f_inter, token and decoder from stage 2; the ResNet from stage 1."""
    load_masked(model.slice_encoder, model.masked, mask)
    load_resnet(model.slice_encoder, resnet)


def load_masked(slice_encoder: SliceEncoder, masked: MaskedVolumeModel, path: str | Path) -> None:
    """Loads what stage 2 wrote."""
    content = expect_stage(path, "mask")
    check_config(path, content, slice_encoder)
    load_exactly(nn.ModuleDict({"slice_encoder": slice_encoder, "masked": masked}), content["model"], path)


def expect_stage(path: str | Path, stage: str) -> dict:
    """The content of a weight file of the given stage. Raises `WeightsError` for another stage's."""
    content = read_weights(path)
    if content["stage"] != stage:
        raise WeightsError(f"{path} is from {STAGES[content['stage']]}, but a file of {STAGES[stage]} is needed here.")
    return content


def check_config(path: str | Path, content: dict, encoder: SliceEncoder) -> None:
    config = content["config"]
    for flag, wanted in [("arch", encoder.arch), ("d_model", encoder.embedding_dim)]:
        if config[flag] != wanted:
            raise WeightsError(f"{path} was made with --{flag} {config[flag]}, not {wanted}; set --{flag} {config[flag]}.")


def load_exactly(module: nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Loads a state dict of just the module's names and shapes."""
    own = module.state_dict()
    names = sorted(own.keys() ^ state.keys()) + [n for n in own if n in state and own[n].shape != state[n].shape]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise WeightsError(
            f"{path} does not fit this network: {', '.join(names[:3])}{more} differ; name a file of the same kind."
        )
    module.load_state_dict(state)


def architecture(state: dict[str, torch.Tensor]) -> str:
    """Which ResNet a flat state dict is of, by its blocks."""
    blocks = [len({name.split(".")[1] for name in state if name.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4)]
    deep = "layer1.0.conv3.weight" in state
    kinds = {(False, 8): "resnet18", (False, 16): "resnet34", (True, 16): "resnet50", (True, 33): "resnet101"}
    return kinds.get((deep, sum(blocks)), f"network of {sum(blocks)} blocks")


@dataclass
class Encoders:
    """f_intra and, after stages 2 and 3, f_inter, in eval mode."""

    slice_encoder: SliceEncoder
    volume_encoder: VolumeEncoder | None = None

    @property
    def arch(self) -> str:
        return self.slice_encoder.arch

    @property
    def d_model(self) -> int:
        return self.slice_encoder.embedding_dim

    def to(self, device: torch.device) -> None:
        for part in filter(None, (self.slice_encoder, self.volume_encoder)):
            part.to(device).eval()

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """images (B, 1, H, W) → (B, pooled_dim): the last stage of f_intra, which stage 1 trains."""
        return self.slice_encoder.pooled(images)

    def embed_volumes(self, pixels: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """pixels (B, N, H, W), real (B, N) → volume embeddings (B, D), or without f_inter the mean last stage."""
        if self.volume_encoder is not None:
            return volume_embedding(self.volume_encoder(embed_slices(self.slice_encoder, pixels, real), real), real)
        pooled = embed_slices(self.slice_encoder.pooled, pixels, real)
        return F.normalize(pooled.sum(1) / real.sum(1, keepdim=True), dim=-1)


def load_encoders(path: str | Path) -> Encoders:
    """The encoders in a weight file of any stage."""
    content = read_weights(path)
    if content["stage"] == "image":
        encoder = SliceEncoder(architecture(content["model"]))
        load_resnet(encoder, path)
        return Encoders(encoder)
    config, state = content["config"], content["model"]
    encoders = Encoders(SliceEncoder(config["arch"], config["d_model"]), VolumeEncoder(config["d_model"]))
    for part, prefix in [(encoders.slice_encoder, "slice_encoder."), (encoders.volume_encoder, "masked.volume_encoder.")]:
        load_exactly(part, {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}, path)
    return encoders


def random_encoders(arch: str, d_model: int, seed: int) -> Encoders:
    """f_intra with seeded random weights, for comparison."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoders(SliceEncoder(arch, d_model))
