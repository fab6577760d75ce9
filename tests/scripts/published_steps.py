"""The training steps of the published code (AAAI 2023), restated in plain torch with one process; nothing of ours is used.

Names of modules are the published ones. What is random (views, masks, first weights, first rows of k-means) is given.
"""

import math

import torch
import torch.nn.functional as F
import torchvision
from deformable_attention import DeformableAttention1D
from torch import nn


def sample_as_0_0_18(features, grid, **_):
    """The library's sampler before 0.0.19: the position stands on the wrong axis, and weighs the middle of the sequence.

    features (G, C, N), N even, grid (G, M) → (G, C, M)."""
    middle = features.shape[-1] // 2
    column = (features[..., middle - 1] + features[..., middle]) / 2
    return column[..., None] * (1 - grid.abs() / 2).clamp(min=0)[:, None]


class FeedForward(nn.Module):
    def __init__(self, dim, hidden, dropout):
        super().__init__()
        self.linear1, self.linear2, self.dropout = nn.Linear(dim, hidden), nn.Linear(hidden, dim), nn.Dropout(dropout)

    def forward(self, x):
        return self.linear2(self.dropout(F.gelu(self.linear1(x))))


class Layer(nn.Module):
    def __init__(self, slices, dim, hidden, dropout):
        super().__init__()
        self.attention = DeformableAttention1D(dim=slices, downsample_factor=4, offset_scale=2, offset_kernel_size=6)
        self.ffn = FeedForward(dim, hidden, dropout)
        self.norm1, self.norm2, self.dropout = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, x):
        x = self.dropout(self.norm1(x + self.attention(x)))  # (B, N, D): slices are channels, features the sequence
        return self.dropout(self.norm2(x + self.ffn(x)))


class Transformer(nn.Module):
    def __init__(self, slices, dim, hidden=720, layers=4, dropout=0.1):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.layers = nn.Sequential(*(Layer(slices, dim, hidden, dropout) for _ in range(layers)))

    def forward(self, x):
        return self.encoder.layers(x)


