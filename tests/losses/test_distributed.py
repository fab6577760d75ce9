import pytest
import torch

from losses.distributed import all_sum, gather_rows, global_mean, rank, world_size
from tests.losses.loss_processes import ROWS, SHARES, draw


def test_without_a_group_there_is_one_process():
    assert (rank(), world_size()) == (0, 1)
    rows = torch.arange(6).view(3, 2)
    assert torch.equal(gather_rows(rows), rows) and torch.equal(all_sum(rows), rows)
    values = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    global_mean(values).backward()
    assert torch.equal(values.grad, torch.full((3,), 1 / 3))


def test_the_mean_of_nothing_is_zero_in_the_graph():
    values = torch.zeros(0, requires_grad=True)
    mean = global_mean(values)
    mean.backward()
    assert mean == 0 and values.grad.shape == (0,)


def test_ranks_know_themselves(two):
    assert [results["world"] for results in two] == [(0, 2), (1, 2)]


def test_rows_are_gathered_in_rank_order_whatever_their_number_and_type(two):
    for results in two:
        gathered = results["gathered"]
        assert gathered["whole"].tolist() == [10, 11, 12]
        assert gathered["half"].dtype == torch.bfloat16
        assert gathered["half"][:, 0, 0].tolist() == [0.5, 0.5, 1.5] and gathered["half"].shape == (3, 2, 3)
        assert gathered["bool"].dtype == torch.bool and gathered["bool"].shape == (1, 5) and gathered["bool"].all()
        assert gathered["nothing"].shape == (0, 4)


@pytest.mark.parametrize("share", SHARES)
def test_global_mean_averages_to_the_mean_of_all_rows(two, share):
    values, parts = draw(ROWS), [results["reduced", share] for results in two]
    assert sum(part["mean"] for part in parts) / 2 == pytest.approx(values.mean().item(), rel=1e-14)
    # averaged over ranks, each value's gradient is 1 / count
    for part in parts:
        torch.testing.assert_close(part["gradient"] / 2, torch.full_like(part["gradient"], 1 / ROWS))
        assert part["empty"] == 0
        assert part["sum"].item() == pytest.approx(values.sum().item()) and part["max"] == values.max()
