import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.matching import bank_positions, match_rows, match_slices


def all_real(rows, n):
    return torch.ones(rows, n, dtype=torch.bool)


def test_slices_of_a_flipped_view_are_matched_to_their_sources():
    positions = torch.arange(7.0)[None]
    _, a, b = match_slices(positions, all_real(1, 7), torch.ones(1), positions.flip(1), all_real(1, 7), torch.ones(1))
    assert a.tolist() == list(range(7)) and b.tolist() == list(range(6, -1, -1))


def test_shifted_and_scaled_views_match_by_position_and_padding_never_does():
    a, b = torch.tensor([[0.0, 1, 2, 3]]), torch.tensor([[2.4, 3.5, 4.8, 0.0]])
    real_b = torch.tensor([[True, True, True, False]])
    volume, slice_a, slice_b = match_slices(a, all_real(1, 4), torch.ones(1), b, real_b, torch.full((1,), 1.2))
    assert (volume.tolist(), slice_a.tolist(), slice_b.tolist()) == ([0, 0], [2, 3], [0, 1])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_pairs_are_mutually_nearest_within_half_the_larger_step(rows, n, m, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (10 * torch.rand(rows, size, generator=generator) for size in (n, m))
    step_a, step_b = (torch.rand(rows, generator=generator) * 3 + 0.1 for _ in range(2))
    found = set(zip(*(x.tolist() for x in match_slices(a, all_real(rows, n), step_a, b, all_real(rows, m), step_b))))
    for r in range(rows):
        for i in range(n):
            for j in range(m):
                d = (a[r, i] - b[r, j]).abs()
                nearest = d <= (a[r, i] - b[r]).abs().min() and d <= (a[r] - b[r, j]).abs().min()
                assert ((r, i, j) in found) == bool(nearest and d <= max(step_a[r], step_b[r]) / 2 + 1e-4)


def one_volume(positions, slices, kept, first_row=0, real=None):
    positions = torch.as_tensor(positions)[None]
    real = torch.ones_like(positions, dtype=torch.bool) if real is None else torch.tensor([real])
    rows, nearest = match_rows(
        positions, real, torch.ones(1), torch.tensor([first_row]), torch.tensor([kept]), torch.tensor([slices])
    )
    return rows[0], nearest[0]


def test_all_slices_of_a_small_volume_have_rows_of_their_own():
    rows, nearest = one_volume(torch.arange(6.0).flip(0), 6, 6, first_row=100)
    assert rows.tolist() == [105, 104, 103, 102, 101, 100] and nearest.all()
    assert bank_positions(6, 16).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_deep_volume_shares_its_rows_and_the_nearest_slice_writes():
    rows, nearest = one_volume(torch.arange(64.0), 64, 16)
    assert rows.tolist() == [i // 4 for i in range(64)]
    assert nearest.sum() == 16 and len(set(rows[nearest].tolist())) == 16


def test_padding_has_no_row():
    rows, nearest = one_volume([0.0, 1, 0], 2, 2, first_row=5, real=[True, True, False])
    assert rows.tolist() == [5, 6, -1] and nearest.tolist() == [True, True, False]
