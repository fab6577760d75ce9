"""What downstream networks start from: encoders of any weight file, completed by random parts that it has not."""

from pathlib import Path

import torch

from .errors import WeightsError
from .pretrained import Encoders, load_encoders, random_encoders
from .slice_encoder import SliceEncoder, orthogonal_map
from .volume_encoder import VolumeEncoder


def starting_encoders(
    path: Path | str, arch: str, d_model: int, with_volumes: bool, sampling: str = "", resnet: Path | str = "", seed: int = 31
) -> tuple[Encoders, list[str]]:
    """f_intra and, `with_volumes`, f_inter to start from, and what is to be said of them. path: "" for random weights.

    arch, d_model: where no file tells. What a file does not have (f_inter and the map to D after stage 1) is made as stage 2
    begins: a seeded rotation of the features, and an f_inter that changes nothing yet. The caller's random numbers stay as they
    are, so that decoders on different starts begin alike.
    """
    if not path:
        encoders, said = random_encoders(arch, d_model, seed), ["no pretrained weights: a start at random"]
    else:
        encoders, said = load_encoders(path, sampling, resnet)
    f_intra = encoders.slice_encoder
    if not with_volumes:
        return Encoders(f_intra, None, encoders.config), said
    if encoders.volume_encoder is not None and encoders.volume_encoder.slices:
        raise WeightsError(
            f"{path} has an f_inter along features (--attention features), which tells nothing "
            "of a slice by itself; leave out --context."
        )
    if encoders.volume_encoder is None:
        with torch.no_grad():
            f_intra.to_embedding.weight.copy_(orthogonal_map(f_intra.feature_dim, f_intra.embedding_dim, seed))
            f_intra.to_embedding.bias.zero_()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            f_inter = VolumeEncoder(f_intra.embedding_dim, dropout=0.0)
        return Encoders(f_intra, f_inter, encoders.config), said
    return encoders, said


def network_constants(encoders: Encoders) -> dict:
    """What `encoders_of` needs to build the same encoders, as plain values."""
    f_intra, f_inter = encoders.slice_encoder, encoders.volume_encoder
    constants = {"arch": f_intra.arch, "d_model": f_intra.embedding_dim, "slice_embedding": f_intra.embedding}
    if f_inter is not None:
        constants |= {"attention": f_inter.axis, "sampling": f_inter.sampling, "slices": f_inter.slices}
    return constants


def encoders_of(constants: dict, path: Path) -> Encoders:
    """Encoders without weights, by what a downstream weight file at `path` says. Raises `WeightsError` for nonsense."""
    try:
        f_intra = SliceEncoder(constants["arch"], constants["d_model"], constants["slice_embedding"])
        f_inter = None
        if "attention" in constants:
            f_inter = VolumeEncoder(
                constants["d_model"], dropout=0.0, axis=constants["attention"], sampling=constants["sampling"],
                slices=constants["slices"] or 64,
            )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} does not say which network it is of ({error}); replace it.") from None
    return Encoders(f_intra, f_inter, {})
