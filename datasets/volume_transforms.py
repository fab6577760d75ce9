"""The seven transforms of volumes, batched on the device: each element of a batch has its own parameters.

Volumes are (B, N, H, W) with `count` (B,) real slices each, which come first; only those take part. The transforms are those of
TorchIO (Pérez-García et al. 2021). What is local along an axis, or in the plane, makes each row of numbers (a slice, an image
row, a pixel through all slices) of few others: one call of `embedding_bag`, many times faster than a product of matrices or a
gather of single numbers.
"""

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

LARGEST_BLUR = 2.0
BLOCK_SLICES = 8  # what is made of a volume at a time on a CPU, where it stays in the cache


class Taps(NamedTuple):
    """Row i of a result is the sum of share[b, i, j] × row index[b, i, j] over the k taps j; both are (B, n, k)."""

    index: torch.Tensor
    share: torch.Tensor


def flip(volumes: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The real slices in reverse order."""
    batch, slices = volumes.shape[:2]
    order = flipped_order(slices, count) + torch.arange(batch, device=count.device)[:, None] * slices
    return volumes.flatten(0, 1).index_select(0, order.flatten()).view_as(volumes)


def flipped_order(slices: int, count: torch.Tensor) -> torch.Tensor:
    """(B, N) int64: the source of each slice of a flipped volume; padding stays where it is."""
    number = torch.arange(slices, device=count.device)
    return torch.where(number < count[:, None], count[:, None] - 1 - number, number)


def scaled_positions(slices: int, count: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(B, N): the fractional source slice of each slice of volumes magnified by `scale` (B,), clamped to the real ones."""
    number = torch.arange(slices, device=count.device, dtype=scale.dtype)
    middle = ((count - 1) / 2).to(scale.dtype)[:, None]
    return (middle + (number - middle) / scale[:, None]).clamp(min=0).minimum((count - 1).to(scale.dtype)[:, None])


def affine_in_plane(volumes: torch.Tensor, count: torch.Tensor, scales: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Volumes turned by angle (B,), radians about the slice axis, then magnified by scales (B, 3): slices, rows, columns.

    Read linearly. Outside the plane of a slice lies the volume's minimum; along the slices the ends are repeated.
    """
    _, slices, height, width = volumes.shape
    rows, columns = (place.flatten(1) for place in _turned_plane(height, width, scales, angle))  # (B, H W)
    outside = ~(_inside(rows, height) & _inside(columns, width))[..., None]
    down, across = interpolation(rows, height), interpolation(columns, width)
    corners = Taps(
        (down.index[..., :, None] * width + across.index[..., None, :]).flatten(2),
        (down.share[..., :, None] * across.share[..., None, :]).flatten(2).masked_fill(outside, 0),
    )
    scaled = along(0, interpolation(scaled_positions(slices, count, scales[:, 0]), slices), volumes)
    pixels = combine(corners, scaled.flatten(2).transpose(1, 2))  # (B, H W, N): a row is a pixel through all slices
    pixels += outside * _lowest(volumes, count).flatten(1)[..., None]
    return pixels.transpose(1, 2).reshape(volumes.shape)


def affine_in_space(volumes: torch.Tensor, count: torch.Tensor, scales: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """As `affine_in_plane`, but turned by angles (B, 3) about the axes (slices, rows, columns)."""
    _, slices, height, width = volumes.shape
    lowest, last = _lowest(volumes, count), (count - 1).to(scales.dtype).view(-1, 1, 1, 1)
    turned = torch.empty_like(volumes)
    some = BLOCK_SLICES if volumes.device.type == "cpu" else slices
    for first in range(0, slices, some):
        block = slice(first, first + some)
        z, y, x = _turned_space(volumes, count, scales, angles, block)
        inside = _inside(y, height) & _inside(x, width)
        turned[:, block] = torch.where(inside, _read_linearly(volumes, z.clamp_(min=0).minimum(last), y, x), lowest)
    return turned


def anisotropy(volumes: torch.Tensor, count: torch.Tensor, axis: int, factor: torch.Tensor) -> torch.Tensor:
    """Resolution lowered along an axis (0 slices, 1 rows, 2 columns) by factor (B,): nearest, then linear."""
    size = volumes.shape[1 + axis]
    length = count if axis == 0 else torch.full_like(count, size)
    return along(axis, coarse_taps(size, length, factor), volumes)


def noise(volumes: torch.Tensor, count: list[int], deviation: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
    """Gaussian noise of deviation (B,) on the real slices, each element's from its own generator."""
    drawn = torch.empty(volumes.shape, dtype=torch.float32, device=volumes.device)
    for row, (slices, generator) in enumerate(zip(count, generators)):
        # of the real slices alone, so that a volume's noise does not depend on the padding behind it
        drawn[row, :slices].normal_(generator=generator)
        drawn[row, slices:].zero_()
    return drawn.to(volumes.dtype).mul_(deviation[:, None, None, None]).add_(volumes)


def blur(volumes: torch.Tensor, count: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Gaussian blur by sigmas (B, 3) voxels along slices, rows, columns; borders are mirrored."""
    for axis in range(3):
        size = volumes.shape[1 + axis]
        length = count if axis == 0 else torch.full_like(count, size)
        volumes = along(axis, blur_taps(size, length, sigmas[:, axis]), volumes)
    return volumes


def bias_field(volumes: torch.Tensor, count: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Volumes times exp of a polynomial of order 3; coefficients (B, 20) of zⁱ yʲ xᵏ, i + j + k ≤ 3, coordinates in [-1, 1]."""
    batch, slices, height, width = volumes.shape
    kind = {"dtype": volumes.dtype, "device": volumes.device}
    powers = torch.arange(4, device=volumes.device)
    table = torch.zeros(batch, 64, **kind)
    places = torch.tensor([16 * i + 4 * j + k for i, j, k in itertools.product(range(4), repeat=3) if i + j + k <= 3])
    table.index_copy_(1, places.to(volumes.device, non_blocking=True), coefficients)
    number = torch.arange(slices, **kind)
    last = (count - 1)[:, None]  # a single slice lies at 0
    z = ((2 * number - last) / last.clamp(min=1)).clamp(max=1).to(volumes.dtype)
    y, x = torch.linspace(-1, 1, height, **kind), torch.linspace(-1, 1, width, **kind)
    field = torch.einsum("bijk,wk->bijw", table.view(batch, 4, 4, 4), x[:, None] ** powers)
    field = torch.einsum("bijw,hj->bihw", field, y[:, None] ** powers)
    return volumes * ((z[..., None] ** powers) @ field.flatten(2)).exp_().view_as(volumes)


def gamma(volumes: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """Intensities raised to exponents (B,), their signs kept."""
    return volumes.abs().log_().mul_(exponents[:, None, None, None]).exp_().copysign_(volumes)


# ---- rows made of rows


def combine(taps: Taps, rows: torch.Tensor) -> torch.Tensor:
    """(B, n, F): rows (B, R, F) put together by taps (B, n, k)."""
    batch, many, features = rows.shape
    first = torch.arange(batch, device=rows.device)[:, None, None] * many
    made = F.embedding_bag(
        (taps.index + first).flatten(0, 1),
        rows.contiguous().view(-1, features),  # 50 times faster than strided rows
        mode="sum",
        per_sample_weights=taps.share.flatten(0, 1).to(rows.dtype),
    )
    return made.view(batch, -1, features)


def along(axis: int, taps: Taps, volumes: torch.Tensor) -> torch.Tensor:
    """taps (B, n, k) applied along slices (0), rows (1) or columns (2) of (B, N, H, W), n being the length of that axis."""
    if axis == 2:
        return along(1, taps, volumes.transpose(2, 3)).transpose(2, 3).contiguous()
    if axis == 0:
        return combine(taps, volumes.flatten(2)).view_as(volumes)
    _, slices, height, _ = volumes.shape
    first = torch.arange(slices, device=volumes.device)[:, None, None] * height
    index = (taps.index[:, None] + first).flatten(1, 2)
    return combine(Taps(index, taps.share.repeat(1, slices, 1)), volumes.flatten(1, 2)).view(volumes.shape)


def interpolation(source: torch.Tensor, size: int) -> Taps:
    """Reads rows of `size` at fractional places (B, n), linearly; beyond the ends are the ends."""
    source = source.clamp(0, size - 1)
    below = source.floor()
    share = source - below
    below = below.long()
    return Taps(torch.stack([below, (below + 1).clamp(max=size - 1)], -1), torch.stack([1 - share, share], -1))


def coarse_taps(size: int, length: torch.Tensor, factor: torch.Tensor) -> Taps:
    """Rows of which `length` (B,) are real, sampled every `factor` (B,) of them, nearest, and brought back, linearly."""
    samples = (length / factor).floor().clamp(min=1)
    # the coarse grid covers the same extent, about the same middle
    start = (length - samples * factor) / 2
    number = torch.arange(size, device=length.device)
    taken = (start[:, None] + (number + 0.5) * factor[:, None]).floor()  # halves are rounded up
    taken = taken.clamp(min=0).minimum((length - 1).to(taken.dtype)[:, None]).long()
    back = ((number + 0.5 - start[:, None]) / factor[:, None] - 0.5).clamp(min=0)
    back = interpolation(back.minimum((samples - 1)[:, None]), size)
    return Taps(taken.gather(1, back.index.flatten(1)).view_as(back.index), back.share)


def blur_taps(size: int, length: torch.Tensor, sigma: torch.Tensor) -> Taps:
    """Gaussian blur by sigma (B,) of rows of which `length` (B,) are real, mirrored at the ends."""
    reach = math.ceil(4 * LARGEST_BLUR)
    offsets = torch.arange(-reach, reach + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    length = length[:, None, None]
    place = torch.remainder(torch.arange(size, device=sigma.device)[:, None] + offsets, 2 * length)
    return Taps(torch.minimum(place, 2 * length - 1 - place), weights[:, None].expand_as(place))


# ---- places of a turned volume


def _lowest(volumes: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """(B, 1, 1, 1): the least value of the real slices."""
    padding = torch.arange(volumes.shape[1], device=count.device) >= count[:, None]
    return volumes.amin((2, 3)).masked_fill(padding, torch.inf).amin(1).view(-1, 1, 1, 1)


def _inside(place: torch.Tensor, size: int) -> torch.Tensor:
    """Whether places are within the pixels of an axis, which reach half a step beyond their middles."""
    return (place >= -0.5) & (place < size - 0.5)


def _turned_plane(height: int, width: int, scales: torch.Tensor, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Source rows and columns (B, H, W) of a plane that is turned about its middle, then magnified."""
    y = (torch.arange(height, dtype=scales.dtype, device=scales.device)[:, None] - (height - 1) / 2) / scales[:, 1, None, None]
    x = (torch.arange(width, dtype=scales.dtype, device=scales.device) - (width - 1) / 2) / scales[:, 2, None, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * y + sin * x + (height - 1) / 2, cos * x - sin * y + (width - 1) / 2


def _turned_space(
    volumes: torch.Tensor, count: torch.Tensor, scales: torch.Tensor, angles: torch.Tensor, block: slice
) -> list[torch.Tensor]:
    """Source slices, rows and columns, each (B, n, H, W), of a block of slices of volumes turned, then magnified."""
    sizes = volumes.shape[1:]
    middle = torch.stack([(count - 1) / 2, *[torch.full_like(count, n - 1) / 2 for n in sizes[1:]]], 1).to(scales.dtype)
    steps = []
    for axis, size in enumerate(sizes):
        number = torch.arange(size, dtype=scales.dtype, device=scales.device)[block if axis == 0 else slice(None)]
        step = (number - middle[:, axis, None]) / scales[:, axis, None]
        steps.append(step.view(-1, *[len(number) if other == axis else 1 for other in range(3)]))
    turn, middle = _rotation(angles)[..., None, None, None], middle[..., None, None, None]
    # a plane and a column are added last, so that little is as large as the volume
    return [(turn[:, i, 1] * steps[1] + turn[:, i, 2] * steps[2]) + (turn[:, i, 0] * steps[0] + middle[:, i]) for i in range(3)]


def _read_linearly(volumes: torch.Tensor, z: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Volumes (B, N, H, W) at fractional voxels, each coordinate (B, n, H, W); beyond the ends are the ends."""
    batch, slices, height, width = volumes.shape
    kind = torch.int32 if volumes.numel() < 2**31 else torch.int64
    first = torch.arange(batch, device=z.device, dtype=kind).view(-1, 1, 1, 1) * (slices * height * width)
    flat = volumes.reshape(-1)
    (z0, z1, z_share), (y0, y1, y_share), (x0, x1, x_share) = (
        _sides(*of, kind) for of in ((z, slices, height * width), (y, height, width), (x, width, 1))
    )

    def along_x(row):
        left, right = (flat.index_select(0, (row + x).flatten()).view_as(x_share) for x in (x0, x1))
        return torch.lerp(left, right, x_share)

    near, far = (torch.lerp(along_x(z + y0), along_x(z + y1), y_share) for z in (z0 + first, z1 + first))
    return torch.lerp(near, far, z_share)


def _sides(place: torch.Tensor, size: int, stride: int, kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two neighbours of fractional places along an axis, as places in memory, and the share of the second."""
    place = place.clamp(0, size - 1)
    below = place.floor()
    share = place - below
    below = below.to(kind)
    return below * stride, (below + 1).clamp_(max=size - 1) * stride, share


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3): from a place after the turns about the row, slice and column axes, in TorchIO's order, to the one before."""
    (ca, cb, cc), (sa, sb, sc) = angles.cos().unbind(1), angles.sin().unbind(1)
    o, i = torch.zeros_like(ca), torch.ones_like(ca)
    about_slices = torch.stack([i, o, o, o, ca, sa, o, -sa, ca], 1).view(-1, 3, 3)
    about_rows = torch.stack([cb, o, -sb, o, i, o, sb, o, cb], 1).view(-1, 3, 3)
    about_columns = torch.stack([cc, sc, o, -sc, cc, o, o, o, i], 1).view(-1, 3, 3)
    return about_rows @ about_slices @ about_columns
