"""Which slices show the same anatomy: of two views of a volume, and of a view and the rows of the slice bank."""

import torch

# positions are float32 slice numbers that went through a few operations
TOLERANCE = 1e-4


def match_slices(
    positions_a: torch.Tensor,
    real_a: torch.Tensor,
    step_a: torch.Tensor,
    positions_b: torch.Tensor,
    real_b: torch.Tensor,
    step_b: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """positions (B, N) in source slices, real (B, N) bool, step (B,) source slices a slice, of views a and b of B volumes.

    → (row, slice_a, slice_b), int64 vectors of the matched pairs: slices that are each other's nearest and at most half the
    larger step apart. Of equally near slices the lower number is the nearest.
    """
    distances = (positions_a.double()[:, :, None] - positions_b.double()[:, None]).abs()  # (B, Na, Nb)
    distances.masked_fill_(~(real_a[:, :, None] & real_b[:, None]), torch.inf)
    of_a, of_b = distances.argmin(2), distances.argmin(1)
    slices = torch.arange(of_a.shape[1], device=of_a.device)
    mutual = of_b.gather(1, of_a) == slices
    near = distances.gather(2, of_a[..., None])[..., 0] <= torch.maximum(step_a, step_b)[:, None] / 2 + TOLERANCE
    row, slice_a = (mutual & near).nonzero(as_tuple=True)
    return row, slice_a, of_a[row, slice_a]


def bank_positions(slices: int, kept: int) -> torch.Tensor:
    """(min(slices, kept),) float32: source positions of a volume's rows in the slice bank, `kept` at most.

    All slices where there are no more; else the middles of `kept` equal parts of the volume.
    """
    kept = min(slices, kept)
    return ((torch.arange(kept).double() + 0.5) * slices / kept - 0.5).float()


def match_rows(
    positions: torch.Tensor,
    real: torch.Tensor,
    step: torch.Tensor,
    first_row: torch.Tensor,
    kept: torch.Tensor,
    slices: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """positions (B, N), real (B, N) bool, step (B,) of views; first_row, kept, slices (B,) int64 of their volumes.

    A volume of `slices` source slices has the `kept` bank rows from `first_row`, at `bank_positions`. → rows (B, N) int64: the
    nearest row (the lower of two), -1 if it is farther than half the larger of row spacing and step, or the slice is not
    real; nearest (B, N) bool: whether the slice is its view's nearest to that row (the first of equals), the one to write.
    """
    spacing = slices.double() / kept
    place = (positions.double() + 0.5) / spacing[:, None] - 0.5  # in rows
    row = torch.ceil(place - 0.5).clamp_min(0).minimum(kept[:, None] - 1.0)
    distance = (place - row).abs() * spacing[:, None]
    found = real & (distance <= torch.maximum(spacing, step.double())[:, None] / 2 + TOLERANCE)
    rows = torch.where(found, row.long() + first_row[:, None], -1)

    slice_number = torch.arange(positions.shape[1], device=positions.device)
    rival = (rows[:, :, None] == rows[:, None]) & found[:, None]  # (B, slice, other slice)
    closer = distance[:, None] < distance[:, :, None]
    equal_but_first = (distance[:, None] == distance[:, :, None]) & (slice_number < slice_number[:, None])
    return rows, found & ~(rival & (closer | equal_but_first)).any(2)
