import torch

from losses.pairs import paired_rows


def test_rows_of_a_flipped_view_and_of_image_crops_are_paired():
    positions = torch.tensor([[0.0, 1, 2], [0, 1, 0], [2, 1, 0], [1, 0, 0]])
    real = torch.tensor([[True] * 3, [True, True, False]] * 2)
    a, b, share = paired_rows(positions, real, torch.ones(4), 2, torch.device("cpu"))
    # rows: 0-2 and 3-4 in view a, 5-7 and 8-9 in view b, then crops 10, 11 and 12, 13
    assert dict(zip(a.tolist(), b.tolist())) == {0: 7, 1: 6, 2: 5, 3: 9, 4: 8, 10: 12, 11: 13}
    assert share == 1


def test_the_share_counts_slices_without_a_partner():
    positions = torch.tensor([[0.0, 1, 2, 3], [2, 3, 4, 5]])
    _, _, share = paired_rows(positions, torch.ones(2, 4, dtype=torch.bool), torch.ones(2), 0, torch.device("cpu"))
    assert share == 0.5
