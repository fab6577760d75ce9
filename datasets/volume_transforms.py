"""The seven transforms of volumes, batched on the device: each element of a batch has its own parameters.

Volumes are (B, N, H, W) with `count` (B,) real slices each, which come first; only those take part. The transforms are those of
TorchIO (Pérez-García et al. 2021); what is local along an axis is a matrix along that axis.
"""

import math

import torch
import torch.nn.functional as F

LARGEST_BLUR = 2.0


def flip(volumes: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The real slices in reverse order."""
    order = flipped_order(volumes.shape[1], count)
    return volumes.gather(1, order[:, :, None, None].expand_as(volumes))


def flipped_order(slices: int, count: torch.Tensor) -> torch.Tensor:
    """(B, N) int64: the source of each slice of a flipped volume; padding stays where it is."""
    number = torch.arange(slices, device=count.device)
    return torch.where(number < count[:, None], count[:, None] - 1 - number, number)


def scaled_positions(slices: int, count: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(B, N): the fractional source slice of each slice of volumes magnified by `scale` (B,), clamped to the real ones."""
    number = torch.arange(slices, device=count.device, dtype=scale.dtype)
    middle = ((count - 1) / 2).to(scale.dtype)[:, None]
    return (middle + (number - middle) / scale[:, None]).clamp(min=0).minimum((count - 1).to(scale.dtype)[:, None])


def affine(volumes: torch.Tensor, count: torch.Tensor, scales: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Volumes turned by angles (B, 3), radians about the axes (slices, rows, columns), then magnified by scales (B, 3).

    Read linearly. Outside the plane of a slice lies the volume's minimum; along the slices the ends are repeated. Without
    rotation out of the plane every slice is turned alike.
    """
    _, slices, height, width = volumes.shape
    padding = torch.arange(slices, device=count.device) >= count[:, None]
    lowest = volumes.masked_fill(padding[..., None, None], torch.inf).flatten(1).amin(1)[:, None, None, None]
    if not angles[:, 1:].any():
        source = scaled_positions(slices, count, scales[:, 0])
        volumes = along_slices(interpolation(source, slices), volumes)
        rows, columns = _turned_plane(height, width, scales, angles[:, 0])
        grid = torch.stack([_to_grid(columns, width), _to_grid(rows, height)], -1)
        turned = F.grid_sample(volumes, grid, padding_mode="border", align_corners=True)
        return torch.where(_inside(rows, columns, height, width)[:, None], turned, lowest)
    place = _turned_space(volumes, count, scales, angles)  # (B, N, H, W, 3) source voxels
    z = place[..., 0].clamp(min=0).minimum((count - 1).to(place.dtype)[:, None, None, None])
    grid = torch.stack([_to_grid(place[..., 2], width), _to_grid(place[..., 1], height), _to_grid(z, slices)], -1)
    turned = F.grid_sample(volumes[:, None], grid, padding_mode="border", align_corners=True)[:, 0]
    return torch.where(_inside(place[..., 1], place[..., 2], height, width), turned, lowest)


def anisotropy(volumes: torch.Tensor, count: torch.Tensor, axis: int, factor: torch.Tensor) -> torch.Tensor:
    """Resolution lowered along an axis (0 slices, 1 rows, 2 columns) by factor (B,): nearest, then linear."""
    size = volumes.shape[1 + axis]
    length = count if axis == 0 else torch.full_like(count, size)
    return along(axis, coarse_matrix(size, length, factor), volumes)


def noise(volumes: torch.Tensor, deviation: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
    """Gaussian noise of deviation (B,), each element's from its own generator."""
    # slice by slice, so that a volume's noise does not depend on the padding behind it
    plane = {"size": volumes.shape[2:], "dtype": torch.float32, "device": volumes.device}
    drawn = [torch.stack([torch.randn(**plane, generator=g) for _ in range(volumes.shape[1])]) for g in generators]
    return volumes + torch.stack(drawn).to(volumes.dtype) * deviation[:, None, None, None]


def blur(volumes: torch.Tensor, count: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Gaussian blur by sigmas (B, 3) voxels along slices, rows, columns; borders are mirrored."""
    for axis in range(3):
        size = volumes.shape[1 + axis]
        length = count if axis == 0 else torch.full_like(count, size)
        volumes = along(axis, blur_matrix(size, length, sigmas[:, axis]), volumes)
    return volumes


def bias_field(volumes: torch.Tensor, count: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Volumes times exp of a polynomial of order 3; coefficients (B, 20) of zⁱ yʲ xᵏ, i + j + k ≤ 3, coordinates in [-1, 1]."""
    batch, slices, height, width = volumes.shape
    kind = {"dtype": volumes.dtype, "device": volumes.device}
    powers = torch.arange(4, device=volumes.device)
    order = powers[:, None, None] + powers[None, :, None] + powers
    table = torch.zeros(batch, 4, 4, 4, **kind)
    table[:, order <= 3] = coefficients
    number = torch.arange(slices, **kind)
    last = (count - 1)[:, None]  # a single slice lies at 0
    z = ((2 * number - last) / last.clamp(min=1)).clamp(max=1).to(volumes.dtype)
    y, x = torch.linspace(-1, 1, height, **kind), torch.linspace(-1, 1, width, **kind)
    field = torch.einsum("bijk,wk->bijw", table, x[:, None] ** powers)
    field = torch.einsum("bijw,hj->bihw", field, y[:, None] ** powers)
    return volumes * torch.einsum("bihw,bni->bnhw", field, z[..., None] ** powers).exp()


def gamma(volumes: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """Intensities raised to exponents (B,), their signs kept."""
    return volumes.sign() * volumes.abs() ** exponents[:, None, None, None]


# ---- matrices along an axis


def along(axis: int, matrices: torch.Tensor, volumes: torch.Tensor) -> torch.Tensor:
    """matrices (B, n, n) applied along slices (0), rows (1) or columns (2) of (B, N, H, W)."""
    if axis == 0:
        return along_slices(matrices, volumes)
    if axis == 1:
        return matrices[:, None] @ volumes
    return volumes @ matrices[:, None].transpose(-1, -2)


def along_slices(matrices: torch.Tensor, volumes: torch.Tensor) -> torch.Tensor:
    return (matrices @ volumes.flatten(2)).view_as(volumes)


def interpolation(source: torch.Tensor, size: int) -> torch.Tensor:
    """(B, n, size) matrices that read a vector of `size` at fractional places (B, n), linearly."""
    below = source.floor().clamp(0, size - 1)
    share = (source - below)[..., None]
    number = torch.arange(size, device=source.device)
    at = below[..., None] == number
    after = (below + 1).clamp(max=size - 1)[..., None] == number
    return at * (1 - share) + after * share


def coarse_matrix(size: int, length: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """(B, size, size): vectors of `length` (B,) sampled every `factor` (B,) items, nearest, and brought back, linearly."""
    samples = (length / factor).floor().clamp(min=1)
    # the coarse grid covers the same extent, about the same middle
    start = (length - samples * factor) / 2
    number = torch.arange(size, device=length.device)
    taken = (start[:, None] + (number + 0.5) * factor[:, None]).floor()  # halves are rounded up
    taken = taken.clamp(min=0).minimum((length - 1).to(taken.dtype)[:, None])
    back = ((number + 0.5 - start[:, None]) / factor[:, None] - 0.5).clamp(min=0)
    back = back.minimum((samples - 1)[:, None])
    pick = (taken[..., None] == number).to(factor.dtype)  # (B, sample, item)
    return interpolation(back, size) @ pick


def blur_matrix(size: int, length: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """(B, size, size): Gaussian blur of vectors of `length` (B,) by sigma (B,) items, mirrored at the ends."""
    reach = math.ceil(4 * LARGEST_BLUR)
    offsets = torch.arange(-reach, reach + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    length = length[:, None, None]
    place = torch.remainder(torch.arange(size, device=sigma.device)[:, None] + offsets, 2 * length)
    place = torch.minimum(place, 2 * length - 1 - place)
    matrices = torch.zeros(len(sigma), size, size, dtype=sigma.dtype, device=sigma.device)
    return matrices.scatter_add_(2, place, weights[:, None].expand_as(place))


# ---- places of a turned volume


def _to_grid(place: torch.Tensor, size: int) -> torch.Tensor:
    return 2 * place / max(size - 1, 1) - 1 if size > 1 else torch.zeros_like(place)


def _inside(rows: torch.Tensor, columns: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Whether places are within the pixels, which reach half a step beyond their middles."""
    return (rows >= -0.5) & (rows < height - 0.5) & (columns >= -0.5) & (columns < width - 0.5)


def _turned_plane(height: int, width: int, scales: torch.Tensor, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Source rows and columns (B, H, W) of a plane that is turned about its middle, then magnified."""
    y = (torch.arange(height, dtype=scales.dtype, device=scales.device)[:, None] - (height - 1) / 2) / scales[:, 1, None, None]
    x = (torch.arange(width, dtype=scales.dtype, device=scales.device) - (width - 1) / 2) / scales[:, 2, None, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * y + sin * x + (height - 1) / 2, cos * x - sin * y + (width - 1) / 2


def _turned_space(volumes: torch.Tensor, count: torch.Tensor, scales: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    sizes = volumes.shape[1:]
    axes = [torch.arange(n, dtype=scales.dtype, device=scales.device) for n in sizes]
    middle = torch.stack([(count - 1) / 2, *[torch.full_like(count, n - 1) / 2 for n in sizes[1:]]], 1).to(scales.dtype)
    middle, scales = middle[:, None, None, None], scales[:, None, None, None]
    place = (torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) - middle) / scales
    return place @ _rotation(angles).transpose(1, 2)[:, None, None] + middle


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3): from a place after the turns about the row, slice and column axes, in TorchIO's order, to the one before."""
    (ca, cb, cc), (sa, sb, sc) = angles.cos().unbind(1), angles.sin().unbind(1)
    o, i = torch.zeros_like(ca), torch.ones_like(ca)
    about_slices = torch.stack([i, o, o, o, ca, sa, o, -sa, ca], 1).view(-1, 3, 3)
    about_rows = torch.stack([cb, o, -sb, o, i, o, sb, o, cb], 1).view(-1, 3, 3)
    about_columns = torch.stack([cc, sc, o, -sc, cc, o, o, o, i], 1).view(-1, 3, 3)
    return about_rows @ about_slices @ about_columns
