import csv
import json
import math

import numpy as np
import pytest

from engine.errors import UserError
from engine.segmentation_report import CaseScores, best_median_worst, show, write_report
from engine.segmentation_scores import ClassScores

NAN = math.nan


def row(number, dice, status="found", unit="mm"):
    absent = status == "absent"
    return ClassScores(number, status, dice, dice / (2 - dice), NAN if absent else 10 * (1 - dice), dice, unit)


def cases(seed=1, gain=0.0):
    """Three volumes of two subjects: all found; one missed; one absent and one invented."""
    return [
        CaseScores(seed, "a/1.nii", "p1", "test", [row(1, 0.8 + gain), row(2, 0.6 + gain)]),
        CaseScores(seed, "a/2.nii", "p1", "test", [row(1, 0.9 + gain), row(2, 0.0, "missed")]),
        CaseScores(seed, "b/é.nii", "p2", "test", [row(1, NAN, "absent"), row(2, 0.0, "invented")]),
    ]


def test_means_count_what_was_missed_and_invented_but_nothing_that_is_absent(tmp_path):
    found = write_report(tmp_path, cases(), ["atrium", "wall"], 2.0)["test"]
    assert (found["volumes"], found["subjects"], found["unit"], found["seeds"]) == (3, 2, "mm", [1])
    assert found["classes"]["atrium"]["dice"]["value"] == pytest.approx(0.85)
    assert found["classes"]["wall"]["dice"]["value"] == pytest.approx(0.2)
    assert found["mean"]["dice"]["value"] == pytest.approx((0.7 + 0.45 + 0.0) / 3)  # over volumes, of each over its classes
    assert found["classes"]["wall"]["hd95"]["value"] == pytest.approx((4 + 10 + 10) / 3)
    counts = {
        name: [figures[s] for s in ("found", "missed", "invented", "absent")] for name, figures in found["classes"].items()
    }
    assert counts == {"atrium": [2, 0, 0, 1], "wall": [1, 1, 1, 0]}
    assert (found["classes"]["atrium"]["dice"]["cases"], found["classes"]["atrium"]["dice"]["subjects"]) == (2, 1)
    assert found["classes"]["atrium"]["dice"]["interval"] is None  # of one subject
    low, high = found["mean"]["dice"]["interval"]
    assert low == 0 and high == pytest.approx(0.575)  # subject p2 alone, p1 alone


def test_a_class_that_is_absent_from_a_volume_leaves_its_mean_to_the_others(tmp_path):
    volume = CaseScores(1, "a", "p", "test", [row(1, 0.8), row(2, NAN, "absent")])
    assert volume.dice == 0.8
    assert write_report(tmp_path, [volume], ["atrium", "wall"], 2.0)["test"]["mean"]["dice"]["value"] == 0.8


def test_seeds_are_averaged_and_their_deviation_is_told(tmp_path):
    found = write_report(tmp_path, cases(1) + cases(2, gain=0.1), ["atrium", "wall"], 2.0)["test"]
    dice = found["classes"]["atrium"]["dice"]
    assert dice["value"] == pytest.approx(0.9) and dice["seeds"] == pytest.approx({"1": 0.85, "2": 0.95})
    assert dice["deviation"] == pytest.approx(0.1 / math.sqrt(2))
    assert found["volumes"] == 3 and found["classes"]["wall"]["found"] == 2  # counts are over all seeds


def test_the_files_hold_each_case_and_the_figures(tmp_path):
    results = write_report(tmp_path / "new", cases(), ["atrium", "wall"], 2.0)
    assert json.loads((tmp_path / "new/results.json").read_text(encoding="utf-8")) == results
    with open(tmp_path / "new/cases.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == "seed case subject split class status dice iou hd95 surface_dice unit".split()
    assert [(r["case"], r["class"], r["status"]) for r in rows[-2:]] == [
        ("b/é.nii", "atrium", "absent"),
        ("b/é.nii", "wall", "invented"),
    ]
    assert rows[4]["dice"] == "" and float(rows[0]["iou"]) == 0.8 / 1.2 and rows[0]["unit"] == "mm"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["cases.csv", "results.json"]


def test_splits_are_told_apart(tmp_path):
    both = [*cases(), CaseScores(1, "c.nii", "p3", "valid", [row(1, 1.0), row(2, 1.0)])]
    results = write_report(tmp_path, both, ["atrium", "wall"], 2.0)
    assert results["valid"]["mean"]["dice"]["value"] == 1 and results["test"]["volumes"] == 3


def test_distances_in_millimetres_and_in_voxels_have_no_common_mean(tmp_path):
    mixed = [*cases(), CaseScores(1, "c.nii", "p3", "test", [row(1, 1.0, unit="voxel"), row(2, 1.0, unit="voxel")])]
    found = write_report(tmp_path, mixed, ["atrium", "wall"], 2.0)
    assert found["test"]["unit"] == "mixed" and list(found["test"]["mean"]) == ["dice", "iou"]
    show(found)


def test_seeds_that_were_scored_on_other_volumes_are_refused(tmp_path):
    with pytest.raises(UserError, match="seed 2 was scored on other volumes than seed 1"):
        write_report(tmp_path, cases(1) + cases(2)[:2], ["atrium", "wall"], 2.0)
    assert not list(tmp_path.iterdir())


def test_the_table_tells_values_intervals_and_counts(tmp_path, capsys):
    show(write_report(tmp_path, cases(1) + cases(2, gain=0.1), ["atrium", "wall"], 2.0))
    shown = capsys.readouterr().out
    assert "test: 3 volumes of 2 subjects, mean of 2 seeds" in shown and "hd95 (mm)" in shown
    assert "0.900 ± 0.071" in shown and "invented" in shown


def test_best_median_and_worst_are_chosen_by_dice():
    chosen = best_median_worst(cases())
    assert {name: case.case for name, case in chosen.items()} == {"best": "a/1.nii", "median": "a/2.nii", "worst": "b/é.nii"}
    assert list(best_median_worst(cases()[:2])) == ["best", "worst"] and list(best_median_worst(cases()[:1])) == ["best"]
    nothing = CaseScores(1, "x", "p", "test", [row(1, NAN, "absent")])
    assert best_median_worst([nothing]) == {} and np.isnan(nothing.dice)
