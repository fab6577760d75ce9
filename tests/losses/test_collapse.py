import math

import pytest
import torch
import torch.nn.functional as F

from losses.collapse import CollapseGuard, deviation, rankme, warnings_again


def test_rankme_counts_the_directions_that_are_used():
    assert rankme(torch.eye(8)).item() == pytest.approx(8)
    assert rankme(torch.ones(50, 8)).item() == pytest.approx(1, abs=1e-6)
    q = torch.linalg.qr(torch.randn(100, 5, dtype=torch.float64))[0]
    assert rankme(q).item() == pytest.approx(5)


def test_deviation_is_one_for_all_directions_and_zero_for_one():
    assert deviation(F.normalize(torch.randn(20_000, 16), dim=1)).item() == pytest.approx(1, rel=0.01)
    assert deviation(torch.ones(10, 4) / 2).item() == 0


def epoch(guard, codes, embeddings, loss):
    guard.add("volumes", codes, embeddings, torch.tensor(loss))
    return guard.report()


def test_a_healthy_epoch_has_figures_and_no_warning():
    guard = CollapseGuard({"volumes": 8})
    figures, warnings = epoch(guard, torch.arange(32) % 8, F.normalize(torch.randn(32, 16), dim=1), 1.0)
    assert figures["volumes_clusters_used"] == 8 and warnings == []
    assert figures["volumes_entropy"] == pytest.approx(math.log(8)) == figures["volumes_ln_k"]


def test_collapse_is_warned_of_with_its_cause():
    guard = CollapseGuard({"volumes": 8})
    one = torch.ones(32, 16) / 4
    for _ in range(2):
        _, warnings = epoch(guard, torch.zeros(32, dtype=torch.int64), one, math.log(8))
    text = " ".join(warnings)
    assert "ln K" in text and "effective rank of 1.00" in text and "1 clusters are in use where 8 could be" in text


def test_soft_codes_and_ignored_rows_are_counted_rightly():
    guard = CollapseGuard({"volumes": 3})
    guard.add("volumes", torch.tensor([[0.1, 0.8, 0.1]]), torch.ones(1, 2), torch.tensor(0.0))
    figures, _ = epoch(guard, torch.tensor([-100, 2]), torch.ones(2, 2), 0.0)
    assert figures["volumes_clusters_used"] == 2


def test_renamed_clusters_are_no_change():
    guard = CollapseGuard({"volumes": 3})
    before = torch.tensor([0, 0, 1, 1, 2, 2])
    changed = []
    for assigned in (before, (before + 1) % 3, torch.tensor([1, 1, 2, 2, 0, 1])):
        guard.compare("volumes", assigned)
        changed.append(guard.report()[0].get("volumes_changed"))
    assert changed == [None, 0, pytest.approx(1 / 6)]


def test_clusters_in_use_are_those_of_the_last_epoch_and_in_the_first_one_so_far_also_after_a_resume():
    guard, later = CollapseGuard({"volumes": 8}), CollapseGuard({"volumes": 8})
    assert guard.in_use() == {}
    guard.add("volumes", torch.tensor([1, 1, 4]), torch.ones(3, 2), torch.tensor(0.0))
    assert guard.in_use() == {"volumes_clusters_used": 2}
    epoch(guard, torch.tensor([5]), torch.ones(1, 2), 0.0)
    guard.add("volumes", torch.tensor([0]), torch.ones(1, 2), torch.tensor(0.0))
    later.load_state_dict(guard.state_dict())
    assert guard.in_use() == later.in_use() == {"volumes_clusters_used": 3}


def test_warnings_can_be_had_again_from_the_figures():
    guard, one = CollapseGuard({"volumes": 8, "slices": 4}), torch.ones(32, 16) / 4
    epochs, said = [], []
    for _ in range(3):
        guard.add("slices", torch.arange(32) % 4, F.normalize(torch.randn(32, 16), dim=1), torch.tensor(0.5))
        figures, warnings = epoch(guard, torch.zeros(32, dtype=torch.int64), one, math.log(8))
        epochs.append({"epoch": 0, "loss": None, **figures})
        said.append(warnings)
    assert said[2] and warnings_again(epochs) == said
    assert warnings_again([{"loss": 1.0}, {"volumes_ln_k": 2.0, "volumes_loss": None}]) == [[], []]
