import pytest

from engine.results import write_rows
from engine.segmentation_report import COLUMNS
from engine.segmented_cases import dice_by_case, dice_difference


def table(path, rows):
    """rows: seed, case, split, class, Dice; a case is of a subject of its own."""
    full = [[seed, case, case, split, name, "found", dice, "", "", "", "mm"] for seed, case, split, name, dice in rows]
    write_rows(path, COLUMNS, full)
    return path


def test_a_case_has_the_mean_of_its_classes_for_each_seed_and_absent_ones_do_not_count(tmp_path):
    rows = [(1, "a", "test", "heart", 0.8), (1, "a", "test", "lung", 0.4), (2, "a", "test", "heart", 0.2)]
    rows += [(2, "a", "test", "lung", ""), (1, "b", "valid", "heart", 0.5)]
    path = table(tmp_path / "cases.csv", rows)
    assert dice_by_case([path], "test") == {"a": ("a", [pytest.approx(0.6), 0.2])}
    assert set(dice_by_case([path])) == {"a", "b"}


def test_differences_are_of_the_same_case_whatever_the_order_of_the_tables(tmp_path):
    ours = table(tmp_path / "ours.csv", [(1, "a", "test", "x", 0.9), (1, "b", "test", "x", 0.5)])
    theirs = table(tmp_path / "theirs.csv", [(1, "b", "test", "x", 0.4), (1, "a", "test", "x", 0.8)])
    found = dice_difference(*(dice_by_case([path]) for path in (ours, theirs)))
    assert found.value == pytest.approx(0.1) and found.low == pytest.approx(0.1) and found.cases == 2
