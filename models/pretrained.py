"""From weight files into networks, with a sentence for what was loaded, and one for each thing that can be wrong."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from .errors import WeightsError
from .joint import JointModel
from .masked_volume import MaskedVolumeModel
from .slice_encoder import SliceEncoder, adapt_stem, draw_published_map, embed_slices
from .volume_encoder import VolumeEncoder, volume_embedding
from .weight_files import STAGES, Weights, architecture, read_weights, understood

# constants that shape or steer the networks, with what they were before files named them
DEFAULTS = {
    "attention": "slices",
    "sampling": "da020",
    "slice_embedding": "unit",
    "masking": "filled",
    "target_shape": [64, 128, 128],
}
# the seed of the published scripts, by which stages 2 and 3 drew one and the same map
PUBLISHED_SEED = 31
RESNET = "slice_encoder.resnet."
# what ResNet files of others have besides: a classifier, SwAV's own heads
OTHER_HEADS = ("fc.", "projection_head.", "prototypes")


def make_encoders(config, identity: bool = True) -> tuple[SliceEncoder, VolumeEncoder]:
    """f_intra and f_inter with random weights, from the constants of stage 2 or 3; `identity`: how f_inter starts."""
    recompute = getattr(config, "recompute", False)  # no constant of stage 2
    slice_encoder = SliceEncoder(config.arch, config.d_model, config.slice_embedding, recompute=recompute)
    volume_encoder = VolumeEncoder(
        config.d_model,
        dropout=config.dropout,
        axis=config.attention,
        slices=config.target_shape[0],
        sampling=config.sampling,
        identity=identity,
    )
    return slice_encoder, volume_encoder


def load_resnet(encoder: SliceEncoder, path: str | Path) -> str:
    """Loads a ResNet of stage 1 (ours, published, VISSL's, torchvision's) into the encoder; says what was loaded."""
    weights = expect_stage(path, "image")
    found = known_architecture(weights)
    if found != encoder.arch:
        raise WeightsError(
            f"{path} holds a {found}, but --arch is {encoder.arch}; name a {encoder.arch} file, or set --arch {found}."
        )
    return _load(encoder.resnet, _fit_stem(weights.state, "conv1.weight", encoder), weights, left_out=OTHER_HEADS)


def load_joint_start(model: JointModel, resnet: str | Path, mask: str | Path, seed: int) -> list[str]:
    """Starts stage 3: f_intra with its map to D, f_inter, token and decoder from stage 2; the ResNet from stage 1.

    A published file of stage 2 has no map: it is drawn by `seed`, as the published code draws it.
    """
    said = [load_masked(model.slice_encoder, model.masked, mask, seed)]
    return [*said, load_resnet(model.slice_encoder, resnet)]


def load_masked(slice_encoder: SliceEncoder, masked: MaskedVolumeModel, path: str | Path, seed: int = PUBLISHED_SEED) -> str:
    """Loads what stage 2 wrote, here or in the published code; says what was loaded."""
    weights = expect_stage(path, "mask")
    _check(weights, slice_encoder, masked.volume_encoder, masked.token_alone)
    module = nn.ModuleDict({"slice_encoder": slice_encoder, "masked": masked})
    if _has_f_intra(weights):
        return _load(module, weights.state, weights)
    draw_published_map(slice_encoder, seed)
    return _load(module, weights.state, weights, made_here=("slice_encoder.",))


def expect_stage(path: str | Path, stage: str) -> Weights:
    """The content of a weight file of the given stage. Raises `WeightsError` for another stage's."""
    weights = read_weights(path)
    if weights.stage != stage:
        raise WeightsError(f"{path} is from {STAGES[weights.stage]}, but a file of {STAGES[stage]} is needed here.")
    return weights


@dataclass
class Encoders:
    """f_intra and, after stages 2 and 3, f_inter, in eval mode, with the constants of the run that made them."""

    slice_encoder: SliceEncoder
    volume_encoder: VolumeEncoder | None
    config: dict

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
        return F.normalize(pooled.sum(1) / real.sum(1, keepdim=True).to(pooled.device, non_blocking=True), dim=-1)


def check_weights(weights: Weights) -> list[str]:
    """What is said of loading weights into networks of their constants. Raises `WeightsError` where they do not fit."""
    if weights.stage == "image" or _has_f_intra(weights):
        return load_encoders(weights.path)[1]
    config = {**DEFAULTS, "arch": "resnet50", **weights.config}
    with understood(weights.path):
        _, f_inter = make_encoders(SimpleNamespace(**{**config, "dropout": 0.0}))
        masked = MaskedVolumeModel(f_inter, config["d_model"], config["masking"] == "published")
    return [_load(nn.ModuleDict({"masked": masked}), weights.state, weights)]


