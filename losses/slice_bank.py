"""Which row of the memory bank belongs to a slice: some slices of every volume have one, then the images."""

from collections.abc import Sequence

import numpy as np
import torch

from .matching import match_rows


class SliceRows:
    """Rows of the slice bank: of each volume min(depth, most) evenly spaced slices, in the order of the volumes, then images.

    A slice of a view belongs to the row that stands for the same anatomical slice, if there is one near enough.
    """

    def __init__(self, depths: Sequence[int], most: int, images: int = 0):
        self.slices = torch.tensor(depths)
        self.kept = self.slices.clamp(max=most)
        ends = self.kept.cumsum(0)
        self.first_row, self.first_image = ends - self.kept, int(ends[-1])
        self.total = self.first_image + images

    def of(
        self, index: np.ndarray, positions: torch.Tensor, real: torch.Tensor, step: torch.Tensor, images: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(row, crop, writes), each of M + 2 I entries: the M real slices in the order of `real`, then two crops of I images.

        index: (B,) numbers of the volumes; positions and real (2B, N), step (2B,) of their two views; images: (I,) numbers.
        row: int64, −1 = none; crop: which view or crop, 0 or 1; writes: is it the one of its view that the bank takes? All of
        it on the host.
        """
        index, images = torch.from_numpy(index), torch.from_numpy(images)
        slices, kept, first = (x[index].repeat(2) for x in (self.slices, self.kept, self.first_row))
        rows, nearest = match_rows(positions, real, step, first, kept, slices)
        view = torch.arange(2).repeat_interleave(len(index))[:, None].expand(real.shape)
        image_rows = (images + self.first_image).repeat(2)
        crop = torch.arange(2).repeat_interleave(len(images))
        written = torch.ones_like(image_rows, dtype=torch.bool)
        return torch.cat([rows[real], image_rows]), torch.cat([view[real], crop]), torch.cat([nearest[real], written])


def targets_of(assigned: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The clusters (n,) of rows (n,), by the assignments of all rows; -100, to be ignored, where there is no row."""
    rows = rows.to(assigned.device, non_blocking=True)
    return torch.where(rows >= 0, assigned[rows.clamp(min=0)], -100)
