"""A U-Net on slices whose encoder is f_intra; with context, f_inter tells it what the slice is in its volume."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import nn

from .downstream import DownstreamWeights
from .slice_encoder import SliceEncoder, rows_of
from .starts import encoders_of
from .volume_encoder import VolumeEncoder

DECODER = (256, 128, 64, 32, 16)  # channels of its five blocks, segmentation-models-pytorch's own
STRIDE = 32  # of the deepest maps: height and width are multiples of it
PRETRAINED = ("slice_encoder.", "volume_encoder.")  # what names of parameters that come from pre-training begin with


class SliceUNet(nn.Module):
    """Volumes → logits of every real slice.

    slice_encoder: f_intra. volume_encoder: f_inter, whose output for a slice is mapped to the channels of the slice's deepest
    maps and added there, at first as nothing; None for slices that know of no other.
    tune: "full"; "frozen" leaves both encoders as they are, batch statistics too; "linear" does so and has no decoder: the
    logits are a linear map of the maps of all stages, each brought to zero mean and unit deviation and enlarged.
    """

    def __init__(
        self, slice_encoder: SliceEncoder, classes: int, volume_encoder: VolumeEncoder | None = None, tune: str = "full"
    ):
        super().__init__()
        self.slice_encoder, self.volume_encoder, self.tune = slice_encoder, volume_encoder, tune
        channels = [64, *(slice_encoder.pooled_dim // 2**i for i in (3, 2, 1, 0))]
        self.head: nn.Module
        if tune == "linear":
            self.decoder = None
            self.head = nn.ModuleList(
                nn.Sequential(nn.BatchNorm2d(width, affine=False), nn.Conv2d(width, classes, 1)) for width in channels
            )
        else:
            self.decoder = UnetDecoder([1, *channels], DECODER)
            self.head = SegmentationHead(DECODER[-1], classes, kernel_size=3)
            initialize_decoder(self.decoder)
            initialize_head(self.head)
        if volume_encoder is None:
            slice_encoder.to_embedding.requires_grad_(False)  # nobody asks for slice embeddings
        else:
            self.inject = nn.Linear(slice_encoder.embedding_dim, channels[-1])
            nn.init.zeros_(self.inject.weight)
            nn.init.zeros_(self.inject.bias)
        if tune != "full":
            for encoder in self._encoders():
                encoder.requires_grad_(False)

    def train(self, mode: bool = True):
        super().train(mode)
        if self.tune != "full":
            for encoder in self._encoders():
                encoder.eval()
        return self

    def forward(self, pixels: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """pixels (B, N, H, W) or (B, N, 3, H, W), real (B, N) bool, the first slices of each → (M, classes, H, W), of those."""
        rows = rows_of(real, pixels.device)
        slices = pixels.flatten(0, 1).index_select(0, rows)
        slices = slices if pixels.ndim == 5 else slices[:, None]
        maps = self.slice_encoder.maps(slices)
        context = None
        if self.volume_encoder is not None:
            context = self._in_volumes(self.slice_encoder.embed(maps[1:]), real, rows)
        return self._decoded(maps, context, slices.shape[-2:])

    @torch.no_grad()
    def segment(self, pixels: torch.Tensor, chunk: int = 16) -> Iterator[torch.Tensor]:
        """pixels (N, H, W) or (N, 3, H, W) of one whole volume → its logits, (≤ chunk, classes, H, W) at a time."""
        chunks = [part if pixels.ndim == 4 else part[:, None] for part in pixels.split(chunk)]
        context = [None] * len(chunks)
        if self.volume_encoder is not None:
            embedded = torch.cat([self.slice_encoder(part) for part in chunks])
            real = torch.ones(1, len(embedded), dtype=torch.bool)
            context = self._in_volumes(embedded, real, rows_of(real, pixels.device)).split(chunk)
        for part, of_part in zip(chunks, context):
            yield self._decoded(self.slice_encoder.maps(part), of_part, part.shape[-2:])

    def _in_volumes(self, embedded: torch.Tensor, real: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """(M, channels of the deepest maps) from slice embeddings (M, D)."""
        volumes = embedded.new_zeros(real.numel(), embedded.shape[-1]).index_copy(0, rows, embedded)
        hidden = self.volume_encoder(volumes.unflatten(0, real.shape), real)
        return self.inject(hidden.flatten(0, 1).index_select(0, rows))

    def _decoded(self, maps: list[torch.Tensor], context: torch.Tensor | None, size: torch.Size) -> torch.Tensor:
        if context is not None:
            maps = [*maps[:-1], maps[-1] + context.to(maps[-1].dtype)[..., None, None]]
        if self.decoder is None:
            each = (linear(of) for linear, of in zip(self.head, maps))
            return sum(F.interpolate(logits, size=size, mode="bilinear") for logits in each)
        # the decoder looks at no more than the size of the first
        full = maps[0].new_empty(0, 1, *size)
        return self.head(self.decoder([full, *maps]))

    def _encoders(self) -> list[nn.Module]:
        return [encoder for encoder in (self.slice_encoder, self.volume_encoder) if encoder is not None]


def load_unet(weights: DownstreamWeights) -> SliceUNet:
    """The network in a file of finetune_segmentation.py. Raises `WeightsError` where its tensors do not fit."""
    encoders = encoders_of(weights.about["network"], weights.path)
    classes = len(weights.about["classes"]) + 1
    model = SliceUNet(encoders.slice_encoder, classes, encoders.volume_encoder, weights.about["tune"])
    weights.load_into(model)
    return model
