"""f_intra: a ResNet on one slice, its features, and the map from features to the slice embedding."""

import contextlib
import math

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

CHUNK = 64  # slices that go through an encoder at a time where no gradients are kept


class SliceEncoder(nn.Module):
    """torchvision's ResNet, its names kept in `resnet`, and `to_embedding`, a linear map from slice features to D.

    feature_dim: length of the slice features (ResNet-50: 256 + 512 + 1024 + 2048); pooled_dim: of the last stage alone.
    embedding: "unit" brings embeddings to unit root mean square, so that no loss depends on the map's scale; "published"
    leaves them raw, and has the last stage twice in the features (5888 numbers).
    recompute: blocks keep their input alone, and are computed again in the backward pass.
    """

    def __init__(
        self, arch: str = "resnet50", embedding_dim: int = 640, embedding: str = "unit", channels: int = 3,
        recompute: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.arch, self.embedding_dim, self.embedding, self.recompute = arch, embedding_dim, embedding, recompute
        self.resnet = getattr(torchvision.models, arch)(weights=None)
        self.pooled_dim = self.resnet.fc.in_features
        self.resnet.fc = nn.Identity()
        if channels != 3:
            self.resnet.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        stages = [self.pooled_dim // 2**i for i in (3, 2, 1, 0)]
        self.feature_dim = sum(stages) + (stages[-1] if embedding == "published" else 0)
        self.to_embedding = nn.Linear(self.feature_dim, embedding_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Slice embeddings (B, D) of images (B, 1 or channels, H, W)."""
        return self.embed(self._stages(images))

    def embed(self, stages: list[torch.Tensor]) -> torch.Tensor:
        """Slice embeddings (B, D) from the maps of the four stages."""
        embedded = self.to_embedding(self._joined(stages))
        embedded = embedded.to(_exact(embedded.dtype))
        return embedded if self.embedding == "published" else F.normalize(embedded, dim=-1) * self.embedding_dim**0.5

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Slice features (B, feature_dim): the four stages, each averaged over pixels and L2-normalised, joined."""
        return self._joined(self._stages(images))

    def _joined(self, stages: list[torch.Tensor]) -> torch.Tensor:
        stages = [F.normalize(PixelMean.apply(stage), dim=-1) for stage in stages]
        return torch.cat(stages + stages[-1:] if self.embedding == "published" else stages, dim=-1)

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """(B, pooled_dim): the last stage averaged over pixels."""
        return PixelMean.apply(self._stages(images)[-1])

    def _stages(self, images: torch.Tensor) -> list[torch.Tensor]:
        if images.shape[0] == 0:
            return [images.new_zeros(0, self.pooled_dim // 2**i, 1, 1) for i in (3, 2, 1, 0)]
        return self.maps(images)[1:]

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps of the stem, at half of the resolution, and of the four stages: (B, C, H', W') each."""
        net = self.resnet
        weight = net.conv1.weight
        if images.shape[1] == 1:
            weight = weight.sum(1, keepdim=True)  # equal channels, at a fraction of the work
            images = channels_last(images)
        x = F.conv2d(images, weight, stride=2, padding=3)
        x = net.relu(net.bn1(x))
        maps = [x]
        x = net.maxpool(x)
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            for block in layer:
                x = self._through(block, x)
            maps.append(x)
        return maps

    def _through(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return block(x)
        again = lambda: (contextlib.nullcontext(), unrecorded(block))  # noqa: E731
        return checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, context_fn=again)


@contextlib.contextmanager
def unrecorded(block: nn.Module):
    """Batch norms inside use the statistics of their batch, as in training, but record none: those were seen before."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, usual):
            norm.momentum = momentum
            norm.num_batches_tracked -= 1


class PixelMean(torch.autograd.Function):
    """(B, C, H, W) → (B, C) in float32 at least. Its gradient, the same for all pixels, is not written out for each of them."""

    @staticmethod
    def forward(context, maps: torch.Tensor) -> torch.Tensor:
        context.shape, context.dtype = maps.shape, maps.dtype
        return maps.mean((2, 3), dtype=_exact(maps.dtype))

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        share = gradient / (context.shape[2] * context.shape[3])
        return share.to(context.dtype)[:, :, None, None].expand(context.shape)


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 1, H, W) in the memory order of the other layers, which torch can't tell from its usual one by itself."""
    if torch.compiler.is_compiling():
        return images
    _, _, height, width = images.shape
    return images.contiguous().as_strided(images.shape, (height * width, 1, width, 1))


def embed_slices(encoder, pixels: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Slice embeddings (B, N, D) of volumes (B, N, H, W) or (B, N, 3, H, W), zero at padding, which it does not see.

    encoder: a `SliceEncoder`, or a method of one. real: (B, N) bool; on the host nothing waits for the device.
    """
    rows = rows_of(real, pixels.device)
    slices = pixels.flatten(0, 1).index_select(0, rows)
    slices = slices if pixels.ndim == 5 else slices[:, None]
    module = getattr(encoder, "__self__", encoder)
    alone = not (module.training or torch.is_grad_enabled() or torch.compiler.is_compiling())  # a slice knows of no other
    chunks = slices.split(CHUNK) if alone and len(slices) else [slices]
    embedded = torch.cat([encoder(chunk.contiguous(memory_format=torch.channels_last)) for chunk in chunks])
    out = embedded.new_zeros(real.numel(), embedded.shape[-1])
    return out.index_copy(0, rows, embedded).unflatten(0, real.shape)


def rows_of(chosen: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(n,) int64: the rows, of all B · N one below the other, that are True in `chosen` (B, N)."""
    return chosen.flatten().nonzero()[:, 0].to(device, non_blocking=True)


def orthogonal_map(feature_dim: int, embedding_dim: int, seed: int) -> torch.Tensor:
    """A seeded (D, feature_dim) float32 matrix with orthonormal rows (columns, when D is the larger)."""
    noise = torch.randn(
        max(feature_dim, embedding_dim), min(feature_dim, embedding_dim), generator=torch.Generator().manual_seed(seed)
    )
    q = torch.linalg.qr(noise.double())[0].float()
    return q if embedding_dim >= feature_dim else q.T.contiguous()


def adapt_stem(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """conv1's weight (64, c, 7, 7) for another number of channels: the same function of pictures that are equal in all."""
    if weight.shape[1] == channels:
        return weight
    return (weight.double().sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1).to(weight.dtype).contiguous()


@torch.no_grad()
def draw_published_map(encoder: SliceEncoder, seed: int) -> None:
    """The map that the published code draws in each stage anew and never saves: with one seed, the same in all of them.

    Its ResNet draws all convolutions, then the map, a transposed convolution (uniform within 1 / sqrt(D)), from torch's
    generator; before them nothing is drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in encoder.resnet.parameters():
        if parameter.ndim == 4:
            torch.empty(parameter.shape).uniform_(generator=generator)
    bound = 1 / math.sqrt(encoder.embedding_dim)
    weight = torch.empty(encoder.feature_dim, encoder.embedding_dim).uniform_(-bound, bound, generator=generator)
    encoder.to_embedding.weight.copy_(weight.T)
    encoder.to_embedding.bias.copy_(torch.empty(encoder.embedding_dim).uniform_(-bound, bound, generator=generator))


@torch.no_grad()
def set_map(encoder: SliceEncoder, mean_features: torch.Tensor, seed: int) -> None:
    """Fixes the map to D: a seeded rotation of the slice features, centred on their mean (feature_dim,) over the data.

    Without the centring all slice embeddings share one large direction, and what tells slices apart is a remainder.
    """
    weight = orthogonal_map(encoder.feature_dim, encoder.embedding_dim, seed)
    encoder.to_embedding.weight.copy_(weight)
    encoder.to_embedding.bias.copy_(-(weight.double() @ mean_features.double().cpu()))


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
