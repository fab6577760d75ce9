"""From slices to rows: embeddings of a step stand one below the other, real slices first, images after them."""

import torch

from .matching import match_slices


def paired_rows(
    positions: torch.Tensor, real: torch.Tensor, step: torch.Tensor, images: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(rows of view a, rows of view b, matched share): the same anatomical slices, then the two crops of each image.

    positions and real (2B, N), step (2B,): both views of B volumes, one after the other. Rows count the real slices in the
    order of `real`, then 2 · images crops, all first crops before all second ones. The share is that of view a's real slices.
    """
    (pa, pb), (ra, rb), (sa, sb) = positions.chunk(2), real.chunk(2), step.chunk(2)
    volume, slice_a, slice_b = match_slices(pa, ra, sa, pb, rb, sb)
    row = real.flatten().cumsum(0).view(real.shape) - 1
    row_a, row_b = row.chunk(2)
    first = real.sum() + torch.arange(images, device=real.device)
    rows_a = torch.cat([row_a[volume, slice_a], first])
    rows_b = torch.cat([row_b[volume, slice_b], first + images])
    return rows_a, rows_b, len(volume) / ra.sum()
