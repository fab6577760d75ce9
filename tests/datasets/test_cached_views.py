import numpy as np
import pytest
import torch

from datasets.cached_views import CachedViews, collate_cached

VOLUMES, VIEWS, SLICES, DIM = 5, 6, 7, 4
COUNTS = np.array([7, 3, 5, 1, 7])


@pytest.fixture
def cached(tmp_path):
    size = VOLUMES, VIEWS, SLICES, DIM
    (tmp_path / "views").write_bytes(bytes(CachedViews.file_size(*size)))
    filled = CachedViews(tmp_path / "views", *size, seed=31)
    for turn in range(VIEWS // 2):
        for index in (np.array([3, 0]), np.array([1, 2, 4])):
            filled.write(index, COUNTS[index], 2 * turn, embeddings(index, turn))
    return CachedViews(tmp_path / "views", *size, seed=31)


def embeddings(index, turn):
    """(2B, N, D) that tell their volume, view and slice: as long as the longest volume of the batch."""
    longest = COUNTS[index].max()
    numbers = [[100 * volume + 10 * (2 * turn + view) + np.arange(longest) for volume in index] for view in (0, 1)]
    return torch.tensor(np.array(numbers), dtype=torch.float32).flatten(0, 1)[..., None].expand(-1, -1, DIM)


def test_each_item_is_two_different_views_of_its_volume_others_in_each_epoch(cached):
    assert len(cached) == VOLUMES
    for index in range(VOLUMES):
        pairs = set()
        for turn in range(20):
            item = cached[index, turn]
            assert item["slices"].shape == (2, COUNTS[index], DIM) and item["count"] == COUNTS[index]
            numbers = item["slices"][:, :, 0] - torch.arange(COUNTS[index])
            volume, view = numbers // 100, numbers % 100
            assert (volume == index).all() and (view[:, :1] == view).all()
            pairs.add(tuple((view[:, 0] / 10).int().tolist()))
            assert torch.equal(item["slices"], cached[index, turn]["slices"])
        assert all(a < b for a, b in pairs) and len(pairs) > 4


def test_a_batch_is_padded_to_its_longest_volume_first_views_first(cached):
    batch = collate_cached([cached[index, 0] for index in (1, 2)])
    assert batch["slices"].shape == (4, 5, DIM) and torch.from_numpy(batch["on_host"]["real"]).sum(1).tolist() == [3, 5, 3, 5]
    assert not batch["slices"][~torch.from_numpy(batch["on_host"]["real"])].any()
    for row, (index, view) in enumerate([(1, 0), (2, 0), (1, 1), (2, 1)]):
        assert torch.equal(batch["slices"][row, : COUNTS[index]], cached[index, 0]["slices"][view])
    assert batch["on_host"]["index"].tolist() == [1, 2] and batch["on_host"]["turn"].tolist() == [0, 0]
