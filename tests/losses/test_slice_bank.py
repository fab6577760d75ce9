import numpy as np
import torch

from losses.slice_bank import SliceRows, targets_of


def test_every_slice_of_every_volume_and_every_image_has_one_row():
    rows = SliceRows([3, 40, 5], most=8, images=4)
    assert (rows.first_row.tolist(), rows.first_image, rows.total) == ([0, 3, 11], 16, 20)
    seen = []
    for volume, depth in enumerate([3, 40, 5]):
        real = torch.ones(2, depth, dtype=torch.bool)
        row, _, writes = rows.of(
            np.array([volume]),
            torch.arange(float(depth)).expand(2, -1),
            real,
            torch.ones(2),
            np.array([], np.int64),
        )
        seen += row[writes][: int(writes.sum()) // 2].tolist()
    row, crop, writes = rows.of(
        np.array([0]), torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.bool), torch.ones(2), np.arange(4)
    )
    assert seen + row[2:6].tolist() == list(range(20))
    assert crop.tolist() == [0, 1, 0, 0, 0, 0, 1, 1, 1, 1] and writes[2:].all()


def test_both_views_of_a_slice_have_the_same_row_and_padding_is_left_out():
    rows = SliceRows([4, 3], most=32)
    positions = torch.tensor([[0.0, 1, 2], [2, 1, 0]])
    real = torch.tensor([[True, True, True], [True, True, True]])
    row, crop, _ = rows.of(np.array([1]), positions, real, torch.ones(2), np.array([], np.int64))
    assert row.tolist() == [4, 5, 6, 6, 5, 4] and crop.tolist() == [0, 0, 0, 1, 1, 1]
    real[1, 2] = False
    assert len(rows.of(np.array([1]), positions, real, torch.ones(2), np.array([], np.int64))[0]) == 5


def test_a_slice_without_a_row_is_ignored():
    assert targets_of(torch.tensor([7, 8, -100]), torch.tensor([1, -1, 2, 0])).tolist() == [8, -100, -100, 7]