class SliceNetwork(nn.Module):
    """A ResNet on (B, N, H, W) volumes, and the map to the slice embeddings."""

    def __init__(self, arch, dim):
        super().__init__()
        resnet = getattr(torchvision.models, arch)()
        last = resnet.fc.in_features
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(resnet, name))
        self.deconv = nn.ConvTranspose1d(last // 8 + last // 4 + last // 2 + last + last, dim, 1)

    def features(self, volumes):
        grey = volumes.flatten(0, 1)[:, None].repeat(1, 3, 1, 1)
        x, pooled = self.maxpool(self.relu(self.bn1(self.conv1(grey)))), []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            pooled.append(F.normalize(x.mean((2, 3)), dim=1))
        return torch.cat([*pooled, pooled[-1]], 1)

    def forward(self, volumes):
        return self.deconv(self.features(volumes)[:, :, None])[:, :, 0].unflatten(0, volumes.shape[:2])


def drawn_map(arch, dim, seed):
    """The map of the published code: drawn right after the convolutions of its ResNet, which are the first to be drawn."""
    convolutions = [m for m in getattr(torchvision.models, arch)().modules() if isinstance(m, nn.Conv2d)]
    torch.manual_seed(seed)
    for c in convolutions:
        nn.Conv2d(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding, bias=False)
    last = convolutions[-1].out_channels
    return nn.ConvTranspose1d(last // 8 + last // 4 + last // 2 + last + last, dim, 1)


class MaskedModel(nn.Module):
    def __init__(self, slices, dim):
        super().__init__()
        self.mask_token = nn.Parameter(torch.randn(dim))
        self.encoder, self.decoder = Transformer(slices, dim), nn.Linear(dim, dim)

    def forward(self, x, mask):
        return self.decoder(self.encoder(torch.where(mask[..., None], self.mask_token, x)))


class JointNetwork(nn.Module):
    def __init__(self, arch, slices, dim, prototypes):
        super().__init__()
        self.intra, self.inter = SliceNetwork(arch, dim), Transformer(slices, dim)
        self.prototypes = nn.ModuleDict({f"prototypes{i}": nn.Linear(dim, k, bias=False) for i, k in enumerate(prototypes)})

    def forward(self, volumes):
        """Volume embeddings (B, D) and, for each head, scores (B, K)."""
        embeddings = F.normalize(self.inter(self.intra(volumes)).mean(1), dim=1)
        return embeddings, [head(embeddings) for head in self.prototypes.values()]


class LarcSgd:
    """apex's LARC without clipping around torch's SGD with momentum."""

    def __init__(self, model, wd):
        self.parameters, self.wd, self.momentum = list(model.parameters()), wd, {}

    @torch.no_grad()
    def step(self, lr):
        for number, w in enumerate(self.parameters):
            if w.grad is None:
                continue
            g, w_norm, g_norm = w.grad, w.norm(), w.grad.norm()
            if w_norm != 0 and g_norm != 0:
                g = (g + self.wd * w) * (0.001 * w_norm / (g_norm + self.wd * w_norm + 1e-8))
            self.momentum[number] = 0.9 * self.momentum[number] + g if number in self.momentum else g.clone()
            w -= lr * self.momentum[number]
            w.grad = None


def learning_rates(epochs, warmup_epochs, steps, base, final=0.0, start=0.0):
    warmup = torch.linspace(start, base, steps * warmup_epochs, dtype=torch.float64).tolist()
    total = steps * (epochs - warmup_epochs)
    return warmup + [final + 0.5 * (base - final) * (1 + math.cos(math.pi * t / total)) for t in range(total)]


def freeze(prototypes):
    for parameter in prototypes.parameters():
        parameter.grad = None


def masked_step(resnet, model, view1, view2, mask, ratio):
    """The loss of stage 2. The two views stand in one batch here, so that dropout is drawn for both at once."""
    with torch.no_grad():
        x1, x2 = resnet(view1), resnet(view2)
    out1, out2 = model(torch.cat([x1, x2]), torch.cat([mask, mask])).chunk(2)
    return (F.mse_loss(out1, x1) + F.mse_loss(out2, x2)) / int(ratio * x1.shape[1])


@torch.no_grad()
def sinkhorn(scores, epsilon=0.05, iterations=3):
    q = torch.exp(scores / epsilon).T  # (K, B)
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / q.shape[0]
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def swav_step(model, view1, view2, temperature=0.1):
    with torch.no_grad():
        weight = model.prototypes["prototypes0"].weight
        weight.copy_(F.normalize(weight, dim=1))
    _, (scores, *_) = model(torch.cat([view1, view2]))
    a, b = scores.chunk(2)
    losses = [
        -(sinkhorn(this.detach()) * torch.log_softmax(other / temperature, 1)).sum(1).mean() for this, other in ((a, b), (b, a))
    ]
    return sum(losses) / 2


@torch.no_grad()
def cluster(bank, first_rows, iterations=10):
    """Spherical k-means of (n, D) unit rows → centroids (K, D), assignments (n,). Empty clusters keep their centroid."""
    centroids = bank[first_rows].clone()
    for iteration in range(iterations + 1):
        assignments = (bank @ centroids.T).argmax(1)
        if iteration == iterations:
            return centroids, assignments
        for k in range(len(centroids)):
            if (assignments == k).any():
                centroids[k] = bank[assignments == k].mean(0)
        centroids = F.normalize(centroids, dim=1)


def deepcluster_step(model, view1, view2, assignments, temperature=0.1):
    """The loss, and the embeddings (2B, D) that go into the banks. assignments: of the B volumes, for each head."""
    embeddings, scores = model(torch.cat([view1, view2]))
    losses = [F.cross_entropy(s / temperature, target.repeat(2)) for s, target in zip(scores, assignments)]
    return sum(losses) / len(losses), embeddings.detach()
