"""f_intra: a ResNet on one slice, its features, and the map from features to the slice embedding."""

import math

import torch
import torch.nn.functional as F
import torchvision
from torch import nn


class SliceEncoder(nn.Module):
    """torchvision's ResNet, its names kept in `resnet`, and `to_embedding`, a linear map from slice features to D.

    feature_dim: length of the slice features (ResNet-50: 256 + 512 + 1024 + 2048); pooled_dim: of the last stage alone.
    embedding: "unit" brings embeddings to unit root mean square, so that no loss depends on the map's scale; "published"
    leaves them raw, and has the last stage twice in the features (5888 numbers).
    """

    def __init__(self, arch: str = "resnet50", embedding_dim: int = 640, embedding: str = "unit", channels: int = 3):
        super().__init__()
        self.arch, self.embedding_dim, self.embedding = arch, embedding_dim, embedding
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
        embedded = self.to_embedding(self.features(images))
        embedded = embedded.to(_exact(embedded.dtype))
        return embedded if self.embedding == "published" else F.normalize(embedded, dim=-1) * self.embedding_dim**0.5

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Slice features (B, feature_dim): the four stages, each averaged over pixels and L2-normalised, joined."""
        stages = [stage.mean((2, 3), dtype=_exact(stage.dtype)) for stage in self._stages(images)]
        stages = [F.normalize(stage, dim=-1) for stage in stages]
        return torch.cat(stages + stages[-1:] if self.embedding == "published" else stages, dim=-1)

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """(B, pooled_dim): the last stage averaged over pixels."""
        last = self._stages(images)[-1]
        return last.mean((2, 3), dtype=_exact(last.dtype))

    def _stages(self, images: torch.Tensor) -> list[torch.Tensor]:
        net = self.resnet
        if images.shape[0] == 0:
            return [images.new_zeros(0, self.pooled_dim // 2**i, 1, 1) for i in (3, 2, 1, 0)]
        weight = net.conv1.weight
        if images.shape[1] == 1:
            weight = weight.sum(1, keepdim=True)  # equal channels, at a fraction of the work
        x = F.conv2d(images, weight, stride=2, padding=3)
        x = net.maxpool(net.relu(net.bn1(x)))
        stages = []
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
            stages.append(x)
        return stages


def embed_slices(encoder: nn.Module, pixels: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Slice embeddings (B, N, D) of volumes (B, N, H, W) or (B, N, 3, H, W), zero at padding, which it does not see."""
    slices = pixels[real] if pixels.ndim == 5 else pixels[real][:, None]
    embedded = encoder(slices.contiguous(memory_format=torch.channels_last))
    out = embedded.new_zeros(*real.shape, embedded.shape[-1])
    out[real] = embedded
    return out


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