@torch.random.fork_rng(devices=[])  # what is built on the encoders begins alike, whatever they were read from
def load_encoders(
    path: str | Path, sampling: str = "", resnet: str | Path = "", channels: int = 3
) -> tuple[Encoders, list[str]]:
    """The encoders in a weight file of any stage and origin, and what is to be said about loading them.

    sampling: where f_inter reads its keys ("" = as the file tells, or da018 for published files, which do not tell and whose
    environment pins that one). resnet: weights of stage 1 for a published file of stage 2, which has none. channels: of the
    pictures that the stem takes. Raises `WeightsError`, and ValueError for a sampling or channels that there are not.
    """
    if sampling not in ("", "da018", "da020") or channels < 1:
        raise ValueError(f"sampling {sampling!r} or channels {channels} are none; use da018 or da020, and 1 channel or more.")
    weights = read_weights(path)
    config, state, said = {**DEFAULTS, **weights.config}, weights.state, []
    if weights.stage == "image":
        encoder = SliceEncoder(known_architecture(weights), channels=channels)
        said = [_load(encoder.resnet, _fit_stem(state, "conv1.weight", encoder), weights, left_out=OTHER_HEADS)]
        return Encoders(encoder, None, weights.config), said
    told = "sampling" in weights.config or config["attention"] == "slices"
    config["sampling"] = sampling or (config["sampling"] if told else "da018")
    if not told:
        said = [
            f"{path}: keys are sampled as deformable-attention {'0.0.18' if config['sampling'] == 'da018' else '0.0.20'} does; "
            "the published environment pins 0.0.18 (--sampling chooses)."
        ]
    resnet_state = {n.removeprefix(RESNET): v for n, v in state.items() if n.startswith(RESNET)}
    made_here = () if resnet_state else ("slice_encoder.",)
    if not resnet_state and not resnet:
        raise WeightsError(f"{path} holds no ResNet; name the file of stage 1 that belongs to it with --resnet_pretrained.")
    config["arch"] = known_architecture(replace(weights, state=resnet_state) if resnet_state else expect_stage(resnet, "image"))
    with understood(weights.path):
        f_intra = SliceEncoder(config["arch"], config["d_model"], config["slice_embedding"], channels)
        _, f_inter = make_encoders(SimpleNamespace(**{**config, "dropout": 0.0}))
    if not resnet_state:
        draw_published_map(f_intra, PUBLISHED_SEED)
    module = nn.ModuleDict({"slice_encoder": f_intra, "masked": nn.ModuleDict({"volume_encoder": f_inter})})
    state = _fit_stem(state, RESNET + "conv1.weight", f_intra)
    heads = ("masked.token", "masked.decoder.", "slice_head.", "prototypes.")
    said.append(_load(module, state, weights, made_here, left_out=heads))
    if not resnet_state:
        said.append(load_resnet(f_intra, resnet))
    return Encoders(f_intra, f_inter, config), said


def random_encoders(arch: str, d_model: int, seed: int, volumes: bool = False) -> Encoders:
    """f_intra with seeded random weights, for comparison; `volumes`: with an f_inter, which begins as the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # that of the CPU alone, which is the one that is forked
        return Encoders(SliceEncoder(arch, d_model), VolumeEncoder(d_model, dropout=0.0) if volumes else None, {})


def known_architecture(weights: Weights) -> str:
    """The ResNet of weights of stage 1. Raises `WeightsError` for one that is not built here."""
    found = architecture(weights.state)
    if not found.startswith("resnet"):
        raise WeightsError(f"{weights.path} holds a {found}; ResNet-18, 34, 50 and 101 are known here.")
    return found


def _has_f_intra(weights: Weights) -> bool:
    """Whether a file of stage 2 or 3 has the ResNet and the map; published ones of stage 2 have neither."""
    return any(name.startswith(RESNET) for name in weights.state)


def _fit_stem(state: dict[str, torch.Tensor], name: str, encoder: SliceEncoder) -> dict[str, torch.Tensor]:
    if name not in state or state[name].ndim != 4 or not state[name].shape[1]:
        return state
    return {**state, name: adapt_stem(state[name], encoder.resnet.conv1.in_channels)}


def _check(weights: Weights, slice_encoder: SliceEncoder, volume_encoder: VolumeEncoder, token_alone: bool) -> None:
    """Refuses a file of stage 2 whose constants are not those of the networks, naming the flag that would fit."""
    config = {**DEFAULTS, **weights.config}
    wanted = {
        "arch": slice_encoder.arch,
        "d_model": slice_encoder.embedding_dim,
        "attention": volume_encoder.axis,
        "sampling": volume_encoder.sampling,
        "slice_embedding": slice_encoder.embedding,
        "masking": "published" if token_alone else "filled",
    }
    for flag in {"arch", "sampling"} - weights.config.keys() if config["attention"] == "features" else ():
        config[flag] = wanted[flag]  # published files do not say
    for flag, value in wanted.items():
        if config[flag] != value:
            raise WeightsError(
                f"{weights.path} was made with --{flag} {config[flag]}, not {value}; set --{flag} {config[flag]}"
                + (", or --preset released." if weights.origin == "published" else ".")
            )
    if volume_encoder.slices and volume_encoder.slices != config["target_shape"][0]:
        raise WeightsError(f"{weights.path} is bound to {config['target_shape'][0]} slices; make that --target_shape's first.")


def _load(
    module: nn.Module, state: dict[str, torch.Tensor], weights: Weights, made_here: tuple = (), left_out: tuple = ()
) -> str:
    """Loads tensors by name, and says how many. made_here: what the file may lack; left_out: what it may have besides."""
    own = module.state_dict()
    missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
    # the files of an old torchvision count no batches
    lacking = [name for name in missing if not name.startswith(made_here) and not name.endswith("num_batches_tracked")]
    besides = [name for name in unexpected if not name.startswith(left_out)]
    shaped = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    wrong = [(lacking, "missing"), (besides, "unexpected"), (shaped, "of another shape")]
    if any(names for names, _ in wrong):
        faults = "; ".join(f"{_some(names)} {what}" for names, what in wrong if names)
        raise WeightsError(f"{weights.path} does not fit this network ({faults}); name a file of the same kind.")
    module.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)
    return (
        f"{weights}: {len(own) - len(missing)} tensors loaded, {len(missing)} missing{_roots(missing)}, "
        f"{len(unexpected)} unexpected{_roots(unexpected, ', not used here')}"
    )


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _roots(names: set[str], remark: str = "") -> str:
    roots = sorted({name.split(".")[0] if "." in name else name for name in names})
    return f" ({', '.join(roots)}{remark})" if roots else ""
