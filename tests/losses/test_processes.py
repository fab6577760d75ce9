"""The number of processes changes no number, also with unequal shares and with a rank that has nothing."""

import pytest
import torch

from tests.losses.loss_processes import SHARES

shares = pytest.mark.parametrize("share", SHARES)


def same(a, b) -> bool:
    """Equal bits, in whatever they are nested."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return all(map(same, a, b)) if isinstance(a, (list, tuple)) else a == b


@shares
@pytest.mark.parametrize("loss", ["swav", "deepcluster", "masked", "nothing valid"])
def test_losses_and_averaged_gradients_are_those_of_one_process(one, two, share, loss):
    value, gradient = one["losses", share][loss]
    for results in two:
        torch.testing.assert_close(results["losses", share][loss][0], value, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(results["losses", share][loss][1], gradient, rtol=1e-11, atol=1e-14)


@shares
def test_a_loss_without_any_valid_row_is_zero_and_not_nan(one, share):
    value, gradient = one["losses", share]["nothing valid"]
    assert value == 0 and not gradient.any()


@shares
def test_queues_are_the_same_on_every_rank_and_their_shares_are_the_queue_once(one, two, share):
    for results in two:
        for part in ("rows", "history", "state"):
            assert same(results["queue", share][part], one["queue", share][part])
    parts = [results["queue", share]["share"] for results in two]
    assert torch.equal(torch.cat(parts).sort(0).values, one["queue", share]["share"].sort(0).values)


@shares
def test_kmeans_gives_the_same_bits(one, two, share):
    for results in two:
        assert same(results["clusters", share], one["clusters", share])


@shares
def test_banks_hold_and_cluster_the_same(one, two, share):
    for results in two:
        bank = results["bank", share]
        assert bank["same"] and not bank["full"]
        for part in ("centroids", "assigned"):
            assert same(bank[part], one["bank", share][part])
    assert same(two[0]["bank", share]["state"], one["bank", share]["state"])
    assert two[1]["bank", share]["state"]["table"].numel() == 0  # the first rank saves it
    assert one["bank", share]["assigned"].tolist()[20:] == [-100] * 3
    owned = [results["bank", share]["own"] for results in two]
    assert sorted(torch.cat(owned).tolist()) == list(range(23))


@shares
def test_scores_of_masked_slices_and_the_guards_figures_agree(one, two, share):
    for results in two:
        assert results["score", share] == pytest.approx(one["score", share], rel=1e-11)
        assert results["guard", share] == pytest.approx(one["guard", share], rel=1e-6)
