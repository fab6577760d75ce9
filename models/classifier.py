"""A classifier of images or volumes: the embedding of pretrained encoders, and a head that tells the class."""

from typing import Literal

import torch
from torch import nn

from .downstream import DownstreamWeights
from .pretrained import Encoders
from .starts import encoders_of

HIDDEN_DIM = 512  # of the head with a hidden layer
LEAST_DEVIATION = 0.01  # of the mean deviation: a feature that hardly varies in training is not blown up elsewhere


class Classifier(nn.Module):
    """Pixels → logits of K classes.

    what: images are embedded by the last stage of f_intra; volumes by f_inter or, where the encoders have none, by the mean of
    f_intra's last stage over their slices: as `evaluate_embeddings.py` does. tune: "full" learns everything, with a linear
    head; "linear" and "frozen" keep the encoders as they are, statistics of batch norms included, under a linear head or one
    with a hidden layer. These two see features of mean 0 and deviation 1 (`set_standard`), as nothing else can rescale them.
    """

    def __init__(self, encoders: Encoders, what: Literal["images", "volumes"], classes: int, tune: str = "full"):
        super().__init__()
        self.what, self.frozen = what, tune != "full"
        self.slice_encoder = encoders.slice_encoder
        self.volume_encoder = encoders.volume_encoder if what == "volumes" else None
        if self.volume_encoder is None:
            self.slice_encoder.to_embedding = nn.Identity()  # the map to D is f_inter's alone
        self.embedding_dim = self.slice_encoder.pooled_dim if self.volume_encoder is None else encoders.d_model
        self.standardise = Standardise(self.embedding_dim) if self.frozen else nn.Identity()
        hidden = [nn.Linear(self.embedding_dim, HIDDEN_DIM), nn.GELU()] if tune == "frozen" else []
        self.head = nn.Sequential(*hidden, nn.Linear(HIDDEN_DIM if hidden else self.embedding_dim, classes))
        if self.frozen:
            for encoder in self._encoders():
                encoder.requires_grad_(False)

    def forward(self, pixels: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Images (B, 1 or 3, H, W); or volumes (B, N, H, W) or (B, N, 3, H, W), real (B, N) bool → logits (B, K) float."""
        embedded = self.embed(pixels, real)
        # not under autocast: the ranks of probabilities that differ little would be lost
        with torch.autocast(embedded.device.type, enabled=False):
            return self.head(self.standardise(embedded.to(self.head[-1].weight.dtype)))

    def embed(self, pixels: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """(B, embedding_dim): what the head stands on; without gradients where the encoders are frozen."""
        encoders = Encoders(self.slice_encoder, self.volume_encoder, {})
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self.what == "images":
                return encoders.embed_images(pixels)
            # of unit root mean square, as weights of a linear layer are made for
            return encoders.embed_volumes(pixels, real) * self.embedding_dim**0.5

    def train(self, mode: bool = True) -> "Classifier":
        """As any module's, but frozen encoders stay in eval mode."""
        super().train(mode)
        for encoder in self._encoders() if self.frozen else ():
            encoder.eval()
        return self

    def set_standard(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Mean and deviation (embedding_dim,) of the embeddings of the files that are learned from."""
        self.standardise.set_(mean, deviation)

    def _encoders(self) -> list[nn.Module]:
        return [encoder for encoder in (self.slice_encoder, self.volume_encoder) if encoder is not None]


class Standardise(nn.Module):
    """(B, D) features less a mean, divided by a deviation, both kept as buffers."""

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) / self.deviation

    def set_(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        self.mean.copy_(mean)
        self.deviation.copy_(
            deviation.clamp_min((LEAST_DEVIATION * deviation.mean()).clamp_min(torch.finfo(torch.float32).tiny))
        )


def load_classifier(weights: DownstreamWeights) -> Classifier:
    """The network in a file of finetune_classification.py, in eval mode. Raises `WeightsError` where its tensors do not fit."""
    about = weights.about
    encoders = encoders_of(about["network"], weights.path)
    model = Classifier(encoders, about["shown"]["what"], len(about["classes"]), about["tune"])
    weights.load_into(model)
    return model.eval()
