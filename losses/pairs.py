"""From slices to rows: embeddings of a step stand one below the other, real slices first, images after them."""

import torch

from .matching import match_slices


def paired_rows(
    positions: torch.Tensor, real: torch.Tensor, step: torch.Tensor, images: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(rows of view a, rows of view b, matched share): the same anatomical slices, then the two crops of each image.

    positions and real (2B, N), step (2B,), on the host: both views of B volumes, one after the other. Rows, on `device`, count
    the real slices in the order of `real`, then 2 · images crops, all first crops before all second ones. The share is that of
    view a's real slices.
    """
    (pa, pb), (ra, rb), (sa, sb) = positions.chunk(2), real.chunk(2), step.chunk(2)
    volume, slice_a, slice_b = match_slices(pa, ra, sa, pb, rb, sb)
    row = real.flatten().cumsum(0).view(real.shape) - 1
    row_a, row_b = row.chunk(2)
    first = real.sum() + torch.arange(images)
    rows_a = torch.cat([row_a[volume, slice_a], first])
    rows_b = torch.cat([row_b[volume, slice_b], first + images])
    share = len(volume) / ra.sum()
    return tuple(x.to(device, non_blocking=True) for x in (rows_a, rows_b, share))
